//! A holder at work.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use bailey_types::Service;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use crate::world::World;

/// A process of the binary, ready for its decision.
pub struct Holder {
    pub child: Child,
    pub http: SocketAddr,
    pub socks: SocketAddr,
    pub stderr: Lines<BufReader<ChildStderr>>,
}

impl Holder {
    /// Starts it and waits until it says that it is ready.
    pub async fn start(socket: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_holder"))
            .args([
                "egress",
                "--http",
                "127.0.0.1:0",
                "--socks",
                "127.0.0.1:0",
                "--socket",
            ])
            .arg(socket)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut ready = String::new();
        stdout.read_line(&mut ready).await.unwrap();
        assert_eq!(ready, "ready\n");
        let mut addresses = Vec::new();
        for _ in 0..2 {
            let line = stderr.next_line().await.unwrap().unwrap();
            let address = line.strip_prefix("listening on ").unwrap();
            addresses.push(address.parse().unwrap());
        }
        Self {
            child,
            http: addresses[0],
            socks: addresses[1],
            stderr,
        }
    }

    /// Gives it a line, and no other.
    pub async fn tell(&mut self, line: &[u8]) {
        let mut stdin = self.child.stdin.take().unwrap();
        stdin.write_all(line).await.unwrap();
        stdin.write_all(b"\n").await.unwrap();
    }

    /// A holder of `world` with a decision that policy signed.
    pub async fn leased(world: &World) -> Self {
        let mut holder = Self::start(&world.socket()).await;
        let decision = world.signed(&world.decision(), Service::Policy);
        holder.tell(&decision).await;
        holder
    }

    /// `program` as a cell would start it, if this machine has it.
    pub fn client(&self, program: &str) -> Option<Command> {
        let path = std::env::var_os("PATH")?;
        if !std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
            eprintln!("not tried: this machine has no {program}");
            return None;
        }
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", "/nonexistent");
        let http = format!("http://{}", self.http);
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env(name, &http);
        }
        let socks = format!("socks5h://{}", self.socks);
        for name in ["all_proxy", "ALL_PROXY"] {
            command.env(name, &socks);
        }
        command.env("no_proxy", "").env("NO_PROXY", "");
        command.stdin(Stdio::null()).kill_on_drop(true);
        Some(command)
    }
}

/// Runs `command` to its end: whether it went well, and what it said.
pub async fn output(mut command: Command) -> (bool, String, String) {
    let output = command.output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (
        output.status.success(),
        text(output.stdout),
        text(output.stderr),
    )
}
