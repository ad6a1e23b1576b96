//! Sets: `SADD`, `SINTER` and their family. Counterpart: `t_set.c`.
//!
//! What a set is and when it changes its encoding is in `types/set.rs`; here is what the commands make of it.

use std::ops::ControlFlow;

use super::keys::{ScanOptions, cursor_arg};
use super::{Command, CommandError, CommandResult, Ctx, Group, Key, KeySpec, flag, key};
use crate::args::{Args, OwnedArgs};
use crate::core::Event;
use crate::entry::{Encoding, EntryPtr, Kind, StrRef};
use crate::glob;
use crate::number::parse_i64;
use crate::object::{Object, ObjectMut, ObjectRef};
use crate::resp::Reply;
use crate::types::set::{Set, SetLimits};

use flag::*;

const SET: Group = Group::Set;
const ONE_LOOK: &[KeySpec] = &[KeySpec::one(1, key::RO)];
const ONE_READ: &[KeySpec] = &[KeySpec::one(1, key::RO | key::ACCESS)];
const ALL_READ: &[KeySpec] = &[KeySpec::range(1, -1, 1, key::RO | key::ACCESS)];
const STORE: &[KeySpec] = &[KeySpec::one(1, key::OW | key::UPDATE), KeySpec::range(2, -1, 1, key::RO | key::ACCESS)];

/// Bytes of a reply that `SRANDMEMBER` with a negative count may reach: the count alone bounds nothing.
const SAMPLE_REPLY_MAX: usize = 1 << 30;
/// The least bytes of a member in a reply.
const BULK_MIN: u64 = 6;

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::data("sadd", sadd, -3, WRITE | DENYOOM | FAST, SET).keys(&[KeySpec::one(1, key::RW | key::INSERT)]).doc(
        "1.0.0",
        "O(N), N being the number of members given",
        "Adds members to a set.",
        "key member [member ...]",
    ),
    Command::data("srem", srem, -3, WRITE | FAST, SET).keys(&[KeySpec::one(1, key::RW | key::DELETE)]).doc(
        "1.0.0",
        "O(N), N being the number of members given",
        "Removes members from a set, and the key with the last of them.",
        "key member [member ...]",
    ),
    Command::data("sismember", sismember, 3, READONLY | FAST, SET).keys(ONE_LOOK).doc(
        "1.0.0",
        "O(1)",
        "Says whether a string is a member of a set.",
        "key member",
    ),
    Command::data("smismember", smismember, -3, READONLY | FAST, SET).keys(ONE_READ).doc(
        "6.2.0",
        "O(N), N being the number of members given",
        "Says of each string whether it is a member of a set.",
        "key member [member ...]",
    ),
    Command::data("scard", scard, 2, READONLY | FAST, SET).keys(ONE_LOOK).doc(
        "1.0.0",
        "O(1)",
        "Counts the members of a set.",
        "key",
    ),
    Command::data("smembers", smembers, 2, READONLY, SET).keys(ONE_READ).doc(
        "1.0.0",
        "O(N), N being the number of members",
        "Returns all members of a set.",
        "key",
    ),
    Command::data("spop", spop, -2, WRITE | FAST, SET)
        .keys(&[KeySpec::one(1, key::RW | key::ACCESS | key::DELETE)])
        .doc(
            "1.0.0",
            "O(1) without a count, else O(N), N being the count",
            "Removes random members from a set and returns them.",
            "key [count]",
        ),
    Command::data("srandmember", srandmember, -2, READONLY, SET).keys(ONE_READ).doc(
        "1.0.0",
        "O(1) without a count, else O(N), N being the absolute count",
        "Returns random members of a set.",
        "key [count]",
    ),
    Command::data("smove", smove, 4, WRITE | FAST, SET)
        .keys(&[KeySpec::one(1, key::RW | key::ACCESS | key::DELETE), KeySpec::one(2, key::RW | key::INSERT)])
        .doc("1.0.0", "O(1)", "Moves a member from one set to another.", "source destination member"),
    Command::data("sinter", sinter, -2, READONLY, SET).keys(ALL_READ).doc(
        "1.0.0",
        "O(N*M), N being the members of the smallest set and M the number of sets",
        "Returns the members that all sets have.",
        "key [key ...]",
    ),
    Command::data("sinterstore", sinterstore, -3, WRITE | DENYOOM, SET).keys(STORE).doc(
        "1.0.0",
        "O(N*M), N being the members of the smallest set and M the number of sets",
        "Stores the members that all sets have as a set.",
        "destination key [key ...]",
    ),
    Command::data("sintercard", sintercard, -3, READONLY, SET).keys(&[KeySpec::counted(1, key::RO | key::ACCESS)]).doc(
        "7.0.0",
        "O(N*M), N being the members of the smallest set and M the number of sets",
        "Counts the members that all sets have.",
        "numkeys key [key ...] [LIMIT limit]",
    ),
    Command::data("sunion", sunion, -2, READONLY, SET).keys(ALL_READ).doc(
        "1.0.0",
        "O(N), N being the members of all sets",
        "Returns the members that any of the sets has.",
        "key [key ...]",
    ),
    Command::data("sunionstore", sunionstore, -3, WRITE | DENYOOM, SET).keys(STORE).doc(
        "1.0.0",
        "O(N), N being the members of all sets",
        "Stores the members that any of the sets has as a set.",
        "destination key [key ...]",
    ),
    Command::data("sdiff", sdiff, -2, READONLY, SET).keys(ALL_READ).doc(
        "1.0.0",
        "O(N), N being the members of all sets",
        "Returns the members that only the first set has.",
        "key [key ...]",
    ),
    Command::data("sdiffstore", sdiffstore, -3, WRITE | DENYOOM, SET).keys(STORE).doc(
        "1.0.0",
        "O(N), N being the members of all sets",
        "Stores the members that only the first set has as a set.",
        "destination key [key ...]",
    ),
    Command::data("sscan", sscan, -3, READONLY, SET).keys(ONE_READ).doc(
        "2.8.0",
        "O(1) for each call, O(N) for a whole iteration",
        "Iterates over the members of a set.",
        "key cursor [MATCH pattern] [COUNT count]",
    ),
];

