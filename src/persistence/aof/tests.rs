//! Every step of the file system fails once, and the power goes at every step: what was acknowledged is found
//! afterwards, a command over two logs is in both or in none, and nothing half-written stands in the place of what was
//! good.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ringshard_shards::aof::journal::{PAGE, RECORD_MAX, Record};
use ringshard_shards::aof::manifest::Manifest;
use ringshard_shards::aof::read::{Parsed, parse};
use ringshard_shards::config::{AppendFsync, Config};
use ringshard_shards::core::Rng;
use ringshard_shards::propagate::{EffectLog, write_command};
use ringshard_shards::shared::{Host, HostFacts, LogPart, Shared};
use ringshard_shards::snapshot::SnapshotFile;

use super::journal::{Journal, Part, bytes_missing, path_of, replay};
use super::load::{open, read_all, recover};
use super::{Log, dir_of, read_manifest};
use crate::persistence::disk::{BlockFile, Disk, DiskFile, RealDisk, SyncHandle};
use crate::persistence::pages::Pages;
use crate::persistence::rdb::SnapshotOnDisk;

/// What the failing step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// It fails, and later ones work.
    Once,
    /// A write writes half of its bytes; other steps fail.
    Short,
    /// It fails, and so does everything after it.
    Forever,
    /// The same, and a write has begun.
    Torn,
}

#[derive(Clone, Default)]
struct Content {
    /// What a reader sees.
    bytes: Vec<u8>,
    /// What is left when the power goes.
    durable: Vec<u8>,
    /// Bytes that a failed sync has given up: no later one writes them.
    lost: Vec<(usize, usize)>,
}

#[derive(Default)]
struct State {
    contents: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    steps: usize,
    fails_at: usize,
    failure: Option<Failure>,
    failed: bool,
    /// Steps take a while, up to so many µs, so that others overtake them.
    slow: Option<(Rng, u64)>,
    /// The next write of a journal fails.
    journal_fails: bool,
}

/// A disk in memory.
#[derive(Clone, Default)]
struct FakeDisk(Arc<Mutex<State>>);

/// An open file: of which disk, which of its contents, and of how many failed syncs it was told.
struct FakeFile(FakeDisk, usize, AtomicUsize);

fn error() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

impl FakeDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Counts a step that changes something, and fails if it is its turn. A short write says so by `Ok(true)`.
    fn step(&self) -> io::Result<bool> {
        let mut state = self.state();
        state.steps += 1;
        let first = state.steps == state.fails_at;
        let due = first || (state.failed && matches!(state.failure, Some(Failure::Forever | Failure::Torn)));
        if !due {
            return Ok(false);
        }
        state.failed = true;
        match state.failure {
            Some(Failure::Short) => Ok(true),
            Some(Failure::Torn) if first => Ok(true),
            _ => Err(error()),
        }
    }

    /// Takes its time, if the disk is slow.
    fn dawdle(&self) {
        let us = self.state().slow.as_mut().map(|(rng, most)| rng.below(*most));
        us.iter().for_each(|us| std::thread::sleep(Duration::from_micros(*us)));
    }

    fn plain_step(&self) -> io::Result<()> {
        if self.step()? { Err(error()) } else { Ok(()) }
    }

    /// What a restart finds: after a crash of the process, or of the machine.
    fn after(&self, power_is_lost: bool) -> FakeDisk {
        let state = self.state();
        let names = if power_is_lost { &state.durable_names } else { &state.names };
        let mut found = State::default();
        for (path, at) in names {
            let content = &state.contents[*at];
            let bytes = if power_is_lost { content.durable.clone() } else { content.bytes.clone() };
            found.contents.push(Content { durable: bytes.clone(), bytes, lost: Vec::new() });
            found.names.insert(path.clone(), found.contents.len() - 1);
        }
        found.durable_names = found.names.clone();
        FakeDisk(Arc::new(Mutex::new(found)))
    }

    fn file(&self, at: usize) -> FakeFile {
        let lost = self.state().contents[at].lost.len();
        FakeFile(self.clone(), at, AtomicUsize::new(lost))
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.state().names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl FakeFile {
    fn sync_opened(&self) -> io::Result<()> {
        let FakeFile(disk, at, told) = self;
        let to = disk.state().contents[*at].bytes.len();
        disk.dawdle();
        let result = disk.plain_step();
        let content = &mut disk.state().contents[*at];
        let from = content.durable.len();
        let to = to.min(content.bytes.len());
        if result.is_err() {
            content.lost.push((from, to));
        }
        // As the kernel has it: pages that could not be written are clean from then on,
        content.durable.extend_from_slice(&content.bytes[from.min(to)..to]);
        for (from, to) in &content.lost {
            let to = (*to).min(content.durable.len());
            content.durable[(*from).min(to)..to].fill(0);
        }
        // and whoever has the file open is told once.
        let told = told.swap(content.lost.len(), Relaxed);
        if content.lost.len() > told { Err(error()) } else { result }
    }
}

impl DiskFile for FakeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = if self.0.step()? { bytes.len() / 2 } else { bytes.len() };
        self.0.state().contents[self.1].bytes.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_opened()
    }

    fn sync_handle(&self) -> Option<SyncHandle> {
        let file = self.0.file(self.1);
        Some(Arc::new(move || file.sync_opened()))
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.plain_step()?;
        let content = &mut self.0.state().contents[self.1];
        content.bytes.truncate(len as usize);
        content.durable.truncate(len as usize);
        Ok(())
    }
}

