//! Fields of hashes that go by themselves: `HEXPIRE`, `HTTL`, `HPERSIST` and their family, and the commands of Redis
//! 8.0 that read or set fields together with their times. Counterpart: the second half of `t_hash.c`.
//!
//! A field whose time has come is invisible at once: a command that names it removes it first
//! ([`super::hash::without_expired`]), a command over all fields passes over it, and the active expire cycle removes
//! it in time (`db/expire.rs`).

use super::hash::{change, find_read, find_write, hash_of, reply_text, without_expired};
use super::{Command, CommandError, CommandResult, Ctx, Group, Key, KeySpec, flag, key};
use crate::args::Args;
use crate::core::Event;
use crate::entry::EntryPtr;
use crate::number::parse_i64;

use flag::*;

const HASH: Group = Group::Hash;
const UPDATE: &[KeySpec] = &[KeySpec::one(1, key::RW | key::UPDATE)];
const READ: &[KeySpec] = &[KeySpec::one(1, key::RO | key::ACCESS)];
const PER_FIELD: &str = "O(N), N being the number of fields given";
const SET_USAGE: &str = "key time [NX|XX|GT|LT] FIELDS numfields field [field ...]";
const GET_USAGE: &str = "key FIELDS numfields field [field ...]";

/// Farthest time of a field, Unix ms (Redis: `HFE_MAX_ABS_TIME_MSEC`).
const LATEST_MS: i64 = ((1 << 48) - 2) >> 2;

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::data("hexpire", hexpire, -6, WRITE | DENYOOM | FAST, HASH).keys(UPDATE).doc(
        "7.4.0",
        PER_FIELD,
        "Lets fields of a hash go after so many seconds.",
        SET_USAGE,
    ),
    Command::data("hpexpire", hpexpire, -6, WRITE | DENYOOM | FAST, HASH).keys(UPDATE).doc(
        "7.4.0",
        PER_FIELD,
        "Lets fields of a hash go after so many milliseconds.",
        SET_USAGE,
    ),
    Command::data("hexpireat", hexpireat, -6, WRITE | DENYOOM | FAST, HASH).keys(UPDATE).doc(
        "7.4.0",
        PER_FIELD,
        "Lets fields of a hash go at a Unix time in seconds.",
        SET_USAGE,
    ),
    Command::data("hpexpireat", hpexpireat, -6, WRITE | DENYOOM | FAST, HASH).keys(UPDATE).doc(
        "7.4.0",
        PER_FIELD,
        "Lets fields of a hash go at a Unix time in milliseconds.",
        SET_USAGE,
    ),
    Command::data("httl", httl, -5, READONLY | FAST, HASH).keys(READ).doc(
        "7.4.0",
        PER_FIELD,
        "Returns in seconds how long fields of a hash will stay.",
        GET_USAGE,
    ),
    Command::data("hpttl", hpttl, -5, READONLY | FAST, HASH).keys(READ).doc(
        "7.4.0",
        PER_FIELD,
        "Returns in milliseconds how long fields of a hash will stay.",
        GET_USAGE,
    ),
    Command::data("hexpiretime", hexpiretime, -5, READONLY | FAST, HASH).keys(READ).doc(
        "7.4.0",
        PER_FIELD,
        "Returns as Unix seconds when fields of a hash will go.",
        GET_USAGE,
    ),
    Command::data("hpexpiretime", hpexpiretime, -5, READONLY | FAST, HASH).keys(READ).doc(
        "7.4.0",
        PER_FIELD,
        "Returns as Unix milliseconds when fields of a hash will go.",
        GET_USAGE,
    ),
    Command::data("hpersist", hpersist, -5, WRITE | FAST, HASH).keys(UPDATE).doc(
        "7.4.0",
        PER_FIELD,
        "Lets fields of a hash stay.",
        GET_USAGE,
    ),
    Command::data("hgetdel", hgetdel, -5, WRITE | FAST, HASH)
        .keys(&[KeySpec::one(1, key::RW | key::ACCESS | key::DELETE)])
        .doc("8.0.0", PER_FIELD, "Returns the values of fields of a hash and removes them.", GET_USAGE),
    Command::data("hgetex", hgetex, -5, WRITE | FAST, HASH)
        .keys(&[KeySpec::one(1, key::RW | key::ACCESS | key::UPDATE)])
        .doc(
            "8.0.0",
            PER_FIELD,
            "Returns the values of fields of a hash and sets when they go.",
            "key [EX seconds|PX milliseconds|EXAT seconds|PXAT milliseconds|PERSIST] FIELDS numfields field [field ...]",
        ),
    Command::data("hsetex", hsetex, -6, WRITE | DENYOOM | FAST, HASH).keys(UPDATE).doc(
        "8.0.0",
        PER_FIELD,
        "Sets fields of a hash and when they go.",
        "key [FNX|FXX] [EX seconds|PX milliseconds|EXAT seconds|PXAT milliseconds|KEEPTTL] FIELDS numfields field value \
         [field value ...]",
    ),
];

