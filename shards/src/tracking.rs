//! Client-side caching: `CLIENT TRACKING`, and who is told when a key has changed.
//!
//! Which clients may keep a key is noted with the slice that owns it ([`TrackingTable`]), by the read itself, so that
//! no write can come between. A write takes the key's entry out and sends one [`Invalidation`] to the home of each
//! client in it.
//!
//! **Order.** A client must hear of a change after the reply that carried the older value, or it would keep that value
//! for ever. Its home puts a notice behind all replies that the client still awaits, with one exception: a client that
//! waits for keys (`XREAD BLOCK`) may do so for ever, and is told at once. So a notice must not overtake a reply either.
//! A client's reads run on the shard that owns the key or, with slices that are lent, at its own home. It is enough that
//! *the owner* sends the notice, by the channel that its replies take, behind them: what is written on a lent slice waits
//! in the slice until that is back, and a parcel's notices are taken in after its replies. A notice that comes late,
//! after the reply with the newer value, costs a read and harms nobody.
//!
//! Clients in `BCAST` mode are told of every key with one of their prefixes. These are collected a turn and sent the
//! same way. A flush is told by all owners, and told on to the client once, when the last of them has.
//!
//! While nobody tracks, nothing of this is asked but a flag a command. Counterpart: `tracking.c`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, RwLock};

use crate::args::Args;
use crate::client::{Client, Sends, gate};
use crate::commands::{Command, flag};
use crate::core::{Core, Fault};
use crate::db::{Hook, Keyspace, Slice};
use crate::message::Note;
use crate::pubsub::{Letter, push_message};
use crate::resp::Reply;
use crate::router::ShardId;
use crate::shard::Shard;
use crate::shared::Lone;

/// A client, wherever it is at home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its home shard.
    pub home: ShardId,
    /// Its place there.
    pub index: u32,
    /// Its id.
    pub id: u64,
}

/// How a client tracks.
#[derive(Clone, Debug, Default)]
pub struct Tracking {
    /// `BCAST`.
    pub bcast: bool,
    /// `OPTIN`.
    pub optin: bool,
    /// `OPTOUT`.
    pub optout: bool,
    /// `NOLOOP`.
    pub noloop: bool,
    /// `CLIENT CACHING` was said for the next command.
    pub caching: bool,
    /// The client that notices go to was gone when there was one.
    pub broken: bool,
    /// `REDIRECT`.
    pub redirect: Option<Target>,
    /// `PREFIX`.
    pub prefixes: BTreeSet<Vec<u8>>,
}

impl Tracking {
    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        let bytes = self.prefixes.iter().map(|prefix| prefix.capacity() + 2 * size_of::<Vec<u8>>());
        size_of::<Self>() + bytes.sum::<usize>()
    }

    /// Whether the keys of the next read are to be noted.
    fn notes_reads(&self) -> bool {
        match (self.optin, self.optout) {
            _ if self.bcast => false,
            (true, _) => self.caching,
            (_, true) => !self.caching,
            _ => true,
        }
    }
}

impl Client {
    /// Brings the bits of its gate in line with how it tracks.
    fn heed_tracking(&mut self) {
        self.gate &= !(gate::TRACKING | gate::NOTES_READS);
        if let Some(tracking) = self.tracking.as_deref() {
            self.gate |= gate::TRACKING | if tracking.notes_reads() { gate::NOTES_READS } else { 0 };
        }
    }

    /// Says whether `CLIENT CACHING` holds for the next command.
    pub fn set_caching(&mut self, on: bool) {
        if let Some(tracking) = self.tracking.as_deref_mut() {
            tracking.caching = on;
            self.heed_tracking();
        }
    }
}

/// How many clients each shard has of a kind, for those that have any.
type Places = Vec<(ShardId, usize)>;

