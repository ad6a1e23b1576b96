//! Which prefixes of the shards' logs belong together.
//!
//! A command over several slices is told in the log of each. When the machine stops, one log may hold it and another
//! not; it is then as if it had not been, in any of them, and with it all that stands behind it in these logs, for that
//! may come from it. What is dropped so may be a part of other commands over several slices, and so on, until nothing
//! changes. What is left is the largest state that really was, as far as commands over several slices go.
//!
//! The same question is asked while the server runs, with what is on disk in the place of what was found: it says which
//! writes can no longer be lost ([`super::Aof::synced`]).

use std::collections::{HashMap, VecDeque};

use crate::propagate::Mark;

/// Lowers `ends`, a position in each log, until every command over several slices that ends before them does so in the
/// logs of all of its participants. `marks` are in the order of their log.
pub fn consistent_cut(ends: &mut [u64], marks: &[VecDeque<Mark>]) {
    let mut places: HashMap<u64, Vec<(usize, usize)>> = HashMap::new();
    for (log, list) in marks.iter().enumerate() {
        for (at, mark) in list.iter().enumerate() {
            places.entry(mark.number).or_default().push((log, at));
        }
    }
    // How many of each log's marks are still within its end.
    let mut kept: Vec<usize> = marks.iter().zip(&*ends).map(|(list, end)| within(list, *end)).collect();
    // Marks that are lost and whose counterparts have not been looked at: those past the ends, and those within that
    // lack a counterpart.
    let mut lost: Vec<(usize, usize)> = Vec::new();
    for (log, list) in marks.iter().enumerate() {
        lost.extend((kept[log]..list.len()).map(|at| (log, at)));
        if let Some(torn) = list.get(kept[log]) {
            ends[log] = ends[log].min(torn.start);
        }
        let lacks = |mark: &Mark| {
            let found = &places[&mark.number];
            mark.participants.iter().any(|other| !found.iter().any(|(log, _)| log == &(*other as usize)))
        };
        lost.extend(list.iter().take(kept[log]).position(lacks).map(|at| (log, at)));
    }
    while let Some((log, at)) = lost.pop() {
        for (other, place) in &places[&marks[log][at].number] {
            if *place < kept[*other] {
                lost.extend((*place..kept[*other]).map(|at| (*other, at)));
                kept[*other] = *place;
                ends[*other] = ends[*other].min(marks[*other][*place].start);
            }
        }
    }
}

fn within(marks: &VecDeque<Mark>, end: u64) -> usize {
    marks.partition_point(|mark| mark.end <= end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Rng;

    fn mark(number: u64, participants: &[u16], start: u64, end: u64) -> Mark {
        Mark { number, participants: participants.into(), start, end }
    }

    fn cut(ends: &[u64], marks: &[&[Mark]]) -> Vec<u64> {
        let mut ends = ends.to_vec();
        let marks: Vec<VecDeque<Mark>> = marks.iter().map(|list| list.iter().cloned().collect()).collect();
        consistent_cut(&mut ends, &marks);
        ends
    }

    #[test]
    fn what_is_whole_stays() {
        let (a, b) = ([mark(1, &[0, 1], 10, 20)], [mark(1, &[0, 1], 0, 10)]);
        assert_eq!(cut(&[30, 10], &[&a, &b]), [30, 10]);
        assert_eq!(cut(&[7, 8], &[&[], &[]]), [7, 8]);
    }

    #[test]
    fn what_one_log_lacks_goes_from_all_with_what_is_behind_it() {
        let (a, b) = ([mark(1, &[0, 1], 10, 20)], [mark(1, &[0, 1], 0, 10)]);
        assert_eq!(cut(&[30, 9], &[&a, &b]), [10, 0], "torn: what is left of it is dropped too");
        assert_eq!(cut(&[30, 40], &[&a, &[]]), [10, 40], "never written");
    }

    #[test]
    fn what_is_dropped_takes_others_along() {
        let logs: [&[Mark]; 4] = [
            &[mark(1, &[0, 1], 0, 5)],
            &[mark(1, &[0, 1], 3, 9), mark(2, &[1, 2], 9, 12)],
            &[mark(2, &[1, 2], 0, 4), mark(3, &[2, 3], 8, 12)],
            &[mark(3, &[2, 3], 2, 6)],
        ];
        assert_eq!(cut(&[5, 12, 20, 7], &logs), [5, 12, 20, 7]);
        assert_eq!(cut(&[4, 12, 20, 7], &logs), [0, 3, 0, 2]);
        assert_eq!(cut(&[5, 11, 20, 7], &logs), [5, 9, 0, 2]);
    }

    /// The definition, word by word.
    fn naive(ends: &mut [u64], marks: &[VecDeque<Mark>]) {
        loop {
            let whole = |mark: &Mark, ends: &[u64]| {
                mark.participants.iter().all(|log| {
                    marks[*log as usize].iter().any(|m| m.number == mark.number && m.end <= ends[*log as usize])
                })
            };
            let mut changed = false;
            for log in 0..marks.len() {
                for mark in &marks[log] {
                    let touched = mark.start < ends[log];
                    if touched && !whole(mark, ends) {
                        ends[log] = mark.start;
                        changed = true;
                    }
                }
            }
            if !changed {
                return;
            }
        }
    }

    #[test]
    fn the_quick_way_agrees_with_the_definition() {
        let mut rng = Rng::new(5);
        for _ in 0..3000 {
            let logs = 2 + rng.below(4) as usize;
            let mut lengths = vec![0u64; logs];
            let mut marks: Vec<VecDeque<Mark>> = vec![VecDeque::new(); logs];
            for number in 0..rng.below(12) {
                let mut participants: Vec<u16> = (0..logs as u16).filter(|_| rng.below(2) == 0).collect();
                if participants.is_empty() {
                    participants.push(0);
                }
                for log in &participants {
                    let at = *log as usize;
                    if rng.below(12) == 0 {
                        continue;
                    }
                    let start = lengths[at] + rng.below(3);
                    lengths[at] = start + 1 + rng.below(4);
                    marks[at].push_back(mark(number, &participants, start, lengths[at]));
                }
            }
            let ends: Vec<u64> = lengths.iter().map(|len| rng.below(len + 4)).collect();
            let (mut quick, mut slow) = (ends.clone(), ends.clone());
            consistent_cut(&mut quick, &marks);
            naive(&mut slow, &marks);
            assert_eq!(quick, slow, "{ends:?} {marks:?}");
        }
    }
}
