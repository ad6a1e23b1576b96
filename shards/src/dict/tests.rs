//! `Dict` against a `HashMap`, and its promises: scan's guarantee, flat memory, fair draws.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::bucket::{Bucket, Mark, SLOTS};
use super::table::Table;
use super::*;

/// Miri takes a second where a test takes a millisecond.
const fn size(full: usize, under_miri: usize) -> usize {
    if cfg!(miri) { under_miri } else { full }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases: if cfg!(miri) { 3 } else { cases }, failure_persistence: None, ..ProptestConfig::default() }
}

/// The smallest element: a key of eight bytes on the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Item(NonNull<[u8; 8]>);

// SAFETY: a box of 8-aligned memory (see `new`), whose content never changes.
unsafe impl Element for Item {
    fn to_ptr(self) -> NonNull<u8> {
        self.0.cast()
    }
    unsafe fn from_ptr(p: NonNull<u8>) -> Self {
        Self(p.cast())
    }
    fn key(&self) -> &[u8] {
        // SAFETY: alive until `free`.
        unsafe { self.0.as_ref() }
    }
}

impl Item {
    fn new(key: u64) -> Self {
        Self(NonNull::from(Box::leak(Box::new(key))).cast())
    }
    fn number(self) -> u64 {
        u64::from_ne_bytes(self.key().try_into().unwrap())
    }
    fn free(self) {
        // SAFETY: made by `new`, freed once by the test that owns it.
        drop(unsafe { Box::from_raw(self.0.cast::<u64>().as_ptr()) });
    }
}

/// A dict with its oracle. The oracle owns the items.
struct Pair {
    hasher: Hasher,
    dict: Dict<Item>,
    oracle: HashMap<u64, Item>,
}

impl Pair {
    fn new() -> Self {
        Self { hasher: Hasher::new([1, 2]), dict: Dict::new(), oracle: HashMap::new() }
    }
    fn hash(&self, key: u64) -> u64 {
        self.hasher.hash(&key.to_ne_bytes())
    }
    fn find(&self, key: u64) -> Option<Item> {
        self.dict.find(self.hash(key), &key.to_ne_bytes())
    }
    fn insert(&mut self, key: u64) {
        assert_eq!(self.find(key), self.oracle.get(&key).copied());
        if self.oracle.contains_key(&key) {
            return;
        }
        let item = Item::new(key);
        self.dict.insert(&self.hasher, self.hash(key), item);
        self.oracle.insert(key, item);
    }
    fn remove(&mut self, key: u64) {
        let removed = self.dict.remove(self.hash(key), &key.to_ne_bytes());
        assert_eq!(removed, self.oracle.remove(&key));
        if let Some(item) = removed {
            item.free();
        }
    }
    fn remove_ptr(&mut self, key: u64) {
        let other = Item::new(key);
        assert!(!self.dict.remove_ptr(self.hash(key), other), "found by key, not by address");
        other.free();
        if let Some(item) = self.oracle.remove(&key) {
            assert!(self.dict.remove_ptr(self.hash(key), item));
            item.free();
        }
    }
    fn replace(&mut self, key: u64) {
        if let Some(slot) = self.oracle.get_mut(&key) {
            let new = Item::new(key);
            let old = std::mem::replace(slot, new);
            self.dict.replace(self.hasher.hash(&key.to_ne_bytes()), old, new);
            old.free();
        }
    }
    fn check(&self) {
        assert_eq!(self.dict.len(), self.oracle.len());
        assert_eq!(self.dict.is_empty(), self.oracle.is_empty());
        let mut seen = HashSet::new();
        self.dict.for_each(|e| {
            assert!(seen.insert(e.number()), "emitted twice");
            assert_eq!(self.oracle.get(&e.number()), Some(&e));
        });
        assert_eq!(seen.len(), self.oracle.len());
        for (&key, &item) in &self.oracle {
            assert_eq!(self.find(key), Some(item));
        }
        self.check_chains();
    }
    /// Chains are dense: every bucket but the last has a child and eight elements.
    fn check_chains(&self) {
        let dict = &self.dict;
        let mut children = 0;
        let mut check = |head: *mut Bucket| {
            // SAFETY: the callers below pass open buckets.
            let mut bucket = unsafe { &*head };
            while let Some(child) = bucket.child() {
                assert_eq!(bucket.used().count_ones() as usize, SLOTS - 1);
                children += 1;
                // SAFETY: linked, so alive.
                bucket = unsafe { child.as_ref() };
                assert!(bucket.used() != 0);
            }
        };
        (dict.frontier..dict.main.n()).for_each(|i| check(dict.main.at(i)));
        (0..dict.ready).for_each(|i| check(dict.next.at(i)));
        assert_eq!(children, dict.children);
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.oracle.values().for_each(|item| item.free());
    }
}

