//! Sorted sets, one key at a time: `ZADD`, `ZRANGE` and their family. Commands over several are in `zset_store.rs`.
//! Counterpart: `t_zset.c`.
//!
//! What a sorted set is and when it changes its encoding is in `types/zset.rs`. Commands that read, count or remove a
//! range differ in how they name it and what they do with it: [`RangeQuery`] reads the arguments of every kind,
//! [`ZSet::ranks_of`] makes ranks of it, and the rest is the same for all.

use super::block::{Block, TimeoutReply, deadline_of_seconds};
use super::keys::{ScanOptions, cursor_arg};
use super::{Command, CommandError, CommandResult, Ctx, Group, Key, KeySpec, flag, key};
use crate::args::Args;
use crate::core::Event;
use crate::entry::{EntryPtr, Kind, StrRef};
use crate::glob;
use crate::number::{format_f64, parse_f64, parse_i64};
use crate::object::{Object, ObjectMut, ObjectRef};
use crate::resp::Reply;
use crate::types::zset::{LexEnd, Limits, ScoreEnd, Span, ZSet};

use flag::*;

const ZSET: Group = Group::SortedSet;
const ONE_LOOK: &[KeySpec] = &[KeySpec::one(1, key::RO)];
const ONE_READ: &[KeySpec] = &[KeySpec::one(1, key::RO | key::ACCESS)];
const ONE_ADD: &[KeySpec] = &[KeySpec::one(1, key::RW | key::UPDATE)];
const ONE_REMOVE: &[KeySpec] = &[KeySpec::one(1, key::RW | key::DELETE)];
const ALL_POP: &[KeySpec] = &[KeySpec::range(1, -2, 1, key::RW | key::ACCESS | key::DELETE)];
const BLOCKS: u32 = WRITE | NOSCRIPT | BLOCKING;
const ONE_POP: &[KeySpec] = &[KeySpec::one(1, key::RW | key::ACCESS | key::DELETE)];

/// What a random choice with repetitions may amount to: the count alone bounds nothing.
const MAX_REPEATED: u64 = 1 << 26;

