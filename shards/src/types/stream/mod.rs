//! `Stream`: an append-only log of entries, each a list of fields with values under an id, and the groups of consumers
//! that read it together.
//!
//! Entries lie in listpacks of up to `stream-node-max-entries` (`node.rs`), the listpacks in order of the ids of their
//! first entries (`nodes.rs`). Ids only grow, so that appending touches the last node alone. A group (`group.rs`) remembers how far
//! it has read and which entries each consumer has yet to acknowledge. Counterpart: `t_stream.c`, where they
//! stand in a radix tree.

pub mod group;
pub mod id;
pub mod node;
pub mod nodes;

use std::collections::{BTreeMap, btree_map};

use crate::config::Config;
use crate::encodings::ListPack;
use crate::entry::Encoding;

pub use group::{Consumer, Group, Pending};
pub use id::StreamId;
pub use node::Entry;
use node::{EntryAt, Node};
use nodes::{Nodes, Span};

/// The most bytes of a node, and of the texts of one entry.
const NODE_BYTES_MAX: usize = 1 << 30;

/// How large a node may grow.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes; 0 for no bound but [`NODE_BYTES_MAX`].
    pub bytes: usize,
    /// Entries, deleted ones included; 0 for no bound.
    pub entries: u64,
}

impl Limits {
    /// Those of the configuration.
    pub fn of(config: &Config) -> Self {
        Limits { bytes: config.stream_node_max_bytes, entries: config.stream_node_max_entries }
    }

    fn bytes(&self) -> usize {
        if self.bytes == 0 { NODE_BYTES_MAX } else { self.bytes.min(NODE_BYTES_MAX) }
    }
}

/// What to trim away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trim {
    /// All but so many entries.
    MaxLen(u64),
    /// Entries before this id.
    MinId(StreamId),
}

/// Why an entry was not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// Its id is not greater than the last.
    Order,
    /// Its texts are too long.
    TooLarge,
}

/// A stream. See the head of the file.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    nodes: Nodes,
    len: u64,
    /// The greatest id ever given; entries that are added must have a greater one.
    pub last_id: StreamId,
    /// The id of the first entry, zero when there is none.
    pub first_id: StreamId,
    /// The greatest id that `XDEL` has removed.
    pub max_deleted_id: StreamId,
    /// Entries ever added.
    pub entries_added: u64,
    groups: BTreeMap<Box<[u8]>, Group>,
    /// Bytes of the nodes' listpacks.
    pack_bytes: usize,
}

impl Stream {
    /// An empty stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// How it lies in memory.
    pub fn encoding(&self) -> Encoding {
        Encoding::Stream
    }

    /// Bytes of the heap, its own box included.
    pub fn heap_bytes(&self) -> usize {
        let groups: usize = self.groups.iter().map(|(name, group)| name.len() + group.heap_bytes()).sum();
        size_of::<Self>() + self.nodes.heap_bytes() + self.pack_bytes + groups
    }

    /// Allocations that freeing it takes, roughly.
    pub fn allocations(&self) -> usize {
        self.nodes.count() + self.groups.values().map(Group::allocations).sum::<usize>()
    }

    /// Number of entries.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True when it has no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    // ------------------------------------------------------------------ nodes, for RDB

    /// The nodes in order, each with its id and its listpack.
    pub fn nodes(&self) -> impl Iterator<Item = (StreamId, &ListPack)> {
        self.nodes_from(0)
    }

    /// Those from the `first` on.
    pub fn nodes_from(&self, first: usize) -> impl Iterator<Item = (StreamId, &ListPack)> {
        self.nodes.iter_from(first).map(|(id, node)| (id, node.pack()))
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.nodes.count()
    }

    /// Adds a node from outside behind those that are there; says whether it is sound. The caller sets the ids and
    /// counters that a payload carries beside the nodes.
    pub fn add_node(&mut self, id: StreamId, pack: ListPack) -> bool {
        let Some(node) = Node::from_pack(pack) else { return false };
        if self.nodes.last_id().is_some_and(|last| last >= id) {
            return false;
        }
        self.len += node.live();
        self.pack_bytes += node.heap_bytes();
        self.nodes.push(id, node);
        true
    }

    // ------------------------------------------------------------------ entries

    /// The id for a new entry when none is asked for: the time, or what follows the last id if that is not past.
    pub fn next_id(&self, now_ms: u64) -> Option<StreamId> {
        if now_ms > self.last_id.ms { Some(StreamId::new(now_ms, 0)) } else { self.last_id.next() }
    }

    /// The id for a new entry of this ms.
    pub fn next_id_in(&self, ms: u64) -> Option<StreamId> {
        if ms == self.last_id.ms {
            let seq = self.last_id.seq.checked_add(1)?;
            Some(StreamId { ms, seq })
        } else {
            Some(StreamId { ms, seq: 0 })
        }
    }

