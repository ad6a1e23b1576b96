//! `ringshard check rdb FILE`: looks through a snapshot, value by value, and says what is wrong and where.

use std::path::Path;
use std::process::ExitCode;

use ringshard_shards::config::Config;
use ringshard_shards::dict::Hasher;
use ringshard_shards::rdb::file::{self, Item, Reader, Source};
use ringshard_shards::rdb::read::{Cursor, Limits, value};
use ringshard_shards::rdb::{Error, kind};

use super::disk::RealDisk;
use super::stream::Stream;
use crate::clock;
use crate::net::os_text;

/// What was seen so far.
#[derive(Default)]
struct Seen {
    keys: u64,
    expires: u64,
    expired: u64,
    key: Option<(String, u8)>,
}

/// Runs the words after the program's name, if they ask for this.
pub fn run(words: &[String]) -> Option<ExitCode> {
    match words {
        [check, rdb, file] if check == "check" && rdb == "rdb" => Some(check_rdb(Path::new(file))),
        [check, aof, words @ ..] if check == "check" && aof == "aof" => Some(super::aof::check::run(words)),
        [check, ..] if check == "check" && !Path::new("check").exists() => {
            eprintln!("Usage: ringshard check rdb <rdb-file-name>\n       {}", super::aof::check::USAGE);
            Some(ExitCode::FAILURE)
        }
        _ => None,
    }
}

fn check_rdb(path: &Path) -> ExitCode {
    let source = match Stream::open(&RealDisk, path) {
        Ok(source) => source,
        Err(error) => {
            eprintln!("Cannot open file {}: {}", path.display(), os_text(&error));
            return ExitCode::FAILURE;
        }
    };
    println!("[offset 0] Checking RDB file {}", path.display());
    let mut seen = Seen::default();
    let mut reader = match Reader::new(source, true) {
        Ok(reader) => reader,
        Err(error) => return complain(0, &error, &seen),
    };
    let limits = Limits::of_config(&Config::default(), Hasher::new([1, 2]));
    match look_through(&mut reader, &mut seen, &limits) {
        Ok(checksum) => {
            let offset = reader.offset();
            println!(
                "[offset {offset}] {}",
                if checksum { "Checksum OK" } else { "RDB file was saved with checksum disabled: no check performed." }
            );
            println!("[offset {offset}] \\o/ RDB looks OK! \\o/");
            counts(&seen);
            ExitCode::SUCCESS
        }
        Err(error) => complain(reader.offset(), &error, &seen),
    }
}

/// Whether there was a checksum.
fn look_through<S: Source>(reader: &mut Reader<S>, seen: &mut Seen, limits: &Limits) -> Result<bool, Error> {
    let now = clock::now().0;
    loop {
        let offset = reader.offset();
        seen.key = None;
        match reader.item()? {
            Item::Aux(name, text) => {
                let [name, text] = [file::text(name)?, file::text(text)?];
                let [name, text] = [&name, &text].map(|bytes| String::from_utf8_lossy(bytes));
                println!("[offset {offset}] AUX FIELD {name} = '{text}'");
            }
            Item::Db(db) => println!("[offset {offset}] Selecting DB ID {db}"),
            Item::Sizes(..) => {}
            Item::Function(library) => {
                file::text(library)?;
            }
            Item::Key(whole, _) => {
                let mut from = Cursor { rest: whole };
                let (meta, key) = file::key(&mut from)?;
                seen.keys += 1;
                seen.expires += meta.expire_at.is_some() as u64;
                seen.expired += meta.expire_at.is_some_and(|at| at <= now) as u64;
                seen.key = Some((String::from_utf8_lossy(&key).into_owned(), meta.kind));
                match value(meta.kind, &mut from, limits) {
                    Ok(_) | Err(Error::Empty) => {}
                    Err(error) => return Err(error),
                }
            }
            Item::End(checksum) => return Ok(checksum),
        }
    }
}

/// Looks through the snapshot at the start of a log's file, and says what it holds.
///
/// # Errors
/// What is wrong with it.
pub(super) fn look_through_preamble<S: Source>(reader: &mut Reader<S>) -> Result<(), Error> {
    let mut seen = Seen::default();
    let limits = Limits::of_config(&Config::default(), Hasher::new([1, 2]));
    let result = look_through(reader, &mut seen, &limits);
    match &result {
        Ok(_) => {
            println!("[offset {}] \\o/ RDB looks OK! \\o/", reader.offset());
            counts(&seen);
        }
        Err(error) => {
            complain(reader.offset(), error, &seen);
        }
    }
    result.map(|_| ())
}

fn counts(seen: &Seen) {
    println!("[info] {} keys read", seen.keys);
    println!("[info] {} expires", seen.expires);
    println!("[info] {} already expired", seen.expired);
}

fn complain(offset: u64, error: &Error, seen: &Seen) -> ExitCode {
    println!("--- RDB ERROR DETECTED ---");
    println!("[offset {offset}] {error}");
    if let Some((key, kind)) = &seen.key {
        println!("[additional info] Reading key '{key}'");
        println!("[additional info] Reading type {kind} ({})", kind::name(*kind));
    }
    counts(seen);
    ExitCode::FAILURE
}
