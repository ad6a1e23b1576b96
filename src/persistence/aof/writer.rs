//! The threads that write one shard's log.
//!
//! A shard hands over what a turn has written; who holds the [`Pen`] writes all that has come in one go, and syncs as
//! `appendfsync` says. Under `always` that is one write for all turns that ended meanwhile, and one sync for all shards
//! ([`super::group`]); the thread that wrote syncs too, if nobody else is at it, and takes along what other shards have
//! handed over, for on a busy machine each further thread on the way from a write to its reply has to wait for a
//! processor. Where syncs take long the pen is passed on before, so that others write meanwhile. A loop on io_uring
//! that wrote by itself and had its ring sync was no better, and where others wanted the processors now and then a
//! third of it, for the kernel's worker, who does the sync, waits for the processor that the loop is pinned to. Nor was
//! a loop that leaves sockets alone until the sync is done: it takes more requests at once, and the cores wait for each
//! other.
//!
//! Under `everysec` and `no` one thread keeps the pen. It is woken by the first turn that writes, and then collects for a
//! ms what others write, for each wake-up costs the shard more than the write: that much is lost if the process is
//! killed, where Redis would lose nothing, and nothing that it does can hold up a loop.
//!
//! **When writing fails.** Under `always` the process ends, for its clients were promised more. Else writes are refused
//! until it works again, and what was not written is kept. A sync that fails may have lost what was written before it,
//! whatever a later one says; so a rewrite is begun, and nothing counts as on disk until its files are.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ringshard_shards::config::AppendFsync;
use ringshard_shards::propagate::Piece;

use super::Log;
use super::group::Group;
use super::pen::{OpenFile, Pen};
use super::syncs::Syncs;

/// Most threads of one log: each may sync its file.
pub(super) const THREADS: usize = 3;

/// How long output of several turns is collected where nobody waits for it.
const COLLECT: Duration = Duration::from_millis(1);

/// What a shard and its writer share.
#[derive(Default)]
pub struct Writer {
    queue: Mutex<Queue>,
    /// Rings the threads.
    bell: Condvar,
    /// Where all but the first wait until syncs take long.
    others: Condvar,
    /// Everything is written, where somebody waits for that.
    pub(super) gone: Condvar,
    /// None before the first thread starts, and when everything is written.
    pen: Mutex<Option<Pen>>,
    /// How many threads there are.
    threads: AtomicUsize,
    pub(super) syncs: Syncs,
}

/// What a shard has for its writer.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) pieces: VecDeque<Piece>,
    /// Who waits until all is written, and whether it has to be on disk.
    pub(super) asks: Vec<(bool, Sender<Result<(), String>>)>,
    pub(super) file: Option<OpenFile>,
    /// Threads that sleep and have not been rung, and those that have.
    asleep: usize,
    rung: usize,
    /// Somebody waits for what is there.
    pub(super) urgent: bool,
    pub(super) close: bool,
    pub(super) stop: bool,
    pub(super) ended: bool,
    /// A base file makes up for all that stands in logs before this generation.
    pub(super) made_up: u64,
    /// When there is something to do even if nothing comes.
    pub(super) due: Option<Instant>,
    /// Nothing is written before that.
    pub(super) halted: bool,
}

impl Queue {
    /// Whether there is more to do than to write.
    fn is_ordered(&self) -> bool {
        self.urgent || !self.asks.is_empty() || self.close || self.stop
    }

    fn has_pieces(&self) -> bool {
        !self.pieces.is_empty() && !self.halted
    }
}

impl Writer {
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Takes a piece. Nobody is rung if whoever leads the group will take it along.
    pub(super) fn push(&self, piece: Piece, group: &Group) {
        let mut queue = self.queue();
        queue.pieces.push_back(piece);
        if queue.asleep > 0 && !group.is_led() {
            queue.asleep -= 1;
            queue.rung += 1;
            self.bell.notify_one();
        }
    }

    /// Gives the file that is written on.
    pub fn give(&self, file: OpenFile) {
        self.queue().file = Some(file);
    }

    /// Asks for an answer when all that was taken is written.
    pub fn ask(&self, sync: bool) -> Receiver<Result<(), String>> {
        let (sender, receiver) = channel();
        let mut queue = self.queue();
        if !queue.ended {
            queue.asks.push((sync, sender));
            self.wake(queue);
        }
        receiver
    }

    /// Has the file closed when everything is written.
    pub fn close(&self) {
        let mut queue = self.queue();
        queue.close = true;
        self.wake(queue);
    }

    /// A base file makes up for all that stands in logs before this generation.
    pub fn make_up(&self, generation: u64) {
        let mut queue = self.queue();
        queue.made_up = generation;
        self.wake(queue);
    }

