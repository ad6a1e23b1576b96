//! Publish and subscribe, across shards.
//!
//! Each shard keeps the subscriptions of its own clients ([`Subscribers`]), and all share a [`Registry`] of how many
//! there are of each name on which shard. A publisher reads the registry once: that gives the number of receivers,
//! which `PUBLISH` answers without waiting for anyone, and the shards that have some. Each of these gets one note with
//! the payload, and copies the message, encoded once, to its clients' output. The registry's lock is taken by those
//! who publish to a server with subscribers, and for writing only by those who subscribe; no other command knows it.
//!
//! What a command publishes waits in [`crate::core::Core::post`] until the command has replied, for its own client may
//! be among the receivers; what an `EXEC` publishes waits for the whole of its reply. Notes reach a shard in the order
//! sent, and before the publisher's reply leaves, so that who publishes later, having seen that reply, is heard later.
//! Counterpart: `pubsub.c`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::sync::{Arc, RwLock};

use crate::client::{Client, Sends, gate};
use crate::glob;
use crate::message::Note;
use crate::resp::Reply;
use crate::router::ShardId;
use crate::shard::Shard;
use crate::shard::output::SpareBuffers;

/// What a subscription names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A channel.
    Channel = 0,
    /// A pattern over channels.
    Pattern = 1,
    /// A channel that belongs to a slot: `SSUBSCRIBE`, `SPUBLISH`.
    Sharded = 2,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Channel, Kind::Pattern, Kind::Sharded];

    /// The words of the messages that confirm a subscription and its end.
    pub fn confirmations(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Kind::Channel => (b"subscribe", b"unsubscribe"),
            Kind::Pattern => (b"psubscribe", b"punsubscribe"),
            Kind::Sharded => (b"ssubscribe", b"sunsubscribe"),
        }
    }
}

/// How many subscriptions of one name each shard has, for those that have any.
type Places = Vec<(ShardId, usize)>;

/// Names with subscribers. Patterns are walked, in an order that is the same everywhere; channels are looked up.
#[derive(Debug, Default)]
struct Names {
    channels: HashMap<Vec<u8>, Places>,
    patterns: BTreeMap<Vec<u8>, Places>,
    sharded: HashMap<Vec<u8>, Places>,
}

impl Names {
    fn places(&mut self, kind: Kind, name: &[u8]) -> &mut Places {
        match kind {
            Kind::Channel => self.channels.entry(name.to_vec()).or_default(),
            Kind::Pattern => self.patterns.entry(name.to_vec()).or_default(),
            Kind::Sharded => self.sharded.entry(name.to_vec()).or_default(),
        }
    }

    fn forget(&mut self, kind: Kind, name: &[u8]) {
        match kind {
            Kind::Channel => drop(self.channels.remove(name)),
            Kind::Pattern => drop(self.patterns.remove(name)),
            Kind::Sharded => drop(self.sharded.remove(name)),
        }
    }

    fn len(&self) -> usize {
        self.channels.len() + self.patterns.len() + self.sharded.len()
    }
}

/// Which names have subscribers, and where; see the module's page.
#[derive(Debug, Default)]
pub struct Registry {
    names: RwLock<Names>,
    /// How many names there are: publishers look here first.
    len: AtomicUsize,
}

