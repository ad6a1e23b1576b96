//! The keyspace: a shard's slice of every database, and the operations that all commands build on.
//!
//! [`RedisDb`] owns its entries: it alone frees them and it alone swaps a pointer for another. Everything a write must
//! set off (watched and tracked keys, waiting clients, snapshots) hangs on one hook, [`RedisDb::before_write`].
//! Counterpart: `db.c`.

pub mod blocked;
pub mod evict;
pub mod expire;
pub mod lazyfree;
pub mod snapshot;
pub mod undo;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::Ordering::Relaxed;

use crate::commands::{CommandError, Key};
use crate::core::{Core, Event};
use crate::dict::{Dict, Element, Hasher};
use crate::entry::{Encoding, EntryPtr, Kind, StrRef};
use crate::object::{Object, ObjectMut, ObjectRef};
use crate::propagate::{EffectLog, Said, target};
use crate::replication::stream::StreamLog;
use crate::router::{ShardId, owner_of};
use crate::stats::DbReport;
use crate::tracking::{Touched, TrackingTable};

/// A shard's part of all databases; it moves as one when it is lent.
pub struct Slice {
    /// The shard it belongs to.
    pub owner: ShardId,
    /// One a database.
    pub dbs: Vec<RedisDb>,
    /// The database at which the next active expire cycle starts.
    pub expire_db: usize,
    /// Keys of the eviction pool (see [`evict`]).
    pub evict: evict::EvictionPool,
    /// Clients that wait for keys.
    pub blocked: blocked::Blocked,
    /// Clients that may have kept keys.
    pub tracking: TrackingTable,
    /// What writes did, for the log.
    pub log: EffectLog,
    /// What they did, for replicas.
    pub stream: StreamLog,
    /// Changes ever made here, as `server.dirty` counts them.
    pub changes: u64,
    /// The snapshot whose walk is on.
    pub snapshot: Option<u64>,
    /// The database that is walked.
    walk_db: usize,
    /// Part of a long value was handed on, and its rest must come next.
    open_item: bool,
    /// Walks that are at their end and whose bytes are still here.
    #[allow(clippy::vec_box)]
    finished: Vec<Box<snapshot::Walk>>,
}

impl Slice {
    /// Empty slices of `dbnum` databases.
    pub fn new(owner: ShardId, dbnum: usize) -> Self {
        Slice {
            owner,
            dbs: (0..dbnum).map(RedisDb::new).collect(),
            expire_db: 0,
            evict: evict::EvictionPool::default(),
            blocked: blocked::Blocked::default(),
            tracking: TrackingTable::default(),
            log: EffectLog::default(),
            stream: StreamLog::default(),
            changes: 0,
            snapshot: None,
            walk_db: 0,
            open_item: false,
            finished: Vec::new(),
        }
    }

    /// Tells of a command that names no key; see [`EffectLog::append_numbered`].
    pub fn append_numbered(&mut self, number: u64, words: crate::args::Args<'_>) {
        self.log.append_numbered(self.owner, number, words);
    }

    /// Takes over the effects of what was not a command: expiry and eviction.
    pub fn log_said(&mut self, core: &mut Core) {
        if core.effects.said.is_empty() {
            return;
        }
        self.log.stamp(core);
        let mut said = std::mem::take(&mut core.effects.said);
        for Said { db, words, targets } in said.drain(..) {
            if self.log.on && targets & target::LOG != 0 {
                self.log.append(db, words.args().iter_from(0));
            }
            if self.stream.on && targets & target::STREAM != 0 {
                self.stream.append(db, words.args().iter_from(0));
            }
        }
        core.effects.said = said;
    }

    /// What `INFO` says of the databases.
    pub fn report(&self) -> Vec<DbReport> {
        self.dbs
            .iter()
            .map(|db| DbReport {
                keys: db.dict.len(),
                expires: db.expires.len(),
                subexpiry: db.field_expires.len(),
                avg_ttl: db.avg_ttl,
                table_bytes: db.dict.bytes(),
                expires_bytes: db.expires.bytes(),
                rehashing: db.dict.is_rehashing() as usize + db.expires.is_rehashing() as usize,
            })
            .collect()
    }
}

