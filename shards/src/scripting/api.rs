//! The `redis` table of scripts.

use std::ffi::c_int;

use super::engine::{Registered, host};
use super::lua::*;
use super::run::Run;
use super::store::Flags;
use super::{debugger, reply, sandbox};
use crate::shard::LogLevel;

/// Sets the globals that come from the server, on the real table of globals.
pub(super) fn open(lua: Lua, functions: bool) {
    let mut table: Vec<(&str, Function)> = vec![
        ("call", call),
        ("pcall", pcall),
        ("setresp", set_resp),
        ("sha1hex", sha1hex),
        ("error_reply", error_reply),
        ("status_reply", status_reply),
        ("set_repl", set_repl),
        ("acl_check_cmd", acl_check_cmd),
    ];
    if !functions {
        table.extend([
            ("breakpoint", breakpoint as Function),
            ("debug", debug),
            ("replicate_commands", replicate_commands),
        ]);
    }
    lua.push_table(0, 24);
    for (name, function) in table {
        lua.push_function(function);
        lua.set_field(-2, name);
    }
    open_log(lua);
    for (name, value) in [("REPL_NONE", 0), ("REPL_AOF", 1), ("REPL_SLAVE", 2), ("REPL_REPLICA", 2), ("REPL_ALL", 3)] {
        lua.push_number(f64::from(value));
        lua.set_field(-2, name);
    }
    lua.set_field(GLOBALS, "redis");

    lua.push_table(0, 1);
    lua.push_function(clock);
    lua.set_field(-2, "clock");
    lua.set_field(GLOBALS, "os");

    lua.field(GLOBALS, "math");
    lua.push_function(random);
    lua.set_field(-2, "random");
    lua.push_function(random_seed);
    lua.set_field(-2, "randomseed");
    lua.pop(1);
}

/// Pushes the globals of a library that is being loaded.
pub(super) fn open_library(lua: Lua) {
    lua.push_table(0, 1);
    lua.push_table(0, 8);
    lua.push_function(register_function);
    lua.set_field(-2, "register_function");
    open_log(lua);
    lua.push_table(0, 1);
    lua.push_function(sandbox::no_such_global);
    lua.set_field(-2, "__index");
    lua.set_metatable(-2);
    sandbox::protect(lua, None);
    lua.set_field(-2, "redis");
}

fn open_log(lua: Lua) {
    lua.push_function(log);
    lua.set_field(-2, "log");
    for (value, name) in ["LOG_DEBUG", "LOG_VERBOSE", "LOG_NOTICE", "LOG_WARNING"].into_iter().enumerate() {
        lua.push_number(value as f64);
        lua.set_field(-2, name);
    }
    lua.push_bytes(crate::REDIS_VERSION.as_bytes());
    lua.set_field(-2, "REDIS_VERSION");
    let parts = crate::REDIS_VERSION.split('.').filter_map(|part| part.parse::<u32>().ok());
    lua.push_number(f64::from(parts.fold(0, |number, part| (number << 8) | part)));
    lua.set_field(-2, "REDIS_VERSION_NUM");
}

fn raise(lua: Lua, text: &str) -> Result<c_int, Raise> {
    reply::push_error(lua, text, false);
    Err(Raise::Top)
}

/// The script that runs. Every use of it in a function that Lua calls goes through here, once.
pub(super) fn running<'a>(lua: Lua) -> Option<&'a mut Run<'static>> {
    // SAFETY: the run is there while its script runs, and only the function that Lua has just called uses it.
    host(lua).run.map(|mut run| unsafe { run.as_mut() })
}

pub(super) fn call(lua: Lua) -> Result<c_int, Raise> {
    call_command(lua, true)
}

fn pcall(lua: Lua) -> Result<c_int, Raise> {
    call_command(lua, false)
}

