//! What all shards share: constants, the configuration, and the few logs that belong to the server as a whole.
//!
//! Nothing here is touched on the path of a plain command. The configuration is one immutable value that is replaced
//! as a whole; a shard notices by a counter that it compares once a turn, after it has taken in what arrived, so that
//! a request sent after `CONFIG SET` was answered always sees the new setting.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, RwLock};

use crate::acl::{AclLog, Users};
use crate::aof::Aof;
use crate::commands::migrate::{Migrated, Migration};
use crate::commands::{CommandTable, table};
use crate::config::Config;
use crate::dict::Hasher;
use crate::latency::LatencyMonitor;
use crate::propagate::Piece;
use crate::pubsub::Registry;
use crate::rdb::file::Source;
use crate::replication::Replication;
use crate::router::ShardId;
use crate::slowlog::SlowLog;
use crate::snapshot::{Persistence, SnapshotFile};

/// What the process around the machine can tell it.
pub trait Host: Send + Sync {
    /// A quick monotonic counter for durations; see [`Host::ticks_per_us`].
    fn ticks(&self) -> fn() -> u64;
    /// How many ticks make a µs.
    fn ticks_per_us(&self) -> f64;
    /// Bytes allocated by the whole process, cheap enough to be asked for before every write.
    fn used_memory(&self) -> usize;
    /// Facts for `INFO` and `MEMORY STATS`.
    fn facts(&self) -> HostFacts;
    /// Runs work that no client waits for, where it holds up none.
    fn run_later(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }
    /// Fills `out` with bytes that nobody can guess (`ACL GENPASS`).
    fn secret(&self, out: &mut [u8]);
    /// Asks the allocator to return unused memory (`MEMORY PURGE`).
    fn purge(&self);
    /// Blocks the calling thread for so many µs (`DEBUG SLEEP`), within the command, so that its duration is seen.
    /// Says whether it did; if not, [`crate::shard::Effect::Sleep`] asks the driver to do it after the command.
    fn sleep(&self, us: u64) -> bool {
        let _ = us;
        false
    }
    /// Puts changed directives in force that live outside the machine and may fail; on failure all is as before.
    ///
    /// # Errors
    /// Which directive, and why.
    fn apply(&self, config: &Config, changed: &[&'static str]) -> Result<(), (&'static str, String)> {
        let _ = (config, changed);
        Ok(())
    }
    /// A new file for a snapshot, under another name until it is whole; written in the background, or while everyone
    /// waits.
    ///
    /// # Errors
    /// What to say in the log.
    fn create_snapshot(&self, config: &Config, in_background: bool) -> Result<Box<dyn SnapshotFile>, String> {
        let _ = (config, in_background);
        Err("there is nowhere to write to".into())
    }
    /// The last snapshot's file; `None` when there is none.
    ///
    /// # Errors
    /// What to say in the log.
    fn open_snapshot(&self, config: &Config) -> Result<Option<Box<dyn Source>>, String> {
        let _ = config;
        Ok(None)
    }
    /// Makes files for the logs of a new generation, one a shard. With `anew` there was no log, and the files count
    /// only when the base file that is being written is whole.
    ///
    /// # Errors
    /// What to say in the log.
    fn begin_generation(&self, config: &Config, generation: u64, anew: bool) -> Result<(), String> {
        let _ = (config, generation, anew);
        Err("there is nowhere to write to".into())
    }
    /// A new base file, on which the logs of a generation build, under another name until it is whole.
    ///
    /// # Errors
    /// What to say in the log.
    fn create_base(&self, config: &Config, generation: u64) -> Result<Box<dyn SnapshotFile>, String> {
        let _ = (config, generation);
        Err("there is nowhere to write to".into())
    }
    /// A new file for a snapshot that replicas are sent, by its number. It has no name, and is kept until it is dropped.
    ///
    /// # Errors
    /// What to say in the log.
    fn create_sync(&self, config: &Config, sync: u64) -> Result<Box<dyn SnapshotFile>, String> {
        let _ = (config, sync);
        Err("there is nowhere to write to".into())
    }
    /// The length of such a file, once it is whole.
    fn sync_bytes(&self, sync: u64) -> Option<u64> {
        let _ = sync;
        None
    }
    /// Adds up to `most` bytes of it to `out`, from `offset` on.
    ///
    /// # Errors
    /// What to say in the log.
    fn read_sync(&self, sync: u64, offset: u64, most: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let _ = (sync, offset, most, out);
        Err("there is nothing to read".into())
    }
    /// Nobody needs it any more.
    fn drop_sync(&self, sync: u64) {
        let _ = sync;
    }
    /// Has a shard's loop turn soon.
    fn wake(&self, shard: ShardId) {
        let _ = shard;
    }
    /// Takes what logs have to write; for what cannot wait for the end of the turn.
    fn append(&self, pieces: Vec<Piece>) {
        let _ = pieces;
    }
    /// Waits until all that was handed over is written; with `sync`, until it is on disk.
    ///
    /// # Errors
    /// What to say in the log.
    fn flush_logs(&self, sync: bool) -> Result<(), String> {
        let _ = sync;
        Ok(())
    }
    /// Nothing more will be written: closes the logs' files.
    fn close_logs(&self) {}
    /// Hands out all that the log's files hold, in order.
    ///
    /// # Errors
    /// What to say in the log.
    fn read_logs(
        &self,
        config: &Config,
        take: &mut dyn FnMut(LogPart<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let _ = (config, take);
        Err("there is nothing to read".into())
    }
    /// Takes keys to another server; blocks until it has answered, or has not in time.
    fn migrate(&self, migration: &Migration) -> Migrated {
        let _ = migration;
        Migrated { done: Vec::new(), result: Err("IOERR error or timeout connecting to the client".into()) }
    }
    /// Everything the allocator says of itself (`MEMORY MALLOC-STATS`), if it can.
    fn malloc_stats(&self) -> Option<String> {
        None
    }
}

/// A part of what the log's files hold.
pub enum LogPart<'a> {
    /// A snapshot.
    Snapshot(&'a mut dyn Source),
    /// A file of commands begins: whose log, and of how many.
    Begin(ShardId, usize),
    /// A piece of it.
    Bytes(&'a [u8]),
}

/// Facts about the process and its machine.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    /// Build and machine, as `INFO server` names them: (field, value).
    pub server: Vec<(&'static str, String)>,
    /// Resident bytes.
    pub rss: usize,
    /// Bytes of physical memory.
    pub system_memory: u64,
    /// The allocator's own view.
    pub allocator: AllocatorFacts,
    /// CPU seconds: system, user, and of children.
    pub cpu: [f64; 4],
    /// CPU seconds of the calling thread: system, user.
    pub thread_cpu: [f64; 2],
    /// The event loop in use.
    pub event_loop: &'static str,
    /// Connections kept for the next `MIGRATE`.
    pub migrate_cached_sockets: usize,
    /// System calls that loops made to wait, over all shards.
    pub eventloop_cycles: u64,
    /// µs that loops worked, over all shards.
    pub eventloop_duration_us: u64,
    /// µs of these for time events.
    pub eventloop_cron_us: u64,
    /// µs of the longest turn.
    pub eventloop_longest_us: u64,
    /// The most commands of one turn.
    pub eventloop_most_commands: u64,
}

/// What jemalloc reports.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllocatorFacts {
    /// Bytes in use.
    pub allocated: usize,
    /// Bytes in active pages.
    pub active: usize,
    /// Bytes resident.
    pub resident: usize,
    /// Bytes held back.
    pub retained: usize,
}

/// A counter on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Lone<T>(pub T);

/// See the module's page.
pub struct Shared {
    /// Number of shards.
    pub shards: usize,
    /// The key hash.
    pub hasher: Hasher,
    /// The process.
    pub host: Arc<dyn Host>,
    /// The commands as clients call them.
    pub table: &'static CommandTable,
    config: RwLock<Arc<Config>>,
    config_epoch: AtomicU64,
    users: RwLock<Arc<Users>>,
    /// What users were refused.
    pub acl_log: Mutex<AclLog>,
    next_client_id: AtomicU64,
    /// Clients of each shard.
    pub clients: Vec<Lone<AtomicUsize>>,
    /// Connections on their way to each shard.
    pub arriving: Vec<Lone<AtomicUsize>>,
    /// Connections refused because there were too many.
    pub rejected_clients: AtomicU64,
    /// Keys of each shard, as of its last time event.
    pub keys: Vec<Lone<AtomicUsize>>,
    /// Who subscribes to what, and where.
    pub registry: Registry,
    /// Clients of each shard that monitor.
    pub monitors: Vec<Lone<AtomicUsize>>,
    /// Bytes that the clients of each shard hold, and what the largest of them does, while `maxmemory-clients` is set.
    pub client_memory: Vec<Lone<ClientMemory>>,
    /// Bytes of each shard's spare parcels that go before keys do, as of its last turn: no key goes for them.
    pub spare_parcels: Vec<Lone<AtomicUsize>>,
    /// Client-side caching.
    pub tracking: crate::tracking::TrackingState,
    /// The slow log.
    pub slowlog: Mutex<SlowLog>,
    /// Latency events.
    pub latency: Mutex<LatencyMonitor>,
    /// Values that wait to be freed out of the way.
    pub lazyfree_pending: AtomicUsize,
    /// Values that were freed out of the way.
    pub lazyfreed_objects: AtomicU64,
    /// Highest memory use seen.
    pub peak_memory: AtomicUsize,
    /// Memory in use at the start, before any key.
    pub startup_memory: AtomicUsize,
    /// Unix time of the start in ms.
    pub start_ms: i64,
    /// 40 hexadecimal digits that name this run.
    pub run_id: String,
    /// Replicas.
    pub replication: Replication,
    /// Path of the configuration file, or empty.
    pub config_file: String,
    /// `CLIENT PAUSE`: until when, Unix ms, and whether only writes.
    pub pause: Pause,
    /// The end that a signal has asked for, while time events are paused.
    pub shutdown_asked: Mutex<Option<crate::shard::Shutdown>>,
    /// Set by the first shard that shuts the server down.
    pub shutting_down: AtomicBool,
    /// The process's number.
    pub process_id: u32,
    /// Path of the executable.
    pub executable: String,
    /// What `DEBUG` sets.
    pub debug: DebugSettings,
    /// Snapshots and loading.
    pub persistence: Persistence,
    /// The log.
    pub aof: Aof,
    /// Scripts and libraries.
    pub scripts: crate::scripting::store::Store,
}

/// What `DEBUG` sets for features that look at it.
#[derive(Debug)]
pub struct DebugSettings {
    /// From how many bytes on a list's element stands alone; 0 leaves that to `list-max-listpack-size`.
    pub quicklist_packed_threshold: AtomicU64,
    /// Scripts may call commands that are closed to them.
    pub disable_deny_scripts: AtomicBool,
    /// Dumped payloads pass with a wrong checksum.
    pub skip_checksum_validation: AtomicBool,
    /// How many µs longer each write of the log takes.
    pub aof_flush_sleep_us: AtomicU64,
}

impl Default for DebugSettings {
    fn default() -> Self {
        DebugSettings {
            quicklist_packed_threshold: AtomicU64::new(0),
            disable_deny_scripts: AtomicBool::new(false),
            skip_checksum_validation: AtomicBool::new(false),
            aof_flush_sleep_us: AtomicU64::new(0),
        }
    }
}

/// What a shard's clients hold.
#[derive(Debug, Default)]
pub struct ClientMemory {
    /// All of them, in bytes.
    pub total: AtomicUsize,
    /// The largest that may be evicted; at least so much.
    pub largest: AtomicUsize,
    /// Replies that this shard has made for clients at home on others and that have not come there, in bytes: they are in
    /// memory, and soon a client's.
    pub under_way: AtomicUsize,
}

/// The state of `CLIENT PAUSE`.
#[derive(Debug, Default)]
pub struct Pause {
    /// Unix ms at which everything goes on; 0 when nothing is paused.
    pub all_until: AtomicU64,
    /// The same for writes.
    pub write_until: AtomicU64,
}

impl Shared {
    /// The shared part of a server with this configuration.
    pub fn new(config: Config, shards: usize, seed: [u64; 2], start_ms: i64, host: Arc<dyn Host>) -> Self {
        let hasher = Hasher::new(seed);
        let mut rng = crate::core::Rng::new(seed[0] ^ seed[1].rotate_left(32));
        let run_id: String =
            (0..40).map(|_| char::from_digit((rng.next_u64() >> 60) as u32, 16).unwrap_or('0')).collect();
        let table = match config.rename_command.as_slice() {
            [] => table(),
            lines => {
                let renamed = CommandTable::renamed(lines).expect("who read the configuration looked through them");
                // A process has one.
                Box::leak(Box::new(renamed))
            }
        };
        Shared {
            shards,
            hasher,
            host,
            table,
            users: RwLock::new(Arc::new(Users::new(config.requirepass.as_deref()))),
            acl_log: Mutex::default(),
            config: RwLock::new(Arc::new(config)),
            config_epoch: AtomicU64::new(0),
            next_client_id: AtomicU64::new(1),
            clients: (0..shards).map(|_| Lone::default()).collect(),
            arriving: (0..shards).map(|_| Lone::default()).collect(),
            rejected_clients: AtomicU64::new(0),
            keys: (0..shards).map(|_| Lone::default()).collect(),
            registry: Registry::default(),
            monitors: (0..shards).map(|_| Lone::default()).collect(),
            client_memory: (0..shards).map(|_| Lone::default()).collect(),
            spare_parcels: (0..shards).map(|_| Lone::default()).collect(),
            tracking: crate::tracking::TrackingState::new(shards),
            slowlog: Mutex::default(),
            latency: Mutex::default(),
            lazyfree_pending: AtomicUsize::new(0),
            lazyfreed_objects: AtomicU64::new(0),
            peak_memory: AtomicUsize::new(0),
            startup_memory: AtomicUsize::new(0),
            start_ms,
            replication: Replication::new(shards, crate::replication::new_id(&mut rng)),
            run_id,
            config_file: String::new(),
            pause: Pause::default(),
            shutdown_asked: Mutex::default(),
            shutting_down: AtomicBool::new(false),
            process_id: 0,
            executable: String::new(),
            debug: DebugSettings::default(),
            persistence: Persistence::new(shards, start_ms),
            aof: Aof::new(shards),
            scripts: crate::scripting::store::Store::new(shards),
        }
    }

    /// The configuration now in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.read().expect("no holder panics").clone()
    }

    /// Counts the changes of the configuration.
    #[inline]
    pub fn config_epoch(&self) -> u64 {
        self.config_epoch.load(Acquire)
    }

    /// Replaces the configuration by what `change` makes of a copy, unless it fails.
    pub fn change_config<T, E>(&self, change: impl FnOnce(&mut Config) -> Result<T, E>) -> Result<T, E> {
        let mut slot = self.config.write().expect("no holder panics");
        let mut copy = Config::clone(&slot);
        let result = change(&mut copy)?;
        *slot = Arc::new(copy);
        self.config_epoch.fetch_add(1, Release);
        Ok(result)
    }

    /// The users as they are now.
    pub fn users(&self) -> Arc<Users> {
        self.users.read().expect("no holder panics").clone()
    }

    /// Replaces the users by what `change` makes of a copy, unless it fails.
    pub fn change_users<T, E>(&self, change: impl FnOnce(&mut Users) -> Result<T, E>) -> Result<T, E> {
        let mut slot = self.users.write().expect("no holder panics");
        let mut copy = Users::clone(&slot);
        let result = change(&mut copy)?;
        *slot = Arc::new(copy);
        self.config_epoch.fetch_add(1, Release);
        Ok(result)
    }

    /// Sets the users of the start.
    pub fn set_users(&mut self, users: Users) {
        self.users = RwLock::new(Arc::new(users));
    }

    /// Replaces the users by those that the text of the `aclfile` describes.
    ///
    /// # Errors
    /// What is wrong with it; nothing is changed then.
    pub fn load_users(&self, text: &[u8], config: &Config) -> Result<(), String> {
        self.change_users(|users| {
            *users = users.loaded(text, &config.aclfile, crate::acl::all_channels(config))?;
            Ok(())
        })
    }

    /// Makes every shard look at the shared state again.
    pub fn bump_epoch(&self) {
        self.config_epoch.fetch_add(1, Release);
    }

    /// A new client's id: unique, rising.
    pub fn next_client_id(&self) -> u64 {
        self.next_client_id.fetch_add(1, Relaxed)
    }

    /// Clients connected, over all shards.
    pub fn connected_clients(&self) -> usize {
        self.clients.iter().map(|c| c.0.load(Relaxed)).sum()
    }

    /// Notes the memory in use and returns it.
    pub fn sample_memory(&self) -> usize {
        let used = self.host.used_memory();
        if used > self.peak_memory.load(Relaxed) {
            self.peak_memory.store(used, Relaxed);
        }
        used
    }

    /// Memory in use that `maxmemory` does not count.
    pub fn uncounted_memory(&self) -> usize {
        self.spare_parcels.iter().map(|bytes| bytes.0.load(Relaxed)).sum()
    }

    /// Memory in use as `maxmemory` counts it.
    pub fn counted_memory(&self) -> usize {
        self.sample_memory().saturating_sub(self.uncounted_memory())
    }
}
