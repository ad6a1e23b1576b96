//! A shard's seat at its thread's loop: the machine, its way to its sockets, its mail.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use hdrhistogram::Histogram;
use ringshard_shards::message::Parcel;
use ringshard_shards::shard::{Effect, Event, Shard};

use super::Poller;
use crate::clock::WorkTime;
use crate::mailbox::{Mail, Mailbox, Mailboxes, Taken};
use crate::net::{Accepted, Acceptor};
use crate::server::Server;
use crate::{clock, log};

/// What a poller hands events to.
pub struct Turn<'a> {
    /// The machine.
    pub shard: &'a mut Shard,
    /// The mailbox, to be silenced when its bell rang.
    pub mailbox: &'a Mailbox,
    /// Mail that is the loop's to deal with, when the poller is done.
    late: &'a mut Vec<Mail>,
    post: &'a mut Post,
    /// Connections that were accepted: the listener's id, and the descriptor.
    pub accepted: &'a mut Vec<(u32, i32)>,
    /// Whether anything happened.
    pub active: bool,
}

impl Turn<'_> {
    /// Takes in the mail that is there: to be called between the moment at which input was read and the one at which it is
    /// handed over.
    ///
    /// Who sends something because of an answer finds all behind it that was sent before that answer: parts of commands
    /// that split count on this for what other shards send, which stands behind them in the mailbox, and so must what
    /// comes by a socket. (The load that finds the box empty may be relaxed: what was put in before the input was sent
    /// happened before it.)
    pub fn take_mail(&mut self) {
        self.post.send_if_slow(self.shard);
        if !self.mailbox.is_empty() {
            self.active = true;
            take_in(self.shard, self.mailbox, self.late, self.post);
        }
    }
}

/// Gives the machine the mail that is for it, in its order; the rest is left to the loop, and what is for the machine need
/// not wait for that.
fn take_in(shard: &mut Shard, mailbox: &Mailbox, late: &mut Vec<Mail>, post: &mut Post) {
    let mut mails = mailbox.take();
    // What the next two parcels hold comes into the cache while one is dealt with, and what the next one asks for.
    let fetch = |mails: &Taken, nth| mails.parcel(nth).into_iter().for_each(Parcel::fetch);
    fetch(&mails, 0);
    fetch(&mails, 1);
    while let Some(mail) = mails.next() {
        if let Some(parcel) = mails.parcel(0) {
            shard.expect(parcel);
        }
        fetch(&mails, 1);
        match mail {
            Mail::Parcel(parcel) => shard.step(Event::Parcel(parcel)),
            Mail::Load(batch) => shard.step(Event::Load(batch)),
            Mail::LoadWithAll(batch) => shard.step(Event::LoadWithAll(batch)),
            Mail::LogSynced => shard.step(Event::LogSynced),
            Mail::Migrated(slot, outcome) => shard.step(Event::Migrated(slot, outcome)),
            Mail::Shutdown(how) => shard.step(Event::Shutdown(how)),
            Mail::Adopt(_) | Mail::Listen | Mail::Stop => late.push(mail),
        }
        post.send_if_slow(shard);
    }
}

/// What hands parcels to other shards.
struct Post {
    server: Arc<Server>,
    mailboxes: Arc<Mailboxes>,
    sleepers: Vec<usize>,
    /// Commands served by the end of the last turn.
    served: u64,
    /// When parcels were last sent within a turn, and how many commands were served by then.
    sent: (u64, u64),
}

impl Post {
    fn send(&mut self, shard: &mut Shard, ring: &mut dyn FnMut(&Mailbox)) {
        // Before anything leaves that tells of it, so that who has heard of a write finds it handed over.
        for piece in shard.core.pieces.drain(..) {
            self.server.log.append(piece);
        }
        if shard.outbox.is_empty() {
            return;
        }
        let (mailboxes, sleepers, outbox) = (&self.mailboxes, &mut self.sleepers, &mut shard.outbox);
        let ordered = outbox.is_ordered();
        let mut send = || {
            outbox.take(&mut |to, parcel| {
                if mailboxes.of(to as usize).push_quietly(Mail::Parcel(parcel)) {
                    sleepers.push(to as usize);
                }
            });
        };
        match ordered {
            true => mailboxes.ordered(send),
            false => send(),
        }
        for sleeper in self.sleepers.drain(..) {
            ring(self.mailboxes.of(sleeper));
        }
    }

