//! `cmsgpack`: MessagePack as the library of that name (lua-cmsgpack 0.4) writes and reads it, byte for byte.

use std::ffi::c_int;

use super::lua::*;

/// Tables nested deeper are written as nil, also when one lies in itself.
const MAX_NESTING: usize = 16;

/// How deep what is read may nest: each level takes room on this thread's stack.
const MAX_DEPTH: usize = 2000;

/// Pushes the library.
pub(super) fn open(lua: Lua) {
    lua.push_table(0, 8);
    let functions: [(&str, Function); 4] =
        [("pack", pack), ("unpack", unpack), ("unpack_one", unpack_one), ("unpack_limit", unpack_limit)];
    for (name, function) in functions {
        lua.push_function(function);
        lua.set_field(-2, name);
    }
    for (name, text) in [
        ("_NAME", "cmsgpack"),
        ("_VERSION", "lua-cmsgpack 0.4.0"),
        ("_COPYRIGHT", "Copyright (C) 2012, Redis Ltd."),
        ("_DESCRIPTION", "MessagePack C implementation for Lua"),
    ] {
        lua.push_bytes(text.as_bytes());
        lua.set_field(-2, name);
    }
}

fn pack(lua: Lua) -> Result<c_int, Raise> {
    let args = lua.top();
    if args == 0 {
        return Err(Raise::Arg(0, "MessagePack pack needs input.".into()));
    }
    if !lua.room(MAX_NESTING as c_int * 4) {
        return Err(Raise::Arg(0, "Too many arguments for MessagePack pack.".into()));
    }
    let mut out = Vec::new();
    for at in 1..=args {
        lua.copy(at);
        write(lua, &mut out, 0);
    }
    lua.push_bytes(&out);
    Ok(1)
}

/// Writes the value on top, and takes it.
fn write(lua: Lua, out: &mut Vec<u8>, level: usize) {
    match lua.kind(-1) {
        LUA_TSTRING => {
            let bytes = lua.bytes(-1).unwrap_or_default();
            match bytes.len() {
                len @ ..32 => out.push(0xa0 | len as u8),
                len @ ..=0xff => out.extend_from_slice(&[0xd9, len as u8]),
                len => head(out, 0xda, len),
            }
            out.extend_from_slice(bytes);
        }
        LUA_TBOOLEAN => out.push(if lua.bool(-1) { 0xc3 } else { 0xc2 }),
        LUA_TNUMBER => write_number(out, lua.number(-1)),
        LUA_TTABLE if level < MAX_NESTING => write_table(lua, out, level),
        _ => out.push(0xc0),
    }
    lua.pop(1);
}

