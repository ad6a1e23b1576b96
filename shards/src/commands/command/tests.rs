//! `COMMAND` as clients see it, and beside what Debian's redis-server says of the same commands.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use crate::testing::{Check, Value, World, request};

#[test]
fn descriptions_are_found_by_name() {
    let mut t = Check::new();
    t.types(
        "COMMAND INFO get nosuch",
        "[[\"get\" 2 [readonly fast] 1 1 1 [@read @string @fast] [] [[\"flags\" [RO access] \"begin_search\" \
         [\"type\" \"index\" \"spec\" [\"index\" 1]] \"find_keys\" [\"type\" \"range\" \"spec\" [\"lastkey\" 0 \
         \"keystep\" 1 \"limit\" 0]]]] []] nil]",
        "[[\"get\" 2 ~[readonly fast] 1 1 1 ~[@read @string @fast] ~[] ~[{\"flags\": ~[RO access], \"begin_search\": \
         {\"type\": \"index\", \"spec\": {\"index\": 1}}, \"find_keys\": {\"type\": \"range\", \"spec\": {\"lastkey\": \
         0, \"keystep\": 1, \"limit\": 0}}}] ~[]] nil]",
    );
    t.look("COMMAND INFO CONFIG|GET config", |v| {
        let found = v.items();
        assert_eq!(found[0].items()[0].text(), "config|get");
        let subs: Vec<String> = found[1].items()[9].items().iter().map(|sub| sub.items()[0].text()).collect();
        assert_eq!(subs, ["config|get", "config|set", "config|resetstat", "config|rewrite", "config|help"]);
    });
    // DEBUG's subcommands are arguments to the outside.
    t.check("COMMAND INFO debug|sleep", "[nil]");
    t.look("COMMAND INFO debug", |v| assert_eq!(v.items()[0].items()[9].to_string(), "[]"));
    t.look("COMMAND FOO", |v| assert_eq!(v.text(), "ERR unknown subcommand 'FOO'. Try COMMAND HELP."));
}

#[test]
fn counts_and_lists_agree() {
    let mut t = Check::new();
    t.each(|world, conn| {
        let count = world.run(conn, "COMMAND COUNT").integer();
        assert_eq!(world.run(conn, "COMMAND").items().len() as i64, count);
        assert_eq!(world.run(conn, "COMMAND INFO").items().len() as i64, count);
        assert_eq!(world.run(conn, "COMMAND DOCS").items().len() as i64, 2 * count);
        let listed = world.run(conn, "COMMAND LIST").items();
        assert_eq!(listed.iter().filter(|name| !name.text().contains('|')).count() as i64, count);
    });
    t.check("COMMAND LIST FILTERBY PATTERN xget", "[]");
    t.check(
        "COMMAND LIST FILTERBY PATTERN conf*",
        "[\"config\" \"config|get\" \"config|set\" \"config|resetstat\" \
         \"config|rewrite\" \"config|help\"]",
    );
    t.check("COMMAND LIST FILTERBY MODULE foo", "[]").check("COMMAND LIST FILTERBY ACLCAT nosuch", "[]");
    t.look("COMMAND LIST FILTERBY ACLCAT transaction", |v| {
        let names: BTreeSet<String> = v.items().iter().map(Value::text).collect();
        let expected = ["discard", "exec", "multi", "unwatch", "watch"];
        assert_eq!(names, expected.map(String::from).into());
    });
    t.check("COMMAND LIST FILTERBY FOO x", "-ERR syntax error").check("COMMAND LIST FOO", "-ERR syntax error");
}

#[test]
fn keys_are_found_among_arguments() {
    let mut t = Check::new();
    t.check("COMMAND GETKEYS MSET a 1 b 2", "[\"a\" \"b\"]").check("COMMAND GETKEYS get k", "[\"k\"]");
    t.check("COMMAND GETKEYS memory usage k", "[\"k\"]");
    t.check("COMMAND GETKEYSANDFLAGS COPY a b", "[[\"a\" [RO access]] [\"b\" [OW update]]]");
    t.types("COMMAND GETKEYSANDFLAGS DEL a", "[[\"a\" [RM delete]]]", "[[\"a\" ~[RM delete]]]");
    t.check("COMMAND GETKEYS PING x", "-ERR The command has no key arguments");
    t.check("COMMAND GETKEYS debug object k", "-ERR The command has no key arguments");
    t.check("COMMAND GETKEYS config set a b", "-ERR The command has no key arguments");
    t.check("COMMAND GETKEYS config foo", "-ERR Invalid command specified");
    t.check("COMMAND GETKEYS nosuch x", "-ERR Invalid command specified");
    t.check("COMMAND GETKEYS get a b", "-ERR Invalid number of arguments specified for command");
}

