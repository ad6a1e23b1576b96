//! The keyspace: deleting, expiring, renaming, scanning. Counterpart: `db.c`, `expire.c`, `object.c`.

use super::spec::Split;
use super::{Command, CommandError, CommandResult, Ctx, Group, Key, KeySpec, Route, acl, flag, key};
use crate::args::Args;
use crate::core::Event;
use crate::db::lazyfree::AwaitedFree;
use crate::db::{Ttl, evict};
use crate::entry::{EntryPtr, Kind, StrRef};
use crate::glob;
use crate::number::{parse_i64, parse_u64};
use crate::router::CURSOR_POSITION_BITS;

use flag::*;

const GENERIC: Group = Group::Generic;
const ONE_READ: &[KeySpec] = &[KeySpec::one(1, key::RO)];
const ONE_TTL: &[KeySpec] = &[KeySpec::one(1, key::RO | key::ACCESS)];
const ONE_UPDATE: &[KeySpec] = &[KeySpec::one(1, key::RW | key::UPDATE)];
const ALL_READ: &[KeySpec] = &[KeySpec::range(1, -1, 1, key::RO)];
const ALL_DELETE: &[KeySpec] = &[KeySpec::range(1, -1, 1, key::RM | key::DELETE)];
const TWO_RENAME: &[KeySpec] =
    &[KeySpec::one(1, key::RW | key::ACCESS | key::DELETE), KeySpec::one(2, key::OW | key::UPDATE)];
