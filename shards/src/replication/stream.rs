//! What a slice's writes did, as replicas are to be told, until the shard hands it to the [`super::feed::Feed`].
//!
//! Commands stand here as the stream will have them, but for what only the feed knows: whether a `SELECT` must go before
//! the first, and when a command over several slices is whole. So what is handed over is a row of [`Unit`]s: runs of
//! commands that can be added to the stream as they are, and between them parts of such commands.

use crate::propagate::write_command;

/// `MULTI` as it stands in the stream.
const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
/// `EXEC` likewise.
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

/// Adds a `SELECT`.
pub fn write_select(out: &mut Vec<u8>, db: u16) {
    write_command(out, [&b"SELECT"[..], itoa::Buffer::new().format(db).as_bytes()].into_iter());
}

/// Commands in order, `SELECT`s between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The commands.
    pub bytes: Vec<u8>,
    /// The database of the first; `None` if they are for none (`PING`).
    pub first_db: Option<u16>,
    /// Where a `SELECT` goes if the stream has another one selected: in the beginning, or behind a `MULTI` there.
    pub select_at: usize,
    /// The database of the last.
    pub last_db: Option<u16>,
    /// How many there are, `SELECT`, `MULTI` and `EXEC` not counted.
    pub commands: u64,
}

/// What is handed over in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Commands that stand by themselves.
    Run(Run),
    /// A part of the command with this number, of which there are so many.
    Part(u64, usize, Run),
}

impl Run {
    /// Of one command.
    pub fn of<'a>(db: Option<u16>, words: impl ExactSizeIterator<Item = &'a [u8]>) -> Run {
        let mut run = Run { first_db: db, last_db: db, commands: 1, ..Run::default() };
        write_command(&mut run.bytes, words);
        run
    }

    /// Adds a command.
    fn append<'a>(&mut self, db: u16, words: impl ExactSizeIterator<Item = &'a [u8]>) {
        if self.last_db != Some(db) {
            match self.first_db {
                None => self.first_db = Some(db),
                Some(_) => write_select(&mut self.bytes, db),
            }
            self.last_db = Some(db);
        }
        write_command(&mut self.bytes, words);
        self.commands += 1;
    }

    /// Adds the commands of another.
    pub fn join(&mut self, other: &Run) {
        if other.commands == 0 {
            return;
        }
        match (self.first_db, other.first_db) {
            (None, first) => (self.first_db, self.select_at) = (first, self.bytes.len() + other.select_at),
            (Some(_), Some(db)) if self.last_db != Some(db) => {
                self.bytes.extend_from_slice(&other.bytes[..other.select_at]);
                write_select(&mut self.bytes, db);
                self.bytes.extend_from_slice(&other.bytes[other.select_at..]);
                (self.last_db, self.commands) = (other.last_db, self.commands + other.commands);
                return;
            }
            _ => {}
        }
        self.bytes.extend_from_slice(&other.bytes);
        self.last_db = other.last_db.or(self.last_db);
        self.commands += other.commands;
    }

    /// Puts everything from `start` on between `MULTI` and `EXEC`.
    fn bracket(&mut self, start: usize) {
        self.bytes.splice(start..start, MULTI.iter().copied());
        self.bytes.extend_from_slice(EXEC);
        if start == 0 {
            self.select_at = MULTI.len();
        }
    }

    /// Puts all of it between `MULTI` and `EXEC`, if there is more than one command.
    pub fn bracketed(mut self) -> Run {
        if self.commands > 1 {
            self.bracket(0);
        }
        self
    }
}

/// What stood when a group was opened.
#[derive(Debug)]
struct Group {
    start: usize,
    commands: u64,
    dbs: (Option<u16>, Option<u16>),
}

/// See the module's page.
#[derive(Debug, Default)]
pub struct StreamLog {
    /// Whether replicas want to be told; all slices agree, for it is changed with all of them in hand.
    pub on: bool,
    units: Vec<Unit>,
    run: Run,
    group: Option<Group>,
}

