//! A snapshot file as a sequence of items: what it says of itself, databases, keys with their values, the end.
//!
//! A value is passed over by its lengths and handed on as the bytes it is; the shard that owns its key makes a value of
//! it ([`super::read`]). So one thread keeps many shards busy with decoding. [`head`] and [`tail`] are what a file
//! begins and ends with when it is written. Counterpart: `rdbLoadRioWithLoadingCtx` and `rdbSaveRio`.
//!
//! ```text
//! REDIS0011 | aux fields | functions | SELECTDB n | RESIZEDB | [expire] [idle | freq] type key value … | EOF | CRC64
//! ```

use std::borrow::Cow;

use super::read::Cursor;
use super::write::{Style, Writer};
use super::{Error, VERSION_MAX, container, crc64, kind, special};

/// Bytes that stand where a type could and say that something else follows.
pub(crate) mod opcode {
    pub const SLOT_INFO: u8 = 244;
    pub const FUNCTION: u8 = 245;
    pub const FUNCTION_PRE_GA: u8 = 246;
    pub const MODULE_AUX: u8 = 247;
    pub const IDLE: u8 = 248;
    pub const FREQ: u8 = 249;
    pub const AUX: u8 = 250;
    pub const RESIZEDB: u8 = 251;
    pub const EXPIRETIME_MS: u8 = 252;
    pub const EXPIRETIME: u8 = 253;
    pub const SELECTDB: u8 = 254;
    pub const EOF: u8 = 255;
}

/// Where a file's bytes come from.
pub trait Source {
    /// The bytes that come next, `n` of them or more; however many are asked for, no more memory is taken than there are
    /// bytes.
    ///
    /// # Errors
    /// [`Error::Short`] when there are fewer, [`Error::Io`] for anything else.
    fn ahead(&mut self, n: usize) -> Result<&[u8], Error>;

    /// Passes over `n` of the bytes that [`Source::ahead`] has shown.
    fn pass(&mut self, n: usize);

    /// How many bytes there are from here on, where that is known.
    fn left(&self) -> Option<u64>;
}

impl Source for &[u8] {
    fn ahead(&mut self, n: usize) -> Result<&[u8], Error> {
        if n <= self.len() { Ok(self) } else { Err(Error::Short) }
    }

    fn pass(&mut self, n: usize) {
        *self = &self[n..];
    }

    fn left(&self) -> Option<u64> {
        Some(self.len() as u64)
    }
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn ahead(&mut self, n: usize) -> Result<&[u8], Error> {
        (**self).ahead(n)
    }

    fn pass(&mut self, n: usize) {
        (**self).pass(n);
    }

    fn left(&self) -> Option<u64> {
        (**self).left()
    }
}

impl<S: Source + ?Sized> Source for &mut S {
    fn ahead(&mut self, n: usize) -> Result<&[u8], Error> {
        (**self).ahead(n)
    }

    fn pass(&mut self, n: usize) {
        (**self).pass(n);
    }

    fn left(&self) -> Option<u64> {
        (**self).left()
    }
}

/// What stands with a key beside its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// How its value is written, see [`kind`].
    pub kind: u8,
    /// When it expires, in Unix ms.
    pub expire_at: Option<i64>,
    /// Seconds since it was used.
    pub idle_seconds: Option<u64>,
    /// The logarithmic counter of LFU.
    pub frequency: Option<u8>,
}

/// One item of a file. Strings are as they are written, to be read by [`Cursor::string`].
#[derive(Clone, Copy, Debug)]
pub enum Item<'a> {
    /// A field that describes the file: its name, its value.
    Aux(&'a [u8], &'a [u8]),
    /// The keys from here on are in this database.
    Db(u64),
    /// How many keys the database has, and how many of them will expire.
    Sizes(u64, u64),
    /// A library of functions.
    Function(&'a [u8]),
    /// A key with its value and all that stands with it, for [`key`] to take apart; and the key alone.
    Key(&'a [u8], &'a [u8]),
    /// The end; whether there was a checksum.
    End(bool),
}

/// Bytes that are summed up, and let go, at once.
const SUM_BYTES: usize = 64 * 1024;