const O_LOG_M: &str = "O(log(N)+M), N being the members of the set and M those returned";
const O_LOG_REMOVED: &str = "O(log(N)+M), N being the members of the set and M those removed";

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::data("zadd", zadd, -4, WRITE | DENYOOM | FAST, ZSET).keys(ONE_ADD).doc(
        "1.2.0",
        "O(log(N)) for each member, N being the members of the set",
        "Adds members to a sorted set, or changes their scores.",
        "key [NX | XX] [GT | LT] [CH] [INCR] score member [score member ...]",
    ),
    Command::data("zincrby", zincrby, 4, WRITE | DENYOOM | FAST, ZSET)
        .keys(&[KeySpec::one(1, key::RW | key::ACCESS | key::UPDATE)])
        .doc(
            "1.2.0",
            "O(log(N)), N being the members of the set",
            "Adds to the score of a member of a sorted set.",
            "key increment member",
        ),
    Command::data("zrem", zrem, -3, WRITE | FAST, ZSET).keys(ONE_REMOVE).doc(
        "1.2.0",
        "O(M*log(N)), N being the members of the set and M those given",
        "Removes members from a sorted set, and the key with the last of them.",
        "key member [member ...]",
    ),
    Command::data("zremrangebyrank", zremrangebyrank, 4, WRITE, ZSET).keys(ONE_REMOVE).doc(
        "2.0.0",
        O_LOG_REMOVED,
        "Removes the members of a range of ranks.",
        "key start stop",
    ),
    Command::data("zremrangebyscore", zremrangebyscore, 4, WRITE, ZSET).keys(ONE_REMOVE).doc(
        "1.2.0",
        O_LOG_REMOVED,
        "Removes the members of a range of scores.",
        "key min max",
    ),
    Command::data("zremrangebylex", zremrangebylex, 4, WRITE, ZSET).keys(ONE_REMOVE).doc(
        "2.8.9",
        O_LOG_REMOVED,
        "Removes the members of a range of texts, of a sorted set whose members have one score.",
        "key min max",
    ),
    Command::data("zcard", zcard, 2, READONLY | FAST, ZSET).keys(ONE_LOOK).doc(
        "1.2.0",
        "O(1)",
        "Counts the members of a sorted set.",
        "key",
    ),
    Command::data("zcount", zcount, 4, READONLY | FAST, ZSET).keys(ONE_READ).doc(
        "2.0.0",
        "O(log(N)), N being the members of the set",
        "Counts the members of a range of scores.",
        "key min max",
    ),
    Command::data("zlexcount", zlexcount, 4, READONLY | FAST, ZSET).keys(ONE_READ).doc(
        "2.8.9",
        "O(log(N)), N being the members of the set",
        "Counts the members of a range of texts, of a sorted set whose members have one score.",
        "key min max",
    ),
    Command::data("zscore", zscore, 3, READONLY | FAST, ZSET).keys(ONE_READ).doc(
        "1.2.0",
        "O(1)",
        "Returns the score of a member of a sorted set.",
        "key member",
    ),
    Command::data("zmscore", zmscore, -3, READONLY | FAST, ZSET).keys(ONE_READ).doc(
        "6.2.0",
        "O(N), N being the number of members given",
        "Returns the scores of members of a sorted set.",
        "key member [member ...]",
    ),
    Command::data("zrank", |ctx, args| rank(ctx, args, false), -3, READONLY | FAST, ZSET).keys(ONE_READ).doc(
        "2.0.0",
        "O(log(N)), N being the members of the set",
        "Returns how many members come before one, by ascending scores.",
        "key member [WITHSCORE]",
    ),
    Command::data("zrevrank", |ctx, args| rank(ctx, args, true), -3, READONLY | FAST, ZSET).keys(ONE_READ).doc(
        "2.0.0",
        "O(log(N)), N being the members of the set",
        "Returns how many members come before one, by descending scores.",
        "key member [WITHSCORE]",
    ),
    Command::data("zrange", |ctx, args| range(ctx, args, By::Any, None), -4, READONLY, ZSET).keys(ONE_READ).doc(
        "1.2.0",
        O_LOG_M,
        "Returns the members of a range of ranks, scores or texts.",
        "key start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count] [WITHSCORES]",
    ),
    Command::data("zrevrange", |ctx, args| range(ctx, args, By::Rank, Some(true)), -4, READONLY, ZSET)
        .keys(ONE_READ)
        .doc(
            "1.2.0",
            O_LOG_M,
            "Returns the members of a range of ranks, by descending scores.",
            "key start stop [WITHSCORES]",
        ),
    Command::data("zrangebyscore", |ctx, args| range(ctx, args, By::Score, Some(false)), -4, READONLY, ZSET)
        .keys(ONE_READ)
        .doc(
            "1.0.5",
            O_LOG_M,
            "Returns the members of a range of scores.",
            "key min max [WITHSCORES] [LIMIT offset count]",
        ),
    Command::data("zrevrangebyscore", |ctx, args| range(ctx, args, By::Score, Some(true)), -4, READONLY, ZSET)
        .keys(ONE_READ)
        .doc(
            "2.2.0",
            O_LOG_M,
            "Returns the members of a range of scores, from the greatest.",
            "key max min [WITHSCORES] [LIMIT offset count]",
        ),
    Command::data("zrangebylex", |ctx, args| range(ctx, args, By::Lex, Some(false)), -4, READONLY, ZSET)
        .keys(ONE_READ)
        .doc(
            "2.8.9",
            O_LOG_M,
            "Returns the members of a range of texts, of a sorted set whose members have one score.",
            "key min max [LIMIT offset count]",
        ),
    Command::data("zrevrangebylex", |ctx, args| range(ctx, args, By::Lex, Some(true)), -4, READONLY, ZSET)
        .keys(ONE_READ)
        .doc(
            "2.8.9",
            O_LOG_M,
            "Returns the members of a range of texts, from the greatest, of a sorted set whose members have one score.",
            "key max min [LIMIT offset count]",
        ),
    Command::data("zpopmin", |ctx, args| pop(ctx, args, End::Min), -2, WRITE | FAST, ZSET).keys(ONE_POP).doc(
        "5.0.0",
        "O(log(N)+M), N being the members of the set and M those removed",
        "Removes the members with the lowest scores and returns them.",
        "key [count]",
    ),
    Command::data("zpopmax", |ctx, args| pop(ctx, args, End::Max), -2, WRITE | FAST, ZSET).keys(ONE_POP).doc(
        "5.0.0",
        "O(log(N)+M), N being the members of the set and M those removed",
        "Removes the members with the highest scores and returns them.",
        "key [count]",
    ),
    Command::data("zmpop", zmpop, -4, WRITE, ZSET)
        .keys(&[KeySpec::counted(1, key::RW | key::ACCESS | key::DELETE)])
        .doc(
            "7.0.0",
            "O(K)+O(M*log(N)), K being the number of keys, N the members of the set and M those removed",
            "Removes the members with the lowest or highest scores of the first set that has any, and returns them.",
            "numkeys key [key ...] <MIN | MAX> [COUNT count]",
        ),
    Command::data("bzpopmin", |ctx, args| bpop(ctx, args, End::Min), -3, BLOCKS | FAST, ZSET).keys(ALL_POP).doc(
        "5.0.0",
        "O(log(N)), N being the members of the set",
        "Removes the member with the lowest score of the first set that has any and returns it, or waits for one.",
        "key [key ...] timeout",
    ),
    Command::data("bzpopmax", |ctx, args| bpop(ctx, args, End::Max), -3, BLOCKS | FAST, ZSET).keys(ALL_POP).doc(
        "5.0.0",
        "O(log(N)), N being the members of the set",
        "Removes the member with the highest score of the first set that has any and returns it, or waits for one.",
        "key [key ...] timeout",
    ),
    Command::data("bzmpop", bzmpop, -5, WRITE | BLOCKING, ZSET)
        .keys(&[KeySpec::counted(2, key::RW | key::ACCESS | key::DELETE)])
        .doc(
            "7.0.0",
            "O(K)+O(M*log(N)), K being the number of keys, N the members of the set and M those removed",
            "Removes the members with the lowest or highest scores of the first set that has any and returns them, or \
             waits for some.",
            "timeout numkeys key [key ...] <MIN | MAX> [COUNT count]",
        ),
    Command::data("zrandmember", zrandmember, -2, READONLY, ZSET).keys(ONE_READ).doc(
        "6.2.0",
        "O(log(N)) without a count, else O(M*log(N)), N being the members of the set and M the absolute count",
        "Returns random members of a sorted set.",
        "key [count [WITHSCORES]]",
    ),
    Command::data("zscan", zscan, -3, READONLY, ZSET).keys(ONE_READ).doc(
        "2.8.0",
        "O(1) for each call, O(N) for a whole iteration",
        "Iterates over the members of a sorted set.",
        "key cursor [MATCH pattern] [COUNT count]",
    ),
];

