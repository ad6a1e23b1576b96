//! Redis's snapshot format: values, `DUMP` payloads, whole files. Bytes in, bytes out; nothing here knows a file.
//!
//! - [`write`]: an entry becomes bytes, as Redis 7.2 writes them;
//! - [`read`]: bytes become a value again, of any version from Redis 2.x to 7.4 ([`legacy`] holds what only old ones
//!   have);
//! - [`payload`]: what `DUMP` gives and `RESTORE` takes: a value, a version, a checksum;
//! - [`file`]: the items of a file, one after the other, without looking into the values;
//! - [`lzf`] and [`crc64`]: its compression and its checksum.
//!
//! **Hostile input.** A payload may come from anyone. Every length is held against the bytes that are there before
//! anything is allocated for it, and flat encodings are walked from end to end before they are taken over, whatever
//! `sanitize-dump-payload` says: the walk costs less than the copy from the socket did. Counterpart: `rdb.c`.

pub mod crc64;
pub mod file;
pub mod legacy;
pub mod long;
pub mod lzf;
pub mod payload;
pub mod read;
pub mod write;

#[cfg(test)]
pub(crate) mod tests;

use std::fmt;

/// The newest version that is understood: Redis 7.4's.
pub const VERSION_MAX: u16 = 12;

/// How a value is written: the byte before it.
pub mod kind {
    #![allow(missing_docs)]
    pub const STRING: u8 = 0;
    pub const LIST: u8 = 1;
    pub const SET: u8 = 2;
    pub const ZSET: u8 = 3;
    pub const HASH: u8 = 4;
    pub const ZSET_2: u8 = 5;
    pub const MODULE_PRE_GA: u8 = 6;
    pub const MODULE_2: u8 = 7;
    pub const HASH_ZIPMAP: u8 = 9;
    pub const LIST_ZIPLIST: u8 = 10;
    pub const SET_INTSET: u8 = 11;
    pub const ZSET_ZIPLIST: u8 = 12;
    pub const HASH_ZIPLIST: u8 = 13;
    pub const LIST_QUICKLIST: u8 = 14;
    pub const STREAM_LISTPACKS: u8 = 15;
    pub const HASH_LISTPACK: u8 = 16;
    pub const ZSET_LISTPACK: u8 = 17;
    pub const LIST_QUICKLIST_2: u8 = 18;
    pub const STREAM_LISTPACKS_2: u8 = 19;
    pub const SET_LISTPACK: u8 = 20;
    pub const STREAM_LISTPACKS_3: u8 = 21;
    pub const HASH_METADATA_PRE_GA: u8 = 22;
    pub const HASH_LISTPACK_EX_PRE_GA: u8 = 23;
    pub const HASH_METADATA: u8 = 24;
    pub const HASH_LISTPACK_EX: u8 = 25;

    /// What `redis-check-rdb` calls it.
    pub fn name(kind: u8) -> &'static str {
        const NAMES: [&str; 26] = [
            "string",
            "list-linked",
            "set-hashtable",
            "zset-v1",
            "hash-hashtable",
            "zset-v2",
            "module-pre-release",
            "module-value",
            "",
            "hash-zipmap",
            "list-ziplist",
            "set-intset",
            "zset-ziplist",
            "hash-ziplist",
            "quicklist",
            "stream",
            "hash-listpack",
            "zset-listpack",
            "quicklist-v2",
            "stream-v2",
            "set-listpack",
            "stream-v3",
            "hash-hashtable-md-pre-release",
            "hash-listpack-md-pre-release",
            "hash-hashtable-md",
            "hash-listpack-md",
        ];
        NAMES.get(kind as usize).copied().unwrap_or("unknown")
    }
}

/// How the nodes of a quicklist are held.
pub(crate) mod container {
    pub const PLAIN: u64 = 1;
    pub const PACKED: u64 = 2;
}

/// What stands in the place of a length when a string is written otherwise.
pub(crate) mod special {
    pub const INT8: u8 = 0xC0;
    pub const INT16: u8 = 0xC1;
    pub const INT32: u8 = 0xC2;
    pub const LZF: u8 = 0xC3;
}

/// Why bytes were not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// They end too early.
    Short,
    /// They contradict themselves.
    Corrupt(&'static str),
    /// A collection without an element, which no key may hold.
    Empty,
    /// Something that is not built here: modules, or a newer version.
    Unsupported(String),
    /// They could not be read at all.
    Io(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Short => f.write_str("Unexpected EOF reading RDB file"),
            Error::Corrupt(what) => f.write_str(what),
            Error::Empty => f.write_str("empty collection"),
            Error::Unsupported(what) => f.write_str(what),
            Error::Io(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {}
