//! Streams beside a naive list of entries.

use proptest::prelude::*;

use super::*;
use crate::entry::StrRef;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// The naive stream.
#[derive(Default)]
struct Oracle {
    entries: Vec<(StreamId, Fields)>,
    last_id: StreamId,
    max_deleted: StreamId,
    added: u64,
}

fn fields_of(entry: &Entry<'_>) -> Fields {
    let text = |value: StrRef<'_>| value.as_bytes(&mut itoa::Buffer::new()).to_vec();
    let mut fields = Vec::new();
    entry.for_each(|field, value| fields.push((text(field), text(value))));
    assert_eq!(fields.len(), entry.len());
    fields
}

fn all(range: Range<'_>) -> Vec<(StreamId, Fields)> {
    range.map(|entry| (entry.id, fields_of(&entry))).collect()
}

#[derive(Clone, Debug)]
enum Op {
    Append { ms: u64, seq: u64, same: bool, fields: Vec<(String, String)> },
    Delete(Vec<usize>),
    Trim(bool, u64),
    TrimNodes(bool, u64, u64),
    Range(usize, usize),
    Load,
}

fn op() -> impl Strategy<Value = Op> {
    let fields = prop::collection::vec(("[a-c]{1,2}|[0-9]", "[a-z]{0,9}|-?[0-9]{1,6}"), 1..4);
    prop_oneof![
        8 => (0..3u64, 1..4u64, any::<bool>(), fields)
            .prop_map(|(ms, seq, same, fields)| Op::Append { ms, seq, same, fields }),
        2 => prop::collection::vec(0..60usize, 1..5).prop_map(Op::Delete),
        1 => (any::<bool>(), 0..60u64).prop_map(|(by_id, n)| Op::Trim(by_id, n)),
        1 => (any::<bool>(), 0..60u64, 0..20u64).prop_map(|(by_id, n, limit)| Op::TrimNodes(by_id, n, limit)),
        2 => (0..60usize, 0..60usize).prop_map(|(a, b)| Op::Range(a, b)),
        1 => Just(Op::Load),
    ]
}

