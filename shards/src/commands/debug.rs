//! `DEBUG`: what tests and the curious ask of a server; `enable-debug-command` allows it. Counterpart: `debug.c`.
//!
//! Redis has one command here and looks at its first argument. Some of these need no key, some one, some all of them,
//! and routing goes by rows, so each has a row of its own, which is hidden from `COMMAND`
//! ([`flag::SUBCOMMAND`]). What switches a feature that is still to be built is kept in [`DebugSettings`] until then.
//!
//! [`DebugSettings`]: crate::shared::DebugSettings

use std::sync::atomic::Ordering::Relaxed;

use super::server::not_built;
use super::{Command, CommandError, CommandResult, Ctx, Group, KeySpec, flag, help, key};
use crate::args::Args;
use crate::config::parse_memory;
use crate::core::{Core, Event};
use crate::db::evict;
use crate::digest::Digest;
use crate::encodings::{ListPack, QuickList};
use crate::entry::{EntryPtr, Kind, StrRef};
use crate::glob;
use crate::message::{Answer, Question, Switch};
use crate::number::parse_i64;
use crate::object::ObjectRef;
use crate::rdb::write::{Style, Writer};
use crate::shard::{Effect, LogLevel, Shard};

use flag::*;

const DEBUG: u32 = ADMIN | NOSCRIPT | LOADING | STALE | PROTECTED;
const HIDDEN: u32 = DEBUG | SUBCOMMAND;
const KEY: &[KeySpec] = &[KeySpec::one(2, key::RO)];

const fn home(name: &'static str, run: super::spec::HomeFn, arity: i16, summary: &'static str) -> Command {
    Command::home(name, run, arity, HIDDEN, Group::Server).doc("1.0.0", "O(1)", summary, "")
}

const fn data(name: &'static str, run: super::spec::DataFn, arity: i16, summary: &'static str) -> Command {
    Command::data(name, run, arity, HIDDEN, Group::Server).doc("1.0.0", "Depends on the keys", summary, "")
}

const fn switch(name: &'static str, question: fn(Args<'_>) -> Option<Question>, summary: &'static str) -> Command {
    Command::gather(name, question, switched, 3, HIDDEN, Group::Server).doc("1.0.0", "O(1)", summary, "")
}

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::home("debug", unknown, -2, DEBUG | CONTAINER, Group::Server).doc(
        "1.0.0",
        "Depends on the subcommand.",
        "Does what tests and developers need.",
        "",
    ),
    home("debug|sleep", sleep, 3, "Blocks the shard."),
    home("debug|error", error, 3, "Answers with an error."),
    home("debug|log", log, 3, "Writes a line to the log."),
    home("debug|protocol", protocol, 3, "Answers with a value of each type."),
    home("debug|segfault", segfault, 2, "Ends the server as a bad access would."),
    home("debug|panic", panic, 2, "Ends the server as a panic would."),
    home("debug|assert", assert, 2, "Ends the server as a failed assertion would."),
    home("debug|oom", oom, 2, "Ends the server as a failed allocation would."),
    home("debug|change-repl-id", change_repl_id, 2, "Gives the history of the data a new name."),
    home("debug|stringmatch-len", stringmatch_len, 4, "Matches a pattern against a long string."),
    home("debug|structsize", structsize, 2, "Returns sizes of structures."),
    home("debug|quicklist-packed-threshold", packed_threshold, 3, "Sets when list elements stand alone."),
    home("debug|set-disable-deny-scripts", disable_deny_scripts, 3, "Lets scripts call any command."),
    home("debug|set-skip-checksum-validation", skip_checksum, 3, "Lets payloads pass unchecked."),
    home("debug|replybuffer", replybuffer, 4, "Tunes reply buffers."),
    home("debug|mallctl", mallctl, -3, "Reads or writes a number of the allocator."),
    home("debug|mallctl-str", mallctl, -3, "Reads or writes a text of the allocator."),
    home("debug|jmap", refuse, -2, "Maps the heap."),
    home("debug|restart", refuse, -2, "Starts the server again."),
    home("debug|crash-and-recover", refuse, -2, "Ends and starts the server again."),
    home(
        "debug|config-rewrite-force-all",
        |shard, index, _| super::config::ask_for_rewrite(shard, index, true),
        2,
        "Writes all directives to the file.",
    ),
    home("debug|replicate", replicate, -3, "Sends something to replicas alone."),
    home("debug|help", debug_help, 2, "Lists the subcommands."),
    switch(
        "debug|set-active-expire",
        |args| on(args, Switch::ActiveExpire),
        "Turns the active expire cycle on or off.",
    ),
    switch("debug|pause-cron", |args| on(args, Switch::PauseCron), "Stops time events, or lets them go on."),
    switch("debug|dict-resizing", |args| on(args, Switch::DictResizing), "Turns resizing by time events on or off."),
    data("debug|object", object, 3, "Describes a value.").keys(KEY),
    data("debug|sdslen", sdslen, 3, "Describes the strings of a key and its value.").keys(KEY),
    data("debug|listpack", listpack, 3, "Prints a listpack.").keys(KEY),
    data("debug|quicklist", quicklist, -3, "Prints a quicklist.").keys(KEY),
    data("debug|htstats-key", htstats_key, -3, "Describes the table of a value.").keys(KEY),
    data("debug|digest-value", digest_value, -2, "Returns fingerprints of values.").keys(&[KeySpec::range(
        2,
        -1,
        1,
        key::RO,
    )]),
    data("debug|digest", digest, 2, "Returns the fingerprint of all data."),
    data("debug|htstats", htstats, -3, "Describes the tables of a database."),
    data("debug|populate", populate, -3, "Makes keys."),
];

