//! Users as files hold them: `user` lines of the configuration file, or an `aclfile` of nothing else.
//!
//! The driver reads and writes files; here is only their text.

use super::selector::has_spaces;
use super::user::{merge_selectors, rules_in};
use super::{RuleError, User, Users, all_channels};
use crate::config::Config;
use crate::config::file::{FileDirective, LoadError};
use crate::limits::ACL_RULES_MAX;
use crate::quote;

impl Users {
    /// The users of the start: those of the configuration's `user` lines, or those of `aclfile`, the text of the file
    /// that the configuration names.
    ///
    /// # Errors
    /// What to say before the process ends.
    pub fn at_start(config: &Config, aclfile: Option<&[u8]>) -> Result<Users, String> {
        let mut users = Users::new(config.requirepass.as_deref());
        if aclfile.is_some() && !config.user.is_empty() {
            return Err("Users stand in the configuration file and an aclfile is set as well. Which of them counts \
                        would be easy to get wrong: keep the users in one of the two places."
                .into());
        }
        for line in &config.user {
            users
                .load_line(line, all_channels(config))
                .map_err(|text| format!("{text}\nCritical error while loading ACLs. Exiting."))?;
        }
        match aclfile {
            None => Ok(users),
            Some(text) => users
                .loaded(text, &config.aclfile, all_channels(config))
                .map_err(|errors| format!("Aborting startup because of ACL errors: {errors}")),
        }
    }

    fn load_line(&mut self, line: &FileDirective, all_channels: bool) -> Result<(), String> {
        let name = &line.args[0];
        let mut user = match self.find(name) {
            // Of the default user what `requirepass` says goes with the rest.
            Some(user) => User::new(user.id, name, all_channels),
            None => self.new_user(name, all_channels),
        };
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let rules = merge_selectors(&line.args[1..]).map_err(|at| {
            format!(
                "Unmatched parenthesis in the ACL rule '{}' of the user '{}'",
                shown(&line.args[1 + at]),
                shown(name)
            )
        })?;
        if rules_in(&rules) > ACL_RULES_MAX {
            return Err(format!("The user '{}' has more than {ACL_RULES_MAX} ACL rules", shown(name)));
        }
        for rule in &rules {
            user.apply(rule, all_channels).map_err(|error| {
                let text = error.text();
                format!("Error loading ACL rule '{}' for the user named '{}': {text}", shown(rule), shown(name))
            })?;
        }
        self.put(user);
        Ok(())
    }

    /// The users that the text of an `aclfile` describes. Users that are here already by the same name keep their
    /// numbers, so that their clients stay.
    ///
    /// # Errors
    /// Everything that is wrong with it, in one line.
    pub fn loaded(&self, text: &[u8], path: &str, all_channels: bool) -> Result<Users, String> {
        let mut users = Users { next_id: self.next_id, ..Users::new(None) };
        let mut errors = String::new();
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut seen_default = false;
        for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let number = at + 1;
            let line = crate::config::file::trim(line);
            if line.is_empty() {
                continue;
            }
            // Blanks part the words and nothing quotes them: a password's digest and a pattern have none.
            let words: Vec<Vec<u8>> = line.split(|byte| *byte == b' ').map(<[u8]>::to_vec).collect();
            if words[0] != b"user" || words.len() < 2 {
                errors += &format!("{path}:{number} should start with user keyword followed by the username. ");
                continue;
            }
            let name = &words[1];
            if has_spaces(name) {
                errors += &format!("'{path}:{number}: username '{}' contains invalid characters. ", shown(name));
                continue;
            }
            let is_default = name == b"default";
            if (users.find(name).is_some() && !is_default) || (is_default && seen_default) {
                errors += &format!("WARNING: Duplicate user '{}' found on line {number}. ", shown(name));
                continue;
            }
            seen_default |= is_default;
            let mut user = match self.find(name) {
                Some(known) => User::new(known.id, name, all_channels),
                None => users.new_user(name, all_channels),
            };
            let rules = match merge_selectors(&words[2..]) {
                Ok(rules) => rules,
                Err(_) => {
                    errors += &format!("{path}:{number}: Unmatched parenthesis in selector definition.");
                    continue;
                }
            };
            if rules_in(&rules) > ACL_RULES_MAX {
                errors += &format!("{path}:{number}: A user can have {ACL_RULES_MAX} rules at most. ");
                continue;
            }
            let mut told = false;
            for rule in &rules {
                let rule = crate::config::file::trim(rule);
                match user.apply(rule, all_channels) {
                    Ok(()) => {}
                    // What names no command holds no secret.
                    Err(error @ RuleError::Unknown) => {
                        let text = error.text();
                        errors += &format!("{path}:{number}: Error in applying operation '{}': {text}. ", shown(rule));
                    }
                    Err(error) if !told => {
                        errors += &format!("{path}:{number}: {}. ", error.text());
                        told = true;
                    }
                    Err(_) => {}
                }
            }
            users.put(user);
        }
        match errors.is_empty() {
            true => Ok(users),
            false => {
                Err(errors + "WARNING: ACL errors detected, no change to the previously active ACL rules was performed")
            }
        }
    }

    /// What the configuration's `user` lines say, without that word; unlike an `aclfile`'s, its words may be quoted, and
    /// those that would be read otherwise are.
    pub fn config_lines(&self) -> Vec<Vec<u8>> {
        let quoted = |word: &[u8]| match quote::split_args(word) {
            Some(words) if words == [word] => word.to_vec(),
            _ => quote::repr(word),
        };
        self.lines()
            .iter()
            .map(|line| line.split(|byte| *byte == b' ').map(quoted).collect::<Vec<_>>().join(&b' '))
            .collect()
    }

    /// The text of an `aclfile` with these users.
    pub fn file_text(&self) -> Vec<u8> {
        self.iter().flat_map(|user| [b"user ", user.line().as_slice(), b"\n"].concat()).collect()
    }
}

/// Looks through the configuration's `user` lines, for what is wrong with one is told with its line. Names of commands
/// are left to [`Users::at_start`].
///
/// # Errors
/// The first line that is wrong.
pub fn check_lines(config: &Config) -> Result<(), LoadError> {
    for (at, line) in config.user.iter().enumerate() {
        let name = &line.args[0];
        let failed = |word: &[u8], text: &str| {
            line.error(format!("Error in user declaration '{}': {text}", String::from_utf8_lossy(word)))
        };
        if config.user[..at].iter().any(|earlier| earlier.args[0] == *name) {
            return Err(failed(name, "Duplicate user found. A user can only be defined once in config files"));
        }
        if has_spaces(name) {
            return Err(failed(name, "Spaces not allowed in ACL usernames"));
        }
        let rules =
            merge_selectors(&line.args[1..]).map_err(|bad| failed(&line.args[1 + bad], "Unmatched parenthesis"))?;
        if rules_in(&rules) > ACL_RULES_MAX {
            return Err(failed(name, &format!("A user can have {ACL_RULES_MAX} rules at most")));
        }
        let mut user = User::new(super::DEFAULT, name, false);
        for rule in &rules {
            match user.apply(rule, false) {
                Ok(()) | Err(RuleError::Unknown) => {}
                // What follows new users' channels depends on a directive that may stand further down.
                Err(error) => return Err(failed(rule, error.text())),
            }
        }
    }
    Ok(())
}