/// Reads a file; see the module's page.
pub struct Reader<S> {
    source: S,
    /// Where the item being read begins, in what is ahead of the source; what is before it is yet to be passed over.
    start: usize,
    /// Up to where it was read.
    at: usize,
    /// The checksum of what the source has passed over.
    sum: u64,
    /// The checksum is held against the file's.
    check: bool,
    /// The version that the file names.
    pub version: u16,
    /// Bytes that the source has passed over.
    passed: u64,
    db: u64,
}

impl<S: Source> Reader<S> {
    /// Reads the head of a file.
    ///
    /// # Errors
    /// When it is none, or of a version that is not known.
    pub fn new(mut source: S, check: bool) -> Result<Self, Error> {
        let head = &source.ahead(9)?[..9];
        if !head.starts_with(b"REDIS") {
            return Err(Error::Corrupt("Wrong signature trying to load DB from file"));
        }
        let version = std::str::from_utf8(&head[5..]).ok().and_then(|digits| digits.parse().ok());
        let version = version.filter(|version| (1..=VERSION_MAX).contains(version)).ok_or_else(|| {
            let digits = String::from_utf8_lossy(&head[5..]);
            Error::Unsupported(format!("Can't handle RDB format version {}", digits.trim_start_matches('0')))
        })?;
        Ok(Reader { source, start: 9, at: 9, sum: 0, check, version, passed: 0, db: 0 })
    }

    /// How far it has come, in bytes.
    pub fn offset(&self) -> u64 {
        self.passed + self.at as u64
    }

    /// How many bytes the file has behind the head, where that is known.
    pub fn left(&self) -> Option<u64> {
        Some(self.source.left()?.saturating_sub(self.at as u64))
    }

    /// Passes over all that was read.
    fn pass(&mut self) -> Result<(), Error> {
        if self.check {
            self.sum = crc64::update(self.sum, &self.source.ahead(self.at)?[..self.at]);
        }
        self.source.pass(self.at);
        self.passed += self.at as u64;
        (self.start, self.at) = (0, 0);
        Ok(())
    }

    #[inline]
    fn take(&mut self, n: u64) -> Result<(), Error> {
        let end = usize::try_from(n).ok().and_then(|n| self.at.checked_add(n));
        let Some(end) = end else { return Err(Error::Short) };
        self.source.ahead(end)?;
        self.at = end;
        Ok(())
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let end = self.at + N;
        let bytes = self.source.ahead(end)?[self.at..].first_chunk().expect("as many as asked for");
        self.at = end;
        Ok(*bytes)
    }

    fn head(&mut self) -> Result<Result<u64, u8>, Error> {
        let first = self.byte()?;
        Ok(Ok(match first {
            0..0x40 => u64::from(first),
            0x40..0x80 => u64::from(first & 63) << 8 | u64::from(self.byte()?),
            0x80 => u32::from_be_bytes(self.array()?).into(),
            0x81 => u64::from_be_bytes(self.array()?),
            0xC0.. => return Ok(Err(first)),
            _ => return Err(Error::Corrupt("Unknown length encoding in RDB")),
        }))
    }

    fn len(&mut self) -> Result<u64, Error> {
        match self.head()? {
            Ok(len) => Ok(len),
            Err(_) => Err(Error::Corrupt("A string stands where a length should")),
        }
    }

    fn pass_string(&mut self) -> Result<(), Error> {
        match self.head()? {
            Ok(len) => self.take(len),
            Err(special::INT8) => self.take(1),
            Err(special::INT16) => self.take(2),
            Err(special::INT32) => self.take(4),
            Err(special::LZF) => {
                let packed = self.len()?;
                self.len()?;
                self.take(packed)
            }
            Err(_) => Err(Error::Corrupt("Unknown RDB string encoding type")),
        }
    }

    fn pass_strings(&mut self, n: u64) -> Result<(), Error> {
        (0..n).try_for_each(|_| self.pass_string())
    }

