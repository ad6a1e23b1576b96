//! From a parsed command to its reply: checks, then here, there, or everywhere.
//!
//! [`Shard::process_plain`] is the hot path: one key, a client in no special state. It takes no allocation, lock,
//! channel or task. Everything else goes through [`Shard::process`], whose checks come in the order of Redis's
//! `processCommand`, for the order decides which error a client sees.

use std::sync::atomic::Ordering::Relaxed;

use super::busy::Then;
use super::hops::RequestView;
use super::{LogLevel, Shard};
use crate::args::Args;
use crate::client::{ClientView, Sends, Wait, gate, order};
use crate::commands::spec::{Handler, Split};
use crate::commands::{Command, CommandError, CommandId, CommandResult, Ctx, Route, UNKNOWN, flag};
use crate::core::Core;
use crate::db::{Keyspace, Slice, evict};
use crate::message::Note;
use crate::propagate::{Said, close_groups, open_groups, target, tell};
use crate::resp::Reply;
use crate::router::{self, OwnerSet, Owners, ShardId};
use crate::shard::Effect;
use crate::slowlog::{SlowEntry, trimmed};
use crate::tracking::{self, Target};
use crate::transaction::{Job, Tx, TxId};

/// What happens to a client's input after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The next command may run.
    Done,
    /// The command is under way; the client waits.
    Wait,
    /// The client waits, and then sends the same command again.
    Again,
    /// No more of this input is run.
    Closed,
}

/// Durations of commands, with one look at the clock a command: the end of one is the start of the next.
#[derive(Clone, Copy)]
pub(crate) struct CommandClock {
    ticks: fn() -> u64,
    last: u64,
    /// What the last lap took.
    lapped: u64,
    ns_per_tick: f64,
    slow_ticks: u64,
    latency_ticks: u64,
    tracking: bool,
}

impl CommandClock {
    pub(crate) fn new(core: &Core) -> Self {
        let per_us = core.shared.host.ticks_per_us();
        let ticks = core.shared.host.ticks();
        let slower = core.config.slowlog_log_slower_than;
        let latency_ms = core.config.latency_monitor_threshold;
        CommandClock {
            ticks,
            last: ticks(),
            lapped: 0,
            ns_per_tick: 1000.0 / per_us,
            slow_ticks: if slower < 0 { u64::MAX } else { (slower as f64 * per_us) as u64 },
            latency_ticks: if latency_ms == 0 { u64::MAX } else { (latency_ms as f64 * 1000.0 * per_us) as u64 },
            tracking: core.config.latency_tracking,
        }
    }

    /// Time up to now belongs to no command.
    #[inline]
    pub(crate) fn restart(&mut self) {
        self.last = (self.ticks)();
    }

    #[inline]
    fn lap(&mut self) -> u64 {
        let now = (self.ticks)();
        let elapsed = now.saturating_sub(self.last);
        self.last = now;
        self.lapped = elapsed;
        elapsed
    }

    /// What the command took that was just counted.
    pub(crate) fn lapped(&self) -> u64 {
        self.lapped
    }

    /// The time on the host's counter.
    pub(crate) fn now(&self) -> u64 {
        (self.ticks)()
    }

    /// Time since then, which goes on belonging to the command.
    pub(crate) fn elapsed(&self) -> u64 {
        (self.ticks)().saturating_sub(self.last)
    }

    /// Ticks in µs.
    pub(crate) fn us(&self, ticks: u64) -> u64 {
        (ticks as f64 * self.ns_per_tick / 1000.0) as u64
    }
}

/// Runs a data command on slices in hand, and writes its reply, or its error's, at the end of `out`.
#[inline]
pub(crate) fn execute(
    core: &mut Core,
    keys: Keyspace<'_>,
    client: ClientView,
    id: CommandId,
    args: Args<'_>,
    out: &mut Vec<u8>,
) {
    let Handler::Data(run) = core.table.row(id).handler else { unreachable!("only data commands run on slices") };
    execute_with(core, keys, client, id, args, out, run);
}

/// As [`execute`], for what `run` does on behalf of a command.
#[inline]
pub(crate) fn execute_with(
    core: &mut Core,
    keys: Keyspace<'_>,
    client: ClientView,
    id: CommandId,
    args: Args<'_>,
    out: &mut Vec<u8>,
    run: impl FnOnce(&mut Ctx<'_>, Args<'_>) -> CommandResult,
) {
    let start = out.len();
    core.no_touch = client.no_touch;
    core.keeps_expired = core.writes_paused && !core.table.row(id).has(flag::WRITE);
    let mut ctx = Ctx { core, keys, reply: Reply::new(out, client.resp), client, dirty: 0 };
    let result = run(&mut ctx, args);
    if ctx.dirty != 0 {
        ctx.keys.count_changes(ctx.dirty);
    }
    if ctx.core.effects.on {
        propagate(&mut ctx, id, args);
    }
    if ctx.core.tracked {
        let row = ctx.core.table.row(id);
        track(&mut ctx, row, args);
    }
    if let Err(error) = result {
        fail(core, id, &error, client.resp, out, start);
    }
}

