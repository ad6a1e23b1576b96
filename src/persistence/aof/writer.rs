//! The threads that write one shard's log.
//!
//! A shard hands over what a turn has written; who holds the [`Pen`] writes all that has come in one go, and syncs as
//! `appendfsync` says. Under `always` that is one write and one sync for all turns that ended meanwhile; what the sync
//! forces to disk is the log's journal ([`super::journal`]), at half the cost of the log's file. The thread that wrote
//! syncs too, for on a busy machine each further thread on the way from a write to its reply has to wait for a processor.
//! Where syncs take long the pen is passed on before: some ([`SYNCS`]) are under way at once, each for what was written
//! before it began, so that a turn need not wait for the one before. (SET over 50 connections, one shard, syncs of 0.5
//! ms: 1.7 times the throughput of one sync after the other. Of 0.1 ms: 0.9 times.) A loop on io_uring that wrote by
//! itself and had its ring sync was no better, and where others wanted the processors now and then a third of it, for the
//! kernel's worker, who does the sync, waits for the processor that the loop is pinned to. Nor was a loop that leaves
//! sockets alone until the sync is done: it takes more requests at once, and the cores wait for each other.
//!
//! Under `everysec` and `no` one thread keeps the pen. It is not woken for each turn but looks again after a ms: that
//! much is lost if the process is killed, where Redis would lose nothing, and nothing that it does can hold up a loop.
//!
//! **When writing fails.** Under `always` the process ends, for its clients were promised more. Else writes are refused
//! until it works again, and what was not written is kept. A sync that fails may have lost what was written before it,
//! whatever a later one says; so a rewrite is begun, and nothing counts as on disk until its files are.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ringshard_shards::config::AppendFsync;
use ringshard_shards::propagate::Piece;

use super::Log;
use super::journal::{Journal, Part, Write};
use crate::log;
use crate::net::os_text;
use crate::persistence::disk::{DiskFile, SyncHandle};
use crate::persistence::pages::Pages;

/// How long output of several turns is collected where nobody waits for it.
const COLLECT: Duration = Duration::from_millis(1);

/// A failed write is tried again after so long, and complained of once in so long (Redis: `AOF_WRITE_LOG_ERROR_RATE`).
const RETRY: Duration = Duration::from_secs(1);
const COMPLAIN: Duration = Duration::from_secs(30);

/// A sync that takes longer counts as delayed, as in Redis.
const DELAYED: Duration = Duration::from_secs(2);

/// How long the end of a log is on disk in its journal alone.
const FORCE: Duration = Duration::from_secs(1);

/// Syncs under way at once under `always`, of all logs together unless there are more logs; and threads that write them.
/// Several logs overlap without more: SET over 50 connections on two cores, two shards, one sync of each at a time had
/// 0.87 of redis-server's throughput, and two or three 0.76, for each costs the kernel some 60 µs of a processor.
/// (Tests have as many of each of two logs.)
const SYNCS: usize = if cfg!(test) { 6 } else { 3 };

/// From here on a sync takes long: others are begun before it has ended.
const LONG_SYNC: Duration = Duration::from_micros(if cfg!(test) { 200 } else { 400 });

/// [`SYNCS`] for each of so many logs.
fn syncs_each(logs: usize) -> usize {
    (SYNCS / logs).max(1)
}

/// A log's file.
pub struct OpenFile {
    file: Box<dyn DiskFile>,
    /// One for each thread that syncs, and one for what forces the file itself to disk meanwhile; empty where that cannot
    /// be.
    syncs: Arc<[SyncHandle]>,
    name: String,
    /// Its journal's path.
    journal: PathBuf,
    generation: u64,
    /// Bytes of whole commands in it.
    size: u64,
}

