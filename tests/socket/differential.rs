//! The same random commands to this server and to Debian's `redis-server`: every reply, and in the end every key,
//! must be the same.
//!
//! A run is a number of short sequences, each from a seed of its own and on empty databases, spoken over two
//! connections so that one can get in the way of the other's `WATCH`. Replies are compared by their bytes, but for
//! those that tell the time, are random, or have no order.
//!
//! `RINGSHARD_DIFF_SEQUENCES` sets how many sequences run (CI: a few hundred), `RINGSHARD_DIFF_SEED` where they begin:
//! a failure prints the seed of its sequence, and that seed with one sequence brings it back.

use std::collections::{BTreeMap, BTreeSet};

use crate::harness::{Redis, Server, everywhere};
use crate::wire::{Conn, Random, Value, encode, ok};

mod bitmap;
mod list;
mod stream;
mod zset;

const DATABASES: usize = 4;
const COMMANDS_PER_SEQUENCE: usize = 80;

/// Commands, a line each. Words in braces are replaced, see [`expand`]; the rest stands for itself.
const TEMPLATES: &[&str] = &[
    "SET {k} {v}",
    "SET {k} {v}",
    "SET {k} {v}",
    "SET {k} {v} {set}",
    "SET {k} {v} {set} {set}",
    "SET {k} {v} {set} {set} {set}",
    "SETNX {k} {v}",
    "SETEX {k} {s} {v}",
    "PSETEX {k} {ms} {v}",
    "GET {k}",
    "GET {k}",
    "GETSET {k} {v}",
    "GETDEL {k}",
    "GETEX {k}",
    "GETEX {k} {getex}",
    "GETEX {k} {getex} {getex}",
    "STRLEN {k}",
    "APPEND {k} {v}",
    "SETRANGE {k} {n} {v}",
    "GETRANGE {k} {n} {end}",
    "SUBSTR {k} {n} {end}",
    "INCR {k}",
    "DECR {k}",
    "INCRBY {k} {i}",
    "DECRBY {k} {i}",
    "INCRBYFLOAT {k} {f}",
    "MGET {k*}",
    "MSET {kv*}",
    "MSETNX {kv*}",
    "LCS {k} {k}",
    "LCS {k} {k} {lcs}",
    "LCS {k} {k} {lcs} {lcs}",
    "LCS {k} {k} {lcs} {lcs} {lcs}",
    "DEL {k*}",
    "UNLINK {k*}",
    "EXISTS {k*}",
    "TOUCH {k*}",
    "TYPE {k}",
    "EXPIRE {k} {s}",
    "EXPIRE {k} {s} {expire}",
    "EXPIRE {k} {s} {expire} {expire}",
    "PEXPIRE {k} {ms}",
    "PEXPIRE {k} {ms} {expire}",
    "EXPIREAT {k} {at}",
    "EXPIREAT {k} {at} {expire}",
    "PEXPIREAT {k} {atms}",
    "PEXPIREAT {k} {atms} {expire}",
    "TTL {k}",
    "PTTL {k}",
    "EXPIRETIME {k}",
    "PEXPIRETIME {k}",
    "PERSIST {k}",
    "RENAME {k} {k}",
    "RENAMENX {k} {k}",
    "COPY {k} {k}",
    "COPY {k} {k} {copy}",
    "COPY {k} {k} {copy} {copy}",
    "MOVE {k} {db}",
    "RANDOMKEY",
    "KEYS {pattern}",
    "DBSIZE",
    "SCAN 0 COUNT 1000",
    "SCAN {cursor} {scan}",
    "OBJECT ENCODING {k}",
    "OBJECT REFCOUNT {k}",
    "OBJECT IDLETIME {k}",
    "OBJECT FREQ {k}",
    "OBJECT {word} {k}",
    "OBJECT ENCODING",
    "SELECT {db}",
    "SELECT {db}",
    "SWAPDB {db} {db}",
    "FLUSHDB",
    "FLUSHDB {word}",
    "FLUSHALL {word}",
    "PING",
    "PING {v}",
    "ECHO {v}",
    "AUTH {word}",
    "AUTH default {word}",
    "AUTH {word} {word}",
    "HELLO",
    "HELLO {hello}",
    "HELLO {hello} {word}",
    "HELLO {hello} SETNAME {name}",
    "RESET",
    "CLIENT GETNAME",
    "CLIENT SETNAME {name}",
    "CLIENT {word}",
    "CLIENT NO-EVICT {word}",
    "CLIENT UNBLOCK {i}",
    "CLIENT UNBLOCK {i} {word}",
    "CLIENT KILL {word} {pattern}",
    "CLIENT LIST TYPE {word}",
    "CLIENT PAUSE {word}",
    "CLIENT GETREDIR",
    "CLIENT TRACKINGINFO",
    "CLIENT REPLY {word}x",
    "MULTI",
    "MULTI",
    "EXEC",
    "EXEC",
    "EXEC",
    "DISCARD",
    "WATCH {k*}",
    "WATCH {k}",
    "UNWATCH",
    "{name}",
    "{name} {v} {v}",
];

