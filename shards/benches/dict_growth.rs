//! What growth costs: every insert from 0 to N timed, and the table's bytes a key on the way.
//!
//! Prints percentiles and the slowest inserts, then the deletes and the cron's steps on the way
//! down. `cargo bench -p ringshard-shards --bench dict_growth -- [N, 10 million by default]`.

use std::time::Instant;

use hdrhistogram::Histogram;
use ringshard_shards::dict::{Dict, Hasher};
use ringshard_shards::entry::EntryPtr;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn key(i: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&i.to_le_bytes());
    key[8..].copy_from_slice(b"somebody");
    key
}

/// Times one call into the histogram.
fn timed<T>(histogram: &mut Histogram<u64>, f: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = f();
    histogram.saturating_record(start.elapsed().as_nanos() as u64);
    result
}

fn report(what: &str, h: &Histogram<u64>) {
    println!(
        "{what:<28} mean {:>5.0}  p50 {:>5}  p99 {:>5}  p99.9 {:>6}  p99.99 {:>6}  p99.999 {:>6}  max {:>7} ns",
        h.mean(),
        h.value_at_quantile(0.5),
        h.value_at_quantile(0.99),
        h.value_at_quantile(0.999),
        h.value_at_quantile(0.9999),
        h.value_at_quantile(0.99999),
        h.max(),
    );
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 1_000_000_000, 3).unwrap()
}

fn main() {
    let n = std::env::args()
        .skip(1)
        .find_map(|a| a.parse().ok())
        .unwrap_or(10_000_000u64);
    let hasher = Hasher::new([1, 2]);
    let mut nothing = histogram();
    (0..1_000_000).for_each(|_| timed(&mut nothing, || ()));
    report("(timing nothing)", &nothing);

    // A page of the histogram's own would be an outlier of the harness: the entries exist before.
    let entries: Vec<EntryPtr> = (0..n)
        .map(|i| EntryPtr::new_string(&key(i), &[b'v'; 32], None))
        .collect();
    let mut dict: Dict<EntryPtr> = Dict::new();
    let mut inserts = histogram();
    let mut slow: Vec<(u64, usize)> = Vec::new();
    let mut band = (f64::MAX, 0f64);
    let start = Instant::now();
    for (i, &entry) in entries.iter().enumerate() {
        let hash = hasher.hash(&key(i as u64));
        let from = Instant::now();
        dict.insert(&hasher, hash, entry);
        let ns = from.elapsed().as_nanos() as u64;
        inserts.saturating_record(ns);
        if ns > 20_000 {
            slow.push((ns, i));
        }
        if i % 64 == 0 && i >= 1000 {
            let each = dict.bytes() as f64 / dict.len() as f64;
            band = (band.0.min(each), band.1.max(each));
        }
        let len = i as u64 + 1;
        if len.is_multiple_of(500_000) && (len <= 4_000_000 || len.is_multiple_of(2_000_000)) {
            println!(
                "{len:>9} keys: {:.2} bytes of table a key",
                dict.bytes() as f64 / len as f64
            );
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    report("insert", &inserts);
    println!(
        "  {:.0} ns an insert in all, timing included",
        seconds * 1e9 / n as f64
    );
    println!(
        "  bytes a key from 1000 keys on: {:.2} to {:.2}",
        band.0, band.1
    );
    println!("  {} inserts over 20 us; the slowest: {:?}", slow.len(), {
        slow.sort_unstable();
        slow.iter().rev().take(8).collect::<Vec<_>>()
    });
    print!("{}", dict.stats());

    // The same with a find ahead, as a SET does it.
    let (mut removes, mut steps) = (histogram(), histogram());
    for (i, &entry) in entries.iter().enumerate() {
        let hash = hasher.hash(&key(i as u64));
        timed(&mut removes, || dict.remove(hash, entry.key())).expect("it is there");
        if i % 100 == 0 && dict.is_rehashing() {
            timed(&mut steps, || dict.rehash_step(&hasher, 100));
        }
    }
    while timed(&mut steps, || dict.rehash_step(&hasher, 100)) {}
    report("remove", &removes);
    report("rehash_step(100)", &steps);
    assert_eq!(dict.bytes(), 0);

    // Refill without timing, then drain in slices.
    let start = Instant::now();
    for (i, &entry) in entries.iter().enumerate() {
        dict.insert(&hasher, hasher.hash(&key(i as u64)), entry);
    }
    println!(
        "  {:.0} ns an insert, untimed",
        start.elapsed().as_secs_f64() * 1e9 / n as f64
    );
    let mut drains = histogram();
    // SAFETY: a drained entry is the caller's, and the handles in `entries` are not used again.
    while timed(&mut drains, || dict.drain_step(20, |e| unsafe { e.free() })) {}
    report("drain_step(20) with free", &drains);
}
