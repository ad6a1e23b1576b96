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
use crate::message::{ALONE, Note, ReplyHead, SPANS, SPLIT, SpanWord};
use crate::resp::Reply;
use crate::router::{ShardId, owner_of};

/// A split command under way.
#[derive(Debug)]
pub(crate) struct SplitTx {
    pub(super) client: ClientView,
    /// The number of the client's reply.
    pub(super) sequence: u64,
    kind: Kind,
    /// Who has a part.
    pub(super) owners: Vec<ShardId>,
    missing: usize,
    /// Sum of the parts' integers.
    sum: i64,
    /// An error that a part ended with.
    pub(super) error: Option<Vec<u8>>,
    /// Values: by key, its owner.
    pub(super) places: Vec<ShardId>,
    /// Values: the parts' replies end to end, and where each begins.
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
}

impl Splits {
    /// Whether none is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.len() == self.free.len()
    }

    fn open(&mut self, client: ClientView, sequence: u64, kind: Kind) -> u32 {
        if let Some(slot) = self.free.pop() {
            let split = &mut self.slots[slot as usize];
            split.owners.clear();
            split.places.clear();
            split.bytes.clear();
            split.parts.clear();
            (split.client, split.sequence, split.kind) = (client, sequence, kind);
            (split.missing, split.sum, split.error, split.pairs) = (0, 0, None, None);
            (split.errand, split.commits) = (None, false);
            return slot;
        }
        self.slots.push(SplitTx {
            client,
            sequence,
            kind,
            owners: Vec::new(),
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
        let mask = places.iter().fold(0, |mask, place| mask | order::bit(place.owner));
        let strict = self.core.config.pipeline_order == crate::config::PipelineOrder::Strict;
        let awaited = self.client(index).order.as_ref().map_or(0, |order| order.owners());
        let passes = write && (awaited & !mask != 0 || shards > order::BITS);
        let looks_first = matches!(kind, Kind::IfNone | Kind::Migrate);
        let waits = awaited != 0 && (strict || looks_first || passes);
        if waits {
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
        let slot = self.splits.open(view, sequence, kind);
        let split = &mut self.splits.slots[slot as usize];
        split.note_owners(places, mask);
        split.missing = split.owners.len();
        prepare(split);
        if matches!(kind, Kind::Values | Kind::Migrate) {
            split.places.extend(places.iter().map(|place| place.owner));
        }
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
        let tag = if span.is_some() { tag | SPANS } else { tag };
        for owner in &split.owners {
            self.outbox.parcel(*owner).requests.begin_part(args.at(0));
        }
        for (n, place) in places.iter().enumerate() {
            let at = 1 + n * kind.step();
            let batch = &mut self.outbox.begun_parcel(place.owner).requests;
            batch.push_key(args.at(at), *place);
            if with_values {
                batch.push_arg(args.at(at + 1));
            }
        }
        for owner in &split.owners {
            let batch = &mut self.outbox.begun_parcel(*owner).requests;
            span.iter().for_each(|word| batch.push_arg(word));
            batch.end_part(view, tag | u64::from(slot), command);
        }
        if split.owners.contains(&own) {
            let client = self.clients[index as usize].as_deref_mut().expect("it sent the command");
            client.joins_queue();
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
        split.bytes.extend_from_slice(reply);
        self.part_done(from, slot, start);
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
        self.part_done(own, slot, start);
    }

    /// A part's reply stands at `start` of the bytes.
    fn part_done(&mut self, from: ShardId, slot: u32, start: usize) {
        let split = &mut self.splits.slots[slot as usize];
        let reply = &split.bytes[start..];
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
                _ => self.finish_split(slot),
            }
        }
    }

    fn finish_split(&mut self, slot: u32) {
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
        self.fulfil_with(view.index, view.id, sequence, |out| splits[slot as usize].write_reply(out, written));
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
            return self.part_done(coordinator, slot, start);
        }
        let replies = &mut self.outbox.parcel(coordinator).replies;
        let sequence = SPLIT | u64::from(slot);
        replies.heads.push(ReplyHead { index: client.index, id: client.id, sequence, len: 0 });
    }
}

impl SplitTx {
    /// Notes who has a part, each once.
    fn note_owners(&mut self, places: &[KeyPlace], mask: u128) {
        // Those past the last bit of their own share it.
        let shared = order::bit(order::BITS as ShardId);
        let mut rest = mask & !shared;
        while rest != 0 {
            self.owners.push(rest.trailing_zeros() as ShardId);
            rest &= rest - 1;
        }
        if mask & shared != 0 {
            let others = places.iter().map(|place| place.owner).filter(|owner| order::bit(*owner) == shared);
            for owner in others {
                if !self.owners.contains(&owner) {
                    self.owners.push(owner);
                }
            }
        }
    }

    fn write_reply(&mut self, out: &mut Vec<u8>, written: bool) {
        if let Some(error) = self.error.take() {
            out.extend_from_slice(&error);
            return;
        }
        let mut reply = Reply::new(out, self.client.resp);
        match self.kind {
            Kind::Done => reply.ok(),
            Kind::Sum => reply.integer(self.sum),
            Kind::IfNone => reply.integer(written as i64),
            Kind::Migrate => unreachable!("its reply is the driver's word"),
            Kind::Values => {
                reply.array(self.places.len());
                // Behind each part's own count.
                for (_, at) in &mut self.parts {
                    *at += line(&self.bytes[*at..]).0;
                }
                out.reserve(self.bytes.len());
                for place in &self.places {
                    let part = self.parts.iter_mut().find(|(owner, _)| owner == place).expect("each has answered");
                    let bytes = &self.bytes[part.1..];
                    let (head, number) = line(bytes);
                    let len = match number {
                        Some(value) if bytes[0] == b'$' => head + value + 2,
                        _ => head,
                    };
                    out.extend_from_slice(&bytes[..len]);
                    part.1 += len;
                }
            }
        }
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

fn integer(reply: &[u8]) -> i64 {
    match reply {
        [b':', digits @ .., b'\r', b'\n'] => crate::number::parse_i64(digits).unwrap_or(0),
        _ => 0,
    }
}
