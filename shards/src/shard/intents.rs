//! Key intents, the owner's side: keys that a split command has touched here and holds until it is done everywhere.
//!
//! A command that splits (`MGET`, `MSET`, `DEL` …) sends each owner its part. An owner runs the part when it comes and
//! holds its keys: shared for a read, alone for a write. Whatever conflicts with a hold waits, all else goes on. When
//! every owner has answered, the coordinator lets go of the keys (`split.rs`). So nobody sees a part of an `MSET`
//! before all of it is done, and nobody writes between the parts of an `MGET`.
//!
//! Parts and requests for slices are *ordered*: they come by a multicast that every owner sees in the same order, and
//! here they keep that order among themselves while they wait. Hence no deadlock: each waits only for earlier ones.
//! Requests of one client keep their order too. When nothing is held and nothing waits, all this costs one branch
//! ([`Shard::open`]).

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use super::hops::OwnedRequest;
use super::{Shard, Waiting};
use crate::args::Args;
use crate::commands::{Command, CommandId, Route, flag};
use crate::core::Core;
use crate::message::SPLIT;
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

/// How often a key is held.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    readers: u32,
    writers: u32,
}

/// The keys that one part holds.
#[derive(Debug)]
struct Hold {
    coordinator: ShardId,
    slot: u32,
    write: bool,
    keys: Vec<u64>,
}

/// All keys of this shard that are held.
#[derive(Debug, Default)]
pub(crate) struct Intents {
    /// By key: its hash, mixed with its database. Two keys with one hash wait for each other without need.
    held: HashMap<u64, Held, BuildHasherDefault<AsIs>>,
    holds: Vec<Hold>,
    spare: Vec<Vec<u64>>,
}

fn name_of(hash: u64, db: u16) -> u64 {
    hash ^ u64::from(db).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Intents {
    /// Whether no key is held.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.holds.is_empty()
    }

    /// Whether a command has to wait for a key that is held. `hash` is its single key's, or 0.
    fn conflicts(&self, core: &Core, row: &Command, args: Args<'_>, hash: u64, db: u16) -> bool {
        if self.held.is_empty() {
            return false;
        }
        let write = row.has(flag::WRITE) || row.has(flag::MAY_REPLICATE);
        let meets = |hash: u64| {
            let held = self.held.get(&name_of(hash, db));
            held.is_some_and(|held| held.writers > 0 || (write && held.readers > 0))
        };
        if hash != 0 {
            return meets(hash);
        }
        if row.route != Route::Keys {
            return true;
        }
        let mut found = false;
        row.for_each_key(args, &mut |index| found |= meets(core.hasher.hash(args.at(index))));
        found
    }

    /// Holds the keys of a part, which `hold` names.
    fn hold(&mut self, core: &Core, row: &Command, args: Args<'_>, db: u16, mut hold: Hold) {
        hold.keys = self.spare.pop().unwrap_or_default();
        row.for_each_key(args, &mut |index| hold.keys.push(name_of(core.hasher.hash(args.at(index)), db)));
        for key in &hold.keys {
            let held = self.held.entry(*key).or_default();
            match hold.write {
                true => held.writers += 1,
                false => held.readers += 1,
            }
        }
        self.holds.push(hold);
    }

    /// Lets go of the keys of a part.
    fn release(&mut self, coordinator: ShardId, slot: u32) {
        let at = self.holds.iter().position(|hold| hold.coordinator == coordinator && hold.slot == slot);
        let mut hold = self.holds.swap_remove(at.expect("what is released is held"));
        for key in hold.keys.drain(..) {
            let held = self.held.get_mut(&key).expect("a held key is counted");
            match hold.write {
                true => held.writers -= 1,
                false => held.readers -= 1,
            }
            if held.readers == 0 && held.writers == 0 {
                self.held.remove(&key);
            }
        }
        self.spare.push(hold.keys);
    }
}

