//! What the process tells the machine: memory, CPU time, and facts about the build and the machine for `INFO`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};

use ringshard_shards::commands::migrate::{Migrated, Migration};
use ringshard_shards::config::Config;
use ringshard_shards::propagate::Piece;
use ringshard_shards::rdb::file::Source;
use ringshard_shards::router::ShardId;
use ringshard_shards::shared::{AllocatorFacts, Host, HostFacts, LogPart};
use ringshard_shards::snapshot::SnapshotFile;

use crate::clock;
use crate::migrate::Migrations;
use crate::net::Listening;
use crate::oom_score::OomScore;
use crate::persistence::aof::{self, Log};
use crate::persistence::disk::Disk;
use crate::persistence::load;
use crate::persistence::rdb::SnapshotOnDisk;
use crate::persistence::sync::SyncFiles;
use crate::tls::Tls;

/// The process.
pub struct Process {
    /// The event loop in use.
    pub event_loop: &'static str,
    /// Counters of all loops.
    pub loops: Arc<LoopCounters>,
    /// Where work is done that no client waits for.
    pub background: Background,
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// Snapshots that replicas are sent.
    pub syncs: Arc<SyncFiles>,
    /// Has a shard turn, once there are shards.
    pub wake_shard: OnceLock<Box<dyn Fn(ShardId) + Send + Sync>>,
    /// The log's files, once there is all that they need.
    pub log: OnceLock<Arc<Log>>,
    /// What TLS connections begin with.
    pub tls: Arc<Tls>,
    /// What the kernel thinks of this process when memory runs out.
    pub oom_score: OomScore,
    /// What takes keys to other servers.
    pub migrations: Arc<Migrations>,
    /// The listening sockets.
    pub listening: Arc<Listening>,
    /// Has the shard that accepts look at them, once there are shards.
    pub listen_anew: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Process {
    fn log(&self) -> &Arc<Log> {
        self.log.get().expect("set before any loop turns")
    }
}

/// A thread for work that no client waits for; it is started with the first piece (Redis: `bio.c`).
#[derive(Default)]
pub struct Background(OnceLock<Sender<Box<dyn FnOnce() + Send>>>);

impl Background {
    /// Has `work` done soon; at once where there can be no thread for it.
    pub fn run(&self, work: Box<dyn FnOnce() + Send>) {
        let queue = self.0.get_or_init(|| {
            let (sender, receiver) = channel::<Box<dyn FnOnce() + Send>>();
            // Where no thread starts the receiver is dropped with the closure, and every send gives its work back.
            let _ = std::thread::Builder::new().name("lazyfree".into()).spawn(move || {
                for work in receiver {
                    work();
                }
            });
            sender
        });
        if let Err(refused) = queue.send(work) {
            (refused.0)();
        }
    }
}

/// What loops count, a shard each on a cache line of its own.
pub struct LoopCounters(Vec<LoopCounter>);

#[derive(Default)]
#[repr(align(64))]
struct LoopCounter {
    cycles: AtomicU64,
    worked_us: AtomicU64,
    cron_us: AtomicU64,
    longest_us: AtomicU64,
    most_commands: AtomicU64,
}

impl LoopCounters {
    /// Zero for so many shards.
    pub fn new(shards: usize) -> Self {
        LoopCounters((0..shards).map(|_| LoopCounter::default()).collect())
    }

    /// Counts time that a shard's time events took; only that shard's thread calls this.
    pub fn note_cron(&self, shard: usize, us: u64) {
        let counter = &self.0[shard];
        counter.cron_us.store(counter.cron_us.load(Relaxed) + us, Relaxed);
    }

    /// Counts a turn of a shard's loop that ran so many commands; only that shard's thread calls this.
    pub fn note(&self, shard: usize, worked_us: u64, commands: u64) {
        let counter = &self.0[shard];
        if worked_us > counter.longest_us.load(Relaxed) {
            counter.longest_us.store(worked_us, Relaxed);
        }
        if commands > counter.most_commands.load(Relaxed) {
            counter.most_commands.store(commands, Relaxed);
        }
        counter.cycles.store(counter.cycles.load(Relaxed) + 1, Relaxed);
        counter.worked_us.store(counter.worked_us.load(Relaxed) + worked_us, Relaxed);
    }

