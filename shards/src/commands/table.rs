//! The table of commands: every family's rows, and the way from a name to its row.

use std::sync::LazyLock;

use super::Command;
use crate::args::Args;
use crate::config::file::{FileDirective, LoadError};

/// Number of a row.
pub type CommandId = u16;

/// No such command.
pub const UNKNOWN: CommandId = CommandId::MAX;

static FAMILIES: &[&[Command]] = &[
    super::connection::TABLE,
    super::client_tracking::TABLE,
    super::string::TABLE,
    super::set::TABLE,
    super::zset::TABLE,
    super::zset_store::TABLE,
    super::geo::TABLE,
    super::keys::TABLE,
    super::dump::TABLE,
    super::migrate::TABLE,
    super::hash::TABLE,
    super::hash_expire::TABLE,
    super::list::TABLE,
    super::sort::TABLE,
    super::bitmap::TABLE,
    super::hyperloglog::TABLE,
    super::stream::TABLE,
    super::stream_group::TABLE,
    super::stream_info::TABLE,
    super::server::TABLE,
    super::replication::TABLE,
    super::aof::TABLE,
    super::save::TABLE,
    super::info::TABLE,
    super::config::TABLE,
    super::acl_command::TABLE,
    super::command::TABLE,
    super::memory::TABLE,
    super::slowlog::TABLE,
    super::latency::TABLE,
    super::debug::TABLE,
    super::lolwut::TABLE,
    super::cluster::TABLE,
    super::pubsub::TABLE,
    super::script::TABLE,
    super::function::TABLE,
    super::monitor::TABLE,
    crate::shard::multi::TABLE,
];

/// All commands.
pub struct CommandTable {
    rows: Vec<&'static Command>,
    /// What each row is called: its name, unless `rename-command` gave it another or none.
    names: Vec<Option<Box<[u8]>>>,
    /// Open addressing over names without `|`: row + 1, or 0.
    index: Vec<u16>,
    /// Rows of each container's subcommands, by the container's row.
    subcommands: Vec<Vec<CommandId>>,
}

static TABLE: LazyLock<CommandTable> = LazyLock::new(CommandTable::build);

/// The one table of the process.
pub fn table() -> &'static CommandTable {
    &TABLE
}

const INDEX_SIZE: usize = 2048;

/// A hash of the length and the first eight bytes but for letter case; names are few, so this seldom collides.
#[inline]
fn hash(name: &[u8]) -> usize {
    let mut word = [0u8; 8];
    let n = name.len().min(8);
    word[..n].copy_from_slice(&name[..n]);
    let word = u64::from_le_bytes(word) | 0x2020_2020_2020_2020;
    let mixed = (word ^ (name.len() as u64) << 3).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 53) as usize & (INDEX_SIZE - 1)
}

impl CommandTable {
    fn build() -> Self {
        let rows: Vec<&'static Command> = FAMILIES.iter().flat_map(|family| family.iter()).collect();
        let names = rows.iter().map(|row| Some(Box::from(row.name.as_bytes()))).collect();
        let mut table =
            CommandTable { index: vec![0; INDEX_SIZE], subcommands: vec![Vec::new(); rows.len()], names, rows };
        for id in 0..table.rows.len() {
            let name = table.rows[id].name;
            if let Some((container, _)) = name.split_once('|') {
                let parent = table.rows.iter().position(|row| row.name == container);
                table.subcommands[parent.expect("a subcommand's container has a row")].push(id as CommandId);
                continue;
            }
            assert!(table.find(name.as_bytes()) == UNKNOWN, "{name} has two rows");
            table.insert(id);
        }
        table
    }

    fn insert(&mut self, id: usize) {
        let Some(name) = &self.names[id] else { return };
        let mut at = hash(name);
        while self.index[at] != 0 {
            at = (at + 1) % INDEX_SIZE;
        }
        self.index[at] = id as u16 + 1;
    }

