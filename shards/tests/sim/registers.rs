//! Strings under every kind of command over one key and several: the history must be linearizable.

use ringshard_shards::core::{Fault, Rng};

use crate::each_seed;
use crate::history::{Call, Op};
use crate::linear;
use crate::world::{Setup, Sim};

const KEYS: usize = 5;
/// Three on each of three shards.
const MANY_KEYS: usize = 9;

fn some_keys(rng: &mut Rng) -> Vec<usize> {
    let count = 1 + rng.below(3) as usize;
    let mut keys: Vec<usize> = Vec::new();
    while keys.len() < count {
        let key = rng.below(KEYS as u64) as usize;
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

fn plain(rng: &mut Rng, next: &mut i64) -> Op {
    let key = rng.below(KEYS as u64) as usize;
    *next += 1000;
    let value = *next;
    match rng.below(16) {
        0..3 => Op::Get(key),
        3..5 => Op::Set(key, value),
        5 => Op::Incr(key),
        6..9 => Op::Mget(some_keys(rng)),
        9..12 => Op::Mset(some_keys(rng).into_iter().map(|key| (key, value)).collect()),
        12 => Op::Msetnx(some_keys(rng).into_iter().map(|key| (key, value)).collect()),
        13 => Op::Del(some_keys(rng)),
        14 => Op::Exists(some_keys(rng)),
        _ => Op::Rename(key, (key + 1 + rng.below(KEYS as u64 - 1) as usize) % KEYS),
    }
}

fn random_op(rng: &mut Rng, next: &mut i64) -> Op {
    match rng.below(10) {
        0 => Op::Exec((0..1 + rng.below(3)).map(|_| plain(rng, next)).collect()),
        _ => plain(rng, next),
    }
}

/// Writes of several keys that meet, and looks at one key: what shows best what passes what.
fn meeting(rng: &mut Rng, next: &mut i64) -> Op {
    let key = rng.below(KEYS as u64) as usize;
    *next += 1000;
    let value = *next;
    match rng.below(16) {
        0..6 => Op::Get(key),
        6 => Op::Set(key, value),
        7 => Op::Mget(some_keys(rng)),
        8 => Op::Del(some_keys(rng)),
        9..11 => Op::Msetnx(some_keys(rng).into_iter().map(|key| (key, value)).collect()),
        _ => Op::Mset(some_keys(rng).into_iter().map(|key| (key, value)).collect()),
    }
}

/// Parts that wait, and others that go by, on three shards of which the last is slow: `MSETNX` holds keys of the second
/// one firmly until that has answered, and what else is written and read lies on the first two.
fn waiting(rng: &mut Rng, next: &mut i64) -> Op {
    *next += 1000;
    let value = *next;
    let key = |rng: &mut Rng, shard: usize| shard + 3 * rng.below(MANY_KEYS as u64 / 3) as usize;
    let mut keys = match rng.below(16) {
        0..6 => return Op::Get(key(rng, 1)),
        6..8 => return Op::Msetnx(vec![(key(rng, 1), value), (key(rng, 2), value)]),
        8..12 => vec![key(rng, 0), key(rng, 1)],
        _ => vec![key(rng, 0), key(rng, 1), key(rng, 1)],
    };
    keys.sort_unstable();
    keys.dedup();
    Op::Mset(keys.into_iter().map(|key| (key, value)).collect())
}

/// A setup that a seed chooses.
pub fn setup(seed: u64, fault: Option<Fault>, unordered: bool) -> Setup {
    let mut rng = Rng::new(seed);
    let shards = [2, 2, 3, 4, 8][rng.below(5) as usize];
    Setup {
        seed,
        shards,
        clients: 2 + rng.below(4) as usize,
        strict: rng.below(4) == 0,
        fault,
        unordered,
        passes_mail: false,
        starved: false,
        logged: false,
    }
}

/// One run.
pub fn run(setup: Setup) {
    run_mix(setup, random_op, KEYS, 4);
}

/// One run with [`meeting`] commands and no pipelines, on shards of which one seldom looks into its mailbox.
pub fn run_meeting(setup: Setup) {
    run_mix(Setup { shards: 3, clients: 5, starved: true, ..setup }, meeting, KEYS, 1);
}

/// As [`run_meeting`], with pipelines.
pub fn run_meeting_pipelines(setup: Setup) {
    run_mix(Setup { shards: 3, clients: 5, starved: true, ..setup }, meeting, KEYS, 4);
}

/// One such run with [`waiting`] commands.
pub fn run_waiting(setup: Setup) {
    run_mix(Setup { shards: 3, clients: 6, starved: true, ..setup }, waiting, MANY_KEYS, 1);
}

fn run_mix(setup: Setup, next_op: fn(&mut Rng, &mut i64) -> Op, keys: usize, most: u64) {
    let mut sim = Sim::new(setup);
    let names = sim.keys(keys);
    let owner: Vec<usize> = (0..keys).map(|k| k % setup.shards).collect();
    let mut calls: Vec<Call> = Vec::new();
    // By client: its calls under way, each with the replies that it still needs before its own.
    let mut awaited: Vec<std::collections::VecDeque<(usize, usize)>> = vec![Default::default(); setup.clients];
    let mut next = 0;
    let total = 12 + sim.rng.below(28) as usize;
    loop {
        let client = sim.rng.below(setup.clients as u64) as usize;
        let sends = sim.clients[client].open && !sim.clients[client].ended;
        let burst = sends && awaited[client].is_empty() && calls.len() < total;
        if burst && sim.rng.below(3) == 0 {
            for _ in 0..1 + sim.rng.below(most) {
                if calls.len() >= total {
                    break;
                }
                let op = next_op(&mut sim.rng, &mut next);
                let mut extra = 0;
                match &op {
                    Op::Exec(ops) => {
                        sim.send(client, &["MULTI"]);
                        ops.iter().for_each(|op| sim.send(client, &op.words(&names)));
                        sim.send(client, &["EXEC"]);
                        extra = 1 + ops.len();
                    }
                    op => sim.send(client, &op.words(&names)),
                }
                awaited[client].push_back((calls.len(), extra));
                calls.push(Call { client, op, sent: sim.step, returned: None });
            }
        } else if sim.rng.below(400) == 0 {
            sim.vanish(client);
            awaited[client].clear();
        } else if sim.rng.below(300) == 0 {
            sim.end_input(client);
        }
        let moved = sim.advance();
        collect(&mut sim, &mut awaited, &mut calls);
        if !moved && calls.len() >= total {
            break;
        }
        if !moved && sim.clients.iter().all(|client| !client.open || client.ended) {
            break;
        }
        assert!(sim.step < 100_000, "the run does not end");
    }
    sim.settle();
    collect(&mut sim, &mut awaited, &mut calls);
    for (client, awaited) in awaited.iter().enumerate() {
        assert!(awaited.is_empty(), "client {client} waits for ever: {:?}", calls[awaited[0].0]);
    }
    let lingers = sim.clients.iter().position(|client| client.open && client.ended);
    assert!(lingers.is_none(), "client {lingers:?} has ended and was answered, and its connection is open");
    // What is left in the end tells in which order writes were done.
    let looker = sim.connect();
    let op = Op::Mget((0..keys).collect());
    let sent = sim.step;
    sim.send(looker, &op.words(&names));
    sim.settle();
    let reply = sim.clients[looker].replies.pop_front().expect("a reply");
    calls.push(Call { client: looker, op, sent, returned: Some((sim.step, reply.to_string())) });
    sim.assert_quiet();
    linear::check(&calls, keys, &owner, sim.is_strict());
}

fn collect(sim: &mut Sim, awaited: &mut [std::collections::VecDeque<(usize, usize)>], calls: &mut [Call]) {
    for (client, awaited) in awaited.iter_mut().enumerate() {
        while let Some(reply) = sim.clients[client].replies.pop_front() {
            let Some((call, extra)) = awaited.front_mut() else { panic!("a reply that nobody asked for: {reply}") };
            if *extra > 0 {
                *extra -= 1;
                assert!(["OK", "QUEUED"].contains(&reply.to_string().as_str()), "{reply}");
                continue;
            }
            calls[*call].returned = Some((sim.step, reply.to_string()));
            awaited.pop_front();
        }
    }
}

#[test]
fn every_history_is_linearizable() {
    each_seed("registers", 10_000, |seed| run(setup(seed, None, false)));
}

#[test]
fn every_history_of_writes_that_meet_is_linearizable() {
    each_seed("meeting", 5_000, |seed| run_meeting(setup(seed, None, false)));
    each_seed("meeting pipelines", 5_000, |seed| run_meeting_pipelines(setup(seed, None, false)));
}

#[test]
fn every_history_of_parts_that_wait_is_linearizable() {
    each_seed("waiting", 5_000, |seed| run_waiting(setup(seed, None, false)));
}
