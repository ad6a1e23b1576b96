//! A connection as its home shard sees it: protocol state, what it has asked for, and what it is owed.

pub mod filter;
pub mod order;

use crate::acl::{DEFAULT, UserId};
use crate::args::OwnedArgs;
use crate::commands::CommandId;
use crate::commands::connection::REPLY_CHUNK_BYTES;
use crate::limits::SPARE_BUFFER_BYTES;
use crate::message::Answer;
use crate::pubsub::{Kind, Subscriptions};
use crate::replication::replica::{Introduction, Link};
use crate::resp::{Parser, Reply};
use crate::router::ShardId;
use crate::shard::append::HeldOutput;
use crate::shard::blocking::BlockedClient;
use crate::tracking::Tracking;
use order::ReplyOrder;

/// Bits of [`Client::gate`]. While all are clear, a plain command needs no further look at its client.
pub mod gate {
    /// The client must authenticate first.
    pub const NEEDS_AUTH: u32 = 1 << 0;
    /// Inside `MULTI`.
    pub const MULTI: u32 = 1 << 1;
    /// The queue has an error: `EXEC` will fail.
    pub const DIRTY_EXEC: u32 = 1 << 2;
    /// Subscribed: in RESP2 few commands are allowed.
    pub const SUBSCRIBED: u32 = 1 << 3;
    /// `CLIENT REPLY OFF`.
    pub const REPLY_OFF: u32 = 1 << 4;
    /// The reply of the command under way is not wanted.
    pub const REPLY_SKIP: u32 = 1 << 5;
    /// `CLIENT REPLY SKIP`: the reply of the next command is not wanted.
    pub const REPLY_SKIP_NEXT: u32 = 1 << 6;
    /// Its user may not do everything: each command is checked.
    pub const RESTRICTED: u32 = 1 << 14;
    /// Closes when the driver's work that it waits for has been answered.
    pub const CLOSE_AFTER_WORK: u32 = 1 << 15;
    /// `CLIENT NO-TOUCH`.
    pub const NO_TOUCH: u32 = 1 << 7;
    /// Requests of its own wait in its home shard's mailbox or queue: the next ones go behind them.
    pub const QUEUED_HERE: u32 = 1 << 13;
    /// Closes when its output is sent.
    pub const CLOSE_AFTER_REPLY: u32 = 1 << 8;
    /// Closes at the end of this turn, whatever it is owed.
    pub const CLOSE_NOW: u32 = 1 << 9;
    /// Waits for something; its input is kept.
    pub const WAITING: u32 = 1 << 10;
    /// `CLIENT TRACKING`.
    pub const TRACKING: u32 = 1 << 11;
    /// `MONITOR`.
    pub const MONITOR: u32 = 1 << 12;
    /// It has become a replica: it is sent a stream, and no replies.
    pub const REPLICA: u32 = 1 << 16;
    /// The keys that the next command reads are noted for it, see [`crate::tracking`].
    pub const NOTES_READS: u32 = 1 << 17;

    /// Its peer has sent all that it will: closes when that has been run and answered.
    pub const ENDED: u32 = 1 << 18;

    /// No more commands of this client are run.
    pub const CLOSING: u32 = CLOSE_AFTER_REPLY | CLOSE_NOW;
    /// Replies are not wanted.
    pub const MUTED: u32 = REPLY_OFF | REPLY_SKIP;
    /// All that `CLIENT REPLY` sets.
    pub const REPLY: u32 = MUTED | REPLY_SKIP_NEXT;
}

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nothing.
    No,
    /// The replies of other shards, before its next command may run.
    Replies,
    /// A transaction over several slices.
    Tx,
    /// Answers of other shards.
    Answers,
    /// The driver's work (a file to be written).
    Driver,
    /// The log to be on disk.
    Log,
    /// The end of `CLIENT PAUSE`.
    Pause,
    /// Other shards to evict keys.
    Room,
    /// Keys.
    Blocked,
}

