//! Writing a snapshot: a temporary file beside the last one, forced to disk, then renamed over it.
//!
//! Shards hand pieces to one thread, which writes them in the order they come. The file takes its final name only when
//! it is whole and on disk, and the directory is forced to disk after that, so that a crash at any moment leaves a good
//! file: the new one or the last.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use ringshard_shards::config::Config;
use ringshard_shards::db::snapshot::Chunk;
use ringshard_shards::rdb::{crc64, file};
use ringshard_shards::shared::Shared;
use ringshard_shards::snapshot::{Assembly, Outcome, SnapshotFile};

use super::aof::Log;
use super::disk::{Disk, DiskFile};
use super::sync::SyncFiles;
use crate::net::os_text;
use crate::{clock, log};

/// Under `rdb-save-incremental-fsync` a file is forced to disk after so many bytes: the kernel would otherwise collect
/// much and write it at once, which stalls whoever else uses the disk. Redis does so every 4 MB
/// (`REDIS_AUTOSYNC_BYTES`): the kernel then hands over so much in one go, some 0.3 ms in which a shard that wakes on that
/// core waits. What is written in the background goes past the cache for the same reason ([`super::direct`]), and needs
/// none of this; what everyone waits for stays in the cache, from where a server that starts anew reads it at once.
const SYNC_BYTES: usize = 1 << 20;

/// What becomes of a file that is whole.
enum Place {
    /// It is the last snapshot.
    Snapshot(PathBuf),
    /// It is what the logs of this generation build on.
    Base(Arc<Log>, u64),
    /// Replicas are sent it.
    Sync(Arc<SyncFiles>, u64),
}

/// A snapshot's file under its temporary name.
pub struct SnapshotOnDisk {
    disk: Arc<dyn Disk>,
    file: Box<dyn DiskFile>,
    temporary: PathBuf,
    place: Place,
    config: Arc<Config>,
    /// The checksum so far, of a file that ends with one.
    sum: Option<u64>,
    /// It is a snapshot in its own format, which has an end, and not commands.
    framed: bool,
    sync_bits: bool,
    unsynced: usize,
}

/// Where the last snapshot is.
pub fn path(config: &Config) -> PathBuf {
    Path::new(&config.dir).join(&config.dbfilename)
}

