//! Commands that split: `MGET`, `MSET`, `DEL` and their like send each owner its part, all in one round trip.
//!
//! The coordinator groups the keys by owner and sends the parts through the ordered multicast, its own by way of its
//! own mailbox, for the order must be the same everywhere. Each owner runs its part as it comes, holds the keys
//! (`intents.rs`) and answers. With the last answer the coordinator puts the reply together and lets go of the keys.
//! No slice moves, the client's next commands need not wait, and a pipeline of these overlaps like one of `GET`s.
//!
//! `MSETNX` asks first: its parts are `EXISTS` that hold the keys alone; then the values are written, or not, as the
//! keys are let go. `MIGRATE` goes further still between the two (`migrate.rs`).
//!
//! `MGET`s that follow one another in a pipeline go as one: the keys of the later ones are added to the parts of the first
//! while these have not left, so that a part, its holds, its answer and its end cost once for all of them. They run at one
//! instant, in their order, and are answered together. So do `MSET`s where no log is to tell of each by itself.
//!
//! **Order of a client's commands.** Parts travel with its plain requests and keep their order at each owner. A split
//! write becomes visible when it is let go, that is, after all of its parts have run; so if every earlier command that
//! is still under way is at one of its owners, it has run before that. Otherwise the write waits for them.

use super::Shard;
use super::dispatch::Next;
use crate::args::{Args, KeyPlace, OwnedArgs};
use crate::client::{ClientView, Wait, order};
use crate::commands::spec::Split as Kind;
use crate::commands::{CommandId, flag, table};
use crate::core::Fault;
use crate::limits::{JOINED_KEYS, SPARE_BUFFER_BYTES};
use crate::message::{ALONE, Note, ReplyHead, SPANS, SPLIT, SpanWord};
use crate::resp::Reply;
use crate::router::{ShardId, owner_of};

/// A value's reply of no more bytes is copied in one piece of this length, as [`Args::short`] arguments are.
const SHORT_REPLY: usize = 96;

/// The rests of so many shards' parts are kept without an allocation.
const FEW_SHARDS: usize = 16;

/// A split command under way, or several of one client that go as one.
#[derive(Debug)]
pub(crate) struct SplitTx {
    pub(super) client: ClientView,
    /// The number of the client's reply.
    pub(super) sequence: u64,
    command: CommandId,
    kind: Kind,
    /// The number of keys, up to each command's last.
    ends: Vec<usize>,
    /// Who has a part, and as a set of [`order::bit`]s.
    pub(super) owners: Vec<ShardId>,
    mask: u128,
    missing: usize,
    /// Sum of the parts' integers.
    sum: i64,
    /// An error that a part ended with.
    pub(super) error: Option<Vec<u8>>,
    /// Values: where the keys are.
    pub(super) places: Vec<KeyPlace>,
    /// Values: the parts' replies end to end, and where each begins. Where the last to come begins there may be nothing:
    /// it is read where it came in.
    pub(super) bytes: Vec<u8>,
    pub(super) parts: Vec<(ShardId, usize)>,
    /// `MSETNX`: what is to be written.
    pairs: Option<OwnedArgs>,
    /// `MIGRATE`: what is to be taken where.
    pub(super) errand: Option<Box<super::migrate::Errand>>,
    /// It is being written.
    commits: bool,
}

/// The split commands of one coordinator, by slot.
#[derive(Debug, Default)]
pub(crate) struct Splits {
    pub(super) slots: Vec<SplitTx>,
    pub(super) free: Vec<u32>,
    /// The last one, if others may join it, and [`Outbox::turns`](crate::message::Outbox::turns) as it was sent.
    last: Option<(u32, u64)>,
}

