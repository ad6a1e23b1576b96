//! The directives with a grammar of their own: `save`, `client-output-buffer-limit`, `bind`,
//! `notify-keyspace-events` and the like.
//!
//! Redis's counterparts are the special configs at the end of its `config.c`.

use super::Mode;
use super::table::{Directive, Kind};
use super::value::{Reason, Rewrite, Value, format_memory, one_of, parse_memory, single, strtoll};
use crate::quote;

/// A snapshot is due after `seconds` if there were at least `changes` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavePoint {
    /// How long since the last snapshot; at least 1.
    pub seconds: u64,
    /// How many writes since then.
    pub changes: u64,
}

impl Value for Vec<SavePoint> {
    fn set(&mut self, args: &[Vec<u8>], _: &Directive, mode: Mode) -> Result<(), Reason> {
        let args = if let [arg] = args
            && arg.is_empty()
        {
            &[]
        } else {
            args
        };
        let invalid = || Reason::from("Invalid save parameters");
        if !args.len().is_multiple_of(2) {
            return Err(invalid());
        }
        let mut points = Vec::with_capacity(args.len() / 2);
        for pair in args.chunks_exact(2) {
            let seconds = strtoll(&pair[0], 10).and_then(|value| u64::try_from(value).ok());
            let changes = strtoll(&pair[1], 10).and_then(|value| u64::try_from(value).ok());
            match (seconds, changes) {
                (Some(seconds @ 1..), Some(changes)) => points.push(SavePoint { seconds, changes }),
                _ => return Err(invalid()),
            }
        }
        // In a file each `save` line adds a point, to none at first rather than to the defaults;
        // an empty one takes back those before it.
        let adds = matches!(mode, Mode::Startup { first_save: false }) && !args.is_empty();
        if adds {
            self.extend(points);
        } else {
            *self = points;
        }
        Ok(())
    }

    fn get(&self, _: &Directive) -> Vec<u8> {
        let points: Vec<String> = self.iter().map(|point| format!("{} {}", point.seconds, point.changes)).collect();
        points.join(" ").into_bytes()
    }

    fn rewrite(&self, _: &Self, directive: &Directive) -> Rewrite {
        // Always written, at its default too: a file with some `save` lines has no others.
        let lines = match self.as_slice() {
            [] => vec![format!("{} \"\"", directive.name).into_bytes()],
            points => points
                .iter()
                .map(|point| format!("{} {} {}", directive.name, point.seconds, point.changes).into_bytes())
                .collect(),
        };
        Rewrite::Lines { lines, force: true }
    }
}

/// The classes of clients that have output limits of their own, as indexes into
/// [`client_output_buffer_limit`](super::Config::client_output_buffer_limit).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum ClientClass {
    /// Ordinary clients.
    Normal = 0,
    /// Replicas.
    Replica = 1,
    /// Clients with a subscription.
    Pubsub = 2,
}

/// When a client that does not read its replies is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimit {
    /// At once, beyond this many bytes; 0 means never.
    pub hard_bytes: u64,
    /// Beyond this many bytes for longer than `soft_seconds`; 0 means never.
    pub soft_bytes: u64,
    /// How long the soft limit may be exceeded.
    pub soft_seconds: u64,
}

/// The limits of the three classes, indexed by [`ClientClass`].
pub type OutputLimits = [OutputLimit; 3];

