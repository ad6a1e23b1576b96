//! The configuration: one table of directives, and the values in force.
//!
//! [`DIRECTIVES`] has a row for each directive of Redis 7.2 and 7.4 and for Ringshard's own; the
//! same rows make up the fields of [`Config`]. Everything else here walks the table: the file and
//! command-line parser ([`file`]), `CONFIG GET` ([`Config::get`]), `CONFIG SET`
//! ([`Config::set_pairs`]), `CONFIG REWRITE` ([`rewrite::rewrite`]) and the sample file
//! ([`sample`]). To add a directive, add its row; nothing else needs to know.
//!
//! Nothing here reads a file or applies a value: `CONFIG SET` answers which values changed, and the
//! caller does what follows from that (evict, rebind, raise limits), on a copy that it only then
//! puts in force. The counterpart in Redis is `config.c`.

mod enums;
pub mod file;
pub mod rewrite;
pub mod sample;
mod special;
mod table;
mod value;

use std::borrow::Cow;
use std::fmt;

pub use enums::*;
pub use special::{
    ClientClass, KeyspaceEvents, OomScoreAdjValues, OutputLimit, OutputLimits, SavePoint, ShutdownFlags,
    format_percentile,
};
pub use table::{Built, Config, DIRECTIVES, Directive, Kind, flag};
pub use value::{MemoryOrPercent, Reason, format_memory, parse_integer, parse_memory};

use crate::glob;

/// When a value is set: some directives read differently, and all may be set, at startup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// From the file or the command line.
    Startup {
        /// Whether this is the first `save` line, which replaces the default save points.
        first_save: bool,
    },
    /// By `CONFIG SET`.
    Runtime,
}

/// Who sends `CONFIG SET`, and when.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetContext {
    /// The data set is being loaded.
    pub loading: bool,
    /// The client connected from this machine.
    pub client_is_local: bool,
}

/// Why `CONFIG SET` was refused. `Display` gives the reply without its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetError {
    /// Names and values do not pair up.
    Syntax,
    /// The data set is being loaded and the directive must wait for that.
    Loading,
    /// No such directive.
    Unknown(Vec<u8>),
    /// The directive refused the value, or cannot be set.
    Failed {
        /// The directive as the client or the table names it.
        name: String,
        /// What is wrong.
        reason: Reason,
    },
}

impl SetError {
    /// The error for a value that is fine in itself but could not be put in force.
    pub fn apply(directive: &Directive, reason: impl Into<Reason>) -> Self {
        Self::Failed { name: directive.name.to_owned(), reason: reason.into() }
    }

    /// The first word of the error reply.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Loading => "LOADING",
            _ => "ERR",
        }
    }
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax => f.write_str("syntax error"),
            Self::Loading => f.write_str("Redis is loading the dataset in memory"),
            Self::Unknown(name) => {
                write!(f, "Unknown option or number of arguments for CONFIG SET - '{}'", String::from_utf8_lossy(name))
            }
            Self::Failed { name, reason } => {
                write!(f, "CONFIG SET failed (possibly related to argument '{name}') - {reason}")
            }
        }
    }
}

impl std::error::Error for SetError {}

