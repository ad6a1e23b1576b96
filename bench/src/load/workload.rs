//! Workloads: which commands are sent, in which mix, and what must come back.
//!
//! The one idea: a command is a line of text with placeholders, compiled once into segments, so that composing
//! a request is a few copies into the output buffer, and one table of lines serves the built-in workloads and
//! users' files alike. To add a workload, add a row to `builtin.rs`, or write a TOML file:
//!
//! ```toml
//! prefill = ["HSET hsh:{id} f {value}"]
//! [[op]]
//! weight = 9
//! command = "HGET hsh:{id} f"
//! reply = "value"
//! ```
//!
//! Placeholders: `{key}` (`key:` and twelve digits), `{id}` the digits alone, `{id1}`, `{id2}` … further keys of
//! the request, `{value}` the key's value, `{num}` the key's number without zeros, `{rand:LO:HI}` a number,
//! `{digits:W}` W random digits, `{now}` the send time in ns, `{keys:N}` N keys, `{pairs:N}` N keys each with its
//! value. Counterpart: redis-benchmark's `__rand_int__`, memtier's `--command`.

use super::builtin::BUILTIN;
use super::keys::{DIGITS, Distribution, Rng, Values, below, mix, write_digits};
use super::reply::{self, Head};
use serde::Deserialize;

/// Width of `{now}`.
const NOW_DIGITS: usize = 19;

/// A piece of a compiled command.
#[derive(Debug, Clone, PartialEq)]
enum Segment {
    /// Copied as it is, frame included.
    Bytes(Box<[u8]>),
    /// The twelve digits of the request's `j`th key.
    Id(u64),
    /// A whole argument: the value of the `j`th key.
    Value(u64),
    /// A whole argument: the key's number.
    Number,
    /// A whole argument: a random number of a range.
    Rand(u64, u64),
    /// Random digits inside an argument.
    Digits(usize),
    /// The send time, inside an argument.
    Now,
}

/// A request of fixed length.
#[derive(Debug, Clone, Default)]
struct Flat {
    /// All of it, with zeros for keys.
    bytes: Vec<u8>,
    /// Where the digits of which key go.
    places: Vec<(usize, u64)>,
}

/// What a request was made from; with it its reply can be checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Request {
    /// Nanoseconds (monotonic) from which latency counts.
    pub at: u64,
    /// Everything random follows from this.
    pub seed: u64,
    /// Its first key.
    pub key: u64,
    /// Index into [`Workload::ops`].
    pub op: u16,
}

/// What must come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// `+OK`
    Ok,
    /// `+PONG`
    Pong,
    /// Any integer.
    Integer,
    /// The value of the request's key; the flag admits nil.
    Value(bool),
    /// The values of its first n keys, in order; the flag admits nils.
    Values(u32, bool),
    /// A bulk string; the flag admits nil.
    Bulk(bool),
    /// An array, set or map, of this many elements when known (a map's pairs count twice, as in RESP2).
    Array(Option<u32>, bool),
    /// Anything but an error.
    Any,
}

impl Expect {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, nil) = match text.strip_suffix('?') {
            Some(name) => (name, true),
            None => (text, false),
        };
        let (name, count) = match name.split_once(':') {
            Some((name, n)) => (
                name,
                Some(
                    n.parse::<u32>()
                        .map_err(|_| format!("reply '{text}': '{n}' is no count"))?,
                ),
            ),
            None => (name, None),
        };
        match (name, count, nil) {
            ("ok", None, false) => Ok(Expect::Ok),
            ("pong", None, false) => Ok(Expect::Pong),
            ("int" | "integer", None, false) => Ok(Expect::Integer),
            ("value", None, nil) => Ok(Expect::Value(nil)),
            ("values", Some(n), nil) => Ok(Expect::Values(n, nil)),
            ("bulk", None, nil) => Ok(Expect::Bulk(nil)),
            ("array" | "map", n, nil) => Ok(Expect::Array(n, nil)),
            ("any", None, _) => Ok(Expect::Any),
            _ => Err(format!(
                "reply '{text}': use ok, pong, int, value[?], values:N[?], bulk[?], array[:N][?] or any"
            )),
        }
    }
}

