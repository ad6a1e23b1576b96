//! Requests in place: finds the arguments of the next command in a client's input without copying them.
//!
//! A command that has arrived whole costs one pass. One that has not leaves its state behind (arguments found,
//! arguments still to come), so a command of a million arguments that trickles in is still read once only. Redis's
//! counterpart is `processInlineBuffer` and `processMultibulkBuffer` in `networking.c`; limits and texts are theirs.

use memchr::memchr;

use crate::args::ArgRef;
use crate::limits::{BULK_MAX_UNAUTHENTICATED, INLINE_MAX_BYTES, MULTIBULK_MAX, MULTIBULK_MAX_UNAUTHENTICATED};
use crate::quote::split_args;

/// What a request may be at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `proto-max-bulk-len`: bytes of one argument.
    pub bulk_bytes: i64,
    /// Whether the client has authenticated; before, little is accepted.
    pub authenticated: bool,
}

/// Where the parser stands after looking for one command.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// One command whose arguments were appended; it ends at `end`, counted from the start of the input given.
    Command {
        /// First byte after the command.
        end: usize,
    },
    /// An empty command (`*0`, or an empty line), to be skipped.
    Nothing {
        /// First byte after it.
        end: usize,
    },
    /// An inline command: its words had to be unquoted, so they come as bytes of their own.
    Inline {
        /// First byte after it.
        end: usize,
        /// The words.
        words: Vec<Vec<u8>>,
    },
    /// More input is needed; give the same bytes again with more behind them.
    Incomplete,
    /// The client broke the protocol: Redis's text, after `ERR Protocol error: `.
    Broken(String),
}

/// The state of a command that has not arrived whole. All offsets count from the command's first byte.
#[derive(Debug, Default)]
pub struct Parser {
    /// Arguments found so far of an unfinished command.
    found: Vec<ArgRef>,
    /// Arguments still to come; 0 between commands.
    remaining: i64,
    /// Length of the argument whose bytes are awaited, or -1.
    bulk: i64,
    /// First byte not yet understood.
    position: usize,
}

impl Parser {
    /// Whether part of a command has been read.
    pub fn is_idle(&self) -> bool {
        self.remaining == 0
    }

    /// Bytes the unfinished argument still needs beyond `have`; what a reader may reserve for.
    pub fn wanted(&self, have: usize) -> usize {
        if self.remaining > 0 && self.bulk > 0 {
            (self.position + self.bulk as usize + 2).saturating_sub(have)
        } else {
            0
        }
    }

    /// Where the unfinished argument begins, when it is a large one (Redis: `PROTO_MBULK_BIG_ARG`).
    pub fn large_argument(&self) -> Option<usize> {
        (self.remaining > 0 && self.bulk >= 32 * 1024).then_some(self.position)
    }

    /// Bytes of memory held.
    pub fn memory(&self) -> usize {
        self.found.capacity() * size_of::<ArgRef>()
    }

    /// Looks for one command at the start of `input`; its arguments are appended to `args`, offset by `base`.
    ///
    /// After [`Parsed::Incomplete`] the next call must bring the same bytes again, and more.
    #[inline]
    pub fn parse(&mut self, input: &[u8], base: u32, args: &mut Vec<ArgRef>, limits: &Limits) -> Parsed {
        if self.remaining == 0 {
            match input.first() {
                None => return Parsed::Incomplete,
                Some(b'*') => {}
                Some(_) => return inline(input),
            }
            let (count, next) = match length_line(input, 1) {
                Line::Number(n, next) => (n, next),
                Line::Invalid => return Parsed::Broken("invalid multibulk length".into()),
                Line::Partial if input.len() > INLINE_MAX_BYTES => {
                    return Parsed::Broken("too big mbulk count string".into());
                }
                Line::Partial => return Parsed::Incomplete,
            };
            if count > MULTIBULK_MAX {
                return Parsed::Broken("invalid multibulk length".into());
            }
            if count > MULTIBULK_MAX_UNAUTHENTICATED && !limits.authenticated {
                return Parsed::Broken("unauthenticated multibulk length".into());
            }
            if count <= 0 {
                return Parsed::Nothing { end: next };
            }
            self.remaining = count;
            self.bulk = -1;
            self.position = next;
        }
        self.arguments(input, base, args, limits)
    }

