//! `Journal`: where the end of a log is forced to disk under `appendfsync always`; what it is for, and what stands in it,
//! says `ringshard_shards::aof::journal`.
//!
//! Each log has one beside it while it is written under `always`. Its pages are taken one after the other, and over again
//! from the first when the log's file is on disk up to where they are of; that is seen to by a thread of its own, when
//! half of the pages are taken or once in a second.
//!
//! Two rules make sure that what counts is found. *Records are a chain*: one begins where the one before it ends, or
//! where the log's file is on disk when it is made, as it says itself. So what is not in a record, because it is too much,
//! has those behind it wait until the log's file is on disk up to there. And *a page is free* when what it tells is on
//! disk in the log's file and a record that says so is whole in the journal, or all records are on disk there; else a
//! write over it that was torn would leave a chain that begins too late.
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

/// Bytes of a journal: at a page each sync, the log's own file is forced to disk once in a thousand. (Tests fill it.)
const BYTES: u64 = if cfg!(test) { 9 * PAGE as u64 } else { 8 << 20 };
/// A file that is longer is none.
const BYTES_MAX: u64 = 64 << 20;

/// See the head of the file.
pub struct Journal {
    file: Arc<dyn BlockFile>,
    /// Its own number.
    id: Id,
    /// Pages that records stand in, behind the first.
    pages: usize,
    /// Where the next record goes, of these.
    next: usize,
    /// Records whose pages are taken, in their order.
    taken: VecDeque<Taken>,
    /// Pages that are taken.
    used: usize,
    /// The log's position behind the last record.
    end: u64,
    /// What the log's file took since it was last forgotten.
    collected: Vec<u8>,
}

/// Pages that a record takes.
struct Taken {
    /// The log's position behind it.
    end: u64,
    /// With those that were passed over before it.
    pages: usize,
    /// Who writes it holds the other end.
    writes: Arc<()>,
}

/// A part of a log, by the log's positions.
pub struct Part<'a> {
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
}

/// A record that is to be written.
pub struct Write {
    file: Arc<dyn BlockFile>,
    at: u64,
    /// Up to here it says that the log's file is on disk, by the log's position.
    pub durable: u64,
    _writes: Arc<()>,
}

impl Write {
    /// Has it on disk.
    ///
    /// # Errors
    /// What the system says.
    pub fn run(&self, record: &Pages) -> io::Result<()> {
        self.file.write_at(record, self.at)
    }
}

/// The journal's path beside a log's files.
pub fn path_of(dir: &Path, name: &str, shard: usize) -> PathBuf {
    dir.join(format!("{name}.{shard}.journal"))
}

impl Journal {
    /// An empty one; none where the file system has no way past its cache.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(disk: &dyn Disk, path: &Path, id: Id) -> io::Result<Option<Self>> {
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
                end: 0,
                collected: Vec::new(),
            })),
            other => {
                let _ = disk.remove(path);
                other.map(|_| None)
            }
        }
    }

    /// The log's file took these bytes.
    pub fn collect(&mut self, bytes: &[u8]) {
        if self.collected.len() + bytes.len() > RECORD_MAX {
            // Too much for a record: what is there then is not all.
            self.collected.clear();
        } else {
            self.collected.extend_from_slice(bytes);
        }
    }

    /// Pages are free of what the log's file has on disk. That is so up to `durable`, and a whole record says so of
    /// `recorded`.
    pub fn free(&mut self, durable: u64, recorded: u64) {
        let known = if self.end <= durable { durable } else { recorded };
        while let Some(Taken { end, pages, writes }) = self.taken.front()
            && *end <= known
            && Arc::strong_count(writes) == 1
        {
            self.used -= pages;
            self.taken.pop_front();
        }
    }

    /// What was collected is in a record, or on disk otherwise.
    pub fn forget(&mut self) {
        self.collected.clear();
    }

    /// Whether the log's file should be forced to disk, so that pages become free.
    pub fn is_half_full(&self) -> bool {
        self.used > self.pages / 2
    }

    /// Makes a record of this part, if that is what was collected, it goes on where the log is on disk, and there is room
    /// for it: fills `record` with whole pages.
    pub fn record(&mut self, part: &Part<'_>, record: &mut Pages) -> Option<Write> {
        let goes_on = part.from <= part.durable || part.from == self.end;
        if !goes_on || self.collected.len() as u64 != part.to - part.from {
            return None;
        }
        let offset = part.from.checked_add_signed(part.shift)?;
        let durable = part.durable.checked_add_signed(part.shift)?;
        let len = Record::len(part.name, self.collected.len());
        let pages = len.div_ceil(PAGE);
        // One record stands in one piece.
        let wraps = self.next + pages > self.pages;
        let (at, passed) = if wraps { (0, self.pages - self.next) } else { (self.next, 0) };
        if self.used + passed + pages > self.pages {
            return None;
        }
        record.resize(len);
        Record { name: part.name, offset, durable, bytes: &self.collected }.write(&self.id, record);
        self.next = at + pages;
        self.used += passed + pages;
        self.end = part.to;
        let writes = Arc::new(());
        self.taken.push_back(Taken { end: part.to, pages: passed + pages, writes: writes.clone() });
        let at = ((1 + at) * PAGE) as u64;
        Some(Write { file: self.file.clone(), at, durable: part.durable, _writes: writes })
    }
}

