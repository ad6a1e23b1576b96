//! The flat encodings: ns for one operation on a collection of the size at which it becomes a table.

use divan::Bencher;
use ringshard_shards::encodings::intset::IntSet;
use ringshard_shards::encodings::listpack::ListPack;

fn main() {
    divan::main();
}

const ELEMENTS: usize = 128;

fn listpack() -> ListPack {
    let mut list = ListPack::new();
    (0..ELEMENTS).for_each(|i| list.push(format!("field:{i:06}").as_bytes()));
    list
}

#[divan::bench]
fn listpack_find_last(bencher: Bencher) {
    let list = listpack();
    let wanted = format!("field:{:06}", ELEMENTS - 1);
    let first = list.first().unwrap();
    bencher.bench_local(|| list.find(divan::black_box(first), wanted.as_bytes(), 0));
}

#[divan::bench]
fn listpack_push_and_delete(bencher: Bencher) {
    let mut list = listpack();
    bencher.bench_local(|| {
        list.push(divan::black_box(b"field:999999"));
        let last = list.last().unwrap();
        list.delete(last);
    });
}

#[divan::bench]
fn listpack_walk(bencher: Bencher) {
    let list = listpack();
    bencher.bench_local(|| list.iter().count());
}

#[divan::bench]
fn intset_contains(bencher: Bencher) {
    let mut set = IntSet::new();
    (0..512).for_each(|i| {
        set.insert(i * 7);
    });
    let mut at = 0;
    bencher.bench_local(|| {
        at = (at + 7 * 31) % (512 * 7);
        set.contains(divan::black_box(at))
    });
}

#[divan::bench]
fn intset_insert_and_remove(bencher: Bencher) {
    let mut set = IntSet::new();
    (0..512).for_each(|i| {
        set.insert(i * 7);
    });
    bencher.bench_local(|| {
        set.insert(divan::black_box(1000));
        set.remove(divan::black_box(1000))
    });
}