impl Splits {
    /// Whether none is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.len() == self.free.len()
    }

    fn open(&mut self, client: ClientView, sequence: u64, command: CommandId, kind: Kind) -> u32 {
        if let Some(slot) = self.free.pop() {
            let split = &mut self.slots[slot as usize];
            split.ends.clear();
            split.owners.clear();
            split.places.clear();
            split.bytes.clear();
            split.bytes.shrink_to(SPARE_BUFFER_BYTES);
            split.parts.clear();
            (split.client, split.sequence, split.command, split.kind) = (client, sequence, command, kind);
            (split.mask, split.missing, split.sum, split.error, split.pairs) = (0, 0, 0, None, None);
            (split.errand, split.commits) = (None, false);
            return slot;
        }
        self.slots.push(SplitTx {
            client,
            sequence,
            command,
            kind,
            ends: Vec::new(),
            owners: Vec::new(),
            mask: 0,
            missing: 0,
            sum: 0,
            error: None,
            places: Vec::new(),
            bytes: Vec::new(),
            parts: Vec::new(),
            pairs: None,
            errand: None,
            commits: false,
        });
        self.slots.len() as u32 - 1
    }
}

impl Shard {
    /// Sends the parts of a command whose keys lie on several shards.
    pub(crate) fn start_split(
        &mut self,
        index: u32,
        id: CommandId,
        args: Args<'_>,
        kind: Kind,
        prepare: impl FnOnce(&mut SplitTx),
    ) -> Next {
        let (own, shards) = (self.core.id, self.core.shards);
        let write = self.core.table.row(id).has(flag::WRITE);
        let places = args.places();
        debug_assert_eq!(places.len(), (args.len() - 1).div_ceil(kind.step()));
        if let Some(next) = self.join_split(index, id, args, kind) {
            return next;
        }
        let mask = order::bits(places.iter().map(|place| place.owner()), shards);
        let strict = self.core.config.pipeline_order == crate::config::PipelineOrder::Strict;
        let awaited = self.client(index).order.as_ref().map_or(0, |order| order.owners());
        let passes = write && (awaited & !mask != 0 || shards > order::BITS);
        let looks_first = matches!(kind, Kind::IfNone | Kind::Migrate);
        if awaited != 0 && (strict || looks_first || passes) {
            self.wait_for(index, Wait::Replies);
            return Next::Again;
        }
        if let Some(text) = self.out_of_memory(id, args) {
            return self.reject(index, id, text);
        }
        let mut view = self.view(index);
        // MSETNX only writes, though its parts look first.
        view.notes_reads &= !write;
        let client = self.client(index);
        client.commands += 1;
        client.last_command = id;
        let sequence = client.await_reply(mask);
        let joinable = client.awaits_last(sequence) && matches!(kind, Kind::Values | Kind::Done);
        let slot = self.splits.open(view, sequence, id, kind);
        self.splits.last = joinable.then(|| (slot, self.outbox.turns()));
        let split = &mut self.splits.slots[slot as usize];
        split.add_keys(places, mask);
        prepare(split);
        let (command, tag, with_values) = match kind {
            Kind::IfNone => (table().find(b"exists"), SPLIT | ALONE, false),
            _ => (id, SPLIT, kind == Kind::Done),
        };
        if kind == Kind::IfNone {
            split.pairs = Some(args.to_owned());
        }
        let span = (write && !looks_first && self.core.effects.on && split.owners.len() > 1).then(|| {
            let number = self.core.shared.aof.next_number();
            SpanWord { number, participants: split.owners.as_slice().into() }.to_bytes()
        });
        if span.is_some() {
            // The word that stands last names all who have a part.
            self.splits.last = None;
        }
        let tag = if span.is_some() { tag | SPANS } else { tag };
        split.owners.iter().for_each(|owner| self.outbox.parcel(*owner).requests.begin_part(args.at(0)));
        self.outbox.push_keys(args, kind.step(), with_values);
        for owner in &split.owners {
            let batch = &mut self.outbox.parcel(*owner).requests;
            span.iter().for_each(|word| batch.push_arg(word));
            batch.end_part(view, tag | u64::from(slot), command);
        }
        if split.owners.contains(&own) {
            self.client(index).joins_queue();
        }
        self.outbox.set_ordered();
        self.core.stats.splits += 1;
        if kind != Kind::Migrate {
            self.core.stats.commands[id as usize].calls += 1;
            self.core.stats.commands_processed += 1;
        }
        if looks_first {
            self.wait_for(index, Wait::Replies);
            return Next::Wait;
        }
        Next::Done
    }