const OBJECT_KEY: &[KeySpec] = &[KeySpec::one(2, key::RO)];

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::data("del", del, -2, WRITE, GENERIC).splits(Split::Sum).keys(ALL_DELETE).doc(
        "1.0.0",
        "O(N), N being the number of keys; freeing a collection costs its size",
        "Removes keys.",
        "key [key ...]",
    ),
    Command::data("unlink", unlink, -2, WRITE | FAST, GENERIC).splits(Split::Sum).keys(ALL_DELETE).doc(
        "4.0.0",
        "O(1) for each key; memory is freed out of the client's way",
        "Removes keys and frees them later.",
        "key [key ...]",
    ),
    Command::data("exists", exists, -2, READONLY | FAST, GENERIC).splits(Split::Sum).keys(ALL_READ).doc(
        "1.0.0",
        "O(N), N being the number of keys",
        "Counts which of the keys exist.",
        "key [key ...]",
    ),
    Command::data("touch", touch, -2, READONLY | FAST, GENERIC).splits(Split::Sum).keys(ALL_READ).doc(
        "3.2.1",
        "O(N), N being the number of keys",
        "Counts which of the keys exist, and marks them as used.",
        "key [key ...]",
    ),
    Command::data("type", kind, 2, READONLY | FAST, GENERIC).keys(ONE_READ).doc(
        "1.0.0",
        "O(1)",
        "Names the type of the value at a key.",
        "key",
    ),
    Command::data("expire", expire, -3, WRITE | FAST, GENERIC).keys(ONE_UPDATE).doc(
        "1.0.0",
        "O(1)",
        "Sets a key's time to live in seconds.",
        "key seconds [NX | XX | GT | LT]",
    ),
    Command::data("pexpire", pexpire, -3, WRITE | FAST, GENERIC).keys(ONE_UPDATE).doc(
        "2.6.0",
        "O(1)",
        "Sets a key's time to live in milliseconds.",
        "key milliseconds [NX | XX | GT | LT]",
    ),
    Command::data("expireat", expireat, -3, WRITE | FAST, GENERIC).keys(ONE_UPDATE).doc(
        "1.2.0",
        "O(1)",
        "Sets the Unix time in seconds at which a key expires.",
        "key unix-time-seconds [NX | XX | GT | LT]",
    ),
    Command::data("pexpireat", pexpireat, -3, WRITE | FAST, GENERIC).keys(ONE_UPDATE).doc(
        "2.6.0",
        "O(1)",
        "Sets the Unix time in milliseconds at which a key expires.",
        "key unix-time-milliseconds [NX | XX | GT | LT]",
    ),
    Command::data("ttl", ttl, 2, READONLY | FAST, GENERIC).keys(ONE_TTL).doc(
        "1.0.0",
        "O(1)",
        "Returns a key's time to live in seconds.",
        "key",
    ),
    Command::data("pttl", pttl, 2, READONLY | FAST, GENERIC).keys(ONE_TTL).doc(
        "2.6.0",
        "O(1)",
        "Returns a key's time to live in milliseconds.",
        "key",
    ),
    Command::data("expiretime", expiretime, 2, READONLY | FAST, GENERIC).keys(ONE_TTL).doc(
        "7.0.0",
        "O(1)",
        "Returns the Unix time in seconds at which a key expires.",
        "key",
    ),
    Command::data("pexpiretime", pexpiretime, 2, READONLY | FAST, GENERIC).keys(ONE_TTL).doc(
        "7.0.0",
        "O(1)",
        "Returns the Unix time in milliseconds at which a key expires.",
        "key",
    ),
    Command::data("persist", persist, 2, WRITE | FAST, GENERIC).keys(ONE_UPDATE).doc(
        "2.2.0",
        "O(1)",
        "Removes a key's time to live.",
        "key",
    ),
    Command::data("rename", rename, 3, WRITE, GENERIC).keys(TWO_RENAME).doc(
        "1.0.0",
        "O(1)",
        "Gives a key another name, replacing what had it.",
        "key newkey",
    ),
    Command::data("renamenx", renamenx, 3, WRITE | FAST, GENERIC)
        .keys(&[KeySpec::one(1, key::RW | key::ACCESS | key::DELETE), KeySpec::one(2, key::OW | key::INSERT)])
        .doc("1.0.0", "O(1)", "Gives a key another name if that is free.", "key newkey"),
    Command::data("copy", copy, -3, WRITE | DENYOOM, GENERIC)
        .keys(&[KeySpec::one(1, key::RO | key::ACCESS), KeySpec::one(2, key::OW | key::UPDATE)])
        .doc(
            "6.2.0",
            "O(N) for collections, N being the number of elements",
            "Copies a key's value to another key.",
            "source destination [DB destination-db] [REPLACE]",
        ),
    Command::data("move", move_key, 3, WRITE | FAST, GENERIC)
        .keys(&[KeySpec::one(1, key::RW | key::ACCESS | key::UPDATE)])
        .doc("1.0.0", "O(1)", "Moves a key to another database.", "key db"),
    Command::data("randomkey", randomkey, 1, READONLY | TOUCHES_ARBITRARY_KEYS, GENERIC).doc(
        "1.0.0",
        "O(1)",
        "Returns the name of a random key.",
        "",
    ),
    Command::data("keys", keys, 2, READONLY, GENERIC).categories(acl::DANGEROUS).doc(
        "1.0.0",
        "O(N), N being the number of keys",
        "Returns the names of all keys that match a pattern.",
        "pattern",
    ),
    Command::data("scan", scan, -2, READONLY | TOUCHES_ARBITRARY_KEYS, GENERIC).route(Route::Cursor).doc(
        "2.8.0",
        "O(1) for each call, O(N) for a whole iteration",
        "Iterates over the names of the keys.",
        "cursor [MATCH pattern] [COUNT count] [TYPE type]",
    ),
    Command::data("dbsize", dbsize, 1, READONLY | FAST, Group::Server).categories(acl::KEYSPACE).doc(
        "1.0.0",
        "O(1)",
        "Counts the keys of the database.",
        "",
    ),
    Command::data("flushdb", flushdb, -1, WRITE, Group::Server).categories(acl::KEYSPACE | acl::DANGEROUS).doc(
        "1.0.0",
        "O(N), N being the number of keys",
        "Removes all keys of the database.",
        "[ASYNC | SYNC]",
    ),
    Command::data("flushall", flushall, -1, WRITE, Group::Server).categories(acl::KEYSPACE | acl::DANGEROUS).doc(
        "1.0.0",
        "O(N), N being the number of keys",
        "Removes all keys of all databases.",
        "[ASYNC | SYNC]",
    ),
    Command::data("swapdb", swapdb, 3, WRITE | FAST, Group::Server).categories(acl::KEYSPACE | acl::DANGEROUS).doc(
        "4.0.0",
        "O(N), N being the number of watched keys",
        "Exchanges two databases.",
        "index1 index2",
    ),
    Command::container("object", GENERIC).doc(
        "2.2.3",
        "Depends on the subcommand",
        "Looks at how values are kept.",
        "",
    ),
    Command::data("object|encoding", object_encoding, 3, READONLY, GENERIC).keys(OBJECT_KEY).doc(
        "2.2.3",
        "O(1)",
        "Names the encoding of the value at a key.",
        "key",
    ),
    Command::data("object|refcount", object_refcount, 3, READONLY, GENERIC).keys(OBJECT_KEY).doc(
        "2.2.3",
        "O(1)",
        "Returns the number of references to the value at a key.",
        "key",
    ),
    Command::data("object|idletime", object_idletime, 3, READONLY, GENERIC).keys(OBJECT_KEY).doc(
        "2.2.3",
        "O(1)",
        "Returns the seconds since a key was last used.",
        "key",
    ),
    Command::data("object|freq", object_freq, 3, READONLY, GENERIC).keys(OBJECT_KEY).doc(
        "4.0.0",
        "O(1)",
        "Returns the logarithmic count of a key's uses.",
        "key",
    ),
    Command::home("object|help", object_help, 2, LOADING | STALE, GENERIC).doc(
        "6.2.0",
        "O(1)",
        "Lists the subcommands.",
        "",
    ),
];

