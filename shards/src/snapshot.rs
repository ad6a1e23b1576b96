//! Snapshots, as the server as a whole sees them: when they begin, what became of them, what is loaded at the start.
//!
//! - [`begin`] makes the cut, with the slices of all shards in hand, so that every transaction is in the snapshot whole
//!   or not at all. From then on each shard walks its slice ([`crate::db::snapshot`]) and hands pieces to the driver,
//!   which writes them to one file in whatever order they come. The driver says here how it went.
//! - [`save`] writes everything at once, as `SAVE` does.
//! - [`insert`] takes in keys that a file holds, and [`load`] a whole file.
//!
//! Counterpart: `rdb.c`, the parts that are not the format.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::*};

use crate::aof::State;
use crate::commands::dump::Usage;
use crate::commands::function::load_library;
use crate::commands::{CommandError, Key};
use crate::config::Config;
use crate::core::Core;
use crate::db::snapshot::{CHUNK_BYTES, Chunk, Manner, gather};
use crate::db::{RedisDb, Slice};
use crate::rdb::Error;
use crate::rdb::file::{self, Item, Meta, Reader, Source, opcode};
use crate::rdb::read::{Cursor, Limits, value};
use crate::rdb::write::{Style, Writer};
use crate::router::ShardId;
use crate::shard::{Effect, LogLevel};
use crate::shared::{Lone, Shared};

/// Bytes of one shard's pieces that may wait to be written before its walk waits too. What writes need to have written
/// first is added whatever waits.
pub const PENDING_MAX: usize = 4 << 20;

/// Bytes that may wait to be loaded by one shard before the file is read on.
pub const LOADING_MAX: usize = 8 << 20;

/// After a failure the next attempt waits so many seconds (Redis: `CONFIG_BGSAVE_RETRY_DELAY`).
const RETRY_SECONDS: i64 = 5;

/// The state of persistence that all shards and the driver share.
#[derive(Debug)]
pub struct Persistence {
    /// The data is being loaded.
    pub loading: AtomicBool,
    /// Unix ms at which loading began.
    pub loading_since_ms: AtomicI64,
    /// Bytes of the file being loaded, and how many of them were read.
    pub loading_total: AtomicU64,
    /// See there.
    pub loading_done: AtomicU64,
    /// Bytes on their way to each shard.
    pub loading_pending: Vec<Lone<AtomicUsize>>,
    /// Keys that the last load took in, passed over as expired, and passed over as empty.
    pub loaded: [AtomicU64; 3],
    /// Why loading failed on a shard.
    pub loading_error: Mutex<Option<String>>,
    /// A snapshot is being written in the background.
    pub saving: AtomicBool,
    /// The number of the last snapshot begun.
    pub snapshot: AtomicU64,
    /// What the running one is for: 0 for a file of its own, else the base file of this generation of logs.
    pub base_of: AtomicU64,
    /// It is for replicas, and no file of its own.
    pub for_replicas: AtomicBool,
    /// How its values are written.
    pub version: AtomicU64,
    /// One is to begin as soon as nothing else is written in the background.
    pub scheduled: AtomicBool,
    /// Snapshots up to this number are given up, or done.
    pub over: AtomicU64,
    /// Bytes of each shard's pieces that wait to be written.
    pub pending: Vec<Lone<AtomicUsize>>,
    /// Keys written by the running snapshot, and keys there were at its cut.
    pub progress: [AtomicUsize; 2],
    /// Changes ever made to each shard's slice, as of its last time event.
    pub changes: Vec<Lone<AtomicU64>>,
    /// Changes that the last good snapshot holds.
    pub saved_changes: AtomicU64,
    /// Changes at the cut of the running one.
    pub cut_changes: AtomicU64,
    /// Unix seconds of the last good snapshot, or of the start.
    pub last_save: AtomicI64,
    /// Unix seconds of the last attempt.
    pub last_try: AtomicI64,
    /// Unix ms at which the running one began.
    pub since_ms: AtomicI64,
    /// How the last one in the background ended.
    pub last_ok: AtomicBool,
    /// How many seconds it took, or -1.
    pub last_seconds: AtomicI64,
    /// Good ones since the start.
    pub saves: AtomicU64,
}

