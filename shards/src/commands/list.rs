//! Lists: `LPUSH`, `LRANGE`, `BLPOP` and their family. Counterpart: `t_list.c`.
//!
//! What a list is and when it changes its encoding is in `types/list.rs`; here is what the commands make of it.

use std::ops::ControlFlow;

use super::block::{Block, TimeoutReply, deadline_of_seconds};
use super::{Command, CommandError, CommandResult, Ctx, Group, Key, KeySpec, flag, key};
use crate::args::Args;
use crate::core::Event;
use crate::encodings::quicklist::Needle;
use crate::entry::{EntryPtr, Kind, StrRef};
use crate::number::parse_i64;
use crate::object::{Object, ObjectMut, ObjectRef};
use crate::resp::Reply;
use crate::types::list::{End, List, limits};

use flag::*;

const LIST: Group = Group::List;
const PUSH: &[KeySpec] = &[KeySpec::one(1, key::RW | key::INSERT)];
const POP: &[KeySpec] = &[KeySpec::one(1, key::RW | key::ACCESS | key::DELETE)];
const POP_ANY: &[KeySpec] = &[KeySpec::range(1, -2, 1, key::RW | key::ACCESS | key::DELETE)];
const TRIM: &[KeySpec] = &[KeySpec::one(1, key::RW | key::DELETE)];
const READ: &[KeySpec] = &[KeySpec::one(1, key::RO | key::ACCESS)];
const MOVE: &[KeySpec] =
    &[KeySpec::one(1, key::RW | key::ACCESS | key::DELETE), KeySpec::one(2, key::RW | key::INSERT)];