    fn most(&self, of: impl Fn(&LoopCounter) -> &AtomicU64) -> u64 {
        self.0.iter().map(|counter| of(counter).load(Relaxed)).max().unwrap_or(0)
    }

    fn sum(&self, of: impl Fn(&LoopCounter) -> &AtomicU64) -> u64 {
        self.0.iter().map(|counter| of(counter).load(Relaxed)).sum()
    }
}

impl Host for Process {
    fn apply(&self, config: &Config, changed: &[&'static str]) -> Result<(), (&'static str, String)> {
        // What undoes nothing when the rest fails comes first.
        if changed.contains(&"maxclients") {
            let possible = crate::server::adjust_open_files(config.maxclients);
            if possible != config.maxclients {
                let text = format!(
                    "The operating system is not able to handle the specified number of clients, try with {possible}"
                );
                return Err(("maxclients", text));
            }
        }
        if config.tls_port != 0
            && let Some(name) = changed.iter().find(|name| name.starts_with("tls-"))
        {
            self.tls.load(config).map_err(|text| {
                crate::log::warning(text);
                (*name, "Unable to update TLS configuration. Check server logs.".to_string())
            })?;
        }
        let places = ["port", "tls-port", "bind"].into_iter().find(|name| changed.contains(name));
        if let Some(name) = places {
            let done = self.listening.exchange(config);
            if let Some(listen_anew) = self.listen_anew.get() {
                listen_anew();
            }
            done.map_err(|()| match name {
                "port" | "tls-port" => (name, "Unable to listen on this port. Check server logs.".to_string()),
                _ => (name, "Failed to bind to specified addresses.".to_string()),
            })?;
        }
        if let Some(name) = changed.iter().find(|name| name.starts_with("oom-score-adj")) {
            self.oom_score.apply(config).map_err(|text| {
                crate::log::warning(text);
                (*name, "Failed to set current oom_score_adj. Check server logs.".to_string())
            })?;
        }
        Ok(())
    }

    fn ticks(&self) -> fn() -> u64 {
        clock::ticks
    }

    fn ticks_per_us(&self) -> f64 {
        *clock::TICKS_PER_US
    }

    fn sleep(&self, us: u64) -> bool {
        std::thread::sleep(std::time::Duration::from_micros(us));
        true
    }

    fn secret(&self, out: &mut [u8]) {
        for piece in out.chunks_mut(256) {
            // SAFETY: a valid place of that length. Up to 256 bytes the call neither fails nor returns fewer once the
            // system is up.
            unsafe { libc::getrandom(piece.as_mut_ptr().cast(), piece.len(), 0) };
        }
    }

    fn run_later(&self, work: Box<dyn FnOnce() + Send>) {
        self.background.run(work);
    }

    fn create_snapshot(&self, config: &Config, in_background: bool) -> Result<Box<dyn SnapshotFile>, String> {
        Ok(Box::new(SnapshotOnDisk::create(&self.disk, config, in_background)?))
    }

    fn create_sync(&self, config: &Config, sync: u64) -> Result<Box<dyn SnapshotFile>, String> {
        Ok(Box::new(SnapshotOnDisk::create_sync(&self.disk, &self.syncs, config, sync)?))
    }

    fn sync_bytes(&self, sync: u64) -> Option<u64> {
        self.syncs.bytes(sync)
    }

    fn read_sync(&self, sync: u64, offset: u64, most: usize, out: &mut Vec<u8>) -> Result<(), String> {
        self.syncs.read(sync, offset, most, out)
    }

    fn drop_sync(&self, sync: u64) {
        self.syncs.drop_file(sync);
    }

    fn wake(&self, shard: ShardId) {
        if let Some(wake) = self.wake_shard.get() {
            wake(shard);
        }
    }

    fn begin_generation(&self, config: &Config, generation: u64, anew: bool) -> Result<(), String> {
        self.log().begin_generation(config, generation, anew)
    }

    fn create_base(&self, config: &Config, generation: u64) -> Result<Box<dyn SnapshotFile>, String> {
        Ok(Box::new(SnapshotOnDisk::create_base(self.log(), config, generation)?))
    }

    fn append(&self, pieces: Vec<Piece>) {
        pieces.into_iter().for_each(|piece| self.log().append(piece));
    }

    fn flush_logs(&self, sync: bool) -> Result<(), String> {
        self.log().flush(sync)
    }

    fn close_logs(&self) {
        self.log().close();
    }

    fn read_logs(
        &self,
        config: &Config,
        take: &mut dyn FnMut(LogPart<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        aof::load::read_all(self.log(), config, take)
    }

    fn open_snapshot(&self, config: &Config) -> Result<Option<Box<dyn Source>>, String> {
        Ok(load::open(config)?.map(|source| Box::new(source) as Box<dyn Source>))
    }

    fn migrate(&self, migration: &Migration) -> Migrated {
        self.migrations.run(migration)
    }

    fn used_memory(&self) -> usize {
        crate::alloc::used_memory()
    }

    fn facts(&self) -> HostFacts {
        let (own, children) = (usage(libc::RUSAGE_SELF), usage(libc::RUSAGE_CHILDREN));
        let thread = usage(libc::RUSAGE_THREAD);
        HostFacts {
            server: server_facts(),
            rss: rss(),
            system_memory: system_memory(),
            allocator: allocator(),
            cpu: [own[0], own[1], children[0], children[1]],
            thread_cpu: thread,
            event_loop: self.event_loop,
            migrate_cached_sockets: self.migrations.kept(),
            eventloop_cycles: self.loops.sum(|c| &c.cycles),
            eventloop_duration_us: self.loops.sum(|c| &c.worked_us),
            eventloop_cron_us: self.loops.sum(|c| &c.cron_us),
            eventloop_longest_us: self.loops.most(|c| &c.longest_us),
            eventloop_most_commands: self.loops.most(|c| &c.most_commands),
        }
    }

    fn malloc_stats(&self) -> Option<String> {
        let mut text = Vec::new();
        tikv_jemalloc_ctl::stats_print::stats_print(&mut text, Default::default()).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    fn purge(&self) {
        // SAFETY: the name is a valid control of jemalloc (all arenas: 4096) that takes no value.
        unsafe {
            tikv_jemalloc_ctl::raw::write(b"thread.tcache.flush\0", ()).ok();
            tikv_jemalloc_ctl::raw::write(b"arena.4096.purge\0", ()).ok();
        }
    }
}

/// System and user CPU seconds.
fn usage(who: libc::c_int) -> [f64; 2] {
    // SAFETY: a valid place for the result.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(who, &mut usage);
        usage
    };
    [usage.ru_stime, usage.ru_utime].map(|t| t.tv_sec as f64 + t.tv_usec as f64 / 1e6)
}

fn rss() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    // SAFETY: a plain query.
    pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize
}

fn system_memory() -> u64 {
    // SAFETY: plain queries.
    unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) as u64 * libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

fn allocator() -> AllocatorFacts {
    use tikv_jemalloc_ctl::{epoch, stats};
    if epoch::advance().is_err() {
        return AllocatorFacts::default();
    }
    AllocatorFacts {
        allocated: stats::allocated::read().unwrap_or(0),
        active: stats::active::read().unwrap_or(0),
        resident: stats::resident::read().unwrap_or(0),
        retained: stats::retained::read().unwrap_or(0),
    }
}

fn server_facts() -> Vec<(&'static str, String)> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_string();
    let os = format!(
        "{} {} {}",
        read("/proc/sys/kernel/ostype"),
        read("/proc/sys/kernel/osrelease"),
        std::env::consts::ARCH
    );
    vec![("os", os), ("arch_bits", usize::BITS.to_string())]
}
