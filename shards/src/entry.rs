//! `EntryPtr`: one key with all that belongs to it, in one allocation.
//!
//! The idea: the header says which optional words follow, so a short key with a short value is
//! eight bytes of header and the bytes themselves; a 16-byte key with a 32-byte value takes 56
//! bytes of a 64-byte size class. The slices' dicts hold these pointers. Redis's counterpart is
//! three allocations (`dictEntry`, the key's `sds`, the value's `robj`) and a fourth in `expires`.
//!
//! ```text
//!  8 bytes      8 if wide        8 if expire     8 if word                 inline strings only
//! +--------+-----------------+---------------+--------------+-----------+---------------------+
//! | header | length of key   | expire at, ms | i64, or the  | key bytes | value bytes   slack |
//! |        | past 2047 bytes |               | object's     |           | (up to 4032)        |
//! +--------+-----------------+---------------+--------------+-----------+---------------------+
//!
//! header, from its low bit:
//!   24 lru or lfu | 4 kind | 4 encoding | 8 flags | 11 key length | 13 inline value length
//! flags: 1 wide, 1 expire, 1 word, 1 modified, 2 epoch, 2 unused
//! ```
//!
//! **Size.** The allocation is the sum of these parts rounded up to jemalloc's size class (steps
//! of 16 up to 128, then four a doubling), so it follows from the header, no capacity is stored,
//! and the slack of the class is usable: a value is overwritten in place exactly when the new
//! one leads to the same class. As the classes grow by a fifth, repeated `APPEND`s to an inline
//! string copy an amortised constant number of times.
//!
//! **Ownership.** The handle is `Copy`, like a pointer. Whoever holds it for good (the `RedisDb`
//! whose dict it is in) owns the entry. Functions that take `self` and return an `EntryPtr` may
//! have moved it: the old handle and its copies are dead, and the dict must be told
//! (`Dict::replace`). They and `free` are `unsafe` for that reason; the others are safe as long
//! as that rule is kept. An entry is used by one thread at a time, the one that has the slice.

#[cfg(test)]
mod tests;

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::{self, NonNull};

use crate::dict::{Element, prefetch_line};
use crate::object::{Object, ObjectMut, ObjectRef};
use crate::size_class::size_class;

/// The longest string that lies inside its entry: with a usual key the whole is below a page.
pub const INLINE_MAX: usize = 4032;
/// The longest string whose encoding Redis calls `embstr`.
pub const EMBSTR_MAX: usize = 44;
/// From this size on `APPEND` reserves this much more instead of twice the length, as Redis does.
const PREALLOC_MAX: usize = 1 << 20;

/// The type of a value, with Redis's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A string or an integer.
    String = 0,
    /// A list.
    List = 1,
    /// A set.
    Set = 2,
    /// A sorted set.
    ZSet = 3,
    /// A hash.
    Hash = 4,
    /// A stream.
    Stream = 6,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 6] = [Self::String, Self::List, Self::Set, Self::ZSet, Self::Hash, Self::Stream];

    /// What `TYPE` answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::List => "list",
            Self::Set => "set",
            Self::ZSet => "zset",
            Self::Hash => "hash",
            Self::Stream => "stream",
        }
    }

    fn from_bits(bits: u64) -> Self {
        match bits & 15 {
            0 => Self::String,
            1 => Self::List,
            2 => Self::Set,
            3 => Self::ZSet,
            4 => Self::Hash,
            6 => Self::Stream,
            other => unreachable!("kind {other} in an entry"),
        }
    }
}

/// The representation of a value, with Redis's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    /// A string past 44 bytes, or one that was modified in place.
    Raw = 0,
    /// A string that is the canonical text of an i64.
    Int = 1,
    /// A table, for hashes and sets.
    HashTable = 2,
    /// A sorted array of integers, for sets.
    IntSet = 6,
    /// A skip list with a table, for sorted sets.
    SkipList = 7,
    /// A string of at most 44 bytes.
    EmbStr = 8,
    /// A chain of listpacks, for lists.
    QuickList = 9,
    /// A radix tree of listpacks.
    Stream = 10,
    /// One flat allocation, for any small collection.
    ListPack = 11,
    /// A small hash whose fields have, or had, a time to live.
    ListPackEx = 12,
}

