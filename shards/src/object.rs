//! `Object`: a value too large or too structured to be text inside its entry.
//!
//! An entry (`entry.rs`) holds short strings and integers itself, and of everything else one word: what a collection is
//! begins with a single pointer for that reason. The entry's header says of which kind the word is, so it is given out
//! as an [`ObjectRef`] or [`ObjectMut`]; an [`Object`] is a value that is in no entry yet. A new type of collection adds
//! its variant to the three. Redis's counterpart is what `robj.ptr` points to.

use std::mem::transmute;
use std::ptr::{self, NonNull};

use crate::entry::{Encoding, Kind};
use crate::types::{Hash, List, Set, Stream, ZSet};

/// A value without an entry.
#[derive(Clone, Debug)]
pub enum Object {
    /// A string longer than an entry holds inline. Its spare capacity is what `APPEND` grows into.
    String(Vec<u8>),
    /// A hash.
    Hash(Hash),
    /// A list.
    List(List),
    /// A set.
    Set(Set),
    /// A stream.
    Stream(Box<Stream>),
    /// A sorted set.
    ZSet(ZSet),
}

/// A value in an entry.
#[derive(Clone, Copy, Debug)]
pub enum ObjectRef<'a> {
    /// A long string.
    String(&'a Vec<u8>),
    /// A hash.
    Hash(&'a Hash),
    /// A list.
    List(&'a List),
    /// A set.
    Set(&'a Set),
    /// A stream.
    Stream(&'a Stream),
    /// A sorted set.
    ZSet(&'a ZSet),
}

/// A value in an entry, to be changed.
#[derive(Debug)]
pub enum ObjectMut<'a> {
    /// A long string.
    String(&'a mut Vec<u8>),
    /// A hash.
    Hash(&'a mut Hash),
    /// A list.
    List(&'a mut List),
    /// A set.
    Set(&'a mut Set),
    /// A stream.
    Stream(&'a mut Stream),
    /// A sorted set.
    ZSet(&'a mut ZSet),
}

impl Object {
    /// Its type.
    pub fn kind(&self) -> Kind {
        match self {
            Self::String(_) => Kind::String,
            Self::Hash(_) => Kind::Hash,
            Self::List(_) => Kind::List,
            Self::Set(_) => Kind::Set,
            Self::Stream(_) => Kind::Stream,
            Self::ZSet(_) => Kind::ZSet,
        }
    }

    /// It as it will be seen in its entry.
    pub fn view(&self) -> ObjectRef<'_> {
        match self {
            Self::String(text) => ObjectRef::String(text),
            Self::Hash(hash) => ObjectRef::Hash(hash),
            Self::List(list) => ObjectRef::List(list),
            Self::Set(set) => ObjectRef::Set(set),
            Self::Stream(stream) => ObjectRef::Stream(stream),
            Self::ZSet(set) => ObjectRef::ZSet(set),
        }
    }

    /// The word of it that an entry of its kind holds, and owns from then on.
    pub(crate) fn into_word(self) -> NonNull<u8> {
        // SAFETY: each of the four is a single pointer, transparently, that is never null.
        unsafe {
            match self {
                Self::String(text) => NonNull::from(Box::leak(Box::new(text))).cast(),
                Self::Hash(hash) => transmute::<Hash, NonNull<u8>>(hash),
                Self::List(list) => transmute::<List, NonNull<u8>>(list),
                Self::Set(set) => transmute::<Set, NonNull<u8>>(set),
                Self::Stream(stream) => NonNull::from(Box::leak(stream)).cast(),
                Self::ZSet(set) => transmute::<ZSet, NonNull<u8>>(set),
            }
        }
    }

    /// Frees what a word stands for.
    ///
    /// # Safety
    /// [`Object::into_word`] made it of an object of this kind, and it is not used again.
    pub(crate) unsafe fn free_word(kind: Kind, word: NonNull<u8>) {
        // SAFETY: by the caller's word each is what it was before it was made a word.
        unsafe {
            match kind {
                Kind::String => drop(Box::from_raw(word.cast::<Vec<u8>>().as_ptr())),
                Kind::Hash => drop(transmute::<NonNull<u8>, Hash>(word)),
                Kind::List => drop(transmute::<NonNull<u8>, List>(word)),
                Kind::Set => drop(transmute::<NonNull<u8>, Set>(word)),
                Kind::Stream => drop(Box::from_raw(word.cast::<Stream>().as_ptr())),
                Kind::ZSet => drop(transmute::<NonNull<u8>, ZSet>(word)),
            }
        }
    }
}

impl<'a> ObjectRef<'a> {
    /// What a word stands for.
    ///
    /// # Safety
    /// [`Object::into_word`] made it of an object of this kind.
    #[inline]
    pub(crate) unsafe fn of_word(kind: Kind, word: &'a NonNull<u8>) -> Self {
        // SAFETY: a collection is a word, transparently; of the others the word is the pointer of the box.
        unsafe {
            match kind {
                Kind::String => Self::String(word.cast().as_ref()),
                Kind::Hash => Self::Hash(&*ptr::from_ref(word).cast()),
                Kind::List => Self::List(&*ptr::from_ref(word).cast()),
                Kind::Set => Self::Set(&*ptr::from_ref(word).cast()),
                Kind::Stream => Self::Stream(word.cast().as_ref()),
                Kind::ZSet => Self::ZSet(&*ptr::from_ref(word).cast()),
            }
        }
    }

    /// Bytes of the heap it takes beside its word.
    pub fn heap_bytes(self) -> usize {
        match self {
            Self::String(bytes) => size_of::<Vec<u8>>() + bytes.capacity(),
            Self::Hash(hash) => hash.heap_bytes(),
            Self::List(list) => list.heap_bytes(),
            Self::Set(set) => set.heap_bytes(),
            Self::Stream(stream) => stream.heap_bytes(),
            Self::ZSet(set) => set.heap_bytes(),
        }
    }

    /// When the first of its parts goes by itself, Unix ms.
    #[inline]
    pub fn next_expire(self) -> Option<i64> {
        match self {
            Self::Hash(hash) => hash.next_expire(),
            _ => None,
        }
    }

    /// About how many allocations freeing it takes.
    pub fn free_effort(self) -> usize {
        match (self, self.encoding()) {
            (Self::Stream(stream), _) => stream.allocations(),
            (Self::Hash(hash), Encoding::HashTable) => hash.len(),
            (Self::Set(set), Encoding::HashTable) => set.len(),
            (Self::List(list), Encoding::QuickList) => list.nodes(),
            (Self::ZSet(set), Encoding::SkipList) => set.len(),
            _ => 1,
        }
    }

    /// How it lies in memory.
    pub fn encoding(self) -> Encoding {
        match self {
            Self::String(_) => Encoding::Raw,
            Self::Hash(hash) => hash.encoding(),
            Self::List(list) => list.encoding(),
            Self::Set(set) => set.encoding(),
            Self::Stream(stream) => stream.encoding(),
            Self::ZSet(set) => set.encoding(),
        }
    }

    /// A copy of it.
    pub fn to_object(self) -> Object {
        match self {
            Self::String(text) => Object::String(text.clone()),
            Self::Hash(hash) => Object::Hash(hash.clone()),
            Self::List(list) => Object::List(list.clone()),
            Self::Set(set) => Object::Set(set.clone()),
            Self::Stream(stream) => Object::Stream(Box::new(stream.clone())),
            Self::ZSet(set) => Object::ZSet(set.clone()),
        }
    }
}

impl<'a> ObjectMut<'a> {
    /// What a word stands for, to be changed.
    ///
    /// # Safety
    /// As for [`ObjectRef::of_word`]; and no other reference to the object is alive.
    #[inline]
    pub(crate) unsafe fn of_word(kind: Kind, word: &'a mut NonNull<u8>) -> Self {
        // SAFETY: as in `ObjectRef::of_word`, and by the caller's word alone.
        unsafe {
            match kind {
                Kind::String => Self::String(word.cast().as_mut()),
                Kind::Hash => Self::Hash(&mut *ptr::from_mut(word).cast()),
                Kind::List => Self::List(&mut *ptr::from_mut(word).cast()),
                Kind::Set => Self::Set(&mut *ptr::from_mut(word).cast()),
                Kind::Stream => Self::Stream(word.cast().as_mut()),
                Kind::ZSet => Self::ZSet(&mut *ptr::from_mut(word).cast()),
            }
        }
    }
}
