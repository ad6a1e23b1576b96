//! `COMMAND`: the table of commands, told to clients in Redis's shapes.
//!
//! Everything comes from the rows: flags, categories and key specifications as they stand, the old triple of first
//! key, last key and step derived from the specifications, arguments read from the usage line ([`super::usage`]).
//! Counterpart: the end of `server.c`.

use super::usage::{self, ArgKind, Argument};
use super::{Command, CommandError, CommandId, CommandResult, CommandTable, Group, UNKNOWN, acl, flag, help, key};
use crate::args::Args;
use crate::commands::spec::{Begin, Find};
use crate::glob;
use crate::resp::Reply;
use crate::shard::Shard;

use flag::*;

const ANYTIME: u32 = LOADING | STALE;

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::home("command", command, -1, ANYTIME | CONTAINER, Group::Server).only_categories(acl::CONNECTION).doc(
        "2.8.13",
        "O(N), N being the number of commands",
        "Describes all commands.",
        "",
    ),
    row("command|count", count, 2, "2.8.13", "O(1)", "Counts the commands.", ""),
    row(
        "command|list",
        list,
        -2,
        "7.0.0",
        "O(N), N being the number of commands",
        "Returns the names of commands.",
        "[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]",
    ),
    row(
        "command|info",
        info,
        -2,
        "2.8.13",
        "O(N), N being the number of commands asked for",
        "Describes commands for machines.",
        "[command-name [command-name ...]]",
    ),
    row(
        "command|docs",
        docs,
        -2,
        "7.0.0",
        "O(N), N being the number of commands asked for",
        "Describes commands for people.",
        "[command-name [command-name ...]]",
    ),
    row(
        "command|getkeys",
        getkeys,
        -3,
        "2.8.13",
        "O(N), N being the number of arguments",
        "Returns the keys among the arguments of a command.",
        "command [arg [arg ...]]",
    ),
    row(
        "command|getkeysandflags",
        getkeysandflags,
        -3,
        "7.0.0",
        "O(N), N being the number of arguments",
        "Returns the keys among the arguments of a command, and what it does with each.",
        "command [arg [arg ...]]",
    ),
    row("command|help", command_help, 2, "5.0.0", "O(1)", "Lists the subcommands.", ""),
];

const fn row(
    name: &'static str,
    run: super::spec::HomeFn,
    arity: i16,
    since: &'static str,
    complexity: &'static str,
    summary: &'static str,
    usage: &'static str,
) -> Command {
    Command::home(name, run, arity, ANYTIME, Group::Server)
        .only_categories(acl::CONNECTION)
        .doc(since, complexity, summary, usage)
}

/// Commands that Redis's documentation advises against: since when, and what to use.
const DEPRECATED: [(&str, &str, &str); 12] = [
    ("cluster|slaves", "5.0.0", "`CLUSTER REPLICAS`"),
    ("cluster|slots", "7.0.0", "`CLUSTER SHARDS`"),
    ("getset", "6.2.0", "`SET` with the `!GET` argument"),
    ("hmset", "4.0.0", "`HSET` with multiple field-value pairs"),
    ("psetex", "2.6.12", "`SET` with the `PX` argument"),
    ("quit", "7.2.0", "just closing the connection"),
    ("rpoplpush", "6.2.0", "`LMOVE` with the `RIGHT` and `LEFT` arguments"),
    ("setex", "2.6.12", "`SET` with the `EX` argument"),
    ("setnx", "2.6.12", "`SET` with the `NX` argument"),
    ("slaveof", "5.0.0", "`REPLICAOF`"),
    ("brpoplpush", "6.2.0", "`BLMOVE` with the `RIGHT` and `LEFT` arguments"),
    ("substr", "2.0.0", "`GETRANGE`"),
];