/// What a command on any shard needs to know of the client that sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientView {
    /// Its home shard.
    pub home: ShardId,
    /// Its place in the home shard's table.
    pub index: u32,
    /// Its id.
    pub id: u64,
    /// The selected database.
    pub db: u16,
    /// 2 or 3.
    pub resp: u8,
    /// `CLIENT NO-TOUCH`.
    pub no_touch: bool,
    /// The keys that the command reads are noted, see [`crate::tracking`].
    pub notes_reads: bool,
    /// Its user.
    pub user: UserId,
}

impl ClientView {
    /// That of no client, for what shard `home` does of its own accord.
    pub fn nobody(home: ShardId) -> Self {
        ClientView { home, index: u32::MAX, id: 0, db: 0, resp: 2, no_touch: true, notes_reads: false, user: DEFAULT }
    }
}

/// A command in the queue of `MULTI`.
#[derive(Debug)]
pub struct Queued {
    /// The command.
    pub command: CommandId,
    /// Its arguments.
    pub args: OwnedArgs,
    /// What the shards answered to its question, if it asks one.
    pub answers: Vec<Answer>,
}

/// The queue of `MULTI`.
#[derive(Debug, Default)]
pub struct Multi {
    /// Commands in the order sent.
    pub queue: Vec<Queued>,
    /// Bytes held.
    pub bytes: usize,
    /// The `EXEC` that runs it, for monitors.
    pub exec: Option<OwnedArgs>,
}

/// A key under `WATCH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedKey {
    /// Database.
    pub db: u16,
    /// Name.
    pub key: Vec<u8>,
}

/// Bytes received but not yet run. Consumed bytes are dropped lazily, so that a client that waits between its
/// pipelined commands does not move its whole input each time. The buffer stays with the client for its next commands,
/// until [`Query::shrink`] finds that it is too large for them.
#[derive(Debug, Default)]
pub struct Query {
    /// The bytes, consumed ones included.
    pub bytes: Vec<u8>,
    /// How many are consumed.
    pub start: usize,
    /// Most bytes that were in it since it was last looked at.
    peak: usize,
}

/// The least that a buffer begins with: as much as a read brings (Redis: `PROTO_IOBUF_LEN`).
const QUERY_BYTES: usize = 16 * 1024;

/// What a buffer keeps when it is shrunk while its client is busy.
const LEAST_QUERY_BYTES: usize = 1024;

