//! `Journal`: where the ends of logs are forced to disk under `appendfsync always`; what it is for, and what stands in it,
//! says `ringshard_shards::aof::journal`.
//!
//! There is one beside the logs while they are written under `always`, for all of them: what it takes together is one
//! write ([`super::group`]). Its pages are taken one after the other, and over again from the first when the logs' files
//! are on disk up to where they are of.
//!
//! Two rules make sure that what counts is found. *Records of a log are a chain*: one begins where the one before it ends,
//! or where the log's file is on disk when it is made, as it says itself. So what is not in a record, because it is too
//! much, has those behind it wait until the log's file is on disk up to there. And *a page is free* when what it tells is
//! on disk in the logs' files and for each log a record that says so is whole in the journal, or all its records are on
//! disk there; else a write over it that was torn would leave a chain that begins too late.
//!
//! Whoever copies the directory of a server that was killed has all in the logs' files, for they have it before the
//! journal does. After a loss of power [`replay`] makes good at the start what they lack; where redis-server is to load
//! them it has to be done before, by a start of this server or by `ringshard check aof --fix`. A clean end leaves no
//! journal.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringshard_shards::aof::journal::{Id, PAGE, RECORD_MAX, Record, Tail, head, tails};
use ringshard_shards::aof::manifest::Manifest;

use crate::log;
use crate::net::os_text;
use crate::persistence::disk::{BlockFile, Disk};
use crate::persistence::pages::{self, Pages};

// Records are written in the pages that buffers are made of.
const _: () = assert!(PAGE == pages::PAGE);

/// Bytes of a journal: at a page each sync, the logs' own files are forced to disk once in a thousand. (Tests fill it.)
const BYTES: u64 = if cfg!(test) { 9 * PAGE as u64 } else { 8 << 20 };
/// A file that is longer is none.
const BYTES_MAX: u64 = 64 << 20;
/// Most bytes that are written together, unless they are of one record.
const BATCH_MAX: usize = 1 << 20;

/// See the head of the file.
pub struct Journal {
    file: Arc<dyn BlockFile>,
    /// Its own number.
    id: Id,
    /// Pages that records stand in, behind the first.
    pages: usize,
    /// Where the next record goes, of these.
    next: usize,
    /// What was written, in that order.
    taken: VecDeque<Taken>,
    /// Pages that are taken.
    used: usize,
    /// By shard, the log's position behind its last record.
    ends: Vec<u64>,
    /// Records that are to be written next.
    open: Batch,
    /// Of those that were written.
    spare: Vec<Pages>,
}

/// Records, one behind the other.
#[derive(Default)]
struct Batch {
    records: Pages,
    /// Bytes of it.
    len: usize,
    /// The shards whose logs they are of, and the position behind each.
    ends: Vec<(usize, u64)>,
}

/// Pages that are taken.
struct Taken {
    /// The shards whose logs they tell of, and the position behind each record.
    ends: Vec<(usize, u64)>,
    /// With those that were passed over before it.
    pages: usize,
    /// Who writes it holds the other end.
    writes: Arc<()>,
}

/// A part of a shard's log, by the log's positions.
pub struct Part<'a> {
    /// The shard.
    pub shard: usize,
    /// The log's file.
    pub name: &'a str,
    /// From here
    pub from: u64,
    /// to here.
    pub to: u64,
    /// Up to here the log's file is on disk.
    pub durable: u64,
    /// How much farther its file is than the log.
    pub shift: i64,
    /// What stands there.
    pub bytes: &'a [u8],
}

/// Records that are to be written.
pub struct Write {
    file: Arc<dyn BlockFile>,
    at: u64,
    records: Pages,
    _writes: Arc<()>,
}

impl Write {
    /// Has them on disk.
    ///
    /// # Errors
    /// What the system says.
    pub fn run(&self) -> io::Result<()> {
        self.file.write_at(&self.records, self.at)
    }
}

/// The journal's path beside the logs' files.
pub fn path_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.journal"))
}

