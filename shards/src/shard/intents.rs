//! Key intents, the owner's side: keys that a split command has touched here and holds until it is done everywhere.
//!
//! A command that splits (`MGET`, `MSET`, `DEL` …) sends each owner its part. An owner runs the part when it comes and
//! holds its keys: shared for a read, alone for a write. A plain request that conflicts with a hold waits, all else goes
//! on. When every owner has answered, the coordinator lets go of the keys (`split.rs`). So no plain request sees a part
//! of an `MSET` before all of it is done, or writes between the parts of an `MGET`.
//!
//! Parts and requests for slices are *ordered*: they come by a multicast that every owner sees in the same order, and
//! here they keep that order among themselves while they wait. Hence no deadlock: each waits only for earlier ones.
//! Requests of one client keep their order too. When nothing is held and nothing waits, all this costs one branch
//! ([`Shard::open`]).
//!
//! **Parts do not wait for parts.** Their order is the same everywhere, so one may run on keys that an earlier one holds:
//! each owner does the same. Two things see to it that nobody finds the later command done and the earlier one not. A
//! part that has not run stands in its owner's mailbox before whatever is sent, or read from a socket, after the later
//! command was answered, see [`crate::transaction`]. And where it waits, whatever needs one of its keys, plain or not,
//! waits behind it; behind a transaction that waits for the slice everything does, for a part that waits behind that
//! elsewhere may have been passed too. Two kinds of holds are *firm* and parts do wait for them: those of `MSETNX` and `MIGRATE`, which
//! write or not as they are let go. And where there is a log or a replica, parts wait for all holds: what has seen a write
//! that not all owners have written down might be told of and the write be lost, and the stream of a replica lets later
//! effects pass those of a command that not all owners have told of.
//!
//! So parts rarely ask what is held. What a part holds is only listed, and counted key by key when the first request comes
//! that it could hold up; where none comes, it is dropped as a list.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::hops::{OwnedRequest, RequestView};
use super::{Shard, Waiting};
use crate::args::KeyPlace;
use crate::commands::spec::Split;
use crate::commands::{Route, flag};
use crate::core::{Core, Fault};
use crate::dict::HASH_BITS;
use crate::limits::KEPT_ARGUMENTS;
use crate::message::{ALONE, SPLIT};
use crate::router::ShardId;

/// Key hashes are as good as random, so a table of them needs no further hash.
#[derive(Default)]
pub(crate) struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

/// The keys that one part holds; a place that stays, with its memory, when they are let go.
#[derive(Debug, Default)]
struct Hold {
    kind: HoldKind,
    write: bool,
    keys: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum HoldKind {
    /// Nothing is held.
    #[default]
    None,
    /// The keys are listed here alone.
    Listed,
    /// They are counted in [`Intents::held`].
    Counted,
    /// There, and in [`Intents::firm`].
    Firm,
}

/// Whether a request is a part that is done as it runs: its hold is not firm, and it waits for firm ones alone.
#[inline]
fn is_light(core: &Core, request: &RequestView<'_>) -> bool {
    let kind = core.table.row(request.command).split;
    let light = matches!(kind, Some(Split::Values | Split::Sum | Split::Done));
    light && request.sequence & (SPLIT | ALONE) == SPLIT
}

/// What a request needs of this shard's slice.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// Its keys, each as [`name_of`] it.
    keys: Vec<u64>,
    /// All keys, whichever there are.
    all: bool,
    /// Whether it may change them.
    write: bool,
    light: bool,
}

