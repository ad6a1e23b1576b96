//! Splitting a line into arguments, and quoting an argument so that it can be split again.
//!
//! Inline commands, configuration files and `--directive` options share this grammar: arguments
//! stand between blanks, `"…"` understands `\n \r \t \b \a \xHH` and a backslash before any other
//! byte, `'…'` understands only `\'`. A closing quote must be followed by a blank or the end.
//!
//! The counterparts in Redis are `sdssplitargs` and `sdscatrepr`.

/// Splits `line` into arguments, or `None` when its quotes do not balance.
///
/// A zero byte ends the line, as it ends a C string in Redis. The work and the memory are linear in
/// the line; the caller bounds the line.
pub fn split_args(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let end = memchr::memchr(0, line).unwrap_or(line.len());
    let line = &line[..end];
    let mut args = Vec::new();
    let mut at = 0;
    loop {
        while at < line.len() && is_space(line[at]) {
            at += 1;
        }
        if at == line.len() {
            return Some(args);
        }
        let (arg, next) = one_argument(line, at)?;
        args.push(arg);
        at = next;
    }
}

/// Appends `bytes` to `out` between double quotes, every byte outside printable ASCII escaped, so
/// that [`split_args`] reads back exactly `bytes`.
pub fn repr_into(out: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    for &byte in bytes {
        match byte {
            b'\\' | b'"' => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            0x07 => out.extend(b"\\a"),
            0x08 => out.extend(b"\\b"),
            b' '..=b'~' => out.push(byte),
            _ => out.extend([b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
    out.push(b'"');
}

/// [`repr_into`] a fresh buffer.
pub fn repr(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    repr_into(&mut out, bytes);
    out
}

/// What C's `isspace` accepts.
pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// Reads the argument that starts at `at`, which is no blank; returns it and where it ended.
fn one_argument(line: &[u8], mut at: usize) -> Option<(Vec<u8>, usize)> {
    let mut arg = Vec::new();
    while at < line.len() {
        match line[at] {
            b' ' | b'\n' | b'\r' | b'\t' => return Some((arg, at + 1)),
            b'"' => return double_quoted(line, at + 1, arg),
            b'\'' => return single_quoted(line, at + 1, arg),
            byte => arg.push(byte),
        }
        at += 1;
    }
    Some((arg, at))
}

fn double_quoted(line: &[u8], mut at: usize, mut arg: Vec<u8>) -> Option<(Vec<u8>, usize)> {
    loop {
        match line[at..] {
            [] => return None,
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                arg.push(hex_digit(high) << 4 | hex_digit(low));
                at += 4;
            }
            [b'\\', escaped, ..] => {
                arg.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => other,
                });
                at += 2;
            }
            [b'"', ..] => return closed(line, at + 1, arg),
            [byte, ..] => {
                arg.push(byte);
                at += 1;
            }
        }
    }
}

fn single_quoted(line: &[u8], mut at: usize, mut arg: Vec<u8>) -> Option<(Vec<u8>, usize)> {
    loop {
        match line[at..] {
            [] => return None,
            [b'\\', b'\'', ..] => {
                arg.push(b'\'');
                at += 2;
            }
            [b'\'', ..] => return closed(line, at + 1, arg),
            [byte, ..] => {
                arg.push(byte);
                at += 1;
            }
        }
    }
}

/// A closing quote must be the end of its argument.
fn closed(line: &[u8], at: usize, arg: Vec<u8>) -> Option<(Vec<u8>, usize)> {
    match line.get(at) {
        Some(&byte) if !is_space(byte) => None,
        _ => Some((arg, at)),
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit.to_ascii_lowercase() - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(line: &str) -> Option<Vec<String>> {
        let args = split_args(line.as_bytes())?;
        Some(args.into_iter().map(|arg| String::from_utf8(arg).unwrap()).collect())
    }

    #[test]
    fn plain_and_quoted() {
        assert_eq!(split("set a  b\r\n").unwrap(), ["set", "a", "b"]);
        assert_eq!(split("").unwrap(), [""; 0]);
        assert_eq!(split(" \t\n").unwrap(), [""; 0]);
        assert_eq!(split(r#"save """#).unwrap(), ["save", ""]);
        assert_eq!(split(r#""\x41\n\"\q" x"#).unwrap(), ["A\n\"q", "x"]);
        assert_eq!(split(r"'it\'s \n'").unwrap(), [r"it's \n"]);
        assert_eq!(split(r#"a"b c""#).unwrap(), ["ab c"]);
        assert_eq!(split(r#""\xzz""#).unwrap(), ["xzz"]);
        assert_eq!(split("a\0b").unwrap(), ["a"]);
    }

    #[test]
    fn unbalanced() {
        for line in ["\"", "'", "\"a", "'a", "\"a\"b", "'a'b", "\"a\\", "\"\\x4", "\"a\0\""] {
            assert_eq!(split(line), None, "{line:?}");
        }
    }

    #[test]
    fn repr_escapes() {
        assert_eq!(repr(b"a b\"\\\n\r\t\x07\x08\x00\xff~"), br#""a b\"\\\n\r\t\a\b\x00\xff~""#);
    }

    proptest! {
        #[test]
        fn repr_is_read_back(args: Vec<Vec<u8>>) {
            let mut line = Vec::new();
            for arg in &args {
                repr_into(&mut line, arg);
                line.push(b' ');
            }
            prop_assert_eq!(split_args(&line), Some(args));
        }

        #[test]
        fn never_panics(line: Vec<u8>) {
            if let Some(args) = split_args(&line) {
                prop_assert!(args.iter().map(Vec::len).sum::<usize>() <= line.len());
            }
        }
    }
}
