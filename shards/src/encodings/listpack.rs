//! `ListPack`: a sequence of strings and integers in one flat allocation, in Redis's byte format.
//!
//! The idea: each element carries its own length in front and, behind it, the length of the whole
//! element once more, so the sequence is walked from either end without any index. A text that is
//! the canonical spelling of an integer is stored as one. The bytes are exactly those of Redis's
//! `listpack.c`, so that a payload of `DUMP` or of an RDB file is this structure unchanged. Small
//! hashes, sets and sorted sets and the nodes of lists and streams are made of it.
//!
//! ```text
//! +-------------+-----------+---------+-----+---------+------+
//! | total bytes | elements  | element | ... | element | 0xFF |
//! | u32         | u16       |         |     |         |      |
//! +-------------+-----------+---------+-----+---------+------+
//!
//! element: +----------------------+---------+------------------------------+
//!          | encoding and length  | content | bytes of the two before this |
//!          +----------------------+---------+------------------------------+
//!
//! 0vvvvvvv                       integer, 0 to 127
//! 10llllll                       string of up to 63 bytes
//! 110vvvvv vvvvvvvv              integer of 13 bits, signed
//! 1110llll llllllll              string of up to 4095 bytes
//! 11110000 + 4 bytes             string with a length of 32 bits, little-endian
//! 11110001 .. 11110100           integer of 16, 24, 32, 64 bits, little-endian
//! ```
//!
//! The count is 65535 when there are that many elements or more; then only a walk tells how many.
//! The length behind an element is written in groups of seven bits, high group first, and read
//! from its end: every byte but the first has its high bit set.
//!
//! Elements are named by their byte offset (`at`). An offset is good until the next change; the
//! functions that change something return the one to go on with.

use std::mem::transmute;
use std::ptr::{self, NonNull};

use super::headed::{Head, Headed};
use crate::entry::StrRef;
use crate::number::parse_i64;

/// Bytes before the first element.
const HEADER: usize = 6;
/// The byte behind the last element.
const END: u8 = 0xFF;
/// What the count says from this number on.
const UNKNOWN: u16 = u16::MAX;
/// Redis converts a collection rather than let its listpack pass this.
const SAFE_BYTES: usize = 1 << 30;

/// A sequence of strings and integers. See the head of the file.
#[derive(Clone, PartialEq, Eq)]
#[repr(transparent)]
pub struct ListPack {
    bytes: Headed<Total>,
}

/// The total bytes, with which it begins.
struct Total;

impl Head for Total {
    const BYTES: usize = 4;

    #[inline]
    fn len(head: &[u8]) -> usize {
        u32::from_le_bytes(*head.first_chunk().expect("four bytes")) as usize
    }

    #[inline]
    fn set_len(head: &mut [u8], len: usize) {
        head.copy_from_slice(&(len as u32).to_le_bytes());
    }
}

/// The bytes of an element before its length is repeated: a head and, for a string, its text.
struct Encoded<'a> {
    head: [u8; 9],
    head_len: usize,
    text: &'a [u8],
}

impl<'a> Encoded<'a> {
    fn text(text: &'a [u8]) -> Self {
        match parse_i64(text) {
            Some(number) => Self::int(number),
            None => Self::string(text),
        }
    }

    fn string(text: &'a [u8]) -> Self {
        let mut head = [0; 9];
        let len = text.len();
        let head_len = match len {
            0..64 => {
                head[0] = 0x80 | len as u8;
                1
            }
            64..4096 => {
                head[..2].copy_from_slice(&(0xE000 | len as u16).to_be_bytes());
                2
            }
            _ => {
                head[0] = 0xF0;
                let len = u32::try_from(len).expect("an element is at most 512 MB");
                head[1..5].copy_from_slice(&len.to_le_bytes());
                5
            }
        };
        Encoded { head, head_len, text }
    }

