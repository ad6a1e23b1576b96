//! `ringshard check aof [--fix | --truncate-to-timestamp SECONDS] FILE`: looks through a manifest and all it names, or
//! one old file, and says what is wrong and where; with `--fix` it cuts off what cannot be loaded. Beside what
//! redis-check-aof finds it finds commands over several shards of which a log lacks its part.
//!
//! Counterpart: `redis-check-aof.c`, whose words it uses.

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::ExitCode;

use ringshard_shards::aof::manifest::{FileInfo, Manifest};
use ringshard_shards::aof::read::{End, Scan};
use ringshard_shards::rdb::Error;
use ringshard_shards::rdb::file::Reader;

use super::load::{Looked, Recovered, recover};
use super::{journal, say_bad_manifest};
use crate::net::os_text;
use crate::persistence::check::look_through_preamble;
use crate::persistence::disk::{Disk, RealDisk};
use crate::persistence::stream::Stream;

/// How it is called.
pub const USAGE: &str = "ringshard check aof [--fix|--truncate-to-timestamp $timestamp] <file.manifest|file.aof>";

/// What is to be done beside looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repair {
    No,
    Fix,
    /// Cut off what was written after this second.
    Until(i64),
}

/// Runs it with the words behind `check aof`.
pub fn run(words: &[String]) -> ExitCode {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (repair, file) = match words[..] {
        [file] if !file.starts_with("--") => (Repair::No, file),
        ["--fix", file] => (Repair::Fix, file),
        ["--truncate-to-timestamp", seconds, file] => match seconds.parse() {
            Ok(seconds) => (Repair::Until(seconds), file),
            Err(_) => return fail("Invalid timestamp, aborting..."),
        },
        _ => return fail(&format!("Usage: {USAGE}")),
    };
    match check(&RealDisk, Path::new(file), repair) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => fail(&text),
    }
}

fn fail(text: &str) -> ExitCode {
    println!("{text}");
    ExitCode::FAILURE
}

fn check(disk: &dyn Disk, path: &Path, repair: Repair) -> Result<(), String> {
    let head = disk.read(path).map_err(|error| format!("Cannot open file {}: {}", path.display(), os_text(&error)))?;
    let is_manifest = head.split_inclusive(|byte| *byte == b'\n').find(|line| line[0] != b'#');
    match is_manifest.is_some_and(|line| line.starts_with(b"file ")) {
        true => check_manifest(disk, path, &head, repair),
        false => check_old(disk, path, repair),
    }
}

/// Where a snapshot at the start of a file ends; 0 if there is none.
fn preamble(disk: &dyn Disk, path: &Path, name: &str) -> Result<u64, String> {
    let io = |error: std::io::Error| format!("Failed to read from AOF {name}, aborting...: {}", os_text(&error));
    let mut stream = Stream::open(disk, path).map_err(io)?;
    if !stream.begins_with(b"REDIS").map_err(io)? {
        return Ok(0);
    }
    let unsound = |_: Error| "RDB preamble of AOF file is not sane, aborting.".to_string();
    let mut reader = Reader::new(&mut stream, true).map_err(unsound)?;
    look_through_preamble(&mut reader).map_err(unsound)?;
    let end = reader.offset();
    println!("RDB preamble is OK, proceeding with AOF tail...");
    Ok(end)
}

/// Looks through the commands from `start` on.
fn look_at_tail(
    disk: &dyn Disk,
    path: &Path,
    info: FileInfo,
    start: u64,
    until: Option<i64>,
) -> Result<Looked, String> {
    let io = |error: std::io::Error| format!("Failed to read from AOF {}, aborting...: {}", info.name, os_text(&error));
    let len = disk.len(path).map_err(io)?;
    let mut stream = Stream::open(disk, path).map_err(io)?;
    stream.skip(start).map_err(io)?;
    let mut scan = Scan::new(start, until);
    loop {
        let bytes = stream.next().map_err(io)?;
        if bytes.is_empty() || !scan.feed(bytes, |_, _| {}) || scan.wanted() as u64 > len {
            break;
        }
    }
    Ok(Looked { info, len, scanned: scan.finish(), foreign: false })
}

/// Line ends up to a place in a file.
fn lines_up_to(disk: &dyn Disk, path: &Path, end: u64) -> u64 {
    let (mut lines, mut left) = (1, end);
    let Ok(mut stream) = Stream::open(disk, path) else { return lines };
    while left > 0 {
        let Ok(bytes) = stream.next() else { break };
        if bytes.is_empty() {
            break;
        }
        let taken = bytes.len().min(left as usize);
        lines += bytes[..taken].iter().filter(|byte| **byte == b'\n').count() as u64;
        left -= taken as u64;
    }
    lines
}

