//! Loading the log at the start.
//!
//! First every log is looked through: where its last whole command ends, and what it tells of commands over several
//! slices; what does not belong to a consistent whole is cut off ([`recover`]). Then the base file is loaded, and the logs
//! of one generation after the other. Where a generation was written by as many shards as there are now, each shard
//! runs its own log, all at the same time; else, or when somebody else has written to the files meanwhile, the first
//! shard runs all of them in order with all slices in hand, and a rewrite begins after that.
//!
//! Counterpart: `loadAppendOnlyFiles`, `aofOpenIfNeededOnServerStart`.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::*;
use std::time::Duration;

use ringshard_shards::aof::State as LogState;
use ringshard_shards::aof::cut::consistent_cut;
use ringshard_shards::aof::manifest::{FileInfo, Manifest, is_complete};
use ringshard_shards::aof::read::{End, Scan, Scanned};
use ringshard_shards::args::{ArgRef, Args};
use ringshard_shards::commands::{UNKNOWN, table};
use ringshard_shards::config::Config;
use ringshard_shards::propagate::Mark;
use ringshard_shards::router::{Owners, ShardId, owners};
use ringshard_shards::shared::{LogPart, Shared};
use ringshard_shards::snapshot::{LOADING_MAX, LoadBatch, LogBatch, distribute};

use super::pen::OpenFile;
use super::{Files, Log, dir_of, journal, manifest_path, persist, read_manifest};
use crate::mailbox::{Mail, Mailboxes};
use crate::net::os_text;
use crate::persistence::disk::Disk;
use crate::persistence::stream::Stream;
use crate::{clock, log};

/// What a look through one log of a generation found.
pub struct Looked {
    /// The file.
    pub info: FileInfo,
    /// Its length.
    pub len: u64,
    /// See there.
    pub scanned: Scanned,
    /// It holds what does not belong to its shard: somebody else has written to it.
    pub foreign: bool,
}

/// Looks through a log; `until` as in [`Scan::new`].
///
/// # Errors
/// What to say in the log.
pub fn look(disk: &dyn Disk, dir: &Path, info: &FileInfo, until: Option<i64>) -> Result<Looked, String> {
    let path = dir.join(&info.name);
    let said = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!("The append log file {} doesn't exist: {}", info.name, os_text(&error)),
        _ => format!("Fatal error: can't open the append log file {} for reading: {}", info.name, os_text(&error)),
    };
    let len = disk.len(&path).map_err(said)?;
    let mut stream = Stream::open(disk, &path).map_err(said)?;
    let mut scan = Scan::new(0, until);
    let mut foreign = false;
    let (shard, of) = info.shard;
    let mut is_foreign = |command: &[u8], refs: &[ArgRef]| {
        if foreign || of == 1 {
            return;
        }
        let args = Args::new(command, refs);
        let id = table().resolve(args);
        if id != UNKNOWN {
            foreign = match owners(table().row(id), args, of) {
                Owners::None => false,
                Owners::One(owner) => owner != shard,
                Owners::Several(_) => true,
            };
        }
    };
    loop {
        let bytes = stream.next().map_err(|error| {
            format!("Unrecoverable error reading the append only file {}: {}", info.name, os_text(&error))
        })?;
        // A length that the file cannot hold would only have the rest of it kept in memory.
        if bytes.is_empty() || !scan.feed(bytes, &mut is_foreign) || scan.wanted() as u64 > len {
            break;
        }
    }
    let scanned = scan.finish();
    Ok(Looked { info: info.clone(), len, scanned, foreign })
}

/// The logs of the manifest by generation, and up to where each is loaded.
pub struct Recovered {
    /// By generation, by shard.
    pub generations: Vec<Vec<(Looked, u64)>>,
    /// The highest number of a command over several slices.
    pub highest: u64,
}