impl Persistence {
    /// Nothing has happened yet.
    pub fn new(shards: usize, start_ms: i64) -> Self {
        let counters = || (0..shards).map(|_| Lone::default()).collect();
        Persistence {
            loading: AtomicBool::new(false),
            loading_since_ms: AtomicI64::new(0),
            loading_total: AtomicU64::new(0),
            loading_done: AtomicU64::new(0),
            loading_pending: counters(),
            loaded: Default::default(),
            loading_error: Mutex::default(),
            saving: AtomicBool::new(false),
            snapshot: AtomicU64::new(0),
            base_of: AtomicU64::new(0),
            for_replicas: AtomicBool::new(false),
            version: AtomicU64::new(0),
            scheduled: AtomicBool::new(false),
            over: AtomicU64::new(0),
            pending: counters(),
            progress: Default::default(),
            changes: (0..shards).map(|_| Lone::default()).collect(),
            saved_changes: AtomicU64::new(0),
            cut_changes: AtomicU64::new(0),
            last_save: AtomicI64::new(start_ms / 1000),
            last_try: AtomicI64::new(0),
            since_ms: AtomicI64::new(0),
            last_ok: AtomicBool::new(true),
            last_seconds: AtomicI64::new(-1),
            saves: AtomicU64::new(0),
        }
    }

    /// Whether snapshot `id` is given up, or done.
    pub fn is_over(&self, id: u64) -> bool {
        self.over.load(Acquire) >= id
    }

    /// Gives up the running snapshot, if there is one that is not for the log.
    pub fn give_up_own(&self) {
        if self.base_of.load(Acquire) == 0 && !self.for_replicas.load(Acquire) {
            self.give_up();
        }
    }

    /// Gives up the running snapshot, if there is one.
    pub fn give_up(&self) {
        self.over.fetch_max(self.snapshot.load(Acquire), AcqRel);
    }

    /// The driver has ended snapshot `id` in the background: `Some` with success or not, `None` when it was given up.
    pub fn ended(&self, id: u64, now_ms: i64, good: Option<bool>) {
        self.over.fetch_max(id, AcqRel);
        if let Some(good) = good {
            self.last_seconds.store((now_ms - self.since_ms.load(Relaxed)) / 1000, Relaxed);
            self.last_ok.store(good, Relaxed);
            if good {
                self.good(now_ms, self.cut_changes.load(Relaxed));
            }
        }
        if self.is_last(id) {
            self.saving.store(false, Release);
        }
    }

    /// Whether none was begun after snapshot `id`: one that was given up may come to its end while the next is under way.
    fn is_last(&self, id: u64) -> bool {
        self.snapshot.load(Acquire) == id
    }

    fn good(&self, now_ms: i64, changes: u64) {
        self.last_save.store(now_ms / 1000, Relaxed);
        self.saved_changes.store(changes, Relaxed);
        self.saves.fetch_add(1, Relaxed);
    }

    /// Whether writes are refused because snapshots fail.
    pub fn refuses_writes(&self, config: &Config) -> bool {
        config.stop_writes_on_bgsave_error && !self.last_ok.load(Relaxed) && !config.save.is_empty()
    }

    /// The save point that is due, if one is: its seconds and the changes there are.
    pub fn due(&self, config: &Config, now_ms: i64) -> Option<(i64, u64)> {
        if self.saving.load(Acquire) || self.loading.load(Acquire) {
            return None;
        }
        let now = now_ms / 1000;
        let ever: u64 = self.changes.iter().map(|n| n.0.load(Relaxed)).sum();
        let changes = ever.saturating_sub(self.saved_changes.load(Relaxed));
        let since = now - self.last_save.load(Relaxed);
        let may = self.last_ok.load(Relaxed) || now - self.last_try.load(Relaxed) > RETRY_SECONDS;
        let due = config.save.iter().find(|point| changes >= point.changes && since > point.seconds as i64);
        due.filter(|_| may).map(|point| (point.seconds as i64, changes))
    }
}

/// The one file that the pieces of all shards make, in the order in which they come.
#[derive(Default)]
pub struct Assembly {
    id: u64,
    /// See [`Persistence::base_of`].
    base_of: u64,
    for_replicas: bool,
    file: Option<Result<Box<dyn SnapshotFile>, String>>,
    /// Shards that have given their last piece.
    ended: usize,
    /// Whose last item goes on in the next piece of it.
    open: Option<ShardId>,
    /// Pieces of the others meanwhile. They are few: who sees that many of its bytes wait walks no further.
    parked: VecDeque<Chunk>,
}

/// What became of a snapshot with a piece more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on.
    Going,
    /// It is whole and in its place.
    Saved,
    /// It came to nothing; why.
    Failed(String),
    /// It was given up, or is one that was.
    GivenUp,
}

