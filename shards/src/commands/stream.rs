//! Streams: `XADD`, `XRANGE`, `XREAD` and their family. Counterpart: `t_stream.c`.
//!
//! What a stream is stands in `types/stream/`. Consumer groups have a file of their own, `stream_group.rs`, and so
//! has `XINFO`, `stream_info.rs`; what all three share is here.

use super::block::{Block, TimeoutReply, deadline_of_ms};
use super::spec::{Begin, Find};
use super::{Command, CommandError, CommandResult, Ctx, Group, Key, KeySpec, flag, key};
use crate::args::{Args, OwnedArgs};
use crate::core::Event;
use crate::entry::{EntryPtr, Kind, StrRef};
use crate::number::parse_i64;
use crate::object::{Object, ObjectMut, ObjectRef};
use crate::resp::Reply;
use crate::types::Stream;
use crate::types::stream::id::Given;
use crate::types::stream::{AppendError, Entry, Limits, StreamId, Trim};

use flag::*;

pub(super) const STREAM: Group = Group::Stream;
pub(super) const READ: &[KeySpec] = &[KeySpec::one(1, key::RO | key::ACCESS)];
const DELETE: &[KeySpec] = &[KeySpec::one(1, key::RW | key::DELETE)];
pub(super) const UPDATE: &[KeySpec] = &[KeySpec::one(1, key::RW | key::UPDATE)];

/// The keys of `XREAD` and `XREADGROUP`: the first half of what stands behind `STREAMS`.
pub(super) const fn behind_streams(from: i16) -> KeySpec {
    KeySpec {
        begin: Begin::Keyword("STREAMS", from),
        find: Find::Range { last: -1, step: 1, limit: 2 },
        flags: key::RO | key::ACCESS,
    }
}

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::data("xadd", xadd, -5, WRITE | DENYOOM | FAST, STREAM).keys(UPDATE).doc(
        "5.0.0",
        "O(1), O(N) when trimming, N being the number of entries that go",
        "Appends an entry to a stream, which is made if there is none.",
        "key [NOMKSTREAM] [<MAXLEN | MINID> [= | ~] threshold [LIMIT count]] <* | id> field value [field value ...]",
    ),
    Command::data("xlen", xlen, 2, READONLY | FAST, STREAM).keys(&[KeySpec::one(1, key::RO)]).doc(
        "5.0.0",
        "O(1)",
        "Counts the entries of a stream.",
        "key",
    ),
    Command::data("xrange", xrange, -4, READONLY, STREAM).keys(READ).doc(
        "5.0.0",
        "O(N), N being the number of entries returned",
        "Returns the entries of a stream between two ids.",
        "key start end [COUNT count]",
    ),
    Command::data("xrevrange", xrevrange, -4, READONLY, STREAM).keys(READ).doc(
        "5.0.0",
        "O(N), N being the number of entries returned",
        "Returns the entries of a stream between two ids, the last first.",
        "key end start [COUNT count]",
    ),
    Command::data("xread", xread, -4, READONLY | BLOCKING | MOVABLE_KEYS, STREAM).keys(&[behind_streams(1)]).doc(
        "5.0.0",
        "O(N), N being the number of entries returned",
        "Returns the entries of streams behind the ids given, or waits for some.",
        "[COUNT count] [BLOCK milliseconds] STREAMS key [key ...] id [id ...]",
    ),
    Command::data("xdel", xdel, -3, WRITE | FAST, STREAM).keys(DELETE).doc(
        "5.0.0",
        "O(N), N being the number of ids given",
        "Removes entries of a stream by their ids.",
        "key id [id ...]",
    ),
    Command::data("xtrim", xtrim, -4, WRITE, STREAM).keys(DELETE).doc(
        "5.0.0",
        "O(N), N being the number of entries that go",
        "Removes entries from the front of a stream.",
        "key <MAXLEN | MINID> [= | ~] threshold [LIMIT count]",
    ),
    Command::data("xsetid", xsetid, -3, WRITE | DENYOOM | FAST, STREAM).keys(UPDATE).doc(
        "5.0.0",
        "O(1)",
        "Sets the last id of a stream and its counters: for internal use.",
        "key last-id [ENTRIESADDED entries-added] [MAXDELETEDID max-deleted-id]",
    ),
];

