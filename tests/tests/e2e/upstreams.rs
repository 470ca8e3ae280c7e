//! HTTP services beyond the stack that the stack itself calls: how far a key comes, and where it is never found.

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use stack_tests::suite::Test;
use stack_tests::{Stack, fixture};

use crate::{canary, memory};

pub const TESTS: &[(&str, Test)] = &[
    (
        "an_upstream_gets_its_key_once_it_is_granted",
        an_upstream_gets_its_key_once_it_is_granted,
    ),
    (
        "an_upstream_is_sent_a_rolled_key_at_once_and_a_revoked_one_never",
        an_upstream_is_sent_a_rolled_key_at_once_and_a_revoked_one_never,
    ),
    (
        "an_upstreams_key_is_in_no_memory_but_the_brokers_and_egress_proxys",
        an_upstreams_key_is_in_no_memory_but_the_brokers_and_egress_proxys,
    ),
];

const LIMIT: Duration = Duration::from_secs(20);

/// The key that stays.
const KEY: &str = "upstream-5d83e0f7-not-to-be-seen";
/// The values of the key that is rolled.
const ROLLED: [&str; 2] = ["upstream-first-0b6e41", "upstream-second-7fa290"];

/// An authority with one certificate, then HTTPS. Whoever does not send the key in the file `key` is refused; every request is written down.
/// `/v1/slow` ends when the test lets it.
const SERVER: &str = r#"
set -e
cd /made
curve='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
openssl req -x509 $curve -days 2 -subj /CN=authority -keyout ca.key -out ca.pem 2>/dev/null
openssl req $curve -subj /CN=upstream.test -keyout key.pem -out request.pem 2>/dev/null
printf 'subjectAltName=DNS:upstream.test\nbasicConstraints=CA:FALSE\n' >extensions
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out cert.pem 2>/dev/null
touch seen
exec python3 - <<'END'
import http.server, os, ssl, time
class Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        sent = self.headers.get("authorization", "nothing")
        with open("/made/seen", "a") as seen:
            seen.write(f"{self.path} {sent}\n")
        with open("/made/key") as key:
            if sent != "Bearer " + key.read():
                return self.answer(401, b"who are you?")
        if self.path == "/v1/models":
            self.answer(200, b'{"data": []}')
        elif self.path == "/v1/echo":
            self.send_response(200)
            body = f"you sent {sent}".encode()
            self.send_header("content-length", str(len(body)))
            self.send_header("x-echo", sent)
            self.end_headers()
            self.wfile.write(body)
        elif self.path == "/v1/slow":
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"a")
            while not os.path.exists("/made/open"):
                time.sleep(0.05)
            self.wfile.write(b"b")
        else:
            self.answer(404, b"nothing there")
server = http.server.ThreadingHTTPServer(("", 443), Upstream)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/made/cert.pem", "/made/key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
open("/made/ready", "w").close()
server.serve_forever()
END
"#;

/// Where the upstreams begin in the configuration, at whose end they stand.
const MARK: &str = "\n# The upstreams of the tests.\n";

/// The stand-in for the upstream, on the network that egress-proxy has; up as long as this is.
struct Upstream<'a> {
    stack: &'a Stack,
    name: String,
    made: tempfile::TempDir,
}

impl<'a> Upstream<'a> {
    /// Starts it, with `key` as the key that it wants.
    fn start(stack: &'a Stack, key: &str) -> anyhow::Result<Self> {
        let upstream = Self {
            stack,
            name: format!("{}-upstream", stack.project()),
            made: tempfile::tempdir()?,
        };
        upstream.wants(key)?;
        let network = format!("{}_outside", stack.project());
        let made = format!("{}:/made", upstream.made.path().display());
        let mut args = vec!["run", "--detach", "--rm", "--pull", "never"];
        args.extend(["--name", &upstream.name, "--network", &network]);
        args.extend(["--volume", &made, "--entrypoint", "/bin/bash"]);
        args.extend(["bailey/base-tools:current", "-c", SERVER]);
        stack.docker(&args)?;
        let ready = upstream.made("ready");
        stack.until(LIMIT, "the stand-in", || Ok(ready.exists().then_some(())))?;
        Ok(upstream)
    }

    fn made(&self, name: &str) -> PathBuf {
        self.made.path().join(name)
    }

    /// From now on it wants this key.
    fn wants(&self, key: &str) -> anyhow::Result<()> {
        Ok(fs::write(self.made("key"), key)?)
    }