struct FakeBlocks(FakeFile);

impl BlockFile for FakeBlocks {
    fn write_at(&self, pages: &Pages, offset: u64) -> io::Result<()> {
        let FakeBlocks(FakeFile(disk, at, _)) = self;
        let (from, torn) = (offset as usize, 20);
        let write = |to: usize| {
            let content = &mut disk.state().contents[*at];
            // Zeros at the end are left out.
            content.bytes.resize(content.bytes.len().max(from + to), 0);
            content.bytes[from..from + to].copy_from_slice(&pages[..to]);
            content.durable.clone_from(&content.bytes);
        };
        if disk.state().slow.is_some() {
            write(torn);
        }
        disk.dawdle();
        let short = disk.step()? || std::mem::take(&mut disk.state().journal_fails);
        // Not even the record's head.
        write(if short { torn } else { pages.len() });
        if short { Err(error()) } else { Ok(()) }
    }
}

impl Disk for FakeDisk {
    fn create_blocks(&self, path: &Path, pages: &Pages, _: u64) -> io::Result<Option<Arc<dyn BlockFile>>> {
        self.create(path)?;
        let file = self.file(self.find(path)?);
        let file = FakeBlocks(file);
        file.write_at(pages, 0)?;
        Ok(Some(Arc::new(file)))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.plain_step()?;
        let at = {
            let mut state = self.state();
            state.contents.push(Content::default());
            let at = state.contents.len() - 1;
            state.names.insert(path.into(), at);
            at
        };
        Ok(Box::new(self.file(at)))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.plain_step()?;
        Ok(Box::new(self.file(self.find(path)?)))
    }

    fn open_at(&self, path: &Path, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let at = self.find(path)?;
        let mut bytes = io::Cursor::new(self.state().contents[at].bytes.clone());
        bytes.set_position(offset);
        Ok(Box::new(bytes))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        let at = self.find(path)?;
        Ok(self.state().contents[at].bytes.len() as u64)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.plain_step()?;
        let mut state = self.state();
        let at = state.names.remove(from).ok_or_else(error)?;
        state.names.insert(to.into(), at);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.plain_step()?;
        self.state().names.remove(path).ok_or_else(error)?;
        // The worst case: it is gone from the disk at once.
        self.state().durable_names.remove(path);
        Ok(())
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let at = self.find(path)?;
        self.file(at).truncate(len)
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        self.plain_step()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.plain_step()?;
        let mut state = self.state();
        state.durable_names = state.names.clone();
        Ok(())
    }
}

struct NoHost;

impl Host for NoHost {
    fn ticks(&self) -> fn() -> u64 {
        || 0
    }

    fn ticks_per_us(&self) -> f64 {
        1.0
    }

    fn used_memory(&self) -> usize {
        0
    }

    fn facts(&self) -> HostFacts {
        HostFacts::default()
    }

    fn purge(&self) {}

    fn secret(&self, _: &mut [u8]) {}
}

const SHARDS: usize = 2;
/// Keys that a run writes.
const KEYS: usize = 30;

