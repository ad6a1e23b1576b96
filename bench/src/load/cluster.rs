//! Hash slots and the map of a cluster: which node serves which slot, so that requests go straight there.
//!
//! A connection leads to one node and carries only keys of that node's slots. Connections are dealt out evenly, so
//! nodes receive equal shares of the requests whatever the key distribution; a cluster with very uneven slot
//! ranges is not modelled. Counterpart in Redis: `keyHashSlot` and `CLUSTER SLOTS`.

use super::connect::{Client, Endpoint};
use super::lane::{LaneOptions, Pace, Plan};
use super::reply::{Head, head};
use super::{LoadSpec, execute};

/// CRC16 (XMODEM) of a byte string, bit by bit: used for a dozen bytes at a time, off the hot path of a
/// non-cluster run.
fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0u16;
    for &b in bytes {
        crc ^= u16::from(b) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 != 0 {
                (crc << 1) ^ 0x1021
            } else {
                crc << 1
            };
        }
    }
    crc
}

/// The slot of a key: of its `{tag}` if it has one that is not empty.
pub fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|&b| b == b'{').and_then(|open| {
        let len = key[open + 1..].iter().position(|&b| b == b'}')?;
        (len > 0).then(|| &key[open + 1..open + 1 + len])
    });
    crc16(tag.unwrap_or(key)) % 16384
}

/// Asks a node for the cluster's masters; returns them, and for each slot the index of its master.
pub fn map(spec: &LoadSpec) -> Result<(Vec<Endpoint>, Option<Vec<u16>>), String> {
    let mut client = Client::connect(&spec.endpoint, &spec.greeting)?;
    let raw = client.ask(&["CLUSTER", "SLOTS"])?;
    let (nodes, slots) =
        parse(&raw, &spec.endpoint).ok_or("CLUSTER SLOTS: a reply of an unknown shape")?;
    match slots.iter().position(|&n| n == u16::MAX) {
        Some(slot) => Err(format!("the cluster serves no slot {slot}")),
        None => Ok((nodes, Some(slots))),
    }
}

fn parse(raw: &[u8], asked: &Endpoint) -> Option<(Vec<Endpoint>, Vec<u16>)> {
    let mut nodes: Vec<Endpoint> = Vec::new();
    let mut slots = vec![u16::MAX; 16384];
    let (Head::Array(ranges), mut at) = head(raw)? else {
        return None;
    };
    for _ in 0..ranges {
        let (Head::Array(parts), used) = head(raw.get(at..)?)? else {
            return None;
        };
        at += used;
        let mut bounds = [0usize; 2];
        for bound in &mut bounds {
            let (Head::Integer(n), used) = head(raw.get(at..)?)? else {
                return None;
            };
            *bound = usize::try_from(n).ok().filter(|&n| n < 16384)?;
            at += used;
        }
        // The first node of a range is its master: address, port, and more that is of no use here.
        let (Head::Array(_), used) = head(raw.get(at..)?)? else {
            return None;
        };
        let (host, host_used) = head(raw.get(at + used..)?)?;
        let (Head::Integer(port), _) = head(raw.get(at + used + host_used..)?)? else {
            return None;
        };
        let host = match host {
            Head::Bulk(h) => String::from_utf8_lossy(h).into_owned(),
            _ => String::new(),
        };
        let endpoint = match (host.as_str(), asked) {
            // A node that does not know its own name is the one we asked.
            ("", Endpoint::Tcp(addr)) => {
                Endpoint::Tcp(std::net::SocketAddr::new(addr.ip(), port as u16))
            }
            _ => Endpoint::tcp(&host, port as u16).ok()?,
        };
        let index = nodes
            .iter()
            .position(|n| *n == endpoint)
            .unwrap_or_else(|| {
                nodes.push(endpoint);
                nodes.len() - 1
            });
        slots.get_mut(bounds[0]..=bounds[1])?.fill(index as u16);
        for _ in 2..parts {
            match super::reply::scan(raw.get(at..)?) {
                Ok(super::reply::Scan::Done(n)) => at += n,
                _ => return None,
            }
        }
    }
    Some((nodes, slots))
}

/// Writes every key to its node: node after node, each with one connection that walks all keys and keeps its own.
pub fn fill(spec: &LoadSpec, plan: &Plan, nodes: &[Endpoint], keys: u64) -> Result<(), String> {
    let Some(slots) = &plan.slots else {
        return Ok(());
    };
    for (i, node) in nodes.iter().enumerate() {
        let op = &plan.workload.ops[0];
        let own = if op.has_key() {
            (0..keys)
                .filter(|&k| op.slot(k).is_some_and(|s| slots[s as usize] == i as u16))
                .count() as u64
        } else {
            keys
        };
        let here = Plan {
            workload: plan.workload.clone(),
            distribution: plan.distribution.clone(),
            keys,
            values: plan.values.clone(),
            pipeline: plan.pipeline,
            // To the lane this node is number 0; all others are someone else.
            slots: Some(slots.iter().map(|&n| u16::from(n != i as u16)).collect()),
            nil_ok: true,
        };
        let lane = LaneOptions {
            index: 0,
            lanes: 1,
            seed: 0,
            sequence: 0,
            budget: Some(own),
            pace: Pace::Closed,
            drain_ns: 60_000_000_000,
        };
        let calm = LoadSpec {
            connections: 1,
            threads: 1,
            rate: None,
            warmup: 0.0,
            server_pid: None,
            ..spec.clone()
        };
        let outcome = execute(&calm, here, std::slice::from_ref(node), vec![lane], true)?;
        if outcome.errors > 0 {
            return Err(format!(
                "filling node {node}: {} errors: {}",
                outcome.errors,
                outcome.samples.join("; ")
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        // `CLUSTER KEYSLOT` of redis-server gives the same.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b"{user1000}.following"), slot(b"user1000"));
        assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % 16384);
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
    }

    #[test]
    fn cluster_slots_are_read() {
        let raw = b"*2\r\n*3\r\n:0\r\n:8191\r\n*4\r\n$9\r\n127.0.0.1\r\n:7001\r\n$1\r\na\r\n*0\r\n\
            *4\r\n:8192\r\n:16383\r\n*3\r\n$0\r\n\r\n:7002\r\n$1\r\nb\r\n*3\r\n$9\r\n127.0.0.1\r\n:7003\r\n$1\r\nc\r\n";
        let asked = Endpoint::tcp("127.0.0.1", 7001).unwrap();
        let (nodes, slots) = parse(raw, &asked).unwrap();
        assert_eq!(
            nodes,
            [asked.clone(), Endpoint::tcp("127.0.0.1", 7002).unwrap()]
        );
        assert_eq!(
            (slots[0], slots[8191], slots[8192], slots[16383]),
            (0, 0, 1, 1)
        );
        for cut in 0..raw.len() {
            // A short reply is no reply, and no panic.
            let _ = parse(&raw[..cut], &asked);
        }
    }
}
