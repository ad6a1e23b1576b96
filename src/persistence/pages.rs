//! `Pages`: a buffer as devices want it, whole blocks that begin where a block may begin.

/// Where a buffer and a length may begin and end: the largest block that devices have.
pub const PAGE: usize = 4096;

#[repr(C, align(4096))]
#[derive(Clone)]
struct Page([u8; PAGE]);

/// See the head of the file.
#[derive(Clone, Default)]
pub struct Pages {
    pages: Vec<Page>,
    /// How many of them it holds.
    used: usize,
}

impl Pages {
    /// Zeros, `bytes` of them, rounded up to whole pages.
    pub fn new(bytes: usize) -> Self {
        let mut pages = Pages::default();
        pages.resize(bytes);
        pages
    }

    /// Makes it hold `bytes`, rounded up to whole pages. What it held stays; what is new is zeros, or what stood there when
    /// it last held as much.
    pub fn resize(&mut self, bytes: usize) {
        self.used = bytes.div_ceil(PAGE);
        if self.used > self.pages.len() {
            self.pages.resize(self.used, Page([0; PAGE]));
        }
    }
}

impl std::ops::Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let pages = &self.pages[..self.used];
        // SAFETY: pages lie side by side without a gap, and are bytes.
        unsafe { std::slice::from_raw_parts(pages.as_ptr().cast(), pages.len() * PAGE) }
    }
}

impl std::ops::DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        let pages = &mut self.pages[..self.used];
        // SAFETY: as in `deref`, and `&mut self` is the only way to them.
        unsafe { std::slice::from_raw_parts_mut(pages.as_mut_ptr().cast(), pages.len() * PAGE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_whole_and_aligned() {
        let mut pages = Pages::new(PAGE + 1);
        assert_eq!((pages.len(), pages.as_ptr() as usize % PAGE), (2 * PAGE, 0));
        pages[PAGE] = 7;
        pages.resize(3 * PAGE);
        assert_eq!((pages.len(), pages[PAGE], pages[3 * PAGE - 1]), (3 * PAGE, 7, 0));
        pages.resize(1);
        assert_eq!(pages.len(), PAGE);
        pages.resize(2 * PAGE);
        assert_eq!((pages.len(), pages[PAGE]), (2 * PAGE, 7));
        assert_eq!(Pages::new(0).len(), 0);
    }
}
