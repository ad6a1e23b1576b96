//! Consumer groups: `XREADGROUP`, `XACK`, `XCLAIM`, `XGROUP` and their kin. Counterpart: the second half of
//! `t_stream.c`.
//!
//! What a group reads and claims is repeated in the log as `XCLAIM`s with all that an entry's delivery left behind, and
//! as `XGROUP SETID`.

use super::stream::{
    READ, ReadArgs, STREAM, UPDATE, add, announce, at_most, behind_streams, change, close_streams, effect_of, end_arg,
    find_read, find_write, id_arg, int_arg, reply_entries, reply_entry, reply_id, reply_stream_head, start_arg,
    stream_of, touch,
};
use super::{Command, CommandError, CommandResult, Ctx, Key, KeySpec, flag, key};
use crate::args::Args;
use crate::core::Event;
use crate::entry::EntryPtr;
use crate::number::parse_i64;
use crate::types::Stream;
use crate::types::stream::group::ConsumerId;
use crate::types::stream::{Pending, StreamId};

use flag::*;

const DELETE: &[KeySpec] = &[KeySpec::one(1, key::RW | key::DELETE)];
const GROUP_INSERT: &[KeySpec] = &[KeySpec::one(2, key::RW | key::INSERT)];
const GROUP_DELETE: &[KeySpec] = &[KeySpec::one(2, key::RW | key::DELETE)];

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::data("xreadgroup", xreadgroup, -7, WRITE | BLOCKING | MOVABLE_KEYS, STREAM)
        .keys(&[behind_streams(4)])
        .doc(
            "5.0.0",
            "O(N), N being the number of entries returned",
            "Returns new entries of streams to a consumer of a group, or those it has yet to acknowledge.",
            "GROUP group consumer [COUNT count] [BLOCK milliseconds] [NOACK] STREAMS key [key ...] id [id ...]",
        ),
    Command::data("xack", xack, -4, WRITE | FAST, STREAM).keys(UPDATE).doc(
        "5.0.0",
        "O(N), N being the number of ids given",
        "Acknowledges entries that were delivered to a group.",
        "key group id [id ...]",
    ),
    Command::data("xpending", xpending, -3, READONLY, STREAM).keys(READ).doc(
        "5.0.0",
        "O(N), N being the number of entries or of consumers returned",
        "Returns what a group has yet to acknowledge.",
        "key group [[IDLE min-idle-time] start end count [consumer]]",
    ),
    Command::data("xclaim", xclaim, -6, WRITE | FAST, STREAM).keys(UPDATE).doc(
        "5.0.0",
        "O(N*log(M)), N being the number of ids given and M what is pending in the group",
        "Gives entries that are pending in a group to another of its consumers.",
        "key group consumer min-idle-time id [id ...] [IDLE ms] [TIME unix-time-milliseconds] [RETRYCOUNT count] \
         [FORCE] [JUSTID] [LASTID lastid]",
    ),
    Command::data("xautoclaim", xautoclaim, -6, WRITE | FAST, STREAM).keys(DELETE).doc(
        "6.2.0",
        "O(1) if COUNT is small",
        "Gives entries that have long been pending in a group to one of its consumers.",
        "key group consumer min-idle-time start [COUNT count] [JUSTID]",
    ),
    Command::container("xgroup", STREAM).doc(
        "5.0.0",
        "Depends on the subcommand",
        "Manages the consumer groups of a stream.",
        "",
    ),
    Command::data("xgroup|create", create, -5, WRITE | DENYOOM, STREAM).keys(GROUP_INSERT).doc(
        "5.0.0",
        "O(1)",
        "Makes a consumer group.",
        "key group <id | $> [MKSTREAM] [ENTRIESREAD entries-read]",
    ),
    Command::data("xgroup|setid", setid, -5, WRITE, STREAM).keys(&[KeySpec::one(2, key::RW | key::UPDATE)]).doc(
        "5.0.0",
        "O(1)",
        "Sets the id up to which a group has read.",
        "key group <id | $> [ENTRIESREAD entries-read]",
    ),
    Command::data("xgroup|destroy", destroy, 4, WRITE, STREAM).keys(GROUP_DELETE).doc(
        "5.0.0",
        "O(N), N being what is pending in the group",
        "Removes a consumer group.",
        "key group",
    ),
    Command::data("xgroup|createconsumer", createconsumer, 5, WRITE | DENYOOM, STREAM).keys(GROUP_INSERT).doc(
        "6.2.0",
        "O(1)",
        "Makes a consumer of a group.",
        "key group consumer",
    ),
    Command::data("xgroup|delconsumer", delconsumer, 5, WRITE, STREAM).keys(GROUP_DELETE).doc(
        "5.0.0",
        "O(N), N being what is pending for the consumer",
        "Removes a consumer of a group, and what is pending for it.",
        "key group consumer",
    ),
    Command::home("xgroup|help", help, 2, LOADING | STALE, STREAM).doc("5.0.0", "O(1)", "Lists the subcommands.", ""),
];

