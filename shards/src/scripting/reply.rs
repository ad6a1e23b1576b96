//! Values on their way between the protocol and Lua, as Redis's documentation lays them out.

use std::ffi::c_int;

use super::lua::*;
use crate::number::parse_f64;
use crate::resp::Reply;

/// How deep tables may lie in each other in a reply; a table that contains itself ends there.
const MAX_DEPTH: usize = 2000;

/// Pushes the reply at the start of `bytes`, which a command wrote, as a Lua value; returns what follows it.
pub(super) fn push(lua: Lua, bytes: &[u8]) -> &[u8] {
    lua.room(6);
    let end = memchr::memchr(b'\r', bytes).expect("a reply's line ends");
    let (line, rest) = (&bytes[1..end], &bytes[end + 2..]);
    let length = || crate::number::parse_i64(line).unwrap_or(0);
    match bytes[0] {
        b':' => lua.push_number(length() as f64),
        b'$' if line == b"-1" => lua.push_bool(false),
        b'$' => {
            let len = length() as usize;
            lua.push_bytes(&rest[..len]);
            return &rest[len + 2..];
        }
        b'+' => {
            lua.push_table(0, 1);
            lua.push_bytes(line);
            lua.set_field(-2, "ok");
        }
        b'-' => push_error(lua, &String::from_utf8_lossy(line), true),
        b'*' if line == b"-1" => lua.push_bool(false),
        b'*' | b'>' => {
            let len = length() as usize;
            lua.push_table(len, 0);
            let mut rest = rest;
            for at in 1..=len {
                rest = push(lua, rest);
                lua.raw_set_at(-2, at);
            }
            return rest;
        }
        b'%' => {
            lua.push_table(0, 1);
            lua.push_table(0, length() as usize);
            let mut rest = rest;
            for _ in 0..length() {
                rest = push(lua, rest);
                rest = push(lua, rest);
                set_unless_nil(lua);
            }
            lua.set_field(-2, "map");
            return rest;
        }
        b'~' => {
            lua.push_table(0, 1);
            lua.push_table(0, length() as usize);
            let mut rest = rest;
            for _ in 0..length() {
                rest = push(lua, rest);
                lua.push_bool(true);
                set_unless_nil(lua);
            }
            lua.set_field(-2, "set");
            return rest;
        }
        b'_' => lua.push_nil(),
        b'#' => lua.push_bool(line == b"t"),
        b',' => {
            lua.push_table(0, 1);
            lua.push_number(parse_f64(line).unwrap_or(f64::NAN));
            lua.set_field(-2, "double");
        }
        b'(' => {
            lua.push_table(0, 1);
            lua.push_bytes(line);
            lua.set_field(-2, "big_number");
        }
        b'=' => {
            let len = length() as usize;
            lua.push_table(0, 1);
            lua.push_table(0, 2);
            lua.push_bytes(&rest[4..len]);
            lua.set_field(-2, "string");
            lua.push_bytes(&rest[..3]);
            lua.set_field(-2, "format");
            lua.set_field(-2, "verbatim_string");
            return &rest[len + 2..];
        }
        b'|' => {
            // Attributes are not shown to scripts.
            let mut rest = rest;
            for _ in 0..2 * length() {
                rest = push(lua, rest);
                lua.pop(1);
            }
            return push(lua, rest);
        }
        other => unreachable!("no command replies with {other}"),
    }
    rest
}

/// Sets a pair in the table below it; no reply has such a key, but Lua would not survive it.
fn set_unless_nil(lua: Lua) {
    match lua.kind(-2) {
        LUA_TNIL => lua.pop(2),
        _ => lua.raw_set(-3),
    }
}

/// Pushes an error as scripts see it: a table with the text, its code included, in `err`. `counted` when statistics
/// have it already.
pub(super) fn push_error(lua: Lua, text: &str, counted: bool) {
    lua.room(4);
    lua.push_table(0, 2);
    lua.push_bytes(text.as_bytes());
    lua.set_field(-2, "err");
    if counted {
        lua.push_bool(true);
        lua.set_field(-2, "ignore_error_stats_update");
    }
}

/// The text of an error table at `index`, and whether it was counted.
pub(super) fn error_of(lua: Lua, index: c_int) -> Option<(Vec<u8>, bool)> {
    if !lua.is_table(index) {
        return None;
    }
    let index = lua.absolute(index);
    lua.field(index, "err");
    let text = lua.bytes(-1).filter(|_| lua.kind(-1) == LUA_TSTRING).map(<[u8]>::to_vec);
    lua.field(index, "ignore_error_stats_update");
    let counted = lua.bool(-1);
    lua.pop(2);
    text.map(|text| (text, counted))
}