    /// Adds a command to the split before it in its pipeline, if it may join that.
    #[inline(never)]
    fn join_split(&mut self, index: u32, id: CommandId, args: Args<'_>, kind: Kind) -> Option<Next> {
        let (slot, mask) = self.may_join(index, id, args, kind)?;
        if let Some(text) = self.out_of_memory(id, args) {
            return Some(self.reject(index, id, text));
        }
        let client = self.clients[index as usize].as_deref_mut().expect("it sent the command");
        client.commands += 1;
        client.last_command = id;
        client.await_more(mask);
        let split = &mut self.splits.slots[slot as usize];
        let begun = split.owners.len();
        split.add_keys(args.places(), mask);
        let (earlier, new) = split.owners.split_at(begun);
        new.iter().for_each(|owner| self.outbox.parcel(*owner).requests.begin_part(args.at(0)));
        self.outbox.push_keys(args, kind.step(), kind == Kind::Done);
        for owner in earlier.iter().filter(|owner| order::has(mask, **owner)) {
            self.outbox.begun_parcel(*owner).requests.grow_part();
        }
        for owner in new {
            self.outbox.begun_parcel(*owner).requests.end_part(split.client, SPLIT | u64::from(slot), id);
            if *owner == self.core.id {
                client.joins_queue();
            }
        }
        self.core.stats.splits += 1;
        self.core.stats.commands[id as usize].calls += 1;
        self.core.stats.commands_processed += 1;
        Some(Next::Done)
    }

    /// The split that a command may join, and the owners of its keys: the one before it in its pipeline, if that is the
    /// same command, nothing came between, and its parts are still here. They run as one, at one instant, and are answered
    /// together.
    #[inline(always)]
    fn may_join(&self, index: u32, id: CommandId, args: Args<'_>, kind: Kind) -> Option<(u32, u128)> {
        let (slot, turn) = self.splits.last?;
        let joins = match kind {
            Kind::Values => true,
            Kind::Done => !self.core.effects.on,
            Kind::Sum | Kind::IfNone | Kind::Migrate => false,
        };
        let (split, places) = (&self.splits.slots[slot as usize], args.places());
        if !joins || turn != self.outbox.turns() || split.command != id {
            return None;
        }
        let client = self.clients[index as usize].as_deref().expect("it sent the command");
        let mut view = client.view(self.core.id);
        view.notes_reads &= kind == Kind::Values;
        let fits = split.keys() + places.len() <= JOINED_KEYS;
        if !fits || !client.awaits_last(split.sequence) || split.client != view {
            return None;
        }
        let mask = order::bits(places.iter().map(|place| place.owner()), self.core.shards);
        // Those past the last bit of their own share it.
        let shared = mask & split.mask & order::bit(order::BITS as ShardId);
        let sequence = SPLIT | u64::from(slot);
        for owner in &split.owners {
            if !self.outbox.ends_with_part(*owner, sequence) && order::has(mask, *owner) {
                return None;
            }
        }
        (shared == 0).then_some((slot, mask))
    }