/// Reads a time to live, and returns the Unix time in ms that it ends at.
///
/// `relative_only` demands a positive number, as `SET … EX` does and `EXPIRE` does not.
pub fn parse_expire_at(
    now_ms: i64,
    text: &[u8],
    seconds: bool,
    absolute: bool,
    command: &str,
    positive: bool,
) -> Result<i64, CommandError> {
    let value = parse_i64(text).ok_or(CommandError::NotInteger)?;
    let invalid = || CommandError::new(format!("ERR invalid expire time in '{command}' command"));
    if positive && value <= 0 {
        return Err(invalid());
    }
    let ms = if seconds { value.checked_mul(1000).ok_or_else(invalid)? } else { value };
    match absolute {
        true => Ok(ms),
        false => ms.checked_add(now_ms).ok_or_else(invalid),
    }
}

fn del(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    delete_generic(ctx, args, ctx.core.config.lazyfree_lazy_user_del)
}

fn unlink(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    delete_generic(ctx, args, true)
}

fn delete_generic(ctx: &mut Ctx<'_>, args: Args<'_>, lazily: bool) -> CommandResult {
    let mut removed = 0;
    for i in 1..args.len() {
        let key = ctx.nth_key(args, i - 1, i);
        let db = ctx.keys.db(ctx.client.db, key.bytes);
        // An expired key is not there any more, and not counted.
        if db.find(ctx.core, key).is_some() && db.delete_lazily(ctx.core, key, lazily) {
            ctx.changed(Event::GENERIC, "del", key.bytes);
            removed += 1;
        }
    }
    ctx.reply.integer(removed);
    Ok(())
}

fn exists(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let mut found = 0;
    for i in 1..args.len() {
        let key = ctx.nth_key(args, i - 1, i);
        let untouched = std::mem::replace(&mut ctx.core.no_touch, true);
        let db = ctx.keys.db(ctx.client.db, key.bytes);
        found += db.lookup_read(ctx.core, key).is_some() as i64;
        ctx.core.no_touch = untouched;
    }
    ctx.reply.integer(found);
    Ok(())
}

fn touch(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let mut found = 0;
    // TOUCH marks keys as used even for a client that set CLIENT NO-TOUCH.
    let untouched = std::mem::replace(&mut ctx.core.no_touch, false);
    for i in 1..args.len() {
        let key = ctx.nth_key(args, i - 1, i);
        let db = ctx.keys.db(ctx.client.db, key.bytes);
        found += db.lookup_read(ctx.core, key).is_some() as i64;
    }
    ctx.core.no_touch = untouched;
    ctx.reply.integer(found);
    Ok(())
}

/// Looks a key up without marking it as used.
fn peek(ctx: &mut Ctx<'_>, key: Key<'_>) -> Option<EntryPtr> {
    let untouched = std::mem::replace(&mut ctx.core.no_touch, true);
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    let found = db.lookup_read(ctx.core, key);
    ctx.core.no_touch = untouched;
    found
}

fn kind(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let name = peek(ctx, key).map_or("none", |entry| entry.kind().name());
    ctx.reply.simple(name);
    Ok(())
}

