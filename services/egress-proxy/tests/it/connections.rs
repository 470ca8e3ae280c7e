//! What a lease leads to.

use bailey_lease::Kind;
use bailey_trust::EgressLimits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::server::{Echo, with_an_echo};
use crate::world::{PLUGIN, PUBLIC, World};

#[tokio::test]
async fn every_connection_is_an_event_with_its_bytes_both_ways() {
    let (world, echo) = with_an_echo(&["api.example.com:8080"], EgressLimits::default()).await;
    let decision = world.decision();
    let line = world.signed(&decision, bailey_types::Service::Policy);
    let (_control, token) = world.lease(line).await.unwrap();

    let mut stream = world
        .connect(&token, "API.example.com", 8080)
        .await
        .unwrap();
    stream.write_all(b"question").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(
        (answer.as_slice(), echo.heard()),
        (&b"question"[..], b"question".to_vec())
    );

    let entries = world.audited(1).await;
    let (kind, fields) = &entries[0];
    assert_eq!(kind, "egress.closed");
    assert_eq!(fields["plugin"], PLUGIN);
    assert_eq!(fields["decision"], decision.id.to_string());
    assert_eq!(fields["job"], decision.job.to_string());
    assert_eq!(
        (&fields["host"], &fields["port"]),
        (&"API.example.com".into(), &8080.into())
    );
    assert_eq!(fields["address"], PUBLIC);
    assert_eq!(
        (&fields["sent_bytes"], &fields["received_bytes"]),
        (&8.into(), &8.into())
    );
    assert!(fields["cut"].is_null(), "{fields}");
    world.stop().await;
}

#[tokio::test]
async fn only_what_is_listed_is_reached_and_nothing_else_is_even_looked_up() {
    let world = World::start(&[
        "api.example.com:8080",
        "*.example.org:8080",
        "93.184.216.34:8080",
        "nas:8080",
    ])
    .await;
    let echo = Echo::plain().await;
    for name in [
        "api.example.com",
        "a.example.org",
        "example.org",
        "other.example.com",
    ] {
        world.beyond.name(name, &[PUBLIC]);
    }
    world.beyond.name("nas", &["192.168.1.5"]);
    world.beyond.name("broker", &["172.18.0.5"]);
    for address in [PUBLIC, "192.168.1.5", "172.18.0.5", "1.1.1.1"] {
        for port in [80, 8080] {
            world.beyond.stand(address, port, echo.address);
        }
    }
    let (_control, token) = world.leased().await;
    for host in ["api.example.com", "a.example.org", PUBLIC, "nas"] {
        assert!(world.connect(&token, host, 8080).await.is_ok(), "{host}");
    }
    let asked = world.beyond.asked.lock().unwrap().clone();
    // The dot keeps search domains away from public names.
    assert_eq!(asked, ["api.example.com.", "a.example.org.", "nas"]);
    for (host, port) in [
        ("api.example.com", 80),
        ("example.org", 8080),
        ("other.example.com", 8080),
        ("api.example.com.evil.org", 8080),
        ("1.1.1.1", 8080),
        ("broker", 8080),
        ("127.1", 8080),
        ("[::1]", 8080),
        ("::ffff:93.184.216.34", 8080),
        ("api.example.com.", 8080),
        ("api.example.com\0", 8080),
        ("", 8080),
    ] {
        let refused = world.connect(&token, host, port).await.unwrap_err();
        assert_eq!(refused.kind, Kind::NotAllowed, "{host:?}:{port}");
    }
    assert_eq!(world.beyond.asked.lock().unwrap().len(), 3);
    assert_eq!(world.beyond.dialled().len(), 4);
    world.stop().await;
}

