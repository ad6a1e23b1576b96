//! Values of many parts: they can be written a little at a time, as a snapshot's walk does with long ones.
//!
//! What has been written lies with whoever writes; here is only where to go on. The value must not change in between:
//! who is about to change it has the rest written first (see [`crate::db::snapshot`]). Redis needs nothing of the kind,
//! for its child process has the value to itself.

use std::cell::Cell;

use super::container;
use super::write::Writer;
use crate::entry::{Encoding, EntryPtr, StrRef};
use crate::object::ObjectRef;
use crate::types::Hash;

/// With more elements than this a value is long,
const LONG_ELEMENTS: usize = 1000;
/// or with more nodes, of up to 8 KB each by default.
const LONG_NODES: usize = 16;
/// A step ends after so many elements, or buckets looked into,
const STEP_ELEMENTS: usize = 128;
/// or bytes: some 10 to 20 µs of work, more if they are compressed.
const STEP_BYTES: usize = 8 * 1024;

/// Where the writing of a value goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// At this node of a list or a stream.
    Node(usize),
    /// At this cursor of a set's or a hash's table.
    Cursor(u64),
    /// So many members of a sorted set are written.
    Members(usize),
}

/// Whether a value is better written in several turns.
pub fn is_long(entry: EntryPtr) -> bool {
    match entry.object() {
        Some(ObjectRef::List(list)) => list.nodes() > LONG_NODES,
        Some(ObjectRef::Set(set)) => set.encoding() == Encoding::HashTable && set.len() > LONG_ELEMENTS,
        Some(ObjectRef::Hash(hash)) => hash.pack().is_none() && hash.len() > LONG_ELEMENTS,
        Some(ObjectRef::ZSet(zset)) => zset.pack().is_none() && zset.len() > LONG_ELEMENTS,
        Some(ObjectRef::Stream(stream)) => stream.node_count() > LONG_NODES,
        _ => false,
    }
}

impl Writer<'_> {
    /// Writes what stands before the parts of a value, and says where they begin; nothing if it has none and is written
    /// as one.
    pub fn begin(&mut self, entry: EntryPtr) -> Option<Progress> {
        match entry.object()? {
            ObjectRef::List(list) if list.pack().is_none() => {
                self.len(list.nodes() as u64);
                Some(Progress::Node(0))
            }
            ObjectRef::Set(set) if set.encoding() == Encoding::HashTable => {
                self.len(set.len() as u64);
                Some(Progress::Cursor(0))
            }
            ObjectRef::Hash(hash) if hash.pack().is_none() => {
                if let Some(first) = hash.next_expire() {
                    self.out.extend_from_slice(&first.to_le_bytes());
                }
                self.len(hash.len() as u64);
                Some(Progress::Cursor(0))
            }
            ObjectRef::ZSet(zset) if zset.pack().is_none() => {
                self.len(zset.len() as u64);
                Some(Progress::Members(0))
            }
            ObjectRef::Stream(stream) => {
                self.len(stream.node_count() as u64);
                Some(Progress::Node(0))
            }
            _ => None,
        }
    }

    /// Writes the next parts; says where to go on, nothing at the end.
    pub fn go_on(&mut self, entry: EntryPtr, at: Progress) -> Option<Progress> {
        let end = self.out.len() + STEP_BYTES;
        match (entry.object()?, at) {
            (ObjectRef::List(list), Progress::Node(mut at)) => {
                let list = list.quick().expect("one listpack has no parts");
                for node in list.nodes_from(at) {
                    match node {
                        Ok(pack) => {
                            self.len(container::PACKED);
                            self.string(pack.as_bytes());
                        }
                        Err(text) => {
                            self.len(container::PLAIN);
                            self.string(text);
                        }
                    }
                    at += 1;
                    if self.out.len() >= end {
                        break;
                    }
                }
                (at < list.nodes().len()).then_some(Progress::Node(at))
            }
            (ObjectRef::Set(set), Progress::Cursor(cursor)) => {
                self.buckets(cursor, end, |writer, cursor| set.scan(cursor, 1, |member| writer.text(member)))
            }
            (ObjectRef::Hash(hash), Progress::Cursor(cursor)) => self.buckets(cursor, end, |writer, cursor| {
                hash.scan(cursor, |field, value| {
                    writer.expire_of(hash, field);
                    writer.text(field);
                    writer.text(value);
                })
            }),
            (ObjectRef::ZSet(zset), Progress::Members(done)) => {
                // From the greatest down, so that loading puts each before those that are there.
                let (left, given) = (zset.len() - done, Cell::new(0));
                zset.range(left - left.min(STEP_ELEMENTS), left, true, |member, score| {
                    self.text(member);
                    self.out.extend_from_slice(&score.to_le_bytes());
                    given.set(given.get() + 1);
                });
                (given.get() < left).then_some(Progress::Members(done + given.get()))
            }
            (ObjectRef::Stream(stream), Progress::Node(mut at)) => {
                for (id, pack) in stream.nodes_from(at) {
                    let mut name = [0; 16];
                    name[..8].copy_from_slice(&id.ms.to_be_bytes());
                    name[8..].copy_from_slice(&id.seq.to_be_bytes());
                    self.string(&name);
                    self.string(pack.as_bytes());
                    at += 1;
                    if self.out.len() >= end {
                        break;
                    }
                }
                if at < stream.node_count() {
                    return Some(Progress::Node(at));
                }
                self.behind_nodes(stream);
                None
            }
            _ => None,
        }
    }

    /// Some buckets of a table, each of which `scan` writes, from a cursor on.
    fn buckets(
        &mut self,
        mut cursor: u64,
        end: usize,
        mut scan: impl FnMut(&mut Self, u64) -> u64,
    ) -> Option<Progress> {
        for _ in 0..STEP_ELEMENTS {
            cursor = scan(self, cursor);
            if cursor == 0 {
                return None;
            }
            if self.out.len() >= end {
                break;
            }
        }
        Some(Progress::Cursor(cursor))
    }

    /// Of a hash with fields that go: the time of one, counted from the first that goes, plus 1, and 0 if it stays.
    #[inline]
    fn expire_of(&mut self, hash: &Hash, field: StrRef<'_>) {
        if let Some(first) = hash.next_expire() {
            let at = hash.expire_at(field.as_bytes(&mut itoa::Buffer::new()));
            self.len(at.map_or(0, |at| (at - first) as u64 + 1));
        }
    }
}
