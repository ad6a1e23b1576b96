//! Strings: `SET`, `GET` and their family. Counterpart: `t_string.c`.

use super::keys::parse_expire_at;
use super::spec::Split;
use super::{Command, CommandError, CommandResult, Ctx, Group, Key, KeySpec, flag, key};
use crate::args::Args;
use crate::core::Event;
use crate::db::Ttl;
use crate::entry::{EntryPtr, Kind, StrRef};
use crate::number::{parse_f64, parse_i64};

use flag::*;

const ONE_READ: &[KeySpec] = &[KeySpec::one(1, key::RO | key::ACCESS)];
const ONE_UPDATE: &[KeySpec] = &[KeySpec::one(1, key::RW | key::ACCESS | key::UPDATE)];
const ONE_INSERT: &[KeySpec] = &[KeySpec::one(1, key::RW | key::INSERT)];
const ONE_WRITE: &[KeySpec] = &[KeySpec::one(1, key::OW | key::UPDATE)];

const STRING: Group = Group::String;

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::data("get", get, 2, READONLY | FAST, STRING).keys(ONE_READ).doc(
        "1.0.0",
        "O(1)",
        "Returns the string at a key.",
        "key",
    ),
    Command::data("set", set, -3, WRITE | DENYOOM, STRING)
        .keys(&[KeySpec::one(1, key::RW | key::ACCESS | key::UPDATE | key::VARIABLE_FLAGS)])
        .flags_by(set_flags)
        .doc(
            "1.0.0",
            "O(1)",
            "Sets a key to a string, whatever it held.",
            "key value [NX | XX] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT \
             unix-time-milliseconds | KEEPTTL]",
        ),
    Command::data("setnx", setnx, 3, WRITE | DENYOOM | FAST, STRING)
        .keys(&[KeySpec::one(1, key::OW | key::INSERT)])
        .doc("1.0.0", "O(1)", "Sets a key to a string if it does not exist.", "key value"),
    Command::data("setex", setex, 4, WRITE | DENYOOM, STRING).keys(ONE_WRITE).doc(
        "2.0.0",
        "O(1)",
        "Sets a key to a string with a time to live in seconds.",
        "key seconds value",
    ),
    Command::data("psetex", psetex, 4, WRITE | DENYOOM, STRING).keys(ONE_WRITE).doc(
        "2.6.0",
        "O(1)",
        "Sets a key to a string with a time to live in milliseconds.",
        "key milliseconds value",
    ),
    Command::data("getset", getset, 3, WRITE | DENYOOM | FAST, STRING).keys(ONE_UPDATE).doc(
        "1.0.0",
        "O(1)",
        "Sets a key to a string and returns what it held.",
        "key value",
    ),
    Command::data("getdel", getdel, 2, WRITE | FAST, STRING)
        .keys(&[KeySpec::one(1, key::RW | key::ACCESS | key::DELETE)])
        .doc("6.2.0", "O(1)", "Returns the string at a key and removes the key.", "key"),
    Command::data("getex", getex, -2, WRITE | FAST, STRING).keys(ONE_UPDATE).doc(
        "6.2.0",
        "O(1)",
        "Returns the string at a key and changes its time to live.",
        "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]",
    ),
    Command::data("strlen", strlen, 2, READONLY | FAST, STRING).keys(&[KeySpec::one(1, key::RO)]).doc(
        "2.2.0",
        "O(1)",
        "Returns the length of the string at a key.",
        "key",
    ),
    Command::data("append", append, 3, WRITE | DENYOOM | FAST, STRING).keys(ONE_INSERT).doc(
        "2.0.0",
        "O(1) amortized",
        "Adds bytes at the end of the string at a key.",
        "key value",
    ),
    Command::data("setrange", setrange, 4, WRITE | DENYOOM, STRING)
        .keys(&[KeySpec::one(1, key::RW | key::UPDATE)])
        .doc("2.2.0", "O(1) for short values", "Overwrites a part of the string at a key.", "key offset value"),
    Command::data("getrange", getrange, 4, READONLY, STRING).keys(ONE_READ).doc(
        "2.4.0",
        "O(N), N being the length of the reply",
        "Returns a part of the string at a key.",
        "key start end",
    ),
    Command::data("substr", getrange, 4, READONLY, STRING).keys(ONE_READ).doc(
        "1.0.0",
        "O(N), N being the length of the reply",
        "Returns a part of the string at a key (the old name of GETRANGE).",
        "key start end",
    ),
    Command::data("incr", incr, 2, WRITE | DENYOOM | FAST, STRING).keys(ONE_UPDATE).doc(
        "1.0.0",
        "O(1)",
        "Adds one to the integer at a key.",
        "key",
    ),
    Command::data("decr", decr, 2, WRITE | DENYOOM | FAST, STRING).keys(ONE_UPDATE).doc(
        "1.0.0",
        "O(1)",
        "Takes one from the integer at a key.",
        "key",
    ),
    Command::data("incrby", incrby, 3, WRITE | DENYOOM | FAST, STRING).keys(ONE_UPDATE).doc(
        "1.0.0",
        "O(1)",
        "Adds to the integer at a key.",
        "key increment",
    ),
    Command::data("decrby", decrby, 3, WRITE | DENYOOM | FAST, STRING).keys(ONE_UPDATE).doc(
        "1.0.0",
        "O(1)",
        "Takes from the integer at a key.",
        "key decrement",
    ),
    Command::data("incrbyfloat", incrbyfloat, 3, WRITE | DENYOOM | FAST, STRING).keys(ONE_UPDATE).doc(
        "2.6.0",
        "O(1)",
        "Adds to the floating-point number at a key.",
        "key increment",
    ),
    Command::data("mget", mget, -2, READONLY | FAST, STRING)
        .splits(Split::Values)
        .keys(&[KeySpec::range(1, -1, 1, key::RO | key::ACCESS)])
        .doc("1.0.0", "O(N), N being the number of keys", "Returns the strings at several keys.", "key [key ...]"),
    Command::data("mset", mset, -3, WRITE | DENYOOM, STRING)
        .splits(Split::Done)
        .keys(&[KeySpec::range(1, -1, 2, key::OW | key::UPDATE)])
        .doc("1.0.1", "O(N), N being the number of keys", "Sets several keys to strings.", "key value [key value ...]"),
    Command::data("msetnx", msetnx, -3, WRITE | DENYOOM, STRING)
        .splits(Split::IfNone)
        .keys(&[KeySpec::range(1, -1, 2, key::OW | key::INSERT)])
        .doc(
            "1.0.1",
            "O(N), N being the number of keys",
            "Sets several keys to strings if none of them exists.",
            "key value [key value ...]",
        ),
    Command::data("lcs", lcs, -3, READONLY, STRING).keys(&[KeySpec::range(1, 1, 1, key::RO | key::ACCESS)]).doc(
        "7.0.0",
        "O(N*M), N and M being the lengths of the strings",
        "Finds the longest common subsequence of two strings.",
        "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]",
    ),
];