impl Registry {
    /// Whether anyone subscribes to anything.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len.load(Acquire) == 0
    }

    fn change(&self, kind: Kind, name: &[u8], shard: ShardId, on: bool) {
        let mut names = self.names.write().expect("no holder panics");
        let places = names.places(kind, name);
        let at = places.iter().position(|(place, _)| *place == shard);
        match (at, on) {
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
            names.forget(kind, name);
        }
        self.len.store(names.len(), Release);
    }

    /// The shards with receivers of a message, and how many receivers there are; patterns count as often as they match.
    fn receivers(&self, kind: Kind, channel: &[u8], shards: &mut Vec<ShardId>) -> usize {
        let names = self.names.read().expect("no holder panics");
        let mut total = 0;
        let mut add = |places: &Places| {
            for (shard, count) in places {
                total += count;
                if !shards.contains(shard) {
                    shards.push(*shard);
                }
            }
        };
        if kind == Kind::Sharded {
            names.sharded.get(channel).into_iter().for_each(add);
            return total;
        }
        names.channels.get(channel).into_iter().for_each(&mut add);
        for (pattern, places) in &names.patterns {
            if glob::matches(pattern, channel, false) {
                add(places);
            }
        }
        total
    }

    /// How many subscribers a channel has, those of matching patterns left out.
    pub fn subscribers(&self, kind: Kind, name: &[u8]) -> usize {
        let names = self.names.read().expect("no holder panics");
        let places = match kind {
            Kind::Channel => names.channels.get(name),
            Kind::Pattern => names.patterns.get(name),
            Kind::Sharded => names.sharded.get(name),
        };
        places.map_or(0, |places| places.iter().map(|(_, count)| count).sum())
    }

    /// The names with subscribers that match `pattern`, sorted.
    pub fn names(&self, kind: Kind, pattern: Option<&[u8]>) -> Vec<Vec<u8>> {
        let names = self.names.read().expect("no holder panics");
        let matches = |name: &&Vec<u8>| pattern.is_none_or(|pattern| glob::matches(pattern, name, false));
        let mut found: Vec<Vec<u8>> = match kind {
            Kind::Channel => names.channels.keys().filter(matches).cloned().collect(),
            Kind::Pattern => names.patterns.keys().filter(matches).cloned().collect(),
            Kind::Sharded => names.sharded.keys().filter(matches).cloned().collect(),
        };
        found.sort();
        found
    }

    /// How many names have subscribers.
    pub fn count(&self, kind: Kind) -> usize {
        let names = self.names.read().expect("no holder panics");
        match kind {
            Kind::Channel => names.channels.len(),
            Kind::Pattern => names.patterns.len(),
            Kind::Sharded => names.sharded.len(),
        }
    }
}

/// What one client subscribes to, by [`Kind`].
#[derive(Debug, Default)]
pub struct Subscriptions([BTreeSet<Vec<u8>>; 3]);

impl Subscriptions {
    /// How many there are of a kind.
    pub fn len(&self, kind: Kind) -> usize {
        self.0[kind as usize].len()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &[u8])> {
        Kind::ALL.into_iter().flat_map(|kind| self.0[kind as usize].iter().map(move |name| (kind, name.as_slice())))
    }

    /// Whether there are none of any kind.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|names| names.is_empty())
    }

    /// The number that confirmations give: channels and patterns are counted together, sharded channels apart.
    fn counted(&self, kind: Kind) -> usize {
        match kind {
            Kind::Sharded => self.len(Kind::Sharded),
            _ => self.len(Kind::Channel) + self.len(Kind::Pattern),
        }
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + self.0.iter().flatten().map(|name| name.capacity() + size_of::<Vec<u8>>() * 2).sum::<usize>()
    }
}

/// The subscribers among a shard's clients, by their places.
#[derive(Debug, Default)]
pub struct Subscribers {
    channels: HashMap<Vec<u8>, BTreeSet<u32>>,
    patterns: BTreeMap<Vec<u8>, BTreeSet<u32>>,
    sharded: HashMap<Vec<u8>, BTreeSet<u32>>,
}

impl Subscribers {
    fn add(&mut self, kind: Kind, name: &[u8], index: u32) {
        let places = match kind {
            Kind::Channel => self.channels.entry(name.to_vec()).or_default(),
            Kind::Pattern => self.patterns.entry(name.to_vec()).or_default(),
            Kind::Sharded => self.sharded.entry(name.to_vec()).or_default(),
        };
        places.insert(index);
    }

    fn remove(&mut self, kind: Kind, name: &[u8], index: u32) {
        let places = match kind {
            Kind::Channel => self.channels.get_mut(name),
            Kind::Pattern => self.patterns.get_mut(name),
            Kind::Sharded => self.sharded.get_mut(name),
        };
        let Some(places) = places else { return };
        places.remove(&index);
        if places.is_empty() {
            match kind {
                Kind::Channel => drop(self.channels.remove(name)),
                Kind::Pattern => drop(self.patterns.remove(name)),
                Kind::Sharded => drop(self.sharded.remove(name)),
            }
        }
    }
}

/// A name with at least so many subscribers on a shard is a wide one.
const WIDE: usize = 4;

/// Messages of so many bytes do not wait for more.
const WIDE_BYTES: usize = 16 * 1024;

