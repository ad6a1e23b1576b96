//! The log's format, read: commands as clients send them, and lines that begin with `#`, which say something about what
//! follows.
//!
//! ```text
//! #TS:1700000000                    the second from which on it was written
//! #RS:TX:17:b:86                    what the next 86 bytes hold is part of command 17, which is told in the logs of
//!                                   shards 0, 1 and 3 (bits of a hexadecimal number)
//! *3 $3 SET $1 k $1 v               each word's length, and the word, with an end of line behind each
//! ```
//!
//! [`parse`] takes one item from bytes at hand. [`Scan`] looks through a whole log, and finds where its last whole
//! command ends. Counterpart: `loadSingleAppendOnlyFile`, `redis-check-aof.c`.

use std::sync::Arc;

use crate::args::ArgRef;
use crate::propagate::Mark;
use crate::router::ShardId;

/// Longest line that is read as one.
pub const LINE_MAX: usize = 1024;

/// Most words of a command: far more than any client may send.
const WORDS_MAX: usize = 1 << 27;

/// One item at the start of some bytes; `end` is where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A command; its words' places were added.
    Command {
        /// Where it ends.
        end: usize,
    },
    /// A line that begins with `#`, its end of line included.
    Note {
        /// Where it ends.
        end: usize,
    },
    /// More bytes are needed, at least so many in all.
    Incomplete(usize),
    /// This is no log.
    Bad(&'static str),
}

/// Where the line at `at` ends, and where the next one begins.
fn line(bytes: &[u8], at: usize) -> Result<(usize, usize), Parsed> {
    let rest = &bytes[at..];
    let window = &rest[..rest.len().min(LINE_MAX)];
    match memchr::memchr(b'\n', window) {
        Some(n) => Ok((at + n - usize::from(n > 0 && rest[n - 1] == b'\r'), at + n + 1)),
        None if rest.len() >= LINE_MAX => Err(Parsed::Bad("a line is too long")),
        None => Err(Parsed::Incomplete(bytes.len() + 1)),
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0usize, |n, digit| n * 10 + (digit - b'0') as usize))
}

/// Takes one item from the start of `bytes`, and adds the places of a command's words to `refs`.
pub fn parse(bytes: &[u8], refs: &mut Vec<ArgRef>) -> Parsed {
    let first = refs.len();
    match parse_item(bytes, refs) {
        Ok(parsed) => parsed,
        Err(parsed) => {
            refs.truncate(first);
            parsed
        }
    }
}

fn parse_item(bytes: &[u8], refs: &mut Vec<ArgRef>) -> Result<Parsed, Parsed> {
    let Some(mark) = bytes.first() else { return Err(Parsed::Incomplete(1)) };
    if *mark == b'#' {
        return line(bytes, 0).map(|(_, end)| Parsed::Note { end });
    }
    if *mark != b'*' {
        return Err(Parsed::Bad("a command does not begin with its number of words"));
    }
    let (end, mut at) = line(bytes, 0)?;
    let words = number(&bytes[1..end]).filter(|n| (1..=WORDS_MAX).contains(n));
    let words = words.ok_or(Parsed::Bad("a command's number of words is none"))?;
    for _ in 0..words {
        match bytes.get(at) {
            None => return Err(Parsed::Incomplete(at + 1)),
            Some(b'$') => {}
            Some(_) => return Err(Parsed::Bad("a word does not begin with its length")),
        }
        let (end, start) = line(bytes, at)?;
        let len = number(&bytes[at + 1..end]).ok_or(Parsed::Bad("a word's length is none"))?;
        let next = start.checked_add(len).and_then(|n| n.checked_add(2)).ok_or(Parsed::Bad("a word is too long"))?;
        if next > u32::MAX as usize {
            return Err(Parsed::Bad("a command is too long"));
        }
        if bytes.len() < next {
            return Err(Parsed::Incomplete(next));
        }
        if &bytes[next - 2..next] != b"\r\n" {
            return Err(Parsed::Bad("no end of line stands behind a word"));
        }
        refs.push(ArgRef { start: start as u32, len: len as u32 });
        at = next;
    }
    Ok(Parsed::Command { end: at })
}

/// What a line that begins with `#` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The time, Unix seconds.
    Time(i64),
    /// What follows is told in several logs: the command's number, whose logs, and how many bytes.
    Spanning(u64, Vec<ShardId>, u64),
    /// Something else.
    Other,
}

/// Understands a line, with or without its end.
pub fn note(line: &[u8]) -> Note {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Ok(text) = std::str::from_utf8(line) else { return Note::Other };
    if let Some(digits) = text.strip_prefix("#TS:") {
        return digits.parse().map_or(Note::Other, Note::Time);
    }
    let Some(fields) = text.strip_prefix("#RS:TX:") else { return Note::Other };
    let mut fields = fields.split(':');
    let spanning = (|| {
        let number = fields.next()?.parse().ok()?;
        let set = fields.next()?;
        let len = fields.next()?.parse().ok()?;
        Some((number, shards_of(set)?, len))
    })();
    match spanning {
        Some((number, shards, len)) if fields.next().is_none() => Note::Spanning(number, shards, len),
        _ => Note::Other,
    }
}

/// A set of shards as a hexadecimal number, a bit each.
pub fn set_of(shards: &[ShardId]) -> String {
    let highest = shards.iter().copied().max().unwrap_or(0) as usize;
    let mut nibbles = vec![0u8; highest / 4 + 1];
    for shard in shards {
        nibbles[*shard as usize / 4] |= 1 << (shard % 4);
    }
    nibbles.iter().rev().map(|nibble| char::from_digit(u32::from(*nibble), 16).expect("four bits")).collect()
}