/// `SET` only reads its key where it says `GET`.
fn set_flags(args: Args<'_>) -> u16 {
    match (3..args.len()).any(|i| args.is(i, "get")) {
        true => key::RW | key::ACCESS | key::UPDATE,
        false => key::OW | key::UPDATE,
    }
}

/// Longest string a command may make, `proto-max-bulk-len`.
fn check_length(ctx: &Ctx<'_>, length: u64) -> Result<(), CommandError> {
    match length > ctx.core.config.proto_max_bulk_len {
        true => Err("ERR string exceeds maximum allowed size (proto-max-bulk-len)".into()),
        false => Ok(()),
    }
}

fn reply_string(ctx: &mut Ctx<'_>, entry: EntryPtr) {
    match entry.string() {
        Some(StrRef::Bytes(bytes)) => ctx.reply.bulk(bytes),
        Some(StrRef::Int(n)) => ctx.reply.bulk_integer(n),
        None => ctx.reply.null(),
    }
}

/// The text of the string at an entry.
fn text_of(entry: &EntryPtr) -> Vec<u8> {
    let mut digits = itoa::Buffer::new();
    entry.string().map(|s| s.as_bytes(&mut digits).to_vec()).unwrap_or_default()
}

fn get(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    match db.lookup_read_kind(ctx.core, key, Kind::String)? {
        Some(entry) => reply_string(ctx, entry),
        None => ctx.reply.null(),
    }
    Ok(())
}