const PER_ELEMENT: &str = "O(N), N being the number of elements given";

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::data("lpush", lpush, -3, WRITE | DENYOOM | FAST, LIST).keys(PUSH).doc(
        "1.0.0",
        PER_ELEMENT,
        "Puts elements before the first of a list.",
        "key element [element ...]",
    ),
    Command::data("rpush", rpush, -3, WRITE | DENYOOM | FAST, LIST).keys(PUSH).doc(
        "1.0.0",
        PER_ELEMENT,
        "Puts elements behind the last of a list.",
        "key element [element ...]",
    ),
    Command::data("lpushx", lpushx, -3, WRITE | DENYOOM | FAST, LIST).keys(PUSH).doc(
        "2.2.0",
        PER_ELEMENT,
        "Puts elements before the first of a list that exists.",
        "key element [element ...]",
    ),
    Command::data("rpushx", rpushx, -3, WRITE | DENYOOM | FAST, LIST).keys(PUSH).doc(
        "2.2.0",
        PER_ELEMENT,
        "Puts elements behind the last of a list that exists.",
        "key element [element ...]",
    ),
    Command::data("lpop", lpop, -2, WRITE | FAST, LIST).keys(POP).doc(
        "1.0.0",
        "O(N), N being the number of elements removed",
        "Removes elements from the front of a list and returns them.",
        "key [count]",
    ),
    Command::data("rpop", rpop, -2, WRITE | FAST, LIST).keys(POP).doc(
        "1.0.0",
        "O(N), N being the number of elements removed",
        "Removes elements from the back of a list and returns them.",
        "key [count]",
    ),
    Command::data("lrange", lrange, 4, READONLY, LIST).keys(READ).doc(
        "1.0.0",
        "O(S+N), S being the distance of the range from the nearer end and N its elements",
        "Returns a range of a list's elements.",
        "key start stop",
    ),
    Command::data("lindex", lindex, 3, READONLY, LIST).keys(READ).doc(
        "1.0.0",
        "O(N), N being the distance from the nearer end",
        "Returns the element at an index.",
        "key index",
    ),
    Command::data("llen", llen, 2, READONLY | FAST, LIST).keys(&[KeySpec::one(1, key::RO)]).doc(
        "1.0.0",
        "O(1)",
        "Counts the elements of a list.",
        "key",
    ),
    Command::data("lset", lset, 4, WRITE | DENYOOM, LIST).keys(&[KeySpec::one(1, key::RW | key::UPDATE)]).doc(
        "1.0.0",
        "O(N), N being the distance from the nearer end",
        "Sets the element at an index.",
        "key index element",
    ),
    Command::data("linsert", linsert, 5, WRITE | DENYOOM, LIST).keys(PUSH).doc(
        "2.2.0",
        "O(N), N being the elements before the pivot",
        "Puts an element before or behind another.",
        "key <BEFORE | AFTER> pivot element",
    ),
    Command::data("lrem", lrem, 4, WRITE, LIST).keys(TRIM).doc(
        "1.0.0",
        "O(N), N being the length of the list",
        "Removes elements that are equal to a string.",
        "key count element",
    ),
    Command::data("ltrim", ltrim, 4, WRITE, LIST).keys(TRIM).doc(
        "1.0.0",
        "O(N), N being the number of elements removed",
        "Removes all elements outside a range.",
        "key start stop",
    ),
    Command::data("lpos", lpos, -3, READONLY, LIST).keys(READ).doc(
        "6.0.6",
        "O(N), N being the number of elements looked at",
        "Returns the indexes of elements that are equal to a string.",
        "key element [RANK rank] [COUNT num-matches] [MAXLEN len]",
    ),
    Command::data("lmove", lmove, 5, WRITE | DENYOOM, LIST).keys(MOVE).doc(
        "6.2.0",
        "O(1)",
        "Moves an element from an end of a list to an end of another.",
        "source destination <LEFT | RIGHT> <LEFT | RIGHT>",
    ),
    Command::data("rpoplpush", rpoplpush, 3, WRITE | DENYOOM, LIST).keys(MOVE).doc(
        "1.2.0",
        "O(1)",
        "Moves the last element of a list to the front of another.",
        "source destination",
    ),
    Command::data("lmpop", lmpop, -4, WRITE | MOVABLE_KEYS, LIST)
        .keys(&[KeySpec::counted(1, key::RW | key::ACCESS | key::DELETE)])
        .doc(
            "7.0.0",
            "O(N+M), N being the number of keys and M of elements removed",
            "Removes elements from the first list that has any and returns them.",
            "numkeys key [key ...] <LEFT | RIGHT> [COUNT count]",
        ),
    Command::data("blpop", blpop, -3, WRITE | NOSCRIPT | BLOCKING, LIST).keys(POP_ANY).doc(
        "2.0.0",
        "O(N), N being the number of keys",
        "Removes the first element of the first list that has any, or waits for one.",
        "key [key ...] timeout",
    ),
    Command::data("brpop", brpop, -3, WRITE | NOSCRIPT | BLOCKING, LIST).keys(POP_ANY).doc(
        "2.0.0",
        "O(N), N being the number of keys",
        "Removes the last element of the first list that has any, or waits for one.",
        "key [key ...] timeout",
    ),
    Command::data("blmove", blmove, 6, WRITE | DENYOOM | NOSCRIPT | BLOCKING, LIST).keys(MOVE).doc(
        "6.2.0",
        "O(1)",
        "Moves an element from an end of a list to an end of another, or waits for one.",
        "source destination <LEFT | RIGHT> <LEFT | RIGHT> timeout",
    ),
    Command::data("brpoplpush", brpoplpush, 4, WRITE | DENYOOM | NOSCRIPT | BLOCKING, LIST).keys(MOVE).doc(
        "2.2.0",
        "O(1)",
        "Moves the last element of a list to the front of another, or waits for one.",
        "source destination timeout",
    ),
    Command::data("blmpop", blmpop, -5, WRITE | BLOCKING | MOVABLE_KEYS, LIST)
        .keys(&[KeySpec::counted(2, key::RW | key::ACCESS | key::DELETE)])
        .doc(
            "7.0.0",
            "O(N+M), N being the number of keys and M of elements removed",
            "Removes elements from the first list that has any and returns them, or waits for some.",
            "timeout numkeys key [key ...] <LEFT | RIGHT> [COUNT count]",
        ),
];

/// The list of an entry that was looked up as one.
pub(super) fn list_of(entry: &EntryPtr) -> &List {
    match entry.object() {
        Some(ObjectRef::List(list)) => list,
        _ => unreachable!("an entry of kind list holds a list"),
    }
}

fn lookup_read(ctx: &mut Ctx<'_>, key: Key<'_>) -> Result<Option<EntryPtr>, CommandError> {
    ctx.keys.db(ctx.client.db, key.bytes).lookup_read_kind(ctx.core, key, Kind::List)
}

fn lookup_write(ctx: &mut Ctx<'_>, key: Key<'_>) -> Result<Option<EntryPtr>, CommandError> {
    ctx.keys.db(ctx.client.db, key.bytes).lookup_write_kind(ctx.core, key, Kind::List)
}

