//! Clients that wait for keys of one slice: who, since when, and until when.
//!
//! A waiter stands here with the slice that owns its keys, wherever its client's home is, so that whoever changes a
//! key has those who wait for it in hand. [`super::RedisDb::blocking_keys`] lists the waiters of a key in the order
//! they came. A client whose keys lie on several shards has a waiter in each slice, and only its home can serve it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Hook, Slice};
use crate::args::OwnedArgs;
use crate::client::ClientView;
use crate::commands::CommandId;
use crate::commands::block::TimeoutReply;
use crate::entry::Kind;

/// Names one wait of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockId {
    /// The client's id.
    pub client: u64,
    /// The number of the reply it awaits.
    pub sequence: u64,
}

/// One that waits for keys of this slice.
#[derive(Debug)]
pub struct Waiter {
    /// The client.
    pub view: ClientView,
    /// The number of the reply it awaits.
    pub sequence: u64,
    /// What is run when a key is ready.
    pub command: CommandId,
    /// Its arguments; none when the client's home runs it.
    pub args: OwnedArgs,
    /// Its keys in this slice.
    pub keys: Vec<Vec<u8>>,
    /// The type that a key must have.
    pub kind: Kind,
    /// Whether it wakes also when a key goes or changes its type.
    pub on_delete: bool,
    /// Unix ms at which it gives up; 0 for never, or when its home counts.
    pub deadline_ms: i64,
    /// The reply then.
    pub timeout_reply: TimeoutReply,
    /// Whether it has keys on other shards too: then its home serves it.
    pub spans: bool,
    /// Its home was told that a key is ready, and has not come back.
    pub asked: bool,
}

impl Waiter {
    /// Its name.
    pub fn id(&self) -> BlockId {
        BlockId { client: self.view.id, sequence: self.sequence }
    }
}

/// All that wait for keys of one slice.
#[derive(Debug, Default)]
pub struct Blocked {
    waiters: BTreeMap<BlockId, Waiter>,
    deadlines: BTreeSet<(i64, BlockId)>,
    on_delete: usize,
}

impl Blocked {
    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Those that wait.
    pub fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.waiters.values()
    }

    /// One that waits.
    pub fn get_mut(&mut self, id: BlockId) -> Option<&mut Waiter> {
        self.waiters.get_mut(&id)
    }

    /// Whether someone wakes when a key goes.
    pub fn any_on_delete(&self) -> bool {
        self.on_delete > 0
    }

    /// The earliest deadline.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The first whose deadline is `now_ms` or before.
    pub fn overdue(&self, now_ms: i64) -> Option<BlockId> {
        self.deadlines.first().filter(|(at, _)| *at <= now_ms).map(|(_, id)| *id)
    }
}

/// A key that clients wait for and that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The key.
    pub key: Vec<u8>,
    /// Only those that wait behind this one are to be looked at.
    pub after: Option<BlockId>,
}

impl Slice {
    /// Registers a waiter with its keys.
    pub fn block(&mut self, waiter: Waiter) {
        let id = waiter.id();
        let db = &mut self.dbs[waiter.view.db as usize];
        for key in &waiter.keys {
            let queue = db.blocking_keys.entry(key.clone()).or_default();
            if !queue.contains(&id) {
                queue.push_back(id);
            }
        }
        db.set_hook(Hook::Blocking, true);
        self.blocked.on_delete += waiter.on_delete as usize;
        if waiter.deadline_ms != 0 {
            self.blocked.deadlines.insert((waiter.deadline_ms, id));
        }
        self.blocked.waiters.insert(id, waiter);
    }

    /// Takes a waiter away, if it is there. Those behind one that held a key for its home get their turn.
    pub fn unblock(&mut self, id: BlockId) -> Option<Waiter> {
        let waiter = self.blocked.waiters.remove(&id)?;
        self.blocked.on_delete -= waiter.on_delete as usize;
        if waiter.deadline_ms != 0 {
            self.blocked.deadlines.remove(&(waiter.deadline_ms, id));
        }
        let db = &mut self.dbs[waiter.view.db as usize];
        for key in &waiter.keys {
            let Some(queue) = db.blocking_keys.get_mut(key) else { continue };
            if let Some(at) = queue.iter().position(|other| *other == id) {
                queue.remove(at);
            }
            if queue.is_empty() {
                db.blocking_keys.remove(key);
            } else if waiter.asked {
                db.ready_keys.push_back(Ready { key: key.clone(), after: None });
            }
        }
        if db.blocking_keys.is_empty() {
            db.ready_keys.clear();
            db.set_hook(Hook::Blocking, false);
        }
        Some(waiter)
    }

    /// The home of a waiter could not serve it: those behind it may have what it left.
    pub fn pass_over(&mut self, id: BlockId) {
        let Some(waiter) = self.blocked.waiters.get_mut(&id) else { return };
        if std::mem::take(&mut waiter.asked) {
            let db = &mut self.dbs[waiter.view.db as usize];
            db.ready_keys.extend(waiter.keys.iter().map(|key| Ready { key: key.clone(), after: Some(id) }));
        }
    }

    /// Takes the next key that someone waits for and that was written, with its database.
    pub fn next_ready(&mut self) -> Option<(u16, Ready)> {
        self.dbs.iter_mut().find_map(|db| db.ready_keys.pop_front().map(|ready| (db.id as u16, ready)))
    }
}

/// The waiters of one key, in the order they came.
pub type Queue = VecDeque<BlockId>;
