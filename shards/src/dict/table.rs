//! The storage of a `Dict`: `n` buckets in a directory of segments that come and go one by one.
//!
//! The buckets divide the hash space into `n` equal intervals: bucket `hash * n / 2^64`. Any `n`
//! works, and the mapping is monotone, which is what rehash (in bucket order, behind a frontier)
//! and `SCAN` (a position in the hash space) stand on. Only the top 48 bits of a hash take part,
//! so that every boundary between buckets is a multiple of 2^16 and a scan's cursor fits 48 bits.
//!
//! **Marks.** Sizes are `m * 2^k` with `m` in 4..8 (and 1, 2, 3), so `2^k` *groups* of `m`
//! buckets, and a growth from `m` to `m + 1` keeps every element in its group. What a slot keeps
//! of a hash (its `Mark`) are the eight bits that follow the `k` bits of the group, and three
//! spare bits a little further. From them nearly every element's new bucket and new mark is known
//! without touching the element, which is what makes small steps of growth cheap: growing to 10
//! million keys takes 400 ns an insert, and 650 ns when every element moved is hashed again (half
//! of either is the miss on the new key's own bucket). The spare bits feed
//! the tag, one a doubling; every third doubling, in the step from `m = 4` to 5, the elements are
//! touched to refill them. The price: the buckets of a group share a part of the tag, so a tag
//! alone tells 36 to 64 elements of a bucket apart; the spare bits not yet used up help.
//!
//! ```text
//! hash:  | k bits: group | 8 bits: tag      | ...          |
//!                            | 3 spare bits |              just refilled: right behind the tag;
//!                                                          each doubling takes one into the tag
//! ```
//!
//! ```text
//! n <= 16:  dir -> buckets
//! n >  16:  dir -> [ segment, segment, ... ]       each of 2^shift buckets, the last one shorter
//! ```
//!
//! A segment is allocated when the frontier reaches it and its buckets are cleared one at a time
//! as it passes, so neither an allocation's zeroing nor a free is ever longer than one segment.
//! A segment holds 1/64 to 1/32 of the table, at most 512 buckets (32 KiB): with two tables alive
//! during a rehash that bounds the memory which holds nothing. 32 KiB is also what jemalloc still
//! caches by thread, so that a freed segment serves as the next one: with 64 KiB one insert of a
//! thousand took 14 us and more, with 32 KiB 5 us.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};

use super::bucket::{Bucket, Mark};

/// Tables up to this many buckets are one piece without a directory.
pub(super) const DIRECT_MAX: u32 = 16;
/// The position after the last: the hash space in units of 2^16.
pub(super) const SPACE: u64 = 1 << 48;

/// The bits of a hash that a table looks at: its position, from which the marks are taken too. The others are for whoever
/// carries the hash.
pub const HASH_BITS: u64 = !(u64::MAX / SPACE);

#[repr(transparent)]
struct SharedBucket(Bucket);
// SAFETY: it is never written; only lookups in a table without buckets read it.
unsafe impl Sync for SharedBucket {}
static NO_BUCKET: SharedBucket = SharedBucket(Bucket::EMPTY);

/// `n` buckets, of which the owner (the `Dict`) knows which segments live.
pub(super) struct Table {
    /// The buckets themselves up to `DIRECT_MAX`, else the directory (`*mut *mut Bucket`).
    dir: *mut u8,
    n: u32,
    /// Binary logarithm of a segment's buckets.
    shift: u8,
    /// Bits of the hash in front of the tag: binary logarithm of the number of groups.
    group_bits: u8,
    /// Bits of the hash in front of the spare bits.
    spare_at: u8,
}

/// The next size a table grows to.
pub(super) fn next_size(n: u32) -> u32 {
    n + (1 << group_bits(n))
}

/// The smallest size for at least `n` buckets.
pub(super) fn size_for(n: u32) -> u32 {
    n.max(1).next_multiple_of(1 << group_bits(n.max(1)))
}

fn group_bits(n: u32) -> u8 {
    (n.ilog2() as u8).saturating_sub(2)
}