impl OpenFile {
    /// A file that holds `size` bytes.
    pub fn new(file: Box<dyn DiskFile>, name: String, journal: PathBuf, generation: u64, size: u64) -> Self {
        let syncs: Option<Arc<[SyncHandle]>> = (0..=SYNCS).map(|_| file.sync_handle()).collect();
        OpenFile { file, syncs: syncs.unwrap_or_default(), name, journal, generation, size }
    }
}

/// What a shard and its writer share.
#[derive(Default)]
pub struct Writer {
    queue: Mutex<Queue>,
    bell: Condvar,
    /// Syncs under way, in order.
    under_way: Mutex<VecDeque<UnderWay>>,
    /// Up to here the log's own files are on disk.
    durable: AtomicU64,
    /// Up to here they are, and its journal says so.
    recorded: AtomicU64,
    /// Its journal could not be written.
    journal_failed: AtomicBool,
    /// How long syncs take of late, in µs.
    sync_us: AtomicU64,
    /// Where threads wait, with the pen's lock, until syncs take long.
    helpers: Condvar,
}

/// A sync without the pen.
struct UnderWay {
    /// Up to which position.
    position: u64,
    /// By way of the journal.
    journaled: bool,
    ended: bool,
}

#[derive(Default)]
struct Queue {
    pieces: VecDeque<Piece>,
    /// Who waits until all is written, and whether it has to be on disk.
    asks: Vec<(bool, Sender<Result<(), String>>)>,
    file: Option<OpenFile>,
    /// The thread sleeps until it is rung.
    asleep: bool,
    /// Somebody waits for what is there.
    urgent: bool,
    close: bool,
    stop: bool,
    ended: bool,
    /// A base file makes up for all that stands in logs before this generation.
    made_up: u64,
}

impl Writer {
    fn queue(&self) -> MutexGuard<'_, Queue> {
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

    /// Whether syncs are to overlap.
    fn overlaps(&self) -> bool {
        self.sync_us.load(Relaxed) >= LONG_SYNC.as_micros() as u64
    }

    /// A sync took so long.
    fn time_sync(&self, took: Duration) {
        let mean = self.sync_us.load(Relaxed);
        self.sync_us.store(mean - mean / 8 + took.as_micros() as u64 / 8, Relaxed);
    }

