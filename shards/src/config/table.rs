//! The table of directives, and the [`Config`] whose fields it makes.
//!
//! A row reads: what it is for, the field with its type and default, the name with its aliases,
//! what values it takes, its flags, and whether what it governs is built:
//!
//! ```text
//! /// Keys are evicted, or writes refused, beyond this many bytes; 0 means no bound.
//! maxmemory: u64 = 0, "maxmemory", memory(0, u64::MAX), MUTABLE, Yes;
//! ```
//!
//! The words above a row are its documentation here and its comment in the sample file, so they
//! are written for an administrator. Names, defaults, ranges and flags are those of Redis 7.4,
//! which holds all of 7.2's. Redis's counterpart is `static_configs`.

use super::enums::*;
use super::special::{KeyspaceEvents, OomScoreAdjValues, OutputLimit, OutputLimits, SavePoint, ShutdownFlags, check};
use super::value::{MemoryOrPercent, Reason, Rewrite, Value};
use super::{Mode, file::FileDirective};

/// What may be done with a directive, and what must be kept in mind.
pub mod flag {
    /// `CONFIG SET` may change it.
    pub const MUTABLE: u16 = 0;
    /// It is fixed once the server runs.
    pub const IMMUTABLE: u16 = 1 << 0;
    /// Its value is a secret that no log may show.
    pub const SENSITIVE: u16 = 1 << 1;
    /// Patterns of `CONFIG GET` do not find it.
    pub const HIDDEN: u16 = 1 << 2;
    /// `CONFIG SET` needs `enable-protected-configs`.
    pub const PROTECTED: u16 = 1 << 3;
    /// It cannot change while the data set is being loaded.
    pub const DENY_LOADING: u16 = 1 << 4;
    /// It takes several arguments.
    pub const MULTI_ARG: u16 = 1 << 5;
    /// Setting it anew to the same value has an effect, since the value names a file.
    pub const VOLATILE: u16 = 1 << 6;
    /// Redis has no such directive. Programs that set back what `CONFIG GET *` showed leave out the immutable ones they
    /// know of, so one that they do not know of may be set to what it is.
    pub const OWN: u16 = 1 << 7;
}
use flag::*;

/// Whether the feature that a directive governs exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Built {
    /// It does.
    Yes,
    /// The directive is accepted and kept, and has no effect yet.
    NotYet,
}

/// What values a directive takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `yes` or `no`.
    Bool,
    /// A decimal integer.
    Int {
        /// The least it may be.
        min: i128,
        /// The most it may be.
        max: i128,
    },
    /// Bytes, with or without a unit.
    Memory {
        /// The least it may be.
        min: i128,
        /// The most it may be.
        max: i128,
    },
    /// Bytes, or a share of `maxmemory`.
    MemoryOrPercent,
    /// An octal number, as for file modes.
    Octal {
        /// The most it may be.
        max: u32,
    },
    /// One of these words.
    Enum(&'static [&'static str]),
    /// Text that passes this check.
    Text(fn(&str) -> Result<(), Reason>),
    /// A password: any bytes.
    Secret,
    /// The working directory.
    Dir,
    /// Save points.
    Save,
    /// Output limits of the classes of clients.
    OutputLimits,
    /// Three out-of-memory scores.
    OomScoreAdjValues,
    /// Letters of keyspace events.
    KeyspaceEvents,
    /// Addresses to listen on.
    Addresses,
    /// Host and port of a master.
    ReplicaOf,
    /// Percentiles of latency.
    Percentiles,
    /// What a signal adds to a shutdown.
    ShutdownFlags,
}

type SetField = fn(&mut Config, &Directive, &[Vec<u8>], Mode) -> Result<bool, Reason>;

/// A row of the table.
pub struct Directive {
    /// Redis's name.
    pub name: &'static str,
    /// The names it had before.
    pub aliases: &'static [&'static str],
    /// What values it takes.
    pub kind: Kind,
    /// Bits of [`flag`].
    pub flags: u16,
    /// Whether what it governs exists.
    pub built: Built,
    /// The part of the sample file it stands in.
    pub section: &'static str,
    /// What it is for, a line an element.
    pub doc: &'static [&'static str],
    /// The field's name in [`Config`].
    pub field: &'static str,
    pub(super) set: SetField,
    pub(super) get: fn(&Config, &Directive) -> Vec<u8>,
    pub(super) rewrite: fn(&Config, &Config, &Directive) -> Rewrite,
}

impl Directive {
    /// The row with this name or alias, in either case.
    pub fn find(name: &[u8]) -> Option<&'static Directive> {
        Self::find_spelled(name).map(|(directive, _)| directive)
    }

    /// The row with this name or alias, and which of its names that was.
    pub fn find_spelled(name: &[u8]) -> Option<(&'static Directive, &'static str)> {
        DIRECTIVES.iter().find_map(|row| {
            let spelled = row.names().find(|known| known.as_bytes().eq_ignore_ascii_case(name))?;
            Some((row, spelled))
        })
    }

    /// Its name, then its aliases.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// Whether it has this [`flag`].
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

impl std::fmt::Debug for Directive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Directive").field(&self.name).finish()
    }
}

const fn int(min: i64, max: i64) -> Kind {
    Kind::Int { min: min as i128, max: max as i128 }
}

const fn memory(min: u64, max: u64) -> Kind {
    Kind::Memory { min: min as i128, max: max as i128 }
}

const fn words<E: Named>() -> Kind {
    Kind::Enum(E::NAMES)
}

const TEXT: Kind = Kind::Text(check::any);
const INT_MAX: i64 = i32::MAX as i64;
const UINT_MAX: i64 = u32::MAX as i64;
const LONG_MAX: u64 = i64::MAX as u64;
const MB: u64 = 1 << 20;
const GB: u64 = 1 << 30;

fn text(text: &str) -> String {
    text.to_owned()
}

