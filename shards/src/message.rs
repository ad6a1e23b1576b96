//! What shards send each other.
//!
//! A shard collects its messages to another in one [`Parcel`] a turn. Requests and replies, the bulk of it, are flat:
//! a few vectors that grow and are reused, no allocation a command. Parcels between two shards arrive in the order
//! sent; [`Note::Acquire`] additionally arrives in the same order everywhere (see [`crate::transaction`]).

use std::sync::Arc;

use crate::args::{ArgRef, Args, KeyPlace, OwnedArgs};
use crate::client::{ClientInfo, ClientView};
use crate::commands::CommandId;
use crate::db::Slice;
use crate::db::blocked::BlockId;
use crate::dict::prefetch_line;
use crate::limits::{
    BATCH_COMMANDS, BATCH_KEYS, SMALL_PARCEL_BYTES, SPARE_PARCEL_BYTES, SPARE_PARCELS, SPARE_PARCELS_BYTES,
    SPARE_PARCELS_SHORT_BYTES, SURPLUS_PARCELS,
};
use crate::pubsub::Letter;
use crate::router::ShardId;
use crate::shard::blocking::Unblock;
use crate::slowlog::SlowEntry;
use crate::stats::ShardReport;
use crate::transaction::TxId;

/// Marks a request's number as that of a split command's part: its lower half is the coordinator's slot.
pub const SPLIT: u64 = 1 << 63;

/// Beside [`SPLIT`]: the part holds its keys alone, though it only reads.
pub const ALONE: u64 = 1 << 62;

/// Beside [`SPLIT`]: the last argument is none of the command's, but says how the logs shall tell of the whole, see
/// [`SpanWord`].
pub const SPANS: u64 = 1 << 61;

/// What the logs of all owners need to know of a split write: its number, and whose logs tell of it.
pub struct SpanWord {
    /// Its number.
    pub number: u64,
    /// Whose logs.
    pub participants: Arc<[ShardId]>,
}

impl SpanWord {
    /// As the argument of a part.
    pub fn to_bytes(&self) -> Vec<u8> {
        let shards = self.participants.iter().flat_map(|shard| shard.to_le_bytes());
        self.number.to_le_bytes().into_iter().chain(shards).collect()
    }

    /// Back from there.
    pub fn from_bytes(bytes: &[u8]) -> SpanWord {
        let (number, shards) = bytes.split_at(8);
        SpanWord {
            number: u64::from_le_bytes(number.try_into().expect("eight bytes")),
            participants: shards.chunks_exact(2).map(|pair| ShardId::from_le_bytes([pair[0], pair[1]])).collect(),
        }
    }
}

/// One request in a batch.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead {
    /// Who asks.
    pub client: ClientView,
    /// Which of the client's awaited replies this one is.
    pub sequence: u64,
    /// The command.
    pub command: CommandId,
    /// The first of its arguments in [`RequestBatch::refs`].
    pub first: u32,
    /// How many arguments.
    pub argc: u32,
    /// The first of its keys' places in [`RequestBatch::places`].
    pub first_place: u32,
    /// How many of these: all its keys, or none if its sender did not look for them.
    pub places: u32,
}

/// Requests of one turn for one shard.
#[derive(Debug, Default)]
pub struct RequestBatch {
    /// The requests, in the order made.
    pub heads: Vec<RequestHead>,
    /// Their arguments, into `bytes`.
    pub refs: Vec<ArgRef>,
    /// The places of their keys.
    pub places: Vec<KeyPlace>,
    /// The arguments' bytes.
    pub bytes: Vec<u8>,
    /// Where the arguments and places of the part begin that is being added.
    part: (usize, usize),
}

/// A command whose arguments take no more bytes than this, with what stands between them, is copied as it came: once
/// instead of for each argument.
const COPIED_WHOLE: usize = 512;

impl RequestBatch {
    /// Whether the note ends what a request among these begins. A client that is still there waits for all that it has
    /// sent before it ends its watches: its requests here come after that.
    pub fn is_ended_by(&self, note: &Note) -> bool {
        match note {
            Note::Unblock { id, .. } => {
                self.heads.iter().any(|head| head.client.id == id.client && head.sequence == id.sequence)
            }
            Note::Unwatch { client, gone: true, .. } => self.heads.iter().any(|head| head.client.id == *client),
            _ => false,
        }
    }

