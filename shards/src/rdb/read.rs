//! Values as Redis wrote them, of any version: bytes become a value.

use std::borrow::Cow;

use super::legacy::{each_of_zipmap, listpack_of_ziplist};
use super::{Error, container, kind, lzf, special};
use crate::config::Config;
use crate::core::Core;
use crate::dict::Hasher;
use crate::encodings::ListPack;
use crate::encodings::intset::IntSet;
use crate::encodings::quicklist::{NodeLimits, QuickList};
use crate::entry::{EntryPtr, StrRef};
use crate::number::parse_f64;
use crate::object::Object;
use crate::types::list::End;
use crate::types::set::SetLimits;
use crate::types::stream::{Pending, Stream, StreamId};
use crate::types::{Hash, List, Set, ZSet, are_distinct, hash, list, zset};

/// Under which directives values are laid out.
pub struct Limits {
    list: NodeLimits,
    set: SetLimits,
    hash: hash::Limits,
    zset: zset::Limits,
    hasher: Hasher,
}

impl Limits {
    /// Those of the configuration.
    pub fn of(core: &Core) -> Self {
        Limits { list: list::limits(core), ..Self::of_config(&core.config, core.hasher.clone()) }
    }

    /// Those of a configuration.
    pub fn of_config(config: &Config, hasher: Hasher) -> Self {
        Limits {
            list: NodeLimits::new(config.list_max_listpack_size, 0),
            set: SetLimits::of(config),
            hash: hash::Limits::of(config),
            zset: zset::Limits::of(config),
            hasher,
        }
    }
}

/// A value without a key.
#[derive(Debug)]
pub enum Value<'a> {
    /// A string.
    Text(Cow<'a, [u8]>),
    /// A collection.
    Object(Object),
}

impl Value<'_> {
    /// Gives it a key.
    pub fn into_entry(self, key: &[u8], expire_at: Option<i64>) -> EntryPtr {
        match self {
            Value::Text(text) => EntryPtr::new_string(key, &text, expire_at),
            Value::Object(object) => EntryPtr::new_object(key, object, expire_at),
        }
    }
}

/// Bytes that are read from the front.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    /// What is left.
    pub rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Error> {
        let Some((taken, rest)) = self.rest.split_at_checked(n) else { return Err(Error::Short) };
        self.rest = rest;
        Ok(taken)
    }

    /// The next byte.
    pub fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        Ok(self.take(N)?.try_into().expect("as many bytes as asked for"))
    }

    /// A length, or what stands in its place.
    fn head(&mut self) -> Result<Result<u64, u8>, Error> {
        let first = self.byte()?;
        Ok(Ok(match first {
            0..0x40 => u64::from(first),
            0x40..0x80 => u64::from(first & 63) << 8 | u64::from(self.byte()?),
            0x80 => u32::from_be_bytes(self.array()?).into(),
            0x81 => u64::from_be_bytes(self.array()?),
            0xC0.. => return Ok(Err(first)),
            _ => return Err(Error::Corrupt("Unknown length encoding in RDB")),
        }))
    }

    /// A length, or any small number.
    pub fn length(&mut self) -> Result<u64, Error> {
        self.head()?.map_err(|_| Error::Corrupt("A string stands where a length should"))
    }

    /// How many elements follow, of which each takes `each` bytes at least.
    fn count(&mut self, each: usize) -> Result<usize, Error> {
        let n = self.length()?;
        // What claims more elements than there are bytes is refused before anything is allocated for them.
        usize::try_from(n).ok().filter(|n| *n <= self.rest.len() / each).ok_or(Error::Short)
    }

    /// For how many of `n` elements room is made before they are seen. A table takes some 12 bytes for each, so that a
    /// payload cannot have more allocated than one and a half times its length.
    fn room(&self, n: usize) -> usize {
        n.min(self.rest.len() / 8)
    }

    /// A string.
    pub fn string(&mut self) -> Result<Cow<'a, [u8]>, Error> {
        let number = match self.head()? {
            Ok(len) => return Ok(Cow::Borrowed(self.take(usize::try_from(len).map_err(|_| Error::Short)?)?)),
            Err(special::INT8) => i64::from(self.byte()? as i8),
            Err(special::INT16) => i16::from_le_bytes(self.array()?).into(),
            Err(special::INT32) => i32::from_le_bytes(self.array()?).into(),
            Err(special::LZF) => {
                let (packed, len) = (self.length()?, self.length()?);
                let packed = self.take(usize::try_from(packed).map_err(|_| Error::Short)?)?;
                let len = usize::try_from(len).map_err(|_| Error::Short)?;
                return lzf::decompress(packed, len)
                    .map(Cow::Owned)
                    .ok_or(Error::Corrupt("Invalid LZF compressed string"));
            }
            Err(_) => return Err(Error::Corrupt("Unknown RDB string encoding type")),
        };
        Ok(Cow::Owned(itoa::Buffer::new().format(number).as_bytes().to_vec()))
    }

    fn id(&mut self) -> Result<StreamId, Error> {
        Ok(StreamId::new(u64::from_be_bytes(self.array()?), u64::from_be_bytes(self.array()?)))
    }

    fn id_as_lengths(&mut self) -> Result<StreamId, Error> {
        Ok(StreamId::new(self.length()?, self.length()?))
    }

    pub(super) fn ms(&mut self) -> Result<i64, Error> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// A score of the first version, as text.
    fn old_score(&mut self) -> Result<f64, Error> {
        match self.byte()? {
            253 => Ok(f64::NAN),
            254 => Ok(f64::INFINITY),
            255 => Ok(f64::NEG_INFINITY),
            len => parse_f64(self.take(len.into())?).ok_or(Error::Corrupt("A score is no number")),
        }
    }

    fn listpack(&mut self, error: &'static str) -> Result<ListPack, Error> {
        match ListPack::from_bytes(&self.string()?) {
            Some(pack) => Ok(pack),
            None => Err(Error::Corrupt(error)),
        }
    }
}

