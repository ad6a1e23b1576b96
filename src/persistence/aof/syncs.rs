//! `Syncs`: what is being forced to disk of one log under `appendfsync always`, and what is there.
//!
//! Of several syncs under way a later one may end first. What was written counts as on disk up to the end of the first
//! that has not ended, and not beyond: a log is found up to its first gap.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::Log;
use super::journal::Write;
use crate::log;
use crate::net::os_text;
use crate::persistence::disk::SyncHandle;
use crate::persistence::pages::Pages;

/// Syncs under way at once under `always`, of all logs together unless there are more logs; and threads that write them.
/// Several logs overlap without more: with two of each of two logs under way SET had less throughput than with one, for
/// each costs the kernel some 50 µs of a processor. (Tests have as many of each of two logs.)
pub(super) const SYNCS: usize = if cfg!(test) { 6 } else { 3 };

/// From here on a sync takes long: others are begun before it has ended.
const LONG_SYNC: Duration = Duration::from_micros(if cfg!(test) { 200 } else { 400 });

/// [`SYNCS`] for each of so many logs.
pub(super) fn syncs_each(logs: usize) -> usize {
    (SYNCS / logs).max(1)
}

/// See the head of the file.
#[derive(Default)]
pub(super) struct Syncs {
    /// Syncs under way, in order.
    under_way: Mutex<VecDeque<UnderWay>>,
    /// Up to here the log's own files are on disk.
    pub(super) durable: AtomicU64,
    /// Up to here they are, and its journal says so.
    pub(super) recorded: AtomicU64,
    /// Its journal could not be written.
    pub(super) journal_failed: AtomicBool,
    /// How long syncs take of late, in µs.
    mean_us: AtomicU64,
}

/// A sync without the pen.
struct UnderWay {
    /// Up to which position.
    position: u64,
    /// By way of the journal.
    journaled: bool,
    ended: bool,
}

impl Syncs {
    /// Whether syncs are to overlap.
    pub(super) fn overlap(&self) -> bool {
        self.mean_us.load(Relaxed) >= LONG_SYNC.as_micros() as u64
    }

    /// A sync took so long.
    pub(super) fn time(&self, took: Duration) {
        let mean = self.mean_us.load(Relaxed);
        self.mean_us.store(mean - mean / 8 + took.as_micros() as u64 / 8, Relaxed);
    }

    /// A sync begins.
    pub(super) fn begin(&self, position: u64, journaled: bool) {
        self.under_way().push_back(UnderWay { position, journaled, ended: false });
    }

    fn under_way(&self) -> MutexGuard<'_, VecDeque<UnderWay>> {
        self.under_way.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A sync under way has ended; in the end it was of the log's file itself, or of what its journal took. Says up to
    /// where the log is on disk, if that is further than before: a record counts when those that it goes on behind are
    /// whole, even if the log's file holds what they tell.
    pub(super) fn end(&self, position: u64, of_file: bool) -> Option<u64> {
        if of_file {
            self.durable.fetch_max(position, AcqRel);
        }
        let mut under_way = self.under_way();
        for sync in under_way.iter_mut() {
            sync.ended |= sync.position == position || of_file && !sync.journaled && sync.position < position;
        }
        let mut reached = None;
        while let Some(sync) = under_way.front()
            && sync.ended
        {
            reached = Some(sync.position);
            under_way.pop_front();
        }
        reached
    }
}

/// What is to be synced without the pen.
pub(super) struct Unsynced {
    /// Up to which position.
    pub(super) position: u64,
    /// The log's file.
    pub(super) file: Arc<[SyncHandle]>,
    /// What its journal takes instead.
    pub(super) journal: Option<Write>,
}

impl Unsynced {
    /// Has it on disk, or ends the process.
    pub(super) fn run(self, log: &Log, shard: usize, thread: usize, record: &Pages) {
        let syncs = &log.writers[shard].syncs;
        let mut of_file = true;
        if let Some(write) = self.journal {
            match write.run(record) {
                Ok(()) => {
                    syncs.recorded.fetch_max(write.durable, AcqRel);
                    of_file = false;
                }
                Err(error) => {
                    syncs.journal_failed.store(true, Release);
                    log::warning(format!(
                        "The journal of the AOF can't be written: {}. Doing without.",
                        os_text(&error)
                    ));
                }
            }
        }
        if of_file && let Err(error) = self.file[thread]() {
            say_sync_failed(&os_text(&error));
            (log.die)();
            return;
        }
        if let Some(position) = syncs.end(self.position, of_file) {
            log.publish(shard, position);
        }
    }
}

/// Forces a log's file to disk, again and again as it is told to up to which position; see [`super::journal`].
pub(super) fn force_files(log: &Log, shard: usize, orders: &Receiver<(Arc<[SyncHandle]>, u64)>) {
    while let Ok((file, position)) = orders.recv() {
        log.shared.aof.syncing.fetch_add(1, Relaxed);
        let result = file[SYNCS]();
        log.shared.aof.syncing.fetch_sub(1, Relaxed);
        match result {
            Ok(()) => _ = log.writers[shard].syncs.durable.fetch_max(position, AcqRel),
            Err(error) => {
                say_sync_failed(&os_text(&error));
                (log.die)();
            }
        }
    }
}

pub(super) fn say_sync_failed(text: &str) {
    log::warning(format!(
        "Can't persist AOF for fsync error when the AOF fsync policy is 'always': {text}. Exiting..."
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_journal_took_counts_when_all_before_it_does() {
        let syncs = Syncs::default();
        [10, 20, 30, 40].iter().for_each(|position| syncs.begin(*position, true));
        assert_eq!(syncs.end(20, false), None);
        assert_eq!(syncs.end(30, false), None);
        assert_eq!(syncs.end(10, false), Some(30));
        syncs.begin(50, false);
        syncs.begin(60, false);
        // The file holds all, but a record behind 40 would go on where none ends.
        assert_eq!(syncs.end(60, true), None);
        assert_eq!(syncs.end(40, false), Some(60));
        assert_eq!((syncs.durable.load(Acquire), syncs.end(50, true)), (60, None));
    }
}
