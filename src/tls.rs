//! TLS between the loops' bytes and the machine's.
//!
//! `rustls` does no I/O, as the machine does none: a loop gives a [`Session`] what came from the socket, and the session
//! gives the machine what was in it; on the way back the session takes the machine's output and gives the loop what to
//! send. A connection without TLS has no session and pays for none of this but a look whether there is one, once a read
//! and once a send.
//!
//! What is bounded: a handshake has [`HANDSHAKE_US`] and, by `rustls`, 64 KiB for a message; output is sealed in pieces
//! of [`PIECE_BYTES`], each when the one before is sent, so that what waits stays the machine's, whose limits count it;
//! of what is received nothing is kept but a record that is not whole.
//!
//! The server's certificates and options ([`Tls`]) are one immutable value for new connections, made anew when a
//! directive is set; connections keep that with which they began. Counterpart: `tls.c`.

mod identity;

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, Write};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, RwLock};

use ringshard_shards::config::{Config, TlsAuthClients};
use ringshard_shards::shard::{Event, Input, Shard};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, ServerConnection, SupportedCipherSuite, SupportedProtocolVersion};

use self::identity::certificates;
use crate::clock;
use crate::log::{self, LogLevel};

/// How long a client may take from connecting to the end of the handshake. Redis has no such bound but `timeout`, which
/// is off by default.
const HANDSHAKE_US: u64 = 10_000_000;

/// Bytes of output that are sealed at once: eight records.
const PIECE_BYTES: usize = 128 * 1024;

/// Buffers for sealed output larger than this are given back.
const KEPT_BYTES: usize = 16 * 1024;

