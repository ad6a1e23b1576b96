//! The append-only log, as the server as a whole sees it. Each shard has a log of its own, with what its slice's
//! [`crate::propagate::EffectLog`] tells; the driver writes it to a file. Nothing here knows a file.
//!
//! - [`read`] is the format, [`manifest`] says which files there are, [`load`] runs what they hold.
//! - [`journal`] holds the ends of logs once more, where they can be forced to disk fast.
//! - [`cut`] finds which parts of the logs belong together, for a command over several slices counts only if the logs
//!   of all of them tell of it.
//! - [`Aof`] is what shards and driver share. A log's *position* counts its bytes since the start. The driver says by
//!   [`Aof::synced`] up to where a log is on disk, and [`Aof::stable`] is up to where it can no longer be lost, not even
//!   by what other logs lack.
//!
//! **`appendfsync always`.** Output leaves a shard only when all that it may tell of is stable. A shard keeps a position
//! of every log ([`crate::shard::append`]): of its own, what was written; of others, what they said in the parcels that
//! brought replies or slices. What a turn has to send waits until all of these are stable, and the loop goes on.
//!
//! **A rewrite** is a snapshot at a cut over all slices ([`crate::snapshot::begin`]); from the cut on effects belong to a
//! new generation of logs. When the snapshot is whole, the manifest names it and the new logs alone.
//!
//! Counterpart: `aof.c`.

pub mod cut;
pub mod journal;
pub mod load;
pub mod manifest;
pub mod read;
pub mod rewrite;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::*};

use crate::propagate::{Mark, Piece};
use crate::router::ShardId;
use crate::shared::Lone;

/// The word before a command that is meant for one slice alone, though it names no key. Redis does not know it and says
/// so, where it would else do to all keys what was done to those of one shard.
pub const SLICE_WORD: &[u8] = b"RINGSHARD";

/// The line before what several logs tell of; `len` bytes follow.
pub fn spanning_line(number: u64, participants: &[ShardId], len: usize) -> Vec<u8> {
    format!("#RS:TX:{number}:{}:{len}\r\n", read::set_of(participants)).into_bytes()
}

/// Whether there is a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No.
    Off,
    /// It was turned on, and waits for the snapshot that it builds on.
    Waiting,
    /// Yes.
    On,
}

/// See the module's page.
#[derive(Debug)]
pub struct Aof {
    state: AtomicU64,
    numbers: AtomicU64,
    /// The last generation of logs that was begun.
    pub generation: AtomicU64,
    /// Up to where each shard has handed its log over.
    logged: Vec<Lone<AtomicU64>>,
    synced: Vec<Lone<AtomicU64>>,
    stable: Vec<Lone<AtomicU64>>,
    /// Shards that want to hear when more is stable.
    pub listens: Vec<Lone<AtomicBool>>,
    /// Commands over several slices that are not yet stable, a list each log.
    spanning: Mutex<Vec<VecDeque<Mark>>>,
    /// A rewrite is under way, or about to begin.
    pub rewriting: AtomicBool,
    /// One is to begin as soon as nothing else is written in the background.
    pub scheduled: AtomicBool,
    /// `appendonly` was set while data was being loaded: what it says then is heeded when all is loaded.
    pub switched_while_loading: AtomicBool,
    /// Unix ms at which the present one began, 0 without one.
    pub rewrite_since_ms: AtomicI64,
    /// How many seconds the last one took, or -1.
    pub rewrite_seconds: AtomicI64,
    /// How the last one ended.
    pub rewrite_ok: AtomicBool,
    /// Rewrites begun.
    pub rewrites: AtomicU64,
    /// Rewrites that failed since the last good one.
    pub failures: AtomicU64,
    /// Unix ms before which none begins by itself.
    pub not_before_ms: AtomicI64,
    /// Why the log cannot be written at present.
    pub write_error: Mutex<Option<String>>,
    /// The same as a flag, for the guards of commands.
    pub broken: AtomicBool,
    /// Bytes of the base file.
    pub base_size: AtomicU64,
    /// Bytes of all logs that count.
    pub log_size: AtomicU64,
    /// Bytes of all files when the last rewrite ended.
    pub rewrite_base_size: AtomicU64,
    /// Bytes on their way to the files.
    pub buffered: AtomicUsize,
    /// Syncs under way.
    pub syncing: AtomicUsize,
    /// Times that a sync took so long that writing waited for it.
    pub delayed_syncs: AtomicU64,
    /// Libraries of functions, while logs are loaded.
    pub loaded_libraries: load::LoadedLibraries,
}

