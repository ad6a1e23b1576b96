//! `MIGRATE`: keys travel to another server and are deleted here.
//!
//! The machine speaks to nobody, so the command has three steps: the owners of the keys give their values and hold
//! them ([`crate::shard::migrate`]), the driver takes a [`Migration`] to the target, and what the target has
//! acknowledged is deleted as the keys are let go. Other keys go on meanwhile, where Redis stands still. Inside `EXEC`
//! and scripts there is nothing to come back to: there the shard waits for the target, as Redis does.
//! Counterpart: `migrateCommand` in `cluster.c`.

use super::{Command, CommandError, CommandResult, Ctx, Group, KeySpec, acl, flag, key, spec};
use crate::args::{Args, OwnedArgs};
use crate::core::Core;
use crate::db::Keyspace;
use crate::number::parse_i64;
use crate::rdb::payload;
use crate::rdb::write::Style;
use crate::resp::Reply;

use flag::*;

/// This family's rows.
pub static TABLE: &[Command] = &[Command::data("migrate", migrate, -6, WRITE, Group::Generic)
    .keys(&[
        KeySpec::one(3, key::RW | key::ACCESS | key::DELETE),
        KeySpec {
            begin: spec::Begin::Keyword("KEYS", -2),
            find: spec::Find::Range { last: -1, step: 1, limit: 0 },
            flags: key::RW | key::ACCESS | key::DELETE | key::INCOMPLETE,
        },
    ])
    .keys_by(find_keys)
    .categories(acl::DANGEROUS)
    .doc(
        "2.6.0",
        "What DUMP and DEL cost here and RESTORE there, and the time on the wire",
        "Moves keys to another server.",
        "host port <key | \"\"> destination-db timeout [COPY] [REPLACE] [AUTH password | AUTH2 username password] \
         [KEYS key [key ...]]",
    )];

/// Milliseconds that each step may take when the client does not say.
const DEFAULT_TIMEOUT_MS: u64 = 1000;

/// What is to be sent where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migration {
    /// Name or address of the target.
    pub host: String,
    /// Its port, as the client wrote it.
    pub port: String,
    /// The database there.
    pub db: i64,
    /// How long each step may take.
    pub timeout_ms: u64,
    /// The user's name, if not the default user, and the password.
    pub auth: Option<(Option<Vec<u8>>, Vec<u8>)>,
    /// As many `RESTORE` commands as [`Migration::count`] says, in the protocol.
    pub restores: Vec<u8>,
    /// How many.
    pub count: usize,
}

/// What became of a [`Migration`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Of each `RESTORE`, whether the target has said that it did it; fewer if there was no answer.
    pub done: Vec<bool>,
    /// The error's text for the client, or nothing.
    pub result: Result<(), String>,
}

/// The options of the command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Where to, and nothing to send yet.
    pub(crate) migration: Migration,
    /// Keys stay here.
    pub(crate) copy: bool,
    /// Keys there may be overwritten.
    pub(crate) replace: bool,
    /// Where the keys are among the arguments.
    pub(crate) keys: std::ops::Range<usize>,
}

/// The word behind which everything is a key, if it is there as an option.
fn keys_word(args: Args<'_>) -> Option<usize> {
    let mut i = 6;
    while i < args.len() {
        match () {
            () if args.is(i, "keys") => return Some(i),
            () if args.is(i, "auth") => i += 2,
            () if args.is(i, "auth2") => i += 3,
            () => i += 1,
        }
    }
    None
}

fn find_keys(args: Args<'_>, found: &mut dyn FnMut(usize, u16)) {
    const FLAGS: u16 = key::RW | key::ACCESS | key::DELETE;
    match keys_word(args).filter(|_| args.get(3).is_some_and(<[u8]>::is_empty)) {
        Some(word) => (word + 1..args.len()).for_each(|i| found(i, FLAGS)),
        None if args.len() > 3 => found(3, FLAGS),
        None => {}
    }
}

/// Whether the argument at `index` is a password, or the name that goes with it.
pub(crate) fn is_secret(args: Args<'_>, index: usize) -> bool {
    let end = keys_word(args).unwrap_or(args.len());
    (6..end).any(|i| (args.is(i, "auth") && index == i + 1) || (args.is(i, "auth2") && (i + 1..i + 3).contains(&index)))
}