/// For so long messages wait for more at most.
const WIDE_HOLD_US: u64 = 20_000;

/// Clients that were sent messages with many others, and when these leave.
///
/// A system call for each of a thousand clients takes milliseconds, whether it carries one message or fifty. So for
/// twice as long as the last such round took, and not longer than [`WIDE_HOLD_US`], what is published waits for the next:
/// where messages are few nothing waits, where they are many a shard spends at most a third of its time on system
/// calls for them. Publishers are answered meanwhile. With two shards, 1,000 subscribers and 50 publishers on two
/// cores a message cost 1.9 times of what it cost Redis's single thread, which puts all that a turn brings into one
/// call a client; so it costs 0.7, and arrives no later.
#[derive(Debug, Default)]
pub struct Wide {
    clients: Vec<u32>,
    /// At most so many bytes wait for each of them.
    bytes: usize,
    /// When the last round began, while it is under way; its end is the next turn.
    began_us: Option<u64>,
    /// When the next may begin.
    next_us: u64,
}

impl Wide {
    /// The list for the receivers of one more message of so many bytes.
    fn take_in(&mut self, bytes: usize) -> &mut Vec<u32> {
        self.bytes += bytes;
        &mut self.clients
    }

    /// Whether a round is to begin in the turn that began at `now_us`.
    fn begins(&mut self, now_us: u64) -> bool {
        if let Some(began) = self.began_us.take() {
            self.next_us = now_us + (2 * now_us.saturating_sub(began)).min(WIDE_HOLD_US);
        }
        let begins = !self.clients.is_empty() && (now_us >= self.next_us || self.bytes >= WIDE_BYTES);
        if begins {
            self.began_us = Some(now_us);
            self.bytes = 0;
        }
        begins
    }

    /// For how many µs from `now_us` on there is nothing to do, unless something is published.
    fn rests_us(&self, now_us: u64) -> Option<u64> {
        match self.began_us {
            Some(_) => Some(0),
            None if self.clients.is_empty() => None,
            None => Some(self.next_us.saturating_sub(now_us)),
        }
    }
}

/// A message.
#[derive(Debug)]
pub struct Publication {
    /// [`Kind::Channel`] or [`Kind::Sharded`].
    pub kind: Kind,
    /// The channel.
    pub channel: Vec<u8>,
    /// The payload.
    pub message: Vec<u8>,
}

/// What a shard sends clients that have not asked for it just now.
#[derive(Debug)]
pub enum Letter {
    /// To subscribers.
    Message(Publication),
    /// To monitors: a line.
    Monitored(Vec<u8>),
    /// To clients that track keys.
    Tracking(crate::tracking::Notice),
}

/// Letters that wait for the end of the command that wrote them, with the shards that shall have them.
#[derive(Debug, Default)]
pub struct Post {
    queue: Vec<(Letter, Vec<ShardId>)>,
}

impl Post {
    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many letters wait.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Drops all but the first `len` letters: the command that wrote the rest was undone. Who tracks is told all the
    /// same, for a key that was told of is not noted any more.
    pub(crate) fn truncate(&mut self, len: usize) {
        let mut at = 0;
        self.queue.retain(|(letter, _)| {
            at += 1;
            at <= len || matches!(letter, Letter::Tracking(_))
        });
    }

    /// Takes all but the first `len` letters.
    pub(crate) fn split_off(&mut self, len: usize) -> Post {
        Post { queue: self.queue.split_off(len) }
    }

    /// Adds those of `other` behind its own.
    pub(crate) fn append(&mut self, mut other: Post) {
        self.queue.append(&mut other.queue);
    }

    /// Adds a letter for these shards.
    pub fn push(&mut self, letter: Letter, shards: Vec<ShardId>) {
        self.queue.push((letter, shards));
    }

    /// Publishes a message when the command that runs has replied; says how many receivers there are.
    pub fn publish(&mut self, registry: &Registry, kind: Kind, channel: &[u8], message: &[u8]) -> usize {
        if registry.is_empty() {
            return 0;
        }
        let mut shards = Vec::new();
        let receivers = registry.receivers(kind, channel, &mut shards);
        if receivers > 0 {
            let message = Publication { kind, channel: channel.to_vec(), message: message.to_vec() };
            self.push(Letter::Message(message), shards);
        }
        receivers
    }
}

