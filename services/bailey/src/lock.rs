//! `bailey plugin lock` and `bailey config lock`: first a preview with a code, then the signature on exactly what was previewed.
//!
//! Whatever could make a difference between the two is kept by the broker under the code: committing needs neither files nor seals.

mod derived;
mod engine;
mod plan;
mod present;
mod preview;
mod seal;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use bailey_proto::management::v1::lock_service_client::LockServiceClient;
use bailey_proto::management::v1::{ProposeRequest, SignRequest};
use bailey_trust::{Lock, LockProposal, ProposedPlugin, TrustFile};
use bailey_types::PluginName;
use tonic::transport::Channel;

use crate::Misconfigured;
use crate::cli::{ConfigLockArgs, LockArgs};
use crate::home::Home;
use crate::host_paths::Resolved;
use crate::lock::derived::Terms;
use crate::lock::preview::Preview;
use crate::manage::{self, Admin, refused};
use crate::output::{Done, Out};
use crate::rated::{Grants, Rated};

pub(crate) use present::read as present;
pub(crate) use preview::shown;

pub(crate) async fn plugins(home: &Home, args: LockArgs, out: &mut Out) -> anyhow::Result<Done> {
    let (only, code) = if args.all {
        (None, args.first)
    } else {
        (args.first, args.second)
    };
    let only: Option<PluginName> = only
        .map(|name| name.parse())
        .transpose()
        .map_err(|e| Misconfigured(format!("{e}")))?;
    let session = Session::open(home).await?;
    if let Some(code) = code {
        return session.commit(&code, out).await;
    }
    let present = present::read(home, &session.trust)?;
    let reset_state: BTreeSet<_> = args.reset_state.into_iter().collect();
    let mut sealer = seal::Sealer::connect(home).await?;
    let proposal = match &only {
        None => {
            let files = bailey_config::read_dir(&home.config_dir())?.texts;
            let terms = terms(home, &files, args.host_paths, reset_state).await?;
            plan::all(files, present.as_ref(), &terms, &mut sealer).await?
        }
        Some(name) => {
            let present = present.as_ref().ok_or_else(nothing_locked)?;
            let terms = terms(home, &present.config_files, args.host_paths, reset_state).await?;
            plan::one(name, present, &terms, &mut sealer).await?
        }
    };
    let again = only.map_or_else(
        || "bailey plugin lock --all".to_owned(),
        |name| format!("bailey plugin lock {name}"),
    );
    session
        .propose(proposal, present.as_ref(), args.yes, &again, out)
        .await
}

pub(crate) async fn config(
    home: &Home,
    args: ConfigLockArgs,
    out: &mut Out,
) -> anyhow::Result<Done> {
    let session = Session::open(home).await?;
    if let Some(code) = args.code {
        return session.commit(&code, out).await;
    }
    let present = present::read(home, &session.trust)?.ok_or_else(nothing_locked)?;
    let files = bailey_config::read_dir(&home.config_dir())?.texts;
    let terms = terms(home, &files, args.host_paths, BTreeSet::new()).await?;
    let proposal = plan::config_only(files, &present, &terms)?;
    session
        .propose(
            proposal,
            Some(&present),
            args.yes,
            "bailey config lock",
            out,
        )
        .await
}

fn nothing_locked() -> Misconfigured {
    Misconfigured("nothing is locked yet: run `bailey plugin lock --all`".to_owned())
}

/// What beside the files decides what is proposed.
async fn terms(
    home: &Home,
    files: &BTreeMap<String, String>,
    host_paths: Option<Resolved>,
    reset_state: BTreeSet<PluginName>,
) -> anyhow::Result<Terms> {
    let config = bailey_config::parse(files)?;
    Ok(Terms {
        host_paths,
        runtimes: engine::runtimes(home, &config).await?,
        reset_state,
    })
}

/// What a lock is made with.
struct Session<'a> {
    home: &'a Home,
    trust: TrustFile,
    admin: Admin,
    broker: LockServiceClient<Channel>,
}

