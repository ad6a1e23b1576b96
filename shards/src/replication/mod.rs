//! Replication, as the master does it: replicas of this server, which are Redis, Valkey or whoever speaks as they do.
//!
//! - [`stream`]: each slice notes what its writes did;
//! - [`feed`]: the shards hand that over, and it becomes one stream, whose end is the backlog;
//! - [`replica`]: who follows it, and how far he is;
//! - [`crate::shard::replicas`]: how a shard hands over, and what it does for replicas at home with it.
//!
//! **A full sync** is a cut over all slices ([`crate::snapshot::begin_sync`]), as of a snapshot or of a rewrite of the
//! log: what was before goes into the snapshot, what comes after into the stream from this position on. When the snapshot
//! is whole its file is sent, and behind it the stream.
//!
//! **Before the first cut** the slices' streams are turned on with all of them in hand, and the cut waits until every
//! shard has ended a turn since it learned of that: the parts of a split command whose coordinator did not know of
//! replicas are then before the cut, all of them, and those behind it carry their number.
//!
//! **What is guaranteed.** The stream has one order. Each key's writes are in it in the order in which they were made;
//! a command or transaction is in it whole, as one command or between `MULTI` and `EXEC`, whatever slices it took; and
//! what anyone did after he had heard of a write is behind that write.
//!
//! Counterpart: `replication.c`, the parts of a master.

pub mod feed;
pub mod replica;
pub mod stream;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Mutex, MutexGuard};

use crate::config::{ClientClass, Config};
use crate::core::Rng;
use crate::router::ShardId;
use crate::shared::Lone;
use feed::{Bounds, Feed};
use replica::State;

/// What all shards share of replication.
#[derive(Debug)]
pub struct Replication {
    feed: Mutex<Feed>,
    /// A replica waits for a snapshot to begin.
    pub wanted: AtomicBool,
    /// That was seen to, and the transaction is under way.
    pub starting: AtomicBool,
    /// By shard: it knows that effects are wanted, and has ended a turn since.
    pub aware: Vec<Lone<AtomicBool>>,
    /// By shard: clients there wait for replicas.
    pub waits: Vec<Lone<AtomicBool>>,
    /// Replicas that were heard from lately, for `min-replicas-to-write`.
    pub good: AtomicUsize,
    /// Full syncs, partial ones, and those that could not be partial.
    pub syncs: [AtomicU64; 3],
}

impl Replication {
    /// No replicas.
    pub fn new(shards: usize, id: String) -> Self {
        let flags = || (0..shards).map(|_| Lone::default()).collect();
        Replication {
            feed: Mutex::new(Feed::new(shards, id)),
            wanted: AtomicBool::new(false),
            starting: AtomicBool::new(false),
            aware: flags(),
            waits: flags(),
            good: AtomicUsize::new(0),
            syncs: Default::default(),
        }
    }

    /// The stream and its replicas.
    pub fn feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().expect("no holder panics")
    }

    /// Whether `min-replicas-to-write` asks for more than there are.
    pub fn too_few(&self, config: &Config) -> bool {
        is_demanding(config) && self.good.load(Relaxed) < config.min_replicas_to_write as usize
    }

    /// Counts anew which replicas were heard from lately.
    pub fn count_good(&self, feed: &Feed, config: &Config, now_ms: i64) {
        let most = i64::from(config.min_replicas_max_lag);
        let good = feed.count(|replica| now_ms / 1000 - replica.heard_ms / 1000 <= most);
        self.good.store(good, Relaxed);
    }

    /// The driver has ended the snapshot for replicas: it is whole, so many bytes, or came to nothing. Says which shards
    /// are to look, and whether anyone still wants it.
    pub fn sync_ended(&self, sync: u64, bytes: Option<u64>) -> (Vec<ShardId>, bool) {
        let mut feed = self.feed();
        for replica in feed.replicas.iter_mut().filter(|replica| replica.sync == sync) {
            if replica.state == State::WaitEnd {
                replica.state = bytes.map_or(State::Failed, State::SendBulk);
            }
        }
        (feed.replicas.iter().map(|replica| replica.home).collect(), feed.needs(sync))
    }
}

/// Whether writes need replicas.
pub fn is_demanding(config: &Config) -> bool {
    config.min_replicas_to_write > 0 && config.min_replicas_max_lag > 0
}

/// What the configuration bounds.
pub fn bounds(config: &Config) -> Bounds {
    let hard = config.client_output_buffer_limit[ClientClass::Replica as usize].hard_bytes;
    Bounds { backlog: config.repl_backlog_size, replica: if hard == 0 { u64::MAX } else { hard } }
}

/// A name for a history: 40 hexadecimal digits.
pub fn new_id(rng: &mut Rng) -> String {
    (0..40).map(|_| char::from_digit((rng.next_u64() >> 60) as u32, 16).unwrap_or('0')).collect()
}