/// How it is told that a key's time has come.
pub fn expired_word(core: &Core) -> &'static [u8] {
    if core.config.lazyfree_lazy_expire { b"UNLINK" } else { b"DEL" }
}

/// The slices in a command's hands.
pub struct Keyspace<'a> {
    slices: &'a mut [Option<Box<Slice>>],
    only: Option<usize>,
}

impl<'a> Keyspace<'a> {
    /// The one slice of shard `owner`: no key's owner needs to be computed.
    pub fn one(slices: &'a mut [Option<Box<Slice>>], owner: ShardId) -> Self {
        Keyspace { slices, only: Some(owner as usize) }
    }

    /// The same slices, for a command inside another.
    pub fn again(&mut self) -> Keyspace<'_> {
        Keyspace { slices: self.slices, only: self.only }
    }

    /// Whether the slice of shard `owner` is in hand.
    pub fn has(&self, owner: ShardId) -> bool {
        let owner = owner as usize;
        self.only.is_none_or(|only| only == owner) && self.slices[owner].is_some()
    }

    /// Exchanges the slices in hand with what stands in the same places elsewhere.
    pub(crate) fn exchange(&mut self, places: &mut [Option<Box<Slice>>]) {
        for (at, (mine, theirs)) in self.slices.iter_mut().zip(places).enumerate() {
            if self.only.is_none_or(|only| only == at) {
                std::mem::swap(mine, theirs);
            }
        }
    }

    /// All slices that are there.
    pub fn several(slices: &'a mut [Option<Box<Slice>>]) -> Self {
        let only = if slices.len() == 1 { Some(0) } else { None };
        Keyspace { slices, only }
    }

    /// The slice that owns `key`. The router has made sure that it is here.
    #[inline]
    pub fn slice(&mut self, key: &[u8]) -> &mut Slice {
        #[cfg(test)]
        touched::note(key, false);
        let index = match self.only {
            Some(index) => index,
            None => self.owner_of(key),
        };
        self.slices[index].as_mut().expect("the router acquired the slice")
    }

    // Apart, so that where there is one slice looking for it costs no call.
    #[inline(never)]
    fn owner_of(&self, key: &[u8]) -> usize {
        owner_of(key, self.slices.len()) as usize
    }

    /// The part of database `db` that owns `key`.
    #[inline]
    pub fn db(&mut self, db: u16, key: &[u8]) -> &mut RedisDb {
        &mut self.slice(key).dbs[db as usize]
    }

    /// Counts changes that a command made: to the first slice in hand, for only the sum over all is looked at.
    #[inline]
    pub fn count_changes(&mut self, n: u64) {
        match self.only {
            Some(index) => self.slices[index].as_mut().expect("the router acquired the slice").changes += n,
            None => {
                if let Some(slice) = self.slices().next() {
                    slice.changes += n;
                }
            }
        }
    }

    /// The slice in hand when there is but one.
    #[inline]
    pub fn lone(&mut self) -> Option<&mut Slice> {
        self.slices[self.only?].as_deref_mut()
    }

    /// Where what is done now is told for replicas, if there are any: all that is done with several slices in hand is
    /// told in one place, so that its order is kept.
    pub fn stream(&mut self) -> Option<&mut StreamLog> {
        self.slices().next().map(|slice| &mut slice.stream).filter(|stream| stream.on)
    }

    /// The places of all slices, also of those that are not in hand.
    pub(crate) fn places(&mut self) -> &mut [Option<Box<Slice>>] {
        self.slices
    }

    /// Every slice in hand.
    pub fn slices(&mut self) -> impl Iterator<Item = &mut Slice> {
        let only = self.only;
        self.slices
            .iter_mut()
            .enumerate()
            .filter(move |(i, _)| only.is_none_or(|only| only == *i))
            .filter_map(|(_, slice)| slice.as_deref_mut())
    }

    /// The part of database `db` in every slice in hand.
    pub fn dbs(&mut self, db: u16) -> impl Iterator<Item = &mut RedisDb> {
        self.slices().map(move |slice| &mut slice.dbs[db as usize])
    }
}

