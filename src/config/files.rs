//! Configuration files on disk: reading them, following `include` and `dir`, and replacing the
//! file for `CONFIG REWRITE`.

use std::ffi::{CString, OsStr};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ringshard_shards::config::{Config, file::Files, rewrite::rewrite_with};
use ringshard_shards::glob;

/// No configuration needs more; a device or a database given by mistake is not read to its end.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// The file system as the configuration sees it.
pub(super) struct Disk {
    /// Where relative paths start: the working directory, then each `dir`. The process itself only
    /// goes there once the whole configuration has been read.
    pub dir: PathBuf,
}

impl Disk {
    /// The content of one file; `shown` is how the message names it when that cannot be had.
    pub fn read(&self, path: &Path, shown: &[u8]) -> Result<Vec<u8>, String> {
        let mut text = Vec::new();
        let read = File::open(self.dir.join(path)).and_then(|file| read_bounded(file, &mut text));
        match read {
            Ok(()) => Ok(text),
            Err(error) => {
                let shown = String::from_utf8_lossy(shown);
                Err(format!("Fatal error, can't open config file '{shown}': {}", reason(&error)))
            }
        }
    }
}

impl Files for Disk {
    fn include(&mut self, pattern: &[u8]) -> Result<Vec<u8>, String> {
        if !glob::is_pattern(pattern) {
            return self.read(Path::new(OsStr::from_bytes(pattern)), pattern);
        }
        let mut text = Vec::new();
        for path in expand(&self.dir, pattern) {
            text.extend(self.read(&path, path.as_os_str().as_bytes())?);
        }
        Ok(text)
    }

    fn change_dir(&mut self, dir: &str) -> Result<String, String> {
        let dir = self.dir.join(dir).canonicalize().map_err(|error| reason(&error))?;
        if !dir.is_dir() {
            return Err(reason(&io::Error::from_raw_os_error(libc::ENOTDIR)));
        }
        self.dir.clone_from(&dir);
        Ok(dir.to_string_lossy().into_owned())
    }
}

/// Appends what `from` holds to `text`.
pub(super) fn read_bounded(from: impl Read, text: &mut Vec<u8>) -> io::Result<()> {
    let read = from.take(CONFIG_BYTES_MAX + 1).read_to_end(text)?;
    if read as u64 > CONFIG_BYTES_MAX {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    Ok(())
}

/// The operating system's words for an error, without Rust's number after them.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// The paths that match `pattern` under `dir`, sorted, as the C library's `glob` has them.
fn expand(dir: &Path, pattern: &[u8]) -> Vec<PathBuf> {
    let mut absolute = Vec::new();
    if !pattern.starts_with(b"/") {
        // The directory is a name, whatever bytes it has.
        for &byte in dir.as_os_str().as_bytes() {
            if matches!(byte, b'*' | b'?' | b'[' | b'\\') {
                absolute.push(b'\\');
            }
            absolute.push(byte);
        }
        absolute.push(b'/');
    }
    absolute.extend(pattern);
    let Ok(pattern) = CString::new(absolute) else {
        return Vec::new();
    };
    let mut paths = Vec::new();
    // SAFETY: `pattern` ends with a zero byte and outlives the call. `found` is zeroed, which is
    // what `glob` asks for without GLOB_DOOFFS or GLOB_APPEND. After success `gl_pathv` holds
    // `gl_pathc` strings that live until `globfree`, before which they are copied. `globfree` is
    // called exactly once, which is right after a failure too.
    unsafe {
        let mut found: libc::glob_t = std::mem::zeroed();
        if libc::glob(pattern.as_ptr(), 0, None, &mut found) == 0 {
            for at in 0..found.gl_pathc {
                let path = std::ffi::CStr::from_ptr(*found.gl_pathv.add(at));
                paths.push(PathBuf::from(OsStr::from_bytes(path.to_bytes())));
            }
        }
        libc::globfree(&mut found);
    }
    paths
}

/// Brings the file at `path` up to `config`, in one step: a crash leaves the old file or the new
/// one. `users` are the ACL users for its `user` lines; see [`rewrite_with`].
///
/// # Errors
/// What kept the old file from being read or the new one from taking its place. A file that is not
/// there is taken as empty.
pub fn rewrite_file(path: &Path, config: &Config, users: Option<&[Vec<u8>]>, all: bool) -> io::Result<()> {
    let mut old = Vec::new();
    match File::open(path) {
        Ok(file) => read_bounded(file, &mut old)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    write_file(path, &rewrite_with(&old, config, users, all))
}

/// What the `aclfile` holds.
///
/// # Errors
/// What Redis says where it cannot be read.
pub fn read_users(path: &str) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| read_bounded(file, &mut text));
    read.map_err(|error| format!("Error loading ACLs, opening file '{path}': {}", reason(&error)))?;
    Ok(text)
}

/// Writes the `aclfile` in one step; see [`rewrite_file`].
///
/// # Errors
/// What kept the new file from taking the place of the old.
pub fn write_users(path: &Path, text: &[u8]) -> io::Result<()> {
    write_file(path, text)
}

fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned().into_vec();
    temporary.extend(format!(".{}.tmp", std::process::id()).bytes());
    let temporary = PathBuf::from(std::ffi::OsString::from_vec(temporary));
    let replaced = replace(path, &temporary, content);
    if replaced.is_err() {
        // The first error is the one to report; there may be nothing to remove.
        let _ = fs::remove_file(&temporary);
    }
    replaced
}

fn replace(path: &Path, temporary: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    // Only with its directory on disk does the new name survive a crash.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}
