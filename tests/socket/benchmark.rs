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
