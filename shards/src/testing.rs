//! A server in memory: some shards in one thread, clients without sockets, a clock that tests move.
//!
//! [`World`] is a driver like the event loops: it feeds bytes to shards, carries parcels between them until all are
//! quiet, and hands out what clients are sent. [`Check`] runs one script of commands on one shard and on four, in
//! RESP2 and in RESP3, and compares what comes back:
//!
//! ```
//! # use ringshard_shards::testing::Check;
//! let mut t = Check::new();
//! t.check("SET k v", "OK").check("GET k", "\"v\"").check("STRLEN k", "1").check("GET none", "nil");
//! t.types("CONFIG GET maxmemory", r#"["maxmemory" "0"]"#, r#"{"maxmemory": "0"}"#);
//! ```
//!
//! Replies are compared in a short notation, see [`Value`]. Built for this crate's tests and, with the feature
//! `testing`, for the simulator and whoever else needs a server in memory.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::client::Peer;
use crate::commands::migrate::{Migrated, Migration};
use crate::config::{Config, Mode};
use crate::limits::LARGE_INPUT_BYTES;
use crate::message::Parcel;
use crate::quote;
use crate::rdb::crc64;
use crate::rdb::file::{self, Source};
use crate::router::ShardId;
use crate::shard::{Effect, Event, Input, Shard};
use crate::shared::{AllocatorFacts, Host, HostFacts, Shared};
use crate::snapshot::{Assembly, SnapshotFile};

thread_local! {
    static TICKS: Cell<u64> = const { Cell::new(1) };
    static LOOK_US: Cell<u64> = const { Cell::new(1) };
}

/// Every look at the clock takes one µs or what [`World::set_look_us`] says, so durations are the same in every run.
fn ticks() -> u64 {
    TICKS.with(|ticks| {
        ticks.set(ticks.get() + 1000 * LOOK_US.get());
        ticks.get()
    })
}

/// Work for a thread that is none.
#[derive(Default)]
pub struct Background {
    /// Whether work is put off until [`World::run_background`].
    put_off: AtomicBool,
    work: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Background with {} pieces of work", self.work.lock().unwrap().len())
    }
}

/// A process that is none: memory is what the test says, time is counted in looks at the clock.
#[derive(Debug, Default)]
pub struct FakeHost {
    /// Work that no client waits for.
    pub background: Background,
    /// Bytes that the process pretends to use.
    pub used_memory: AtomicUsize,
    /// Bytes by which it pretends to shrink each time it is asked, as if each evicted key freed so much.
    pub shrinks_by: AtomicUsize,
    /// µs slept in commands.
    pub slept_us: AtomicU64,
    /// Whether [`Host::purge`] was called.
    pub purged: AtomicBool,
    /// Where snapshots go.
    pub disk: Arc<Mutex<Disk>>,
    /// The `aclfile`.
    pub aclfile: Mutex<Vec<u8>>,
    /// Snapshots that replicas are sent.
    pub syncs: Syncs,
}

/// A disk with room for one file.
#[derive(Debug, Default)]
pub struct Disk {
    /// The last snapshot.
    pub file: Option<Vec<u8>>,
    /// After so many operations each fails.
    pub fails_after: Option<usize>,
}

