//! The log of slow commands: `SLOWLOG`.
//!
//! Any shard may run a slow command, so the log is shared, behind a lock that only slow commands and `SLOWLOG` take.

use std::collections::VecDeque;

use crate::args::Args;
use crate::commands::{CommandTable, UNKNOWN};
use crate::config::{Directive, flag};

/// Most arguments of a command that are kept (Redis: `SLOWLOG_ENTRY_MAX_ARGC`).
const MAX_ARGS: usize = 32;

/// Longest part of an argument that is kept (Redis: `SLOWLOG_ENTRY_MAX_STRING`).
const MAX_ARG_BYTES: usize = 128;

/// One slow command.
#[derive(Clone, Debug)]
pub struct SlowEntry {
    /// Counted from 0 since the start.
    pub id: u64,
    /// Unix time in seconds.
    pub time: i64,
    /// Duration in µs.
    pub duration_us: u64,
    /// The arguments, cut to a bounded length.
    pub args: Vec<Vec<u8>>,
    /// The client's id and place at its home, which fills in its address and name.
    pub client: (u32, u64),
    /// Address of the client.
    pub address: String,
    /// Name of the client.
    pub name: Vec<u8>,
}

/// Whether the argument at `index` is a secret that no log shall keep: passwords of `AUTH`, `HELLO … AUTH`, what
/// `ACL` is told of users, and sensitive directives in `CONFIG SET`, whatever `table` calls these commands.
pub fn is_secret(table: &CommandTable, args: Args<'_>, index: usize) -> bool {
    let id = table.find(args.at(0));
    if id == UNKNOWN {
        return false;
    }
    let name = table.row(id).name;
    if name == "auth" {
        return index > 0;
    }
    if name == "hello" {
        return (2..args.len()).any(|i| args.is(i, "auth") && (index == i + 1 || index == i + 2));
    }
    if name == "acl" && (args.is(1, "setuser") || args.is(1, "deluser") || args.is(1, "getuser")) {
        return index >= 2;
    }
    if name == "migrate" {
        return crate::commands::migrate::is_secret(args, index);
    }
    if name == "config" && args.is(1, "set") {
        return index >= 3
            && index % 2 == 1
            && Directive::find(args.at(index - 1)).is_some_and(|directive| directive.has(flag::SENSITIVE));
    }
    false
}

/// Arguments as the log keeps them: the first 31 and a count of the rest, each cut at 128 bytes, secrets left out.
pub fn trimmed(table: &CommandTable, args: Args<'_>) -> Vec<Vec<u8>> {
    let kept = if args.len() > MAX_ARGS { MAX_ARGS - 1 } else { args.len() };
    let mut list: Vec<Vec<u8>> = (0..kept)
        .map(|i| {
            let arg = args.at(i);
            match arg.len() {
                _ if is_secret(table, args, i) => b"(redacted)".to_vec(),
                n if n > MAX_ARG_BYTES => {
                    let mut cut = arg[..MAX_ARG_BYTES].to_vec();
                    cut.extend_from_slice(format!("... ({} more bytes)", n - MAX_ARG_BYTES).as_bytes());
                    cut
                }
                _ => arg.to_vec(),
            }
        })
        .collect();
    if args.len() > kept {
        list.push(format!("... ({} more arguments)", args.len() - kept).into_bytes());
    }
    list
}

/// The log, newest first.
#[derive(Debug, Default)]
pub struct SlowLog {
    entries: VecDeque<SlowEntry>,
    next_id: u64,
}

impl SlowLog {
    /// Adds an entry and drops what exceeds `max_len`.
    pub fn push(&mut self, mut entry: SlowEntry, max_len: usize) {
        entry.id = self.next_id;
        self.next_id += 1;
        self.entries.push_front(entry);
        self.entries.truncate(max_len);
    }

    /// The newest entries.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &SlowEntry> {
        self.entries.iter()
    }

    /// Forgets all entries; numbers go on.
    pub fn reset(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::OwnedArgs;
    use crate::commands::table;

    #[test]
    fn long_commands_are_cut() {
        let words: Vec<Vec<u8>> = (0..40).map(|_| vec![b'x'; 200]).collect();
        let owned = OwnedArgs::from_words(&words);
        let kept = trimmed(table(), owned.args());
        assert_eq!(kept.len(), 32);
        assert!(kept[0].ends_with(b"... (72 more bytes)"));
        assert_eq!(kept[31], b"... (9 more arguments)");
    }

    #[test]
    fn the_log_is_bounded_and_counts_on() {
        let entry = |n: u64| SlowEntry {
            id: 0,
            time: 0,
            duration_us: n,
            args: vec![],
            client: (0, 0),
            address: String::new(),
            name: vec![],
        };
        let mut log = SlowLog::default();
        (0..5).for_each(|n| log.push(entry(n), 3));
        assert_eq!(log.iter().map(|e| e.id).collect::<Vec<_>>(), [4, 3, 2]);
        log.reset();
        log.push(entry(9), 3);
        assert_eq!(log.iter().map(|e| e.id).collect::<Vec<_>>(), [5]);
    }
}
