//! The sessions of `SCRIPT DEBUG`, the shard's side: what a client sends goes to the debugger, and what that says to the
//! client; see [`crate::scripting::debugger`].

use std::sync::atomic::Ordering::Relaxed;

use super::{LogLevel, Shard};
use crate::client::{ClientView, gate};
use crate::commands::CommandId;
use crate::scripting::debugger::{DebugMode, Debugger};

impl Shard {
    /// Whether a client debugs the script that this command runs.
    pub(crate) fn debugs(&mut self, index: u32, id: CommandId) -> bool {
        self.client(index).debugs != DebugMode::No && self.core.table.row(id).name.starts_with("eval")
    }

    /// Opens the session of a script that is about to run, if its client debugs it.
    pub(crate) fn begin_session(&mut self, view: ClientView, id: CommandId) {
        if self.client_by_id(view.index, view.id).is_none() || !self.debugs(view.index, id) {
            return;
        }
        let sync = self.client(view.index).debugs == DebugMode::Sync;
        self.core.debugger = Some(Box::new(Debugger::new(view, sync)));
        self.log(LogLevel::Notice, format!("{} debugging eval session started", kind(sync)));
    }

    /// Gives the debugger what its client has sent; says whether the script goes on, or no one debugs it.
    pub(crate) fn feed_debugger(&mut self) -> bool {
        let Some(mut session) = self.core.debugger.take() else { return true };
        let view = session.client();
        let killed = self.core.shared.scripts.slow[self.core.id as usize].kill.load(Relaxed);
        let goes_on = match self.client_by_id(view.index, view.id) {
            Some(client) => {
                let bytes = client.query.pending().len();
                let comes = session.feed(client.query.pending());
                client.query.consume(bytes);
                if !comes && client.gate & gate::ENDED != 0 {
                    session.lose_client();
                }
                comes || client.gate & gate::ENDED != 0
            }
            None => {
                session.lose_client();
                true
            }
        };
        self.core.debugger = Some(session);
        goes_on || killed
    }

    /// Sends a client what the debugger has said.
    pub(crate) fn send_session(&mut self) {
        let Some(session) = self.core.debugger.as_deref_mut() else { return };
        let (view, bytes) = (session.client(), std::mem::take(&mut session.output));
        if self.client_by_id(view.index, view.id).is_some() && !bytes.is_empty() {
            self.push_output(view.index, &bytes);
        }
    }

    /// Ends a session, if one is open: what its client is still to be sent before the script's reply, with which its
    /// connection ends, as in Redis.
    pub(crate) fn end_session(&mut self) -> Vec<u8> {
        let Some(mut session) = self.core.debugger.take() else { return Vec::new() };
        session.end();
        let view = session.client();
        if self.client_by_id(view.index, view.id).is_some() {
            self.close_after_reply(view.index);
        }
        self.log(LogLevel::Notice, format!("{} debugging eval session ended", kind(session.is_sync())));
        session.output
    }
}

fn kind(sync: bool) -> &'static str {
    if sync { "Redis synchronous" } else { "Lua" }
}
