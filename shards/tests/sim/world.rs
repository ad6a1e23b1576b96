//! Shards, mailboxes and clients under one seed.
//!
//! A shard has one mailbox, and what was put in first is taken out first, whoever sent it. At the end of its turn a shard
//! puts parcels in one by one, and others may do anything in between, but for ordered parcels: a lock is held from the
//! first of these to the last. Then its clients get their output. When a client's input is read, what is in the mailbox
//! comes first. All this is what the server's threads do (`src/mailbox.rs`, `src/event_loop`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use ringshard_shards::aof::State;
use ringshard_shards::client::Peer;
use ringshard_shards::config::{AppendFsync, Config, PipelineOrder, ProtectedAction};
use ringshard_shards::core::{Fault, Rng};
use ringshard_shards::message::Parcel;
use ringshard_shards::router::{ShardId, owner_of};
use ringshard_shards::shard::{Effect, Event, Input, Shard};
use ringshard_shards::shared::Shared;
use ringshard_shards::snapshot::{Assembly, LoadBatch, LogBatch};
use ringshard_shards::testing::{FakeHost, START_MS, Value, request};

/// How a world is made.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub seed: u64,
    pub shards: usize,
    pub clients: usize,
    pub strict: bool,
    pub fault: Option<Fault>,
    /// Parcels that ask for one order get none.
    pub unordered: bool,
    /// Input that was read is run before what is in the mailbox.
    pub passes_mail: bool,
    /// The last shard seldom takes from its mailbox while anything else can happen.
    pub starved: bool,
    /// There is a log, under `appendfsync always`.
    pub logged: bool,
}

/// A shard's log as the disk has it.
#[derive(Clone, Debug, Default)]
pub struct SimLog {
    pub bytes: Vec<u8>,
    /// Up to here it survives whatever happens.
    pub synced: usize,
}

/// A shard at the end of its turn: what it has still to put into mailboxes, and whether that is ordered.
#[derive(Default)]
struct Sending {
    parcels: VecDeque<(usize, Box<Parcel>)>,
    ordered: bool,
}

/// What could happen next.
#[derive(Clone, Copy)]
enum Choice {
    /// A shard puts its next parcel into a mailbox.
    Put(usize),
    /// A shard takes from its mailbox.
    Take(usize),
}

/// A client: what it still has to send, and what it got.
pub struct SimClient {
    shard: ShardId,
    index: u32,
    pub open: bool,
    unsent: Vec<u8>,
    /// It sends no more than that, and reads on.
    pub ended: bool,
    /// The shard does not know yet.
    ends: bool,
    pub received: Vec<u8>,
    /// What it receives is no replies: it is left as it is.
    pub raw: bool,
    /// Replies not yet handed to the workload.
    pub replies: VecDeque<Value>,
}

/// See the head of the file.
pub struct Sim {
    pub rng: Rng,
    pub shards: Vec<Shard>,
    pub clients: Vec<SimClient>,
    pub shared: Arc<Shared>,
    /// Steps so far: the time of the history.
    pub step: u64,
    setup: Setup,
    mailboxes: Vec<VecDeque<Box<Parcel>>>,
    sending: Vec<Sending>,
    /// Who puts ordered parcels in, until the last is.
    locked: Option<usize>,
    now_us: u64,
    /// How seldom each shard gets its turn.
    slowness: Vec<u64>,
    places: Vec<u32>,
    pub logs: Vec<SimLog>,
    assembly: Assembly,
}

/// Most steps of a run that is to become quiet: far more than any needs.
const PATIENCE: u64 = 200_000;

impl Sim {
    pub fn new(setup: Setup) -> Sim {
        let mut rng = Rng::new(setup.seed ^ 0x5eed);
        let mut config = Config { enable_debug_command: ProtectedAction::Yes, ..Config::default() };
        if setup.logged {
            (config.appendonly, config.appendfsync) = (true, AppendFsync::Always);
        }
        if setup.strict {
            config.pipeline_order = PipelineOrder::Strict;
        }
        let host = Arc::new(FakeHost::default());
        let shared = Arc::new(Shared::new(config, setup.shards, [setup.seed, 7], START_MS, host));
        let shards = (0..setup.shards).map(|i| Shard::new(i as ShardId, shared.clone(), setup.seed + i as u64));
        let mut sim = Sim {
            shards: shards.collect(),
            clients: Vec::new(),
            shared,
            step: 0,
            setup,
            mailboxes: (0..setup.shards).map(|_| VecDeque::new()).collect(),
            sending: (0..setup.shards).map(|_| Sending::default()).collect(),
            locked: None,
            now_us: 1_000_000,
            slowness: (0..setup.shards).map(|_| if rng.below(4) == 0 { 8 } else { 1 }).collect(),
            places: vec![0; setup.shards],
            logs: vec![SimLog::default(); setup.shards],
            assembly: Assembly::default(),
            rng,
        };
        sim.shards.iter_mut().for_each(|shard| shard.core.fault = setup.fault);
        if setup.logged {
            sim.shared.aof.set_state(State::On);
            sim.shared.bump_epoch();
            (0..setup.shards).for_each(|shard| sim.event(shard, Event::Load(Box::new(LoadBatch::begin_logging()))));
        }
        (0..setup.clients).for_each(|_| {
            sim.connect();
        });
        sim
    }

