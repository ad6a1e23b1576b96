//! The commands of sets on one shard and on four, in both protocols; random ones against a naive oracle.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::Rng;
use crate::testing::{Check, Value, World};

const WRONG: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

fn members(value: Value) -> BTreeSet<String> {
    let items = value.items();
    let set: BTreeSet<String> = items.iter().map(Value::text).collect();
    assert_eq!(set.len(), items.len(), "no member comes twice");
    set
}

#[test]
fn sets_convert_where_redis_converts() {
    let mut t = Check::with_config(&[("set-max-intset-entries", "4"), ("set-max-listpack-entries", "5")]);
    t.check("SADD i 3 1 2", "3").check("OBJECT ENCODING i", "\"intset\"");
    t.check("SADD i 4", "1").check("OBJECT ENCODING i", "\"intset\"");
    t.check("SADD i 5", "1").check("OBJECT ENCODING i", "\"hashtable\"");
    t.check("SADD l 1 2", "2").check("SADD l x", "1").check("OBJECT ENCODING l", "\"listpack\"");
    t.check("SADD l y z", "2").check("OBJECT ENCODING l", "\"listpack\"");
    t.check("SADD l w", "1").check("OBJECT ENCODING l", "\"hashtable\"");
    t.check("SCARD l", "6").check("SMISMEMBER l 1 2 3 w x", "[1 1 0 1 1]");
    // The number of members given decides at the start, and again for a set that is flat.
    t.check("SADD h a b c d e f", "6").check("OBJECT ENCODING h", "\"hashtable\"");
    t.check("SADD j 1", "1").check("SADD j 1 1 1 1 1", "0").check("OBJECT ENCODING j", "\"hashtable\"");
    t.check(&format!("SADD long {}", "x".repeat(65)), "1").check("OBJECT ENCODING long", "\"hashtable\"");
    t.check(&format!("SADD short {}", "x".repeat(64)), "1").check("OBJECT ENCODING short", "\"listpack\"");
    t.check("SUNIONSTORE u j i", "5").check("OBJECT ENCODING u", "\"hashtable\"");
    t.check("SREM u 5", "1").check("SINTERSTORE n u i", "4").check("OBJECT ENCODING n", "\"intset\"");
}