    fn int(number: i64) -> Encoded<'a> {
        let mut head = [0; 9];
        let wide = number.to_le_bytes();
        let mut with = |mark: u8, len: usize| {
            head[0] = mark;
            head[1..1 + len].copy_from_slice(&wide[..len]);
            1 + len
        };
        let head_len = match number {
            0..=127 => with(number as u8, 0),
            -4096..=4095 => {
                head[..2].copy_from_slice(&(0xC000 | number as u16 & 0x1FFF).to_be_bytes());
                2
            }
            -32768..=32767 => with(0xF1, 2),
            -8388608..=8388607 => with(0xF2, 3),
            -2147483648..=2147483647 => with(0xF3, 4),
            _ => with(0xF4, 8),
        };
        Encoded { head, head_len, text: b"" }
    }

    fn len(&self) -> usize {
        self.head_len + self.text.len()
    }

    /// Bytes of the whole element.
    fn total(&self) -> usize {
        self.len() + back_size(self.len())
    }

    fn write(&self, out: &mut [u8]) {
        let len = self.len();
        out[..self.head_len].copy_from_slice(&self.head[..self.head_len]);
        out[self.head_len..len].copy_from_slice(self.text);
        write_back(len, &mut out[len..]);
    }
}

/// Bytes that the repeated length `len` takes. The bounds are Redis's, one short of what would fit.
#[inline]
fn back_size(len: usize) -> usize {
    match len {
        0..=127 => 1,
        128..16383 => 2,
        16383..2097151 => 3,
        2097151..268435455 => 4,
        _ => 5,
    }
}

fn write_back(len: usize, out: &mut [u8]) {
    let size = out.len();
    debug_assert_eq!(size, back_size(len));
    for (i, byte) in out.iter_mut().enumerate() {
        let group = (len >> (7 * (size - 1 - i))) as u8 & 127;
        *byte = if i == 0 { group } else { group | 128 };
    }
}

/// Reads the repeated length that ends before `end`.
fn read_back(bytes: &[u8], end: usize) -> Option<usize> {
    let mut len = 0usize;
    for i in 0..5 {
        let byte = *bytes.get(end.checked_sub(1 + i)?)?;
        len |= usize::from(byte & 127) << (7 * i);
        if byte & 128 == 0 {
            return Some(len);
        }
    }
    None
}

/// Bytes of the element at the start of `bytes` without its repeated length; `None` if the bytes
/// end before its head does, or begin no element.
#[inline]
fn encoded_len(bytes: &[u8]) -> Option<usize> {
    let first = *bytes.first()?;
    Some(match first {
        0..0x80 => 1,
        0x80..0xC0 => 1 + usize::from(first & 63),
        0xC0..0xE0 => 2,
        0xE0..0xF0 => 2 + (usize::from(first & 15) << 8 | usize::from(*bytes.get(1)?)),
        0xF0 => 5 + u32::from_le_bytes(bytes.get(1..5)?.try_into().ok()?) as usize,
        0xF1 => 3,
        0xF2 => 4,
        0xF3 => 5,
        0xF4 => 9,
        _ => return None,
    })
}

/// The value of the element at the start of `bytes`, whose length is known to fit.
#[inline]
fn decode(bytes: &[u8]) -> StrRef<'_> {
    let first = bytes[0];
    let int = |len: usize| {
        let mut wide = [if bytes[len] & 128 != 0 { 0xFF } else { 0 }; 8];
        wide[..len].copy_from_slice(&bytes[1..1 + len]);
        StrRef::Int(i64::from_le_bytes(wide))
    };
    match first {
        0..0x80 => StrRef::Int(i64::from(first)),
        0x80..0xC0 => StrRef::Bytes(&bytes[1..1 + usize::from(first & 63)]),
        0xC0..0xE0 => {
            // Shifted up so that the sign bit of the 13 is the word's, and back.
            let word = u16::from_be_bytes([first, bytes[1]]) << 3;
            StrRef::Int(i64::from(word as i16 >> 3))
        }
        0xE0..0xF0 => {
            let len = usize::from(first & 15) << 8 | usize::from(bytes[1]);
            StrRef::Bytes(&bytes[2..2 + len])
        }
        0xF0 => {
            let len = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
            StrRef::Bytes(&bytes[5..5 + len])
        }
        0xF1 => int(2),
        0xF2 => int(3),
        0xF3 => int(4),
        0xF4 => int(8),
        _ => unreachable!("no element begins with {first:#x}"),
    }
}

impl Default for ListPack {
    fn default() -> Self {
        Self::new()
    }
}