    /// Takes the word of [`SPANS`] off a part's arguments, and begins what the log will tell of it.
    #[inline]
    pub(crate) fn open_span<'a>(&mut self, args: Args<'a>, spans: bool) -> (Args<'a>, Option<SpanWord>) {
        match spans {
            true => self.open_span_told(args),
            false => (args, None),
        }
    }

    fn open_span_told<'a>(&mut self, args: Args<'a>) -> (Args<'a>, Option<SpanWord>) {
        let span = SpanWord::from_bytes(args.at(args.len() - 1));
        // The log may have been turned off, or on, since the parts were sent.
        let slice = self.slices[self.core.id as usize].as_deref_mut();
        let span = slice.filter(|slice| slice.log.on || slice.stream.on).map(|slice| {
            slice.log.stamp(&self.core);
            slice.log.open_group();
            if slice.stream.on {
                slice.stream.open_part();
            }
            span
        });
        (args.only(args.len() - 1), span)
    }

    /// Ends what [`Shard::open_span`] began, even where the part did nothing: the logs of all owners must tell of it.
    #[inline]
    pub(crate) fn close_span(&mut self, span: Option<SpanWord>) {
        if let Some(span) = span {
            self.close_span_told(span);
        }
    }

    fn close_span_told(&mut self, SpanWord { number, participants }: SpanWord) {
        let slice = self.slices[self.core.id as usize].as_deref_mut().expect("the part ran on it");
        if slice.stream.on {
            slice.stream.close_part(number, participants.len());
        }
        match self.core.leaves_out(Fault::NoMarks) || !slice.log.on {
            true => slice.log.close_group(),
            false => slice.log.close_spanning_group(number, &participants),
        }
    }

    /// A part's reply.
    pub(crate) fn take_part(&mut self, from: ShardId, slot: u32, reply: &[u8]) {
        let split = &mut self.splits.slots[slot as usize];
        let start = split.bytes.len();
        if split.missing > 1 || split.kind != Kind::Values {
            split.bytes.extend_from_slice(reply);
        }
        self.part_done(from, slot, start, reply);
    }

    /// Runs this shard's own part; its reply needs no carrying.
    pub(crate) fn run_own_part(
        &mut self,
        client: ClientView,
        slot: u32,
        id: CommandId,
        args: Args<'_>,
        span: Option<SpanWord>,
    ) {
        let own = self.core.id;
        let out = &mut self.splits.slots[slot as usize].bytes;
        let start = out.len();
        let keys = crate::db::Keyspace::one(&mut self.slices, own);
        super::dispatch::execute(&mut self.core, keys, client, id, args, out);
        self.close_span(span);
        self.part_done(own, slot, start, &[]);
    }

    /// A part's reply stands at `start` of the bytes, or is the `last`, which is not among them.
    fn part_done(&mut self, from: ShardId, slot: u32, start: usize, last: &[u8]) {
        let split = &mut self.splits.slots[slot as usize];
        let reply = part_at(&split.bytes, start, last);
        if reply.first() == Some(&b'-') {
            split.error = Some(reply.to_vec());
        }
        match split.kind {
            Kind::Values | Kind::Migrate => split.parts.push((from, start)),
            Kind::Sum | Kind::IfNone => split.sum += integer(reply),
            Kind::Done => {}
        }
        split.missing -= 1;
        if self.core.leaves_out(Fault::EarlyRelease) && !split.commits {
            match from == self.core.id {
                true => self.release_keys(from, slot),
                false => self.outbox.parcel(from).releases.push(slot),
            }
        }
        if self.splits.slots[slot as usize].missing == 0 {
            let split = &self.splits.slots[slot as usize];
            match split.kind {
                Kind::Migrate if split.commits => self.end_commit(slot),
                Kind::Migrate => self.send_migration(slot),
                _ => self.finish_split(slot, last),
            }
        }
    }

    fn finish_split(&mut self, slot: u32, last: &[u8]) {
        let split = &mut self.splits.slots[slot as usize];
        let (view, sequence) = (split.client, split.sequence);
        let writes = split.pairs.take().filter(|_| split.sum == 0 && split.error.is_none());
        let owners = std::mem::take(&mut split.owners);
        if let Some(pairs) = &writes
            && self.core.effects.on
            && owners.len() > 1
            && !self.core.leaves_out(Fault::EarlyRelease)
        {
            // It is told of, by all owners together: they hold the keys until all have written.
            (split.commits, split.missing) = (true, owners.len());
            let number = self.core.shared.aof.next_number();
            let span = SpanWord { number, participants: owners.as_slice().into() }.to_bytes();
            for owner in &owners {
                self.commit_pairs(*owner, slot, view, pairs, Some(&span));
            }
            self.splits.slots[slot as usize].owners = owners;
            return;
        }
        let written = writes.is_some() || split.commits;
        let mut splits = std::mem::take(&mut self.splits.slots);
        self.fulfil_with(view.index, view.id, sequence, |out| splits[slot as usize].write_reply(out, written, last));
        self.splits.slots = splits;
        if self.core.leaves_out(Fault::EarlyRelease) {
            self.splits.slots[slot as usize].owners = owners;
            return self.splits.free.push(slot);
        }
        // Slots are given away again only after this: a release is sent before any part that uses the slot anew.
        for owner in &owners {
            match &writes {
                Some(pairs) => self.commit_pairs(*owner, slot, view, pairs, None),
                None => self.release_at(*owner, slot),
            }
        }
        self.splits.slots[slot as usize].owners = owners;
        self.splits.free.push(slot);
    }

    /// What several owners had to write together is written: they let go of the keys.
    pub(super) fn end_commit(&mut self, slot: u32) {
        let owners = std::mem::take(&mut self.splits.slots[slot as usize].owners);
        owners.iter().for_each(|owner| self.release_at(*owner, slot));
        self.splits.slots[slot as usize].owners = owners;
        self.splits.free.push(slot);
    }

    /// Has part of a split command's owners write together: they say when they have.
    pub(super) fn begin_commit(&mut self, slot: u32, owners: &[ShardId]) {
        let split = &mut self.splits.slots[slot as usize];
        (split.commits, split.missing) = (true, owners.len());
        split.owners = owners.to_vec();
    }

    /// `MSETNX` found no key: an owner writes its pairs and lets go of the keys.
    fn commit_pairs(&mut self, owner: ShardId, slot: u32, client: ClientView, pairs: &OwnedArgs, span: Option<&[u8]>) {
        let args = pairs.args();
        let mut mine = OwnedArgs::from_words(&["mset"]);
        for at in (1..args.len()).step_by(2).filter(|at| owner_of(args.at(*at), self.core.shards) == owner) {
            mine.push(args.at(at));
            mine.push(args.at(at + 1));
        }
        self.commit_at(owner, slot, client, mine, span);
    }

    /// Has an owner run a write on the keys that it holds for this shard, and let go of them.
    pub(super) fn commit_at(
        &mut self,
        owner: ShardId,
        slot: u32,
        client: ClientView,
        mut write: OwnedArgs,
        span: Option<&[u8]>,
    ) {
        span.iter().for_each(|word| write.push(word));
        let spans = span.is_some();
        match owner == self.core.id {
            true => self.commit_here(owner, slot, client, write.args(), spans),
            false => self.outbox.note(owner, Note::Commit { slot, client, write, spans }),
        }
    }

    /// Lets go of the keys that an owner holds for this shard.
    pub(super) fn release_at(&mut self, owner: ShardId, slot: u32) {
        match owner == self.core.id {
            true => self.release_keys(owner, slot),
            false => self.outbox.parcel(owner).releases.push(slot),
        }
    }

    /// Runs a write on keys that `coordinator` holds here, and lets go of them; or says that it has run, if others must
    /// know of it first.
    pub(crate) fn commit_here(
        &mut self,
        coordinator: ShardId,
        slot: u32,
        client: ClientView,
        write: Args<'_>,
        spans: bool,
    ) {
        let id = table().find(write.at(0));
        let mut out = Vec::new();
        let (write, span) = self.open_span(write, spans);
        let keys = crate::db::Keyspace::one(&mut self.slices, self.core.id);
        super::dispatch::execute(&mut self.core, keys, client, id, write, &mut out);
        self.close_span(span);
        self.serve_ready();
        if !spans {
            return self.release_keys(coordinator, slot);
        }
        if coordinator == self.core.id {
            let start = self.splits.slots[slot as usize].bytes.len();
            return self.part_done(coordinator, slot, start, &[]);
        }
        let replies = &mut self.outbox.parcel(coordinator).replies;
        let sequence = SPLIT | u64::from(slot);
        replies.heads.push(ReplyHead { index: client.index, id: client.id, sequence, len: 0 });
    }
}