const NO_FIELDS: &str = "ERR Mandatory argument FIELDS is missing or not at the right position";

/// The index of the first field, from that of the word `FIELDS`; each of them takes `step` arguments.
fn fields_at(args: Args<'_>, index: usize, step: usize, not_positive: &'static str) -> Result<usize, CommandError> {
    if !args.is(index, "fields") {
        return Err(NO_FIELDS.into());
    }
    let count = args.get(index + 1).and_then(parse_i64).filter(|count| *count > 0).ok_or(not_positive)?;
    let given = args.len() - index - 2;
    if usize::try_from(count).ok().and_then(|count| count.checked_mul(step)) != Some(given) {
        return Err("ERR The `numfields` parameter must match the number of arguments".into());
    }
    Ok(index + 2)
}

/// A time given in seconds or ms, from now or not, as Unix ms.
fn time_arg(ctx: &Ctx<'_>, text: &[u8], unit_ms: i64, relative: bool, name: &str) -> Result<i64, CommandError> {
    let given = parse_i64(text).ok_or(CommandError::NotInteger)?;
    if given < 0 {
        return Err("ERR invalid expire time, must be >= 0".into());
    }
    let base = if relative { ctx.core.now_ms } else { 0 };
    let at = given.checked_mul(unit_ms).and_then(|ms| ms.checked_add(base)).filter(|at| *at <= LATEST_MS);
    at.ok_or_else(|| CommandError::new(format!("ERR invalid expire time in '{name}' command")))
}

/// When a time may replace another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    IfNone,
    IfSome,
    IfLater,
    IfEarlier,
}

impl Condition {
    fn holds(self, old: Option<i64>, new: i64) -> bool {
        match self {
            Condition::Always => true,
            Condition::IfNone => old.is_none(),
            Condition::IfSome => old.is_some(),
            // A field that stays is one that goes after all others.
            Condition::IfLater => old.is_some_and(|old| new > old),
            Condition::IfEarlier => old.is_none_or(|old| new < old),
        }
    }
}

fn hexpire(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    expire_generic(ctx, args, 1000, true, "hexpire")
}

fn hpexpire(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    expire_generic(ctx, args, 1, true, "hpexpire")
}

fn hexpireat(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    expire_generic(ctx, args, 1000, false, "hexpireat")
}

fn hpexpireat(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    expire_generic(ctx, args, 1, false, "hpexpireat")
}

