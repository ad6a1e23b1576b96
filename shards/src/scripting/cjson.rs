//! `cjson`: JSON as the library of that name (lua-cjson 2.1) writes and reads it, byte for byte.

use std::ffi::c_int;

use super::engine::host;
use super::lua::*;

/// What a script may set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    sparse_convert: bool,
    sparse_ratio: i64,
    sparse_safe: i64,
    encode_depth: i64,
    decode_depth: i64,
    precision: i64,
    keep_buffer: bool,
    /// 0: an error; 1: written; 2: written as null.
    encode_invalid: u8,
    decode_invalid: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            sparse_convert: false,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_depth: 1000,
            decode_depth: 1000,
            precision: 14,
            keep_buffer: true,
            encode_invalid: 0,
            decode_invalid: true,
        }
    }
}

/// Deeper than this no setting lets tables nest: each level takes room on this thread's stack.
const MAX_DEPTH: i64 = 2000;

/// Pushes the library.
pub(super) fn open(lua: Lua) {
    lua.push_table(0, 13);
    let functions: [(&str, Function); 10] = [
        ("encode", encode),
        ("decode", decode),
        ("encode_sparse_array", encode_sparse_array),
        ("encode_max_depth", |lua| integer_option(lua, 1, 1, i64::from(i32::MAX), |s| &mut s.encode_depth)),
        ("decode_max_depth", |lua| integer_option(lua, 1, 1, i64::from(i32::MAX), |s| &mut s.decode_depth)),
        ("encode_number_precision", |lua| integer_option(lua, 1, 1, 14, |s| &mut s.precision)),
        ("encode_keep_buffer", |lua| bool_option(lua, |s| &mut s.keep_buffer)),
        ("encode_invalid_numbers", encode_invalid_numbers),
        ("decode_invalid_numbers", |lua| bool_option(lua, |s| &mut s.decode_invalid)),
        ("new", |lua| {
            open(lua);
            Ok(1)
        }),
    ];
    for (name, function) in functions {
        lua.push_function(function);
        lua.set_field(-2, name);
    }
    lua.push_light(std::ptr::null());
    lua.set_field(-2, "null");
    lua.push_bytes(b"cjson");
    lua.set_field(-2, "_NAME");
    lua.push_bytes(b"2.1.0");
    lua.set_field(-2, "_VERSION");
}

fn at_most(lua: Lua, args: c_int) -> Result<(), Raise> {
    match lua.top() > args {
        true => Err(Raise::Arg(args + 1, "found too many arguments".into())),
        false => {
            lua.set_top(args);
            Ok(())
        }
    }
}

fn set_integer(lua: Lua, at: c_int, min: i64, max: i64, setting: &mut i64) -> Result<(), Raise> {
    if lua.kind(at) != LUA_TNIL {
        let value = lua.arg_integer(at)?;
        if !(min..=max).contains(&value) {
            return Err(Raise::Arg(1, format!("expected integer between {min} and {max}")));
        }
        *setting = value;
    }
    lua.push_number(*setting as f64);
    Ok(())
}

fn integer_option(
    lua: Lua,
    at: c_int,
    min: i64,
    max: i64,
    which: fn(&mut Settings) -> &mut i64,
) -> Result<c_int, Raise> {
    at_most(lua, 1)?;
    set_integer(lua, at, min, max, which(&mut host(lua).json))?;
    Ok(1)
}

/// Reads `true`, `false`, or one of these words; gives its place among them.
fn choice(lua: Lua, at: c_int, words: &[&str]) -> Result<Option<u8>, Raise> {
    match lua.kind(at) {
        LUA_TNIL => Ok(None),
        LUA_TBOOLEAN => Ok(Some(lua.bool(at) as u8)),
        _ => {
            let given = lua.arg_bytes(at)?;
            let place = words.iter().position(|word| word.as_bytes() == given);
            let wrong = || Raise::Arg(at, format!("invalid option '{}'", String::from_utf8_lossy(given)));
            place.map(|place| Some(place as u8)).ok_or_else(wrong)
        }
    }
}

fn bool_option(lua: Lua, which: fn(&mut Settings) -> &mut bool) -> Result<c_int, Raise> {
    at_most(lua, 1)?;
    let given = choice(lua, 1, &["off", "on"])?;
    let setting = which(&mut host(lua).json);
    if let Some(value) = given {
        *setting = value == 1;
    }
    lua.push_bool(*setting);
    Ok(1)
}

