//! `bit`: operations on 32-bit words, after the library of that name (LuaBitOp).

use std::ffi::c_int;

use super::lua::*;

/// Pushes the library.
pub(super) fn open(lua: Lua) {
    lua.push_table(0, 12);
    let functions: [(&str, Function); 12] = [
        ("tobit", |lua| unary(lua, |a| a)),
        ("bnot", |lua| unary(lua, |a| !a)),
        ("bswap", |lua| unary(lua, u32::swap_bytes)),
        ("band", |lua| fold(lua, |a, b| a & b)),
        ("bor", |lua| fold(lua, |a, b| a | b)),
        ("bxor", |lua| fold(lua, |a, b| a ^ b)),
        ("lshift", |lua| shift(lua, |a, n| a << n)),
        ("rshift", |lua| shift(lua, |a, n| a >> n)),
        ("arshift", |lua| shift(lua, |a, n| (a as i32 >> n) as u32)),
        ("rol", |lua| shift(lua, u32::rotate_left)),
        ("ror", |lua| shift(lua, u32::rotate_right)),
        ("tohex", tohex),
    ];
    for (name, function) in functions {
        lua.push_function(function);
        lua.set_field(-2, name);
    }
}

/// A number's low 32 bits, as the library finds them: by adding 2^52 + 2^51.
fn word(lua: Lua, at: c_int) -> Result<u32, Raise> {
    let number = lua.arg_number(at)? + 6_755_399_441_055_744.0;
    Ok(number.to_bits() as u32)
}

fn give(lua: Lua, word: u32) -> Result<c_int, Raise> {
    lua.push_number(f64::from(word as i32));
    Ok(1)
}

fn unary(lua: Lua, op: fn(u32) -> u32) -> Result<c_int, Raise> {
    give(lua, op(word(lua, 1)?))
}

fn fold(lua: Lua, op: fn(u32, u32) -> u32) -> Result<c_int, Raise> {
    let mut all = word(lua, 1)?;
    for at in 2..=lua.top() {
        all = op(all, word(lua, at)?);
    }
    give(lua, all)
}

fn shift(lua: Lua, op: fn(u32, u32) -> u32) -> Result<c_int, Raise> {
    let by = word(lua, 2)? & 31;
    give(lua, op(word(lua, 1)?, by))
}

fn tohex(lua: Lua) -> Result<c_int, Raise> {
    let number = word(lua, 1)?;
    let digits = if lua.kind(2) < LUA_TNIL { 8 } else { word(lua, 2)? as i32 };
    let text = match digits < 0 {
        true => format!("{number:08X}"),
        false => format!("{number:08x}"),
    };
    let count = digits.unsigned_abs().min(8) as usize;
    lua.push_bytes(&text.as_bytes()[8 - count..]);
    Ok(1)
}
