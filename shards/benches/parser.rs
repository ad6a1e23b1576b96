//! The parser and the replies: ns for each command of a pipeline, as it is read from one buffer.

use divan::{Bencher, counter::ItemsCount};
use ringshard_shards::resp::{Limits, Parsed, Parser, Reply};

fn main() {
    divan::main();
}

const LIMITS: Limits = Limits { bulk_bytes: 512 << 20, authenticated: true };
const DEPTH: usize = 64;

fn wire(command: &[&str]) -> Vec<u8> {
    let mut one = format!("*{}\r\n", command.len());
    for arg in command {
        one += &format!("${}\r\n{arg}\r\n", arg.len());
    }
    one.repeat(DEPTH).into_bytes()
}

fn parse_all(input: &[u8]) -> usize {
    let (mut parser, mut args, mut at) = (Parser::default(), Vec::with_capacity(DEPTH * 16), 0);
    while let Parsed::Command { end } = parser.parse(&input[at..], at as u32, &mut args, &LIMITS) {
        at += end;
    }
    args.len()
}

#[divan::bench]
fn get(bencher: Bencher) {
    let input = wire(&["GET", "key:000000000001"]);
    bencher.counter(ItemsCount::new(DEPTH)).bench(|| parse_all(divan::black_box(&input)));
}

#[divan::bench]
fn set_of_64_bytes(bencher: Bencher) {
    let input = wire(&["SET", "key:000000000001", &"v".repeat(64)]);
    bencher.counter(ItemsCount::new(DEPTH)).bench(|| parse_all(divan::black_box(&input)));
}

#[divan::bench]
fn mget_of_10(bencher: Bencher) {
    let mut command = vec!["MGET"];
    command.resize(11, "key:000000000001");
    let input = wire(&command);
    bencher.counter(ItemsCount::new(DEPTH)).bench(|| parse_all(divan::black_box(&input)));
}

#[divan::bench]
fn bulk_reply_of_64_bytes(bencher: Bencher) {
    let (value, mut out) = ([b'v'; 64], Vec::with_capacity(DEPTH * 80));
    bencher.counter(ItemsCount::new(DEPTH)).bench_local(|| {
        out.clear();
        (0..DEPTH).for_each(|_| Reply::new(&mut out, 2).bulk(divan::black_box(&value)));
        out.len()
    });
}
