//! Ways round the rules, each tried and refused.
//!
//! The largest is [`no_command_touches_a_key_it_does_not_name`]: it draws arguments for every row from its usage, looks
//! which keys the command touches, and then takes one of them away from a user.

use std::collections::BTreeMap;

use super::*;
use crate::commands::spec::Handler;
use crate::commands::usage::{self, ArgKind, Argument};
use crate::commands::{Command, Group, flag, key, table};
use crate::core::Rng;
use crate::db::touched;
use crate::testing::{Conn, Value, World, request};

const KEY: &str = "-NOPERM No permissions to access a key";

/// A connection on `shard`, logged in as `name` with any password.
fn login(world: &mut World, shard: usize, name: &str) -> Conn {
    let conn = world.connect_to(shard as u16);
    assert_eq!(world.run(conn, &format!("AUTH {name} pw")).to_string(), "OK");
    conn
}

/// A key of this shard.
fn key_of(world: &World, shard: u16) -> String {
    let shards = world.shards.len();
    let mut names = (0..).map(|i| format!("k{i}"));
    names.find(|name| crate::router::owner_of(name.as_bytes(), shards) == shard).unwrap()
}

/// Tracking keys, and ending that, is no way out of the rules.
#[test]
fn tracking_keeps_a_client_restricted() {
    let mut world = World::new(2);
    let admin = world.connect();
    world.run(admin, "ACL SETUSER bob on >pw ~* +get +client");
    let bob = login(&mut world, 0, "bob");
    for line in ["CLIENT TRACKING ON", "CLIENT TRACKING OFF", "CLIENT TRACKING ON BCAST", "CLIENT TRACKING OFF"] {
        assert_eq!(world.run(bob, line).to_string(), "OK");
        let reply = world.run(bob, "SET k v").to_string();
        assert!(reply.starts_with("-NOPERM"), "{line}: {reply}");
    }
}

// ---- Every command that has keys -------------------------------------------------------------------------------

const KINDS: [&str; 6] = ["str", "list", "set", "zset", "hash", "stream"];

fn all_keys() -> Vec<String> {
    KINDS.iter().flat_map(|kind| (0..4).map(move |i| format!("{kind}{i}"))).collect()
}

/// Makes three keys of each kind anew, of four.
fn fill(world: &mut World, conn: Conn) {
    let mut bytes = request(&["FLUSHALL"]);
    for i in 0..3 {
        for line in [
            format!("SET str{i} 12"),
            format!("RPUSH list{i} 3 1 2"),
            format!("SADD set{i} 1 2 a"),
            format!("GEOADD zset{i} 1 1 a 2 2 b"),
            format!("HSET hash{i} f 1 g 2"),
            format!("XADD stream{i} 1-1 f v"),
            format!("XGROUP CREATE stream{i} g 0"),
        ] {
            bytes.extend(request(&line.split(' ').collect::<Vec<_>>()));
        }
    }
    world.send(conn, &bytes);
    world.received(conn);
}

struct Draw<'a> {
    rng: &'a mut Rng,
    kind: &'static str,
    /// How many keys a count announced.
    count: Option<usize>,
    words: Vec<Vec<u8>>,
}

impl Draw<'_> {
    fn below(&mut self, n: usize) -> usize {
        (self.rng.next_u64() >> 33) as usize % n
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.below(from.len())]
    }

    fn list(&mut self, args: &[Argument]) {
        for arg in args {
            if arg.optional && self.below(2) == 0 {
                continue;
            }
            let times = match (arg.multiple, arg.kind, self.count) {
                (false, ..) => 1,
                (true, ArgKind::Key, Some(count)) => count,
                (true, ..) => 1 + self.below(3),
            };
            for turn in 0..times {
                if let Some(token) = &arg.token
                    && (turn == 0 || arg.multiple_token)
                {
                    self.words.push(token.clone().into_bytes());
                }
                self.one(arg);
            }
        }
    }

    fn one(&mut self, arg: &Argument) {
        // Words that specifications look for may stand where they mean nothing.
        const TRAPS: [&str; 8] = ["STREAMS", "STORE", "STOREDIST", "KEYS", "GROUP", "COUNT", "BY", "GET"];
        let word = match arg.kind {
            ArgKind::Block => return self.list(&arg.args),
            ArgKind::OneOf => {
                let choice = self.below(arg.args.len());
                return self.list(&arg.args[choice..=choice]);
            }
            ArgKind::PureToken => return,
            ArgKind::Key => {
                let kind = if self.below(8) == 0 { self.pick(&KINDS) } else { self.kind };
                format!("{kind}{}", self.below(4))
            }
            ArgKind::Integer | ArgKind::UnixTime if arg.name == "numkeys" => {
                let count = 1 + self.below(3);
                self.count = Some(count);
                match self.below(6) {
                    0 => format!("+{count}"),
                    1 => format!("0{count}"),
                    _ => count.to_string(),
                }
            }
            ArgKind::Integer => self.pick(&["1", "0", "2", "-1", "100"]).into(),
            ArgKind::UnixTime => "99999999999".into(),
            ArgKind::Double => self.pick(&["1", "0.5", "2"]).into(),
            ArgKind::Pattern => "*".into(),
            ArgKind::String => match (arg.name.as_str(), self.below(10)) {
                (_, 0) => self.pick(&TRAPS).into(),
                ("id" | "last-id" | "start" | "end", 1..5) => self.pick(&["0", "$", ">", "1-1", "*", "2-2"]).into(),
                ("min" | "max", _) => self.pick(&["-", "+", "[a", "0", "5"]).into(),
                ("encoding" | "type", _) => "u8".into(),
                ("group", _) => "g".into(),
                _ => self.pick(&["a", "f", "1", "-", "+", "v", "g", "u8"]).into(),
            },
        };
        self.words.push(word.into_bytes());
    }
}

