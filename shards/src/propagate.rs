//! Effects: what a write did, in words that do it again, for the log and for replicas.
//!
//! A command is repeated in its own words unless these are not deterministic or not true to what it did; then it says
//! others ([`crate::commands::Ctx::effect`]). Effects are kept with the slice that owns their key
//! ([`EffectLog`], which moves with a lent slice), so that each shard's log stands by itself: replaying the logs of
//! all shards, in any order, gives the same keys. Replicas get one stream for all shards ([`crate::replication`]), in
//! which a command over several slices stands in its own words. Counterpart: `propagateNow` and `alsoPropagate` in
//! `server.c`.

use std::sync::Arc;

use crate::aof;
use crate::args::{Args, OwnedArgs};
use crate::commands::spec::Split;
use crate::commands::{Route, UNKNOWN, key};
use crate::core::{Core, Fault};
use crate::db::{Keyspace, RedisDb};
use crate::rdb::payload;
use crate::rdb::write::Style;
use crate::resp::reply::write_head;
use crate::router::{ShardId, owner_of};

/// Words that make `key` what it is now: `DEL`, or `RESTORE` with its value and time to live.
pub fn state_words(core: &Core, db: &RedisDb, key: &[u8]) -> OwnedArgs {
    match db.dict.find(core.hasher.hash(key), key) {
        None => OwnedArgs::from_words(&[b"DEL", key]),
        Some(entry) => {
            let at = entry.expire_at().unwrap_or(0).to_string();
            let payload = payload::dump(entry, Style::of(&core.config));
            OwnedArgs::from_words(&[b"RESTORE", key, at.as_bytes(), &payload, b"REPLACE", b"ABSTTL"])
        }
    }
}

/// Hands a command to the slices it is about. Where its keys lie in several, or it read all of them, no slice's log can
/// repeat it alone, and each key it may have written is told as what it is now.
pub fn append_words(core: &Core, keys: &mut Keyspace<'_>, db: u16, words: Args<'_>) {
    let id = core.table.resolve_logged(words);
    if id == UNKNOWN || core.table.row(id).route != Route::Keys {
        // What is said of a whole slice, as `FLUSHALL`. Redis, which reads one log after the other, would do it to what
        // the logs before have made; it is told in words that Redis refuses.
        if core.shards > 1 {
            let own = std::iter::once(aof::SLICE_WORD).chain(words.iter_from(0)).collect::<Vec<_>>();
            return keys.slices().for_each(|slice| slice.log.append(db, own.iter().copied()));
        }
        return keys.slices().for_each(|slice| slice.log.append(db, words.iter_from(0)));
    }
    let row = core.table.row(id);
    let mut found: Vec<(usize, bool)> = Vec::new();
    row.for_each_key_flags(words, &mut |index, flags| found.push((index, flags & key::RO == 0)));
    let owner = |index: usize| owner_of(words.at(index), core.shards);
    let first = found.first().map_or(0, |(index, _)| owner(*index));
    let together = found.iter().all(|(index, _)| owner(*index) == first);
    let reads_all = core.shards > 1 && row.all_slices.is_some_and(|needs_all| needs_all(words));
    if together && !reads_all {
        let name = found.first().map_or(&b""[..], |(index, _)| words.at(*index));
        return keys.slice(name).log.append(db, words.iter_from(0));
    }
    if matches!(row.split, Some(Split::Done | Split::IfNone)) {
        // Pairs are told one by one.
        for (index, _) in found {
            let pair = [&b"SET"[..], words.at(index), words.get(index + 1).unwrap_or_default()];
            keys.slice(words.at(index)).log.append(db, pair.into_iter());
        }
        return;
    }
    let mut told: Vec<&[u8]> = Vec::new();
    for (index, _) in found.iter().filter(|(_, written)| *written) {
        let name = words.at(*index);
        if !told.contains(&name) {
            told.push(name);
            let slice = keys.slice(name);
            let state = state_words(core, &slice.dbs[db as usize], name);
            slice.log.append(db, state.args().iter_from(0));
        }
    }
}

/// Who is told of an effect: bits.
pub mod target {
    /// The append-only log.
    pub const LOG: u8 = 1;
    /// Replicas.
    pub const STREAM: u8 = 2;
    /// Both, as nearly always.
    pub const BOTH: u8 = LOG | STREAM;
}

/// One effect that a command says of itself.
#[derive(Debug)]
pub struct Said {
    /// On which database.
    pub db: u16,
    /// In which words.
    pub words: OwnedArgs,
    /// To whom: bits of [`target`].
    pub targets: u8,
}