/// The set of an entry that was looked up as one.
fn set_of(entry: &EntryPtr) -> &Set {
    match entry.object() {
        Some(ObjectRef::Set(set)) => set,
        _ => unreachable!("an entry of kind set holds a set"),
    }
}

fn lookup_read(ctx: &mut Ctx<'_>, key: Key<'_>) -> Result<Option<EntryPtr>, CommandError> {
    ctx.keys.db(ctx.client.db, key.bytes).lookup_read_kind(ctx.core, key, Kind::Set)
}

fn lookup_write(ctx: &mut Ctx<'_>, key: Key<'_>) -> Result<Option<EntryPtr>, CommandError> {
    ctx.keys.db(ctx.client.db, key.bytes).lookup_write_kind(ctx.core, key, Kind::Set)
}

/// Changes the set of an entry. The caller has announced the change.
fn change<T>(ctx: &mut Ctx<'_>, key: Key<'_>, entry: EntryPtr, f: impl FnOnce(&mut Set) -> T) -> T {
    ctx.keys.db(ctx.client.db, key.bytes).with_object_mut(entry, |object| match object {
        ObjectMut::Set(set) => f(set),
        _ => unreachable!("an entry of kind set holds a set"),
    })
}

fn announce(ctx: &mut Ctx<'_>, key: Key<'_>) {
    ctx.keys.db(ctx.client.db, key.bytes).before_write(key.bytes);
}

/// Adds a set under an absent key; announces the change.
fn add_set(ctx: &mut Ctx<'_>, key: Key<'_>, set: Set) {
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    db.add_object(ctx.core, key, Object::Set(set));
}

/// Removes a key whose set has become empty.
fn delete_empty(ctx: &mut Ctx<'_>, key: Key<'_>) {
    ctx.keys.db(ctx.client.db, key.bytes).delete(key);
    ctx.core.notify(Event::GENERIC, "del", key.bytes, ctx.client.db);
}

fn reply_member(reply: &mut Reply<'_>, member: StrRef<'_>) {
    match member {
        StrRef::Bytes(text) => reply.bulk(text),
        StrRef::Int(number) => reply.bulk_integer(number),
    }
}

