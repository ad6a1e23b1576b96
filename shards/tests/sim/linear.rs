//! Is a history linearizable? The search of Wing and Gong with the memory of Lowe: orders of the calls that keep real
//! time (a call that returned before another was sent comes first) are tried against a plain map, and no set of calls
//! done with the same state is looked at twice.

use std::collections::HashSet;

use crate::history::{Call, Op};

type State = Vec<Option<i64>>;

/// Runs an operation on a plain map; the reply in the notation of tests.
pub fn apply(op: &Op, state: &mut State) -> String {
    let text = |value: Option<i64>| value.map_or("nil".to_string(), |v| format!("\"{v}\""));
    match op {
        Op::Get(k) => text(state[*k]),
        Op::Set(k, v) => {
            state[*k] = Some(*v);
            "OK".into()
        }
        Op::Incr(k) => {
            let value = state[*k].unwrap_or(0) + 1;
            state[*k] = Some(value);
            value.to_string()
        }
        Op::Mget(ks) => {
            let values: Vec<String> = ks.iter().map(|k| text(state[*k])).collect();
            format!("[{}]", values.join(" "))
        }
        Op::Mset(kvs) => {
            kvs.iter().for_each(|(k, v)| state[*k] = Some(*v));
            "OK".into()
        }
        Op::Msetnx(kvs) => {
            let free = kvs.iter().all(|(k, _)| state[*k].is_none());
            if free {
                kvs.iter().for_each(|(k, v)| state[*k] = Some(*v));
            }
            (free as i64).to_string()
        }
        Op::Del(ks) => ks.iter().filter(|k| state[**k].take().is_some()).count().to_string(),
        Op::Exists(ks) => ks.iter().filter(|k| state[**k].is_some()).count().to_string(),
        Op::Rename(a, b) => match state[*a].take() {
            None => "-ERR no such key".into(),
            Some(value) => {
                state[*b] = Some(value);
                "OK".into()
            }
        },
        Op::Exec(ops) => {
            let replies: Vec<String> = ops.iter().map(|op| apply(op, state)).collect();
            format!("[{}]", replies.join(" "))
        }
    }
}

/// Panics with the history if no order explains it. `owner` is each key's shard.
pub fn check(calls: &[Call], keys: usize, owner: &[usize], strict: bool) {
    assert!(calls.len() <= 64, "the set of calls done is one word");
    // For each call, those that must come before it.
    let mut before = vec![0u64; calls.len()];
    // Two reads of one pipeline with a key in common, of which one spans shards. The rule keeps the order of what touches
    // one key, so the later one may come first only if nobody writes a key of both before the earlier one.
    let mut reads: Vec<(usize, usize)> = Vec::new();
    for (j, later) in calls.iter().enumerate() {
        for (i, earlier) in calls.iter().enumerate() {
            let in_time = earlier.returned.as_ref().is_some_and(|(at, _)| *at < later.sent);
            let own = i < j && earlier.client == later.client;
            // Of one pipeline, what touches the same key keeps its order, and so does what runs on the same one shard.
            let (a, b) = (earlier.op.keys(), later.op.keys());
            let one_shard = || a.iter().chain(&b).all(|k| owner[*k] == owner[a[0]]);
            let shares = || a.iter().any(|k| b.contains(k));
            if in_time || (own && (strict || later.op.is_signal(owner) || one_shard())) {
                before[j] |= 1 << i;
            } else if own && shares() {
                match earlier.op.reads_only() && later.op.reads_only() {
                    true => reads.push((i, j)),
                    false => before[j] |= 1 << i,
                }
            }
        }
    }
    let must: u64 = calls.iter().enumerate().filter(|(_, c)| c.returned.is_some()).map(|(i, _)| 1 << i).sum();
    let mut seen = HashSet::new();
    let mut stack: Vec<(u64, State)> = vec![(0, vec![None; keys])];
    while let Some((done, state)) = stack.pop() {
        if done & must == must {
            return;
        }
        for (i, call) in calls.iter().enumerate() {
            if done & (1 << i) != 0 || before[i] & !done & must != 0 {
                continue;
            }
            // One whose reply never came may have happened or not; what follows it on its connection had no reply.
            let mut next = state.clone();
            let reply = apply(&call.op, &mut next);
            if call.returned.as_ref().is_some_and(|(_, seen)| *seen != reply) {
                continue;
            }
            let writes = |k: &usize| state[*k] != next[*k];
            let between = reads.iter().any(|(earlier, later)| {
                let (a, b) = (calls[*earlier].op.keys(), calls[*later].op.keys());
                let open = done & (1 << earlier) == 0 && done & (1 << later) != 0;
                open && a.iter().any(|k| b.contains(k) && writes(k))
            });
            if between {
                continue;
            }
            if seen.insert((done | 1 << i, next.clone())) {
                stack.push((done | 1 << i, next));
            }
        }
    }
    let lines: Vec<String> = calls.iter().map(|call| format!("{call:?}")).collect();
    panic!("no order of these calls explains them:\n{}", lines.join("\n"));
}

#[test]
fn the_checker_sees_a_stale_read_and_a_torn_write() {
    let call = |client, op, sent, returned: u64, reply: &str| Call {
        client,
        op,
        sent,
        returned: Some((returned, reply.to_string())),
    };
    let write = call(0, Op::Mset(vec![(0, 1), (1, 1)]), 0, 10, "OK");
    check(&[write.clone(), call(1, Op::Mget(vec![0, 1]), 5, 6, "[\"1\" \"1\"]")], 2, &[0, 1], false);
    check(&[write.clone(), call(1, Op::Mget(vec![0, 1]), 5, 6, "[nil nil]")], 2, &[0, 1], false);
    let fails = |calls: Vec<Call>| std::panic::catch_unwind(|| check(&calls, 2, &[0, 1], false)).is_err();
    assert!(fails(vec![write.clone(), call(1, Op::Mget(vec![0, 1]), 5, 6, "[\"1\" nil]")]));
    assert!(fails(vec![write, call(1, Op::Get(0), 11, 12, "nil")]));
    // Two reads of one pipeline may change places, but not around a write of a key that both read.
    let three = |second: &str| {
        let set = |k, at| call(0, Op::Set(k, 1), at, at + 1, "OK");
        let first = call(1, Op::Mget(vec![0, 1]), 0, 20, "[nil \"1\"]");
        let calls = [set(2, 2), set(1, 4), set(0, 6), first, call(1, Op::Mget(vec![0, 2]), 0, 20, second)];
        std::panic::catch_unwind(|| check(&calls, 3, &[0, 1, 0], false)).is_ok()
    };
    assert!(three("[nil nil]"));
    assert!(three("[\"1\" \"1\"]"));
    assert!(!three("[\"1\" nil]"));
    let turned = [
        call(0, Op::Set(0, 1), 2, 3, "OK"),
        call(1, Op::Mget(vec![0, 1]), 0, 20, "[\"1\" nil]"),
        call(1, Op::Mget(vec![0, 2]), 0, 20, "[nil nil]"),
    ];
    assert!(std::panic::catch_unwind(|| check(&turned, 3, &[0, 1, 0], false)).is_err());
}
