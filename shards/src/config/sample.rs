//! The sample file `ringshard.conf`, made from the table.
//!
//! Every directive stands in it with what it is for, what it takes and its default. Directives
//! whose feature is not built yet, and those that have no value unless set, are commented out with
//! a `#` that no blank follows: without it the line is valid. A test keeps the file in step.

use std::fmt::Write;

use super::special::describe;
use super::table::{Built, Config, DIRECTIVES, Kind};
use super::value::Rewrite;

const HEADER: &str = "\
# Ringshard's configuration, with every directive at its default.
#
#   ringshard /path/to/ringshard.conf
#   ringshard /path/to/ringshard.conf --port 7777 --maxmemory 2gb
#
# A directive stands at the beginning of a line, its arguments after it. Arguments with blanks go
# between double quotes, where \\n \\r \\t \\b \\a and \\xHH are understood, or between single quotes.
# Where a directive stands twice, the later one counts. Names and values are Redis's, so that a
# redis.conf works here; the names Redis had before work too.
#
# Memory may carry a unit: 1k is 1000 bytes, 1kb is 1024, and so on with m, mb, g and gb.
#
# A line that begins with # is a comment. Where a directive follows the # at once, it is there to be
# put in force by removing the #.
#
# Besides directives a file may hold
#   include <file>                     another file in this place; * ? and [ ] may choose several
#   rename-command <command> <name>    call a command by another name; \"\" takes it away
#   user <name> <rules ...>            an ACL user
";

/// The text of the sample file.
pub fn sample() -> String {
    let default = Config::default();
    let mut text = String::from(HEADER);
    let mut section = "";
    for directive in DIRECTIVES {
        if directive.section != section {
            section = directive.section;
            let rule = "#".repeat(96 - section.len());
            let _ = write!(text, "\n## {section} {rule}\n");
        }
        text.push('\n');
        for line in directive.doc {
            let _ = writeln!(text, "#{line}");
        }
        takes(&mut text, &describe(&directive.kind));
        if !directive.aliases.is_empty() {
            let _ = writeln!(text, "# Also known as {}", directive.aliases.join(", "));
        }
        if directive.built == Built::NotYet {
            text.push_str("# Not built yet: accepted, without effect.\n");
        }
        let (lines, set) = match (directive.rewrite)(&default, &default, directive) {
            Rewrite::Lines { lines, .. } => (lines, true),
            Rewrite::Each(lines) => (lines.into_iter().map(|(line, _)| line).collect(), true),
            Rewrite::Remove => match directive.kind {
                Kind::Addresses => (vec![format!("bind {}", default.bind.join(" ")).into()], true),
                Kind::ReplicaOf => (vec![b"replicaof no one".to_vec()], false),
                Kind::Dir => (vec![b"dir .".to_vec()], false),
                _ => (vec![format!("{} \"\"", directive.name).into()], false),
            },
        };
        let hash = if set && directive.built == Built::Yes { "" } else { "#" };
        for line in lines {
            let _ = writeln!(text, "{hash}{}", String::from_utf8_lossy(&line));
        }
    }
    text
}

/// Writes what a directive takes, its words on as many lines as they need.
fn takes(text: &mut String, accepted: &str) {
    const LINE_MAX: usize = 96;
    let mut line = String::from("# Takes: ");
    for (at, word) in accepted.split(" | ").enumerate() {
        if line.len() + word.len() > LINE_MAX {
            let _ = writeln!(text, "{line} |");
            line = format!("#        {word}");
        } else {
            let _ = write!(line, "{}{word}", if at == 0 { "" } else { " | " });
        }
    }
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::{self, tests::NoFiles};

    /// The sample with every directive put in force.
    fn uncommented() -> String {
        let mut text = String::new();
        for line in sample().lines() {
            match line.strip_prefix('#') {
                Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => {
                    text.push_str(rest);
                }
                _ => text.push_str(line),
            }
            text.push('\n');
        }
        text
    }

    #[test]
    fn the_file_in_the_repository_is_this_one() {
        let file = include_str!("../../../ringshard.conf");
        // To bring it up to date, run this test with RINGSHARD_BLESS=1.
        if std::env::var_os("RINGSHARD_BLESS").is_some() && file != sample() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../ringshard.conf");
            std::fs::write(path, sample()).unwrap();
            return;
        }
        assert!(file == sample(), "ringshard.conf is out of date: RINGSHARD_BLESS=1 renews it");
    }

    #[test]
    fn it_sets_nothing_but_defaults_and_warns_of_nothing() {
        let mut config = Config { port: 1, maxclients: 1, save: Vec::new(), ..Config::default() };
        config.save = Config::default().save;
        let warnings = file::load(&mut config, sample().as_bytes(), &mut NoFiles).unwrap();
        assert_eq!(warnings, []);
        assert!(config == Config::default());
    }

    #[test]
    fn every_directive_stands_in_it_at_its_default() {
        let text = uncommented();
        for directive in DIRECTIVES {
            let found = text.lines().filter(|line| line.split(' ').next() == Some(directive.name));
            let expected = if let Kind::OutputLimits = directive.kind { 3 } else { 1 };
            let expected = if let Kind::Save = directive.kind { 3 } else { expected };
            assert_eq!(found.count(), expected, "{}", directive.name);
        }
        let mut config = Config::default();
        file::load(&mut config, text.as_bytes(), &mut NoFiles).unwrap();
        config.dir.clear();
        assert!(config == Config::default());
    }

    #[test]
    fn its_lines_fit_a_screen() {
        for line in sample().lines() {
            assert!(line.len() <= 100, "{line}");
        }
    }
}
