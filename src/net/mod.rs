//! Listening sockets, and the accept loop's choice of a home for each connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use ringshard_shards::client::Peer;
use ringshard_shards::config::Config;
use ringshard_shards::shared::Shared;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::tls::{Session, Tls};

/// A socket that connections arrive on.
pub struct Listener {
    socket: Socket,
    /// Path of a unix socket.
    pub unix_path: Option<String>,
    /// Whether TLS is spoken.
    pub tls: bool,
}

impl Listener {
    /// The descriptor.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// An accepted connection on its way home.
pub struct Accepted {
    /// The socket.
    pub fd: OwnedFd,
    /// Where it comes from.
    pub peer: Peer,
    /// Where TLS is spoken.
    pub tls: Option<Box<Session>>,
}

/// Opens every listening socket of the configuration, as `initListeners` does.
///
/// # Errors
/// A line for the log: which address, and why.
pub fn listen(config: &Config) -> Result<Vec<Listener>, String> {
    let mut listeners = Vec::new();
    for (port, tls) in [(config.port, false), (config.tls_port, true)] {
        if port != 0 {
            listen_on(config, port, tls, &mut listeners)?;
        }
    }
    if let Some(path) = config.unixsocket.as_deref().filter(|path| !path.is_empty()) {
        let listener = unix(path, config.unixsocketperm, config.tcp_backlog as i32)
            .map_err(|e| format!("Failed opening Unix socket: bind: {}", os_text(&e)))?;
        listeners.push(listener);
    }
    if listeners.is_empty() {
        return Err("Configured to not listen anywhere, exiting.".into());
    }
    Ok(listeners)
}

/// Listens on a port of every address.
fn listen_on(config: &Config, port: u16, tls: bool, listeners: &mut Vec<Listener>) -> Result<(), String> {
    let failed = || format!("Failed listening on port {port} ({}), aborting.", if tls { "tls" } else { "tcp" });
    let before = listeners.len();
    for bind in &config.bind {
        let (address, optional) = match bind.strip_prefix('-') {
            Some(address) => (address, true),
            None => (bind.as_str(), false),
        };
        let ip: Result<IpAddr, String> = match address {
            "*" => Ok(IpAddr::from([0, 0, 0, 0])),
            "::*" => Ok(IpAddr::from([0u16; 8])),
            text => text.parse().map_err(|_| "Name or service not known".to_string()),
        };
        let opened = ip.and_then(|ip| {
            tcp(SocketAddr::new(ip, port), config.tcp_backlog as i32).map_err(|e| (e, ip)).or_else(|(e, ip)| {
                match e.raw_os_error() {
                    // The same list of addresses is used on machines without IPv6.
                    Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT) if ip.is_ipv6() || optional => Ok(None),
                    Some(libc::EADDRNOTAVAIL) if optional => Ok(None),
                    _ => Err(os_text(&e)),
                }
            })
        });
        match opened {
            Ok(Some(socket)) => listeners.push(Listener { socket, unix_path: None, tls }),
            Ok(None) => {}
            Err(text) => {
                crate::log::warning(format!(
                    "Warning: Could not create server TCP listening socket {address}:{port}: bind: {text}"
                ));
                return Err(failed());
            }
        }
    }
    if listeners.len() == before { Err(failed()) } else { Ok(()) }
}

/// An error's text without Rust's suffix.
pub fn os_text(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or("").to_string()
}

fn tcp(address: SocketAddr, backlog: i32) -> io::Result<Option<Socket>> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(Some(socket))
}

fn unix(path: &str, mode: u32, backlog: i32) -> io::Result<Listener> {
    let _ = std::fs::remove_file(path);
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    if mode != 0 {
        std::fs::set_permissions(Path::new(path), std::fs::Permissions::from_mode(mode))?;
    }
    socket.listen(backlog)?;
    Ok(Listener { socket, unix_path: Some(path.to_string()), tls: false })
}

/// What the accept loop knows.
pub struct Acceptor {
    /// Listening sockets.
    pub listeners: Vec<Listener>,
    tls: Arc<Tls>,
    count: u64,
}

impl Acceptor {
    /// An accept loop over these sockets.
    pub fn new(listeners: Vec<Listener>, tls: Arc<Tls>) -> Self {
        Acceptor { listeners, tls, count: 0 }
    }

    /// Takes in a connection of listener `which`: sets its options, refuses it when there are too many, and chooses
    /// its home.
    pub fn accept(&mut self, which: usize, fd: RawFd, shared: &Shared) -> Option<(usize, Accepted)> {
        // SAFETY: the kernel has just made this descriptor for the accept loop, which owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let socket = socket2::SockRef::from(&fd);
        let config = shared.config();
        if shared.connected_clients() >= config.maxclients as usize {
            if !self.listeners[which].tls {
                let _ = socket.send(b"-ERR max number of clients reached\r\n");
            }
            shared.rejected_clients.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            return None;
        }
        let unix_path = self.listeners[which].unix_path.clone();
        let peer = match unix_path {
            Some(path) => Peer {
                address: format!("{path}:0"),
                local_address: format!("{path}:0"),
                fd: fd.as_raw_fd(),
                unix: true,
                local: true,
            },
            None => {
                let _ = socket.set_tcp_nodelay(true);
                if config.tcp_keepalive > 0 {
                    let idle = config.tcp_keepalive as u64;
                    let keepalive = socket2::TcpKeepalive::new()
                        .with_time(std::time::Duration::from_secs(idle))
                        .with_interval(std::time::Duration::from_secs((idle / 3).max(1)))
                        .with_retries(3);
                    let _ = socket.set_tcp_keepalive(&keepalive);
                }
                let address = |address: io::Result<SockAddr>| address.ok().and_then(|a| a.as_socket());
                let (remote, local) = (address(socket.peer_addr()), address(socket.local_addr()));
                let text = |a: Option<SocketAddr>| a.map_or("?:0".into(), |a| a.to_string());
                Peer {
                    address: text(remote),
                    local_address: text(local),
                    fd: fd.as_raw_fd(),
                    unix: false,
                    local: remote.is_some_and(|a| a.ip().to_canonical().is_loopback()),
                }
            }
        };
        let tls = match self.listeners[which].tls {
            false => None,
            true => match Session::new(self.tls.config()?, &peer.address) {
                Ok(session) => Some(Box::new(session)),
                Err(error) => {
                    crate::log::warning(format!("Error accepting a client connection: {error}"));
                    return None;
                }
            },
        };
        self.count += 1;
        let home = self.home_of(&peer, shared);
        Some((home, Accepted { fd, peer, tls }))
    }

    /// Hashes a connection to two shards and takes the one with fewer clients: with a plain hash, few connections
    /// often crowd on one shard.
    fn home_of(&self, peer: &Peer, shared: &Shared) -> usize {
        use std::sync::atomic::Ordering::Relaxed;
        let hash = shared.hasher.hash(format!("{}#{}", peer.address, self.count).as_bytes());
        let n = shared.shards as u64;
        let (a, b) = ((hash as u32 as u64 * n) >> 32, ((hash >> 32) * n) >> 32);
        let load = |shard: u64| {
            shared.clients[shard as usize].0.load(Relaxed) + shared.arriving[shard as usize].0.load(Relaxed)
        };
        let home = if load(a) <= load(b) { a } else { b } as usize;
        shared.arriving[home].0.fetch_add(1, Relaxed);
        home
    }
}
