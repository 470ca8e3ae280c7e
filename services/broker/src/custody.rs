//! What is done to the vault while the broker does not run: another age key, another admin token, a vault brought back from a copy.
//!
//! `bailey vault …` runs these verbs in the one-shot container `custody`, the only one that has the age key, the folder of all secrets and
//! the vault at once. Each verb takes the vault's folder as the broker does, so neither runs beside the other; each can be run again after
//! it was interrupted, and until it is, one of the keys at hand opens the vault.

mod admin;
mod adopt;
mod compared;
mod restore;
mod rotate;

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, ensure};
use bailey_error::Chain;
use bailey_service::Misconfigured;
use bailey_trust::{SealingKey, SealingRecipient, TrustFile};
use bailey_types::{Clock, Sha256};
use clap::{Parser, Subcommand};
use zeroize::Zeroizing;

use crate::age_key;
use crate::durable::Exclusive;
use crate::vault::Document;
use crate::vault::content::{self, Author};
use crate::vault::file::{FileError, VaultFile};

/// What to do where there is no vault, which may be one that was lost.
pub const NO_VAULT: &str = "there is no vault: if there was one, restore a copy of it (`bailey vault restore COPY`); in a new stack, `bailey vault init` makes one";

/// Does what must not be done while the broker runs.
#[derive(Debug, Parser)]
#[command(name = "broker custody")]
struct Cli {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    verb: Verb,
}

/// Where the roots of trust and the vault are.
#[derive(Clone, Debug, clap::Args)]
pub struct Places {
    /// Folder with trust.json
    #[arg(long, default_value = "/config", value_name = "DIR")]
    pub config_dir: PathBuf,
    /// Folder with age.key and the other secrets
    #[arg(long, default_value = "/secrets", value_name = "DIR")]
    pub secrets_dir: PathBuf,
    /// Folder with vault.age
    #[arg(long, default_value = "/data", value_name = "DIR")]
    pub vault_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Replace the age key by a new one; the old one opens nothing of the stack afterwards
    RotateKey,
    /// Replace the admin token; the new one is in secrets/cli/admin.token afterwards
    RotateAdminToken,
    /// Make the copy of a vault this stack's vault. Standard input: one line with the age identity that opens it (empty: the stack's own), then the copy
    Restore {
        /// In place of the vault that is there
        #[arg(long)]
        replace: bool,
        /// Do it; without this flag it is only said what would be
        #[arg(long)]
        yes: bool,
    },
    /// Take over a vault that does not say who wrote it
    Adopt {
        /// Do it; without this flag it is only said what would be
        #[arg(long)]
        yes: bool,
        /// Only if the file is the one that has this hash: the preview says it
        #[arg(long, value_name = "SHA256")]
        expect: Option<Sha256>,
    },
}

/// Runs one verb; `args` are those after `custody`.
pub fn main(args: impl IntoIterator<Item = std::ffi::OsString>) -> ExitCode {
    let name = std::ffi::OsString::from("broker custody");
    let cli = match Cli::try_parse_from(std::iter::once(name).chain(args)) {
        Ok(cli) => cli,
        Err(e) => {
            // A closed pipe is no reason to complain.
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { 78 } else { 0 });
        }
    };
    match run(&cli.places, &cli.verb) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("bailey: {}", Chain(e.as_ref()));
            let misconfigured = e.chain().any(<dyn std::error::Error>::is::<Misconfigured>);
            ExitCode::from(if misconfigured { 78 } else { 1 })
        }
    }
}

fn run(places: &Places, verb: &Verb) -> anyhow::Result<String> {
    let now = Clock::system().now();
    let mut custody = Custody::take(places)?;
    match verb {
        Verb::RotateKey => rotate::run(&mut custody, now),
        Verb::RotateAdminToken => admin::run(&mut custody, now),
        Verb::Adopt { yes, expect } => adopt::run(&mut custody, Consent::of(*yes), *expect, now),
        Verb::Restore { replace, yes } => {
            let mut input = Zeroizing::new(Vec::with_capacity(restore::INPUT_LIMIT_BYTES + 1));
            std::io::stdin()
                .take(restore::INPUT_LIMIT_BYTES as u64 + 1)
                .read_to_end(&mut input)
                .context("reading standard input")?;
            let consent = Consent::of(*yes);
            restore::run(&mut custody, &input, *replace, consent, now)
        }
    }
}

/// Whether somebody was told what a verb will do, and agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consent {
    /// It is only said.
    Asked,
    /// It is done.
    Given,
}

impl Consent {
    fn of(yes: bool) -> Self {
        if yes { Self::Given } else { Self::Asked }
    }
}

/// The vault and the secrets, held by this process and no other.
struct Custody {
    places: Places,
    trust: TrustFile,
    file: VaultFile,
    /// The encrypted vault, if there is one.
    blob: Option<Vec<u8>>,
    /// As `bailey init` does, so that neither runs beside the other.
    _secrets: Exclusive,
}

