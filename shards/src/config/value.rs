//! How a directive's arguments become a typed field, and how the field is shown again.
//!
//! Each type a field of [`Config`](super::Config) may have implements [`Value`]: reading arguments
//! with Redis's checks and error texts, formatting for `CONFIG GET`, and its lines for
//! `CONFIG REWRITE`. The plain types are here, those with a grammar of their own in
//! [`special`](super::special).

use std::borrow::Cow;

use super::Mode;
use super::enums::Named;
use super::table::{Directive, Kind};
use crate::quote;

/// Why a value was refused, in Redis's words.
pub type Reason = Cow<'static, str>;

/// A type that a directive's field can have.
pub(super) trait Value: Clone + PartialEq {
    /// Replaces the value by what `args` say, or leaves it and tells why not.
    fn set(&mut self, args: &[Vec<u8>], directive: &Directive, mode: Mode) -> Result<(), Reason>;

    /// The value as `CONFIG GET` shows it.
    fn get(&self, directive: &Directive) -> Vec<u8>;

    /// The value's lines in a rewritten file.
    fn rewrite(&self, default: &Self, directive: &Directive) -> Rewrite {
        let mut line = format!("{} ", directive.name).into_bytes();
        line.extend(self.get(directive));
        Rewrite::Lines { lines: vec![line], force: self != default }
    }
}

/// What `CONFIG REWRITE` does about one directive.
pub(super) enum Rewrite {
    /// Every line of the old file for this directive goes.
    Remove,
    /// These lines stand in for the old ones. With `force` they are appended where the old file
    /// had none.
    Lines { lines: Vec<Vec<u8>>, force: bool },
    /// As `Lines`, with a `force` of its own for each line.
    Each(Vec<(Vec<u8>, bool)>),
}

/// The one argument of a directive that takes exactly one.
pub(super) fn single(args: &[Vec<u8>]) -> Result<&[u8], Reason> {
    match args {
        [arg] => Ok(arg),
        _ => Err("wrong number of arguments".into()),
    }
}

impl Value for bool {
    fn set(&mut self, args: &[Vec<u8>], _: &Directive, _: Mode) -> Result<(), Reason> {
        let arg = single(args)?;
        *self = if arg.eq_ignore_ascii_case(b"yes") {
            true
        } else if arg.eq_ignore_ascii_case(b"no") {
            false
        } else {
            return Err("argument must be 'yes' or 'no'".into());
        };
        Ok(())
    }

    fn get(&self, _: &Directive) -> Vec<u8> {
        if *self { b"yes".to_vec() } else { b"no".to_vec() }
    }
}

impl<E: Named> Value for E {
    fn set(&mut self, args: &[Vec<u8>], _: &Directive, _: Mode) -> Result<(), Reason> {
        match E::from_name(single(args)?) {
            Some(variant) => {
                *self = variant;
                Ok(())
            }
            None => Err(one_of(E::NAMES)),
        }
    }

    fn get(&self, _: &Directive) -> Vec<u8> {
        self.name().as_bytes().to_vec()
    }
}

/// The complaint about a word that is none of `names`.
pub(super) fn one_of(names: &[&str]) -> Reason {
    format!("argument(s) must be one of the following: {}", names.join(", ")).into()
}

/// Reads a number the way the directive's kind asks for, and checks its range.
fn number(arg: &[u8], directive: &Directive) -> Result<i128, Reason> {
    let (value, min, max) = match directive.kind {
        Kind::Int { min, max } => {
            let value = parse_integer(arg).ok_or("argument couldn't be parsed into an integer")?;
            (i128::from(value), min, max)
        }
        Kind::Memory { min, max } => {
            let value = parse_memory(arg).ok_or("argument must be a memory value")?;
            (i128::from(value), min, max)
        }
        Kind::Octal { max } => {
            let value = strtoll(arg, 8).ok_or("argument couldn't be parsed as an octal number")?;
            if !(0..=i128::from(max)).contains(&i128::from(value)) {
                return Err(format!("argument must be between 0 and {max:o} inclusive").into());
            }
            (i128::from(value), 0, i128::from(max))
        }
        _ => unreachable!("{} is no number", directive.name),
    };
    if value < min || value > max {
        return Err(format!("argument must be between {min} and {max} inclusive").into());
    }
    Ok(value)
}