impl Value for OutputLimits {
    fn set(&mut self, args: &[Vec<u8>], _: &Directive, _: Mode) -> Result<(), Reason> {
        if !args.len().is_multiple_of(4) {
            return Err("Wrong number of arguments in buffer limit configuration.".into());
        }
        let mut limits = *self;
        for quad in args.chunks_exact(4) {
            let class = match quad[0].to_ascii_lowercase().as_slice() {
                b"normal" => ClientClass::Normal,
                b"slave" | b"replica" => ClientClass::Replica,
                b"pubsub" => ClientClass::Pubsub,
                _ => {
                    return Err("Invalid client class specified in buffer limit configuration.".into());
                }
            };
            let soft_seconds = strtoll(&quad[3], 10).and_then(|value| u64::try_from(value).ok());
            let (Some(hard_bytes), Some(soft_bytes), Some(soft_seconds)) =
                (parse_memory(&quad[1]), parse_memory(&quad[2]), soft_seconds)
            else {
                return Err("Error in hard, soft or soft_seconds setting in buffer limit \
                            configuration."
                    .into());
            };
            limits[class as usize] = OutputLimit { hard_bytes, soft_bytes, soft_seconds };
        }
        *self = limits;
        Ok(())
    }

    fn get(&self, _: &Directive) -> Vec<u8> {
        // `CONFIG GET` still says slave where a rewritten file says replica.
        let limits: Vec<String> = ["normal", "slave", "pubsub"]
            .iter()
            .zip(self)
            .map(|(class, limit)| format!("{class} {} {} {}", limit.hard_bytes, limit.soft_bytes, limit.soft_seconds))
            .collect();
        limits.join(" ").into_bytes()
    }

    fn rewrite(&self, default: &Self, directive: &Directive) -> Rewrite {
        let lines = ["normal", "replica", "pubsub"]
            .iter()
            .zip(self.iter().zip(default))
            .map(|(class, (limit, default))| {
                let hard = format_memory(limit.hard_bytes);
                let soft = format_memory(limit.soft_bytes);
                let line = format!("{} {class} {hard} {soft} {}", directive.name, limit.soft_seconds);
                (line.into_bytes(), limit != default)
            })
            .collect();
        Rewrite::Each(lines)
    }
}

/// The kernel's out-of-memory scores of a master, a replica and a background child.
pub type OomScoreAdjValues = [i32; 3];

impl Value for OomScoreAdjValues {
    fn set(&mut self, args: &[Vec<u8>], _: &Directive, _: Mode) -> Result<(), Reason> {
        if args.len() != self.len() {
            return Err("wrong number of arguments".into());
        }
        let mut values = *self;
        for (value, arg) in values.iter_mut().zip(args) {
            *value = match strtoll(arg, 10) {
                Some(score @ -2000..=2000) => score as i32,
                _ => {
                    return Err("Invalid oom-score-adj-values, elements must be between -2000 \
                                and 2000."
                        .into());
                }
            };
        }
        *self = values;
        Ok(())
    }

    fn get(&self, _: &Directive) -> Vec<u8> {
        self.map(|value| value.to_string()).join(" ").into_bytes()
    }
}

impl Value for Vec<String> {
    fn set(&mut self, args: &[Vec<u8>], _: &Directive, _: Mode) -> Result<(), Reason> {
        const ADDRESSES_MAX: usize = 16;
        if args.len() > ADDRESSES_MAX {
            return Err("Too many bind addresses specified.".into());
        }
        let args = if let [arg] = args
            && arg.is_empty()
        {
            &[]
        } else {
            args
        };
        // What no address or host name holds is refused here: a file could not hold it unquoted either.
        let fits = |arg: &&Vec<u8>| {
            !arg.is_empty() && arg.iter().all(|byte| byte.is_ascii_graphic() && !b"\"'\\".contains(byte))
        };
        let text = |arg: &Vec<u8>| Some(arg).filter(fits).and_then(|arg| String::from_utf8(arg.clone()).ok());
        *self = args.iter().map(text).collect::<Option<_>>().ok_or("Invalid bind address")?;
        Ok(())
    }

    fn get(&self, _: &Directive) -> Vec<u8> {
        self.join(" ").into_bytes()
    }

