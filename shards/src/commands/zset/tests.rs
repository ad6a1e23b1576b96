//! The commands of sorted sets on one shard and on four, in both protocols, in both encodings; random ones against a
//! naive oracle.

use std::collections::BTreeMap;

use crate::core::Rng;
use crate::testing::{Check, Value, World};

const WRONG: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

trait Scored {
    /// Checks a reply of members with scores, given as words: pairs in RESP3, one list in RESP2.
    fn scored(&mut self, line: &str, words: &str) -> &mut Self;
}

impl Scored for Check {
    #[track_caller]
    fn scored(&mut self, line: &str, words: &str) -> &mut Self {
        let words: Vec<&str> = words.split(' ').collect();
        let flat: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
        let pairs: Vec<String> = words.chunks(2).map(|pair| format!("[\"{}\" ,{}]", pair[0], pair[1])).collect();
        self.types(line, &format!("[{}]", flat.join(" ")), &format!("[{}]", pairs.join(" ")))
    }
}

/// Runs a script with flat sets and with trees.
fn both(test: impl Fn(&mut Check)) {
    for entries in ["128", "0"] {
        test(&mut Check::with_config(&[("zset-max-listpack-entries", entries)]));
    }
}

#[test]
fn adding_obeys_the_options() {
    both(|t| {
        t.check("ZADD z 1 a 2 b 3 c", "3").check("ZADD z 1 a 5 b 4 d", "1").check("ZADD z CH 1 a 2 b 5 e", "2");
        t.check("ZADD z NX 9 a 9 f", "1").check("ZSCORE z a", "\"1\"").check("ZADD z XX CH 10 f 10 g", "1");
        t.check("ZSCORE z g", "nil").check("ZADD z GT CH 9 f 11 f 12 h", "2").check("ZSCORE z f", "\"11\"");
        t.check("ZADD z LT CH 12 f 9 f 13 h", "1").check("ZSCORE z f", "\"9\"").check("ZSCORE z h", "\"12\"");
        t.check("ZADD z INCR 1.5 a", "\"2.5\"").check("ZADD z NX INCR 1 a", "nil").check("ZADD z XX INCR 1 no", "nil");
        t.check("ZADD z GT INCR -1 a", "nil").check("ZADD z LT INCR -1 a", "\"1.5\"");
        t.check("ZINCRBY z 3 a", "\"4.5\"").check("ZINCRBY z -2 new", "\"-2\"");
        t.check("ZADD none XX 1 a", "0").check("EXISTS none", "0").check("ZADD none XX INCR 1 a", "nil");
        t.check("ZADD i inf a -inf b", "2").check("ZINCRBY i -inf a", "-ERR resulting score is not a number (NaN)");
        t.scored("ZRANGE i 0 -1 WITHSCORES", "b -inf a inf").types("ZSCORE i a", "\"inf\"", ",inf");
        t.check("ZADD z 1", "-ERR wrong number of arguments for 'zadd' command");
        t.check("ZADD z 1 a 2", "-ERR syntax error").check("ZADD z NX CH GT", "-ERR syntax error");
        t.check("ZADD z NX XX 1 a", "-ERR XX and NX options at the same time are not compatible");
        let conflict = "-ERR GT, LT, and/or NX options at the same time are not compatible";
        t.check("ZADD z NX GT 1 a", conflict).check("ZADD z LT GT 1 a", conflict).check("ZADD z LT NX 1 a", conflict);
        t.check("ZADD z INCR 1 a 2 b", "-ERR INCR option supports a single increment-element pair");
        t.check("ZADD z 1 a nan b", "-ERR value is not a valid float").check("ZSCORE z a", "\"4.5\"");
        t.check("ZINCRBY z x a", "-ERR value is not a valid float");
        t.check("SET s v", "OK").check("ZADD s 1 a", WRONG).check("ZRANGE s 0 -1", WRONG).check("ZPOPMIN s 0", WRONG);
        t.check("TYPE z", "zset");
    });
}

