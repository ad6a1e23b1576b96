//! Where a script runs: with the slices of its declared keys if it is known to touch no other, else with all.
//!
//! A script that meets another key after all has been undone when this file hears of it. Its client's home then begins
//! it anew as a transaction over all slices. Requests of the same client that come to the shard that sent it back wait
//! meanwhile ([`Shard::hold_back`]), so that commands on one key keep their order.

use super::Shard;
use super::dispatch::{Next, execute};
use crate::args::{Args, OwnedArgs};
use crate::client::{ClientView, Wait, order};
use crate::commands::CommandId;
use crate::db::Keyspace;
use crate::message::Note;
use crate::router::{self, Owners, ShardId};
use crate::scripting;
use crate::scripting::store::Reach;
use crate::shard::busy::Then;
use crate::transaction::Job;

impl Shard {
    /// `EVAL` and its kin.
    pub(crate) fn start_script(&mut self, index: u32, id: CommandId, args: Args<'_>) -> Next {
        let own = self.core.id;
        let shards = self.core.shards;
        let row = self.core.table.row(id);
        if self.debugs(index, id) {
            let all: Vec<ShardId> = (0..shards as ShardId).collect();
            return self.start_script_tx(index, id, args, &all);
        }
        let mut names_keys = false;
        row.for_each_key(args, &mut |_| names_keys = true);
        let owners = match router::owners(row, args, shards) {
            _ if shards == 1 || (!names_keys && args.len() > 2 && args.at(2) != b"0") => Owners::One(own),
            _ if scripting::reach(&mut self.core, row.name, args) != Reach::Declared => {
                Owners::Several((0..shards as ShardId).collect())
            }
            _ if !names_keys => Owners::One(own),
            owners => owners,
        };
        let owner = match owners {
            Owners::Several(owners) => return self.start_script_tx(index, id, args, &owners),
            // Its commands, shown from elsewhere, could overtake its own line.
            Owners::One(owner) if owner != own && self.core.monitored => {
                return self.start_script_tx(index, id, args, &[owner]);
            }
            Owners::One(owner) => owner,
            Owners::None => own,
        };
        // Others may take what it does as a signal that the commands before it are done.
        if self.client(index).awaits_replies() {
            let awaited = self.client(index).order.as_ref().map_or(0, |order| order.owners());
            if awaited != order::bit(owner) || owner as usize >= order::BITS {
                self.wait_for(index, Wait::Replies);
                return Next::Again;
            }
        }
        self.show_script(index, args);
        if owner != own || !self.may_run_here(index, id, args) {
            self.client(index).script_sent = true;
            self.send_request(index, id, args, owner);
            return Next::Done;
        }
        if let Some(text) = self.out_of_memory(id, args) {
            return self.reject(index, id, text);
        }
        self.run_here(index, id, args);
        if self.core.paused.is_some() && self.busy.is_none() {
            self.uncount(id);
            self.client(index).script_sent = true;
            let sequence = self.client(index).await_reply(order::bit(own));
            let view = self.view(index);
            self.put_script_aside(view, id, args.to_owned(), Then::Reply(sequence));
            return Next::Done;
        }
        if std::mem::take(&mut self.core.run_script_again) {
            self.client(index).script_sent = true;
            let sequence = self.client(index).await_reply(order::bit(own));
            let view = self.view(index);
            self.send_script_back(view, sequence, id, args);
        }
        Next::Done
    }

    /// Runs a script here, on slices of others.
    fn start_script_tx(&mut self, index: u32, id: CommandId, args: Args<'_>, owners: &[ShardId]) -> Next {
        if self.client(index).awaits_replies() {
            self.wait_for(index, Wait::Replies);
            return Next::Again;
        }
        self.show_script(index, args);
        self.start_tx(index, Job::Command(id, args.to_owned()), owners);
        Next::Wait
    }

    /// Shows monitors a script, before the commands it will call.
    pub(crate) fn show_script(&mut self, index: u32, args: Args<'_>) {
        if self.core.monitored {
            self.show(index, args);
            self.post();
        }
    }

    /// A script that ran here has to run with all slices.
    pub(crate) fn send_script_back(&mut self, client: ClientView, sequence: u64, id: CommandId, args: Args<'_>) {
        self.hold_back(client.id);
        let own = self.core.id;
        match client.home == own {
            true => self.run_script_again(client, sequence, own, id, args.to_owned()),
            false => {
                let args = args.to_owned();
                self.outbox.note(client.home, Note::RunAgain { client, sequence, command: id, args });
            }
        }
    }

    /// A script of one of this shard's clients came back from `from`: it begins anew with all slices.
    pub(crate) fn run_script_again(
        &mut self,
        client: ClientView,
        sequence: u64,
        from: ShardId,
        id: CommandId,
        args: OwnedArgs,
    ) {
        let all: Vec<ShardId> = (0..self.core.shards as ShardId).collect();
        self.begin_tx_for(client, Job::Script(sequence, from, id, args), &all);
    }

    /// Runs a script that came back; all slices are in hand.
    pub(crate) fn run_script_with_all(
        &mut self,
        view: ClientView,
        sequence: u64,
        from: ShardId,
        id: CommandId,
        args: Args<'_>,
    ) {
        let mut out = Vec::new();
        let denied = self.refused_again(view, id, args);
        match denied.or_else(|| self.out_of_memory(id, args)) {
            Some(text) => crate::resp::Reply::new(&mut out, view.resp).error(&text),
            None => {
                let keys = Keyspace::several(&mut self.slices);
                execute(&mut self.core, keys, view, id, args, &mut out);
            }
        }
        if self.core.paused.is_some() && self.busy.is_none() {
            return self.put_script_aside(view, id, args.to_owned(), Then::LetGoOn(sequence, from));
        }
        self.account(id, args, view);
        self.fulfil(view.index, view.id, sequence, &out);
        self.script_has_run(view.id, from);
    }

    /// Tells the shard that held back a client's requests that its script has run.
    ///
    /// Here they go on when the slices go home: what waits may be a request for them, and must not be given one of those
    /// in hand before the others are given back.
    pub(crate) fn script_has_run(&mut self, client: u64, from: ShardId) {
        match from == self.core.id {
            true => self.end_hold_back(client),
            false => self.outbox.note(from, Note::HasRun(client)),
        }
    }
}
