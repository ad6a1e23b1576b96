//! Sorted sets in both forms beside a sorted `Vec`.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::core::Rng;

type Item = (f64, Vec<u8>);

fn text(member: StrRef<'_>) -> Vec<u8> {
    member.as_bytes(&mut itoa::Buffer::new()).to_vec()
}

fn all(set: &ZSet) -> Vec<Item> {
    let mut items = Vec::new();
    set.for_each(|member, score| items.push((score, text(member))));
    assert_eq!((items.len(), set.is_empty()), (set.len(), items.is_empty()));
    items
}

fn sorted(mut items: Vec<Item>) -> Vec<Item> {
    items.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
    items
}

fn member(n: u32) -> Vec<u8> {
    if n.is_multiple_of(3) { format!("m{n}") } else { n.to_string() }.into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn as_a_sorted_vec(
        entries in prop::sample::select(vec![0, 4, 1000]),
        ops in prop::collection::vec((0..8u8, 0..60u32, -8..8i32, any::<(u8, u8)>()), 1..150),
        seed in any::<u64>(),
    ) {
        let hasher = Hasher::new([seed, 7]);
        let limits = Limits { entries, value: 8 };
        let mut set = ZSet::for_members(1, 2, limits, &hasher);
        let mut oracle: Vec<Item> = Vec::new();
        let mut rng = Rng::new(seed);
        for (op, n, score, (a, b)) in ops {
            let (name, score) = (member(n), f64::from(score) / 2.0);
            let there = oracle.iter().position(|item| item.1 == name);
            match (op, there) {
                (0..=4, None) => {
                    set.insert_absent(&name, score, limits, &hasher);
                    oracle.push((score, name.clone()));
                }
                (0..=4, Some(at)) => {
                    set.set_score(&name, score);
                    oracle[at].0 = score;
                }
                (5, _) => {
                    prop_assert_eq!(set.remove(&name), there.is_some());
                    oracle.retain(|item| item.1 != name);
                }
                (6, _) if a < 30 => {
                    let (from, to) = set.ranks_of(Span::Rank(i64::from(a), i64::from(b)));
                    set.remove_range(from, to);
                    oracle.drain(from..to);
                }
                _ => {}
            }
            oracle = sorted(oracle);
            prop_assert_eq!(&all(&set), &oracle);
            let rank = oracle.iter().position(|item| item.1 == name);
            prop_assert_eq!(set.rank(&name), rank.map(|rank| (rank, oracle[rank].0)));
            prop_assert_eq!(set.score(&name), rank.map(|rank| oracle[rank].0));
            // Ranges of every kind are what a filter finds.
            let (low, high) = (f64::from(a % 16) / 2.0 - 4.0, f64::from(b % 16) / 2.0 - 4.0);
            let (low_open, high_open) = (a & 64 != 0, b & 64 != 0);
            let span = Span::Score(
                ScoreEnd { score: low, open: low_open },
                ScoreEnd { score: high, open: high_open },
            );
            let (from, to) = set.ranks_of(span);
            let inside = |s: f64| (if low_open { s > low } else { s >= low }) && if high_open { s < high } else { s <= high };
            let expected: Vec<Item> = oracle.iter().filter(|item| inside(item.0)).cloned().collect();
            let mut got = Vec::new();
            set.range(from, to, false, |m, s| got.push((s, text(m))));
            prop_assert_eq!(&got, &expected);
            got.clear();
            set.range(from, to, true, |m, s| got.push((s, text(m))));
            got.reverse();
            prop_assert_eq!(&got, &expected);
        }
        prop_assert_eq!(&all(&set.clone()), &oracle);
        let mut scanned = BTreeSet::new();
        let mut cursor = 0;
        loop {
            cursor = set.scan(cursor, |m, s| { scanned.insert((s.to_bits(), text(m))); });
            if cursor == 0 { break }
        }
        prop_assert_eq!(scanned.len(), oracle.len());
        for count in [0, 1, oracle.len() / 4, oracle.len() / 2, oracle.len(), oracle.len() + 3] {
            let mut seen = BTreeSet::new();
            set.random_distinct(&mut rng, count, |m, s| {
                assert!(oracle.contains(&(s, text(m))));
                assert!(seen.insert(text(m)));
            });
            prop_assert_eq!(seen.len(), count.min(oracle.len()));
            if !oracle.is_empty() {
                let mut given = 0;
                set.random(&mut rng, count, |m, s| {
                    assert!(oracle.contains(&(s, text(m))));
                    given += 1;
                });
                prop_assert_eq!(given, count);
            }
        }
        let mut gathered = Gathered::new(&hasher);
        for (score, name) in oracle.iter().rev() {
            gathered.merge(name, *score, |_| unreachable!("members differ"));
            gathered.merge(name, 0.0, |old| old);
        }
        let built = gathered.finish(limits);
        prop_assert_eq!(&all(&built), &oracle);
        prop_assert_eq!(built.encoding() == Encoding::SkipList, oracle.len() > entries);
    }

    #[test]
    fn texts_in_a_range(
        names in prop::collection::btree_set("[a-c0-9]{0,3}", 0..40),
        entries in prop::sample::select(vec![0, 1000]),
        ends in ("[a-c0-9]{0,3}", "[a-c0-9]{0,3}", 0..4u8, 0..4u8),
    ) {
        let (hasher, limits) = (Hasher::new([1, 2]), Limits { entries, value: 8 });
        let mut set = ZSet::for_members(1, 2, limits, &hasher);
        names.iter().for_each(|name| set.insert_absent(name.as_bytes(), 0.0, limits, &hasher));
        let (low, high) = (ends.0.as_bytes(), ends.1.as_bytes());
        let end = |kind: u8, text| match kind {
            0 => LexEnd::Least,
            1 => LexEnd::Greatest,
            2 => LexEnd::Closed(text),
            _ => LexEnd::Open(text),
        };
        let inside = |name: &[u8]| {
            (match ends.2 { 0 => true, 1 => false, 2 => name >= low, _ => name > low })
                && match ends.3 { 0 => false, 1 => true, 2 => name <= high, _ => name < high }
        };
        let (from, to) = set.ranks_of(Span::Lex(end(ends.2, low), end(ends.3, high)));
        let mut got = Vec::new();
        set.range(from, to, false, |m, _| got.push(text(m)));
        let expected: Vec<Vec<u8>> =
            names.iter().map(|name| name.as_bytes().to_vec()).filter(|name| inside(name)).collect();
        prop_assert_eq!(got, expected);
    }
}