    /// Sends what others wait for before the turn's end, when the turn is one of slow commands.
    #[inline]
    fn send_if_slow(&mut self, shard: &mut Shard) {
        if shard.outbox.is_empty() || !shard.may_send_early() {
            return;
        }
        let now = clock::monotonic_us();
        let processed = shard.core.stats.commands_processed;
        let since = now.saturating_sub(shard.core.now_us.max(self.sent.0));
        let commands = processed.saturating_sub(self.served.max(self.sent.1));
        if since >= SLOW_US && since >= commands * SLOW_COMMAND_US {
            self.sent = (now, processed);
            self.send(shard, &mut Mailbox::ring);
        }
    }
}

/// A file operation that a client waits for. It blocks, so an executor that can runs it beside the loop.
pub struct FileWork {
    /// The client.
    pub client: u32,
    /// The work: an error's text, or nothing.
    pub run: Box<dyn FnOnce() -> Result<(), String> + Send>,
}

/// What commands have asked of other shards, or answered them, is sent within a turn after so long,
const SLOW_US: u64 = 100;
/// if a command of the turn took so long.
///
/// Sent at its end, all of a turn's clients would be the other shard's at once, and then all of that one's this one's:
/// with commands that take some time, scripts mostly, the two would work by turns.
const SLOW_COMMAND_US: u64 = 4;

/// One shard at its thread's loop.
pub struct Seat<P> {
    /// The machine.
    pub shard: Shard,
    /// File operations for the executor around the loop.
    pub(super) file_work: Vec<FileWork>,
    pub(super) poller: P,
    server: Arc<Server>,
    mailboxes: Arc<Mailboxes>,
    acceptor: Option<Acceptor>,
    id: usize,
    /// The server ends.
    pub(super) stop: bool,
    next_cron_us: u64,
    idle_since: Option<u64>,
    woke: u64,
    accepted: Vec<(u32, i32)>,
    late: Vec<Mail>,
    post: Post,
    /// Opened by the first snapshot.
    work_time: Option<WorkTime>,
    /// Durations of turns in µs, waiting left out.
    turns: Histogram<u64>,
}

impl<P: Poller> Seat<P> {
    /// A seat for `shard`; the one that gets an acceptor accepts for all.
    pub fn new(shard: Shard, poller: P, server: Arc<Server>, acceptor: Option<Acceptor>) -> Self {
        let id = shard.core.id as usize;
        let mailboxes = server.mailboxes.clone();
        let post = Post {
            server: server.clone(),
            mailboxes: mailboxes.clone(),
            sleepers: Vec::new(),
            served: 0,
            sent: (0, 0),
        };
        Seat {
            shard,
            file_work: Vec::new(),
            poller,
            server,
            mailboxes,
            acceptor,
            id,
            stop: false,
            next_cron_us: 0,
            idle_since: None,
            woke: clock::monotonic_us(),
            accepted: Vec::new(),
            late: Vec::new(),
            post,
            work_time: None,
            turns: Histogram::new_with_bounds(1, 60_000_000, 2).expect("constant bounds are valid"),
        }
    }

    /// Registers the accept handler.
    ///
    /// # Errors
    /// What the kernel answers; the server cannot serve then.
    pub fn register_accept_handler(&mut self) -> io::Result<()> {
        match &self.acceptor {
            Some(acceptor) => self.poller.listen(acceptor),
            None => Ok(()),
        }
    }

    /// Says at the end how long the turns took: the time for which one client's work held up the others'.
    pub(super) fn log_turns(&self) {
        let at = |q: f64| self.turns.value_at_quantile(q);
        log::notice(format!(
            "Shard {}: {} turns of the event loop, p50 {} µs, p99 {} µs, p99.9 {} µs, p99.99 {} µs, longest {} µs",
            self.id,
            self.turns.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(0.9999),
            self.turns.max()
        ));
    }

    /// Commands run since the last turn's end was asked for them.
    pub(super) fn served(&mut self) -> u64 {
        let served = self.shard.core.stats.commands_processed;
        served.wrapping_sub(std::mem::replace(&mut self.post.served, served))
    }

