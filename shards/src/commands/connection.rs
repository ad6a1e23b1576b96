//! Connections: `PING`, `HELLO`, `SELECT`, `CLIENT`. Counterpart: `networking.c`.

use super::{Command, CommandError, CommandResult, Group, flag, help};
use crate::acl::log::Denial;
use crate::acl::{Context, Reason};
use crate::args::Args;
use crate::client::filter::ClientFilter;
use crate::client::{Client, ClientInfo, gate};
use crate::commands::CommandTable;
use crate::message::{Answer, Asking, Note, Question};
use crate::number::parse_i64;
use crate::pubsub::Kind;
use crate::shard::Shard;

use flag::*;

const CONNECTION: Group = Group::Connection;
const CLIENT: u32 = NOSCRIPT | LOADING | STALE;

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::home("ping", ping, -1, FAST, CONNECTION).doc(
        "1.0.0",
        "O(1)",
        "Answers, to show that the server lives.",
        "[message]",
    ),
    Command::home("echo", echo, 2, LOADING | STALE | FAST, CONNECTION).doc(
        "1.0.0",
        "O(1)",
        "Returns its argument.",
        "message",
    ),
    Command::home("auth", auth, -2, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY, CONNECTION).doc(
        "1.0.0",
        "O(N), N being the number of passwords of the user",
        "Authenticates the connection.",
        "[username] password",
    ),
    Command::home("hello", hello, -1, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY, CONNECTION).doc(
        "6.0.0",
        "O(1)",
        "Chooses the protocol, and may authenticate and name the connection.",
        "[protover [AUTH username password] [SETNAME clientname]]",
    ),
    Command::home("select", select, 2, LOADING | STALE | FAST, CONNECTION).doc(
        "1.0.0",
        "O(1)",
        "Chooses the database.",
        "index",
    ),
    Command::home("quit", quit, -1, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY, CONNECTION).doc(
        "1.0.0",
        "O(1)",
        "Closes the connection.",
        "",
    ),
    Command::home("reset", reset, 1, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY, CONNECTION).doc(
        "6.2.0",
        "O(1)",
        "Brings the connection back to its first state.",
        "",
    ),
    Command::container("client", CONNECTION).doc(
        "2.4.0",
        "Depends on the subcommand",
        "Looks at and changes connections.",
        "",
    ),
    Command::home("client|id", client_id, 2, CLIENT, CONNECTION).doc(
        "5.0.0",
        "O(1)",
        "Returns the connection's id.",
        "",
    ),
    Command::home("client|getname", client_getname, 2, CLIENT, CONNECTION).doc(
        "2.6.9",
        "O(1)",
        "Returns the connection's name.",
        "",
    ),
    Command::home("client|setname", client_setname, 3, CLIENT, CONNECTION).doc(
        "2.6.9",
        "O(1)",
        "Names the connection.",
        "connection-name",
    ),
    Command::home("client|setinfo", client_setinfo, 4, CLIENT, CONNECTION).doc(
        "7.2.0",
        "O(1)",
        "Notes the client library's name or version.",
        "<LIB-NAME libname | LIB-VER libver>",
    ),
    Command::home("client|info", client_info_command, 2, CLIENT, CONNECTION).doc(
        "6.2.0",
        "O(1)",
        "Describes the connection.",
        "",
    ),
    Command::gather("client|list", list_question, client_list, -2, CLIENT | ADMIN, CONNECTION).doc(
        "2.4.0",
        "O(N), N being the number of connections",
        "Describes all connections.",
        "[TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] [ID client-id [client-id ...]]",
    ),
    Command::gather("client|kill", kill_question, client_kill, -3, CLIENT | ADMIN, CONNECTION).doc(
        "2.4.0",
        "O(N), N being the number of connections",
        "Closes connections.",
        "<ip:port | <[ID client-id] | [TYPE <NORMAL | MASTER | SLAVE | REPLICA | PUBSUB>] | [USER username] | [ADDR \
         ip:port] | [LADDR ip:port] | [SKIPME <YES | NO>] | [MAXAGE maxage]>>",
    ),
    Command::gather("client|unblock", unblock_question, client_unblock, -3, CLIENT | ADMIN, CONNECTION).doc(
        "5.0.0",
        "O(log N), N being the number of connections",
        "Ends the wait of a blocked connection.",
        "client-id [TIMEOUT | ERROR]",
    ),
    Command::home("client|pause", client_pause, -3, CLIENT | ADMIN, CONNECTION).doc(
        "3.0.0",
        "O(1)",
        "Holds back commands for a while.",
        "timeout [WRITE | ALL]",
    ),
    Command::home("client|unpause", client_unpause, 2, CLIENT | ADMIN, CONNECTION).doc(
        "6.2.0",
        "O(N), N being the number of paused connections",
        "Ends CLIENT PAUSE.",
        "",
    ),
    Command::home("client|reply", client_reply, 3, CLIENT, CONNECTION).doc(
        "3.2.0",
        "O(1)",
        "Turns replies on or off.",
        "<ON | OFF | SKIP>",
    ),
    Command::home("client|no-evict", client_no_evict, 3, CLIENT | ADMIN, CONNECTION).doc(
        "7.0.0",
        "O(1)",
        "Spares the connection from eviction.",
        "<ON | OFF>",
    ),
    Command::home("client|no-touch", client_no_touch, 3, CLIENT, CONNECTION).doc(
        "7.2.0",
        "O(1)",
        "Lets commands leave no trace in LRU and LFU.",
        "<ON | OFF>",
    ),
    Command::home("client|help", client_help, 2, LOADING | STALE, CONNECTION).doc(
        "5.0.0",
        "O(1)",
        "Lists the subcommands.",
        "",
    ),
];

