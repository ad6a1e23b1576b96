//! Round trips of every encoding, and payloads that lie.

use proptest::prelude::*;

use super::file::{Item, Reader, Source};
use super::read::Limits;
use super::{Error, payload, read};
use crate::core::Rng;
use crate::testing::{Check, Conn, Value, World, cases};

/// Commands that make one key, `k`, of each encoding.
pub(crate) fn of_each_encoding() -> Vec<(&'static str, Vec<String>)> {
    let lines = |lines: &[&str]| lines.iter().map(|line| line.to_string()).collect::<Vec<_>>();
    let many = |line: &dyn Fn(usize) -> String, n: usize| (0..n).map(line).collect::<Vec<_>>();
    vec![
        ("int", lines(&["SET k 12345678901"])),
        ("int", lines(&["SET k -7"])),
        ("embstr", lines(&["SET k hello"])),
        ("embstr", lines(&["SET k \"\""])),
        ("raw", vec![format!("SET k {}", "ab".repeat(3000))]),
        ("raw", vec![format!("SET k {}", (0..3000).map(|n| format!("{n} ")).collect::<String>().replace(' ', ","))]),
        ("listpack", lines(&["RPUSH k a 1 -2 70000 \"\" abcabcabcabcabcabcabcabcabcabc"])),
        ("quicklist", many(&|n| format!("RPUSH k element:{n} {n}"), 2000)),
        ("quicklist", vec!["RPUSH k a".to_string(), format!("RPUSH k {} b", "x".repeat(20_000))]),
        ("intset", lines(&["SADD k 1 2 -300 70000 5000000000"])),
        ("listpack", lines(&["SADD k a b 17"])),
        ("hashtable", many(&|n| format!("SADD k member:{n} {n}"), 300)),
        ("listpack", lines(&["ZADD k 1 a 1.5 b -inf c inf d 3 17"])),
        ("skiplist", many(&|n| format!("ZADD k {}.5 member:{n} inf m{n}", n % 17), 300)),
        ("listpack", lines(&["HSET k a 1 b xyz 3 \"\""])),
        ("hashtable", many(&|n| format!("HSET k field:{n} {n} {n} v"), 300)),
        (
            "stream",
            [
                many(&|n| format!("XADD k {}-1 a {n} b c", n + 1), 250),
                lines(&[
                    "XADD k 1000-5 other fields 1 2",
                    "XDEL k 7-1 1000-5",
                    "XGROUP CREATE k g 0",
                    "XGROUP CREATE k h 5",
                ]),
                lines(&["XREADGROUP GROUP g alice COUNT 3 STREAMS k >", "XREADGROUP GROUP g bob COUNT 2 STREAMS k >"]),
                lines(&["XGROUP CREATECONSUMER k h idle", "XACK k g 1-1"]),
            ]
            .concat(),
        ),
        ("stream", lines(&["XGROUP CREATE k g $ MKSTREAM"])),
    ]
}

fn bytes(world: &mut World, conn: Conn, line: &str) -> Vec<u8> {
    match world.run(conn, line) {
        Value::Bulk(bytes) => bytes,
        other => panic!("{line}: {other}"),
    }
}

fn restore(world: &mut World, conn: Conn, key: &str, payload: &[u8]) -> String {
    let reply = world.call(conn, &[b"RESTORE", key.as_bytes(), b"0", payload, b"REPLACE"]);
    String::from_utf8(reply).unwrap()
}

