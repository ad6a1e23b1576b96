//! A snapshot's walk over a slice: every key as it was at one instant, written while writes go on, without a fork.
//!
//! At the cut every database of every slice takes a new *epoch*, two bits that each entry keeps in its header. An entry
//! of an older epoch is as it was at the cut and is still to be written; one of the present epoch was written already,
//! or is younger than the cut. The walk goes over the table by the cursor of `SCAN`, a little each turn, and an entry
//! about to change or go is written first, by the hook that every write runs ([`RedisDb::before_write`]). So an entry
//! is written once, as it was.
//!
//! The walk's state lies with the tables it walks: it goes along when the slice is lent, when `SWAPDB` exchanges two
//! databases, and `FLUSHDB` leaves it the old table, which is freed when it has been walked.
//!
//! A value of many elements is not written in one go, which would hold up the shard as long as it is long: its key is put
//! by, and the walk writes a little of it each step ([`crate::rdb::long`]) before it goes on to other keys. Who is about
//! to change it has the rest written first, as one has any other.
//!
//! Four epochs are enough because a walk ends before the second one after it begins: one that is given up stamps what
//! it has not reached without writing it. Redis's counterpart is `fork`, with the kernel's copies of pages in the place
//! of the hook: it copies 4 KiB to keep an entry of 60 bytes, and stops every client while page tables are copied.

use super::{Hook, RedisDb, Slice, lazyfree};
use crate::aof::rewrite;
use crate::core::Core;
use crate::dict::{Dict, Element, Hasher};
use crate::entry::EntryPtr;
use crate::rdb::file::opcode;
use crate::rdb::long::{Progress, is_long};
use crate::rdb::write::{Style, Writer, kind_of};
use crate::router::ShardId;

/// A piece is handed on from this size on.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// So many entries are fetched from memory at the same time: a walk over a large table waits for memory more than it
/// works, and waiting for several at once costs no more than for one.
const AHEAD: usize = 32;

/// Buckets looked into for them at most.
const AHEAD_BUCKETS: usize = 8;

/// Adds what stands in the next few buckets, and has it fetched; returns where to go on, 0 at the end.
pub fn gather(dict: &Dict<EntryPtr>, mut cursor: u64, found: &mut Vec<EntryPtr>) -> u64 {
    for _ in 0..AHEAD_BUCKETS {
        cursor = dict.scan(cursor, &mut |entry| {
            entry.prefetch();
            found.push(entry);
        });
        if cursor == 0 || found.len() >= AHEAD {
            break;
        }
    }
    cursor
}

/// How values are written, and what goes beside them.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// How values are written.
    pub style: Style,
    /// How long ago a key was used goes along (a policy of LRU), or how often (of LFU).
    pub usage: Option<UsageKept>,
    /// As commands that make the keys, see [`crate::aof::rewrite`].
    pub commands: bool,
}

/// What an eviction policy keeps of a key's use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageKept {
    /// Seconds since it was used, from a clock that stands at this.
    Idle(u32),
    /// The logarithmic counter.
    Frequency,
}

impl Manner {
    /// That of the configuration.
    pub fn of(core: &Core) -> Self {
        let policy = core.config.maxmemory_policy;
        let usage = match () {
            () if policy.is_lfu() => Some(UsageKept::Frequency),
            () if policy.is_lru() => Some(UsageKept::Idle(core.lru_clock)),
            () => None,
        };
        Manner { style: Style::of(&core.config), usage, commands: false }
    }

    /// Writes a key with its value, and what stands with it.
    pub fn write(&self, out: &mut Vec<u8>, entry: EntryPtr) {
        if self.commands {
            return rewrite::write_key(out, entry, self.style);
        }
        self.write_key(out, entry).value(entry);
    }