impl Assembly {
    /// Adds a piece, and says in the shared state what came of it.
    pub fn take(&mut self, shared: &Shared, chunk: Chunk, now_ms: i64) -> Outcome {
        if chunk.snapshot == self.id && self.open.is_some_and(|shard| shard != chunk.shard) {
            self.parked.push_back(chunk);
            return Outcome::Going;
        }
        let mut outcome = self.take_next(shared, chunk, now_ms);
        while outcome == Outcome::Going
            && self.open.is_none()
            && let Some(chunk) = self.parked.pop_front()
        {
            outcome = self.take_next(shared, chunk, now_ms);
        }
        if outcome != Outcome::Going {
            self.open = None;
            for chunk in self.parked.drain(..) {
                shared.persistence.pending[chunk.shard as usize].0.fetch_sub(chunk.bytes.len(), AcqRel);
            }
        }
        outcome
    }

    fn take_next(&mut self, shared: &Shared, chunk: Chunk, now_ms: i64) -> Outcome {
        let persistence = &shared.persistence;
        let outcome = self.add(shared, &chunk, now_ms);
        persistence.pending[chunk.shard as usize].0.fetch_sub(chunk.bytes.len(), AcqRel);
        if outcome == Outcome::Going {
            return outcome;
        }
        let running = self.file.take().is_some();
        let good = match outcome {
            Outcome::GivenUp if !running => return outcome,
            Outcome::GivenUp => None,
            _ => Some(outcome == Outcome::Saved),
        };
        match self.base_of {
            _ if self.for_replicas => {
                end_sync(shared, chunk.snapshot, good == Some(true));
            }
            0 => persistence.ended(chunk.snapshot, now_ms, good),
            _ => rewrite_ended(shared, chunk.snapshot, now_ms, good),
        }
        shared.bump_epoch();
        outcome
    }

    /// Whether the last one was the base file of a log.
    pub fn is_base(&self) -> bool {
        self.base_of != 0
    }

    /// Whether the last one was for replicas.
    pub fn is_for_replicas(&self) -> bool {
        self.for_replicas
    }

    fn add(&mut self, shared: &Shared, chunk: &Chunk, now_ms: i64) -> Outcome {
        if chunk.snapshot != self.id {
            let config = shared.config();
            let base_of = shared.persistence.base_of.load(Acquire);
            let for_replicas = shared.persistence.for_replicas.load(Acquire);
            let made = match base_of {
                _ if for_replicas => shared.host.create_sync(&config, chunk.snapshot),
                0 => shared.host.create_snapshot(&config, true),
                generation => shared.host.create_base(&config, generation),
            };
            let head = match base_of == 0 || config.aof_use_rdb_preamble {
                true => {
                    let mut style = Style::of(&config);
                    if for_replicas {
                        style.version = shared.persistence.version.load(Acquire) as u16;
                    }
                    styled_head(shared, style, now_ms, base_of != 0, true)
                }
                false => crate::aof::rewrite::head(shared, &config, now_ms),
            };
            let file = made.and_then(|mut file| file.write(&head).map(|()| file));
            // Those of one that was given up.
            for old in self.parked.drain(..) {
                shared.persistence.pending[old.shard as usize].0.fetch_sub(old.bytes.len(), AcqRel);
            }
            *self = Assembly { id: chunk.snapshot, base_of, for_replicas, file: Some(file), ..Assembly::default() };
        }
        self.open = chunk.open.then_some(chunk.shard);
        if shared.persistence.is_over(chunk.snapshot) {
            return Outcome::GivenUp;
        }
        shared.persistence.progress[0].fetch_add(chunk.keys, Relaxed);
        self.ended += chunk.last as usize;
        let whole = self.ended == shared.shards;
        let written = match self.file.take() {
            Some(Ok(mut file)) => file.write(&chunk.bytes).and_then(|()| match whole {
                true => file.finish().map(|()| None),
                false => Ok(Some(file)),
            }),
            Some(Err(text)) => Err(text),
            None => return Outcome::GivenUp,
        };
        match written {
            Ok(None) => Outcome::Saved,
            Ok(Some(file)) => {
                self.file = Some(Ok(file));
                Outcome::Going
            }
            Err(text) => Outcome::Failed(text),
        }
    }
}

/// What a snapshot is written to.
pub trait SnapshotFile: Send {
    /// Adds bytes.
    ///
    /// # Errors
    /// What to say in the log.
    fn write(&mut self, bytes: &[u8]) -> Result<(), String>;
    /// Adds the end, and puts the file in the place of the last one. A file that is dropped without this leaves no trace.
    ///
    /// # Errors
    /// What to say in the log.
    fn finish(self: Box<Self>) -> Result<(), String>;
}