fn unknown(_: &mut Shard, _: u32, args: Args<'_>) -> CommandResult {
    let sub = args.get(1).unwrap_or(b"");
    let sub = String::from_utf8_lossy(&sub[..sub.len().min(128)]).into_owned();
    Err(format!("ERR unknown subcommand or wrong number of arguments for '{sub}'. Try DEBUG HELP.").into())
}

fn refuse(_: &mut Shard, _: u32, args: Args<'_>) -> CommandResult {
    Err(not_built(&format!("DEBUG {}", String::from_utf8_lossy(args.at(1)).to_uppercase())))
}

/// A number as C's `atoi` reads it: what does not start with one is 0.
fn atoi(text: &[u8]) -> i64 {
    let digits = text.iter().skip(usize::from(text.first() == Some(&b'-'))).take_while(|b| b.is_ascii_digit()).count();
    let end = digits + usize::from(text.first() == Some(&b'-'));
    parse_i64(&text[..end]).unwrap_or(if digits > 1 { 1 } else { 0 })
}

fn on(args: Args<'_>, switch: Switch) -> Option<Question> {
    Some(Question::Switch(switch, atoi(args.at(2)) != 0))
}

fn switched(shard: &mut Shard, index: u32, _: Args<'_>, _: Vec<Answer>) -> CommandResult {
    ok(shard, index)
}

fn ok(shard: &mut Shard, index: u32) -> CommandResult {
    shard.client(index).reply().ok();
    Ok(())
}

/// Longest time a shard is put to sleep, in s.
const MAX_SLEEP: f64 = 3600.0;

fn sleep(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let text = std::str::from_utf8(args.at(2)).unwrap_or("");
    let seconds: f64 = text.trim().parse().unwrap_or(0.0);
    let us = (seconds.clamp(0.0, MAX_SLEEP) * 1e6) as u64;
    match shard.core.shared.host.sleep(us) {
        true => shard.core.slept_us += us,
        false => shard.effects.push(Effect::Sleep(us)),
    }
    ok(shard, index)
}

/// An error of the client's own making: it is not counted.
fn error(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let text = String::from_utf8_lossy(args.at(2));
    shard.client(index).reply().error(&text);
    Ok(())
}

fn log(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let line = format!("DEBUG LOG: {}", String::from_utf8_lossy(args.at(2)));
    shard.log(LogLevel::Warning, line);
    ok(shard, index)
}

