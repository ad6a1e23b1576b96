//! `PackBuf`: the allocation of a listpack, behind one thin pointer.
//!
//! The idea: a listpack begins with its own length, so a `Vec` beside it would keep that twice. What a `Vec` knows
//! beyond that is its capacity, which stands in front of the listpack's bytes. A small collection's box is 16 bytes
//! smaller for it.
//!
//! ```text
//! +----------+-------+--------------------------+
//! | capacity | total | what else there is of it |
//! | u32      | u32   |                          |
//! +----------+-------+--------------------------+
//!            ^ the listpack: `total` bytes, of `capacity` that there is room for
//! ```
//!
//! The total is written here alone: whoever changes bytes gets at those behind it.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::ops::Deref;
use std::ptr::{self, NonNull};

/// Bytes of the capacity, and of the total.
const WORD: usize = 4;

/// Bytes that begin with their own length. See the head of the file.
pub(super) struct PackBuf {
    /// Where the capacity stands.
    at: NonNull<u8>,
}

// SAFETY: it owns its allocation alone, as a `Box<[u8]>` does.
unsafe impl Send for PackBuf {}
// SAFETY: what is shared is only read.
unsafe impl Sync for PackBuf {}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(WORD + capacity, WORD).expect("a listpack is below 4 GB")
}

impl PackBuf {
    /// Those of `start`, whose first four are written anew as their count, with room for `capacity` in all.
    ///
    /// `start` has at least four bytes.
    pub fn new(start: &[u8], capacity: usize) -> Self {
        let capacity = capacity.max(start.len());
        u32::try_from(capacity).expect("a listpack is below 4 GB");
        assert!(start.len() >= WORD, "a listpack begins with its length");
        let layout = layout(capacity);
        // SAFETY: the layout is not empty.
        let Some(at) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        let mut buf = PackBuf { at };
        buf.put(0, capacity);
        // SAFETY: there is room for `capacity` bytes behind the capacity, and `start` is not longer; it is not in what was
        // allocated just now.
        unsafe { ptr::copy_nonoverlapping(start.as_ptr(), at.as_ptr().add(WORD), start.len()) };
        buf.put(WORD, start.len());
        buf
    }

    /// Writes the capacity (at 0) or the total (behind it).
    fn put(&mut self, offset: usize, value: usize) {
        debug_assert!(offset == 0 || offset == WORD);
        // SAFETY: every allocation has both words, and its alignment is theirs.
        unsafe { self.at.as_ptr().add(offset).cast::<u32>().write((value as u32).to_le()) };
    }

    #[inline]
    fn word(&self, offset: usize) -> usize {
        debug_assert!(offset == 0 || offset == WORD);
        // SAFETY: as for `put`; both are written as the allocation is made.
        u32::from_le(unsafe { self.at.as_ptr().add(offset).cast::<u32>().read() }) as usize
    }

    /// Bytes that there is room for.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.word(0)
    }

    /// The capacity for at least `need` bytes that fills the allocator's next size class, or part of it: those of small
    /// sizes are 16 apart, and a sixteenth of larger ones keeps appends amortised.
    pub fn room_for(&self, need: usize) -> usize {
        let step = (need / 16).next_power_of_two().max(16);
        (WORD + need).next_multiple_of(step) - WORD
    }

    /// Bytes of the heap.
    pub fn heap_bytes(&self) -> usize {
        WORD + self.capacity()
    }

    /// The bytes from `offset` on, which is behind the total.
    #[inline]
    pub fn tail_mut(&mut self, offset: usize) -> &mut [u8] {
        let len = self.len();
        assert!((WORD..=len).contains(&offset), "the total is not to be written");
        // SAFETY: the first `len` bytes are written, and `offset` is not past them.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr().add(WORD + offset), len - offset) }
    }

    /// Makes it `len` bytes: what is new is zero.
    pub fn resize(&mut self, len: usize) {
        let old = self.len();
        assert!((WORD..=self.capacity()).contains(&len), "room was made before");
        if len > old {
            // SAFETY: there is room for `len` bytes.
            unsafe { ptr::write_bytes(self.at.as_ptr().add(WORD + old), 0, len - old) };
        }
        self.put(WORD, len);
    }

    /// Appends bytes, for which there is room.
    pub fn extend(&mut self, bytes: &[u8]) {
        let old = self.len();
        assert!(old + bytes.len() <= self.capacity(), "room was made before");
        // SAFETY: there is room, and `bytes` cannot be in an allocation that is borrowed here.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.at.as_ptr().add(WORD + old), bytes.len()) };
        self.put(WORD, old + bytes.len());
    }

    /// Changes what there is room for; never below what there is.
    pub fn set_capacity(&mut self, capacity: usize) {
        let capacity = capacity.max(self.len());
        u32::try_from(capacity).expect("a listpack is below 4 GB");
        let (old, new) = (layout(self.capacity()), layout(capacity));
        // SAFETY: allocated with just that layout; the new size is not zero and no overflow, as `layout` has seen.
        let moved = unsafe { realloc(self.at.as_ptr(), old, new.size()) };
        let Some(at) = NonNull::new(moved) else { handle_alloc_error(new) };
        self.at = at;
        self.put(0, capacity);
    }
}

impl Deref for PackBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the first `total` bytes are written.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr().add(WORD), self.word(WORD)) }
    }
}

impl Drop for PackBuf {
    fn drop(&mut self) {
        // SAFETY: allocated with just that layout, and nobody sees it from here on.
        unsafe { dealloc(self.at.as_ptr(), layout(self.capacity())) };
    }
}

impl Clone for PackBuf {
    fn clone(&self) -> Self {
        PackBuf::new(self, self.capacity())
    }
}

impl PartialEq for PackBuf {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for PackBuf {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_pointer_that_is_never_null() {
        assert_eq!(size_of::<PackBuf>(), size_of::<usize>());
        assert_eq!(size_of::<Option<PackBuf>>(), size_of::<usize>());
    }

    #[test]
    #[should_panic(expected = "the total is not to be written")]
    fn the_total_is_out_of_reach() {
        PackBuf::new(&[0; 8], 8).tail_mut(3);
    }

    proptest! {
        /// Against a `Vec` whose first four bytes are its length.
        #[test]
        fn as_a_vec(ops in prop::collection::vec((0..4u8, 0..200usize, any::<u8>()), 1..40)) {
            let start = [4, 0, 0, 0];
            let (mut buf, mut oracle) = (PackBuf::new(&start, 0), start.to_vec());
            for (op, n, byte) in ops {
                match op {
                    0 => {
                        buf.set_capacity(n.max(buf.capacity()));
                        buf.resize(n.max(4));
                        oracle.resize(n.max(4), 0);
                    }
                    1 => {
                        buf.set_capacity(buf.len() + n);
                        buf.extend(&vec![byte; n]);
                        oracle.extend(vec![byte; n]);
                    }
                    2 => {
                        buf.set_capacity(n);
                        assert!(buf.capacity() >= n && buf.heap_bytes() == 4 + buf.capacity());
                    }
                    _ => {
                        let at = 4 + n % (oracle.len() - 3);
                        buf.tail_mut(at).fill(byte);
                        oracle[at..].fill(byte);
                    }
                }
                let total = oracle.len() as u32;
                oracle[..4].copy_from_slice(&total.to_le_bytes());
                assert_eq!(&buf[..], &oracle[..]);
                assert!(buf.clone() == buf);
            }
        }
    }
}
