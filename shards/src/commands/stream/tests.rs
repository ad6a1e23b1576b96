//! Streams through commands. Expected replies are those of redis-server.

use crate::testing::Check;

#[test]
fn entries_are_added_and_returned() {
    let mut t = Check::new();
    t.check("XADD s 1-1 a 1 b x", "\"1-1\"").check("XADD s 1-* a 2 b y", "\"1-2\"").check("XADD s 5 c 3", "\"5-0\"");
    t.check("XLEN s", "3").check("TYPE s", "stream").check("OBJECT ENCODING s", "\"stream\"");
    let all = r#"[["1-1" ["a" "1" "b" "x"]] ["1-2" ["a" "2" "b" "y"]] ["5-0" ["c" "3"]]]"#;
    t.check("XRANGE s - +", all).check("XRANGE s 0 9 COUNT 5", all);
    t.check("XRANGE s 1 1", r#"[["1-1" ["a" "1" "b" "x"]] ["1-2" ["a" "2" "b" "y"]]]"#);
    t.check("XRANGE s (1-1 + COUNT 1", r#"[["1-2" ["a" "2" "b" "y"]]]"#);
    t.check("XREVRANGE s (5-0 - COUNT 1", r#"[["1-2" ["a" "2" "b" "y"]]]"#);
    t.check("XREVRANGE s + 2", r#"[["5-0" ["c" "3"]]]"#).check("XRANGE s 6 +", "[]").check("XRANGE none - +", "[]");
    t.types("XRANGE s - + COUNT 0", "nil*", "nil").check("XRANGE s - + COUNT", "-ERR syntax error");
    t.check("XRANGE s (- +", "-ERR Invalid stream ID specified as stream command argument");
    t.check("XRANGE s (18446744073709551615-18446744073709551615 +", "-ERR invalid start ID for the interval");
    t.check("XRANGE s - (0-0", "-ERR invalid end ID for the interval");
    t.check("XADD s 5-0 a 1", "-ERR The ID specified in XADD is equal or smaller than the target stream top item");
    t.check("XADD s 0-0 a 1", "-ERR The ID specified in XADD must be greater than 0-0");
    t.check("XADD s * a", "-ERR wrong number of arguments for 'xadd' command");
    t.check("XADD s * a 1 b", "-ERR wrong number of arguments for 'xadd' command");
    t.check("XADD z 0-* a 1", "\"0-1\"").check("XADD none NOMKSTREAM * a 1", "nil").check("EXISTS none", "0");
    t.check("SET k v", "OK");
    t.check("XADD k * a 1", "-WRONGTYPE Operation against a key holding the wrong kind of value");
    t.check("GET s", "-WRONGTYPE Operation against a key holding the wrong kind of value");
}

#[test]
fn ids_come_from_the_clock_and_never_go_back() {
    let mut t = Check::new();
    t.check("XADD s * a 1", "\"1700000000000-0\"").check("XADD s * a 1", "\"1700000000000-1\"");
    t.advance(5).check("XADD s * a 1", "\"1700000000005-0\"");
    t.check("XADD s 1800000000000-7 a 1", "\"1800000000000-7\"").check("XADD s * a 1", "\"1800000000000-8\"");
    let max = "18446744073709551615-18446744073709551615";
    t.check(&format!("XADD s {max} a 1"), &format!("\"{max}\""));
    t.check("XADD s * a 1", "-ERR The stream has exhausted the last possible ID, unable to add more items");
    t.check("XADD t 5-18446744073709551615 a 1", "\"5-18446744073709551615\"");
    t.check("XADD t 5-* a 1", "-ERR The ID specified in XADD is equal or smaller than the target stream top item");
}

#[test]
fn trimming() {
    let mut t = Check::with_config(&[("stream-node-max-entries", "10")]);
    t.each(|world, conn| {
        for i in 1..=100 {
            world.run(conn, &format!("XADD s {i} item {i}"));
        }
    });
    t.check("XTRIM s MAXLEN ~ 85", "10").check("XLEN s", "90").check("XTRIM s MAXLEN ~ 85 LIMIT 0", "0");
    t.check("XTRIM s MAXLEN 85", "5").check("XRANGE s - + COUNT 1", r#"[["16-0" ["item" "16"]]]"#);
    t.check("XTRIM s MINID = 18", "2").check("XTRIM s MINID ~ 41-0 LIMIT 15", "13").check("XLEN s", "70");
    t.check("XADD s MAXLEN = 2 101 item 101", "\"101-0\"");
    t.check("XRANGE s - +", r#"[["100-0" ["item" "100"]] ["101-0" ["item" "101"]]]"#);
    t.check("XADD s MAXLEN 0 102 item 102", "\"102-0\"").check("XLEN s", "0").check("EXISTS s", "1");
    let both = "-ERR syntax error, MAXLEN and MINID options at the same time are not compatible";
    t.check("XTRIM s MAXLEN 1 MINID 1", both);
    let limit = "-ERR syntax error, LIMIT cannot be used without the special ~ option";
    t.check("XTRIM s MAXLEN 1 LIMIT 1", limit).check("XTRIM s MAXLEN = 1 LIMIT 0", limit);
    t.check("XTRIM s LIMIT 1", "-ERR syntax error, LIMIT cannot be used without specifying a trimming strategy");
    t.check("XTRIM s MAXLEN -1", "-ERR The MAXLEN argument must be >= 0.").check("XTRIM s FOO 1", "-ERR syntax error");
    t.check("XTRIM none MAXLEN 1", "0");
}

#[test]
fn entries_are_deleted() {
    let mut t = Check::new();
    for i in 1..=3 {
        t.check(&format!("XADD s {i} f v"), &format!("\"{i}-0\""));
    }
    t.check("XDEL s 2-0 9-9", "1").check("XDEL s 2-0", "0").check("XDEL s 1 x", &format!("-{}", super::BAD_ID));
    t.check("XRANGE s - +", r#"[["1-0" ["f" "v"]] ["3-0" ["f" "v"]]]"#);
    t.look("XINFO STREAM s", |info| {
        assert_eq!(info.get("max-deleted-entry-id").unwrap().text(), "2-0");
        assert_eq!(info.get("entries-added").unwrap().integer(), 3);
        assert_eq!(info.get("recorded-first-entry-id").unwrap().text(), "1-0");
    });
    t.check("XDEL s 1 3", "2").check("XLEN s", "0").check("EXISTS s", "1");
    t.check("XADD s 3 f v", "-ERR The ID specified in XADD is equal or smaller than the target stream top item");
    t.check("XSETID s 1", "-ERR The ID specified in XSETID is smaller than current max_deleted_entry_id");
    t.check("XSETID s 100-1 ENTRIESADDED 50 MAXDELETEDID 99-0", "OK").check("XADD s 100-2 f v", "\"100-2\"");
    t.check("XSETID s 100-1", "-ERR The ID specified in XSETID is smaller than the target stream top item");
    t.check("XSETID none 1-1", "-ERR no such key");
}

#[test]
fn streams_are_read() {
    let mut t = Check::new();
    for (key, id) in [("{a}1", 1), ("{a}1", 2), ("b", 5)] {
        t.check(&format!("XADD {key} {id} f v"), &format!("\"{id}-0\""));
    }
    t.types(
        "XREAD COUNT 1 STREAMS {a}1 b 0 0",
        r#"[["{a}1" [["1-0" ["f" "v"]]]] ["b" [["5-0" ["f" "v"]]]]]"#,
        r#"{"{a}1": [["1-0" ["f" "v"]]], "b": [["5-0" ["f" "v"]]]}"#,
    );
    t.types("XREAD STREAMS {a}1 b 1 9", r#"[["{a}1" [["2-0" ["f" "v"]]]]]"#, r#"{"{a}1": [["2-0" ["f" "v"]]]}"#);
    t.types("XREAD STREAMS b none + +", r#"[["b" [["5-0" ["f" "v"]]]]]"#, r#"{"b": [["5-0" ["f" "v"]]]}"#);
    t.types("XREAD STREAMS b $", "nil*", "nil").types("XREAD STREAMS none 0", "nil*", "nil");
    t.check(
        "XREAD STREAMS a b 0",
        "-ERR Unbalanced 'xread' list of streams: for each stream key an ID, '+', or '$' must be specified.",
    );
    t.check("XREAD COUNT 1 STREAMS", "-ERR syntax error")
        .check("XREAD BLOCK x STREAMS b 0", "-ERR timeout is not an integer or out of range");
    t.check("COMMAND GETKEYS XREAD BLOCK 0 STREAMS a b 0 0", r#"["a" "b"]"#);
}

#[test]
fn digests_are_those_of_redis() {
    // DEBUG DIGEST-VALUE of redis-server 7.0.15.
    let mut t = Check::new();
    t.check("XADD s 1-1 a 1 b x", "\"1-1\"").check("XADD s 2-0 a 2 b y", "\"2-0\"").check("XDEL s 1-1", "1");
    t.check("DEBUG DIGEST-VALUE s", "[dc8ad51c8457cca91632a824735e1911daeb9c14]");
    t.check("COPY s t", "1").check("DEBUG DIGEST-VALUE t", "[dc8ad51c8457cca91632a824735e1911daeb9c14]");
}
