//! `ACL`: users, what they may do, and what they were refused. Counterpart: the end of `acl.c`.
//!
//! Users and rules are [`crate::acl`]'s. A change replaces the table of all shards as a whole; this shard looks through
//! its clients at once, the others at their next turn.

use super::{Command, CommandError, CommandResult, Group, acl, flag, help};
use crate::acl::selector::{Selector, category};
use crate::acl::{User, Users, all_channels};
use crate::args::Args;
use crate::client::Wait;
use crate::number::parse_i64;
use crate::resp::Reply;
use crate::shard::{Effect, Shard};

use flag::*;

const SERVER: Group = Group::Server;
const ANYONE: u32 = NOSCRIPT | LOADING | STALE;
const ADMINS: u32 = ANYONE | ADMIN;
const ALL_USERS: &str = "O(N), N being the number of users";

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::container("acl", SERVER).doc(
        "6.0.0",
        "Depends on the subcommand.",
        "Manages users and what they may do.",
        "",
    ),
    Command::home("acl|cat", cat, -2, ANYONE, SERVER).doc(
        "6.0.0",
        "O(1), commands and categories being what they are",
        "Lists the categories of commands, or the commands of one.",
        "[category]",
    ),
    Command::home("acl|deluser", deluser, -3, ADMINS, SERVER).doc(
        "6.0.0",
        "O(N), N being the number of connections",
        "Deletes users, and closes their connections.",
        "username [username ...]",
    ),
    Command::home("acl|dryrun", dryrun, -4, ADMINS, SERVER).doc(
        "7.0.0",
        "O(N), N being the number of the user's rules",
        "Says whether a user could run a command, without running it.",
        "username command [arg [arg ...]]",
    ),
    Command::home("acl|genpass", genpass, -2, ANYONE, SERVER).doc(
        "6.0.0",
        "O(1)",
        "Makes a password that cannot be guessed.",
        "[bits]",
    ),
    Command::home("acl|getuser", getuser, 3, ADMINS, SERVER).doc(
        "6.0.0",
        "O(N), N being the number of the user's passwords and rules",
        "Describes a user.",
        "username",
    ),
    Command::home("acl|list", list, 2, ADMINS, SERVER).doc(
        "6.0.0",
        ALL_USERS,
        "Returns all users as files hold them.",
        "",
    ),
    // The reply comes when the file is read or written, which the replies of an EXEC cannot wait for.
    Command::home("acl|load", load, 2, ADMINS | NO_MULTI, SERVER).doc(
        "6.0.0",
        ALL_USERS,
        "Takes the users of the aclfile over.",
        "",
    ),
    Command::home("acl|log", log, -2, ADMINS, SERVER).doc(
        "6.0.0",
        "O(N), N being the number of entries returned",
        "Returns what was refused lately, or forgets it.",
        "[count | RESET]",
    ),
    Command::home("acl|save", save, 2, ADMINS | NO_MULTI, SERVER).doc(
        "6.0.0",
        ALL_USERS,
        "Writes the users to the aclfile.",
        "",
    ),
    Command::home("acl|setuser", setuser, -3, ADMINS, SERVER).doc(
        "6.0.0",
        "O(N), N being the number of rules",
        "Makes a user, or changes one.",
        "username [rule [rule ...]]",
    ),
    Command::home("acl|users", users, 2, ADMINS, SERVER).doc("6.0.0", ALL_USERS, "Returns the names of all users.", ""),
    Command::home("acl|whoami", whoami, 2, ANYONE, SERVER).doc("6.0.0", "O(1)", "Returns the connection's user.", ""),
    Command::home("acl|help", acl_help, 2, LOADING | STALE, SERVER).doc("6.0.0", "O(1)", "Lists the subcommands.", ""),
];

/// The error for arguments that no form of a subcommand has.
fn bad_form(args: Args<'_>) -> CommandError {
    let name = String::from_utf8_lossy(args.at(1));
    format!("ERR unknown subcommand or wrong number of arguments for '{name}'. Try ACL HELP.").into()
}