impl Encoding {
    /// What `OBJECT ENCODING` answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Int => "int",
            Self::HashTable => "hashtable",
            Self::IntSet => "intset",
            Self::SkipList => "skiplist",
            Self::EmbStr => "embstr",
            Self::QuickList => "quicklist",
            Self::Stream => "stream",
            Self::ListPack => "listpack",
            Self::ListPackEx => "listpackex",
        }
    }

    fn from_bits(bits: u64) -> Self {
        match bits & 15 {
            0 => Self::Raw,
            1 => Self::Int,
            2 => Self::HashTable,
            6 => Self::IntSet,
            7 => Self::SkipList,
            8 => Self::EmbStr,
            9 => Self::QuickList,
            10 => Self::Stream,
            11 => Self::ListPack,
            12 => Self::ListPackEx,
            other => unreachable!("encoding {other} in an entry"),
        }
    }
}

/// A string value as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrRef<'a> {
    /// The bytes.
    Bytes(&'a [u8]),
    /// The text of this number.
    Int(i64),
}

impl StrRef<'_> {
    /// The text; `buf` takes a number's digits.
    pub fn as_bytes<'a>(&'a self, buf: &'a mut itoa::Buffer) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Int(number) => buf.format(*number).as_bytes(),
        }
    }

    /// Bytes of the text.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Int(number) => itoa::Buffer::new().format(*number).len(),
        }
    }

    /// True when the text is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The number a text stands for, if it is the one text that `i64` prints as: what Redis stores
/// as `int`. Neither `+1`, `-0`, `01` nor ` 1` is.
pub fn canonical_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut number = 0u64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        // 19 digits stay below 10^19, which fits.
        number = number * 10 + u64::from(digit - b'0');
    }
    if negative { 0i64.checked_sub_unsigned(number) } else { i64::try_from(number).ok() }
}

// ------------------------------------------------------------------------------- the header

const KIND: u32 = 24;
const ENCODING: u32 = 28;
const WIDE: u64 = 1 << 32;
const EXPIRE: u64 = 1 << 33;
const WORD: u64 = 1 << 34;
const MODIFIED: u64 = 1 << 35;
const EPOCH: u32 = 36;
const KEY_LEN: u32 = 40;
const VALUE_LEN: u32 = 51;
const LRU_MASK: u64 = (1 << 24) - 1;
const KEY_MAX: usize = (1 << 11) - 1;
/// What an entry keeps when its value changes.
const KEPT: u64 = LRU_MASK | 3 << EPOCH;

const _: () = assert!(INLINE_MAX < 1 << (64 - VALUE_LEN));
const _: () = assert!(size_of::<Header>() == 8 && size_of::<EntryPtr>() == 8);
// The promise of the diagram: 16 + 32 bytes in a 64-byte class, with room for an expire.
const _: () = assert!(size_class(8 + 16 + 32) == 64 && size_class(8 + 8 + 16 + 32) == 64);

#[derive(Clone, Copy)]
struct Header(u64);

impl Header {
    fn new(kept: u64, kind: Kind, encoding: Encoding) -> Self {
        Self(kept & KEPT | (kind as u64) << KIND | (encoding as u64) << ENCODING)
    }

    #[inline]
    fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    fn with(self, flag: u64, on: bool) -> Self {
        Self(if on { self.0 | flag } else { self.0 & !flag })
    }

    fn with_key_len(self, len: usize) -> Self {
        let clean = Self(self.0 & !((KEY_MAX as u64) << KEY_LEN)).with(WIDE, len > KEY_MAX);
        if len > KEY_MAX { clean } else { Self(clean.0 | (len as u64) << KEY_LEN) }
    }

    fn with_value_len(self, len: usize) -> Self {
        debug_assert!(len <= INLINE_MAX);
        Self(self.0 & ((1 << VALUE_LEN) - 1) | (len as u64) << VALUE_LEN)
    }