#[test]
fn replies_are_sets_in_resp3() {
    let mut t = Check::new();
    t.check("SADD a 1 2 3", "3").check("SADD a 3 4", "1").check("SADD b 2 3 9", "3").check("SADD c 3", "1");
    t.types("SMEMBERS a", r#"["1" "2" "3" "4"]"#, r#"~["1" "2" "3" "4"]"#);
    t.types("SMEMBERS none", "[]", "~[]");
    t.types("SINTER a b c", r#"["3"]"#, r#"~["3"]"#).types("SINTER a none", "[]", "~[]");
    t.types("SUNION a b", r#"["1" "2" "3" "4" "9"]"#, r#"~["1" "2" "3" "4" "9"]"#);
    t.types("SDIFF a b none c", r#"["1" "4"]"#, r#"~["1" "4"]"#).types("SDIFF a a", "[]", "~[]");
    t.types("SPOP c 7", r#"["3"]"#, r#"~["3"]"#).check("EXISTS c", "0");
    t.types("SPOP none 2", "[]", "~[]").types("SPOP none", "nil", "nil").types("SPOP a 0", "[]", "~[]");
    t.types("SRANDMEMBER none 2", "[]", "[]").types("SRANDMEMBER none", "nil", "nil");
    t.types("SRANDMEMBER b 5", r#"["2" "3" "9"]"#, r#"["2" "3" "9"]"#);
    t.check("SINTERCARD 2 a b", "2").check("SINTERCARD 2 a b LIMIT 1", "1").check("SINTERCARD 2 a b LIMIT 0", "2");
    t.types("SSCAN none 0", r#"["0" []]"#, r#"["0" []]"#);
    t.types("SSCAN a 0 MATCH [12]", r#"["0" ["1" "2"]]"#, r#"["0" ["1" "2"]]"#);
}

#[test]
fn moving_and_storing_cross_shards() {
    let mut t = Check::new();
    t.check("SADD a 1 2 x", "3").check("SMOVE a b 1", "1").check("SMOVE a b 1", "0").check("SMEMBERS b", r#"["1"]"#);
    t.check("SMOVE a a x", "1").check("SMOVE a a y", "0").check("SMOVE none b 1", "0");
    t.check("SMOVE a b 2", "1").check("SMOVE a b x", "1").check("EXISTS a", "0").check("SCARD b", "3");
    t.check("SET s text", "OK").check("SUNIONSTORE s b", "3").check("TYPE s", "set");
    t.check("EXPIRE s 100", "1").check("SDIFFSTORE s b none", "3").check("TTL s", "-1");
    t.check("SINTERSTORE s b none", "0").check("EXISTS s", "0").check("SDIFFSTORE b b b", "0").check("DBSIZE", "0");
    t.check("SADD a 1", "1").check("SREM a 2 1 3", "1").check("EXISTS a", "0").check("SREM a 1", "0");
    // A copy is a set of its own.
    t.check("SADD a p q", "2")
        .check("COPY a c", "1")
        .check("SADD c r", "1")
        .check("SCARD a", "2")
        .check("SCARD c", "3");
}

#[test]
fn errors_are_those_of_redis() {
    let mut t = Check::new();
    t.check("SET s text", "OK").check("SADD a 1 2", "2");
    for line in [
        "SADD s 1",
        "SREM s 1",
        "SISMEMBER s 1",
        "SMISMEMBER s 1",
        "SCARD s",
        "SMEMBERS s",
        "SPOP s",
        "SPOP s 1",
        "SRANDMEMBER s",
        "SRANDMEMBER s 1",
        "SMOVE s a 1",
        "SMOVE a s 1",
        "SINTER none s",
        "SINTERSTORE d a s",
        "SINTERCARD 2 none s",
        "SUNION a s",
        "SUNIONSTORE d s",
        "SDIFF none s",
        "SDIFFSTORE d a s",
        "SSCAN s 0",
    ] {
        t.check(line, WRONG);
    }
    t.check("SPOP a -1", "-ERR value is out of range, must be positive");
    t.check("SPOP a x", "-ERR value is out of range, must be positive").check("SPOP a 1 1", "-ERR syntax error");
    t.check("SRANDMEMBER a x", "-ERR value is not an integer or out of range");
    t.look("SRANDMEMBER a -9223372036854775808", |v| assert!(v.text().starts_with("ERR value is out of range")));
    t.look("SRANDMEMBER a -9223372036854775807", |v| assert!(v.text().starts_with("ERR value is out of range")));
    t.check("SRANDMEMBER a 1 1", "-ERR syntax error");
    t.check("SINTERCARD 0 a", "-ERR numkeys should be greater than 0");
    t.check("SINTERCARD x a", "-ERR numkeys should be greater than 0");
    t.check("SINTERCARD 2 a", "-ERR Number of keys can't be greater than number of args");
    t.check("SINTERCARD 1 a LIMIT -1", "-ERR LIMIT can't be negative").check("SINTERCARD 1 a b", "-ERR syntax error");
    t.check("SINTERCARD 1 a LIMIT", "-ERR syntax error").check("SSCAN a x", "-ERR invalid cursor");
    t.check("SSCAN a 0 COUNT 0", "-ERR syntax error")
        .check("SADD a", "-ERR wrong number of arguments for 'sadd' command");
    t.check("SCARD a", "2").check("DBSIZE", "2");
}

#[test]
fn only_changes_touch_watchers() {
    let mut t = Check::new();
    t.check("SADD a 1 2", "2");
    for (line, touches) in
        [("SADD a 1", false), ("SREM a 9", false), ("SMOVE a b 9", false), ("SADD a 3", true), ("SREM a 3", true)]
    {
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

#[test]
fn samples_are_members_and_differ() {
    let mut t = Check::new();
    let few: Vec<String> = (0..100).map(|i| format!("m{i}")).collect();
    let many: Vec<String> = (0..600).map(|i| format!("m{i}")).collect();
    let ints: Vec<String> = (0..300).map(|i| i.to_string()).collect();
    for (name, all) in [("few", few), ("many", many), ("ints", ints)] {
        let n = all.len();
        t.check(&format!("SADD {name} {}", all.join(" ")), &n.to_string());
        let all: BTreeSet<String> = all.into_iter().collect();
        for count in [1, 5, n / 2, n - 1, n, n + 1] {
            t.look(&format!("SRANDMEMBER {name} {count}"), |v| {
                let some = members(v);
                assert!(some.len() == count.min(n) && some.is_subset(&all));
            });
            t.look(&format!("SRANDMEMBER {name} -{count}"), |v| {
                let items = v.items();
                assert!(items.len() == count && items.iter().all(|item| all.contains(&item.text())));
            });
        }
        t.each(|world, conn| {
            let mut left = all.clone();
            for count in [1, 3, n / 2, (n / 2 - 4) * 9 / 10] {
                let popped = members(world.run(conn, &format!("SPOP {name} {count}")));
                assert!(popped.len() == count && popped.is_subset(&left));
                left.retain(|member| !popped.contains(member));
                assert_eq!(members(world.run(conn, &format!("SMEMBERS {name}"))), left);
            }
            // A whole iteration meets every member.
            let (mut cursor, mut seen) = ("0".to_string(), BTreeSet::new());
            loop {
                let reply = world.run(conn, &format!("SSCAN {name} {cursor} COUNT 3")).items();
                seen.extend(reply[1].items().iter().map(Value::text));
                cursor = reply[0].text();
                if cursor == "0" {
                    break;
                }
            }
            assert_eq!(seen, left);
        });
    }
}

/// Random commands against sets of the standard library.
fn random_run(seed: u64, shards: usize, flat: &str) {
    let directives = [("set-max-intset-entries", flat), ("set-max-listpack-entries", flat)];
    let mut world = World::with_config(shards, &directives);
    let conn = world.connect();
    let mut rng = Rng::new(seed);
    let mut oracle: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for _ in 0..1500 {
        let key = |rng: &mut Rng| format!("k{}", rng.below(5));
        let (a, b, c) = (key(&mut rng), key(&mut rng), key(&mut rng));
        let word = |rng: &mut Rng| match rng.below(5) {
            0 => format!("w{}", rng.below(30)),
            1 => (rng.below(100_000) as i64 - 50_000).to_string(),
            _ => rng.below(40).to_string(),
        };
        let words: Vec<String> = (0..1 + rng.below(6)).map(|_| word(&mut rng)).collect();
        let get = |key: &String| oracle.get(key).cloned().unwrap_or_default();
        let (sa, sb, sc) = (get(&a), get(&b), get(&c));
        let line = words.join(" ");
        let op = rng.below(9);
        let (command, wanted) = match op {
            0..3 => {
                let mut new = sa.clone();
                new.extend(words.iter().cloned());
                let n = new.len() - sa.len();
                oracle.insert(a.clone(), new);
                (format!("SADD {a} {line}"), n)
            }
            3 => {
                let mut new = sa.clone();
                new.retain(|member| !words.contains(member));
                let n = sa.len() - new.len();
                oracle.insert(a.clone(), new);
                (format!("SREM {a} {line}"), n)
            }
            4 => {
                let member = &words[0];
                let there = sa.contains(member);
                if there && a != b {
                    oracle.get_mut(&a).unwrap().remove(member);
                    oracle.entry(b.clone()).or_default().insert(member.clone());
                }
                (format!("SMOVE {a} {b} {member}"), there as usize)
            }
            5 => {
                let n = sb.iter().filter(|m| sc.contains(*m)).count();
                (format!("SINTERCARD 2 {b} {c}"), n)
            }
            op => {
                let (name, new): (_, BTreeSet<String>) = match op {
                    6 => ("SINTERSTORE", sb.intersection(&sc).cloned().collect()),
                    7 => ("SUNIONSTORE", sb.union(&sc).cloned().collect()),
                    _ => ("SDIFFSTORE", sb.difference(&sc).cloned().collect()),
                };
                let n = new.len();
                oracle.insert(a.clone(), new);
                (format!("{name} {a} {b} {c}"), n)
            }
        };
        let context = format!("seed {seed}, {shards} shard(s), flat to {flat}: {command}");
        assert_eq!(world.run(conn, &command).integer(), wanted as i64, "{context}");
        for key in [&a, &b] {
            let wanted = oracle.get(key).cloned().unwrap_or_default();
            assert_eq!(members(world.run(conn, &format!("SMEMBERS {key}"))), wanted, "{context}");
            assert_eq!(world.run(conn, &format!("EXISTS {key}")).integer(), !wanted.is_empty() as i64, "{context}");
        }
        for (name, wanted) in
            [("SINTER", &sb & &sc), ("SUNION", &sb | &sc), ("SDIFF", &sb - &sc)].into_iter().filter(|_| op == 5)
        {
            assert_eq!(members(world.run(conn, &format!("{name} {b} {c}"))), wanted, "{context}");
        }
    }
}

#[test]
fn random_commands_do_what_the_oracle_says() {
    for (seed, shards) in [(1, 1), (2, 4)] {
        for flat in ["0", "8", "512"] {
            random_run(seed, shards, flat);
        }
    }
}
