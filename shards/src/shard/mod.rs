//! One shard: a machine that takes events and leaves effects.
//!
//! The driver (an event loop, or the simulator) tells it what happened by [`Shard::step`], then takes what it left:
//! messages for other shards ([`Shard::outbox`]), clients with output ([`Shard::flush`]), and [`Effect`]s. Between
//! two steps nothing runs. The parts:
//!
//! - [`input`]: bytes become commands, a batch at a time, so that the cache misses of their keys overlap;
//! - [`dispatch`]: a command runs here, travels to its owner, or becomes a transaction;
//! - [`hops`]: messages of other shards, and slices that are lent;
//! - [`split`] and [`intents`]: commands whose parts run where their keys are; [`migrate`]: one that goes further;
//! - [`multi`]: `MULTI`, `EXEC`, `WATCH`;
//! - [`blocking`]: clients that wait for keys;
//! - [`script`]: where scripts run; [`busy`]: what becomes of a slow one;
//! - [`access`]: what users may do;
//! - [`output`]: what clients are owed, and its limits;
//! - [`evict_clients`]: what they may hold together;
//! - [`persist`]: snapshots, loading, and the end;
//! - [`append`]: the log of what its slice's writes did, and output that waits for it;
//! - [`replicas`]: the same for replicas, and their connections;
//! - [`cron`]: what happens from time to time.

pub mod access;
pub mod append;
pub mod blocking;
pub mod busy;
pub mod cron;
pub mod debugging;
pub mod dispatch;
pub mod evict_clients;
pub mod hops;
pub mod input;
pub mod intents;
pub mod migrate;
pub mod multi;
pub mod output;
pub mod persist;
pub mod replicas;
pub mod script;
pub mod split;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crate::aof::load::LogLoader;
use crate::args::OwnedArgs;
use crate::client::{Client, ClientView, Peer, Wait, gate};
use crate::commands::migrate::{Migrated, Migration};
use crate::core::Core;
use crate::db::Slice;
use crate::db::expire::{ExpireCycle, Pace};
use crate::db::snapshot::Chunk;
use crate::message::{Answer, Outbox, Parcel};
use crate::pubsub::{Subscribers, Wide};
use crate::replication::stream::Unit;
use crate::router::ShardId;
use crate::shared::Shared;
use crate::snapshot::LoadBatch;
use crate::transaction::Tx;

/// Bytes that a client sent.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The client's place.
    pub client: u32,
    /// What came.
    pub bytes: &'a [u8],
}

/// Everything that can wake a shard.
#[derive(Debug)]
pub enum Event<'a> {
    /// A connection was accepted for this shard; the driver chose its place, which is free.
    Connected(u32, Peer),
    /// Clients sent bytes: at most [`input::MAX_INPUTS`] of them, each once.
    Received(&'a [Input<'a>]),
    /// The buffer that [`Shard::lend_query`] gave comes back, at once, with this many bytes of the client's behind those
    /// that were in it.
    Filled(u32, Vec<u8>, usize),
    /// This many bytes handed out by [`Shard::take_output`] were sent.
    Sent(u32, usize),
    /// The peer will send no more, but may read on: what it has sent is run and answered, as by Redis, and then
    /// [`Effect::Close`] follows.
    Ended(u32),
    /// The connection broke.
    Disconnected(u32),
    /// Another shard, or this one, sent a parcel.
    Parcel(Box<Parcel>),
    /// The period of `hz` has passed.
    Timer,
    /// The server is to end, by a signal.
    Shutdown(Shutdown),
    /// Keys of a file that this shard owns.
    Load(Box<LoadBatch>),
    /// A part of a log, to be run with the slices of all shards.
    LoadWithAll(Box<LoadBatch>),
    /// More of the logs is on disk than was, or a full sync's snapshot is whole.
    LogSynced,
    /// A migration of [`Effect::Migrate`] has come to its end.
    Migrated(u32, Migrated),
    /// The driver's work that a client waited for has ended: an error's text, or nothing.
    WorkDone(u32, Result<(), String>),
}

/// How important a line of the log is; names and order are those of `loglevel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum LogLevel {
    Debug,
    Verbose,
    Notice,
    Warning,
}

/// How the server is to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shutdown {
    /// Whether the data is saved first; `None` leaves that to whether there are save points.
    pub save: Option<bool>,
    /// Nothing is waited for.
    pub now: bool,
    /// Even if the data cannot be saved.
    pub force: bool,
}

