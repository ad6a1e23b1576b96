//! Every row of the table, called with arguments nobody would send: no panic, one reply for each command, and the
//! slices back home. A failure prints the seed and the command.

use super::table;
use crate::core::Rng;
use crate::testing::{Value, World, request};

const WORDS: [&[u8]; 40] = [
    b"",
    b"k",
    b"k2",
    b"{k}3",
    b"\0\r\n\xff",
    b"0",
    b"1",
    b"2",
    b"-1",
    b"3",
    b"100",
    b"1.5",
    b"-0",
    b"nan",
    b"inf",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551616",
    b"99999999999999999999",
    b"1gb",
    b"*",
    b"[a-",
    b"?*?*?",
    b"on",
    b"off",
    b"yes",
    b"no",
    b"one",
    b"all",
    b"maxmemory",
    b"hz",
    b"save",
    b"command",
    b"get",
    b"config|get",
    b"default",
    b"everything",
    b"127.0.0.1:1",
    b"key:1",
    b"string",
];

/// What ends or blocks the server or the connection, or turns its replies off, as it should.
fn is_final(name: &str) -> bool {
    matches!(
        name,
        "shutdown"
            | "sync"
            | "psync"
            | "replconf"
            | "quit"
            | "client|reply"
            | "client|pause"
            | "client|kill"
            | "debug|segfault"
            | "debug|panic"
            | "debug|assert"
            | "debug|oom"
            | "debug|sleep"
            | "monitor"
            // What follows speaks to the debugger.
            | "script|debug"
            | "subscribe"
            | "psubscribe"
            | "ssubscribe"
            // As many replies as channels.
            | "unsubscribe"
            | "punsubscribe"
            | "sunsubscribe"
    )
}

/// A command that fits the row's name and mostly its arity, with words of its own usage among the arguments.
fn nonsense(rng: &mut Rng, row: &super::Command) -> Vec<Vec<u8>> {
    let mut words: Vec<Vec<u8>> = row.name.split('|').map(|part| part.as_bytes().to_vec()).collect();
    let least = row.arity.unsigned_abs() as usize;
    let count = match rng.below(8) {
        0 => rng.below(12) as usize,
        1..4 => least + rng.below(6) as usize,
        _ => least,
    };
    let own: Vec<&str> =
        row.usage.split(|c: char| !c.is_alphanumeric() && c != '-').filter(|w| !w.is_empty()).collect();
    while words.len() < count {
        let word = match rng.below(3) {
            0 if !own.is_empty() => own[rng.below(own.len() as u64) as usize].as_bytes().to_vec(),
            _ => WORDS[rng.below(WORDS.len() as u64) as usize].to_vec(),
        };
        words.push(word);
    }
    // Sizes and offsets are only what a client may ask for; that much memory is not what is tested here.
    if matches!(row.name, "debug|populate" | "setrange" | "setbit" | "debug|stringmatch-len") {
        for word in words.iter_mut().skip(2).filter(|word| word.len() > 2) {
            *word = rng.below(50).to_string().into_bytes();
        }
    }
    words
}

fn run(seed: u64, shards: usize, rounds: usize) {
    let mut rng = Rng::new(seed);
    let mut world = World::with_config(shards, &[("enable-module-command", "yes")]);
    let (conn, other) = (world.connect(), world.connect());
    let client = world.run(conn, "CLIENT ID").integer();
    world.run(conn, "DEBUG POPULATE 20");
    for _ in 0..rounds {
        let id = rng.below(table().len() as u64) as u16;
        let row = table().row(id);
        if is_final(row.name) {
            continue;
        }
        let words = nonsense(&mut rng, row);
        let shown: Vec<String> = words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let context = format!("seed {seed}, {shards} shard(s): {shown:?}");
        world.send(conn, &request(&words));
        let mut bytes = world.received(conn);
        if bytes.is_empty() && row.has(super::flag::BLOCKING) {
            // It waits, as it may.
            world.run(other, &format!("CLIENT UNBLOCK {client}"));
            bytes = world.received(conn);
        }
        let Some((_, used)) = Value::parse(&bytes) else { panic!("no reply; {context}") };
        // PROTOCOL's push message is a second reply by design.
        assert!(used == bytes.len() || row.name == "debug|protocol", "more than one reply; {context}");
        assert!(world.shards.iter().all(|shard| shard.is_quiet() || shard.core.cron_paused), "not quiet; {context}");
        if rng.below(50) == 0 {
            world.advance(150);
        }
        if !world.is_open(conn) {
            panic!("closed; {context}");
        }
        world.effects.clear();
    }
}

#[test]
fn no_arguments_break_a_command() {
    run(1, 1, 6000);
    run(2, 4, 6000);
}

#[test]
fn nor_inside_a_transaction() {
    for (seed, shards) in [(3, 1), (4, 4)] {
        let mut rng = Rng::new(seed);
        let mut world = World::new(shards);
        let conn = world.connect();
        for round in 0..300 {
            world.send(conn, b"*1\r\n$5\r\nmulti\r\n");
            let count = 1 + rng.below(6);
            for _ in 0..count {
                let row = table().row(rng.below(table().len() as u64) as u16);
                let leaves = matches!(row.name, "exec" | "discard" | "reset" | "multi" | "watch" | "hello");
                if !is_final(row.name) && !leaves && !row.name.starts_with("debug") {
                    world.send(conn, &request(&nonsense(&mut rng, row)));
                }
            }
            world.received(conn);
            world.send(conn, b"*1\r\n$4\r\nexec\r\n");
            let bytes = world.received(conn);
            let whole = Value::parse(&bytes).is_some_and(|(_, used)| used == bytes.len());
            assert!(whole, "seed {seed}, round {round}: {:?}", String::from_utf8_lossy(&bytes));
            assert!(world.is_open(conn) && world.shards.iter().all(|shard| shard.is_quiet()));
        }
    }
}