/// All keys of this shard that are held, and what waits for them.
#[derive(Debug, Default)]
pub(crate) struct Intents {
    /// By key: its hash, mixed with its database. Two keys with one hash wait for each other without need.
    held: Keys,
    /// Those that are held firmly.
    firm: Keys,
    /// The holds by coordinator and slot.
    holds: Vec<Vec<Hold>>,
    count: usize,
    /// How many holds are [`HoldKind::Listed`], how many of them for writing, and where these are, others among them.
    uncounted: usize,
    uncounted_writes: usize,
    listed: Vec<(ShardId, u32)>,
    spare: Vec<Vec<u64>>,
    /// Keys of requests that wait. A part must not pass one: behind the request may stand an earlier part of the same
    /// client, which would then wait for the later one. Nor may a plain request: what waits may be a part that later
    /// ones, at other owners, did not wait for.
    wanted: Keys,
    /// Keys of the requests that the pass through what waits has found to wait on; empty between passes.
    passed: Keys,
    /// How many requests of each client wait.
    clients: HashMap<u64, u32, BuildHasherDefault<AsIs>>,
    /// How many transactions wait for the slice.
    acquires: usize,
}

/// How often each key is held, or wanted: a table of names with open addressing.
///
/// A name is a hash, so its low bits choose the place. One that nobody holds is taken out, and those behind it move up;
/// so a look takes few steps however many have come and gone.
#[derive(Debug, Default)]
struct Keys {
    slots: Vec<Slot>,
    /// How many are counted.
    len: usize,
    /// How many need all keys.
    all: usize,
}

/// A key, and how often it is counted; both counts are 0 where there is none.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    name: u64,
    readers: u32,
    writers: u32,
}

impl Slot {
    fn is_free(&self) -> bool {
        self.readers == 0 && self.writers == 0
    }

    fn count(&mut self, write: bool) -> &mut u32 {
        if write { &mut self.writers } else { &mut self.readers }
    }
}

/// Room for so many keys is kept in a list that may be used again.
const KEPT_KEYS: usize = 64;

impl Keys {
    const FEWEST_SLOTS: usize = 64;

    fn add_all(&mut self, needs: &Needs) {
        needs.keys.iter().for_each(|key| self.add(*key, needs.write));
        self.all += needs.all as usize;
    }

    fn remove_all(&mut self, needs: &Needs) {
        needs.keys.iter().for_each(|key| self.remove(*key, needs.write));
        self.all -= needs.all as usize;
    }

    fn is_empty(&self) -> bool {
        self.len == 0 && self.all == 0
    }

    /// Forgets all, and keeps the table.
    fn clear(&mut self) {
        if self.len > 0 {
            self.slots.fill(Slot::default());
        }
        (self.len, self.all) = (0, 0);
    }

    /// Where `key` is, or where it would be.
    #[inline]
    fn slot_of(&self, key: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = key as usize & mask;
        while !self.slots[at].is_free() && self.slots[at].name != key {
            at = (at + 1) & mask;
        }
        at
    }

    #[inline]
    fn add(&mut self, key: u64, write: bool) {
        if self.len * 2 >= self.slots.len() {
            self.grow();
        }
        let at = self.slot_of(key);
        let slot = &mut self.slots[at];
        self.len += slot.is_free() as usize;
        slot.name = key;
        *slot.count(write) += 1;
    }

    #[cold]
    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(Self::FEWEST_SLOTS);
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); size]);
        for slot in old.into_iter().filter(|slot| !slot.is_free()) {
            let at = self.slot_of(slot.name);
            self.slots[at] = slot;
        }
    }

    #[inline]
    fn remove(&mut self, key: u64, write: bool) {
        let at = self.slot_of(key);
        let slot = &mut self.slots[at];
        let count = slot.count(write);
        *count = count.checked_sub(1).expect("what is taken off was counted");
        if slot.is_free() {
            self.len -= 1;
            self.close_gap(at);
        }
    }

    /// Moves up what stands behind a place that was left, and would not be found past it.
    #[inline]
    fn close_gap(&mut self, mut gap: usize) {
        let mask = self.slots.len() - 1;
        let mut at = (gap + 1) & mask;
        while !self.slots[at].is_free() {
            let first = self.slots[at].name as usize & mask;
            // How far it stands from its first place, and how far the gap is from it.
            if (at.wrapping_sub(first) & mask) >= (at.wrapping_sub(gap) & mask) {
                self.slots[gap] = std::mem::take(&mut self.slots[at]);
                gap = at;
            }
            at = (at + 1) & mask;
        }
        // The memory of a great command is given back.
        if self.len == 0 && self.slots.len() > 4 * KEPT_ARGUMENTS {
            self.slots = Vec::new();
        }
    }

    /// Whether one that needs `key` has to wait for those counted.
    #[inline]
    fn meets(&self, key: u64, write: bool) -> bool {
        let slot = self.slots[self.slot_of(key)];
        slot.writers > 0 || (write && slot.readers > 0)
    }

    fn conflicts(&self, needs: &Needs) -> bool {
        let meets = |key: &u64| self.len > 0 && self.meets(*key, needs.write);
        !self.is_empty() && (needs.all || self.all > 0 || needs.keys.iter().any(meets))
    }
}