/// Adds a message to a client's output. `bytes` begins with the head of a RESP3 push; RESP2 says the same as a list.
#[inline]
pub(crate) fn push_message(
    client: &mut Client,
    bytes: &[u8],
    sends: Sends,
    flush: &mut Vec<u32>,
    spare: &mut SpareBuffers,
) {
    let head = if client.resp == 3 { b'>' } else { b'*' };
    push_bytes(client, head, &bytes[1..], sends, flush, spare);
}

/// Adds what is no reply to a client's output: behind the replies it awaits, unless it waits for keys, which may take
/// for ever. Nothing is kept from a client that has turned its replies off.
#[inline]
fn push_bytes(
    client: &mut Client,
    head: u8,
    rest: &[u8],
    sends: Sends,
    flush: &mut Vec<u32>,
    spare: &mut SpareBuffers,
) {
    if client.gate & gate::CLOSING != 0 {
        return;
    }
    let blocked = client.blocked.is_some();
    match client.order.as_deref_mut().filter(|order| !order.is_empty() && !blocked) {
        None => {
            if client.out.capacity() == 0 {
                client.out = spare.take();
            }
            client.out.push(head);
            client.out.extend_from_slice(rest);
        }
        Some(order) => {
            let (out, start) = order.open_ready();
            out.push(head);
            out.extend_from_slice(rest);
            order.close_ready(start);
        }
    }
    if client.sends < sends {
        client.sends = sends;
        flush.push(client.index);
    }
}

impl Shard {
    /// Sends what the command that has just replied published, to this shard's clients and to the others.
    #[inline]
    pub(crate) fn post(&mut self) {
        if !self.core.post.is_empty() && !self.core.deny_blocking {
            self.post_all();
        }
    }

    #[cold]
    fn post_all(&mut self) {
        let own = self.core.id;
        let mut queue = std::mem::take(&mut self.core.post.queue);
        for (letter, shards) in queue.drain(..) {
            if shards == [own] {
                self.take_letter(&letter);
                continue;
            }
            let letter = Arc::new(letter);
            for shard in shards {
                match shard == own {
                    true => self.take_letter(&letter),
                    false => self.outbox.note(shard, Note::Letter(letter.clone())),
                }
            }
        }
        self.core.post.queue = queue;
    }

    /// Gives a letter to those of this shard's clients that want it.
    pub(crate) fn take_letter(&mut self, letter: &Letter) {
        match letter {
            Letter::Message(publication) => self.fan_out(publication),
            Letter::Tracking(notice) => self.take_notice(notice),
            Letter::Monitored(line) => {
                let Shard { clients, flush, spare_buffers, .. } = self;
                for client in clients
                    .iter_mut()
                    .flatten()
                    .filter(|client| client.gate & (gate::MONITOR | gate::MUTED) == gate::MONITOR)
                {
                    push_bytes(client, line[0], &line[1..], Sends::Now, flush, spare_buffers);
                }
            }
        }
    }

    /// Has messages to many clients leave with this turn, when it is time for that.
    pub(crate) fn send_wide(&mut self) {
        if !self.wide.begins(self.core.now_us) {
            return;
        }
        let clients = &mut self.clients;
        let still_later = self.wide.clients.drain(..).filter(|index| {
            let client = clients[*index as usize].as_deref_mut().filter(|client| client.sends == Sends::Later);
            client.map(|client| client.sends = Sends::Now).is_some()
        });
        // Drivers begin at the end: replies leave before these.
        self.flush.splice(..0, still_later);
    }

    /// For how many µs messages to many clients wait for more; a turn must not take longer then.
    pub fn wide_rests_us(&self) -> Option<u64> {
        self.wide.rests_us(self.core.now_us)
    }