/// Where the spare bits begin: they are refilled behind the tag in the step from 4 to 5 at every
/// third `k`, and stay where they are until the next refill.
fn spare_at(n: u32) -> u8 {
    let k = group_bits(n);
    let refilled = k % 3 == 2 && n >> k >= 5;
    if refilled { k + 8 } else { k + 8 - (k % 3 + 1) }
}

impl Table {
    /// A table of no buckets. Lookups in it meet one shared empty bucket, so they need no check.
    pub(super) const fn none() -> Self {
        Self { dir: (&raw const NO_BUCKET).cast_mut().cast(), n: 0, shift: 0, group_bits: 0, spare_at: 0 }
    }

    /// A table of `n` buckets; segments are not there yet (but a small table's only piece is).
    pub(super) fn new(n: u32) -> Self {
        assert!(n > 0);
        let segment = (n.next_power_of_two() / 64).clamp(4, 512);
        let mut table = Self {
            dir: std::ptr::null_mut(),
            n,
            shift: segment.trailing_zeros() as u8,
            group_bits: group_bits(n),
            spare_at: spare_at(n),
        };
        table.dir = allocate(table.dir_layout());
        table
    }

    /// The mapping of a table of `n` buckets, without any memory.
    #[cfg(test)]
    pub(super) fn of_size(n: u32) -> Self {
        Self { n, group_bits: group_bits(n), spare_at: spare_at(n), ..Self::none() }
    }

    fn is_direct(&self) -> bool {
        self.n <= DIRECT_MAX
    }

    fn dir_layout(&self) -> Layout {
        let layout = if self.is_direct() {
            Layout::array::<Bucket>(self.n as usize)
        } else {
            Layout::array::<*mut Bucket>(self.segments() as usize)
        };
        layout.expect("at most 2^32 buckets")
    }

    fn segments(&self) -> u32 {
        self.n.div_ceil(1 << self.shift)
    }

    fn segment_layout(&self, segment: u32) -> Layout {
        let size = 1u32 << self.shift;
        let buckets = size.min(self.n - segment * size);
        Layout::array::<Bucket>(buckets as usize).expect("at most 1024 buckets")
    }

    #[inline]
    pub(super) fn n(&self) -> u32 {
        self.n
    }

    /// The bucket that owns a hash.
    #[inline]
    pub(super) fn index(&self, hash: u64) -> u32 {
        ((u128::from(hash & HASH_BITS) * u128::from(self.n)) >> 64) as u32
    }

    /// What a slot of this table keeps of a hash.
    #[inline]
    pub(super) fn mark(&self, hash: u64) -> Mark {
        Mark { tag: ((hash << self.group_bits >> 56) as u8).max(1), spare: (hash << self.spare_at >> 61) as u8 }
    }

    /// True when a growth to `next` can tell most elements' new places from their marks.
    #[inline]
    pub(super) fn marks_suffice(&self, next: &Self) -> bool {
        self.spare_at == next.spare_at && next.n == self.n + (1 << self.group_bits)
    }

    /// Where an element of bucket `i` and its mark go in `next`, if `marks_suffice` and the mark
    /// can tell. It cannot in about one case of fifty: when a boundary of `next` runs through the
    /// 1/256 of the group that the tag stands for.
    #[inline]
    pub(super) fn moves_to(&self, next: &Self, i: u32, mark: Mark) -> Option<(u32, Mark)> {
        let parts = self.n >> self.group_bits;
        let group = i / parts;
        let more = parts + 1;
        let tag = u32::from(mark.tag);
        // Tag 1 stands for 0 as well; both are in the first part, whatever the number of parts.
        let part = (tag * more) >> 8;
        if part != (tag * more + more - 1) >> 8 {
            return None;
        }
        if next.group_bits == self.group_bits {
            return Some((group * more + part, mark));
        }
        if tag == 1 {
            return None;
        }
        // Eight parts are two groups of four: the tag moves on by a bit, which the spare bits have.
        let used = self.group_bits + 8 - self.spare_at;
        let bit = mark.spare >> (2 - used) & 1;
        let tag = (mark.tag << 1 | bit).max(1);
        Some((group * more + part, Mark { tag, ..mark }))
    }