// ------------------------------------------------------------------ the entry of a key

/// The sorted set of an entry that was looked up as one.
pub(super) fn zset_of(entry: &EntryPtr) -> &ZSet {
    match entry.object() {
        Some(ObjectRef::ZSet(set)) => set,
        _ => unreachable!("an entry of kind zset holds a sorted set"),
    }
}

pub(super) fn lookup_read(ctx: &mut Ctx<'_>, key: Key<'_>) -> Result<Option<EntryPtr>, CommandError> {
    ctx.keys.db(ctx.client.db, key.bytes).lookup_read_kind(ctx.core, key, Kind::ZSet)
}

fn lookup_write(ctx: &mut Ctx<'_>, key: Key<'_>) -> Result<Option<EntryPtr>, CommandError> {
    ctx.keys.db(ctx.client.db, key.bytes).lookup_write_kind(ctx.core, key, Kind::ZSet)
}

/// Announces a change of the sorted set of an entry, and makes it.
fn change<T>(ctx: &mut Ctx<'_>, key: Key<'_>, entry: EntryPtr, f: impl FnOnce(&mut ZSet) -> T) -> T {
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    db.before_write(key.bytes);
    db.with_object_mut(entry, |object| match object {
        ObjectMut::ZSet(set) => f(set),
        _ => unreachable!("an entry of kind zset holds a sorted set"),
    })
}

/// Adds a sorted set under an absent key; announces the change.
pub(super) fn add_zset(ctx: &mut Ctx<'_>, key: Key<'_>, set: ZSet) {
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    db.add_object(ctx.core, key, Object::ZSet(set));
}

fn delete_empty(ctx: &mut Ctx<'_>, key: Key<'_>) {
    ctx.keys.db(ctx.client.db, key.bytes).delete(key);
    ctx.core.notify(Event::GENERIC, "del", key.bytes, ctx.client.db);
}

/// Writes members, and scores if wanted: in RESP3 as pairs, in RESP2 one behind the other.
pub(super) struct MemberReply {
    pub(super) with_scores: bool,
    pub(super) paired: bool,
}

impl MemberReply {
    pub(super) fn new(reply: &Reply<'_>, with_scores: bool) -> Self {
        MemberReply { with_scores, paired: with_scores && reply.resp == 3 }
    }

    pub(super) fn head(&self, reply: &mut Reply<'_>, members: usize) {
        reply.array(if self.with_scores && !self.paired { 2 * members } else { members });
    }

    pub(super) fn member(&self, reply: &mut Reply<'_>, member: StrRef<'_>, score: f64) {
        if self.paired {
            reply.array(2);
        }
        match member {
            StrRef::Bytes(text) => reply.bulk(text),
            StrRef::Int(number) => reply.bulk_integer(number),
        }
        if self.with_scores {
            reply.double(score);
        }
    }
}

// ------------------------------------------------------------------ adding

/// Options of `ZADD`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AddOptions {
    pub(super) nx: bool,
    pub(super) xx: bool,
    pub(super) gt: bool,
    pub(super) lt: bool,
    pub(super) ch: bool,
    pub(super) incr: bool,
}

/// What becomes of one member.
enum Step {
    /// Nothing, as the options say.
    Nothing,
    /// It has this score already.
    Keep(f64),
    Update(f64),
    Add(f64),
}

impl AddOptions {
    fn step(&self, current: Option<f64>, score: f64) -> Result<Step, CommandError> {
        let Some(current) = current else {
            return Ok(if self.xx { Step::Nothing } else { Step::Add(score) });
        };
        if self.nx {
            return Ok(Step::Nothing);
        }
        let score = if self.incr { current + score } else { score };
        if score.is_nan() {
            return Err("ERR resulting score is not a number (NaN)".into());
        }
        Ok(match score {
            _ if self.gt && score <= current || self.lt && score >= current => Step::Nothing,
            _ if score == current => Step::Keep(score),
            _ => Step::Update(score),
        })
    }
}

