//! One run of a script: the commands it calls, and the checks that stand before each of them.

use std::sync::atomic::Ordering::Relaxed;

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::store::{Slow, SlowSlot};
use crate::args::Args;
use crate::client::ClientView;
use crate::commands::spec::Handler;
use crate::commands::{Route, UNKNOWN, flag};
use crate::core::Core;
use crate::db::Keyspace;
use crate::resp::Reply;
use crate::router::{self, OwnerSet, Owners};
use crate::shard::dispatch::execute;

const KILLED: &str = "ERR Script killed by user with SCRIPT KILL...";
/// Redis would do it in a copy of the whole process.
const CANNOT_BE_UNDONE: &str = "ERR What this command does could not be taken back when the session ends; SCRIPT DEBUG \
                                SYNC allows it";
const ABANDONED: &str = "ERR The script is run again with all keys";

/// The shard's core, as long as the run is at work; it has none while it is put aside.
pub(super) struct Hand(NonNull<Core>);

impl Hand {
    /// # Safety
    /// The core outlives the hand's use, and nothing else uses it meanwhile.
    pub(super) unsafe fn of(core: &mut Core) -> Self {
        Hand(NonNull::from(core))
    }

    pub(super) fn empty() -> Self {
        Hand(NonNull::dangling())
    }
}

impl Run<'static> {
    /// Gives a run that was put aside something to work on.
    ///
    /// # Safety
    /// Both outlive its work, which ends with [`Run::put_aside`] or with the run, and nothing else uses them meanwhile.
    pub(super) unsafe fn take_up(&mut self, core: &mut Core, keys: &mut Keyspace<'_>) {
        // SAFETY: the caller's word.
        unsafe {
            self.core = Hand::of(core);
            self.keys = std::mem::transmute::<Keyspace<'_>, Keyspace<'static>>(keys.again());
        }
    }
}

impl Deref for Hand {
    type Target = Core;

    fn deref(&self) -> &Core {
        // SAFETY: whoever lets the run work has put a core there, see `Hand::of`.
        unsafe { self.0.as_ref() }
    }
}

impl DerefMut for Hand {
    fn deref_mut(&mut self) -> &mut Core {
        // SAFETY: as above.
        unsafe { self.0.as_mut() }
    }
}

/// See the module's page.
pub(super) struct Run<'a> {
    pub(super) core: Hand,
    pub(super) keys: Keyspace<'a>,
    /// The client on whose behalf it runs, with the database and the protocol that the script has chosen.
    pub(super) client: ClientView,
    /// Its sum or the function's name, and the command that started it; told once, when it is slow.
    pub(super) identity: Option<(&'a str, Args<'a>)>,
    /// It is a script, not a function.
    pub(super) eval: bool,
    pub(super) read_only: bool,
    pub(super) allow_oom: bool,
    /// Whether its writes are repeated in the log and on replicas: bits of [`crate::propagate::target`], which are those
    /// of `redis.set_repl`.
    pub(super) repeated: u8,
    /// It has written.
    pub(super) wrote: bool,
    /// A key's slice is not in hand: the run is given up, to begin anew with all.
    pub(super) abandoned: bool,
    /// It may be given up: nothing that it has done lasts.
    pub(super) may_abandon: bool,
    /// It is debugged, and will be taken back: what cannot be is refused.
    pub(super) undone: bool,
    /// What it has touched so far, beyond the slices of its declared keys.
    pub(super) strayed: bool,
    pub(super) declared: Owners,
    pub(super) killed: bool,
    /// When it began, on the host's counter.
    pub(super) start: u64,
    pub(super) slow: bool,
}

