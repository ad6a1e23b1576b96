//! Hashes: `HSET`, `HGET` and their family. Counterpart: `t_hash.c`.

use super::keys::{ScanOptions, cursor_arg};
use super::{Command, CommandError, CommandResult, Ctx, Group, Key, KeySpec, flag, key};
use crate::args::Args;
use crate::core::Event;
use crate::dict::Hasher;
use crate::entry::{EntryPtr, Kind, StrRef};
use crate::glob;
use crate::number::{add_decimal, parse_f64, parse_i64};
use crate::object::{Object, ObjectMut, ObjectRef};
use crate::resp::Reply;
use crate::types::Hash;
use crate::types::hash::Limits;

use flag::*;

const LOOK: &[KeySpec] = &[KeySpec::one(1, key::RO)];
const READ: &[KeySpec] = &[KeySpec::one(1, key::RO | key::ACCESS)];
const UPDATE: &[KeySpec] = &[KeySpec::one(1, key::RW | key::UPDATE)];
const ADD: &[KeySpec] = &[KeySpec::one(1, key::RW | key::ACCESS | key::UPDATE)];

const HASH: Group = Group::Hash;

/// Most fields that `HRANDFIELD` with a negative count repeats in one reply.
const MAX_REPEATED: u64 = 1 << 24;

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::data("hset", hset, -4, WRITE | DENYOOM | FAST, HASH).keys(UPDATE).doc(
        "2.0.0",
        "O(N), N being the number of fields",
        "Sets fields of a hash.",
        "key field value [field value ...]",
    ),
    Command::data("hmset", hmset, -4, WRITE | DENYOOM | FAST, HASH).keys(UPDATE).doc(
        "2.0.0",
        "O(N), N being the number of fields",
        "Sets fields of a hash (the old name of HSET).",
        "key field value [field value ...]",
    ),
    Command::data("hsetnx", hsetnx, 4, WRITE | DENYOOM | FAST, HASH)
        .keys(&[KeySpec::one(1, key::RW | key::INSERT)])
        .doc("2.0.0", "O(1)", "Sets a field of a hash if it does not exist.", "key field value"),
    Command::data("hget", hget, 3, READONLY | FAST, HASH).keys(READ).doc(
        "2.0.0",
        "O(1)",
        "Returns the value of a field of a hash.",
        "key field",
    ),
    Command::data("hmget", hmget, -3, READONLY | FAST, HASH).keys(READ).doc(
        "2.0.0",
        "O(N), N being the number of fields",
        "Returns the values of fields of a hash.",
        "key field [field ...]",
    ),
    Command::data("hgetall", hgetall, 2, READONLY, HASH).keys(READ).doc(
        "2.0.0",
        "O(N), N being the size of the hash",
        "Returns all fields of a hash with their values.",
        "key",
    ),
    Command::data("hkeys", hkeys, 2, READONLY, HASH).keys(READ).doc(
        "2.0.0",
        "O(N), N being the size of the hash",
        "Returns all fields of a hash.",
        "key",
    ),
    Command::data("hvals", hvals, 2, READONLY, HASH).keys(READ).doc(
        "2.0.0",
        "O(N), N being the size of the hash",
        "Returns all values of a hash.",
        "key",
    ),
    Command::data("hdel", hdel, -3, WRITE | FAST, HASH).keys(&[KeySpec::one(1, key::RW | key::DELETE)]).doc(
        "2.0.0",
        "O(N), N being the number of fields",
        "Removes fields of a hash, and the hash with the last one.",
        "key field [field ...]",
    ),
    Command::data("hlen", hlen, 2, READONLY | FAST, HASH).keys(LOOK).doc(
        "2.0.0",
        "O(1)",
        "Returns the number of fields of a hash.",
        "key",
    ),
    Command::data("hstrlen", hstrlen, 3, READONLY | FAST, HASH).keys(LOOK).doc(
        "3.2.0",
        "O(1)",
        "Returns the length of the value of a field of a hash.",
        "key field",
    ),
    Command::data("hexists", hexists, 3, READONLY | FAST, HASH).keys(LOOK).doc(
        "2.0.0",
        "O(1)",
        "Tells whether a hash has a field.",
        "key field",
    ),
    Command::data("hincrby", hincrby, 4, WRITE | DENYOOM | FAST, HASH).keys(ADD).doc(
        "2.0.0",
        "O(1)",
        "Adds to the integer in a field of a hash.",
        "key field increment",
    ),
    Command::data("hincrbyfloat", hincrbyfloat, 4, WRITE | DENYOOM | FAST, HASH).keys(ADD).doc(
        "2.6.0",
        "O(1)",
        "Adds to the floating-point number in a field of a hash.",
        "key field increment",
    ),
    Command::data("hrandfield", hrandfield, -2, READONLY, HASH).keys(READ).doc(
        "6.2.0",
        "O(N), N being the number of fields returned",
        "Returns random fields of a hash.",
        "key [count [WITHVALUES]]",
    ),
    Command::data("hscan", hscan, -3, READONLY, HASH).keys(READ).doc(
        "2.8.0",
        "O(1) a call, O(N) for a whole iteration",
        "Iterates over the fields of a hash.",
        "key cursor [MATCH pattern] [COUNT count] [NOVALUES]",
    ),
];

