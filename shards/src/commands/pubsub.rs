//! `SUBSCRIBE`, `PUBLISH` and their kin: the words for what [`crate::pubsub`] does. Counterpart: `pubsub.c`.

use super::{Command, CommandError, CommandResult, Group, KeySpec, Route, flag, help, key};
use crate::args::Args;
use crate::pubsub::Kind;
use crate::shard::Shard;

use flag::*;

const SUBSCRIBING: u32 = PUBSUB | NOSCRIPT | LOADING | STALE;
const PUBLISHING: u32 = PUBSUB | LOADING | STALE | FAST | MAY_REPLICATE;
const LOOKING: u32 = PUBSUB | LOADING | STALE;

const ONE_CHANNEL: &[KeySpec] = &[KeySpec::one(1, key::NOT_KEY)];
const CHANNELS: &[KeySpec] = &[KeySpec::range(1, -1, 1, key::NOT_KEY)];

/// This family's rows. Channels of slots are described like keys, but are none: these commands run at home.
pub static TABLE: &[Command] = &[
    Command::home("subscribe", subscribe, -2, SUBSCRIBING, Group::PubSub).doc(
        "2.0.0",
        "O(N), N being the number of channels",
        "Listens to messages of channels.",
        "channel [channel ...]",
    ),
    Command::home("unsubscribe", unsubscribe, -1, SUBSCRIBING, Group::PubSub).doc(
        "2.0.0",
        "O(N), N being the number of channels",
        "Stops listening to channels, or to all of them.",
        "[channel [channel ...]]",
    ),
    Command::home("psubscribe", psubscribe, -2, SUBSCRIBING, Group::PubSub).doc(
        "2.0.0",
        "O(N), N being the number of patterns",
        "Listens to messages of channels that match patterns.",
        "pattern [pattern ...]",
    ),
    Command::home("punsubscribe", punsubscribe, -1, SUBSCRIBING, Group::PubSub).doc(
        "2.0.0",
        "O(N), N being the number of patterns",
        "Stops listening to patterns, or to all of them.",
        "[pattern [pattern ...]]",
    ),
    Command::home("ssubscribe", ssubscribe, -2, SUBSCRIBING, Group::PubSub).keys(CHANNELS).route(Route::Home).doc(
        "7.0.0",
        "O(N), N being the number of channels",
        "Listens to messages of channels that belong to slots.",
        "shardchannel [shardchannel ...]",
    ),
    Command::home("sunsubscribe", sunsubscribe, -1, SUBSCRIBING, Group::PubSub).keys(CHANNELS).route(Route::Home).doc(
        "7.0.0",
        "O(N), N being the number of channels",
        "Stops listening to channels that belong to slots, or to all of them.",
        "[shardchannel [shardchannel ...]]",
    ),
    Command::home("publish", publish, 3, PUBLISHING, Group::PubSub).doc(
        "2.0.0",
        "O(N+M), N being the number of receivers and M the number of patterns",
        "Sends a message to those who listen to a channel.",
        "channel message",
    ),
    Command::home("spublish", spublish, 3, PUBLISHING, Group::PubSub).keys(ONE_CHANNEL).route(Route::Home).doc(
        "7.0.0",
        "O(N), N being the number of receivers",
        "Sends a message to those who listen to a channel that belongs to a slot.",
        "shardchannel message",
    ),
    Command::container("pubsub", Group::PubSub).doc(
        "2.8.0",
        "Depends on the subcommand",
        "Looks at who listens to what.",
        "",
    ),
    Command::home("pubsub|channels", channels, -2, LOOKING, Group::PubSub).doc(
        "2.8.0",
        "O(N), N being the number of channels",
        "Returns the channels that someone listens to.",
        "[pattern]",
    ),
    Command::home("pubsub|numpat", numpat, 2, LOOKING, Group::PubSub).doc(
        "2.8.0",
        "O(1)",
        "Returns how many patterns someone listens to.",
        "",
    ),
    Command::home("pubsub|numsub", numsub, -2, LOOKING, Group::PubSub).doc(
        "2.8.0",
        "O(N), N being the number of channels asked for",
        "Returns how many listen to channels.",
        "[channel [channel ...]]",
    ),
    Command::home("pubsub|shardchannels", shardchannels, -2, LOOKING, Group::PubSub).doc(
        "7.0.0",
        "O(N), N being the number of channels",
        "Returns the channels of slots that someone listens to.",
        "[pattern]",
    ),
    Command::home("pubsub|shardnumsub", shardnumsub, -2, LOOKING, Group::PubSub).doc(
        "7.0.0",
        "O(N), N being the number of channels asked for",
        "Returns how many listen to channels of slots.",
        "[shardchannel [shardchannel ...]]",
    ),
    Command::home("pubsub|help", pubsub_help, 2, LOADING | STALE, Group::PubSub)
        .doc("6.2.0", "O(1)", "Lists the subcommands.", "")
        .only_categories(0),
];

