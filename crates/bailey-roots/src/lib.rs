#![doc = include_str!("../README.md")]

mod certificates;
mod files;
mod new_root;
mod owners;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bailey_trust::{SealError, SealingKey, SigningKey, SigningKeys, TrustFile};
use bailey_types::{Blake3, Clock, Service, StackId, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::RngCore as _;
use zeroize::Zeroizing;

use crate::files::{Draft, Mode};

pub use certificates::{INTERMEDIATE_VALIDITY, Intermediate, intermediate};
pub use files::{Survey, survey};
pub use new_root::{
    finish as finish_new_root, is_begun as is_new_root_begun, make as make_new_root,
};
pub use owners::{CLI_UID, own};

/// Why the roots of trust were not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something is there already; nothing was changed.
    #[error("these exist already, and roots of trust are never overwritten: {}", list(.0))]
    Exists(Vec<PathBuf>),
    /// Somebody else makes them right now.
    #[error("another run is making the roots of trust (it has locked {0})")]
    Busy(PathBuf),
    /// A file or folder could not be made, changed or removed.
    #[error("{doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate could not be made.
    #[error("making the certificate authority")]
    Certificate(#[source] rcgen::Error),
    /// A key could not be sealed.
    #[error("sealing the keys of the certificate authority")]
    Seal(#[source] SealError),
    /// The roots of trust that are to be changed are not all there.
    #[error("these are missing: {}; a new root is made only for a stack that has everything else", list(.0))]
    Missing(Vec<PathBuf>),
    /// What should take its place as a root of trust was put there by somebody else.
    #[error(
        "{0} was not made by `bailey pki new-root`: nothing was replaced by it; remove it, and see who put it there"
    )]
    Foreign(PathBuf),
    /// `trust.json` cannot be used.
    #[error(transparent)]
    Trust(#[from] bailey_trust::TrustFileError),
    /// `trust.json` could not be written as JSON.
    #[error("writing trust.json")]
    Json(#[source] serde_json::Error),
}

fn list(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Makes every root of trust of the stack `stack`: private parts in `secrets_dir`, public ones in `config_dir`. All or nothing.
pub fn make(stack: &StackId, config_dir: &Path, secrets_dir: &Path) -> Result<(), Error> {
    let lock = files::begin(config_dir, secrets_dir)?;
    // Everything is made in memory first, so that only the file system can fail once files are written.
    let drafts = drafts(stack, Clock::system().now())?;
    files::write(&lock, config_dir, secrets_dir, &drafts)
}

fn drafts(stack: &StackId, now: Timestamp) -> Result<Vec<Draft>, Error> {
    let vault = SealingKey::generate();
    let socket_proxy = SealingKey::generate();
    let authority = certificates::make(stack, now)?;
    let seal = |pem: &str| vault.recipient().seal(pem.as_bytes()).map_err(Error::Seal);

    let mut drafts = vec![
        Draft::secret("age.key", vault.to_file_text().as_bytes()),
        Draft::secret("root-ca.key.age", &seal(&authority.root_key)?),
        Draft::secret("intermediate.key.age", &seal(&authority.intermediate.key)?),
        Draft::secret(
            "intermediate.pem",
            authority.intermediate.certificate.as_bytes(),
        ),
        Draft::secret(
            "sealing-socket-proxy",
            socket_proxy.to_file_text().as_bytes(),
        ),
    ];
    let mut signing = |service: Service| {
        let key = SigningKey::generate();
        drafts.push(Draft::secret(
            &format!("signing-{service}"),
            key.to_file_text().as_bytes(),
        ));
        key.verifying_key()
    };
    let signing = SigningKeys {
        broker: signing(Service::Broker),
        policy: signing(Service::Policy),
        audit: signing(Service::Audit),
        scheduler: signing(Service::Scheduler),
    };
    let mut enrolment = BTreeMap::new();
    for service in Service::ALL {
        let mut secret = Zeroizing::new([0_u8; 32]);
        rand::rngs::OsRng.fill_bytes(&mut *secret);
        enrolment.insert(*service, Blake3(*blake3::hash(&*secret).as_bytes()));
        let text = Zeroizing::new(STANDARD.encode(*secret) + "\n");
        drafts.push(Draft::secret(
            &enrolment_secret_name(*service),
            text.as_bytes(),
        ));
    }
    drafts.push(Draft::public("ca.pem", authority.root.as_bytes()));
    let trust = TrustFile {
        version: 1,
        stack: stack.clone(),
        root_ca_pem: authority.root,
        signing,
        socket_proxy: socket_proxy.recipient(),
        vault: vault.recipient(),
        enrolment,
    };
    drafts.push(Draft::public("trust.json", &trust_text(&trust)?));
    Ok(drafts)
}

/// What stands in `trust.json`.
pub fn trust_text(trust: &TrustFile) -> Result<Vec<u8>, Error> {
    let mut text = serde_json::to_vec_pretty(trust).map_err(Error::Json)?;
    text.push(b'\n');
    Ok(text)
}

/// The name of the file with the enrolment secret of `service`: 32 bytes, base64, one line.
pub fn enrolment_secret_name(service: Service) -> String {
    format!("enroll-{service}")
}

/// Every file that [`make`] makes, with who may read it.
fn names() -> Vec<(String, Mode)> {
    let mut names: Vec<(String, Mode)> = [
        "age.key",
        "root-ca.key.age",
        "intermediate.key.age",
        "intermediate.pem",
        "sealing-socket-proxy",
    ]
    .into_iter()
    .map(|name| (name.to_owned(), Mode::Secret))
    .collect();
    let signers = [
        Service::Broker,
        Service::Policy,
        Service::Audit,
        Service::Scheduler,
    ];
    names.extend(
        signers
            .iter()
            .map(|service| (format!("signing-{service}"), Mode::Secret)),
    );
    names.extend(
        Service::ALL
            .iter()
            .map(|service| (enrolment_secret_name(*service), Mode::Secret)),
    );
    names.extend(["ca.pem", "trust.json"].map(|name| (name.to_owned(), Mode::Public)));
    names
}

#[cfg(test)]
mod tests;
