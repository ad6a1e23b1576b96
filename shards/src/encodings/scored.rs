//! `ScoredPtr`: a member of a large sorted set with its score, in one allocation.
//!
//! ```text
//!  8 bytes   1 byte       up to 254 bytes     or, for longer ones:   8 bytes  1 byte   4 bytes LE
//! +-------+--------+------------------------                        +-------+-----+------------+-----------
//! | score | length | text                                           | score | 255 | length     | text
//! ```
//!
//! Two structures hold the handle: a dict, which finds a member by its text, and a [`CountedTree`], which keeps them
//! in order. A member of up to 23 bytes takes 32 in the allocator's classes. Redis's counterpart is three allocations:
//! a `dictEntry`, a `zskiplistNode` and the text between them. The handle is `Copy`, like a pointer; the owner of the
//! two structures frees it.
//!
//! [`CountedTree`]: super::counted_tree::CountedTree

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::dict::Element;

/// Where the length begins.
const LENGTH: usize = size_of::<f64>();
/// The length byte that says that four bytes of length follow.
const LONG: u8 = 255;

/// A handle to a member with its score. See the head of this file for who owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScoredPtr(NonNull<u8>);

// The tree's arrays of optional handles take no more than the handles.
const _: () = assert!(size_of::<Option<ScoredPtr>>() == 8);

// SAFETY: they are 8-aligned heap objects, the handle is the whole address, and the text never changes.
unsafe impl Element for ScoredPtr {
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
        self.text()
    }
}

// SAFETY: a member belongs to the sorted set that holds it and goes to another thread only with it.
unsafe impl Send for ScoredPtr {}

fn head_of(len: usize) -> usize {
    LENGTH + if len < LONG as usize { 1 } else { 5 }
}

fn layout(len: usize) -> Layout {
    Layout::from_size_align(head_of(len) + len, 8).expect("strings are at most 4 GB")
}

impl ScoredPtr {
    /// A copy of `text`, which must be shorter than 4 GB, with its score. Its owner gives it to [`ScoredPtr::free`] in
    /// the end.
    pub fn new(text: &[u8], score: f64) -> Self {
        let long = u32::try_from(text.len()).expect("strings are at most 4 GB");
        let (head, layout) = (head_of(text.len()), layout(text.len()));
        // SAFETY: the layout has room for the score, the length and the text, all of which are written before
        // anything is read, and it is aligned for the score.
        unsafe {
            let Some(p) = NonNull::new(alloc(layout)) else { handle_alloc_error(layout) };
            p.cast::<f64>().write(score);
            if head == LENGTH + 1 {
                p.add(LENGTH).write(long as u8);
            } else {
                p.add(LENGTH).write(LONG);
                p.add(LENGTH + 1).copy_from_nonoverlapping(NonNull::from(&long.to_le_bytes()).cast(), 4);
            }
            p.add(head).as_ptr().copy_from_nonoverlapping(text.as_ptr(), text.len());
            Self(p)
        }
    }

    /// The score.
    #[inline]
    pub fn score(self) -> f64 {
        // SAFETY: a living member begins with its score.
        unsafe { self.0.cast::<f64>().read() }
    }

    /// Changes the score. In a tree, the tree is told too.
    #[inline]
    pub fn set_score(self, score: f64) {
        // SAFETY: a living member begins with its score, to which nobody has a reference, as none is ever made.
        unsafe { self.0.cast::<f64>().write(score) }
    }

    /// The text.
    #[inline]
    pub fn text(&self) -> &[u8] {
        // SAFETY: a living member has the bytes that `new` wrote, and they never change.
        unsafe {
            let p = self.0.as_ptr().add(LENGTH);
            match *p {
                LONG => {
                    let len = u32::from_le_bytes(p.add(1).cast::<[u8; 4]>().read());
                    std::slice::from_raw_parts(p.add(5), len as usize)
                }
                len => std::slice::from_raw_parts(p.add(1), len as usize),
            }
        }
    }

    /// Bytes allocated for a member of this length.
    pub fn heap_bytes(len: usize) -> usize {
        (head_of(len) + len).next_multiple_of(16)
    }

    /// Frees it.
    ///
    /// # Safety
    /// No structure holds it any more, and neither it nor a copy of it nor its text is used again.
    pub unsafe fn free(self) {
        let layout = layout(self.text().len());
        // SAFETY: `new` allocated it with this layout, and by the caller's word nothing refers to it.
        unsafe { dealloc(self.0.as_ptr(), layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_scores_come_back() {
        for len in [0, 1, 23, 24, 253, 254, 255, 256, 70_000] {
            let text: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let member = ScoredPtr::new(&text, len as f64);
            member.set_score(member.score() + 0.5);
            assert_eq!((member.text(), member.score()), (&text[..], len as f64 + 0.5));
            assert!(ScoredPtr::heap_bytes(len) > len + 8);
            // SAFETY: nothing holds it, and it is not used again.
            unsafe { member.free() };
        }
    }
}