/// Which keys commands of this thread look for and write, for tests of what rows say of their keys.
#[cfg(test)]
pub(crate) mod touched {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    thread_local!(static KEYS: RefCell<Option<BTreeMap<Vec<u8>, bool>>> = const { RefCell::new(None) });

    pub(super) fn note(key: &[u8], written: bool) {
        KEYS.with_borrow_mut(|keys| {
            if let Some(keys) = keys {
                *keys.entry(key.to_vec()).or_default() |= written;
            }
        });
    }

    /// The keys that are touched while `act` runs, and whether each is written.
    pub(crate) fn by(act: impl FnOnce()) -> BTreeMap<Vec<u8>, bool> {
        KEYS.set(Some(BTreeMap::new()));
        act();
        KEYS.take().expect("it was just set")
    }
}

/// What a write does to the time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// Leaves it.
    Keep,
    /// Removes it.
    Clear,
    /// Sets it to this Unix time in ms.
    At(i64),
}

/// A client that watches a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watcher {
    /// The client's id.
    pub client: u64,
    /// Whether the key was already past its time when the watch began; its removal is then no change.
    pub expired: bool,
}

/// What hangs on a write: a bit each of [`RedisDb::hooks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Keys are watched.
    Watched = 1,
    /// Clients wait for keys.
    Blocking = 2,
    /// A snapshot's walk is on.
    Snapshot = 4,
    /// What is written may be undone.
    Undo = 8,
    /// Clients keep what they read, see [`crate::tracking`].
    Tracking = 16,
}

/// A shard's part of one database.
pub struct RedisDb {
    /// The keys.
    pub dict: Dict<EntryPtr>,
    /// Those of them that have a time to live.
    pub expires: Dict<EntryPtr>,
    /// Clients blocked on a key, in the order they came.
    pub blocking_keys: BTreeMap<Vec<u8>, blocked::Queue>,
    /// Keys with blocked clients that were written.
    pub ready_keys: VecDeque<blocked::Ready>,
    /// Clients that watch a key.
    pub watched_keys: BTreeMap<Vec<u8>, Vec<Watcher>>,
    /// Hashes with fields that go: when the first of them does, and the key.
    pub field_expires: BTreeSet<(i64, Vec<u8>)>,
    /// Bits of [`Hook`]: what there is for [`RedisDb::before_write`] to do.
    hooks: u8,
    /// Clients whose watched keys have changed.
    pub touched_watchers: Vec<u64>,
    /// Keys that were written since tracking was last told.
    pub touched: Vec<Touched>,
    /// Number of the database.
    pub id: usize,
    /// Average time to live in ms, sampled by the active expire cycle.
    pub avg_ttl: i64,
    /// Where the active expire cycle goes on.
    pub expires_cursor: u64,
    /// What entries are stamped with that are written or made now, see [`snapshot`].
    epoch: u8,
    /// A snapshot's walk over it.
    walk: Option<Box<snapshot::Walk>>,
    /// What keys held before a script wrote them, while it may be undone.
    undo: undo::Undo,
}

impl RedisDb {
    /// An empty part of database `id`.
    pub fn new(id: usize) -> Self {
        RedisDb {
            dict: Dict::new(),
            expires: Dict::new(),
            blocking_keys: BTreeMap::new(),
            ready_keys: VecDeque::new(),
            watched_keys: BTreeMap::new(),
            field_expires: BTreeSet::new(),
            hooks: 0,
            touched_watchers: Vec::new(),
            touched: Vec::new(),
            id,
            avg_ttl: 0,
            expires_cursor: 0,
            epoch: 0,
            walk: None,
            undo: undo::Undo::default(),
        }
    }

    /// Runs before a key changes or goes.
    #[inline]
    pub fn before_write(&mut self, key: &[u8]) {
        #[cfg(test)]
        touched::note(key, true);
        if self.hooks != 0 {
            self.before_heeded_write(key);
        }
    }

    #[cold]
    fn before_heeded_write(&mut self, key: &[u8]) {
        self.touch_watched(key, |_| true);
        self.touch_tracked(key, true);
        self.before_unwatched_write(key);
    }

