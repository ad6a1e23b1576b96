//! Commands over keys of several shards happen at once or not at all, whoever looks.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::harness::{Placement, Server, everywhere};
use crate::wire::{Conn, Random, Value, bulk, encode, ok};

/// The slot's number as Redis Cluster's specification gives it: CRC-16/XMODEM.
fn slot(key: &str) -> u32 {
    let mut crc = 0u16;
    for byte in key.bytes() {
        crc ^= (byte as u16) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 };
        }
    }
    crc as u32 % 16384
}

/// Eight keys, evenly over the shards.
fn spread_keys(shards: u32) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for k in 0..8 {
        let wanted = k % shards;
        let name =
            (0..).map(|n| format!("key{n}")).find(|name| slot(name) * shards / 16384 == wanted && !keys.contains(name));
        keys.push(name.unwrap());
    }
    keys
}

fn mset(keys: &[String], value: &str) -> Vec<String> {
    let pairs = keys.iter().flat_map(|key| [key.clone(), value.to_string()]);
    std::iter::once("MSET".to_string()).chain(pairs).collect()
}

fn with(name: &str, keys: &[String]) -> Vec<String> {
    std::iter::once(name.to_string()).chain(keys.iter().cloned()).collect()
}

fn number(value: &Value) -> i64 {
    String::from_utf8_lossy(value.bytes()).parse().unwrap()
}

