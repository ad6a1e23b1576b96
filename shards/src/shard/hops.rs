//! Messages of other shards: requests for keys here, replies to clients here, slices lent and returned.
//!
//! While this shard's slice is away, whatever needs it waits in [`Shard::waiting`], in order. With the slice at home
//! the queue holds only what waits for keys that split commands hold (`intents.rs`).

use std::sync::atomic::Ordering::Relaxed;

use super::dispatch::execute;
use super::intents::Needs;
use super::{Ask, Shard, Waiting};
use crate::args::{Args, OwnedArgs};
use crate::client::{ClientView, Wait, gate, order};
use crate::commands::CommandId;
use crate::commands::spec::Handler;
use crate::core::{Core, Fault};
use crate::db::{Keyspace, Slice};
use crate::message::{Answer, Detail, Note, Parcel, Question, RequestBatch, RequestHead, SPANS, SPLIT, Switch};
use crate::router::ShardId;
use crate::shard::blocking::Unblock;
use crate::shard::busy::Then;
use crate::tracking::Target;
use crate::transaction::{Job, TxId};

/// Keys of the next parcel that are looked ahead for: with more of them the parcel looks ahead well enough by itself.
const EXPECTED_KEYS: usize = 16;

/// A request that waits for the slice to come home.
#[derive(Debug)]
pub(crate) struct OwnedRequest {
    pub(crate) client: ClientView,
    pub(crate) sequence: u64,
    pub(crate) command: CommandId,
    pub(crate) args: OwnedArgs,
    pub(crate) needs: Needs,
}

/// A request whose arguments lie elsewhere.
#[derive(Clone, Copy)]
pub(crate) struct RequestView<'a> {
    pub(crate) client: ClientView,
    pub(crate) sequence: u64,
    pub(crate) command: CommandId,
    pub(crate) args: Args<'a>,
}

impl RequestView<'_> {
    /// As what can wait for the slice or for keys.
    fn to_waiting(self, needs: Needs) -> Waiting {
        let RequestView { client, sequence, command, args } = self;
        Waiting::Request(Box::new(OwnedRequest { client, sequence, command, args: args.to_owned(), needs }))
    }
}

impl Shard {
    /// Sends a command to the shard that owns its keys; the client's later replies wait behind this one's.
    pub(crate) fn send_request(&mut self, index: u32, id: CommandId, args: Args<'_>, owner: ShardId) {
        let own = self.core.id;
        let client = self.clients[index as usize].as_deref_mut().expect("the caller holds a live client's index");
        let view = client.view(own);
        client.commands += 1;
        client.last_command = id;
        let sequence = client.await_reply(order::bit(owner));
        if owner == own {
            client.joins_queue();
            if client.queued_here == 1 {
                // This shard is its own queue.
                let request = RequestView { client: view, sequence, command: id, args };
                self.make_wait(request);
                return;
            }
            // What stands before it may still be in the mailbox.
        }
        self.core.stats.hops += 1;
        self.outbox.parcel(owner).requests.push(view, sequence, id, args);
    }

    /// Takes in a parcel: notes first (an end of watching must come before a new watch), then replies, then requests.
    /// What ends a wait or a watch that a request of the same parcel begins comes behind that.
    pub(crate) fn deliver(&mut self, mut parcel: Box<Parcel>) {
        let from = parcel.from;
        self.merge_needs(&parcel.needs);
        parcel.releases.drain(..).for_each(|slot| self.release_keys(from, slot));
        // A message comes after the replies that its shard gave before.
        let (mut letters, mut endings) = (Vec::new(), Vec::new());
        let requests = &parcel.requests;
        for note in parcel.notes.drain(..) {
            match note {
                Note::Letter(letter) if !self.core.leaves_out(Fault::LettersFirst) => letters.push(letter),
                note if requests.is_ended_by(&note) => endings.push(note),
                note => self.take_note(from, note),
            }
        }
        let mut at = 0;
        for head in &parcel.replies.heads {
            let end = at + head.len as usize;
            let reply = &parcel.replies.bytes[at..end];
            match head.sequence & SPLIT {
                0 => {
                    self.fulfil(head.index, head.id, head.sequence, reply);
                    if self.client_memory_limit != 0 && self.client_by_id(head.index, head.id).is_some() {
                        self.count_memory(head.index);
                    }
                }
                _ => self.take_part(from, head.sequence as u32, reply),
            }
            at = end;
        }
        if parcel.under_way_bytes != 0 {
            self.count_arrived(&parcel);
        }
        letters.iter().for_each(|letter| self.take_letter(letter));
        self.run_released();
        self.serve_requests(&parcel.requests);
        endings.into_iter().for_each(|note| self.take_note(from, note));
        self.run_released();
        self.outbox.recycle(parcel);
    }

