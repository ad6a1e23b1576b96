//! Values as Redis writes them: an entry becomes bytes.

use super::{container, kind, lzf, special};
use crate::config::Config;
use crate::encodings::ListPack;
use crate::entry::{EntryPtr, StrRef, canonical_i64};
use crate::object::ObjectRef;
use crate::types::stream::{Group, Stream, StreamId};
use crate::types::{Hash, set};

/// Redis compresses what is longer than this,
const COMPRESS_MIN: usize = 20;
/// if it gets shorter by this.
const COMPRESS_GAIN: usize = 4;
/// A text of up to so many bytes may be a 32-bit integer.
const INT_TEXT_MAX: usize = 11;

/// How values are written.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// `rdbcompression`.
    pub compress: bool,
    /// `rdb-version`: what is newer is written the old way.
    pub version: u16,
}

impl Style {
    /// That of the configuration.
    pub fn of(config: &Config) -> Self {
        Style { compress: config.rdbcompression, version: config.rdb_version }
    }
}

/// Writes to the end of a buffer.
pub struct Writer<'a> {
    /// The buffer.
    pub out: &'a mut Vec<u8>,
    /// How.
    pub style: Style,
}

impl Writer<'_> {
    /// A length, or any small number.
    pub fn len(&mut self, n: u64) {
        match n {
            0..64 => self.out.push(n as u8),
            64..16384 => self.out.extend_from_slice(&(0x4000 | n as u16).to_be_bytes()),
            16384..=0xFFFF_FFFF => {
                self.out.push(0x80);
                self.out.extend_from_slice(&(n as u32).to_be_bytes());
            }
            _ => {
                self.out.push(0x81);
                self.out.extend_from_slice(&n.to_be_bytes());
            }
        }
    }

    /// A string: as an integer, compressed, or as it is.
    pub fn string(&mut self, text: &[u8]) {
        if text.len() <= INT_TEXT_MAX
            && let Some(number) = canonical_i64(text)
            && self.small_int(number)
        {
            return;
        }
        if self.style.compress && text.len() > COMPRESS_MIN {
            let start = self.out.len();
            if lzf::compress(text, self.out, text.len() - COMPRESS_GAIN) {
                // The compressed length is known only now, and stands in front in a place of varying size.
                let end = self.out.len();
                self.out.push(special::LZF);
                self.len((end - start) as u64);
                self.len(text.len() as u64);
                let head = self.out.len() - end;
                self.out[start..].rotate_right(head);
                return;
            }
        }
        self.len(text.len() as u64);
        self.out.extend_from_slice(text);
    }

    fn small_int(&mut self, number: i64) -> bool {
        if let Ok(n) = i8::try_from(number) {
            self.out.extend_from_slice(&[special::INT8, n as u8]);
        } else if let Ok(n) = i16::try_from(number) {
            self.out.push(special::INT16);
            self.out.extend_from_slice(&n.to_le_bytes());
        } else if let Ok(n) = i32::try_from(number) {
            self.out.push(special::INT32);
            self.out.extend_from_slice(&n.to_le_bytes());
        } else {
            return false;
        }
        true
    }

    /// A string as it lies in memory.
    pub fn text(&mut self, text: StrRef<'_>) {
        match text {
            StrRef::Bytes(bytes) => self.string(bytes),
            StrRef::Int(number) if self.small_int(number) => {}
            StrRef::Int(number) => self.string(itoa::Buffer::new().format(number).as_bytes()),
        }
    }

    fn id(&mut self, id: StreamId) {
        self.out.extend_from_slice(&id.ms.to_be_bytes());
        self.out.extend_from_slice(&id.seq.to_be_bytes());
    }

    fn id_as_lengths(&mut self, id: StreamId) {
        self.len(id.ms);
        self.len(id.seq);
    }

    /// A flat hash with fields that go: a listpack of fields, values and times, in order of time, those that stay last
    /// and with 0.
    fn flat_hash_with_expires(&mut self, hash: &Hash, flat: &ListPack) {
        let first = hash.next_expire().expect("the caller saw that a field goes");
        let at = |field: StrRef<'_>| hash.expire_at(field.as_bytes(&mut itoa::Buffer::new()));
        self.out.extend_from_slice(&first.to_le_bytes());
        let mut triplets = Vec::with_capacity(hash.len());
        let mut texts = flat.iter();
        while let (Some(field), Some(value)) = (texts.next(), texts.next()) {
            triplets.push((at(field), field, value));
        }
        triplets.sort_by_key(|(at, ..)| at.unwrap_or(i64::MAX));
        let mut pack = ListPack::new();
        for (at, field, value) in triplets {
            for text in [field, value] {
                match text {
                    StrRef::Bytes(bytes) => pack.push(bytes),
                    StrRef::Int(number) => pack.push_int(number),
                }
            }
            pack.push_int(at.unwrap_or(0));
        }
        self.string(pack.as_bytes());
    }

    /// The value of an entry, without its type.
    pub fn value(&mut self, entry: EntryPtr) {
        if let Some(text) = entry.string() {
            return self.text(text);
        }
        if let Some(mut at) = self.begin(entry) {
            while let Some(next) = self.go_on(entry, at) {
                at = next;
            }
            return;
        }
        match entry.object().expect("what is no string is an object") {
            ObjectRef::String(text) => self.string(text),
            ObjectRef::List(list) => {
                let pack = list.pack().expect("others have parts");
                self.len(1);
                self.len(container::PACKED);
                self.string(pack.as_bytes());
            }
            ObjectRef::Set(set) => match set.form() {
                set::Form::Ints(ints) => self.string(ints.as_bytes()),
                set::Form::List(pack) if self.style.version >= 11 => self.string(pack.as_bytes()),
                _ => {
                    self.len(set.len() as u64);
                    set.for_each(|member| self.text(member));
                }
            },
            ObjectRef::Hash(hash) => {
                let pack = hash.pack().expect("others have parts");
                match hash.next_expire() {
                    Some(_) => self.flat_hash_with_expires(hash, pack),
                    None => self.string(pack.as_bytes()),
                }
            }
            ObjectRef::ZSet(zset) => self.string(zset.pack().expect("others have parts").as_bytes()),
            ObjectRef::Stream(_) => unreachable!("they have parts"),
        }
    }

    /// What stands behind a stream's nodes.
    pub(super) fn behind_nodes(&mut self, stream: &Stream) {
        self.len(stream.len());
        self.id_as_lengths(stream.last_id);
        self.id_as_lengths(stream.first_id);
        self.id_as_lengths(stream.max_deleted_id);
        self.len(stream.entries_added);
        self.len(stream.groups().len() as u64);
        for (name, group) in stream.groups() {
            self.group(name, group);
        }
    }

    fn group(&mut self, name: &[u8], group: &Group) {
        self.string(name);
        self.id_as_lengths(group.last_id);
        // -1 when it is not known.
        self.len(group.entries_read.unwrap_or(u64::MAX));
        self.len(group.pending().len() as u64);
        for (id, pending) in group.pending() {
            self.id(*id);
            self.out.extend_from_slice(&pending.delivery_time_ms.to_le_bytes());
            self.len(pending.delivery_count);
        }
        self.len(group.consumers().len() as u64);
        for consumer in group.consumers() {
            self.string(&consumer.name);
            self.out.extend_from_slice(&consumer.seen_time_ms.to_le_bytes());
            if self.style.version >= 11 {
                self.out.extend_from_slice(&consumer.active_time_ms.unwrap_or(-1).to_le_bytes());
            }
            self.len(consumer.pending().len() as u64);
            for id in consumer.pending() {
                self.id(*id);
            }
        }
    }
}

