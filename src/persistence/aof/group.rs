//! `Group`: what the logs of all shards have forced to disk together under `appendfsync always` (group commit).
//!
//! A thread that has written to its shard's log leaves a record of that for the journal ([`super::journal`]), and if
//! nobody else does, it *leads*: it writes the journal, again and again while there is something to write, and takes along
//! what other shards have handed over meanwhile, whose own threads go on sleeping. So whatever the number of shards, a sync
//! costs one write and one flush of the device, and nobody is woken for it. With a journal and a thread for each shard two
//! shards on two cores paid for two; and on a device whose flush takes long they waited for each other's.
//!
//! Where writes of the journal take long, nobody leads: each log's threads write for themselves, and several writes of the
//! journal may be under way at once, each of what was there before it began, so that a turn need not wait for the one
//! before. (`SET` over 50 connections, one shard, on a busy machine: three at once had 1.7 times the throughput of one
//! after the other; on a quiet one, with writes of 0.1 ms, 0.9 times.)
//!
//! Who leads writes what there is and does not wait for more. Of 50 clients in a closed loop nearly all are in one record,
//! and the first few who are back have the next for themselves; yet to wait until half of them are back came to the same
//! without a pipeline (1.03), and to 0.8 of the throughput with one of 16.
//!
//! The logs' own files are forced to disk by a thread of the group's, when half of the journal is taken or once in a
//! second. Where there can be no journal each log is synced by itself.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ringshard_shards::aof::journal::Id;
use ringshard_shards::config::AppendFsync;

use super::Log;
use super::journal::{Journal, Part};
use super::syncs::{Handles, say_sync_failed};
use crate::log;
use crate::net::os_text;

/// Most writes of the journal under way at once.
pub(super) const WRITES: usize = if cfg!(test) { 6 } else { 3 };

/// From here on a write takes long: others are begun before it has ended.
const LONG: Duration = Duration::from_micros(if cfg!(test) { 200 } else { 400 });

/// How long the end of a log is on disk in the journal alone.
const FORCE: Duration = Duration::from_secs(1);

/// See the head of the file.
pub(super) struct Group {
    state: Mutex<State>,
    /// Rings the thread that forces the logs' files to disk.
    bell: Condvar,
    /// Nothing is being written, where somebody waits for that.
    quiet: Condvar,
    /// Whether there is a journal.
    journaling: AtomicBool,
    /// Somebody leads, and will look at what all shards have handed over before he ceases to.
    led: AtomicBool,
    /// How long syncs take of late, in µs.
    mean_us: AtomicU64,
}

struct State {
    journal: Standing,
    /// Where it is, or was before it failed.
    path: Option<PathBuf>,
    /// Whose records are to be written next.
    waiting: Vec<Waiting>,
    /// Writes under way.
    under_way: [bool; WRITES],
    /// By shard, the file of its last record, and up to where that tells.
    last: Vec<Option<(Arc<Handles>, u64)>>,
    /// By shard, up to where its file was to be forced to disk.
    forced: Vec<u64>,
    /// Somebody waits until nothing is being written.
    ends: bool,
}

enum Standing {
    None,
    /// One is being made.
    Coming,
    Ready(Box<Journal>),
    /// There can be none; it is tried again with new files.
    Without,
}

/// A record that is to be written, or being written.
struct Waiting {
    shard: usize,
    /// The log's position behind it.
    to: u64,
    /// Up to where it says that the log's file is on disk.
    durable: u64,
    file: Arc<Handles>,
}

/// What became of a part that was to be recorded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It will be written.
    Recorded,
    /// The journal cannot take it.
    Refused,
    /// There is no journal.
    Without,
}

impl State {
    fn ready(&mut self) -> Option<&mut Journal> {
        match &mut self.journal {
            Standing::Ready(journal) => Some(journal),
            _ => None,
        }
    }
}