macro_rules! integers {
    ($($int:ty)*) => {$(
        impl Value for $int {
            fn set(&mut self, args: &[Vec<u8>], directive: &Directive, _: Mode) -> Result<(), Reason> {
                let value = number(single(args)?, directive)?;
                // A test over the table keeps every range within its field's type.
                *self = <$int>::try_from(value).expect("ranges fit their fields");
                Ok(())
            }

            fn get(&self, directive: &Directive) -> Vec<u8> {
                match directive.kind {
                    Kind::Octal { .. } => format!("{self:o}").into_bytes(),
                    _ => self.to_string().into_bytes(),
                }
            }

            fn rewrite(&self, default: &Self, directive: &Directive) -> Rewrite {
                let value = match directive.kind {
                    Kind::Memory { .. } => format_memory(*self as u64),
                    Kind::Octal { .. } => format!("{self:o}"),
                    _ => self.to_string(),
                };
                Rewrite::Lines {
                    lines: vec![format!("{} {value}", directive.name).into_bytes()],
                    force: self != default,
                }
            }
        }
    )*};
}

integers!(u16 u32 u64 usize i32 i64);

/// A bound given in bytes, or as a share of `maxmemory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryOrPercent {
    /// So many bytes; 0 means no bound.
    Bytes(u64),
    /// So many hundredths of `maxmemory`.
    Percent(u8),
}

impl MemoryOrPercent {
    /// The bound in bytes under a given `maxmemory`; `None` where there is no bound.
    pub fn bytes(self, maxmemory: u64) -> Option<u64> {
        let bytes = match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (u128::from(maxmemory) * u128::from(percent) / 100) as u64,
        };
        (bytes != 0).then_some(bytes)
    }
}

impl Value for MemoryOrPercent {
    fn set(&mut self, args: &[Vec<u8>], _: &Directive, _: Mode) -> Result<(), Reason> {
        let arg = single(args)?;
        if let Some(bytes) = parse_memory(arg) {
            if bytes > i64::MAX as u64 {
                return Err("percentage argument must be less or equal to 100".into());
            }
            *self = Self::Bytes(bytes);
            return Ok(());
        }
        let percent = match arg.split_last() {
            Some((b'%', digits)) => parse_integer(digits).filter(|&percent| percent >= 0),
            _ => None,
        };
        match percent {
            Some(0) => *self = Self::Bytes(0),
            Some(percent @ 1..=100) => *self = Self::Percent(percent as u8),
            Some(_) => return Err("percentage argument must be less or equal to 100".into()),
            None => return Err("argument must be a memory or percent value".into()),
        }
        Ok(())
    }

    fn get(&self, _: &Directive) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.to_string().into_bytes(),
            Self::Percent(percent) => format!("{percent}%").into_bytes(),
        }
    }

    fn rewrite(&self, default: &Self, directive: &Directive) -> Rewrite {
        let value = match self {
            Self::Bytes(bytes) => format_memory(*bytes),
            Self::Percent(percent) => format!("{percent}%"),
        };
        Rewrite::Lines { lines: vec![format!("{} {value}", directive.name).into_bytes()], force: self != default }
    }
}

/// Text must be UTF-8 here, since it becomes paths, host names and log lines; Redis takes any bytes
/// up to the first zero.
fn text<'a>(args: &'a [Vec<u8>], directive: &Directive) -> Result<&'a str, Reason> {
    let text = std::str::from_utf8(single(args)?).map_err(|_| "argument must be valid UTF-8")?;
    if text.contains('\0') {
        return Err("argument must not contain a zero byte".into());
    }
    if let Kind::Text(check) = directive.kind {
        check(text)?;
    }
    Ok(text)
}

fn rewrite_text(value: &[u8], force: bool, directive: &Directive) -> Rewrite {
    let mut line = format!("{} ", directive.name).into_bytes();
    quote::repr_into(&mut line, value);
    Rewrite::Lines { lines: vec![line], force }
}

impl Value for String {
    fn set(&mut self, args: &[Vec<u8>], directive: &Directive, _: Mode) -> Result<(), Reason> {
        *self = text(args, directive)?.to_owned();
        Ok(())
    }

    fn get(&self, _: &Directive) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn rewrite(&self, default: &Self, directive: &Directive) -> Rewrite {
        // The working directory is written even when nobody set it, so that the file keeps its
        // meaning when the server is next started elsewhere; an unknown one is left alone.
        let is_dir = matches!(directive.kind, Kind::Dir);
        if is_dir && self.is_empty() {
            return Rewrite::Remove;
        }
        rewrite_text(self.as_bytes(), is_dir || self != default, directive)
    }
}

/// Text for which empty means that there is none.
impl Value for Option<String> {
    fn set(&mut self, args: &[Vec<u8>], directive: &Directive, _: Mode) -> Result<(), Reason> {
        let text = text(args, directive)?;
        *self = (!text.is_empty()).then(|| text.to_owned());
        Ok(())
    }

    fn get(&self, _: &Directive) -> Vec<u8> {
        self.as_deref().unwrap_or_default().as_bytes().to_vec()
    }

