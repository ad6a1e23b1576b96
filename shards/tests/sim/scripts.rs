//! Scripts that touch keys which they did not declare: each is done once and whole, wherever its keys are, however many
//! find out at the same time that they have to begin anew with all slices.
//!
//! A script adds one to a key that it declares and to one that it does not. Where the first runs happen to stay on one
//! shard, the script is taken to touch nothing else, and those that follow are sent back.

use ringshard_shards::core::Rng;
use ringshard_shards::testing::Value;

use crate::each_seed;
use crate::world::{Setup, Sim};

const CODE: &str = "redis.call('INCR', KEYS[1] .. ':n') return redis.call('INCR', KEYS[1])";

/// One run.
pub fn run(setup: Setup) {
    let clients = setup.clients;
    let mut sim = Sim::new(setup);
    let (mut asked, mut awaits) = (0, vec![0usize; clients]);
    let steps = 60 + sim.rng.below(400);
    for _ in 0..steps {
        let client = sim.rng.below(clients as u64) as usize;
        let key = format!("key{}", sim.rng.below(40));
        if awaits[client] < 3 {
            awaits[client] += 1;
            match sim.rng.below(8) {
                0 => sim.send(client, &["GET", &key]),
                1 => sim.send(client, &["MGET", &key, "key1", "key2"]),
                _ => {
                    asked += 1;
                    sim.send(client, &["EVAL", CODE, "1", &key]);
                }
            }
        }
        if sim.rng.below(3) == 0 {
            sim.advance();
        }
        take_replies(&mut sim, &mut awaits);
    }
    sim.settle();
    take_replies(&mut sim, &mut awaits);
    assert!(awaits.iter().all(|awaits| *awaits == 0), "somebody waits for ever: {awaits:?}");
    sim.assert_quiet();
    let mut sum = [0, 0];
    for n in 0..40 {
        for (sum, suffix) in sum.iter_mut().zip(["", ":n"]) {
            sim.send(0, &["GET", &format!("key{n}{suffix}")]);
            sim.settle();
            if let Some(Value::Bulk(_)) = sim.clients[0].replies.front() {
                *sum += sim.clients[0].replies[0].text().parse::<i64>().expect("a number");
            }
            sim.clients[0].replies.clear();
        }
    }
    assert_eq!(sum, [asked, asked]);
}

fn take_replies(sim: &mut Sim, awaits: &mut [usize]) {
    for (awaits, client) in awaits.iter_mut().zip(&mut sim.clients) {
        for reply in client.replies.drain(..) {
            assert!(!matches!(reply, Value::Error(_)), "{reply}");
            *awaits -= 1;
        }
    }
}

/// What a seed runs with.
pub fn setup(seed: u64) -> Setup {
    let mut rng = Rng::new(seed ^ 0x5c41);
    let shards = [2, 2, 3, 4][rng.below(4) as usize];
    let clients = 2 + rng.below(24) as usize;
    Setup {
        seed,
        shards,
        clients,
        strict: rng.below(4) == 0,
        fault: None,
        unordered: false,
        passes_mail: false,
        starved: false,
        logged: false,
    }
}

#[test]
fn each_script_is_done_once_and_whole() {
    each_seed("scripts", 2_000, |seed| run(setup(seed)));
}