// ---------------------------------------------------------------------- what the whole family shares

/// The stream of an entry that was looked up as one.
pub(super) fn stream_of(entry: &EntryPtr) -> &Stream {
    match entry.object() {
        Some(ObjectRef::Stream(stream)) => stream,
        _ => unreachable!("an entry of kind stream holds a stream"),
    }
}

pub(super) fn find_read(ctx: &mut Ctx<'_>, key: Key<'_>) -> Result<Option<EntryPtr>, CommandError> {
    ctx.keys.db(ctx.client.db, key.bytes).lookup_read_kind(ctx.core, key, Kind::Stream)
}

pub(super) fn find_write(ctx: &mut Ctx<'_>, key: Key<'_>) -> Result<Option<EntryPtr>, CommandError> {
    ctx.keys.db(ctx.client.db, key.bytes).lookup_write_kind(ctx.core, key, Kind::Stream)
}

/// Lets `f` change a stream, without announcing it: for what is no change to others, such as when a consumer was seen.
pub(super) fn touch<T>(ctx: &mut Ctx<'_>, key: Key<'_>, entry: EntryPtr, f: impl FnOnce(&mut Stream) -> T) -> T {
    ctx.keys.db(ctx.client.db, key.bytes).with_object_mut(entry, |object| match object {
        ObjectMut::Stream(stream) => f(stream),
        _ => unreachable!("an entry of kind stream holds a stream"),
    })
}

pub(super) fn announce(ctx: &mut Ctx<'_>, key: Key<'_>) {
    ctx.keys.db(ctx.client.db, key.bytes).before_write(key.bytes);
}

/// Lets `f` change a stream, and announces it.
pub(super) fn change<T>(ctx: &mut Ctx<'_>, key: Key<'_>, entry: EntryPtr, f: impl FnOnce(&mut Stream) -> T) -> T {
    announce(ctx, key);
    touch(ctx, key, entry, f)
}

/// Adds a stream under an absent key.
pub(super) fn add(ctx: &mut Ctx<'_>, key: Key<'_>, stream: Stream) {
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    db.add_object(ctx.core, key, Object::Stream(Box::new(stream)));
}

/// Redis's error for what is no id.
pub(super) const BAD_ID: &str = "ERR Invalid stream ID specified as stream command argument";

/// A plain id; a missing sequence is 0.
pub(super) fn id_arg(text: &[u8]) -> Result<StreamId, CommandError> {
    StreamId::parse(text, 0).ok_or(BAD_ID.into())
}

/// The lower end of a range, itself included: `-`, `id` or `(id`.
pub(super) fn start_arg(text: &[u8]) -> Result<StreamId, CommandError> {
    match text {
        [b'(', id @ ..] if !id.is_empty() => id_arg(id)?.next().ok_or("ERR invalid start ID for the interval".into()),
        id => StreamId::parse_bound(id, 0).ok_or(BAD_ID.into()),
    }
}

/// The upper end of a range, itself included: `+`, `id` or `(id`.
pub(super) fn end_arg(text: &[u8]) -> Result<StreamId, CommandError> {
    match text {
        [b'(', id @ ..] if !id.is_empty() => {
            StreamId::parse(id, u64::MAX).ok_or(BAD_ID)?.prev().ok_or("ERR invalid end ID for the interval".into())
        }
        id => StreamId::parse_bound(id, u64::MAX).ok_or(BAD_ID.into()),
    }
}

/// An integer argument.
pub(super) fn int_arg(text: &[u8]) -> Result<i64, CommandError> {
    parse_i64(text).ok_or(CommandError::NotInteger)
}