    /// This shard's mailbox.
    pub(super) fn mailbox(&self) -> &Mailbox {
        self.mailboxes.of(self.id)
    }

    /// Sets the machine's time to the present: after waiting, or after others of the loop have worked.
    pub(super) fn update_cached_time(&mut self) {
        let (ms, us) = clock::now();
        self.shard.set_time(ms, us);
    }

    /// What begins a turn: file events, then time events.
    pub(super) fn process_events(&mut self) -> io::Result<()> {
        self.update_cached_time();
        let mailbox = self.mailboxes.of(self.id);
        let (shard, accepted) = (&mut self.shard, &mut self.accepted);
        let (late, post) = (&mut self.late, &mut self.post);
        let mut turn = Turn { shard, mailbox, late, post, accepted, active: false };
        self.poller.poll(&mut turn)?;
        if turn.active {
            self.idle_since = None;
        }
        for (which, fd) in std::mem::take(&mut self.accepted) {
            self.accept(which, fd);
        }
        self.time_events();
        Ok(())
    }

    /// Before output leaves: mail is taken and sent.
    pub(super) fn before_sleep(&mut self) {
        self.post.send_if_slow(&mut self.shard);
        self.take_mail();
        if self.shard.is_walked() {
            self.shard.worked_us = self.work_time.get_or_insert_with(WorkTime::of_this_thread).us();
        }
        self.shard.before_sleep();
        self.send_parcels();
        // This shard's own parts of commands that split are mail to itself; they need no turn of their own.
        self.take_further_mail();
    }

    /// Mail that came behind that.
    pub(super) fn take_further_mail(&mut self) {
        if !self.mailbox().is_empty() {
            self.take_mail();
            self.shard.before_sending();
            self.send_parcels();
        }
    }

    /// What ends a turn: output leaves, effects are carried out.
    pub(super) fn end_turn(&mut self) {
        for at in 0..self.shard.flush.len() {
            let index = self.shard.flush[at];
            self.shard.check_output_limit(index);
        }
        self.poller.flush(&mut self.shard);
        if self.shard.may_walk() {
            self.poller.submit();
            self.shard.walk_snapshot();
        }
        if !self.shard.effects.is_empty() {
            self.carry_out_effects();
        }
    }

    /// Counts a turn that took the loop so long, and this shard its part of that.
    pub(super) fn count_turn(&mut self, now: u64, worked_us: u64, seats: u64) {
        let commands = self.shard.core.stats.commands_processed.saturating_sub(self.post.served);
        let own_us = worked_us / seats;
        self.server.note_turn(self.id, own_us, commands);
        self.shard.turns = [self.shard.turns[0] + 1, self.shard.turns[1] + own_us];
        self.turns.saturating_record(worked_us.max(1));
        self.woke = now;
    }

    fn take_mail(&mut self) {
        let mailbox = self.mailboxes.of(self.id);
        if mailbox.is_empty() && self.late.is_empty() {
            return;
        }
        self.idle_since = None;
        take_in(&mut self.shard, mailbox, &mut self.late, &mut self.post);
        for mail in std::mem::take(&mut self.late) {
            match mail {
                Mail::Adopt(accepted) => self.adopt(accepted),
                Mail::Listen => self.listen_anew(),
                Mail::Stop => self.stop = true,
                _ => unreachable!("the machine's mail was given to it"),
            }
        }
    }

    fn send_parcels(&mut self) {
        let poller = &mut self.poller;
        self.post.send(&mut self.shard, &mut |sleeper| poller.ring(sleeper));
    }