impl Config {
    /// Sets several directives as `CONFIG SET` does: all of them, or none when one is refused.
    ///
    /// `args` are names and values by turns; a directive of several arguments has them in one value,
    /// a single blank between two. Returns the directives whose value is now another one, and
    /// those that must be applied even so because they name files whose content may have changed.
    ///
    /// # Errors
    /// With Redis's texts; the configuration is then as before.
    pub fn set_pairs<A: AsRef<[u8]>>(
        &mut self,
        args: &[A],
        context: SetContext,
    ) -> Result<Vec<&'static Directive>, SetError> {
        if args.is_empty() || !args.len().is_multiple_of(2) {
            return Err(SetError::Syntax);
        }
        let mut pairs: Vec<(&'static Directive, &'static str, &[u8])> = Vec::with_capacity(args.len() / 2);
        for pair in args.chunks_exact(2) {
            let (name, value) = (pair[0].as_ref(), pair[1].as_ref());
            let (directive, spelled) = Directive::find_spelled(name).ok_or_else(|| SetError::Unknown(name.to_vec()))?;
            let refused = |reason: &'static str| SetError::Failed {
                name: String::from_utf8_lossy(name).into_owned(),
                reason: Cow::Borrowed(reason),
            };
            if directive.has(flag::OWN) && self.holds(directive, value) {
                continue;
            }
            if directive.has(flag::IMMUTABLE) {
                return Err(refused("can't set immutable config"));
            }
            let protected = directive.has(flag::PROTECTED);
            if protected && !self.enable_protected_configs.allows(context.client_is_local) {
                return Err(refused("can't set protected config"));
            }
            if context.loading && directive.has(flag::DENY_LOADING) {
                return Err(SetError::Loading);
            }
            if pairs.iter().any(|(earlier, ..)| earlier.name == directive.name) {
                return Err(refused("duplicate parameter"));
            }
            pairs.push((directive, spelled, value));
        }
        let mut next = self.clone();
        let mut changed = Vec::new();
        for (directive, spelled, value) in pairs {
            let args: Vec<Vec<u8>> = if !directive.has(flag::MULTI_ARG) {
                vec![value.to_vec()]
            } else if value.is_empty() {
                Vec::new()
            } else {
                value.split(|&byte| byte == b' ').map(<[u8]>::to_vec).collect()
            };
            match (directive.set)(&mut next, directive, &args, Mode::Runtime) {
                Ok(true) => changed.push(directive),
                Ok(false) => {}
                Err(reason) => {
                    return Err(SetError::Failed { name: spelled.to_owned(), reason });
                }
            }
        }
        next.settle();
        *self = next;
        Ok(changed)
    }

    /// Whether setting a directive of one argument to `value` would change nothing.
    fn holds(&self, directive: &Directive, value: &[u8]) -> bool {
        (directive.set)(&mut self.clone(), directive, &[value.to_vec()], Mode::Runtime) == Ok(false)
    }

    /// Sets one directive from `args`, one element an argument.
    ///
    /// # Errors
    /// With Redis's reason alone: the caller knows whether a file or a command asked.
    pub fn set(&mut self, directive: &Directive, args: &[Vec<u8>], mode: Mode) -> Result<bool, Reason> {
        let changed = (directive.set)(self, directive, args, mode)?;
        self.settle();
        Ok(changed)
    }

    /// The directives that `CONFIG GET` with these patterns shows, and their values.
    ///
    /// A name without `*`, `?` or `[` finds its directive, hidden ones too, and is answered as it
    /// was spelled; patterns find names and aliases in either case. Nothing is shown twice.
    /// Redis shows them in the order of a randomly seeded table, this in that of [`DIRECTIVES`].
    pub fn get<P: AsRef<[u8]>>(&self, patterns: &[P]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut show = |name: &[u8], directive: &Directive| {
            if !found.iter().any(|(shown, _)| shown.eq_ignore_ascii_case(name)) {
                found.push((name.to_vec(), self.value_of(directive)));
            }
        };
        for pattern in patterns {
            let pattern = pattern.as_ref();
            if !glob::is_pattern(pattern) {
                if let Some(directive) = Directive::find(pattern) {
                    show(pattern, directive);
                }
                continue;
            }
            for directive in DIRECTIVES.iter().filter(|row| !row.has(flag::HIDDEN)) {
                for name in directive.names() {
                    if glob::matches(pattern, name.as_bytes(), true) {
                        show(name.as_bytes(), directive);
                    }
                }
            }
        }
        found
    }

    /// One directive's value as `CONFIG GET` shows it.
    pub fn value_of(&self, directive: &Directive) -> Vec<u8> {
        (directive.get)(self, directive)
    }

    /// Brings values that are only a wish into the range that works.
    pub(crate) fn settle(&mut self) {
        const HZ_MAX: u32 = 500;
        self.hz = self.hz.clamp(1, HZ_MAX);
    }
}

#[cfg(test)]
mod tests;