const HASH_PACK: &str = "Hash listpack integrity check failed.";
const ZSET_PACK: &str = "Zset listpack integrity check failed.";
const SET_PACK: &str = "Set listpack integrity check failed.";
const LIST_PACK: &str = "Listpack integrity check failed.";
const INTSET: &str = "Intset integrity check failed.";

/// Reads the value of this type at the front of `from`.
pub fn value<'a>(kind: u8, from: &mut Cursor<'a>, limits: &Limits) -> Result<Value<'a>, Error> {
    let object = match kind {
        kind::STRING => return Ok(Value::Text(from.string()?)),
        kind::LIST => plain_list(from, limits)?,
        kind::LIST_ZIPLIST => {
            let pack = listpack_of_ziplist(&from.string()?)?;
            built_list(QuickList::from_pack(pack), limits)
        }
        kind::LIST_QUICKLIST => {
            let mut list = QuickList::default();
            for _ in 0..from.count(1)? {
                let pack = listpack_of_ziplist(&from.string()?)?;
                if !pack.is_empty() {
                    list.push_pack(pack);
                }
            }
            built_list(list, limits)
        }
        kind::LIST_QUICKLIST_2 => {
            let mut list = QuickList::default();
            for _ in 0..from.count(2)? {
                match from.length()? {
                    container::PLAIN => {
                        let text = from.string()?;
                        // What stands alone is long.
                        if text.is_empty() {
                            return Err(Error::Empty);
                        }
                        list.push_plain(&text);
                    }
                    container::PACKED => {
                        let pack = from.listpack(LIST_PACK)?;
                        if !pack.is_empty() {
                            list.push_pack(pack);
                        }
                    }
                    _ => return Err(Error::Corrupt("Quicklist integrity check failed.")),
                }
            }
            built_list(list, limits)
        }
        kind::SET => plain_set(from, limits)?,
        kind::SET_INTSET => {
            let bytes = from.string()?;
            let empty = bytes.get(4..8) == Some(&[0; 4]);
            if empty {
                return Err(Error::Empty);
            }
            let Some(ints) = IntSet::from_bytes(&bytes) else { return Err(Error::Corrupt(INTSET)) };
            let mut set = Set::from(ints);
            set.fit(&limits.set, &limits.hasher);
            Object::Set(set)
        }
        kind::SET_LISTPACK => {
            let pack = from.listpack(SET_PACK)?;
            if !are_distinct(pack.iter(), &limits.hasher) {
                return Err(Error::Corrupt(SET_PACK));
            }
            let mut set = Set::from(pack);
            set.fit(&limits.set, &limits.hasher);
            Object::Set(set)
        }
        kind::ZSET | kind::ZSET_2 => plain_zset(kind, from, limits)?,
        kind::ZSET_ZIPLIST | kind::ZSET_LISTPACK => {
            let pack = match kind {
                kind::ZSET_ZIPLIST => listpack_of_ziplist(&from.string()?)?,
                _ => from.listpack(ZSET_PACK)?,
            };
            let Some(mut zset) = ZSet::from_pack(pack, &limits.hasher) else { return Err(Error::Corrupt(ZSET_PACK)) };
            zset.fit(limits.zset, &limits.hasher);
            Object::ZSet(zset)
        }
        kind::HASH => {
            let count = from.count(2)?;
            let mut hash = Hash::for_fields(count, from.room(count), limits.hash, &limits.hasher);
            in_groups(
                count,
                &mut hash,
                |hash| {
                    let pair = (from.string()?, from.string()?);
                    hash.prefetch(&pair.0);
                    Ok(pair)
                },
                |hash, (field, value)| match hash.set(&limits.hasher, limits.hash, &field, &value) {
                    true => Ok(()),
                    false => Err(Error::Corrupt("Duplicate hash fields detected")),
                },
            )?;
            Object::Hash(hash)
        }
        kind::HASH_METADATA => {
            let first = from.ms()?;
            let count = from.count(3)?;
            let mut hash = Hash::for_fields(count, from.room(count), limits.hash, &limits.hasher);
            for _ in 0..count {
                let after = from.length()?;
                let (field, value) = (from.string()?, from.string()?);
                let at = match after {
                    0 => None,
                    after => Some(expire_time(i64::try_from(after - 1).ok().and_then(|ms| first.checked_add(ms)))?),
                };
                if !hash.set(&limits.hasher, limits.hash, &field, &value) {
                    return Err(Error::Corrupt("Duplicate hash fields detected"));
                }
                hash.set_expire(&field, at);
            }
            Object::Hash(hash)
        }
        kind::HASH_LISTPACK_EX => {
            from.ms()?;
            let pack = from.listpack(HASH_PACK)?;
            let mut hash = Hash::new();
            let mut texts = pack.iter();
            while let Some(field) = texts.next() {
                let (Some(value), Some(StrRef::Int(at))) = (texts.next(), texts.next()) else {
                    return Err(Error::Corrupt(HASH_PACK));
                };
                let (mut a, mut b) = (itoa::Buffer::new(), itoa::Buffer::new());
                let (field, value) = (field.as_bytes(&mut a), value.as_bytes(&mut b));
                if !hash.set(&limits.hasher, limits.hash, field, value) {
                    return Err(Error::Corrupt(HASH_PACK));
                }
                if at != 0 {
                    hash.set_expire(field, Some(expire_time(Some(at))?));
                }
            }
            Object::Hash(hash)
        }
        kind::HASH_ZIPMAP => {
            let mut hash = Hash::new();
            each_of_zipmap(&from.string()?, |field, value| {
                match hash.set(&limits.hasher, limits.hash, field, value) {
                    true => Ok(()),
                    false => Err(Error::Corrupt("Hash zipmap with dup elements, or big length (0)")),
                }
            })?;
            Object::Hash(hash)
        }
        kind::HASH_ZIPLIST | kind::HASH_LISTPACK => {
            let pack = match kind {
                kind::HASH_ZIPLIST => listpack_of_ziplist(&from.string()?)?,
                _ => from.listpack(HASH_PACK)?,
            };
            let Some(mut hash) = Hash::from_pack(pack, &limits.hasher) else { return Err(Error::Corrupt(HASH_PACK)) };
            hash.fit(limits.hash, &limits.hasher);
            Object::Hash(hash)
        }
        kind::STREAM_LISTPACKS | kind::STREAM_LISTPACKS_2 | kind::STREAM_LISTPACKS_3 => {
            // A stream may be empty: its last id and its groups are data too.
            let stream = Object::Stream(Box::new(stream(kind, from)?));
            return Ok(Value::Object(stream));
        }
        kind::MODULE_PRE_GA | kind::MODULE_2 => {
            return Err(Error::Unsupported("The value belongs to a module, and there are no modules here".into()));
        }
        other => return Err(Error::Unsupported(format!("Unknown RDB encoding type {other}"))),
    };
    let len = match &object {
        Object::List(list) => list.len(),
        Object::Set(set) => set.len(),
        Object::ZSet(zset) => zset.len(),
        Object::Hash(hash) => hash.len(),
        Object::String(_) | Object::Stream(_) => unreachable!("returned above"),
    };
    if len == 0 { Err(Error::Empty) } else { Ok(Value::Object(object)) }
}