/// Tells who tracks what a command wrote, and notes what it read.
#[cold]
fn track(ctx: &mut Ctx<'_>, row: &'static Command, args: Args<'_>) {
    let ClientView { home, index, id, notes_reads, .. } = ctx.client;
    tracking::settle_all(ctx.core, &mut ctx.keys, id);
    if notes_reads {
        tracking::remember(ctx.core, &mut ctx.keys, Target { home, index, id }, row, args);
    }
}

/// Hands what a command did to the slices it did it on.
fn propagate(ctx: &mut Ctx<'_>, id: CommandId, args: Args<'_>) {
    let wanted = ctx.core.effects.targets;
    let replaced = std::mem::take(&mut ctx.core.effects.replaced);
    let repeated = if ctx.dirty > 0 { wanted & !replaced } else { 0 };
    let silent = ctx.core.effects.said.is_empty();
    if silent && repeated == 0 {
        return;
    }
    if silent && let Some(slice) = ctx.keys.lone() {
        // By far the most common: a write on one slice, in its own words.
        if slice.log.on && repeated & target::LOG != 0 {
            slice.log.stamp(ctx.core);
            slice.log.append(ctx.client.db, args.iter_from(0));
        }
        if slice.stream.on && repeated & target::STREAM != 0 {
            slice.stream.append(ctx.client.db, args.iter_from(0));
        }
        return;
    }
    let mut said = std::mem::take(&mut ctx.core.effects.said);
    // What `SCAN` has met and found expired has nothing to do with each other.
    let apart = ctx.core.table.row(id).has(flag::TOUCHES_ARBITRARY_KEYS);
    let opened = !apart && open_groups(ctx.core, &mut ctx.keys);
    for Said { db, words, targets } in said.drain(..) {
        tell(ctx.core, &mut ctx.keys, targets & wanted, db, words.args());
    }
    ctx.core.effects.said = said;
    tell(ctx.core, &mut ctx.keys, repeated, ctx.client.db, args);
    if opened {
        close_groups(ctx.core, &mut ctx.keys);
    }
}

#[cold]
fn fail(core: &mut Core, id: CommandId, error: &CommandError, resp: u8, out: &mut Vec<u8>, start: usize) {
    if *error == CommandError::NoReply {
        return;
    }
    out.truncate(start);
    let text = error.text();
    Reply::new(out, resp).error(&text);
    if !matches!(error, CommandError::Counted(_)) {
        core.stats.count_error(&text);
    }
    core.stats.commands[id as usize].failed += 1;
}

impl Shard {
    /// A command with one key, of a client in no special state, when nothing on this shard asks for more checks.
    #[inline]
    pub(crate) fn process_plain(&mut self, index: u32, id: CommandId, args: Args<'_>, owner: ShardId) -> Next {
        let row = self.core.table.row(id);
        if !row.accepts(args.len()) || !matches!(row.handler, Handler::Data(_)) {
            return self.process(index, id, args);
        }
        self.run_on_owner(index, id, args, owner)
    }

    /// Runs a command on the slice of `owner`: here if that is this shard, else there.
    #[inline]
    fn run_on_owner(&mut self, index: u32, id: CommandId, args: Args<'_>, owner: ShardId) -> Next {
        if owner == self.core.id && self.may_run_here(index, id, args) {
            self.run_here(index, id, args);
        } else {
            self.send_request(index, id, args, owner);
        }
        Next::Done
    }

    /// Whether a client of this shard may run a command on its slice now. Beyond the first line only when keys are
    /// held or requests wait.
    #[inline]
    pub(crate) fn may_run_here(&mut self, index: u32, id: CommandId, args: Args<'_>) -> bool {
        let client = self.clients[index as usize].as_deref().expect("the caller holds a live client's index");
        let queued = client.gate & gate::QUEUED_HERE != 0;
        if self.open && !queued {
            return true;
        }
        let view = client.view(self.core.id);
        let request = RequestView { client: view, sequence: 0, command: id, args };
        !queued && self.may_run(&request)
    }

    /// Runs a data command on this shard's own slice.
    #[inline]
    pub(crate) fn run_here(&mut self, index: u32, id: CommandId, args: Args<'_>) {
        let home = self.core.id;
        let client = self.clients[index as usize].as_deref_mut().expect("the caller holds a live client's index");
        let view = client.view(home);
        client.commands += 1;
        client.last_command = id;
        let keys = Keyspace::one(&mut self.slices, home);
        match client.order.as_deref_mut().filter(|order| !order.is_empty()) {
            None => {
                if client.out.capacity() == 0 {
                    client.out = self.spare_buffers.take();
                }
                let length = client.out.len();
                execute(&mut self.core, keys, view, id, args, &mut client.out);
                client.mute(length);
            }
            Some(order) => {
                let (out, start) = order.open_ready();
                execute(&mut self.core, keys, view, id, args, out);
                if client.gate & gate::MUTED != 0 {
                    out.truncate(start);
                }
                order.close_ready(start);
            }
        }
        if client.sends != Sends::Now {
            client.sends = Sends::Now;
            self.flush.push(index);
        }
        self.account(id, args, view);
        self.post();
        self.serve_ready();
    }

