//! `FieldExpires`: the times at which fields of one hash go, by field and in order of time.
//!
//! A hash has this beside its fields only once one of them was given a time, so a hash without pays one null pointer.
//! Redis's counterparts are the triplets of `listpackex` and the `ebuckets` of large hashes.

use std::collections::{BTreeMap, BTreeSet};

/// See the head of the file. Times are Unix ms.
#[derive(Clone, Debug, Default)]
pub struct FieldExpires {
    by_field: BTreeMap<Box<[u8]>, i64>,
    by_time: BTreeSet<(i64, Box<[u8]>)>,
    bytes: usize,
}

/// About what the two trees take for one field beside its name.
const OVERHEAD: usize = 64;

impl FieldExpires {
    /// When a field goes.
    pub fn get(&self, field: &[u8]) -> Option<i64> {
        self.by_field.get(field).copied()
    }

    /// Sets, or with `None` removes, a field's time; returns the one before.
    pub fn set(&mut self, field: &[u8], at: Option<i64>) -> Option<i64> {
        let old = match at {
            Some(at) => self.by_field.insert(field.into(), at),
            None => self.by_field.remove(field),
        };
        if let Some(old) = old {
            self.by_time.remove(&(old, field.into()));
            self.bytes -= 2 * (field.len() + OVERHEAD);
        }
        if let Some(at) = at {
            self.by_time.insert((at, field.into()));
            self.bytes += 2 * (field.len() + OVERHEAD);
        }
        old
    }

    /// The earliest time.
    pub fn first(&self) -> Option<i64> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Up to `most` fields whose time is `now_ms` or before, the earliest first.
    pub fn due(&self, now_ms: i64, most: usize) -> Vec<Box<[u8]>> {
        self.by_time.iter().take_while(|(at, _)| *at <= now_ms).take(most).map(|(_, field)| field.clone()).collect()
    }

    /// How many fields' time is `now_ms` or before.
    pub fn due_len(&self, now_ms: i64) -> usize {
        self.by_time.iter().take_while(|(at, _)| *at <= now_ms).count()
    }

    /// Every field with its time.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], i64)> {
        self.by_field.iter().map(|(field, at)| (&**field, *at))
    }

    /// Bytes of the heap, about.
    pub fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn as_a_map(ops in prop::collection::vec((0..12u8, prop::option::of(0..40i64)), 1..80), now in 0..40i64) {
            let (mut expires, mut oracle) = (FieldExpires::default(), BTreeMap::new());
            for (field, at) in ops {
                let name = [field];
                let old = match at {
                    Some(at) => oracle.insert(name.to_vec(), at),
                    None => oracle.remove(name.as_slice()),
                };
                prop_assert_eq!(expires.set(&name, at), old);
                prop_assert_eq!(expires.first(), oracle.values().min().copied());
                let due = oracle.values().filter(|at| **at <= now).count();
                prop_assert_eq!((expires.due_len(now), expires.due(now, 99).len()), (due, due));
            }
            prop_assert!(expires.iter().map(|(field, at)| (field.to_vec(), at)).eq(oracle));
        }
    }
}
