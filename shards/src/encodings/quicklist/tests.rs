//! Random changes against a `VecDeque`, under many limits; what Redis does to nodes by hand.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;

fn text(element: StrRef<'_>) -> Vec<u8> {
    element.as_bytes(&mut itoa::Buffer::new()).to_vec()
}

fn collect(list: &QuickList, from: usize, backward: bool) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let _ = list.walk(from, backward, |element| {
        all.push(text(element));
        ControlFlow::Continue(())
    });
    all
}

/// Compares all that can be asked with the oracle, and looks at the chain's own order.
fn same(list: &QuickList, oracle: &VecDeque<Vec<u8>>) {
    assert_eq!((list.len(), list.is_empty()), (oracle.len(), oracle.is_empty()));
    assert_eq!(collect(list, 0, false), Vec::from(oracle.clone()));
    assert_eq!(list.end(true).map(text), oracle.front().cloned());
    assert_eq!(list.end(false).map(text), oracle.back().cloned());
    for (i, wanted) in oracle.iter().enumerate() {
        assert_eq!(&text(list.get(i)), wanted);
    }
    if let Some(last) = oracle.len().checked_sub(1) {
        let backward: Vec<_> = oracle.iter().rev().cloned().collect();
        assert_eq!(collect(list, last, true), backward);
        let middle = oracle.len() / 2;
        assert_eq!(collect(list, middle, false), Vec::from(oracle.clone())[middle..]);
        assert_eq!(collect(list, middle, true), backward[last - middle..]);
    }
    assert!(collect(list, oracle.len(), false).is_empty());
    for node in &list.nodes {
        assert!(node.count > 0);
        if let Body::Pack(pack) = &node.body {
            assert_eq!(pack.len(), node.count as usize);
        }
    }
}

fn shape(list: &QuickList) -> Vec<i64> {
    list.nodes().map(|node| node.map_or(-1, |pack| pack.len() as i64)).collect()
}

#[test]
fn limits_are_those_of_the_directive() {
    for (fill, bytes) in [(-1, 4096), (-2, 8192), (-5, 65536), (-6, 65536), (i64::MIN, 65536)] {
        let limits = NodeLimits::new(fill, 0);
        assert!(!limits.exceeded(bytes, 1 << 20) && limits.exceeded(bytes + 1, 1));
        assert!(!limits.is_large(bytes) && limits.is_large(bytes + 1));
    }
    for (fill, count) in [(0, 1), (1, 1), (16, 16)] {
        let limits = NodeLimits::new(fill, 0);
        assert!(!limits.exceeded(8192, count) && limits.exceeded(8192, count + 1) && limits.exceeded(8193, 1));
    }
    let limits = NodeLimits::new(-2, 10);
    assert!(!limits.is_large(9) && limits.is_large(10));
    assert!(NodeLimits::new(-2, u64::MAX).is_large(SHARED_MAX + 1));
}

#[test]
fn nodes_fill_split_and_merge_as_in_redis() {
    let limits = NodeLimits::new(4, 0);
    let mut list = QuickList::default();
    for n in 0..10 {
        list.push(false, n.to_string().as_bytes(), &limits);
    }
    assert_eq!(shape(&list), [4, 4, 2]);
    // In the middle of a full node: it is split, and the halves join what is beside them if they fit.
    list.insert(5, true, b"x", &limits);
    assert_eq!(shape(&list), [4, 2, 3, 2]);
    list.insert(4, false, b"y", &limits);
    assert_eq!(shape(&list), [4, 3, 3, 2]);
    // Before the first of a full node whose neighbour is full: a node of its own.
    list.insert(0, false, b"z", &limits);
    assert_eq!(shape(&list), [1, 4, 3, 3, 2]);
    list.insert(1, false, b"w", &limits);
    assert_eq!(shape(&list), [2, 4, 3, 3, 2]);
    let large = vec![b'l'; 9000];
    list.replace(3, &large, &limits);
    assert_eq!(shape(&list), [3, -1, 2, 3, 3, 2]);
    list.replace(3, b"short", &limits);
    assert_eq!(shape(&list), [3, 3, 3, 3, 2]);
    list.insert(4, true, &large, &limits);
    assert_eq!(shape(&list), [3, 2, -1, 1, 3, 3, 2]);
    list.delete_range(4, 9);
    assert_eq!(shape(&list), [3, 1, 2]);
}

#[derive(Clone, Debug)]
enum Op {
    Push(bool, Vec<u8>),
    Pop(bool),
    Replace(prop::sample::Index, Vec<u8>),
    Insert(prop::sample::Index, bool, Vec<u8>),
    Delete(prop::sample::Index, usize),
    Remove(Vec<u8>, usize, bool),
}

fn element() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => (0..20i64).prop_map(|n| n.to_string().into_bytes()),
        1 => any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        3 => prop::collection::vec(b'a'..b'd', 0..3),
        2 => (any::<u8>(), 0..200usize).prop_map(|(b, n)| vec![b; n]),
        1 => (any::<u8>(), 4000..9000usize).prop_map(|(b, n)| vec![b; n]),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => (any::<bool>(), element()).prop_map(|(front, text)| Op::Push(front, text)),
        2 => any::<bool>().prop_map(Op::Pop),
        2 => (index(), element()).prop_map(|(at, text)| Op::Replace(at, text)),
        3 => (index(), any::<bool>(), element()).prop_map(|(at, after, text)| Op::Insert(at, after, text)),
        1 => (index(), 0..20usize).prop_map(|(at, count)| Op::Delete(at, count)),
        1 => (element(), 1..4usize, any::<bool>()).prop_map(|(text, max, backward)| Op::Remove(text, max, backward)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn as_a_deque(
        fill in prop_oneof![Just(-2i64), Just(-1), Just(0), Just(1), Just(3), Just(16)],
        threshold in prop_oneof![3 => Just(0u64), 1 => Just(3), 1 => Just(100)],
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let limits = NodeLimits::new(fill, threshold);
        let (mut list, mut oracle) = (QuickList::default(), VecDeque::<Vec<u8>>::new());
        for op in ops {
            let len = oracle.len();
            match op {
                Op::Push(front, text) => {
                    list.push(front, &text, &limits);
                    if front { oracle.push_front(text) } else { oracle.push_back(text) }
                }
                Op::Pop(front) if len > 0 => {
                    list.pop(front);
                    if front { oracle.pop_front() } else { oracle.pop_back() };
                }
                Op::Replace(at, text) if len > 0 => {
                    list.replace(at.index(len), &text, &limits);
                    oracle[at.index(len)] = text;
                }
                Op::Insert(at, after, text) if len > 0 => {
                    list.insert(at.index(len), after, &text, &limits);
                    oracle.insert(at.index(len) + usize::from(after), text);
                }
                Op::Delete(at, count) if len > 0 => {
                    let at = at.index(len);
                    list.delete_range(at, count);
                    oracle.drain(at..(at + count).min(len));
                }
                Op::Remove(text, max, backward) => {
                    let mut places: Vec<usize> = (0..len).filter(|i| oracle[*i] == text).collect();
                    if backward {
                        places.reverse();
                    }
                    places.truncate(max);
                    places.sort_unstable();
                    prop_assert_eq!(list.remove(&Needle::new(&text), max, backward), places.len());
                    for place in places.into_iter().rev() {
                        oracle.remove(place);
                    }
                }
                _ => {}
            }
            same(&list, &oracle);
        }
    }
}