/// The beginning of a file of this server.
pub fn file_head(shared: &Shared, config: &Config, now_ms: i64, base: bool) -> Vec<u8> {
    styled_head(shared, Style::of(config), now_ms, base, true)
}

fn styled_head(shared: &Shared, style: Style, now_ms: i64, base: bool, functions: bool) -> Vec<u8> {
    let fields = [
        ("redis-ver", crate::REDIS_VERSION.to_string()),
        ("redis-bits", usize::BITS.to_string()),
        ("ctime", (now_ms / 1000).to_string()),
        ("used-mem", shared.host.used_memory().to_string()),
        ("aof-base", u8::from(base).to_string()),
    ];
    let mut head = file::head(style, &fields);
    if !functions {
        return head;
    }
    shared.scripts.with_libraries(|libraries| {
        for library in libraries.by_name.values() {
            head.push(opcode::FUNCTION);
            Writer { out: &mut head, style }.string(&library.code);
        }
    });
    head
}

/// Makes the cut of a snapshot in the background. All slices are in hand.
///
/// # Errors
/// When there is one already.
pub fn begin<'a>(core: &mut Core, slices: impl Iterator<Item = &'a mut Slice>) -> Result<u64, CommandError> {
    let shared = core.shared.clone();
    let persistence = &shared.persistence;
    persistence.scheduled.store(false, Relaxed);
    if shared.aof.rewriting.load(Acquire) {
        return Err(
            "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in order to \
                    schedule a BGSAVE whenever possible."
                .into(),
        );
    }
    if persistence.saving.swap(true, AcqRel) {
        return Err("ERR Background save already in progress".into());
    }
    persistence.base_of.store(0, Release);
    persistence.for_replicas.store(false, Release);
    Ok(begin_walk(core, slices, Manner::of(core)))
}

/// Makes the cut of a full sync, if nothing else is written in the background; values are written as this RDB version
/// has them. All slices are in hand. Returns the snapshot's number.
pub fn begin_sync<'a>(core: &mut Core, slices: impl Iterator<Item = &'a mut Slice>, version: u16) -> Option<u64> {
    let shared = core.shared.clone();
    let persistence = &shared.persistence;
    if shared.aof.rewriting.load(Acquire) || persistence.saving.swap(true, AcqRel) {
        return None;
    }
    persistence.base_of.store(0, Release);
    persistence.for_replicas.store(true, Release);
    persistence.version.store(u64::from(version), Release);
    let mut manner = Manner::of(core);
    manner.style.version = version;
    Some(begin_walk(core, slices, manner))
}

/// Writes the snapshot of a replica that wants no keys. It takes no walk. Returns its number, or nothing while something
/// else is written.
///
/// # Errors
/// What to say in the log.
pub fn write_filtered(core: &mut Core, functions: bool, version: u16) -> Result<Option<u64>, String> {
    let shared = core.shared.clone();
    if shared.persistence.saving.load(Acquire) {
        return Ok(None);
    }
    // No snapshot begins while all slices are in the caller's hands.
    let id = shared.persistence.snapshot.fetch_add(1, AcqRel) + 1;
    shared.persistence.over.fetch_max(id, AcqRel);
    let mut style = Style::of(&core.config);
    style.version = version;
    let mut file = shared.host.create_sync(&core.config, id)?;
    file.write(&styled_head(&shared, style, core.now_ms, false, functions))?;
    file.finish()?;
    Ok(Some(id))
}

/// A full sync's snapshot has come to its end, good or not.
fn end_sync(shared: &Shared, id: u64, good: bool) {
    shared.persistence.over.fetch_max(id, AcqRel);
    let bytes = if good { shared.host.sync_bytes(id) } else { None };
    let (homes, needed) = shared.replication.sync_ended(id, bytes);
    if !needed {
        shared.host.drop_sync(id);
    }
    shared.persistence.saving.store(false, Release);
    homes.into_iter().for_each(|home| shared.host.wake(home));
}

