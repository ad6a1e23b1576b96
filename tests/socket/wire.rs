//! A client as plain as can be: it sends bytes, and takes replies apart without interpreting them.
//!
//! It keeps a reply's bytes beside its meaning, for the comparison with Redis is by bytes. It shares no code with the
//! server, whose parser and writer it checks.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// No reply is waited for longer than this.
const PATIENCE: Duration = Duration::from_secs(30);

/// A reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Simple(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Null,
    Array(Vec<Value>),
    /// RESP3: what is none of the above, with its type's byte.
    Other(u8, Vec<Value>),
}

impl Value {
    /// The bytes of a bulk string.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Value::Bulk(bytes) => bytes,
            other => panic!("not a bulk string: {other:?}"),
        }
    }

    pub fn int(&self) -> i64 {
        match self {
            Value::Int(n) => *n,
            other => panic!("not an integer: {other:?}"),
        }
    }

    pub fn items(&self) -> &[Value] {
        match self {
            Value::Array(items) => items,
            other => panic!("not an array: {other:?}"),
        }
    }

    pub fn error(&self) -> &str {
        match self {
            Value::Error(text) => text,
            other => panic!("not an error: {other:?}"),
        }
    }
}

pub fn ok() -> Value {
    Value::Simple("OK".into())
}

pub fn bulk(bytes: impl AsRef<[u8]>) -> Value {
    Value::Bulk(bytes.as_ref().to_vec())
}

pub trait Stream: Read + Write + Send {}
impl Stream for TcpStream {}
impl Stream for UnixStream {}

/// A connection.
pub struct Conn {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    at: usize,
}

impl Conn {
    pub fn tcp(stream: TcpStream) -> Conn {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Conn { stream: Box::new(stream), buffer: Vec::new(), at: 0 }
    }

    pub fn unix(stream: UnixStream) -> Conn {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Conn { stream: Box::new(stream), buffer: Vec::new(), at: 0 }
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the server takes what is sent");
    }

    /// The next reply and its bytes.
    pub fn try_read(&mut self) -> io::Result<(Value, Vec<u8>)> {
        loop {
            if let Some((value, end)) = parse(&self.buffer, self.at) {
                let raw = self.buffer[self.at..end].to_vec();
                self.at = end;
                if self.at == self.buffer.len() {
                    self.buffer.clear();
                    self.at = 0;
                }
                return Ok((value, raw));
            }
            if self.fill()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 64 * 1024];
        let n = loop {
            match self.stream.read(&mut chunk) {
                // The probe for io_uring leaves work to this process whose completion interrupts system calls.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.buffer.extend_from_slice(&chunk[..n]);
        Ok(n)
    }

    pub fn read(&mut self) -> Value {
        self.try_read().expect("a reply").0
    }

    /// All bytes up to the end of the connection; a reset counts as its end.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        loop {
            match self.fill() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("the connection should end: {error}"),
            }
        }
        let rest = self.buffer.split_off(self.at);
        self.buffer.clear();
        self.at = 0;
        rest
    }

    /// Sends one command and returns its reply.
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Value {
        self.send(&encode(args));
        self.read()
    }

    /// [`Self::call`] with the words of a line.
    pub fn cmd(&mut self, line: &str) -> Value {
        self.call(&words(line))
    }

    /// Sends commands in one write and returns their replies.
    pub fn pipeline(&mut self, lines: &[String]) -> Vec<Value> {
        let bytes: Vec<u8> = lines.iter().flat_map(|line| encode(&words(line))).collect();
        self.send(&bytes);
        lines.iter().map(|_| self.read()).collect()
    }
}

pub fn words(line: &str) -> Vec<&str> {
    line.split_ascii_whitespace().collect()
}

/// A command as clients send it.
pub fn encode<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// The reply at `at`, if all of it is there, and where it ends.
fn parse(buffer: &[u8], at: usize) -> Option<(Value, usize)> {
    let line_end = at + buffer[at..].windows(2).position(|pair| pair == b"\r\n")?;
    let text = || String::from_utf8_lossy(&buffer[at + 1..line_end]).into_owned();
    let number = || text().parse::<i64>().unwrap_or_else(|_| panic!("a number: {}", text()));
    let next = line_end + 2;
    match buffer[at] {
        b'+' => Some((Value::Simple(text()), next)),
        b'-' => Some((Value::Error(text()), next)),
        b':' => Some((Value::Int(number()), next)),
        b'_' => Some((Value::Null, next)),
        b'$' | b'=' | b'!' => {
            if number() < 0 {
                return Some((Value::Null, next));
            }
            let end = next + number() as usize;
            if buffer.len() < end + 2 {
                return None;
            }
            assert_eq!(&buffer[end..end + 2], b"\r\n", "a bulk string ends with CRLF");
            Some((Value::Bulk(buffer[next..end].to_vec()), end + 2))
        }
        b',' | b'#' | b'(' => Some((Value::Other(buffer[at], vec![Value::Simple(text())]), next)),
        kind @ (b'*' | b'%' | b'~' | b'>') => {
            if number() < 0 {
                return Some((Value::Null, next));
            }
            let count = number() as usize * if kind == b'%' { 2 } else { 1 };
            let (mut items, mut position) = (Vec::with_capacity(count.min(1024)), next);
            for _ in 0..count {
                if position >= buffer.len() {
                    return None;
                }
                let (item, end) = parse(buffer, position)?;
                items.push(item);
                position = end;
            }
            let value = if kind == b'*' { Value::Array(items) } else { Value::Other(kind, items) };
            Some((value, position))
        }
        other => panic!("no reply begins with {:?}: {:?}", other as char, buffer[at..].escape_ascii().to_string()),
    }
}

/// Numbers that look random and come again from the same seed (xorshift64*).
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (((self.next() >> 32) * n as u64) >> 32) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}