/// Conditions of `EXPIRE`.
#[derive(Clone, Copy, Default)]
struct ExpireIf {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl ExpireIf {
    fn parse(args: Args<'_>) -> Result<Self, CommandError> {
        let mut when = ExpireIf::default();
        for word in args.iter_from(3) {
            match word.to_ascii_lowercase().as_slice() {
                b"nx" => when.nx = true,
                b"xx" => when.xx = true,
                b"gt" => when.gt = true,
                b"lt" => when.lt = true,
                _ => {
                    let word = String::from_utf8_lossy(word);
                    return Err(format!("ERR Unsupported option {word}").into());
                }
            }
        }
        if when.nx && (when.xx || when.gt || when.lt) {
            return Err("ERR NX and XX, GT or LT options at the same time are not compatible".into());
        }
        if when.gt && when.lt {
            return Err("ERR GT and LT options at the same time are not compatible".into());
        }
        Ok(when)
    }

    /// Whether a key whose time ends at `old` gets `new`; no time to live counts as endless.
    fn holds(self, old: Option<i64>, new: i64) -> bool {
        !(self.nx && old.is_some()
            || self.xx && old.is_none()
            || self.gt && old.is_none_or(|old| new <= old)
            || self.lt && old.is_some_and(|old| new >= old))
    }
}

fn expire_generic(ctx: &mut Ctx<'_>, args: Args<'_>, seconds: bool, absolute: bool, name: &str) -> CommandResult {
    let when = ExpireIf::parse(args)?;
    let at = parse_expire_at(ctx.core.now_ms, args.at(2), seconds, absolute, name, false)?;
    let key = ctx.key(args, 1);
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    let Some(entry) = db.lookup_write(ctx.core, key) else {
        ctx.reply.integer(0);
        return Ok(());
    };
    if !when.holds(entry.expire_at(), at) {
        ctx.reply.integer(0);
        return Ok(());
    }
    if at <= ctx.core.now_ms {
        db.delete(key);
        ctx.effect(&[crate::db::expired_word(ctx.core), key.bytes]);
        ctx.changed(Event::GENERIC, "del", key.bytes);
    } else {
        db.before_write(key.bytes);
        db.set_ttl(ctx.core, key, entry, Ttl::At(at));
        ctx.effect(&[b"PEXPIREAT", key.bytes, itoa::Buffer::new().format(at).as_bytes()]);
        ctx.changed(Event::GENERIC, "expire", key.bytes);
    }
    ctx.reply.integer(1);
    Ok(())
}

fn expire(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    expire_generic(ctx, args, true, false, "expire")
}

fn pexpire(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    expire_generic(ctx, args, false, false, "pexpire")
}

fn expireat(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    expire_generic(ctx, args, true, true, "expireat")
}

fn pexpireat(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    expire_generic(ctx, args, false, true, "pexpireat")
}

/// -2 without a key, -1 without a time to live, else what `value` makes of the end in Unix ms and the present.
fn ttl_generic(ctx: &mut Ctx<'_>, args: Args<'_>, value: impl Fn(i64, i64) -> i64) -> CommandResult {
    let key = ctx.key(args, 1);
    let now = ctx.core.now_ms;
    let reply = match peek(ctx, key).map(|entry| entry.expire_at()) {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => value(at, now),
    };
    ctx.reply.integer(reply);
    Ok(())
}

fn ttl(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    ttl_generic(ctx, args, |at, now| ((at - now).max(0) + 500) / 1000)
}

fn pttl(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    ttl_generic(ctx, args, |at, now| (at - now).max(0))
}

fn expiretime(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    // Rounded without a sum that could overflow: times may lie as far ahead as an i64 reaches.
    ttl_generic(ctx, args, |at, _| at / 1000 + (at % 1000 >= 500) as i64)
}

fn pexpiretime(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    ttl_generic(ctx, args, |at, _| at)
}

fn persist(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    match db.lookup_write(ctx.core, key) {
        Some(entry) if entry.expire_at().is_some() => {
            db.before_write(key.bytes);
            db.set_ttl(ctx.core, key, entry, Ttl::Clear);
            ctx.changed(Event::GENERIC, "persist", key.bytes);
            ctx.reply.integer(1);
        }
        _ => ctx.reply.integer(0),
    }
    Ok(())
}

fn rename_generic(ctx: &mut Ctx<'_>, args: Args<'_>, only_if_free: bool) -> CommandResult {
    let (from, to) = (ctx.key_of(args.at(1)), ctx.key_of(args.at(2)));
    let db = ctx.client.db;
    let Some(source) = ctx.keys.db(db, from.bytes).lookup_write(ctx.core, from) else {
        return Err(CommandError::NoSuchKey);
    };
    if from.bytes == to.bytes {
        match only_if_free {
            true => ctx.reply.integer(0),
            false => ctx.reply.ok(),
        }
        return Ok(());
    }
    let target = ctx.keys.db(db, to.bytes);
    if target.lookup_write(ctx.core, to).is_some() {
        if only_if_free {
            ctx.reply.integer(0);
            return Ok(());
        }
        target.delete_lazily(ctx.core, to, ctx.core.config.lazyfree_lazy_server_del);
        ctx.changed(Event::GENERIC, "del", to.bytes);
    }
    let at = source.expire_at();
    let source_db = ctx.keys.db(db, from.bytes);
    source_db.before_write(from.bytes);
    let entry = source_db.unlink(from).expect("it was looked up above");
    let stamp = entry.lru();
    // SAFETY: `unlink` gave the entry to this function, which gives it to the other key.
    let entry = unsafe { entry.with_key(to.bytes) };
    debug_assert_eq!(entry.expire_at(), at);
    let target = ctx.keys.db(db, to.bytes);
    target.before_write(to.bytes);
    target.add(ctx.core, to, entry);
    let mut moved = entry;
    moved.set_lru(stamp);
    ctx.changed(Event::GENERIC, "rename_from", from.bytes);
    ctx.core.notify(Event::GENERIC, "rename_to", to.bytes, db);
    match only_if_free {
        true => ctx.reply.integer(1),
        false => ctx.reply.ok(),
    }
    Ok(())
}

fn rename(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    rename_generic(ctx, args, false)
}

fn renamenx(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    rename_generic(ctx, args, true)
}

/// An argument that Redis reads as a C `int`, with its error for what is a number and no `int`.
pub fn int_arg(text: &[u8]) -> Result<i32, CommandError> {
    let n = parse_i64(text).ok_or(CommandError::NotInteger)?;
    i32::try_from(n).map_err(|_| "ERR value is out of range, value must between -2147483648 and 2147483647".into())
}

/// A database's number from an argument.
fn db_arg(ctx: &Ctx<'_>, text: &[u8]) -> Result<u16, CommandError> {
    let n = int_arg(text)?;
    match n >= 0 && (n as u64) < ctx.core.config.databases as u64 {
        true => Ok(n as u16),
        false => Err("ERR DB index is out of range".into()),
    }
}

fn copy(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let (mut replace, mut to_db) = (false, ctx.client.db);
    let mut i = 3;
    while i < args.len() {
        if args.is(i, "replace") {
            replace = true;
        } else if args.is(i, "db") && i + 1 < args.len() {
            i += 1;
            to_db = db_arg(ctx, args.at(i))?;
        } else {
            return Err(CommandError::Syntax);
        }
        i += 1;
    }
    let (from, to) = (ctx.key_of(args.at(1)), ctx.key_of(args.at(2)));
    if from.bytes == to.bytes && to_db == ctx.client.db {
        return Err("ERR source and destination objects are the same".into());
    }
    let Some(source) = ctx.keys.db(ctx.client.db, from.bytes).lookup_read(ctx.core, from) else {
        ctx.reply.integer(0);
        return Ok(());
    };
    let target = ctx.keys.db(to_db, to.bytes);
    if target.lookup_write(ctx.core, to).is_some() {
        if !replace {
            ctx.reply.integer(0);
            return Ok(());
        }
        target.delete(to);
    }
    let entry = crate::db::duplicate(source, to.bytes);
    let target = ctx.keys.db(to_db, to.bytes);
    target.before_write(to.bytes);
    target.add(ctx.core, to, entry);
    if ctx.apart(from.bytes, to.bytes) {
        ctx.effect_state(to_db, to.bytes);
    }
    ctx.dirty += 1;
    ctx.core.notify(Event::GENERIC, "copy_to", to.bytes, to_db);
    ctx.reply.integer(1);
    Ok(())
}

fn move_key(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let to_db = db_arg(ctx, args.at(2))?;
    let from_db = ctx.client.db;
    if to_db == from_db {
        return Err("ERR source and destination objects are the same".into());
    }
    let key = ctx.key(args, 1);
    let found = ctx.keys.db(from_db, key.bytes).lookup_write(ctx.core, key);
    let target = ctx.keys.db(to_db, key.bytes);
    if found.is_none() || target.lookup_write(ctx.core, key).is_some() {
        ctx.reply.integer(0);
        return Ok(());
    }
    let source = ctx.keys.db(from_db, key.bytes);
    source.before_write(key.bytes);
    let entry = source.unlink(key).expect("it was looked up above");
    let target = ctx.keys.db(to_db, key.bytes);
    target.before_write(key.bytes);
    target.add(ctx.core, key, entry);
    ctx.changed(Event::GENERIC, "move_from", key.bytes);
    ctx.core.notify(Event::GENERIC, "move_to", key.bytes, to_db);
    ctx.reply.integer(1);
    Ok(())
}

fn randomkey(ctx: &mut Ctx<'_>, _: Args<'_>) -> CommandResult {
    let now = ctx.core.now_ms;
    let core = &mut *ctx.core;
    // Keys whose time has come go, as in Redis. Where they must stay, a bounded number is met before one is given.
    let mut attempt = 0;
    loop {
        let total: usize = ctx.keys.dbs(ctx.client.db).map(|db| db.dict.len()).sum();
        if total == 0 {
            break;
        }
        let mut pick = core.rng.below(total as u64) as usize;
        let mut chosen = None;
        for db in ctx.keys.dbs(ctx.client.db) {
            if pick < db.dict.len() {
                chosen = db.dict.random(&mut || core.rng.next_u64()).map(|entry| (db, entry));
                break;
            }
            pick -= db.dict.len();
        }
        let Some((db, entry)) = chosen else { break };
        let live = entry.expire_at().is_none_or(|at| at > now);
        attempt += 1;
        if live || attempt == 100 {
            ctx.reply.bulk(entry.key());
            return Ok(());
        }
        if !core.keeps_expired {
            let name = entry.key().to_vec();
            db.expire_now(core, Key { hash: core.hasher.hash(&name), bytes: &name });
        }
    }
    ctx.reply.null();
    Ok(())
}

fn keys(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let pattern = args.at(1);
    let all = pattern == b"*";
    let now = ctx.core.now_ms;
    let list = ctx.reply.open_list();
    let mut count = 0;
    let reply = &mut ctx.reply;
    for db in ctx.keys.dbs(ctx.client.db) {
        db.dict.for_each(|entry: EntryPtr| {
            let live = entry.expire_at().is_none_or(|at| at > now);
            if live && (all || glob::matches(pattern, entry.key(), false)) {
                reply.bulk(entry.key());
                count += 1;
            }
        });
    }
    ctx.reply.close_list(list, count);
    Ok(())
}

/// Options of the `SCAN` family.
pub struct ScanOptions<'a> {
    /// `COUNT`.
    pub count: usize,
    /// `MATCH`, unless it matches everything.
    pub pattern: Option<&'a [u8]>,
    /// `TYPE`.
    pub kind: Option<Kind>,
}

