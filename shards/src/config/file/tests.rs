//! Configuration texts, with files that are strings.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

/// A file system without files, in which every directory exists.
pub(crate) struct NoFiles;

impl Files for NoFiles {
    fn include(&mut self, pattern: &[u8]) -> Result<Vec<u8>, String> {
        Err(format!("no file {}", String::from_utf8_lossy(pattern)))
    }

    fn change_dir(&mut self, dir: &str) -> Result<String, String> {
        Ok(dir.to_owned())
    }
}

struct Texts(HashMap<&'static str, &'static str>);

impl Files for Texts {
    fn include(&mut self, pattern: &[u8]) -> Result<Vec<u8>, String> {
        let name = std::str::from_utf8(pattern).unwrap();
        self.0.get(name).map(|text| text.as_bytes().to_vec()).ok_or(format!("no file {name}"))
    }

    fn change_dir(&mut self, dir: &str) -> Result<String, String> {
        if dir == "gone" { Err("No such file or directory".into()) } else { Ok(format!("/{dir}")) }
    }
}

fn load_text(text: &str) -> Result<(Config, Vec<Warning>), LoadError> {
    let files = [
        ("a.conf", "port 1\ninclude b.conf\nsave 5 5\n"),
        ("b.conf", "timeout 9\n"),
        ("bad.conf", "# fine\n  port x\t\n"),
        ("self.conf", "include self.conf\n"),
        ("twice.conf", "include twice.conf\ninclude twice.conf\n"),
    ];
    let mut config = Config::default();
    let warnings = load(&mut config, text.as_bytes(), &mut Texts(files.into()))?;
    Ok((config, warnings))
}

fn config(text: &str) -> Config {
    load_text(text).unwrap().0
}

#[test]
fn lines_are_read_in_order() {
    let config = config("# hello\r\n\n  PORT 7000 \r\nport \"7001\"\nmaxmemory 100mb\nsave \"\"\n");
    assert_eq!(config.port, 7001);
    assert_eq!(config.maxmemory, 100 << 20);
    assert!(config.save.is_empty());
}

#[test]
fn save_lines_add_up_after_the_first() {
    let points = |text| config(text).save.iter().map(|p| (p.seconds, p.changes)).collect::<Vec<_>>();
    assert_eq!(points("save 900 1\nsave 300 10 60 1000"), [(900, 1), (300, 10), (60, 1000)]);
    assert_eq!(points("save \"900 1\""), [(900, 1)]);
    assert_eq!(points("save 900 1\nsave \"\""), []);
    assert_eq!(points("save \"\"\nsave 300 10"), [(300, 10)]);
    assert_eq!(points("save 1 1\ninclude a.conf\nsave 2 2"), [(1, 1), (5, 5), (2, 2)]);
    assert_eq!(points("port 1").len(), 3);
}

#[test]
fn included_files_stand_in_their_place() {
    let config = config("port 5\ninclude a.conf\ntimeout 10\n");
    assert_eq!((config.port, config.timeout), (1, 10));
}

#[test]
fn what_only_a_file_holds_is_kept() {
    let (config, warnings) =
        load_text("rename-command CONFIG \"\"\nuser bob on >x\nloadmodule /m.so a\nm.x 1\n").unwrap();
    assert_eq!(config.rename_command[0].args, [b"CONFIG".to_vec(), b"".to_vec()]);
    assert_eq!(config.user[0].args.len(), 3);
    assert_eq!(config.loadmodule[0].line_number, 3);
    let names: Vec<&str> = warnings.iter().map(|warning| warning.name.as_str()).collect();
    assert_eq!(names, ["loadmodule", "m.x"]);
    let error = config.rename_command[0].error("No such command in rename-command").to_string();
    assert!(error.ends_with("at line 1\n>>> 'rename-command CONFIG \"\"'\nNo such command in rename-command"));
}

