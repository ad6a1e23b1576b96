//! The arguments of one command: `argc` and `argv` as slices of the bytes they arrived in.
//!
//! Nothing is copied while a command runs at home: an argument is an offset and a length into the client's input.
//! A command that must wait or travel (`MULTI`, another shard, a transaction) becomes an [`OwnedArgs`].

use std::ops::Index;

use crate::dict::HASH_BITS;
use crate::router::ShardId;

/// Where one argument lies in the bytes of its command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArgRef {
    /// Offset of the first byte.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
}

impl ArgRef {
    /// In a copy of the bytes that begins so far behind them, or before them if the sum passes zero.
    #[inline]
    pub(crate) fn moved(self, by: u32) -> ArgRef {
        ArgRef { start: self.start.wrapping_add(by), len: self.len }
    }
}

/// Where a key is: found once, when its command is read, and carried along to wherever it is looked up.
///
/// One word, for what travels to another core travels a cache line at a time: the owner takes the lowest bits of the hash,
/// which say nothing about a key's place in a table ([`crate::dict::HASH_BITS`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyPlace(u64);

impl KeyPlace {
    /// The place of a key with this [`crate::dict::Hasher::hash`], in the slice of `owner`.
    #[inline]
    pub fn new(hash: u64, owner: ShardId) -> Self {
        KeyPlace(hash & HASH_BITS | u64::from(owner))
    }

    /// A hash of the key, as good as the one that its hasher gives.
    #[inline]
    pub fn hash(self) -> u64 {
        self.0
    }

    /// The shard whose slice it belongs to.
    #[inline]
    pub fn owner(self) -> ShardId {
        (self.0 & !HASH_BITS) as ShardId
    }
}

const _: () = assert!(!HASH_BITS == ShardId::MAX as u64);

/// Bytes of a short argument, see [`Args::short`].
pub(crate) const SHORT: usize = 32;

/// A command's arguments, the name first. Never empty.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    bytes: &'a [u8],
    refs: &'a [ArgRef],
    places: &'a [KeyPlace],
}

impl<'a> Args<'a> {
    /// Arguments at `refs` inside `bytes`; every range must lie within `bytes`, and behind the one before it.
    pub fn new(bytes: &'a [u8], refs: &'a [ArgRef]) -> Self {
        debug_assert!(!refs.is_empty());
        debug_assert!(refs.iter().all(|r| (r.start as usize + r.len as usize) <= bytes.len()));
        debug_assert!(refs.is_sorted_by(|a, b| a.start + a.len <= b.start));
        Args { bytes, refs, places: &[] }
    }

    /// The same arguments, with the places of all their keys, in their order.
    #[inline]
    pub fn with_places(self, places: &'a [KeyPlace]) -> Self {
        Args { places, ..self }
    }

    /// The places of all keys, or nothing if they are not known.
    #[inline]
    pub fn places(&self) -> &'a [KeyPlace] {
        self.places
    }

    /// How many there are, the command's name included (`argc`).
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.refs.len()
    }

    /// The argument at `index`, or `None` past the last.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        let r = self.refs.get(index)?;
        Some(&self.bytes[r.start as usize..r.start as usize + r.len as usize])
    }

    /// The argument at `index`; panics past the last, so only below a checked arity.
    #[inline]
    pub fn at(&self, index: usize) -> &'a [u8] {
        let r = self.refs[index];
        &self.bytes[r.start as usize..r.start as usize + r.len as usize]
    }

    /// One of the arguments.
    #[inline]
    pub(crate) fn get_ref(&self, arg: ArgRef) -> &'a [u8] {
        &self.bytes[arg.start as usize..arg.start as usize + arg.len as usize]
    }

    /// One of the arguments with what stands behind it, if it is short: it is copied in one piece of a length that the
    /// compiler knows, which takes a third of a copy of any length.
    #[inline]
    pub(crate) fn short(&self, arg: ArgRef) -> Option<&'a [u8; SHORT]> {
        let behind = self.bytes.get(arg.start as usize..arg.start as usize + SHORT)?;
        if arg.len as usize <= SHORT { behind.first_chunk() } else { None }
    }

    /// The arguments from `from` on.
    pub fn iter_from(&self, from: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let bytes = self.bytes;
        self.refs[from.min(self.refs.len())..].iter().map(move |r| &bytes[r.start as usize..(r.start + r.len) as usize])
    }

    /// The arguments from `from` on, of which there must be one, as if they were a command of their own.
    pub fn tail(&self, from: usize) -> Args<'a> {
        Args::new(self.bytes, &self.refs[from..])
    }

    /// The first `n` arguments, at least one and all keys.
    pub fn only(&self, n: usize) -> Args<'a> {
        Args::new(self.bytes, &self.refs[..n]).with_places(self.places)
    }

    /// Whether the argument at `index` is there and equals `word` but for letter case.
    pub fn is(&self, index: usize, word: &str) -> bool {
        self.get(index).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// Where the arguments lie in the bytes they came in.
    #[inline]
    pub(crate) fn refs(&self) -> &'a [ArgRef] {
        self.refs
    }

    /// These bytes from the first argument to the last, with what stands between.
    #[inline]
    pub(crate) fn span(&self) -> &'a [u8] {
        let last = self.refs[self.refs.len() - 1];
        &self.bytes[self.refs[0].start as usize..(last.start + last.len) as usize]
    }

    /// A copy that can outlive the input.
    pub fn to_owned(&self) -> OwnedArgs {
        let mut owned = OwnedArgs {
            bytes: Vec::with_capacity(self.refs.iter().map(|r| r.len as usize).sum()),
            refs: Vec::with_capacity(self.refs.len()),
            places: self.places.to_vec(),
        };
        self.iter_from(0).for_each(|arg| owned.push(arg));
        owned
    }
}

impl Index<usize> for Args<'_> {
    type Output = [u8];

    #[inline]
    fn index(&self, index: usize) -> &[u8] {
        self.at(index)
    }
}

/// Arguments with bytes of their own, in one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedArgs {
    bytes: Vec<u8>,
    refs: Vec<ArgRef>,
    places: Vec<KeyPlace>,
}

impl OwnedArgs {
    /// Arguments from a list of words.
    pub fn from_words<W: AsRef<[u8]>>(words: &[W]) -> Self {
        let mut owned = Self::default();
        for word in words {
            owned.push(word.as_ref());
        }
        owned
    }

    /// Removes all arguments, keeping the memory unless it is large.
    pub fn clear(&mut self) {
        self.refs.clear();
        self.places.clear();
        match self.bytes.capacity() > 64 * 1024 {
            true => self.bytes = Vec::new(),
            false => self.bytes.clear(),
        }
    }

    /// Adds one argument at the end.
    pub fn push(&mut self, arg: &[u8]) {
        self.refs.push(ArgRef { start: self.bytes.len() as u32, len: arg.len() as u32 });
        self.bytes.extend_from_slice(arg);
    }

    /// The arguments; there must be at least one.
    pub fn args(&self) -> Args<'_> {
        Args::new(&self.bytes, &self.refs).with_places(&self.places)
    }

    /// Bytes of memory held.
    pub fn memory(&self) -> usize {
        self.bytes.capacity()
            + self.refs.capacity() * size_of::<ArgRef>()
            + self.places.capacity() * size_of::<KeyPlace>()
    }
}