#[derive(Default)]
struct Tally {
    added: usize,
    updated: usize,
    /// The score of the last member that the options did not leave out.
    score: Option<f64>,
}

impl Tally {
    fn apply(
        &mut self,
        set: &mut ZSet,
        (score, member): (f64, &[u8]),
        options: &AddOptions,
        limits: Limits,
        hasher: &crate::dict::Hasher,
    ) -> CommandResult {
        match options.step(set.score(member), score)? {
            Step::Nothing => {}
            Step::Keep(score) => self.score = Some(score),
            Step::Update(score) => {
                set.set_score(member, score);
                self.updated += 1;
                self.score = Some(score);
            }
            Step::Add(score) => {
                set.insert_absent(member, score, limits, hasher);
                self.added += 1;
                self.score = Some(score);
            }
        }
        Ok(())
    }
}

/// What `ZADD` does once its arguments are read; replies too. With `incr`, there is one item.
pub(super) fn add(ctx: &mut Ctx<'_>, key: Key<'_>, items: &[(f64, &[u8])], options: AddOptions) -> CommandResult {
    let limits = Limits::of(&ctx.core.config);
    let mut tally = Tally::default();
    match lookup_write(ctx, key)? {
        None if options.xx => {}
        None => {
            let hasher = &ctx.core.hasher;
            let mut set = ZSet::for_members(items.len(), items[0].1.len(), limits, hasher);
            for item in items {
                tally.apply(&mut set, *item, &options, limits, hasher)?;
            }
            add_zset(ctx, key, set);
        }
        Some(entry) => {
            let hasher = ctx.core.hasher.clone();
            // What changes nothing is not announced.
            let mut first = 0;
            for (score, member) in items {
                match options.step(zset_of(&entry).score(member), *score)? {
                    Step::Nothing => {}
                    Step::Keep(score) => tally.score = Some(score),
                    Step::Update(_) | Step::Add(_) => break,
                }
                first += 1;
            }
            if first < items.len() {
                change(ctx, key, entry, |set| {
                    set.expect(items.len(), limits, &hasher);
                    items[first..].iter().try_for_each(|item| tally.apply(set, *item, &options, limits, &hasher))
                })?;
            }
        }
    }
    let changed = tally.added + tally.updated;
    if changed > 0 {
        ctx.dirty += changed as u64;
        ctx.core.notify(Event::ZSET, if options.incr { "zincr" } else { "zadd" }, key.bytes, ctx.client.db);
    }
    match (options.incr, tally.score) {
        (true, Some(score)) => ctx.reply.double(score),
        (true, None) => ctx.reply.null(),
        (false, _) => ctx.reply.integer(if options.ch { changed } else { tally.added } as i64),
    }
    Ok(())
}

fn zadd(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let mut options = AddOptions::default();
    let mut at = 2;
    while at < args.len() {
        let option = match () {
            _ if args.is(at, "nx") => &mut options.nx,
            _ if args.is(at, "xx") => &mut options.xx,
            _ if args.is(at, "gt") => &mut options.gt,
            _ if args.is(at, "lt") => &mut options.lt,
            _ if args.is(at, "ch") => &mut options.ch,
            _ if args.is(at, "incr") => &mut options.incr,
            _ => break,
        };
        *option = true;
        at += 1;
    }
    let words = args.len() - at;
    if words == 0 || words % 2 == 1 {
        return Err(CommandError::Syntax);
    }
    if options.nx && options.xx {
        return Err("ERR XX and NX options at the same time are not compatible".into());
    }
    if options.gt && (options.lt || options.nx) || options.lt && options.nx {
        return Err("ERR GT, LT, and/or NX options at the same time are not compatible".into());
    }
    if options.incr && words > 2 {
        return Err("ERR INCR option supports a single increment-element pair".into());
    }
    let key = ctx.key(args, 1);
    if words == 2 {
        let score = parse_f64(args.at(at)).ok_or(CommandError::NotFloat)?;
        return add(ctx, key, &[(score, args.at(at + 1))], options);
    }
    // All scores are read before anything changes.
    let mut items = Vec::with_capacity(words / 2);
    for i in (at..args.len()).step_by(2) {
        items.push((parse_f64(args.at(i)).ok_or(CommandError::NotFloat)?, args.at(i + 1)));
    }
    add(ctx, key, &items, options)
}

fn zincrby(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let increment = parse_f64(args.at(2)).ok_or(CommandError::NotFloat)?;
    let key = ctx.key(args, 1);
    add(ctx, key, &[(increment, args.at(3))], AddOptions { incr: true, ..AddOptions::default() })
}

