//! `bailey vault`.

use std::io::{IsTerminal as _, Read as _};

use anyhow::{Context as _, ensure};
use bailey_proto::management::v1::vault_service_client::VaultServiceClient;
use bailey_proto::management::v1::{
    InitRequest, ListRequest, ListResponse, RegisterPrincipalRequest, SetSecretRequest,
    StatusRequest,
};
use bailey_types::Timestamp;
use serde_json::json;
use tonic::transport::Channel;
use zeroize::Zeroizing;

use super::token::write_secret;
use crate::Misconfigured;
use crate::cli::SetArgs;
use crate::home::Home;
use crate::manage::{self, Admin, refused};
use crate::output::{Done, Out, plain};

/// Largest value; the broker's limit too.
const MAX_VALUE_BYTES: u64 = 64 << 10;

async fn client(home: &Home) -> anyhow::Result<VaultServiceClient<Channel>> {
    let client = VaultServiceClient::new(manage::connect(home, "broker").await?);
    Ok(client.max_decoding_message_size(manage::MAX_MESSAGE_BYTES))
}

pub(super) async fn init(home: &Home, out: &mut Out) -> anyhow::Result<Done> {
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

pub(super) async fn set(home: &Home, args: SetArgs, out: &mut Out) -> anyhow::Result<Done> {
    let admin = Admin::read(home.admin_token_file())?;
    let mut client = client(home).await?;
    let value = if args.grants_only {
        Zeroizing::default()
    } else {
        value(&args)?
    };
    for grant in &args.grants {
        let principal = RegisterPrincipalRequest {
            name: grant.to_string(),
            kind: "plugin".to_owned(),
        };
        let registered = client.register_principal(admin.request(principal)).await;
        if registered.map_err(refused("broker"))?.into_inner().outcome == "principal_registered" {
            out.line(format_args!("registered the principal {grant}"));
        }
    }
    let request = SetSecretRequest {
        name: args.name.to_string(),
        value: value.as_bytes().to_vec().into(),
        grant_to: args.grants.iter().map(ToString::to_string).collect(),
        replace_grants: args.grants_only,
        description: args.description,
    };
    let outcome = client
        .set_secret(admin.request(request))
        .await
        .map_err(refused("broker"))?
        .into_inner()
        .outcome;
    out.line(format_args!("{outcome} {}", args.name));
    Ok(Done::Well)
}

/// From a prompt where somebody sits, else from standard input without the newline at its end.
fn value(args: &SetArgs) -> anyhow::Result<Zeroizing<String>> {
    let mut value = Zeroizing::new(String::new());
    if std::io::stdin().is_terminal() {
        let prompt = format!("Value of {} (not shown): ", args.name);
        *value = rpassword::prompt_password(prompt).context("reading the value")?;
    } else {
        let read = std::io::stdin()
            .take(MAX_VALUE_BYTES + 1)
            .read_to_string(&mut value);
        read.map_err(|e| Misconfigured(format!("reading the value from standard input: {e}")))?;
        let end = value
            .strip_suffix('\n')
            .map(|rest| rest.strip_suffix('\r').unwrap_or(rest).len());
        let end = end.unwrap_or(value.len());
        value.truncate(end);
    }
    ensure!(
        value.len() as u64 <= MAX_VALUE_BYTES,
        Misconfigured(format!("a value has at most {MAX_VALUE_BYTES} bytes"))
    );
    ensure!(
        !value.is_empty(),
        Misconfigured("the value is empty: it comes by standard input, or by a prompt in a terminal (--grants-only changes grants alone)".to_owned())
    );
    Ok(value)
}

pub(super) async fn list(home: &Home, out: &mut Out) -> anyhow::Result<Done> {
    let admin = Admin::read(home.admin_token_file())?;
    let listed = client(home)
        .await?
        .list(admin.request(ListRequest {}))
        .await
        .map_err(refused("broker"))?
        .into_inner();
    if home.json() {
        out.json(&as_json(&listed))?;
        return Ok(Done::Well);
    }
    let day = |ms: i64| {
        Timestamp(ms)
            .to_rfc3339()
            .get(..10)
            .unwrap_or_default()
            .to_owned()
    };
    let secrets: Vec<_> = listed
        .secrets
        .iter()
        .map(|secret| {
            let grants = secret.granted_to.join(" ");
            [
                secret.name.clone(),
                secret.status.clone(),
                grants,
                day(secret.updated_at_ms),
                plain(&secret.description),
            ]
        })
        .collect();
    out.table(["SECRET", "STATUS", "FOR", "CHANGED", ""], &secrets);
    let principals: Vec<_> = listed
        .principals
        .iter()
        .map(|p| [p.name.clone(), p.kind.clone(), p.status.clone()])
        .collect();
    out.line("");
    out.table(["PRINCIPAL", "KIND", "STATUS"], &principals);
    let tokens: Vec<_> = listed
        .tokens
        .iter()
        .map(|t| [t.name.clone(), t.scopes.join(" "), day(t.created_at_ms)])
        .collect();
    out.line("");
    out.table(["API TOKEN", "SCOPES", "MADE"], &tokens);
    Ok(Done::Well)
}

fn as_json(listed: &ListResponse) -> serde_json::Value {
    let time = |ms: i64| Timestamp(ms).to_rfc3339();
    let secrets: Vec<_> = listed.secrets.iter().map(|secret| json!({
        "name": secret.name, "status": secret.status, "granted_to": secret.granted_to, "description": secret.description,
        "created_at": time(secret.created_at_ms), "updated_at": time(secret.updated_at_ms),
    })).collect();
    let principals = listed
        .principals
        .iter()
        .map(|p| json!({ "name": p.name, "kind": p.kind, "status": p.status }));
    let tokens = listed.tokens.iter().map(
        |t| json!({ "name": t.name, "scopes": t.scopes, "created_at": time(t.created_at_ms) }),
    );
    json!({ "secrets": secrets, "principals": principals.collect::<Vec<_>>(), "tokens": tokens.collect::<Vec<_>>() })
}

pub(super) async fn status(home: &Home, out: &mut Out) -> anyhow::Result<Done> {
    let status = client(home)
        .await?
        .status(StatusRequest {})
        .await
        .map_err(refused("broker"))?
        .into_inner();
    if home.json() {
        out.json(&json!({
            "state": status.state, "detail": status.detail, "secrets": status.secrets, "principals": status.principals,
            "tokens": status.tokens, "lock_serial": status.lock_serial,
        }))?;
        return Ok(Done::Well);
    }
    match status.state.as_str() {
        "open" => out.line(format_args!(
            "open: {} secrets, {} principals, {} API tokens, lock {}",
            status.secrets, status.principals, status.tokens, status.lock_serial
        )),
        "no_vault" => out.line("there is no vault yet: run `bailey vault init`"),
        other => out.line(format_args!("{other}: {}", plain(&status.detail))),
    }
    Ok(Done::Well)
}