/// The journals that there are beside the logs of a manifest.
fn journals(disk: &dyn Disk, dir: &Path, name: &str, manifest: &Manifest) -> Vec<PathBuf> {
    let shards = manifest.increments.iter().map(|info| info.shard.1).max().unwrap_or(0);
    (0..shards).map(|shard| path_of(dir, name, shard)).filter(|path| disk.exists(path)).collect()
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

/// All that the journals hold and the logs lack.
fn all_missing(disk: &dyn Disk, dir: &Path, manifest: &Manifest, paths: &[PathBuf]) -> Result<Vec<Missing>, String> {
    let mut all = Vec::new();
    for path in paths {
        let said = |error: io::Error| format!("Can't read the journal {}: {}", path.display(), os_text(&error));
        let mut bytes = Vec::new();
        disk.open(path).map_err(said)?.take(BYTES_MAX).read_to_end(&mut bytes).map_err(said)?;
        for tail in tails(&bytes) {
            // Others were of files that count no more.
            if manifest.increments.iter().any(|info| info.name == tail.name) {
                all.extend(missing(disk, dir, path, tail)?);
            }
        }
    }
    all.retain(|missing| missing.keep < missing.len || !missing.bytes.is_empty());
    Ok(all)
}

/// How many bytes the journals hold that the logs lack.
///
/// # Errors
/// What is wrong.
pub fn bytes_missing(disk: &dyn Disk, dir: &Path, name: &str, manifest: &Manifest) -> Result<usize, String> {
    let all = all_missing(disk, dir, manifest, &journals(disk, dir, name, manifest))?;
    Ok(all.iter().map(|missing| missing.bytes.len()).sum())
}

/// Writes to the logs what the journals hold and they lack, and removes the journals. Nobody writes to them.
///
/// # Errors
/// What to say in the log; everything is as before then, or can be done again.
pub fn replay(disk: &dyn Disk, dir: &Path, name: &str, manifest: &Manifest) -> Result<(), String> {
    let paths = journals(disk, dir, name, manifest);
    for Missing { path, len, keep, bytes } in all_missing(disk, dir, manifest, &paths)? {
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
            "{} bytes from offset {keep} on were written to the append only file {} out of its journal",
            bytes.len(),
            path.file_name().unwrap_or_default().to_string_lossy()
        ));
    }
    if paths.is_empty() {
        return Ok(());
    }
    // Also what was written before: that it can be read does not mean that it is on disk.
    let sync = || {
        for info in &manifest.increments {
            if disk.exists(&dir.join(&info.name)) {
                disk.append(&dir.join(&info.name))?.sync()?;
            }
        }
        paths.iter().try_for_each(|path| disk.remove(path))?;
        disk.sync_dir(dir)
    };
    sync().map_err(|error| format!("Can't make good what the journals of {} hold: {}", dir.display(), os_text(&error)))
}