fn ping(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let client = shard.client(index);
    if args.len() > 2 {
        return Err(CommandError::Arity("ping"));
    }
    if client.gate & gate::SUBSCRIBED != 0 && client.resp == 2 {
        let mut reply = client.reply();
        reply.array(2);
        reply.bulk(b"pong");
        reply.bulk(args.get(1).unwrap_or(b""));
        return Ok(());
    }
    match args.get(1) {
        None => client.reply().simple("PONG"),
        Some(message) => client.reply().bulk(message),
    }
    Ok(())
}

fn echo(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    shard.client(index).reply().bulk(args.at(1));
    Ok(())
}

/// Makes the client one of `user`, if the password is right.
fn authenticate(shard: &mut Shard, index: u32, name: &[u8], password: &[u8], command: &[u8]) -> CommandResult {
    let users = shard.core.users.clone();
    let Some(user) = users.find(name).filter(|user| user.accepts(password)) else {
        let client = shard.client(index);
        let context = if client.gate & gate::MULTI != 0 { Context::Multi } else { Context::Toplevel };
        let denial = Denial {
            reason: Reason::Auth,
            context,
            object: command.to_vec(),
            username: name.to_vec(),
            client_info: String::new(),
        };
        let view = shard.view(index);
        shard.core.deny(view, denial);
        return Err("WRONGPASS invalid username-password pair or user is disabled.".into());
    };
    shard.log_in(index, user);
    Ok(())
}

fn auth(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let (name, password) = match args.len() {
        2 if shard.core.users.default_user().nopass => {
            return Err("ERR AUTH <password> called without any password configured for the default user. Are you \
                        sure your configuration is correct?"
                .into());
        }
        2 => (b"default".as_slice(), args.at(1)),
        3 => (args.at(1), args.at(2)),
        _ => return Err(CommandError::Syntax),
    };
    authenticate(shard, index, name, password, args.at(0))?;
    shard.client(index).reply().ok();
    Ok(())
}

fn valid_name(name: &[u8]) -> bool {
    name.iter().all(|b| (b'!'..=b'~').contains(b))
}

const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

fn hello(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let mut version = None;
    let (mut credentials, mut name) = (None, None);
    if let Some(text) = args.get(1) {
        version = match parse_i64(text) {
            None => return Err("ERR Protocol version is not an integer or out of range".into()),
            Some(v @ 2..=3) => Some(v as u8),
            Some(_) => return Err("NOPROTO unsupported protocol version".into()),
        };
        let mut i = 2;
        while i < args.len() {
            if args.is(i, "auth") && i + 2 < args.len() {
                credentials = Some((args.at(i + 1), args.at(i + 2)));
                i += 3;
            } else if args.is(i, "setname") && i + 1 < args.len() {
                if !valid_name(args.at(i + 1)) {
                    return Err(BAD_NAME.into());
                }
                name = Some(args.at(i + 1));
                i += 2;
            } else {
                let option = String::from_utf8_lossy(args.at(i)).into_owned();
                return Err(format!("ERR Syntax error in HELLO option '{option}'").into());
            }
        }
    }
    if let Some((user, password)) = credentials {
        authenticate(shard, index, user, password, args.at(0))?;
    }
    if shard.client(index).gate & gate::NEEDS_AUTH != 0 {
        return Err("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> \
                    AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol \
                    version at the same time"
            .into());
    }
    let client = shard.client(index);
    if let Some(name) = name {
        client.name = name.to_vec();
    }
    if let Some(version) = version {
        client.resp = version;
    }
    let (id, resp) = (client.id, client.resp);
    let mut reply = client.reply();
    reply.map(7);
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(crate::REDIS_VERSION.as_bytes());
    reply.bulk(b"proto");
    reply.integer(resp as i64);
    reply.bulk(b"id");
    reply.integer(id as i64);
    reply.bulk(b"mode");
    reply.bulk(b"standalone");
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}

fn select(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let n = super::keys::int_arg(args.at(1))?;
    if n < 0 || n as u64 >= shard.core.config.databases as u64 {
        return Err("ERR DB index is out of range".into());
    }
    let client = shard.client(index);
    client.db = n as u16;
    client.reply().ok();
    Ok(())
}

fn quit(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    shard.client(index).reply().ok();
    shard.close_after_reply(index);
    Ok(())
}

