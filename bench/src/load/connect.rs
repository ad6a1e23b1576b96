//! Dialling: a socket to the server, greeted as asked (`HELLO`, `AUTH`, `SELECT`), before it joins a loop.
//!
//! All this happens with plain blocking calls: it is outside every measured window, and an error can be told in
//! words. Also a small blocking client for the runner's own questions (`INFO`, `CONFIG`, `CLUSTER SLOTS`).

use super::reply::{self, Scan};
use super::tls::{Session, Tls};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Host and port, resolved.
    Tcp(SocketAddr),
    /// A socket file.
    Unix(PathBuf),
}

impl Endpoint {
    /// Resolves a host and port.
    pub fn tcp(host: &str, port: u16) -> Result<Self, String> {
        (host, port)
            .to_socket_addrs()
            .map_err(|e| format!("cannot resolve {host}: {e}"))?
            .next()
            .map(Endpoint::Tcp)
            .ok_or_else(|| format!("{host} has no address"))
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Tcp(a) => write!(f, "{a}"),
            Endpoint::Unix(p) => write!(f, "{}", p.display()),
        }
    }
}

/// What is said before the first request.
#[derive(Debug, Clone, Default)]
pub struct Greeting {
    /// Speak RESP3.
    pub resp3: bool,
    /// User name for `AUTH`.
    pub user: Option<String>,
    /// Password for `AUTH`.
    pub password: Option<String>,
    /// Database number.
    pub db: u32,
    /// Speak TLS.
    pub tls: Option<Tls>,
}

/// Where the system's congestion control is one that paces (bbr), loopback pays for timers that make no sense there.
/// The client takes the plainest one for its own direction; the server's stays as the server made it.
fn without_pacing(socket: &TcpStream) {
    let name = b"reno";
    // SAFETY: the name lives through the call and its length is given. If it is refused, things stay as they were.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_CONGESTION,
            name.as_ptr().cast(),
            name.len() as u32,
        );
    }
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A blocking connection.
pub struct Client {
    socket: Socket,
    session: Option<Box<Session>>,
    buf: Vec<u8>,
    endpoint: Endpoint,
}

impl Client {
    /// Connects, without a greeting.
    pub fn dial(endpoint: &Endpoint) -> io::Result<Client> {
        let wait = Some(Duration::from_secs(10));
        let socket = match endpoint {
            Endpoint::Tcp(addr) => {
                let s = TcpStream::connect_timeout(addr, Duration::from_secs(10))?;
                s.set_nodelay(true)?;
                if addr.ip().is_loopback() {
                    without_pacing(&s);
                }
                s.set_read_timeout(wait)?;
                s.set_write_timeout(wait)?;
                Socket::Tcp(s)
            }
            Endpoint::Unix(path) => {
                let s = UnixStream::connect(path)?;
                s.set_read_timeout(wait)?;
                s.set_write_timeout(wait)?;
                Socket::Unix(s)
            }
        };
        Ok(Client {
            socket,
            session: None,
            buf: Vec::new(),
            endpoint: endpoint.clone(),
        })
    }

    /// Connects and greets.
    pub fn connect(endpoint: &Endpoint, greeting: &Greeting) -> Result<Client, String> {
        let mut client =
            Client::dial(endpoint).map_err(|e| format!("cannot connect to {endpoint}: {e}"))?;
        if let Some(tls) = &greeting.tls {
            let mut session = tls.session()?;
            let shaken = match &mut client.socket {
                Socket::Tcp(s) => session.handshake(s),
                Socket::Unix(s) => session.handshake(s),
            };
            shaken.map_err(|e| format!("TLS with {endpoint}: {e}"))?;
            client.session = Some(Box::new(session));
        }
        if greeting.resp3 {
            let mut hello = vec!["HELLO", "3"];
            if let Some(password) = &greeting.password {
                hello.extend([
                    "AUTH",
                    greeting.user.as_deref().unwrap_or("default"),
                    password,
                ]);
            }
            client.ask(&hello)?;
        } else if let Some(password) = &greeting.password {
            match &greeting.user {
                Some(user) => client.ask(&["AUTH", user, password])?,
                None => client.ask(&["AUTH", password])?,
            };
        }
        if greeting.db > 0 {
            client.ask(&["SELECT", &greeting.db.to_string()])?;
        }
        Ok(client)
    }

    /// Sends one command and returns its raw reply; an error reply is an `Err`.
    pub fn ask(&mut self, args: &[&str]) -> Result<Vec<u8>, String> {
        let name = args.first().copied().unwrap_or_default();
        let told =
            |endpoint: &Endpoint, e: &dyn std::fmt::Display| format!("{name} to {endpoint}: {e}");
        let mut out = format!("*{}\r\n", args.len()).into_bytes();
        for a in args {
            out.extend_from_slice(format!("${}\r\n{a}\r\n", a.len()).as_bytes());
        }
        self.write_all(&out).map_err(|e| told(&self.endpoint, &e))?;
        let raw = self.read_reply().map_err(|e| told(&self.endpoint, &e))?;
        match reply::head(&raw) {
            Some((reply::Head::Error(text), _)) => {
                Err(told(&self.endpoint, &String::from_utf8_lossy(text)))
            }
            _ => Ok(raw),
        }
    }

    /// Sends bytes.
    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut sealed = Vec::new();
        let bytes = match &mut self.session {
            Some(session) => {
                session.seal(bytes, &mut sealed)?;
                &sealed
            }
            None => bytes,
        };
        match &mut self.socket {
            Socket::Tcp(s) => s.write_all(bytes),
            Socket::Unix(s) => s.write_all(bytes),
        }
    }

    /// Reads one whole reply.
    pub fn read_reply(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match reply::scan(&self.buf) {
                Ok(Scan::Done(n)) => {
                    let rest = self.buf.split_off(n);
                    return Ok(std::mem::replace(&mut self.buf, rest));
                }
                Ok(Scan::More(_)) => {
                    let mut chunk = [0; 16 * 1024];
                    let n = match &mut self.socket {
                        Socket::Tcp(s) => s.read(&mut chunk)?,
                        Socket::Unix(s) => s.read(&mut chunk)?,
                    };
                    if n == 0 {
                        return Err(io::Error::new(
                            io::ErrorKind::UnexpectedEof,
                            "the server closed the connection",
                        ));
                    }
                    match &mut self.session {
                        Some(session) => {
                            let plain = session.open(&chunk[..n])?;
                            self.buf.extend_from_slice(&plain);
                            session.give_back(plain);
                        }
                        None => self.buf.extend_from_slice(&chunk[..n]),
                    }
                }
                Err(e) => return Err(io::Error::new(io::ErrorKind::InvalidData, e.to_string())),
            }
        }
    }

    /// Gives the socket away, to a loop. Whatever was read ahead goes with it.
    pub fn into_socket(
        self,
        nonblocking: bool,
    ) -> io::Result<(OwnedFd, Vec<u8>, Option<Box<Session>>)> {
        let fd: OwnedFd = match self.socket {
            Socket::Tcp(s) => {
                s.set_read_timeout(None)?;
                s.set_write_timeout(None)?;
                s.set_nonblocking(nonblocking)?;
                s.into()
            }
            Socket::Unix(s) => {
                s.set_read_timeout(None)?;
                s.set_write_timeout(None)?;
                s.set_nonblocking(nonblocking)?;
                s.into()
            }
        };
        Ok((fd, self.buf, self.session))
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(s) => s.as_fd(),
            Socket::Unix(s) => s.as_fd(),
        }
    }
}

impl AsRawFd for Client {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