    fn fan_out(&mut self, publication: &Publication) {
        let counts = self.client_memory_limit != 0;
        let mut reached: Vec<u32> = Vec::new();
        let Shard { subscribers, clients, flush, wide, spare_buffers, .. } = self;
        let Publication { kind, channel, message } = publication;
        let mut bytes = Vec::with_capacity(channel.len() + message.len() + 64);
        let mut send = |places: &BTreeSet<u32>, bytes: &[u8]| {
            let (sends, list) = match places.len() < WIDE {
                true => (Sends::Now, &mut *flush),
                false => (Sends::Later, wide.take_in(bytes.len())),
            };
            for index in places {
                let client = clients[*index as usize].as_deref_mut().expect("who goes leaves its subscriptions");
                push_message(client, bytes, sends, list, spare_buffers);
            }
            if counts {
                reached.extend(places);
            }
        };
        let (word, places): (&[u8], _) = match kind {
            Kind::Sharded => (b"smessage", subscribers.sharded.get(channel)),
            _ => (b"message", subscribers.channels.get(channel)),
        };
        if let Some(places) = places {
            let mut reply = Reply::new(&mut bytes, 3);
            reply.push(3);
            [word, channel, message].iter().for_each(|part| reply.bulk(part));
            send(places, &bytes);
        }
        for (pattern, places) in &subscribers.patterns {
            if *kind != Kind::Sharded && glob::matches(pattern, channel, false) {
                bytes.clear();
                let mut reply = Reply::new(&mut bytes, 3);
                reply.push(4);
                [b"pmessage", &pattern[..], channel, message].iter().for_each(|part| reply.bulk(part));
                send(places, &bytes);
            }
        }
        reached.into_iter().for_each(|index| self.count_memory(index));
    }

    /// Subscribes a client, and confirms it.
    pub(crate) fn subscribe(&mut self, index: u32, kind: Kind, name: &[u8]) {
        let client = self.client(index);
        let subscriptions = client.subscriptions.get_or_insert_default();
        let new = subscriptions.0[kind as usize].insert(name.to_vec());
        let count = subscriptions.counted(kind);
        client.gate |= gate::SUBSCRIBED;
        let mut reply = client.reply();
        reply.push(3);
        reply.bulk(kind.confirmations().0);
        reply.bulk(name);
        reply.integer(count as i64);
        if new {
            self.subscribers.add(kind, name, index);
            self.core.shared.registry.change(kind, name, self.core.id, true);
        }
    }

    /// Ends a client's subscription, if it has it, and confirms it in any case.
    pub(crate) fn unsubscribe(&mut self, index: u32, kind: Kind, name: &[u8]) {
        let client = self.client(index);
        let had = client.subscriptions.as_mut().is_some_and(|all| all.0[kind as usize].remove(name));
        self.confirm_end(index, kind, Some(name));
        if had {
            self.end_subscription(index, kind, name);
        }
    }

    /// Ends all of a client's subscriptions of a kind, and confirms each, or that there was none.
    pub(crate) fn unsubscribe_all(&mut self, index: u32, kind: Kind) {
        let client = self.client(index);
        let names = client
            .subscriptions
            .as_ref()
            .map_or_else(Vec::new, |all| all.0[kind as usize].iter().cloned().collect::<Vec<_>>());
        if names.is_empty() {
            self.confirm_end(index, kind, None);
        }
        names.iter().for_each(|name| self.unsubscribe(index, kind, name));
    }

    fn confirm_end(&mut self, index: u32, kind: Kind, name: Option<&[u8]>) {
        let client = self.client(index);
        let count = client.subscriptions.as_ref().map_or(0, |all| all.counted(kind));
        let mut reply = client.reply();
        reply.push(3);
        reply.bulk(kind.confirmations().1);
        reply.bulk_or_null(name);
        reply.integer(count as i64);
    }

    fn end_subscription(&mut self, index: u32, kind: Kind, name: &[u8]) {
        self.subscribers.remove(kind, name, index);
        self.core.shared.registry.change(kind, name, self.core.id, false);
        let client = self.client(index);
        if client.subscriptions.as_ref().is_none_or(|all| all.is_empty()) {
            client.subscriptions = None;
            client.gate &= !gate::SUBSCRIBED;
        }
    }

    /// Ends all of a client's subscriptions without a word: it resets, or goes away.
    pub(crate) fn drop_subscriptions(&mut self, index: u32) {
        let client = self.client(index);
        client.gate &= !gate::SUBSCRIBED;
        let Some(subscriptions) = client.subscriptions.take() else { return };
        for kind in Kind::ALL {
            for name in &subscriptions.0[kind as usize] {
                self.subscribers.remove(kind, name, index);
                self.core.shared.registry.change(kind, name, self.core.id, false);
            }
        }
    }
}
