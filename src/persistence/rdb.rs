//! Writing a snapshot: a temporary file beside the last one, forced to disk, then renamed over it.
//!
//! Shards hand pieces to one thread, which writes them in the order they come. The file takes its final name only when
//! it is whole and on disk, and the directory is forced to disk after that, so that a crash at any moment leaves a good
//! file: the new one or the last.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use ringshard_shards::config::Config;
use ringshard_shards::db::snapshot::Chunk;
use ringshard_shards::rdb::{crc64, file};
use ringshard_shards::shared::Shared;
use ringshard_shards::snapshot::{Assembly, Outcome, SnapshotFile};

use crate::net::os_text;
use crate::{clock, log};

/// Under `rdb-save-incremental-fsync` the file is forced to disk after so many bytes: the kernel would otherwise
/// collect much and write it at once, which stalls whoever else uses the disk (Redis: `REDIS_AUTOSYNC_BYTES`).
const SYNC_BYTES: usize = 4 << 20;

/// A snapshot's file under its temporary name.
pub struct DiskFile {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    sum: Option<u64>,
    sync_bits: bool,
    unsynced: usize,
}

/// Where the last snapshot is.
pub fn path(config: &Config) -> PathBuf {
    Path::new(&config.dir).join(&config.dbfilename)
}

impl DiskFile {
    /// Makes the file.
    ///
    /// # Errors
    /// What to say in the log.
    pub fn create(config: &Config) -> Result<Self, String> {
        let temporary = Path::new(&config.dir).join(format!("temp-{}.rdb", std::process::id()));
        let file = File::create(&temporary).map_err(|error| {
            format!(
                "Failed opening the temp RDB file {} (in server root dir {}) for saving: {}",
                temporary.display(),
                config.dir,
                os_text(&error)
            )
        })?;
        let sum = config.rdbchecksum.then_some(0);
        let sync_bits = config.rdb_save_incremental_fsync;
        Ok(DiskFile { file, temporary, path: path(config), sum, sync_bits, unsynced: 0 })
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.sum = self.sum.map(|sum| crc64::update(sum, bytes));
        self.unsynced += bytes.len();
        if self.sync_bits && self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn put_in_place(&mut self) -> io::Result<()> {
        let tail = file::tail(self.sum);
        self.file.write_all(&tail)?;
        self.file.sync_all()?;
        std::fs::rename(&self.temporary, &self.path)?;
        // The rename itself must survive a crash too.
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir)?.sync_all()
    }
}

fn write_error(error: &io::Error) -> String {
    format!("Write error saving DB on disk: {}", os_text(error))
}

impl SnapshotFile for DiskFile {
    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.add(bytes).map_err(|error| write_error(&error))
    }

    fn finish(mut self: Box<Self>) -> Result<(), String> {
        self.put_in_place().map_err(|error| write_error(&error))
    }
}

impl Drop for DiskFile {
    fn drop(&mut self) {
        // Gone already when it was renamed.
        let _ = std::fs::remove_file(&self.temporary);
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
                match assembly.take(&shared, *chunk, clock::now().0) {
                    Outcome::Going => {}
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