pub(super) fn reply_text(reply: &mut Reply<'_>, text: StrRef<'_>) {
    match text {
        StrRef::Bytes(bytes) => reply.bulk(bytes),
        StrRef::Int(n) => reply.bulk_integer(n),
    }
}

pub(super) fn reply_id(reply: &mut Reply<'_>, id: StreamId) {
    let (mut text, mut digits) = ([0u8; 41], itoa::Buffer::new());
    let ms = digits.format(id.ms).as_bytes();
    text[..ms.len()].copy_from_slice(ms);
    text[ms.len()] = b'-';
    let at = ms.len() + 1;
    let seq = digits.format(id.seq).as_bytes();
    text[at..at + seq.len()].copy_from_slice(seq);
    reply.bulk(&text[..at + seq.len()]);
}

/// An entry as `XRANGE` gives it.
pub(super) fn reply_entry(reply: &mut Reply<'_>, entry: &Entry<'_>) {
    reply.array(2);
    reply_id(reply, entry.id);
    reply.array(2 * entry.len());
    entry.for_each(|field, value| {
        reply_text(reply, field);
        reply_text(reply, value);
    });
}

/// A list of entries.
pub(super) fn reply_entries<'a>(reply: &mut Reply<'_>, entries: impl Iterator<Item = Entry<'a>>) -> usize {
    let (list, mut count) = (reply.open_list(), 0);
    for entry in entries {
        reply_entry(reply, &entry);
        count += 1;
    }
    reply.close_list(list, count);
    count
}

/// A count of entries at most: Redis's 0 stands for all.
pub(super) fn at_most(count: i64) -> usize {
    match count {
        ..=0 => usize::MAX,
        count => usize::try_from(count).unwrap_or(usize::MAX),
    }
}

// ---------------------------------------------------------------------- adding and trimming

/// `MAXLEN` or `MINID` with what belongs to it.
#[derive(Clone, Copy)]
struct TrimArgs {
    trim: Trim,
    approximate: bool,
    /// 0 for none.
    limit: u64,
    /// Index of the threshold.
    at: usize,
}

/// What stands before the fields of `XADD`, or behind the key of `XTRIM`.
struct AddArgs {
    trim: Option<TrimArgs>,
    /// Index of `LIMIT`.
    limit_at: Option<usize>,
    no_stream: bool,
    /// The id, or `None` for `*`.
    id: Option<Given>,
    /// Index of the id.
    id_at: usize,
}

impl AddArgs {
    fn parse(args: Args<'_>, adding: bool, node_entries: u64) -> Result<Self, CommandError> {
        let mut parsed = AddArgs { trim: None, limit_at: None, no_stream: false, id: None, id_at: args.len() };
        let (mut limit, mut i) = (0, 2);
        while i < args.len() {
            let more = args.len() - 1 - i;
            let (by_len, by_id) = (args.is(i, "maxlen"), args.is(i, "minid"));
            if adding && args.at(i) == b"*" {
                parsed.id_at = i;
                break;
            } else if (by_len || by_id) && more > 0 {
                if parsed.trim.is_some() {
                    return Err("ERR syntax error, MAXLEN and MINID options at the same time are not compatible".into());
                }
                let mark = args.at(i + 1);
                let approximate = more >= 2 && mark == b"~";
                i += 1 + usize::from(more >= 2 && (mark == b"~" || mark == b"="));
                let trim = match by_len {
                    true => {
                        let len = int_arg(args.at(i))?;
                        Trim::MaxLen(u64::try_from(len).map_err(|_| "ERR The MAXLEN argument must be >= 0.")?)
                    }
                    false => Trim::MinId(id_arg(args.at(i))?),
                };
                parsed.trim = Some(TrimArgs { trim, approximate, limit: 0, at: i });
            } else if args.is(i, "limit") && more > 0 {
                let given = int_arg(args.at(i + 1))?;
                limit = u64::try_from(given).map_err(|_| "ERR The LIMIT argument must be >= 0.")?;
                parsed.limit_at = Some(i);
                i += 1;
            } else if adding && args.is(i, "nomkstream") {
                parsed.no_stream = true;
            } else if adding {
                parsed.id = Some(Given::parse(args.at(i), 0).ok_or(BAD_ID)?);
                parsed.id_at = i;
                break;
            } else {
                return Err(CommandError::Syntax);
            }
            i += 1;
        }
        let Some(trim) = &mut parsed.trim else {
            if limit > 0 {
                return Err("ERR syntax error, LIMIT cannot be used without specifying a trimming strategy".into());
            }
            if !adding {
                return Err("ERR syntax error, XTRIM must be called with a trimming strategy".into());
            }
            return Ok(parsed);
        };
        trim.limit = match (parsed.limit_at, trim.approximate) {
            (Some(_), false) => {
                return Err("ERR syntax error, LIMIT cannot be used without the special ~ option".into());
            }
            (Some(_), true) => limit,
            // A hundred nodes' worth keeps one command from holding up the shard.
            (None, true) => match node_entries.saturating_mul(100) {
                0 => 10_000,
                limit => limit.min(1_000_000),
            },
            (None, false) => 0,
        };
        Ok(parsed)
    }

