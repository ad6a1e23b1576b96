//! Loading the last snapshot at the start: one thread reads the file and passes over values by their lengths, the
//! shards make values of them. Clients are served meanwhile, and told that the data is being loaded.

use std::io;
use std::sync::atomic::Ordering::*;
use std::time::Duration;

use ringshard_shards::config::Config;
use ringshard_shards::router::ShardId;
use ringshard_shards::snapshot::{LOADING_MAX, LoadBatch, distribute};

use super::disk::RealDisk;
use super::rdb::path;
use super::stream::Stream;
use crate::mailbox::Mail;
use crate::net::os_text;
use crate::server::Server;
use crate::{clock, log};

/// Opens the last snapshot, if there is one.
///
/// # Errors
/// What to say in the log.
pub fn open(config: &Config) -> Result<Option<Stream>, String> {
    let path = path(config);
    match Stream::open(&RealDisk, &path) {
        Ok(source) => Ok(Some(source)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(os_text(&error)),
    }
}

/// Loads the last snapshot; the shards' loops turn already.
///
/// # Errors
/// What to say in the log before the process ends.
pub fn load(server: &Server) -> Result<(), String> {
    let (shared, config) = (&server.shared, server.shared.config());
    let persistence = &shared.persistence;
    let began = clock::monotonic_us();
    let opened = open(&config).map_err(|text| format!("Fatal error loading the DB: {text}. Exiting."))?;
    let Some(source) = opened else { return Ok(()) };
    let total = std::fs::metadata(path(&config)).map_or(0, |meta| meta.len());
    persistence.loading_total.store(total, Relaxed);
    let mut said_us = began;
    let mut hand_out = |owner: ShardId, batch: LoadBatch, offset: u64| {
        persistence.loading_done.store(offset, Relaxed);
        let now = clock::monotonic_us();
        if now - said_us > 5_000_000 {
            said_us = now;
            let percent = offset as f64 * 100.0 / total.max(1) as f64;
            log::notice(format!("Loading the DB: {offset} of {total} bytes ({percent:.1} %)"));
        }
        delay(config.key_load_delay, batch.keys());
        let pending = &persistence.loading_pending[owner as usize].0;
        while pending.load(Acquire) > LOADING_MAX {
            std::thread::sleep(Duration::from_micros(100));
        }
        pending.fetch_add(batch.bytes(), AcqRel);
        server.mailboxes.of(owner as usize).push(Mail::Load(Box::new(batch)));
        failure(server)
    };
    let read = distribute(shared, source, config.rdbchecksum, false, &mut hand_out).map(|_| ());
    while persistence.loading_pending.iter().any(|pending| pending.0.load(Acquire) > 0) {
        std::thread::sleep(Duration::from_micros(100));
    }
    // What a shard found is the cause, when both complain.
    failure(server).and(read).map_err(|text| {
        log::warning(text);
        log::warning("Terminating server after rdb file reading failure.");
        "Fatal error loading the DB, check server logs. Exiting.".to_string()
    })?;
    let [loaded, expired, empty] = [0, 1, 2].map(|i| persistence.loaded[i].load(Relaxed));
    log::notice(format!(
        "Done loading RDB, keys loaded: {loaded}, keys expired: {expired}, empty keys skipped: {empty}."
    ));
    let seconds = (clock::monotonic_us() - began) as f64 / 1e6;
    log::notice(format!("DB loaded from disk: {seconds:.3} seconds"));
    Ok(())
}

fn failure(server: &Server) -> Result<(), String> {
    let error = server.shared.persistence.loading_error.lock().unwrap_or_else(|e| e.into_inner());
    error.clone().map_or(Ok(()), Err)
}

/// `key-load-delay`: so many µs for each key, or so many keys for each µs when negative.
pub(super) fn delay(each: i32, keys: usize) {
    let each = i64::from(each);
    let us = if each >= 0 { keys as i64 * each } else { keys as i64 / -each };
    if us > 0 {
        std::thread::sleep(Duration::from_micros(us as u64));
    }
}