fn reset(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    shard.end_multi(index);
    shard.drop_subscriptions(index);
    shard.end_monitor(index);
    shard.end_tracking(index);
    shard.log_out(index);
    let client = shard.client(index);
    client.gate &= !gate::NO_TOUCH;
    client.gate &= !gate::REPLY;
    client.db = 0;
    client.resp = 2;
    client.name.clear();
    client.no_evict = false;
    client.reply().simple("RESET");
    Ok(())
}

fn client_id(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    let id = shard.client(index).id;
    shard.client(index).reply().integer(id as i64);
    Ok(())
}

fn client_getname(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    let client = shard.client(index);
    let name = std::mem::take(&mut client.name);
    match name.is_empty() {
        true => client.reply().null(),
        false => client.reply().bulk(&name),
    }
    client.name = name;
    Ok(())
}

fn client_setname(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    if !valid_name(args.at(2)) {
        return Err(BAD_NAME.into());
    }
    let client = shard.client(index);
    client.name = args.at(2).to_vec();
    client.reply().ok();
    Ok(())
}

fn client_setinfo(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let value = args.at(3);
    let client = shard.client(index);
    let (slot, what) = match args.at(2).to_ascii_lowercase().as_slice() {
        b"lib-name" => (&mut client.lib_name, "lib-name"),
        b"lib-ver" => (&mut client.lib_ver, "lib-ver"),
        _ => {
            let option = String::from_utf8_lossy(args.at(2)).into_owned();
            return Err(format!("ERR Unrecognized option '{option}'").into());
        }
    };
    if !valid_name(value) {
        return Err(format!("ERR {what} cannot contain spaces, newlines or special characters.").into());
    }
    *slot = value.to_vec();
    client.reply().ok();
    Ok(())
}

/// Bytes of the buffers that Redis keeps replies in.
pub(crate) const REPLY_CHUNK_BYTES: usize = 16 * 1024;

/// The line of `CLIENT LIST` that describes `client`.
///
/// The one that asks is shown with its request, which is no more in any buffer of its own.
pub fn client_info(
    client: &Client,
    user: &[u8],
    asking: Option<Asking>,
    table: &CommandTable,
    now_ms: i64,
) -> ClientInfo {
    let asking = asking.filter(|asking| asking.id == client.id);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut flags = String::new();
    for (bit, letter) in [
        (gate::REPLICA, 'S'),
        (gate::MONITOR, 'O'),
        (gate::SUBSCRIBED, 'P'),
        (gate::MULTI, 'x'),
        (gate::DIRTY_EXEC, 'd'),
        (gate::CLOSE_AFTER_REPLY, 'c'),
        (gate::CLOSE_NOW, 'A'),
        (gate::TRACKING, 't'),
        (gate::NO_TOUCH, 'T'),
    ] {
        if client.gate & bit != 0 {
            flags.push(letter);
        }
    }
    let tracking = client.tracking.as_deref();
    if tracking.is_some_and(|tracking| tracking.broken) {
        flags.push('R');
    }
    if tracking.is_some_and(|tracking| tracking.bcast) {
        flags.push('B');
    }
    let redirect = super::client_tracking::redirection(tracking);
    if client.is_blocked() {
        flags.push('b');
    }
    if client.no_evict {
        flags.push('e');
    }
    if client.peer.unix {
        flags.push('U');
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let last = match client.last_command {
        crate::commands::UNKNOWN => "NULL",
        id => table.row(id).name,
    };
    // Redis has a large argument in a buffer of its own, without the line before it.
    let waiting = client.query.pending().len();
    let waiting = client.parser.large_argument().map_or(waiting, |start| waiting.saturating_sub(start));
    // Redis keeps a small reply in the client, and what goes beyond in a list.
    let owed = client.output_bytes();
    let (small, large) = if owed <= REPLY_CHUNK_BYTES { (owed, 0) } else { (0, owed) };
    let multi = client.multi.as_ref().map_or(-1, |multi| multi.queue.len() as i64);
    let line = format!(
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} db={} sub={} psub={} ssub={} multi={} watch={} \
         qbuf={} qbuf-free={} argv-mem={} multi-mem={} rbs={} rbp={} obl={} oll={} omem={} tot-mem={} events=r cmd={} \
         user={} redir={} resp={} lib-name={} lib-ver={} tot-net-in={} tot-net-out={} tot-cmds={}",
        client.id,
        client.peer.address,
        client.peer.local_address,
        client.peer.fd,
        text(&client.name),
        (now_ms - client.created_ms) / 1000,
        (now_ms - client.last_interaction_ms) / 1000,
        flags,
        client.db,
        client.subscribed(Kind::Channel),
        client.subscribed(Kind::Pattern),
        client.subscribed(Kind::Sharded),
        multi,
        client.watched.len(),
        waiting + asking.map_or(0, |asking| asking.request_bytes),
        client.query.bytes.capacity() - client.query.bytes.len(),
        asking.map_or(0, |asking| asking.argument_bytes),
        client.multi.as_ref().map_or(0, |multi| multi.bytes),
        client.out.capacity(),
        client.out.len(),
        small,
        large.div_ceil(REPLY_CHUNK_BYTES),
        large,
        client.memory(),
        last,
        text(user),
        redirect,
        client.resp,
        text(&client.lib_name),
        text(&client.lib_ver),
        client.net_in,
        client.net_out,
        client.commands,
    );
    ClientInfo { id: client.id, line, kind: client.type_name() }
}

