//! What `DUMP` gives and `RESTORE` takes: a type, a value, the version in two bytes, and a checksum over all of it.

use super::file::opcode;
use super::read::{Cursor, Limits, Value, value};
use super::write::{Style, Writer, kind_of};
use super::{Error, VERSION_MAX, crc64};
use crate::entry::EntryPtr;

/// Version and checksum.
const FOOT: usize = 10;

/// The payload of an entry's value.
pub fn dump(entry: EntryPtr, style: Style) -> Vec<u8> {
    let mut out = vec![kind_of(entry, style)];
    Writer { out: &mut out, style }.value(entry);
    out.extend_from_slice(&style.version.to_le_bytes());
    let sum = crc64::update(0, &out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

/// The payload of libraries of functions, by their texts.
pub fn dump_functions<'a>(codes: impl Iterator<Item = &'a [u8]>, style: Style) -> Vec<u8> {
    let mut out = Vec::new();
    for code in codes {
        out.push(opcode::FUNCTION);
        Writer { out: &mut out, style }.string(code);
    }
    out.extend_from_slice(&style.version.to_le_bytes());
    let sum = crc64::update(0, &out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

/// The texts in a payload of [`dump_functions`]; without `check`, the checksum may be anything.
///
/// # Errors
/// Redis's texts.
pub fn restore_functions(payload: &[u8], check: bool) -> Result<Vec<Vec<u8>>, String> {
    let body = verified(payload, check).ok_or("ERR DUMP payload version or checksum are wrong")?;
    let mut from = Cursor { rest: body };
    let mut codes = Vec::new();
    while let Ok(kind) = from.byte() {
        match kind {
            opcode::FUNCTION => {}
            opcode::FUNCTION_PRE_GA => return Err("ERR Pre-GA function format not supported".into()),
            _ => return Err("ERR given type is not a function".into()),
        }
        codes.push(from.string().map_err(|_| "ERR Failed loading library payload")?.into_owned());
    }
    Ok(codes)
}

/// The value's part of a payload whose version and checksum are right; without `check`, the checksum may be anything.
pub fn verified(payload: &[u8], check: bool) -> Option<&[u8]> {
    let at = payload.len().checked_sub(FOOT)?;
    let (body, foot) = payload.split_at(at);
    let version = u16::from_le_bytes([foot[0], foot[1]]);
    let sum = u64::from_le_bytes(foot[2..].try_into().expect("eight bytes"));
    let known = version <= VERSION_MAX;
    (known && (!check || sum == crc64::update(0, &payload[..at + 2]))).then_some(body)
}

/// Reads the value's part of a payload, all of it.
pub fn restore<'a>(body: &'a [u8], limits: &Limits) -> Result<Value<'a>, Error> {
    let mut from = Cursor { rest: body };
    let kind = from.byte()?;
    let value = value(kind, &mut from, limits)?;
    match from.rest {
        [] => Ok(value),
        _ => Err(Error::Corrupt("Bytes behind the value")),
    }
}