/// Rows that are commands of their own.
fn commands(table: &CommandTable) -> impl Iterator<Item = (CommandId, &'static Command)> + '_ {
    table.rows().filter(|(_, row)| !row.name.contains('|'))
}

/// The row of a full name, unless it is hidden.
fn find(table: &CommandTable, name: &[u8]) -> Option<CommandId> {
    let id = table.find_full(name);
    (id != UNKNOWN && !table.row(id).has(SUBCOMMAND)).then_some(id)
}

/// Subcommands that are such to the outside.
fn subcommands(table: &CommandTable, id: CommandId) -> Vec<CommandId> {
    table.subcommands(id).iter().copied().filter(|id| !table.row(*id).has(SUBCOMMAND)).collect()
}

fn command(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    if let Some(sub) = args.get(1) {
        let sub = String::from_utf8_lossy(&sub[..sub.len().min(128)]).into_owned();
        return Err(format!("ERR unknown subcommand '{sub}'. Try COMMAND HELP.").into());
    }
    let table = shard.core.table;
    let mut reply = shard.client(index).reply();
    reply.array(commands(table).count());
    commands(table).for_each(|(id, _)| describe(&mut reply, table, id));
    Ok(())
}

fn count(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    let count = commands(shard.core.table).count();
    shard.client(index).reply().integer(count as i64);
    Ok(())
}

fn list(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let table = shard.core.table;
    let visible = table.rows().map(|(_, row)| row).filter(|row| !row.has(SUBCOMMAND));
    let names: Vec<&str> = match args.len() {
        2 => visible.map(|row| row.name).collect(),
        5 if args.is(2, "filterby") => {
            let value = args.at(4);
            let chosen: Box<dyn Fn(&&Command) -> bool> = if args.is(3, "module") {
                // No command comes from a module.
                Box::new(|_| false)
            } else if args.is(3, "aclcat") {
                let category = acl::NAMES.iter().find(|(_, name)| value.eq_ignore_ascii_case(name.as_bytes()));
                let bit = category.map_or(0, |(bit, _)| *bit);
                Box::new(move |row| row.categories_all() & bit != 0)
            } else if args.is(3, "pattern") {
                Box::new(move |row| glob::matches(value, row.name.as_bytes(), true))
            } else {
                return Err(CommandError::Syntax);
            };
            visible.filter(|row| chosen(row)).map(|row| row.name).collect()
        }
        _ => return Err(CommandError::Syntax),
    };
    let mut reply = shard.client(index).reply();
    reply.array(names.len());
    names.iter().for_each(|name| reply.bulk(name.as_bytes()));
    Ok(())
}

fn info(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let table = shard.core.table;
    if args.len() == 2 {
        return command(shard, index, args.only(1));
    }
    let mut reply = shard.client(index).reply();
    reply.array(args.len() - 2);
    for name in args.iter_from(2) {
        match find(table, name) {
            Some(id) => describe(&mut reply, table, id),
            None => reply.null(),
        }
    }
    Ok(())
}

fn docs(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let table = shard.core.table;
    let wanted: Vec<CommandId> = match args.len() {
        2 => commands(table).map(|(id, _)| id).collect(),
        _ => args.iter_from(2).filter_map(|name| find(table, name)).collect(),
    };
    let mut reply = shard.client(index).reply();
    reply.map(wanted.len());
    for id in wanted {
        reply.bulk(table.row(id).name.as_bytes());
        document(&mut reply, table, id);
    }
    Ok(())
}

/// The keys of the command behind the subcommand, with what it does with each.
fn keys_of(table: &CommandTable, args: Args<'_>) -> Result<Vec<(usize, u16)>, CommandError> {
    let full = args.tail(2);
    let id = table.resolve(full);
    if id == UNKNOWN || table.row(id).has(SUBCOMMAND) || matches!(table.row(id).handler, super::Handler::Container) {
        // A container without its subcommand is found, but has no keys.
        if id != UNKNOWN && (full.len() == 1 || table.row(id).has(SUBCOMMAND)) {
            return Err("ERR The command has no key arguments".into());
        }
        return Err("ERR Invalid command specified".into());
    }
    let row = table.row(id);
    // Channels of slots are described like keys, but are none.
    if row.find_keys.is_none() && row.keys.iter().all(|spec| spec.flags & super::key::NOT_KEY != 0) {
        return Err("ERR The command has no key arguments".into());
    }
    if !row.accepts(full.len()) {
        return Err("ERR Invalid number of arguments specified for command".into());
    }
    let mut found = Vec::new();
    if row.counts_keys_rightly(full) {
        row.for_each_key_flags(full, &mut |index, flags| found.push((index + 2, flags)));
    }
    if found.is_empty() && !row.has(NO_MANDATORY_KEYS) {
        return Err("ERR Invalid arguments specified for command".into());
    }
    Ok(found)
}

fn getkeys(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let found = keys_of(shard.core.table, args)?;
    let mut reply = shard.client(index).reply();
    reply.array(found.len());
    found.iter().for_each(|(at, _)| reply.bulk(args.at(*at)));
    Ok(())
}

fn getkeysandflags(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let found = keys_of(shard.core.table, args)?;
    let mut reply = shard.client(index).reply();
    reply.array(found.len());
    for (at, flags) in found {
        reply.array(2);
        reply.bulk(args.at(at));
        key_flags(&mut reply, flags);
    }
    Ok(())
}

fn names<'a>(reply: &mut Reply<'_>, names: impl Iterator<Item = String> + 'a) {
    let names: Vec<String> = names.collect();
    reply.set(names.len());
    names.iter().for_each(|name| reply.simple(name));
}

