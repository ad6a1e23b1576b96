//! `Group`: how far some consumers have read a stream together, and what each has yet to acknowledge.
//!
//! The pending entries of a group (its PEL) stand in one tree by id, each with its consumer; a consumer knows the ids of
//! its own in a tree beside it. Consumers are numbered, so that a pending entry names its own in four bytes.
//! Counterpart: `streamCG`, `streamConsumer` and `streamNACK` (`stream.h`).

use std::collections::{BTreeMap, BTreeSet};

use super::StreamId;

/// The number of a consumer within its group.
pub type ConsumerId = u32;

/// An entry that was delivered and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// To whom.
    pub consumer: ConsumerId,
    /// When, in Unix ms.
    pub delivery_time_ms: i64,
    /// How often.
    pub delivery_count: u64,
}

/// One who reads for a group.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Its name.
    pub name: Box<[u8]>,
    /// When it last asked for anything, in Unix ms.
    pub seen_time_ms: i64,
    /// When it last got anything, in Unix ms.
    pub active_time_ms: Option<i64>,
    pending: BTreeSet<StreamId>,
}

impl Consumer {
    /// The ids of what it has yet to acknowledge.
    pub fn pending(&self) -> &BTreeSet<StreamId> {
        &self.pending
    }
}

/// A group of consumers. See the head of the file.
#[derive(Clone, Debug)]
pub struct Group {
    /// The last entry that was delivered to any of them.
    pub last_id: StreamId,
    /// Entries of the stream up to that one, if known.
    pub entries_read: Option<u64>,
    pending: BTreeMap<StreamId, Pending>,
    names: BTreeMap<Box<[u8]>, ConsumerId>,
    consumers: Vec<Option<Consumer>>,
    free: Vec<ConsumerId>,
}

impl Group {
    /// A group without consumers.
    pub fn new(last_id: StreamId, entries_read: Option<u64>) -> Self {
        Group {
            last_id,
            entries_read,
            pending: BTreeMap::new(),
            names: BTreeMap::new(),
            consumers: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Bytes of the heap, roughly.
    pub fn heap_bytes(&self) -> usize {
        let names: usize = self.names.keys().map(|name| 2 * name.len()).sum();
        let pending = self.pending.len() * (size_of::<Pending>() + 2 * size_of::<StreamId>()) * 3 / 2;
        size_of::<Self>() + names + self.consumers.capacity() * size_of::<Option<Consumer>>() + pending
    }

    /// Allocations that freeing it takes, roughly.
    pub fn allocations(&self) -> usize {
        1 + 2 * self.names.len() + self.pending.len() / 4
    }

    /// What is pending, by id.
    pub fn pending(&self) -> &BTreeMap<StreamId, Pending> {
        &self.pending
    }

    /// The consumers, by name.
    pub fn consumers(&self) -> impl ExactSizeIterator<Item = &Consumer> {
        self.names.values().map(|id| self.consumer(*id))
    }

    /// The number of the consumer of that name.
    pub fn find(&self, name: &[u8]) -> Option<ConsumerId> {
        self.names.get(name).copied()
    }

    /// The consumer of that number.
    pub fn consumer(&self, id: ConsumerId) -> &Consumer {
        self.consumers[id as usize].as_ref().expect("a consumer's number names one")
    }

    /// The consumer of that number, to be changed.
    pub fn consumer_mut(&mut self, id: ConsumerId) -> &mut Consumer {
        self.consumers[id as usize].as_mut().expect("a consumer's number names one")
    }

    /// Adds a consumer, of which there must be none of that name.
    pub fn add_consumer(&mut self, name: &[u8], now_ms: i64) -> ConsumerId {
        debug_assert!(self.find(name).is_none());
        let consumer =
            Consumer { name: name.into(), seen_time_ms: now_ms, active_time_ms: None, pending: BTreeSet::new() };
        let id = match self.free.pop() {
            Some(id) => {
                self.consumers[id as usize] = Some(consumer);
                id
            }
            None => {
                self.consumers.push(Some(consumer));
                self.consumers.len() as ConsumerId - 1
            }
        };
        self.names.insert(name.into(), id);
        id
    }

    /// Removes a consumer and what it had pending; returns how much that was.
    pub fn remove_consumer(&mut self, name: &[u8]) -> Option<usize> {
        let id = self.names.remove(name)?;
        let consumer = self.consumers[id as usize].take().expect("a consumer's number names one");
        consumer.pending.iter().for_each(|entry| {
            self.pending.remove(entry);
        });
        self.free.push(id);
        Some(consumer.pending.len())
    }

    /// Makes an entry pending for a consumer, whosever it was before.
    pub fn assign(&mut self, id: StreamId, pending: Pending) {
        let old = self.pending.insert(id, pending);
        if old.is_some_and(|old| old.consumer == pending.consumer) {
            return;
        }
        if let Some(old) = old {
            self.consumer_mut(old.consumer).pending.remove(&id);
        }
        self.consumer_mut(pending.consumer).pending.insert(id);
    }

    /// What is known of a pending entry, to be changed but for its consumer.
    pub fn pending_mut(&mut self, id: StreamId) -> Option<&mut Pending> {
        self.pending.get_mut(&id)
    }

    /// Takes an entry off the pending ones; says what was known of it.
    pub fn acknowledge(&mut self, id: StreamId) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        self.consumer_mut(pending.consumer).pending.remove(&id);
        Some(pending)
    }
}
