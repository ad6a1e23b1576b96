//! Clients that wait for keys: `BLPOP` and its kin, on one shard or several.
//!
//! A blocking command runs like any other, on the shard that owns its keys. If it finds nothing it asks to wait
//! ([`crate::commands::block`]), and the owner keeps it as a [`Waiter`] with its slice. Whoever writes a key that is
//! waited for marks it as ready; as soon as the command that wrote has ended, and the slice is home, before anything
//! else runs on it, the owner runs the waiting commands again, first come, first served. So an element that was pushed
//! to a key with waiters is never seen by others, as in Redis, and one owner alone decides who gets it.
//!
//! A command with keys on several shards ran as a transaction, and leaves a waiter that only marks its place in each
//! slice. When such a waiter's turn comes the owner tells the client's home, which runs the command again as a
//! transaction: with all slices in hand it is one claim again. Those behind it on the same key wait until it has been
//! served or passed over.
//!
//! Time-outs, `CLIENT UNBLOCK` and clients that go away are settled where the waiter is: at the owner, or at home when
//! there are several. Counterpart: `blocked.c`, `timeout.c`.

use super::dispatch::{Next, execute};
use super::{Shard, Waiting};
use crate::args::{Args, OwnedArgs};
use crate::client::{ClientView, Wait, order};
use crate::commands::block::BlockRequest;
use crate::commands::{Command, CommandId, Group, Key};
use crate::core::Fault;
use crate::db::Keyspace;
use crate::db::blocked::{BlockId, Ready, Waiter};
use crate::entry::{EntryPtr, Kind};
use crate::message::{Note, ReplyHead};
use crate::resp::Reply;
use crate::router::{self, OwnerSet, Owners, ShardId, owner_of};
use crate::transaction::Job;

/// How a wait ends other than by being served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unblock {
    /// As if the time had run out.
    Timeout,
    /// With an error.
    Error,
    /// Without a word: the client has gone.
    Gone,
}

/// What a client waits for, as its home knows it.
#[derive(Debug)]
pub struct BlockedClient {
    /// The number of the reply it awaits.
    pub sequence: u64,
    /// Who has its waiters.
    pub owners: Vec<ShardId>,
    /// What its home needs when there are several.
    pub(crate) spanning: Option<Spanning>,
}

/// A command that waits for keys of several shards.
#[derive(Debug)]
pub(crate) struct Spanning {
    command: CommandId,
    args: OwnedArgs,
    deadline_ms: i64,
    timeout_reply: crate::commands::block::TimeoutReply,
    /// It runs again now; what ends it meanwhile is settled after that.
    retrying: bool,
    ending: Option<Unblock>,
}

pub(crate) const UNBLOCKED: &str = "UNBLOCKED client unblocked via CLIENT UNBLOCK";

/// The type of the keys that a command waits for.
fn kind_of(row: &Command) -> Kind {
    match row.group {
        Group::SortedSet => Kind::ZSet,
        Group::Stream => Kind::Stream,
        _ => Kind::List,
    }
}

impl Shard {
    /// A command that may have to wait, of a client that awaits nothing else.
    pub(crate) fn start_blocking(&mut self, index: u32, id: CommandId, args: Args<'_>, owners: Owners) -> Next {
        let own = self.core.id;
        let owner = match owners {
            Owners::Several(owners) => {
                self.start_tx(index, Job::Command(id, args.to_owned()), &owners);
                return Next::Wait;
            }
            Owners::One(owner) => owner,
            Owners::None => own,
        };
        if owner != own || !self.may_run_here(index, id, args) {
            self.send_request(index, id, args, owner);
            let sequence = self.client(index).order.as_ref().expect("a reply is awaited").last();
            self.await_keys(index, BlockedClient { sequence, owners: vec![owner], spanning: None });
            return Next::Wait;
        }
        self.run_here(index, id, args);
        let Some(request) = self.core.block_request.take() else { return Next::Done };
        self.uncount(id);
        let sequence = self.client(index).await_reply(order::bit(own));
        let view = self.view(index);
        self.await_keys(index, BlockedClient { sequence, owners: vec![own], spanning: None });
        self.register(view, sequence, id, args, *request);
        Next::Wait
    }

