//! `ab REV1 REV2`: did this change help? Builds two revisions of this project and compares them like two engines.
//!
//! Each revision is checked out into a worktree of its own under the target folder and built there; the working
//! copy is not touched. The rest is `compare`: alternating measurements, ratios within a round.

use crate::compare::CompareOptions;
use crate::compare::engine::{self, Engine};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which loop the servers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EventLoop {
    /// io_uring.
    Uring,
    /// epoll.
    Epoll,
}

/// Two revisions, and how to compare them.
#[derive(Args, Clone)]
pub struct AbOptions {
    /// The revision that ratios refer to: anything git knows.
    rev1: String,
    /// The other one.
    rev2: String,
    /// Event loop of both.
    #[arg(long, value_enum, default_value = "uring")]
    event_loop: EventLoop,
    /// Cargo profile of both builds.
    #[arg(long, default_value = "release")]
    profile: String,
    #[command(flatten)]
    compare: CompareOptions,
}

fn run(command: &mut Command) -> Result<String, String> {
    let name = format!("{command:?}");
    let out = command
        .output()
        .map_err(|e| format!("cannot run {name}: {e}"))?;
    if !out.status.success() {
        let text = String::from_utf8_lossy(&out.stderr);
        let last: Vec<&str> = text.lines().rev().take(15).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        return Err(format!("{name} failed:\n{}", last.join("\n")));
    }
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

fn git(args: &[&str]) -> Result<String, String> {
    run(Command::new("git").args(args))
}

/// A checkout that goes away with its value.
struct Worktree(PathBuf);

impl Drop for Worktree {
    fn drop(&mut self) {
        let _ = git(&["worktree", "remove", "--force", &self.0.to_string_lossy()]);
    }
}

/// Builds one commit, unless its binary lies there already.
fn build(root: &Path, commit: &str, profile: &str) -> Result<PathBuf, String> {
    let folder = root.join("target").join("ab");
    let binary = folder.join(format!("ringshard-{commit}-{profile}"));
    if binary.is_file() {
        return Ok(binary);
    }
    std::fs::create_dir_all(&folder)
        .map_err(|e| format!("cannot create {}: {e}", folder.display()))?;
    let checkout = folder.join(format!("checkout-{commit}"));
    // A run that was killed may have left it.
    let _ = git(&["worktree", "remove", "--force", &checkout.to_string_lossy()]);
    git(&[
        "worktree",
        "add",
        "--detach",
        &checkout.to_string_lossy(),
        commit,
    ])?;
    let checkout = Worktree(checkout);
    eprintln!("building {commit} ({profile})");
    // One target folder for both: dependencies are built once.
    let target = folder.join("target");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(Command::new(cargo)
        .args([
            "build",
            "--profile",
            profile,
            "--bin",
            "ringshard",
            "--target-dir",
        ])
        .arg(&target)
        .current_dir(&checkout.0))?;
    let built = target
        .join(if profile == "dev" { "debug" } else { profile })
        .join("ringshard");
    std::fs::copy(&built, &binary).map_err(|e| format!("cannot copy {}: {e}", built.display()))?;
    Ok(binary)
}

impl AbOptions {
    /// Builds, compares, shows and writes; false if a measurement failed.
    pub fn run(&self) -> Result<bool, String> {
        let root = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
        let wanted = match self.event_loop {
            EventLoop::Uring => "ringshard-uring",
            EventLoop::Epoll => "ringshard-epoll",
        };
        let model = engine::parse(engine::BUILTIN)?
            .into_iter()
            .find(|e| e.name == wanted);
        let model = model.ok_or_else(|| format!("no row {wanted}"))?;
        let mut rows = Vec::new();
        for (letter, rev) in [("a", &self.rev1), ("b", &self.rev2)] {
            let commit = git(&[
                "rev-parse",
                "--verify",
                "--short=12",
                &format!("{rev}^{{commit}}"),
            ])?;
            let program = build(&root, &commit, &self.profile)?;
            rows.push(Engine {
                name: format!("{letter}-{commit}"),
                label: format!("{rev} ({commit})"),
                program: program.to_string_lossy().into_owned(),
                ..model.clone()
            });
        }
        let mut compare = self.compare.clone();
        if rows[0].program == rows[1].program {
            eprintln!("both are the same commit: what differs is noise");
        }
        compare.rows = rows;
        compare.run()
    }
}