    /// Adds a request.
    #[inline]
    pub fn push(&mut self, client: ClientView, sequence: u64, command: CommandId, args: Args<'_>) {
        let (first, first_place) = (self.refs.len(), self.places.len());
        let whole = args.span();
        match whole.len() <= COPIED_WHOLE {
            true => {
                let moved = (self.bytes.len() as u32).wrapping_sub(args.refs()[0].start);
                self.bytes.extend_from_slice(whole);
                self.refs.extend(args.refs().iter().map(|r| r.moved(moved)));
            }
            false => args.iter_from(0).for_each(|arg| self.push_arg(arg)),
        }
        self.places.extend_from_slice(args.places());
        self.push_head(client, sequence, command, first, first_place);
    }

    /// Begins a part of a split command with its name; keys follow, then [`RequestBatch::end_part`].
    pub fn begin_part(&mut self, name: &[u8]) {
        self.part = (self.refs.len(), self.places.len());
        self.push_arg(name);
    }

    /// Adds a key of a command to the part.
    #[inline(always)]
    fn push_key(&mut self, args: Args<'_>, key: ArgRef, place: KeyPlace) {
        self.push_arg_of(args, key);
        self.places.push(place);
    }

    /// Adds an argument of a command to the part.
    #[inline(always)]
    fn push_arg_of(&mut self, args: Args<'_>, arg: ArgRef) {
        match args.short(arg) {
            Some(bytes) => {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(bytes);
                self.bytes.truncate(start + arg.len as usize);
                self.refs.push(ArgRef { start: start as u32, len: arg.len });
            }
            None => self.push_arg(args.get_ref(arg)),
        }
    }

    /// Whether the last request is the part with this number: more keys may follow it, then [`RequestBatch::grow_part`].
    #[inline]
    pub fn ends_with_part(&self, sequence: u64) -> bool {
        self.heads.last().is_some_and(|head| head.sequence == sequence)
    }

    /// Ends the last request anew, behind keys that were added to it.
    #[inline]
    pub fn grow_part(&mut self) {
        let head = self.heads.last_mut().expect("the caller has seen it");
        head.argc = self.refs.len() as u32 - head.first;
        head.places = self.places.len() as u32 - head.first_place;
    }

    /// Adds what is no key: a value behind its key, or the word of [`SPANS`] at the end.
    #[inline]
    pub fn push_arg(&mut self, arg: &[u8]) {
        self.refs.push(ArgRef { start: self.bytes.len() as u32, len: arg.len() as u32 });
        self.bytes.extend_from_slice(arg);
    }

    /// Ends the part that was begun.
    pub fn end_part(&mut self, client: ClientView, sequence: u64, command: CommandId) {
        let (first, first_place) = self.part;
        self.push_head(client, sequence, command, first, first_place);
    }

    /// Ends a request whose arguments begin at `first`, and its keys' places at `first_place`.
    #[inline]
    fn push_head(&mut self, client: ClientView, sequence: u64, command: CommandId, first: usize, first_place: usize) {
        self.heads.push(RequestHead {
            client,
            sequence,
            command,
            first: first as u32,
            argc: (self.refs.len() - first) as u32,
            first_place: first_place as u32,
            places: (self.places.len() - first_place) as u32,
        });
    }

    /// The arguments of a request of this batch.
    #[inline]
    pub fn args(&self, head: &RequestHead) -> Args<'_> {
        let refs = &self.refs[head.first as usize..(head.first + head.argc) as usize];
        Args::new(&self.bytes, refs).with_places(self.places(head))
    }

    /// The places of its keys.
    #[inline]
    pub fn places(&self, head: &RequestHead) -> &[KeyPlace] {
        &self.places[head.first_place as usize..(head.first_place + head.places) as usize]
    }

    /// How many of `heads`, all that are left of the batch, to take up together: those of one database whose keys are not
    /// too many to be prefetched.
    #[inline]
    pub fn chunk(&self, heads: &[RequestHead]) -> usize {
        let first = heads[0];
        let fits = |head: &&RequestHead| {
            head.client.db == first.client.db && ((head.first_place - first.first_place) as usize) < BATCH_KEYS
        };
        heads.iter().take(BATCH_COMMANDS).take_while(fits).count()
    }

    /// The places of the keys of such requests, as far as they are worth prefetching.
    #[inline]
    pub fn places_of(&self, chunk: &[RequestHead]) -> &[KeyPlace] {
        let (first, last) = (chunk[0].first_place as usize, chunk[chunk.len() - 1]);
        let end = (last.first_place + last.places) as usize;
        &self.places[first..end.min(first + 2 * BATCH_KEYS)]
    }

    /// Whether another request of `bytes` would not fit the batch's 32-bit offsets.
    pub fn is_full(&self, bytes: usize) -> bool {
        self.bytes.len() + bytes > u32::MAX as usize / 2
    }

    fn clear(&mut self) {
        self.heads.clear();
        self.refs.clear();
        self.places.clear();
        self.bytes.clear();
    }
}

