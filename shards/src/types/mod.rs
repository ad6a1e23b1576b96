//! The types of values: what a hash, a set, a list is, whichever way it lies in memory.
//!
//! A type chooses between encodings (`encodings/`, `dict/`) by size, under the directives that Redis has for it, and
//! knows nothing of keys or commands.

pub mod field_expire;
pub mod hash;
pub mod list;
pub mod member;
pub mod set;
pub mod stream;
pub mod zset;

pub use hash::Hash;
pub use list::List;
pub use set::Set;
pub use stream::Stream;
pub use zset::ZSet;

use crate::dict::Hasher;
use crate::entry::StrRef;

/// Whether no two texts of a flat collection from outside are alike. Their hashes, under the secret seed, tell the
/// most; only where two of them are the same the texts are compared.
pub fn are_distinct<'a>(texts: impl Iterator<Item = StrRef<'a>> + Clone, hasher: &Hasher) -> bool {
    let mut few = [0; 128];
    let mut more = Vec::new();
    let mut n = 0;
    for text in texts.clone() {
        let hash = hasher.hash(text.as_bytes(&mut itoa::Buffer::new()));
        match few.get_mut(n) {
            Some(slot) => *slot = hash,
            None => more.push(hash),
        }
        n += 1;
    }
    let hashes = match more.is_empty() {
        true => &mut few[..n],
        false => {
            more.extend_from_slice(&few);
            &mut more[..]
        }
    };
    hashes.sort_unstable();
    if hashes.windows(2).all(|pair| pair[0] != pair[1]) {
        return true;
    }
    let mut seen = std::collections::HashSet::new();
    texts.into_iter().all(|text| seen.insert(text.as_bytes(&mut itoa::Buffer::new()).to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_come_twice_are_found() {
        let hasher = Hasher::new([1, 2]);
        for n in [0, 1, 2, 3, 127, 128, 129, 500] {
            let texts: Vec<Vec<u8>> = (0..n).map(|i| format!("text:{i}").into_bytes()).collect();
            let distinct = |texts: &[Vec<u8>]| are_distinct(texts.iter().map(|text| StrRef::Bytes(text)), &hasher);
            assert!(distinct(&texts));
            for (from, to) in [(0, n / 2), (n / 2, n - n.min(1)), (0, n - n.min(1))] {
                if from < to {
                    let mut twice = texts.clone();
                    twice[to] = twice[from].clone();
                    assert!(!distinct(&twice), "{n} {from} {to}");
                }
            }
        }
        assert!(!are_distinct([StrRef::Int(17), StrRef::Bytes(b"17")].into_iter(), &hasher));
    }
}
