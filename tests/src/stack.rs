//! A stack of its own, made by `make up` as a user makes theirs, in a folder of its own and beside any other.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::client::Client;

/// A running stack.
pub struct Stack {
    /// Where its `config`, `secrets` and `plugin-roots` are.
    pub home: PathBuf,
    name: String,
    port: u16,
}

/// The checkout.
pub fn checkout() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

impl Stack {
    /// The description of a stack; nothing is started.
    pub fn new(home: &Path, name: &str, port: u16) -> Self {
        Self {
            home: home.to_owned(),
            name: name.to_owned(),
            port,
        }
    }

    /// Runs `make <target>` for this stack; its output comes back when it succeeds and is in the error when it does not.
    pub fn make(&self, target: &str) -> anyhow::Result<String> {
        let output = self
            .command("make")
            .arg("--no-print-directory")
            .arg(target)
            .output()?;
        text(&output).with_context(|| format!("make {target}"))
    }

    /// A command in the checkout with this stack's settings in its environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // What cargo tells its tests about their package; a build that saw it would take every dependency that asks for it to have changed.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        command
            .current_dir(checkout())
            .env("BAILEY_HOME", &self.home)
            .env("BAILEY_STACK", &self.name)
            .env("BAILEY_PORT", self.port.to_string())
            .env("CONFIRM", "yes")
            // As in the shell of somebody who works on another project.
            .env("COMPOSE_PROJECT_NAME", "somebody-elses")
            .stdin(Stdio::null());
        command
    }

    /// Runs the operator's CLI on the host.
    pub fn bailey(&self, args: &[&str]) -> anyhow::Result<Output> {
        Ok(self.cli(args)?.output()?)
    }

    /// Runs the CLI; it must succeed.
    pub fn bailey_ok(&self, args: &[&str]) -> anyhow::Result<String> {
        text(&self.bailey(args)?).with_context(|| format!("bailey {}", args.join(" ")))
    }

    /// Runs the CLI with something on its standard input.
    pub fn bailey_with(&self, args: &[&str], input: &str) -> anyhow::Result<Output> {
        let mut command = self.cli(args)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        match stdin.write_all(input.as_bytes()) {
            // What refuses at once does not read.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
            written => written?,
        }
        drop(stdin);
        Ok(child.wait_with_output()?)
    }

    /// The same; it must succeed.
    pub fn bailey_ok_with(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        text(&self.bailey_with(args, input)?).with_context(|| format!("bailey {}", args.join(" ")))
    }

    fn cli(&self, args: &[&str]) -> anyhow::Result<Command> {
        let binary = checkout().join("build/bin/bailey");
        let program = binary
            .to_str()
            .context("the checkout's path is not UTF-8")?;
        let mut command = self.command(program);
        command.arg("--home").arg(&self.home).args(args);
        Ok(command)
    }

    /// Runs `docker`; it must succeed.
    pub fn docker(&self, args: &[&str]) -> anyhow::Result<String> {
        text(&self.command("docker").args(args).output()?)
            .with_context(|| format!("docker {}", args.join(" ")))
    }

    /// Full ids of this stack's containers with the given label filters, stopped ones included.
    pub fn containers(&self, labels: &[&str]) -> anyhow::Result<Vec<String>> {
        let mut args = vec!["ps", "--all", "--quiet", "--no-trunc"];
        let filters: Vec<_> = labels
            .iter()
            .map(|label| format!("label={label}"))
            .collect();
        for filter in &filters {
            args.extend(["--filter", filter]);
        }
        Ok(self.docker(&args)?.lines().map(str::to_owned).collect())
    }

    /// The container of a compose service.
    pub fn service(&self, service: &str) -> anyhow::Result<String> {
        let (project, wanted) = (
            format!("com.docker.compose.project={}", self.project()),
            format!("com.docker.compose.service={service}"),
        );
        let mut found = self.containers(&[&project, &wanted])?;
        ensure!(found.len() == 1, "{service} has {} containers", found.len());
        found.pop().context("no container")
    }

    /// The compose project.
    pub fn project(&self) -> String {
        format!("bailey-{}", self.name)
    }

    /// The published port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The stack's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `docker inspect` of one container.
    pub fn inspect(&self, id: &str) -> anyhow::Result<Value> {
        let text = self.docker(&["inspect", "--type", "container", id])?;
        let mut all: Vec<Value> = serde_json::from_str(&text)?;
        all.pop().context("docker inspect answered nothing")
    }

    /// Cells of a plugin that exist now, those that wait for a call included.
    pub fn cells(&self, plugin: &str) -> anyhow::Result<Vec<String>> {
        let (stack, plugin) = (
            format!("bailey.stack={}", self.name),
            format!("bailey.plugin={plugin}"),
        );
        self.containers(&[&stack, "bailey.kind=cell", &plugin])
    }

    /// Cells of a plugin that wait for a call, started.
    pub fn cells_ready(&self, plugin: &str) -> anyhow::Result<Vec<String>> {
        let filters = [
            format!("label=bailey.stack={}", self.name),
            format!("label=bailey.plugin={plugin}"),
            "label=bailey.kind=cell".to_owned(),
            "label=bailey.pool".to_owned(),
        ];
        let mut args = vec!["ps", "--quiet", "--no-trunc"];
        for filter in &filters {
            args.extend(["--filter", filter]);
        }
        Ok(self.docker(&args)?.lines().map(str::to_owned).collect())
    }

    /// Waits until a plugin has no cell: one that has answered is removed beside the answer's way back.
    pub fn wait_no_cells(&self, plugin: &str) -> anyhow::Result<()> {
        let what = format!("the end of the cells of {plugin}");
        self.until(Duration::from_secs(15), &what, || {
            Ok(self.cells(plugin)?.is_empty().then_some(()))
        })
    }

    /// Kills a service as the kernel would when memory runs out. Docker restarts only what was not stopped by hand, so the process is killed, not the container.
    pub fn kill(&self, service: &str) -> anyhow::Result<()> {
        let id = self.service(service)?;
        let pid = self.inspect(&id)?["State"]["Pid"]
            .as_i64()
            .context("no pid")?;
        ensure!(pid > 1, "{service} does not run");
        let output = Command::new("kill")
            .args(["-KILL", &pid.to_string()])
            .output()?;
        text(&output).map(drop)
    }

    /// A client with the operator's token.
    pub fn client(&self) -> anyhow::Result<Client> {
        let token = std::fs::read_to_string(self.home.join("secrets/api.token"))
            .context("reading the API token")?;
        Client::new(&self.home.join("config/ca.pem"), self.port, token.trim())
    }

    /// The log's events of `types` after the one numbered `after`, as the stream of `GET /events` brings them within 2 s.
    pub fn events(&self, types: &str, after: &str) -> anyhow::Result<String> {
        let token = std::fs::read_to_string(self.home.join("secrets/api.token"))?;
        let output = Command::new("curl")
            .args(["--silent", "--max-time", "2", "--cacert"])
            .arg(self.home.join("config/ca.pem"))
            .args(["-H", &format!("Authorization: Bearer {}", token.trim())])
            .args(["-H", &format!("Last-Event-ID: {after}")])
            .arg(format!(
                "https://localhost:{}/events?types={types}",
                self.port
            ))
            .output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The audit log's own files, as an auditor would read them.
    pub fn audited(&self) -> anyhow::Result<String> {
        let copy = tempfile::tempdir()?;
        let from = format!("{}:/data", self.service("audit")?);
        self.docker(&["cp", &from, copy.path().to_str().context("path")?])?;
        let mut all = String::new();
        read_all(copy.path(), &mut all)?;
        Ok(all)
    }

    /// Waits until `/healthz` says that all is well.
    pub fn wait_ready(&self) -> anyhow::Result<()> {
        self.bailey_ok(&["status", "--wait=90s"]).map(drop)
    }

    /// Looks until `look` finds something, at most for `limit`.
    pub fn until<T>(
        &self,
        limit: Duration,
        what: &str,
        mut look: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!("{what} did not happen within {} s", limit.as_secs());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Appends all files of a folder and of those in it, as text: what is ASCII stays as it is.
pub fn read_all(dir: &Path, all: &mut String) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            read_all(&path, all)?;
        } else {
            all.push_str(&String::from_utf8_lossy(&std::fs::read(path)?));
        }
    }
    Ok(())
}

fn text(output: &Output) -> anyhow::Result<String> {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(output.status.success(), "{}\n{out}\n{err}", output.status);
    Ok(out.into_owned())
}
