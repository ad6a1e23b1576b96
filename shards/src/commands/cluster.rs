//! `CLUSTER` and what goes with it, of a server that is no node of a cluster: every call is refused as Redis refuses
//! it, so that clients which probe for a cluster go on without. Counterpart: `cluster.c`.

use super::{Command, CommandResult, Group, flag};
use crate::args::Args;
use crate::shard::Shard;

use flag::*;

const CLUSTER: Group = Group::Cluster;
const ADMINISTER: u32 = ADMIN | NO_ASYNC_LOADING | STALE;

const fn row(name: &'static str, arity: i16, flags: u32, since: &'static str, summary: &'static str) -> Command {
    Command::home(name, refuse, arity, flags, CLUSTER).doc(since, "O(1)", summary, "")
}

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::container("cluster", CLUSTER).doc(
        "3.0.0",
        "Depends on the subcommand.",
        "Looks at and changes a cluster.",
        "",
    ),
    row("cluster|addslots", -3, ADMINISTER, "3.0.0", "Gives slots to the node.").doc(
        "3.0.0",
        "O(N), N being the number of slots",
        "Gives slots to the node.",
        "slot [slot ...]",
    ),
    row("cluster|addslotsrange", -4, ADMINISTER, "7.0.0", "Gives ranges of slots to the node.").doc(
        "7.0.0",
        "O(N), N being the number of slots",
        "Gives ranges of slots to the node.",
        "start-slot end-slot [start-slot end-slot ...]",
    ),
    row("cluster|bumpepoch", 2, ADMINISTER, "3.0.0", "Advances the configuration epoch."),
    row("cluster|count-failure-reports", 3, ADMIN | STALE, "3.0.0", "Counts the reports of a node's failure.").doc(
        "3.0.0",
        "O(N), N being the number of reports",
        "Counts the reports of a node's failure.",
        "node-id",
    ),
    row("cluster|countkeysinslot", 3, STALE, "3.0.0", "Counts the keys of a slot.").doc(
        "3.0.0",
        "O(1)",
        "Counts the keys of a slot.",
        "slot",
    ),
    row("cluster|delslots", -3, ADMINISTER, "3.0.0", "Takes slots from the node.").doc(
        "3.0.0",
        "O(N), N being the number of slots",
        "Takes slots from the node.",
        "slot [slot ...]",
    ),
    row("cluster|delslotsrange", -4, ADMINISTER, "7.0.0", "Takes ranges of slots from the node.").doc(
        "7.0.0",
        "O(N), N being the number of slots",
        "Takes ranges of slots from the node.",
        "start-slot end-slot [start-slot end-slot ...]",
    ),
    row("cluster|failover", -2, ADMINISTER, "3.0.0", "Makes a replica the master.").doc(
        "3.0.0",
        "O(1)",
        "Makes a replica the master.",
        "[FORCE | TAKEOVER]",
    ),
    row("cluster|flushslots", 2, ADMINISTER, "3.0.0", "Takes all slots from the node."),
    row("cluster|forget", 3, ADMINISTER, "3.0.0", "Removes a node.").doc("3.0.0", "O(1)", "Removes a node.", "node-id"),
    row("cluster|getkeysinslot", 4, STALE, "3.0.0", "Returns keys of a slot.").doc(
        "3.0.0",
        "O(N), N being the number of keys asked for",
        "Returns keys of a slot.",
        "slot count",
    ),
    row("cluster|help", 2, LOADING | STALE, "5.0.0", "Lists the subcommands."),
    row("cluster|info", 2, STALE, "3.0.0", "Describes the state of the cluster."),
    row("cluster|keyslot", 3, STALE, "3.0.0", "Returns the slot of a key.").doc(
        "3.0.0",
        "O(N), N being the length of the key",
        "Returns the slot of a key.",
        "key",
    ),
    row("cluster|links", 2, STALE, "7.0.0", "Lists the links to other nodes."),
    row("cluster|meet", -4, ADMINISTER, "3.0.0", "Joins another node.").doc(
        "3.0.0",
        "O(1)",
        "Joins another node.",
        "ip port [cluster-bus-port]",
    ),
    row("cluster|myid", 2, STALE, "3.0.0", "Returns the node's id."),
    row("cluster|myshardid", 2, STALE, "7.2.0", "Returns the id of the node's shard."),
    row("cluster|nodes", 2, STALE, "3.0.0", "Lists the nodes."),
    row("cluster|replicas", 3, ADMIN | STALE, "5.0.0", "Lists the replicas of a node.").doc(
        "5.0.0",
        "O(N), N being the number of replicas",
        "Lists the replicas of a node.",
        "node-id",
    ),
    row("cluster|replicate", 3, ADMINISTER, "3.0.0", "Makes the node a replica.").doc(
        "3.0.0",
        "O(1)",
        "Makes the node a replica.",
        "node-id",
    ),
    row("cluster|reset", -2, ADMIN | STALE | NOSCRIPT, "3.0.0", "Makes the node forget the cluster.").doc(
        "3.0.0",
        "O(N), N being the number of nodes",
        "Makes the node forget the cluster.",
        "[HARD | SOFT]",
    ),
    row("cluster|saveconfig", 2, ADMINISTER, "3.0.0", "Writes the cluster's state to its file."),
    row("cluster|set-config-epoch", 3, ADMINISTER, "3.0.0", "Sets the epoch of a new node.").doc(
        "3.0.0",
        "O(1)",
        "Sets the epoch of a new node.",
        "config-epoch",
    ),
    row("cluster|setslot", -4, ADMINISTER, "3.0.0", "Gives a slot to a node, or moves it.").doc(
        "3.0.0",
        "O(1)",
        "Gives a slot to a node, or moves it.",
        "slot <IMPORTING node-id | MIGRATING node-id | NODE node-id | STABLE>",
    ),
    row("cluster|shards", 2, LOADING | STALE, "7.0.0", "Lists slots with the nodes that serve them."),
    row("cluster|slaves", 3, ADMIN | STALE, "3.0.0", "The old name of CLUSTER REPLICAS.").doc(
        "3.0.0",
        "O(N), N being the number of replicas",
        "The old name of CLUSTER REPLICAS.",
        "node-id",
    ),
    row("cluster|slots", 2, LOADING | STALE, "3.0.0", "Lists slots with their nodes, in the old form."),
    connection("readonly", 1, FAST | LOADING | STALE, "Allows reads from a replica."),
    connection("readwrite", 1, FAST | LOADING | STALE, "Ends what READONLY began."),
    connection("asking", 1, FAST, "Says that the cluster redirected the connection."),
];

const fn connection(name: &'static str, arity: i16, flags: u32, summary: &'static str) -> Command {
    Command::home(name, refuse, arity, flags, CLUSTER)
        .only_categories(super::acl::CONNECTION)
        .doc("3.0.0", "O(1)", summary, "")
}

fn refuse(_: &mut Shard, _: u32, _: Args<'_>) -> CommandResult {
    Err("ERR This instance has cluster support disabled".into())
}

#[cfg(test)]
mod tests {
    use crate::testing::Check;

    #[test]
    fn there_is_no_cluster() {
        let mut t = Check::new();
        let refusal = "-ERR This instance has cluster support disabled";
        for line in ["CLUSTER INFO", "CLUSTER SLOTS", "cluster keyslot k", "READONLY", "READWRITE", "ASKING"] {
            t.check(line, refusal);
        }
        t.check("CLUSTER NOSUCH", "-ERR unknown subcommand 'NOSUCH'. Try CLUSTER HELP.");
        t.check("CLUSTER KEYSLOT", "-ERR wrong number of arguments for 'cluster|keyslot' command");
    }
}
