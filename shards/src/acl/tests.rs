//! Users through commands, on one shard and several.

use super::*;
use crate::testing::{Check, Conn, World};

/// A connection on the last shard, logged in as `name`.
fn user(world: &mut World, name: &str) -> Conn {
    let conn = world.connect_to(world.shards.len() as u16 - 1);
    assert_eq!(world.run(conn, &format!("AUTH {name} pw")).to_string(), "OK", "{name}");
    conn
}

/// Makes a user with these rules, and runs commands as that user.
#[track_caller]
fn as_user(rules: &str, commands: &[(&str, &str)]) {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let admin = world.connect();
        assert_eq!(world.run(admin, &format!("ACL SETUSER u on >pw {rules}")).to_string(), "OK");
        let conn = user(&mut world, "u");
        for (command, reply) in commands {
            assert_eq!(world.run(conn, command).folded().to_string(), *reply, "{command} on {shards} shard(s)");
        }
    }
}

/// Whether a user with these rules could run a command.
#[track_caller]
fn dry_run(rules: &str, commands: &[(&str, &str)]) {
    let mut t = Check::new();
    t.check(&format!("ACL SETUSER u on nopass {rules}"), "OK");
    for (command, reply) in commands {
        t.check(&format!("ACL DRYRUN u {command}"), reply);
    }
}

const KEY: &str = "-NOPERM No permissions to access a key";
const CHANNEL: &str = "-NOPERM No permissions to access a channel";
const WRONGPASS: &str = "-WRONGPASS invalid username-password pair or user is disabled.";

#[test]
fn users_are_made_shown_and_deleted() {
    let mut t = Check::new();
    t.check("ACL WHOAMI", "\"default\"").check("ACL USERS", "[\"default\"]");
    t.check("ACL LIST", "[\"user default on nopass sanitize-payload ~* &* +@all\"]");
    t.check("ACL SETUSER bob", "OK").check("ACL USERS", "[\"bob\" \"default\"]");
    t.look("ACL LIST", |v| {
        assert_eq!(v.items()[0].text(), "user bob off sanitize-payload resetchannels -@all");
    });
    t.check("ACL SETUSER bob on >a ~x %R~y %W~z %RW~w &c +get (~s +@read) allchannels", "OK");
    let digest = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
    t.look("ACL LIST", |v| {
        let expected = format!(
            "user bob on sanitize-payload #{digest} ~x %R~y %W~z ~w &* -@all +get (~s resetchannels -@all +@read)"
        );
        assert_eq!(v.items()[0].text(), expected);
    });
    t.types(
        "ACL GETUSER bob",
        &format!(
            "[\"flags\" [\"on\" \"sanitize-payload\"] \"passwords\" [\"{digest}\"] \"commands\" \"-@all +get\" \"keys\" \
             \"~x %R~y %W~z ~w\" \"channels\" \"&*\" \"selectors\" [[\"commands\" \"-@all +@read\" \"keys\" \"~s\" \
             \"channels\" \"\"]]]"
        ),
        &format!(
            "{{\"flags\": ~[\"on\" \"sanitize-payload\"], \"passwords\": [\"{digest}\"], \"commands\": \"-@all +get\", \
             \"keys\": \"~x %R~y %W~z ~w\", \"channels\": \"&*\", \"selectors\": [{{\"commands\": \"-@all +@read\", \
             \"keys\": \"~s\", \"channels\": \"\"}}]}}"
        ),
    );
    t.check("ACL SETUSER bob skip-sanitize-payload reset", "OK");
    t.look("ACL LIST", |v| {
        assert_eq!(v.items()[0].text(), "user bob off sanitize-payload resetchannels -@all");
    });
    t.check("ACL DELUSER bob nobody", "1").check("ACL GETUSER bob", "nil").check("ACL DELUSER bob", "0");
    t.check("ACL DELUSER default", "-ERR The 'default' user cannot be removed");
}

