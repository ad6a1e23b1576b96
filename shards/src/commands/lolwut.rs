//! `LOLWUT`: a ring of shards, drawn anew each time. Counterpart: `lolwut.c`.

use super::{Command, CommandError, CommandResult, Group, flag};
use crate::args::Args;
use crate::core::Rng;
use crate::number::parse_i64;
use crate::shard::Shard;

use flag::*;

/// This family's rows.
pub static TABLE: &[Command] = &[Command::home("lolwut", lolwut, -1, READONLY | FAST, Group::Server).doc(
    "5.0.0",
    "O(N), N being the size of the picture",
    "Draws something, and names the version.",
    "[VERSION version]",
)];

const MAX_COLUMNS: i64 = 160;

fn lolwut(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let mut rest = args.iter_from(1);
    if args.is(1, "version") {
        let version = args.get(2).ok_or(CommandError::Syntax)?;
        parse_i64(version).ok_or(CommandError::NotInteger)?;
        rest = args.iter_from(3);
    }
    // Every version draws the same ring; what follows is its width in columns.
    let columns = match rest.next() {
        Some(text) => parse_i64(text).ok_or(CommandError::NotInteger)?.clamp(12, MAX_COLUMNS),
        None => 44,
    };
    let shards = shard.core.shards;
    let mut text = draw(&mut shard.core.rng, shards, columns as usize);
    text.push_str(&format!(
        "\n{} on one ring, no lock in sight. Ringshard {}\n\nRedis ver. {}\n",
        if shards == 1 { "One shard".into() } else { format!("{shards} shards") },
        env!("CARGO_PKG_VERSION"),
        crate::REDIS_VERSION
    ));
    shard.client(index).reply().verbatim("txt", text.as_bytes());
    Ok(())
}

/// A ring cut into one arc a shard, each with a letter of its own, and sparks inside it.
fn draw(rng: &mut Rng, shards: usize, columns: usize) -> String {
    let rows = columns / 2;
    let letters: &[u8] = b"#o+x*%@&=";
    let turn = rng.unit();
    let mut text = String::with_capacity((columns + 1) * rows);
    for row in 0..rows {
        let mut line = String::with_capacity(columns);
        for column in 0..columns {
            let x = (column as f64 + 0.5) / columns as f64 * 2.0 - 1.0;
            let y = (row as f64 + 0.5) / rows as f64 * 2.0 - 1.0;
            let (radius, angle) = (x.hypot(y), y.atan2(x) / std::f64::consts::TAU + 0.5);
            let at = (angle + turn).fract() * shards as f64;
            let mark = match radius {
                r if r > 0.98 || (r < 0.70 && rng.below(40) != 0) => b' ',
                r if r < 0.70 => b'.',
                // Where one shard's arc ends and the next begins.
                _ if shards > 1 && at.fract() < 0.04 => b' ',
                _ => letters[at as usize % letters.len()],
            };
            line.push(mark as char);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::testing::Check;

    #[test]
    fn it_ends_with_the_version() {
        let mut t = Check::new();
        for line in ["LOLWUT", "LOLWUT VERSION 5", "LOLWUT VERSION 6 20", "LOLWUT 100000000"] {
            t.look(line, |v| {
                let text = v.text();
                assert!(text.ends_with("\n\nRedis ver. 7.4.0\n"), "{text}");
                assert!(text.contains("###") && text.len() < 20_000, "{text}");
            });
        }
        t.check("LOLWUT VERSION x", "-ERR value is not an integer or out of range");
        t.check("LOLWUT VERSION", "-ERR syntax error");
    }
}
