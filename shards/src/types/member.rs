//! `Member`: a string on the heap with its length before it, in one allocation. The elements of large sets.
//!
//! ```text
//!  1 byte        up to 254 bytes         or, for longer ones:   1 byte   4 bytes LE
//! +--------+------------------------                           +-----+------------+-----------
//! | length | text                                              | 255 | length     | text
//! ```
//!
//! A member of up to 15 bytes takes the allocator's smallest class. The handle is `Copy`, like a pointer; whoever
//! holds the table it is in owns it. Redis's counterpart is an `sds` as the key of a `dict` without values.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::dict::Element;

/// The first byte when four bytes of length follow.
const LONG: u8 = 255;

/// A handle to a string on the heap. See the head of this file for who owns it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Member(NonNull<u8>);

// SAFETY: members are 8-aligned heap objects, a handle is the whole address, and their bytes never change. They
// belong to the table that holds them.
unsafe impl Element for Member {
    #[inline]
    fn to_ptr(self) -> NonNull<u8> {
        self.0
    }

    #[inline]
    unsafe fn from_ptr(p: NonNull<u8>) -> Self {
        Member(p)
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.bytes()
    }
}

fn head_of(len: usize) -> usize {
    if len < LONG as usize { 1 } else { 5 }
}

fn layout(len: usize) -> Layout {
    Layout::from_size_align(head_of(len) + len, 8).expect("strings are at most 4 GB")
}

impl Member {
    /// A copy of `text`, which must be shorter than 4 GB.
    pub fn new(text: &[u8]) -> Self {
        let long = u32::try_from(text.len()).expect("strings are at most 4 GB");
        let (head, layout) = (head_of(text.len()), layout(text.len()));
        // SAFETY: the layout has at least one byte, and room for the head and the text, all of which are written
        // before anything is read.
        unsafe {
            let Some(p) = NonNull::new(alloc(layout)) else { handle_alloc_error(layout) };
            if head == 1 {
                p.write(long as u8);
            } else {
                p.write(LONG);
                p.add(1).copy_from_nonoverlapping(NonNull::from(&long.to_le_bytes()).cast(), 4);
            }
            p.add(head).as_ptr().copy_from_nonoverlapping(text.as_ptr(), text.len());
            Member(p)
        }
    }

    /// The text.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: a living member has the bytes that `new` wrote, and they never change.
        unsafe {
            let p = self.0.as_ptr();
            match *p {
                LONG => {
                    let len = u32::from_le_bytes(p.add(1).cast::<[u8; 4]>().read());
                    std::slice::from_raw_parts(p.add(5), len as usize)
                }
                len => std::slice::from_raw_parts(p.add(1), len as usize),
            }
        }
    }

    /// Bytes that a member of this length takes.
    pub fn heap_bytes(len: usize) -> usize {
        (head_of(len) + len).next_multiple_of(8).max(16)
    }

    /// Frees it.
    ///
    /// # Safety
    /// No table holds it any more, and neither it nor a copy of it nor its text is used again.
    pub unsafe fn free(self) {
        let layout = layout(self.bytes().len());
        // SAFETY: `new` allocated it with this layout, and by the caller's word nothing refers to it.
        unsafe { dealloc(self.0.as_ptr(), layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_length_come_back() {
        for len in [0, 1, 15, 16, 253, 254, 255, 256, 70_000] {
            let text: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let member = Member::new(&text);
            assert_eq!(member.bytes(), text);
            assert!(member.to_ptr().as_ptr().addr().is_multiple_of(8));
            assert!(Member::heap_bytes(len) > len);
            // SAFETY: no table holds it, and it is not used again.
            unsafe { member.free() };
        }
    }
}
