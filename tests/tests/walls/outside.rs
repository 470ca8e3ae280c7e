//! What stands for the outside: a container of the test's own on the network that egress-proxy has and nobody else of the stack. It answers
//! under names of its own, and for addresses that must never be reached, which egress-proxy is given a route to. So no probe leaves the
//! machine, also where a wall is not there.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use stack_tests::{Stack, fixture};

/// Bytes that the stand-in answers to whoever has said all on port 7070.
pub const COUNTED: u64 = 54_321;

/// Makes certificate, repository and keys, then answers: HTTP on 80, TLS on 443, SSH on 22 (a real server, with one user and one key). Port
/// 7070 hears everything and then says `COUNTED` bytes; port 7071 says nothing until the test lets it.
const OUTSIDE: &str = r#"
set -e
cd /made
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=granted.test -addext subjectAltName=DNS:granted.test -keyout key.pem -out ca.pem 2>/dev/null
export HOME=/made GIT_AUTHOR_NAME=walls GIT_AUTHOR_EMAIL=walls@granted.test GIT_COMMITTER_NAME=walls GIT_COMMITTER_EMAIL=walls@granted.test
mkdir -p site && git init --quiet work && cd work && echo cloned >README && git add README && git commit --quiet -m one
git clone --quiet --bare . ../site/repository.git && cd ../site && git -C repository.git update-server-info
printf outside >index.html
ssh-keygen -q -t ed25519 -N '' -C walls -f /made/key && chmod 0644 /made/key
export LD_LIBRARY_PATH=/dropbear/usr/lib/x86_64-linux-gnu
echo "granted.test $(/dropbear/usr/bin/dropbearkey -t ed25519 -f /made/host | grep ^ssh-ed25519)" >/made/known_hosts
echo 'walls:x:1000:1000::/home/walls:/bin/bash' >>/etc/passwd
echo /bin/bash >/etc/shells
install -d -m 0700 -o 1000 -g 1000 /home/walls /home/walls/.ssh
install -m 0600 -o 1000 -g 1000 /made/key.pub /home/walls/.ssh/authorized_keys
# -s: no passwords. -m: no message of the day.
/dropbear/usr/sbin/dropbear -F -s -m -r /made/host -p 22 2>/made/dropbear.log &
exec python3 - <<'END'
import http.server, os, socket, ssl, threading, time
class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_): pass
def served(port, answer):
    listener = socket.create_server(("", port))
    def serve():
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()
    return serve
def count(stream):
    while stream.recv(65536): pass
    stream.sendall(b"y" * 54321)
    stream.close()
def gate(stream):
    while not os.path.exists("/made/open"): time.sleep(0.05)
    stream.sendall(b"go")
    stream.close()
plain = http.server.ThreadingHTTPServer(("", 80), Quiet)
secure = http.server.ThreadingHTTPServer(("", 443), Quiet)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/made/ca.pem", "/made/key.pem")
secure.socket = context.wrap_socket(secure.socket, server_side=True)
for serve in (plain.serve_forever, secure.serve_forever, served(7070, count), served(7071, gate)):
    threading.Thread(target=serve, daemon=True).start()
open("/made/ready", "w").close()
threading.Event().wait()
END
"#;

/// The stand-in, up as long as this is.
pub struct Outside<'a> {
    stack: &'a Stack,
    name: String,
    made: tempfile::TempDir,
}

impl<'a> Outside<'a> {
    pub fn start(stack: &'a Stack) -> anyhow::Result<Self> {
        let outside = Self {
            stack,
            name: format!("{}-outside", stack.project()),
            made: tempfile::tempdir()?,
        };
        let network = format!("{}_outside", stack.project());
        let made = format!("{}:/made", outside.made.path().display());
        let mut args = vec!["run", "--detach", "--rm", "--pull", "never"];
        args.extend(["--name", &outside.name, "--hostname", "outside"]);
        args.extend(["--network", &network]);
        for alias in [
            "granted.test",
            "hidden.test",
            "near.test",
            "below.granted.example",
        ] {
            args.extend(["--network-alias", alias]);
        }
        let server = fixture::unpacked("dropbear.sh", "walls-dropbear").context("no SSH server")?;
        let server = format!("{}:/dropbear:ro", server.display());
        args.extend(["--volume", &made, "--volume", &server]);
        args.extend(["--entrypoint", "/bin/bash"]);
        args.extend(["bailey/base-tools:current", "-c", OUTSIDE]);
        stack.docker(&args)?;
        let ready = outside.made("ready");
        stack.until(Duration::from_secs(30), "the stand-in", || {
            Ok(ready.exists().then_some(()))
        })?;
        Ok(outside)
    }

    fn made(&self, name: &str) -> PathBuf {
        self.made.path().join(name)
    }

    /// The certificate that its own is to be checked with.
    pub fn ca(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.made("ca.pem"))?)
    }

    /// The private key of its SSH user.
    pub fn key(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.made("key"))?)
    }

    /// The line of its SSH server for `known_hosts`.
    pub fn known_hosts(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.made("known_hosts"))?)
    }

    /// From now on port 7071 says something.
    pub fn open(&self) -> anyhow::Result<()> {
        Ok(fs::write(self.made("open"), "")?)
    }

    /// Its address on the network of egress-proxy.
    pub fn address(&self) -> anyhow::Result<String> {
        let container = self.stack.inspect(&self.name)?;
        let networks = &container["NetworkSettings"]["Networks"];
        let network = &networks[format!("{}_outside", self.stack.project())];
        Ok(network["IPAddress"]
            .as_str()
            .context("no address")?
            .to_owned())
    }

    /// Gives the stand-in the addresses, and egress-proxy a route to them (SIOCSIFADDR, SIOCADDRT; netdevice(7), rtnetlink's ancestor).
    pub fn stand_for(&self, addresses: &[&str]) -> anyhow::Result<()> {
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