/// What the driver shall do.
#[derive(Debug)]
pub enum Effect {
    /// Close a connection; its place is free once the driver is done with it.
    Close(u32),
    /// Write a line to the log.
    Log(LogLevel, String),
    /// End the process; `true` when data is to be saved first. The reply, if any, is never sent.
    Shutdown {
        /// `SHUTDOWN SAVE` or save points are set.
        save: bool,
        /// `SHUTDOWN NOW`.
        now: bool,
    },
    /// A signal's shutdown failed, since the data could not be saved.
    ShutdownFailed,
    /// Add this to the snapshot's file.
    Snapshot(Box<Chunk>),
    /// Rewrite the configuration file, with what is as by default too if that is asked for, then tell the client by
    /// [`Event::WorkDone`].
    RewriteConfig(u32, bool),
    /// Take the users of the `aclfile` over ([`crate::acl::Users::loaded`]), then tell the client.
    LoadUsers(u32),
    /// Write the users to the `aclfile`, then tell the client.
    SaveUsers(u32),
    /// Take keys to another server ([`crate::shared::Host::migrate`]) where that holds up nobody, then tell of it under
    /// this number by [`Event::Migrated`].
    Migrate(u32, Box<Migration>),
    /// These directives were changed.
    ConfigChanged(Vec<&'static str>),
    /// Nothing more will be appended: close the log's files.
    StopLog,
    /// `DEBUG SLEEP`: block this shard's thread for so many µs.
    Sleep(u64),
    /// `DEBUG PANIC` and its like: end abnormally with this report.
    Crash(String),
    /// `DEBUG SEGFAULT`: end by that signal.
    Segfault,
}

/// Work that waits until the slice is home.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// A request, of another shard or of this one.
    Request(Box<hops::OwnedRequest>),
    /// A coordinator wants the slice.
    Acquire(crate::transaction::TxId),
    /// A client's watches end.
    Unwatch(u64, Vec<crate::client::WatchedKey>),
    /// Keys of the file that is being loaded.
    Load(Box<LoadBatch>),
    /// A wait for keys ends.
    Unblock(crate::db::blocked::BlockId, blocking::Unblock),
}

/// A question that all shards were asked.
#[derive(Debug)]
pub(crate) struct Ask {
    client: (u32, u64),
    missing: usize,
    /// By shard: its answers, one a question.
    answers: Vec<Vec<Answer>>,
}