impl ListPack {
    /// Its one word, a pointer whose two lowest bits are 0; [`ListPack::from_word`] takes it back.
    pub(super) fn into_word(self) -> NonNull<u8> {
        // SAFETY: it is `Headed`, transparently, and that a pointer.
        unsafe { transmute(self) }
    }

    /// The listpack of a word.
    ///
    /// # Safety
    /// [`ListPack::into_word`] made it, and it is not used again.
    pub(super) unsafe fn from_word(word: NonNull<u8>) -> Self {
        // SAFETY: by the caller's word it is one.
        unsafe { transmute(word) }
    }

    /// A word as the listpack that it is.
    ///
    /// # Safety
    /// [`ListPack::into_word`] made it.
    #[inline]
    pub(super) unsafe fn of_word(word: &NonNull<u8>) -> &Self {
        // SAFETY: by the caller's word it is one.
        unsafe { &*ptr::from_ref(word).cast() }
    }

    /// As [`ListPack::of_word`], to be changed: the word is another then.
    ///
    /// # Safety
    /// As there.
    #[inline]
    pub(super) unsafe fn of_word_mut(word: &mut NonNull<u8>) -> &mut Self {
        // SAFETY: by the caller's word it is one.
        unsafe { &mut *ptr::from_mut(word).cast() }
    }

    /// An empty sequence.
    pub fn new() -> Self {
        ListPack { bytes: Headed::new(&[7, 0, 0, 0, 0, 0, END]) }
    }