    fn rewrite(&self, default: &Self, directive: &Directive) -> Rewrite {
        if self == default {
            return Rewrite::Remove;
        }
        let addresses = if self.is_empty() { "\"\"".to_owned() } else { self.join(" ") };
        let line = format!("{} {addresses}", directive.name).into_bytes();
        Rewrite::Lines { lines: vec![line], force: true }
    }
}

/// The master that a replica follows: host and port.
impl Value for Option<(String, u16)> {
    fn set(&mut self, args: &[Vec<u8>], _: &Directive, _: Mode) -> Result<(), Reason> {
        let [host, port] = args else {
            return Err("wrong number of arguments".into());
        };
        if host.eq_ignore_ascii_case(b"no") && port.eq_ignore_ascii_case(b"one") {
            *self = None;
            return Ok(());
        }
        let port = strtoll(port, 10).and_then(|port| u16::try_from(port).ok());
        let port = port.ok_or("Invalid master port")?;
        let host = String::from_utf8(host.clone()).map_err(|_| "argument must be valid UTF-8")?;
        *self = Some((host, port));
        Ok(())
    }

    fn get(&self, _: &Directive) -> Vec<u8> {
        match self {
            Some((host, port)) => format!("{host} {port}").into_bytes(),
            None => Vec::new(),
        }
    }

    fn rewrite(&self, _: &Self, directive: &Directive) -> Rewrite {
        match self {
            Some((host, port)) => {
                Rewrite::Lines { lines: vec![format!("{} {host} {port}", directive.name).into_bytes()], force: true }
            }
            None => Rewrite::Remove,
        }
    }
}

/// The percentiles of latency that `INFO` shows.
impl Value for Vec<f64> {
    fn set(&mut self, args: &[Vec<u8>], _: &Directive, _: Mode) -> Result<(), Reason> {
        let args = if let [arg] = args
            && arg.is_empty()
        {
            &[]
        } else {
            args
        };
        let mut percentiles = Vec::with_capacity(args.len());
        for arg in args {
            let percentile = std::str::from_utf8(arg).ok().and_then(|arg| arg.parse::<f64>().ok());
            match percentile.filter(|percentile| !percentile.is_nan()) {
                // Kept as it is shown, so that a rewritten file has the same value; and `-0`, which
                // passes as not less than 0, becomes 0.
                Some(percentile @ 0.0..=100.0) => {
                    let shown = format_percentile(percentile + 0.0);
                    percentiles.push(shown.parse().expect("a formatted number is a number"));
                }
                Some(_) => {
                    return Err("latency-tracking-info-percentiles parameters should sit between \
                                [0.0,100.0]"
                        .into());
                }
                None => return Err("Invalid latency-tracking-info-percentiles parameters".into()),
            }
        }
        *self = percentiles;
        Ok(())
    }

    fn get(&self, _: &Directive) -> Vec<u8> {
        let percentiles: Vec<String> = self.iter().map(|&value| format_percentile(value)).collect();
        percentiles.join(" ").into_bytes()
    }

    fn rewrite(&self, _: &Self, directive: &Directive) -> Rewrite {
        let mut line = format!("{} ", directive.name).into_bytes();
        match self.as_slice() {
            [] => line.extend(b"\"\""),
            _ => line.extend(self.get(directive)),
        }
        Rewrite::Lines { lines: vec![line], force: true }
    }
}

