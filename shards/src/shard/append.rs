//! The log as a shard does its part in it: what its slice's writes did goes to the driver once a turn, and under
//! `appendfsync always` output waits until all that it may tell of is on disk.
//!
//! A shard keeps a position of every log, [`Gate::needs`]: of its own how far it has written, of the others what came
//! with their parcels, and with slices that were lent. At the end of a turn these positions are compared with what is
//! stable ([`crate::aof::Aof::stable`]). If some are not, the turn's output is put aside with the turn's number, and the
//! loop goes on; when the driver has synced more, the turns that are covered let their output go, in order. So nobody is
//! told of a write that could still be lost, whether he wrote it or read it.
//!
//! Counterpart: `flushAppendOnlyFile`, which writes and syncs before any reply of a turn is sent.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::*;

use super::{Effect, LogLevel, Shard};
use crate::aof::State;
use crate::client::Wait;
use crate::config::AppendFsync;
use crate::core::Fault;
use crate::router::ShardId;
use crate::snapshot;

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    /// `WAIT`: replicas have done what it did.
    Replicas,
    /// `WAITAOF`: that is on their disks, and on this server's if so.
    Disks {
        /// Whether on this server's.
        local: bool,
    },
}

/// A client that waits for the log or for replicas.
#[derive(Debug)]
pub(crate) struct LogWaiter {
    index: u32,
    id: u64,
    what: WaitsFor,
    needs: Vec<u64>,
    /// How many replicas it wants.
    replicas: i64,
    /// Up to where in their stream.
    offset: u64,
    /// Unix ms, 0 for none.
    deadline_ms: i64,
}

/// Output that waits, see the module's page.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Whether output waits for the log.
    pub(crate) on: bool,
    /// By shard, how far its log may be told of in what this shard sends.
    pub(crate) needs: Vec<u64>,
    /// Turns whose output is not yet covered: their number, and what they need.
    tickets: VecDeque<(u64, Vec<u64>)>,
    /// The number of the last such turn.
    turn: u64,
    /// Turns up to this one are covered.
    covered: u64,
    /// Clients with output put aside.
    held: Vec<u32>,
}

/// A client's output that waits.
#[derive(Debug, Default)]
pub struct HeldOutput {
    /// By turn.
    parts: VecDeque<(u64, Vec<u8>)>,
    /// Bytes in all.
    bytes: usize,
}

impl HeldOutput {
    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn push(&mut self, turn: u64, bytes: Vec<u8>) {
        self.bytes += bytes.len();
        match self.parts.back_mut() {
            Some((last, before)) if *last == turn => before.extend_from_slice(&bytes),
            _ => self.parts.push_back((turn, bytes)),
        }
    }

    /// Takes the output of turns up to this one.
    fn pop(&mut self, covered: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while self.parts.front().is_some_and(|(turn, _)| *turn <= covered) {
            let (_, part) = self.parts.pop_front().expect("just seen");
            self.bytes -= part.len();
            match out.is_empty() {
                true => out = part,
                false => out.extend_from_slice(&part),
            }
        }
        out
    }
}

impl Gate {
    pub(crate) fn new(shards: usize) -> Self {
        Gate { needs: vec![0; shards], ..Gate::default() }
    }

    /// Whether clients' output takes the way through here.
    #[inline]
    pub(crate) fn is_busy(&self) -> bool {
        self.on || !self.held.is_empty()
    }
}

impl Shard {
    /// Sees anew whether output waits for the log.
    pub(crate) fn refresh_gate(&mut self) {
        let on = self.core.shared.aof.state() == State::On && self.core.config.appendfsync == AppendFsync::Always;
        self.gate.on = on && !self.core.leaves_out(Fault::NoGate);
    }

    /// Whether effects are wanted, as a slice that has come says.
    pub(crate) fn heed_logging(&mut self, owner: ShardId) {
        let Some(slice) = self.slices[owner as usize].as_deref() else { return };
        let (log, stream) = (slice.log.on, slice.stream.on);
        if (log, stream) != (self.core.effects.log, self.core.effects.stream) {
            self.core.effects.set(log, stream);
            self.refresh_gate();
        }
    }

    /// What was said of libraries while the slice was away.
    pub(crate) fn tell_late_effects(&mut self) {
        if self.late_effects.is_empty() {
            return;
        }
        if let Some(slice) = self.slices[self.core.id as usize].as_deref_mut() {
            for (number, words) in self.late_effects.drain(..) {
                slice.append_numbered(number, words.args());
            }
        }
    }

    /// Takes over up to where others' logs may be told of.
    pub(crate) fn merge_needs(&mut self, needs: &[u64]) {
        if self.core.leaves_out(Fault::OwnLogOnly) {
            return;
        }
        for (mine, theirs) in self.gate.needs.iter_mut().zip(needs) {
            *mine = (*mine).max(*theirs);
        }
    }