impl Query {
    /// Bytes not consumed.
    pub fn pending(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Whether all is consumed.
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// Makes room for so many bytes behind those that are there.
    pub fn reserve(&mut self, bytes: usize) {
        let least = QUERY_BYTES.saturating_sub(self.bytes.len());
        self.bytes.reserve_exact(bytes.max(least));
    }

    /// Adds received bytes.
    pub fn append(&mut self, bytes: &[u8]) {
        self.drop_consumed();
        self.bytes.extend_from_slice(bytes);
        self.peak = self.peak.max(self.bytes.len());
    }

    fn drop_consumed(&mut self) {
        if self.start > 0 && self.start >= self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    /// The buffer leaves, to be read into: with room for the next `most` of `wanted` bytes. [`Query::take_back`] follows.
    pub fn lend(&mut self, wanted: usize, most: usize) -> Vec<u8> {
        self.drop_consumed();
        match wanted <= most {
            true => self.bytes.reserve_exact(wanted),
            // Grown by doubling, it is not copied for each part of an argument that comes in many.
            false => self.bytes.reserve(most),
        }
        std::mem::take(&mut self.bytes)
    }

    /// The buffer comes back.
    pub fn take_back(&mut self, bytes: Vec<u8>) {
        debug_assert!(self.bytes.is_empty());
        self.bytes = bytes;
        self.peak = self.peak.max(self.bytes.len());
    }

    /// Marks bytes as consumed.
    pub fn consume(&mut self, n: usize) {
        self.start += n;
        if self.start == self.bytes.len() {
            self.start = 0;
            self.bytes.clear();
        }
    }

    /// From time to time: gives memory back that the client has not used lately, or all when it is idle. Counterpart:
    /// `clientsCronResizeQueryBuffer`.
    ///
    /// `wanted` bytes are awaited.
    pub fn shrink(&mut self, idle: bool, wanted: usize) {
        self.peak = self.peak.max(self.bytes.len() + wanted);
        let capacity = self.bytes.capacity();
        let oversized = capacity > crate::limits::QUERY_KEEP_BYTES && capacity / 2 > self.peak;
        if idle && capacity > self.bytes.len() {
            self.bytes.shrink_to_fit();
        } else if oversized {
            self.bytes.shrink_to(self.peak.max(LEAST_QUERY_BYTES));
        }
        self.peak = self.bytes.len();
    }
}

/// Where a connection comes from.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// `ip:port`, or the socket's path and `:0`.
    pub address: String,
    /// The local end.
    pub local_address: String,
    /// The file descriptor, for `CLIENT LIST`.
    pub fd: i32,
    /// Whether it came over a unix socket.
    pub unix: bool,
    /// Whether it came from a loopback address or a unix socket (for `protected-mode`).
    pub local: bool,
}

/// Whether and when a client's output is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sends {
    /// There is none, or it awaits something.
    No,
    /// With more of its kind ([`crate::pubsub::Wide`]).
    Later,
    /// At the end of the turn.
    Now,
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    /// Unique, rising.
    pub id: u64,
    /// The place in the home shard's table.
    pub index: u32,
    /// Its user.
    pub user: UserId,
    /// The selected database.
    pub db: u16,
    /// 2 or 3.
    pub resp: u8,
    /// Bits of [`gate`].
    pub gate: u32,
    /// Whether and when its output is to be sent.
    pub sends: Sends,
    /// Bytes of memory that it counts for under `maxmemory-clients`.
    pub counted_bytes: usize,
    /// What it waits for.
    pub wait: Wait,
    /// Replies ready to be sent.
    pub out: Vec<u8>,
    /// Bytes handed to the driver and not yet sent.
    pub in_flight: usize,
    /// What the buffer that they are in takes, until all of it is sent.
    pub in_flight_buffer: usize,
    /// Output that waits until the log is on disk.
    pub held: Option<Box<HeldOutput>>,
    /// Replies that wait for other shards.
    pub order: Option<Box<ReplyOrder>>,
    /// Input not yet run.
    pub query: Query,
    /// The parser's state inside an unfinished command.
    pub parser: Parser,
    /// The queue of `MULTI`.
    pub multi: Option<Box<Multi>>,
    /// Keys under `WATCH`.
    pub watched: Vec<WatchedKey>,
    /// Where it comes from.
    pub peer: Peer,
    /// `CLIENT SETNAME`.
    pub name: Vec<u8>,
    /// `CLIENT SETINFO LIB-NAME`.
    pub lib_name: Vec<u8>,
    /// `CLIENT SETINFO LIB-VER`.
    pub lib_ver: Vec<u8>,
    /// Unix ms of the connection.
    pub created_ms: i64,
    /// Unix ms of the last request or reply.
    pub last_interaction_ms: i64,
    /// The last command.
    pub last_command: CommandId,
    /// Bytes received.
    pub net_in: u64,
    /// Bytes replied.
    pub net_out: u64,
    /// Commands run.
    pub commands: u64,
    /// Since when the soft output limit is exceeded, Unix ms; 0 when it is not.
    pub over_soft_limit_since: i64,
    /// `CLIENT NO-EVICT`.
    pub no_evict: bool,
    /// What a command that waits for answers or a driver's work will go on with.
    pub parked: Option<Box<(CommandId, OwnedArgs)>>,
    /// How many of its requests wait in its home shard's mailbox or queue.
    pub queued_here: u32,
    /// How it tracks keys, while it does.
    pub tracking: Option<Box<Tracking>>,
    /// What it subscribes to, while that is something.
    pub subscriptions: Option<Box<Subscriptions>>,
    /// It has sent a script elsewhere: until all its replies are there it sends no command that splits. Such a part,
    /// behind a script that has to begin anew, would wait for it, and keep others waiting that the script waits for.
    pub script_sent: bool,
    /// Other shards have made room for its next command.
    pub room_made: bool,
    /// `SCRIPT DEBUG`.
    pub debugs: crate::scripting::debugger::DebugMode,
    /// The keys it waits for.
    pub blocked: Option<Box<BlockedClient>>,
    /// What it said of itself by `REPLCONF`.
    pub introduction: Option<Box<Introduction>>,
    /// What it is sent as a replica.
    pub link: Option<Box<Link>>,
}