fn sadd(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let limits = SetLimits::of(&ctx.core.config);
    let given = args.len() - 2;
    let added = match lookup_write(ctx, key)? {
        None => {
            let hasher = &ctx.core.hasher;
            let mut set = Set::for_members(args.at(2), given, &limits, hasher);
            for member in args.iter_from(2) {
                set.insert(StrRef::Bytes(member), &limits, hasher);
            }
            let added = set.len();
            add_set(ctx, key, set);
            added
        }
        Some(entry) => {
            let hasher = ctx.core.hasher.clone();
            // So many members convert a flat set even if it has them all, as in Redis.
            if given > 1 {
                change(ctx, key, entry, |set| set.expect(given, &limits, &hasher));
            }
            // What changes nothing is not announced; the first that is new is not looked for again.
            let set = set_of(&entry);
            match args.iter_from(2).position(|member| !set.contains(StrRef::Bytes(member))) {
                None => 0,
                Some(first) => {
                    announce(ctx, key);
                    change(ctx, key, entry, |set| {
                        set.insert_absent(StrRef::Bytes(args.at(2 + first)), &limits, &hasher);
                        let rest = args.iter_from(3 + first);
                        1 + rest.filter(|member| set.insert(StrRef::Bytes(member), &limits, &hasher)).count()
                    })
                }
            }
        }
    };
    if added > 0 {
        ctx.dirty += added as u64;
        ctx.core.notify(Event::SET, "sadd", key.bytes, ctx.client.db);
    }
    ctx.reply.integer(added as i64);
    Ok(())
}

fn srem(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let Some(entry) = lookup_write(ctx, key)? else {
        ctx.reply.integer(0);
        return Ok(());
    };
    let set = set_of(&entry);
    let Some(first) = args.iter_from(2).position(|member| set.contains(StrRef::Bytes(member))) else {
        ctx.reply.integer(0);
        return Ok(());
    };
    announce(ctx, key);
    let (removed, empty) = change(ctx, key, entry, |set| {
        let removed = args.iter_from(2 + first).filter(|member| set.remove(StrRef::Bytes(member))).count();
        (removed, set.is_empty())
    });
    ctx.dirty += removed as u64;
    ctx.core.notify(Event::SET, "srem", key.bytes, ctx.client.db);
    if empty {
        delete_empty(ctx, key);
    }
    ctx.reply.integer(removed as i64);
    Ok(())
}

fn smove(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let (from, to) = (ctx.key_of(args.at(1)), ctx.key_of(args.at(2)));
    let member = StrRef::Bytes(args.at(3));
    let db = ctx.client.db;
    let source = ctx.keys.db(db, from.bytes).lookup_write(ctx.core, from);
    let target = ctx.keys.db(db, to.bytes).lookup_write(ctx.core, to);
    let Some(source) = source else {
        ctx.reply.integer(0);
        return Ok(());
    };
    if source.kind() != Kind::Set || target.is_some_and(|target| target.kind() != Kind::Set) {
        return Err(CommandError::WrongType);
    }
    let there = set_of(&source).contains(member);
    if !there || from.bytes == to.bytes {
        ctx.reply.integer(there as i64);
        return Ok(());
    }
    if ctx.apart(from.bytes, to.bytes) {
        ctx.effect_in_log(&[b"SREM", from.bytes, args.at(3)]);
        ctx.effect_in_log(&[b"SADD", to.bytes, args.at(3)]);
    }
    announce(ctx, from);
    let empty = change(ctx, from, source, |set| {
        set.remove(member);
        set.is_empty()
    });
    ctx.changed(Event::SET, "srem", from.bytes);
    if empty {
        delete_empty(ctx, from);
    }
    let limits = SetLimits::of(&ctx.core.config);
    let hasher = ctx.core.hasher.clone();
    let added = match target {
        None => {
            let mut set = Set::for_members(args.at(3), 1, &limits, &hasher);
            set.insert_absent(member, &limits, &hasher);
            add_set(ctx, to, set);
            true
        }
        Some(target) if set_of(&target).contains(member) => false,
        Some(target) => {
            announce(ctx, to);
            change(ctx, to, target, |set| set.insert_absent(member, &limits, &hasher));
            true
        }
    };
    if added {
        ctx.changed(Event::SET, "sadd", to.bytes);
    }
    ctx.reply.integer(1);
    Ok(())
}

fn sismember(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let found = lookup_read(ctx, key)?.is_some_and(|entry| set_of(&entry).contains(StrRef::Bytes(args.at(2))));
    ctx.reply.integer(found as i64);
    Ok(())
}

fn smismember(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let found = lookup_read(ctx, key)?;
    let set = found.as_ref().map(set_of);
    ctx.reply.array(args.len() - 2);
    for member in args.iter_from(2) {
        ctx.reply.integer(set.is_some_and(|set| set.contains(StrRef::Bytes(member))) as i64);
    }
    Ok(())
}

