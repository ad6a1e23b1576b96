//! The machine a result comes from: what a reader needs to judge it, and nothing that names a host.

use serde::{Deserialize, Serialize};
use std::fs;

/// Hardware, kernel, and the settings that move latency.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct Machine {
    /// Model name of the CPU.
    pub cpu: String,
    /// CPUs online.
    pub cpus: usize,
    /// Hardware threads of one core.
    pub threads_per_core: String,
    /// Memory, GB.
    pub memory_gb: f64,
    /// Kernel release.
    pub kernel: String,
    /// Frequency governor of CPU 0, `none` when the kernel offers none (virtual machines).
    pub governor: String,
    /// Hypervisor, if one shows.
    pub virtualised: bool,
    /// What the kernel does about CPU flaws, by flaw, without those that do not apply.
    pub mitigations: Vec<String>,
    /// Transparent huge pages.
    pub huge_pages: String,
    /// NUMA nodes.
    pub numa_nodes: usize,
    /// Load average of the last minute when the run began.
    pub load: f64,
}

fn line(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

impl Machine {
    /// This machine.
    pub fn here() -> Machine {
        let cpuinfo = line("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let l = cpuinfo.lines().find(|l| l.starts_with(name))?;
            Some(l.split_once(':')?.1.trim().to_owned())
        };
        let memory_kb = line("/proc/meminfo")
            .and_then(|m| {
                m.lines()
                    .next()?
                    .split_whitespace()
                    .nth(1)?
                    .parse::<f64>()
                    .ok()
            })
            .unwrap_or(0.0);
        let mut mitigations: Vec<String> = fs::read_dir("/sys/devices/system/cpu/vulnerabilities")
            .map(|d| {
                d.flatten()
                    .filter_map(|e| {
                        let text = line(e.path().to_str()?)?;
                        let name = e.file_name().to_string_lossy().into_owned();
                        (text != "Not affected").then(|| format!("{name}: {text}"))
                    })
                    .collect()
            })
            .unwrap_or_default();
        mitigations.sort();
        let active = |text: String| {
            text.split_whitespace()
                .find_map(|w| w.strip_prefix('[')?.strip_suffix(']').map(str::to_owned))
                .unwrap_or(text)
        };
        Machine {
            cpu: field("model name")
                .or_else(|| field("CPU implementer"))
                .unwrap_or_else(|| "unknown".to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get()),
            threads_per_core: line("/sys/devices/system/cpu/smt/active").map_or(
                "unknown".to_owned(),
                |s| {
                    if s == "1" {
                        "2 (SMT on)"
                    } else {
                        "1 (SMT off)"
                    }
                    .to_owned()
                },
            ),
            memory_gb: (memory_kb / 1e6 * 10.0).round() / 10.0,
            kernel: line("/proc/sys/kernel/osrelease").unwrap_or_default(),
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
                .unwrap_or_else(|| "none".to_owned()),
            virtualised: cpuinfo.contains(" hypervisor"),
            mitigations,
            huge_pages: line("/sys/kernel/mm/transparent_hugepage/enabled")
                .map_or("unknown".to_owned(), active),
            numa_nodes: fs::read_dir("/sys/devices/system/node").map_or(1, |d| {
                let node = |n: &str| {
                    n.strip_prefix("node")
                        .is_some_and(|r| r.parse::<u32>().is_ok())
                };
                d.flatten()
                    .filter(|e| node(&e.file_name().to_string_lossy()))
                    .count()
                    .max(1)
            }),
            load: line("/proc/loadavg")
                .and_then(|l| l.split(' ').next()?.parse().ok())
                .unwrap_or(0.0),
        }
    }

    /// A short name for folders: model and number of CPUs, not the host.
    pub fn slug(&self) -> String {
        let words: String = self
            .cpu
            .to_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { ' ' })
            .collect();
        let skip = ["r", "tm", "cpu", "processor", "with"];
        let words: Vec<&str> = words
            .split_whitespace()
            .filter(|w| !skip.contains(w))
            .take(4)
            .collect();
        format!(
            "{}-{}cpu",
            if words.is_empty() {
                "machine".to_owned()
            } else {
                words.join("-")
            },
            self.cpus
        )
    }

    /// Rows for a report.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        vec![
            (
                "CPU",
                format!(
                    "{} × {}{}",
                    self.cpus,
                    self.cpu,
                    if self.virtualised { ", virtual" } else { "" }
                ),
            ),
            ("hardware threads per core", self.threads_per_core.clone()),
            (
                "memory",
                format!("{} GB, {} NUMA node(s)", self.memory_gb, self.numa_nodes),
            ),
            ("kernel", self.kernel.clone()),
            ("CPU governor", self.governor.clone()),
            ("transparent huge pages", self.huge_pages.clone()),
            (
                "mitigations",
                if self.mitigations.is_empty() {
                    "none needed or shown".to_owned()
                } else {
                    self.mitigations.join("; ")
                },
            ),
            ("load average at the start", format!("{:.2}", self.load)),
        ]
    }
}

/// Local date, as 2026-01-31.
pub fn today() -> String {
    // SAFETY: an all-zero tm is valid; both calls get valid places.
    let tm = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut tm: libc::tm = std::mem::zeroed();
        libc::localtime_r(&now, &mut tm);
        tm
    };
    format!(
        "{:04}-{:02}-{:02}",
        tm.tm_year + 1900,
        tm.tm_mon + 1,
        tm.tm_mday
    )
}

/// Commit of the checkout in the current directory, with a plus if files differ from it.
pub fn commit() -> String {
    let git = |args: &[&str]| {
        let out = std::process::Command::new("git")
            .args(args)
            .output()
            .ok()
            .filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let dirty =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| !s.is_empty());
    format!("{head}{}", if dirty { "+" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fit_for_folders() {
        let m = Machine {
            cpu: "Intel(R) Xeon(R) CPU @ 2.20GHz".to_owned(),
            cpus: 8,
            ..Machine::default()
        };
        assert_eq!(m.slug(), "intel-xeon-2-20ghz-8cpu");
        assert!(!Machine::here().kernel.is_empty());
        assert_eq!(today().len(), 10);
    }
}
