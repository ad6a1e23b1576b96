//! Sorted sets out of others: `ZUNION`, `ZINTER`, `ZDIFF`, their `…STORE` forms, and `ZRANGESTORE`.
//! Counterpart: `zunionInterDiffGenericCommand` in `t_zset.c`.
//!
//! Plain sets are inputs as well; each member of one has the score 1.

use std::ops::ControlFlow;

use super::zset::{By, MemberReply, RangeQuery, add_zset, lookup_read, zset_of};
use super::{Command, CommandError, CommandResult, Ctx, Group, KeySpec, flag, key};
use crate::args::Args;
use crate::core::Event;
use crate::entry::{EntryPtr, Kind, StrRef};
use crate::number::{parse_f64, parse_i64};
use crate::object::ObjectRef;
use crate::types::Set;
use crate::types::zset::{Gathered, Limits, ZSet};

use flag::*;

const ZSET: Group = Group::SortedSet;
const COUNTED: &[KeySpec] = &[KeySpec::counted(1, key::RO | key::ACCESS)];
const STORE: &[KeySpec] = &[KeySpec::one(1, key::OW | key::UPDATE), KeySpec::counted(2, key::RO | key::ACCESS)];

const O_UNION: &str = "O(N)+O(M*log(M)), N being the members of all sets and M those of the result";
const O_INTER: &str =
    "O(N*K)+O(M*log(M)), N being the members of the smallest set, K the number of sets and M the members of the result";
const O_DIFF: &str = "O(N*K)+O(M*log(M)), N being the members of the first set, K the number of sets and M the members \
                      of the result";

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::data("zunion", |ctx, args| combine(ctx, args, Operation::Union), -3, READONLY, ZSET).keys(COUNTED).doc(
        "6.2.0",
        O_UNION,
        "Returns the members that any of the sorted sets has.",
        "numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]",
    ),
    Command::data("zinter", |ctx, args| combine(ctx, args, Operation::Inter), -3, READONLY, ZSET).keys(COUNTED).doc(
        "6.2.0",
        O_INTER,
        "Returns the members that all sorted sets have.",
        "numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]",
    ),
    Command::data("zdiff", |ctx, args| combine(ctx, args, Operation::Diff), -3, READONLY, ZSET).keys(COUNTED).doc(
        "6.2.0",
        O_DIFF,
        "Returns the members that only the first sorted set has.",
        "numkeys key [key ...] [WITHSCORES]",
    ),
    Command::data("zunionstore", |ctx, args| combine_store(ctx, args, Operation::Union), -4, WRITE | DENYOOM, ZSET)
        .keys(STORE)
        .doc(
            "2.0.0",
            O_UNION,
            "Stores the members that any of the sorted sets has.",
            "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>]",
        ),
    Command::data("zinterstore", |ctx, args| combine_store(ctx, args, Operation::Inter), -4, WRITE | DENYOOM, ZSET)
        .keys(STORE)
        .doc(
            "2.0.0",
            O_INTER,
            "Stores the members that all sorted sets have.",
            "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>]",
        ),
    Command::data("zdiffstore", |ctx, args| combine_store(ctx, args, Operation::Diff), -4, WRITE | DENYOOM, ZSET)
        .keys(STORE)
        .doc(
            "6.2.0",
            O_DIFF,
            "Stores the members that only the first sorted set has.",
            "destination numkeys key [key ...]",
        ),
    Command::data("zintercard", zintercard, -3, READONLY, ZSET).keys(COUNTED).doc(
        "7.0.0",
        "O(N*K), N being the members of the smallest set and K the number of sets",
        "Counts the members that all sorted sets have.",
        "numkeys key [key ...] [LIMIT limit]",
    ),
    Command::data("zrangestore", zrangestore, -5, WRITE | DENYOOM, ZSET)
        .keys(&[KeySpec::one(1, key::OW | key::UPDATE), KeySpec::one(2, key::RO | key::ACCESS)])
        .doc(
            "6.2.0",
            "O(log(N)+M), N being the members of the set and M those stored",
            "Stores the members of a range of ranks, scores or texts.",
            "dst src min max [BYSCORE | BYLEX] [REV] [LIMIT offset count]",
        ),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Union,
    Inter,
    Diff,
}

impl Operation {
    fn event(self) -> &'static str {
        match self {
            Operation::Union => "zunionstore",
            Operation::Inter => "zinterstore",
            Operation::Diff => "zdiffstore",
        }
    }
}

/// What is made of the scores of one member in several sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, a: f64, b: f64) -> f64 {
        match self {
            // Opposite infinities cancel out.
            Aggregate::Sum if (a + b).is_nan() => 0.0,
            Aggregate::Sum => a + b,
            Aggregate::Min => {
                if b < a {
                    b
                } else {
                    a
                }
            }
            Aggregate::Max => {
                if b > a {
                    b
                } else {
                    a
                }
            }
        }
    }
}