/// See the module's page.
pub struct Shard {
    /// Time, configuration, statistics.
    pub core: Core,
    /// Messages to send.
    pub outbox: Outbox,
    /// What the driver shall do.
    pub effects: Vec<Effect>,
    /// Clients with output to send.
    pub flush: Vec<u32>,
    pub(crate) slices: Vec<Option<Box<Slice>>>,
    pub(crate) clients: Vec<Option<Box<Client>>>,
    pub(crate) waiting: VecDeque<Waiting>,
    pub(crate) txs: HashMap<u64, Tx>,
    /// Split commands that this shard coordinates.
    pub(crate) splits: split::Splits,
    /// Requests of clients whose script was sent back from here, until it has run.
    pub(crate) held_back: HashMap<u64, VecDeque<hops::OwnedRequest>>,
    /// The slow script that is put aside here.
    pub(crate) busy: Option<Box<busy::Busy>>,
    /// Keys here that split commands hold.
    pub(crate) intents: intents::Intents,
    /// Whether this shard's slice is free for all: at home, no key held, nothing waiting.
    pub(crate) open: bool,
    /// What waits is being run; and it is to be looked through again.
    pub(crate) draining: bool,
    /// Keys were let go, and what waits has not been looked through since.
    pub(crate) released: bool,
    pub(crate) drain_again: bool,
    pub(crate) asks: HashMap<u64, Ask>,
    pub(crate) next_number: u64,
    pub(crate) resume: Vec<u32>,
    /// Deadlines of clients that wait for keys of several shards: Unix ms, place, id.
    pub(crate) spanning_deadlines: BTreeSet<(i64, u32, u64)>,
    /// Clients whose messages may wait for more.
    pub(crate) wide: Wide,
    /// Who of this shard's clients subscribes to what.
    pub(crate) subscribers: Subscribers,
    /// Who of them tracks keys with which prefix, in `BCAST` mode.
    pub(crate) prefixes: BTreeMap<Vec<u8>, BTreeSet<u32>>,
    /// Flushes that not all owners have told of: how many have.
    pub(crate) flushes: HashMap<u64, usize>,
    pub(crate) clock: dispatch::CommandClock,
    pub(crate) expire_cycle: ExpireCycle,
    pub(crate) rates: cron::Rates,
    batch: input::Batch,
    pub(crate) spare_buffers: output::SpareBuffers,
    config_epoch: u64,
    /// The users as of when this shard's clients were last looked through for those that may not stay.
    pub(crate) users_before: Arc<crate::acl::Users>,
    /// Whether commands need more checks than the plain path makes (`maxmemory`, a pause, strict order, monitors).
    pub(crate) guarded: bool,
    /// What the slice held when it was lent.
    pub(crate) lent_report: Vec<crate::stats::DbReport>,
    pub(crate) cron_loops: u64,
    /// `maxmemory-clients` in bytes, or 0.
    pub(crate) client_memory_limit: usize,
    /// Under `maxmemory-clients` and `maxmemory`: whose command was the last.
    pub(crate) served_last: u32,
    /// Whether another shard was asked in this turn to close clients.
    pub(crate) asked_for_room: bool,
    /// Turns of the loop, and µs that they worked; the driver counts them.
    pub turns: [u64; 2],
    /// For how long its thread has had work, the kernel's for it and waiting for a processor included, in µs; the driver
    /// keeps it up to date while [`Shard::is_walked`].
    pub worked_us: u64,
    /// How many shards the driver's thread has, this one included.
    pub sharers: u32,
    /// How many commands had run when the last turn ended.
    pub(crate) commands_at_turn: u64,
    /// Whether memory was full in this turn though this shard has evicted what it could.
    pub(crate) evicts_in_vain: bool,
    pub(crate) cron_client: u32,
    /// Output that waits for the log.
    pub(crate) gate: append::Gate,
    /// Clients that wait for the log.
    pub(crate) log_waiters: Vec<append::LogWaiter>,
    /// What the log is to tell of libraries once the slice is home, with its number.
    pub(crate) late_effects: Vec<(u64, OwnedArgs)>,
    /// Clients of this shard that are replicas.
    pub(crate) replicas: Vec<u32>,
    /// What replicas are to be told that was said while no slice was in hand.
    pub(crate) late_units: Vec<Unit>,
    /// The second of the last look at replicas, and how many such looks there were.
    pub(crate) replication_second: i64,
    pub(crate) replication_seconds: u64,
    /// Loads the log that this shard is given, or with all slices in hand any.
    pub(crate) log_loader: Option<Box<LogLoader>>,
    /// The last walk of a snapshot, which says when the next may be.
    pub(crate) last_walk: persist::LastWalk,
    /// Slices that were in hand at the end, and stay as they were saved.
    #[allow(clippy::vec_box)]
    frozen: Vec<Box<Slice>>,
}

impl Shard {
    /// Shard `id` with empty slices.
    pub fn new(id: ShardId, shared: Arc<Shared>, seed: u64) -> Self {
        let core = Core::new(id, shared, seed);
        let shards = core.shards;
        let mut slices: Vec<Option<Box<Slice>>> = (0..shards).map(|_| None).collect();
        slices[id as usize] = Some(Box::new(Slice::new(id, core.config.databases as usize)));
        let mut shard = Shard {
            outbox: Outbox::new(id, shards),
            effects: Vec::new(),
            flush: Vec::new(),
            slices,
            clients: Vec::new(),
            waiting: VecDeque::new(),
            txs: HashMap::new(),
            splits: split::Splits::default(),
            held_back: HashMap::new(),
            busy: None,
            intents: intents::Intents::default(),
            open: true,
            draining: false,
            released: false,
            drain_again: false,
            asks: HashMap::new(),
            next_number: 1,
            resume: Vec::new(),
            spanning_deadlines: BTreeSet::new(),
            wide: Wide::default(),
            subscribers: Subscribers::default(),
            prefixes: BTreeMap::new(),
            flushes: HashMap::new(),
            clock: dispatch::CommandClock::new(&core),
            expire_cycle: ExpireCycle::default(),
            rates: cron::Rates::default(),
            batch: input::Batch::default(),
            spare_buffers: output::SpareBuffers::default(),
            config_epoch: u64::MAX,
            users_before: core.users.clone(),
            guarded: false,
            lent_report: Vec::new(),
            cron_loops: 0,
            client_memory_limit: 0,
            served_last: 0,
            asked_for_room: false,
            turns: [0, 0],
            worked_us: 0,
            sharers: 1,
            commands_at_turn: 0,
            evicts_in_vain: false,
            cron_client: 0,
            gate: append::Gate::new(shards),
            log_waiters: Vec::new(),
            late_effects: Vec::new(),
            replicas: Vec::new(),
            late_units: Vec::new(),
            replication_second: 0,
            replication_seconds: 0,
            log_loader: None,
            last_walk: persist::LastWalk::default(),
            frozen: Vec::new(),
            core,
        };
        shard.refresh_config();
        shard
    }