fn protocol(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    const BIG: &str = "1234567999999999999999999999999999999";
    let mut reply = shard.client(index).reply();
    match args.at(2).to_ascii_lowercase().as_slice() {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.integer(12345),
        #[allow(clippy::approx_constant)] // The number Redis answers with.
        b"double" => reply.double(3.141),
        b"bignum" if reply.resp == 3 => reply.out.extend_from_slice(format!("({BIG}\r\n").as_bytes()),
        b"bignum" => reply.bulk(BIG.as_bytes()),
        b"null" => reply.null(),
        b"array" => {
            reply.array(3);
            (0..3).for_each(|n| reply.integer(n));
        }
        b"set" => {
            reply.set(3);
            (0..3).for_each(|n| reply.integer(n));
        }
        b"map" => {
            reply.map(3);
            (0..3).for_each(|n| {
                reply.integer(n);
                reply.boolean(n == 1);
            });
        }
        b"attrib" => {
            if reply.resp == 3 {
                // An attribute stands before the reply it belongs to.
                reply.out.extend_from_slice(b"|1\r\n");
                reply.bulk(b"key-popularity");
                reply.array(2);
                reply.bulk(b"key:123");
                reply.integer(90);
            }
            reply.bulk(b"Some real reply following the attribute");
        }
        b"push" if reply.resp == 2 => return Err("ERR RESP2 is not supported by this command".into()),
        b"push" => {
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.integer(42);
            // A push message is no answer; who waits for one needs it too.
            reply.bulk(b"Some real reply following the push reply");
        }
        b"verbatim" => reply.verbatim("txt", b"This is a verbatim\nstring"),
        b"true" => reply.boolean(true),
        b"false" => reply.boolean(false),
        _ => {
            return Err("ERR Wrong protocol type name. Please use one of the following: \
                        string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false"
                .into());
        }
    }
    Ok(())
}

fn crash(shard: &mut Shard, report: String) -> CommandResult {
    shard.effects.push(Effect::Crash(report));
    Err(CommandError::NoReply)
}

fn segfault(shard: &mut Shard, _: u32, _: Args<'_>) -> CommandResult {
    shard.effects.push(Effect::Segfault);
    Err(CommandError::NoReply)
}

fn panic(shard: &mut Shard, _: u32, _: Args<'_>) -> CommandResult {
    let seconds = shard.core.now_ms / 1000;
    crash(shard, format!("DEBUG PANIC called at Unix time {seconds}"))
}

fn assert(shard: &mut Shard, _: u32, _: Args<'_>) -> CommandResult {
    crash(shard, "=== ASSERTION FAILED === DEBUG ASSERT".into())
}

fn oom(shard: &mut Shard, _: u32, _: Args<'_>) -> CommandResult {
    crash(shard, "Out Of Memory: DEBUG OOM".into())
}

fn replicate(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    shard.replicate(&args.iter_from(2).collect::<Vec<_>>());
    ok(shard, index)
}

fn change_repl_id(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    let id = crate::replication::new_id(&mut shard.core.rng);
    shard.core.shared.replication.feed().id = id;
    shard.log(LogLevel::Notice, "Changing replication IDs after receiving DEBUG change-repl-id");
    ok(shard, index)
}

/// Longest string that a pattern is matched against.
const MAX_MATCH: i64 = 1 << 20;

fn stringmatch_len(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let len = parse_i64(args.at(2)).filter(|n| (0..=MAX_MATCH).contains(n)).ok_or(CommandError::NotInteger)?;
    let _ = glob::matches(args.at(3), &vec![b'a'; len as usize], false);
    ok(shard, index)
}

fn structsize(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    let sizes = format!(
        "bits:{} entryptr:{} object:{} client:{} redisdb:{}",
        usize::BITS,
        size_of::<EntryPtr>(),
        size_of::<crate::object::Object>(),
        size_of::<crate::client::Client>(),
        size_of::<crate::db::RedisDb>()
    );
    shard.client(index).reply().bulk(sizes.as_bytes());
    Ok(())
}

fn packed_threshold(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let bytes = parse_memory(args.at(2)).filter(|bytes| *bytes < 1 << 32);
    let bytes = bytes.ok_or("ERR argument must be a memory value bigger than 1 and smaller than 4gb")?;
    shard.core.shared.debug.quicklist_packed_threshold.store(bytes, Relaxed);
    ok(shard, index)
}

fn disable_deny_scripts(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    shard.core.shared.debug.disable_deny_scripts.store(atoi(args.at(2)) != 0, Relaxed);
    ok(shard, index)
}

fn skip_checksum(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    shard.core.shared.debug.skip_checksum_validation.store(atoi(args.at(2)) != 0, Relaxed);
    ok(shard, index)
}

