//! HTTPS endpoints: `ca_file`, and certificates that must be rejected.

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use crate::common::{TestEnv, answer};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
}

/// Starts a server on loopback with the certificate of `host`, which answers one connection. Returns its port.
fn serve(host: &str) -> (u16, thread::JoinHandle<()>) {
    let certificate = CertificateDer::from_pem_file(fixture(&format!("{host}.pem"))).expect("certificate file");
    let key = PrivateKeyDer::from_pem_file(fixture(&format!("{host}.key.pem"))).expect("key file");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions that the provider supports")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("matching certificate and key");
    let listener = TcpListener::bind("127.0.0.1:0").expect("free port");
    let port = listener.local_addr().expect("bound address").port();
    let server = thread::spawn(move || {
        let (socket, _) = listener.accept().expect("incoming connection");
        let session = rustls::ServerConnection::new(Arc::new(config)).expect("TLS session");
        let mut stream = rustls::StreamOwned::new(session, socket);
        // A client that rejects the certificate closes the connection here.
        if stream.read(&mut [0; 4096]).is_ok() {
            stream.write_all(answer("secret").as_bytes()).expect("client is connected");
            stream.conn.send_close_notify();
            let _ = stream.flush();
            let _ = stream.read(&mut [0; 1]);
        }
    });
    (port, server)
}

fn ask(port: u16, ca: Option<&str>) -> crate::common::CommandResult {
    let ca = ca.map(|name| format!("ca_file = '{}'\n", fixture(name).display())).unwrap_or_default();
    let config = format!("[endpoints.m]\nbase_url = \"https://localhost:{port}/v1\"\n{ca}");
    TestEnv::with_config(&config).run(&["ask", "-m", "m/x", "hi"])
}

#[test]
fn ca_file_certificate_is_trusted() {
    let (port, server) = serve("localhost");
    assert_eq!(ask(port, Some("localhost.pem")).expect_exit(0).stdout, "secret");
    server.join().expect("server thread finishes");
}

#[test]
fn certificate_of_another_host_is_rejected_and_named() {
    let (port, server) = serve("other.invalid");
    ask(port, Some("other.invalid.pem")).expect_exit(5).expect_stderr(&["connect", "TLS error", "other.invalid"]);
    server.join().expect("server thread finishes");
}

#[test]
fn unknown_certificate_is_rejected() {
    let (port, server) = serve("localhost");
    ask(port, None).expect_exit(5).expect_stderr(&["connect", "TLS error"]);
    server.join().expect("server thread finishes");
}

#[test]
fn invalid_ca_file_is_reported() {
    for (file, word) in [("nothing-here.pem", "cannot read file"), ("../../../Cargo.toml", "no certificate")] {
        ask(9, Some(file)).expect_exit(5).expect_stderr(&["local-limit", "ca_file", word]);
    }
}