/// What all shards share of tracking.
#[derive(Debug)]
pub struct TrackingState {
    /// Clients of each shard that track.
    pub clients: Vec<Lone<AtomicUsize>>,
    /// Keys in all tables.
    pub keys: AtomicUsize,
    /// Pairs of key and client in all tables.
    pub items: AtomicUsize,
    /// Prefixes of clients in `BCAST` mode, and how many clients of which shard have each.
    prefixes: RwLock<BTreeMap<Vec<u8>, Places>>,
    flushes: AtomicU64,
}

/// Prefixes, and the shards with clients that have them.
pub type Prefixes = Arc<Vec<(Vec<u8>, Vec<ShardId>)>>;

impl TrackingState {
    /// Nobody tracks.
    pub fn new(shards: usize) -> Self {
        TrackingState {
            clients: (0..shards).map(|_| Lone::default()).collect(),
            keys: AtomicUsize::new(0),
            items: AtomicUsize::new(0),
            prefixes: RwLock::default(),
            flushes: AtomicU64::new(0),
        }
    }

    /// How many clients track.
    pub fn total_clients(&self) -> usize {
        self.clients.iter().map(|clients| clients.0.load(Relaxed)).sum()
    }

    /// How many prefixes there are.
    pub fn total_prefixes(&self) -> usize {
        self.prefixes.read().expect("no holder panics").len()
    }

    /// All prefixes as of now.
    pub fn prefixes(&self) -> Prefixes {
        let prefixes = self.prefixes.read().expect("no holder panics");
        let shards = |places: &Places| places.iter().map(|(shard, _)| *shard).collect();
        Arc::new(prefixes.iter().map(|(prefix, places)| (prefix.clone(), shards(places))).collect())
    }

    fn change_prefix(&self, prefix: &[u8], shard: ShardId, on: bool) {
        let mut prefixes = self.prefixes.write().expect("no holder panics");
        let places = prefixes.entry(prefix.to_vec()).or_default();
        match (places.iter().position(|(place, _)| *place == shard), on) {
            (Some(at), true) => places[at].1 += 1,
            (None, true) => places.push((shard, 1)),
            (Some(at), false) => {
                places[at].1 -= 1;
                if places[at].1 == 0 {
                    places.swap_remove(at);
                }
            }
            (None, false) => {}
        }
        if places.is_empty() {
            prefixes.remove(prefix);
        }
    }
}

/// A key that was written, until the command that wrote it has ended.
#[derive(Debug)]
pub struct Touched {
    /// The name.
    pub key: Vec<u8>,
    /// Whether a command changed it, not its time.
    pub by_client: bool,
}

/// A key has changed that clients may have kept.
#[derive(Debug)]
pub struct Invalidation {
    key: Vec<u8>,
    /// The client that changed it; 0 when none did.
    writer: u64,
    targets: Vec<Target>,
}

/// Keys with a prefix have changed.
#[derive(Debug)]
pub struct Broadcast {
    prefix: Vec<u8>,
    /// By key: the client that changed it last, or 0.
    keys: BTreeMap<Vec<u8>, u64>,
}

/// A notice for a client that another has its notices sent to.
#[derive(Debug)]
pub struct Redirected {
    to: Target,
    from: Target,
    /// `None`: all keys.
    keys: Option<Vec<Vec<u8>>>,
}

/// What shards tell each other of tracking, see [`Letter::Tracking`].
#[derive(Debug)]
pub enum Notice {
    /// A key has changed.
    Invalid(Invalidation),
    /// Keys have changed.
    Broadcast(Broadcast),
    /// One of so many slices was flushed, all by the same command.
    Flushed {
        /// Which flush.
        number: u64,
        /// How many slices tell of it.
        parts: usize,
    },
    /// For another client.
    Redirected(Redirected),
    /// The client that this one's notices go to is gone.
    Broken(Target),
}

/// Which clients may have kept which keys of a slice, and what is to be told of it. Keys of all databases are one: like
/// Redis, what clients are told has no number of a database.
#[derive(Debug, Default)]
pub struct TrackingTable {
    /// By key: its place in `entries`.
    places: HashMap<Arc<[u8]>, usize>,
    /// The clients in order of their ids.
    entries: Vec<(Arc<[u8]>, Vec<Target>)>,
    /// What the owner is to send when the slice is back.
    letters: Vec<(Letter, Vec<ShardId>)>,
    /// By prefix: keys that were written this turn.
    broadcasts: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, u64>>,
    /// Whether the hooks of the databases are set.
    heeded: bool,
}