/// A server's logs, without a server: two logs, what was written, and what was acknowledged.
struct Scene {
    log: Arc<Log>,
    config: Config,
    died: Arc<AtomicBool>,
    logs: [EffectLog; SHARDS],
    /// Keys in the order written: their name, by log the position behind them.
    written: Vec<(String, Vec<(usize, u64)>)>,
    acknowledged: Vec<String>,
    /// Keys that were there at the start.
    before: Vec<String>,
    generation: u64,
}

impl Scene {
    /// Opens what is on the disk, or fails as a start of the server would.
    fn start(disk: &FakeDisk, policy: AppendFsync) -> Result<Scene, String> {
        let config = Config {
            appendonly: true,
            appendfsync: policy,
            aof_use_rdb_preamble: false,
            dir: "/data".into(),
            ..Config::default()
        };
        let shared = Arc::new(Shared::new(config.clone(), SHARDS, [1, 2], 0, Arc::new(NoHost)));
        let died = Arc::new(AtomicBool::new(false));
        let (dead, doomed) = (died.clone(), disk.clone());
        let die = Box::new(move || {
            dead.store(true, SeqCst);
            // Nothing happens any more.
            let mut state = doomed.state();
            (state.failure, state.failed) = (Some(Failure::Forever), true);
        });
        let log = Log::start(shared.clone(), Arc::new(disk.clone()), Box::new(|_| {}), die).unwrap();
        let scene = Scene {
            log,
            config: config.clone(),
            died,
            logs: Default::default(),
            written: Vec::new(),
            acknowledged: Vec::new(),
            before: Vec::new(),
            generation: 0,
        };
        let dir = dir_of(&config);
        let manifest = read_manifest(disk, &dir, &config.appendfilename)?;
        replay(disk, &dir, &config.appendfilename, &manifest)?;
        let recovered = recover(disk, &dir, &manifest, None)?;
        recovered.cut_off(disk, &dir, &config)?;
        open(&scene.log, &config, dir, manifest, &recovered, false)?;
        shared.aof.set_state(ringshard_shards::aof::State::On);
        Ok(scene)
    }

    /// Writes a key to one log, or to both as one command.
    fn write(&mut self, name: String, to: &[usize]) {
        let words = [&b"SET"[..], name.as_bytes(), b"1"];
        for shard in to {
            self.logs[*shard].open_group();
            self.logs[*shard].append(0, words.into_iter());
        }
        let number = self.log.shared.aof.next_number();
        for shard in to {
            match to.len() {
                1 => self.logs[*shard].close_group(),
                _ => self.logs[*shard].close_spanning_group(number, &Arc::from([0, 1])),
            }
        }
        let ends = to.iter().map(|shard| (*shard, self.logs[*shard].position())).collect();
        self.written.push((name, ends));
        for shard in to {
            for piece in self.logs[*shard].take_pieces(*shard as u16) {
                self.log.shared.aof.hand_over(&piece);
                self.log.append(piece);
            }
        }
    }

    /// Lets the threads write and sync.
    fn settle(&mut self) {
        if self.config.appendfsync == AppendFsync::Always {
            // As clients wait.
            let began = std::time::Instant::now();
            let aof = &self.log.shared.aof;
            let ends = [0, 1].map(|shard| self.logs[shard].position());
            while !self.died.load(SeqCst) && (0..SHARDS).any(|shard| aof.stable(shard) < ends[shard]) {
                std::thread::yield_now();
                assert!(began.elapsed().as_secs() < 60, "a writer hangs: {ends:?}");
            }
        } else {
            let _ = self.log.flush(true);
        }
        self.note();
    }

    /// Notes what may be told of.
    fn note(&mut self) {
        if !self.died.load(SeqCst) {
            let aof = &self.log.shared.aof;
            let stable = |ends: &[(usize, u64)]| ends.iter().all(|(shard, end)| *end <= aof.stable(*shard));
            let told = self.written.iter().filter(|(_, ends)| stable(ends)).map(|(name, _)| name.clone());
            let told: Vec<String> = told.collect();
            self.acknowledged.extend(told);
            self.acknowledged.sort();
            self.acknowledged.dedup();
        }
    }