fn client_info_command(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let (table, now) = (shard.core.table, shard.core.now_ms);
    let user = shard.client(index).user;
    let name = shard.core.user_name(user).to_vec();
    let client = shard.client(index);
    let asking = Some(Asking::new(client.id, args));
    let line = client_info(client, &name, asking, table, now).line + "\n";
    client.reply().verbatim("txt", line.as_bytes());
    Ok(())
}

/// What `CLIENT LIST` is asked for: a type, or ids.
fn list_options(args: Args<'_>) -> Result<(Option<String>, Option<Vec<u64>>), CommandError> {
    if args.len() == 2 {
        return Ok((None, None));
    }
    if args.len() == 4 && args.is(2, "type") {
        return Ok((Some(client_type(args.at(3))?), None));
    }
    if args.len() > 3 && args.is(2, "id") {
        let ids = args.iter_from(3).map(|id| {
            parse_i64(id).filter(|id| *id > 0).map(|id| id as u64).ok_or(CommandError::new("ERR Invalid client ID"))
        });
        return Ok((None, Some(ids.collect::<Result<_, _>>()?)));
    }
    Err(CommandError::Syntax)
}

fn client_type(name: &[u8]) -> Result<String, CommandError> {
    let given = String::from_utf8_lossy(name);
    let name = given.to_lowercase();
    match name.as_str() {
        "normal" | "pubsub" | "master" => Ok(name),
        "replica" | "slave" => Ok("replica".into()),
        _ => Err(format!("ERR Unknown client type '{given}'").into()),
    }
}

fn list_question(args: Args<'_>) -> Option<Question> {
    list_options(args).ok().map(|(_, ids)| Question::Clients { ids, asking: None })
}

fn client_list(shard: &mut Shard, index: u32, args: Args<'_>, answers: Vec<Answer>) -> CommandResult {
    let (kind, _) = list_options(args)?;
    let mut list: Vec<ClientInfo> = answers
        .into_iter()
        .flat_map(|answer| match answer {
            Answer::Clients(list) => list,
            _ => Vec::new(),
        })
        .filter(|info| kind.as_ref().is_none_or(|kind| info.kind == kind))
        .collect();
    list.sort_by_key(|info| info.id);
    let text: String = list.into_iter().map(|info| info.line + "\n").collect();
    shard.client(index).reply().verbatim("txt", text.as_bytes());
    Ok(())
}

/// The conditions of `CLIENT KILL`; `SKIPME` is settled when the client that asks is known.
fn kill_filter(args: Args<'_>) -> Result<(ClientFilter, bool), CommandError> {
    let text = |i: usize| String::from_utf8_lossy(args.at(i)).into_owned();
    let mut filter = ClientFilter::default();
    if args.len() == 3 {
        filter.address = Some(text(2));
        return Ok((filter, false));
    }
    let mut skip_me = true;
    let mut i = 2;
    while i < args.len() {
        if i + 1 >= args.len() {
            return Err(CommandError::Syntax);
        }
        match args.at(i).to_ascii_lowercase().as_slice() {
            b"id" => {
                let id = parse_i64(args.at(i + 1)).filter(|id| *id > 0);
                let id = id.ok_or(CommandError::new("ERR client-id should be greater than 0"))?;
                filter.ids.get_or_insert_default().push(id as u64);
            }
            b"type" => filter.kind = Some(client_type(args.at(i + 1))?),
            b"addr" => filter.address = Some(text(i + 1)),
            b"laddr" => filter.local_address = Some(text(i + 1)),
            b"user" => {
                filter.user = Some(args.at(i + 1).to_vec());
            }
            b"maxage" => {
                let age = parse_i64(args.at(i + 1)).ok_or(CommandError::NotInteger)?;
                if age <= 0 {
                    return Err("ERR maxage should be greater than 0".into());
                }
                filter.max_age = Some(age);
            }
            b"skipme" if args.is(i + 1, "yes") => skip_me = true,
            b"skipme" if args.is(i + 1, "no") => skip_me = false,
            _ => return Err(CommandError::Syntax),
        }
        i += 2;
    }
    Ok((filter, skip_me))
}

fn kill_question(args: Args<'_>) -> Option<Question> {
    // The client that asks is filled in by the shard, which knows it.
    kill_filter(args).ok().map(|(filter, skip_me)| Question::KillClients { filter: Box::new(filter), skip_me })
}