fn cat(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let table = shard.core.table;
    let names: Vec<&str> = match args.len() {
        2 => acl::NAMES.iter().map(|(_, name)| *name).collect(),
        3 => {
            let bit = category(args.at(2)).ok_or_else(|| {
                let name = args.at(2);
                format!("ERR Unknown category '{}'", String::from_utf8_lossy(&name[..name.len().min(128)]))
            })?;
            let visible = table.rows().map(|(_, row)| row).filter(|row| !row.has(SUBCOMMAND));
            visible.filter(|row| row.categories_all() & bit != 0).map(|row| row.name).collect()
        }
        _ => return Err(bad_form(args)),
    };
    let mut reply = shard.client(index).reply();
    reply.array(names.len());
    names.iter().for_each(|name| reply.bulk(name.as_bytes()));
    Ok(())
}

fn deluser(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    if args.iter_from(2).any(|name| name == b"default") {
        return Err("ERR The 'default' user cannot be removed".into());
    }
    let delete = |users: &mut Users| Ok::<_, CommandError>(args.iter_from(2).filter(|name| users.delete(name)).count());
    let deleted = shard.core.shared.change_users(delete)?;
    shard.client(index).reply().integer(deleted as i64);
    shard.take_users(Some(index));
    Ok(())
}

fn dryrun(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let shown = |at: usize| String::from_utf8_lossy(args.at(at)).into_owned();
    let table = shard.core.table;
    let user = shard.core.users.find(args.at(2)).cloned();
    let user = user.ok_or_else(|| format!("ERR User '{}' not found", shown(2)))?;
    let words = args.tail(3);
    let id = table.resolve(words);
    // A container is a command only to itself.
    let unknown_subcommand =
        id != super::UNKNOWN && words.len() > 1 && matches!(table.row(id).handler, super::Handler::Container);
    if id == super::UNKNOWN || unknown_subcommand {
        return Err(format!("ERR Command '{}' not found", shown(3)).into());
    }
    let row = table.row(table.ruled_by(id));
    if !row.accepts(words.len()) {
        return Err(format!("ERR wrong number of arguments for '{}' command", row.name).into());
    }
    let mut reply = shard.client(index).reply();
    match crate::acl::check(&user, id, words) {
        Ok(()) => reply.ok(),
        Err(denied) => reply.bulk(denied.text(&user.name, id, words, true).as_bytes()),
    }
    Ok(())
}

const GENPASS_BITS_MAX: i64 = 4096;

fn genpass(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let bits = match args.len() {
        2 => 256,
        3 => parse_i64(args.at(2)).ok_or(CommandError::NotInteger)?,
        _ => return Err(bad_form(args)),
    };
    if !(1..=GENPASS_BITS_MAX).contains(&bits) {
        return Err(format!(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to \
             {GENPASS_BITS_MAX}"
        )
        .into());
    }
    let digits = (bits as usize).div_ceil(4);
    let mut bytes = vec![0; digits.div_ceil(2)];
    shard.core.shared.host.secret(&mut bytes);
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    shard.client(index).reply().bulk(&text.as_bytes()[..digits]);
    Ok(())
}

fn describe(reply: &mut Reply<'_>, selector: &Selector) {
    for (name, value) in [
        ("commands", selector.describe_commands()),
        ("keys", selector.describe_keys()),
        ("channels", selector.describe_channels()),
    ] {
        reply.bulk(name.as_bytes());
        reply.bulk(&value);
    }
}

fn getuser(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let user: Option<std::sync::Arc<User>> = shard.core.users.find(args.at(2)).cloned();
    let mut reply = shard.client(index).reply();
    let Some(user) = user else {
        reply.null();
        return Ok(());
    };
    reply.map(6);
    reply.bulk(b"flags");
    let flags = user.flags();
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"passwords");
    reply.array(user.passwords.len());
    user.passwords.iter().for_each(|digest| reply.bulk(digest));
    describe(&mut reply, user.root());
    reply.bulk(b"selectors");
    reply.array(user.others().len());
    for selector in user.others() {
        reply.map(3);
        describe(&mut reply, selector);
    }
    Ok(())
}

fn list(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    let lines = shard.core.users.lines();
    let mut reply = shard.client(index).reply();
    reply.array(lines.len());
    lines.iter().for_each(|line| reply.bulk(&[b"user ", line.as_slice()].concat()));
    Ok(())
}