/// Options of `SET` and `GETEX`.
#[derive(Default)]
struct SetOptions<'a> {
    nx: bool,
    xx: bool,
    get: bool,
    keep_ttl: bool,
    persist: bool,
    /// A time to live: its text, whether in seconds, whether a point in time.
    expire: Option<(&'a [u8], bool, bool)>,
}

impl SetOptions<'_> {
    /// The point in time that was asked for, in Unix ms. Only now its number is looked at: `GETEX` answers for a key
    /// that does not exist before it complains.
    fn expire_at(&self, ctx: &Ctx<'_>, name: &str) -> Result<Option<i64>, CommandError> {
        self.expire
            .map(|(text, seconds, absolute)| parse_expire_at(ctx.core.now_ms, text, seconds, absolute, name, true))
            .transpose()
    }
}

fn set_options<'a>(args: Args<'a>, from: usize, name: &str) -> Result<SetOptions<'a>, CommandError> {
    let mut options = SetOptions::default();
    let mut i = from;
    let for_set = name == "set";
    while let Some(word) = args.get(i) {
        let next = args.get(i + 1);
        let free = !options.keep_ttl && !options.persist;
        let is = |w: &str| word.eq_ignore_ascii_case(w.as_bytes());
        if for_set && is("nx") && !options.xx {
            options.nx = true;
        } else if for_set && is("xx") && !options.nx {
            options.xx = true;
        } else if for_set && is("get") {
            options.get = true;
        } else if for_set && is("keepttl") && options.expire.is_none() {
            options.keep_ttl = true;
        } else if !for_set && is("persist") && options.expire.is_none() {
            options.persist = true;
        } else if let (true, Some(value)) = (free, next) {
            let (seconds, absolute) = match () {
                _ if is("ex") => (true, false),
                _ if is("px") => (false, false),
                _ if is("exat") => (true, true),
                _ if is("pxat") => (false, true),
                _ => return Err(CommandError::Syntax),
            };
            // The same option may come again, and the last one counts; another one may not.
            if options.expire.is_some_and(|(_, s, a)| (s, a) != (seconds, absolute)) {
                return Err(CommandError::Syntax);
            }
            options.expire = Some((value, seconds, absolute));
            i += 1;
        } else {
            return Err(CommandError::Syntax);
        }
        i += 1;
    }
    Ok(options)
}

fn set(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    if args.len() == 3 {
        let key = ctx.key(args, 1);
        let db = ctx.keys.db(ctx.client.db, key.bytes);
        db.set_string(ctx.core, key, args.at(2), Ttl::Clear);
        ctx.changed(Event::STRING, "set", key.bytes);
        ctx.reply.ok();
        return Ok(());
    }
    let options = set_options(args, 3, "set")?;
    let ttl = match options.expire_at(ctx, "set")? {
        Some(at) => Ttl::At(at),
        None if options.keep_ttl => Ttl::Keep,
        None => Ttl::Clear,
    };
    let key = ctx.key(args, 1);
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    let found = db.lookup_write(ctx.core, key);
    if options.get {
        match found {
            Some(entry) if entry.kind() != Kind::String => return Err(CommandError::WrongType),
            Some(entry) => reply_string(ctx, entry),
            None => ctx.reply.null(),
        }
    }
    if (options.nx && found.is_some()) || (options.xx && found.is_none()) {
        if !options.get {
            ctx.reply.null();
        }
        return Ok(());
    }
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    db.set_string(ctx.core, key, args.at(2), ttl);
    match ttl {
        // Told as it was sent, as Redis does: there is nothing to put in other words.
        Ttl::At(at) if at > ctx.core.now_ms && (3..args.len()).any(|i| args.is(i, "pxat")) => {}
        Ttl::At(at) if at > ctx.core.now_ms => effect_with_time(ctx, key, args.at(2), at),
        Ttl::At(_) => ctx.effect(&[b"DEL", key.bytes]),
        // What it answered with is nothing to repeat.
        Ttl::Keep if options.get => ctx.effect(&[b"SET", key.bytes, args.at(2), b"KEEPTTL"]),
        Ttl::Clear if options.get => ctx.effect(&[b"SET", key.bytes, args.at(2)]),
        Ttl::Keep | Ttl::Clear => {}
    }
    ctx.changed(Event::STRING, "set", key.bytes);
    if let Ttl::At(at) = ttl {
        ctx.core.notify(Event::GENERIC, "expire", key.bytes, ctx.client.db);
        if at <= ctx.core.now_ms {
            // A time in the past: the key is written and gone at once, as with EXPIREAT.
            let db = ctx.keys.db(ctx.client.db, key.bytes);
            db.delete(key);
            ctx.core.notify(Event::GENERIC, "del", key.bytes, ctx.client.db);
        }
    }
    if !options.get {
        ctx.reply.ok();
    }
    Ok(())
}