    /// What it was asked for so far, and with what, one request a line.
    fn seen(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.made("seen"))?)
    }

    /// Ends the answers that wait.
    fn open(&self) -> anyhow::Result<()> {
        Ok(fs::write(self.made("open"), "")?)
    }

    fn address(&self) -> anyhow::Result<String> {
        let container = self.stack.inspect(&self.name)?;
        let network = format!("{}_outside", self.stack.project());
        let address = &container["NetworkSettings"]["Networks"][network]["IPAddress"];
        Ok(address.as_str().context("no address")?.to_owned())
    }

    /// Puts it at the end of the configuration under several names, each with its secret and what a check of it asks for.
    fn configure(&self, upstreams: &[(&str, &str, &str)]) -> anyhow::Result<()> {
        let path = self.stack.home.join("config/config.yaml");
        let text = fs::read_to_string(&path)?;
        let before = text.split(MARK).next().unwrap_or_default();
        let authority = fs::read_to_string(self.made("ca.pem"))?;
        let authority = authority.trim().replace('\n', "\n      ");
        let address = self.address()?;
        let one = |(name, secret, check): &(&str, &str, &str)| {
            format!(
                "  {name}:\n    url: https://upstream.test/v1\n    secret_ref: {secret}\n    vault_principal: e2e_upstream\n    \
                 address: {address}\n    check: {check}\n    ca: |\n      {authority}\n"
            )
        };
        let upstreams: Vec<String> = upstreams.iter().map(one).collect();
        let text = format!("{before}{MARK}upstreams:\n{}", upstreams.concat());
        Ok(fs::write(path, text)?)
    }
}

impl Drop for Upstream<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.stack.docker(&["rm", "--force", &self.name]) {
            eprintln!("{} was not removed: {error:#}", self.name);
        }
    }
}

/// What `bailey upstream check` says of an upstream that answers as it should.
fn answers(stack: &Stack, name: &str) -> anyhow::Result<String> {
    stack.bailey_ok(&["upstream", "check", name])
}

/// What it says of one that does not.
fn fails(stack: &Stack, name: &str) -> anyhow::Result<String> {
    let Output { status, stdout, .. } = stack.bailey(&["upstream", "check", name])?;
    let said = String::from_utf8_lossy(&stdout).into_owned();
    ensure!(status.code() == Some(1), "{status}: {said}");
    Ok(said)
}

/// Registers the consumer that the keys are granted to, once.
fn consumer(stack: &Stack) -> anyhow::Result<()> {
    let listed = stack.bailey_ok(&["vault", "list"])?;
    if listed.contains("e2e_upstream") {
        return Ok(());
    }
    let register = ["register-principal", "e2e_upstream", "--kind", "consumer"];
    stack
        .bailey_ok(&[&["vault"][..], &register].concat())
        .map(drop)
}

/// Waits for an entry of the audit log about the vault.
fn is_recorded(stack: &Stack, kind: &str, is: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
    stack.until(LIMIT, &format!("a record {kind}"), || {
        let shown = stack.bailey_ok(&["vault", "audit", "--limit", "500", "--json"])?;
        ensure!(!shown.contains(KEY), "the audit log has the key");
        let entries: Vec<Value> = serde_json::from_str(&shown)?;
        let mut of_kind = entries.iter().filter(|entry| entry["kind"] == kind);
        Ok(of_kind.any(|entry| is(&entry["fields"])).then_some(()))
    })
}

fn an_upstream_gets_its_key_once_it_is_granted(stack: &Stack) -> anyhow::Result<()> {
    // Given an upstream whose key nobody has set: the preview of its lock and the status say so,
    let upstream = Upstream::start(stack, ROLLED[0])?;
    upstream.configure(&[("e2e_granted", "e2e_granted_key", "/models")])?;
    let lacks = "the upstream e2e_granted has no key: there is no secret e2e_granted_key";
    let preview = stack.bailey_ok(&["plugin", "lock", "--all"])?;
    ensure!(preview.contains(lacks), "{preview}");
    fixture::lock(stack)?;
    let status = stack.bailey_ok(&["status"])?;
    ensure!(status.contains(lacks), "{status}");
    // nothing is sent without it, and the operator is told,
    let said = fails(stack, "e2e_granted")?;
    ensure!(said.contains("e2e_granted does not answer: "), "{said}");
    ensure!(upstream.seen()?.is_empty(), "{}", upstream.seen()?);
    is_recorded(stack, "upstream.key_refused", |fields| {
        fields["upstream"] == "e2e_granted" && fields["reason"] == "no_such_secret"
    })?;

    // and when it is there and granted, it is sent, and on record by name.
    consumer(stack)?;
    fixture::seal_secret(stack, "e2e_granted_key", ROLLED[0], "e2e_upstream")?;
    let said = answers(stack, "e2e_granted")?;
    ensure!(
        said.contains("e2e_granted answers: HTTP 200 after ")
            && said.contains("with the key e2e_granted_key"),
        "{said}"
    );
    let seen = format!("/v1/models Bearer {}\n", ROLLED[0]);
    ensure!(upstream.seen()? == seen, "{}", upstream.seen()?);
    is_recorded(stack, "upstream.key_released", |fields| {
        fields["upstream"] == "e2e_granted" && fields["client"] == "engine"
    })?;
    // Who had it asked is on record too, as the broker signed it.
    let named = r#""principal":"token:operator","#;
    let closed = |line: &str| {
        ["upstream.closed", "e2e_granted", named]
            .iter()
            .all(|part| line.contains(part))
    };
    stack.until(LIMIT, "the record of the check", || {
        Ok(stack.audited()?.lines().any(closed).then_some(()))
    })?;
    let status = stack.bailey_ok(&["status"])?;
    ensure!(!status.contains(lacks), "{status}");
    let listed = stack.bailey_ok(&["upstream", "list"])?;
    ensure!(listed.contains("https://upstream.test/v1"), "{listed}");
    Ok(())
}

