//! Fingerprints of keys and of the whole dataset, as `DEBUG DIGEST` and `DEBUG DIGEST-VALUE` give them.
//!
//! The way of hashing is Redis's to the bit, so that the same data has the same fingerprint on both, whatever the
//! order of keys, the number of shards, or the encodings. A [`Digest`] takes parts that have an order by
//! [`Digest::mix`], and parts that have none by [`Digest::xor`]. A type of value is added to [`Digest::of_value`]:
//! lists and strings mix their elements, sets xor theirs, hashes and sorted sets xor a digest an element.
//! Counterpart: `computeDatasetDigest` (`debug.c`).

use crate::entry::{EntryPtr, Kind};
use crate::object::ObjectRef;
use crate::types::stream::StreamId;

/// A score as C's `%.17g` spells it, which is how Redis takes it into a digest.
fn seventeen_digits(score: f64) -> String {
    if !score.is_finite() {
        return if score > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let text = format!("{score:.16e}");
    let (digits, exponent) = text.split_once('e').expect("an exponent was asked for");
    let exponent: i32 = exponent.parse().expect("an exponent is a number");
    let strip = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text.to_string(),
    };
    match exponent {
        -4..17 => strip(&format!("{score:.*}", (16 - exponent) as usize)),
        _ => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{}e{sign}{:02}", strip(digits), exponent.abs())
        }
    }
}

/// 20 bytes that stand for data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest([u8; 20]);

fn sha1(bytes: &[u8]) -> [u8; 20] {
    sha1_smol::Sha1::from(bytes).digest().bytes()
}

impl Digest {
    /// Takes in data whose order among its like does not matter.
    pub fn xor(&mut self, bytes: &[u8]) {
        self.0.iter_mut().zip(sha1(bytes)).for_each(|(mine, theirs)| *mine ^= theirs);
    }

    /// Takes in data whose order matters.
    pub fn mix(&mut self, bytes: &[u8]) {
        self.xor(bytes);
        self.0 = sha1(&self.0);
    }

    /// Takes in another digest as data without order.
    pub fn xor_digest(&mut self, other: &Digest) {
        self.xor(&other.0);
    }

    /// Adds the value of a key: its type, what it holds, and whether it will expire.
    pub fn add_value(&mut self, entry: EntryPtr) {
        self.mix(&(entry.kind() as u32).to_be_bytes());
        match entry.kind() {
            Kind::String => {
                let text = entry.string().expect("a string has a text");
                self.mix(text.as_bytes(&mut itoa::Buffer::new()));
            }
            Kind::Hash => {
                let Some(ObjectRef::Hash(hash)) = entry.object() else { unreachable!("a hash is an ObjectRef::Hash") };
                hash.for_each(|field, value| {
                    let mut pair = Digest::default();
                    pair.mix(field.as_bytes(&mut itoa::Buffer::new()));
                    pair.mix(value.as_bytes(&mut itoa::Buffer::new()));
                    self.xor_digest(&pair);
                });
            }
            Kind::List => {
                let Some(ObjectRef::List(list)) = entry.object() else { unreachable!("a list's object") };
                list.for_each(|element| self.mix(element.as_bytes(&mut itoa::Buffer::new())));
            }
            Kind::Set => {
                // Members have no order, so nothing is mixed between them.
                let Some(ObjectRef::Set(set)) = entry.object() else { unreachable!("a set's object") };
                set.for_each(|member| self.xor(member.as_bytes(&mut itoa::Buffer::new())));
            }
            Kind::Stream => {
                let Some(ObjectRef::Stream(stream)) = entry.object() else { unreachable!("a stream's object") };
                for item in stream.range(StreamId::MIN, StreamId::MAX) {
                    self.mix(format!("{}.{}", item.id.ms, item.id.seq).as_bytes());
                    item.for_each(|field, value| {
                        self.mix(field.as_bytes(&mut itoa::Buffer::new()));
                        self.mix(value.as_bytes(&mut itoa::Buffer::new()));
                    });
                }
            }
            Kind::ZSet => {
                let Some(ObjectRef::ZSet(set)) = entry.object() else { unreachable!("a sorted set's object") };
                set.for_each(|member, score| {
                    let mut pair = Digest::default();
                    pair.mix(member.as_bytes(&mut itoa::Buffer::new()));
                    pair.mix(seventeen_digits(score).as_bytes());
                    self.xor_digest(&pair);
                });
            }
        }
        if entry.expire_at().is_some() {
            self.xor(b"!!expire!!");
        }
    }

    /// The fingerprint of one value.
    pub fn of_value(entry: EntryPtr) -> Self {
        let mut digest = Digest::default();
        digest.add_value(entry);
        digest
    }

    /// Adds a key with its value to the fingerprint of a dataset.
    pub fn add_entry(&mut self, entry: EntryPtr) {
        let mut digest = Digest::default();
        digest.mix(entry.key());
        digest.add_value(entry);
        self.xor_digest(&digest);
    }

    /// Adds the number of a database whose keys follow.
    pub fn add_database(&mut self, number: u32) {
        self.mix(&number.to_be_bytes());
    }

    /// 40 hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_digests_redis_gives_them() {
        // DEBUG DIGEST-VALUE of redis-server 7.0.15 after SET s hello and SET n 1234.
        let text = EntryPtr::new_string(b"s", b"hello", None);
        let number = EntryPtr::new_int(b"n", 1234, None);
        assert_eq!(Digest::of_value(text).hex(), "36b23a1456b2dce2c3ed252c456761301dba8060");
        assert_eq!(Digest::of_value(number).hex(), "5251ee9402fed6b9bcdb402b90a4e9c7dff427f9");
        // SAFETY: no table holds these entries, and they are not used again.
        unsafe {
            text.free();
            number.free();
        }
    }

    #[test]
    fn scores_are_spelt_as_c_does() {
        let cases = [
            (0.1, "0.10000000000000001"),
            (3.0, "3"),
            (-2.5, "-2.5"),
            (1e17, "1e+17"),
            (12345678901234567.0, "12345678901234568"),
            (1e-5, "1.0000000000000001e-05"),
            (0.0001, "0.0001"),
            (-0.0, "-0"),
            (f64::INFINITY, "inf"),
            (1.5e300, "1.5000000000000001e+300"),
        ];
        for (score, text) in cases {
            assert_eq!(seventeen_digits(score), text);
        }
    }

    #[test]
    fn order_matters_where_it_should() {
        let both = |first: &[u8], second: &[u8], mix: bool| {
            let mut digest = Digest::default();
            for part in [first, second] {
                if mix { digest.mix(part) } else { digest.xor(part) }
            }
            digest
        };
        assert_eq!(both(b"a", b"b", false), both(b"b", b"a", false));
        assert_ne!(both(b"a", b"b", true), both(b"b", b"a", true));
        assert_eq!(Digest::default().hex(), "0".repeat(40));
    }
}