fn client_kill(shard: &mut Shard, index: u32, args: Args<'_>, answers: Vec<Answer>) -> CommandResult {
    let (mut filter, skip_me) = kill_filter(args)?;
    if let Some(user) = filter.user.clone().filter(|user| shard.core.users.find(user).is_none()) {
        // No client had such a user: none was closed.
        return Err(format!("ERR No such user '{}'", String::from_utf8_lossy(&user)).into());
    }
    let killed = count(&answers);
    if args.len() == 3 {
        match killed {
            0 => return Err("ERR No such client".into()),
            _ => shard.client(index).reply().ok(),
        }
        close_oneself(shard, index, &filter);
        return Ok(());
    }
    shard.client(index).reply().integer(killed as i64);
    // The one that asks is answered before it goes.
    filter.spared = skip_me.then_some(shard.client(index).id);
    close_oneself(shard, index, &filter);
    Ok(())
}

fn close_oneself(shard: &mut Shard, index: u32, filter: &ClientFilter) {
    let now = shard.core.now_ms;
    let client = shard.clients[index as usize].as_deref().expect("it asks");
    if filter.matches(client, shard.core.user_name(client.user), now) {
        shard.close_after_reply(index);
    }
}

fn count(answers: &[Answer]) -> usize {
    answers.iter().map(|answer| if let Answer::Count(n) = answer { *n } else { 0 }).sum()
}

fn unblock_options(args: Args<'_>) -> Result<(u64, bool), CommandError> {
    let error = match args.get(3) {
        None => false,
        Some(_) if args.len() > 4 => {
            let name = String::from_utf8_lossy(args.at(1));
            let text = format!("ERR unknown subcommand or wrong number of arguments for '{name}'. Try CLIENT HELP.");
            return Err(text.into());
        }
        Some(_) if args.is(3, "timeout") => false,
        Some(_) if args.is(3, "error") => true,
        Some(_) => return Err("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR".into()),
    };
    let id = parse_i64(args.at(2)).ok_or(CommandError::NotInteger)?;
    Ok((id as u64, error))
}

fn unblock_question(args: Args<'_>) -> Option<Question> {
    unblock_options(args).ok().map(|(id, error)| Question::Unblock { id, error })
}

fn client_unblock(shard: &mut Shard, index: u32, args: Args<'_>, answers: Vec<Answer>) -> CommandResult {
    unblock_options(args)?;
    shard.client(index).reply().integer(count(&answers) as i64);
    Ok(())
}

fn client_pause(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    use std::sync::atomic::Ordering::Relaxed;
    let all = match args.get(3) {
        None => true,
        Some(_) if args.len() > 4 => return Err(CommandError::Syntax),
        Some(_) if args.is(3, "all") => true,
        Some(_) if args.is(3, "write") => false,
        Some(_) => return Err("ERR CLIENT PAUSE mode must be WRITE or ALL".into()),
    };
    let ms = parse_i64(args.at(2)).ok_or("ERR timeout is not an integer or out of range")?;
    if ms < 0 {
        return Err("ERR timeout is negative".into());
    }
    let until = shard.core.now_ms.checked_add(ms).ok_or("ERR timeout is out of range")? as u64;
    let now = shard.core.now_ms as u64;
    let pause = &shard.core.shared.pause;
    // One pause after another ends with the later of them, and holds back all if either does.
    let active = |until: &std::sync::atomic::AtomicU64| Some(until.load(Relaxed)).filter(|at| *at > now);
    let before = active(&pause.all_until).into_iter().chain(active(&pause.write_until)).max();
    let until = before.map_or(until, |before| before.max(until));
    match all || active(&pause.all_until).is_some() {
        true => pause.all_until.fetch_max(until, Relaxed),
        false => pause.write_until.fetch_max(until, Relaxed),
    };
    shard.core.shared.bump_epoch();
    shard.refresh_guard();
    shard.client(index).reply().ok();
    Ok(())
}

fn client_unpause(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    use std::sync::atomic::Ordering::Relaxed;
    // The end of a pause is noticed by each shard's time event; the present is an end like any other.
    let now = shard.core.now_ms as u64;
    let pause = &shard.core.shared.pause;
    for until in [&pause.all_until, &pause.write_until] {
        let _ = until.fetch_update(Relaxed, Relaxed, |at| (at != 0).then_some(now.min(at)));
    }
    shard.client(index).reply().ok();
    shard.core.shared.bump_epoch();
    shard.end_pauses();
    shard.refresh_guard();
    for other in (0..shard.core.shards as u16).filter(|other| *other != shard.core.id) {
        shard.outbox.note(other, Note::EndPause);
    }
    Ok(())
}

fn client_reply(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let client = shard.client(index);
    // Whoever runs a command keeps its reply back if these say so when it has ended.
    if args.is(2, "on") {
        client.gate &= !gate::REPLY;
        client.reply().ok();
    } else if args.is(2, "off") {
        client.gate |= gate::REPLY_OFF;
    } else if args.is(2, "skip") {
        if client.gate & gate::REPLY_OFF == 0 {
            client.gate |= gate::REPLY_SKIP_NEXT;
        }
    } else {
        return Err(CommandError::Syntax);
    }
    Ok(())
}

fn on_or_off(args: Args<'_>) -> Result<bool, CommandError> {
    match () {
        _ if args.is(2, "on") => Ok(true),
        _ if args.is(2, "off") => Ok(false),
        _ => Err(CommandError::Syntax),
    }
}

