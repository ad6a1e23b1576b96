//! What growth costs: every insert from 0 to N timed, and the table's bytes a key on the way.
//!
//! Prints percentiles beside those of timing nothing, then the deletes and the cron's steps on the way
//! down. `cargo bench -p ringshard-shards --bench dict_growth -- [N, 10 million by default] [growth]`.

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

fn over_20_us(h: &Histogram<u64>) -> u64 {
    h.count_between(20_000, u64::MAX)
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 1_000_000_000, 3).unwrap()
}

fn main() {
    let only_growth = std::env::args().any(|a| a == "growth");
    let n = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(10_000_000u64);
    let hasher = Hasher::new([1, 2]);
    // What the machine does to a loop that does nothing: ticks, other programs.
    let mut nothing = histogram();
    let start = Instant::now();
    while start.elapsed().as_secs() < 2 {
        timed(&mut nothing, || ());
    }
    report("(timing nothing)", &nothing);
    println!("  {:.0} a second over 20 us", over_20_us(&nothing) as f64 / 2.0);

    // A page of the histogram's own would be an outlier of the harness: the entries exist before.
    let entries: Vec<EntryPtr> = (0..n).map(|i| EntryPtr::new_string(&key(i), &[b'v'; 32], None)).collect();
    let mut dict: Dict<EntryPtr> = Dict::new();
    let mut inserts = histogram();
    let mut bands = [(f64::MAX, 0f64); 10];
    let start = Instant::now();
    for (i, &entry) in entries.iter().enumerate() {
        let hash = hasher.hash(&key(i as u64));
        timed(&mut inserts, || dict.insert(&hasher, hash, entry));
        if i % 64 == 0 && i > 0 {
            let each = dict.bytes() as f64 / dict.len() as f64;
            let band = &mut bands[i.ilog10() as usize];
            *band = (band.0.min(each), band.1.max(each));
        }
        let len = i as u64 + 1;
        if len.is_multiple_of(500_000) && (len <= 4_000_000 || len.is_multiple_of(2_000_000)) {
            println!("{len:>9} keys: {:.2} bytes of table a key", dict.bytes() as f64 / len as f64);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    report("insert", &inserts);
    println!("  {:.0} ns an insert in all, timing included", seconds * 1e9 / n as f64);
    println!("  {:.0} a second over 20 us", over_20_us(&inserts) as f64 / seconds);
    for (i, (low, high)) in bands.iter().enumerate().filter(|(_, band)| band.1 > 0.0) {
        println!("  bytes a key from 10^{i} keys on: {low:.2} to {high:.2}");
    }
    print!("{}", dict.stats());

    // The baseline of the slow ones: finds allocate nothing and move nothing, but miss the cache
    // just so, and what interrupts them is the machine.
    let mut finds = histogram();
    let start = Instant::now();
    for i in 0..n / 2 {
        let key = key(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % n);
        let hash = hasher.hash(&key);
        timed(&mut finds, || dict.find(hash, &key)).expect("it is there");
    }
    let seconds = start.elapsed().as_secs_f64();
    report("find", &finds);
    println!("  {:.0} a second over 20 us", over_20_us(&finds) as f64 / seconds);
    if only_growth {
        return;
    }

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

    // Growing again into memory that was touched before shows what the first time paid to the
    // kernel for fresh pages (with `_RJEM_MALLOC_CONF=dirty_decay_ms:-1` nearly all of it).
    let mut again = histogram();
    let start = Instant::now();
    for (i, &entry) in entries.iter().enumerate() {
        let hash = hasher.hash(&key(i as u64));
        timed(&mut again, || dict.insert(&hasher, hash, entry));
    }
    let seconds = start.elapsed().as_secs_f64();
    report("insert again", &again);
    println!("  {:.0} a second over 20 us", over_20_us(&again) as f64 / seconds);
    let mut drains = histogram();
    // SAFETY: a drained entry is the caller's, and the handles in `entries` are not used again.
    while timed(&mut drains, || dict.drain_step(20, |e| unsafe { e.free() })) {}
    report("drain_step(20) with free", &drains);
}
