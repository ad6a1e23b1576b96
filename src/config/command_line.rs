//! The command line: `ringshard [redis.conf] [--directive value …] [-]`.
//!
//! Only help and version are options in the usual sense, and only in the first place. All the rest
//! is a configuration file's path, `-` for one on standard input, and directives, which become
//! lines of a file: `--port 7777 --save 60 1000` is `port "7777"` and `save "60" "1000"`. The rules
//! for what belongs to which directive are redis-server's, see [`CommandLine::parse`].

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use clap::Parser;
use ringshard_shards::quote;

/// What clap reads and writes: the words, and the text of `--help`.
#[derive(Parser)]
#[command(
    name = "ringshard",
    about = "A drop-in Redis server with one shard per core",
    disable_version_flag = true,
    override_usage = "ringshard [/path/to/redis.conf] [--directive value ...] [-]\n       \
                      ringshard - (read the configuration from standard input)\n       \
                      ringshard -v or --version\n       \
                      ringshard -h or --help",
    after_help = "Directives are those of redis.conf: `--maxmemory 2gb` is the line `maxmemory \
                  2gb`, after those of the file.\nSee ringshard.conf for all of them.\n\n\
                  Examples:\n  \
                  ringshard (with the default configuration)\n  \
                  echo 'maxmemory 128mb' | ringshard -\n  \
                  ringshard /etc/ringshard.conf\n  \
                  ringshard --port 7777\n  \
                  ringshard --port 7777 --save 60 1000 --appendonly no\n  \
                  ringshard --shards 4 --port 0 --unixsocket x.sock\n  \
                  ringshard /etc/ringshard.conf --loglevel verbose -"
)]
struct Words {
    /// Print the version and leave.
    #[arg(short = 'v', long)]
    version: bool,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    words: Vec<OsString>,
}

/// A command line, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CommandLine {
    /// The configuration file.
    pub config_file: Option<PathBuf>,
    /// Whether standard input holds a configuration too, to be read after the file.
    pub config_from_stdin: bool,
    /// The directives, as lines to be read after both.
    pub options: Vec<u8>,
    /// Whether there was any word at all.
    pub any: bool,
}

/// What the command line asks for.
#[derive(Debug)]
pub(super) enum Asked {
    /// To run.
    Run(CommandLine),
    /// To print the version.
    Version,
    /// To print help, or a complaint about the words.
    Print(Box<clap::Error>),
}

impl CommandLine {
    /// Reads the words after the program's name.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Asked {
        let args: Vec<OsString> = args.into_iter().collect();
        if args.first().is_some_and(|first| first == "--") {
            // Clap would drop it; redis-server takes it for a directive without a name.
            return Asked::Run(Self::from_words(args));
        }
        let program = OsString::from("ringshard");
        match Words::try_parse_from(std::iter::once(program).chain(args)) {
            Err(error) => Asked::Print(Box::new(error)),
            Ok(Words { version: true, .. }) => Asked::Version,
            Ok(Words { words, .. }) => Asked::Run(Self::from_words(words)),
        }
    }

    /// A word that begins with `--` starts a directive if the one before it has an argument, or
    /// had its arguments in the same word (`"--port 7777"`). `--save` may go without, which means
    /// no save points, so that scripts can build the line from an empty list.
    fn from_words(words: Vec<OsString>) -> Self {
        let mut line = Self { any: !words.is_empty(), ..Self::default() };
        let words: Vec<Vec<u8>> = words.into_iter().map(OsStringExt::into_vec).collect();
        let mut first_option = 0;
        if let Some(first) = words.first()
            && !first.starts_with(b"-")
        {
            line.config_file = Some(PathBuf::from(OsString::from_vec(first.clone())));
            first_option = 1;
        }
        let last = words.len().saturating_sub(1);
        let mut directive_complete = true;
        for (at, word) in words.iter().enumerate().skip(first_option) {
            if word == b"-" && (at == 0 || at == last) {
                line.config_from_stdin = true;
            } else if directive_complete && word.starts_with(b"--") {
                if !line.options.is_empty() {
                    line.options.push(b'\n');
                }
                line.options.extend(&word[2..]);
                line.options.push(b' ');
                if quote::split_args(word).is_some_and(|args| args.len() == 1) {
                    directive_complete = false;
                    let next = words.get(at + 1);
                    if word.eq_ignore_ascii_case(b"--save") && next.is_none_or(|next| next.starts_with(b"--")) {
                        line.options.extend(b"\"\"");
                        directive_complete = true;
                    }
                }
            } else {
                quote::repr_into(&mut line.options, word);
                line.options.push(b' ');
                directive_complete = true;
            }
        }
        line
    }
}

