//! Commands over a connection (`SELECT`, `PING`, `CONFIG GET` …) called by a script, which has none.
//!
//! A script runs on the shard that owns its keys, wherever its client is. Such commands therefore run on a shard that
//! stands in for it: with one client and no loop, but with this shard's core and the slices in the script's hands for
//! as long as the command lasts.

use super::run::Run;
use crate::args::Args;
use crate::client::{Client, Peer};
use crate::commands::spec::Handler;
use crate::commands::{CommandError, CommandId};
use crate::resp::Reply;
use crate::shard::Shard;

/// Runs a command; its reply goes to `out`.
pub(super) fn run(run: &mut Run<'_>, id: CommandId, args: Args<'_>, out: &mut Vec<u8>) {
    let stand_in = run.core.stand_in.take();
    let mut shard =
        stand_in.unwrap_or_else(|| Box::new(Shard::new(run.core.id, run.core.shared.clone(), run.core.rng.next_u64())));
    std::mem::swap(&mut shard.core, &mut *run.core);
    run.keys.exchange(&mut shard.slices);
    let view = run.client;
    let mut client = Box::new(Client::new(view.id, 0, Peer { local: true, ..Peer::default() }, shard.core.now_ms));
    (client.db, client.resp) = (view.db, view.resp);
    shard.clients = vec![Some(client)];
    let result = match shard.core.table.row(id).handler {
        Handler::Home(run) => run(&mut shard, 0, args),
        Handler::Gather { question, run } => {
            let answers = question(args).map(|question| vec![shard.answer(question)]).unwrap_or_default();
            run(&mut shard, 0, args, answers)
        }
        Handler::Data(_) | Handler::Container => unreachable!("the caller has looked"),
    };
    let stats = &mut shard.core.stats;
    stats.commands_processed += 1;
    stats.commands[id as usize].calls += 1;
    if let Err(error) = result {
        if error != CommandError::NoReply {
            let text = error.text();
            stats.count_error(&text);
            stats.commands[id as usize].failed += 1;
            Reply::new(out, view.resp).error(&text);
        }
    }
    if let Some(client) = shard.clients.pop().flatten() {
        out.extend_from_slice(&client.out);
        run.client.db = client.db;
    }
    shard.flush.clear();
    shard.core.for_driver.append(&mut shard.effects);
    run.keys.exchange(&mut shard.slices);
    std::mem::swap(&mut shard.core, &mut *run.core);
    if out.is_empty() {
        // It would have made a client wait.
        Reply::new(out, view.resp).error("ERR This Redis command is not allowed from script");
    }
    run.core.stand_in = Some(shard);
}