/// A percentile with up to six decimals and no zeros at its end, as `INFO` names it too.
pub fn format_percentile(percentile: f64) -> String {
    let text = format!("{percentile:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The classes of keyspace events that are published, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyspaceEvents(pub u32);

impl KeyspaceEvents {
    /// `K`: publish to the key's channel, `__keyspace@<db>__:<key>`.
    pub const KEYSPACE: u32 = 1 << 0;
    /// `E`: publish to the event's channel, `__keyevent@<db>__:<event>`.
    pub const KEYEVENT: u32 = 1 << 1;
    /// `g`: commands on keys of any type, such as `DEL` and `EXPIRE`.
    pub const GENERIC: u32 = 1 << 2;
    /// `$`: string commands.
    pub const STRING: u32 = 1 << 3;
    /// `l`: list commands.
    pub const LIST: u32 = 1 << 4;
    /// `s`: set commands.
    pub const SET: u32 = 1 << 5;
    /// `h`: hash commands.
    pub const HASH: u32 = 1 << 6;
    /// `z`: sorted-set commands.
    pub const ZSET: u32 = 1 << 7;
    /// `x`: a key expired.
    pub const EXPIRED: u32 = 1 << 8;
    /// `e`: a key was evicted.
    pub const EVICTED: u32 = 1 << 9;
    /// `t`: stream commands.
    pub const STREAM: u32 = 1 << 10;
    /// `m`: a key was asked for and is not there. Not part of `A`.
    pub const KEY_MISS: u32 = 1 << 11;
    /// `d`: events of modules.
    pub const MODULE: u32 = 1 << 13;
    /// `n`: a key came into being. Not part of `A`.
    pub const NEW: u32 = 1 << 14;
    /// `A`: all classes but misses and new keys.
    pub const ALL: u32 = Self::GENERIC
        | Self::STRING
        | Self::LIST
        | Self::SET
        | Self::HASH
        | Self::ZSET
        | Self::EXPIRED
        | Self::EVICTED
        | Self::STREAM
        | Self::MODULE;

    /// Every class with its letter, in the order they are shown in.
    const LETTERS: [(u8, u32); 14] = [
        (b'g', Self::GENERIC),
        (b'$', Self::STRING),
        (b'l', Self::LIST),
        (b's', Self::SET),
        (b'h', Self::HASH),
        (b'z', Self::ZSET),
        (b'x', Self::EXPIRED),
        (b'e', Self::EVICTED),
        (b't', Self::STREAM),
        (b'd', Self::MODULE),
        (b'n', Self::NEW),
        (b'K', Self::KEYSPACE),
        (b'E', Self::KEYEVENT),
        (b'm', Self::KEY_MISS),
    ];

    /// Reads letters such as `KEA`; `None` when one of them means nothing.
    pub fn parse(letters: &[u8]) -> Option<Self> {
        let mut bits = 0;
        for &letter in letters {
            bits |= match letter {
                b'A' => Self::ALL,
                _ => Self::LETTERS.iter().find(|(known, _)| *known == letter)?.1,
            };
        }
        Some(Self(bits))
    }

    /// The letters that [`parse`](Self::parse) reads back to the same bits. Redis drops an `n`
    /// beside an `A` here, and so forgets it in a rewritten file; this keeps it.
    pub fn letters(self) -> String {
        let mut out = String::new();
        let all = self.0 & Self::ALL == Self::ALL;
        if all {
            out.push('A');
        }
        for (letter, bit) in Self::LETTERS {
            if self.0 & bit != 0 && !(all && bit & Self::ALL != 0) {
                out.push(char::from(letter));
            }
        }
        out
    }

    /// Whether any of these classes is published.
    pub fn contains(self, bits: u32) -> bool {
        self.0 & bits != 0
    }
}

impl Value for KeyspaceEvents {
    fn set(&mut self, args: &[Vec<u8>], _: &Directive, _: Mode) -> Result<(), Reason> {
        *self = Self::parse(single(args)?).ok_or("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.")?;
        Ok(())
    }

    fn get(&self, _: &Directive) -> Vec<u8> {
        self.letters().into_bytes()
    }

    fn rewrite(&self, default: &Self, directive: &Directive) -> Rewrite {
        let mut line = format!("{} ", directive.name).into_bytes();
        quote::repr_into(&mut line, self.letters().as_bytes());
        Rewrite::Lines { lines: vec![line], force: self != default }
    }
}

/// What a signal adds to the shutdown it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownFlags {
    /// Save even when no save points are set.
    pub save: bool,
    /// Do not save.
    pub nosave: bool,
    /// Do not wait for replicas.
    pub now: bool,
    /// Stop even if saving fails.
    pub force: bool,
}

impl ShutdownFlags {
    pub(super) const NAMES: &'static [&'static str] = &["default", "save", "nosave", "now", "force"];
}

