//! The way out. What stands for the outside is a container of the test's own on the network that egress-proxy has and nobody else of the
//! stack: it answers under names of its own, and for addresses that must never be reached, which egress-proxy is given a route to. So
//! no probe leaves the machine, also where a wall is not there.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use stack_tests::Stack;
use stack_tests::suite::Test;

use crate::control::{CELL, Control, in_cell, in_cell_of};

pub const TESTS: &[(&str, Test)] = &[
    (
        "real_clients_get_out_to_what_is_granted",
        real_clients_get_out_to_what_is_granted,
    ),
    (
        "what_is_not_granted_is_refused",
        what_is_not_granted_is_refused,
    ),
    (
        "a_program_that_knows_no_proxy_has_no_route",
        a_program_that_knows_no_proxy_has_no_route,
    ),
    (
        "the_lease_of_another_is_of_no_use",
        the_lease_of_another_is_of_no_use,
    ),
];

/// Makes the certificate and the repository, then answers: HTTP on 80, TLS on 443, the first line of SSH on 22.
const OUTSIDE: &str = r#"
set -e
cd /made
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=granted.test -addext subjectAltName=DNS:granted.test -keyout key.pem -out ca.pem 2>/dev/null
export HOME=/made GIT_AUTHOR_NAME=walls GIT_AUTHOR_EMAIL=walls@granted.test GIT_COMMITTER_NAME=walls GIT_COMMITTER_EMAIL=walls@granted.test
mkdir -p site && git init --quiet work && cd work && echo cloned >README && git add README && git commit --quiet -m one
git clone --quiet --bare . ../site/repository.git && cd ../site && git -C repository.git update-server-info
printf outside >index.html
exec python3 - <<'END'
import http.server, socket, ssl, threading
class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_): pass
def ssh():
    listener = socket.create_server(("", 22))
    while True:
        stream = listener.accept()[0]
        stream.sendall(b"SSH-2.0-walls\r\n")
        stream.recv(100)
        stream.close()
plain = http.server.ThreadingHTTPServer(("", 80), Quiet)
secure = http.server.ThreadingHTTPServer(("", 443), Quiet)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/made/ca.pem", "/made/key.pem")
secure.socket = context.wrap_socket(secure.socket, server_side=True)
for serve in (plain.serve_forever, secure.serve_forever, ssh):
    threading.Thread(target=serve, daemon=True).start()
open("/made/ready", "w").close()
threading.Event().wait()
END
"#;

/// Addresses that no plugin may reach unless they are written down; the last one is.
const ADDRESSES: [&str; 5] = [
    "169.254.169.254",
    "100.100.100.100",
    "10.98.76.54",
    "192.168.99.99",
    "203.0.113.9",
];

/// The stand-in, up as long as this is.
struct Outside<'a> {
    stack: &'a Stack,
    name: String,
    made: tempfile::TempDir,
}

impl<'a> Outside<'a> {
    fn start(stack: &'a Stack) -> anyhow::Result<Self> {
        let outside = Self {
            stack,
            name: format!("{}-outside", stack.project()),
            made: tempfile::tempdir()?,
        };
        let network = format!("{}_outside", stack.project());
        let made = format!("{}:/made", outside.made.path().display());
        let mut args = vec!["run", "--detach", "--rm", "--pull", "never"];
        args.extend(["--name", &outside.name, "--network", &network]);
        for alias in [
            "granted.test",
            "hidden.test",
            "near.test",
            "below.granted.example",
        ] {
            args.extend(["--network-alias", alias]);
        }
        args.extend(["--volume", &made, "--entrypoint", "/bin/bash"]);
        args.extend(["bailey/base-tools:current", "-c", OUTSIDE]);
        stack.docker(&args)?;
        let ready = outside.made.path().join("ready");
        stack.until(Duration::from_secs(30), "the stand-in", || {
            Ok(ready.exists().then_some(()))
        })?;
        Ok(outside)
    }

    fn ca(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.made.path().join("ca.pem"))?)
    }

    fn address(&self) -> anyhow::Result<String> {
        let container = self.stack.inspect(&self.name)?;
        let networks = &container["NetworkSettings"]["Networks"];
        let network = &networks[format!("{}_outside", self.stack.project())];
        Ok(network["IPAddress"]
            .as_str()
            .context("no address")?
            .to_owned())
    }

    /// Gives the stand-in the addresses, and egress-proxy a route to them (SIOCSIFADDR, SIOCADDRT; netdevice(7), rtnetlink's ancestor).
    fn stand_for(&self, addresses: &[&str]) -> anyhow::Result<()> {
        let script = r#"
import fcntl, socket, struct, sys
gateway, *addresses = sys.argv[1:]
control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def address(text):
    return struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(text))
