//! `CONFIG GET` and `CONFIG SET` against Redis's texts.

use super::*;
use proptest::prelude::*;

const LOCAL: SetContext = SetContext { loading: false, client_is_local: true };

/// `CONFIG SET` with these words; the reply's text when it is an error.
fn set(config: &mut Config, args: &[&str]) -> Result<Vec<&'static str>, String> {
    match config.set_pairs(args, LOCAL) {
        Ok(changed) => Ok(changed.into_iter().map(|directive| directive.name).collect()),
        Err(error) => Err(error.to_string()),
    }
}

fn get(config: &Config, name: &str) -> String {
    let shown = config.get(&[name]);
    assert_eq!(shown.len(), 1, "{name}");
    String::from_utf8(shown[0].1.clone()).unwrap()
}

#[test]
fn refused_values_say_what_redis_says() {
    for (args, reason) in [
        (["maxmemory", "foo"], "argument must be a memory value"),
        (["maxmemory", "-1"], "argument must be a memory value"),
        (["databases", "3"], "can't set immutable config"),
        (["enable-debug-command", "yes"], "can't set immutable config"),
        (["dir", "/tmp"], "can't set protected config"),
        (["save", "1 2 3"], "Invalid save parameters"),
        (["save", "0 1"], "Invalid save parameters"),
        (["save", "900  1"], "Invalid save parameters"),
        (["appendfsync", "foo"], "argument(s) must be one of the following: everysec, always, no"),
        (["slave-read-only", "x"], "argument must be 'yes' or 'no'"),
        (["bind", "a b c d e f g h i j k l m n o p q"], "Too many bind addresses specified."),
        (["client-output-buffer-limit", "foo 1 2 3"], "Invalid client class specified in buffer limit configuration."),
        (
            ["client-output-buffer-limit", "master 1 2 3"],
            "Invalid client class specified in buffer limit configuration.",
        ),
        (["client-output-buffer-limit", "normal 1 2"], "Wrong number of arguments in buffer limit configuration."),
        (
            ["client-output-buffer-limit", "normal 1 2 x"],
            "Error in hard, soft or soft_seconds setting in buffer limit configuration.",
        ),
        (["maxmemory-clients", "101%"], "percentage argument must be less or equal to 100"),
        (["maxmemory-clients", "x"], "argument must be a memory or percent value"),
        (["notify-keyspace-events", "q"], "Invalid event class character. Use 'Ag$lshzxeKEtmdn'."),
        (["lfu-log-factor", " 1"], "argument couldn't be parsed into an integer"),
        (["port", "65536"], "argument must be between 0 and 65535 inclusive"),
        (["maxclients", "0"], "argument must be between 1 and 4294967295 inclusive"),
        (["proto-max-bulk-len", "1kb"], "argument must be between 1048576 and 9223372036854775807 inclusive"),
        (["slowlog-log-slower-than", "-2"], "argument must be between -1 and 9223372036854775807 inclusive"),
        (["list-max-listpack-size", "2147483648"], "argument must be between -2147483648 and 2147483647 inclusive"),
        (["oom-score-adj-values", "1 2"], "wrong number of arguments"),
        (
            ["oom-score-adj-values", "1 2 2001"],
            "Invalid oom-score-adj-values, elements must be between -2000 and 2000.",
        ),
        (["latency-tracking-info-percentiles", "a"], "Invalid latency-tracking-info-percentiles parameters"),
        (
            ["latency-tracking-info-percentiles", "50 101"],
            "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]",
        ),
        (["shutdown-on-sigterm", "save nosave"], "shutdown options SAVE and NOSAVE can't be used simultaneously"),
        (["shutdown-on-sigterm", ""], "argument(s) must be one of the following: default, save, nosave, now, force"),
        (["oom-score-adj", "x"], "argument(s) must be one of the following: no, yes, relative, absolute"),
        (["cluster-announce-hostname", "a_b"], "Hostnames may only contain alphanumeric characters, hyphens or dots"),
        (["proc-title-template", "{x}"], "template format is invalid or contains unknown variables"),
    ] {
        let mut config = Config::default();
        let text = format!("CONFIG SET failed (possibly related to argument '{}') - {reason}", args[0]);
        assert_eq!(set(&mut config, &args), Err(text));
        assert_eq!(config, Config::default());
    }
}

