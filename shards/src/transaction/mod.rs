//! Transactions between shards: a command over several slices runs as if there were one.
//!
//! The coordinator (the client's home shard) asks the owners for their slices; an owner *moves* its boxed slice
//! through the channel, the coordinator runs the ordinary single-threaded command on what it holds, and sends the
//! slices back. While its slice is away a shard goes on with its sockets and queues what needs the slice, in order.
//!
//! Commands that split by key need no slice: each owner runs its part and holds the keys ([`crate::shard::split`],
//! [`crate::shard::intents`]). An owner lends its slice only when nothing of it is held.
//!
//! **Why nothing deadlocks.** Requests for slices, and the parts of split commands, are sent by an ordered multicast:
//! any two owners that get requests of the same two transactions get them in the same order. An owner lends, and runs
//! parts that need the same key, in that order, so a transaction waits only for earlier ones, and the earliest waits
//! for none. A plain request holds nothing; but a part does not pass one that waits for a key of its, because behind
//! it may stand an earlier part of the same client.
//!
//! **Why it is strictly serializable.** A slice is in one place. A command that sees a part of a transaction's writes
//! runs on a slice that has come back, and slices are sent back only after the whole transaction has run. The keys of a
//! split command are let go only after all of its parts have run, so none of its writes is seen before all are done,
//! and nobody writes between its reads.

use crate::args::OwnedArgs;
use crate::client::ClientView;
use crate::commands::CommandId;
use crate::db::Slice;
use crate::router::ShardId;
use crate::shard::Shutdown;

/// A transaction's name: its coordinator, and a count there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TxId {
    /// The home shard of the client.
    pub coordinator: ShardId,
    /// Counted by the coordinator.
    pub number: u64,
}

/// What runs when the slices are there.
#[derive(Debug)]
pub enum Job {
    /// One command.
    Command(CommandId, OwnedArgs),
    /// The cut of a snapshot that a save point asks for.
    Snapshot,
    /// The cut of a rewrite of the log, which turns the log on if it was not.
    Rewrite,
    /// There is to be no log any longer.
    StopLog,
    /// A part of a log whose commands are run with all slices.
    Load(Box<crate::snapshot::LoadBatch>),
    /// The last snapshot, and then the end.
    Shutdown(Shutdown),
    /// The queue of a `MULTI`, which the client still holds.
    Exec,
    /// A command that waits for keys, of which one is ready; the number of its reply comes first.
    Again(u64, CommandId, OwnedArgs),
    /// A script that could not run with fewer slices: the number of its reply, and who sent it back, come first.
    Script(u64, ShardId, CommandId, OwnedArgs),
}

/// A transaction that waits for slices.
#[derive(Debug)]
pub struct Tx {
    /// On whose behalf.
    pub client: ClientView,
    /// What to run.
    pub job: Job,
    /// Slices still to come.
    pub missing: usize,
    /// Slices that have come.
    pub have: Vec<(ShardId, Box<Slice>)>,
}