#[test]
fn wrong_lines_stop_with_their_number_and_reason() {
    for (line, reason) in [
        ("foo bar", "Bad directive or wrong number of arguments"),
        ("include", "Bad directive or wrong number of arguments"),
        ("include a b", "Bad directive or wrong number of arguments"),
        ("rename-command a", "Bad directive or wrong number of arguments"),
        ("user", "Bad directive or wrong number of arguments"),
        ("\"\"", "Bad directive or wrong number of arguments"),
        ("port \"1", "Unbalanced quotes in configuration line"),
        ("save \"'1 2\"", "Unbalanced quotes in configuration line"),
        ("port", "wrong number of arguments"),
        ("port 1 2", "wrong number of arguments"),
        ("port x", "argument couldn't be parsed into an integer"),
        ("port -1", "argument must be between 0 and 65535 inclusive"),
        ("unixsocketperm 9", "argument couldn't be parsed as an octal number"),
        ("unixsocketperm 1000", "argument must be between 0 and 777 inclusive"),
        ("maxmemory x", "argument must be a memory value"),
        ("appendonly maybe", "argument must be 'yes' or 'no'"),
        (
            "loglevel loud",
            "argument(s) must be one of the following: debug, verbose, notice, \
                           warning, nothing",
        ),
        ("save 1", "Invalid save parameters"),
        ("dir gone", "No such file or directory"),
        ("replicaof a", "wrong number of arguments"),
        ("replicaof a 70000", "Invalid master port"),
        ("appendfilename \"\"", "appendfilename can't be empty"),
        ("appenddirname a/b", "appenddirname can't be a path, just a dirname"),
        ("sentinel monitor", "sentinel directive while not in sentinel mode"),
        ("a.b", "Module config specified without value"),
    ] {
        let error = load_text(&format!("# one\n\n  {line} \r\n")).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "\n*** FATAL CONFIG FILE ERROR (Ringshard {}) ***\nReading the configuration \
                 file, at line 3\n>>> '{line}'\n{reason}",
                env!("CARGO_PKG_VERSION")
            )
        );
    }
}

#[test]
fn an_included_file_names_its_own_line() {
    let error = load_text("port 1\ninclude bad.conf").unwrap_err();
    assert!(matches!(error, LoadError::Line { line_number: 2, ref line, .. } if line == b"port x"));
    assert_eq!(load_text("include gone").unwrap_err().to_string(), "no file gone");
}

#[test]
fn files_that_include_themselves_end() {
    for text in ["include self.conf", "include twice.conf"] {
        let error = load_text(text).unwrap_err().to_string();
        assert!(error.ends_with("Too many nested include directives"), "{error}");
    }
}

#[test]
fn a_cluster_node_has_one_database_and_no_replicaof() {
    let error = load_text("cluster-enabled yes\nreplicaof h 1").unwrap_err().to_string();
    assert!(error.ends_with("***\nreplicaof directive not allowed in cluster mode"), "{error}");
    let (config, warnings) = load_text("cluster-enabled yes").unwrap();
    assert_eq!(config.databases, 1);
    assert!(warnings.iter().any(|warning| warning.name == "databases"));
}

#[test]
fn hz_is_brought_into_range() {
    assert_eq!(config("hz 0").hz, 1);
    assert_eq!(config("hz 100000").hz, 500);
}

#[test]
fn what_is_not_built_is_accepted_with_a_warning() {
    let (config, warnings) = load_text("replica-priority 7\nreplica-priority 7\ntls-port 0\n").unwrap();
    assert_eq!(config.replica_priority, 7);
    let shown: Vec<String> = warnings.iter().map(Warning::to_string).collect();
    assert_eq!(
        shown,
        ["WARNING: configuration directive 'replica-priority' at line 1: what it governs is not built \
          yet: it is kept and has no effect"]
    );
    assert_eq!(load_text("lua-replicate-commands yes").unwrap().1[0].name, "lua-replicate-commands");
    assert!(load_text("port 1\nmaxmemory 1gb\nmaxmemory-policy allkeys-lru").unwrap().1.is_empty());
}

proptest! {
    #[test]
    fn random_bytes_never_panic(text: Vec<u8>) {
        let _ = load(&mut Config::default(), &text, &mut NoFiles);
    }

    #[test]
    fn random_arguments_never_panic(
        row in prop::sample::select(crate::config::DIRECTIVES.iter().collect::<Vec<_>>()),
        rest in "[ \"'\\\\x0-9a-z%.*-]{0,20}",
    ) {
        let text = format!("{} {rest}\n", row.name);
        let _ = load(&mut Config::default(), text.as_bytes(), &mut NoFiles);
    }
}
