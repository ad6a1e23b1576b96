//! The configuration file's text: directives a line, and what only a file may hold (`include`,
//! `rename-command`, `user`, `loadmodule`).
//!
//! The command line comes here too: the driver turns `--port 7777` into the line `port "7777"` and
//! appends it to the file's text, as Redis does, so that options override the file and an error
//! names a line in either case. Opening files is the driver's, through [`Files`].
//!
//! Redis's counterpart is `loadServerConfigFromString`.

use std::fmt;

use super::Mode;
use super::table::{Built, Config, Directive, Kind, flag};
use super::value::Reason;
use crate::quote;

/// How deep files may include files. Redis knows no bound and overruns its stack.
const INCLUDE_DEPTH_MAX: usize = 16;
/// How many files one start may include in all, so that files including each other twice end too.
const INCLUDES_MAX: usize = 1000;

/// What loading needs of the file system.
pub trait Files {
    /// The content of the files a pattern names, one after the other: none where a pattern with
    /// `*`, `?` or `[` matches nothing. A relative path starts at the last `dir`.
    ///
    /// # Errors
    /// The message to stop with when a file cannot be read.
    fn include(&mut self, pattern: &[u8]) -> Result<Vec<u8>, String>;

    /// Makes `dir` the directory relative paths start from; returns its absolute path.
    ///
    /// # Errors
    /// The operating system's words for why that is not possible.
    fn change_dir(&mut self, dir: &str) -> Result<String, String>;
}

/// A line that is not a row of the table, for the part of the server that understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDirective {
    /// The arguments after the directive's name.
    pub args: Vec<Vec<u8>>,
    /// Which line of its file it stood in, from 1.
    pub line_number: usize,
    /// That line.
    pub line: Vec<u8>,
}

impl FileDirective {
    /// The error that stops the start because of this line.
    pub fn error(&self, reason: impl Into<Reason>) -> LoadError {
        LoadError::Line { line_number: self.line_number, line: self.line.clone(), reason: reason.into() }
    }
}

/// Something accepted that will not do what its author expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The line it stood in, from 1; 0 for what no single line caused.
    pub line_number: usize,
    /// The directive.
    pub name: String,
    /// What will not happen.
    pub reason: Reason,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WARNING: configuration directive '{}'", self.name)?;
        if self.line_number != 0 {
            write!(f, " at line {}", self.line_number)?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Why the server cannot start with this configuration. `Display` is what goes to standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// A line is wrong.
    Line {
        /// Which one, from 1.
        line_number: usize,
        /// The line, trimmed.
        line: Vec<u8>,
        /// What is wrong with it.
        reason: Reason,
    },
    /// The lines do not go together.
    Whole {
        /// Which ones, and why.
        reason: Reason,
    },
    /// A file cannot be read: the message for the log.
    Open(String),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = env!("CARGO_PKG_VERSION");
        match self {
            Self::Open(message) => return f.write_str(message),
            Self::Line { .. } | Self::Whole { .. } => {
                writeln!(f, "\n*** FATAL CONFIG FILE ERROR (Ringshard {version}) ***")?;
            }
        }
        if let Self::Line { line_number, line, .. } = self {
            writeln!(f, "Reading the configuration file, at line {line_number}")?;
            writeln!(f, ">>> '{}'", String::from_utf8_lossy(line))?;
        }
        match self {
            Self::Line { reason, .. } | Self::Whole { reason } => f.write_str(reason),
            Self::Open(_) => Ok(()),
        }
    }
}

impl std::error::Error for LoadError {}

/// Reads `text` into `config`, line by line, later lines overriding earlier ones.
///
/// # Errors
/// At the first line that is wrong; `config` then holds the lines before it.
pub fn load(config: &mut Config, text: &[u8], files: &mut dyn Files) -> Result<Vec<Warning>, LoadError> {
    let mut loader = Loader { config, files, warnings: Vec::new(), saves: 0, includes: 0 };
    loader.lines(text, 0)?;
    loader.check_whole()?;
    Ok(loader.warnings)
}

struct Loader<'a> {
    config: &'a mut Config,
    files: &'a mut dyn Files,
    warnings: Vec<Warning>,
    /// `save` lines so far, over all files: the first one replaces the default.
    saves: usize,
    includes: usize,
}

