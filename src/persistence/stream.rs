//! `Stream`: a file that is read from its beginning, with what was looked at ahead.

use std::io::{self, Read};
use std::path::Path;

use ringshard_shards::rdb::Error;
use ringshard_shards::rdb::file::Source;

use super::disk::Disk;
use crate::net::os_text;

/// Bytes read at once: what fits the second cache, for they are looked at right after.
const READ_BYTES: usize = 256 * 1024;

/// See the module's page.
pub struct Stream {
    file: Box<dyn Read + Send>,
    /// What was read and not yet passed over is `at..end`.
    buffer: Vec<u8>,
    at: usize,
    end: usize,
    /// Bytes of the file behind those.
    unread: u64,
}

impl Stream {
    /// Of this file.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        let (file, unread) = (disk.open(path)?, disk.len(path)?);
        Ok(Stream { file, buffer: Vec::new(), at: 0, end: 0, unread })
    }

    /// Whether it begins with these bytes.
    ///
    /// # Errors
    /// What the system says.
    pub fn begins_with(&mut self, bytes: &[u8]) -> io::Result<bool> {
        while self.end - self.at < bytes.len() {
            if !self.more(bytes.len())? {
                break;
            }
        }
        Ok(self.buffer[self.at..self.end].starts_with(bytes))
    }

    /// Reads on, with `wanted` bytes ahead as the aim; false at the end.
    #[cold]
    fn more(&mut self, wanted: usize) -> io::Result<bool> {
        self.buffer.copy_within(self.at..self.end, 0);
        (self.at, self.end) = (0, self.end - self.at);
        // No more is allocated than comes, whatever length a broken file claims.
        let room = wanted.clamp(self.end, self.end * 2).max(READ_BYTES);
        if self.buffer.len() < room + READ_BYTES {
            self.buffer.resize(room + READ_BYTES, 0);
        }
        let read = loop {
            match self.file.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.end += read;
        self.unread = self.unread.saturating_sub(read as u64);
        Ok(read > 0)
    }

    /// The next bytes, as they come; none at the end.
    ///
    /// # Errors
    /// What the system says.
    pub fn next(&mut self) -> io::Result<&[u8]> {
        if self.at == self.end {
            self.more(0)?;
        }
        let from = self.at;
        self.at = self.end;
        Ok(&self.buffer[from..self.end])
    }

    /// Passes over so many bytes.
    ///
    /// # Errors
    /// What the system says.
    pub fn skip(&mut self, mut n: u64) -> io::Result<()> {
        while n > 0 {
            if self.at == self.end && !self.more(0)? {
                return Ok(());
            }
            let taken = ((self.end - self.at) as u64).min(n);
            self.at += taken as usize;
            n -= taken;
        }
        Ok(())
    }
}

impl Source for Stream {
    #[inline]
    fn ahead(&mut self, n: usize) -> Result<&[u8], Error> {
        while self.end - self.at < n {
            if !self.more(n).map_err(|error| Error::Io(os_text(&error)))? {
                return Err(Error::Short);
            }
        }
        Ok(&self.buffer[self.at..self.end])
    }

    #[inline]
    fn pass(&mut self, n: usize) {
        assert!(n <= self.end - self.at, "no more than was seen");
        self.at += n;
    }

    fn left(&self) -> Option<u64> {
        Some((self.end - self.at) as u64 + self.unread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::disk::RealDisk;

    #[test]
    fn what_is_ahead_is_what_the_file_holds_in_whatever_pieces_it_is_asked_for() {
        let path = std::env::temp_dir().join(format!("ringshard-stream-{}", std::process::id()));
        let bytes: Vec<u8> = (0..1_500_000u32).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        for step in [1000, READ_BYTES - 1, READ_BYTES * 3 + 7] {
            let mut stream = Stream::open(&RealDisk, &path).unwrap();
            let mut at = 0;
            while bytes.len() - at >= step {
                assert_eq!(stream.ahead(step).unwrap()[..step], bytes[at..at + step]);
                stream.pass(step / 2);
                at += step / 2;
                assert_eq!(stream.left(), Some((bytes.len() - at) as u64));
            }
            assert!(matches!(stream.ahead(bytes.len()), Err(Error::Short)));
            stream.skip((bytes.len() - at) as u64 - 1).unwrap();
            assert_eq!(stream.next().unwrap(), &bytes[bytes.len() - 1..]);
            assert!(stream.next().unwrap().is_empty());
        }
        // A length that is a lie takes no memory.
        let mut stream = Stream::open(&RealDisk, &path).unwrap();
        assert!(matches!(stream.ahead(usize::MAX), Err(Error::Short)));
        assert!(stream.buffer.len() < bytes.len() * 3);
        std::fs::remove_file(&path).unwrap();
    }
}
