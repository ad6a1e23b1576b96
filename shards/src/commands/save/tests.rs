use crate::testing::{Check, Value, World};

/// What the whole dataset is, as one text.
fn digest(world: &mut World, conn: crate::testing::Conn) -> String {
    world.run(conn, "DEBUG DIGEST").text()
}

#[test]
fn save_and_reload_keep_every_encoding() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let conn = world.connect();
        for (n, (_, lines)) in crate::rdb::tests::of_each_encoding().into_iter().enumerate() {
            for line in lines {
                world.run(conn, &line);
            }
            world.run(conn, &format!("RENAME k k{n}"));
        }
        world.run(conn, "SELECT 5");
        world.run(conn, "SET five 5 PX 100000");
        let before = digest(&mut world, conn);
        for line in ["DEBUG RELOAD", "SAVE", "DEBUG RELOAD NOSAVE", "DEBUG RELOAD NOFLUSH MERGE"] {
            assert_eq!(world.run(conn, line).to_string(), "OK", "{line}");
            assert_eq!(digest(&mut world, conn), before, "{line}");
        }
        assert!(world.run(conn, "DEBUG RELOAD NOFLUSH").text().starts_with("ERR Error trying to load the RDB dump"));
        assert_eq!(world.run(conn, "PTTL five").integer(), 100_000);
    }
}

#[test]
fn a_snapshot_is_of_one_instant_whatever_is_written_meanwhile() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let conn = world.connect();
        world.run(conn, "DEBUG POPULATE 3000 key 10");
        for i in 0..200 {
            world.run(conn, &format!("RPUSH list:{i} a b c"));
            world.run(conn, &format!("SET gone:{i} x PX 50"));
        }
        world.run(conn, "SELECT 3");
        world.run(conn, "DEBUG POPULATE 500 three 10");
        world.run(conn, "SELECT 0");
        let before = digest(&mut world, conn);
        assert_eq!(world.run(conn, "BGSAVE").text(), "Background saving started");
        assert_eq!(world.run(conn, "BGSAVE").to_string(), "-ERR Background save already in progress");
        assert_eq!(world.run(conn, "SAVE").to_string(), "-ERR Background save already in progress");
        // Writes of every kind, with the walk a little further each time.
        for i in 0..1000 {
            for line in [
                format!("SET key:{} changed", i * 3),
                format!("APPEND key:{} more", i * 3 + 1),
                format!("DEL key:{}", i * 3 + 2),
                format!("RPUSH list:{} d", i % 200),
                format!("LPOP list:{}", (i + 7) % 200),
                format!("RENAME key:{} moved:{i}", i * 3),
                format!("COPY key:{} copy:{i} REPLACE", i * 3 + 1),
                format!("SET new:{i} {i}"),
                format!("EXPIRE key:{} 1000", i * 3 + 1),
                format!("MSET key:{i} a new:{i} b"),
            ] {
                world.run(conn, &line);
            }
            match i {
                300 => drop(world.run(conn, "SWAPDB 0 3")),
                400 => drop(world.run(conn, "FLUSHDB")),
                500 => drop(world.run(conn, "SWAPDB 0 3")),
                600 => world.advance(100),
                _ => {}
            }
            if i % 5 == 0 {
                world.end_turns();
            }
        }
        world.finish_snapshot();
        let later = digest(&mut world, conn);
        assert_ne!(later, before);
        world.run(conn, "DEBUG SET-ACTIVE-EXPIRE 0");
        world.restart_time();
        assert_eq!(world.run(conn, "DEBUG RELOAD NOSAVE").text(), "OK");
        assert_eq!(digest(&mut world, conn), before, "{shards} shards");
    }
}

