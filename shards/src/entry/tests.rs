//! `EntryPtr` against a plain struct, and the sizes it promises.

use proptest::prelude::*;

use super::*;
use crate::dict::Hasher;
use crate::encodings::QuickList;
use crate::types::set::SetLimits;
use crate::types::{Hash, List, Set, ZSet, hash, zset};

/// What an entry should say, kept the obvious way.
#[derive(Clone, Debug)]
struct Naive {
    key: Vec<u8>,
    text: Vec<u8>,
    encoding: Encoding,
    expire_at: Option<i64>,
    lru: u32,
    epoch: u8,
}

impl Naive {
    fn encoding_of(text: &[u8]) -> Encoding {
        let number = std::str::from_utf8(text).ok().and_then(|t| t.parse::<i64>().ok());
        if number.is_some_and(|n| n.to_string().as_bytes() == text) {
            Encoding::Int
        } else if text.len() <= 44 {
            Encoding::EmbStr
        } else {
            Encoding::Raw
        }
    }
}

fn check(entry: EntryPtr, naive: &Naive) {
    assert_eq!(entry.key(), naive.key);
    assert_eq!(entry.kind(), Kind::String);
    assert_eq!(entry.encoding(), naive.encoding);
    assert_eq!(entry.expire_at(), naive.expire_at);
    assert_eq!((entry.lru(), entry.epoch()), (naive.lru, naive.epoch));
    let value = entry.string().unwrap();
    assert_eq!(value.as_bytes(&mut itoa::Buffer::new()), naive.text);
    assert_eq!(value.len(), naive.text.len());
    assert_eq!(value.is_empty(), naive.text.is_empty());
    assert_eq!(entry.object().is_some(), entry.header().is_object());
    assert_eq!(entry.0.addr().get() % 8, 0);
    // An entry never wastes more than its size class: 15 bytes up to 128, a fifth beyond.
    let parts = 8 + naive.key.len() + 8 * 3 + naive.text.len().min(INLINE_MAX);
    assert!(entry.allocation_size() <= (parts + 15).max(parts * 5 / 4));
    assert!(entry.heap_bytes() >= naive.key.len() + naive.text.len().min(8));
}