    /// A rewrite, with all that was written so far in the base file.
    fn rewrite(&mut self) {
        let generation = self.generation + 1;
        if self.log.begin_generation(&self.config, generation, false).is_err() {
            return;
        }
        self.generation = generation;
        for (shard, log) in self.logs.iter_mut().enumerate() {
            log.cut(shard as u16, generation);
        }
        let made = SnapshotOnDisk::create_base(&self.log, &self.config, generation);
        let Ok(mut file) = made else { return };
        let mut bytes = Vec::new();
        for name in self.written.iter().map(|(name, _)| name).chain(&self.before) {
            write_command(&mut bytes, [&b"SET"[..], name.as_bytes(), b"1"].into_iter());
        }
        if file.write(&bytes).is_ok() {
            let _ = Box::new(file).finish();
        }
    }

    fn run(&mut self, round: &str) {
        for n in 0..KEYS {
            match n % 3 {
                0 => self.write(format!("{round}{n}"), &[0]),
                1 => self.write(format!("{round}{n}"), &[0, 1]),
                _ => self.write(format!("{round}{n}"), &[1]),
            }
            self.settle();
            if n == 8 || n == 20 {
                self.rewrite();
            }
        }
        self.log.stop();
    }
}

/// How often each key is told of in what a restart finds; in a base file once counts for all logs.
fn found(disk: &FakeDisk, config: &Config, which: &str) -> Result<HashMap<String, usize>, String> {
    let policy = config.appendfsync;
    let scene = Scene::start(disk, policy).map_err(|text| format!("{which}: the server does not start: {text}"))?;
    scene.log.stop();
    let mut keys: HashMap<String, usize> = HashMap::new();
    let (mut base, mut bytes) = (true, Vec::new());
    let mut files: Vec<(bool, Vec<u8>)> = Vec::new();
    read_all(&scene.log, config, &mut |part| {
        match part {
            LogPart::Begin(..) => {
                files.push((base, std::mem::take(&mut bytes)));
                base = false;
            }
            LogPart::Bytes(more) => files.last_mut().expect("a file has begun").1.extend_from_slice(more),
            LogPart::Snapshot(_) => unreachable!("bases are of commands here"),
        }
        Ok(())
    })?;
    for (n, (_, bytes)) in files.iter().enumerate() {
        let mut at = 0;
        while at < bytes.len() {
            let mut refs = Vec::new();
            match parse(&bytes[at..], &mut refs) {
                Parsed::Command { end } => {
                    let words: Vec<&[u8]> =
                        refs.iter().map(|r| &bytes[at + r.start as usize..][..r.len as usize]).collect();
                    if words[0] == b"SET" {
                        let name = String::from_utf8(words[1].to_vec()).unwrap();
                        // The first file is the base.
                        *keys.entry(name).or_default() += if n == 0 { 10 } else { 1 };
                    }
                    at += end;
                }
                Parsed::Note { end } => at += end,
                other => return Err(format!("{which}: what is loaded is broken: {other:?}")),
            }
        }
    }
    Ok(keys)
}

fn check(scene: &Scene, disk: &FakeDisk, what: &str) {
    let gave_up = disk.state().contents.iter().any(|content| !content.lost.is_empty());
    // Before anything that goes on has ended.
    for (power_is_lost, after) in [true, false].map(|lost| (lost, disk.after(lost))) {
        let which = format!("{what}, power lost: {power_is_lost}");
        let keys = match found(&after, &scene.config, &which) {
            Err(text) if power_is_lost && text.contains("Bad file format") && gave_up => {
                // A sync has failed, what it was for is gone, and the power went before a rewrite made up for it: the
                // log has a hole, and what is behind it was not acknowledged.
                let dir = dir_of(&scene.config);
                let manifest = read_manifest(&after, &dir, &scene.config.appendfilename).unwrap();
                super::check::fix_quietly(&after, &dir, &manifest);
                found(&after, &scene.config, &which)
            }
            keys => keys,
        };
        let keys = keys.unwrap_or_else(|text| panic!("{text}"));
        for name in &scene.acknowledged {
            assert!(keys.contains_key(name), "{which}: {name} was acknowledged and is gone: {keys:?}");
        }
        for (name, ends) in &scene.written {
            if let Some(count) = keys.get(name) {
                assert!(*count >= 10 || *count == ends.len(), "{which}: half of {name}: {keys:?}");
            }
        }
    }
}