fn encode_sparse_array(lua: Lua) -> Result<c_int, Raise> {
    at_most(lua, 3)?;
    let settings = &mut host(lua).json;
    if let Some(value) = choice(lua, 1, &["off", "on"])? {
        settings.sparse_convert = value == 1;
    }
    lua.push_bool(settings.sparse_convert);
    set_integer(lua, 2, 0, i64::from(i32::MAX), &mut settings.sparse_ratio)?;
    set_integer(lua, 3, 0, i64::from(i32::MAX), &mut settings.sparse_safe)?;
    Ok(3)
}

fn encode_invalid_numbers(lua: Lua) -> Result<c_int, Raise> {
    at_most(lua, 1)?;
    let given = choice(lua, 1, &["off", "on", "null"])?;
    let settings = &mut host(lua).json;
    settings.encode_invalid = given.unwrap_or(settings.encode_invalid);
    match settings.encode_invalid {
        2 => lua.push_bytes(b"null"),
        value => lua.push_bool(value == 1),
    }
    Ok(1)
}

fn one_argument(lua: Lua) -> Result<(), Raise> {
    match lua.top() {
        1 => Ok(()),
        _ => Err(Raise::Arg(1, "expected 1 argument".into())),
    }
}

fn encode(lua: Lua) -> Result<c_int, Raise> {
    one_argument(lua)?;
    let mut out = Vec::new();
    write(lua, &host(lua).json, &mut out, 0)?;
    lua.push_bytes(&out);
    Ok(1)
}

fn cannot(lua: Lua, at: c_int, reason: &str) -> Raise {
    Raise::Text(format!("Cannot serialise {}: {reason}", lua.kind_name(at)))
}

/// Writes the value on top, which stays there.
fn write(lua: Lua, settings: &Settings, out: &mut Vec<u8>, depth: i64) -> Result<(), Raise> {
    match lua.kind(-1) {
        LUA_TSTRING => write_string(out, lua.bytes(-1).unwrap_or_default()),
        LUA_TNUMBER => write_number(lua, settings, out, -1)?,
        LUA_TBOOLEAN => out.extend_from_slice(if lua.bool(-1) { b"true" } else { b"false" }),
        LUA_TTABLE => {
            let depth = depth + 1;
            if depth > settings.encode_depth.min(MAX_DEPTH) || !lua.room(8) {
                return Err(Raise::Text(format!("Cannot serialise, excessive nesting ({depth})")));
            }
            match array_length(lua, settings)? {
                Some(len) if len > 0 => {
                    out.push(b'[');
                    for at in 1..=len {
                        if at > 1 {
                            out.push(b',');
                        }
                        lua.raw_get_at(-1, at as usize);
                        write(lua, settings, out, depth)?;
                        lua.pop(1);
                    }
                    out.push(b']');
                }
                _ => write_object(lua, settings, out, depth)?,
            }
        }
        LUA_TNIL => out.extend_from_slice(b"null"),
        LUA_TLIGHTUSERDATA if lua.address(-1).is_null() => out.extend_from_slice(b"null"),
        _ => return Err(cannot(lua, -1, "type not supported")),
    }
    Ok(())
}

fn write_object(lua: Lua, settings: &Settings, out: &mut Vec<u8>, depth: i64) -> Result<(), Raise> {
    out.push(b'{');
    let start = out.len();
    lua.push_nil();
    while lua.next(-2) {
        if out.len() > start {
            out.push(b',');
        }
        match lua.kind(-2) {
            LUA_TNUMBER => {
                out.push(b'"');
                write_number(lua, settings, out, -2)?;
                out.push(b'"');
            }
            LUA_TSTRING => write_string(out, lua.bytes(-2).unwrap_or_default()),
            _ => return Err(cannot(lua, -2, "table key must be a number or string")),
        }
        out.push(b':');
        write(lua, settings, out, depth)?;
        lua.pop(1);
    }
    out.push(b'}');
    Ok(())
}

