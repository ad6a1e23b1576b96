//! Who the server is: its certificates and the private key that goes with them, from their files.
//!
//! Three forms of a private key are read: without a passphrase (`rustls` knows them all), PKCS#8 with one (`ENCRYPTED
//! PRIVATE KEY`, what OpenSSL has written since 3.0), and the older form of OpenSSL, whose section says how it is
//! encrypted in two lines of text of its own (`Proc-Type`, `DEK-Info`). A new form joins in [`private_key`].
//!
//! Called by [`Tls::load`](super::Tls::load) when a directive is set, never for a connection.

use std::fs;

use aes::{Aes128, Aes192, Aes256};
use cbc::Decryptor;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit};
use des::TdesEde3;
use md5::{Digest, Md5};
use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

/// The certificates of `cert_file`, the server's first, with the key of `key_file`.
///
/// # Errors
/// What is wrong with either, or that they do not belong together.
pub fn load(
    cert_file: &str,
    key_file: &str,
    passphrase: Option<&str>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, String> {
    let chain = certificates(cert_file)?;
    let failed = |error: &dyn std::fmt::Display| format!("Failed to load private key: {key_file}: {error}");
    let text = fs::read(key_file).map_err(|error| failed(&error))?;
    let key = private_key(&text, passphrase).map_err(|error| failed(&error))?;
    let key = provider.key_provider.load_private_key(key).map_err(|error| failed(&error))?;
    let identity = CertifiedKey::new(chain, key);
    match belongs(&identity) {
        Ok(()) => Ok(identity),
        Err(error) => Err(format!("Failed to use certificate {cert_file} with private key {key_file}: {error}")),
    }
}

/// The certificates of a file.
///
/// # Errors
/// It cannot be read, is no PEM, or holds none.
pub fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(list) if list.is_empty() => Err(format!("Failed to load certificate: {path}: there is none in it")),
        Ok(list) => Ok(list),
        Err(error) => Err(format!("Failed to load certificate: {path}: {error}")),
    }
}

/// Whether the key is that of the certificate. `rustls` reads certificates of version 3 only, while `openssl x509 -req`
/// made them of version 1 for years where it was asked for no extensions, and a client that is content with one may have
/// it: whether it is valid is not for the server to say.
fn belongs(identity: &CertifiedKey) -> Result<(), Error> {
    match identity.keys_match() {
        Err(Error::InvalidCertificate(error)) => {
            match (identity.key.public_key(), public_key(identity.end_entity_cert()?)) {
                (Some(key), Some(certificate)) if key.as_ref() == certificate => Ok(()),
                (Some(_), Some(_)) => Err(InconsistentKeys::KeyMismatch.into()),
                _ => Err(Error::InvalidCertificate(error)),
            }
        }
        Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(()),
        other => other,
    }
}

/// The first element of DER in `bytes`: its tag, all of it, what is in it, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, [&[u8]; 3])> {
    let (&tag, &first) = (bytes.first()?, bytes.get(1)?);
    let (header, len) = match first {
        0..=0x7f => (2, usize::from(first)),
        0x81..=0x84 => {
            let digits = bytes.get(2..2 + usize::from(first & 0x7f))?;
            (2 + digits.len(), digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit)))
        }
        _ => return None,
    };
    let whole = bytes.get(..header.checked_add(len)?)?;
    Some((tag, [whole, &whole[header..], &bytes[whole.len()..]]))
}

/// The public key in a certificate, with its algorithm (SubjectPublicKeyInfo, RFC 5280, 4.1).
fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    const VERSION: u8 = 0xa0;
    let (_, [_, signed, _]) = element(certificate)?;
    let (_, [_, mut fields, _]) = element(signed)?;
    if element(fields)?.0 == VERSION {
        fields = element(fields)?.1[2];
    }
    // The serial number, the signature's algorithm, the issuer, the validity and the subject stand before it.
    for _ in 0..5 {
        fields = element(fields)?.1[2];
    }
    Some(element(fields)?.1[0])
}