    /// As [`RedisDb::before_write`], but for clients that watch the key.
    fn before_unwatched_write(&mut self, key: &[u8]) {
        self.write_before_change(key);
        self.keep_value(key);
        self.signal_ready(key);
    }

    /// Before a key is removed by no one's command on it. To those who watched it when its time had passed already it
    /// was not there before; from now on they watch a key that is not there.
    fn before_removal(&mut self, key: &[u8]) {
        if self.hooks != 0 {
            self.touch_watched(key, |watcher| !std::mem::take(&mut watcher.expired));
            self.before_unwatched_write(key);
        }
    }

    fn touch_tracked(&mut self, key: &[u8], by_client: bool) {
        if self.hooks & Hook::Tracking as u8 != 0 {
            self.touched.push(Touched { key: key.to_vec(), by_client });
        }
    }

    /// Says whether [`RedisDb::before_write`] has something to do for `hook`.
    pub fn set_hook(&mut self, hook: Hook, on: bool) {
        match on {
            true => self.hooks |= hook as u8,
            false => self.hooks &= !(hook as u8),
        }
    }

    /// Notes for those of its watchers for whom that `is_change` that a key has changed.
    fn touch_watched(&mut self, key: &[u8], mut is_change: impl FnMut(&mut Watcher) -> bool) {
        if let Some(watchers) = self.watched_keys.get_mut(key) {
            for watcher in watchers {
                if is_change(watcher) && !self.touched_watchers.contains(&watcher.client) {
                    self.touched_watchers.push(watcher.client);
                }
            }
        }
    }

    /// Clients that wait for `key`, if any, will be looked at when the command that writes it has ended.
    fn signal_ready(&mut self, key: &[u8]) {
        if self.blocking_keys.contains_key(key) && self.ready_keys.back().is_none_or(|ready| ready.key != key) {
            self.ready_keys.push_back(blocked::Ready { key: key.to_vec(), after: None });
        }
    }

    /// Registers a client that watches `key`.
    pub fn watch(&mut self, key: &[u8], watcher: Watcher) {
        let watchers = self.watched_keys.entry(key.to_vec()).or_default();
        if !watchers.iter().any(|other| other.client == watcher.client) {
            watchers.push(watcher);
        }
        self.set_hook(Hook::Watched, true);
    }

    /// Ends a client's watch of `key`.
    pub fn unwatch(&mut self, key: &[u8], client: u64) {
        if let Some(watchers) = self.watched_keys.get_mut(key) {
            watchers.retain(|watcher| watcher.client != client);
            if watchers.is_empty() {
                self.watched_keys.remove(key);
            }
        }
        self.touched_watchers.retain(|touched| *touched != client);
        self.set_hook(Hook::Watched, !self.watched_keys.is_empty());
    }

    /// The entry of `key` if it exists and has not expired; an expired one is removed.
    #[inline]
    pub fn find(&mut self, core: &mut Core, key: Key<'_>) -> Option<EntryPtr> {
        let entry = self.dict.find(key.hash, key.bytes)?;
        if entry.expire_at().is_some_and(|at| at <= core.now_ms) {
            return self.expired(core, key);
        }
        Some(entry)
    }

    #[cold]
    fn expired(&mut self, core: &mut Core, key: Key<'_>) -> Option<EntryPtr> {
        if !core.keeps_expired {
            self.expire_now(core, key);
        }
        None
    }

    /// Removes a key whose time has come, and counts it.
    pub fn expire_now(&mut self, core: &mut Core, key: Key<'_>) {
        self.before_removal(key.bytes);
        // Time has changed it, even where a client's command has noticed.
        self.touch_tracked(key.bytes, false);
        if self.delete_untracked_lazily(core, key, core.config.lazyfree_lazy_expire) {
            core.stats.expired_keys += 1;
            core.notify(Event::EXPIRED, "expired", key.bytes, self.id as u16);
            core.effects.push(self.id as u16, &[expired_word(core), key.bytes]);
        }
    }