/// Announces a change of the list of an entry, and makes it.
fn change<T>(ctx: &mut Ctx<'_>, key: Key<'_>, entry: EntryPtr, f: impl FnOnce(&mut List) -> T) -> T {
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    db.before_write(key.bytes);
    db.with_object_mut(entry, |object| match object {
        ObjectMut::List(list) => f(list),
        _ => unreachable!("an entry of kind list holds a list"),
    })
}

/// Adds a list under an absent key; announces the change.
pub(super) fn add_list(ctx: &mut Ctx<'_>, key: Key<'_>, list: List) {
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    db.add_object(ctx.core, key, Object::List(list));
}

fn reply_element(reply: &mut Reply<'_>, element: StrRef<'_>) {
    match element {
        StrRef::Bytes(text) => reply.bulk(text),
        StrRef::Int(number) => reply.bulk_integer(number),
    }
}

/// Reports that `count` elements were removed at `end`, or in the midst by `event`; the key goes with the last.
fn removed(ctx: &mut Ctx<'_>, key: Key<'_>, event: &'static str, count: usize, empty: bool) {
    ctx.dirty += count as u64;
    ctx.core.notify(Event::LIST, event, key.bytes, ctx.client.db);
    if empty {
        ctx.keys.db(ctx.client.db, key.bytes).delete(key);
        ctx.core.notify(Event::GENERIC, "del", key.bytes, ctx.client.db);
    }
}

fn pop_event(end: End) -> &'static str {
    if end == End::Front { "lpop" } else { "rpop" }
}

fn push_event(end: End) -> &'static str {
    if end == End::Front { "lpush" } else { "rpush" }
}

fn push(ctx: &mut Ctx<'_>, args: Args<'_>, end: End, only_existing: bool) -> CommandResult {
    let key = ctx.key(args, 1);
    let entry = lookup_write(ctx, key)?;
    let limits = limits(ctx.core);
    let add = |list: &mut List| {
        let bytes = args.iter_from(2).map(<[u8]>::len).sum();
        list.expect(bytes, args.len() - 2, &limits);
        args.iter_from(2).for_each(|element| list.push(end, element, &limits));
        list.len()
    };
    let len = match entry {
        Some(entry) => change(ctx, key, entry, add),
        None if only_existing => 0,
        None => {
            let mut list = List::default();
            let len = add(&mut list);
            add_list(ctx, key, list);
            len
        }
    };
    if len > 0 {
        ctx.dirty += args.len() as u64 - 2;
        ctx.core.notify(Event::LIST, push_event(end), key.bytes, ctx.client.db);
    }
    ctx.reply.integer(len as i64);
    Ok(())
}

fn lpush(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    push(ctx, args, End::Front, false)
}

fn rpush(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    push(ctx, args, End::Back, false)
}

fn lpushx(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    push(ctx, args, End::Front, true)
}

fn rpushx(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    push(ctx, args, End::Back, true)
}

/// Removes the element at an end and replies with it.
fn pop_one(ctx: &mut Ctx<'_>, key: Key<'_>, entry: EntryPtr, end: End) {
    reply_element(&mut ctx.reply, list_of(&entry).end(end).expect("a list is never empty"));
    take_one(ctx, key, entry, end);
}

/// Removes the element at an end.
fn take_one(ctx: &mut Ctx<'_>, key: Key<'_>, entry: EntryPtr, end: End) {
    // The last element goes with its key.
    let empty = list_of(&entry).len() == 1;
    if !empty {
        let limits = limits(ctx.core);
        change(ctx, key, entry, |list| {
            list.pop(end);
            list.shrunk(&limits);
        });
    }
    removed(ctx, key, pop_event(end), 1, empty);
}

/// Removes up to `count` elements at an end and replies with a list of them.
fn pop_range(ctx: &mut Ctx<'_>, key: Key<'_>, entry: EntryPtr, end: End, count: usize) -> usize {
    let list = list_of(&entry);
    let len = list.len();
    let count = count.min(len);
    ctx.reply.array(count);
    let from = if end == End::Front { 0 } else { len - 1 };
    list.range(from, count, end == End::Back, |element| reply_element(&mut ctx.reply, element));
    if count < len {
        let limits = limits(ctx.core);
        change(ctx, key, entry, |list| {
            list.delete_range(if end == End::Front { 0 } else { len - count }, count);
            list.shrunk(&limits);
        });
    }
    removed(ctx, key, pop_event(end), count, count == len);
    count
}