impl Custody {
    fn take(places: &Places) -> anyhow::Result<Self> {
        let trust = TrustFile::read(&places.config_dir.join("trust.json"))
            .map_err(|e| Misconfigured(Chain(&e).to_string()))?;
        let dir = &places.secrets_dir;
        let secrets = File::open(dir).with_context(|| format!("opening {}", dir.display()))?;
        let busy = || anyhow!("another process changes {} right now", dir.display());
        let secrets = Exclusive::take(secrets).map_err(|_| busy())?;
        ensure!(
            !bailey_roots::is_new_root_begun(dir),
            Misconfigured(
                "a new root CA was begun (`bailey pki new-root`), and its files are sealed to the key of now: finish it with `make up`, then stop the broker again"
                    .into()
            )
        );
        same_owner(&dir.join("age.key"), &places.vault_dir)?;
        let mut file = VaultFile::open(&places.vault_dir).map_err(|e| match e {
            FileError::TwoWriters(_) => anyhow::Error::new(Misconfigured(
                "the broker runs, and this must not be done under it: stop it first (`docker compose stop broker`)".into(),
            )),
            FileError::ChangedOutside(_)
            | FileError::TooLarge { .. }
            | FileError::NoFile(_)
            | FileError::Io(_) => e.into(),
        })?;
        let blob = file.read()?;
        Ok(Self {
            places: places.clone(),
            trust,
            file,
            blob,
            _secrets: secrets,
        })
    }

    fn secret(&self, name: &str) -> PathBuf {
        self.places.secrets_dir.join(name)
    }

    /// The key in a file of the secrets' folder, whoever's it is: this process is not the broker.
    fn key(path: &Path) -> anyhow::Result<SealingKey> {
        age_key::read_private(path, |_| Ok(())).map_err(|reason| Misconfigured(reason).into())
    }

    /// The stack's own key, which must be the one that `trust.json` names, and no rotation may be under way.
    fn own_key(&self) -> anyhow::Result<SealingKey> {
        let next = self.secret(rotate::NEXT);
        ensure!(
            !next.exists(),
            Misconfigured(format!(
                "{} is there: a rotation of the age key was interrupted; finish it with `bailey vault rotate-key`",
                next.display()
            ))
        );
        let key = Self::key(&self.secret("age.key"))?;
        ensure!(key.recipient() == self.trust.vault, self.another_key());
        Ok(key)
    }

    fn another_key(&self) -> Misconfigured {
        Misconfigured(format!(
            "{} is another key than the one that this stack was made with ({})",
            self.secret("age.key").display(),
            self.trust.vault
        ))
    }

    /// What the vault holds, opened with whichever of `keys` opens it.
    fn document(&self, keys: &[&SealingKey]) -> anyhow::Result<Option<Document>> {
        let Some(blob) = &self.blob else {
            return Ok(None);
        };
        let mut reason = String::new();
        for key in keys {
            match content::open(blob, key) {
                Ok(document) => {
                    content::check_stack(&document, &self.trust.stack).map_err(Misconfigured)?;
                    return Ok(Some(document));
                }
                Err(why) => reason = why,
            }
        }
        Err(Misconfigured(format!("vault.age cannot be used: {reason}")).into())
    }

    /// Encrypts `document` to `own` and its recipients, and writes it once every one of `keys` was seen to open it.
    fn save(
        &mut self,
        document: &Document,
        own: &[SealingRecipient],
        keys: &[&SealingKey],
    ) -> anyhow::Result<()> {
        let authors: Vec<_> = keys.iter().map(|key| Author::of(key)).collect();
        let sealed =
            content::seal_to_all(document, own, &authors).context("encrypting the vault")?;
        for key in keys {
            let read = content::open(&sealed, key);
            ensure!(
                read.is_ok_and(|read| read == *document),
                "the vault as it would be written cannot be read back; nothing was changed"
            );
        }
        self.file.write(&sealed)?;
        self.blob = Some(sealed);
        Ok(())
    }
}

/// What is written into the vault's folder belongs to whom that belongs: it must be the broker, as it is once the broker was made.
fn same_owner(key: &Path, vault_dir: &Path) -> anyhow::Result<()> {
    let owner = |path: &Path| {
        let metadata = std::fs::metadata(path);
        metadata
            .map(|metadata| metadata.uid())
            .map_err(|e| Misconfigured(format!("{} cannot be looked at: {e}", path.display())))
    };
    let (broker, found) = (owner(key)?, owner(vault_dir)?);
    ensure!(
        broker == found,
        Misconfigured(format!(
            "{} belongs to uid {found} and the broker's key to uid {broker}: start the stack once before (make up)",
            vault_dir.display()
        ))
    );
    Ok(())
}

fn no_vault() -> Misconfigured {
    Misconfigured(NO_VAULT.into())
}

#[cfg(test)]
mod tests;
