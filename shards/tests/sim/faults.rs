//! Faults planted on purpose: the simulator must notice each, within so many seeds.

use ringshard_shards::core::Fault;

use crate::world::Setup;
use crate::{bank, caches, durable, lists, registers, replica};

/// The first seed that notices, counting from 1.
fn caught_after(fault: Option<Fault>, unordered: bool, run: fn(Setup)) -> u64 {
    const MOST: u64 = 20_000;
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = (0..MOST).find(|seed| {
        let setup = registers::setup(*seed, fault, unordered);
        std::panic::catch_unwind(|| run(setup)).is_err()
    });
    std::panic::set_hook(quiet);
    found.unwrap_or_else(|| panic!("{fault:?} went unnoticed in {MOST} seeds")) + 1
}

/// What it is called, which step is left out, whether multicasts lose their order, and the workload that notices.
type Planted = (&'static str, Option<Fault>, bool, fn(Setup));

#[test]
fn each_planted_fault_is_caught() {
    let planted: [Planted; 18] = [
        ("no hold on the keys of a part", Some(Fault::NoHold), false, registers::run),
        ("no count of the keys that are read", Some(Fault::UncountedReads), false, registers::run),
        ("keys let go before the last part", Some(Fault::EarlyRelease), false, registers::run),
        ("a slice lent though keys are held", Some(Fault::LendHeld), false, registers::run),
        ("a request passes its client's earlier one", Some(Fault::PassOwn), false, registers::run),
        ("a part passes one that waits for its key", Some(Fault::PassPart), false, registers::run),
        ("no one order of multicasts", None, true, registers::run),
        ("watches not looked at", Some(Fault::NoTouch), false, bank::run),
        ("ready keys of a slice that comes home forgotten", Some(Fault::NoServe), false, lists::run),
        ("a served waiter left with its other slices", Some(Fault::KeepWaiters), false, lists::run),
        ("a client that goes leaves its waiters", Some(Fault::LeaveWaiters), false, lists::run),
        ("notices written before replies that are awaited", Some(Fault::NoticePassesReplies), false, caches::run),
        ("notices taken in before the replies they came behind", Some(Fault::LettersFirst), false, caches::run),
        ("notices of a lent slice pass its owner's replies", Some(Fault::NoticePassesOwner), false, caches::run),
        ("output that does not wait for the log", Some(Fault::NoGate), false, durable::run),
        ("output that waits for one log of several", Some(Fault::OwnLogOnly), false, durable::run),
        ("logs that do not say what they tell together", Some(Fault::NoMarks), false, durable::run),
        ("a stream that goes back with a lent slice", Some(Fault::StreamStays), false, replica::run),
    ];
    for (what, fault, unordered, run) in planted {
        let seeds = caught_after(fault, unordered, run);
        eprintln!("{what}: caught by seed {seeds}");
    }
}