/// One reply in a batch.
#[derive(Clone, Copy, Debug)]
pub struct ReplyHead {
    /// The client's place in its home shard's table.
    pub index: u32,
    /// The client's id; a reply to one that has gone is dropped.
    pub id: u64,
    /// Which of its awaited replies this is.
    pub sequence: u64,
    /// Length of the reply in bytes.
    pub len: u32,
}

/// Replies of one turn for one shard.
#[derive(Debug, Default)]
pub struct ReplyBatch {
    /// The replies, in the order made.
    pub heads: Vec<ReplyHead>,
    /// Their bytes, end to end.
    pub bytes: Vec<u8>,
}

impl ReplyBatch {
    /// Ends a reply whose bytes begin at `start`.
    #[inline]
    pub fn end_reply(&mut self, client: ClientView, sequence: u64, start: usize) {
        let len = (self.bytes.len() - start) as u32;
        self.heads.push(ReplyHead { index: client.index, id: client.id, sequence, len });
    }
}

/// How much of its statistics a shard tells. What is told is in memory when the memory in use is looked at, so nothing is
/// that was not asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// All but that of single commands.
    Sums,
    /// What each command did too.
    Commands,
    /// And the histograms of their durations.
    Histograms,
}

/// What `DEBUG` turns on or off on every shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// The active expire cycle.
    ActiveExpire,
    /// Time events, all of them.
    PauseCron,
    /// The growth and shrinking of tables outside of commands.
    DictResizing,
}

/// The client that asks for descriptions of clients; its own tells of the request under way.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// Its id.
    pub id: u64,
    /// Bytes of the request as it was sent.
    pub request_bytes: usize,
    /// Bytes of its arguments.
    pub argument_bytes: usize,
}

impl Asking {
    /// A client with a request.
    pub fn new(id: u64, args: Args<'_>) -> Self {
        let digits = |n: usize| n.checked_ilog10().unwrap_or(0) as usize + 1;
        let argument_bytes = args.iter_from(0).map(<[u8]>::len).sum();
        let framed = |arg: &[u8]| 1 + digits(arg.len()) + 2 + arg.len() + 2;
        let request_bytes = 1 + digits(args.len()) + 2 + args.iter_from(0).map(framed).sum::<usize>();
        Asking { id, request_bytes, argument_bytes }
    }
}

/// A question to every shard, asked by commands over what slices do not hold.
#[derive(Clone, Debug)]
pub enum Question {
    /// Statistics.
    Report {
        /// Of what.
        detail: Detail,
    },
    /// Statistics, and a fresh start of them.
    ResetStat,
    /// Descriptions of clients.
    Clients {
        /// Those with these ids, or all.
        ids: Option<Vec<u64>>,
        /// Who asks, and how long its request is.
        asking: Option<Asking>,
    },
    /// Close the clients that match.
    KillClients {
        /// Which.
        filter: Box<crate::client::filter::ClientFilter>,
        /// Whether the one that asks is spared.
        skip_me: bool,
    },
    /// Do what a change of the configuration asks for at once; there are so many bytes beyond `maxmemory`.
    HeedConfig(usize),
    /// Where the client with this id is at home.
    Find(u64),
    /// Turn a switch of `DEBUG`.
    Switch(Switch, bool),
    /// Describe or unblock one client.
    Unblock {
        /// The client.
        id: u64,
        /// Whether it gets an error instead of a time-out's reply.
        error: bool,
    },
}