/// What [`set_of`] wrote.
pub fn shards_of(set: &str) -> Option<Vec<ShardId>> {
    if set.is_empty() || set.len() > LINE_MAX {
        return None;
    }
    let mut shards = Vec::new();
    for (at, digit) in set.chars().rev().enumerate() {
        let nibble = digit.to_digit(16)?;
        shards.extend((0..4).filter(|bit| nibble & 1 << bit != 0).map(|bit| (at * 4 + bit) as ShardId));
    }
    (!shards.is_empty()).then_some(shards)
}

/// How a log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With a whole command.
    Whole,
    /// In the middle of a command, or of several that belong together.
    Truncated {
        /// They belong together by `MULTI`.
        in_multi: bool,
    },
    /// With what no log holds; where, and why.
    Bad(u64, &'static str),
}

/// What a look through a log found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Where the last whole command ends.
    pub valid: u64,
    /// How it ends.
    pub end: End,
    /// Commands over several slices that it tells of, in order.
    pub marks: Vec<Mark>,
    /// Commands in it, up to `valid`.
    pub commands: u64,
    /// Where what was written later than asked for begins.
    pub too_late: Option<u64>,
}

/// Looks through a log as its bytes come.
pub struct Scan {
    /// Bytes that are not yet understood.
    rest: Vec<u8>,
    /// Bytes of `rest` that are needed before it is worth looking again.
    wanted: usize,
    /// Where `rest` begins.
    offset: u64,
    found: Scanned,
    /// `MULTI` was seen and `EXEC` was not.
    in_multi: bool,
    /// The command over several slices that is under way, and where it ends.
    spanning: Option<Mark>,
    refs: Vec<ArgRef>,
    until: Option<i64>,
}

impl Scan {
    /// A look from the beginning, or from what stands behind a snapshot; what was written after the second `until` is
    /// marked.
    pub fn new(offset: u64, until: Option<i64>) -> Self {
        let found = Scanned { valid: offset, end: End::Whole, marks: Vec::new(), commands: 0, too_late: None };
        Scan { rest: Vec::new(), wanted: 1, offset, found, in_multi: false, spanning: None, refs: Vec::new(), until }
    }

    /// Takes more bytes; `each` sees every command. False when no more are of use.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8], &[ArgRef])) -> bool {
        if matches!(self.found.end, End::Bad(..)) {
            return false;
        }
        self.rest.extend_from_slice(bytes);
        if self.rest.len() < self.wanted {
            return true;
        }
        let rest = std::mem::take(&mut self.rest);
        let mut at = 0;
        loop {
            self.refs.clear();
            match parse(&rest[at..], &mut self.refs) {
                Parsed::Command { end } => {
                    let command = &rest[at..at + end];
                    each(command, &self.refs);
                    let word =
                        |n: usize| self.refs.get(n).map(|r| &command[r.start as usize..(r.start + r.len) as usize]);
                    let name = word(0).unwrap_or_default();
                    if self.refs.len() == 1 && name.eq_ignore_ascii_case(b"multi") {
                        self.in_multi = true;
                    } else if self.refs.len() == 1 && name.eq_ignore_ascii_case(b"exec") {
                        self.in_multi = false;
                    }
                    self.found.commands += 1;
                    at += end;
                    self.passed(at);
                }
                Parsed::Note { end } => {
                    let said = note(&rest[at..at + end]);
                    let start = self.offset + at as u64;
                    at += end;
                    match said {
                        Note::Spanning(number, shards, len) if !self.in_multi && self.spanning.is_none() => {
                            let end = self.offset + at as u64 + len;
                            self.spanning = Some(Mark { number, participants: Arc::from(shards), start, end });
                        }
                        Note::Time(seconds) if self.until.is_some_and(|until| seconds > until) => {
                            self.found.too_late.get_or_insert(start);
                        }
                        _ => {}
                    }
                    self.passed(at);
                }
                Parsed::Incomplete(needed) => {
                    // Twice as much each time at least: a long command is not looked through again for each read.
                    self.wanted = needed;
                    break;
                }
                Parsed::Bad(_) if rest[at..].iter().all(|byte| *byte == 0) => {
                    // What some file systems leave of bytes that were never written: as good as nothing.
                    self.wanted = 2 * (rest.len() - at) + 1;
                    break;
                }
                Parsed::Bad(reason) => {
                    self.found.end = End::Bad(self.offset + at as u64, reason);
                    break;
                }
            }
        }
        self.offset += at as u64;
        self.rest = rest;
        self.rest.drain(..at);
        !matches!(self.found.end, End::Bad(..))
    }

    /// What ends at `at` was whole.
    fn passed(&mut self, at: usize) {
        let offset = self.offset + at as u64;
        if let Some(mark) = &self.spanning {
            if offset < mark.end {
                return;
            }
            if offset > mark.end {
                self.found.end = End::Bad(offset, "what several logs tell of is of another length than it says");
                return;
            }
            self.found.marks.extend(self.spanning.take());
        }
        if !self.in_multi {
            self.found.valid = offset;
        }
    }

    /// Bytes without which nothing more can be understood, counted from the last ones that were.
    pub fn wanted(&self) -> usize {
        self.wanted.saturating_sub(self.rest.len())
    }

    /// The bytes have come to their end.
    pub fn finish(mut self) -> Scanned {
        let whole = self.found.valid == self.offset && self.rest.is_empty();
        if !whole && self.found.end == End::Whole {
            self.found.end = End::Truncated { in_multi: self.in_multi && self.rest.is_empty() };
        }
        self.found
    }
}

/// Looks through a log that is all there.
pub fn scan(bytes: &[u8]) -> Scanned {
    let mut scan = Scan::new(0, None);
    scan.feed(bytes, |_, _| {});
    scan.finish()
}

#[cfg(test)]
mod tests;