    #[inline]
    fn value_len(self) -> usize {
        (self.0 >> VALUE_LEN) as usize
    }

    /// Where the word begins if there is one, else the key.
    #[inline]
    fn body(self) -> usize {
        8 + 8 * ((self.0 & (WIDE | EXPIRE)) >> 32).count_ones() as usize
    }

    #[inline]
    fn expire_offset(self) -> usize {
        if self.has(WIDE) { 16 } else { 8 }
    }

    #[inline]
    fn key_offset(self) -> usize {
        8 + 8 * ((self.0 & (WIDE | EXPIRE | WORD)) >> 32).count_ones() as usize
    }

    fn kind(self) -> Kind {
        Kind::from_bits(self.0 >> KIND)
    }

    fn is_int(self) -> bool {
        (self.0 >> ENCODING) & 15 == Encoding::Int as u64
    }

    fn is_object(self) -> bool {
        self.has(WORD) && !self.is_int()
    }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("keys are at most 512 MB")
}

/// The value part of an entry to be written. `Inline` is padded with zeros up to its length.
enum Value<'a> {
    Int(i64),
    Object(NonNull<u8>),
    Inline(&'a [u8], usize),
}

impl Value<'_> {
    fn object(object: Object) -> Self {
        Self::Object(object.into_word())
    }

    fn string(text: &[u8]) -> Value<'_> {
        if text.len() <= INLINE_MAX {
            Value::Inline(text, text.len())
        } else {
            Value::object(Object::String(text.to_vec()))
        }
    }

    fn header(&self, header: Header) -> Header {
        match self {
            Self::Int(_) | Self::Object(_) => header.with(WORD, true).with_value_len(0),
            Self::Inline(_, len) => header.with(WORD, false).with_value_len(*len),
        }
    }
}

// ------------------------------------------------------------------------------- the entry

/// A handle to an entry. See the head of this file for who owns it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EntryPtr(NonNull<u8>);

// SAFETY: entries are 8-aligned heap objects, a handle is the whole address, and the key of an
// entry only changes by making another entry. The head of the file gives ownership to the dict's
// holder.
unsafe impl Element for EntryPtr {
    #[inline]
    fn to_ptr(self) -> NonNull<u8> {
        self.0
    }

    #[inline]
    unsafe fn from_ptr(p: NonNull<u8>) -> Self {
        Self(p)
    }

    #[inline]
    fn key(&self) -> &[u8] {
        EntryPtr::key(self)
    }

    /// The header with the key, and the line of a short value when that is another one.
    #[inline]
    fn prefetch(self) {
        prefetch_line(self.0.as_ptr());
        prefetch_line(self.0.as_ptr().wrapping_add(48));
    }
}

impl EntryPtr {
    /// A new string entry: as an integer when the value is the canonical text of one, inline up
    /// to `INLINE_MAX`, an object beyond. `expire_at` is in milliseconds since 1970.
    pub fn new_string(key: &[u8], value: &[u8], expire_at: Option<i64>) -> Self {
        match canonical_i64(value) {
            Some(number) => Self::new_int(key, number, expire_at),
            None => {
                let header = Header::new(0, Kind::String, Encoding::Raw);
                Self::build(header, key, expire_at, Value::string(value))
            }
        }
    }

    /// A new entry that holds an integer.
    pub fn new_int(key: &[u8], number: i64, expire_at: Option<i64>) -> Self {
        let header = Header::new(0, Kind::String, Encoding::Int);
        Self::build(header, key, expire_at, Value::Int(number))
    }

    /// A new entry of an object.
    pub fn new_object(key: &[u8], object: Object, expire_at: Option<i64>) -> Self {
        let header = Header::new(0, object.kind(), object.view().encoding());
        Self::build(header, key, expire_at, Value::object(object))
    }

    /// The type of the value.
    #[inline]
    pub fn kind(&self) -> Kind {
        self.header().kind()
    }