#[derive(Clone, Debug)]
enum Op {
    Overwrite(Vec<u8>),
    OverwriteInt(i64),
    OverwriteText(Vec<u8>),
    /// Resize to this length and write the byte at the end.
    Resize(usize, u8),
    Append(Vec<u8>),
    Expire(Option<i64>),
    Rename(Vec<u8>),
    Lru(u32, u8),
    Box(Vec<u8>),
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..60),
        2 => prop::collection::vec(any::<u8>(), 0..700),
        1 => (0usize..10_000, any::<u8>()).prop_map(|(n, byte)| vec![byte; n]),
        1 => (INLINE_MAX - 3..INLINE_MAX + 4).prop_map(|n| vec![7; n]),
        2 => any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        1 => (-200i64..200).prop_map(|n| n.to_string().into_bytes()),
        1 => "[-+ ]?0?[0-9]{0,21}".prop_map(String::into_bytes),
    ]
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (2040usize..2056, any::<u8>()).prop_map(|(n, byte)| vec![byte; n]),
        1 => Just(vec![1; 70_000]),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => text().prop_map(Op::Overwrite),
        1 => any::<i64>().prop_map(Op::OverwriteInt),
        2 => text().prop_map(Op::OverwriteText),
        2 => (0usize..9000, any::<u8>()).prop_map(|(n, byte)| Op::Resize(n, byte)),
        4 => text().prop_map(Op::Append),
        4 => any::<Option<i64>>().prop_map(Op::Expire),
        1 => key().prop_map(Op::Rename),
        1 => (0u32..1 << 24, 0u8..4).prop_map(|(lru, epoch)| Op::Lru(lru, epoch)),
        1 => text().prop_map(Op::Box),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 6 } else { 1000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn agrees_with_a_plain_struct(
        key in key(),
        first in text(),
        expire_at: Option<i64>,
        ops in prop::collection::vec(op(), 0..if cfg!(miri) { 12 } else { 40 }),
    ) {
        let mut entry = EntryPtr::new_string(&key, &first, expire_at);
        let encoding = Naive::encoding_of(&first);
        let mut naive = Naive { key, text: first, encoding, expire_at, lru: 0, epoch: 0 };
        check(entry, &naive);
        for op in ops {
            // SAFETY: `entry` is the only handle, and each call's result takes its place.
            unsafe {
                match op {
                    Op::Overwrite(text) => {
                        entry = entry.overwrite_string(&text);
                        naive.encoding = Naive::encoding_of(&text);
                        naive.text = text;
                    }
                    Op::OverwriteInt(number) => {
                        entry = entry.overwrite_int(number);
                        naive.text = number.to_string().into_bytes();
                        naive.encoding = Encoding::Int;
                    }
                    Op::OverwriteText(text) => {
                        entry = entry.overwrite_text(&text);
                        naive.encoding =
                            if text.len() <= 44 { Encoding::EmbStr } else { Encoding::Raw };
                        naive.text = text;
                    }
                    Op::Resize(len, byte) => {
                        let (moved, bytes) = entry.string_mut(len);
                        if let Some(last) = bytes.last_mut() {
                            *last = byte;
                        }
                        entry = moved;
                        naive.text.resize(len, 0);
                        if let Some(last) = naive.text.last_mut() {
                            *last = byte;
                        }
                        naive.encoding = Encoding::Raw;
                    }
                    Op::Append(text) => {
                        let len = naive.text.len();
                        let (moved, bytes) = entry.string_mut(len + text.len());
                        assert!(bytes[len..].iter().all(|&b| b == 0));
                        bytes[len..].copy_from_slice(&text);
                        entry = moved;
                        naive.text.extend(text);
                        naive.encoding = Encoding::Raw;
                    }
                    Op::Expire(at) => {
                        entry = entry.set_expire(at);
                        naive.expire_at = at;
                    }
                    Op::Rename(key) => {
                        let text = |entry: EntryPtr| match entry.object() {
                            Some(ObjectRef::String(text)) => Some(ptr::from_ref(text)),
                            _ => None,
                        };
                        let before = text(entry);
                        entry = entry.with_key(&key);
                        assert_eq!(before, text(entry));
                        naive.key = key;
                    }
                    Op::Lru(lru, epoch) => {
                        entry.set_lru(lru);
                        entry.set_epoch(epoch);
                        (naive.lru, naive.epoch) = (lru, epoch);
                    }
                    Op::Box(text) => {
                        entry = entry.overwrite_object(Object::String(text.clone()));
                        naive.text = text;
                        naive.encoding = Encoding::Raw;
                    }
                }
            }
            check(entry, &naive);
        }
        // SAFETY: the only handle.
        unsafe { entry.free() };
    }

    #[test]
    fn canonical_numbers_are_those_that_print_as_they_were(text in "[-+ ]?[0-9]{0,21}") {
        let printed = text.parse::<i64>().ok().filter(|n| n.to_string() == text);
        prop_assert_eq!(canonical_i64(text.as_bytes()), printed);
    }
}