    /// Sets the time of this turn: Unix ms, and monotonic µs. Call after taking in what arrived.
    pub fn set_time(&mut self, now_ms: i64, now_us: u64) {
        self.core.set_time(now_ms, now_us);
        if self.config_epoch != self.core.shared.config_epoch() {
            self.refresh_config();
        }
    }

    pub(crate) fn refresh_config(&mut self) {
        self.config_epoch = self.core.shared.config_epoch();
        self.core.config = self.core.shared.config();
        self.clock = dispatch::CommandClock::new(&self.core);
        self.refresh_guard();
        self.refresh_gate();
        self.refresh_tracking();
        self.refresh_client_memory();
        self.take_users(None);
    }

    pub(crate) fn refresh_guard(&mut self) {
        use std::sync::atomic::Ordering::Relaxed;
        let config = &self.core.config;
        self.core.monitored = self.core.shared.monitors.iter().any(|monitors| monitors.0.load(Relaxed) > 0);
        let pause = &self.core.shared.pause;
        self.core.writes_paused = pause.all_until.load(Relaxed) != 0 || pause.write_until.load(Relaxed) != 0;
        self.guarded = self.core.monitored
            || config.maxmemory != 0
            || config.pipeline_order == crate::config::PipelineOrder::Strict
            || self.core.writes_paused
            || self.core.shared.persistence.loading.load(Relaxed)
            || self.core.shared.scripts.busy(None).is_some()
            || self.core.shared.persistence.refuses_writes(config)
            || self.core.shared.aof.broken.load(Relaxed)
            || crate::replication::is_demanding(config);
    }

    /// Takes one event in.
    pub fn step(&mut self, event: Event<'_>) {
        match event {
            Event::Connected(index, peer) => self.connected(index, peer),
            Event::Received(inputs) => self.received(inputs),
            Event::Filled(index, buffer, bytes) => self.filled(index, buffer, bytes),
            Event::Sent(index, bytes) => self.sent(index, bytes),
            Event::Ended(index) => self.end_input(index),
            Event::Disconnected(index) => self.disconnect(index),
            Event::Parcel(parcel) => self.deliver(parcel),
            Event::Timer => self.server_cron(),
            Event::WorkDone(index, result) => self.work_done(index, result),
            Event::Migrated(slot, outcome) => self.migrated(slot, &outcome),
            Event::Shutdown(how) if self.core.cron_paused => {
                // What signals ask for is a matter of time events, as in Redis.
                *self.core.shared.shutdown_asked.lock().expect("no holder panics") = Some(how);
            }
            Event::Shutdown(how) => self.shut_down(None, how),
            Event::Load(batch) => self.take_batch(batch),
            Event::LoadWithAll(batch) => self.begin_own_tx(crate::transaction::Job::Load(batch)),
            // The turn's end looks how far they are.
            Event::LogSynced => {}
        }
        self.run_resumed();
        self.post();
        self.log_denials();
        if self.core.tracked {
            self.broadcast();
        }
        if !self.core.for_driver.is_empty() {
            self.effects.append(&mut self.core.for_driver);
        }
        if self.gate.on && !self.outbox.is_empty() {
            self.note_own_position();
            self.outbox.set_needs(&self.gate.needs);
        }
    }

    /// What a turn ends with, before the loop waits (Redis's `beforeSleep`): the quick expire cycle, and the limits
    /// of what clients are owed.
    pub fn before_sleep(&mut self) {
        if self.next_deadline_ms().is_some_and(|at| at <= self.core.now_ms) {
            self.blocked_timeouts();
            self.run_resumed();
        }
        if !self.core.awaited_frees.is_empty() {
            self.end_frees();
        }
        self.publish_spares();
        if self.busy.is_some() {
            self.go_on_with_script();
            self.run_resumed();
            self.effects.append(&mut self.core.for_driver);
        }
        if self.core.active_expire && self.core.config.active_expire_effort > 0 && !self.core.writes_paused {
            if let Some(slice) = self.slices[self.core.id as usize].as_deref_mut() {
                self.expire_cycle.run(&mut self.core, slice, Pace::Fast);
                slice.log_said(&mut self.core);
            }
        }
        if let Some(codes) = self.core.stats.too_many_codes.take() {
            self.say_errors_given_up(&codes);
        }
        self.before_sending();
    }