fn draw(row: &Command, args: &[Argument], rng: &mut Rng) -> Vec<Vec<u8>> {
    let kind = match row.group {
        Group::List => "list",
        Group::Set => "set",
        Group::SortedSet | Group::Geo => "zset",
        Group::Hash => "hash",
        Group::Stream => "stream",
        Group::Generic => KINDS[rng.next_u64() as usize % 6],
        _ => "str",
    };
    let mut draw = Draw { rng, kind, count: None, words: row.name.split('|').map(|w| w.as_bytes().to_vec()).collect() };
    draw.list(args);
    if draw.below(4) == 0 && draw.words.len() > 2 {
        // Something out of place: options may come twice, in another order, or not be whole.
        let (from, to) = (draw.below(draw.words.len()), 1 + draw.below(draw.words.len()));
        let word = draw.words[from].clone();
        let at = to.max(row.name.split('|').count());
        draw.words.insert(at.min(draw.words.len()), word);
    }
    draw.words
}

/// What a row says of its keys.
fn declared(row: &Command, words: &[Vec<u8>]) -> BTreeMap<Vec<u8>, u16> {
    let owned = crate::args::OwnedArgs::from_words(words);
    let mut keys = BTreeMap::new();
    row.for_each_key_flags(owned.args(), &mut |at, flags| *keys.entry(words[at].clone()).or_default() |= flags);
    keys
}

/// Sends a command over a connection of its own, which may then stay blocked.
fn alone(world: &mut World, shard: usize, user: &str, words: &[Vec<u8>]) -> (BTreeMap<Vec<u8>, bool>, Vec<u8>) {
    let conn = login(world, shard, user);
    let mut reply = Vec::new();
    let touched = touched::by(|| reply = world.call(conn, words));
    world.disconnect(conn);
    (touched, reply)
}

#[test]
fn no_command_touches_a_key_it_does_not_name() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let admin = world.connect();
        world.run(admin, "ACL SETUSER all on nopass +@all ~* &*");
        world.run(admin, "ACL SETUSER some on nopass +@all ~* &*");
        let mut rng = Rng::new(7 + shards as u64);
        let (mut rows, mut refusals) = (0, 0);
        for (id, row) in table().rows() {
            let names_keys = row.find_keys.is_some() || row.keys.iter().any(|spec| spec.flags & key::NOT_KEY == 0);
            // DEBUG and its like have no keys to Redis's rules: they are for those who may do anything.
            let ruled = names_keys && !row.has(flag::SUBCOMMAND) && !row.has(flag::SCRIPT);
            if !ruled || !matches!(row.handler, Handler::Data(_)) {
                continue;
            }
            rows += 1;
            let arguments = usage::parse(row);
            let before = refusals;
            for _ in 0..60 {
                let words = draw(row, &arguments, &mut rng);
                if !row.accepts(words.len()) {
                    continue;
                }
                let line = || words.iter().map(|w| String::from_utf8_lossy(w)).collect::<Vec<_>>().join(" ");
                fill(&mut world, admin);
                let (touched, _) = alone(&mut world, shards - 1, "all", &words);
                let named = declared(row, &words);
                // What SORT reads besides is asked for where it runs.
                let owned = crate::args::OwnedArgs::from_words(&words);
                if row.all_slices.is_some_and(|needs_all| needs_all(owned.args())) {
                    continue;
                }
                for (name, written) in &touched {
                    let flags = named.get(name);
                    let shown = String::from_utf8_lossy(name);
                    assert!(flags.is_some(), "{} touches {shown}, which it does not name", line());
                    // XREADGROUP writes what it has read to the group, and is a read to Redis.
                    let writes = flags.unwrap() & (key::INSERT | key::DELETE | key::UPDATE) != 0;
                    assert!(!written || writes || row.name == "xreadgroup", "{} writes {shown}", line());
                }
                let Some(taken) = touched.keys().nth(rng.next_u64() as usize % touched.len().max(1)) else { continue };
                let taken = String::from_utf8(taken.clone()).unwrap();
                let left: Vec<String> =
                    all_keys().into_iter().filter(|name| *name != taken).map(|name| format!("~{name}")).collect();
                world.run(admin, &format!("ACL SETUSER some resetkeys {}", left.join(" ")));
                fill(&mut world, admin);
                let (touched, reply) = alone(&mut world, shards - 1, "some", &words);
                assert_eq!(Value::parse_all(&reply)[0].to_string(), KEY, "{} without {taken}", line());
                assert!(touched.is_empty(), "{} touched {touched:?} though it was refused", line());
                // The same out of a script.
                if !row.has(flag::NOSCRIPT) || row.has(flag::BLOCKING) {
                    let mut call: Vec<Vec<u8>> =
                        ["EVAL", "return redis.pcall(unpack(ARGV))", "0"].map(|word| word.as_bytes().to_vec()).into();
                    call.extend(words.iter().cloned());
                    let (touched, reply) = alone(&mut world, shards - 1, "some", &call);
                    let reply = Value::parse_all(&reply)[0].to_string();
                    assert!(reply.contains("NOPERM ACL failure in script"), "{} in a script: {reply}", line());
                    assert!(touched.is_empty(), "{} touched {touched:?} in a script", line());
                }
                // And queued.
                let conn = login(&mut world, shards - 1, "some");
                world.run(conn, "MULTI");
                assert_eq!(Value::parse_all(&world.call(conn, &words))[0].to_string(), KEY, "{}", line());
                assert!(world.run(conn, "EXEC").text().starts_with("EXECABORT"));
                world.disconnect(conn);
                refusals += 1;
            }
            assert!(refusals > before, "no arguments of {} (row {id}) touched a key", row.name);
        }
        assert!(rows > 120, "{rows} rows");
    }
}