impl SplitTx {
    /// How many keys it has.
    #[inline]
    fn keys(&self) -> usize {
        self.ends.last().map_or(0, |end| *end)
    }

    /// Adds a command's keys, whose owners are these.
    #[inline]
    fn add_keys(&mut self, places: &[KeyPlace], mask: u128) {
        if mask & (!self.mask | order::bit(order::BITS as ShardId)) != 0 {
            self.note_owners(places, mask);
        }
        self.ends.push(self.keys() + places.len());
        if matches!(self.kind, Kind::Values | Kind::Migrate) {
            self.places.extend_from_slice(places);
        }
    }

    /// Notes who has a part, each once.
    fn note_owners(&mut self, places: &[KeyPlace], mask: u128) {
        let begun = self.owners.len();
        // Those past the last bit of their own share it.
        let shared = order::bit(order::BITS as ShardId);
        let mut rest = mask & !shared & !self.mask;
        self.mask |= mask;
        while rest != 0 {
            self.owners.push(rest.trailing_zeros() as ShardId);
            rest &= rest - 1;
        }
        if mask & shared != 0 {
            let others = places.iter().map(|place| place.owner()).filter(|owner| order::bit(*owner) == shared);
            for owner in others {
                if !self.owners.contains(&owner) {
                    self.owners.push(owner);
                }
            }
        }
        self.missing += self.owners.len() - begun;
    }