    fn await_keys(&mut self, index: u32, blocked: BlockedClient) {
        self.client(index).blocked = Some(Box::new(blocked));
        self.wait_for(index, Wait::Blocked);
        // Whoever has ended waits for no keys.
        self.see_end(index);
    }

    /// Keeps a command that found nothing with this shard's slice, which has all its keys.
    pub(crate) fn register(
        &mut self,
        view: ClientView,
        sequence: u64,
        command: CommandId,
        args: Args<'_>,
        request: BlockRequest,
    ) {
        let kind = kind_of(self.core.table.row(command));
        let BlockRequest { deadline_ms, keys, timeout_reply, again, on_delete } = request;
        let args = again.unwrap_or_else(|| args.to_owned());
        let waiter = Waiter {
            view,
            sequence,
            command,
            args,
            keys,
            kind,
            on_delete,
            deadline_ms,
            timeout_reply,
            spans: false,
            asked: false,
        };
        self.own_slice().block(waiter);
    }

    /// Marks the place of a command that found nothing in each of its slices, all of which are in hand. False when its
    /// client has gone.
    pub(crate) fn register_spanning(
        &mut self,
        view: ClientView,
        command: CommandId,
        args: Args<'_>,
        request: BlockRequest,
    ) -> bool {
        let shards = self.core.shards;
        let own = self.core.id;
        let kind = kind_of(self.core.table.row(command));
        let BlockRequest { deadline_ms, keys, timeout_reply, again, on_delete } = request;
        let Some(client) = self.client_by_id(view.index, view.id) else { return false };
        let sequence = client.await_reply(order::bit(own));
        let mut owners = OwnerSet::default();
        keys.iter().for_each(|key| owners.add(owner_of(key, shards)));
        let owners = match owners.finish() {
            Owners::None => Vec::new(),
            Owners::One(owner) => vec![owner],
            Owners::Several(owners) => owners,
        };
        let args = again.unwrap_or_else(|| args.to_owned());
        for owner in &owners {
            let mine = keys.iter().filter(|key| owner_of(key, shards) == *owner).cloned().collect();
            let waiter = Waiter {
                view,
                sequence,
                command,
                args: OwnedArgs::default(),
                keys: mine,
                kind,
                on_delete,
                deadline_ms: 0,
                timeout_reply,
                spans: true,
                asked: false,
            };
            self.slices[*owner as usize].as_mut().expect("the transaction has them all").block(waiter);
        }
        if deadline_ms != 0 {
            self.spanning_deadlines.insert((deadline_ms, view.index, view.id));
        }
        let spanning = Spanning { command, args, deadline_ms, timeout_reply, retrying: false, ending: None };
        self.await_keys(view.index, BlockedClient { sequence, owners, spanning: Some(spanning) });
        true
    }

    fn own_slice(&mut self) -> &mut crate::db::Slice {
        self.slices[self.core.id as usize].as_deref_mut().expect("the caller saw that the slice is home")
    }

    /// Serves those that wait for keys which were written. Called with the slice at home, after every command that ran
    /// on it.
    #[inline]
    pub(crate) fn serve_ready(&mut self) {
        let own = self.core.id as usize;
        if self.slices[own].as_deref().is_some_and(|slice| !slice.blocked.is_empty()) {
            self.serve_ready_keys();
        }
    }

