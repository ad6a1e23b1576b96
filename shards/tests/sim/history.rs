//! What clients asked and saw, and when.

/// A command on registers or lists, by numbers of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Get(usize),
    Set(usize, i64),
    Incr(usize),
    Mget(Vec<usize>),
    Mset(Vec<(usize, i64)>),
    Msetnx(Vec<(usize, i64)>),
    Del(Vec<usize>),
    Exists(Vec<usize>),
    Rename(usize, usize),
    Exec(Vec<Op>),
}

impl Op {
    /// The command's words.
    pub fn words(&self, keys: &[String]) -> Vec<String> {
        let list = |name: &str, ks: &[usize]| {
            std::iter::once(name.to_string()).chain(ks.iter().map(|k| keys[*k].clone())).collect()
        };
        let pairs = |name: &str, kvs: &[(usize, i64)]| {
            let pairs = kvs.iter().flat_map(|(k, v)| [keys[*k].clone(), v.to_string()]);
            std::iter::once(name.to_string()).chain(pairs).collect()
        };
        match self {
            Op::Get(k) => list("GET", &[*k]),
            Op::Set(k, v) => pairs("SET", &[(*k, *v)]),
            Op::Incr(k) => list("INCR", &[*k]),
            Op::Mget(ks) => list("MGET", ks),
            Op::Mset(kvs) => pairs("MSET", kvs),
            Op::Msetnx(kvs) => pairs("MSETNX", kvs),
            Op::Del(ks) => list("DEL", ks),
            Op::Exists(ks) => list("EXISTS", ks),
            Op::Rename(a, b) => list("RENAME", &[*a, *b]),
            Op::Exec(_) => unreachable!("sent as several commands"),
        }
    }

    /// The keys it touches.
    pub fn keys(&self) -> Vec<usize> {
        match self {
            Op::Get(k) | Op::Set(k, _) | Op::Incr(k) => vec![*k],
            Op::Mget(ks) | Op::Del(ks) | Op::Exists(ks) => ks.clone(),
            Op::Mset(kvs) | Op::Msetnx(kvs) => kvs.iter().map(|(k, _)| *k).collect(),
            Op::Rename(a, b) => vec![*a, *b],
            Op::Exec(ops) => ops.iter().flat_map(|op| op.keys()).collect(),
        }
    }

    /// Whether it changes nothing, whatever is there.
    pub fn reads_only(&self) -> bool {
        matches!(self, Op::Get(_) | Op::Mget(_) | Op::Exists(_))
    }

    /// Whether others may take it as a signal that its client's earlier commands are done. A write on one shard alone
    /// is a plain command.
    pub fn is_signal(&self, owner: &[usize]) -> bool {
        let spans = || self.keys().iter().any(|key| owner[*key] != owner[self.keys()[0]]);
        match self {
            Op::Exec(_) => true,
            Op::Mset(_) | Op::Msetnx(_) | Op::Del(_) | Op::Rename(..) => spans(),
            _ => false,
        }
    }
}

/// One command in a history.
#[derive(Clone, Debug)]
pub struct Call {
    pub client: usize,
    pub op: Op,
    /// Step at which it was sent.
    pub sent: u64,
    /// Step at which its reply was there, and the reply; `None` if none came.
    pub returned: Option<(u64, String)>,
}
