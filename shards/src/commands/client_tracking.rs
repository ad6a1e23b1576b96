//! `CLIENT TRACKING` and what belongs to it; see [`crate::tracking`] for how it works.

use std::collections::BTreeSet;

use super::{Command, CommandError, CommandResult, Group, flag};
use crate::args::Args;
use crate::message::{Answer, Question};
use crate::number::parse_i64;
use crate::shard::Shard;
use crate::tracking::Tracking;

use flag::*;

const CONNECTION: Group = Group::Connection;
const CLIENT: u32 = NOSCRIPT | LOADING | STALE;

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::gather("client|tracking", tracking_question, client_tracking, -3, CLIENT, CONNECTION).doc(
        "6.0.0",
        "O(1). Some options may introduce additional complexity.",
        "Turns notices about keys that the connection has read on or off.",
        "<ON | OFF> [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]",
    ),
    Command::home("client|caching", client_caching, 3, CLIENT, CONNECTION).doc(
        "6.0.0",
        "O(1)",
        "Says whether the next command's keys are tracked.",
        "<YES | NO>",
    ),
    Command::home("client|getredir", client_getredir, 2, CLIENT, CONNECTION).doc(
        "6.0.0",
        "O(1)",
        "Returns where tracking notices go.",
        "",
    ),
    Command::home("client|trackinginfo", client_trackinginfo, 2, CLIENT, CONNECTION).doc(
        "6.2.0",
        "O(1)",
        "Describes the connection's tracking.",
        "",
    ),
];

/// The options of `CLIENT TRACKING`: how to track, the prefixes in the order given, and the client to redirect to.
struct Options<'a> {
    how: Tracking,
    prefixes: Vec<&'a [u8]>,
    redirect: Option<i64>,
}