#[test]
fn refused_commands() {
    let mut config = Config::default();
    assert_eq!(
        set(&mut config, &["foo", "bar"]),
        Err("Unknown option or number of arguments for CONFIG SET - 'foo'".into())
    );
    assert_eq!(set(&mut config, &["port", "0", "maxmemory"]), Err("syntax error".into()));
    let twice = "CONFIG SET failed (possibly related to argument 'HZ') - duplicate parameter";
    assert_eq!(set(&mut config, &["hz", "10", "HZ", "20"]), Err(twice.into()));
    let loading = SetContext { loading: true, client_is_local: false };
    let error = config.set_pairs(&["repl-diskless-load", "disabled"], loading).unwrap_err();
    assert_eq!(error.code(), "LOADING");
    assert_eq!(error.to_string(), "Redis is loading the dataset in memory");
    assert_eq!(config.set_pairs(&["hz", "20"], loading).unwrap().len(), 1);
    let error = SetError::apply(Directive::find(b"port").unwrap(), "Unable to listen on this port.");
    assert_eq!(
        error.to_string(),
        "CONFIG SET failed (possibly related to argument 'port') - Unable to listen on this port."
    );
}

#[test]
fn all_or_nothing() {
    let mut config = Config::default();
    assert!(set(&mut config, &["maxmemory", "1mb", "timeout", "x"]).is_err());
    assert_eq!(config, Config::default());
    assert_eq!(set(&mut config, &["maxmemory", "1mb", "timeout", "0", "HZ", "501"]), Ok(vec!["maxmemory", "hz"]));
    assert_eq!((config.maxmemory, config.timeout, config.hz), (1 << 20, 0, 500));
    // Files whose content may have changed are always reported.
    assert_eq!(set(&mut config, &["tls-cert-file", ""]), Ok(vec!["tls-cert-file"]));
}

#[test]
fn protected_directives_follow_their_switch() {
    let mut config = Config { enable_protected_configs: ProtectedAction::Local, ..Config::default() };
    let remote = SetContext::default();
    assert!(config.set_pairs(&["dbfilename", "x.rdb"], remote).is_err());
    assert_eq!(set(&mut config, &["dbfilename", "x.rdb"]), Ok(vec!["dbfilename"]));
    assert_eq!(
        set(&mut config, &["dbfilename", "a/b"]),
        Err("CONFIG SET failed (possibly related to argument 'dbfilename') - dbfilename can't be \
             a path, just a filename"
            .into())
    );
}

#[test]
fn values_are_shown_as_redis_shows_them() {
    let mut config = Config::default();
    for (name, value, shown) in [
        ("maxmemory", "1K", "1000"),
        ("maxmemory", "", "0"),
        ("maxmemory-clients", "5%", "5%"),
        ("save", "900 1 300 10", "900 1 300 10"),
        ("save", "", ""),
        ("client-output-buffer-limit", "replica 1mb 0 5", "normal 0 0 0 slave 1048576 0 5 pubsub 33554432 8388608 60"),
        ("notify-keyspace-events", "KEA", "AKE"),
        ("bind", "127.0.0.1 -::1", "127.0.0.1 -::1"),
        ("bind", "", ""),
        ("oom-score-adj", "relative", "yes"),
        ("shutdown-on-sigint", "now NOSAVE", "nosave now"),
        ("latency-tracking-info-percentiles", "50.10 1e1", "50.1 10"),
        ("requirepass", "a\u{e9} \"", "a\u{e9} \""),
        ("oom-score-adj-values", "0 1 2", "0 1 2"),
        ("lua-time-limit", "7", "7"),
    ] {
        set(&mut config, &[name, value]).unwrap();
        assert_eq!(get(&config, name), shown, "{name} {value}");
    }
    assert_eq!(get(&Config { unixsocketperm: 0o700, ..config }, "unixsocketperm"), "700");
}

