//! `SYNC`, `PSYNC`, `REPLCONF`, `ROLE`, `WAIT`, `FAILOVER`: replicas of this server, and what clients ask of them. What
//! they do is in [`crate::replication`] and [`crate::shard::replicas`]. Following another server is not built.
//!
//! Counterpart: the commands of `replication.c`.

use super::server::not_built;
use super::{Command, CommandError, CommandResult, Group, acl, flag};
use crate::args::Args;
use crate::number::parse_i64;
use crate::quote;
use crate::replication::replica::{Filter, Introduction, State};
use crate::shard::Shard;
use crate::shard::append::WaitsFor;

use flag::*;

const SERVER: Group = Group::Server;

/// Longest `ip-address` (Redis: `NET_HOST_STR_LEN`).
const ADDRESS_BYTES: usize = 256;

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::home("sync", sync, 1, ADMIN | NOSCRIPT | NO_ASYNC_LOADING | NO_MULTI, SERVER).doc(
        "1.0.0",
        "O(N), N being the number of keys",
        "Makes the connection one to a replica, as replicas before Redis 2.8 did.",
        "",
    ),
    Command::home("psync", psync, -3, ADMIN | NOSCRIPT | NO_ASYNC_LOADING | NO_MULTI, SERVER).doc(
        "2.8.0",
        "O(N), N being the number of keys, or the bytes of the backlog that are asked for",
        "Makes the connection one to a replica.",
        "replicationid offset",
    ),
    Command::home("replconf", replconf, -1, ADMIN | NOSCRIPT | LOADING | STALE | ALLOW_BUSY, SERVER).doc(
        "3.0.0",
        "O(1)",
        "Says something of a replica to its master.",
        "",
    ),
    Command::home("role", role, 1, NOSCRIPT | LOADING | STALE | FAST, SERVER)
        .categories(acl::ADMIN | acl::DANGEROUS)
        .doc("2.8.12", "O(1)", "Returns the server's role in replication.", ""),
    Command::home("wait", wait, 3, BLOCKING, Group::Generic).only_categories(acl::CONNECTION).doc(
        "3.0.0",
        "O(1)",
        "Waits until replicas have what the connection wrote.",
        "numreplicas timeout",
    ),
    Command::home("failover", failover, -1, ADMIN | NOSCRIPT | STALE, SERVER).doc(
        "6.2.0",
        "O(1)",
        "Has a replica take over.",
        "[TO host port [FORCE]] [ABORT] [TIMEOUT milliseconds]",
    ),
    Command::home("replicaof", replicaof, 3, ADMIN | NOSCRIPT | STALE | NO_ASYNC_LOADING, SERVER).doc(
        "5.0.0",
        "O(1)",
        "Makes the server a replica of another, or a master again.",
        "<host port | NO ONE>",
    ),
    Command::home("slaveof", slaveof, 3, ADMIN | NOSCRIPT | STALE | NO_ASYNC_LOADING, SERVER).doc(
        "1.0.0",
        "O(1)",
        "The old name of REPLICAOF.",
        "<host port | NO ONE>",
    ),
];

fn sync(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    shard.begin_replica(index, None)
}

fn psync(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    if args.len() > 3 && args.is(3, "failover") {
        return Err("ERR PSYNC FAILOVER can't be sent to a master.".into());
    }
    let offset = parse_i64(args.at(2)).ok_or(CommandError::NotInteger)?;
    shard.begin_replica(index, Some((args.at(1), offset)))
}

/// A version as replicas say it, `7.2.4`.
fn version(text: &[u8]) -> u32 {
    let text = String::from_utf8_lossy(text);
    let mut parts = text.split('.').map(|part| part.parse::<u8>().unwrap_or(0));
    (0..3).fold(0, |version, _| version << 8 | u32::from(parts.next().unwrap_or(0)))
}