    fn rewrite(&self, default: &Self, directive: &Directive) -> Rewrite {
        match self {
            // Only the absence of the line keeps it unset at the next start.
            None => Rewrite::Remove,
            Some(text) => rewrite_text(text.as_bytes(), self != default, directive),
        }
    }
}

/// Secrets may be any bytes; empty means that there is none.
impl Value for Option<Vec<u8>> {
    fn set(&mut self, args: &[Vec<u8>], _: &Directive, _: Mode) -> Result<(), Reason> {
        let secret = single(args)?;
        *self = (!secret.is_empty()).then(|| secret.to_vec());
        Ok(())
    }

    fn get(&self, _: &Directive) -> Vec<u8> {
        self.clone().unwrap_or_default()
    }

    fn rewrite(&self, default: &Self, directive: &Directive) -> Rewrite {
        match self {
            None => Rewrite::Remove,
            Some(secret) => rewrite_text(secret, self != default, directive),
        }
    }
}

/// Reads a decimal integer as strictly as Redis's `string2ll`: no blanks, no plus, no leading zero.
pub fn parse_integer(arg: &[u8]) -> Option<i64> {
    let digits = arg.strip_prefix(b"-").unwrap_or(arg);
    match digits {
        b"0" => return (digits.len() == arg.len()).then_some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(arg).ok()?.parse().ok()
}

/// Reads an amount of memory: digits and, in either case, `b`, `k`, `kb`, `m`, `mb`, `g` or `gb`.
/// The units with a `b` are powers of 1024, those without are powers of 1000.
///
/// As in Redis a unit without digits is 0. A product beyond 64 bits is refused; Redis lets it wrap.
pub fn parse_memory(arg: &[u8]) -> Option<u64> {
    let unit_at = arg.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(arg.len());
    let (digits, unit) = arg.split_at(unit_at);
    let factor: u64 = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1000 * 1000,
        b"mb" => 1 << 20,
        b"g" => 1000 * 1000 * 1000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    let mut value: u64 = 0;
    for digit in digits {
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    value.checked_mul(factor)
}

/// Formats an amount of memory for a file: in the largest unit that divides it.
pub fn format_memory(bytes: u64) -> String {
    for (shift, unit) in [(30, "gb"), (20, "mb"), (10, "kb")] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// C's `strtoll` where it must use up the whole argument: blanks and a sign may come first, and
/// nothing at all is 0. A number too large is refused.
pub(super) fn strtoll(arg: &[u8], radix: u8) -> Option<i64> {
    if arg.is_empty() {
        return Some(0);
    }
    let blanks = arg.iter().take_while(|&&byte| quote::is_space(byte)).count();
    let (negative, digits) = match &arg[blanks..] {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value: i64 = 0;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit >= radix {
            return None;
        }
        let digit = if negative { -i64::from(digit) } else { i64::from(digit) };
        value = value.checked_mul(i64::from(radix))?.checked_add(digit)?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_are_strict() {
        for (arg, value) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-0", None),
            ("01", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("", None),
            ("-", None),
            ("1x", None),
        ] {
            assert_eq!(parse_integer(arg.as_bytes()), value, "{arg:?}");
        }
    }

    #[test]
    fn memory_units() {
        for (arg, value) in [
            ("1", Some(1)),
            ("1b", Some(1)),
            ("1k", Some(1000)),
            ("1Kb", Some(1024)),
            ("2M", Some(2_000_000)),
            ("2mb", Some(2 << 20)),
            ("3g", Some(3_000_000_000)),
            ("3GB", Some(3 << 30)),
            ("", Some(0)),
            ("kb", Some(0)),
            ("-1", None),
            ("1tb", None),
            ("1 kb", None),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("99999999999gb", None),
        ] {
            assert_eq!(parse_memory(arg.as_bytes()), value, "{arg:?}");
        }
    }

    #[test]
    fn percent_of_maxmemory() {
        assert_eq!(MemoryOrPercent::Percent(5).bytes(1000), Some(50));
        assert_eq!(MemoryOrPercent::Percent(100).bytes(u64::MAX), Some(u64::MAX));
        assert_eq!(MemoryOrPercent::Percent(5).bytes(0), None);
        assert_eq!(MemoryOrPercent::Bytes(0).bytes(1000), None);
        assert_eq!(MemoryOrPercent::Bytes(7).bytes(1000), Some(7));
    }

    proptest! {
        #[test]
        fn formatted_memory_is_read_back(bytes: u64, shift in 0u32..64) {
            let bytes = bytes >> shift << (shift / 2);
            prop_assert_eq!(parse_memory(format_memory(bytes).as_bytes()), Some(bytes));
        }

        #[test]
        fn numbers_never_panic(arg: Vec<u8>) {
            parse_integer(&arg);
            parse_memory(&arg);
            strtoll(&arg, 8);
            strtoll(&arg, 10);
        }
    }
}
