//! The manifest: which files make up the log, in which order they are read. Redis's format:
//!
//! ```text
//! file appendonly.aof.2.base.rdb seq 2 type b
//! file appendonly.aof.1.incr.aof seq 1 type h
//! file appendonly.aof.5.incr.aof seq 5 type i shard 0 of 2
//! file appendonly.aof.6.incr.aof seq 6 type i shard 1 of 2
//! ```
//!
//! The words behind the type are this server's own, and Redis passes them over: whose log it is, and of how many. They
//! are left out with one shard. A *generation* is the logs of all shards from one cut to the next: what stands together
//! here from a shard 0 on. Counterpart: `aofLoadManifestFromFile` and its kin in `aof.c`.

use crate::quote;
use crate::router::ShardId;

/// Longest line.
const LINE_MAX: usize = 1024;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Its name in the directory.
    pub name: String,
    /// Its number among files of its kind.
    pub seq: u64,
    /// Whose log, and of how many; of base files nothing.
    pub shard: (ShardId, usize),
}

/// See the module's page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// What all logs build on.
    pub base: Option<FileInfo>,
    /// Files that count no more, and wait to be removed.
    pub history: Vec<FileInfo>,
    /// The logs, in order.
    pub increments: Vec<FileInfo>,
    /// The highest number of a base file so far.
    pub base_seq: u64,
    /// The highest number of a log so far.
    pub increment_seq: u64,
}

/// What is wrong with a manifest: the line's number, the line, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadManifest(pub usize, pub String, pub &'static str);

impl Manifest {
    /// Understands a manifest's text.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &[u8]) -> Result<Manifest, BadManifest> {
        let mut manifest = Manifest::default();
        let mut highest = 0;
        let mut rest = text;
        let mut at = 0;
        while !rest.is_empty() {
            at += 1;
            let end = memchr::memchr(b'\n', rest);
            let (line, next) = match end {
                Some(end) => (&rest[..end], &rest[end + 1..]),
                None => (rest, &rest[rest.len()..]),
            };
            rest = next;
            if line.first() == Some(&b'#') {
                continue;
            }
            let bad = |reason| BadManifest(at, String::from_utf8_lossy(line).trim().to_string(), reason);
            if end.is_none() || line.len() >= LINE_MAX {
                return Err(bad("The AOF manifest file contains too long line"));
            }
            let (kind, file) = parse_line(line).map_err(bad)?;
            match kind {
                b'b' if manifest.base.is_some() => return Err(bad("Found duplicate base file information")),
                b'b' => {
                    manifest.base_seq = file.seq;
                    manifest.base = Some(file);
                }
                b'h' => manifest.history.push(file),
                b'i' if file.seq <= highest => return Err(bad("Found a non-monotonic sequence number")),
                b'i' => {
                    highest = file.seq;
                    manifest.increments.push(file);
                }
                _ => return Err(bad("Unknown AOF file type")),
            }
        }
        if at == 0 {
            return Err(BadManifest(0, String::new(), "Found an empty AOF manifest"));
        }
        manifest.increment_seq = highest;
        Ok(manifest)
    }

    /// Its text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut add = |file: &FileInfo, kind: char| {
            text.push_str(&format!("file {} seq {} type {kind}", quoted(&file.name), file.seq));
            if file.shard.1 > 1 {
                text.push_str(&format!(" shard {} of {}", file.shard.0, file.shard.1));
            }
            text.push('\n');
        };
        self.base.iter().for_each(|file| add(file, 'b'));
        self.history.iter().for_each(|file| add(file, 'h'));
        self.increments.iter().for_each(|file| add(file, 'i'));
        text
    }

    /// A new base file's name; the one before counts no more.
    pub fn new_base(&mut self, name: &str, rdb: bool) -> String {
        self.history.extend(self.base.take());
        self.base_seq += 1;
        let suffix = if rdb { "rdb" } else { "aof" };
        let name = format!("{name}.{}.base.{suffix}", self.base_seq);
        self.base = Some(FileInfo { name: name.clone(), seq: self.base_seq, shard: (0, 1) });
        name
    }

    /// New logs for so many shards, behind all others.
    pub fn new_generation(&mut self, name: &str, shards: usize) -> Vec<FileInfo> {
        let first = self.increments.len();
        for shard in 0..shards {
            self.increment_seq += 1;
            let seq = self.increment_seq;
            let name = format!("{name}.{seq}.incr.aof");
            self.increments.push(FileInfo { name, seq, shard: (shard as ShardId, shards) });
        }
        self.increments[first..].to_vec()
    }

    /// The logs by generation.
    pub fn generations(&self) -> Vec<&[FileInfo]> {
        let continues = |before: &FileInfo, after: &FileInfo| {
            after.shard.1 == before.shard.1 && after.shard.0 == before.shard.0 + 1
        };
        self.increments.chunk_by(continues).collect()
    }
}

/// Whether a generation has the logs of all its shards.
pub fn is_complete(generation: &[FileInfo]) -> bool {
    generation.first().is_some_and(|first| first.shard.0 == 0 && first.shard.1 == generation.len())
}

/// A name in quotes where it could not be read back without.
fn quoted(name: &str) -> String {
    let plain = |c: u8| c.is_ascii_graphic() && !matches!(c, b'\\' | b'"' | b'\'');
    match name.bytes().all(plain) && !name.is_empty() {
        true => name.to_string(),
        false => String::from_utf8_lossy(&quote::repr(name.as_bytes())).into_owned(),
    }
}