fn rng(mut state: u64) -> impl FnMut() -> u64 {
    // SplitMix64.
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Insert(u64),
    Remove(u64),
    RemovePtr(u64),
    Replace(u64),
    RehashStep(usize),
    Reserve(u64),
    DrainStep(usize),
}

/// A phase leans to one side, so that tables grow, then empty, then grow again.
fn phase() -> impl Strategy<Value = Vec<Op>> {
    let keys = size(3000, 200) as u64;
    (0u32..4, size(50, 20)..size(3000, 150)).prop_flat_map(move |(lean, n)| {
        let weights = [(20, 1, 0), (4, 4, 0), (1, 20, 0), (1, 4, 1)][lean as usize];
        let op = prop_oneof![
            weights.0 => (0..keys).prop_map(Op::Insert),
            weights.1 => (0..keys).prop_map(Op::Remove),
            1 => (0..keys).prop_map(Op::RemovePtr),
            1 => (0..keys).prop_map(Op::Replace),
            1 => (0usize..20).prop_map(Op::RehashStep),
            1 => (0..keys * 2).prop_map(Op::Reserve),
            weights.2 => (0usize..5).prop_map(Op::DrainStep),
        ];
        prop::collection::vec(op, n)
    })
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn agrees_with_a_hash_map(phases in prop::collection::vec(phase(), 1..size(8, 4))) {
        let mut pair = Pair::new();
        for ops in phases {
            for op in ops {
                match op {
                    Op::Insert(key) => pair.insert(key),
                    Op::Remove(key) => pair.remove(key),
                    Op::RemovePtr(key) => pair.remove_ptr(key),
                    Op::Replace(key) => pair.replace(key),
                    Op::RehashStep(n) => {
                        let more = pair.dict.rehash_step(&pair.hasher, n);
                        prop_assert_eq!(more, pair.dict.is_rehashing());
                    }
                    Op::Reserve(n) => {
                        pair.dict.reserve(&pair.hasher, n);
                        prop_assert!(n <= pair.dict.capacity().max(pair.dict.len() as u64));
                    }
                    Op::DrainStep(n) => {
                        let oracle = &mut pair.oracle;
                        pair.dict.drain_step(n, |e| {
                            assert_eq!(oracle.remove(&e.number()), Some(e));
                            e.free();
                        });
                    }
                }
                prop_assert_eq!(pair.dict.len(), pair.oracle.len());
            }
            pair.check();
        }
    }

    /// Everything that stays from a scan's first step to its last is emitted, whatever comes,
    /// goes and resizes between the steps.
    #[test]
    fn scan_misses_nothing_that_stays(
        stay in 0..size(1500, 40) as u64,
        others in 0..size(6000, 120) as u64,
        steps in prop::collection::vec((0u32..3, 1..size(150, 30)), 1..30),
        seed: u64,
    ) {
        let mut pair = Pair::new();
        let mut rng = rng(seed);
        (0..stay).for_each(|key| pair.insert(key));
        (stay..stay + others).for_each(|key| pair.insert(key));
        // Start where the sequence of sizes happens to be, also in a shrink.
        for _ in 0..rng() % 2 * others {
            pair.remove(stay + rng() % others);
        }
        let mut seen = HashSet::new();
        let mut cursor = 0;
        let mut steps = steps.iter().cycle();
        let mut calls = 0;
        loop {
            let next = pair.dict.scan(cursor, &mut |e| { seen.insert(e.number()); });
            prop_assert!(next < 1 << 48);
            if next == 0 {
                break;
            }
            prop_assert!(next > cursor, "a scan goes forward, so it ends");
            cursor = next;
            calls += 1;
            prop_assert!(calls < 1_000_000);
            let &(lean, n) = steps.next().unwrap();
            for _ in 0..n {
                let key = stay + rng() % (others + 1);
                match lean {
                    0 => pair.insert(key),
                    1 => pair.remove(key),
                    _ => { pair.dict.rehash_step(&pair.hasher, 3); }
                }
            }
        }
        for key in 0..stay {
            prop_assert!(seen.contains(&key), "{} of {} missed", key, stay);
        }
        pair.check();
    }

    #[test]
    fn intervals_tile_the_space(n in prop_oneof![1u32..100, 1u32..=1 << 31], at: u64) {
        // Only the mapping is looked at, so the table needs no memory behind it.
        let table = Table::of_size(n);
        prop_assert_eq!(table.start(0), 0);
        prop_assert_eq!(table.start(n), 1 << 48);
        let i = (at % u64::from(n)) as u32;
        let (start, end) = (table.start(i), table.start(i + 1));
        prop_assert!(start < end);
        prop_assert_eq!(table.index(start << 16), i);
        prop_assert_eq!(table.index((end << 16).wrapping_sub(1)), i);
    }

    /// What a growth step reads from a mark is what hashing again would say.
    #[test]
    fn marks_tell_where_elements_go(steps in 0u32..120, hashes: [u64; 32]) {
        let from = (0..steps.min(112)).fold(1, |n, _| next_size(n));
        let (old, new) = (Table::of_size(from), Table::of_size(next_size(from)));
        prop_assert_eq!(size_for(from), from);
        for hash in hashes.into_iter().chain([0, u64::MAX, 1 << 55, 1 << 63]) {
            let mark = old.mark(hash);
            prop_assert!(mark.tag != 0 && mark.spare < 8);
            let suffice = old.marks_suffice(&new);
            if suffice && let Some(there) = old.moves_to(&new, old.index(hash), mark) {
                prop_assert_eq!(there, (new.index(hash), new.mark(hash)));
            }
        }
    }

    #[test]
    fn tags_match_as_the_scalar_loop_says(tags: [u8; SLOTS], wanted in 0u8..4) {
        let mut bucket = Bucket::EMPTY;
        for (i, tag) in tags.into_iter().enumerate() {
            let mark = Mark { tag: tag % 4, spare: tag % 8 };
            bucket.set(i, mark, std::ptr::without_provenance_mut(8 * (i + 1)));
            prop_assert_eq!(bucket.mark(i), mark);
        }
        prop_assert_eq!(bucket.matches(wanted), bucket.matches_scalar(wanted));
        for i in 0..SLOTS {
            prop_assert_eq!(bucket.get(i).addr(), 8 * (i + 1));
        }
    }
}