    /// A new client on a shard that the seed chooses.
    pub fn connect(&mut self) -> usize {
        let shard = self.rng.below(self.shards.len() as u64) as usize;
        let index = self.places[shard];
        self.places[shard] += 1;
        let peer = Peer { address: "127.0.0.1:1".into(), local: true, ..Peer::default() };
        self.clients.push(SimClient {
            shard: shard as ShardId,
            index,
            open: true,
            unsent: Vec::new(),
            ended: false,
            ends: false,
            received: Vec::new(),
            raw: false,
            replies: VecDeque::new(),
        });
        self.event(shard, Event::Connected(index, peer));
        self.clients.len() - 1
    }

    /// Names of keys, spread evenly over the shards.
    pub fn keys(&self, count: usize) -> Vec<String> {
        let shards = self.shards.len();
        let mut names: Vec<String> = Vec::new();
        for k in 0..count {
            let wanted = (k % shards) as ShardId;
            let fits = |name: &String| owner_of(name.as_bytes(), shards) == wanted && !names.contains(name);
            let name = (0..).map(|n| format!("k{n}")).find(fits).expect("there are enough names");
            names.push(name);
        }
        names
    }

    /// Has a client send a command, at once or in pieces.
    pub fn send(&mut self, client: usize, words: &[impl AsRef<[u8]>]) {
        let bytes = request(words);
        self.clients[client].unsent.extend_from_slice(&bytes);
    }

    /// A client sends no more than it has, and reads on.
    pub fn end_input(&mut self, client: usize) {
        let client = &mut self.clients[client];
        client.ends |= client.open && !client.ended;
        client.ended = true;
    }

    /// A client goes without a word.
    pub fn vanish(&mut self, client: usize) {
        let SimClient { shard, index, open, .. } = self.clients[client];
        if open {
            self.clients[client].open = false;
            self.clients[client].ends = false;
            self.clients[client].unsent.clear();
            // It has not read what came while other things happened.
            self.clients[client].replies.clear();
            self.event(shard as usize, Event::Disconnected(index));
        }
    }

    fn event(&mut self, shard: usize, event: Event<'_>) {
        self.end_sending(shard);
        self.set_time(shard);
        self.shards[shard].step(event);
        self.collect(shard);
    }

    fn set_time(&mut self, shard: usize) {
        let ms = START_MS + (self.now_us / 1000) as i64;
        self.shards[shard].set_time(ms, self.now_us);
    }

    /// A turn in which a shard takes so many parcels out of its mailbox, then a client's input.
    fn turn(&mut self, shard: usize, parcels: usize, input: Option<Input<'_>>) {
        self.set_time(shard);
        for _ in 0..parcels {
            let parcel = self.mailboxes[shard].pop_front().expect("there are so many");
            self.shards[shard].step(Event::Parcel(parcel));
        }
        if let Some(input) = input {
            self.shards[shard].step(Event::Received(&[input]));
        }
        self.collect(shard);
    }

    /// What a turn of a loop ends with.
    fn collect(&mut self, at: usize) {
        self.shards[at].before_sleep();
        self.shards[at].walk_snapshot();
        for piece in std::mem::take(&mut self.shards[at].core.pieces) {
            self.logs[at].bytes.extend_from_slice(&piece.bytes);
            assert_eq!(self.logs[at].bytes.len() as u64, piece.end, "logs are handed over whole and in order");
        }
        let sending = &mut self.sending[at];
        sending.ordered = self.shards[at].outbox.is_ordered();
        self.shards[at].outbox.take(&mut |to, parcel| sending.parcels.push_back((to as usize, parcel)));
        if sending.parcels.is_empty() {
            self.send_output(at);
        }
    }

    /// Whether a shard may put a parcel into a mailbox now.
    fn may_put(&self, at: usize) -> bool {
        let Sending { parcels, ordered } = &self.sending[at];
        !parcels.is_empty() && (!ordered || self.setup.unordered || self.locked.is_none_or(|other| other == at))
    }

