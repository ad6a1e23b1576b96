//! Transactions between shards: a command over several slices runs as if there were one.
//!
//! **The guarantee.** Every command, script and `MULTI`/`EXEC`, on keys of any shards, takes effect at one instant
//! between its request and its reply: strict serializability in real time. Inside one pipeline `pipeline-order relaxed`
//! lets commands on different shards change places as README says; `strict` does not.
//!
//! **The words.** A *slice* is a shard's part of the keyspace, in one box, its *owner* the shard it belongs to. The
//! *coordinator* of a command is the home shard of its client. A *part* is what one owner does of a command that splits,
//! a *hold* the keys it keeps until the command is done everywhere. To *lend* is to move a slice to a coordinator.
//!
//! **The common path** of a command that splits (`MGET`, `MSET`, `DEL` …): the coordinator sends each owner its part; an
//! owner runs it, holds its keys and answers; with the last answer the client gets its reply and the owners are told to
//! let go. One round trip, no slice moves, other keys are free all the while. Commands of one shard's keys know nothing
//! of this: they ask one flag ([`crate::shard::Shard`]'s `open`) whether anything here is held or away.
//!
//! **The slow path**, for all else that spans shards. The coordinator (the client's home shard) asks the owners for their slices; an owner *moves* its boxed slice
//! through the channel, the coordinator runs the ordinary single-threaded command on what it holds, and sends the
//! slices back. While its slice is away a shard goes on with its sockets and queues what needs the slice, in order.
//!
//! Commands that split by key need no slice: each owner runs its part and holds the keys ([`crate::shard::split`],
//! [`crate::shard::intents`]). An owner lends its slice only when nothing of it is held.
//!
//! **Why nothing deadlocks.** Requests for slices, and the parts of split commands, are sent by an ordered multicast:
//! any two owners that get requests of the same two transactions get them in the same order. An owner lends, and runs
//! parts that need the same key, in that order, so a transaction waits only for earlier ones, and the earliest waits
//! for none. A plain request holds nothing; but nothing passes a request that waits for a key of its, because behind
//! it may stand an earlier part of the same client, nor a transaction that waits for the slice: a part that waits behind it
//! elsewhere may have been passed by later ones, whose clients must find it done.
//!
//! **Why it is strictly serializable.** A slice is in one place. A command that sees a part of a lent transaction's writes
//! runs on a slice that has come back, and slices are sent back only after the whole transaction has run.
//!
//! For commands that split, let a command's *point* be a moment between its request and its reply; it is enough that at
//! each owner, on each key, commands run in the order of their points. The point of a split command is when the last of
//! its parts is put into a mailbox. That of a plain request is when it is put into its owner's mailbox, or, from a client of
//! the owner, when the mailbox is found empty behind its input; or just behind the points of those that it stands behind,
//! if that is later. Then:
//!
//! - Of two split commands, all owners have the parts of one first, for the lock of the multicast orders both the parts and
//!   the points. Owners run them in that order, at once or as they wait.
//! - A plain request that runs before a part came into the mailbox before it, so before the command's point.
//! - One that comes behind a part does not pass it where it waits, and waits for the hold where it has run: that is let go
//!   after the last part has run, and so been put into a mailbox. Its own point is behind the command's, and still before its
//!   reply.
//!
//! A part need not wait for another's hold: the holds are there for plain requests, which may come between the first part's
//! arrival and the last's. But it takes that whatever is sent after a reply comes behind all that was sent before the reply:
//! a mailbox is one queue for all senders, a shard puts its own parcel first, for the answers to others come to that mailbox
//! too, and a loop looks into it between the reading of input and its running. A
//! later command may then be done while an earlier one, over which it has written, has a part in a mailbox: who learns of
//! it comes behind that part. (Where there is a log or a replica, parts wait for each other's holds all the same,
//! [`crate::shard::intents`].)
//!
//! **A conflict, step by step.** Shard 0 owns `a`, shard 1 owns `b`, both 0. Client P sends `MSET a 1 b 1`, client Q
//! `MGET a b`, and R, on shard 1, `SET b 2`.
//!
//! 1. The multicast orders P's parts before Q's, at both owners. Shard 0 has run P's part and holds `a` alone; shard 1,
//!    slow, has not taken P's in yet.
//! 2. Q's part comes to shard 0: an earlier part holds `a`, so it runs and reads 1. R's `SET b 2` was read by shard 1 before
//!    P's part was put into its mailbox: nothing is held there, it runs and is answered at once. It comes before P.
//! 3. Shard 1 takes in P's part: `b` is 1, held alone. Q's part, behind it, runs and reads 1. A `GET b` of R waits: P's part
//!    might have come to shard 1 before others came to their owners, where somebody could still read the old `a`.
//! 4. P's coordinator has both answers: P gets `OK`, both owners let go. Q's has both too: Q gets 1 and 1. R's `GET b` runs.
//! 5. The order everyone has seen: R's `SET`, P, then Q and R's `GET`.
//!
//! Had step 1 been the other way at one of the owners, Q would have read the one key before P and the other behind it: that
//! is what the one order of the multicast rules out. Had P's `a` been let go with shard 0's own answer, a plain `GET a`
//! could have read 1, and then a plain `GET b`, at shard 1, 0, had P's part not even been put into the mailbox there.
//!
//! **What each planted fault breaks.** The simulator (`tests/sim`) runs the same machine with one step left out
//! ([`crate::core::Fault`]) and must notice:
//!
//! | left out | what goes wrong |
//! |---|---|
//! | a part holds its keys | an `MGET` sees half of an `MSET` |
//! | keys that are read are counted when a write comes | an `MSET` is done between the parts of an `MGET` |
//! | keys are held until the last answer | likewise, as in the example |
//! | a slice is lent only when nothing of it is held | a lent `EXEC` reads between the parts of an `MSET` |
//! | a client's later request waits behind its earlier one | a client reads what was before its own write |
//! | a part waits behind one that waits for its key | two parts wait for each other: nothing moves any more |
//! | a plain request waits behind a part that waits for its key, and behind a transaction that waits for the slice | a later command is seen done, and the earlier one not |
//! | mail that has come is taken in before input | likewise |
//! | multicasts have one order | two split commands each see the other's half |
//! | a write touches those who watch its key | money is made by two transfers that both saw the old sum |
//! | a slice that comes home is looked through for ready keys | a client sleeps beside a list that has elements |
//! | a served waiter is taken off its other keys | an element is popped for a client that has its answer |
//! | a client that goes takes its waiters along | an element is popped for nobody, and lost |
//! | notices of changed keys keep behind replies, by three ways | a cache keeps a value that was invalidated before it came |
//! | what was done on lent slices is in the stream before they go back | a replica sees half of a command, or effects before their causes |

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
    /// Writes are to be noted for replicas from here on.
    Follow,
    /// And no longer.
    Unfollow,
    /// The cut of a full sync.
    Sync,
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
