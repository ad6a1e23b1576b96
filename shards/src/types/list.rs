//! `List`: strings in the order of their places, in one of two encodings.
//!
//! The idea: a short list is one flat allocation, a [`ListPack`]; what outgrows `list-max-listpack-size` is a
//! [`QuickList`], a chain of them. A list goes back to one listpack when it has shrunk to half the limit, so that one
//! that hovers about the limit does not convert at every command; both ways at the sizes at which Redis converts.
//!
//! The commands are in `commands/list.rs`. Counterpart: the `listType…` functions of `t_list.c`.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;

use crate::core::Core;
use crate::encodings::listpack::ListPack;
use crate::encodings::pack_or::{Form, FormMut, PackOr};
use crate::encodings::quicklist::{Needle, NodeLimits, QuickList, remove_matches};
use crate::entry::{Encoding, StrRef};

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The head, or left.
    Front,
    /// The tail, or right.
    Back,
}

/// The limits of the configuration.
pub fn limits(core: &Core) -> NodeLimits {
    let threshold = core.shared.debug.quicklist_packed_threshold.load(Relaxed);
    NodeLimits::new(core.config.list_max_listpack_size, threshold)
}

/// A list. See the head of this file.
#[derive(Clone)]
#[repr(transparent)]
pub struct List(PackOr<QuickList>);

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "List of {} as {}", self.len(), self.encoding().name())
    }
}

impl Default for List {
    fn default() -> Self {
        List(ListPack::new().into())
    }
}

impl From<QuickList> for List {
    fn from(list: QuickList) -> Self {
        List(Box::new(list).into())
    }
}

impl List {
    /// The chain, if it is one.
    pub fn quick(&self) -> Option<&QuickList> {
        match self.0.form() {
            Form::Pack(_) => None,
            Form::Boxed(list) => Some(list),
        }
    }

    /// The listpack of a short one, as RDB files hold it.
    pub fn pack(&self) -> Option<&ListPack> {
        match self.0.form() {
            Form::Pack(pack) => Some(pack),
            Form::Boxed(_) => None,
        }
    }

    /// Its encoding.
    pub fn encoding(&self) -> Encoding {
        match self.0.form() {
            Form::Pack(_) => Encoding::ListPack,
            Form::Boxed(_) => Encoding::QuickList,
        }
    }

    /// Elements held.
    #[inline]
    pub fn len(&self) -> usize {
        match self.0.form() {
            Form::Pack(pack) => pack.len(),
            Form::Boxed(list) => list.len(),
        }
    }

    /// True when it holds nothing.
    pub fn is_empty(&self) -> bool {
        match self.0.form() {
            Form::Pack(pack) => pack.is_empty(),
            Form::Boxed(list) => list.is_empty(),
        }
    }

    /// Bytes of the heap it takes.
    pub fn heap_bytes(&self) -> usize {
        match self.0.form() {
            Form::Pack(pack) => pack.heap_bytes(),
            Form::Boxed(list) => size_of::<QuickList>() + list.heap_bytes(),
        }
    }

    /// Listpacks and texts that stand alone it consists of.
    pub fn nodes(&self) -> usize {
        match self.0.form() {
            Form::Pack(_) => 1,
            Form::Boxed(list) => list.nodes().len(),
        }
    }

    /// Becomes a chain if texts of so many bytes and elements more would outgrow one listpack; before they are added.
    #[inline]
    pub fn expect(&mut self, bytes: usize, count: usize, limits: &NodeLimits) {
        if let FormMut::Pack(pack) = self.0.form_mut() {
            if limits.exceeded(pack.total_bytes().saturating_add(bytes), pack.len() + count) {
                let pack = std::mem::take(pack);
                self.0 = Box::new(QuickList::from_pack(pack)).into();
            }
        }
    }

    /// Becomes one listpack if it has shrunk to half of what that may hold; after something was removed.
    #[inline]
    pub fn shrunk(&mut self, limits: &NodeLimits) {
        self.become_pack(limits, 2);
    }