/// A count that is no negative number, as an index could be.
fn positive(text: &[u8], error: &'static str) -> Result<usize, CommandError> {
    // What is no number at all has the same error here: Redis's functions take the text for both.
    parse_i64(text).and_then(|n| usize::try_from(n).ok()).ok_or(error.into())
}

fn pop(ctx: &mut Ctx<'_>, args: Args<'_>, end: End) -> CommandResult {
    let count = match args.len() {
        2 => None,
        3 => Some(positive(args.at(2), "ERR value is out of range, must be positive")?),
        _ => return Err(CommandError::Arity(if end == End::Front { "lpop" } else { "rpop" })),
    };
    let key = ctx.key(args, 1);
    match (lookup_write(ctx, key)?, count) {
        (None, None) => ctx.reply.null(),
        (None, Some(_)) => ctx.reply.null_array(),
        (Some(_), Some(0)) => ctx.reply.array(0),
        (Some(entry), None) => pop_one(ctx, key, entry, end),
        (Some(entry), Some(count)) => {
            pop_range(ctx, key, entry, end, count);
        }
    }
    Ok(())
}

fn lpop(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    pop(ctx, args, End::Front)
}

fn rpop(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    pop(ctx, args, End::Back)
}

/// The first index of a range and its length, from a start and a stop that may count from the end.
fn range_of(start: i64, stop: i64, len: usize) -> (usize, usize) {
    let len = len as i64;
    let start = if start < 0 { (start + len).max(0) } else { start };
    let stop = if stop < 0 { stop + len } else { stop.min(len - 1) };
    if start > stop || start >= len {
        return (0, 0);
    }
    (start as usize, (stop - start + 1) as usize)
}

fn start_and_stop(args: Args<'_>) -> Result<(i64, i64), CommandError> {
    let start = parse_i64(args.at(2)).ok_or(CommandError::NotInteger)?;
    Ok((start, parse_i64(args.at(3)).ok_or(CommandError::NotInteger)?))
}

fn lrange(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let (start, stop) = start_and_stop(args)?;
    let key = ctx.key(args, 1);
    let Some(entry) = lookup_read(ctx, key)? else {
        ctx.reply.array(0);
        return Ok(());
    };
    let list = list_of(&entry);
    let (from, count) = range_of(start, stop, list.len());
    ctx.reply.array(count);
    list.range(from, count, false, |element| reply_element(&mut ctx.reply, element));
    Ok(())
}

fn ltrim(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let (start, stop) = start_and_stop(args)?;
    let key = ctx.key(args, 1);
    if let Some(entry) = lookup_write(ctx, key)? {
        let len = list_of(&entry).len();
        let (from, count) = range_of(start, stop, len);
        if count > 0 {
            let limits = limits(ctx.core);
            change(ctx, key, entry, |list| {
                list.delete_range(from + count, len - from - count);
                list.delete_range(0, from);
                list.shrunk(&limits);
            });
        }
        removed(ctx, key, "ltrim", len - count, count == 0);
    }
    ctx.reply.ok();
    Ok(())
}

fn llen(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let len = lookup_read(ctx, key)?.map_or(0, |entry| list_of(&entry).len());
    ctx.reply.integer(len as i64);
    Ok(())
}

/// An index that may count from the end, as one from the start, if an element is there.
fn index_of(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index + len as i64 } else { index };
    usize::try_from(index).ok().filter(|index| *index < len)
}

fn lindex(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let Some(entry) = lookup_read(ctx, key)? else {
        ctx.reply.null();
        return Ok(());
    };
    let list = list_of(&entry);
    let index = parse_i64(args.at(2)).ok_or(CommandError::NotInteger)?;
    match index_of(index, list.len()).and_then(|index| list.get(index)) {
        Some(element) => reply_element(&mut ctx.reply, element),
        None => ctx.reply.null(),
    }
    Ok(())
}

