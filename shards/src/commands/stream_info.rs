//! `XINFO`: what is known of a stream, its groups and their consumers.

use super::stream::{STREAM, at_most, find_read, int_arg, reply_entries, reply_entry, reply_id, stream_of};
use super::stream_group::bad_subcommand;
use super::{Command, CommandError, CommandResult, Ctx, KeySpec, flag, key};
use crate::args::Args;
use crate::entry::EntryPtr;
use crate::resp::Reply;
use crate::types::Stream;
use crate::types::stream::{Consumer, Group, StreamId};

use flag::*;

const KEY: &[KeySpec] = &[KeySpec::one(2, key::RO | key::ACCESS)];

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::container("xinfo", STREAM).doc("5.0.0", "Depends on the subcommand", "Looks into streams.", ""),
    Command::data("xinfo|consumers", consumers, 4, READONLY, STREAM).keys(KEY).doc(
        "5.0.0",
        "O(N), N being the number of consumers",
        "Returns the consumers of a group.",
        "key group",
    ),
    Command::data("xinfo|groups", groups, 3, READONLY, STREAM).keys(KEY).doc(
        "5.0.0",
        "O(N), N being the number of groups",
        "Returns the consumer groups of a stream.",
        "key",
    ),
    Command::data("xinfo|stream", stream, -3, READONLY, STREAM).keys(KEY).doc(
        "5.0.0",
        "O(1), O(N) with FULL, N being what is returned",
        "Returns what is known of a stream.",
        "key [FULL [COUNT count]]",
    ),
    Command::home("xinfo|help", help, 2, LOADING | STALE, STREAM).doc("5.0.0", "O(1)", "Lists the subcommands.", ""),
];