    /// Writes a key and what stands with it, before its value.
    fn write_key<'a>(&self, out: &'a mut Vec<u8>, entry: EntryPtr) -> Writer<'a> {
        let mut writer = Writer { out, style: self.style };
        if let Some(at) = entry.expire_at() {
            writer.out.push(opcode::EXPIRETIME_MS);
            writer.out.extend_from_slice(&at.to_le_bytes());
        }
        match self.usage {
            Some(UsageKept::Idle(clock)) => {
                writer.out.push(opcode::IDLE);
                writer.len(u64::from(clock.wrapping_sub(entry.lru()) & 0xFF_FFFF));
            }
            Some(UsageKept::Frequency) => writer.out.extend_from_slice(&[opcode::FREQ, entry.lru() as u8]),
            None => {}
        }
        writer.out.push(kind_of(entry, self.style));
        writer.string(entry.key());
        writer
    }

    /// Writes that a database's keys follow, and how many.
    pub fn write_database(&self, out: &mut Vec<u8>, db: usize, sizes: Option<(usize, usize)>) {
        if self.commands {
            return rewrite::write_select(out, db);
        }
        let mut writer = Writer { out, style: self.style };
        writer.out.push(opcode::SELECTDB);
        writer.len(db as u64);
        if let Some((keys, expires)) = sizes {
            writer.out.push(opcode::RESIZEDB);
            writer.len(keys as u64);
            writer.len(expires as u64);
        }
    }
}

/// A value of which part is written.
struct Long {
    key: Box<[u8]>,
    /// Where to go on; nothing when it is whole.
    at: Option<Progress>,
    /// What is written and was not handed on.
    out: Vec<u8>,
    /// Pieces were handed on.
    begun: bool,
}

/// The walk over one part of a database.
pub struct Walk {
    /// The database's number at the cut.
    db: usize,
    cursor: u64,
    /// The cursor came to the end.
    reached_end: bool,
    /// Keys of long values, older than the cut, that the cursor has passed. They are looked up anew each step: a place in
    /// memory would not outlive a change.
    put_by: Vec<Box<[u8]>>,
    /// The one that is being written.
    long: Option<Long>,
    /// A table that was flushed before it was walked to its end.
    flushed: Option<Box<(Dict<EntryPtr>, Dict<EntryPtr>)>>,
    manner: Manner,
    hasher: Hasher,
    /// Nothing is written any more, only stamped.
    silent: bool,
    out: Vec<u8>,
    keys: usize,
    /// Empty between steps; kept for its room.
    found: Vec<EntryPtr>,
}

impl Walk {
    fn reach(&mut self, mut entry: EntryPtr, epoch: u8) {
        if entry.epoch() == epoch {
            return;
        }
        entry.set_epoch(epoch);
        if self.silent {
            return;
        }
        if self.long.as_ref().is_some_and(|long| *long.key == *entry.key()) {
            while self.write_on(entry) {}
            return;
        }
        self.begin_out();
        self.manner.write(&mut self.out, entry);
        self.keys += 1;
    }

    fn begin_out(&mut self) {
        if self.out.is_empty() {
            self.out.reserve(CHUNK_BYTES + CHUNK_BYTES / 8);
            self.manner.write_database(&mut self.out, self.db, None);
        }
    }

    /// Writes more of a long value; whether there is more to write.
    fn write_on(&mut self, entry: EntryPtr) -> bool {
        let long = self.long.as_mut().expect("the caller saw it");
        let mut writer = Writer { out: &mut long.out, style: self.manner.style };
        long.at = long.at.and_then(|at| writer.go_on(entry, at));
        if long.at.is_some() {
            return true;
        }
        self.keys += 1;
        if !long.begun {
            // A whole item like others.
            let long = self.long.take().expect("just seen");
            self.begin_out();
            self.out.extend_from_slice(&long.out);
        }
        false
    }

    /// Takes a step of writing long values that were put by; false if there are none.
    fn step_long(&mut self, table: &Dict<EntryPtr>, epoch: u8) -> bool {
        if self.long.as_ref().is_some_and(|long| long.at.is_none()) {
            // It waits to be handed on.
            return true;
        }
        let Some(key) = self.long.as_ref().map(|long| &long.key).or(self.put_by.last()) else { return false };
        let entry = table.find(self.hasher.hash(key), key).filter(|entry| entry.epoch() != epoch);
        debug_assert!(entry.is_some() || self.long.is_none(), "it ends before its key goes");
        if self.long.is_none() {
            let key = self.put_by.pop().expect("just seen");
            // Else it was about to change, and is written.
            if let Some(entry) = entry {
                let mut out = Vec::new();
                self.manner.write_database(&mut out, self.db, None);
                match self.manner.write_key(&mut out, entry).begin(entry) {
                    Some(at) => self.long = Some(Long { key, at: Some(at), out, begun: false }),
                    None => self.reach(entry, epoch),
                }
            }
            return true;
        }
        match entry {
            Some(mut entry) => {
                if !self.write_on(entry) {
                    entry.set_epoch(epoch);
                }
            }
            None => self.long = None,
        }
        true
    }