/// Once the walk had passed a database, what `SWAPDB` put in its place was not in the snapshot.
#[test]
fn what_swapdb_takes_to_where_the_walk_has_been_is_saved() {
    for (shards, turns) in [1, 4].into_iter().flat_map(|shards| (1..12).map(move |n| (shards, 4 * n))) {
        let mut world = World::new(shards);
        let conn = world.connect();
        World::set_look_us(30);
        for line in ["DEBUG POPULATE 500 zero 10", "SELECT 3", "DEBUG POPULATE 3000 three 10", "SELECT 0"] {
            world.run(conn, line);
        }
        let before = digest(&mut world, conn);
        world.run(conn, "BGSAVE");
        (0..turns).for_each(|_| world.end_turns());
        world.run(conn, "SWAPDB 0 3");
        world.run(conn, "SET zero:1 changed");
        world.finish_snapshot();
        World::set_look_us(1);
        assert_eq!(world.run(conn, "DEBUG RELOAD NOSAVE").text(), "OK");
        assert_eq!(digest(&mut world, conn), before, "{shards} shards, {turns} turns");
    }
}

/// Long values are written over many turns, and changed, taken away or given other names in the midst of it.
#[test]
fn long_values_are_of_the_same_instant() {
    type Element = fn(usize) -> String;
    let kinds: [(&str, Element); 5] = [
        ("RPUSH", |i| format!("element:{i}:{}", "x".repeat(i % 50))),
        ("SADD", |i| format!("member:{i}")),
        ("HSET", |i| format!("field:{i} value:{i}")),
        ("ZADD", |i| format!("{} member:{i}", i * 7 % 1000)),
        ("XADD", |i| format!("{}-1 field value:{i}", i + 1)),
    ];
    let change = |key: &str, kind: usize| match kind {
        0 => format!("LSET {key} 5 changed"),
        1 => format!("SREM {key} member:3"),
        2 => format!("HSET {key} field:7 changed"),
        3 => format!("ZINCRBY {key} 5000 member:9"),
        _ => format!("XTRIM {key} MAXLEN 10"),
    };
    for (shards, seed) in [1, 4].into_iter().flat_map(|shards| (0..12).map(move |seed| (shards, seed))) {
        let mut world = World::new(shards);
        let conn = world.connect();
        // So that many looks at the clock are a walk's time, and a long value takes many turns.
        World::set_look_us(if seed % 3 == 0 { 60 } else { 20 });
        for db in [0, 2] {
            world.run(conn, &format!("SELECT {db}"));
            for (kind, (command, element)) in kinds.iter().enumerate() {
                for n in 0..2 {
                    let key = format!("{command}:{n}");
                    match *command {
                        "XADD" => (0..3000).for_each(|i| drop(world.run(conn, &format!("XADD {key} {}", element(i))))),
                        _ => (0..3000).step_by(500).for_each(|from| {
                            let words: Vec<String> = (from..from + 500).map(element).collect();
                            world.run(conn, &format!("{command} {key} {}", words.join(" ")));
                        }),
                    }
                    if kind == 2 && n == 1 {
                        world.run(conn, &format!("HPEXPIRE {key} 10000000 FIELDS 3 field:1 field:2 field:2999"));
                    }
                }
            }
            world.run(conn, "DEBUG POPULATE 200 key 10");
        }
        world.run(conn, "SELECT 0");
        let before = digest(&mut world, conn);
        assert_eq!(world.run(conn, "BGSAVE").text(), "Background saving started");
        for turn in 0..60usize {
            world.end_turns();
            let kind = (turn * 7 + seed) % 5;
            let key = format!("{}:{}", kinds[kind].0, (turn / 5 + seed) % 2);
            match (turn + 5 * seed) % 23 {
                3 | 11 => drop(world.run(conn, &change(&key, kind))),
                7 => drop(world.run(conn, &format!("DEL {key}"))),
                8 => drop(world.run(conn, &format!("RENAME {key} other:{turn}"))),
                9 => drop(world.run(conn, &format!("SET key:{turn} changed"))),
                13 if seed % 2 == 0 => drop(world.run(conn, "SWAPDB 0 2")),
                17 if seed % 4 == 1 => drop(world.run(conn, "FLUSHDB")),
                19 => drop(world.run(conn, &format!("PEXPIRE {key} 100000"))),
                20 => drop(world.run(conn, &format!("COPY {key} copy:{turn}"))),
                _ => {}
            }
        }
        world.finish_snapshot();
        World::set_look_us(1);
        assert_ne!(digest(&mut world, conn), before);
        assert_eq!(world.run(conn, "DEBUG RELOAD NOSAVE").text(), "OK");
        assert_eq!(digest(&mut world, conn), before, "{shards} shards, seed {seed}");
    }
}

