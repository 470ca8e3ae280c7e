//! One reader for each secret. Compose ignores owner and mode of file secrets, so the files themselves must have them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use bailey_types::Service;

use crate::files::failed;
use crate::{Error, enrolment_secret_name};

/// Uid of the Tailscale sidecar, which is not a service of ours.
const TAILSCALE_UID: u32 = 10011;

/// Gives every file that [`crate::make`] made (and `ts_authkey`, where there is one) its owner and mode. Needs root.
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
    Ok(())
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
    use crate::files::Mode;

    #[test]
    fn every_secret_that_is_made_has_one_owner() {
        let made: BTreeSet<_> = crate::names()
            .into_iter()
            .filter(|(_, mode)| *mode == Mode::Secret)
            .map(|(name, _)| name)
            .collect();
        let owned: BTreeSet<_> = secret_owners().into_iter().map(|(name, _)| name).collect();
        assert_eq!(made, owned);
    }
}