    /// What must be done before what there is for others leaves: once a turn, and again when mail has come behind that.
    pub fn before_sending(&mut self) {
        if self.core.config.maxmemory != 0 && self.core.shards > 1 {
            // Who has been answered about a key finds it counted.
            self.publish_evictable();
            self.have_others_evict();
        }
        if self.client_memory_limit != 0 {
            self.count_and_evict_clients();
        }
        if self.core.tracked {
            self.settle_own();
            self.broadcast();
        }
        self.post();
        self.send_wide();
        self.end_turn_of_log();
    }

    /// Whether what others are sent may leave within a turn: where nothing of what the turn ends with, the log, the
    /// invalidation of cached keys, the count of evictable ones, must come first.
    pub fn may_send_early(&self) -> bool {
        let core = &self.core;
        !core.effects.on && !core.tracked && core.config.maxmemory == 0 && self.client_memory_limit == 0
    }

    #[cold]
    fn say_errors_given_up(&mut self, codes: &str) {
        const WHY: &str = "Errorstats stopped adding new errors because the number of errors reached the limit, may be \
                           misuse of lua error_reply, please check INFO ERRORSTATS, this can be re-enabled via CONFIG \
                           RESETSTAT.";
        self.log(LogLevel::Warning, WHY);
        self.log(LogLevel::Warning, format!("Current errors code list: {}", crate::commands::info::safe_codes(codes)));
        let freed = &self.core.shared.lazyfreed_objects;
        freed.fetch_add(crate::stats::MAX_ERROR_CODES as u64, std::sync::atomic::Ordering::Relaxed);
    }

    fn connected(&mut self, index: u32, peer: Peer) {
        use std::sync::atomic::Ordering::Relaxed;
        let id = self.core.shared.next_client_id();
        if self.clients.len() <= index as usize {
            self.clients.resize_with(index as usize + 1, || None);
        }
        debug_assert!(self.clients[index as usize].is_none());
        let mut client = Box::new(Client::new(id, index, peer, self.core.now_ms));
        client.gate |= self.first_gate();
        self.core.stats.connections_received += 1;
        let refused = self.core.config.protected_mode
            && self.core.users.default_user().nopass
            && !client.peer.local
            && !client.peer.unix;
        self.clients[index as usize] = Some(client);
        self.core.shared.clients[self.core.id as usize].0.fetch_add(1, Relaxed);
        if refused {
            self.core.stats.rejected_connections += 1;
            self.push_output(index, PROTECTED_MODE.as_bytes());
            self.close_after_reply(index);
        }
    }

    /// The client at `index`, if it is still the one with this id.
    pub(crate) fn client_by_id(&mut self, index: u32, id: u64) -> Option<&mut Client> {
        self.clients.get_mut(index as usize)?.as_deref_mut().filter(|client| client.id == id)
    }

    /// The client at `index`, which must be there.
    #[inline]
    pub(crate) fn client(&mut self, index: u32) -> &mut Client {
        self.clients[index as usize].as_deref_mut().expect("the caller holds a live client's index")
    }

    /// All clients of this shard.
    pub fn clients(&self) -> impl Iterator<Item = &Client> {
        self.clients.iter().filter_map(|client| client.as_deref())
    }

    pub(crate) fn view(&mut self, index: u32) -> ClientView {
        let home = self.core.id;
        self.client(index).view(home)
    }

    /// A client's peer will send no more.
    fn end_input(&mut self, index: u32) {
        if let Some(client) = self.clients.get_mut(index as usize).and_then(|client| client.as_deref_mut()) {
            client.gate |= gate::ENDED;
            self.queue_flush(index);
        }
    }