/// Puts the arguments on the stack together; an error's text if one is no string.
fn collect_args(lua: Lua) -> Result<(), &'static str> {
    let args = &mut host(lua).args;
    args.clear();
    let count = lua.top();
    if count == 0 {
        return Err("ERR Please specify at least one argument for this redis lib call");
    }
    for at in 1..=count {
        match lua.kind(at) {
            LUA_TSTRING => args.push(lua.bytes(at).unwrap_or_default()),
            LUA_TNUMBER => {
                let number = lua.number(at);
                match number.fract() == 0.0 && number.abs() < 9.2e18 {
                    true => args.push(itoa::Buffer::new().format(number as i64).as_bytes()),
                    false => args.push(crate::number::format_f64(number).as_bytes()),
                }
            }
            _ => return Err("ERR Lua redis lib command arguments must be strings or integers"),
        }
    }
    Ok(())
}

fn call_command(lua: Lua, raises: bool) -> Result<c_int, Raise> {
    let done = |text: &str, counted: bool| {
        reply::push_error(lua, text, counted);
        if raises { Err(Raise::Top) } else { Ok(1) }
    };
    if let Err(text) = collect_args(lua) {
        return done(text, false);
    }
    lua.set_top(0);
    let Some(run) = running(lua) else {
        return done("ERR redis.call/pcall can only be called inside a script invocation", false);
    };
    // Taken out, so that the host is not borrowed while the command runs; no script runs inside a script.
    let args = std::mem::take(&mut host(lua).args);
    let mut bytes = std::mem::take(&mut host(lua).reply);
    bytes.clear();
    if let Some(session) = run.core.debugger.as_deref_mut() {
        session.say_call(args.args().iter_from(0));
    }
    let result = run.command(args.args(), &mut bytes);
    if let Some(session) = run.core.debugger.as_deref_mut() {
        match &result {
            Ok(()) => {
                if bytes[0] == b'-' {
                    let line = bytes.strip_suffix(b"\r\n").unwrap_or(&bytes);
                    session.say_error(&String::from_utf8_lossy(line));
                }
                session.say_reply(&bytes);
            }
            Err(text) => match text.strip_prefix("ERR ") {
                Some(text) => session.say_error(text),
                None => session.say_error(&format!("-{text}")),
            },
        }
    }
    let host = host(lua);
    host.args = args;
    if let Err(text) = result {
        host.reply = bytes;
        if run.must_stop() {
            // Also where a hook was not inherited: no later line runs.
            host.hooked = true;
            lua.hook_each_line(super::engine::hook);
        }
        return done(&text, true);
    }
    reply::push(lua, &bytes);
    let failed = bytes[0] == b'-';
    if bytes.capacity() > 64 * 1024 {
        bytes = Vec::new();
    }
    host.reply = bytes;
    if raises && failed { Err(Raise::Top) } else { Ok(1) }
}

fn set_resp(lua: Lua) -> Result<c_int, Raise> {
    if lua.top() != 1 {
        return raise(lua, "ERR redis.setresp() requires one argument.");
    }
    let resp = lua.number(1);
    if resp != 2.0 && resp != 3.0 {
        return raise(lua, "ERR RESP version must be 2 or 3.");
    }
    if let Some(run) = running(lua) {
        run.client.resp = resp as u8;
    }
    Ok(0)
}

fn sha1hex(lua: Lua) -> Result<c_int, Raise> {
    if lua.top() != 1 {
        return raise(lua, "ERR wrong number of arguments");
    }
    let digest = super::store::sha1hex(lua.bytes(1).unwrap_or_default());
    lua.push_bytes(&digest);
    Ok(1)
}

fn error_reply(lua: Lua) -> Result<c_int, Raise> {
    if lua.top() != 1 || lua.kind(1) != LUA_TSTRING {
        reply::push_error(lua, "ERR wrong number or type of arguments", false);
        return Ok(1);
    }
    let text = String::from_utf8_lossy(lua.bytes(1).unwrap_or_default()).into_owned();
    let text = text.strip_prefix('-').unwrap_or(&text);
    let text = text.trim_end_matches(['\r', '\n']);
    match text.split_once(' ') {
        Some((code, rest)) => reply::push_error(lua, &format!("{code} {}", rest.trim_matches(['\r', '\n'])), false),
        None => reply::push_error(lua, &format!("ERR {text}"), false),
    }
    Ok(1)
}