/// One kind of request of a workload.
#[derive(Debug, Clone)]
pub struct Op {
    /// The line it was compiled from.
    pub text: String,
    /// The command's name in lower case, for reports.
    pub name: String,
    /// How often, beside the other ops' weights. Zero: only after another op.
    pub weight: u32,
    /// What must come back.
    pub expect: Expect,
    /// The request names a key that no one has written yet.
    pub inserts: bool,
    /// Once the reply is in, this op follows on the same connection with the same key.
    pub then: Option<u16>,
    segments: Vec<Segment>,
    /// The whole request where only keys change: its bytes, and where which key's digits go.
    flat: Option<Flat>,
    /// Literal text before the first key's digits, for its hash slot.
    key_prefix: Option<Vec<u8>>,
}

/// A compiled workload.
#[derive(Debug, Clone)]
pub struct Workload {
    /// As given on the command line.
    pub name: String,
    /// Commands that fill the keyspace, run once per key.
    pub prefill: Vec<Op>,
    /// The requests.
    pub ops: Vec<Op>,
    /// Subscribers receive what is published (see `lane.rs`).
    pub pubsub: bool,
    /// Number of keys unless told otherwise.
    pub default_keys: u64,
    /// Value size unless told otherwise.
    pub default_size: usize,
    total_weight: u64,
}

/// Name and description of every built-in workload.
pub fn builtin_names() -> impl Iterator<Item = (String, &'static str)> {
    BUILTIN.iter().map(|b| {
        (
            if b.n > 0 {
                format!("{}[:{}]", b.name, b.n)
            } else {
                b.name.to_owned()
            },
            b.about,
        )
    })
}

/// A workload file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    keys: Option<u64>,
    #[serde(default)]
    value_size: Option<usize>,
    #[serde(default)]
    prefill: Vec<String>,
    #[serde(rename = "op")]
    ops: Vec<FileOp>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileOp {
    #[serde(default = "one")]
    weight: u32,
    command: String,
    #[serde(default = "any")]
    reply: String,
    #[serde(default)]
    inserts: bool,
    /// Follows the op before it.
    #[serde(default)]
    follows: bool,
}

fn one() -> u32 {
    1
}

fn any() -> String {
    "any".to_owned()
}

/// Splits a command line into arguments; double quotes keep spaces, a backslash the next character.
fn split(line: &str) -> Result<Vec<String>, String> {
    let mut args = Vec::new();
    let mut arg: Option<String> = None;
    let mut quoted = false;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                quoted = !quoted;
                arg.get_or_insert_default();
            }
            '\\' => match chars.next() {
                Some('n') => arg.get_or_insert_default().push('\n'),
                Some(c) => arg.get_or_insert_default().push(c),
                None => return Err(format!("command '{line}': a backslash at the end")),
            },
            c if c.is_whitespace() && !quoted => args.extend(arg.take()),
            c => arg.get_or_insert_default().push(c),
        }
    }
    if quoted {
        return Err(format!("command '{line}': a quote is not closed"));
    }
    args.extend(arg);
    if args.is_empty() {
        Err("an empty command".to_owned())
    } else {
        Ok(args)
    }
}