#[test]
fn every_encoding_comes_back() {
    for shards in [1, 4] {
        for version in ["10", "11"] {
            for compress in ["yes", "no"] {
                let mut world = World::with_config(shards, &[("rdb-version", version), ("rdbcompression", compress)]);
                let conn = world.connect();
                for (encoding, lines) in of_each_encoding() {
                    world.run(conn, "DEL k");
                    for line in &lines {
                        let reply = world.run(conn, line).to_string();
                        assert!(!reply.starts_with('-'), "{line}: {reply}");
                    }
                    assert_eq!(world.run(conn, "OBJECT ENCODING k").text(), encoding);
                    let digest = world.run(conn, "DEBUG DIGEST-VALUE k").to_string();
                    let payload = bytes(&mut world, conn, "DUMP k");
                    assert_eq!(restore(&mut world, conn, "copy", &payload), "+OK\r\n", "{encoding}");
                    assert_eq!(world.run(conn, "DEBUG DIGEST-VALUE copy").to_string(), digest, "{encoding}");
                    assert_eq!(world.run(conn, "OBJECT ENCODING copy").text(), encoding);
                    if encoding == "stream" {
                        let info = world.run(conn, "XINFO STREAM k FULL COUNT 0").to_string();
                        let copy = world.run(conn, "XINFO STREAM copy FULL COUNT 0").to_string();
                        // Version 10 does not hold when a consumer last got something.
                        if version == "11" {
                            assert_eq!(info, copy);
                        }
                    }
                    if encoding != "hashtable" {
                        assert_eq!(bytes(&mut world, conn, "DUMP copy"), payload, "{encoding}");
                    }
                }
            }
        }
    }
}

#[test]
fn options_and_errors_of_restore() {
    let mut t = Check::with_config(&[("rdb-version", "10")]);
    t.check("SET k hello", "OK").check("DUMP none", "nil");
    let payload = "\"\\x00\\x05hello\\n\\x00:\\xc8\\x8f\\xb9j\\xd4f$\"";
    let mut dumped = String::new();
    t.look("DUMP k", |v| dumped = v.to_string());
    let payload = if dumped == payload { payload.to_string() } else { dumped };
    t.check(&format!("RESTORE k 0 {payload}"), "-BUSYKEY Target key name already exists.");
    t.check(&format!("RESTORE k -1 {payload} REPLACE"), "-ERR Invalid TTL value, must be >= 0");
    t.check(&format!("RESTORE k x {payload} REPLACE"), "-ERR value is not an integer or out of range");
    t.check(&format!("RESTORE k 0 {payload} REPLACE IDLETIME -1"), "-ERR Invalid IDLETIME value, must be >= 0");
    t.check(&format!("RESTORE k 0 {payload} REPLACE FREQ 256"), "-ERR Invalid FREQ value, must be >= 0 and <= 255");
    t.check(&format!("RESTORE k 0 {payload} REPLACE FREQ 1 IDLETIME 1"), "-ERR syntax error");
    t.check("RESTORE k 0 garbage REPLACE", "-ERR DUMP payload version or checksum are wrong");
    t.check(&format!("RESTORE k 0 {payload} REPLACE IDLETIME 100"), "OK").check("OBJECT IDLETIME k", "100");
    t.check(&format!("RESTORE n 1000 {payload}"), "OK").check("PTTL n", "1000").advance(1001).check("GET n", "nil");
    t.check(&format!("RESTORE n 1700000009000 {payload} ABSTTL"), "OK").look("PTTL n", |v| assert!(v.integer() > 7000));
    // What is past its time is not made, and what was there is gone.
    t.check(&format!("RESTORE n 5 {payload} ABSTTL REPLACE"), "OK").check("EXISTS n", "0");
}

#[test]
fn relative_times_are_repeated_as_absolute_ones() {
    let mut world = World::with_config(1, &[("rdb-version", "10")]);
    let conn = world.connect();
    world.run(conn, "SET k 1");
    let payload = bytes(&mut world, conn, "DUMP k");
    world.log_effects();
    let words = |ttl: &'static [u8], more: &'static [u8]| [b"RESTORE", &b"n"[..], ttl, &payload, b"REPLACE", more];
    world.call(conn, &words(b"1000", b"REPLACE"));
    world.call(conn, &words(b"5", b"ABSTTL"));
    let lines = world.effects();
    assert!(lines[1].starts_with("RESTORE n 1700000001000 ") && lines[1].ends_with(" ABSTTL"), "{lines:?}");
    assert_eq!(lines[2], "DEL n");
}

/// Makes a payload pass the check of its sum.
fn signed(mut body: Vec<u8>) -> Vec<u8> {
    body.extend_from_slice(&11u16.to_le_bytes());
    let sum = super::crc64::update(0, &body);
    body.extend_from_slice(&sum.to_le_bytes());
    body
}

