//! The one stream that all replicas are sent, put together from what the shards hand over, and the backlog.
//!
//! A shard hands over at the end of its turn, before anything of the turn leaves that tells of what it did
//! ([`crate::shard::replicas`]). The feed is behind one lock, so the stream has one order, and whoever has heard of a
//! write, by a reply or from another shard, finds it in the stream before all that he does next.
//!
//! **Commands over several slices.** Those that run with all their slices in one hand are handed over whole. Those that
//! split ([`crate::shard::split`]) come as parts. A part is laid aside until the last has come, and then the whole is
//! added, between `MULTI` and `EXEC`. That is right because a split command holds its keys until its coordinator knows
//! that all parts have run, and so until they are all here: what other shards add to the stream meanwhile touches none of
//! these keys. Nothing else ever waits here, so nothing can wait for each other.
//!
//! **The backlog** is the end of the stream, as much as `repl-backlog-size` says. What a replica's home shard has not yet
//! taken ([`Replica::taken`]) is kept beyond that, up to the output limit of replicas.
//!
//! Counterpart: the replication backlog and buffers of `replication.c`.

use std::collections::{HashMap, VecDeque};

use super::replica::{Replica, State};
use super::stream::{Run, Unit, write_select};
use crate::router::ShardId;

/// A command whose parts have not all come.
#[derive(Debug)]
struct Gathered {
    missing: usize,
    /// By shard.
    parts: Vec<(ShardId, Run)>,
}

/// Bounds that the configuration sets.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// `repl-backlog-size`.
    pub backlog: u64,
    /// The hard limit of a replica's output, or `u64::MAX`.
    pub replica: u64,
}

/// See the module's page.
#[derive(Debug)]
pub struct Feed {
    /// 40 hexadecimal digits that name this history.
    pub id: String,
    /// Whether there is a backlog: since the first replica came.
    pub active: bool,
    /// Replicas, in the order in which they came.
    pub replicas: Vec<Replica>,
    /// Unix seconds at which the last replica went.
    pub alone_since: i64,
    /// Bytes of the stream so far.
    offset: u64,
    /// The end of it.
    bytes: VecDeque<u8>,
    /// At most so many of these are the backlog; it began at `since`.
    backlog: u64,
    since: u64,
    /// The database that replicas have selected.
    db: Option<u16>,
    gathered: HashMap<u64, Gathered>,
    /// By shard: that there is more for its replicas was told, and it has not looked since.
    told: Vec<bool>,
}

impl Feed {
    /// No replicas.
    pub fn new(shards: usize, id: String) -> Self {
        Feed {
            id,
            active: false,
            replicas: Vec::new(),
            alone_since: 0,
            offset: 0,
            bytes: VecDeque::new(),
            backlog: 0,
            since: 0,
            db: None,
            gathered: HashMap::new(),
            told: vec![false; shards],
        }
    }

    /// `master_repl_offset`.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of the backlog.
    pub fn backlog_bytes(&self) -> u64 {
        match self.active {
            true => (self.offset - self.since).min(self.backlog).min(self.bytes.len() as u64),
            false => 0,
        }
    }

    /// Bytes of memory in use.
    pub fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    /// Begins a backlog, with a history of its own.
    pub fn begin(&mut self, id: String, bounds: Bounds) {
        (self.id, self.active, self.since, self.backlog) = (id, true, self.offset, bounds.backlog);
    }

    /// Ends it.
    pub fn end(&mut self, id: String) {
        (self.id, self.active, self.bytes, self.db) = (id, false, VecDeque::new(), None);
        self.gathered.clear();
    }

    /// Whether a replica that has the stream up to before `psync` (counted from 1, as replicas do) can go on from there.
    pub fn reaches(&self, psync: u64) -> bool {
        let first = self.offset - self.backlog_bytes() + 1;
        self.active && psync >= first && psync <= self.offset + 1
    }

    /// The stream names its database again: what comes next is to be understood without what came before.
    pub fn cut(&mut self) -> u64 {
        debug_assert!(self.gathered.is_empty(), "a split command holds its keys, and a cut waits for these");
        self.db = None;
        self.offset
    }

    /// Adds what `shard` has handed over.
    pub fn take(&mut self, shard: ShardId, units: Vec<Unit>, bounds: Bounds) {
        if !self.active {
            return;
        }
        for unit in units {
            match unit {
                Unit::Run(run) => self.add(&run),
                Unit::Part(number, parts, run) => self.take_part(number, parts, shard, run),
            }
        }
        self.trim(bounds);
    }