    /// Becomes one listpack if that may hold it; after it was built.
    pub fn built(&mut self, limits: &NodeLimits) {
        self.become_pack(limits, 1);
    }

    #[inline]
    fn become_pack(&mut self, limits: &NodeLimits, part: usize) {
        if let FormMut::Boxed(list) = self.0.form_mut() {
            if let Some(pack) = list.take_single(limits.bytes / part, limits.count / part) {
                self.0 = pack.into();
            }
        }
    }

    /// The element at an end.
    #[inline]
    pub fn end(&self, end: End) -> Option<StrRef<'_>> {
        match self.0.form() {
            Form::Pack(pack) => {
                let at = if end == End::Front { pack.first() } else { pack.last() };
                at.map(|at| pack.get(at))
            }
            Form::Boxed(list) => list.end(end == End::Front),
        }
    }

    /// Adds an element at an end; see [`List::expect`] for what is called before.
    #[inline]
    pub fn push(&mut self, end: End, text: &[u8], limits: &NodeLimits) {
        match (self.0.form_mut(), end) {
            (FormMut::Pack(pack), End::Front) => pack.push_front(text),
            (FormMut::Pack(pack), End::Back) => pack.push(text),
            (FormMut::Boxed(list), end) => list.push(end == End::Front, text, limits),
        }
    }

    /// Removes the element at an end, which must be there.
    #[inline]
    pub fn pop(&mut self, end: End) {
        match self.0.form_mut() {
            FormMut::Pack(pack) => {
                let at = if end == End::Front { pack.first() } else { pack.last() };
                pack.delete(at.expect("an element to remove"));
            }
            FormMut::Boxed(list) => list.pop(end == End::Front),
        }
    }

    /// Removes the element that was at `from` before another was pushed at `pushed`.
    pub fn pop_beyond(&mut self, from: End, pushed: End) {
        match from == pushed {
            true => self.delete_range(if from == End::Front { 1 } else { self.len() - 2 }, 1),
            false => self.pop(from),
        }
    }

    /// The element at `index`, if that is below the length.
    pub fn get(&self, index: usize) -> Option<StrRef<'_>> {
        match self.0.form() {
            Form::Pack(pack) => pack.seek(index as i64).map(|at| pack.get(at)),
            Form::Boxed(list) => (index < list.len()).then(|| list.get(index)),
        }
    }

    /// Calls back with the elements from `index` on, or from it backwards, until `f` breaks off.
    #[inline]
    pub fn walk(&self, index: usize, backward: bool, mut f: impl FnMut(StrRef<'_>) -> ControlFlow<()>) {
        let _ = match self.0.form() {
            Form::Boxed(list) => list.walk(index, backward, f),
            Form::Pack(pack) => match pack.seek(index as i64) {
                None => return,
                Some(at) if !backward => pack.iter_from(at).try_for_each(&mut f),
                Some(at) => pack.iter_to(pack.next(at).unwrap_or(pack.end())).rev().try_for_each(&mut f),
            },
        };
    }

    /// Calls back with `count` elements from `index` on, or from it backwards.
    #[inline]
    pub fn range(&self, index: usize, count: usize, backward: bool, mut f: impl FnMut(StrRef<'_>)) {
        let mut left = count;
        if left > 0 {
            self.walk(index, backward, |element| {
                f(element);
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        }
    }

    /// Calls back with every element.
    pub fn for_each(&self, mut f: impl FnMut(StrRef<'_>)) {
        self.walk(0, false, |element| {
            f(element);
            ControlFlow::Continue(())
        });
    }

    /// The index of the first element that is `text`.
    pub fn position(&self, text: &[u8]) -> Option<usize> {
        let needle = Needle::new(text);
        let (mut index, mut found) = (0, None);
        self.walk(0, false, |element| {
            if needle.is(element) {
                found = Some(index);
                return ControlFlow::Break(());
            }
            index += 1;
            ControlFlow::Continue(())
        });
        found
    }

    /// Puts `text` in the place of the element at `index`, which must be below the length.
    pub fn replace(&mut self, index: usize, text: &[u8], limits: &NodeLimits) {
        match self.0.form_mut() {
            FormMut::Boxed(list) => list.replace(index, text, limits),
            FormMut::Pack(pack) => {
                let at = pack.seek(index as i64).expect("an index within the list");
                pack.replace(at, text);
            }
        }
    }

    /// Puts `text` before or behind the element at `index`, which must be below the length.
    pub fn insert(&mut self, index: usize, after: bool, text: &[u8], limits: &NodeLimits) {
        match self.0.form_mut() {
            FormMut::Boxed(list) => list.insert(index, after, text, limits),
            FormMut::Pack(pack) => {
                let at = pack.seek((index + usize::from(after)) as i64).unwrap_or(pack.end());
                pack.insert(at, text);
            }
        }
    }

    /// Removes up to `count` elements from `index` on.
    pub fn delete_range(&mut self, index: usize, count: usize) {
        match self.0.form_mut() {
            FormMut::Boxed(list) => list.delete_range(index, count),
            FormMut::Pack(pack) => {
                if let Some(at) = pack.seek(index as i64) {
                    pack.delete_range(at, count);
                }
            }
        }
    }

    /// Removes up to `max` elements that are `text`, from the front or from the back; says how many.
    pub fn remove(&mut self, text: &[u8], max: usize, backward: bool) -> usize {
        let needle = Needle::new(text);
        match self.0.form_mut() {
            FormMut::Boxed(list) => list.remove(&needle, max, backward),
            FormMut::Pack(pack) => remove_matches(pack, &needle, max, backward),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(texts: &[&[u8]], limits: &NodeLimits) -> List {
        let mut list = List::default();
        for text in texts {
            list.expect(text.len(), 1, limits);
            list.push(End::Back, text, limits);
        }
        list
    }

    #[test]
    fn encodings_change_at_the_limit_and_at_half_of_it() {
        let limits = NodeLimits::new(4, 0);
        let mut list = built(&[b"1", b"2", b"3", b"4"], &limits);
        assert_eq!(list.encoding(), Encoding::ListPack);
        list.expect(1, 1, &limits);
        list.push(End::Front, b"0", &limits);
        assert_eq!((list.encoding(), list.len()), (Encoding::QuickList, 5));
        list.delete_range(0, 2);
        list.shrunk(&limits);
        assert_eq!((list.encoding(), list.len()), (Encoding::QuickList, 3));
        list.pop(End::Back);
        list.shrunk(&limits);
        assert_eq!((list.encoding(), list.len()), (Encoding::ListPack, 2));
        assert_eq!(list.position(b"3"), Some(1));
    }

    #[test]
    fn both_encodings_answer_alike() {
        let texts: Vec<Vec<u8>> = (0..50).map(|n| format!("{}", n % 7).into_bytes()).collect();
        let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
        for fill in [-2, 1, 4] {
            let limits = NodeLimits::new(fill, 0);
            let mut list = built(&texts, &limits);
            let collect = |list: &List, index, count, backward| {
                let mut all = Vec::new();
                list.range(index, count, backward, |e| all.push(e.as_bytes(&mut itoa::Buffer::new()).to_vec()));
                all
            };
            assert_eq!(collect(&list, 0, 50, false), texts);
            assert_eq!(collect(&list, 10, 5, false), texts[10..15]);
            assert_eq!(collect(&list, 10, 3, true), [texts[10], texts[9], texts[8]]);
            assert!(collect(&list, 50, 1, false).is_empty() && collect(&list, 0, 0, false).is_empty());
            assert_eq!(list.get(49), Some(StrRef::Int(0)));
            assert_eq!(list.get(50), None);
            assert_eq!(list.remove(b"3", 2, true), 2);
            assert_eq!((list.position(b"3"), list.len()), (Some(3), 48));
            assert_eq!(list.remove(b"3", usize::MAX, false), 5);
            assert_eq!((list.position(b"3"), list.len()), (None, 43));
        }
    }
}
