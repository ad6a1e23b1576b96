//! From a command to the shards that must run it.
//!
//! A key's slot is CRC16 of the key, or of its `{tag}`, modulo 16384, as in Redis Cluster; shard `slot * N / 16384`
//! owns it. With one shard nothing here is computed.

pub mod slot;

use crate::args::{Args, KeyPlace};
use crate::commands::{Command, Route};
use crate::dict::Hasher;
use slot::slot_of;

/// Number of a shard, 0..N.
pub type ShardId = u16;

/// The shard that owns `slot` among `shards`.
#[inline]
pub fn owner_of_slot(slot: u16, shards: usize) -> ShardId {
    ((slot as usize * shards) / crate::limits::SLOTS as usize) as ShardId
}

/// The shard that owns `key` among `shards`.
#[inline]
pub fn owner_of(key: &[u8], shards: usize) -> ShardId {
    match shards {
        1 => 0,
        n => owner_of_slot(slot_of(key), n),
    }
}

/// Adds the places of a command's keys, which begin with its first argument and are `step` arguments apart.
#[inline]
pub fn place_keys(args: Args<'_>, step: usize, hasher: &Hasher, shards: usize, places: &mut Vec<KeyPlace>) {
    if shards == 1 {
        return push_places(args, step, hasher, places, |_| 0);
    }
    #[cfg(target_arch = "x86_64")]
    if slot::has_clmul() {
        // SAFETY: the processor has just said that it can.
        return unsafe { place_keys_clmul(args, step, hasher, shards, places) };
    }
    push_places(args, step, hasher, places, |key| owner_of_slot(slot_of(key), shards));
}

/// The slots of all keys in one loop, which costs half of a call for each.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "pclmulqdq")]
fn place_keys_clmul(args: Args<'_>, step: usize, hasher: &Hasher, shards: usize, places: &mut Vec<KeyPlace>) {
    push_places(args, step, hasher, places, |key| owner_of_slot(slot::clmul::slot_of(key), shards));
}

#[inline(always)]
fn push_places(
    args: Args<'_>,
    step: usize,
    hasher: &Hasher,
    places: &mut Vec<KeyPlace>,
    owner: impl Fn(&[u8]) -> ShardId,
) {
    for at in (1..args.len()).step_by(step) {
        let key = args.at(at);
        places.push(KeyPlace::new(hasher.hash(key), owner(key)));
    }
}

/// Which slices a command needs.
#[derive(Debug, PartialEq, Eq)]
pub enum Owners {
    /// None: it runs at home, without a slice.
    None,
    /// One.
    One(ShardId),
    /// Several, in ascending order.
    Several(Vec<ShardId>),
}

/// A set of shards that grows while keys are looked at; no allocation while there is one.
#[derive(Default)]
pub struct OwnerSet {
    first: Option<ShardId>,
    others: Vec<ShardId>,
}

impl OwnerSet {
    /// Adds a shard.
    pub fn add(&mut self, owner: ShardId) {
        match self.first {
            None => self.first = Some(owner),
            Some(first) if first == owner || self.others.contains(&owner) => {}
            Some(_) => self.others.push(owner),
        }
    }

    /// Adds every shard that `owners` names.
    pub fn add_all(&mut self, owners: &Owners) {
        match owners {
            Owners::None => {}
            Owners::One(owner) => self.add(*owner),
            Owners::Several(several) => several.iter().for_each(|owner| self.add(*owner)),
        }
    }

    /// The set as [`Owners`].
    pub fn finish(mut self) -> Owners {
        match self.first {
            None => Owners::None,
            Some(first) if self.others.is_empty() => Owners::One(first),
            Some(first) => {
                self.others.push(first);
                self.others.sort_unstable();
                Owners::Several(self.others)
            }
        }
    }
}

/// The slices that `command` with these arguments needs, of `shards`.
pub fn owners(command: &Command, args: Args<'_>, shards: usize) -> Owners {
    match command.route {
        Route::Home => Owners::None,
        _ if shards == 1 => Owners::One(0),
        _ if !args.places().is_empty() => owners_of(args.places()),
        _ if command.all_slices.is_some_and(|needs_all| needs_all(args)) => all(shards),
        Route::All => all(shards),
        Route::Cursor => Owners::One(cursor_shard(args.get(1).unwrap_or(b"0"), shards)),
        Route::Keys => {
            let mut set = OwnerSet::default();
            command.for_each_key(args, &mut |index| set.add(owner_of(args.at(index), shards)));
            match set.finish() {
                // A command whose arguments name no key finds its own error wherever it runs.
                Owners::None => Owners::One(0),
                found => found,
            }
        }
    }
}

fn owners_of(places: &[KeyPlace]) -> Owners {
    let first = places[0].owner();
    if places.iter().all(|place| place.owner() == first) {
        return Owners::One(first);
    }
    let mut set = OwnerSet::default();
    places.iter().for_each(|place| set.add(place.owner()));
    set.finish()
}

fn all(shards: usize) -> Owners {
    Owners::Several((0..shards as ShardId).collect())
}

/// Bits of a `SCAN` cursor that hold the position in a slice; the shard's number stands above them.
pub const CURSOR_POSITION_BITS: u32 = 48;

/// The shard a `SCAN` cursor points into.
pub fn cursor_shard(cursor: &[u8], shards: usize) -> ShardId {
    let cursor = crate::number::parse_u64(cursor).unwrap_or(0);
    ((cursor >> CURSOR_POSITION_BITS) as usize).min(shards - 1) as ShardId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_an_owner_and_ranges_are_contiguous() {
        for shards in [1, 2, 3, 4, 7, 8, 64] {
            let mut previous = 0;
            let mut count = vec![0usize; shards];
            for slot in 0..crate::limits::SLOTS {
                let owner = owner_of_slot(slot, shards);
                assert!(owner == previous || owner == previous + 1);
                previous = owner;
                count[owner as usize] += 1;
            }
            assert_eq!(previous as usize, shards - 1);
            assert!(count.iter().max().unwrap() - count.iter().min().unwrap() <= 1);
        }
    }

    #[test]
    fn keys_placed_together_are_where_each_is() {
        let hasher = Hasher::new([1, 2]);
        let words: Vec<Vec<u8>> =
            (0..60).map(|n| format!("{}{{a{}}}", "k".repeat(n % 21), n).into_bytes().split_off(n % 3)).collect();
        let owned = crate::args::OwnedArgs::from_words(&words);
        for (shards, step) in [(1, 1), (2, 1), (2, 2), (5, 1), (130, 2)] {
            let mut places = Vec::new();
            place_keys(owned.args(), step, &hasher, shards, &mut places);
            let place = |key: &Vec<u8>| KeyPlace::new(hasher.hash(key), owner_of(key, shards));
            assert_eq!(places, words[1..].iter().step_by(step).map(place).collect::<Vec<_>>());
        }
    }

    #[test]
    fn sets_are_sorted_and_without_repeats() {
        let mut set = OwnerSet::default();
        [3, 1, 3, 2, 1].into_iter().for_each(|o| set.add(o));
        assert_eq!(set.finish(), Owners::Several(vec![1, 2, 3]));
    }
}