// ------------------------------------------------------------------ ranges

/// How the arguments name a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// By rank, unless an option says something else.
    Any,
    Rank,
    Score,
    Lex,
}

/// A range as `ZRANGE` and its relatives take it.
pub(super) struct RangeQuery<'a> {
    span: Span<'a>,
    reverse: bool,
    with_scores: bool,
    /// Members to pass over, and members to take: negative for all.
    limit: (i64, i64),
}

fn score_end(text: &[u8]) -> Result<ScoreEnd, CommandError> {
    let (open, text) = text.strip_prefix(b"(").map_or((false, text), |rest| (true, rest));
    // An empty text is 0 and spaces before a number do not matter here, as `strtod` has it.
    let score = if text.is_empty() { Some(0.0) } else { parse_f64(text.trim_ascii_start()) };
    Ok(ScoreEnd { score: score.ok_or("ERR min or max is not a float")?, open })
}

fn lex_end(text: &[u8]) -> Result<LexEnd<'_>, CommandError> {
    match text {
        b"-" => Ok(LexEnd::Least),
        b"+" => Ok(LexEnd::Greatest),
        [b'[', text @ ..] => Ok(LexEnd::Closed(text)),
        [b'(', text @ ..] => Ok(LexEnd::Open(text)),
        _ => Err("ERR min or max not valid string range item".into()),
    }
}

fn rank_span<'a>(first: &[u8], last: &[u8]) -> Result<Span<'a>, CommandError> {
    let rank = |text| parse_i64(text).ok_or(CommandError::NotInteger);
    Ok(Span::Rank(rank(first)?, rank(last)?))
}

fn score_span<'a>(min: &[u8], max: &[u8]) -> Result<Span<'a>, CommandError> {
    Ok(Span::Score(score_end(min)?, score_end(max)?))
}

fn lex_span<'a>(min: &'a [u8], max: &'a [u8]) -> Result<Span<'a>, CommandError> {
    Ok(Span::Lex(lex_end(min)?, lex_end(max)?))
}

impl<'a> RangeQuery<'a> {
    /// A range whose first end is argument `at`. `reverse` is fixed by the command's name or an option, and `storing`
    /// leaves no choice of scores.
    pub(super) fn parse(
        args: Args<'a>,
        at: usize,
        mut by: By,
        reverse: Option<bool>,
        storing: bool,
    ) -> Result<Self, CommandError> {
        let mut reversed = reverse.unwrap_or(false);
        let (mut with_scores, mut limit) = (false, (0, -1));
        let mut i = at + 2;
        while i < args.len() {
            if !storing && args.is(i, "withscores") {
                with_scores = true;
            } else if args.is(i, "limit") && i + 2 < args.len() {
                let number = |i| parse_i64(args.at(i)).ok_or(CommandError::NotInteger);
                limit = (number(i + 1)?, number(i + 2)?);
                i += 2;
            } else if reverse.is_none() && !reversed && args.is(i, "rev") {
                reversed = true;
            } else if by == By::Any && args.is(i, "bylex") {
                by = By::Lex;
            } else if by == By::Any && args.is(i, "byscore") {
                by = By::Score;
            } else {
                return Err(CommandError::Syntax);
            }
            i += 1;
        }
        if by == By::Any {
            by = By::Rank;
        }
        if limit.1 != -1 && by == By::Rank {
            let text = "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX";
            return Err(text.into());
        }
        if with_scores && by == By::Lex {
            return Err("ERR syntax error, WITHSCORES not supported in combination with BYLEX".into());
        }
        let (mut min, mut max) = (args.at(at), args.at(at + 1));
        if reversed && by != By::Rank {
            std::mem::swap(&mut min, &mut max);
        }
        let span = match by {
            By::Score => score_span(min, max)?,
            By::Lex => lex_span(min, max)?,
            By::Any | By::Rank => rank_span(min, max)?,
        };
        Ok(RangeQuery { span, reverse: reversed, with_scores, limit })
    }

    /// The ranks of what is asked for, and whether to take them backwards.
    pub(super) fn ranks(&self, set: &ZSet) -> (usize, usize, bool) {
        let (mut from, mut to) = set.ranks_of(self.span);
        if self.reverse && matches!(self.span, Span::Rank(..)) {
            let len = set.len();
            (from, to) = (len - to, len - from);
        }
        let (offset, count) = self.limit;
        let found = to - from;
        // A negative offset passes over everything, as in Redis.
        let skipped = usize::try_from(offset).map_or(found, |offset| offset.min(found));
        let taken = usize::try_from(count).map_or(found - skipped, |count| count.min(found - skipped));
        if self.reverse {
            to -= skipped;
            from = to - taken;
        } else {
            from += skipped;
            to = from + taken;
        }
        (from, to, self.reverse)
    }
}

