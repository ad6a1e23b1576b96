//! Glob patterns as `KEYS`, `SCAN MATCH`, `PSUBSCRIBE`, ACL rules and `CONFIG GET` read them.
//!
//! Every element of a pattern other than `*` consumes exactly one byte. That makes the classic
//! greedy walk exact: on a mismatch only the *last* star has to be tried one byte further on,
//! because an earlier star that swallowed more would leave even less for the rest. So a match
//! costs at most `pattern × string` steps, however many stars the pattern has. Redis goes one call
//! deeper for each star and gives up behind the thousandth; so does this, for the same reply.
//!
//! The counterpart in Redis is `stringmatchlen`, whose corner cases are kept on purpose: clients
//! have been built on them.

/// Stars of a pattern behind which nothing matches, but for one at its end.
const MOST_STARS: usize = 1000;

/// Whether `string` as a whole matches the glob `pattern`.
///
/// `*` stands for any bytes, `?` for one byte, `[a-c]`, `[^abc]` for a class and `\` takes the next
/// byte literally. With `nocase` ASCII letters match in either case.
///
/// As in Redis 7, an empty `string` matches only an empty pattern, not `*`: `KEYS *` asks for
/// everything before it comes here.
pub fn matches(pattern: &[u8], string: &[u8], nocase: bool) -> bool {
    if string.is_empty() {
        return pattern.is_empty();
    }
    let (mut p, mut s) = (0, 0);
    // Where to go on after a mismatch: the element after the last star, and the byte of the string
    // at which that star currently ends.
    let mut last_star: Option<(usize, usize)> = None;
    let mut stars = 0;
    loop {
        if s == string.len() {
            // Whatever is left of the pattern needs a byte, unless it is only stars; moving the
            // last star on would leave fewer bytes still.
            return pattern[p..].iter().all(|&byte| byte == b'*');
        }
        if p < pattern.len() {
            if pattern[p] == b'*' {
                while p < pattern.len() && pattern[p] == b'*' {
                    p += 1;
                }
                if p == pattern.len() {
                    return true;
                }
                stars += 1;
                if stars > MOST_STARS {
                    return false;
                }
                last_star = Some((p, s));
                continue;
            }
            let (next, hit) = match_one(pattern, p, string[s], nocase);
            if hit {
                p = next;
                s += 1;
                continue;
            }
        }
        match last_star {
            Some((after_star, end)) => {
                p = after_star;
                s = end + 1;
                last_star = Some((after_star, s));
            }
            None => return false,
        }
    }
}

