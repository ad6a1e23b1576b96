//! `Syncs`: what is being forced to disk of one log under `appendfsync always`, and what is there.
//!
//! Of several syncs under way a later one may end first. What was written counts as on disk up to the end of the first
//! that has not ended, and not beyond: a log is found up to its first gap.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard};

use super::Log;
use super::group::WRITES;
use super::writer::THREADS;
use crate::log;
use crate::net::os_text;
use crate::persistence::disk::{DiskFile, SyncHandle};

/// What forces a log's file to disk, one for each that may do so at a time: a failure is told to each once. None where the
/// file cannot be synced by others than who writes it.
#[derive(Clone, Default)]
pub(super) struct Handles(Arc<[SyncHandle]>);

impl Handles {
    pub(super) fn of(file: &dyn DiskFile) -> Self {
        let all: Option<Arc<[SyncHandle]>> = (0..WRITES + THREADS + 2).map(|_| file.sync_handle()).collect();
        Handles(all.unwrap_or_default())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Instead of the group's `nth` write under way.
    pub(super) fn group(&self, nth: usize) -> io::Result<()> {
        self.0[nth]()
    }

    /// By one of the log's own threads, or as number [`THREADS`] by who takes its log along.
    pub(super) fn own(&self, thread: usize) -> io::Result<()> {
        self.0[WRITES + thread]()
    }

    /// By what forces files to disk now and then.
    pub(super) fn force(&self) -> io::Result<()> {
        self.0[WRITES + THREADS + 1]()
    }
}

/// See the head of the file.
#[derive(Default)]
pub(super) struct Syncs {
    /// Syncs under way, in order.
    under_way: Mutex<VecDeque<UnderWay>>,
    /// Up to here the log's own file is on disk.
    pub(super) durable: AtomicU64,
    /// Up to here it is, and the journal says so.
    pub(super) recorded: AtomicU64,
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
    /// A sync begins.
    pub(super) fn begin(&self, position: u64, journaled: bool) {
        self.under_way().push_back(UnderWay { position, journaled, ended: false });
    }

    fn under_way(&self) -> MutexGuard<'_, VecDeque<UnderWay>> {
        self.under_way.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A sync under way has ended; in the end it was of the log's file itself, or of what the journal took. Says up to
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

/// What is to be synced without the pen, where there is no journal.
pub(super) struct Unsynced {
    /// Up to which position.
    pub(super) position: u64,
    /// The log's file.
    pub(super) file: Handles,
}

impl Unsynced {
    /// Has it on disk, or ends the process.
    pub(super) fn run(self, log: &Log, shard: usize, thread: usize) {
        if let Err(error) = self.file.own(thread) {
            say_sync_failed(&os_text(&error));
            (log.die)();
            return;
        }
        if let Some(position) = log.writers[shard].syncs.end(self.position, true) {
            log.publish(&[(shard, position)]);
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
