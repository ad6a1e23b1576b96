//! Files that go to disk past the page cache: `DirectFile`, for what is written in the background, and `Blocks`, for what
//! somebody waits for.
//!
//! The idea of the first: written through the cache, a snapshot costs the kernel a copy of each page and then, whenever
//! the file is forced to disk, a walk over all of them, up to a millisecond in which nothing else runs on that core. With
//! `O_DIRECT` the device reads the pages where they are, and the cache keeps what it has. Such writes are of whole
//! blocks, so what comes is gathered in one buffer first, and what is left of it when the file is forced to disk goes
//! through the cache.
//!
//! The idea of the second: a file whose blocks were all written once neither grows nor takes blocks, so what is written
//! over is on disk without the file system's own journal. (4 KB, ext4, one at a time: 85 µs, where what a file has grown
//! by takes `fdatasync` 140.)

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::disk::{BlockFile, DiskFile};
use super::pages::{PAGE, Pages};

/// Bytes that are written at once. A device that takes its time is asked seldom, and the kernel's part of it is short.
const BUFFER: usize = 256 * 1024;

/// A file of a fixed length is made where so many of its kind have room: others need the disk more.
const SPARED: u64 = 16;

/// A file that is written from its beginning. See the head of the file.
pub struct DirectFile {
    file: File,
    pages: Pages,
    /// Bytes of the buffer that are not written yet.
    used: usize,
    /// The file is still open for whole blocks alone.
    direct: bool,
}