#[test]
fn documentation_of_arguments() {
    let mut t = Check::new();
    t.look("COMMAND DOCS set nosuch", |v| {
        assert_eq!(v.items().len(), 2);
        let set = v.get("set").unwrap();
        assert_eq!(set.get("group").unwrap().text(), "string");
        assert_eq!(set.get("since").unwrap().text(), "1.0.0");
        let args = set.get("arguments").unwrap().items();
        assert_eq!(args[0].to_string(), r#"["name" "key" "type" "key" "display_text" "key" "key_spec_index" 0]"#);
        assert_eq!(args[2].get("type").unwrap().text(), "oneof");
        assert_eq!(args[2].get("flags").unwrap().to_string(), "[optional]");
        assert_eq!(args[2].get("arguments").unwrap().items()[0].get("token").unwrap().text(), "NX");
    });
    t.look("COMMAND DOCS substr", |v| {
        let docs = v.get("substr").unwrap();
        assert_eq!(docs.get("doc_flags").unwrap().to_string(), "[deprecated]");
        assert_eq!(docs.get("deprecated_since").unwrap().text(), "2.0.0");
    });
    t.look("COMMAND DOCS config", |v| {
        let subs = v.get("config").unwrap().get("subcommands").unwrap();
        assert!(subs.get("config|set").unwrap().get("summary").is_some());
    });
}

/// A redis-server of the machine's own, ended when dropped.
struct Redis {
    process: Child,
    port: u16,
}

impl Redis {
    /// None where it is not installed.
    fn start() -> Option<Redis> {
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let process = Process::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir", "/"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        Some(Redis { process, port })
    }

    fn ask(&self, words: &[&str]) -> Value {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut socket = loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(socket) => break socket,
                Err(error) => assert!(Instant::now() < deadline, "redis-server does not answer: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.write_all(&request(words)).unwrap();
        let (mut bytes, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            let n = socket.read(&mut chunk).unwrap();
            assert!(n > 0, "redis-server closed the connection");
            bytes.extend_from_slice(&chunk[..n]);
            // Whole replies end with a line; looking only then keeps this linear enough.
            if bytes.ends_with(b"\r\n")
                && let Some((value, _)) = Value::parse(&bytes)
            {
                return value;
            }
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What is compared of a command, by field.
fn facts(entry: &Value, into: &mut BTreeMap<String, Vec<(&'static str, String)>>) {
    let fields = entry.items();
    let set = |value: &Value| value.items().iter().map(Value::text).collect::<BTreeSet<_>>();
    let specs: Vec<String> = fields[8]
        .items()
        .iter()
        .map(|spec| {
            let part = |name: &str| spec.get(name).map_or(String::new(), |part| part.to_string());
            format!("{:?} {} {}", set(&spec.get("flags").unwrap()), part("begin_search"), part("find_keys"))
        })
        .collect();
    let facts = vec![
        ("arity", fields[1].to_string()),
        ("flags", format!("{:?}", set(&fields[2]))),
        ("first, last, step", format!("{} {} {}", fields[3], fields[4], fields[5])),
        ("categories", format!("{:?}", set(&fields[6]))),
        ("key specs", format!("{specs:#?}")),
    ];
    into.insert(fields[0].text().to_lowercase(), facts);
    fields[9].items().iter().for_each(|sub| self::facts(sub, into));
}

/// Where this differs from 7.0.15 on purpose: command, field, why.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("acl|load", "flags", "no_multi: its reply waits for the file, which those of an EXEC cannot"),
    ("acl|save", "flags", "no_multi: as above"),
    ("config|rewrite", "flags", "no_multi: its reply waits for the file, which those of an EXEC cannot"),
    ("cluster|shards", "flags", "7.2 serves it while loading"),
    ("cluster|slots", "flags", "7.2 serves it while loading"),
    ("command|getkeys", "arity", "7.2 lets the command have no arguments"),
    ("command|getkeysandflags", "arity", "7.2 lets the command have no arguments"),
    ("sinterstore", "key specs", "7.4 says that it overwrites its destination"),
    ("wait", "flags", "7.2 lets scripts call it, and names it blocking"),
    ("wait", "categories", "7.2 names it blocking"),
    ("zrank", "arity", "7.2 brings WITHSCORE"),
    ("zrevrank", "arity", "7.2 brings WITHSCORE"),
];

#[test]
fn rows_are_those_of_redis() {
    let Some(redis) = Redis::start() else {
        eprintln!("redis-server is not installed: nothing to compare with");
        return;
    };
    let (mut theirs, mut ours) = (BTreeMap::new(), BTreeMap::new());
    redis.ask(&["COMMAND"]).items().iter().for_each(|entry| facts(entry, &mut theirs));
    let mut world = World::new(1);
    let conn = world.connect();
    world.run(conn, "COMMAND").items().iter().for_each(|entry| facts(entry, &mut ours));
    let mut wrong = String::new();
    for (name, facts) in &ours {
        let Some(expected) = theirs.get(name) else { continue };
        for ((field, mine), (_, redis)) in facts.iter().zip(expected) {
            let known = DIFFERENCES.iter().any(|(command, what, _)| command == name && what == field);
            if (mine != redis) != known {
                wrong.push_str(&format!("{name}, {field}: {mine}\n    Redis: {redis}\n"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(ours.len() > 150, "only {} commands compared", ours.len());
}

#[test]
fn wrong_counts_of_keys_are_invalid_arguments() {
    let mut t = Check::new();
    let invalid = "-ERR Invalid arguments specified for command";
    t.check("COMMAND GETKEYSANDFLAGS ZINTERSTORE zz 1443677133621497600 asdf", invalid);
    t.check("COMMAND GETKEYS ZUNIONSTORE d 3 a b", invalid).check("COMMAND GETKEYS SINTERCARD 0 a", invalid);
    t.check("COMMAND GETKEYS ZUNIONSTORE d 2 a b", r#"["d" "a" "b"]"#).check("COMMAND GETKEYS EVAL x 0", "[]");
    t.check("COMMAND GETKEYS EVAL x 5 a", "[]");
}