fn client_no_evict(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let on = on_or_off(args)?;
    let client = shard.client(index);
    client.no_evict = on;
    client.reply().ok();
    Ok(())
}

fn client_no_touch(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let on = on_or_off(args)?;
    let client = shard.client(index);
    client.gate = if on { client.gate | gate::NO_TOUCH } else { client.gate & !gate::NO_TOUCH };
    client.reply().ok();
    Ok(())
}

fn client_help(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    help(
        shard,
        index,
        "CLIENT",
        &[
            ("CACHING (YES|NO)", "Enable/disable tracking of the keys of the next command in OPTIN/OPTOUT modes."),
            ("GETNAME", "Return the name of the current connection."),
            ("GETREDIR", "Return the client ID we are redirecting to when tracking is enabled."),
            ("ID", "Return the ID of the current connection."),
            ("INFO", "Return information about the current client connection."),
            ("KILL <option> ...", "Close connections, by address or by filters."),
            ("LIST [options ...]", "Return information about client connections."),
            ("NO-EVICT (ON|OFF)", "Protect the current connection from eviction."),
            ("NO-TOUCH (ON|OFF)", "Leave no trace in the LRU/LFU stats of keys."),
            ("PAUSE <timeout> [WRITE|ALL]", "Suspend all, or just write, clients for <timeout> milliseconds."),
            ("REPLY (ON|OFF|SKIP)", "Control the replies sent to the current connection."),
            ("SETINFO <option> <value>", "Set client meta attributes."),
            ("SETNAME <name>", "Assign the name <name> to the current connection."),
            ("TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]]", "Control client-side caching."),
            ("TRACKINGINFO", "Report tracking status for the current connection."),
            ("UNBLOCK <clientid> [TIMEOUT|ERROR]", "Unblock the specified blocked client."),
            ("UNPAUSE", "Stop the current client pause, resuming traffic."),
        ],
    )
}

#[cfg(test)]
mod tests {
    use crate::testing::{Conn, Value, World, request};

    fn send(world: &mut World, conn: Conn, lines: &[&str]) -> Vec<String> {
        let bytes: Vec<u8> = lines.iter().flat_map(|line| request(&line.split(' ').collect::<Vec<_>>())).collect();
        world.send(conn, &bytes);
        Value::parse_all(&world.received(conn)).iter().map(Value::to_string).collect()
    }

