//! One bucket of a `Dict`: a cache line with nine pointers and nine one-byte tags.
//!
//! ```text
//! byte  0        6        12             48       54                      63
//!       +--------+--------+--  ...  -----+--------+---+---+-- ... ----+---+------+
//!       | slot 0 | slot 1 |              | slot 8 | t0| t1|           | t8| meta |
//!       +--------+--------+--  ...  -----+--------+---+---+-- ... ----+---+------+
//!                                        |<---------- 16 bytes: one SSE2 load -->|
//! ```
//!
//! A slot is the low 48 bits of an address, which is all a user address has; as elements are
//! 8-aligned, its low three bits hold three more bits of the hash (the *spare* bits). A tag is a
//! byte of the hash, and 0 says that the slot is free. Which bits those are depends on the size
//! of the table, see `Mark` in `table.rs`. When a tenth element comes, slot 8 becomes the link to
//! a child bucket, its tag stays 0 and `meta` says so. A bucket that has a child is full (eight
//! elements): whoever removes an element fills the hole from the end of the chain.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::{self, NonNull};

/// Elements that fit a bucket without a child.
pub(super) const SLOTS: usize = 9;
const ALL: u32 = (1 << SLOTS) - 1;
const LINK: usize = SLOTS - 1;
const HAS_CHILD: u8 = 1;

#[repr(C, align(64))]
pub(super) struct Bucket {
    slots: [[u8; 6]; SLOTS],
    tags: [u8; SLOTS],
    meta: u8,
}

const _: () = assert!(size_of::<Bucket>() == 64 && align_of::<Bucket>() == 64);

/// What a slot keeps of a hash: the tag, never 0, and the three spare bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) tag: u8,
    pub(super) spare: u8,
}

/// The low bits of a slot that are not part of the address.
const SPARE: u64 = 7;