fn lossy(text: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(text)
}

/// The key's stream, which must have the group.
fn require_group(ctx: &mut Ctx<'_>, key: Key<'_>, group: &[u8], what: &str) -> Result<EntryPtr, CommandError> {
    let found = find_read(ctx, key)?.filter(|entry| stream_of(entry).group(group).is_some());
    found.ok_or_else(|| {
        format!("NOGROUP No such key '{}' or consumer group '{}'{what}", lossy(key.bytes), lossy(group)).into()
    })
}

/// The consumer of that name, made if there is none, and marked as seen.
fn see_consumer(ctx: &mut Ctx<'_>, key: Key<'_>, entry: EntryPtr, group: &[u8], name: &[u8]) -> (ConsumerId, bool) {
    let now = ctx.core.now_ms;
    let known = stream_of(&entry).group(group).and_then(|group| group.find(name));
    let made = known.is_none();
    if made {
        announce(ctx, key);
        ctx.changed(Event::STREAM, "xgroup-createconsumer", key.bytes);
    }
    let id = touch(ctx, key, entry, |stream| {
        let group = stream.group_mut(group).expect("the group was looked up");
        let id = known.unwrap_or_else(|| group.add_consumer(name, now));
        group.consumer_mut(id).seen_time_ms = now;
        id
    });
    (id, made)
}

/// The words that repeat an entry's delivery.
fn claim_words(
    key: &[u8],
    group: &[u8],
    consumer: &[u8],
    id: StreamId,
    pending: &Pending,
    last: StreamId,
) -> Vec<Vec<u8>> {
    let text = |text: String| text.into_bytes();
    vec![
        b"XCLAIM".to_vec(),
        key.to_vec(),
        group.to_vec(),
        consumer.to_vec(),
        b"0".to_vec(),
        text(id.to_string()),
        b"TIME".to_vec(),
        text(pending.delivery_time_ms.to_string()),
        b"RETRYCOUNT".to_vec(),
        text(pending.delivery_count.to_string()),
        b"FORCE".to_vec(),
        b"JUSTID".to_vec(),
        b"LASTID".to_vec(),
        text(last.to_string()),
    ]
}

/// The words that repeat how far a group has read.
fn group_id_words(key: &[u8], name: &[u8], stream: &Stream) -> Vec<Vec<u8>> {
    let group = stream.group(name).expect("the group was looked up");
    let read = group.entries_read.map_or(-1, |read| read as i64);
    vec![
        b"XGROUP".to_vec(),
        b"SETID".to_vec(),
        key.to_vec(),
        name.to_vec(),
        group.last_id.to_string().into_bytes(),
        b"ENTRIESREAD".to_vec(),
        read.to_string().into_bytes(),
    ]
}