/// The effects of the command that runs now, until they are handed to their slices.
#[derive(Debug)]
pub struct Effects {
    /// Whether anyone wants effects. When nobody does, nothing is written down.
    pub on: bool,
    /// Whether the log does.
    pub log: bool,
    /// Whether replicas do.
    pub stream: bool,
    /// To whom the command's own words are not to be repeated: bits of [`target`].
    pub(crate) replaced: u8,
    /// What was said so far.
    pub(crate) said: Vec<Said>,
    /// Who may be told at all (`redis.set_repl`).
    pub(crate) targets: u8,
}

impl Default for Effects {
    fn default() -> Self {
        Effects { on: false, log: false, stream: false, replaced: 0, said: Vec::new(), targets: target::BOTH }
    }
}

impl Effects {
    /// Says who wants effects from now on.
    pub fn set(&mut self, log: bool, stream: bool) {
        (self.log, self.stream, self.on) = (log, stream, log || stream);
    }

    /// Writes down one effect on database `db`, behind those before it.
    pub fn push(&mut self, db: u16, words: &[&[u8]]) {
        self.push_to(target::BOTH, db, words);
    }

    /// The same for some only.
    pub fn push_to(&mut self, targets: u8, db: u16, words: &[&[u8]]) {
        if self.on {
            self.said.push(Said { db, words: OwnedArgs::from_words(words), targets });
        }
    }
}

/// Hands words to those slices' logs that they are about, and to the stream for replicas.
pub fn tell(core: &Core, keys: &mut Keyspace<'_>, targets: u8, db: u16, words: Args<'_>) {
    if targets & target::LOG != 0 && keys.slices().next().is_some_and(|slice| slice.log.on) {
        append_words(core, keys, db, words);
    }
    if targets & target::STREAM != 0
        && let Some(stream) = keys.stream()
    {
        stream.append(db, words.iter_from(0));
    }
}

/// A command over several slices, as one of their logs tells of it: from `start` to `end`, positions in that log. It
/// counts only if the logs of all `participants` tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The number that it has in all of these logs, and no other has.
    pub number: u64,
    /// Whose logs tell of it.
    pub participants: Arc<[ShardId]>,
    /// Where it begins.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
}

/// A part of a log that leaves the slice, to be written to a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Whose log.
    pub shard: ShardId,
    /// Files of which generation it belongs into: a rewrite begins a new one.
    pub generation: u64,
    /// The commands.
    pub bytes: Vec<u8>,
    /// The log's position behind it.
    pub end: u64,
    /// Commands over several slices that end in it.
    pub marks: Vec<Mark>,
}

/// Effects on one slice, as commands in the protocol that clients speak, in order.
#[derive(Debug, Default)]
pub struct EffectLog {
    /// Whether effects are wanted; all slices agree, for it is changed with all of them in hand.
    pub on: bool,
    /// The commands, `SELECT`s between them.
    pub bytes: Vec<u8>,
    /// Commands since the log began, `SELECT`s not counted.
    pub count: u64,
    /// The database that the last command was for.
    db: Option<u16>,
    /// Where the open group began: offset, and `count` then.
    group: Option<(usize, u64)>,
    /// Bytes that were taken, ever.
    taken: u64,
    /// See [`Piece::generation`].
    generation: u64,
    /// What the bytes tell of several slices.
    marks: Vec<Mark>,
    /// What was written before the last cut and has not been taken.
    before_cut: Vec<Piece>,
    /// The second that was last written down, under `aof-timestamp-enabled`.
    stamped: i64,
}

