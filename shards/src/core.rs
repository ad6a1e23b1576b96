//! What a shard knows besides keys and clients: time, configuration, statistics, randomness.
//!
//! A command reads all of this from [`Core`], so that commands take no clock and no entropy of their own.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::acl::{Context, Denied, Reason, UserId, Users, log::Denial};
use crate::args::Args;
use crate::client::ClientView;
use crate::commands::block::BlockRequest;
use crate::commands::{CommandId, CommandTable, table};
use crate::config::Config;
use crate::db::lazyfree::AwaitedFree;
use crate::dict::Hasher;
use crate::propagate::{Effects, Piece};
use crate::pubsub::{Kind, Letter, Post};
use crate::router::ShardId;
use crate::shared::Shared;
use crate::stats::Stats;

/// Classes of keyspace events, as in `notify-keyspace-events`.
pub use crate::config::KeyspaceEvents as Event;

/// A small fast generator (xorshift64*), seeded by the driver; nothing secret depends on it.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator that always yields the same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`, which must not be 0.
    #[inline]
    pub fn below(&mut self, n: u64) -> u64 {
        ((self.next_u64() as u128 * n as u128) >> 64) as u64
    }

    /// A number in 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The surroundings of a command on its shard.
pub struct Core {
    /// This shard.
    pub id: ShardId,
    /// How many shards there are.
    pub shards: usize,
    /// The process-wide key hash.
    pub hasher: Hasher,
    /// The table of commands.
    pub table: &'static CommandTable,
    /// The configuration as of this turn.
    pub config: Arc<Config>,
    /// The users as of this turn.
    pub users: Arc<Users>,
    /// What commands were refused, until it is in the log.
    pub denials: Vec<(ClientView, Denial)>,
    /// What all shards share.
    pub shared: Arc<Shared>,
    /// Unix time of this turn in ms.
    pub now_ms: i64,
    /// µs that `DEBUG SLEEP` has slept since: no time passes for the command under way, but for those that it wakes.
    pub slept_us: u64,
    /// Monotonic time of this turn in µs.
    pub now_us: u64,
    /// [`Core::now_us`] of the first turn with the present [`Core::now_ms`].
    ms_began_us: u64,
    /// The 24-bit clock that entries are stamped with.
    pub lru_clock: u32,
    /// Counters.
    pub stats: Stats,
    /// Randomness.
    pub rng: Rng,
    /// `DEBUG SET-ACTIVE-EXPIRE`.
    pub active_expire: bool,
    /// `DEBUG PAUSE-CRON`.
    pub cron_paused: bool,
    /// `DEBUG DICT-RESIZING`.
    pub dict_resizing: bool,
    /// Whether the command being run leaves no trace in LRU and statistics (`CLIENT NO-TOUCH`).
    pub no_touch: bool,
    /// Whether `CLIENT PAUSE` holds back writes, as of this turn: nothing expires or is evicted meanwhile.
    pub writes_paused: bool,
    /// Whether the command being run leaves keys whose time has come where they are, though it does not see them.
    pub keeps_expired: bool,
    /// What the command being run does, in words that do it again.
    pub effects: Effects,
    /// Whether any shard has monitors, as of this turn.
    pub monitored: bool,
    /// Whether any client of any shard tracks keys, as of this turn.
    pub tracked: bool,
    /// The prefixes of clients that track in `BCAST` mode, as of this turn.
    pub prefixes: crate::tracking::Prefixes,
    /// What it publishes, until it has replied.
    pub post: Post,
    /// What the log has to write; the driver takes it before anything else of the turn leaves.
    pub pieces: Vec<Piece>,
    /// What data commands have for the driver to do.
    pub for_driver: Vec<crate::shard::Effect>,
    /// Whether commands may not wait: inside `MULTI`, in scripts.
    pub deny_blocking: bool,
    /// What the command that has just run waits for.
    pub block_request: Option<Box<BlockRequest>>,
    /// A script runs: what is in no order is given to it in one.
    pub in_script: bool,
    /// Lua's machines, and the scripts that they know.
    pub scripting: Option<Box<crate::scripting::Scripting>>,
    /// Set while a command frees what its client is to wait for: all that is handed away to be freed holds it.
    pub freeing: Option<Arc<()>>,
    /// Clients of this shard whose output waits until what they flushed is freed.
    pub awaited_frees: Vec<AwaitedFree>,
    /// See `scripting/home.rs`.
    pub(crate) stand_in: Option<Box<crate::shard::Shard>>,
    /// The script that has just run met a key that was not in hand: it is to run again with all slices.
    pub(crate) run_script_again: bool,
    /// The slow script of this shard that was put aside.
    pub(crate) paused: Option<Box<crate::scripting::Paused>>,
    /// The session of the script that runs, or is put aside, if somebody debugs it.
    pub(crate) debugger: Option<Box<crate::scripting::debugger::Debugger>>,
    /// Whether a script that runs now may be put aside: whoever runs it can take it up again.
    pub(crate) may_pause: bool,
    /// Memory is full, and eviction has not helped, as of the command being run.
    pub(crate) memory_full: bool,
    /// A step of the protocol that is left out, to see that tests notice.
    #[cfg(any(test, feature = "testing"))]
    pub fault: Option<Fault>,
}

