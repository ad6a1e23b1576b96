//! Snapshots as a shard does its part in them, loading, and the server's end.

use std::borrow::Cow;
use std::sync::atomic::Ordering::*;

use super::{Effect, LogLevel, Shard, Shutdown, Waiting};
use crate::aof::State;
use crate::aof::load::LogLoader;
use crate::client::ClientView;
use crate::commands::{Command, flag};
use crate::db::snapshot::Chunk;
use crate::router::ShardId;
use crate::snapshot::{self, LoadBatch, LogBatch, PENDING_MAX};
use crate::transaction::{Job, Tx, TxId};

/// How long a turn may walk, in µs: as long as some hundred commands. What it adds to the time a request waits is
/// bounded by it.
///
/// After a walk the shard rests from walking: until it has had nothing to do for [`IDLE`] times as long as the walk
/// took, or has worked for its clients [`CLIENTS`] times as long, or a mixture of both. So where clients want all of
/// its time they have 48 parts of 49 of it. Their writes take a further share, for they write what they change first: a
/// load of `SET` on one shard had 0.88 of its throughput, and with 32 to 1 it had 0.85. And a shard that has nothing
/// else to do sleeps for two thirds of its time: one that never slept would look to the kernel like a thread that only
/// computes, and where other processes want the processor it would be put off by whole slices of several ms, with its
/// clients. What it works is told by the scheduler, for most of it is the kernel's, inside the call that also waits,
/// and to wait for a processor is no sleep.
const WALK_US: u64 = 100;

/// See [`WALK_US`].
const CLIENTS: f64 = 48.0;

/// See [`WALK_US`].
const IDLE: f64 = 2.0;

/// The last walk: when it ended, in ticks, how long it took, and how long the thread had worked by then, in µs.
#[derive(Debug, Default)]
pub(crate) struct LastWalk {
    ended: u64,
    took_us: f64,
    worked_us: u64,
}

/// How long a loop sleeps at most while the walk waits for the disk, or a replica's socket takes what it was given: a
/// send that succeeds wakes no loop. In µs.
const STALLED_US: u64 = 1000;

impl Shard {
    /// Whether the walk of a running snapshot may go on now: it has rested, and what it has written does not wait for the
    /// disk.
    pub fn may_walk(&self) -> bool {
        let Some(id) = self.slice().and_then(|slice| slice.snapshot) else { return false };
        let persistence = &self.core.shared.persistence;
        let waiting = persistence.pending[self.core.id as usize].0.load(Acquire);
        persistence.is_over(id) || (waiting <= PENDING_MAX && self.rest_us() == 0)
    }

    /// Walks on with the snapshot that is running, if it may. The driver has sent before what the turn has to say, or every
    /// reply would come later by a walk.
    pub fn walk_snapshot(&mut self) {
        if !self.may_walk() {
            return;
        }
        let own = self.core.id as usize;
        let id = self.slice().and_then(|slice| slice.snapshot).expect("just seen");
        let shared = self.core.shared.clone();
        let over = shared.persistence.is_over(id);
        if over {
            self.slices[own].as_deref_mut().expect("just seen").give_up_snapshot();
        }
        let (ticks, per_us) = (shared.host.ticks(), shared.host.ticks_per_us());
        let started = ticks();
        let enough = || ticks().wrapping_sub(started) as f64 >= WALK_US as f64 * per_us;
        let slice = self.slices[own].as_deref_mut().expect("seen above");
        let chunk = slice.walk_snapshot(&mut self.core, enough);
        let now = ticks();
        let took_us = now.wrapping_sub(started) as f64 / per_us;
        self.last_walk = LastWalk { ended: now, took_us, worked_us: self.worked_us + took_us as u64 };
        if over {
            // Who puts the pieces together learns of it by the next one.
            let chunk = Chunk { snapshot: id, shard: own as ShardId, ..Chunk::default() };
            self.effects.push(Effect::Snapshot(Box::new(chunk)));
        } else if let Some(chunk) = chunk {
            shared.persistence.pending[own].0.fetch_add(chunk.bytes.len(), AcqRel);
            self.effects.push(Effect::Snapshot(Box::new(chunk)));
        }
    }

    /// How long the loop may sleep for the sake of a running snapshot, or of one that is sent to a replica, in µs.
    pub fn snapshot_timeout_us(&self) -> Option<u64> {
        let walk = self.walk_timeout_us();
        match self.sends_bulk() {
            true => Some(walk.unwrap_or(STALLED_US).min(STALLED_US)),
            false => walk,
        }
    }