    #[cold]
    fn serve_ready_keys(&mut self) {
        if self.core.paused.is_some() && self.busy.is_none() {
            // A slow script is about to be put aside with its slices: nobody sees what it has done before it has ended.
            return;
        }
        // A command may write and then wait itself: XREADGROUP makes its consumer first. What it waits for is not to be
        // taken for what one of those here waits for.
        let request = self.core.block_request.take();
        while let Some((db, Ready { key, after })) = self.own_slice().next_ready() {
            self.serve_key(db, &key, after);
        }
        self.core.block_request = request;
    }

    fn serve_key(&mut self, db: u16, key: &[u8], after: Option<BlockId>) {
        let own = self.core.id as usize;
        let slice = self.own_slice();
        let Some(queue) = slice.dbs[db as usize].blocking_keys.get(key) else { return };
        let start = after.and_then(|after| queue.iter().position(|id| *id == after)).map_or(0, |at| at + 1);
        let ids: Vec<BlockId> = queue.range(start..).copied().collect();
        let hashed = Key { bytes: key, hash: self.core.hasher.hash(key) };
        for id in ids {
            let slice = self.slices[own].as_deref_mut().expect("waiters are served at home");
            // A key whose time has come is left for a command to find.
            let now = self.core.now_ms;
            let live = |entry: &EntryPtr| entry.expire_at().is_none_or(|at| at > now);
            let entry = slice.dbs[db as usize].dict.find(hashed.hash, key).filter(live);
            let found = entry.map(|entry| entry.kind());
            if found.is_none() && !slice.blocked.any_on_delete() {
                return;
            }
            let Some(waiter) = slice.blocked.get_mut(id) else { continue };
            if found != Some(waiter.kind) && !waiter.on_delete {
                continue;
            }
            if !waiter.spans {
                self.serve_waiter(id);
                continue;
            }
            if !std::mem::replace(&mut waiter.asked, true) {
                let view = waiter.view;
                match view.home as usize == own {
                    true => self.retry_spanning(view.index, id),
                    false => self.outbox.note(view.home, Note::Ready { index: view.index, id }),
                }
            }
            return;
        }
    }

    /// Runs a waiting command again, and answers it unless it has to wait on.
    fn serve_waiter(&mut self, id: BlockId) {
        let waiter = self.own_slice().blocked.get_mut(id).expect("the caller saw it");
        let (view, command, args) = (waiter.view, waiter.command, std::mem::take(&mut waiter.args));
        let mut out = Vec::new();
        if let Some(text) = self.refused_again(view, command, args.args()) {
            Reply::new(&mut out, view.resp).error(&text);
            self.own_slice().unblock(id);
            self.answer_waiter(view, id.sequence, &out);
            return;
        }
        let keys = Keyspace::one(&mut self.slices, self.core.id);
        execute(&mut self.core, keys, view, command, args.args(), &mut out);
        self.account(command, args.args(), view);
        if self.core.block_request.take().is_some() {
            self.uncount(command);
            self.own_slice().blocked.get_mut(id).expect("still there").args = args;
            return;
        }
        self.own_slice().unblock(id);
        self.answer_waiter(view, id.sequence, &out);
        self.post();
    }

    fn answer_waiter(&mut self, view: ClientView, sequence: u64, reply: &[u8]) {
        if view.home == self.core.id {
            self.fulfil(view.index, view.id, sequence, reply);
        } else {
            let replies = &mut self.outbox.parcel(view.home).replies;
            replies.bytes.extend_from_slice(reply);
            replies.heads.push(ReplyHead { index: view.index, id: view.id, sequence, len: reply.len() as u32 });
        }
    }