#[test]
fn whatever_step_fails_what_was_acknowledged_is_found() {
    for policy in [AppendFsync::Always, AppendFsync::Everysec] {
        for failure in [Failure::Once, Failure::Short, Failure::Forever, Failure::Torn] {
            let (mut fails_at, mut acknowledged) = (1, 0);
            loop {
                let disk = FakeDisk::default();
                let what = format!("{policy:?}, {failure:?} at step {fails_at}");
                {
                    let mut state = disk.state();
                    (state.fails_at, state.failure) = (fails_at, Some(failure));
                }
                match Scene::start(&disk, policy) {
                    Ok(mut scene) => {
                        scene.run("a");
                        acknowledged = scene.acknowledged.len();
                        disk.state().failure = None;
                        check(&scene, &disk, &what);
                    }
                    // Nothing was promised; the next start works.
                    Err(_) => {
                        disk.state().failure = None;
                        for power_is_lost in [false, true] {
                            let after = disk.after(power_is_lost);
                            let scene = Scene::start(&after, policy).unwrap_or_else(|text| panic!("{what}: {text}"));
                            scene.log.stop();
                        }
                    }
                }
                if !disk.state().failed {
                    break;
                }
                fails_at += 1;
            }
            assert!(fails_at > 40, "steps were counted: {fails_at}");
            assert_eq!(acknowledged, KEYS, "when nothing fails everything is acknowledged");
        }
    }
}

/// Writes to both logs while steps take up to so many µs; what was acknowledged is found at any moment.
fn write_to_a_slow_disk(most_us: u64, writes: usize) {
    let disk = FakeDisk::default();
    disk.state().slow = Some((Rng::new(1), most_us));
    let mut scene = Scene::start(&disk, AppendFsync::Always).unwrap();
    let mut rng = Rng::new(2);
    for n in 0..writes {
        // Now and then more than a journal has room for.
        let long = [1_000, 5_000, 9_000, 70_000].get(rng.below(40) as usize).copied().unwrap_or(0);
        let to: &[usize] = [&[0][..], &[1], &[0, 1]][rng.below(3) as usize];
        scene.write(format!("{n}{}", "x".repeat(long)), to);
        match n % 500 {
            // Until there are new files the logs do without a journal.
            300 => disk.state().journal_fails = true,
            400 => scene.rewrite(),
            _ => {}
        }
        match rng.below(20) {
            0 => scene.settle(),
            _ => std::thread::sleep(Duration::from_micros(rng.below(60))),
        }
        if rng.below(4) == 0 {
            scene.note();
            check(&scene, &disk, &format!("key {n}"));
        }
    }
    scene.settle();
    assert_eq!(scene.acknowledged.len(), writes);
    scene.log.stop();
    assert!(
        !disk.exists(&path_of(&dir_of(&scene.config), &scene.config.appendfilename)),
        "a clean end leaves no journal"
    );
}

#[test]
fn what_was_acknowledged_is_found_while_syncs_overtake_each_other() {
    write_to_a_slow_disk(500, 1500);
}

#[test]
fn what_was_acknowledged_is_found_while_one_thread_leads() {
    write_to_a_slow_disk(50, 1000);
}

#[test]
fn a_restart_in_which_a_step_fails_loses_nothing_either() {
    // Two runs after each other; the second one's start has what the first has left, torn.
    for failure in [Failure::Once, Failure::Forever, Failure::Torn] {
        let mut fails_at = 1;
        loop {
            let disk = FakeDisk::default();
            let mut first = Scene::start(&disk, AppendFsync::Always).unwrap();
            first.run("a");
            // A half of a command over both logs.
            first
                .log
                .disk
                .append(Path::new("/data/appendonlydir/appendonly.aof.5.incr.aof"))
                .unwrap()
                .write(b"#RS")
                .unwrap();
            {
                let mut state = disk.state();
                (state.fails_at, state.failure) = (state.steps + fails_at, Some(failure));
            }
            if let Ok(mut second) = Scene::start(&disk, AppendFsync::Always) {
                second.before = first.acknowledged.clone();
                second.run("b");
                disk.state().failure = None;
                check(&second, &disk, &format!("second, {failure:?} at {fails_at}"));
            }
            disk.state().failure = None;
            check(&first, &disk, &format!("first, {failure:?} at {fails_at}"));
            if !disk.state().failed {
                break;
            }
            fails_at += 1;
        }
        assert!(fails_at > 40);
    }
}