impl<'a> ScanOptions<'a> {
    /// Options from argument `from` on; `typed` says whether `TYPE` is one of them.
    pub fn parse(args: Args<'a>, from: usize, typed: bool) -> Result<Self, CommandError> {
        let mut options = ScanOptions { count: 10, pattern: None, kind: None };
        let mut i = from;
        while i < args.len() {
            let Some(value) = args.get(i + 1) else { return Err(CommandError::Syntax) };
            if args.is(i, "count") {
                let count = parse_i64(value).ok_or(CommandError::NotInteger)?;
                if count < 1 {
                    return Err(CommandError::Syntax);
                }
                options.count = count as usize;
            } else if args.is(i, "match") {
                options.pattern = (value != b"*").then_some(value);
            } else if typed && args.is(i, "type") {
                let known = |kind: &Kind| value.eq_ignore_ascii_case(kind.name().as_bytes());
                options.kind = Kind::ALL.iter().copied().find(known);
                if options.kind.is_none() {
                    // Since Redis 8; older ones find nothing.
                    let name = String::from_utf8_lossy(value);
                    return Err(format!("ERR unknown type name '{name}'").into());
                }
            } else {
                return Err(CommandError::Syntax);
            }
            i += 2;
        }
        Ok(options)
    }
}

/// Reads a cursor.
pub fn cursor_arg(text: &[u8]) -> Result<u64, CommandError> {
    parse_u64(text).ok_or_else(|| "ERR invalid cursor".into())
}

