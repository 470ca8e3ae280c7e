//! One reader for each secret. Compose ignores owner and mode of file secrets, so the files themselves must have them.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, fchown};
use std::path::Path;

use bailey_types::Service;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::files::failed;
use crate::{Error, enrolment_secret_name};

/// Uid and gid of the container `cli`: it writes the lock into the folder of the configuration, and keeps the admin token.
pub const CLI_UID: u32 = 10012;

/// Uid of the Tailscale sidecar, which is not a service of ours.
const TAILSCALE_UID: u32 = 10011;

/// Gives every file that [`crate::make`] made (and, where there is one, `ts_authkey`, the admin token and the lock) its owner and mode. Needs root.
pub fn own(config_dir: &Path, secrets_dir: &Path) -> Result<(), Error> {
    for (name, uid) in secret_owners() {
        give(&secrets_dir.join(name), uid, 0o400)?;
    }
    let key = secrets_dir.join("ts_authkey");
    if key.exists() {
        give(&key, TAILSCALE_UID, 0o400)?;
    }
    for name in ["ca.pem", "trust.json"] {
        give(&config_dir.join(name), 0, 0o444)?;
    }
    give_its_own(&secrets_dir.join("cli/admin.token"), 0o400)?;
    give_its_own(&config_dir.join("bailey.lock"), 0o644)
}

fn secret_owners() -> Vec<(String, u32)> {
    let mut owners = vec![
        ("age.key".to_owned(), Service::Broker.uid()),
        // Opened only while a new intermediate is made.
        ("root-ca.key.age".to_owned(), Service::Broker.uid()),
        ("intermediate.key.age".to_owned(), Service::Broker.uid()),
        ("intermediate.pem".to_owned(), Service::Broker.uid()),
        (
            "sealing-socket-proxy".to_owned(),
            Service::SocketProxy.uid(),
        ),
    ];
    let signers = [
        Service::Broker,
        Service::Policy,
        Service::Audit,
        Service::Scheduler,
    ];
    owners.extend(
        signers
            .iter()
            .map(|service| (format!("signing-{service}"), service.uid())),
    );
    owners.extend(
        Service::ALL
            .iter()
            .map(|service| (enrolment_secret_name(*service), service.uid())),
    );
    owners
}

/// What the container `cli` made, if it is there. It could have put anything in its place: only a file that has no other name is given to it.
fn give_its_own(path: &Path, mode: u32) -> Result<(), Error> {
    let doing = "setting owner and mode of";
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let foreign = || {
        failed(doing, path)(io::Error::other(
            "it is not a file of its own: remove it (a lock is made anew by `bailey plugin lock --all`, an admin token by `bailey vault rotate-admin-token`)",
        ))
    };
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::LOOP) => return Err(foreign()),
        Err(e) => return Err(failed(doing, path)(e.into())),
    };
    let metadata = file.metadata().map_err(failed(doing, path))?;
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(foreign());
    }
    file.set_permissions(Permissions::from_mode(mode))
        .and_then(|()| fchown(&file, Some(CLI_UID), Some(CLI_UID)))
        .map_err(failed(doing, path))
}

fn give(path: &Path, uid: u32, mode: u32) -> Result<(), Error> {
    // The mode first: at no moment may a new owner's group read it.
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(failed("setting the mode of", path))?;
    chown(path, Some(uid), Some(uid)).map_err(failed("setting the owner of", path))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::files::Mode as Kept;

    #[test]
    fn every_secret_that_is_made_has_one_owner() {
        let made: BTreeSet<_> = crate::names()
            .into_iter()
            .filter(|(_, mode)| *mode == Kept::Secret)
            .map(|(name, _)| name)
            .collect();
        let owned: BTreeSet<_> = secret_owners().into_iter().map(|(name, _)| name).collect();
        assert_eq!(made, owned);
    }
}
