//! What keys held before a script wrote them, so that its writes can be taken back.
//!
//! A script that runs with the slices of its declared keys alone may meet another key after it has written. Then it is
//! begun anew with all slices, and until then nobody has seen what it did: the slices were in its hands. The value that
//! a key had is copied at its first write, so [`WORTH_COPYING`] says which scripts are run with all slices at once.

use std::collections::BTreeMap;

use super::{Hook, RedisDb, duplicate};
use crate::dict::Hasher;
use crate::entry::EntryPtr;

/// Values of more parts, or strings of more bytes, are not copied: a script that writes one runs with all slices.
const WORTH_COPYING: usize = 256;
const WORTH_COPYING_BYTES: usize = 16 * 1024;

/// See the module's page.
#[derive(Default)]
pub(super) struct Undo {
    hasher: Option<Hasher>,
    /// By key: a copy of its entry, or nothing if there was none.
    kept: BTreeMap<Vec<u8>, Option<EntryPtr>>,
}

/// Whether the value of an entry is small enough to be kept.
pub fn is_worth_copying(entry: EntryPtr) -> bool {
    match entry.string() {
        Some(crate::entry::StrRef::Bytes(bytes)) => bytes.len() <= WORTH_COPYING_BYTES,
        Some(crate::entry::StrRef::Int(_)) => true,
        None => entry
            .object()
            .is_none_or(|object| object.free_effort() <= WORTH_COPYING && object.heap_bytes() <= WORTH_COPYING_BYTES),
    }
}

impl RedisDb {
    /// From now on the old value of each key is kept at its first write.
    pub fn keep_old(&mut self, hasher: &Hasher) {
        self.undo.hasher.get_or_insert_with(|| hasher.clone());
        self.set_hook(Hook::Undo, true);
    }

    /// Keeps no more; with `undo`, every key that was written holds again what it held before.
    pub fn end_keeping(&mut self, undo: bool) {
        self.set_hook(Hook::Undo, false);
        if self.undo.kept.is_empty() {
            return;
        }
        let hasher = self.undo.hasher.clone().expect("set when keeping began");
        for (name, old) in std::mem::take(&mut self.undo.kept) {
            if !undo {
                if let Some(old) = old {
                    // SAFETY: the copy is in no table.
                    unsafe { old.free() };
                }
                continue;
            }
            let hash = hasher.hash(&name);
            if let Some(now) = self.unlink(crate::commands::Key { bytes: &name, hash }) {
                // SAFETY: `unlink` took the last pointers to the entry out of both tables.
                unsafe { now.free() };
            }
            if let Some(mut old) = old {
                // A snapshot has written what it had of it, see `write_before_change`.
                old.set_epoch(self.epoch);
                if old.expire_at().is_some() {
                    self.expires.insert(&hasher, hash, old);
                }
                self.dict.insert(&hasher, hash, old);
            }
        }
    }

    /// Keeps the value of a key that is about to be written.
    pub(super) fn keep_value(&mut self, key: &[u8]) {
        if self.hooks & Hook::Undo as u8 == 0 || self.undo.kept.contains_key(key) {
            return;
        }
        let hasher = self.undo.hasher.as_ref().expect("set when keeping began");
        let old = self.dict.find(hasher.hash(key), key).map(|entry| {
            let mut copy = duplicate(entry, key);
            copy.set_lru(entry.lru());
            copy
        });
        self.undo.kept.insert(key.to_vec(), old);
    }
}