/// Looks through all logs, and finds the prefixes that belong together: see [`consistent_cut`].
///
/// # Errors
/// What to say in the log: a file is missing or is no log.
pub fn recover(disk: &dyn Disk, dir: &Path, manifest: &Manifest, until: Option<i64>) -> Result<Recovered, String> {
    let mut generations: Vec<Vec<(Looked, u64)>> = Vec::new();
    for infos in manifest.generations() {
        if !is_complete(infos) {
            let names = infos.iter().map(|info| &info.name[..]).collect::<Vec<_>>().join(", ");
            return Err(format!("Fatal error: the logs of some shards are missing beside {names}"));
        }
        let looks: Vec<Result<Looked, String>> = std::thread::scope(|scope| {
            let threads: Vec<_> = infos.iter().map(|info| scope.spawn(move || look(disk, dir, info, until))).collect();
            threads.into_iter().map(|thread| thread.join().expect("looking does not panic")).collect()
        });
        let looked: Result<Vec<Looked>, String> = looks.into_iter().collect();
        generations.push(looked?.into_iter().map(|looked| (looked, 0)).collect());
    }
    let mut highest = 0;
    // Generations of as many shards go on where the one before has ended.
    let mut at = 0;
    while at < generations.len() {
        let shards = generations[at].len();
        let mut end = at + 1;
        while end < generations.len() && generations[end].len() == shards {
            end += 1;
        }
        let chain = &mut generations[at..end];
        let mut ends = vec![0; shards];
        let mut marks: Vec<VecDeque<Mark>> = vec![VecDeque::new(); shards];
        for shard in 0..shards {
            let mut start = 0;
            let mut torn = false;
            for generation in chain.iter() {
                let looked = &generation[shard].0;
                for mark in &looked.scanned.marks {
                    highest = highest.max(mark.number);
                    let (from, to) = (mark.start + start, mark.end + start);
                    marks[shard].push_back(Mark { start: from, end: to, ..mark.clone() });
                }
                if !torn {
                    ends[shard] = start + looked.scanned.valid;
                    torn = looked.scanned.valid < looked.len;
                }
                start += looked.len;
            }
        }
        consistent_cut(&mut ends, &marks);
        for shard in 0..shards {
            let mut start = 0;
            for generation in chain.iter_mut() {
                let (looked, limit) = &mut generation[shard];
                *limit = ends[shard].saturating_sub(start).min(looked.len);
                start += looked.len;
            }
        }
        at = end;
    }
    Ok(Recovered { generations, highest })
}

impl Recovered {
    /// Says what is cut off, as Redis says it, and cuts it off if that is allowed.
    pub(super) fn cut_off(&self, disk: &dyn Disk, dir: &Path, config: &Config) -> Result<(), String> {
        // From the last one on: what goes on in a later file must not be there without what was before it.
        for (at, generation) in self.generations.iter().enumerate().rev() {
            let last = at + 1 == self.generations.len();
            for (looked, limit) in generation {
                let name = &looked.info.name;
                if let End::Bad(offset, reason) = &looked.scanned.end {
                    log::warning(format!("At byte {offset} of {name}: {reason}"));
                    return Err(format!(
                        "Bad file format reading the append only file {name}: make a backup of your AOF file, then use \
                         ringshard check aof --fix <filename.manifest>"
                    ));
                }
                if *limit == looked.len {
                    continue;
                }
                let torn = looked.scanned.valid < looked.len;
                if looked.scanned.end == (End::Truncated { in_multi: true }) {
                    log::warning(format!("Revert incomplete MULTI/EXEC transaction in AOF file {name}"));
                }
                if *limit < looked.scanned.valid {
                    log::warning(format!(
                        "What {name} holds from offset {limit} on builds on a command over several shards of which \
                         another log has lost its part: it is dropped"
                    ));
                }
                if torn && !config.aof_load_truncated {
                    return Err(format!(
                        "Unexpected end of file reading the append only file {name}. You can: 1) Make a backup of your \
                         AOF file, then use ringshard check aof --fix <filename.manifest>. 2) Alternatively you can set \
                         the 'aof-load-truncated' configuration option to yes and restart the server."
                    ));
                }
                log::warning(format!("!!! Warning: short read while loading the AOF file {name}!!!"));
                log::warning(format!("!!! Truncating the AOF {name} at offset {limit} !!!"));
                if torn && !last && generation.len() == 1 {
                    return Err("Fatal error: the truncated file is not the last file".into());
                }
                disk.truncate(&dir.join(name), *limit)
                    .map_err(|error| format!("Error truncating the AOF file {name}: {}", os_text(&error)))?;
                if torn {
                    log::warning(format!("AOF {name} loaded anyway because aof-load-truncated is enabled"));
                }
            }
        }
        Ok(())
    }
}