fn lset(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let entry = lookup_write(ctx, key)?.ok_or(CommandError::NoSuchKey)?;
    let index = parse_i64(args.at(2)).ok_or(CommandError::NotInteger)?;
    let element = args.at(3);
    let index = index_of(index, list_of(&entry).len()).ok_or(CommandError::IndexOutOfRange)?;
    let limits = limits(ctx.core);
    change(ctx, key, entry, |list| {
        list.expect(element.len(), 1, &limits);
        list.replace(index, element, &limits);
        list.shrunk(&limits);
    });
    ctx.changed(Event::LIST, "lset", key.bytes);
    ctx.reply.ok();
    Ok(())
}

fn linsert(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let after = args.is(2, "after");
    if !after && !args.is(2, "before") {
        return Err(CommandError::Syntax);
    }
    let key = ctx.key(args, 1);
    let Some(entry) = lookup_write(ctx, key)? else {
        ctx.reply.integer(0);
        return Ok(());
    };
    let element = args.at(4);
    let limits = limits(ctx.core);
    let Some(index) = list_of(&entry).position(args.at(3)) else {
        // Redis makes room before it looks for the pivot, so the encoding may change though the list does not.
        let db = ctx.keys.db(ctx.client.db, key.bytes);
        db.with_object_mut(entry, |object| {
            if let ObjectMut::List(list) = object {
                list.expect(element.len(), 1, &limits);
            }
        });
        ctx.reply.integer(-1);
        return Ok(());
    };
    let len = change(ctx, key, entry, |list| {
        list.expect(element.len(), 1, &limits);
        list.insert(index, after, element, &limits);
        list.len()
    });
    ctx.changed(Event::LIST, "linsert", key.bytes);
    ctx.reply.integer(len as i64);
    Ok(())
}

/// An integer of which the opposite is one too.
fn symmetric(text: &[u8]) -> Result<i64, CommandError> {
    let number = parse_i64(text).ok_or(CommandError::NotInteger)?;
    if number == i64::MIN {
        return Err("ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807".into());
    }
    Ok(number)
}

fn lrem(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let count = symmetric(args.at(2))?;
    let key = ctx.key(args, 1);
    let Some(entry) = lookup_write(ctx, key)? else {
        ctx.reply.integer(0);
        return Ok(());
    };
    // What is not there changes nothing, and is not announced.
    if list_of(&entry).position(args.at(3)).is_none() {
        ctx.reply.integer(0);
        return Ok(());
    }
    let max = if count == 0 { usize::MAX } else { usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX) };
    let limits = limits(ctx.core);
    let (gone, empty) = change(ctx, key, entry, |list| {
        let gone = list.remove(args.at(3), max, count < 0);
        let empty = list.is_empty();
        if !empty {
            list.shrunk(&limits);
        }
        (gone, empty)
    });
    removed(ctx, key, "lrem", gone, empty);
    ctx.reply.integer(gone as i64);
    Ok(())
}