    fn take_part(&mut self, number: u64, parts: usize, shard: ShardId, run: Run) {
        let new = || Gathered { missing: parts, parts: Vec::with_capacity(parts) };
        let gathered = self.gathered.entry(number).or_insert_with(new);
        gathered.parts.push((shard, run));
        gathered.missing -= 1;
        if gathered.missing == 0 {
            let mut parts = self.gathered.remove(&number).expect("it was just there").parts;
            parts.sort_by_key(|(shard, _)| *shard);
            let mut whole = Run::default();
            parts.iter().for_each(|(_, part)| whole.join(part));
            self.add(&whole.bracketed());
        }
    }

    fn add(&mut self, run: &Run) {
        if run.commands == 0 {
            return;
        }
        let select = run.first_db.filter(|db| self.db != Some(*db));
        self.extend(&run.bytes[..run.select_at]);
        if let Some(db) = select {
            let mut words = Vec::new();
            write_select(&mut words, db);
            self.extend(&words);
        }
        self.extend(&run.bytes[run.select_at..]);
        self.db = run.last_db.or(self.db);
    }

    fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.offset += bytes.len() as u64;
    }

    /// Forgets what neither the backlog keeps nor a replica still needs. A replica that needs too much is given up.
    fn trim(&mut self, bounds: Bounds) {
        self.backlog = bounds.backlog;
        let mut keep = bounds.backlog.min(self.offset - self.since);
        for replica in self.replicas.iter_mut().filter(|replica| replica.follows() && !replica.given_up) {
            let behind = self.offset - replica.taken;
            match behind > bounds.replica.max(bounds.backlog) {
                true => replica.given_up = true,
                false => keep = keep.max(behind),
            }
        }
        let surplus = self.bytes.len().saturating_sub(keep as usize);
        self.bytes.drain(..surplus);
        if self.bytes.capacity() > 64 * 1024 && self.bytes.capacity() / 4 > self.bytes.len() {
            self.bytes.shrink_to(self.bytes.len() * 2);
        }
    }

    /// Copies the stream from `from` on to `out`; says up to where that is.
    pub fn copy(&self, from: u64, out: &mut Vec<u8>) -> u64 {
        let kept = self.offset - self.bytes.len() as u64;
        debug_assert!(from >= kept, "what a replica needs is kept");
        let skip = (from - kept) as usize;
        let (front, back) = self.bytes.as_slices();
        out.extend_from_slice(front.get(skip..).unwrap_or_default());
        out.extend_from_slice(&back[skip.saturating_sub(front.len()).min(back.len())..]);
        self.offset
    }

    /// The replica that is this client.
    pub fn replica(&mut self, client: u64) -> Option<&mut Replica> {
        self.replicas.iter_mut().find(|replica| replica.client == client)
    }

    /// Whether the file of this snapshot is still to be sent to someone.
    pub fn needs(&self, sync: u64) -> bool {
        let waits = |state| matches!(state, State::WaitEnd | State::SendBulk(_));
        self.replicas.iter().any(|replica| replica.sync == sync && waits(replica.state))
    }

    /// How many replicas have what `has` says.
    pub fn count(&self, has: impl Fn(&Replica) -> bool) -> usize {
        self.replicas.iter().filter(|replica| replica.state == State::Online && has(replica)).count()
    }

    /// The shards whose replicas there is something for, and that have not been told; they are to be told now.
    pub fn untold(&mut self) -> Vec<ShardId> {
        let mut untold = Vec::new();
        for replica in &self.replicas {
            if !std::mem::replace(&mut self.told[replica.home as usize], true) {
                untold.push(replica.home);
            }
        }
        untold
    }

    /// A shard looks what there is for its replicas.
    pub fn heard(&mut self, shard: ShardId) {
        self.told[shard as usize] = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Rng;
    use crate::replication::stream::StreamLog;

    const BOUNDS: Bounds = Bounds { backlog: 1 << 20, replica: u64::MAX };

    fn words(line: &str) -> impl ExactSizeIterator<Item = &[u8]> {
        line.split(' ').map(str::as_bytes).collect::<Vec<_>>().into_iter()
    }

    fn feed(shards: usize) -> Feed {
        let mut feed = Feed::new(shards, "0".repeat(40));
        feed.begin("1".repeat(40), BOUNDS);
        feed
    }

    fn said(feed: &Feed) -> Vec<String> {
        let mut bytes = Vec::new();
        feed.copy(0, &mut bytes);
        let commands = crate::testing::Value::parse_all(&bytes);
        let line = |command: &crate::testing::Value| {
            command.items().iter().map(|word| word.text()).collect::<Vec<_>>().join(" ")
        };
        commands.iter().map(line).collect()
    }

    #[test]
    fn a_select_comes_where_it_is_needed() {
        let mut feed = feed(1);
        let mut log = StreamLog::default();
        log.append(0, words("SET a 1"));
        feed.take(0, log.take(), BOUNDS);
        log.open_group();
        log.append(0, words("SET b 1"));
        log.append(2, words("SET c 1"));
        log.close_group();
        feed.take(0, log.take(), BOUNDS);
        feed.take(0, vec![Unit::Run(Run::of(None, words("PING")))], BOUNDS);
        log.open_group();
        log.append(0, words("SET d 1"));
        log.append(0, words("SET e 1"));
        log.close_group();
        feed.take(0, log.take(), BOUNDS);
        feed.cut();
        log.append(0, words("SET f 1"));
        feed.take(0, log.take(), BOUNDS);
        let expected = "SELECT 0,SET a 1,MULTI,SET b 1,SELECT 2,SET c 1,EXEC,PING,MULTI,SELECT 0,SET d 1,SET e 1,EXEC,\
                        SELECT 0,SET f 1";
        assert_eq!(said(&feed).join(","), expected);
    }

    #[test]
    fn a_split_command_is_told_whole_and_holds_nothing_up() {
        let mut feed = feed(3);
        let part = |number, line: &str| {
            let mut log = StreamLog::default();
            log.open_part();
            if !line.is_empty() {
                log.append(0, words(line));
            }
            log.close_part(number, 2);
            log.take()
        };
        // Two of them whose parts came in opposite orders, and what was done between them.
        feed.take(0, part(1, "DEL a"), BOUNDS);
        feed.take(1, part(2, "MSET d 4"), BOUNDS);
        feed.take(0, vec![Unit::Run(Run::of(Some(0), words("INCR x")))], BOUNDS);
        feed.take(0, part(2, "MSET c 3"), BOUNDS);
        feed.take(1, part(1, "DEL b"), BOUNDS);
        // Of which one part alone did something, and none.
        feed.take(2, part(3, ""), BOUNDS);
        feed.take(1, part(3, "DEL e"), BOUNDS);
        feed.take(2, part(4, ""), BOUNDS);
        feed.take(1, part(4, ""), BOUNDS);
        let expected = "SELECT 0,INCR x,MULTI,MSET c 3,MSET d 4,EXEC,MULTI,DEL a,DEL b,EXEC,DEL e";
        assert_eq!(said(&feed).join(","), expected);
        assert!(feed.gathered.is_empty());
    }

    #[test]
    fn the_backlog_keeps_its_size_and_what_replicas_need() {
        let mut feed = feed(2);
        let bounds = Bounds { backlog: 1000, replica: 5000 };
        let mut rng = Rng::new(3);
        let mut all: Vec<u8> = Vec::new();
        let mut slow = Replica::new(7, 1, String::new());
        slow.state = State::Online;
        feed.replicas.push(slow);
        let write = |feed: &mut Feed, all: &mut Vec<u8>, n: u64| {
            let value = format!("SET key {}", "v".repeat(n as usize));
            let before = feed.offset();
            feed.take(0, vec![Unit::Run(Run::of(None, words(&value)))], bounds);
            all.extend_from_slice(&Run::of(None, words(&value)).bytes);
            assert_eq!(feed.offset() - before, all.len() as u64 - before);
        };
        for _ in 0..40 {
            write(&mut feed, &mut all, rng.below(100));
            let taken = feed.replicas[0].taken;
            let mut copy = Vec::new();
            feed.copy(taken, &mut copy);
            assert_eq!(copy, all[taken as usize..]);
            let first = feed.offset() - feed.backlog_bytes();
            assert!(feed.reaches(first + 1) && feed.reaches(feed.offset() + 1));
            assert!(!feed.reaches(first) && !feed.reaches(feed.offset() + 2));
            if rng.below(4) == 0 {
                feed.replicas[0].taken += rng.below(feed.offset() - taken + 1);
            }
        }
        assert_eq!(feed.backlog_bytes(), 1000);
        assert!(!feed.replicas[0].given_up);
        write(&mut feed, &mut all, 6000);
        assert!(feed.replicas[0].given_up);
        assert_eq!(feed.bytes.len(), 1000);
        feed.end("2".repeat(40));
        assert!(!feed.reaches(feed.offset() + 1));
        assert_eq!(feed.backlog_bytes(), 0);
    }
}
