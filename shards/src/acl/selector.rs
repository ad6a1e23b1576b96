//! Selectors: which commands, keys and channels a user may use together.
//!
//! A user has one selector of its own and any number in parentheses; a command is allowed if one selector allows all
//! of it. The commands allowed are a bit for each row of the table; the rules that made them are kept as well, in
//! order and without those that later ones made moot, for they are what users are shown and what files hold.

use super::{Denied, Reason, RuleError};
use crate::args::Args;
use crate::commands::spec::acl::NAMES;
use crate::commands::{Command, CommandId, CommandTable, UNKNOWN, flag, key, table};
use crate::glob;

/// What a key pattern allows.
const READ: u8 = 1;
const WRITE: u8 = 2;

/// A key pattern and what it allows with the keys it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyPattern {
    access: u8,
    pattern: Vec<u8>,
}

impl KeyPattern {
    fn describe(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(match self.access {
            READ => b"%R~",
            WRITE => b"%W~",
            _ => b"~",
        });
        out.extend_from_slice(&self.pattern);
    }
}

/// See the module's page.
#[derive(Clone, Debug)]
pub struct Selector {
    /// A bit for each row.
    allowed: Vec<u64>,
    /// Whether all commands are allowed, without exception.
    all_commands: bool,
    /// Whether the rules begin with all commands, rather than none.
    from_all: bool,
    /// Rules on top of that: whether they allow, and the command or category.
    rules: Vec<(bool, Vec<u8>)>,
    /// Commands that are allowed with certain first arguments only.
    first_args: Vec<(CommandId, Vec<u8>)>,
    all_keys: bool,
    keys: Vec<KeyPattern>,
    all_channels: bool,
    channels: Vec<Vec<u8>>,
}

/// The row of a full name, unless it is hidden.
fn find(table: &CommandTable, name: &[u8]) -> Option<CommandId> {
    let id = table.find_full(name);
    (id != UNKNOWN && !table.row(id).has(flag::SUBCOMMAND)).then_some(id)
}

/// The bit of a category, in any letter case.
pub fn category(name: &[u8]) -> Option<u32> {
    NAMES.iter().find(|(_, known)| name.eq_ignore_ascii_case(known.as_bytes())).map(|(bit, _)| *bit)
}

/// Blanks and zero bytes would not survive the file that users are saved in.
pub(crate) fn has_spaces(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\x0b' | b'\x0c' | b'\r' | 0))
}

/// How a command uses the channels among its arguments.
struct ChannelUse {
    /// Only the first argument is one; else all are.
    first_only: bool,
    /// They are patterns, which only the same pattern among the rules allows.
    patterns: bool,
}

fn channels_of(name: &str) -> Option<ChannelUse> {
    let (first_only, patterns) = match name {
        "publish" | "spublish" => (true, false),
        "subscribe" | "ssubscribe" => (false, false),
        "psubscribe" => (false, true),
        // Ending a subscription needs no permission.
        _ => return None,
    };
    Some(ChannelUse { first_only, patterns })
}

/// What a key specification's flags need of a pattern.
fn needs(flags: u16) -> u8 {
    let mut access = 0;
    if flags & key::ACCESS != 0 {
        access |= READ;
    }
    if flags & (key::INSERT | key::DELETE | key::UPDATE) != 0 {
        access |= WRITE;
    }
    access
}

impl Selector {
    /// One that allows nothing, or all channels where `acl-pubsub-default` says so.
    pub(crate) fn new(all_channels: bool) -> Self {
        Selector {
            allowed: vec![0; table().len().div_ceil(64)],
            all_commands: false,
            from_all: false,
            rules: Vec::new(),
            first_args: Vec::new(),
            all_keys: false,
            keys: Vec::new(),
            all_channels,
            channels: Vec::new(),
        }
    }

