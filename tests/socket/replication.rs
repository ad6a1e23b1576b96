//! Debian's `redis-server` as a replica of this server: it takes the snapshot, follows the stream, and comes back after
//! its link was cut. In the end both hold the same keys.

use std::cell::RefCell;

use crate::harness::{Placement, Redis, Server, everywhere, wait_until};
use crate::wire::{Conn, Random, Value, encode, ok};

fn start(placement: Placement, more: &[&str]) -> Server {
    placement.start(&[&["--enable-debug-command", "yes", "--save", ""], more].concat())
}

fn follow(server: &Server) -> Option<Redis> {
    let master = format!("127.0.0.1 {}", server.port);
    Redis::start(&["--replicaof", &master, "--enable-debug-command", "yes", "--repl-diskless-load", "disabled"])
}

fn field(conn: &RefCell<Conn>, section: &str, name: &str) -> String {
    let info = conn.borrow_mut().cmd(&format!("INFO {section}"));
    let text = String::from_utf8_lossy(info.bytes()).into_owned();
    text.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap_or_default().trim().to_string()
}

fn wait_until_linked(replica: &RefCell<Conn>) {
    wait_until("the replica's link is up", || field(replica, "replication", "master_link_status") == "up");
}

fn digest(conn: &RefCell<Conn>) -> String {
    match conn.borrow_mut().cmd("DEBUG DIGEST") {
        Value::Simple(digest) => digest,
        other => panic!("no digest: {other:?}"),
    }
}

fn wait_until_equal(master: &RefCell<Conn>, replica: &RefCell<Conn>) {
    wait_until("both have the same keys", || {
        let before = digest(master);
        assert_eq!(master.borrow_mut().cmd("WAIT 1 60000").int(), 1, "the replica acknowledges");
        let there = digest(replica);
        before == there && digest(master) == before
    });
}

/// Lines that write every type, in ways that are told otherwise than they were sent, and over keys of several shards.
const LINES: &[&str] = &[
    "SET s1 value",
    "SET s2 value EX 1000",
    "SET gone value PX 1",
    "INCRBYFLOAT float 1.5",
    "SETRANGE s3 10 x",
    "MSET m1 1 m2 2 m3 3 m4 4",
    "MSETNX n1 1 n2 2 n3 3 n4 4",
    "RENAME m1 renamed",
    "COPY m2 copied",
    "DEL m3 m4 none",
    "UNLINK n1 n2",
    "RPUSH l1 a b c d e f",
    "LMOVE l1 l2 LEFT RIGHT",
    "RPOPLPUSH l1 l3",
    "BLMOVE l1 l4 LEFT LEFT 1",
    "LMPOP 2 none l1 LEFT COUNT 2",
    "SADD set1 a b c d e f 1 2 3",
    "SPOP set1",
    "SPOP set1 2",
    "SMOVE set1 set2 a",
    "SUNIONSTORE set3 set1 set2",
    "SADD numbers 1 2 3",
    "HSET h a 1 b 2 c 3",
    "HINCRBYFLOAT h a 0.5",
    "ZADD z1 1 a 2 b 3 c",
    "ZADD z2 5 a",
    "ZUNIONSTORE z3 2 z1 z2",
    "ZPOPMIN z1",
    "GEOADD g1 13 38 here",
    "XADD x1 1-1 a 1",
    "XADD x1 2-1 a 2",
    "XGROUP CREATE x1 group 0",
    "XREADGROUP GROUP group me COUNT 1 STREAMS x1 >",
    "PFADD p1 a b c",
    "PFADD p2 d",
    "PFMERGE p3 p1 p2",
    "SETBIT bits 100 1",
    "BITOP OR bits2 bits s1",
    "SORT l1 ALPHA STORE sorted",
    "EXPIRE renamed 5000",
    "GETEX copied PX 100000",
    "PUBLISH channel message",
    "EVAL redis.call('SET',KEYS[1],1)redis.call('SET',KEYS[2],2)return(redis.call('SPOP','numbers')) 2 e1 e2",
    "SELECT 3",
    "SET other 1",
    "MOVE other 4",
    "MULTI",
    "SET t1 1",
    "SELECT 5",
    "INCR t2",
    "RENAME t2 t3",
    "EXEC",
    "SELECT 7",
    "SET doomed 1",
    "FLUSHDB",
    "SWAPDB 5 6",
    "SELECT 0",
];