impl TrackingTable {
    /// How many keys are in it.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no key is in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn insert(&mut self, state: &TrackingState, key: &[u8], client: Target) {
        let at = match self.places.get(key) {
            Some(at) => *at,
            None => {
                let key: Arc<[u8]> = key.into();
                self.places.insert(key.clone(), self.entries.len());
                self.entries.push((key, Vec::new()));
                state.keys.fetch_add(1, Relaxed);
                self.entries.len() - 1
            }
        };
        let clients = &mut self.entries[at].1;
        if let Err(place) = clients.binary_search_by_key(&client.id, |target| target.id) {
            clients.insert(place, client);
            state.items.fetch_add(1, Relaxed);
        }
    }

    fn remove(&mut self, state: &TrackingState, key: &[u8]) -> Option<Vec<Target>> {
        let at = *self.places.get(key)?;
        state.keys.fetch_sub(1, Relaxed);
        Some(self.remove_at(state, at).1)
    }

    /// Takes an entry out; the caller counts the key.
    fn remove_at(&mut self, state: &TrackingState, at: usize) -> (Arc<[u8]>, Vec<Target>) {
        let (key, clients) = self.entries.swap_remove(at);
        self.places.remove(&key);
        if let Some((moved, _)) = self.entries.get(at) {
            *self.places.get_mut(moved).expect("every entry has its place") = at;
        }
        state.items.fetch_sub(clients.len(), Relaxed);
        (key, clients)
    }

    fn clear(&mut self, state: &TrackingState) {
        state.keys.fetch_sub(self.entries.len(), Relaxed);
        state.items.fetch_sub(self.entries.iter().map(|(_, clients)| clients.len()).sum(), Relaxed);
        self.places = HashMap::new();
        self.entries = Vec::new();
    }
}

/// Leaves a letter of a slice's with its owner.
fn send(core: &mut Core, slice: &mut Slice, notice: Notice, shards: Vec<ShardId>) {
    let letter = Letter::Tracking(notice);
    match slice.owner == core.id || core.leaves_out(Fault::NoticePassesOwner) {
        true => core.post.push(letter, shards),
        false => slice.tracking.letters.push((letter, shards)),
    }
}

fn invalidate(core: &mut Core, slice: &mut Slice, key: Vec<u8>, writer: u64, targets: Vec<Target>) {
    let mut shards: Vec<ShardId> = Vec::new();
    for target in &targets {
        if !shards.contains(&target.home) {
            shards.push(target.home);
        }
    }
    send(core, slice, Notice::Invalid(Invalidation { key, writer, targets }), shards);
}

/// Tells of the keys of a slice that were written since the last time, by the client with this id.
pub fn settle(core: &mut Core, slice: &mut Slice, writer: u64) {
    for db in 0..slice.dbs.len() {
        for Touched { key, by_client } in std::mem::take(&mut slice.dbs[db].touched) {
            let writer = if by_client { writer } else { 0 };
            for (prefix, _) in core.prefixes.iter().filter(|(prefix, _)| key.starts_with(prefix)) {
                slice.tracking.broadcasts.entry(prefix.clone()).or_default().insert(key.clone(), writer);
            }
            if let Some(targets) = slice.tracking.remove(&core.shared.tracking, &key) {
                invalidate(core, slice, key, writer, targets);
            }
        }
    }
}

/// As [`settle`], for all slices in hand.
pub fn settle_all(core: &mut Core, keys: &mut Keyspace<'_>, writer: u64) {
    keys.slices().for_each(|slice| settle(core, slice, writer));
}