#[test]
fn rules_that_are_refused_change_nothing() {
    let mut t = Check::new();
    let modifier = |rule: &str, why: &str| format!("-ERR Error in ACL SETUSER modifier '{rule}': {why}");
    for (rules, rule, why) in [
        ("on foo", "foo", "Syntax error"),
        ("+nosuch", "+nosuch", "Unknown command or category name in ACL"),
        ("+@nosuch", "+@nosuch", "Unknown command or category name in ACL"),
        ("-get|key", "-get|key", "Unknown command or category name in ACL"),
        ("+config|nosuch", "+config|nosuch", "Unknown command or category name in ACL"),
        ("-debug|object", "-debug|object", "Unknown command or category name in ACL"),
        ("+config|get|x", "+config|get|x", "Allowing first-arg of a subcommand is not supported"),
        ("+select|", "+select|", "Syntax error"),
        ("<no", "<no", "The password you are trying to remove from the user does not exist"),
        ("%~x", "%~x", "Syntax error"),
        ("%RR~x", "%RR~x", "Syntax error"),
        ("%R", "%R", "Syntax error"),
        ("(foo)", "(foo)", "Syntax error"),
        (")", ")", "Syntax error"),
    ] {
        t.check(&format!("ACL SETUSER u {rules}"), &modifier(rule, why));
    }
    t.look("ACL SETUSER u ~* ~x", |v| {
        assert!(v.text().contains("Adding a pattern after the * pattern (or the 'allkeys'"))
    });
    t.look("ACL SETUSER u &* &x", |v| assert!(v.text().contains("'allchannels' flag) is not valid")));
    t.look("ACL SETUSER u #abc", |v| assert!(v.text().ends_with("only lowercase hexadecimal characters")));
    t.check("ACL SETUSER u (+get", "-ERR Unmatched parenthesis in acl selector starting at '(+get'.");
    t.check("ACL SETUSER \"a b\"", "-ERR Usernames can't contain spaces or null characters");
    t.check("ACL GETUSER u", "nil");
}

#[test]
fn rules_about_commands_are_kept_without_those_made_moot() {
    let mut t = Check::new();
    for (rules, kept) in [
        ("+@all -@hash -@slow +hget", "+@all -@hash -@slow +hget"),
        ("-@hash", "+@all -@slow +hget -@hash"),
        ("-@string -@slow +@all", "+@all"),
        ("-@all +@HASH +@hash +@HaSh", "-@all +@hash"),
        ("-@all +hget -hset +hset -hget", "-@all +hset -hget"),
        ("-@all +client|list +client|list +config|get +config +acl|list -acl", "-@all +client|list +config -acl"),
        ("-@all +select|0 +select|0 +debug|segfault +debug", "-@all +select|0 +debug"),
        ("-@all -@dangerous", "-@all -@dangerous"),
        ("-@all +get +getset -get", "-@all +getset -get"),
    ] {
        t.check(&format!("ACL SETUSER u {rules}"), "OK");
        t.look("ACL GETUSER u", |v| assert_eq!(v.get("commands").unwrap().text(), kept, "{rules}"));
    }
}

#[test]
fn passwords_log_in() {
    let mut t = Check::new();
    t.check(
        "AUTH x",
        "-ERR AUTH <password> called without any password configured for the default user. Are you sure \
                       your configuration is correct?",
    );
    t.check("ACL SETUSER u >one", "OK").check("AUTH u one", WRONGPASS).check("ACL SETUSER u on +@all", "OK");
    t.check("AUTH u two", WRONGPASS).check("AUTH u one", "OK").check("ACL WHOAMI", "\"u\"");
    t.check("ACL SETUSER u >two <one", "OK").check("AUTH u one", WRONGPASS).check("AUTH u two", "OK");
    let three = "8b5b9db0c13db24256c829aa364aa90c6d2eba318b9232a4ab9313b954d3555f";
    t.check(&format!("ACL SETUSER u #{three}"), "OK").check("AUTH u three", "OK");
    t.check(&format!("ACL SETUSER u !{three}"), "OK").check("AUTH u three", WRONGPASS);
    t.check("ACL SETUSER u nopass", "OK").check("AUTH u whatever", "OK");
    t.check("ACL SETUSER u resetpass", "OK").check("AUTH u whatever", WRONGPASS).check("AUTH nobody x", WRONGPASS);
    t.look("HELLO 2 AUTH u two", |v| assert!(v.text().starts_with("WRONGPASS")));
    t.look("INFO stats", |v| assert!(v.text().contains("acl_access_denied_auth:7\r\n"), "{}", v.text()));
}

