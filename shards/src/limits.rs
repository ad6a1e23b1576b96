//! The bounds of every queue, batch and buffer, in one place.
//!
//! Limits that users set (`proto-max-bulk-len`, `client-query-buffer-limit`, …) live in
//! [`crate::config::Config`]; here are the ones that are the program's own or Redis's constants.

/// Longest inline command, and longest line that announces a length (Redis: `PROTO_INLINE_MAX_SIZE`).
pub const INLINE_MAX_BYTES: usize = 64 * 1024;

/// Most arguments of one command (Redis: 1024*1024 for authenticated clients, then INT_MAX since 7.0).
pub const MULTIBULK_MAX: i64 = i32::MAX as i64;

/// Most arguments before a client has authenticated (Redis 6.2.6 and later).
pub const MULTIBULK_MAX_UNAUTHENTICATED: i64 = 10;

/// Longest argument before a client has authenticated.
pub const BULK_MAX_UNAUTHENTICATED: i64 = 16 * 1024;

/// Commands that are parsed, and whose keys are prefetched, before the first of them runs. 16 to 64 differ by
/// little; past 64 the first prefetched lines begin to leave the first-level cache.
pub const BATCH_COMMANDS: usize = 64;

/// Input of one client that is taken for large where what it leaves with its client has to count at once: what the loops
/// read at once, and gain nothing by having others' beside it.
pub const LARGE_INPUT_BYTES: usize = 16 * 1024;

/// Most that is read at once of a large argument, where it is read to its place. More than a socket mostly holds;
/// and other clients do not wait for more than some tenths of a ms.
pub const LARGE_READ_BYTES: usize = 1 << 20;

/// Most that is read so of all clients in one turn: then each is read as if it had no large argument.
pub const LARGE_READS_BYTES: usize = 4 << 20;

/// Keys whose buckets and entries are prefetched together. A bucket is a line and an entry of 64 bytes two: 128 keys are
/// 24 KB of the 32 KB or more of a first-level cache.
pub const BATCH_KEYS: usize = 128;

/// Keys of the commands of one pipeline that split and go as one: so many of one part are prefetched together.
pub const JOINED_KEYS: usize = 2 * BATCH_KEYS;

/// Largest reply buffer that is kept for reuse; a larger one goes back to the allocator.
pub const SPARE_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes of reply buffers that a shard keeps for reuse.
pub const SPARE_BUFFERS_BYTES: usize = 2 * 1024 * 1024;

/// Parcels kept for reuse, beside two for each other shard.
pub const SPARE_PARCELS: usize = 16;

/// So many parcels of another shard are kept beyond those that were sent to it, before they are given back.
pub const SURPLUS_PARCELS: i32 = 2;

/// A parcel that has grown beyond so many bytes is not kept. Those that fifty clients' 16-deep pipelines of `MGET` fill
/// are, for their growth would cost anew each turn.
pub const SPARE_PARCEL_BYTES: usize = 512 * 1024;

/// A parcel that has grown beyond this goes when it has not been filled by a quarter for some time.
pub const SMALL_PARCEL_BYTES: usize = 16 * 1024;

/// Bytes of all parcels that a shard keeps for reuse.
pub const SPARE_PARCELS_BYTES: usize = 4 * 1024 * 1024;

/// The same while memory is short: room for the small requests and replies of a turn.
pub const SPARE_PARCELS_SHORT_BYTES: usize = 256 * 1024;

/// A query buffer larger than this is given back when it runs empty (Redis: `PROTO_RESIZE_THRESHOLD`).
pub const QUERY_KEEP_BYTES: usize = 32 * 1024;

/// Places of arguments kept for the next batch of commands; a command with more gives the rest back.
pub const KEPT_ARGUMENTS: usize = 4 * 1024;

/// Most rules, and passwords, of one user: each command of a restricted client looks through its user's patterns, and a
/// new rule is compared with the old ones.
pub const ACL_RULES_MAX: usize = 16 * 1024;

/// Bytes of a refused key, channel or name that `ACL LOG` keeps.
pub const ACL_LOG_OBJECT_BYTES: usize = 4096;

/// Bytes of a full sync's snapshot that are handed to a replica's output ahead of what its socket takes.
pub const SYNC_AHEAD_BYTES: usize = 256 * 1024;

/// Hash slots, as in Redis Cluster.
pub const SLOTS: u16 = 16384;
