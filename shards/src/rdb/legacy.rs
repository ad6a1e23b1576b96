//! Flat encodings that only old versions wrote: ziplists (to Redis 6.2) and zipmaps (to 2.4). They are read into what
//! took their places, and never written.

use super::Error;
use crate::encodings::ListPack;

const CORRUPT_ZIPLIST: Error = Error::Corrupt("Ziplist integrity check failed.");
const CORRUPT_ZIPMAP: Error = Error::Corrupt("Zipmap integrity check failed.");

/// The elements of a ziplist as a listpack.
///
/// ```text
/// +-------------+----------------+-------+-------+-----+------+
/// | total bytes | offset of last | count | entry | ... | 0xFF |
/// | u32         | u32            | u16   |       |     |      |
/// +-------------+----------------+-------+-------+-----+------+
///
/// entry: bytes of the one before (one byte, or 0xFE and a u32), encoding, content
/// ```
pub fn listpack_of_ziplist(bytes: &[u8]) -> Result<ListPack, Error> {
    const HEAD: usize = 10;
    let word =
        |at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes(b.try_into().expect("four bytes")) as usize);
    let (Some(total), Some(tail)) = (word(0), word(4)) else { return Err(CORRUPT_ZIPLIST) };
    if total != bytes.len() || total <= HEAD || bytes[total - 1] != 0xFF {
        return Err(CORRUPT_ZIPLIST);
    }
    let declared = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let mut pack = ListPack::new();
    let (mut at, mut before, mut last, mut count) = (HEAD, 0, HEAD, 0usize);
    while at < total - 1 {
        let entry = at;
        let rest = &bytes[..total - 1];
        let previous = match rest[at] {
            0xFE => {
                let bytes = rest.get(at + 1..at + 5).ok_or(CORRUPT_ZIPLIST)?;
                at += 5;
                u32::from_le_bytes(bytes.try_into().expect("four bytes")) as usize
            }
            n => {
                at += 1;
                usize::from(n)
            }
        };
        if previous != before {
            return Err(CORRUPT_ZIPLIST);
        }
        let head = *rest.get(at).ok_or(CORRUPT_ZIPLIST)?;
        let mut int = |width: usize| {
            let body = rest.get(at + 1..at + 1 + width).ok_or(CORRUPT_ZIPLIST)?;
            at += 1 + width;
            let mut wide = [if body[width - 1] & 128 != 0 { 0xFF } else { 0 }; 8];
            wide[..width].copy_from_slice(body);
            pack.push_int(i64::from_le_bytes(wide));
            Ok(())
        };
        match head {
            0xC0 => int(2)?,
            0xD0 => int(4)?,
            0xE0 => int(8)?,
            0xF0 => int(3)?,
            0xFE => int(1)?,
            0xF1..=0xFD => {
                pack.push_int(i64::from(head) - 0xF1);
                at += 1;
            }
            0..0xC0 => {
                let (start, len) = match head >> 6 {
                    0 => (at + 1, usize::from(head & 63)),
                    1 => {
                        let low = *rest.get(at + 1).ok_or(CORRUPT_ZIPLIST)?;
                        (at + 2, usize::from(head & 63) << 8 | usize::from(low))
                    }
                    _ => {
                        let len = rest.get(at + 1..at + 5).ok_or(CORRUPT_ZIPLIST)?;
                        (at + 5, u32::from_be_bytes(len.try_into().expect("four bytes")) as usize)
                    }
                };
                let text = start.checked_add(len).and_then(|end| rest.get(start..end)).ok_or(CORRUPT_ZIPLIST)?;
                pack.push(text);
                at = start + len;
            }
            _ => return Err(CORRUPT_ZIPLIST),
        }
        (before, last) = (at - entry, entry);
        count += 1;
    }
    let sound = (tail == last || count == 0) && (declared == usize::from(u16::MAX) || declared == count);
    if sound { Ok(pack) } else { Err(CORRUPT_ZIPLIST) }
}

/// Calls back with the fields and values of a zipmap.
///
/// ```text
/// +-------+--------+-------+--------+------+-------+-------+-----+------+
/// | count | length | field | length | free | value | spare | ... | 0xFF |
/// +-------+--------+-------+--------+------+-------+-------+-----+------+
/// ```
/// A length is one byte below 254, or 254 and a u32; `spare` has as many bytes as `free` says.
pub fn each_of_zipmap(bytes: &[u8], mut f: impl FnMut(&[u8], &[u8]) -> Result<(), Error>) -> Result<(), Error> {
    if bytes.len() < 2 || bytes[bytes.len() - 1] != 0xFF {
        return Err(CORRUPT_ZIPMAP);
    }
    let (declared, rest) = (usize::from(bytes[0]), &bytes[..bytes.len() - 1]);
    let length = |at: usize| match *rest.get(at)? {
        255 => None,
        254 => {
            let len = rest.get(at + 1..at + 5)?;
            Some((u32::from_le_bytes(len.try_into().expect("four bytes")) as usize, at + 5))
        }
        n => Some((usize::from(n), at + 1)),
    };
    let (mut at, mut count) = (1, 0);
    while at < rest.len() {
        let mut pair = || {
            let (len, start) = length(at)?;
            let field = rest.get(start..start.checked_add(len)?)?;
            let (len, start) = length(start + len)?;
            let free = usize::from(*rest.get(start)?);
            let value = rest.get(start + 1..(start + 1).checked_add(len)?)?;
            at = start + 1 + len + free;
            (at <= rest.len()).then_some((field, value))
        };
        let (field, value) = pair().ok_or(CORRUPT_ZIPMAP)?;
        f(field, value)?;
        count += 1;
    }
    if declared < 254 && declared != count { Err(CORRUPT_ZIPMAP) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::StrRef;

    #[test]
    fn a_zipmap_is_read() {
        let mut pairs = Vec::new();
        let map = b"\x02\x03foo\x03\x00bar\x05hello\x05\x02world..\xff";
        each_of_zipmap(map, |field, value| {
            pairs.push((field.to_vec(), value.to_vec()));
            Ok(())
        })
        .unwrap();
        assert_eq!(pairs, [(b"foo".to_vec(), b"bar".to_vec()), (b"hello".to_vec(), b"world".to_vec())]);
        for cut in 0..map.len() {
            assert!(each_of_zipmap(&map[..cut], |_, _| Ok(())).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_ziplist_is_read() {
        // "a", 5, 300, -1: one of each kind of head.
        let list =
            b"\x18\x00\x00\x00\x13\x00\x00\x00\x04\x00\x00\x01a\x03\xf6\x02\xc0\x2c\x01\x04\xd0\xff\xff\xff\xff\xff";
        let mut list = list.to_vec();
        let total = list.len() as u32;
        list[..4].copy_from_slice(&total.to_le_bytes());
        let pack = listpack_of_ziplist(&list).unwrap();
        let all: Vec<_> = pack.iter().collect();
        assert_eq!(all, [StrRef::Bytes(b"a"), StrRef::Int(5), StrRef::Int(300), StrRef::Int(-1)]);
        for at in 0..list.len() {
            for bit in 0..8 {
                let mut broken = list.clone();
                broken[at] ^= 1 << bit;
                let _ = listpack_of_ziplist(&broken);
            }
            assert!(listpack_of_ziplist(&list[..at]).is_err());
        }
    }
}