#[test]
fn requirepass_is_the_default_users_password() {
    let mut t = Check::with_config(&[("requirepass", "secret")]);
    // The connections of this check were made before; they have to say who they are like any other.
    t.check("GET k", "-NOAUTH Authentication required.").check("AUTH wrong", WRONGPASS).check("AUTH secret", "OK");
    t.check("CONFIG SET requirepass other", "OK").check("GET k", "nil").check("AUTH secret", WRONGPASS);
    t.check("AUTH default other", "OK").check("CONFIG SET requirepass \"\"", "OK");
    t.each(|world, _| {
        let conn = world.connect();
        assert_eq!(world.run(conn, "GET k").to_string(), "nil");
    });
    t.check("ACL SETUSER default off", "OK").check("PING", "PONG");
    t.each(|world, _| {
        let conn = world.connect();
        assert_eq!(world.run(conn, "PING").to_string(), "-NOAUTH Authentication required.");
    });
    t.check("RESET", "RESET").check("PING", "-NOAUTH Authentication required.");
}

#[test]
fn commands_subcommands_and_first_arguments() {
    let no = |name: &str| format!("-NOPERM User u has no permissions to run the '{name}' command");
    as_user(
        "~* +@all -ping -client +client|id -config|set",
        &[
            ("GET k", "nil"),
            ("PING", &no("ping")),
            ("CLIENT GETNAME", &no("client|getname")),
            ("CONFIG SET hz 10", &no("config|set")),
            ("CONFIG GET nosuch", "[]"),
            ("NOSUCH", "-ERR unknown command 'NOSUCH', with args beginning with: "),
        ],
    );
    as_user(
        "~* -@all +@string +select|0 +debug|sleep -append",
        &[
            ("SET k v", "OK"),
            ("APPEND k v", &no("append")),
            ("DEL k", &no("del")),
            ("SELECT 0", "OK"),
            ("SELECT 1", &no("select")),
            ("DEBUG SLEEP 0", "OK"),
            ("DEBUG OBJECT k", &no("debug")),
            // These need no permission.
            ("AUTH u pw", "OK"),
            ("RESET", "RESET"),
        ],
    );
}

#[test]
fn keys_are_checked_through_every_specification() {
    dry_run(
        "+@all ~a* %R~r* %W~w*",
        &[
            ("GET a", "OK"),
            ("GET r", "OK"),
            ("GET w", "\"User u has no permissions to access the 'w' key\""),
            ("SET a 1", "OK"),
            ("SET w 1", "OK"),
            ("SET w 1 GET", "\"User u has no permissions to access the 'w' key\""),
            ("SET r 1", "\"User u has no permissions to access the 'r' key\""),
            ("MGET a a2 r", "OK"),
            ("MGET a x", "\"User u has no permissions to access the 'x' key\""),
            ("MSET a 1 x 2", "\"User u has no permissions to access the 'x' key\""),
            ("DEL a w", "OK"),
            ("DEL r", "\"User u has no permissions to access the 'r' key\""),
            ("COPY r w", "OK"),
            ("COPY w r", "\"User u has no permissions to access the 'w' key\""),
            ("COPY r r2", "\"User u has no permissions to access the 'r2' key\""),
            ("RENAME a w", "OK"),
            ("RENAME r w", "\"User u has no permissions to access the 'r' key\""),
            ("BITOP AND w r a", "OK"),
            ("BITOP AND r r a", "\"User u has no permissions to access the 'r' key\""),
            ("BITOP AND w w", "\"User u has no permissions to access the 'w' key\""),
            ("BITFIELD r GET u8 0", "OK"),
            ("BITFIELD r SET u8 0 1", "\"User u has no permissions to access the 'r' key\""),
            ("BITFIELD r nosuch", "\"User u has no permissions to access the 'r' key\""),
            ("SORT r STORE w", "OK"),
            ("SORT r STORE r2", "\"User u has no permissions to access the 'r2' key\""),
            ("SORT r STORE w STORE r2", "\"User u has no permissions to access the 'r2' key\""),
            ("ZUNIONSTORE w 2 r a", "OK"),
            ("ZUNIONSTORE w 2 r x", "\"User u has no permissions to access the 'x' key\""),
            ("LMPOP 2 a x LEFT", "\"User u has no permissions to access the 'x' key\""),
            ("GEORADIUS r 1 1 1 km STORE x", "\"User u has no permissions to access the 'x' key\""),
            ("XREAD STREAMS r x 0 0", "\"User u has no permissions to access the 'x' key\""),
            ("MIGRATE h 1 a 0 10", "OK"),
            ("MIGRATE h 1 r 0 10", "\"User u has no permissions to access the 'r' key\""),
            ("MIGRATE h 1 w 0 10 COPY", "\"User u has no permissions to access the 'w' key\""),
            ("MIGRATE h 1 \"\" 0 10 REPLACE KEYS a x", "\"User u has no permissions to access the 'x' key\""),
            // Whether a key is there may be asked by whoever may use it in any way: no flag asks for more.
            ("EXISTS r w", "OK"),
            ("GET", "-ERR wrong number of arguments for 'get' command"),
            ("NOSUCH", "-ERR Command 'NOSUCH' not found"),
            ("CONFIG NOSUCH", "-ERR Command 'CONFIG' not found"),
        ],
    );
    let mut t = Check::new();
    t.check("ACL DRYRUN nobody GET a", "-ERR User 'nobody' not found");
    // What COMMAND says of keys is what is checked.
    t.check("COMMAND GETKEYSANDFLAGS SET k v", "[[\"k\" [OW update]]]");
    t.check("COMMAND GETKEYSANDFLAGS SET k v GET", "[[\"k\" [RW access update]]]");
    t.check("COMMAND GETKEYSANDFLAGS SORT k STORE d", "[[\"k\" [RO access]] [\"d\" [OW update]]]");
}