#[test]
fn a_transaction_is_in_a_snapshot_whole_or_not_at_all() {
    let mut world = World::new(4);
    let (conn, other) = (world.connect_to(0), world.connect_to(1));
    for round in 0..20 {
        for i in 0..100 {
            world.run(conn, &format!("MSET a:{i} {round} b:{i} {round}"));
        }
        world.run(other, "BGSAVE");
        for i in 0..100 {
            world.run(conn, &format!("MSET a:{i} x b:{i} x"));
            if i % 7 == 0 {
                world.end_turns();
            }
        }
        world.finish_snapshot();
        world.run(conn, "DEBUG RELOAD NOSAVE");
        for i in 0..100 {
            let both = world.run(conn, &format!("MGET a:{i} b:{i}")).to_string();
            assert_eq!(both, format!("[\"{round}\" \"{round}\"]"));
        }
    }
}

#[test]
fn flushall_gives_a_snapshot_up() {
    let mut world = World::with_config(2, &[("save", "")]);
    let conn = world.connect();
    world.run(conn, "DEBUG POPULATE 2000");
    let field = |world: &mut World, name: &str| {
        let text = world.run(conn, "INFO persistence").text();
        text.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap().to_string()
    };
    assert_eq!(field(&mut world, "rdb_changes_since_last_save"), "2000");
    world.run(conn, "BGSAVE");
    assert_eq!(field(&mut world, "rdb_bgsave_in_progress"), "1");
    world.run(conn, "FLUSHALL");
    world.finish_snapshot();
    assert_eq!(field(&mut world, "rdb_last_bgsave_status"), "ok");
    assert_ne!(field(&mut world, "rdb_changes_since_last_save"), "0");
    assert_eq!(world.disk().file, None);
    world.run(conn, "SET a 1");
    for _ in 0..9 {
        // More often than there are epochs.
        world.run(conn, "BGSAVE");
        world.run(conn, "DEBUG POPULATE 50 x");
        world.finish_snapshot();
    }
    assert_eq!(field(&mut world, "rdb_saves"), "9");
    world.run(conn, "DEBUG RELOAD NOSAVE");
    assert_eq!(world.run(conn, "DBSIZE").integer(), 51);
}

#[test]
fn a_disk_that_fails_at_any_write_leaves_the_last_file() {
    for fails in 0..12 {
        let mut world = World::with_config(2, &[("save", "3600 100")]);
        let conn = world.connect();
        world.run(conn, "SET good 1");
        world.run(conn, "SAVE");
        let good = world.disk().file.clone();
        world.run(conn, "DEBUG POPULATE 3000 key 200");
        world.disk().fails_after = Some(fails);
        world.run(conn, "BGSAVE");
        world.finish_snapshot();
        let status = world.run(conn, "INFO persistence").text();
        if status.contains("rdb_last_bgsave_status:ok") {
            assert!(fails > 4, "there are more writes than that");
            continue;
        }
        assert_eq!(world.disk().file, good);
        for line in ["SET a 1", "PING"] {
            assert!(world.run(conn, line).text().starts_with("MISCONF "), "{line}");
        }
        assert_eq!(world.run(conn, "GET good").text(), "1");
        let saved = world.run(conn, "SAVE");
        assert!(matches!(saved, Value::Error(_)), "{saved}");
        let shutdown = world.run(conn, "SHUTDOWN");
        assert_eq!(shutdown.to_string(), "-ERR Errors trying to SHUTDOWN. Check logs.");
        world.disk().fails_after = None;
        world.run(conn, "BGSAVE");
        world.finish_snapshot();
        assert_eq!(world.run(conn, "SET a 1").text(), "OK");
        assert_ne!(world.disk().file, good);
    }
}