fn lpos(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let (mut rank, mut count, mut max_len) = (1, None, 0);
    let mut i = 3;
    while i < args.len() {
        let Some(value) = args.get(i + 1) else { return Err(CommandError::Syntax) };
        if args.is(i, "rank") {
            rank = symmetric(value)?;
            if rank == 0 {
                return Err(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use \
                            negative to start from the end of the list"
                        .into(),
                );
            }
        } else if args.is(i, "count") {
            count = Some(positive(value, "ERR COUNT can't be negative")?);
        } else if args.is(i, "maxlen") {
            max_len = positive(value, "ERR MAXLEN can't be negative")?;
        } else {
            return Err(CommandError::Syntax);
        }
        i += 2;
    }
    let key = ctx.key(args, 1);
    let Some(entry) = lookup_read(ctx, key)? else {
        match count {
            Some(_) => ctx.reply.array(0),
            None => ctx.reply.null(),
        }
        return Ok(());
    };
    let list = list_of(&entry);
    let len = list.len();
    let needle = Needle::new(args.at(2));
    let backward = rank < 0;
    let looked_at = if max_len == 0 { len } else { max_len.min(len) };
    let wanted = match count {
        None => 1,
        Some(0) => usize::MAX,
        Some(count) => count,
    };
    let mut passed_over = rank.unsigned_abs() - 1;
    let (mut place, mut found) = (0, 0);
    let open = ctx.reply.open_list();
    list.walk(if backward { len - 1 } else { 0 }, backward, |element| {
        if needle.is(element) {
            match passed_over {
                0 => {
                    ctx.reply.integer(if backward { len - 1 - place } else { place } as i64);
                    found += 1;
                }
                _ => passed_over -= 1,
            }
        }
        place += 1;
        if found == wanted || place == looked_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match (count, found) {
        (Some(_), found) => ctx.reply.close_list(open, found),
        (None, 0) => ctx.reply.null(),
        (None, _) => {}
    }
    Ok(())
}

fn end_arg(args: Args<'_>, index: usize) -> Result<End, CommandError> {
    match args {
        _ if args.is(index, "left") => Ok(End::Front),
        _ if args.is(index, "right") => Ok(End::Back),
        _ => Err(CommandError::Syntax),
    }
}

/// Moves an element from the list at argument 1, which is there, to the one at argument 2, and replies with it.
fn move_element(ctx: &mut Ctx<'_>, args: Args<'_>, source: EntryPtr, from: End, to: End) -> CommandResult {
    let (source_key, target_key) = (ctx.key_of(args.at(1)), ctx.key_of(args.at(2)));
    let target = lookup_write(ctx, target_key)?;
    let limits = limits(ctx.core);
    let mut buf = itoa::Buffer::new();
    if target == Some(source) {
        // A list to itself: the key must not go in between, for its time to live would go with it.
        let element = list_of(&source).end(from).expect("a list is never empty").as_bytes(&mut buf).to_vec();
        ctx.reply.bulk(&element);
        change(ctx, source_key, source, |list| {
            list.expect(element.len(), 1, &limits);
            list.push(to, &element, &limits);
            list.pop_beyond(from, to);
            list.shrunk(&limits);
        });
        ctx.core.notify(Event::LIST, push_event(to), source_key.bytes, ctx.client.db);
        removed(ctx, source_key, pop_event(from), 1, false);
        return Ok(());
    }
    let element = list_of(&source).end(from).expect("a list is never empty");
    let element = element.as_bytes(&mut buf);
    ctx.reply.bulk(element);
    if ctx.apart(source_key.bytes, target_key.bytes) {
        let push: &[u8] = if to == End::Front { b"LPUSH" } else { b"RPUSH" };
        ctx.effect_in_log(&[push, target_key.bytes, element]);
        ctx.effect_in_log(&[pop_name(from), source_key.bytes]);
    }
    let add = |list: &mut List| {
        list.expect(element.len(), 1, &limits);
        list.push(to, element, &limits);
    };
    match target {
        Some(target) => change(ctx, target_key, target, add),
        None => {
            let mut list = List::default();
            add(&mut list);
            add_list(ctx, target_key, list);
        }
    }
    ctx.core.notify(Event::LIST, push_event(to), target_key.bytes, ctx.client.db);
    take_one(ctx, source_key, source, from);
    Ok(())
}

fn move_or_null(ctx: &mut Ctx<'_>, args: Args<'_>, from: End, to: End) -> CommandResult {
    let key = ctx.key_of(args.at(1));
    match lookup_write(ctx, key)? {
        Some(source) => move_element(ctx, args, source, from, to)?,
        None => ctx.reply.null(),
    }
    Ok(())
}

fn lmove(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let (from, to) = (end_arg(args, 3)?, end_arg(args, 4)?);
    move_or_null(ctx, args, from, to)
}

fn rpoplpush(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    move_or_null(ctx, args, End::Back, End::Front)
}

/// What `LMPOP` and `BLMPOP` are told from argument `at` on, where the number of keys is: that, the end and the count.
fn pop_options(args: Args<'_>, at: usize) -> Result<(usize, End, usize), CommandError> {
    let keys = positive(args.at(at), "ERR numkeys should be greater than 0")?;
    if keys == 0 {
        return Err("ERR numkeys should be greater than 0".into());
    }
    let Some(end_at) = keys.checked_add(at + 1).filter(|end_at| *end_at < args.len()) else {
        return Err(CommandError::Syntax);
    };
    let end = end_arg(args, end_at)?;
    let count = match args.len() - end_at - 1 {
        0 => 1,
        2 if args.is(end_at + 1, "count") => {
            let count = positive(args.at(end_at + 2), "ERR count should be greater than 0")?;
            if count == 0 {
                return Err("ERR count should be greater than 0".into());
            }
            count
        }
        _ => return Err(CommandError::Syntax),
    };
    Ok((keys, end, count))
}

/// The first of the keys at arguments `from` to `to` that holds a list; an error if one before it holds another type.
fn first_list<'k>(
    ctx: &mut Ctx<'_>,
    args: Args<'k>,
    from: usize,
    to: usize,
) -> Result<Option<(Key<'k>, EntryPtr)>, CommandError> {
    for i in from..to {
        let key = ctx.key_of(args.at(i));
        if let Some(entry) = lookup_write(ctx, key)? {
            return Ok(Some((key, entry)));
        }
    }
    Ok(None)
}

fn lmpop(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let (keys, end, count) = pop_options(args, 1)?;
    match first_list(ctx, args, 2, 2 + keys)? {
        Some((key, entry)) => pop_many(ctx, key, entry, end, count),
        None => ctx.reply.null_array(),
    }
    Ok(())
}

/// Replies with a key and a list of up to `count` elements removed from it.
fn pop_many(ctx: &mut Ctx<'_>, key: Key<'_>, entry: EntryPtr, end: End, count: usize) {
    ctx.reply.array(2);
    ctx.reply.bulk(key.bytes);
    let count = pop_range(ctx, key, entry, end, count);
    // Which of the keys had elements is settled here, not where this is repeated.
    ctx.effect(&[pop_name(end), key.bytes, itoa::Buffer::new().format(count).as_bytes()]);
}

fn pop_name(end: End) -> &'static [u8] {
    if end == End::Front { b"LPOP" } else { b"RPOP" }
}