    /// Appends an entry of these fields and values by turns.
    pub fn append<'a>(
        &mut self,
        limits: Limits,
        id: StreamId,
        texts: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
    ) -> Result<(), AppendError> {
        if id <= self.last_id {
            return Err(AppendError::Order);
        }
        let bytes = texts.clone().map(<[u8]>::len).fold(0, usize::saturating_add);
        if bytes > NODE_BYTES_MAX {
            return Err(AppendError::TooLarge);
        }
        let mut appended = false;
        if let Some((master, node)) = self.nodes.last_mut() {
            let before = node.heap_bytes();
            // `stream-node-max-entries` is looked at only where it bounds anything.
            let full = node.bytes().saturating_add(bytes) >= limits.bytes()
                || limits.entries > 0 && node.live() + node.deleted() >= limits.entries;
            if !full {
                node.push(master, id, texts.clone());
                appended = true;
            }
            self.pack_bytes = self.pack_bytes + node.heap_bytes() - before;
        }
        if !appended {
            let node = Node::with_entry(texts);
            self.pack_bytes += node.heap_bytes();
            self.nodes.push(id, node);
        }
        self.len += 1;
        // A file may say any number.
        self.entries_added = self.entries_added.wrapping_add(1);
        self.last_id = id;
        if self.len == 1 {
            self.first_id = id;
        }
        Ok(())
    }

    /// The id of the node that holds `id`, if there is an entry of that id.
    fn node_of(&self, id: StreamId) -> Option<(StreamId, &Node)> {
        self.nodes.seek(id).map(|place| self.nodes.at(place))
    }

    /// The entry with this id.
    pub fn get(&self, id: StreamId) -> Option<Entry<'_>> {
        let (master, node) = self.node_of(id)?;
        node.find(master, id).map(|(_, entry)| entry)
    }

    /// The entries from `start` to `end`, both included, in order.
    pub fn range(&self, start: StreamId, end: StreamId) -> Range<'_> {
        self.walk(start, end, false)
    }

    /// The entries from `end` back to `start`, both included.
    pub fn range_back(&self, start: StreamId, end: StreamId) -> Range<'_> {
        self.walk(start, end, true)
    }

    fn walk(&self, start: StreamId, end: StreamId, back: bool) -> Range<'_> {
        Range { nodes: self.nodes.span(start, end), start, end, back, here: None }
    }

    /// The first entry.
    pub fn first(&self) -> Option<Entry<'_>> {
        self.range(StreamId::MIN, StreamId::MAX).next()
    }

    /// The last entry.
    pub fn last(&self) -> Option<Entry<'_>> {
        self.range_back(StreamId::MIN, StreamId::MAX).next()
    }

    /// The id of the last entry that is still there.
    pub fn last_entry_id(&self) -> StreamId {
        self.last().map_or(StreamId::MIN, |entry| entry.id)
    }

    /// Removes entries as `XDEL` does; returns how many of them were there.
    pub fn delete(&mut self, ids: &[StreamId]) -> usize {
        let (mut deleted, mut first_gone) = (0, false);
        for id in ids {
            if self.delete_one(*id) {
                deleted += 1;
                first_gone |= *id == self.first_id;
                self.max_deleted_id = self.max_deleted_id.max(*id);
            }
        }
        if first_gone || self.len == 0 {
            self.find_first();
        }
        deleted
    }

    fn delete_one(&mut self, id: StreamId) -> bool {
        let Some(place) = self.nodes.seek(id) else { return false };
        let (master, node) = self.nodes.at_mut(place);
        let Some((at, _)) = node.find(master, id) else { return false };
        if node.live() == 1 {
            self.pack_bytes -= node.heap_bytes();
            self.nodes.remove(place);
        } else {
            let before = node.heap_bytes();
            node.delete(at);
            self.pack_bytes = self.pack_bytes + node.heap_bytes() - before;
        }
        self.len -= 1;
        true
    }

    fn find_first(&mut self) {
        self.first_id = self.first().map_or(StreamId::MIN, |entry| entry.id);
    }

    /// Trims from the front; returns how many entries went. An approximate trim removes whole nodes only. It stops
    /// before `limit` is passed, unless that is 0.
    pub fn trim(&mut self, trim: Trim, approximate: bool, limit: u64) -> u64 {
        let mut trimmed = 0;
        while let Some((master, node)) = self.nodes.first_mut() {
            if matches!(trim, Trim::MaxLen(max) if self.len <= max) {
                break;
            }
            let live = node.live();
            if limit > 0 && trimmed + live > limit {
                break;
            }
            let whole = match trim {
                Trim::MaxLen(max) => self.len - live >= max,
                Trim::MinId(id) => node.last_id(master).is_none_or(|last| last < id),
            };
            if whole {
                self.pack_bytes -= node.heap_bytes();
                self.nodes.remove((0, 0));
                self.len -= live;
                trimmed += live;
                continue;
            }
            if !approximate {
                let before = node.heap_bytes();
                let mut left = self.len;
                let gone = node.delete_front(master, |id| {
                    let wanted = match trim {
                        Trim::MaxLen(max) => left > max,
                        Trim::MinId(min) => id < min,
                    };
                    left -= u64::from(wanted);
                    wanted
                });
                self.pack_bytes = self.pack_bytes + node.heap_bytes() - before;
                self.len -= gone;
                trimmed += gone;
            }
            break;
        }
        if trimmed > 0 || self.len == 0 {
            self.find_first();
        }
        trimmed
    }

    // ------------------------------------------------------------------ groups

    /// The groups, by name.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = (&[u8], &Group)> {
        self.groups.iter().map(|(name, group)| (&**name, group))
    }

    /// A group.
    pub fn group(&self, name: &[u8]) -> Option<&Group> {
        self.groups.get(name)
    }

    /// A group, to be changed.
    pub fn group_mut(&mut self, name: &[u8]) -> Option<&mut Group> {
        self.groups.get_mut(name)
    }

    /// Adds a group; `None` if there is one of that name.
    pub fn add_group(&mut self, name: &[u8], last_id: StreamId, entries_read: Option<u64>) -> Option<&mut Group> {
        match self.groups.entry(name.into()) {
            btree_map::Entry::Occupied(_) => None,
            btree_map::Entry::Vacant(vacant) => Some(vacant.insert(Group::new(last_id, entries_read))),
        }
    }

    /// Removes a group; says whether it was there.
    pub fn remove_group(&mut self, name: &[u8]) -> bool {
        self.groups.remove(name).is_some()
    }

    /// Whether `XDEL` has, as far as is known, removed an entry from `start` on.
    fn has_tombstones_from(&self, start: StreamId) -> bool {
        self.len > 0 && self.max_deleted_id != StreamId::MIN && start <= self.max_deleted_id
    }

    /// How many entries were ever added up to `id`, where that can be told without counting.
    pub fn entries_up_to(&self, id: StreamId) -> Option<u64> {
        if self.entries_added == 0 {
            return Some(0);
        }
        if self.len == 0 && id <= self.last_id {
            return Some(self.entries_added);
        }
        if id != StreamId::MIN && id < self.max_deleted_id {
            return None;
        }
        if id == self.last_id {
            return Some(self.entries_added);
        }
        if id > self.last_id {
            return None;
        }
        // Nothing was removed from the midst: what is missing is missing at the front.
        if self.max_deleted_id == StreamId::MIN || self.max_deleted_id < self.first_id {
            let missing = self.entries_added.wrapping_sub(self.len);
            if id < self.first_id {
                return Some(missing);
            }
            if id == self.first_id {
                return Some(missing.wrapping_add(1));
            }
        }
        None
    }

    /// How many entries a group has yet to read, where that can be told without counting.
    pub fn lag(&self, group: &Group) -> Option<i64> {
        if self.entries_added == 0 || self.len == 0 {
            return Some(0);
        }
        if group.last_id < self.first_id && self.max_deleted_id < self.first_id {
            return Some(self.len as i64);
        }
        let read = match group.entries_read {
            Some(read) if !self.has_tombstones_from(group.last_id) => Some(read),
            _ => self.entries_up_to(group.last_id),
        };
        read.map(|read| self.entries_added.wrapping_sub(read) as i64)
    }

    /// Notes that a group has been given the entry `id`, if that is news to it; says so.
    pub fn delivered(&mut self, group: &[u8], id: StreamId) -> bool {
        let Some(state) = self.groups.get(group) else { return false };
        if id <= state.last_id {
            return false;
        }
        let entries_read = match state.entries_read {
            Some(read) if !self.has_tombstones_from(state.last_id) => Some(read.wrapping_add(1)),
            _ if self.entries_added > 0 => self.entries_up_to(id),
            unknown => unknown,
        };
        let state = self.groups.get_mut(group).expect("it was just there");
        state.entries_read = entries_read;
        state.last_id = id;
        true
    }
}