// ---------------------------------------------------------------------- reading

fn xreadgroup(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let parsed = ReadArgs::parse(ctx, args, true)?;
    let (group, consumer) = parsed.group.expect("parsing asks for it");
    // An id, or `None` for what is new to the group.
    let mut wanted = Vec::with_capacity(parsed.keys);
    for i in parsed.keys_at..parsed.keys_at + parsed.keys {
        let key = ctx.key_of(args.at(i));
        let entry = require_group(ctx, key, group, " in XREADGROUP with GROUP option")?;
        let meaningless = |id: &str| {
            CommandError::from(format!(
                "ERR The {id} ID is meaningless in the context of XREADGROUP: you want to read the history of this \
                 consumer by specifying a proper ID, or use the > ID to get new messages. The {id} ID would just \
                 return an empty result set."
            ))
        };
        let id = match args.at(i + parsed.keys) {
            b"$" => return Err(meaningless("$")),
            b"+" => return Err(meaningless("+")),
            b">" => None,
            id => Some(id_arg(id)?),
        };
        wanted.push((key, entry, id));
    }
    // What it does is repeated as such: its own words would read something else another time.
    ctx.no_effect();
    let (list, mut served) = (ctx.reply.open_list(), 0);
    for (key, entry, id) in wanted {
        let (number, made) = see_consumer(ctx, key, entry, group, consumer);
        if made && parsed.noack {
            ctx.effect(&[b"XGROUP", b"CREATECONSUMER", key.bytes, group, consumer]);
        }
        match id {
            Some(id) => {
                served += 1;
                reply_stream_head(&mut ctx.reply, key.bytes);
                read_history(ctx, key, entry, group, number, id, parsed.count);
            }
            None => {
                let stream = stream_of(&entry);
                let last = stream.group(group).expect("the group was looked up").last_id;
                let Some(start) = last.next().filter(|_| stream.last_entry_id() > last) else { continue };
                served += 1;
                reply_stream_head(&mut ctx.reply, key.bytes);
                read_new(ctx, key, entry, (group, number), start, &parsed);
            }
        }
    }
    if served > 0 {
        close_streams(&mut ctx.reply, list, served);
        return Ok(());
    }
    parsed.wait(ctx, args, None)
}

/// Replies with entries from `start` on, which are pending for the consumer from now on.
fn read_new(
    ctx: &mut Ctx<'_>,
    key: Key<'_>,
    entry: EntryPtr,
    (name, consumer): (&[u8], ConsumerId),
    start: StreamId,
    parsed: &ReadArgs<'_>,
) {
    let now = ctx.core.now_ms;
    let mut ids = Vec::new();
    let entries = stream_of(&entry).range(start, StreamId::MAX).take(at_most(parsed.count));
    reply_entries(&mut ctx.reply, entries.inspect(|entry| ids.push(entry.id)));
    let mut effects = Vec::new();
    change(ctx, key, entry, |stream| {
        for id in ids {
            stream.delivered(name, id);
            if parsed.noack {
                continue;
            }
            let group = stream.group_mut(name).expect("the group was looked up");
            let pending = Pending { consumer, delivery_time_ms: now, delivery_count: 1 };
            group.assign(id, pending);
            let state = group.consumer_mut(consumer);
            state.active_time_ms = Some(now);
            effects.push(claim_words(key.bytes, name, &state.name, id, &pending, id));
        }
        effects.push(group_id_words(key.bytes, name, stream));
    });
    ctx.dirty += 1;
    effects.iter().for_each(|words| effect_of(ctx, words));
}

