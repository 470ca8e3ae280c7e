use std::sync::Arc;

use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

fn host(text: &str) -> Host {
    Host::parse(text).unwrap()
}

/// The first bytes of a real client that wants `name`.
fn client_hello(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn judge(mut bytes: &[u8], name: &str, port: u16) -> Result<Vec<u8>, Error> {
    wait(first_bytes(&mut bytes, &host(name), port))
}

#[test]
fn the_name_in_tls_must_be_the_granted_one() {
    let hello = client_hello("api.example.com");
    for port in [443, 8443] {
        let passed = judge(&hello, "api.example.com", port).unwrap();
        assert_eq!(passed, hello, "every byte goes on as it came");
        let refused = judge(&hello, "www.example.com", port).unwrap_err();
        assert!(matches!(refused, Error::OtherName(name) if name == "api.example.com"));
        let refused = judge(&hello, "93.184.216.34", port).unwrap_err();
        assert!(matches!(refused, Error::OtherName(_)), "{refused}");
    }
}

#[test]
fn an_address_is_asked_for_without_a_name_and_a_name_never_so() {
    let hello = client_hello("93.184.216.34");
    assert!(judge(&hello, "93.184.216.34", 443).is_ok());
    let refused = judge(&hello, "api.example.com", 443).unwrap_err();
    assert!(matches!(refused, Error::NoName), "{refused}");
}

#[test]
fn port_443_carries_tls_only_and_others_carry_anything() {
    for text in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"SSH-2.0-x\r\n",
        &[0x80, 0x2e, 1, 0, 2],
    ] {
        assert!(matches!(
            judge(text, "a.example.com", 443),
            Err(Error::NotTls)
        ));
        assert_eq!(judge(text, "a.example.com", 22).unwrap(), text);
    }
    // A client that ends without a word is none of anybody's business.
    assert_eq!(judge(b"", "a.example.com", 443).unwrap(), b"");
}

#[test]
fn a_hello_in_pieces_is_put_together() {
    let hello = client_hello("api.example.com");
    let (client, mut server) = tokio::io::duplex(1);
    let passed = wait(async {
        let (mut read, mut write) = tokio::io::split(client);
        let sending = async { tokio::io::AsyncWriteExt::write_all(&mut write, &hello).await };
        let target = host("api.example.com");
        let judging = first_bytes(&mut server, &target, 8443);
        let (_, passed) = tokio::join!(sending, judging);
        drop(tokio::io::AsyncReadExt::read(&mut read, &mut []).await);
        passed
    });
    assert_eq!(passed.unwrap(), hello);
}

#[test]
fn a_hello_that_is_cut_short_too_long_or_malformed_is_refused() {
    let hello = client_hello("api.example.com");
    let cut = judge(&hello[..hello.len() - 1], "api.example.com", 8443).unwrap_err();
    assert!(matches!(cut, Error::Hello("cut short")), "{cut}");
    // One byte of a record says nothing yet, and is not let through for that.
    let cut = judge(&hello[..1], "api.example.com", 8443).unwrap_err();
    assert!(matches!(cut, Error::Hello("cut short")), "{cut}");
    let garbage = [&[22, 3, 1, 0, 4][..], &[9; 4]].concat();
    let refused = judge(&garbage, "api.example.com", 8443).unwrap_err();
    assert!(matches!(refused, Error::Hello(_)), "{refused}");
    // A handshake message of 60,000 bytes in records of 4,000.
    let mut long = Vec::new();
    for piece in 0..8 {
        long.extend([22, 3, 1, 0x0f, 0xa0]);
        let mut record = vec![0; 4000];
        if piece == 0 {
            record[..4].copy_from_slice(&[1, 0, 0xea, 0x60]);
        }
        long.extend(record);
    }
    let refused = judge(&long, "api.example.com", 8443).unwrap_err();
    assert!(matches!(refused, Error::Hello("too long")), "{refused}");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_and_no_mutated_hello_changes_its_name_unseen(
        at in 0..250_usize, value: u8, tail: Vec<u8>,
    ) {
        let mut hello = client_hello("api.example.com");
        if let Some(byte) = hello.get_mut(at) {
            *byte = value;
        }
        hello.extend(&tail);
        // What passes is what came, and it passes only where the name is still in it.
        if let Ok(passed) = judge(&hello, "api.example.com", 443) {
            prop_assert!(hello.starts_with(&passed));
            prop_assert!(passed.windows(15).any(|w| w.eq_ignore_ascii_case(b"api.example.com")));
        }
        let noise = [&[22][..], &tail].concat();
        let _ = judge(&noise, "api.example.com", 443);
    }
}