    /// Whether it allows everything.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.all_commands && self.all_keys && self.all_channels
    }

    /// How many rules there are, itself one of them.
    pub(crate) fn rules(&self) -> usize {
        1 + self.rules.len() + self.keys.len() + self.channels.len()
    }

    /// Whether all channels are allowed.
    pub(crate) fn all_channels(&self) -> bool {
        self.all_channels
    }

    /// The channel patterns.
    pub(crate) fn channels(&self) -> &[Vec<u8>] {
        &self.channels
    }

    fn bit(&self, id: CommandId) -> bool {
        self.allowed[id as usize / 64] & 1 << (id % 64) != 0
    }

    fn set_bit(&mut self, id: CommandId, allow: bool) {
        let word = &mut self.allowed[id as usize / 64];
        match allow {
            true => *word |= 1 << (id % 64),
            false => {
                *word &= !(1 << (id % 64));
                self.all_commands = false;
            }
        }
    }

    /// A command with its subcommands.
    fn set_command(&mut self, id: CommandId, allow: bool) {
        self.set_bit(id, allow);
        self.first_args.retain(|(command, _)| *command != id);
        for sub in table().subcommands(id) {
            self.set_bit(*sub, allow);
        }
    }

    /// Adds a rule behind the others, in place of those it makes moot: the same one, and those about its subcommands.
    fn add_rule(&mut self, allow: bool, name: &[u8]) {
        let name = name.to_ascii_lowercase();
        self.rules.retain(|(_, old)| {
            let same = old.strip_prefix(name.as_slice());
            same.is_none_or(|rest| !rest.is_empty() && rest[0] != b'|')
        });
        self.rules.push((allow, name));
    }

    /// Takes one rule in.
    pub(crate) fn apply(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        let lower = rule.to_ascii_lowercase();
        match lower.as_slice() {
            b"allkeys" | b"~*" => (self.all_keys, self.keys) = (true, Vec::new()),
            b"resetkeys" => (self.all_keys, self.keys) = (false, Vec::new()),
            b"allchannels" | b"&*" => (self.all_channels, self.channels) = (true, Vec::new()),
            b"resetchannels" => (self.all_channels, self.channels) = (false, Vec::new()),
            b"allcommands" | b"+@all" => self.start_from(true),
            b"nocommands" | b"-@all" => self.start_from(false),
            [b'~' | b'%', ..] => return self.add_key_pattern(rule),
            [b'&', ..] => {
                let pattern = &rule[1..];
                if self.all_channels {
                    return Err(RuleError::AfterAllChannels);
                }
                if has_spaces(pattern) {
                    return Err(RuleError::Syntax);
                }
                if !self.channels.iter().any(|known| known == pattern) {
                    self.channels.push(pattern.to_vec());
                }
            }
            [sign @ (b'+' | b'-'), b'@', name @ ..] => {
                let allow = *sign == b'+';
                let bit = category(name).ok_or(RuleError::Unknown)?;
                self.add_rule(allow, &lower[1..]);
                let rows = table().rows().filter(|(_, row)| !row.has(flag::SUBCOMMAND));
                for (id, _) in rows.filter(|(_, row)| row.categories_all() & bit != 0) {
                    self.set_command(id, allow);
                }
            }
            [b'+', name @ ..] => return self.allow(name),
            [b'-', name @ ..] => {
                let id = find(table(), name).ok_or(RuleError::Unknown)?;
                self.set_command(id, false);
                self.add_rule(false, table().row(id).name.as_bytes());
            }
            _ => return Err(RuleError::Syntax),
        }
        Ok(())
    }

    fn start_from(&mut self, all: bool) {
        self.allowed.fill(if all { u64::MAX } else { 0 });
        (self.all_commands, self.from_all) = (all, all);
        self.rules.clear();
        self.first_args.clear();
    }

    /// `+command`, `+command|subcommand` or `+command|first-argument`, in lower case.
    fn allow(&mut self, name: &[u8]) -> Result<(), RuleError> {
        let table = table();
        let Some(bar) = name.iter().rposition(|byte| *byte == b'|') else {
            let id = find(table, name).ok_or(RuleError::Unknown)?;
            self.set_command(id, true);
            self.add_rule(true, name);
            return Ok(());
        };
        let (command, sub) = (&name[..bar], &name[bar + 1..]);
        let id = find(table, command).ok_or(RuleError::Unknown)?;
        if table.row(id).name.contains('|') {
            return Err(RuleError::FirstArgOfSubcommand);
        }
        // With blanks, what is read from a file would be further rules.
        if sub.is_empty() || has_spaces(sub) {
            return Err(RuleError::Syntax);
        }
        if table.subcommands(id).iter().any(|sub| !table.row(*sub).has(flag::SUBCOMMAND)) {
            let id = find(table, name).ok_or(RuleError::Unknown)?;
            self.set_command(id, true);
        } else if !self.first_args.iter().any(|(known, arg)| *known == id && arg == sub) {
            self.first_args.push((id, sub.to_vec()));
        }
        self.add_rule(true, name);
        Ok(())
    }

    /// `~pattern`, or `%R~pattern` and its kin.
    fn add_key_pattern(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        if self.all_keys {
            return Err(RuleError::AfterAllKeys);
        }
        let (access, pattern) = match rule[0] {
            b'~' => (READ | WRITE, &rule[1..]),
            _ => {
                let tilde = rule.iter().position(|byte| *byte == b'~').unwrap_or(rule.len());
                let mut access = 0;
                for letter in &rule[1..tilde] {
                    let bit = match letter.to_ascii_uppercase() {
                        b'R' => READ,
                        b'W' => WRITE,
                        _ => return Err(RuleError::Syntax),
                    };
                    if access & bit != 0 {
                        return Err(RuleError::Syntax);
                    }
                    access |= bit;
                }
                match rule.get(tilde + 1..) {
                    Some(pattern) if access != 0 => (access, pattern),
                    _ => return Err(RuleError::Syntax),
                }
            }
        };
        if has_spaces(pattern) {
            return Err(RuleError::Syntax);
        }
        match self.keys.iter_mut().find(|known| known.pattern == pattern) {
            Some(known) => known.access |= access,
            None => self.keys.push(KeyPattern { access, pattern: pattern.to_vec() }),
        }
        Ok(())
    }

    fn allows_command(&self, id: CommandId, row: &Command, args: Args<'_>) -> bool {
        self.all_commands
            || row.has(flag::NO_AUTH)
            || self.bit(id)
            || args.get(1).is_some_and(|first| {
                self.first_args.iter().any(|(command, arg)| *command == id && first.eq_ignore_ascii_case(arg))
            })
    }

    /// Whether a key may be used as the flags of its specification say.
    pub(crate) fn allows_key(&self, name: &[u8], flags: u16) -> bool {
        let access = needs(flags);
        self.all_keys
            || self
                .keys
                .iter()
                .any(|known| known.access & access == access && glob::matches(&known.pattern, name, false))
    }

    /// Whether any key may be used as these flags say.
    fn allows_every_key(&self, flags: u16) -> bool {
        let access = needs(flags);
        self.all_keys || self.keys.iter().any(|known| known.access & access == access && known.pattern == b"*")
    }

    /// Checks a command. `at` is the argument that an earlier selector refused.
    pub(crate) fn check(&self, id: CommandId, args: Args<'_>, at: &mut usize) -> Result<(), Reason> {
        let id = table().ruled_by(id);
        let row = table().row(id);
        if !self.allows_command(id, row, args) {
            return Err(Reason::Command);
        }
        if !self.all_keys {
            let mut refused = None;
            row.for_each_key_flags(args, &mut |index, flags| {
                // Of a command that a script only asks about, arguments may be missing.
                let there = index < args.len();
                if there && flags & key::NOT_KEY == 0 && refused.is_none() && !self.allows_key(args.at(index), flags) {
                    refused = Some(index);
                }
            });
            if let Some(index) = refused {
                *at = index;
                return Err(Reason::Key);
            }
        }
        if !self.all_channels
            && let Some(used) = channels_of(row.name)
        {
            let last = if used.first_only { 2 } else { args.len() };
            for index in 1..last.min(args.len()) {
                if !allows_channel(&self.channels, args.at(index), used.patterns) {
                    *at = index;
                    return Err(Reason::Channel);
                }
            }
        }
        Ok(())
    }

    /// Whether a command is allowed, and besides every key there is, as these flags say: for commands that reach keys
    /// which only the data names.
    pub(crate) fn allows_with_every_key(&self, id: CommandId, args: Args<'_>, flags: u16) -> bool {
        self.check(id, args, &mut 0).is_ok() && self.allows_every_key(flags)
    }

    /// The rules about commands, as `ACL SETUSER` takes them.
    pub(crate) fn describe_commands(&self) -> Vec<u8> {
        let mut out = if self.from_all { b"+@all".to_vec() } else { b"-@all".to_vec() };
        for (allow, name) in &self.rules {
            out.extend_from_slice(if *allow { b" +" } else { b" -" });
            out.extend_from_slice(name);
        }
        out
    }

    /// The key patterns, a blank between two.
    pub(crate) fn describe_keys(&self) -> Vec<u8> {
        if self.all_keys {
            return b"~*".to_vec();
        }
        let mut out = Vec::new();
        for (i, pattern) in self.keys.iter().enumerate() {
            if i > 0 {
                out.push(b' ');
            }
            pattern.describe(&mut out);
        }
        out
    }

    /// The channel patterns, a blank between two.
    pub(crate) fn describe_channels(&self) -> Vec<u8> {
        if self.all_channels {
            return b"&*".to_vec();
        }
        let patterns: Vec<Vec<u8>> = self.channels.iter().map(|name| [b"&", name.as_slice()].concat()).collect();
        patterns.join(&b' ')
    }

    /// All of it, as a file has it.
    pub(crate) fn describe(&self) -> Vec<u8> {
        let mut out = self.describe_keys();
        if !out.is_empty() {
            out.push(b' ');
        }
        if !self.all_channels {
            out.extend_from_slice(b"resetchannels ");
        }
        out.extend(self.describe_channels());
        if !out.ends_with(b" ") {
            out.push(b' ');
        }
        out.extend(self.describe_commands());
        out
    }
}

/// Whether these patterns allow a channel, or a pattern over channels.
pub(crate) fn allows_channel(known: &[Vec<u8>], name: &[u8], is_pattern: bool) -> bool {
    known.iter().any(|pattern| match is_pattern {
        true => pattern == name,
        false => glob::matches(pattern, name, false),
    })
}

impl Denied {
    /// The words of `NOPERM`, or those of `ACL DRYRUN`, which name what was refused.
    pub fn text(&self, user: &[u8], id: CommandId, args: Args<'_>, names_it: bool) -> String {
        let user = String::from_utf8_lossy(user);
        let what = match self.reason {
            Reason::Key => "key",
            Reason::Channel => "channel",
            Reason::Command | Reason::Auth => {
                let name = table().row(table().ruled_by(id)).name;
                return format!("User {user} has no permissions to run the '{name}' command");
            }
        };
        match names_it {
            false => format!("No permissions to access a {what}"),
            true => {
                let refused = String::from_utf8_lossy(args.at(self.at));
                format!("User {user} has no permissions to access the '{refused}' {what}")
            }
        }
    }
}
