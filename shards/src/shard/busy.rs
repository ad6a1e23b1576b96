//! A slow script (`busy-reply-threshold`) and the rest of its shard.
//!
//! When a script has run for too long it is put aside in the midst of its run, on its own stack
//! ([`crate::scripting::Paused`]), with the slices it has in hand. The shard goes on with its other clients, and each
//! turn ends with the script going on for a millisecond. To everyone else its slices are away, as when they are lent;
//! but who needs them is told so ([`Shard::refused_by_script`]) instead of being left to wait. Commands on keys of other
//! shards run as ever.
//!
//! Counterpart: `processEventsWhileBlocked` under `scriptInterrupt`, which serves everyone from inside the script.

use std::sync::atomic::Ordering::Relaxed;

use super::Shard;
use super::dispatch::execute_with;
use super::hops::RequestView;
use crate::args::{Args, OwnedArgs};
use crate::client::ClientView;
use crate::commands::{Command, CommandId, Route, flag};
use crate::db::{Keyspace, Slice};
use crate::message::ReplyHead;
use crate::resp::Reply;
use crate::router::{self, Owners, ShardId};
use crate::scripting;
use crate::scripting::debugger::Debugger;
use crate::scripting::store::hold;
use crate::transaction::Job;

/// What follows the end of a script that was put aside.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    /// Its reply is awaited under this number.
    Reply(u64),
    /// Likewise; it was sent back from a shard that has held back its client's requests since.
    LetGoOn(u64, ShardId),
    /// Its client waits for the transaction.
    Wake,
}

/// A script that was put aside, in the shard's words.
#[derive(Debug)]
pub(crate) struct Busy {
    client: ClientView,
    id: CommandId,
    args: OwnedArgs,
    /// By owner: what it has in hand.
    #[allow(clippy::vec_box)]
    slices: Vec<Option<Box<Slice>>>,
    then: Then,
    /// How long it has run, on the host's counter.
    ticks: u64,
}

impl Shard {
    /// Whether a slow script is put aside here that goes on at the end of each turn.
    pub fn is_busy(&self) -> bool {
        self.busy.is_some() && !self.core.debugger.as_deref().is_some_and(Debugger::waits)
    }