/// Asks for the cache line at `p`; any address is fine, even one that is not mapped.
#[inline]
pub(crate) fn prefetch_line<T>(p: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch is a hint, it reads nothing the program can see and never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(p.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = p;
}

impl Bucket {
    pub(super) const EMPTY: Self = Self { slots: [[0; 6]; SLOTS], tags: [0; SLOTS], meta: 0 };

    /// Bit `i` is set where tag `i` equals `tag`.
    #[inline]
    pub(super) fn matches(&self, tag: u8) -> u32 {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: SSE2 is part of x86-64; the 16 bytes from offset 48 are the end of this bucket
        // and 16-aligned because the bucket is 64-aligned.
        unsafe {
            use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_load_si128, _mm_movemask_epi8, _mm_set1_epi8};
            let tail = _mm_load_si128(ptr::from_ref(self).byte_add(48).cast());
            let equal = _mm_cmpeq_epi8(tail, _mm_set1_epi8(tag as i8));
            (_mm_movemask_epi8(equal) as u32 >> 6) & ALL
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        self.matches_scalar(tag)
    }

    #[cfg_attr(all(target_arch = "x86_64", not(any(miri, test))), allow(dead_code))]
    pub(super) fn matches_scalar(&self, tag: u8) -> u32 {
        let bits = self.tags.iter().enumerate();
        bits.fold(0, |mask, (i, &t)| mask | (u32::from(t == tag) << i))
    }

    /// Bit `i` is set where slot `i` can take an element.
    #[inline]
    pub(super) fn free(&self) -> u32 {
        let free = self.matches(0);
        if self.has_child() { free & !(1 << LINK) } else { free }
    }

    /// Bit `i` is set where slot `i` holds an element.
    #[inline]
    pub(super) fn used(&self) -> u32 {
        !self.matches(0) & ALL
    }

    /// Bit `i` is set where slot `i` may hold an element of this mark: the tag agrees.
    #[inline]
    pub(super) fn candidates(&self, mark: Mark) -> u32 {
        self.matches(mark.tag)
    }

    /// What slot `i`, which must be used, keeps of its element's hash.
    #[inline]
    pub(super) fn mark(&self, i: usize) -> Mark {
        Mark { tag: self.tags[i], spare: (self.word(i) & SPARE) as u8 }
    }

    #[inline]
    fn word(&self, i: usize) -> u64 {
        debug_assert!(i < SLOTS);
        // SAFETY: 8 bytes from offset 6 * i <= 48 lie inside the 64-byte bucket.
        let word = unsafe { ptr::from_ref(self).byte_add(6 * i).cast::<u64>().read_unaligned() };
        u64::from_le(word) & 0xffff_ffff_ffff
    }

    /// The pointer in slot `i`, which must be used (or be the link).
    #[inline]
    pub(super) fn get(&self, i: usize) -> *mut u8 {
        ptr::with_exposed_provenance_mut((self.word(i) & !SPARE) as usize)
    }

    /// The pointer in slot `i`, which must be used, if its spare bits agree.
    #[inline]
    pub(super) fn get_if(&self, i: usize, mark: Mark) -> Option<*mut u8> {
        let word = self.word(i);
        (word & SPARE == u64::from(mark.spare)).then(|| ptr::with_exposed_provenance_mut((word & !SPARE) as usize))
    }

    /// Fills slot `i`.
    #[inline]
    pub(super) fn set(&mut self, i: usize, mark: Mark, p: *mut u8) {
        let address = p.expose_provenance() as u64;
        // Kernels hand out higher addresses only to programs that ask for them by a hint.
        assert!(address >> 48 == 0 && address & SPARE == 0, "not an address of an element");
        let word = address | u64::from(mark.spare);
        // Two stores: copying six bytes of an array compiles to six.
        // SAFETY: bytes 6 * i to 6 * i + 6 are slot i, which the assertion of its index covers.
        unsafe {
            let slot = ptr::from_mut(&mut self.slots[i]);
            slot.cast::<u32>().write_unaligned((word as u32).to_le());
            slot.byte_add(4).cast::<u16>().write_unaligned(((word >> 32) as u16).to_le());
        }
        self.tags[i] = mark.tag;
    }

    #[inline]
    pub(super) fn clear(&mut self, i: usize) {
        self.tags[i] = 0;
    }

    #[inline]
    pub(super) fn has_child(&self) -> bool {
        self.meta & HAS_CHILD != 0
    }

    /// The next bucket of the chain.
    #[inline]
    pub(super) fn child(&self) -> Option<NonNull<Bucket>> {
        if self.has_child() { NonNull::new(self.get(LINK).cast()) } else { None }
    }

    /// Gives a full bucket a child that takes over the element of slot 8.
    #[cold]
    pub(super) fn grow_child(&mut self) -> NonNull<Bucket> {
        debug_assert!(!self.has_child() && self.free() == 0);
        let layout = Layout::new::<Bucket>();
        // SAFETY: the layout has a size.
        let raw = unsafe { alloc(layout) }.cast::<Bucket>();
        let Some(child) = NonNull::new(raw) else { handle_alloc_error(layout) };
        let mut first = Self::EMPTY;
        first.set(0, self.mark(LINK), self.get(LINK));
        // SAFETY: freshly allocated with a bucket's layout.
        unsafe { child.write(first) };
        self.set(LINK, Mark { tag: 0, spare: 0 }, raw.cast());
        self.meta |= HAS_CHILD;
        child
    }

    /// Cuts the link, leaving slot 8 free; the caller has the child and frees it.
    pub(super) fn cut_child(&mut self) {
        self.meta &= !HAS_CHILD;
        self.tags[LINK] = 0;
    }

    /// Frees a child bucket.
    ///
    /// # Safety
    /// `child` came from `grow_child`, and its parent's link is cut or about to be forgotten.
    pub(super) unsafe fn free_child(child: NonNull<Bucket>) {
        // SAFETY: by the caller's word it was allocated with this layout.
        unsafe { dealloc(child.as_ptr().cast(), Layout::new::<Bucket>()) };
    }
}

/// The set bits of a mask, lowest first.
#[inline]
pub(super) fn bits(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let i = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            i
        })
    })
}