impl Value for ShutdownFlags {
    fn set(&mut self, args: &[Vec<u8>], _: &Directive, _: Mode) -> Result<(), Reason> {
        let mut flags = Self::default();
        if args.is_empty() {
            return Err(one_of(Self::NAMES));
        }
        for arg in args {
            match arg.to_ascii_lowercase().as_slice() {
                b"default" => {}
                b"save" => flags.save = true,
                b"nosave" => flags.nosave = true,
                b"now" => flags.now = true,
                b"force" => flags.force = true,
                _ => return Err(one_of(Self::NAMES)),
            }
        }
        if flags.save && flags.nosave {
            return Err("shutdown options SAVE and NOSAVE can't be used simultaneously".into());
        }
        *self = flags;
        Ok(())
    }

    fn get(&self, _: &Directive) -> Vec<u8> {
        let set = [false, self.save, self.nosave, self.now, self.force];
        let names: Vec<&str> = Self::NAMES.iter().zip(set).filter(|(_, set)| *set).map(|(name, _)| *name).collect();
        match names.as_slice() {
            [] => b"default".to_vec(),
            names => names.join(" ").into_bytes(),
        }
    }
}

/// Checks for text directives, as the table names them.
pub(super) mod check {
    use std::borrow::Cow;

    type Checked = Result<(), Cow<'static, str>>;

    fn is_base_name(name: &str) -> bool {
        !name.contains(['/', '\\'])
    }

    pub fn any(_: &str) -> Checked {
        Ok(())
    }

    pub fn db_filename(name: &str) -> Checked {
        if !is_base_name(name) {
            return Err("dbfilename can't be a path, just a filename".into());
        }
        Ok(())
    }

    pub fn append_filename(name: &str) -> Checked {
        if name.is_empty() {
            return Err("appendfilename can't be empty".into());
        }
        if !is_base_name(name) {
            return Err("appendfilename can't be a path, just a filename".into());
        }
        Ok(())
    }

    pub fn append_dirname(name: &str) -> Checked {
        if name.is_empty() {
            return Err("appenddirname can't be empty".into());
        }
        if !is_base_name(name) {
            return Err("appenddirname can't be a path, just a dirname".into());
        }
        Ok(())
    }

    pub fn hostname(name: &str) -> Checked {
        const HOSTNAME_BYTES_MAX: usize = 256;
        if name.len() >= HOSTNAME_BYTES_MAX {
            return Err("Hostnames must be less than 256 characters".into());
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.')) {
            return Err("Hostnames may only contain alphanumeric characters, hyphens or dots".into());
        }
        Ok(())
    }

    /// Names that travel in cluster messages and `nodes.conf`, whose separators they must not hold.
    pub fn nodename(name: &str) -> Checked {
        if name.contains(|c: char| "!#$%&()*+:;<>?@[]^{|}~".contains(c)) {
            return Err("Announced human node name contained invalid character".into());
        }
        Ok(())
    }

    /// `{variable}` must be one of the known ones, `{{` is a brace, and something must be left to
    /// show.
    pub fn proc_title_template(template: &str) -> Checked {
        const VARIABLES: [&str; 7] =
            ["title", "listen-addr", "server-mode", "port", "tls-port", "unixsocket", "config-file"];
        const INVALID: Checked = Err(Cow::Borrowed("template format is invalid or contains unknown variables"));
        let mut rest = template;
        while let Some((_, from_brace)) = rest.split_once('{') {
            if let Some(after) = from_brace.strip_prefix('{') {
                rest = after;
                continue;
            }
            match from_brace.split_once('}') {
                Some((variable, after)) if VARIABLES.contains(&variable) => rest = after,
                _ => return INVALID,
            }
        }
        if template.trim_matches(' ').is_empty() {
            return INVALID;
        }
        Ok(())
    }
}