impl Op {
    fn compile(line: &str, weight: u32, expect: Expect) -> Result<Op, String> {
        let bad = |what: &str| format!("command '{line}': {what}");
        let mut args = Vec::new();
        for arg in split(line)? {
            let many = |name: &str| {
                arg.strip_prefix(name)
                    .and_then(|r| r.strip_suffix('}'))
                    .map(str::parse::<u64>)
            };
            match (many("{keys:"), many("{pairs:")) {
                (Some(Ok(n)), _) if (1..=10_000).contains(&n) => {
                    args.extend((0..n).map(|j| format!("key:{{id{j}}}")));
                }
                (_, Some(Ok(n))) if (1..=10_000).contains(&n) => {
                    args.extend(
                        (0..n).flat_map(|j| [format!("key:{{id{j}}}"), format!("{{value{j}}}")]),
                    );
                }
                (None, None) => args.push(arg),
                _ => {
                    return Err(bad(
                        "N in {keys:N} and {pairs:N} is a number from 1 to 10000",
                    ));
                }
            }
        }
        let mut segments = Vec::new();
        let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
        let mut key_prefix = None;
        let flush = |bytes: &mut Vec<u8>, segments: &mut Vec<Segment>| {
            if !bytes.is_empty() {
                segments.push(Segment::Bytes(std::mem::take(bytes).into_boxed_slice()));
            }
        };
        for arg in &args {
            // Literals and placeholders of this argument.
            let mut parts: Vec<Segment> = Vec::new();
            let mut rest = arg.as_str();
            while let Some(open) = rest.find('{') {
                let close = rest[open..].find('}').map(|c| open + c);
                let inner = close.map(|close| &rest[open + 1..close]);
                let index = |inner: &str, name: &str| -> Option<u64> {
                    let n = inner.strip_prefix(name)?;
                    if n.is_empty() {
                        Some(0)
                    } else {
                        n.parse().ok()
                    }
                };
                let segment = match inner {
                    Some("key") => None,
                    Some("num") => Some(Segment::Number),
                    Some("now") => Some(Segment::Now),
                    Some(i) if index(i, "id").is_some() => index(i, "id").map(Segment::Id),
                    Some(i) if index(i, "value").is_some() => index(i, "value").map(Segment::Value),
                    Some(i) if i.starts_with("digits:") => match i[7..].parse() {
                        Ok(w @ 1..=18) => Some(Segment::Digits(w)),
                        _ => return Err(bad("{digits:W} takes 1 to 18")),
                    },
                    Some(i) if i.starts_with("rand:") => {
                        let range = i[5..]
                            .split_once(':')
                            .and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
                        match range {
                            Some((a, b)) if a <= b => Some(Segment::Rand(a, b)),
                            _ => {
                                return Err(bad("{rand:LO:HI} takes two numbers, the lower first"));
                            }
                        }
                    }
                    // A brace that is no placeholder (a hash tag) stands for itself.
                    _ => {
                        let stop = open + 1;
                        parts.push(Segment::Bytes(rest.as_bytes()[..stop].into()));
                        rest = &rest[stop..];
                        continue;
                    }
                };
                if open > 0 {
                    parts.push(Segment::Bytes(rest.as_bytes()[..open].into()));
                }
                match segment {
                    Some(s) => parts.push(s),
                    None => {
                        parts.extend([Segment::Bytes(b"key:".as_slice().into()), Segment::Id(0)])
                    }
                }
                rest = &rest[close.map_or(rest.len(), |c| c + 1)..];
            }
            if !rest.is_empty() {
                parts.push(Segment::Bytes(rest.as_bytes().into()));
            }
            if let [whole @ (Segment::Value(_) | Segment::Number | Segment::Rand(..))] =
                parts.as_slice()
            {
                flush(&mut bytes, &mut segments);
                segments.push(whole.clone());
                continue;
            }
            let mut len = 0;
            for (i, part) in parts.iter().enumerate() {
                len += match part {
                    Segment::Bytes(b) => b.len(),
                    Segment::Id(_) => DIGITS,
                    Segment::Digits(w) => *w,
                    Segment::Now => NOW_DIGITS,
                    _ => return Err(bad("{value}, {num} and {rand} are arguments of their own")),
                };
                if *part == Segment::Id(0) && key_prefix.is_none() {
                    let before = parts[..i].iter().filter_map(|p| match p {
                        Segment::Bytes(b) => Some(b.as_ref()),
                        _ => None,
                    });
                    key_prefix = Some(before.flatten().copied().collect());
                }
            }
            bytes.extend_from_slice(format!("${len}\r\n").as_bytes());
            for part in parts {
                match part {
                    Segment::Bytes(b) => bytes.extend_from_slice(&b),
                    other => {
                        flush(&mut bytes, &mut segments);
                        segments.push(other);
                    }
                }
            }
            bytes.extend_from_slice(b"\r\n");
        }
        flush(&mut bytes, &mut segments);
        let flat = flatten(&segments);
        let name = split(line)?[0].to_lowercase();
        Ok(Op {
            text: line.to_owned(),
            name,
            weight,
            expect,
            inserts: false,
            then: None,
            segments,
            flat,
            key_prefix,
        })
    }

