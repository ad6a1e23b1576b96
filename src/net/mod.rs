//! Listening sockets, and the accept loop's choice of a home for each connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringshard_shards::client::Peer;
use ringshard_shards::config::Config;
use ringshard_shards::shared::Shared;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::tls::{Session, Tls};

/// A socket that connections arrive on.
pub struct Listener {
    socket: Socket,
    /// No other listener of this process has or had it.
    pub id: u32,
    /// The address of a TCP socket, as the configuration has it.
    address: Option<SocketAddr>,
    /// Path of a unix socket.
    pub unix_path: Option<String>,
    /// Whether TLS is spoken.
    pub tls: bool,
}

impl Listener {
    fn new(socket: Socket, address: Option<SocketAddr>, unix_path: Option<String>, tls: bool) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Listener { socket, id: NEXT.fetch_add(1, Relaxed), address, unix_path, tls }
    }

    fn is_at(&self, address: SocketAddr, tls: bool) -> bool {
        self.address == Some(address) && self.tls == tls
    }

    /// The descriptor.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Takes no more connections, whichever loop waits for some: its address is free at once.
    fn stop(&self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    /// Takes connections again after [`Listener::stop`].
    fn resume(&self, backlog: i32) {
        if let Err(error) = self.socket.listen(backlog) {
            crate::log::warning(format!("Cannot listen again: {}", os_text(&error)));
        }
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

/// How long a server that starts waits for an address that is in use.
///
/// One that was killed leaves its rings to the kernel, which takes them down a little after the process is gone, and with
/// them the listening sockets that they accept on: whoever starts it anew at once would find them taken, one time in four.
const LEFT_BEHIND: Duration = Duration::from_millis(500);

/// Opens every listening socket of the configuration, as `initListeners` does.
///
/// # Errors
/// A line for the log: which address, and why.
pub fn listen(config: &Config) -> Result<Vec<Arc<Listener>>, String> {
    let mut listeners = listen_tcp(config, &[], LEFT_BEHIND).map_err(|(port, tls)| {
        format!("Failed listening on port {port} ({}), aborting.", if tls { "tls" } else { "tcp" })
    })?;
    if let Some(path) = config.unixsocket.as_deref().filter(|path| !path.is_empty()) {
        let listener = unix(path, config.unixsocketperm, config.tcp_backlog as i32)
            .map_err(|e| format!("Failed opening Unix socket: bind: {}", os_text(&e)))?;
        listeners.push(Arc::new(listener));
    }
    if listeners.is_empty() {
        return Err("Configured to not listen anywhere, exiting.".into());
    }
    Ok(listeners)
}

/// The ports to listen on, and whether TLS is spoken there.
fn ports(config: &Config) -> impl Iterator<Item = (u16, bool)> {
    [(config.port, false), (config.tls_port, true)].into_iter().filter(|(port, _)| *port != 0)
}

/// Opens the sockets of `port`, `tls-port` and `bind`: all, but for optional ones that cannot be, or none. Those of `open`
/// are taken as they are. Why not is in the log, and which port is returned, and whether it is that of TLS.
fn listen_tcp(config: &Config, open: &[Arc<Listener>], patience: Duration) -> Result<Vec<Arc<Listener>>, (u16, bool)> {
    let mut listeners = Vec::new();
    for (port, tls) in ports(config) {
        if !config.bind.is_empty() {
            listen_on(config, port, tls, open, patience, &mut listeners).map_err(|()| (port, tls))?;
        }
    }
    Ok(listeners)
}

/// The address that a word of `bind` means.
fn address_of(bind: &str) -> Result<IpAddr, String> {
    match bind.strip_prefix('-').unwrap_or(bind) {
        "*" => Ok(IpAddr::from([0, 0, 0, 0])),
        "::*" => Ok(IpAddr::from([0u16; 8])),
        text => text.parse().map_err(|_| "Name or service not known".to_string()),
    }
}

/// Listens on a port of every address.
fn listen_on(
    config: &Config,
    port: u16,
    tls: bool,
    open: &[Arc<Listener>],
    patience: Duration,
    listeners: &mut Vec<Arc<Listener>>,
) -> Result<(), ()> {
    let before = listeners.len();
    for bind in &config.bind {
        let (address, optional) = match bind.strip_prefix('-') {
            Some(address) => (address, true),
            None => (bind.as_str(), false),
        };
        let ip = address_of(bind);
        let at = ip.as_ref().ok().map(|ip| SocketAddr::new(*ip, port));
        if let Some(listener) = open.iter().find(|listener| at.is_some_and(|at| listener.is_at(at, tls))) {
            listeners.push(listener.clone());
            continue;
        }
        let opened = ip.and_then(|ip| {
            tcp(SocketAddr::new(ip, port), config.tcp_backlog as i32, patience).map_err(|e| (e, ip)).or_else(
                |(e, ip)| {
                    match e.raw_os_error() {
                        // The same list of addresses is used on machines without IPv6.
                        Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT) if ip.is_ipv6() || optional => Ok(None),
                        Some(libc::EADDRNOTAVAIL) if optional => Ok(None),
                        _ => Err(os_text(&e)),
                    }
                },
            )
        });
        match opened {
            Ok(Some(socket)) => listeners.push(Arc::new(Listener::new(socket, at, None, tls))),
            Ok(None) => {}
            Err(text) => {
                crate::log::warning(format!(
                    "Warning: Could not create server TCP listening socket {address}:{port}: bind: {text}"
                ));
                return Err(());
            }
        }
    }
    if listeners.len() == before { Err(()) } else { Ok(()) }
}

/// The listening sockets, which `CONFIG SET port` and `bind` exchange while the server runs.
pub struct Listening {
    now: Mutex<Vec<Arc<Listener>>>,
}

impl Listening {
    /// The sockets opened at the start.
    pub fn new(listeners: Vec<Arc<Listener>>) -> Self {
        Listening { now: Mutex::new(listeners) }
    }

    /// Those that there are now.
    pub fn all(&self) -> Vec<Arc<Listener>> {
        self.now.lock().expect("no holder panics").clone()
    }

    /// Takes no more connections, for the server ends.
    pub fn stop(&self) {
        self.all().iter().for_each(|listener| listener.stop());
    }

    /// Listens where this configuration says instead. Sockets that it keeps go on, with what waits in their backlogs. On
    /// failure all is as before.
    ///
    /// # Errors
    /// Nothing more: why is in the log.
    pub fn exchange(&self, config: &Config) -> Result<(), ()> {
        let mut now = self.now.lock().expect("no holder panics");
        let wanted: Vec<(IpAddr, u16, bool)> = ports(config)
            .flat_map(|(port, tls)| {
                config.bind.iter().filter_map(move |bind| Some((address_of(bind).ok()?, port, tls)))
            })
            .collect();
        let stays = |listener: &Arc<Listener>| {
            let at = |(ip, port, tls): &(IpAddr, u16, bool)| listener.is_at(SocketAddr::new(*ip, *port), *tls);
            wanted.iter().any(at)
        };
        let (mut listeners, tcp): (Vec<_>, Vec<_>) = now.drain(..).partition(|listener| listener.unix_path.is_some());
        let (kept, old): (Vec<_>, Vec<_>) = tcp.into_iter().partition(stays);
        // The new addresses may overlap with the old ones.
        old.iter().for_each(|listener| listener.stop());
        let opened = listen_tcp(config, &kept, Duration::ZERO);
        if opened.is_err() {
            old.iter().for_each(|listener| listener.resume(config.tcp_backlog as i32));
        }
        let done = if opened.is_ok() { Ok(()) } else { Err(()) };
        listeners.extend(opened.unwrap_or_else(|_| [kept, old].concat()));
        *now = listeners;
        done
    }
}

/// An error's text without Rust's suffix.
pub fn os_text(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or("").to_string()
}

fn tcp(address: SocketAddr, backlog: i32, patience: Duration) -> io::Result<Option<Socket>> {
    let started = Instant::now();
    loop {
        match try_tcp(address, backlog) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && started.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result.map(Some),
        }
    }
}