/// A part of the log of `shard`.
fn part<'a>(shard: usize, bytes: &'a [u8], from: u64, durable: u64) -> Part<'a> {
    let name = ["log.1.incr.aof", "log.2.incr.aof"][shard];
    Part { shard, name, from, to: from + bytes.len() as u64, durable, shift: 0, bytes }
}

/// Writes what waits in a journal, if anything does.
fn write_out(journal: &mut Journal) -> bool {
    let Some(write) = journal.take() else { return false };
    write.run().unwrap();
    journal.reuse(write);
    true
}

#[test]
fn a_journal_adds_what_a_log_lacks_and_no_more() {
    let dir = Path::new("/data");
    let manifest = Manifest::parse(b"file log.1.incr.aof seq 1 type i\n").unwrap();
    let path = dir.join("log.1.incr.aof");
    // Up to here the log's file is on disk, behind it there are two records.
    let text = b"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nINCR\r\n*1\r\n$4\r\nDECR\r\n";
    let scene = |there: &[u8]| {
        let disk = FakeDisk::default();
        disk.create(&path).unwrap().write_all(there).unwrap();
        let mut journal = Journal::create(&disk, &path_of(dir, "log"), [7; 16], 1).unwrap().unwrap();
        for (from, to) in [(14, 28), (28, 42)] {
            assert!(journal.add(&part(0, &text[from..to], from as u64, 14)) && write_out(&mut journal));
        }
        disk
    };
    let replayed = |there: &[u8]| {
        let disk = scene(there);
        let missing = bytes_missing(&disk, dir, "log", &manifest);
        let result = replay(&disk, dir, "log", &manifest);
        assert_eq!(missing.is_err(), result.is_err());
        assert_eq!(disk.exists(&path_of(dir, "log")), result.is_err(), "it is gone when all is made good");
        result.map(|()| (missing.unwrap(), disk.after(true).read(&path).unwrap()))
    };
    assert_eq!(replayed(&text[..14]), Ok((28, text.to_vec())));
    assert_eq!(replayed(&text[..33]), Ok((9, text.to_vec())));
    assert_eq!(replayed(text), Ok((0, text.to_vec())));
    // Written, and not acknowledged.
    let more = [&text[..], b"*1\r\n"].concat();
    assert_eq!(replayed(&more), Ok((0, more.clone())));
    // Its length reached the disk, and what stands there did not.
    let mut hole = text.to_vec();
    hole[20..].fill(0);
    assert_eq!(replayed(&hole), Ok((22, text.to_vec())));
    assert_eq!(replayed(&[&text[..], &[0; 5]].concat()), Ok((0, text.to_vec())));
    assert_eq!(replayed(&[&text[..], b"*1", &[0; 9]].concat()), Ok((0, [&text[..], b"*1"].concat())));
    // Cut off, or an older copy.
    assert_eq!(replayed(&text[..13]), Ok((0, text[..13].to_vec())));
    // Another file of this name.
    let other = [&text[..14], &text[28..]].concat();
    assert!(replayed(&other).unwrap_err().contains("do not belong together"));
}

#[test]
fn a_record_goes_on_where_the_log_is_on_disk() {
    let disk = FakeDisk::default();
    let mut journal = Journal::create(&disk, &path_of(Path::new("/data"), "log"), [7; 16], 2).unwrap().unwrap();
    let mut added = |part: Part<'_>| {
        let added = journal.add(&part);
        assert_eq!(write_out(&mut journal), added);
        added
    };
    let ten = &[b'x'; 10];
    assert!(added(part(0, ten, 100, 100)));
    assert!(added(part(0, ten, 110, 100)), "behind the last one");
    assert!(!added(part(1, ten, 120, 100)), "that was another log's");
    assert!(!added(part(0, ten, 121, 100)), "a byte is missing before it");
    assert!(!added(Part { to: 131, ..part(0, ten, 120, 100) }), "a byte is missing in it");
    assert!(added(part(0, ten, 130, 135)), "the log's file holds what is before it");
    assert!(!added(part(0, &vec![b'x'; RECORD_MAX + 1], 140, 140)), "too much for a record");
}