impl EffectLog {
    /// Adds a command on database `db`.
    pub fn append<'a>(&mut self, db: u16, words: impl ExactSizeIterator<Item = &'a [u8]>) {
        if self.db != Some(db) {
            self.db = Some(db);
            let mut digits = itoa::Buffer::new();
            write_command(&mut self.bytes, [&b"SELECT"[..], digits.format(db).as_bytes()].into_iter());
        }
        write_command(&mut self.bytes, words);
        self.count += 1;
    }

    /// Adds a command that names no key, with a number that says which of its like came last.
    pub fn append_numbered(&mut self, shard: ShardId, number: u64, words: Args<'_>) {
        let mut command = Vec::new();
        write_command(&mut command, words.iter_from(0));
        self.bytes.extend_from_slice(&aof::spanning_line(number, &[shard], command.len()));
        self.bytes.extend_from_slice(&command);
        self.count += 1;
    }

    /// Writes the time down, once a second, outside of groups.
    #[inline]
    pub fn stamp(&mut self, core: &Core) {
        if core.config.aof_timestamp_enabled && self.on {
            let seconds = core.now_ms / 1000;
            if self.group.is_none() && seconds != self.stamped {
                self.stamped = seconds;
                self.bytes.extend_from_slice(format!("#TS:{seconds}\r\n").as_bytes());
            }
        }
    }

    /// Begins what must be repeated as a whole. Groups do not nest: an inner one is part of the outer.
    pub fn open_group(&mut self) -> bool {
        let opens = self.group.is_none();
        if opens {
            self.group = Some((self.bytes.len(), self.count));
        }
        opens
    }

    /// Whether the open group has a command.
    pub fn group_has_commands(&self) -> bool {
        self.group.is_some_and(|(_, count)| self.count > count)
    }

    /// Ends a group; more than one command in it are put between `MULTI` and `EXEC`.
    pub fn close_group(&mut self) {
        let (start, count) = self.group.take().expect("a group was opened");
        self.bracket(start, count);
    }

    fn bracket(&mut self, start: usize, count: u64) {
        if self.count - count > 1 {
            let mut multi = Vec::new();
            write_command(&mut multi, [&b"MULTI"[..]].into_iter());
            self.bytes.splice(start..start, multi);
            write_command(&mut self.bytes, [&b"EXEC"[..]].into_iter());
        }
    }

    /// Ends a group that is part of what several logs tell of, even if nothing is told here: a loader takes it only
    /// if it finds it in all of them.
    pub fn close_spanning_group(&mut self, number: u64, participants: &Arc<[ShardId]>) {
        let (start, count) = self.group.take().expect("a group was opened");
        self.bracket(start, count);
        let line = aof::spanning_line(number, participants, self.bytes.len() - start);
        let (start, from) = (start, self.taken + start as u64);
        self.bytes.splice(start..start, line);
        let end = self.position();
        self.marks.push(Mark { number, participants: participants.clone(), start: from, end });
    }

    /// Drops a group with all that was written in it.
    pub fn abandon_group(&mut self) {
        let (start, count) = self.group.take().expect("a group was opened");
        self.bytes.truncate(start);
        self.count = count;
        // A `SELECT` may have gone with it.
        self.db = None;
    }

    /// Bytes ever written.
    #[inline]
    pub fn position(&self) -> u64 {
        self.taken + self.bytes.len() as u64
    }

    /// From here on what is written belongs into files of another generation. Says from where on.
    pub fn cut(&mut self, shard: ShardId, generation: u64) -> u64 {
        if !self.bytes.is_empty() {
            let piece = self.take_bytes(shard);
            self.before_cut.push(piece);
        }
        self.generation = generation;
        self.db = None;
        self.stamped = 0;
        self.taken
    }

    fn take_bytes(&mut self, shard: ShardId) -> Piece {
        debug_assert!(self.group.is_none());
        self.taken = self.position();
        Piece {
            shard,
            generation: self.generation,
            bytes: std::mem::take(&mut self.bytes),
            end: self.taken,
            marks: std::mem::take(&mut self.marks),
        }
    }

    /// Whether there is nothing to take.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.before_cut.is_empty()
    }

    /// Takes what was written so far, in order.
    pub fn take_pieces(&mut self, shard: ShardId) -> Vec<Piece> {
        let mut pieces = std::mem::take(&mut self.before_cut);
        if !self.bytes.is_empty() {
            pieces.push(self.take_bytes(shard));
        }
        pieces
    }

    /// Takes what was written so far. The next command names its database again.
    pub fn take(&mut self) -> Vec<u8> {
        self.db = None;
        self.take_pieces(0).into_iter().flat_map(|piece| piece.bytes).collect()
    }
}

/// Begins a group in every slice in hand, unless one is open; says whether it did.
pub fn open_groups(core: &Core, keys: &mut Keyspace<'_>) -> bool {
    let mut opened = false;
    for slice in keys.slices() {
        slice.log.stamp(core);
        opened |= slice.log.open_group();
    }
    if opened && let Some(stream) = keys.stream() {
        stream.open_group();
    }
    opened
}

/// Ends the groups that [`open_groups`] began. If anything was written and several slices are in hand, all of them are
/// told, also those that were only read: what was written may come from what they held.
pub fn close_groups(core: &Core, keys: &mut Keyspace<'_>) {
    if let Some(stream) = keys.stream() {
        stream.close_group();
    }
    let spans = !core.leaves_out(Fault::NoMarks)
        && keys.slices().nth(1).is_some()
        && keys.slices().any(|slice| slice.log.group_has_commands());
    if !spans {
        return keys.slices().for_each(|slice| slice.log.close_group());
    }
    let participants: Arc<[ShardId]> = keys.slices().map(|slice| slice.owner).collect();
    let number = core.shared.aof.next_number();
    keys.slices().for_each(|slice| slice.log.close_spanning_group(number, &participants));
}