/// The line `--version` prints.
pub(super) fn version() -> String {
    let sha = option_env!("RINGSHARD_GIT_SHA").unwrap_or("00000000:0");
    let version = env!("CARGO_PKG_VERSION");
    let bits = usize::BITS;
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let build = fnv1a(&[version, sha, profile, std::env::consts::ARCH]);
    format!("Ringshard server v={version} sha={sha} malloc=jemalloc bits={bits} build={build:x}\n")
}

/// A short fingerprint to tell builds apart by, stable over machines.
fn fnv1a(parts: &[&str]) -> u64 {
    parts
        .join("\n")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    fn parse(words: &[&str]) -> CommandLine {
        match CommandLine::parse(words.iter().map(OsString::from)) {
            Asked::Run(line) => line,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    fn options(words: &[&str]) -> String {
        String::from_utf8(parse(words).options).unwrap()
    }

    #[test]
    fn directives_become_lines() {
        for (words, lines) in [
            (&["--port", "7777"][..], "port \"7777\" "),
            (
                &["--port", "7777", "--save", "60", "1000", "--appendonly", "no"],
                "port \"7777\" \nsave \"60\" \"1000\" \nappendonly \"no\" ",
            ),
            (&["--port 7777", "--hz", "5"], "port 7777 \nhz \"5\" "),
            (&["--save", "--port", "1"], "save \"\"\nport \"1\" "),
            (&["--port", "1", "--save"], "port \"1\" \nsave \"\""),
            (&["--save", "", "--port", "1"], "save \"\" \nport \"1\" "),
            // A value may begin with dashes, when one is due.
            (&["--requirepass", "--secret", "--hz", "5"], "requirepass \"--secret\" \nhz \"5\" "),
            (&["--bind", "::1", "-::2"], "bind \"::1\" \"-::2\" "),
            (&["--list-max-listpack-size", "-2"], "list-max-listpack-size \"-2\" "),
            (&["-x"], "\"-x\" "),
            (&["--requirepass", "a\"b c"], "requirepass \"a\\\"b c\" "),
            (&["--port"], "port "),
            (&["--port", "1", "--version"], "port \"1\" \nversion "),
            (&["--port", "1", "-v", "-h", "--help"], "port \"1\" \"-v\" \"-h\" \nhelp "),
            (&["--", "foo"], " \"foo\" "),
            (&["--port", "1", "--", "-"], "port \"1\" \n "),
            (&[], ""),
        ] {
            assert_eq!(options(words), lines, "{words:?}");
        }
    }

    #[test]
    fn the_file_comes_first_and_standard_input_first_or_last() {
        let line = parse(&["a.conf", "--port", "1", "-"]);
        assert_eq!(line.config_file, Some(PathBuf::from("a.conf")));
        assert!(line.config_from_stdin);
        assert_eq!(line.options, b"port \"1\" ");
        let line = parse(&["-", "--port", "1"]);
        assert!(line.config_from_stdin && line.config_file.is_none());
        let line = parse(&["--unixsocket", "-", "--port", "1"]);
        assert!(!line.config_from_stdin);
        assert_eq!(line.options, b"unixsocket \"-\" \nport \"1\" ");
        assert!(!parse(&[]).any && parse(&["-"]).any);
    }

    #[test]
    fn version_and_help_only_in_the_first_place() {
        for word in ["-v", "--version"] {
            assert!(matches!(CommandLine::parse([word.into()]), Asked::Version));
        }
        for word in ["-h", "--help"] {
            let Asked::Print(help) = CommandLine::parse([word.into()]) else { panic!("{word}") };
            assert_eq!(help.exit_code(), 0);
            assert!(help.to_string().contains("--port 7777 --save 60 1000"), "{help}");
        }
        assert!(version().starts_with("Ringshard server v="));
        assert!(version().contains(" malloc=jemalloc bits=64 build="));
    }

    #[test]
    fn bytes_that_are_no_text_pass() {
        let word = OsString::from_vec(b"\xff\xfe".to_vec());
        let Asked::Run(line) = CommandLine::parse(["--requirepass".into(), word.clone()]) else { panic!() };
        assert_eq!(line.options, br#"requirepass "\xff\xfe" "#);
        let Asked::Run(line) = CommandLine::parse([word.clone()]) else { panic!() };
        assert_eq!(line.config_file.unwrap().as_os_str().as_bytes(), b"\xff\xfe");
    }
}
