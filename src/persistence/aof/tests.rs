//! Every step of the file system fails once, and the power goes at every step: what was acknowledged is found
//! afterwards, a command over two logs is in both or in none, and nothing half-written stands in the place of what was
//! good.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard};

use ringshard_shards::aof::read::{Parsed, parse};
use ringshard_shards::config::{AppendFsync, Config};
use ringshard_shards::propagate::{EffectLog, write_command};
use ringshard_shards::shared::{Host, HostFacts, LogPart, Shared};
use ringshard_shards::snapshot::SnapshotFile;

use super::load::{open, read_all, recover};
use super::{Log, dir_of, read_manifest};
use crate::persistence::disk::{Disk, DiskFile};
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
}

/// A disk in memory.
#[derive(Clone, Default)]
struct FakeDisk(Arc<Mutex<State>>);

struct FakeFile(FakeDisk, usize);

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
        let due = state.steps == state.fails_at || (state.failed && state.failure == Some(Failure::Forever));
        if !due {
            return Ok(false);
        }
        state.failed = true;
        match state.failure {
            Some(Failure::Short) => Ok(true),
            _ => Err(error()),
        }
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

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.state().names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl DiskFile for FakeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = if self.0.step()? { bytes.len() / 2 } else { bytes.len() };
        self.0.state().contents[self.1].bytes.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn sync(&mut self) -> io::Result<()> {
        let result = self.0.plain_step();
        let content = &mut self.0.state().contents[self.1];
        let (from, to) = (content.durable.len(), content.bytes.len());
        if result.is_err() {
            content.lost.push((from, to));
        }
        // As the kernel has it: pages that could not be written are clean from then on.
        content.durable.extend_from_slice(&content.bytes[from.min(to)..]);
        for (from, to) in &content.lost {
            let to = (*to).min(content.durable.len());
            content.durable[(*from).min(to)..to].fill(0);
        }
        result
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.plain_step()?;
        let content = &mut self.0.state().contents[self.1];
        content.bytes.truncate(len as usize);
        content.durable.truncate(len as usize);
        Ok(())
    }
}

impl Disk for FakeDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.plain_step()?;
        let mut state = self.state();
        state.contents.push(Content::default());
        let at = state.contents.len() - 1;
        state.names.insert(path.into(), at);
        Ok(Box::new(FakeFile(self.clone(), at)))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.plain_step()?;
        Ok(Box::new(FakeFile(self.clone(), self.find(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        let at = self.find(path)?;
        Ok(Box::new(io::Cursor::new(self.state().contents[at].bytes.clone())))
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
        FakeFile(self.clone(), at).truncate(len)
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

    /// Lets the threads write and sync, and notes what may be told of.
    fn settle(&mut self) {
        let _ = self.log.flush(true);
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
        for n in 0..9 {
            match n % 3 {
                0 => self.write(format!("{round}{n}"), &[0]),
                1 => self.write(format!("{round}{n}"), &[0, 1]),
                _ => self.write(format!("{round}{n}"), &[1]),
            }
            self.settle();
            if n == 2 || n == 5 {
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
    for power_is_lost in [false, true] {
        let which = format!("{what}, power lost: {power_is_lost}");
        let after = disk.after(power_is_lost);
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
        for failure in [Failure::Once, Failure::Short, Failure::Forever] {
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
            assert_eq!(acknowledged, 9, "when nothing fails everything is acknowledged");
        }
    }
}

#[test]
fn a_restart_in_which_a_step_fails_loses_nothing_either() {
    // Two runs after each other; the second one's start has what the first has left, torn.
    for failure in [Failure::Once, Failure::Forever] {
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