fn scan(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let cursor = cursor_arg(args.at(1))?;
    let options = ScanOptions::parse(args, 2, true)?;
    let shard = crate::router::cursor_shard(args.at(1), ctx.core.shards) as usize;
    let mut position = cursor & ((1 << CURSOR_POSITION_BITS) - 1);
    let now = ctx.core.now_ms;
    let db = ctx.keys.dbs(ctx.client.db).next().expect("routed to the cursor's shard");
    let mut found: Vec<EntryPtr> = Vec::new();
    // Ten buckets a wanted key at most: a sparse table must not hold up the shard.
    for _ in 0..options.count.saturating_mul(10) {
        position = db.dict.scan(position, &mut |entry| found.push(entry));
        if position == 0 || found.len() >= options.count {
            break;
        }
    }
    let mut expired: Vec<Vec<u8>> = Vec::new();
    found.retain(|entry| {
        if options.pattern.is_some_and(|pattern| !glob::matches(pattern, entry.key(), false)) {
            return false;
        }
        // What was not asked for stays where it is even if its time has come.
        if options.kind.is_some_and(|kind| kind != entry.kind()) {
            return false;
        }
        let live = entry.expire_at().is_none_or(|at| at > now);
        if !live {
            expired.push(entry.key().to_vec());
        }
        live
    });
    let next = match position {
        0 if shard + 1 >= ctx.core.shards => 0,
        0 => ((shard + 1) as u64) << CURSOR_POSITION_BITS,
        position => (shard as u64) << CURSOR_POSITION_BITS | position,
    };
    ctx.reply.array(2);
    ctx.reply.bulk(itoa::Buffer::new().format(next).as_bytes());
    ctx.reply.array(found.len());
    for entry in &found {
        ctx.reply.bulk(entry.key());
    }
    for name in expired {
        let key = Key { hash: ctx.core.hasher.hash(&name), bytes: &name };
        let db = ctx.keys.dbs(ctx.client.db).next().expect("as above");
        db.expire_now(ctx.core, key);
    }
    Ok(())
}

