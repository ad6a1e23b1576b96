//! The append-only log as files: which there are, and when one takes the place of another. What stands in them is the
//! machine's affair (`ringshard_shards::aof`).
//!
//! Each shard's log is written by threads of its own ([`writer`]), so no loop ever waits for a disk; under `always` all
//! of them are on disk by one sync of one journal ([`group`], [`journal`]). [`Log`] owns the manifest, whose change is
//! the one step by which files begin and cease to count: what it names is complete and on disk before it is, and what
//! it no longer names is removed after. [`load`] reads all that it names at the start.
//!
//! Counterpart: the parts of `aof.c` that touch the disk.

pub mod check;
mod group;
pub mod journal;
pub mod load;
mod pen;
mod syncs;
pub mod writer;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::*;
use std::sync::{Arc, Mutex, MutexGuard};

use ringshard_shards::aof::State as LogState;
use ringshard_shards::aof::manifest::{BadManifest, FileInfo, Manifest};
use ringshard_shards::config::Config;
use ringshard_shards::propagate::Piece;
use ringshard_shards::shared::Shared;

use super::disk::{Disk, DiskFile};
use crate::log;
use crate::net::os_text;
use group::Group;
use pen::OpenFile;
use writer::Writer;

/// The files of the log; see the module's page.
pub struct Log {
    pub(super) shared: Arc<Shared>,
    pub(super) disk: Arc<dyn Disk>,
    files: Mutex<Files>,
    writers: Vec<Arc<Writer>>,
    group: Group,
    /// Bytes of each generation's logs.
    sizes: Mutex<BTreeMap<u64, u64>>,
    /// Tells a shard that more is on disk.
    wake: Box<dyn Fn(usize) + Send + Sync>,
    /// Ends the process: what was promised cannot be kept.
    die: Box<dyn Fn() + Send + Sync>,
}

/// What the manifest says, and what it will say.
#[derive(Default)]
struct Files {
    dir: PathBuf,
    name: String,
    manifest: Manifest,
    /// The manifest's file does not say so yet.
    dirty: bool,
    /// What is to be said when the base file of a log that was turned on is whole, and its generation.
    coming: Option<(u64, Manifest)>,
    /// Files that were made and have not been written to yet, by generation and shard.
    fresh: HashMap<(u64, usize), (FileInfo, Box<dyn DiskFile>)>,
    /// The first number of each generation.
    first_seq: BTreeMap<u64, u64>,
}

/// The directory of the log's files.
pub fn dir_of(config: &Config) -> PathBuf {
    Path::new(&config.dir).join(&config.appenddirname)
}

/// The manifest's path.
pub fn manifest_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.manifest"))
}

/// Says what is wrong with a manifest, as Redis does.
pub fn say_bad_manifest(BadManifest(line, text, reason): &BadManifest) -> String {
    let mut said = "\n*** FATAL AOF MANIFEST FILE ERROR ***\n".to_string();
    if *line > 0 && !text.is_empty() {
        said.push_str(&format!("Reading the manifest file, at line {line}\n>>> '{text}'\n"));
    }
    said + reason
}

/// Reads the manifest; an empty one where there is none.
///
/// # Errors
/// What to say in the log.
pub fn read_manifest(disk: &dyn Disk, dir: &Path, name: &str) -> Result<Manifest, String> {
    let path = manifest_path(dir, name);
    match disk.read(&path) {
        Ok(text) => Manifest::parse(&text).map_err(|bad| say_bad_manifest(&bad)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Manifest::default()),
        Err(error) => Err(format!(
            "Fatal error: can't open the AOF manifest file {} for reading: {}",
            path.display(),
            os_text(&error)
        )),
    }
}

/// Writes a manifest beside the last one, forces it to disk and puts it in that one's place.
fn persist(disk: &dyn Disk, dir: &Path, name: &str, manifest: &Manifest) -> Result<(), String> {
    let temporary = dir.join(format!("temp-{name}.manifest"));
    let path = manifest_path(dir, name);
    let said = |what: &str, error: io::Error| format!("{what} {}: {}", temporary.display(), os_text(&error));
    let mut file = disk.create(&temporary).map_err(|error| said("Can't open the AOF manifest file", error))?;
    let text = manifest.text();
    let written = file.write_all(text.as_bytes());
    written.map_err(|error| said("Error trying to write the temporary AOF manifest file", error))?;
    file.sync().map_err(|error| said("Fail to fsync the temp AOF file", error))?;
    let moved = disk.rename(&temporary, &path);
    moved.map_err(|error| said("Error trying to rename the temporary AOF manifest file", error))?;
    disk.sync_dir(dir).map_err(|error| format!("Fail to fsync AOF directory {}: {}.", dir.display(), os_text(&error)))
}

