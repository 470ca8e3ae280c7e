//! `bailey token`.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use bailey_proto::management::v1::{CreateTokenRequest, RevokeTokenRequest};
use zeroize::Zeroizing;

use super::vault;
use crate::Misconfigured;
use crate::cli::vault::{TokenArg, TokenArgs};
use crate::home::Home;
use crate::manage::{Admin, refused};
use crate::output::{Done, Out};

pub(super) async fn create(home: &Home, args: TokenArgs, out: &mut Out) -> anyhow::Result<Done> {
    let admin = Admin::read(home.admin_token_file())?;
    let mut client = vault::client(home).await?;
    // The token is shown once: its file must be there before it is.
    let path = args.out.as_deref().filter(|path| path.as_os_str() != "-");
    let file = path.map(write_secret).transpose()?;
    let request = CreateTokenRequest {
        name: args.name.to_string(),
        scopes: args.scopes,
    };
    let made = match client.create_token(admin.request(request)).await {
        Ok(made) => made,
        Err(status) => {
            if let Some(path) = path {
                std::fs::remove_file(path)
                    .with_context(|| format!("removing {}", path.display()))?;
            }
            return Err(refused("broker")(status));
        }
    };
    let token = Zeroizing::new(made.into_inner().token);
    match (file, path) {
        (Some(mut file), Some(path)) => {
            writeln!(file, "{}", *token)
                .and_then(|()| file.sync_all())
                .with_context(|| format!("writing {}", path.display()))?;
            out.line(format_args!(
                "made the token {}; it is in {}",
                args.name,
                path.display()
            ));
        }
        _ => out.line(token.as_str()),
    }
    Ok(Done::Well)
}

pub(super) async fn list(home: &Home, out: &mut Out) -> anyhow::Result<Done> {
    let listed = vault::listed(home).await?;
    if home.json() {
        out.json(&vault::tokens_json(&listed))?;
    } else {
        vault::tokens(&listed, out);
    }
    Ok(Done::Well)
}

pub(super) async fn revoke(home: &Home, args: &TokenArg, out: &mut Out) -> anyhow::Result<Done> {
    let admin = Admin::read(home.admin_token_file())?;
    let name = args.name.to_string();
    let request = admin.request(RevokeTokenRequest { name });
    let revoked = vault::client(home).await?.revoke_token(request).await;
    let outcome = revoked.map_err(refused("broker"))?.into_inner().outcome;
    let name = args.name.to_string();
    let sentence = format!("the API token {name} is revoked: the next request with it is refused");
    let json = serde_json::json!({ "outcome": outcome, "name": name });
    out.told(home, &json, sentence)?;
    Ok(Done::Well)
}

/// A new file that only its owner may read.
pub(super) fn write_secret(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(path)
        .map_err(|e| {
            Misconfigured(format!(
                "{} cannot be made: {e}; an existing file is never overwritten",
                path.display()
            ))
            .into()
        })
}