    /// The table that clients see after the configuration's `rename-command` lines. Rules of `ACL` go by the names that
    /// commands have by themselves, as in Redis, and so does [`table`].
    ///
    /// # Errors
    /// The first line that names what is not there, or takes a name that is.
    pub fn renamed(lines: &[FileDirective]) -> Result<Self, LoadError> {
        let mut table = Self::build();
        for line in lines {
            let (old, new) = (&line.args[0], &line.args[1]);
            let id = table.find(old);
            if id == UNKNOWN {
                return Err(line.error("No such command in rename-command"));
            }
            if !new.is_empty() && table.find(new) != UNKNOWN {
                return Err(line.error("Target command name already exists"));
            }
            table.names[id as usize] = (!new.is_empty()).then(|| Box::from(new.as_slice()));
            table.index.fill(0);
            for id in 0..table.rows.len() {
                if !table.rows[id].name.contains('|') {
                    table.insert(id);
                }
            }
        }
        Ok(table)
    }

    /// The row of what is called so, in any letter case, or [`UNKNOWN`]. The name holds no `|`.
    #[inline]
    pub fn find(&self, name: &[u8]) -> CommandId {
        let mut at = hash(name);
        loop {
            match self.index[at] {
                0 => return UNKNOWN,
                id if self.names[id as usize - 1].as_deref().is_some_and(|known| known.eq_ignore_ascii_case(name)) => {
                    return id - 1;
                }
                _ => at = (at + 1) % INDEX_SIZE,
            }
        }
    }

    /// The row that serves `args`: the subcommand's when the name is a container's and the subcommand is known.
    #[inline]
    pub fn resolve(&self, args: Args<'_>) -> CommandId {
        let id = self.find(args.at(0));
        if id != UNKNOWN && self.rows[id as usize].is_container() {
            return self.find_subcommand(id, args);
        }
        id
    }

    /// As [`CommandTable::resolve`], for words of a log: those that stand for a command's own are called as they are,
    /// whatever clients call them.
    pub fn resolve_logged(&self, args: Args<'_>) -> CommandId {
        match self.resolve(args) {
            UNKNOWN => table().resolve(args),
            id => id,
        }
    }

    fn find_subcommand(&self, container: CommandId, args: Args<'_>) -> CommandId {
        let Some(name) = args.get(1) else { return container };
        self.subcommands[container as usize]
            .iter()
            .copied()
            .find(|id| self.rows[*id as usize].short_name().as_bytes().eq_ignore_ascii_case(name))
            .unwrap_or(container)
    }

    /// The row of `container|sub` or of a plain name.
    pub fn find_full(&self, name: &[u8]) -> CommandId {
        match name.iter().position(|b| *b == b'|') {
            None => self.find(name),
            Some(bar) => {
                let container = self.find(&name[..bar]);
                if container == UNKNOWN {
                    return UNKNOWN;
                }
                let sub = &name[bar + 1..];
                self.subcommands[container as usize]
                    .iter()
                    .copied()
                    .find(|id| self.rows[*id as usize].short_name().as_bytes().eq_ignore_ascii_case(sub))
                    .unwrap_or(UNKNOWN)
            }
        }
    }

    /// The row with this number.
    #[inline]
    pub fn row(&self, id: CommandId) -> &'static Command {
        self.rows[id as usize]
    }

    /// The row as `ACL` rules know the command: one that is a subcommand only here counts as its container.
    pub fn ruled_by(&self, id: CommandId) -> CommandId {
        let row = self.row(id);
        match row.has(super::flag::SUBCOMMAND) {
            true => table().find(row.container_name().as_bytes()),
            false => id,
        }
    }

    /// The subcommands of a container's row.
    pub fn subcommands(&self, id: CommandId) -> &[CommandId] {
        &self.subcommands[id as usize]
    }

    /// All rows, subcommands included.
    pub fn rows(&self) -> impl Iterator<Item = (CommandId, &'static Command)> + '_ {
        self.rows.iter().enumerate().map(|(id, row)| (id as CommandId, *row))
    }

    /// Number of rows.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.rows.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_finds_its_row() {
        for (id, row) in table().rows() {
            assert_eq!(table().find_full(row.name.as_bytes()), id, "{}", row.name);
            assert_eq!(table().find_full(row.name.to_uppercase().as_bytes()), id, "{}", row.name);
            assert_eq!(row.name, row.name.to_lowercase());
            assert!(!row.summary.is_empty(), "{} has no summary", row.name);
        }
        assert_eq!(table().find(b"nosuch"), UNKNOWN);
        assert_eq!(table().find(b""), UNKNOWN);
    }
}