for number, text in enumerate(addresses):
    if gateway == "here":
        fcntl.ioctl(control, 0x8916, struct.pack("16s16s", f"lo:{number}".encode(), address(text)))
    else:
        # struct rtentry: a host (4) by a gateway (2), up (1). An earlier stand-in's goes first (SIOCDELRT), by whatever gateway.
        def entry(gateway, flags):
            return struct.pack("8x16s16s16sHh4xQBB6xh6xPQQH6x", address(text), address(gateway), address("255.255.255.255"), flags, *[0] * 9)
        try:
            fcntl.ioctl(control, 0x890C, entry("0.0.0.0", 5))
        except ProcessLookupError:
            pass
        fcntl.ioctl(control, 0x890B, entry(gateway, 7))
"#;
        let proxy = self.stack.service("egress-proxy")?;
        let gateway = self.address()?;
        for (container, gateway) in [(self.name.as_str(), "here"), (&proxy, &gateway)] {
            let network = format!("container:{container}");
            let mut args = vec!["run", "--rm", "--pull", "never", "--network", &network];
            args.extend(["--cap-add", "NET_ADMIN", "--entrypoint", "/usr/bin/python3"]);
            args.extend(["bailey/base-python:current", "-c", script, gateway]);
            args.extend(addresses);
            self.stack.docker(&args)?;
        }
        Ok(())
    }
}

impl Drop for Outside<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.stack.docker(&["rm", "--force", &self.name]) {
            eprintln!("{} was not removed: {error:#}", self.name);
        }
    }
}

fn real_clients_get_out_to_what_is_granted(stack: &Stack) -> anyhow::Result<()> {
    let outside = Outside::start(stack)?;
    outside.stand_for(&["203.0.113.9"])?;
    let payload = json!({"host": "granted.test", "ca": outside.ca()?, "tools": true});
    let found = in_cell_of(stack, "walls_out", "clients", &payload)?;
    for client in ["urllib", "urllib_tls", "curl", "curl_socks"] {
        ensure!(found[client] == "outside", "{client}: {found}");
    }
    ensure!(
        found["cloned"] == true && found["git"] == "",
        "git: {found}"
    );
    // A stand-in does not speak SSH; that each side has the other's first line shows that bytes go both ways.
    let ssh = found["ssh"].as_str().unwrap_or_default();
    ensure!(
        ssh.contains("remote software version walls"),
        "ssh: {found}"
    );
    // With the same programs, who is granted nothing gets nothing.
    let found = in_cell(
        stack,
        "clients",
        &json!({"host": "granted.test", "ca": outside.ca()?}),
    )?;
    ensure!(
        found["urllib"]
            .as_str()
            .is_some_and(|text| text.starts_with("failed"))
            && found["urllib_tls"]
                .as_str()
                .is_some_and(|text| text.starts_with("failed")),
        "without egress: {found}"
    );
    // Each connection is on record, with its bytes.
    stack.until(Duration::from_secs(20), "the record of connections", || {
        let all = stack.audited()?;
        Ok((all.contains("egress.closed") && all.contains("granted.test")).then_some(()))
    })
}

fn all(found: &Value, targets: &[String], answer: &str) -> bool {
    targets.iter().all(|target| found[target] == answer)
}