    /// Has a shard put one parcel into a mailbox.
    pub fn put(&mut self, at: usize) {
        let Sending { parcels, ordered } = &mut self.sending[at];
        let (to, parcel) = parcels.pop_front().expect("it has one");
        self.mailboxes[to].push_back(parcel);
        let ended = parcels.is_empty();
        if *ordered && !self.setup.unordered {
            self.locked = (!ended).then_some(at);
        }
        if ended {
            self.send_output(at);
        }
    }

    /// Has a shard come to the end of its turn.
    fn end_sending(&mut self, at: usize) {
        while !self.sending[at].parcels.is_empty() {
            let next = if self.may_put(at) { at } else { self.locked.expect("who waits waits for the lock") };
            self.put(next);
        }
    }

    fn send_output(&mut self, at: usize) {
        for index in std::mem::take(&mut self.shards[at].flush) {
            let bytes = self.shards[at].take_output(index);
            if bytes.is_empty() {
                continue;
            }
            let len = bytes.len();
            let client = self.clients.iter_mut().find(|c| c.shard as usize == at && c.index == index);
            let client = client.expect("output goes to a client");
            if client.open {
                client.received.extend_from_slice(&bytes);
                while !client.raw
                    && let Some((value, used)) = Value::parse(&client.received)
                {
                    client.received.drain(..used);
                    client.replies.push_back(value);
                }
            }
            self.shards[at].step(Event::Sent(index, len));
        }
        for effect in std::mem::take(&mut self.shards[at].effects) {
            match effect {
                Effect::Close(index) => {
                    let client = self.clients.iter_mut().find(|c| c.shard as usize == at && c.index == index);
                    client.expect("a client is closed").open = false;
                }
                Effect::Snapshot(chunk) => {
                    let shared = self.shared.clone();
                    self.assembly.take(&shared, *chunk, START_MS);
                }
                _ => {}
            }
        }
    }

    /// Syncs a log that has something to sync, if there is one.
    fn sync_a_log(&mut self) -> bool {
        let due: Vec<usize> =
            (0..self.logs.len()).filter(|at| self.logs[*at].synced < self.logs[*at].bytes.len()).collect();
        if due.is_empty() {
            return false;
        }
        let at = due[self.rng.below(due.len() as u64) as usize];
        let log = &mut self.logs[at];
        // What came while the last sync was under way may not be in this one.
        let rest = (log.bytes.len() - log.synced) as u64;
        log.synced += 1 + self.rng.below(rest) as usize;
        self.shared.aof.synced(at as ShardId, log.synced as u64);
        for shard in 0..self.shards.len() {
            if self.shared.aof.listens[shard].0.swap(false, SeqCst) {
                self.event(shard, Event::LogSynced);
            }
        }
        true
    }

    /// What a crash leaves of the logs: all that was synced, and as much more as chance has it.
    pub fn crash(&mut self) -> Vec<Vec<u8>> {
        let logs = self.logs.clone();
        let kept = |log: SimLog| {
            let more = self.rng.below((log.bytes.len() - log.synced) as u64 + 1) as usize;
            let lost = if self.rng.below(2) == 0 { 0 } else { more };
            log.bytes[..log.synced + lost].to_vec()
        };
        logs.into_iter().map(kept).collect()
    }

    /// Loads logs, as a start of the server does.
    pub fn load(&mut self, logs: Vec<Vec<u8>>) {
        let of = logs.len();
        for (shard, bytes) in logs.into_iter().enumerate() {
            let part = LogBatch { origin: (shard as ShardId, of), begins: true, bytes };
            self.event(shard, Event::Load(Box::new(LoadBatch::of_log(part))));
        }
        let error = self.shared.persistence.loading_error.lock().unwrap().clone();
        assert_eq!(error, None);
    }

    /// A new client on this shard.
    pub fn connect_to(&mut self, shard: usize) -> usize {
        loop {
            let client = self.connect();
            if self.clients[client].shard as usize == shard {
                return client;
            }
        }
    }

    /// Has all shards but one take what is in their mailboxes, and all put in what they have for others, until nothing
    /// moves.
    pub fn settle_without(&mut self, still: usize) {
        loop {
            for shard in 0..self.shards.len() {
                self.end_sending(shard);
            }
            let due = (0..self.shards.len()).find(|shard| *shard != still && !self.mailboxes[*shard].is_empty());
            match due {
                Some(shard) => self.turn(shard, 1, None),
                None => return,
            }
        }
    }

    /// Has a shard take what is in its mailbox.
    pub fn take(&mut self, shard: usize) {
        self.turn(shard, self.mailboxes[shard].len(), None);
    }

    /// Has a client's command read.
    pub fn read(&mut self, client: usize, words: &[impl AsRef<[u8]>]) {
        let SimClient { shard, index, .. } = self.clients[client];
        let shard = shard as usize;
        self.end_sending(shard);
        let before = if self.setup.passes_mail { 0 } else { self.mailboxes[shard].len() };
        self.turn(shard, before, Some(Input { client: index, bytes: &request(words) }));
    }