#[test]
fn keys_are_checked_before_commands_run() {
    as_user(
        "+@all ~a:* %R~r:*",
        &[
            ("MSET a:1 1 a:2 2 b:1 3", KEY),
            ("MSET a:1 1 a:2 2", "OK"),
            ("MGET a:1 a:2 r:1", "[\"1\" \"2\" nil]"),
            ("RENAME a:1 b:1", KEY),
            ("RENAME a:1 a:3", "OK"),
            ("COPY a:3 r:1", KEY),
            ("EXISTS b:1 a:1", KEY),
            ("RPUSH a:l 1 2", "2"),
            ("LMOVE a:l b:l LEFT LEFT", KEY),
            ("SORT a:l BY w_* GET #", "-ERR BY option of SORT denied due to insufficient ACL permissions."),
            ("SORT a:l GET b:*", "-ERR GET option of SORT denied due to insufficient ACL permissions."),
            ("SORT_RO a:l BY nosort", "[\"1\" \"2\"]"),
            ("SORT a:l STORE b:l", KEY),
            ("SORT a:l", "[\"1\" \"2\"]"),
        ],
    );
    as_user("+@all ~a:* %R~*", &[("RPUSH a:l 1", "1"), ("SORT a:l BY w_* GET b:*", "[nil]")]);
}

#[test]
fn one_selector_must_allow_all_of_a_command() {
    as_user(
        "-@all (+@read %R~r*) (+@write %W~w* ~a) clearselectors (+@read %R~r*) (+@write %W~w* ~a)",
        &[
            ("GET r", "nil"),
            ("DEL w", "0"),
            ("GET w", KEY),
            ("COPY r w", KEY),
            ("PING", "-NOPERM User u has no permissions to run the 'ping' command"),
        ],
    );
}

#[test]
fn channels_are_checked() {
    as_user(
        "+@all resetchannels &c:1 &p:*",
        &[
            ("PUBLISH c:1 m", "0"),
            ("PUBLISH p:any m", "0"),
            ("PUBLISH c:2 m", CHANNEL),
            ("SPUBLISH c:2 m", CHANNEL),
            ("SUBSCRIBE c:2", CHANNEL),
            ("SUBSCRIBE c:1 c:2", CHANNEL),
            ("SSUBSCRIBE c:2", CHANNEL),
            // A pattern is allowed as it stands, not for what it matches.
            ("PSUBSCRIBE p:1", CHANNEL),
            ("PSUBSCRIBE p:*", "[\"psubscribe\" \"p:*\" 1]"),
            ("PUNSUBSCRIBE x", "[\"punsubscribe\" \"x\" 1]"),
        ],
    );
    let mut t = Check::with_config(&[("acl-pubsub-default", "allchannels")]);
    t.check("ACL SETUSER u", "OK").look("ACL GETUSER u", |v| assert_eq!(v.get("channels").unwrap().text(), "&*"));
    t.check("CONFIG SET acl-pubsub-default resetchannels", "OK").check("ACL SETUSER v", "OK");
    t.look("ACL GETUSER v", |v| assert_eq!(v.get("channels").unwrap().text(), ""));
}