/// Restores a payload that may be anything, and uses what came of it.
fn survive(world: &mut World, conn: Conn, body: &[u8]) {
    let reply = restore(world, conn, "x", &signed(body.to_vec()));
    if reply != "+OK\r\n" {
        assert_eq!(reply, "-ERR Bad data format\r\n");
        return;
    }
    for line in [
        "DUMP x",
        "DEBUG DIGEST-VALUE x",
        "APPEND x y",
        "LRANGE x 0 -1",
        "LREM x 0 a",
        "LPUSH x new",
        "SMEMBERS x",
        "SADD x new 5",
        "SPOP x 2",
        "ZRANGE x 0 -1 WITHSCORES",
        "ZADD x 3 new",
        "ZREVRANGEBYSCORE x +inf -inf",
        "ZPOPMIN x",
        "HGETALL x",
        "HSET x a 5 new value",
        "HDEL x b",
        "XRANGE x - +",
        "XREVRANGE x + -",
        "XINFO STREAM x FULL",
        "XREADGROUP GROUP g carol COUNT 3 STREAMS x >",
        "XDEL x 1-1",
        "XADD x * f v",
        "XTRIM x MAXLEN 3",
        "DUMP x",
        "DEL x",
    ] {
        world.run(conn, line);
    }
}

#[test]
fn broken_payloads_are_refused_or_harmless() {
    let mut world = World::with_config(1, &[("rdbcompression", "no")]);
    let conn = world.connect();
    for (_, lines) in of_each_encoding() {
        world.run(conn, "DEL k");
        for line in lines.iter().take(40) {
            world.run(conn, line);
        }
        let payload = bytes(&mut world, conn, "DUMP k");
        let body = payload::verified(&payload, true).unwrap().to_vec();
        let step = (body.len() / 400).max(1);
        for at in (0..body.len()).step_by(step) {
            survive(&mut world, conn, &body[..at]);
            for bit in [0, 3, 7] {
                let mut broken = body.clone();
                broken[at] ^= 1 << bit;
                survive(&mut world, conn, &broken);
            }
            let mut broken = body.clone();
            broken[at] = 0xFF;
            survive(&mut world, conn, &broken);
        }
    }
}

#[test]
fn great_claims_take_no_memory() {
    let world = World::new(1);
    let limits = Limits::of(&world.shards[0].core);
    for kind in 0..=25u8 {
        for claim in [&[0x81, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF][..], &[0x80, 0xFF, 0xFF, 0xFF, 0xFF]] {
            for behind in [0, 100] {
                let body = [&[kind], claim, &vec![0; behind]].concat();
                assert!(payload::restore(&body, &limits).is_err());
            }
        }
    }
}

/// A source that shows no more than was asked for.
struct Stingy<'a>(&'a [u8]);

impl Source for Stingy<'_> {
    fn ahead(&mut self, n: usize) -> Result<&[u8], Error> {
        self.0.get(..n).ok_or(Error::Short)
    }

    fn pass(&mut self, n: usize) {
        self.0 = &self.0[n..];
    }

    fn left(&self) -> Option<u64> {
        None
    }
}

/// The items of a file, as texts, with where each ends; the last may be what is wrong with it.
fn items(source: impl Source) -> Vec<String> {
    let mut reader = match Reader::new(source, true) {
        Ok(reader) => reader,
        Err(error) => return vec![format!("{error:?}")],
    };
    let mut items = Vec::new();
    loop {
        let item = reader.item();
        let ends = !matches!(item, Ok(ref item) if !matches!(item, Item::End(_)));
        items.push(format!("{item:?}"));
        if ends {
            return items;
        }
        let at = reader.offset();
        items.push(format!("{at} in {}", reader.db()));
    }
}

/// A file with keys of every encoding, in two databases, some of which expire.
fn file_of_all(world: &mut World, conn: Conn) -> Vec<u8> {
    for (n, (_, lines)) in of_each_encoding().into_iter().enumerate() {
        lines.iter().take(40).for_each(|line| {
            world.run(conn, line);
        });
        world.run(conn, &format!("RENAME k k{n}"));
    }
    world.run(conn, "PEXPIREAT k3 1900000000000");
    world.run(conn, "SELECT 3");
    world.run(conn, "SET three 3");
    world.run(conn, "SELECT 0");
    assert_eq!(world.run(conn, "SAVE").to_string(), "OK");
    let file = world.disk().file.clone();
    file.expect("just saved")
}