    #[inline]
    fn arguments(&mut self, input: &[u8], base: u32, args: &mut Vec<ArgRef>, limits: &Limits) -> Parsed {
        let first = args.len();
        let mut position = self.position;
        let mut remaining = self.remaining;
        let mut bulk = self.bulk;
        let outcome = loop {
            if remaining == 0 {
                break Parsed::Command { end: position };
            }
            if bulk < 0 {
                match input.get(position) {
                    None => break Parsed::Incomplete,
                    Some(b'$') => {}
                    Some(&other) => {
                        break Parsed::Broken(format!("expected '$', got '{}'", printable(other)));
                    }
                }
                match length_line(input, position + 1) {
                    Line::Number(n, _) if n < 0 || n > limits.bulk_bytes => {
                        break Parsed::Broken("invalid bulk length".into());
                    }
                    Line::Number(n, _) if n > BULK_MAX_UNAUTHENTICATED && !limits.authenticated => {
                        break Parsed::Broken("unauthenticated bulk length".into());
                    }
                    Line::Number(n, next) => {
                        bulk = n;
                        position = next;
                    }
                    Line::Invalid => break Parsed::Broken("invalid bulk length".into()),
                    Line::Partial if input.len() - position > INLINE_MAX_BYTES => {
                        break Parsed::Broken("too big bulk count string".into());
                    }
                    Line::Partial => break Parsed::Incomplete,
                }
            }
            let end = position + bulk as usize;
            if input.len() < end + 2 {
                break Parsed::Incomplete;
            }
            args.push(ArgRef { start: base + position as u32, len: bulk as u32 });
            position = end + 2;
            remaining -= 1;
            bulk = -1;
        };
        match outcome {
            Parsed::Command { .. } => {
                if !self.found.is_empty() {
                    // The command came in pieces: the arguments found earlier go first.
                    let found = std::mem::take(&mut self.found);
                    args.splice(first..first, found.into_iter().map(|r| ArgRef { start: r.start + base, ..r }));
                }
                self.remaining = 0;
            }
            Parsed::Incomplete => {
                self.found.extend(args.drain(first..).map(|r| ArgRef { start: r.start - base, ..r }));
                (self.position, self.remaining, self.bulk) = (position, remaining, bulk);
            }
            _ => {
                args.truncate(first);
                self.remaining = 0;
                self.found = Vec::new();
            }
        }
        outcome
    }
}

fn printable(byte: u8) -> char {
    // Redis prints the byte as it is; a reply line must not be broken by it.
    match byte {
        b'\r' | b'\n' | 0 => ' ',
        other => other as char,
    }
}

enum Line {
    /// A number, and where the next line starts.
    Number(i64, usize),
    /// A whole line that is no number.
    Invalid,
    /// The line's end is not there yet.
    Partial,
}

/// The number between `start` and the next CR; the LF behind it is taken on trust, as Redis does.
#[inline]
fn length_line(input: &[u8], start: usize) -> Line {
    // One or two digits are by far the most common: no search.
    if let [d @ b'0'..=b'9', b'\r', b'\n', ..] = input[start.min(input.len())..] {
        return Line::Number((d - b'0') as i64, start + 3);
    }
    if let [d1 @ b'1'..=b'9', d2 @ b'0'..=b'9', b'\r', b'\n', ..] = input[start.min(input.len())..] {
        return Line::Number((d1 - b'0') as i64 * 10 + (d2 - b'0') as i64, start + 4);
    }
    let rest = &input[start.min(input.len())..];
    let Some(cr) = memchr(b'\r', &rest[..rest.len().min(INLINE_MAX_BYTES + 1)]) else { return Line::Partial };
    if rest.len() < cr + 2 {
        return Line::Partial;
    }
    match crate::number::parse_i64(&rest[..cr]) {
        Some(n) => Line::Number(n, start + cr + 2),
        None => Line::Invalid,
    }
}