/// Writes the value on top, and takes it. `script_resp` is the protocol that the script has chosen.
pub(super) fn write(lua: Lua, reply: &mut Reply<'_>, script_resp: u8) {
    write_deep(lua, reply, script_resp, 0);
}

fn write_deep(lua: Lua, reply: &mut Reply<'_>, script_resp: u8, depth: usize) {
    if depth > MAX_DEPTH || !lua.room(6) {
        reply.error("ERR reached lua stack limit");
        lua.pop(1);
        return;
    }
    match lua.kind(-1) {
        LUA_TSTRING => reply.bulk(lua.bytes(-1).unwrap_or_default()),
        LUA_TNUMBER => reply.integer(lua.number(-1) as i64),
        LUA_TBOOLEAN if script_resp == 3 => reply.boolean(lua.bool(-1)),
        LUA_TBOOLEAN if lua.bool(-1) => reply.integer(1),
        LUA_TTABLE => write_table(lua, reply, script_resp, depth),
        _ => reply.null(),
    }
    lua.pop(1);
}

/// Writes the table on top, which may stand for one of the protocol's other types.
fn write_table(lua: Lua, reply: &mut Reply<'_>, script_resp: u8, depth: usize) {
    if let Some((text, _)) = error_of(lua, -1) {
        return reply.error(&String::from_utf8_lossy(&text));
    }
    let top = lua.top();
    lua.field(top, "ok");
    if lua.kind(-1) == LUA_TSTRING {
        reply.simple(&one_line(lua.bytes(-1).unwrap_or_default()));
        return lua.set_top(top);
    }
    lua.field(top, "double");
    if lua.kind(-1) == LUA_TNUMBER {
        reply.double(lua.number(-1));
        return lua.set_top(top);
    }
    lua.field(top, "big_number");
    if lua.kind(-1) == LUA_TSTRING {
        let text = one_line(lua.bytes(-1).unwrap_or_default());
        match reply.resp {
            3 => {
                reply.out.push(b'(');
                reply.out.extend_from_slice(text.as_bytes());
                reply.out.extend_from_slice(b"\r\n");
            }
            _ => reply.bulk(text.as_bytes()),
        }
        return lua.set_top(top);
    }
    lua.set_top(top);
    lua.field(top, "verbatim_string");
    if lua.is_table(-1) {
        lua.field(-1, "format");
        lua.field(-2, "string");
        if lua.kind(-2) == LUA_TSTRING && lua.kind(-1) == LUA_TSTRING {
            let mut format = [b' '; 3];
            format.iter_mut().zip(lua.bytes(-2).unwrap_or_default()).for_each(|(to, from)| *to = *from);
            let format = one_line(&format);
            match format.len() {
                3 => reply.verbatim(&format, lua.bytes(-1).unwrap_or_default()),
                _ => reply.verbatim("txt", lua.bytes(-1).unwrap_or_default()),
            }
            return lua.set_top(top);
        }
    }
    lua.set_top(top);
    for (name, is_map) in [("map", true), ("set", false)] {
        lua.field(top, name);
        if !lua.is_table(-1) {
            lua.pop(1);
            continue;
        }
        let list = reply.open_list();
        let mut count = 0;
        lua.push_nil();
        while lua.next(top + 1) {
            match is_map {
                true => {
                    lua.copy(-2);
                    write_deep(lua, reply, script_resp, depth + 1);
                    write_deep(lua, reply, script_resp, depth + 1);
                }
                false => {
                    lua.pop(1);
                    lua.copy(-1);
                    write_deep(lua, reply, script_resp, depth + 1);
                }
            }
            count += 1;
        }
        match is_map {
            true => reply.close_map(list, count),
            false => reply.close_set(list, count),
        }
        return lua.set_top(top);
    }
    let len = (1..)
        .find(|at| {
            lua.raw_get_at(top, *at);
            let end = lua.kind(-1) == LUA_TNIL;
            lua.pop(1);
            end
        })
        .unwrap_or(1)
        - 1;
    reply.array(len);
    for at in 1..=len {
        lua.raw_get_at(top, at);
        write_deep(lua, reply, script_resp, depth + 1);
    }
}

/// A text for a place where a line ends.
fn one_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace(['\r', '\n'], " ")
}