pub(super) fn find_read(ctx: &mut Ctx<'_>, key: Key<'_>) -> Result<Option<EntryPtr>, CommandError> {
    ctx.keys.db(ctx.client.db, key.bytes).lookup_read_kind(ctx.core, key, Kind::Hash)
}

pub(super) fn find_write(ctx: &mut Ctx<'_>, key: Key<'_>) -> Result<Option<EntryPtr>, CommandError> {
    ctx.keys.db(ctx.client.db, key.bytes).lookup_write_kind(ctx.core, key, Kind::Hash)
}

/// The hash of an entry of that kind.
pub(super) fn hash_of(entry: &EntryPtr) -> &Hash {
    match entry.object() {
        Some(ObjectRef::Hash(hash)) => hash,
        _ => unreachable!("a hash is an hash"),
    }
}

/// Lets `f` change the hash at `key`, which is made if it was not found. Announces the change.
pub(super) fn change<T>(
    ctx: &mut Ctx<'_>,
    key: Key<'_>,
    found: Option<EntryPtr>,
    f: impl FnOnce(&mut Hash, &Hasher, Limits) -> T,
) -> T {
    let limits = Limits::of(&ctx.core.config);
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    if let Some(entry) = found {
        db.before_write(key.bytes);
        return db.with_object_mut(entry, |object| match object {
            ObjectMut::Hash(hash) => f(hash, &ctx.core.hasher, limits),
            _ => unreachable!("a hash is an hash"),
        });
    }
    let mut hash = Hash::new();
    let result = f(&mut hash, &ctx.core.hasher, limits);
    db.add_object(ctx.core, key, Object::Hash(hash));
    result
}

pub(super) fn reply_text(reply: &mut Reply<'_>, value: Option<StrRef<'_>>) {
    match value {
        Some(StrRef::Bytes(bytes)) => reply.bulk(bytes),
        Some(StrRef::Int(n)) => reply.bulk_integer(n),
        None => reply.null(),
    }
}

/// The value of a field, copied.
fn value_of(found: &Option<EntryPtr>, field: &[u8]) -> Option<Vec<u8>> {
    let copy = |value: StrRef<'_>| value.as_bytes(&mut itoa::Buffer::new()).to_vec();
    hash_of(found.as_ref()?).get(field, |value| value.map(copy))
}

/// The hash at a key after those of `fields` whose time has come were removed from it; `None` if that was all.
pub(super) fn without_expired<'f>(
    ctx: &mut Ctx<'_>,
    key: Key<'_>,
    found: Option<EntryPtr>,
    fields: impl Iterator<Item = &'f [u8]>,
) -> Option<EntryPtr> {
    let entry = found?;
    let now = ctx.core.now_ms;
    if hash_of(&entry).next_expire().is_none_or(|at| at > now) {
        return found;
    }
    let due: Vec<&[u8]> = fields.filter(|field| hash_of(&entry).is_expired(field, now)).collect();
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    match due.is_empty() || !db.expire_fields(ctx.core, key, entry, &due) {
        true => found,
        false => None,
    }
}