fn status_reply(lua: Lua) -> Result<c_int, Raise> {
    if lua.top() != 1 || lua.kind(1) != LUA_TSTRING {
        reply::push_error(lua, "ERR wrong number or type of arguments", false);
        return Ok(1);
    }
    lua.push_table(0, 1);
    lua.copy(1);
    lua.set_field(-2, "ok");
    Ok(1)
}

fn set_repl(lua: Lua) -> Result<c_int, Raise> {
    if lua.top() != 1 {
        return raise(lua, "ERR redis.set_repl() requires one argument.");
    }
    let flags = lua.number(1) as i64;
    if flags & !3 != 0 {
        return raise(lua, "ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.");
    }
    if let Some(run) = running(lua) {
        run.repeated = flags as u8;
    }
    Ok(0)
}

fn acl_check_cmd(lua: Lua) -> Result<c_int, Raise> {
    if let Err(text) = collect_args(lua) {
        return raise(lua, text);
    }
    let allowed = running(lua).and_then(|run| {
        let args = host(lua).args.args();
        let id = run.core.table.resolve(args);
        let user = run.core.users.get(run.client.user);
        let allowed = || user.is_some_and(|user| crate::acl::check(user, id, args).is_ok());
        (id != crate::commands::UNKNOWN).then(allowed)
    });
    let Some(allowed) = allowed else {
        return raise(lua, "ERR Invalid command passed to redis.acl_check_cmd()");
    };
    lua.push_bool(allowed);
    Ok(1)
}

fn log(lua: Lua) -> Result<c_int, Raise> {
    if lua.top() < 2 {
        return raise(lua, "ERR redis.log() requires two arguments or more.");
    }
    if !lua.is_number(1) {
        return raise(lua, "ERR First argument must be a number (log level).");
    }
    let level = match lua.number(1) as i64 {
        0 => LogLevel::Debug,
        1 => LogLevel::Verbose,
        2 => LogLevel::Notice,
        3 => LogLevel::Warning,
        _ => return raise(lua, "ERR Invalid log level."),
    };
    let mut text = Vec::new();
    for at in 2..=lua.top() {
        if let Some(part) = lua.bytes(at) {
            if at > 2 {
                text.push(b' ');
            }
            text.extend_from_slice(part);
        }
    }
    if let Some(run) = running(lua) {
        let text = String::from_utf8_lossy(&text).into_owned();
        run.core.for_driver.push(crate::shard::Effect::Log(level, text));
    }
    Ok(0)
}

fn breakpoint(lua: Lua) -> Result<c_int, Raise> {
    lua.push_bool(debugger::stop_soon(lua));
    Ok(1)
}

fn debug(lua: Lua) -> Result<c_int, Raise> {
    debugger::say_debug(lua);
    Ok(0)
}

fn replicate_commands(lua: Lua) -> Result<c_int, Raise> {
    lua.push_bool(true);
    Ok(1)
}

/// `os.clock`: seconds; from what moment does not matter.
fn clock(lua: Lua) -> Result<c_int, Raise> {
    let host = host(lua);
    lua.push_number((host.ticks)() as f64 / host.ticks_per_us / 1e6);
    Ok(1)
}

/// `math.random` over the generator of `lrand48`, as Redis has it, so that a seed gives the same numbers everywhere.
fn random(lua: Lua) -> Result<c_int, Raise> {
    let host = host(lua);
    host.random = host.random.wrapping_mul(0x5_deec_e66d).wrapping_add(0xb) & 0xffff_ffff_ffff;
    let unit = ((host.random >> 17) % 0x7fff_ffff) as f64 / f64::from(0x7fff_ffff);
    match lua.top() {
        0 => lua.push_number(unit),
        1 => {
            let upper = lua.arg_integer(1)? as i32;
            if upper < 1 {
                return Err(Raise::Arg(1, "interval is empty".into()));
            }
            lua.push_number((unit * f64::from(upper)).floor() + 1.0);
        }
        2 => {
            let (lower, upper) = (lua.arg_integer(1)? as i32, lua.arg_integer(2)? as i32);
            if lower > upper {
                return Err(Raise::Arg(2, "interval is empty".into()));
            }
            let width = upper.wrapping_sub(lower).wrapping_add(1);
            lua.push_number((unit * f64::from(width)).floor() + f64::from(lower));
        }
        _ => return Err(Raise::Text("wrong number of arguments".into())),
    }
    Ok(1)
}