    /// The encoding as `OBJECT ENCODING` names it.
    pub fn encoding(&self) -> Encoding {
        let header = self.header();
        let embstr = header.kind() == Kind::String && !header.has(WORD | MODIFIED) && header.value_len() <= EMBSTR_MAX;
        if embstr { Encoding::EmbStr } else { Encoding::from_bits(header.0 >> ENCODING) }
    }

    /// Notes the new encoding of a collection that was converted (strings do that themselves).
    pub fn set_encoding(&mut self, encoding: Encoding) {
        assert!(self.kind() != Kind::String);
        self.set_header(Header(self.header().0 & !(15 << ENCODING) | (encoding as u64) << ENCODING));
    }

    /// The key.
    #[inline]
    pub fn key(&self) -> &[u8] {
        let header = self.header();
        // SAFETY: the key's bytes are initialised and never written while the entry lives.
        unsafe { std::slice::from_raw_parts(self.at(header.key_offset()), self.key_len(header)) }
    }

    /// When it expires, in milliseconds since 1970.
    #[inline]
    pub fn expire_at(&self) -> Option<i64> {
        let header = self.header();
        // SAFETY: with the flag set, the word is there.
        header.has(EXPIRE).then(|| unsafe { self.at(header.expire_offset()).cast::<i64>().read() })
    }

    /// The 24 bits of LRU clock or LFU counter.
    #[inline]
    pub fn lru(&self) -> u32 {
        (self.header().0 & LRU_MASK) as u32
    }

    /// Sets the low 24 bits of `lru`.
    #[inline]
    pub fn set_lru(&mut self, lru: u32) {
        self.set_header(Header(self.header().0 & !LRU_MASK | u64::from(lru) & LRU_MASK));
    }

    /// The snapshot epoch of the last write, 0 to 3.
    #[inline]
    pub fn epoch(&self) -> u8 {
        (self.header().0 >> EPOCH & 3) as u8
    }

    /// Sets the snapshot epoch (its low two bits).
    #[inline]
    pub fn set_epoch(&mut self, epoch: u8) {
        let epoch = u64::from(epoch & 3) << EPOCH;
        self.set_header(Header(self.header().0 & !(3 << EPOCH) | epoch));
    }

