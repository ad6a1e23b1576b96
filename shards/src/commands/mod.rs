//! Commands: what they are told, how they fail, and one file a family.
//!
//! A data command is a plain function over [`Ctx`] and [`Args`], written as if there were one thread and one
//! keyspace. Whether its keys lie in the home shard's slice, in another's, or in several that were lent to it, is
//! settled before it runs. To add a command: write the function in its family's file and give it a row in that
//! file's `TABLE`.

pub mod acl_command;
pub mod aof;
pub mod bitmap;
pub mod block;
pub mod client_tracking;
pub mod cluster;
pub mod command;
pub mod config;
pub mod connection;
pub mod debug;
pub mod dump;
pub mod error;
pub mod function;
pub mod geo;
pub mod geohash;
pub mod hash;
pub mod hash_expire;
pub mod hyperloglog;
pub mod info;
pub mod keys;
pub mod latency;
pub mod list;
pub mod lolwut;
pub mod memory;
pub mod migrate;
pub mod monitor;
pub mod pubsub;
pub mod replication;
pub mod save;
pub mod script;
pub mod server;
pub mod set;
pub mod slowlog;
pub mod sort;
pub mod spec;
pub mod stream;
pub mod stream_group;
pub mod stream_info;
pub mod string;
pub mod table;
pub mod usage;
pub mod zset;
pub mod zset_store;

use crate::args::Args;
use crate::client::ClientView;
use crate::core::Core;
use crate::db::{Keyspace, RedisDb};
use crate::propagate::{Said, target};
use crate::resp::Reply;

pub use error::{CommandError, CommandResult};
pub use spec::{Command, Group, Handler, KeySpec, Route, acl, flag, key};
pub use table::{CommandId, CommandTable, UNKNOWN, table};

/// A key with its hash.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    /// The name.
    pub bytes: &'a [u8],
    /// [`crate::dict::Hasher::hash`] of the name.
    pub hash: u64,
}

/// All a data command sees: the shard's core, the slices in its hands, who asks, and where the reply goes.
pub struct Ctx<'a> {
    /// Time, configuration, statistics and random numbers of the shard that runs the command.
    pub core: &'a mut Core,
    /// The slices.
    pub keys: Keyspace<'a>,
    /// The reply.
    pub reply: Reply<'a>,
    /// The client on whose behalf it runs, who may be on another shard.
    pub client: ClientView,
    /// Changes made, as `server.dirty` counts them.
    pub dirty: u64,
}

impl<'a> Ctx<'a> {
    /// The command's single key, at argument `index`.
    #[inline]
    pub fn key<'k>(&self, args: Args<'k>, index: usize) -> Key<'k> {
        self.nth_key(args, 0, index)
    }

    /// The command's key number `n`, from 0, at argument `index`.
    #[inline(always)]
    pub fn nth_key<'k>(&self, args: Args<'k>, n: usize, index: usize) -> Key<'k> {
        let bytes = args.at(index);
        let hash = match args.places().get(n) {
            Some(place) => place.hash(),
            None => self.core.hasher.hash(bytes),
        };
        debug_assert!((hash ^ self.core.hasher.hash(bytes)) & crate::dict::HASH_BITS == 0);
        Key { bytes, hash }
    }

    /// A key whose place is not known.
    #[inline]
    pub fn key_of<'k>(&self, bytes: &'k [u8]) -> Key<'k> {
        Key { bytes, hash: self.core.hasher.hash(bytes) }
    }

    /// The selected database's slice that owns `key`.
    #[inline]
    pub fn db(&mut self, key: Key<'_>) -> &mut RedisDb {
        self.keys.db(self.client.db, key.bytes)
    }

    /// Counts a change of `key` and reports its event; every write calls this once for each key it changes.
    #[inline]
    pub fn changed(&mut self, class: u32, event: &'static str, key: &[u8]) {
        self.dirty += 1;
        self.core.notify(class, event, key, self.client.db);
    }
}

impl Ctx<'_> {
    /// Says what stands for this command in the log and on replicas instead of its own words; several such effects
    /// are repeated in order. Their keys must lie in one slice, for each goes to one; without a key it goes to all.
    pub fn effect(&mut self, words: &[&[u8]]) {
        self.no_effect();
        self.core.effects.push(self.client.db, words);
    }

    /// The same for the log alone: what stands there for a command over several slices, of which each log tells its
    /// part. Replicas are told the command itself.
    pub fn effect_in_log(&mut self, words: &[&[u8]]) {
        if self.core.effects.on {
            self.core.effects.replaced |= target::LOG;
            self.core.effects.push_to(target::LOG, self.client.db, words);
        }
    }

    /// What replicas are told instead of the command's own words.
    pub fn effect_in_stream(&mut self, words: &[&[u8]]) {
        if self.core.effects.on {
            self.core.effects.replaced |= target::STREAM;
            self.core.effects.push_to(target::STREAM, self.client.db, words);
        }
    }

    /// Says to the log that `key` of database `db` is now what it is: gone, or its whole value. For what was copied from
    /// keys that may lie in other slices.
    pub fn effect_state(&mut self, db: u16, key: &[u8]) {
        if self.core.effects.on {
            self.core.effects.replaced |= target::LOG;
            let words = crate::propagate::state_words(self.core, self.keys.db(db, key), key);
            self.core.effects.said.push(Said { db, words, targets: target::LOG });
        }
    }

    /// Whether effects are wanted and the two keys lie in different slices, so that no one log can hold both.
    pub fn apart(&self, a: &[u8], b: &[u8]) -> bool {
        let shards = self.core.shards;
        self.core.effects.on && crate::router::owner_of(a, shards) != crate::router::owner_of(b, shards)
    }

    /// This command's own words are not repeated.
    pub fn no_effect(&mut self) {
        if self.core.effects.on {
            self.core.effects.replaced = target::BOTH;
        }
    }
}

/// Replies with the list of a container's subcommands, as `addReplyHelp` does.
pub fn help(shard: &mut crate::shard::Shard, index: u32, name: &str, lines: &[(&str, &str)]) -> CommandResult {
    let mut reply = shard.client(index).reply();
    reply.array(1 + 2 * lines.len() + 2);
    reply.simple(&format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for (usage, text) in lines.iter().chain(&[("HELP", "Print this help.")]) {
        reply.simple(usage);
        reply.simple(&format!("    {text}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