fn replconf(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    if args.len().is_multiple_of(2) {
        return Err(CommandError::Syntax);
    }
    let mut at = 1;
    while at < args.len() {
        let (name, value) = (args.at(at).to_ascii_lowercase(), args.at(at + 1));
        at += 2;
        match name.as_slice() {
            // Neither is answered.
            b"ack" => {
                let fsynced = args.len() > at + 1 && args.is(at, "fack");
                if let Some(acknowledged) = parse_i64(value) {
                    let on_disk = if fsynced { parse_i64(args.at(at + 1)) } else { None };
                    shard.take_ack(index, acknowledged, on_disk);
                }
                return Err(CommandError::NoReply);
            }
            b"getack" => return Err(CommandError::NoReply),
            _ => {}
        }
        let introduction: &mut Introduction = shard.client(index).introduction.get_or_insert_default();
        match name.as_slice() {
            b"listening-port" => {
                let port = parse_i64(value).ok_or(CommandError::NotInteger)?;
                introduction.port = u16::try_from(port).unwrap_or(0);
            }
            b"ip-address" => {
                if value.len() >= ADDRESS_BYTES {
                    let len = value.len();
                    let text = format!("ERR REPLCONF ip-address provided by replica instance is too long: {len} bytes");
                    return Err(text.into());
                }
                // It is shown in lines that clients take apart.
                let shown = |byte: &&u8| byte.is_ascii_graphic() && **byte != b',';
                introduction.address = value.iter().filter(shown).map(|byte| *byte as char).collect();
            }
            b"capa" => match value.to_ascii_lowercase().as_slice() {
                b"eof" => introduction.capabilities.eof = true,
                b"psync2" => introduction.capabilities.psync2 = true,
                _ => {}
            },
            b"version" => introduction.version = version(value),
            b"rdb-only" => match parse_i64(value).ok_or(CommandError::NotInteger)? {
                wanted @ 0..=1 => introduction.rdb_only = wanted == 1,
                _ => return Err(CommandError::OutOfRange),
            },
            b"rdb-filter-only" => {
                let words = quote::split_args(value).ok_or("ERR Missing rdb-filter-only values")?;
                introduction.filter = Some(Filter { functions: false });
                for word in words {
                    if !word.eq_ignore_ascii_case(b"functions") {
                        let word = String::from_utf8_lossy(&word).into_owned();
                        return Err(format!("ERR Unsupported rdb-filter-only option: {word}").into());
                    }
                    introduction.filter = Some(Filter { functions: true });
                }
            }
            _ => {
                let name = String::from_utf8_lossy(args.at(at - 2)).into_owned();
                return Err(format!("ERR Unrecognized REPLCONF option: {name}").into());
            }
        }
    }
    shard.client(index).reply().ok();
    Ok(())
}

fn role(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    let shared = shard.core.shared.clone();
    let feed = shared.replication.feed();
    let online = || feed.replicas.iter().filter(|replica| replica.state == State::Online);
    let mut reply = shard.client(index).reply();
    reply.array(3);
    reply.bulk(b"master");
    reply.integer(feed.offset() as i64);
    reply.array(online().count());
    for replica in online() {
        reply.array(3);
        reply.bulk(replica.address.as_bytes());
        reply.bulk_integer(i64::from(replica.port));
        reply.bulk_integer(replica.acknowledged as i64);
    }
    Ok(())
}

fn wait(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let replicas = parse_i64(args.at(1)).ok_or(CommandError::NotInteger)?;
    let timeout = parse_i64(args.at(2)).ok_or("ERR timeout is not an integer or out of range")?;
    if timeout < 0 {
        return Err("ERR timeout is negative".into());
    }
    match shard.wait_for_log(index, WaitsFor::Replicas, replicas, timeout) {
        true => Err(CommandError::NoReply),
        false => Ok(()),
    }
}

fn failover(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let _ = index;
    if args.len() == 2 && args.is(1, "abort") {
        return Err("ERR No failover in progress.".into());
    }
    let (mut timeout, mut force, mut target) = (0, false, None);
    let mut at = 1;
    while at < args.len() {
        if args.is(at, "timeout") && at + 1 < args.len() && timeout == 0 {
            timeout = parse_i64(args.at(at + 1)).ok_or(CommandError::NotInteger)?;
            if timeout <= 0 {
                return Err("ERR FAILOVER timeout must be greater than 0".into());
            }
            at += 2;
        } else if args.is(at, "to") && at + 2 < args.len() && target.is_none() {
            let port = parse_i64(args.at(at + 2)).ok_or(CommandError::NotInteger)?;
            target = Some((String::from_utf8_lossy(args.at(at + 1)).into_owned(), port));
            at += 3;
        } else if args.is(at, "force") && !force {
            force = true;
            at += 1;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let feed = shard.core.shared.replication.feed();
    if feed.replicas.is_empty() {
        return Err("ERR FAILOVER requires connected replicas.".into());
    }
    if force && (timeout == 0 || target.is_none()) {
        return Err("ERR FAILOVER with force option requires both a timeout and target HOST and IP.".into());
    }
    if let Some((host, port)) = target {
        let found = feed.replicas.iter().find(|replica| replica.address == host && i64::from(replica.port) == port);
        match found {
            None => return Err("ERR FAILOVER target HOST and PORT is not a replica.".into()),
            Some(replica) if replica.state != State::Online => {
                return Err("ERR FAILOVER target replica is not online.".into());
            }
            Some(_) => {}
        }
    }
    // The last step would make this server its replica's replica.
    Err(not_built("Failover"))
}

fn replicaof(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    if args.is(1, "no") && args.is(2, "one") {
        shard.client(index).reply().ok();
        return Ok(());
    }
    if parse_i64(args.at(2)).is_none_or(|port| !(0..=65535).contains(&port)) {
        return Err("ERR Invalid master port".into());
    }
    Err(not_built("Replication"))
}

fn slaveof(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    replicaof(shard, index, args)
}