    /// What keeps a command from running while a slow script has what it needs. Commands that need no key are refused
    /// too, as in Redis, so that whoever looks after the server sees it.
    #[cold]
    pub(crate) fn refused_by_script(
        &mut self,
        index: u32,
        row: &'static Command,
        args: Args<'_>,
    ) -> Option<&'static str> {
        let any = self.core.shared.scripts.busy(None)?;
        if row.has(flag::ALLOW_BUSY) && row.name != "watch" {
            return None;
        }
        let mut names_keys = false;
        row.for_each_key(args, &mut |_| names_keys = true);
        let owners = match row.route {
            _ if row.name == "exec" => self.exec_owners(index),
            Route::Keys if names_keys => router::owners(row, args, self.core.shards),
            _ => return Some(any),
        };
        let scripts = &self.core.shared.scripts;
        match owners {
            Owners::None => Some(any),
            Owners::One(owner) => scripts.busy(Some(owner)),
            Owners::Several(owners) => owners.into_iter().find_map(|owner| scripts.busy(Some(owner))),
        }
    }

    /// Answers a request that was on its way when the script became slow.
    pub(crate) fn refuse_busy(&mut self, request: RequestView<'_>) {
        let RequestView { client, sequence, command, .. } = request;
        let text = self.core.shared.scripts.busy(Some(self.core.id)).unwrap_or(scripting::store::BUSY_SCRIPT);
        self.core.stats.count_error(text);
        self.core.stats.commands[command as usize].rejected += 1;
        let mut out = Vec::new();
        Reply::new(&mut out, client.resp).error(text);
        if client.home == self.core.id {
            if let Some(client) = self.client_by_id(client.index, client.id) {
                client.leaves_queue();
            }
        }
        self.answer_request(client, sequence, &out);
    }

    /// Sends a reply to where its client is.
    fn answer_request(&mut self, client: ClientView, sequence: u64, out: &[u8]) {
        if client.home == self.core.id {
            return self.fulfil(client.index, client.id, sequence, out);
        }
        let replies = &mut self.outbox.parcel(client.home).replies;
        replies.bytes.extend_from_slice(out);
        let head = ReplyHead { index: client.index, id: client.id, sequence, len: out.len() as u32 };
        replies.heads.push(head);
    }

    /// Puts the script aside that has just been paused, with all slices in hand.
    pub(crate) fn put_script_aside(&mut self, client: ClientView, id: CommandId, args: OwnedArgs, then: Then) {
        let slices: Vec<_> = self.slices.iter_mut().map(Option::take).collect();
        let paused = self.core.paused.as_deref().expect("the caller saw it");
        let kind = match paused.is_script() {
            _ if self.core.debugger.is_some() => hold::DEBUGGED,
            true => hold::SCRIPT,
            false => hold::FUNCTION,
        };
        for slice in slices.iter().flatten() {
            self.core.shared.scripts.held[slice.owner as usize].store(kind, Relaxed);
        }
        if let Some(own) = &slices[self.core.id as usize] {
            self.lent_report = own.report();
        }
        let ticks = self.clock.elapsed();
        self.open = false;
        self.core.may_pause = false;
        self.busy = Some(Box::new(Busy { client, id, args, slices, then, ticks }));
        self.core.shared.bump_epoch();
        self.refresh_guard();
    }

    /// Lets the script that was put aside go on for a while.
    pub(crate) fn go_on_with_script(&mut self) {
        if !self.feed_debugger() {
            return;
        }
        let Some(mut busy) = self.busy.take() else { return };
        let paused = self.core.paused.take().expect("it was put aside with its run");
        self.clock.restart();
        let mut out = Vec::new();
        let keys = Keyspace::several(&mut busy.slices);
        self.core.may_pause = true;
        execute_with(&mut self.core, keys, busy.client, busy.id, busy.args.args(), &mut out, |ctx, _| {
            scripting::go_on(ctx, *paused)
        });
        busy.ticks += self.clock.elapsed();
        if self.core.paused.is_some() {
            self.core.may_pause = false;
            self.busy = Some(busy);
            return self.send_session();
        }
        self.end_busy(*busy, &out);
    }

    fn end_busy(&mut self, busy: Busy, out: &[u8]) {
        let Busy { client, id, args, slices, then, ticks } = busy;
        let mut owners = Vec::new();
        for (owner, slice) in slices.into_iter().enumerate() {
            if let Some(slice) = slice {
                self.core.shared.scripts.held[owner].store(hold::NONE, Relaxed);
                owners.push(owner as ShardId);
                let before = self.place(owner as ShardId, Some(slice));
                debug_assert!(before.is_none());
            }
        }
        self.core.shared.bump_epoch();
        self.refresh_guard();
        let again = std::mem::take(&mut self.core.run_script_again);
        if !again {
            self.account_ticks(id, args.args(), client, ticks);
        }
        self.note_positions(&owners);
        let mut wakes = false;
        match then {
            Then::Reply(sequence) if again => self.send_script_back(client, sequence, id, args.args()),
            Then::Reply(sequence) => self.answer_request(client, sequence, out),
            Then::LetGoOn(sequence, from) => {
                debug_assert!(!again, "it has had all slices");
                self.answer_request(client, sequence, out);
                self.script_has_run(client.id, from);
            }
            Then::Wake if again => {
                let all: Vec<ShardId> = (0..self.core.shards as ShardId).collect();
                self.begin_tx_for(client, Job::Command(id, args), &all);
            }
            Then::Wake => {
                let session = self.end_session();
                if let Some(client) = self.client_by_id(client.index, client.id) {
                    client.out.extend_from_slice(&session);
                    let length = client.out.len();
                    client.out.extend_from_slice(out);
                    client.mute(length);
                    client.commands += 1;
                    client.last_command = id;
                }
                wakes = true;
            }
        }
        self.post();
        self.give_back(owners);
        if wakes && self.client_by_id(client.index, client.id).is_some() {
            self.queue_flush(client.index);
            self.wake(client.index);
        }
    }
}
