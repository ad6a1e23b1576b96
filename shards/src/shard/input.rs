//! Bytes become commands.
//!
//! What arrived from up to [`MAX_INPUTS`] clients is parsed into one batch, and each command's bucket is prefetched as
//! its key is seen; then, with the buckets in the cache, the entries are; then the commands run. So the cache misses
//! of a pipeline, or of many clients' single requests, overlap instead of following each other.

use super::dispatch::Next;
use super::{Input, Shard};
use crate::args::{ArgRef, Args, KeyPlace, OwnedArgs};
use crate::client::{Query, gate};
use crate::commands::{CommandId, UNKNOWN};
use crate::limits::{BATCH_COMMANDS, BATCH_KEYS, KEPT_ARGUMENTS, LARGE_INPUT_BYTES};
use crate::resp::{Limits, Parsed};
use crate::router::{owner_of, place_keys};

/// Most clients whose input is taken in at once.
pub const MAX_INPUTS: usize = 64;

/// A command that was parsed and has not run.
#[derive(Clone, Copy, Debug)]
struct Parse {
    source: u32,
    command: CommandId,
    first: u32,
    argc: u32,
    first_place: u32,
    places: u32,
    start: u32,
    end: u32,
}

/// Parsed commands, where their arguments lie, and where their keys are.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    commands: Vec<Parse>,
    refs: Vec<ArgRef>,
    places: Vec<KeyPlace>,
}

impl Batch {
    #[inline(always)]
    fn places_of(&self, parse: &Parse) -> &[KeyPlace] {
        let first = parse.first_place as usize;
        match parse.places {
            1 => std::slice::from_ref(&self.places[first]),
            n => &self.places[first..first + n as usize],
        }
    }
}

/// One client's input while it is taken in.
#[derive(Clone, Copy)]
struct Source<'a> {
    client: u32,
    bytes: &'a [u8],
    /// Parsed up to here.
    at: usize,
    /// Not to be run from here on, though parsed: the client waits, or closes.
    stop: Option<usize>,
}

