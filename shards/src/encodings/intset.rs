//! `IntSet`: a small set of integers as one sorted array. Redis's byte format exactly.
//!
//! The one idea: all members have the width of the widest, so a member is found by bisection and the array grows by
//! one slot a member. A member that does not fit widens all of them; the width never shrinks again. The bytes are
//! those that Redis keeps in memory and writes to its files, so `DUMP` and `RESTORE` copy them as they are.
//!
//! ```text
//!   4 bytes LE            4 bytes LE     width bytes LE each, ascending
//! +---------------------+--------------+----------+----------+-----
//! | width: 2, 4 or 8    | members      | smallest |          | ...
//! +---------------------+--------------+----------+----------+-----
//! ```
//!
//! Sets use it ([`crate::types::set`]). Counterpart: `intset.c`.

use super::headed::{Head, Headed};

/// Bytes before the members.
const HEAD: usize = 8;

/// A sorted array of distinct integers. See the head of this file.
#[derive(Clone, PartialEq, Eq)]
pub struct IntSet(Headed<Members>);

/// The width and the number of the members.
struct Members;

impl Head for Members {
    const BYTES: usize = HEAD;

    #[inline]
    fn len(head: &[u8]) -> usize {
        let count = u32::from_le_bytes(*head.last_chunk().expect("eight bytes"));
        HEAD + usize::from(head[0]) * count as usize
    }

    fn set_len(head: &mut [u8], len: usize) {
        let count = (len - HEAD) / usize::from(head[0]);
        let count = u32::try_from(count).expect("conversions keep arrays below 2^30 members");
        head[4..].copy_from_slice(&count.to_le_bytes());
    }
}

impl std::fmt::Debug for IntSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Default for IntSet {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes that a member of this value needs.
fn width_of(value: i64) -> usize {
    if i16::try_from(value).is_ok() {
        2
    } else if i32::try_from(value).is_ok() {
        4
    } else {
        8
    }
}

/// The member at `index` of an array of members `width` bytes wide.
#[inline]
fn member(body: &[u8], width: usize, index: usize) -> i64 {
    let at = index * width;
    match width {
        2 => i16::from_le_bytes(body[at..at + 2].try_into().expect("two bytes")).into(),
        4 => i32::from_le_bytes(body[at..at + 4].try_into().expect("four bytes")).into(),
        _ => i64::from_le_bytes(body[at..at + 8].try_into().expect("eight bytes")),
    }
}

impl IntSet {
    /// An empty set, two bytes wide.
    pub fn new() -> Self {
        IntSet(Headed::new(&[2, 0, 0, 0, 0, 0, 0, 0]))
    }

    /// A set from foreign bytes, if they are one: a known width, the length that the head says, at least one member,
    /// strictly ascending.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; HEAD] = bytes.first_chunk()?;
        let width = u32::from_le_bytes(*head.first_chunk()?) as usize;
        let len = u32::from_le_bytes(*head.last_chunk()?) as usize;
        let fits = matches!(width, 2 | 4 | 8) && len > 0 && len.checked_mul(width) == Some(bytes.len() - HEAD);
        if !fits {
            return None;
        }
        let body = &bytes[HEAD..];
        let ascending = (1..len).all(|i| member(body, width, i - 1) < member(body, width, i));
        ascending.then(|| IntSet(Headed::new(bytes)))
    }

    /// The bytes in Redis's format.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Members held.
    #[inline]
    pub fn len(&self) -> usize {
        u32::from_le_bytes(*self.0[4..].first_chunk().expect("behind the width")) as usize
    }

    /// True when it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of each member: 2, 4 or 8.
    #[inline]
    pub fn width(&self) -> usize {
        self.0[0] as usize
    }

    /// The member at `index` in ascending order.
    ///
    /// # Panics
    /// When there is none.
    #[inline]
    pub fn at(&self, index: usize) -> i64 {
        member(&self.0[HEAD..], self.width(), index)
    }

    /// The smallest member.
    pub fn first(&self) -> Option<i64> {
        (!self.is_empty()).then(|| self.at(0))
    }

    /// The largest member.
    pub fn last(&self) -> Option<i64> {
        (!self.is_empty()).then(|| self.at(self.len() - 1))
    }

