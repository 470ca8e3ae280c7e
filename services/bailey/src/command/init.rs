//! `bailey init`: roots of trust and a starter configuration, where there are none.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown,
};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bailey_config::starter;
use bailey_roots::CLI_UID;

use crate::Misconfigured;
use crate::cli::InitArgs;
use crate::home::Home;
use crate::output::{Done, Out};

struct Init<'a> {
    config_dir: PathBuf,
    secrets_dir: PathBuf,
    args: &'a InitArgs,
    root: bool,
    out: &'a mut Out,
}

pub(super) fn run(home: &Home, args: &InitArgs, out: &mut Out) -> anyhow::Result<Done> {
    let config_dir = home.config_dir();
    let secrets_dir = args
        .secrets_dir
        .clone()
        .unwrap_or_else(|| home.secrets_dir());
    let root = is_root()?;
    if args.owner.is_some() && !root {
        return Err(
            Misconfigured("--owner needs root: only root may give files away".to_owned()).into(),
        );
    }
    let mut init = Init {
        config_dir,
        secrets_dir,
        args,
        root,
        out,
    };
    init.roots()?;
    init.starter()?;
    init.owners()?;
    Ok(Done::Well)
}

/// Files of this process belong to its uid; there is no safe call that asks for it.
pub(super) fn is_root() -> anyhow::Result<bool> {
    let mine = tempfile::tempfile().and_then(|file| file.metadata());
    Ok(mine.context("asking for the uid")?.uid() == 0)
}

impl Init<'_> {
    fn roots(&mut self) -> anyhow::Result<()> {
        let (config_dir, secrets_dir) = (&self.config_dir, &self.secrets_dir);
        if bailey_roots::finish_new_root(config_dir, secrets_dir)
            .context("finishing what `bailey pki new-root` began")?
        {
            self.out
                .line("roots of trust: a new root CA that was begun is in place now");
        }
        if bailey_roots::survey(config_dir, secrets_dir).is_complete() {
            self.out.line(format_args!(
                "roots of trust: were there ({})",
                secrets_dir.display()
            ));
            return Ok(());
        }
        if let Some(vault) = self
            .args
            .vault_dir
            .as_ref()
            .map(|dir| dir.join("vault.age"))
            .filter(|vault| vault.exists())
        {
            let why = format!(
                "{} exists, and only its own age key opens it: put the old secrets back, for a new key would lose what it holds; without them, but with a paper key, docs/how-to/recovery.md says how (\"The secrets are lost, the volumes are not\")",
                vault.display()
            );
            return Err(Misconfigured(why).into());
        }
        bailey_roots::make(&self.args.stack, config_dir, secrets_dir)
            .context("making the roots of trust")?;
        self.out.line(format_args!(
            "roots of trust: made for the stack {} ({})",
            self.args.stack,
            secrets_dir.display()
        ));
        Ok(())
    }

    /// The starter files, only where there is no configuration at all: next to one of the operator's own they would be lies.
    fn starter(&mut self) -> anyhow::Result<()> {
        if self.config_dir.join(bailey_config::ROOT).exists() {
            self.out.line(format_args!(
                "configuration: was there ({})",
                self.config_dir.display()
            ));
            return Ok(());
        }
        // The root file goes last: an interrupted run starts again.
        for (name, text) in starter::FILES.iter().rev() {
            let path = self.config_dir.join(name);
            if path.exists() {
                self.out
                    .line(format_args!("configuration: {name} was there"));
                continue;
            }
            write(&path, text).with_context(|| format!("writing {}", path.display()))?;
            if let Some((uid, gid)) = self.args.owner {
                chown(&path, Some(uid), Some(gid))
                    .with_context(|| format!("giving away {}", path.display()))?;
            }
            self.out.line(format_args!("configuration: made {name}"));
        }
        Ok(())
    }

    fn owners(&mut self) -> anyhow::Result<()> {
        let token_dir = self.secrets_dir.join("cli");
        match fs::DirBuilder::new().mode(0o700).create(&token_dir) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(e).with_context(|| format!("making {}", token_dir.display()));
            }
            _ => {}
        }
        if !self.root {
            self.out
                .line("owners: left as they are, because this is not run by root");
            return Ok(());
        }
        bailey_roots::own(&self.config_dir, &self.secrets_dir)
            .context("giving each secret to its reader")?;
        let (uid, gid) = self.args.owner.unwrap_or((0, 0));
        give(&token_dir, CLI_UID, CLI_UID, 0o700)?;
        give(&self.secrets_dir, uid, gid, 0o711)?;
        // Sticky: the CLI puts its lock here, but cannot replace what others own.
        give(&self.config_dir, uid, CLI_UID, 0o1775)?;
        self.out.line(format_args!(
            "owners: each secret has its one reader; the configuration is {uid}:{gid}'s"
        ));
        Ok(())
    }
}

fn give(path: &Path, uid: u32, gid: u32, mode: u32) -> anyhow::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| format!("setting the mode of {}", path.display()))?;
    chown(path, Some(uid), Some(gid)).with_context(|| format!("giving away {}", path.display()))
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