/// What a directive of this kind accepts, in a phrase for the sample file.
pub(super) fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "yes or no".into(),
        Kind::Int { min, max } => match *max {
            max if max >= i128::from(u32::MAX) || max == i128::from(i32::MAX) => match *min {
                min if min <= i128::from(i32::MIN) => "an integer".into(),
                min => format!("an integer, {min} or more"),
            },
            max => format!("an integer from {min} to {max}"),
        },
        Kind::Memory { min: 0, .. } => "bytes, with a unit such as 100mb".into(),
        Kind::Memory { min, .. } => {
            let least = format_memory(*min as u64);
            format!("bytes, with a unit such as 100mb; at least {least}")
        }
        Kind::MemoryOrPercent => "bytes, or a percentage of maxmemory such as 5%".into(),
        Kind::Octal { max } => format!("octal, up to {max:o}"),
        Kind::Enum(names) => names.join(" | "),
        Kind::Text(_) | Kind::Secret | Kind::Dir => "text".into(),
        Kind::Save => "any number of <seconds> <changes>, or \"\" for none".into(),
        Kind::OutputLimits => "<normal|replica|pubsub> <hard> <soft> <soft seconds>".into(),
        Kind::OomScoreAdjValues => "three integers from -2000 to 2000".into(),
        Kind::KeyspaceEvents => "letters out of KEg$lshzxetdnmA".into(),
        Kind::Addresses => "up to 16 addresses, or \"\" for none".into(),
        Kind::ReplicaOf => "<host> <port>, or no one".into(),
        Kind::Percentiles => "any number of percentages, or \"\" for none".into(),
        Kind::ShutdownFlags => "default, or any of save | nosave, now, force".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keyspace_events() {
        assert_eq!(KeyspaceEvents::parse(b"KEA").unwrap().letters(), "AKE");
        assert_eq!(KeyspaceEvents::parse(b"").unwrap(), KeyspaceEvents(0));
        assert_eq!(KeyspaceEvents::parse(b"g$lshzxetd").unwrap().letters(), "A");
        assert_eq!(KeyspaceEvents::parse(b"mnK").unwrap().letters(), "nKm");
        assert_eq!(KeyspaceEvents::parse(b"Kq"), None);
        assert!(KeyspaceEvents::parse(b"A").unwrap().contains(KeyspaceEvents::STREAM));
        assert!(!KeyspaceEvents::parse(b"A").unwrap().contains(KeyspaceEvents::KEY_MISS));
    }

    #[test]
    fn percentiles_are_trimmed() {
        assert_eq!(format_percentile(50.0), "50");
        assert_eq!(format_percentile(99.9), "99.9");
        assert_eq!(format_percentile(0.0), "0");
        assert_eq!(format_percentile(100.0), "100");
        assert_eq!(format_percentile(99.999_999_9), "100");
    }

    #[test]
    fn process_titles() {
        assert!(check::proc_title_template("{title} {listen-addr}").is_ok());
        assert!(check::proc_title_template("plain").is_ok());
        assert!(check::proc_title_template("{{ }").is_ok());
        for bad in ["{nope}", "{title", "a{", "", " "] {
            assert!(check::proc_title_template(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn letters_are_read_back(letters in "[g$lshzxetdKEmA]{0,20}") {
            let events = KeyspaceEvents::parse(letters.as_bytes()).unwrap();
            prop_assert_eq!(KeyspaceEvents::parse(events.letters().as_bytes()), Some(events));
        }

        #[test]
        fn checks_never_panic(text: String) {
            let _ = check::proc_title_template(&text);
            let _ = check::hostname(&text);
            let _ = check::nodename(&text);
        }
    }
}