    fn under_way(&self) -> MutexGuard<'_, VecDeque<UnderWay>> {
        self.under_way.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A sync under way has ended; in the end it was of the log's file itself, or of what its journal took. Says up to
    /// where the log is on disk, if that is further than before: a record counts when those that it goes on behind are
    /// whole, even if the log's file holds what they tell.
    fn end_sync(&self, position: u64, of_file: bool) -> Option<u64> {
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
        while thread > 0 && !held.ended && !writer.overlaps() {
            held = writer.helpers.wait(held).unwrap_or_else(|e| e.into_inner());
        }
        if held.ended {
            return;
        }
        let Some(unsynced) = held.take_turn(&mut record) else { continue };
        // While a sync is short nobody else writes: one takes less than two at once.
        let mut keeps = Some(held);
        if writer.overlaps() {
            let held = keeps.take().expect("just put in");
            pass_on(held, pen, shard);
        }
        log.shared.aof.syncing.fetch_add(1, Relaxed);
        let began = Instant::now();
        unsynced.sync(&log, shard, thread, &record);
        writer.time_sync(began.elapsed());
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

/// What is to be synced without the pen.
struct Unsynced {
    /// Up to which position.
    position: u64,
    /// The log's file.
    file: Arc<[SyncHandle]>,
    /// What its journal takes instead.
    journal: Option<Write>,
}

impl Unsynced {
    /// Has it on disk, or ends the process.
    fn sync(self, log: &Log, shard: usize, thread: usize, record: &Pages) {
        let writer = &log.writers[shard];
        let mut of_file = true;
        if let Some(write) = self.journal {
            match write.run(record) {
                Ok(()) => {
                    writer.recorded.fetch_max(write.durable, AcqRel);
                    of_file = false;
                }
                Err(error) => {
                    writer.journal_failed.store(true, Release);
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
        if let Some(position) = writer.end_sync(self.position, of_file) {
            log.publish(shard, position);
        }
    }
}

/// Forces a log's file to disk, again and again as it is told to up to which position; see [`Journal`].
fn force_files(log: &Log, shard: usize, orders: &Receiver<(Arc<[SyncHandle]>, u64)>) {
    while let Ok((file, position)) = orders.recv() {
        log.shared.aof.syncing.fetch_add(1, Relaxed);
        let result = file[SYNCS]();
        log.shared.aof.syncing.fetch_sub(1, Relaxed);
        match result {
            Ok(()) => _ = log.writers[shard].durable.fetch_max(position, AcqRel),
            Err(error) => {
                say_sync_failed(&os_text(&error));
                (log.die)();
            }
        }
    }
}

fn say_sync_failed(text: &str) {
    log::warning(format!(
        "Can't persist AOF for fsync error when the AOF fsync policy is 'always': {text}. Exiting..."
    ));
}

/// Who holds it writes the log. There is one, so that what is written is in order.
struct Pen {
    log: Arc<Log>,
    /// Other threads wait for it.
    shared: bool,
    /// Everything is written.
    ended: bool,
    /// Up to where a sync was begun that goes on without the pen.
    given: u64,
    /// The file that is written was begun at this position.
    begun: u64,
    journal: Option<Journal>,
    /// Where it is, or was before it failed.
    journal_path: Option<PathBuf>,
    /// It is done without: there can be none.
    no_journal: bool,
    /// Has the file itself forced to disk by a thread, while there is a journal; up to where it was asked for, and when.
    forcing: Option<Sender<(Arc<[SyncHandle]>, u64)>>,
    forced: u64,
    last_forced: Instant,
    writer: Arc<Writer>,
    shard: usize,
    file: Option<OpenFile>,
    /// What is to be written.
    pending: VecDeque<Piece>,
    /// Position up to which the log is written, and up to which it is on disk.
    written: u64,
    synced: u64,
    last_sync: Instant,
    /// Syncs of this generation's file, and of those before, say nothing: one has failed.
    unsure: Option<u64>,
    /// The last write failed; when it is tried again.
    retry_at: Option<Instant>,
    complained: Option<Instant>,
}

/// What has come.
struct Orders {
    asks: Vec<(bool, Sender<Result<(), String>>)>,
    close: bool,
    stop: bool,
    made_up: u64,
}

impl Pen {
    fn new(log: &Arc<Log>, shard: usize) -> Self {
        Pen {
            log: log.clone(),
            shared: false,
            ended: false,
            given: 0,
            begun: 0,
            journal: None,
            journal_path: None,
            no_journal: false,
            forcing: None,
            forced: 0,
            last_forced: Instant::now(),
            writer: log.writers[shard].clone(),
            shard,
            file: None,
            pending: VecDeque::new(),
            written: 0,
            synced: 0,
            last_sync: Instant::now(),
            unsure: None,
            retry_at: None,
            complained: None,
        }
    }

    /// Waits until there is something to do, and does it. What is still to be synced, up to which position, is returned
    /// where that needs no pen; if its journal takes it, `record` is what it takes.
    fn take_turn(&mut self, record: &mut Pages) -> Option<Unsynced> {
        let orders = self.wait();
        let mut result = self.write();
        if self.unsure.is_some_and(|generation| generation < orders.made_up) {
            self.unsure = None;
            self.log.shared.aof.set_write_error(None);
            self.log.shared.bump_epoch();
            // What stands in the new file is still to be synced.
            self.last_sync = Instant::now() - Duration::from_secs(1);
        }
        let wants_sync = orders.stop || orders.close || orders.asks.iter().any(|(sync, _)| *sync);
        let mut left = None;
        if result.is_ok() {
            match self.sync_if_due(wants_sync, record) {
                Ok(sync) => left = sync,
                Err(text) => result = Err(text),
            }
        }
        if result.is_ok() && (orders.stop || orders.close) {
            self.drop_journal();
        }
        for (_, ask) in orders.asks {
            let _ = ask.send(result.clone());
        }
        if orders.close {
            self.file = None;
            self.pending.clear();
            self.fine();
        }
        if orders.stop {
            self.ended = true;
            self.writer.queue().ended = true;
            self.writer.bell.notify_all();
            self.writer.helpers.notify_all();
        }
        left
    }

    fn policy(&self) -> AppendFsync {
        self.log.shared.config().appendfsync
    }

    /// Sleeps until there is something to do.
    fn wait(&mut self) -> Orders {
        let mut queue = self.writer.queue();
        let collects = !queue.urgent && self.policy() != AppendFsync::Always && !queue.pieces.is_empty();
        if collects {
            // More will come; nobody waits for it.
            let (back, _) = self.writer.bell.wait_timeout(queue, COLLECT).unwrap_or_else(|e| e.into_inner());
            queue = back;
        }
        loop {
            let orders = queue.urgent || !queue.asks.is_empty() || queue.close || queue.stop;
            let now = Instant::now();
            let due = match (self.retry_at, self.unsynced()) {
                (Some(at), _) => Some(at),
                (None, true) if self.policy() == AppendFsync::Everysec => Some(self.last_sync + Duration::from_secs(1)),
                _ if self.wants_forcing() => Some(self.last_forced + FORCE),
                _ => None,
            };
            let writes = !queue.pieces.is_empty() && self.retry_at.is_none();
            if orders || writes || due.is_some_and(|at| at <= now) {
                break;
            }
            queue.asleep = true;
            queue = match due {
                Some(at) => self.writer.bell.wait_timeout(queue, at - now).unwrap_or_else(|e| e.into_inner()).0,
                None => self.writer.bell.wait(queue).unwrap_or_else(|e| e.into_inner()),
            };
            queue.asleep = false;
        }
        queue.urgent = false;
        self.pending.append(&mut queue.pieces);
        let file = queue.file.take();
        let orders = Orders {
            asks: std::mem::take(&mut queue.asks),
            close: std::mem::take(&mut queue.close),
            stop: queue.stop,
            made_up: queue.made_up,
        };
        drop(queue);
        if let Some(file) = file {
            self.begin_file(file);
        }
        orders
    }

    /// Goes on in this file; what stands in the last one is on disk, if it has to be.
    fn begin_file(&mut self, file: OpenFile) {
        if self.journal_path.as_ref().is_some_and(|path| *path != file.journal) {
            self.drop_journal();
        }
        self.file = Some(file);
        self.begun = self.written;
        self.no_journal = false;
    }

    fn unsynced(&self) -> bool {
        self.written > self.synced
    }

    /// Writes all that is there.
    fn write(&mut self) -> Result<(), String> {
        self.retry_at = None;
        while let Some(first) = self.pending.front() {
            let generation = first.generation;
            if self.file.as_ref().is_none_or(|file| file.generation < generation) {
                self.switch(generation)?;
            }
            let together = self.pending.iter().take_while(|piece| piece.generation == generation).count();
            let bytes = match together {
                1 => std::mem::take(&mut self.pending[0].bytes),
                _ => self.pending.iter().take(together).flat_map(|piece| &piece.bytes).copied().collect(),
            };
            let end = self.pending[together - 1].end;
            let Some(file) = &mut self.file else {
                // The log was turned off, and its files are closed.
                self.pending.drain(..together);
                continue;
            };
            let sleep = self.log.shared.debug.aof_flush_sleep_us.load(Relaxed);
            if sleep > 0 {
                std::thread::sleep(Duration::from_micros(sleep));
            }
            let wrote = file.file.write(&bytes);
            match wrote {
                Ok(n) if n == bytes.len() => {
                    file.size += n as u64;
                    if let Some(journal) = &mut self.journal {
                        journal.collect(&bytes);
                    }
                    self.log.grew(file.generation, n as u64);
                    self.log.shared.aof.buffered.fetch_sub(n, Relaxed);
                    self.written = end;
                    self.pending.drain(..together);
                    self.fine();
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => self.put_back(bytes, together),
                wrote => {
                    let text = self.write_failed(wrote, bytes.len());
                    let kept = match &self.file {
                        // What could not be cut off again is not written twice.
                        Some(file) if text.1 > 0 => {
                            self.log.grew(file.generation, text.1 as u64);
                            self.log.shared.aof.buffered.fetch_sub(text.1, Relaxed);
                            bytes[text.1..].to_vec()
                        }
                        _ => bytes,
                    };
                    self.put_back(kept, together);
                    self.retry_at = Some(Instant::now() + RETRY);
                    return Err(text.0);
                }
            }
        }
        Ok(())
    }

    /// What was not written goes first the next time.
    fn put_back(&mut self, bytes: Vec<u8>, together: usize) {
        let last = self.pending[together - 1].clone();
        self.pending.drain(..together);
        self.pending.push_front(Piece { bytes, ..last });
    }

    /// Goes on in another file.
    fn switch(&mut self, generation: u64) -> Result<(), String> {
        // What stands in the last one must not be missing where something of the next is found.
        if self.file.is_some() && self.unsynced() && self.policy() != AppendFsync::No {
            self.sync()?;
        }
        match self.log.take_file(generation, self.shard) {
            Ok(Some(file)) => self.begin_file(file),
            // None could be made: it goes on in the old one.
            Ok(None) => {
                if let Some(file) = &mut self.file {
                    file.generation = generation;
                }
            }
            Err(text) => {
                self.broken(&text, &text);
                self.retry_at = Some(Instant::now() + RETRY);
                return Err(text);
            }
        }
        Ok(())
    }

    /// Says what is wrong, once in a while, and cuts off what a short write left. Says how many bytes it left after all.
    fn write_failed(&mut self, wrote: std::io::Result<usize>, expected: usize) -> (String, usize) {
        let file = self.file.as_mut().expect("it was written to");
        let (line, reason, mut left) = match &wrote {
            Err(error) => (format!("Error writing to the AOF file: {}", os_text(error)), os_text(error), 0),
            Ok(n) => (
                format!("Short write while writing to the AOF file: (nwritten={n}, expected={expected})"),
                "No space left on device".to_string(),
                *n,
            ),
        };
        let mut more = None;
        if left > 0 {
            match file.file.truncate(file.size) {
                Ok(()) => left = 0,
                Err(error) => {
                    file.size += left as u64;
                    more = Some(format!(
                        "Could not remove short write from the append-only file {}.  The server may refuse to load the AOF the next time it starts.  ftruncate: {}",
                        file.name,
                        os_text(&error)
                    ));
                }
            }
        }
        self.broken(&line, &reason);
        more.iter().for_each(log::warning);
        (reason, left)
    }

    /// The log cannot be written.
    fn broken(&mut self, line: &str, reason: &str) {
        let now = Instant::now();
        if self.complained.is_none_or(|at| now - at > COMPLAIN) {
            self.complained = Some(now);
            log::warning(line);
        }
        if self.policy() == AppendFsync::Always {
            log::warning("Can't recover from AOF write error when the AOF fsync policy is 'always'. Exiting...");
            (self.log.die)();
        }
        self.log.shared.aof.set_write_error(Some(reason.to_string()));
        self.log.shared.bump_epoch();
    }

    /// The log can be written.
    fn fine(&mut self) {
        if self.complained.take().is_some() && self.unsure.is_none() {
            log::notice("AOF write error looks solved. The server can write again.");
            self.log.shared.aof.set_write_error(None);
            self.log.shared.bump_epoch();
        }
    }

    /// Syncs if the policy, or somebody, wants it now; or says what is to be synced without the pen.
    fn sync_if_due(&mut self, wanted: bool, record: &mut Pages) -> Result<Option<Unsynced>, String> {
        let Some(file) = &self.file else { return Ok(None) };
        let handles = file.syncs.clone();
        let shared = &self.log.shared;
        let config = shared.config();
        let spared = config.no_appendfsync_on_rewrite && shared.persistence.saving.load(Acquire) && !wanted;
        if !self.unsynced() {
            return Ok(None);
        }
        let due = match config.appendfsync {
            AppendFsync::Always => true,
            AppendFsync::Everysec => self.last_sync.elapsed() >= Duration::from_secs(1),
            AppendFsync::No => false,
        };
        if spared {
            if config.appendfsync == AppendFsync::Always {
                // As asked for: clients do not wait for the disk while it is busy.
                self.log.publish(self.shard, self.written);
            }
            (self.last_sync, self.last_forced) = (Instant::now(), Instant::now());
            return Ok(None);
        }
        if config.appendfsync == AppendFsync::Always && !wanted && !handles.is_empty() {
            return self.begin_sync(handles, record);
        }
        if due || wanted {
            self.sync()?;
        }
        Ok(None)
    }

    /// What was written since the last sync began is to be synced by this thread: by way of the journal if there is one.
    /// What the journal cannot take is synced before anything else is written, so that it goes on behind.
    fn begin_sync(&mut self, file: Arc<[SyncHandle]>, record: &mut Pages) -> Result<Option<Unsynced>, String> {
        let mut unsynced = None;
        if self.given < self.written {
            let journal = self.record(record);
            if journal.is_none() && self.journal.is_some() {
                self.sync()?;
            } else {
                self.given = self.written;
                let (position, journaled) = (self.written, journal.is_some());
                self.writer.under_way().push_back(UnderWay { position, journaled, ended: false });
                unsynced = Some(Unsynced { position, file, journal });
            }
        }
        let half_full = self.journal.as_ref().is_some_and(Journal::is_half_full);
        if (half_full || self.last_forced.elapsed() >= FORCE) && self.wants_forcing() {
            self.force();
        }
        Ok(unsynced)
    }

    /// A record for the journal of what was written since the last sync began.
    fn record(&mut self, record: &mut Pages) -> Option<Write> {
        if self.writer.journal_failed.swap(false, AcqRel) {
            (self.journal, self.forcing, self.no_journal) = (None, None, true);
        }
        let durable = self.writer.durable.load(Acquire);
        // Of a new file not even its being there is on disk before its first sync.
        let file = self.file.as_ref().filter(|_| durable > self.begun)?;
        let Some(journal) = &mut self.journal else {
            self.make_journal();
            return None;
        };
        let shift = file.size as i64 - self.written as i64;
        let part = Part { name: &file.name, from: self.given, to: self.written, durable, shift };
        journal.free(durable, self.writer.recorded.load(Acquire));
        let write = journal.record(&part, record);
        journal.forget();
        write
    }

    fn make_journal(&mut self) {
        let Some(file) = self.file.as_ref().filter(|_| !self.no_journal) else { return };
        let mut id = [0; 16];
        self.log.shared.host.secret(&mut id);
        match Journal::create(&*self.log.disk, &file.journal, id) {
            Ok(journal) => {
                self.journal = journal;
                self.journal_path = Some(file.journal.clone());
            }
            Err(error) => log::warning(format!(
                "Can't create the journal {} of the AOF: {}. Doing without.",
                file.journal.display(),
                os_text(&error)
            )),
        }
        let (sender, orders) = channel();
        let (log, shard) = (self.log.clone(), self.shard);
        let thread = std::thread::Builder::new().name(format!("aof-{shard}-file"));
        match self.journal.is_some() && thread.spawn(move || force_files(&log, shard, &orders)).is_ok() {
            true => self.forcing = Some(sender),
            false => (self.journal, self.no_journal) = (None, true),
        }
    }

    /// Takes the journal away: all that was written is on disk without.
    fn drop_journal(&mut self) {
        (self.journal, self.forcing) = (None, None);
        if let Some(path) = self.journal_path.take() {
            let removed = self.log.disk.remove(&path);
            // One that is found after all says nothing that the log's file does not.
            let _ = removed.and_then(|()| path.parent().map_or(Ok(()), |dir| self.log.disk.sync_dir(dir)));
        }
    }

    /// Whether there is what only the journal has on disk, and nobody sees to it.
    fn wants_forcing(&self) -> bool {
        let durable = self.writer.durable.load(Acquire);
        let seen_to = self.forced > self.writer.recorded.load(Acquire);
        self.forcing.is_some() && !seen_to && self.given > durable && self.policy() == AppendFsync::Always
    }

    /// Has the log's file itself forced to disk.
    fn force(&mut self) {
        if let (Some(forcing), Some(file)) = (&self.forcing, &self.file) {
            let _ = forcing.send((file.syncs.clone(), self.given));
            self.forced = self.given;
        }
        self.last_forced = Instant::now();
    }

    fn sync(&mut self) -> Result<(), String> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let aof = &self.log.shared.aof;
        let began = Instant::now();
        aof.syncing.fetch_add(1, Relaxed);
        let (result, generation) = (file.file.sync(), file.generation);
        aof.syncing.fetch_sub(1, Relaxed);
        self.last_sync = Instant::now();
        let waits = !self.writer.queue().pieces.is_empty();
        if waits && self.last_sync - began > DELAYED {
            aof.delayed_syncs.fetch_add(1, Relaxed);
            log::notice(
                "Asynchronous AOF fsync is taking too long (disk is busy?). Writing the AOF buffer is delayed, no client waits for it.",
            );
        }
        match result {
            Ok(()) => {
                self.synced = self.written;
                if self.unsure.is_some_and(|unsure| generation <= unsure) {
                    return Ok(());
                }
                if self.unsure.take().is_some() {
                    self.log.shared.aof.set_write_error(None);
                    self.log.shared.bump_epoch();
                }
                self.given = self.written;
                self.writer.durable.fetch_max(self.written, AcqRel);
                match self.policy() == AppendFsync::Always {
                    true => self.journal.iter_mut().for_each(Journal::forget),
                    false => self.drop_journal(),
                }
                self.log.publish(self.shard, self.synced);
                Ok(())
            }
            Err(error) => {
                let text = os_text(&error);
                if self.policy() == AppendFsync::Always {
                    say_sync_failed(&text);
                    (self.log.die)();
                }
                log::warning(format!("Fail to fsync the AOF file: {text}"));
                self.unsure = Some(generation);
                aof.set_write_error(Some(text.clone()));
                // What was written may be gone from memory without being on disk: only a new base file helps.
                aof.scheduled.store(true, Release);
                self.log.shared.bump_epoch();
                Err(text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_journal_took_counts_when_all_before_it_does() {
        let writer = Writer::default();
        let begin = |position, journaled| writer.under_way().push_back(UnderWay { position, journaled, ended: false });
        [10, 20, 30, 40].iter().for_each(|position| begin(*position, true));
        assert_eq!(writer.end_sync(20, false), None);
        assert_eq!(writer.end_sync(30, false), None);
        assert_eq!(writer.end_sync(10, false), Some(30));
        begin(50, false);
        begin(60, false);
        // The file holds all, but a record behind 40 would go on where none ends.
        assert_eq!(writer.end_sync(60, true), None);
        assert_eq!(writer.end_sync(40, false), Some(60));
        assert_eq!((writer.durable.load(Acquire), writer.end_sync(50, true)), (60, None));
    }
}