    /// Counts a command that has run, and how long it took.
    #[inline]
    pub(crate) fn account(&mut self, id: CommandId, args: Args<'_>, client: ClientView) {
        let ticks = self.clock.lap();
        self.account_ticks(id, args, client, ticks);
    }

    /// As [`Shard::account`], for a command that took this long.
    #[inline]
    pub(crate) fn account_ticks(&mut self, id: CommandId, args: Args<'_>, client: ClientView, ticks: u64) {
        self.core.stats.commands_processed += 1;
        let stats = &mut self.core.stats.commands[id as usize];
        stats.calls += 1;
        stats.ticks += ticks;
        if self.clock.tracking {
            stats.latency.get_or_insert_default().record((ticks as f64 * self.clock.ns_per_tick) as u64);
        }
        // One that has to wait is reported when it has been served.
        if ticks >= self.clock.slow_ticks.min(self.clock.latency_ticks) && self.core.block_request.is_none() {
            self.note_slow(id, args, client, ticks);
        }
    }

    #[cold]
    fn note_slow(&mut self, id: CommandId, args: Args<'_>, client: ClientView, ticks: u64) {
        let row = self.core.table.row(id);
        let duration_us = self.clock.us(ticks);
        let now = self.core.now_ms / 1000;
        let event = if row.has(flag::FAST) { "fast-command" } else { "command" };
        self.core.note_latency(event, duration_us);
        if ticks < self.clock.slow_ticks || row.has(flag::SKIP_SLOWLOG) || self.core.config.slowlog_max_len == 0 {
            return;
        }
        let entry = SlowEntry {
            id: 0,
            time: now,
            duration_us,
            args: trimmed(self.core.table, args),
            client: (client.index, client.id),
            address: String::new(),
            name: Vec::new(),
        };
        match client.home == self.core.id {
            true => self.log_slow(entry),
            false => self.outbox.note(client.home, Note::Slow(Box::new(entry))),
        }
    }

    /// Adds a slow command of one of this shard's clients to the log.
    pub(crate) fn log_slow(&mut self, mut entry: SlowEntry) {
        let (index, id) = entry.client;
        if let Some(client) = self.client_by_id(index, id) {
            entry.address = client.peer.address.clone();
            entry.name = client.name.clone();
        }
        let max = self.core.config.slowlog_max_len as usize;
        self.core.shared.slowlog.lock().expect("no holder panics").push(entry, max);
    }

    /// Any command of any client: every check, then dispatch.
    pub(crate) fn process(&mut self, index: u32, id: CommandId, args: Args<'_>) -> Next {
        let Some(client) = self.clients[index as usize].as_deref_mut() else { return Next::Closed };
        if client.gate & gate::CLOSING != 0 {
            return Next::Closed;
        }
        if client.gate & gate::WAITING != 0 {
            return Next::Again;
        }
        let tracks = client.gate & gate::TRACKING != 0;
        let next = match client.gate & gate::REPLY != 0 {
            true => self.process_quietly(index, id, args),
            false => self.check(index, id, args),
        };
        if tracks && next != Next::Again {
            self.end_caching(index, id, next);
        }
        next
    }

    /// `CLIENT CACHING` holds for one command, or for what `MULTI` begins.
    fn end_caching(&mut self, index: u32, id: CommandId, next: Next) {
        let name = if id == UNKNOWN { "" } else { self.core.table.row(id).name };
        if name.starts_with("client") || (name == "exec" && next == Next::Wait) {
            return;
        }
        if let Some(client) = self.clients[index as usize].as_deref_mut()
            && client.gate & gate::MULTI == 0
        {
            client.set_caching(false);
        }
    }

    /// What a replica says behind its `SYNC`: `REPLCONF ACK`, which is not answered. A reply would be taken for a part of
    /// the stream.
    #[cold]
    fn check_replica(&mut self, index: u32, id: CommandId, args: Args<'_>) -> Next {
        let name = if id == UNKNOWN { "<unknown>" } else { self.core.table.row(id).name };
        match name {
            "replconf" if args.len() > 2 && (args.is(1, "ack") || args.is(1, "getack")) => {
                self.dispatch(index, id, args)
            }
            "sync" | "psync" => Next::Done,
            _ => {
                let (table, now) = (self.core.table, self.core.now_ms);
                let client = self.client(index);
                let user = client.user;
                let user = self.core.user_name(user).to_vec();
                let info = crate::commands::connection::client_info(self.client(index), &user, None, table, now).line;
                let line = format!("Replica generated a reply to command '{name}', disconnecting it: {info}");
                self.log(super::LogLevel::Warning, line);
                self.close_now(index);
                Next::Closed
            }
        }
    }