    /// The next piece of a long value, if one is ready: its bytes, and whether more of it follows.
    fn take_long(&mut self) -> Option<(Vec<u8>, bool)> {
        let long = self.long.as_mut()?;
        match long.at {
            Some(_) if long.out.len() < CHUNK_BYTES => None,
            Some(_) => {
                long.begun = true;
                Some((std::mem::replace(&mut long.out, Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4)), true))
            }
            None => self.long.take().map(|long| (long.out, false)),
        }
    }

    /// Nothing more is written: what was put by is stamped, for the cursor does not come there any more.
    fn give_up(&mut self, dict: &Dict<EntryPtr>, epoch: u8) {
        self.silent = true;
        let keys = self.long.take().map(|long| long.key).into_iter().chain(self.put_by.drain(..));
        let table = self.flushed.as_ref().map_or(dict, |tables| &tables.0);
        for mut entry in keys.filter_map(|key| table.find(self.hasher.hash(&key), &key)) {
            entry.set_epoch(epoch);
        }
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        if let Some(tables) = self.flushed.take() {
            lazyfree::free_table(tables.0);
        }
    }
}

impl RedisDb {
    /// The cut: what is here now is written, as it is.
    fn begin_walk(&mut self, epoch: u8, manner: Manner, hasher: &Hasher) {
        // One that was given up and has not come to its end would leave stamps that come round again.
        while !self.walk_step(true) {}
        self.walk = None;
        self.epoch = epoch;
        let mut walk = Walk {
            db: self.id,
            cursor: 0,
            reached_end: false,
            put_by: Vec::new(),
            long: None,
            flushed: None,
            manner,
            hasher: hasher.clone(),
            silent: false,
            out: Vec::new(),
            keys: 0,
            found: Vec::new(),
        };
        if !self.dict.is_empty() {
            manner.write_database(&mut walk.out, self.id, Some((self.dict.len(), self.expires.len())));
            self.walk = Some(Box::new(walk));
        }
        self.set_hook(Hook::Snapshot, self.walk.is_some());
    }

    /// Writes an entry about to change or go, unless it was written.
    pub(super) fn write_before_change(&mut self, key: &[u8]) {
        let Some(walk) = self.walk.as_deref_mut() else { return };
        if let Some(entry) = self.dict.find(walk.hasher.hash(key), key) {
            walk.reach(entry, self.epoch);
        }
    }

    /// Walks on by a few buckets; true at the end.
    fn walk_step(&mut self, silently: bool) -> bool {
        let RedisDb { walk, dict, epoch, .. } = self;
        let Some(walk) = walk.as_deref_mut() else { return true };
        if silently {
            walk.give_up(dict, *epoch);
        }
        if walk.silent {
            walk.out = Vec::new();
            if let Some(tables) = walk.flushed.take() {
                lazyfree::free_table(tables.0);
            }
        }
        let flushed = walk.flushed.take();
        let table = flushed.as_ref().map_or(&*dict, |tables| &tables.0);
        if !walk.step_long(table, *epoch) && !walk.reached_end {
            // Collected first: writing an entry needs the walk as a whole.
            let mut found = std::mem::take(&mut walk.found);
            walk.cursor = gather(table, walk.cursor, &mut found);
            walk.reached_end = walk.cursor == 0;
            for entry in found.drain(..) {
                match entry.epoch() != *epoch && !walk.silent && !walk.manner.commands && is_long(entry) {
                    true => walk.put_by.push(entry.key().into()),
                    false => walk.reach(entry, *epoch),
                }
            }
            walk.found = found;
        }
        walk.flushed = flushed;
        walk.reached_end && walk.put_by.is_empty() && walk.long.is_none()
    }

    /// Leaves the tables to a walk that has not come to their end, if there is one; says whether it did.
    pub(super) fn leave_to_walk(&mut self) -> bool {
        let Some(walk) = self.walk.as_deref_mut().filter(|walk| walk.flushed.is_none() && !walk.silent) else {
            return false;
        };
        walk.flushed = Some(Box::new((std::mem::take(&mut self.dict), std::mem::take(&mut self.expires))));
        true
    }

    /// Exchanges the walks with the tables they walk.
    pub(super) fn swap_walks(&mut self, other: &mut RedisDb) {
        std::mem::swap(&mut self.walk, &mut other.walk);
        std::mem::swap(&mut self.epoch, &mut other.epoch);
        for db in [self, other] {
            db.set_hook(Hook::Snapshot, db.walk.is_some());
        }
    }
}

