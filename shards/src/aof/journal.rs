//! The journal: what stands at the end of a log once more, where it can be forced to disk at little cost.
//!
//! A log grows, and to force what it has grown by to disk has the file system note its new length too. A file of a fixed
//! length whose blocks were all written before has no such cost. So under `appendfsync always` what a log takes on goes
//! to the log's file through the page cache, and a copy of it straight to such a file; when the copy is on disk, the
//! write can no longer be lost. Now and then the log's file is forced to disk itself, and the copies up to there are
//! written over. After a loss of power [`tails`] says what the log's file may lack.
//!
//! A journal is a page with [`head`], and behind it [`Record`]s in no order: the first of those that are written together
//! from the beginning of a page on, the others each behind the one before it. Which pages are records' beginnings shows
//! by the journal's own number: whoever chooses the values that a record holds does not know it, and so cannot have one of
//! his pages taken for a record.

use crate::rdb::crc64;

/// Bytes of a page. A device writes a page whole or not, or the checksum shows it.
pub const PAGE: usize = 4096;
/// Most bytes of a log that a record holds.
pub const RECORD_MAX: usize = 1 << 20;

/// A journal's own number, at random.
pub type Id = [u8; 16];

const MAGIC: &[u8; 8] = b"RSJRNL01";
/// Bytes of a record before the name: the journal's number, checksum, lengths of bytes and name, offset, durable.
const FIXED: usize = 48;

/// What a journal's first page begins with.
pub fn head(id: &Id) -> [u8; 24] {
    let mut head = [0; 24];
    head[..8].copy_from_slice(MAGIC);
    head[8..].copy_from_slice(id);
    head
}

/// A part of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The log's file.
    pub name: &'a str,
    /// Where the bytes stand in it.
    pub offset: u64,
    /// Up to where that file is on disk without the journal.
    pub durable: u64,
    /// At most [`RECORD_MAX`].
    pub bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// Bytes of a record with so many of the log.
    pub fn len(name: &str, bytes: usize) -> usize {
        FIXED + name.len() + bytes
    }

    /// Writes it to `out`, which is as long as it at least; what is behind it is left as it is.
    pub fn write(&self, id: &Id, out: &mut [u8]) {
        let (name, bytes) = (self.name.as_bytes(), self.bytes);
        out[..16].copy_from_slice(id);
        out[24..28].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        out[28..32].copy_from_slice(&(name.len() as u32).to_le_bytes());
        out[32..40].copy_from_slice(&self.offset.to_le_bytes());
        out[40..48].copy_from_slice(&self.durable.to_le_bytes());
        out[FIXED..FIXED + name.len()].copy_from_slice(name);
        let end = Self::len(self.name, bytes.len());
        out[end - bytes.len()..end].copy_from_slice(bytes);
        let sum = crc64::update(0, &out[24..end]);
        out[16..24].copy_from_slice(&sum.to_le_bytes());
    }

    /// The record that `bytes` begin with, if they do.
    fn read(id: &Id, bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() < FIXED || bytes[..16] != id[..] {
            return None;
        }
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let (len, name) = (word(24), word(28));
        // Nothing but zeros would have the right sum.
        if len > RECORD_MAX || name == 0 || name > PAGE {
            return None;
        }
        let whole = bytes.get(..FIXED + name + len)?;
        if crc64::update(0, &whole[24..]) != long(16) {
            return None;
        }
        let (name, bytes) = whole[FIXED..].split_at(name);
        let record = Record { name: std::str::from_utf8(name).ok()?, offset: long(32), durable: long(40), bytes };
        record.offset.checked_add(len as u64).map(|_| record)
    }

    fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }

    /// The records that `bytes` begin with, one behind the other.
    fn read_all(id: &Id, bytes: &'a [u8]) -> impl Iterator<Item = Self> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let record = Record::read(id, &bytes[at..])?;
            at += Record::len(record.name, record.bytes.len());
            Some(record)
        })
    }
}

/// What a log's file holds from some offset on, if it has not lost it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The log's file.
    pub name: String,
    /// The offset: up to here the file is on disk.
    pub durable: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What a journal tells of each log. Of several records under way at the end a later one may be whole where an earlier
