//! Effects: what a write did, in words that do it again, for the log and for replicas.
//!
//! A command is repeated in its own words unless these are not deterministic or not true to what it did; then it says
//! others ([`crate::commands::Ctx::effect`]). Effects are kept with the slice that owns their key
//! ([`EffectLog`], which moves with a lent slice), so that each shard's log stands by itself: replaying the logs of
//! all shards, in any order, gives the same keys. Counterpart: `propagateNow` and `alsoPropagate` in `server.c`.

use crate::args::OwnedArgs;

/// The effects of the command that runs now, until they are handed to their slices.
#[derive(Debug, Default)]
pub struct Effects {
    /// Whether anyone wants effects. When nobody does, nothing is written down.
    pub on: bool,
    /// The command's own words are not to be repeated.
    pub(crate) replaced: bool,
    /// Words said so far, each with its database.
    pub(crate) said: Vec<(u16, OwnedArgs)>,
}

impl Effects {
    /// Writes down one effect on database `db`, behind those before it.
    pub fn push(&mut self, db: u16, words: &[&[u8]]) {
        if self.on {
            self.said.push((db, OwnedArgs::from_words(words)));
        }
    }
}

/// Effects on one slice, as commands in the protocol that clients speak, in order.
#[derive(Debug, Default)]
pub struct EffectLog {
    /// The commands, `SELECT`s between them.
    pub bytes: Vec<u8>,
    /// Commands since the log began, `SELECT`s not counted.
    pub count: u64,
    /// The database that the last command was for.
    db: Option<u16>,
    /// Where the open group began: offset, and `count` then.
    group: Option<(usize, u64)>,
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

    /// Begins what must be repeated as a whole. Groups do not nest: an inner one is part of the outer.
    pub fn open_group(&mut self) -> bool {
        let opens = self.group.is_none();
        if opens {
            self.group = Some((self.bytes.len(), self.count));
        }
        opens
    }

    /// Ends a group; more than one command in it are put between `MULTI` and `EXEC`.
    pub fn close_group(&mut self) {
        let (start, count) = self.group.take().expect("a group was opened");
        if self.count - count > 1 {
            let mut multi = Vec::new();
            write_command(&mut multi, [&b"MULTI"[..]].into_iter());
            self.bytes.splice(start..start, multi);
            write_command(&mut self.bytes, [&b"EXEC"[..]].into_iter());
        }
    }

    /// Drops a group with all that was written in it.
    pub fn abandon_group(&mut self) {
        let (start, count) = self.group.take().expect("a group was opened");
        self.bytes.truncate(start);
        self.count = count;
        // A `SELECT` may have gone with it.
        self.db = None;
    }

    /// Takes what was written so far. The next command names its database again.
    pub fn take(&mut self) -> Vec<u8> {
        debug_assert!(self.group.is_none());
        self.db = None;
        std::mem::take(&mut self.bytes)
    }
}

/// Adds a command to `out` as a client would send it.
pub fn write_command<'a>(out: &mut Vec<u8>, words: impl ExactSizeIterator<Item = &'a [u8]>) {
    let mut digits = itoa::Buffer::new();
    let mut line = |out: &mut Vec<u8>, mark: u8, n: usize| {
        out.push(mark);
        out.extend_from_slice(digits.format(n).as_bytes());
        out.extend_from_slice(b"\r\n");
    };
    line(out, b'*', words.len());
    for word in words {
        line(out, b'$', word.len());
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
        assert_eq!(world.effects(), ["SELECT 0", "SET k v", "SET k v PX 10", "SELECT 2", "FLUSHALL"]);
        world.run(conn, "SELECT 0");
        world.shards[0].core.active_expire = false;
        world.run(conn, "SET k v PX 10");
        world.advance(20);
        world.run(conn, "APPEND k w");
        assert_eq!(
            world.effects(),
            ["SELECT 0", "SET k v PX 10", "MULTI", "DEL k", "APPEND k w", "EXEC"],
            "what expired goes before what came after it"
        );
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