const VALUES: &[&[u8]] = &[
    b"",
    b"a",
    b"hello",
    b"0",
    b"10",
    b"-5",
    b"100000",
    b"9999",
    b"10000",
    b"3.14",
    b"-0.5",
    b"1e3",
    b"5.0e-2",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"9223372036854775808",
    b" 12",
    b"12 ",
    b"+12",
    b"012",
    b"-0",
    b"inf",
    b"-inf",
    b"nan",
    b"\x00\xff\r\n\"",
    b"foobarbazfoobar",
    b"barfoobazbarfoo",
    // 44 bytes are the most of an embedded string, 45 the first of a raw one.
    b"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqr",
    b"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrs",
    b"12345678901234567890",
    b"a value of more than sixty-four bytes, so that it is no longer kept beside its key in one piece ..............",
];

const INTEGERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "5",
    "-7",
    "100",
    "9223372036854775807",
    "-9223372036854775808",
    "-9223372036854775807",
    "9223372036854775808",
    "abc",
    "",
    "1.5",
    " 1",
    "01",
];

const SMALL: &[&str] =
    &["0", "1", "2", "3", "5", "10", "40", "44", "45", "100", "300", "-1", "-2", "-3", "-5", "-100", "x", ""];
/// Where a range of a string ends. Before the first byte there is nothing since Redis 8, and the first byte before that.
const ENDS: &[&str] = &["0", "1", "2", "3", "5", "10", "40", "44", "45", "100", "300", "-1", "x", ""];
/// Of few digits: Redis adds in 80-bit floats and this server in decimals, which differ in the eighteenth place.
const FLOATS: &[&str] = &[
    "0", "1", "-1", "0.1", "-0.1", "1.5", "3.0", "1e2", "5.0e3", "inf", "-inf", "nan", "abc", "", " 1", "1 ", "-0",
    ".5", "5.",
];
const SECONDS: &[&str] = &[
    "1000",
    "2000",
    "5000",
    "100000",
    "0",
    "-1",
    "-100",
    "abc",
    "9223372036854775807",
    "9223372036854775",
    "9223372036854776",
    "-9223372036854775808",
    "1.5",
    "",
];
const MILLISECONDS: &[&str] = &[
    "1000000",
    "2000000",
    "5000000",
    "100000000",
    "0",
    "-1",
    "abc",
    "9223372036854775807",
    "-9223372036854775808",
    "1.5",
    "",
];
/// Points in time: far ahead, long ago, and none at all.
const AT: &[&str] = &["33177117420", "33177117421", "1", "0", "-1", "x", "9223372036854775807", "9223372036854775"];
const AT_MS: &[&str] = &["33177117420000", "33177117420499", "33177117420500", "33177117420999", "1", "0", "-1", "x"];
const PATTERNS: &[&str] = &[
    "*", "k*", "k?", "k[0-4]", "k[^0-4]", "*1*", "{tag}*", "k\\1", "[", "k[", "nothing", "", "?", "k[4-0]", "**", "k1*",
];
const WORDS: &[&str] = &[
    "async",
    "SYNC",
    "bogus",
    "id",
    "ON",
    "off",
    "timeout",
    "ERROR",
    "normal",
    "pubsub",
    "GETNAME",
    "no-such",
    "",
    "type",
    "master",
    "replica",
    "with space",
];
const NAMES: &[&str] = &["me", "you", "", "with space", "tab\t", "über"];
const HELLOS: &[&str] = &["2", "2", "3", "3", "1", "4", "x", ""];