    /// A key of a command that spans shards is ready: its client's home runs it again.
    pub(crate) fn retry_spanning(&mut self, index: u32, id: BlockId) {
        let (shards, table) = (self.core.shards, self.core.table);
        let Some(client) = self.client_by_id(index, id.client) else { return };
        let Some(blocked) = client.blocked.as_deref_mut().filter(|blocked| blocked.sequence == id.sequence) else {
            return;
        };
        let Some(spanning) = blocked.spanning.as_mut().filter(|spanning| !spanning.retrying) else { return };
        spanning.retrying = true;
        let job = Job::Again(id.sequence, spanning.command, spanning.args.clone());
        // All its keys' slices, not those alone whose keys it waits for: `BLMOVE` has a destination.
        let mut owners = OwnerSet::default();
        owners.add_all(&router::owners(table.row(spanning.command), spanning.args.args(), shards));
        blocked.owners.iter().for_each(|owner| owners.add(*owner));
        let owners = match owners.finish() {
            Owners::None => Vec::new(),
            Owners::One(owner) => vec![owner],
            Owners::Several(owners) => owners,
        };
        self.begin_tx(index, job, &owners);
    }

    /// Runs a command that spans shards again; its slices are in hand.
    pub(crate) fn run_again(&mut self, view: ClientView, sequence: u64, command: CommandId, args: Args<'_>) {
        let id = BlockId { client: view.id, sequence };
        let client = self.client_by_id(view.index, view.id);
        let Some(spanning) = client.and_then(|client| client.blocked.as_deref_mut()?.spanning.as_mut()) else {
            // The client went away meanwhile.
            self.forget_spanning(id);
            return;
        };
        spanning.retrying = false;
        let ending = spanning.ending.take();
        let mut out = Vec::new();
        if let Some(text) = self.refused_again(view, command, args) {
            Reply::new(&mut out, view.resp).error(&text);
            self.forget_spanning(id);
            self.end_wait(view.index);
            self.fulfil(view.index, view.id, sequence, &out);
            return;
        }
        let keys = Keyspace::several(&mut self.slices);
        execute(&mut self.core, keys, view, command, args, &mut out);
        self.account(command, args, view);
        if self.core.block_request.take().is_none() {
            self.forget_spanning(id);
            self.end_wait(view.index);
            self.fulfil(view.index, view.id, sequence, &out);
            return;
        }
        self.uncount(command);
        self.slices.iter_mut().flatten().for_each(|slice| slice.pass_over(id));
        if let Some(how) = ending {
            self.unblock_client(view.index, how);
        }
    }

    fn forget_spanning(&mut self, id: BlockId) {
        if self.core.leaves_out(Fault::KeepWaiters) {
            return;
        }
        for slice in self.slices.iter_mut().flatten() {
            if let Some(waiter) = slice.blocked.get_mut(id) {
                // Whoever stands behind it gets a turn.
                waiter.asked = true;
                slice.unblock(id);
            }
        }
    }

    /// The client waits for keys no more.
    pub(crate) fn end_wait(&mut self, index: u32) {
        let client = self.client(index);
        let id = client.id;
        let Some(blocked) = client.blocked.take() else { return };
        if let Some(spanning) = blocked.spanning.filter(|spanning| spanning.deadline_ms != 0) {
            self.spanning_deadlines.remove(&(spanning.deadline_ms, index, id));
        }
    }

    /// Ends a client's wait, if it still waits.
    pub(crate) fn unblock_client(&mut self, index: u32, how: Unblock) -> bool {
        let client = self.client(index);
        let (client_id, resp) = (client.id, client.resp);
        let Some(blocked) = client.blocked.as_deref_mut() else { return false };
        let id = BlockId { client: client_id, sequence: blocked.sequence };
        if let Some(spanning) = blocked.spanning.as_mut() {
            if spanning.retrying {
                spanning.ending = Some(how);
                return true;
            }
        }
        let owners = blocked.owners.clone();
        let timeout_reply = blocked.spanning.as_ref().map(|spanning| spanning.timeout_reply);
        let command = blocked.spanning.as_ref().map(|spanning| spanning.command);
        // At several shards its waiters are only marks; the reply is its home's to give.
        let told = if timeout_reply.is_some() { Unblock::Gone } else { how };
        if let Some(timeout_reply) = timeout_reply {
            let mut out = Vec::new();
            let mut reply = Reply::new(&mut out, resp);
            match how {
                Unblock::Timeout => timeout_reply.write(&mut reply),
                Unblock::Error => reply.error(UNBLOCKED),
                Unblock::Gone => {}
            }
            self.count_unserved(command.expect("it spans shards"), how);
            self.end_wait(index);
            if how != Unblock::Gone {
                self.fulfil(index, client_id, id.sequence, &out);
            }
        }
        for owner in owners {
            // A slice in hand is told directly: it would be gone before a note arrived.
            if self.slices[owner as usize].is_some() && owner != self.core.id {
                self.slices[owner as usize].as_mut().expect("seen").unblock(id);
            } else if owner == self.core.id {
                self.unblock_here(id, told);
            } else {
                self.outbox.note(owner, Note::Unblock { id, how: told });
            }
        }
        true
    }