fn try_tcp(address: SocketAddr, backlog: i32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket)
}

fn unix(path: &str, mode: u32, backlog: i32) -> io::Result<Listener> {
    let _ = std::fs::remove_file(path);
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    if mode != 0 {
        std::fs::set_permissions(Path::new(path), std::fs::Permissions::from_mode(mode))?;
    }
    socket.listen(backlog)?;
    Ok(Listener::new(socket, None, Some(path.to_string()), false))
}

/// What the accept loop knows.
pub struct Acceptor {
    /// Listening sockets.
    pub listeners: Vec<Arc<Listener>>,
    tls: Arc<Tls>,
    count: u64,
}

impl Acceptor {
    /// An accept loop over these sockets.
    pub fn new(listeners: Vec<Arc<Listener>>, tls: Arc<Tls>) -> Self {
        Acceptor { listeners, tls, count: 0 }
    }

    /// Takes in a connection of the listener with this id, if it is still one: sets its options, refuses it when there
    /// are too many, and chooses its home.
    pub fn accept(&mut self, which: u32, fd: RawFd, shared: &Shared) -> Option<(usize, Accepted)> {
        // SAFETY: the kernel has just made this descriptor for the accept loop, which owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let socket = socket2::SockRef::from(&fd);
        let config = shared.config();
        let listener = self.listeners.iter().find(|listener| listener.id == which)?.clone();
        if shared.connected_clients() >= config.maxclients as usize {
            if !listener.tls {
                let _ = socket.send(b"-ERR max number of clients reached\r\n");
            }
            shared.rejected_clients.fetch_add(1, Relaxed);
            return None;
        }
        let peer = match &listener.unix_path {
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
        let tls = match listener.tls {
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