fn range(ctx: &mut Ctx<'_>, args: Args<'_>, by: By, reverse: Option<bool>) -> CommandResult {
    let query = RangeQuery::parse(args, 2, by, reverse, false)?;
    let key = ctx.key(args, 1);
    let Some(entry) = lookup_read(ctx, key)? else {
        ctx.reply.array(0);
        return Ok(());
    };
    let set = zset_of(&entry);
    let (from, to, reverse) = query.ranks(set);
    let writer = MemberReply::new(&ctx.reply, query.with_scores);
    writer.head(&mut ctx.reply, to - from);
    set.range(from, to, reverse, |member, score| writer.member(&mut ctx.reply, member, score));
    Ok(())
}

fn count(ctx: &mut Ctx<'_>, args: Args<'_>, span: Span<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let count = lookup_read(ctx, key)?.map_or(0, |entry| {
        let (from, to) = zset_of(&entry).ranks_of(span);
        to - from
    });
    ctx.reply.integer(count as i64);
    Ok(())
}

fn zcount(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    count(ctx, args, score_span(args.at(2), args.at(3))?)
}

fn zlexcount(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    count(ctx, args, lex_span(args.at(2), args.at(3))?)
}

// ------------------------------------------------------------------ removing

fn zrem(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let found = lookup_write(ctx, key)?;
    let first = found.and_then(|entry| args.iter_from(2).position(|text| zset_of(&entry).score(text).is_some()));
    let (Some(entry), Some(first)) = (found, first) else {
        ctx.reply.integer(0);
        return Ok(());
    };
    let (removed, empty) = change(ctx, key, entry, |set| {
        let removed = args.iter_from(2 + first).filter(|text| set.remove(text)).count();
        (removed, set.is_empty())
    });
    ctx.dirty += removed as u64;
    ctx.core.notify(Event::ZSET, "zrem", key.bytes, ctx.client.db);
    if empty {
        delete_empty(ctx, key);
    }
    ctx.reply.integer(removed as i64);
    Ok(())
}

/// Removes the members of ranks `from` to `to`, of which there must be some, and the key with the last.
fn remove_ranks(ctx: &mut Ctx<'_>, key: Key<'_>, entry: EntryPtr, (from, to): (usize, usize), event: &'static str) {
    ctx.dirty += (to - from) as u64;
    ctx.core.notify(Event::ZSET, event, key.bytes, ctx.client.db);
    if to - from == zset_of(&entry).len() {
        delete_empty(ctx, key);
    } else {
        change(ctx, key, entry, |set| set.remove_range(from, to));
    }
}

fn remove_span(ctx: &mut Ctx<'_>, args: Args<'_>, span: Span<'_>, event: &'static str) -> CommandResult {
    let key = ctx.key(args, 1);
    let mut removed = 0;
    if let Some(entry) = lookup_write(ctx, key)? {
        let (from, to) = zset_of(&entry).ranks_of(span);
        removed = to - from;
        if removed > 0 {
            remove_ranks(ctx, key, entry, (from, to), event);
        }
    }
    ctx.reply.integer(removed as i64);
    Ok(())
}

fn zremrangebyrank(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    remove_span(ctx, args, rank_span(args.at(2), args.at(3))?, "zremrangebyrank")
}

fn zremrangebyscore(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    remove_span(ctx, args, score_span(args.at(2), args.at(3))?, "zremrangebyscore")
}

fn zremrangebylex(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    remove_span(ctx, args, lex_span(args.at(2), args.at(3))?, "zremrangebylex")
}

/// From which end members are popped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Min,
    Max,
}

impl End {
    fn event(self) -> &'static str {
        if self == End::Min { "zpopmin" } else { "zpopmax" }
    }

    fn command(self) -> &'static [u8] {
        if self == End::Min { b"ZPOPMIN" } else { b"ZPOPMAX" }
    }
}

