//! `MULTI`, `EXEC`, `DISCARD`, `WATCH`: a queue of commands that runs as one.
//!
//! The queue is the client's, at home. `EXEC` finds the owners of all its keys and of the watched ones: if that is
//! this shard alone it runs at once, else as a transaction over lent slices. Watches stand in the slices that own
//! their keys ([`crate::db::RedisDb::watched_keys`]), so `EXEC` sees them with the slices in its hands. Commands that
//! ask all shards (`INFO`, `CLIENT LIST`) have their questions answered before the queue runs.

use super::dispatch::{Next, execute};
use super::{Shard, Waiting};
use crate::args::{Args, OwnedArgs};
use crate::client::{ClientView, Multi, Queued, WatchedKey, gate};
use crate::commands::spec::Handler;
use crate::commands::{Command, CommandError, CommandId, CommandResult, Group, KeySpec, flag, key};
use crate::db::{Keyspace, Watcher};
use crate::message::{Answer, Note};
use crate::propagate::{close_groups, open_groups};
use crate::router::owner_of;

use flag::*;

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::home("multi", multi, 1, NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY, Group::Transactions).doc(
        "1.2.0",
        "O(1)",
        "Begins a queue of commands that EXEC runs as one.",
        "",
    ),
    Command::home("exec", exec, 1, NOSCRIPT | LOADING | STALE | SKIP_SLOWLOG, Group::Transactions).doc(
        "1.2.0",
        "Depends on the queued commands",
        "Runs the queued commands as one.",
        "",
    ),
    Command::home("discard", discard, 1, NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY, Group::Transactions).doc(
        "2.0.0",
        "O(N), N being the number of queued commands",
        "Drops the queued commands and all watches.",
        "",
    ),
    Command::data("watch", watch, -2, NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY, Group::Transactions)
        .keys(&[KeySpec::range(1, -1, 1, key::RO)])
        .doc("2.2.0", "O(1) for every key", "Makes the next EXEC depend on keys staying as they are.", "key [key ...]"),
    Command::home("unwatch", unwatch, 1, NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY, Group::Transactions).doc(
        "2.2.0",
        "O(1)",
        "Ends all watches.",
        "",
    ),
];

/// Whether a command runs at once even inside `MULTI`.
pub(crate) fn runs_inside_multi(name: &str) -> bool {
    matches!(name, "exec" | "discard" | "multi" | "watch" | "quit" | "reset")
}

fn multi(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    let client = shard.client(index);
    if client.gate & gate::MULTI != 0 {
        return Err("ERR MULTI calls can not be nested".into());
    }
    client.gate |= gate::MULTI;
    client.multi = Some(Box::default());
    client.reply().ok();
    Ok(())
}

fn discard(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    if shard.client(index).gate & gate::MULTI == 0 {
        return Err("ERR DISCARD without MULTI".into());
    }
    shard.end_multi(index);
    shard.client(index).reply().ok();
    Ok(())
}

fn unwatch(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    shard.unwatch_all(index, false);
    shard.client(index).reply().ok();
    Ok(())
}

fn exec(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let client = shard.client(index);
    if client.gate & gate::MULTI == 0 {
        shard.show_exec(index, Some(args.to_owned()));
        return Err("ERR EXEC without MULTI".into());
    }
    if client.gate & gate::DIRTY_EXEC != 0 {
        shard.end_multi(index);
        shard.show_exec(index, Some(args.to_owned()));
        return Err("EXECABORT Transaction discarded because of previous errors.".into());
    }
    if shard.core.monitored {
        shard.client(index).multi.get_or_insert_default().exec = Some(args.to_owned());
    }
    shard.ask_then_exec(index)
}

/// Registers the client with the keys' slices; its home has noted them already.
fn watch(ctx: &mut crate::commands::Ctx<'_>, args: Args<'_>) -> CommandResult {
    let (id, now) = (ctx.client.id, ctx.core.now_ms);
    for i in 1..args.len() {
        let key = ctx.key_of(args.at(i));
        let db = ctx.db(key);
        let expired = db.dict.find(key.hash, key.bytes).is_some_and(|e| e.expire_at().is_some_and(|at| at <= now));
        db.watch(key.bytes, Watcher { client: id, expired });
    }
    ctx.reply.ok();
    Ok(())
}