impl Journal {
    /// An empty one for the logs of so many shards; none where the file system has no way past its cache.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(disk: &dyn Disk, path: &Path, id: Id, shards: usize) -> io::Result<Option<Self>> {
        let mut first = Pages::new(PAGE);
        let head = head(&id);
        first[..head.len()].copy_from_slice(&head);
        let created = disk.create_blocks(path, &first, BYTES);
        let synced = path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir));
        match created.and_then(|file| synced.map(|()| file)) {
            Ok(Some(file)) => Ok(Some(Journal {
                file,
                id,
                pages: BYTES as usize / PAGE - 1,
                next: 0,
                taken: VecDeque::new(),
                used: 0,
                ends: vec![0; shards],
                open: Batch::default(),
                spare: Vec::new(),
            })),
            other => {
                let _ = disk.remove(path);
                other.map(|_| None)
            }
        }
    }

    /// Its own number.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// Pages are free of what the logs' files have on disk. That is so up to `durable`, by shard, and a whole record says so
    /// of `recorded`.
    pub fn free(&mut self, durable: impl Fn(usize) -> u64, recorded: impl Fn(usize) -> u64) {
        let ends = &self.ends;
        let known = |shard: usize| if ends[shard] <= durable(shard) { durable(shard) } else { recorded(shard) };
        while let Some(Taken { ends, pages, writes }) = self.taken.front()
            && ends.iter().all(|(shard, end)| *end <= known(*shard))
            && Arc::strong_count(writes) == 1
        {
            self.used -= pages;
            self.taken.pop_front();
        }
    }

    /// Whether the logs' files should be forced to disk, so that pages become free.
    pub fn is_half_full(&self) -> bool {
        self.used > self.pages / 2
    }

    /// Whether nothing is to be written or being written.
    pub fn is_quiet(&self) -> bool {
        self.open.ends.is_empty() && self.taken.iter().all(|taken| Arc::strong_count(&taken.writes) == 1)
    }

    /// Where records of so many bytes go, and how many pages are passed over before; none if there is no room.
    fn place(&self, bytes: usize) -> Option<(usize, usize)> {
        let pages = bytes.div_ceil(PAGE);
        // What is written together stands in one piece.
        let wraps = self.next + pages > self.pages;
        let (at, passed) = if wraps { (0, self.pages - self.next) } else { (self.next, 0) };
        (self.used + passed + pages <= self.pages).then_some((at, passed))
    }

    /// Makes a record of this part, to be written next, if it is whole, it goes on where the log is on disk, and there is
    /// room for it. Says whether it did.
    pub fn add(&mut self, part: &Part<'_>) -> bool {
        let goes_on = part.from <= part.durable || part.from == self.ends[part.shard];
        if !goes_on || part.bytes.len() as u64 != part.to - part.from || part.bytes.len() > RECORD_MAX {
            return false;
        }
        let offset = part.from.checked_add_signed(part.shift);
        let durable = part.durable.checked_add_signed(part.shift);
        let (Some(offset), Some(durable)) = (offset, durable) else { return false };
        let at = self.open.len;
        let len = at + Record::len(part.name, part.bytes.len());
        if at > 0 && len > BATCH_MAX || self.place(len).is_none() {
            return false;
        }
        self.open.records.resize(len);
        let record = Record { name: part.name, offset, durable, bytes: part.bytes };
        record.write(&self.id, &mut self.open.records[at..len]);
        self.open.len = len;
        self.open.ends.push((part.shard, part.to));
        self.ends[part.shard] = part.to;
        true
    }

    /// Takes the records that are to be written next, if there are any.
    pub fn take(&mut self) -> Option<Write> {
        if self.open.ends.is_empty() {
            return None;
        }
        let Batch { mut records, len, ends } = std::mem::take(&mut self.open);
        self.open.records = self.spare.pop().unwrap_or_default();
        let (at, passed) = self.place(len).expect("there was room when the last record was added");
        // What stood in the last page before is not told again.
        records[len..].fill(0);
        let pages = records.len() / PAGE;
        self.next = at + pages;
        self.used += passed + pages;
        let writes = Arc::new(());
        self.taken.push_back(Taken { ends, pages: passed + pages, writes: writes.clone() });
        Some(Write { file: self.file.clone(), at: ((1 + at) * PAGE) as u64, records, _writes: writes })
    }

    /// Takes back what was written, for what will be.
    pub fn reuse(&mut self, write: Write) {
        self.spare.push(write.records);
    }
}

/// The journal that there is beside the logs.
fn journal(disk: &dyn Disk, dir: &Path, name: &str) -> Option<PathBuf> {
    Some(path_of(dir, name)).filter(|path| disk.exists(path))
}

/// What is to be made good in a log's file.
struct Missing {
    path: PathBuf,
    len: u64,
    /// So much of it stays,
    keep: u64,
    /// and this goes behind.
    bytes: Vec<u8>,
}