/// The entries between two ids, from either end.
pub struct Range<'a> {
    nodes: Span<'a>,
    start: StreamId,
    end: StreamId,
    back: bool,
    /// The node at hand and where to go on in it.
    here: Option<(StreamId, &'a Node, EntryAt)>,
}

impl<'a> Range<'a> {
    fn forward(&mut self) -> Option<Entry<'a>> {
        loop {
            let (master, node, at) = match self.here {
                Some(here) => here,
                None => {
                    let (master, node) = self.nodes.next()?;
                    match node.first() {
                        Some(at) => (master, node, at),
                        None => continue,
                    }
                }
            };
            let (entry, id, next) = node.read(master, at);
            if id > self.end {
                self.nodes.clear();
                self.here = None;
                return None;
            }
            self.here = next.map(|next| (master, node, next));
            if entry.is_some() && id >= self.start {
                return entry;
            }
        }
    }

    fn backward(&mut self) -> Option<Entry<'a>> {
        loop {
            let (master, node, at) = match self.here {
                Some(here) => here,
                None => {
                    let (master, node) = self.nodes.next_back()?;
                    (master, node, node.end())
                }
            };
            let Some(at) = node.before(at) else {
                self.here = None;
                continue;
            };
            let (entry, id) = node.read_back(master, at);
            if id < self.start {
                self.nodes.clear();
                self.here = None;
                return None;
            }
            self.here = Some((master, node, at));
            if entry.is_some() && id <= self.end {
                return entry;
            }
        }
    }
}

impl<'a> Iterator for Range<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        if self.back { self.backward() } else { self.forward() }
    }
}

#[cfg(test)]
mod tests;