    /// The object, if the value is one (an inline string or integer is not).
    #[inline]
    pub fn object(&self) -> Option<ObjectRef<'_>> {
        let header = self.header();
        // SAFETY: the word of such an entry is its own living object, of the kind that the header says.
        header.is_object().then(|| unsafe { ObjectRef::of_word(header.kind(), &*self.word(header)) })
    }

    /// The object, to be changed.
    ///
    /// # Safety
    /// No other reference to the object is alive: the handle is `Copy`, so the borrow checker
    /// sees only this copy.
    #[inline]
    pub unsafe fn object_mut(&mut self) -> Option<ObjectMut<'_>> {
        let header = self.header();
        // SAFETY: as in `object`, and by the caller's word alone.
        header.is_object().then(|| unsafe { ObjectMut::of_word(header.kind(), &mut *self.word(header)) })
    }

    /// The value, if it is a string.
    #[inline]
    pub fn string(&self) -> Option<StrRef<'_>> {
        let header = self.header();
        if header.kind() != Kind::String {
            None
        } else if header.is_int() {
            // SAFETY: an integer entry has the word.
            Some(StrRef::Int(unsafe { self.at(header.body()).cast::<i64>().read() }))
        } else if header.has(WORD) {
            match self.object() {
                Some(ObjectRef::String(bytes)) => Some(StrRef::Bytes(bytes)),
                _ => unreachable!("a string with a word that is no number"),
            }
        } else {
            Some(StrRef::Bytes(self.inline(header)))
        }
    }

    /// Bytes allocated for the entry itself.
    pub fn allocation_size(&self) -> usize {
        self.size(self.header())
    }

    /// Bytes allocated for the entry and its object, for `MEMORY USAGE`.
    pub fn heap_bytes(&self) -> usize {
        self.allocation_size() + self.object().map_or(0, ObjectRef::heap_bytes)
    }

    // ----------------------------------------------------- changes that may move the entry

    /// `SET`: replaces the value, of whatever kind, by a string; in place when the entry's size
    /// class stays. Key, expire, lru and epoch stay.
    ///
    /// # Safety
    /// `self` and its copies are dead after the call; only the returned handle is alive. No
    /// reference into the entry is.
    pub unsafe fn overwrite_string(self, value: &[u8]) -> Self {
        // SAFETY: handed on.
        unsafe {
            match canonical_i64(value) {
                Some(number) => self.overwrite_int(number),
                None => self.overwrite_text(value),
            }
        }
    }

    /// `INCR` and the like: replaces the value by an integer.
    ///
    /// # Safety
    /// As for `overwrite_string`.
    pub unsafe fn overwrite_int(self, number: i64) -> Self {
        // SAFETY: handed on.
        unsafe { self.rewrite(Kind::String, Encoding::Int, Value::Int(number)) }
    }

    /// Replaces the value by a text without looking for an integer in it (`INCRBYFLOAT`).
    ///
    /// # Safety
    /// As for `overwrite_string`.
    pub unsafe fn overwrite_text(mut self, value: &[u8]) -> Self {
        // SAFETY: handed on; no reference into the entry is alive, so the object is ours alone.
        unsafe {
            if value.len() > INLINE_MAX
                && let Some(ObjectMut::String(bytes)) = self.object_mut()
                && (value.len()..2 * value.len()).contains(&bytes.capacity())
            {
                bytes.clear();
                bytes.extend_from_slice(value);
                self.set_header(self.header().with(MODIFIED, false));
                return self;
            }
            self.rewrite(Kind::String, Encoding::Raw, Value::string(value))
        }
    }

    /// Replaces the value by an object.
    ///
    /// # Safety
    /// As for `overwrite_string`.
    pub unsafe fn overwrite_object(self, object: Object) -> Self {
        // SAFETY: handed on.
        unsafe { self.rewrite(object.kind(), object.view().encoding(), Value::object(object)) }
    }

    /// The text of a string for `APPEND`, `SETRANGE`, `SETBIT`: cut or extended with zeros to
    /// `new_len` bytes, and called `raw` from now on. An integer becomes its text. Past
    /// `INLINE_MAX` it becomes an object, whose capacity grows as Redis's strings do.
    ///
    /// # Safety
    /// As for `overwrite_string`; and the slice is used up before the entry is touched again.
    ///
    /// # Panics
    /// When the value is not a string.
    pub unsafe fn string_mut<'a>(mut self, new_len: usize) -> (Self, &'a mut [u8]) {
        let header = self.header();
        assert!(header.kind() == Kind::String);
        // SAFETY: by the caller's word nothing else refers to the entry; each arm ends with a
        // living entry whose value is `new_len` bytes long, inline or an object.
        unsafe {
            if header.is_object() {
                let Some(ObjectMut::String(bytes)) = self.object_mut() else {
                    unreachable!("a string with a word that is no number")
                };
                if new_len > bytes.capacity() && new_len >= PREALLOC_MAX {
                    bytes.reserve_exact(new_len - bytes.len() + PREALLOC_MAX);
                }
                bytes.resize(new_len, 0);
                let text = &mut *ptr::from_mut(bytes.as_mut_slice());
                self.set_header(header.with(MODIFIED, true));
                return (self, text);
            }
            let in_place = header.with_value_len(new_len.min(INLINE_MAX)).with(MODIFIED, true);
            if !header.has(WORD) && new_len <= INLINE_MAX && self.size(in_place) == self.size(header) {
                let old_len = header.value_len();
                let value = self.at(header.key_offset() + self.key_len(header));
                if new_len > old_len {
                    value.add(old_len).write_bytes(0, new_len - old_len);
                }
                self.set_header(in_place);
                return (self, std::slice::from_raw_parts_mut(value, new_len));
            }
            let mut buf = itoa::Buffer::new();
            let old = self.string().expect("checked above");
            let old = old.as_bytes(&mut buf);
            let old = &old[..old.len().min(new_len)];
            let value = if new_len <= INLINE_MAX {
                Value::Inline(old, new_len)
            } else {
                let mut bytes = Vec::with_capacity(new_len);
                bytes.extend_from_slice(old);
                bytes.resize(new_len, 0);
                Value::object(Object::String(bytes))
            };
            let kept = Header::new(header.0, Kind::String, Encoding::Raw).with(MODIFIED, true);
            let mut new = Self::build(kept, self.key(), self.expire_at(), value);
            self.dealloc();
            let header = new.header();
            let text = if header.is_object() {
                let Some(ObjectMut::String(bytes)) = new.object_mut() else { unreachable!() };
                &mut *ptr::from_mut(bytes.as_mut_slice())
            } else {
                let value = new.at(header.key_offset() + new.key_len(header));
                std::slice::from_raw_parts_mut(value, new_len)
            };
            (new, text)
        }
    }

    /// Sets or removes the expire; moves when the field comes or goes and the class changes.
    ///
    /// # Safety
    /// As for `overwrite_string`.
    pub unsafe fn set_expire(mut self, expire_at: Option<i64>) -> Self {
        let header = self.header();
        let target = header.with(EXPIRE, expire_at.is_some());
        let (from, to) = (header.body(), target.body());
        let end = header.key_offset() + self.key_len(header) + header.value_len();
        // SAFETY: both allocations have room for the body (word, key and value, `end - from`
        // bytes) at its place, as `size` counts the same parts; the words before it follow the
        // flags of `target`. No reference into the entry is alive.
        unsafe {
            let old = self;
            if target.0 == header.0 {
                // The field stays where it is, or away.
            } else if self.size(target) == self.size(header) {
                ptr::copy(self.at(from), self.at(to), end - from);
            } else {
                self = Self::allocate(old.size(target));
                ptr::copy_nonoverlapping(old.at(from), self.at(to), end - from);
                if header.has(WIDE) {
                    self.at(8).cast::<u64>().write(old.at(8).cast::<u64>().read());
                }
                old.dealloc();
            }
            self.set_header(target);
            if let Some(at) = expire_at {
                self.at(target.expire_offset()).cast::<i64>().write(at);
            }
        }
        self
    }

    /// `RENAME`: the same value, expire, lru and epoch under another key. An object is handed
    /// over, not copied.
    ///
    /// # Safety
    /// As for `overwrite_string`. `new_key` is not the entry's own key.
    pub unsafe fn with_key(self, new_key: &[u8]) -> Self {
        let header = self.header();
        // SAFETY: the words are there by their flags; the object has one owner again once
        // the old entry is gone.
        unsafe {
            let value = if header.is_int() {
                Value::Int(self.at(header.body()).cast::<i64>().read())
            } else if header.has(WORD) {
                Value::Object(*self.word(header))
            } else {
                Value::Inline(self.inline(header), header.value_len())
            };
            let new = Self::build(header, new_key, self.expire_at(), value);
            self.dealloc();
            new
        }
    }

    /// Frees the entry and its object.
    ///
    /// # Safety
    /// The caller owns the entry; `self` and its copies are dead after the call.
    pub unsafe fn free(self) {
        // SAFETY: by the caller's word.
        unsafe {
            self.drop_object();
            self.dealloc();
        }
    }

    // ------------------------------------------------------------------------- helpers

    #[inline]
    fn header(&self) -> Header {
        // SAFETY: a living entry begins with its header, 8-aligned.
        unsafe { self.0.cast::<Header>().read() }
    }

    #[inline]
    fn set_header(&mut self, header: Header) {
        // SAFETY: as in `header`; references handed out never cover it.
        unsafe { self.0.cast::<Header>().write(header) };
    }

    #[inline]
    fn at(&self, offset: usize) -> *mut u8 {
        self.0.as_ptr().wrapping_add(offset)
    }

    #[inline]
    fn key_len(&self, header: Header) -> usize {
        if header.has(WIDE) {
            // SAFETY: with the flag set, the word is there.
            unsafe { self.at(8).cast::<u64>().read() as usize }
        } else {
            (header.0 >> KEY_LEN) as usize & KEY_MAX
        }
    }

    #[inline]
    fn inline(&self, header: Header) -> &[u8] {
        let value = self.at(header.key_offset() + self.key_len(header));
        // SAFETY: an inline value's bytes follow the key, initialised up to their length.
        unsafe { std::slice::from_raw_parts(value, header.value_len()) }
    }

    /// Where the word of an object is.
    #[inline]
    fn word(&self, header: Header) -> *mut NonNull<u8> {
        debug_assert!(header.is_object());
        self.at(header.body()).cast()
    }

    /// The allocation's size under this header, which has the entry's own key.
    #[inline]
    fn size(&self, header: Header) -> usize {
        size_class(header.key_offset() + self.key_len(header) + header.value_len())
    }

    fn allocate(size: usize) -> Self {
        // SAFETY: a size class is not 0.
        let p = unsafe { alloc(layout(size)) };
        Self(NonNull::new(p).unwrap_or_else(|| handle_alloc_error(layout(size))))
    }

    /// Gives back the entry's own memory, leaving its object alone.
    unsafe fn dealloc(self) {
        // SAFETY: by the caller's word no one uses the entry again; the size is what it was
        // allocated with, because it follows from the header.
        unsafe { dealloc(self.0.as_ptr(), layout(self.size(self.header()))) };
    }

    unsafe fn drop_object(self) {
        let header = self.header();
        if header.is_object() {
            // SAFETY: the entry owns it; the caller forgets it after this.
            unsafe { Object::free_word(header.kind(), *self.word(header)) };
        }
    }

    /// Allocates an entry: `header` gives kind, encoding, lru, epoch and `MODIFIED`.
    fn build(header: Header, key: &[u8], expire_at: Option<i64>, value: Value<'_>) -> Self {
        let header = header.with_key_len(key.len()).with(EXPIRE, expire_at.is_some());
        let header = value.header(header);
        let size = size_class(header.key_offset() + key.len() + header.value_len());
        let mut entry = Self::allocate(size);
        entry.set_header(header);
        // SAFETY: the size above counts all these parts, in this order.
        unsafe {
            if header.has(WIDE) {
                entry.at(8).cast::<u64>().write(key.len() as u64);
            }
            if let Some(at) = expire_at {
                entry.at(header.expire_offset()).cast::<i64>().write(at);
            }
            ptr::copy_nonoverlapping(key.as_ptr(), entry.at(header.key_offset()), key.len());
            entry.write_value(header, key.len(), value);
        }
        entry
    }

    /// Replaces the value, dropping the old object; in place when the class stays and the key
    /// keeps its place.
    unsafe fn rewrite(mut self, kind: Kind, encoding: Encoding, value: Value<'_>) -> Self {
        let header = self.header();
        let key_bits = header.0 & (WIDE | EXPIRE | (KEY_MAX as u64) << KEY_LEN);
        let target = value.header(Header(Header::new(header.0, kind, encoding).0 | key_bits));
        // SAFETY: by the caller's word nothing refers into the entry or its object. In place,
        // `write_value` finds the room that `size` counted.
        unsafe {
            self.drop_object();
            if header.has(WORD) == target.has(WORD) && self.size(header) == self.size(target) {
                self.set_header(target);
                self.write_value(target, self.key_len(target), value);
                return self;
            }
            let new = Self::build(target, self.key(), self.expire_at(), value);
            self.dealloc();
            new
        }
    }

    unsafe fn write_value(&mut self, header: Header, key_len: usize, value: Value<'_>) {
        // SAFETY: the caller's allocation was sized for this header.
        unsafe {
            match value {
                Value::Int(number) => self.at(header.body()).cast::<i64>().write(number),
                Value::Object(word) => self.at(header.body()).cast::<NonNull<u8>>().write(word),
                Value::Inline(text, len) => {
                    let at = self.at(header.key_offset() + key_len);
                    ptr::copy_nonoverlapping(text.as_ptr(), at, text.len());
                    at.add(text.len()).write_bytes(0, len - text.len());
                }
            }
        }
    }
}

impl std::fmt::Debug for EntryPtr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address only: the handle may be dead.
        write!(f, "EntryPtr({:p})", self.0)
    }
}