fn what_is_not_granted_is_refused(stack: &Stack) -> anyhow::Result<()> {
    let outside = Outside::start(stack)?;
    outside.stand_for(&ADDRESSES)?;
    let at = |host: &&str| format!("{host}:80");
    let addresses: Vec<String> = ADDRESSES.iter().map(at).collect();
    let (granted, forbidden) = addresses.split_last().context("no addresses")?;
    // Given that all of it can be reached from where egress-proxy is,
    let proxy = format!("container:{}", stack.service("egress-proxy")?);
    let beside = Control {
        network: &proxy,
        ..CELL
    };
    let names = [
        "hidden.test:80".to_owned(),
        "near.test:80".to_owned(),
        "below.granted.example:80".to_owned(),
    ];
    let targets = [&addresses[..], &names].concat();
    let reached = beside.observes(
        stack,
        "connect",
        &json!({"anywhere": true, "targets": targets}),
    )?;
    ensure!(
        all(&reached, &targets, "connected"),
        "the control: {reached}"
    );
    // when a plugin asks for it, then only what was written down is had: not another port, a name that leads home, a service of the stack,
    let more = [
        "granted.test:81",
        "localhost:80",
        "127.0.0.1:80",
        "broker:7000",
        "engine:7000",
        "0xa9fea9fe:80",
    ];
    let more: Vec<String> = more.iter().map(|&target| target.to_owned()).collect();
    let refused = [forbidden, &names, &more].concat();
    let had = [granted.clone(), "granted.test:80".to_owned()];
    let payload = json!({"targets": ([&refused[..], &had].concat())});
    let found = in_cell_of(stack, "walls_out", "ask", &payload)?;
    let answers: Vec<_> = refused
        .iter()
        .filter(|target| found[*target] == "200" || found[*target].is_null())
        .collect();
    ensure!(answers.is_empty(), "{answers:?}: {found}");
    ensure!(all(&found, forbidden, "403"), "{found}");
    ensure!(
        found[granted] == "200" && found["granted.test:80"] == "200",
        "the control: {found}"
    );
    // and another plugin has its own hosts only.
    let payload = json!({"targets": ["hidden.test:80", "granted.test:80"]});
    let found = in_cell_of(stack, "walls_out_sibling", "ask", &payload)?;
    ensure!(
        found == json!({"hidden.test:80": "200", "granted.test:80": "403"}),
        "the sibling: {found}"
    );
    Ok(())
}

fn a_program_that_knows_no_proxy_has_no_route(stack: &Stack) -> anyhow::Result<()> {
    let outside = Outside::start(stack)?;
    let address = format!("{}:80", outside.address()?);
    let payload = json!({"targets": ["granted.test:80", address, "203.0.113.9:80"]});
    let found = in_cell_of(stack, "walls_out", "direct", &payload)?;
    ensure!(
        found["granted.test:80"] == "no such name"
            && found[&address] == "ENETUNREACH"
            && found["203.0.113.9:80"] == "ENETUNREACH"
            && found["interfaces"] == json!(["lo"]),
        "in a cell: {found}"
    );
    let network = format!("{}_outside", stack.project());
    let control = Control {
        network: &network,
        ..CELL
    };
    let payload = json!({"targets": ["granted.test:80", address]});
    let found = control.observes(stack, "direct", &payload)?;
    ensure!(
        found["granted.test:80"] == "connected" && found[&address] == "connected",
        "the control: {found}"
    );
    Ok(())
}

/// Somebody who has the socket of egress-proxy, and a decision that is not his: what he is answered, as `refused` and why.
const THIEF: &str = r#"
import base64, json, os, socket, sys
line = sys.argv[1].encode()
def ask(hello):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.settimeout(10)
        stream.connect("/run/bailey/egress/egress.sock")
        stream.sendall(hello)
        try:
            answer = stream.recv(300)
        except OSError as error:
            return type(error).__name__
        return "granted" if answer[:1] == b"\0" else "refused"
host = b"granted.test"
print(json.dumps({
    "lease": ask(b"L" + len(line).to_bytes(4, "big") + line),
    "connection": ask(b"C" + os.urandom(32) + (80).to_bytes(2, "big") + bytes([len(host)]) + host),
}))
"#;

fn the_lease_of_another_is_of_no_use(stack: &Stack) -> anyhow::Result<()> {
    // A statement of the thief's own, and a token that was guessed: with the identity of the runner, of a cell, and of a holder.
    let forged = json!({"payload": "e30=", "signature": "AA=="}).to_string() + "\n";
    let volume = format!("{}_egress:/run/bailey/egress:ro", stack.project());
    for uid in ["10004:10004", "20000:20000", "40000:40000"] {
        let mut args = vec!["run", "--rm", "--pull", "never", "--network", "none"];
        args.extend(["--user", uid, "--volume", &volume]);
        args.extend([
            "--entrypoint",
            "/usr/bin/python3",
            "bailey/base-python:current",
        ]);
        args.extend(["-c", THIEF, &forged]);
        let shown = stack.docker(&args)?;
        let answers: Value = serde_json::from_str(shown.trim())?;
        let refused = |name: &str| {
            answers[name]
                .as_str()
                .is_some_and(|answer| !answer.is_empty() && answer != "granted")
        };
        ensure!(
            refused("lease") && refused("connection"),
            "{uid}: {answers}"
        );
    }
    Ok(())
}