/// Replies with what is pending for the consumer behind the id `after`, as delivered once more.
fn read_history(
    ctx: &mut Ctx<'_>,
    key: Key<'_>,
    entry: EntryPtr,
    name: &[u8],
    consumer: ConsumerId,
    after: StreamId,
    count: i64,
) {
    // Redis increments the id and takes one that cannot be for itself.
    let start = after.next().unwrap_or(after);
    let stream = stream_of(&entry);
    let group = stream.group(name).expect("the group was looked up");
    let ids: Vec<StreamId> = group.consumer(consumer).pending().range(start..).take(at_most(count)).copied().collect();
    let mut again = Vec::new();
    ctx.reply.array(ids.len());
    for id in ids {
        match stream.get(id) {
            Some(entry) => {
                reply_entry(&mut ctx.reply, &entry);
                again.push(id);
            }
            // It was removed from the stream since.
            None => {
                ctx.reply.array(2);
                reply_id(&mut ctx.reply, id);
                ctx.reply.null_array();
            }
        }
    }
    if !again.is_empty() {
        let now = ctx.core.now_ms;
        change(ctx, key, entry, |stream| {
            let group = stream.group_mut(name).expect("the group was looked up");
            for id in again {
                let pending = group.pending_mut(id).expect("it is pending for the consumer");
                pending.delivery_time_ms = now;
                pending.delivery_count = pending.delivery_count.wrapping_add(1);
            }
        });
    }
}

fn xpending(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let argc = args.len();
    if argc != 3 && !(6..=9).contains(&argc) {
        return Err(CommandError::Syntax);
    }
    let (mut min_idle, mut at) = (0, 3);
    let mut range = None;
    if argc >= 6 {
        if args.is(3, "idle") {
            min_idle = int_arg(args.at(4))?;
            if argc < 8 {
                return Err(CommandError::Syntax);
            }
            at = 5;
        }
        let count = int_arg(args.at(at + 2))?.max(0);
        range = Some((start_arg(args.at(at))?, end_arg(args.at(at + 1))?, count));
    }
    let key = ctx.key(args, 1);
    let entry = require_group(ctx, key, args.at(2), "")?;
    let group = stream_of(&entry).group(args.at(2)).expect("the group was looked up");
    let reply = &mut ctx.reply;
    let Some((start, end, count)) = range else {
        reply.array(4);
        reply.integer(group.pending().len() as i64);
        match (group.pending().first_key_value(), group.pending().last_key_value()) {
            (Some((first, _)), Some((last, _))) => {
                reply_id(reply, *first);
                reply_id(reply, *last);
                let waiting = || group.consumers().filter(|consumer| !consumer.pending().is_empty());
                reply.array(waiting().count());
                for consumer in waiting() {
                    reply.array(2);
                    reply.bulk(&consumer.name);
                    reply.bulk_integer(consumer.pending().len() as i64);
                }
            }
            _ => {
                reply.null();
                reply.null();
                reply.null_array();
            }
        }
        return Ok(());
    };
    let now = ctx.core.now_ms;
    let (list, mut given) = (reply.open_list(), 0);
    let mut row = |id: StreamId, pending: &Pending| {
        let idle = now.saturating_sub(pending.delivery_time_ms);
        if given == count || min_idle != 0 && idle < min_idle {
            return given < count;
        }
        given += 1;
        reply.array(4);
        reply_id(reply, id);
        reply.bulk(&group.consumer(pending.consumer).name);
        reply.integer(idle.max(0));
        reply.integer(pending.delivery_count as i64);
        given < count
    };
    if start <= end && count > 0 {
        match args.get(at + 3) {
            None => {
                let _ = group.pending().range(start..=end).all(|(id, pending)| row(*id, pending));
            }
            Some(name) => {
                if let Some(consumer) = group.find(name) {
                    let mine = group.consumer(consumer).pending().range(start..=end);
                    let _ = mine.into_iter().all(|id| row(*id, &group.pending()[id]));
                }
            }
        }
    }
    ctx.reply.close_list(list, given as usize);
    Ok(())
}

// ---------------------------------------------------------------------- acknowledging and claiming