/// Begins a rewrite of the log: the cut, from which on effects belong to a new generation of files, and the snapshot of
/// what was before. Where there is no log yet, it begins. All slices are in hand.
///
/// # Errors
/// What to say in the log.
pub fn begin_rewrite<'a>(core: &mut Core, slices: impl Iterator<Item = &'a mut Slice>) -> Result<(), String> {
    let shared = core.shared.clone();
    let (persistence, aof) = (&shared.persistence, &shared.aof);
    if !shared.config().appendonly && aof.state() == State::Waiting {
        // It was turned off again meanwhile.
        aof.rewriting.store(false, Release);
        aof.set_state(State::Off);
        return Ok(());
    }
    if persistence.saving.swap(true, AcqRel) {
        aof.rewriting.store(false, Release);
        aof.scheduled.store(true, Release);
        return Ok(());
    }
    aof.rewriting.store(true, Release);
    let generation = aof.generation.load(Acquire) + 1;
    // The base file alone is written where there is no log.
    let logs = aof.state() != State::Off;
    let made = match logs {
        true => shared.host.begin_generation(&core.config, generation, aof.state() != State::On),
        false => Ok(()),
    };
    if let Err(text) = made {
        aof.rewrite_ok.store(false, Relaxed);
        aof.rewriting.store(false, Release);
        persistence.saving.store(false, Release);
        if aof.state() == State::Waiting {
            aof.scheduled.store(true, Release);
            aof.not_before_ms.store(core.now_ms + 1000, Relaxed);
        }
        return Err(text);
    }
    aof.rewrites.fetch_add(1, Relaxed);
    aof.generation.store(generation, Release);
    aof.rewrite_since_ms.store(core.now_ms, Relaxed);
    persistence.base_of.store(generation, Release);
    persistence.for_replicas.store(false, Release);
    let mut slices: Vec<_> = slices.collect();
    for slice in &mut slices {
        slice.log.on = logs;
        slice.log.cut(slice.owner, generation);
    }
    core.effects.set(logs, core.effects.stream);
    let manner = Manner { commands: !core.config.aof_use_rdb_preamble, ..Manner::of(core) };
    begin_walk(core, slices.into_iter(), manner);
    core.for_driver.push(Effect::Log(
        LogLevel::Notice,
        format!("Background append only file rewriting started by pid {}", shared.process_id),
    ));
    Ok(())
}

/// A rewrite has come to its end: `Some` with success or not, `None` when it was given up.
fn rewrite_ended(shared: &Shared, id: u64, now_ms: i64, good: Option<bool>) {
    let aof = &shared.aof;
    shared.persistence.over.fetch_max(id, AcqRel);
    let since = aof.rewrite_since_ms.swap(0, Relaxed);
    aof.rewrite_seconds.store((now_ms - since) / 1000, Relaxed);
    match good {
        Some(true) => {
            aof.rewrite_ok.store(true, Relaxed);
            aof.failures.store(0, Relaxed);
            aof.rewrite_base_size.store(aof.current_size(), Relaxed);
            if aof.state() == State::Waiting {
                aof.set_state(State::On);
            }
        }
        Some(false) => {
            aof.rewrite_ok.store(false, Relaxed);
            // Redis waits longer each time, up to an hour, from the third failure on.
            let failures = aof.failures.fetch_add(1, Relaxed) + 1;
            if failures >= 3 {
                let minutes = 1i64 << (failures - 3).min(6);
                aof.not_before_ms.store(now_ms + minutes.min(60) * 60_000, Relaxed);
            }
        }
        None => {}
    }
    if good != Some(true) && aof.state() == State::Waiting {
        aof.scheduled.store(true, Release);
    }
    if shared.persistence.is_last(id) {
        aof.rewriting.store(false, Release);
        shared.persistence.saving.store(false, Release);
    }
}

fn begin_walk<'a>(core: &mut Core, slices: impl Iterator<Item = &'a mut Slice>, manner: Manner) -> u64 {
    let shared = core.shared.clone();
    let persistence = &shared.persistence;
    let id = persistence.snapshot.load(Acquire) + 1;
    let (mut changes, mut keys) = (0, 0);
    for slice in slices {
        slice.begin_snapshot(id, manner, &core.hasher);
        changes += slice.changes;
        keys += slice.dbs.iter().map(|db| db.dict.len()).sum::<usize>();
    }
    persistence.cut_changes.store(changes, Relaxed);
    persistence.progress[0].store(0, Relaxed);
    persistence.progress[1].store(keys, Relaxed);
    persistence.since_ms.store(core.now_ms, Relaxed);
    if persistence.base_of.load(Acquire) == 0 && !persistence.for_replicas.load(Acquire) {
        persistence.last_try.store(core.now_ms / 1000, Relaxed);
    }
    persistence.snapshot.store(id, Release);
    id
}