    /// The command's words with what it came to: the id that was made, and instead of an approximate threshold an exact
    /// one that comes to the same.
    fn effect(&self, args: Args<'_>, stream: &Stream, id: Option<StreamId>) -> Vec<Vec<u8>> {
        let mut words = Vec::with_capacity(args.len());
        let trim = self.trim.filter(|trim| trim.approximate);
        for i in 0..args.len() {
            let word = match (trim, id) {
                (Some(trim), _) if i == trim.at => match trim.trim {
                    Trim::MaxLen(_) => stream.len().to_string().into_bytes(),
                    Trim::MinId(_) => stream.first_id.to_string().into_bytes(),
                },
                (Some(trim), _) if i + 1 == trim.at => b"=".to_vec(),
                // An exact trim has no limit.
                (Some(_), _) if self.limit_at.is_some_and(|at| i == at || i == at + 1) => continue,
                (_, Some(id)) if i == self.id_at => id.to_string().into_bytes(),
                _ => args.at(i).to_vec(),
            };
            words.push(word);
        }
        words
    }
}

/// Repeats `words` instead of the command's own.
pub(super) fn effect_of(ctx: &mut Ctx<'_>, words: &[Vec<u8>]) {
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    ctx.effect(&words);
}

fn xadd(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let limits = Limits::of(&ctx.core.config);
    let parsed = AddArgs::parse(args, true, limits.entries)?;
    let fields_at = parsed.id_at + 1;
    if args.len() < fields_at + 2 || (args.len() - fields_at) % 2 == 1 {
        return Err(CommandError::Arity("xadd"));
    }
    if parsed.id == Some(Given { id: StreamId::MIN, seq_given: true }) {
        return Err("ERR The ID specified in XADD must be greater than 0-0".into());
    }
    let key = ctx.key(args, 1);
    let found = find_write(ctx, key)?;
    if found.is_none() && parsed.no_stream {
        ctx.reply.null();
        return Ok(());
    }
    // Whether it can be appended is known before anything is changed, so that a refused entry leaves no empty stream.
    const ORDER: &str = "ERR The ID specified in XADD is equal or smaller than the target stream top item";
    let empty = Stream::new();
    let stream = found.as_ref().map_or(&empty, stream_of);
    if stream.last_id == StreamId::MAX {
        return Err("ERR The stream has exhausted the last possible ID, unable to add more items".into());
    }
    let id = match parsed.id {
        None => stream.next_id(ctx.core.now_ms.max(0) as u64),
        Some(Given { id, seq_given: true }) => Some(id),
        Some(Given { id, .. }) => stream.next_id_in(id.ms),
    };
    let id = id.filter(|id| *id > stream.last_id).ok_or(ORDER)?;
    let texts = args.iter_from(fields_at);
    let refused = |error| match error {
        AppendError::Order => CommandError::from(ORDER),
        AppendError::TooLarge => "ERR Elements are too large to be stored".into(),
    };
    match found {
        Some(entry) => change(ctx, key, entry, |stream| stream.append(limits, id, texts)).map_err(refused)?,
        None => {
            let mut stream = Stream::new();
            stream.append(limits, id, texts).map_err(refused)?;
            add(ctx, key, stream);
        }
    }
    ctx.changed(Event::STREAM, "xadd", key.bytes);
    let entry = ctx.keys.db(ctx.client.db, key.bytes).find(ctx.core, key).expect("it was just written");
    if let Some(trim) = parsed.trim {
        let trimmed = touch(ctx, key, entry, |stream| stream.trim(trim.trim, trim.approximate, trim.limit));
        if trimmed > 0 {
            ctx.core.notify(Event::STREAM, "xtrim", key.bytes, ctx.client.db);
        }
    }
    if parsed.id.is_none_or(|given| !given.seq_given) || parsed.trim.is_some_and(|trim| trim.approximate) {
        let words = parsed.effect(args, stream_of(&entry), Some(id));
        effect_of(ctx, &words);
    }
    reply_id(&mut ctx.reply, id);
    Ok(())
}

