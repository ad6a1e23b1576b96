//! Replies: writes the types of RESP2 and RESP3 at the end of a buffer.
//!
//! A command states what it means ([`Reply::map`], [`Reply::null`], [`Reply::double`] …) and the protocol version of
//! the client decides the bytes, as Redis's `addReply*` family does (`networking.c`).

use crate::number::format_f64;

/// Writes the first line of a type: its mark and a number.
#[inline]
pub(crate) fn write_head(out: &mut Vec<u8>, kind: u8, n: i64) {
    // One append of a short line for small numbers, which most are.
    match n {
        0..10 => out.extend_from_slice(&[kind, b'0' + n as u8, b'\r', b'\n']),
        10..100 => out.extend_from_slice(&[kind, b'0' + (n / 10) as u8, b'0' + (n % 10) as u8, b'\r', b'\n']),
        _ => {
            out.reserve(24);
            out.push(kind);
            out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Where a command writes its reply.
pub struct Reply<'a> {
    /// The bytes, appended to.
    pub out: &'a mut Vec<u8>,
    /// 2 or 3.
    pub resp: u8,
}

impl<'a> Reply<'a> {
    /// A writer at the end of `out`.
    pub fn new(out: &'a mut Vec<u8>, resp: u8) -> Self {
        Reply { out, resp }
    }

    /// `+OK` and its like; `text` must not hold a line end.
    #[inline]
    pub fn simple(&mut self, text: &str) {
        self.out.reserve(text.len() + 3);
        self.out.push(b'+');
        self.out.extend_from_slice(text.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// An error; `text` starts with its code (`ERR`, `WRONGTYPE`, …). Line ends inside become spaces.
    pub fn error(&mut self, text: &str) {
        self.out.push(b'-');
        self.out.extend(text.bytes().map(|b| if b == b'\r' || b == b'\n' { b' ' } else { b }));
        self.out.extend_from_slice(b"\r\n");
    }

    #[inline]
    fn head(&mut self, kind: u8, n: i64) {
        write_head(self.out, kind, n);
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, n: i64) {
        self.head(b':', n);
    }

    /// A bulk string.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + 16);
        self.head(b'$', bytes.len() as i64);
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// An integer as a bulk string.
    pub fn bulk_integer(&mut self, n: i64) {
        self.bulk(itoa::Buffer::new().format(n).as_bytes());
    }

    /// A bulk string, or null.
    pub fn bulk_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// No value: `$-1` in RESP2, `_` in RESP3.
    #[inline]
    pub fn null(&mut self) {
        self.out.extend_from_slice(if self.resp == 3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// No list: `*-1` in RESP2, `_` in RESP3.
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(if self.resp == 3 { b"_\r\n" } else { b"*-1\r\n" });
    }

    /// The head of a list of `n` elements, which the caller writes next.
    pub fn array(&mut self, n: usize) {
        self.head(b'*', n as i64);
    }

    /// The head of a map of `n` pairs: in RESP2 a list of twice as many.
    pub fn map(&mut self, n: usize) {
        match self.resp {
            3 => self.head(b'%', n as i64),
            _ => self.head(b'*', 2 * n as i64),
        }
    }

    /// The head of a set of `n` members.
    pub fn set(&mut self, n: usize) {
        self.head(if self.resp == 3 { b'~' } else { b'*' }, n as i64);
    }

    /// The head of an out-of-band message of `n` elements.
    pub fn push(&mut self, n: usize) {
        self.head(if self.resp == 3 { b'>' } else { b'*' }, n as i64);
    }

    /// A truth value: an integer in RESP2.
    pub fn boolean(&mut self, value: bool) {
        match self.resp {
            3 => self.out.extend_from_slice(if value { b"#t\r\n" } else { b"#f\r\n" }),
            _ => self.integer(value as i64),
        }
    }

    /// A floating-point number: a bulk string in RESP2.
    pub fn double(&mut self, value: f64) {
        let text = format_f64(value);
        match self.resp {
            3 => {
                self.out.push(b',');
                self.out.extend_from_slice(text.as_bytes());
                self.out.extend_from_slice(b"\r\n");
            }
            _ => self.bulk(text.as_bytes()),
        }
    }

    /// Text for people; `format` has three letters (`txt`, `mkd`).
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        debug_assert_eq!(format.len(), 3);
        match self.resp {
            3 => {
                self.head(b'=', text.len() as i64 + 4);
                self.out.extend_from_slice(format.as_bytes());
                self.out.push(b':');
                self.out.extend_from_slice(text);
                self.out.extend_from_slice(b"\r\n");
            }
            _ => self.bulk(text),
        }
    }

    /// Starts a list whose length is known only at its end; [`Reply::close_list`] writes it.
    pub fn open_list(&mut self) -> OpenList {
        OpenList { head_at: self.out.len() }
    }

    /// Writes the head of `list`, which has `n` elements.
    pub fn close_list(&mut self, list: OpenList, n: usize) {
        self.close(list, b'*', n);
    }

    /// Writes the head of `list` as a map of `n` pairs.
    pub fn close_map(&mut self, list: OpenList, n: usize) {
        match self.resp {
            3 => self.close(list, b'%', n),
            _ => self.close(list, b'*', 2 * n),
        }
    }

    /// Writes the head of `list` as a set of `n` members.
    pub fn close_set(&mut self, list: OpenList, n: usize) {
        self.close(list, if self.resp == 3 { b'~' } else { b'*' }, n);
    }

    fn close(&mut self, list: OpenList, kind: u8, n: usize) {
        let mut head = Vec::with_capacity(16);
        Reply { out: &mut head, resp: self.resp }.head(kind, n as i64);
        self.out.splice(list.head_at..list.head_at, head);
    }
}

/// A list whose head is still to be written.
#[must_use = "a list without its head is no reply"]
pub struct OpenList {
    head_at: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(resp: u8, write: impl FnOnce(&mut Reply)) -> String {
        let mut out = Vec::new();
        write(&mut Reply::new(&mut out, resp));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn types_differ_by_protocol() {
        let all = |r: &mut Reply| {
            r.null();
            r.null_array();
            r.map(1);
            r.set(2);
            r.boolean(true);
            r.double(1.5);
            r.verbatim("txt", b"hi");
        };
        assert_eq!(written(2, all), "$-1\r\n*-1\r\n*2\r\n*2\r\n:1\r\n$3\r\n1.5\r\n$2\r\nhi\r\n");
        assert_eq!(written(3, all), "_\r\n_\r\n%1\r\n~2\r\n#t\r\n,1.5\r\n=6\r\ntxt:hi\r\n");
    }

    #[test]
    fn a_list_may_learn_its_length_late() {
        let text = written(2, |r| {
            let list = r.open_list();
            r.integer(7);
            r.integer(-12);
            r.close_list(list, 2);
        });
        assert_eq!(text, "*2\r\n:7\r\n:-12\r\n");
        assert_eq!(written(2, |r| r.error("ERR a\r\nb")), "-ERR a  b\r\n");
    }
}