    fn carry_out_effects(&mut self) {
        for effect in std::mem::take(&mut self.shard.effects) {
            match effect {
                Effect::Close(index) => self.poller.close(index),
                Effect::Log(level, text) => log::write(level, &text),
                Effect::Shutdown { save, now } => self.server.request_shutdown(save, now),
                Effect::ShutdownFailed => self.server.shutdown_failed(),
                Effect::Snapshot(chunk) => self.server.snapshots.add(chunk),
                Effect::StopLog => self.server.log.close(),
                Effect::RewriteConfig(client, all) => {
                    let server = self.server.clone();
                    self.file_work.push(FileWork { client, run: Box::new(move || server.rewrite_config(all)) });
                }
                Effect::LoadUsers(client) => {
                    let server = self.server.clone();
                    self.file_work.push(FileWork { client, run: Box::new(move || server.load_users()) });
                }
                Effect::SaveUsers(client) => {
                    let server = self.server.clone();
                    self.file_work.push(FileWork { client, run: Box::new(move || server.save_users()) });
                }
                Effect::Migrate(slot, migration) => {
                    let (migrations, mailboxes, id) = (self.server.migrations.clone(), self.mailboxes.clone(), self.id);
                    self.server.migrations.on_a_thread(Box::new(move || {
                        let outcome = migrations.run(&migration);
                        mailboxes.of(id).push(Mail::Migrated(slot, outcome));
                    }));
                }
                Effect::ConfigChanged(names) => self.server.config_changed(&names),
                Effect::Sleep(us) => std::thread::sleep(std::time::Duration::from_micros(us)),
                Effect::Segfault => {
                    log::warning("DEBUG SEGFAULT");
                    // SAFETY: it ends the process, as was asked for.
                    unsafe { libc::raise(libc::SIGSEGV) };
                }
                Effect::Crash(report) => panic!("{report}"),
            }
        }
    }

    /// A file operation is done.
    pub fn work_done(&mut self, client: u32, result: Result<(), String>) {
        self.shard.step(Event::WorkDone(client, result));
    }

    /// How long this turn may wait, in µs: until the next time event, and not at all while there is work or the loop
    /// is to spin.
    pub(super) fn timeout_us(&mut self) -> u64 {
        let shard = &self.shard;
        // What a client leaves behind that was closed as its output left is told at once.
        let unsent = !shard.outbox.is_empty();
        if self.stop || unsent || !shard.flush.is_empty() || !shard.effects.is_empty() || shard.is_busy() {
            return 0;
        }
        let now = self.woke;
        let spin = self.shard.core.config.busy_poll_us as u64;
        if spin > 0 {
            let since = *self.idle_since.get_or_insert(now);
            if now - since < spin {
                return 0;
            }
        }
        let cron = self.next_cron_us.saturating_sub(now);
        let deadline = self
            .shard
            .next_deadline_ms()
            .map_or(u64::MAX, |at| (at - self.shard.core.now_ms).max(0) as u64 * 1000 + 1000);
        let wide = self.shard.wide_rests_us().unwrap_or(u64::MAX);
        cron.min(wide).min(deadline).min(self.shard.snapshot_timeout_us().unwrap_or(u64::MAX))
    }

    fn time_events(&mut self) {
        let now = self.shard.core.now_us;
        if now < self.next_cron_us {
            return;
        }
        let hz = self.shard.core.config.hz.max(1) as u64;
        self.next_cron_us = now + 1_000_000 / hz;
        if self.id == 0 {
            self.server.migrations.close_idle();
        }
        let began = clock::monotonic_us();
        self.shard.step(Event::Timer);
        self.server.note_cron(self.id, (clock::monotonic_us() - began).max(1));
    }

    fn listen_anew(&mut self) {
        let Some(acceptor) = &mut self.acceptor else { return };
        acceptor.listeners = self.server.listening.all();
        if let Err(error) = self.poller.listen(acceptor) {
            log::warning(format!("Error registering the listening sockets: {error}"));
        }
    }

    fn accept(&mut self, which: u32, fd: i32) {
        let Some(acceptor) = &mut self.acceptor else { return };
        let shared = self.shard.core.shared.clone();
        if let Some((home, accepted)) = acceptor.accept(which, fd, &shared) {
            match home == self.id {
                true => self.adopt(accepted),
                false => self.mailboxes.of(home).push(Mail::Adopt(accepted)),
            }
        }
    }

    fn adopt(&mut self, accepted: Accepted) {
        // A place that the machine has given up must be closed before it can be given away again.
        if !self.shard.effects.is_empty() {
            self.carry_out_effects();
        }
        let peer = accepted.peer.clone();
        self.shard.core.shared.arriving[self.id].0.fetch_sub(1, Relaxed);
        match self.poller.adopt(accepted) {
            Ok(index) => self.shard.step(Event::Connected(index, peer)),
            Err(error) => log::warning(format!("Error registering fd event for the new client: {error}")),
        }
    }
}