impl Question {
    /// Says who asks, by which request, where that matters.
    pub fn sign(&mut self, client: u64, args: Args<'_>) {
        match self {
            Question::KillClients { filter, skip_me } => {
                filter.asking = Some(client);
                filter.spared = skip_me.then_some(client);
            }
            Question::Clients { asking, .. } => *asking = Some(Asking::new(client, args)),
            _ => {}
        }
    }
}

/// A shard's answer to a [`Question`].
#[derive(Debug)]
pub enum Answer {
    /// To [`Question::Report`] and [`Question::ResetStat`].
    Report(Box<ShardReport>),
    /// To [`Question::Clients`].
    Clients(Vec<ClientInfo>),
    /// How many it did something to.
    Count(usize),
    /// To [`Question::Find`]: the client, if it is here.
    Found(Option<crate::tracking::Target>),
}

/// A message that is rare enough to be its own allocation.
#[derive(Debug)]
pub enum Note {
    /// Lend your slice to the coordinator of this transaction, after all that came before.
    Acquire(TxId),
    /// The slice that was asked for.
    Lent {
        /// For whom.
        tx: TxId,
        /// The slice.
        slice: Box<Slice>,
    },
    /// The slice comes home.
    Return(Box<Slice>),
    /// Questions, to be answered under this number.
    Ask(u64, Vec<Question>),
    /// The answers, one a question.
    Answer(u64, Vec<Answer>),
    /// A client watches these keys (all of this shard's) no longer.
    Unwatch {
        /// The client's id.
        client: u64,
        /// The keys.
        keys: Vec<crate::client::WatchedKey>,
        /// Whether the client has gone, and may have left requests that are still on their way.
        gone: bool,
    },
    /// A key that a client of the receiver waits for is ready; its other keys are elsewhere.
    Ready {
        /// The client's place.
        index: u32,
        /// Its wait.
        id: BlockId,
    },
    /// What the parts of `MSETNX` or `MIGRATE` found calls for this write to keys that are held; then let go of them.
    Commit {
        /// The coordinator's slot.
        slot: u32,
        /// On whose behalf.
        client: ClientView,
        /// The write, and behind its arguments the word of [`SPANS`] if there is a log.
        write: OwnedArgs,
        /// Whether it is there.
        spans: bool,
    },
    /// A wait for keys of the receiver ends.
    Unblock {
        /// Which.
        id: BlockId,
        /// With what.
        how: Unblock,
    },
    /// `CLIENT PAUSE` is over: your clients may go on.
    EndPause,
    /// Clients hold too much memory, and the one that holds most is thought to be yours.
    EvictClients,
    /// Memory is full: evict what you can.
    Evict,
    /// For those of the receiver's clients that want it.
    Letter(Arc<Letter>),
    /// A script of a client of the receiver met a key of another slice: run it with all of them.
    RunAgain {
        /// The client's place.
        client: ClientView,
        /// The number of the reply that it awaits.
        sequence: u64,
        /// The command.
        command: CommandId,
        /// Its arguments.
        args: OwnedArgs,
    },
    /// The script of this client that was sent back has run.
    HasRun(u64),
    /// There is more for the receiver's replicas, or they have told more to those who wait for them: the end of its turn
    /// looks.
    Stream,
    /// A command ran long; its client's home knows the rest of the entry.
    Slow(Box<SlowEntry>),
    /// A command was refused when it was to run again; its client's home knows the rest of the entry.
    Denied(ClientView, Box<crate::acl::log::Denial>),
}

/// Has the first lines of a slice fetched.
#[inline]
fn fetch_lines<T>(slice: &[T]) {
    const LINE: usize = 64;
    const LINES: usize = 8;
    let start: *const u8 = slice.as_ptr().cast();
    for at in (0..size_of_val(slice).min(LINES * LINE)).step_by(LINE) {
        prefetch_line(start.wrapping_add(at));
    }
}