impl Shard {
    /// Adds a command to the queue.
    pub(crate) fn enqueue(&mut self, index: u32, id: CommandId, args: Args<'_>) -> Next {
        let row = self.core.table.row(id);
        let client = self.client(index);
        if row.has(flag::NO_MULTI) {
            client.gate |= gate::DIRTY_EXEC;
            self.core.stats.commands[id as usize].rejected += 1;
            let text = "ERR Command not allowed inside a transaction";
            self.core.stats.count_error(text);
            self.reply_in_order(index, |reply| reply.error(text));
            return Next::Done;
        }
        if client.gate & gate::DIRTY_EXEC == 0 {
            let owned = args.to_owned();
            let multi = client.multi.get_or_insert_with(Box::<Multi>::default);
            multi.bytes += owned.memory();
            multi.queue.push(Queued { command: id, args: owned, answers: Vec::new() });
        }
        self.reply_in_order(index, |reply| reply.simple("QUEUED"));
        Next::Done
    }

    /// Notes at home what `WATCH` will register with the owners.
    pub(crate) fn note_watches(&mut self, index: u32, args: Args<'_>) -> Result<(), String> {
        let client = self.client(index);
        if client.gate & gate::MULTI != 0 {
            return Err("ERR WATCH inside MULTI is not allowed".into());
        }
        for name in args.iter_from(1) {
            let watched = WatchedKey { db: client.db, key: name.to_vec() };
            if !client.watched.contains(&watched) {
                client.watched.push(watched);
            }
        }
        Ok(())
    }

    /// Leaves `MULTI` and ends all watches.
    pub(crate) fn end_multi(&mut self, index: u32) {
        let client = self.client(index);
        client.gate &= !(gate::MULTI | gate::DIRTY_EXEC);
        client.multi = None;
        self.unwatch_all(index, false);
    }

    /// Ends all watches of a client, wherever their slices are. One that has gone may have requests that wait still.
    pub(crate) fn unwatch_all(&mut self, index: u32, gone: bool) {
        let Some(client) = self.clients[index as usize].as_deref_mut() else { return };
        if client.watched.is_empty() {
            return;
        }
        let id = client.id;
        let watched = std::mem::take(&mut client.watched);
        let shards = self.core.shards;
        let mut by_owner: Vec<Vec<WatchedKey>> = (0..shards).map(|_| Vec::new()).collect();
        for key in watched {
            by_owner[owner_of(&key.key, shards) as usize].push(key);
        }
        for (owner, keys) in by_owner.into_iter().enumerate().filter(|(_, keys)| !keys.is_empty()) {
            if owner == self.core.id as usize {
                self.unwatch_here(id, keys);
            } else if self.slices[owner].is_some() {
                // A slice in hand (inside EXEC) is told directly; it would be gone before a note arrived.
                self.unwatch_in(owner, id, keys);
            } else {
                self.outbox.note(owner as u16, Note::Unwatch { client: id, keys, gone });
            }
        }
    }

    /// A client watches these keys of this shard's slice no longer.
    pub(crate) fn unwatch_here(&mut self, client: u64, keys: Vec<WatchedKey>) {
        let own = self.core.id as usize;
        match self.slices[own].is_some() && !self.earlier_waits(client) {
            true => self.unwatch_in(own, client, keys),
            false => self.enqueue_waiting(Waiting::Unwatch(client, keys)),
        }
    }

    fn unwatch_in(&mut self, owner: usize, client: u64, keys: Vec<WatchedKey>) {
        let slice = self.slices[owner].as_deref_mut().expect("the caller saw it");
        for WatchedKey { db, key } in keys {
            slice.dbs[db as usize].unwatch(&key, client);
        }
    }