fn xtrim(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let parsed = AddArgs::parse(args, false, ctx.core.config.stream_node_max_entries)?;
    let trim = parsed.trim.expect("parsing asks for it");
    let key = ctx.key(args, 1);
    let Some(entry) = find_write(ctx, key)? else {
        ctx.reply.integer(0);
        return Ok(());
    };
    let may = match trim.trim {
        Trim::MaxLen(max) => stream_of(&entry).len() > max,
        Trim::MinId(id) => !stream_of(&entry).is_empty() && stream_of(&entry).first_id < id,
    };
    if may {
        let trimmed = change(ctx, key, entry, |stream| stream.trim(trim.trim, trim.approximate, trim.limit));
        if trimmed > 0 {
            ctx.changed(Event::STREAM, "xtrim", key.bytes);
            ctx.dirty += trimmed - 1;
            if trim.approximate {
                let words = parsed.effect(args, stream_of(&entry), None);
                effect_of(ctx, &words);
            }
        }
        ctx.reply.integer(trimmed as i64);
    } else {
        ctx.reply.integer(0);
    }
    Ok(())
}

fn xdel(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let Some(entry) = find_write(ctx, key)? else {
        ctx.reply.integer(0);
        return Ok(());
    };
    let ids: Vec<StreamId> = args.iter_from(2).map(id_arg).collect::<Result<_, _>>()?;
    let there = ids.iter().any(|id| stream_of(&entry).get(*id).is_some());
    let deleted = if there { change(ctx, key, entry, |stream| stream.delete(&ids)) } else { 0 };
    if deleted > 0 {
        ctx.changed(Event::STREAM, "xdel", key.bytes);
        ctx.dirty += deleted as u64 - 1;
    }
    ctx.reply.integer(deleted as i64);
    Ok(())
}

fn xsetid(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let id = id_arg(args.at(2))?;
    let (mut added, mut max_deleted, mut i) = (None, StreamId::MIN, 3);
    while i < args.len() {
        let value = args.get(i + 1).ok_or(CommandError::Syntax)?;
        if args.is(i, "entriesadded") {
            added = Some(u64::try_from(int_arg(value)?).map_err(|_| "ERR entries_added must be positive")?);
        } else if args.is(i, "maxdeletedid") {
            max_deleted = id_arg(value)?;
            if id < max_deleted {
                return Err("ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id".into());
            }
        } else {
            return Err(CommandError::Syntax);
        }
        i += 2;
    }
    let key = ctx.key(args, 1);
    let entry = find_write(ctx, key)?.ok_or(CommandError::NoSuchKey)?;
    let stream = stream_of(&entry);
    if id < stream.max_deleted_id {
        return Err("ERR The ID specified in XSETID is smaller than current max_deleted_entry_id".into());
    }
    if !stream.is_empty() {
        if id < stream.last_entry_id() {
            return Err("ERR The ID specified in XSETID is smaller than the target stream top item".into());
        }
        if added.is_some_and(|added| added < stream.len()) {
            return Err("ERR The entries_added specified in XSETID is smaller than the target stream length".into());
        }
    }
    change(ctx, key, entry, |stream| {
        stream.last_id = id;
        if let Some(added) = added {
            stream.entries_added = added;
        }
        if max_deleted != StreamId::MIN {
            stream.max_deleted_id = max_deleted;
        }
    });
    ctx.changed(Event::STREAM, "xsetid", key.bytes);
    ctx.reply.ok();
    Ok(())
}