impl Client {
    /// A new connection.
    pub fn new(id: u64, index: u32, peer: Peer, now_ms: i64) -> Self {
        Client {
            id,
            index,
            user: DEFAULT,
            db: 0,
            resp: 2,
            gate: 0,
            sends: Sends::No,
            counted_bytes: 0,
            wait: Wait::No,
            out: Vec::new(),
            in_flight: 0,
            in_flight_buffer: 0,
            held: None,
            order: None,
            query: Query::default(),
            parser: Parser::default(),
            multi: None,
            watched: Vec::new(),
            peer,
            name: Vec::new(),
            lib_name: Vec::new(),
            lib_ver: Vec::new(),
            created_ms: now_ms,
            last_interaction_ms: now_ms,
            last_command: CommandId::MAX,
            net_in: 0,
            net_out: 0,
            commands: 0,
            over_soft_limit_since: 0,
            no_evict: false,
            parked: None,
            queued_here: 0,
            tracking: None,
            subscriptions: None,
            script_sent: false,
            room_made: false,
            debugs: Default::default(),
            blocked: None,
            introduction: None,
            link: None,
        }
    }

    /// What travels with its commands.
    #[inline]
    pub fn view(&self, home: ShardId) -> ClientView {
        ClientView {
            home,
            index: self.index,
            id: self.id,
            db: self.db,
            resp: self.resp,
            no_touch: self.gate & gate::NO_TOUCH != 0,
            notes_reads: self.gate & gate::NOTES_READS != 0,
            user: self.user,
        }
    }

    /// How many subscriptions of a kind it has.
    pub fn subscribed(&self, kind: Kind) -> usize {
        self.subscriptions.as_ref().map_or(0, |all| all.len(kind))
    }