    /// What was run on these slices, which are in their places, may be told of from now on.
    pub(crate) fn note_positions(&mut self, owners: &[ShardId]) {
        if self.core.effects.on {
            for owner in owners {
                if let Some(slice) = self.slices[*owner as usize].as_deref() {
                    let need = &mut self.gate.needs[*owner as usize];
                    *need = (*need).max(slice.log.position());
                }
            }
        }
    }

    /// As [`Shard::note_positions`] for this shard's own slice, if it is at home.
    pub(crate) fn note_own_position(&mut self) {
        self.note_positions(&[self.core.id]);
    }

    /// Hands what the log has to the driver, if the slice is at home.
    pub(crate) fn drain_log(&mut self) {
        self.drain_streams();
        let own = self.core.id;
        let Some(slice) = self.slices[own as usize].as_deref_mut().filter(|slice| !slice.log.is_empty()) else {
            return;
        };
        if !slice.log.on {
            return;
        }
        let need = &mut self.gate.needs[own as usize];
        *need = (*need).max(slice.log.position());
        for piece in slice.log.take_pieces(own) {
            self.core.shared.aof.hand_over(&piece);
            self.core.pieces.push(piece);
        }
    }

    /// What a turn ends with: the log goes to the driver, and output waits or goes.
    pub(crate) fn end_turn_of_log(&mut self) {
        if self.core.effects.on {
            self.drain_log();
            if self.gate.on && !self.outbox.is_empty() {
                self.outbox.set_needs(&self.gate.needs);
            }
        }
        if !self.replicas.is_empty() {
            self.serve_replicas();
        }
        if self.gate.is_busy() || !self.log_waiters.is_empty() {
            self.look_at_gate();
        }
    }

    fn is_stable(&self, needs: &[u64]) -> bool {
        let aof = &self.core.shared.aof;
        needs.iter().enumerate().all(|(shard, need)| *need <= aof.stable(shard))
    }

    #[cold]
    fn look_at_gate(&mut self) {
        // Before the look, so that who syncs between the look and the sleep rings.
        let shared = self.core.shared.clone();
        let listens = &shared.aof.listens[self.core.id as usize].0;
        listens.store(true, SeqCst);
        if !self.gate.on {
            self.gate.tickets.clear();
            self.gate.covered = self.gate.turn;
        } else {
            while self.gate.tickets.front().is_some_and(|(_, needs)| self.is_stable(needs)) {
                self.gate.covered = self.gate.tickets.pop_front().expect("just seen").0;
            }
            if self.late_effects.is_empty() && self.is_stable(&self.gate.needs) {
                self.gate.tickets.clear();
                self.gate.covered = self.gate.turn;
            } else if self.gate.tickets.back().is_none_or(|(_, needs)| *needs != self.gate.needs) {
                self.gate.turn += 1;
                let needs = self.gate.needs.clone();
                self.gate.tickets.push_back((self.gate.turn, needs));
            }
        }
        let covered = self.gate.covered;
        let mut held = std::mem::take(&mut self.gate.held);
        held.retain(|index| {
            let client = self.clients[*index as usize].as_deref();
            let Some(waits) = client.and_then(|client| client.held.as_deref()) else { return false };
            if waits.parts.front().is_some_and(|(turn, _)| *turn <= covered) {
                self.queue_flush(*index);
            }
            true
        });
        self.gate.held = held;
        self.end_log_waits();
        if self.gate.tickets.is_empty() && self.log_waiters.is_empty() {
            listens.store(false, SeqCst);
        }
    }

    /// As [`Shard::take_output`] while output waits for the log.
    #[cold]
    pub(crate) fn take_covered_output(&mut self, index: u32, soon_more: bool) -> Vec<u8> {
        let covered = self.gate.tickets.is_empty();
        let turn = self.gate.turn;
        let client = self.clients[index as usize].as_deref_mut().expect("the caller saw it");
        if !client.out.is_empty() && !soon_more {
            if covered && client.held.is_none() {
                return std::mem::take(&mut client.out);
            }
            let out = std::mem::take(&mut client.out);
            if client.held.is_none() {
                self.gate.held.push(index);
            }
            client.held.get_or_insert_default().push(turn, out);
        }
        let Some(held) = client.held.as_deref_mut() else { return Vec::new() };
        let out = held.pop(self.gate.covered);
        if held.parts.is_empty() {
            client.held = None;
            self.gate.held.retain(|held| *held != index);
        }
        out
    }