    #[test]
    fn replies_that_are_not_wanted_are_not_sent() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let (conn, other) = (world.connect(), world.connect());
            let many =
                ["SET a 1", "SET b 2", "SET c 3", "MGET a b c", "RENAME a d", "NOSUCH", "PING", "INFO", "DBSIZE"];
            // In one piece, and command by command.
            let mut lines = vec!["CLIENT REPLY OFF"];
            lines.extend(many);
            lines.extend(["MULTI", "GET b", "GET d", "EXEC", "CLIENT REPLY ON", "GET d"]);
            assert_eq!(send(&mut world, conn, &lines), ["OK", "\"1\""], "{shards} shard(s)");
            let mut heard = Vec::new();
            lines.iter().for_each(|line| heard.extend(send(&mut world, conn, &[line])));
            assert_eq!(heard, ["OK", "\"1\""], "{shards} shard(s)");
            // Messages are no replies.
            send(&mut world, conn, &["HELLO 3", "CLIENT REPLY OFF"]);
            assert_eq!(send(&mut world, conn, &["GET d", "SUBSCRIBE c"]), [r#">["subscribe" "c" 1]"#]);
            assert_eq!(send(&mut world, other, &["PUBLISH c m"]), ["1"]);
            assert_eq!(send(&mut world, conn, &["GET d"]), [r#">["message" "c" "m"]"#]);
            assert_eq!(
                send(&mut world, conn, &["UNSUBSCRIBE c", "CLIENT REPLY ON"]),
                [r#">["unsubscribe" "c" 0]"#, "OK"]
            );
        }
    }

    #[test]
    fn one_reply_is_skipped() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let conn = world.connect();
            send(&mut world, conn, &["MSET a 1 b 2 c 3"]);
            for skipped in ["GET a", "GET b", "GET c", "MGET a b c", "RENAME a a2", "RENAME a2 a", "INFO", "NOSUCH"] {
                let expected = ["\"2\"", "\"3\""];
                let lines = ["CLIENT REPLY SKIP", skipped, "GET b", "GET c"];
                assert_eq!(send(&mut world, conn, &lines), expected, "{skipped}, {shards} shard(s)");
                let mut heard = Vec::new();
                lines.iter().for_each(|line| heard.extend(send(&mut world, conn, &[line])));
                assert_eq!(heard, expected, "{skipped}, {shards} shard(s)");
            }
            assert_eq!(send(&mut world, conn, &["CLIENT REPLY SKIP", "CLIENT REPLY ON", "PING"]), ["OK", "PONG"]);
            assert_eq!(send(&mut world, conn, &["CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "PING", "PING"]), ["PONG"]);
            assert_eq!(send(&mut world, conn, &["CLIENT REPLY foo"]), ["-ERR syntax error"]);
        }
    }

    /// `CLIENT REPLY` inside `MULTI` counts from where it stands, and what `EXEC` skips is the next command from
    /// outside.
    #[test]
    fn replies_inside_exec_are_wanted_one_by_one() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let conn = world.connect();
            let mut raw = |lines: &[&str]| {
                let bytes: Vec<u8> =
                    lines.iter().flat_map(|line| request(&line.split(' ').collect::<Vec<_>>())).collect();
                world.send(conn, &bytes);
                String::from_utf8(world.received(conn)).unwrap()
            };
            let off = ["MULTI", "CLIENT REPLY OFF", "PING", "GET k", "EXEC"];
            assert_eq!(raw(&off), "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n");
            assert_eq!(raw(&["MULTI", "CLIENT REPLY ON", "GET k", "EXEC"]), "+OK\r\n$-1\r\n");
            let skip = ["MULTI", "CLIENT REPLY SKIP", "GET k", "EXEC"];
            assert_eq!(raw(&skip), "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$-1\r\n");
            assert_eq!(raw(&["PING", "ECHO x"]), "$1\r\nx\r\n");
        }
    }

    /// A world of each size, one client to pause and one to be paused.
    fn paused_worlds(pause: &str) -> Vec<(World, Conn, Conn)> {
        [1, 4]
            .into_iter()
            .map(|shards| {
                let mut world = World::new(shards);
                let (boss, conn) = (world.connect(), world.connect());
                send(&mut world, boss, &["SET r v", pause]);
                (world, boss, conn)
            })
            .collect()
    }

    #[test]
    fn a_pause_of_writes_holds_back_what_writes() {
        for (mut world, boss, conn) in paused_worlds("CLIENT PAUSE 60000 WRITE") {
            let read = ["GET r", "PING", "MULTI", "GET r", "EXEC", "EVAL_RO 'return 1' 0", "EVALSHA_RO x 0"];
            let lines: Vec<Vec<u8>> =
                read.iter().map(|line| request(&crate::quote::split_args(line.as_bytes()).unwrap())).collect();
            world.send(conn, &lines.concat());
            assert_eq!(Value::parse_all(&world.received(conn)).len(), read.len());
            world.send(conn, &request(&["EVAL", "#!lua flags=no-writes\nreturn 2", "0"]));
            assert_eq!(world.received(conn), b":2\r\n");
            // What cannot run is refused at once.
            assert_eq!(send(&mut world, conn, &["SET a"]), ["-ERR wrong number of arguments for 'set' command"]);
            for (blocked, words) in [
                &["SET", "a", "1"][..],
                &["PUBLISH", "c", "m"],
                &["PFCOUNT", "h"],
                &["EVAL", "return 1", "0"],
                &["EVAL", "#!lua\nreturn 1", "0"],
            ]
            .into_iter()
            .enumerate()
            {
                let waiter = world.connect();
                world.send(waiter, &request(words));
                assert!(world.received(waiter).is_empty(), "{words:?}");
                let info = world.run(boss, "INFO clients").text();
                assert!(info.contains(&format!("blocked_clients:{}\r\n", blocked + 1)), "{info}");
            }
            let waiter = world.connect();
            // Nor is it queued, as in Redis.
            assert_eq!(send(&mut world, waiter, &["MULTI", "SET b 1", "EXEC"]), ["OK"]);
            assert!(world.run(boss, "CLIENT LIST").text().contains("flags=xb "));
            world.advance(1000);
            assert!(world.received(waiter).is_empty());
            assert_eq!(send(&mut world, boss, &["CLIENT UNPAUSE"]), ["OK"]);
            assert_eq!(world.received(waiter), b"+QUEUED\r\n*1\r\n+OK\r\n");
            // A queue that was whole before the pause is not run.
            send(&mut world, waiter, &["MULTI", "SET b 1"]);
            send(&mut world, boss, &["CLIENT PAUSE 60000 WRITE"]);
            assert!(send(&mut world, waiter, &["EXEC"]).is_empty());
            send(&mut world, boss, &["CLIENT UNPAUSE"]);
            assert_eq!(world.received(waiter), b"*1\r\n+OK\r\n");
            let info = world.run(boss, "INFO clients").text();
            assert!(info.contains("blocked_clients:0\r\n"), "{info}");
        }
    }

    /// The later end counts, and all are held back if either pause holds back all.
    #[test]
    fn pauses_add_up() {
        for (mut world, boss, conn) in paused_worlds("CLIENT PAUSE 200 ALL") {
            world.send(boss, &request(&["CLIENT", "PAUSE", "20", "WRITE"]));
            assert!(send(&mut world, conn, &["GET r"]).is_empty());
            world.advance(100);
            assert!(world.received(conn).is_empty());
            world.advance(101);
            assert_eq!(world.received(conn), b"$1\r\nv\r\n");
            assert_eq!(world.received(boss), b"+OK\r\n");
            world.advance(101);
            assert_eq!(send(&mut world, boss, &["CLIENT PAUSE 60000 WRITE", "CLIENT PAUSE 10 WRITE"]), ["OK", "OK"]);
            world.advance(100);
            assert!(send(&mut world, conn, &["SET r w"]).is_empty());
            send(&mut world, boss, &["CLIENT UNPAUSE"]);
            assert_eq!(world.received(conn), b"+OK\r\n");
        }
    }

    #[test]
    fn nothing_expires_while_writes_are_held_back() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let conn = world.connect();
            send(&mut world, conn, &["MULTI", "SET a 1 PX 10", "SET b 1 PX 10", "CLIENT PAUSE 60000 WRITE", "EXEC"]);
            world.advance(100);
            assert_eq!(send(&mut world, conn, &["GET a", "MGET a b", "EXISTS b"]), ["nil", "[nil nil]", "0"]);
            world.advance(100);
            assert!(world.run(conn, "INFO stats").text().contains("expired_keys:0\r\n"));
            // A write in the same transaction as the pause finds the place free.
            let more = ["CLIENT UNPAUSE", "MULTI", "CLIENT PAUSE 60000 WRITE", "SET a 2", "GET a", "EXEC"];
            assert_eq!(send(&mut world, conn, &more).last().unwrap(), r#"[OK OK "2"]"#);
            send(&mut world, conn, &["CLIENT UNPAUSE"]);
            world.advance(100);
            // One was written over.
            assert!(world.run(conn, "INFO stats").text().contains("expired_keys:1\r\n"));
            assert_eq!(send(&mut world, conn, &["DBSIZE"]), ["1"]);
        }
    }

    /// Who asks is shown with its request; buffers of requests stay for a while and are given back.
    #[test]
    fn client_list_tells_of_buffers() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let (boss, conn) = (world.connect(), world.connect());
            for line in ["CLIENT LIST", "CLIENT INFO"] {
                let own = world.run(boss, line).text();
                let own = own.lines().next().unwrap();
                assert!(own.contains(" qbuf=26 ") && own.contains(" argv-mem=10 "), "{own}");
                assert!(own.contains(&format!(" cmd={} ", line.to_lowercase().replace(' ', "|"))), "{own}");
            }
            let buffers = |world: &mut World| {
                let list = world.run(boss, "CLIENT LIST").text();
                let line = list.lines().find(|line| line.contains(" addr=127.0.0.1:50001 ")).unwrap().to_string();
                let field = |name: &str| {
                    let rest = line.split(&format!(" {name}=")).nth(1).unwrap();
                    rest.split(' ').next().unwrap().parse::<usize>().unwrap()
                };
                (field("qbuf"), field("qbuf-free"))
            };
            assert_eq!(buffers(&mut world), (0, 0));
            world.send(conn, b"*3\r\n$3\r\nset\r\n$2\r\na");
            let (used, free) = buffers(&mut world);
            assert!(used == 18 && (16_384..=32_770).contains(&(used + free)), "{used} {free}");
            world.send(conn, b"a\r\n$1\r\nb\r\n");
            assert_eq!(world.received(conn), b"+OK\r\n");
            assert_eq!(buffers(&mut world), (0, used + free));
            (0..40).for_each(|_| world.advance(100));
            assert_eq!(buffers(&mut world), (0, 0));
            // Too large for what came lately: a little is kept while the client is busy.
            let large = request(&["SET", "x", &"A".repeat(400_000)]);
            large.chunks(50_000).for_each(|piece| world.send(conn, piece));
            assert_eq!(world.received(conn), b"+OK\r\n");
            assert!(buffers(&mut world).1 >= 400_000);
            for _ in 0..30 {
                world.run(conn, "GET nosuch").to_string();
                world.advance(100);
            }
            let (_, free) = buffers(&mut world);
            assert!((1..100_000).contains(&free), "{free}");
            // An argument that is awaited has its room, until nothing has come for long.
            world.send(conn, b"*3\r\n$3\r\nset\r\n$1\r\na\r\n$1000000\r\n");
            assert!(buffers(&mut world).1 > 1_000_000 - 100);
            (0..10).for_each(|_| world.advance(100));
            assert!(buffers(&mut world).1 > 1_000_000 - 100);
            (0..40).for_each(|_| world.advance(100));
            assert!(buffers(&mut world).1 < 100);
        }
    }

    #[test]
    fn whoever_kills_itself_is_answered_first() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let all: Vec<Conn> = (0..5).map(|_| world.connect()).collect();
            assert_eq!(send(&mut world, all[0], &["CLIENT KILL SKIPME YES"]), ["4"]);
            assert!(world.is_open(all[0]) && all[1..].iter().all(|conn| !world.is_open(*conn)));
            let other = world.connect();
            assert_eq!(send(&mut world, all[0], &["CLIENT KILL SKIPME NO", "PING"]), ["2"]);
            assert!(!world.is_open(all[0]) && !world.is_open(other));
            let conn = world.connect();
            let address = world.run(conn, "CLIENT INFO").text();
            let address = address.split(" addr=").nth(1).unwrap().split(' ').next().unwrap().to_string();
            assert_eq!(send(&mut world, conn, &[&format!("CLIENT KILL {address}")]), ["OK"]);
            assert!(!world.is_open(conn));
        }
    }
}