fn find(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<EntryPtr, CommandError> {
    let key = ctx.key(args, 2);
    find_read(ctx, key)?.ok_or(CommandError::NoSuchKey)
}

fn name(reply: &mut Reply<'_>, name: &str) {
    reply.bulk(name.as_bytes());
}

fn number(reply: &mut Reply<'_>, label: &str, value: i64) {
    name(reply, label);
    reply.integer(value);
}

fn id(reply: &mut Reply<'_>, label: &str, value: StreamId) {
    name(reply, label);
    reply_id(reply, value);
}

fn maybe(reply: &mut Reply<'_>, label: &str, value: Option<i64>) {
    name(reply, label);
    match value {
        Some(value) => reply.integer(value),
        None => reply.null(),
    }
}

fn consumers(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let entry = find(ctx, args)?;
    let Some(group) = stream_of(&entry).group(args.at(3)) else {
        let lossy = String::from_utf8_lossy;
        return Err(format!(
            "NOGROUP No such consumer group '{}' for key name '{}'",
            lossy(args.at(3)),
            lossy(args.at(2))
        )
        .into());
    };
    let (now, reply) = (ctx.core.now_ms, &mut ctx.reply);
    reply.array(group.consumers().len());
    for consumer in group.consumers() {
        reply.map(4);
        name(reply, "name");
        reply.bulk(&consumer.name);
        number(reply, "pending", consumer.pending().len() as i64);
        number(reply, "idle", now.saturating_sub(consumer.seen_time_ms).max(0));
        number(reply, "inactive", consumer.active_time_ms.map_or(-1, |active| now.saturating_sub(active)));
    }
    Ok(())
}

fn groups(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let entry = find(ctx, args)?;
    let (stream, reply) = (stream_of(&entry), &mut ctx.reply);
    reply.array(stream.groups().len());
    for (label, group) in stream.groups() {
        reply.map(6);
        name(reply, "name");
        reply.bulk(label);
        number(reply, "consumers", group.consumers().len() as i64);
        number(reply, "pending", group.pending().len() as i64);
        id(reply, "last-delivered-id", group.last_id);
        maybe(reply, "entries-read", group.entries_read.map(|read| read as i64));
        maybe(reply, "lag", stream.lag(group));
    }
    Ok(())
}

/// The count of `FULL`, or `None` without it.
fn full(args: Args<'_>) -> Result<Option<i64>, CommandError> {
    match args.len() - 3 {
        0 => Ok(None),
        1 if args.is(3, "full") => Ok(Some(10)),
        3 if args.is(3, "full") && args.is(4, "count") => {
            let count = int_arg(args.at(5))?;
            Ok(Some(if count < 0 { 10 } else { count }))
        }
        _ => Err(bad_subcommand(args, "XINFO")),
    }
}

fn stream(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let entry = find(ctx, args)?;
    let full = full(args)?;
    let (stream, reply) = (stream_of(&entry), &mut ctx.reply);
    reply.map(if full.is_some() { 9 } else { 10 });
    let nodes = stream.node_count() as i64;
    number(reply, "length", stream.len() as i64);
    number(reply, "radix-tree-keys", nodes);
    // There is no radix tree here; one has about a node more than it has keys.
    number(reply, "radix-tree-nodes", nodes + 1);
    id(reply, "last-generated-id", stream.last_id);
    id(reply, "max-deleted-entry-id", stream.max_deleted_id);
    number(reply, "entries-added", stream.entries_added as i64);
    id(reply, "recorded-first-entry-id", stream.first_id);
    let Some(count) = full else {
        number(reply, "groups", stream.groups().len() as i64);
        for (label, entry) in [("first-entry", stream.first()), ("last-entry", stream.last())] {
            name(reply, label);
            match entry {
                Some(entry) => reply_entry(reply, &entry),
                None => reply.null(),
            }
        }
        return Ok(());
    };
    name(reply, "entries");
    reply_entries(reply, stream.range(StreamId::MIN, StreamId::MAX).take(at_most(count)));
    name(reply, "groups");
    reply.array(stream.groups().len());
    for (label, group) in stream.groups() {
        reply_group(reply, stream, label, group, at_most(count));
    }
    Ok(())
}

fn reply_group(reply: &mut Reply<'_>, stream: &Stream, label: &[u8], group: &Group, count: usize) {
    reply.map(7);
    name(reply, "name");
    reply.bulk(label);
    id(reply, "last-delivered-id", group.last_id);
    maybe(reply, "entries-read", group.entries_read.map(|read| read as i64));
    maybe(reply, "lag", stream.lag(group));
    number(reply, "pel-count", group.pending().len() as i64);
    name(reply, "pending");
    reply.array(group.pending().len().min(count));
    for (id, pending) in group.pending().iter().take(count) {
        reply.array(4);
        reply_id(reply, *id);
        reply.bulk(&group.consumer(pending.consumer).name);
        reply.integer(pending.delivery_time_ms);
        reply.integer(pending.delivery_count as i64);
    }
    name(reply, "consumers");
    reply.array(group.consumers().len());
    for consumer in group.consumers() {
        reply_consumer(reply, group, consumer, count);
    }
}

fn reply_consumer(reply: &mut Reply<'_>, group: &Group, consumer: &Consumer, count: usize) {
    reply.map(5);
    name(reply, "name");
    reply.bulk(&consumer.name);
    number(reply, "seen-time", consumer.seen_time_ms);
    number(reply, "active-time", consumer.active_time_ms.unwrap_or(-1));
    number(reply, "pel-count", consumer.pending().len() as i64);
    name(reply, "pending");
    reply.array(consumer.pending().len().min(count));
    for id in consumer.pending().iter().take(count) {
        let pending = group.pending()[id];
        reply.array(3);
        reply_id(reply, *id);
        reply.integer(pending.delivery_time_ms);
        reply.integer(pending.delivery_count as i64);
    }
}

fn help(shard: &mut crate::shard::Shard, index: u32, _: Args<'_>) -> CommandResult {
    super::help(
        shard,
        index,
        "XINFO",
        &[
            ("CONSUMERS <key> <groupname>", "Show consumers of <groupname>."),
            ("GROUPS <key>", "Show the stream consumer groups."),
            ("STREAM <key> [FULL [COUNT <count>]", "Show information about the stream."),
        ],
    )
}