/// Commands by what their keys need: `{R}` to be read, `{W}` to be written, `{B}` both, `{A}` any of these, as
/// `ACL DRYRUN` of Redis 7.0 has it.
const NEEDS: &[&str] = &[
    "GET {R}",
    "GETDEL {B}",
    "GETEX {B}",
    "GETSET {B} v",
    "SET {W} v",
    "SET {B} v GET",
    "SETEX {W} 10 v",
    "SETRANGE {W} 0 v",
    "APPEND {W} v",
    "INCR {B}",
    "STRLEN {A}",
    "MGET {R} {R} {R}",
    "MSET {W} 1 {W} 2 {W} 3",
    "MSETNX {W} 1 {W} 2",
    "LCS {R} {R}",
    "BITCOUNT {R}",
    "BITOP AND {W} {R} {R}",
    "BITOP NOT {W} {R}",
    "BITFIELD {R} GET u8 0",
    "BITFIELD {B} SET u8 0 1",
    "BITFIELD_RO {R} GET u8 0",
    "PFADD {W} e",
    "PFCOUNT {R} {R}",
    "PFMERGE {B} {R} {R}",
    "DEL {W} {W}",
    "UNLINK {W} {W}",
    "EXISTS {A} {A}",
    "TOUCH {A} {A}",
    "WATCH {A} {A}",
    "TYPE {A}",
    "TTL {R}",
    "EXPIRE {W} 10",
    "PERSIST {W}",
    "RENAME {B} {W}",
    "RENAMENX {B} {W}",
    "COPY {R} {W}",
    "COPY {R} {W} DB 1 REPLACE",
    "MOVE {B} 1",
    "DUMP {R}",
    "RESTORE {W} 0 payload REPLACE",
    "OBJECT ENCODING {A}",
    "MEMORY USAGE {A}",
    "SORT {R} STORE {W}",
    "SORT {R} LIMIT 0 1 ALPHA STORE {W}",
    "SORT_RO {R}",
    "LPUSH {W} e",
    "LPOP {B}",
    "LLEN {A}",
    "LINDEX {R} 0",
    "LRANGE {R} 0 -1",
    "LSET {W} 0 e",
    "LPOS {R} e",
    "RPOPLPUSH {B} {W}",
    "LMOVE {B} {W} LEFT LEFT",
    "BLMOVE {B} {W} LEFT LEFT 0.01",
    "BRPOPLPUSH {B} {W} 0.01",
    "BLPOP {B} {B} 0.01",
    "BRPOP {B} 0.01",
    "LMPOP 2 {B} {B} LEFT",
    "BLMPOP 0.01 3 {B} {B} {B} LEFT COUNT 2",
    "SADD {W} m",
    "SMEMBERS {R}",
    "SMOVE {B} {W} m",
    "SPOP {B}",
    "SINTER {R} {R}",
    "SINTERCARD 2 {R} {R} LIMIT 1",
    "SUNIONSTORE {W} {R} {R}",
    "SDIFFSTORE {W} {R}",
    "ZADD {W} 1 m",
    "ZINCRBY {B} 1 m",
    "ZRANGE {R} 0 -1",
    "ZRANGESTORE {W} {R} 0 -1",
    "ZUNION 2 {R} {R} WEIGHTS 1 2",
    "ZUNIONSTORE {W} 2 {R} {R} AGGREGATE MIN",
    "ZINTERSTORE {W} 1 {R}",
    "ZDIFFSTORE {W} 2 {R} {R}",
    "ZINTERCARD 2 {R} {R}",
    "ZPOPMIN {B}",
    "ZMPOP 2 {B} {B} MIN",
    "BZMPOP 0.01 2 {B} {B} MIN",
    "BZPOPMAX {B} {B} 0.01",
    "HSET {W} f v",
    "HGETALL {R}",
    "HINCRBY {B} f 1",
    "HDEL {W} f",
    "GEOADD {W} 1 1 m",
    "GEOSEARCH {R} FROMLONLAT 1 1 BYRADIUS 1 km",
    "GEOSEARCHSTORE {W} {R} FROMLONLAT 1 1 BYRADIUS 1 km",
    "GEORADIUS {R} 1 1 1 km STORE {W}",
    "GEORADIUS {R} 1 1 1 km COUNT 1 STOREDIST {W}",
    "GEORADIUSBYMEMBER {R} m 1 km STORE {W}",
    "XADD {W} * f v",
    "XRANGE {R} - +",
    "XREAD COUNT 1 STREAMS {R} {R} 0 0",
    "XREAD BLOCK 10 STREAMS {R} 0",
    "XREADGROUP GROUP STREAMS c COUNT 1 STREAMS {R} {R} > >",
    "XGROUP CREATE {W} g 0",
    "XACK {W} g 1-1",
    "XCLAIM {W} g c 0 1-1",
    "XAUTOCLAIM {W} g c 0 0",
    "XINFO STREAM {R}",
    "XDEL {W} 1-1",
    "EVAL return+1 2 {B} {B}",
    "EVAL_RO return+1 2 {R} {R}",
    "EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 2 {B} {B}",
    "EVALSHA_RO e0e1f9fabfc9d4800c877a703b823ac0578ff8db 1 {R}",
    "FCALL nosuch 2 {B} {B}",
    "FCALL_RO nosuch 1 {R}",
];