#[test]
fn records_of_several_logs_are_one_write() {
    let (disk, dir) = (FakeDisk::default(), Path::new("/data"));
    let names = ["log.1.incr.aof", "log.2.incr.aof"];
    let text = names.map(|name| format!("file {name} seq {} type i\n", &name[4..5])).concat();
    let manifest = Manifest::parse(text.as_bytes()).unwrap();
    names.iter().for_each(|name| disk.create(&dir.join(name)).unwrap().write_all(b"+").unwrap());
    let path = path_of(dir, "log");
    let mut journal = Journal::create(&disk, &path, [7; 16], 2).unwrap().unwrap();
    let steps = || disk.state().steps;
    let before = steps();
    for record in [part(0, b"one", 1, 1), part(1, b"ONE", 1, 1), part(0, b" two", 4, 1)] {
        assert!(journal.add(&record));
    }
    assert!(!journal.is_quiet());
    assert!(write_out(&mut journal) && !write_out(&mut journal) && journal.is_quiet());
    assert_eq!(steps() - before, 1);
    // What a longer write left in a buffer does not travel with a shorter one.
    assert!(journal.add(&part(1, b"!", 4, 1)) && write_out(&mut journal));
    let second = disk.read(&path).unwrap()[2 * PAGE..].to_vec();
    let end = second.iter().rposition(|byte| *byte != 0).unwrap();
    assert_eq!(end + 1, Record::len(names[1], 1));
    replay(&disk, dir, "log", &manifest).unwrap();
    let found = names.map(|name| disk.after(true).read(&dir.join(name)).unwrap());
    assert_eq!(found, [b"+one two".to_vec(), b"+ONE!".to_vec()]);
}

#[test]
fn pages_are_taken_again_when_all_logs_have_what_they_tell() {
    let disk = FakeDisk::default();
    let mut journal = Journal::create(&disk, &path_of(Path::new("/data"), "log"), [7; 16], 2).unwrap().unwrap();
    // Eight pages; a write of both logs takes one, as one of one log does.
    for n in 0..8 {
        assert!(journal.add(&part(0, b"0123456789", 10 * n, 0)));
        assert!(n > 0 || journal.add(&part(1, b"x", 0, 0)));
        assert_eq!(journal.is_half_full(), n > 4);
        assert!(write_out(&mut journal));
    }
    let next = part(0, b"0123456789", 80, 80);
    assert!(!journal.add(&next), "all are taken");
    // The first log's file has all; the second one's record stands in the first page, and is needed still.
    journal.free(|shard| [80, 0][shard], |_| 0);
    assert!(!journal.add(&next));
    journal.free(|shard| [79, 1][shard], |_| 0);
    assert!(!journal.add(&next), "no record says so of the first log");
    journal.free(|shard| [79, 1][shard], |shard| [10, 0][shard]);
    assert!(journal.add(&next) && write_out(&mut journal));
    let next = part(0, b"0123456789", 90, 90);
    assert!(!journal.add(&next));
    journal.free(|shard| [90, 1][shard], |_| 0);
    assert!(journal.add(&next));
    let write = journal.take().unwrap();
    journal.free(|shard| [100, 1][shard], |_| 100);
    assert!(!journal.is_quiet(), "it is being written");
    journal.reuse(write);
    assert!(journal.is_quiet());
}

#[test]
fn a_journal_on_a_real_disk_adds_what_a_log_lacks() {
    // Beside what cargo builds: the system's directory for temporary files may be memory.
    let dir = std::env::current_exe().unwrap().with_file_name(format!("journal-{}", std::process::id()));
    RealDisk.create_dir(&dir).unwrap();
    let manifest = Manifest::parse(b"file log.1.incr.aof seq 1 type i\n").unwrap();
    let path = dir.join("log.1.incr.aof");
    let text: Vec<u8> = (0..9_000u32).map(|n| (n % 251) as u8).collect();
    RealDisk.create(&path).unwrap().write_all(&text[..100]).unwrap();
    if let Some(mut journal) = Journal::create(&RealDisk, &path_of(&dir, "log"), [7; 16], 1).unwrap() {
        for (from, to) in [(100, 200), (200, 9_000)] {
            assert!(journal.add(&part(0, &text[from..to], from as u64, 100)) && write_out(&mut journal));
        }
        replay(&RealDisk, &dir, "log", &manifest).unwrap();
        assert!(RealDisk.read(&path).unwrap() == text);
        assert!(!RealDisk.exists(&path_of(&dir, "log")));
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