/// Steps of the protocol between shards that the simulator leaves out on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A part does not hold its keys.
    NoHold,
    /// Keys are let go with the part's own answer instead of the last.
    EarlyRelease,
    /// Keys held for reading are never counted.
    UncountedReads,
    /// A slice is lent though keys of it are held.
    LendHeld,
    /// A client's request passes one of its own that waits.
    PassOwn,
    /// A part passes another that waits for the same key.
    PassPart,
    /// A plain request passes a part that waits for its key, or a transaction that waits for the slice.
    PassWaiting,
    /// A slice that comes home is not looked through for keys that are ready.
    NoServe,
    /// A waiter that was served stays registered with its other slices.
    KeepWaiters,
    /// A write does not touch those who watch its key.
    NoTouch,
    /// A client that goes leaves its waiters behind.
    LeaveWaiters,
    /// A notice is written at once, before replies that its client awaits.
    NoticePassesReplies,
    /// A parcel's letters are taken in before its replies.
    LettersFirst,
    /// That a key of a lent slice has changed is told by who changed it, not by the slice's owner.
    NoticePassesOwner,
    /// Output does not wait for the log.
    NoGate,
    /// Output waits for this shard's own log only.
    OwnLogOnly,
    /// Logs do not say what they tell of together.
    NoMarks,
    /// What replicas are to be told of lent slices goes back with them.
    StreamStays,
}

impl Core {
    /// Whether more memory is in use than `maxmemory` allows.
    pub(crate) fn memory_is_over(&self) -> bool {
        self.config.maxmemory != 0 && self.shared.counted_memory() > self.config.maxmemory as usize
    }

    /// Notes for `LATENCY` how long something took, if that is as long as it asks for.
    pub fn note_latency(&self, event: &'static str, us: u64) {
        let threshold_ms = self.config.latency_monitor_threshold;
        if threshold_ms > 0 && us >= threshold_ms * 1000 {
            self.shared.latency.lock().expect("no holder panics").add(event, self.now_ms / 1000, us / 1000);
        }
    }

    /// The core of shard `id`.
    pub fn new(id: ShardId, shared: Arc<Shared>, seed: u64) -> Self {
        let config = shared.config();
        Core {
            id,
            shards: shared.shards,
            hasher: shared.hasher.clone(),
            table: shared.table,
            config,
            now_ms: 0,
            now_us: 0,
            slept_us: 0,
            ms_began_us: 0,
            lru_clock: 0,
            users: shared.users(),
            denials: Vec::new(),
            stats: Stats::new(table().len()),
            rng: Rng::new(seed),
            shared,
            active_expire: true,
            cron_paused: false,
            dict_resizing: true,
            no_touch: false,
            writes_paused: false,
            keeps_expired: false,
            effects: Effects::default(),
            monitored: false,
            tracked: false,
            prefixes: Default::default(),
            post: Post::default(),
            pieces: Vec::new(),
            for_driver: Vec::new(),
            deny_blocking: false,
            block_request: None,
            in_script: false,
            scripting: None,
            freeing: None,
            awaited_frees: Vec::new(),
            stand_in: None,
            run_script_again: false,
            paused: None,
            debugger: None,
            may_pause: true,
            memory_full: false,
            #[cfg(any(test, feature = "testing"))]
            fault: None,
        }
    }

    /// Takes over the time of a new turn.
    #[inline]
    pub fn set_time(&mut self, now_ms: i64, now_us: u64) {
        if self.now_ms != now_ms {
            self.ms_began_us = now_us;
        }
        self.now_ms = now_ms;
        self.now_us = now_us;
        self.slept_us = 0;
        self.lru_clock = ((now_ms / 1000) & 0xff_ffff) as u32;
    }

    /// Takes over the time that was slept away.
    pub(crate) fn wake_up(&mut self) {
        if self.slept_us > 0 {
            self.set_time(self.now_ms + (self.slept_us / 1000) as i64, self.now_us + self.slept_us);
        }
    }