#[test]
fn a_change_counts_at_once_in_multi_too() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let admin = world.connect();
        world.run(admin, "ACL SETUSER u on >pw +@all ~a*");
        let conn = user(&mut world, "u");
        world.run(conn, "MULTI");
        assert_eq!(world.run(conn, "SET b 1").to_string(), KEY);
        assert!(world.run(conn, "EXEC").text().starts_with("EXECABORT"));
        for line in ["MULTI", "SET a1 1", "INCR a2", "GET a3"] {
            world.run(conn, line);
        }
        world.run(admin, "ACL SETUSER u -incr");
        let replies = world.run(conn, "EXEC").items();
        assert_eq!(replies[0].to_string(), "OK");
        assert_eq!(
            replies[1].to_string(),
            "-NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This \
             command is no longer allowed for the following reason: no permission to execute the command or subcommand"
        );
        assert_eq!(replies[2].to_string(), "nil");
        let entry = &world.run(admin, "ACL LOG 1").items()[0];
        assert_eq!(entry.get("context").unwrap().text(), "multi");
        assert_eq!(entry.get("object").unwrap().text(), "incr");
        assert!(entry.get("client-info").unwrap().text().contains(" cmd=exec user=u "));
        world.run(admin, "ACL SETUSER u allkeys allchannels +@all");
        assert_eq!(world.run(conn, "INCR b").to_string(), "1");
    }
}

#[test]
fn a_command_that_waited_is_checked_again() {
    for shards in [1, 4] {
        for keys in ["l", "l m n o p q"] {
            let mut world = World::new(shards);
            let admin = world.connect();
            world.run(admin, "ACL SETUSER u on >pw +@all ~*");
            let conn = user(&mut world, "u");
            world.send(conn, format!("BLPOP {keys} 0\r\n").as_bytes());
            world.run(admin, "ACL SETUSER u resetkeys");
            assert_eq!(world.received(conn), b"");
            world.run(admin, "RPUSH l x");
            assert_eq!(world.received(conn), b"-NOPERM No permissions to access a key\r\n", "{keys} on {shards}");
            assert_eq!(world.run(admin, "LLEN l").to_string(), "1");
            assert_eq!(world.run(conn, "PING").to_string(), "PONG");
            let entry = &world.run(admin, "ACL LOG").items()[0];
            assert_eq!(entry.get("object").unwrap().text(), "l");
            assert!(entry.get("client-info").unwrap().text().contains("user=u "));
        }
    }
}

#[test]
fn clients_of_users_that_go_are_closed() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let admin = world.connect();
        world.run(admin, "ACL SETUSER u on >pw +@all ~* &*");
        let (doomed, own) = (user(&mut world, "u"), user(&mut world, "u"));
        assert_eq!(world.run(admin, "CLIENT KILL USER nobody").to_string(), "-ERR No such user 'nobody'");
        assert!(world.run(admin, "CLIENT LIST").text().contains(" user=u "));
        // Who deletes itself is answered first.
        assert_eq!(world.run(own, "ACL DELUSER u").to_string(), "1");
        world.cron();
        assert!(!world.is_open(own) && !world.is_open(doomed) && world.is_open(admin));
        // A user by the same name is another one.
        world.run(admin, "ACL SETUSER u on >pw +@all");
        let conn = user(&mut world, "u");
        assert_eq!(world.run(admin, "CLIENT KILL USER u").to_string(), "1");
        assert!(!world.is_open(conn));
    }
}

#[test]
fn subscribers_stay_while_they_may() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let admin = world.connect();
        world.run(admin, "ACL SETUSER u on >pw +@all resetchannels &a &b:* &s");
        let conn = user(&mut world, "u");
        world.send(conn, b"SUBSCRIBE a\r\nPSUBSCRIBE b:*\r\nSSUBSCRIBE s\r\n");
        for rules in ["&c", "allchannels", "resetchannels &a &b:* &s"] {
            world.run(admin, &format!("ACL SETUSER u {rules}"));
            world.cron();
            assert!(world.is_open(conn), "{rules}");
        }
        world.run(admin, "ACL SETUSER u resetchannels &a &b:1 &s");
        world.cron();
        assert!(!world.is_open(conn));
    }
}

