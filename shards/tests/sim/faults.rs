//! Faults planted on purpose: the simulator must notice each, within so many seeds.

use ringshard_shards::core::Fault;

use crate::world::Setup;
use crate::{bank, caches, durable, lists, registers, replica};

/// What carries messages between shards, and how it fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mail {
    Sound,
    /// Multicasts have no one order.
    Unordered,
    /// Clients' input is run before the mail that was there when it came.
    Passed,
}

/// The first seed that notices, counting from 1.
fn caught_after(fault: Option<Fault>, mail: Mail, run: fn(Setup)) -> u64 {
    const MOST: u64 = 20_000;
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = (0..MOST).find(|seed| {
        let setup = registers::setup(*seed, fault, mail == Mail::Unordered);
        let setup = Setup { passes_mail: mail == Mail::Passed, ..setup };
        std::panic::catch_unwind(|| run(setup)).is_err()
    });
    std::panic::set_hook(quiet);
    found.unwrap_or_else(|| panic!("{fault:?}, {mail:?} went unnoticed in {MOST} seeds")) + 1
}

/// What it is called, which step is left out, how mail fails, and the workload that notices.
type Planted = (&'static str, Option<Fault>, Mail, fn(Setup));

#[test]
fn each_planted_fault_is_caught() {
    let planted: [Planted; 18] = [
        ("no hold on the keys of a part", Some(Fault::NoHold), Mail::Sound, registers::run),
        ("keys let go before the last part", Some(Fault::EarlyRelease), Mail::Sound, registers::run),
        ("a slice lent though keys are held", Some(Fault::LendHeld), Mail::Sound, registers::run),
        ("a part passes one that waits for its key", Some(Fault::PassPart), Mail::Sound, registers::run),
        ("a plain request passes a waiting part", Some(Fault::PassWaiting), Mail::Sound, registers::run_waiting),
        ("no one order of multicasts", None, Mail::Unordered, registers::run),
        ("input that is run before earlier mail", None, Mail::Passed, registers::run_meeting),
        ("watches not looked at", Some(Fault::NoTouch), Mail::Sound, bank::run),
        ("ready keys of a slice that comes home forgotten", Some(Fault::NoServe), Mail::Sound, lists::run),
        ("a served waiter left with its other slices", Some(Fault::KeepWaiters), Mail::Sound, lists::run),
        ("a client that goes leaves its waiters", Some(Fault::LeaveWaiters), Mail::Sound, lists::run),
        ("notices written before replies that are awaited", Some(Fault::NoticePassesReplies), Mail::Sound, caches::run),
        ("notices taken in before the replies they came behind", Some(Fault::LettersFirst), Mail::Sound, caches::run),
        ("notices of a lent slice pass its owner's replies", Some(Fault::NoticePassesOwner), Mail::Sound, caches::run),
        ("output that does not wait for the log", Some(Fault::NoGate), Mail::Sound, durable::run),
        ("output that waits for one log of several", Some(Fault::OwnLogOnly), Mail::Sound, durable::run),
        ("logs that do not say what they tell together", Some(Fault::NoMarks), Mail::Sound, durable::run),
        ("a stream that goes back with a lent slice", Some(Fault::StreamStays), Mail::Sound, replica::run),
    ];
    for (what, fault, mail, run) in planted {
        let seeds = caught_after(fault, mail, run);
        eprintln!("{what}: caught by seed {seeds}");
    }
}