#[test]
fn every_key_of_every_command_needs_the_right_kind_of_permission() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let admin = world.connect();
        for (name, rules) in [("neither", ""), ("reader", "%R~foreign"), ("writer", "%W~foreign")] {
            world.run(admin, &format!("ACL SETUSER {name} on nopass +@all ~allowed:* {rules}"));
        }
        let mut cases = 0;
        for line in NEEDS {
            let words: Vec<&str> = line.split(' ').collect();
            let is_key = |word: &str| word.starts_with('{');
            for at in (0..words.len()).filter(|at| is_key(words[*at])) {
                let named = |(i, word): (usize, &&str)| match is_key(word) {
                    true if i == at => "foreign".to_string(),
                    true => format!("allowed:{i}"),
                    false => word.replace('+', if *word == "+" { "+" } else { " " }),
                };
                let call: Vec<String> = words.iter().enumerate().map(named).collect();
                let need = words[at];
                for (user, refused) in [
                    ("neither", true),
                    ("reader", matches!(need, "{W}" | "{B}")),
                    ("writer", matches!(need, "{R}" | "{B}")),
                ] {
                    // A connection of its own, for it may be left waiting.
                    let conn = login(&mut world, shards - 1, user);
                    let reply = String::from_utf8_lossy(&world.call(conn, &call)).into_owned();
                    assert_eq!(reply.starts_with(KEY), refused, "{call:?} as {user}, {shards} shard(s): {reply}");
                    let mut script = vec!["EVAL".to_string(), "return redis.pcall(unpack(ARGV))".into(), "0".into()];
                    script.extend(call.iter().cloned());
                    let reply = String::from_utf8_lossy(&world.call(conn, &script)).into_owned();
                    let told = reply.contains("NOPERM ACL failure in script: No permissions to access a key");
                    assert!(!refused || told || reply.contains("not allowed from script"), "{script:?}: {reply}");
                    assert!(refused || !told, "{script:?} as {user}: {reply}");
                    world.disconnect(conn);
                    cases += 1;
                }
            }
        }
        assert!(cases > 400, "{cases} cases");
    }
}

#[test]
fn patterns_that_read_other_keys_ask_for_all() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let admin = world.connect();
        world.run(admin, "ACL SETUSER some on nopass +@all ~allowed:* %R~other:*");
        world.run(admin, "ACL SETUSER all on nopass +@all %R~* ~allowed:*");
        world.run(admin, "RPUSH allowed:l 1 2");
        for (key, value) in [("other:1", "b"), ("other:2", "a"), ("secret:1", "s1"), ("secret:2", "s2")] {
            world.run(admin, &format!("SET {key} {value}"));
        }
        let (some, all) = (login(&mut world, shards - 1, "some"), login(&mut world, shards - 1, "all"));
        for options in ["BY other:*", "GET other:*", "GET secret:*", "GET # GET secret:*->f", "BY secret:* GET #"] {
            for command in ["SORT", "SORT_RO"] {
                let line = format!("{command} allowed:l {options} ALPHA");
                let reply = world.run(some, &line).text();
                assert!(reply.contains("insufficient ACL"), "{line}: {reply}");
                assert_eq!(world.run(all, &line).items().len() % 2, 0, "{line}");
            }
            let line = format!("SORT allowed:l {options} ALPHA STORE allowed:d");
            assert!(world.run(some, &line).text().contains("insufficient ACL"), "{line}");
        }
        assert_eq!(world.run(all, "SORT allowed:l BY nosort GET secret:*").to_string(), "[\"s1\" \"s2\"]");
        assert!(world.run(all, "SORT allowed:l STORE secret:1").text().starts_with("NOPERM"));
        assert_eq!(world.run(some, "SORT allowed:l BY nosort").to_string(), "[\"1\" \"2\"]");
    }
}