#[test]
fn encodings_are_those_of_redis() {
    let mut t = Check::with_config(&[("zset-max-listpack-entries", "3"), ("zset-max-listpack-value", "5")]);
    t.check("ZADD z 1 a 2 b 3 c", "3").check("OBJECT ENCODING z", "\"listpack\"");
    t.check("ZADD z 9 c", "0").check("OBJECT ENCODING z", "\"listpack\"");
    t.check("ZADD z 4 d", "1").check("OBJECT ENCODING z", "\"skiplist\"");
    t.check("ZREM z c d", "2").check("OBJECT ENCODING z", "\"skiplist\"");
    t.check("ZADD l 1 longer", "1").check("OBJECT ENCODING l", "\"skiplist\"");
    t.check("ZADD many 1 a 1 b 1 c 1 d", "4").check("OBJECT ENCODING many", "\"skiplist\"");
    t.check("ZUNIONSTORE u 2 z z", "2").check("OBJECT ENCODING u", "\"listpack\"");
    t.check("ZUNIONSTORE u 2 z l", "3").check("OBJECT ENCODING u", "\"skiplist\"");
    t.check("ZRANGESTORE r many 0 2", "3").check("OBJECT ENCODING r", "\"listpack\"");
    t.check("COPY many copy", "1").check("OBJECT ENCODING copy", "\"skiplist\"").check("ZCARD copy", "4");
}

