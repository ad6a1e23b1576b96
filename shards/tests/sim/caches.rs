//! Clients that keep what they read (`CLIENT TRACKING`): when all is quiet, whatever a client still keeps is what the
//! server holds, however replies and notices crossed on their way over the shards.

use std::collections::{BTreeMap, VecDeque};

use ringshard_shards::testing::Value;

use crate::each_seed;
use crate::world::{Setup, Sim};

/// Strings, and streams behind them.
const KEYS: usize = 5;
const STREAMS: usize = 2;

/// What the reply to a command tells.
#[derive(Clone, Debug)]
enum Tells {
    Nothing,
    /// The values of these keys, in order.
    Values(Vec<usize>),
    /// Inside `EXEC`: of these, if of any.
    Exec(Vec<Option<usize>>),
    /// The newest entries of streams; it may take long.
    Streams,
}

#[derive(Default)]
struct Cache {
    kept: BTreeMap<usize, String>,
    awaited: VecDeque<Tells>,
    notices: usize,
}

impl Cache {
    fn keep(&mut self, keys: &[usize], values: &[Value]) {
        for (key, value) in keys.iter().zip(values) {
            self.kept.insert(*key, value.to_string());
        }
    }

    fn take(&mut self, reply: Value, names: &[String]) {
        if let Value::Push(parts) = &reply {
            self.notices += 1;
            match &parts[1] {
                Value::Null => self.kept.clear(),
                keys => {
                    for key in keys.items() {
                        let at = names.iter().position(|name| *name == key.text()).expect("a key of this run");
                        self.kept.remove(&at);
                    }
                }
            }
            return;
        }
        match self.awaited.pop_front().expect("a reply was asked for") {
            Tells::Nothing => {}
            Tells::Values(keys) if keys.len() == 1 => self.keep(&keys, &[reply]),
            Tells::Values(keys) => self.keep(&keys, &reply.items()),
            Tells::Exec(keys) => {
                for (key, value) in keys.iter().zip(reply.items()) {
                    if let Some(key) = key {
                        self.keep(&[*key], &[value]);
                    }
                }
            }
            Tells::Streams if reply == Value::Null => {}
            Tells::Streams => {
                let pairs = reply.items();
                for pair in pairs.chunks_exact(2) {
                    let at = names.iter().position(|name| *name == pair[0].text()).expect("a stream of this run");
                    let newest = pair[1].items().last().expect("an entry").items()[0].to_string();
                    self.kept.insert(at, newest);
                }
            }
        }
    }
}