/// Reads `count` elements and puts them `into` a collection, some at a time: `read` asks for the lines that `put` will
/// need, so that they come together.
fn in_groups<C, T>(
    count: usize,
    into: &mut C,
    mut read: impl FnMut(&mut C) -> Result<T, Error>,
    mut put: impl FnMut(&mut C, T) -> Result<(), Error>,
) -> Result<(), Error> {
    const TOGETHER: usize = 16;
    let mut group = Vec::with_capacity(TOGETHER.min(count));
    let mut left = count;
    while left > 0 {
        for _ in 0..left.min(TOGETHER) {
            group.push(read(into)?);
        }
        left -= group.len();
        group.drain(..).try_for_each(|element| put(into, element))?;
    }
    Ok(())
}

/// A field's time, if it is one that a field can have.
fn expire_time(at: Option<i64>) -> Result<i64, Error> {
    at.filter(|at| (0..1 << 48).contains(at)).ok_or(Error::Corrupt("Hash field with an invalid expire time"))
}

fn built_list(list: QuickList, limits: &Limits) -> Object {
    let mut list = List::from(list);
    list.built(&limits.list);
    Object::List(list)
}

fn plain_list(from: &mut Cursor<'_>, limits: &Limits) -> Result<Object, Error> {
    let mut list = List::default();
    for _ in 0..from.count(1)? {
        let text = from.string()?;
        list.expect(text.len(), 1, &limits.list);
        list.push(End::Back, &text, &limits.list);
    }
    list.built(&limits.list);
    Ok(Object::List(list))
}