    fn check(&mut self, index: u32, id: CommandId, args: Args<'_>) -> Next {
        if self.client(index).gate & gate::REPLICA != 0 {
            return self.check_replica(index, id, args);
        }
        if id == UNKNOWN {
            return self.reject(index, id, unknown_command(args));
        }
        let row = self.core.table.row(id);
        if matches!(row.handler, Handler::Container) {
            let text = match args.get(1) {
                None => format!("ERR wrong number of arguments for '{}' command", row.name),
                Some(sub) => {
                    format!("ERR unknown subcommand '{}'. Try {} HELP.", cut(sub, 128), row.name.to_uppercase())
                }
            };
            return self.reject(index, id, text);
        }
        if !row.accepts(args.len()) {
            return self.reject(index, id, CommandError::Arity(row.name).text().into_owned());
        }
        let client = self.client(index);
        if client.gate & gate::NEEDS_AUTH != 0 && !row.has(flag::NO_AUTH) {
            return self.reject(index, id, "NOAUTH Authentication required.".into());
        }
        if row.has(flag::PROTECTED) && !self.protected_allowed(index, row.name) {
            let (what, directive) = match row.name.starts_with("debug") {
                true => ("DEBUG", "enable-debug-command"),
                false => ("MODULE", "enable-module-command"),
            };
            return self.reject(
                index,
                id,
                format!(
                    "ERR {what} command not allowed. If the {directive} option is set to \"local\", you can run it \
                     from a local connection, otherwise you need to set this option in the configuration file, and \
                     then restart the server."
                ),
            );
        }
        if self.client(index).gate & gate::RESTRICTED != 0
            && let Some(text) = self.refused_by_acl(index, id, args)
        {
            return self.reject(index, id, text);
        }
        let client = self.client(index);
        if client.gate & gate::SUBSCRIBED != 0 && client.resp == 2 && !allowed_when_subscribed(row.name) {
            let text = format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in \
                 this context",
                row.name
            );
            return self.reject(index, id, text);
        }
        if self.guarded
            && let Some(text) = self.refused_by_script(index, row, args)
        {
            if self.client(index).awaits_replies() {
                // The script may be its own: what stands behind it in its pipeline waits for it.
                self.wait_for(index, Wait::Replies);
                return Next::Again;
            }
            return self.reject(index, id, text.into());
        }
        if self.guarded
            && let Some(text) = self.refused_by_persistence(index, row)
        {
            return self.reject(index, id, text.into_owned());
        }
        if self.guarded && self.core.shared.replication.too_few(&self.core.config) && self.is_write(index, row) {
            return self.reject(index, id, NO_REPLICAS.into());
        }
        if self.client(index).gate & gate::MONITOR != 0
            && row.flags & (flag::WRITE | flag::READONLY | flag::MAY_REPLICATE) != 0
        {
            return self.reject(index, id, "ERR Replica can't interact with the keyspace".into());
        }
        if self.client_memory_limit != 0 {
            self.evict_clients_first(index);
            if self.clients[index as usize].is_none() {
                return Next::Closed;
            }
        }
        if self.guarded && self.is_paused(index, row, args) {
            self.wait_for(index, Wait::Pause);
            return Next::Again;
        }
        if self.client(index).gate & gate::TRACKING != 0 && self.waits_for_room(index) {
            return Next::Again;
        }
        if self.client(index).gate & gate::MULTI != 0 {
            if let Some(text) = self.multi_out_of_memory(index, row.name) {
                return self.reject(index, id, text);
            }
            if !super::multi::runs_inside_multi(row.name) {
                return self.enqueue(index, id, args);
            }
        }
        if self.core.monitored {
            return self.dispatch_and_show(index, id, args);
        }
        self.dispatch(index, id, args)
    }

    /// Runs a command, then shows it to monitors: not one that is refused for want of memory, which is therefore asked
    /// for here even where its keys are elsewhere.
    #[cold]
    fn dispatch_and_show(&mut self, index: u32, id: CommandId, args: Args<'_>) -> Next {
        if let Some(text) = self.out_of_memory(id, args) {
            return self.reject(index, id, text);
        }
        let next = self.dispatch(index, id, args);
        // EXEC is shown behind what it runs.
        if next != Next::Again && self.core.table.row(id).name != "exec" {
            self.show_to_monitors(index, id, args);
        }
        next
    }

    /// A command of a client that has used `CLIENT REPLY OFF` or `SKIP`.
    #[cold]
    fn process_quietly(&mut self, index: u32, id: CommandId, args: Args<'_>) -> Next {
        let client = self.client(index);
        // The skipped command, if there was one, has ended.
        client.gate &= !gate::REPLY_SKIP;
        let skip = client.gate & gate::REPLY_SKIP_NEXT != 0;
        if skip {
            client.gate = client.gate & !gate::REPLY_SKIP_NEXT | gate::REPLY_SKIP;
        }
        let next = self.check(index, id, args);
        if let Some(client) = self.clients[index as usize].as_deref_mut().filter(|_| skip) {
            if next == Next::Again {
                client.gate |= gate::REPLY_SKIP_NEXT;
            }
            // One that is under way is skipped when it ends.
            if next != Next::Wait {
                client.gate &= !gate::REPLY_SKIP;
            }
        }
        next
    }

    fn protected_allowed(&mut self, index: u32, name: &str) -> bool {
        let setting = match name.starts_with("debug") {
            true => self.core.config.enable_debug_command,
            false => self.core.config.enable_module_command,
        };
        let local = self.client(index).peer.local;
        setting.allows(local)
    }

    fn dispatch(&mut self, index: u32, id: CommandId, args: Args<'_>) -> Next {
        let row = self.core.table.row(id);
        match row.handler {
            Handler::Home(run) => {
                if self.client(index).awaits_replies() {
                    self.wait_for(index, Wait::Replies);
                    return Next::Again;
                }
                if row.has(flag::DENYOOM) {
                    if let Some(text) = self.out_of_memory(id, args) {
                        return self.reject(index, id, text);
                    }
                }
                self.run_home(index, id, args, |shard| run(shard, index, args))
            }
            Handler::Gather { question, run } => {
                if self.client(index).awaits_replies() {
                    self.wait_for(index, Wait::Replies);
                    return Next::Again;
                }
                let client = self.client(index);
                // It may be asked to describe itself.
                client.last_command = id;
                let client = client.id;
                let question = question(args).map(|mut question| {
                    question.sign(client, args);
                    question
                });
                match question {
                    None => self.run_home(index, id, args, |shard| run(shard, index, args, Vec::new())),
                    Some(question) if self.core.shards == 1 => {
                        let answer = self.answer(question);
                        self.run_home(index, id, args, |shard| run(shard, index, args, vec![answer]))
                    }
                    Some(question) => {
                        self.client(index).parked = Some(Box::new((id, args.to_owned())));
                        self.ask_all(index, vec![question]);
                        Next::Wait
                    }
                }
            }
            Handler::Container => unreachable!("containers are rejected before"),
            Handler::Data(_) => {
                if let Some(kind) = row.split
                    && self.core.shards > 1
                    && splits_well(kind, args)
                    && args.places().iter().any(|place| place.owner() != args.places()[0].owner())
                    && !self.client(index).script_sent
                {
                    return self.start_split(index, id, args, kind, |_| {});
                }
                if row.name == "watch" {
                    if let Err(text) = self.note_watches(index, args) {
                        // The command runs and fails: what is queued is not spoilt by that.
                        self.core.stats.count_error(&text);
                        self.core.stats.commands[id as usize].failed += 1;
                        self.reply_in_order(index, |reply| reply.error(&text));
                        return Next::Done;
                    }
                }
                let owners = router::owners(row, args, self.core.shards);
                if row.has(flag::SCRIPT) {
                    return self.start_script(index, id, args);
                }
                if row.name == "migrate" {
                    return self.start_migration(index, id, args);
                }
                if row.has(flag::BLOCKING) {
                    if self.client(index).awaits_replies() {
                        self.wait_for(index, Wait::Replies);
                        return Next::Again;
                    }
                    return self.start_blocking(index, id, args, owners);
                }
                let strict = self.core.config.pipeline_order == crate::config::PipelineOrder::Strict;
                match owners {
                    Owners::One(owner) => {
                        if strict && self.client(index).awaits_replies() {
                            let awaited = self.client(index).order.as_ref().map_or(0, |order| order.owners());
                            if awaited != order::bit(owner) || owner as usize >= order::BITS {
                                self.wait_for(index, Wait::Replies);
                                return Next::Again;
                            }
                        }
                        if self.core.config.maxmemory != 0 && owner == self.core.id {
                            if let Some(text) = self.out_of_memory(id, args) {
                                return self.reject(index, id, text);
                            }
                        }
                        self.run_on_owner(index, id, args, owner)
                    }
                    Owners::Several(_) if self.client(index).script_sent && self.client(index).awaits_replies() => {
                        self.wait_for(index, Wait::Replies);
                        Next::Again
                    }
                    Owners::Several(_) if row.split.is_some_and(|kind| splits_well(kind, args)) => {
                        self.client(index).script_sent = false;
                        self.start_split(index, id, args, row.split.expect("just seen"), |_| {})
                    }
                    Owners::None | Owners::Several(_) => {
                        if self.client(index).awaits_replies() {
                            self.wait_for(index, Wait::Replies);
                            return Next::Again;
                        }
                        let Owners::Several(owners) = owners else {
                            return self.run_on_owner(index, id, args, self.core.id);
                        };
                        self.start_tx(index, Job::Command(id, args.to_owned()), &owners);
                        Next::Wait
                    }
                }
            }
        }
    }

    /// Runs a command over the connection, and writes its error if it fails.
    pub(crate) fn run_home(
        &mut self,
        index: u32,
        id: CommandId,
        args: Args<'_>,
        run: impl FnOnce(&mut Shard) -> crate::commands::CommandResult,
    ) -> Next {
        let view = self.view(index);
        let client = self.clients[index as usize].as_deref_mut().expect("the caller holds a live client's index");
        client.commands += 1;
        client.last_command = id;
        if client.out.capacity() == 0 {
            client.out = self.spare_buffers.take();
        }
        let length = client.out.len();
        let result = run(self);
        self.account(id, args, view);
        // Confirmations of subscriptions are messages, which are not kept back; EXEC keeps back what it runs itself.
        let name = self.core.table.row(id).name;
        let mutes = !name.ends_with("subscribe") && (name != "exec" || result.is_err());
        if let Err(error) = result {
            if error != CommandError::NoReply {
                let text = error.text();
                self.core.stats.count_error(&text);
                self.core.stats.commands[id as usize].failed += 1;
                if self.clients[index as usize].is_some() {
                    self.client(index).reply().error(&text);
                }
            }
        }
        if let Some(client) = self.clients[index as usize].as_deref_mut() {
            if mutes {
                client.mute(length);
            }
        }
        self.queue_flush(index);
        self.post();
        match self.clients[index as usize].as_deref() {
            None => Next::Closed,
            Some(client) if client.gate & gate::CLOSING != 0 => Next::Closed,
            Some(client) if client.gate & gate::WAITING != 0 => Next::Wait,
            Some(_) => Next::Done,
        }
    }

    /// Answers with an error before the command has run.
    pub(crate) fn reject(&mut self, index: u32, id: CommandId, text: String) -> Next {
        if id != UNKNOWN {
            self.core.stats.commands[id as usize].rejected += 1;
        }
        self.core.stats.count_error(&text);
        let client = self.client(index);
        if client.gate & gate::MULTI != 0 {
            client.gate |= gate::DIRTY_EXEC;
        }
        if id != UNKNOWN && self.core.table.row(id).name == "exec" {
            // An EXEC that is refused ends the transaction all the same, and says so even without one.
            let reason = text.strip_prefix("ERR ").unwrap_or(&text);
            let text = format!("EXECABORT Transaction discarded because of: {reason}");
            self.end_multi(index);
            self.reply_in_order(index, |reply| reply.error(&text));
            return Next::Done;
        }
        self.reply_in_order(index, |reply| reply.error(&text));
        Next::Done
    }

    /// Starts a transaction over the slices of `owners`; the client waits for its end.
    pub(crate) fn start_tx(&mut self, index: u32, job: Job, owners: &[ShardId]) {
        self.wait_for(index, Wait::Tx);
        self.begin_tx(index, job, owners);
    }

    /// Asks for the slices of `owners`, to run `job` on behalf of a client.
    pub(crate) fn begin_tx(&mut self, index: u32, job: Job, owners: &[ShardId]) {
        let client = self.view(index);
        self.begin_tx_for(client, job, owners);
    }

    /// As [`Shard::begin_tx`], for a client that may have gone.
    pub(crate) fn begin_tx_for(&mut self, client: ClientView, job: Job, owners: &[ShardId]) {
        let number = self.next_number();
        self.core.stats.transactions += 1;
        let tx = TxId { coordinator: self.core.id, number };
        self.txs.insert(number, Tx { client, job, missing: owners.len(), have: Vec::with_capacity(owners.len()) });
        self.outbox.acquire(tx, owners);
    }

    /// Runs the job of a transaction whose slices are all here, in their places. True when the client may go on.
    pub(crate) fn run_job(&mut self, client: ClientView, job: Job) -> bool {
        self.clock.restart();
        match job {
            Job::Command(id, owned) => {
                let mut out = match self.client_by_id(client.index, client.id) {
                    Some(client) => std::mem::take(&mut client.out),
                    // Its client is gone, but it was sent: it runs, as in Redis.
                    None => Vec::new(),
                };
                let length = out.len();
                let refused = self
                    .refused_again(client, id, owned.args())
                    .or_else(|| self.out_of_memory(id, owned.args()).inspect(|text| self.core.stats.count_error(text)));
                match refused {
                    Some(text) => Reply::new(&mut out, client.resp).error(&text),
                    None => {
                        self.begin_session(client, id);
                        let keys = Keyspace::several(&mut self.slices);
                        execute(&mut self.core, keys, client, id, owned.args(), &mut out);
                        self.account(id, owned.args(), client);
                    }
                }
                if self.core.paused.is_some() && self.busy.is_none() {
                    if let Some(client) = self.client_by_id(client.index, client.id) {
                        client.out = out;
                    }
                    self.uncount(id);
                    self.put_script_aside(client, id, owned, Then::Wake);
                    self.send_session();
                    return false;
                }
                out.splice(length..length, self.end_session());
                if std::mem::take(&mut self.core.run_script_again) {
                    // A script with keys on several shards has met one of yet another: it begins anew with all.
                    if let Some(client) = self.client_by_id(client.index, client.id) {
                        client.out = out;
                    }
                    let all: Vec<ShardId> = (0..self.core.shards as ShardId).collect();
                    self.begin_tx_for(client, Job::Command(id, owned), &all);
                    return false;
                }
                match self.client_by_id(client.index, client.id) {
                    Some(client) => {
                        client.out = out;
                        client.mute(length);
                        client.commands += 1;
                        client.last_command = id;
                    }
                    // It ended its watches as it went, before this one began.
                    None => self.forget_watches(client, id, owned.args()),
                }
                if let Some(request) = self.core.block_request.take() {
                    self.uncount(id);
                    return !self.register_spanning(client, id, owned.args(), *request);
                }
            }
            Job::Exec => {
                if self.client_by_id(client.index, client.id).is_some() {
                    self.exec_queue(client.index);
                }
            }
            Job::Snapshot => {
                let slices = self.slices.iter_mut().filter_map(|slice| slice.as_deref_mut());
                // Another one that began meanwhile does as well.
                let _ = crate::snapshot::begin(&mut self.core, slices);
                return false;
            }
            Job::Rewrite => {
                self.begin_rewrite();
                return false;
            }
            Job::StopLog => {
                self.stop_log();
                return false;
            }
            Job::Follow | Job::Unfollow => {
                self.follow(matches!(job, Job::Follow));
                return false;
            }
            Job::Sync => {
                self.cut_for_replicas();
                return false;
            }
            Job::Shutdown(how) => return self.save_and_shut_down(client, how),
            Job::Load(batch) => {
                self.load_with_all(*batch);
                return false;
            }
            Job::Script(sequence, from, id, owned) => {
                self.run_script_with_all(client, sequence, from, id, owned.args());
                return false;
            }
            Job::Again(sequence, id, owned) => {
                self.run_again(client, sequence, id, owned.args());
                return false;
            }
        }
        true
    }

    /// Evicts as needed before a command runs; an error's text if there is no memory for it.
    pub(crate) fn out_of_memory(&mut self, id: CommandId, args: Args<'_>) -> Option<String> {
        let _ = args;
        self.core.memory_full = false;
        let full = self.is_full();
        let row = self.core.table.row(id);
        // A script sees for itself which commands it may still call.
        self.core.memory_full = full && (row.has(flag::DENYOOM) || row.has(flag::SCRIPT));
        (full && row.has(flag::DENYOOM)).then(|| OUT_OF_MEMORY.into())
    }

    /// Tells how much of what lies ready in spare parcels can go before keys do.
    #[inline]
    pub(crate) fn publish_spares(&self) {
        self.core.shared.spare_parcels[self.core.id as usize].0.store(self.outbox.bytes_to_spare(), Relaxed);
    }

    /// Parcels that only lie ready go before keys do, if memory is short.
    #[inline]
    pub(crate) fn drop_spare_parcels(&mut self) {
        if self.outbox.has_large_spares() && self.core.memory_is_over() {
            self.outbox.drop_large_spares();
            self.publish_spares();
        }
    }

    /// Whether memory is full, and eviction does not help; evicts as needed.
    #[inline(always)]
    pub(crate) fn is_full(&mut self) -> bool {
        self.core.config.maxmemory != 0 && self.stays_full()
    }

    fn stays_full(&mut self) -> bool {
        self.drop_spare_parcels();
        if self.clients_go_first() {
            return false;
        }
        let mut keys = Keyspace::several(&mut self.slices);
        let outcome = evict::perform(&mut self.core, &mut keys, &mut self.spare_buffers, usize::MAX);
        if self.core.tracked {
            // Before the reply of the command that the memory is for, as in Redis.
            tracking::settle_all(&mut self.core, &mut keys, 0);
            self.post();
        }
        let evicts = self.core.config.maxmemory_policy != crate::config::MaxmemoryPolicy::Noeviction;
        self.evicts_in_vain |= evicts && outcome != evict::Outcome::Within;
        outcome == evict::Outcome::Full && !(evicts && self.others_can_evict())
    }

    /// Before a command of a client that tracks keys: it learns what is evicted for the command before the reply, as in
    /// Redis, also where the keys are other shards'. If this one cannot free enough they are asked to, and the command
    /// begins anew when they have.
    fn waits_for_room(&mut self, index: u32) -> bool {
        let made = std::mem::take(&mut self.client(index).room_made);
        if made || self.core.shards == 1 || !self.core.memory_is_over() {
            return false;
        }
        self.is_full();
        let evicts = self.core.config.maxmemory_policy != crate::config::MaxmemoryPolicy::Noeviction;
        if !evicts || !self.core.memory_is_over() || !self.others_can_evict() {
            return false;
        }
        self.client(index).room_made = true;
        let limit = self.core.config.maxmemory as usize;
        let excess = self.core.shared.counted_memory().saturating_sub(limit);
        self.ask_all(index, vec![crate::message::Question::HeedConfig(excess)]);
        self.client(index).wait = Wait::Room;
        true
    }

    /// What a client inside `MULTI` is told when memory is full: nothing more is queued, for the queue takes memory too,
    /// and what would need some is not begun.
    fn multi_out_of_memory(&mut self, index: u32, name: &str) -> Option<String> {
        let table = self.core.table;
        let refused = match name {
            "exec" => self
                .client(index)
                .multi
                .iter()
                .flat_map(|multi| &multi.queue)
                .any(|queued| table.row(queued.command).has(flag::DENYOOM)),
            name => !super::multi::runs_inside_multi(name),
        };
        (refused && self.is_full()).then(|| OUT_OF_MEMORY.into())
    }

    /// Whether other shards hold keys that their own time events will evict.
    fn others_can_evict(&self) -> bool {
        use std::sync::atomic::Ordering::Relaxed;
        let own = self.core.id as usize;
        self.core.shared.keys.iter().enumerate().any(|(i, keys)| i != own && keys.0.load(Relaxed) > 0)
    }

    /// Whether `CLIENT PAUSE` holds back a command.
    fn is_paused(&mut self, index: u32, row: &'static Command, args: Args<'_>) -> bool {
        use std::sync::atomic::Ordering::Relaxed;
        let now = self.core.now_ms as u64;
        let pause = &self.core.shared.pause;
        if pause.all_until.load(Relaxed) > now {
            return true;
        }
        if pause.write_until.load(Relaxed) <= now {
            return false;
        }
        if row.name != "exec" {
            return self.may_write(row, args);
        }
        let Some(multi) = self.client(index).multi.take() else { return false };
        let table = self.core.table;
        let writes = multi.queue.iter().any(|queued| self.may_write(table.row(queued.command), queued.args.args()));
        self.client(index).multi = Some(multi);
        writes
    }

    /// Whether a command, or what is queued for `EXEC`, writes.
    pub(crate) fn is_write(&mut self, index: u32, row: &'static Command) -> bool {
        let table = self.core.table;
        let writes = |id: CommandId| table.row(id).has(flag::WRITE);
        let multi = &self.client(index).multi;
        let mut queue = multi.iter().flat_map(|multi| &multi.queue);
        row.has(flag::WRITE) || row.name == "exec" && queue.any(|queued| writes(queued.command))
    }

    /// Whether a command writes, or does what replicas would be told of; a script that does not says so.
    fn may_write(&mut self, row: &'static Command, args: Args<'_>) -> bool {
        match row.has(flag::SCRIPT) {
            true => crate::scripting::may_write(&mut self.core, row.name, args),
            false => row.flags & (flag::WRITE | flag::MAY_REPLICATE) != 0,
        }
    }

    /// Writes a line to the log.
    pub(crate) fn log(&mut self, level: LogLevel, text: impl Into<String>) {
        self.effects.push(Effect::Log(level, text.into()));
    }

    /// The owners of the queue of `MULTI` and of the watched keys.
    pub(crate) fn exec_owners(&mut self, index: u32) -> Owners {
        let shards = self.core.shards;
        let table = self.core.table;
        let client = self.client(index);
        let mut set = OwnerSet::default();
        for queued in client.multi.iter().flat_map(|multi| &multi.queue) {
            let row = table.row(queued.command);
            if row.has(flag::SCRIPT) {
                // It could not be begun anew in the midst of the queue.
                (0..shards as ShardId).for_each(|owner| set.add(owner));
            } else if row.route != Route::Home {
                set.add_all(&router::owners(row, queued.args.args(), shards));
            }
        }
        for watched in &client.watched {
            set.add(router::owner_of(&watched.key, shards));
        }
        set.finish()
    }

    /// Moves a slice in or out of its place.
    pub(crate) fn place(&mut self, owner: ShardId, slice: Option<Box<Slice>>) -> Option<Box<Slice>> {
        std::mem::replace(&mut self.slices[owner as usize], slice)
    }
}

