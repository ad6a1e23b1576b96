//! Size classes of jemalloc, the server's allocator: what an allocation really takes.
//!
//! Entries and flat collections are allocated in whole classes, so that the slack is theirs to use and no capacity need
//! be stored: it follows from the length. The memory in use is counted in them as well.

/// The size class that jemalloc serves `size` bytes from: multiples of 16 up to 128 (and one of 8), then four to each
/// doubling.
#[inline]
pub const fn size_class(size: usize) -> usize {
    if size <= 8 {
        8
    } else if size <= 128 {
        size.next_multiple_of(16)
    } else {
        size.next_multiple_of(1 << ((size - 1).ilog2() - 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_are_those_of_jemalloc() {
        let classes = [
            8, 16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280,
            1536, 1792, 2048, 2560, 3072, 3584, 4096, 5120,
        ];
        for size in 1..=5120 {
            let class = classes.iter().copied().find(|&class| class >= size);
            assert_eq!(Some(size_class(size)), class, "{size}");
        }
        assert_eq!(size_class(16385), 20480);
    }
}
