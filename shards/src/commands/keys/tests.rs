//! Flushes, whose memory goes elsewhere.

use std::sync::atomic::Ordering::Relaxed;

use crate::testing::{Check, Conn, World, request};

fn fill(world: &mut World, conn: Conn, keys: usize) {
    (0..keys).for_each(|key| drop(world.call(conn, &["SET", &format!("k{key}"), "v"])));
}

fn freed(world: &World) -> u64 {
    world.shared.lazyfreed_objects.load(Relaxed)
}

/// The keys are gone at once and other clients are served, but the reply comes when the memory is free, and what the
/// client sent behind it comes after.
#[test]
fn a_flush_replies_when_all_is_freed() {
    for (shards, flush) in [(1, "FLUSHALL"), (4, "FLUSHALL"), (1, "FLUSHDB"), (4, "FLUSHDB")] {
        let mut world = World::new(shards);
        let (flusher, other) = (world.connect(), world.connect());
        fill(&mut world, flusher, 1000);
        world.put_off_background();
        let both = [request(&[flush, "SYNC"]), request(&["PING"])].concat();
        world.send(flusher, &both);
        world.end_turns();
        assert_eq!(world.received(flusher), b"", "{shards} shards");
        assert_eq!(world.run(other, "DBSIZE").to_string(), "0");
        assert_eq!((freed(&world), world.shared.lazyfree_pending.load(Relaxed)), (0, 1000));
        assert!(world.shards.iter().any(|shard| shard.next_deadline_ms().is_some()), "somebody looks again");
        world.run_background();
        assert_eq!(world.received(flusher), b"+OK\r\n+PONG\r\n");
        assert_eq!((freed(&world), world.shared.lazyfree_pending.load(Relaxed)), (1000, 0));
        assert!(world.shards.iter().all(|shard| shard.next_deadline_ms().is_none()));
        world.run(other, "CONFIG RESETSTAT");
        assert_eq!(freed(&world), 0);
    }
}

/// A client that leaves before all is freed, and the one that gets its place, owe each other nothing; one that is to
/// be closed gets its reply first.
#[test]
fn who_waits_for_a_flush_may_go() {
    let mut world = World::new(1);
    let conn = world.connect();
    fill(&mut world, conn, 1000);
    world.put_off_background();
    world.send(conn, &request(&["FLUSHALL"]));
    world.disconnect(conn);
    let next = world.connect();
    assert_eq!(world.run(next, "PING").to_string(), "PONG");
    fill(&mut world, next, 1000);
    world.send(next, &[request(&["FLUSHALL"]), request(&["QUIT"])].concat());
    assert_eq!(world.received(next), b"");
    world.run_background();
    assert_eq!(world.received(next), b"+OK\r\n+OK\r\n");
    assert!(!world.is_open(next));
}

/// `ASYNC` does not wait; inside `MULTI` nothing may; a small database is freed on the spot.
#[test]
fn flushes_that_do_not_wait() {
    let mut world = World::new(4);
    let conn = world.connect();
    world.put_off_background();
    fill(&mut world, conn, 1000);
    assert_eq!(world.run(conn, "FLUSHALL ASYNC").to_string(), "OK");
    assert_eq!(world.shared.lazyfree_pending.load(Relaxed), 1000);
    world.run_background();
    fill(&mut world, conn, 1000);
    ["MULTI", "FLUSHALL"].iter().for_each(|line| drop(world.run(conn, line)));
    assert_eq!(world.run(conn, "EXEC").to_string(), "[OK]");
    assert_eq!((freed(&world), world.shared.lazyfree_pending.load(Relaxed)), (1000, 0));
    fill(&mut world, conn, 2);
    assert_eq!(world.run(conn, "FLUSHDB").to_string(), "OK");
    assert_eq!(freed(&world), 1002);
    // Two keys, but one of them is big.
    fill(&mut world, conn, 1);
    let members: Vec<String> = (0..1000).map(|n| format!("member:{n}")).collect();
    let words: Vec<&str> = ["SADD", "big"].into_iter().chain(members.iter().map(String::as_str)).collect();
    world.call(conn, &words);
    world.send(conn, &request(&["FLUSHDB"]));
    assert_eq!(world.received(conn), b"");
    world.run_background();
    assert_eq!(world.received(conn), b"+OK\r\n");
}

/// As since Redis 8: an unknown type is an error, and keys of other types are left alone even if their time has come.
#[test]
fn scan_by_type_looks_at_that_type_alone() {
    let mut t = Check::new();
    t.check("DEBUG SET-ACTIVE-EXPIRE 0", "OK").check("SET s v PX 10", "OK").check("HSET h f v", "1");
    t.check("PEXPIRE h 10", "1").check("SET live v", "OK").advance(20);
    t.check("SCAN 0 TYPE strings", "-ERR unknown type name 'strings'").check("DBSIZE", "3");
    t.each(|world, conn| {
        let (mut cursor, mut found) = ("0".to_string(), Vec::new());
        loop {
            let reply = world.run(conn, &format!("SCAN {cursor} TYPE STRING COUNT 100")).items();
            cursor = reply[0].text();
            found.extend(reply[1].items().iter().map(crate::testing::Value::text));
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(found, ["live"]);
    });
    t.check("DBSIZE", "2");
}
