//! Numbers as Redis reads and writes them in arguments and replies.
//!
//! Redis accepts one spelling of each integer only (no `+`, no leading zero, no space), so that a value that was
//! stored as a number reads back byte for byte. Counterpart: `string2ll`, `string2d`, `ld2string` in `util.c`.

/// The canonical decimal integer in `text`, or `None` for any other spelling or one out of range.
#[inline]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        all => (false, all),
    };
    match digits {
        [b'0'] => return if negative { None } else { Some(0) },
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut value: u64 = 0;
    for &digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // 19 digits stay below 10^19, which fits.
        value = value * 10 + digit as u64;
    }
    match negative {
        false => i64::try_from(value).ok(),
        true if value <= i64::MIN.unsigned_abs() => Some((value as i64).wrapping_neg()),
        true => None,
    }
}

/// The canonical unsigned decimal integer in `text`.
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    if text == b"0" {
        return Some(0);
    }
    if !matches!(text, [b'1'..=b'9', ..]) || text.len() > 20 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A floating-point argument as `strtod` reads it, without spaces around it and without NaN. Infinities are spelled
/// `inf`, `+inf`, `-inf`, `infinity`; hexadecimal floats, which no client is known to send, are not accepted.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    if text.is_empty() || text.len() > 512 {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    if value.is_nan() {
        return None;
    }
    // A finite spelling that overflows is a range error for `strtod`.
    if value.is_infinite() && text.bytes().any(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(value)
}

/// A double as Redis 7 writes it in RESP2 replies and as a sorted set's score: the shortest text that reads back to
/// the same number, in plain or exponent form as `%.17g` would choose.
pub fn format_f64(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    if value.is_nan() {
        return "nan".into();
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0".into() } else { "0".into() };
    }
    if value.fract() == 0.0 && value.abs() < 1e17 {
        return itoa::Buffer::new().format(value as i64).to_string();
    }
    // `{:e}` gives the shortest digits that read back; they are set out as the C library's %g does.
    let shortest = format!("{value:e}");
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    if (-5..17).contains(&exponent) {
        if exponent < 0 {
            return format!("{sign}0.{}{digits}", "0".repeat((-exponent - 1) as usize));
        }
        let point = exponent as usize + 1;
        return match digits.len() <= point {
            true => format!("{sign}{digits}{}", "0".repeat(point - digits.len())),
            false => format!("{sign}{}.{}", &digits[..point], &digits[point..]),
        };
    }
    let fraction = if digits.len() > 1 { format!(".{}", &digits[1..]) } else { String::new() };
    format!("{sign}{}{fraction}e{}{:02}", &digits[..1], if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// The sum of two decimal texts as `INCRBYFLOAT` and `HINCRBYFLOAT` write it: up to 17 decimals, no exponent, no
/// trailing zeros.
///
/// Redis adds in 80-bit floats, in which sums like 0.1 + 0.2 come out as people expect. Here numbers of ordinary size
/// are added exactly, in units of 10^-17; others fall back to doubles.
pub fn add_decimal(a: &[u8], b: &[u8]) -> Result<String, crate::commands::CommandError> {
    use crate::commands::CommandError;
    if let (Some(x), Some(y)) = (fixed(a), fixed(b)) {
        if let Some(sum) = x.checked_add(y) {
            return Ok(format_fixed(sum));
        }
    }
    let sum = parse_f64(a).ok_or(CommandError::NotFloat)? + parse_f64(b).ok_or(CommandError::NotFloat)?;
    if !sum.is_finite() {
        return Err("ERR increment would produce NaN or Infinity".into());
    }
    let text = format!("{sum:.17}");
    Ok(text.trim_end_matches('0').trim_end_matches('.').to_string())
}

/// A decimal in units of 10^-17; `None` for more decimals, or over 20 digits before the point.
fn fixed(text: &[u8]) -> Option<i128> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    let (digits, exponent) = match digits.iter().position(|b| matches!(b, b'e' | b'E')) {
        Some(e) => (&digits[..e], parse_exponent(&digits[e + 1..])?),
        None => (digits, 0),
    };
    let (whole, fraction) = match digits.iter().position(|b| *b == b'.') {
        Some(point) => (&digits[..point], &digits[point + 1..]),
        None => (digits, &b""[..]),
    };
    if whole.len() + fraction.len() == 0 || whole.len() > 20 || fraction.len() > 17 {
        return None;
    }
    let mut value: i128 = 0;
    for &digit in whole.iter().chain(fraction) {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + (digit - b'0') as i128;
    }
    // 10^-17 units: `fraction` and the exponent move the point.
    match 17 - fraction.len() as i32 + exponent {
        shift @ 0..=38 => value = value.checked_mul(10i128.checked_pow(shift as u32)?)?,
        shift @ -38..0 => {
            let unit = 10i128.pow(-shift as u32);
            if value % unit != 0 {
                return None;
            }
            value /= unit;
        }
        _ => return None,
    }
    Some(if negative { -value } else { value })
}

/// The number behind an `e`, if it is small enough to matter for [`fixed`].
fn parse_exponent(text: &[u8]) -> Option<i32> {
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    parse_i64(digits).filter(|e| e.abs() <= 38).map(|e| e as i32)
}

fn format_fixed(value: i128) -> String {
    let unit = 10u128.pow(17);
    let (whole, fraction) = (value.unsigned_abs() / unit, value.unsigned_abs() % unit);
    let sign = if value < 0 { "-" } else { "" };
    match fraction {
        0 => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{}", format!("{fraction:017}").trim_end_matches('0')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_have_one_spelling() {
        for good in ["0", "1", "-1", "9223372036854775807", "-9223372036854775808"] {
            assert_eq!(parse_i64(good.as_bytes()).map(|n| n.to_string()).as_deref(), Some(good));
        }
        for bad in ["", "-", "-0", "+1", "01", " 1", "1 ", "9223372036854775808", "-9223372036854775809", "1x"] {
            assert_eq!(parse_i64(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_u64(b"-1"), None);
    }

    #[test]
    fn doubles_look_as_in_redis() {
        for (value, text) in [
            (3.0, "3"),
            (-2.5, "-2.5"),
            (0.1, "0.1"),
            (1e17, "1e+17"),
            (1e16, "10000000000000000"),
            (1.5e-7, "1.5e-07"),
            (1e300, "1e+300"),
            (0.00001, "0.00001"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(format_f64(value), text);
        }
    }

    #[test]
    fn decimal_sums_are_what_people_expect() {
        for (a, b, sum) in [
            ("0.1", "0.2", "0.3"),
            ("3", "-3", "0"),
            ("10.50", "0.1", "10.6"),
            ("-1.5", "1", "-0.5"),
            ("5.0e3", "2.0e2", "5200"),
            ("17179869184", "1.5", "17179869185.5"),
        ] {
            assert_eq!(add_decimal(a.as_bytes(), b.as_bytes()).as_deref(), Ok(sum));
        }
        assert!(add_decimal(b"1", b" 1").is_err());
        assert!(add_decimal(b"1e308", b"1e308").is_err());
    }

    proptest! {
        #[test]
        fn integers_round_trip(n in any::<i64>()) {
            prop_assert_eq!(parse_i64(n.to_string().as_bytes()), Some(n));
        }

        #[test]
        fn doubles_round_trip(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            if value.is_finite() {
                prop_assert_eq!(parse_f64(format_f64(value).as_bytes()), Some(value));
            }
        }
    }
}