fn dbsize(ctx: &mut Ctx<'_>, _: Args<'_>) -> CommandResult {
    let keys: usize = ctx.keys.dbs(ctx.client.db).map(|db| db.dict.len()).sum();
    ctx.reply.integer(keys as i64);
    Ok(())
}

/// Whether what is flushed is freed elsewhere. A flush that is to be done before its reply goes there too, where its
/// client may wait: the shard serves others meanwhile.
fn frees_elsewhere(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<bool, CommandError> {
    let lazily = match args.len() {
        1 => ctx.core.config.lazyfree_lazy_user_flush,
        2 if args.is(1, "async") => true,
        2 if args.is(1, "sync") => false,
        _ => return Err(CommandError::Syntax),
    };
    if lazily || ctx.core.deny_blocking {
        return Ok(lazily);
    }
    ctx.core.freeing = Some(Default::default());
    Ok(true)
}

/// Replies to a flush; the reply waits for what is being freed where it has to.
fn end_flush(ctx: &mut Ctx<'_>) {
    if ctx.core.tracked {
        crate::tracking::flushed(ctx.core, ctx.keys.slices());
    }
    ctx.reply.ok();
    if let Some(freeing) = ctx.core.freeing.take() {
        ctx.core.awaited_frees.push(AwaitedFree::new(ctx.client, freeing));
    }
}

fn flushdb(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let lazily = frees_elsewhere(ctx, args)?;
    for db in ctx.keys.dbs(ctx.client.db) {
        ctx.dirty += db.empty(ctx.core, lazily) as u64;
    }
    // Told even where there was nothing, as in Redis.
    let words: Vec<&[u8]> = args.iter_from(0).collect();
    ctx.effect(&words);
    end_flush(ctx);
    Ok(())
}

fn flushall(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let lazily = frees_elsewhere(ctx, args)?;
    // As Redis ends the child that writes a snapshot of what is to go.
    ctx.core.shared.persistence.give_up_own();
    for slice in ctx.keys.slices() {
        for db in &mut slice.dbs {
            ctx.dirty += db.empty(ctx.core, lazily) as u64;
        }
    }
    // It is told even where there was nothing, as in Redis.
    let words: Vec<&[u8]> = args.iter_from(0).collect();
    ctx.effect(&words);
    if !ctx.core.config.save.is_empty() && !ctx.core.time_stands_still() {
        // Who has save points wants no file to bring back what was flushed. It is written at once: it is next to empty.
        ctx.dirty = 0;
        super::save::save_flushed(ctx);
    }
    end_flush(ctx);
    Ok(())
}

fn swapdb(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    // Both are read before either is held against the number of databases.
    let read = |index: usize, which: &str| {
        int_arg(args.at(index)).map_err(|_| CommandError::new(format!("ERR invalid {which} DB index")))
    };
    let (a, b) = (read(1, "first")?, read(2, "second")?);
    let databases = 0..ctx.core.config.databases as i64;
    if !databases.contains(&(a as i64)) || !databases.contains(&(b as i64)) {
        return Err("ERR DB index is out of range".into());
    }
    let (a, b) = (a as usize, b as usize);
    ctx.dirty += 1;
    if a != b {
        let (hasher, now_ms) = (ctx.core.hasher.clone(), ctx.core.now_ms);
        for slice in ctx.keys.slices() {
            let (low, high) = slice.dbs.split_at_mut(a.max(b));
            low[a.min(b)].swap_keys(&mut high[0], &hasher, now_ms);
        }
    }
    ctx.reply.ok();
    Ok(())
}

fn object_lookup(ctx: &mut Ctx<'_>, args: Args<'_>) -> Option<EntryPtr> {
    let key = ctx.key(args, 2);
    peek(ctx, key)
}

fn object_encoding(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    match object_lookup(ctx, args) {
        Some(entry) => ctx.reply.bulk(entry.encoding().name().as_bytes()),
        None => ctx.reply.null(),
    }
    Ok(())
}

/// Redis shares the integers below 10000 among keys, unless LRU or LFU needs a stamp on each.
const SHARED_INTEGERS: i64 = 10_000;

fn object_refcount(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let config = &ctx.core.config;
    let shares = config.maxmemory == 0 || !(config.maxmemory_policy.is_lru() || config.maxmemory_policy.is_lfu());
    match object_lookup(ctx, args) {
        Some(entry) => match entry.string() {
            // Nothing is shared here, but clients that look see what Redis says of such values.
            Some(StrRef::Int(n)) if shares && (0..SHARED_INTEGERS).contains(&n) => ctx.reply.integer(i32::MAX as i64),
            _ => ctx.reply.integer(1),
        },
        None => ctx.reply.null(),
    }
    Ok(())
}

fn object_idletime(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let Some(entry) = object_lookup(ctx, args) else {
        ctx.reply.null();
        return Ok(());
    };
    if ctx.core.config.maxmemory_policy.is_lfu() {
        return Err("ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching \
                    between policies at runtime LRU and LFU data will take some time to adjust."
            .into());
    }
    let idle = evict::idle_seconds(entry, ctx.core);
    ctx.reply.integer(idle as i64);
    Ok(())
}

fn object_freq(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let Some(entry) = object_lookup(ctx, args) else {
        ctx.reply.null();
        return Ok(());
    };
    if !ctx.core.config.maxmemory_policy.is_lfu() {
        return Err(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
                    switching between policies at runtime LRU and LFU data will take some time to adjust."
                .into(),
        );
    }
    let count = evict::lfu_count(entry.lru(), ctx.core);
    ctx.reply.integer(count as i64);
    Ok(())
}

fn object_help(shard: &mut crate::shard::Shard, index: u32, _: Args<'_>) -> CommandResult {
    super::help(
        shard,
        index,
        "OBJECT",
        &[
            ("ENCODING <key>", "Return the kind of internal representation used in order to store the value."),
            ("FREQ <key>", "Return the access frequency index of the key."),
            ("IDLETIME <key>", "Return the idle time of the key in seconds."),
            ("REFCOUNT <key>", "Return the number of references of the value."),
        ],
    )
}

#[cfg(test)]
mod tests;
