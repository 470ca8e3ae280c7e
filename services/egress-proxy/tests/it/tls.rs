//! TLS through the proxy: the name inside must be the one that was granted.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::server::{Authority, Echo, Flood, server_name};
use crate::world::{PUBLIC, World};

const NAMES: [&str; 3] = ["api.example.com", "www.example.com", "a.example.org"];

/// One server for all the names, as a content network is.
async fn world() -> (World, Authority, Echo) {
    let world = World::start(&[
        "api.example.com:443",
        "api.example.com:8443",
        "api.example.com:8080",
        "*.example.org:443",
        "93.184.216.34:443",
    ])
    .await;
    let authority = Authority::new();
    let echo = Echo::tls(authority.acceptor(&[&NAMES[..], &[PUBLIC]].concat())).await;
    for name in NAMES {
        world.beyond.name(name, &[PUBLIC]);
    }
    for port in [443, 8443] {
        world.beyond.stand(PUBLIC, port, echo.address);
    }
    (world, authority, echo)
}

#[tokio::test]
async fn the_granted_name_passes_end_to_end() {
    let (world, authority, echo) = world().await;
    let (_control, token) = world.leased().await;
    for (host, port) in [
        ("api.example.com", 443),
        ("api.example.com", 8443),
        ("a.example.org", 443),
        (PUBLIC, 443),
    ] {
        let stream = world.connect(&token, host, port).await.unwrap();
        let tls = authority
            .connector()
            .connect(server_name(host), stream)
            .await;
        let mut tls = tls.unwrap_or_else(|e| panic!("{host}: {e}"));
        tls.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        tls.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"hello");
    }
    assert_eq!(echo.heard(), b"hello".repeat(4));
    world.stop().await;
}

#[tokio::test]
async fn another_name_behind_a_granted_one_is_refused_before_the_server_hears_of_it() {
    let (world, authority, echo) = world().await;
    let (_control, token) = world.leased().await;
    for (host, port, inside) in [
        ("api.example.com", 443, "www.example.com"),
        ("api.example.com", 8443, "www.example.com"),
        ("api.example.com", 443, PUBLIC),
        ("a.example.org", 443, "api.example.com"),
        (PUBLIC, 443, "www.example.com"),
    ] {
        let stream = world.connect(&token, host, port).await.unwrap();
        let tls = authority
            .connector()
            .connect(server_name(inside), stream)
            .await;
        let refused = tls.unwrap_err().to_string();
        assert!(
            refused.contains("AccessDenied"),
            "{host} with {inside}: {refused}"
        );
    }
    // Each is refused and, having been open, closed: with no byte sent
    let entries = world.audited(10).await;
    for (kind, fields) in entries {
        match kind.as_str() {
            "egress.refused" => assert!(fields["reason"].as_str().unwrap().contains("TLS")),
            "egress.closed" => assert_eq!(fields["sent_bytes"], 0),
            other => panic!("{other}"),
        }
    }
    assert_eq!(echo.heard(), b"");
    world.stop().await;
}

#[tokio::test]
async fn on_port_443_nothing_but_tls_passes() {
    let (world, _authority, _echo) = world().await;
    let plain = Echo::plain().await;
    world.beyond.stand(PUBLIC, 443, plain.address);
    world.beyond.stand(PUBLIC, 8080, plain.address);
    let (_control, token) = world.leased().await;
    let mut stream = world.connect(&token, "api.example.com", 443).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    drop(stream.read_to_end(&mut rest).await);
    assert_eq!(rest, [21, 3, 3, 0, 2, 2, 49], "a TLS alert");
    assert_eq!(plain.heard(), b"");
    // The same on another port passes
    let mut stream = world
        .connect(&token, "api.example.com", 8080)
        .await
        .unwrap();
    stream.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");
    world.stop().await;
}

#[tokio::test]
async fn a_refused_client_that_does_not_read_is_cut_off_all_the_same() {
    let world = World::start(&["api.example.com:443"]).await;
    let flood = Flood::start().await;
    world.beyond.serve("api.example.com", 443, flood.address);
    let (_control, token) = world.leased().await;
    let mut stream = world.connect(&token, "api.example.com", 443).await.unwrap();
    // Not even the alert fits in between any more.
    flood.stalled().await;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let soon = Duration::from_secs(20);
    let entries = timeout(soon, world.audited(2)).await.unwrap();
    assert_eq!(entries[1].0, "egress.closed");
    assert_eq!(entries[1].1["cut"], "on port 443 only TLS passes");
    let gone = async { while stream.write_all(&[0; 4096]).await.is_ok() {} };
    timeout(soon, gone).await.unwrap();
    world.stop().await;
}