fn parse_line(line: &[u8]) -> Result<(u8, FileInfo), &'static str> {
    const INVALID: &str = "Invalid AOF manifest file format";
    let words = quote::split_args(line.trim_ascii()).ok_or(INVALID)?;
    if words.len() < 6 || words.len() % 2 != 0 {
        return Err(INVALID);
    }
    let (mut name, mut seq, mut kind, mut shard) = (None, 0, 0, (0u16, 1usize));
    for pair in words.chunks(2) {
        let value = String::from_utf8_lossy(&pair[1]).into_owned();
        match pair[0].to_ascii_lowercase().as_slice() {
            b"file" if value.contains(['/', '\\']) => return Err("File can't be a path, just a filename"),
            b"file" => name = Some(value),
            b"seq" => seq = value.parse::<u64>().unwrap_or(0),
            b"type" => kind = value.bytes().next().unwrap_or(0),
            b"shard" => shard.0 = value.parse().map_err(|_| INVALID)?,
            b"of" => shard.1 = value.parse().map_err(|_| INVALID)?,
            _ => {}
        }
    }
    let name = name.filter(|name| !name.is_empty()).ok_or(INVALID)?;
    if seq == 0 || kind == 0 || shard.0 as usize >= shard.1 {
        return Err(INVALID);
    }
    Ok((kind, FileInfo { name, seq, shard }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Rng;
    use crate::testing::cases;

    #[test]
    fn redis_manifests_are_understood_and_come_back() {
        let text = "file appendonly.aof.2.base.rdb seq 2 type b\nfile appendonly.aof.1.incr.aof seq 1 type h\n\
                    file appendonly.aof.4.incr.aof seq 4 type i\nfile \"a \\\"b.5.incr.aof\" seq 5 type i\n";
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!(manifest.text(), text);
        assert_eq!((manifest.base_seq, manifest.increment_seq), (2, 5));
        assert_eq!(manifest.generations().len(), 2, "a generation each with one shard");
        assert_eq!(manifest.increments[1].name, "a \"b.5.incr.aof");
        let odd = "# a comment\r\n  FILE x SEQ 3 TYPE incr more 1 \r\n";
        assert_eq!(Manifest::parse(odd.as_bytes()).unwrap().increments[0].seq, 3);
    }

    #[test]
    fn generations_are_the_logs_of_all_shards() {
        let mut manifest = Manifest::default();
        assert_eq!(manifest.new_base("x", true), "x.1.base.rdb");
        manifest.new_generation("x", 3);
        manifest.new_generation("x", 3);
        manifest.new_generation("x", 1);
        manifest.new_generation("x", 2);
        let back = Manifest::parse(manifest.text().as_bytes()).unwrap();
        assert_eq!(back, manifest);
        let counts: Vec<_> = back.generations().iter().map(|files| files.len()).collect();
        assert_eq!(counts, [3, 3, 1, 2]);
        assert!(back.generations().iter().all(|generation| is_complete(generation)));
        assert_eq!(manifest.new_base("x", false), "x.2.base.aof");
        assert_eq!(manifest.history[0].name, "x.1.base.rdb");
    }

    #[test]
    fn errors_are_those_of_redis() {
        for (text, reason) in [
            ("", "Found an empty AOF manifest"),
            ("\n", "Invalid AOF manifest file format"),
            ("file a seq 1\n", "Invalid AOF manifest file format"),
            ("file a seq 1 type i more\n", "Invalid AOF manifest file format"),
            ("file a seq 0 type i\n", "Invalid AOF manifest file format"),
            ("file a/b seq 1 type i\n", "File can't be a path, just a filename"),
            ("file a seq 1 type x\n", "Unknown AOF file type"),
            ("file a seq 1 type i", "The AOF manifest file contains too long line"),
            ("file a seq 2 type i\nfile b seq 2 type i\n", "Found a non-monotonic sequence number"),
            ("file a seq 2 type b\nfile b seq 3 type b\n", "Found duplicate base file information"),
            ("file a seq 2 type i shard 2 of 2\n", "Invalid AOF manifest file format"),
        ] {
            assert_eq!(Manifest::parse(text.as_bytes()).unwrap_err().2, reason, "{text:?}");
        }
    }

    #[test]
    fn broken_manifests_never_panic() {
        let mut manifest = Manifest::default();
        manifest.new_base("x", true);
        manifest.new_generation("x", 3);
        let good = manifest.text().into_bytes();
        let mut rng = Rng::new(9);
        for _ in 0..cases(20_000) {
            let mut bytes = good.clone();
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(bytes.len() as u64) as usize;
                match rng.below(3) {
                    0 => bytes[at] = rng.below(256) as u8,
                    1 => bytes.truncate(at.max(1)),
                    _ => {
                        bytes.remove(at);
                    }
                }
                if bytes.is_empty() {
                    bytes.push(b'\n');
                }
            }
            if let Ok(manifest) = Manifest::parse(&bytes) {
                manifest.generations().iter().for_each(|generation| {
                    is_complete(generation);
                });
                assert!(manifest.increments.len() <= 3);
            }
        }
    }
}