    /// One of `bytes`, if they are a sound listpack from end to end; hostile bytes are `None`.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let total = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let declared = u16::from_le_bytes(bytes.get(4..6)?.try_into().ok()?);
        if total != bytes.len() || total <= HEADER || bytes[total - 1] != END {
            return None;
        }
        let (mut at, mut count) = (HEADER, 0usize);
        while at < total - 1 {
            let len = encoded_len(&bytes[at..total - 1])?;
            let next = at.checked_add(len)?.checked_add(back_size(len))?;
            if next > total - 1 || read_back(bytes, next) != Some(len) {
                return None;
            }
            // A length in more bytes than it needs would send a walk backwards astray.
            if bytes[next - back_size(len)] & 128 != 0 {
                return None;
            }
            at = next;
            count += 1;
        }
        (declared == UNKNOWN || usize::from(declared) == count).then(|| ListPack { bytes: Headed::new(bytes) })
    }

    /// The bytes, as Redis's RDB files hold them.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of the whole.
    #[inline]
    pub fn total_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the heap.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.heap_bytes()
    }

    /// Number of elements; walks when there are 65535 or more.
    #[inline]
    pub fn len(&self) -> usize {
        match self.declared() {
            UNKNOWN => self.iter().count(),
            count => usize::from(count),
        }
    }

    /// True when there is no element.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER + 1
    }

    /// Whether `add` more bytes keep it within what Redis allows a listpack.
    pub fn has_room(&self, add: usize) -> bool {
        self.bytes.len().saturating_add(add) <= SAFE_BYTES
    }

    #[inline]
    fn declared(&self) -> u16 {
        u16::from_le_bytes([self.bytes[4], self.bytes[5]])
    }

    // ------------------------------------------------------------------ walking

    /// Offset behind the last element: where `insert` appends.
    #[inline]
    pub fn end(&self) -> usize {
        self.bytes.len() - 1
    }

    /// Offset of the first element.
    #[inline]
    pub fn first(&self) -> Option<usize> {
        (!self.is_empty()).then_some(HEADER)
    }

    /// Offset of the last element.
    #[inline]
    pub fn last(&self) -> Option<usize> {
        self.prev(self.end())
    }

    /// Bytes of the element at `at`.
    #[inline]
    fn size(&self, at: usize) -> usize {
        let len = encoded_len(&self.bytes[at..]).expect("an offset names an element");
        len + back_size(len)
    }

    /// Offset of the element behind the one at `at`.
    #[inline]
    pub fn next(&self, at: usize) -> Option<usize> {
        let next = at + self.size(at);
        (next < self.end()).then_some(next)
    }

    /// Offset of the element before the one at `at`, which may be the end.
    #[inline]
    pub fn prev(&self, at: usize) -> Option<usize> {
        if at <= HEADER {
            return None;
        }
        let len = read_back(&self.bytes, at).expect("an element lies before this one");
        Some(at - len - back_size(len))
    }

    /// The element at `at`.
    #[inline]
    pub fn get(&self, at: usize) -> StrRef<'_> {
        decode(&self.bytes[at..])
    }

    /// Offset of element `index`; a negative one counts from the end.
    pub fn seek(&self, index: i64) -> Option<usize> {
        let declared = self.declared();
        let known = (declared != UNKNOWN).then_some(i64::from(declared));
        let backward = match known {
            Some(len) => {
                let index = if index < 0 { index + len } else { index };
                if index < 0 || index >= len {
                    return None;
                }
                // From whichever end is nearer.
                if index >= len / 2 { Err(len - 1 - index) } else { Ok(index) }
            }
            None if index < 0 => Err(-1 - index),
            None => Ok(index),
        };
        match backward {
            Ok(steps) => (0..steps).try_fold(self.first()?, |at, _| self.next(at)),
            Err(steps) => (0..steps).try_fold(self.last()?, |at, _| self.prev(at)),
        }
    }

    /// Offset of the first element from `from` on that is `text`, looking at one and passing over
    /// `skip` each time.
    pub fn find(&self, from: usize, text: &[u8], skip: usize) -> Option<usize> {
        let number = parse_i64(text);
        let (mut at, end) = (from, self.end());
        let mut passed = 0;
        while at < end {
            let size = self.size(at);
            if passed == 0 {
                let equal = match self.get(at) {
                    StrRef::Bytes(bytes) => bytes == text,
                    StrRef::Int(n) => number == Some(n),
                };
                if equal {
                    return Some(at);
                }
                passed = skip;
            } else {
                passed -= 1;
            }
            at += size;
        }
        None
    }

    /// Whether the element at `at` is `text`.
    pub fn is(&self, at: usize, text: &[u8]) -> bool {
        match self.get(at) {
            StrRef::Bytes(bytes) => bytes == text,
            StrRef::Int(n) => parse_i64(text) == Some(n),
        }
    }

    /// The elements, from the first; backwards by `rev`.
    pub fn iter(&self) -> Iter<'_> {
        Iter { pack: self, front: HEADER, back: self.end() }
    }

    /// The elements from the one at `at` on.
    pub fn iter_from(&self, at: usize) -> Iter<'_> {
        Iter { pack: self, front: at, back: self.end() }
    }

    /// The elements before the one at `at`, which may be the end.
    pub fn iter_to(&self, at: usize) -> Iter<'_> {
        Iter { pack: self, front: HEADER, back: at }
    }

    // ------------------------------------------------------------------ changing

    /// Appends a text; as an integer if it is the canonical spelling of one.
    pub fn push(&mut self, text: &[u8]) {
        self.splice(self.end(), 0, &Encoded::text(text), 1);
    }

    /// Appends an integer.
    pub fn push_int(&mut self, number: i64) {
        self.splice(self.end(), 0, &Encoded::int(number), 1);
    }

    /// Puts a text before the first element.
    pub fn push_front(&mut self, text: &[u8]) {
        self.splice(HEADER, 0, &Encoded::text(text), 1);
    }

    /// Puts a text before the element at `at` (or at the end); it lies at `at` then. Returns the
    /// offset behind it.
    pub fn insert(&mut self, at: usize, text: &[u8]) -> usize {
        self.splice(at, 0, &Encoded::text(text), 1)
    }

    /// [`ListPack::insert`] of an integer.
    pub fn insert_int(&mut self, at: usize, number: i64) -> usize {
        self.splice(at, 0, &Encoded::int(number), 1)
    }

    /// Puts a text in the place of the element at `at`; returns the offset behind it.
    pub fn replace(&mut self, at: usize, text: &[u8]) -> usize {
        self.splice(at, self.size(at), &Encoded::text(text), 0)
    }

    /// [`ListPack::replace`] by an integer.
    pub fn replace_int(&mut self, at: usize, number: i64) -> usize {
        self.splice(at, self.size(at), &Encoded::int(number), 0)
    }

    /// Removes the element at `at`; the one behind it, if there is one, lies at `at` then.
    pub fn delete(&mut self, at: usize) {
        self.cut(at, at + self.size(at), 1);
    }

    /// Removes up to `count` elements from the one at `at` on.
    pub fn delete_range(&mut self, at: usize, count: usize) {
        let (mut to, mut removed) = (at, 0);
        while removed < count && to < self.end() {
            to += self.size(to);
            removed += 1;
        }
        self.cut(at, to, removed);
    }

    /// Keeps the elements of which `keep` says so; every byte moves at most once.
    pub fn retain(&mut self, mut keep: impl FnMut(StrRef<'_>) -> bool) {
        let (mut at, mut to, mut removed) = (HEADER, HEADER, 0);
        let end = self.end();
        while at < end {
            let next = at + self.size(at);
            if keep(self.get(at)) {
                if removed > 0 {
                    self.bytes.tail_mut(to).copy_within(at - to..next - to, 0);
                }
                to += next - at;
            } else {
                removed += 1;
            }
            at = next;
        }
        if removed > 0 {
            self.cut(to, end, removed);
        }
    }

    /// Takes the elements from `at` on into a sequence of their own.
    pub fn split_off(&mut self, at: usize) -> ListPack {
        let tail = &self.bytes[at..];
        let mut other = ListPack::new();
        other.bytes.resize(HEADER + tail.len());
        other.bytes.tail_mut(HEADER).copy_from_slice(tail);
        let moved = Iter { pack: self, front: at, back: self.end() }.count();
        other.seal(UNKNOWN.into(), moved as isize);
        self.cut(at, self.end(), moved);
        other
    }

    /// Appends the elements of `other`.
    pub fn append(&mut self, other: &ListPack) {
        let count = other.len();
        let (elements, end) = (&other.bytes[HEADER..], self.end());
        self.bytes.resize(end + elements.len());
        self.bytes.tail_mut(end).copy_from_slice(elements);
        self.seal(self.declared().into(), count as isize);
    }

    /// Writes an element in the place of `old` bytes at `at`; returns the offset behind it.
    fn splice(&mut self, at: usize, old: usize, element: &Encoded<'_>, added: isize) -> usize {
        debug_assert!(at >= HEADER && at + old < self.bytes.len());
        let (new, len) = (element.total(), self.bytes.len());
        if new > old {
            self.bytes.resize(len + new - old);
        }
        let tail = self.bytes.tail_mut(at);
        tail.copy_within(old..len - at, new);
        element.write(&mut tail[..new]);
        if new < old {
            self.bytes.resize(len + new - old);
        }
        self.seal(self.declared().into(), added);
        at + new
    }

    /// Removes the bytes of `removed` elements.
    fn cut(&mut self, from: usize, to: usize, removed: usize) {
        self.bytes.tail_mut(from).copy_within(to - from.., 0);
        self.bytes.resize(self.bytes.len() - (to - from));
        self.seal(self.declared().into(), -(removed as isize));
    }

    /// Writes the count: that of `before` changed by `added`.
    fn seal(&mut self, before: usize, added: isize) {
        let count = match before {
            // Nothing is left, or a new part was cut off: the count is known again.
            _ if self.is_empty() => 0,
            _ if before == usize::from(UNKNOWN) && self.declared() == 0 => added.max(0) as usize,
            before if before == usize::from(UNKNOWN) => before,
            before => before.saturating_add_signed(added),
        };
        let count = u16::try_from(count).unwrap_or(UNKNOWN);
        self.bytes.tail_mut(4)[..2].copy_from_slice(&count.to_le_bytes());
    }
}