    /// Ends a wait for keys of this shard, if it has not ended. One that has not begun, for its command waits here for
    /// the slice or for keys that are held, is ended as soon as it has.
    pub(crate) fn unblock_here(&mut self, id: BlockId, how: Unblock) {
        let own = self.core.id as usize;
        let Some(slice) = self.slices[own].as_deref_mut() else {
            return self.enqueue_waiting(Waiting::Unblock(id, how));
        };
        let Some(waiter) = slice.unblock(id) else {
            if self.earlier_waits(id.client) {
                self.enqueue_waiting(Waiting::Unblock(id, how));
            }
            return;
        };
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, waiter.view.resp);
        match how {
            Unblock::Timeout => waiter.timeout_reply.write(&mut reply),
            Unblock::Error => reply.error(UNBLOCKED),
            Unblock::Gone => {}
        }
        self.count_unserved(waiter.command, how);
        if how != Unblock::Gone {
            self.answer_waiter(waiter.view, id.sequence, &out);
        }
        self.serve_ready();
    }

    /// A command that waits is counted when its wait ends.
    pub(crate) fn uncount(&mut self, command: CommandId) {
        let stats = &mut self.core.stats.commands[command as usize];
        stats.calls -= 1;
        stats.ticks = stats.ticks.saturating_sub(self.clock.lapped());
        self.core.stats.commands_processed -= 1;
    }

    /// Counts a command whose wait has ended without its being served.
    fn count_unserved(&mut self, command: CommandId, how: Unblock) {
        if how == Unblock::Gone {
            return;
        }
        self.core.stats.commands_processed += 1;
        let stats = &mut self.core.stats.commands[command as usize];
        stats.calls += 1;
        if how == Unblock::Error {
            stats.failed += 1;
            self.core.stats.count_error(UNBLOCKED);
        }
    }

    /// Ends the waits whose time has run out.
    pub(crate) fn blocked_timeouts(&mut self) {
        let now = self.core.now_ms;
        while let Some((_, index, id)) = self.spanning_deadlines.first().copied().filter(|(at, ..)| *at <= now) {
            self.spanning_deadlines.pop_first();
            if self.client_by_id(index, id).is_some() {
                self.unblock_client(index, Unblock::Timeout);
            }
        }
        while let Some(id) = self.slices[self.core.id as usize].as_deref().and_then(|slice| slice.blocked.overdue(now))
        {
            self.unblock_here(id, Unblock::Timeout);
        }
    }

    /// Unix ms of the next deadline of a client that waits; for one that waits for memory to be freed it is
    /// always now, which has the loop look about once a millisecond.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        let spanning = self.spanning_deadlines.first().map(|(at, ..)| *at);
        let own = self.slice().and_then(|slice| slice.blocked.next_deadline_ms());
        let free = (!self.core.awaited_frees.is_empty()).then_some(self.core.now_ms);
        spanning.into_iter().chain(own).chain(free).chain(self.log_deadline_ms()).min()
    }
}