    /// `WAIT` and `WAITAOF`: what a client has done so far is to be done by replicas, or on disk. True when the client
    /// waits.
    pub(crate) fn wait_for_log(&mut self, index: u32, what: WaitsFor, replicas: i64, deadline_ms: i64) -> bool {
        self.note_own_position();
        self.drain_streams();
        let aof = &self.core.shared.aof;
        let needs = self.gate.needs.iter().enumerate().map(|(shard, need)| (*need).max(aof.logged(shard))).collect();
        let offset = self.core.shared.replication.feed().offset();
        let id = self.client(index).id;
        let waiter = LogWaiter { index, id, what, needs, replicas, offset, deadline_ms };
        if self.core.deny_blocking || self.is_fulfilled(&waiter) {
            self.answer_log_waiter(&waiter);
            return false;
        }
        if replicas > 0 {
            self.core.shared.replication.waits[self.core.id as usize].0.store(true, Release);
            self.ask_replicas();
        }
        self.wait_for(index, Wait::Log);
        self.log_waiters.push(waiter);
        true
    }

    fn is_on_disk(&self, waiter: &LogWaiter) -> bool {
        self.core.shared.aof.state() == State::On && self.is_stable(&waiter.needs)
    }

    /// How many replicas have what a client waits for.
    fn replicas_with(&self, waiter: &LogWaiter) -> i64 {
        let feed = self.core.shared.replication.feed();
        let has = feed.count(|replica| match waiter.what {
            WaitsFor::Replicas => replica.acknowledged >= waiter.offset,
            WaitsFor::Disks { .. } => replica.on_disk >= waiter.offset,
        });
        has as i64
    }

    fn is_fulfilled(&self, waiter: &LogWaiter) -> bool {
        (waiter.what != WaitsFor::Disks { local: true } || self.is_on_disk(waiter))
            && (waiter.replicas <= 0 || self.replicas_with(waiter) >= waiter.replicas)
    }

    fn answer_log_waiter(&mut self, waiter: &LogWaiter) {
        let (local, replicas) = (self.is_on_disk(waiter), self.replicas_with(waiter));
        let Some(client) = self.client_by_id(waiter.index, waiter.id) else { return };
        let mut reply = client.reply();
        if waiter.what != WaitsFor::Replicas {
            reply.array(2);
            reply.integer(i64::from(local));
        }
        reply.integer(replicas);
        self.queue_flush(waiter.index);
    }

    /// Ends the waits that are fulfilled, or whose time has run out.
    fn end_log_waits(&mut self) {
        let now = self.core.now_ms;
        let mut waiters = std::mem::take(&mut self.log_waiters);
        waiters.retain(|waiter| {
            if self.client_by_id(waiter.index, waiter.id).is_none() {
                return false;
            }
            let off = self.core.shared.aof.state() == State::Off && waiter.what == WaitsFor::Disks { local: true };
            let late = waiter.deadline_ms != 0 && waiter.deadline_ms <= now;
            if !off && !late && !self.is_fulfilled(waiter) {
                return true;
            }
            match off {
                false => self.answer_log_waiter(waiter),
                true => {
                    let text = "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.";
                    self.reply_in_order(waiter.index, |reply| reply.error(text));
                }
            }
            self.wake(waiter.index);
            false
        });
        if !waiters.iter().any(|waiter| waiter.replicas > 0) {
            self.core.shared.replication.waits[self.core.id as usize].0.store(false, Release);
        }
        self.log_waiters = waiters;
    }

    /// `CLIENT UNBLOCK` of a client that may wait for the log or for replicas.
    pub(crate) fn unblock_log_waiter(&mut self, id: u64, error: bool) -> bool {
        let Some(at) = self.log_waiters.iter().position(|waiter| waiter.id == id) else { return false };
        let waiter = self.log_waiters.remove(at);
        match error {
            true => self.reply_in_order(waiter.index, |reply| reply.error(super::blocking::UNBLOCKED)),
            false => self.answer_log_waiter(&waiter),
        }
        self.wake(waiter.index);
        true
    }

    /// When the next wait for the log ends, in Unix ms.
    pub(crate) fn log_deadline_ms(&self) -> Option<i64> {
        self.log_waiters.iter().map(|waiter| waiter.deadline_ms).filter(|at| *at != 0).min()
    }

    /// Begins a rewrite of the log, by a client or by itself; without a log it begins one. All slices are in hand.
    pub(crate) fn begin_rewrite(&mut self) {
        let slices = self.slices.iter_mut().filter_map(|slice| slice.as_deref_mut());
        if let Err(text) = snapshot::begin_rewrite(&mut self.core, slices) {
            self.log(LogLevel::Warning, text);
        }
        self.refresh_gate();
    }

