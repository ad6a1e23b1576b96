//! `SYNC`, `PSYNC`, `REPLCONF`, `ROLE`, `WAIT`, `FAILOVER`: replicas of this server, and what clients ask of them. What
//! they do is in [`crate::replication`] and [`crate::shard::replicas`]. Following another server is not built.
//!
//! Counterpart: the commands of `replication.c`.

use super::block::deadline_of_ms;
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
    let deadline = deadline_of_ms(&shard.core, args.at(2))?;
    match shard.wait_for_log(index, WaitsFor::Replicas, replicas, deadline) {
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

#[cfg(test)]
mod tests {
    use crate::testing::{Check, Conn, Value, World};

    /// Who waits is blocked to those who look, and can be let go.
    #[test]
    fn who_waits_is_blocked() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let (boss, conn) = (world.connect(), world.connect());
            let id = world.run(conn, "CLIENT ID");
            for (how, reply) in [
                ("", ":0\r\n"),
                (" TIMEOUT", ":0\r\n"),
                (" ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"),
            ] {
                world.send(conn, b"WAIT 1 0\r\n");
                assert!(world.received(conn).is_empty());
                assert!(world.run(boss, "INFO clients").text().contains("blocked_clients:1\r\n"));
                assert!(world.run(boss, &format!("CLIENT LIST ID {id}")).text().contains(" flags=b "));
                assert_eq!(world.run(boss, &format!("CLIENT UNBLOCK {id}{how}")).to_string(), "1");
                assert_eq!(String::from_utf8(world.received(conn)).unwrap(), reply);
                assert_eq!(world.run(conn, "PING").to_string(), "PONG");
                assert!(world.run(boss, "INFO clients").text().contains("blocked_clients:0\r\n"));
            }
            assert_eq!(world.run(boss, &format!("CLIENT UNBLOCK {id}")).to_string(), "0");
        }
    }

    #[test]
    fn what_a_master_without_replicas_says() {
        let mut t = Check::new();
        t.check("ROLE", r#"["master" 0 []]"#);
        t.check("WAIT 0 100", "0").check("WAIT x 0", "-ERR value is not an integer or out of range");
        t.check("WAIT 1 9223372036854775807", "-ERR timeout is out of range");
        t.check("WAITAOF 0 1 9223372036854775807", "-ERR timeout is out of range");
        t.check("WAIT 1 9223372036854775808", "-ERR timeout is not an integer or out of range");
        t.check("WAIT 1 -1", "-ERR timeout is negative").check("WAITAOF 0 0 0", "[0 0]");
        t.check("REPLICAOF NO ONE", "OK").check("SLAVEOF no one", "OK");
        t.look("REPLICAOF 127.0.0.1 6380", |v| assert!(v.text().contains("not built yet")));
        t.check("REPLICAOF 127.0.0.1 x", "-ERR Invalid master port");
        t.check("FAILOVER ABORT", "-ERR No failover in progress.");
        t.check("FAILOVER", "-ERR FAILOVER requires connected replicas.");
        t.check("FAILOVER TIMEOUT 0", "-ERR FAILOVER timeout must be greater than 0");
        t.check("FAILOVER TO", "-ERR syntax error");
        t.check("REPLCONF capa", "-ERR syntax error").check("REPLCONF capa eof capa psync2", "OK");
        t.check("REPLCONF x y", "-ERR Unrecognized REPLCONF option: x");
        t.check("REPLCONF rdb-only 2", "-ERR value is out of range");
        t.check("REPLCONF rdb-filter-only keys", "-ERR Unsupported rdb-filter-only option: keys");
        t.check("PSYNC ? x", "-ERR value is not an integer or out of range");
        t.check("MULTI", "OK").check("SYNC", "-ERR Command not allowed inside a transaction");
    }

    #[test]
    fn a_wait_ends_with_its_time() {
        let mut world = World::new(2);
        let conn = world.connect();
        world.send(conn, b"WAIT 1 50\r\nPING\r\n");
        assert_eq!(world.received(conn), b"");
        world.advance(60);
        world.end_turns();
        assert_eq!(world.received(conn), b":0\r\n+PONG\r\n");
    }

    /// Lets turns end until nothing more comes of it.
    fn settle(world: &mut World) {
        for _ in 0..12 {
            world.advance(100);
            world.end_turns();
        }
    }

    /// The snapshot's length, and what came behind it.
    fn after_snapshot(bytes: &[u8]) -> (usize, Vec<u8>) {
        let start = bytes.iter().position(|byte| *byte == b'$').expect("a length");
        let end = start + bytes[start..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let len: usize = std::str::from_utf8(&bytes[start + 1..end - 2]).unwrap().parse().unwrap();
        assert!(bytes[end..].starts_with(b"REDIS"));
        (len, bytes[end + len..].to_vec())
    }

    fn lines(bytes: &[u8]) -> Vec<String> {
        let line = |command: &Value| command.items().iter().map(Value::text).collect::<Vec<_>>().join(" ");
        Value::parse_all(bytes).iter().map(line).filter(|line| line != "PING").collect()
    }

    fn told(world: &mut World, replica: Conn) -> Vec<String> {
        settle(world);
        lines(&world.received(replica))
    }

    #[test]
    fn a_replica_is_sent_a_snapshot_and_then_the_stream() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let (conn, replica) = (world.connect(), world.connect());
            for n in 0..50 {
                world.run(conn, &format!("SET before{n} {n}"));
            }
            world.send(replica, b"SYNC\r\n");
            settle(&mut world);
            let (_, stream) = after_snapshot(&world.received(replica));
            assert_eq!(lines(&stream), Vec::<String>::new());
            world.run(conn, "SET a 1");
            assert_eq!(told(&mut world, replica), ["SELECT 0", "SET a 1"]);
            world.run(conn, "SUNIONSTORE all none1 none2 none3");
            world.run(conn, "RENAME a b");
            world.run(conn, "SELECT 3");
            world.run(conn, "MULTI");
            world.run(conn, "SET c 1");
            world.run(conn, "INCR d");
            world.run(conn, "EXEC");
            world.run(conn, "PUBLISH channel word");
            let expected = ["RENAME a b", "MULTI", "SELECT 3", "SET c 1", "INCR d", "EXEC", "PUBLISH channel word"];
            assert_eq!(told(&mut world, replica), expected, "{shards} shards");
            world.run(conn, "MSET k1 1 k2 2 k3 3 k4 4");
            let mut stream = told(&mut world, replica);
            if shards > 1 {
                assert_eq!((stream.remove(0), stream.pop()), ("MULTI".to_string(), Some("EXEC".to_string())));
            }
            let words = stream.iter().flat_map(|line| line.split(' ').skip(1));
            let mut words: Vec<&str> = words.collect();
            words.sort_unstable();
            assert_eq!(words, ["1", "2", "3", "4", "k1", "k2", "k3", "k4"]);
            world.run(conn, "FLUSHALL");
            assert_eq!(told(&mut world, replica), ["FLUSHALL"]);
            let info = world.run(conn, "INFO replication").text();
            assert!(info.contains("connected_slaves:1\r\n") && info.contains(",state=online,"), "{info}");
            assert!(world.run(conn, "CLIENT LIST").text().contains(" flags=S "));
            // Whatever it says but for its acknowledgements would be answered into the stream.
            world.send(replica, b"REPLCONF ACK 5\r\n");
            assert!(world.is_open(replica) && world.received(replica).is_empty());
            world.send(replica, b"SET k v\r\n");
            assert!(!world.is_open(replica));
            assert!(world.run(conn, "INFO replication").text().contains("connected_slaves:0\r\n"));
            assert_eq!(world.run(conn, "GET k").to_string(), "nil");
        }
    }

    #[test]
    fn a_replica_goes_on_where_it_was() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let (conn, replica) = (world.connect(), world.connect());
            world.run(replica, "REPLCONF listening-port 7000 capa psync2");
            world.send(replica, b"PSYNC ? -1\r\n");
            settle(&mut world);
            let said = String::from_utf8_lossy(&world.received(replica)).into_owned();
            let line = said.lines().find_map(|line| line.strip_prefix("+FULLRESYNC ")).expect("a full sync");
            let (id, start) = line.split_once(' ').unwrap();
            let start: u64 = start.parse().unwrap();
            world.run(conn, "SET a 1");
            settle(&mut world);
            let stream = world.received(replica);
            let had = start + stream.len() as u64;
            world.send(conn, b"WAIT 1 0\r\n");
            world.end_turns();
            assert_eq!(world.received(conn), b"");
            assert!(lines(&world.received(replica)).contains(&"REPLCONF GETACK *".to_string()));
            world.send(replica, format!("REPLCONF ACK {}\r\n", had + 100).as_bytes());
            world.end_turns();
            assert_eq!(world.received(conn), b":1\r\n");
            world.disconnect(replica);
            world.run(conn, "SET b 2");
            settle(&mut world);
            let again = world.connect();
            world.run(again, "REPLCONF capa psync2");
            world.send(again, format!("PSYNC {id} {}\r\n", had + 1).as_bytes());
            settle(&mut world);
            let said = world.received(again);
            let head = format!("+CONTINUE {id}\r\n");
            assert!(said.starts_with(head.as_bytes()), "{}", String::from_utf8_lossy(&said));
            assert_eq!(lines(&said[head.len()..]), ["REPLCONF GETACK *", "SET b 2"]);
            let other = world.connect();
            world.send(other, format!("PSYNC {id} 999999999\r\n").as_bytes());
            settle(&mut world);
            assert!(String::from_utf8_lossy(&world.received(other)).contains("+FULLRESYNC "));
            let info = world.run(conn, "INFO stats").text();
            for line in ["sync_full:2", "sync_partial_ok:1", "sync_partial_err:1"] {
                assert!(info.contains(line), "{info}");
            }
        }
    }

    #[test]
    fn a_snapshot_without_keys_holds_the_functions() {
        let mut world = World::new(2);
        let (conn, replica) = (world.connect(), world.connect());
        world.run(conn, "SET secret-name 1");
        world.run(conn, "FUNCTION LOAD \"#!lua name=lib\nredis.register_function('f', function() return 1 end)\"");
        world.run(replica, "REPLCONF rdb-only 1 rdb-filter-only functions");
        let refused = world.run(replica, "SYNC").to_string();
        assert_eq!(refused, "-ERR Filtered replica requires EOF capability");
        world.run(replica, "REPLCONF capa eof");
        world.send(replica, b"SYNC\r\n");
        settle(&mut world);
        let bytes = world.received(replica);
        let (len, rest) = after_snapshot(&bytes);
        assert!(len > 0 && rest.is_empty());
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(text.contains("#!lua name=lib") && !text.contains("secret-name"));
        assert!(!world.is_open(replica), "it has what it wanted");
    }
}
