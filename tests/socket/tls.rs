//! TLS over the socket, on both loops: who is let in, what is refused, and that nothing is kept without bound.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::harness::{Dir, Placement, Server, everywhere, free_port, installed};
use crate::wire::{Conn, Value, bulk, ok};

/// An authority and what it has signed, as files.
pub struct Pki {
    dir: Dir,
}

impl Pki {
    pub fn new() -> Pki {
        let dir = Dir::new();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        for authority in ["ca", "other"] {
            params.distinguished_name.push(DnType::CommonName, authority);
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            fs::write(dir.join(&format!("{authority}.crt")), certificate.pem()).unwrap();
            let issuer = Issuer::from_params(&params, &key);
            let prefix = if authority == "ca" { "" } else { "other-" };
            for name in ["server", "server2", "client"] {
                let key = KeyPair::generate().unwrap();
                let mut params = CertificateParams::new(vec![format!("{name}.test")]).unwrap();
                params.distinguished_name.push(DnType::CommonName, name);
                params.use_authority_key_identifier_extension = true;
                params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
                params.extended_key_usages.push(match name {
                    "client" => ExtendedKeyUsagePurpose::ClientAuth,
                    _ => ExtendedKeyUsagePurpose::ServerAuth,
                });
                let certificate = params.signed_by(&key, &issuer).unwrap();
                fs::write(dir.join(&format!("{prefix}{name}.crt")), certificate.pem()).unwrap();
                fs::write(dir.join(&format!("{prefix}{name}.key")), key.serialize_pem()).unwrap();
            }
        }
        Pki { dir }
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    /// A server with a plain port and a TLS port.
    pub fn start(&self, placement: Placement, more: &[&str]) -> (Server, u16) {
        let port = free_port();
        let text = port.to_string();
        let files = ["server.crt", "server.key", "ca.crt"].map(|name| self.path(name));
        let mut args = vec!["--tls-port", &text, "--tls-cert-file", &files[0], "--tls-key-file", &files[1]];
        args.extend(["--tls-ca-cert-file", &files[2]]);
        args.extend(more);
        (placement.start(&args), port)
    }

    fn client_config(&self, certificate: Option<&str>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.crt")).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        match certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let chain = vec![CertificateDer::from_pem_file(self.path(&format!("{name}.crt"))).unwrap()];
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        }
    }

    fn connect(&self, port: u16, certificate: Option<&str>) -> Client {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connection = ClientConnection::new(Arc::new(self.client_config(certificate)), name).unwrap();
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Client(StreamOwned::new(connection, socket))
    }
}

struct Client(StreamOwned<ClientConnection, TcpStream>);

impl Client {
    /// Sends a line and reads a reply of so many bytes.
    fn ask(&mut self, line: &str, reply: &str) -> io::Result<()> {
        self.0.write_all(format!("{line}\r\n").as_bytes())?;
        let mut got = vec![0; reply.len()];
        self.0.read_exact(&mut got)?;
        assert_eq!(String::from_utf8_lossy(&got), reply, "{line}");
        Ok(())
    }

    fn refused(mut self) -> bool {
        self.ask("PING", "+PONG\r\n").is_err()
    }
}