/// Sends parts of files to shards, and waits for them.
struct Sender<'a> {
    shared: &'a Shared,
    mailboxes: &'a Mailboxes,
}

impl Sender<'_> {
    fn failure(&self) -> Result<(), String> {
        let error = self.shared.persistence.loading_error.lock().unwrap_or_else(|e| e.into_inner());
        error.clone().map_or(Ok(()), Err)
    }

    fn send(&self, owner: ShardId, batch: LoadBatch, all: bool) -> Result<(), String> {
        let pending = &self.shared.persistence.loading_pending[owner as usize].0;
        while pending.load(Acquire) > LOADING_MAX {
            std::thread::sleep(Duration::from_micros(100));
        }
        let bytes = batch.bytes();
        pending.fetch_add(bytes, AcqRel);
        self.shared.persistence.loading_done.fetch_add(bytes as u64, Relaxed);
        let batch = Box::new(batch);
        let mail = if all { Mail::LoadWithAll(batch) } else { Mail::Load(batch) };
        self.mailboxes.of(owner as usize).push(mail);
        self.failure()
    }

    fn settle(&self) -> Result<(), String> {
        let pending = &self.shared.persistence.loading_pending;
        while pending.iter().any(|pending| pending.0.load(Acquire) > 0) {
            std::thread::sleep(Duration::from_micros(100));
        }
        self.failure()
    }

    /// Sends a log up to `limit`, whole or in parts.
    fn send_log(
        &self,
        stream: &mut Stream,
        origin: (ShardId, usize),
        limit: u64,
        to: ShardId,
        all: bool,
        delay: i32,
    ) -> Result<(), String> {
        let mut left = limit;
        let mut begins = true;
        while left > 0 {
            let bytes = stream.next().map_err(|error| os_text(&error))?;
            if bytes.is_empty() {
                break;
            }
            let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            left -= taken as u64;
            crate::persistence::load::delay(delay, taken / 32);
            let part = LogBatch { origin, begins, bytes: bytes[..taken].to_vec() };
            begins = false;
            self.send(to, LoadBatch::of_log(part), all)?;
        }
        Ok(())
    }
}

/// An old server's only file, moved to where files are now. Redis does the same, in the same three cases.
fn upgrade(disk: &dyn Disk, config: &Config, manifest: &mut Manifest) -> Result<(), String> {
    let old = Path::new(&config.dir).join(&config.appendfilename);
    if !disk.exists(&old) {
        return Ok(());
    }
    let dir = dir_of(config);
    let moved_halfway = manifest.increments.is_empty()
        && manifest.base.as_ref().is_some_and(|base| base.name == config.appendfilename)
        && !disk.exists(&dir.join(&config.appendfilename));
    if !(manifest.base.is_none() && manifest.increments.is_empty() || moved_halfway) {
        return Ok(());
    }
    let name = &config.appendfilename;
    disk.create_dir(&dir).map_err(|error| {
        format!("Can't open or create append-only dir {}: {}", config.appenddirname, os_text(&error))
    })?;
    manifest.base = Some(FileInfo { name: name.clone(), seq: 1, shard: (0, 1) });
    manifest.base_seq = 1;
    persist(disk, &dir, name, manifest)?;
    disk.rename(&old, &dir.join(name)).map_err(|error| {
        format!("Error trying to move the old AOF file {name} into dir {}: {}", config.appenddirname, os_text(&error))
    })?;
    disk.sync_dir(&dir).map_err(|error| os_text(&error))?;
    log::notice(format!(
        "Successfully migrated an old-style AOF file ({name}) into the AOF directory ({}).",
        config.appenddirname
    ));
    Ok(())
}