fn scard(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let len = lookup_read(ctx, key)?.map_or(0, |entry| set_of(&entry).len());
    ctx.reply.integer(len as i64);
    Ok(())
}

fn reply_set(reply: &mut Reply<'_>, set: &Set) {
    reply.set(set.len());
    set.for_each(|member| reply_member(reply, member));
}

fn smembers(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    match lookup_read(ctx, key)? {
        Some(entry) => reply_set(&mut ctx.reply, set_of(&entry)),
        None => ctx.reply.set(0),
    }
    Ok(())
}

fn spop(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let count = match args.len() {
        2 => None,
        3 => {
            let count = parse_i64(args.at(2)).and_then(|count| usize::try_from(count).ok());
            Some(count.ok_or("ERR value is out of range, must be positive")?)
        }
        _ => return Err(CommandError::Syntax),
    };
    let key = ctx.key(args, 1);
    let Some(entry) = lookup_write(ctx, key)? else {
        match count {
            None => ctx.reply.null(),
            Some(_) => ctx.reply.set(0),
        }
        return Ok(());
    };
    if count == Some(0) {
        ctx.reply.set(0);
        return Ok(());
    }
    let size = set_of(&entry).len();
    let popped = count.unwrap_or(1).min(size);
    if count.is_some() {
        ctx.reply.set(popped);
    }
    ctx.dirty += popped as u64;
    ctx.core.notify(Event::SET, "spop", key.bytes, ctx.client.db);
    if popped == size {
        set_of(&entry).for_each(|member| reply_member(&mut ctx.reply, member));
        // One member alone is told as such, and more than one as the key, as Redis does.
        let mut last = None;
        if count.is_none() && ctx.core.effects.on {
            set_of(&entry).for_each(|member| last = Some(member.as_bytes(&mut itoa::Buffer::new()).to_vec()));
        }
        delete_empty(ctx, key);
        match last {
            Some(member) => ctx.effect(&[b"SREM", key.bytes, &member]),
            None => {
                let word: &[u8] = if ctx.core.config.lazyfree_lazy_server_del { b"UNLINK" } else { b"DEL" };
                ctx.effect(&[word, key.bytes]);
            }
        }
        return Ok(());
    }
    announce(ctx, key);
    let limits = SetLimits::of(&ctx.core.config);
    let hasher = ctx.core.hasher.clone();
    // The generator and the reply are lent to the change, which has the rest of `ctx`.
    let mut rng = ctx.core.rng.clone();
    let mut out = std::mem::take(ctx.reply.out);
    let mut reply = Reply::new(&mut out, ctx.reply.resp);
    let mut told = ctx.core.effects.on.then(|| OwnedArgs::from_words(&[b"SREM", key.bytes]));
    change(ctx, key, entry, |set| {
        set.pop(popped, &mut rng, &limits, &hasher, |member| {
            reply_member(&mut reply, member);
            if let Some(told) = &mut told {
                told.push(member.as_bytes(&mut itoa::Buffer::new()));
            }
        });
    });
    *ctx.reply.out = out;
    ctx.core.rng = rng;
    if let Some(told) = told {
        ctx.effect(&told.args().iter_from(0).collect::<Vec<_>>());
    }
    Ok(())
}

fn srandmember(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let count = match args.len() {
        2 => {
            match lookup_read(ctx, key)? {
                Some(entry) => {
                    set_of(&entry).random(&mut ctx.core.rng, |member| reply_member(&mut ctx.reply, member));
                }
                None => ctx.reply.null(),
            }
            return Ok(());
        }
        3 => parse_i64(args.at(2)).ok_or(CommandError::NotInteger)?,
        _ => return Err(CommandError::Syntax),
    };
    if count == i64::MIN {
        return Err("ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807".into());
    }
    let Some(entry) = lookup_read(ctx, key)? else {
        ctx.reply.array(0);
        return Ok(());
    };
    let set = set_of(&entry);
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if count >= 0 {
        ctx.reply.array(wanted.min(set.len()));
        set.sample(wanted, &mut ctx.core.rng, |member| reply_member(&mut ctx.reply, member));
        return Ok(());
    }
    // The same member may come again, so that only the client's count ends this.
    let start = ctx.reply.out.len();
    let mut left = count.unsigned_abs();
    let mut too_long = left > SAMPLE_REPLY_MAX as u64 / BULK_MIN;
    if !too_long {
        ctx.reply.array(wanted);
    }
    while left > 0 && !too_long {
        set.random(&mut ctx.core.rng, |member| reply_member(&mut ctx.reply, member));
        left -= 1;
        too_long = ctx.reply.out.len() - start > SAMPLE_REPLY_MAX;
    }
    if too_long {
        ctx.reply.out.truncate(start);
        return Err("ERR value is out of range, the reply would be longer than 1 GB".into());
    }
    Ok(())
}

