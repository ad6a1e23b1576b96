//! `oom-score-adj`: how soon the kernel ends this process when memory runs out. Counterpart: `setOOMScoreAdj`.

use std::fs;
use std::sync::Mutex;

use ringshard_shards::config::{Config, OomScoreAdj};

const FILE: &str = "/proc/self/oom_score_adj";

/// What the kernel knew before this process changed it, while it is changed.
#[derive(Default)]
pub struct OomScore(Mutex<Option<i32>>);

impl OomScore {
    /// Puts the directives in force, or back what was before them.
    ///
    /// # Errors
    /// What to say in the log.
    pub fn apply(&self, config: &Config) -> Result<(), String> {
        let mut before = self.0.lock().expect("no holder panics");
        let score = match (config.oom_score_adj, *before) {
            (OomScoreAdj::No, None) => return Ok(()),
            (OomScoreAdj::No, Some(base)) => base,
            (how, known) => {
                let base = match known {
                    Some(base) => base,
                    None => fs::read_to_string(FILE)
                        .map_err(|error| format!("Unable to read oom_score_adj: {}", crate::net::os_text(&error)))?
                        .trim()
                        .parse()
                        .unwrap_or(0),
                };
                *before = Some(base);
                // There is no replica and no child, so the first value is the one that counts.
                let value = config.oom_score_adj_values[0];
                let score = if how == OomScoreAdj::Absolute { value } else { base + value };
                score.clamp(-1000, 1000)
            }
        };
        fs::write(FILE, score.to_string())
            .map_err(|error| format!("Unable to write oom_score_adj: {}", crate::net::os_text(&error)))?;
        if config.oom_score_adj == OomScoreAdj::No {
            *before = None;
        }
        Ok(())
    }
}