    fn pass_value(&mut self, kind: u8) -> Result<(), Error> {
        match kind {
            kind::STRING
            | kind::HASH_ZIPMAP
            | kind::LIST_ZIPLIST
            | kind::SET_INTSET
            | kind::ZSET_ZIPLIST
            | kind::HASH_ZIPLIST
            | kind::HASH_LISTPACK
            | kind::ZSET_LISTPACK
            | kind::SET_LISTPACK => self.pass_string(),
            kind::LIST | kind::SET | kind::LIST_QUICKLIST => {
                let n = self.len()?;
                self.pass_strings(n)
            }
            kind::HASH => {
                let n = self.len()?;
                (0..n).try_for_each(|_| self.pass_strings(2))
            }
            kind::ZSET => {
                let n = self.len()?;
                (0..n).try_for_each(|_| {
                    self.pass_string()?;
                    match self.byte()? {
                        253..=255 => Ok(()),
                        len => self.take(len.into()),
                    }
                })
            }
            kind::ZSET_2 => {
                let n = self.len()?;
                (0..n).try_for_each(|_| {
                    self.pass_string()?;
                    self.take(8)
                })
            }
            kind::LIST_QUICKLIST_2 => {
                let n = self.len()?;
                (0..n).try_for_each(|_| match self.len()? {
                    container::PLAIN | container::PACKED => self.pass_string(),
                    _ => Err(Error::Corrupt("Quicklist integrity check failed.")),
                })
            }
            kind::STREAM_LISTPACKS | kind::STREAM_LISTPACKS_2 | kind::STREAM_LISTPACKS_3 => self.pass_stream(kind),
            kind::HASH_METADATA => {
                self.take(8)?;
                let n = self.len()?;
                (0..n).try_for_each(|_| {
                    self.len()?;
                    self.pass_strings(2)
                })
            }
            kind::HASH_LISTPACK_EX => {
                self.take(8)?;
                self.pass_string()
            }
            kind::MODULE_PRE_GA | kind::MODULE_2 => {
                Err(Error::Unsupported("The file holds data of a module, and there are no modules here".into()))
            }
            other => Err(Error::Unsupported(format!("Unknown RDB encoding type {other}"))),
        }
    }

    fn pass_lens(&mut self, n: usize) -> Result<(), Error> {
        (0..n).try_for_each(|_| self.len().map(|_| ()))
    }

    fn pass_stream(&mut self, kind: u8) -> Result<(), Error> {
        let n = self.len()?;
        (0..n).try_for_each(|_| self.pass_strings(2))?;
        self.pass_lens(if kind == kind::STREAM_LISTPACKS { 3 } else { 8 })?;
        let groups = self.len()?;
        for _ in 0..groups {
            self.pass_string()?;
            self.pass_lens(if kind == kind::STREAM_LISTPACKS { 2 } else { 3 })?;
            let pending = self.len()?;
            for _ in 0..pending {
                self.take(24)?;
                self.len()?;
            }
            let consumers = self.len()?;
            for _ in 0..consumers {
                self.pass_string()?;
                self.take(if kind == kind::STREAM_LISTPACKS_3 { 16 } else { 8 })?;
                let pending = self.len()?;
                (0..pending).try_for_each(|_| self.take(16))?;
            }
        }
        Ok(())
    }

    /// The database that keys are in from here on.
    pub fn db(&self) -> u64 {
        self.db
    }