    /// Appends the request to `out`. `now` only shows where the command says `{now}`.
    #[inline]
    pub fn compose(&self, out: &mut Vec<u8>, request: &Request, source: &Source<'_>, now: u64) {
        // One copy and a few digits: measured at a third less than going through segments.
        if let Some(Flat { bytes, places }) = &self.flat {
            let start = out.len();
            out.extend_from_slice(bytes);
            for &(offset, j) in places {
                if let Some(digits) = out[start + offset..].first_chunk_mut::<DIGITS>() {
                    write_digits(digits, source.key_of(request, j));
                }
            }
            return;
        }
        let mut extra = request.seed ^ 0x51ed_270b_27b4_f3cf;
        let mut random = || {
            extra = extra.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(extra)
        };
        for segment in &self.segments {
            match segment {
                Segment::Bytes(b) => out.extend_from_slice(b),
                Segment::Id(j) => {
                    let mut digits = [0; DIGITS];
                    write_digits(&mut digits, source.key_of(request, *j));
                    out.extend_from_slice(&digits);
                }
                Segment::Value(j) => {
                    let key = source.key_of(request, *j);
                    write_frame(out, source.values.len_of(key) as u64);
                    source.values.write(out, key);
                    out.extend_from_slice(b"\r\n");
                }
                Segment::Number => write_number(out, request.key),
                Segment::Rand(lo, hi) => write_number(out, lo + below(random(), hi - lo + 1)),
                Segment::Digits(w) => {
                    let mut r = random();
                    for _ in 0..*w {
                        out.push(b'0' + (r % 10) as u8);
                        r /= 10;
                    }
                }
                Segment::Now => {
                    use std::io::Write;
                    // A Vec takes any write.
                    let _ = write!(out, "{now:0width$}", width = NOW_DIGITS);
                }
            }
        }
    }

    /// The hash slot of the request's first key, if it names one.
    pub fn slot(&self, key: u64) -> Option<u16> {
        let mut name = self.key_prefix.clone()?;
        let mut digits = [0; DIGITS];
        write_digits(&mut digits, key);
        name.extend_from_slice(&digits);
        Some(super::cluster::slot(&name))
    }

    /// How many keys the request names (at least those it names by placeholder).
    pub fn keys(&self) -> usize {
        let ids = self.segments.iter().filter_map(|s| match s {
            Segment::Id(j) => Some(*j as usize + 1),
            _ => None,
        });
        ids.max().unwrap_or(0)
    }

    /// How many values its reply may hold, for the size of receive buffers.
    pub fn reply_values(&self) -> usize {
        match self.expect {
            Expect::Values(n, _) | Expect::Array(Some(n), _) => n as usize,
            _ => 1,
        }
    }

    /// Whether the first key decides where the request must go.
    pub fn has_key(&self) -> bool {
        self.key_prefix.is_some()
    }
}