impl Log {
    /// No files, and idle threads to write them.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        shared: Arc<Shared>,
        disk: Arc<dyn Disk>,
        wake: Box<dyn Fn(usize) + Send + Sync>,
        die: Box<dyn Fn() + Send + Sync>,
    ) -> io::Result<Arc<Log>> {
        let writers = (0..shared.shards).map(|_| Arc::new(Writer::default())).collect();
        let (group, files, sizes) = (Group::new(shared.shards), Mutex::default(), Mutex::default());
        let log = Arc::new(Log { shared, disk, files, writers, group, sizes, wake, die });
        for shard in 0..log.writers.len() {
            Writer::start(&log, shard)?;
        }
        Ok(log)
    }

    /// Where its files are.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Takes what a shard's log has to write.
    pub fn append(&self, piece: Piece) {
        self.writers[piece.shard as usize].push(piece, &self.group);
    }

    /// Waits until all that was taken is written; with `sync`, until it is on disk.
    ///
    /// # Errors
    /// What to say in the log.
    pub fn flush(&self, sync: bool) -> Result<(), String> {
        let answers: Vec<_> = self.writers.iter().map(|writer| writer.ask(sync)).collect();
        for answer in answers {
            // A writer that is gone has written everything.
            answer.recv().unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    /// Has everything that was taken synced: the policy has changed, and output may wait for what the last one left.
    pub fn sync_soon(&self) {
        // Nobody waits for the answers.
        self.writers.iter().for_each(|writer| drop(writer.ask(true)));
    }

    /// Nothing more will be written until files are made anew.
    pub fn close(&self) {
        self.writers.iter().for_each(|writer| writer.close());
    }

    /// Writes and syncs everything, and ends the threads.
    pub fn stop(&self) {
        self.writers.iter().for_each(|writer| writer.stop());
        self.group.end(self);
    }

    /// Makes files for the logs of a new generation; see [`ringshard_shards::shared::Host::begin_generation`].
    ///
    /// # Errors
    /// What to say in the log.
    pub fn begin_generation(&self, config: &Config, generation: u64, anew: bool) -> Result<(), String> {
        let mut files = self.files();
        let mut manifest = match anew {
            true => {
                self.find_files(&mut files, config)?;
                let mut manifest = files.manifest.clone();
                // Until the base file is whole what was there counts.
                manifest.history.extend(manifest.base.take());
                let old = std::mem::take(&mut manifest.increments);
                manifest.history.extend(old);
                manifest
            }
            false => files.manifest.clone(),
        };
        let infos = manifest.new_generation(&files.name, self.shared.shards);
        let mut made = Vec::new();
        for info in infos {
            let path = files.dir.join(&info.name);
            match self.disk.create(&path) {
                Ok(file) => made.push((info, file)),
                Err(error) => {
                    for (info, _) in made {
                        let _ = self.disk.remove(&files.dir.join(info.name));
                    }
                    return Err(format!("Can't open the append-only file {}: {}", info.name, os_text(&error)));
                }
            }
        }
        for (info, _) in &made {
            log::notice(format!("Creating AOF incr file {} on background rewrite", info.name));
        }
        files.first_seq.insert(generation, made[0].0.seq);
        for (info, file) in made {
            files.fresh.insert((generation, info.shard.0 as usize), (info, file));
        }
        match anew {
            true => {
                if let Some((_, before)) = files.coming.take() {
                    // Those of an attempt that failed.
                    let dir = files.dir.clone();
                    let is_new = |info: &&FileInfo| !manifest.increments.contains(info);
                    for info in before.increments.iter().filter(is_new) {
                        let _ = self.disk.remove(&dir.join(&info.name));
                    }
                }
                files.coming = Some((generation, manifest));
            }
            false => {
                files.manifest = manifest;
                files.dirty = true;
            }
        }
        Ok(())
    }

    /// Makes the directory, and reads what it holds, for a log that begins or for a base file without one.
    fn find_files(&self, files: &mut Files, config: &Config) -> Result<(), String> {
        let dir = dir_of(config);
        self.disk.create_dir(&dir).map_err(|error| {
            format!("Can't open or create append-only dir {}: {}", config.appenddirname, os_text(&error))
        })?;
        let manifest = read_manifest(&*self.disk, &dir, &config.appendfilename)?;
        if dir != files.dir {
            // Of a server that was stopped by a loss of power; until there is a new base its logs count.
            journal::replay(&*self.disk, &dir, &config.appendfilename, &manifest)?;
        }
        if manifest.increment_seq >= files.manifest.increment_seq || dir != files.dir {
            files.manifest = manifest;
        }
        (files.dir, files.name) = (dir, config.appendfilename.clone());
        if let Some((_, coming)) = &files.coming {
            files.manifest.increment_seq = files.manifest.increment_seq.max(coming.increment_seq);
        }
        Ok(())
    }

    /// The file that a shard's log of this generation goes to from now on; none if there is none of its own, and it goes
    /// where the last one went.
    pub(super) fn take_file(&self, generation: u64, shard: usize) -> Result<Option<OpenFile>, String> {
        let mut files = self.files();
        if files.dirty {
            persist(&*self.disk, &files.dir, &files.name, &files.manifest)?;
            files.dirty = false;
        }
        let journal = journal::path_of(&files.dir, &files.name);
        let fresh = files.fresh.remove(&(generation, shard));
        Ok(fresh.map(|(info, file)| OpenFile::new(file, info.name, journal, generation, 0)))
    }

    /// The base file of a generation is whole, under a temporary name: it and the logs from there on are all that counts.
    ///
    /// # Errors
    /// What to say in the log.
    pub fn finish_rewrite(&self, temporary: &Path, config: &Config, generation: u64) -> Result<(), String> {
        let waiting = self.shared.aof.state() == LogState::Waiting;
        if waiting {
            // The logs count from now on, and they must be there then.
            self.flush(true)?;
        }
        let mut files = self.files();
        if self.shared.aof.state() == LogState::Off {
            self.find_files(&mut files, config)?;
        }
        let mut manifest = match &files.coming {
            Some((of, coming)) if *of == generation => coming.clone(),
            _ => files.manifest.clone(),
        };
        let base = manifest.new_base(&files.name, config.aof_use_rdb_preamble);
        let path = files.dir.join(&base);
        self.disk.rename(temporary, &path).map_err(|error| {
            format!(
                "Error trying to rename the temporary AOF base file {} into {}: {}",
                temporary.display(),
                path.display(),
                os_text(&error)
            )
        })?;
        log::notice(format!(
            "Successfully renamed the temporary AOF base file {} into {base}",
            temporary.file_name().unwrap_or_default().to_string_lossy()
        ));
        let first = files.first_seq.get(&generation).copied().unwrap_or(u64::MAX);
        let (old, new) = manifest.increments.drain(..).partition(|info| info.seq < first);
        manifest.increments = new;
        manifest.history.extend::<Vec<FileInfo>>(old);
        if let Err(text) = persist(&*self.disk, &files.dir, &files.name, &manifest) {
            // Whether the new manifest is the one that a restart finds is not known; what it names must stay then.
            let found = read_manifest(&*self.disk, &files.dir, &files.name);
            if found.as_ref() == Ok(&files.manifest) {
                let _ = self.disk.remove(&path);
            }
            return Err(text);
        }
        files.manifest = manifest;
        files.dirty = false;
        files.coming = None;
        files.first_seq = files.first_seq.split_off(&generation);
        let size = self.disk.len(&path).unwrap_or(0);
        self.shared.aof.base_size.store(size, Relaxed);
        let mut sizes = self.sizes.lock().unwrap_or_else(|e| e.into_inner());
        *sizes = sizes.split_off(&generation);
        self.shared.aof.log_size.store(sizes.values().sum(), Relaxed);
        drop(sizes);
        self.remove_history(&mut files, config);
        drop(files);
        self.writers.iter().for_each(|writer| writer.make_up(generation));
        log::notice("Background AOF rewrite finished successfully");
        Ok(())
    }

    /// Removes files that count no more, after the manifest has ceased to name them as anything else.
    fn remove_history(&self, files: &mut Files, config: &Config) {
        if config.aof_disable_auto_gc || files.manifest.history.is_empty() {
            return;
        }
        for info in std::mem::take(&mut files.manifest.history) {
            log::notice(format!("Removing the history file {} in the background", info.name));
            let _ = self.disk.remove(&files.dir.join(&info.name));
        }
        // One that stays named does no harm.
        if let Err(text) = persist(&*self.disk, &files.dir, &files.name, &files.manifest) {
            log::warning(text);
        }
    }

    /// Counts bytes that were written to a generation's logs.
    pub(super) fn grew(&self, generation: u64, bytes: u64) {
        let mut sizes = self.sizes.lock().unwrap_or_else(|e| e.into_inner());
        *sizes.entry(generation).or_default() += bytes;
        self.shared.aof.log_size.fetch_add(bytes, Relaxed);
    }

    /// Shards' logs are on disk up to these positions: whoever waits for that hears of it.
    pub(super) fn publish(&self, positions: &[(usize, u64)]) {
        if positions.is_empty() {
            return;
        }
        let aof = &self.shared.aof;
        for (shard, position) in positions {
            aof.synced(*shard as u16, *position);
        }
        for (shard, listens) in aof.listens.iter().enumerate() {
            if listens.0.swap(false, SeqCst) {
                (self.wake)(shard);
            }
        }
    }
}

#[cfg(test)]
mod tests;