    /// [`RedisDb::find`] for a read: counts a hit or a miss, and marks the entry as used.
    #[inline]
    pub fn lookup_read(&mut self, core: &mut Core, key: Key<'_>) -> Option<EntryPtr> {
        match self.find(core, key) {
            Some(entry) => {
                core.stats.keyspace_hits += 1;
                self.touch(core, entry);
                Some(entry)
            }
            None => {
                core.stats.keyspace_misses += 1;
                core.notify(Event::KEY_MISS, "keymiss", key.bytes, self.id as u16);
                None
            }
        }
    }

    /// [`RedisDb::find`] for a write: marks the entry as used. The caller announces its change by
    /// [`RedisDb::before_write`], which the changing operations of this type do themselves.
    #[inline]
    pub fn lookup_write(&mut self, core: &mut Core, key: Key<'_>) -> Option<EntryPtr> {
        let entry = self.find(core, key)?;
        self.touch(core, entry);
        Some(entry)
    }

    /// Marks `entry` as used, by LRU clock or LFU counter as the policy asks.
    #[inline]
    pub fn touch(&self, core: &mut Core, mut entry: EntryPtr) {
        if core.no_touch {
            return;
        }
        if core.config.maxmemory_policy.is_lfu() {
            let value = evict::lfu_touched(entry.lru(), core);
            entry.set_lru(value);
        } else if entry.lru() != core.lru_clock {
            // Most reads of a hot key find the stamp of this second already there and leave the line clean.
            entry.set_lru(core.lru_clock);
        }
    }

    /// The entry of `key` as a string's, or an error if it holds another type.
    #[inline]
    pub fn lookup_read_kind(
        &mut self,
        core: &mut Core,
        key: Key<'_>,
        kind: Kind,
    ) -> Result<Option<EntryPtr>, CommandError> {
        match self.lookup_read(core, key) {
            Some(entry) if entry.kind() != kind => Err(CommandError::WrongType),
            found => Ok(found),
        }
    }

    /// As [`RedisDb::lookup_read_kind`], for a write.
    #[inline]
    pub fn lookup_write_kind(
        &mut self,
        core: &mut Core,
        key: Key<'_>,
        kind: Kind,
    ) -> Result<Option<EntryPtr>, CommandError> {
        match self.lookup_write(core, key) {
            Some(entry) if entry.kind() != kind => Err(CommandError::WrongType),
            found => Ok(found),
        }
    }

    /// Sets `key` to a string, whatever it held.
    #[inline]
    pub fn set_string(&mut self, core: &mut Core, key: Key<'_>, value: &[u8], ttl: Ttl) {
        self.before_write(key.bytes);
        match self.dict.find(key.hash, key.bytes) {
            Some(entry) if entry.kind() == Kind::String => {
                // SAFETY: the entry is this database's, and whatever pointed to it is replaced below.
                let moved = unsafe { entry.overwrite_string(value) };
                self.moved(key.hash, entry, moved);
                let entry = self.set_ttl(core, key, moved, ttl);
                self.touch(core, entry);
            }
            Some(entry) => {
                let keep = match ttl {
                    Ttl::Keep => entry.expire_at(),
                    Ttl::Clear => None,
                    Ttl::At(at) => Some(at),
                };
                self.delete_untracked(key);
                self.put(core, key, EntryPtr::new_string(key.bytes, value, keep));
            }
            None => {
                let at = if let Ttl::At(at) = ttl { Some(at) } else { None };
                self.add(core, key, EntryPtr::new_string(key.bytes, value, at));
            }
        }
    }

    /// Adds an entry whose key is absent, and reports that it came into being.
    #[inline]
    pub fn add(&mut self, core: &mut Core, key: Key<'_>, entry: EntryPtr) {
        core.notify(Event::NEW, "new", key.bytes, self.id as u16);
        self.put(core, key, entry);
    }

    /// Adds an entry whose key is absent: it was just removed to make place for it.
    #[inline]
    fn put(&mut self, core: &mut Core, key: Key<'_>, mut entry: EntryPtr) {
        let stamp = match core.config.maxmemory_policy.is_lfu() {
            true => evict::lfu_new(core),
            false => core.lru_clock,
        };
        entry.set_lru(stamp);
        entry.set_epoch(self.epoch);
        if self.hooks != 0 {
            self.signal_ready(key.bytes);
        }
        if let Some(at) = entry.object().and_then(ObjectRef::next_expire) {
            self.field_expires.insert((at, key.bytes.to_vec()));
        }
        if entry.expire_at().is_some() {
            self.expires.insert(&core.hasher, key.hash, entry);
        }
        self.dict.insert(&core.hasher, key.hash, entry);
    }

