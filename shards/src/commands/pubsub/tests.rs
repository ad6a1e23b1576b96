//! Publish and subscribe: one shard and four, both protocols.

use crate::testing::{Check, Conn, Value, World, request};

/// Everything that came on a connection, in the notation of tests.
fn heard(world: &mut World, conn: Conn) -> Vec<String> {
    Value::parse_all(&world.received(conn)).iter().map(Value::to_string).collect()
}

fn tell(world: &mut World, conn: Conn, line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split(' ').collect();
    world.send(conn, &request(&words));
    heard(world, conn)
}

#[test]
fn messages_reach_subscribers_on_every_shard() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let publisher = world.connect();
        let listeners: Vec<Conn> = (0..8).map(|_| world.connect()).collect();
        for (i, listener) in listeners.iter().enumerate() {
            if i % 2 == 1 {
                world.run(*listener, "HELLO 3");
            }
            let confirmed = tell(&mut world, *listener, "SUBSCRIBE news sport");
            let head = if i % 2 == 1 { ">" } else { "" };
            let expected = [r#"["subscribe" "news" 1]"#, r#"["subscribe" "sport" 2]"#];
            assert_eq!(confirmed, expected.map(|text| format!("{head}{text}")));
        }
        assert_eq!(tell(&mut world, publisher, "PUBLISH news hello"), ["8"]);
        assert_eq!(tell(&mut world, publisher, "PUBLISH none hello"), ["0"]);
        world.end_turns();
        for (i, listener) in listeners.iter().enumerate() {
            let head = if i % 2 == 1 { ">" } else { "" };
            assert_eq!(heard(&mut world, *listener), [format!(r#"{head}["message" "news" "hello"]"#)]);
        }
        assert_eq!(tell(&mut world, publisher, "PUBSUB NUMSUB news sport none"), [r#"["news" 8 "sport" 8 "none" 0]"#]);
        for listener in &listeners[..3] {
            world.disconnect(*listener);
        }
        assert_eq!(tell(&mut world, publisher, "PUBLISH news bye"), ["5"]);
        assert_eq!(
            tell(&mut world, listeners[4], "UNSUBSCRIBE news"),
            [r#"["message" "news" "bye"]"#, r#"["unsubscribe" "news" 1]"#]
        );
        assert_eq!(tell(&mut world, publisher, "PUBLISH news end"), ["4"]);
        assert!(heard(&mut world, listeners[4]).is_empty());
        world.disconnect(listeners[5]);
        listeners.iter().for_each(|listener| world.disconnect(*listener));
        assert_eq!(tell(&mut world, publisher, "PUBSUB CHANNELS"), ["[]"]);
        assert!(world.shared.registry.is_empty());
    }
}

#[test]
fn patterns_match_and_count_apart() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let (publisher, a, b) = (world.connect(), world.connect(), world.connect());
        assert_eq!(
            tell(&mut world, a, "PSUBSCRIBE foo.* foo.b*"),
            [r#"["psubscribe" "foo.*" 1]"#, r#"["psubscribe" "foo.b*" 2]"#]
        );
        assert_eq!(tell(&mut world, a, "SUBSCRIBE foo.bar"), [r#"["subscribe" "foo.bar" 3]"#]);
        assert_eq!(tell(&mut world, b, "PSUBSCRIBE foo.*"), [r#"["psubscribe" "foo.*" 1]"#]);
        assert_eq!(tell(&mut world, publisher, "PUBLISH foo.bar x"), ["4"]);
        assert_eq!(
            heard(&mut world, a),
            [
                r#"["message" "foo.bar" "x"]"#,
                r#"["pmessage" "foo.*" "foo.bar" "x"]"#,
                r#"["pmessage" "foo.b*" "foo.bar" "x"]"#
            ]
        );
        assert_eq!(heard(&mut world, b), [r#"["pmessage" "foo.*" "foo.bar" "x"]"#]);
        assert_eq!(tell(&mut world, publisher, "PUBSUB NUMPAT"), ["2"]);
        assert_eq!(tell(&mut world, publisher, "PUBSUB CHANNELS f*"), [r#"["foo.bar"]"#]);
        assert_eq!(tell(&mut world, publisher, "PUBSUB CHANNELS g*"), ["[]"]);
        let text = world.run(publisher, "INFO").text();
        for line in ["pubsub_channels:1", "pubsub_patterns:2", "pubsubshard_channels:0", "pubsub_clients:2"] {
            assert!(text.contains(&format!("{line}\r\n")), "{line}");
        }
        let text = world.run(publisher, "CLIENT LIST TYPE pubsub").text();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("flags=P db=0 sub=1 psub=2 ssub=0 "), "{text}");
        assert_eq!(
            tell(&mut world, a, "PUNSUBSCRIBE"),
            [r#"["punsubscribe" "foo.*" 2]"#, r#"["punsubscribe" "foo.b*" 1]"#]
        );
        assert_eq!(tell(&mut world, a, "PUNSUBSCRIBE"), [r#"["punsubscribe" nil 1]"#]);
        assert_eq!(tell(&mut world, publisher, "CLIENT KILL TYPE pubsub"), ["2"]);
        assert!(!world.is_open(a) && !world.is_open(b) && world.is_open(publisher));
        assert!(world.shared.registry.is_empty());
    }
}

#[test]
fn sharded_channels_are_names_of_their_own() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let (publisher, a) = (world.connect(), world.connect());
        assert_eq!(tell(&mut world, a, "SUBSCRIBE c"), [r#"["subscribe" "c" 1]"#]);
        assert_eq!(tell(&mut world, a, "SSUBSCRIBE c d"), [r#"["ssubscribe" "c" 1]"#, r#"["ssubscribe" "d" 2]"#]);
        assert_eq!(tell(&mut world, publisher, "SPUBLISH c sharded"), ["1"]);
        assert_eq!(tell(&mut world, publisher, "PUBLISH c plain"), ["1"]);
        assert_eq!(heard(&mut world, a), [r#"["smessage" "c" "sharded"]"#, r#"["message" "c" "plain"]"#]);
        assert_eq!(tell(&mut world, publisher, "PUBSUB SHARDCHANNELS"), [r#"["c" "d"]"#]);
        assert_eq!(tell(&mut world, publisher, "PUBSUB SHARDNUMSUB c e"), [r#"["c" 1 "e" 0]"#]);
        assert_eq!(tell(&mut world, a, "SUNSUBSCRIBE"), [r#"["sunsubscribe" "c" 1]"#, r#"["sunsubscribe" "d" 0]"#]);
        assert_eq!(tell(&mut world, a, "SUNSUBSCRIBE"), [r#"["sunsubscribe" nil 0]"#]);
        assert_eq!(tell(&mut world, a, "UNSUBSCRIBE c"), [r#"["unsubscribe" "c" 0]"#]);
        // Free again.
        assert_eq!(tell(&mut world, a, "GET k"), ["nil"]);
        assert_eq!(
            tell(&mut world, publisher, "COMMAND GETKEYS SPUBLISH c m"),
            ["-ERR The command has no key arguments"]
        );
    }
}

#[test]
fn a_subscribed_client_may_say_little_in_resp2() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let conn = world.connect();
        tell(&mut world, conn, "SUBSCRIBE c");
        let refused = "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
                       allowed in this context";
        assert_eq!(tell(&mut world, conn, "GET k"), [refused]);
        let refused = refused.replace("'get'", "'client|id'");
        assert_eq!(tell(&mut world, conn, "CLIENT ID"), [refused]);
        assert_eq!(tell(&mut world, conn, "PING"), [r#"["pong" ""]"#]);
        assert_eq!(tell(&mut world, conn, "PING x"), [r#"["pong" "x"]"#]);
        assert_eq!(tell(&mut world, conn, "RESET"), ["RESET"]);
        assert!(world.shared.registry.is_empty());
        assert_eq!(tell(&mut world, conn, "PING"), ["PONG"]);
        assert_eq!(tell(&mut world, conn, "UNSUBSCRIBE"), [r#"["unsubscribe" nil 0]"#]);
        // RESP3 tells messages from replies, so everything is allowed.
        world.run(conn, "HELLO 3");
        tell(&mut world, conn, "SUBSCRIBE c");
        assert_eq!(tell(&mut world, conn, "SET k v"), ["OK"]);
        assert_eq!(tell(&mut world, conn, "PING"), ["PONG"]);
        assert_eq!(tell(&mut world, conn, "PUBLISH c m"), ["1", r#">["message" "c" "m"]"#]);
    }
}

#[test]
fn what_a_transaction_publishes_comes_behind_its_reply() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let (conn, other) = (world.connect(), world.connect());
        world.run(conn, "HELLO 3");
        tell(&mut world, conn, "SUBSCRIBE foo bar baz");
        tell(&mut world, other, "SUBSCRIBE foo");
        for line in ["MULTI", "SET a 1", "SET b 2", "PUBLISH foo bar", "PUBLISH foo vaz", "UNSUBSCRIBE bar", "PING"] {
            tell(&mut world, conn, line);
        }
        assert_eq!(
            tell(&mut world, conn, "EXEC"),
            [
                r#"[OK OK 2 2 >["unsubscribe" "bar" 2] PONG]"#,
                r#">["message" "foo" "bar"]"#,
                r#">["message" "foo" "vaz"]"#
            ]
        );
        assert_eq!(heard(&mut world, other), [r#"["message" "foo" "bar"]"#, r#"["message" "foo" "vaz"]"#]);
    }
}

/// A message must not pass a write that stands before it in its pipeline, wherever the key lies.
#[test]
fn a_message_comes_after_the_writes_before_it() {
    let mut world = World::new(4);
    let (publisher, listener) = (world.connect(), world.connect());
    tell(&mut world, listener, "SUBSCRIBE c");
    for i in 0..20 {
        let mut bytes = request(&["SET", &format!("key:{i}"), "new"]);
        bytes.extend(request(&["PUBLISH", "c", &i.to_string()]));
        bytes.extend(request(&["SET", &format!("key:{i}"), "newer"]));
        world.send(publisher, &bytes);
        assert_eq!(heard(&mut world, publisher), ["OK", "1", "OK"]);
        assert_eq!(heard(&mut world, listener), [format!(r#"["message" "c" "{i}"]"#)]);
    }
}

/// A client that waits for keys in RESP3 still hears messages; one that awaits a reply hears them behind it.
#[test]
fn a_client_that_waits_for_keys_hears_messages() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let (publisher, listener) = (world.connect(), world.connect());
        world.run(listener, "HELLO 3");
        tell(&mut world, listener, "SUBSCRIBE c");
        for keys in ["list", "list list2 list3 list4"] {
            assert!(tell(&mut world, listener, &format!("BLPOP {keys} 0")).is_empty());
            assert_eq!(tell(&mut world, publisher, "PUBLISH c m"), ["1"]);
            assert_eq!(heard(&mut world, listener), [r#">["message" "c" "m"]"#]);
            tell(&mut world, publisher, "LPUSH list x");
            assert_eq!(heard(&mut world, listener), [r#"["list" "x"]"#]);
        }
    }
}

#[test]
fn a_subscriber_that_does_not_read_is_cut_off() {
    for shards in [1, 2] {
        let mut world = World::with_config(shards, &[("client-output-buffer-limit", "pubsub 100kb 0 0")]);
        let (publisher, listener) = (world.connect(), world.connect());
        tell(&mut world, listener, "SUBSCRIBE c");
        let payload = "x".repeat(60_000);
        assert_eq!(tell(&mut world, publisher, &format!("PUBLISH c {payload}")), ["1"]);
        assert!(world.is_open(listener));
        let two: Vec<u8> = [request(&["PUBLISH", "c", &payload]), request(&["PUBLISH", "c", &payload])].concat();
        world.send(publisher, &two);
        assert!(!world.is_open(listener));
        world.received(publisher);
        assert_eq!(tell(&mut world, publisher, "PUBLISH c m"), ["0"]);
    }
}

#[test]
fn keyspace_events_are_published() {
    for shards in [1, 4] {
        let mut world = World::with_config(shards, &[("notify-keyspace-events", "KEA")]);
        let (writer, listener) = (world.connect(), world.connect());
        tell(&mut world, listener, "PSUBSCRIBE __key*");
        let events = |world: &mut World, line: &str| {
            world.run(writer, line);
            let heard = Value::parse_all(&world.received(listener));
            let texts = heard.iter().map(|message| {
                let words = message.items();
                format!("{} {}", words[2].text(), words[3].text())
            });
            texts.collect::<Vec<_>>()
        };
        assert_eq!(
            events(&mut world, "SET a 1 PX 50"),
            ["__keyspace@0__:a set", "__keyevent@0__:set a", "__keyspace@0__:a expire", "__keyevent@0__:expire a"]
        );
        assert_eq!(events(&mut world, "LPUSH l x"), ["__keyspace@0__:l lpush", "__keyevent@0__:lpush l"]);
        assert_eq!(
            events(&mut world, "RENAME l m"),
            [
                "__keyspace@0__:l rename_from",
                "__keyevent@0__:rename_from l",
                "__keyspace@0__:m rename_to",
                "__keyevent@0__:rename_to m"
            ]
        );
        assert!(events(&mut world, "GET nosuch").is_empty());
        world.advance(51);
        assert_eq!(events(&mut world, "GET a"), ["__keyspace@0__:a expired", "__keyevent@0__:expired a"]);
        assert!(events(&mut world, "CONFIG SET notify-keyspace-events Enm").is_empty());
        assert_eq!(events(&mut world, "SET n 1"), ["__keyevent@0__:new n"]);
        assert!(events(&mut world, "SET n 2").is_empty());
        assert_eq!(events(&mut world, "GET nosuch"), ["__keyevent@0__:keymiss nosuch"]);
        assert!(events(&mut world, "CONFIG SET notify-keyspace-events KEl").is_empty());
        assert!(events(&mut world, "SET n 3").is_empty());
        assert!(events(&mut world, "CONFIG SET notify-keyspace-events \"\"").is_empty());
        assert!(events(&mut world, "LPUSH l y").is_empty());
    }
}

#[test]
fn what_is_asked_wrongly() {
    let mut t = Check::new();
    t.check("PUBLISH c", "-ERR wrong number of arguments for 'publish' command");
    t.check("SUBSCRIBE", "-ERR wrong number of arguments for 'subscribe' command");
    t.check("PUBSUB", "-ERR wrong number of arguments for 'pubsub' command");
    t.check("PUBSUB FOO", "-ERR unknown subcommand 'FOO'. Try PUBSUB HELP.");
    t.check("PUBSUB NUMSUB", "[]").check("PUBSUB NUMPAT", "0").check("SPUBLISH c m", "0");
    let text = "-ERR unknown subcommand or wrong number of arguments for 'CHANNELS'. Try PUBSUB HELP.";
    t.check("PUBSUB CHANNELS a b", text);
    t.look("PUBSUB HELP", |v| assert!(v.items().len() > 10));
}

#[test]
fn messages_to_many_wait_for_more_while_a_round_of_sends_is_recent() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let publisher = world.connect();
        let listeners: Vec<Conn> = (0..24 * shards).map(|_| world.connect()).collect();
        for listener in &listeners {
            world.run(*listener, "HELLO 3");
            world.run(*listener, "SUBSCRIBE news");
        }
        let all = |world: &mut World| {
            world.end_turns();
            let mut heard: Vec<_> = listeners[2..].iter().map(|listener| heard(world, *listener)).collect();
            heard.dedup();
            assert_eq!(heard.len(), 1, "all hear the same");
            heard.remove(0)
        };
        let message = |text: &str| format!(r#">["message" "news" "{text}"]"#);
        let receivers = listeners.len().to_string();
        assert_eq!(tell(&mut world, publisher, "PUBLISH news one"), [&*receivers]);
        assert_eq!(all(&mut world), [message("one")], "nothing is waited for when none came before");
        // The round took 3 ms, so the next comes 6 ms later at the earliest.
        world.advance(3);
        world.end_turns();
        assert_eq!(tell(&mut world, publisher, "PUBLISH news two"), [&*receivers], "the publisher does not wait");
        assert_eq!(tell(&mut world, publisher, "PUBLISH news three"), [&*receivers]);
        assert_eq!(all(&mut world), [""; 0]);
        // A reply goes with the messages before it; who leaves is not waited for, nor who comes in its place.
        assert_eq!(heard(&mut world, listeners[0]).len(), 1);
        assert_eq!(tell(&mut world, listeners[0], "PING"), [message("two"), message("three"), "PONG".to_string()]);
        world.disconnect(listeners[1]);
        let newcomer = world.connect();
        world.advance(5);
        assert_eq!(all(&mut world), [""; 0]);
        world.advance(1);
        assert_eq!(all(&mut world), [message("two"), message("three")]);
        assert_eq!(heard(&mut world, listeners[0]), [""; 0], "it has them");
        assert_eq!(heard(&mut world, newcomer), [""; 0]);
        // What fills a buffer by itself does not wait.
        world.advance(3);
        world.end_turns();
        let long = "x".repeat(16 * 1024);
        tell(&mut world, publisher, &format!("PUBLISH news {long}"));
        assert_eq!(all(&mut world), [message(&long)]);
    }
}
