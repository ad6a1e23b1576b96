//! Transfers between accounts on any shards by `WATCH` and `EXEC`: whoever adds all accounts up finds the same sum.

use ringshard_shards::testing::Value;

use crate::each_seed;
use crate::world::{Setup, Sim};

const ACCOUNTS: usize = 4;
const EACH: i64 = 100;

/// Where a client stands in its transfer or its look.
#[derive(Clone, Debug)]
enum Doing {
    Idle,
    /// Waits for `WATCH` and both balances.
    Reading(usize, usize, Vec<i64>),
    /// Waits for `MULTI`, two `QUEUED`, and `EXEC`.
    Writing(usize),
    Looking,
}

fn integer(value: &Value) -> i64 {
    value.text().parse().expect("a balance")
}

/// One run.
pub fn run(setup: Setup) {
    let mut sim = Sim::new(setup);
    let names = sim.keys(ACCOUNTS);
    let opener = sim.connect();
    let pairs: Vec<String> = names.iter().flat_map(|name| [name.clone(), EACH.to_string()]).collect();
    sim.send(opener, &[vec!["MSET".to_string()], pairs].concat());
    sim.settle();
    let mut doing = vec![Doing::Idle; setup.clients];
    let (mut left, mut moved) = (40, 0);
    let look: Vec<String> = [vec!["MGET".to_string()], names.clone()].concat();
    loop {
        let client = sim.rng.below(setup.clients as u64) as usize;
        if left > 0 && sim.clients[client].open && matches!(doing[client], Doing::Idle) {
            left -= 1;
            if sim.rng.below(3) == 0 {
                sim.send(client, &look);
                doing[client] = Doing::Looking;
            } else {
                let from = sim.rng.below(ACCOUNTS as u64) as usize;
                let to = (from + 1 + sim.rng.below(ACCOUNTS as u64 - 1) as usize) % ACCOUNTS;
                sim.send(client, &["WATCH", &names[from], &names[to]]);
                sim.send(client, &["GET", &names[from]]);
                sim.send(client, &["GET", &names[to]]);
                doing[client] = Doing::Reading(from, to, Vec::new());
            }
        }
        let going = sim.advance();
        for (client, doing) in doing.iter_mut().enumerate() {
            while let Some(reply) = sim.clients[client].replies.pop_front() {
                let next = match std::mem::replace(doing, Doing::Idle) {
                    Doing::Looking => {
                        let sum: i64 = reply.items().iter().map(integer).sum();
                        assert_eq!(sum, ACCOUNTS as i64 * EACH, "money came or went: {reply}");
                        Doing::Idle
                    }
                    Doing::Reading(from, to, seen) if reply == Value::Simple("OK".into()) => {
                        Doing::Reading(from, to, seen)
                    }
                    Doing::Reading(from, to, mut seen) => {
                        seen.push(integer(&reply));
                        if let [a, b] = seen[..] {
                            let amount = 1 + sim.rng.below(20) as i64;
                            sim.send(client, &["MULTI"]);
                            sim.send(client, &["SET", &names[from], &(a - amount).to_string()]);
                            sim.send(client, &["SET", &names[to], &(b + amount).to_string()]);
                            sim.send(client, &["EXEC"]);
                            Doing::Writing(4)
                        } else {
                            Doing::Reading(from, to, seen)
                        }
                    }
                    Doing::Writing(1) => {
                        moved += !matches!(reply, Value::NullArray | Value::Null) as usize;
                        Doing::Idle
                    }
                    Doing::Writing(n) => Doing::Writing(n - 1),
                    Doing::Idle => panic!("a reply that nobody asked for: {reply}"),
                };
                *doing = next;
            }
        }
        if !going && left == 0 {
            break;
        }
        assert!(sim.step < 100_000, "the run does not end: {doing:?}");
    }
    assert!(doing.iter().all(|doing| matches!(doing, Doing::Idle)), "clients wait for ever: {doing:?}");
    sim.clients[opener].replies.clear();
    sim.send(opener, &look);
    sim.settle();
    let last = sim.clients[opener].replies.pop_front().expect("a reply");
    assert_eq!(last.items().iter().map(integer).sum::<i64>(), ACCOUNTS as i64 * EACH, "at the end: {last}");
    assert!(moved > 0 || setup.clients == 0, "not one transfer went through");
    for client in 0..sim.clients.len() {
        sim.vanish(client);
    }
    sim.settle();
    sim.assert_quiet();
}

#[test]
fn the_sum_is_kept() {
    each_seed("bank", 2_000, |seed| run(crate::registers::setup(seed, None, false)));
}
