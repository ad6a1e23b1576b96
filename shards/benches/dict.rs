//! What a lookup costs: hit and miss, one after the other and prefetched in batches of 16.
//!
//! A sample is 1024 lookups of random keys of 16 bytes with values of 32 bytes, under the
//! allocator of the server. `cargo bench -p ringshard-shards --bench dict`.

use std::hint::black_box;
use std::sync::Mutex;

use divan::Bencher;
use divan::counter::ItemsCount;
use ringshard_shards::dict::{Dict, Hasher};
use ringshard_shards::entry::EntryPtr;

use self::random::Random;

mod random;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SIZES: [u64; 3] = [1_000, 1_000_000, 10_000_000];
const LOOKUPS: usize = 1024;
const BATCH: usize = 16;

fn main() {
    divan::main();
}

/// A key without any formatting to pay for.
fn key(i: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&i.to_le_bytes());
    key[8..].copy_from_slice(b"somebody");
    key
}

struct Filled {
    hasher: Hasher,
    dict: Dict<EntryPtr>,
    random: Random,
}

/// Runs with a dict of `n` entries, which the benchmarks of one size share. They run one after
/// the other, so one size at a time is alive.
fn with_filled(n: u64, run: impl FnOnce(&mut Filled)) {
    static CURRENT: Mutex<Option<(u64, Filled)>> = Mutex::new(None);
    let mut current = CURRENT.lock().unwrap();
    if current.as_ref().is_none_or(|(size, _)| *size != n) {
        if let Some((_, mut old)) = current.take() {
            // SAFETY: a drained entry is the caller's, and nobody else has its handle.
            old.dict.drain(|e| unsafe { e.free() });
        }
        let mut filled = Filled { hasher: Hasher::new([1, 2]), dict: Dict::new(), random: Random(n) };
        for i in 0..n {
            let key = key(i);
            let entry = EntryPtr::new_string(&key, &[b'v'; 32], None);
            filled.dict.insert(&filled.hasher, filled.hasher.hash(&key), entry);
        }
        *current = Some((n, filled));
    }
    run(&mut current.as_mut().unwrap().1);
}

/// Looks up keys `from..from + n` in random order, one after the other.
fn one_by_one(bencher: Bencher, n: u64, from: u64) {
    with_filled(n, |Filled { hasher, dict, random }| {
        bencher.counter(ItemsCount::new(LOOKUPS)).bench_local(|| {
            let mut found = 0;
            for _ in 0..LOOKUPS {
                let key = key(from + random.below(n));
                // The next key waits for this answer, as it does for a lone request.
                let hash = hasher.hash(&key) ^ u64::from(black_box(found == u64::MAX));
                found += dict.find(hash, &key).map_or(0, |e| u64::from(e.lru()) + 1);
            }
            found
        });
    });
}

fn batched(bencher: Bencher, n: u64, from: u64) {
    with_filled(n, |Filled { hasher, dict, random }| {
        bencher.counter(ItemsCount::new(LOOKUPS)).bench_local(|| {
            let mut found = 0;
            for _ in 0..LOOKUPS / BATCH {
                let keys: [[u8; 16]; BATCH] = std::array::from_fn(|_| key(from + random.below(n)));
                let hashes = keys.map(|key| hasher.hash(&key));
                hashes.iter().for_each(|&hash| dict.prefetch_bucket(hash));
                hashes.iter().for_each(|&hash| dict.prefetch_element(hash));
                for (key, hash) in keys.iter().zip(hashes) {
                    found += dict.find(hash, key).map_or(0, |e| u64::from(e.lru()) + 1);
                }
            }
            found
        });
    });
}

// One function a size and a stage: divan runs them in the order of their names, so that a dict
// is filled once.
#[divan::bench(args = SIZES)]
fn all(bencher: Bencher, n: u64) {
    // The cost of a benchmark's own key and hash, to subtract.
    with_filled(n, |Filled { hasher, random, .. }| {
        bencher
            .counter(ItemsCount::new(LOOKUPS))
            .bench_local(|| (0..LOOKUPS).fold(0, |sum, _| sum ^ hasher.hash(&key(random.below(n)))));
    });
}

macro_rules! lookups {
    ($($module:ident $n:literal)*) => {$(
        mod $module {
            use super::*;
            #[divan::bench]
            fn hit(bencher: Bencher) { one_by_one(bencher, $n, 0) }
            #[divan::bench]
            fn hit_batch_16(bencher: Bencher) { batched(bencher, $n, 0) }
            #[divan::bench]
            fn miss(bencher: Bencher) { one_by_one(bencher, $n, $n) }
            #[divan::bench]
            fn miss_batch_16(bencher: Bencher) { batched(bencher, $n, $n) }
        }
    )*};
}

lookups! { find_1k 1_000 find_1m 1_000_000 find_10m 10_000_000 }
