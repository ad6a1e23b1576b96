//! The allocator: jemalloc, with a count of bytes in use that is cheap to read.
//!
//! jemalloc knows what it has handed out, but its statistics cost tens of µs to refresh, too much to ask before every
//! write when `maxmemory` is set. So each thread adds up the size classes it takes and gives back in a counter of its
//! own; memory that moves between shards makes one counter grow and another fall, and the sum is right.
//! Counterpart: `zmalloc.c`.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};

use ringshard_shards::size_class::size_class;
use tikv_jemallocator::Jemalloc;

/// Counters; threads beyond so many share them, which atomic additions then keep right.
const COUNTERS: usize = 256;

#[repr(align(64))]
struct Counter(AtomicIsize);

static IN_USE: [Counter; COUNTERS] = [const { Counter(AtomicIsize::new(0)) }; COUNTERS];
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// This thread's counter, or `usize::MAX` before its first allocation.
    static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// jemalloc, counted.
pub struct Counting;

#[inline]
fn count(bytes: isize) {
    // During a thread's end its locals may be gone: the last counter takes what is left.
    let index = MINE.try_with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Relaxed).min(COUNTERS - 1));
        }
        mine.get()
    });
    let index = index.unwrap_or(COUNTERS - 1);
    let counter = &IN_USE[index].0;
    if index == COUNTERS - 1 {
        counter.fetch_add(bytes, Relaxed);
    } else {
        // Only this thread writes here: no locked instruction is needed.
        counter.store(counter.load(Relaxed) + bytes, Relaxed);
    }
}

/// Bytes in use by the whole process, rounded up to size classes.
pub fn used_memory() -> usize {
    let threads = NEXT.load(Relaxed).min(COUNTERS - 1);
    let sum: isize = IN_USE[..threads].iter().chain(&IN_USE[COUNTERS - 1..]).map(|c| c.0.load(Relaxed)).sum();
    sum.max(0) as usize
}

// SAFETY: every call goes to jemalloc unchanged; counting touches no memory that was asked for.
unsafe impl GlobalAlloc for Counting {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size_class(layout.size()) as isize);
        // SAFETY: the caller's layout, unchanged.
        unsafe { Jemalloc.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(size_class(layout.size()) as isize);
        // SAFETY: the caller's layout, unchanged.
        unsafe { Jemalloc.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(size_class(layout.size()) as isize));
        // SAFETY: the caller's pointer and layout, unchanged.
        unsafe { Jemalloc.dealloc(ptr, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(size_class(new_size) as isize - size_class(layout.size()) as isize);
        // SAFETY: the caller's pointer, layout and size, unchanged.
        unsafe { Jemalloc.realloc(ptr, layout, new_size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_elsewhere_is_not_counted_twice() {
        // Other tests allocate meanwhile; what this one holds (and never touches) is beyond all they do.
        const HELD: usize = 1 << 30;
        const OTHERS: usize = HELD / 4;
        let before = used_memory();
        let held = std::thread::spawn(|| vec![0u8; HELD]).join().unwrap();
        assert!(used_memory() + OTHERS >= before + HELD);
        drop(held);
        assert!(used_memory() < before + OTHERS);
    }
}
