//! What users may do, as a shard sees to it: who its clients are, the checks, and the end of those that may not stay.
//!
//! The rules are [`crate::acl`]'s. A client whose user may do everything is never looked at here.

use std::sync::Arc;

use super::Shard;
use crate::acl::log::Denial;
use crate::acl::user::keeps_subscriptions;
use crate::acl::{Context, DEFAULT, User};
use crate::args::Args;
use crate::client::{ClientView, Wait, gate};
use crate::commands::CommandId;
use crate::message::Note;

impl Shard {
    /// The bits of a client that has not said who it is.
    pub(crate) fn first_gate(&self) -> u32 {
        let users = &self.core.users;
        let mut gate = 0;
        if users.requires_auth() {
            gate |= gate::NEEDS_AUTH;
        }
        if !users.default_user().is_unlimited() {
            gate |= gate::RESTRICTED;
        }
        gate
    }

    /// Makes a client one of `user`.
    pub(crate) fn log_in(&mut self, index: u32, user: &User) {
        let client = self.client(index);
        client.user = user.id;
        client.gate &= !(gate::NEEDS_AUTH | gate::RESTRICTED);
        if !user.is_unlimited() {
            client.gate |= gate::RESTRICTED;
        }
    }

    /// Makes a client one that has not said who it is.
    pub(crate) fn log_out(&mut self, index: u32) {
        let first = self.first_gate();
        let client = self.client(index);
        client.user = DEFAULT;
        client.gate = client.gate & !(gate::NEEDS_AUTH | gate::RESTRICTED) | first;
    }

    /// Why a client may not run a command, if so.
    #[cold]
    pub(crate) fn refused_by_acl(&mut self, index: u32, id: CommandId, args: Args<'_>) -> Option<String> {
        let view = self.view(index);
        let context = if self.client(index).gate & gate::MULTI != 0 { Context::Multi } else { Context::Toplevel };
        let denied = self.core.check_access(view, id, args, context).err()?;
        self.client(index).last_command = id;
        self.log_denials();
        Some(format!("NOPERM {}", denied.text(self.core.user_name(view.user), id, args, false)))
    }

    /// Why a command that was queued may not run any more, if so.
    #[cold]
    pub(crate) fn refused_in_exec(&mut self, index: u32, id: CommandId, args: Args<'_>) -> Option<String> {
        let view = self.view(index);
        let denied = self.core.check_access(view, id, args, Context::Multi).err()?;
        self.log_denials();
        let text = format!(
            "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This \
             command is no longer allowed for the following reason: {}",
            denied.reason_in_exec()
        );
        self.core.stats.count_error(&text);
        Some(text)
    }

    /// Why a command that waited for keys may not run when one is ready, if so. The client may be another shard's.
    pub(crate) fn refused_again(&mut self, client: ClientView, id: CommandId, args: Args<'_>) -> Option<String> {
        // What made the key ready may have come after this turn began, and the change of the user before it.
        if self.config_epoch != self.core.shared.config_epoch() {
            self.core.users = self.core.shared.users();
        }
        let denied = self.core.check_access(client, id, args, Context::Toplevel).err()?;
        self.log_denials();
        let text = format!("NOPERM {}", denied.text(self.core.user_name(client.user), id, args, false));
        self.core.stats.commands[id as usize].rejected += 1;
        self.core.stats.count_error(&text);
        Some(text)
    }

    /// Brings what was refused into the log.
    #[inline]
    pub(crate) fn log_denials(&mut self) {
        if !self.core.denials.is_empty() {
            for (client, denial) in std::mem::take(&mut self.core.denials) {
                self.log_denial(client, denial);
            }
        }
    }

    /// Adds a denial to the log, by way of its client's home, which can describe it.
    pub(crate) fn log_denial(&mut self, view: ClientView, mut denial: Denial) {
        if view.home != self.core.id {
            self.outbox.note(view.home, Note::Denied(view, Box::new(denial)));
            return;
        }
        let client = self.clients.get(view.index as usize).and_then(|client| client.as_deref());
        if let Some(client) = client.filter(|client| client.id == view.id) {
            let (user, table, now) = (self.core.user_name(client.user), self.core.table, self.core.now_ms);
            denial.client_info = crate::commands::connection::client_info(client, user, None, table, now).line;
        }
        let max_len = self.core.config.acllog_max_len as usize;
        self.core.shared.acl_log.lock().expect("no holder panics").add(denial, self.core.now_ms, max_len);
    }

    /// Takes the users over as they are now, and closes the connections of those that were deleted, or that subscribe
    /// to what they may not any more. `asking` is the client whose command changed them: it is answered first.
    pub(crate) fn take_users(&mut self, asking: Option<u32>) {
        let users = self.core.shared.users();
        self.core.users = users.clone();
        if Arc::ptr_eq(&users, &self.users_before) {
            return;
        }
        let before = std::mem::replace(&mut self.users_before, users.clone());
        let mut doomed = Vec::new();
        for client in self.clients.iter_mut().filter_map(|client| client.as_deref_mut()) {
            let Some(user) = users.get(client.user) else {
                doomed.push(client.index);
                continue;
            };
            client.gate &= !gate::RESTRICTED;
            if !user.is_unlimited() {
                client.gate |= gate::RESTRICTED;
            }
            if !users.requires_auth() {
                client.gate &= !gate::NEEDS_AUTH;
            }
            let Some(subscriptions) = client.subscriptions.as_deref() else { continue };
            let left = before.get(client.user).and_then(|before| user.channels_left(before));
            if left.is_some_and(|left| !keeps_subscriptions(&left, subscriptions.iter())) {
                doomed.push(client.index);
            }
        }
        for index in doomed {
            self.log_out(index);
            match () {
                () if asking == Some(index) => self.close_after_reply(index),
                // Its own ACL LOAD may be why.
                () if self.client(index).wait == Wait::Driver => {
                    self.client(index).gate |= gate::CLOSE_AFTER_WORK;
                }
                () => self.close_now(index),
            }
        }
    }
}