#[test]
fn a_file_reads_the_same_whatever_its_source_shows_ahead() {
    let mut world = World::new(1);
    let conn = world.connect();
    let file = file_of_all(&mut world, conn);
    let all = items(&file[..]);
    assert!(all.last().unwrap().contains("End(true)"), "{all:?}");
    assert_eq!(items(Stingy(&file)), all);
    for at in (0..file.len()).step_by(7) {
        let short = items(&file[..at]);
        assert!(short.last().unwrap().starts_with("Err(Short)") || short == ["Short"], "{short:?}");
        assert_eq!(items(Stingy(&file[..at])), short);
        let mut broken = file.clone();
        broken[at] ^= 1 << (at % 8);
        assert_eq!(items(Stingy(&broken)), items(&broken[..]));
    }
}

#[test]
fn a_saved_file_has_keys_of_every_shard_all_the_time() {
    let mut world = World::new(3);
    let conn = world.connect();
    world.run(conn, "DEBUG POPULATE 6000 key 200");
    world.run(conn, "PEXPIREAT key:7 1900000000000");
    assert_eq!(world.run(conn, "SAVE").to_string(), "OK");
    let file = world.disk().file.clone().expect("just saved");
    let mut reader = Reader::new(&file[..], true).unwrap();
    // By shard, where its last key ended; the others write a piece each meanwhile.
    let (mut last, mut sizes) = ([0; 3], Vec::new());
    loop {
        match reader.item().unwrap() {
            Item::Sizes(keys, expires) => sizes.push((keys, expires)),
            Item::Key(_, name) => {
                let name = read::Cursor { rest: name }.string().unwrap();
                let owner = crate::router::owner_of(&name, 3) as usize;
                let (at, before) = (reader.offset(), std::mem::replace(&mut last[owner], reader.offset()));
                assert!(before == 0 || at - before < 3 * 66_000, "shard {owner}: {before} to {at}");
            }
            Item::End(_) => break,
            _ => {}
        }
    }
    assert_eq!(sizes, [(6000, 1)], "one section for all shards");
    assert!(last.iter().all(|at| file.len() as u64 - at < 3 * 66_000), "{last:?} of {}", file.len());
}

#[test]
fn broken_files_are_refused_or_harmless() {
    for shards in [1, 3] {
        let mut world = World::with_config(shards, &[("rdbchecksum", "no"), ("rdbcompression", "no")]);
        let conn = world.connect();
        let file = file_of_all(&mut world, conn);
        let step = (file.len() / 700).max(1);
        for at in (9..file.len()).step_by(step) {
            for change in [0x01, 0x08, 0x80, 0xFF] {
                let mut broken = file.clone();
                broken[at] ^= change;
                world.disk().file = Some(broken);
                let reply = world.run(conn, "DEBUG RELOAD NOSAVE").to_string();
                assert!(reply == "OK" || reply.starts_with("-ERR Error trying to load the RDB dump"), "{reply}");
                world.run(conn, "DEBUG DIGEST");
                assert_eq!(world.run(conn, "SET alive 1").to_string(), "OK");
            }
        }
    }
}

#[test]
fn a_file_that_lies_about_its_keys_takes_no_memory() {
    let mut world = World::with_config(1, &[("rdbchecksum", "no")]);
    let conn = world.connect();
    // What it says of a database that is there, and of one that is not; again and again.
    let sizes = [&[0xFE, 0, 0xFB, 0x81][..], &[0x7F; 8], &[0x81], &[0x7F; 8], &[0xFE, 0x80, 0, 1, 0, 0]].concat();
    let keys = b"\xFE\x00\x00\x01a\x01b\x00\x01c\x01d";
    let file = [&b"REDIS0011"[..], &sizes.repeat(50), keys, &[0xFF], &[0; 8]].concat();
    let bytes = file.len();
    world.disk().file = Some(file);
    assert_eq!(world.run(conn, "DEBUG RELOAD NOSAVE").to_string(), "OK");
    assert_eq!(world.run(conn, "DBSIZE").integer(), 2);
    let db = &world.shards[0].slice().unwrap().dbs[0];
    assert!(db.dict.bytes() + db.expires.bytes() < bytes * 2 + 1000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(2000)))]

    #[test]
    fn random_bytes_are_refused_or_harmless(kind in 0u8..26, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut world = World::new(1);
        let conn = world.connect();
        survive(&mut world, conn, &[&[kind][..], &body].concat());
    }
}

