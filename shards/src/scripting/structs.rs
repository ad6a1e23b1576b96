//! `struct`: packs and unpacks binary values by a format, after the library of that name (0.2).

use std::ffi::c_int;

use super::lua::*;

/// The widest integer.
const MAX_INTEGER: usize = 32;
/// The alignment of `!` without a number.
const MAX_ALIGN: usize = 8;

/// Pushes the library.
pub(super) fn open(lua: Lua) {
    lua.push_table(0, 3);
    for (name, function) in [("pack", pack as Function), ("unpack", unpack), ("size", size)] {
        lua.push_function(function);
        lua.set_field(-2, name);
    }
}

struct Format<'a> {
    text: &'a [u8],
    big_endian: bool,
    align: usize,
}

impl<'a> Format<'a> {
    fn new(text: &'a [u8]) -> Self {
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        Format { text: &text[..end], big_endian: false, align: 1 }
    }

    fn number(&mut self, default: usize) -> Result<usize, Raise> {
        let digits = self.text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return Ok(default);
        }
        let value = self.text[..digits]
            .iter()
            .try_fold(0i32, |value, digit| value.checked_mul(10)?.checked_add(i32::from(digit - b'0')));
        self.text = &self.text[digits..];
        value.map(|value| value as usize).ok_or_else(|| Raise::Text("integral size overflow".into()))
    }

    /// The next option, its size, and how many bytes to skip before it at position `at`.
    fn next(&mut self, at: usize) -> Result<Option<(u8, usize, usize)>, Raise> {
        let Some((option, rest)) = self.text.split_first() else { return Ok(None) };
        self.text = rest;
        let size = match option {
            b'B' | b'b' | b'x' => 1,
            b'H' | b'h' => 2,
            b'L' | b'l' | b'T' | b'd' => 8,
            b'f' => 4,
            b'c' => self.number(1)?,
            b'i' | b'I' => {
                let size = self.number(4)?;
                if size > MAX_INTEGER {
                    return Err(Raise::Text(format!("integral size {size} is larger than limit of {MAX_INTEGER}")));
                }
                size
            }
            _ => 0,
        };
        let skip = match size == 0 || *option == b'c' {
            true => 0,
            false => {
                let align = size.min(self.align);
                align.wrapping_sub(at & align.wrapping_sub(1)) & align.wrapping_sub(1)
            }
        };
        Ok(Some((*option, size, skip)))
    }

    fn control(&mut self, option: u8) -> Result<(), Raise> {
        match option {
            b' ' => {}
            b'>' => self.big_endian = true,
            b'<' => self.big_endian = false,
            b'!' => {
                let align = self.number(MAX_ALIGN)?;
                if !align.is_power_of_two() {
                    return Err(Raise::Text(format!("alignment {align} is not a power of 2")));
                }
                self.align = align;
            }
            other => return Err(Raise::Arg(1, format!("invalid format option '{}'", char::from(other)))),
        }
        Ok(())
    }

    fn put(&self, out: &mut Vec<u8>, mut little: Vec<u8>) {
        if self.big_endian {
            little.reverse();
        }
        out.extend_from_slice(&little);
    }

    fn get(&self, bytes: &[u8]) -> Vec<u8> {
        let mut little = bytes.to_vec();
        if self.big_endian {
            little.reverse();
        }
        little
    }
}

fn pack(lua: Lua) -> Result<c_int, Raise> {
    let mut format = Format::new(lua.arg_bytes(1)?);
    let mut out = Vec::new();
    let mut arg = 2;
    while let Some((option, size, skip)) = format.next(out.len())? {
        out.resize(out.len() + skip, 0);
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let number = lua.arg_number(arg)?;
                arg += 1;
                let value = if number < 0.0 { number as i64 as u64 } else { number as u64 };
                let mut little = value.to_le_bytes().to_vec();
                little.resize(size, 0);
                format.put(&mut out, little);
            }
            b'x' => out.push(0),
            b'f' => {
                format.put(&mut out, (lua.arg_number(arg)? as f32).to_le_bytes().to_vec());
                arg += 1;
            }
            b'd' => {
                format.put(&mut out, lua.arg_number(arg)?.to_le_bytes().to_vec());
                arg += 1;
            }
            b'c' | b's' => {
                let bytes = lua.arg_bytes(arg)?;
                arg += 1;
                let size = if size == 0 { bytes.len() } else { size };
                if bytes.len() < size {
                    return Err(Raise::Arg(arg, "string too short".into()));
                }
                out.extend_from_slice(&bytes[..size]);
                if option == b's' {
                    out.push(0);
                }
            }
            other => format.control(other)?,
        }
    }
    lua.push_bytes(&out);
    Ok(1)
}

fn unpack(lua: Lua) -> Result<c_int, Raise> {
    let mut format = Format::new(lua.arg_bytes(1)?);
    let data = lua.arg_bytes(2)?;
    let at = lua.arg_integer_or(3, 1)?;
    if at <= 0 {
        return Err(Raise::Arg(3, "offset must be 1 or greater".into()));
    }
    let mut at = at as usize - 1;
    let base = lua.top();
    let short = || Raise::Arg(2, "data string too short".into());
    while let Some((option, mut size, skip)) = format.next(at)? {
        at += skip;
        if size > data.len() || at > data.len() - size {
            return Err(short());
        }
        if !lua.room(4) {
            return Err(Raise::Text("stack overflow (too many results)".into()));
        }
        let field = &data[at..at + size];
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let little = format.get(field);
                let word = little.iter().take(8).rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
                lua.push_number(match option.is_ascii_lowercase() && size > 0 {
                    true => {
                        let shift = 64 - 8 * size.min(8) as u32;
                        ((word << shift) as i64 >> shift) as f64
                    }
                    false => word as f64,
                });
            }
            b'x' => {}
            b'f' => {
                let little = format.get(field);
                lua.push_number(f64::from(f32::from_le_bytes(little.try_into().expect("four bytes"))));
            }
            b'd' => {
                let little = format.get(field);
                lua.push_number(f64::from_le_bytes(little.try_into().expect("eight bytes")));
            }
            b'c' => {
                if size == 0 {
                    if lua.top() == base || !lua.is_number(-1) {
                        return Err(Raise::Text("format 'c0' needs a previous size".into()));
                    }
                    size = lua.number(-1) as usize;
                    lua.pop(1);
                    if size > data.len() || at > data.len() - size {
                        return Err(short());
                    }
                }
                lua.push_bytes(&data[at..at + size]);
            }
            b's' => {
                let len = memchr::memchr(0, &data[at..]);
                let len = len.ok_or_else(|| Raise::Text("unfinished string in data".into()))?;
                lua.push_bytes(&data[at..at + len]);
                size = len + 1;
            }
            other => format.control(other)?,
        }
        at += size;
    }
    lua.push_number((at + 1) as f64);
    Ok(lua.top() - base)
}

fn size(lua: Lua) -> Result<c_int, Raise> {
    let mut format = Format::new(lua.arg_bytes(1)?);
    let mut at = 0usize;
    while let Some((option, size, skip)) = format.next(at)? {
        at += skip;
        match option {
            b's' => return Err(Raise::Arg(1, "option 's' has no fixed size".into())),
            b'c' if size == 0 => return Err(Raise::Arg(1, "option 'c0' has no fixed size".into())),
            option if option.is_ascii_alphanumeric() => {}
            option => format.control(option)?,
        }
        at += size;
    }
    lua.push_number(at as f64);
    Ok(1)
}