fn xack(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let name = args.at(2);
    let found = find_read(ctx, key)?.filter(|entry| stream_of(entry).group(name).is_some());
    let Some(entry) = found else {
        ctx.reply.integer(0);
        return Ok(());
    };
    let ids: Vec<StreamId> = args.iter_from(3).map(id_arg).collect::<Result<_, _>>()?;
    let group = stream_of(&entry).group(name).expect("it was just there");
    let mut acknowledged = 0;
    if ids.iter().any(|id| group.pending().contains_key(id)) {
        acknowledged = change(ctx, key, entry, |stream| {
            let group = stream.group_mut(name).expect("it was just there");
            ids.iter().filter(|id| group.acknowledge(**id).is_some()).count()
        });
    }
    ctx.dirty += acknowledged as u64;
    ctx.reply.integer(acknowledged as i64);
    Ok(())
}

/// What `XCLAIM` and `XAUTOCLAIM` do with one entry that is pending.
enum Claimed {
    /// The entry is no longer in the stream: it is not pending any more.
    Gone,
    /// It was delivered too lately.
    Busy,
    /// It is the consumer's now.
    Yes,
}

/// Who claims, and how.
struct Claim<'a> {
    key: Key<'a>,
    entry: EntryPtr,
    group: &'a [u8],
    consumer: ConsumerId,
    min_idle: i64,
    delivery_time_ms: i64,
    /// The delivery count to set.
    count: Option<u64>,
    just_id: bool,
    force: bool,
}

impl Claim<'_> {
    /// Claims one entry, if it is pending or claiming is forced, replies with it and notes the effect.
    fn one(&self, ctx: &mut Ctx<'_>, id: StreamId) -> Option<Claimed> {
        let now = ctx.core.now_ms;
        let stream = stream_of(&self.entry);
        let group = stream.group(self.group).expect("the group was looked up");
        let pending = group.pending().get(&id).copied();
        let last_id = group.last_id;
        let words = |group: &crate::types::stream::Group, pending: &Pending| {
            let consumer = &group.consumer(pending.consumer).name;
            claim_words(self.key.bytes, self.group, consumer, id, pending, last_id)
        };
        let Some(item) = stream.get(id) else {
            let pending = pending?;
            let words = words(group, &pending);
            change(ctx, self.key, self.entry, |stream| {
                stream.group_mut(self.group).expect("the group was looked up").acknowledge(id)
            });
            effect_of(ctx, &words);
            ctx.dirty += 1;
            return Some(Claimed::Gone);
        };
        if pending.is_none() && !self.force {
            return None;
        }
        let idle = |pending: &Pending| now.saturating_sub(pending.delivery_time_ms);
        if self.min_idle > 0 && pending.as_ref().is_some_and(|pending| idle(pending) < self.min_idle) {
            return Some(Claimed::Busy);
        }
        match self.just_id {
            true => reply_id(&mut ctx.reply, id),
            false => reply_entry(&mut ctx.reply, &item),
        }
        // A forced one counts as delivered once before, as in Redis.
        let old_count = pending.map_or(1, |pending| pending.delivery_count);
        let delivery_count = match (self.count, self.just_id) {
            (Some(count), _) => count,
            (None, true) => old_count,
            (None, false) => old_count.wrapping_add(1),
        };
        let new = Pending { consumer: self.consumer, delivery_time_ms: self.delivery_time_ms, delivery_count };
        let words = words(group, &new);
        change(ctx, self.key, self.entry, |stream| {
            let group = stream.group_mut(self.group).expect("the group was looked up");
            group.assign(id, new);
            group.consumer_mut(self.consumer).active_time_ms = Some(now);
        });
        effect_of(ctx, &words);
        ctx.dirty += 1;
        Some(Claimed::Yes)
    }
}