/// One input: a sorted set or a set, or `None` where there is no key.
struct Source {
    entry: Option<EntryPtr>,
    weight: f64,
}

enum Members<'a> {
    Scored(&'a ZSet),
    Plain(&'a Set),
}

impl Source {
    fn members(&self) -> Option<Members<'_>> {
        match self.entry.as_ref()?.object() {
            Some(ObjectRef::ZSet(set)) => Some(Members::Scored(set)),
            Some(ObjectRef::Set(set)) => Some(Members::Plain(set)),
            _ => unreachable!("inputs are sets of either kind"),
        }
    }

    fn len(&self) -> usize {
        match self.members() {
            Some(Members::Scored(set)) => set.len(),
            Some(Members::Plain(set)) => set.len(),
            None => 0,
        }
    }

    /// The score of a member times the weight; infinity times nothing is nothing.
    fn weighted(&self, score: f64) -> f64 {
        let score = self.weight * score;
        if score.is_nan() { 0.0 } else { score }
    }

    fn score(&self, text: &[u8]) -> Option<f64> {
        let score = match self.members()? {
            Members::Scored(set) => set.score(text)?,
            Members::Plain(set) => set.contains(StrRef::Bytes(text)).then_some(1.0)?,
        };
        Some(self.weighted(score))
    }

    /// Calls back with each member and its score until `f` breaks off.
    fn walk(&self, mut f: impl FnMut(&[u8], f64) -> ControlFlow<()>) {
        let mut give =
            |member: StrRef<'_>, score: f64| f(member.as_bytes(&mut itoa::Buffer::new()), self.weighted(score));
        match self.members() {
            Some(Members::Scored(set)) => {
                // By parts, so that breaking off spares the rest.
                let (mut from, mut flow) = (0, ControlFlow::Continue(()));
                while from < set.len() && flow.is_continue() {
                    let to = set.len().min(from + 1024);
                    set.range(from, to, false, |member, score| {
                        if flow.is_continue() {
                            flow = give(member, score);
                        }
                    });
                    from = to;
                }
            }
            Some(Members::Plain(set)) => set.walk(|member| give(member, 1.0)),
            None => {}
        }
    }
}

/// The inputs, whose number is argument `at`, and the index of the first option.
fn sources(
    ctx: &mut Ctx<'_>,
    args: Args<'_>,
    at: usize,
    name: &'static str,
) -> Result<(Vec<Source>, usize), CommandError> {
    let count = parse_i64(args.at(at)).ok_or(CommandError::NotInteger)?;
    if count < 1 {
        return Err(format!("ERR at least 1 input key is needed for '{name}' command").into());
    }
    let first = at + 1;
    let count = usize::try_from(count).ok().filter(|n| *n <= args.len() - first).ok_or(CommandError::Syntax)?;
    let mut sources = Vec::with_capacity(count);
    for name in args.iter_from(first).take(count) {
        let key = ctx.key_of(name);
        let entry = ctx.keys.db(ctx.client.db, key.bytes).lookup_read(ctx.core, key);
        if entry.is_some_and(|entry| !matches!(entry.kind(), Kind::ZSet | Kind::Set)) {
            return Err(CommandError::WrongType);
        }
        sources.push(Source { entry, weight: 1.0 });
    }
    Ok((sources, first + count))
}

struct Options {
    aggregate: Aggregate,
    with_scores: bool,
}

fn options(
    args: Args<'_>,
    mut i: usize,
    sources: &mut [Source],
    operation: Operation,
    storing: bool,
) -> Result<Options, CommandError> {
    let mut options = Options { aggregate: Aggregate::Sum, with_scores: false };
    let combines = operation != Operation::Diff;
    while i < args.len() {
        if combines && args.is(i, "weights") && args.len() - i > sources.len() {
            for source in sources.iter_mut() {
                i += 1;
                source.weight = parse_f64(args.at(i)).ok_or("ERR weight value is not a float")?;
            }
        } else if combines && args.is(i, "aggregate") && i + 1 < args.len() {
            i += 1;
            options.aggregate = match () {
                _ if args.is(i, "sum") => Aggregate::Sum,
                _ if args.is(i, "min") => Aggregate::Min,
                _ if args.is(i, "max") => Aggregate::Max,
                _ => return Err(CommandError::Syntax),
            };
        } else if !storing && args.is(i, "withscores") {
            options.with_scores = true;
        } else {
            return Err(CommandError::Syntax);
        }
        i += 1;
    }
    Ok(options)
}