/// Whether `pattern` has a byte that makes `CONFIG GET` and `include` treat it as a pattern.
pub fn is_pattern(pattern: &[u8]) -> bool {
    pattern.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['))
}

/// Matches the single element at `pattern[p]`, which is not a star, against one byte; returns
/// where the next element starts and whether it matched.
fn match_one(pattern: &[u8], p: usize, byte: u8, nocase: bool) -> (usize, bool) {
    match pattern[p] {
        b'?' => (p + 1, true),
        b'[' => match_class(pattern, p + 1, byte, nocase),
        b'\\' if p + 1 < pattern.len() => (p + 2, same(pattern[p + 1], byte, nocase)),
        literal => (p + 1, same(literal, byte, nocase)),
    }
}

/// Matches the class whose first byte after the `[` is at `p`. A class that never closes ends with
/// the pattern, and `[a-]` is a range up to `]`, both as in Redis.
fn match_class(pattern: &[u8], mut p: usize, byte: u8, nocase: bool) -> (usize, bool) {
    let negated = pattern.get(p) == Some(&b'^');
    if negated {
        p += 1;
    }
    let mut hit = false;
    loop {
        let rest = pattern.len().saturating_sub(p);
        if rest == 0 {
            break;
        }
        if pattern[p] == b'\\' && rest >= 2 {
            p += 1;
            // Redis compares an escaped member exactly, even where case is ignored.
            hit |= pattern[p] == byte;
        } else if pattern[p] == b']' {
            p += 1;
            break;
        } else if rest >= 3 && pattern[p + 1] == b'-' {
            hit |= in_range(pattern[p], pattern[p + 2], byte, nocase);
            p += 2;
        } else {
            hit |= same(pattern[p], byte, nocase);
        }
        p += 1;
    }
    (p, hit != negated)
}

/// Ranges work in either direction, and on signed bytes, since that is what `char` is where Redis
/// usually runs.
fn in_range(start: u8, end: u8, byte: u8, nocase: bool) -> bool {
    let (mut low, mut high) = (start as i8, end as i8);
    if low > high {
        (low, high) = (high, low);
    }
    let mut byte = byte as i8;
    if nocase {
        low = (low as u8).to_ascii_lowercase() as i8;
        high = (high as u8).to_ascii_lowercase() as i8;
        byte = (byte as u8).to_ascii_lowercase() as i8;
    }
    low <= byte && byte <= high
}

fn same(a: u8, b: u8, nocase: bool) -> bool {
    a == b || nocase && a.eq_ignore_ascii_case(&b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(pattern: &str, string: &str) -> bool {
        matches(pattern.as_bytes(), string.as_bytes(), false)
    }

    /// One element of a pattern, spelled out for the oracle.
    enum Element {
        Star,
        One(Box<dyn Fn(u8) -> bool>),
    }

    /// Reads a pattern into elements, without sharing code with the matcher.
    fn elements(pattern: &[u8], nocase: bool) -> Vec<Element> {
        let fold = move |b: u8| if nocase { b.to_ascii_lowercase() } else { b };
        let mut out = Vec::new();
        let mut rest = pattern;
        while let Some((&first, mut tail)) = rest.split_first() {
            match first {
                b'*' => out.push(Element::Star),
                b'?' => out.push(Element::One(Box::new(|_| true))),
                b'[' => {
                    let negated = tail.first() == Some(&b'^');
                    if negated {
                        tail = &tail[1..];
                    }
                    let mut members: Vec<(i8, i8, bool)> = Vec::new();
                    loop {
                        match tail {
                            [] => break,
                            [b'\\', m, after @ ..] => {
                                members.push((*m as i8, *m as i8, true));
                                tail = after;
                            }
                            [b']', after @ ..] => {
                                tail = after;
                                break;
                            }
                            [a, b'-', z, after @ ..] => {
                                let (a, z) = (*a as i8, *z as i8);
                                members.push((a.min(z), a.max(z), false));
                                tail = after;
                            }
                            [m, after @ ..] => {
                                members.push((*m as i8, *m as i8, false));
                                tail = after;
                            }
                        }
                    }
                    out.push(Element::One(Box::new(move |byte| {
                        let found = members.iter().any(|&(low, high, exact)| {
                            if exact {
                                return low == byte as i8;
                            }
                            let low = fold(low as u8) as i8;
                            let high = fold(high as u8) as i8;
                            (low..=high).contains(&(fold(byte) as i8))
                        });
                        found != negated
                    })));
                }
                b'\\' if !tail.is_empty() => {
                    let literal = tail[0];
                    tail = &tail[1..];
                    out.push(Element::One(Box::new(move |byte| fold(byte) == fold(literal))));
                }
                literal => out.push(Element::One(Box::new(move |byte| fold(byte) == fold(literal)))),
            }
            rest = tail;
        }
        out
    }

    /// Tries everything; exponential, so only for short patterns.
    fn oracle(pattern: &[Element], string: &[u8]) -> bool {
        match pattern.split_first() {
            None => string.is_empty(),
            Some((Element::Star, rest)) => (0..=string.len()).any(|taken| oracle(rest, &string[taken..])),
            Some((Element::One(hit), rest)) => match string.split_first() {
                Some((&byte, tail)) => hit(byte) && oracle(rest, tail),
                None => false,
            },
        }
    }

    #[test]
    fn the_usual_patterns() {
        assert!(check("h?llo", "hello"));
        assert!(!check("h?llo", "hllo"));
        assert!(check("h*llo", "hllo"));
        assert!(check("h*llo", "heeeello"));
        assert!(check("h[ae]llo", "hallo"));
        assert!(!check("h[ae]llo", "hillo"));
        assert!(check("h[^e]llo", "hallo"));
        assert!(!check("h[^e]llo", "hello"));
        assert!(check("h[a-b]llo", "hbllo"));
        assert!(check("h[b-a]llo", "hallo"));
        assert!(check("user:*:name", "user:1:2:name"));
        assert!(!check("user:*:name", "user:1:2:names"));
        assert!(check("\\*", "*"));
        assert!(!check("\\*", "a"));
        assert!(matches(b"MAX*", b"maxmemory", true));
        assert!(!matches(b"MAX*", b"maxmemory", false));
    }

    #[test]
    fn corners_kept_from_redis() {
        assert!(check("", ""));
        assert!(!check("*", ""));
        assert!(!check("", "a"));
        assert!(check("a**", "a"));
        assert!(check("\\", "\\"));
        assert!(check("[abc", "c"));
        assert!(!check("[", "a"));
        assert!(check("[^", "a"));
        assert!(check("[a-]", "b") == (b'b' >= b']' && b'b' <= b'a'));
        assert!(check("[\\]]", "]"));
        assert!(check(&"*a".repeat(1000), &"a".repeat(1000)));
        assert!(!check(&"*a".repeat(1001), &"a".repeat(1001)));
        assert!(check(&("*a".repeat(1000) + "*"), &"a".repeat(1001)));
        assert!(matches(b"[\\a]", b"a", true));
        assert!(!matches(b"[\\a]", b"A", true));
        assert!(matches(b"[A-C]", b"b", true));
        assert!(matches(b"[\x01-\xff]", b"\x00", false));
        assert!(!matches(b"[\x01-\xff]", b"a", false));
    }

    #[test]
    fn many_stars_stay_cheap() {
        // A backtracking matcher without the last-star rule would not come back from this.
        let pattern = [b"a*".repeat(5_000), b"b".to_vec()].concat();
        let string = b"a".repeat(10_000);
        assert!(!matches(&pattern, &string, false));
    }

    proptest! {
        #[test]
        fn agrees_with_the_oracle(
            pattern in "[ab*?\\[\\]^\\\\-]{0,9}",
            string in "[abAB\\]-]{0,7}",
            nocase: bool,
        ) {
            let (pattern, string) = (pattern.as_bytes(), string.as_bytes());
            let expected = if string.is_empty() {
                pattern.is_empty()
            } else {
                oracle(&elements(pattern, nocase), string)
            };
            prop_assert_eq!(matches(pattern, string, nocase), expected);
        }

        #[test]
        fn never_panics(pattern: Vec<u8>, string: Vec<u8>, nocase: bool) {
            matches(&pattern, &string, nocase);
        }
    }
}