/// A key's name among those held. Its low bits choose the place there, so they are of the hash too.
#[inline]
fn name_of(hash: u64, db: u16) -> u64 {
    hash >> HASH_BITS.trailing_zeros() ^ u64::from(db).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Adds the names of a request's keys.
#[inline]
fn names_of(core: &Core, request: &RequestView<'_>, names: &mut Vec<u64>) {
    let (db, args) = (request.client.db, request.args);
    if !args.places().is_empty() {
        return names.extend(args.places().iter().map(|place| name_of(place.hash(), db)));
    }
    let row = core.table.row(request.command);
    if row.route == Route::Keys {
        row.for_each_key(args, &mut |index| names.push(name_of(core.hasher.hash(args.at(index)), db)));
    }
}

/// Whether a request needs its keys alone.
#[inline]
fn writes(core: &Core, request: &RequestView<'_>) -> bool {
    let row = core.table.row(request.command);
    row.has(flag::WRITE) || row.has(flag::MAY_REPLICATE) || request.sequence & ALONE != 0
}

impl Intents {
    /// Whether no key is held.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether a request has to wait for keys that are held, or (`behind_wanted`) that what waits wants.
    #[inline]
    fn holds_up(&mut self, core: &Core, request: &RequestView<'_>, behind_wanted: bool) -> bool {
        let places = request.args.places();
        if places.is_empty() {
            let needs = self.needs(core, request);
            let waits = self.are_held(core, &needs) || (behind_wanted && self.wanted.conflicts(&needs));
            self.recycle(needs.keys);
            return waits;
        }
        let write = writes(core, request);
        let passes = is_light(core, request) && !core.effects.on;
        if !passes {
            self.count_for(core, write);
        }
        let meets = |keys: &Keys| {
            let name = |place: &KeyPlace| name_of(place.hash(), request.client.db);
            keys.all > 0 || (keys.len > 0 && places.iter().any(|place| keys.meets(name(place), write)))
        };
        meets(if passes { &self.firm } else { &self.held }) || (behind_wanted && meets(&self.wanted))
    }

    /// What a request needs.
    pub(crate) fn needs(&mut self, core: &Core, request: &RequestView<'_>) -> Needs {
        let row = core.table.row(request.command);
        let mut keys = self.spare.pop().unwrap_or_default();
        names_of(core, request, &mut keys);
        // A script may touch keys of this slice that it does not declare.
        let all = row.route != Route::Keys || row.has(flag::SCRIPT);
        Needs { keys, all, write: writes(core, request), light: is_light(core, request) }
    }

    /// Whether something holds what is needed.
    fn are_held(&mut self, core: &Core, needs: &Needs) -> bool {
        if needs.light && !core.effects.on {
            return self.firm.conflicts(needs);
        }
        self.count_for(core, needs.write || needs.all);
        self.held.conflicts(needs)
    }

    /// Counts the keys of all that is held, if something has come that it could hold up: for reading, only a write.
    #[inline]
    fn count_for(&mut self, core: &Core, write: bool) {
        if self.uncounted_writes > 0 || (write && self.uncounted > 0) {
            self.count_listed(core);
        }
    }

    #[cold]
    fn count_listed(&mut self, core: &Core) {
        for (coordinator, slot) in self.listed.drain(..) {
            let hold = &mut self.holds[coordinator as usize][slot as usize];
            if hold.kind != HoldKind::Listed || (core.leaves_out(Fault::UncountedReads) && !hold.write) {
                continue;
            }
            hold.kind = HoldKind::Counted;
            self.uncounted -= 1;
            self.uncounted_writes -= hold.write as usize;
            hold.keys.iter().for_each(|key| self.held.add(*key, hold.write));
        }
    }

    /// Notes where a hold is that is not counted.
    #[inline]
    fn list(&mut self, coordinator: ShardId, slot: u32) {
        const FEW: usize = 64;
        if self.listed.len() >= FEW + 2 * self.uncounted {
            let holds = &self.holds;
            self.listed.retain(|(from, slot)| holds[*from as usize][*slot as usize].kind == HoldKind::Listed);
            // A slot may have been given away anew, and listed again.
            self.listed.sort_unstable();
            self.listed.dedup();
        }
        self.listed.push((coordinator, slot));
        self.uncounted += 1;
    }

    /// Holds the keys of a part.
    fn hold(&mut self, core: &Core, coordinator: ShardId, slot: u32, request: &RequestView<'_>) {
        let from = coordinator as usize;
        if self.holds.len() <= from {
            self.holds.resize_with(from + 1, Vec::new);
        }
        let slots = &mut self.holds[from];
        if slots.len() <= slot as usize {
            slots.resize_with(slot as usize + 1, Hold::default);
        }
        let hold = &mut slots[slot as usize];
        debug_assert_eq!(hold.kind, HoldKind::None);
        names_of(core, request, &mut hold.keys);
        self.count += 1;
        hold.write = writes(core, request);
        if !is_light(core, request) {
            hold.kind = HoldKind::Firm;
            for key in &hold.keys {
                self.held.add(*key, hold.write);
                self.firm.add(*key, hold.write);
            }
        } else {
            hold.kind = HoldKind::Listed;
            self.uncounted_writes += hold.write as usize;
            self.list(coordinator, slot);
        }
    }

    /// Lets go of the keys of a part.
    fn release(&mut self, coordinator: ShardId, slot: u32) {
        let hold = &mut self.holds[coordinator as usize][slot as usize];
        self.count -= 1;
        match std::mem::take(&mut hold.kind) {
            HoldKind::None => unreachable!("what is released is held"),
            HoldKind::Listed => {
                self.uncounted -= 1;
                self.uncounted_writes -= hold.write as usize;
            }
            HoldKind::Counted => hold.keys.iter().for_each(|key| self.held.remove(*key, hold.write)),
            HoldKind::Firm => {
                for key in &hold.keys {
                    self.held.remove(*key, hold.write);
                    self.firm.remove(*key, hold.write);
                }
            }
        }
        hold.keys.clear();
        if hold.keys.capacity() > KEPT_KEYS {
            hold.keys = Vec::new();
        }
    }

    fn recycle(&mut self, mut keys: Vec<u64>) {
        const SPARE_LISTS: usize = 256;
        if self.spare.len() < SPARE_LISTS && keys.capacity() <= KEPT_KEYS {
            keys.clear();
            self.spare.push(keys);
        }
    }
}

impl Shard {
    /// Sees anew whether this shard's slice is free for all: at home, nothing held, nothing waiting.
    pub(crate) fn refresh_open(&mut self) {
        let home = self.slices[self.core.id as usize].is_some();
        self.open = home && self.intents.is_empty() && self.waiting.is_empty() && self.held_back.is_empty();
    }

    /// Whether a request that comes now may run on this shard's slice.
    #[inline]
    pub(crate) fn may_run(&mut self, request: &RequestView<'_>) -> bool {
        self.open || self.may_pass(request)
    }

    fn may_pass(&mut self, request: &RequestView<'_>) -> bool {
        if self.slices[self.core.id as usize].is_none()
            || self.held_back.contains_key(&request.client.id)
            || self.earlier_waits(request.client.id)
        {
            return false;
        }
        let part = request.sequence & SPLIT != 0;
        let behind_wanted = !self.core.leaves_out(if part { Fault::PassPart } else { Fault::PassWaiting });
        if (part || behind_wanted) && self.intents.acquires > 0 {
            return false;
        }
        !self.intents.holds_up(&self.core, request, behind_wanted)
    }

    /// Whether a request of this client waits here already.
    pub(crate) fn earlier_waits(&self, client: u64) -> bool {
        self.intents.clients.contains_key(&client) && !self.core.leaves_out(Fault::PassOwn)
    }

    /// Adds to what waits for the slice, or for keys that are held.
    pub(crate) fn enqueue_waiting(&mut self, waiting: Waiting) {
        self.open = false;
        match waiting {
            Waiting::Request(request) if self.held_back.contains_key(&request.client.id) => {
                let held = self.held_back.get_mut(&request.client.id).expect("just seen");
                return held.push_back(*request);
            }
            _ => {}
        }
        match &waiting {
            Waiting::Request(request) => {
                *self.intents.clients.entry(request.client.id).or_default() += 1;
                self.intents.wanted.add_all(&request.needs);
            }
            Waiting::Acquire(_) => self.intents.acquires += 1,
            Waiting::Unwatch(..) | Waiting::Unblock(..) | Waiting::Load(_) => {}
        }
        self.waiting.push_back(waiting);
    }

    /// Holds back the next requests of a client whose script is to run elsewhere, those that wait already among them.
    ///
    /// They stand apart from all else that waits: the script is about to ask for this slice too, and must not wait for
    /// them. There are no parts among them, see [`crate::client::Client::script_sent`].
    pub(crate) fn hold_back(&mut self, client: u64) {
        self.open = false;
        let mut held = VecDeque::new();
        let mut at = 0;
        while at < self.waiting.len() {
            match &self.waiting[at] {
                Waiting::Request(request) if request.client.id == client => {
                    if let Waiting::Request(request) = self.dequeue_waiting(at) {
                        held.push_back(*request);
                    }
                }
                _ => at += 1,
            }
        }
        self.held_back.insert(client, held);
        // Where the queue is being run, its places have moved.
        self.drain_again |= self.draining;
    }

    /// The script of a client that was held back has run: its next requests wait like others'.
    pub(crate) fn end_hold_back(&mut self, client: u64) {
        for request in self.held_back.remove(&client).into_iter().flatten() {
            self.enqueue_waiting(Waiting::Request(Box::new(request)));
        }
    }

    fn dequeue_waiting(&mut self, at: usize) -> Waiting {
        let waiting = self.waiting.remove(at).expect("the caller looked at it");
        match &waiting {
            Waiting::Request(request) => {
                let id = request.client.id;
                let count = self.intents.clients.get_mut(&id).expect("counted as it came");
                *count -= 1;
                if *count == 0 {
                    self.intents.clients.remove(&id);
                }
                self.intents.wanted.remove_all(&request.needs);
            }
            Waiting::Acquire(_) => self.intents.acquires -= 1,
            Waiting::Unwatch(..) | Waiting::Unblock(..) | Waiting::Load(_) => {}
        }
        waiting
    }

    /// Holds the keys of a part that has just run.
    pub(crate) fn hold_keys(&mut self, coordinator: ShardId, request: &RequestView<'_>) {
        if self.core.leaves_out(Fault::NoHold) {
            return;
        }
        self.intents.hold(&self.core, coordinator, request.sequence as u32, request);
        self.open = false;
    }

    /// A split command of `coordinator` is done: what waited for its keys goes on at the next
    /// [`Shard::run_released`].
    pub(crate) fn release_keys(&mut self, coordinator: ShardId, slot: u32) {
        if self.core.leaves_out(Fault::NoHold) {
            return;
        }
        self.intents.release(coordinator, slot);
        self.released = true;
    }

    /// Runs what waited for keys that were let go, once for many of them.
    pub(crate) fn run_released(&mut self) {
        if std::mem::take(&mut self.released) {
            self.run_waiting();
        }
    }

    /// Runs what waits and may run, in order.
    pub(crate) fn run_waiting(&mut self) {
        // What runs here may itself let go of keys or bring the slice home; the pass then begins anew.
        if std::mem::replace(&mut self.draining, true) {
            self.drain_again = true;
            return;
        }
        loop {
            (self.drain_again, self.released) = (false, false);
            self.drain_waiting();
            if !self.drain_again && !self.released {
                break;
            }
        }
        self.draining = false;
        self.refresh_open();
    }

    fn drain_waiting(&mut self) {
        let own = self.core.id as usize;
        let mut at = 0;
        // What stands further behind must not pass what still waits here: a request one of its client's, or one that needs
        // a key of its.
        let mut clients = BTreeSet::new();
        let mut wanted = std::mem::take(&mut self.intents.passed);
        let mut slice_wanted = false;
        while at < self.waiting.len() && self.slices[own].is_some() && !self.drain_again {
            let runs = match &self.waiting[at] {
                Waiting::Request(request) => {
                    let part = request.sequence & SPLIT != 0;
                    let behind_wanted = part || !self.core.leaves_out(Fault::PassWaiting);
                    let waits = clients.contains(&request.client.id)
                        || self.intents.are_held(&self.core, &request.needs)
                        || (behind_wanted && slice_wanted)
                        || (behind_wanted && wanted.conflicts(&request.needs));
                    if waits {
                        clients.insert(request.client.id);
                        wanted.add_all(&request.needs);
                    }
                    !waits
                }
                Waiting::Acquire(_) => {
                    let waits = slice_wanted || !wanted.is_empty() || !self.intents.is_empty();
                    let waits = waits && !self.core.leaves_out(Fault::LendHeld);
                    slice_wanted |= waits;
                    !waits
                }
                // What began before it is to end stands further ahead.
                Waiting::Unblock(id, _) => !clients.contains(&id.client),
                Waiting::Unwatch(client, _) => !clients.contains(client),
                Waiting::Load(_) => true,
            };
            if !runs {
                at += 1;
                continue;
            }
            match self.dequeue_waiting(at) {
                Waiting::Request(request) => {
                    let OwnedRequest { client, sequence, command, args, needs } = *request;
                    self.intents.recycle(needs.keys);
                    self.serve_late(client, sequence, command, args.args());
                }
                Waiting::Acquire(tx) => self.lend(tx),
                Waiting::Unwatch(client, keys) => self.unwatch_here(client, keys),
                Waiting::Unblock(id, how) => self.unblock_here(id, how),
                Waiting::Load(batch) => self.take_batch(batch),
            }
        }
        // Before `at` stand those that wait on, unless the queue was changed under this pass.
        let few = wanted.len * 8 < wanted.slots.len() && !self.drain_again;
        if few {
            for waiting in self.waiting.range(..at) {
                if let Waiting::Request(request) = waiting {
                    wanted.remove_all(&request.needs);
                }
            }
        } else {
            wanted.clear();
        }
        self.intents.passed = wanted;
    }

    /// Whether no key of this shard is held.
    pub fn holds_nothing(&self) -> bool {
        let Intents { held, firm, wanted, .. } = &self.intents;
        self.intents.is_empty() && held.is_empty() && firm.is_empty() && wanted.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dict::Hasher;

    /// Whoever owns the keys, and whether their places were known: what a place keeps beside a hash must not have names
    /// pile up.
    #[test]
    fn names_are_spread_and_do_not_depend_on_places() {
        let hasher = Hasher::new([3, 4]);
        let mut firsts = std::collections::BTreeSet::new();
        for n in 0..1024 {
            let hash = hasher.hash(format!("k{n}").as_bytes());
            let name = name_of(KeyPlace::new(hash, n % 3).hash(), 1);
            assert_eq!(name, name_of(hash, 1));
            assert_ne!(name, name_of(hash, 2));
            firsts.insert(name & 0xffff);
        }
        assert!(firsts.len() > 950, "{} of 1024", firsts.len());
    }
}
