//! Hash commands on one shard and on four, in RESP2 and RESP3, and beside Debian's redis-server.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use crate::core::Rng;
use crate::testing::{Check, Value, World, request};

const WRONG: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

#[test]
fn fields_are_set_read_and_removed() {
    let mut t = Check::new();
    t.check("HSET h a 1 b 2", "2").check("HSET h a 3 c 4", "1").check("HMSET h d x", "OK");
    t.check("HGET h a", "\"3\"").check("HGET h z", "nil").check("HGET none a", "nil");
    t.check("HMGET h a z d", "[\"3\" nil \"x\"]").check("HMGET none a b", "[nil nil]");
    t.check("HLEN h", "4").check("HLEN none", "0").check("HSTRLEN h d", "1").check("HSTRLEN h z", "0");
    t.check("HEXISTS h a", "1").check("HEXISTS h z", "0").check("HEXISTS none a", "0");
    t.check("HKEYS h", "[\"a\" \"b\" \"c\" \"d\"]").check("HVALS h", "[\"3\" \"2\" \"4\" \"x\"]");
    t.check("HSETNX h a 9", "0").check("HSETNX h e 9", "1").check("TYPE h", "hash");
    t.check("HDEL h z", "0").check("HDEL h a b a z", "2").check("HDEL h c d e", "3").check("EXISTS h", "0");
    t.check("HKEYS none", "[]").check("HVALS none", "[]").check("HDEL none a", "0");
    t.check("HSET h a", "-ERR wrong number of arguments for 'hset' command");
    t.check("HSET h a 1 b", "-ERR wrong number of arguments for 'hset' command");
    t.check("HMSET h a 1 b", "-ERR wrong number of arguments for 'hmset' command");
    t.check("EXISTS h", "0");
}

#[test]
fn protocols_differ() {
    let mut t = Check::new();
    t.check("HSET h a 1 b x", "2");
    t.types("HGETALL h", "[\"a\" \"1\" \"b\" \"x\"]", "{\"a\": \"1\", \"b\": \"x\"}");
    t.types("HGETALL none", "[]", "{}");
    t.types("HRANDFIELD h 2 WITHVALUES", "[\"a\" \"1\" \"b\" \"x\"]", "[[\"a\" \"1\"] [\"b\" \"x\"]]");
    t.types("HRANDFIELD h 5", "[\"a\" \"b\"]", "[\"a\" \"b\"]");
    t.types("HSCAN h 0", "[\"0\" [\"a\" \"1\" \"b\" \"x\"]]", "[\"0\" [\"a\" \"1\" \"b\" \"x\"]]");
}

#[test]
fn another_type_is_refused_and_left_alone() {
    let mut t = Check::new();
    t.check("SET s v", "OK").check("HSET h f v", "1");
    for line in [
        "HSET s a 1",
        "HMSET s a 1",
        "HSETNX s a 1",
        "HGET s a",
        "HMGET s a",
        "HGETALL s",
        "HKEYS s",
        "HVALS s",
        "HDEL s a",
        "HLEN s",
        "HSTRLEN s a",
        "HEXISTS s a",
        "HINCRBY s a 1",
        "HINCRBYFLOAT s a 1",
        "HRANDFIELD s",
        "HRANDFIELD s 1",
        "HSCAN s 0",
        "GET h",
        "APPEND h x",
        "INCR h",
        "GETRANGE h 0 1",
    ] {
        t.check(line, WRONG);
    }
    t.check("GET s", "\"v\"").check("HGET h f", "\"v\"");
    t.check("SET h now-a-string", "OK").check("GET h", "\"now-a-string\"");
}

#[test]
fn numbers() {
    let mut t = Check::new();
    t.check("HINCRBY h n 5", "5").check("HINCRBY h n -7", "-2").check("HSET h x abc", "1");
    t.check("HINCRBY h x 1", "-ERR hash value is not an integer");
    t.check("HINCRBY h n x", "-ERR value is not an integer or out of range");
    t.check("HSET h n 9223372036854775807", "0");
    t.check("HINCRBY h n 1", "-ERR increment or decrement would overflow").check("HGET h n", "\"9223372036854775807\"");
    t.check("HINCRBYFLOAT h f 10.5", "\"10.5\"").check("HINCRBYFLOAT h f 0.1", "\"10.6\"");
    t.check("HINCRBYFLOAT h x 1", "-ERR hash value is not a float");
    t.check("HINCRBYFLOAT h f x", "-ERR value is not a valid float");
    t.check("HINCRBYFLOAT h f inf", "-ERR value is NaN or Infinity");
    t.check("HINCRBYFLOAT h f nan", "-ERR value is not a valid float");
    t.check("HINCRBYFLOAT none f inf", "-ERR value is NaN or Infinity").check("EXISTS none", "0");
}