fn plain_set(from: &mut Cursor<'_>, limits: &Limits) -> Result<Object, Error> {
    let count = from.count(1)?;
    let room = from.room(count);
    let mut set: Option<Set> = None;
    in_groups(
        count,
        &mut set,
        |set| {
            let member = from.string()?;
            let set = set.get_or_insert_with(|| {
                let mut set = Set::for_members(&member, count, &limits.set, &limits.hasher);
                set.reserve(room);
                set
            });
            set.prefetch(&member);
            Ok(member)
        },
        |set, member| {
            let set = set.as_mut().expect("made when its first member was read");
            match set.insert(StrRef::Bytes(&member), &limits.set, &limits.hasher) {
                true => Ok(()),
                false => Err(Error::Corrupt("Duplicate set members detected")),
            }
        },
    )?;
    set.map(Object::Set).ok_or(Error::Empty)
}

fn plain_zset(kind: u8, from: &mut Cursor<'_>, limits: &Limits) -> Result<Object, Error> {
    let count = from.count(2)?;
    let room = from.room(count);
    let mut zset: Option<ZSet> = None;
    in_groups(
        count,
        &mut zset,
        |zset| {
            let member = from.string()?;
            let score = match kind {
                kind::ZSET => from.old_score()?,
                _ => f64::from_le_bytes(from.array()?),
            };
            if score.is_nan() {
                return Err(Error::Corrupt("Zset with NAN score detected"));
            }
            let zset = zset.get_or_insert_with(|| {
                let mut zset = ZSet::for_members(count, member.len(), limits.zset, &limits.hasher);
                zset.reserve(room);
                zset
            });
            zset.prefetch(&member);
            Ok((member, score))
        },
        |zset, (member, score)| {
            let zset = zset.as_mut().expect("made when its first member was read");
            match zset.insert(&member, score, limits.zset, &limits.hasher) {
                true => Ok(()),
                false => Err(Error::Corrupt("Zset with duplicate members detected")),
            }
        },
    )?;
    zset.map(Object::ZSet).ok_or(Error::Empty)
}