#[test]
fn an_empty_dict_takes_nothing_and_answers() {
    let mut pair = Pair::new();
    let mut rng = rng(1);
    assert_eq!(pair.dict.bytes(), 0);
    assert_eq!(pair.dict.scan(0, &mut |_| panic!()), 0);
    assert_eq!(pair.dict.scan(u64::MAX, &mut |_| panic!()), 0);
    assert!(pair.dict.random(&mut rng).is_none());
    pair.dict.sample(&mut rng, 5, |_| panic!());
    pair.dict.for_each(|_| panic!());
    assert!(!pair.dict.drain_step(1, |_| panic!()));
    assert!(!pair.dict.rehash_step(&pair.hasher, 100));
    assert!(!pair.dict.is_rehashing());
    pair.dict.prefetch_bucket(5);
    pair.dict.prefetch_element(5);
    pair.remove(7);
    for key in 0..9 {
        pair.insert(key);
        assert_eq!(pair.dict.bytes(), 64, "nine elements fit one line");
    }
    (0..9).for_each(|key| pair.remove(key));
    assert_eq!(pair.dict.bytes(), 0);
}

/// The promise of memory: 11 to 13 bytes an element at every size, no sawtooth.
#[test]
fn bytes_an_element_stay_in_their_band_while_it_grows() {
    let mut pair = Pair::new();
    let mut worst = (f64::MAX, 0f64);
    for key in 0..size(300_000, 1500) as u64 {
        let item = Item::new(key);
        pair.dict.insert(&pair.hasher, pair.hash(key), item);
        pair.oracle.insert(key, item);
        if key > 1000 {
            let each = pair.dict.bytes() as f64 / pair.dict.len() as f64;
            worst = (worst.0.min(each), worst.1.max(each));
        }
    }
    assert!(worst.0 > 11.0 && worst.1 < 13.8, "{worst:?}");
    pair.check_chains();
}