/// What a placeholder becomes: nothing, a word, or several.
fn expand(name: &str, random: &mut Random, out: &mut Vec<Vec<u8>>) {
    let mut one = |word: &[u8]| out.push(word.to_vec());
    match name {
        "k" => one(key(random).as_bytes()),
        "v" => one(random.pick(VALUES)),
        "i" => one(random.pick(INTEGERS).as_bytes()),
        "n" => one(random.pick(SMALL).as_bytes()),
        "end" => one(random.pick(ENDS).as_bytes()),
        "f" => one(random.pick(FLOATS).as_bytes()),
        "s" => one(time(random, SECONDS)),
        "ms" => one(time(random, MILLISECONDS)),
        "at" => one(time(random, AT)),
        "atms" => one(time(random, AT_MS)),
        "id" => one(random.pick(stream::IDS).as_bytes()),
        "score" => one(random.pick(zset::SCORES).as_bytes()),
        "bound" => one(random.pick(zset::BOUNDS).as_bytes()),
        "m" => one(random.pick(zset::MEMBERS).as_bytes()),
        "lex" => one(random.pick(zset::LEX).as_bytes()),
        "place" => fill(random.pick(zset::PLACES), random, out),
        "zadd" => option(random, out, &["NX", "XX", "GT", "LT", "CH", "INCR", "{word}"]),
        "zrange" => option(random, out, &["REV", "WITHSCORES", "LIMIT {n} {n}", "BYSCORE", "BYLEX", "LIMIT 0"]),
        "aggregate" => option(random, out, &["SUM", "MIN", "max", "{word}"]),
        "unit" => option(random, out, &["m", "km", "KM", "ft", "mi", "{word}"]),
        "pattern" => one(random.pick(PATTERNS).as_bytes()),
        "word" => one(random.pick(WORDS).as_bytes()),
        "name" => one(random.pick(NAMES).as_bytes()),
        "hello" => one(random.pick(HELLOS).as_bytes()),
        "cursor" => one(random.pick(&["x", "1.5", "0x1", "99999999999999999999"]).as_bytes()),
        "db" => match random.below(10) {
            0 => one(random.pick(&["-1", "16", "99999999999", "x", ""]).as_bytes()),
            _ => one(random.below(DATABASES).to_string().as_bytes()),
        },
        "k*" => (0..1 + random.below(5)).for_each(|_| expand("k", random, out)),
        "kv*" => (0..1 + random.below(4)).for_each(|_| {
            expand("k", random, out);
            expand("v", random, out);
        }),
        "set" => option(
            random,
            out,
            &["NX", "XX", "GET", "KEEPTTL", "EX {s}", "PX {ms}", "EXAT {at}", "PXAT {atms}", "{word}"],
        ),
        "getex" => option(random, out, &["PERSIST", "EX {s}", "PX {ms}", "EXAT {at}", "PXAT {atms}", "KEEPTTL", "NX"]),
        "expire" => option(random, out, &["NX", "XX", "GT", "LT", "gt", "{word}"]),
        "copy" => option(random, out, &["REPLACE", "DB {db}", "replace", "DB", "{word}"]),
        "lcs" => option(random, out, &["LEN", "IDX", "WITHMATCHLEN", "MINMATCHLEN {i}", "MINMATCHLEN", "{word}"]),
        "scan" => option(random, out, &["COUNT {i}", "MATCH {pattern}", "TYPE string", "COUNT", "{word}"]),
        other => panic!("no placeholder {other}"),
    }
}

/// A time that makes sense, but for one in four.
fn time<'a>(random: &mut Random, from: &[&'a str]) -> &'a [u8] {
    let sensible = if from == SECONDS || from == MILLISECONDS { 4 } else { 2 };
    let word = if random.one_in(4) { random.pick(from) } else { random.pick(&from[..sensible]) };
    word.as_bytes()
}

fn option(random: &mut Random, out: &mut Vec<Vec<u8>>, from: &[&str]) {
    fill(random.pick(from), random, out);
}

/// Names of one slot, of several, and one with a tag.
fn key(random: &mut Random) -> String {
    match random.below(14) {
        12 => "{tag}a".into(),
        13 => "{tag}b".into(),
        n => format!("k{n}"),
    }
}

fn fill(template: &str, random: &mut Random, out: &mut Vec<Vec<u8>>) {
    for word in template.split(' ') {
        match word.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            Some((name, tail)) => {
                expand(name, random, out);
                if !tail.is_empty() {
                    out.last_mut().unwrap().extend_from_slice(tail.as_bytes());
                }
            }
            None => out.push(word.as_bytes().to_vec()),
        }
    }
}

