//! `bailey vault`.

mod audit;
mod file;
mod import;
mod listed;
mod principal;
mod secret;

use anyhow::Context as _;
use bailey_proto::management::v1::vault_service_client::VaultServiceClient;
use bailey_proto::management::v1::{
    InitRequest, ListRequest, ListResponse, PrincipalEntry, StatusRequest,
};
use bailey_types::PrincipalName;
use clap::ValueEnum;
use serde_json::json;
use tonic::transport::Channel;
use zeroize::Zeroizing;

pub(super) use self::listed::{tokens, tokens_json};
use super::custody;
use super::token::write_secret;
use crate::cli::vault::VaultVerb;
use crate::home::Home;
use crate::manage::{self, Admin, refused};
use crate::output::{Done, Out, count, plain};

pub(super) async fn run(home: &Home, verb: VaultVerb, out: &mut Out) -> anyhow::Result<Done> {
    match verb {
        VaultVerb::Init => init(home, out).await,
        VaultVerb::Status => status(home, out).await,
        VaultVerb::Set(args) => secret::set(home, args, out).await,
        VaultVerb::Roll(args) => secret::roll(home, &args, out).await,
        VaultVerb::Revoke(args) => secret::revoke(home, &args, out).await,
        VaultVerb::List => listed::list(home, out).await,
        VaultVerb::Describe(args) => listed::describe(home, &args, out).await,
        VaultVerb::Grants => listed::grants(home, out).await,
        VaultVerb::RegisterPrincipal(args) => principal::register(home, &args, out).await,
        VaultVerb::RevokePrincipal(args) => principal::revoke(home, &args, out).await,
        VaultVerb::PurgePrincipal(args) => principal::purge(home, &args, out).await,
        VaultVerb::RollPrincipal(args) => principal::roll(home, &args, out).await,
        VaultVerb::Import(args) => import::run(home, &args, out).await,
        VaultVerb::Audit(args) => audit::run(home, &args, out).await,
        VaultVerb::Custody(verb) => custody::run(home, verb, out).await,
    }
}

pub(super) async fn client(home: &Home) -> anyhow::Result<VaultServiceClient<Channel>> {
    let client = VaultServiceClient::new(manage::connect(home, "broker").await?);
    Ok(client.max_decoding_message_size(manage::MAX_MESSAGE_BYTES))
}

/// Everything that the vault tells.
pub(super) async fn listed(home: &Home) -> anyhow::Result<ListResponse> {
    let admin = Admin::read(home.admin_token_file())?;
    listed_to(&admin, &mut client(home).await?).await
}

/// The same, where there is a connection already.
async fn listed_to(
    admin: &Admin,
    client: &mut VaultServiceClient<Channel>,
) -> anyhow::Result<ListResponse> {
    let listed = client.list(admin.request(ListRequest {})).await;
    Ok(listed.map_err(refused("broker"))?.into_inner())
}

/// Whether `name` is there and active, whatever it is: then a grant needs nobody registered.
fn is_active(known: &[PrincipalEntry], name: &PrincipalName) -> bool {
    known
        .iter()
        .any(|known| known.name == name.as_str() && known.status == "active")
}

async fn init(home: &Home, out: &mut Out) -> anyhow::Result<Done> {
    let path = home.admin_token_file();
    let to_file = path.as_os_str() != "-";
    // The token is shown once: what is in its way must be found before there is one.
    let file = if to_file {
        Some(write_secret(path)?)
    } else {
        None
    };
    let made = client(home).await?.init(InitRequest {}).await;
    let made = match made {
        Ok(made) => made,
        Err(status) => {
            if file.is_some() {
                std::fs::remove_file(path)
                    .with_context(|| format!("removing {}", path.display()))?;
            }
            return Err(refused("broker")(status));
        }
    };
    let token = Zeroizing::new(made.into_inner().admin_token);
    match file {
        Some(mut file) => {
            use std::io::Write as _;
            writeln!(file, "{}", *token)
                .and_then(|()| file.sync_all())
                .with_context(|| format!("writing {}", path.display()))?;
            out.line(format_args!(
                "made the vault; the admin token is in {}",
                path.display()
            ));
        }
        None => out.line(token.as_str()),
    }
    Ok(Done::Well)
}

async fn status(home: &Home, out: &mut Out) -> anyhow::Result<Done> {
    let status = client(home)
        .await?
        .status(StatusRequest {})
        .await
        .map_err(refused("broker"))?
        .into_inner();
    let done = if status.state == "open" {
        Done::Well
    } else {
        Done::Closed
    };
    if home.json() {
        out.json(&json!({
            "state": status.state, "detail": status.detail, "secrets": status.secrets, "principals": status.principals,
            "tokens": status.tokens, "lock_serial": status.lock_serial, "revision": status.revision,
            "unrecorded": status.unrecorded,
        }))?;
        return Ok(done);
    }
    match status.state.as_str() {
        "open" => out.line(format_args!(
            "open: {}, {}, {}, lock {}",
            count(status.secrets, "secret"),
            count(status.principals, "principal"),
            count(status.tokens, "API token"),
            status.lock_serial
        )),
        "no_vault" if status.detail.is_empty() => {
            out.line("there is no vault yet: run `bailey vault init`");
        }
        "no_vault" => out.line(plain(&status.detail)),
        other => out.line(format_args!("{other}: {}", plain(&status.detail))),
    }
    if status.state == "open" && !status.detail.is_empty() {
        out.line(plain(&status.detail));
    }
    if status.unrecorded > 0 {
        out.line(format_args!(
            "the audit log does not have {} yet; until it has, nothing is given to anybody",
            count(status.unrecorded, "record")
        ));
    }
    Ok(done)
}

/// What is written on the command line for one of several values.
fn value_name(value: &impl ValueEnum) -> String {
    let name = value.to_possible_value();
    name.map(|name| name.get_name().to_owned())
        .unwrap_or_default()
}