/// Sets the fields of `HSET` and `HMSET`; returns how many are new.
fn set_fields(ctx: &mut Ctx<'_>, args: Args<'_>, name: &'static str) -> Result<i64, CommandError> {
    if args.len() % 2 == 1 {
        return Err(CommandError::Arity(name));
    }
    let key = ctx.key(args, 1);
    let found = find_write(ctx, key)?;
    let found = without_expired(ctx, key, found, args.iter_from(2).step_by(2));
    let added = change(ctx, key, found, |hash, hasher, limits| {
        hash.prepare(hasher, limits, args.iter_from(2));
        let pairs = (2..args.len()).step_by(2);
        pairs.filter(|&i| hash.replace(hasher, limits, args.at(i), args.at(i + 1))).count()
    });
    ctx.changed(Event::HASH, "hset", key.bytes);
    ctx.dirty += args.len() as u64 / 2 - 2;
    Ok(added as i64)
}

fn hset(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let added = set_fields(ctx, args, "hset")?;
    ctx.reply.integer(added);
    Ok(())
}

fn hmset(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    set_fields(ctx, args, "hmset")?;
    ctx.reply.ok();
    Ok(())
}

fn hsetnx(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let found = find_write(ctx, key)?;
    let found = without_expired(ctx, key, found, std::iter::once(args.at(2)));
    if found.as_ref().is_some_and(|entry| hash_of(entry).contains(args.at(2))) {
        ctx.reply.integer(0);
        return Ok(());
    }
    change(ctx, key, found, |hash, hasher, limits| hash.set(hasher, limits, args.at(2), args.at(3)));
    ctx.changed(Event::HASH, "hset", key.bytes);
    ctx.reply.integer(1);
    Ok(())
}

fn hget(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let found = find_read(ctx, key)?;
    match without_expired(ctx, key, found, std::iter::once(args.at(2))) {
        Some(entry) => hash_of(&entry).get(args.at(2), |value| reply_text(&mut ctx.reply, value)),
        None => ctx.reply.null(),
    }
    Ok(())
}

fn hmget(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let found = find_read(ctx, key)?;
    let found = without_expired(ctx, key, found, args.iter_from(2));
    ctx.reply.array(args.len() - 2);
    for field in args.iter_from(2) {
        match &found {
            Some(entry) => hash_of(entry).get(field, |value| reply_text(&mut ctx.reply, value)),
            None => ctx.reply.null(),
        }
    }
    Ok(())
}

fn hgetall(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let Some(entry) = find_read(ctx, key)? else {
        ctx.reply.map(0);
        return Ok(());
    };
    let hash = hash_of(&entry);
    let now = ctx.core.now_ms;
    ctx.reply.map(hash.live_len(now));
    hash.for_each_live(now, |field, value| {
        reply_text(&mut ctx.reply, Some(field));
        reply_text(&mut ctx.reply, Some(value));
    });
    Ok(())
}

fn hkeys(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    halves(ctx, args, true)
}

fn hvals(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    halves(ctx, args, false)
}

fn halves(ctx: &mut Ctx<'_>, args: Args<'_>, fields: bool) -> CommandResult {
    let key = ctx.key(args, 1);
    let Some(entry) = find_read(ctx, key)? else {
        ctx.reply.array(0);
        return Ok(());
    };
    let hash = hash_of(&entry);
    let now = ctx.core.now_ms;
    ctx.reply.array(hash.live_len(now));
    hash.for_each_live(now, |field, value| reply_text(&mut ctx.reply, Some(if fields { field } else { value })));
    Ok(())
}

