//! Clients that plugins use, from this machine.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::server::Authority;
use crate::site::Site;
use crate::way_out::{Holder, output};
use crate::world::{PUBLIC, World};

/// A web site over TLS, and the certificate of its authority in a file.
struct Secure {
    world: World,
    holder: Holder,
    folder: TempDir,
    _site: Site,
}

impl Secure {
    async fn start() -> Self {
        let world = World::start(&["web.example.com:443"]).await;
        let authority = Authority::new();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.issuer.pem()).unwrap();
        let tls = authority.acceptor(&["web.example.com"]);
        let site = Site::start("web", folder.path().into(), Some(tls)).await;
        world.beyond.name("web.example.com", &[PUBLIC]);
        world.beyond.stand(PUBLIC, 443, site.address);
        let holder = Holder::leased(&world).await;
        Self {
            world,
            holder,
            folder,
            _site: site,
        }
    }

    fn ca(&self) -> String {
        self.folder.path().join("ca.pem").display().to_string()
    }
}

#[tokio::test]
async fn curl_works_by_its_variables_and_over_socks() {
    let secure = Secure::start().await;
    let socks = format!("socks5h://{}", secure.holder.socks);
    for arguments in [&[][..], &["--proxy", &socks]] {
        let Some(mut curl) = secure.holder.client("curl") else {
            return;
        };
        curl.args([
            "-sS",
            "--cacert",
            &secure.ca(),
            "https://web.example.com/x?y=1",
        ]);
        let (well, said, error) = output({
            curl.args(arguments);
            curl
        })
        .await;
        assert!(
            well && said.contains(r#""target":"/x?y=1""#),
            "{arguments:?}: {said}{error}"
        );
    }
    let Some(mut curl) = secure.holder.client("curl") else {
        return;
    };
    curl.args([
        "-sS",
        "--cacert",
        &secure.ca(),
        "https://other.example.com/",
    ]);
    let (well, _, error) = output(curl).await;
    assert!(!well && error.contains("403"), "{error}");
    secure.world.stop().await;
}

#[tokio::test]
async fn pythons_urllib_works_by_its_variables() {
    let secure = Secure::start().await;
    let program = "import sys, urllib.request\nprint(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())";
    let Some(mut python) = secure.holder.client("python3") else {
        return;
    };
    python.env("SSL_CERT_FILE", secure.ca());
    python.args(["-c", program, "https://web.example.com/py"]);
    let (well, said, error) = output(python).await;
    assert!(well && said.contains(r#""target":"/py""#), "{said}{error}");

    let Some(mut python) = secure.holder.client("python3") else {
        return;
    };
    python.args(["-c", program, "http://other.example.com/py"]);
    let (well, _, error) = output(python).await;
    assert!(!well && error.contains("403"), "{error}");
    secure.world.stop().await;
}

/// A repository that any web server can serve.
async fn repository(holder: &Holder, folder: &Path) -> bool {
    let work = folder.join("work");
    let bare = folder.join("repository.git");
    std::fs::create_dir(&work).unwrap();
    std::fs::write(work.join("file"), "content").unwrap();
    let (work, bare) = (work.display().to_string(), bare.display().to_string());
    let me = ["-c", "user.name=x", "-c", "user.email=x@example.com"];
    let steps: [&[&str]; 5] = [
        &["-C", &work, "init", "-q"],
        &["-C", &work, "add", "file"],
        &[
            me[0], me[1], me[2], me[3], "-C", &work, "commit", "-q", "-m", "first",
        ],
        &["clone", "-q", "--bare", &work, &bare],
        &["-C", &bare, "update-server-info"],
    ];
    for step in steps {
        let Some(mut git) = holder.client("git") else {
            return false;
        };
        git.args(step);
        let (well, _, error) = output(git).await;
        assert!(well, "{step:?}: {error}");
    }
    true
}

#[tokio::test]
async fn git_clones_over_https() {
    let secure = Secure::start().await;
    let folder = secure.folder.path();
    if !repository(&secure.holder, folder).await {
        return;
    }
    let to = folder.join("cloned").display().to_string();
    let mut git = secure.holder.client("git").unwrap();
    git.env("GIT_SSL_CAINFO", secure.ca());
    git.args(["clone", "-q", "https://web.example.com/repository.git", &to]);
    let (well, _, error) = output(git).await;
    assert!(well, "{error}");
    assert_eq!(
        std::fs::read_to_string(folder.join("cloned/file")).unwrap(),
        "content"
    );
    secure.world.stop().await;
}

#[tokio::test]
async fn ssh_works_with_the_proxy_command_of_the_how_to() {
    let world = World::start(&["git.example.com:22"]).await;
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.beyond.name("git.example.com", &[PUBLIC]);
    world.beyond.stand(PUBLIC, 22, server.local_addr().unwrap());
    let holder = Holder::leased(&world).await;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("connect.py");
    std::fs::write(&program, bailey_test::documented_connect()).unwrap();
    // It greets, hears the client's greeting, and hangs up.
    let greeted = async {
        let (mut client, _) = server.accept().await.unwrap();
        client.write_all(b"SSH-2.0-standin\r\n").await.unwrap();
        let mut greeting = [0; 15];
        client.read_exact(&mut greeting).await.unwrap();
        greeting
    };
    let ssh = |host: &str| {
        let mut ssh = holder.client("ssh")?;
        holder.client("python3")?;
        let command = format!("ProxyCommand=python3 {} %h %p", program.display());
        ssh.args([
            "-v",
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            &command,
            host,
        ]);
        Some(ssh)
    };
    let (Some(granted), Some(other)) = (ssh("git.example.com"), ssh("other.example.com")) else {
        return;
    };
    // A program that never connects is to fail this test, not to hang it.
    let both = async { tokio::join!(output(granted), greeted) };
    let ((_, _, error), greeting) = tokio::time::timeout(Duration::from_mins(1), both)
        .await
        .unwrap();
    assert_eq!(&greeting, b"SSH-2.0-OpenSSH");
    assert!(error.contains("remote software version standin"), "{error}");
    let (_, _, error) = output(other).await;
    assert!(error.contains("is not granted to fetch"), "{error}");
    world.stop().await;
}