/// Edits bytes in several places at once: changed, left out, put in twice, moved here from one of `others`.
fn edit(body: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut Rng) {
    let mut draw = |n: usize| rng.below(n.max(1) as u64) as usize;
    for _ in 0..1 + draw(4) {
        let (at, len) = (draw(body.len()), 1 + draw(8));
        let end = (at + len).min(body.len());
        match draw(6) {
            0 => body[at..end].iter_mut().for_each(|byte| *byte = draw(256) as u8),
            1 => body[at] ^= 1 << draw(8),
            2 => drop(body.drain(at..end)),
            3 => body.extend_from_within(at..end),
            4 => body[at] = [0, 1, 0x7F, 0x80, 0x81, 0xC0, 0xC3, 0xFE, 0xFF][draw(9)],
            _ => {
                let other = &others[draw(others.len())];
                let from = draw(other.len());
                let part = other[from..(from + len).min(other.len())].to_vec();
                body.splice(at..at, part);
            }
        }
        if body.is_empty() {
            break;
        }
    }
}

/// `PROPTEST_CASES` makes it a long run.
#[test]
fn edited_payloads_are_refused_or_harmless() {
    let mut world = World::with_config(1, &[("rdbcompression", "no")]);
    let conn = world.connect();
    let mut sound = Vec::new();
    for (_, lines) in of_each_encoding() {
        world.run(conn, "DEL k");
        for line in lines.iter().take(40) {
            world.run(conn, line);
        }
        let payload = bytes(&mut world, conn, "DUMP k");
        sound.push(payload::verified(&payload, true).unwrap().to_vec());
    }
    let mut rng = Rng::new(17);
    for _ in 0..cases(5000) {
        let mut body = sound[rng.below(sound.len() as u64) as usize].clone();
        edit(&mut body, &sound, &mut rng);
        survive(&mut world, conn, &body);
    }
}

/// Whole files: what stands between keys, too. `PROPTEST_CASES` makes it a long run.
#[test]
fn edited_files_are_refused_or_harmless() {
    let mut world = World::with_config(2, &[("rdbchecksum", "no"), ("rdbcompression", "no")]);
    let conn = world.connect();
    for line in [
        "SET a 1",
        "PSETEX b 100000000 text",
        "RPUSH l x y z",
        "SADD s 1 2 3",
        "HSET h f v",
        "ZADD z 1.5 m",
        "XADD x 1-1 f v",
        "XGROUP CREATE x g 0",
        "XREADGROUP GROUP g alice STREAMS x >",
        "FUNCTION LOAD \"#!lua name=lib\\nredis.register_function('f', function() return 1 end)\"",
    ] {
        let reply = world.run(conn, line).to_string();
        assert!(!reply.starts_with('-'), "{line}: {reply}");
    }
    assert_eq!(world.run(conn, "SAVE").to_string(), "OK");
    let sound = vec![world.disk().file.clone().expect("just saved")];
    let mut rng = Rng::new(23);
    let mut loaded = 0;
    let drawn = cases(1000);
    for _ in 0..drawn {
        let mut file = sound[0].clone();
        edit(&mut file, &sound, &mut rng);
        world.disk().file = Some(file);
        let reply = world.run(conn, "DEBUG RELOAD NOSAVE").to_string();
        assert!(reply == "OK" || reply.starts_with("-ERR Error trying to load the RDB dump"), "{reply}");
        loaded += u32::from(reply == "OK");
        world.run(conn, "DEBUG DIGEST");
        assert_eq!(world.run(conn, "SET alive 1").to_string(), "OK");
    }
    assert!(drawn < 1000 || loaded > drawn / 20, "{loaded} of {drawn}: hardly any file is taken");
}