/// The first private key in a file's text.
fn private_key(text: &[u8], passphrase: Option<&str>) -> Result<PrivateKeyDer<'static>, String> {
    let text = String::from_utf8_lossy(text);
    let (standard, old) = (section(&text, "ENCRYPTED PRIVATE KEY"), encrypted_section(&text));
    if standard.is_none() && old.is_none() {
        return PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| error.to_string());
    }
    let passphrase = passphrase.ok_or("it has a passphrase, and tls-key-file-pass gives none")?;
    match (standard, old) {
        (Some(section), _) => pkcs8_key(section, passphrase),
        (_, Some(section)) => old_key(section, passphrase),
        _ => unreachable!("one of them is there"),
    }
}

/// The PEM section with this label, from its first line to its last.
fn section<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    let end = format!("-----END {label}-----");
    let from = &text[text.find(&format!("-----BEGIN {label}-----"))?..];
    Some(&from[..from.find(&end)? + end.len()])
}

/// The section of a key that says by itself that it is encrypted.
fn encrypted_section(text: &str) -> Option<&str> {
    let mut found = ["RSA PRIVATE KEY", "EC PRIVATE KEY"].into_iter().filter_map(|label| section(text, label));
    found.find(|section| section.contains("Proc-Type: 4,ENCRYPTED"))
}

fn pkcs8_key(section: &str, passphrase: &str) -> Result<PrivateKeyDer<'static>, String> {
    let (_, document) = SecretDocument::from_pem(section).map_err(|error| error.to_string())?;
    let info = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|error| error.to_string())?;
    let key = info.decrypt(passphrase).map_err(|error| format!("{error} (is tls-key-file-pass right?)"))?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}

/// A key in OpenSSL's older form: `DEK-Info` names the cipher and its initialization vector, the first eight bytes of
/// which are also the salt with which the passphrase becomes the cipher's key.
fn old_key(section: &str, passphrase: &str) -> Result<PrivateKeyDer<'static>, String> {
    let info = section.lines().find_map(|line| line.strip_prefix("DEK-Info: ")).ok_or("there is no DEK-Info in it")?;
    let (cipher, vector) = info.trim().split_once(',').ok_or("its DEK-Info names no initialization vector")?;
    let vector = from_hex(vector).filter(|vector| vector.len() >= 8).ok_or("its initialization vector is no such")?;
    // What is left without the lines of text is a section of Base64 like any other, if of no key yet.
    let bare: Vec<&str> = section.lines().filter(|line| !line.contains(':')).collect();
    let mut sealed = PrivateKeyDer::from_pem_slice(bare.join("\n").as_bytes()).map_err(|error| error.to_string())?;
    let (salt, bytes) = (&vector[..8], sealed.secret_der().to_vec());
    let opened = match cipher {
        "AES-128-CBC" => open::<Decryptor<Aes128>>(&stretch(passphrase, salt, 16), &vector, bytes),
        "AES-192-CBC" => open::<Decryptor<Aes192>>(&stretch(passphrase, salt, 24), &vector, bytes),
        "AES-256-CBC" => open::<Decryptor<Aes256>>(&stretch(passphrase, salt, 32), &vector, bytes),
        "DES-EDE3-CBC" => open::<Decryptor<TdesEde3>>(&stretch(passphrase, salt, 24), &vector, bytes),
        _ => {
            return Err(format!(
                "it is encrypted with {cipher}, which is not supported: openssl pkey -aes256 changes it"
            ));
        }
    };
    let opened = opened.ok_or("it cannot be decrypted (is tls-key-file-pass right?)")?;
    sealed = match sealed {
        PrivateKeyDer::Sec1(_) => PrivateKeyDer::Sec1(opened.into()),
        _ => PrivateKeyDer::Pkcs1(opened.into()),
    };
    Ok(sealed)
}