macro_rules! directives {
    ($(section $section:literal {$(
        $(#[doc = $doc:literal])+
        $field:ident: $type:ty = $default:expr,
        $name:literal $(| $alias:literal)*, $kind:expr, $flags:expr, $built:ident;
    )*})*) => {
        /// The values in force: a field for every directive, under its name with `_` for `-`, and
        /// what a configuration file may hold besides directives.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $($($(#[doc = $doc])+ pub $field: $type,)*)*
            /// Commands to be known by another name, or by none.
            pub rename_command: Vec<FileDirective>,
            /// ACL users.
            pub user: Vec<FileDirective>,
            /// Modules to load.
            pub loadmodule: Vec<FileDirective>,
        }

        impl Default for Config {
            fn default() -> Self {
                Self {
                    $($($field: $default,)*)*
                    rename_command: Vec::new(),
                    user: Vec::new(),
                    loadmodule: Vec::new(),
                }
            }
        }

        /// Every directive, in the order of the sample file.
        pub static DIRECTIVES: &[Directive] = &[$($(
            Directive {
                name: $name,
                aliases: &[$($alias),*],
                kind: $kind,
                flags: $flags,
                built: Built::$built,
                section: $section,
                doc: &[$($doc),+],
                field: stringify!($field),
                set: |config, directive, args, mode| {
                    let old = config.$field.clone();
                    config.$field.set(args, directive, mode)?;
                    Ok(config.$field != old || directive.has(VOLATILE))
                },
                get: |config, directive| config.$field.get(directive),
                rewrite: |config, default, directive| {
                    config.$field.rewrite(&default.$field, directive)
                },
            },
        )*)*];
    };
}