fn expire_generic(ctx: &mut Ctx<'_>, args: Args<'_>, unit_ms: i64, relative: bool, name: &str) -> CommandResult {
    let key = ctx.key(args, 1);
    let found = find_write(ctx, key)?;
    let at = time_arg(ctx, args.at(2), unit_ms, relative, name)?;
    let words = [
        ("nx", Condition::IfNone),
        ("xx", Condition::IfSome),
        ("gt", Condition::IfLater),
        ("lt", Condition::IfEarlier),
    ];
    let condition = words.iter().find(|(word, _)| args.is(3, word)).map(|(_, condition)| *condition);
    let index = if condition.is_some() { 4 } else { 3 };
    let first = fields_at(args, index, 1, "ERR Parameter `numFields` should be greater than 0")?;
    let word = if condition.is_some() { Some(args.at(3)) } else { None };
    let condition = condition.unwrap_or(Condition::Always);
    let found = without_expired(ctx, key, found, args.iter_from(first));
    ctx.reply.array(args.len() - first);
    let Some(entry) = found else {
        args.iter_from(first).for_each(|_| ctx.reply.integer(-2));
        return Ok(());
    };
    let past = at <= ctx.core.now_ms;
    let (mut updated, mut deleted): (Vec<&[u8]>, Vec<&[u8]>) = (Vec::new(), Vec::new());
    for field in args.iter_from(first) {
        let hash = hash_of(&entry);
        let code = if !hash.contains(field) || deleted.contains(&field) {
            -2
        } else if !condition.holds(hash.expire_at(field), at) {
            0
        } else if past {
            deleted.push(field);
            2
        } else {
            change(ctx, key, found, |hash, _, _| hash.set_expire(field, Some(at)));
            updated.push(field);
            1
        };
        ctx.reply.integer(code);
    }
    if !updated.is_empty() {
        set_times(ctx, key, at, word, &updated);
    }
    remove_fields(ctx, key, entry, &deleted);
    Ok(())
}

/// Reports that fields go at a time; the condition that they met (`NX` …) is repeated, as by Redis.
fn set_times(ctx: &mut Ctx<'_>, key: Key<'_>, at: i64, condition: Option<&[u8]>, fields: &[&[u8]]) {
    ctx.changed(Event::HASH, "hexpire", key.bytes);
    ctx.dirty += fields.len() as u64 - 1;
    let (mut time, mut count) = (itoa::Buffer::new(), itoa::Buffer::new());
    let mut words: Vec<&[u8]> = vec![b"HPEXPIREAT", key.bytes, time.format(at).as_bytes()];
    words.extend(condition);
    words.push(b"FIELDS");
    words.push(count.format(fields.len()).as_bytes());
    words.extend(fields);
    ctx.effect(&words);
}

/// Removes fields, the key with the last of them, and reports it.
fn remove_fields(ctx: &mut Ctx<'_>, key: Key<'_>, entry: EntryPtr, fields: &[&[u8]]) {
    if fields.is_empty() {
        return;
    }
    let empty = change(ctx, key, Some(entry), |hash, _, _| {
        fields.iter().for_each(|field| {
            hash.remove(field);
        });
        hash.is_empty()
    });
    ctx.changed(Event::HASH, "hdel", key.bytes);
    ctx.dirty += fields.len() as u64 - 1;
    // Field by field, as Redis says it; more than one stand in a transaction.
    fields.iter().for_each(|field| ctx.effect(&[b"HDEL", key.bytes, field]));
    if empty {
        ctx.db(key).delete(key);
        ctx.core.notify(Event::GENERIC, "del", key.bytes, ctx.client.db);
    }
}

const NOT_POSITIVE: &str = "ERR Number of fields must be a positive integer";

fn httl(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    ttl_generic(ctx, args, |at, now| (at - now + 999) / 1000)
}

fn hpttl(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    ttl_generic(ctx, args, |at, now| at - now)
}

fn hexpiretime(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    ttl_generic(ctx, args, |at, _| (at + 999) / 1000)
}

fn hpexpiretime(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    ttl_generic(ctx, args, |at, _| at)
}

fn ttl_generic(ctx: &mut Ctx<'_>, args: Args<'_>, show: fn(i64, i64) -> i64) -> CommandResult {
    let key = ctx.key(args, 1);
    let found = find_read(ctx, key)?;
    let first = fields_at(args, 2, 1, NOT_POSITIVE)?;
    let now = ctx.core.now_ms;
    ctx.reply.array(args.len() - first);
    for field in args.iter_from(first) {
        let hash = found.as_ref().map(hash_of).filter(|hash| hash.contains(field) && !hash.is_expired(field, now));
        let code = hash.map_or(-2, |hash| hash.expire_at(field).map_or(-1, |at| show(at, now)));
        ctx.reply.integer(code);
    }
    Ok(())
}