/// Writes everything in the slices in hand, which are all, while everyone waits.
///
/// # Errors
/// What to say in the log.
pub fn save<'a>(core: &mut Core, slices: impl Iterator<Item = &'a mut Slice>) -> Result<(), String> {
    let shared = core.shared.clone();
    let mut file = shared.host.create_snapshot(&core.config, false)?;
    file.write(&file_head(&shared, &core.config, core.now_ms, false))?;
    let manner = Manner::of(core);
    let slices: Vec<&mut Slice> = slices.collect();
    let changes = slices.iter().map(|slice| slice.changes).sum();
    let (mut out, mut found) = (Vec::new(), Vec::new());
    for n in 0..core.config.databases as usize {
        let dbs = slices.iter().filter_map(|slice| slice.dbs.get(n)).filter(|db| !db.dict.is_empty());
        let mut walks: Vec<(&RedisDb, u64)> = dbs.map(|db| (db, 0)).collect();
        let Some((first, _)) = walks.first() else { continue };
        let id = first.id;
        let sizes = walks.iter().map(|(db, _)| (db.dict.len(), db.expires.len()));
        let (keys, expires) = sizes.fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1));
        manner.write_database(&mut out, id, Some((keys, expires)));
        // A piece of one slice after that of another, so that who loads the file has work for all shards all the time.
        while !walks.is_empty() {
            for (db, cursor) in &mut walks {
                while out.len() < CHUNK_BYTES {
                    *cursor = gather(&db.dict, *cursor, &mut found);
                    found.drain(..).for_each(|entry| manner.write(&mut out, entry));
                    if *cursor == 0 {
                        break;
                    }
                }
                file.write(&out)?;
                out.clear();
            }
            walks.retain(|(_, cursor)| *cursor != 0);
        }
    }
    file.finish()?;
    shared.persistence.good(core.now_ms, changes);
    shared.persistence.last_ok.store(true, Relaxed);
    shared.bump_epoch();
    Ok(())
}

/// Keys for one shard, as a file holds them, and libraries of functions for all.
#[derive(Debug, Default)]
pub struct LoadBatch {
    functions: Vec<Vec<u8>>,
    /// How many keys, and how many of them with a time, the shard has to expect in a database.
    sizes: Vec<(usize, [u64; 2])>,
    /// Items of the file, one behind the other.
    bytes: Vec<u8>,
    /// Where each begins in the file, and where it ends in `bytes`.
    items: Vec<(u64, usize)>,
    /// From which item on keys are in which database.
    dbs: Vec<(usize, u64)>,
    /// It is part of what a log builds on: what has expired since may be needed by commands behind it.
    pub(crate) in_log: bool,
    /// A part of a log's commands instead.
    pub(crate) log: Option<LogBatch>,
    /// Behind it, writes are told in the log.
    pub(crate) begins_logging: bool,
}

