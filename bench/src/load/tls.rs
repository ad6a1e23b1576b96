//! TLS between a lane and its loop: bytes are sealed after they are composed and opened before they are parsed.
//!
//! The one idea: `rustls` does no I/O either, so it fits between a lane and its loop without either knowing the
//! other side: the loop moves records, the lane sees replies. Certificates are checked against a given authority;
//! `--insecure` skips that, for servers with a certificate of their own making.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

/// How to speak TLS with a server.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// Accepts any certificate, but still checks that the server holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl Tls {
    /// Reads the files that the options name. `authority` of `None` accepts any certificate.
    pub fn new(
        name: &str,
        authority: Option<&Path>,
        own: Option<(&Path, &Path)>,
    ) -> Result<Tls, String> {
        let told = |path: &Path, e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("TLS: {e}"))?;
        let builder = match authority {
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for cert in CertificateDer::pem_file_iter(path).map_err(|e| told(path, &e))? {
                    roots
                        .add(cert.map_err(|e| told(path, &e))?)
                        .map_err(|e| told(path, &e))?;
                }
                builder.with_root_certificates(roots)
            }
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
        };
        let config = match own {
            Some((cert, key)) => {
                let chain = CertificateDer::pem_file_iter(cert)
                    .and_then(|certs| certs.collect::<Result<Vec<_>, _>>())
                    .map_err(|e| told(cert, &e))?;
                let private = PrivateKeyDer::from_pem_file(key).map_err(|e| told(key, &e))?;
                builder
                    .with_client_auth_cert(chain, private)
                    .map_err(|e| told(cert, &e))?
            }
            None => builder.with_no_client_auth(),
        };
        let name = ServerName::try_from(name.to_owned())
            .map_err(|e| format!("server name '{name}': {e}"))?;
        Ok(Tls {
            config: Arc::new(config),
            name,
        })
    }

    /// A session that has not begun.
    pub fn session(&self) -> Result<Session, String> {
        let mut session = ClientConnection::new(self.config.clone(), self.name.clone())
            .map_err(|e| format!("TLS: {e}"))?;
        // Batches are bounded by the pipeline, not by rustls.
        session.set_buffer_limit(None);
        Ok(Session {
            session,
            opened: Vec::new(),
        })
    }
}

/// One connection's session.
#[derive(Debug)]
pub struct Session {
    session: ClientConnection,
    opened: Vec<u8>,
}

fn broken(e: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("TLS: {e}"))
}

impl Session {
    /// Shakes hands over a blocking socket.
    pub fn handshake(&mut self, socket: &mut (impl Read + Write)) -> io::Result<()> {
        while self.session.is_handshaking() {
            self.session.complete_io(socket)?;
        }
        Ok(())
    }

    /// Seals plain bytes; appends the records to `out`.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        self.session.writer().write_all(plain)?;
        while self.session.wants_write() {
            self.session.write_tls(out)?;
        }
        Ok(())
    }

    /// Opens received bytes and lends what they held. Records of TLS's own (tickets, key updates) hold nothing;
    /// what they ask to be sent goes out with the next [`Session::seal`].
    pub fn open(&mut self, mut records: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = std::mem::take(&mut self.opened);
        plain.clear();
        while !records.is_empty() {
            self.session.read_tls(&mut records)?;
            let state = self.session.process_new_packets().map_err(broken)?;
            let at = plain.len();
            plain.resize(at + state.plaintext_bytes_to_read(), 0);
            if plain.len() > at {
                self.session.reader().read_exact(&mut plain[at..])?;
            }
        }
        Ok(plain)
    }

    /// Takes the lent buffer back, for the next time.
    pub fn give_back(&mut self, buffer: Vec<u8>) {
        self.opened = buffer;
    }
}