/// Redis's `noreplicaserr`.
pub(crate) const NO_REPLICAS: &str = "NOREPLICAS Not enough good replicas to write.";

const OUT_OF_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";

/// Whether a split command's arguments are whole; else it says what is wrong with them in one piece.
fn splits_well(kind: Split, args: Args<'_>) -> bool {
    !matches!(kind, Split::Done | Split::IfNone) || !args.len().is_multiple_of(2)
}

/// What clients that speak RESP2 may say while they are subscribed: their other replies could not be told from messages.
fn allowed_when_subscribed(name: &str) -> bool {
    matches!(
        name,
        "ping"
            | "subscribe"
            | "ssubscribe"
            | "psubscribe"
            | "unsubscribe"
            | "sunsubscribe"
            | "punsubscribe"
            | "quit"
            | "reset"
    )
}

fn cut(arg: &[u8], max: usize) -> String {
    String::from_utf8_lossy(&arg[..arg.len().min(max)]).into_owned()
}

fn unknown_command(args: Args<'_>) -> String {
    let mut text = format!("ERR unknown command '{}', with args beginning with: ", cut(args.at(0), 128));
    let mut shown = 0;
    for arg in args.iter_from(1) {
        if shown >= 128 {
            break;
        }
        let part = cut(arg, 128 - shown);
        shown += part.len() + "'' ".len();
        text.push_str(&format!("'{part}' "));
    }
    text
}