/// All that one shard sends another in one turn.
#[derive(Debug, Default)]
pub struct Parcel {
    /// Who sends it.
    pub from: ShardId,
    /// Requests for keys of the receiver.
    pub requests: RequestBatch,
    /// Replies to requests of the receiver's clients.
    pub replies: ReplyBatch,
    /// Split commands of the sender that are done, by slot: their keys are free.
    pub releases: Vec<u32>,
    /// Everything else, in order.
    pub notes: Vec<Note>,
    /// Under `appendfsync always`: positions in the logs of all shards that the receiver must not tell of before they
    /// are stable. Empty when it may.
    pub needs: Vec<u64>,
    /// How much of [`crate::shared::ClientMemory::under_way`] is the replies in here: none where nobody counts.
    pub under_way_bytes: usize,
    /// Empty parcels that go back: the receiver has sent more than came to it.
    #[allow(clippy::vec_box)]
    pub returned: Vec<Box<Parcel>>,
}

impl Parcel {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.requests.heads.is_empty()
            && self.replies.heads.is_empty()
            && self.releases.is_empty()
            && self.notes.is_empty()
    }

    /// Whether there is nothing in it but keys let go, which matters to no one until something needs them.
    pub fn only_releases(&self) -> bool {
        self.requests.heads.is_empty() && self.replies.heads.is_empty() && self.notes.is_empty()
    }

    /// Has the parcel itself fetched into the cache: another core has written it, and what a hop costs is for the most part
    /// waiting for that core's lines. [`Parcel::fetch`] follows, when others have been seen to meanwhile.
    #[inline]
    pub fn fetch_head(&self) {
        fetch_lines(std::slice::from_ref(self));
    }

    /// Has what is in it fetched into the cache, as far as it is not so much that the hardware sees it coming.
    #[inline]
    pub fn fetch(&self) {
        fetch_lines(&self.replies.heads);
        fetch_lines(&self.replies.bytes);
        fetch_lines(&self.requests.heads);
        fetch_lines(&self.requests.refs);
        fetch_lines(&self.requests.places);
        fetch_lines(&self.requests.bytes);
    }

    /// Bytes of its flat buffers, used or not.
    pub fn capacity(&self) -> usize {
        let RequestBatch { heads, refs, places, bytes, .. } = &self.requests;
        heads.capacity() * size_of::<RequestHead>()
            + refs.capacity() * size_of::<ArgRef>()
            + places.capacity() * size_of::<KeyPlace>()
            + bytes.capacity()
            + self.replies.heads.capacity() * size_of::<ReplyHead>()
            + self.replies.bytes.capacity()
    }

    /// Bytes of what is in its flat buffers.
    fn used(&self) -> usize {
        let RequestBatch { heads, refs, places, bytes, .. } = &self.requests;
        size_of_val(&heads[..])
            + size_of_val(&refs[..])
            + size_of_val(&places[..])
            + bytes.len()
            + size_of_val(&self.replies.heads[..])
            + self.replies.bytes.len()
    }

    /// Empties it, keeping its buffers.
    pub fn clear(&mut self) {
        self.requests.clear();
        self.replies.heads.clear();
        self.replies.bytes.clear();
        self.releases.clear();
        self.notes.clear();
        self.needs.clear();
        self.under_way_bytes = 0;
    }
}

/// The messages a shard has to send.
#[derive(Debug, Default)]
pub struct Outbox {
    parcels: Vec<Option<Box<Parcel>>>,
    dirty: Vec<ShardId>,
    ordered: bool,
    /// How often parcels were taken.
    turns: u64,
    /// The fewest spare ones there were since the last [`Outbox::trim`].
    fewest: usize,
    /// Boxed because they travel so: a parcel that comes in goes out again without moving.
    #[allow(clippy::vec_box)]
    spare: Vec<Box<Parcel>>,
    spare_bytes: usize,
    /// The most that a parcel which came in held, since the last [`Outbox::trim`].
    most_used: usize,
    /// By shard: how many more parcels came from it than went to it.
    surplus: Vec<i32>,
    from: ShardId,
}

impl Outbox {
    /// An outbox of shard `from` among `shards`.
    pub fn new(from: ShardId, shards: usize) -> Self {
        Outbox { parcels: (0..shards).map(|_| None).collect(), surplus: vec![0; shards], from, ..Outbox::default() }
    }

    /// The parcel for shard `to`.
    #[inline]
    pub fn parcel(&mut self, to: ShardId) -> &mut Parcel {
        if self.parcels[to as usize].is_none() {
            self.begin_parcel(to);
        }
        self.begun_parcel(to)
    }

