//! `bailey vault set|roll|revoke`.

use std::io::{IsTerminal as _, Read as _};

use anyhow::{Context as _, ensure};
use bailey_proto::management::v1::{
    Recipe, RegisterPrincipalRequest, RevokeSecretRequest, RollSecretRequest, SetSecretRequest,
};
use bailey_types::SecretName;
use zeroize::Zeroizing;

use super::{client, is_active, listed, value_name};
use crate::Misconfigured;
use crate::cli::vault::{Alphabet, SecretArg, SetArgs};
use crate::home::Home;
use crate::manage::{Admin, refused};
use crate::output::{Done, Out};

/// Largest value; the broker's limit too.
const MAX_VALUE_BYTES: u64 = 64 << 10;

pub(super) async fn set(home: &Home, args: SetArgs, out: &mut Out) -> anyhow::Result<Done> {
    let admin = Admin::read(home.admin_token_file())?;
    let mut client = client(home).await?;
    let value = if args.keep_value || args.generate {
        Zeroizing::default()
    } else {
        value(&args.name)?
    };
    let known = if args.grants.is_empty() {
        Vec::new()
    } else {
        listed(home).await?.principals
    };
    // One that is there stays what it is: a plugin, a consumer, the stack itself. For one that was revoked the broker says so.
    for grant in args.grants.iter().filter(|name| !is_active(&known, name)) {
        let principal = RegisterPrincipalRequest {
            name: grant.to_string(),
            kind: "plugin".to_owned(),
        };
        let registered = client.register_principal(admin.request(principal)).await;
        if registered.map_err(refused("broker"))?.into_inner().outcome == "principal_registered" {
            out.line(format_args!("registered the principal {grant}"));
        }
    }
    let pattern = match (args.generate, args.manual) {
        (true, _) => "auto",
        (false, true) => "manual",
        (false, false) => "",
    };
    let request = SetSecretRequest {
        name: args.name.to_string(),
        value: value.as_bytes().to_vec().into(),
        grant_to: args.grants.iter().map(ToString::to_string).collect(),
        replace_grants: args.no_grants,
        description: args.description,
        pattern: pattern.to_owned(),
        recipe: recipe(args.length, args.alphabet),
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

/// What was said of how values are made; where nothing was, the broker goes on as it did.
fn recipe(length: Option<u32>, alphabet: Option<Alphabet>) -> Option<Recipe> {
    if length.is_none() && alphabet.is_none() {
        return None;
    }
    let alphabet = alphabet.unwrap_or(Alphabet::Alphanumeric);
    Some(Recipe {
        length: length.unwrap_or(32),
        alphabet: value_name(&alphabet),
    })
}

pub(super) async fn roll(home: &Home, args: &SecretArg, out: &mut Out) -> anyhow::Result<Done> {
    let secrets = listed(home).await?.secrets;
    let known = secrets
        .iter()
        .find(|secret| secret.name == args.name.as_str());
    // Nobody is asked for a value that is not needed, or would be refused.
    let typed = known.is_some_and(|secret| secret.pattern == "manual" && secret.status == "active");
    let value = if typed {
        value(&args.name)?
    } else {
        Zeroizing::default()
    };
    let admin = Admin::read(home.admin_token_file())?;
    let request = RollSecretRequest {
        name: args.name.to_string(),
        value: value.as_bytes().to_vec().into(),
    };
    let rolled = client(home)
        .await?
        .roll_secret(admin.request(request))
        .await;
    let rolled = rolled.map_err(refused("broker"))?.into_inner();
    let (outcome, count) = (rolled.outcome, rolled.roll_count);
    out.line(format_args!("{outcome} {}, the {count}. time", args.name));
    Ok(Done::Well)
}

pub(super) async fn revoke(home: &Home, args: &SecretArg, out: &mut Out) -> anyhow::Result<Done> {
    let admin = Admin::read(home.admin_token_file())?;
    let name = args.name.to_string();
    let request = admin.request(RevokeSecretRequest { name });
    let revoked = client(home).await?.revoke_secret(request).await;
    let outcome = revoked.map_err(refused("broker"))?.into_inner().outcome;
    out.line(format_args!("{outcome} {}", args.name));
    Ok(Done::Well)
}

/// From a prompt where somebody sits, else from standard input without the newline at its end.
fn value(name: &SecretName) -> anyhow::Result<Zeroizing<String>> {
    let mut value = Zeroizing::new(String::new());
    if std::io::stdin().is_terminal() {
        let prompt = format!("Value of {name} (not shown): ");
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
        Misconfigured("the value is empty: it comes by standard input, or by a prompt in a terminal (--keep-value changes only what is known of the secret)".to_owned())
    );
    Ok(value)
}