/// Loads what the manifest names, and opens the files that are written on. The shards' loops turn already.
///
/// # Errors
/// What to say in the log before the process ends.
pub fn load(log: &Arc<Log>, mailboxes: &Mailboxes) -> Result<(), String> {
    let (shared, disk) = (&log.shared, &*log.disk);
    let config = shared.config();
    let sender = Sender { shared, mailboxes };
    let dir = dir_of(&config);
    let mut manifest = read_manifest(disk, &dir, &config.appendfilename)?;
    upgrade(disk, &config, &mut manifest)?;
    journal::replay(disk, &dir, &config.appendfilename, &manifest)?;
    let began = clock::monotonic_us();
    let seconds = |since: u64| (clock::monotonic_us() - since) as f64 / 1e6;
    let named: Vec<&FileInfo> = manifest.base.iter().chain(&manifest.increments).collect();
    let mut total = 0;
    for info in &named {
        total += disk.len(&dir.join(&info.name)).map_err(|error| {
            log::warning(format!("Unable to obtain the AOF file {} length. stat: {}", info.name, os_text(&error)));
            "Fatal error loading the DB, check server logs. Exiting.".to_string()
        })?;
    }
    shared.persistence.loading_total.store(total, Relaxed);
    let recovered = recover(disk, &dir, &manifest, None)?;
    recovered.cut_off(disk, &dir, &config)?;
    shared.aof.numbers_used(recovered.highest);
    let mut base_size = 0;
    if let Some(base) = &manifest.base {
        base_size = disk.len(&dir.join(&base.name)).unwrap_or(0);
        load_base(log, &sender, &config, &dir, base, manifest.increments.is_empty())?;
        log::notice(format!("DB loaded from base file {}: {:.3} seconds", base.name, seconds(began)));
    }
    let shards = shared.shards;
    let mut in_order = false;
    for generation in &recovered.generations {
        let since = clock::monotonic_us();
        let own = generation.len() == shards && !generation.iter().any(|(looked, _)| looked.foreign);
        in_order |= !own;
        sender.settle()?;
        if own {
            let sent: Vec<Result<(), String>> = std::thread::scope(|scope| {
                let (sender, dir, config) = (&sender, &dir, &config);
                let threads: Vec<_> = generation
                    .iter()
                    .map(|(looked, limit)| {
                        scope.spawn(move || {
                            let origin = looked.info.shard;
                            let mut stream =
                                Stream::open(disk, &dir.join(&looked.info.name)).map_err(|e| os_text(&e))?;
                            sender.send_log(&mut stream, origin, *limit, origin.0, false, config.key_load_delay)
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().expect("reading does not panic")).collect()
            });
            sent.into_iter().collect::<Result<(), String>>().map_err(|text| fail(&generation[0].0.info.name, text))?;
            sender.settle().map_err(|text| fail(&generation[0].0.info.name, text))?;
        } else {
            for (looked, limit) in generation {
                let name = &looked.info.name;
                let mut stream = Stream::open(disk, &dir.join(name)).map_err(|e| os_text(&e))?;
                sender
                    .send_log(&mut stream, looked.info.shard, *limit, 0, true, config.key_load_delay)
                    .and_then(|()| sender.settle())
                    .map_err(|text| fail(name, text))?;
            }
        }
        for (looked, _) in generation {
            log::notice(format!("DB loaded from incr file {}: {:.3} seconds", looked.info.name, seconds(since)));
        }
    }
    if !named.is_empty() {
        log::notice(format!("DB loaded from append only file: {:.3} seconds", seconds(began)));
    }
    let log_size: u64 = recovered.generations.iter().flatten().map(|(_, limit)| limit).sum();
    shared.aof.base_size.store(base_size, Relaxed);
    shared.aof.rewrite_base_size.store(base_size, Relaxed);
    shared.aof.log_size.store(log_size, Relaxed);
    log.sizes.lock().unwrap_or_else(|e| e.into_inner()).insert(0, log_size);
    // Before its first write, a rewrite makes of the logs what this number of shards would have written.
    let others = recovered.generations.last().is_some_and(|last| last.len() != shards) || in_order && shards > 1;
    open(log, &config, dir, manifest, &recovered, others)?;
    if others {
        shared.aof.scheduled.store(true, Release);
    }
    if !shared.config().appendonly {
        // It was turned off meanwhile.
        log.close();
        return sender.settle();
    }
    shared.aof.set_state(LogState::On);
    for shard in 0..shards {
        sender.send(shard as ShardId, LoadBatch::begin_logging(), false)?;
    }
    sender.settle()
}

fn fail(name: &str, text: String) -> String {
    log::warning(format!("{text} reading the append only file {name}"));
    "Fatal error loading the DB, check server logs. Exiting.".to_string()
}

/// Loads a base file: a snapshot, commands, or a snapshot with commands behind it, as old servers wrote it.
fn load_base(
    log: &Log,
    sender: &Sender<'_>,
    config: &Config,
    dir: &Path,
    base: &FileInfo,
    last: bool,
) -> Result<(), String> {
    let (name, path) = (&base.name, dir.join(&base.name));
    let mut stream = Stream::open(&*log.disk, &path).map_err(|error| {
        format!("Fatal error: can't open the append log file {name} for reading: {}", os_text(&error))
    })?;
    let old_style = *name == config.appendfilename;
    let mut start = 0;
    if stream.begins_with(b"REDIS").map_err(|error| os_text(&error))? {
        log::notice(match old_style {
            true => "Reading RDB preamble from AOF file...",
            false => "Reading RDB base file on AOF loading...",
        });
        let hand_out = |owner: ShardId, batch: LoadBatch, offset: u64| {
            start = offset;
            crate::persistence::load::delay(config.key_load_delay, batch.keys());
            sender.send(owner, batch, false)
        };
        let read = distribute(&log.shared, &mut stream, config.rdbchecksum, true, hand_out);
        // What a shard found is the cause, when both complain.
        sender.settle().and(read.map(|end| start = end)).map_err(|text| {
            log::warning(text);
            match old_style {
                true => format!("Error reading the RDB preamble of the AOF file {name}, AOF loading aborted"),
                false => format!("Error reading the RDB base file {name}, AOF loading aborted"),
            }
        })?;
        if old_style {
            log::notice("Reading the remaining AOF tail...");
        }
    }
    // The commands behind it, or all of it: looked through first, as the logs are.
    let len = log.disk.len(&path).map_err(|error| os_text(&error))?;
    if start == len {
        return Ok(());
    }
    let mut scan = Scan::new(0, None);
    let mut ahead = Stream::open(&*log.disk, &path).map_err(|error| os_text(&error))?;
    ahead.skip(start).map_err(|error| os_text(&error))?;
    loop {
        let bytes = ahead.next().map_err(|error| os_text(&error))?;
        if bytes.is_empty() || !scan.feed(bytes, |_, _| {}) || scan.wanted() as u64 > len {
            break;
        }
    }
    let scanned = scan.finish();
    let looked = Looked { info: base.clone(), len: len - start, scanned, foreign: true };
    let limit = looked.scanned.valid;
    let torn = limit < looked.len;
    if torn && !last {
        return Err("Fatal error: the truncated file is not the last file".into());
    }
    if torn {
        let mut shifted = looked;
        shifted.scanned.valid += start;
        shifted.len += start;
        let cut = Recovered { generations: vec![vec![(shifted, limit + start)]], highest: 0 };
        cut.cut_off(&*log.disk, dir, config)?;
    }
    sender
        .send_log(&mut stream, (0, 1), limit, 0, true, config.key_load_delay)
        .and_then(|()| sender.settle())
        .map_err(|text| fail(name, text))
}

/// Opens the files that are written on: the last generation's if they are of this server's shape, else new ones.
pub(super) fn open(
    log: &Arc<Log>,
    config: &Config,
    dir: std::path::PathBuf,
    mut manifest: Manifest,
    recovered: &Recovered,
    others: bool,
) -> Result<(), String> {
    let disk = &*log.disk;
    let name = config.appendfilename.clone();
    disk.create_dir(&dir).map_err(|error| {
        format!("Can't open or create append-only dir {}: {}", config.appenddirname, os_text(&error))
    })?;
    if manifest.base.is_none() && manifest.increments.is_empty() {
        let base = manifest.new_base(&name, config.aof_use_rdb_preamble);
        make_empty_base(log, config, &dir.join(&base)).map_err(|error| {
            format!("Error moving temp append only file on the final destination: {}", os_text(&error))
        })?;
        log::notice(format!("Creating AOF base file {base} on server start"));
    }
    let shards = log.shared.shards;
    let last: Option<Vec<(FileInfo, u64)>> = recovered
        .generations
        .last()
        .filter(|last| last.len() == shards && !others)
        .map(|last| last.iter().map(|(looked, limit)| (looked.info.clone(), *limit)).collect());
    let opened = last.is_some();
    let infos = last.unwrap_or_else(|| {
        manifest.new_generation(&name, shards).into_iter().map(|info| (info, 0)).collect::<Vec<_>>()
    });
    let said = |info: &FileInfo, error: io::Error| {
        format!("Can't open the append-only file {}: {}", info.name, os_text(&error))
    };
    for (info, size) in &infos {
        let path = dir.join(&info.name);
        let file = if opened { disk.append(&path) } else { disk.create(&path) };
        let file = file.map_err(|error| said(info, error))?;
        let verb = if opened { "Opening" } else { "Creating" };
        log::notice(format!("{verb} AOF incr file {} on server start", info.name));
        let shard = info.shard.0 as usize;
        let file = OpenFile::new(file, info.name.clone(), journal::path_of(&dir, &name), 0, *size);
        log.writers[shard].give(file);
    }
    persist(disk, &dir, &name, &manifest)?;
    let mut files = log.files();
    *files = Files { dir, name, manifest, ..Files::default() };
    log.remove_history(&mut files, config);
    Ok(())
}

fn make_empty_base(log: &Log, config: &Config, path: &Path) -> io::Result<()> {
    let temporary = path.with_extension("temp");
    let mut file = log.disk.create(&temporary)?;
    if config.aof_use_rdb_preamble {
        let head = ringshard_shards::snapshot::file_head(&log.shared, config, clock::now().0, true);
        let sum = config.rdbchecksum.then(|| ringshard_shards::rdb::crc64::update(0, &head));
        file.write_all(&head)?;
        file.write_all(&ringshard_shards::rdb::file::tail(sum))?;
    }
    file.sync()?;
    log.disk.rename(&temporary, path)
}

/// Hands out all that the files hold, for [`ringshard_shards::shared::Host::read_logs`].
///
/// # Errors
/// What to say in the log.
pub fn read_all(
    log: &Log,
    config: &Config,
    take: &mut dyn FnMut(LogPart<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let disk = &*log.disk;
    let dir = dir_of(config);
    let manifest = read_manifest(disk, &dir, &config.appendfilename)?;
    let open = |name: &str| {
        Stream::open(disk, &dir.join(name)).map_err(|error| {
            format!("Fatal error: can't open the append log file {name} for reading: {}", os_text(&error))
        })
    };
    if manifest.base.is_none() && manifest.increments.is_empty() {
        return Err(format!("{} does not exist", manifest_path(&dir, &config.appendfilename).display()));
    }
    let recovered = recover(disk, &dir, &manifest, None)?;
    recovered.cut_off(disk, &dir, config)?;
    if let Some(base) = &manifest.base {
        let mut stream = open(&base.name)?;
        if stream.begins_with(b"REDIS").map_err(|error| os_text(&error))? {
            take(LogPart::Snapshot(&mut stream))?;
        }
        take(LogPart::Begin(0, 1))?;
        loop {
            let bytes = stream.next().map_err(|error| os_text(&error))?;
            if bytes.is_empty() {
                break;
            }
            take(LogPart::Bytes(bytes))?;
        }
    }
    for (looked, limit) in recovered.generations.iter().flatten() {
        let mut stream = open(&looked.info.name)?;
        take(LogPart::Begin(looked.info.shard.0, looked.info.shard.1))?;
        let mut left = *limit;
        while left > 0 {
            let bytes = stream.next().map_err(|error| os_text(&error))?;
            if bytes.is_empty() {
                break;
            }
            let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            take(LogPart::Bytes(&bytes[..taken]))?;
            left -= taken as u64;
        }
    }
    Ok(())
}