/// Nothing that was emptied stays large: the steps of the cron bring the memory back.
#[test]
fn steps_shrink_what_was_emptied() {
    let mut pair = Pair::new();
    let n = size(100_000, 600) as u64;
    (0..n).for_each(|key| pair.insert(key));
    let full = pair.dict.bytes();
    (0..n - n / 100).for_each(|key| pair.remove(key));
    assert!(pair.dict.is_rehashing());
    while pair.dict.rehash_step(&pair.hasher, 10) {}
    assert!(pair.dict.bytes() < full / 40, "{} of {full}", pair.dict.bytes());
    pair.check();
    (n - n / 100..n).for_each(|key| pair.remove(key));
    while pair.dict.rehash_step(&pair.hasher, 10) {}
    assert_eq!(pair.dict.bytes(), 0);
}

/// A table that is filled again while it shrinks ends its shrink in time.
#[test]
fn inserts_overtake_no_shrink() {
    let mut pair = Pair::new();
    let n = size(100_000, 300) as u64;
    (0..n).for_each(|key| pair.insert(key));
    (0..n - n / 50).for_each(|key| pair.remove(key));
    pair.dict.rehash_step(&pair.hasher, 1);
    (0..n).for_each(|key| pair.insert(key));
    let each = pair.dict.bytes() as f64 / pair.dict.len() as f64;
    assert!(each < 16.0, "{each}");
    pair.check();
}

/// Whatever stands half-way when the last element goes, the dict is an empty one like any other: it once wrote into the
/// shared empty bucket, when the shrink under way ended with the next insert.
#[test]
fn a_dict_that_runs_empty_in_a_shrink_takes_new_elements() {
    for begun in 0..size(500, 60) {
        let mut pair = Pair::new();
        let elements = size(2_000, 200) as u64;
        (0..elements).for_each(|key| pair.insert(key));
        (elements / 10..elements).for_each(|key| pair.remove(key));
        let hasher = pair.hasher.clone();
        pair.dict.rehash_step(&hasher, begun);
        (0..elements / 10).for_each(|key| pair.remove(key));
        assert!(pair.dict.is_empty());
        (0..100).for_each(|key| pair.insert(key));
        assert_eq!(pair.dict.len(), 100);
    }
}

#[test]
fn drain_gives_everything_once_and_frees_the_table() {
    for n in [0, 1, 10, 85, size(1000, 130), size(50_000, 200)] {
        for slice in [3, usize::MAX] {
            let mut pair = Pair::new();
            (0..n as u64).for_each(|key| pair.insert(key));
            let mut calls = 0;
            loop {
                let oracle = &mut pair.oracle;
                let more = pair.dict.drain_step(slice, |e| {
                    assert_eq!(oracle.remove(&e.number()), Some(e));
                    e.free();
                });
                calls += 1;
                if !more {
                    break;
                }
                if calls == 5 {
                    pair.check();
                }
            }
            assert!(pair.oracle.is_empty() && pair.dict.is_empty());
            assert_eq!(pair.dict.bytes(), 0);
        }
    }
}

/// Every element is drawn about equally often, also half-way through a growth.
#[test]
#[cfg_attr(miri, ignore = "statistics need many draws")]
fn random_draws_are_fair() {
    for n in [3u64, 100, 2000, 2300] {
        let mut pair = Pair::new();
        (0..n).for_each(|key| pair.insert(key));
        let mut rng = rng(n);
        let mut counts = vec![0f64; n as usize];
        let draws = 200 * n;
        for _ in 0..draws {
            counts[pair.dict.random(&mut rng).unwrap().number() as usize] += 1.0;
        }
        // Chi-square with n - 1 degrees of freedom: mean n - 1, deviation sqrt(2 (n - 1)).
        let chi: f64 = counts.iter().map(|c| (c - 200.0).powi(2) / 200.0).sum();
        let freedom = (n - 1) as f64;
        let deviations = (chi - freedom) / (2.0 * freedom).sqrt();
        assert!(deviations.abs() < 5.0, "{n}: {deviations}");
    }
}

