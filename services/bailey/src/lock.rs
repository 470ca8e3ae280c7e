//! `bailey plugin lock` and `bailey config lock`: first a preview with a code, then the signature on exactly what was previewed.
//!
//! Whatever could make a difference between the two is kept by the broker under the code: committing needs neither files nor seals.

mod derived;
mod engine;
mod place;
mod plan;
mod present;
mod preview;
mod seal;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bailey_proto::management::v1::lock_service_client::LockServiceClient;
use bailey_proto::management::v1::{
    AwaitLockRequest, AwaitLockResponse, ProposeRequest, SignRequest,
};
use bailey_trust::{Lock, LockProposal, ProposedPlugin, TrustFile};
use bailey_types::{PluginName, Serial};
use tonic::transport::Channel;

use crate::Misconfigured;
use crate::cli::{ConfigLockArgs, LockArgs};
use crate::home::Home;
use crate::host_paths::Resolved;
use crate::lock::derived::Terms;
use crate::lock::place::Place;
use crate::lock::preview::Preview;
use crate::manage::{self, Admin, refused};
use crate::output::{Done, Out, count, plain};
use crate::rated::{Grants, Rated};

pub(crate) use present::read as present;
pub(crate) use preview::shown;

/// How long a lock may take to be in force before it is said what is waited for, and how long after that.
const QUIET_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(13);

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
        let vault = (Serial(answer.known_serial), answer.missing);
        let preview = Preview::of(before.as_ref(), &Rated::of(&lock, &grants), vault);
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
        let place = Place::tried(&self.home.lock_file())?;
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
        place
            .put(&bailey_trust::source::to_file_text(&signed))
            .with_context(|| {
                format!(
                    "lock {} is signed, but not written, and until a lock is that is not earlier no job starts: mend what is said here, then run the same again without a code; what is the same is signed anew",
                    lock.serial
                )
            })?;
        let taken = self.taken(lock.serial).await;
        if !self.home.json() {
            let plugins = count(lock.plugins.len(), "plugin");
            let in_force = if taken == Taken::InForce {
                " It is in force."
            } else {
                ""
            };
            out.line(format_args!(
                "Locked: serial {}, {plugins}.{in_force}",
                lock.serial
            ));
        }
        engine::tidy(self.home).await;
        Ok(match taken {
            Taken::InForce | Taken::Unsaid => Done::Well,
            Taken::Not => Done::Badly,
        })
    }

    /// Waits until the lock is what those go by who follow it: whoever asks afterwards is not told of the one before.
    async fn taken(&mut self, serial: Serial) -> Taken {
        let (mut behind, mut unheard) = (Vec::new(), Vec::new());
        for wait in [QUIET_WAIT, LONGEST_WAIT] {
            let answer = match self.ask_taken(serial, wait).await {
                Ok(answer) => answer,
                Err(e) => {
                    eprintln!(
                        "! the lock {serial} is signed and in its place; whether the services have taken it could not be asked ({e:#}): `bailey status` says"
                    );
                    return Taken::Not;
                }
            };
            (behind, unheard) = (names(&answer.behind), names(&answer.unheard));
            if behind.is_empty() && unheard.is_empty() {
                return Taken::InForce;
            }
            if wait == QUIET_WAIT {
                let who = [&behind[..], &unheard].concat().join(" and ");
                eprintln!("waiting for {who} to take lock {serial}");
            }
        }
        if behind.is_empty() {
            eprintln!(
                "! lock {serial} is signed and in its place; nothing was heard of {}, which takes it when it is started: `bailey status` says how it is",
                unheard.join(" and ")
            );
            return Taken::Unsaid;
        }
        eprintln!(
            "! lock {serial} is signed and in its place, but not taken by {}: `bailey status` and `docker compose logs {}` say why",
            behind.join(" and "),
            behind.join(" ")
        );
        Taken::Not
    }

    async fn ask_taken(
        &mut self,
        serial: Serial,
        wait: Duration,
    ) -> anyhow::Result<AwaitLockResponse> {
        let request = AwaitLockRequest {
            serial: serial.0,
            wait_ms: u32::try_from(wait.as_millis())?,
        };
        let answer = self.broker.await_lock(self.admin.request(request)).await;
        Ok(answer.map_err(refused("broker"))?.into_inner())
    }
}

/// What became of a lock that is in its place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// Whoever follows the lock goes by it.
    InForce,
    /// Somebody is not there, or did not say.
    Unsaid,
    /// Somebody does not go by it yet, or it could not be asked.
    Not,
}

fn names(of: &[String]) -> Vec<String> {
    of.iter().map(|name| plain(name)).collect()
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