/// Where users are kept, or the error of a server that has no such file.
fn needs_file(shard: &Shard) -> CommandResult {
    match shard.core.config.aclfile.is_empty() {
        true => Err("ERR This Redis instance is not configured to use an ACL file. You may want to specify users via \
                     the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis configuration \
                     file set) in order to store users in the Redis configuration."
            .into()),
        false => Ok(()),
    }
}

fn load(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    needs_file(shard)?;
    shard.wait_for(index, Wait::Driver);
    shard.effects.push(Effect::LoadUsers(index));
    Ok(())
}

fn save(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    needs_file(shard)?;
    shard.wait_for(index, Wait::Driver);
    shard.effects.push(Effect::SaveUsers(index));
    Ok(())
}

fn log(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    shard.log_denials();
    let shared = shard.core.shared.clone();
    let mut log = shared.acl_log.lock().expect("no holder panics");
    let count = match args.len() {
        2 => 10,
        3 if args.is(2, "reset") => {
            log.reset();
            shard.client(index).reply().ok();
            return Ok(());
        }
        3 => parse_i64(args.at(2)).ok_or(CommandError::NotInteger)?.max(0) as usize,
        _ => return Err(bad_form(args)),
    };
    let now = shard.core.now_ms;
    let entries = log.iter();
    let count = count.min(entries.len());
    let mut reply = shard.client(index).reply();
    reply.array(count);
    for entry in entries.take(count) {
        let denial = &entry.denial;
        reply.map(10);
        reply.bulk(b"count");
        reply.integer(entry.count as i64);
        let fields: [(&str, &[u8]); 4] = [
            ("reason", denial.reason.name().as_bytes()),
            ("context", denial.context.name().as_bytes()),
            ("object", &denial.object),
            ("username", &denial.username),
        ];
        for (name, value) in fields {
            reply.bulk(name.as_bytes());
            reply.bulk(value);
        }
        reply.bulk(b"age-seconds");
        reply.double((now - entry.updated_ms) as f64 / 1000.0);
        reply.bulk(b"client-info");
        reply.bulk(denial.client_info.as_bytes());
        for (name, value) in [
            ("entry-id", entry.id as i64),
            ("timestamp-created", entry.created_ms),
            ("timestamp-last-updated", entry.updated_ms),
        ] {
            reply.bulk(name.as_bytes());
            reply.integer(value);
        }
    }
    Ok(())
}

fn setuser(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let rules: Vec<Vec<u8>> = args.iter_from(3).map(<[u8]>::to_vec).collect();
    let all_channels = all_channels(&shard.core.config);
    shard
        .core
        .shared
        .change_users(|users| users.set(args.at(2), &rules, all_channels))
        .map_err(|text| CommandError::new(format!("ERR {text}")))?;
    shard.client(index).reply().ok();
    shard.take_users(Some(index));
    Ok(())
}

fn users(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    let users = shard.core.users.clone();
    let mut reply = shard.client(index).reply();
    reply.array(users.iter().len());
    users.iter().for_each(|user| reply.bulk(&user.name));
    Ok(())
}

fn whoami(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    let user = shard.client(index).user;
    let name = shard.core.user_name(user).to_vec();
    shard.client(index).reply().bulk(&name);
    Ok(())
}

fn acl_help(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    help(
        shard,
        index,
        "ACL",
        &[
            ("CAT [<category>]", "List the categories of commands, or the commands of <category>."),
            ("DELUSER <username> [<username> ...]", "Delete users, and close their connections."),
            ("DRYRUN <username> <command> [<arg> ...]", "Say whether the user could run the command."),
            ("GETUSER <username>", "Describe a user."),
            ("GENPASS [<bits>]", "Make a password of 256 bits, or of <bits>."),
            ("LIST", "Show all users as files hold them."),
            ("LOAD", "Take the users of the ACL file over."),
            ("LOG [<count> | RESET]", "Show what was refused lately, or forget it."),
            ("SAVE", "Write the users to the ACL file."),
            ("SETUSER <username> <rule> [<rule> ...]", "Make a user, or change one."),
            ("USERS", "List the names of all users."),
            ("WHOAMI", "Return the user of the current connection."),
        ],
    )
}
