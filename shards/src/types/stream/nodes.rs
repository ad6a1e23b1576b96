//! `Nodes`: a stream's nodes in the order of their ids, each under the id of its first entry.
//!
//! Nodes come at the end, and mostly go from the front. So they stand in chunks of up to 64, and the chunks in a queue:
//! to append is to push, a chunk that others follow is full, and a search halves first the queue and then one chunk. A
//! B-tree, which this was before, leaves every node behind half full when ids only grow: 62 bytes for each listpack,
//! against 24.
//!
//! ```text
//! chunks   [ 64 nodes ] [ 64 nodes ] [ 64 nodes ] [ 7 nodes ]
//!            ^ trimmed from here          appended here ^
//! ```
//!
//! Nodes may go from the midst as well, when all their entries are deleted. A chunk that few are left of joins a
//! neighbour if both fit with room to spare.

use std::collections::VecDeque;

use super::StreamId;
use super::node::Node;

/// Nodes of a chunk: 1,536 bytes, one of the allocator's classes.
const CHUNK: usize = 64;
/// A chunk of so few looks for a neighbour to be joined with.
const SPARSE: usize = CHUNK / 4;
/// Nodes that two chunks may have together to become one.
const JOINED: usize = CHUNK * 3 / 4;

type Chunk = Vec<(StreamId, Node)>;

/// Where a node stands: its chunk, and its place in that. One past the last is the first of the chunk that comes next.
pub type Place = (usize, usize);

/// See the head of the file.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    /// None is empty.
    chunks: VecDeque<Chunk>,
}

impl Nodes {
    /// How many there are; looks at every chunk.
    pub fn count(&self) -> usize {
        self.chunks.iter().map(Chunk::len).sum()
    }

    /// Bytes of the heap, without the nodes' own.
    pub fn heap_bytes(&self) -> usize {
        let slots: usize = self.chunks.iter().map(Chunk::capacity).sum();
        slots * size_of::<(StreamId, Node)>() + self.chunks.capacity() * size_of::<Chunk>()
    }

    /// All of them, in order.
    pub fn iter(&self) -> Span<'_> {
        Span { nodes: self, front: (0, 0), back: self.end() }
    }

    /// Those from the `first` on.
    pub fn iter_from(&self, mut first: usize) -> Span<'_> {
        let mut chunk = 0;
        while let Some(len) = self.chunks.get(chunk).map(Chunk::len).filter(|len| *len <= first) {
            first -= len;
            chunk += 1;
        }
        Span { nodes: self, front: (chunk, first), back: self.end() }
    }

    fn end(&self) -> Place {
        (self.chunks.len(), 0)
    }

    /// The place behind this one.
    fn after(&self, (chunk, at): Place) -> Place {
        if at + 1 < self.chunks[chunk].len() { (chunk, at + 1) } else { (chunk + 1, 0) }
    }

    /// The last node whose id is not greater than this: the one that has the entry of this id, if there is any.
    pub fn seek(&self, id: StreamId) -> Option<Place> {
        let chunk = self.chunks.partition_point(|chunk| chunk[0].0 <= id).checked_sub(1)?;
        Some((chunk, self.chunks[chunk].partition_point(|(first, _)| *first <= id) - 1))
    }

    /// Those that may have entries between these ids, both included.
    pub fn span(&self, start: StreamId, end: StreamId) -> Span<'_> {
        let back = match self.seek(end) {
            Some(last) if start <= end => self.after(last),
            _ => (0, 0),
        };
        Span { nodes: self, front: self.seek(start).unwrap_or((0, 0)).min(back), back }
    }

    /// The node at a place.
    pub fn at(&self, (chunk, at): Place) -> (StreamId, &Node) {
        let (id, node) = &self.chunks[chunk][at];
        (*id, node)
    }

    /// The node at a place, to be changed.
    pub fn at_mut(&mut self, (chunk, at): Place) -> (StreamId, &mut Node) {
        let (id, node) = &mut self.chunks[chunk][at];
        (*id, node)
    }

    /// The first node, to be changed.
    pub fn first_mut(&mut self) -> Option<(StreamId, &mut Node)> {
        self.chunks.front_mut().map(|chunk| (chunk[0].0, &mut chunk[0].1))
    }

    /// The last node, to be changed.
    pub fn last_mut(&mut self) -> Option<(StreamId, &mut Node)> {
        let (id, node) = self.chunks.back_mut()?.last_mut()?;
        Some((*id, node))
    }

    /// The id of the last node.
    pub fn last_id(&self) -> Option<StreamId> {
        self.chunks.back()?.last().map(|(id, _)| *id)
    }

    /// Adds a node behind the others, whose ids are smaller.
    pub fn push(&mut self, id: StreamId, node: Node) {
        debug_assert!(self.last_id().is_none_or(|last| last < id));
        if self.chunks.is_empty() {
            // Most streams have one node, and keep to it.
            self.chunks.reserve_exact(1);
            self.chunks.push_back(Vec::with_capacity(1));
        }
        let last = self.chunks.back_mut().expect("there is one");
        match last.len() < CHUNK {
            true => last.push((id, node)),
            false => self.chunks.push_back(vec![(id, node)]),
        }
    }

    /// Takes a node out.
    pub fn remove(&mut self, (chunk, at): Place) {
        let nodes = &mut self.chunks[chunk];
        nodes.remove(at);
        if nodes.is_empty() {
            self.chunks.remove(chunk);
        } else if nodes.len() <= SPARSE {
            self.join(chunk);
        }
    }

    /// Joins a chunk with the one behind it, or the one before it, if they fit.
    fn join(&mut self, chunk: usize) {
        let fits = |left: usize| {
            left + 1 < self.chunks.len() && self.chunks[left].len() + self.chunks[left + 1].len() <= JOINED
        };
        let left = [Some(chunk), chunk.checked_sub(1)].into_iter().flatten().find(|left| fits(*left));
        if let Some(left) = left {
            let mut right = self.chunks.remove(left + 1).expect("it was just seen");
            self.chunks[left].append(&mut right);
        }
    }
}