fn subscribe_to(shard: &mut Shard, index: u32, args: Args<'_>, kind: Kind) -> CommandResult {
    args.iter_from(1).for_each(|name| shard.subscribe(index, kind, name));
    Ok(())
}

fn unsubscribe_from(shard: &mut Shard, index: u32, args: Args<'_>, kind: Kind) -> CommandResult {
    match args.len() {
        1 => shard.unsubscribe_all(index, kind),
        _ => args.iter_from(1).for_each(|name| shard.unsubscribe(index, kind, name)),
    }
    Ok(())
}

fn subscribe(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    subscribe_to(shard, index, args, Kind::Channel)
}

fn psubscribe(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    subscribe_to(shard, index, args, Kind::Pattern)
}

fn ssubscribe(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    subscribe_to(shard, index, args, Kind::Sharded)
}

fn unsubscribe(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    unsubscribe_from(shard, index, args, Kind::Channel)
}

fn punsubscribe(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    unsubscribe_from(shard, index, args, Kind::Pattern)
}

fn sunsubscribe(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    unsubscribe_from(shard, index, args, Kind::Sharded)
}

/// Those who listen at a replica get the message too.
fn tell_replicas(shard: &mut Shard, index: u32, args: Args<'_>) {
    let db = shard.client(index).db;
    shard.tell_replicas(db, args.iter_from(0));
}

fn publish(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let receivers = shard.core.publish(Kind::Channel, args.at(1), args.at(2));
    tell_replicas(shard, index, args);
    shard.client(index).reply().integer(receivers as i64);
    Ok(())
}

fn spublish(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let receivers = shard.core.publish(Kind::Sharded, args.at(1), args.at(2));
    tell_replicas(shard, index, args);
    shard.client(index).reply().integer(receivers as i64);
    Ok(())
}

fn reply_names(shard: &mut Shard, index: u32, args: Args<'_>, kind: Kind) -> CommandResult {
    if args.len() > 3 {
        let name = String::from_utf8_lossy(args.at(1));
        let text = format!("ERR unknown subcommand or wrong number of arguments for '{name}'. Try PUBSUB HELP.");
        return Err(CommandError::from(text));
    }
    let names = shard.core.shared.registry.names(kind, args.get(2));
    let mut reply = shard.client(index).reply();
    reply.array(names.len());
    names.iter().for_each(|name| reply.bulk(name));
    Ok(())
}

fn reply_counts(shard: &mut Shard, index: u32, args: Args<'_>, kind: Kind) -> CommandResult {
    let shared = shard.core.shared.clone();
    let mut reply = shard.client(index).reply();
    reply.array(2 * (args.len() - 2));
    for name in args.iter_from(2) {
        reply.bulk(name);
        reply.integer(shared.registry.subscribers(kind, name) as i64);
    }
    Ok(())
}

fn channels(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    reply_names(shard, index, args, Kind::Channel)
}

fn shardchannels(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    reply_names(shard, index, args, Kind::Sharded)
}

fn numsub(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    reply_counts(shard, index, args, Kind::Channel)
}

fn shardnumsub(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    reply_counts(shard, index, args, Kind::Sharded)
}

fn numpat(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    let count = shard.core.shared.registry.count(Kind::Pattern);
    shard.client(index).reply().integer(count as i64);
    Ok(())
}

fn pubsub_help(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    help(
        shard,
        index,
        "PUBSUB",
        &[
            ("CHANNELS [<pattern>]", "Return the channels that have subscribers, or those that match the pattern."),
            ("NUMPAT", "Return how many patterns have subscribers."),
            ("NUMSUB [<channel> ...]", "Return how many subscribers channels have, patterns left out."),
            ("SHARDCHANNELS [<pattern>]", "Return the sharded channels that have subscribers."),
            ("SHARDNUMSUB [<shardchannel> ...]", "Return how many subscribers sharded channels have."),
        ],
    )
}

#[cfg(test)]
mod tests;