/// What a log's file lacks of a tail; nothing can be said of one that ends before it was on disk up to there: somebody has
/// cut it off, or it is a copy that was made before that of its journal.
fn missing(disk: &dyn Disk, dir: &Path, journal: &Path, tail: Tail) -> Result<Option<Missing>, String> {
    let path = dir.join(&tail.name);
    let said = |error: io::Error| format!("Can't read the append only file {}: {}", tail.name, os_text(&error));
    let foreign = || {
        format!(
            "The journal {} and the append only file {} do not belong together: the file was changed by somebody else. \
             If that is as it should be, remove the journal and start again",
            journal.display(),
            tail.name
        )
    };
    let len = disk.len(&path).map_err(said)?;
    if len < tail.durable {
        log::warning(format!(
            "The append only file {} ends before offset {}, up to where it was on disk: its journal is left out",
            tail.name, tail.durable
        ));
        return Ok(None);
    }
    let mut there = Vec::new();
    let mut file = disk.open_at(&path, tail.durable).map_err(said)?;
    file.by_ref().take(tail.bytes.len() as u64).read_to_end(&mut there).map_err(said)?;
    // What never reached the disk is missing, or zeros.
    let differs = |(there, told): (&u8, &u8)| there != told;
    let same = there.iter().zip(&tail.bytes).position(differs).unwrap_or(there.len());
    if there.iter().zip(&tail.bytes).skip(same).any(|(there, told)| there != told && *there != 0) {
        return Err(foreign());
    }
    let mut keep = tail.durable + same as u64;
    if same == tail.bytes.len() {
        // What is behind was not acknowledged. No command ends with a zero.
        keep += bytes_before_zeros(file).map_err(said)?;
    }
    Ok(Some(Missing { path, len, keep, bytes: tail.bytes[same..].to_vec() }))
}

/// How many bytes there are up to the zeros at the end.
fn bytes_before_zeros(mut file: Box<dyn Read + Send>) -> io::Result<u64> {
    let mut part = vec![0; 64 * 1024];
    let (mut read, mut end) = (0, 0);
    loop {
        match file.read(&mut part) {
            Ok(0) => return Ok(end),
            Ok(n) => {
                end = part[..n].iter().rposition(|byte| *byte != 0).map_or(end, |last| read + last as u64 + 1);
                read += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// All that the journal holds and the logs lack.
fn all_missing(disk: &dyn Disk, dir: &Path, manifest: &Manifest, path: &Path) -> Result<Vec<Missing>, String> {
    let said = |error: io::Error| format!("Can't read the journal {}: {}", path.display(), os_text(&error));
    let mut bytes = Vec::new();
    disk.open(path).map_err(said)?.take(BYTES_MAX).read_to_end(&mut bytes).map_err(said)?;
    let mut all = Vec::new();
    for tail in tails(&bytes) {
        // Others were of files that count no more.
        if manifest.increments.iter().any(|info| info.name == tail.name) {
            all.extend(missing(disk, dir, path, tail)?);
        }
    }
    all.retain(|missing| missing.keep < missing.len || !missing.bytes.is_empty());
    Ok(all)
}

/// How many bytes the journal holds that the logs lack.
///
/// # Errors
/// What is wrong.
pub fn bytes_missing(disk: &dyn Disk, dir: &Path, name: &str, manifest: &Manifest) -> Result<usize, String> {
    let Some(path) = journal(disk, dir, name) else { return Ok(0) };
    Ok(all_missing(disk, dir, manifest, &path)?.iter().map(|missing| missing.bytes.len()).sum())
}

/// Writes to the logs what the journal holds and they lack, and removes it. Nobody writes to them.
///
/// # Errors
/// What to say in the log; everything is as before then, or can be done again.
pub fn replay(disk: &dyn Disk, dir: &Path, name: &str, manifest: &Manifest) -> Result<(), String> {
    let Some(journal) = journal(disk, dir, name) else { return Ok(()) };
    for Missing { path, len, keep, bytes } in all_missing(disk, dir, manifest, &journal)? {
        let write = || {
            let mut file = disk.append(&path)?;
            if keep < len {
                file.truncate(keep)?;
            }
            file.write_all(&bytes)
        };
        write()
            .map_err(|error| format!("Can't write to the append only file {}: {}", path.display(), os_text(&error)))?;
        log::notice(format!(
            "{} bytes from offset {keep} on were written to the append only file {} out of the journal",
            bytes.len(),
            path.file_name().unwrap_or_default().to_string_lossy()
        ));
    }
    // Also what was written before: that it can be read does not mean that it is on disk.
    let sync = || {
        for info in &manifest.increments {
            if disk.exists(&dir.join(&info.name)) {
                disk.append(&dir.join(&info.name))?.sync()?;
            }
        }
        disk.remove(&journal)?;
        disk.sync_dir(dir)
    };
    sync().map_err(|error| format!("Can't make good what the journal of {} holds: {}", dir.display(), os_text(&error)))
}