#[test]
fn the_log_groups_what_is_alike() {
    for shards in [1, 4] {
        let mut world = World::new(shards);
        let admin = world.connect();
        world.run(admin, "ACL SETUSER u on >pw +@all -get ~a");
        let conn = user(&mut world, "u");
        for line in ["GET a", "GET a", "SET k v", "PUBLISH ch m", "AUTH u wrong"] {
            world.run(conn, line);
        }
        let entries = world.run(admin, "ACL LOG").items();
        let told: Vec<String> = entries
            .iter()
            .map(|e| {
                let words = ["reason", "object", "username", "count"].map(|name| e.get(name).unwrap().text());
                words.join(" ")
            })
            .collect();
        assert_eq!(told, ["auth AUTH u 1", "channel ch u 1", "key k u 1", "command get u 2"]);
        let ids: Vec<i64> = entries.iter().map(|e| e.get("entry-id").unwrap().integer()).collect();
        assert_eq!(ids, [3, 2, 1, 0]);
        assert!(entries[3].get("client-info").unwrap().text().contains(" cmd=get user=u "));
        world.advance(1500);
        assert_eq!(world.run(admin, "ACL LOG 1").items()[0].get("age-seconds").unwrap().text(), "1.5");
        assert_eq!(world.run(admin, "ACL LOG -1").items().len(), 0);
        // After a minute it is another story.
        world.advance(60_000);
        world.run(conn, "GET a");
        assert_eq!(world.run(admin, "ACL LOG").items().len(), 5);
        world.run(admin, "CONFIG SET acllog-max-len 2");
        world.run(conn, "GET a");
        assert_eq!(world.run(admin, "ACL LOG").items().len(), 2);
        let info = world.run(admin, "INFO stats").text();
        for line in ["auth:1", "cmd:4", "key:1", "channel:1"] {
            assert!(info.contains(&format!("acl_access_denied_{line}\r\n")), "{line}: {info}");
        }
        assert_eq!(world.run(admin, "ACL LOG RESET").to_string(), "OK");
        assert_eq!(world.run(admin, "ACL LOG").to_string(), "[]");
    }
}

#[test]
fn scripts_do_what_their_callers_may() {
    as_user(
        "+@all -incr ~a*",
        &[
            ("EVAL \"return redis.call('set', KEYS[1], 'v')\" 1 a", "OK"),
            ("EVAL \"return redis.call('get', KEYS[1])\" 1 b", KEY),
            (
                "EVAL \"return redis.pcall('get', 'b').err\" 1 a",
                "\"NOPERM ACL failure in script: No permissions to access a key\"",
            ),
            (
                "EVAL \"return redis.pcall('incr', KEYS[1]).err\" 1 a",
                "\"NOPERM ACL failure in script: User u has no permissions to run the 'incr' command\"",
            ),
            ("EVAL \"return {redis.acl_check_cmd('get', 'a'), redis.acl_check_cmd('get', 'b')}\" 1 a", "[1 nil]"),
            ("EVAL \"return redis.acl_check_cmd('sort')\" 1 a", "1"),
        ],
    );
}

#[test]
fn a_file_of_users_is_saved_and_loaded() {
    for shards in [1, 4] {
        let mut world = World::with_config(shards, &[("aclfile", "users.acl")]);
        let admin = world.connect();
        for name in ["u", "v", "w"] {
            world.run(admin, &format!("ACL SETUSER {name} on >pw +@all ~* resetchannels &c"));
        }
        assert_eq!(world.run(admin, "ACL SAVE").to_string(), "OK");
        let saved = world.host.aclfile.lock().unwrap().clone();
        let list = world.run(admin, "ACL LIST");
        world.run(admin, "ACL SETUSER gone on >pw +@all");
        world.run(admin, "ACL SETUSER u &d");
        let [kept, gone, loses] = [("v", "c"), ("gone", ""), ("u", "d")].map(|(name, channel)| {
            let conn = user(&mut world, name);
            if !channel.is_empty() {
                world.send(conn, format!("SUBSCRIBE {channel}\r\n").as_bytes());
                world.received(conn);
            }
            conn
        });
        assert_eq!(world.run(admin, "ACL LOAD").to_string(), "OK");
        world.cron();
        assert!(world.is_open(kept) && !world.is_open(gone) && !world.is_open(loses));
        assert_eq!(world.run(admin, "ACL LIST"), list);
        // Who loads a file that it is not in is answered first.
        world.run(admin, "ACL SETUSER gone on >pw +@all");
        let gone = user(&mut world, "gone");
        assert_eq!(world.run(gone, "ACL LOAD").to_string(), "OK");
        world.cron();
        assert!(!world.is_open(gone));
        for (text, error) in [
            ("usr u on\n", "users.acl:1 should start with user keyword followed by the username. "),
            ("\nuser a on\nuser a on\n", "WARNING: Duplicate user 'a' found on line 3. "),
            (
                "user a +nosuch\nuser b zzz yyy",
                "users.acl:1: Error in applying operation '+nosuch': Unknown command or category name in ACL. \
                 users.acl:2: Syntax error. ",
            ),
        ] {
            *world.host.aclfile.lock().unwrap() = text.into();
            let reply = world.run(admin, "ACL LOAD").text();
            let end = "WARNING: ACL errors detected, no change to the previously active ACL rules was performed";
            assert_eq!(reply, format!("ERR {error}{end}"));
            assert_eq!(world.run(admin, "ACL LIST"), list);
        }
        *world.host.aclfile.lock().unwrap() = saved;
        world.run(admin, "MULTI");
        assert_eq!(world.run(admin, "ACL LOAD").text(), "ERR Command not allowed inside a transaction");
    }
    Check::new().look("ACL LOAD", |v| assert!(v.text().contains("not configured to use an ACL file")));
}