fn xclaim(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let name = args.at(2);
    let entry = require_group(ctx, key, name, "")?;
    let number = |text: &[u8], what: &str| parse_i64(text).ok_or(CommandError::from(what.to_owned()));
    let min_idle = number(args.at(4), "ERR Invalid min-idle-time argument for XCLAIM")?.max(0);
    let ids: Vec<StreamId> = args.iter_from(5).map_while(|text| StreamId::parse(text, 0)).collect();
    let now = ctx.core.now_ms;
    let (mut delivery_time, mut count, mut force, mut just_id, mut last_id) = (None, None, false, false, None);
    let mut i = 5 + ids.len();
    while i < args.len() {
        let value = args.get(i + 1);
        let mut taken = 2;
        match value {
            _ if args.is(i, "force") => (force, taken) = (true, 1),
            _ if args.is(i, "justid") => (just_id, taken) = (true, 1),
            Some(value) if args.is(i, "idle") => {
                let idle = number(value, "ERR Invalid IDLE option argument for XCLAIM")?;
                delivery_time = Some(now.saturating_sub(idle));
            }
            Some(value) if args.is(i, "time") => {
                delivery_time = Some(number(value, "ERR Invalid TIME option argument for XCLAIM")?);
            }
            Some(value) if args.is(i, "retrycount") => {
                // A negative count is none given.
                count = u64::try_from(number(value, "ERR Invalid RETRYCOUNT option argument for XCLAIM")?).ok();
            }
            Some(value) if args.is(i, "lastid") => last_id = Some(id_arg(value)?),
            _ => return Err(format!("ERR Unrecognized XCLAIM option '{}'", lossy(args.at(i))).into()),
        }
        i += taken;
    }
    ctx.no_effect();
    // A client's sums with clocks may come out odd: a time that cannot be is now.
    // While a log is loaded time stands still, and what it says is true.
    let latest = if ctx.core.time_stands_still() { i64::MAX } else { now };
    let delivery_time_ms = delivery_time.filter(|time| (0..=latest).contains(time)).unwrap_or(now);
    let group = stream_of(&entry).group(name).expect("the group was looked up");
    let last_id = last_id.filter(|id| *id > group.last_id);
    if let Some(last_id) = last_id {
        change(ctx, key, entry, |stream| stream.group_mut(name).expect("it was just there").last_id = last_id);
    }
    let (consumer, _) = see_consumer(ctx, key, entry, name, args.at(3));
    let claim = Claim { key, entry, group: name, consumer, min_idle, delivery_time_ms, count, just_id, force };
    let (list, mut claimed) = (ctx.reply.open_list(), 0);
    let mut told = false;
    for id in ids {
        let result = claim.one(ctx, id);
        told |= matches!(result, Some(Claimed::Yes | Claimed::Gone));
        claimed += usize::from(matches!(result, Some(Claimed::Yes)));
    }
    // The claims' effects carry the last id as well.
    if last_id.is_some() && !told {
        let words = group_id_words(key.bytes, name, stream_of(&entry));
        effect_of(ctx, &words);
        ctx.dirty += 1;
    }
    ctx.reply.close_list(list, claimed);
    Ok(())
}

