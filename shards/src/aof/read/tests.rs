use super::*;
use crate::core::Rng;
use crate::propagate::{EffectLog, write_command};
use crate::testing::cases;

fn command(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_command(&mut bytes, line.split(' ').map(str::as_bytes).collect::<Vec<_>>().into_iter());
    bytes
}

#[test]
fn sets_of_shards_come_back() {
    assert_eq!(set_of(&[0, 1, 3]), "b");
    assert_eq!(set_of(&[7, 4]), "90");
    for set in [&[0][..], &[1, 2], &[0, 63, 64, 700], &[1023]] {
        assert_eq!(shards_of(&set_of(set)).unwrap(), set);
    }
    for bad in ["", "g", "0", "-1"] {
        assert_eq!(shards_of(bad), None, "{bad}");
    }
}

#[test]
fn a_log_with_all_kinds_of_things_is_whole() {
    let mut log = EffectLog::default();
    log.append(0, [&b"SET"[..], b"k", b"v\r\n*1"].into_iter());
    log.open_group();
    log.append(2, [&b"DEL"[..], b"a"].into_iter());
    log.append(2, [&b"DEL"[..], b""].into_iter());
    log.close_spanning_group(7, &Arc::from([0, 2]));
    log.open_group();
    log.close_spanning_group(8, &Arc::from([0, 1]));
    let end = log.position();
    let bytes = [&b"#TS:12\r\n"[..], &log.take()].concat();
    let scanned = scan(&bytes);
    assert_eq!((scanned.valid, &scanned.end), (bytes.len() as u64, &End::Whole));
    assert_eq!(scanned.commands, 7, "SELECT, SET, MULTI, SELECT, two DEL, EXEC");
    let marks: Vec<_> = scanned.marks.iter().map(|mark| (mark.number, mark.participants.to_vec())).collect();
    assert_eq!(marks, [(7, vec![0, 2]), (8, vec![0, 1])]);
    assert_eq!(scanned.marks[1].end, end + 8);
    // However it comes.
    let mut slowly = Scan::new(0, None);
    bytes.iter().for_each(|byte| assert!(slowly.feed(&[*byte], |_, _| {})));
    assert_eq!(slowly.finish(), scanned);
}

#[test]
fn what_belongs_together_is_whole_or_not_there() {
    let plain = command("SET k v");
    let group = [command("MULTI"), command("SET a 1"), command("EXEC")].concat();
    let bytes = [&plain[..], &group, &plain].concat();
    let ends = [0, plain.len(), plain.len() + group.len(), bytes.len()];
    for cut in 0..=bytes.len() {
        let scanned = scan(&bytes[..cut]);
        let valid = *ends.iter().rev().find(|end| **end <= cut).unwrap();
        assert_eq!(scanned.valid, valid as u64, "cut at {cut}");
        assert_eq!(scanned.end == End::Whole, valid == cut, "cut at {cut}");
        assert!(!matches!(scanned.end, End::Bad(..)), "cut at {cut}");
    }
    assert_eq!(scan(&bytes[..ends[2] - command("EXEC").len()]).end, End::Truncated { in_multi: true });
    let spanning = [&b"#RS:TX:9:3:"[..], plain.len().to_string().as_bytes(), b"\r\n", &plain].concat();
    for cut in 1..spanning.len() {
        let scanned = scan(&spanning[..cut]);
        assert_eq!((scanned.valid, scanned.marks.len()), (0, 0), "cut at {cut}");
    }
    assert_eq!(scan(&spanning).marks.len(), 1);
}

#[test]
fn what_is_no_log_is_told_with_its_place() {
    for (bytes, at) in [
        (&b"SET k v\r\n"[..], 0),
        (b"*0\r\n", 0),
        (b"*-1\r\n", 0),
        (b"*x\r\n", 0),
        (b"*1\r\n:3\r\n", 0),
        (b"*1\r\n$-1\r\n", 0),
        (b"*1\r\n$1\r\nabc\r\n", 0),
        (b"*1\r\n$1\r\na\r\n\0\0\0x", 11),
        (b"#RS:TX:1:3:1\r\n*1\r\n$1\r\na\r\n", 25),
    ] {
        let found = scan(bytes).end;
        assert!(matches!(found, End::Bad(place, _) if place == at), "{found:?} {:?}", String::from_utf8_lossy(bytes));
    }
    let long = [b"*1".to_vec(), vec![b'1'; 2000]].concat();
    assert!(matches!(scan(&long).end, End::Bad(0, _)));
    let zeros = scan(b"*1\r\n$1\r\na\r\n\0\0\0");
    assert_eq!((zeros.valid, zeros.end), (11, End::Truncated { in_multi: false }), "bytes that were never written");
    // A length that nothing can hold costs nothing.
    assert_eq!(scan(b"*1\r\n$999999999\r\nabc").end, End::Truncated { in_multi: false });
}

#[test]
fn broken_logs_end_in_an_error_and_never_in_a_panic() {
    let mut rng = Rng::new(3);
    let mut good = b"#TS:3\r\n".to_vec();
    for n in 0..20 {
        good.extend(command(&format!("SET key:{n} value:{n}")));
        if n % 3 == 0 {
            let inner = [command("MULTI"), command("DEL a b c"), command("EXEC")].concat();
            good.extend(format!("#RS:TX:{n}:7:{}\r\n", inner.len()).into_bytes());
            good.extend(inner);
        }
    }
    for round in 0..cases(20_000) {
        let mut bytes = good.clone();
        match round % 4 {
            0 => bytes.truncate(rng.below(bytes.len() as u64) as usize),
            1 => {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << rng.below(8);
            }
            2 => {
                for _ in 0..5 {
                    let at = rng.below(bytes.len() as u64) as usize;
                    bytes[at] = rng.below(256) as u8;
                }
            }
            _ => {
                let from = rng.below(bytes.len() as u64) as usize;
                let to = from + rng.below((bytes.len() - from) as u64 + 1) as usize;
                bytes.drain(from..to);
            }
        }
        let scanned = scan(&bytes);
        assert!(scanned.valid <= bytes.len() as u64);
        assert!(scanned.marks.iter().all(|mark| mark.start < mark.end && mark.end <= bytes.len() as u64));
        // What is left is whole by itself.
        let again = scan(&bytes[..scanned.valid as usize]);
        assert_eq!((again.valid, again.end), (scanned.valid, End::Whole), "{:?}", String::from_utf8_lossy(&bytes));
    }
}