#[test]
fn both_loops_speak_tls_and_plain_side_by_side() {
    let pki = Pki::new();
    everywhere(&[1, 4], |placement| {
        let (server, port) = pki.start(placement, &[]);
        let mut plain = server.connect();
        let mut clients: Vec<Client> = (0..10).map(|_| pki.connect(port, Some("client"))).collect();
        for (i, client) in clients.iter_mut().enumerate() {
            client.ask(&format!("SET k{i} v{i}"), "+OK\r\n").unwrap();
        }
        for (i, client) in clients.iter_mut().rev().enumerate() {
            client.ask(&format!("GET k{i}"), &format!("$2\r\nv{i}\r\n")).unwrap();
            assert_eq!(plain.cmd(&format!("GET k{i}")), bulk(format!("v{i}")));
        }
        // More than one piece in both directions, and a pipeline in one record.
        let value = "x".repeat(1_000_000);
        let client = &mut clients[0];
        client.ask(&format!("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$1000000\r\n{value}"), "+OK\r\n").unwrap();
        let began = Instant::now();
        client.ask("GET big", &format!("$1000000\r\n{value}\r\n")).unwrap();
        assert!(began.elapsed() < Duration::from_secs(2), "pieces wait for nothing: {:?}", began.elapsed());
        client.ask(&["PING"; 1000].join("\r\n"), &"+PONG\r\n".repeat(1000)).unwrap();
        assert!(plain.cmd("CLIENT LIST").bytes().len() > 1000);
        // Who is closed is told so.
        let mut last = clients.pop().unwrap();
        last.ask("QUIT", "+OK\r\n").unwrap();
        assert_eq!(last.0.read(&mut [0; 8]).unwrap(), 0, "the end is announced");
    });
}

#[test]
fn certificates_are_asked_for_as_configured() {
    let pki = Pki::new();
    everywhere(&[1], |placement| {
        let (server, port) = pki.start(placement, &["--loglevel", "verbose"]);
        let mut admin = server.connect();
        assert!(!pki.connect(port, Some("client")).refused());
        assert!(pki.connect(port, None).refused());
        assert!(pki.connect(port, Some("other-client")).refused(), "another authority's");
        assert!(pki.connect(port, Some("server2")).refused(), "a certificate for servers");
        server.wait_for_log("peer sent no certificates");
        assert_eq!(admin.cmd("CONFIG SET tls-auth-clients optional"), ok());
        assert!(!pki.connect(port, None).refused());
        assert!(pki.connect(port, Some("other-client")).refused());
        assert_eq!(admin.cmd("CONFIG SET tls-auth-clients no"), ok());
        assert!(!pki.connect(port, None).refused());
        // Plain text is no TLS, and the other way round.
        let mut socket = Conn::tcp(TcpStream::connect(("127.0.0.1", port)).unwrap());
        socket.send(b"PING\r\n");
        assert_eq!(socket.read_to_end(), b"", "no alert, which would be a riddle");
        assert!(pki.connect(server.port, None).refused());
        assert_eq!(admin.cmd("PING"), Value::Simple("PONG".into()));
    });
}