    /// There is to be no log any longer. All slices are in hand.
    pub(crate) fn stop_log(&mut self) {
        let aof = &self.core.shared.aof;
        if self.core.shared.config().appendonly {
            // It was turned on again meanwhile.
            return;
        }
        let state = aof.state();
        aof.set_state(State::Off);
        aof.scheduled.store(false, Relaxed);
        if aof.rewriting.load(Acquire) {
            self.core.shared.persistence.give_up();
            // The next may begin at once, though the driver has not put this one away yet.
            aof.rewriting.store(false, Release);
            self.core.shared.persistence.saving.store(false, Release);
            let line = format!("Killing running AOF rewrite child: {}", self.core.shared.process_id);
            self.effects.push(Effect::Log(LogLevel::Notice, line));
        }
        for slice in self.slices.iter_mut().flatten() {
            let owner = slice.owner;
            for piece in slice.log.take_pieces(owner) {
                aof.hand_over(&piece);
                self.core.pieces.push(piece);
            }
            slice.log.on = false;
        }
        self.core.effects.set(false, self.core.effects.stream);
        if state != State::Off {
            self.effects.push(Effect::StopLog);
        }
        self.core.shared.bump_epoch();
        self.refresh_gate();
    }

    /// Has the log turned on or off, as the configuration now says.
    pub(crate) fn switch_log(&mut self) {
        if self.core.shared.persistence.loading.load(Acquire) {
            // Who loads sees to it at the end, and the first shard to what comes too late for that.
            self.core.shared.aof.switched_while_loading.store(true, Release);
            return;
        }
        let (wanted, state) = (self.core.shared.config().appendonly, self.core.shared.aof.state());
        match (wanted, state) {
            (true, State::Off) => {
                self.core.shared.aof.set_write_error(None);
                self.core.shared.aof.set_state(State::Waiting);
                self.request_rewrite();
            }
            (false, State::Waiting | State::On) => self.begin_own_tx(crate::transaction::Job::StopLog),
            _ => {}
        }
    }

    /// Has a rewrite begin: now, or when nothing else is written in the background.
    pub(crate) fn request_rewrite(&mut self) {
        let shared = self.core.shared.clone();
        if shared.persistence.saving.load(Acquire) {
            shared.aof.scheduled.store(true, Release);
            return;
        }
        shared.aof.scheduled.store(false, Release);
        shared.aof.rewriting.store(true, Release);
        self.begin_own_tx(crate::transaction::Job::Rewrite);
    }

    /// Looks whether a rewrite is due. The first shard does, from time to time.
    pub(crate) fn rewrite_cron(&mut self) {
        let shared = self.core.shared.clone();
        let (aof, config) = (&shared.aof, &self.core.config);
        if aof.switched_while_loading.load(Relaxed) && !shared.persistence.loading.load(Acquire) {
            aof.switched_while_loading.store(false, Release);
            return self.switch_log();
        }
        if shared.persistence.saving.load(Acquire)
            || aof.rewriting.load(Acquire)
            || shared.persistence.loading.load(Acquire)
        {
            return;
        }
        if aof.scheduled.load(Acquire) && aof.not_before_ms.load(Relaxed) <= self.core.now_ms {
            return self.request_rewrite();
        }
        let (percentage, minimum) = (config.auto_aof_rewrite_percentage, config.auto_aof_rewrite_min_size);
        let size = aof.current_size();
        if aof.state() != State::On || percentage == 0 || size <= minimum {
            return;
        }
        if aof.not_before_ms.load(Relaxed) > self.core.now_ms {
            return;
        }
        let base = aof.rewrite_base_size.load(Relaxed).max(1);
        let growth = (size * 100 / base).saturating_sub(100);
        if growth >= u64::from(percentage) {
            self.log(LogLevel::Notice, format!("Starting automatic rewriting of AOF on {growth}% growth"));
            self.request_rewrite();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::*;

    use crate::aof::State;
    use crate::testing::World;

    /// What `appendonly` is set to while data is loaded, too late for who loads to see, is heeded by the next time event.
    #[test]
    fn the_log_is_switched_when_all_is_loaded() {
        for shards in [1, 3] {
            let mut world = World::new(shards);
            let conn = world.connect();
            for (word, state) in [("yes", State::On), ("no", State::Off)] {
                let before = world.shared.aof.state();
                world.shared.persistence.loading.store(true, SeqCst);
                assert_eq!(world.run(conn, &format!("CONFIG SET appendonly {word}")).to_string(), "OK");
                world.advance(200);
                assert_eq!(world.shared.aof.state(), before, "{word} while loading");
                world.shared.persistence.loading.store(false, SeqCst);
                world.advance(200);
                (0..100).for_each(|_| world.end_turns());
                let reached = world.shared.aof.state();
                assert!(reached == state || (reached, state) == (State::Waiting, State::On), "{word}: {reached:?}");
                assert!(!world.shared.aof.switched_while_loading.load(Relaxed));
            }
        }
    }
}