impl Shard {
    /// Sees anew whether this shard's slice is free for all: at home, nothing held, nothing waiting.
    pub(crate) fn refresh_open(&mut self) {
        let home = self.slices[self.core.id as usize].is_some();
        self.open = home && self.intents.is_empty() && self.waiting.is_empty();
    }

    /// Whether a request that comes now may run on this shard's slice.
    pub(crate) fn may_run(&self, request: &super::hops::RequestView<'_>) -> bool {
        if self.open {
            return true;
        }
        if self.slices[self.core.id as usize].is_none() {
            return false;
        }
        let row = self.core.table.row(request.command);
        let ordered = request.sequence & SPLIT != 0;
        let behind = self.waiting.iter().any(|waiting| match waiting {
            Waiting::Request(other) => other.client.id == request.client.id || (ordered && other.sequence & SPLIT != 0),
            Waiting::Acquire(_) => ordered,
            Waiting::Unwatch(..) | Waiting::Unblock(..) => false,
        });
        !behind && !self.intents.conflicts(&self.core, row, request.args, request.hash, request.client.db)
    }

    /// Holds the keys of a part that has just run.
    pub(crate) fn hold_keys(
        &mut self,
        command: CommandId,
        args: Args<'_>,
        db: u16,
        coordinator: ShardId,
        sequence: u64,
    ) {
        let row = self.core.table.row(command);
        let write = row.has(flag::WRITE) || sequence & crate::message::ALONE != 0;
        let slot = (sequence & u64::from(u32::MAX)) as u32;
        self.intents.hold(&self.core, row, args, db, Hold { coordinator, slot, write, keys: Vec::new() });
        self.open = false;
    }

    /// A split command of `coordinator` is done: what waited for its keys goes on.
    pub(crate) fn release_keys(&mut self, coordinator: ShardId, slot: u32) {
        self.intents.release(coordinator, slot);
        self.run_waiting();
    }

    /// Runs what waits and may run, in order.
    pub(crate) fn run_waiting(&mut self) {
        // What runs here may itself let go of keys or bring the slice home; the pass then begins anew.
        if std::mem::replace(&mut self.draining, true) {
            self.drain_again = true;
            return;
        }
        loop {
            self.drain_again = false;
            self.drain_waiting();
            if !self.drain_again {
                break;
            }
        }
        self.draining = false;
        self.refresh_open();
    }

    fn drain_waiting(&mut self) {
        let own = self.core.id as usize;
        let mut at = 0;
        let mut clients = BTreeSet::new();
        let mut ordered_waits = false;
        while at < self.waiting.len() && self.slices[own].is_some() && !self.drain_again {
            let runs = match &self.waiting[at] {
                Waiting::Request(request) => {
                    let OwnedRequest { client, sequence, command, args, hash } = &**request;
                    let row = self.core.table.row(*command);
                    let ordered = sequence & SPLIT != 0;
                    let waits = clients.contains(&client.id)
                        || (ordered && ordered_waits)
                        || self.intents.conflicts(&self.core, row, args.args(), *hash, client.db);
                    if waits {
                        clients.insert(client.id);
                        ordered_waits |= ordered;
                    }
                    !waits
                }
                Waiting::Acquire(_) => {
                    let waits = ordered_waits || !self.intents.is_empty();
                    ordered_waits |= waits;
                    !waits
                }
                Waiting::Unwatch(..) | Waiting::Unblock(..) => true,
            };
            if !runs {
                at += 1;
                continue;
            }
            match self.waiting.remove(at).expect("it was just looked at") {
                Waiting::Request(request) => {
                    let OwnedRequest { client, sequence, command, args, hash } = *request;
                    self.serve(client, sequence, command, args.args(), hash);
                }
                Waiting::Acquire(tx) => self.lend(tx),
                Waiting::Unwatch(client, keys) => self.unwatch_here(client, keys),
                Waiting::Unblock(id, how) => self.unblock_here(id, how),
            }
        }
    }

    /// Whether no key of this shard is held.
    pub fn holds_nothing(&self) -> bool {
        self.intents.is_empty() && self.intents.held.is_empty()
    }
}