/// The type under which the value of an entry is written.
pub fn kind_of(entry: EntryPtr, style: Style) -> u8 {
    let Some(object) = entry.object() else { return kind::STRING };
    match object {
        ObjectRef::String(_) => kind::STRING,
        ObjectRef::List(_) => kind::LIST_QUICKLIST_2,
        ObjectRef::Set(set) => match set.form() {
            set::Form::Ints(_) => kind::SET_INTSET,
            set::Form::List(_) if style.version >= 11 => kind::SET_LISTPACK,
            _ => kind::SET,
        },
        ObjectRef::Hash(hash) if hash.next_expire().is_some() => match hash.pack() {
            Some(_) => kind::HASH_LISTPACK_EX,
            None => kind::HASH_METADATA,
        },
        ObjectRef::Hash(hash) if hash.pack().is_some() => kind::HASH_LISTPACK,
        ObjectRef::Hash(_) => kind::HASH,
        ObjectRef::ZSet(zset) if zset.pack().is_some() => kind::ZSET_LISTPACK,
        ObjectRef::ZSet(_) => kind::ZSET_2,
        ObjectRef::Stream(_) if style.version >= 11 => kind::STREAM_LISTPACKS_3,
        ObjectRef::Stream(_) => kind::STREAM_LISTPACKS_2,
    }
}
