//! What persistence asks of the file system, as a trait, so that tests can have any step of it fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use super::direct::{Blocks, DirectFile};
use super::pages::Pages;

/// Forces a file to disk.
pub type SyncHandle = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// A file of a fixed length that is written anywhere, past the page cache.
pub trait BlockFile: Send + Sync {
    /// Writes whole pages at an offset that is a page's; when it returns they are on disk.
    ///
    /// # Errors
    /// What the system says; the pages may be old, new or a mixture then.
    fn write_at(&self, pages: &Pages, offset: u64) -> io::Result<()>;
}

/// A file that is written from its beginning, or from its end on.
pub trait DiskFile: Send {
    /// Writes some of `bytes`, at the end; says how many.
    ///
    /// # Errors
    /// What the system says.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Forces what was written to disk.
    ///
    /// # Errors
    /// What the system says.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file off.
    ///
    /// # Errors
    /// What the system says.
    fn truncate(&mut self, len: u64) -> io::Result<()>;

    /// What forces all to disk that is written by the time it is called, for other threads; none if the file cannot.
    fn sync_handle(&self) -> Option<SyncHandle> {
        None
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// What the system says.
    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => bytes = &bytes[n..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The file system.
#[allow(clippy::missing_errors_doc)]
pub trait Disk: Send + Sync {
    /// A new file, in the place of what has this name.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// A new file that goes to disk as it is written, past the cache; none where there is no such way.
    fn create_direct(&self, _: &Path) -> io::Result<Option<Box<dyn DiskFile>>> {
        Ok(None)
    }
    /// A new file of so many bytes that begins with `pages`, all of it on disk; none where there is no way past the cache.
    fn create_blocks(&self, _path: &Path, _pages: &Pages, _bytes: u64) -> io::Result<Option<Arc<dyn BlockFile>>> {
        Ok(None)
    }
    /// A file to be written on from its end.
    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// A file to be read from an offset on.
    fn open_at(&self, path: &Path, offset: u64) -> io::Result<Box<dyn Read + Send>>;
    /// A file's length.
    fn len(&self, path: &Path) -> io::Result<u64>;
    /// Gives a file another name, in the place of what has that.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Cuts a file off, and forces that to disk.
    fn truncate(&self, path: &Path, len: u64) -> io::Result<()>;
    /// Makes a directory, unless there is one.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Forces a directory's names to disk.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// A file to be read.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        self.open_at(path, 0)
    }

    /// Whether there is such a file.
    fn exists(&self, path: &Path) -> bool {
        self.len(path).is_ok()
    }

    /// All of a small file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// The file system of this machine.
pub struct RealDisk;

impl DiskFile for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(self, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn sync_handle(&self) -> Option<SyncHandle> {
        // Opened anew, for the kernel tells of an error once for each time that a file was opened: of two threads that
        // sync one descriptor, or copies of it, one would hear of it and the other believe that all is well.
        let file = File::open(format!("/proc/self/fd/{}", self.as_raw_fd())).ok()?;
        Some(Arc::new(move || file.sync_data()))
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)?;
        // A file that is not open for appending would go on where it was, and leave a hole.
        self.seek(SeekFrom::End(0)).map(|_| ())
    }
}

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File::create(path)?))
    }

    fn create_direct(&self, path: &Path) -> io::Result<Option<Box<dyn DiskFile>>> {
        Ok(DirectFile::create(path)?.map(|file| Box::new(file) as Box<dyn DiskFile>))
    }

    fn create_blocks(&self, path: &Path, pages: &Pages, bytes: u64) -> io::Result<Option<Arc<dyn BlockFile>>> {
        Ok(Blocks::create(path, pages, bytes)?.map(|file| Arc::new(file) as Arc<dyn BlockFile>))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().append(true).create(true).open(path)?))
    }

    fn open_at(&self, path: &Path, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut file = File::open(path)?;
        if offset > 0 {
            file.seek(SeekFrom::Start(offset))?;
        }
        Ok(Box::new(file))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(len)?;
        file.sync_all()
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            result => result,
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_cut_off_goes_on_at_its_end() {
        let path = std::env::temp_dir().join(format!("ringshard-disk-{}", std::process::id()));
        for append in [false, true] {
            let mut file = if append { RealDisk.append(&path) } else { RealDisk.create(&path) }.unwrap();
            DiskFile::write_all(&mut *file, b"whole, torn").unwrap();
            let end = RealDisk.len(&path).unwrap();
            file.truncate(end - 4).unwrap();
            DiskFile::write_all(&mut *file, b"more").unwrap();
            assert!(RealDisk.read(&path).unwrap().ends_with(b"whole, more"));
        }
        RealDisk.remove(&path).unwrap();
    }
}