fn command(random: &mut Random) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let family = match random.below(6) {
        0 => list::TEMPLATES,
        1 => bitmap::TEMPLATES,
        2 => stream::TEMPLATES,
        3 => zset::TEMPLATES,
        _ => TEMPLATES,
    };
    fill(random.pick(family), random, &mut words);
    if random.one_in(4) {
        words[0].make_ascii_lowercase();
    }
    // A wrong number of arguments now and then.
    if random.one_in(25) {
        words.truncate(1 + random.below(words.len()));
    } else if random.one_in(40)
        && !matches!(
            name_of(&words).as_str(),
            "hello" | "blpop" | "brpop" | "bzpopmin" | "bzpopmax" | "zrank" | "zrevrank"
        )
    {
        // (What is put behind a pop's time-out would be a longer one. ZRANK takes a fourth word since 7.2.)
        // (Redis 7.0 has set HELLO's name already when it finds a wrong word behind it, 7.4 has not.)
        words.push(random.pick(VALUES).to_vec());
    }
    words
}

fn name_of(command: &[Vec<u8>]) -> String {
    String::from_utf8_lossy(&command[0]).to_lowercase()
}

fn show(command: &[Vec<u8>]) -> String {
    let words: Vec<String> = command
        .iter()
        .map(|word| match !word.is_empty() && word.iter().all(u8::is_ascii_graphic) {
            true => String::from_utf8_lossy(word).into_owned(),
            false => format!("\"{}\"", word.escape_ascii()),
        })
        .collect();
    words.join(" ")
}

/// Whether two replies to `command` say the same, though their bytes differ.
fn same_meaning(command: &[Vec<u8>], ours: &Value, theirs: &Value) -> bool {
    let close = |tolerance: i64| match (ours, theirs) {
        // Below zero stand answers without a time.
        (Value::Int(a), Value::Int(b)) => *a >= 0 && *b >= 0 && (a - b).abs() <= tolerance,
        _ => false,
    };
    let described = |text: &[u8]| text.starts_with(b"id=") || text.starts_with(b"txt:id=");
    let sorted = |value: &Value| match value {
        Value::Array(items) => {
            let mut names: Vec<Vec<u8>> = items.iter().map(|item| item.bytes().to_vec()).collect();
            names.sort();
            Some(names)
        }
        _ => None,
    };
    if ours == theirs {
        return true;
    }
    // Where an error quotes an argument that is no text, Redis stops at a NUL and passes other bytes on.
    let plain = |word: &Vec<u8>| word.iter().all(|byte| (b' '..=b'~').contains(byte));
    if let (Value::Error(a), Value::Error(b)) = (ours, theirs) {
        // `XREAD` with more keys than ids: 7.4 words this otherwise.
        if a.starts_with("ERR Unbalanced") && b.starts_with("ERR Unbalanced") {
            return true;
        }
        if !command.iter().all(plain) {
            let words = |text: &str| text.split(' ').take(3).map(String::from).collect::<Vec<_>>();
            return words(a) == words(b);
        }
    }
    match name_of(command).as_str() {
        // With a time to live given twice, whether the second ends later is a matter of a millisecond.
        "expire" | "pexpire" if command.iter().any(|word| matches!(&word.to_ascii_lowercase()[..], b"gt" | b"lt")) => {
            matches!((ours, theirs), (Value::Int(0 | 1), Value::Int(0 | 1)))
        }
        // Redis 7.4 looks at the range before the key, 7.0 after it.
        "bitcount" | "bitpos" => matches!(ours, Value::Error(_)),
        // Since 7.2 a consumer is made when it asks, not when it gets something.
        "xgroup" => matches!((ours, theirs), (Value::Int(0), Value::Int(1))),
        "ttl" | "expiretime" => close(3),
        "pttl" | "pexpiretime" => close(3000),
        "object" => {
            // Redis shares small integers among keys, and the time of one is that of all.
            command.get(1).is_some_and(|sub| sub.eq_ignore_ascii_case(b"idletime")) && close(600)
                || same_encoding(ours, theirs)
        }
        "keys" => sorted(ours).is_some() && sorted(ours) == sorted(theirs),
        "randomkey" => matches!((ours, theirs), (Value::Bulk(_), Value::Bulk(_))),
        // The cursor that ends an iteration ends it; its keys have no order.
        "scan" => match (ours, theirs) {
            (Value::Array(a), Value::Array(b)) => a.len() == 2 && b.len() == 2 && sorted(&a[1]).is_some(),
            _ => false,
        },
        // Ids, addresses and memory differ.
        "client" => match (ours, theirs) {
            (Value::Int(_), Value::Int(_)) => command[1].eq_ignore_ascii_case(b"id"),
            (Value::Bulk(a), Value::Bulk(b)) => described(a) && described(b),
            _ => false,
        },
        // Versions and ids differ.
        "hello" => match (ours, theirs) {
            (Value::Array(a), Value::Array(b)) | (Value::Other(b'%', a), Value::Other(b'%', b)) => a.len() == b.len(),
            _ => false,
        },
        _ => false,
    }
}

