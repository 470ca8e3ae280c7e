//! An engine that is away, and how to speak to the stack meanwhile: what publishes its port, and what knows its names, is the engine's own, and
//! is away too.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use stack_tests::Stack;

use crate::settings;

/// The engine is stopped until this is dropped.
pub struct Away<'a> {
    stack: &'a Stack,
    back: bool,
}

impl<'a> Away<'a> {
    /// Stops the engine, and waits until it is gone.
    pub fn new(stack: &'a Stack) -> anyhow::Result<Self> {
        let pid = settings::pid()?;
        let away = Self { stack, back: false };
        if Path::new("/run/systemd/system").is_dir() {
            // Its socket would start it again.
            let mut stop = stack.command("systemctl");
            let stopped = stop
                .args(["stop", "docker.socket", "docker.service"])
                .status()?;
            ensure!(stopped.success(), "systemctl: {stopped}");
        } else {
            settings::signal("TERM")?;
        }
        let process = Path::new("/proc").join(&pid);
        stack.until(Duration::from_mins(2), "the engine's end", || {
            Ok((!process.exists()).then_some(()))
        })?;
        Ok(away)
    }

    /// Starts it as `make up` does, and waits until it answers.
    pub fn end(mut self) -> anyhow::Result<()> {
        self.start()
    }

    fn start(&mut self) -> anyhow::Result<()> {
        self.back = true;
        let started = self.stack.command("deploy/engine.sh").output()?;
        let text = String::from_utf8_lossy(&started.stderr).into_owned();
        ensure!(started.status.success(), "the engine did not start: {text}");
        Ok(())
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        if !self.back
            && let Err(error) = self.start()
        {
            eprintln!("the engine is left as it is: {error:#}");
        }
    }
}

/// The way in behind the published port and `ingress-local`.
pub struct Inside<'a> {
    stack: &'a Stack,
    token: String,
    to: String,
}

impl<'a> Inside<'a> {
    /// Finds it while there is an engine to ask.
    pub fn new(stack: &'a Stack) -> anyhow::Result<Self> {
        let gateway = stack.inspect(&stack.service("gateway")?)?;
        let networks = &gateway["NetworkSettings"]["Networks"];
        let address = networks[format!("{}_ingress-local", stack.project())]["IPAddress"].as_str();
        let address = address.with_context(|| format!("no address: {networks}"))?;
        let token = std::fs::read_to_string(stack.home.join("secrets/api.token"))?;
        Ok(Self {
            stack,
            token: token.trim().to_owned(),
            to: format!("localhost:{}:{address}:8443", stack.port()),
        })
    }

    /// `GET path`, or `POST path` with a body.
    pub fn ask(&self, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let mut curl = self.stack.command("curl");
        curl.args(["--silent", "--show-error", "--max-time", "20", "--cacert"]);
        curl.arg(self.stack.home.join("config/ca.pem"));
        curl.args(["--connect-to", &self.to]);
        curl.args(["-H", &format!("Authorization: Bearer {}", self.token)]);
        if let Some(body) = body {
            curl.args(["--json", &body.to_string()]);
        }
        curl.arg(format!("https://localhost:{}{path}", self.stack.port()));
        let answer = curl.output()?;
        let (out, err) = (
            String::from_utf8_lossy(&answer.stdout),
            String::from_utf8_lossy(&answer.stderr),
        );
        serde_json::from_str(&out).with_context(|| format!("{path}: {out}{err}"))
    }
}
