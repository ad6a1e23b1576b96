//! `DirectFile`: a file that goes to disk past the page cache, for what is written in the background.
//!
//! The idea: written through the cache, a snapshot costs the kernel a copy of each page and then, whenever the file is
//! forced to disk, a walk over all of them, up to a millisecond in which nothing else runs on that core. With `O_DIRECT`
//! the device reads the pages where they are, and the cache keeps what it has. Such writes are of whole blocks, so what
//! comes is gathered in one buffer first, and what is left of it when the file is forced to disk goes through the cache.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::disk::DiskFile;

/// Where a buffer and a length may begin and end: the largest block that devices have.
const PAGE: usize = 4096;
/// Bytes that are written at once. A device that takes its time is asked seldom, and the kernel's part of it is short.
const BUFFER: usize = 256 * 1024;

#[repr(C, align(4096))]
#[derive(Clone)]
struct Page([u8; PAGE]);

/// A file that is written from its beginning. See the head of the file.
pub struct DirectFile {
    file: File,
    pages: Vec<Page>,
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
            Ok(file) => {
                Ok(Some(DirectFile { file, pages: vec![Page([0; PAGE]); BUFFER / PAGE], used: 0, direct: true }))
            }
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
            match Write::write(&mut &self.file, &self.buffer()[written..self.used]) {
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

    fn buffer(&self) -> &[u8] {
        // SAFETY: pages lie side by side without a gap, and are bytes.
        unsafe { std::slice::from_raw_parts(self.pages.as_ptr().cast(), BUFFER) }
    }

    fn buffer_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `buffer`, and `&mut self` is the only way to them.
        unsafe { std::slice::from_raw_parts_mut(self.pages.as_mut_ptr().cast(), BUFFER) }
    }
}

impl DiskFile for DirectFile {
    /// Takes all of `bytes` up to the end of the buffer; what is not written is, or has its error, by the next call.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.used == BUFFER {
            self.write_out()?;
        }
        let (used, n) = (self.used, bytes.len().min(BUFFER - self.used));
        self.buffer_mut()[used..used + n].copy_from_slice(&bytes[..n]);
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
