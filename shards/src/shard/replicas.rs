//! Replicas as a shard does its part in them: it hands over what its slice's writes did, and those replicas whose
//! connections are at home here it sends a snapshot and then the stream.
//!
//! **Handing over.** A shard hands over at the end of its turn, before parcels and output leave, and before it lends its
//! slice; who runs something on several slices hands over for all of them before he gives them back. So the feed has a
//! write before anybody is told of it. Who hands over tells the homes of replicas that there is more, by a note if they
//! have not been told yet; it costs a shard without replicas one message a turn of theirs.
//!
//! **Sending.** At the end of its turn a home copies what is new to its replicas' output, which is bounded like anybody's
//! (`client-output-buffer-limit replica`). Of the snapshot's file it takes over a little at a time, as the socket takes it.
//!
//! [`crate::replication`] has the whole. Counterpart: `replicationFeedSlaves`, `sendBulkToSlave`, `replicationCron`.

use std::sync::atomic::Ordering::*;

use super::{Effect, LogLevel, Shard};
use crate::client::gate;
use crate::commands::{CommandError, CommandResult};
use crate::limits::SYNC_AHEAD_BYTES;
use crate::message::Note;
use crate::replication::feed::Feed;
use crate::replication::replica::{Link, Replica, State};
use crate::replication::stream::{Run, Unit};
use crate::replication::{bounds, is_demanding, new_id};
use crate::router::ShardId;
use crate::snapshot;
use crate::transaction::Job;

/// The newest RDB version that a replica loads which has not said its own: that of Redis 7.0.
const OLD_VERSION: u16 = 10;