/// Joins segments into one run of bytes, if all that varies is of fixed width.
fn flatten(segments: &[Segment]) -> Option<Flat> {
    let mut flat = Flat::default();
    for segment in segments {
        match segment {
            Segment::Bytes(b) => flat.bytes.extend_from_slice(b),
            Segment::Id(j) => {
                flat.places.push((flat.bytes.len(), *j));
                flat.bytes.extend_from_slice(&[b'0'; DIGITS]);
            }
            _ => return None,
        }
    }
    Some(flat)
}

fn write_frame(out: &mut Vec<u8>, len: u64) {
    let mut text = [0u8; 24];
    let mut at = text.len() - 2;
    text[at..].copy_from_slice(b"\r\n");
    let mut n = len;
    loop {
        at -= 1;
        text[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    at -= 1;
    text[at] = b'$';
    out.extend_from_slice(&text[at..]);
}

fn write_number(out: &mut Vec<u8>, n: u64) {
    let text = n.to_string();
    write_frame(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Where keys and values come from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// How keys are drawn.
    pub distribution: &'a Distribution,
    /// How many there are.
    pub keys: u64,
    /// Their values.
    pub values: &'a Values,
}

impl Source<'_> {
    /// The `j`th key of a request.
    #[inline]
    pub fn key_of(&self, request: &Request, j: u64) -> u64 {
        if j == 0 {
            request.key
        } else {
            self.distribution.key(request.seed, j, self.keys)
        }
    }
}

/// How a reply was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it must be.
    Right,
    /// As it must be, and nil.
    Miss,
    /// An error reply.
    Error,
    /// Of another type or value.
    Wrong,
}

impl Workload {
    /// The built-in workload of this name (`mget:20`), or the file at this path (`@FILE` or `*.toml`).
    pub fn load(text: &str) -> Result<Workload, String> {
        if let Some(path) = text
            .strip_prefix('@')
            .or_else(|| text.ends_with(".toml").then_some(text))
        {
            let content =
                std::fs::read_to_string(path).map_err(|e| format!("workload file {path}: {e}"))?;
            return Workload::from_toml(text, &content);
        }
        let (name, n) = match text.split_once(':') {
            Some((name, n)) => {
                let n: u64 = n
                    .parse()
                    .map_err(|_| format!("workload '{text}': '{n}' is no number"))?;
                (name, Some(n))
            }
            None => (text, None),
        };
        let Some(b) = BUILTIN.iter().find(|b| b.name == name) else {
            let names: Vec<String> = builtin_names().map(|(name, _)| name).collect();
            return Err(format!(
                "no workload '{name}'; there are {}, or a file: @FILE",
                names.join(", ")
            ));
        };
        if n.is_some() && b.n == 0 {
            return Err(format!("workload '{name}' takes no number"));
        }
        let n = n.unwrap_or(b.n);
        if name == "mixed" && n > 100 {
            return Err("workload 'mixed:N': N is a percentage".to_owned());
        }
        let fill = |line: &str| {
            line.replace(":N}", &format!(":{n}}}"))
                .replace(" N", &format!(" {n}"))
        };
        let mut ops = Vec::new();
        for (weight, command, reply) in b.ops {
            let expect = Expect::parse(&reply.replace(":N", &format!(":{n}")))?;
            let weight_number = match weight.trim_start_matches('!') {
                "+" => 0,
                "W" => n as u32,
                "V" => 100 - n as u32,
                w => w
                    .parse()
                    .map_err(|_| format!("workload '{name}': weight {w}"))?,
            };
            let mut op = Op::compile(&fill(command), weight_number, expect)?;
            op.inserts = weight.starts_with('!');
            if *weight == "+" {
                Self::follow(&mut ops)?;
            }
            ops.push(op);
        }
        let prefill = b
            .prefill
            .iter()
            .map(|l| Op::compile(&fill(l), 1, Expect::Any))
            .collect::<Result<_, _>>()?;
        let keys = if name == "publish" { n.max(1) } else { b.keys };
        Self::build(text, prefill, ops, keys, b.size, name == "publish")
    }

    /// Reads a workload file's text.
    pub fn from_toml(name: &str, content: &str) -> Result<Workload, String> {
        let file: File =
            toml::from_str(content).map_err(|e| format!("workload file {name}: {e}"))?;
        let mut ops = Vec::new();
        for f in &file.ops {
            let mut op = Op::compile(
                &f.command,
                if f.follows { 0 } else { f.weight },
                Expect::parse(&f.reply)?,
            )?;
            op.inserts = f.inserts;
            if f.follows {
                Self::follow(&mut ops)?;
            }
            ops.push(op);
        }
        let prefill = file
            .prefill
            .iter()
            .map(|l| Op::compile(l, 1, Expect::Any))
            .collect::<Result<_, _>>()?;
        Self::build(
            name,
            prefill,
            ops,
            file.keys.unwrap_or(100_000),
            file.value_size.unwrap_or(32),
            false,
        )
    }

    fn follow(ops: &mut [Op]) -> Result<(), String> {
        let next = ops.len() as u16;
        let last = ops.last_mut().ok_or("the first op follows no other")?;
        last.then = Some(next);
        Ok(())
    }

    fn build(
        name: &str,
        prefill: Vec<Op>,
        ops: Vec<Op>,
        default_keys: u64,
        default_size: usize,
        pubsub: bool,
    ) -> Result<Workload, String> {
        let total_weight = ops.iter().map(|op| u64::from(op.weight)).sum();
        if total_weight == 0 {
            return Err(format!("workload '{name}': no op has a weight"));
        }
        Ok(Workload {
            name: name.to_owned(),
            prefill,
            ops,
            pubsub,
            default_keys,
            default_size,
            total_weight,
        })
    }

    /// The workload that fills the keyspace for this one, with the given fill command.
    pub fn of_prefill(&self, index: usize) -> Workload {
        Workload {
            name: format!("{} (pre-fill)", self.name),
            prefill: Vec::new(),
            ops: vec![self.prefill[index].clone()],
            pubsub: false,
            default_keys: self.default_keys,
            default_size: self.default_size,
            total_weight: 1,
        }
    }

    /// Draws the op of a request.
    #[inline]
    pub fn draw(&self, rng: &mut Rng) -> u16 {
        if self.ops.len() == 1 {
            return 0;
        }
        let mut at = below(rng.next(), self.total_weight);
        for (i, op) in self.ops.iter().enumerate() {
            let weight = u64::from(op.weight);
            if at < weight {
                return i as u16;
            }
            at -= weight;
        }
        0
    }

    /// The common replies, known at a glance: the length of the reply at the start of `buf` if it is the right one
    /// and whole. `None` means «look closer», not «wrong».
    #[inline]
    pub fn glance(&self, request: &Request, buf: &[u8], values: &Values) -> Option<usize> {
        match self.ops[request.op as usize].expect {
            Expect::Ok => buf.starts_with(b"+OK\r\n").then_some(5),
            Expect::Pong => buf.starts_with(b"+PONG\r\n").then_some(7),
            Expect::Value(_) => {
                if buf.first() != Some(&b'$') {
                    return None;
                }
                let mut at = 1;
                let mut len = 0usize;
                while let Some(d) = buf
                    .get(at)
                    .map(|b| b.wrapping_sub(b'0'))
                    .filter(|&d| d < 10 && at < 10)
                {
                    len = len * 10 + d as usize;
                    at += 1;
                }
                let body = at + 2;
                let end = body + len + 2;
                let whole = at > 1
                    && end <= buf.len()
                    && &buf[at..body] == b"\r\n"
                    && &buf[end - 2..end] == b"\r\n";
                (whole && values.is_value(&buf[body..end - 2], request.key)).then_some(end)
            }
            _ => None,
        }
    }

    /// Judges a whole reply.
    pub fn judge(&self, request: &Request, buf: &[u8], source: &Source<'_>) -> Verdict {
        let Some((head, after)) = reply::head(buf) else {
            return Verdict::Wrong;
        };
        let right = |yes: bool| if yes { Verdict::Right } else { Verdict::Wrong };
        match (self.ops[request.op as usize].expect, head) {
            (_, Head::Error(_)) => Verdict::Error,
            (Expect::Any, _) => Verdict::Right,
            (Expect::Ok, Head::Status(s)) => right(s == b"OK"),
            (Expect::Pong, Head::Status(s)) => right(s == b"PONG"),
            (Expect::Integer, Head::Integer(_)) => Verdict::Right,
            (Expect::Value(_), Head::Bulk(b)) => right(source.values.is_value(b, request.key)),
            (Expect::Bulk(_), Head::Bulk(_)) => Verdict::Right,
            (Expect::Value(true) | Expect::Bulk(true) | Expect::Array(_, true), Head::Nil) => {
                Verdict::Miss
            }
            (Expect::Array(n, _), Head::Array(got)) => right(n.is_none_or(|n| i64::from(n) == got)),
            (Expect::Array(n, _), Head::Map(got)) => {
                right(n.is_none_or(|n| i64::from(n) == 2 * got))
            }
            (Expect::Values(n, nil_ok), Head::Array(got)) if i64::from(n) == got => {
                let mut at = after;
                let mut verdict = Verdict::Right;
                for j in 0..u64::from(n) {
                    match reply::head(&buf[at..]) {
                        Some((Head::Bulk(b), used))
                            if source.values.is_value(b, source.key_of(request, j)) =>
                        {
                            at += used
                        }
                        Some((Head::Nil, used)) if nil_ok => {
                            at += used;
                            verdict = Verdict::Miss;
                        }
                        _ => return Verdict::Wrong,
                    }
                }
                verdict
            }
            _ => Verdict::Wrong,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::ValueSize;
    use super::*;

    fn compose(line: &str, key: u64) -> String {
        let op = Op::compile(line, 1, Expect::Any).unwrap();
        let values = Values::new(ValueSize::Fixed(3));
        let distribution = Distribution::Sequential;
        let source = Source {
            distribution: &distribution,
            keys: 100,
            values: &values,
        };
        let mut out = Vec::new();
        op.compose(
            &mut out,
            &Request {
                key,
                seed: key,
                ..Request::default()
            },
            &source,
            5,
        );
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn commands_are_framed() {
        assert_eq!(compose("PING", 0), "*1\r\n$4\r\nPING\r\n");
        assert_eq!(
            compose("GET {key}", 42),
            "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000042\r\n"
        );
        assert_eq!(
            compose("MGET {keys:2}", 99),
            "*3\r\n$4\r\nMGET\r\n$16\r\nkey:000000000099\r\n$16\r\nkey:000000000000\r\n"
        );
        assert_eq!(
            compose("ECHO \"a {tag} b\"", 0),
            "*2\r\n$4\r\nECHO\r\n$9\r\na {tag} b\r\n"
        );
        assert_eq!(compose("X {num}", 7), "*2\r\n$1\r\nX\r\n$1\r\n7\r\n");
        assert!(compose("PUBLISH c {now}", 0).ends_with("$19\r\n0000000000000000005\r\n"));
    }

    #[test]
    fn every_builtin_composes_whole_commands() {
        // A request has the shape of a reply, so the reply scanner can count it.
        for b in BUILTIN {
            let w = Workload::load(b.name).unwrap();
            let values = Values::new(ValueSize::Uniform(1, 50));
            let distribution = Distribution::parse("zipfian", 1000).unwrap();
            let source = Source {
                distribution: &distribution,
                keys: 1000,
                values: &values,
            };
            let mut rng = Rng::new(3);
            for op in w.ops.iter().chain(&w.prefill) {
                for _ in 0..50 {
                    let seed = rng.next();
                    let request = Request {
                        seed,
                        key: distribution.key(seed, 0, 1000),
                        ..Request::default()
                    };
                    let mut out = Vec::new();
                    op.compose(&mut out, &request, &source, 1);
                    assert_eq!(
                        reply::scan(&out),
                        Ok(reply::Scan::Done(out.len())),
                        "{}: {}",
                        b.name,
                        op.name
                    );
                }
            }
        }
    }

    #[test]
    fn weights_are_kept() {
        let w = Workload::load("mixed:80").unwrap();
        let mut rng = Rng::new(1);
        let gets = (0..100_000).filter(|_| w.draw(&mut rng) == 0).count();
        assert!((79_000..81_000).contains(&gets), "{gets}");
    }

    #[test]
    fn replies_are_judged() {
        let w = Workload::load("get").unwrap();
        let values = Values::new(ValueSize::Fixed(20));
        let distribution = Distribution::Uniform;
        let source = Source {
            distribution: &distribution,
            keys: 100,
            values: &values,
        };
        let request = Request {
            key: 5,
            ..Request::default()
        };
        let mut good = b"$20\r\n".to_vec();
        values.write(&mut good, 5);
        good.extend_from_slice(b"\r\n");
        assert_eq!(w.glance(&request, &good, &values), Some(good.len()));
        assert_eq!(w.glance(&request, &good[..good.len() - 1], &values), None);
        assert_eq!(w.judge(&request, &good, &source), Verdict::Right);
        assert_eq!(
            w.judge(&Request { key: 6, ..request }, &good, &source),
            Verdict::Wrong
        );
        assert_eq!(w.judge(&request, b"$-1\r\n", &source), Verdict::Wrong);
        assert_eq!(w.judge(&request, b"-ERR x\r\n", &source), Verdict::Error);
        assert_eq!(w.judge(&request, b"+OK\r\n", &source), Verdict::Wrong);
    }

    #[test]
    fn mget_values_are_checked_in_order() {
        let w = Workload::load("mget:2").unwrap();
        let values = Values::new(ValueSize::Fixed(4));
        let distribution = Distribution::Sequential;
        let source = Source {
            distribution: &distribution,
            keys: 100,
            values: &values,
        };
        let reply = |a: u64, b: u64| {
            let mut out = b"*2\r\n$4\r\n".to_vec();
            values.write(&mut out, a);
            out.extend_from_slice(b"\r\n$4\r\n");
            values.write(&mut out, b);
            out.extend_from_slice(b"\r\n");
            out
        };
        let request = Request {
            key: 8,
            seed: 8,
            ..Request::default()
        };
        assert_eq!(w.judge(&request, &reply(8, 9), &source), Verdict::Right);
        assert_eq!(w.judge(&request, &reply(9, 8), &source), Verdict::Wrong);
    }

    #[test]
    fn files_are_read_and_bad_ones_named() {
        let w = Workload::from_toml(
            "t",
            "keys = 10\nprefill = [\"SET {key} {value}\"]\n[[op]]\ncommand = \"GET {key}\"\nreply = \"value\"\n\
             [[op]]\ncommand = \"SET {key} {value}\"\nfollows = true\n",
        )
        .unwrap();
        assert_eq!(
            (w.ops[0].then, w.ops[1].weight, w.default_keys),
            (Some(1), 0, 10)
        );
        for bad in [
            "",
            "[[op]]\ncommand = \"\"",
            "[[op]]\ncommand=\"GET {key}\"\nreply=\"vlaue\"",
            "x = 1",
        ] {
            assert!(Workload::from_toml("t", bad).is_err(), "{bad}");
        }
        for bad in ["get:3", "nothing", "mget:x", "mixed:101", "mget:0"] {
            assert!(Workload::load(bad).is_err(), "{bad}");
        }
    }
}
