//! The stack's own clients.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::World;

#[tokio::test]
async fn every_way_out_is_refused_with_a_reason_and_audited() {
    let world = World::start(&["api.example.com:443"]).await;
    let asked = [
        (
            "CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n",
            "api.example.com:443",
        ),
        (
            "GET http://me:secret@169.254.169.254/latest?token=x HTTP/1.1\r\nHost: x\r\n\r\n",
            "169.254.169.254",
        ),
        (
            "POST / HTTP/1.1\r\nHost: inside\r\nContent-Length: 1000000\r\n\r\n",
            "inside",
        ),
    ];
    for (request, _) in asked {
        let mut stream = TcpStream::connect(world.stack_door).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert!(
            answer.contains("application/problem+json") && answer.contains("no egress is granted"),
            "{answer}"
        );
    }
    // And audited by its host, without what else the request held
    let entries = world.audited(asked.len()).await;
    for ((kind, fields), (_, host)) in entries.iter().zip(asked) {
        assert_eq!(kind, "egress.refused");
        let fields = fields.to_string();
        assert!(fields.contains(host), "{fields}");
        assert!(
            !fields.contains("secret") && !fields.contains("token"),
            "{fields}"
        );
    }
    assert_eq!(world.beyond.dialled(), [""; 0]);
    world.stop().await;
}
