//! Users: a name, passwords, whether they may log in, and their selectors.

use super::selector::{Selector, allows_channel};
use super::sha256::hex_digest;
use super::{Denied, RuleError, UserId};
use crate::args::Args;
use crate::commands::CommandId;
use crate::limits::ACL_RULES_MAX;
use crate::quote;

/// See the module's page.
#[derive(Clone, Debug)]
pub struct User {
    /// What clients hold; another user by the same name has another.
    pub id: UserId,
    /// The name.
    pub name: Vec<u8>,
    /// Whether clients may log in as this user.
    pub enabled: bool,
    /// Whether any password will do.
    pub nopass: bool,
    /// Whether the payloads of `RESTORE` are checked in depth. It is kept and shown; they are always checked.
    pub sanitize_payload: bool,
    /// Digests, in hexadecimal digits.
    pub passwords: Vec<[u8; 64]>,
    /// The user's own selector first.
    selectors: Vec<Selector>,
}

/// Compares in a time that does not tell where two secrets differ.
fn same_secret(a: &[u8; 64], b: &[u8; 64]) -> bool {
    a.iter().zip(b).fold(0, |sum, (x, y)| sum | (x ^ y)) == 0
}

fn digest_of(hex: &[u8]) -> Result<[u8; 64], RuleError> {
    let digest: [u8; 64] = hex.try_into().map_err(|_| RuleError::BadDigest)?;
    match digest.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        true => Ok(digest),
        false => Err(RuleError::BadDigest),
    }
}

impl User {
    /// One that may do nothing, as `ACL SETUSER name` makes it.
    pub(crate) fn new(id: UserId, name: &[u8], all_channels: bool) -> Self {
        User {
            id,
            name: name.to_vec(),
            enabled: false,
            nopass: false,
            sanitize_payload: true,
            passwords: Vec::new(),
            selectors: vec![Selector::new(all_channels)],
        }
    }

    /// The default user as it is before anything is configured.
    pub(crate) fn default_user() -> Self {
        let mut user = User::new(super::DEFAULT, b"default", true);
        for rule in ["+@all", "~*", "&*", "on", "nopass"] {
            user.apply(rule.as_bytes(), true).expect("these rules are valid");
        }
        user
    }

    /// Whether no command has to be checked.
    pub fn is_unlimited(&self) -> bool {
        self.selectors.iter().any(Selector::is_unlimited)
    }

    /// The user's own selector.
    pub(crate) fn root(&self) -> &Selector {
        &self.selectors[0]
    }

    /// The selectors in parentheses.
    pub(crate) fn others(&self) -> &[Selector] {
        &self.selectors[1..]
    }

    /// Whether this password logs in as this user.
    pub fn accepts(&self, password: &[u8]) -> bool {
        if !self.enabled || self.nopass {
            return self.enabled;
        }
        let digest = hex_digest(password);
        self.passwords.iter().fold(false, |found, known| found | same_secret(known, &digest))
    }