impl Shard {
    /// Tells replicas of something that is no effect on keys.
    pub(crate) fn tell_replicas<'a>(&mut self, db: u16, words: impl ExactSizeIterator<Item = &'a [u8]>) {
        if !self.core.effects.stream {
            return;
        }
        match self.slices.iter_mut().flatten().next() {
            Some(slice) if slice.stream.on => slice.stream.append(db, words),
            Some(_) => {}
            // It is lent, and what others do on it stands in no order with this.
            None => self.late_units.push(Unit::Run(Run::of(Some(db), words))),
        }
    }

    /// Hands over what the slices in hand have.
    pub(crate) fn drain_streams(&mut self) {
        if !self.core.effects.stream {
            return;
        }
        let mut units = std::mem::take(&mut self.late_units);
        for slice in self.slices.iter_mut().flatten().filter(|slice| !slice.stream.is_empty()) {
            units.append(&mut slice.stream.take());
        }
        if !units.is_empty() {
            let shared = self.core.shared.clone();
            let mut feed = shared.replication.feed();
            feed.take(self.core.id, units, bounds(&self.core.config));
            self.tell_homes(&mut feed);
        }
    }

    /// Adds a command that is about no database.
    fn feed_command(&mut self, feed: &mut Feed, words: &[&[u8]]) {
        let unit = Unit::Run(Run::of(None, words.iter().copied()));
        feed.take(self.core.id, vec![unit], bounds(&self.core.config));
        self.tell_homes(feed);
    }

    /// Has the homes of replicas look what there is for them.
    fn tell_homes(&mut self, feed: &mut Feed) {
        for home in feed.untold() {
            // This one looks at the end of its turn in any case.
            if home != self.core.id {
                self.outbox.note(home, Note::Stream);
            }
        }
    }

    /// Has shards look whose clients wait for replicas.
    fn tell_waiters(&mut self) {
        let shared = self.core.shared.clone();
        for (shard, waits) in shared.replication.waits.iter().enumerate() {
            if waits.0.load(Acquire) && shard != self.core.id as usize {
                self.outbox.note(shard as ShardId, Note::Stream);
            }
        }
    }

    /// `DEBUG REPLICATE`: whatever it is.
    pub(crate) fn replicate(&mut self, words: &[&[u8]]) {
        self.drain_streams();
        let shared = self.core.shared.clone();
        self.feed_command(&mut shared.replication.feed(), words);
    }

    /// A client wants to become a replica: by `SYNC`, or by `PSYNC` with a history's name and a position in it.
    pub(crate) fn begin_replica(&mut self, index: u32, psync: Option<(&[u8], i64)>) -> CommandResult {
        let own = self.core.id;
        let client = self.client(index);
        if !client.out.is_empty() || client.held.is_some() {
            return Err("ERR SYNC and PSYNC are invalid with pending output".into());
        }
        let introduction = client.introduction.take().map(|introduction| *introduction).unwrap_or_default();
        client.introduction = Some(Box::new(introduction.clone()));
        if introduction.filter.is_some() && !introduction.capabilities.eof {
            return Err("ERR Filtered replica requires EOF capability".into());
        }
        let peer = client.peer.address.rsplit_once(':').map_or("", |(host, _)| host);
        let address = if introduction.address.is_empty() { peer.to_string() } else { introduction.address };
        let mut replica = Replica::new(client.id, own, if client.peer.unix { String::new() } else { address });
        replica.port = introduction.port;
        replica.silent = psync.is_none();
        replica.rdb_only = introduction.rdb_only;
        replica.filter = introduction.filter;
        replica.new = introduction.version >= 0x7_02_00;
        replica.heard_ms = self.core.now_ms;
        let name = replica.name();
        self.log(LogLevel::Notice, format!("Replica {name} asks for synchronization"));
        let shared = self.core.shared.clone();
        let mut link = Box::new(Link::default());
        let mut feed = shared.replication.feed();
        if let Some((id, from)) = psync
            && self.may_go_on(&feed, &name, id, from)
        {
            let from = from as u64;
            (replica.state, replica.taken) = (State::Online, from - 1);
            (link.begun, link.online) = (true, true);
            let said = match introduction.capabilities.psync2 {
                true => format!("+CONTINUE {}\r\n", feed.id),
                false => "+CONTINUE\r\n".into(),
            };
            let line = format!(
                "Partial resynchronization request from {name} accepted. Sending {} bytes of backlog starting from \
                 offset {from}.",
                feed.offset() + 1 - from
            );
            self.log(LogLevel::Notice, line);
            shared.replication.syncs[1].fetch_add(1, Relaxed);
            feed.replicas.push(replica);
            shared.replication.count_good(&feed, &self.core.config, self.core.now_ms);
            self.push_output(index, said.as_bytes());
        } else {
            if psync.is_some_and(|(id, _)| id.first() != Some(&b'?')) {
                shared.replication.syncs[2].fetch_add(1, Relaxed);
            }
            shared.replication.syncs[0].fetch_add(1, Relaxed);
            feed.replicas.push(replica);
            shared.replication.wanted.store(true, Release);
        }
        drop(feed);
        let client = self.client(index);
        client.gate |= gate::REPLICA;
        client.link = Some(link);
        self.replicas.push(index);
        self.begin_sync_if_wanted();
        Err(CommandError::NoReply)
    }

    /// Whether a replica can go on where it was; says why not.
    fn may_go_on(&mut self, feed: &Feed, name: &str, id: &[u8], from: i64) -> bool {
        if !id.eq_ignore_ascii_case(feed.id.as_bytes()) {
            let line = match id.first() {
                Some(b'?') => format!("Full resync requested by replica {name}"),
                _ => format!(
                    "Partial resynchronization not accepted: Replication ID mismatch (Replica asked for '{}', my \
                     replication IDs are '{}' and '{}')",
                    String::from_utf8_lossy(id),
                    feed.id,
                    "0".repeat(40)
                ),
            };
            self.log(LogLevel::Notice, line);
            return false;
        }
        if u64::try_from(from).is_ok_and(|from| from > 0 && feed.reaches(from)) {
            return true;
        }
        let line =
            format!("Unable to partial resync with replica {name} for lack of backlog (Replica request was: {from}).");
        self.log(LogLevel::Notice, line);
        if from > feed.offset() as i64 {
            let line = format!(
                "Warning: replica {name} tried to PSYNC with an offset that is greater than the master replication \
                 offset."
            );
            self.log(LogLevel::Warning, line);
        }
        false
    }

    /// Begins the snapshot that a replica waits for, or what must go before, unless something else is written now.
    pub(crate) fn begin_sync_if_wanted(&mut self) {
        let shared = self.core.shared.clone();
        let (replication, persistence) = (&shared.replication, &shared.persistence);
        if !replication.wanted.load(Acquire)
            || persistence.saving.load(Acquire)
            || persistence.loading.load(Acquire)
            || shared.aof.rewriting.load(Acquire)
        {
            return;
        }
        let follows = self.core.effects.stream;
        let aware = || replication.aware.iter().all(|aware| aware.0.load(Acquire));
        if follows && self.core.shards > 1 && !aware() {
            return;
        }
        if !replication.starting.swap(true, AcqRel) {
            let job = if follows || self.core.shards == 1 { Job::Sync } else { Job::Follow };
            self.begin_own_tx(job);
        }
    }

    /// Has writes be noted for replicas, or no longer. All slices are in hand.
    pub(crate) fn follow(&mut self, on: bool) {
        let shared = self.core.shared.clone();
        let mut feed = shared.replication.feed();
        if !on {
            if !self.backlog_is_over(&feed) {
                return;
            }
            let ttl = self.core.config.repl_backlog_ttl;
            let line = format!("Replication backlog freed after {ttl} seconds without connected replicas.");
            self.log(LogLevel::Notice, line);
            let id = new_id(&mut self.core.rng);
            feed.end(id);
        }
        for slice in self.slices.iter_mut().flatten() {
            slice.stream.on = on;
            slice.stream.clear();
        }
        self.core.effects.set(self.core.effects.log, on);
        shared.replication.starting.store(false, Release);
    }

    /// The cut of a full sync. All slices are in hand.
    pub(crate) fn cut_for_replicas(&mut self) {
        let shared = self.core.shared.clone();
        let replication = &shared.replication;
        replication.starting.store(false, Release);
        let mut feed = replication.feed();
        let Some(first) = feed.replicas.iter().find(|replica| replica.state == State::WaitStart) else {
            return replication.wanted.store(false, Release);
        };
        let filter = first.filter;
        let joins = |replica: &Replica| replica.state == State::WaitStart && replica.filter == filter;
        let new = feed.replicas.iter().filter(|replica| joins(replica)).all(|replica| replica.new);
        let newest = self.core.config.rdb_version;
        let version = if new { newest } else { newest.min(OLD_VERSION) };
        let (sync, state) = match filter {
            None => {
                let slices = self.slices.iter_mut().filter_map(|slice| slice.as_deref_mut());
                // Something else began; it is tried again when that has ended.
                let Some(sync) = snapshot::begin_sync(&mut self.core, slices, version) else { return };
                self.log(LogLevel::Notice, "Starting BGSAVE for SYNC with target: disk");
                let line = format!("Background saving started by pid {}", shared.process_id);
                self.log(LogLevel::Notice, line);
                (sync, State::WaitEnd)
            }
            Some(filter) => match snapshot::write_filtered(&mut self.core, filter.functions, version) {
                Ok(None) => return,
                Ok(Some(sync)) => (sync, shared.host.sync_bytes(sync).map_or(State::Failed, State::SendBulk)),
                Err(text) => {
                    self.log(LogLevel::Warning, text);
                    (0, State::Failed)
                }
            },
        };
        if !feed.active {
            let id = new_id(&mut self.core.rng);
            let line =
                format!("Replication backlog created, my new replication IDs are '{id}' and '{}'", "0".repeat(40));
            self.log(LogLevel::Notice, line);
            feed.begin(id, bounds(&self.core.config));
        }
        if !self.core.effects.stream {
            self.slices.iter_mut().flatten().for_each(|slice| slice.stream.on = true);
            self.core.effects.set(self.core.effects.log, true);
        }
        let start = feed.cut();
        for replica in feed.replicas.iter_mut().filter(|replica| joins(replica)) {
            (replica.state, replica.sync, replica.start, replica.taken) = (state, sync, start, start);
        }
        let waits = feed.replicas.iter().any(|replica| replica.state == State::WaitStart);
        replication.wanted.store(waits, Release);
        self.tell_homes(&mut feed);
    }

    /// At the end of a turn: what is new goes to the replicas at home here.
    pub(crate) fn serve_replicas(&mut self) {
        let shared = self.core.shared.clone();
        let mut feed = shared.replication.feed();
        feed.heard(self.core.id);
        let mut gone = Vec::new();
        for at in 0..self.replicas.len() {
            let index = self.replicas[at];
            if self.serve_replica(&mut feed, index).is_err() {
                gone.push(index);
            }
        }
        drop(feed);
        for at in 0..self.replicas.len() {
            let index = self.replicas[at];
            if !gone.contains(&index) && self.send_bulk(index).is_err() {
                gone.push(index);
            }
        }
        for index in gone {
            self.close_now(index);
        }
        for at in (0..self.replicas.len()).rev() {
            self.check_output_limit(self.replicas[at]);
        }
    }

    /// Serves one; an error when it cannot be helped any more.
    fn serve_replica(&mut self, feed: &mut Feed, index: u32) -> Result<(), ()> {
        let client = self.clients[index as usize].as_deref_mut().expect("replicas that go are taken off");
        let link = client.link.as_deref_mut().expect("a replica has one");
        let Some(at) = feed.replicas.iter().position(|replica| replica.client == client.id) else { return Err(()) };
        let replica = &feed.replicas[at];
        let before = client.out.len();
        if replica.given_up {
            let line = format!(
                "Client id={} addr={} closed for overcoming of output buffer limits.",
                client.id, client.peer.address
            );
            self.core.stats.output_buffer_limit_disconnections += 1;
            self.log(LogLevel::Warning, line);
            return Err(());
        }
        match replica.state {
            State::WaitStart => return Ok(()),
            State::Failed => {
                self.log(LogLevel::Warning, "SYNC failed. BGSAVE child returned an error");
                return Err(());
            }
            _ => {}
        }
        if !link.begun {
            link.begun = true;
            link.sync = replica.sync;
            if !replica.silent {
                client.out.extend_from_slice(format!("+FULLRESYNC {} {}\r\n", feed.id, replica.start).as_bytes());
            }
        }
        if replica.follows() && replica.taken < feed.offset() {
            let to = if link.online { &mut client.out } else { &mut link.pending };
            let taken = feed.copy(replica.taken, to);
            feed.replicas[at].taken = taken;
        }
        if let (State::SendBulk(bytes), None) = (feed.replicas[at].state, link.bulk) {
            client.out.extend_from_slice(format!("${bytes}\r\n").as_bytes());
            link.bulk = Some((0, bytes));
        }
        let more = client.out.len() > before;
        if more {
            self.queue_flush(index);
        }
        Ok(())
    }

    /// Takes over more of a snapshot's file, as much as the socket has taken. Not while the feed is locked, for the file
    /// may lie on a slow disk. An error when it cannot be read.
    fn send_bulk(&mut self, index: u32) -> Result<(), ()> {
        let shared = self.core.shared.clone();
        let client = self.clients[index as usize].as_deref_mut().expect("replicas that go are taken off");
        let id = client.id;
        let link = client.link.as_deref_mut().expect("a replica has one");
        let Some((mut sent, all)) = link.bulk else { return Ok(()) };
        let before = client.out.len();
        while sent < all && client.out.len() + client.in_flight < SYNC_AHEAD_BYTES {
            let had = client.out.len();
            let most = SYNC_AHEAD_BYTES.min((all - sent) as usize);
            let read = shared.host.read_sync(link.sync, sent, most, &mut client.out);
            if read.is_err() || client.out.len() == had {
                let line = format!("Read error sending DB to replica: {}", read.err().unwrap_or_default());
                self.effects.push(Effect::Log(LogLevel::Warning, line));
                return Err(());
            }
            sent += (client.out.len() - had) as u64;
        }
        link.bulk = (sent < all).then_some((sent, all));
        if sent == all {
            let pending = std::mem::take(&mut link.pending);
            client.out.extend_from_slice(&pending);
            link.online = true;
            let mut feed = shared.replication.feed();
            let Some(replica) = feed.replica(id) else { return Err(()) };
            let (sync, name) = (replica.sync, replica.name());
            let line = if replica.rdb_only {
                replica.state = State::Transmitted;
                client.gate |= gate::CLOSE_AFTER_REPLY;
                format!("RDB transfer completed, rdb only replica ({name}) should be disconnected asap")
            } else {
                (replica.state, replica.heard_ms) = (State::Online, self.core.now_ms);
                shared.replication.count_good(&feed, &self.core.config, self.core.now_ms);
                format!("Synchronization with replica {name} succeeded")
            };
            if !feed.needs(sync) {
                shared.host.drop_sync(sync);
            }
            self.effects.push(Effect::Log(LogLevel::Notice, line));
        }
        if self.client(index).out.len() > before {
            self.queue_flush(index);
        }
        Ok(())
    }

    /// Whether a snapshot is being sent to a replica at home here.
    pub(crate) fn sends_bulk(&self) -> bool {
        let sends = |index: &u32| {
            let link = self.clients[*index as usize].as_deref().and_then(|client| client.link.as_deref());
            link.is_some_and(|link| link.bulk.is_some())
        };
        self.replicas.iter().any(sends)
    }

    /// A client that is a replica goes.
    pub(crate) fn end_replica(&mut self, index: u32) {
        let client = self.client(index);
        if client.gate & gate::REPLICA == 0 {
            return;
        }
        client.gate &= !gate::REPLICA;
        client.link = None;
        let id = client.id;
        self.replicas.retain(|other| *other != index);
        let shared = self.core.shared.clone();
        let mut feed = shared.replication.feed();
        let Some(at) = feed.replicas.iter().position(|replica| replica.client == id) else { return };
        let replica = feed.replicas.remove(at);
        self.log(LogLevel::Notice, format!("Connection with replica {} lost.", replica.name()));
        if feed.replicas.is_empty() {
            feed.alone_since = self.core.now_ms / 1000;
        }
        if matches!(replica.state, State::SendBulk(_)) && !feed.needs(replica.sync) {
            shared.host.drop_sync(replica.sync);
        }
        shared.replication.count_good(&feed, &self.core.config, self.core.now_ms);
    }

    /// A replica says up to where it has done what it was told, and up to where that is on its disk.
    pub(crate) fn take_ack(&mut self, index: u32, acknowledged: i64, on_disk: Option<i64>) {
        let (id, now) = (self.client(index).id, self.core.now_ms);
        let shared = self.core.shared.clone();
        let mut feed = shared.replication.feed();
        let Some(replica) = feed.replica(id) else { return };
        replica.acknowledged = replica.acknowledged.max(acknowledged.max(0) as u64);
        replica.on_disk = replica.on_disk.max(on_disk.unwrap_or(0).max(0) as u64);
        replica.heard_ms = now;
        if is_demanding(&self.core.config) {
            shared.replication.count_good(&feed, &self.core.config, now);
        }
        drop(feed);
        self.tell_waiters();
    }

    /// The stream's position, with all that this shard has done, that a client waits for; replicas are asked how far
    /// they are.
    pub(crate) fn ask_replicas(&mut self) {
        let shared = self.core.shared.clone();
        let mut feed = shared.replication.feed();
        if !feed.replicas.is_empty() {
            self.feed_command(&mut feed, &[b"REPLCONF", b"GETACK", b"*"]);
        }
    }

    fn backlog_is_over(&self, feed: &Feed) -> bool {
        let ttl = self.core.config.repl_backlog_ttl as i64;
        feed.active && feed.replicas.is_empty() && ttl != 0 && self.core.now_ms / 1000 - feed.alone_since > ttl
    }

    /// From time to time.
    pub(crate) fn replication_cron(&mut self) {
        let shared = self.core.shared.clone();
        let replication = &shared.replication;
        let (own, second) = (self.core.id, self.core.now_ms / 1000);
        replication.aware[own as usize].0.store(self.core.effects.stream, Release);
        if own == 0 {
            self.begin_sync_if_wanted();
        }
        if std::mem::replace(&mut self.replication_second, second) == second {
            return;
        }
        self.look_after_replicas(second);
        if own == 0 && self.core.effects.stream {
            self.replication_seconds += 1;
            let mut feed = replication.feed();
            let due = self.replication_seconds.is_multiple_of(u64::from(self.core.config.repl_ping_replica_period));
            if due && !feed.replicas.is_empty() {
                self.feed_command(&mut feed, &[b"PING"]);
            }
            replication.count_good(&feed, &self.core.config, self.core.now_ms);
            if self.backlog_is_over(&feed) && !replication.starting.swap(true, AcqRel) {
                drop(feed);
                self.begin_own_tx(Job::Unfollow);
            }
        }
    }

    /// Those that wait for a snapshot are shown that they are not forgotten; those not heard of for long are closed.
    fn look_after_replicas(&mut self, second: i64) {
        let shared = self.core.shared.clone();
        for index in self.replicas.clone() {
            let client = self.client(index);
            let id = client.id;
            let link = client.link.as_deref().expect("a replica has one");
            if !link.online && link.bulk.is_none() {
                self.push_output(index, b"\n");
                continue;
            }
            let found = shared.replication.feed().replica(id).map(|replica| (replica.clone(), replica.name()));
            let Some((replica, name)) = found else { continue };
            let late = second - replica.heard_ms / 1000 > i64::from(self.core.config.repl_timeout);
            if replica.state == State::Online && !replica.silent && late {
                self.log(LogLevel::Warning, format!("Disconnecting timedout replica (streaming sync): {name}"));
                self.close_now(index);
            }
        }
    }
}