impl Options {
    pub(crate) fn parse(args: Args<'_>) -> Result<Options, CommandError> {
        let text = |i: usize| String::from_utf8_lossy(args.at(i)).into_owned();
        let mut options = Options { keys: 3..4, ..Options::default() };
        let mut i = 6;
        while i < args.len() {
            let behind = args.len() - 1 - i;
            if args.is(i, "copy") {
                options.copy = true;
            } else if args.is(i, "replace") {
                options.replace = true;
            } else if args.is(i, "auth") && behind >= 1 {
                options.migration.auth = Some((None, args.at(i + 1).to_vec()));
                i += 1;
            } else if args.is(i, "auth2") && behind >= 2 {
                options.migration.auth = Some((Some(args.at(i + 1).to_vec()), args.at(i + 2).to_vec()));
                i += 2;
            } else if args.is(i, "keys") {
                if !args.at(3).is_empty() {
                    let text = "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string";
                    return Err(text.into());
                }
                options.keys = i + 1..args.len();
                break;
            } else {
                return Err(CommandError::Syntax);
            }
            i += 1;
        }
        let timeout = parse_i64(args.at(5)).ok_or(CommandError::NotInteger)?;
        options.migration.db = parse_i64(args.at(4)).ok_or(CommandError::NotInteger)?;
        options.migration.timeout_ms = u64::try_from(timeout).ok().filter(|ms| *ms > 0).unwrap_or(DEFAULT_TIMEOUT_MS);
        (options.migration.host, options.migration.port) = (text(1), text(2));
        Ok(options)
    }
}

/// Writes what `RESTORE` needs of a key, or that there is none.
fn write_key(core: &mut Core, keys: &mut Keyspace<'_>, db: u16, name: &[u8], reply: &mut Reply<'_>) {
    let style = Style::of(&core.config);
    let key = super::Key { bytes: name, hash: core.hasher.hash(name) };
    let now = core.now_ms;
    let Some(entry) = keys.db(db, name).lookup_read(core, key) else { return reply.integer(0) };
    let ttl = entry.expire_at().map_or(0, |at| (at - now).max(1));
    reply.integer(1);
    reply.bulk(name);
    reply.bulk(ttl.to_string().as_bytes());
    reply.bulk(&payload::dump(entry, style));
}

/// Of what [`write_key`] wrote at the start of `bytes`: the arguments of `RESTORE`, if there is the key, and what
/// follows.
pub(crate) fn read_key(bytes: &[u8]) -> (Option<&[u8]>, &[u8]) {
    const HEAD: usize = ":0\r\n".len();
    let (head, rest) = bytes.split_at(HEAD);
    if head[1] == b'0' {
        return (None, rest);
    }
    let mut at = 0;
    for _ in 0..3 {
        let line = memchr::memchr(b'\n', &rest[at..]).expect("a bulk string begins with its length") + 1;
        let length = parse_i64(&rest[at + 1..at + line - 2]).expect("this module wrote it");
        at += line + length as usize + 2;
    }
    (Some(&rest[..at]), &rest[at..])
}

impl Migration {
    /// Adds a key, by the arguments that [`read_key`] returned.
    pub(crate) fn add(&mut self, replace: bool, arguments: &[u8]) {
        let head: &[u8] = if replace { b"*5\r\n$7\r\nRESTORE\r\n" } else { b"*4\r\n$7\r\nRESTORE\r\n" };
        self.restores.extend_from_slice(head);
        self.restores.extend_from_slice(arguments);
        if replace {
            self.restores.extend_from_slice(b"$7\r\nREPLACE\r\n");
        }
        self.count += 1;
    }
}

/// The name that parts have: no client can call a command so.
pub(crate) const PART: &[u8] = b"";

/// `DEL` of those of `keys` that were done, if any.
pub(crate) fn deletion<'a>(keys: impl Iterator<Item = &'a [u8]>, done: &[bool]) -> Option<OwnedArgs> {
    let mut words = OwnedArgs::from_words(&["del"]);
    keys.zip(done).filter(|(_, done)| **done).for_each(|(key, _)| words.push(key));
    (words.args().len() > 1).then_some(words)
}

/// A part of the command, on one owner's slice; or all of it where it cannot wait for the driver.
fn migrate(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let db = ctx.client.db;
    if args.at(0) == PART {
        args.iter_from(1).for_each(|name| write_key(ctx.core, &mut ctx.keys, db, name, &mut ctx.reply));
        return Ok(());
    }
    let Options { mut migration, copy, replace, keys } = Options::parse(args)?;
    let mut sent = Vec::new();
    for name in keys.map(|i| args.at(i)) {
        let mut found = Vec::new();
        write_key(ctx.core, &mut ctx.keys, db, name, &mut Reply::new(&mut found, 2));
        if let (Some(arguments), _) = read_key(&found) {
            migration.add(replace, arguments);
            sent.push(name);
        }
    }
    if migration.count == 0 {
        ctx.reply.simple("NOKEY");
        return Ok(());
    }
    let outcome = ctx.core.shared.host.migrate(&migration);
    ctx.no_effect();
    for (name, _) in sent.iter().zip(outcome.done).filter(|(_, done)| *done && !copy) {
        let key = ctx.key_of(name);
        if ctx.keys.db(db, name).delete_lazily(ctx.core, key, false) {
            ctx.effect(&[b"DEL", name]);
            ctx.changed(crate::core::Event::GENERIC, "del", name);
        }
    }
    outcome.result.map_err(CommandError::from)?;
    ctx.reply.ok();
    Ok(())
}