/// The sets at arguments `from` to `to`, in their order; `None` where there is no key.
fn lookup_all(
    ctx: &mut Ctx<'_>,
    args: Args<'_>,
    from: usize,
    to: usize,
) -> Result<Vec<Option<EntryPtr>>, CommandError> {
    (from..to)
        .map(|i| {
            let key = ctx.key_of(args.at(i));
            lookup_read(ctx, key)
        })
        .collect()
}

/// Calls back with each member that all sets have, until `f` breaks off. The smallest set is walked, and the others
/// are asked from the smaller to the larger.
fn intersect(entries: &[Option<EntryPtr>], mut f: impl FnMut(StrRef<'_>) -> ControlFlow<()>) {
    let mut sets: Vec<&Set> = Vec::with_capacity(entries.len());
    for entry in entries {
        match entry {
            Some(entry) => sets.push(set_of(entry)),
            None => return,
        }
    }
    sets.sort_by_key(|set| set.len());
    let Some((smallest, others)) = sets.split_first() else { return };
    smallest.walk(|member| match others.iter().all(|set| set.contains(member)) {
        true => f(member),
        false => ControlFlow::Continue(()),
    });
}

fn sinter(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let entries = lookup_all(ctx, args, 1, args.len())?;
    let mut count = 0;
    let list = ctx.reply.open_list();
    intersect(&entries, |member| {
        reply_member(&mut ctx.reply, member);
        count += 1;
        ControlFlow::Continue(())
    });
    ctx.reply.close_set(list, count);
    Ok(())
}

fn sintercard(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let keys = parse_i64(args.at(1)).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let keys = keys.ok_or("ERR numkeys should be greater than 0")?;
    if keys > args.len() - 2 {
        return Err("ERR Number of keys can't be greater than number of args".into());
    }
    let mut limit = 0;
    let mut i = 2 + keys;
    while i < args.len() {
        let Some(value) = args.get(i + 1).filter(|_| args.is(i, "limit")) else { return Err(CommandError::Syntax) };
        limit = parse_i64(value).filter(|n| *n >= 0).ok_or("ERR LIMIT can't be negative")?;
        i += 2;
    }
    let entries = lookup_all(ctx, args, 2, 2 + keys)?;
    let mut count = 0;
    intersect(&entries, |_| {
        count += 1;
        if count == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    ctx.reply.integer(count);
    Ok(())
}

/// Puts the result of a `…STORE` at argument 1, whatever was there, and replies with its length.
fn store(ctx: &mut Ctx<'_>, args: Args<'_>, set: Set, event: &'static str) -> CommandResult {
    let key = ctx.key_of(args.at(1));
    let len = set.len();
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    let existed = db.find(ctx.core, key).is_some() && db.delete(key);
    if len > 0 {
        add_set(ctx, key, set);
        ctx.changed(Event::SET, event, key.bytes);
    } else if existed {
        ctx.changed(Event::GENERIC, "del", key.bytes);
    }
    ctx.reply.integer(len as i64);
    Ok(())
}

fn sinterstore(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let entries = lookup_all(ctx, args, 2, args.len())?;
    let limits = SetLimits::of(&ctx.core.config);
    let hasher = &ctx.core.hasher;
    // A result of integers is an array of them in the end; only from an array it is one from the start.
    let smallest = entries.iter().flatten().map(set_of).min_by_key(|set| set.len());
    let mut result =
        if smallest.is_some_and(|set| set.encoding() == Encoding::IntSet) { Set::ints() } else { Set::list() };
    let mut only_ints = true;
    intersect(&entries, |member| {
        only_ints &= match member {
            StrRef::Int(_) => true,
            StrRef::Bytes(text) => only_ints && crate::entry::canonical_i64(text).is_some(),
        };
        // Members of one set differ from each other, so none is there already.
        result.insert_absent(member, &limits, hasher);
        ControlFlow::Continue(())
    });
    if only_ints {
        result.become_ints(&limits);
    }
    store(ctx, args, result, "sinterstore")
}

/// What a union or a difference starts from. Where it is stored, an array of integers, to have the encoding that
/// Redis's would have; where it is not, what finds members fast.
fn scratch(ctx: &Ctx<'_>, entries: &[Option<EntryPtr>], stored: bool) -> Set {
    let ints = entries.iter().flatten().all(|entry| set_of(entry).encoding() == Encoding::IntSet);
    if stored || ints { Set::ints() } else { Set::table(&ctx.core.hasher) }
}

fn union(ctx: &Ctx<'_>, entries: &[Option<EntryPtr>], stored: bool) -> Set {
    let limits = SetLimits::of(&ctx.core.config);
    let mut result = scratch(ctx, entries, stored);
    for entry in entries.iter().flatten() {
        set_of(entry).for_each(|member| {
            result.insert(member, &limits, &ctx.core.hasher);
        });
    }
    result
}

fn difference(ctx: &Ctx<'_>, entries: &[Option<EntryPtr>], stored: bool) -> Set {
    let limits = SetLimits::of(&ctx.core.config);
    let hasher = &ctx.core.hasher;
    let mut result = scratch(ctx, entries, stored);
    let Some((Some(first), others)) = entries.split_first() else { return result };
    if others.contains(&Some(*first)) {
        return result;
    }
    let from = set_of(first);
    let mut others: Vec<&Set> = others.iter().flatten().map(set_of).collect();
    // Either each member of the first is looked for in the others, which is given a head start as it stops at a find,
    // or all of the others' are taken away from a copy.
    let looked_for = from.len() * (1 + others.len()) / 2;
    let taken_away = from.len() + others.iter().map(|set| set.len()).sum::<usize>();
    if looked_for <= taken_away {
        // In the larger ones a member is the more likely found.
        others.sort_by_key(|set| std::cmp::Reverse(set.len()));
        from.for_each(|member| {
            if !others.iter().any(|set| set.contains(member)) {
                result.insert_absent(member, &limits, hasher);
            }
        });
    } else {
        from.for_each(|member| result.insert_absent(member, &limits, hasher));
        for other in others {
            if result.is_empty() {
                break;
            }
            other.for_each(|member| {
                result.remove(member);
            });
        }
    }
    result
}

fn sunion(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let entries = lookup_all(ctx, args, 1, args.len())?;
    let result = union(ctx, &entries, false);
    reply_set(&mut ctx.reply, &result);
    Ok(())
}

fn sunionstore(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let entries = lookup_all(ctx, args, 2, args.len())?;
    let result = union(ctx, &entries, true);
    store(ctx, args, result, "sunionstore")
}

fn sdiff(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let entries = lookup_all(ctx, args, 1, args.len())?;
    let result = difference(ctx, &entries, false);
    reply_set(&mut ctx.reply, &result);
    Ok(())
}

fn sdiffstore(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let entries = lookup_all(ctx, args, 2, args.len())?;
    let result = difference(ctx, &entries, true);
    store(ctx, args, result, "sdiffstore")
}

fn sscan(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let cursor = cursor_arg(args.at(2))?;
    let key = ctx.key(args, 1);
    let Some(entry) = lookup_read(ctx, key)? else {
        ctx.reply.array(2);
        ctx.reply.bulk(b"0");
        ctx.reply.array(0);
        return Ok(());
    };
    let options = ScanOptions::parse(args, 3, false)?;
    // The cursor comes before the members and is known after them.
    let mut members = Vec::new();
    let mut reply = Reply::new(&mut members, ctx.reply.resp);
    let mut count = 0;
    let next = set_of(&entry).scan(cursor, options.count, |member| {
        let mut buf = itoa::Buffer::new();
        if options.pattern.is_none_or(|pattern| glob::matches(pattern, member.as_bytes(&mut buf), false)) {
            reply_member(&mut reply, member);
            count += 1;
        }
    });
    ctx.reply.array(2);
    ctx.reply.bulk(itoa::Buffer::new().format(next).as_bytes());
    ctx.reply.array(count);
    ctx.reply.out.extend_from_slice(&members);
    Ok(())
}

#[cfg(test)]
mod tests;