fn flat(fields: &Fields) -> Vec<&[u8]> {
    fields.iter().flat_map(|(field, value)| [&field[..], &value[..]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn as_a_list(
        ops in prop::collection::vec(op(), 1..80),
        entries in prop::sample::select(vec![0, 1, 3, 100]),
        bytes in prop::sample::select(vec![0, 60, 4096]),
    ) {
        let limits = Limits { bytes, entries };
        let (mut stream, mut oracle) = (Stream::new(), Oracle::default());
        for op in ops {
            match op {
                Op::Append { ms, seq, same, fields } => {
                    let mut fields: Fields =
                        fields.into_iter().map(|(field, value)| (field.into_bytes(), value.into_bytes())).collect();
                    if same {
                        fields = vec![(b"f".to_vec(), fields[0].1.clone())];
                    }
                    let id = match ms {
                        0 => StreamId { seq: oracle.last_id.seq + seq, ..oracle.last_id },
                        // A sequence below that of the node's first entry is a negative difference.
                        ms => StreamId::new(oracle.last_id.ms + ms, seq),
                    };
                    let texts = flat(&fields);
                    prop_assert_eq!(stream.append(limits, oracle.last_id, texts.iter().copied()), Err(AppendError::Order));
                    prop_assert_eq!(stream.append(limits, id, texts.into_iter()), Ok(()));
                    oracle.entries.push((id, fields));
                    oracle.last_id = id;
                    oracle.added += 1;
                }
                Op::Delete(which) => {
                    let mut ids: Vec<StreamId> =
                        which.iter().filter_map(|i| oracle.entries.get(*i)).map(|(id, _)| *id).collect();
                    ids.push(StreamId::new(1, 77));
                    let before = oracle.entries.len();
                    oracle.entries.retain(|(id, _)| !ids.contains(id));
                    prop_assert_eq!(stream.delete(&ids), before - oracle.entries.len());
                    ids.pop();
                    oracle.max_deleted = ids.into_iter().chain([oracle.max_deleted]).max().unwrap();
                }
                Op::Trim(by_id, n) => {
                    let before = oracle.entries.len();
                    let trim = if by_id { Trim::MinId(StreamId::new(n, 2)) } else { Trim::MaxLen(n) };
                    match trim {
                        Trim::MinId(min) => oracle.entries.retain(|(id, _)| *id >= min),
                        Trim::MaxLen(max) => { oracle.entries.drain(..before.saturating_sub(max as usize)); }
                    }
                    prop_assert_eq!(stream.trim(trim, false, 0), (before - oracle.entries.len()) as u64);
                }
                Op::TrimNodes(by_id, n, limit) => {
                    let trim = if by_id { Trim::MinId(StreamId::new(n, 2)) } else { Trim::MaxLen(n) };
                    let gone = stream.trim(trim, true, limit) as usize;
                    prop_assert!(limit == 0 || gone as u64 <= limit);
                    // Whole nodes from the front went, and none that was not asked for.
                    let dropped: Vec<_> = oracle.entries.drain(..gone).collect();
                    match trim {
                        Trim::MinId(min) => prop_assert!(dropped.iter().all(|(id, _)| *id < min)),
                        Trim::MaxLen(max) => prop_assert!(gone == 0 || oracle.entries.len() as u64 >= max),
                    }
                }
                Op::Range(a, b) => {
                    let id = |i: usize| oracle.entries.get(i).map_or(StreamId::new(i as u64, 1), |(id, _)| *id);
                    let (start, end) = (id(a), id(b));
                    let expected: Vec<_> =
                        oracle.entries.iter().filter(|(id, _)| (start..=end).contains(id)).cloned().collect();
                    prop_assert_eq!(&all(stream.range(start, end)), &expected);
                    let mut back = all(stream.range_back(start, end));
                    back.reverse();
                    prop_assert_eq!(&back, &expected);
                    let there = oracle.entries.iter().any(|(id, _)| *id == start);
                    prop_assert_eq!(stream.get(start).map(|entry| entry.id), there.then_some(start));
                }
                Op::Load => {
                    let mut loaded = Stream::new();
                    for (id, pack) in stream.nodes() {
                        let pack = ListPack::from_bytes(pack.as_bytes()).expect("a sound listpack");
                        prop_assert!(loaded.add_node(id, pack));
                    }
                    prop_assert_eq!(loaded.len(), stream.len());
                    loaded.last_id = stream.last_id;
                    loaded.first_id = stream.first_id;
                    loaded.max_deleted_id = stream.max_deleted_id;
                    loaded.entries_added = stream.entries_added;
                    stream = loaded;
                }
            }
            prop_assert_eq!(stream.len(), oracle.entries.len() as u64);
            prop_assert_eq!(stream.first_id, oracle.entries.first().map_or(StreamId::MIN, |(id, _)| *id));
            prop_assert_eq!(stream.last_entry_id(), oracle.entries.last().map_or(StreamId::MIN, |(id, _)| *id));
            prop_assert_eq!(stream.last_id, oracle.last_id);
            prop_assert_eq!(stream.max_deleted_id, oracle.max_deleted);
            prop_assert_eq!(stream.entries_added, oracle.added);
            let bytes: usize = stream.nodes.iter().map(|(_, node)| node.heap_bytes()).sum();
            prop_assert_eq!(stream.pack_bytes, bytes);
        }
        prop_assert_eq!(&all(stream.range(StreamId::MIN, StreamId::MAX)), &oracle.entries);
        prop_assert_eq!(&all(stream.clone().range(StreamId::MIN, StreamId::MAX)), &oracle.entries);
    }

    #[test]
    fn hostile_nodes_are_refused_or_safe(mut bytes in prop::collection::vec(any::<u8>(), 7..60), edits in prop::collection::vec((0..200usize, any::<u8>()), 0..4)) {
        // Random bytes are hardly ever a listpack; a good node with some bytes changed now and then is.
        let texts: [&[u8]; 4] = [b"a", b"1", b"bb", b"xyz"];
        let good = Node::with_entry(texts.into_iter());
        if edits.len() > 1 {
            bytes = good.pack().as_bytes().to_vec();
        }
        for (at, byte) in edits {
            let len = bytes.len();
            bytes[at % len] = byte;
        }
        let mut stream = Stream::new();
        if let Some(pack) = ListPack::from_bytes(&bytes)
            && stream.add_node(StreamId::new(1, 1), pack)
        {
            let forward = all(stream.range(StreamId::MIN, StreamId::MAX)).len();
            let back = all(stream.range_back(StreamId::MIN, StreamId::MAX)).len();
            prop_assert!(forward <= 1 && back <= 1);
            stream.trim(Trim::MaxLen(0), false, 0);
        }
    }
}

#[test]
fn a_node_is_laid_out_as_in_redis() {
    // The node of XADD s 1-1 a 1 b x; XADD s 2-0 a 2 b y; XADD s 3-0 c 3; XDEL s 2-0 in a DUMP of redis-server 7.0.15.
    let limits = Limits { bytes: 4096, entries: 100 };
    let mut stream = Stream::new();
    let add = |stream: &mut Stream, id, texts: &[&'static [u8]]| stream.append(limits, id, texts.iter().copied());
    add(&mut stream, StreamId::new(1, 1), &[b"a", b"1", b"b", b"x"]).unwrap();
    add(&mut stream, StreamId::new(2, 0), &[b"a", b"2", b"b", b"y"]).unwrap();
    add(&mut stream, StreamId::new(3, 0), &[b"c", b"3"]).unwrap();
    stream.delete(&[StreamId::new(2, 0)]);
    let (id, pack) = stream.nodes().next().unwrap();
    let elements: Vec<String> =
        pack.iter().map(|e| String::from_utf8(e.as_bytes(&mut itoa::Buffer::new()).to_vec()).unwrap()).collect();
    assert_eq!(id, StreamId::new(1, 1));
    assert_eq!(elements.join(" "), "2 1 2 a b 0 2 0 0 1 x 5 3 1 -1 2 y 5 0 2 -1 1 c 3 6");
    assert_eq!(pack.as_bytes(), GOLDEN);
}

/// From `DUMP s` of redis-server 7.0.15.
const GOLDEN: &[u8] = &[
    0x40, 0x00, 0x00, 0x00, 0x19, 0x00, 0x02, 0x01, 0x01, 0x01, 0x02, 0x01, 0x81, 0x61, 0x02, 0x81, 0x62, 0x02, 0x00,
    0x01, 0x02, 0x01, 0x00, 0x01, 0x00, 0x01, 0x01, 0x01, 0x81, 0x78, 0x02, 0x05, 0x01, 0x03, 0x01, 0x01, 0x01, 0xdf,
    0xff, 0x02, 0x02, 0x01, 0x81, 0x79, 0x02, 0x05, 0x01, 0x00, 0x01, 0x02, 0x01, 0xdf, 0xff, 0x02, 0x01, 0x01, 0x81,
    0x63, 0x02, 0x03, 0x01, 0x06, 0x01, 0xff,
];

#[test]
fn a_stream_of_a_file_that_says_it_had_any_number_of_entries_takes_more() {
    let mut stream = Stream { entries_added: u64::MAX, ..Stream::default() };
    let limits = Limits { bytes: 4096, entries: 100 };
    stream.append(limits, StreamId::new(1, 1), [&b"f"[..], b"v"].into_iter()).unwrap();
    assert_eq!((stream.entries_added, stream.len()), (0, 1));
}

#[test]
fn consumers_own_what_is_pending() {
    let mut group = Group::new(StreamId::MIN, Some(0));
    let (a, b) = (group.add_consumer(b"a", 1), group.add_consumer(b"b", 1));
    let pending = |consumer| Pending { consumer, delivery_time_ms: 5, delivery_count: 1 };
    for seq in 1..=3 {
        group.assign(StreamId::new(1, seq), pending(a));
    }
    group.assign(StreamId::new(1, 2), pending(b));
    group.assign(StreamId::new(1, 2), pending(b));
    assert_eq!((group.consumer(a).pending().len(), group.consumer(b).pending().len()), (2, 1));
    assert_eq!(group.acknowledge(StreamId::new(1, 1)), Some(pending(a)));
    assert_eq!(group.acknowledge(StreamId::new(1, 1)), None);
    assert_eq!(group.remove_consumer(b"a"), Some(1));
    assert_eq!(group.remove_consumer(b"a"), None);
    assert_eq!(group.pending().keys().copied().collect::<Vec<_>>(), [StreamId::new(1, 2)]);
    // The number of the one that went is given again.
    assert_eq!(group.add_consumer(b"c", 1), a);
    assert!(group.consumers().map(|consumer| &*consumer.name).eq([&b"b"[..], b"c"]));
}