    #[cold]
    fn begin_parcel(&mut self, to: ShardId) {
        let mut parcel = self.spare.pop().unwrap_or_default();
        self.fewest = self.fewest.min(self.spare.len());
        self.spare_bytes -= parcel.capacity();
        parcel.from = self.from;
        self.parcels[to as usize] = Some(parcel);
        self.dirty.push(to);
    }

    /// The parcel for shard `to`, which was begun.
    #[inline]
    pub fn begun_parcel(&mut self, to: ShardId) -> &mut Parcel {
        self.parcels[to as usize].as_mut().expect("the caller has put something in")
    }

    /// Adds each key of a split command, and with it the value behind it, to the part of its owner, which was begun or is
    /// being taken up again. There are `step` arguments for each key.
    // A function of its own, so that all it works with stays in registers.
    #[inline(never)]
    pub fn push_keys(&mut self, args: Args<'_>, step: usize, with_values: bool) {
        let (places, refs) = (args.places().iter(), &args.refs()[1..]);
        match (step, with_values) {
            (1, _) => places.zip(refs).for_each(|(place, key)| {
                self.begun_parcel(place.owner()).requests.push_key(args, *key, *place);
            }),
            (_, false) => places.zip(refs.iter().step_by(step)).for_each(|(place, key)| {
                self.begun_parcel(place.owner()).requests.push_key(args, *key, *place);
            }),
            (_, true) => places.zip(refs.as_chunks().0).for_each(|(place, [key, value])| {
                let batch = &mut self.begun_parcel(place.owner()).requests;
                batch.push_key(args, *key, *place);
                batch.push_arg_of(args, *value);
            }),
        }
    }

    /// Adds a note for one shard.
    pub fn note(&mut self, to: ShardId, note: Note) {
        self.parcel(to).notes.push(note);
    }

    /// Asks `owners` for their slices, in one order for all.
    pub fn acquire(&mut self, tx: TxId, owners: &[ShardId]) {
        self.ordered = true;
        for owner in owners {
            self.note(*owner, Note::Acquire(tx));
        }
    }

    /// What is in the parcels now must be handed over in one order for all receivers.
    pub fn set_ordered(&mut self) {
        self.ordered = true;
    }

    /// Says in all parcels of what positions in the logs they may tell.
    pub fn set_needs(&mut self, needs: &[u64]) {
        for to in &self.dirty {
            if let Some(parcel) = &mut self.parcels[*to as usize] {
                parcel.needs.clear();
                parcel.needs.extend_from_slice(needs);
            }
        }
    }