impl std::fmt::Debug for ListPack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a ListPack {
    type Item = StrRef<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The elements of a [`ListPack`], from either end.
#[derive(Clone)]
pub struct Iter<'a> {
    pack: &'a ListPack,
    front: usize,
    back: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = StrRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<StrRef<'a>> {
        if self.front >= self.back {
            return None;
        }
        let at = self.front;
        self.front += self.pack.size(at);
        Some(self.pack.get(at))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        self.back = self.pack.prev(self.back)?;
        Some(self.pack.get(self.back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(value: StrRef<'_>) -> Vec<u8> {
        value.as_bytes(&mut itoa::Buffer::new()).to_vec()
    }

    /// Compares everything that can be asked with the oracle.
    fn same(pack: &ListPack, oracle: &[Vec<u8>]) {
        assert_eq!(pack.iter().map(text).collect::<Vec<_>>(), oracle);
        let mut back: Vec<_> = pack.iter().rev().map(text).collect();
        back.reverse();
        assert_eq!(back, oracle);
        assert_eq!(pack.len(), oracle.len());
        assert_eq!(pack.is_empty(), oracle.is_empty());
        for i in 0..oracle.len() {
            let at = pack.seek(i as i64).unwrap();
            assert_eq!(text(pack.get(at)), oracle[i]);
            assert_eq!(pack.seek(i as i64 - oracle.len() as i64), Some(at));
            assert!(pack.is(at, &oracle[i]));
        }
        assert_eq!(pack.seek(oracle.len() as i64), None);
        assert_eq!(pack.seek(-1 - oracle.len() as i64), None);
        assert_eq!(ListPack::from_bytes(pack.as_bytes()).as_ref(), Some(pack));
    }

    /// Bytes as Redis writes them, one element of every encoding.
    #[test]
    fn bytes_are_redis() {
        let cases: [(&[u8], &[u8]); 12] = [
            (b"0", &[0, 1]),
            (b"127", &[127, 1]),
            (b"128", &[0xC0, 128, 2]),
            (b"-1", &[0xDF, 0xFF, 2]),
            (b"-4096", &[0xD0, 0, 2]),
            (b"4096", &[0xF1, 0, 16, 3]),
            (b"-32769", &[0xF2, 0xFF, 0x7F, 0xFF, 4]),
            (b"8388608", &[0xF3, 0, 0, 0x80, 0, 5]),
            (b"2147483648", &[0xF4, 0, 0, 0, 0x80, 0, 0, 0, 0, 9]),
            (b"", &[0x80, 1]),
            (b"abc", &[0x83, b'a', b'b', b'c', 4]),
            (b"01", &[0x82, b'0', b'1', 3]),
        ];
        for (value, element) in cases {
            let mut pack = ListPack::new();
            pack.push(value);
            let mut bytes = vec![7 + element.len() as u8, 0, 0, 0, 1, 0];
            bytes.extend_from_slice(element);
            bytes.push(END);
            assert_eq!(pack.as_bytes(), bytes, "{}", String::from_utf8_lossy(value));
            same(&pack, &[value.to_vec()]);
        }
    }

    /// Redis steps to a longer repeated length one byte before it has to.
    #[test]
    fn repeated_lengths() {
        for (len, size) in [(127, 1), (128, 2), (16382, 2), (16383, 3), (16384, 3), (2097150, 3), (2097151, 4)] {
            let mut out = vec![0; back_size(len)];
            assert_eq!(out.len(), size);
            write_back(len, &mut out);
            assert_eq!(read_back(&out, size), Some(len));
        }
        for len in [62, 63, 64, 124, 125, 126, 127, 4095, 4096, 16377, 16378, 16379, 2097146, 2097147] {
            let mut pack = ListPack::new();
            let oracle = vec![b"a".to_vec(), vec![b'x'; len], b"5".to_vec()];
            oracle.iter().for_each(|e| pack.push(e));
            same(&pack, &oracle);
        }
    }

    #[test]
    fn counts_past_the_header() {
        let mut pack = ListPack::new();
        (0..65_540).for_each(|i| pack.push_int(i));
        assert_eq!((pack.declared(), pack.len()), (UNKNOWN, 65_540));
        assert_eq!(pack.get(pack.seek(-1).unwrap()), StrRef::Int(65_539));
        assert_eq!(pack.get(pack.seek(65_536).unwrap()), StrRef::Int(65_536));
        assert_eq!(pack.seek(65_540), None);
        let tail = pack.split_off(pack.seek(10).unwrap());
        assert_eq!((pack.len(), tail.len()), (10, 65_530));
        pack.delete_range(HEADER, 70_000);
        assert_eq!((pack.declared(), pack.is_empty()), (0, true));
    }

    #[test]
    fn a_broken_count_or_length_is_refused() {
        let mut pack = ListPack::new();
        pack.push(b"hello");
        let good = pack.as_bytes().to_vec();
        for (i, byte) in [(0, 1), (4, 2), (6, 0x84), (6, 0xBF), (6, 0xF5), (6, 0xFF), (12, 0), (12, 0x86), (13, 0)] {
            let mut bad = good.clone();
            bad[i] = byte;
            assert_eq!(ListPack::from_bytes(&bad), None, "byte {i} as {byte}");
        }
        assert_eq!(ListPack::from_bytes(&[]), None);
        // A string that claims 4 GB.
        assert_eq!(ListPack::from_bytes(&[12, 0, 0, 0, 1, 0, 0xF0, 255, 255, 255, 255, END]), None);
    }

    fn element() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            any::<i64>().prop_map(|n| n.to_string().into_bytes()),
            (any::<i64>(), 0..64u32).prop_map(|(n, shift)| (n >> shift).to_string().into_bytes()),
            prop::collection::vec(any::<u8>(), 0..8),
            prop::collection::vec(b'0'..=b'9', 0..24),
            (any::<u8>(), 0..300usize).prop_map(|(b, n)| vec![b; n]),
            (any::<u8>(), 4000..20000usize).prop_map(|(b, n)| vec![b; n]),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

        #[test]
        fn as_a_vec(ops in prop::collection::vec((0..9u8, any::<prop::sample::Index>(), element()), 1..60)) {
            let (mut pack, mut oracle) = (ListPack::new(), Vec::<Vec<u8>>::new());
            for (op, index, value) in ops {
                let i = index.index(oracle.len() + 1);
                let at = pack.seek(i as i64).unwrap_or(pack.end());
                let found = oracle.iter().position(|e| *e == value);
                prop_assert_eq!(pack.find(HEADER, &value, 0), found.and_then(|i| pack.seek(i as i64)));
                match op {
                    0 | 1 => {
                        pack.push(&value);
                        oracle.push(value);
                    }
                    2 => {
                        pack.push_front(&value);
                        oracle.insert(0, value);
                    }
                    3 => {
                        let next = pack.insert(at, &value);
                        prop_assert_eq!(pack.prev(next), Some(at));
                        oracle.insert(i, value);
                    }
                    4 if i < oracle.len() => {
                        pack.replace(at, &value);
                        oracle[i] = value;
                    }
                    5 if i < oracle.len() => {
                        pack.delete(at);
                        oracle.remove(i);
                    }
                    6 if i < oracle.len() => {
                        pack.delete_range(at, value.len() % 5);
                        oracle.drain(i..(i + value.len() % 5).min(oracle.len()));
                    }
                    7 => {
                        let tail = pack.split_off(at);
                        same(&tail, &oracle[i..]);
                        if value.len() % 2 == 0 {
                            pack.append(&tail);
                        } else {
                            oracle.truncate(i);
                        }
                    }
                    8 => {
                        let n = value.len() as i64 * 1000;
                        pack.insert_int(at, n);
                        oracle.insert(i, n.to_string().into_bytes());
                    }
                    _ => {}
                }
                same(&pack, &oracle);
            }
        }

        #[test]
        fn hostile_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..64), fix in any::<bool>()) {
            if fix && bytes.len() > 7 {
                let total = bytes.len() as u32;
                bytes[..4].copy_from_slice(&total.to_le_bytes());
                bytes[4..6].copy_from_slice(&[255, 255]);
                bytes[total as usize - 1] = END;
            }
            if let Some(pack) = ListPack::from_bytes(&bytes) {
                let mut back: Vec<_> = pack.iter().rev().map(text).collect();
                back.reverse();
                prop_assert_eq!(pack.iter().map(text).collect::<Vec<_>>(), back);
            }
        }

        #[test]
        fn flipped_bits(values in prop::collection::vec(element(), 1..6), flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8u8), 1..4)) {
            let mut pack = ListPack::new();
            values.iter().for_each(|v| pack.push(v));
            let mut bytes = pack.as_bytes().to_vec();
            for (index, bit) in flips {
                let i = index.index(bytes.len());
                bytes[i] ^= 1 << bit;
            }
            if let Some(pack) = ListPack::from_bytes(&bytes) {
                prop_assert_eq!(pack.iter().count(), pack.iter().rev().count());
                prop_assert_eq!(pack.seek(-1), pack.last());
            }
        }
    }
}
