//! `PackOr`: what a collection is, in one pointer: a listpack while it is small, a box of something else when not.
//!
//! The idea: both pointers are even, so the lowest bit says which of them it is. An enum of the two would take a second
//! word, which an entry (`entry.rs`) would have to box; as one word it lies in the entry itself, and a small collection
//! is two allocations, the entry and the listpack, where Redis's is four.
//!
//! Used through [`PackOr::form`] and [`PackOr::form_mut`], it reads like that enum.

use std::marker::PhantomData;
use std::num::NonZero;
use std::ptr::NonNull;

use super::listpack::ListPack;

/// The lowest bit of a pointer to a box.
const BOXED: usize = 1;

/// A listpack, or a box. See the head of the file.
#[repr(transparent)]
pub struct PackOr<T> {
    /// A listpack, bit for bit, or the pointer of a `Box<T>` with its lowest bit set.
    word: NonNull<u8>,
    owns: PhantomData<(ListPack, Box<T>)>,
}

/// What it is.
pub enum Form<'a, T> {
    /// A listpack.
    Pack(&'a ListPack),
    /// The other.
    Boxed(&'a T),
}

/// What it is, to be changed.
pub enum FormMut<'a, T> {
    /// A listpack.
    Pack(&'a mut ListPack),
    /// The other.
    Boxed(&'a mut T),
}

// SAFETY: it owns what it points to alone, as the enum of a listpack and a box would.
unsafe impl<T: Send> Send for PackOr<T> {}
// SAFETY: through a shared reference it is only read.
unsafe impl<T: Sync> Sync for PackOr<T> {}

impl<T> From<ListPack> for PackOr<T> {
    fn from(pack: ListPack) -> Self {
        let word = pack.into_word();
        debug_assert!(word.addr().get() & BOXED == 0);
        PackOr { word, owns: PhantomData }
    }
}

impl<T> From<Box<T>> for PackOr<T> {
    fn from(other: Box<T>) -> Self {
        const { assert!(align_of::<T>() > BOXED && size_of::<T>() > 0) };
        let word = NonNull::from(Box::leak(other)).cast::<u8>().map_addr(|addr| addr | BOXED);
        PackOr { word, owns: PhantomData }
    }
}

impl<T> PackOr<T> {
    /// The box's pointer, if it is one.
    #[inline]
    fn boxed(&self) -> Option<NonNull<T>> {
        let clear = |addr: NonZero<usize>| NonZero::new(addr.get() & !BOXED).expect("a box is not at address 0");
        (self.word.addr().get() & BOXED != 0).then(|| self.word.map_addr(clear).cast())
    }

    /// What it is.
    #[inline]
    pub fn form(&self) -> Form<'_, T> {
        match self.boxed() {
            // SAFETY: the box is its own, and lives as long.
            Some(other) => Form::Boxed(unsafe { other.as_ref() }),
            // SAFETY: without the bit the word is a listpack, which is nothing but such a pointer.
            None => Form::Pack(unsafe { ListPack::of_word(&self.word) }),
        }
    }

    /// What it is, to be changed.
    #[inline]
    pub fn form_mut(&mut self) -> FormMut<'_, T> {
        match self.boxed() {
            // SAFETY: as in `form`, and `&mut self` is the only way to it.
            Some(mut other) => FormMut::Boxed(unsafe { other.as_mut() }),
            // SAFETY: as in `form`. A listpack's pointer is even whatever becomes of it.
            None => FormMut::Pack(unsafe { ListPack::of_word_mut(&mut self.word) }),
        }
    }
}

impl<T> Drop for PackOr<T> {
    fn drop(&mut self) {
        match self.boxed() {
            // SAFETY: `from` leaked the box, and nobody sees it from here on.
            Some(other) => drop(unsafe { Box::from_raw(other.as_ptr()) }),
            // SAFETY: the listpack is not used again.
            None => drop(unsafe { ListPack::from_word(self.word) }),
        }
    }
}

impl<T: Clone> Clone for PackOr<T> {
    fn clone(&self) -> Self {
        match self.form() {
            Form::Pack(pack) => pack.clone().into(),
            Form::Boxed(other) => Box::new(other.clone()).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn is_one_word_that_is_never_null() {
        assert_eq!(size_of::<PackOr<u64>>(), 8);
        assert_eq!(size_of::<Option<PackOr<u64>>>(), 8);
    }

    #[test]
    fn a_listpack_grows_and_moves_in_it() {
        let mut flat = PackOr::<u64>::from(ListPack::new());
        for n in 0..200 {
            let FormMut::Pack(pack) = flat.form_mut() else { panic!("a listpack") };
            pack.push(format!("element {n}").as_bytes());
        }
        let copy = flat.clone();
        drop(flat);
        let Form::Pack(pack) = copy.form() else { panic!("a listpack") };
        assert_eq!((pack.len(), pack.is_empty()), (200, false));
    }

    #[test]
    fn a_box_is_freed_once_and_copied_whole() {
        let count = Rc::new(());
        let mut other = PackOr::from(Box::new((count.clone(), vec![1, 2])));
        let FormMut::Boxed((_, numbers)) = other.form_mut() else { panic!("a box") };
        numbers.push(3);
        let copy = other.clone();
        assert_eq!(Rc::strong_count(&count), 3);
        // One in the place of the other.
        other = ListPack::new().into();
        assert_eq!(Rc::strong_count(&count), 2);
        assert!(matches!(other.form(), Form::Pack(pack) if pack.is_empty()));
        assert!(matches!(copy.form(), Form::Boxed((_, numbers)) if numbers == &[1, 2, 3]));
        drop(copy);
        assert_eq!(Rc::strong_count(&count), 1);
    }
}