/// Reply buffers here come from a pool and are never shrunk in place, so there is nothing to tune; the words are
/// checked all the same.
fn replybuffer(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    if args.is(2, "peak-reset-time") {
        if !args.is(3, "never") && !args.is(3, "reset") {
            parse_i64(args.at(3)).ok_or(CommandError::NotInteger)?;
        }
        return ok(shard, index);
    }
    if args.is(2, "resizing") {
        return ok(shard, index);
    }
    unknown(shard, index, args)
}

fn mallctl(_: &mut Shard, _: u32, _: Args<'_>) -> CommandResult {
    Err("ERR the allocator's own settings cannot be reached by command, see MEMORY MALLOC-STATS".into())
}

/// The entry of argument 2, even one past its time, and without marking it as used.
fn entry(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<EntryPtr, CommandError> {
    let key = ctx.key(args, 2);
    ctx.db(key).dict.find(key.hash, key.bytes).ok_or(CommandError::NoSuchKey)
}

/// Bytes of a value in a snapshot, its type not counted.
fn serialized_length(entry: EntryPtr, core: &Core) -> usize {
    let mut out = Vec::new();
    Writer { out: &mut out, style: Style::of(&core.config) }.value(entry);
    out.len()
}

fn idle_seconds(entry: EntryPtr, core: &Core) -> u64 {
    match core.config.maxmemory_policy.is_lfu() {
        true => 0,
        false => evict::idle_seconds(entry, core),
    }
}

fn object(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let entry = entry(ctx, args)?;
    let idle = idle_seconds(entry, ctx.core);
    let nodes = match entry.object() {
        Some(ObjectRef::List(list)) => list.quick().map(|list| quicklist_facts(list, ctx.core)),
        _ => None,
    };
    let nodes = nodes.unwrap_or_default();
    ctx.reply.simple(&format!(
        "Value at:{:p} refcount:1 encoding:{} serializedlength:{} lru:{} lru_seconds_idle:{idle}{nodes}",
        crate::dict::Element::to_ptr(entry),
        entry.encoding().name(),
        serialized_length(entry, ctx.core),
        entry.lru()
    ));
    Ok(())
}

/// What Redis says of a quicklist's nodes.
fn quicklist_facts(list: &QuickList, core: &Core) -> String {
    let bytes: usize = list.nodes().map(|node| node.map_or_else(<[u8]>::len, ListPack::total_bytes)).sum();
    format!(
        " ql_nodes:{} ql_avg_node:{:.2} ql_listpack_max:{} ql_compressed:{} ql_uncompressed_size:{bytes}",
        list.nodes().len(),
        list.len() as f64 / list.nodes().len() as f64,
        core.config.list_max_listpack_size,
        u8::from(core.config.list_compress_depth != 0),
    )
}

fn sdslen(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let entry = entry(ctx, args)?;
    let Some(StrRef::Bytes(value)) = entry.string() else { return Err("ERR Not an sds encoded string.".into()) };
    let spare = match entry.object() {
        Some(ObjectRef::String(text)) => text.capacity() - text.len(),
        _ => 0,
    };
    // Key and value share one allocation while the value is short.
    let value_bytes = if entry.object().is_some() { value.len() + spare } else { 0 };
    ctx.reply.simple(&format!(
        "key_sds_len:{}, key_sds_avail:0, key_zmalloc: {}, val_sds_len:{}, val_sds_avail:{spare}, val_zmalloc: \
         {value_bytes}",
        entry.key().len(),
        entry.allocation_size(),
        value.len(),
    ));
    Ok(())
}

fn listpack(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let entry = entry(ctx, args)?;
    match entry.encoding().name() {
        "listpack" | "listpackex" => {
            let (encoding, bytes) = (entry.encoding().name(), entry.allocation_size());
            let line = format!("{encoding} of {bytes} bytes at key {}", String::from_utf8_lossy(entry.key()));
            ctx.core.for_driver.push(Effect::Log(LogLevel::Notice, line));
            ctx.reply.simple("Listpack structure printed on stdout");
            Ok(())
        }
        _ => Err("ERR Not a listpack encoded object.".into()),
    }
}

fn quicklist(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    match entry(ctx, args)?.encoding().name() {
        "quicklist" => Err(not_built("DEBUG QUICKLIST")),
        _ => Err("ERR Not a quicklist encoded object.".into()),
    }
}

fn htstats_key(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let entry = entry(ctx, args)?;
    match entry.kind() {
        Kind::String | Kind::List | Kind::Stream => {
            Err("ERR The value stored at the specified key is not represented using an hash table".into())
        }
        kind => Err(not_built(&format!("DEBUG HTSTATS-KEY of a {}", kind.name()))),
    }
}

fn htstats(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let number = parse_i64(args.at(2)).ok_or(CommandError::NotInteger)?;
    if number < 0 || number >= ctx.core.config.databases as i64 {
        return Err("ERR Out of range database".into());
    }
    let mut text = String::new();
    for slice in ctx.keys.slices() {
        let db = &slice.dbs[number as usize];
        text.push_str(&format!("[Shard {}]\n[Dictionary HT]\n{}", slice.owner, db.dict.stats()));
        text.push_str(&format!("[Expires HT]\n{}", db.expires.stats()));
    }
    ctx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn digest(ctx: &mut Ctx<'_>, _: Args<'_>) -> CommandResult {
    let mut digest = Digest::default();
    for number in 0..ctx.core.config.databases {
        if ctx.keys.dbs(number as u16).all(|db| db.dict.is_empty()) {
            continue;
        }
        digest.add_database(number);
        for db in ctx.keys.dbs(number as u16) {
            db.dict.for_each(|entry| digest.add_entry(entry));
        }
    }
    ctx.reply.simple(&digest.hex());
    Ok(())
}

fn digest_value(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    ctx.reply.array(args.len() - 2);
    for name in args.iter_from(2) {
        let key = ctx.key_of(name);
        let found = ctx.db(key).dict.find(key.hash, key.bytes);
        let digest = found.map(Digest::of_value).unwrap_or_default();
        ctx.reply.simple(&digest.hex());
    }
    Ok(())
}

/// Longest value that `DEBUG POPULATE` makes.
const MAX_POPULATE_BYTES: i64 = 512 << 20;

fn populate(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    if args.len() > 5 {
        return Err(CommandError::Syntax);
    }
    let positive = |text: &[u8]| {
        parse_i64(text).filter(|n| *n >= 0).ok_or(CommandError::new("ERR value is out of range, must be positive"))
    };
    let count = positive(args.at(2))?;
    let prefix = args.get(3).unwrap_or(b"key");
    let size = args.get(4).map_or(Ok(0), positive)?.min(MAX_POPULATE_BYTES) as usize;
    let mut buffer = itoa::Buffer::new();
    for n in 0..count {
        let number = buffer.format(n);
        let name = [prefix, b":", number.as_bytes()].concat();
        let mut value = [b"value:", number.as_bytes()].concat();
        if size > 0 {
            value.resize(size, 0);
        }
        let key = ctx.key_of(&name);
        let db = ctx.keys.db(ctx.client.db, &name);
        if db.find(ctx.core, key).is_none() {
            db.set_string(ctx.core, key, &value, crate::db::Ttl::Clear);
            ctx.effect(&[b"SET", &name, &value]);
            ctx.changed(Event::STRING, "set", &name);
        }
    }
    ctx.reply.ok();
    Ok(())
}

fn debug_help(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    help(
        shard,
        index,
        "DEBUG",
        &[
            ("ASSERT", "End the server as a failed assertion would."),
            ("CHANGE-REPL-ID", "Give the history of the data a new name."),
            ("DICT-RESIZING <0|1>", "Turn the resizing of tables by time events off or on."),
            ("DIGEST", "Return a fingerprint of all data, the same as Redis's of the same data."),
            ("DIGEST-VALUE <key> [<key> ...]", "Return fingerprints of the values of these keys."),
            ("ERROR <string>", "Answer with <string> as an error."),
            ("LOG <message>", "Write <message> to the log."),
            ("HTSTATS <dbid> [full]", "Describe the tables of a database, shard by shard."),
            ("HTSTATS-KEY <key> [full]", "Describe the table of the value at <key>."),
            ("MALLCTL <key> [<val>]", "Refused; see MEMORY MALLOC-STATS."),
            ("OBJECT <key>", "Describe the value at <key>."),
            ("OOM", "End the server as a failed allocation would."),
            ("PANIC", "End the server as a panic would."),
            ("PAUSE-CRON <0|1>", "Let time events go on, or stop them."),
            ("POPULATE <count> [<prefix>] [<size>]", "Make <count> keys <prefix>:<n> that do not exist yet."),
            ("PROTOCOL <type>", "Answer with a value of this type of the protocol."),
            ("QUICKLIST-PACKED-THRESHOLD <size>", "Set from which size on a list's element stands alone."),
            ("REPLYBUFFER <subcommand> <arg>", "Accepted for tests; reply buffers need no tuning here."),
            ("SDSLEN <key>", "Describe the strings of a key and its value."),
            ("SEGFAULT", "End the server as a bad access to memory would."),
            ("SET-ACTIVE-EXPIRE <0|1>", "Turn the active expire cycle off or on."),
            ("SET-DISABLE-DENY-SCRIPTS <0|1>", "Let scripts call commands that are closed to them."),
            ("SET-SKIP-CHECKSUM-VALIDATION <0|1>", "Let dumped payloads pass with a wrong checksum."),
            ("SLEEP <seconds>", "Block the connection's shard for <seconds>; decimals are allowed."),
            ("STRINGMATCH-LEN <len> <pattern>", "Match <pattern> against <len> times the letter a."),
            ("STRUCTSIZE", "Return sizes of structures."),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Check, World};

    #[test]
    fn types_of_the_protocol() {
        let mut t = Check::new();
        t.types("DEBUG PROTOCOL string", "\"Hello World\"", "\"Hello World\"");
        t.types("DEBUG PROTOCOL integer", "12345", "12345").types("DEBUG PROTOCOL double", "\"3.141\"", ",3.141");
        t.types("DEBUG PROTOCOL null", "nil", "nil").types("DEBUG PROTOCOL array", "[0 1 2]", "[0 1 2]");
        t.types("DEBUG PROTOCOL set", "[0 1 2]", "~[0 1 2]");
        t.types("DEBUG PROTOCOL map", "[0 0 1 1 2 0]", "{0: #false, 1: #true, 2: #false}");
        t.types("DEBUG PROTOCOL true", "1", "#true").types("DEBUG PROTOCOL false", "0", "#false");
        t.types(
            "DEBUG PROTOCOL bignum",
            "\"1234567999999999999999999999999999999\"",
            "(1234567999999999999999999999999999999",
        );
        t.types("DEBUG PROTOCOL verbatim", "\"This is a verbatim\\nstring\"", "txt:\"This is a verbatim\\nstring\"");
        t.look("DEBUG PROTOCOL nosuch", |v| assert!(v.text().starts_with("ERR Wrong protocol type name")));
        let mut world = World::new(1);
        let conn = world.connect();
        assert_eq!(world.run(conn, "DEBUG PROTOCOL push").text(), "ERR RESP2 is not supported by this command");
        world.run(conn, "HELLO 3");
        let push = world.call(conn, &["debug", "protocol", "push"]);
        assert!(push.starts_with(b">2\r\n$16\r\nserver-cpu-usage\r\n:42\r\n$40\r\n"));
        let attribute = world.call(conn, &["debug", "protocol", "attrib"]);
        assert!(attribute.starts_with(b"|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n$39\r\n"));
    }

    #[test]
    fn digests_are_redis_own() {
        // The figures of redis-server 7.0.15 for the same commands.
        let mut t = Check::new();
        t.check("DEBUG DIGEST", &"0".repeat(40));
        t.check("SET a b", "OK").check("SET s hello", "OK").check("SET n 1234", "OK");
        t.check("DEBUG DIGEST", "1771bb5232dafce36bfb56d3147b489fab5559cb");
        t.check(
            "DEBUG DIGEST-VALUE s n none",
            "[36b23a1456b2dce2c3ed252c456761301dba8060 5251ee9402fed6b9bcdb402b90a4e9c7dff427f9 \
             0000000000000000000000000000000000000000]",
        );
        t.check("DEBUG DIGEST-VALUE", "[]").check("FLUSHALL", "OK").check("HSET h a 1 b two c 3.5", "3");
        t.check("DEBUG DIGEST-VALUE h", "[c98c1cac1c02865e09655a041763ad83843f9d07]");
        t.check("DEBUG DIGEST", "866e5647f505067870aa22430093e05495729780");
    }

    #[test]
    fn values_are_described() {
        let mut t = Check::new();
        t.check("SET s hello", "OK").check("SET n 1234", "OK").advance(5000);
        t.look("DEBUG OBJECT s", |v| {
            let text = v.text();
            assert!(text.starts_with("Value at:0x"), "{text}");
            assert!(text.contains(" refcount:1 encoding:embstr serializedlength:6 lru:"), "{text}");
            assert!(text.ends_with(" lru_seconds_idle:5"), "{text}");
        });
        t.look("DEBUG OBJECT n", |v| assert!(v.text().contains("encoding:int serializedlength:3 ")));
        t.check("DEBUG OBJECT none", "-ERR no such key")
            .check("DEBUG LISTPACK s", "-ERR Not a listpack encoded object.");
        t.look("DEBUG SDSLEN s", |v| assert!(v.text().starts_with("key_sds_len:1, key_sds_avail:0, ")));
        t.check("DEBUG SDSLEN n", "-ERR Not an sds encoded string.");
        t.look("DEBUG HTSTATS 0", |v| {
            let text = v.text();
            let counts = text.lines().filter_map(|line| line.trim().strip_prefix("number of elements: "));
            assert_eq!(counts.map(|n| n.parse::<usize>().unwrap()).sum::<usize>(), 2, "{text}");
        });
        t.check("DEBUG HTSTATS 99", "-ERR Out of range database");
        t.look("DEBUG HTSTATS-KEY s", |v| assert!(v.text().starts_with("ERR The value stored at")));
    }

    #[test]
    fn populate_makes_what_is_missing() {
        let mut t = Check::new();
        t.check("SET key:3 mine", "OK").check("DEBUG POPULATE 10", "OK").check("DBSIZE", "10");
        t.check("GET key:3", "\"mine\"").check("GET key:9", "\"value:9\"");
        t.check("DEBUG POPULATE 2 p 9", "OK").check("GET p:1", r#""value:1\x00\x00""#);
        t.check("DEBUG POPULATE 1 q 3", "OK").check("GET q:0", "\"val\"");
        t.check("DEBUG POPULATE -1", "-ERR value is out of range, must be positive");
    }

    #[test]
    fn switches_reach_every_shard() {
        let mut t = Check::new();
        t.check("DEBUG SET-ACTIVE-EXPIRE 0", "OK");
        for i in 0..20 {
            t.check(&format!("SET key:{i} v PX 10"), "OK");
        }
        t.advance(1000).advance(1000).check("DBSIZE", "20");
        t.check("DEBUG SET-ACTIVE-EXPIRE 1", "OK").advance(1000).advance(1000).check("DBSIZE", "0");
        t.check("DEBUG PAUSE-CRON 1", "OK");
        t.each(|world, _| assert!(world.shards.iter().all(|shard| shard.core.cron_paused)));
        t.check("DEBUG PAUSE-CRON 0", "OK").check("DEBUG DICT-RESIZING 0", "OK");
        t.each(|world, _| assert!(world.shards.iter().all(|shard| !shard.core.dict_resizing)));
    }

    #[test]
    fn small_things() {
        let mut t = Check::new();
        t.check("DEBUG ERROR boo", "-boo").check("DEBUG LOG hi", "OK").check("DEBUG SLEEP 0.001", "OK");
        t.each(|world, _| {
            let logged = |e: &(u16, Effect)| matches!(&e.1, Effect::Log(_, line) if line == "DEBUG LOG: hi");
            assert!(world.effects.iter().any(logged));
        });
        t.check("DEBUG NOSUCH", "-ERR unknown subcommand or wrong number of arguments for 'NOSUCH'. Try DEBUG HELP.");
        t.check("DEBUG QUICKLIST-PACKED-THRESHOLD 200b", "OK").check("DEBUG REPLYBUFFER RESIZING 0", "OK");
        t.look("DEBUG QUICKLIST-PACKED-THRESHOLD 5gb", |v| assert!(v.text().starts_with("ERR argument must be")));
        t.check("DEBUG STRINGMATCH-LEN 10000 *a*a*a*b", "OK");
        let mut before = String::new();
        t.look("INFO replication", |v| before = v.text()).check("DEBUG CHANGE-REPL-ID", "OK");
        t.look("INFO replication", |v| assert_ne!(v.text(), before));
        t.each(|world, conn| {
            world.send(conn, b"DEBUG SEGFAULT\r\n");
            assert!(matches!(world.effects.last(), Some((_, Effect::Segfault))));
        });
        assert_eq!([atoi(b"1"), atoi(b"-3x"), atoi(b"x"), atoi(b"")], [1, -3, 0, 0]);
    }
}