    /// The first position (48 bits) of bucket `i`; for `i == n` the end of the space.
    #[inline]
    pub(super) fn start(&self, i: u32) -> u64 {
        // ceil(i * 2^48 / n) without 128-bit division: both products fit 64 bits.
        let (i, n) = (u64::from(i), u64::from(self.n));
        i * (SPACE / n) + (i * (SPACE % n)).div_ceil(n)
    }

    /// The address of bucket `i`, whose segment must be alive (or the shared one when `n` is 0).
    #[inline]
    pub(super) fn at(&self, i: u32) -> *mut Bucket {
        debug_assert!(i < self.n.max(1));
        if self.is_direct() {
            // SAFETY: i < n, or 0 into the shared bucket.
            unsafe { self.dir.cast::<Bucket>().add(i as usize) }
        } else {
            // SAFETY: i < n, so its segment is inside the directory and its offset inside the
            // segment; by contract that segment is alive.
            unsafe {
                let segment = *self.dir.cast::<*mut Bucket>().add((i >> self.shift) as usize);
                segment.add((i & ((1 << self.shift) - 1)) as usize)
            }
        }
    }

    /// Makes bucket `i` alive and empty. Called for every bucket once, in order, so the first of
    /// a segment allocates it.
    #[inline]
    pub(super) fn open(&mut self, i: u32) {
        if !self.is_direct() && i & ((1 << self.shift) - 1) == 0 {
            let segment = i >> self.shift;
            let buckets = allocate(self.segment_layout(segment)).cast::<Bucket>();
            // SAFETY: the directory has room for every segment of the table.
            unsafe { self.dir.cast::<*mut Bucket>().add(segment as usize).write(buckets) };
        }
        // SAFETY: the segment is alive now and nothing else refers to this bucket.
        unsafe { self.at(i).write(Bucket::EMPTY) };
    }

    /// Says that buckets up to and including `i` will not be looked at again. Called in order;
    /// the last of a segment frees it, the last of the table all.
    #[inline]
    pub(super) fn close(&mut self, i: u32) {
        let last = i + 1 == self.n;
        if !self.is_direct() && (last || (i + 1) & ((1 << self.shift) - 1) == 0) {
            let segment = i >> self.shift;
            // SAFETY: `open` allocated it with this layout, and no one looks at it again.
            unsafe {
                let buckets = *self.dir.cast::<*mut Bucket>().add(segment as usize);
                dealloc(buckets.cast(), self.segment_layout(segment));
            }
        }
        if last {
            // SAFETY: `new` allocated it with this layout, and `none` below forgets it.
            unsafe { dealloc(self.dir, self.dir_layout()) };
            *self = Self::none();
        }
    }

    /// Frees what is alive when buckets `from..to` are: segments partly inside are alive too.
    pub(super) fn free(&mut self, from: u32, to: u32) {
        if self.n == 0 {
            return;
        }
        if !self.is_direct() && from < to {
            for segment in from >> self.shift..=(to - 1) >> self.shift {
                // SAFETY: alive by the caller's word, allocated by `open` with this layout.
                unsafe {
                    let buckets = *self.dir.cast::<*mut Bucket>().add(segment as usize);
                    dealloc(buckets.cast(), self.segment_layout(segment));
                }
            }
        }
        // SAFETY: as in `close`.
        unsafe { dealloc(self.dir, self.dir_layout()) };
        *self = Self::none();
    }

    /// Bytes allocated while buckets `from..to` are alive, directory included.
    pub(super) fn bytes(&self, from: u32, to: u32) -> usize {
        if self.n == 0 {
            return 0;
        }
        let mut bytes = self.dir_layout().size();
        if !self.is_direct() && from < to {
            let first = (from >> self.shift) << self.shift;
            let end = to.next_multiple_of(1 << self.shift).min(self.n);
            bytes += (end - first) as usize * size_of::<Bucket>();
        }
        bytes
    }
}

fn allocate(layout: Layout) -> *mut u8 {
    // SAFETY: every layout here has at least one element.
    let p = unsafe { alloc(layout) };
    if p.is_null() {
        handle_alloc_error(layout);
    }
    p
}