/// A string with a time to live is told with the time at which that ends.
fn effect_with_time(ctx: &mut Ctx<'_>, key: Key<'_>, value: &[u8], at: i64) {
    ctx.effect(&[b"SET", key.bytes, value, b"PXAT", itoa::Buffer::new().format(at).as_bytes()]);
}

fn setnx(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    if db.lookup_write(ctx.core, key).is_some() {
        ctx.reply.integer(0);
        return Ok(());
    }
    db.set_string(ctx.core, key, args.at(2), Ttl::Clear);
    ctx.changed(Event::STRING, "set", key.bytes);
    ctx.reply.integer(1);
    Ok(())
}

fn set_with_ttl(ctx: &mut Ctx<'_>, args: Args<'_>, seconds: bool, name: &str) -> CommandResult {
    let at = parse_expire_at(ctx.core.now_ms, args.at(2), seconds, false, name, true)?;
    let key = ctx.key(args, 1);
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    db.set_string(ctx.core, key, args.at(3), Ttl::At(at));
    effect_with_time(ctx, key, args.at(3), at);
    ctx.changed(Event::STRING, "set", key.bytes);
    ctx.core.notify(Event::GENERIC, "expire", key.bytes, ctx.client.db);
    ctx.reply.ok();
    Ok(())
}

fn setex(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    set_with_ttl(ctx, args, true, "setex")
}

fn psetex(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    set_with_ttl(ctx, args, false, "psetex")
}

fn getset(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    get(ctx, args)?;
    let key = ctx.key(args, 1);
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    db.set_string(ctx.core, key, args.at(2), Ttl::Clear);
    ctx.changed(Event::STRING, "set", key.bytes);
    Ok(())
}

fn getdel(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    let Some(entry) = db.lookup_read_kind(ctx.core, key, Kind::String)? else {
        ctx.reply.null();
        return Ok(());
    };
    reply_string(ctx, entry);
    ctx.keys.db(ctx.client.db, key.bytes).delete(key);
    ctx.effect(&[b"DEL", key.bytes]);
    ctx.changed(Event::GENERIC, "del", key.bytes);
    Ok(())
}

fn getex(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let options = set_options(args, 2, "getex")?;
    let key = ctx.key(args, 1);
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    let Some(entry) = db.lookup_read_kind(ctx.core, key, Kind::String)? else {
        ctx.reply.null();
        return Ok(());
    };
    let expire_at = options.expire_at(ctx, "getex")?;
    reply_string(ctx, entry);
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    match expire_at {
        Some(at) if at <= ctx.core.now_ms => {
            db.delete(key);
            ctx.effect(&[crate::db::expired_word(ctx.core), key.bytes]);
            ctx.changed(Event::GENERIC, "del", key.bytes);
        }
        Some(at) => {
            db.before_write(key.bytes);
            db.set_ttl(ctx.core, key, entry, Ttl::At(at));
            ctx.effect(&[b"PEXPIREAT", key.bytes, itoa::Buffer::new().format(at).as_bytes()]);
            ctx.changed(Event::GENERIC, "expire", key.bytes);
        }
        _ if options.persist && entry.expire_at().is_some() => {
            db.before_write(key.bytes);
            db.set_ttl(ctx.core, key, entry, Ttl::Clear);
            ctx.effect(&[b"PERSIST", key.bytes]);
            ctx.changed(Event::GENERIC, "persist", key.bytes);
        }
        _ => {}
    }
    Ok(())
}

fn strlen(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    let len = db.lookup_read_kind(ctx.core, key, Kind::String)?.and_then(|e| e.string().map(|s| s.len())).unwrap_or(0);
    ctx.reply.integer(len as i64);
    Ok(())
}

