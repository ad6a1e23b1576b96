//! The tree beside a sorted `Vec`: whatever is done to both, they hold the same in the same order.

use proptest::prelude::*;

use super::*;
use crate::core::Rng;

type Item = (f64, Vec<u8>);

/// A tree that frees its members, and what it should hold.
struct Both {
    tree: CountedTree,
    oracle: Vec<Item>,
}

impl Drop for Both {
    fn drop(&mut self) {
        let len = self.tree.len();
        // SAFETY: `cut` takes the only handles out.
        self.tree.cut(0, len, &mut |member| unsafe { member.free() });
        self.tree.check();
    }
}

fn order(a: &Item, b: &Item) -> std::cmp::Ordering {
    a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1))
}

impl Both {
    fn new() -> Self {
        Both { tree: CountedTree::new(), oracle: Vec::new() }
    }

    fn add(&mut self, score: f64, text: &[u8]) {
        let item = (score, text.to_vec());
        if self.oracle.iter().all(|(_, other)| other != text) {
            let at = self.oracle.partition_point(|other| order(other, &item).is_lt());
            self.oracle.insert(at, item);
            self.tree.insert(ScoredPtr::new(text, score));
        }
    }

    fn remove(&mut self, rank: usize) {
        let (score, text) = self.oracle.remove(rank);
        assert_eq!(self.tree.remove(score, b"no such text"), None);
        let member = self.tree.remove(score, &text).expect("it is there");
        // SAFETY: the tree held the only handle.
        unsafe { member.free() };
    }

    fn set_score(&mut self, rank: usize, score: f64) {
        let (_, text) = self.oracle.remove(rank);
        let item = (score, text);
        let member = *self.tree.range(rank, rank + 1).next().unwrap().1;
        let at = self.oracle.partition_point(|other| order(other, &item).is_lt());
        self.oracle.insert(at, item);
        self.tree.set_score(member, score);
        assert_eq!(member.score(), score);
    }

    fn cut(&mut self, from: usize, to: usize) {
        let mut taken = Vec::new();
        self.tree.cut(from, to, &mut |member| {
            taken.push((member.score(), member.text().to_vec()));
            // SAFETY: the tree held the only handle.
            unsafe { member.free() };
        });
        assert_eq!(taken, self.oracle.drain(from..to).collect::<Vec<_>>());
    }

    fn same(&self) {
        let owned = |(score, member): (f64, &ScoredPtr)| (score, member.text().to_vec());
        self.tree.check();
        assert_eq!((self.tree.len(), self.tree.is_empty()), (self.oracle.len(), self.oracle.is_empty()));
        assert_eq!(self.tree.iter().map(owned).collect::<Vec<_>>(), self.oracle);
        let mut back: Vec<_> = self.tree.iter().rev().map(owned).collect();
        back.reverse();
        assert_eq!(back, self.oracle);
    }

    /// Ranks, and ranges by rank, score and text, around some places.
    fn questions(&self, rng: &mut Rng) {
        let n = self.oracle.len();
        for _ in 0..8.min(n) {
            let rank = rng.below(n as u64) as usize;
            let (score, text) = &self.oracle[rank];
            assert_eq!(self.tree.rank(*score, text), rank);
            let below = |is: &dyn Fn(&Item) -> bool| self.oracle.iter().filter(|item| is(item)).count();
            assert_eq!(self.tree.count_while(|s, _| s < *score), below(&|item| item.0 < *score));
            assert_eq!(self.tree.count_while(|s, _| s <= *score), below(&|item| item.0 <= *score));
            let is_before = |s: f64, t: &[u8]| (s, t) <= (*score, &text[..]);
            let expected = below(&|item| is_before(item.0, &item.1));
            assert_eq!(self.tree.count_while(|s, member| is_before(s, member.text())), expected);
            let to = rank + rng.below((n - rank) as u64 + 1) as usize;
            // Both ends by turns, until they meet.
            let (mut range, mut expected) = (self.tree.range(rank, to), self.oracle[rank..to].iter());
            loop {
                let (got, wanted) = match rng.below(2) {
                    0 => (range.next(), expected.next()),
                    _ => (range.next_back(), expected.next_back()),
                };
                assert_eq!(got.map(|(s, m)| (s, m.text())), wanted.map(|(s, t)| (*s, &t[..])));
                if got.is_none() {
                    break;
                }
            }
        }
    }
}

/// A run of random operations; `scores` different scores, so that texts decide among many or few.
fn run(seed: u64, ops: usize, scores: u64, grow: u64) {
    let mut rng = Rng::new(seed);
    let mut both = Both::new();
    let mut next = 0u64;
    for op in 0..ops {
        let n = both.oracle.len() as u64;
        let score = rng.below(scores) as f64 - 5.0;
        match rng.below(10) {
            kind if kind < grow || n == 0 => {
                let text = format!("m{:x}", rng.below(1 << 20));
                both.add(score, text.as_bytes());
            }
            8 => both.set_score(rng.below(n) as usize, score),
            9 if rng.below(20) == 0 => {
                let from = rng.below(n);
                both.cut(from as usize, (from + rng.below(n - from + 1)) as usize);
            }
            9 => {
                // Runs at either end, ascending and descending.
                for _ in 0..rng.below(30) {
                    next += 1;
                    let far = 1000.0 + next as f64;
                    both.add(if rng.below(2) == 0 { far } else { -far }, format!("far{next}").as_bytes());
                }
            }
            _ => both.remove(rng.below(n) as usize),
        }
        if op % 64 == 0 {
            both.same();
            both.questions(&mut rng);
        }
    }
    both.same();
    // And down to nothing, one by one.
    while !both.oracle.is_empty() {
        both.remove(rng.below(both.oracle.len() as u64) as usize);
        if both.oracle.len().is_multiple_of(100) {
            both.same();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 24 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn as_a_sorted_vec(seed in any::<u64>(), scores in prop::sample::select(vec![1, 3, 1000]), grow in 4..8u64) {
        run(seed, if cfg!(miri) { 300 } else { 3000 }, scores, grow);
    }
}

#[test]
fn what_comes_in_order_leaves_full_leaves() {
    for descending in [false, true] {
        let mut both = Both::new();
        let n: usize = if cfg!(miri) { 500 } else { 20_000 };
        for i in 0..n {
            let score = if descending { n - i } else { i } as f64;
            both.tree.insert(ScoredPtr::new(format!("{score}").as_bytes(), score));
        }
        both.tree.check();
        let bytes = both.tree.bytes();
        assert!(bytes < n * 19 + 4 * size_of::<Inner>(), "{bytes} bytes for {n}, descending: {descending}");
    }
}

#[test]
fn few_remain_in_few_nodes() {
    let mut both = Both::new();
    let n: usize = if cfg!(miri) { 500 } else { 10_000 };
    let mut rng = Rng::new(3);
    for i in 0..n {
        both.tree.insert(ScoredPtr::new(format!("{i}").as_bytes(), rng.below(1000) as f64));
    }
    while both.tree.len() > n / 50 {
        let rank = rng.below(both.tree.len() as u64) as usize;
        // SAFETY: the tree held the only handle.
        both.tree.cut(rank, rank + 1, &mut |member| unsafe { member.free() });
    }
    both.tree.check();
    assert!(both.tree.bytes() < both.tree.len() * 80 + 3000, "{} bytes", both.tree.bytes());
}