    /// The client's next reply, if it is there.
    pub fn reply(&mut self, client: usize) -> Option<String> {
        self.clients[client].replies.pop_front().map(|reply| reply.to_string())
    }

    /// Does one thing that could happen next; false when nothing can.
    pub fn advance(&mut self) -> bool {
        self.step += 1;
        self.now_us += 1 + self.rng.below(50);
        if self.setup.logged && self.rng.below(4) == 0 && self.sync_a_log() {
            return true;
        }
        let mut choices: Vec<Choice> = Vec::new();
        for shard in 0..self.shards.len() {
            if self.may_put(shard) {
                choices.push(Choice::Put(shard));
            } else if self.sending[shard].parcels.is_empty()
                && !(self.mailboxes[shard].is_empty() && self.shards[shard].outbox.is_empty())
            {
                choices.push(Choice::Take(shard));
            }
        }
        let sends = |client: &SimClient| {
            (client.ends || !client.unsent.is_empty()) && self.sending[client.shard as usize].parcels.is_empty()
        };
        let senders: Vec<usize> = (0..self.clients.len()).filter(|c| sends(&self.clients[*c])).collect();
        let starved = |choice: &Choice| matches!(choice, Choice::Take(shard) if shard + 1 == self.shards.len());
        if self.setup.starved && (!senders.is_empty() || !choices.iter().all(starved)) && self.rng.below(16) != 0 {
            choices.retain(|choice| !starved(choice));
        }
        if choices.is_empty() && senders.is_empty() {
            return self.setup.logged && self.sync_a_log();
        }
        if !senders.is_empty() && (choices.is_empty() || self.rng.below(3) == 0) {
            let client = senders[self.rng.below(senders.len() as u64) as usize];
            let SimClient { shard, index, unsent, ends, open, .. } = &mut self.clients[client];
            if unsent.is_empty() {
                *ends = false;
                if *open {
                    let (shard, index) = (*shard as usize, *index);
                    self.event(shard, Event::Ended(index));
                }
                return true;
            }
            let n = match self.rng.below(4) {
                0 => 1 + self.rng.below(unsent.len() as u64) as usize,
                _ => unsent.len(),
            };
            let bytes: Vec<u8> = unsent.drain(..n).collect();
            let (shard, index) = (*shard as usize, *index);
            let before = if self.setup.passes_mail { 0 } else { self.mailboxes[shard].len() };
            self.turn(shard, before, Some(Input { client: index, bytes: &bytes }));
            return true;
        }
        // A slow shard is passed over most of the time.
        let mut pick = choices[self.rng.below(choices.len() as u64) as usize];
        for _ in 0..3 {
            let (Choice::Put(shard) | Choice::Take(shard)) = pick;
            if self.rng.below(self.slowness[shard]) == 0 {
                break;
            }
            pick = choices[self.rng.below(choices.len() as u64) as usize];
        }
        match pick {
            Choice::Put(shard) => self.put(shard),
            Choice::Take(shard) => {
                let most = self.mailboxes[shard].len() as u64;
                // None where a turn is due for what the last one has left to be sent.
                let parcels = match self.rng.below(2) {
                    _ if most == 0 => 0,
                    0 => 1,
                    _ => 1 + self.rng.below(most),
                };
                self.turn(shard, parcels as usize, None);
            }
        }
        true
    }

    /// Lets time pass, with a time event on every shard.
    pub fn sleep_ms(&mut self, ms: u64) {
        self.now_us += ms * 1000;
        for shard in 0..self.shards.len() {
            self.event(shard, Event::Timer);
        }
    }

    /// Carries on until nothing moves.
    pub fn settle(&mut self) {
        let last = self.step + PATIENCE;
        while self.advance() {
            assert!(self.step < last, "no quiet after {PATIENCE} steps");
        }
    }

    /// Nothing may be left when all is quiet.
    pub fn assert_quiet(&self) {
        for shard in &self.shards {
            let id = shard.core.id;
            assert!(shard.holds_nothing(), "shard {id} holds keys: {}", shard.unrest());
            assert!(shard.is_quiet(), "shard {id} is not quiet: {}", shard.unrest());
            let slice = shard.slice().expect("quiet shards have their slices");
            assert!(slice.blocked.is_empty(), "shard {id} has clients that wait");
            for db in &slice.dbs {
                assert!(
                    db.blocking_keys.is_empty() && db.ready_keys.is_empty(),
                    "shard {id} has waiters: {:?} {:?}",
                    db.blocking_keys,
                    db.ready_keys
                );
            }
        }
    }

    pub fn is_strict(&self) -> bool {
        self.setup.strict
    }
}
