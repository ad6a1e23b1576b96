//! The reply scanner: where does one RESP2 or RESP3 reply end, and is it of the kind that was asked for?
//!
//! The one idea: a nested reply is flat when counted. An aggregate of n elements only means «n more
//! elements to read», so one counter replaces a stack, and hostile nesting costs nothing. The scanner
//! holds no state between calls: it answers «complete, this many bytes» or «at least this many more»,
//! and the caller keeps the unfinished tail (`lane.rs`). Counterpart in Redis: hiredis' `read.c`.

use std::fmt;

/// The longest bulk string Redis can send (`proto-max-bulk-len`), with room for its frame.
const MAX_BULK: i64 = 512 * 1024 * 1024;
/// The most elements an aggregate may announce: what Redis accepts as a multibulk length.
const MAX_ELEMENTS: i64 = 1024 * 1024 * 1024;
/// The longest status, error or number line.
const MAX_LINE: usize = 64 * 1024;

/// What one look at the buffer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// A whole reply, of this many bytes.
    Done(usize),
    /// Not whole: looking again makes sense only with at least this many bytes in the buffer.
    More(usize),
}

/// The peer does not speak RESP (any more): the connection is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolError(pub &'static str);

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not RESP: {}", self.0)
    }
}

/// Position of the CR of the CRLF that ends the line which starts at `from`.
fn line_end(buf: &[u8], from: usize) -> Result<Option<usize>, ProtocolError> {
    let window = &buf[from..buf.len().min(from + MAX_LINE)];
    match window.iter().position(|&b| b == b'\r') {
        Some(at) if from + at + 1 >= buf.len() => Ok(None),
        Some(at) if buf[from + at + 1] == b'\n' => Ok(Some(from + at)),
        Some(_) => Err(ProtocolError("a CR without its LF")),
        None if window.len() == MAX_LINE => Err(ProtocolError("a line without end")),
        None => Ok(None),
    }
}

/// A length or count: decimal digits with an optional minus sign, nothing else.
pub fn decimal(text: &[u8]) -> Result<i64, ProtocolError> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    if digits.is_empty() || digits.len() > 18 {
        return Err(ProtocolError("a number of no or too many digits"));
    }
    let mut n: i64 = 0;
    for &d in digits {
        if !d.is_ascii_digit() {
            return Err(ProtocolError("a number with a foreign character"));
        }
        n = n * 10 + i64::from(d - b'0');
    }
    Ok(if negative { -n } else { n })
}

/// Finds the end of the first reply in `buf`.
pub fn scan(buf: &[u8]) -> Result<Scan, ProtocolError> {
    let mut at = 0;
    let mut remaining: i64 = 1;
    while remaining > 0 {
        // Every element still to come takes at least three bytes (`_\r\n`).
        let least =
            |at: usize, remaining: i64| at.saturating_add(3 * remaining.min(1 << 20) as usize);
        if at >= buf.len() {
            return Ok(Scan::More(least(at, remaining)));
        }
        let kind = buf[at];
        let Some(end) = line_end(buf, at + 1)? else {
            return Ok(Scan::More((buf.len() + 1).max(least(at, remaining))));
        };
        let line = &buf[at + 1..end];
        at = end + 2;
        remaining -= 1;
        match kind {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => {}
            b'$' | b'!' | b'=' => {
                let n = decimal(line)?;
                if n > MAX_BULK {
                    return Err(ProtocolError("a bulk string longer than 512 MB"));
                }
                if n >= 0 {
                    let stop = at + n as usize;
                    if stop + 2 > buf.len() {
                        return Ok(Scan::More(least(stop + 2, remaining)));
                    }
                    if &buf[stop..stop + 2] != b"\r\n" {
                        return Err(ProtocolError(
                            "a bulk string of another length than announced",
                        ));
                    }
                    at = stop + 2;
                }
            }
            b'*' | b'~' | b'>' | b'%' | b'|' => {
                let n = decimal(line)?.max(0);
                if n > MAX_ELEMENTS || remaining > MAX_ELEMENTS {
                    return Err(ProtocolError("an aggregate of more than 2^30 elements"));
                }
                remaining += if matches!(kind, b'%' | b'|') {
                    2 * n
                } else {
                    n
                };
                // An attribute stands before the element that it describes and replaces none.
                remaining += i64::from(kind == b'|');
            }
            _ => return Err(ProtocolError("an unknown type byte")),
        }
    }
    Ok(Scan::Done(at))
}

