//! The settings of the Docker Engine, those of them that it takes up while it runs.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Map, Value};

const FILE: &str = "/etc/docker/daemon.json";
const PID: &str = "/var/run/docker.pid";

/// A setting beside those that are there, until this is dropped.
pub struct Setting {
    key: &'static str,
    /// What it is where nobody sets it: an engine keeps what it had when a key is merely gone.
    unset: Value,
    before: Option<String>,
}

impl Setting {
    /// Sets it, and has the engine take it up.
    pub fn new(key: &'static str, value: Value, unset: Value) -> anyhow::Result<Self> {
        let before = match fs::read_to_string(FILE) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).context(FILE),
        };
        let setting = Self { key, unset, before };
        setting.put(value)?;
        Ok(setting)
    }

    fn put(&self, value: Value) -> anyhow::Result<()> {
        let mut all: Map<String, Value> = match &self.before {
            Some(text) => serde_json::from_str(text).context(FILE)?,
            None => Map::new(),
        };
        all.insert(self.key.to_owned(), value);
        fs::create_dir_all(Path::new(FILE).parent().context(FILE)?)?;
        fs::write(FILE, Value::Object(all).to_string())?;
        let sent = SystemTime::now().duration_since(UNIX_EPOCH)?;
        signal("HUP")?;
        await_reload(sent)
    }

    fn restore(&self) -> anyhow::Result<()> {
        self.put(self.unset.clone())?;
        match &self.before {
            Some(text) => fs::write(FILE, text)?,
            None => fs::remove_file(FILE)?,
        }
        Ok(())
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if let Err(error) = self.restore() {
            eprintln!("{FILE} is left changed: {error:#}");
        }
    }
}

/// Waits until the engine says that it has read its settings.
fn await_reload(since: Duration) -> anyhow::Result<()> {
    let seconds = |time: Duration| format!("{}.{:09}", time.as_secs(), time.subsec_nanos());
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        let until = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let mut events = Command::new("docker");
        events.args([
            "events",
            "--filter",
            "type=daemon",
            "--filter",
            "event=reload",
        ]);
        events.args(["--since", &seconds(since), "--until", &seconds(until)]);
        if !events.output()?.stdout.is_empty() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("the engine has not read {FILE}")
}

/// The engine's process.
pub fn pid() -> anyhow::Result<String> {
    Ok(fs::read_to_string(PID).context(PID)?.trim().to_owned())
}

/// Sends the engine a signal.
pub fn signal(name: &str) -> anyhow::Result<()> {
    let sent = Command::new("kill").args(["-s", name, &pid()?]).status()?;
    ensure!(sent.success(), "the engine was not sent {name}");
    Ok(())
}