/// Pops up to `count` members, at least one, and writes each by `writer` behind the head that `head` writes.
fn pop_members(
    ctx: &mut Ctx<'_>,
    key: Key<'_>,
    entry: EntryPtr,
    end: End,
    count: usize,
    writer: &MemberReply,
    head: impl FnOnce(&mut Reply<'_>, usize),
) -> usize {
    let set = zset_of(&entry);
    let len = set.len();
    let popped = count.min(len);
    let (from, to) = if end == End::Min { (0, popped) } else { (len - popped, len) };
    head(&mut ctx.reply, popped);
    set.range(from, to, end == End::Max, |member, score| writer.member(&mut ctx.reply, member, score));
    remove_ranks(ctx, key, entry, (from, to), end.event());
    popped
}

fn pop(ctx: &mut Ctx<'_>, args: Args<'_>, end: End) -> CommandResult {
    let count = match args.len() {
        2 => None,
        3 => {
            let count = parse_i64(args.at(2)).and_then(|count| usize::try_from(count).ok());
            Some(count.ok_or("ERR value is out of range, must be positive")?)
        }
        _ => return Err(CommandError::Syntax),
    };
    let key = ctx.key(args, 1);
    let found = lookup_write(ctx, key)?;
    let Some(entry) = found.filter(|_| count != Some(0)) else {
        ctx.reply.array(0);
        return Ok(());
    };
    // Without a count there is one member, which needs no list around it in RESP3 either.
    let writer = MemberReply { with_scores: true, paired: count.is_some() && ctx.reply.resp == 3 };
    pop_members(ctx, key, entry, end, count.unwrap_or(1), &writer, |reply, popped| writer.head(reply, popped));
    Ok(())
}

/// The keys, end and count of `ZMPOP` and `BZMPOP`, whose count of keys is argument `at`.
fn mpop_options(args: Args<'_>, at: usize) -> Result<(usize, End, usize), CommandError> {
    let positive = |i: usize, error: &'static str| {
        let number = args.get(i).and_then(parse_i64).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        number.ok_or(CommandError::from(error))
    };
    let keys = positive(at, "ERR numkeys should be greater than 0")?;
    let end_at = keys.checked_add(at + 1).filter(|i| *i < args.len()).ok_or(CommandError::Syntax)?;
    let end = match () {
        _ if args.is(end_at, "min") => End::Min,
        _ if args.is(end_at, "max") => End::Max,
        _ => return Err(CommandError::Syntax),
    };
    let mut count = None;
    let mut i = end_at + 1;
    while i < args.len() {
        if count.is_some() || !args.is(i, "count") || i + 1 >= args.len() {
            return Err(CommandError::Syntax);
        }
        count = Some(positive(i + 1, "ERR count should be greater than 0")?);
        i += 2;
    }
    Ok((keys, end, count.unwrap_or(1)))
}

/// Looks through keys for the first that exists.
fn first_of<'a>(
    ctx: &mut Ctx<'_>,
    keys: impl Iterator<Item = &'a [u8]>,
) -> Result<Option<(Key<'a>, EntryPtr)>, CommandError> {
    for name in keys {
        let key = ctx.key_of(name);
        if let Some(entry) = lookup_write(ctx, key)? {
            return Ok(Some((key, entry)));
        }
    }
    Ok(None)
}

/// Replies with a key and the members popped from it. To replicas it is a pop from this very key.
fn mpop_from(ctx: &mut Ctx<'_>, key: Key<'_>, entry: EntryPtr, end: End, count: usize) {
    let writer = MemberReply { with_scores: true, paired: true };
    let popped = pop_members(ctx, key, entry, end, count, &writer, |reply, popped| {
        reply.array(2);
        reply.bulk(key.bytes);
        reply.array(popped);
    });
    ctx.effect(&[end.command(), key.bytes, itoa::Buffer::new().format(popped).as_bytes()]);
}

fn zmpop(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let (keys, end, count) = mpop_options(args, 1)?;
    match first_of(ctx, args.iter_from(2).take(keys))? {
        Some((key, entry)) => mpop_from(ctx, key, entry, end, count),
        None => ctx.reply.null_array(),
    }
    Ok(())
}

/// Waits for one of some keys.
fn wait<'a>(ctx: &mut Ctx<'_>, keys: impl Iterator<Item = &'a [u8]>, deadline_ms: i64) -> CommandResult {
    let keys: Vec<&[u8]> = keys.collect();
    let timeout_reply = TimeoutReply::NullArray;
    ctx.block(Block { deadline_ms, keys: &keys, timeout_reply, again: None, on_delete: false })
}

fn bzmpop(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let deadline = deadline_of_seconds(ctx.core, args.at(1))?;
    let (keys, end, count) = mpop_options(args, 2)?;
    let keys = args.iter_from(3).take(keys);
    match first_of(ctx, keys.clone())? {
        Some((key, entry)) => {
            mpop_from(ctx, key, entry, end, count);
            Ok(())
        }
        None => wait(ctx, keys, deadline),
    }
}

fn bpop(ctx: &mut Ctx<'_>, args: Args<'_>, end: End) -> CommandResult {
    let last = args.len() - 1;
    let deadline = deadline_of_seconds(ctx.core, args.at(last))?;
    let keys = args.iter_from(1).take(last - 1);
    let Some((key, entry)) = first_of(ctx, keys.clone())? else { return wait(ctx, keys, deadline) };
    let writer = MemberReply { with_scores: true, paired: false };
    pop_members(ctx, key, entry, end, 1, &writer, |reply, _| {
        reply.array(3);
        reply.bulk(key.bytes);
    });
    ctx.effect(&[end.command(), key.bytes]);
    Ok(())
}

// ------------------------------------------------------------------ members

fn zcard(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let len = lookup_read(ctx, key)?.map_or(0, |entry| zset_of(&entry).len());
    ctx.reply.integer(len as i64);
    Ok(())
}

fn reply_score(reply: &mut Reply<'_>, score: Option<f64>) {
    match score {
        Some(score) => reply.double(score),
        None => reply.null(),
    }
}