fn hpersist(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let found = find_write(ctx, key)?;
    let first = fields_at(args, 2, 1, NOT_POSITIVE)?;
    let found = without_expired(ctx, key, found, args.iter_from(first));
    ctx.reply.array(args.len() - first);
    let mut changes = 0;
    for field in args.iter_from(first) {
        let hash = found.as_ref().map(hash_of).filter(|hash| hash.contains(field));
        let code = match hash.map(|hash| hash.expire_at(field)) {
            None => -2,
            Some(None) => -1,
            Some(Some(_)) => {
                change(ctx, key, found, |hash, _, _| hash.set_expire(field, None));
                changes += 1;
                1
            }
        };
        ctx.reply.integer(code);
    }
    if changes > 0 {
        ctx.changed(Event::HASH, "hpersist", key.bytes);
        ctx.dirty += changes - 1;
    }
    Ok(())
}

fn reply_values(ctx: &mut Ctx<'_>, found: Option<&EntryPtr>, args: Args<'_>, first: usize) {
    ctx.reply.array(args.len() - first);
    for field in args.iter_from(first) {
        match found {
            Some(entry) => hash_of(entry).get(field, |value| reply_text(&mut ctx.reply, value)),
            None => ctx.reply.null(),
        }
    }
}

/// Those of the fields that a hash has, each once.
fn present<'a>(entry: &EntryPtr, fields: impl Iterator<Item = &'a [u8]>) -> Vec<&'a [u8]> {
    let mut found: Vec<&[u8]> = Vec::new();
    for field in fields.filter(|field| hash_of(entry).contains(field)) {
        if !found.contains(&field) {
            found.push(field);
        }
    }
    found
}

fn hgetdel(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let found = find_write(ctx, key)?;
    let first = fields_at(args, 2, 1, NOT_POSITIVE)?;
    let found = without_expired(ctx, key, found, args.iter_from(first));
    reply_values(ctx, found.as_ref(), args, first);
    if let Some(entry) = found {
        let fields = present(&entry, args.iter_from(first));
        remove_fields(ctx, key, entry, &fields);
    }
    Ok(())
}

/// What `HGETEX` and `HSETEX` do to times.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Time {
    /// Nothing, or what the command does without being told.
    Unsaid,
    At(i64),
    /// `PERSIST` or `KEEPTTL`.
    Word,
}

/// The options before `FIELDS`: the time, which of `FNX` and `FXX` was given, and where `FIELDS` stands.
fn options(ctx: &Ctx<'_>, args: Args<'_>, name: &str, word: &str) -> Result<(Time, Option<bool>, usize), CommandError> {
    let (mut time, mut only, mut i) = (Time::Unsaid, None, 2);
    while i < args.len() && !args.is(i, "fields") {
        let units = [("ex", 1000, true), ("px", 1, true), ("exat", 1000, false), ("pxat", 1, false)];
        if let Some((_, unit, relative)) = units.iter().find(|(unit, ..)| args.is(i, unit)) {
            let text = args.get(i + 1).filter(|_| time == Time::Unsaid).ok_or(CommandError::Syntax)?;
            time = Time::At(time_arg(ctx, text, *unit, *relative, name)?);
            i += 2;
            continue;
        }
        if args.is(i, word) && time == Time::Unsaid {
            time = Time::Word;
        } else if name == "hsetex" && only.is_none() && (args.is(i, "fnx") || args.is(i, "fxx")) {
            only = Some(args.is(i, "fxx"));
        } else {
            return Err(if args.is(i, word) { CommandError::Syntax } else { NO_FIELDS.into() });
        }
        i += 1;
    }
    Ok((time, only, i))
}