/// A piece of a snapshot, whole items of a file.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Which snapshot.
    pub snapshot: u64,
    /// Whose slice.
    pub shard: ShardId,
    /// The piece.
    pub bytes: Vec<u8>,
    /// Keys in it.
    pub keys: usize,
    /// The slice's last.
    pub last: bool,
    /// Its last item goes on in the slice's next piece: no other slice's may come between.
    pub open: bool,
}

impl Slice {
    /// The cut, with all other slices in the same hands.
    pub fn begin_snapshot(&mut self, id: u64, manner: Manner, hasher: &Hasher) {
        let epoch = (id & 3) as u8;
        for db in &mut self.dbs {
            db.begin_walk(epoch, manner, hasher);
        }
        self.snapshot = Some(id);
        self.walk_db = 0;
        self.open_item = false;
        self.finished.clear();
    }

    /// Gives the running snapshot up; what it has not reached is stamped in the turns to come.
    pub fn give_up_snapshot(&mut self) {
        for db in &mut self.dbs {
            if let Some(walk) = db.walk.as_deref_mut() {
                walk.give_up(&db.dict, db.epoch);
            }
            self.open_item = false;
        }
    }

    /// Walks on until `enough` says so or a piece is full; returns it then, or at the end.
    pub fn walk_snapshot(&mut self, core: &mut Core, mut enough: impl FnMut() -> bool) -> Option<Chunk> {
        let id = self.snapshot?;
        let mut steps = 0u32;
        while let Some(at) = self.next_to_walk() {
            let db = &mut self.dbs[at];
            let ended = db.walk_step(false);
            let walk = db.walk.as_deref_mut().expect("just seen");
            if let Some((bytes, open)) = walk.take_long() {
                self.open_item = open;
                let keys = if open { 0 } else { std::mem::take(&mut walk.keys) };
                return Some(Chunk { snapshot: id, shard: self.owner, bytes, keys, open, last: false });
            }
            if ended {
                // Its keys are all written; the hook has nothing to do any more.
                let walk = db.walk.take().expect("just seen");
                db.set_hook(Hook::Snapshot, false);
                self.finished.push(walk);
            }
            steps += 1;
            let full = self.walk_bytes() >= CHUNK_BYTES;
            if full || steps.is_multiple_of(2) && enough() {
                break;
            }
        }
        let last = self.next_to_walk().is_none();
        if self.open_item || !last && self.walk_bytes() < CHUNK_BYTES {
            return None;
        }
        let mut chunk = Chunk { snapshot: id, shard: self.owner, last, ..Chunk::default() };
        for mut walk in self.finished.drain(..) {
            chunk.take(&mut walk);
            if let Some(tables) = walk.flushed.take() {
                lazyfree::free_tables_later(core, tables.0, tables.1);
            }
        }
        for walk in self.dbs.iter_mut().filter_map(|db| db.walk.as_deref_mut()) {
            chunk.take(walk);
        }
        if last {
            self.snapshot = None;
        }
        Some(chunk)
    }

    /// The database to walk in: the one with the item that is open, wherever `SWAPDB` has taken it, before any other; and
    /// one that it has taken to where the walk has been, behind all others.
    fn next_to_walk(&mut self) -> Option<usize> {
        let has_open =
            |db: &RedisDb| db.walk.as_ref().and_then(|walk| walk.long.as_ref()).is_some_and(|long| long.begun);
        if self.open_item
            && let Some(at) = self.dbs.iter().position(has_open)
        {
            return Some(at);
        }
        while self.dbs.get(self.walk_db).is_some_and(|db| db.walk.is_none()) {
            self.walk_db += 1;
        }
        if self.walk_db == self.dbs.len() {
            self.walk_db = self.dbs.iter().position(|db| db.walk.is_some())?;
        }
        Some(self.walk_db)
    }

    /// Bytes that wait to be handed on.
    fn walk_bytes(&self) -> usize {
        let walks = self.dbs.iter().filter_map(|db| db.walk.as_deref());
        walks.chain(self.finished.iter().map(|walk| &**walk)).map(|walk| walk.out.len()).sum()
    }
}

impl Chunk {
    fn take(&mut self, walk: &mut Walk) {
        match self.bytes.is_empty() {
            true => self.bytes = std::mem::take(&mut walk.out),
            false => self.bytes.append(&mut walk.out),
        }
        self.keys += std::mem::take(&mut walk.keys);
    }
}