#[test]
fn converts_at_the_limits() {
    let (hasher, limits) = (Hasher::new([1, 2]), Limits { entries: 3, value: 5 });
    let mut set = ZSet::for_members(1, 1, limits, &hasher);
    for name in [b"a", b"b", b"c"] {
        set.insert_absent(name, 1.0, limits, &hasher);
    }
    assert_eq!(set.encoding(), Encoding::ListPack);
    let mut long = set.clone();
    long.set_score(b"a", 0.5);
    long.remove(b"b");
    assert_eq!(long.encoding(), Encoding::ListPack);
    long.insert_absent(b"longer", 1.0, limits, &hasher);
    set.insert_absent(b"d", 1.0, limits, &hasher);
    assert_eq!((set.encoding(), long.encoding()), (Encoding::SkipList, Encoding::SkipList));
    assert_eq!(ZSet::for_members(4, 1, limits, &hasher).encoding(), Encoding::SkipList);
    assert_eq!(ZSet::for_members(1, 6, limits, &hasher).encoding(), Encoding::SkipList);
}

#[test]
fn scores_keep_every_bit_in_both_forms() {
    for entries in [0, 100] {
        let (hasher, limits) = (Hasher::new([1, 2]), Limits { entries, value: 64 });
        let mut set = ZSet::for_members(1, 1, limits, &hasher);
        let scores = [f64::NEG_INFINITY, -1e300, -0.1, 0.1 + 0.2, 1e15, 9007199254740993.0, 1e17, 1e300, f64::INFINITY];
        for (i, score) in scores.into_iter().enumerate() {
            set.insert_absent(i.to_string().as_bytes(), score, limits, &hasher);
        }
        assert_eq!(all(&set).iter().map(|item| item.0).collect::<Vec<_>>(), scores);
    }
}