impl Aof {
    /// No log.
    pub fn new(shards: usize) -> Self {
        let positions = || (0..shards).map(|_| Lone::default()).collect();
        Aof {
            state: AtomicU64::new(State::Off as u64),
            numbers: AtomicU64::new(1),
            generation: AtomicU64::new(0),
            logged: positions(),
            synced: positions(),
            stable: positions(),
            listens: (0..shards).map(|_| Lone::default()).collect(),
            spanning: Mutex::new((0..shards).map(|_| VecDeque::new()).collect()),
            rewriting: AtomicBool::new(false),
            scheduled: AtomicBool::new(false),
            switched_while_loading: AtomicBool::new(false),
            rewrite_since_ms: AtomicI64::new(0),
            rewrite_seconds: AtomicI64::new(-1),
            rewrite_ok: AtomicBool::new(true),
            rewrites: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            not_before_ms: AtomicI64::new(0),
            write_error: Mutex::default(),
            broken: AtomicBool::new(false),
            base_size: AtomicU64::new(0),
            log_size: AtomicU64::new(0),
            rewrite_base_size: AtomicU64::new(0),
            buffered: AtomicUsize::new(0),
            syncing: AtomicUsize::new(0),
            delayed_syncs: AtomicU64::new(0),
            loaded_libraries: load::LoadedLibraries::default(),
        }
    }

    /// Whether there is a log.
    #[inline]
    pub fn state(&self) -> State {
        match self.state.load(Acquire) {
            0 => State::Off,
            1 => State::Waiting,
            _ => State::On,
        }
    }

    /// Says whether there is a log.
    pub fn set_state(&self, state: State) {
        self.state.store(state as u64, Release);
    }

    /// A number for a command over several slices.
    pub fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Relaxed)
    }

    /// Numbers up to this one are in use.
    pub fn numbers_used(&self, number: u64) {
        self.numbers.fetch_max(number.saturating_add(1), Relaxed);
    }

    /// Notes what a log is about to hand to the driver.
    pub fn hand_over(&self, piece: &Piece) {
        let (shard, marks) = (piece.shard, &piece.marks);
        self.buffered.fetch_add(piece.bytes.len(), Relaxed);
        self.logged[shard as usize].0.store(piece.end, Release);
        if !marks.is_empty() {
            let mut spanning = self.spanning.lock().expect("no holder panics");
            spanning[shard as usize].extend(marks.iter().cloned());
        }
    }

    /// A log is on disk up to `position`.
    pub fn synced(&self, shard: ShardId, position: u64) {
        let mut spanning = self.spanning.lock().expect("no holder panics");
        self.synced[shard as usize].0.fetch_max(position, AcqRel);
        let mut ends: Vec<u64> = self.synced.iter().map(|synced| synced.0.load(Acquire)).collect();
        if spanning.iter().any(|marks| !marks.is_empty()) {
            cut::consistent_cut(&mut ends, &spanning);
            for (marks, end) in spanning.iter_mut().zip(&ends) {
                while marks.front().is_some_and(|mark| mark.end <= *end) {
                    marks.pop_front();
                }
            }
        }
        for (stable, end) in self.stable.iter().zip(ends) {
            stable.0.fetch_max(end, AcqRel);
        }
    }

    /// Up to where a log was handed over.
    pub fn logged(&self, shard: usize) -> u64 {
        self.logged[shard].0.load(Acquire)
    }

    /// Up to where a log can no longer be lost.
    #[inline]
    pub fn stable(&self, shard: usize) -> u64 {
        self.stable[shard].0.load(Acquire)
    }

    /// Bytes of all files that count.
    pub fn current_size(&self) -> u64 {
        self.base_size.load(Relaxed) + self.log_size.load(Relaxed)
    }

    /// Says that the log can be written, or why not.
    pub fn set_write_error(&self, error: Option<String>) {
        self.broken.store(error.is_some(), Release);
        *self.write_error.lock().expect("no holder panics") = error;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(number: u64, participants: &[u16], start: u64, end: u64) -> Mark {
        Mark { number, participants: participants.into(), start, end }
    }

    #[test]
    fn a_log_is_stable_when_what_it_shares_is_on_disk_everywhere() {
        let aof = Aof::new(3);
        let stable = || [0, 1, 2].map(|shard| aof.stable(shard));
        aof.synced(0, 10);
        assert_eq!(stable(), [10, 0, 0]);
        let piece = |shard, mark: Mark| Piece { shard, end: mark.end, marks: vec![mark], ..Piece::default() };
        aof.hand_over(&piece(0, mark(1, &[0, 1], 10, 20)));
        aof.synced(0, 30);
        assert_eq!(stable(), [10, 0, 0], "the other log has not told of it yet");
        aof.hand_over(&piece(1, mark(1, &[0, 1], 5, 9)));
        aof.synced(1, 8);
        assert_eq!(stable(), [10, 5, 0]);
        aof.synced(1, 9);
        assert_eq!(stable(), [30, 9, 0]);
        aof.synced(2, 7);
        assert_eq!(stable(), [30, 9, 7]);
    }
}