    /// Removes a client whose connection is gone, with all it held.
    fn disconnect(&mut self, index: u32) {
        use std::sync::atomic::Ordering::Relaxed;
        self.unwatch_all(index, true);
        if self.clients[index as usize].as_deref().is_some_and(|client| client.blocked.is_some()) {
            if !self.core.leaves_out(crate::core::Fault::LeaveWaiters) {
                self.unblock_client(index, blocking::Unblock::Gone);
            }
            self.end_wait(index);
        }
        if self.clients[index as usize].as_deref().is_some_and(|client| client.subscriptions.is_some()) {
            self.drop_subscriptions(index);
        }
        if self.clients[index as usize].is_some() {
            self.end_monitor(index);
            self.end_replica(index);
            self.end_tracking(index);
        }
        let Some(client) = self.clients[index as usize].take() else { return };
        self.uncount_memory(&client);
        self.recycle(client.out);
        self.core.shared.clients[self.core.id as usize].0.fetch_sub(1, Relaxed);
    }

    /// Closes a connection at once.
    pub(crate) fn close_now(&mut self, index: u32) {
        if self.clients[index as usize].is_some() {
            self.disconnect(index);
            self.effects.push(Effect::Close(index));
        }
    }

    /// Lets a client's next commands run.
    pub(crate) fn wake(&mut self, index: u32) {
        let client = self.client(index);
        client.wait = Wait::No;
        client.gate &= !gate::WAITING;
        self.resume.push(index);
    }

    /// Makes a client wait; its input is kept meanwhile.
    pub(crate) fn wait_for(&mut self, index: u32, what: Wait) {
        let client = self.client(index);
        client.wait = what;
        client.gate |= gate::WAITING;
    }

    pub(crate) fn next_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn work_done(&mut self, index: u32, result: Result<(), String>) {
        let Some(client) = self.clients.get_mut(index as usize).and_then(|c| c.as_deref_mut()) else { return };
        if client.wait != Wait::Driver {
            return;
        }
        match result {
            _ if client.gate & gate::MUTED != 0 => {}
            Ok(()) => client.reply().ok(),
            Err(text) => client.reply().error(&text),
        }
        self.queue_flush(index);
        self.wake(index);
        // The work may have been ACL LOAD, which this client is answered before it is closed.
        self.take_users(Some(index));
        if self.client(index).gate & gate::CLOSE_AFTER_WORK != 0 {
            self.close_after_reply(index);
        }
    }

    /// Whether nothing waits in this shard: no transaction, no question, no queued work, and the slice is home.
    pub fn is_quiet(&self) -> bool {
        self.txs.is_empty()
            && self.asks.is_empty()
            && self.waiting.is_empty()
            && self.log_waiters.is_empty()
            && self.held_back.is_empty()
            && self.splits.is_empty()
            && self.holds_nothing()
            && self.outbox.is_empty()
            && self.slices[self.core.id as usize].is_some()
    }

    /// Whether something waits here for keys that are held, or for the slice.
    pub fn something_waits(&self) -> bool {
        !self.waiting.is_empty() || !self.held_back.is_empty()
    }

    /// What keeps this shard from being quiet, for tests that fail.
    pub fn unrest(&self) -> String {
        format!(
            "{} transactions, {} questions, {} waiting, slice {}, splits {:?}, intents {:?}, queue {:?}",
            self.txs.len(),
            self.asks.len(),
            self.waiting.len(),
            if self.slices[self.core.id as usize].is_some() { "home" } else { "away" },
            self.splits,
            self.intents,
            self.waiting
        )
    }

    /// Takes what commands did on this shard's slice since the last time, in the protocol of clients; nothing while
    /// the slice is away.
    pub fn take_effects(&mut self) -> Vec<u8> {
        let handed_over = std::mem::take(&mut self.core.pieces).into_iter().flat_map(|piece| piece.bytes);
        let rest = self.slices[self.core.id as usize].as_mut().map_or_else(Vec::new, |slice| slice.log.take());
        handed_over.chain(rest).collect()
    }

    /// The shard's own slice, when it is home.
    pub fn slice(&self) -> Option<&Slice> {
        self.slices[self.core.id as usize].as_deref()
    }
}

const PROTECTED_MODE: &str = "-DENIED Ringshard runs in protected mode: no password is set for the default user, so \
only connections from this machine are taken. To connect from elsewhere, do one of: 1) run 'CONFIG SET \
protected-mode no' from this machine, if the server cannot be reached from the internet, and 'CONFIG REWRITE' to keep \
it; 2) set 'protected-mode no' in the configuration file and start again; 3) start with '--protected-mode no' for a \
test; 4) set a password for the default user.\r\n";
