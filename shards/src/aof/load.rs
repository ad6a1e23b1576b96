//! Running what a log holds, on slices in hand: those of all shards, in the order of the files, or each shard's own log
//! on its own slice, all at the same time.
//!
//! Time stands still at 0 meanwhile: what had not expired when it was written must be there for the commands behind it,
//! and if it has expired since it goes as soon as somebody looks. Counterpart: `loadSingleAppendOnlyFile`.

use std::sync::Mutex;

use super::SLICE_WORD;
use super::read::{Note, Parsed, note, parse};
use crate::args::{ArgRef, Args};
use crate::client::ClientView;
use crate::commands::spec::Handler;
use crate::commands::{Key, UNKNOWN, function};
use crate::core::Core;
use crate::db::{Keyspace, RedisDb, Slice};
use crate::entry::EntryPtr;
use crate::number::parse_i64;
use crate::router::{ShardId, owner_of};
use crate::shard::dispatch::execute;
use crate::shard::{Effect, LogLevel};

/// The libraries of functions as the logs of several shards tell of them: each tells of all, and the last counts.
#[derive(Debug, Default)]
pub struct LoadedLibraries(Mutex<Option<(u64, Vec<u8>)>>);

impl LoadedLibraries {
    fn tell(&self, number: u64, payload: &[u8]) {
        let mut last = self.0.lock().expect("no holder panics");
        if last.as_ref().is_none_or(|(before, _)| *before <= number) {
            *last = Some((number, payload.to_vec()));
        }
    }

    /// Puts the last in force.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn apply(&self, core: &mut Core) -> Result<(), String> {
        let Some((_, payload)) = self.0.lock().expect("no holder panics").take() else { return Ok(()) };
        let words = crate::args::OwnedArgs::from_words(&[b"FUNCTION", &b"RESTORE"[..], &payload, b"FLUSH"]);
        function::replay(core, words.args()).map_err(|error| error.text().into_owned())
    }
}

/// Runs the commands of one log as its bytes come.
#[derive(Debug)]
pub struct LogLoader {
    /// Whose log it was, and of how many.
    origin: (ShardId, usize),
    rest: Vec<u8>,
    wanted: usize,
    db: u16,
    /// The number of the command over several slices that was last told of.
    number: u64,
    refs: Vec<ArgRef>,
    out: Vec<u8>,
    /// A command has answered with an error, and that was said.
    complained: bool,
}

impl LogLoader {
    /// For the log of shard `origin.0` of `origin.1`.
    pub fn new(origin: (ShardId, usize)) -> Self {
        LogLoader {
            origin,
            rest: Vec::new(),
            wanted: 0,
            db: 0,
            number: 0,
            refs: Vec::new(),
            out: Vec::new(),
            complained: false,
        }
    }

    /// Runs the whole commands in `bytes`, and keeps what is left over for the next ones. With `only` nothing but that
    /// shard's slice is in hand.
    ///
    /// # Errors
    /// What to say in the log, without the file's name.
    pub fn run(
        &mut self,
        core: &mut Core,
        slices: &mut [Option<Box<Slice>>],
        only: Option<ShardId>,
        bytes: &[u8],
    ) -> Result<(), String> {
        self.rest.extend_from_slice(bytes);
        if self.rest.len() < self.wanted {
            return Ok(());
        }
        let changes: Vec<u64> = slices.iter().map(|slice| slice.as_deref().map_or(0, |slice| slice.changes)).collect();
        let (now, effects, denied) = (core.now_ms, core.effects.on, core.deny_blocking);
        let posted = core.post.len();
        (core.now_ms, core.effects.on, core.deny_blocking) = (0, false, true);
        let rest = std::mem::take(&mut self.rest);
        let done = self.run_items(core, slices, only, &rest);
        (core.now_ms, core.effects.on, core.deny_blocking) = (now, effects, denied);
        core.post.truncate(posted);
        for (slice, changes) in slices.iter_mut().zip(changes) {
            if let Some(slice) = slice {
                slice.changes = changes;
            }
        }
        let done = done?;
        self.rest = rest;
        self.rest.drain(..done);
        Ok(())
    }

    fn run_items(
        &mut self,
        core: &mut Core,
        slices: &mut [Option<Box<Slice>>],
        only: Option<ShardId>,
        bytes: &[u8],
    ) -> Result<usize, String> {
        let mut at = 0;
        let mut refs = std::mem::take(&mut self.refs);
        loop {
            refs.clear();
            match parse(&bytes[at..], &mut refs) {
                Parsed::Command { end } => {
                    let args = Args::new(&bytes[at..at + end], &refs);
                    self.run_command(core, slices, only, args)?;
                    at += end;
                }
                Parsed::Note { end } => {
                    if let Note::Spanning(number, ..) = note(&bytes[at..at + end]) {
                        self.number = number;
                    }
                    at += end;
                }
                Parsed::Incomplete(wanted) => {
                    self.wanted = wanted;
                    break;
                }
                Parsed::Bad(reason) => return Err(format!("Bad file format ({reason})")),
            }
        }
        self.refs = refs;
        Ok(at)
    }

