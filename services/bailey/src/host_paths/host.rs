//! What of the host is never given away: the stack's own folders, the engine's, the kernel's.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use bailey_config::Account;
use bailey_config::account::overlap;
use bailey_types::AccountName;

use super::Found;
use crate::Misconfigured;
use crate::home::Home;

/// The engine's socket, where `.env` names no other.
const SOCKET: &str = "/var/run/docker.sock";

/// What belongs to the kernel, to the engine, or to whoever waits at a socket there.
const SYSTEM: [(&str, &str); 7] = [
    ("/proc", "the kernel's"),
    ("/sys", "the kernel's"),
    ("/dev", "the kernel's"),
    ("/run", "where services have their sockets"),
    ("/var/run", "where services have their sockets"),
    ("/var/lib/docker", "the Docker Engine's"),
    ("/var/lib/containerd", "the Docker Engine's"),
];

/// What is not to be given away.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    own: Vec<Own>,
    /// Uid and gid of the engine's socket.
    socket: Option<(u32, u32)>,
}

#[derive(Clone, Debug)]
struct Own {
    path: PathBuf,
    /// The same without links, as far as it can be looked at.
    real: PathBuf,
    whose: String,
    /// None: there is no such place on this host.
    found: Option<Found>,
    /// The folders that it lies in.
    around: Vec<Found>,
}

impl Own {
    fn new(path: PathBuf, whose: String) -> Self {
        let real = real(&path);
        let found = |path: &Path| fs::symlink_metadata(path).ok().as_ref().map(Found::of);
        Self {
            found: found(&real),
            around: real.ancestors().skip(1).filter_map(found).collect(),
            path,
            real,
            whose,
        }
    }

    /// By its name, or by what it is under whatever name.
    fn touches(&self, path: &Path, ancestry: &[Found]) -> bool {
        let lies_in = self.found.is_some_and(|found| ancestry.contains(&found));
        let itself = ancestry.first();
        lies_in
            || itself.is_some_and(|found| self.around.contains(found))
            || overlap(path, &self.path)
            || overlap(path, &self.real)
    }
}

impl Host {
    /// The host of this stack.
    pub(crate) fn of(home: &Home) -> anyhow::Result<Self> {
        let socket = home
            .setting("DOCKER_SOCKET")
            .unwrap_or_else(|| SOCKET.to_owned());
        let socket = PathBuf::from(socket);
        let metadata = fs::metadata(&socket)
            .with_context(|| format!("looking at the engine's socket {}", socket.display()))?;
        let exe = std::env::current_exe().context("asking where this program lies")?;
        let stack = stack(home, &exe)?.into_iter();
        let mut own: Vec<_> = stack
            .map(|path| (path, "this stack's".to_owned()))
            .collect();
        for path in [engine_root(&socket)?, socket] {
            own.push((path, "the Docker Engine's".to_owned()));
        }
        Ok(Self::new(own, Some((metadata.uid(), metadata.gid()))))
    }

    pub(super) fn new(own: Vec<(PathBuf, String)>, socket: Option<(u32, u32)>) -> Self {
        let system = SYSTEM.map(|(path, whose)| (path.into(), whose.to_owned()));
        let own = own.into_iter().chain(system);
        Self {
            own: own.map(|(path, whose)| Own::new(path, whose)).collect(),
            socket,
        }
    }

    /// Refuses a path that is, holds or lies in what is not to be given away, by its name or by what it is: `ancestry` is what it is itself,
    /// and then the places that it lies in.
    pub(super) fn check(&self, path: &Path, ancestry: &[Found]) -> Result<(), String> {
        let mut own = self.own.iter();
        match own.find(|own| own.touches(path, ancestry)) {
            None => Ok(()),
            Some(own) => Err(format!(
                "{} is, holds or lies in {}, which is {}",
                path.display(),
                own.path.display(),
                own.whose
            )),
        }
    }

    /// Refuses a folder that was found in a path when it is itself what is not to be given away: a mount shows it there under another name.
    pub(super) fn check_inside(&self, folder: &Path, found: Found) -> Result<(), String> {
        let mut own = self.own.iter();
        match own.find(|own| own.found == Some(found)) {
            None => Ok(()),
            Some(own) => Err(format!(
                "{} is {}, which is {}",
                folder.display(),
                own.path.display(),
                own.whose
            )),
        }
    }

    /// Whoever has the identity of the engine's socket owns the host.
    pub(super) fn identity_problem(&self, name: &AccountName, account: &Account) -> Option<String> {
        let (ids, (uid, gid)) = (account.ids?, self.socket?);
        let (what, id) = if ids.gid == gid {
            ("gid", gid)
        } else if ids.uid == uid {
            ("uid", uid)
        } else {
            return None;
        };
        Some(format!(
            "the account {name}: {what} {id} is that of the Docker socket: whoever has it has the host"
        ))
    }
}

/// The places of the stack: its folder, what its folder may only link to, and the checkouts that compose and this program come from.
pub(super) fn stack(home: &Home, exe: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut places = vec![home.dir().to_owned(), home.config_dir(), home.secrets_dir()];
    let file = home.compose_file();
    places.extend(file.as_deref().and_then(Path::parent).map(|folder| {
        if folder.as_os_str().is_empty() {
            PathBuf::from(".")
        } else {
            folder.to_owned()
        }
    }));
    for place in &places {
        // What must be there is looked at for certain.
        fs::metadata(place).with_context(|| format!("looking at {}", place.display()))?;
    }
    // Another checkout than the one of the compose file makes the images all the same: `build/bin/bailey` lies three folders deep.
    let checkout = exe.ancestors().skip(1).take(4);
    places.extend(
        checkout
            .filter(|folder| folder.join("compose.yaml").is_file())
            .map(Path::to_owned),
    );
    let roots = home.dir().join(Home::PLUGINS_OUTSIDE);
    let unread = || format!("looking at {}", roots.display());
    match fs::read_dir(&roots) {
        Ok(entries) => {
            for entry in entries {
                places.push(entry.with_context(unread)?.path());
            }
            places.push(roots);
        }
        // Nothing was staged yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(unread),
    }
    Ok(places)
}

/// A path without links. Of what does not exist, or lies where nobody may look, the part that can be looked at.
fn real(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let known = absolute.ancestors().find_map(|part| {
        let rest = absolute.strip_prefix(part).ok()?;
        Some(fs::canonicalize(part).ok()?.join(rest))
    });
    known.unwrap_or(absolute)
}

/// Where the engine keeps images and volumes, as it says itself.
fn engine_root(socket: &Path) -> anyhow::Result<PathBuf> {
    let output = Command::new("docker")
        .args(["info", "--format", "{{.DockerRootDir}}"])
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .stdin(Stdio::null())
        .output()
        .context("asking docker where it keeps its data")?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(
        output.status.success() && said.starts_with('/'),
        Misconfigured(format!(
            "docker does not say where it keeps its data: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    );
    Ok(PathBuf::from(said))
}