#[test]
fn certificates_change_while_it_runs_and_bad_ones_do_not() {
    let pki = Pki::new();
    everywhere(&[1, 4], |placement| {
        let (server, port) = pki.start(placement, &["--tls-auth-clients", "no"]);
        let mut admin = server.connect();
        let shown = |client: &mut Client| {
            client.ask("PING", "+PONG\r\n").unwrap();
            client.0.conn.peer_certificates().unwrap()[0].to_vec()
        };
        let of = |name: &str| CertificateDer::from_pem_file(pki.path(name)).unwrap().to_vec();
        let mut before = pki.connect(port, None);
        assert_eq!(shown(&mut before), of("server.crt"));
        fs::write(pki.path("bad.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        for (name, value) in [
            ("tls-cert-file", pki.path("nothing")),
            ("tls-cert-file", pki.path("bad.pem")),
            ("tls-cert-file", pki.path("server2.crt")),
            ("tls-key-file", pki.path("server2.key")),
            ("tls-protocols", "TLSv1.1".into()),
            ("tls-ciphers", "RC4".into()),
        ] {
            let error = admin.call(&["CONFIG", "SET", name, &value]);
            let expected = format!(
                "ERR CONFIG SET failed (possibly related to argument '{name}') - Unable to update TLS configuration. \
                 Check server logs."
            );
            assert_eq!(error.error(), expected);
            assert_eq!(shown(&mut pki.connect(port, None)), of("server.crt"), "{name} {value}");
        }
        let files = [pki.path("server2.crt"), pki.path("server2.key")];
        let set = ["CONFIG", "SET", "tls-cert-file", &files[0], "tls-key-file", &files[1]];
        assert_eq!(admin.call(&set), ok());
        assert_eq!(shown(&mut pki.connect(port, None)), of("server2.crt"));
        // The connection of before goes on.
        before.ask("PING", "+PONG\r\n").unwrap();
        assert_eq!(admin.cmd("CONFIG SET tls-protocols TLSv1.2"), ok());
        let mut old = pki.connect(port, None);
        old.ask("PING", "+PONG\r\n").unwrap();
        assert_eq!(old.0.conn.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    });
}

/// A key with a passphrase is taken with it, and one that nobody can open leaves what was in force.
#[test]
fn a_key_may_have_a_passphrase() {
    if !installed("openssl", "version", "a key with a passphrase") {
        return;
    }
    let pki = Pki::new();
    let [plain, sealed] = ["server.key", "sealed.key"].map(|name| pki.path(name));
    let made = Command::new("openssl")
        .args(["pkey", "-in", &plain, "-out", &sealed, "-aes256", "-passout", "pass:1234"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    everywhere(&[1, 4], |placement| {
        let (server, port) = pki.start(placement, &[]);
        let mut admin = server.connect();
        let refused = "ERR CONFIG SET failed (possibly related to argument 'tls-key-file') - Unable to update TLS \
                       configuration. Check server logs.";
        assert_eq!(admin.call(&["CONFIG", "SET", "tls-key-file", &sealed]).error(), refused);
        assert_eq!(admin.cmd("CONFIG SET tls-key-file-pass 123"), ok());
        assert_eq!(admin.call(&["CONFIG", "SET", "tls-key-file", &sealed]).error(), refused);
        pki.connect(port, Some("client")).ask("PING", "+PONG\r\n").unwrap();
        assert_eq!(admin.cmd("CONFIG SET tls-key-file-pass 1234"), ok());
        assert_eq!(admin.call(&["CONFIG", "SET", "tls-key-file", &sealed]), ok());
        pki.connect(port, Some("client")).ask("PING", "+PONG\r\n").unwrap();
        let with_it = ["--tls-key-file", &sealed, "--tls-key-file-pass", "1234"];
        let (_server, port) = pki.start(placement, &with_it);
        pki.connect(port, Some("client")).ask("PING", "+PONG\r\n").unwrap();
    });
}

/// The inode of the socket that listens on a port of 127.0.0.1, if one does.
fn listening(port: u16) -> Option<String> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let line = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let address = format!("0100007F:{port:04X}");
    line.filter(|words| words[1] == address && words[3] == "0A").map(|words| words[9].to_owned()).next()
}

#[test]
fn the_tls_port_is_moved_closed_and_opened_while_it_runs() {
    let pki = Pki::new();
    fs::write(pki.path("bad.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    everywhere(&[1, 4], |placement| {
        let (server, first) = pki.start(placement, &["--tls-auth-clients", "no", "--bind", "127.0.0.1"]);
        let mut admin = server.connect();
        let mut before = pki.connect(first, None);
        before.ask("PING", "+PONG\r\n").unwrap();
        let plain = listening(server.port);
        assert!(plain.is_some() && listening(first).is_some());
        let works = |port: u16| (0..5).all(|_| pki.connect(port, None).ask("PING", "+PONG\r\n").is_ok());

        let second = free_port();
        assert_eq!(admin.cmd(&format!("CONFIG SET tls-port {second}")), ok());
        assert!(works(second));
        assert!(TcpStream::connect(("127.0.0.1", first)).is_err(), "no more at the old one");
        before.ask("PING", "+PONG\r\n").unwrap();
        assert_eq!(listening(server.port), plain, "the plain one was not touched");

        // A port that another has.
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let busy = taken.local_addr().unwrap().port().to_string();
        let refused = admin.call(&["CONFIG", "SET", "tls-port", &busy]);
        let expected = "ERR CONFIG SET failed (possibly related to argument 'tls-port') - Unable to listen on this port. \
                        Check server logs.";
        assert_eq!(refused.error(), expected);
        assert!(works(second));
        // The plain one moves, that of TLS stays where it is.
        assert!(admin.cmd(&format!("CONFIG SET port {busy}")).error().contains("Unable to listen"));
        let tls = listening(second);
        assert!(tls.is_some() && works(second));
        let moved = free_port();
        assert_eq!(admin.cmd(&format!("CONFIG SET port {moved}")), ok());
        assert_eq!(listening(second), tls, "the one for TLS was not touched");
        let mut admin = Conn::tcp(TcpStream::connect(("127.0.0.1", moved)).unwrap());

        // Off, and on again: not with a certificate that is none, then with a good one.
        assert_eq!(admin.cmd("CONFIG SET tls-port 0"), ok());
        assert!(TcpStream::connect(("127.0.0.1", second)).is_err());
        before.ask("PING", "+PONG\r\n").unwrap();
        let third = free_port().to_string();
        let bad = pki.path("bad.pem");
        let refused = admin.call(&["CONFIG", "SET", "tls-port", &third, "tls-cert-file", &bad]);
        assert!(refused.error().contains("Unable to update TLS configuration. Check server logs."));
        assert_eq!(listening(third.parse().unwrap()), None);
        let get = admin.cmd("CONFIG GET tls-port");
        assert_eq!(get, Value::Array(vec![bulk("tls-port"), bulk("0")]));
        assert_eq!(admin.cmd(&format!("CONFIG SET tls-port {third}")), ok());
        assert!(works(third.parse().unwrap()));
        before.ask("PING", "+PONG\r\n").unwrap();
    });
}

#[test]
fn tls_can_begin_while_it_runs() {
    let pki = Pki::new();
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&["--bind", "127.0.0.1"]);
        let mut admin = server.connect();
        let port = free_port();
        let refused = admin.cmd(&format!("CONFIG SET tls-port {port}"));
        assert!(refused.error().contains("Unable to update TLS configuration. Check server logs."));
        server.wait_for_log("No tls-cert-file configured!");
        assert_eq!(listening(port), None);
        let [text, cert, key] = [port.to_string(), pki.path("server.crt"), pki.path("server.key")];
        let mut set = vec!["CONFIG", "SET", "tls-port", &text, "tls-cert-file", &cert, "tls-key-file", &key];
        set.extend(["tls-auth-clients", "no"]);
        assert_eq!(admin.call(&set), ok());
        pki.connect(port, None).ask("PING", "+PONG\r\n").unwrap();
        assert_eq!(admin.cmd("PING"), Value::Simple("PONG".into()));
    });
}