#[test]
fn get_by_name_and_by_pattern() {
    let config = Config::default();
    let names = |patterns: &[&str]| -> Vec<String> {
        config.get(patterns).into_iter().map(|(n, _)| String::from_utf8(n).unwrap()).collect()
    };
    assert_eq!(names(&["MAXmemory"]), ["MAXmemory"]);
    assert_eq!(names(&["maxmemory", "maxmemory", "MAXMEMORY"]), ["maxmemory"]);
    assert_eq!(names(&["nothing"]), [""; 0]);
    assert_eq!(names(&["Hash-*-entries"]), ["hash-max-listpack-entries", "hash-max-ziplist-entries"]);
    assert_eq!(names(&["lfu-*", "l[f]u-log*"]), ["lfu-log-factor", "lfu-decay-time"]);
    // Hidden ones only show when named in full.
    assert_eq!(names(&["watchdog-perio?"]), [""; 0]);
    assert_eq!(names(&["watchdog-period"]), ["watchdog-period"]);
    let all = names(&["*"]);
    let visible = DIRECTIVES.iter().filter(|row| !row.has(flag::HIDDEN));
    assert_eq!(all.len(), visible.map(|row| row.names().count()).sum::<usize>());
}

#[test]
fn debian_redis_shows_the_same_values() {
    // What `redis-cli config get '*'` of Debian's redis-server 7.0.15 answers by default, without
    // what depends on the machine or had to be set to ask (dir, port, logfile, save).
    let golden = include_str!("golden/redis-7.0.15-config-get.txt");
    let config = Config::default();
    let mut compared = 0;
    for (name, value) in golden.lines().filter_map(|line| line.split_once('\t')) {
        assert_eq!(get(&config, name), value, "{name}");
        compared += 1;
    }
    assert!(compared > 180, "{compared}");
}

proptest! {
    #[test]
    fn whatever_is_set_is_shown_and_can_be_set_again(
        row in prop::sample::select(DIRECTIVES.iter().collect::<Vec<_>>()),
        value in prop_oneof![
            "[0-9]{1,6}(kb|mb|gb|k|m|%)?",
            "(yes|no|local|default|save|now|volatile-lru|debug|absolute|no one|h 1)",
            "[KEAg$lshzxetdnm]{0,8}",
            "([0-9]{1,4} [0-9]{1,4} ){0,3}[0-9]{1,2} [0-9]",
            "(normal|slave|replica|pubsub) [0-9]{1,3}mb [0-9]{1,3} [0-9]{1,2}",
            "[0-9]{1,2}\\.[0-9]{0,8}",
            "\\PC{0,12}",
        ],
    ) {
        let mut config = Config::default();
        let args = |value: &[u8]| -> Vec<Vec<u8>> {
            match value {
                b"" if row.has(flag::MULTI_ARG) => Vec::new(),
                _ if row.has(flag::MULTI_ARG) => {
                    value.split(|&byte| byte == b' ').map(<[u8]>::to_vec).collect()
                }
                _ => vec![value.to_vec()],
            }
        };
        if config.set(row, &args(value.as_bytes()), Mode::Runtime).is_ok() {
            let shown = config.value_of(row);
            let mut again = Config::default();
            // Only `replicaof` cannot be set to nothing in this form: it wants `no one`.
            if !(row.name == "replicaof" && shown.is_empty()) {
                again.set(row, &args(&shown), Mode::Runtime).unwrap();
                prop_assert_eq!(again.value_of(row), shown);
            }
            let text = rewrite::rewrite(b"", &config, None);
            let mut reloaded = Config::default();
            file::load(&mut reloaded, &text, &mut file::tests::NoFiles).unwrap();
            // A start as a node of a cluster leaves one database, whatever the file says.
            if config.cluster_enabled {
                config.databases = 1;
            }
            prop_assert!(reloaded == config, "{}", String::from_utf8_lossy(&text));
        } else {
            prop_assert_eq!(config, Config::default());
        }
    }

    #[test]
    fn hostile_arguments_never_panic(args: Vec<Vec<u8>>, at in 0..DIRECTIVES.len()) {
        let mut config = Config::default();
        let _ = config.set_pairs(&args, LOCAL);
        let _ = config.set(&DIRECTIVES[at], &args, Mode::Runtime);
        let _ = config.set(&DIRECTIVES[at], &args, Mode::Startup { first_save: true });
        config.get(&args);
    }
}