impl Disk {
    fn operate(&mut self) -> Result<(), String> {
        match &mut self.fails_after {
            Some(0) => Err("Write error saving DB on disk: No space left on device".into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Snapshots that replicas are sent, by number.
type Syncs = Arc<Mutex<BTreeMap<u64, Vec<u8>>>>;

struct MemoryFile {
    bytes: Vec<u8>,
    disk: Arc<Mutex<Disk>>,
    sync: Option<(u64, Syncs)>,
}

impl SnapshotFile for MemoryFile {
    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.bytes.extend_from_slice(bytes);
        self.disk.lock().unwrap().operate()
    }

    fn finish(mut self: Box<Self>) -> Result<(), String> {
        let tail = file::tail(Some(crc64::update(0, &self.bytes)));
        self.bytes.extend_from_slice(&tail);
        let mut disk = self.disk.lock().unwrap();
        disk.operate()?;
        if let Some((sync, syncs)) = &self.sync {
            syncs.lock().unwrap().insert(*sync, std::mem::take(&mut self.bytes));
            return Ok(());
        }
        disk.file = Some(std::mem::take(&mut self.bytes));
        Ok(())
    }
}

struct MemorySource(Vec<u8>, usize);

impl Source for MemorySource {
    fn ahead(&mut self, n: usize) -> Result<&[u8], crate::rdb::Error> {
        let rest = &self.0[self.1..];
        if n <= rest.len() { Ok(rest) } else { Err(crate::rdb::Error::Short) }
    }

    fn pass(&mut self, n: usize) {
        self.1 += n;
    }

    fn left(&self) -> Option<u64> {
        Some((self.0.len() - self.1) as u64)
    }
}

impl Host for FakeHost {
    fn ticks(&self) -> fn() -> u64 {
        ticks
    }

    fn ticks_per_us(&self) -> f64 {
        1000.0
    }

    fn used_memory(&self) -> usize {
        let step = self.shrinks_by.load(Relaxed);
        let used = self.used_memory.load(Relaxed);
        self.used_memory.store(used.saturating_sub(step), Relaxed);
        used
    }

    fn facts(&self) -> HostFacts {
        let used = self.used_memory.load(Relaxed);
        HostFacts {
            server: vec![("os", "Simulated".into()), ("arch_bits", "64".into())],
            rss: used + (1 << 20),
            system_memory: 1 << 34,
            allocator: AllocatorFacts { allocated: used, active: used, resident: used, retained: 0 },
            cpu: [0.25, 0.5, 0.0, 0.0],
            thread_cpu: [0.125, 0.25],
            event_loop: "test",
            eventloop_cycles: 0,
            eventloop_cron_us: 0,
            eventloop_longest_us: 0,
            eventloop_most_commands: 0,
            migrate_cached_sockets: 0,
            eventloop_duration_us: 0,
        }
    }

    fn sleep(&self, us: u64) -> bool {
        TICKS.with(|ticks| ticks.set(ticks.get() + us * 1000));
        self.slept_us.fetch_add(us, Relaxed);
        true
    }

    fn secret(&self, out: &mut [u8]) {
        // Guessable, and another each time.
        out.iter_mut().for_each(|byte| *byte = ticks().wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]);
    }

    fn create_snapshot(&self, _: &Config, _: bool) -> Result<Box<dyn SnapshotFile>, String> {
        self.disk.lock().unwrap().operate()?;
        Ok(Box::new(MemoryFile { bytes: Vec::new(), disk: self.disk.clone(), sync: None }))
    }

    fn create_sync(&self, _: &Config, sync: u64) -> Result<Box<dyn SnapshotFile>, String> {
        self.disk.lock().unwrap().operate()?;
        let sync = Some((sync, self.syncs.clone()));
        Ok(Box::new(MemoryFile { bytes: Vec::new(), disk: self.disk.clone(), sync }))
    }

    fn sync_bytes(&self, sync: u64) -> Option<u64> {
        self.syncs.lock().unwrap().get(&sync).map(|file| file.len() as u64)
    }

    fn read_sync(&self, sync: u64, offset: u64, most: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let syncs = self.syncs.lock().unwrap();
        let file = syncs.get(&sync).ok_or("the file is gone")?;
        out.extend(file[offset as usize..].iter().take(most));
        Ok(())
    }

    fn drop_sync(&self, sync: u64) {
        self.syncs.lock().unwrap().remove(&sync);
    }

    fn open_snapshot(&self, _: &Config) -> Result<Option<Box<dyn Source>>, String> {
        let file = self.disk.lock().unwrap().file.clone();
        Ok(file.map(|file| Box::new(MemorySource(file, 0)) as Box<dyn Source>))
    }

    fn run_later(&self, work: Box<dyn FnOnce() + Send>) {
        match self.background.put_off.load(Relaxed) {
            true => self.background.work.lock().unwrap().push(work),
            false => work(),
        }
    }

    fn purge(&self) {
        self.purged.store(true, Relaxed);
    }
}

/// A connection of a [`World`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conn(usize);

struct Connection {
    shard: ShardId,
    index: u32,
    open: bool,
    received: Vec<u8>,
}

/// See the module's page.
pub struct World {
    /// What the shards share.
    pub shared: Arc<Shared>,
    /// The process around them.
    pub host: Arc<FakeHost>,
    /// The shards.
    pub shards: Vec<Shard>,
    /// Effects that were left for the driver, but for closed connections.
    pub effects: Vec<(ShardId, Effect)>,
    /// Whether migrations wait for [`World::take_migration`], instead of being told at once that nobody is there.
    pub keeps_migrations: bool,
    /// How `CONFIG REWRITE` ends.
    pub rewrite_result: Result<(), String>,
    now_us: u64,
    inboxes: Vec<VecDeque<Box<Parcel>>>,
    connections: Vec<Connection>,
    free: Vec<Vec<u32>>,
    next: Vec<u32>,
    assembly: Assembly,
}

/// Unix ms at which worlds begin.
pub const START_MS: i64 = 1_700_000_000_000;

impl World {
    /// A server of this many shards with the default configuration.
    pub fn new(shards: usize) -> Self {
        Self::with_config(shards, &[])
    }

    /// A server of this many shards with these directives, as from its configuration file; panics if one is refused.
    pub fn with_config(shards: usize, directives: &[(&str, &str)]) -> Self {
        let mut config = Config { enable_debug_command: crate::config::ProtectedAction::Yes, ..Config::default() };
        for (name, value) in directives {
            let directive = crate::config::Directive::find(name.as_bytes()).expect("a known directive");
            let args = quote::split_args(value.as_bytes()).expect("balanced quotes");
            config.set(directive, &args, Mode::Startup { first_save: true }).expect("a valid value");
        }
        Self::from_config(shards, config, [11, 47])
    }

    /// A server of this many shards with this configuration; randomness comes from `seed`.
    pub fn from_config(shards: usize, config: Config, seed: [u64; 2]) -> Self {
        let host = Arc::new(FakeHost::default());
        host.used_memory.store(1 << 20, Relaxed);
        let shared = Arc::new(Shared::new(config, shards, seed, START_MS, host.clone()));
        let mut world = World {
            shards: (0..shards).map(|i| Shard::new(i as ShardId, shared.clone(), seed[0] + i as u64)).collect(),
            shared,
            host,
            effects: Vec::new(),
            keeps_migrations: false,
            rewrite_result: Ok(()),
            now_us: 1_000_000,
            inboxes: (0..shards).map(|_| VecDeque::new()).collect(),
            connections: Vec::new(),
            free: vec![Vec::new(); shards],
            next: vec![0; shards],
            assembly: Assembly::default(),
        };
        world.set_time();
        world
    }

    /// Unix ms.
    pub fn now_ms(&self) -> i64 {
        START_MS + (self.elapsed_us() / 1000) as i64 - 1000
    }

    fn elapsed_us(&self) -> u64 {
        self.now_us + self.host.slept_us.load(Relaxed)
    }

    fn set_time(&mut self) {
        let (ms, us) = (self.now_ms(), self.elapsed_us());
        self.shards.iter_mut().for_each(|shard| shard.set_time(ms, us));
    }

    /// Lets time pass, with a time event of every shard at its end.
    pub fn advance(&mut self, ms: u64) {
        self.now_us += ms * 1000;
        self.cron();
    }

    /// A time event of every shard.
    pub fn cron(&mut self) {
        for shard in 0..self.shards.len() {
            self.step(shard, Event::Timer);
        }
        self.settle();
    }

    /// A new connection from this machine; connections go to shards by turns.
    pub fn connect(&mut self) -> Conn {
        let shard = self.connections.len() % self.shards.len();
        self.connect_to(shard as ShardId)
    }

    /// A new connection from this machine, to this shard.
    pub fn connect_to(&mut self, shard: ShardId) -> Conn {
        let port = 50_000 + self.connections.len();
        self.connect_from(
            shard,
            Peer {
                address: format!("127.0.0.1:{port}"),
                local_address: "127.0.0.1:6379".into(),
                fd: 8 + self.connections.len() as i32,
                unix: false,
                local: true,
            },
        )
    }

    /// A new connection from `peer` to this shard.
    pub fn connect_from(&mut self, shard: ShardId, peer: Peer) -> Conn {
        let at = shard as usize;
        let index = self.free[at].pop().unwrap_or_else(|| {
            self.next[at] += 1;
            self.next[at] - 1
        });
        self.connections.push(Connection { shard, index, open: true, received: Vec::new() });
        self.step(at, Event::Connected(index, peer));
        self.settle();
        Conn(self.connections.len() - 1)
    }

    /// The client breaks the connection.
    pub fn disconnect(&mut self, conn: Conn) {
        let Connection { shard, index, open, .. } = self.connections[conn.0];
        if open {
            self.connections[conn.0].open = false;
            self.step(shard as usize, Event::Disconnected(index));
            self.free[shard as usize].push(index);
            self.settle();
        }
    }

    /// The client sends no more, and reads on.
    pub fn end_input(&mut self, conn: Conn) {
        let Connection { shard, index, .. } = self.connections[conn.0];
        self.step(shard as usize, Event::Ended(index));
        self.settle();
    }

    /// Whether the server has not closed the connection.
    pub fn is_open(&self, conn: Conn) -> bool {
        self.connections[conn.0].open
    }

    /// The home shard of a connection.
    pub fn home(&self, conn: Conn) -> ShardId {
        self.connections[conn.0].shard
    }

    /// Sends bytes, and carries everything on until all is quiet.
    pub fn send(&mut self, conn: Conn, bytes: &[u8]) {
        self.send_only(conn, bytes);
        self.settle();
    }

    /// Sends bytes, and leaves parcels where they are: see [`World::settle`].
    pub fn send_only(&mut self, conn: Conn, bytes: &[u8]) {
        let Connection { shard, index, open, .. } = self.connections[conn.0];
        if open {
            self.step(shard as usize, Event::Received(&[Input { client: index, bytes }]));
        }
    }

    /// Sends bytes as to a loop that reads large arguments to their place, `most` at once, and other input in parts of 16 KB;
    /// returns how many were read to their place.
    pub fn send_in_place(&mut self, conn: Conn, mut bytes: &[u8], most: usize) -> usize {
        let Connection { shard, index, .. } = self.connections[conn.0];
        let shard = shard as usize;
        let mut in_place = 0;
        while !bytes.is_empty() && self.is_open(conn) {
            let n = match self.shards[shard].lend_query(index, most) {
                Some(mut buffer) => {
                    let n = bytes.len().min(most).min(buffer.capacity() - buffer.len());
                    buffer.extend_from_slice(&bytes[..n]);
                    self.step(shard, Event::Filled(index, buffer, n));
                    in_place += n;
                    n
                }
                None => {
                    let n = bytes.len().min(LARGE_INPUT_BYTES);
                    self.step(shard, Event::Received(&[Input { client: index, bytes: &bytes[..n] }]));
                    n
                }
            };
            bytes = &bytes[n..];
        }
        self.settle();
        in_place
    }

    /// Several connections of one shard send bytes, which it finds together.
    pub fn send_together(&mut self, inputs: &[(Conn, &[u8])]) {
        let connection = |conn: &Conn| &self.connections[conn.0];
        let shard = connection(&inputs[0].0).shard;
        assert!(inputs.iter().all(|(conn, _)| connection(conn).open && connection(conn).shard == shard));
        let inputs: Vec<Input<'_>> =
            inputs.iter().map(|(conn, bytes)| Input { client: connection(conn).index, bytes }).collect();
        self.step(shard as usize, Event::Received(&inputs));
    }

    /// What the server sent on a connection since this was last asked.
    pub fn received(&mut self, conn: Conn) -> Vec<u8> {
        std::mem::take(&mut self.connections[conn.0].received)
    }

    /// Sends one command and returns the bytes of its reply.
    pub fn call(&mut self, conn: Conn, words: &[impl AsRef<[u8]>]) -> Vec<u8> {
        self.send(conn, &request(words));
        self.received(conn)
    }

    /// Sends one command, written as in `redis-cli`, and returns its reply.
    pub fn run(&mut self, conn: Conn, line: &str) -> Value {
        let words = quote::split_args(line.as_bytes()).expect("balanced quotes");
        let bytes = self.call(conn, &words);
        match Value::parse(&bytes) {
            Some((value, used)) if used == bytes.len() => value,
            Some(_) => panic!("more than one reply to {line:?}: {:?}", String::from_utf8_lossy(&bytes)),
            None => panic!("no whole reply to {line:?}: {:?}", String::from_utf8_lossy(&bytes)),
        }
    }

    /// Carries parcels and output until nothing moves any more.
    pub fn settle(&mut self) {
        loop {
            let mut moved = false;
            for shard in 0..self.shards.len() {
                moved |= self.collect(shard);
                while let Some(parcel) = self.inboxes[shard].pop_front() {
                    self.step(shard, Event::Parcel(parcel));
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// Where snapshots go.
    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.host.disk.lock().unwrap()
    }

    /// Lets every shard end a turn, in which a running snapshot walks on, and a slow script goes on.
    pub fn end_turns(&mut self) {
        for shard in 0..self.shards.len() {
            self.set_time();
            self.shards[shard].before_sleep();
            self.shards[shard].walk_snapshot();
        }
        self.settle();
    }

    /// From here on each look at the clock takes this many µs, in all worlds of this thread.
    pub fn set_look_us(us: u64) {
        LOOK_US.set(us);
    }

    /// From here on work in the background waits for [`World::run_background`].
    pub fn put_off_background(&mut self) {
        self.host.background.put_off.store(true, Relaxed);
    }

    /// Does what was put off, and lets every shard end a turn.
    pub fn run_background(&mut self) {
        let work = std::mem::take(&mut *self.host.background.work.lock().unwrap());
        work.into_iter().for_each(|work| work());
        self.end_turns();
    }

    /// Carries a running snapshot to its end.
    pub fn finish_snapshot(&mut self) {
        for _ in 0..100_000 {
            if !self.shared.persistence.saving.load(Relaxed) {
                return;
            }
            self.end_turns();
        }
        panic!("the snapshot does not end");
    }

    /// Takes the `MIGRATE` off the list of effects that came first; says on which shard, and its number there.
    pub fn take_migration(&mut self) -> Option<(ShardId, u32, Migration)> {
        let at = self.effects.iter().position(|(_, effect)| matches!(effect, Effect::Migrate(..)))?;
        match self.effects.remove(at) {
            (shard, Effect::Migrate(slot, migration)) => Some((shard, slot, *migration)),
            _ => unreachable!("just looked at"),
        }
    }

    /// Tells a shard what became of a migration.
    pub fn migrated(&mut self, shard: ShardId, slot: u32, done: &[bool], result: Result<(), &str>) {
        let outcome = Migrated { done: done.to_vec(), result: result.map_err(String::from) };
        self.step(shard as usize, Event::Migrated(slot, outcome));
        self.settle();
    }

    /// Sets the clock back to the beginning.
    pub fn restart_time(&mut self) {
        self.now_us = 1_000_000;
        self.host.slept_us.store(0, Relaxed);
        self.set_time();
    }

    fn step(&mut self, shard: usize, event: Event<'_>) {
        self.set_time();
        self.shards[shard].step(event);
    }

    /// Has every shard write down what its commands do (see [`World::effects`]).
    pub fn log_effects(&mut self) {
        for shard in &mut self.shards {
            shard.core.effects.set(true, false);
            shard.slices.iter_mut().flatten().for_each(|slice| slice.log.on = true);
        }
    }

    /// What commands did since the last look, one line a command, the shards' logs after each other.
    pub fn effects(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for shard in &mut self.shards {
            let commands = Value::parse_all(&commands_of(&shard.take_effects()));
            lines.extend(commands.iter().map(|command| {
                let words = command.items().into_iter().map(|word| word.text());
                words.collect::<Vec<_>>().join(" ")
            }));
        }
        lines
    }

    /// Takes what a shard has left; says whether there was anything.
    fn collect(&mut self, shard: usize) -> bool {
        let mut moved = false;
        let inboxes = &mut self.inboxes;
        // One queue a receiver keeps ordered parcels in one order everywhere.
        self.shards[shard].outbox.take(&mut |to, parcel| {
            inboxes[to as usize].push_back(parcel);
            moved = true;
        });
        for index in std::mem::take(&mut self.shards[shard].flush) {
            self.shards[shard].check_output_limit(index);
            let bytes = self.shards[shard].take_output(index);
            if let Some(connection) = self.connection_at(shard, index) {
                connection.received.extend_from_slice(&bytes);
            }
            if !bytes.is_empty() {
                moved = true;
                let sent = bytes.len();
                self.shards[shard].recycle(bytes);
                self.step(shard, Event::Sent(index, sent));
            }
        }
        for effect in std::mem::take(&mut self.shards[shard].effects) {
            moved = true;
            match effect {
                Effect::Close(index) => {
                    if let Some(connection) = self.connection_at(shard, index) {
                        connection.open = false;
                    }
                    self.free[shard].push(index);
                }
                Effect::RewriteConfig(index, all) => {
                    self.effects.push((shard as ShardId, Effect::RewriteConfig(index, all)));
                    let result = self.rewrite_result.clone();
                    self.step(shard, Event::WorkDone(index, result));
                }
                Effect::Migrate(slot, migration) if !self.keeps_migrations => {
                    let outcome = self.host.migrate(&migration);
                    self.step(shard, Event::Migrated(slot, outcome));
                }
                Effect::LoadUsers(index) => {
                    let config = self.shared.config();
                    let text = self.host.aclfile.lock().unwrap().clone();
                    let result = self.shared.load_users(&text, &config).map_err(|text| format!("ERR {text}"));
                    self.step(shard, Event::WorkDone(index, result));
                }
                Effect::SaveUsers(index) => {
                    *self.host.aclfile.lock().unwrap() = self.shared.users().file_text();
                    self.step(shard, Event::WorkDone(index, Ok(())));
                }
                Effect::Sleep(us) => {
                    self.now_us += us;
                    self.set_time();
                }
                Effect::Snapshot(chunk) => {
                    self.assembly.take(&self.shared.clone(), *chunk, self.now_ms());
                }
                effect => self.effects.push((shard as ShardId, effect)),
            }
        }
        moved
    }

    fn connection_at(&mut self, shard: usize, index: u32) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|c| c.open && c.shard as usize == shard && c.index == index)
    }
}

/// A log without the lines that say something about its commands.
pub fn commands_of(log: &[u8]) -> Vec<u8> {
    use crate::aof::read::{Parsed, parse};
    let (mut commands, mut at) = (Vec::new(), 0);
    loop {
        match parse(&log[at..], &mut Vec::new()) {
            Parsed::Command { end } => {
                commands.extend_from_slice(&log[at..at + end]);
                at += end;
            }
            Parsed::Note { end } => at += end,
            _ => return commands,
        }
    }
}

/// How many cases a test draws that edits or makes up its input: so few, or as many as `PROPTEST_CASES` says.
pub fn cases(few: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(few)
}

/// The bytes of a command.
pub fn request(words: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        let word = word.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A reply, understood. Its `Display` is the notation of tests:
///
/// | reply | notation |
/// | --- | --- |
/// | simple string | `OK` |
/// | error | `-ERR no such key` |
/// | integer | `7` |
/// | bulk string | `"a b"`, quoted as in `redis-cli` |
/// | null, null list | `nil`, `nil*` |
/// | list, set, push | `[1 "a"]`, `~[1]`, `>["x"]` |
/// | map | `{"a": 1, "b": 2}` |
/// | double, boolean | `,1.5`, `#true` |
/// | verbatim string | `txt:"…"` |
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    NullArray,
    Array(Vec<Value>),
    Set(Vec<Value>),
    Push(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Double(String),
    Boolean(bool),
    BigNumber(String),
    Verbatim(String, Vec<u8>),
}

impl Value {
    /// The reply at the start of `bytes` and its length, or `None` if it is not whole. Panics at what is no reply.
    pub fn parse(bytes: &[u8]) -> Option<(Value, usize)> {
        let line_end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let line = std::str::from_utf8(&bytes[1..line_end]).unwrap_or("not utf-8").to_string();
        let mut at = line_end + 2;
        let number = || line.parse::<i64>().unwrap_or_else(|_| panic!("no length in {line:?}"));
        let mut list = |n: i64| {
            let mut items = Vec::new();
            for _ in 0..n {
                let (value, used) = Value::parse(&bytes[at..])?;
                items.push(value);
                at += used;
            }
            Some(items)
        };
        let value = match bytes[0] {
            b'+' => Value::Simple(line),
            b'-' => Value::Error(line),
            b':' => Value::Integer(number()),
            b',' => Value::Double(line),
            b'(' => Value::BigNumber(line),
            b'#' => Value::Boolean(line == "t"),
            b'_' => Value::Null,
            b'$' if number() < 0 => Value::Null,
            b'*' if number() < 0 => Value::NullArray,
            b'$' | b'=' => {
                let end = at + number() as usize;
                let text = bytes.get(at..end)?;
                assert_eq!(bytes.get(end..end + 2)?, b"\r\n", "a string has the length it claims");
                at = end + 2;
                match bytes[0] {
                    b'$' => Value::Bulk(text.to_vec()),
                    _ => Value::Verbatim(String::from_utf8_lossy(&text[..3]).into_owned(), text[4..].to_vec()),
                }
            }
            b'*' => Value::Array(list(number())?),
            b'~' => Value::Set(list(number())?),
            b'>' => Value::Push(list(number())?),
            b'%' => {
                let items = list(number() * 2)?;
                let mut items = items.into_iter();
                let mut pairs = Vec::new();
                while let (Some(name), Some(value)) = (items.next(), items.next()) {
                    pairs.push((name, value));
                }
                Value::Map(pairs)
            }
            other => panic!("{:?} starts no reply: {:?}", other as char, String::from_utf8_lossy(bytes)),
        };
        Some((value, at))
    }

    /// All replies in `bytes`, which must end with a whole one.
    pub fn parse_all(mut bytes: &[u8]) -> Vec<Value> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let (value, used) = Value::parse(bytes).expect("whole replies");
            all.push(value);
            bytes = &bytes[used..];
        }
        all
    }

    /// The same reply in the types of RESP2.
    pub fn folded(self) -> Value {
        let fold = |items: Vec<Value>| Value::Array(items.into_iter().map(Value::folded).collect());
        match self {
            Value::Array(items) | Value::Set(items) | Value::Push(items) => fold(items),
            Value::Map(pairs) => fold(pairs.into_iter().flat_map(|(name, value)| [name, value]).collect()),
            Value::Double(text) | Value::BigNumber(text) => Value::Bulk(text.into_bytes()),
            Value::Boolean(value) => Value::Integer(value as i64),
            Value::Verbatim(_, text) => Value::Bulk(text),
            // RESP3 has one null.
            Value::NullArray => Value::Null,
            other => other,
        }
    }

    /// The text of a string reply of any kind.
    pub fn text(&self) -> String {
        match self {
            Value::Simple(text) | Value::Error(text) | Value::Double(text) | Value::BigNumber(text) => text.clone(),
            Value::Bulk(bytes) | Value::Verbatim(_, bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::Integer(n) => n.to_string(),
            other => panic!("{other} is no text"),
        }
    }

    /// The items of a list, a set or a push message; a map's names and values by turns.
    pub fn items(&self) -> Vec<Value> {
        match self {
            Value::Array(items) | Value::Set(items) | Value::Push(items) => items.clone(),
            Value::Map(pairs) => pairs.iter().flat_map(|(name, value)| [name.clone(), value.clone()]).collect(),
            other => panic!("{other} is no list"),
        }
    }

    /// The value under `name` in a map, or in the list that stands for one in RESP2.
    pub fn get(&self, name: &str) -> Option<Value> {
        self.items().chunks_exact(2).find(|pair| pair[0].text() == name).map(|pair| pair[1].clone())
    }

    /// The integer.
    pub fn integer(&self) -> i64 {
        match self {
            Value::Integer(n) => *n,
            other => panic!("{other} is no integer"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, open: &str, items: &[Value]| {
            f.write_str(open)?;
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    f.write_str(" ")?;
                }
                write!(f, "{item}")?;
            }
            f.write_str("]")
        };
        match self {
            Value::Simple(text) => f.write_str(text),
            Value::Error(text) => write!(f, "-{text}"),
            Value::Integer(n) => write!(f, "{n}"),
            Value::Bulk(bytes) => write!(f, "{}", quoted(bytes)),
            Value::Null => f.write_str("nil"),
            Value::NullArray => f.write_str("nil*"),
            Value::Array(items) => list(f, "[", items),
            Value::Set(items) => list(f, "~[", items),
            Value::Push(items) => list(f, ">[", items),
            Value::Map(pairs) => {
                f.write_str("{")?;
                for (i, (name, value)) in pairs.iter().enumerate() {
                    write!(f, "{}{name}: {value}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str("}")
            }
            Value::Double(text) => write!(f, ",{text}"),
            Value::BigNumber(text) => write!(f, "({text}"),
            Value::Boolean(value) => write!(f, "#{value}"),
            Value::Verbatim(format, text) => write!(f, "{format}:{}", quoted(text)),
        }
    }
}

fn quoted(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&quote::repr(bytes)).into_owned()
}

/// The same script on several servers; see the module's page.
pub struct Check {
    /// A server, a connection to it, and its protocol.
    pub servers: Vec<(World, Conn, u8)>,
}

impl Default for Check {
    fn default() -> Self {
        Self::new()
    }
}

impl Check {
    /// One shard and four, RESP2 and RESP3, default configuration.
    pub fn new() -> Self {
        Self::with_config(&[])
    }

    /// The same with these directives.
    pub fn with_config(directives: &[(&str, &str)]) -> Self {
        let mut servers = Vec::new();
        for shards in [1, 4] {
            for resp in [2, 3] {
                let mut world = World::with_config(shards, directives);
                let conn = world.connect();
                if resp == 3 {
                    world.run(conn, "HELLO 3");
                }
                servers.push((world, conn, resp));
            }
        }
        Check { servers }
    }

    /// Runs a command, written as in `redis-cli`, everywhere; its reply must be `expected`. What RESP3 says in types
    /// of its own is brought to RESP2's first, so that one expectation serves both.
    #[track_caller]
    pub fn check(&mut self, line: &str, expected: &str) -> &mut Self {
        for (world, conn, resp) in &mut self.servers {
            let got = world.run(*conn, line).folded().to_string();
            assert_eq!(got, expected, "{line} on {} shard(s), RESP{resp}", world.shards.len());
        }
        self
    }

    /// Runs a command everywhere; its reply must be `resp2` or `resp3`, in the types of the protocol.
    #[track_caller]
    pub fn types(&mut self, line: &str, resp2: &str, resp3: &str) -> &mut Self {
        for (world, conn, resp) in &mut self.servers {
            let got = world.run(*conn, line).to_string();
            let expected = if *resp == 3 { resp3 } else { resp2 };
            assert_eq!(got, expected, "{line} on {} shard(s), RESP{resp}", world.shards.len());
        }
        self
    }

    /// Runs a command everywhere and lets `test` look at its reply, brought to RESP2's types.
    #[track_caller]
    pub fn look(&mut self, line: &str, mut test: impl FnMut(Value)) -> &mut Self {
        for (world, conn, _) in &mut self.servers {
            test(world.run(*conn, line).folded());
        }
        self
    }

    /// Does something with every server.
    #[track_caller]
    pub fn each(&mut self, mut act: impl FnMut(&mut World, Conn)) -> &mut Self {
        for (world, conn, _) in &mut self.servers {
            act(world, *conn);
        }
        self
    }

    /// Lets time pass everywhere.
    pub fn advance(&mut self, ms: u64) -> &mut Self {
        self.each(|world, _| world.advance(ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_run_the_same_everywhere() {
        let mut t = Check::new();
        t.check("SET k v", "OK").check("GET k", "\"v\"").check("STRLEN k", "1").check("GET none", "nil");
        t.check("MSET a 1 b 2 c 3", "OK").check("MGET a b c d", "[\"1\" \"2\" \"3\" nil]").check("DBSIZE", "4");
        t.check("GET", "-ERR wrong number of arguments for 'get' command");
        t.check("SET e 1 PX 100", "OK").advance(101).check("GET e", "nil");
    }

    #[test]
    fn replies_are_understood() {
        let bytes = b"*3\r\n$-1\r\n*-1\r\n%1\r\n+a\r\n~1\r\n:1\r\n=5\r\ntxt:x\r\n,1.5\r\n#t\r\n_\r\n-ERR no\r\n$3\r\n\"\n\x01\r\n";
        let all: Vec<String> = Value::parse_all(bytes).iter().map(Value::to_string).collect();
        assert_eq!(all, ["[nil nil* {a: ~[1]}]", "txt:\"x\"", ",1.5", "#true", "nil", "-ERR no", r#""\"\n\x01""#]);
        assert!(Value::parse(b"$5\r\nab").is_none());
    }

    #[test]
    fn a_closed_connection_is_seen() {
        let mut world = World::new(2);
        let (a, b) = (world.connect(), world.connect());
        assert_eq!(world.run(a, "QUIT").to_string(), "OK");
        assert!(!world.is_open(a) && world.is_open(b));
        assert_eq!(world.shared.connected_clients(), 1);
    }
}