/// Notes that a client has read the keys of a command.
pub fn remember(core: &mut Core, keys: &mut Keyspace<'_>, client: Target, row: &Command, args: Args<'_>) {
    if !row.has(flag::READONLY) || row.has(flag::SCRIPT) {
        return;
    }
    row.for_each_key(args, &mut |index| {
        let key = args.at(index);
        let slice = keys.slice(key);
        slice.tracking.insert(&core.shared.tracking, key, client);
        limit(core, slice);
    });
}

/// Keys that one look at a table that is too large may take out.
const EFFORT: usize = 1000;

/// Takes keys out while the tables hold more than `tracking-table-max-keys`, and tells those who may have them.
pub fn limit(core: &mut Core, slice: &mut Slice) {
    let most = core.config.tracking_table_max_keys;
    if most == 0 {
        return;
    }
    let shared = core.shared.clone();
    let state = &shared.tracking;
    for _ in 0..EFFORT {
        // Counted down first: another shard may be at it as well, and together they are to take no more than there are
        // too many.
        let take = |n| (n > most && !slice.tracking.is_empty()).then(|| n - 1);
        if state.keys.fetch_update(Relaxed, Relaxed, take).is_err() {
            return;
        }
        let at = core.rng.below(slice.tracking.len() as u64) as usize;
        let (key, targets) = slice.tracking.remove_at(state, at);
        invalidate(core, slice, key.to_vec(), 0, targets);
    }
}

/// Tells of a flush of the slices in hand, which are all.
pub fn flushed<'a>(core: &mut Core, slices: impl Iterator<Item = &'a mut Slice>) {
    let slices: Vec<&mut Slice> = slices.collect();
    let shared = core.shared.clone();
    let state = &shared.tracking;
    let tracks = |shard: &ShardId| state.clients[*shard as usize].0.load(Relaxed) > 0;
    let shards: Vec<ShardId> = (0..core.shards as ShardId).filter(tracks).collect();
    let (number, parts) = (state.flushes.fetch_add(1, Relaxed), slices.len());
    for slice in slices {
        slice.dbs.iter_mut().for_each(|db| db.touched.clear());
        slice.tracking.clear(state);
        if !shards.is_empty() {
            send(core, slice, Notice::Flushed { number, parts }, shards.clone());
        }
    }
}

/// Sets the hooks of a slice that is home, as someone tracks or nobody does.
pub fn heed(core: &mut Core, slice: &mut Slice) {
    if slice.tracking.heeded == core.tracked {
        return;
    }
    slice.tracking.heeded = core.tracked;
    slice.dbs.iter_mut().for_each(|db| db.set_hook(Hook::Tracking, core.tracked));
    if !core.tracked {
        slice.dbs.iter_mut().for_each(|db| db.touched = Vec::new());
        slice.tracking.clear(&core.shared.tracking);
        slice.tracking.broadcasts.clear();
    }
}

impl Shard {
    /// Takes over who tracks as of this turn.
    pub(crate) fn refresh_tracking(&mut self) {
        let state = &self.core.shared.tracking;
        self.core.tracked = state.clients.iter().any(|clients| clients.0.load(Relaxed) > 0);
        self.core.prefixes = if self.core.tracked { state.prefixes() } else { Prefixes::default() };
        if let Some(slice) = self.slices[self.core.id as usize].as_deref_mut() {
            heed(&mut self.core, slice);
        }
    }

    /// The slice is back: what was written on it meanwhile is told.
    pub(crate) fn settle_returned(&mut self) {
        let Some(slice) = self.slices[self.core.id as usize].as_deref_mut() else { return };
        heed(&mut self.core, slice);
        if self.core.tracked {
            settle(&mut self.core, slice, 0);
        }
        for (letter, shards) in slice.tracking.letters.drain(..) {
            self.core.post.push(letter, shards);
        }
        self.post();
    }

    /// Tells of what was written on this shard's slice outside of commands.
    pub(crate) fn settle_own(&mut self) {
        if self.core.tracked
            && let Some(slice) = self.slices[self.core.id as usize].as_deref_mut()
        {
            settle(&mut self.core, slice, 0);
        }
    }