impl Group {
    pub(super) fn new(shards: usize) -> Self {
        let state = State {
            journal: Standing::None,
            path: None,
            waiting: Vec::new(),
            under_way: [false; WRITES],
            last: vec![None; shards],
            forced: vec![0; shards],
            ends: false,
        };
        Group {
            state: Mutex::new(state),
            bell: Condvar::new(),
            quiet: Condvar::new(),
            journaling: AtomicBool::new(false),
            led: AtomicBool::new(false),
            mean_us: AtomicU64::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Whether there is a journal, which wants to hear of all that is written.
    pub(super) fn journaling(&self) -> bool {
        self.journaling.load(Relaxed)
    }

    /// Whether somebody will take along what is handed over now.
    pub(super) fn is_led(&self) -> bool {
        self.led.load(SeqCst)
    }

    /// Whether syncs are to overlap.
    pub(super) fn overlap(&self) -> bool {
        self.mean_us.load(Relaxed) >= LONG.as_micros() as u64
    }

    /// A sync took so long.
    pub(super) fn time(&self, took: Duration) {
        let mean = self.mean_us.load(Relaxed);
        self.mean_us.store(mean - mean / 8 + took.as_micros() as u64 / 8, Relaxed);
    }

    /// Has a part of a log, which its file holds already, in the next write of the journal at `path`.
    pub(super) fn add(&self, log: &Log, path: &Path, part: &Part<'_>, file: &Arc<Handles>) -> Added {
        let mut state = self.state();
        let here = state.path.as_deref() == Some(path);
        let Some(journal) = state.ready().filter(|_| here) else { return Added::Without };
        let syncs = |shard: usize| &log.writers[shard].syncs;
        journal.free(|shard| syncs(shard).durable.load(Acquire), |shard| syncs(shard).recorded.load(Acquire));
        if !journal.add(part) {
            return Added::Refused;
        }
        syncs(part.shard).begin(part.to, true);
        state.last[part.shard] = Some((file.clone(), part.to));
        state.waiting.push(Waiting { shard: part.shard, to: part.to, durable: part.durable, file: file.clone() });
        Added::Recorded
    }

    /// Has all records written that wait, by this thread or by who is at it already.
    pub(super) fn lead(&self, log: &Arc<Log>) {
        while self.journaling() {
            if self.overlap() {
                while self.write(log) {}
                return;
            }
            if self.led.swap(true, SeqCst) {
                return;
            }
            // What others have handed over goes with it.
            let mut more = true;
            while more {
                log.writers.iter().for_each(|writer| writer.take_along(log));
                more = self.write(log) && !self.overlap();
            }
            self.led.store(false, SeqCst);
            // Whoever came before that relies on this thread.
            let left = log.writers.iter().filter(|writer| writer.is_left()).collect::<Vec<_>>();
            if left.is_empty() && self.state().waiting.is_empty() {
                return;
            }
            if self.overlap() || !self.journaling() {
                left.into_iter().for_each(|writer| writer.ring());
            }
        }
    }

    /// Who leads has something to do that takes a while: nobody is to rely on him.
    pub(super) fn step_back(&self, log: &Log) {
        if self.led.swap(false, SeqCst) {
            log.writers.iter().for_each(|writer| writer.ring());
        }
    }

    /// Writes the records that wait, unless enough others are at it; whether there were any for this thread to write.
    fn write(&self, log: &Log) -> bool {
        let mut state = self.state();
        let most = if self.overlap() { WRITES } else { 1 };
        let Some(nth) = state.under_way[..most].iter().position(|under_way| !under_way) else { return false };
        let Some(journal) = state.ready() else { return false };
        let Some(write) = journal.take() else { return false };
        let id = *journal.id();
        let records = std::mem::take(&mut state.waiting);
        state.under_way[nth] = true;
        drop(state);
        let syncing = &log.shared.aof.syncing;
        syncing.fetch_add(1, Relaxed);
        let began = Instant::now();
        let result = write.run();
        self.time(began.elapsed());
        if let Err(error) = &result {
            log::warning(format!("The journal of the AOF can't be written: {}. Doing without.", os_text(error)));
            self.fail(&id);
        }
        if self.stands(&id) {
            let end = |record: &Waiting| {
                let syncs = &log.writers[record.shard].syncs;
                syncs.recorded.fetch_max(record.durable, AcqRel);
                syncs.end(record.to, false).map(|position| (record.shard, position))
            };
            log.publish(&records.iter().filter_map(end).collect::<Vec<_>>());
        } else {
            self.do_without(log, records);
        }
        syncing.fetch_sub(1, Relaxed);
        let mut state = self.state();
        state.under_way[nth] = false;
        let half_full = state.ready().is_some_and(|journal| {
            journal.reuse(write);
            journal.is_half_full()
        });
        let ends = state.ends;
        drop(state);
        if half_full {
            self.bell.notify_one();
        }
        if ends {
            self.quiet.notify_all();
        }
        if log.shared.config().appendfsync != AppendFsync::Always {
            self.retire(log);
        }
        true
    }

    /// Whether there still is this journal.
    fn stands(&self, id: &Id) -> bool {
        self.state().ready().is_some_and(|journal| journal.id() == id)
    }

    /// This journal could not be written.
    fn fail(&self, id: &Id) {
        let mut state = self.state();
        if state.ready().is_some_and(|journal| journal.id() == id) {
            state.journal = Standing::Without;
            self.journaling.store(false, Relaxed);
            self.bell.notify_all();
        }
    }

    /// Has on disk in the logs' files what the journal that has failed was to hold, and what it held.
    fn do_without(&self, log: &Log, mut records: Vec<Waiting>) {
        while !records.is_empty() {
            records.iter().for_each(|record| record.sync_file(log));
            // What was added before it was known.
            records = std::mem::take(&mut self.state().waiting);
        }
        let unforced = self.state().unforced(log, false);
        for (shard, file, position) in unforced {
            match file.sync(None) {
                Ok(()) => _ = log.writers[shard].syncs.durable.fetch_max(position, AcqRel),
                Err(error) => {
                    say_sync_failed(&os_text(&error));
                    (log.die)();
                }
            }
        }
    }

    /// Makes a journal, unless there is one, or can be none; others do without meanwhile.
    pub(super) fn make_journal(&self, log: &Arc<Log>, path: &Path) {
        let here = |state: &mut State| state.ready().is_some() && state.path.as_deref() == Some(path);
        if here(&mut self.state()) {
            return;
        }
        // One that is elsewhere, or has failed.
        self.retire(log);
        {
            let mut state = self.state();
            if !matches!(state.journal, Standing::None) || state.path.is_some() {
                return;
            }
            state.journal = Standing::Coming;
        }
        let mut id = [0; 16];
        log.shared.host.secret(&mut id);
        let made = Journal::create(&*log.disk, path, id, log.writers.len()).unwrap_or_else(|error| {
            let text = os_text(&error);
            log::warning(format!("Can't create the journal {} of the AOF: {text}. Doing without.", path.display()));
            None
        });
        let (of, log) = (id, log.clone());
        let thread = std::thread::Builder::new().name("aof-files".to_string());
        let mut state = self.state();
        state.path = made.is_some().then(|| path.to_path_buf());
        state.forced.fill(0);
        state.last.fill(None);
        state.journal = match made {
            Some(journal) if thread.spawn(move || log.group.force_files(&log, &of)).is_ok() => {
                self.journaling.store(true, Relaxed);
                Standing::Ready(Box::new(journal))
            }
            _ => Standing::Without,
        };
    }

    /// There are new files: where there could be no journal it is tried again.
    pub(super) fn try_again(&self) {
        let mut state = self.state();
        if matches!(state.journal, Standing::Without) {
            state.journal = Standing::None;
        }
    }

    /// Takes the journal away if all that it tells is on disk without it.
    pub(super) fn retire(&self, log: &Log) {
        let mut state = self.state();
        let quiet = state.ready().is_none_or(|journal| journal.is_quiet());
        if !quiet || matches!(state.journal, Standing::Coming) || !state.unforced(log, false).is_empty() {
            return;
        }
        if state.ready().is_some() {
            state.journal = Standing::None;
            self.journaling.store(false, Relaxed);
            self.bell.notify_all();
        }
        if let Some(path) = state.path.take() {
            let removed = log.disk.remove(&path);
            // One that is found after all says nothing that the logs' files do not.
            let _ = removed.and_then(|()| path.parent().map_or(Ok(()), |dir| log.disk.sync_dir(dir)));
        }
    }

    /// Waits until all is written, and takes the journal away. Nothing more comes.
    pub(super) fn end(&self, log: &Log) {
        let mut state = self.state();
        state.ends = true;
        while state.under_way.contains(&true) || !state.waiting.is_empty() {
            state = self.quiet.wait(state).unwrap_or_else(|e| e.into_inner());
        }
        drop(state);
        self.retire(log);
    }

    /// Forces the logs' files to disk as they are to be, while there is this journal.
    fn force_files(&self, log: &Log, id: &Id) {
        let mut state = self.state();
        let mut forced = Instant::now();
        while let Some(journal) = state.ready().filter(|journal| journal.id() == id) {
            let half_full = journal.is_half_full();
            let left = FORCE.saturating_sub(forced.elapsed());
            let wanted = match (left.is_zero(), half_full) {
                (true, _) => state.unforced(log, false),
                (false, true) => state.unforced(log, true),
                (false, false) => Vec::new(),
            };
            if wanted.is_empty() {
                let wait = if left.is_zero() { FORCE } else { left };
                state = self.bell.wait_timeout(state, wait).unwrap_or_else(|e| e.into_inner()).0;
                continue;
            }
            wanted.iter().for_each(|(shard, _, position)| state.forced[*shard] = *position);
            drop(state);
            forced = Instant::now();
            for (shard, file, position) in wanted {
                log.shared.aof.syncing.fetch_add(1, Relaxed);
                let result = file.sync(None);
                log.shared.aof.syncing.fetch_sub(1, Relaxed);
                match result {
                    Ok(()) => _ = log.writers[shard].syncs.durable.fetch_max(position, AcqRel),
                    Err(error) => {
                        say_sync_failed(&os_text(&error));
                        (log.die)();
                        return;
                    }
                }
            }
            state = self.state();
        }
    }
}

impl State {
    /// Files with an end that only the journal has on disk: the shard, and up to where. With `unseen` those are left out of
    /// which no record says yet what forcing them to disk last time came to, for that would free no page.
    fn unforced(&self, log: &Log, unseen: bool) -> Vec<(usize, Arc<Handles>, u64)> {
        let mut wanted = Vec::new();
        for (shard, last) in self.last.iter().enumerate() {
            let Some((file, position)) = last else { continue };
            let syncs = &log.writers[shard].syncs;
            let seen_to = unseen && self.forced[shard] > syncs.recorded.load(Acquire);
            if *position > syncs.durable.load(Acquire) && !seen_to {
                wanted.push((shard, file.clone(), *position));
            }
        }
        wanted
    }
}

impl Waiting {
    /// Has its log's file on disk instead, or ends the process.
    fn sync_file(&self, log: &Log) {
        if let Err(error) = self.file.sync(None) {
            say_sync_failed(&os_text(&error));
            (log.die)();
            return;
        }
        if let Some(position) = log.writers[self.shard].syncs.end(self.to, true) {
            log.publish(&[(self.shard, position)]);
        }
    }
}