/// The length of the table on top as an array, holes included; nothing if it is none.
fn array_length(lua: Lua, settings: &Settings) -> Result<Option<i64>, Raise> {
    let (mut max, mut items) = (0i64, 0i64);
    lua.push_nil();
    while lua.next(-2) {
        let key = lua.number(-2);
        if lua.kind(-2) != LUA_TNUMBER || key < 1.0 || key.fract() != 0.0 || key > f64::from(i32::MAX) {
            lua.pop(2);
            return Ok(None);
        }
        max = max.max(key as i64);
        items += 1;
        lua.pop(1);
    }
    let sparse = settings.sparse_ratio > 0 && max > items.saturating_mul(settings.sparse_ratio);
    if sparse && max > settings.sparse_safe {
        return match settings.sparse_convert {
            true => Ok(None),
            false => Err(cannot(lua, -1, "excessively sparse array")),
        };
    }
    Ok(Some(max))
}

fn write_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for byte in bytes {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'/' => out.extend_from_slice(b"\\/"),
            8 => out.extend_from_slice(b"\\b"),
            9 => out.extend_from_slice(b"\\t"),
            10 => out.extend_from_slice(b"\\n"),
            12 => out.extend_from_slice(b"\\f"),
            13 => out.extend_from_slice(b"\\r"),
            0..=31 | 127 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
}

fn write_number(lua: Lua, settings: &Settings, out: &mut Vec<u8>, at: c_int) -> Result<(), Raise> {
    let number = lua.number(at);
    if !number.is_finite() {
        match settings.encode_invalid {
            0 => return Err(cannot(lua, at, "must not be NaN or Inf")),
            1 if number.is_nan() => out.extend_from_slice(b"nan"),
            1 => out.extend_from_slice(if number > 0.0 { b"inf" } else { b"-inf" }),
            _ => out.extend_from_slice(b"null"),
        }
        return Ok(());
    }
    out.extend_from_slice(format_g(number, settings.precision as usize).as_bytes());
    Ok(())
}

/// A finite number as C's `%.{digits}g` writes it.
pub(super) fn format_g(number: f64, digits: usize) -> String {
    if number == 0.0 {
        return if number.is_sign_negative() { "-0".into() } else { "0".into() };
    }
    let text = format!("{:.*e}", digits - 1, number);
    let (mantissa, exponent) = text.split_once('e').expect("an exponent is written");
    let exponent: i32 = exponent.parse().expect("it is a number");
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim(mantissa), exponent.abs());
    }
    trim(&format!("{:.*}", (digits as i32 - 1 - exponent).max(0) as usize, number))
}

#[derive(Debug, PartialEq)]
enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    String(Vec<u8>),
    Number(f64),
    Bool(bool),
    Null,
    Colon,
    Comma,
    End,
    Error(&'static str),
}

struct Parser<'a> {
    lua: Lua,
    bytes: &'a [u8],
    at: usize,
    /// Where the token that was last read begins.
    token_at: usize,
    depth: i64,
    max_depth: i64,
    invalid_numbers: bool,
}

fn decode(lua: Lua) -> Result<c_int, Raise> {
    one_argument(lua)?;
    let bytes = lua.arg_bytes(1)?;
    if bytes.len() >= 2 && (bytes[0] == 0 || bytes[1] == 0) {
        return Err(Raise::Text("JSON parser does not support UTF-16 or UTF-32".into()));
    }
    let Settings { decode_depth, decode_invalid, .. } = host(lua).json;
    let max_depth = decode_depth.min(MAX_DEPTH);
    let mut parser = Parser { lua, bytes, at: 0, token_at: 0, depth: 0, max_depth, invalid_numbers: decode_invalid };
    let token = parser.next();
    parser.value(token)?;
    match parser.next() {
        Token::End => Ok(1),
        token => Err(parser.wrong("the end", &token)),
    }
}