impl<'a> Session<'a> {
    async fn open(home: &'a Home) -> anyhow::Result<Self> {
        let trust = TrustFile::read(&home.trust_file())?;
        let admin = Admin::read(home.admin_token_file())?;
        let broker = LockServiceClient::new(manage::connect(home, "broker").await?)
            .max_decoding_message_size(manage::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(manage::MAX_MESSAGE_BYTES);
        Ok(Self {
            home,
            trust,
            admin,
            broker,
        })
    }

    async fn propose(
        mut self,
        proposal: LockProposal,
        present: Option<&Lock>,
        commit: bool,
        again: &str,
        out: &mut Out,
    ) -> anyhow::Result<Done> {
        let text = serde_json::to_vec(&proposal)?;
        let answer = self
            .broker
            .propose(self.admin.request(ProposeRequest {
                proposal: text.into(),
            }))
            .await;
        let answer = answer.map_err(refused("broker"))?.into_inner();
        let lock: Lock =
            serde_json::from_slice(&answer.lock).context("reading the broker's preview")?;
        check_same(&proposal, &lock)?;
        let grants = Grants::ask(self.home, &self.admin).await?;
        let before = present.map(|present| Rated::of(present, &grants));
        let preview = Preview::of(before.as_ref(), &Rated::of(&lock, &grants), answer.missing);
        if self.home.json() {
            out.json(&preview.to_json(&answer.code))?;
        } else {
            preview.show(out);
        }
        if preview.is_empty() {
            return Ok(Done::Well);
        }
        if commit {
            return self.commit(&answer.code, out).await;
        }
        if !self.home.json() {
            out.line(format_args!(
                "\nNothing has changed yet. If this is what you want:\n  {again} {}",
                answer.code
            ));
        }
        Ok(Done::Well)
    }

    async fn commit(mut self, code: &str, out: &mut Out) -> anyhow::Result<Done> {
        let request = SignRequest {
            code: code.to_owned(),
        };
        let signed = self
            .broker
            .sign(self.admin.request(request))
            .await
            .map_err(refused("broker"))?
            .into_inner()
            .lock;
        let signed = signed.context("the broker answered without a lock")?;
        let lock = bailey_trust::verify::<Lock>(&signed, &self.trust.signing.broker)
            .context("checking the broker's signature")?
            .statement;
        ensure!(
            lock.stack == self.trust.stack,
            "the broker signed a lock for the stack {}, this is {}",
            lock.stack,
            self.trust.stack
        );
        write(
            &self.home.lock_file(),
            &bailey_trust::source::to_file_text(&signed),
        )?;
        if !self.home.json() {
            out.line(format_args!(
                "Locked: serial {}, {} plugins.",
                lock.serial,
                lock.plugins.len()
            ));
        }
        engine::tidy(self.home).await;
        Ok(Done::Well)
    }
}

/// The broker fills in serial, uids, MACs and the generation of the state, which `reset_state` raises; everything else it must leave as it was.
fn check_same(proposal: &LockProposal, lock: &Lock) -> anyhow::Result<()> {
    let same_files = proposal.config_files == lock.config_files;
    let same_names = proposal.plugins.keys().eq(lock.plugins.keys());
    let same = proposal.plugins.iter().all(|(name, plugin)| {
        lock.plugins
            .get(name)
            .is_some_and(|locked| kept(&locked.proposed) == kept(plugin))
    });
    if same_files && same_names && same {
        return Ok(());
    }
    bail!("the broker's preview is not what was proposed; nothing was signed")
}

fn kept(plugin: &ProposedPlugin) -> ProposedPlugin {
    ProposedPlugin {
        reset_state: false,
        ..plugin.clone()
    }
}

/// Replaces the lock, so that a reader finds the old one or the new one and never a part.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let dir = path.parent().context("the lock has no folder")?;
    let written = tempfile::Builder::new()
        .prefix(".bailey.lock")
        .tempfile_in(dir)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            // Every service reads it.
            file.as_file()
                .set_permissions(std::fs::Permissions::from_mode(0o644))?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|e| e.error)?;
            std::fs::File::open(dir)?.sync_all()
        });
    written.with_context(|| format!("writing {}", path.display()))
}