// ---- Who one is ------------------------------------------------------------------------------------------------

#[test]
fn a_user_that_is_deleted_while_its_command_waits_gets_nothing() {
    for (keys, shards) in [("l", 1), ("l", 4), ("l m n o p q", 4)] {
        let mut world = World::new(shards);
        let (home, far) = (0, shards - 1);
        let admin = world.connect_to(home);
        world.run(admin, "ACL SETUSER u on nopass +@all ~*");
        let conn = login(&mut world, far, "u");
        world.send(conn, format!("BLPOP {keys} 0\r\n").as_bytes());
        // In one turn: the client's own home has not heard of it when the key is ready.
        world.send(admin, b"ACL DELUSER u\r\nRPUSH l x\r\n");
        assert_eq!(world.received(admin), b":1\r\n:1\r\n");
        assert_eq!(world.run(admin, "LRANGE l 0 -1").to_string(), "[\"x\"]", "{keys} on {shards}");
        world.cron();
        assert!(!world.is_open(conn));
    }
}

#[test]
fn one_who_may_not_is_passed_over_by_a_ready_key() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let admin = world.connect();
        world.run(admin, "ACL SETUSER u on nopass +@all ~*");
        let first = login(&mut world, shards - 1, "u");
        let second = world.connect();
        world.send(first, b"BLPOP l 0\r\n");
        world.send(second, b"BLPOP l 0\r\n");
        world.run(admin, "ACL SETUSER u -blpop");
        world.run(admin, "RPUSH l x");
        assert_eq!(world.received(second), b"*2\r\n$1\r\nl\r\n$1\r\nx\r\n");
        assert!(world.received(first).starts_with(b"-NOPERM"));
    }
}

#[test]
fn what_waited_for_a_slice_is_asked_about_again() {
    let mut world = World::new(2);
    let (here, there) = (key_of(&world, 0), key_of(&world, 1));
    let admin = world.connect_to(0);
    world.run(admin, "ACL SETUSER u on nopass +@all ~*");
    let (conn, other) = (login(&mut world, 1, "u"), world.connect_to(1));
    world.run(admin, &format!("SET {here} v"));
    // The slice of shard 0 goes to shard 1 for the RENAME, and what comes behind waits for it.
    world.send_only(other, format!("RENAME {here} {there}\r\n").as_bytes());
    world.send_only(conn, format!("SET {here} stolen\r\n").as_bytes());
    world.send_only(admin, b"ACL SETUSER u resetkeys\r\n");
    world.settle();
    assert_eq!(world.received(admin), b"+OK\r\n");
    assert_eq!(world.received(conn), format!("{KEY}\r\n").into_bytes());
    assert_eq!(world.run(admin, &format!("EXISTS {here}")).to_string(), "0");
    // A command over two shards, likewise, when its slices have come.
    world.run(admin, "ACL SETUSER u ~*");
    world.send_only(conn, format!("RENAME {there} {here}\r\n").as_bytes());
    world.send_only(admin, b"ACL SETUSER u resetkeys\r\n");
    world.settle();
    assert_eq!(world.received(admin), b"+OK\r\n");
    assert_eq!(world.received(conn), format!("{KEY}\r\n").into_bytes());
    assert_eq!(world.run(admin, &format!("EXISTS {there}")).to_string(), "1");
}

#[test]
fn a_change_counts_on_every_shard_once_it_was_answered() {
    let mut world = World::new(4);
    let admin = world.connect_to(0);
    world.run(admin, "ACL SETUSER u on nopass +@all ~*");
    let conns: Vec<Conn> = (0..4).map(|shard| login(&mut world, shard, "u")).collect();
    for rules in ["-get", "+get resetkeys", "resetchannels ~* -@all"] {
        world.run(admin, &format!("ACL SETUSER u {rules}"));
        for conn in &conns {
            assert!(world.run(*conn, "GET k").text().starts_with("NOPERM"), "{rules}");
        }
    }
    // One who loses what made checks needless is checked from then on, and the other way round.
    world.run(admin, "ACL SETUSER u allkeys allchannels allcommands");
    assert_eq!(world.run(conns[3], "GET k").to_string(), "nil");
    world.run(admin, "ACL SETUSER default -get");
    let stranger = world.connect_to(2);
    assert!(world.run(stranger, "GET k").text().starts_with("NOPERM"));
}