#[test]
fn the_ends_of_i64_are_canonical_and_what_lies_behind_is_not() {
    for text in ["0", "-1", "9223372036854775807", "-9223372036854775808"] {
        assert_eq!(canonical_i64(text.as_bytes()), Some(text.parse().unwrap()));
    }
    let not = ["", "-", "-0", "01", "+1", " 1", "1 ", "9223372036854775808", "1e3", "0x1"];
    for text in not.iter().chain(&["-9223372036854775809", "99999999999999999999"]) {
        assert_eq!(canonical_i64(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn a_short_key_and_value_take_one_line() {
    let entry = EntryPtr::new_string(&[b'k'; 16], &[b'v'; 32], None);
    assert_eq!((entry.allocation_size(), entry.heap_bytes()), (64, 64));
    // SAFETY: the only handle.
    unsafe {
        let with_expire = entry.set_expire(Some(5));
        assert_eq!(with_expire, entry, "the slack of the class takes the expire");
        // A shorter value of the same class stays in place, one of another class moves.
        assert_eq!(with_expire.overwrite_string(&[b'v'; 20]), entry);
        let small = entry.overwrite_string(b"v");
        assert_eq!(small.allocation_size(), 48);
        assert_eq!(small.expire_at(), Some(5));
        small.free();
    }
}

/// Byte by byte to 64 KiB: the entry moves only when its class is full, the object doubles.
#[test]
fn appending_byte_by_byte_moves_rarely() {
    let mut entry = EntryPtr::new_string(b"k", b"", None);
    let mut moves = 0;
    let len = if cfg!(miri) { 4200 } else { 65536 };
    for i in 0..len {
        // SAFETY: the only handle.
        let (moved, text) = unsafe { entry.string_mut(i + 1) };
        text[i] = i as u8;
        moves += usize::from(moved != entry);
        entry = moved;
    }
    assert!(moves < 30, "{moves}");
    let Some(StrRef::Bytes(text)) = entry.string() else { panic!() };
    assert!(text.iter().enumerate().all(|(i, &byte)| byte == i as u8));
    assert!(entry.heap_bytes() <= 2 * len + 100);
    // SAFETY: the only handle.
    unsafe { entry.free() };
}

#[test]
fn a_collection_keeps_its_object_through_renames_and_expires() {
    let hasher = Hasher::new([1, 2]);
    let mut entry = EntryPtr::new_object(b"k", Object::Set(Set::ints()), Some(9));
    // The header, the time, the word and the key.
    assert_eq!(entry.allocation_size(), 32);
    assert_eq!((entry.kind(), entry.kind().name()), (Kind::Set, "set"));
    assert_eq!((entry.encoding(), entry.encoding().name()), (Encoding::IntSet, "intset"));
    assert!(entry.string().is_none());
    let limits = SetLimits { intset_entries: 9, listpack_entries: 9, listpack_value: 9 };
    // SAFETY: the only handle, and no reference outlives its statement.
    unsafe {
        match entry.object_mut().unwrap() {
            ObjectMut::Set(set) => set.insert(StrRef::Bytes(b"text"), &limits, &hasher),
            other => unreachable!("{other:?} in a set"),
        };
        assert_eq!(entry.object().unwrap().encoding(), Encoding::ListPack);
        entry.set_encoding(Encoding::ListPack);
        entry = entry.set_expire(None).with_key(&[b'n'; 3000]).set_expire(Some(3));
        assert_eq!(entry.key(), [b'n'; 3000]);
        assert_eq!((entry.expire_at(), entry.encoding()), (Some(3), Encoding::ListPack));
        assert!(matches!(entry.object(), Some(ObjectRef::Set(set)) if set.contains(StrRef::Bytes(b"text"))));
        // SET over a set: the object goes, key and expire stay.
        entry = entry.overwrite_string(b"12");
        assert_eq!((entry.kind(), entry.encoding()), (Kind::String, Encoding::Int));
        assert_eq!((entry.string(), entry.expire_at()), (Some(StrRef::Int(12)), Some(3)));
        entry.free();
    }
}

#[test]
fn kinds_and_encodings_come_back_from_their_bits() {
    let hasher = Hasher::new([1, 2]);
    let zset = |entries| ZSet::for_members(1, 1, zset::Limits { entries, value: 9 }, &hasher);
    let hash = |entries| Hash::for_fields(1, 1, hash::Limits { entries, value: 9 }, &hasher);
    let all = [
        (Object::String(Vec::new()), Kind::String, Encoding::Raw),
        (Object::List(List::default()), Kind::List, Encoding::ListPack),
        (Object::List(QuickList::default().into()), Kind::List, Encoding::QuickList),
        (Object::Set(Set::ints()), Kind::Set, Encoding::IntSet),
        (Object::Set(Set::list()), Kind::Set, Encoding::ListPack),
        (Object::Set(Set::table(&hasher)), Kind::Set, Encoding::HashTable),
        (Object::ZSet(zset(1)), Kind::ZSet, Encoding::ListPack),
        (Object::ZSet(zset(0)), Kind::ZSet, Encoding::SkipList),
        (Object::Hash(hash(1)), Kind::Hash, Encoding::ListPack),
        (Object::Hash(hash(0)), Kind::Hash, Encoding::HashTable),
        (Object::Stream(Box::default()), Kind::Stream, Encoding::Stream),
    ];
    for (object, kind, encoding) in all {
        let entry = EntryPtr::new_object(b"", object, None);
        assert_eq!((entry.kind(), entry.encoding()), (kind, encoding));
        let copy = EntryPtr::new_object(b"copy", entry.object().unwrap().to_object(), None);
        assert_eq!((copy.kind(), copy.object().unwrap().encoding()), (kind, encoding));
        // SAFETY: the only handles.
        unsafe {
            entry.free();
            copy.free();
        }
    }
}