impl Run<'_> {
    /// Empties its hands, so that it can lie for a while; it has told who it is.
    pub(super) fn put_aside(self) -> Box<Run<'static>> {
        debug_assert!(self.identity.is_none(), "only a slow script is put aside");
        let Run {
            client,
            eval,
            read_only,
            allow_oom,
            repeated,
            wrote,
            abandoned,
            may_abandon,
            undone,
            strayed,
            declared,
            killed,
            start,
            slow,
            ..
        } = self;
        Box::new(Run {
            core: Hand::empty(),
            keys: Keyspace::several(&mut []),
            identity: None,
            client,
            eval,
            read_only,
            allow_oom,
            repeated,
            wrote,
            abandoned,
            may_abandon,
            undone,
            strayed,
            declared,
            killed,
            start,
            slow,
        })
    }

    fn slot(&self) -> &SlowSlot {
        &self.core.shared.scripts.slow[self.core.id as usize]
    }

    /// Whether nothing more of it may run.
    pub(super) fn must_stop(&self) -> bool {
        self.killed || self.abandoned
    }

    /// Looks whether it may go on, or why not; called from time to time while it runs.
    pub(super) fn look(&mut self) -> Option<&'static str> {
        if self.abandoned {
            return Some(ABANDONED);
        }
        if !self.killed {
            self.note_slow();
        }
        self.killed.then_some(KILLED)
    }

    /// Has it count as slow from the beginning: it will wait for who debugs it.
    pub(super) fn note_debugged(&mut self) {
        self.slow = true;
        let (name, command) = self.identity.take().expect("it is told once");
        self.tell_slow(name, command);
    }

    fn tell_slow(&self, name: &str, command: Args<'_>) {
        let slow = Slow {
            name: name.to_owned(),
            command: command.iter_from(0).map(<[u8]>::to_vec).collect(),
            eval: self.eval,
            start: self.start,
            wrote: self.wrote,
        };
        let slot = self.slot();
        *slot.slow.lock().expect("no holder panics") = Some(slow);
        slot.kill.store(false, Relaxed);
        slot.busy.store(true, Relaxed);
    }

    fn note_slow(&mut self) {
        if !self.slow {
            let threshold_ms = self.core.config.busy_reply_threshold;
            let host = &self.core.shared.host;
            let elapsed_us = (host.ticks()().saturating_sub(self.start)) as f64 / host.ticks_per_us();
            if threshold_ms == 0 || elapsed_us < threshold_ms as f64 * 1000.0 {
                return;
            }
            self.slow = true;
            let (name, command) = self.identity.take().expect("it is told once");
            let text = format!(
                "Slow script detected: still in execution after {} milliseconds. You can try killing the script using \
                 the {} command. Script name is: {}.",
                (elapsed_us / 1000.0) as u64,
                if self.eval { "SCRIPT KILL" } else { "FUNCTION KILL" },
                name
            );
            self.core.for_driver.push(crate::shard::Effect::Log(crate::shard::LogLevel::Warning, text));
            self.tell_slow(name, command);
        }
        // Under the lock, so that whoever asks it to stop and a first write see each other.
        let slot = self.slot();
        let mut slow = slot.slow.lock().expect("no holder panics");
        if slot.kill.load(Relaxed) {
            drop(slow);
            self.killed = true;
            return;
        }
        if let Some(slow) = slow.as_mut() {
            slow.wrote = self.wrote;
        }
    }

    /// Ends the run as others see it.
    pub(super) fn end(&mut self) {
        if self.slow {
            let slot = self.slot();
            let mut slow = slot.slow.lock().expect("no holder panics");
            *slow = None;
            slot.busy.store(false, Relaxed);
            slot.kill.store(false, Relaxed);
        }
    }

    /// Runs a command that the script calls; its reply, which may be an error, goes to `out`.
    ///
    /// # Errors
    /// What keeps the command from being run, its code included; it has been counted.
    pub(super) fn command(&mut self, args: Args<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        if self.killed {
            return Err(KILLED.into());
        }
        if self.abandoned {
            return Err(ABANDONED.into());
        }
        let id = self.core.table.resolve(args);
        let refuse = |run: &mut Self, text: &str| {
            run.core.stats.count_error(text);
            if id != UNKNOWN {
                run.core.stats.commands[id as usize].rejected += 1;
            }
            Err(text.to_owned())
        };
        if id == UNKNOWN || matches!(self.core.table.row(id).handler, Handler::Container) {
            self.core.stats.count_error("ERR");
            return Err("ERR Unknown Redis command called from script".into());
        }
        let row = self.core.table.row(id);
        if !row.accepts(args.len()) {
            return refuse(self, "ERR Wrong number of args calling Redis command from script");
        }
        // What would wait answers at once as if its time had run out.
        if row.has(flag::NOSCRIPT)
            && !row.has(flag::BLOCKING)
            && !self.core.shared.debug.disable_deny_scripts.load(Relaxed)
        {
            return refuse(self, "ERR This Redis command is not allowed from script");
        }
        // What a log holds was allowed when it was written.
        let checked = match self.core.time_stands_still() {
            true => Ok(()),
            false => self.core.check_access(self.client, id, args, crate::acl::Context::Lua),
        };
        if let Err(denied) = checked {
            let user = self.core.user_name(self.client.user);
            let text = format!("NOPERM ACL failure in script: {}", denied.text(user, id, args, false));
            return refuse(self, &text);
        }
        let writes = row.has(flag::WRITE);
        if self.read_only && (writes || row.has(flag::MAY_REPLICATE)) {
            return refuse(self, "ERR Write commands are not allowed from read-only scripts.");
        }
        // One that has written goes on: it could not be made up for half of it.
        if writes && !self.wrote && self.core.shared.replication.too_few(&self.core.config) {
            return refuse(self, crate::shard::dispatch::NO_REPLICAS);
        }
        if row.has(flag::DENYOOM)
            && self.core.config.maxmemory != 0
            && self.core.memory_full
            && !self.allow_oom
            && !self.wrote
        {
            return refuse(self, "OOM command not allowed when used memory > 'maxmemory'.");
        }
        if self.may_abandon && !self.can_be_undone(row, args) {
            if self.undone {
                return refuse(self, CANNOT_BE_UNDONE);
            }
            self.abandoned = true;
            return Err(ABANDONED.into());
        }
        if !matches!(row.handler, Handler::Data(_)) {
            super::home::run(self, id, args, out);
            self.show(row, args);
            return Ok(());
        }
        if self.core.shards > 1 && !self.has_slices(row, args) {
            self.abandoned = true;
            return Err(ABANDONED.into());
        }
        if writes && !self.wrote {
            if self.slow {
                self.wrote = true;
                self.note_slow();
                if self.killed {
                    return Err(KILLED.into());
                }
            }
            self.wrote = true;
        }
        let host = &self.core.shared.host;
        let ticks = host.ticks();
        let start = ticks();
        let on = self.core.effects.on;
        self.core.effects.on = on && self.repeated != 0;
        let targets = std::mem::replace(&mut self.core.effects.targets, self.repeated);
        execute(&mut self.core, self.keys.again(), self.client, id, args, out);
        self.core.effects.on = on;
        self.core.effects.targets = targets;
        let stats = &mut self.core.stats;
        stats.commands_processed += 1;
        stats.commands[id as usize].calls += 1;
        stats.commands[id as usize].ticks += ticks().saturating_sub(start);
        self.show(row, args);
        if out.is_empty() {
            // A command that replies nothing has no place in a script.
            Reply::new(out, 2).null();
        }
        Ok(())
    }

    /// Shows monitors a command that has run.
    fn show(&mut self, row: &'static crate::commands::Command, args: Args<'_>) {
        if self.core.monitored && crate::commands::monitor::is_shown(row) {
            self.core.monitor(self.client.db, "lua", args);
        }
    }

    /// Whether a command can be taken back if the run is given up later.
    fn can_be_undone(&mut self, row: &'static crate::commands::Command, args: Args<'_>) -> bool {
        if !matches!(row.handler, Handler::Data(_)) {
            return matches!(row.name, "ping" | "echo" | "time" | "publish" | "spublish");
        }
        if !row.has(flag::WRITE) {
            return true;
        }
        // Only the database that the script began with keeps what it held, key by key.
        let mut can = row.route == Route::Keys && !matches!(row.name, "move" | "copy");
        let db = self.client.db;
        row.for_each_key(args, &mut |index| {
            let name = args.at(index);
            let hash = self.core.hasher.hash(name);
            if self.keys.has(router::owner_of(name, self.core.shards)) {
                let entry = self.keys.db(db, name).dict.find(hash, name);
                can &= entry.is_none_or(crate::db::undo::is_worth_copying);
            }
        });
        can
    }

    /// Whether the slices that a command needs are in hand; notes when they are not those of the declared keys.
    fn has_slices(&mut self, row: &'static crate::commands::Command, args: Args<'_>) -> bool {
        let owners = router::owners(row, args, self.core.shards);
        let within = |set: &Owners, owner| match set {
            Owners::None => false,
            Owners::One(one) => *one == owner,
            Owners::Several(several) => several.contains(&owner),
        };
        let mut all = true;
        let mut check = |owner| {
            all &= self.keys.has(owner);
            self.strayed |= !within(&self.declared, owner);
        };
        match owners {
            // It names no key, and finds its own error wherever it runs.
            Owners::None => {}
            Owners::One(_) if row.route == Route::Keys && !names_a_key(row, args) => {}
            Owners::One(owner) => check(owner),
            Owners::Several(several) => several.iter().for_each(|owner| check(*owner)),
        }
        all
    }
}

fn names_a_key(row: &'static crate::commands::Command, args: Args<'_>) -> bool {
    let mut found = false;
    row.for_each_key(args, &mut |_| found = true);
    found
}

/// The owners of the keys that a script declares.
pub(super) fn declared_owners<'a>(keys: impl Iterator<Item = &'a [u8]>, shards: usize) -> Owners {
    let mut set = OwnerSet::default();
    keys.for_each(|key| set.add(router::owner_of(key, shards)));
    set.finish()
}
