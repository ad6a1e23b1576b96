//! Starting from files in a directory of their own.

use super::*;
use ringshard_shards::config::LogLevel;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(files: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ringshard-config-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        let dir = Self(path.canonicalize().unwrap());
        for (name, text) in files {
            let path = dir.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn load_with_stdin(&self, args: &[&str], stdin: &str) -> Result<Startup, StartupError> {
        load(args.iter().map(OsString::from), stdin.as_bytes(), &self.0)
    }

    fn load(&self, args: &[&str]) -> Result<Startup, StartupError> {
        self.load_with_stdin(args, "")
    }

    fn fails(&self, args: &[&str]) -> String {
        let error = self.load(args).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        error.to_string()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn without_words_all_is_default() {
    let dir = Dir::new(&[]);
    let startup = dir.load(&[]).unwrap();
    assert!(!startup.any_arguments && startup.config_file.is_none());
    assert_eq!(startup.config.dir, dir.0.to_str().unwrap());
    assert_eq!(Config { dir: String::new(), ..startup.config }, Config::default());
}

#[test]
fn file_then_standard_input_then_options() {
    let dir = Dir::new(&[("a.conf", "port 1\nhz 11\ntimeout 1\nmaxclients 99")]);
    let startup = dir.load_with_stdin(&["a.conf", "--timeout", "3", "-"], "\nhz 12\ntimeout 2").unwrap();
    let config = &startup.config;
    assert_eq!((config.port, config.hz, config.timeout, config.maxclients), (1, 12, 3, 99));
    assert_eq!(startup.config_file, Some(dir.0.join("a.conf")));
    assert!(startup.any_arguments);
    assert_eq!(dir.load_with_stdin(&["-"], "port 8").unwrap().config.port, 8);
}

#[test]
fn the_examples_of_the_manual() {
    let dir = Dir::new(&[]);
    let startup = dir.load(&["--port", "7777", "--save", "60", "1000", "--appendonly", "no"]).unwrap();
    assert_eq!(startup.config.port, 7777);
    assert_eq!(startup.config.save.len(), 1);
    assert!(startup.warnings.is_empty(), "all of it is built, or off");
    let startup = dir.load(&["--port", "7777", "--activedefrag", "yes"]).unwrap();
    let shown: Vec<&str> = startup.warnings.iter().map(|warning| warning.name.as_str()).collect();
    assert_eq!(shown, ["activedefrag"]);
    let args = ["--shards", "4", "--port", "0", "--unixsocket", "x.sock", "--loglevel", "debug"];
    let startup = dir.load(&args).unwrap();
    assert_eq!(startup.shards(), 4);
    assert_eq!(startup.config.unixsocket.as_deref(), Some("x.sock"));
    assert_eq!(startup.config.loglevel, LogLevel::Debug);
    assert!(startup.warnings.is_empty());
    assert!(dir.load(&["--save", ""]).unwrap().config.save.is_empty());
    assert!(dir.load(&["--save"]).unwrap().config.save.is_empty());
    assert_eq!(dir.load(&["--shards", "0"]).unwrap().shards(), default_shards());
    let threads = |shards, threads| dir.load(&["--shards", shards, "--shard-threads", threads]).unwrap().threads();
    assert_eq!((threads("8", "3"), threads("2", "5"), threads("1", "0")), (3, 2, 1));
    assert_eq!(threads("1024", "0"), (default_shards() as usize).min(1024));
}

#[test]
fn errors_have_the_form_of_redis() {
    let dir = Dir::new(&[("a.conf", "port 1\nhz 10\n")]);
    let head = format!("\n*** FATAL CONFIG FILE ERROR (Ringshard {}) ***\n", env!("CARGO_PKG_VERSION"));
    // The lines of options are counted on from those of the file; without one they begin at 2.
    assert_eq!(
        dir.fails(&["--foo", "bar"]),
        format!(
            "{head}Reading the configuration file, at line 2\n>>> 'foo \"bar\"'\nBad directive or \
             wrong number of arguments"
        )
    );
    assert_eq!(
        dir.fails(&["a.conf", "--port", "x"]),
        format!(
            "{head}Reading the configuration file, at line 4\n>>> 'port \"x\"'\nargument couldn't \
             be parsed into an integer"
        )
    );
    assert_eq!(
        dir.fails(&["gone.conf"]),
        format!(
            "Fatal error, can't open config file '{}': No such file or directory",
            dir.0.join("gone.conf").display()
        )
    );
    assert_eq!(
        dir.fails(&["--include", "gone.conf"]),
        "Fatal error, can't open config file 'gone.conf': No such file or directory"
    );
    assert_eq!(
        dir.fails(&["--logfile", "no/such.log"]),
        format!("{head}Can't open the log file: No such file or directory")
    );
    assert!(dir.fails(&["--dir", "gone"]).ends_with("'dir \"gone\"'\nNo such file or directory"));
    assert!(dir.fails(&["--dir", "a.conf"]).ends_with("Not a directory"));
    assert!(dir.fails(&["/dev/zero"]).ends_with("'/dev/zero': File too large"));
}

#[test]
fn includes_follow_patterns_and_dir() {
    let dir = Dir::new(&[
        ("main.conf", "include conf.d/*.conf\ninclude none.d/*.conf\ndir sub\ninclude in-sub.conf\n"),
        ("conf.d/1.conf", "port 1\nhz 1"),
        ("conf.d/2.conf", "\nport 2\n"),
        ("conf.d/3.other", "port 3\n"),
        ("sub/in-sub.conf", "timeout 5\nlogfile log.txt\n"),
    ]);
    let startup = dir.load(&["main.conf"]).unwrap();
    assert_eq!((startup.config.port, startup.config.hz, startup.config.timeout), (2, 1, 5));
    assert_eq!(startup.config.dir, dir.0.join("sub").to_str().unwrap());
    assert!(dir.0.join("sub/log.txt").exists());
}

#[test]
fn a_directory_is_a_name_and_no_pattern() {
    let dir = Dir::new(&[("a[b]*/x.conf", "include *.inc"), ("a[b]*/y.inc", "port 9")]);
    let inner = dir.0.join("a[b]*");
    let args = ["--include", "*.inc"].map(OsString::from);
    assert_eq!(load(args, io::empty(), &inner).unwrap().config.port, 9);
    // Nor is the file of the command line, which the shell has already found.
    assert_eq!(load(["x.conf".into()], io::empty(), &inner).unwrap().config.port, 9);
}

#[test]
fn paths_become_absolute() {
    for (path, expected) in [
        ("x.conf", "/a/b/x.conf"),
        ("./x.conf", "/a/b/x.conf"),
        ("../x.conf", "/a/x.conf"),
        ("../../../x.conf", "/x.conf"),
        ("c/../x.conf", "/a/b/c/../x.conf"),
        ("/x.conf", "/x.conf"),
    ] {
        assert_eq!(absolute(Path::new("/a/b"), Path::new(path)), Path::new(expected));
    }
}

#[test]
fn the_sample_file_starts_without_a_warning() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/ringshard.conf");
    let dir = Dir::new(&[]);
    let startup = dir.load(&[sample]).unwrap();
    assert!(startup.warnings.is_empty());
    assert_eq!(Config { dir: String::new(), ..startup.config }, Config::default());
}

#[test]
fn a_rewritten_file_takes_the_place_of_the_old_one() {
    let dir = Dir::new(&[("a.conf", "# mine\nport 1\n")]);
    let mut startup = dir.load(&["a.conf"]).unwrap();
    startup.config.port = 2;
    let path = startup.config_file.unwrap();
    rewrite_file(&path, &startup.config, None, false).unwrap();
    assert!(fs::read_to_string(&path).unwrap().starts_with("# mine\nport 2\n"));
    assert_eq!(dir.load(&["a.conf"]).unwrap().config, startup.config);
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1);
    // A file that is gone is written anew; a place that is none is an error that leaves nothing.
    fs::remove_file(&path).unwrap();
    rewrite_file(&path, &startup.config, None, false).unwrap();
    assert!(fs::read_to_string(&path).unwrap().starts_with("# Generated by CONFIG REWRITE\nport 2"));
    assert!(rewrite_file(&dir.0.join("no/such"), &startup.config, None, false).is_err());
    assert!(rewrite_file(&dir.0, &startup.config, None, false).is_err());
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1);
}