/// A length in 16 bits behind `code`, or in 32 behind the next.
fn head(out: &mut Vec<u8>, code: u8, len: usize) {
    match u16::try_from(len) {
        Ok(len) => {
            out.push(code);
            out.extend_from_slice(&len.to_be_bytes());
        }
        Err(_) => {
            out.push(code + 1);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
}

fn write_number(out: &mut Vec<u8>, number: f64) {
    let whole = number as i64;
    if number.is_infinite() || whole as f64 != number {
        let single = number as f32;
        match f64::from(single) == number {
            true => {
                out.push(0xca);
                out.extend_from_slice(&single.to_be_bytes());
            }
            false => {
                out.push(0xcb);
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
        return;
    }
    if (-32..=127).contains(&whole) {
        return out.push(whole as u8);
    }
    let (code, bytes) = match whole {
        128..=0xff => (0xcc, 1),
        0x100..=0xffff => (0xcd, 2),
        0x1_0000..=0xffff_ffff => (0xce, 4),
        0.. => (0xcf, 8),
        -0x80..0 => (0xd0, 1),
        -0x8000..0 => (0xd1, 2),
        -0x8000_0000..0 => (0xd2, 4),
        _ => (0xd3, 8),
    };
    out.push(code);
    out.extend_from_slice(&whole.to_be_bytes()[8 - bytes..]);
}

fn write_table(lua: Lua, out: &mut Vec<u8>, level: usize) {
    lua.room(6);
    // An array has all keys from 1 to their number, and no other.
    let (mut count, mut max, mut is_array) = (0usize, 0.0, true);
    lua.push_nil();
    while lua.next(-2) {
        lua.pop(1);
        let key = lua.number(-1);
        is_array &= lua.kind(-1) == LUA_TNUMBER && key > 0.0 && key.fract() == 0.0 && key <= f64::from(i32::MAX);
        max = f64::max(max, key);
        count += 1;
    }
    if is_array && max == count as f64 {
        match count {
            ..16 => out.push(0x90 | count as u8),
            _ => head(out, 0xdc, count),
        }
        for at in 1..=count {
            lua.raw_get_at(-1, at);
            write(lua, out, level + 1);
        }
        return;
    }
    match count {
        ..16 => out.push(0x80 | count as u8),
        _ => head(out, 0xde, count),
    }
    lua.push_nil();
    while lua.next(-2) {
        lua.copy(-2);
        write(lua, out, level + 1);
        write(lua, out, level + 1);
    }
}

struct Cursor<'a> {
    lua: Lua,
    left: &'a [u8],
    depth: usize,
}

const MISSING: &str = "Missing bytes in input.";
const BAD: &str = "Bad data format in input.";

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], &'static str> {
        let (taken, left) = self.left.split_at_checked(n).ok_or(MISSING)?;
        self.left = left;
        Ok(taken)
    }

    fn unsigned(&mut self, bytes: usize) -> Result<u64, &'static str> {
        Ok(self.take(bytes)?.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
    }

    fn signed(&mut self, bytes: usize) -> Result<i64, &'static str> {
        let shift = 64 - 8 * bytes as u32;
        Ok((self.unsigned(bytes)? << shift) as i64 >> shift)
    }

    /// Reads one value and pushes it.
    fn value(&mut self) -> Result<(), &'static str> {
        let lua = self.lua;
        let code = self.take(1)?[0];
        if !lua.room(6) {
            return Err("too many return values at once; use unpack_one or unpack_limit instead.");
        }
        let string = |cursor: &mut Self, len: u64| cursor.take(len as usize).map(|bytes| lua.push_bytes(bytes));
        match code {
            0xcc => lua.push_number(self.unsigned(1)? as f64),
            0xcd => lua.push_number(self.unsigned(2)? as f64),
            0xce => lua.push_number(self.unsigned(4)? as f64),
            // The library lets the highest bit be a sign.
            0xcf => lua.push_number(self.unsigned(8)? as i64 as f64),
            0xd0 => lua.push_number(self.signed(1)? as f64),
            0xd1 => lua.push_number(self.signed(2)? as f64),
            0xd2 => lua.push_number(self.signed(4)? as f64),
            0xd3 => lua.push_number(self.signed(8)? as f64),
            0xc0 => lua.push_nil(),
            0xc2 | 0xc3 => lua.push_bool(code == 0xc3),
            0xca => lua.push_number(f64::from(f32::from_bits(self.unsigned(4)? as u32))),
            0xcb => lua.push_number(f64::from_bits(self.unsigned(8)?)),
            0xd9 => {
                let len = self.unsigned(1)?;
                string(self, len)?;
            }
            0xda => {
                let len = self.unsigned(2)?;
                string(self, len)?;
            }
            0xdb => {
                let len = self.unsigned(4)?;
                string(self, len)?;
            }
            0xdc => {
                let len = self.unsigned(2)?;
                self.array(len)?;
            }
            0xdd => {
                let len = self.unsigned(4)?;
                self.array(len)?;
            }
            0xde => {
                let len = self.unsigned(2)?;
                self.map(len)?;
            }
            0xdf => {
                let len = self.unsigned(4)?;
                self.map(len)?;
            }
            0..=0x7f | 0xe0.. => lua.push_number(f64::from(code as i8)),
            0xa0..=0xbf => string(self, u64::from(code & 0x1f))?,
            0x90..=0x9f => self.array(u64::from(code & 0xf))?,
            0x80..=0x8f => self.map(u64::from(code & 0xf))?,
            _ => return Err(BAD),
        }
        Ok(())
    }

    fn descend(&mut self) -> Result<(), &'static str> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(BAD) } else { Ok(()) }
    }

    fn array(&mut self, len: u64) -> Result<(), &'static str> {
        self.descend()?;
        self.lua.push_table(0, 0);
        for at in 1..=len {
            self.value()?;
            self.lua.raw_set_at(-2, at as usize);
        }
        self.depth -= 1;
        Ok(())
    }

    fn map(&mut self, len: u64) -> Result<(), &'static str> {
        self.descend()?;
        let lua = self.lua;
        lua.push_table(0, 0);
        for _ in 0..len {
            self.value()?;
            self.value()?;
            match lua.kind(-2) {
                LUA_TNIL => return Err("table index is nil"),
                LUA_TNUMBER if lua.number(-2).is_nan() => return Err("table index is NaN"),
                _ => lua.raw_set(-3),
            }
        }
        self.depth -= 1;
        Ok(())
    }
}

fn unpack(lua: Lua) -> Result<c_int, Raise> {
    read(lua, 0, 0)
}

fn unpack_one(lua: Lua) -> Result<c_int, Raise> {
    let offset = lua.arg_integer_or(2, 0)?;
    lua.set_top(1);
    read(lua, 1, offset)
}

fn unpack_limit(lua: Lua) -> Result<c_int, Raise> {
    let limit = lua.arg_integer(2)?;
    let offset = lua.arg_integer_or(3, 0)?;
    lua.set_top(1);
    read(lua, limit, offset)
}

/// Pushes up to `limit` values that begin at `offset`, behind the offset of the next, or -1 at the end. Without either
/// it pushes all values and no offset.
fn read(lua: Lua, limit: i64, offset: i64) -> Result<c_int, Raise> {
    let bytes = lua.arg_bytes(1)?;
    if offset < 0 || limit < 0 {
        return Err(Raise::Text(format!(
            "Invalid request to unpack with offset of {} and limit of {}.",
            offset as i32,
            bytes.len() as i32
        )));
    }
    if offset as usize > bytes.len() {
        return Err(Raise::Text(format!("Start offset {offset} greater than input length {}.", bytes.len())));
    }
    let all = limit == 0 && offset == 0;
    lua.set_top(1);
    let mut cursor = Cursor { lua, left: &bytes[offset as usize..], depth: 0 };
    let mut count = 0;
    while !cursor.left.is_empty() && (all || count < limit) {
        cursor.value().map_err(|text| Raise::Text(text.into()))?;
        count += 1;
    }
    if !all {
        lua.room(1);
        lua.push_number(match cursor.left.len() {
            0 => -1.0,
            left => (bytes.len() - left) as f64,
        });
        lua.insert(2);
        count += 1;
    }
    Ok(count as c_int)
}