/// Drops the groups that [`open_groups`] began.
pub fn abandon_groups(keys: &mut Keyspace<'_>) {
    if let Some(stream) = keys.stream() {
        stream.abandon_group();
    }
    keys.slices().for_each(|slice| slice.log.abandon_group());
}

/// Adds a command to `out` as a client would send it.
pub fn write_command<'a>(out: &mut Vec<u8>, words: impl ExactSizeIterator<Item = &'a [u8]>) {
    write_head(out, b'*', words.len() as i64);
    for word in words {
        out.reserve(word.len() + 32);
        write_head(out, b'$', word.len() as i64);
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> impl ExactSizeIterator<Item = &[u8]> {
        line.split(' ').map(str::as_bytes).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn writes_are_repeated_and_reads_are_not() {
        let mut world = crate::testing::World::new(1);
        world.log_effects();
        let conn = world.connect();
        for line in ["SET k v", "GET k", "DEL none", "SET k v PX 10", "SELECT 2", "FLUSHALL"] {
            world.run(conn, line);
        }
        assert_eq!(world.effects(), ["SELECT 0", "SET k v", "SET k v PXAT 1700000000010", "SELECT 2", "FLUSHALL"]);
        world.run(conn, "SELECT 0");
        world.shards[0].core.active_expire = false;
        world.run(conn, "SET k v PX 10");
        world.advance(20);
        world.run(conn, "APPEND k w");
        assert_eq!(
            world.effects(),
            ["SELECT 0", "SET k v PXAT 1700000000010", "MULTI", "DEL k", "APPEND k w", "EXEC"],
            "what expired goes before what came after it"
        );
    }

    /// Runs lines, and says what they are told as.
    fn told(world: &mut crate::testing::World, conn: crate::testing::Conn, lines: &[&str]) -> Vec<String> {
        for line in lines {
            let reply = world.run(conn, line).to_string();
            assert!(!reply.starts_with('-'), "{line}: {reply}");
        }
        world.effects().into_iter().filter(|line| !line.starts_with("SELECT ")).collect()
    }

    #[test]
    fn what_depends_on_time_or_chance_is_told_as_what_it_did() {
        let mut world = crate::testing::World::new(1);
        world.log_effects();
        let conn = world.connect();
        let now = crate::testing::START_MS;
        for (lines, expected) in [
            (&["SET k 1 EX 10"][..], &[format!("SET k 1 PXAT {}", now + 10_000)][..]),
            (&["SET k 2 GET", "SET k 3 KEEPTTL"], &["SET k 2".into(), "SET k 3 KEEPTTL".into()]),
            (
                &["SETEX k 5 v", "PSETEX k 5 v"],
                &[format!("SET k v PXAT {}", now + 5000), format!("SET k v PXAT {}", now + 5)],
            ),
            (
                &["GETEX k PX 900", "GETEX k PERSIST", "GETEX k"],
                &[format!("PEXPIREAT k {}", now + 900), "PERSIST k".into()],
            ),
            (
                &["EXPIRE k 3 NX", "PEXPIRE k 7", "EXPIREAT k 1900000000"],
                &[
                    format!("PEXPIREAT k {}", now + 3000),
                    format!("PEXPIREAT k {}", now + 7),
                    "PEXPIREAT k 1900000000000".into(),
                ],
            ),
            (&["EXPIRE k -1"], &["DEL k".into()]),
            (&["SET k v PXAT 5"], &["DEL k".into()]),
            (&["SET k 1", "GETEX k EXAT 1"], &["SET k 1".into(), "DEL k".into()]),
            (&["SET k 1", "GETDEL k"], &["SET k 1".into(), "DEL k".into()]),
            (&["INCRBYFLOAT k 1.5"], &["SET k 1.5 KEEPTTL".into()]),
            (&["HINCRBYFLOAT h f 2.5"], &["HSET h f 2.5".into()]),
            (&["SADD s a", "SPOP s"], &["SADD s a".into(), "SREM s a".into()]),
            (&["SADD s a", "SPOP s 1"], &["SADD s a".into(), "DEL s".into()]),
            (&["SADD s a b", "SADD s a"], &["SADD s a b".into()]),
        ] {
            assert_eq!(told(&mut world, conn, lines), expected, "{lines:?}");
        }
        let popped = world.run(conn, "SPOP s").text();
        assert_eq!(told(&mut world, conn, &[]), [format!("SREM s {popped}")]);
        told(&mut world, conn, &["SADD t a b c d e f g"]);
        let popped: Vec<String> = world.run(conn, "SPOP t 3").items().iter().map(|member| member.text()).collect();
        assert_eq!(told(&mut world, conn, &[]), [format!("SREM t {}", popped.join(" "))]);
    }

    #[test]
    fn each_log_stands_by_itself() {
        // What all shards' logs say, replayed one after the other, in any order of shards, makes the same keys.
        let lines = [
            "MSET a 1 b 2 c 3 d 4 e 5 f 6",
            "RENAME a moved",
            "COPY b copied",
            "COPY c copied DB 2 REPLACE",
            "SADD s1 x y z",
            "SMOVE s1 s2 x",
            "SMOVE s1 s3 y",
            "SADD s4 y w",
            "SUNIONSTORE s5 s1 s2 s3 s4",
            "SINTERSTORE s6 s3 s4",
            "SDIFFSTORE s4 s4 s3",
            "RPUSH l1 1 2 3",
            "LMOVE l1 l2 LEFT RIGHT",
            "RPOPLPUSH l1 l3",
            "LMOVE l1 l1 LEFT RIGHT",
            "BLMOVE l2 l4 LEFT LEFT 1",
            "SET w1 3",
            "SET w2 1",
            "RPUSH ids 1 2",
            "SORT ids BY w* STORE sorted",
            "BITOP OR bits b c d",
            "PFADD p1 a b",
            "PFADD p2 c",
            "PFMERGE p3 p1 p2",
            "ZADD z1 1 a 2 b",
            "ZADD z2 5 a",
            "ZUNIONSTORE z3 2 z1 z2",
            "ZRANGESTORE z4 z1 0 0",
            "GEOADD g1 13 38 here",
            "GEOSEARCHSTORE g2 g1 FROMLONLAT 13 38 BYRADIUS 1 km",
            "EXPIRE copied 1000",
            "RENAME copied again",
            "MSETNX m1 1 m2 2 m3 3",
            "DEL d e",
            "MOVE f 3",
            "LMPOP 2 none l3 LEFT",
            "ZMPOP 2 none z2 MIN",
        ];
        for multi in [false, true] {
            let mut world = crate::testing::World::new(4);
            world.log_effects();
            let conn = world.connect();
            if multi {
                world.run(conn, "MULTI");
            }
            for line in lines {
                let reply = world.run(conn, line).to_string();
                assert!(!reply.starts_with('-'), "{line}: {reply}");
            }
            if multi {
                let reply = world.run(conn, "EXEC").to_string();
                assert!(!reply.contains('-'), "{reply}");
            }
            let logs: Vec<Vec<u8>> = world.shards.iter_mut().map(|shard| shard.take_effects()).collect();
            let digest = world.run(conn, "DEBUG DIGEST").to_string();
            for order in [[0, 1, 2, 3], [3, 1, 0, 2]] {
                let mut replayed = crate::testing::World::new(4);
                let conn = replayed.connect();
                for shard in order {
                    replayed.run(conn, "SELECT 0");
                    replayed.send(conn, &crate::testing::commands_of(&logs[shard]));
                    let said = String::from_utf8_lossy(&replayed.received(conn)).into_owned();
                    assert!(!said.contains("\r\n-") && !said.starts_with('-'), "{said}");
                }
                assert_eq!(replayed.run(conn, "DEBUG DIGEST").to_string(), digest, "in MULTI: {multi}");
            }
        }
    }

    #[test]
    fn databases_are_named_once_and_groups_wrap_several() {
        let mut log = EffectLog::default();
        log.append(0, words("SET a 1"));
        assert!(log.open_group());
        assert!(!log.open_group());
        log.append(0, words("DEL b"));
        log.append(3, words("DEL c"));
        log.close_group();
        log.open_group();
        log.append(3, words("DEL d"));
        log.close_group();
        let text = String::from_utf8(log.take()).unwrap().replace("\r\n", " ");
        assert_eq!(
            text,
            "*2 $6 SELECT $1 0 *3 $3 SET $1 a $1 1 *1 $5 MULTI *2 $3 DEL $1 b *2 $6 SELECT $1 3 *2 $3 DEL $1 c \
             *1 $4 EXEC *2 $3 DEL $1 d "
        );
        assert_eq!(log.count, 4);
    }
}