    fn walk_timeout_us(&self) -> Option<u64> {
        let own = self.core.id as usize;
        self.slices[own].as_deref()?.snapshot?;
        let stalled = self.core.shared.persistence.pending[own].0.load(Relaxed) > PENDING_MAX;
        Some(if stalled { STALLED_US } else { self.rest_us() })
    }

    /// Whether a snapshot walks this shard's slice: the driver keeps [`Shard::worked_us`] up to date then.
    pub fn is_walked(&self) -> bool {
        self.slice().is_some_and(|slice| slice.snapshot.is_some())
    }

    /// How long the walk still rests if there is nothing to do meanwhile, in µs.
    fn rest_us(&self) -> u64 {
        let host = &self.core.shared.host;
        let last = &self.last_walk;
        let since = (host.ticks())().saturating_sub(last.ended) as f64 / host.ticks_per_us();
        let worked = (self.worked_us.saturating_sub(last.worked_us) as f64).min(since);
        // What the thread does it does for all of its shards, and each may take its part.
        let took_us = last.took_us * self.sharers as f64;
        (IDLE * took_us - (since - worked) - worked * IDLE / CLIENTS).max(0.0).ceil() as u64
    }

    /// Tells the others how many changes this shard's slice has seen.
    pub(crate) fn publish_changes(&self) {
        if let Some(slice) = self.slice() {
            self.core.shared.persistence.changes[self.core.id as usize].0.store(slice.changes, Relaxed);
        }
    }

    /// Begins a snapshot when a save point is due. The first shard looks.
    pub(crate) fn persistence_cron(&mut self) {
        self.publish_changes();
        if self.core.id != 0 {
            return;
        }
        self.rewrite_cron();
        let persistence = &self.core.shared.persistence;
        if persistence.scheduled.load(Relaxed) && !persistence.saving.load(Acquire) {
            return self.begin_own_tx(Job::Snapshot);
        }
        let due = self.core.shared.persistence.due(&self.core.config, self.core.now_ms);
        if let Some((seconds, changes)) = due {
            self.core.shared.persistence.last_try.store(self.core.now_ms / 1000, Relaxed);
            self.log(LogLevel::Notice, format!("{changes} changes in {seconds} seconds. Saving..."));
            self.log(LogLevel::Notice, "Background saving started");
            self.begin_own_tx(Job::Snapshot);
        }
    }

    /// A transaction over all slices on behalf of no client.
    pub(crate) fn begin_own_tx(&mut self, job: Job) {
        let client = ClientView::nobody(self.core.id);
        let owners: Vec<ShardId> = (0..self.core.shards as ShardId).collect();
        let number = self.next_number();
        let tx = TxId { coordinator: self.core.id, number };
        self.txs.insert(number, Tx { client, job, missing: owners.len(), have: Vec::with_capacity(owners.len()) });
        self.outbox.acquire(tx, &owners);
    }