fn append(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let added = args.at(2);
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    let total = match db.lookup_write_kind(ctx.core, key, Kind::String)? {
        None => {
            db.set_string(ctx.core, key, added, Ttl::Clear);
            added.len()
        }
        Some(entry) => {
            let len = entry.string().map_or(0, |s| s.len());
            let total = len + added.len();
            check_length(ctx, total as u64)?;
            let db = ctx.keys.db(ctx.client.db, key.bytes);
            db.modify_string(key, entry, total, |bytes| bytes[len..].copy_from_slice(added));
            total
        }
    };
    ctx.changed(Event::STRING, "append", key.bytes);
    ctx.reply.integer(total as i64);
    Ok(())
}

fn setrange(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let offset = parse_i64(args.at(2)).ok_or(CommandError::NotInteger)?;
    if offset < 0 {
        return Err("ERR offset is out of range".into());
    }
    let (offset, part) = (offset as u64, args.at(3));
    let key = ctx.key(args, 1);
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    let found = db.lookup_write_kind(ctx.core, key, Kind::String)?;
    let len = found.and_then(|e| e.string().map(|s| s.len())).unwrap_or(0);
    if part.is_empty() {
        ctx.reply.integer(len as i64);
        return Ok(());
    }
    check_length(ctx, offset.saturating_add(part.len() as u64))?;
    let offset = offset as usize;
    let total = len.max(offset + part.len());
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    let entry = match found {
        Some(entry) => entry,
        None => {
            db.set_string(ctx.core, key, b"", Ttl::Clear);
            db.find(ctx.core, key).expect("it was just written")
        }
    };
    db.modify_string(key, entry, total, |bytes| bytes[offset..offset + part.len()].copy_from_slice(part));
    ctx.changed(Event::STRING, "setrange", key.bytes);
    ctx.reply.integer(total as i64);
    Ok(())
}

fn getrange(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let start = parse_i64(args.at(2)).ok_or(CommandError::NotInteger)?;
    let end = parse_i64(args.at(3)).ok_or(CommandError::NotInteger)?;
    let key = ctx.key(args, 1);
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    let found = db.lookup_read_kind(ctx.core, key, Kind::String)?;
    let mut digits = itoa::Buffer::new();
    let string = found.as_ref().and_then(|entry| entry.string());
    let bytes = string.as_ref().map_or(&b""[..], |s| s.as_bytes(&mut digits));
    ctx.reply.bulk(slice_of(bytes, start, end));
    Ok(())
}

/// The bytes from `start` to `end`, both included, counted from the end when negative. An end before the first byte
/// leaves nothing, as since Redis 8; older ones return the first byte.
fn slice_of(bytes: &[u8], start: i64, end: i64) -> &[u8] {
    let len = bytes.len() as i64;
    let from_end = |i: i64| if i < 0 { len.saturating_add(i) } else { i };
    let (start, end) = (from_end(start).max(0), from_end(end).min(len - 1));
    match start > end {
        true => b"",
        false => &bytes[start as usize..=end as usize],
    }
}

fn incr_by(ctx: &mut Ctx<'_>, args: Args<'_>, by: i64) -> CommandResult {
    let key = ctx.key(args, 1);
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    let found = db.lookup_write_kind(ctx.core, key, Kind::String)?;
    let old = match found.as_ref().and_then(|entry| entry.string()) {
        None => 0,
        Some(StrRef::Int(n)) => n,
        Some(StrRef::Bytes(text)) => parse_i64(text).ok_or(CommandError::NotInteger)?,
    };
    let new = old.checked_add(by).ok_or("ERR increment or decrement would overflow")?;
    db.set_string(ctx.core, key, itoa::Buffer::new().format(new).as_bytes(), Ttl::Keep);
    ctx.changed(Event::STRING, "incrby", key.bytes);
    ctx.reply.integer(new);
    Ok(())
}

fn incr(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    incr_by(ctx, args, 1)
}

fn decr(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    incr_by(ctx, args, -1)
}

fn incrby(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let by = parse_i64(args.at(2)).ok_or(CommandError::NotInteger)?;
    incr_by(ctx, args, by)
}