    fn run_command(
        &mut self,
        core: &mut Core,
        slices: &mut [Option<Box<Slice>>],
        only: Option<ShardId>,
        args: Args<'_>,
    ) -> Result<(), String> {
        if args.at(0) == SLICE_WORD && args.len() > 1 {
            return self.run_on_slice(core, slices, args.tail(1));
        }
        let id = core.table.resolve_logged(args);
        if id == UNKNOWN {
            return Err(format!("Unknown command '{}'", String::from_utf8_lossy(args.at(0))));
        }
        let row = core.table.row(id);
        match row.handler {
            Handler::Data(_) => {
                if !row.accepts(args.len()) {
                    return Err(format!("Wrong number of arguments of '{}'", row.name));
                }
                let keys = match only {
                    Some(owner) => Keyspace::one(slices, owner),
                    None => Keyspace::several(slices),
                };
                self.out.clear();
                let client = ClientView { db: self.db, ..ClientView::nobody(core.id) };
                core.may_pause = false;
                execute(core, keys, client, id, args, &mut self.out);
                core.may_pause = true;
                core.block_request = None;
                core.run_script_again = false;
                core.effects.said.clear();
                if self.out.first() == Some(&b'-') {
                    let error = String::from_utf8_lossy(&self.out).trim_end().to_string();
                    self.complain(core, row.name, &error);
                }
            }
            _ if row.name == "select" => {
                let db =
                    args.get(1).and_then(parse_i64).filter(|db| (0..i64::from(core.config.databases)).contains(db));
                self.db =
                    db.ok_or("The data was saved by a server with more databases, see the directive databases")? as u16;
            }
            _ if row.name.starts_with("function") => {
                if let Err(error) = function::replay(core, args) {
                    self.complain(core, row.name, &error.text());
                }
            }
            // Those around several commands are of no interest: what is loaded is whole.
            _ => {}
        }
        Ok(())
    }

    /// Redis passes over errors without a word.
    fn complain(&mut self, core: &mut Core, name: &str, error: &str) {
        if !std::mem::replace(&mut self.complained, true) {
            let line =
                format!("A command of the append only file answered with an error when it was loaded: {name}: {error}");
            core.for_driver.push(Effect::Log(LogLevel::Warning, line));
        }
    }

    /// A command that was meant for the keys of one shard, of as many as there were then.
    fn run_on_slice(
        &mut self,
        core: &mut Core,
        slices: &mut [Option<Box<Slice>>],
        args: Args<'_>,
    ) -> Result<(), String> {
        let (shard, of) = self.origin;
        let number = |at: usize| args.get(at).and_then(parse_i64).map(|n| n as usize);
        if args.is(0, "function") && args.is(1, "restore") {
            core.shared.aof.loaded_libraries.tell(self.number, args.get(2).unwrap_or_default());
            return Ok(());
        }
        let mine = |key: &[u8]| owner_of(key, of) == shard;
        for slice in slices.iter_mut().flatten() {
            if of == core.shards && slice.owner != shard {
                continue;
            }
            let dbs = slice.dbs.len();
            match () {
                () if args.is(0, "flushall") => slice.dbs.iter_mut().for_each(|db| remove(core, db, &mine)),
                () if args.is(0, "flushdb") => remove(core, &mut slice.dbs[self.db as usize], &mine),
                () if args.is(0, "swapdb") => match (number(1), number(2)) {
                    (Some(a), Some(b)) if a < dbs && b < dbs => {
                        if a != b {
                            let (low, high) = slice.dbs.split_at_mut(a.max(b));
                            swap(core, &mut low[a.min(b)], &mut high[0], &mine);
                        }
                    }
                    _ => return Err("A database that is exchanged does not exist, see the directive databases".into()),
                },
                () => return Err(format!("Unknown command '{}'", String::from_utf8_lossy(args.at(0)))),
            }
        }
        Ok(())
    }
}

fn names(db: &RedisDb, mine: &impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut cursor = 0;
    loop {
        cursor = db.dict.scan(cursor, &mut |entry| {
            if mine(entry.key()) {
                found.push(entry.key().to_vec());
            }
        });
        if cursor == 0 {
            // A table that is being moved may show an entry twice.
            found.sort();
            found.dedup();
            return found;
        }
    }
}

fn remove(core: &mut Core, db: &mut RedisDb, mine: &impl Fn(&[u8]) -> bool) {
    for name in names(db, mine) {
        db.delete(Key { bytes: &name, hash: core.hasher.hash(&name) });
    }
}

fn swap(core: &mut Core, a: &mut RedisDb, b: &mut RedisDb, mine: &impl Fn(&[u8]) -> bool) {
    let take = |core: &mut Core, db: &mut RedisDb| -> Vec<(Vec<u8>, Option<EntryPtr>)> {
        let mut taken = Vec::new();
        for name in names(db, mine) {
            db.before_write(&name);
            let entry = db.unlink(Key { bytes: &name, hash: core.hasher.hash(&name) });
            taken.push((name, entry));
        }
        taken
    };
    let (from_a, from_b) = (take(core, a), take(core, b));
    for (db, entries) in [(b, from_a), (a, from_b)] {
        for (name, entry) in entries {
            let key = Key { bytes: &name, hash: core.hasher.hash(&name) };
            if let Some(entry) = entry {
                db.before_write(&name);
                db.add(core, key, entry);
            }
        }
    }
}
