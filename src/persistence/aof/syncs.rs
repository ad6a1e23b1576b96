//! `Syncs`: what is being forced to disk of one log under `appendfsync always`, and what is there.
//!
//! Of several syncs under way a later one may end first. What was written counts as on disk up to the end of the first
//! that has not ended, and not beyond: a log is found up to its first gap.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard};

use super::Log;
use super::writer::THREADS;
use crate::log;
use crate::net::os_text;
use crate::persistence::disk::{DiskFile, SyncHandle};

/// What forces a log's file to disk. The kernel tells of a failure once for each time that the file was opened, so threads
/// that may sync it at once have a handle each. None where the file cannot be synced by others than who writes it.
pub(super) struct Handles {
    /// Of the log's own threads.
    own: [SyncHandle; THREADS],
    /// Of all others, one after the other; or why it failed.
    shared: Mutex<Result<SyncHandle, io::Error>>,
}

impl Handles {
    pub(super) fn of(file: &dyn DiskFile) -> Option<Arc<Self>> {
        let own: Vec<SyncHandle> = (0..THREADS).map_while(|_| file.sync_handle()).collect();
        Some(Arc::new(Handles { own: own.try_into().ok()?, shared: Mutex::new(Ok(file.sync_handle()?)) }))
    }

    /// By one of the log's own threads, of that number, or by anybody else: for them it fails ever after once it has, for
    /// the kernel would not say so again.
    pub(super) fn sync(&self, own: Option<usize>) -> io::Result<()> {
        if let Some(thread) = own {
            return self.own[thread]();
        }
        let mut shared = self.shared.lock().unwrap_or_else(|e| e.into_inner());
        let result = match &*shared {
            Ok(sync) => sync(),
            Err(error) => return Err(copy(error)),
        };
        result.inspect_err(|error| *shared = Err(copy(error)))
    }
}

fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
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
    pub(super) file: Arc<Handles>,
}

impl Unsynced {
    /// Has it on disk, or ends the process; `thread` as in [`Handles::sync`].
    pub(super) fn run(self, log: &Log, shard: usize, thread: Option<usize>) {
        if let Err(error) = self.file.sync(thread) {
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
    use std::sync::atomic::AtomicBool;

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

    /// A file of which the kernel tells each that has opened it once that a sync failed.
    struct Failed;

    impl DiskFile for Failed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn truncate(&mut self, _len: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync_handle(&self) -> Option<SyncHandle> {
            let told = AtomicBool::new(false);
            Some(Arc::new(move || match told.swap(true, Relaxed) {
                false => Err(io::ErrorKind::StorageFull.into()),
                true => Ok(()),
            }))
        }
    }

    #[test]
    fn everybody_hears_of_a_sync_that_failed() {
        let handles = Handles::of(&Failed).expect("it has handles");
        let outcomes = |who: Option<usize>| [(); 2].map(|()| handles.sync(who).map_err(|error| error.kind()));
        assert_eq!(outcomes(None), [Err(io::ErrorKind::StorageFull); 2]);
        for thread in 0..THREADS {
            // Each of these ends the process when it hears of it.
            assert_eq!(outcomes(Some(thread)), [Err(io::ErrorKind::StorageFull), Ok(())]);
        }
    }
}