/// One run.
pub fn run(setup: Setup) {
    let mut sim = Sim::new(setup);
    let names = sim.keys(KEYS + STREAMS);
    let mut caches: Vec<Cache> = (0..setup.clients).map(|_| Cache::default()).collect();
    for (client, cache) in caches.iter_mut().enumerate() {
        sim.send(client, &["HELLO", "3"]);
        let words: &[&str] = match sim.rng.below(4) {
            0 => &["CLIENT", "TRACKING", "ON", "BCAST"],
            _ => &["CLIENT", "TRACKING", "ON"],
        };
        sim.send(client, words);
        cache.awaited.extend([Tells::Nothing, Tells::Nothing]);
    }
    let (mut left, mut value) = (20 + sim.rng.below(40), 0);
    loop {
        let client = sim.rng.below(setup.clients as u64) as usize;
        let waits = caches[client].awaited.iter().any(|tells| matches!(tells, Tells::Streams));
        if left > 0 && sim.rng.below(3) == 0 && caches[client].awaited.len() < 4 && !waits {
            left -= 1;
            value += 1;
            let (a, b) = (sim.rng.below(KEYS as u64) as usize, sim.rng.below(KEYS as u64) as usize);
            let (ka, kb, v) = (names[a].clone(), names[b].clone(), format!("v{value}"));
            let (s, t) = (&names[KEYS + sim.rng.below(STREAMS as u64) as usize], &names[KEYS]);
            let (words, tells): (Vec<&str>, Tells) = match sim.rng.below(20) {
                14 => (vec!["XREAD", "BLOCK", "100", "STREAMS", s, "$"], Tells::Streams),
                15 => (vec!["XREAD", "BLOCK", "100", "STREAMS", t, &names[KEYS + 1], "$", "$"], Tells::Streams),
                16..18 => {
                    sim.send(client, &["XADD", s, "*", "f", &v]);
                    caches[client].awaited.push_back(Tells::Nothing);
                    (vec!["XADD", s, "*", "f", &v], Tells::Nothing)
                }
                18..20 => {
                    sim.send(client, &["MULTI"]);
                    sim.send(client, &["XADD", s, "*", "f", &v]);
                    sim.send(client, &["GET", &ka]);
                    caches[client].awaited.extend([Tells::Nothing, Tells::Nothing, Tells::Nothing]);
                    (vec!["EXEC"], Tells::Exec(vec![None, Some(a)]))
                }
                0..4 => (vec!["GET", &ka], Tells::Values(vec![a])),
                4 => (vec!["MGET", &ka, &kb], Tells::Values(vec![a, b])),
                5 => (vec!["EVAL", "return redis.call('GET', KEYS[1])", "1", &ka], Tells::Values(vec![a])),
                6..8 => (vec!["SET", &ka, &v], Tells::Nothing),
                8 => (vec!["MSET", &ka, &v, &kb, &v], Tells::Nothing),
                9 if a != b => (vec!["RENAME", &ka, &kb], Tells::Nothing),
                10 => (vec!["DEL", &ka, &kb], Tells::Nothing),
                11 if sim.rng.below(4) == 0 => (vec!["FLUSHALL"], Tells::Nothing),
                _ => {
                    sim.send(client, &["MULTI"]);
                    sim.send(client, &["GET", &ka]);
                    sim.send(client, &["SET", &kb, &v]);
                    caches[client].awaited.extend([Tells::Nothing, Tells::Nothing, Tells::Nothing]);
                    (vec!["EXEC"], Tells::Exec(vec![Some(a), None]))
                }
            };
            sim.send(client, &words);
            caches[client].awaited.push_back(tells);
        }
        let moved = sim.advance();
        collect(&mut sim, &mut caches, &names);
        if !moved && left == 0 && caches.iter().all(|cache| cache.awaited.is_empty()) {
            break;
        }
        if !moved {
            // Those that wait for entries wait no longer.
            sim.sleep_ms(200);
        }
        assert!(sim.step < 100_000, "the run does not end");
    }
    sim.settle();
    collect(&mut sim, &mut caches, &names);
    let looker = sim.connect();
    for (at, name) in names.iter().enumerate() {
        let words: &[&str] = if at < KEYS { &["GET", name] } else { &["XREVRANGE", name, "+", "-", "COUNT", "1"] };
        sim.send(looker, words);
        sim.settle();
        let held = match sim.clients[looker].replies.pop_front().expect("a reply") {
            Value::Array(newest) if newest.is_empty() => "nothing".to_string(),
            Value::Array(newest) => newest[0].items()[0].to_string(),
            value => value.to_string(),
        };
        for (client, cache) in caches.iter().enumerate() {
            if let Some(kept) = cache.kept.get(&at) {
                assert_eq!(*kept, held, "client {client} keeps an old value of {name} for ever");
            }
        }
    }
    assert!(caches.iter().all(|cache| cache.awaited.is_empty()));
    sim.assert_quiet();
}

fn collect(sim: &mut Sim, caches: &mut [Cache], names: &[String]) {
    for (client, cache) in caches.iter_mut().enumerate() {
        while let Some(reply) = sim.clients[client].replies.pop_front() {
            cache.take(reply, names);
        }
    }
}

#[test]
fn nobody_keeps_an_old_value() {
    each_seed("caches", 5_000, |seed| run(crate::registers::setup(seed, None, false)));
}