fn options(args: Args<'_>) -> Result<Options<'_>, CommandError> {
    let mut options = Options { how: Tracking::default(), prefixes: Vec::new(), redirect: None };
    let mut i = 3;
    while i < args.len() {
        let more = i + 1 < args.len();
        if args.is(i, "redirect") && more {
            if options.redirect.is_some_and(|id| id != 0) {
                return Err("ERR A client can only redirect to a single other client".into());
            }
            i += 1;
            options.redirect = Some(parse_i64(args.at(i)).ok_or(CommandError::NotInteger)?);
        } else if args.is(i, "bcast") {
            options.how.bcast = true;
        } else if args.is(i, "optin") {
            options.how.optin = true;
        } else if args.is(i, "optout") {
            options.how.optout = true;
        } else if args.is(i, "noloop") {
            options.how.noloop = true;
        } else if args.is(i, "prefix") && more {
            i += 1;
            options.prefixes.push(args.at(i));
        } else {
            return Err(CommandError::Syntax);
        }
        i += 1;
    }
    Ok(options)
}

fn tracking_question(args: Args<'_>) -> Option<Question> {
    // Ids are positive; no other is anyone's.
    let redirect = options(args).ok()?.redirect?;
    u64::try_from(redirect).ok().map(Question::Find)
}

fn overlap(a: &[u8], b: &[u8]) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

/// Prefixes of one client that both fit a key would have it told twice.
fn check_prefixes(new: &[&[u8]], had: &BTreeSet<Vec<u8>>) -> CommandResult {
    let error = |prefix: &[u8], what: &str, other: &[u8]| {
        let (prefix, other) = (String::from_utf8_lossy(prefix), String::from_utf8_lossy(other));
        let text = format!(
            "ERR Prefix '{prefix}' overlaps with {what} prefix '{other}'. Prefixes for a single client must not overlap."
        );
        Err(text.into())
    };
    for (i, prefix) in new.iter().enumerate() {
        if let Some(other) = had.iter().find(|other| overlap(prefix, other)) {
            return error(prefix, "an existing", other);
        }
        if let Some(other) = new[i + 1..].iter().find(|other| overlap(prefix, other)) {
            return error(prefix, "another provided", other);
        }
    }
    Ok(())
}

fn client_tracking(shard: &mut Shard, index: u32, args: Args<'_>, answers: Vec<Answer>) -> CommandResult {
    let Options { mut how, prefixes, redirect } = options(args)?;
    if redirect.is_some() {
        let found = answers.into_iter().find_map(|answer| match answer {
            Answer::Found(found) => found,
            _ => None,
        });
        how.redirect = Some(found.ok_or("ERR The client ID you want redirect to does not exist")?);
    }
    let client = shard.client(index);
    if args.is(2, "off") {
        shard.end_tracking(index);
        shard.client(index).reply().ok();
        return Ok(());
    }
    if !args.is(2, "on") {
        return Err(CommandError::Syntax);
    }
    if !how.bcast && !prefixes.is_empty() {
        return Err("ERR PREFIX option requires BCAST mode to be enabled".into());
    }
    let had = client.tracking.as_deref();
    if had.is_some_and(|had| had.bcast != how.bcast) {
        return Err("ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then \
                    re-enabling it with a different mode."
            .into());
    }
    if how.bcast && (how.optin || how.optout) {
        return Err("ERR OPTIN and OPTOUT are not compatible with BCAST".into());
    }
    if how.optin && how.optout {
        return Err("ERR You can't specify both OPTIN mode and OPTOUT mode".into());
    }
    if had.is_some_and(|had| (how.optin && had.optout) || (how.optout && had.optin)) {
        return Err("ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then \
                    re-enabling it with a different mode."
            .into());
    }
    if how.bcast {
        check_prefixes(&prefixes, had.map_or(&BTreeSet::new(), |had| &had.prefixes))?;
        how.prefixes = match prefixes.is_empty() {
            true => [Vec::new()].into(),
            false => prefixes.into_iter().map(<[u8]>::to_vec).collect(),
        };
    }
    shard.start_tracking(index, how);
    shard.client(index).reply().ok();
    Ok(())
}

fn client_caching(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let client = shard.client(index);
    let Some(tracking) = client.tracking.as_deref() else {
        return Err("ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT \
                    mode enabled"
            .into());
    };
    match () {
        _ if args.is(2, "yes") => {
            if !tracking.optin {
                return Err("ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.".into());
            }
        }
        _ if args.is(2, "no") => {
            if !tracking.optout {
                return Err("ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.".into());
            }
        }
        _ => return Err(CommandError::Syntax),
    }
    client.set_caching(true);
    client.reply().ok();
    Ok(())
}

/// Where notices go: an id, 0 for the client itself, -1 when there are none.
pub fn redirection(tracking: Option<&Tracking>) -> i64 {
    tracking.map_or(-1, |tracking| tracking.redirect.map_or(0, |to| to.id as i64))
}

fn client_getredir(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    let client = shard.client(index);
    let id = redirection(client.tracking.as_deref());
    client.reply().integer(id);
    Ok(())
}

fn client_trackinginfo(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    let client = shard.client(index);
    let redirect = redirection(client.tracking.as_deref());
    let tracking = client.tracking.as_deref().cloned();
    let flags: Vec<&str> = match &tracking {
        None => vec!["off"],
        Some(how) => [
            ("on", true),
            ("bcast", how.bcast),
            ("optin", how.optin),
            ("caching-yes", how.optin && how.caching),
            ("optout", how.optout),
            ("caching-no", how.optout && how.caching),
            ("noloop", how.noloop),
            ("broken_redirect", how.broken),
        ]
        .into_iter()
        .filter_map(|(name, on)| on.then_some(name))
        .collect(),
    };
    let prefixes = tracking.map(|how| how.prefixes).unwrap_or_default();
    let mut reply = client.reply();
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"redirect");
    reply.integer(redirect);
    reply.bulk(b"prefixes");
    reply.array(prefixes.len());
    prefixes.iter().for_each(|prefix| reply.bulk(prefix));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use crate::testing::{Conn, Value, World, request};

    /// Servers of one shard and of four, with a client that reads and one that writes; the reader speaks RESP3.
    fn worlds() -> Vec<(World, Conn, Conn)> {
        [1, 4]
            .into_iter()
            .map(|shards| {
                let mut world = World::new(shards);
                let (reader, writer) = (world.connect(), world.connect());
                world.run(reader, "HELLO 3");
                (world, reader, writer)
            })
            .collect()
    }

    /// All that a client has been sent.
    fn heard(world: &mut World, conn: Conn) -> Vec<String> {
        Value::parse_all(&world.received(conn)).iter().map(Value::to_string).collect()
    }

    /// Runs commands in one piece; all that was sent in answer.
    fn run(world: &mut World, conn: Conn, lines: &[&str]) -> Vec<String> {
        let words = |line: &&str| request(&crate::quote::split_args(line.as_bytes()).expect("balanced quotes"));
        let bytes: Vec<u8> = lines.iter().flat_map(words).collect();
        world.send(conn, &bytes);
        heard(world, conn)
    }

    const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

    fn told(key: &str) -> String {
        format!(r#">["invalidate" ["{key}"]]"#)
    }

    #[test]
    fn readers_hear_of_changes_once() {
        for (mut world, reader, writer) in worlds() {
            run(&mut world, reader, &["CLIENT TRACKING ON"]);
            for key in KEYS {
                run(&mut world, reader, &[&format!("GET {key}")]);
                run(&mut world, writer, &[&format!("SET {key} 1"), &format!("SET {key} 2")]);
                assert_eq!(heard(&mut world, reader), [told(key)], "{key}");
                // Its own changes too, behind the reply; keys are one over all databases.
                let own = run(&mut world, reader, &["SELECT 1", &format!("EXISTS {key}"), &format!("SET {key} 3")]);
                assert_eq!(own, ["OK", "0", "OK", &told(key)], "{key}");
                run(&mut world, reader, &["SELECT 0"]);
            }
            run(&mut world, reader, &["MGET a b c d e f", "CLIENT TRACKING OFF"]);
            run(&mut world, writer, &["MSET a 1 b 1 c 1"]);
            assert!(heard(&mut world, reader).is_empty());
        }
    }

    #[test]
    fn every_way_to_read_and_write_counts() {
        for (mut world, reader, writer) in worlds() {
            run(&mut world, reader, &["CLIENT TRACKING ON"]);
            for (read, write, keys) in [
                ("MGET a b c", "MSET a 1 b 1 c 1 d 1", &["a", "b", "c"][..]),
                ("EXISTS a b", "DEL a b c", &["a", "b"]),
                ("EVAL \"return redis.call('GET', 'f')\" 0", "SETRANGE f 1 x", &["f"]),
                ("EVAL \"return redis.call('GET', KEYS[2])\" 2 b f", "MSET b 1 f 1", &["f"]),
                ("SUNION s1 s2 s3", "EVAL \"redis.call('SADD', 's2', 'x')\" 0", &["s2"]),
                ("GET d", "RENAME d e", &["d"]),
                ("GET e", "EXPIRE e 100", &["e"]),
                ("LRANGE l 0 -1", "RPUSH l x", &["l"]),
            ] {
                run(&mut world, reader, &[read]);
                run(&mut world, writer, &[write]);
                let mut got = heard(&mut world, reader);
                got.sort();
                assert_eq!(got, keys.iter().map(|key| told(key)).collect::<Vec<_>>(), "{read}, {write}");
            }
            // Writes alone note nothing, not even those that look first.
            run(&mut world, reader, &["CLIENT TRACKING OFF", "CLIENT TRACKING ON"]);
            run(&mut world, reader, &["MSETNX x 1 y 1 z 1", "INCR n", "GETSET g 1", "EVAL 'return 1' 2 p q"]);
            run(&mut world, writer, &["MSET x 2 y 2 z 2 n 2 g 2 p 2 q 2"]);
            assert!(heard(&mut world, reader).is_empty());
            // In a transaction behind the whole reply.
            run(&mut world, reader, &["MSET a 1 b 2", "MULTI", "GET a", "INCR a", "GET b", "INCR b"]);
            let mut got = run(&mut world, reader, &["EXEC"]);
            got[1..].sort();
            assert_eq!(got, [r#"["1" 2 "2" 3]"#, &told("a"), &told("b")]);
        }
    }

    #[test]
    fn time_eviction_and_flushes_tell_too() {
        for (mut world, reader, writer) in worlds() {
            run(&mut world, reader, &["CLIENT TRACKING ON"]);
            run(&mut world, writer, &["MSET a 1 b 1 c 1", "PEXPIRE a 100", "PEXPIRE b 300"]);
            run(&mut world, reader, &["MGET a b c"]);
            world.advance(150);
            assert_eq!(heard(&mut world, reader), [told("a")]);
            run(&mut world, writer, &["DEBUG SET-ACTIVE-EXPIRE 0"]);
            world.advance(300);
            assert!(heard(&mut world, reader).is_empty());
            assert_eq!(run(&mut world, reader, &["MGET c b"]), [r#"["1" nil]"#, &told("b")]);
            run(&mut world, writer, &["SET v x EX 1000"]);
            run(&mut world, reader, &["GET v"]);
            world.host.used_memory.store(2000, Relaxed);
            run(&mut world, writer, &["CONFIG SET maxmemory 1000 maxmemory-policy volatile-random"]);
            world.cron();
            assert_eq!(heard(&mut world, reader), [told("v")]);
            run(&mut world, writer, &["CONFIG SET maxmemory 0"]);
            // One that finds memory full is told before its reply, whichever shard has the key.
            world.cron();
            for i in 0..8 {
                let v = format!("v{i}");
                world.host.used_memory.store(500, Relaxed);
                run(&mut world, writer, &["CONFIG SET maxmemory 1000", &format!("SET {v} x EX 1000")]);
                run(&mut world, reader, &[&format!("GET {v}")]);
                world.end_turns();
                world.host.used_memory.store(2000, Relaxed);
                assert_eq!(run(&mut world, reader, &["GET c"]), [&told(&v), r#""1""#], "{} shards", world.shards.len());
                run(&mut world, writer, &["CONFIG SET maxmemory 0"]);
            }
            for flush in ["FLUSHALL", "FLUSHDB ASYNC", "EVAL \"redis.call('FLUSHALL')\" 0"] {
                run(&mut world, reader, &["MGET a b c d e f"]);
                assert!(world.shared.tracking.keys.load(Relaxed) >= 6);
                run(&mut world, writer, &[flush]);
                assert_eq!(heard(&mut world, reader), [r#">["invalidate" nil]"#], "{flush}");
                assert_eq!(world.shared.tracking.keys.load(Relaxed), 0);
            }
            assert_eq!(
                run(&mut world, reader, &["MULTI", "FLUSHDB", "EXEC"]),
                ["OK", "QUEUED", "[OK]", r#">["invalidate" nil]"#]
            );
        }
    }

    #[test]
    fn notices_go_to_another_client() {
        for (mut world, reader, writer) in worlds() {
            for resp in [2, 3] {
                let other = world.connect();
                let id = world.run(other, "CLIENT ID").integer();
                run(&mut world, other, &[&format!("HELLO {resp}"), "SUBSCRIBE __redis__:invalidate"]);
                run(&mut world, reader, &[&format!("CLIENT TRACKING ON REDIRECT {id}"), "MGET a b c d e f"]);
                let list = world.run(reader, "CLIENT LIST").text();
                assert!(list.contains("flags=t ") && list.contains(&format!("redir={id} ")), "{list}");
                assert_eq!(run(&mut world, reader, &["CLIENT GETREDIR"]), [id.to_string()]);
                run(&mut world, writer, &["SET a 1", "SET e 1", "FLUSHALL"]);
                let expected = match resp {
                    2 => [r#"["a"]"#, r#"["e"]"#, "nil"]
                        .map(|keys| format!(r#"["message" "__redis__:invalidate" {keys}]"#)),
                    _ => [r#"["a"]"#, r#"["e"]"#, "nil"].map(|keys| format!(r#">["invalidate" {keys}]"#)),
                };
                assert_eq!(heard(&mut world, other), expected);
                assert!(heard(&mut world, reader).is_empty());
                run(&mut world, reader, &["MGET a b"]);
                world.disconnect(other);
                run(&mut world, writer, &["SET a 1"]);
                assert_eq!(heard(&mut world, reader), [format!(r#">["tracking-redir-broken" {id}]"#)]);
                assert_eq!(
                    run(&mut world, reader, &["CLIENT TRACKINGINFO"]),
                    [format!(r#"{{"flags": ~["on" "broken_redirect"], "redirect": {id}, "prefixes": []}}"#)]
                );
                assert!(world.run(reader, "CLIENT LIST").text().contains("flags=tR "));
            }
            // RESP2 that subscribes to nothing can be told nothing.
            let mute = world.connect();
            run(&mut world, mute, &["CLIENT TRACKING ON", "GET a"]);
            run(&mut world, writer, &["SET a 2"]);
            assert!(heard(&mut world, mute).is_empty());
        }
    }

    #[test]
    fn prefixes_are_told_of_a_turn_at_a_time() {
        for (mut world, reader, writer) in worlds() {
            run(&mut world, reader, &["CLIENT TRACKING ON BCAST PREFIX p: PREFIX q: NOLOOP"]);
            run(&mut world, writer, &["MULTI", "INCR p:1{t}", "INCR p:2{t}", "INCR q:1{t}", "INCR r:1{t}", "EXEC"]);
            let mut got = heard(&mut world, reader);
            got.sort();
            assert_eq!(got, [r#">["invalidate" ["p:1{t}" "p:2{t}"]]"#, r#">["invalidate" ["q:1{t}"]]"#]);
            assert_eq!(run(&mut world, reader, &["SET p:3 1 PX 50"]), ["OK"]);
            world.advance(100);
            assert_eq!(heard(&mut world, reader), [told("p:3")]);
            assert!(world.run(reader, "CLIENT LIST").text().contains("flags=tB "));
            let info = world.run(writer, "INFO everything").text();
            for line in ["tracking_clients:1", "tracking_total_prefixes:2", "tracking_total_keys:0"] {
                assert!(info.contains(&format!("{line}\r\n")), "{line}");
            }
            // All of them, and again none.
            run(&mut world, reader, &["CLIENT TRACKING OFF", "CLIENT TRACKING ON BCAST"]);
            for key in KEYS {
                run(&mut world, writer, &[&format!("SET {key} 1")]);
                assert_eq!(heard(&mut world, reader), [told(key)]);
            }
            run(&mut world, reader, &["RESET"]);
            run(&mut world, writer, &["SET a 1"]);
            assert!(heard(&mut world, reader).is_empty());
            assert_eq!(world.shared.tracking.total_prefixes(), 0);
        }
    }

    #[test]
    fn a_client_chooses_what_is_noted() {
        for (mut world, reader, writer) in worlds() {
            let check = |world: &mut World, lines: &[&str], expected: &[&str]| {
                run(world, reader, lines);
                run(world, writer, &["SET a 1", "SET b 1", "SET c 1"]);
                let expected: Vec<String> = expected.iter().map(|key| told(key)).collect();
                let mut got = heard(world, reader);
                got.sort();
                assert_eq!(got, expected, "{lines:?}");
            };
            check(&mut world, &["CLIENT TRACKING ON OPTIN", "GET a"], &[]);
            check(&mut world, &["CLIENT CACHING YES", "CLIENT ID", "GET a", "GET b"], &["a"]);
            check(&mut world, &["CLIENT CACHING YES", "MULTI", "GET a", "GET b", "EXEC", "GET c"], &["a", "b"]);
            check(&mut world, &["CLIENT CACHING YES", "NOSUCH", "GET a"], &[]);
            check(&mut world, &["CLIENT CACHING YES", "MGET a b c"], &["a", "b", "c"]);
            check(&mut world, &["CLIENT TRACKING OFF", "CLIENT TRACKING ON OPTOUT", "GET a"], &["a"]);
            check(&mut world, &["CLIENT CACHING NO", "GET a", "GET b"], &["b"]);
            check(&mut world, &["CLIENT TRACKING ON NOLOOP", "GET a", "GET b", "SET a 2"], &["b"]);
        }
    }

    #[test]
    fn tables_stay_within_their_bound() {
        for (mut world, reader, writer) in worlds() {
            run(&mut world, reader, &["CLIENT TRACKING ON"]);
            for i in 0..200 {
                run(&mut world, reader, &[&format!("GET k{i}")]);
            }
            run(&mut world, writer, &["CONFIG SET tracking-table-max-keys 10"]);
            world.cron();
            assert_eq!(heard(&mut world, reader).len(), 190);
            assert_eq!(world.shared.tracking.keys.load(Relaxed), 10);
            assert_eq!(world.shared.tracking.items.load(Relaxed), 10);
            // What is read beyond it has something else forgotten, or itself, behind the reply.
            let got = run(&mut world, reader, &["GET k200", "GET k201"]);
            let notices = got.iter().filter(|line| line.starts_with('>')).count();
            assert_eq!((got.len(), notices), (4, 2), "{got:?}");
            assert_eq!(world.shared.tracking.keys.load(Relaxed), 10);
        }
    }

    /// While nobody tracks, writes are asked nothing; what the last one had noted is forgotten.
    #[test]
    fn nothing_is_left_behind() {
        for (mut world, reader, writer) in worlds() {
            run(&mut world, reader, &["CLIENT TRACKING ON", "MGET a b c d e f"]);
            assert!(world.shards.iter().all(|shard| shard.core.tracked));
            world.disconnect(reader);
            world.cron();
            run(&mut world, writer, &["MSET a 1 b 1 c 1 d 1"]);
            for shard in &world.shards {
                let slice = shard.slice().expect("home");
                assert!(!shard.core.tracked && slice.tracking.is_empty());
                assert!(slice.dbs.iter().all(|db| db.touched.is_empty()));
            }
            assert_eq!(world.shared.tracking.keys.load(Relaxed), 0);
            assert_eq!(world.shared.tracking.total_clients(), 0);
        }
    }

    /// A script that is undone and begun anew has told of its writes once too often at most, never too seldom.
    #[test]
    fn a_script_that_is_undone_leaves_no_gap() {
        let mut world = World::new(4);
        let (reader, writer) = (world.connect(), world.connect());
        run(&mut world, reader, &["HELLO 3", "CLIENT TRACKING ON", "MGET a b c d e f"]);
        let text = "redis.call('INCR', KEYS[1]) return redis.call('GET', ARGV[1])";
        for key in KEYS {
            for other in KEYS {
                run(&mut world, reader, &[&format!("GET {key}")]);
                let script = format!("{text} --{key}{other}");
                run(&mut world, writer, &[&format!("EVAL \"{script}\" 1 {key} {other}")]);
                assert_eq!(heard(&mut world, reader), [told(key)], "{key} {other}");
            }
        }
    }

    #[test]
    fn options_that_do_not_fit_are_refused() {
        for (mut world, reader, _) in worlds() {
            let mut check = |line: &str, expected: &str| {
                let got = run(&mut world, reader, &[line]).concat();
                assert_eq!(got, expected, "{line}");
            };
            check("CLIENT TRACKING maybe", "-ERR syntax error");
            check("CLIENT TRACKING ON REDIRECT", "-ERR syntax error");
            check("CLIENT TRACKING ON REDIRECT x", "-ERR value is not an integer or out of range");
            check("CLIENT TRACKING ON REDIRECT 4711", "-ERR The client ID you want redirect to does not exist");
            check("CLIENT TRACKING ON REDIRECT -1", "-ERR The client ID you want redirect to does not exist");
            check("CLIENT TRACKING ON PREFIX a", "-ERR PREFIX option requires BCAST mode to be enabled");
            check("CLIENT TRACKING ON BCAST OPTIN", "-ERR OPTIN and OPTOUT are not compatible with BCAST");
            check("CLIENT TRACKING ON OPTOUT OPTIN", "-ERR You can't specify both OPTIN mode and OPTOUT mode");
            check(
                "CLIENT TRACKING ON BCAST PREFIX ab PREFIX a",
                "-ERR Prefix 'ab' overlaps with another provided prefix 'a'. Prefixes for a single client must not \
                 overlap.",
            );
            check(
                "CLIENT CACHING YES",
                "-ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode \
                 enabled",
            );
            check("CLIENT GETREDIR", "-1");
            check("CLIENT TRACKING ON BCAST PREFIX ab", "OK");
            check(
                "CLIENT TRACKING ON BCAST PREFIX abc",
                "-ERR Prefix 'abc' overlaps with an existing prefix 'ab'. Prefixes for a single client must not overlap.",
            );
            check("CLIENT TRACKINGINFO", r#"{"flags": ~["on" "bcast"], "redirect": 0, "prefixes": ["ab"]}"#);
            check(
                "CLIENT TRACKING ON",
                "-ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then \
                 re-enabling it with a different mode.",
            );
            check("CLIENT TRACKING OFF", "OK");
            check("CLIENT TRACKINGINFO", r#"{"flags": ~["off"], "redirect": -1, "prefixes": []}"#);
            check("CLIENT TRACKING ON OPTIN", "OK");
            check("CLIENT CACHING NO", "-ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.");
            check("CLIENT CACHING YES", "OK");
            check("CLIENT TRACKINGINFO", r#"{"flags": ~["on" "optin" "caching-yes"], "redirect": 0, "prefixes": []}"#);
        }
    }
}