    /// Why a client's command may not run now: the data is still being loaded, or cannot be saved.
    pub(crate) fn refused_by_persistence(&mut self, index: u32, row: &Command) -> Option<Cow<'static, str>> {
        let shared = self.core.shared.clone();
        let (persistence, aof) = (&shared.persistence, &shared.aof);
        let (loading, refuses) = (persistence.loading.load(Acquire), persistence.refuses_writes(&self.core.config));
        let broken = aof.broken.load(Acquire);
        if refuses || broken {
            let table = self.core.table;
            let writes = row.has(flag::WRITE)
                || row.name == "ping"
                || row.name == "exec"
                    && self
                        .client(index)
                        .multi
                        .iter()
                        .flat_map(|m| &m.queue)
                        .any(|q| table.row(q.command).has(flag::WRITE));
            if writes && !refuses {
                let error = aof.write_error.lock().expect("no holder panics").clone().unwrap_or_default();
                return Some(format!("MISCONF Errors writing to the AOF file: {error}").into());
            }
            if writes {
                return Some(Cow::Borrowed(
                    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. \
                     Commands that may modify the data set are disabled, because this instance is configured to \
                     report errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). \
                     Please check the Redis logs for details about the RDB error.",
                ));
            }
        }
        (loading && !row.has(flag::LOADING)).then_some("LOADING Redis is loading the dataset in memory".into())
    }

    /// Takes in keys of the file that is being loaded.
    pub(crate) fn take_batch(&mut self, batch: Box<LoadBatch>) {
        let own = self.core.id as usize;
        let Some(slice) = self.slices[own].as_deref_mut() else {
            // Some commands may run while data is loaded (`WATCH`), and have it lent.
            return self.enqueue_waiting(Waiting::Load(batch));
        };
        let mut loaded = snapshot::load_batch(&mut self.core, slice, &batch, false);
        slice.log.on |= batch.begins_logging;
        if let (Ok(()), Some(part)) = (&loaded, &batch.log) {
            loaded = self.run_log_part(part, Some(own as ShardId));
        }
        if batch.begins_logging {
            if own == 0 && loaded.is_ok() {
                loaded = self.core.shared.clone().aof.loaded_libraries.apply(&mut self.core);
            }
            self.heed_logging(own as ShardId);
        }
        self.batch_is_done(own, batch.bytes(), loaded);
    }

    fn batch_is_done(&mut self, shard: usize, bytes: usize, loaded: Result<(), String>) {
        let persistence = &self.core.shared.persistence;
        if let Err(text) = loaded {
            persistence.loading_error.lock().expect("no holder panics").get_or_insert(text);
        }
        persistence.loading_pending[shard].0.fetch_sub(bytes, AcqRel);
    }

    fn run_log_part(&mut self, part: &LogBatch, only: Option<ShardId>) -> Result<(), String> {
        if part.begins || self.log_loader.is_none() {
            self.log_loader = Some(Box::new(LogLoader::new(part.origin)));
        }
        let mut loader = self.log_loader.take().expect("made above");
        let ran = loader.run(&mut self.core, &mut self.slices, only, &part.bytes);
        self.log_loader = Some(loader);
        ran
    }

    /// Runs commands of a log with all slices in hand.
    pub(crate) fn load_with_all(&mut self, batch: LoadBatch) {
        let loaded = match &batch.log {
            Some(part) => self.run_log_part(part, None),
            None => Ok(()),
        };
        self.batch_is_done(self.core.id as usize, batch.bytes(), loaded);
    }

    /// Ends the server, after the data was saved if it is to be.
    pub(crate) fn shut_down(&mut self, index: Option<u32>, how: Shutdown) {
        self.log(LogLevel::Notice, "User requested shutdown...");
        let loading = self.core.shared.persistence.loading.load(Acquire);
        // What a slow script has in hand cannot be saved, nor waited for: it may never end.
        let busy = self.core.shared.scripts.any_held();
        let how = if busy { Shutdown { save: Some(false), ..how } } else { how };
        let save = how.save.unwrap_or(!self.core.config.save.is_empty()) && !loading;
        if self.core.shared.aof.state() == State::Waiting && !how.force {
            // What was written since the log was turned on would be nowhere.
            self.log(LogLevel::Warning, "Writing initial AOF, can't exit.");
            return self.shutdown_fails(index);
        }
        if !save {
            self.effects.push(Effect::Shutdown { save, now: how.now });
            return;
        }
        match index {
            None => self.begin_own_tx(Job::Shutdown(how)),
            Some(index) => {
                let owners: Vec<ShardId> = (0..self.core.shards as ShardId).collect();
                self.start_tx(index, Job::Shutdown(how), &owners);
            }
        }
    }

    fn shutdown_fails(&mut self, index: Option<u32>) {
        match index {
            Some(index) => {
                self.reply_in_order(index, |reply| reply.error("ERR Errors trying to SHUTDOWN. Check logs."));
            }
            None => self.effects.push(Effect::ShutdownFailed),
        }
    }

    /// With all slices in hand: the last snapshot, and then the end. True when its client may go on, for it failed.
    pub(crate) fn save_and_shut_down(&mut self, client: ClientView, how: Shutdown) -> bool {
        self.core.shared.persistence.give_up();
        self.log(LogLevel::Notice, "Saving the final RDB snapshot before exiting.");
        let slices = self.slices.iter_mut().filter_map(|slice| slice.as_deref_mut());
        match snapshot::save(&mut self.core, slices) {
            Ok(()) => self.log(LogLevel::Notice, "DB saved on disk"),
            Err(text) => {
                self.log(LogLevel::Warning, text);
                if !how.force {
                    self.log(LogLevel::Warning, "Error trying to save the DB, can't exit.");
                    match self.client_by_id(client.index, client.id) {
                        Some(client) => client.reply().error("ERR Errors trying to SHUTDOWN. Check logs."),
                        None => self.effects.push(Effect::ShutdownFailed),
                    }
                    return true;
                }
                self.log(LogLevel::Warning, "Error trying to save the DB, exiting anyway");
            }
        }
        self.core.shared.shutting_down.store(true, Relaxed);
        self.effects.push(Effect::Shutdown { save: true, now: how.now });
        false
    }

    /// Keeps the slices in hand from changing any more.
    pub(crate) fn freeze(&mut self) {
        self.frozen.extend(self.slices.iter_mut().filter_map(Option::take));
        self.open = false;
    }
}