#[test]
fn logging_in_again_leaves_nothing_behind() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let admin = world.connect();
        world.run(admin, "ACL SETUSER weak on >pw -@all +ping +multi +exec ~w");
        world.run(admin, "ACL SETUSER strong on >pw +@all ~*");
        world.run(admin, "ACL SETUSER asleep off >pw +@all ~*");
        let conn = login(&mut world, 0, "strong");
        // What fails changes nothing, what works takes the old rights away.
        for line in ["AUTH asleep pw", "AUTH weak wrong", "HELLO 3 AUTH weak wrong", "HELLO 3 AUTH nobody pw"] {
            assert!(world.run(conn, line).text().starts_with("WRONGPASS"), "{line}");
            assert_eq!(world.run(conn, "ACL WHOAMI").text(), "strong", "{line}");
        }
        world.run(conn, "HELLO 2 AUTH weak pw");
        assert!(world.run(conn, "GET w").text().starts_with("NOPERM"));
        // One who logs in inside MULTI is who the rest of the queue is checked as.
        let conn = login(&mut world, 0, "strong");
        for line in ["MULTI", "AUTH weak pw", "GET k", "PING"] {
            world.run(conn, line);
        }
        let replies = world.run(conn, "EXEC").items();
        assert_eq!(replies[0].to_string(), "OK");
        assert!(replies[1].text().starts_with("NOPERM"));
        assert_eq!(replies[2].to_string(), "PONG");
        // RESET makes it a stranger again.
        world.run(admin, "ACL SETUSER default -@all +ping");
        let conn = login(&mut world, 0, "strong");
        world.run(conn, "RESET");
        assert!(world.run(conn, "GET k").text().starts_with("NOPERM"));
        world.run(admin, "ACL SETUSER strong +@all");
        let conn = login(&mut world, 0, "strong");
        world.run(conn, "ACL SETUSER default off");
        world.run(conn, "RESET");
        assert_eq!(world.run(conn, "PING").text(), "NOAUTH Authentication required.");
    }
}

#[test]
fn a_transaction_is_checked_when_it_runs_by_who_its_client_is_then() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let admin = world.connect();
        world.run(admin, "ACL SETUSER u on nopass +@all ~*");
        let conn = login(&mut world, shards - 1, "u");
        // It takes its own rights away in the midst.
        for line in ["MULTI", "SET a 1", "ACL SETUSER u resetkeys ~a", "SET b 1", "SET a 2", "EVAL \"return 1\" 1 b"] {
            world.run(conn, line);
        }
        let replies = world.run(conn, "EXEC").items();
        let refused: Vec<bool> = replies.iter().map(|reply| reply.text().starts_with("NOPERM")).collect();
        assert_eq!(refused, [false, false, true, false, true]);
        // It deletes itself: what follows is not run as anybody.
        world.run(admin, "ACL SETUSER u ~*");
        for line in ["MULTI", "ACL DELUSER u", "SET stolen 1"] {
            world.run(conn, line);
        }
        world.send(conn, b"EXEC\r\n");
        world.cron();
        assert!(!world.is_open(conn));
        assert_eq!(world.run(admin, "EXISTS b").to_string(), "0");
    }
}

// ---- Names of commands -----------------------------------------------------------------------------------------

#[test]
fn names_cannot_be_spelt_round_the_rules() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let admin = world.connect();
        world.run(admin, "ACL SETUSER u on nopass -@all +config|get +select|0 +eval +fcall +object|help -debug ~*");
        let conn = login(&mut world, 0, "u");
        for line in [
            "CONFIG SET hz 10",
            "config set hz 10",
            "CONFIG RESETSTAT",
            "SELECT 1",
            "SELECT 00",
            "SELECT +0",
            "OBJECT ENCODING k",
            "DEBUG OBJECT k",
            "EVAL_RO \"return 1\" 0",
        ] {
            let reply = world.run(conn, line).text();
            assert!(reply.starts_with("NOPERM"), "{line}: {reply}");
            // Not as a line without lengths, either.
            world.send(conn, format!("{line}\r\n").as_bytes());
            assert!(world.received(conn).starts_with(b"-NOPERM"), "{line}");
        }
        for line in ["CONFIG|SET hz 10", "\"config set\" hz 10", "\"config\\x00\" set hz 10", "CONFIG NOSUCH"] {
            assert!(world.run(conn, line).text().starts_with("ERR unknown"), "{line}");
        }
        let reply = world.run(conn, "EVAL \"return redis.pcall('config|set', 'hz', '10').err\" 0").text();
        assert!(reply.starts_with("ERR Unknown Redis command called from script"), "{reply}");
        for call in ["'config', 'set', 'hz', '10'", "'CONFIG', 'SET', 'hz', '10'", "'get', 'k'", "'select', '1'"] {
            let reply = world.run(conn, &format!("EVAL \"return redis.pcall({call}).err\" 0")).text();
            assert!(reply.contains("NOPERM") || reply.contains("not allowed from script"), "{call}: {reply}");
        }
    }
}

