//! Acts of the plugin `walls`: in a cell, and in containers of the test's own whose walls are a cell's less one.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use stack_tests::fixture::{call, observed, queued};
use stack_tests::{Stack, checkout};

/// What the act observed in a cell.
pub fn in_cell(stack: &Stack, act: &str, payload: &Value) -> anyhow::Result<Value> {
    in_cell_of(stack, "walls", act, payload)
}

/// What it observed in a cell of another name of the plugin.
pub fn in_cell_of(
    stack: &Stack,
    plugin: &str,
    act: &str,
    payload: &Value,
) -> anyhow::Result<Value> {
    observed(&call(&mut stack.client()?, plugin, act, payload)?)
}

/// A call that goes on while the test does something else.
pub struct Running {
    path: String,
}

impl Running {
    /// Starts it.
    pub fn start(stack: &Stack, plugin: &str, act: &str, payload: &Value) -> anyhow::Result<Self> {
        let id = queued(stack, plugin, act, payload)?;
        Ok(Self {
            path: format!("/job/{id}?wait=60s"),
        })
    }

    /// Its job when it is done.
    pub fn end(self, stack: &Stack) -> anyhow::Result<Value> {
        Ok(stack.client()?.get(&self.path)?.json)
    }
}

/// A container with a cell's walls; what a test changes of it is the wall that it takes away.
#[derive(Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a wall of its own, named where it is taken away"
)]
pub struct Control<'a> {
    /// `none`, a network, or `container:<id>`.
    pub network: &'a str,
    /// `uid:gid`.
    pub user: &'a str,
    /// None are left but these.
    pub capabilities: &'a [&'a str],
    /// Whether the seccomp profile of cells is in force.
    pub filtered: bool,
    /// Whether a program can give its process more than it has.
    pub new_privileges: bool,
    /// Whether the root file system may only be read.
    pub read_only: bool,
    /// Whether somebody reaps orphans.
    pub init: bool,
    /// Options of every tmpfs.
    pub tmpfs: &'a str,
    /// Bytes, as `docker run` takes it.
    pub memory: &'a str,
    /// Processes.
    pub pids: &'a str,
    /// The base image.
    pub image: &'a str,
    /// Options of `docker run` beside these.
    pub more: &'a [&'a str],
}

/// Every wall stands.
pub const CELL: Control<'static> = Control {
    network: "none",
    user: "29999:29999",
    capabilities: &[],
    filtered: true,
    new_privileges: false,
    read_only: true,
    init: true,
    tmpfs: "rw,noexec,nosuid,nodev,size=64m,nr_inodes=65536,mode=1777",
    memory: "256m",
    pids: "128",
    image: "python",
    more: &[],
};

impl Control<'_> {
    /// What the act observes there.
    pub fn observes(&self, stack: &Stack, act: &str, payload: &Value) -> anyhow::Result<Value> {
        self.start(stack, act, &json!({ "payload": payload }))?
            .end()
    }

    /// Starts the act there. `request` may hold more than the payload.
    pub fn start(&self, stack: &Stack, act: &str, request: &Value) -> anyhow::Result<Elsewhere> {
        let mut request = request.clone();
        request["command"] = json!(act);
        let name = format!("{}-control-{act}", stack.project());
        let mut command = self.command(stack, &name);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        stdin.write_all(request.to_string().as_bytes())?;
        Ok(Elsewhere { name, child })
    }

    fn command(&self, stack: &Stack, name: &str) -> Command {
        let mut command = stack.command("docker");
        command.args(["run", "--rm", "--interactive", "--pull", "never"]);
        command.args(["--name", name, "--network", self.network]);
        command.args(["--user", self.user, "--cap-drop", "ALL"]);
        for capability in self.capabilities {
            command.args(["--cap-add", capability]);
        }
        let profile = if self.filtered {
            profile(stack).display().to_string()
        } else {
            "unconfined".to_owned()
        };
        command.args(["--security-opt", &format!("seccomp={profile}")]);
        // Cells have the engine's default where the kernel knows AppArmor; here it would stand in for the wall that is taken away.
        command.args(["--security-opt", "apparmor=unconfined"]);
        if !self.new_privileges {
            command.args(["--security-opt", "no-new-privileges"]);
        }
        if self.read_only {
            command.arg("--read-only");
        }
        if self.init {
            command.arg("--init");
        }
        let given = |folder: &str| {
            self.more
                .iter()
                .any(|more| more.ends_with(&format!(":{folder}")))
        };
        for folder in ["/tmp", "/home/plugin"].into_iter().filter(|f| !given(f)) {
            command.args(["--tmpfs", &format!("{folder}:{}", self.tmpfs)]);
        }
        // Not HOME: runc gives a tmpfs the mode of the folder that the engine makes for a working directory.
        command.args(["--workdir", "/tmp", "--env", "HOME=/home/plugin"]);
        command.args(["--memory", self.memory, "--memory-swap", self.memory]);
        command.args(["--pids-limit", self.pids, "--shm-size", "16m"]);
        if !self.more.contains(&"--ulimit") {
            command.args(["--ulimit", "core=0", "--ulimit", "nofile=1024:4096"]);
        }
        let plugin = checkout().join("tests/fixtures/plugins/walls");
        command.args(["--volume", &format!("{}:/plugin:ro", plugin.display())]);
        command.args(self.more);
        command.args(["--entrypoint", "/usr/bin/python3"]);
        command.arg(format!("bailey/base-{}:current", self.image));
        command.args(["-B", "/plugin/run.py"]);
        command
    }
}

/// An act that goes on in a container of the test's own; the container is gone when this is.
pub struct Elsewhere {
    name: String,
    child: Child,
}

impl Elsewhere {
    /// The container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it observed.
    pub fn end(mut self) -> anyhow::Result<Value> {
        use std::io::Read as _;
        let (mut out, mut err) = (String::new(), String::new());
        self.child
            .stdout
            .take()
            .context("no stdout")?
            .read_to_string(&mut out)?;
        self.child
            .stderr
            .take()
            .context("no stderr")?
            .read_to_string(&mut err)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the control failed: {status}: {out}{err}");
        let answer: Value = serde_json::from_str(&out).with_context(|| format!("{out}{err}"))?;
        let text = answer["result"].as_str().context("no result")?;
        Ok(serde_json::from_str(text)?)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let ended = self.child.try_wait().is_ok_and(|status| status.is_some());
        if !ended {
            let removed = Command::new("docker")
                .args(["rm", "--force", &self.name])
                .output();
            if let Err(error) = removed.and_then(|_| self.child.wait()) {
                eprintln!("{} was not removed: {error}", self.name);
            }
        }
    }
}

fn profile(stack: &Stack) -> PathBuf {
    stack.home.join("seccomp.json")
}

/// Writes the profile of cells where controls find it.
pub fn prepare(stack: &Stack) -> anyhow::Result<()> {
    Ok(std::fs::write(
        profile(stack),
        bailey_cell::seccomp::profile_json(),
    )?)
}