/// Calls back with each member that all inputs have, and its aggregated score, until `f` breaks off.
fn intersect(sources: &[Source], aggregate: Aggregate, mut f: impl FnMut(&[u8], f64) -> ControlFlow<()>) {
    let Some((smallest, others)) = sources.split_first() else { return };
    smallest.walk(|text, score| {
        let mut score = score;
        for other in others {
            match other.score(text) {
                Some(more) => score = aggregate.of(score, more),
                None => return ControlFlow::Continue(()),
            }
        }
        f(text, score)
    });
}

fn result_of(ctx: &Ctx<'_>, sources: &mut [Source], operation: Operation, aggregate: Aggregate) -> ZSet {
    let mut result = Gathered::new(&ctx.core.hasher);
    match operation {
        // Both from the smallest input to the largest, which decides what sums of floats come to.
        Operation::Union => {
            sources.sort_by_key(Source::len);
            for source in sources.iter() {
                source.walk(|text, score| {
                    result.merge(text, score, |old| aggregate.of(old, score));
                    ControlFlow::Continue(())
                });
            }
        }
        Operation::Inter => {
            sources.sort_by_key(Source::len);
            intersect(sources, aggregate, |text, score| {
                result.merge(text, score, |_| unreachable!("members of a set differ"));
                ControlFlow::Continue(())
            });
        }
        Operation::Diff => {
            let (first, others) = sources.split_first().expect("there is an input");
            if !others.iter().any(|other| other.entry == first.entry) {
                first.walk(|text, score| {
                    if others.iter().all(|other| other.score(text).is_none()) {
                        result.merge(text, score, |_| unreachable!("members of a set differ"));
                    }
                    ControlFlow::Continue(())
                });
            }
        }
    }
    result.finish(Limits::of(&ctx.core.config))
}

fn combine(ctx: &mut Ctx<'_>, args: Args<'_>, operation: Operation) -> CommandResult {
    let name = operation.event().trim_end_matches("store");
    let (mut sources, at) = sources(ctx, args, 1, name)?;
    let options = options(args, at, &mut sources, operation, false)?;
    let result = result_of(ctx, &mut sources, operation, options.aggregate);
    let writer = MemberReply::new(&ctx.reply, options.with_scores);
    writer.head(&mut ctx.reply, result.len());
    result.for_each(|member, score| writer.member(&mut ctx.reply, member, score));
    Ok(())
}

fn combine_store(ctx: &mut Ctx<'_>, args: Args<'_>, operation: Operation) -> CommandResult {
    let (mut sources, at) = sources(ctx, args, 2, operation.event())?;
    let options = options(args, at, &mut sources, operation, true)?;
    let result = result_of(ctx, &mut sources, operation, options.aggregate);
    store(ctx, args.at(1), result, operation.event());
    Ok(())
}

/// Puts a result under a key, whatever was there, and replies with its length.
fn store(ctx: &mut Ctx<'_>, name: &[u8], set: ZSet, event: &'static str) {
    store_counted(ctx, name, set, event, 1);
}

/// As [`store`], counted as so many changes.
pub(super) fn store_counted(ctx: &mut Ctx<'_>, name: &[u8], set: ZSet, event: &'static str, changes: u64) {
    let key = ctx.key_of(name);
    let len = set.len();
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    let existed = db.find(ctx.core, key).is_some() && db.delete(key);
    if len > 0 {
        add_zset(ctx, key, set);
        ctx.dirty += changes;
        ctx.core.notify(Event::ZSET, event, key.bytes, ctx.client.db);
    } else if existed {
        ctx.changed(Event::GENERIC, "del", key.bytes);
    }
    ctx.reply.integer(len as i64);
}

fn zintercard(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let (mut sources, mut i) = sources(ctx, args, 1, "zintercard")?;
    let mut limit = 0;
    while i < args.len() {
        let Some(value) = args.get(i + 1).filter(|_| args.is(i, "limit")) else { return Err(CommandError::Syntax) };
        limit = parse_i64(value).filter(|n| *n >= 0).ok_or("ERR LIMIT can't be negative")?;
        i += 2;
    }
    sources.sort_by_key(Source::len);
    let mut count = 0;
    intersect(&sources, Aggregate::Sum, |_, _| {
        count += 1;
        if count == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    ctx.reply.integer(count);
    Ok(())
}

fn zrangestore(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let query = RangeQuery::parse(args, 3, By::Any, None, true)?;
    let source = ctx.key_of(args.at(2));
    let found = lookup_read(ctx, source)?;
    let mut result = Gathered::new(&ctx.core.hasher);
    if let Some(entry) = &found {
        let set = zset_of(entry);
        let (from, to, _) = query.ranks(set);
        set.range(from, to, false, |member, score| {
            let mut buf = itoa::Buffer::new();
            result.merge(member.as_bytes(&mut buf), score, |_| unreachable!("members of a set differ"));
        });
    }
    let result = result.finish(Limits::of(&ctx.core.config));
    store(ctx, args.at(1), result, "zrangestore");
    Ok(())
}