#[test]
fn random_finds_the_last_element_of_an_emptied_table() {
    let mut pair = Pair::new();
    let n = size(50_000, 500) as u64;
    (0..n).for_each(|key| pair.insert(key));
    (1..n).for_each(|key| pair.remove(key));
    let mut rng = rng(3);
    assert_eq!(pair.dict.random(&mut rng).unwrap().number(), 0);
    let mut count = 0;
    pair.dict.sample(&mut rng, 10, |_| count += 1);
    assert_eq!(count, 1);
}

#[test]
fn samples_are_distinct_and_as_many_as_wanted() {
    let mut pair = Pair::new();
    (0..500).for_each(|key| pair.insert(key));
    let mut rng = rng(3);
    for wanted in [0, 1, 5, 50, 500, 600] {
        let mut seen = HashSet::new();
        pair.dict.sample(&mut rng, wanted, |e| assert!(seen.insert(e.number())));
        assert_eq!(seen.len(), wanted.min(500));
    }
}

/// The way of a `SET` over an old value: find, overwrite, tell the dict where the entry is now.
#[test]
fn entries_that_move_are_replaced_and_found() {
    use crate::entry::{EntryPtr, StrRef};
    let hasher = Hasher::new([5, 6]);
    let mut dict: Dict<EntryPtr> = Dict::new();
    let n = size(3000, 120);
    let value = |i: usize, round: usize| vec![b'v'; (i * 7 + round * 150) % 400];
    for i in 0..n {
        let key = format!("key:{i}");
        let entry = EntryPtr::new_string(key.as_bytes(), &value(i, 0), None);
        dict.insert(&hasher, hasher.hash(key.as_bytes()), entry);
    }
    for round in 1..3 {
        for i in 0..n {
            let key = format!("key:{i}");
            let hash = hasher.hash(key.as_bytes());
            dict.prefetch_bucket(hash);
            dict.prefetch_element(hash);
            let old = dict.find(hash, key.as_bytes()).unwrap();
            // SAFETY: the dict's handle, the only other one, is replaced at once.
            let new = unsafe { old.overwrite_string(&value(i, round)) };
            if new != old {
                dict.replace(hash, old, new);
            }
            let found = dict.find(hash, key.as_bytes()).unwrap();
            assert_eq!(found.string(), Some(StrRef::Bytes(&value(i, round))));
        }
    }
    let mut count = 0;
    dict.drain(|e| {
        count += 1;
        // SAFETY: a drained entry is the caller's.
        unsafe { e.free() }
    });
    assert_eq!(count, n);
}

#[test]
fn stats_count_what_is_there() {
    let mut pair = Pair::new();
    (0..500).for_each(|key| pair.insert(key));
    let text = pair.dict.stats();
    assert!(text.contains("number of elements: 500\n"), "{text}");
    assert!(text.contains(&format!("table size: {}\n", pair.dict.buckets())), "{text}");
}

/// The other half of the promise of `moves_to`: it is seldom at a loss.
#[test]
fn most_moves_need_no_second_look() {
    let mut rng = rng(8);
    let (mut sizes, mut refills, mut n) = (0, 0, 4);
    while n < 1 << 20 {
        let (old, new) = (Table::of_size(n), Table::of_size(next_size(n)));
        sizes += 1;
        if old.marks_suffice(&new) {
            let mut place = |_: &u32| {
                let hash = rng();
                old.moves_to(&new, old.index(hash), old.mark(hash)).is_none()
            };
            let lost = (0..1000).filter(&mut place).count();
            assert!(lost < 80, "{lost} of 1000 from {n}");
        } else {
            refills += 1;
        }
        n = next_size(n);
    }
    assert!(refills * 11 < sizes, "{refills} of {sizes} steps touch every element");
}

#[test]
fn hashers_of_one_seed_agree() {
    let (a, b, c) = (Hasher::new([1, 2]), Hasher::new([1, 2]), Hasher::new([1, 3]));
    assert_eq!(a.hash(b"key"), b.hash(b"key"));
    assert_ne!(a.hash(b"key"), c.hash(b"key"));
    assert_ne!(a.hash(b"key"), a.hash(b"key\0"));
}