    /// The next item. After the end, or an error, there is none.
    ///
    /// # Errors
    /// What is wrong with the file, see [`Reader::offset`] for where.
    pub fn item(&mut self) -> Result<Item<'_>, Error> {
        if self.at >= SUM_BYTES {
            self.pass()?;
        }
        self.start = self.at;
        loop {
            let code = self.byte()?;
            match code {
                opcode::EXPIRETIME_MS => self.take(8)?,
                opcode::EXPIRETIME => self.take(4)?,
                opcode::FREQ => self.take(1)?,
                opcode::IDLE => self.pass_lens(1)?,
                opcode::SELECTDB => {
                    self.db = self.len()?;
                    return Ok(Item::Db(self.db));
                }
                opcode::RESIZEDB => {
                    let (keys, expires) = (self.len()?, self.len()?);
                    return Ok(Item::Sizes(keys, expires));
                }
                // How many keys a cluster's slot has, as advice.
                opcode::SLOT_INFO => self.pass_lens(3)?,
                opcode::AUX => {
                    let start = self.at;
                    self.pass_string()?;
                    let middle = self.at;
                    self.pass_string()?;
                    let (name, value) = self.source.ahead(self.at)?[start..self.at].split_at(middle - start);
                    return Ok(Item::Aux(name, value));
                }
                opcode::FUNCTION => {
                    let start = self.at;
                    self.pass_string()?;
                    return Ok(Item::Function(&self.source.ahead(self.at)?[start..self.at]));
                }
                opcode::FUNCTION_PRE_GA => {
                    return Err(Error::Unsupported("Pre-release function format not supported.".into()));
                }
                opcode::MODULE_AUX => {
                    let text = "The file holds data of a module, and there are no modules here";
                    return Err(Error::Unsupported(text.into()));
                }
                opcode::EOF => return self.end().map(Item::End),
                kind => {
                    let start = self.at;
                    self.pass_string()?;
                    let middle = self.at;
                    self.pass_value(kind)?;
                    let whole = self.source.ahead(self.at)?;
                    return Ok(Item::Key(&whole[self.start..self.at], &whole[start..middle]));
                }
            }
        }
    }

    fn end(&mut self) -> Result<bool, Error> {
        self.pass()?;
        if self.version < 5 {
            return Ok(false);
        }
        let sum = self.sum;
        let expected = u64::from_le_bytes(self.array()?);
        // What follows is another reader's.
        self.source.pass(self.at);
        self.passed += std::mem::take(&mut self.at) as u64;
        if expected == 0 || !self.check {
            return Ok(false);
        }
        match expected == sum {
            true => Ok(true),
            false => Err(Error::Unsupported(format!(
                "RDB CRC error: wrong RDB checksum expected: ({sum:x}) but got ({expected:x})"
            ))),
        }
    }
}

/// Takes an [`Item::Key`] apart: what stands with the key, and the key; the value is what is left.
///
/// # Errors
/// When it is broken.
pub fn key<'a>(from: &mut Cursor<'a>) -> Result<(Meta, Cow<'a, [u8]>), Error> {
    let mut meta = Meta::default();
    loop {
        match from.byte()? {
            opcode::EXPIRETIME_MS => meta.expire_at = Some(from.ms()?),
            opcode::EXPIRETIME => meta.expire_at = Some(i64::from(i32::from_le_bytes(from.array()?)) * 1000),
            opcode::FREQ => meta.frequency = Some(from.byte()?),
            opcode::IDLE => meta.idle_seconds = Some(from.length()?),
            opcode::SLOT_INFO => {
                for _ in 0..3 {
                    from.length()?;
                }
            }
            kind => {
                meta.kind = kind;
                return Ok((meta, from.string()?));
            }
        }
    }
}

/// The text of a string as it is written.
///
/// # Errors
/// When it is broken.
pub fn text(mut written: &[u8]) -> Result<Vec<u8>, Error> {
    let mut cursor = Cursor { rest: written };
    let text = cursor.string()?.into_owned();
    written = cursor.rest;
    if written.is_empty() { Ok(text) } else { Err(Error::Corrupt("Bytes behind a string")) }
}

/// The beginning of a file: its version, and fields that describe it.
pub fn head(style: Style, fields: &[(&str, String)]) -> Vec<u8> {
    let mut out = format!("REDIS{:04}", style.version).into_bytes();
    let mut writer = Writer { out: &mut out, style };
    for (name, value) in fields {
        writer.out.push(opcode::AUX);
        writer.string(name.as_bytes());
        writer.string(value.as_bytes());
    }
    out
}

/// The end of a file whose bytes up to here have the checksum `sum`; without one, zeros stand in its place.
pub fn tail(sum: Option<u64>) -> [u8; 9] {
    let mut tail = [opcode::EOF; 9];
    let sum = sum.map_or(0, |sum| crc64::update(sum, &[opcode::EOF]));
    tail[1..].copy_from_slice(&sum.to_le_bytes());
    tail
}