fn hgetex(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let found = find_write(ctx, key)?;
    let (time, _, index) = options(ctx, args, "hgetex", "persist")?;
    let first = fields_at(args, index, 1, NOT_POSITIVE)?;
    let found = without_expired(ctx, key, found, args.iter_from(first));
    reply_values(ctx, found.as_ref(), args, first);
    let Some(entry) = found else { return Ok(()) };
    let fields = present(&entry, args.iter_from(first));
    match time {
        _ if fields.is_empty() => {}
        Time::Unsaid => {}
        Time::At(at) if at <= ctx.core.now_ms => remove_fields(ctx, key, entry, &fields),
        Time::At(at) => {
            change(ctx, key, found, |hash, _, _| fields.iter().for_each(|field| hash.set_expire(field, Some(at))));
            set_times(ctx, key, at, None, &fields);
        }
        Time::Word => {
            let going: Vec<&[u8]> =
                fields.into_iter().filter(|field| hash_of(&entry).expire_at(field).is_some()).collect();
            if !going.is_empty() {
                change(ctx, key, found, |hash, _, _| going.iter().for_each(|field| hash.set_expire(field, None)));
                ctx.changed(Event::HASH, "hpersist", key.bytes);
                ctx.dirty += going.len() as u64 - 1;
                let mut count = itoa::Buffer::new();
                let mut words: Vec<&[u8]> = vec![b"HPERSIST", key.bytes, b"FIELDS"];
                words.push(count.format(going.len()).as_bytes());
                words.extend(&going);
                ctx.effect(&words);
            }
        }
    }
    Ok(())
}

fn hsetex(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let found = find_write(ctx, key)?;
    let (time, only, index) = options(ctx, args, "hsetex", "keepttl")?;
    let first = fields_at(args, index, 2, NOT_POSITIVE)?;
    let fields: Vec<&[u8]> = args.iter_from(first).step_by(2).collect();
    let found = without_expired(ctx, key, found, fields.iter().copied());
    let has = |field: &&[u8]| found.as_ref().is_some_and(|entry| hash_of(entry).contains(field));
    let refused = match only {
        None => false,
        Some(true) => !fields.iter().all(has),
        Some(false) => fields.iter().any(has),
    };
    if refused {
        ctx.reply.integer(0);
        return Ok(());
    }
    change(ctx, key, found, |hash, hasher, limits| {
        hash.prepare(hasher, limits, args.iter_from(first));
        for at in (first..args.len()).step_by(2) {
            match time {
                Time::Word => hash.set(hasher, limits, args.at(at), args.at(at + 1)),
                _ => hash.replace(hasher, limits, args.at(at), args.at(at + 1)),
            };
        }
    });
    ctx.changed(Event::HASH, "hset", key.bytes);
    ctx.dirty += fields.len() as u64 - 1;
    if let Time::At(at) = time {
        let words: Vec<&[u8]> = [&b"HSET"[..], key.bytes].into_iter().chain(args.iter_from(first)).collect();
        ctx.effect(&words);
        let entry = find_write(ctx, key)?.expect("it was just written");
        if at <= ctx.core.now_ms {
            let fields = present(&entry, fields.into_iter());
            remove_fields(ctx, key, entry, &fields);
        } else {
            change(ctx, key, Some(entry), |hash, _, _| {
                fields.iter().for_each(|field| hash.set_expire(field, Some(at)));
            });
            set_times(ctx, key, at, None, &fields);
        }
    }
    ctx.reply.integer(1);
    Ok(())
}

#[cfg(test)]
mod tests {
    /// A field whose time has come is still there for `HDEL`, and hashes with such fields are counted.
    #[test]
    fn hdel_counts_what_has_expired() {
        let mut t = crate::testing::Check::new();
        t.check("DEBUG SET-ACTIVE-EXPIRE 0", "OK")
            .check("HSET h a 1 b 2", "2")
            .check("HPEXPIRE h 10 FIELDS 1 a", "[1]");
        t.look("INFO keyspace", |v| assert!(v.text().contains(",subexpiry=1"), "{v}"));
        t.advance(20).check("HDEL h a", "1").check("HDEL h a", "0");
        t.look("INFO keyspace", |v| assert!(v.text().contains(",subexpiry=0"), "{v}"));
    }

    use crate::testing::{Check, Value, World};