fn decrby(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let by = parse_i64(args.at(2)).ok_or(CommandError::NotInteger)?;
    let by = by.checked_neg().ok_or("ERR decrement would overflow")?;
    incr_by(ctx, args, by)
}

fn incrbyfloat(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    let found = db.lookup_write_kind(ctx.core, key, Kind::String)?;
    let old = found.as_ref().map_or_else(|| b"0".to_vec(), text_of);
    let sum = crate::number::add_decimal(&old, args.at(2))?;
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    db.set_text(ctx.core, key, sum.as_bytes());
    ctx.effect(&[b"SET", key.bytes, sum.as_bytes(), b"KEEPTTL"]);
    ctx.changed(Event::STRING, "incrbyfloat", key.bytes);
    ctx.reply.bulk(sum.as_bytes());
    Ok(())
}

fn mget(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    ctx.reply.array(args.len() - 1);
    prefetch_keys(ctx, args, 1);
    for i in 1..args.len() {
        let key = ctx.nth_key(args, i - 1, i);
        let db = ctx.keys.db(ctx.client.db, key.bytes);
        match db.lookup_read(ctx.core, key) {
            Some(entry) if entry.kind() == Kind::String => reply_string(ctx, entry),
            _ => ctx.reply.null(),
        }
    }
    Ok(())
}

/// Brings the buckets, then the entries, of a command's keys into the cache together: as many as stay in its first
/// level; the rest is left to the hardware. Where the keys' places are known that has been done for a whole batch.
fn prefetch_keys(ctx: &mut Ctx<'_>, args: Args<'_>, step: usize) {
    if !args.places().is_empty() || args.len() <= 1 + step {
        return;
    }
    let db = ctx.client.db;
    let keys = || args.iter_from(1).step_by(step).take(crate::limits::BATCH_KEYS);
    for bytes in keys() {
        let key = ctx.key_of(bytes);
        ctx.keys.db(db, key.bytes).dict.prefetch_bucket(key.hash);
    }
    for bytes in keys() {
        let key = ctx.key_of(bytes);
        ctx.keys.db(db, key.bytes).dict.prefetch_element(key.hash);
    }
}

fn mset(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    if args.len().is_multiple_of(2) {
        return Err(CommandError::Arity("mset"));
    }
    prefetch_keys(ctx, args, 2);
    set_pairs(ctx, args);
    ctx.reply.ok();
    Ok(())
}

fn set_pairs(ctx: &mut Ctx<'_>, args: Args<'_>) {
    for i in (1..args.len()).step_by(2) {
        let key = ctx.nth_key(args, i / 2, i);
        let db = ctx.keys.db(ctx.client.db, key.bytes);
        db.set_string(ctx.core, key, args.at(i + 1), Ttl::Clear);
        ctx.changed(Event::STRING, "set", key.bytes);
    }
}

fn msetnx(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    if args.len().is_multiple_of(2) {
        return Err(CommandError::Arity("msetnx"));
    }
    for i in (1..args.len()).step_by(2) {
        let key = ctx.nth_key(args, i / 2, i);
        let db = ctx.keys.db(ctx.client.db, key.bytes);
        if db.lookup_write(ctx.core, key).is_some() {
            ctx.reply.integer(0);
            return Ok(());
        }
    }
    set_pairs(ctx, args);
    ctx.reply.integer(1);
    Ok(())
}

/// Most cells of the table that `LCS` fills; Redis refuses what does not fit its own allocation.
const LCS_MAX_CELLS: u64 = u32::MAX as u64 / 4;

