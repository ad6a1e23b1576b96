//! `PairPtr`: a field with its value in one allocation, the element of a large hash's dict.
//!
//! ```text
//!  4 bytes          4 bytes
//! +----------------+----------------+-------+-------+
//! | field's length | value's length | field | value |
//! +----------------+----------------+-------+-------+
//! ```
//!
//! Redis's counterpart is three allocations: the `dictEntry` and two strings. The handle is `Copy`, like a pointer;
//! the owner of the dict it is in frees it.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::dict::Element;

const HEADER: usize = 8;

/// A handle to a field with its value. See the head of this file for who owns it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PairPtr(NonNull<u8>);

// SAFETY: pairs are 8-aligned heap objects, the handle is the whole address, and no function here writes to a
// field after the pair was made.
unsafe impl Element for PairPtr {
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
        self.field()
    }
}

impl PairPtr {
    /// A new pair. Its owner gives it to [`PairPtr::free`] in the end.
    pub fn new(field: &[u8], value: &[u8]) -> Self {
        let fits = "fields and values are at most 512 MB";
        let lens = [u32::try_from(field.len()).expect(fits), u32::try_from(value.len()).expect(fits)];
        let layout = Self::layout(field.len() + value.len());
        // SAFETY: the layout is not empty; what is written lies inside it, and all of it is written.
        unsafe {
            let Some(at) = NonNull::new(alloc(layout)) else { handle_alloc_error(layout) };
            at.cast::<[u32; 2]>().write(lens);
            let bytes = at.as_ptr().add(HEADER);
            bytes.copy_from_nonoverlapping(field.as_ptr(), field.len());
            bytes.add(field.len()).copy_from_nonoverlapping(value.as_ptr(), value.len());
            Self(at)
        }
    }

    fn layout(content: usize) -> Layout {
        Layout::from_size_align(HEADER + content, 8).expect("fields and values are at most 512 MB")
    }

    #[inline]
    fn lens(&self) -> (usize, usize) {
        // SAFETY: a living pair begins with its two lengths.
        let [field, value] = unsafe { self.0.cast::<[u32; 2]>().read() };
        (field as usize, value as usize)
    }

    /// The field.
    #[inline]
    pub fn field(&self) -> &[u8] {
        // SAFETY: the field's bytes lie behind the header and are initialised.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(HEADER), self.lens().0) }
    }

    /// The value.
    #[inline]
    pub fn value(&self) -> &[u8] {
        let (field, value) = self.lens();
        // SAFETY: the value's bytes lie behind the field's and are initialised.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(HEADER + field), value) }
    }

    /// Overwrites the value by one of the same length; false, and nothing done, if it has another.
    ///
    /// # Safety
    /// No reference to the value is alive.
    pub unsafe fn overwrite(self, value: &[u8]) -> bool {
        let (field, len) = self.lens();
        if len != value.len() {
            return false;
        }
        // SAFETY: the value's bytes, of this length, are ours alone by the caller's word.
        unsafe { self.0.as_ptr().add(HEADER + field).copy_from_nonoverlapping(value.as_ptr(), len) };
        true
    }

    /// Bytes allocated.
    pub fn heap_bytes(&self) -> usize {
        let (field, value) = self.lens();
        HEADER + field + value
    }

    /// Frees it.
    ///
    /// # Safety
    /// It is in no dict, and no copy of the handle is used again.
    pub unsafe fn free(self) {
        let (field, value) = self.lens();
        // SAFETY: `new` allocated it with this layout, and the caller owns it.
        unsafe { dealloc(self.0.as_ptr(), Self::layout(field + value)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_both() {
        for (field, value) in [("", ""), ("f", ""), ("", "v"), ("field", "a longer value")] {
            let pair = PairPtr::new(field.as_bytes(), value.as_bytes());
            assert_eq!((pair.field(), pair.value()), (field.as_bytes(), value.as_bytes()));
            assert_eq!(pair.heap_bytes(), 8 + field.len() + value.len());
            let other = value.to_uppercase();
            // SAFETY: no reference into the pair is alive, and it is in no dict.
            unsafe {
                assert!(pair.overwrite(other.as_bytes()) && !pair.overwrite(b"another length, surely"));
                assert_eq!((pair.field(), pair.value()), (field.as_bytes(), other.as_bytes()));
                pair.free();
            }
        }
    }
}