#[test]
fn save_points_begin_snapshots() {
    let mut world = World::with_config(2, &[("save", "10 3")]);
    let conn = world.connect();
    world.run(conn, "MSET a 1 b 2 c 3");
    world.advance(5000);
    world.finish_snapshot();
    assert_eq!(world.disk().file, None);
    world.advance(6000);
    world.finish_snapshot();
    assert!(world.disk().file.is_some());
    assert_eq!(world.run(conn, "LASTSAVE").integer(), world.now_ms() / 1000);
}

#[test]
fn shutdown_saves_and_then_nothing_is_written_any_more() {
    for shards in [1, 3] {
        let mut world = World::new(shards);
        let (conn, other) = (world.connect(), world.connect());
        world.run(conn, "SET a 1");
        world.send(conn, b"SHUTDOWN SAVE\r\n");
        assert!(world.disk().file.is_some());
        assert!(world.call(other, &["SET", "a", "2"]).is_empty(), "it would be lost");
    }
}

#[test]
fn functions_are_part_of_the_data() {
    let mut t = Check::new();
    let code = "#!lua name=lib\nredis.register_function('f', function() return 7 end)";
    t.each(|world, conn| drop(world.call(conn, &["FUNCTION", "LOAD", code])));
    t.check("FCALL f 0", "7").check("SAVE", "OK").check("FUNCTION FLUSH", "OK");
    t.look("FCALL f 0", |v| assert!(matches!(v, Value::Error(_)), "{v}"));
    t.check("DEBUG RELOAD NOSAVE", "OK").check("FCALL f 0", "7");
    t.check("DEBUG RELOAD", "OK").check("FCALL f 0", "7").check("DEBUG RELOAD NOFLUSH MERGE", "OK");
}

#[test]
fn words_of_the_family() {
    let mut t = Check::new();
    t.check("BGSAVE NOW", "-ERR syntax error").check("LASTSAVE", "1700000000");
    t.check("DEBUG RELOAD WHAT", "-ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.");
    t.check("SAVE", "OK").check("BGSAVE SCHEDULE", "Background saving started");
    t.each(|world, _| world.finish_snapshot());
    t.check("MULTI", "OK").check("SET a 1", "QUEUED").check("BGSAVE", "QUEUED");
    t.check("EXEC", "[OK Background saving started]");
    t.each(|world, _| world.finish_snapshot());
    t.check("DEBUG RELOAD NOSAVE", "OK").check("GET a", "\"1\"");
}

/// Whoever has save points has no file that would bring back what was flushed.
#[test]
fn flushall_saves_where_there_are_save_points() {
    for shards in [1, 4] {
        let mut world = World::with_config(shards, &[("save", "3600 1")]);
        let conn = world.connect();
        for i in 0..20 {
            world.run(conn, &format!("SET key{i} v"));
        }
        world.run(conn, "SAVE");
        let holds = |world: &World| world.disk().file.as_deref().unwrap().windows(4).any(|bytes| bytes == b"key1");
        assert!(holds(&world));
        world.run(conn, "SET x y");
        world.log_effects();
        assert_eq!(world.run(conn, "FLUSHALL").to_string(), "OK");
        assert!(!holds(&world));
        assert!(world.run(conn, "INFO persistence").text().contains("rdb_changes_since_last_save:0\r\n"));
        assert!(world.effects().iter().any(|line| line.contains("FLUSHALL")));
        // Without save points nothing is written.
        world.run(conn, "CONFIG SET save ''");
        world.run(conn, "SET x y");
        world.run(conn, "SAVE");
        let before = world.disk().file.clone();
        world.run(conn, "FLUSHALL");
        assert_eq!(world.disk().file, before);
    }
}