#[tokio::test]
async fn a_granted_name_leads_to_no_address_that_is_not_public() {
    let world = World::start(&["*.example.com:8080", "exact.example.net:8080"]).await;
    let echo = Echo::plain().await;
    let private = [
        "10.0.0.1",
        "172.18.0.2",
        "192.168.1.1",
        "127.0.0.1",
        "169.254.169.254",
        "100.100.100.100",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "203.0.113.7",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "fd00::1",
        "fe80::1",
    ];
    let (_control, token) = world.leased().await;
    for address in private {
        world.beyond.stand(address, 8080, echo.address);
        for name in ["rebound.example.com", "exact.example.net"] {
            world.beyond.name(name, &[address]);
            let refused = world.connect(&token, name, 8080).await.unwrap_err();
            assert_eq!(refused.kind, Kind::NotAllowed, "{name} at {address}");
        }
    }
    assert_eq!(world.beyond.dialled(), [""; 0]);
    // Among several, only the public ones are tried; of what was answered once, nobody asks again.
    world
        .beyond
        .name("rebound.example.com", &["10.0.0.1", PUBLIC]);
    world.beyond.stand(PUBLIC, 8080, echo.address);
    assert!(
        world
            .connect(&token, "rebound.example.com", 8080)
            .await
            .is_ok()
    );
    assert_eq!(world.beyond.dialled(), ["93.184.216.34:8080"]);
    let entries = world.audited(2 * private.len()).await;
    let reason = entries[0].1["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("not for plugins"), "{reason}");
    world.stop().await;
}

#[tokio::test]
async fn what_the_operator_wrote_down_may_be_private_but_never_this_machine() {
    let world = World::start(&[
        "nas.lan:8080",
        "192.168.1.7:8080",
        "cloud.example.com:8080@10.1.2.3",
        "127.0.0.1:8080",
        "localhost:8080",
        "metadata.example.com:80@169.254.169.254",
    ])
    .await;
    let echo = Echo::plain().await;
    world.beyond.name("nas.lan", &["192.168.1.5"]);
    world.beyond.name("localhost", &["127.0.0.1", "::1"]);
    // What its name servers say of a pinned name does not count.
    world.beyond.name("cloud.example.com", &[PUBLIC]);
    for address in ["192.168.1.5", "192.168.1.7", "10.1.2.3", "127.0.0.1", "::1"] {
        world.beyond.stand(address, 8080, echo.address);
    }
    world.beyond.stand("169.254.169.254", 80, echo.address);
    let (_control, token) = world.leased().await;
    for (host, port) in [
        ("nas.lan", 8080),
        ("192.168.1.7", 8080),
        ("cloud.example.com", 8080),
        ("metadata.example.com", 80),
    ] {
        assert!(world.connect(&token, host, port).await.is_ok(), "{host}");
    }
    let dialled = [
        "192.168.1.5:8080",
        "192.168.1.7:8080",
        "10.1.2.3:8080",
        "169.254.169.254:80",
    ];
    assert_eq!(world.beyond.dialled(), dialled);
    for host in ["127.0.0.1", "localhost"] {
        let refused = world.connect(&token, host, 8080).await.unwrap_err();
        assert_eq!(refused.kind, Kind::NotAllowed, "{host}");
    }
    assert_eq!(world.beyond.dialled().len(), dialled.len());
    world.stop().await;
}

#[tokio::test]
async fn no_name_leads_into_the_networks_of_the_stack_itself() {
    let world = World::start(&["broker:8080", "nas.lan:8080", "172.18.0.9:8080"]).await;
    let echo = Echo::plain().await;
    world.beyond.name("broker", &["172.18.0.5"]);
    world.beyond.name("nas.lan", &["172.18.0.5"]);
    for address in ["172.18.0.5", "172.18.0.9", "172.19.0.5"] {
        world.beyond.stand(address, 8080, echo.address);
    }
    let (_control, token) = world.leased().await;
    for host in ["broker", "nas.lan"] {
        let refused = world.connect(&token, host, 8080).await.unwrap_err();
        assert_eq!(refused.kind, Kind::NotAllowed, "{host}");
    }
    assert_eq!(world.beyond.dialled(), [""; 0]);
    // The next network is a neighbour's, and what is written as an address is meant.
    world.beyond.name("broker", &["172.19.0.5"]);
    for host in ["broker", "172.18.0.9"] {
        assert!(world.connect(&token, host, 8080).await.is_ok(), "{host}");
    }
    world.stop().await;
}

#[tokio::test]
async fn what_cannot_be_found_or_reached_is_said() {
    let world = World::start(&["*.example.com:8080"]).await;
    world.beyond.name("closed.example.com", &[PUBLIC]);
    world.beyond.name("empty.example.com", &[]);
    let (_control, token) = world.leased().await;
    for (host, kind) in [
        ("closed.example.com", Kind::Unreachable),
        ("empty.example.com", Kind::Unresolved),
        ("none.example.com", Kind::Unresolved),
    ] {
        let refused = world.connect(&token, host, 8080).await.unwrap_err();
        assert_eq!(refused.kind, kind, "{host}: {refused}");
    }
    world.stop().await;
}