fn an_upstream_is_sent_a_rolled_key_at_once_and_a_revoked_one_never(
    stack: &Stack,
) -> anyhow::Result<()> {
    let upstream = Upstream::start(stack, ROLLED[0])?;
    upstream.configure(&[("e2e_rolled", "e2e_rolled_key", "/models")])?;
    consumer(stack)?;
    fixture::seal_secret(stack, "e2e_rolled_key", ROLLED[0], "e2e_upstream")?;
    fixture::lock(stack)?;
    answers(stack, "e2e_rolled")?;

    // When the key is rolled here and not there, then the upstream is asked with the new one, and refuses it;
    stack.bailey_ok_with(&["vault", "roll", "e2e_rolled_key"], ROLLED[1])?;
    let said = fails(stack, "e2e_rolled")?;
    ensure!(
        said.contains("HTTP 401") && said.contains("it refuses the key"),
        "{said}"
    );
    // when it is rolled there too, it answers.
    upstream.wants(ROLLED[1])?;
    answers(stack, "e2e_rolled")?;
    let [first, second] = ROLLED.map(|key| format!("/v1/models Bearer {key}\n"));
    let expected = [first, second.clone(), second].concat();
    ensure!(upstream.seen()? == expected, "{}", upstream.seen()?);

    // When it is revoked, then nothing at all is sent any more.
    stack.bailey_ok(&["vault", "revoke", "e2e_rolled_key"])?;
    let said = fails(stack, "e2e_rolled")?;
    ensure!(said.contains("does not answer: "), "{said}");
    ensure!(said.contains("audit log"), "{said}");
    ensure!(upstream.seen()? == expected, "{}", upstream.seen()?);
    is_recorded(stack, "upstream.key_refused", |fields| {
        fields["secret"] == "e2e_rolled_key" && fields["reason"] == "secret_revoked"
    })
}

fn an_upstreams_key_is_in_no_memory_but_the_brokers_and_egress_proxys(
    stack: &Stack,
) -> anyhow::Result<()> {
    // Given an upstream that sends its key back, in a header and in the body,
    let upstream = Upstream::start(stack, KEY)?;
    upstream.configure(&[
        ("e2e_echo", "e2e_key", "/echo"),
        ("e2e_slow", "e2e_key", "/slow"),
    ])?;
    consumer(stack)?;
    fixture::seal_secret(stack, "e2e_key", KEY, "e2e_upstream")?;
    fixture::lock(stack)?;
    answers(stack, "e2e_echo")?;
    let echoed = format!("/v1/echo Bearer {KEY}\n");
    ensure!(upstream.seen()? == echoed, "{}", upstream.seen()?);
    is_recorded(stack, "upstream.key_returned", |fields| {
        fields["upstream"] == "e2e_echo" && fields["client"] == "engine"
    })?;

    // when an exchange is held open, then egress-proxy has the key, so the search finds it, and nobody else but the broker has it,
    std::thread::scope(|scope| {
        let check = scope.spawn(|| answers(stack, "e2e_slow"));
        let searched = while_it_is_open(stack, &upstream);
        // Also where the search failed: nobody waits for the rest.
        upstream.open()?;
        let said = check
            .join()
            .map_err(|_| anyhow::anyhow!("the check panicked"))??;
        searched?;
        ensure!(said.contains("HTTP 200"), "{said}");
        anyhow::Ok(())
    })?;

    // nor when it is over, nor in anything that the stack wrote.
    nobody_has_it(stack)?;
    canary::is_written_nowhere(stack, "e2e_key", KEY)
}

fn while_it_is_open(stack: &Stack, upstream: &Upstream<'_>) -> anyhow::Result<()> {
    stack.until(LIMIT, "the request for /slow", || {
        Ok(upstream.seen()?.contains("/v1/slow").then_some(()))
    })?;
    for service in ["egress-proxy", "broker"] {
        let found = memory::holds(&stack.service(service)?, KEY)?;
        ensure!(found, "the control: {service} does not have the key");
    }
    nobody_has_it(stack)
}

fn nobody_has_it(stack: &Stack) -> anyhow::Result<()> {
    for service in memory::WITHOUT.into_iter().chain(["socket-proxy"]) {
        let found = memory::holds(&stack.service(service)?, KEY)?;
        ensure!(!found, "{service} has the key of an upstream in its memory");
    }
    Ok(())
}