impl StreamLog {
    /// Adds a command on database `db`.
    pub fn append<'a>(&mut self, db: u16, words: impl ExactSizeIterator<Item = &'a [u8]>) {
        self.run.append(db, words);
    }

    /// Begins what must be done as a whole.
    pub fn open_group(&mut self) {
        debug_assert!(self.group.is_none());
        let dbs = (self.run.first_db, self.run.last_db);
        self.group = Some(Group { start: self.run.bytes.len(), commands: self.run.commands, dbs });
    }

    /// Ends a group; more than one command in it are put between `MULTI` and `EXEC`.
    pub fn close_group(&mut self) {
        // Replicas may have come, and the stream been turned on, since the group was opened.
        let Some(group) = self.group.take() else { return };
        if self.run.commands - group.commands > 1 {
            self.run.bracket(group.start);
        }
    }

    /// Drops a group with all that was written in it.
    pub fn abandon_group(&mut self) {
        let Some(group) = self.group.take() else { return };
        self.run.bytes.truncate(group.start);
        self.run.commands = group.commands;
        (self.run.first_db, self.run.last_db) = group.dbs;
    }

    fn end_run(&mut self) {
        if !self.run.bytes.is_empty() {
            self.units.push(Unit::Run(std::mem::take(&mut self.run)));
        }
    }

    /// Begins this slice's part of a command over several.
    pub fn open_part(&mut self) {
        self.end_run();
        self.open_group();
    }

    /// Ends the part: of the command with this number, which has so many parts. It counts even if it did nothing.
    pub fn close_part(&mut self, number: u64, parts: usize) {
        // It is bracketed with the others.
        self.group = None;
        self.units.push(Unit::Part(number, parts, std::mem::take(&mut self.run)));
    }

    /// Whether there is nothing to take.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.run.bytes.is_empty() && self.units.is_empty()
    }

    /// Takes what was written so far.
    pub fn take(&mut self) -> Vec<Unit> {
        debug_assert!(self.group.is_none());
        self.end_run();
        std::mem::take(&mut self.units)
    }

    /// Forgets what was written.
    pub fn clear(&mut self) {
        *self = StreamLog { on: self.on, ..StreamLog::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> impl ExactSizeIterator<Item = &[u8]> {
        line.split(' ').map(str::as_bytes).collect::<Vec<_>>().into_iter()
    }

    fn text(run: &Run) -> String {
        String::from_utf8_lossy(&run.bytes).replace("\r\n", " ")
    }

    #[test]
    fn groups_of_several_are_bracketed() {
        let mut log = StreamLog::default();
        log.open_group();
        log.append(3, words("INCR a"));
        log.append(4, words("INCR b"));
        log.close_group();
        log.open_group();
        log.append(4, words("INCR c"));
        log.close_group();
        log.open_group();
        log.append(5, words("INCR d"));
        log.abandon_group();
        log.append(4, words("INCR e"));
        let units = log.take();
        let [Unit::Run(run)] = &units[..] else { panic!("{units:?}") };
        assert_eq!((run.first_db, run.last_db, run.commands), (Some(3), Some(4), 4));
        assert_eq!(
            text(run),
            "*1 $5 MULTI *2 $4 INCR $1 a *2 $6 SELECT $1 4 *2 $4 INCR $1 b *1 $4 EXEC *2 $4 INCR $1 c *2 $4 INCR $1 e "
        );
        assert_eq!(&run.bytes[..run.select_at], MULTI, "a SELECT goes behind MULTI");
        assert!(log.is_empty());
    }

    #[test]
    fn parts_stand_alone() {
        let mut log = StreamLog::default();
        log.append(0, words("INCR a"));
        log.open_part();
        log.append(0, words("DEL x"));
        log.append(0, words("SET b 1"));
        log.close_part(7, 2);
        log.open_part();
        log.close_part(8, 3);
        log.append(0, words("INCR c"));
        let units = log.take();
        let kinds: Vec<_> = units
            .iter()
            .map(|unit| match unit {
                Unit::Run(run) => (0, 0, run.commands),
                Unit::Part(number, parts, run) => (*number, *parts, run.commands),
            })
            .collect();
        assert_eq!(kinds, [(0, 0, 1), (7, 2, 2), (8, 3, 0), (0, 0, 1)]);
    }

    #[test]
    fn runs_are_joined_with_the_database_they_need() {
        let mut all = Run::default();
        all.join(&Run::default());
        all.join(&Run::of(Some(1), words("INCR a")));
        all.join(&Run::of(Some(1), words("INCR b")));
        all.join(&Run::of(Some(0), words("INCR c")));
        let all = all.bracketed();
        assert_eq!((all.first_db, all.last_db, all.select_at), (Some(1), Some(0), MULTI.len()));
        assert_eq!(
            text(&all),
            "*1 $5 MULTI *2 $4 INCR $1 a *2 $4 INCR $1 b *2 $6 SELECT $1 0 *2 $4 INCR $1 c *1 $4 EXEC "
        );
        assert_eq!(text(&Run::of(None, words("PING")).bracketed()), "*1 $4 PING ");
    }
}