fn xautoclaim(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let min_idle = parse_i64(args.at(4)).ok_or("ERR Invalid min-idle-time argument for XAUTOCLAIM")?.max(0);
    let start = start_arg(args.at(5))?;
    let (mut count, mut just_id, mut i) = (100, false, 6);
    while i < args.len() {
        if args.is(i, "count") && i + 1 < args.len() {
            let given = parse_i64(args.at(i + 1));
            count = given.filter(|n| (1..=i64::MAX / 16).contains(n)).ok_or("ERR COUNT must be > 0")?;
            i += 2;
        } else if args.is(i, "justid") {
            just_id = true;
            i += 1;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let key = ctx.key(args, 1);
    let name = args.at(2);
    let entry = require_group(ctx, key, name, "")?;
    ctx.no_effect();
    let (consumer, _) = see_consumer(ctx, key, entry, name, args.at(3));
    let now = ctx.core.now_ms;
    let claim = Claim {
        key,
        entry,
        group: name,
        consumer,
        min_idle,
        delivery_time_ms: now,
        count: None,
        just_id,
        force: false,
    };
    // The first pending entry from an id on; there is none behind the greatest.
    let next = |from: Option<StreamId>| {
        let group = stream_of(&entry).group(name).expect("the group was looked up");
        group.pending().range(from?..).next().map(|(id, _)| *id)
    };
    // The cursor comes first and is known last.
    let mut out = std::mem::take(ctx.reply.out);
    let head = out.len();
    std::mem::swap(ctx.reply.out, &mut out);
    let (mut attempts, mut claimed, mut gone) = (count * 10, 0, Vec::new());
    let mut from = Some(start);
    while attempts > 0 && count > 0 {
        attempts -= 1;
        let Some(id) = next(from) else { break };
        from = id.next();
        match claim.one(ctx, id) {
            Some(Claimed::Yes) => {
                claimed += 1;
                count -= 1;
            }
            Some(Claimed::Gone) => {
                gone.push(id);
                count -= 1;
            }
            _ => {}
        }
    }
    let entries = ctx.reply.out.split_off(head);
    ctx.reply.array(3);
    reply_id(&mut ctx.reply, next(from).unwrap_or(StreamId::MIN));
    ctx.reply.array(claimed);
    ctx.reply.out.extend_from_slice(&entries);
    ctx.reply.array(gone.len());
    gone.into_iter().for_each(|id| reply_id(&mut ctx.reply, id));
    Ok(())
}

// ---------------------------------------------------------------------- XGROUP

/// Redis's error for a subcommand's arguments that it does not understand.
pub(super) fn bad_subcommand(args: Args<'_>, container: &str) -> CommandError {
    let name = &args.at(1)[..args.at(1).len().min(128)];
    format!("ERR unknown subcommand or wrong number of arguments for '{}'. Try {container} HELP.", lossy(name)).into()
}

/// Options of `XGROUP CREATE` and `XGROUP SETID`: whether to make the stream, and how many entries were read.
fn group_options(args: Args<'_>, create: bool) -> Result<(bool, Option<u64>), CommandError> {
    let (mut make, mut read, mut i) = (false, None, 5);
    while i < args.len() {
        if create && args.is(i, "mkstream") {
            make = true;
            i += 1;
        } else if args.is(i, "entriesread") && i + 1 < args.len() {
            read = match int_arg(args.at(i + 1))? {
                -1 => None,
                read => Some(u64::try_from(read).map_err(|_| "ERR value for ENTRIESREAD must be positive or -1")?),
            };
            i += 2;
        } else {
            return Err(bad_subcommand(args, "XGROUP"));
        }
    }
    Ok((make, read))
}

const NO_KEY: &str = "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use \
                      the MKSTREAM option to create an empty stream automatically.";

/// The key's stream, which must have the group.
fn group_to_change<'a>(ctx: &mut Ctx<'_>, args: Args<'a>) -> Result<(Key<'a>, EntryPtr), CommandError> {
    let key = ctx.key(args, 2);
    let entry = find_write(ctx, key)?.ok_or(NO_KEY)?;
    match stream_of(&entry).group(args.at(3)) {
        Some(_) => Ok((key, entry)),
        None => {
            Err(format!("NOGROUP No such consumer group '{}' for key name '{}'", lossy(args.at(3)), lossy(key.bytes))
                .into())
        }
    }
}

fn create(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let (make, read) = group_options(args, true)?;
    let key = ctx.key(args, 2);
    let found = find_write(ctx, key)?;
    if found.is_none() && !make {
        return Err(NO_KEY.into());
    }
    if args.len() > 8 {
        return Err(bad_subcommand(args, "XGROUP"));
    }
    let name = args.at(3);
    let id = match args.at(4) {
        b"$" => found.as_ref().map_or(StreamId::MIN, |entry| stream_of(entry).last_id),
        id => id_arg(id)?,
    };
    match found {
        Some(entry) if stream_of(&entry).group(name).is_some() => {
            return Err("BUSYGROUP Consumer Group name already exists".into());
        }
        Some(entry) => change(ctx, key, entry, |stream| {
            stream.add_group(name, id, read);
        }),
        None => {
            let mut stream = Stream::new();
            stream.add_group(name, id, read);
            add(ctx, key, stream);
        }
    }
    ctx.changed(Event::STREAM, "xgroup-create", key.bytes);
    ctx.reply.ok();
    Ok(())
}

fn setid(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let (_, read) = group_options(args, false)?;
    let (key, entry) = group_to_change(ctx, args)?;
    if args.len() > 7 {
        return Err(bad_subcommand(args, "XGROUP"));
    }
    let id = match args.at(4) {
        b"$" => stream_of(&entry).last_id,
        id => StreamId::parse_bound(id, 0).ok_or(super::stream::BAD_ID)?,
    };
    change(ctx, key, entry, |stream| {
        let group = stream.group_mut(args.at(3)).expect("the group was looked up");
        group.last_id = id;
        group.entries_read = read;
    });
    ctx.changed(Event::STREAM, "xgroup-setid", key.bytes);
    ctx.reply.ok();
    Ok(())
}

fn destroy(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 2);
    let entry = find_write(ctx, key)?.ok_or(NO_KEY)?;
    let there = stream_of(&entry).group(args.at(3)).is_some();
    if there {
        change(ctx, key, entry, |stream| stream.remove_group(args.at(3)));
        ctx.changed(Event::STREAM, "xgroup-destroy", key.bytes);
    }
    ctx.reply.integer(there as i64);
    Ok(())
}