#[test]
fn functions_and_scripts_do_what_their_callers_may() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let admin = world.connect();
        let code = "#!lua name=lib\nredis.register_function('f', function(keys, args) \
                    return redis.pcall(unpack(args)) end)\n";
        world.call(admin, &["FUNCTION", "LOAD", code]);
        world.run(admin, "SCRIPT LOAD \"return redis.pcall(unpack(ARGV))\"");
        world.run(admin, "SET secret s");
        world.run(admin, "ACL SETUSER u on nopass +@all -function -script -flushall ~mine* &c");
        let conn = login(&mut world, shards - 1, "u");
        for call in ["get secret", "set secret x", "flushall", "publish other m", "copy secret mine", "sort mine get *"]
        {
            for how in ["FCALL f 0", "FCALL f 1 mine", "EVAL \"return redis.pcall(unpack(ARGV))\" 0"] {
                let reply = world.run(conn, &format!("{how} {call}")).text();
                let refused = reply.starts_with("NOPERM ACL failure in script") || reply.contains("insufficient ACL");
                assert!(refused, "{how} {call}: {reply}");
            }
        }
        assert!(world.run(conn, "FCALL f 1 secret get secret").text().starts_with("NOPERM"));
        assert!(world.run(conn, "FUNCTION DELETE lib").text().starts_with("NOPERM"));
        assert_eq!(world.run(admin, "GET secret").text(), "s");
        // A script that began anew with all slices is told of once.
        world.run(admin, "ACL LOG RESET");
        world.run(conn, "EVAL \"redis.call('set','mine1','x'); return redis.pcall('get', 'secret')\" 1 mine");
        let entries = world.run(admin, "ACL LOG").items();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].get("count").unwrap().text(), "1");
    }
}

// ---- Text ------------------------------------------------------------------------------------------------------

#[test]
fn no_user_line_means_another_when_it_is_read_again() {
    let mut rng = Rng::new(23);
    let pieces: [&[u8]; 30] = [
        b"~a",
        b"%R~b",
        b"~",
        b"&c",
        b"(",
        b")",
        b"(~a +get)",
        b"(~x)",
        b" ",
        b"\"",
        b"'",
        b"\\",
        b"\\x20",
        b"\t",
        b"+get",
        b"-@all",
        b"+@read",
        b"+select|0",
        b"+select|\"",
        b"on",
        b">p",
        b"<p",
        b"nopass",
        b"#",
        b"\n",
        b"user default on nopass ~* +@all",
        b"allchannels",
        b"+config|get",
        b"{t}",
        b"\xff",
    ];
    let mut kept = 0;
    for _ in 0..20_000 {
        let mut draw = |n: usize| (rng.next_u64() >> 33) as usize % n;
        let mut users = Users::new(None);
        let rules: Vec<Vec<u8>> = (0..1 + draw(5))
            .map(|_| (0..1 + draw(3)).flat_map(|_| pieces[draw(pieces.len())].iter().copied()).collect())
            .collect();
        let name: Vec<u8> = (0..1 + draw(2)).flat_map(|_| pieces[draw(pieces.len())].iter().copied()).collect();
        if users.set(&name, &rules, false).is_err() {
            continue;
        }
        kept += 1;
        let again = Users::new(None).loaded(&users.file_text(), "file", false);
        assert_eq!(again.expect("it is read").lines(), users.lines(), "{rules:?}");
        let mut text = b"".to_vec();
        for line in users.config_lines() {
            text.extend([b"user ", line.as_slice(), b"\n"].concat());
        }
        let mut config = Config::default();
        crate::config::file::load(&mut config, &text, &mut crate::config::file::tests::NoFiles).expect("it is read");
        file::check_lines(&config).expect("it is right");
        assert_eq!(Users::at_start(&config, None).expect("it is right").lines(), users.lines(), "{rules:?}");
    }
    assert!(kept > 300, "{kept}");
}

#[test]
fn hostile_files_are_refused_whole() {
    let users = Users::new(None);
    let long = [b"user a ", "~k ".repeat(20_000).as_bytes()].concat();
    let deep = [b"user a ", "(".repeat(10_000).as_bytes()].concat();
    for text in [
        &b"user"[..],
        b"user ",
        b"user a b c",
        b"user a\0 on",
        b"USER a on",
        b"user a on\nuser a off",
        b"user a (~x",
        b"user a ~x ~y)",
        b"user a >",
        b"user a #zz",
        b"user default on\nuser default off",
        b"\xff\xfe\x00",
        &long,
        &deep,
    ] {
        let shown = String::from_utf8_lossy(&text[..text.len().min(40)]).into_owned();
        match users.loaded(text, "file", false) {
            Err(error) => assert!(error.contains("no change to the previously active"), "{shown}: {error}"),
            // An empty password is one, and a pattern may end so.
            Ok(_) => assert!(matches!(text, b"user a >" | b"user a ~x ~y)"), "{shown}"),
        }
    }
}