/// A part of a log.
#[derive(Debug, Default)]
pub struct LogBatch {
    /// Whose log, and of how many.
    pub origin: (ShardId, usize),
    /// It is the first part of a file.
    pub begins: bool,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl LoadBatch {
    /// A part of a log.
    pub fn of_log(part: LogBatch) -> Self {
        LoadBatch { log: Some(part), ..LoadBatch::default() }
    }

    /// The end: from here on writes are told in the log.
    pub fn begin_logging() -> Self {
        LoadBatch { begins_logging: true, ..LoadBatch::default() }
    }

    /// Adds a key of this database, as [`Item::Key`] holds it; `offset` says where in the file it is.
    pub fn push(&mut self, db: u64, offset: u64, item: &[u8]) {
        if self.dbs.last().is_none_or(|(_, last)| *last != db) {
            self.dbs.push((self.items.len(), db));
        }
        self.bytes.extend_from_slice(item);
        self.items.push((offset, self.bytes.len()));
    }

    /// Says how many keys to expect in a database.
    fn expect(&mut self, db: usize, sizes: [u64; 2]) {
        match self.sizes.iter_mut().find(|(of, _)| *of == db) {
            Some((_, expected)) => *expected = sizes,
            None => self.sizes.push((db, sizes)),
        }
    }

    /// How many keys.
    pub fn keys(&self) -> usize {
        self.items.len()
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        // Even what has none must be waited for.
        1 + self.bytes.len() + self.log.as_ref().map_or(0, |part| part.bytes.len())
    }

    fn is_empty(&self) -> bool {
        self.items.is_empty() && self.functions.is_empty()
    }
}

/// The text of a failed load.
pub fn load_failure(offset: u64, error: &Error) -> String {
    format!("Internal error in RDB reading offset {offset} -> {error}")
}

/// Keys that are looked ahead at, so that the lines of the table that they will need come while others are taken in.
const AHEAD: usize = 16;

/// Takes a batch into its slice.
///
/// # Errors
/// The text of a failed load.
pub fn load_batch(core: &mut Core, slice: &mut Slice, batch: &LoadBatch, merge: bool) -> Result<(), String> {
    let limits = Limits::of(core);
    for code in &batch.functions {
        load_library(core, code, merge).map_err(|text| format!("Failed loading functions: {text}"))?;
    }
    for (db, [keys, expires]) in &batch.sizes {
        if let Some(db) = slice.dbs.get_mut(*db) {
            db.dict.reserve(&core.hasher, *keys);
            db.expires.reserve(&core.hasher, *expires);
        }
    }
    let mut counts = [0; 3];
    let loaded = load_items(core, slice, batch, merge, &limits, &mut counts);
    for (counter, count) in core.shared.persistence.loaded.iter().zip(counts) {
        counter.fetch_add(count, Relaxed);
    }
    loaded
}

fn load_items(
    core: &mut Core,
    slice: &mut Slice,
    batch: &LoadBatch,
    merge: bool,
    limits: &Limits,
    counts: &mut [u64; 3],
) -> Result<(), String> {
    let ends = batch.dbs.iter().skip(1).map(|(from, _)| *from).chain([batch.items.len()]);
    let mut begin = 0;
    let mut ahead = Vec::with_capacity(AHEAD);
    for ((from, number), to) in batch.dbs.iter().zip(ends) {
        let db = usize::try_from(*number).ok().and_then(|db| slice.dbs.get_mut(db));
        let db = db.ok_or_else(|| load_failure(batch.items[*from].0, &DATABASES))?;
        for items in batch.items[*from..to].chunks(AHEAD) {
            for (offset, end) in items {
                let mut value = Cursor { rest: &batch.bytes[begin..*end] };
                begin = *end;
                let (meta, name) = file::key(&mut value).map_err(|error| load_failure(*offset, &error))?;
                let hash = core.hasher.hash(&name);
                db.dict.prefetch_bucket(hash);
                ahead.push((*offset, Written { meta, name, hash, value }));
            }
            for (offset, written) in ahead.drain(..) {
                let inserted = insert(core, db, written, limits, (merge, batch.in_log));
                counts[inserted.map_err(|error| load_failure(offset, &error))?] += 1;
            }
        }
    }
    Ok(())
}

const DATABASES: Error =
    Error::Corrupt("The data was saved by a server with more databases, see the directive databases");

/// A key of a file, with its value as it is written.
struct Written<'a> {
    meta: Meta,
    name: Cow<'a, [u8]>,
    hash: u64,
    value: Cursor<'a>,
}

/// Adds one key of a file to its database. Says which of [`Persistence::loaded`] counts it.
fn insert(
    core: &mut Core,
    db: &mut RedisDb,
    written: Written<'_>,
    limits: &Limits,
    (merge, in_log): (bool, bool),
) -> Result<usize, Error> {
    let Written { meta, name, hash, value: mut from } = written;
    if !in_log && meta.expire_at.is_some_and(|at| at <= core.now_ms) {
        return Ok(1);
    }
    let value = match value(meta.kind, &mut from, limits) {
        // An old defect of Redis could leave empty collections; they are passed over, as there.
        Err(Error::Empty) => {
            let line = format!("skipping empty key: {}", String::from_utf8_lossy(&name));
            core.for_driver.push(Effect::Log(LogLevel::Notice, line));
            return Ok(2);
        }
        value => value?,
    };
    let key = Key { bytes: &name, hash };
    if db.dict.find(hash, &name).is_some() && !(merge && db.delete(key)) {
        return Err(Error::Corrupt("RDB has duplicated key"));
    }
    let mut entry = value.into_entry(&name, meta.expire_at);
    db.before_write(&name);
    db.add(core, key, entry);
    let idle_seconds = meta.idle_seconds.map(|idle| idle.min(i64::MAX as u64) as i64);
    Usage { idle_seconds, frequency: meta.frequency }.stamp(&mut entry, core);
    Ok(0)
}

/// How many keys a file says that it holds, by database. What it says may be false: no more is believed than its length
/// allows, and a table that was made too large shrinks like any other.
struct Sizes {
    shards: u64,
    databases: usize,
    left: u64,
    of: BTreeMap<usize, [u64; 2]>,
}

impl Sizes {
    /// A table takes 12 bytes for a key, so that a file can claim no more than one and a half times its length.
    const BYTES_PER_KEY: u64 = 8;

    fn new(shared: &Shared, bytes: Option<u64>) -> Self {
        let left = bytes.unwrap_or(0) / Self::BYTES_PER_KEY;
        Sizes { shards: shared.shards as u64, databases: shared.config().databases as usize, left, of: BTreeMap::new() }
    }