    fn write_reply(&mut self, out: &mut Vec<u8>, written: bool, last: &[u8]) {
        if let Some(error) = self.error.take() {
            self.ends.iter().for_each(|_| out.extend_from_slice(&error));
            return;
        }
        let mut reply = Reply::new(out, self.client.resp);
        match self.kind {
            Kind::Done => self.ends.iter().for_each(|_| reply.ok()),
            Kind::Sum => reply.integer(self.sum),
            Kind::IfNone => reply.integer(written as i64),
            Kind::Migrate => unreachable!("its reply is the driver's word"),
            Kind::Values => self.write_values(out, last),
        }
    }

    fn write_values(&self, out: &mut Vec<u8>, last: &[u8]) {
        let (mut few, mut many) = ([&[][..]; FEW_SHARDS], Vec::new());
        let shards = self.parts.iter().map(|(owner, _)| *owner as usize + 1).max().unwrap_or(0);
        // By shard, what is left of its part.
        let rests = match shards <= FEW_SHARDS {
            true => &mut few[..],
            false => {
                many.resize(shards, &[][..]);
                &mut many[..]
            }
        };
        for (owner, start) in &self.parts {
            let part = part_at(&self.bytes, *start, last);
            // Behind its own count.
            rests[*owner as usize] = &part[line(part).0..];
        }
        out.reserve(self.bytes.len() + last.len() + SHORT_REPLY);
        let mut begin = 0;
        for end in &self.ends {
            Reply::new(out, self.client.resp).array(end - begin);
            move_values(out, &self.places[begin..*end], rests);
            begin = *end;
        }
    }
}

/// The reply that begins at `start` of the parts' bytes, or the `last` one where nothing does.
#[inline]
fn part_at<'a>(bytes: &'a [u8], start: usize, last: &'a [u8]) -> &'a [u8] {
    match &bytes[start..] {
        [] => last,
        part => part,
    }
}

/// Adds the reply for each of these keys, the next of its owner's.
// A function of its own, so that all it works with stays in registers.
#[inline(never)]
fn move_values(out: &mut Vec<u8>, places: &[KeyPlace], rests: &mut [&[u8]]) {
    for place in places {
        // No search: whose the next key is no processor can foresee.
        let rest = &mut rests[place.owner() as usize];
        if let Some(short) = rest.first_chunk()
            && let Some(len) = short_len(short)
        {
            let start = out.len();
            out.extend_from_slice(short);
            out.truncate(start + len);
            *rest = &rest[len..];
        } else {
            let (reply, behind) = rest.split_at(reply_len(rest));
            out.extend_from_slice(reply);
            *rest = behind;
        }
    }
}

/// Bytes of a value's reply, if it is a short one.
#[inline]
fn short_len(reply: &[u8; SHORT_REPLY]) -> Option<usize> {
    // Numbers instead of bytes: else the compiler reads these one by one.
    const fn of(bytes: [u8; 4]) -> u32 {
        u32::from_le_bytes(bytes)
    }
    let head = of(*reply.first_chunk().expect("it is longer"));
    // A byte of these is 0 where it is as here, and a digit's value where that is a 0.
    let (two_digits, one_digit) = (head ^ of(*b"$00\r"), head ^ of(*b"$0\r\n"));
    if two_digits & of([0xff, 0xf0, 0xf0, 0xff]) == 0 {
        let len = (two_digits >> 8 & 0xf) * 10 + (two_digits >> 16) + 7;
        return (len as usize <= SHORT_REPLY).then_some(len as usize);
    }
    match () {
        _ if one_digit & of([0xff, 0xf0, 0xff, 0xff]) == 0 => Some((one_digit >> 8) as usize + 6),
        _ if head == of(*b"$-1\r") => Some(5),
        _ if head & of([0xff, 0xff, 0xff, 0]) == of(*b"_\r\n\0") => Some(3),
        _ => None,
    }
}