#[test]
fn half_a_handshake_is_bounded_in_time() {
    let pki = Pki::new();
    everywhere(&[2], |placement| {
        let (server, port) = pki.start(placement, &["--tls-auth-clients", "no"]);
        let mut admin = server.connect();
        let mut silent: Vec<TcpStream> = (0..5).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        // A record that is announced and does not come.
        silent[0].write_all(&[22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f]).unwrap();
        let mut done = pki.connect(port, None);
        done.ask("PING", "+PONG\r\n").unwrap();
        let began = Instant::now();
        for socket in &mut silent {
            socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let _ = socket.read_to_end(&mut Vec::new()).unwrap();
        }
        let took = began.elapsed();
        assert!(took > Duration::from_secs(8) && took < Duration::from_secs(15), "{took:?}");
        done.ask("PING", "+PONG\r\n").unwrap();
        let list = admin.cmd("CLIENT LIST");
        assert_eq!(list.bytes().split(|b| *b == b'\n').filter(|line| !line.is_empty()).count(), 2);
    });
}

#[test]
fn output_that_nobody_reads_counts_and_is_bounded() {
    let pki = Pki::new();
    everywhere(&[1], |placement| {
        let options = ["--tls-auth-clients", "no", "--client-output-buffer-limit", "normal 20mb 0 0"];
        let (server, port) = pki.start(placement, &options);
        let mut admin = server.connect();
        admin.call(&["SET", "big", &"x".repeat(1_000_000)]);
        let before = server.status_field("VmRSS");
        let mut client = pki.connect(port, None);
        client.ask("PING", "+PONG\r\n").unwrap();
        // Nothing is read: 15 MB wait, as the machine's output, then 40 are too many.
        client.0.write_all("GET big\r\n".repeat(15).as_bytes()).unwrap();
        client.0.flush().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(admin.cmd("CLIENT LIST").bytes().split(|b| *b == b'\n').count(), 3);
        let grown = server.status_field("VmRSS") - before;
        assert!(grown < 40_000, "what waits is kept once: {grown} KB");
        client.0.write_all("GET big\r\n".repeat(40).as_bytes()).unwrap();
        let mut got = Vec::new();
        let _ = client.0.read_to_end(&mut got);
        assert!(got.len() < 54_000_000, "it is cut");
        assert_eq!(admin.cmd("CLIENT LIST").bytes().split(|b| *b == b'\n').count(), 2);
    });
}