    /// Ends the threads when everything is written, and waits for that.
    pub fn stop(&self) {
        let mut queue = self.queue();
        queue.stop = true;
        self.wake(queue);
        queue = self.queue();
        while !queue.ended {
            queue = self.gone.wait(queue).unwrap_or_else(|e| e.into_inner());
        }
    }

    /// Has its threads see what there is to do.
    pub(super) fn ring(&self) {
        self.wake(self.queue());
    }

    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        queue.urgent = true;
        queue.rung += std::mem::take(&mut queue.asleep);
        self.bell.notify_all();
        if queue.stop {
            self.others.notify_all();
        }
    }

    /// Sleeps until there is something to do for this thread.
    fn wait(&self, log: &Log, thread: usize) {
        let mut queue = self.queue();
        while thread > 0 && !queue.stop && !log.group.overlap() {
            queue = self.others.wait(queue).unwrap_or_else(|e| e.into_inner());
        }
        loop {
            if queue.has_pieces() && !queue.is_ordered() && log.shared.config().appendfsync != AppendFsync::Always {
                // More will come, which is not rung for; nobody waits for it.
                drop(self.bell.wait_timeout(queue, COLLECT));
                return;
            }
            let now = Instant::now();
            if queue.is_ordered() || queue.has_pieces() || queue.due.is_some_and(|at| at <= now) {
                return;
            }
            queue.asleep += 1;
            queue = match queue.due {
                Some(at) => self.bell.wait_timeout(queue, at - now).unwrap_or_else(|e| e.into_inner()).0,
                None => self.bell.wait(queue).unwrap_or_else(|e| e.into_inner()),
            };
            // One that woke by itself is none that sleeps.
            match queue.rung {
                0 => queue.asleep -= 1,
                _ => queue.rung -= 1,
            }
        }
    }

    /// Writes what has come, if nobody else is at it: for who leads the group.
    pub(super) fn take_along(&self, log: &Arc<Log>) {
        if self.queue().has_pieces()
            && let Ok(held) = self.pen.try_lock()
        {
            self.take_turn(log, held, None);
        }
    }

    /// Whether something has come that nobody is at.
    pub(super) fn is_left(&self) -> bool {
        self.queue().has_pieces() && self.pen.try_lock().is_ok_and(|pen| pen.is_some())
    }

    /// Does what there is to do; false when everything is written. `thread` is which of the log's own this is, if it is.
    fn take_turn(&self, log: &Arc<Log>, mut held: MutexGuard<'_, Option<Pen>>, thread: Option<usize>) -> bool {
        let Some(pen) = held.as_mut() else { return false };
        let unsynced = pen.take_turn();
        let shard = pen.shard;
        if pen.ended {
            *held = None;
        }
        // While a sync is short nobody else writes: one takes less than two at once.
        let _keeps = (!log.group.overlap()).then_some(held);
        if let Some(unsynced) = unsynced {
            log.shared.aof.syncing.fetch_add(1, Relaxed);
            let began = Instant::now();
            unsynced.run(log, shard, thread);
            log.group.time(began.elapsed());
            log.shared.aof.syncing.fetch_sub(1, Relaxed);
        }
        true
    }

    /// Starts the first thread.
    pub(super) fn start(log: &Arc<Log>, shard: usize) -> std::io::Result<()> {
        let writer = &log.writers[shard];
        *writer.pen.lock().unwrap_or_else(|e| e.into_inner()) = Some(Pen::new(log, shard));
        writer.start_thread(log, shard, 0)
    }

    fn start_thread(&self, log: &Arc<Log>, shard: usize, thread: usize) -> std::io::Result<()> {
        let log = log.clone();
        std::thread::Builder::new().name(format!("aof-{shard}")).spawn(move || work(&log, shard, thread))?;
        self.threads.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Syncs take long: while one thread syncs, another is to be there.
    fn call_others(&self, log: &Arc<Log>, shard: usize) {
        if self.threads.load(Relaxed) == 1 {
            let threads = if log.writers.len() == 1 { THREADS } else { 2 };
            // Without them syncs do not overlap; nothing else is lost.
            let _ = (1..threads).try_for_each(|thread| self.start_thread(log, shard, thread));
        }
        self.others.notify_all();
    }
}

/// What one of the threads does.
fn work(log: &Arc<Log>, shard: usize, thread: usize) {
    let writer = &log.writers[shard];
    let mut goes_on = true;
    while goes_on {
        writer.wait(log, thread);
        let held = writer.pen.lock().unwrap_or_else(|e| e.into_inner());
        goes_on = writer.take_turn(log, held, Some(thread));
        if thread == 0 && log.group.overlap() {
            writer.call_others(log, shard);
        }
        log.group.lead(log);
    }
}