    /// Has the buckets of a parcel's keys fetched, ahead of the parcel: it may hold too few for one to be waited for while
    /// the others come.
    #[inline]
    pub fn expect(&self, parcel: &Parcel) {
        let (Some(head), Some(slice)) = (parcel.requests.heads.first(), &self.slices[self.core.id as usize]) else {
            return;
        };
        let dict = &slice.dbs[head.client.db as usize].dict;
        parcel.requests.places.iter().take(EXPECTED_KEYS).for_each(|place| dict.prefetch_bucket(place.hash()));
    }

    fn make_wait(&mut self, request: RequestView<'_>) {
        let needs = self.intents.needs(&self.core, &request);
        self.enqueue_waiting(request.to_waiting(needs));
    }

    fn serve_requests(&mut self, batch: &RequestBatch) {
        self.clock.restart();
        let own = self.core.id;
        // As with a pipeline at home: buckets first, then entries, then the commands. Buckets were asked for in
        // chunks so that early lines are still in the cache when their commands run.
        let mut rest = &batch.heads[..];
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at(batch.chunk(rest));
            rest = behind;
            if let Some(slice) = &self.slices[own as usize] {
                let dict = &slice.dbs[chunk[0].client.db as usize].dict;
                let places = batch.places_of(chunk);
                places.iter().for_each(|place| dict.prefetch_bucket(place.hash()));
                places.iter().for_each(|place| dict.prefetch_element(place.hash()));
            }
            for head in chunk {
                let RequestHead { client, sequence, command, .. } = *head;
                let request = RequestView { client, sequence, command, args: batch.args(head) };
                if self.open && !self.guarded && sequence & SPLIT == 0 && client.home != own {
                    self.serve_plain(request);
                } else if self.may_run(&request) {
                    self.serve(client, sequence, command, request.args);
                } else if self.busy.is_some() && self.core.debugger.is_none() && sequence & SPLIT == 0 {
                    self.refuse_busy(request);
                } else {
                    self.make_wait(request);
                }
            }
        }
    }

    /// As [`Shard::serve`], for a request of another shard when nothing here asks for more checks: nearly all are so.
    #[inline]
    fn serve_plain(&mut self, request: RequestView<'_>) {
        let RequestView { client, sequence, command, args } = request;
        let replies = &mut self.outbox.parcel(client.home).replies;
        let start = replies.bytes.len();
        let keys = Keyspace::one(&mut self.slices, self.core.id);
        execute(&mut self.core, keys, client, command, args, &mut replies.bytes);
        if !self.goes_on(&request) {
            self.end_reply(client, sequence, start);
            self.account(command, args, client);
        }
        self.post();
        self.serve_ready();
    }

    /// Ends a reply that begins at `start` of those that go to the client's home.
    #[inline]
    fn end_reply(&mut self, client: ClientView, sequence: u64, start: usize) {
        self.outbox.parcel(client.home).replies.end_reply(client, sequence, start);
        if self.client_memory_limit != 0 {
            self.count_under_way(client.home);
        }
    }

    /// Whether a command that has run here is not over: it waits for keys, or is a script that is sent back or put aside.
    #[inline]
    fn goes_on(&mut self, request: &RequestView<'_>) -> bool {
        let Core { block_request, run_script_again, paused, .. } = &self.core;
        (block_request.is_some() || *run_script_again || paused.is_some()) && self.see_to_the_rest(request)
    }

    #[cold]
    fn see_to_the_rest(&mut self, request: &RequestView<'_>) -> bool {
        let RequestView { client, sequence, command, args } = *request;
        if let Some(request) = self.core.block_request.take() {
            self.register(client, sequence, command, args, *request);
        } else if std::mem::take(&mut self.core.run_script_again) {
            self.send_script_back(client, sequence, command, args);
        } else if self.core.paused.is_some() && self.busy.is_none() {
            self.put_script_aside(client, command, args.to_owned(), Then::Reply(sequence));
        } else {
            return false;
        }
        true
    }

    /// Runs a request on this shard's slice, and sends the reply home.
    pub(crate) fn serve(&mut self, client: ClientView, sequence: u64, id: CommandId, args: Args<'_>) {
        let refused = if sequence & SPLIT != 0 { None } else { self.out_of_memory(id, args) };
        if let Some(text) = &refused {
            self.core.stats.commands[id as usize].rejected += 1;
            self.core.stats.count_error(text);
        }
        self.run_request(client, sequence, id, args, refused);
        self.post();
        self.serve_ready();
    }

    /// As [`Shard::serve`], for a request that had to wait: what its user may do is asked again. A part of a split
    /// command is not asked about, for the other parts may have run.
    pub(crate) fn serve_late(&mut self, client: ClientView, sequence: u64, id: CommandId, args: Args<'_>) {
        let denied = if sequence & SPLIT != 0 { None } else { self.refused_again(client, id, args) };
        match denied {
            None => self.serve(client, sequence, id, args),
            refused => self.run_request(client, sequence, id, args, refused),
        }
    }

    /// Runs a request, or answers it with the reason why not. The coordinator of a split command has asked for memory
    /// before it sent the parts.
    fn run_request(
        &mut self,
        client: ClientView,
        sequence: u64,
        id: CommandId,
        args: Args<'_>,
        refused: Option<String>,
    ) {
        let own = self.core.id;
        let part = sequence & SPLIT != 0;
        let (args, span) = self.open_span(args, sequence & SPANS != 0 && part);
        let runs = refused.is_none();
        if client.home == own {
            if let Some(client) = self.client_by_id(client.index, client.id) {
                client.leaves_queue();
            }
            if part {
                self.hold_keys(own, &RequestView { client, sequence, command: id, args });
                self.run_own_part(client, sequence as u32, id, args, span);
                return self.clock.restart();
            }
            let mut out = Vec::new();
            match refused {
                Some(text) => crate::resp::Reply::new(&mut out, client.resp).error(&text),
                None => {
                    let keys = Keyspace::one(&mut self.slices, own);
                    execute(&mut self.core, keys, client, id, args, &mut out);
                }
            }
            if self.goes_on(&RequestView { client, sequence, command: id, args }) {
                return;
            }
            self.fulfil(client.index, client.id, sequence, &out);
        } else {
            let replies = &mut self.outbox.parcel(client.home).replies;
            let start = replies.bytes.len();
            match refused {
                Some(text) => crate::resp::Reply::new(&mut replies.bytes, client.resp).error(&text),
                None => {
                    let keys = Keyspace::one(&mut self.slices, own);
                    execute(&mut self.core, keys, client, id, args, &mut replies.bytes);
                }
            }
            self.close_span(span);
            if self.goes_on(&RequestView { client, sequence, command: id, args }) {
                return;
            }
            self.end_reply(client, sequence, start);
            if part {
                self.hold_keys(client.home, &RequestView { client, sequence, command: id, args });
                return self.clock.restart();
            }
        }
        if runs {
            self.account(id, args, client);
        }
    }

    fn take_note(&mut self, from: ShardId, note: Note) {
        match note {
            Note::Acquire(tx) => {
                self.enqueue_waiting(Waiting::Acquire(tx));
                self.run_waiting();
            }
            Note::Lent { tx, slice } => self.take_lent(tx, slice),
            Note::Return(slice) => self.take_home(slice),
            Note::Ask(number, questions) => {
                if self.client_memory_limit != 0 && questions.iter().any(|ask| matches!(ask, Question::Clients { .. }))
                {
                    // Who was to go when another shard asked is not shown, though this shard's turn has not ended.
                    self.count_and_evict_clients();
                }
                let answers = questions.into_iter().map(|question| self.answer(question)).collect();
                self.outbox.note(from, Note::Answer(number, answers));
            }
            Note::Answer(number, answers) => self.take_answers(number, from, answers),
            Note::Unwatch { client, keys, .. } => self.unwatch_here(client, keys),
            Note::Commit { slot, client, write, spans } => self.commit_here(from, slot, client, write.args(), spans),
            Note::Ready { index, id } => self.retry_spanning(index, id),
            Note::Unblock { id, how } => self.unblock_here(id, how),
            Note::Letter(letter) => self.take_letter(&letter),
            Note::RunAgain { client, sequence, command, args } => {
                self.run_script_again(client, sequence, from, command, args)
            }
            Note::Stream => {}
            Note::HasRun(client) => {
                self.end_hold_back(client);
                self.run_waiting();
            }
            Note::Slow(entry) => self.log_slow(*entry),
            Note::Evict => self.evict_own(),
            Note::Denied(client, denial) => self.log_denial(client, *denial),
            Note::EvictClients => self.evict_clients(),
            Note::EndPause => {
                self.end_pauses();
                self.refresh_guard();
            }
        }
    }

    /// Gives this shard's slice to the coordinator of `tx`.
    pub(crate) fn lend(&mut self, tx: TxId) {
        let own = self.core.id;
        self.open = false;
        self.drain_log();
        let slice = self.place(own, None).expect("the caller saw it");
        self.lent_report = slice.report();
        self.core.shared.persistence.changes[own as usize].0.store(slice.changes, Relaxed);
        if tx.coordinator == own {
            self.take_lent(tx, slice);
        } else {
            self.outbox.note(tx.coordinator, Note::Lent { tx, slice });
        }
    }

    /// Takes a slice for a transaction that this shard coordinates, and runs it if that was the last.
    fn take_lent(&mut self, tx: TxId, slice: Box<Slice>) {
        let pending = self.txs.get_mut(&tx.number).expect("a slice comes for a transaction that waits for it");
        pending.have.push((slice.owner, slice));
        pending.missing -= 1;
        if pending.missing > 0 {
            return;
        }
        let tx = self.txs.remove(&tx.number).expect("it was just there");
        let owners: Vec<ShardId> = tx.have.iter().map(|(owner, _)| *owner).collect();
        for (owner, slice) in tx.have {
            let before = self.place(owner, Some(slice));
            debug_assert!(before.is_none());
        }
        self.heed_logging(owners[0]);
        let goes_on = self.run_job(tx.client, tx.job);
        if self.slices[owners[0] as usize].is_none() {
            // A script was put aside with them; what follows comes when it ends.
            return;
        }
        self.note_positions(&owners);
        self.post();
        if self.core.shared.shutting_down.load(Relaxed) {
            // What is written now would be acknowledged and lost.
            return self.freeze();
        }
        self.give_back(owners);
        if goes_on && self.client_by_id(tx.client.index, tx.client.id).is_some() {
            self.queue_flush(tx.client.index);
            self.wake(tx.client.index);
        }
    }

    /// Sends slices in hand home.
    pub(crate) fn give_back(&mut self, owners: Vec<ShardId>) {
        if !self.core.leaves_out(Fault::StreamStays) {
            self.drain_streams();
        }
        let own = self.core.id;
        let mut home = None;
        for owner in owners {
            let slice = self.place(owner, None).expect("a job leaves the slices in their places");
            match owner == own {
                true => home = Some(slice),
                false => self.outbox.note(owner, Note::Return(slice)),
            }
        }
        if let Some(slice) = home {
            self.take_home(slice);
        }
    }

    /// This shard's slice is back: what waited for it goes on, until it is lent again.
    fn take_home(&mut self, slice: Box<Slice>) {
        let own = self.core.id;
        debug_assert_eq!(slice.owner, own);
        self.place(own, Some(slice));
        self.heed_logging(own);
        self.tell_late_effects();
        self.settle_returned();
        self.clock.restart();
        if !self.core.leaves_out(crate::core::Fault::NoServe) {
            self.serve_ready();
        }
        self.run_waiting();
    }

    /// Asks every shard, this one included; the client waits for the answers.
    pub(crate) fn ask_all(&mut self, index: u32, questions: Vec<Question>) {
        let number = self.next_number();
        let id = self.client(index).id;
        self.wait_for(index, Wait::Answers);
        let shards = self.core.shards;
        let mut answers: Vec<Vec<Answer>> = (0..shards).map(|_| Vec::new()).collect();
        let own = self.core.id;
        answers[own as usize] = questions.iter().cloned().map(|question| self.answer(question)).collect();
        self.asks.insert(number, Ask { client: (index, id), missing: shards - 1, answers });
        for shard in (0..shards as ShardId).filter(|shard| *shard != own) {
            self.outbox.note(shard, Note::Ask(number, questions.clone()));
        }
    }

    fn take_answers(&mut self, number: u64, from: ShardId, answers: Vec<Answer>) {
        let ask = self.asks.get_mut(&number).expect("an answer comes to a question that waits for it");
        ask.answers[from as usize] = answers;
        ask.missing -= 1;
        if ask.missing > 0 {
            return;
        }
        let ask = self.asks.remove(&number).expect("it was just there");
        let (index, id) = ask.client;
        let Some(client) = self.client_by_id(index, id) else { return };
        if client.wait == Wait::Room {
            return self.wake(index);
        }
        let Some(parked) = client.parked.take() else { return };
        client.wait = Wait::No;
        client.gate &= !gate::WAITING;
        let (command, owned) = *parked;
        // By question instead of by shard.
        let questions = ask.answers.first().map_or(0, |first| first.len());
        let mut by_question: Vec<Vec<Answer>> = (0..questions).map(|_| Vec::new()).collect();
        for shard in ask.answers {
            for (question, answer) in shard.into_iter().enumerate() {
                by_question[question].push(answer);
            }
        }
        if self.core.table.row(command).name == "exec" {
            self.exec_with_answers(index, by_question);
        } else if let Handler::Gather { run, .. } = self.core.table.row(command).handler {
            let answers = by_question.into_iter().next().unwrap_or_default();
            self.run_home(index, command, owned.args(), |shard| run(shard, index, owned.args(), answers));
        }
        if self.clients[index as usize].as_deref().is_some_and(|client| client.gate & gate::WAITING == 0) {
            self.wake(index);
        }
    }

    /// This shard's answer to a question.
    pub(crate) fn answer(&mut self, question: Question) -> Answer {
        match question {
            Question::Report { detail } => Answer::Report(Box::new(self.report(detail))),
            Question::ResetStat => {
                let report = self.report(Detail::Sums);
                self.core.stats.reset();
                Answer::Report(Box::new(report))
            }
            Question::Clients { ids, asking } => {
                let now = self.core.now_ms;
                let table = self.core.table;
                let list = self
                    .clients()
                    .filter(|client| ids.as_ref().is_none_or(|ids| ids.contains(&client.id)))
                    .map(|client| {
                        let user = self.core.user_name(client.user);
                        crate::commands::connection::client_info(client, user, asking, table, now)
                    })
                    .collect();
                Answer::Clients(list)
            }
            Question::KillClients { filter, .. } => {
                let now = self.core.now_ms;
                let doomed: Vec<u32> = self
                    .clients()
                    .filter(|client| filter.matches(client, self.core.user_name(client.user), now))
                    .map(|client| client.index)
                    .collect();
                for index in &doomed {
                    // The one that asks is still to be answered, and goes then.
                    if filter.asking != Some(self.client(*index).id) {
                        self.close_now(*index);
                    }
                }
                Answer::Count(doomed.len())
            }
            Question::HeedConfig(excess) => {
                self.heed_config(excess);
                Answer::Count(1)
            }
            Question::Find(id) => {
                let found = self.clients().find(|client| client.id == id).map(|client| client.index);
                Answer::Found(found.map(|index| Target { home: self.core.id, index, id }))
            }
            Question::Switch(switch, on) => {
                match switch {
                    Switch::ActiveExpire => self.core.active_expire = on,
                    Switch::PauseCron => self.core.cron_paused = on,
                    Switch::DictResizing => self.core.dict_resizing = on,
                }
                Answer::Count(1)
            }
            Question::Unblock { id, error } => {
                let how = if error { Unblock::Error } else { Unblock::Timeout };
                if self.unblock_log_waiter(id, error) {
                    return Answer::Count(1);
                }
                let found = self.clients().find(|client| client.id == id && client.blocked.is_some());
                match found.map(|client| client.index) {
                    Some(index) => Answer::Count(self.unblock_client(index, how) as usize),
                    None => Answer::Count(0),
                }
            }
        }
    }

    /// Runs the queue of `MULTI`, on lent slices or here.
    pub(crate) fn start_exec(&mut self, index: u32) -> crate::commands::CommandResult {
        use crate::router::Owners;
        let own = self.core.id;
        match self.exec_owners(index) {
            Owners::None => self.exec_queue(index),
            Owners::One(owner) if owner == own && self.open => self.exec_queue(index),
            Owners::One(owner) => {
                self.start_tx(index, Job::Exec, &[owner]);
                return Err(crate::commands::CommandError::NoReply);
            }
            Owners::Several(owners) => {
                self.start_tx(index, Job::Exec, &owners);
                return Err(crate::commands::CommandError::NoReply);
            }
        }
        Ok(())
    }
}