fn zscore(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let score = lookup_read(ctx, key)?.and_then(|entry| zset_of(&entry).score(args.at(2)));
    reply_score(&mut ctx.reply, score);
    Ok(())
}

fn zmscore(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let found = lookup_read(ctx, key)?;
    ctx.reply.array(args.len() - 2);
    for member in args.iter_from(2) {
        let score = found.as_ref().and_then(|entry| zset_of(entry).score(member));
        reply_score(&mut ctx.reply, score);
    }
    Ok(())
}

fn rank(ctx: &mut Ctx<'_>, args: Args<'_>, reverse: bool) -> CommandResult {
    if args.len() > 4 {
        let name = if reverse { "zrevrank" } else { "zrank" };
        return Err(CommandError::Arity(name));
    }
    let with_score = args.len() == 4;
    if with_score && !args.is(3, "withscore") {
        return Err(CommandError::Syntax);
    }
    let key = ctx.key(args, 1);
    let found = lookup_read(ctx, key)?;
    let place = found.as_ref().and_then(|entry| {
        let set = zset_of(entry);
        let (rank, score) = set.rank(args.at(2))?;
        Some((if reverse { set.len() - 1 - rank } else { rank }, score))
    });
    match place {
        Some((rank, score)) if with_score => {
            ctx.reply.array(2);
            ctx.reply.integer(rank as i64);
            ctx.reply.double(score);
        }
        Some((rank, _)) => ctx.reply.integer(rank as i64),
        None if with_score => ctx.reply.null_array(),
        None => ctx.reply.null(),
    }
    Ok(())
}

fn zrandmember(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let Some(count) = args.get(2) else {
        let writer = MemberReply { with_scores: false, paired: false };
        match lookup_read(ctx, key)? {
            Some(entry) => zset_of(&entry).random(&mut ctx.core.rng, 1, |member, score| {
                writer.member(&mut ctx.reply, member, score);
            }),
            None => ctx.reply.null(),
        }
        return Ok(());
    };
    let count = parse_i64(count).ok_or(CommandError::NotInteger)?;
    if count == i64::MIN {
        let range = format!("ERR value is out of range, value must between {} and {}", -i64::MAX, i64::MAX);
        return Err(range.into());
    }
    let with_scores = args.len() == 4 && args.is(3, "withscores");
    if args.len() > 3 && !with_scores {
        return Err(CommandError::Syntax);
    }
    if with_scores && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(CommandError::OutOfRange);
    }
    let Some(entry) = lookup_read(ctx, key)?.filter(|_| count != 0) else {
        ctx.reply.array(0);
        return Ok(());
    };
    let set = zset_of(&entry);
    let wanted = match count {
        // Redis goes on until the client's output limit; a bound of its own keeps one reply from taking all memory.
        ..0 if count.unsigned_abs() > MAX_REPEATED => return Err(CommandError::OutOfRange),
        ..0 => count.unsigned_abs() as usize,
        _ => usize::try_from(count).map_or(set.len(), |count| count.min(set.len())),
    };
    let writer = MemberReply::new(&ctx.reply, with_scores);
    writer.head(&mut ctx.reply, wanted);
    let emit = |member: StrRef<'_>, score: f64| writer.member(&mut ctx.reply, member, score);
    match count < 0 {
        true => set.random(&mut ctx.core.rng, wanted, emit),
        false => set.random_distinct(&mut ctx.core.rng, wanted, emit),
    }
    Ok(())
}

fn zscan(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let mut cursor = cursor_arg(args.at(2))?;
    let key = ctx.key(args, 1);
    // A missing key is answered before the options are looked at, as in Redis.
    let Some(entry) = lookup_read(ctx, key)? else {
        ctx.reply.array(2);
        ctx.reply.bulk(b"0");
        ctx.reply.array(0);
        return Ok(());
    };
    let options = ScanOptions::parse(args, 3, false)?;
    let set = zset_of(&entry);
    let (mut out, mut passed, mut given) = (Vec::new(), 0, 0);
    let mut reply = Reply::new(&mut out, ctx.reply.resp);
    // Ten buckets a wanted member at most: a sparse table must not hold up the shard.
    for _ in 0..options.count.saturating_mul(10) {
        cursor = set.scan(cursor, |member, score| {
            passed += 1;
            let mut buf = itoa::Buffer::new();
            let text = member.as_bytes(&mut buf);
            if options.pattern.is_none_or(|pattern| glob::matches(pattern, text, false)) {
                given += 1;
                reply.bulk(text);
                // A text in RESP3 as well.
                reply.bulk(format_f64(score).as_bytes());
            }
        });
        if cursor == 0 || passed >= options.count {
            break;
        }
    }
    ctx.reply.array(2);
    ctx.reply.bulk(itoa::Buffer::new().format(cursor).as_bytes());
    ctx.reply.array(2 * given);
    ctx.reply.out.extend_from_slice(&out);
    Ok(())
}

#[cfg(test)]
mod tests;
