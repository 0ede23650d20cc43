//! Certificates made for a test, and a TLS client that shows what it was shown.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};

/// An authority.
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, both PEM.
pub struct Issued {
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// A new one.
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // A name of its own: OpenSSL takes a certificate for self-signed whose subject is its issuer's.
        params.distinguished_name.push(DnType::CommonName, "the authority of this test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Authority { certificate, issuer: Issuer::new(params, key) }
    }

    /// A certificate for these names (or addresses).
    pub fn issue(&self, names: &[&str]) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        Issued { cert: certificate.pem(), key: key.serialize_pem() }
    }

    /// Its own certificate as a file.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("ca.pem");
        std::fs::write(&path, self.certificate.pem()).unwrap();
        path
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        roots
    }

    /// A server with this certificate; it asks for client certificates of this authority where it is told to.
    pub fn server(&self, issued: &Issued, asks_clients: bool) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let builder = match asks_clients {
            false => builder.with_no_client_auth(),
            true => {
                let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider());
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let mut config = builder.with_single_cert(vec![issued.chain()], issued.private_key()).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// A client that trusts this authority alone, and shows this certificate.
    pub fn client(&self, shown: Option<&Issued>, alpn: &[&str]) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(self.roots());
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(issued) => builder.with_client_auth_cert(vec![issued.chain()], issued.private_key()).unwrap(),
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

impl Default for Authority {
    fn default() -> Authority {
        Authority::new()
    }
}

impl Issued {
    /// Both as files, each replaced whole.
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let write = |what: &str, text: &str| {
            let (path, part) = (folder.join(format!("{name}.{what}.pem")), folder.join(format!(".{name}.{what}.part")));
            std::fs::write(&part, text).unwrap();
            std::fs::rename(part, &path).unwrap();
            path
        };
        (write("cert", &self.cert), write("key", &self.key))
    }

    fn chain(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }

    /// Whether this is the certificate that a server showed.
    pub fn is(&self, shown: &CertificateDer<'_>) -> bool {
        self.chain() == *shown
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What a TLS exchange came to.
pub struct Exchange {
    /// The server's certificate.
    pub shown: CertificateDer<'static>,
    /// What both agreed to speak.
    pub alpn: Option<Vec<u8>>,
    /// What came back until the end.
    pub response: String,
}

/// A connection that a test goes on with.
pub type Open = StreamOwned<ClientConnection, TcpStream>;

/// One that shakes hands under this name as soon as something is sent.
pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<Open> {
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    let name = ServerName::try_from(name.to_owned()).map_err(std::io::Error::other)?;
    let client = ClientConnection::new(config.clone(), name).map_err(std::io::Error::other)?;
    Ok(StreamOwned::new(client, socket))
}

/// Shakes hands under this name, sends the request, and reads to the end.
pub fn exchange(address: SocketAddr, config: &Arc<ClientConfig>, name: &str, request: &str) -> std::io::Result<Exchange> {
    let mut stream = connect(address, config, name)?;
    stream.write_all(request.as_bytes())?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    let shown = stream.conn.peer_certificates().and_then(|chain| chain.first()).unwrap().clone().into_owned();
    let alpn = stream.conn.alpn_protocol().map(<[u8]>::to_vec);
    Ok(Exchange { shown, alpn, response: String::from_utf8_lossy(&response).into_owned() })
}