/// Whether two encodings are the same. (Short lists are listpacks since Redis 7.2; `SORT` leaves a sorted set as a
/// skiplist there, and as it was here.)
fn same_encoding(ours: &Value, theirs: &Value) -> bool {
    let list = |value: &Value, name: &[u8]| matches!(value, Value::Bulk(text) if text == name);
    ours == theirs || list(ours, b"listpack") && (list(theirs, b"quicklist") || list(theirs, b"skiplist"))
}

/// [`same_meaning`], with the replies of an `EXEC` taken one by one.
fn same(command: &[Vec<u8>], queued: &[Vec<Vec<u8>>], ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Array(a), Value::Array(b)) if name_of(command) == "exec" => {
            a.len() == b.len()
                && a.len() == queued.len()
                && a.iter().zip(b).zip(queued).all(|((a, b), command)| same_meaning(command, a, b))
        }
        _ => same_meaning(command, ours, theirs),
    }
}

/// Whether two results of `INCRBYFLOAT` are the same number but for its last places: Redis adds in 80-bit floats, this
/// server in decimals.
fn other_arithmetic(command: &[Vec<u8>], ours: &Value, theirs: &Value) -> bool {
    let number = |value: &Value| match value {
        Value::Bulk(text) => String::from_utf8_lossy(text).parse::<f64>().ok(),
        _ => None,
    };
    name_of(command) == "incrbyfloat" && number(ours).is_some() && number(ours) == number(theirs)
}

/// One of the two clients, connected to both servers.
struct Pair {
    ours: Conn,
    theirs: Conn,
    queued: Vec<Vec<Vec<u8>>>,
}

/// A difference: the command that shows it, and what stands in the report.
struct Difference {
    command: String,
    report: String,
}

fn sequence(server: &Server, redis: &Redis, seed: u64, history: &mut Vec<String>) -> Result<(), Difference> {
    let mut random = Random::new(seed);
    let pair = || Pair { ours: server.connect(), theirs: redis.connect(), queued: Vec::new() };
    let mut pairs = [pair(), pair()];
    for conn in [&mut pairs[0].ours, &mut pairs[0].theirs] {
        assert_eq!(conn.cmd("FLUSHALL"), ok());
    }
    let mut left = COMMANDS_PER_SEQUENCE;
    while left > 0 {
        let who = random.below(2);
        let pair = &mut pairs[who];
        let pipeline: Vec<_> = (0..(1 + random.below(8)).min(left)).map(|_| command(&mut random)).collect();
        left -= pipeline.len();
        let bytes: Vec<u8> = pipeline.iter().flat_map(|command| encode(command)).collect();
        pair.ours.send(&bytes);
        pair.theirs.send(&bytes);
        for command in &pipeline {
            let (theirs, their_bytes) = match pair.theirs.try_read() {
                Ok(reply) => reply,
                Err(error) => panic!("seed {seed}: Redis does not answer {} ({error})", show(command)),
            };
            let (ours, our_bytes) = match pair.ours.try_read() {
                Ok(reply) => reply,
                Err(error) => {
                    let report = format!("no reply ({error}), theirs {}", their_bytes.escape_ascii());
                    return Err(Difference { command: show(command), report });
                }
            };
            history.push(format!("{who}: {:<60} {}", show(command), their_bytes.escape_ascii()));
            if our_bytes != their_bytes && !same(command, &pair.queued, &ours, &theirs) {
                if other_arithmetic(command, &ours, &theirs) {
                    // What follows depends on the value, so this sequence ends here.
                    return Ok(());
                }
                let mut report =
                    format!("ours   {}\n  theirs {}", our_bytes.escape_ascii(), their_bytes.escape_ascii());
                if let (Value::Array(a), Value::Array(b)) = (&ours, &theirs) {
                    let pairs = a.iter().zip(b).zip(&pair.queued);
                    if let Some(((a, b), command)) = pairs.into_iter().find(|((a, b), c)| !same_meaning(c, a, b)) {
                        report = format!("in it, {}\n  ours   {a:?}\n  theirs {b:?}", show(command));
                    }
                }
                return Err(Difference { command: show(command), report });
            }
            match theirs {
                Value::Simple(text) if text == "QUEUED" => pair.queued.push(command.clone()),
                _ if matches!(name_of(command).as_str(), "exec" | "discard" | "reset") => pair.queued.clear(),
                _ => {}
            }
        }
    }
    let ours = keyspace(&mut server.connect());
    let theirs = keyspace(&mut redis.connect());
    for name in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
        let (a, b) = (ours.get(name), theirs.get(name));
        let equal = match (a, b) {
            (Some(a), Some(b)) => {
                let ttl = |kept: &Kept| kept.pttl;
                a.value == b.value
                    && same_encoding(&a.encoding, &b.encoding)
                    && (ttl(a) == ttl(b) || (ttl(a) >= 0 && ttl(b) >= 0 && (ttl(a) - ttl(b)).abs() < 3000))
            }
            _ => false,
        };
        if !equal {
            let report = format!("ours   {a:?}\n  theirs {b:?}");
            return Err(Difference { command: format!("(key {} of database {} in the end)", name.1, name.0), report });
        }
    }
    Ok(())
}