impl Loader<'_> {
    fn lines(&mut self, text: &[u8], depth: usize) -> Result<(), LoadError> {
        for (at, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let line = trim(line);
            if line.is_empty() || line[0] == b'#' {
                continue;
            }
            match self.line(at + 1, line, depth) {
                Ok(()) => {}
                Err(Failure::Reason(reason)) => {
                    return Err(LoadError::Line { line_number: at + 1, line: line.to_vec(), reason });
                }
                Err(Failure::Elsewhere(error)) => return Err(error),
            }
        }
        Ok(())
    }

    fn line(&mut self, line_number: usize, line: &[u8], depth: usize) -> Result<(), Failure> {
        let mut args = quote::split_args(line).ok_or("Unbalanced quotes in configuration line")?;
        if args.is_empty() {
            return Ok(());
        }
        let name = args.remove(0).to_ascii_lowercase();
        if let Some(directive) = Directive::find(&name) {
            return Ok(self.directive(directive, line_number, args)?);
        }
        let other = || FileDirective { args: args.clone(), line_number, line: line.to_vec() };
        match (name.as_slice(), args.len()) {
            // Directives that have lost their meaning; Redis drops them in silence.
            (b"list-max-ziplist-entries" | b"list-max-ziplist-value" | b"lua-replicate-commands", 1) => {
                self.warn(line_number, &name, "it is obsolete and has no effect");
            }
            (b"include", 1) => return self.include(&args[0], depth),
            (b"rename-command", 2) => self.config.rename_command.push(other()),
            (b"user", 1..) => self.config.user.push(other()),
            (b"loadmodule", 1..) => {
                self.config.loadmodule.push(other());
                self.warn(line_number, &name, "modules are not built: nothing is loaded");
            }
            (name, 0) if name.contains(&b'.') => {
                return Err("Module config specified without value".into());
            }
            (name, _) if name.contains(&b'.') => {
                self.warn(line_number, name, "modules are not built: it has no effect");
            }
            (b"sentinel", 0) => return Err("Sentinel mode is not built".into()),
            (b"sentinel", _) => return Err("sentinel directive while not in sentinel mode".into()),
            _ => return Err("Bad directive or wrong number of arguments".into()),
        }
        Ok(())
    }

    fn directive(
        &mut self,
        directive: &'static Directive,
        line_number: usize,
        mut args: Vec<Vec<u8>>,
    ) -> Result<(), Reason> {
        if !directive.has(flag::MULTI_ARG) {
            if args.len() != 1 {
                return Err("wrong number of arguments".into());
            }
        } else if let [arg] = args.as_slice()
            && !arg.is_empty()
        {
            // `save "900 1"` means the same as `save 900 1`.
            args = quote::split_args(arg).ok_or("Unbalanced quotes in configuration line")?;
        }
        if let Kind::Dir = directive.kind {
            let dir = String::from_utf8_lossy(&args[0]);
            args[0] = self.files.change_dir(&dir)?.into_bytes();
        }
        if let Kind::Save = directive.kind {
            self.saves += 1;
        }
        let mode = Mode::Startup { first_save: self.saves == 1 };
        self.config.set(directive, &args, mode)?;
        // What is switched off is not missed.
        let off = matches!(self.config.value_of(directive).as_slice(), b"" | b"0" | b"no");
        if directive.built == Built::NotYet && !off {
            let reason = "what it governs is not built yet: it is kept and has no effect";
            self.warn(line_number, directive.name.as_bytes(), reason);
        }
        Ok(())
    }

    fn include(&mut self, pattern: &[u8], depth: usize) -> Result<(), Failure> {
        self.includes += 1;
        if depth >= INCLUDE_DEPTH_MAX || self.includes > INCLUDES_MAX {
            return Err("Too many nested include directives".into());
        }
        let text = self.files.include(pattern).map_err(|message| Failure::Elsewhere(LoadError::Open(message)))?;
        self.lines(&text, depth + 1).map_err(Failure::Elsewhere)
    }

    /// Notes a warning, once for each directive.
    fn warn(&mut self, line_number: usize, name: &[u8], reason: &'static str) {
        let name = String::from_utf8_lossy(name).into_owned();
        if !self.warnings.iter().any(|warning| warning.name == name) {
            self.warnings.push(Warning { line_number, name, reason: reason.into() });
        }
    }

    /// What only the whole of the lines can break.
    fn check_whole(&mut self) -> Result<(), LoadError> {
        if !self.config.cluster_enabled {
            return Ok(());
        }
        if self.config.replicaof.is_some() {
            let reason = "replicaof directive not allowed in cluster mode".into();
            return Err(LoadError::Whole { reason });
        }
        if self.config.databases > 1 {
            self.config.databases = 1;
            self.warn(0, b"databases", "a node of a cluster has one database: it is set to 1");
        }
        Ok(())
    }
}

/// How a line failed: by itself, or in a file it includes.
enum Failure {
    Reason(Reason),
    Elsewhere(LoadError),
}

impl From<&'static str> for Failure {
    fn from(reason: &'static str) -> Self {
        Self::Reason(reason.into())
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason)
    }
}

/// A line without the blanks around it.
pub(crate) fn trim(line: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let start = line.iter().position(|byte| !blank(byte)).unwrap_or(line.len());
    let end = line.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    &line[start..end]
}

#[cfg(test)]
pub(crate) mod tests;
