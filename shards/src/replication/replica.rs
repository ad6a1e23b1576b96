//! A replica: what all shards know of it, and what its home shard does.

use crate::router::ShardId;

/// What replicas said that they can do (`REPLCONF capa`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// A snapshot whose length is not known before its end.
    pub eof: bool,
    /// Going on with another history's name.
    pub psync2: bool,
}

/// What a client said by `REPLCONF`, before it became a replica and after.
#[derive(Clone, Debug, Default)]
pub struct Introduction {
    /// `listening-port`.
    pub port: u16,
    /// `ip-address`, or empty.
    pub address: String,
    /// `capa`.
    pub capabilities: Capabilities,
    /// `rdb-only`: the snapshot and nothing behind it.
    pub rdb_only: bool,
    /// `rdb-filter-only`: the snapshot without keys, and whether without functions.
    pub filter: Option<Filter>,
    /// `version`, as major * 65536 + minor * 256 + patch; 0 if it did not say.
    pub version: u32,
}

/// What is left out of a replica's snapshot: always the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The functions are in it.
    pub functions: bool,
}

/// How far a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for a snapshot to begin.
    WaitStart,
    /// It waits for that snapshot, made at this position of the stream, to be whole.
    WaitEnd,
    /// The snapshot is being sent, so many bytes.
    SendBulk(u64),
    /// It follows the stream.
    Online,
    /// It wanted the snapshot only, and has it.
    Transmitted,
    /// Its snapshot came to nothing.
    Failed,
}

impl State {
    /// As `INFO` names it.
    pub fn name(self) -> &'static str {
        match self {
            State::WaitStart | State::WaitEnd | State::Failed => "wait_bgsave",
            State::SendBulk(_) => "send_bulk",
            State::Online => "online",
            State::Transmitted => "rdb_transmitted",
        }
    }
}

/// A replica, as all shards know it.
#[derive(Clone, Debug)]
pub struct Replica {
    /// The client's id.
    pub client: u64,
    /// Its home shard.
    pub home: ShardId,
    /// Where it says that it listens, or where it comes from.
    pub address: String,
    /// The port it listens on, or 0.
    pub port: u16,
    /// How far it is.
    pub state: State,
    /// It has asked by `SYNC`, and will acknowledge nothing.
    pub silent: bool,
    /// It wants a snapshot only.
    pub rdb_only: bool,
    /// How it wants the snapshot.
    pub filter: Option<Filter>,
    /// It loads files of RDB version 11.
    pub new: bool,
    /// Its snapshot.
    pub sync: u64,
    /// The stream's position that it begins at.
    pub start: u64,
    /// Up to where its home shard has taken the stream over.
    pub taken: u64,
    /// It was too slow; its home shard is to close it.
    pub given_up: bool,
    /// Up to where it has done what the stream says.
    pub acknowledged: u64,
    /// Up to where that is on its disk.
    pub on_disk: u64,
    /// Unix ms of its last acknowledgement.
    pub heard_ms: i64,
}

impl Replica {
    /// A client of shard `home` that wants to become one.
    pub fn new(client: u64, home: ShardId, address: String) -> Self {
        Replica {
            client,
            home,
            address,
            port: 0,
            state: State::WaitStart,
            silent: false,
            rdb_only: false,
            filter: None,
            new: false,
            sync: 0,
            start: 0,
            taken: 0,
            given_up: false,
            acknowledged: 0,
            on_disk: 0,
            heard_ms: 0,
        }
    }

    /// Whether the stream is kept for it.
    pub fn follows(&self) -> bool {
        !self.rdb_only && matches!(self.state, State::WaitEnd | State::SendBulk(_) | State::Online)
    }

    /// Its name in the log.
    pub fn name(&self) -> String {
        match (self.address.is_empty(), self.port) {
            (true, _) => format!("client id #{}", self.client),
            (false, 0) => format!("{}:<unknown-replica-port>", self.address),
            (false, port) => format!("{}:{port}", self.address),
        }
    }
}

/// What a replica's home shard keeps of it.
#[derive(Debug, Default)]
pub struct Link {
    /// What it was told of its state: the snapshot has begun.
    pub begun: bool,
    /// How much of the snapshot was handed to the output, and of how much.
    pub bulk: Option<(u64, u64)>,
    /// Which snapshot.
    pub sync: u64,
    /// It follows the stream.
    pub online: bool,
    /// What the stream has said since the cut, until the snapshot is sent.
    pub pending: Vec<u8>,
}