/// Of a reply's first line, which is short: where it ends, its end included, and the number behind its type, if that is
/// not negative.
#[inline]
fn line(bytes: &[u8]) -> (usize, Option<usize>) {
    let (mut at, mut number) = (1, 0);
    while let digit @ b'0'..=b'9' = bytes[at] {
        number = number * 10 + (digit - b'0') as usize;
        at += 1;
    }
    match bytes[at] {
        b'\r' => (at + 2, Some(number)),
        _ => (memchr::memchr(b'\n', bytes).expect("a reply's line ends") + 1, None),
    }
}

/// Bytes of a value's reply.
fn reply_len(bytes: &[u8]) -> usize {
    match line(bytes) {
        (head, Some(value)) if bytes[0] == b'$' => head + value + 2,
        (head, _) => head,
    }
}

fn integer(reply: &[u8]) -> i64 {
    match reply {
        [b':', digits @ .., b'\r', b'\n'] => crate::number::parse_i64(digits).unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use crate::core::Rng;
    use crate::router::owner_of;
    use crate::testing::{Conn, World, request};

    /// Keys of shard 0 and shard 1 by turns.
    fn keys(world: &World, count: usize) -> Vec<String> {
        let shards = world.shards.len();
        let of = |shard: usize| {
            (0..).map(|n| format!("k{n}")).filter(move |key| owner_of(key.as_bytes(), shards) as usize == shard)
        };
        of(0).zip(of(1)).flat_map(|(a, b)| [a, b]).take(count).collect()
    }

    fn parts(world: &mut World, to: u16) -> Vec<u32> {
        world.shards[0].outbox.parcel(to).requests.heads.iter().map(|head| head.places).collect()
    }

    fn pipeline(world: &mut World, conn: Conn, commands: &[&[&str]]) {
        let bytes: Vec<u8> = commands.iter().flat_map(|words| request(words)).collect();
        world.send_only(conn, &bytes);
    }

    #[test]
    fn commands_that_follow_one_another_go_as_one() {
        let mut world = World::new(2);
        let conn = world.connect_to(0);
        let keys = keys(&world, 4);
        let [a, b, c, d] = [0, 1, 2, 3].map(|n| keys[n].as_str());
        pipeline(&mut world, conn, &[&["MSET", a, "1", b, "2"], &["MSET", c, "3", d, "4", a, "5"]]);
        assert_eq!((parts(&mut world, 0), parts(&mut world, 1)), (vec![3], vec![2]));
        world.settle();
        assert_eq!(world.received(conn), b"+OK\r\n+OK\r\n");
        // A key of another type reads as none; a large value is copied whole.
        world.call(conn, &["RPUSH", "list", "x"]);
        world.call(conn, &["SET", d, &"v".repeat(1000)]);
        let mgets: [&[&str]; 3] = [&["MGET", a, b], &["mget", d, "list", c, "none"], &["MGET", b, c, b]];
        pipeline(&mut world, conn, &mgets);
        assert_eq!((parts(&mut world, 0).len(), parts(&mut world, 1).len()), (1, 1));
        world.settle();
        let large = format!("$1000\r\n{}\r\n", "v".repeat(1000));
        let replies = [
            "*2\r\n$1\r\n5\r\n$1\r\n2\r\n*4\r\n",
            &large,
            "$-1\r\n$1\r\n3\r\n$-1\r\n*3\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n2\r\n",
        ];
        assert_eq!(String::from_utf8(world.received(conn)).unwrap(), replies.concat());
        // Not around what stands between, nor for another client, nor once they have left.
        pipeline(
            &mut world,
            conn,
            &[&["MGET", a, b], &["GET", d], &["MGET", a, b], &["EXISTS", a, b], &["MGET", a, b]],
        );
        assert_eq!(parts(&mut world, 0), [1, 1, 1, 1]);
        let other = world.connect_to(0);
        pipeline(&mut world, conn, &[&["MGET", a, b]]);
        pipeline(&mut world, other, &[&["MGET", a, b]]);
        assert_eq!(parts(&mut world, 0), [1, 1]);
        assert_eq!(world.shards[0].core.stats.splits, 11);
    }

    /// Keys and values on either side of every length that makes a difference to how they are copied, of few shards and of
    /// many.
    #[test]
    fn values_of_all_lengths_come_in_the_order_of_their_keys() {
        const KEYS: usize = 240;
        for (shards, resp, null) in [(1, "2", "$-1\r\n"), (2, "2", "$-1\r\n"), (2, "3", "_\r\n"), (20, "3", "_\r\n")] {
            let mut world = World::new(shards);
            let conn = world.connect_to(0);
            world.call(conn, &["HELLO", resp]);
            let keys: Vec<String> = (0..KEYS).map(|n| format!("{n}{}", "k".repeat(n % 80))).collect();
            let value = |n: usize| (n % 7 != 3).then(|| "$1\r\n".repeat(30)[..n % 113].repeat(1 + n % 50 / 49 * 20));
            let pairs = keys.iter().enumerate().filter_map(|(n, key)| Some(vec![key.clone(), value(n)?]));
            let pairs: Vec<Vec<String>> = pairs.collect();
            for pairs in pairs.chunks(30) {
                assert_eq!(world.call(conn, &[vec!["MSET".to_string()], pairs.concat()].concat()), b"+OK\r\n");
            }
            let mut expected = String::new();
            let mut bytes = Vec::new();
            for first in (0..KEYS).step_by(24) {
                // 7 and 240 have no divisor in common, so this meets all of them.
                let numbers: Vec<usize> = (first..first + 24).map(|n| n * 7 % KEYS).collect();
                let names = numbers.iter().map(|n| keys[*n].clone());
                bytes.extend(request(&std::iter::once("MGET".to_string()).chain(names).collect::<Vec<_>>()));
                expected.push_str("*24\r\n");
                for n in numbers {
                    let reply = value(n).map(|value| format!("${}\r\n{value}\r\n", value.len()));
                    expected.push_str(reply.as_deref().unwrap_or(null));
                }
            }
            world.send(conn, &bytes);
            assert_eq!(String::from_utf8(world.received(conn)).unwrap(), expected, "{shards} shards, RESP{resp}");
        }
    }

    /// A pipeline of one client alone gets the replies that one shard gives, however it is cut.
    #[test]
    fn pipelines_are_answered_as_by_one_shard() {
        let mut rng = Rng::new(7);
        for round in 0..60 {
            let mut worlds = [1, 2, 4].map(World::new);
            let conns = worlds.each_mut().map(|world| world.connect_to(0));
            let mut bytes = Vec::new();
            for n in 0..60 {
                let some =
                    |rng: &mut Rng| (0..1 + rng.below(5)).map(|_| format!("k{}", rng.below(12))).collect::<Vec<_>>();
                let value = format!("{n}").repeat(1 + rng.below(40) as usize);
                let words = match rng.below(16) {
                    0 => [vec!["EXISTS".into()], some(&mut rng)].concat(),
                    1 => vec!["SET".into(), some(&mut rng)[0].clone(), value],
                    2 => [vec!["DEL".into()], some(&mut rng)].concat(),
                    3 => vec!["RPUSH".into(), "k3".into(), value],
                    4..8 => {
                        let pairs = some(&mut rng).into_iter().flat_map(|key| [key, value.clone()]);
                        std::iter::once("MSET".to_string()).chain(pairs).collect()
                    }
                    _ => [vec!["MGET".into()], some(&mut rng)].concat(),
                };
                bytes.extend(request(&words));
            }
            let cut = rng.below(bytes.len() as u64) as usize;
            let replies: Vec<Vec<u8>> = worlds
                .iter_mut()
                .zip(conns)
                .map(|(world, conn)| {
                    world.send_only(conn, &bytes[..cut]);
                    world.send(conn, &bytes[cut..]);
                    world.received(conn)
                })
                .collect();
            assert!(replies.iter().all(|reply| *reply == replies[0]), "round {round}: {replies:?}");
        }
    }
}
