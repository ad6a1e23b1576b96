//! Snapshots that replicas are sent: files without a name, kept until the last of their replicas has them.
//!
//! Such a file is made like any snapshot ([`super::rdb`]), and when it is whole its name is taken away; whoever has to
//! send it reads it through the one descriptor that is left. So nothing stays behind when the process ends, and the
//! snapshot that `SAVE` made stays what it is, where Redis's full syncs write over it. Counterpart: the temporary file of
//! `rdbSaveBackground` for replicas, and `sendBulkToSlave`.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::net::os_text;

/// The files there are, by the snapshot's number.
#[derive(Default)]
pub struct SyncFiles(Mutex<HashMap<u64, (Arc<File>, u64)>>);

impl SyncFiles {
    fn files(&self) -> MutexGuard<'_, HashMap<u64, (Arc<File>, u64)>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Keeps the file at `path`, which is whole.
    ///
    /// # Errors
    /// What the system says.
    pub fn keep(&self, sync: u64, path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        self.files().insert(sync, (Arc::new(file), bytes));
        Ok(())
    }

    /// Its length.
    pub fn bytes(&self, sync: u64) -> Option<u64> {
        self.files().get(&sync).map(|(_, bytes)| *bytes)
    }

    /// Adds up to `most` bytes of it to `out`, from `offset` on.
    ///
    /// # Errors
    /// What to say in the log.
    pub fn read(&self, sync: u64, offset: u64, most: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let (file, _) = self.files().get(&sync).cloned().ok_or("the file is gone")?;
        let start = out.len();
        out.resize(start + most, 0);
        let read = file.read_at(&mut out[start..], offset);
        out.truncate(start + read.as_ref().copied().unwrap_or(0));
        read.map(|_| ()).map_err(|error| os_text(&error))
    }

    /// Nobody needs it any more.
    pub fn drop_file(&self, sync: u64) {
        self.files().remove(&sync);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_after_its_name_is_gone() {
        let path = std::env::temp_dir().join(format!("ringshard-sync-test-{}", std::process::id()));
        std::fs::write(&path, b"0123456789").unwrap();
        let files = SyncFiles::default();
        files.keep(3, &path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((files.bytes(3), files.bytes(4)), (Some(10), None));
        let mut out = b">".to_vec();
        files.read(3, 4, 3, &mut out).unwrap();
        files.read(3, 8, 100, &mut out).unwrap();
        assert_eq!(out, b">45689");
        files.drop_file(3);
        assert!(files.read(3, 0, 1, &mut out).is_err());
    }
}
