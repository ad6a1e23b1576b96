//! `Headed`: an allocation whose first bytes say how long it is, behind one thin pointer.
//!
//! The idea: a listpack begins with its length, an array of integers with the width and the number of its members, so
//! a `Vec` beside them would keep their length twice. What a `Vec` knows beyond that is its capacity, and that follows
//! from the length here: it is always the whole of the allocator's size class ([`size_class`]), so an allocation moves
//! exactly when its class changes, as it would move anyway. Not a byte is kept but the collection's own.
//!
//! ```text
//! +------+-------------------+-----------------------------+
//! | head | the rest of `len` | slack of the size class     |
//! +------+-------------------+-----------------------------+
//! ```
//!
//! The length is written here alone: whoever changes bytes gets at those behind the head.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::{self, NonNull};

use crate::size_class::size_class;

/// How first bytes say how many there are.
pub(super) trait Head {
    /// How many bytes it is.
    const BYTES: usize;

    /// The length that this head says, itself included: at least [`Head::BYTES`].
    fn len(head: &[u8]) -> usize;

    /// Makes this head say another length.
    fn set_len(head: &mut [u8], len: usize);
}

/// Bytes that begin with such a head. See that of the file.
#[repr(transparent)]
pub(super) struct Headed<H: Head> {
    at: NonNull<u8>,
    head: PhantomData<H>,
}

// SAFETY: it owns its allocation alone, as a `Box<[u8]>` does.
unsafe impl<H: Head> Send for Headed<H> {}
// SAFETY: what is shared is only read.
unsafe impl<H: Head> Sync for Headed<H> {}

/// That of `len` bytes. Its alignment leaves the three lowest bits of the pointer free.
fn layout(len: usize) -> Layout {
    Layout::from_size_align(size_class(len), 8).expect("flat collections are below 4 GB")
}

impl<H: Head> Headed<H> {
    /// Those of `start`, whose head says how many they are.
    ///
    /// # Panics
    /// When it says something else.
    pub fn new(start: &[u8]) -> Self {
        assert!(start.len() >= H::BYTES && H::len(&start[..H::BYTES]) == start.len(), "a head says the length");
        let layout = layout(start.len());
        // SAFETY: the layout is not empty.
        let Some(at) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        // SAFETY: there is room for `start`, and it is not in what was allocated just now.
        unsafe { ptr::copy_nonoverlapping(start.as_ptr(), at.as_ptr(), start.len()) };
        Headed { at, head: PhantomData }
    }

    /// Bytes of the heap.
    pub fn heap_bytes(&self) -> usize {
        size_class(self.len())
    }

    /// The bytes from `offset` on, which is behind the head.
    #[inline]
    pub fn tail_mut(&mut self, offset: usize) -> &mut [u8] {
        let len = self.len();
        assert!((H::BYTES..=len).contains(&offset), "the head is not to be written");
        // SAFETY: the first `len` bytes are written, and `offset` is not past them.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr().add(offset), len - offset) }
    }

    /// Makes it `len` bytes: what is new is zero.
    pub fn resize(&mut self, len: usize) {
        assert!(len >= H::BYTES, "the head stays");
        let old = self.len();
        if size_class(old) != size_class(len) {
            let (from, to) = (layout(old), layout(len));
            // SAFETY: allocated with just that layout; the new size is not zero and no overflow, as `layout` has seen.
            let moved = unsafe { realloc(self.at.as_ptr(), from, to.size()) };
            let Some(at) = NonNull::new(moved) else { handle_alloc_error(to) };
            self.at = at;
        }
        if len > old {
            // SAFETY: there is room for `len` bytes.
            unsafe { ptr::write_bytes(self.at.as_ptr().add(old), 0, len - old) };
        }
        // SAFETY: the head is written, and `&mut self` is the only way to it.
        let head = unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), H::BYTES) };
        H::set_len(head, len);
        debug_assert_eq!(self.len(), len, "the head can say this length");
    }
}

impl<H: Head> Deref for Headed<H> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the head is written, and with it as many bytes as it says.
        unsafe {
            let head = std::slice::from_raw_parts(self.at.as_ptr(), H::BYTES);
            std::slice::from_raw_parts(self.at.as_ptr(), H::len(head))
        }
    }
}

impl<H: Head> Drop for Headed<H> {
    fn drop(&mut self) {
        // SAFETY: allocated with just that layout, and nobody sees it from here on.
        unsafe { dealloc(self.at.as_ptr(), layout(self.len())) };
    }
}

impl<H: Head> Clone for Headed<H> {
    fn clone(&self) -> Self {
        Headed::new(self)
    }
}

impl<H: Head> PartialEq for Headed<H> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<H: Head> Eq for Headed<H> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The length as it is.
    struct Total;

    impl Head for Total {
        const BYTES: usize = 4;

        fn len(head: &[u8]) -> usize {
            u32::from_le_bytes(head.try_into().expect("four bytes")) as usize
        }

        fn set_len(head: &mut [u8], len: usize) {
            head.copy_from_slice(&(len as u32).to_le_bytes());
        }
    }

    #[test]
    fn one_pointer_that_is_never_null() {
        assert_eq!(size_of::<Headed<Total>>(), size_of::<usize>());
        assert_eq!(size_of::<Option<Headed<Total>>>(), size_of::<usize>());
    }

    #[test]
    #[should_panic(expected = "the head is not to be written")]
    fn the_head_is_out_of_reach() {
        Headed::<Total>::new(&[8, 0, 0, 0, 1, 2, 3, 4]).tail_mut(3);
    }

    #[test]
    #[should_panic(expected = "a head says the length")]
    fn a_wrong_head_is_not_believed() {
        Headed::<Total>::new(&[9, 0, 0, 0, 1, 2, 3, 4]);
    }

    proptest! {
        /// Against a `Vec` whose first four bytes are its length.
        #[test]
        fn as_a_vec(ops in prop::collection::vec((any::<bool>(), 0..300usize, any::<u8>()), 1..40)) {
            let start = [4, 0, 0, 0];
            let (mut bytes, mut oracle) = (Headed::<Total>::new(&start), start.to_vec());
            for (resize, n, byte) in ops {
                if resize {
                    bytes.resize(n.max(4));
                    oracle.resize(n.max(4), 0);
                } else {
                    let at = 4 + n % (oracle.len() - 3);
                    bytes.tail_mut(at).fill(byte);
                    oracle[at..].fill(byte);
                }
                let total = oracle.len() as u32;
                oracle[..4].copy_from_slice(&total.to_le_bytes());
                assert_eq!(&bytes[..], &oracle[..]);
                assert!(bytes.clone() == bytes && bytes.heap_bytes() >= oracle.len());
                assert_eq!(bytes.at.addr().get() % 8, 0);
            }
        }
    }
}