    /// Takes in what stands in front of keys; says what each shard has to expect in all. Our own files have it once for
    /// each shard that wrote them.
    fn add(&mut self, db: u64, sizes: [u64; 2]) -> Option<(usize, [u64; 2])> {
        let db = usize::try_from(db).ok().filter(|db| *db < self.databases)?;
        let sums = self.of.entry(db).or_default();
        for (sum, size) in sums.iter_mut().zip(sizes) {
            let believed = size.min(self.left);
            self.left -= believed;
            *sum += believed;
        }
        Some((db, sums.map(|sum| sum.div_ceil(self.shards))))
    }
}

/// Reads a file and hands its keys out, a batch for one shard at a time; says how long it is. With `in_log` it is what a
/// log builds on.
///
/// # Errors
/// The text of a failed load.
pub fn distribute<S: Source>(
    shared: &Shared,
    source: S,
    checksum: bool,
    in_log: bool,
    mut hand_out: impl FnMut(ShardId, LoadBatch, u64) -> Result<(), String>,
) -> Result<u64, String> {
    /// Batches are handed out from this size on.
    const BATCH_BYTES: usize = 64 * 1024;
    shared.persistence.loaded.iter().for_each(|count| count.store(0, Relaxed));
    let empty = || LoadBatch {
        in_log,
        bytes: Vec::with_capacity(BATCH_BYTES + BATCH_BYTES / 8),
        items: Vec::with_capacity(BATCH_BYTES / 64),
        ..LoadBatch::default()
    };
    let mut batches: Vec<LoadBatch> = (0..shared.shards).map(|_| empty()).collect();
    let mut reader = Reader::new(source, checksum).map_err(|error| load_failure(0, &error))?;
    let mut sizes = Sizes::new(shared, reader.left());
    loop {
        let (offset, db) = (reader.offset(), reader.db());
        let item = match reader.item() {
            Ok(item) => item,
            Err(error) => return Err(load_failure(reader.offset(), &error)),
        };
        match item {
            Item::Key(item, key) => {
                let owner = match shared.shards {
                    1 => 0,
                    shards => {
                        let name = Cursor { rest: key }.string().map_err(|error| load_failure(offset, &error))?;
                        crate::router::owner_of(&name, shards)
                    }
                };
                let batch = &mut batches[owner as usize];
                batch.push(db, offset, item);
                if batch.bytes() >= BATCH_BYTES {
                    hand_out(owner, std::mem::replace(batch, empty()), offset)?;
                }
            }
            Item::End(_) => break,
            Item::Function(code) => {
                let code = file::text(code).map_err(|error| load_failure(offset, &error))?;
                batches[0].functions.push(code);
            }
            Item::Sizes(keys, expires) => {
                if let Some((db, each)) = sizes.add(db, [keys, expires]) {
                    batches.iter_mut().for_each(|batch| batch.expect(db, each));
                }
            }
            Item::Aux(..) | Item::Db(_) => {}
        }
    }
    for (owner, batch) in batches.into_iter().enumerate().filter(|(_, batch)| !batch.is_empty()) {
        hand_out(owner as ShardId, batch, reader.offset())?;
    }
    Ok(reader.offset())
}

/// Loads a whole file into the slices in hand, which are all; `slices` are in the order of their owners. With `merge`
/// keys that are there give way.
///
/// # Errors
/// The text of a failed load.
pub fn load<S: Source>(
    core: &mut Core,
    source: S,
    slices: &mut [&mut Slice],
    merge: bool,
    in_log: bool,
) -> Result<(), String> {
    let shared = core.shared.clone();
    let checksum = core.config.rdbchecksum;
    let hand_out = |owner: ShardId, batch: LoadBatch, _| load_batch(core, slices[owner as usize], &batch, merge);
    distribute(&shared, source, checksum, in_log, hand_out).map(|_| ())
}

/// Empties everything, for what is to be loaded in its place.
pub fn empty(core: &mut Core, slices: &mut [&mut Slice], for_log: bool) {
    if !for_log {
        core.shared.persistence.give_up();
    }
    let _ = core.shared.scripts.change_libraries(|libraries| {
        libraries.clear();
        Ok(())
    });
    core.shared.scripts.note_removed();
    for db in slices.iter_mut().flat_map(|slice| &mut slice.dbs) {
        db.empty(core, false);
    }
    if core.tracked {
        crate::tracking::flushed(core, slices.iter_mut().map(|slice| &mut **slice));
    }
}