fn stream(kind: u8, from: &mut Cursor<'_>) -> Result<Stream, Error> {
    const NODE: &str = "Stream listpack integrity check failed.";
    let mut stream = Stream::new();
    for _ in 0..from.count(2)? {
        let name = from.string()?;
        let id = Cursor { rest: &name }.id()?;
        if name.len() != 16 {
            return Err(Error::Corrupt("Stream node key entry is not the size of a stream ID"));
        }
        let pack = from.listpack(NODE)?;
        if pack.is_empty() {
            return Err(Error::Corrupt("Empty listpack inside stream"));
        }
        if !stream.add_node(id, pack) {
            return Err(Error::Corrupt(NODE));
        }
    }
    if from.length()? != stream.len() {
        return Err(Error::Corrupt("Stream length inconsistent with its nodes"));
    }
    stream.last_id = from.id_as_lengths()?;
    let first = stream.first().map_or(StreamId::MIN, |entry| entry.id);
    match kind {
        kind::STREAM_LISTPACKS => {
            stream.first_id = first;
            stream.entries_added = stream.len();
        }
        _ => {
            stream.first_id = from.id_as_lengths()?;
            stream.max_deleted_id = from.id_as_lengths()?;
            stream.entries_added = from.length()?;
        }
    }
    let last = stream.last_entry_id();
    if stream.first_id != first || last > stream.last_id {
        return Err(Error::Corrupt("Stream ids inconsistent with its entries"));
    }
    for _ in 0..from.count(1)? {
        group(kind, from, &mut stream)?;
    }
    Ok(stream)
}

fn group(kind: u8, from: &mut Cursor<'_>, stream: &mut Stream) -> Result<(), Error> {
    let name = from.string()?;
    let last_id = from.id_as_lengths()?;
    let entries_read = match kind {
        kind::STREAM_LISTPACKS => stream.entries_up_to(last_id),
        _ => Some(from.length()?).filter(|read| *read != u64::MAX),
    };
    let group =
        stream.add_group(&name, last_id, entries_read).ok_or(Error::Corrupt("Duplicated consumer group name"))?;
    // First all that is pending, then to whom each of it belongs.
    let mut pending = std::collections::BTreeMap::new();
    for _ in 0..from.count(25)? {
        let (id, delivery_time_ms, delivery_count) = (from.id()?, from.ms()?, from.length()?);
        if pending.insert(id, (delivery_time_ms, delivery_count)).is_some() {
            return Err(Error::Corrupt("Duplicated global PEL entry loading stream consumer group"));
        }
    }
    for _ in 0..from.count(9)? {
        let name = from.string()?;
        if group.find(&name).is_some() {
            return Err(Error::Corrupt("Duplicate stream consumer detected"));
        }
        let seen_time_ms = from.ms()?;
        let active_time_ms = match kind {
            kind::STREAM_LISTPACKS_3 => Some(from.ms()?).filter(|at| *at != -1),
            // As Redis takes it where it was not kept.
            _ => Some(seen_time_ms),
        };
        let consumer = group.add_consumer(&name, seen_time_ms);
        group.consumer_mut(consumer).active_time_ms = active_time_ms;
        for _ in 0..from.count(16)? {
            let id = from.id()?;
            let (delivery_time_ms, delivery_count) =
                pending.remove(&id).ok_or(Error::Corrupt("Consumer entry not found in group global PEL"))?;
            group.assign(id, Pending { consumer, delivery_time_ms, delivery_count });
        }
    }
    match pending.is_empty() {
        true => Ok(()),
        false => Err(Error::Corrupt("NACK entry without consumer")),
    }
}