/// What is known of a key.
#[derive(Debug)]
struct Kept {
    value: Value,
    pttl: i64,
    encoding: Value,
}

/// All keys of all databases; what `KEYS` says, a whole iteration of `SCAN` and `DBSIZE` must agree on.
fn keyspace(conn: &mut Conn) -> BTreeMap<(usize, String), Kept> {
    let mut all = BTreeMap::new();
    for db in 0..DATABASES {
        assert_eq!(conn.cmd(&format!("SELECT {db}")), ok());
        let listed = conn.cmd("KEYS *");
        let names: BTreeSet<Vec<u8>> = listed.items().iter().map(|name| name.bytes().to_vec()).collect();
        assert_eq!(names.len(), listed.items().len(), "KEYS names each key once");
        let mut scanned = BTreeSet::new();
        let mut cursor = b"0".to_vec();
        loop {
            let reply = conn.call(&[b"SCAN".as_slice(), &cursor, b"COUNT", b"3"]);
            scanned.extend(reply.items()[1].items().iter().map(|name| name.bytes().to_vec()));
            cursor = reply.items()[0].bytes().to_vec();
            if cursor == b"0" {
                break;
            }
        }
        assert_eq!(scanned, names, "SCAN returns every key");
        assert_eq!(conn.cmd("DBSIZE"), Value::Int(names.len() as i64));
        for name in names {
            let kept = Kept {
                value: match conn.call(&[b"TYPE".as_slice(), &name]) {
                    Value::Simple(kind) if kind == "list" => conn.call(&[b"LRANGE".as_slice(), &name, b"0", b"-1"]),
                    Value::Simple(kind) if kind == "zset" => {
                        conn.call(&[b"ZRANGE".as_slice(), &name, b"0", b"-1", b"WITHSCORES"])
                    }
                    _ => conn.call(&[b"GET".as_slice(), &name]),
                },
                pttl: conn.call(&[b"PTTL".as_slice(), &name]).int(),
                encoding: conn.call(&[b"OBJECT".as_slice(), b"ENCODING", &name]),
            };
            all.insert((db, name.escape_ascii().to_string()), kept);
        }
    }
    all
}

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")),
        Err(_) => default,
    }
}

#[test]
fn replies_and_keys_are_those_of_redis() {
    let Some(redis) = Redis::start(&["--databases", "16"]) else { return };
    let sequences = setting("RINGSHARD_DIFF_SEQUENCES", 300);
    let first = setting("RINGSHARD_DIFF_SEED", 1);
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&[]);
        // One report for each kind of command, so that a frequent difference does not hide the others.
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        for seed in first..first + sequences {
            let mut history = Vec::new();
            if let Err(Difference { command, report }) = sequence(&server, &redis, seed, &mut history) {
                let kind: String = command.split(' ').take(2).collect::<Vec<_>>().join(" ").to_lowercase();
                let kind = kind.trim_end_matches(|c: char| c.is_ascii_digit()).to_string();
                let before = &history[history.len().saturating_sub(40)..];
                found.entry(kind).or_insert_with(|| {
                    format!("seed {seed}, {command}\n  {report}\n  before it:\n    {}", before.join("\n    "))
                });
            }
        }
        let reports: Vec<String> = found.into_values().collect();
        assert!(
            reports.is_empty(),
            "{} kinds of difference on {placement:?}:\n\n{}",
            reports.len(),
            reports.join("\n\n")
        );
    });
}