impl Shard {
    /// Takes in what clients sent.
    ///
    /// Where they are held to a bound, what a large input leaves with its client is counted before what stands behind it
    /// is run: the next client may ask whether that one has gone.
    pub(crate) fn received(&mut self, inputs: &[Input<'_>]) {
        if self.client_memory_limit == 0 {
            return self.take_input(inputs);
        }
        for part in inputs.split_inclusive(|input| input.bytes.len() >= LARGE_INPUT_BYTES) {
            self.take_input(part);
            part.iter().for_each(|input| self.count_memory(input.client));
        }
    }

    /// The buffer of a client that is in the midst of a large argument, with room behind its bytes for what is missing,
    /// but no more than `most`: what is read there need not be copied, and takes few reads. It comes back with
    /// [`Event::Filled`](super::Event::Filled) before anything else happens but mail.
    ///
    /// `None` where what is missing is no more than [`LARGE_INPUT_BYTES`]: other requests may stand behind it, and one
    /// read brings them all.
    pub fn lend_query(&mut self, index: u32, most: usize) -> Option<Vec<u8>> {
        let wanted = self.large_rest(index).filter(|_| most > LARGE_INPUT_BYTES)?;
        let client = self.clients[index as usize].as_deref_mut()?;
        Some(client.query.lend(wanted, most))
    }

    /// Whether a client is in the midst of a large argument: the next [`LARGE_INPUT_BYTES`] are only copied.
    pub fn awaits_large(&self, index: u32) -> bool {
        self.large_rest(index).is_some()
    }

    /// How much of a large argument is missing, if that is more than [`LARGE_INPUT_BYTES`].
    fn large_rest(&self, index: u32) -> Option<usize> {
        let client = self.clients.get(index as usize)?.as_deref()?;
        if client.gate & (gate::WAITING | gate::CLOSING) != 0 {
            return None;
        }
        Some(client.parser.wanted(client.query.pending().len())).filter(|wanted| *wanted > LARGE_INPUT_BYTES)
    }

    /// Takes in what was read into a client's own buffer.
    pub(crate) fn filled(&mut self, index: u32, buffer: Vec<u8>, bytes: usize) {
        let Some(client) = self.clients[index as usize].as_deref_mut() else { return };
        client.query.take_back(buffer);
        if bytes > 0 {
            client.net_in += bytes as u64;
            self.core.stats.net_input_bytes += bytes as u64;
            self.received(&[Input { client: index, bytes: &[] }]);
        }
    }

    fn take_input(&mut self, inputs: &[Input<'_>]) {
        assert!(inputs.len() <= MAX_INPUTS);
        // Clients with input left over get the new bytes behind it, and are read from there.
        let mut kept: Vec<(usize, Query)> = Vec::new();
        for (i, input) in inputs.iter().enumerate() {
            let Some(client) = self.clients[input.client as usize].as_deref_mut() else { continue };
            client.net_in += input.bytes.len() as u64;
            client.last_interaction_ms = self.core.now_ms;
            self.core.stats.net_input_bytes += input.bytes.len() as u64;
            self.core.stats.reads_processed += 1;
            if client.query.is_empty() && client.gate & gate::WAITING == 0 {
                continue;
            }
            client.query.append(input.bytes);
            let limit = (self.core.config.client_query_buffer_limit as usize).min(u32::MAX as usize);
            if client.query.pending().len() > limit {
                self.core.stats.query_buffer_limit_disconnections += 1;
                self.close_now(input.client);
            } else if client.gate & gate::WAITING == 0 {
                kept.push((i, std::mem::take(&mut client.query)));
            }
        }
        let mut sources = [Source { client: 0, bytes: &[], at: 0, stop: None }; MAX_INPUTS];
        let mut count = 0;
        let mut kept_at = kept.iter().peekable();
        for (i, input) in inputs.iter().enumerate() {
            let bytes = match kept_at.next_if(|(k, _)| *k == i) {
                Some((_, query)) => query.pending(),
                None => input.bytes,
            };
            match self.clients[input.client as usize].as_deref() {
                Some(client) if client.gate & gate::WAITING == 0 => {
                    sources[count] = Source { client: input.client, bytes, at: 0, stop: None };
                    count += 1;
                }
                _ => {}
            }
        }
        self.run_sources(&mut sources[..count]);
        let mut consumed = [0usize; MAX_INPUTS];
        for (source, consumed) in sources[..count].iter().zip(&mut consumed) {
            *consumed = source.stop.unwrap_or(source.at);
            let rest = &source.bytes[*consumed..];
            let Some(client) = self.clients[source.client as usize].as_deref_mut() else { continue };
            let is_kept = kept.iter().any(|(i, _)| inputs[*i].client == source.client);
            if !rest.is_empty() && client.gate & gate::CLOSING == 0 && !is_kept {
                // An argument of 1 MiB fits with what stands around it; a larger one has to come first.
                client.query.reserve(client.parser.wanted(rest.len()).min((1 << 20) + 1024) + rest.len());
                client.query.append(rest);
            }
        }
        let places: Vec<(u32, usize)> = match kept.is_empty() {
            true => Vec::new(),
            false => sources[..count].iter().zip(consumed).map(|(source, n)| (source.client, n)).collect(),
        };
        for (i, mut query) in kept {
            // A long argument that trickles in stays where it is; it is not copied again for each read.
            let index = inputs[i].client;
            let Some(client) = self.clients[index as usize].as_deref_mut() else { continue };
            if let Some((_, n)) = places.iter().find(|(client, _)| *client == index) {
                query.consume(*n);
                client.query = query;
            }
        }
    }

    /// Runs the kept input of clients that may go on.
    pub(crate) fn run_resumed(&mut self) {
        while let Some(index) = self.resume.pop() {
            let Some(client) = self.clients[index as usize].as_deref_mut() else { continue };
            if client.gate & (gate::WAITING | gate::CLOSING) != 0 || client.query.is_empty() {
                self.see_end(index);
                continue;
            }
            let query = std::mem::take(&mut client.query);
            let mut source = [Source { client: index, bytes: query.pending(), at: 0, stop: None }];
            self.run_sources(&mut source);
            let consumed = source[0].stop.unwrap_or(source[0].at);
            if let Some(client) = self.clients[index as usize].as_deref_mut() {
                debug_assert!(client.query.is_empty());
                client.query = query;
                client.query.consume(consumed);
            }
            self.see_end(index);
        }
    }

    /// Has a client whose peer has ended looked at, now that what it has sent may have been run.
    pub(crate) fn see_end(&mut self, index: u32) {
        if self.clients[index as usize].as_deref().is_some_and(|client| client.gate & gate::ENDED != 0) {
            self.queue_flush(index);
        }
    }

    fn run_sources(&mut self, sources: &mut [Source<'_>]) {
        let mut batch = std::mem::take(&mut self.batch);
        self.clock.restart();
        for s in 0..sources.len() {
            self.parse_source(s, sources, &mut batch);
        }
        self.run_batch(sources, &mut batch);
        self.batch = batch;
    }

    /// Parses one client's input to its end, running the batch whenever it is full.
    fn parse_source(&mut self, s: usize, sources: &mut [Source<'_>], batch: &mut Batch) {
        while sources[s].stop.is_none() {
            let Source { client: index, bytes, at, .. } = sources[s];
            if at == bytes.len() {
                return;
            }
            let Some(client) = self.clients[index as usize].as_deref_mut() else {
                sources[s].stop = Some(bytes.len());
                return;
            };
            let limits = Limits {
                bulk_bytes: self.core.config.proto_max_bulk_len as i64,
                authenticated: client.gate & gate::NEEDS_AUTH == 0,
            };
            let first = batch.refs.len();
            match client.parser.parse(&bytes[at..], at as u32, &mut batch.refs, &limits) {
                Parsed::Command { end } => {
                    let argc = (batch.refs.len() - first) as u32;
                    let args = Args::new(bytes, &batch.refs[first..]);
                    let command = self.core.table.resolve(args);
                    let mut parse = Parse {
                        source: s as u32,
                        command,
                        first: first as u32,
                        argc,
                        first_place: batch.places.len() as u32,
                        places: 0,
                        start: at as u32,
                        end: (at + end) as u32,
                    };
                    sources[s].at = at + end;
                    if command != UNKNOWN {
                        let db = client.db;
                        self.place_keys(command, args, db, &mut batch.places);
                        parse.places = batch.places.len() as u32 - parse.first_place;
                    }
                    batch.commands.push(parse);
                    // Before AUTH has run, what follows it would be held to the limits of strangers.
                    let full = batch.commands.len() == BATCH_COMMANDS || batch.places.len() >= BATCH_KEYS;
                    if full || !limits.authenticated {
                        self.run_batch(sources, batch);
                    }
                }
                Parsed::Nothing { end } => sources[s].at = at + end,
                Parsed::Inline { end, words } => {
                    // What stands before it in this input runs first; so does it, with words of its own.
                    self.run_batch(sources, batch);
                    if sources[s].stop.is_some() {
                        return;
                    }
                    let owned = OwnedArgs::from_words(&words);
                    let command = self.core.table.resolve(owned.args());
                    let mut places = Vec::new();
                    if command != UNKNOWN {
                        let db = self.client(index).db;
                        self.place_keys(command, owned.args(), db, &mut places);
                    }
                    match self.process(index, command, owned.args().with_places(&places)) {
                        Next::Done => sources[s].at = at + end,
                        next => self.stop_source(&mut sources[s], at, at + end, next),
                    }
                }
                Parsed::Incomplete => {
                    return;
                }
                Parsed::Broken(reason) => {
                    self.run_batch(sources, batch);
                    if sources[s].stop.is_none() {
                        self.protocol_error(index, &reason);
                        sources[s].stop = Some(bytes.len());
                    }
                }
            }
        }
    }

    /// Finds where the keys of a command are that has one, or that splits, and asks for their buckets if all are here.
    #[inline(always)]
    fn place_keys(&self, command: CommandId, args: Args<'_>, db: u16, places: &mut Vec<KeyPlace>) {
        let row = self.core.table.row(command);
        if row.single_key != 0 && (row.single_key as usize) < args.len() {
            let place = self.place_of(args.at(row.single_key as usize));
            self.expect_here(&[place], db);
            places.push(place);
        } else if let Some(kind) = row.split {
            let first = places.len();
            place_keys(args, kind.step(), &self.core.hasher, self.core.shards, places);
            self.expect_here(&places[first..], db);
        }
    }

    #[inline(always)]
    fn place_of(&self, key: &[u8]) -> KeyPlace {
        KeyPlace::new(self.core.hasher.hash(key), owner_of(key, self.core.shards))
    }

    /// Asks for the buckets of a command's keys, if all of them are here: else it runs later, part by part, and each owner
    /// asks then.
    #[inline(always)]
    fn expect_here(&self, places: &[KeyPlace], db: u16) {
        let own = self.core.id;
        if places.iter().all(|place| place.owner() == own)
            && let Some(slice) = &self.slices[own as usize]
        {
            let dict = &slice.dbs[db as usize].dict;
            places.iter().for_each(|place| dict.prefetch_bucket(place.hash()));
        }
    }

    fn stop_source(&mut self, source: &mut Source<'_>, start: usize, end: usize, next: Next) {
        source.stop = Some(match next {
            Next::Done | Next::Wait => end,
            Next::Again => start,
            Next::Closed => source.bytes.len(),
        });
        // The parser may stand inside a later command, which will be read again from its first byte.
        if let Some(client) = self.clients[source.client as usize].as_deref_mut() {
            client.parser = Default::default();
        }
    }

    fn run_batch(&mut self, sources: &mut [Source<'_>], batch: &mut Batch) {
        if batch.places.len() > 1 {
            if let Some(slice) = &self.slices[self.core.id as usize] {
                for parse in &batch.commands {
                    let index = sources[parse.source as usize].client as usize;
                    let db = self.clients[index].as_ref().map_or(0, |client| client.db);
                    let dict = &slice.dbs[db as usize].dict;
                    match batch.places_of(parse) {
                        [place] if place.owner() == self.core.id => dict.prefetch_element(place.hash()),
                        // A command that splits runs later; what its keys need is asked for then.
                        places if places.len() > 1 && places.iter().all(|place| place.owner() == self.core.id) => {
                            places.iter().take(BATCH_KEYS).for_each(|place| dict.prefetch_element(place.hash()));
                        }
                        _ => {}
                    }
                }
            }
        }
        for i in 0..batch.commands.len() {
            let parse = batch.commands[i];
            let source = &mut sources[parse.source as usize];
            if source.stop.is_some() {
                continue;
            }
            let refs = &batch.refs[parse.first as usize..(parse.first + parse.argc) as usize];
            let places = batch.places_of(&parse);
            let args = Args::new(source.bytes, refs).with_places(places);
            let next = match (self.clients[source.client as usize].as_deref(), places) {
                (None, _) => Next::Closed,
                (Some(client), [place]) if client.gate == 0 && !self.guarded => {
                    self.process_plain(source.client, parse.command, args, place.owner())
                }
                (Some(_), _) => self.process(source.client, parse.command, args),
            };
            if next != Next::Done {
                let source = &mut sources[parse.source as usize];
                self.stop_source(source, parse.start as usize, parse.end as usize, next);
            }
        }
        batch.commands.clear();
        batch.refs.clear();
        batch.refs.shrink_to(KEPT_ARGUMENTS);
        batch.places.clear();
        batch.places.shrink_to(KEPT_ARGUMENTS);
    }

    fn protocol_error(&mut self, index: u32, reason: &str) {
        let text = format!("ERR Protocol error: {reason}");
        self.reply_in_order(index, |reply| reply.error(&text));
        self.core.stats.count_error(&text);
        self.close_after_reply(index);
    }
}

#[cfg(test)]
mod tests {
    use crate::limits::LARGE_INPUT_BYTES;
    use crate::shard::Event;
    use crate::testing::{World, request};

    /// The epoll loop took an argument of 100 KB in seven turns, a part of 16 KB each, and copied it once more than Redis.
    #[test]
    fn the_rest_of_a_large_argument_is_read_to_its_place() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let conn = world.connect();
            let large: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
            for (len, most) in [(100_000, 1 << 20), (3_000_000, 1 << 20), (100_000, 17_000), (3_000_000, 300_000)] {
                let value = &large[..len];
                // With something before it and much behind it.
                let mut sent = [request(&[&b"PING"[..]]), request(&[b"SET", &b"k"[..], value])].concat();
                (0..2000).for_each(|_| sent.extend(request(&["APPEND", "k", "."])));
                let in_place = world.send_in_place(conn, &sent, most);
                assert!(in_place + LARGE_INPUT_BYTES * 2 >= len, "{in_place} of {len}");
                let replies = world.received(conn);
                assert!(replies.starts_with(b"+PONG\r\n+OK\r\n:"), "{}", replies.len());
                assert!(replies.ends_with(format!(":{}\r\n", len + 2000).as_bytes()));
                let got = world.call(conn, &["GETRANGE", "k", "0", &(len - 1).to_string()]);
                let start = got.iter().position(|byte| *byte == b'\n').unwrap() + 1;
                assert!(got[start..start + len] == *value, "{len} bytes, {most} at once, {shards} shard(s)");
            }
        }
    }

    /// Nothing is lent to who waits, or asks for little; and what comes back with nothing read has changed nothing.
    #[test]
    fn buffers_are_lent_for_large_arguments_alone() {
        let mut world = World::new(1);
        let (conn, other) = (world.connect(), world.connect());
        let lends = |world: &mut World| match world.shards[0].lend_query(0, 1 << 20) {
            Some(buffer) => {
                world.shards[0].step(Event::Filled(0, buffer, 0));
                true
            }
            None => false,
        };
        assert!(!lends(&mut world));
        world.send_only(conn, &request(&["SET", "k", &"v".repeat(LARGE_INPUT_BYTES)])[..30]);
        assert!(!lends(&mut world), "one read may bring more than the rest of it");
        world.send(conn, &request(&["SET", "k", &"v".repeat(LARGE_INPUT_BYTES)])[30..]);
        assert_eq!(world.received(conn), b"+OK\r\n");
        let set = request(&["SET", "k", &"w".repeat(100_000)]);
        world.send_only(conn, b"BLPOP list 0\r\n");
        world.send_only(conn, &set[..20_000]);
        assert!(!lends(&mut world), "it waits");
        assert_eq!(world.run(other, "RPUSH list x").to_string(), "1");
        assert!(lends(&mut world) && lends(&mut world));
        // Beyond the bound of a query buffer it is closed as if the bytes had been received.
        world.send_in_place(conn, &set[20_000..], 1 << 20);
        assert!(world.received(conn).ends_with(b"+OK\r\n"));
        assert_eq!(world.run(other, "STRLEN k").to_string(), "100000");
        world.run(other, "CONFIG SET client-query-buffer-limit 1048576");
        let endless = request(&["SET", "k", &"w".repeat(2_000_000)]);
        assert!(world.send_in_place(conn, &endless, 1 << 20) > 1_000_000);
        assert!(!world.is_open(conn));
        let stats = world.run(other, "INFO stats").text();
        assert!(stats.contains("client_query_buffer_limit_disconnections:1\r\n"), "{stats}");
    }
}
