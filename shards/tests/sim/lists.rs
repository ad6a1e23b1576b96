//! Lists that clients wait for, on one shard and across: every element is popped once, nobody waits while there is
//! something for them, moves lose nothing, and whoever goes away leaves nothing behind.

use std::collections::BTreeMap;

use ringshard_shards::testing::Value;

use crate::each_seed;
use crate::world::{Setup, Sim};

const KEYS: usize = 4;

/// One run.
pub fn run(setup: Setup) {
    let mut sim = Sim::new(Setup { clients: setup.clients + 2, ..setup });
    let names = sim.keys(KEYS);
    let clients = sim.clients.len();
    let (mut left, mut pushed) = (30 + sim.rng.below(30), 0u64);
    // By client: what it waits for: the words it sent.
    let mut asked: Vec<Option<Vec<String>>> = vec![None; clients];
    let mut popped: BTreeMap<String, usize> = BTreeMap::new();
    // Pushes that may not have been made, and pops that may have been, for clients that are gone.
    let mut lost = 0;
    loop {
        let client = sim.rng.below(clients as u64) as usize;
        let sends = sim.clients[client].open && !sim.clients[client].ended;
        if left > 0 && sends && asked[client].is_none() {
            left -= 1;
            let key = |sim: &mut Sim| names[sim.rng.below(KEYS as u64) as usize].clone();
            let words: Vec<String> = match sim.rng.below(10) {
                0..4 => {
                    pushed += 1;
                    let side = ["LPUSH", "RPUSH"][sim.rng.below(2) as usize];
                    vec![side.into(), key(&mut sim), format!("e{pushed}")]
                }
                4..7 => {
                    let mut words: Vec<String> = vec![["BLPOP", "BRPOP"][sim.rng.below(2) as usize].into()];
                    (0..1 + sim.rng.below(3)).for_each(|_| words.push(key(&mut sim)));
                    words.push("0".into());
                    words
                }
                7 => vec!["BLMOVE".into(), key(&mut sim), key(&mut sim), "LEFT".into(), "RIGHT".into(), "0".into()],
                8 => vec!["LPOP".into(), key(&mut sim)],
                _ => vec!["BLMPOP".into(), "0.5".into(), "2".into(), key(&mut sim), key(&mut sim), "LEFT".into()],
            };
            sim.send(client, &words);
            asked[client] = Some(words);
        } else if sim.rng.below(150) == 0 {
            lost += (asked[client].is_some() && sim.clients[client].open) as usize;
            sim.vanish(client);
            asked[client] = None;
        } else if sim.rng.below(300) == 0 {
            // If it waits for an element it goes, else it is answered first.
            sim.end_input(client);
        }
        let going = sim.advance();
        collect(&mut sim, &mut asked, &mut popped);
        lost += forget_closed(&sim, &mut asked);
        if !going && (left == 0 || sim.clients[..clients].iter().all(|client| !client.open || client.ended)) {
            break;
        }
        if !going {
            // All wait for elements, or for time to pass.
            sim.sleep_ms(200);
            collect(&mut sim, &mut asked, &mut popped);
            let pusher = sim.connect();
            asked.push(None);
            pushed += 1;
            let key = names[sim.rng.below(KEYS as u64) as usize].clone();
            let words = vec!["RPUSH".to_string(), key, format!("e{pushed}")];
            sim.send(pusher, &words);
            asked[pusher] = Some(words);
        }
        assert!(sim.step < 100_000, "the run does not end: {left} left, {asked:?}, {}", sim.shards[0].unrest());
    }
    sim.settle();
    collect(&mut sim, &mut asked, &mut popped);
    lost += forget_closed(&sim, &mut asked);
    // Nobody may wait for a key that has something for them.
    let looker = sim.connect();
    asked.push(None);
    let mut remaining = Vec::new();
    for name in &names {
        sim.send(looker, &["LRANGE", name, "0", "-1"]);
        sim.settle();
        let list = sim.clients[looker].replies.pop_front().expect("a reply").items();
        let waits = |words: &Vec<String>| match words[0].as_str() {
            "BLPOP" | "BRPOP" => words[1..words.len() - 1].contains(name),
            "BLMOVE" => words[1] == *name,
            "BLMPOP" => words[3..5].contains(name),
            _ => false,
        };
        let waiting = asked.iter().flatten().find(|words| waits(words));
        assert!(list.is_empty() || waiting.is_none(), "{waiting:?} waits, and {name} holds {list:?}");
        remaining.extend(list.iter().map(Value::text));
    }
    for element in remaining {
        *popped.entry(element).or_default() += 1;
    }
    for (element, times) in &popped {
        assert_eq!(*times, 1, "{element} was popped {times} times");
    }
    let missing = pushed as usize - popped.len().min(pushed as usize);
    assert!(missing <= lost, "{missing} elements are gone, and only {lost} clients went");
    for client in 0..sim.clients.len() {
        sim.vanish(client);
    }
    sim.settle();
    sim.assert_quiet();
}

/// Forgets what clients have asked for that are gone; says of how many.
fn forget_closed(sim: &Sim, asked: &mut [Option<Vec<String>>]) -> usize {
    let closed = asked.iter_mut().enumerate().filter(|(client, _)| !sim.clients[*client].open);
    closed.filter_map(|(_, asked)| asked.take()).count()
}

fn collect(sim: &mut Sim, asked: &mut [Option<Vec<String>>], popped: &mut BTreeMap<String, usize>) {
    for (client, asked) in asked.iter_mut().enumerate() {
        while let Some(reply) = sim.clients[client].replies.pop_front() {
            let Some(words) = asked.take() else { panic!("client {client} got {reply}, which it did not ask for") };
            let got = match words[0].as_str() {
                "BLPOP" | "BRPOP" => vec![reply.items()[1].text()],
                "LPOP" => (reply != Value::Null).then(|| reply.text()).into_iter().collect(),
                "BLMPOP" => match reply {
                    Value::Null | Value::NullArray => vec![],
                    reply => reply.items()[1].items().iter().map(Value::text).collect(),
                },
                _ => vec![],
            };
            for element in got {
                *popped.entry(element).or_default() += 1;
            }
        }
    }
}

#[test]
fn every_element_is_popped_once() {
    each_seed("lists", 3_000, |seed| run(crate::registers::setup(seed, None, false)));
}