impl DirectFile {
    /// A new file, in the place of what has this name; none where the file system writes through the cache alone.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(path: &Path) -> io::Result<Option<Self>> {
        let mut options = File::options();
        options.write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT);
        match options.open(path) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
            Err(error) => Err(error),
            Ok(file) => Ok(Some(DirectFile { file, pages: Pages::new(BUFFER), used: 0, direct: true })),
        }
    }

    /// Writes what the buffer holds.
    fn write_out(&mut self) -> io::Result<()> {
        if self.direct && !self.used.is_multiple_of(PAGE) {
            self.go_through_the_cache()?;
        }
        let mut written = 0;
        while written < self.used {
            if self.direct && !written.is_multiple_of(PAGE) {
                self.go_through_the_cache()?;
            }
            match Write::write(&mut &self.file, &self.pages[written..self.used]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The device has larger blocks.
                Err(error) if self.direct && error.raw_os_error() == Some(libc::EINVAL) => {
                    self.go_through_the_cache()?;
                }
                Err(error) => return Err(error),
            }
        }
        self.used = 0;
        Ok(())
    }

    /// From now on the file takes pieces of any length.
    fn go_through_the_cache(&mut self) -> io::Result<()> {
        self.direct = false;
        // SAFETY: a descriptor that this file owns; the call touches no memory.
        match unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_SETFL, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// A file of a fixed length. See the head of the file.
pub struct Blocks(File);

impl Blocks {
    /// A new file of so many bytes that begins with `pages`, all of it on disk; none where the file system writes through
    /// the cache alone.
    ///
    /// # Errors
    /// What the system says; that the disk is full, where the file would take more than a small part of what is left.
    pub fn create(path: &Path, pages: &Pages, bytes: u64) -> io::Result<Option<Self>> {
        let mut file = File::create(path)?;
        if bytes_left(&file)? / SPARED < bytes {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        Write::write_all(&mut file, pages)?;
        let zeros = Pages::new(BUFFER);
        let mut left = bytes.saturating_sub(pages.len() as u64);
        while left > 0 {
            let taken = left.min(BUFFER as u64);
            Write::write_all(&mut file, &zeros[..taken as usize])?;
            left -= taken;
        }
        file.sync_all()?;
        let mut options = File::options();
        match options.write(true).custom_flags(libc::O_DIRECT | libc::O_DSYNC).open(path) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
            Err(error) => Err(error),
            Ok(file) => Ok(Some(Blocks(file))),
        }
    }
}

/// Bytes that the file's file system has left for this process.
fn bytes_left(file: &File) -> io::Result<u64> {
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: a descriptor that is open, and a place for what is found; zeros are a value of it.
    let found = unsafe {
        match libc::fstatvfs(file.as_raw_fd(), found.as_mut_ptr()) {
            0 => found.assume_init(),
            _ => return Err(io::Error::last_os_error()),
        }
    };
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

impl BlockFile for Blocks {
    fn write_at(&self, pages: &Pages, offset: u64) -> io::Result<()> {
        self.0.write_all_at(pages, offset)
    }
}

impl DiskFile for DirectFile {
    /// Takes all of `bytes` up to the end of the buffer; what is not written is, or has its error, by the next call.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.used == BUFFER {
            self.write_out()?;
        }
        let (used, n) = (self.used, bytes.len().min(BUFFER - self.used));
        self.pages[used..used + n].copy_from_slice(&bytes[..n]);
        self.used += n;
        Ok(n)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.write_out()?;
        self.file.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.write_out()?;
        DiskFile::truncate(&mut self.file, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file where this is known, beside what cargo builds: the system's directory for temporary files may be memory.
    fn file(name: &str) -> Option<(DirectFile, std::path::PathBuf)> {
        let dir = std::env::current_exe().unwrap();
        let path = dir.with_file_name(format!("direct-{}-{name}", std::process::id()));
        DirectFile::create(&path).unwrap().map(|file| (file, path))
    }

    #[test]
    fn pieces_of_any_length_end_as_they_came() {
        for lengths in [&[1, 4095, 4096, 4097][..], &[BUFFER], &[BUFFER - 1, 2, 3 * BUFFER + 7], &[], &[PAGE; 70]] {
            for sync_between in [false, true] {
                let Some((mut file, path)) = file("pieces") else { return };
                let mut all = Vec::new();
                for (i, len) in lengths.iter().enumerate() {
                    let piece: Vec<u8> = (0..*len).map(|at| (at * 7 + i) as u8).collect();
                    DiskFile::write_all(&mut file, &piece).unwrap();
                    all.extend(piece);
                    if sync_between {
                        file.sync().unwrap();
                        assert!(std::fs::read(&path).unwrap() == all);
                    }
                }
                file.sync().unwrap();
                assert!(std::fs::read(&path).unwrap() == all);
                let half = all.len() / 2;
                DiskFile::truncate(&mut file, half as u64).unwrap();
                DiskFile::write_all(&mut file, b"behind").unwrap();
                file.sync().unwrap();
                assert!(std::fs::read(&path).unwrap() == [&all[..half], b"behind"].concat());
                std::fs::remove_file(&path).unwrap();
            }
        }
    }

    #[test]
    fn blocks_are_written_anywhere_and_take_no_more_than_is_to_spare() {
        let Some((_, path)) = file("blocks") else { return };
        let mut pages = Pages::new(PAGE);
        pages.fill(1);
        let Some(blocks) = Blocks::create(&path, &pages, 5 * PAGE as u64).unwrap() else { return };
        pages.fill(2);
        blocks.write_at(&pages, 3 * PAGE as u64).unwrap();
        let read = std::fs::read(&path).unwrap();
        assert_eq!(read.chunks(PAGE).map(|page| page[PAGE - 1]).collect::<Vec<_>>(), [1, 0, 0, 2, 0]);
        let left = bytes_left(&File::open(&path).unwrap()).unwrap();
        let error = Blocks::create(&path, &pages, left / 8).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn an_error_is_told_by_the_next_call() {
        // A file that cannot be written to, as one on a disk that is gone.
        let Some((mut file, path)) = file("error") else { return };
        std::fs::remove_file(&path).unwrap();
        file.file = File::open("/dev/null").unwrap();
        DiskFile::write_all(&mut file, &[1; BUFFER]).unwrap();
        assert_eq!(file.write(b"more").unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