/// As many bytes as a cipher wants from a passphrase: MD5 over what came before, the passphrase and the salt, again and
/// again (`EVP_BytesToKey` with one round).
fn stretch(passphrase: &str, salt: &[u8], len: usize) -> Vec<u8> {
    let mut key = Vec::new();
    let mut before = Vec::new();
    while key.len() < len {
        let mut hash = Md5::new();
        hash.update(&before);
        hash.update(passphrase.as_bytes());
        hash.update(salt);
        before = hash.finalize().to_vec();
        key.extend_from_slice(&before);
    }
    key.truncate(len);
    key
}

fn open<C: BlockModeDecrypt + KeyIvInit>(key: &[u8], vector: &[u8], bytes: Vec<u8>) -> Option<Vec<u8>> {
    C::new_from_slices(key, vector).ok()?.decrypt_padded_vec::<Pkcs7>(&bytes).ok()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One key in every form, made with OpenSSL 3.0; the passphrase is `1234`.
    const PLAIN: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgEJv87XHsiLH8Gvb1
zTHadP8EGTPTd3O3/Jan8SadJaShRANCAAQ32AF+EwFmNq6kjCPD0duwXOw3MzgD
Zar0nEnd42s7RaCNBUGgntXZENWtW4fCXwCEZEGqm9ceQ+sZqbO4AFgM
-----END PRIVATE KEY-----
";
    const PKCS8_AES_256: &str = "\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgceWVI3g3HiQICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEIL2lLVmUZt0J/Yd7t19WF8EgZCV
+w+RT44/gvInNY5eI9rb6e+J6qybFEekK2rUlFYcl9LY+j/ysAXbpxOL0BDYOHf5
BGtYemMPbuOoydpxb9aNIK2JdyfwtIn59J6954vYS9ROLYzoA50pzLSApy+z2S11
NcWST86NtpHR8CeKzS2uG6HxlEKb+62JoDLxSGAVPLiUwAhQDFm2luHJ2992+iA=
-----END ENCRYPTED PRIVATE KEY-----
";
    const PKCS8_DES3_SHA1: &str = "\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHVMEAGCSqGSIb3DQEFDTAzMBsGCSqGSIb3DQEFDDAOBAir7YyRZE5JuwICCAAw
FAYIKoZIhvcNAwcECMse+8r65Y80BIGQZBZw81f/tIVqoitYMUz5aFnHRDY6EyeZ
fJ1lYBHaXpNnXlF5Vf/rHL0dXXMjd/CUAG1xCyX3/6VtT+piSxU/wdXw1fYXoWg1
dkgpzY61QHHfPtxLw7T8MO0N/aNk5utGVqLMbpswYOKNbBzTMk+Twqv7bpWjdtGg
hgihvua+GGxlD9BoMG6bJdkFTbrZjIOg
-----END ENCRYPTED PRIVATE KEY-----
";
    const PKCS8_SCRYPT: &str = "\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHkME8GCSqGSIb3DQEFDTBCMCEGCSsGAQQB2kcECzAUBAiY9ic6pOkYnAICQAAC
AQgCAQEwHQYJYIZIAWUDBAEqBBDtKL1fdMwGMZ2RPMYG8U+hBIGQLZLK8qjIctYZ
MXSFFkggOXgRbjfErRifJKbwNDZji2xxe5fNmnHzRKjmylJnafO5jCa1aY0nzXsT
meoBcArD2KqjCG67lw+nkMwWWKVfCaP3MTuFzkRqlBxKSHxP/eTxrWSP8DbZNni2
L4GQg/iOZP5R1pjo7e7lijJnvFXeoHztJF6IfwAR3UbLRbWV7J33
-----END ENCRYPTED PRIVATE KEY-----
";
    const PKCS8_OLDEST: &str = "\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGxMBwGCiqGSIb3DQEMAQMwDgQIuO8fzpYTITsCAggABIGQWvdCk86EzRNa082B
W+JGoeQ/FpygetNDsw6jMjTYbTkN68sxgHo/89hrGStayC+CZDOamuBC9UkUkgiY
w2L/jgIB6/8qJfE+Vdh4WkI+zazdarQeckAaJMkg8iqXkfIiVVlKosuCu2K7KzZC
vsMD3vFeFUiPqGt1okQVOPpeMO/S+swQm34CqEBRMrEEW2jH
-----END ENCRYPTED PRIVATE KEY-----
";
    const OLD_AES128: &str = "\
-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,47B24FE153B11D3733207AC35C596554

ZMkZn8W+Z/Yce6bgwpY2j0yiRQb19w09MTgwJImeLSXOjLJhBygOumzVPyCSaWHd
ZZaBBswZ1kxthVa+JSY46BJzskMGUPpGG+sL5BzoKCeZKhHHRhxGXr24haExhdT/
qVyTbE6onTdJeODts3mBsop0+zT7gXH/JU3dOn0IOcY=
-----END EC PRIVATE KEY-----
";
    const OLD_AES192: &str = "\
-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-192-CBC,DE371C05F823045BFD0825F4D04785CE

t2j5cH/aoLGH5hVp7myEGQDAsY66nBfM7Ss4JdQGwDxz3gZwqg1HAxOgsJS48VHe
qbHJju8EPJ4t2WWUS+hq4ScMqxOIuIbNNH1E/d40jLkO7YxDz+UNXVcWtA17k+ar
Vo0UtjyY2nFlUTBZABi/iwQ30g0M2sZr6p5/8KuDESU=
-----END EC PRIVATE KEY-----
";
    const OLD_AES256: &str = "\
-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-256-CBC,CC56DAE32841CD565819E8455223D270

NDuIfBFg6B4aqlVnpcJdbkfcELMPltlu4YLYqT0U3pl8HaUQruYRkPX7yPrczNay
PdgcGF3caJf0aUWbn14Jo5te38KSSbczDYQBvjFl2LcGFvf+y4W52cgj67oSihya
bOB2Y3xFcd6z3pMyYYL0ZTGd/poj801k6a96O4SlMOs=
-----END EC PRIVATE KEY-----
";
    const OLD_DES3: &str = "\
-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: DES-EDE3-CBC,E75E4CDF5EA8813B

9LHWsN9tv3uT9sMi1UHTqNMOviLmRZXtd2z/QhglQcu9kJ7ajs8hpmlPqq+emslM
xRwu4Ad3uIanYoQAcm5Rmyz7NaYLaMBoYS4jyIMncuTU3ltax6TP7IhzWBms3AuE
PCoL1BqHxiAZEyg4sRBCaMine6F1GCjIj+zBik5gnHI=
-----END EC PRIVATE KEY-----
";
    const OLD_CAMELLIA128: &str = "\
-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: CAMELLIA-128-CBC,953B815DE58D96BD8A1CC9F6E0B14F9C

8XR6JAZaY/X7v61hNTi7ZEw1dWj6v9BFytuUgqqCumyjPnaSqwgkHQkexXrEAeaH
Zz9LzbVRckYre0wrEODStbfVnL0/2fcqWCR2Vh5+gOfCmldg7gkv6wDIU/i+r4/8
xmgzPSbPfzB2p2wRZ9deeg6ZYToUoKA50LflTaRnx3A=
-----END EC PRIVATE KEY-----
";
    const OTHER: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgU2pdFoSgl5Ahe9xe
xM8WL+HbB8NKuRcMaVXMJnMfIqKhRANCAAShqe6A4Xqoje69ynBC4e4h90+3SKF6
McKe+PSyrzMfwMPAsdgKZW44dU1MvHHWpZPIlkuqQ63pUMqVt7PabFcC
-----END PRIVATE KEY-----
";
    /// Of that key, of version 1, made with `openssl x509 -req`.
    const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBFTCBvQIUWjnRBfP9wK78EpAHYoL0trFLbC4wCgYIKoZIzj0EAwIwDTELMAkG
A1UEAwwCdjEwIBcNMjYxMTI5MTU1MzQwWhgPMjA4MTA5MDExNTUzNDBaMA0xCzAJ
BgNVBAMMAnYxMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEN9gBfhMBZjaupIwj
w9HbsFzsNzM4A2Wq9JxJ3eNrO0WgjQVBoJ7V2RDVrVuHwl8AhGRBqpvXHkPrGamz
uABYDDAKBggqhkjOPQQDAgNHADBEAiA3xLQnhFp6We4q3RWkqU3iFikT7E5V46DF
7xDNTb5GkAIgLaGmovmXHPD/bWwbVPYnQeFe0hxRftHppsx3Fc30HJ8=
-----END CERTIFICATE-----
";

    fn public_of(key: PrivateKeyDer<'static>) -> Vec<u8> {
        let key = rustls::crypto::ring::default_provider().key_provider.load_private_key(key).unwrap();
        key.public_key().unwrap().to_vec()
    }

    #[test]
    fn a_key_is_the_same_in_every_form() {
        let plain = public_of(private_key(PLAIN.as_bytes(), None).unwrap());
        // A passphrase that nobody asks for does no harm.
        assert_eq!(public_of(private_key(PLAIN.as_bytes(), Some("1234")).unwrap()), plain);
        let old = [OLD_AES128, OLD_AES192, OLD_AES256, OLD_DES3];
        for text in [PKCS8_AES_256, PKCS8_DES3_SHA1, PKCS8_SCRYPT].into_iter().chain(old) {
            // It may stand behind its certificate.
            for text in [text.to_owned(), format!("{VERSION_1}{text}"), text.replace('\n', "\r\n")] {
                let opened = private_key(text.as_bytes(), Some("1234")).unwrap_or_else(|e| panic!("{e}: {text}"));
                assert_eq!(public_of(opened), plain, "{text}");
                let error = private_key(text.as_bytes(), None).unwrap_err();
                assert_eq!(error, "it has a passphrase, and tls-key-file-pass gives none");
                // The padding of what a wrong one opens is right now and then, but there is no key in it.
                for wrong in ["", "12345", "123\x004"] {
                    let opened = private_key(text.as_bytes(), Some(wrong));
                    let provider = rustls::crypto::ring::default_provider();
                    assert!(
                        opened.is_err_and(|e| e.contains("tls-key-file-pass")) || {
                            let key = private_key(text.as_bytes(), Some(wrong)).unwrap();
                            provider.key_provider.load_private_key(key).is_err()
                        }
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_not_supported_says_so() {
        let error = private_key(OLD_CAMELLIA128.as_bytes(), Some("1234")).unwrap_err();
        assert!(error.starts_with("it is encrypted with CAMELLIA-128-CBC, which is not supported"), "{error}");
        assert!(private_key(PKCS8_OLDEST.as_bytes(), Some("1234")).is_err());
        // Nothing of a file that is cut or mangled is taken, and nothing ends the server.
        for text in [PLAIN, PKCS8_AES_256, OLD_DES3] {
            for len in 0..text.len() - 2 {
                assert!(private_key(&text.as_bytes()[..len], Some("1234")).is_err(), "{len} of {text}");
            }
        }
        let vector = OLD_AES256.split("CBC,").nth(1).unwrap().split('\n').next().unwrap();
        for (from, to) in
            [("DEK-Info", "DEK"), ("CBC,", "CBC"), (vector, ""), (vector, "FF"), (vector, "ü"), (vector, "+1")]
        {
            assert!(private_key(OLD_AES256.replace(from, to).as_bytes(), Some("1234")).is_err(), "{from} as {to}");
        }
    }

    #[test]
    fn a_certificate_of_version_1_is_good_enough_for_its_key() {
        let provider = rustls::crypto::ring::default_provider();
        let chain = || vec![CertificateDer::from_pem_slice(VERSION_1.as_bytes()).unwrap()];
        let load = |text: &str| {
            let key = provider.key_provider.load_private_key(private_key(text.as_bytes(), None).unwrap()).unwrap();
            belongs(&CertifiedKey::new(chain(), key))
        };
        assert_eq!(load(PLAIN), Ok(()));
        assert_eq!(load(OTHER), Err(InconsistentKeys::KeyMismatch.into()));
        // Nothing is read beyond the end of what is cut.
        let whole = chain().remove(0);
        for len in 0..whole.len() {
            assert_eq!(public_key(&whole[..len]), None);
        }
    }
}