#[cfg(test)]
mod tests {
    use crate::core::Rng;
    use crate::router::owner_of;
    use crate::testing::{World, request};

    /// Keys of these shards, of four.
    fn keys_of(shards: &[u16]) -> Vec<String> {
        let mut names = (0..).map(|i| format!("k{i}"));
        shards.iter().map(|shard| names.find(|name| owner_of(name.as_bytes(), 4) == *shard).unwrap()).collect()
    }

    #[test]
    fn what_ends_a_wait_does_not_overtake_its_beginning() {
        let key = &keys_of(&[1])[0];
        for (end, reply) in [("UNBLOCK", "*-1\r\n"), ("UNBLOCK with an error", "-UNBLOCKED"), ("close", "")] {
            let mut world = World::new(4);
            let (waiting, other) = (world.connect_to(0), world.connect_to(0));
            let id = world.run(waiting, "CLIENT ID").integer();
            // All in one turn of the home's loop.
            world.send_only(waiting, &request(&["BLPOP", key, "0"]));
            match end {
                "UNBLOCK" => world.send(other, format!("CLIENT UNBLOCK {id}\r\n").as_bytes()),
                "close" => world.disconnect(waiting),
                _ => world.send(other, format!("CLIENT UNBLOCK {id} ERROR\r\n").as_bytes()),
            }
            assert!(String::from_utf8(world.received(waiting)).unwrap().starts_with(reply), "{end}");
            assert!(world.received(other) == b":1\r\n" || end == "close", "{end}");
            world.run(other, &format!("RPUSH {key} x"));
            assert_eq!(world.run(other, &format!("LRANGE {key} 0 -1")).to_string(), "[\"x\"]", "{end}");
        }
    }

    #[test]
    fn clients_that_go_leave_no_waits_and_no_watches() {
        let keys = keys_of(&[0, 1, 1, 2, 3]);
        for seed in 0..600 {
            let mut rng = Rng::new(seed);
            let mut world = World::new(4);
            let mut pick = |n: u64| rng.below(n) as usize;
            let conns: Vec<_> = (0..6).map(|_| world.connect_to(pick(4) as u16)).collect();
            let admin = world.connect_to(pick(4) as u16);
            let ids: Vec<i64> = conns.iter().map(|conn| world.run(*conn, "CLIENT ID").integer()).collect();
            for _ in 0..2 + pick(12) {
                let at = pick(conns.len() as u64);
                let mut key = || keys[pick(keys.len() as u64)].as_str();
                let (a, b) = (key(), key());
                let lines = [
                    vec!["BLPOP", a, "0"],
                    vec!["BLPOP", a, b, "0"],
                    vec!["BLMOVE", a, b, "LEFT", "RIGHT", "0"],
                    vec!["WATCH", a],
                    vec!["WATCH", a, b],
                    vec!["MSET", a, "1", b, "1"],
                    vec!["RENAME", a, b],
                    vec!["EXISTS", a, b],
                ];
                world.send_only(conns[at], &request(&lines[pick(lines.len() as u64)]));
                match pick(6) {
                    0 => world.settle(),
                    1 => {
                        let id = ids[pick(ids.len() as u64)];
                        world.send_only(admin, format!("CLIENT UNBLOCK {id}\r\n").as_bytes());
                    }
                    2 => world.disconnect(conns[at]),
                    _ => {}
                }
            }
            // In one turn with what was sent last.
            conns.iter().for_each(|conn| world.disconnect(*conn));
            world.settle();
            for shard in &world.shards {
                let slice = shard.slice().expect("it is home");
                assert!(slice.blocked.is_empty(), "seed {seed}: waits {:?}", slice.blocked);
                let watched = slice.dbs.iter().map(|db| db.watched_keys.len()).sum::<usize>();
                assert_eq!(watched, 0, "seed {seed}: watches");
                assert!(shard.is_quiet(), "seed {seed}: {}", shard.unrest());
            }
        }
    }
}