    /// Ends the watches that a `WATCH` over several shards has just begun for a client that had gone; the slices are in
    /// hand.
    pub(crate) fn forget_watches(&mut self, client: ClientView, command: CommandId, args: Args<'_>) {
        if self.core.table.row(command).name != "watch" {
            return;
        }
        for name in args.iter_from(1) {
            let owner = owner_of(name, self.core.shards) as usize;
            if let Some(slice) = self.slices[owner].as_deref_mut() {
                slice.dbs[client.db as usize].unwatch(name, client.id);
            }
        }
    }

    fn ask_then_exec(&mut self, index: u32) -> CommandResult {
        let table = self.core.table;
        let id = self.client(index).id;
        let queue = self.client(index).multi.iter().flat_map(|multi| &multi.queue);
        let questions: Vec<_> = queue
            .filter_map(|queued| match table.row(queued.command).handler {
                Handler::Gather { question, .. } => {
                    let mut question = question(queued.args.args())?;
                    question.sign(id, queued.args.args());
                    Some(question)
                }
                _ => None,
            })
            .collect();
        if questions.is_empty() {
            return self.start_exec(index);
        }
        if self.core.shards == 1 {
            let answers = questions.into_iter().map(|question| vec![self.answer(question)]).collect();
            self.place_answers(index, answers);
            return self.start_exec(index);
        }
        let id = crate::commands::table().find(b"exec");
        self.client(index).parked = Some(Box::new((id, crate::args::OwnedArgs::from_words(&["exec"]))));
        self.ask_all(index, questions);
        Err(CommandError::NoReply)
    }

    /// Goes on with `EXEC` when its queue's questions are answered.
    pub(crate) fn exec_with_answers(&mut self, index: u32, answers: Vec<Vec<Answer>>) {
        self.place_answers(index, answers);
        let _ = self.start_exec(index);
        self.queue_flush(index);
    }

    fn place_answers(&mut self, index: u32, answers: Vec<Vec<Answer>>) {
        let table = self.core.table;
        let mut answers = answers.into_iter();
        for queued in self.client(index).multi.iter_mut().flat_map(|multi| &mut multi.queue) {
            if let Handler::Gather { question, .. } = table.row(queued.command).handler {
                if question(queued.args.args()).is_some() {
                    queued.answers = answers.next().unwrap_or_default();
                }
            }
        }
    }

    /// Whether a key the client watches has changed; the slices are in hand.
    fn watches_broken(&mut self, index: u32) -> bool {
        let (id, watched) = (self.client(index).id, self.client(index).watched.clone());
        let now = self.core.now_ms;
        if self.core.leaves_out(crate::core::Fault::NoTouch) {
            return false;
        }
        watched.iter().any(|watched| {
            let hash = self.core.hasher.hash(&watched.key);
            let owner = owner_of(&watched.key, self.core.shards) as usize;
            let db = &self.slices[owner].as_deref().expect("acquired for EXEC").dbs[watched.db as usize];
            let expired_now =
                db.dict.find(hash, &watched.key).is_some_and(|e| e.expire_at().is_some_and(|at| at <= now));
            let expired_then = db
                .watched_keys
                .get(&watched.key)
                .and_then(|watchers| watchers.iter().find(|watcher| watcher.client == id))
                .is_some_and(|watcher| watcher.expired);
            db.touched_watchers.contains(&id) || (expired_now && !expired_then)
        })
    }

    /// Runs the queue; every slice it needs is in its place.
    pub(crate) fn exec_queue(&mut self, index: u32) {
        let broken = self.watches_broken(index);
        self.unwatch_all(index, false);
        let client = self.client(index);
        let length = client.out.len();
        let Multi { queue, exec, .. } = client.multi.take().map(|multi| *multi).unwrap_or_default();
        client.gate &= !(gate::MULTI | gate::DIRTY_EXEC);
        if broken {
            client.reply().null_array();
            client.mute(length);
            self.show_exec(index, exec);
            self.queue_flush(index);
            return;
        }
        client.reply().array(queue.len());
        // Each reply inside is wanted or not by itself: `CLIENT REPLY` may be one of the commands.
        client.mute(length);
        self.clock.restart();
        self.core.deny_blocking = true;
        let logged = self.core.effects.on && open_groups(&self.core, &mut Keyspace::several(&mut self.slices));
        self.run_queue(index, queue);
        if logged {
            close_groups(&self.core, &mut Keyspace::several(&mut self.slices));
        }
        self.core.deny_blocking = false;
        if let Some(client) = self.clients[index as usize].as_deref_mut() {
            client.set_caching(false);
            self.show_exec(index, exec);
        }
        self.post();
        self.core.wake_up();
        self.serve_ready();
        self.queue_flush(index);
    }