    /// Its type in `CLIENT LIST` and `CLIENT KILL`.
    pub fn type_name(&self) -> &'static str {
        match self.gate {
            bits if bits & gate::REPLICA != 0 => "replica",
            bits if bits & gate::SUBSCRIBED != 0 => "pubsub",
            _ => "normal",
        }
    }

    /// Whether it waits for keys, for the log or replicas (`WAIT`), or for the end of a pause.
    pub fn is_blocked(&self) -> bool {
        self.blocked.is_some() || matches!(self.wait, Wait::Pause | Wait::Log)
    }

    /// Whether it closes when its output is sent. One whose peer has ended does as soon as it waits for keys, too, for
    /// nobody would take them.
    pub fn closes_when_sent(&self) -> bool {
        let answered = || self.blocked.is_some() || self.gate & gate::WAITING == 0 && !self.awaits_replies();
        self.gate & gate::CLOSE_AFTER_REPLY != 0 || self.gate & gate::ENDED != 0 && answered()
    }

    /// Whether replies of other shards are awaited.
    #[inline]
    pub fn awaits_replies(&self) -> bool {
        self.order.as_ref().is_some_and(|order| !order.is_empty())
    }

    /// Keeps a place for a reply that will come from these shards ([`order::bit`] each); returns its number.
    #[inline]
    pub fn await_reply(&mut self, owners: u128) -> u64 {
        let muted = self.gate & gate::MUTED != 0;
        self.order.get_or_insert_default().expect_several(owners, muted)
    }

    /// Has the last reply that is awaited come from these shards too.
    #[inline]
    pub fn await_more(&mut self, owners: u128) {
        self.order.as_deref_mut().expect("a reply is awaited").expect_more(owners);
    }

    /// Whether nothing came behind the reply with this number, and replies are wanted.
    #[inline]
    pub fn awaits_last(&self, number: u64) -> bool {
        let last = self.order.as_deref().filter(|order| !order.is_empty()).map(ReplyOrder::last);
        last == Some(number) && self.gate & gate::MUTED == 0
    }

    /// Counts a request of its own that stands in its home shard's queue.
    pub(crate) fn joins_queue(&mut self) {
        self.queued_here += 1;
        self.gate |= gate::QUEUED_HERE;
    }

    /// One of these has been taken up.
    pub(crate) fn leaves_queue(&mut self) {
        self.queued_here -= 1;
        if self.queued_here == 0 {
            self.gate &= !gate::QUEUED_HERE;
        }
    }

    /// Takes back what was replied since the output had this length, if the client wants no replies.
    pub fn mute(&mut self, length: usize) {
        if self.gate & gate::MUTED != 0 {
            self.out.truncate(length);
        }
    }

    /// Where the reply of a command that runs now goes, when no earlier reply is awaited.
    pub fn reply(&mut self) -> Reply<'_> {
        Reply::new(&mut self.out, self.resp)
    }

    /// Bytes of memory that count against the client.
    pub fn memory(&self) -> usize {
        size_of::<Client>()
            + self.query.bytes.capacity()
            // What is small comes in buffers that change hands, and is not to come and go with each reply: a client list
            // is longer than the bound may have room for.
            + match output_memory(&self.out) + self.in_flight.max(self.in_flight_buffer) {
                small if small <= REPLY_CHUNK_BYTES => 1024,
                large => large,
            }
            + self.held.as_ref().map_or(0, |held| held.bytes())
            + self.parser.memory()
            + self.order.as_ref().map_or(0, |order| order.memory())
            + self.multi.as_ref().map_or(0, |multi| multi.bytes)
            + self.subscriptions.as_ref().map_or(0, |all| all.memory())
            + self.tracking.as_ref().map_or(0, |tracking| tracking.memory())
            + self.link.as_ref().map_or(0, |link| link.pending.len())
            + self.watched.iter().map(|w| w.key.capacity() + 32).sum::<usize>()
    }

    /// Output leaves for the driver.
    #[inline]
    pub(crate) fn hand_out(&mut self, out: &Vec<u8>) {
        self.in_flight += out.len();
        self.in_flight_buffer += output_memory(out);
    }

    /// The driver has sent so many bytes of it.
    #[inline]
    pub(crate) fn handed_out(&mut self, bytes: usize) {
        self.in_flight -= bytes;
        if self.in_flight == 0 {
            self.in_flight_buffer = 0;
        }
    }

    /// Bytes owed to the client.
    pub fn output_bytes(&self) -> usize {
        let held = self.held.as_ref().map_or(0, |held| held.bytes());
        let pending = self.link.as_ref().map_or(0, |link| link.pending.len());
        self.out.len() + held + pending + self.in_flight + self.order.as_ref().map_or(0, |order| order.held_bytes())
    }
}

/// What a buffer of output counts for: what is small comes round in buffers that change hands.
#[inline]
fn output_memory(out: &Vec<u8>) -> usize {
    match out.capacity() {
        large if large > SPARE_BUFFER_BYTES => large,
        _ => out.len(),
    }
}

/// A description of a client that can travel, for `CLIENT LIST` and `CLIENT INFO`.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// The id, by which lists are sorted.
    pub id: u64,
    /// The line of `CLIENT LIST`.
    pub line: String,
    /// Type: `normal`, `pubsub`.
    pub kind: &'static str,
}