/// What OpenSSL calls the suites that there are, up to TLS 1.2 and of TLS 1.3.
const NAMES: [(&str, SupportedCipherSuite); 9] = {
    use ring::cipher_suite::*;
    [
        ("TLS_AES_256_GCM_SHA384", TLS13_AES_256_GCM_SHA384),
        ("TLS_AES_128_GCM_SHA256", TLS13_AES_128_GCM_SHA256),
        ("TLS_CHACHA20_POLY1305_SHA256", TLS13_CHACHA20_POLY1305_SHA256),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
        ("ECDHE-RSA-AES256-GCM-SHA384", TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
        ("ECDHE-ECDSA-AES128-GCM-SHA256", TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
        ("ECDHE-RSA-AES128-GCM-SHA256", TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
        ("ECDHE-RSA-CHACHA20-POLY1305", TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ]
};

/// What new connections begin with.
#[derive(Default)]
pub struct Tls(RwLock<Option<Arc<ServerConfig>>>);

impl Tls {
    /// What a new connection begins with; `None` while there is no TLS.
    pub fn config(&self) -> Option<Arc<ServerConfig>> {
        self.0.read().expect("no holder panics").clone()
    }

    /// Takes certificates and options over as `config` names them now, for new connections.
    ///
    /// # Errors
    /// What is wrong with them; what was in force stays.
    pub fn load(&self, config: &Config) -> Result<(), String> {
        let made = server_config(config)?;
        *self.0.write().expect("no holder panics") = Some(Arc::new(made));
        Ok(())
    }
}

/// Sessions to resume, each for so long as `tls-session-cache-timeout` says: its time stands before its value.
#[derive(Debug)]
struct Sessions {
    kept: Arc<ServerSessionMemoryCache>,
    timeout_ms: i64,
}

impl Sessions {
    fn still_good(&self, mut value: Vec<u8>) -> Option<Vec<u8>> {
        let (time, _) = value.split_first_chunk::<8>()?;
        let age = clock::now().0 - i64::from_le_bytes(*time);
        value.drain(..8);
        (0..=self.timeout_ms).contains(&age).then_some(value)
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.kept.put(key, [&clock::now().0.to_le_bytes()[..], &value].concat())
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.still_good(self.kept.get(key)?)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.still_good(self.kept.take(key)?)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

fn server_config(config: &Config) -> Result<ServerConfig, String> {
    let file = |name: &Option<String>| name.as_deref().filter(|name| !name.is_empty()).map(str::to_owned);
    let cert_file = file(&config.tls_cert_file).ok_or("No tls-cert-file configured!")?;
    let key_file = file(&config.tls_key_file).ok_or("No tls-key-file configured!")?;
    let provider = Arc::new(CryptoProvider {
        cipher_suites: suites(config.tls_ciphers.as_deref(), config.tls_ciphersuites.as_deref())?,
        ..ring::default_provider()
    });
    let identity = identity::load(&cert_file, &key_file, file(&config.tls_key_file_pass).as_deref(), &provider)?;
    let versions = versions(config.tls_protocols.as_deref())?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .map_err(|error| format!("The protocols and ciphers leave nothing to speak: {error}"))?;
    let builder = match config.tls_auth_clients {
        TlsAuthClients::No => builder.with_no_client_auth(),
        asked => {
            let roots = authorities(file(&config.tls_ca_cert_file), file(&config.tls_ca_cert_dir))?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match asked {
                TlsAuthClients::Optional => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            let verifier =
                verifier.build().map_err(|error| format!("Failed to load the CA certificate(s): {error}"))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut made = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    made.ignore_client_order = config.tls_prefer_server_ciphers;
    made.session_storage = match config.tls_session_caching {
        false => Arc::new(NoServerSessionStorage {}),
        true => Arc::new(Sessions {
            kept: ServerSessionMemoryCache::new(match config.tls_session_cache_size {
                0 => 1 << 20,
                size => size as usize,
            }),
            timeout_ms: i64::from(config.tls_session_cache_timeout) * 1000,
        }),
    };
    if !config.tls_session_caching {
        made.send_tls13_tickets = 0;
    }
    Ok(made)
}

/// The certificates of a file, and of the files of a directory that hold any.
fn authorities(file: Option<String>, dir: Option<String>) -> Result<RootCertStore, String> {
    if file.is_none() && dir.is_none() {
        return Err(
            "Either tls-ca-cert-file or tls-ca-cert-dir must be specified when tls-cluster, tls-replication or \
                    tls-auth-clients are enabled!"
                .into(),
        );
    }
    let mut roots = RootCertStore::empty();
    let mut add = |path: &str, list: Vec<CertificateDer<'static>>| {
        for certificate in list {
            roots.add(certificate).map_err(|error| format!("Failed to load the CA certificate: {path}: {error}"))?;
        }
        Ok::<(), String>(())
    };
    if let Some(path) = &file {
        add(path, certificates(path)?)?;
    }
    if let Some(dir) = &dir {
        let entries = fs::read_dir(dir).map_err(|error| format!("Failed to read tls-ca-cert-dir {dir}: {error}"))?;
        for entry in entries.flatten() {
            let path = entry.path().display().to_string();
            if let Ok(list) = certificates(&path) {
                add(&path, list)?;
            }
        }
    }
    match roots.is_empty() {
        true => Err("There is no CA certificate in tls-ca-cert-file and tls-ca-cert-dir".into()),
        false => Ok(roots),
    }
}

fn versions(asked: Option<&str>) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let asked = asked.unwrap_or_default();
    let mut versions = Vec::new();
    for word in asked.split([' ', ',']).filter(|word| !word.is_empty()) {
        let version = match word.to_ascii_lowercase().as_str() {
            "tlsv1.2" => &TLS12,
            "tlsv1.3" => &TLS13,
            "tlsv1" | "tlsv1.1" => {
                return Err(format!("{word} of tls-protocols is not supported: it is broken; use TLSv1.2 or TLSv1.3"));
            }
            _ => return Err(format!("Invalid tls-protocols specified: {word}. Use a combination of TLSv1.2, TLSv1.3")),
        };
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    Ok(if versions.is_empty() { vec![&TLS13, &TLS12] } else { versions })
}

/// The suites that `tls-ciphers` and `tls-ciphersuites` name, in their order; all where they name none.
fn suites(ciphers: Option<&str>, ciphersuites: Option<&str>) -> Result<Vec<SupportedCipherSuite>, String> {
    let newest = |suite: &SupportedCipherSuite| suite.tls13().is_some();
    let mut suites = Vec::new();
    for (directive, text, is_newest) in [("tls-ciphersuites", ciphersuites, true), ("tls-ciphers", ciphers, false)] {
        let there: Vec<_> = NAMES.iter().filter(|(_, suite)| newest(suite) == is_newest).collect();
        let words = text.unwrap_or_default().split([':', ',', ' ']).filter(|word| !word.is_empty());
        let mut named = Vec::new();
        let mut any = false;
        for word in words {
            any = true;
            let found = there.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, suite)| *suite);
            match (found, word) {
                (Some(suite), _) if !named.contains(&suite) => named.push(suite),
                (Some(_), _) => {}
                (None, "DEFAULT" | "ALL" | "HIGH" | "ECDHE" | "EECDH" | "AEAD") => {
                    named.extend(there.iter().map(|(_, suite)| *suite));
                }
                // What is taken away is weak, and not there.
                (None, word) if word.starts_with(['!', '-', '@']) && !there.iter().any(|(n, _)| *n == &word[1..]) => {}
                _ => {
                    let known: Vec<&str> = there.iter().map(|(name, _)| *name).collect();
                    return Err(format!("{word} of {directive} is not supported; there are {}", known.join(", ")));
                }
            }
        }
        match any {
            true => suites.extend(named),
            false => suites.extend(there.iter().map(|(_, suite)| *suite)),
        }
    }
    Ok(suites)
}

/// How a session ends that does not go on.
#[derive(Debug)]
pub enum End {
    /// The peer has said that it is done.
    Closed,
    /// The peer speaks no TLS that is acceptable.
    Broken(rustls::Error),
}

/// One connection's TLS; see the module's page.
pub struct Session {
    connection: ServerConnection,
    /// The machine's output that is not yet sent, and how much of it is sealed.
    output: Vec<u8>,
    sealed: usize,
    /// How much of it is in what is being sent.
    piece: usize,
    /// A buffer for what is to be sent.
    spare: Vec<u8>,
    /// What came was no TLS: an alert would be a riddle to whoever sent it.
    foreign: bool,
    /// Unique.
    serial: u64,
    address: String,
}

impl Session {
    /// The server's side of a connection from `address` that has just been accepted.
    ///
    /// # Errors
    /// What `rustls` has against the configuration.
    pub fn new(config: Arc<ServerConfig>, address: &str) -> io::Result<Self> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
        // No more is ever given to it than one piece.
        connection.set_buffer_limit(None);
        Ok(Session {
            connection,
            output: Vec::new(),
            sealed: 0,
            piece: 0,
            spare: Vec::new(),
            foreign: false,
            serial: SERIAL.fetch_add(1, Relaxed),
            address: address.to_owned(),
        })
    }

    /// Opens what came from the peer and hands it to the machine.
    ///
    /// # Errors
    /// The connection is over, once [`Session::farewell`] was sent.
    pub fn receive(&mut self, shard: &mut Shard, index: u32, mut bytes: &[u8]) -> Result<(), End> {
        let began = self.connection.is_handshaking();
        while !bytes.is_empty() {
            // It fails where what was opened is not taken, which does not happen here.
            if self.connection.read_tls(&mut bytes).is_err() {
                return Err(End::Broken(rustls::Error::General("too much at once".into())));
            }
            let state = self.connection.process_new_packets().map_err(|error| {
                self.foreign = began && matches!(error, rustls::Error::InvalidMessage(_));
                End::Broken(error)
            })?;
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let mut reader = self.connection.reader();
                let Ok(opened) = reader.fill_buf() else { break };
                let n = opened.len();
                shard.step(Event::Received(&[Input { client: index, bytes: opened }]));
                reader.consume(n);
                left -= n.min(left);
            }
            if state.peer_has_closed() {
                return Err(End::Closed);
            }
        }
        let ended = began && !self.connection.is_handshaking();
        if self.connection.wants_write() || (ended && shard.output_bytes(index) > 0) {
            shard.flush.push(index);
        }
        Ok(())
    }

    /// What is to be sent next: the handshake's words, or a piece of the machine's output. To be asked again only when
    /// that was sent, see [`Session::sent`].
    pub fn output(&mut self, shard: &mut Shard, index: u32) -> Vec<u8> {
        let mut out = std::mem::take(&mut self.spare);
        out.clear();
        if !self.connection.is_handshaking() {
            if self.sealed == self.output.len() {
                shard.recycle(std::mem::take(&mut self.output));
                self.output = shard.take_output(index);
                self.sealed = 0;
            }
            let end = self.output.len().min(self.sealed + PIECE_BYTES);
            let piece = &self.output[self.sealed..end];
            if !piece.is_empty() {
                out.reserve(piece.len() + 64 + piece.len() / 256);
                self.connection.writer().write_all(piece).expect("there is no limit to what it takes");
                self.piece = piece.len();
                self.sealed = end;
            }
        }
        self.drain(&mut out);
        out
    }

    /// Whether there is output behind the piece that is being sent.
    pub fn has_more(&self) -> bool {
        self.sealed < self.output.len()
    }

    fn drain(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            self.connection.write_tls(out).expect("a vector takes all");
        }
    }

    /// What [`Session::output`] gave, `buffer`, is sent.
    pub fn sent(&mut self, shard: &mut Shard, index: u32, buffer: Vec<u8>) {
        if buffer.capacity() <= KEPT_BYTES {
            self.spare = buffer;
        }
        let piece = std::mem::take(&mut self.piece);
        if piece > 0 {
            shard.step(Event::Sent(index, piece));
        }
        let more = self.has_more() || self.connection.wants_write();
        if more || (!self.connection.is_handshaking() && shard.output_bytes(index) > 0) {
            shard.flush.push(index);
        }
    }

    /// Says on a socket that has nothing left to send why the connection ends; what the socket does not take is left.
    pub fn farewell(&mut self, fd: RawFd) {
        if self.foreign {
            return;
        }
        self.connection.send_close_notify();
        let mut out = Vec::new();
        self.drain(&mut out);
        // SAFETY: a valid descriptor and a valid slice, which the kernel only reads.
        unsafe { libc::send(fd, out.as_ptr().cast(), out.len(), libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
    }

    /// Says in the log why a session ends.
    pub fn note_end(&self, end: &End) {
        if let End::Broken(error) = end {
            let what = if self.connection.is_handshaking() { "accepting" } else { "serving" };
            let text = format!("Error {what} a client connection: {error} (addr={})", self.address);
            log::write(LogLevel::Verbose, &text);
        }
    }
}

/// Handshakes that a loop waits for, by their time.
#[derive(Default)]
pub struct Handshakes(VecDeque<(u64, u32, u64)>);

impl Handshakes {
    /// Expects the handshake of the connection at `index` in time.
    pub fn expect(&mut self, index: u32, session: &Session) {
        self.0.push_back((clock::monotonic_us() + HANDSHAKE_US, index, session.serial));
    }

    /// The place of a connection whose time is over, if its handshake is not; `session` finds the session at a place.
    pub fn overdue<'a>(&mut self, now_us: u64, session: impl Fn(u32) -> Option<&'a Session>) -> Option<u32> {
        while self.0.front().is_some_and(|(at, ..)| *at <= now_us) {
            let (_, index, serial) = self.0.pop_front().expect("just seen");
            let late = session(index).filter(|s| s.serial == serial && s.connection.is_handshaking());
            if let Some(session) = late {
                let text =
                    format!("Error accepting a client connection: no handshake in time (addr={})", session.address);
                log::write(LogLevel::Verbose, &text);
                return Some(index);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(ciphers: &str, ciphersuites: &str) -> Result<Vec<&'static str>, String> {
        let list = suites(Some(ciphers), Some(ciphersuites))?;
        Ok(list.iter().map(|suite| NAMES.iter().find(|(_, known)| known == suite).unwrap().0).collect())
    }

    #[test]
    fn suites_are_those_named_in_their_order() {
        assert_eq!(names("", "").unwrap().len(), NAMES.len());
        assert_eq!(
            names("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384", "TLS_AES_128_GCM_SHA256").unwrap(),
            ["TLS_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"]
        );
        assert_eq!(names("DEFAULT:!MEDIUM:!aNULL", "").unwrap().len(), NAMES.len());
        let error = names("AES128-SHA", "").unwrap_err();
        assert!(error.starts_with("AES128-SHA of tls-ciphers is not supported; there are ECDHE-"), "{error}");
        assert!(names("", "TLS_AES_128_CCM_SHA256").unwrap_err().contains("tls-ciphersuites"));
        assert!(names("DEFAULT:!ECDHE-RSA-AES128-GCM-SHA256", "").is_err(), "better refused than kept");
    }

    #[test]
    fn old_protocols_are_refused() {
        assert_eq!(versions(None).unwrap(), [&TLS13, &TLS12]);
        assert_eq!(versions(Some("TLSv1.2")).unwrap(), [&TLS12]);
        assert_eq!(versions(Some("tlsv1.3 TLSv1.2")).unwrap(), [&TLS13, &TLS12]);
        assert!(versions(Some("TLSv1.1 TLSv1.2")).unwrap_err().contains("not supported"));
        assert!(versions(Some("SSLv3")).unwrap_err().starts_with("Invalid tls-protocols"));
    }
}