    /// In Redis's words: the condition is repeated, and each field that goes has an `HDEL` of its own.
    #[test]
    fn the_log_says_what_redis_says() {
        let mut world = World::new(1);
        world.shards[0].core.active_expire = false;
        world.log_effects();
        let conn = world.connect();
        let at = world.now_ms() + 100;
        let check = |world: &mut World, lines: &[&str], expected: &[&str]| {
            lines.iter().for_each(|line| drop(world.run(conn, line)));
            let said = world.effects();
            assert_eq!(said.iter().filter(|line| *line != "SELECT 0").collect::<Vec<_>>(), expected, "{lines:?}");
        };
        let lines = ["HSET h a 1 b 2 c 3", "HPEXPIRE h 100 NX FIELDS 2 a none", "HPEXPIRE h 100 LT FIELDS 2 a b"];
        let nx = format!("HPEXPIREAT h {at} NX FIELDS 1 a");
        let lt = format!("HPEXPIREAT h {at} LT FIELDS 1 b");
        check(&mut world, &lines, &["HSET h a 1 b 2 c 3", &nx, &lt]);
        world.advance(200);
        check(&mut world, &["HMGET h a b"], &["MULTI", "HDEL h a", "HDEL h b", "EXEC"]);
        check(&mut world, &["HEXPIRE h 0 FIELDS 1 c"], &["HDEL h c"]);
        let lines = ["HSET h a 1 b 2", "HEXPIREAT h 1 FIELDS 3 a b none"];
        check(&mut world, &lines, &["HSET h a 1 b 2", "MULTI", "HDEL h a", "HDEL h b", "EXEC"]);
        world.run(conn, "HSET h a 1 b 2");
        world.run(conn, "HPEXPIRE h 10 FIELDS 2 a b");
        world.effects();
        world.shards[0].core.active_expire = true;
        world.advance(100);
        check(&mut world, &[], &["HDEL h a", "HDEL h b"]);
    }

    /// A time event removes what it has time for, and not some hundreds of fields a second.
    #[test]
    fn many_fields_go_at_once() {
        let mut t = Check::new();
        t.each(|world, conn| {
            for hash in 0..4 {
                for first in 0..10 {
                    let fields: Vec<String> = (0..500).map(|field| format!("{first}:{field}")).collect();
                    let pairs: Vec<String> = fields.iter().map(|field| format!("{field} v")).collect();
                    world.run(conn, &format!("HSET h{hash} {}", pairs.join(" ")));
                    world.run(conn, &format!("HPEXPIRE h{hash} 10 FIELDS 500 {}", fields.join(" ")));
                }
            }
        });
        t.advance(200).check("DBSIZE", "0");
    }

    #[test]
    fn fields_go_when_their_time_comes() {
        let mut t = Check::new();
        t.check("HSET h a 1 b 2 c 3", "3").check("HPEXPIRE h 100 FIELDS 2 a x", "[1 -2]");
        t.check("OBJECT ENCODING h", "\"listpackex\"").check("HPTTL h FIELDS 3 a b x", "[100 -1 -2]");
        t.check("HTTL h FIELDS 1 a", "[1]").check("HPEXPIRE h 200 NX FIELDS 2 a b", "[0 1]");
        t.check("HPEXPIRE h 50 GT FIELDS 1 a", "[0]").check("HPEXPIRE h 50 LT FIELDS 1 c", "[1]");
        t.advance(150);
        t.check("HGET h a", "nil").check("HMGET h a b c", "[nil \"2\" nil]").check("HLEN h", "1");
        t.check("HKEYS h", "[\"b\"]").check("HPERSIST h FIELDS 2 b c", "[1 -2]");
        t.advance(1000);
        t.check("HVALS h", "[\"2\"]").check("HEXPIRE h 0 FIELDS 1 b", "[2]").check("EXISTS h", "0");
    }

    #[test]
    fn an_expired_field_is_invisible_before_it_is_removed() {
        let mut world = World::new(1);
        world.shards[0].core.active_expire = false;
        let conn = world.connect();
        for line in ["HSET h a 1 b 2", "HPEXPIRE h 10 FIELDS 1 a"] {
            world.run(conn, line);
        }
        world.advance(20);
        assert_eq!(world.run(conn, "HLEN h").to_string(), "2", "as in Redis, it is counted until someone looks");
        assert_eq!(world.run(conn, "HKEYS h").to_string(), "[\"b\"]");
        assert_eq!(world.run(conn, "HSCAN h 0").to_string(), "[\"0\" [\"b\" \"2\"]]");
        assert_eq!(world.run(conn, "HINCRBY h a 5").to_string(), "5");
        assert_eq!(world.run(conn, "HPTTL h FIELDS 1 a").to_string(), "[-1]");
    }