fn createconsumer(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let (key, entry) = group_to_change(ctx, args)?;
    let (name, now) = (args.at(4), ctx.core.now_ms);
    let known = stream_of(&entry).group(args.at(3)).is_some_and(|group| group.find(name).is_some());
    if !known {
        change(ctx, key, entry, |stream| {
            stream.group_mut(args.at(3)).expect("the group was looked up").add_consumer(name, now);
        });
        ctx.changed(Event::STREAM, "xgroup-createconsumer", key.bytes);
    }
    ctx.reply.integer(!known as i64);
    Ok(())
}

fn delconsumer(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let (key, entry) = group_to_change(ctx, args)?;
    let name = args.at(4);
    let mut pending = 0;
    if stream_of(&entry).group(args.at(3)).is_some_and(|group| group.find(name).is_some()) {
        let removed = change(ctx, key, entry, |stream| {
            stream.group_mut(args.at(3)).expect("the group was looked up").remove_consumer(name)
        });
        pending = removed.unwrap_or(0);
        ctx.changed(Event::STREAM, "xgroup-delconsumer", key.bytes);
    }
    ctx.reply.integer(pending as i64);
    Ok(())
}

fn help(shard: &mut crate::shard::Shard, index: u32, _: Args<'_>) -> CommandResult {
    super::help(
        shard,
        index,
        "XGROUP",
        &[
            ("CREATE <key> <groupname> <id|$> [option]", "Create a new consumer group. Options are:"),
            ("    * MKSTREAM", "  Create the empty stream if it does not exist."),
            ("    * ENTRIESREAD entries_read", "  Set the group's entries_read counter (internal use)."),
            ("CREATECONSUMER <key> <groupname> <consumer>", "Create a new consumer in the specified group."),
            ("DELCONSUMER <key> <groupname> <consumer>", "Remove the specified consumer."),
            ("DESTROY <key> <groupname>", "Remove the specified group."),
            (
                "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
                "Set the current group ID and entries_read counter.",
            ),
        ],
    )
}

#[cfg(test)]
mod tests;
