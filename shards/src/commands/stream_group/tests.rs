//! Consumer groups through commands. Expected replies are those of redis-server.

use crate::testing::{Check, Value};

fn check() -> Check {
    let mut t = Check::new();
    for i in 1..=3 {
        t.check(&format!("XADD s {i} f {i}"), &format!("\"{i}-0\""));
    }
    t.check("XGROUP CREATE s g 0", "OK");
    t
}

#[test]
fn groups_are_made_and_removed() {
    let mut t = check();
    t.check("XGROUP CREATE s g $", "-BUSYGROUP Consumer Group name already exists");
    t.look("XGROUP CREATE none g $", |v| assert!(v.text().starts_with("ERR The XGROUP subcommand requires the key")));
    t.check("XGROUP CREATE new g $ MKSTREAM ENTRIESREAD 7", "OK").check("XLEN new", "0");
    t.check(
        "XGROUP CREATE new h $ FOO",
        "-ERR unknown subcommand or wrong number of arguments for 'CREATE'. Try XGROUP HELP.",
    );
    t.check("XGROUP CREATECONSUMER s g c", "1").check("XGROUP CREATECONSUMER s g c", "0");
    t.check("XGROUP CREATECONSUMER s nog c", "-NOGROUP No such consumer group 'nog' for key name 's'");
    t.check("XGROUP SETID s g 2 ENTRIESREAD -2", "-ERR value for ENTRIESREAD must be positive or -1");
    t.check("XGROUP SETID s g 2", "OK");
    t.types("XREADGROUP GROUP g c STREAMS s >", r#"[["s" [["3-0" ["f" "3"]]]]]"#, r#"{"s": [["3-0" ["f" "3"]]]}"#);
    t.check("XGROUP DELCONSUMER s g c", "1").check("XGROUP DELCONSUMER s g c", "0");
    t.check("XGROUP DESTROY s g", "1").check("XGROUP DESTROY s g", "0").check("XINFO GROUPS s", "[]");
    t.look("XGROUP HELP", |v| assert_eq!(v.items().len(), 17));
    t.look("XINFO HELP", |v| assert_eq!(v.items().len(), 9));
}

#[test]
fn what_is_read_is_pending_until_acknowledged() {
    let mut t = check();
    let none = "-NOGROUP No such key 's' or consumer group 'x' in XREADGROUP with GROUP option";
    t.check("XREADGROUP GROUP x c STREAMS s >", none);
    t.types(
        "XREADGROUP GROUP g c COUNT 2 STREAMS s >",
        r#"[["s" [["1-0" ["f" "1"]] ["2-0" ["f" "2"]]]]]"#,
        r#"{"s": [["1-0" ["f" "1"]], "2-0" ["f" "2"]]]}"#.replace("]], \"2", "]] [\"2").as_str(),
    );
    t.check("XPENDING s g", r#"[2 "1-0" "2-0" [["c" "2"]]]"#);
    t.advance(20).check("XPENDING s g - + 10", r#"[["1-0" "c" 20 1] ["2-0" "c" 20 1]]"#);
    t.check("XPENDING s g IDLE 21 - + 10", "[]").check("XPENDING s g IDLE 20 (1 + 10 c", r#"[["2-0" "c" 20 1]]"#);
    t.check("XPENDING s g - + 10 d", "[]").check("XPENDING s g - +", "-ERR syntax error");
    t.check("XPENDING s x", "-NOGROUP No such key 's' or consumer group 'x'");
    // History is what is pending for the consumer alone, removed entries included.
    t.check("XDEL s 1", "1");
    t.types(
        "XREADGROUP GROUP g c STREAMS s 0",
        r#"[["s" [["1-0" nil*] ["2-0" ["f" "2"]]]]]"#,
        r#"{"s": [["1-0" nil] ["2-0" ["f" "2"]]]}"#,
    );
    t.check("XPENDING s g - + 10", r#"[["1-0" "c" 20 1] ["2-0" "c" 0 2]]"#);
    t.types("XREADGROUP GROUP g d STREAMS s 0", r#"[["s" []]]"#, r#"{"s": []}"#);
    t.check("XACK s g 1 2 9", "2").check("XACK s g 1", "0").check("XACK none g 1", "0");
    t.types("XPENDING s g", "[0 nil nil nil*]", "[0 nil nil nil]");
    t.types(
        "XREADGROUP GROUP g c NOACK STREAMS s >",
        r#"[["s" [["3-0" ["f" "3"]]]]]"#,
        r#"{"s": [["3-0" ["f" "3"]]]}"#,
    );
    t.types("XPENDING s g", "[0 nil nil nil*]", "[0 nil nil nil]");
    t.types("XREADGROUP GROUP g c STREAMS s >", "nil*", "nil");
    t.look("XREADGROUP GROUP g c STREAMS s $", |v| {
        assert!(v.text().starts_with("ERR The $ ID is meaningless in the context of XREADGROUP"));
    });
    t.check(
        "XREADGROUP GROUP g c STREAMS s t > ",
        "-ERR Unbalanced 'xreadgroup' list of streams: for each stream key an ID or '>' must be specified.",
    );
}

#[test]
fn pending_entries_are_claimed() {
    let mut t = check();
    t.look("XREADGROUP GROUP g a STREAMS s >", |_| ()).advance(50);
    t.check("XCLAIM s g b 51 1", "[]").check("XCLAIM s g b 50 1", r#"[["1-0" ["f" "1"]]]"#);
    t.check("XPENDING s g - + 9", r#"[["1-0" "b" 0 2] ["2-0" "a" 50 1] ["3-0" "a" 50 1]]"#);
    t.check("XCLAIM s g b 0 2 JUSTID IDLE 30 RETRYCOUNT 8", r#"["2-0"]"#);
    t.check("XPENDING s g - + 9 b", r#"[["1-0" "b" 0 2] ["2-0" "b" 30 8]]"#);
    t.check("XACK s g 1", "1").check("XCLAIM s g c 0 1", "[]");
    t.check("XCLAIM s g c 0 1 9 FORCE JUSTID LASTID 7", r#"["1-0"]"#);
    t.check("XPENDING s g - + 9 c", r#"[["1-0" "c" 0 1]]"#);
    t.look("XINFO GROUPS s", |v| assert_eq!(v.items()[0].get("last-delivered-id").unwrap().text(), "7-0"));
    t.check("XCLAIM s g c 0 1 FOO", "-ERR Unrecognized XCLAIM option 'FOO'");
    t.check("XCLAIM s g c x 1", "-ERR Invalid min-idle-time argument for XCLAIM");
    t.check("XDEL s 2", "1").check("XCLAIM s g c 0 2", "[]").check("XPENDING s g - + 9 b", "[]");
}

#[test]
fn pending_entries_are_claimed_in_turn() {
    let mut t = check();
    t.look("XREADGROUP GROUP g a STREAMS s >", |_| ()).advance(50).check("XDEL s 2", "1");
    t.check("XAUTOCLAIM s g b 60 -", r#"["0-0" [] ["2-0"]]"#);
    t.check("XAUTOCLAIM s g b 50 0 COUNT 1", r#"["3-0" [["1-0" ["f" "1"]]] []]"#);
    t.check("XAUTOCLAIM s g b 50 3-0 COUNT 1 JUSTID", r#"["0-0" ["3-0"] []]"#);
    t.check("XPENDING s g - + 9", r#"[["1-0" "b" 0 2] ["3-0" "b" 0 1]]"#);
    t.check("XAUTOCLAIM s g b 0 - COUNT 0", "-ERR COUNT must be > 0");
    t.check("XAUTOCLAIM s x b 0 -", "-NOGROUP No such key 's' or consumer group 'x'");
}

#[test]
fn lag_is_known_where_it_can_be() {
    let mut t = check();
    let lag = |t: &mut Check, read: &str, lag: &str| {
        t.look("XINFO GROUPS s", |v| {
            let group = v.items()[0].clone();
            assert_eq!(group.get("entries-read").unwrap().to_string(), read);
            assert_eq!(group.get("lag").unwrap().to_string(), lag);
        });
    };
    lag(&mut t, "nil", "3");
    t.look("XREADGROUP GROUP g a COUNT 1 STREAMS s >", |_| ());
    lag(&mut t, "1", "2");
    t.check("XDEL s 3", "1");
    lag(&mut t, "1", "nil");
    t.look("XREADGROUP GROUP g a STREAMS s >", |_| ());
    t.check("XADD s 4 f v", "\"4-0\"");
    t.check("XGROUP SETID s g 4", "OK");
    lag(&mut t, "nil", "0");
}

#[test]
fn a_stream_is_described() {
    let mut t = check();
    t.look("XREADGROUP GROUP g a COUNT 1 STREAMS s >", |_| ()).advance(7);
    t.check("XINFO CONSUMERS s g", r#"[["name" "a" "pending" 1 "idle" 7 "inactive" 7]]"#);
    t.look("XINFO STREAM s FULL COUNT 1", |v| {
        assert_eq!(v.get("entries").unwrap().to_string(), r#"[["1-0" ["f" "1"]]]"#);
        let group: Value = v.get("groups").unwrap().items()[0].clone();
        assert_eq!(group.get("pending").unwrap().to_string(), r#"[["1-0" "a" 1700000000000 1]]"#);
        assert_eq!(group.get("consumers").unwrap().to_string(), r#"[["name" "a" "seen-time" 1700000000000 "active-time" 1700000000000 "pel-count" 1 "pending" [["1-0" 1700000000000 1]]]]"#);
    });
    t.look("XINFO STREAM s", |v| {
        assert_eq!(v.get("first-entry").unwrap().to_string(), r#"["1-0" ["f" "1"]]"#);
        assert_eq!(v.get("last-entry").unwrap().to_string(), r#"["3-0" ["f" "3"]]"#);
        assert_eq!(v.get("groups").unwrap().integer(), 1);
    });
    t.check("XINFO STREAM none", "-ERR no such key");
    t.check("XINFO STREAM s FOO", "-ERR unknown subcommand or wrong number of arguments for 'STREAM'. Try XINFO HELP.");
    t.check("XINFO CONSUMERS s x", "-NOGROUP No such consumer group 'x' for key name 's'");
}

#[test]
fn effects_say_what_was_done() {
    let mut world = crate::testing::World::new(1);
    world.log_effects();
    let conn = world.connect();
    let mut run = |line: &str| {
        world.run(conn, line);
        world.effects().into_iter().filter(|words| words != "SELECT 0").collect::<Vec<_>>().join("; ")
    };
    let id = "1700000000000-0";
    assert_eq!(run("XADD s * f 1"), format!("XADD s {id} f 1"));
    assert_eq!(run("XADD s MAXLEN ~ 9 LIMIT 5 1800000000000-* f 2"), "XADD s MAXLEN = 2 1800000000000-0 f 2");
    assert_eq!(run("XADD s 1800000000000-1 f 3"), "XADD s 1800000000000-1 f 3");
    assert_eq!(run("XGROUP CREATE s g 0"), "XGROUP CREATE s g 0");
    let claim = |consumer: &str, count: u8| {
        format!("XCLAIM s g {consumer} 0 {id} TIME 1700000000000 RETRYCOUNT {count} FORCE JUSTID LASTID {id}")
    };
    assert_eq!(
        run("XREADGROUP GROUP g a COUNT 1 STREAMS s >"),
        format!("MULTI; {}; XGROUP SETID s g {id} ENTRIESREAD 1; EXEC", claim("a", 1))
    );
    assert_eq!(run(&format!("XCLAIM s g b 0 {id}")), claim("b", 2));
    assert_eq!(run("XAUTOCLAIM s g c 0 - COUNT 1"), claim("c", 3));
    assert_eq!(run("XREADGROUP GROUP g c STREAMS s 0"), "");
    assert_eq!(
        run("XREADGROUP GROUP g d NOACK COUNT 1 STREAMS s >"),
        "MULTI; XGROUP CREATECONSUMER s g d; XGROUP SETID s g 1800000000000-0 ENTRIESREAD 2; EXEC"
    );
    assert_eq!(run("XTRIM s MAXLEN ~ 1"), "");
}

#[test]
fn readers_wait_for_entries() {
    use crate::testing::{World, request};
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let (a, b, c) = (world.connect(), world.connect(), world.connect());
        let send = |world: &mut World, conn, line: &str| {
            world.send(conn, &request(&line.split(' ').collect::<Vec<_>>()));
        };
        let got = |world: &mut World, conn| {
            Value::parse_all(&world.received(conn)).iter().map(Value::to_string).collect::<Vec<_>>().join(" ")
        };
        world.run(c, "XADD s 1 f 1");
        world.run(c, "XGROUP CREATE s g $");
        // `$` is the last id when the wait began, whatever came and went since; keys lie on several shards.
        send(&mut world, a, "XREAD BLOCK 0 STREAMS s t u $ $ $");
        world.run(c, "SET u v");
        world.run(c, "DEL u");
        assert_eq!(got(&mut world, a), "");
        world.run(c, "XADD t 7 f 7");
        assert_eq!(got(&mut world, a), r#"[["t" [["7-0" ["f" "7"]]]]]"#);
        // One entry goes to one consumer, the one that came first.
        send(&mut world, a, "XREADGROUP GROUP g a BLOCK 0 STREAMS s >");
        send(&mut world, b, "XREADGROUP GROUP g b BLOCK 50 STREAMS s >");
        world.run(c, "XADD s 2 f 2");
        assert_eq!(got(&mut world, a), r#"[["s" [["2-0" ["f" "2"]]]]]"#);
        assert_eq!(got(&mut world, b), "");
        world.advance(60);
        world.shards.iter_mut().for_each(|shard| shard.before_sleep());
        world.settle();
        assert_eq!(got(&mut world, b), "nil*");
        assert_eq!(world.run(c, "XPENDING s g").to_string(), r#"[1 "2-0" "2-0" [["a" "1"]]]"#);
        // A group or a stream that goes ends the wait.
        send(&mut world, a, "XREADGROUP GROUP g a BLOCK 0 STREAMS s >");
        send(&mut world, b, "XREAD BLOCK 0 STREAMS s 2");
        world.run(c, "DEL s");
        let gone = "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option";
        assert_eq!(got(&mut world, a), gone);
        world.run(c, "XADD s 3 f 3");
        assert_eq!(got(&mut world, b), r#"[["s" [["3-0" ["f" "3"]]]]]"#);
        assert_eq!(world.run(a, "MULTI").to_string(), "OK");
        world.run(a, "XREAD BLOCK 0 STREAMS s $");
        assert_eq!(world.run(a, "EXEC").to_string(), "[nil*]");
    }
}
