//! The ordered structure of large sorted sets: what one operation costs among a thousand and a million members.
//!
//! A sample is 256 operations at random places, under the allocator of the server.
//! `cargo bench -p ringshard-shards --bench counted_tree`.

use std::hint::black_box;

use divan::Bencher;
use divan::counter::ItemsCount;
use ringshard_shards::encodings::counted_tree::CountedTree;
use ringshard_shards::encodings::scored::ScoredPtr;

use self::random::Random;

mod random;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SIZES: [usize; 2] = [1_000, 1_000_000];
const OPERATIONS: usize = 256;

fn main() {
    divan::main();
}

struct Filled {
    tree: CountedTree,
    members: Vec<ScoredPtr>,
    random: Random,
}

impl Filled {
    fn new(n: usize) -> Self {
        let (mut tree, mut random) = (CountedTree::new(), Random(1));
        let members: Vec<ScoredPtr> =
            (0..n).map(|i| ScoredPtr::new(format!("member:{i:07}").as_bytes(), random.below(1 << 40) as f64)).collect();
        members.iter().for_each(|member| tree.insert(*member));
        Filled { tree, members, random }
    }

    fn any(&mut self) -> ScoredPtr {
        self.members[self.random.below(self.members.len() as u64) as usize]
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        let len = self.tree.len();
        // SAFETY: `cut` takes the tree's handles out, and those in the list are not used again.
        self.tree.cut(0, len, &mut |member| unsafe { member.free() });
    }
}

#[divan::bench(args = SIZES)]
fn move_to_another_score(bencher: Bencher, n: usize) {
    let mut filled = Filled::new(n);
    bencher.counter(ItemsCount::new(OPERATIONS)).bench_local(|| {
        for _ in 0..OPERATIONS {
            let (member, score) = (filled.any(), filled.random.below(1 << 40) as f64);
            filled.tree.set_score(member, score);
        }
    });
}

#[divan::bench(args = SIZES)]
fn rank(bencher: Bencher, n: usize) {
    let mut filled = Filled::new(n);
    bencher.counter(ItemsCount::new(OPERATIONS)).bench_local(|| {
        for _ in 0..OPERATIONS {
            let member = filled.any();
            black_box(filled.tree.rank(member.score(), member.text()));
        }
    });
}

#[divan::bench(args = SIZES)]
fn ten_from_a_score(bencher: Bencher, n: usize) {
    let mut filled = Filled::new(n);
    bencher.counter(ItemsCount::new(OPERATIONS)).bench_local(|| {
        for _ in 0..OPERATIONS {
            let least = filled.random.below(1 << 40) as f64;
            let from = filled.tree.count_while(|score, _| score < least);
            let to = filled.tree.len().min(from + 10);
            filled.tree.range(from, to).for_each(|(_, member)| {
                black_box(member.text());
            });
        }
    });
}
