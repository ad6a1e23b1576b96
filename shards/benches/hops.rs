//! What a request costs the machine, by the number of shards: no socket, no kernel, no second thread.
//!
//! All shards run in this one thread and hand their parcels over directly, so what is measured is the work itself: to
//! parse, to route, to carry, to hold keys and let go of them, to put replies in order. A turn takes in the input of
//! every client and ends when all are answered.
//!
//! `cargo bench -p ringshard-shards --features testing --bench hops` prints ns per request, the medians of
//! interleaved rounds. For exact counts name one case, which then runs alone:
//! `valgrind --tool=callgrind --toggle-collect='*measured*' …/hops-… mget 16 2` (workload, depth, shards).

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use ringshard_shards::client::Peer;
use ringshard_shards::config::Config;
use ringshard_shards::message::Parcel;
use ringshard_shards::router::ShardId;
use ringshard_shards::shard::{Event, Input, Shard};
use ringshard_shards::shared::Shared;
use ringshard_shards::testing::{FakeHost, START_MS, request};

use self::random::Random;

mod random;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const CLIENTS: usize = 48;
const KEYS: u64 = 100_000;
const VALUE: [u8; 64] = [b'v'; 64];
const WORKLOADS: [&str; 4] = ["get", "set", "mget", "mset"];
const SHARDS: [usize; 4] = [1, 2, 4, 8];
const DEPTHS: [usize; 2] = [1, 16];

fn key(i: u64) -> Vec<u8> {
    format!("key:{i:012}").into_bytes()
}

fn command(workload: &str, random: &mut Random) -> Vec<u8> {
    let mut words = vec![workload.to_uppercase().into_bytes()];
    let keys = if workload.starts_with('m') { 10 } else { 1 };
    for _ in 0..keys {
        words.push(key(random.below(KEYS)));
        if workload.ends_with("set") {
            words.push(VALUE.to_vec());
        }
    }
    request(&words)
}

struct Server {
    shards: Vec<Shard>,
    /// By shard: its clients' places, and the pipelines that they send by turns.
    clients: Vec<Vec<u32>>,
    pipelines: Vec<Vec<u8>>,
    next: usize,
    /// Parcels travel in their boxes.
    #[allow(clippy::vec_box)]
    inboxes: Vec<Vec<Box<Parcel>>>,
    now_us: u64,
}

impl Server {
    fn new(shards: usize, workload: &str, depth: usize) -> Self {
        let shared = Arc::new(Shared::new(Config::default(), shards, [5, 7], START_MS, Arc::new(FakeHost::default())));
        let mut random = Random(shards as u64);
        let pipelines = (0..509).map(|_| (0..depth).flat_map(|_| command(workload, &mut random)).collect()).collect();
        let mut server = Server {
            shards: (0..shards).map(|i| Shard::new(i as ShardId, shared.clone(), i as u64)).collect(),
            clients: vec![Vec::new(); shards],
            pipelines,
            next: 0,
            inboxes: (0..shards).map(|_| Vec::new()).collect(),
            now_us: 1,
        };
        for client in 0..CLIENTS {
            let (shard, index) = (client % shards, (client / shards) as u32);
            let peer =
                Peer { address: "a".into(), local_address: "b".into(), fd: client as i32, unix: false, local: true };
            server.shards[shard].step(Event::Connected(index, peer));
            server.clients[shard].push(index);
        }
        for first in (0..KEYS).step_by(100) {
            let mut words = vec![b"MSET".to_vec()];
            (first..first + 100).for_each(|i| words.extend([key(i), VALUE.to_vec()]));
            let bytes = request(&words);
            server.shards[0].step(Event::Received(&[Input { client: server.clients[0][0], bytes: &bytes }]));
            server.carry();
        }
        server
    }

    /// One turn: every client sends its pipeline, and all is carried on until each is answered.
    fn turn(&mut self) -> usize {
        self.now_us += 100;
        for shard in 0..self.shards.len() {
            let inputs: Vec<Input<'_>> = (self.clients[shard].iter().enumerate())
                .map(|(k, client)| Input {
                    client: *client,
                    bytes: &self.pipelines[(self.next + k) % self.pipelines.len()],
                })
                .collect();
            self.next += inputs.len();
            self.shards[shard].set_time(START_MS, self.now_us);
            self.shards[shard].step(Event::Received(&inputs));
        }
        self.carry()
    }

    fn carry(&mut self) -> usize {
        let mut bytes = 0;
        loop {
            let mut moved = false;
            for shard in 0..self.shards.len() {
                let inboxes = &mut self.inboxes;
                self.shards[shard].outbox.take(&mut |to, parcel| inboxes[to as usize].push(parcel));
            }
            for shard in 0..self.shards.len() {
                for parcel in std::mem::take(&mut self.inboxes[shard]) {
                    moved = true;
                    self.shards[shard].step(Event::Parcel(parcel));
                }
                for client in std::mem::take(&mut self.shards[shard].flush) {
                    let output = self.shards[shard].take_output(client);
                    bytes += output.len();
                    self.shards[shard].step(Event::Sent(client, output.len()));
                    self.shards[shard].recycle(output);
                }
            }
            if !moved {
                return bytes;
            }
        }
    }
}

#[inline(never)]
fn measured(server: &mut Server, turns: usize) {
    for _ in 0..turns {
        assert!(black_box(server.turn()) > 0, "every turn is answered");
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if let [workload, depth, shards] = &args[..] {
        let depth = depth.parse().expect("a depth");
        let mut server = Server::new(shards.parse().expect("a number of shards"), workload, depth);
        let turns = 5 + 4000 / (CLIENTS * depth);
        // Lists and buffers find their sizes first.
        (0..4).for_each(|_| assert!(server.turn() > 0, "every turn is answered"));
        measured(&mut server, turns);
        return println!("{} requests", turns * CLIENTS * depth);
    }
    for workload in WORKLOADS {
        for depth in DEPTHS {
            let turns = 1 + 20_000 / (CLIENTS * depth);
            let mut servers: Vec<Server> = SHARDS.iter().map(|n| Server::new(*n, workload, depth)).collect();
            let mut ns: Vec<Vec<f64>> = vec![Vec::new(); SHARDS.len()];
            for round in 0..16 {
                for (server, ns) in servers.iter_mut().zip(&mut ns) {
                    let start = Instant::now();
                    measured(server, turns);
                    if round > 0 {
                        ns.push(start.elapsed().as_nanos() as f64 / (turns * CLIENTS * depth) as f64);
                    }
                }
            }
            let medians = ns.iter_mut().map(|ns| {
                ns.sort_by(f64::total_cmp);
                ns[ns.len() / 2]
            });
            let medians: Vec<f64> = medians.collect();
            let row = SHARDS.iter().zip(&medians).map(|(n, ns)| format!("{n}: {ns:.0} ({:.2}x)", ns / medians[0]));
            println!("{workload} depth {depth}: ns by shards {}", row.collect::<Vec<_>>().join("  "));
        }
    }
}
