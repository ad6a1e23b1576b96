//! The commands of lists on one shard and on four, in both protocols; random ones against a `VecDeque`.

use std::collections::{BTreeMap, VecDeque};

use crate::core::Rng;
use crate::testing::{Check, Value, World};

const WRONG: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

#[test]
fn both_ends_push_and_pop() {
    let mut t = Check::new();
    t.check("RPUSH l b c", "2").check("LPUSH l a 0", "4").check("LRANGE l 0 -1", r#"["0" "a" "b" "c"]"#);
    t.check("LPUSHX none x", "0").check("RPUSHX l d", "5").check("LPUSHX l z", "6").check("LLEN l", "6");
    t.check("LPOP l", r#""z""#).check("RPOP l 2", r#"["d" "c"]"#).check("LPOP l 0", "[]").check("LLEN none", "0");
    t.types("LPOP none", "nil", "nil").types("LPOP none 3", "nil*", "nil").types("RPOP none 0", "nil*", "nil");
    t.check("LPOP l 9", r#"["0" "a" "b"]"#).check("EXISTS l", "0");
    t.check("RPUSH l 1", "1").check("RPOP l", r#""1""#).check("EXISTS l", "0");
    t.check("LPOP l -1", "-ERR value is out of range, must be positive");
    t.check("LPOP l x", "-ERR value is out of range, must be positive");
    t.check("LPOP l 1 1", "-ERR wrong number of arguments for 'lpop' command");
}

#[test]
fn elements_are_found_by_their_place() {
    let mut t = Check::new();
    t.check("RPUSH l a b c d e", "5").check("LINDEX l 0", r#""a""#).check("LINDEX l -1", r#""e""#);
    t.types("LINDEX l 5", "nil", "nil").types("LINDEX l -6", "nil", "nil").types("LINDEX none x", "nil", "nil");
    t.check("LINDEX l x", "-ERR value is not an integer or out of range");
    for (range, reply) in [
        ("1 2", r#"["b" "c"]"#),
        ("-2 -1", r#"["d" "e"]"#),
        ("-100 0", r#"["a"]"#),
        ("3 100", r#"["d" "e"]"#),
        ("3 2", "[]"),
        ("5 9", "[]"),
        ("0 -6", "[]"),
        ("-9223372036854775808 9223372036854775807", r#"["a" "b" "c" "d" "e"]"#),
    ] {
        t.check(&format!("LRANGE l {range}"), reply);
    }
    t.check("LRANGE none 0 -1", "[]").check("LRANGE l 0 x", "-ERR value is not an integer or out of range");
    t.check("LSET l 1 B", "OK").check("LSET l -1 E", "OK").check("LRANGE l 0 -1", r#"["a" "B" "c" "d" "E"]"#);
    t.check("LSET l 5 x", "-ERR index out of range").check("LSET none 0 x", "-ERR no such key");
    t.check("LINSERT l before c x", "6").check("LINSERT l AFTER E y", "7").check("LINSERT l before q z", "-1");
    t.check("LINSERT none before a b", "0").check("LINSERT l beside a b", "-ERR syntax error");
    t.check("LRANGE l 0 -1", r#"["a" "B" "x" "c" "d" "E" "y"]"#);
    t.check("LTRIM l 1 -2", "OK").check("LRANGE l 0 -1", r#"["B" "x" "c" "d" "E"]"#);
    t.check("LTRIM l 3 1", "OK").check("EXISTS l", "0").check("LTRIM l 0 1", "OK");
}

#[test]
fn equal_elements_are_removed_and_located() {
    let mut t = Check::new();
    t.check("RPUSH l a 1 2 3 1 b 1 c", "8").check("LPOS l 1", "1").check("LPOS l 1 RANK 2", "4");
    t.check("LPOS l 1 RANK -1", "6").check("LPOS l 1 COUNT 0", "[1 4 6]").check("LPOS l 1 COUNT 2", "[1 4]");
    t.check("LPOS l 1 COUNT 0 RANK -1", "[6 4 1]").check("LPOS l 1 COUNT 0 RANK -2 MAXLEN 4", "[4]");
    t.check("LPOS l 1 MAXLEN 1", "nil").check("LPOS l 1 MAXLEN 2", "1").check("LPOS l 1 COUNT 0 MAXLEN 1", "[]");
    t.check("LPOS l q", "nil")
        .check("LPOS l q COUNT 1", "[]")
        .check("LPOS none q", "nil")
        .check("LPOS none q COUNT 1", "[]");
    t.check("LPOS l 1 RANK 4", "nil").check("LPOS l 1 RANK 9223372036854775807", "nil");
    t.look("LPOS l 1 RANK 0", |v| assert!(v.text().starts_with("ERR RANK can't be zero: use 1 to start from")));
    t.look("LPOS l 1 RANK -9223372036854775808", |v| assert!(v.text().starts_with("ERR value is out of range")));
    t.check("LPOS l 1 COUNT -1", "-ERR COUNT can't be negative")
        .check("LPOS l 1 MAXLEN -1", "-ERR MAXLEN can't be negative");
    t.check("LPOS l 1 RANK", "-ERR syntax error").check("LPOS l 1 FOO 1", "-ERR syntax error");
    t.check("LREM l -2 1", "2").check("LRANGE l 0 -1", r#"["a" "1" "2" "3" "b" "c"]"#).check("LREM l 0 q", "0");
    t.check("LREM l 5 1", "1").check("LREM none 0 a", "0").check("DEL l", "1");
    t.check("RPUSH l x x", "2").check("LREM l 0 x", "2").check("EXISTS l", "0");
}

#[test]
fn elements_move_between_lists() {
    let mut t = Check::new();
    t.check("RPUSH a 1 2 3", "3").check("RPOPLPUSH a b", r#""3""#).check("LMOVE a b LEFT RIGHT", r#""1""#);
    t.check("LRANGE a 0 -1", r#"["2"]"#).check("LRANGE b 0 -1", r#"["3" "1"]"#);
    t.check("LMOVE a b left left", r#""2""#).check("EXISTS a", "0").check("LRANGE b 0 -1", r#"["2" "3" "1"]"#);
    t.check("RPOPLPUSH b b", r#""1""#).check("LRANGE b 0 -1", r#"["1" "2" "3"]"#);
    t.check("LMOVE b b LEFT LEFT", r#""1""#).check("LMOVE b b RIGHT RIGHT", r#""3""#).check("LLEN b", "3");
    t.check("LMOVE b b LEFT RIGHT", r#""1""#).check("LRANGE b 0 -1", r#"["2" "3" "1"]"#);
    t.check("DEL b", "1").check("RPUSH b x", "1").check("EXPIRE b 100", "1").check("RPOPLPUSH b b", r#""x""#);
    t.check("TTL b", "100").check("LMOVE b c UP LEFT", "-ERR syntax error");
    t.types("RPOPLPUSH none b", "nil", "nil").types("LMOVE none s LEFT LEFT", "nil", "nil");
    t.check("SET s text", "OK").check("RPOPLPUSH b s", WRONG).check("RPOPLPUSH s b", WRONG).check("LLEN b", "1");
}

#[test]
fn many_are_popped_from_the_first_list() {
    let mut t = Check::new();
    t.check("RPUSH b 1 2 3 4", "4").check("RPUSH c x", "1");
    t.check("LMPOP 3 a b c LEFT", r#"["b" ["1"]]"#).check("LMPOP 2 a b RIGHT COUNT 2", r#"["b" ["4" "3"]]"#);
    t.check("LMPOP 2 b c LEFT COUNT 10", r#"["b" ["2"]]"#).check("LMPOP 2 b c LEFT COUNT 10", r#"["c" ["x"]]"#);
    t.types("LMPOP 2 b c LEFT", "nil*", "nil")
        .check("DBSIZE", "0")
        .check("SET s 1", "OK")
        .check("LMPOP 1 s LEFT", WRONG);
    t.check("LMPOP 0 a LEFT", "-ERR numkeys should be greater than 0");
    t.check("LMPOP x a LEFT", "-ERR numkeys should be greater than 0")
        .check("LMPOP 1 a", "-ERR wrong number of arguments for 'lmpop' command");
    t.check("LMPOP 2 a LEFT", "-ERR syntax error").check("LMPOP 1 a UP", "-ERR syntax error");
    t.check("LMPOP 1 a LEFT COUNT 0", "-ERR count should be greater than 0");
    t.check("LMPOP 1 a LEFT COUNT", "-ERR syntax error").check("LMPOP 1 a LEFT COUNT 1 COUNT 1", "-ERR syntax error");
    t.check("LMPOP 9223372036854775807 a LEFT", "-ERR syntax error");
}

/// Replies that a waiting client got.
fn replies(world: &mut World, conn: crate::testing::Conn) -> String {
    let bytes = world.received(conn);
    Value::parse_all(&bytes).iter().map(|value| value.clone().folded().to_string()).collect::<Vec<_>>().join(" ")
}

#[test]
fn clients_wait_for_elements() {
    let mut t = Check::new();
    for (wait, push, reply) in [
        ("BLPOP a b 0", "RPUSH b 1 2", r#"["b" "1"]"#),
        ("BRPOP a b 0", "RPUSH b 1 2", r#"["b" "2"]"#),
        ("BLMPOP 0 2 a b LEFT COUNT 9", "RPUSH b 1 2", r#"["b" ["1" "2"]]"#),
        ("BLMOVE a c LEFT RIGHT 0", "RPUSH a 1 2", r#""1""#),
        ("BRPOPLPUSH a c 0", "RPUSH a 1 2", r#""2""#),
    ] {
        t.each(|world, conn| {
            let waiting = world.connect();
            world.send(waiting, &crate::testing::request(&wait.split(' ').collect::<Vec<_>>()));
            assert_eq!(replies(world, waiting), "", "{wait}");
            assert_eq!(world.run(conn, push).integer(), 2);
            assert_eq!(replies(world, waiting), reply, "{wait}");
        });
        t.check("FLUSHALL", "OK");
    }
    t.each(|world, _| {
        let waiting = world.connect();
        world.send(waiting, b"BLPOP a 1\r\nBRPOPLPUSH a b 1\r\n");
        for _ in 0..30 {
            world.advance(100);
            world.shards.iter_mut().for_each(|shard| shard.before_sleep());
            world.settle();
        }
        assert_eq!(replies(world, waiting), "nil nil");
    });
    // What was said before a wait is not held back by it.
    t.each(|world, _| {
        let waiting = world.connect();
        world.send(waiting, b"RPUSH p 1\r\nBLPOP q 0\r\n");
        assert_eq!(replies(world, waiting), "1");
        world.disconnect(waiting);
    });
    t.check("RPUSH a 1 2 3", "3").check("BLPOP b a 0", r#"["a" "1"]"#).check("BLMOVE a b RIGHT LEFT 0", r#""3""#);
    t.check("SET s x", "OK").check("BLPOP s a 0", WRONG).check("BLPOP a -1", "-ERR timeout is negative");
    t.check("BLPOP a x", "-ERR timeout is not a float or out of range");
    t.check("MULTI", "OK").check("BLPOP none 0", "QUEUED").look("EXEC", |v| assert_eq!(v.to_string(), "[nil]"));
}

#[test]
fn lists_convert_where_redis_converts() {
    let mut t = Check::with_config(&[("list-max-listpack-size", "4")]);
    t.check("RPUSH l 1 2 3 4", "4").check("OBJECT ENCODING l", r#""listpack""#);
    t.check("RPUSH l 5", "5").check("OBJECT ENCODING l", r#""quicklist""#);
    t.check("LPOP l 2", r#"["1" "2"]"#).check("OBJECT ENCODING l", r#""quicklist""#);
    // Two nodes of one element each are still two.
    t.check("LPOP l", r#""3""#).check("OBJECT ENCODING l", r#""quicklist""#);
    t.check("LPOP l", r#""4""#).check("OBJECT ENCODING l", r#""listpack""#).check("RPUSH l 4", "2");
    t.check("RPOPLPUSH l l", r#""4""#).check("LRANGE l 0 -1", r#"["4" "5"]"#);
    // A pivot that is not there makes room all the same.
    t.check("RPUSH l 6 7", "4").check("LINSERT l before q x", "-1").check("OBJECT ENCODING l", r#""quicklist""#);
    t.check("LREM l 0 7", "1").check("LREM l 0 6", "1").check("OBJECT ENCODING l", r#""listpack""#);
    t.check("COPY l m", "1").check("RPUSH m x", "3").check("LLEN l", "2");
    let large = "x".repeat(9000);
    t.check(&format!("RPUSH big {large}"), "1").check("OBJECT ENCODING big", r#""quicklist""#);
    t.check("LSET big 0 small", "OK").check("OBJECT ENCODING big", r#""listpack""#);
    // Of redis-server 7.0.15 after RPUSH l 4 5.
    t.check("DEBUG DIGEST-VALUE l", r#"[0e3307769f6a3877444ed2b7fe33a88c6ff20e27]"#);
}

#[test]
fn other_types_are_refused() {
    let mut t = Check::new();
    t.check("SET s text", "OK").check("RPUSH l a", "1");
    for line in [
        "LPUSH s 1",
        "RPUSH s 1",
        "LPUSHX s 1",
        "LPOP s",
        "RPOP s 1",
        "LRANGE s 0 1",
        "LINDEX s 0",
        "LLEN s",
        "LSET s 0 x",
        "LINSERT s before a b",
        "LREM s 0 a",
        "LTRIM s 0 1",
        "LPOS s a",
        "GET l",
        "SADD l x",
    ] {
        t.check(line, WRONG);
    }
}

#[test]
fn only_changes_touch_watchers() {
    let mut t = Check::new();
    t.check("RPUSH a 1 2 3", "3");
    for (line, touches) in [
        ("LREM a 0 9", false),
        ("LINSERT a before 9 0", false),
        ("LPUSHX b 1", false),
        ("LPOP a 0", false),
        ("LSET a 0 1", true),
        ("LTRIM a 0 -1", true),
        ("RPOPLPUSH a a", true),
        ("LPOP a", true),
    ] {
        t.each(|world, conn| {
            let other = world.connect();
            world.run(other, "WATCH a");
            world.run(conn, line);
            world.run(other, "MULTI");
            world.run(other, "PING");
            let done = world.run(other, "EXEC");
            assert_eq!(matches!(done, Value::Null | Value::NullArray), touches, "{line}");
        });
    }
}

/// Random commands against deques of the standard library.
fn random_run(seed: u64, shards: usize, fill: &str) {
    let mut world = World::with_config(shards, &[("list-max-listpack-size", fill)]);
    let conn = world.connect();
    let mut rng = Rng::new(seed);
    let mut oracle: BTreeMap<String, VecDeque<String>> = BTreeMap::new();
    for _ in 0..1500 {
        let (a, b) = (format!("k{}", rng.below(3)), format!("k{}", rng.below(3)));
        let word = match rng.below(8) {
            0 => "x".repeat(rng.below(9000) as usize),
            1..3 => format!("w{}", rng.below(9)),
            _ => rng.below(12).to_string(),
        };
        let list = oracle.entry(a.clone()).or_default();
        let (len, front) = (list.len(), rng.below(2) == 0);
        let at = rng.below(len as u64 + 2) as usize;
        let (command, wanted) = match rng.below(8) {
            0..3 => {
                if front {
                    list.push_front(word.clone())
                } else {
                    list.push_back(word.clone())
                }
                (format!("{} {a} {word}", if front { "LPUSH" } else { "RPUSH" }), (len + 1).to_string())
            }
            3 => {
                let gone = if front { list.pop_front() } else { list.pop_back() };
                (format!("{} {a}", if front { "LPOP" } else { "RPOP" }), gone.unwrap_or("nil".into()))
            }
            4 if at < len => {
                list[at] = word.clone();
                (format!("LSET {a} {at} {word}"), "OK".into())
            }
            5 if len > 0 => {
                let pivot = list[at.min(len - 1)].clone();
                let place = list.iter().position(|e| *e == pivot).unwrap();
                list.insert(place + !front as usize, word.clone());
                (
                    format!("LINSERT {a} {} {pivot} {word}", if front { "before" } else { "after" }),
                    (len + 1).to_string(),
                )
            }
            6 if rng.below(4) == 0 => {
                list.truncate(at + 5);
                list.drain(..at.min(list.len()));
                (format!("LTRIM {a} {at} {}", at + 4), "OK".into())
            }
            _ => {
                let gone = if front { list.pop_front() } else { list.pop_back() };
                if let Some(element) = &gone {
                    oracle.entry(b.clone()).or_default().push_front(element.clone());
                }
                (format!("LMOVE {a} {b} {} LEFT", if front { "LEFT" } else { "RIGHT" }), gone.unwrap_or("nil".into()))
            }
        };
        let context = format!("seed {seed}, {shards} shard(s), fill {fill}: {command}");
        let reply = world.run(conn, &command);
        let reply = if reply == Value::Null { "nil".into() } else { reply.text() };
        assert_eq!(reply, wanted, "{context}");
        for key in [&a, &b] {
            let wanted: Vec<String> = oracle.get(key).into_iter().flatten().cloned().collect();
            let got: Vec<String> =
                world.run(conn, &format!("LRANGE {key} 0 -1")).items().iter().map(Value::text).collect();
            assert_eq!(got, wanted, "{context}");
            assert_eq!(world.run(conn, &format!("EXISTS {key}")).integer(), !wanted.is_empty() as i64, "{context}");
        }
    }
}

#[test]
fn random_commands_do_what_the_oracle_says() {
    for (seed, shards) in [(1, 1), (2, 4)] {
        for fill in ["-2", "1", "5"] {
            random_run(seed, shards, fill);
        }
    }
}
