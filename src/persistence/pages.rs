//! `Pages`: a buffer as devices want it, whole blocks that begin where a block may begin.

/// Where a buffer and a length may begin and end: the largest block that devices have.
pub const PAGE: usize = 4096;

#[repr(C, align(4096))]
#[derive(Clone)]
struct Page([u8; PAGE]);

/// See the head of the file.
#[derive(Clone, Default)]
pub struct Pages(Vec<Page>);

impl Pages {
    /// Zeros, `bytes` of them, rounded up to whole pages.
    pub fn new(bytes: usize) -> Self {
        let mut pages = Pages::default();
        pages.resize(bytes);
        pages
    }

    /// Makes it hold `bytes`, rounded up to whole pages. What it held stays, what is new is zeros.
    pub fn resize(&mut self, bytes: usize) {
        self.0.resize(bytes.div_ceil(PAGE), Page([0; PAGE]));
    }
}

impl std::ops::Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: pages lie side by side without a gap, and are bytes.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * PAGE) }
    }
}

impl std::ops::DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` is the only way to them.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * PAGE) }
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
        assert_eq!(Pages::new(0).len(), 0);
    }
}