    /// The words of `ACL GETUSER flags`.
    pub fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.enabled { "on" } else { "off" }];
        if self.nopass {
            flags.push("nopass");
        }
        flags.push(if self.sanitize_payload { "sanitize-payload" } else { "skip-sanitize-payload" });
        flags
    }

    /// Takes rules in, all of them or none.
    ///
    /// # Errors
    /// The text of `ACL SETUSER`, without its code.
    pub(crate) fn apply_all(&mut self, rules: &[Vec<u8>], all_channels: bool) -> Result<(), String> {
        let merged = merge_selectors(rules).map_err(|at| {
            let start = String::from_utf8_lossy(&rules[at]);
            format!("Unmatched parenthesis in acl selector starting at '{start}'.")
        })?;
        let mut changed = self.clone();
        let kept = match merged.iter().any(|rule| rule.eq_ignore_ascii_case(b"reset")) {
            true => 0,
            false => changed.rules(),
        };
        if kept + rules_in(&merged) > ACL_RULES_MAX {
            return Err(format!("A user can have {ACL_RULES_MAX} rules at most"));
        }
        for rule in &merged {
            changed.apply(rule, all_channels).map_err(|error| {
                format!("Error in ACL SETUSER modifier '{}': {}", String::from_utf8_lossy(rule), error.text())
            })?;
        }
        *self = changed;
        Ok(())
    }

    /// How many rules and passwords there are.
    pub(crate) fn rules(&self) -> usize {
        self.passwords.len() + self.selectors.iter().map(Selector::rules).sum::<usize>()
    }

    /// Takes one rule in; `all_channels` is what `acl-pubsub-default` gives to new users.
    pub(crate) fn apply(&mut self, rule: &[u8], all_channels: bool) -> Result<(), RuleError> {
        match rule.to_ascii_lowercase().as_slice() {
            b"" => {}
            b"on" => self.enabled = true,
            b"off" => self.enabled = false,
            b"sanitize-payload" => self.sanitize_payload = true,
            b"skip-sanitize-payload" => self.sanitize_payload = false,
            b"nopass" => (self.nopass, self.passwords) = (true, Vec::new()),
            b"resetpass" => (self.nopass, self.passwords) = (false, Vec::new()),
            b"clearselectors" => self.selectors.truncate(1),
            b"reset" => *self = User::new(self.id, &self.name, all_channels),
            [b'>' | b'#', ..] => {
                let digest = if rule[0] == b'>' { hex_digest(&rule[1..]) } else { digest_of(&rule[1..])? };
                if !self.passwords.contains(&digest) {
                    self.passwords.push(digest);
                }
                self.nopass = false;
            }
            [b'<' | b'!', ..] => {
                let digest = if rule[0] == b'<' { hex_digest(&rule[1..]) } else { digest_of(&rule[1..])? };
                let at = self.passwords.iter().position(|known| *known == digest);
                self.passwords.remove(at.ok_or(RuleError::NoSuchPassword)?);
            }
            [b'(', .., b')'] => {
                let mut selector = Selector::new(all_channels);
                let inner = quote::split_args(&rule[1..rule.len() - 1]).ok_or(RuleError::Syntax)?;
                for rule in inner {
                    // What would be read otherwise when it is loaded from a file is refused.
                    if rule.ends_with(b")") || quote::split_args(&rule).is_none_or(|words| words != [rule.as_slice()]) {
                        return Err(RuleError::Syntax);
                    }
                    selector.apply(&rule)?;
                }
                self.selectors.push(selector);
            }
            _ => self.selectors[0].apply(rule)?,
        }
        Ok(())
    }

    /// Sets the password that `requirepass` names, or none.
    pub(crate) fn set_password(&mut self, password: Option<&[u8]>) {
        self.nopass = password.is_none();
        self.passwords = password.map(hex_digest).into_iter().collect();
    }

    /// Whether the user may run a command whose arity is right; see [`super::check`].
    pub(crate) fn check(&self, id: CommandId, args: Args<'_>) -> Result<(), Denied> {
        // Of several selectors that refuse, the one that came farthest tells why: that no key was allowed says more
        // than that another selector does not have the command.
        let mut denied = Denied::COMMAND;
        let mut at = 0;
        for selector in &self.selectors {
            match selector.check(id, args, &mut at) {
                Ok(()) => return Ok(()),
                Err(reason) if reason > denied.reason || (reason == denied.reason && at > denied.at) => {
                    denied = Denied { reason, at };
                }
                Err(_) => {}
            }
        }
        Err(denied)
    }

    /// Whether one selector allows a command and besides every key as `flags` of [`crate::commands::key`] say.
    pub fn allows_with_every_key(&self, id: CommandId, args: Args<'_>, flags: u16) -> bool {
        self.selectors.iter().any(|selector| selector.allows_with_every_key(id, args, flags))
    }

    /// The channel patterns that are left of those `before` had, or `None` if it lost nothing.
    pub(crate) fn channels_left(&self, before: &User) -> Option<Vec<Vec<u8>>> {
        if self.selectors.iter().any(Selector::all_channels) {
            return None;
        }
        let left: Vec<Vec<u8>> = self.selectors.iter().flat_map(Selector::channels).cloned().collect();
        let lost = before
            .selectors
            .iter()
            .any(|selector| selector.all_channels() || selector.channels().iter().any(|name| !left.contains(name)));
        lost.then_some(left)
    }

    /// The user as a line of a file has it, behind `user` and the name.
    pub fn describe(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for flag in self.flags() {
            out.extend_from_slice(flag.as_bytes());
            out.push(b' ');
        }
        for digest in &self.passwords {
            out.push(b'#');
            out.extend_from_slice(digest);
            out.push(b' ');
        }
        out.extend(self.root().describe());
        for selector in self.others() {
            out.extend_from_slice(b" (");
            out.extend(selector.describe());
            out.push(b')');
        }
        out
    }

    /// Name and description.
    pub fn line(&self) -> Vec<u8> {
        [self.name.as_slice(), b" ", &self.describe()].concat()
    }
}

/// Whether a client may keep its subscriptions with these channel patterns.
pub(crate) fn keeps_subscriptions<'a>(
    left: &[Vec<u8>],
    mut names: impl Iterator<Item = (crate::pubsub::Kind, &'a [u8])>,
) -> bool {
    names.all(|(kind, name)| allows_channel(left, name, kind == crate::pubsub::Kind::Pattern))
}

/// At most so many rules these arguments hold, those in parentheses counted too.
pub(crate) fn rules_in(merged: &[Vec<u8>]) -> usize {
    merged.iter().map(|rule| 1 + if rule.first() == Some(&b'(') { blanks(rule) } else { 0 }).sum()
}

fn blanks(rule: &[u8]) -> usize {
    rule.iter().filter(|byte| byte.is_ascii_whitespace()).count()
}

/// Joins selectors that stand in several arguments; the place of a parenthesis that is never closed otherwise.
pub(crate) fn merge_selectors(rules: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, usize> {
    let mut merged = Vec::with_capacity(rules.len());
    let mut open: Option<(usize, Vec<u8>)> = None;
    for (at, rule) in rules.iter().enumerate() {
        match &mut open {
            None if rule.first() == Some(&b'(') && rule.last() != Some(&b')') => open = Some((at, rule.clone())),
            None => merged.push(rule.clone()),
            Some((_, selector)) => {
                selector.push(b' ');
                selector.extend_from_slice(rule);
                if rule.last() == Some(&b')') {
                    merged.extend(open.take().map(|(_, selector)| selector));
                }
            }
        }
    }
    match open {
        Some((at, _)) => Err(at),
        None => Ok(merged),
    }
}