#[test]
fn encodings_follow_the_directives() {
    let mut t = Check::with_config(&[("hash-max-listpack-entries", "3"), ("hash-max-listpack-value", "5")]);
    t.check("HSET h a 1 b 2 c 3", "3").check("OBJECT ENCODING h", "\"listpack\"");
    t.check("HSET h a 12345", "0").check("OBJECT ENCODING h", "\"listpack\"");
    t.check("HSET h d 4", "1").check("OBJECT ENCODING h", "\"hashtable\"").check("HLEN h", "4");
    t.check("HDEL h d c b", "3").check("OBJECT ENCODING h", "\"hashtable\"").check("HGET h a", "\"12345\"");
    t.check("HSET long a 123456", "1").check("OBJECT ENCODING long", "\"hashtable\"");
    t.check("HSET field-long 123456 a", "1").check("OBJECT ENCODING field-long", "\"hashtable\"");
    t.check("HINCRBY sum 1 123456", "123456").check("OBJECT ENCODING sum", "\"hashtable\"");
    t.check("COPY h copy", "1").check("HSET copy a other", "0").check("HGET h a", "\"12345\"");
    t.check("OBJECT ENCODING copy", "\"hashtable\"")
        .check("RENAME copy moved", "OK")
        .check("HGET moved a", "\"other\"");
    t.look("MEMORY USAGE h", |v| assert!(v.integer() > 100, "{v}"));
    t.check("DEL h long moved", "3");
}

#[test]
fn many_arguments_make_a_table_at_once() {
    let mut t = Check::with_config(&[("hash-max-listpack-entries", "3")]);
    t.check("HSET h a 1 a 2 a 3 a 4", "1").check("OBJECT ENCODING h", "\"hashtable\"").check("HGET h a", "\"4\"");
}

#[test]
fn random_fields() {
    for entries in ["0", "512"] {
        let mut t = Check::with_config(&[("hash-max-listpack-entries", entries)]);
        t.check("HSET h a 1 b 2 c 3 d 4", "4").check("HRANDFIELD none", "nil").check("HRANDFIELD none 3", "[]");
        t.check("HRANDFIELD h 0", "[]").check("HRANDFIELD h 0 WITHVALUES", "[]");
        t.look("HRANDFIELD h", |v| assert!("abcd".contains(&v.text())));
        t.look("HRANDFIELD h -9", |v| assert_eq!(v.items().len(), 9));
        t.look("HRANDFIELD h 3", |v| {
            let mut fields: Vec<String> = v.items().iter().map(Value::text).collect();
            fields.sort();
            fields.dedup();
            assert_eq!(fields.len(), 3);
        });
        t.types("HLEN h", "4", "4").look("HRANDFIELD h 9", |v| assert_eq!(v.items().len(), 4));
        t.check("HRANDFIELD h x", "-ERR value is not an integer or out of range");
        t.check("HRANDFIELD h 1 x", "-ERR syntax error").check("HRANDFIELD h 1 WITHVALUES x", "-ERR syntax error");
        t.check("HRANDFIELD h 9223372036854775807 WITHVALUES", "-ERR value is out of range");
        t.check("HRANDFIELD h -9223372036854775807", "-ERR value is out of range");
    }
}