    /// Adds a collection under an absent key; announces the change.
    pub fn add_object(&mut self, core: &mut Core, key: Key<'_>, object: Object) -> EntryPtr {
        self.before_write(key.bytes);
        let entry = EntryPtr::new_object(key.bytes, object, None);
        self.add(core, key, entry);
        entry
    }

    /// Lets `change` alter the collection of an entry of this database, and notes its encoding after that. The caller
    /// has announced the change by [`RedisDb::before_write`]: a command that finds nothing to change must not.
    pub fn with_object_mut<T>(&mut self, mut entry: EntryPtr, change: impl FnOnce(ObjectMut<'_>) -> T) -> T {
        let then = entry.object().and_then(ObjectRef::next_expire);
        // SAFETY: the entry is this database's, which `&mut self` holds meanwhile, so that no reference into it that
        // a lookup gave is alive.
        let result = change(unsafe { entry.object_mut() }.expect("a collection is an object"));
        let object = entry.object().expect("a collection is an object");
        let (encoding, now) = (object.encoding(), object.next_expire());
        entry.set_encoding(encoding);
        if then != now {
            self.note_field_expires(entry.key(), then, now);
        }
        result
    }

    /// The first time at which a field of the hash at `key` goes was one and is another.
    fn note_field_expires(&mut self, key: &[u8], then: Option<i64>, now: Option<i64>) {
        if let Some(at) = then {
            self.field_expires.remove(&(at, key.to_vec()));
        }
        if let Some(at) = now {
            self.field_expires.insert((at, key.to_vec()));
        }
    }

    /// Removes fields of a hash whose time has come, and counts them; true when the key went with the last.
    pub fn expire_fields(&mut self, core: &mut Core, key: Key<'_>, entry: EntryPtr, fields: &[&[u8]]) -> bool {
        self.before_write(key.bytes);
        let empty = self.with_object_mut(entry, |object| match object {
            ObjectMut::Hash(hash) => {
                fields.iter().for_each(|field| {
                    hash.remove(field);
                });
                hash.is_empty()
            }
            _ => unreachable!("only hashes have fields"),
        });
        core.stats.expired_subkeys += fields.len() as u64;
        fields.iter().for_each(|field| core.effects.push(self.id as u16, &[b"HDEL", key.bytes, field]));
        core.notify(Event::HASH, "hexpired", key.bytes, self.id as u16);
        if empty {
            self.delete(key);
            core.notify(Event::GENERIC, "del", key.bytes, self.id as u16);
        }
        empty
    }

    /// Puts `moved` in the place of `old`, which is dead if they differ.
    #[inline]
    pub fn moved(&mut self, hash: u64, old: EntryPtr, moved: EntryPtr) {
        if old.to_ptr() != moved.to_ptr() {
            self.dict.replace(hash, old, moved);
            if moved.expire_at().is_some() {
                self.expires.replace(hash, old, moved);
            }
        }
    }

    /// Changes an entry's time to live; returns it, for it may have moved.
    #[inline]
    pub fn set_ttl(&mut self, core: &mut Core, key: Key<'_>, entry: EntryPtr, ttl: Ttl) -> EntryPtr {
        let at = match ttl {
            Ttl::Keep => return entry,
            Ttl::Clear => None,
            Ttl::At(at) => Some(at),
        };
        let had = entry.expire_at().is_some();
        if !had && at.is_none() {
            return entry;
        }
        if had && at.is_none() {
            self.expires.remove_ptr(key.hash, entry);
        }
        // SAFETY: the entry is this database's, and whatever pointed to it is replaced below.
        let moved = unsafe { entry.set_expire(at) };
        if moved.to_ptr() != entry.to_ptr() {
            self.dict.replace(key.hash, entry, moved);
            if had && at.is_some() {
                self.expires.replace(key.hash, entry, moved);
            }
        }
        if !had {
            self.expires.insert(&core.hasher, key.hash, moved);
        }
        moved
    }

    /// Sets a string and keeps its time to live, without looking for an integer in it: the results of `INCRBYFLOAT` are
    /// texts in Redis, whatever they look like.
    pub fn set_text(&mut self, core: &mut Core, key: Key<'_>, value: &[u8]) {
        if self.dict.find(key.hash, key.bytes).is_none() {
            self.set_string(core, key, b"", Ttl::Clear);
        }
        self.before_write(key.bytes);
        let entry = self.dict.find(key.hash, key.bytes).expect("it was there or was just written");
        // SAFETY: the entry is this database's, and whatever pointed to it is replaced below.
        let moved = unsafe { entry.overwrite_text(value) };
        self.moved(key.hash, entry, moved);
        self.touch(core, moved);
    }

    /// Sets a string that is raw bytes, however short and whatever it looks like: what was computed bit by bit is so in
    /// Redis.
    pub fn set_raw(&mut self, core: &mut Core, key: Key<'_>, value: &[u8]) {
        self.set_string(core, key, b"", Ttl::Clear);
        let entry = self.dict.find(key.hash, key.bytes).expect("it was just written");
        self.modify_string(key, entry, value.len(), |bytes| bytes.copy_from_slice(value));
    }

    /// Gives a string the raw encoding without changing it, as Redis does before it looks for what to change.
    pub fn make_raw(&mut self, key: Key<'_>, entry: EntryPtr) {
        if entry.encoding() != Encoding::Raw {
            let len = entry.string().map_or(0, |text| text.len());
            // SAFETY: the entry is this database's, and whatever pointed to it is replaced below.
            let (moved, _) = unsafe { entry.string_mut(len) };
            self.moved(key.hash, entry, moved);
        }
    }

    /// Gives a string `len` bytes, new ones zero, and lets `write` change them.
    pub fn modify_string<T>(
        &mut self,
        key: Key<'_>,
        entry: EntryPtr,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> T,
    ) -> T {
        self.before_write(key.bytes);
        // SAFETY: the entry is this database's, and whatever pointed to it is replaced below.
        let (moved, bytes) = unsafe { entry.string_mut(len) };
        self.moved(key.hash, entry, moved);
        write(bytes)
    }

    /// Removes `key`; says whether it was there. Announces the change.
    #[inline]
    pub fn delete(&mut self, key: Key<'_>) -> bool {
        self.before_write(key.bytes);
        self.delete_untracked(key)
    }

    /// As [`RedisDb::delete`]; with `lazily`, a value of many parts is freed out of the way.
    pub fn delete_lazily(&mut self, core: &mut Core, key: Key<'_>, lazily: bool) -> bool {
        self.before_write(key.bytes);
        self.delete_untracked_lazily(core, key, lazily)
    }

    fn delete_untracked_lazily(&mut self, core: &mut Core, key: Key<'_>, lazily: bool) -> bool {
        let Some(entry) = self.unlink(key) else { return false };
        match lazily && lazyfree::is_worth_it(entry) {
            true => lazyfree::free_entry_later(core, entry),
            // SAFETY: `unlink` took the last pointers to the entry out of both tables.
            false => unsafe { entry.free() },
        }
        true
    }

    fn delete_untracked(&mut self, key: Key<'_>) -> bool {
        match self.unlink(key) {
            Some(entry) => {
                // SAFETY: `unlink` took the last pointers to the entry out of both tables.
                unsafe { entry.free() };
                true
            }
            None => false,
        }
    }

    /// Takes the entry of `key` out of the tables without freeing it: the caller owns it.
    pub fn unlink(&mut self, key: Key<'_>) -> Option<EntryPtr> {
        let entry = self.dict.remove(key.hash, key.bytes)?;
        if let Some(at) = entry.object().and_then(ObjectRef::next_expire) {
            self.field_expires.remove(&(at, key.bytes.to_vec()));
        }
        if entry.expire_at().is_some() {
            self.expires.remove_ptr(key.hash, entry);
        }
        Some(entry)
    }

    /// Removes all keys; says how many there were. With `lazily`, they are freed out of the way.
    pub fn empty(&mut self, core: &mut Core, lazily: bool) -> usize {
        let removed = self.dict.len();
        for name in self.heeded_keys() {
            if self.dict.find(core.hasher.hash(&name), &name).is_some() {
                self.before_removal(&name);
            }
        }
        // Before anything is taken away: a snapshot that is given up needs none of it.
        if core.shared.persistence.is_over(core.shared.persistence.snapshot.load(Relaxed)) {
            self.walk = None;
            self.set_hook(Hook::Snapshot, false);
        }
        match lazily {
            _ if self.leave_to_walk() => {}
            true => {
                lazyfree::free_tables_later(core, std::mem::take(&mut self.dict), std::mem::take(&mut self.expires))
            }
            false => self.free_all(),
        }
        self.field_expires.clear();
        self.expires_cursor = 0;
        self.avg_ttl = 0;
        removed
    }

    /// Keys that are watched or waited for.
    fn heeded_keys(&self) -> Vec<Vec<u8>> {
        self.watched_keys.keys().chain(self.blocking_keys.keys()).cloned().collect()
    }

    /// Exchanges the keys with another database's; clients that watch or wait stay with the number they chose.
    pub fn swap_keys(&mut self, other: &mut RedisDb, hasher: &Hasher, now_ms: i64) {
        std::mem::swap(&mut self.dict, &mut other.dict);
        std::mem::swap(&mut self.expires, &mut other.expires);
        std::mem::swap(&mut self.field_expires, &mut other.field_expires);
        std::mem::swap(&mut self.avg_ttl, &mut other.avg_ttl);
        std::mem::swap(&mut self.expires_cursor, &mut other.expires_cursor);
        self.swap_walks(other);
        self.touch_swapped(other, hasher, now_ms);
        other.touch_swapped(self, hasher, now_ms);
    }

    /// Keys that are watched or waited for and exist on either side of a swap have changed; to those who watch them one
    /// whose time has passed is like none.
    fn touch_swapped(&mut self, other: &RedisDb, hasher: &Hasher, now_ms: i64) {
        for name in self.heeded_keys() {
            let hash = hasher.hash(&name);
            let (new, old) = (self.dict.find(hash, &name), other.dict.find(hash, &name));
            if new.is_none() && old.is_none() {
                continue;
            }
            let stale = new.is_some_and(|entry| entry.expire_at().is_some_and(|at| at <= now_ms));
            self.touch_watched(&name, |watcher| {
                let was_there = old.is_some() && !watcher.expired;
                watcher.expired = stale && !was_there;
                was_there || (new.is_some() && !stale)
            });
            self.before_unwatched_write(&name);
        }
    }

    fn free_all(&mut self) {
        self.expires = Dict::new();
        lazyfree::free_table(std::mem::take(&mut self.dict));
    }
}

/// A copy of an entry's value and time to live under another key.
pub fn duplicate(entry: EntryPtr, key: &[u8]) -> EntryPtr {
    let at = entry.expire_at();
    match (entry.string(), entry.object()) {
        (Some(StrRef::Int(n)), _) => EntryPtr::new_int(key, n, at),
        (Some(StrRef::Bytes(bytes)), _) => {
            let mut copy = EntryPtr::new_string(key, bytes, at);
            if copy.encoding() != entry.encoding() {
                // A text that looks like a number, as `INCRBYFLOAT` leaves it, stays a text, and what was changed in
                // place stays raw.
                // SAFETY: nothing points to the new entry yet.
                unsafe {
                    copy = copy.overwrite_text(bytes);
                    if copy.encoding() != entry.encoding() {
                        copy = copy.string_mut(bytes.len()).0;
                    }
                }
            }
            copy
        }
        (None, Some(object)) => EntryPtr::new_object(key, object.to_object(), at),
        (None, None) => unreachable!("a value is a string or an object"),
    }
}

impl std::fmt::Debug for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys: usize = self.dbs.iter().map(|db| db.dict.len()).sum();
        f.debug_struct("Slice").field("owner", &self.owner).field("keys", &keys).finish()
    }
}

impl Drop for RedisDb {
    fn drop(&mut self) {
        self.free_all();
    }
}