// ---------------------------------------------------------------------- reading

fn xlen(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let len = find_read(ctx, key)?.map_or(0, |entry| stream_of(&entry).len());
    ctx.reply.integer(len as i64);
    Ok(())
}

fn xrange(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    range(ctx, args, false)
}

fn xrevrange(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    range(ctx, args, true)
}

fn range(ctx: &mut Ctx<'_>, args: Args<'_>, back: bool) -> CommandResult {
    let start = start_arg(args.at(if back { 3 } else { 2 }))?;
    let end = end_arg(args.at(if back { 2 } else { 3 }))?;
    let (mut count, mut i) = (None, 4);
    while i < args.len() {
        let value = args.get(i + 1).filter(|_| args.is(i, "count")).ok_or(CommandError::Syntax)?;
        count = Some(int_arg(value)?);
        i += 2;
    }
    let key = ctx.key(args, 1);
    let Some(entry) = find_read(ctx, key)? else {
        ctx.reply.array(0);
        return Ok(());
    };
    if count.is_some_and(|count| count <= 0) {
        ctx.reply.null_array();
        return Ok(());
    }
    let stream = stream_of(&entry);
    let entries = if back { stream.range_back(start, end) } else { stream.range(start, end) };
    reply_entries(&mut ctx.reply, entries.take(at_most(count.unwrap_or(0))));
    Ok(())
}

/// What stands before and behind `STREAMS` in `XREAD` and `XREADGROUP`.
pub(super) struct ReadArgs<'a> {
    /// Unix ms until which to wait, if at all.
    pub deadline_ms: Option<i64>,
    /// Entries of each stream at most, 0 for all.
    pub count: i64,
    /// Group and consumer.
    pub group: Option<(&'a [u8], &'a [u8])>,
    /// Whether what is read is not pending.
    pub noack: bool,
    /// Index of the first key; as many ids follow.
    pub keys_at: usize,
    /// How many keys there are.
    pub keys: usize,
}

impl<'a> ReadArgs<'a> {
    /// Reads the arguments of `XREAD`, or of `XREADGROUP` if `grouped`.
    pub fn parse(ctx: &Ctx<'_>, args: Args<'a>, grouped: bool) -> Result<Self, CommandError> {
        let mut parsed = ReadArgs { deadline_ms: None, count: 0, group: None, noack: false, keys_at: 0, keys: 0 };
        let mut i = 1;
        while i < args.len() {
            let more = args.len() - 1 - i;
            if args.is(i, "block") && more > 0 {
                i += 1;
                parsed.deadline_ms = Some(deadline_of_ms(ctx.core, args.at(i))?);
            } else if args.is(i, "count") && more > 0 {
                i += 1;
                parsed.count = int_arg(args.at(i))?.max(0);
            } else if args.is(i, "streams") && more > 0 {
                parsed.keys_at = i + 1;
                if more % 2 == 1 {
                    let (name, symbol) =
                        if grouped { ("xreadgroup", "ID or '>'") } else { ("xread", "ID, '+', or '$'") };
                    return Err(format!(
                        "ERR Unbalanced '{name}' list of streams: for each stream key an {symbol} must be specified."
                    )
                    .into());
                }
                parsed.keys = more / 2;
                break;
            } else if args.is(i, "group") && more >= 2 {
                if !grouped {
                    return Err(
                        "ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.".into()
                    );
                }
                parsed.group = Some((args.at(i + 1), args.at(i + 2)));
                i += 2;
            } else if args.is(i, "noack") {
                if !grouped {
                    return Err(
                        "ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.".into()
                    );
                }
                parsed.noack = true;
            } else {
                return Err(CommandError::Syntax);
            }
            i += 1;
        }
        if parsed.keys_at == 0 {
            return Err(CommandError::Syntax);
        }
        if grouped && parsed.group.is_none() {
            return Err("ERR Missing GROUP option for XREADGROUP".into());
        }
        Ok(parsed)
    }