fn hdel(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    // Whether a field's time has come is not asked: it goes and counts either way, as in Redis.
    let found = find_write(ctx, key)?;
    let present = |entry: &EntryPtr| args.iter_from(2).any(|field| hash_of(entry).contains(field));
    if !found.as_ref().is_some_and(present) {
        ctx.reply.integer(0);
        return Ok(());
    }
    let (removed, empty) = change(ctx, key, found, |hash, _, _| {
        let removed = args.iter_from(2).filter(|field| hash.remove(field)).count();
        (removed, hash.is_empty())
    });
    ctx.changed(Event::HASH, "hdel", key.bytes);
    ctx.dirty += removed as u64 - 1;
    if empty {
        ctx.db(key).delete(key);
        ctx.core.notify(Event::GENERIC, "del", key.bytes, ctx.client.db);
    }
    ctx.reply.integer(removed as i64);
    Ok(())
}

fn hlen(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let len = find_read(ctx, key)?.map_or(0, |entry| hash_of(&entry).len());
    ctx.reply.integer(len as i64);
    Ok(())
}

fn hstrlen(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let found = find_read(ctx, key)?;
    let found = without_expired(ctx, key, found, std::iter::once(args.at(2)));
    let len = found.map_or(0, |entry| hash_of(&entry).get(args.at(2), |value| value.map_or(0, |v| v.len())));
    ctx.reply.integer(len as i64);
    Ok(())
}

fn hexists(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let found = find_read(ctx, key)?;
    let found = without_expired(ctx, key, found, std::iter::once(args.at(2)));
    ctx.reply.integer(found.is_some_and(|entry| hash_of(&entry).contains(args.at(2))) as i64);
    Ok(())
}

fn hincrby(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let increment = parse_i64(args.at(3)).ok_or(CommandError::NotInteger)?;
    let key = ctx.key(args, 1);
    let found = find_write(ctx, key)?;
    let found = without_expired(ctx, key, found, std::iter::once(args.at(2)));
    let old = match value_of(&found, args.at(2)) {
        Some(text) => parse_i64(&text).ok_or("ERR hash value is not an integer")?,
        None => 0,
    };
    let new = old.checked_add(increment).ok_or("ERR increment or decrement would overflow")?;
    let text = itoa::Buffer::new().format(new).to_owned();
    change(ctx, key, found, |hash, hasher, limits| hash.set(hasher, limits, args.at(2), text.as_bytes()));
    ctx.changed(Event::HASH, "hincrby", key.bytes);
    ctx.reply.integer(new);
    Ok(())
}

fn hincrbyfloat(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let increment = parse_f64(args.at(3)).ok_or(CommandError::NotFloat)?;
    if increment.is_infinite() {
        return Err("ERR value is NaN or Infinity".into());
    }
    let key = ctx.key(args, 1);
    let found = find_write(ctx, key)?;
    let found = without_expired(ctx, key, found, std::iter::once(args.at(2)));
    let old = value_of(&found, args.at(2)).unwrap_or_else(|| b"0".to_vec());
    parse_f64(&old).ok_or("ERR hash value is not a float")?;
    let new = add_decimal(&old, args.at(3))?;
    change(ctx, key, found, |hash, hasher, limits| hash.set(hasher, limits, args.at(2), new.as_bytes()));
    ctx.effect(&[b"HSET", key.bytes, args.at(2), new.as_bytes()]);
    ctx.changed(Event::HASH, "hincrbyfloat", key.bytes);
    ctx.reply.bulk(new.as_bytes());
    Ok(())
}

/// The hash at a key after all fields whose time has come were removed from it.
fn find_all_live(ctx: &mut Ctx<'_>, key: Key<'_>) -> Result<Option<EntryPtr>, CommandError> {
    let found = find_read(ctx, key)?;
    let now = ctx.core.now_ms;
    let due = found.as_ref().and_then(|entry| Some(hash_of(entry).expires()?.due(now, usize::MAX)));
    Ok(without_expired(ctx, key, found, due.unwrap_or_default().iter().map(|field| &**field)))
}

