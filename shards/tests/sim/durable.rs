//! A crash at any moment, under `appendfsync always`: each log keeps what was synced and as much more as chance has it.
//! What clients were told, by a write's reply or by a read's, is there after a restart, and a command over several shards
//! is there whole or not at all.

use std::collections::VecDeque;

use ringshard_shards::aof::cut::consistent_cut;
use ringshard_shards::aof::read::scan;
use ringshard_shards::core::Rng;
use ringshard_shards::propagate::Mark;
use ringshard_shards::testing::Value;

use crate::each_seed;
use crate::world::{Setup, Sim};

/// Keys of each writer, on different shards.
const KEYS: usize = 3;

/// One writer: it gives all of its keys the same number, again and again.
#[derive(Clone, Debug, Default)]
struct Writer {
    names: Vec<String>,
    asked: i64,
    told: i64,
    /// Replies that its present command still has to come.
    awaits: usize,
    /// It reads another's key.
    reads: Option<usize>,
}

fn integer(value: &Value) -> i64 {
    match value {
        Value::Bulk(_) => value.text().parse().expect("a number"),
        _ => 0,
    }
}

/// What is left of logs after a crash, cut to what belongs together.
fn recover(mut logs: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let scanned: Vec<_> = logs.iter().map(|log| scan(log)).collect();
    let mut ends: Vec<u64> = scanned.iter().map(|scanned| scanned.valid).collect();
    let marks: Vec<VecDeque<Mark>> = scanned.into_iter().map(|scanned| scanned.marks.into()).collect();
    consistent_cut(&mut ends, &marks);
    logs.iter_mut().zip(ends).for_each(|(log, end)| log.truncate(end as usize));
    logs
}

/// One run.
pub fn run(setup: Setup) {
    let setup = Setup { logged: true, ..setup };
    let mut sim = Sim::new(setup);
    let all = sim.keys(KEYS * setup.clients);
    let mut writers: Vec<Writer> =
        all.chunks(KEYS).map(|names| Writer { names: names.to_vec(), ..Writer::default() }).collect();
    let steps = 20 + sim.rng.below(600);
    for _ in 0..steps {
        let client = sim.rng.below(setup.clients as u64) as usize;
        if writers[client].awaits == 0 {
            let kind = sim.rng.below(6);
            let other = sim.rng.below(setup.clients as u64) as usize;
            let writer = &mut writers[client];
            let n = (writer.asked + 1).to_string();
            let names = writer.names.clone();
            writer.awaits = 1;
            writer.reads = None;
            let pairs = names.iter().flat_map(|name| [name.clone(), n.clone()]);
            match kind {
                0 => {
                    writer.reads = Some(other);
                    let key = writers[other].names[sim.rng.below(KEYS as u64) as usize].clone();
                    sim.send(client, &["GET", &key]);
                    continue;
                }
                1 | 2 => sim.send(client, &std::iter::once("MSET".to_string()).chain(pairs).collect::<Vec<_>>()),
                3 => {
                    let code = "for i = 1, #KEYS do redis.call('SET', KEYS[i], ARGV[1]) end return 'OK'";
                    let head = ["EVAL".to_string(), code.to_string(), KEYS.to_string()];
                    sim.send(client, &head.into_iter().chain(names).chain([n]).collect::<Vec<_>>());
                }
                _ => {
                    sim.send(client, &["MULTI"]);
                    names.iter().for_each(|name| sim.send(client, &["SET", name, &n]));
                    sim.send(client, &["EXEC"]);
                    writers[client].awaits = KEYS + 2;
                }
            }
            writers[client].asked += 1;
        }
        sim.advance();
        for client in 0..writers.len() {
            while let Some(reply) = sim.clients[client].replies.pop_front() {
                assert!(!matches!(reply, Value::Error(_)), "{reply}");
                writers[client].awaits -= 1;
                match writers[client].reads {
                    Some(other) => writers[other].told = writers[other].told.max(integer(&reply)),
                    None if writers[client].awaits == 0 => writers[client].told = writers[client].asked,
                    None => {}
                }
            }
        }
    }
    let logs = recover(sim.crash());
    let mut after = Sim::new(Setup { seed: setup.seed + 1, clients: 1, logged: false, fault: None, ..setup });
    after.load(logs);
    for writer in &writers {
        let words: Vec<String> = std::iter::once("MGET".to_string()).chain(writer.names.clone()).collect();
        after.send(0, &words);
        after.settle();
        let reply = after.clients[0].replies.pop_front().expect("a reply");
        let values: Vec<i64> = reply.items().iter().map(integer).collect();
        assert!(values.iter().all(|value| *value == values[0]), "half of a command: {values:?}, {writer:?}");
        assert!(values[0] >= writer.told, "what was told is gone: {values:?}, {writer:?}");
        assert!(values[0] <= writer.asked, "more than was asked for: {values:?}, {writer:?}");
    }
}

/// What a seed runs with.
pub fn setup(seed: u64) -> Setup {
    let mut rng = Rng::new(seed ^ 0xd15c);
    let shards = [1, 2, 3, 4, 8][rng.below(5) as usize];
    let clients = 1 + rng.below(5) as usize;
    Setup {
        seed,
        shards,
        clients,
        strict: rng.below(4) == 0,
        fault: None,
        unordered: false,
        passes_mail: false,
        starved: false,
        logged: true,
    }
}

#[test]
fn what_was_told_survives_and_commands_are_whole() {
    each_seed("durable", 2_000, |seed| run(setup(seed)));
}
