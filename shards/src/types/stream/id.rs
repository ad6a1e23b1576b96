//! `StreamId`: the 128-bit name of a stream's entry, `<ms>-<seq>`, and how clients spell it.
//!
//! Ids are ordered by ms, then by sequence, and a stream's only grow. Counterpart: `streamID` (`stream.h`) and the
//! `streamParse…ID` functions of `t_stream.c`.

use std::fmt;

/// An entry's id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Unix time in ms, as a rule.
    pub ms: u64,
    /// Number within that ms.
    pub seq: u64,
}

impl StreamId {
    /// The least, which no entry has.
    pub const MIN: Self = StreamId { ms: 0, seq: 0 };
    /// The greatest.
    pub const MAX: Self = StreamId { ms: u64::MAX, seq: u64::MAX };

    /// The id of this time and number.
    pub const fn new(ms: u64, seq: u64) -> Self {
        StreamId { ms, seq }
    }

    /// The next greater id.
    pub fn next(self) -> Option<Self> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(StreamId { seq, ..self }),
            None => Some(StreamId { ms: self.ms.checked_add(1)?, seq: 0 }),
        }
    }

    /// The next smaller id.
    pub fn prev(self) -> Option<Self> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(StreamId { seq, ..self }),
            None => Some(StreamId { ms: self.ms.checked_sub(1)?, seq: u64::MAX }),
        }
    }

    /// An id as written, `ms` or `ms-seq`; a missing sequence is `missing_seq`.
    pub fn parse(text: &[u8], missing_seq: u64) -> Option<Self> {
        match Given::parse(text, missing_seq)? {
            Given { id, seq_given: true } => Some(id),
            _ => None,
        }
    }

    /// As [`StreamId::parse`], and `-` and `+` for the least and the greatest.
    pub fn parse_bound(text: &[u8], missing_seq: u64) -> Option<Self> {
        match text {
            b"-" => Some(Self::MIN),
            b"+" => Some(Self::MAX),
            text => Self::parse(text, missing_seq),
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// An id as `XADD` takes it: `ms-*` leaves the sequence to the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// The id, its sequence 0 if that was left open.
    pub id: StreamId,
    /// Whether the sequence was given.
    pub seq_given: bool,
}

impl Given {
    /// Reads `ms`, `ms-seq` or `ms-*`.
    pub fn parse(text: &[u8], missing_seq: u64) -> Option<Self> {
        // Redis copies ids into a buffer of 128 bytes and refuses longer ones.
        if text.len() > 127 {
            return None;
        }
        let (ms, seq) = match text.iter().position(|b| *b == b'-') {
            Some(dash) => (&text[..dash], Some(&text[dash + 1..])),
            None => (text, None),
        };
        let ms = parse_part(ms)?;
        let (seq, seq_given) = match seq {
            None => (missing_seq, true),
            Some(b"*") => (0, false),
            Some(seq) => (parse_part(seq)?, true),
        };
        Some(Given { id: StreamId { ms, seq }, seq_given })
    }
}

/// Half an id. Unlike other integers in arguments it may have leading zeros and a plus sign, which Redis's `strtoull`
/// lets pass.
fn parse_part(text: &[u8]) -> Option<u64> {
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        assert_eq!(StreamId::parse(b"5", 7), Some(StreamId::new(5, 7)));
        assert_eq!(StreamId::parse(b"5-3", 7), Some(StreamId::new(5, 3)));
        assert_eq!(StreamId::parse(b"18446744073709551615-18446744073709551615", 0), Some(StreamId::MAX));
        assert_eq!(StreamId::parse(b"007-01", 0), Some(StreamId::new(7, 1)));
        for bad in ["", "-", "+", "*", "5-", "5-*", "-5", "a", "5-a", "1-2-3", "18446744073709551616", "5 ", "+-1"] {
            assert_eq!(StreamId::parse(bad.as_bytes(), 0), None, "{bad}");
        }
        assert_eq!(StreamId::parse(&[b'1'; 128], 0), None);
        assert_eq!(Given::parse(b"5-*", 9), Some(Given { id: StreamId::new(5, 0), seq_given: false }));
        assert_eq!(StreamId::parse_bound(b"-", 1), Some(StreamId::MIN));
        assert_eq!(StreamId::parse_bound(b"+", 1), Some(StreamId::MAX));
        assert_eq!(StreamId::new(12, 34).to_string(), "12-34");
    }

    #[test]
    fn neighbours() {
        assert_eq!(StreamId::new(1, u64::MAX).next(), Some(StreamId::new(2, 0)));
        assert_eq!(StreamId::new(2, 0).prev(), Some(StreamId::new(1, u64::MAX)));
        assert_eq!((StreamId::MAX.next(), StreamId::MIN.prev()), (None, None));
    }
}
