//! Freeing out of the way: what consists of many allocations is handed to the host, which frees it where no client
//! waits. Counterpart: `lazyfree.c`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::client::ClientView;
use crate::core::Core;
use crate::dict::Dict;
use crate::entry::EntryPtr;

/// From how many allocations on a value is freed out of the way (Redis: `LAZYFREE_THRESHOLD`).
const WORTH_IT: usize = 64;

/// Tables of up to so many buckets are looked through before they are handed over.
const SMALL_TABLE_BUCKETS: u64 = 256;

/// A client whose output waits until what its command handed away is freed (Redis: a blocking `FLUSHALL ASYNC`).
#[derive(Debug)]
pub struct AwaitedFree {
    /// Its place and id.
    client: (u32, u64),
    /// Held beside this by what is not freed yet.
    freeing: Arc<()>,
}

impl AwaitedFree {
    /// That `client`, one of this shard's own, waits for all that holds `freeing`.
    pub fn new(client: ClientView, freeing: Arc<()>) -> Self {
        AwaitedFree { client: (client.index, client.id), freeing }
    }

    /// The place of the client.
    pub fn index(&self) -> u32 {
        self.client.0
    }

    /// Whether this client still waits.
    pub fn holds_up(&self, index: u32, id: u64) -> bool {
        self.client == (index, id) && !self.is_over()
    }

    /// Whether all is freed.
    pub fn is_over(&self) -> bool {
        Arc::strong_count(&self.freeing) == 1
    }
}

/// Values and tables that nobody refers to any more; dropping frees them.
pub struct Garbage {
    what: What,
    /// Values in it, as `lazyfreed_objects` counts them.
    pub objects: usize,
}

enum What {
    Entry(EntryPtr),
    Tables(Dict<EntryPtr>, Dict<EntryPtr>),
}

// SAFETY: the garbage is the only owner of its entries and tables, and no handle to any of them is left elsewhere.
unsafe impl Send for Garbage {}

impl Drop for Garbage {
    fn drop(&mut self) {
        match &mut self.what {
            // SAFETY: whoever made the garbage took the last pointers to the entry out of all tables.
            What::Entry(entry) => unsafe { entry.free() },
            What::Tables(dict, expires) => {
                *expires = Dict::new();
                free_table(std::mem::take(dict));
            }
        }
    }
}

impl std::fmt::Debug for Garbage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Garbage of {} objects", self.objects)
    }
}

/// Frees a table with its entries, which no other table holds.
pub(super) fn free_table(mut dict: Dict<EntryPtr>) {
    dict.drain(&mut |entry: EntryPtr| {
        // SAFETY: the table that held the entry is gone, and by the caller's word no other holds it.
        unsafe { entry.free() }
    });
}

/// Whether freeing `entry` takes long enough to be done elsewhere.
pub(super) fn is_worth_it(entry: EntryPtr) -> bool {
    entry.object().is_some_and(|object| object.free_effort() > WORTH_IT)
}

fn later(core: &mut Core, garbage: Garbage) {
    core.shared.lazyfree_pending.fetch_add(garbage.objects, Relaxed);
    let (shared, host) = (core.shared.clone(), core.shared.host.clone());
    let awaited = core.freeing.clone();
    host.run_later(Box::new(move || {
        let objects = garbage.objects;
        drop(garbage);
        shared.lazyfree_pending.fetch_sub(objects, Relaxed);
        shared.lazyfreed_objects.fetch_add(objects as u64, Relaxed);
        drop(awaited);
    }));
}

/// Frees an entry out of the way; no table holds it any more.
pub(super) fn free_entry_later(core: &mut Core, entry: EntryPtr) {
    later(core, Garbage { what: What::Entry(entry), objects: 1 });
}

/// Frees a database's tables with their entries out of the way; at once when that takes less than handing them over.
pub(super) fn free_tables_later(core: &mut Core, dict: Dict<EntryPtr>, expires: Dict<EntryPtr>) {
    let objects = dict.len();
    if objects == 0 {
        return;
    }
    let small = objects <= WORTH_IT && dict.buckets() <= SMALL_TABLE_BUCKETS && !holds_big(&dict);
    let garbage = Garbage { what: What::Tables(dict, expires), objects };
    match small {
        true => {
            drop(garbage);
            core.shared.lazyfreed_objects.fetch_add(objects as u64, Relaxed);
        }
        false => later(core, garbage),
    }
}

fn holds_big(dict: &Dict<EntryPtr>) -> bool {
    let mut big = false;
    dict.for_each(|entry| big |= is_worth_it(entry));
    big
}