#[test]
fn records_that_are_broken_end_one_connection() {
    let pki = Pki::new();
    everywhere(&[1], |placement| {
        let (server, port) = pki.start(placement, &["--tls-auth-clients", "no"]);
        let mut random = crate::wire::Random::new(5);
        for _ in 0..50 {
            let mut client = pki.connect(port, None);
            if random.one_in(2) {
                client.ask("PING", "+PONG\r\n").unwrap();
            }
            let junk: Vec<u8> = (0..1 + random.below(3000)).map(|_| random.next() as u8).collect();
            let socket = client.0.get_mut();
            if random.one_in(2) {
                let length = (junk.len() as u16).to_be_bytes();
                let _ = socket.write_all(&[23, 3, 3, length[0], length[1]]);
            }
            let _ = socket.write_all(&junk);
            let _ = socket.shutdown(std::net::Shutdown::Write);
            let _ = socket.read_to_end(&mut Vec::new());
        }
        let mut good = pki.connect(port, None);
        good.ask("PING", "+PONG\r\n").unwrap();
        assert_eq!(server.connect().cmd("PING"), Value::Simple("PONG".into()));
    });
}

#[test]
fn what_cannot_be_used_stops_the_start() {
    let pki = Pki::new();
    let [cert, key, ca] = ["server.crt", "server.key", "ca.crt"].map(|name| pki.path(name));
    for (options, reason) in [
        (vec![], "No tls-cert-file configured!"),
        (vec!["--tls-cert-file", &cert], "No tls-key-file configured!"),
        (vec!["--tls-cert-file", &cert, "--tls-key-file", &key], "Either tls-ca-cert-file or tls-ca-cert-dir"),
        (vec!["--tls-cert-file", &cert, "--tls-key-file", &ca, "--tls-auth-clients", "no"], "private key"),
    ] {
        let mut args: Vec<String> = ["--port", "0", "--tls-port", "7"].map(String::from).into();
        args.extend(options.iter().map(|word| word.to_string()));
        let (code, log) = Server::run_to_end(&args);
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(reason) && log.contains("Failed to configure TLS"), "{reason}: {log}");
    }
}

#[test]
fn redis_cli_speaks_tls() {
    if !installed("redis-cli", "--version", "redis-cli over TLS") {
        return;
    }
    let pki = Pki::new();
    everywhere(&[1, 4], |placement| {
        let (_server, port) = pki.start(placement, &["--port", "0"]);
        let cli = |words: &[&str]| {
            let files = ["ca.crt", "client.crt", "client.key"].map(|name| pki.path(name));
            let mut command = Command::new("redis-cli");
            command.args(["-p", &port.to_string(), "--tls", "--cacert", &files[0], "--cert", &files[1]]);
            let out = command.args(["--key", &files[2]]).args(words).output().unwrap();
            String::from_utf8_lossy(&out.stdout).into_owned()
        };
        assert_eq!(cli(&["SET", "k", "v"]), "OK\n");
        assert_eq!(cli(&["GET", "k"]), "v\n");
        assert_eq!(cli(&["EVAL", "return ('y'):rep(5000000)", "0"]).len(), 5_000_001);
    });
}