/// Says what a file holds, and repairs it if that is asked for. `kind` is what it is called.
fn report(
    disk: &dyn Disk,
    path: &Path,
    (looked, limit): &(Looked, u64),
    kind: &str,
    may_cut: bool,
    repair: Repair,
) -> Result<(), String> {
    let name = &looked.info.name;
    if looked.len == 0 {
        println!("{kind} {name} is empty");
        return Ok(());
    }
    if let (Repair::Until(seconds), Some(from)) = (repair, looked.scanned.too_late) {
        if from == 0 {
            return Err(format!("AOF {name} has nothing before timestamp {seconds}, aborting..."));
        }
        if !may_cut {
            return Err(format!(
                "Failed to truncate AOF {name} to timestamp {seconds} to offset {from} because it is not the last \
                 file.\nIf you insist, please delete all files after this file according to the manifest file and \
                 delete the corresponding records in manifest file manually. Then re-run ringshard check aof."
            ));
        }
        disk.truncate(path, from).map_err(|_| format!("Failed to truncate AOF {name} to timestamp {seconds}"))?;
        println!("Successfully truncated AOF {name} to timestamp {seconds}");
        return Ok(());
    }
    match &looked.scanned.end {
        End::Bad(offset, reason) => println!("{offset:#16x}: {reason}\nAOF {name} format error"),
        End::Truncated { in_multi: true } => println!("Reached EOF before reading EXEC for MULTI"),
        End::Truncated { .. } => println!("Reached EOF in the midst of a command"),
        End::Whole => {}
    }
    if *limit < looked.scanned.valid {
        println!("{limit:#16x}: a command over several shards lacks its part in another log");
    }
    let diff = looked.len - limit;
    if diff == 0 && matches!(repair, Repair::Until(_)) {
        let Repair::Until(seconds) = repair else { unreachable!("just seen") };
        println!("Truncate nothing in AOF {name} to timestamp {seconds}");
    } else {
        println!(
            "AOF analyzed: filename={name}, size={}, ok_up_to={limit}, ok_up_to_line={}, diff={diff}",
            looked.len,
            lines_up_to(disk, path, broken_at(looked, *limit))
        );
    }
    if diff == 0 {
        println!("{kind} {name} is valid");
        return Ok(());
    }
    if repair != Repair::Fix {
        return Err(format!("AOF {name} is not valid. Use the --fix option to try fixing it."));
    }
    if !may_cut {
        return Err(format!("Failed to truncate AOF {name} because it is not the last file"));
    }
    println!("This will shrink the AOF {name} from {} bytes, with {diff} bytes, to {limit} bytes", looked.len);
    print!("Continue? [y/N]: ");
    let _ = std::io::stdout().flush();
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    if !answer.starts_with(['y', 'Y']) {
        return Err("Aborting...".into());
    }
    disk.truncate(path, *limit).map_err(|_| format!("Failed to truncate AOF {name}"))?;
    println!("Successfully truncated AOF {name}");
    Ok(())
}

/// Where reading stopped, as far as is known: redis-check-aof counts lines up to there.
fn broken_at(looked: &Looked, limit: u64) -> u64 {
    match looked.scanned.end {
        End::Bad(at, _) => at,
        End::Truncated { .. } => looked.len,
        End::Whole => limit,
    }
}

fn check_old(disk: &dyn Disk, path: &Path, repair: Repair) -> Result<(), String> {
    println!("Start checking Old-Style AOF");
    let name = path.display().to_string();
    let start = preamble(disk, path, &name)?;
    let info = FileInfo { name, seq: 1, shard: (0, 1) };
    let looked = look_at_tail(disk, path, info, start, until(repair))?;
    let limit = looked.scanned.valid;
    report(disk, path, &(looked, limit), "AOF", true, repair)
}

fn until(repair: Repair) -> Option<i64> {
    match repair {
        Repair::Until(seconds) => Some(seconds),
        _ => None,
    }
}

fn check_manifest(disk: &dyn Disk, path: &Path, text: &[u8], repair: Repair) -> Result<(), String> {
    println!("Start checking Multi Part AOF");
    let manifest = Manifest::parse(text).map_err(|bad| say_bad_manifest(&bad))?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let name = file.strip_suffix(".manifest").unwrap_or(&file);
    match repair {
        Repair::No => match journal::bytes_missing(disk, dir, name, &manifest)? {
            0 => {}
            n => {
                println!("The journal holds {n} bytes that the files lack: a start of the server, or --fix, adds them.")
            }
        },
        Repair::Fix | Repair::Until(_) => journal::replay(disk, dir, name, &manifest)?,
    }
    if let Some(base) = &manifest.base {
        let path = dir.join(&base.name);
        let start = preamble(disk, &path, &base.name)?;
        println!("Start to check BASE AOF ({} format).", if start > 0 { "RDB" } else { "RESP" });
        let looked = look_at_tail(disk, &path, base.clone(), start, until(repair))?;
        let limit = looked.scanned.valid;
        report(disk, &path, &(looked, limit), "BASE AOF", manifest.increments.is_empty(), repair)?;
    }
    if manifest.increments.is_empty() {
        println!("All AOF files and manifest are valid");
        return Ok(());
    }
    println!("Start to check INCR files.");
    let Recovered { mut generations, .. } = recover(disk, dir, &manifest, until(repair))?;
    let last = generations.len() - 1;
    let shards = generations[last].len();
    // Told in the order of the manifest; but cut off from the last file of a shard back, for what goes on in a later one
    // must not be there without what was before it.
    if repair == Repair::Fix {
        generations.reverse();
    }
    for (at, generation) in generations.iter().enumerate() {
        let is_last = if repair == Repair::Fix { at == 0 } else { at == last };
        let may_cut = is_last || shards > 1 && generation.len() == shards;
        for found in generation {
            report(disk, &dir.join(&found.0.info.name), found, "INCR AOF", may_cut, repair)?;
        }
    }
    println!("All AOF files and manifest are valid");
    Ok(())
}

#[cfg(test)]
pub(super) fn fix_quietly(disk: &dyn Disk, dir: &Path, manifest: &Manifest) {
    let recovered = recover(disk, dir, manifest, None).unwrap();
    for (looked, limit) in recovered.generations.iter().rev().flatten().filter(|(looked, limit)| *limit < looked.len) {
        disk.truncate(&dir.join(&looked.info.name), *limit).unwrap();
    }
}
