//! `ACL LOG`: what was refused lately, like entries told once with a count.

use std::collections::VecDeque;

use super::Reason;
use crate::limits::ACL_LOG_OBJECT_BYTES;

/// Where a command was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Context {
    Toplevel,
    Multi,
    Lua,
}

impl Context {
    /// The word of `ACL LOG`.
    pub fn name(self) -> &'static str {
        match self {
            Context::Toplevel => "toplevel",
            Context::Multi => "multi",
            Context::Lua => "lua",
        }
    }
}

impl Reason {
    /// The word of `ACL LOG`.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Command => "command",
            Reason::Key => "key",
            Reason::Auth => "auth",
            Reason::Channel => "channel",
        }
    }
}

/// Something that was refused.
#[derive(Clone, Debug)]
pub struct Denial {
    /// What.
    pub reason: Reason,
    /// Where.
    pub context: Context,
    /// The command, key or channel.
    pub object: Vec<u8>,
    /// The user.
    pub username: Vec<u8>,
    /// The client's line of `CLIENT LIST`.
    pub client_info: String,
}

/// An entry of the log.
#[derive(Clone, Debug)]
pub struct AclEntry {
    /// The last of those it stands for.
    pub denial: Denial,
    /// How many those are.
    pub count: u64,
    /// Unique.
    pub id: u64,
    /// Unix ms of the first.
    pub created_ms: i64,
    /// Unix ms of the last.
    pub updated_ms: i64,
}

/// Entries further apart than this are told apart.
const GROUPED_WITHIN_MS: i64 = 60_000;

/// How many entries are looked at for one that is like a new one.
const LOOKED_AT: usize = 10;

/// See the module's page.
#[derive(Debug, Default)]
pub struct AclLog {
    entries: VecDeque<AclEntry>,
    next_id: u64,
}

impl AclLog {
    /// Notes a denial; at most `max_len` entries are kept.
    pub fn add(&mut self, mut denial: Denial, now_ms: i64, max_len: usize) {
        for text in [&mut denial.object, &mut denial.username] {
            if text.len() > ACL_LOG_OBJECT_BYTES {
                *text = text[..ACL_LOG_OBJECT_BYTES].to_vec();
            }
        }
        if max_len > 0 {
            let like = |entry: &AclEntry| {
                entry.denial.reason == denial.reason
                    && entry.denial.context == denial.context
                    && (now_ms - entry.updated_ms).abs() <= GROUPED_WITHIN_MS
                    && entry.denial.object == denial.object
                    && entry.denial.username == denial.username
            };
            let found = self.entries.iter().take(LOOKED_AT).position(like);
            let entry = match found.and_then(|at| self.entries.remove(at)) {
                Some(known) => AclEntry { denial, count: known.count + 1, updated_ms: now_ms, ..known },
                None => {
                    let id = self.next_id;
                    self.next_id += 1;
                    AclEntry { denial, count: 1, id, created_ms: now_ms, updated_ms: now_ms }
                }
            };
            self.entries.push_front(entry);
        }
        self.entries.truncate(max_len);
    }

    /// The entries, the last first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &AclEntry> {
        self.entries.iter()
    }

    /// Forgets all of them.
    pub fn reset(&mut self) {
        self.entries.clear();
    }
}