    /// Shows monitors an `EXEC`, behind the commands it ran.
    fn show_exec(&mut self, index: u32, exec: Option<OwnedArgs>) {
        if let Some(exec) = exec.filter(|_| self.core.monitored) {
            self.show_to_monitors(index, crate::commands::table().find(b"exec"), exec.args());
        }
    }

    fn run_queue(&mut self, index: u32, queue: Vec<Queued>) {
        // A transaction that has begun runs to its end; scripts in it see how much memory there was.
        let full = self.is_full();
        for Queued { command, args, answers } in queue {
            let args = args.args();
            let view = self.view(index);
            if self.client(index).gate & gate::RESTRICTED != 0
                && let Some(text) = self.refused_in_exec(index, command, args)
            {
                let client = self.client(index);
                let length = client.out.len();
                client.reply().error(&text);
                client.mute(length);
                continue;
            }
            let row = self.core.table.row(command);
            if row.has(flag::SCRIPT) {
                self.show_script(index, args);
            }
            match row.handler {
                Handler::Data(_) => {
                    let mut out = std::mem::take(&mut self.client(index).out);
                    let length = out.len();
                    self.core.memory_full = full && row.has(flag::SCRIPT);
                    let keys = Keyspace::several(&mut self.slices);
                    // The queue could not be gone on with: a slow script in it runs to its end.
                    self.core.may_pause = false;
                    execute(&mut self.core, keys, view, command, args, &mut out);
                    self.core.may_pause = self.busy.is_none();
                    self.account(command, args, view);
                    let client = self.client(index);
                    client.out = out;
                    client.mute(length);
                }
                Handler::Home(run) => {
                    self.run_home(index, command, args, |shard| run(shard, index, args));
                }
                Handler::Gather { run, .. } => {
                    self.run_home(index, command, args, |shard| run(shard, index, args, answers));
                }
                Handler::Container => unreachable!("containers are rejected before they are queued"),
            }
            if self.clients[index as usize].is_none() {
                return;
            }
            if self.core.monitored {
                self.show_to_monitors(index, command, args);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    /// A queue takes memory as well: with none left nothing is queued, and a queue that needs some is not begun.
    #[test]
    fn without_memory_nothing_is_queued() {
        const FULL: &str = "OOM command not allowed when used memory > 'maxmemory'.";
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let (conn, other) = (world.connect(), world.connect());
            let mut run = |conn, line: &str| world.run(conn, line).to_string();
            run(other, "CONFIG SET maxmemory 1");
            assert_eq!(run(conn, "MULTI"), "OK");
            assert_eq!(run(conn, "GET a"), format!("-{FULL}"));
            assert_eq!(run(conn, "EXEC"), "-EXECABORT Transaction discarded because of previous errors.");
            run(other, "CONFIG SET maxmemory 0");
            run(conn, "MULTI");
            assert_eq!(run(conn, "SET a 1"), "QUEUED");
            run(other, "CONFIG SET maxmemory 1");
            assert_eq!(run(conn, "EXEC"), format!("-EXECABORT Transaction discarded because of: {FULL}"));
            assert_eq!(run(conn, "EXEC"), "-ERR EXEC without MULTI");
            run(other, "CONFIG SET maxmemory 0");
            run(conn, "MULTI");
            assert_eq!(run(conn, "GET a"), "QUEUED");
            run(other, "CONFIG SET maxmemory 1");
            assert_eq!(run(conn, "EXEC"), "[nil]");
        }
    }

    /// A transaction that has begun is not refused for want of memory, and nothing is evicted in its midst.
    #[test]
    fn memory_may_run_out_inside_exec() {
        for (shards, policy) in [(1, "noeviction"), (1, "allkeys-lru"), (4, "noeviction"), (4, "allkeys-lru")] {
            let mut world = World::new(shards);
            let conn = world.connect();
            world.run(conn, &format!("CONFIG SET maxmemory-policy {policy}"));
            for line in ["MULTI", "INCR x", "CONFIG SET maxmemory 1", "INCR x", "SET y 1"] {
                world.run(conn, line);
            }
            assert_eq!(world.run(conn, "EXEC").to_string(), "[1 OK 2 OK]", "{shards} {policy}");
            world.cron();
            assert_eq!(world.run(conn, "DBSIZE").to_string(), if policy == "noeviction" { "2" } else { "0" });
        }
    }

    /// Wherever its key is, a command that is refused for want of memory counts as one, and not as one that ran.
    #[test]
    fn what_is_refused_for_memory_is_counted_so() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let conn = world.connect();
            world.run(conn, "CONFIG SET maxmemory 1");
            world.host.used_memory.store(1000, std::sync::atomic::Ordering::Relaxed);
            for key in ["a", "b", "c", "d", "e", "f"] {
                assert!(world.run(conn, &format!("SET {key} v")).to_string().starts_with("-OOM "));
            }
            let info = world.run(conn, "INFO all").text();
            assert!(info.contains("errorstat_OOM:count=6\r\n"), "{info}");
            let line = info.lines().find(|line| line.starts_with("cmdstat_set:")).unwrap();
            assert!(line.starts_with("cmdstat_set:calls=0,") && line.contains("rejected_calls=6,"), "{line}");
        }
    }

