//! A base file of commands, for `aof-use-rdb-preamble no`: each key as the commands that make it. Collections are made
//! by commands of up to [`ITEMS`] items, so that loading one holds nobody up. Counterpart: `rewriteAppendOnlyFileRio`.

use crate::config::Config;
use crate::entry::{EntryPtr, StrRef};
use crate::object::ObjectRef;
use crate::propagate::write_command;
use crate::rdb::payload;
use crate::rdb::write::Style;
use crate::shared::Shared;
use crate::types::stream::{Stream, StreamId};

/// Most items of one command (Redis: `AOF_REWRITE_ITEMS_PER_CMD`).
const ITEMS: usize = 64;

fn write(out: &mut Vec<u8>, words: &[&[u8]]) {
    write_command(out, words.iter().copied());
}

/// What the file begins with: the time if that is wanted, and libraries of functions.
pub fn head(shared: &Shared, config: &Config, now_ms: i64) -> Vec<u8> {
    let mut out = Vec::new();
    if config.aof_timestamp_enabled {
        out.extend_from_slice(format!("#TS:{}\r\n", now_ms / 1000).as_bytes());
    }
    shared.scripts.with_libraries(|libraries| {
        for library in libraries.by_name.values() {
            write(&mut out, &[b"FUNCTION", b"LOAD", &library.code]);
        }
    });
    out
}

/// The keys behind it are in this database.
pub fn write_select(out: &mut Vec<u8>, db: usize) {
    write(out, &[b"SELECT", db.to_string().as_bytes()]);
}

/// Collects items until there are enough for a command.
struct Batch<'a> {
    out: &'a mut Vec<u8>,
    head: [&'a [u8]; 2],
    words: Vec<Vec<u8>>,
    items: usize,
}

impl<'a> Batch<'a> {
    fn new(out: &'a mut Vec<u8>, command: &'a [u8], key: &'a [u8]) -> Self {
        Batch { out, head: [command, key], words: Vec::new(), items: 0 }
    }

    fn item(&mut self, words: &[&[u8]]) {
        self.words.extend(words.iter().map(|word| word.to_vec()));
        self.items += 1;
        if self.items == ITEMS {
            self.end();
        }
    }

    fn end(&mut self) {
        if self.items > 0 {
            let words: Vec<&[u8]> = self.head.into_iter().chain(self.words.iter().map(|word| &word[..])).collect();
            write_command(self.out, words.into_iter());
        }
        self.words.clear();
        self.items = 0;
    }
}

fn text(text: StrRef<'_>) -> Vec<u8> {
    text.as_bytes(&mut itoa::Buffer::new()).to_vec()
}

/// Writes the commands that make a key. What no commands of few words make is restored from its payload.
pub fn write_key(out: &mut Vec<u8>, entry: EntryPtr, style: Style) {
    let key = entry.key();
    if let Some(value) = entry.string() {
        write(out, &[b"SET", key, value.as_bytes(&mut itoa::Buffer::new())]);
    } else {
        match entry.object().expect("what is no string is an object") {
            ObjectRef::String(value) => write(out, &[b"SET", key, value]),
            ObjectRef::List(list) => {
                let mut batch = Batch::new(out, b"RPUSH", key);
                list.for_each(|element| batch.item(&[&text(element)]));
                batch.end();
            }
            ObjectRef::Set(set) => {
                let mut batch = Batch::new(out, b"SADD", key);
                set.for_each(|member| batch.item(&[&text(member)]));
                batch.end();
            }
            ObjectRef::ZSet(set) => {
                let mut batch = Batch::new(out, b"ZADD", key);
                set.for_each(|member, score| {
                    let score = if score.is_infinite() { format!("{score}") } else { format!("{score:?}") };
                    batch.item(&[score.as_bytes(), &text(member)]);
                });
                batch.end();
            }
            ObjectRef::Hash(hash) => {
                let mut batch = Batch::new(out, b"HSET", key);
                hash.for_each(|field, value| batch.item(&[&text(field), &text(value)]));
                batch.end();
                if hash.next_expire().is_some() {
                    hash.for_each(|field, _| {
                        let field = text(field);
                        if let Some(at) = hash.expire_at(&field) {
                            write(out, &[b"HPEXPIREAT", key, at.to_string().as_bytes(), b"FIELDS", b"1", &field]);
                        }
                    });
                }
            }
            ObjectRef::Stream(stream) => write_stream(out, key, stream),
            #[allow(unreachable_patterns)]
            _ => {
                let payload = payload::dump(entry, style);
                write(out, &[b"RESTORE", key, b"0", &payload]);
            }
        }
    }
    if let Some(at) = entry.expire_at() {
        write(out, &[b"PEXPIREAT", key, at.to_string().as_bytes()]);
    }
}

fn id_text(id: StreamId) -> Vec<u8> {
    format!("{}-{}", id.ms, id.seq).into_bytes()
}

fn write_stream(out: &mut Vec<u8>, key: &[u8], stream: &Stream) {
    if stream.is_empty() {
        // An entry that is trimmed at once makes the stream.
        let id = if stream.last_id == StreamId::MIN { b"0-1".to_vec() } else { id_text(stream.last_id) };
        write(out, &[b"XADD", key, b"MAXLEN", b"0", &id, b"x", b"y"]);
    }
    for entry in stream.range(StreamId::MIN, StreamId::MAX) {
        let mut words = vec![b"XADD".to_vec(), key.to_vec(), id_text(entry.id)];
        entry.for_each(|field, value| words.extend([text(field), text(value)]));
        write_command(out, words.iter().map(|word| &word[..]));
    }
    let added = stream.entries_added.to_string();
    let (last, deleted) = (id_text(stream.last_id), id_text(stream.max_deleted_id));
    write(out, &[b"XSETID", key, &last, b"ENTRIESADDED", added.as_bytes(), b"MAXDELETEDID", &deleted]);
    for (name, group) in stream.groups() {
        let read = group.entries_read.map_or(-1, |read| read as i64).to_string();
        let last = id_text(group.last_id);
        write(out, &[b"XGROUP", b"CREATE", key, name, &last, b"ENTRIESREAD", read.as_bytes()]);
        for consumer in group.consumers() {
            write(out, &[b"XGROUP", b"CREATECONSUMER", key, name, &consumer.name]);
            for id in consumer.pending() {
                let Some(pending) = group.pending().get(id) else { continue };
                let (time, count) = (pending.delivery_time_ms.to_string(), pending.delivery_count.to_string());
                let words: [&[u8]; 12] = [
                    b"XCLAIM",
                    key,
                    name,
                    &consumer.name,
                    b"0",
                    &id_text(*id),
                    b"TIME",
                    time.as_bytes(),
                    b"RETRYCOUNT",
                    count.as_bytes(),
                    b"JUSTID",
                    b"FORCE",
                ];
                write(out, &words);
            }
        }
    }
}
