//! `redis-benchmark`, the load that everybody tries first.

use std::process::Command;

use crate::harness::{everywhere, installed};

#[test]
fn redis_benchmark_runs_without_an_error() {
    if !installed("redis-benchmark", "--version", "the load of redis-benchmark") {
        return;
    }
    everywhere(&[1, 2, 8], |placement| {
        let server = placement.start(&[]);
        let args = "-t set,get,incr,mset -P 16 -c 50 -r 100000 -n 20000 --csv";
        let out = Command::new("redis-benchmark")
            .args(["-p", &server.port.to_string()])
            .args(args.split(' '))
            .output()
            .expect("it is installed");
        let (text, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{text}\n{errors}");
        for name in ["SET", "GET", "INCR", "MSET (10 keys)"] {
            let line = text.lines().find(|line| line.starts_with(&format!("\"{name}\"")));
            let line = line.unwrap_or_else(|| panic!("no result for {name}:\n{text}\n{errors}"));
            let rate: f64 = line.split('"').nth(3).unwrap().parse().unwrap();
            assert!(rate > 0.0, "{line}");
        }
        for word in ["rror", "ERR"] {
            assert!(!text.contains(word) && !errors.contains(word), "{text}\n{errors}");
        }
        // SET, INCR and MSET drew their keys from 100000 numbers each; 20000, 20000 and 200000 draws hit most of them.
        let keys = server.connect().cmd("DBSIZE").int();
        assert!((50_000..=300_000).contains(&keys), "{keys} keys");
    });
}

/// Every test that it has, and with several threads.
#[test]
fn its_whole_list_runs_without_an_error() {
    if !installed("redis-benchmark", "--version", "the load of redis-benchmark") {
        return;
    }
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&[]);
        for options in ["-n 1000 -c 20", "-n 2000 -c 20 -P 8 --threads 2 -r 1000", "-n 300 -c 5 -3 -d 100"] {
            let out = Command::new("redis-benchmark")
                .args(["-p", &server.port.to_string(), "--csv"])
                .args(options.split(' '))
                .output()
                .expect("it is installed");
            let (text, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            assert!(out.status.success(), "{options}: {text}\n{errors}");
            for name in [
                "PING_INLINE",
                "PING_MBULK",
                "SET",
                "GET",
                "INCR",
                "LPUSH",
                "RPUSH",
                "LPOP",
                "RPOP",
                "SADD",
                "HSET",
                "SPOP",
                "ZADD",
                "ZPOPMIN",
                "LPUSH (needed to benchmark LRANGE)",
                "LRANGE_100 (first 100 elements)",
                "LRANGE_300 (first 300 elements)",
                "LRANGE_500 (first 500 elements)",
                "LRANGE_600 (first 600 elements)",
                "MSET (10 keys)",
            ] {
                assert!(text.lines().any(|line| line.starts_with(&format!("\"{name}\""))), "{name}: {text}\n{errors}");
            }
            for word in ["rror", "ERR", "WARNING"] {
                assert!(!text.contains(word) && !errors.contains(word), "{options}: {text}\n{errors}");
            }
        }
    });
}