/// Nodes that follow each other, from either end.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    nodes: &'a Nodes,
    front: Place,
    /// One past the last.
    back: Place,
}

impl Span<'_> {
    /// Leaves nothing of it.
    pub fn clear(&mut self) {
        self.front = self.back;
    }
}

impl<'a> Iterator for Span<'a> {
    type Item = (StreamId, &'a Node);

    fn next(&mut self) -> Option<Self::Item> {
        let here = self.front;
        (here < self.back).then(|| {
            self.front = self.nodes.after(here);
            self.nodes.at(here)
        })
    }
}

impl DoubleEndedIterator for Span<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        (self.front < self.back).then(|| {
            self.back = match self.back {
                (chunk, 0) => (chunk - 1, self.nodes.chunks[chunk - 1].len() - 1),
                (chunk, at) => (chunk, at - 1),
            };
            self.nodes.at(self.back)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn id(ms: u64) -> StreamId {
        StreamId::new(ms, 0)
    }

    /// A node that tells which one it is.
    fn node(ms: u64) -> Node {
        Node::with_entry([b"n".as_slice(), ms.to_string().as_bytes()].into_iter())
    }

    fn bytes(node: &Node) -> Vec<u8> {
        node.pack().as_bytes().to_vec()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
        /// Beside a B-tree: what is found, and what lies between two ids, from either end.
        #[test]
        fn nodes_stand_in_order(ops in prop::collection::vec((0..8u8, any::<u16>(), any::<u16>()), 1..1200)) {
            let (mut nodes, mut oracle, mut next) = (Nodes::default(), BTreeMap::new(), 1u64);
            for (op, a, b) in ops {
                let (a, b) = (u64::from(a) % (next + 2), u64::from(b) % (next + 2));
                match op {
                    // More come than go, so that there are several chunks.
                    0..=3 => {
                        nodes.push(id(next), node(next));
                        oracle.insert(next, bytes(&node(next)));
                        next += 1 + a % 3;
                    }
                    4 if !oracle.is_empty() => {
                        nodes.remove((0, 0));
                        oracle.pop_first();
                    }
                    5 => {
                        // A run goes from the midst.
                        for ms in a..a + b % 70 {
                            if oracle.remove(&ms).is_some() {
                                nodes.remove(nodes.seek(id(ms)).expect("it is there"));
                            }
                        }
                    }
                    _ => {
                        let found = nodes.seek(id(a)).map(|place| nodes.at(place).0);
                        prop_assert_eq!(found, oracle.range(..=a).next_back().map(|(ms, _)| id(*ms)));
                        let from = oracle.range(..=a).next_back().map_or(a, |(ms, _)| *ms);
                        let expected: Vec<StreamId> = match a <= b {
                            true => oracle.range(from..=b).map(|(ms, _)| id(*ms)).collect(),
                            false => Vec::new(),
                        };
                        let mut span = nodes.span(id(a), id(b));
                        prop_assert_eq!(span.map(|(id, _)| id).collect::<Vec<_>>(), expected.clone());
                        prop_assert!(span.rev().map(|(id, _)| id).eq(expected.iter().rev().copied()));
                        // Both ends meet once.
                        let (first, last) = (span.next(), span.next_back());
                        prop_assert_eq!(first.map(|(id, _)| id), expected.first().copied());
                        prop_assert_eq!(last.map(|(id, _)| id), expected.get(1..).and_then(<[_]>::last).copied());
                    }
                }
                prop_assert_eq!(nodes.count(), oracle.len());
                prop_assert_eq!(nodes.last_id(), oracle.last_key_value().map(|(ms, _)| id(*ms)));
                prop_assert!(nodes.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK));
            }
            prop_assert!(nodes.iter().map(|(id, node)| (id.ms, bytes(node))).eq(oracle.into_iter()));
        }
    }

    /// Chunks that few are left of join, so that a stream with holes does not keep one for each node.
    #[test]
    fn sparse_chunks_join() {
        let mut nodes = Nodes::default();
        (1..=6400).for_each(|ms| nodes.push(id(ms), node(ms)));
        assert_eq!(nodes.chunks.len(), 100);
        for ms in (1..=6400).filter(|ms| ms % 64 != 0) {
            nodes.remove(nodes.seek(id(ms)).expect("it is there"));
        }
        assert_eq!(nodes.count(), 100);
        assert!(nodes.chunks.len() < 15, "{} chunks for 100 nodes", nodes.chunks.len());
    }
}