/// Writers at once, each over connections of its own, with commands over keys of all shards.
fn write_at_once(server: &Server) {
    std::thread::scope(|scope| {
        for writer in 0..4u64 {
            let mut conn = server.connect();
            scope.spawn(move || {
                let mut random = Random::new(writer + 1);
                for _ in 0..60 {
                    let mut bytes = Vec::new();
                    let mut replies = 0;
                    for _ in 0..10 {
                        let mut key = || format!("key{}", random.below(40));
                        let (a, b, c) = (key(), key(), key());
                        let n = random.below(1000).to_string();
                        let list = |name: &str| format!("list{}", &name[3..]);
                        let (la, lb) = (list(&a), list(&b));
                        let words: Vec<&str> = match random.below(10) {
                            0 => vec!["MSET", &a, &n, &b, &n, &c, &n],
                            1 => vec!["DEL", &a, &b],
                            2 => vec!["MSETNX", &a, &n, &b, &n, &c, &n],
                            3 => vec!["RPUSH", &la, &n, &n],
                            4 => vec!["LMOVE", &la, &lb, "LEFT", "RIGHT"],
                            5 => vec!["SET", &a, &n, "PX", "30"],
                            6 => vec!["APPEND", &a, "x"],
                            7 if a != b => vec!["COPY", &a, &b, "REPLACE"],
                            8 => vec!["EVAL", "return redis.call('MSET', KEYS[1], 1, KEYS[2], 2)", "2", &a, &b],
                            _ => {
                                for words in [&["MULTI"][..], &["SET", &a, &n], &["SET", &b, &n], &["EXEC"]] {
                                    bytes.extend_from_slice(&encode(words));
                                    replies += 1;
                                }
                                continue;
                            }
                        };
                        bytes.extend_from_slice(&encode(&words));
                        replies += 1;
                    }
                    conn.send(&bytes);
                    for _ in 0..replies {
                        let reply = conn.read();
                        assert!(!matches!(reply, Value::Error(_)), "{reply:?}");
                    }
                }
            });
        }
    });
}

#[test]
fn redis_follows_and_comes_back() {
    everywhere(&[1, 4], |placement| {
        let server = start(placement, &["--databases", "16"]);
        let master = RefCell::new(server.connect());
        let run = |prefix: &str| {
            for line in LINES {
                let reply = master.borrow_mut().cmd(line);
                assert!(!matches!(reply, Value::Error(_)), "{prefix} {line}: {reply:?}");
            }
        };
        // Before there is anyone to tell.
        run("before");
        assert_eq!(master.borrow_mut().cmd("DEBUG POPULATE 5000 filler 100"), ok());
        let Some(redis) = follow(&server) else { return };
        let replica = RefCell::new(redis.connect());
        write_at_once(&server);
        wait_until_linked(&replica);
        wait_until_equal(&master, &replica);
        // While it follows: all again, from nothing.
        assert_eq!(master.borrow_mut().cmd("FLUSHALL"), ok());
        run("following");
        write_at_once(&server);
        wait_until_equal(&master, &replica);
        assert_eq!(field(&master, "stats", "sync_full"), "1");
        let role = master.borrow_mut().cmd("ROLE");
        assert_eq!(role.items()[2].items().len(), 1, "{role:?}");
        assert!(field(&master, "replication", "slave0").contains(&format!("port={},state=online", redis.port)));
        let list = master.borrow_mut().cmd("CLIENT LIST TYPE replica");
        assert!(String::from_utf8_lossy(list.bytes()).contains("flags=S"), "{list:?}");
        // Its link is cut, and it goes on from where it was.
        assert_eq!(master.borrow_mut().cmd("CLIENT KILL TYPE replica").int(), 1);
        write_at_once(&server);
        wait_until("it came back", || field(&master, "stats", "sync_partial_ok") == "1");
        wait_until_linked(&replica);
        wait_until_equal(&master, &replica);
        assert_eq!(field(&master, "stats", "sync_full"), "1");
        // Once it has been away for longer than the backlog reaches, it begins anew.
        assert_eq!(master.borrow_mut().cmd("CONFIG SET repl-backlog-size 16384"), ok());
        assert_eq!(replica.borrow_mut().cmd("REPLICAOF NO ONE"), ok());
        wait_until("it has gone", || field(&master, "replication", "connected_slaves") == "0");
        write_at_once(&server);
        let back = format!("REPLICAOF 127.0.0.1 {}", server.port);
        assert_eq!(replica.borrow_mut().cmd(&back), ok());
        wait_until("it was sent all anew", || field(&master, "stats", "sync_full") == "2");
        wait_until_linked(&replica);
        wait_until_equal(&master, &replica);
        drop(redis);
        wait_until("the replica is forgotten", || field(&master, "replication", "connected_slaves") == "0");
        assert_eq!(master.borrow_mut().cmd("WAIT 1 10").int(), 0);
    });
}

#[test]
fn writes_wait_for_replicas_where_they_must() {
    everywhere(&[1, 4], |placement| {
        let server = start(placement, &["--min-replicas-to-write", "1"]);
        let master = RefCell::new(server.connect());
        let text = "NOREPLICAS Not enough good replicas to write.";
        let cmd = |line: &str| master.borrow_mut().cmd(line);
        assert_eq!(cmd("SET k v").error(), text);
        assert_eq!(cmd("GET k"), Value::Null);
        assert_eq!(cmd("EVAL return(redis.call('SET',KEYS[1],1)) 1 k").error().split(' ').next(), Some("NOREPLICAS"));
        assert_eq!(cmd("MULTI"), ok());
        assert_eq!(cmd("SET k v").error(), text);
        assert!(cmd("EXEC").error().starts_with("EXECABORT"));
        let Some(redis) = follow(&server) else { return };
        wait_until("there is a replica", || field(&master, "replication", "min_slaves_good_slaves") == "1");
        assert_eq!(master.borrow_mut().cmd("SET k v"), ok());
        drop(redis);
        wait_until("there is none", || field(&master, "replication", "min_slaves_good_slaves") == "0");
        assert_eq!(master.borrow_mut().cmd("SET k v").error(), text);
    });
}
