//! Replicas: what one of them was sent, a snapshot and the stream behind it, makes the same keys, with every command in
//! it whole and in an order that nobody could tell from the one that clients saw.
//!
//! Each writer gives all of its keys the same number, one higher each time, by commands of every kind that several slices
//! take part in. Between any two things that the replica does, the keys of a writer are therefore equal, and grow. A
//! writer that has read another's number writes behind it.

use std::collections::HashMap;

use ringshard_shards::core::Rng;
use ringshard_shards::testing::{Conn, Value, World};

use crate::each_seed;
use crate::world::{Setup, Sim};

/// Keys of each writer, on different shards.
const KEYS: usize = 3;

/// One writer.
#[derive(Clone, Debug, Default)]
struct Writer {
    names: Vec<String>,
    asked: i64,
    /// Replies that its present command still has to come.
    awaits: usize,
    /// It reads another's key.
    reads: Option<usize>,
    /// What it has read since it last wrote: whose, and what.
    knows: Vec<(usize, i64)>,
    /// Its keys are gone.
    gone: bool,
}

fn number(value: &Value) -> i64 {
    match value {
        Value::Bulk(_) => value.text().parse().expect("a number"),
        _ => 0,
    }
}

fn words_of(command: &Value) -> Vec<String> {
    command.items().iter().map(Value::text).collect()
}

/// A replica that is being played.
struct Played {
    world: World,
    conn: Conn,
    writers: Vec<Writer>,
    last: Vec<i64>,
    /// By writer: his keys were gone when the snapshot was made, and nobody knows how far he had been.
    hidden: Vec<bool>,
    /// By writer and number: what he knew when he wrote it.
    knew: HashMap<(usize, i64), Vec<(usize, i64)>>,
}

impl Played {
    /// Looks at the keys between two things that the replica does.
    fn look(&mut self) {
        for at in 0..self.writers.len() {
            let line = format!("MGET {}", self.writers[at].names.join(" "));
            let values: Vec<i64> = self.world.run(self.conn, &line).items().iter().map(number).collect();
            assert!(values.iter().all(|value| *value == values[0]), "half of a command: {values:?}");
            if values[0] == 0 {
                continue;
            }
            self.hidden[at] = false;
            assert!(values[0] >= self.last[at], "writer {at} goes back from {} to {}", self.last[at], values[0]);
            self.last[at] = values[0];
        }
        for at in 0..self.writers.len() {
            for (other, seen) in self.knew.remove(&(at, self.last[at])).unwrap_or_default() {
                let hidden = self.hidden[other];
                assert!(
                    hidden || self.last[other] >= seen,
                    "writer {at} had read {seen} of {other}, who is at {}",
                    self.last[other]
                );
            }
        }
    }
}

/// Whether all that a replica is to be sent has come.
fn is_complete(sim: &Sim, client: usize) -> Option<(usize, usize)> {
    let bytes = &sim.clients[client].received;
    let start = bytes.iter().position(|byte| *byte == b'$')?;
    let end = start + bytes[start..].iter().position(|byte| *byte == b'\n')? + 1;
    let len: usize = std::str::from_utf8(&bytes[start + 1..end - 2]).ok()?.parse().ok()?;
    let feed = sim.shared.replication.feed();
    let stream =
        (feed.offset() - feed.replicas.iter().find(|replica| replica.client == client as u64 + 1)?.start) as usize;
    (bytes.len() == end + len + stream).then_some((end, end + len))
}

/// One run.
pub fn run(setup: Setup) {
    // The last client becomes the replica.
    let mut sim = Sim::new(Setup { clients: setup.clients + 1, ..setup });
    let replica = setup.clients;
    sim.clients[replica].raw = true;
    let all = sim.keys(KEYS * setup.clients);
    let mut writers: Vec<Writer> =
        all.chunks(KEYS).map(|names| Writer { names: names.to_vec(), ..Writer::default() }).collect();
    let mut knew = HashMap::new();
    let steps = 60 + sim.rng.below(900);
    let begins = sim.rng.below(steps / 2);
    for step in 0..steps {
        if step == begins {
            sim.send(replica, &["SYNC"]);
        }
        if sim.rng.below(25) == 0 {
            sim.sleep_ms(100);
        }
        let client = sim.rng.below(setup.clients as u64) as usize;
        if writers[client].awaits == 0 {
            act(&mut sim, client, &mut writers, &mut knew);
        }
        sim.advance();
        take_replies(&mut sim, &mut writers);
    }
    let mut places = None;
    for _ in 0..100 {
        sim.settle();
        take_replies(&mut sim, &mut writers);
        places = is_complete(&sim, replica);
        if places.is_some() {
            break;
        }
        sim.sleep_ms(100);
    }
    let (start, end) = places.expect("the replica is sent everything");
    sim.assert_quiet();
    let bytes = std::mem::take(&mut sim.clients[replica].received);
    let mut world = World::new(1);
    let conn = world.connect();
    world.disk().file = Some(bytes[start..end].to_vec());
    assert_eq!(world.run(conn, "DEBUG RELOAD NOSAVE").to_string(), "OK");
    let (last, hidden) = (vec![0; writers.len()], vec![true; writers.len()]);
    let mut played = Played { world, conn, writers, last, hidden, knew };
    // What is in the snapshot was known or not; it is one state.
    played.look();
    let mut inside = false;
    for command in Value::parse_all(&bytes[end..]) {
        let words = words_of(&command);
        inside = match words[0].as_str() {
            "MULTI" => true,
            "EXEC" => false,
            _ => inside,
        };
        if words[0] == "REPLCONF" {
            continue;
        }
        let reply = played.world.call(played.conn, &words);
        let said = String::from_utf8_lossy(&reply);
        assert!(!said.starts_with('-') && !said.contains("\r\n-"), "{words:?}: {said}");
        if !inside {
            played.look();
        }
    }
    assert!(!inside, "a transaction has no end");
    sim.send(0, &["DEBUG", "DIGEST"]);
    sim.settle();
    let here = sim.clients[0].replies.pop_front().expect("a reply").to_string();
    let there = played.world.run(played.conn, "DEBUG DIGEST").to_string();
    assert_eq!(here, there);
}