fn key_flags(reply: &mut Reply<'_>, flags: u16) {
    names(reply, key::NAMES.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| name.to_string()));
}

/// First key, last key and step as clients of old know them, and whether there are keys that these three do not
/// find. Redis's `populateCommandLegacyRangeSpec`: a single range as it is, several if they follow each other.
pub fn legacy_range(row: &Command) -> (i64, i64, i64, bool) {
    let absolute = |index: u16, last: i16| if last >= 0 { index as i64 + last as i64 } else { last as i64 };
    if let [spec] = row.keys
        && let (Begin::Index(index), Find::Range { last, step, .. }) = (spec.begin, spec.find)
    {
        return (index as i64, absolute(index, last), step as i64, spec.flags & key::INCOMPLETE != 0);
    }
    let (mut first, mut last_key, mut before, mut movable) = (i64::MAX, 0i64, 0i64, false);
    for spec in row.keys {
        let (Begin::Index(index), Find::Range { last, step, .. }) = (spec.begin, spec.find) else {
            movable = true;
            continue;
        };
        if step != 1 || (before != 0 && before != index as i64 - 1) {
            movable = true;
            continue;
        }
        movable |= spec.flags & key::INCOMPLETE != 0;
        first = first.min(index as i64);
        let last = absolute(index, last);
        // A last key counted from the end lies behind any other.
        last_key = if last_key < 0 || last < 0 { last_key.min(last) } else { last_key.max(last) };
        before = last_key;
    }
    match first {
        i64::MAX => (0, 0, 0, !row.keys.is_empty() || row.find_keys.is_some()),
        first => (first, last_key, 1, movable),
    }
}

fn describe(reply: &mut Reply<'_>, table: &CommandTable, id: CommandId) {
    let row = table.row(id);
    let (first, last, step, movable) = legacy_range(row);
    let flags = row.flags | if movable { MOVABLE_KEYS } else { 0 };
    reply.array(10);
    reply.bulk(row.name.as_bytes());
    reply.integer(row.arity as i64);
    names(reply, flag::NAMES.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| name.to_string()));
    reply.integer(first);
    reply.integer(last);
    reply.integer(step);
    let categories = row.categories_all();
    names(reply, acl::NAMES.iter().filter(|(bit, _)| categories & bit != 0).map(|(_, name)| format!("@{name}")));
    reply.set(0);
    key_specs(reply, row);
    let subcommands = subcommands(table, id);
    match subcommands.is_empty() {
        true => reply.set(0),
        false => reply.array(subcommands.len()),
    }
    subcommands.into_iter().for_each(|id| describe(reply, table, id));
}

fn key_specs(reply: &mut Reply<'_>, row: &Command) {
    reply.set(row.keys.len());
    let typed = |reply: &mut Reply<'_>, name: &str, fields: &[(&str, i64)]| {
        reply.map(2);
        reply.bulk(b"type");
        reply.bulk(name.as_bytes());
        reply.bulk(b"spec");
        reply.map(fields.len());
        for (name, value) in fields {
            reply.bulk(name.as_bytes());
            reply.integer(*value);
        }
    };
    for spec in row.keys {
        reply.map(3);
        reply.bulk(b"flags");
        key_flags(reply, spec.flags);
        reply.bulk(b"begin_search");
        match spec.begin {
            Begin::Index(index) => typed(reply, "index", &[("index", index as i64)]),
            Begin::Unknown => typed(reply, "unknown", &[]),
            Begin::Keyword(word, from) => {
                reply.map(2);
                reply.bulk(b"type");
                reply.bulk(b"keyword");
                reply.bulk(b"spec");
                reply.map(2);
                reply.bulk(b"keyword");
                reply.bulk(word.as_bytes());
                reply.bulk(b"startfrom");
                reply.integer(from as i64);
            }
        }
        reply.bulk(b"find_keys");
        match spec.find {
            Find::Range { last, step, limit } => {
                typed(reply, "range", &[("lastkey", last as i64), ("keystep", step as i64), ("limit", limit as i64)]);
            }
            Find::Count { at, first, step } => {
                typed(
                    reply,
                    "keynum",
                    &[("keynumidx", at as i64), ("firstkey", first as i64), ("keystep", step as i64)],
                );
            }
            Find::Unknown => typed(reply, "unknown", &[]),
        }
    }
}

