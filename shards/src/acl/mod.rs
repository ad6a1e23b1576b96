//! Access control: users, what they may do, and the log of what they were refused.
//!
//! All users stand in one immutable table ([`Users`]) that is replaced as a whole, like the configuration, and noticed
//! by every shard once a turn by the same counter; so a check takes no lock. A client holds the number of its user.
//! While that user may do everything the client's gate is clear and nothing is checked; else the client's home checks
//! each command before it is dispatched ([`crate::shard::access`]), and again where it runs later than it was sent:
//! in `EXEC`, and when a key that it waited for is ready.
//!
//! [`check`] is the one question; whoever runs commands on a user's behalf asks it. What a rule means is
//! [`selector`]'s and [`user`]'s. Counterpart: `acl.c`.

pub mod file;
pub mod log;
pub mod selector;
mod sha256;
pub mod user;

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::args::Args;
use crate::commands::CommandId;
use crate::config::{AclPubsubDefault, Config};

pub use log::{AclLog, Context};
pub use user::User;

/// The number of a user; no other user ever has it.
pub type UserId = u32;

/// The user of clients that have not said who they are.
pub const DEFAULT: UserId = 0;

/// What was refused; later ones say more of why a command was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The command itself.
    Command,
    /// A key.
    Key,
    /// A name and password.
    Auth,
    /// A channel.
    Channel,
}

/// A command that a user may not run, and which argument is why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// What was refused.
    pub reason: Reason,
    /// The key's or channel's argument.
    pub at: usize,
}

impl Denied {
    /// The command itself is refused.
    pub const COMMAND: Denied = Denied { reason: Reason::Command, at: 0 };

    /// Why a command that was queued may not run any more, as `EXEC` says it.
    pub fn reason_in_exec(&self) -> &'static str {
        match self.reason {
            Reason::Command | Reason::Auth => "no permission to execute the command or subcommand",
            Reason::Key => "no permission to touch the specified keys",
            Reason::Channel => "no permission to access one of the channels used as argument to the command",
        }
    }
}

/// Whether `user` may run a command whose arity is right.
///
/// # Errors
/// What is refused; [`Denied::text`] words it.
pub fn check(user: &User, command: CommandId, args: Args<'_>) -> Result<(), Denied> {
    user.check(command, args)
}

/// Why a rule was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleError {
    Unknown,
    Syntax,
    AfterAllKeys,
    AfterAllChannels,
    NoSuchPassword,
    BadDigest,
    FirstArgOfSubcommand,
}

impl RuleError {
    pub(crate) fn text(self) -> &'static str {
        match self {
            RuleError::Unknown => "Unknown command or category name in ACL",
            RuleError::Syntax => "Syntax error",
            RuleError::AfterAllKeys => {
                "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any \
                 effect. Try 'resetkeys' to start with an empty list of patterns"
            }
            RuleError::AfterAllChannels => {
                "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any \
                 effect. Try 'resetchannels' to start with an empty list of channels"
            }
            RuleError::NoSuchPassword => "The password you are trying to remove from the user does not exist",
            RuleError::BadDigest => {
                "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
            }
            RuleError::FirstArgOfSubcommand => "Allowing first-arg of a subcommand is not supported",
        }
    }
}

/// All users; see the module's page.
#[derive(Clone, Debug)]
pub struct Users {
    by_name: BTreeMap<Vec<u8>, Arc<User>>,
    by_id: HashMap<UserId, Arc<User>>,
    next_id: UserId,
}

/// What `acl-pubsub-default` gives to new users.
pub(crate) fn all_channels(config: &Config) -> bool {
    config.acl_pubsub_default == AclPubsubDefault::Allchannels
}

impl Users {
    /// The default user alone, with the password that `requirepass` names.
    pub fn new(requirepass: Option<&[u8]>) -> Self {
        let mut users = Users { by_name: BTreeMap::new(), by_id: HashMap::new(), next_id: DEFAULT + 1 };
        let mut user = User::default_user();
        if requirepass.is_some() {
            user.set_password(requirepass);
        }
        users.put(user);
        users
    }

    fn put(&mut self, user: User) {
        let user = Arc::new(user);
        self.by_id.insert(user.id, user.clone());
        self.by_name.insert(user.name.clone(), user);
    }

    fn new_user(&mut self, name: &[u8], all_channels: bool) -> User {
        let id = self.next_id;
        self.next_id += 1;
        User::new(id, name, all_channels)
    }

    /// The user whose number a client holds, unless it was deleted.
    #[inline]
    pub fn get(&self, id: UserId) -> Option<&Arc<User>> {
        self.by_id.get(&id)
    }

    /// The user by this name.
    pub fn find(&self, name: &[u8]) -> Option<&Arc<User>> {
        self.by_name.get(name)
    }

    /// The user of clients that have not said who they are.
    pub fn default_user(&self) -> &Arc<User> {
        self.by_id.get(&DEFAULT).expect("the default user cannot be deleted")
    }

    /// Whether a new client has to say who it is.
    pub fn requires_auth(&self) -> bool {
        let user = self.default_user();
        !user.nopass || !user.enabled
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<User>> {
        self.by_name.values()
    }

    /// Makes or changes a user.
    ///
    /// # Errors
    /// The text of the reply, without its code; nothing is changed then.
    pub fn set(&mut self, name: &[u8], rules: &[Vec<u8>], all_channels: bool) -> Result<(), String> {
        if selector::has_spaces(name) {
            return Err("Usernames can't contain spaces or null characters".into());
        }
        let mut user = match self.by_name.get(name) {
            Some(user) => User::clone(user),
            None => self.new_user(name, all_channels),
        };
        user.apply_all(rules, all_channels)?;
        self.put(user);
        Ok(())
    }

    /// Deletes a user; says whether there was one. The default user stays.
    pub fn delete(&mut self, name: &[u8]) -> bool {
        if name == b"default" {
            return false;
        }
        let user = self.by_name.remove(name);
        user.inspect(|user| drop(self.by_id.remove(&user.id))).is_some()
    }

    /// Sets the default user's password, as `requirepass` does.
    pub fn set_default_password(&mut self, password: Option<&[u8]>) {
        let mut user = User::clone(self.default_user());
        user.set_password(password);
        self.put(user);
    }

    /// What `user` lines say, without that word.
    pub fn lines(&self) -> Vec<Vec<u8>> {
        self.iter().map(|user| user.line()).collect()
    }
}