/// A writer does something.
fn act(sim: &mut Sim, client: usize, writers: &mut [Writer], knew: &mut HashMap<(usize, i64), Vec<(usize, i64)>>) {
    let others = writers.len() as u64;
    let (kind, other) = (sim.rng.below(11), sim.rng.below(others) as usize);
    let read = writers[other].names[sim.rng.below(KEYS as u64) as usize].clone();
    let writer = &mut writers[client];
    let (names, n) = (writer.names.clone(), (writer.asked + 1).to_string());
    let pairs = names.iter().flat_map(|name| [name.clone(), n.clone()]);
    let command = |name: &str| std::iter::once(name.to_string());
    (writer.awaits, writer.reads) = (1, None);
    match kind {
        0 | 1 => {
            writer.reads = Some(other);
            return sim.send(client, &["GET", &read]);
        }
        // Single keys, and what is no write.
        2 => {
            let count = format!("count{}", sim.rng.below(20));
            return sim.send(client, &["INCR", &count]);
        }
        3 => return sim.send(client, &["PUBLISH", "channel", &n]),
        4 => {
            writer.gone = true;
            return sim.send(client, &command("DEL").chain(names).collect::<Vec<_>>());
        }
        // A list goes from one key to another, wherever they are.
        5 => {
            let (from, to) = (sim.rng.below(5), sim.rng.below(5));
            writer.awaits = 2;
            sim.send(client, &["RPUSH", &format!("list{from}"), &n]);
            return sim.send(client, &["LMOVE", &format!("list{from}"), &format!("list{to}"), "LEFT", "RIGHT"]);
        }
        6 if writer.gone => sim.send(client, &command("MSETNX").chain(pairs).collect::<Vec<_>>()),
        6 | 7 => sim.send(client, &command("MSET").chain(pairs).collect::<Vec<_>>()),
        8 => {
            let code = "for i = 1, #KEYS do redis.call('SET', KEYS[i], ARGV[1]) end return 'OK'";
            let head = command("EVAL").chain([code.to_string(), KEYS.to_string()]);
            sim.send(client, &head.chain(names).chain([n]).collect::<Vec<_>>());
        }
        _ => {
            sim.send(client, &["MULTI"]);
            names.iter().for_each(|name| sim.send(client, &["SET", name, &n]));
            sim.send(client, &["EXEC"]);
            writer.awaits = KEYS + 2;
        }
    }
    let writer = &mut writers[client];
    (writer.gone, writer.asked) = (false, writer.asked + 1);
    knew.insert((client, writer.asked), std::mem::take(&mut writer.knows));
}

fn take_replies(sim: &mut Sim, writers: &mut [Writer]) {
    for (writer, client) in writers.iter_mut().zip(&mut sim.clients) {
        while let Some(reply) = client.replies.pop_front() {
            assert!(!matches!(reply, Value::Error(_)), "{reply}");
            writer.awaits -= 1;
            if let Some(other) = writer.reads
                && number(&reply) > 0
            {
                writer.knows.push((other, number(&reply)));
            }
        }
    }
}

/// What a seed runs with.
pub fn setup(seed: u64) -> Setup {
    let mut rng = Rng::new(seed ^ 0x5e11);
    let shards = [1, 2, 3, 4, 8][rng.below(5) as usize];
    let clients = 1 + rng.below(5) as usize;
    let logged = rng.below(3) == 0;
    Setup {
        seed,
        shards,
        clients,
        strict: rng.below(4) == 0,
        fault: None,
        unordered: false,
        passes_mail: false,
        starved: false,
        logged,
    }
}

#[test]
fn a_replica_sees_whole_commands_in_one_order() {
    each_seed("replica", 1_500, |seed| run(setup(seed)));
}