#[test]
fn ranges_of_every_kind() {
    both(|t| {
        t.check("ZADD z 1 a 2 b 2 c 3 d 4 e", "5");
        t.check("ZRANGE z 1 -2", r#"["b" "c" "d"]"#).check("ZREVRANGE z 0 1", r#"["e" "d"]"#);
        t.check("ZRANGE z 0 1 REV", r#"["e" "d"]"#).check("ZRANGE z 3 1", "[]").check("ZRANGE z 9 10", "[]");
        t.check("ZRANGE z -100 100", r#"["a" "b" "c" "d" "e"]"#);
        t.types("ZRANGE z 0 1 WITHSCORES", r#"["a" "1" "b" "2"]"#, r#"[["a" ,1] ["b" ,2]]"#);
        t.check("ZRANGEBYSCORE z 2 3", r#"["b" "c" "d"]"#).check("ZRANGEBYSCORE z (2 +inf", r#"["d" "e"]"#);
        t.check("ZREVRANGEBYSCORE z 3 (1", r#"["d" "c" "b"]"#).check("ZRANGEBYSCORE z (2 (3", "[]");
        t.check("ZRANGEBYSCORE z -inf inf LIMIT 1 2", r#"["b" "c"]"#);
        t.check("ZREVRANGEBYSCORE z inf -inf LIMIT 1 2", r#"["d" "c"]"#);
        t.check("ZRANGEBYSCORE z -inf inf LIMIT 3 -1", r#"["d" "e"]"#);
        t.check("ZRANGEBYSCORE z -inf inf LIMIT -1 2", "[]").check("ZRANGEBYSCORE z -inf inf LIMIT 9 2", "[]");
        t.check("ZRANGE z 3 1 BYSCORE REV LIMIT 0 2", r#"["d" "c"]"#);
        t.types("ZRANGEBYSCORE z 4 4 WITHSCORES", r#"["e" "4"]"#, r#"[["e" ,4]]"#);
        t.check("ZCOUNT z (1 3", "3").check("ZCOUNT z 5 1", "0").check("ZCOUNT none 1 5", "0");
        t.check("ZADD l 0 a 0 b 0 bb 0 c", "4").check("ZRANGEBYLEX l - (c", r#"["a" "b" "bb"]"#);
        t.check("ZRANGEBYLEX l [b +", r#"["b" "bb" "c"]"#).check("ZREVRANGEBYLEX l [bb (a", r#"["bb" "b"]"#);
        t.check("ZRANGE l [c [b BYLEX REV LIMIT 1 1", r#"["bb"]"#).check("ZLEXCOUNT l (b [c", "2");
        t.check("ZRANGEBYLEX l + -", "[]").check("ZLEXCOUNT l - +", "4");
        t.check("ZRANGEBYSCORE z x 1", "-ERR min or max is not a float");
        t.check("ZCOUNT z 1 nan", "-ERR min or max is not a float");
        t.check("ZRANGEBYLEX l a b", "-ERR min or max not valid string range item");
        t.check("ZRANGE z 0 x", "-ERR value is not an integer or out of range");
        let limit = "-ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX";
        t.check("ZRANGE z 0 1 BYSCORE BYSCORE", "-ERR syntax error");
        t.check("ZRANGE z 0 1 LIMIT 0 1", limit).check("ZREVRANGE z 0 1 BYSCORE", "-ERR syntax error");
        let scores = "-ERR syntax error, WITHSCORES not supported in combination with BYLEX";
        t.check("ZRANGE l - + BYLEX WITHSCORES", scores);
        t.check("ZRANGESTORE d z 2 3 BYSCORE", "3").scored("ZRANGE d 0 -1 WITHSCORES", "b 2 c 2 d 3");
        t.check("ZRANGESTORE d z 0 1 REV", "2").check("ZRANGE d 0 -1", r#"["d" "e"]"#);
        t.check("ZRANGESTORE d none 0 1", "0").check("EXISTS d", "0");
        t.check("ZRANGESTORE d z 0 1 WITHSCORES", "-ERR syntax error");
        t.check("ZRANGESTORE z z (2 4 BYSCORE", "2").check("ZRANGE z 0 -1", r#"["d" "e"]"#);
    });
}

#[test]
fn members_are_looked_up() {
    both(|t| {
        t.check("ZADD z 1 a 2 b 3 c", "3");
        t.types("ZSCORE z b", "\"2\"", ",2").types("ZMSCORE z a x c", r#"["1" nil "3"]"#, "[,1 nil ,3]");
        t.check("ZMSCORE none a", "[nil]").check("ZCARD z", "3").check("ZCARD none", "0");
        t.check("ZRANK z a", "0").check("ZREVRANK z a", "2").check("ZRANK z x", "nil").check("ZRANK none x", "nil");
        t.types("ZRANK z c WITHSCORE", r#"[2 "3"]"#, "[2 ,3]").types("ZREVRANK z x WITHSCORE", "nil*", "nil");
        t.check("ZRANK z a SCORE", "-ERR syntax error");
        t.check("ZRANK z a WITHSCORE x", "-ERR wrong number of arguments for 'zrank' command");
        t.types("ZRANDMEMBER z 5 WITHSCORES", r#"["a" "1" "b" "2" "c" "3"]"#, r#"[["a" ,1] ["b" ,2] ["c" ,3]]"#);
        t.check("ZRANDMEMBER none", "nil").check("ZRANDMEMBER none 3", "[]").check("ZRANDMEMBER z 0", "[]");
        t.look("ZRANDMEMBER z -7", |reply| assert_eq!(reply.items().len(), 7));
        t.look("ZRANDMEMBER z 2", |reply| {
            let items = reply.items();
            assert!(items.len() == 2 && items[0] != items[1]);
        });
        t.check("ZRANDMEMBER z -9223372036854775807", "-ERR value is out of range");
        t.check("ZSCAN none 0", r#"["0" []]"#);
        t.look("ZSCAN z 0 MATCH [bc] COUNT 100", |reply| {
            let pairs = reply.items()[1].items();
            let names: BTreeMap<String, String> = pairs.chunks(2).map(|p| (p[0].text(), p[1].text())).collect();
            assert_eq!(names, BTreeMap::from([("b".into(), "2".into()), ("c".into(), "3".into())]));
        });
    });
}

#[test]
fn removing_takes_the_key_with_the_last() {
    both(|t| {
        t.check("ZADD z 1 a 2 b 3 c 4 d 5 e 6 f 7 g", "7");
        t.check("ZREM z a x b a", "2").check("ZREM z x", "0").check("ZREM none x", "0");
        t.check("ZREMRANGEBYRANK z 0 0", "1").check("ZREMRANGEBYSCORE z (4 5", "1").check("ZREMRANGEBYRANK z 9 9", "0");
        t.check("ZRANGE z 0 -1", r#"["d" "f" "g"]"#);
        t.types("ZPOPMIN z", r#"["d" "4"]"#, r#"["d" ,4]"#).types("ZPOPMAX z 1", r#"["g" "7"]"#, r#"[["g" ,7]]"#);
        t.check("ZPOPMIN z 0", "[]").check("ZPOPMAX z -1", "-ERR value is out of range, must be positive");
        t.scored("ZPOPMAX z 10", "f 6").check("EXISTS z", "0").check("ZPOPMIN z", "[]");
        t.check("ZADD l 0 a 0 b 0 c", "3").check("ZREMRANGEBYLEX l [b +", "2").check("ZREMRANGEBYLEX l - +", "1");
        t.check("EXISTS l", "0").check("ZADD l 0 a", "1").check("ZREM l a", "1").check("EXISTS l", "0");
        t.check("ZADD m 1 a 2 b 3 c", "3");
        t.types("ZMPOP 2 none m MAX COUNT 2", r#"["m" [["c" "3"] ["b" "2"]]]"#, r#"["m" [["c" ,3] ["b" ,2]]]"#);
        t.types("ZMPOP 1 none MIN", "nil*", "nil").check("ZMPOP 1 m MIN", r#"["m" [["a" "1"]]]"#);
        t.check("ZMPOP 0 m MIN", "-ERR numkeys should be greater than 0").check("ZMPOP 3 m MIN", "-ERR syntax error");
        t.check("ZMPOP 1 m MIN COUNT 0", "-ERR count should be greater than 0");
        t.check("ZMPOP 1 m MID", "-ERR syntax error").check("ZMPOP 1 m MIN COUNT 1 COUNT 2", "-ERR syntax error");
    });
}

#[test]
fn sets_are_combined_across_shards() {
    both(|t| {
        t.check("ZADD a 1 x 2 y 3 z", "3").check("ZADD b 10 y 20 z 30 w", "3").check("SADD s x w", "2");
        t.types(
            "ZUNION 2 a b WITHSCORES",
            r#"["x" "1" "y" "12" "z" "23" "w" "30"]"#,
            r#"[["x" ,1] ["y" ,12] ["z" ,23] ["w" ,30]]"#,
        );
        t.check("ZINTER 2 a b", r#"["y" "z"]"#).scored("ZDIFF 2 a b WITHSCORES", "x 1");
        t.scored("ZINTER 2 a b WEIGHTS 2 1 AGGREGATE MIN WITHSCORES", "y 4 z 6");
        t.scored("ZUNION 2 a s AGGREGATE MAX WITHSCORES", "w 1 x 1 y 2 z 3");
        t.scored("ZUNION 2 a s WEIGHTS 1 10 WITHSCORES", "y 2 z 3 w 10 x 11");
        t.check("ZUNIONSTORE d 3 a b none", "4").check("ZINTERSTORE d 2 a s", "1");
        t.scored("ZRANGE d 0 -1 WITHSCORES", "x 2").check("ZDIFFSTORE d 2 b a", "1").check("ZCARD d", "1");
        t.check("ZINTERSTORE d 2 a none", "0").check("EXISTS d", "0").check("ZDIFF 2 a a", "[]");
        t.check("ZINTERCARD 2 a b", "2").check("ZINTERCARD 2 a b LIMIT 1", "1").check("ZINTERCARD 2 a none", "0");
        t.check("ZADD p inf m", "1").check("ZADD q -inf m", "1").scored("ZUNION 2 p q WITHSCORES", "m 0");
        t.scored("ZUNION 1 p WEIGHTS 0 WITHSCORES", "m 0");
        t.check("ZUNION 0 a", "-ERR at least 1 input key is needed for 'zunion' command");
        t.check("ZINTERSTORE d 0 a", "-ERR at least 1 input key is needed for 'zinterstore' command");
        t.check("ZUNION 3 a b", "-ERR syntax error").check("ZUNION 1 a WEIGHTS", "-ERR syntax error");
        t.check("ZUNION 1 a WEIGHTS x", "-ERR weight value is not a float").check("ZUNION x a", NOT_INTEGER);
        t.check("ZDIFF 1 a WEIGHTS 1", "-ERR syntax error").check("ZUNION 1 a AGGREGATE AVG", "-ERR syntax error");
        t.check("ZUNIONSTORE d 1 a WITHSCORES", "-ERR syntax error");
        t.check("ZINTERCARD 1 a LIMIT -1", "-ERR LIMIT can't be negative");
        t.check("SET k v", "OK").check("ZUNION 2 a k", WRONG).check("ZUNIONSTORE k 1 a", "3").check("TYPE k", "zset");
    });
}

const NOT_INTEGER: &str = "-ERR value is not an integer or out of range";

#[test]
fn fingerprints_are_those_of_redis() {
    // DEBUG DIGEST-VALUE of redis-server 7.0.15 after ZADD z 1 a 2.5 b inf c -17 11.
    both(|t| {
        t.check("ZADD z 1 a 2.5 b inf c -17 11", "4");
        t.check("DEBUG DIGEST-VALUE z", "[5f8d7ee37a3bfd9df4a573f99ce2a40b2dd14f10]");
    });
}

#[test]
fn a_watched_key_changes_only_if_something_does() {
    both(|t| {
        t.check("ZADD z 1 a 2 b", "2").check("WATCH z", "OK").check("ZADD z 1 a", "0").check("ZADD z NX 5 a", "0");
        t.check("ZREM z x", "0").check("ZREMRANGEBYSCORE z 5 6", "0").check("MULTI", "OK").check("EXEC", "[]");
        t.check("WATCH z", "OK").check("ZPOPMIN z", r#"["a" "1"]"#).check("MULTI", "OK").check("EXEC", "nil");
    });
}

#[test]
fn clients_wait_for_members() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let (a, b, c) = (world.connect(), world.connect(), world.connect());
        let ask = |world: &mut World, conn, line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            world.send(conn, &crate::testing::request(&words));
        };
        let got = |world: &mut World, conn| {
            let bytes = world.received(conn);
            if bytes.is_empty() { "nothing".into() } else { Value::parse(&bytes).unwrap().0.to_string() }
        };
        // The first to come is the first served, and each gets its own.
        ask(&mut world, a, "BZPOPMIN k1 k2 0");
        ask(&mut world, b, "BZMPOP 0 2 k2 k3 MAX COUNT 2");
        assert_eq!((got(&mut world, a).as_str(), got(&mut world, b).as_str()), ("nothing", "nothing"));
        // What is no sorted set wakes nobody.
        assert_eq!(world.run(c, "SADD k2 x").to_string(), "1");
        assert_eq!((got(&mut world, a).as_str(), got(&mut world, b).as_str()), ("nothing", "nothing"));
        assert_eq!(world.run(c, "DEL k2").to_string(), "1");
        assert_eq!(world.run(c, "ZADD k2 1 a 2 b 3 c 4 d").to_string(), "4");
        assert_eq!(got(&mut world, a), r#"["k2" "a" "1"]"#);
        assert_eq!(got(&mut world, b), r#"["k2" [["d" "4"] ["c" "3"]]]"#);
        assert_eq!(world.run(c, "ZRANGE k2 0 -1").to_string(), r#"["b"]"#);
        // What is there is taken at once; a time runs out.
        assert_eq!(world.run(a, "BZPOPMAX none k2 0").to_string(), r#"["k2" "b" "2"]"#);
        ask(&mut world, a, "BZPOPMAX k2 0.5");
        world.advance(600);
        world.shards.iter_mut().for_each(|shard| shard.before_sleep());
        world.settle();
        assert_eq!(got(&mut world, a), "nil*");
        assert_eq!(world.run(a, "BZPOPMIN k -1").to_string(), "-ERR timeout is negative");
        assert_eq!(world.run(a, "BZMPOP x 1 k MIN").to_string(), "-ERR timeout is not a float or out of range");
        // A result stored under the key is a member too.
        ask(&mut world, b, "BZPOPMIN dest 0");
        world.run(c, "ZADD src 7 m");
        assert_eq!(world.run(c, "ZUNIONSTORE dest 1 src").to_string(), "1");
        assert_eq!(got(&mut world, b), r#"["dest" "m" "7"]"#);
    }
}

#[test]
fn effects_are_what_was_done() {
    let mut world = World::new(4);
    let conn = world.connect();
    world.log_effects();
    for line in
        ["ZADD z 1 a 2 b 3 c 4 d 5 e", "ZMPOP 2 none z MAX COUNT 2", "BZPOPMIN z 0", "BZMPOP 0 1 z MIN", "ZREM z no"]
    {
        world.run(conn, line);
    }
    assert_eq!(world.effects(), ["SELECT 0", "ZADD z 1 a 2 b 3 c 4 d 5 e", "ZPOPMAX z 2", "ZPOPMIN z", "ZPOPMIN z 1"]);
}

/// Large sets over the wire of a test server beside a map.
#[test]
fn large_sets_stay_in_order() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let conn = world.connect();
        let mut rng = Rng::new(5);
        let mut oracle: BTreeMap<String, i64> = BTreeMap::new();
        for _ in 0..3000 {
            let (name, score) = (format!("m{}", rng.below(1500)), rng.below(200) as i64);
            if rng.below(4) == 0 {
                let removed = oracle.remove(&name).is_some();
                assert_eq!(world.run(conn, &format!("ZREM z {name}")), Value::Integer(removed.into()));
            } else {
                let new = oracle.insert(name.clone(), score).is_none();
                assert_eq!(world.run(conn, &format!("ZADD z {score} {name}")), Value::Integer(new.into()));
            }
        }
        let mut order: Vec<(i64, String)> = oracle.into_iter().map(|(name, score)| (score, name)).collect();
        order.sort();
        for (rank, (score, name)) in order.iter().enumerate().step_by(37) {
            assert_eq!(world.run(conn, &format!("ZRANK z {name}")), Value::Integer(rank as i64));
            assert_eq!(world.run(conn, &format!("ZSCORE z {name}")).text(), score.to_string());
            let count = order.iter().filter(|item| item.0 <= *score).count();
            assert_eq!(world.run(conn, &format!("ZCOUNT z -inf {score}")), Value::Integer(count as i64));
        }
        let names: Vec<String> = world.run(conn, "ZRANGE z 0 -1").items().iter().map(Value::text).collect();
        assert_eq!(names, order.into_iter().map(|item| item.1).collect::<Vec<_>>());
    }
}