    /// Ends a command that found nothing: waits if it was asked to, with `ids` in the place of its own.
    pub fn wait(&self, ctx: &mut Ctx<'_>, args: Args<'_>, ids: Option<&[StreamId]>) -> CommandResult {
        let Some(deadline_ms) = self.deadline_ms else {
            ctx.reply.null_array();
            return Ok(());
        };
        let keys: Vec<&[u8]> = (0..self.keys).map(|i| args.at(self.keys_at + i)).collect();
        // `$` is what came before the wait, not before the next look.
        let again = ids.map(|ids| {
            let mut words = OwnedArgs::default();
            for i in 0..args.len() {
                let id = i.checked_sub(self.keys_at + self.keys).filter(|_| args.at(i) == b"$").map(|i| ids[i]);
                match id {
                    Some(id) => words.push(id.to_string().as_bytes()),
                    None => words.push(args.at(i)),
                }
            }
            words
        });
        let timeout_reply = TimeoutReply::NullArray;
        ctx.block(Block { deadline_ms, keys: &keys, timeout_reply, again, on_delete: self.group.is_some() })
    }
}

fn xread(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let parsed = ReadArgs::parse(ctx, args, false)?;
    let mut ids = Vec::with_capacity(parsed.keys);
    let mut found = Vec::with_capacity(parsed.keys);
    let mut fresh = false;
    for i in parsed.keys_at..parsed.keys_at + parsed.keys {
        let key = ctx.key_of(args.at(i));
        let entry = find_read(ctx, key)?;
        let stream = entry.as_ref().map(stream_of);
        ids.push(match args.at(i + parsed.keys) {
            b"$" => {
                fresh = true;
                stream.map_or(StreamId::MIN, |stream| stream.last_id)
            }
            // The last entry is what is greater than the id before it.
            b"+" => stream.and_then(|stream| stream.last_entry_id().prev()).unwrap_or(StreamId::MIN),
            b">" => {
                return Err("ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> \
                            <consumer> option."
                    .into());
            }
            id => id_arg(id)?,
        });
        found.push(entry);
    }
    let (list, mut served) = (ctx.reply.open_list(), 0);
    for (i, (entry, id)) in found.iter().zip(&ids).enumerate() {
        let Some(stream) = entry.as_ref().map(stream_of) else { continue };
        let Some(start) = id.next().filter(|_| stream.last_entry_id() > *id) else { continue };
        served += 1;
        reply_stream_head(&mut ctx.reply, args.at(parsed.keys_at + i));
        reply_entries(&mut ctx.reply, stream.range(start, StreamId::MAX).take(at_most(parsed.count)));
    }
    if served > 0 {
        close_streams(&mut ctx.reply, list, served);
        return Ok(());
    }
    parsed.wait(ctx, args, fresh.then_some(&ids[..]))
}

/// The name of a stream whose entries follow: in RESP2 both are a list of two.
pub(super) fn reply_stream_head(reply: &mut Reply<'_>, key: &[u8]) {
    if reply.resp == 2 {
        reply.array(2);
    }
    reply.bulk(key);
}

/// Ends what `XREAD` replies: a map by name, in RESP2 a list of pairs.
pub(super) fn close_streams(reply: &mut Reply<'_>, list: crate::resp::OpenList, streams: usize) {
    match reply.resp {
        2 => reply.close_list(list, streams),
        _ => reply.close_map(list, streams),
    }
}

#[cfg(test)]
mod tests;