impl Parser<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn wrong(&self, expected: &str, token: &Token) -> Raise {
        let found = match token {
            Token::ObjectBegin => "T_OBJ_BEGIN",
            Token::ObjectEnd => "T_OBJ_END",
            Token::ArrayBegin => "T_ARR_BEGIN",
            Token::ArrayEnd => "T_ARR_END",
            Token::String(_) => "T_STRING",
            Token::Number(_) => "T_NUMBER",
            Token::Bool(_) => "T_BOOLEAN",
            Token::Null => "T_NULL",
            Token::Colon => "T_COLON",
            Token::Comma => "T_COMMA",
            Token::End => "T_END",
            Token::Error(text) => text,
        };
        Raise::Text(format!("Expected {expected} but found {found} at character {}", self.token_at + 1))
    }

    fn error(&mut self, text: &'static str) -> Token {
        self.token_at = self.at;
        Token::Error(text)
    }

    fn next(&mut self) -> Token {
        while matches!(self.peek(0), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        self.token_at = self.at;
        let single = match self.peek(0) {
            b'{' => Token::ObjectBegin,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ArrayBegin,
            b']' => Token::ArrayEnd,
            b',' => Token::Comma,
            b':' => Token::Colon,
            0 => return Token::End,
            b'"' => return self.string(),
            b'-' | b'0'..=b'9' => {
                if !self.invalid_numbers && self.is_invalid_number() {
                    return self.error("invalid number");
                }
                return self.number();
            }
            b't' if self.bytes[self.at..].starts_with(b"true") => {
                self.at += 3;
                Token::Bool(true)
            }
            b'f' if self.bytes[self.at..].starts_with(b"false") => {
                self.at += 4;
                Token::Bool(false)
            }
            b'n' if self.bytes[self.at..].starts_with(b"null") => {
                self.at += 3;
                Token::Null
            }
            b'i' | b'I' | b'n' | b'N' | b'+' if self.invalid_numbers && self.is_invalid_number() => {
                return self.number();
            }
            _ => return self.error("invalid token"),
        };
        self.at += 1;
        single
    }

    fn starts_with_ignoring_case(&self, at: usize, word: &[u8]) -> bool {
        self.bytes.get(at..at + word.len()).is_some_and(|part| part.eq_ignore_ascii_case(word))
    }

    fn is_invalid_number(&self) -> bool {
        let mut at = self.at;
        match self.peek(0) {
            b'+' => return true,
            b'-' => at += 1,
            _ => {}
        }
        match self.bytes.get(at).copied().unwrap_or(0) {
            b'0' => matches!(self.bytes.get(at + 1), Some(b'x' | b'X' | b'0'..=b'9')),
            0..=b'9' => false,
            _ => self.starts_with_ignoring_case(at, b"inf") || self.starts_with_ignoring_case(at, b"nan"),
        }
    }

    /// A number as the C library's `strtod` reads it.
    fn number(&mut self) -> Token {
        let (value, len) = strtod(&self.bytes[self.at..]);
        if len == 0 {
            return self.error("invalid number");
        }
        self.at += len;
        Token::Number(value)
    }

    fn string(&mut self) -> Token {
        self.at += 1;
        let mut text = Vec::new();
        loop {
            let byte = match self.peek(0) {
                b'"' => break,
                0 => return self.error("unexpected end of string"),
                b'\\' => match self.peek(1) {
                    b'u' => match self.unicode(&mut text) {
                        true => continue,
                        false => return self.error("invalid unicode escape code"),
                    },
                    b'b' => 8,
                    b't' => 9,
                    b'n' => 10,
                    b'f' => 12,
                    b'r' => 13,
                    byte @ (b'"' | b'\\' | b'/') => byte,
                    _ => return self.error("invalid escape code"),
                },
                byte => {
                    text.push(byte);
                    self.at += 1;
                    continue;
                }
            };
            text.push(byte);
            self.at += 2;
        }
        self.at += 1;
        Token::String(text)
    }

    fn hex4(&self, ahead: usize) -> Option<u32> {
        let digits = self.bytes.get(self.at + ahead..self.at + ahead + 4)?;
        digits.iter().try_fold(0, |code, digit| Some(code << 4 | char::from(*digit).to_digit(16)?))
    }

    fn unicode(&mut self, text: &mut Vec<u8>) -> bool {
        let Some(mut code) = self.hex4(2) else { return false };
        let mut len = 6;
        if code & 0xf800 == 0xd800 {
            if code & 0x400 != 0 || self.peek(6) != b'\\' || self.peek(7) != b'u' {
                return false;
            }
            let Some(low) = self.hex4(8).filter(|low| low & 0xfc00 == 0xdc00) else { return false };
            code = 0x10000 + ((code & 0x3ff) << 10 | low & 0x3ff);
            len = 12;
        }
        let Some(char) = char::from_u32(code) else { return false };
        text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        self.at += len;
        true
    }

    fn descend(&mut self) -> Result<(), Raise> {
        self.depth += 1;
        match self.depth <= self.max_depth && self.lua.room(6) {
            true => Ok(()),
            false => Err(Raise::Text(format!(
                "Found too many nested data structures ({}) at character {}",
                self.depth, self.at
            ))),
        }
    }

    /// Pushes the value that begins with `token`.
    fn value(&mut self, token: Token) -> Result<(), Raise> {
        let lua = self.lua;
        match token {
            Token::String(text) => lua.push_bytes(&text),
            Token::Number(number) => lua.push_number(number),
            Token::Bool(value) => lua.push_bool(value),
            Token::Null => lua.push_light(std::ptr::null()),
            Token::ObjectBegin => return self.object(),
            Token::ArrayBegin => return self.array(),
            token => return Err(self.wrong("value", &token)),
        }
        Ok(())
    }

    fn object(&mut self) -> Result<(), Raise> {
        self.descend()?;
        self.lua.push_table(0, 0);
        let mut token = self.next();
        if token != Token::ObjectEnd {
            loop {
                match token {
                    Token::String(name) => self.lua.push_bytes(&name),
                    token => return Err(self.wrong("object key string", &token)),
                }
                match self.next() {
                    Token::Colon => {}
                    token => return Err(self.wrong("colon", &token)),
                }
                let value = self.next();
                self.value(value)?;
                self.lua.raw_set(-3);
                match self.next() {
                    Token::ObjectEnd => break,
                    Token::Comma => {}
                    token => return Err(self.wrong("comma or object end", &token)),
                }
                token = self.next();
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn array(&mut self) -> Result<(), Raise> {
        self.descend()?;
        self.lua.push_table(0, 0);
        let mut token = self.next();
        if token != Token::ArrayEnd {
            for at in 1.. {
                self.value(token)?;
                self.lua.raw_set_at(-2, at);
                match self.next() {
                    Token::ArrayEnd => break,
                    Token::Comma => {}
                    token => return Err(self.wrong("comma or array end", &token)),
                }
                token = self.next();
            }
        }
        self.depth -= 1;
        Ok(())
    }
}

/// The number at the start of a text, and how long its spelling is; 0 when there is none.
fn strtod(text: &[u8]) -> (f64, usize) {
    let signed = usize::from(matches!(text.first(), Some(b'+' | b'-')));
    let negative = text.first() == Some(&b'-');
    let rest = &text[signed..];
    let give = |value: f64, len: usize| (if negative { -value } else { value }, signed + len);
    let begins = |word: &[u8]| rest.get(..word.len()).is_some_and(|part| part.eq_ignore_ascii_case(word));
    if begins(b"infinity") {
        return give(f64::INFINITY, 8);
    }
    if begins(b"inf") {
        return give(f64::INFINITY, 3);
    }
    if begins(b"nan") {
        return give(f64::NAN, 3);
    }
    if begins(b"0x") {
        let digits = rest[2..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits > 0 {
            let value = rest[2..2 + digits]
                .iter()
                .fold(0.0, |value, digit| value * 16.0 + f64::from(char::from(*digit).to_digit(16).unwrap_or(0)));
            return give(value, 2 + digits);
        }
    }
    let count = |from: usize| rest[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = count(0);
    let mut len = whole;
    let mut fraction = 0;
    if rest.get(len) == Some(&b'.') {
        fraction = count(len + 1);
        if whole + fraction > 0 {
            len += 1 + fraction;
        }
    }
    if whole + fraction == 0 {
        return (0.0, 0);
    }
    if matches!(rest.get(len), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(rest.get(len + 1), Some(b'+' | b'-')));
        let digits = if len + 1 + sign <= rest.len() { count(len + 1 + sign) } else { 0 };
        if digits > 0 {
            len += 1 + sign + digits;
        }
    }
    let value = std::str::from_utf8(&rest[..len]).ok().and_then(|text| text.parse().ok()).unwrap_or(0.0);
    give(value, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_c_writes_them() {
        for (number, text) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (1e14, "1e+14"),
            (123456789012345.0, "1.2345678901234e+14"),
            (12345678901234.0, "12345678901234"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-2.5, "-2.5"),
            (1.0 / 3.0, "0.33333333333333"),
            (0.3, "0.3"),
        ] {
            assert_eq!(format_g(number, 14), text);
        }
    }

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        for (text, value, len) in [
            ("12]", 12.0, 2),
            ("-1.5e3,", -1500.0, 6),
            ("1e", 1.0, 1),
            ("1e+", 1.0, 1),
            (".5", 0.5, 2),
            ("1.", 1.0, 2),
            ("0x10", 16.0, 4),
            ("-inf", f64::NEG_INFINITY, 4),
            ("-", 0.0, 0),
            ("x", 0.0, 0),
        ] {
            assert_eq!(strtod(text.as_bytes()), (value, len), "{text}");
        }
    }
}
