//! The directives whose value is one of a few words, as Rust enums.
//!
//! To add one: list its variants with their words here, in the order in which an error message is
//! to name them, and give it a row in the table. Redis's counterpart is the `configEnum` arrays.

/// An enum whose variants have names in the configuration.
pub trait Named: Copy + PartialEq + Sized + 'static {
    /// Every accepted word, in the order error messages list them.
    const NAMES: &'static [&'static str];
    /// The variant a word stands for, in either case.
    fn from_name(name: &[u8]) -> Option<Self>;
    /// The word `CONFIG GET` answers with.
    fn name(self) -> &'static str;
}

macro_rules! named {
    ($(#[$meta:meta])* $enum:ident {
        $($(#[$variant_meta:meta])* $variant:ident = $name:literal $(| $other:literal)*,)+
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $enum { $($(#[$variant_meta])* $variant,)+ }

        impl Named for $enum {
            const NAMES: &'static [&'static str] = &[$($name, $($other,)*)+];

            fn from_name(name: &[u8]) -> Option<Self> {
                $(if name.eq_ignore_ascii_case($name.as_bytes())
                    $(|| name.eq_ignore_ascii_case($other.as_bytes()))* {
                    return Some($enum::$variant);
                })+
                None
            }

            fn name(self) -> &'static str {
                match self { $($enum::$variant => $name,)+ }
            }
        }
    };
}

named! {
    /// What goes when `maxmemory` is reached.
    MaxmemoryPolicy {
        /// The least recently used among keys with an expiry.
        VolatileLru = "volatile-lru",
        /// The least frequently used among keys with an expiry.
        VolatileLfu = "volatile-lfu",
        /// Any key with an expiry.
        VolatileRandom = "volatile-random",
        /// The key nearest to its expiry.
        VolatileTtl = "volatile-ttl",
        /// The least recently used of all keys.
        AllkeysLru = "allkeys-lru",
        /// The least frequently used of all keys.
        AllkeysLfu = "allkeys-lfu",
        /// Any key.
        AllkeysRandom = "allkeys-random",
        /// Nothing: writes that need memory are refused.
        Noeviction = "noeviction",
    }
}

impl MaxmemoryPolicy {
    /// Whether entries keep an access frequency instead of an access time.
    pub fn is_lfu(self) -> bool {
        matches!(self, Self::VolatileLfu | Self::AllkeysLfu)
    }

    /// Whether the choice goes by access time.
    pub fn is_lru(self) -> bool {
        matches!(self, Self::VolatileLru | Self::AllkeysLru)
    }

    /// Whether keys without an expiry may be evicted.
    pub fn is_allkeys(self) -> bool {
        matches!(self, Self::AllkeysLru | Self::AllkeysLfu | Self::AllkeysRandom)
    }
}

named! {
    /// How shards wait for their sockets.
    EventLoop {
        /// io_uring where the kernel grants it, epoll otherwise.
        Auto = "auto",
        /// io_uring or a fatal error.
        Uring = "uring",
        /// epoll.
        Epoll = "epoll",
    }
}

named! {
    /// What a pipeline promises about commands whose keys lie on different shards.
    PipelineOrder {
        /// Plain commands may overlap; anything that could signal waits.
        Relaxed = "relaxed",
        /// Every command waits for the one before it.
        Strict = "strict",
    }
}

named! {
    /// The least severe message that is logged.
    LogLevel {
        /// Everything.
        Debug = "debug",
        /// Much that is rarely of use.
        Verbose = "verbose",
        /// What one wants in production.
        Notice = "notice",
        /// Only what matters.
        Warning = "warning",
        /// Nothing.
        Nothing = "nothing",
    }
}

named! {
    /// The syslog facility messages are sent to.
    SyslogFacility {
        /// `user`.
        User = "user",
        /// `local0`.
        Local0 = "local0",
        /// `local1`.
        Local1 = "local1",
        /// `local2`.
        Local2 = "local2",
        /// `local3`.
        Local3 = "local3",
        /// `local4`.
        Local4 = "local4",
        /// `local5`.
        Local5 = "local5",
        /// `local6`.
        Local6 = "local6",
        /// `local7`.
        Local7 = "local7",
    }
}

named! {
    /// Which supervisor is told that the server is up.
    Supervised {
        /// upstart, by stopping itself.
        Upstart = "upstart",
        /// systemd, over `NOTIFY_SOCKET`.
        Systemd = "systemd",
        /// Whichever the environment shows.
        Auto = "auto",
        /// None.
        No = "no",
    }
}

named! {
    /// When the append-only file is forced to disk.
    AppendFsync {
        /// Once a second.
        Everysec = "everysec",
        /// Before every reply.
        Always = "always",
        /// When the kernel likes to.
        No = "no",
    }
}

named! {
    /// How a replica takes in a snapshot sent without a file.
    ReplDisklessLoad {
        /// Through a file first.
        Disabled = "disabled",
        /// Straight in, when the replica holds no keys.
        OnEmptyDb = "on-empty-db",
        /// Into a second keyspace that is then swapped in.
        Swapdb = "swapdb",
    }
}

named! {
    /// Whether TLS clients must show a certificate.
    TlsAuthClients {
        /// Not asked for.
        No = "no",
        /// Required.
        Yes = "yes",
        /// Checked when shown.
        Optional = "optional",
    }
}

named! {
    /// How `oom-score-adj-values` are applied.
    OomScoreAdj {
        /// Not at all.
        No = "no",
        /// On top of the score the process started with.
        Relative = "yes" | "relative",
        /// As they are.
        Absolute = "absolute",
    }
}

named! {
    /// Which channels a new ACL user may use.
    AclPubsubDefault {
        /// All.
        Allchannels = "allchannels",
        /// None.
        Resetchannels = "resetchannels",
    }
}

named! {
    /// Whether payloads of `RESTORE` and of snapshots are checked in depth.
    SanitizeDumpPayload {
        /// Never.
        No = "no",
        /// Always.
        Yes = "yes",
        /// For ordinary clients, not for a master or a loading file.
        Clients = "clients",
    }
}

named! {
    /// From where a dangerous action is allowed.
    ProtectedAction {
        /// From nowhere.
        No = "no",
        /// From anywhere.
        Yes = "yes",
        /// From loopback addresses and the unix socket.
        Local = "local",
    }
}

impl ProtectedAction {
    /// Whether a client may do it, given whether it connected from this machine.
    pub fn allows(self, client_is_local: bool) -> bool {
        match self {
            Self::Yes => true,
            Self::Local => client_is_local,
            Self::No => false,
        }
    }
}

named! {
    /// What cluster redirections name a node by.
    ClusterEndpointType {
        /// Its address.
        Ip = "ip",
        /// Its announced host name.
        Hostname = "hostname",
        /// Nothing: the client keeps the host it used.
        UnknownEndpoint = "unknown-endpoint",
    }
}

named! {
    /// What happens when a replicated or logged command fails.
    PropagationErrorBehavior {
        /// It is counted.
        Ignore = "ignore",
        /// The server stops.
        Panic = "panic",
        /// A replica stops; a loading file does not.
        PanicOnReplicas = "panic-on-replicas",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_both_directions() {
        assert_eq!(MaxmemoryPolicy::from_name(b"AllKeys-LRU"), Some(MaxmemoryPolicy::AllkeysLru));
        assert_eq!(MaxmemoryPolicy::from_name(b"lru"), None);
        assert_eq!(OomScoreAdj::from_name(b"relative"), Some(OomScoreAdj::Relative));
        assert_eq!(OomScoreAdj::Relative.name(), "yes");
        assert_eq!(OomScoreAdj::NAMES, ["no", "yes", "relative", "absolute"]);
    }

    #[test]
    fn protected_actions() {
        assert!(ProtectedAction::Local.allows(true));
        assert!(!ProtectedAction::Local.allows(false));
        assert!(!ProtectedAction::No.allows(true));
        assert!(ProtectedAction::Yes.allows(false));
    }
}