directives! {
    section "Shards" {
        /// How many shards, each with its own part of every database.
        /// 0 means one for each core this process may use, by CPU affinity and cgroup quota.
        shards: u32 = 0,
            "shards", int(0, 1024), IMMUTABLE | OWN, Yes;
        /// How many threads the shards share, each with its event loop. 0 means one for each shard, but no
        /// more than cores: shards of one thread save the cost of switching between them, and wait for
        /// each other's slow commands.
        shard_threads: u32 = 0,
            "shard-threads", int(0, 1024), IMMUTABLE | OWN, Yes;
        /// How a shard waits for its sockets: io_uring, epoll, or the first of these that works.
        /// auto logs why when it falls back; uring stops with that reason.
        event_loop: EventLoop = EventLoop::Auto,
            "event-loop", words::<EventLoop>(), IMMUTABLE | OWN, Yes;
        /// How many microseconds a shard polls before it sleeps. Anything above 0 trades CPU time for
        /// latency and suits a machine whose cores are the server's own.
        busy_poll_us: u32 = 0,
            "busy-poll-us", int(0, 1000000), MUTABLE, Yes;
        /// Whether each thread of shards is bound to one core.
        pin_threads: bool = true,
            "pin-threads", Kind::Bool, IMMUTABLE | OWN, Yes;
        /// What other clients may see of a pipeline whose keys lie on different shards. Under relaxed,
        /// plain commands may overlap, while whatever others could take as a signal waits for those
        /// before it; under strict every command waits. Replies come in order either way.
        pipeline_order: PipelineOrder = PipelineOrder::Relaxed,
            "pipeline-order", words::<PipelineOrder>(), MUTABLE, Yes;
    }

    section "Network" {
        /// The addresses to listen on. A leading - lets an address be absent on this machine; * and
        /// ::* stand for all IPv4 and IPv6 addresses.
        bind: Vec<String> = vec![text("*"), text("-::*")],
            "bind", Kind::Addresses, MULTI_ARG, Yes;
        /// The address that connections to masters and cluster nodes are made from.
        bind_source_addr: Option<String> = None,
            "bind-source-addr", TEXT, MUTABLE, NotYet;
        /// The TCP port to listen on; 0 means none.
        port: u16 = 6379,
            "port", int(0, 65535), MUTABLE, Yes;
        /// The path of a unix socket to listen on besides TCP.
        unixsocket: Option<String> = None,
            "unixsocket", TEXT, IMMUTABLE, Yes;
        /// The file mode of the unix socket; 0 leaves it to the umask.
        unixsocketperm: u32 = 0,
            "unixsocketperm", Kind::Octal { max: 0o777 }, IMMUTABLE, Yes;
        /// How many connections may wait to be accepted. The kernel caps it at net.core.somaxconn.
        tcp_backlog: u32 = 511,
            "tcp-backlog", int(0, INT_MAX), IMMUTABLE, Yes;
        /// Close a client that has been idle for so many seconds; 0 means never.
        timeout: u32 = 0,
            "timeout", int(0, INT_MAX), MUTABLE, Yes;
        /// Probe silent connections after so many seconds, so that vanished peers are noticed; 0 means
        /// never.
        tcp_keepalive: u32 = 300,
            "tcp-keepalive", int(0, INT_MAX), MUTABLE, Yes;
        /// How many clients may be connected at once. It is lowered where the limit on open files does
        /// not allow so many.
        maxclients: u32 = 10000,
            "maxclients", int(1, UINT_MAX), MUTABLE, Yes;
        /// Refuse clients from other machines while the default user has no password.
        protected_mode: bool = true,
            "protected-mode", Kind::Bool, MUTABLE, Yes;
        /// The mark put on listening sockets for routing and filtering; 0 means none.
        socket_mark_id: u32 = 0,
            "socket-mark-id", int(0, UINT_MAX), IMMUTABLE, NotYet;
        /// How many TCP connections are accepted in one turn of a loop.
        max_new_connections_per_cycle: u32 = 10,
            "max-new-connections-per-cycle", int(1, 1000), MUTABLE, NotYet;
        /// How many TLS connections are accepted in one turn of a loop; a handshake is dear.
        max_new_tls_connections_per_cycle: u32 = 1,
            "max-new-tls-connections-per-cycle", int(1, 1000), MUTABLE, NotYet;
    }

    section "TLS" {
        /// The port to listen on for TLS; 0 means none.
        tls_port: u16 = 0,
            "tls-port", int(0, 65535), MUTABLE, Yes;
        /// The server's certificate, in PEM.
        tls_cert_file: Option<String> = None,
            "tls-cert-file", TEXT, VOLATILE, Yes;
        /// The private key of that certificate.
        tls_key_file: Option<String> = None,
            "tls-key-file", TEXT, VOLATILE, Yes;
        /// The passphrase of the private key, where it has one.
        tls_key_file_pass: Option<String> = None,
            "tls-key-file-pass", TEXT, SENSITIVE, Yes;
        /// The certificate shown to other servers; by default the server's own.
        tls_client_cert_file: Option<String> = None,
            "tls-client-cert-file", TEXT, VOLATILE, NotYet;
        /// The private key of the client certificate.
        tls_client_key_file: Option<String> = None,
            "tls-client-key-file", TEXT, VOLATILE, NotYet;
        /// The passphrase of that key.
        tls_client_key_file_pass: Option<String> = None,
            "tls-client-key-file-pass", TEXT, SENSITIVE, NotYet;
        /// Diffie-Hellman parameters for old versions of TLS.
        tls_dh_params_file: Option<String> = None,
            "tls-dh-params-file", TEXT, VOLATILE, NotYet;
        /// The certificates of the authorities to trust, in one file.
        tls_ca_cert_file: Option<String> = None,
            "tls-ca-cert-file", TEXT, VOLATILE, Yes;
        /// The certificates of the authorities to trust, in a directory.
        tls_ca_cert_dir: Option<String> = None,
            "tls-ca-cert-dir", TEXT, VOLATILE, Yes;
        /// Whether clients must show a certificate.
        tls_auth_clients: TlsAuthClients = TlsAuthClients::Yes,
            "tls-auth-clients", words::<TlsAuthClients>(), MUTABLE, Yes;
        /// Use TLS towards a master.
        tls_replication: bool = false,
            "tls-replication", Kind::Bool, MUTABLE, NotYet;
        /// Use TLS between the nodes of a cluster.
        tls_cluster: bool = false,
            "tls-cluster", Kind::Bool, MUTABLE, NotYet;
        /// The versions of TLS to accept, as in "TLSv1.2 TLSv1.3".
        tls_protocols: Option<String> = None,
            "tls-protocols", TEXT, MUTABLE, Yes;
        /// The ciphers to accept up to TLS 1.2.
        tls_ciphers: Option<String> = None,
            "tls-ciphers", TEXT, MUTABLE, Yes;
        /// The cipher suites to accept in TLS 1.3.
        tls_ciphersuites: Option<String> = None,
            "tls-ciphersuites", TEXT, MUTABLE, Yes;
        /// Choose ciphers by the server's order rather than the client's.
        tls_prefer_server_ciphers: bool = false,
            "tls-prefer-server-ciphers", Kind::Bool, MUTABLE, Yes;
        /// Let clients resume sessions.
        tls_session_caching: bool = true,
            "tls-session-caching", Kind::Bool, MUTABLE, Yes;
        /// How many sessions are kept; 0 means no bound.
        tls_session_cache_size: u32 = 20 * 1024,
            "tls-session-cache-size", int(0, INT_MAX), MUTABLE, Yes;
        /// For how many seconds a session may be resumed.
        tls_session_cache_timeout: u32 = 300,
            "tls-session-cache-timeout", int(0, INT_MAX), MUTABLE, Yes;
    }

    section "General" {
        /// Run in the background.
        daemonize: bool = false,
            "daemonize", Kind::Bool, IMMUTABLE, NotYet;
        /// Tell a supervisor when the server is ready.
        supervised: Supervised = Supervised::No,
            "supervised", words::<Supervised>(), IMMUTABLE, NotYet;
        /// Write the process id to this file.
        pidfile: Option<String> = None,
            "pidfile", TEXT, IMMUTABLE, NotYet;
        /// The least severe messages to log.
        loglevel: LogLevel = LogLevel::Notice,
            "loglevel", words::<LogLevel>(), MUTABLE, Yes;
        /// The file to log to; empty means standard output.
        logfile: String = String::new(),
            "logfile", TEXT, IMMUTABLE, Yes;
        /// Send the log to syslog as well.
        syslog_enabled: bool = false,
            "syslog-enabled", Kind::Bool, IMMUTABLE, NotYet;
        /// The name in syslog messages.
        syslog_ident: String = text("redis"),
            "syslog-ident", TEXT, IMMUTABLE, NotYet;
        /// The facility of syslog messages.
        syslog_facility: SyslogFacility = SyslogFacility::Local0,
            "syslog-facility", words::<SyslogFacility>(), IMMUTABLE, NotYet;
        /// Keep keys and values out of the log.
        hide_user_data_from_log: bool = false,
            "hide-user-data-from-log", Kind::Bool, MUTABLE, NotYet;
        /// Log a report when the server crashes.
        crash_log_enabled: bool = true,
            "crash-log-enabled", Kind::Bool, MUTABLE, Yes;
        /// Test the memory when the server crashes.
        crash_memcheck_enabled: bool = true,
            "crash-memcheck-enabled", Kind::Bool, MUTABLE, NotYet;
        /// Leave by exit rather than by abort after a broken invariant.
        use_exit_on_panic: bool = false,
            "use-exit-on-panic", Kind::Bool, HIDDEN, NotYet;
        /// How many databases SELECT can choose from.
        databases: u32 = 16,
            "databases", int(1, INT_MAX), IMMUTABLE, Yes;
        /// Show the logo even when the log is no terminal.
        always_show_logo: bool = false,
            "always-show-logo", Kind::Bool, IMMUTABLE, NotYet;
        /// Show what the server is in the list of processes.
        set_proc_title: bool = true,
            "set-proc-title", Kind::Bool, IMMUTABLE, Yes;
        /// What is shown there. Known are {title}, {listen-addr}, {server-mode}, {port}, {tls-port},
        /// {unixsocket} and {config-file}.
        proc_title_template: String = text("{title} {listen-addr} {server-mode}"),
            "proc-title-template", Kind::Text(check::proc_title_template), MUTABLE, Yes;
        /// The locale that string comparison goes by; empty takes it from the environment.
        locale_collate: String = String::new(),
            "locale-collate", TEXT, MUTABLE, NotYet;
        /// From where dir and dbfilename may be changed by CONFIG SET.
        enable_protected_configs: ProtectedAction = ProtectedAction::No,
            "enable-protected-configs", words::<ProtectedAction>(), IMMUTABLE, Yes;
        /// From where DEBUG may be called.
        enable_debug_command: ProtectedAction = ProtectedAction::No,
            "enable-debug-command", words::<ProtectedAction>(), IMMUTABLE, Yes;
        /// From where MODULE may be called.
        enable_module_command: ProtectedAction = ProtectedAction::No,
            "enable-module-command", words::<ProtectedAction>(), IMMUTABLE, NotYet;
        /// How many seconds a shutdown waits for replicas that lag behind.
        shutdown_timeout: u32 = 10,
            "shutdown-timeout", int(0, INT_MAX), MUTABLE, NotYet;
        /// What SIGINT adds to the shutdown it starts.
        shutdown_on_sigint: ShutdownFlags = ShutdownFlags::default(),
            "shutdown-on-sigint", Kind::ShutdownFlags, MULTI_ARG, Yes;
        /// What SIGTERM adds to the shutdown it starts.
        shutdown_on_sigterm: ShutdownFlags = ShutdownFlags::default(),
            "shutdown-on-sigterm", Kind::ShutdownFlags, MULTI_ARG, Yes;
        /// How often a second background work runs; held between 1 and 500.
        hz: u32 = 10,
            "hz", int(0, INT_MAX), MUTABLE, Yes;
        /// Run it more often while many clients are connected.
        dynamic_hz: bool = true,
            "dynamic-hz", Kind::Bool, MUTABLE, NotYet;
        /// Report a loop that is stuck for so many milliseconds; 0 means never.
        watchdog_period: u32 = 0,
            "watchdog-period", int(0, INT_MAX), HIDDEN, NotYet;
        /// Known problems of the machine not to refuse to start for.
        ignore_warnings: String = String::new(),
            "ignore-warnings", TEXT, MUTABLE, NotYet;
        /// The cores that shards may use, as in 0-7:2.
        server_cpulist: Option<String> = None,
            "server-cpulist" | "server_cpulist", TEXT, IMMUTABLE, NotYet;
        /// The cores of background threads.
        bio_cpulist: Option<String> = None,
            "bio-cpulist" | "bio_cpulist", TEXT, IMMUTABLE, NotYet;
        /// The cores of a rewrite of the append-only file.
        aof_rewrite_cpulist: Option<String> = None,
            "aof-rewrite-cpulist" | "aof_rewrite_cpulist", TEXT, IMMUTABLE, NotYet;
        /// The cores of a snapshot.
        bgsave_cpulist: Option<String> = None,
            "bgsave-cpulist" | "bgsave_cpulist", TEXT, IMMUTABLE, NotYet;
        /// Threads for reading and writing. Shards take their place: see shards.
        io_threads: u32 = 1,
            "io-threads", int(1, 128), IMMUTABLE, NotYet;
        /// Whether those threads also read.
        io_threads_do_reads: bool = false,
            "io-threads-do-reads", Kind::Bool, IMMUTABLE, NotYet;
        /// Whether to tell the kernel which process to end first when memory runs out.
        oom_score_adj: OomScoreAdj = OomScoreAdj::No,
            "oom-score-adj", words::<OomScoreAdj>(), MUTABLE, Yes;
        /// Those scores of a master, of a replica and of a background child.
        oom_score_adj_values: OomScoreAdjValues = [0, 200, 800],
            "oom-score-adj-values", Kind::OomScoreAdjValues, MULTI_ARG, Yes;
        /// Ask the kernel for no transparent huge pages.
        disable_thp: bool = true,
            "disable-thp", Kind::Bool, IMMUTABLE, NotYet;
    }

    section "Protocol and clients" {
        /// The longest argument a client may send.
        proto_max_bulk_len: u64 = 512 * MB,
            "proto-max-bulk-len", memory(MB, LONG_MAX), MUTABLE, Yes;
        /// How much unread input a client may pile up.
        client_query_buffer_limit: u64 = GB,
            "client-query-buffer-limit", memory(MB, LONG_MAX), MUTABLE, Yes;
        /// When a client that does not read its replies is cut off: at once beyond the hard limit, or
        /// when it stays beyond the soft one for so many seconds. 0 means never. A line for each class.
        client_output_buffer_limit: OutputLimits = [
            OutputLimit { hard_bytes: 0, soft_bytes: 0, soft_seconds: 0 },
            OutputLimit { hard_bytes: 256 * MB, soft_bytes: 64 * MB, soft_seconds: 60 },
            OutputLimit { hard_bytes: 32 * MB, soft_bytes: 8 * MB, soft_seconds: 60 },
        ],
            "client-output-buffer-limit", Kind::OutputLimits, MULTI_ARG, Yes;
        /// How much memory all clients together may hold before the largest are cut off; 0 means no
        /// bound.
        maxmemory_clients: MemoryOrPercent = MemoryOrPercent::Bytes(0),
            "maxmemory-clients", Kind::MemoryOrPercent, MUTABLE, Yes;
        /// How many keys client-side caching remembers; 0 means no bound.
        tracking_table_max_keys: usize = 1000000,
            "tracking-table-max-keys", int(0, i64::MAX), MUTABLE, Yes;
    }

    section "Access" {
        /// The password of the default user.
        requirepass: Option<Vec<u8>> = None,
            "requirepass", Kind::Secret, SENSITIVE, Yes;
        /// The file that holds the users; without it they stand in this file.
        aclfile: String = String::new(),
            "aclfile", TEXT, IMMUTABLE, Yes;
        /// Which channels a new user may use.
        acl_pubsub_default: AclPubsubDefault = AclPubsubDefault::Resetchannels,
            "acl-pubsub-default", words::<AclPubsubDefault>(), MUTABLE, Yes;
        /// How many entries ACL LOG keeps.
        acllog_max_len: u64 = 128,
            "acllog-max-len", int(0, i64::MAX), MUTABLE, Yes;
    }

    section "Memory" {
        /// Keys are evicted, or writes refused, beyond this many bytes; 0 means no bound.
        maxmemory: u64 = 0,
            "maxmemory", memory(0, u64::MAX), MUTABLE, Yes;
        /// Which keys are evicted then: the least recently or least frequently used, any, or those
        /// nearest to their expiry, among all keys or among those that have an expiry.
        maxmemory_policy: MaxmemoryPolicy = MaxmemoryPolicy::Noeviction,
            "maxmemory-policy", words::<MaxmemoryPolicy>(), MUTABLE, Yes;
        /// How many keys are looked at to find one to evict; more is nearer to true LRU and dearer.
        maxmemory_samples: u32 = 5,
            "maxmemory-samples", int(1, 64), MUTABLE, Yes;
        /// How long eviction may hold up clients: 0 shortest, 100 until enough is free.
        maxmemory_eviction_tenacity: u32 = 10,
            "maxmemory-eviction-tenacity", int(0, 100), MUTABLE, Yes;
        /// How slowly the access counter of LFU grows.
        lfu_log_factor: u32 = 10,
            "lfu-log-factor", int(0, INT_MAX), MUTABLE, Yes;
        /// After how many minutes without access that counter goes down by one.
        lfu_decay_time: u32 = 1,
            "lfu-decay-time", int(0, INT_MAX), MUTABLE, Yes;
        /// How much time goes into finding expired keys that nobody asks for.
        active_expire_effort: u32 = 1,
            "active-expire-effort", int(1, 10), MUTABLE, Yes;
        /// Use idle time to move tables that are being resized.
        activerehashing: bool = true,
            "activerehashing", Kind::Bool, MUTABLE, Yes;
        /// Free evicted values in the background.
        lazyfree_lazy_eviction: bool = false,
            "lazyfree-lazy-eviction", Kind::Bool, MUTABLE, Yes;
        /// Free expired values in the background.
        lazyfree_lazy_expire: bool = false,
            "lazyfree-lazy-expire", Kind::Bool, MUTABLE, Yes;
        /// Free overwritten values in the background.
        lazyfree_lazy_server_del: bool = false,
            "lazyfree-lazy-server-del", Kind::Bool, MUTABLE, Yes;
        /// Let DEL free in the background, as UNLINK does.
        lazyfree_lazy_user_del: bool = false,
            "lazyfree-lazy-user-del", Kind::Bool, MUTABLE, Yes;
        /// Let FLUSHALL and FLUSHDB free in the background unless told SYNC.
        lazyfree_lazy_user_flush: bool = false,
            "lazyfree-lazy-user-flush", Kind::Bool, MUTABLE, Yes;
        /// Move values about to win back fragmented memory.
        activedefrag: bool = false,
            "activedefrag", Kind::Bool, MUTABLE, NotYet;
        /// Do not begin below this much waste.
        active_defrag_ignore_bytes: usize = 100 << 20,
            "active-defrag-ignore-bytes", memory(1, LONG_MAX), MUTABLE, NotYet;
        /// The percentage of waste to begin at.
        active_defrag_threshold_lower: u32 = 10,
            "active-defrag-threshold-lower", int(0, 1000), MUTABLE, NotYet;
        /// The percentage of waste to work hardest at.
        active_defrag_threshold_upper: u32 = 100,
            "active-defrag-threshold-upper", int(0, 1000), MUTABLE, NotYet;
        /// The least percentage of CPU time for it.
        active_defrag_cycle_min: u32 = 1,
            "active-defrag-cycle-min", int(1, 99), MUTABLE, NotYet;
        /// The most percentage of CPU time for it.
        active_defrag_cycle_max: u32 = 25,
            "active-defrag-cycle-max", int(1, 99), MUTABLE, NotYet;
        /// Collections beyond so many elements are worked on piecemeal.
        active_defrag_max_scan_fields: u64 = 1000,
            "active-defrag-max-scan-fields", int(1, i64::MAX), MUTABLE, NotYet;
        /// Let the allocator return memory to the kernel from a thread of its own.
        jemalloc_bg_thread: bool = true,
            "jemalloc-bg-thread", Kind::Bool, MUTABLE, NotYet;
    }

    section "Encodings" {
        /// Hashes up to so many fields are kept in one flat allocation.
        hash_max_listpack_entries: usize = 512,
            "hash-max-listpack-entries" | "hash-max-ziplist-entries", int(0, i64::MAX), MUTABLE, Yes;
        /// The longest field or value in such a hash.
        hash_max_listpack_value: usize = 64,
            "hash-max-listpack-value" | "hash-max-ziplist-value", memory(0, LONG_MAX), MUTABLE, Yes;
        /// The size of a node of a list: so many elements, or -1 to -5 for 4, 8, 16, 32 or 64 kb.
        list_max_listpack_size: i64 = -2,
            "list-max-listpack-size" | "list-max-ziplist-size", int(i32::MIN as i64, INT_MAX), MUTABLE, NotYet;
        /// How many nodes at either end of a list stay uncompressed; 0 compresses none.
        list_compress_depth: u32 = 0,
            "list-compress-depth", int(0, INT_MAX), MUTABLE, NotYet;
        /// Sets of integers up to so many members are kept in a sorted array.
        set_max_intset_entries: usize = 512,
            "set-max-intset-entries", int(0, i64::MAX), MUTABLE, Yes;
        /// Sets up to so many members are kept in one flat allocation.
        set_max_listpack_entries: usize = 128,
            "set-max-listpack-entries", int(0, i64::MAX), MUTABLE, Yes;
        /// The longest member of such a set.
        set_max_listpack_value: usize = 64,
            "set-max-listpack-value", int(0, i64::MAX), MUTABLE, Yes;
        /// Sorted sets up to so many members are kept in one flat allocation.
        zset_max_listpack_entries: usize = 128,
            "zset-max-listpack-entries" | "zset-max-ziplist-entries", int(0, i64::MAX), MUTABLE, Yes;
        /// The longest member of such a sorted set.
        zset_max_listpack_value: usize = 64,
            "zset-max-listpack-value" | "zset-max-ziplist-value", memory(0, LONG_MAX), MUTABLE, Yes;
        /// The largest sparse HyperLogLog.
        hll_sparse_max_bytes: usize = 3000,
            "hll-sparse-max-bytes", memory(0, LONG_MAX), MUTABLE, NotYet;
        /// The most bytes in a node of a stream; 0 means no bound.
        stream_node_max_bytes: usize = 4096,
            "stream-node-max-bytes", memory(0, LONG_MAX), MUTABLE, Yes;
        /// The most entries in a node of a stream; 0 means no bound.
        stream_node_max_entries: u64 = 100,
            "stream-node-max-entries", int(0, i64::MAX), MUTABLE, Yes;
    }

    section "Observation" {
        /// Commands that take more than so many microseconds go to the slow log; -1 means none, 0 all.
        slowlog_log_slower_than: i64 = 10000,
            "slowlog-log-slower-than", int(-1, i64::MAX), MUTABLE, Yes;
        /// How many entries the slow log keeps.
        slowlog_max_len: u64 = 128,
            "slowlog-max-len", int(0, i64::MAX), MUTABLE, Yes;
        /// Events that take at least so many milliseconds are kept for LATENCY; 0 means none.
        latency_monitor_threshold: u64 = 0,
            "latency-monitor-threshold", int(0, i64::MAX), MUTABLE, Yes;
        /// Keep a histogram of each command's latency.
        latency_tracking: bool = true,
            "latency-tracking", Kind::Bool, MUTABLE, Yes;
        /// The percentiles of them that INFO latencystats shows.
        latency_tracking_info_percentiles: Vec<f64> = vec![50.0, 99.0, 99.9],
            "latency-tracking-info-percentiles", Kind::Percentiles, MULTI_ARG, Yes;
        /// Which keyspace events are published: K and E choose the channels, by key and by event; g $ l
        /// s h z x e t d choose the classes, A all of these, m misses and n new keys.
        notify_keyspace_events: KeyspaceEvents = KeyspaceEvents(0),
            "notify-keyspace-events", Kind::KeyspaceEvents, MUTABLE, Yes;
    }

    section "Scripts and modules" {
        /// After how many milliseconds of one script other clients are told BUSY.
        busy_reply_threshold: u64 = 5000,
            "busy-reply-threshold" | "lua-time-limit", int(0, i64::MAX), MUTABLE, NotYet;
    }

    section "Snapshots" {
        /// Save after so many seconds with at least so many changes. Any number of lines; "" for none.
        save: Vec<SavePoint> = vec![
            SavePoint { seconds: 3600, changes: 1 },
            SavePoint { seconds: 300, changes: 100 },
            SavePoint { seconds: 60, changes: 10_000 },
        ],
            "save", Kind::Save, MULTI_ARG, Yes;
        /// The directory of snapshots and logs, and the one relative paths start from. Empty keeps the
        /// one the server is started in.
        dir: String = String::new(),
            "dir", Kind::Dir, PROTECTED | DENY_LOADING, Yes;
        /// The snapshot's file name.
        dbfilename: String = text("dump.rdb"),
            "dbfilename", Kind::Text(check::db_filename), PROTECTED, Yes;
        /// Compress strings in snapshots.
        rdbcompression: bool = true,
            "rdbcompression", Kind::Bool, MUTABLE, Yes;
        /// End snapshots with a checksum.
        rdbchecksum: bool = true,
            "rdbchecksum", Kind::Bool, IMMUTABLE, Yes;
        /// The version in which snapshots and DUMP are written: 11 is that of Redis 7.2, which older
        /// ones cannot read; 10 is that of Redis 7.0, and loses only when a stream's consumers last got
        /// something.
        rdb_version: u16 = 11,
            "rdb-version", int(10, 11), MUTABLE, Yes;
        /// Remove the snapshot made for a replica when nothing else needs it.
        rdb_del_sync_files: bool = false,
            "rdb-del-sync-files", Kind::Bool, MUTABLE, NotYet;
        /// Force a snapshot to disk bit by bit while it is written.
        rdb_save_incremental_fsync: bool = true,
            "rdb-save-incremental-fsync", Kind::Bool, MUTABLE, Yes;
        /// Slow down saving by so many microseconds a key, for tests.
        rdb_key_save_delay: i32 = 0,
            "rdb-key-save-delay", int(i32::MIN as i64, INT_MAX), HIDDEN, Yes;
        /// Slow down loading by so many microseconds a key, for tests.
        key_load_delay: i32 = 0,
            "key-load-delay", int(i32::MIN as i64, INT_MAX), HIDDEN, Yes;
        /// How much is loaded between two looks at the sockets.
        loading_process_events_interval_bytes: u64 = 2 * 1024 * 1024,
            "loading-process-events-interval-bytes", int(1024, INT_MAX), HIDDEN, NotYet;
        /// Refuse writes after a snapshot failed, so that it is noticed.
        stop_writes_on_bgsave_error: bool = true,
            "stop-writes-on-bgsave-error", Kind::Bool, MUTABLE, Yes;
        /// Check payloads of RESTORE and of snapshots in depth. They always are, whatever this says.
        sanitize_dump_payload: SanitizeDumpPayload = SanitizeDumpPayload::No,
            "sanitize-dump-payload", words::<SanitizeDumpPayload>(), MUTABLE, Yes;
    }

    section "Append-only file" {
        /// Log every write, to be replayed at the next start.
        appendonly: bool = false,
            "appendonly", Kind::Bool, MUTABLE, Yes;
        /// The stem of the log's file names.
        appendfilename: String = text("appendonly.aof"),
            "appendfilename", Kind::Text(check::append_filename), IMMUTABLE, Yes;
        /// The directory of the log's files, within dir.
        appenddirname: String = text("appendonlydir"),
            "appenddirname", Kind::Text(check::append_dirname), IMMUTABLE, Yes;
        /// When the log is forced to disk.
        appendfsync: AppendFsync = AppendFsync::Everysec,
            "appendfsync", words::<AppendFsync>(), MUTABLE, Yes;
        /// Do not force it while a rewrite or a snapshot runs.
        no_appendfsync_on_rewrite: bool = false,
            "no-appendfsync-on-rewrite", Kind::Bool, MUTABLE, Yes;
        /// Rewrite the log when it has grown by so many percent; 0 means never.
        auto_aof_rewrite_percentage: u32 = 100,
            "auto-aof-rewrite-percentage", int(0, INT_MAX), MUTABLE, Yes;
        /// Do not rewrite it while it is smaller than this.
        auto_aof_rewrite_min_size: u64 = 64 * MB,
            "auto-aof-rewrite-min-size", memory(0, LONG_MAX), MUTABLE, Yes;
        /// Load a log whose end is cut off, up to the cut.
        aof_load_truncated: bool = true,
            "aof-load-truncated", Kind::Bool, MUTABLE, Yes;
        /// Begin a rewritten log with a snapshot.
        aof_use_rdb_preamble: bool = true,
            "aof-use-rdb-preamble", Kind::Bool, MUTABLE, Yes;
        /// Note the time in the log, so that it can be replayed up to a moment.
        aof_timestamp_enabled: bool = false,
            "aof-timestamp-enabled", Kind::Bool, MUTABLE, Yes;
        /// Force a rewritten log to disk bit by bit.
        aof_rewrite_incremental_fsync: bool = true,
            "aof-rewrite-incremental-fsync", Kind::Bool, MUTABLE, Yes;
        /// Keep the files that a rewrite makes superfluous.
        aof_disable_auto_gc: bool = false,
            "aof-disable-auto-gc", Kind::Bool, HIDDEN, Yes;
    }

    section "Replication" {
        /// Follow the master at this host and port.
        replicaof: Option<(String, u16)> = None,
            "replicaof" | "slaveof", Kind::ReplicaOf, IMMUTABLE | MULTI_ARG, NotYet;
        /// The user to log in to the master as.
        masteruser: Option<String> = None,
            "masteruser", TEXT, SENSITIVE, NotYet;
        /// The password to log in to the master with.
        masterauth: Option<Vec<u8>> = None,
            "masterauth", Kind::Secret, SENSITIVE, NotYet;
        /// Answer reads while the link to the master is down.
        replica_serve_stale_data: bool = true,
            "replica-serve-stale-data" | "slave-serve-stale-data", Kind::Bool, MUTABLE, NotYet;
        /// Refuse writes from clients on a replica.
        replica_read_only: bool = true,
            "replica-read-only" | "slave-read-only", Kind::Bool, MUTABLE, NotYet;
        /// Leave eviction to the master.
        replica_ignore_maxmemory: bool = true,
            "replica-ignore-maxmemory" | "slave-ignore-maxmemory", Kind::Bool, MUTABLE, NotYet;
        /// Free the old data set in the background before a full synchronization.
        replica_lazy_flush: bool = false,
            "replica-lazy-flush" | "slave-lazy-flush", Kind::Bool, MUTABLE, NotYet;
        /// Go on replicating though the disk cannot be written.
        replica_ignore_disk_write_errors: bool = false,
            "replica-ignore-disk-write-errors", Kind::Bool, MUTABLE, NotYet;
        /// Sentinel promotes the replica with the lowest priority; 0 means never this one.
        replica_priority: u32 = 100,
            "replica-priority" | "slave-priority", int(0, INT_MAX), MUTABLE, NotYet;
        /// Let Sentinel name this replica to clients.
        replica_announced: bool = true,
            "replica-announced", Kind::Bool, MUTABLE, NotYet;
        /// The address that the master and Sentinel are told.
        replica_announce_ip: Option<String> = None,
            "replica-announce-ip" | "slave-announce-ip", TEXT, MUTABLE, NotYet;
        /// The port that they are told; 0 means the true one.
        replica_announce_port: u16 = 0,
            "replica-announce-port" | "slave-announce-port", int(0, 65535), MUTABLE, NotYet;
        /// Send a snapshot to replicas without a file.
        repl_diskless_sync: bool = true,
            "repl-diskless-sync", Kind::Bool, MUTABLE, NotYet;
        /// Wait so many seconds for more replicas before that.
        repl_diskless_sync_delay: u32 = 5,
            "repl-diskless-sync-delay", int(0, INT_MAX), MUTABLE, NotYet;
        /// Do not wait once so many replicas are there; 0 means no such number.
        repl_diskless_sync_max_replicas: u32 = 0,
            "repl-diskless-sync-max-replicas", int(0, INT_MAX), MUTABLE, NotYet;
        /// How a replica takes in a snapshot sent without a file.
        repl_diskless_load: ReplDisklessLoad = ReplDisklessLoad::Disabled,
            "repl-diskless-load", words::<ReplDisklessLoad>(), DENY_LOADING, NotYet;
        /// Ping replicas every so many seconds.
        repl_ping_replica_period: u32 = 10,
            "repl-ping-replica-period" | "repl-ping-slave-period", int(1, INT_MAX), MUTABLE, Yes;
        /// Give up a silent link after so many seconds.
        repl_timeout: u32 = 60,
            "repl-timeout", int(1, INT_MAX), MUTABLE, Yes;
        /// Send fewer and later packets to replicas.
        repl_disable_tcp_nodelay: bool = false,
            "repl-disable-tcp-nodelay", Kind::Bool, MUTABLE, NotYet;
        /// How much of the stream is kept for replicas that come back.
        repl_backlog_size: u64 = MB,
            "repl-backlog-size", memory(1, LONG_MAX), MUTABLE, Yes;
        /// For how many seconds it is kept with no replica connected; 0 means for ever.
        repl_backlog_ttl: u64 = 3600,
            "repl-backlog-ttl", int(0, i64::MAX), MUTABLE, Yes;
        /// Refuse writes with fewer replicas than this; 0 means never.
        min_replicas_to_write: u32 = 0,
            "min-replicas-to-write" | "min-slaves-to-write", int(0, INT_MAX), MUTABLE, Yes;
        /// A replica counts if it was heard from within so many seconds.
        min_replicas_max_lag: u32 = 10,
            "min-replicas-max-lag" | "min-slaves-max-lag", int(0, INT_MAX), MUTABLE, Yes;
        /// What to do when a replicated or logged command fails.
        propagation_error_behavior: PropagationErrorBehavior = PropagationErrorBehavior::Ignore,
            "propagation-error-behavior", words::<PropagationErrorBehavior>(), MUTABLE, NotYet;
    }

    section "Cluster" {
        /// Run as a node of a cluster.
        cluster_enabled: bool = false,
            "cluster-enabled", Kind::Bool, IMMUTABLE, NotYet;
        /// The file in which the node keeps what it knows of the cluster. Not to be edited.
        cluster_config_file: String = text("nodes.conf"),
            "cluster-config-file", TEXT, IMMUTABLE, NotYet;
        /// The port of the cluster bus; 0 means the client port plus 10000.
        cluster_port: u16 = 0,
            "cluster-port", int(0, 65535), IMMUTABLE, NotYet;
        /// A node not heard from for so many milliseconds is taken to be down.
        cluster_node_timeout: u64 = 15000,
            "cluster-node-timeout", int(0, i64::MAX), MUTABLE, NotYet;
        /// Ping other nodes every so many milliseconds; 0 means as usual.
        cluster_ping_interval: u64 = 0,
            "cluster-ping-interval", int(0, i64::MAX), HIDDEN, NotYet;
        /// How far behind its master a replica may be and still take over, in node timeouts.
        cluster_replica_validity_factor: u32 = 10,
            "cluster-replica-validity-factor" | "cluster-slave-validity-factor", int(0, INT_MAX), MUTABLE, NotYet;
        /// How many replicas a master keeps when one moves to a master without any.
        cluster_migration_barrier: u32 = 1,
            "cluster-migration-barrier", int(0, INT_MAX), MUTABLE, NotYet;
        /// Let replicas move to masters without any.
        cluster_allow_replica_migration: bool = true,
            "cluster-allow-replica-migration", Kind::Bool, MUTABLE, NotYet;
        /// Refuse requests while some slots have no node.
        cluster_require_full_coverage: bool = true,
            "cluster-require-full-coverage", Kind::Bool, MUTABLE, NotYet;
        /// Never take over from the master on its own.
        cluster_replica_no_failover: bool = false,
            "cluster-replica-no-failover" | "cluster-slave-no-failover", Kind::Bool, MUTABLE, NotYet;
        /// Answer reads while the cluster is down.
        cluster_allow_reads_when_down: bool = false,
            "cluster-allow-reads-when-down", Kind::Bool, MUTABLE, NotYet;
        /// Serve sharded channels while the cluster is down.
        cluster_allow_pubsubshard_when_down: bool = true,
            "cluster-allow-pubsubshard-when-down", Kind::Bool, MUTABLE, NotYet;
        /// Drop the link to a node once so much waits to be sent; 0 means never.
        cluster_link_sendbuf_limit: u64 = 0,
            "cluster-link-sendbuf-limit", memory(0, u64::MAX), MUTABLE, NotYet;
        /// The address to announce to the cluster.
        cluster_announce_ip: Option<String> = None,
            "cluster-announce-ip", TEXT, MUTABLE, NotYet;
        /// The client port to announce; 0 means the true one.
        cluster_announce_port: u16 = 0,
            "cluster-announce-port", int(0, 65535), MUTABLE, NotYet;
        /// The TLS port to announce; 0 means the true one.
        cluster_announce_tls_port: u16 = 0,
            "cluster-announce-tls-port", int(0, 65535), MUTABLE, NotYet;
        /// The bus port to announce; 0 means the true one.
        cluster_announce_bus_port: u16 = 0,
            "cluster-announce-bus-port", int(0, 65535), MUTABLE, NotYet;
        /// The host name to announce.
        cluster_announce_hostname: Option<String> = None,
            "cluster-announce-hostname", Kind::Text(check::hostname), MUTABLE, NotYet;
        /// A name for people to tell nodes apart by.
        cluster_announce_human_nodename: Option<String> = None,
            "cluster-announce-human-nodename", Kind::Text(check::nodename), MUTABLE, NotYet;
        /// What redirections name a node by.
        cluster_preferred_endpoint_type: ClusterEndpointType = ClusterEndpointType::Ip,
            "cluster-preferred-endpoint-type", words::<ClusterEndpointType>(), MUTABLE, NotYet;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_fields_follow_them() {
        let mut seen = HashSet::new();
        for row in DIRECTIVES {
            for name in row.names() {
                assert!(seen.insert(name), "{name} twice");
                assert_eq!(name, name.to_ascii_lowercase());
            }
            assert_eq!(row.field, row.name.replace('-', "_"));
        }
        assert!(DIRECTIVES.len() > 190, "{}", DIRECTIVES.len());
    }

    #[test]
    fn documentation_fits_a_line_and_ends_a_sentence() {
        for row in DIRECTIVES {
            assert!(row.doc.iter().all(|line| line.len() <= 96), "{}", row.name);
            assert!(row.doc.last().unwrap().ends_with('.'), "{}", row.name);
        }
    }

    #[test]
    fn both_ends_of_every_range_fit_the_field() {
        for row in DIRECTIVES {
            let mut config = Config::default();
            let (min, max) = match row.kind {
                Kind::Int { min, max } | Kind::Memory { min, max } => (min, max),
                Kind::Octal { max } => {
                    let args = [format!("{max:o}").into_bytes()];
                    assert_eq!((row.set)(&mut config, row, &args, Mode::Runtime), Ok(true));
                    assert_eq!((row.get)(&config, row), args[0]);
                    continue;
                }
                _ => continue,
            };
            for value in [min, max] {
                let args = [value.to_string().into_bytes()];
                (row.set)(&mut config, row, &args, Mode::Runtime).expect(row.name);
                assert_eq!((row.get)(&config, row), args[0], "{}", row.name);
            }
            for value in [min - 1, max + 1] {
                let args = [value.to_string().into_bytes()];
                assert!((row.set)(&mut config, row, &args, Mode::Runtime).is_err(), "{}", row.name);
            }
        }
    }

    #[test]
    fn default_values_are_accepted() {
        for row in DIRECTIVES {
            let default = Config::default();
            let mut config = Config::default();
            let value = (row.get)(&default, row);
            let args: Vec<Vec<u8>> = if row.has(MULTI_ARG) && !value.is_empty() {
                value.split(|&byte| byte == b' ').map(<[u8]>::to_vec).collect()
            } else if row.has(MULTI_ARG) {
                Vec::new()
            } else {
                vec![value]
            };
            if row.name == "replicaof" {
                continue;
            }
            let changed = (row.set)(&mut config, row, &args, Mode::Runtime).expect(row.name);
            assert_eq!(changed, row.has(VOLATILE), "{}", row.name);
            assert_eq!(config, default, "{}", row.name);
        }
    }
}
