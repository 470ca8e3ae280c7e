//! `bailey vault list|describe|grants`: names and what is known of them, never a value.

use bailey_proto::management::v1::{ListResponse, SecretEntry};
use serde_json::{Value, json};

use super::listed;
use crate::Misconfigured;
use crate::cli::vault::SecretArg;
use crate::home::Home;
use crate::output::{Done, Out, count, day, plain, time};

pub(super) async fn list(home: &Home, out: &mut Out) -> anyhow::Result<Done> {
    let listed = listed(home).await?;
    if home.json() {
        out.json(&as_json(&listed))?;
        return Ok(Done::Well);
    }
    let secrets = listed.secrets.iter().map(|secret| {
        [
            secret.name.clone(),
            secret.status.clone(),
            secret.pattern.clone(),
            secret.granted_to.join(" "),
            day(secret.updated_at_ms),
            plain(&secret.description),
        ]
    });
    let head = ["SECRET", "STATUS", "VALUES", "FOR", "CHANGED", ""];
    out.table(head, &secrets.collect::<Vec<_>>());
    let principals = listed.principals.iter();
    let principals = principals.map(|p| [p.name.clone(), p.kind.clone(), p.status.clone()]);
    out.line("");
    let head = ["PRINCIPAL", "KIND", "STATUS"];
    out.table(head, &principals.collect::<Vec<_>>());
    out.line("");
    tokens(&listed, out);
    Ok(Done::Well)
}

/// The table of API tokens.
pub(in crate::command) fn tokens(listed: &ListResponse, out: &mut Out) {
    let tokens = listed.tokens.iter();
    let tokens = tokens.map(|t| [t.name.clone(), t.scopes.join(" "), day(t.created_at_ms)]);
    out.table(["API TOKEN", "SCOPES", "MADE"], &tokens.collect::<Vec<_>>());
}

/// The API tokens as JSON.
pub(in crate::command) fn tokens_json(listed: &ListResponse) -> Value {
    let one = |t: &bailey_proto::management::v1::TokenEntry| json!({ "name": t.name, "scopes": t.scopes, "created_at": time(t.created_at_ms) });
    listed.tokens.iter().map(one).collect()
}

pub(super) async fn describe(home: &Home, args: &SecretArg, out: &mut Out) -> anyhow::Result<Done> {
    let listed = listed(home).await?;
    let mut secrets = listed.secrets.iter();
    let secret = secrets.find(|secret| secret.name == args.name.as_str());
    let secret =
        secret.ok_or_else(|| Misconfigured(format!("there is no secret {}", args.name)))?;
    if home.json() {
        out.json(&secret_json(secret))?;
        return Ok(Done::Well);
    }
    let for_whom = if secret.granted_to.is_empty() {
        "nobody".to_owned()
    } else {
        secret.granted_to.join(" ")
    };
    let values = match &secret.recipe {
        Some(recipe) => format!(
            "made by the broker: {}, {}",
            count(recipe.length, "character"),
            recipe.alphabet
        ),
        None => "given by the operator".to_owned(),
    };
    out.line(format_args!("name        {}", secret.name));
    out.line(format_args!("status      {}", secret.status));
    out.line(format_args!("for         {for_whom}"));
    out.line(format_args!("values      {values}"));
    let rolled = count(secret.roll_count, "time");
    out.line(format_args!("rolled      {rolled}"));
    out.line(format_args!("made        {}", time(secret.created_at_ms)));
    out.line(format_args!("changed     {}", time(secret.updated_at_ms)));
    if secret.revoked_at_ms != 0 {
        out.line(format_args!("revoked     {}", time(secret.revoked_at_ms)));
    }
    if !secret.description.is_empty() {
        out.line(format_args!("what for    {}", plain(&secret.description)));
    }
    Ok(Done::Well)
}

pub(super) async fn grants(home: &Home, out: &mut Out) -> anyhow::Result<Done> {
    let listed = listed(home).await?;
    let has = |principal: &str| -> Vec<String> {
        let secrets = listed.secrets.iter();
        let granted = secrets.filter(|s| s.granted_to.iter().any(|name| name == principal));
        granted.map(|secret| secret.name.clone()).collect()
    };
    if home.json() {
        let principals = listed.principals.iter();
        let by_principal = principals.map(|p| {
            json!({ "principal": p.name, "kind": p.kind, "status": p.status, "secrets": has(&p.name) })
        });
        let by_secret = listed
            .secrets
            .iter()
            .map(|s| json!({ "secret": s.name, "status": s.status, "principals": s.granted_to }));
        let by_secret = by_secret.collect::<Vec<_>>();
        let by_principal = by_principal.collect::<Vec<_>>();
        out.json(&json!({ "principals": by_principal, "secrets": by_secret }))?;
        return Ok(Done::Well);
    }
    let principals = listed.principals.iter();
    let rows = principals.map(|p| {
        [
            p.name.clone(),
            p.kind.clone(),
            p.status.clone(),
            has(&p.name).join(" "),
        ]
    });
    let head = ["PRINCIPAL", "KIND", "STATUS", "MAY HAVE"];
    out.table(head, &rows.collect::<Vec<_>>());
    out.line("");
    let secrets = listed.secrets.iter();
    let rows = secrets.map(|s| [s.name.clone(), s.status.clone(), s.granted_to.join(" ")]);
    out.table(["SECRET", "STATUS", "FOR"], &rows.collect::<Vec<_>>());
    Ok(Done::Well)
}

fn as_json(listed: &ListResponse) -> Value {
    let secrets: Vec<_> = listed.secrets.iter().map(secret_json).collect();
    let principals = listed.principals.iter();
    let principals: Vec<_> = principals
        .map(|p| json!({ "name": p.name, "kind": p.kind, "status": p.status }))
        .collect();
    json!({ "secrets": secrets, "principals": principals, "tokens": tokens_json(listed) })
}

fn secret_json(secret: &SecretEntry) -> Value {
    let recipe = secret.recipe.as_ref();
    json!({
        "name": secret.name,
        "status": secret.status,
        "pattern": secret.pattern,
        "length": recipe.map(|recipe| recipe.length),
        "alphabet": recipe.map(|recipe| &recipe.alphabet),
        "roll_count": secret.roll_count,
        "granted_to": secret.granted_to,
        "description": secret.description,
        "created_at": time(secret.created_at_ms),
        "updated_at": time(secret.updated_at_ms),
        "revoked_at": (secret.revoked_at_ms != 0).then(|| time(secret.revoked_at_ms)),
    })
}