    #[test]
    fn hashes_keep_their_times_wherever_they_go() {
        let mut t = Check::new();
        t.check("HSET h a 1 b 2", "2").check("HPEXPIRE h 100 FIELDS 1 a", "[1]").check("COPY h copy", "1");
        t.check("RENAME h renamed", "OK").check("MOVE copy 3", "1").check("SWAPDB 3 4", "OK");
        t.advance(200);
        t.types("HGETALL renamed", "[\"b\" \"2\"]", "{\"b\": \"2\"}");
        t.check("SELECT 4", "OK").check("HKEYS copy", "[\"b\"]");
    }

    #[test]
    fn payloads_keep_the_times_of_fields() {
        for entries in ["512", "0"] {
            let mut world = World::with_config(1, &[("hash-max-listpack-entries", entries)]);
            let conn = world.connect();
            for line in ["HSET h a 1 b two c 3", "HPEXPIRE h 5000 FIELDS 1 a", "HPEXPIRE h 100 FIELDS 1 c"] {
                world.run(conn, line);
            }
            let Value::Bulk(payload) = world.run(conn, "DUMP h") else { panic!("DUMP gives a string") };
            let restored = world.call(conn, &[&b"RESTORE"[..], b"r", b"0", &payload]);
            assert_eq!(restored, b"+OK\r\n");
            assert_eq!(world.run(conn, "HPTTL r FIELDS 3 a b c").to_string(), "[5000 -1 100]");
            world.advance(200);
            assert_eq!(world.run(conn, "HMGET r a b c").to_string(), "[\"1\" \"two\" nil]");
            // Broken anywhere, it is refused or read, and nothing worse.
            for at in 0..payload.len() {
                let mut broken = payload.clone();
                broken[at] ^= 0x55;
                world.run(conn, "DEBUG SET-SKIP-CHECKSUM-VALIDATION 1");
                world.call(conn, &[&b"RESTORE"[..], b"x", b"0", &broken, b"REPLACE"]);
                world.run(conn, "HGETALL x");
            }
        }
    }

    #[test]
    fn values_and_times_in_one_command() {
        let mut t = Check::new();
        t.check("HSETEX h FXX FIELDS 1 a 1", "0").check("HSETEX h EX 100 FIELDS 2 a 1 b 2", "1");
        t.check("HTTL h FIELDS 2 a b", "[100 100]").check("HSETEX h KEEPTTL FIELDS 1 a 9", "1");
        t.check("HTTL h FIELDS 1 a", "[100]").check("HGETEX h PERSIST FIELDS 2 a x", "[\"9\" nil]");
        t.check("HTTL h FIELDS 1 a", "[-1]").check("HGETEX h PX 5000 FIELDS 1 a", "[\"9\"]");
        t.check("HPTTL h FIELDS 1 a", "[5000]").check("HGETDEL h FIELDS 3 a b x", "[\"9\" \"2\" nil]");
        t.check("EXISTS h", "0").check("HGETEX none FIELDS 1 a", "[nil]");
    }

    #[test]
    fn what_is_wrong_is_said_in_redis_words() {
        let mut t = Check::new();
        t.check("SET s v", "OK").check("HSET h a 1", "1");
        t.check("HEXPIRE h -1 FIELDS 1 a", "-ERR invalid expire time, must be >= 0");
        t.check("HPEXPIRE h 281474976710656 FIELDS 1 a", "-ERR invalid expire time in 'hpexpire' command");
        t.check("HEXPIRE h 1 FIELDS 0 a", "-ERR Parameter `numFields` should be greater than 0");
        t.check("HEXPIRE h 1 FIELDS 2 a", "-ERR The `numfields` parameter must match the number of arguments");
        t.check("HTTL h 1 a b c", "-ERR Mandatory argument FIELDS is missing or not at the right position");
        t.check("HTTL h FIELDS 0 a", "-ERR Number of fields must be a positive integer");
        t.check("HEXPIRE s 1 FIELDS 1 a", "-WRONGTYPE Operation against a key holding the wrong kind of value");
    }
}