    /// Looks whether the tables hold too many keys; takes some out of this shard's.
    pub(crate) fn limit_tracking(&mut self) {
        if self.core.tracked
            && let Some(slice) = self.slices[self.core.id as usize].as_deref_mut()
        {
            limit(&mut self.core, slice);
            self.post();
        }
    }

    /// Sends clients in `BCAST` mode the keys that were written this turn.
    pub(crate) fn broadcast(&mut self) {
        let Some(slice) = self.slices[self.core.id as usize].as_deref_mut() else { return };
        if slice.tracking.broadcasts.is_empty() {
            return;
        }
        for (prefix, keys) in std::mem::take(&mut slice.tracking.broadcasts) {
            if let Some((_, shards)) = self.core.prefixes.iter().find(|(known, _)| *known == prefix) {
                let notice = Notice::Broadcast(Broadcast { prefix, keys });
                self.core.post.push(Letter::Tracking(notice), shards.clone());
            }
        }
        self.post();
    }

    /// Tells this shard's clients what they are to know.
    pub(crate) fn take_notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Invalid(Invalidation { key, writer, targets }) => {
                let own = self.core.id;
                for target in targets.iter().filter(|target| target.home == own) {
                    let Some(client) = self.client_by_id(target.index, target.id) else { continue };
                    let Some(tracking) = client.tracking.as_deref() else { continue };
                    let own = tracking.noloop && *writer == target.id;
                    // What it read before it went over to prefixes is no concern of it any more.
                    if tracking.bcast || own {
                        continue;
                    }
                    self.tell(target.index, Some(&[key]));
                }
            }
            Notice::Broadcast(Broadcast { prefix, keys }) => {
                let places: Vec<u32> = self.prefixes.get(prefix).into_iter().flatten().copied().collect();
                for index in places {
                    let client = self.client(index);
                    let own = client.tracking.as_deref().is_some_and(|tracking| tracking.noloop).then_some(client.id);
                    let wanted = keys.iter().filter(|(_, writer)| Some(**writer) != own).map(|(key, _)| &key[..]);
                    let wanted: Vec<&[u8]> = wanted.collect();
                    if !wanted.is_empty() {
                        self.tell(index, Some(&wanted));
                    }
                }
            }
            Notice::Flushed { number, parts } => {
                let heard = self.flushes.entry(*number).or_default();
                *heard += 1;
                if *heard == *parts {
                    self.flushes.remove(number);
                    let tracks = |client: &&Client| client.gate & gate::TRACKING != 0;
                    let places: Vec<u32> = self.clients().filter(tracks).map(|client| client.index).collect();
                    places.into_iter().for_each(|index| self.tell(index, None));
                }
            }
            Notice::Redirected(Redirected { to, from, keys }) => {
                if self.client_by_id(to.index, to.id).is_some() {
                    let keys: Option<Vec<&[u8]>> = keys.as_ref().map(|keys| keys.iter().map(|key| &key[..]).collect());
                    self.write_notice(to.index, keys.as_deref(), true);
                } else {
                    let letter = Letter::Tracking(Notice::Broken(*from));
                    self.outbox.note(from.home, Note::Letter(Arc::new(letter)));
                }
            }
            Notice::Broken(from) => {
                if self.client_by_id(from.index, from.id).is_some() {
                    self.break_redirection(from.index);
                }
            }
        }
    }

    /// Tells a client, or the one that it has its notices sent to, which keys have changed; `None`: all.
    fn tell(&mut self, index: u32, keys: Option<&[&[u8]]>) {
        let home = self.core.id;
        let client = self.client(index);
        let from = Target { home, index, id: client.id };
        match client.tracking.as_deref().and_then(|tracking| tracking.redirect) {
            None => self.write_notice(index, keys, false),
            Some(to) if to.home == home => match self.client_by_id(to.index, to.id).is_some() {
                true => self.write_notice(to.index, keys, true),
                false => self.break_redirection(index),
            },
            Some(to) => {
                let keys = keys.map(|keys| keys.iter().map(|key| key.to_vec()).collect());
                let letter = Letter::Tracking(Notice::Redirected(Redirected { to, from, keys }));
                self.outbox.note(to.home, Note::Letter(Arc::new(letter)));
            }
        }
    }

    /// Writes a notice: in RESP3, or as a message to one that subscribes to something.
    fn write_notice(&mut self, index: u32, keys: Option<&[&[u8]]>, redirected: bool) {
        let client = self.client(index);
        let resp = client.resp;
        let mut bytes = Vec::new();
        let mut reply = Reply::new(&mut bytes, 3);
        if resp == 3 {
            reply.push(2);
            reply.bulk(b"invalidate");
        } else if redirected && client.gate & gate::SUBSCRIBED != 0 {
            reply.push(3);
            reply.bulk(b"message");
            reply.bulk(b"__redis__:invalidate");
        } else {
            return;
        }
        let mut reply = Reply::new(&mut bytes, resp);
        match keys {
            None => reply.null(),
            Some(keys) => {
                reply.array(keys.len());
                keys.iter().for_each(|key| reply.bulk(key));
            }
        }
        self.push_to(index, &bytes);
    }

    fn break_redirection(&mut self, index: u32) {
        let client = self.client(index);
        let Some(tracking) = client.tracking.as_deref_mut() else { return };
        tracking.broken = true;
        let Some(to) = tracking.redirect.filter(|_| client.resp == 3) else { return };
        let mut bytes = Vec::new();
        let mut reply = Reply::new(&mut bytes, 3);
        reply.push(2);
        reply.bulk(b"tracking-redir-broken");
        reply.integer(to.id as i64);
        self.push_to(index, &bytes);
    }

    fn push_to(&mut self, index: u32, bytes: &[u8]) {
        if self.core.leaves_out(Fault::NoticePassesReplies) {
            return self.push_output(index, bytes);
        }
        let Shard { clients, flush, spare_buffers, .. } = self;
        if let Some(client) = clients[index as usize].as_deref_mut() {
            push_message(client, bytes, Sends::Now, flush, spare_buffers);
        }
        if self.client_memory_limit != 0 {
            self.count_memory(index);
        }
    }

    /// `CLIENT TRACKING ON`; prefixes are added to those that the client has.
    pub(crate) fn start_tracking(&mut self, index: u32, how: Tracking) {
        let own = self.core.id;
        let client = self.client(index);
        let had = client.tracking.take();
        let began = had.is_none();
        let had = had.map(|had| *had).unwrap_or_default();
        let caching = had.caching;
        let added: Vec<Vec<u8>> = how.prefixes.difference(&had.prefixes).cloned().collect();
        let prefixes = had.prefixes.union(&how.prefixes).cloned().collect();
        client.tracking = Some(Box::new(Tracking { prefixes, caching, broken: false, ..how }));
        client.heed_tracking();
        let state = &self.core.shared.tracking;
        let first = began && state.clients[own as usize].0.fetch_add(1, Relaxed) == 0;
        for prefix in &added {
            state.change_prefix(prefix, own, true);
            self.prefixes.entry(prefix.clone()).or_default().insert(index);
        }
        if first || !added.is_empty() {
            self.core.shared.bump_epoch();
            self.refresh_tracking();
        }
    }

    /// The client tracks no longer: it says so, resets, or goes away.
    pub(crate) fn end_tracking(&mut self, index: u32) {
        let own = self.core.id;
        let client = self.client(index);
        let Some(tracking) = client.tracking.take() else { return };
        client.heed_tracking();
        let state = &self.core.shared.tracking;
        let last = state.clients[own as usize].0.fetch_sub(1, Relaxed) == 1;
        for prefix in &tracking.prefixes {
            state.change_prefix(prefix, own, false);
            let places = self.prefixes.get_mut(prefix).expect("it has been added");
            places.remove(&index);
            if places.is_empty() {
                self.prefixes.remove(prefix);
            }
        }
        if last || !tracking.prefixes.is_empty() {
            self.core.shared.bump_epoch();
            self.refresh_tracking();
        }
    }
}
