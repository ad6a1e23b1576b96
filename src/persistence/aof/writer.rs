//! The threads that write one shard's log.
//!
//! A shard hands over what a turn has written; who holds the [`Pen`] writes all that has come in one go, and syncs as
//! `appendfsync` says. Under `always` that is one write and one sync for all turns that ended meanwhile; what the sync
//! forces to disk is the log's journal ([`super::journal`]), which costs less than the log's file. The thread that wrote
//! syncs too, for on a busy machine each further thread on the way from a write to its reply has to wait for a processor.
//! Where syncs take long the pen is passed on before: some ([`super::syncs`]) are under way at once, each for what was
//! written before it began, so that a turn need not wait for the one before. (SET over 50 connections, one shard, on a
//! busy machine: three at once had 1.7 times the throughput of one after the other; on a quiet one, with syncs of 0.1 ms,
//! 0.9 times.) A loop on io_uring that wrote by itself and had its ring sync was no better, and where others wanted the
//! processors now and then a third of it, for the kernel's worker, who does the sync, waits for the processor that the
//! loop is pinned to. Nor was a loop that leaves sockets alone until the sync is done: it takes more requests at once, and
//! the cores wait for each other.
//!
//! Under `everysec` and `no` one thread keeps the pen. It is woken by the first turn that writes, and then collects for a
//! ms what others write, for each wake-up costs the shard more than the write: that much is lost if the process is
//! killed, where Redis would lose nothing, and nothing that it does can hold up a loop.
//!
//! **When writing fails.** Under `always` the process ends, for its clients were promised more. Else writes are refused
//! until it works again, and what was not written is kept. A sync that fails may have lost what was written before it,
//! whatever a later one says; so a rewrite is begun, and nothing counts as on disk until its files are.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::*;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use ringshard_shards::propagate::Piece;

use super::Log;
use super::pen::{OpenFile, Pen};
use super::syncs::{Syncs, syncs_each};
use crate::persistence::pages::Pages;

/// What a shard and its writer share.
#[derive(Default)]
pub struct Writer {
    queue: Mutex<Queue>,
    pub(super) bell: Condvar,
    pub(super) syncs: Syncs,
    /// Where threads wait, with the pen's lock, until syncs take long.
    pub(super) helpers: Condvar,
}

/// What a shard has for its writer.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) pieces: VecDeque<Piece>,
    /// Who waits until all is written, and whether it has to be on disk.
    pub(super) asks: Vec<(bool, Sender<Result<(), String>>)>,
    pub(super) file: Option<OpenFile>,
    /// The thread sleeps until it is rung.
    pub(super) asleep: bool,
    /// Somebody waits for what is there.
    pub(super) urgent: bool,
    pub(super) close: bool,
    pub(super) stop: bool,
    pub(super) ended: bool,
    /// A base file makes up for all that stands in logs before this generation.
    pub(super) made_up: u64,
}

impl Writer {
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Takes a piece.
    pub fn push(&self, piece: Piece) {
        let mut queue = self.queue();
        queue.pieces.push_back(piece);
        if queue.asleep {
            queue.asleep = false;
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
            self.ring(queue);
        }
        receiver
    }

    /// Has the file closed when everything is written.
    pub fn close(&self) {
        let mut queue = self.queue();
        queue.close = true;
        self.ring(queue);
    }

    /// A base file makes up for all that stands in logs before this generation.
    pub fn make_up(&self, generation: u64) {
        let mut queue = self.queue();
        queue.made_up = generation;
        self.ring(queue);
    }

    /// Ends the thread when everything is written, and waits for that.
    pub fn stop(&self) {
        let mut queue = self.queue();
        queue.stop = true;
        queue.urgent = true;
        self.bell.notify_all();
        while !queue.ended {
            queue = self.bell.wait(queue).unwrap_or_else(|e| e.into_inner());
        }
    }

    fn ring(&self, mut queue: MutexGuard<'_, Queue>) {
        queue.urgent = true;
        queue.asleep = false;
        self.bell.notify_all();
    }

    /// Starts the thread.
    pub(super) fn start(log: &Arc<Log>, shard: usize) -> std::io::Result<()> {
        start_thread(&Arc::new(Mutex::new(Pen::new(log, shard))), shard, 0)
    }
}

/// Starts one of the threads that share a pen.
fn start_thread(pen: &Arc<Mutex<Pen>>, shard: usize, thread: usize) -> std::io::Result<()> {
    let pen = pen.clone();
    std::thread::Builder::new().name(format!("aof-{shard}")).spawn(move || work(&pen, shard, thread))?;
    Ok(())
}

/// What one of the threads does.
fn work(pen: &Arc<Mutex<Pen>>, shard: usize, thread: usize) {
    let mut record = Pages::default();
    loop {
        let mut held = pen.lock().unwrap_or_else(|e| e.into_inner());
        let (log, writer) = (held.log.clone(), held.writer.clone());
        while thread > 0 && !held.ended && !writer.syncs.overlap() {
            held = writer.helpers.wait(held).unwrap_or_else(|e| e.into_inner());
        }
        if held.ended {
            return;
        }
        let Some(unsynced) = held.take_turn(&mut record) else { continue };
        // While a sync is short nobody else writes: one takes less than two at once.
        let mut keeps = Some(held);
        if writer.syncs.overlap() {
            let held = keeps.take().expect("just put in");
            pass_on(held, pen, shard);
        }
        log.shared.aof.syncing.fetch_add(1, Relaxed);
        let began = Instant::now();
        unsynced.run(&log, shard, thread, &record);
        writer.syncs.time(began.elapsed());
        log.shared.aof.syncing.fetch_sub(1, Relaxed);
        drop(keeps);
    }
}

/// Lets another thread have the pen.
fn pass_on(mut held: MutexGuard<'_, Pen>, pen: &Arc<Mutex<Pen>>, shard: usize) {
    if !std::mem::replace(&mut held.shared, true) {
        // Without them syncs do not overlap; nothing else is lost.
        let mut threads = 1..syncs_each(held.log.writers.len());
        let _ = threads.try_for_each(|thread| start_thread(pen, shard, thread));
    }
    held.writer.helpers.notify_one();
}
