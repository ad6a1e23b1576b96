//! `Pen`: who holds it writes one shard's log. There is one for each, so that what is written is in order.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::*;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use ringshard_shards::aof::journal::RECORD_MAX;
use ringshard_shards::config::AppendFsync;
use ringshard_shards::propagate::Piece;

use super::Log;
use super::group::Added;
use super::journal::Part;
use super::syncs::{Handles, Unsynced, say_sync_failed};
use super::writer::Writer;
use crate::log;
use crate::net::os_text;
use crate::persistence::disk::DiskFile;

/// A failed write is tried again after so long, and complained of once in so long (Redis: `AOF_WRITE_LOG_ERROR_RATE`).
const RETRY: Duration = Duration::from_secs(1);
const COMPLAIN: Duration = Duration::from_secs(30);

/// A sync that takes longer counts as delayed, as in Redis.
const DELAYED: Duration = Duration::from_secs(2);

/// A log's file.
pub struct OpenFile {
    file: Box<dyn DiskFile>,
    /// None if only this thread can sync it.
    syncs: Option<Arc<Handles>>,
    name: String,
    /// The journal's path.
    journal: PathBuf,
    generation: u64,
    /// Bytes of whole commands in it.
    size: u64,
}

impl OpenFile {
    /// A file that holds `size` bytes.
    pub fn new(file: Box<dyn DiskFile>, name: String, journal: PathBuf, generation: u64, size: u64) -> Self {
        let syncs = Handles::of(&*file);
        OpenFile { file, syncs, name, journal, generation, size }
    }
}

/// See the head of the file.
pub(super) struct Pen {
    log: Arc<Log>,
    /// Everything is written.
    pub(super) ended: bool,
    /// Up to where a sync was begun that goes on without the pen.
    given: u64,
    /// The file that is written was begun at this position.
    begun: u64,
    /// What the file took since the last sync began, while there is a journal; less where it is too much for a record.
    collected: Vec<u8>,
    writer: Arc<Writer>,
    pub(super) shard: usize,
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
    pub(super) fn new(log: &Arc<Log>, shard: usize) -> Self {
        Pen {
            log: log.clone(),
            ended: false,
            given: 0,
            begun: 0,
            collected: Vec::new(),
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

    /// Does what there is to do. What is still to be synced, up to which position, is returned where that needs no pen and is
    /// not for the group to see to.
    pub(super) fn take_turn(&mut self) -> Option<Unsynced> {
        let orders = self.take_orders();
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
            match self.sync_if_due(wants_sync) {
                Ok(sync) => left = sync,
                Err(text) => result = Err(text),
            }
        }
        if result.is_ok() && (orders.stop || orders.close) {
            self.log.group.retire(&self.log);
        }
        for (_, ask) in orders.asks {
            let _ = ask.send(result.clone());
        }
        if orders.close {
            self.file = None;
            self.pending.clear();
            self.fine();
        }
        let mut queue = self.writer.queue();
        if orders.stop {
            (self.ended, queue.ended) = (true, true);
            self.writer.gone.notify_all();
        }
        queue.halted = self.retry_at.is_some();
        queue.due = match self.retry_at {
            None if self.unsynced() && self.policy() == AppendFsync::Everysec => {
                Some(self.last_sync + Duration::from_secs(1))
            }
            retry_at => retry_at,
        };
        drop(queue);
        left
    }

    fn policy(&self) -> AppendFsync {
        self.log.shared.config().appendfsync
    }

    /// Takes what has come.
    fn take_orders(&mut self) -> Orders {
        let mut queue = self.writer.queue();
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
        self.file = Some(file);
        self.begun = self.written;
        self.log.group.try_again();
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
                _ => self.pending.iter().take(together).map(|piece| &piece.bytes[..]).collect::<Vec<_>>().concat(),
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
                    self.log.grew(file.generation, n as u64);
                    self.log.shared.aof.buffered.fetch_sub(n, Relaxed);
                    self.written = end;
                    self.pending.drain(..together);
                    self.collect(bytes);
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

    /// The file took these bytes.
    fn collect(&mut self, bytes: Vec<u8>) {
        if !self.log.group.journaling() {
            self.collected = Vec::new();
        } else if self.collected.is_empty() {
            self.collected = bytes;
        } else if self.collected.len() <= RECORD_MAX {
            self.collected.extend_from_slice(&bytes);
        }
    }

    /// What was not written goes first the next time.
    fn put_back(&mut self, bytes: Vec<u8>, together: usize) {
        let last = self.pending[together - 1].clone();
        self.pending.drain(..together);
        self.pending.push_front(Piece { bytes, ..last });
    }

    /// Goes on in another file.
    fn switch(&mut self, generation: u64) -> Result<(), String> {
        self.log.group.step_back(&self.log);
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
    fn sync_if_due(&mut self, wanted: bool) -> Result<Option<Unsynced>, String> {
        let Some(file) = &self.file else { return Ok(None) };
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
                self.log.publish(&[(self.shard, self.written)]);
            }
            self.last_sync = Instant::now();
            return Ok(None);
        }
        if config.appendfsync == AppendFsync::Always
            && !wanted
            && let Some(handles) = file.syncs.clone()
        {
            return self.begin_sync(handles);
        }
        if due || wanted {
            self.sync()?;
        }
        Ok(None)
    }

    /// Has what was written since the last sync began synced: by way of the journal if there is one, else it is returned.
    /// What the journal cannot take is synced before anything else is written, so that it goes on behind.
    fn begin_sync(&mut self, file: Arc<Handles>) -> Result<Option<Unsynced>, String> {
        if self.given == self.written {
            return Ok(None);
        }
        match self.record(&file) {
            Added::Recorded => {
                self.given = self.written;
                self.collected.clear();
                Ok(None)
            }
            Added::Refused => self.sync().map(|()| None),
            Added::Without => {
                self.given = self.written;
                self.writer.syncs.begin(self.written, false);
                Ok(Some(Unsynced { position: self.written, file }))
            }
        }
    }

    /// Has a record of what was written since the last sync began written to the journal.
    fn record(&self, syncs: &Arc<Handles>) -> Added {
        let Some(file) = &self.file else { return Added::Refused };
        let durable = self.writer.syncs.durable.load(Acquire);
        if durable <= self.begun {
            // Of a new file not even its being there is on disk before its first sync.
            return Added::Refused;
        }
        let part = Part {
            shard: self.shard,
            name: &file.name,
            from: self.given,
            to: self.written,
            durable,
            shift: file.size as i64 - self.written as i64,
            bytes: &self.collected,
        };
        let group = &self.log.group;
        let added = group.add(&self.log, &file.journal, &part, syncs);
        if added == Added::Without {
            group.make_journal(&self.log, &file.journal);
        }
        added
    }

    fn sync(&mut self) -> Result<(), String> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let (aof, group) = (&self.log.shared.aof, &self.log.group);
        group.step_back(&self.log);
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
                self.writer.syncs.durable.fetch_max(self.written, AcqRel);
                self.collected.clear();
                if group.journaling() && self.policy() != AppendFsync::Always {
                    group.retire(&self.log);
                }
                self.log.publish(&[(self.shard, self.synced)]);
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