#[test]
fn scans() {
    let mut t = Check::new();
    t.check("HSCAN none 0 FOO", "[\"0\" []]").check("HSCAN none x", "-ERR invalid cursor");
    t.check("HSET h aa 1 ab 2 b 3", "3").check("HSCAN h 0 MATCH a*", "[\"0\" [\"aa\" \"1\" \"ab\" \"2\"]]");
    t.check("HSCAN h 0 NOVALUES COUNT 1", "[\"0\" [\"aa\" \"ab\" \"b\"]]");
    t.check("HSCAN h 0 FOO", "-ERR syntax error").check("HSCAN h 0 COUNT 0", "-ERR syntax error");
    t.check("HSCAN h 0 COUNT x", "-ERR value is not an integer or out of range");
    t.each(|world, conn| {
        for i in 0..2000 {
            world.run(conn, &format!("HSET big f{i} {i}"));
        }
        let (mut cursor, mut seen) = ("0".to_string(), std::collections::BTreeSet::new());
        loop {
            let reply = world.run(conn, &format!("HSCAN big {cursor} COUNT 50 NOVALUES")).items();
            assert!(reply[1].items().len() < 100);
            seen.extend(reply[1].items().iter().map(Value::text));
            cursor = reply[0].text();
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(seen.len(), 2000);
    });
}

/// Also what did not change the hash must not disturb a transaction, and what did must.
#[test]
fn watched_hashes() {
    let mut t = Check::new();
    t.check("HSET h a 1", "1");
    for (line, changes) in [
        ("HSETNX h a 2", false),
        ("HDEL h none", false),
        ("HGET h a", false),
        ("HSET h a 1", true),
        ("HINCRBY h n 1", true),
        ("HINCRBYFLOAT h n 1", true),
        ("HDEL h n", true),
        ("HSETNX h n 2", true),
    ] {
        t.check("WATCH h", "OK");
        t.each(|world, _| {
            let other = world.connect();
            world.run(other, line);
            world.disconnect(other);
        });
        t.check("MULTI", "OK").check("HLEN none", "QUEUED");
        t.look("EXEC", |v| assert_eq!(v.to_string() == "[0]", !changes, "{line}: {v}"));
    }
}

/// A random command over few keys and fields, so that they meet often.
fn command(rng: &mut Rng) -> Vec<String> {
    let key = format!("k{}", rng.below(4));
    let value = |rng: &mut Rng| match rng.below(6) {
        0 => "x".repeat(rng.below(90) as usize),
        1 => format!("{}.5", rng.below(100)),
        2 => (rng.next_u64() as i64 >> rng.below(64)).to_string(),
        3 => "nonsense".into(),
        _ => rng.below(20).to_string(),
    };
    let field = |rng: &mut Rng| match rng.below(30) {
        0 => "f".repeat(70),
        n if n % 2 == 0 => n.to_string(),
        n => format!("f{n}"),
    };
    match rng.below(20) {
        0..5 => {
            let mut words = vec!["hset".into(), key];
            for _ in 0..1 + rng.below(3) {
                words.extend([field(rng), value(rng)]);
            }
            words
        }
        5 => vec!["hmset".into(), key, field(rng), value(rng)],
        6 => vec!["hsetnx".into(), key, field(rng), value(rng)],
        7 | 8 => vec!["hdel".into(), key, field(rng), field(rng), field(rng)],
        9 => vec!["hget".into(), key, field(rng)],
        10 => vec!["hmget".into(), key, field(rng), field(rng)],
        11 => vec!["hgetall".into(), key],
        12 => vec![["hkeys", "hvals", "hlen"][rng.below(3) as usize].into(), key],
        13 => vec![["hstrlen", "hexists"][rng.below(2) as usize].into(), key, field(rng)],
        14 => vec!["hincrby".into(), key, field(rng), value(rng)],
        15 => vec!["hincrbyfloat".into(), key, field(rng), format!("{}.25", rng.below(50))],
        16 => vec!["hrandfield".into(), key, "100".into()],
        17 => vec!["object".into(), "encoding".into(), key],
        18 => vec!["hset".into(), key, field(rng)],
        _ => vec![["del", "type", "exists"][rng.below(3) as usize].into(), key],
    }
}

/// A reply as text; those without an order are sorted.
fn shown(words: &[String], reply: &Value) -> String {
    match words[0].as_str() {
        "hkeys" | "hvals" | "hrandfield" => {
            let mut items: Vec<String> = reply.items().iter().map(Value::to_string).collect();
            items.sort();
            items.join(" ")
        }
        "hgetall" => {
            let mut pairs: Vec<String> = reply.items().chunks(2).map(|p| format!("{}={}", p[0], p[1])).collect();
            pairs.sort();
            pairs.join(" ")
        }
        _ => reply.to_string(),
    }
}

#[test]
fn replies_are_those_of_redis() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let directives = [("hash-max-listpack-entries", "12"), ("hash-max-listpack-value", "64")];
    let redis = Process::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir", "/"])
        .args(directives.iter().flat_map(|(name, value)| [format!("--{name}"), value.to_string()]))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    let Ok(mut redis) = redis else {
        eprintln!("redis-server is not installed: nothing to compare with");
        return;
    };
    let compared = std::panic::catch_unwind(|| compare(port, &directives));
    let _ = redis.kill();
    let _ = redis.wait();
    if let Err(panic) = compared {
        std::panic::resume_unwind(panic);
    }
}

fn compare(port: u16, directives: &[(&str, &str)]) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut socket = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(socket) => break socket,
            Err(error) => assert!(Instant::now() < deadline, "redis-server does not answer: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let rounds = 60;
    for seed in 0..rounds {
        let mut rng = Rng::new(seed);
        let mut commands: Vec<Vec<String>> = (0..100).map(|_| command(&mut rng)).collect();
        commands.extend((0..4).flat_map(|k| ["hgetall", "hlen"].map(|name| vec![name.into(), format!("k{k}")])));
        commands.push(vec!["flushall".into()]);
        let bytes: Vec<u8> = commands.iter().flat_map(|words| request(words)).collect();
        socket.write_all(&bytes).unwrap();
        let (mut theirs, mut buffer, mut chunk) = (Vec::new(), Vec::new(), vec![0; 1 << 16]);
        while theirs.len() < commands.len() {
            let n = socket.read(&mut chunk).unwrap();
            assert!(n > 0, "redis-server closed the connection");
            buffer.extend_from_slice(&chunk[..n]);
            while let Some((value, used)) = (!buffer.is_empty()).then(|| Value::parse(&buffer)).flatten() {
                buffer.drain(..used);
                theirs.push(value);
            }
        }
        let mut world = World::with_config(1 + seed as usize % 4, directives);
        let conn = world.connect();
        for (i, (words, theirs)) in commands.iter().zip(&theirs).enumerate() {
            let reply = world.call(conn, words);
            let (ours, _) = Value::parse(&reply).expect("a whole reply");
            assert_eq!(shown(words, &ours), shown(words, theirs), "seed {seed}, command {i}: {words:?}");
        }
    }
}