fn inline(input: &[u8]) -> Parsed {
    let Some(newline) = memchr(b'\n', &input[..input.len().min(INLINE_MAX_BYTES + 1)]) else {
        return match input.len() > INLINE_MAX_BYTES {
            true => Parsed::Broken("too big inline request".into()),
            false => Parsed::Incomplete,
        };
    };
    let line = &input[..newline];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match split_args(line) {
        None => Parsed::Broken("unbalanced quotes in request".into()),
        Some(words) if words.is_empty() => Parsed::Nothing { end: newline + 1 },
        Some(words) => Parsed::Inline { end: newline + 1, words },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OPEN: Limits = Limits { bulk_bytes: 512 * 1024 * 1024, authenticated: true };

    fn words(input: &[u8], args: &[ArgRef]) -> Vec<Vec<u8>> {
        args.iter().map(|r| input[r.start as usize..(r.start + r.len) as usize].to_vec()).collect()
    }

    #[test]
    fn a_whole_command_is_found_in_place() {
        let input = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n";
        let mut args = Vec::new();
        assert_eq!(Parser::default().parse(input, 0, &mut args, &OPEN), Parsed::Command { end: 20 });
        assert_eq!(words(input, &args), [b"GET".to_vec(), b"k".to_vec()]);
    }

    #[test]
    fn malformed_input_gets_the_texts_of_redis() {
        let cases: [(&[u8], &str); 7] = [
            (b"*x\r\n", "invalid multibulk length"),
            (b"*2147483648\r\n", "invalid multibulk length"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$x\r\n", "invalid bulk length"),
            (b"*1\r\n:3\r\n", "expected '$', got ':'"),
            (b"set \"a\r\n", "unbalanced quotes in request"),
            (b"*1\r\n$2147483648\r\n", "invalid bulk length"),
        ];
        for (input, text) in cases {
            let got = Parser::default().parse(input, 0, &mut Vec::new(), &OPEN);
            assert_eq!(got, Parsed::Broken(text.into()), "{}", input.escape_ascii());
        }
        let long = vec![b'1'; INLINE_MAX_BYTES + 2];
        for (head, text) in [
            ("*", "too big mbulk count string"),
            ("*1\r\n$", "too big bulk count string"),
            ("", "too big inline request"),
        ] {
            let input = [head.as_bytes(), &long].concat();
            let got = Parser::default().parse(&input, 0, &mut Vec::new(), &OPEN);
            assert_eq!(got, Parsed::Broken(text.into()));
        }
        let closed = Limits { authenticated: false, ..OPEN };
        let got = Parser::default().parse(b"*11\r\n", 0, &mut Vec::new(), &closed);
        assert_eq!(got, Parsed::Broken("unauthenticated multibulk length".into()));
        let got = Parser::default().parse(b"*1\r\n$16385\r\n", 0, &mut Vec::new(), &closed);
        assert_eq!(got, Parsed::Broken("unauthenticated bulk length".into()));
    }

    proptest! {
        /// However the bytes are cut into reads, the same commands come out.
        #[test]
        fn cuts_do_not_matter(
            commands in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6), 1..6),
            cuts in prop::collection::vec(1usize..30, 1..40),
        ) {
            let mut wire = Vec::new();
            for command in &commands {
                wire.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
                for arg in command {
                    wire.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
                    wire.extend_from_slice(arg);
                    wire.extend_from_slice(b"\r\n");
                }
            }
            let (mut parser, mut buffer, mut got, mut sent) = (Parser::default(), Vec::new(), Vec::new(), 0);
            let mut cuts = cuts.iter().cycle();
            while sent < wire.len() {
                let end = (sent + cuts.next().unwrap()).min(wire.len());
                buffer.extend_from_slice(&wire[sent..end]);
                sent = end;
                loop {
                    // A base other than zero shows that offsets are moved as they should be.
                    let mut args = vec![ArgRef::default(); 3];
                    match parser.parse(&buffer, 7, &mut args, &OPEN) {
                        Parsed::Command { end } => {
                            let shifted: Vec<_> =
                                args[3..].iter().map(|r| ArgRef { start: r.start - 7, len: r.len }).collect();
                            got.push(words(&buffer, &shifted));
                            buffer.drain(..end);
                        }
                        Parsed::Incomplete => { prop_assert_eq!(args.len(), 3); break }
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
            }
            prop_assert_eq!(got, commands);
        }

        #[test]
        fn random_bytes_never_panic(input in prop::collection::vec(any::<u8>(), 0..200), star in any::<bool>()) {
            let input = if star { [b"*2\r\n$", input.as_slice()].concat() } else { input };
            let (mut parser, mut at) = (Parser::default(), 0);
            while let Parsed::Command { end } | Parsed::Nothing { end } | Parsed::Inline { end, .. } =
                parser.parse(&input[at..], 0, &mut Vec::new(), &OPEN)
            {
                prop_assert!(end > 0);
                at += end;
            }
        }
    }
}