    /// The members in ascending order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = i64> + '_ {
        let (body, width) = (&self.0[HEAD..], self.width());
        (0..self.len()).map(move |i| member(body, width, i))
    }

    /// Where `value` is, or where it would be put.
    fn search(&self, value: i64) -> Result<usize, usize> {
        let (body, width) = (&self.0[HEAD..], self.width());
        let (mut low, mut high) = (0, self.len());
        // Numbers mostly come in ascending order: the end is looked at first.
        if high == 0 || member(body, width, high - 1) < value {
            return Err(high);
        }
        while low < high {
            let middle = low + (high - low) / 2;
            match member(body, width, middle).cmp(&value) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Whether `value` is a member.
    #[inline]
    pub fn contains(&self, value: i64) -> bool {
        width_of(value) <= self.width() && self.search(value).is_ok()
    }

    /// Adds `value`; false if it was there.
    pub fn insert(&mut self, value: i64) -> bool {
        let width = width_of(value);
        if width > self.width() {
            self.widen(width);
        }
        let Err(index) = self.search(value) else { return false };
        let width = self.width();
        let (at, end) = (HEAD + index * width, self.0.len());
        self.0.resize(end + width);
        let tail = self.0.tail_mut(at);
        tail.copy_within(..end - at, width);
        tail[..width].copy_from_slice(&value.to_le_bytes()[..width]);
        true
    }

    /// Removes `value`; false if it was not there.
    pub fn remove(&mut self, value: i64) -> bool {
        if width_of(value) > self.width() {
            return false;
        }
        let Ok(index) = self.search(value) else { return false };
        let width = self.width();
        let at = HEAD + index * width;
        self.0.tail_mut(at).copy_within(width.., 0);
        self.0.resize(self.0.len() - width);
        true
    }

    /// Bytes of the heap it takes.
    pub fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }

    fn widen(&mut self, width: usize) {
        let mut bytes = Vec::with_capacity(HEAD + (self.len() + 1) * width);
        bytes.extend_from_slice(&(width as u32).to_le_bytes());
        bytes.extend_from_slice(&self.0[4..HEAD]);
        for value in self.iter() {
            bytes.extend_from_slice(&value.to_le_bytes()[..width]);
        }
        self.0 = Headed::new(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_those_of_redis() {
        let mut set = IntSet::new();
        assert!(set.insert(5) && set.insert(-1) && !set.insert(5));
        assert_eq!(set.as_bytes(), [2, 0, 0, 0, 2, 0, 0, 0, 0xff, 0xff, 5, 0]);
        assert!(set.insert(70_000));
        assert_eq!(set.as_bytes(), [4, 0, 0, 0, 3, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 5, 0, 0, 0, 0x70, 0x11, 1, 0]);
        assert!(set.insert(i64::MIN) && set.remove(70_000));
        // It never becomes narrower again.
        assert_eq!((set.width(), set.len(), set.first(), set.last()), (8, 3, Some(i64::MIN), Some(5)));
    }

    #[test]
    fn foreign_bytes_are_checked() {
        let good = [2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 5, 0];
        assert!(IntSet::from_bytes(&good).is_some());
        let mut swapped = good;
        swapped.swap(8, 10);
        let mut twice = good;
        twice[8] = 5;
        let mut many = good;
        many[4..8].copy_from_slice(&[0xff; 4]);
        let mut odd = good;
        odd[0] = 3;
        for bad in [&swapped[..], &twice, &many, &odd, &good[..11], &good[..7], &[2, 0, 0, 0, 0, 0, 0, 0], &[]] {
            assert!(IntSet::from_bytes(bad).is_none(), "{bad:?}");
        }
    }

    /// Numbers about the borders of the widths, so that they meet and all widths occur.
    fn value() -> impl Strategy<Value = i64> {
        prop_oneof![
            8 => -20i64..20,
            2 => i64::from(i16::MAX) - 3..i64::from(i16::MAX) + 3,
            2 => i64::from(i16::MIN) - 3..i64::from(i16::MIN) + 3,
            1 => i64::from(i32::MAX) - 3..i64::from(i32::MAX) + 3,
            1 => i64::from(i32::MIN) - 3..i64::from(i32::MIN) + 3,
            1 => prop_oneof![Just(i64::MIN), Just(i64::MAX), any::<i64>()],
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_set(steps in prop::collection::vec((any::<bool>(), value()), 0..200)) {
            let (mut set, mut oracle) = (IntSet::new(), BTreeSet::new());
            let mut width = 2;
            for (add, value) in steps {
                prop_assert_eq!(set.contains(value), oracle.contains(&value));
                if add {
                    width = width.max(width_of(value));
                    prop_assert_eq!(set.insert(value), oracle.insert(value));
                } else {
                    prop_assert_eq!(set.remove(value), oracle.remove(&value));
                }
                prop_assert_eq!((set.len(), set.width()), (oracle.len(), width));
                prop_assert_eq!(set.as_bytes()[4..8].to_vec(), (oracle.len() as u32).to_le_bytes().to_vec());
            }
            prop_assert!(set.iter().eq(oracle.iter().copied()));
            prop_assert_eq!((set.first(), set.last()), (oracle.first().copied(), oracle.last().copied()));
            if !oracle.is_empty() {
                prop_assert_eq!(IntSet::from_bytes(set.as_bytes()), Some(set.clone()));
            }
        }

        #[test]
        fn no_bytes_break_it(mut bytes in prop::collection::vec(any::<u8>(), 0..64), width in 0u8..10, fix in any::<bool>()) {
            if fix && bytes.len() >= HEAD {
                bytes[..4].copy_from_slice(&u32::from(width).to_le_bytes());
                let len = (bytes.len() - HEAD) / usize::from(width.max(1));
                bytes[4..8].copy_from_slice(&(len as u32).to_le_bytes());
            }
            if let Some(set) = IntSet::from_bytes(&bytes) {
                prop_assert!(set.iter().is_sorted());
                prop_assert_eq!(set.as_bytes(), &bytes[..]);
                prop_assert!(set.iter().all(|value| set.contains(value)));
            }
        }
    }
}