fn random_seed(lua: Lua) -> Result<c_int, Raise> {
    let seed = lua.arg_integer(1)? as i32 as u32;
    host(lua).random = (u64::from(seed) << 16) | 0x330e;
    Ok(0)
}

fn register_function(lua: Lua) -> Result<c_int, Raise> {
    if host(lua).load.is_none() {
        return raise(lua, "ERR redis.register_function can only be called on FUNCTION LOAD command");
    }
    let registered = match lua.top() {
        1 => named(lua),
        2 => positional(lua),
        _ => Err("wrong number of arguments to redis.register_function"),
    };
    let registered = match registered {
        Ok(registered) => registered,
        Err(text) => return raise(lua, &format!("ERR {text}")),
    };
    let text = match super::store::is_name(&registered.name) {
        false => {
            "ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one \
                  character long"
        }
        true => {
            let functions = &mut host(lua).load.as_mut().expect("just seen").functions;
            match functions.iter().any(|other| other.name == registered.name) {
                true => "ERR Function already exists in the library",
                false => {
                    functions.push(registered);
                    return Ok(0);
                }
            }
        }
    };
    lua.release(registered.kept);
    raise(lua, text)
}

fn positional(lua: Lua) -> Result<Registered, &'static str> {
    let name = lua.bytes(1).ok_or("first argument to redis.register_function must be a string")?.to_vec();
    if lua.kind(2) != LUA_TFUNCTION {
        return Err("second argument to redis.register_function must be a function");
    }
    Ok(Registered { name, description: None, flags: Flags::default(), kept: lua.keep() })
}

fn named(lua: Lua) -> Result<Registered, &'static str> {
    if !lua.is_table(1) {
        return Err("calling redis.register_function with a single argument is only applicable to Lua table \
                    (representing named arguments).");
    }
    let (mut name, mut description, mut callback, mut flags) = (None, None, false, Flags::default());
    // The callback's place on the stack.
    lua.push_nil();
    lua.push_nil();
    while lua.next(1) {
        if !matches!(lua.kind(-2), LUA_TSTRING) {
            return Err("named argument key given to redis.register_function is not a string");
        }
        let key = lua.bytes(-2).unwrap_or_default().to_ascii_lowercase();
        match &key[..] {
            b"function_name" => {
                let given = lua.bytes(-1);
                let given = given.ok_or("function_name argument given to redis.register_function must be a string")?;
                name = Some(given.to_vec());
            }
            b"description" => {
                let given = lua.bytes(-1);
                let given = given.ok_or("description argument given to redis.register_function must be a string")?;
                description = Some(given.to_vec());
            }
            b"callback" => {
                if lua.kind(-1) != LUA_TFUNCTION {
                    return Err("callback argument given to redis.register_function must be a function");
                }
                lua.copy(-1);
                lua.replace(2);
                callback = true;
            }
            b"flags" => {
                if !lua.is_table(-1) {
                    return Err("flags argument to redis.register_function must be a table representing function \
                                flags");
                }
                flags = read_flags(lua).ok_or("unknown flag given")?;
            }
            _ => return Err("unknown argument given to redis.register_function"),
        }
        lua.pop(1);
    }
    let name = name.ok_or("redis.register_function must get a function name argument")?;
    if !callback {
        return Err("redis.register_function must get a callback argument");
    }
    lua.set_top(2);
    Ok(Registered { name, description, flags, kept: lua.keep() })
}

/// The flags in the list on top.
fn read_flags(lua: Lua) -> Option<Flags> {
    let mut flags = Flags::default();
    for at in 1.. {
        lua.raw_get_at(-1, at);
        if lua.kind(-1) == LUA_TNIL {
            lua.pop(1);
            break;
        }
        let flag = lua.bytes(-1).and_then(|name| Flags::named(&name.to_ascii_lowercase()));
        lua.pop(1);
        flags = flags.with(flag?);
    }
    Some(flags)
}