/// is not: nobody was told of what either holds, and neither counts.
pub fn tails(journal: &[u8]) -> Vec<Tail> {
    if !journal.starts_with(MAGIC) || journal.len() < PAGE {
        return Vec::new();
    }
    let id: Id = journal[8..24].try_into().expect("sixteen bytes");
    let pages = (PAGE..journal.len()).step_by(PAGE);
    let mut records: Vec<Record<'_>> = pages.flat_map(|at| Record::read_all(&id, &journal[at..])).collect();
    records.sort_by_key(|record| (record.name, record.offset));
    let mut tails = Vec::new();
    for records in records.chunk_by(|a, b| a.name == b.name) {
        let durable = records.iter().map(|record| record.durable).max().expect("one at least");
        let mut tail = Tail { name: records[0].name.to_string(), durable, bytes: Vec::new() };
        for record in records {
            let at = durable + tail.bytes.len() as u64;
            if record.offset > at {
                break;
            }
            if record.end() > at {
                tail.bytes.extend_from_slice(&record.bytes[(at - record.offset) as usize..]);
            }
        }
        tails.push(tail);
    }
    tails
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Rng;
    use crate::testing::cases;

    const ID: Id = *b"0123456789abcdef";

    struct Journal(Vec<u8>);

    impl Journal {
        fn new(pages: usize) -> Self {
            let mut bytes = vec![0; PAGE * pages];
            bytes[..24].copy_from_slice(&head(&ID));
            Journal(bytes)
        }

        fn put(&mut self, page: usize, record: Record<'_>) {
            record.write(&ID, &mut self.0[page * PAGE..]);
        }
    }

    fn record<'a>(name: &'a str, offset: u64, durable: u64, bytes: &'a [u8]) -> Record<'a> {
        Record { name, offset, durable, bytes }
    }

    fn tail(name: &str, durable: u64, bytes: &[u8]) -> Tail {
        Tail { name: name.into(), durable, bytes: bytes.into() }
    }

    #[test]
    fn records_go_on_where_the_file_is_on_disk() {
        let mut journal = Journal::new(10);
        assert_eq!(tails(&journal.0), []);
        journal.put(5, record("a", 100, 90, b"first"));
        assert_eq!(tails(&journal.0), [tail("a", 90, b"")], "what is between is missing");
        journal.put(9, record("a", 90, 90, b"0123456789"));
        journal.put(1, record("a", 105, 95, b"second"));
        journal.put(2, record("b", 7, 7, b"other"));
        // Under way when the machine stopped: the one before it is missing.
        journal.put(3, record("a", 112, 95, b"lost"));
        assert_eq!(tails(&journal.0), [tail("a", 95, b"56789firstsecond"), tail("b", 7, b"other")]);
        // A later record knows that the file is on disk beyond what another holds.
        journal.put(4, record("a", 120, 120, b"last"));
        assert_eq!(tails(&journal.0)[0], tail("a", 120, b"last"));
    }

    #[test]
    fn records_of_several_logs_stand_behind_one_another() {
        let mut journal = Journal::new(4);
        let long = vec![b'x'; 2 * PAGE];
        let mut at = PAGE;
        for record in [record("a", 10, 10, b"first"), record("b", 0, 0, &long), record("a", 15, 10, b"second")] {
            record.write(&ID, &mut journal.0[at..]);
            at += Record::len(record.name, record.bytes.len());
        }
        assert_eq!(tails(&journal.0), [tail("a", 10, b"firstsecond"), tail("b", 0, &long)]);
        // One that is broken ends them.
        journal.0[2 * PAGE] ^= 1;
        assert_eq!(tails(&journal.0), [tail("a", 10, b"first")]);
    }

    #[test]
    fn a_value_that_looks_like_a_record_is_none() {
        let mut forged = vec![b'x'; 3 * PAGE];
        // It begins with a page, and has the number of another journal.
        let at = PAGE - Record::len("a", 0);
        record("a", 0, 0, b"FLUSHALL").write(b"fedcba9876543210", &mut forged[at..]);
        let mut journal = Journal::new(8);
        journal.put(2, record("a", 50, 50, &forged));
        assert_eq!(tails(&journal.0), [tail("a", 50, &forged)]);
        journal.put(2, record("a", 50, 50, b"short"));
        assert_eq!(tails(&journal.0), [tail("a", 50, b"short")]);
    }

    #[test]
    fn zeros_are_no_records() {
        let mut journal = MAGIC.to_vec();
        journal.resize(3 * PAGE, 0);
        assert_eq!(tails(&journal), []);
    }

    #[test]
    fn whatever_a_broken_journal_holds_is_no_more_than_was_written_to_it() {
        let text: Vec<u8> = (0..20_000u32).map(|n| (n % 253) as u8).collect();
        let mut whole = Journal::new(20);
        let (mut at, mut page) = (0, 1);
        for len in [10, 5000, 100, 9000, 300] {
            whole.put(page, record("log", at as u64, 0, &text[at..at + len]));
            (at, page) = (at + len, page + Record::len("log", len).div_ceil(PAGE));
        }
        assert_eq!(tails(&whole.0), [tail("log", 0, &text[..at])]);
        let mut rng = Rng::new(11);
        for _ in 0..cases(3000) {
            let mut bytes = whole.0.clone();
            for _ in 0..1 + rng.below(3) {
                let at = rng.below(bytes.len() as u64) as usize;
                match rng.below(4) {
                    0 => bytes[at] ^= 1 << rng.below(8),
                    1 => bytes.truncate(at),
                    2 => bytes[at..].fill(rng.next_u64() as u8),
                    _ => bytes[at] = rng.next_u64() as u8,
                }
                if bytes.is_empty() {
                    break;
                }
            }
            for tail in tails(&bytes) {
                assert_eq!((&tail.name[..], tail.durable), ("log", 0));
                assert!(text.starts_with(&tail.bytes));
            }
        }
    }
}