#[test]
fn lists_of_rules_have_a_bound() {
    let mut world = World::new(1);
    let admin = world.connect();
    let many = |prefix: &str| (0..20_000).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>();
    for prefix in ["~", "%R~", "&", ">", "+select|"] {
        let mut words: Vec<String> = ["ACL", "SETUSER", "u"].map(String::from).into();
        words.extend(many(prefix));
        let reply = Value::parse_all(&world.call(admin, &words))[0].to_string();
        assert_eq!(reply, "-ERR A user can have 16384 rules at most", "{prefix}");
    }
    let selector = format!("({})", many("~").join(" "));
    let reply = Value::parse_all(&world.call(admin, &["ACL", "SETUSER", "u", &selector]))[0].to_string();
    assert_eq!(reply, "-ERR A user can have 16384 rules at most");
    // A little at a time does not get past it.
    let mut refused = 0;
    for piece in many("~").chunks(5000) {
        let mut words: Vec<String> = ["ACL", "SETUSER", "u"].map(String::from).into();
        words.extend(piece.iter().cloned());
        refused += usize::from(world.call(admin, &words).starts_with(b"-ERR A user can have"));
    }
    assert_eq!(refused, 1);
    // Who begins anew has room again.
    let mut words: Vec<String> = ["ACL", "SETUSER", "u", "reset"].map(String::from).into();
    words.extend(many("~").into_iter().take(10_000));
    assert_eq!(world.call(admin, &words), b"+OK\r\n");
}

#[test]
fn the_log_keeps_no_more_than_it_has_to() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let admin = world.connect_to(0);
        world.run(admin, "ACL SETUSER u on nopass +@all ~a");
        for shard in 0..shards {
            let conn = login(&mut world, shard, "u");
            let key = "x".repeat(100_000);
            world.call(conn, &["GET", &key]);
            world.call(conn, &["AUTH", &key, "pw"]);
        }
        let entries = world.run(admin, "ACL LOG").items();
        assert_eq!(entries.len(), 2);
        for entry in &entries {
            assert_eq!(entry.get("count").unwrap().text(), shards.to_string());
            assert!(entry.get("object").unwrap().text().len() <= 4096);
            assert!(entry.get("username").unwrap().text().len() <= 4096);
        }
        // A reply in one line stays one, whatever the rule holds.
        let reply = world.call(admin, &["ACL", "SETUSER", "u", "a\r\n+OK"]);
        assert_eq!(Value::parse_all(&reply).len(), 1, "{}", String::from_utf8_lossy(&reply));
    }
}

// ---- Other names -----------------------------------------------------------------------------------------------

#[test]
fn commands_are_called_by_their_new_names_and_ruled_by_their_own() {
    let line = |old: &str, new: &str| crate::config::file::FileDirective {
        args: vec![old.into(), new.into()],
        line_number: 1,
        line: format!("rename-command {old} \"{new}\"").into_bytes(),
    };
    for shards in [1, 4] {
        let rename_command = vec![
            line("FLUSHALL", ""),
            line("config", "hidden-config"),
            line("sort", "SORTED"),
            line("mset", "msetx"),
            line("get", "set2"),
            line("set", "get"),
        ];
        let config = Config { rename_command, ..Config::default() };
        let mut world = World::from_config(shards, config, [1, 2]);
        let admin = world.connect();
        for gone in ["FLUSHALL", "flushall", "CONFIG GET hz", "SORT k", "MSET a 1"] {
            assert!(world.run(admin, gone).text().starts_with("ERR unknown command"), "{gone}");
            let call = gone.split(' ').map(|word| format!("'{word}'")).collect::<Vec<_>>().join(",");
            let reply = world.run(admin, &format!("EVAL \"return redis.pcall({call}).err\" 0")).text();
            assert!(reply.starts_with("ERR Unknown Redis command"), "{gone}: {reply}");
        }
        assert_eq!(world.run(admin, "HIDDEN-CONFIG GET hz").to_string(), "[\"hz\" \"10\"]");
        assert_eq!(world.run(admin, "GET k v").to_string(), "OK");
        assert_eq!(world.run(admin, "SET2 k").to_string(), "\"v\"");
        assert_eq!(world.run(admin, "MSETX a 1 b 2 c 3 d 4").to_string(), "OK");
        world.run(admin, "RPUSH l 1 2");
        assert_eq!(world.run(admin, "ACL SETUSER u on nopass +@all -set ~l").to_string(), "OK");
        let conn = login(&mut world, shards - 1, "u");
        assert!(world.run(conn, "GET l v").text().contains("'set' command"));
        assert_eq!(world.run(conn, "SORTED l").to_string(), "[\"1\" \"2\"]");
        assert!(world.run(conn, "SORTED l BY w_*").text().contains("insufficient ACL"));
        assert_eq!(world.run(conn, "SET2 secret").to_string(), KEY);
        // Secrets stay such.
        let slow = world.run(admin, "HIDDEN-CONFIG SET slowlog-log-slower-than 0 requirepass hush");
        assert_eq!(slow.to_string(), "OK");
        world.run(admin, "HIDDEN-CONFIG SET requirepass hush");
        assert!(!world.run(admin, "SLOWLOG GET").to_string().contains("hush"));
    }
    for (lines, reason) in [
        (vec![line("nosuch", "x")], "No such command in rename-command"),
        (vec![line("get", "set")], "Target command name already exists"),
        (vec![line("get", ""), line("get", "x")], "No such command in rename-command"),
        (vec![line("config|get", "x")], "No such command in rename-command"),
    ] {
        let error = crate::commands::CommandTable::renamed(&lines).err().expect("refused").to_string();
        assert!(error.contains(reason), "{error}");
    }
}