/// Runs writers to their end, and readers until the writers are done; each reader must have looked at least once.
fn writers_and_readers(
    server: &Server,
    writers: usize,
    write: impl Fn(usize, &mut Conn) + Sync,
    readers: usize,
    read: impl Fn(&mut Conn) + Sync,
) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (done, write, read) = (&done, &write, &read);
        for _ in 0..readers {
            let mut conn = server.connect();
            scope.spawn(move || {
                while {
                    read(&mut conn);
                    !done.load(SeqCst)
                } {}
            });
        }
        let handles: Vec<_> = (0..writers)
            .map(|w| {
                let mut conn = server.connect();
                scope.spawn(move || write(w, &mut conn))
            })
            .collect();
        let results: Vec<_> = handles.into_iter().map(|handle| handle.join()).collect();
        done.store(true, SeqCst);
        for result in results {
            if let Err(panic) = result {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

fn with_keys(test: impl Fn(Placement, &Server, &[String])) {
    everywhere(&[1, 4, 8], |placement| {
        let server = placement.start(&[]);
        test(placement, &server, &spread_keys(placement.shards));
    });
}

#[test]
fn mset_is_never_seen_half_done() {
    with_keys(|_, server, keys| {
        assert_eq!(server.connect().call(&mset(keys, "0")), ok());
        writers_and_readers(
            server,
            3,
            |w, conn| {
                let mut order = keys.to_vec();
                for n in 0..250 {
                    // Another order of keys each time: deadlocks, if there were any, would come from that.
                    order.rotate_left(1 + (n + w) % 7);
                    assert_eq!(conn.call(&mset(&order, &format!("{w}-{n}"))), ok());
                }
            },
            3,
            |conn| {
                let seen = conn.call(&with("MGET", keys));
                assert!(seen.items().iter().all(|value| *value == seen.items()[0]), "{seen:?}");
            },
        );
    });
}

/// Once anybody has seen a part of a change, nobody sees the state before it.
#[test]
fn single_reads_never_go_back_in_time() {
    with_keys(|_, server, keys| {
        assert_eq!(server.connect().call(&mset(keys, "0")), ok());
        let latest = std::sync::atomic::AtomicI64::new(0);
        writers_and_readers(
            server,
            1,
            |_, conn| {
                for n in 1..=500 {
                    assert_eq!(conn.call(&mset(keys, &n.to_string())), ok());
                    latest.fetch_max(n, SeqCst);
                }
            },
            3,
            |conn| {
                for key in keys.iter().rev() {
                    // Seen by any reader, on any key, or acknowledged to the writer, before this was asked.
                    let known = latest.load(SeqCst);
                    let seen = number(&conn.call(&["GET", key]));
                    assert!(seen >= known, "{key} is {seen} after {known} was known");
                    latest.fetch_max(seen, SeqCst);
                }
            },
        );
    });
}

#[test]
fn all_keys_are_there_or_none() {
    with_keys(|_, server, keys| {
        writers_and_readers(
            server,
            3,
            |w, conn| {
                for n in 0..150 {
                    let reply = match (n + w) % 4 {
                        0 => conn.call(&mset(keys, "x")),
                        1 => conn.call(&with("DEL", keys)),
                        2 => conn.call(&[&["MSETNX".to_string()], &mset(keys, "y")[1..]].concat()),
                        _ if w == 0 => conn.call(&["FLUSHALL"]),
                        _ => conn.call(&with("UNLINK", keys)),
                    };
                    assert!(!matches!(reply, Value::Error(_)), "{reply:?}");
                    if let Value::Int(n) = reply {
                        assert!([0, 1, 8].contains(&n), "{n}");
                    }
                }
            },
            2,
            |conn| {
                let there = conn.call(&with("EXISTS", keys)).int();
                assert!(there == 0 || there == 8, "{there} of 8 keys are there");
                let size = conn.cmd("DBSIZE").int();
                assert!(size == 0 || size == 8, "{size} of 8 keys are there");
                let listed = conn.cmd("KEYS *").items().len();
                assert!(listed == 0 || listed == 8, "{listed} of 8 keys are there");
            },
        );
    });
}

#[test]
fn rename_between_shards_loses_nothing() {
    with_keys(|_, server, keys| {
        // Five values in eight places.
        let mut conn = server.connect();
        for (n, key) in keys[..5].iter().enumerate() {
            assert_eq!(conn.call(&["SET", key, &format!("value{n}")]), ok());
        }
        let check = |conn: &mut Conn| {
            let seen = conn.call(&with("MGET", keys));
            let mut values: Vec<_> = seen.items().iter().filter(|value| **value != Value::Null).collect();
            values.sort_by(|a, b| a.bytes().cmp(b.bytes()));
            let expected: Vec<Value> = (0..5).map(|n| bulk(format!("value{n}"))).collect();
            assert!(values.iter().copied().eq(expected.iter()), "{seen:?}");
        };
        writers_and_readers(
            server,
            4,
            |w, conn| {
                let mut random = Random::new(w as u64 + 1);
                for _ in 0..250 {
                    let (from, to) = (&keys[random.below(8)], &keys[random.below(8)]);
                    match conn.call(&["RENAMENX", from, to]) {
                        Value::Int(0 | 1) => {}
                        Value::Error(text) if text == "ERR no such key" => {}
                        other => panic!("{other:?}"),
                    }
                }
            },
            2,
            check,
        );
        check(&mut conn);
        assert_eq!(conn.cmd("DBSIZE"), Value::Int(5));
    });
}

#[test]
fn a_key_renamed_to_and_fro_is_always_somewhere() {
    with_keys(|_, server, keys| {
        let (a, b) = (&keys[0], &keys[1]);
        assert_eq!(server.connect().call(&["SET", a, "v", "EX", "1000"]), ok());
        writers_and_readers(
            server,
            2,
            |w, conn| {
                for _ in 0..300 {
                    let (from, to) = if w == 0 { (a, b) } else { (b, a) };
                    let reply = conn.call(&["RENAME", from, to]);
                    assert!(reply == ok() || reply == Value::Error("ERR no such key".into()), "{reply:?}");
                }
            },
            2,
            |conn| assert_eq!(conn.call(&["EXISTS", a, b]), Value::Int(1)),
        );
        let mut conn = server.connect();
        let ttls = [conn.call(&["TTL", a]).int(), conn.call(&["TTL", b]).int()];
        assert!(ttls.iter().any(|ttl| *ttl > 800) && ttls.contains(&-2), "{ttls:?}");
    });
}

#[test]
fn watched_transfers_keep_the_sum() {
    with_keys(|_, server, keys| {
        const EACH: i64 = 1000;
        assert_eq!(server.connect().call(&mset(keys, &EACH.to_string())), ok());
        let check = |conn: &mut Conn| {
            let sum: i64 = conn.call(&with("MGET", keys)).items().iter().map(number).sum();
            assert_eq!(sum, 8 * EACH);
        };
        writers_and_readers(
            server,
            4,
            |w, conn| {
                let mut random = Random::new(w as u64 + 10);
                let (mut done, mut refused) = (0, 0);
                while done < 60 {
                    let (from, to) = (&keys[random.below(8)], &keys[random.below(8)]);
                    if from == to {
                        continue;
                    }
                    let amount = random.below(50) as i64;
                    if w % 2 == 0 {
                        // Read, then write what follows from it, if nobody came between.
                        assert_eq!(conn.call(&["WATCH", from, to]), ok());
                        let balance = number(&conn.call(&["GET", from]));
                        let other = number(&conn.call(&["GET", to]));
                        let queue = [
                            encode(&["MULTI"]),
                            encode(&["SET", from, &(balance - amount).to_string()]),
                            encode(&["SET", to, &(other + amount).to_string()]),
                            encode(&["EXEC"]),
                        ];
                        conn.send(&queue.concat());
                        let replies: Vec<Value> = (0..4).map(|_| conn.read()).collect();
                        match &replies[3] {
                            Value::Null => refused += 1,
                            reply => {
                                assert_eq!(*reply, Value::Array(vec![ok(), ok()]));
                                done += 1;
                            }
                        }
                        assert!(refused < 20_000, "EXEC is refused again and again");
                    } else {
                        conn.send(
                            &[
                                encode(&["MULTI"]),
                                encode(&["DECRBY", from, &amount.to_string()]),
                                encode(&["INCRBY", to, &amount.to_string()]),
                                encode(&["EXEC"]),
                            ]
                            .concat(),
                        );
                        let replies: Vec<Value> = (0..4).map(|_| conn.read()).collect();
                        assert_eq!(replies[3].items().len(), 2, "{replies:?}");
                        done += 1;
                    }
                }
            },
            2,
            check,
        );
        check(&mut server.connect());
    });
}

/// Counters that are raised only through WATCH end at the number of successes: no change is lost, none comes twice.
#[test]
fn watch_loses_no_increment() {
    with_keys(|_, server, keys| {
        let counter = &keys[1];
        assert_eq!(server.connect().call(&["SET", counter, "0"]), ok());
        writers_and_readers(
            server,
            4,
            |_, conn| {
                let mut done = 0;
                while done < 50 {
                    assert_eq!(conn.call(&["WATCH", counter]), ok());
                    let next = number(&conn.call(&["GET", counter])) + 1;
                    assert_eq!(conn.call(&["MULTI"]), ok());
                    assert_eq!(conn.call(&["SET", counter, &next.to_string()]), Value::Simple("QUEUED".into()));
                    done += (conn.call(&["EXEC"]) != Value::Null) as i64;
                }
            },
            0,
            |_| {},
        );
        assert_eq!(server.connect().call(&["GET", counter]), bulk("200"));
    });
}

/// Clients that leave in the midst of something that spans shards release what it held.
#[test]
fn clients_that_leave_hold_nothing_back() {
    with_keys(|_, server, keys| {
        for n in 0..60 {
            let mut conn = server.connect();
            let mut bytes = encode(&with("WATCH", keys));
            for _ in 0..20 {
                bytes.extend(encode(&mset(keys, &n.to_string())));
                bytes.extend(encode(&["MULTI"]));
                bytes.extend(encode(&mset(keys, "x")));
                bytes.extend(encode(&["EXEC"]));
                bytes.extend(encode(&["RENAME", &keys[0], &keys[3]]));
            }
            conn.send(&bytes);
            drop(conn);
        }
        let mut conn = server.connect();
        assert_eq!(conn.call(&mset(keys, "end")), ok());
        let seen = conn.call(&with("MGET", keys));
        assert_eq!(seen.items().len(), 8);
    });
}