/// Removes what is being written, for an end that waits for nothing.
pub fn remove_temporary(config: &Config) {
    let prefix = format!("temp-{}.", std::process::id());
    for entry in std::fs::read_dir(&config.dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

impl SnapshotOnDisk {
    /// Makes the file of a snapshot.
    ///
    /// # Errors
    /// What to say in the log.
    pub fn create(disk: &Arc<dyn Disk>, config: &Config, in_background: bool) -> Result<Self, String> {
        // One that was given up may still be about to remove its own.
        static MADE: AtomicU64 = AtomicU64::new(0);
        let name = match MADE.fetch_add(1, Relaxed) {
            0 => format!("temp-{}.rdb", std::process::id()),
            n => format!("temp-{}.{n}.rdb", std::process::id()),
        };
        Self::make(disk, config, name, Place::Snapshot(path(config)), in_background)
    }

    /// Makes the base file of a generation of logs.
    ///
    /// # Errors
    /// What to say in the log.
    pub fn create_base(log: &Arc<Log>, config: &Config, generation: u64) -> Result<Self, String> {
        let name = format!("temp-rewriteaof-bg-{}.aof", std::process::id());
        Self::make(log.disk(), config, name, Place::Base(log.clone(), generation), true)
    }

    /// Makes the file of a full sync.
    ///
    /// # Errors
    /// What to say in the log.
    pub fn create_sync(
        disk: &Arc<dyn Disk>,
        files: &Arc<SyncFiles>,
        config: &Config,
        sync: u64,
    ) -> Result<Self, String> {
        let name = format!("temp-sync-{}-{sync}.rdb", std::process::id());
        Self::make(disk, config, name, Place::Sync(files.clone(), sync), true)
    }

    /// Makes a file of this name that will get its place when it is whole.
    fn make(
        disk: &Arc<dyn Disk>,
        config: &Config,
        name: String,
        place: Place,
        in_background: bool,
    ) -> Result<Self, String> {
        let temporary = Path::new(&config.dir).join(name);
        let sync_bits = match place {
            Place::Snapshot(_) => config.rdb_save_incremental_fsync,
            Place::Base(..) => config.aof_rewrite_incremental_fsync,
            // It is of no use to anyone after a crash.
            Place::Sync(..) => false,
        };
        let direct = match in_background && sync_bits {
            true => disk.create_direct(&temporary),
            false => Ok(None),
        };
        let sync_bits = sync_bits && !matches!(direct, Ok(Some(_)));
        let file = direct.and_then(|file| file.map_or_else(|| disk.create(&temporary), Ok)).map_err(|error| {
            let (file, dir, error) = (temporary.display(), &config.dir, os_text(&error));
            let failed = "Failed opening the temp RDB file";
            match place {
                Place::Snapshot(_) => format!("{failed} {file} (in server root dir {dir}) for saving: {error}"),
                Place::Sync(..) => format!("{failed} {file} (in server root dir {dir}) for replicas: {error}"),
                Place::Base(..) => {
                    format!("Opening the temp file for AOF rewrite in rewriteAppendOnlyFile(): {error}")
                }
            }
        })?;
        let framed = !matches!(place, Place::Base(..)) || config.aof_use_rdb_preamble;
        Ok(SnapshotOnDisk {
            disk: disk.clone(),
            file,
            temporary,
            place,
            config: Arc::new(config.clone()),
            sum: (framed && config.rdbchecksum).then_some(0),
            framed,
            sync_bits,
            unsynced: 0,
        })
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.sum = self.sum.map(|sum| crc64::update(sum, bytes));
        self.unsynced += bytes.len();
        if self.sync_bits && self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            self.file.sync()?;
        }
        Ok(())
    }

    fn put_in_place(&mut self) -> Result<(), String> {
        let error_text = |error: io::Error| write_error(&self.place, &error);
        if self.framed {
            self.file.write_all(&file::tail(self.sum)).map_err(error_text)?;
        }
        if let Place::Sync(files, sync) = &self.place {
            return files.keep(*sync, &self.temporary).map_err(error_text);
        }
        self.file.sync().map_err(error_text)?;
        match &self.place {
            Place::Sync(..) => unreachable!("kept above"),
            Place::Base(log, generation) => log.finish_rewrite(&self.temporary, &self.config, *generation),
            Place::Snapshot(path) => {
                self.disk.rename(&self.temporary, path).map_err(error_text)?;
                // The rename itself must survive a crash too.
                let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
                self.disk.sync_dir(dir).map_err(error_text)
            }
        }
    }
}

fn write_error(place: &Place, error: &io::Error) -> String {
    match place {
        Place::Snapshot(_) => format!("Write error saving DB on disk: {}", os_text(error)),
        Place::Sync(..) => format!("Write error saving DB for replicas: {}", os_text(error)),
        Place::Base(..) => format!("Write error writing append only file on disk: {}", os_text(error)),
    }
}

impl SnapshotFile for SnapshotOnDisk {
    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.add(bytes).map_err(|error| write_error(&self.place, &error))
    }

    fn finish(mut self: Box<Self>) -> Result<(), String> {
        self.put_in_place()
    }
}

impl Drop for SnapshotOnDisk {
    fn drop(&mut self) {
        // Gone already when it was renamed.
        let _ = self.disk.remove(&self.temporary);
    }
}

/// The thread that writes snapshots in the background.
pub struct BackgroundSave(Sender<Box<Chunk>>);

impl BackgroundSave {
    /// Starts it.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let (sender, receiver) = channel::<Box<Chunk>>();
        std::thread::Builder::new().name("snapshot".into()).spawn(move || {
            let mut assembly = Assembly::default();
            for chunk in receiver {
                delay(&shared, &chunk);
                let outcome = assembly.take(&shared, *chunk, clock::now().0);
                match outcome {
                    Outcome::Going => {}
                    Outcome::Saved if assembly.is_base() => {
                        log::notice("Background AOF rewrite terminated with success");
                    }
                    Outcome::Failed(text) if assembly.is_base() => {
                        log::warning(text);
                        log::warning("Background AOF rewrite terminated with error");
                    }
                    Outcome::Saved => {
                        log::notice("DB saved on disk");
                        log::notice("Background saving terminated with success");
                    }
                    Outcome::Failed(text) => {
                        log::warning(text);
                        log::warning("Background saving error");
                    }
                    // The pieces that come after it are of no interest.
                    Outcome::GivenUp => {}
                }
            }
        })?;
        Ok(BackgroundSave(sender))
    }

    /// Adds a piece.
    pub fn add(&self, chunk: Box<Chunk>) {
        // The thread ends with the process only.
        let _ = self.0.send(chunk);
    }
}

/// `rdb-key-save-delay`: so many µs for each key, or so many keys for each µs when negative.
fn delay(shared: &Shared, chunk: &Chunk) {
    let each = i64::from(shared.config().rdb_key_save_delay);
    let us = if each >= 0 { chunk.keys as i64 * each } else { chunk.keys as i64 / -each };
    let (mut left, step) = (us as u64, 10_000);
    while left > 0 && !shared.persistence.is_over(chunk.snapshot) {
        std::thread::sleep(Duration::from_micros(left.min(step)));
        left = left.saturating_sub(step);
    }
}