#[test]
fn users_of_the_start() {
    let config = |text: &str| {
        let mut config = Config::default();
        let mut files = crate::config::file::tests::NoFiles;
        crate::config::file::load(&mut config, text.as_bytes(), &mut files).unwrap();
        config
    };
    let with = config("requirepass x\nuser bob on >pw ( ~a +get ) +ping\nuser default on nopass +@all ~k\n");
    file::check_lines(&with).unwrap();
    let users = Users::at_start(&with, None).unwrap();
    let lines: Vec<String> = users.lines().into_iter().map(|line| String::from_utf8(line).unwrap()).collect();
    assert!(lines[0].ends_with("resetchannels -@all +ping (~a resetchannels -@all +get)"), "{lines:?}");
    assert_eq!(lines[1], "default on nopass sanitize-payload ~k resetchannels +@all");
    assert_eq!(users.default_user().id, DEFAULT);
    assert!(Users::at_start(&with, Some(b"")).unwrap_err().contains("one of the two places"));
    for (text, error) in [
        ("user a on\nuser a off", "Error in user declaration 'a': Duplicate user found."),
        ("user a zzz", "Error in user declaration 'zzz': Syntax error"),
        ("user a (on", "Error in user declaration '(on': Unmatched parenthesis"),
    ] {
        let shown = file::check_lines(&config(text)).unwrap_err().to_string();
        assert!(shown.contains(error), "{shown}");
    }
    // Which commands there are is known only when the server starts.
    let unknown = config("user a +nosuch");
    file::check_lines(&unknown).unwrap();
    assert!(Users::at_start(&unknown, None).unwrap_err().contains("Error loading ACL rule '+nosuch'"));
}

#[test]
fn small_forms() {
    let mut t = Check::new();
    t.look("ACL CAT", |v| assert_eq!(v.items().len(), 21));
    t.look("ACL CAT Transaction", |v| assert!(v.to_string().contains("\"multi\"")));
    t.look("ACL CAT dangerous", |v| {
        assert!(v.to_string().contains("\"acl|setuser\"") && !v.to_string().contains("debug|"));
    });
    t.check("ACL CAT nosuch", "-ERR Unknown category 'nosuch'");
    t.check("ACL CAT a b", "-ERR unknown subcommand or wrong number of arguments for 'CAT'. Try ACL HELP.");
    t.look("ACL GENPASS", |v| assert_eq!(v.text().len(), 64)).look("ACL GENPASS 5", |v| assert_eq!(v.text().len(), 2));
    for bits in ["0", "-236", "5000"] {
        t.look(&format!("ACL GENPASS {bits}"), |v| assert!(v.text().contains("up to 4096"), "{bits}"));
    }
    t.look("ACL HELP", |v| assert!(v.items().len() > 20));
    t.check("ACL HELP x", "-ERR wrong number of arguments for 'acl|help' command");
}

#[test]
fn digests_do_not_reach_the_slow_log() {
    let mut t = Check::with_config(&[("slowlog-log-slower-than", "0")]);
    t.check("ACL SETUSER u >secret", "OK");
    t.look("SLOWLOG GET 1", |v| {
        assert_eq!(v.items()[0].items()[3].to_string(), "[\"ACL\" \"SETUSER\" \"(redacted)\" \"(redacted)\"]");
    });
}