fn document(reply: &mut Reply<'_>, table: &CommandTable, id: CommandId) {
    let row = table.row(id);
    let arguments = usage::parse(row);
    let subcommands = subcommands(table, id);
    let deprecated = DEPRECATED.iter().find(|(name, ..)| *name == row.name);
    let system = row.name == "debug";
    let pairs = 4
        + 3 * deprecated.is_some() as usize
        + system as usize
        + !arguments.is_empty() as usize
        + !subcommands.is_empty() as usize;
    let text = |reply: &mut Reply<'_>, name: &str, value: &str| {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    };
    reply.map(pairs);
    text(reply, "summary", row.summary);
    text(reply, "since", row.since);
    text(reply, "group", row.group.name());
    text(reply, "complexity", row.complexity);
    if deprecated.is_some() || system {
        reply.bulk(b"doc_flags");
        names(reply, [if system { "syscmd" } else { "deprecated" }.to_string()].into_iter());
    }
    if let Some((_, since, instead)) = deprecated {
        text(reply, "deprecated_since", since);
        text(reply, "replaced_by", instead);
    }
    if !arguments.is_empty() {
        reply.bulk(b"arguments");
        document_arguments(reply, &arguments);
    }
    if !subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(subcommands.len());
        for id in subcommands {
            reply.bulk(table.row(id).name.as_bytes());
            document(reply, table, id);
        }
    }
}

fn document_arguments(reply: &mut Reply<'_>, arguments: &[Argument]) {
    reply.array(arguments.len());
    for arg in arguments {
        let nested = matches!(arg.kind, ArgKind::OneOf | ArgKind::Block);
        let flags: Vec<String> =
            [(arg.optional, "optional"), (arg.multiple, "multiple"), (arg.multiple_token, "multiple_token")]
                .iter()
                .filter(|(set, _)| *set)
                .map(|(_, name)| name.to_string())
                .collect();
        // Name and type; then a text to display or the parts of it; then what it has of the rest.
        let optional = [arg.key_spec.is_some(), arg.token.is_some(), !flags.is_empty()];
        reply.map(3 + optional.iter().filter(|there| **there).count());
        let text = |reply: &mut Reply<'_>, name: &str, value: &str| {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        };
        text(reply, "name", &arg.name);
        text(reply, "type", arg.kind.name());
        if !nested {
            text(reply, "display_text", &arg.name);
        }
        if let Some(spec) = arg.key_spec {
            reply.bulk(b"key_spec_index");
            reply.integer(spec as i64);
        }
        if let Some(token) = &arg.token {
            text(reply, "token", token);
        }
        if !flags.is_empty() {
            reply.bulk(b"flags");
            names(reply, flags.into_iter());
        }
        if nested {
            reply.bulk(b"arguments");
            document_arguments(reply, &arg.args);
        }
    }
}

fn command_help(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    help(
        shard,
        index,
        "COMMAND",
        &[
            ("(no subcommand)", "Describe all commands for machines."),
            ("COUNT", "Return how many commands there are."),
            ("LIST", "Return the names of all commands."),
            ("INFO [<command-name> ...]", "Describe these commands, or all, for machines."),
            ("DOCS [<command-name> ...]", "Describe these commands, or all, for people."),
            ("GETKEYS <full-command>", "Return the keys among the arguments of a command."),
            (
                "GETKEYSANDFLAGS <full-command>",
                "Return the keys among the arguments of a command, and what it does with each.",
            ),
        ],
    )
}

#[cfg(test)]
mod tests;
