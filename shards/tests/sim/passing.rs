//! A part runs on keys that an earlier part of another command holds: two stories of what keeps the later command from
//! being seen without the earlier one. In each, `later` is answered while `earlier` still has a part to run; `later` has
//! written over it, so it comes behind it, and who asks from then on must find `earlier` done.

use ringshard_shards::core::Fault;

use crate::registers;
use crate::world::{Setup, Sim};

fn world(fault: Option<Fault>, passes_mail: bool) -> Sim {
    Sim::new(Setup { shards: 3, clients: 0, passes_mail, ..registers::setup(1, fault, false) })
}

/// The earlier command's part is in a mailbox that its owner does not look into.
fn a_part_in_the_mailbox(passes_mail: bool) -> String {
    let mut sim = world(None, passes_mail);
    let [a, b, c] = sim.keys(3).try_into().expect("three keys");
    let (earlier, later, asks) = (sim.connect_to(0), sim.connect_to(2), sim.connect_to(1));
    sim.settle();
    sim.read(earlier, &["MSET", &a, "1", &b, "1"]);
    sim.settle_without(1);
    sim.read(later, &["MSET", &a, "2", &c, "2"]);
    sim.settle_without(1);
    assert_eq!((sim.reply(earlier), sim.reply(later)), (None, Some("OK".into())));
    sim.read(asks, &["GET", &b]);
    sim.settle();
    assert_eq!(sim.reply(earlier), Some("OK".into()));
    sim.reply(asks).expect("it was answered")
}

/// It waits for a key that `MSETNX` holds.
fn a_part_that_waits(fault: Option<Fault>) -> String {
    let mut sim = world(fault, false);
    let [a, b, c, a2, b2, _, _, b3] = sim.keys(8).try_into().expect("eight keys");
    let (looks, earlier, later, asks) = (sim.connect_to(2), sim.connect_to(0), sim.connect_to(0), sim.connect_to(1));
    sim.settle();
    sim.read(looks, &["MSETNX", &b, "0", &c, "0"]);
    sim.settle_without(2);
    sim.read(earlier, &["MSET", &a, "1", &b, "1", &b2, "1"]);
    sim.settle_without(2);
    sim.read(later, &["MSET", &a, "2", &a2, "2", &b3, "2"]);
    sim.settle_without(2);
    assert_eq!((sim.reply(earlier), sim.reply(later)), (None, Some("OK".into())));
    sim.read(asks, &["GET", &b2]);
    sim.settle();
    assert_eq!((sim.reply(looks), sim.reply(earlier)), (Some("1".into()), Some("OK".into())));
    sim.reply(asks).expect("it was answered")
}

/// What another client reads of a client's second write, while the first, on the same shard, still waits.
fn a_second_write(fault: Option<Fault>) -> Option<String> {
    let mut sim = world(fault, false);
    let [_, b, c, _, b2] = sim.keys(5).try_into().expect("five keys");
    let (looks, writes, asks) = (sim.connect_to(2), sim.connect_to(0), sim.connect_to(1));
    sim.settle();
    sim.read(looks, &["MSETNX", &b, "0", &c, "0"]);
    sim.settle_without(2);
    sim.read(writes, &["SET", &b, "1"]);
    sim.read(writes, &["SET", &b2, "1"]);
    sim.settle_without(2);
    sim.read(asks, &["GET", &b2]);
    sim.settle_without(2);
    let read = sim.reply(asks);
    sim.settle();
    assert_eq!((sim.reply(writes), sim.reply(writes)), (Some("OK".into()), Some("OK".into())));
    read
}

/// What `MGET` finds if one of its parts is put into a mailbox later than the other, and two writes come between; or that
/// the first of them waits.
fn two_writes_between_parts(fault: Option<Fault>) -> String {
    let mut sim = world(fault, false);
    let [_, b, c] = sim.keys(3).try_into().expect("three keys");
    let (reads, writes) = (sim.connect_to(0), sim.connect_to(1));
    sim.settle();
    sim.read(reads, &["MGET", &b, &c]);
    sim.put(0);
    sim.take(1);
    // What the part has answered waits in shard 1, which may go on.
    sim.put(1);
    sim.read(writes, &["SET", &b, "1"]);
    if sim.reply(writes).is_none() {
        return "waits".into();
    }
    sim.read(writes, &["SET", &c, "1"]);
    sim.put(1);
    sim.take(2);
    sim.settle();
    sim.reply(reads).expect("it was answered")
}

#[test]
fn nothing_is_written_between_the_parts_of_a_read() {
    assert_eq!(two_writes_between_parts(None), "waits");
    let torn = two_writes_between_parts(Some(Fault::UncountedReads));
    assert_eq!(torn, "[nil \"1\"]", "keys that are read are never counted");
}

#[test]
fn a_clients_writes_on_a_shard_keep_their_order() {
    assert_eq!(a_second_write(None), None);
    assert_eq!(a_second_write(Some(Fault::PassOwn)), Some("\"1\"".into()), "a request passes its client's earlier one");
}

#[test]
fn who_comes_after_a_later_command_finds_the_earlier_one_done() {
    assert_eq!(a_part_in_the_mailbox(false), "\"1\"");
    assert_eq!(a_part_that_waits(None), "\"1\"");
}

#[test]
fn what_keeps_the_order_of_parts_is_needed() {
    assert_eq!(a_part_in_the_mailbox(true), "nil", "input that is run before earlier mail");
    assert_eq!(a_part_that_waits(Some(Fault::PassWaiting)), "nil", "a plain request that passes a part");
}