/// Waits for one of the keys at arguments `from` to `to`.
fn wait(
    ctx: &mut Ctx<'_>,
    args: Args<'_>,
    from: usize,
    to: usize,
    deadline_ms: i64,
    timeout_reply: TimeoutReply,
) -> CommandResult {
    let keys: Vec<&[u8]> = (from..to).map(|i| args.at(i)).collect();
    ctx.block(Block { deadline_ms, keys: &keys, timeout_reply, again: None, on_delete: false })
}

fn blocking_pop(ctx: &mut Ctx<'_>, args: Args<'_>, end: End) -> CommandResult {
    let last = args.len() - 1;
    let deadline_ms = deadline_of_seconds(ctx.core, args.at(last))?;
    let Some((key, entry)) = first_list(ctx, args, 1, last)? else {
        return wait(ctx, args, 1, last, deadline_ms, TimeoutReply::NullArray);
    };
    ctx.reply.array(2);
    ctx.reply.bulk(key.bytes);
    pop_one(ctx, key, entry, end);
    ctx.effect(&[pop_name(end), key.bytes]);
    Ok(())
}

fn blpop(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    blocking_pop(ctx, args, End::Front)
}

fn brpop(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    blocking_pop(ctx, args, End::Back)
}

fn blmpop(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let (keys, end, count) = pop_options(args, 2)?;
    let deadline_ms = deadline_of_seconds(ctx.core, args.at(1))?;
    match first_list(ctx, args, 3, 3 + keys)? {
        Some((key, entry)) => pop_many(ctx, key, entry, end, count),
        None => return wait(ctx, args, 3, 3 + keys, deadline_ms, TimeoutReply::NullArray),
    }
    Ok(())
}

fn blmove(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let (from, to) = (end_arg(args, 3)?, end_arg(args, 4)?);
    let deadline_ms = deadline_of_seconds(ctx.core, args.at(5))?;
    let key = ctx.key_of(args.at(1));
    let Some(source) = lookup_write(ctx, key)? else {
        return wait(ctx, args, 1, 2, deadline_ms, TimeoutReply::Null);
    };
    move_element(ctx, args, source, from, to)?;
    let words = [b"LMOVE", args.at(1), args.at(2), args.at(3), args.at(4)];
    match ctx.apart(args.at(1), args.at(2)) {
        true => ctx.effect_in_stream(&words),
        false => ctx.effect(&words),
    }
    Ok(())
}

fn brpoplpush(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let deadline_ms = deadline_of_seconds(ctx.core, args.at(3))?;
    let key = ctx.key_of(args.at(1));
    let Some(source) = lookup_write(ctx, key)? else {
        return wait(ctx, args, 1, 2, deadline_ms, TimeoutReply::Null);
    };
    move_element(ctx, args, source, End::Back, End::Front)?;
    let words = [b"RPOPLPUSH", args.at(1), args.at(2)];
    match ctx.apart(args.at(1), args.at(2)) {
        true => ctx.effect_in_stream(&words),
        false => ctx.effect(&words),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
