//! The two protocols, byte by byte.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::server::Echo;
use crate::site::Site;
use crate::way_out::Holder;
use crate::world::{PUBLIC, World};

async fn ask(at: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn socks_reaches_names_and_addresses_and_says_why_not() {
    let world = World::start(&[
        "api.example.com:8080",
        "93.184.216.34:8080",
        "[fd00::5]:8080",
    ])
    .await;
    let echo = Echo::plain().await;
    world.beyond.name("api.example.com", &[PUBLIC]);
    for address in [PUBLIC, "fd00::5"] {
        world.beyond.stand(address, 8080, echo.address);
    }
    let holder = Holder::leased(&world).await;
    let name = |name: &[u8]| [&[3, u8::try_from(name.len()).unwrap()], name].concat();
    let six = "fd00::5".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let cases = [
        (name(b"api.example.com"), 8080_u16, 1, 0),
        (vec![1, 93, 184, 216, 34], 8080, 1, 0),
        ([&[4][..], &six].concat(), 8080, 1, 0),
        (name(b"other.example.com"), 8080, 1, 2),
        (vec![1, 127, 0, 0, 1], 8080, 1, 2),
        (name(b"api.example.com"), 8081, 1, 2),
        // BIND and UDP ASSOCIATE
        (name(b"api.example.com"), 8080, 2, 7),
        (name(b"api.example.com"), 8080, 3, 7),
        (vec![9, 0, 0, 0, 0], 8080, 1, 8),
    ];
    for (target, port, command, reply) in cases {
        let mut stream = TcpStream::connect(holder.socks).await.unwrap();
        stream.write_all(&[5, 2, 2, 0]).await.unwrap();
        let mut method = [9; 2];
        stream.read_exact(&mut method).await.unwrap();
        assert_eq!(method, [5, 0]);
        let request = [&[5, command, 0][..], &target, &port.to_be_bytes()].concat();
        stream.write_all(&request).await.unwrap();
        let mut answer = [0; 10];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[..4], [5, reply, 0, 1], "{target:?}");
        if reply == 0 {
            stream.write_all(b"ping").await.unwrap();
            let mut back = [0; 4];
            stream.read_exact(&mut back).await.unwrap();
            assert_eq!(&back, b"ping");
        }
    }
    // Another version, and a client that insists on a password
    for (greeting, answer) in [(&[4, 1][..], &[][..]), (&[5, 1, 2], &[5, 0xff])] {
        let mut stream = TcpStream::connect(holder.socks).await.unwrap();
        stream.write_all(greeting).await.unwrap();
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest).await);
        assert_eq!(rest, answer);
    }
    world.stop().await;
}

#[tokio::test]
async fn connect_and_absolute_form_reach_what_is_granted_and_nothing_else_is_a_request() {
    let world = World::start(&["api.example.com:8080", "api.example.com:80"]).await;
    let folder = tempfile::tempdir().unwrap();
    let site = Site::start("api", folder.path().into(), None).await;
    world.beyond.name("api.example.com", &[PUBLIC]);
    for port in [80, 8080] {
        world.beyond.stand(PUBLIC, port, site.address);
    }
    let holder = Holder::leased(&world).await;
    let tunnelled = "CONNECT api.example.com:8080 HTTP/1.1\r\nHost: x\r\n\r\nGET /in HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n";
    let answer = ask(holder.http, tunnelled).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK"),
        "{answer}"
    );
    assert!(answer.contains(r#""target":"/in""#), "{answer}");

    let absolute = "POST http://me:secret@api.example.com/out?q=1 HTTP/1.1\r\nHost: evil.example.com\r\nProxy-Authorization: Basic eA==\r\n\
        Proxy-Connection: keep-alive\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nX-Yours: 2\r\nContent-Length: 4\r\n\r\nbody";
    let answer = ask(holder.http, absolute).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for told in [
        r#""method":"POST""#,
        r#""target":"/out?q=1""#,
        r#""body":"body""#,
    ] {
        assert!(answer.contains(told), "{told}: {answer}");
    }
    assert!(
        answer.contains(r#""host":"api.example.com""#) && answer.contains("x-yours"),
        "{answer}"
    );
    for kept in ["secret", "proxy-", "x-mine", "evil"] {
        assert!(!answer.contains(kept), "{kept}: {answer}");
    }

    for (request, status) in [
        (
            "CONNECT other.example.com:8080 HTTP/1.1\r\nHost: x\r\n\r\n",
            "403",
        ),
        (
            "GET http://other.example.com/ HTTP/1.1\r\nHost: x\r\n\r\n",
            "403",
        ),
        ("CONNECT api.example.com HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n", "400"),
        (
            "GET https://api.example.com/ HTTP/1.1\r\nHost: x\r\n\r\n",
            "400",
        ),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let answer = ask(holder.http, request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}: {answer}"
        );
    }
    world.stop().await;
}

#[tokio::test]
async fn requests_on_one_connection_go_to_the_host_that_each_names() {
    let world = World::start(&["one.example.com:80", "two.example.com:80"]).await;
    let folder = tempfile::tempdir().unwrap();
    let one = Site::start("one", folder.path().into(), None).await;
    let two = Site::start("two", folder.path().into(), None).await;
    world.beyond.name("one.example.com", &[PUBLIC]);
    world.beyond.name("two.example.com", &["1.1.1.1"]);
    world.beyond.stand(PUBLIC, 80, one.address);
    world.beyond.stand("1.1.1.1", 80, two.address);
    let holder = Holder::leased(&world).await;
    let request = |name: &str, end: &str| {
        format!("GET http://{name}.example.com/ HTTP/1.1\r\nHost: {name}.example.com\r\n{end}\r\n")
    };
    let both = request("one", "") + &request("two", "Connection: close\r\n");
    let answer = ask(holder.http, &both).await;
    let (first, second) = answer.split_once(r#""site":"one""#).unwrap();
    assert!(
        !first.contains("two") && second.contains(r#""site":"two""#),
        "{answer}"
    );
    world.stop().await;
}

#[tokio::test]
async fn a_flood_of_clients_waits_and_a_large_answer_passes() {
    let world = World::start(&["api.example.com:80"]).await;
    let folder = tempfile::tempdir().unwrap();
    let large = vec![b'x'; 8 << 20];
    std::fs::write(folder.path().join("large"), &large).unwrap();
    let site = Site::start("api", folder.path().into(), None).await;
    world.beyond.name("api.example.com", &[PUBLIC]);
    world.beyond.stand(PUBLIC, 80, site.address);
    let holder = Holder::leased(&world).await;
    // More than it serves at once: all wait but the first 64, which say nothing and go.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(holder.http).await.unwrap());
    }
    drop(silent);
    let answer = ask(
        holder.http,
        "GET http://api.example.com/large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    let answer = answer.await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.len() > large.len());
    let status = std::fs::read_to_string(format!("/proc/{}/status", holder.child.id().unwrap()));
    let peak = status.unwrap();
    let peak = peak
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(
        peak < 12 << 10,
        "{peak} KiB of the 16 MiB that a holder has"
    );
    world.stop().await;
}