    /// Whether this step is left out; never outside of tests.
    #[inline]
    pub(crate) fn leaves_out(&self, step: Fault) -> bool {
        #[cfg(any(test, feature = "testing"))]
        return self.fault == Some(step);
        #[cfg(not(any(test, feature = "testing")))]
        {
            let _ = step;
            false
        }
    }

    /// Whether a log is being loaded: no time passes meanwhile, see [`crate::aof::load`].
    pub fn time_stands_still(&self) -> bool {
        self.now_ms == 0
    }

    /// Unix time of this turn in µs: the wall clock's ms, and within one of them what the monotonic clock says has
    /// passed since it was first seen, so that it does not go back.
    pub fn unix_us(&self) -> i64 {
        self.now_ms * 1000 + self.now_us.saturating_sub(self.ms_began_us).min(999) as i64
    }

    /// Asks whether a user may run a command, and notes it when not.
    ///
    /// # Errors
    /// What is refused.
    pub fn check_access(
        &mut self,
        client: ClientView,
        command: CommandId,
        args: Args<'_>,
        context: Context,
    ) -> Result<(), Denied> {
        // Of a user who was deleted a command may still be under way; its connection is about to be closed.
        let Some(user) = self.users.get(client.user) else { return Err(Denied::COMMAND) };
        if user.is_unlimited() {
            return Ok(());
        }
        let Err(denied) = crate::acl::check(user, command, args) else { return Ok(()) };
        let object = match denied.reason {
            Reason::Command | Reason::Auth => self.table.row(self.table.ruled_by(command)).name.as_bytes(),
            Reason::Key | Reason::Channel => args.at(denied.at),
        };
        let denial = Denial {
            reason: denied.reason,
            context,
            object: object.to_vec(),
            username: user.name.clone(),
            client_info: String::new(),
        };
        self.deny(client, denial);
        Err(denied)
    }

    /// Counts a denial and keeps it for the log.
    pub(crate) fn deny(&mut self, client: ClientView, denial: Denial) {
        *match denial.reason {
            Reason::Command => &mut self.stats.acl_access_denied_cmd,
            Reason::Key => &mut self.stats.acl_access_denied_key,
            Reason::Auth => &mut self.stats.acl_access_denied_auth,
            Reason::Channel => &mut self.stats.acl_access_denied_channel,
        } += 1;
        self.denials.push((client, denial));
    }

    /// The name of a user, if it was not deleted.
    pub fn user_name(&self, user: UserId) -> &[u8] {
        self.users.get(user).map_or(b"default", |user| user.name.as_slice())
    }

    /// Publishes a message once the command that runs has replied; says how many receivers there are.
    pub fn publish(&mut self, kind: Kind, channel: &[u8], message: &[u8]) -> usize {
        self.post.publish(&self.shared.registry, kind, channel, message)
    }

    /// Shows a command to monitors, behind what was shown before; `origin` is a client's address, or `lua`.
    pub fn monitor(&mut self, db: u16, origin: &str, args: Args<'_>) {
        let has_any = |shard: &ShardId| self.shared.monitors[*shard as usize].0.load(Relaxed) > 0;
        let shards: Vec<ShardId> = (0..self.shards as ShardId).filter(has_any).collect();
        if !shards.is_empty() {
            let line = crate::commands::monitor::line(self.table, self.unix_us(), db, origin, args);
            self.post.push(Letter::Monitored(line), shards);
        }
    }

    /// Reports that `key` of database `db` changed; nothing listens unless `notify-keyspace-events` asks for `class`.
    /// The event is published when the command that runs has replied.
    #[inline]
    pub fn notify(&mut self, class: u32, event: &'static str, key: &[u8], db: u16) {
        if self.config.notify_keyspace_events.contains(class) {
            self.stats.notifications += 1;
            self.publish_event(event, key, db);
        }
    }

    #[cold]
    fn publish_event(&mut self, event: &'static str, key: &[u8], db: u16) {
        if self.shared.registry.is_empty() {
            return;
        }
        let events = self.config.notify_keyspace_events;
        if events.contains(Event::KEYSPACE) {
            let channel = [format!("__keyspace@{db}__:").as_bytes(), key].concat();
            self.publish(Kind::Channel, &channel, event.as_bytes());
        }
        if events.contains(Event::KEYEVENT) {
            self.publish(Kind::Channel, format!("__keyevent@{db}__:{event}").as_bytes(), key);
        }
    }
}