fn hrandfield(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let Some(count) = args.get(2) else {
        match find_all_live(ctx, key)? {
            Some(entry) => {
                hash_of(&entry).random(&mut ctx.core.rng, 1, |field, _| reply_text(&mut ctx.reply, Some(field)))
            }
            None => ctx.reply.null(),
        }
        return Ok(());
    };
    let count = parse_i64(count).ok_or(CommandError::NotInteger)?;
    if count == i64::MIN {
        let range = format!("ERR value is out of range, value must between {} and {}", -i64::MAX, i64::MAX);
        return Err(range.into());
    }
    let with_values = args.len() == 4 && args.is(3, "withvalues");
    if args.len() > 3 && !with_values {
        return Err(CommandError::Syntax);
    }
    if with_values && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(CommandError::OutOfRange);
    }
    let found = find_all_live(ctx, key)?;
    let Some(entry) = found.filter(|_| count != 0) else {
        ctx.reply.array(0);
        return Ok(());
    };
    let hash = hash_of(&entry);
    let wanted = match count {
        // Redis goes on until the client's output limit; a bound of its own keeps one reply from taking all memory.
        ..0 if count.unsigned_abs() > MAX_REPEATED => return Err(CommandError::OutOfRange),
        ..0 => count.unsigned_abs() as usize,
        _ => usize::try_from(count).map_or(hash.len(), |count| count.min(hash.len())),
    };
    let paired = with_values && ctx.reply.resp == 3;
    ctx.reply.array(if with_values && !paired { 2 * wanted } else { wanted });
    let emit = |field: StrRef<'_>, value: StrRef<'_>| {
        if paired {
            ctx.reply.array(2);
        }
        reply_text(&mut ctx.reply, Some(field));
        if with_values {
            reply_text(&mut ctx.reply, Some(value));
        }
    };
    match count < 0 {
        true => hash.random(&mut ctx.core.rng, wanted, emit),
        false => hash.random_distinct(&mut ctx.core.rng, wanted, emit),
    }
    Ok(())
}

/// Options of `HSCAN` and whether values are wanted.
fn scan_options(args: Args<'_>) -> Result<(ScanOptions<'_>, bool), CommandError> {
    let mut options = ScanOptions { count: 10, pattern: None, kind: None };
    let (mut values, mut i) = (true, 3);
    while i < args.len() {
        if args.is(i, "novalues") {
            values = false;
            i += 1;
            continue;
        }
        let value = args.get(i + 1).ok_or(CommandError::Syntax)?;
        if args.is(i, "count") {
            let count = parse_i64(value).ok_or(CommandError::NotInteger)?;
            options.count = usize::try_from(count).ok().filter(|n| *n > 0).ok_or(CommandError::Syntax)?;
        } else if args.is(i, "match") {
            options.pattern = (value != b"*").then_some(value);
        } else {
            return Err(CommandError::Syntax);
        }
        i += 2;
    }
    Ok((options, values))
}

fn hscan(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let mut cursor = cursor_arg(args.at(2))?;
    let key = ctx.key(args, 1);
    // A missing key is answered before the options are looked at, as in Redis.
    let Some(entry) = find_read(ctx, key)? else {
        ctx.reply.array(2);
        ctx.reply.bulk(b"0");
        ctx.reply.array(0);
        return Ok(());
    };
    let (options, values) = scan_options(args)?;
    let (hash, now) = (hash_of(&entry), ctx.core.now_ms);
    let (mut out, mut passed, mut given) = (Vec::new(), 0, 0);
    let mut reply = Reply::new(&mut out, ctx.reply.resp);
    // Ten buckets a wanted field at most: a sparse table must not hold up the shard.
    for _ in 0..options.count.saturating_mul(10) {
        cursor = hash.scan(cursor, |field, value| {
            passed += 1;
            let text = &mut itoa::Buffer::new();
            if hash.is_expired(field.as_bytes(&mut itoa::Buffer::new()), now) {
                return;
            }
            if options.pattern.is_none_or(|pattern| glob::matches(pattern, field.as_bytes(text), false)) {
                given += 1;
                reply_text(&mut reply, Some(field));
                if values {
                    reply_text(&mut reply, Some(value));
                }
            }
        });
        if cursor == 0 || passed >= options.count {
            break;
        }
    }
    ctx.reply.array(2);
    ctx.reply.bulk(itoa::Buffer::new().format(cursor).as_bytes());
    ctx.reply.array(if values { 2 * given } else { given });
    ctx.reply.out.extend_from_slice(&out);
    Ok(())
}

#[cfg(test)]
mod tests;