fn lcs(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let mut strings: [Vec<u8>; 2] = Default::default();
    for (k, string) in strings.iter_mut().enumerate() {
        let key = ctx.key_of(args.at(1 + k));
        let db = ctx.keys.db(ctx.client.db, key.bytes);
        match db.lookup_read(ctx.core, key) {
            Some(entry) if entry.kind() != Kind::String => {
                return Err("ERR The specified keys must contain string values".into());
            }
            Some(entry) => *string = text_of(&entry),
            None => {}
        }
    }
    let (mut len_only, mut idx, mut with_len, mut min_len) = (false, false, false, 0i64);
    let mut i = 3;
    while let Some(word) = args.get(i) {
        let is = |w: &str| word.eq_ignore_ascii_case(w.as_bytes());
        if is("len") {
            len_only = true;
        } else if is("idx") {
            idx = true;
        } else if is("withmatchlen") {
            with_len = true;
        } else if let (true, Some(n)) = (is("minmatchlen"), args.get(i + 1)) {
            min_len = parse_i64(n).ok_or(CommandError::NotInteger)?.max(0);
            i += 1;
        } else {
            return Err(CommandError::Syntax);
        }
        i += 1;
    }
    if len_only && idx {
        return Err("ERR If you want both the length and indexes, please just use IDX.".into());
    }
    let [a, b] = strings;
    if (a.len() as u64 + 1) * (b.len() as u64 + 1) > LCS_MAX_CELLS {
        return Err("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len".into());
    }
    let width = b.len() + 1;
    let mut table = vec![0u32; (a.len() + 1) * width];
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            table[i * width + j] = match a[i - 1] == b[j - 1] {
                true => table[(i - 1) * width + j - 1] + 1,
                false => table[(i - 1) * width + j].max(table[i * width + j - 1]),
            };
        }
    }
    let total = table[a.len() * width + b.len()];
    if len_only {
        ctx.reply.integer(total as i64);
        return Ok(());
    }
    // Walk back from the end, gathering the runs in which both strings go on together.
    let (mut i, mut j) = (a.len(), b.len());
    let mut common = Vec::with_capacity(total as usize);
    let mut runs: Vec<[usize; 4]> = Vec::new();
    let mut run: Option<[usize; 4]> = None;
    while i > 0 && j > 0 {
        if a[i - 1] == b[j - 1] {
            common.push(a[i - 1]);
            run = match run {
                Some([sa, ea, sb, eb]) if sa == i && sb == j => Some([i - 1, ea, j - 1, eb]),
                previous => {
                    runs.extend(previous);
                    Some([i - 1, i - 1, j - 1, j - 1])
                }
            };
            i -= 1;
            j -= 1;
        } else if table[(i - 1) * width + j] > table[i * width + j - 1] {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    runs.extend(run);
    if !idx {
        common.reverse();
        ctx.reply.bulk(&common);
        return Ok(());
    }
    runs.retain(|[sa, ea, ..]| (ea - sa + 1) as i64 >= min_len);
    ctx.reply.map(2);
    ctx.reply.bulk(b"matches");
    ctx.reply.array(runs.len());
    for [sa, ea, sb, eb] in runs {
        ctx.reply.array(2 + with_len as usize);
        for (start, end) in [(sa, ea), (sb, eb)] {
            ctx.reply.array(2);
            ctx.reply.integer(start as i64);
            ctx.reply.integer(end as i64);
        }
        if with_len {
            ctx.reply.integer((ea - sa + 1) as i64);
        }
    }
    ctx.reply.bulk(b"len");
    ctx.reply.integer(total as i64);
    Ok(())
}

/// Reads a float argument, with Redis's error.
pub fn float_arg(text: &[u8]) -> Result<f64, CommandError> {
    parse_f64(text).ok_or(CommandError::NotFloat)
}

/// A key's string as bytes, for commands of other families; `None` if it does not exist.
pub fn string_at(ctx: &mut Ctx<'_>, key: Key<'_>) -> Result<Option<Vec<u8>>, CommandError> {
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    Ok(db.lookup_read_kind(ctx.core, key, Kind::String)?.as_ref().map(text_of))
}

#[cfg(test)]
mod tests {
    use super::slice_of;

    /// Beside a plain reading of the words: positions from the end, and what lies between them.
    #[test]
    fn ranges_are_what_lies_between_their_ends() {
        for text in [&b""[..], b"a", b"Hello"] {
            let len = text.len() as i64;
            for start in (-8..8).chain([i64::MIN, i64::MAX]) {
                for end in (-8..8).chain([i64::MIN, i64::MAX]) {
                    let place = |i: i64| if i < 0 { i.saturating_add(len) } else { i };
                    let inside = |at: &i64| *at >= place(start) && *at <= place(end);
                    let expected: Vec<u8> = (0..len).filter(inside).map(|at| text[at as usize]).collect();
                    assert_eq!(slice_of(text, start, end), expected, "{text:?} {start} {end}");
                }
            }
        }
    }
}
