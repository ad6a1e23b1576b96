//! Where the configuration comes from: the command line, files and standard input.
//!
//! [`load`] puts together what `ringshard_shards::config` then reads: the file's text, standard
//! input after it, and the command line's directives as further lines after both, so that the last
//! one counts. It is called once, first thing in `main`.
//!
//! The counterpart in Redis is the first half of `main` with `loadServerConfig`.

mod command_line;
mod cores;
mod files;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::{env, fmt, io, process};

use command_line::{Asked, CommandLine};
use files::{Disk, read_bounded, reason};
use ringshard_shards::commands::CommandTable;
use ringshard_shards::config::Config;
use ringshard_shards::config::file::{self, LoadError, Warning};

pub use cores::{allowed_cpus, default_shards};
pub use files::{read_users, rewrite_file, write_users};

/// What the server starts with.
#[derive(Debug)]
pub struct Startup {
    /// The values in force. `dir` is absolute; `shards` is as given, 0 included.
    pub config: Config,
    /// The absolute path of the configuration file, for `INFO` and `CONFIG REWRITE`.
    pub config_file: Option<PathBuf>,
    /// What to log once there is a log.
    pub warnings: Vec<Warning>,
    /// Whether the command line had any word; without one Redis logs that it runs on defaults.
    pub any_arguments: bool,
}

impl Startup {
    /// How many shards to start: `shards`, or one for each core where that is 0.
    pub fn shards(&self) -> u32 {
        match self.config.shards {
            0 => default_shards(),
            shards => shards,
        }
    }

    /// How many threads the shards sit on: `shard-threads`, or as many as there are shards or cores, whichever is less.
    pub fn threads(&self) -> usize {
        let shards = self.shards();
        let threads = match self.config.shard_threads {
            0 => shards.min(default_shards()),
            threads => threads.min(shards),
        };
        threads as usize
    }
}

/// Why the server does not start, which need not be an error.
#[derive(Debug)]
pub enum StartupError {
    /// Help or the version was asked for: the text, for standard output.
    Asked(String),
    /// The words of the command line make no sense: the complaint, for standard error.
    Words(String),
    /// The configuration is wrong.
    Config(LoadError),
    /// Standard input or the working directory cannot be used: the operation and why.
    Io(String),
}

impl StartupError {
    /// The exit status that goes with it.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Asked(_) => 0,
            Self::Words(_) | Self::Config(_) | Self::Io(_) => 1,
        }
    }

    /// Prints it where it belongs and ends the process.
    pub fn exit(self) -> ! {
        match &self {
            Self::Asked(text) => print!("{text}"),
            Self::Words(text) => eprint!("{text}"),
            Self::Config(_) | Self::Io(_) => eprintln!("{self}"),
        }
        process::exit(self.exit_code())
    }
}

impl fmt::Display for StartupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked(text) | Self::Words(text) | Self::Io(text) => f.write_str(text),
            Self::Config(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartupError {}

/// Reads the configuration of this process, and makes `dir` its working directory.
///
/// # Errors
/// Which are for [`StartupError::exit`].
pub fn load_from_env() -> Result<Startup, StartupError> {
    let dir = env::current_dir()
        .map_err(|error| StartupError::Io(format!("cannot find the working directory: {}", reason(&error))))?;
    let mut startup = load(env::args_os().skip(1), io::stdin().lock(), &dir)?;
    let wanted = startup.config.dir.clone();
    enter_dir(&mut startup.config)
        .map_err(|reason| StartupError::Io(format!("cannot enter the directory '{wanted}': {reason}")))?;
    Ok(startup)
}

/// Makes `dir` of `config` the working directory of the process, and absolute: also what `CONFIG
/// SET dir` has to do before the new values are in force.
///
/// # Errors
/// The operating system's words, which are the reason in Redis's reply.
pub fn enter_dir(config: &mut Config) -> Result<(), String> {
    let entered = env::set_current_dir(&config.dir).and_then(|()| env::current_dir());
    let dir = entered.map_err(|error| reason(&error))?;
    config.dir = dir.to_string_lossy().into_owned();
    Ok(())
}

/// Reads the configuration that `args`, the words after the program's name, ask for; relative paths
/// start at `dir`, which is absolute.
///
/// # Errors
/// Help and version count as such too: nothing is to be started then.
pub fn load(args: impl IntoIterator<Item = OsString>, stdin: impl Read, dir: &Path) -> Result<Startup, StartupError> {
    let line = match CommandLine::parse(args) {
        Asked::Run(line) => line,
        Asked::Version => return Err(StartupError::Asked(command_line::version())),
        Asked::Print(error) if error.exit_code() == 0 => {
            return Err(StartupError::Asked(error.to_string()));
        }
        Asked::Print(error) => return Err(StartupError::Words(error.to_string())),
    };
    let mut disk = Disk { dir: dir.to_owned() };
    let config_file = line.config_file.as_deref().map(|path| absolute(dir, path));
    let mut text = Vec::new();
    if let Some(path) = &config_file {
        let shown = path.as_os_str().as_encoded_bytes();
        let read = disk.read(path, shown);
        text = read.map_err(|message| StartupError::Config(LoadError::Open(message)))?;
    }
    if line.config_from_stdin {
        read_bounded(stdin, &mut text)
            .map_err(|error| StartupError::Io(format!("cannot read the standard input: {}", reason(&error))))?;
    }
    if line.any {
        // Redis counts the directives' lines on from here, also where there is no file.
        text.push(b'\n');
        text.extend(&line.options);
    }
    let mut config = Config::default();
    let warnings = file::load(&mut config, &text, &mut disk).map_err(StartupError::Config)?;
    ringshard_shards::acl::file::check_lines(&config).map_err(StartupError::Config)?;
    CommandTable::renamed(&config.rename_command).map_err(StartupError::Config)?;
    check_logfile(&config, &disk)?;
    config.dir = disk.dir.to_string_lossy().into_owned();
    Ok(Startup { config, config_file, warnings, any_arguments: line.any })
}

/// `path` from the root, without the `.` and `..` at its beginning that a shell's user types.
fn absolute(dir: &Path, path: &Path) -> PathBuf {
    let mut out = dir.to_owned();
    let mut at_start = true;
    for component in path.components() {
        match component {
            std::path::Component::ParentDir if at_start => {
                out.pop();
            }
            std::path::Component::CurDir => {}
            // An absolute path replaces all of `dir`. Behind a name `..` stays: the name may be a
            // link.
            other => {
                at_start = false;
                out.push(other);
            }
        }
    }
    out
}

/// A log that cannot be written is better noticed now than when the first message is lost.
fn check_logfile(config: &Config, disk: &Disk) -> Result<(), StartupError> {
    if config.logfile.is_empty() {
        return Ok(());
    }
    let path = disk.dir.join(&config.logfile);
    match OpenOptions::new().append(true).create(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) => {
            let reason = format!("Can't open the log file: {}", reason(&error)).into();
            Err(StartupError::Config(LoadError::Whole { reason }))
        }
    }
}

#[cfg(test)]
mod tests;
