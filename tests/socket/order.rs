//! Replies in the order of requests, however the keys of a pipeline lie.

use std::collections::HashMap;

use crate::harness::{Placement, everywhere};
use crate::wire::{Conn, Random, Value, bulk, encode, ok};

/// What one connection's keys hold, by the simplest means. Each connection has keys of its own, so that its replies
/// follow from its own commands.
struct Model {
    name: String,
    keys: HashMap<String, Vec<u8>>,
}

impl Model {
    /// A command, and the reply it must get.
    fn step(&mut self, random: &mut Random) -> (Vec<Vec<u8>>, Value) {
        let name = self.name.clone();
        let key = |random: &mut Random| format!("{name}:{}", random.below(40));
        let command = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect::<Vec<_>>();
        let a = key(random);
        match random.below(12) {
            0..=2 => {
                let value = format!("v{}", random.below(1000)).into_bytes();
                let line = command(&[b"SET", a.as_bytes(), &value]);
                self.keys.insert(a, value);
                (line, ok())
            }
            3..=5 => {
                let found = self.keys.get(&a).map_or(Value::Null, bulk);
                (command(&[b"GET", a.as_bytes()]), found)
            }
            6 => {
                let value = self.keys.entry(a.clone()).or_default();
                value.extend_from_slice(b"+x");
                (command(&[b"APPEND", a.as_bytes(), b"+x"]), Value::Int(value.len() as i64))
            }
            7 => {
                let names: Vec<String> = (0..1 + random.below(6)).map(|_| key(random)).collect();
                let values = names.iter().map(|name| self.keys.get(name).map_or(Value::Null, bulk)).collect();
                let mut line = command(&[b"MGET"]);
                line.extend(names.into_iter().map(String::into_bytes));
                (line, Value::Array(values))
            }
            8 => {
                let mut line = command(&[b"MSET"]);
                for _ in 0..1 + random.below(5) {
                    let (name, value) = (key(random), format!("m{}", random.below(1000)).into_bytes());
                    line.extend([name.clone().into_bytes(), value.clone()]);
                    self.keys.insert(name, value);
                }
                (line, ok())
            }
            9 => {
                let names: Vec<String> = (0..1 + random.below(4)).map(|_| key(random)).collect();
                let removed = names.iter().filter(|name| self.keys.remove(*name).is_some()).count();
                let mut line = command(&[b"DEL"]);
                line.extend(names.into_iter().map(String::into_bytes));
                (line, Value::Int(removed as i64))
            }
            10 => {
                let text = format!("echo{}", random.below(1000));
                (command(&[b"ECHO", text.as_bytes()]), bulk(&text))
            }
            _ => {
                let b = key(random);
                let line = command(&[b"RENAME", a.as_bytes(), b.as_bytes()]);
                match self.keys.remove(&a) {
                    None => (line, Value::Error("ERR no such key".into())),
                    Some(value) => {
                        self.keys.insert(b, value);
                        (line, ok())
                    }
                }
            }
        }
    }
}

/// Sends random pipelines and compares every reply with the model's.
fn converse(conn: &mut Conn, name: &str, seed: u64, rounds: usize) {
    let mut random = Random::new(seed);
    let mut model = Model { name: name.into(), keys: HashMap::new() };
    for round in 0..rounds {
        let steps: Vec<_> = (0..1 + random.below(100)).map(|_| model.step(&mut random)).collect();
        let bytes: Vec<u8> = steps.iter().flat_map(|(line, _)| encode(line)).collect();
        // In one write, or cut anywhere, also inside a command.
        let mut rest = &bytes[..];
        while random.one_in(2) && rest.len() > 1 {
            let (part, more) = rest.split_at(1 + random.below(rest.len() - 1));
            conn.send(part);
            rest = more;
        }
        conn.send(rest);
        for (at, (line, expected)) in steps.iter().enumerate() {
            let got = conn.read();
            let shown: Vec<_> = line.iter().map(|word| String::from_utf8_lossy(word)).collect();
            assert_eq!(&got, expected, "{shown:?}: command {at} of round {round} of {name}, seed {seed}");
        }
    }
}

fn conversations(placement: Placement, more: &[&str]) {
    let server = placement.start(more);
    std::thread::scope(|scope| {
        for c in 0..8 {
            let mut conn = server.connect();
            scope.spawn(move || converse(&mut conn, &format!("c{c}"), 1000 + c, 40));
        }
    });
}

#[test]
fn replies_come_in_the_order_of_requests() {
    everywhere(&[1, 4], |placement| conversations(placement, &[]));
}

#[test]
fn strict_pipeline_order_gives_the_same_replies() {
    everywhere(&[1, 4], |placement| conversations(placement, &["--pipeline-order", "strict"]));
}

#[test]
fn multi_inside_a_pipeline_keeps_its_place() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&[]);
        let mut conn = server.connect();
        let mut lines = Vec::new();
        for i in 0..50 {
            lines.push(format!("SET a{i} {i}"));
            lines.extend(["MULTI".into(), format!("INCR a{i}"), format!("MGET a{i} b{i}"), "EXEC".into()]);
            lines.push(format!("GET a{i}"));
        }
        let replies = conn.pipeline(&lines);
        let queued = Value::Simple("QUEUED".into());
        for (i, reply) in replies.chunks(6).enumerate() {
            let next = (i + 1).to_string();
            let both = Value::Array(vec![bulk(&next), Value::Null]);
            let exec = Value::Array(vec![Value::Int(i as i64 + 1), both]);
            assert_eq!(reply, [ok(), ok(), queued.clone(), queued.clone(), exec, bulk(&next)]);
        }
    });
}

/// With `strict`, whoever sees a later plain write of a pipeline sees the earlier ones.
#[test]
fn strict_order_holds_for_onlookers() {
    everywhere(&[4], |placement| {
        let server = placement.start(&["--pipeline-order", "strict"]);
        std::thread::scope(|scope| {
            let mut writer = server.connect();
            scope.spawn(move || {
                for n in 1..=1500 {
                    // The first key changes first; eight keys lie on several shards.
                    let lines: Vec<String> = (0..8).map(|k| format!("SET key{k} {n}")).collect();
                    assert!(writer.pipeline(&lines).iter().all(|reply| *reply == ok()));
                }
                assert_eq!(writer.cmd("SET end 1"), ok());
            });
            let mut reader = server.connect();
            scope.spawn(move || {
                let number = |value: &Value| match value {
                    Value::Null => 0,
                    value => String::from_utf8_lossy(value.bytes()).parse::<i64>().unwrap(),
                };
                while reader.cmd("GET end") == Value::Null {
                    // Read against the order of writing, one after the other: an earlier write may be newer, never older.
                    let seen: Vec<i64> = (0..8).rev().map(|k| number(&reader.cmd(&format!("GET key{k}")))).collect();
                    assert!(seen.is_sorted(), "{seen:?}");
                }
            });
        });
    });
}