    /// Whether nothing waits to be sent.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.dirty.is_empty()
    }

    /// How often parcels were taken: while this stays, what was put in is still here.
    #[inline]
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// Whether what goes to shard `to` ends with this part, which may then grow.
    #[inline]
    pub fn ends_with_part(&self, to: ShardId, sequence: u64) -> bool {
        self.parcels[to as usize].as_ref().is_some_and(|parcel| parcel.requests.ends_with_part(sequence))
    }

    /// Takes all parcels. When the second value is true the driver must hand them over so that no other shard's
    /// ordered parcels come between: to all receivers, or to none before them.
    ///
    /// A shard that turns more often than another sends it more parcels than it gets back, and would make new ones all
    /// the time, whose buffers grow anew, while the other drops them: what is too many here goes back with the next.
    pub fn take(&mut self, each: &mut dyn FnMut(ShardId, Box<Parcel>)) {
        self.turns += 1;
        // Its own first: an answer to what others get must find it in the mailbox.
        if let Some(at) = self.dirty.iter().position(|to| *to == self.from) {
            self.dirty.swap(0, at);
        }
        for to in self.dirty.drain(..) {
            if let Some(mut parcel) = self.parcels[to as usize].take() {
                let surplus = &mut self.surplus[to as usize];
                *surplus -= 1;
                while *surplus > SURPLUS_PARCELS && !self.spare.is_empty() {
                    // Those used last stay.
                    let spare = self.spare.swap_remove(0);
                    self.spare_bytes -= spare.capacity();
                    self.fewest = self.fewest.min(self.spare.len());
                    parcel.returned.push(spare);
                    *surplus -= 1;
                }
                each(to, parcel);
            }
        }
        self.ordered = false;
    }

    /// Whether what waits must be handed over in one order for all receivers.
    pub fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// Gives those to the allocator that lay unused since the last time, and those that have grown far beyond what they
    /// have held since then: one large reply would have memory kept for ever, for what was used last is used next.
    pub fn trim(&mut self) {
        self.spare.drain(..self.fewest.min(self.spare.len()));
        let fits = (4 * std::mem::take(&mut self.most_used)).max(SMALL_PARCEL_BYTES);
        self.spare.retain(|parcel| parcel.capacity() <= fits);
        self.spare_bytes = self.spare.iter().map(|parcel| parcel.capacity()).sum();
        self.fewest = self.spare.len();
    }

    /// Bytes of the spare ones beyond what is kept when memory is short.
    #[inline]
    pub fn bytes_to_spare(&self) -> usize {
        self.spare_bytes.saturating_sub(SPARE_PARCELS_SHORT_BYTES)
    }

    /// Whether spare ones hold more than is kept when memory is short.
    #[inline]
    pub fn has_large_spares(&self) -> bool {
        self.bytes_to_spare() > 0
    }

    /// Gives spare ones to the allocator, for memory is short. Some are kept, which would be missed the next turn.
    #[cold]
    pub fn drop_large_spares(&mut self) {
        let mut kept = 0;
        self.spare.retain(|parcel| {
            let fits = kept + parcel.capacity() <= SPARE_PARCELS_SHORT_BYTES;
            kept += if fits { parcel.capacity() } else { 0 };
            fits
        });
        self.spare_bytes = kept;
        self.fewest = self.fewest.min(self.spare.len());
    }

    /// Gives a parcel that came in back for reuse, and what it brought.
    pub fn recycle(&mut self, mut parcel: Box<Parcel>) {
        let surplus = &mut self.surplus[parcel.from as usize];
        *surplus = surplus.saturating_add(1 + parcel.returned.len() as i32);
        self.most_used = self.most_used.max(parcel.used());
        while let Some(returned) = parcel.returned.pop() {
            self.keep(returned);
        }
        self.keep(parcel);
    }

    fn keep(&mut self, mut parcel: Box<Parcel>) {
        // As many come in as go out, but not in step: a small store would be empty half of the time.
        let bytes = self.spare_bytes + parcel.capacity();
        let fits = parcel.capacity() <= SPARE_PARCEL_BYTES && bytes <= SPARE_PARCELS_BYTES;
        if fits && self.spare.len() < SPARE_PARCELS + 2 * self.parcels.len() {
            parcel.clear();
            self.spare_bytes = bytes;
            self.spare.push(parcel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shard that sends more than it gets has its parcels back, and makes no new ones.
    #[test]
    fn parcels_go_back_to_who_sends_more() {
        let (mut busy, mut quiet) = (Outbox::new(0, 2), Outbox::new(1, 2));
        let carry = |from: &mut Outbox, to: &mut Outbox| {
            from.take(&mut |_, parcel| to.recycle(parcel));
        };
        for round in 0..100 {
            for _ in 0..3 {
                assert!(round < 2 || !busy.spare.is_empty(), "round {round}");
                busy.note(1, Note::Stream);
                carry(&mut busy, &mut quiet);
            }
            quiet.note(0, Note::Stream);
            carry(&mut quiet, &mut busy);
        }
        let all = busy.spare.len() + quiet.spare.len();
        assert!(all <= 3 + SURPLUS_PARCELS as usize + 1, "{all} parcels");
        assert!(busy.surplus[1].abs() <= 3 + SURPLUS_PARCELS && quiet.surplus[0] == SURPLUS_PARCELS);
        // One of them has grown, and is given up when it has not been filled for some time.
        let bytes = |outbox: &Outbox| outbox.spare.iter().map(|parcel| parcel.capacity()).sum::<usize>();
        busy.parcel(1).replies.bytes.extend_from_slice(&[0; 100_000]);
        carry(&mut busy, &mut quiet);
        for kept in [true, false] {
            quiet.trim();
            assert_eq!(bytes(&quiet) >= 100_000, kept);
            assert_eq!(bytes(&quiet), quiet.spare_bytes);
            busy.note(1, Note::Stream);
            carry(&mut busy, &mut quiet);
        }
    }
}