    /// Time passes inside `EXEC` for those whom it wakes, though not for its own commands.
    #[test]
    fn who_waits_does_not_get_what_has_expired_while_exec_slept() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let (conn, waiting) = (world.connect(), world.connect());
            world.send(waiting, &crate::testing::request(&["BLPOP", "l", "1"]));
            for line in ["MULTI", "RPUSH l a", "PEXPIRE l 100", "DEBUG SLEEP 0.2", "LLEN l"] {
                world.run(conn, line);
            }
            assert_eq!(world.run(conn, "EXEC").to_string(), "[1 1 OK 1]");
            world.advance(200);
            world.end_turns();
            assert!(world.received(waiting).is_empty());
            world.advance(1000);
            world.end_turns();
            assert_eq!(world.received(waiting), b"*-1\r\n");
        }
    }

    /// A key whose time has passed is to those who watch it like one that is not there.
    #[test]
    fn stale_keys_are_watched_as_missing_ones() {
        for shards in [1, 4] {
            let cases: [(&[&str], &str); 9] = [
                (&["SELECT 0", "WATCH stale", "FLUSHDB"], "[PONG]"),
                (&["SELECT 0", "WATCH stale", "GET stale"], "[PONG]"),
                (&["SELECT 0", "WATCH stale", "DEL stale"], "[PONG]"),
                (&["SELECT 0", "WATCH stale", "SET stale new"], "nil*"),
                (&["SELECT 0", "WATCH stale", "FLUSHDB", "SET stale new"], "nil*"),
                (&["SELECT 0", "WATCH stale", "SWAPDB 0 1"], "[PONG]"),
                (&["SELECT 1", "WATCH stale", "SWAPDB 0 1"], "[PONG]"),
                (&["SELECT 0", "WATCH fresh", "SWAPDB 0 1"], "nil*"),
                (&["SELECT 1", "WATCH fresh", "SWAPDB 0 1"], "nil*"),
            ];
            for (lines, reply) in cases {
                let mut world = World::new(shards);
                let conn = world.connect();
                for line in ["DEBUG SET-ACTIVE-EXPIRE 0", "SET stale x PX 1", "SET fresh x"] {
                    assert_eq!(world.run(conn, line).to_string(), "OK");
                }
                world.advance(10);
                lines.iter().for_each(|line| drop(world.run(conn, line)));
                assert_eq!(world.run(conn, "MULTI").to_string(), "OK");
                assert_eq!(world.run(conn, "PING").to_string(), "QUEUED");
                assert_eq!(world.run(conn, "EXEC").to_string(), reply, "{lines:?} on {shards} shards");
            }
        }
    }
}