/// The first element of a reply, for checks of type and value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Head<'a> {
    /// `+`
    Status(&'a [u8]),
    /// `-` or `!`
    Error(&'a [u8]),
    /// `:`
    Integer(i64),
    /// `$` or `=`
    Bulk(&'a [u8]),
    /// `$-1`, `*-1` or `_`
    Nil,
    /// `*`, `~` or `>`: the count, and what follows.
    Array(i64),
    /// `%`: the count of pairs.
    Map(i64),
    /// `>`: out of band.
    Push(i64),
    /// `,`, `#`, `(`
    Scalar(&'a [u8]),
}

/// Reads the element at the start of `buf`, which [`scan`] found complete; returns it and the bytes it takes
/// (for an aggregate: of its header).
pub fn head(buf: &[u8]) -> Option<(Head<'_>, usize)> {
    // Attributes stand before the element that they describe: skipped, in a loop, since they could be nested.
    let mut skipped = 0;
    while buf.get(skipped) == Some(&b'|') {
        let end = line_end(buf, skipped + 1).ok()??;
        let pairs = decimal(&buf[skipped + 1..end]).ok()?;
        skipped = end + 2;
        for _ in 0..2 * pairs.max(0) {
            match scan(buf.get(skipped..)?) {
                Ok(Scan::Done(n)) => skipped += n,
                _ => return None,
            }
        }
    }
    let (head, used) = element(buf.get(skipped..)?)?;
    Some((head, skipped + used))
}

fn element(buf: &[u8]) -> Option<(Head<'_>, usize)> {
    let kind = *buf.first()?;
    let end = line_end(buf, 1).ok()??;
    let line = buf.get(1..end)?;
    let after = end + 2;
    let count = || decimal(line).ok();
    Some(match kind {
        b'+' => (Head::Status(line), after),
        b'-' => (Head::Error(line), after),
        b':' => (Head::Integer(count()?), after),
        b'_' => (Head::Nil, after),
        b',' | b'#' | b'(' => (Head::Scalar(line), after),
        b'$' | b'=' | b'!' => {
            let n = count()?;
            if n < 0 {
                return Some((Head::Nil, after));
            }
            let body = buf.get(after..after + n as usize)?;
            let head = if kind == b'!' {
                Head::Error(body)
            } else {
                Head::Bulk(body)
            };
            (head, after + n as usize + 2)
        }
        b'*' | b'~' => match count()? {
            n if n < 0 => (Head::Nil, after),
            n => (Head::Array(n), after),
        },
        b'>' => (Head::Push(count()?), after),
        b'%' => (Head::Map(count()?), after),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: &[&[u8]] = &[
        b"+OK\r\n",
        b"-ERR no\r\n",
        b":-12\r\n",
        b"$5\r\nhe\r\no\r\n",
        b"$0\r\n\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*3\r\n$1\r\na\r\n$-1\r\n:7\r\n",
        b"*2\r\n*2\r\n:1\r\n:2\r\n*1\r\n*0\r\n",
        b"_\r\n",
        b"%2\r\n+a\r\n:1\r\n+b\r\n~1\r\n#t\r\n",
        b"|1\r\n+ttl\r\n:3\r\n$2\r\nhi\r\n",
        b"=8\r\ntxt:text\r\n",
        b",3.25\r\n",
        b"(123456789012345678901234567890\r\n",
        b"!5\r\nERR x\r\n",
        b">2\r\n+message\r\n+x\r\n",
    ];

    #[test]
    fn whole_replies_end_where_they_end() {
        for s in SAMPLES {
            assert_eq!(scan(s), Ok(Scan::Done(s.len())), "{}", s.escape_ascii());
            let mut two = s.to_vec();
            two.extend_from_slice(b"+next\r\n");
            assert_eq!(scan(&two), Ok(Scan::Done(s.len())), "{}", s.escape_ascii());
            assert!(head(s).is_some(), "{}", s.escape_ascii());
        }
    }

    #[test]
    fn every_split_asks_for_more_but_never_too_much() {
        for s in SAMPLES {
            for cut in 0..s.len() {
                match scan(&s[..cut]) {
                    Ok(Scan::More(need)) => {
                        assert!(need > cut, "{} cut at {cut}: {need}", s.escape_ascii());
                        assert!(need <= s.len(), "{} cut at {cut}: {need}", s.escape_ascii());
                    }
                    other => panic!("{} cut at {cut}: {other:?}", s.escape_ascii()),
                }
            }
        }
    }

    #[test]
    fn hostile_input_is_refused() {
        let refused: &[&[u8]] = &[
            b"hello\r\n",
            b"$9999999999\r\n",
            b"$x\r\n",
            b"$2\r\nabcd\r\n",
            b"*99999999999\r\n",
            b"+a\rb\r\n",
            b":\r",
        ];
        for s in &refused[..6] {
            assert!(scan(s).is_err(), "{}", s.escape_ascii());
        }
        assert!(matches!(scan(refused[6]), Ok(Scan::More(_))));
        assert!(scan(&[b'+'; MAX_LINE + 2]).is_err());
        // Neither do attributes of attributes overflow a stack.
        let attributes = b"|0\r\n".repeat(200_000);
        assert!(head(&attributes).is_none());
        // A deep nest costs one counter, no stack.
        let deep = b"*1\r\n".repeat(200_000);
        assert!(matches!(scan(&deep), Ok(Scan::More(_))));
    }

    #[test]
    fn heads_tell_kind_and_value() {
        assert_eq!(head(b"$-1\r\n"), Some((Head::Nil, 5)));
        assert_eq!(head(b":42\r\n"), Some((Head::Integer(42), 5)));
        assert_eq!(head(b"$2\r\nhi\r\n"), Some((Head::Bulk(b"hi"), 8)));
        assert_eq!(
            head(b"|1\r\n+ttl\r\n:3\r\n$2\r\nhi\r\n").map(|h| h.0),
            Some(Head::Bulk(b"hi"))
        );
        assert_eq!(
            head(b"!5\r\nERR x\r\n").map(|h| h.0),
            Some(Head::Error(b"ERR x"))
        );
    }
}
