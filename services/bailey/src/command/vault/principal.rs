//! `bailey vault register-principal|revoke-principal|purge-principal|roll-principal`.

use bailey_proto::management::v1::{
    PurgePrincipalRequest, RegisterPrincipalRequest, RevokePrincipalRequest, RollPrincipalRequest,
};

use serde_json::json;

use super::{client, value_name};
use crate::cli::vault::{PrincipalArg, RegisterArgs};
use crate::home::Home;
use crate::manage::{Admin, refused};
use crate::output::{Done, Out};

pub(super) async fn register(
    home: &Home,
    args: &RegisterArgs,
    out: &mut Out,
) -> anyhow::Result<Done> {
    let admin = Admin::read(home.admin_token_file())?;
    let request = admin.request(RegisterPrincipalRequest {
        name: args.name.to_string(),
        kind: value_name(&args.kind),
    });
    let registered = client(home).await?.register_principal(request).await;
    let outcome = registered.map_err(refused("broker"))?.into_inner().outcome;
    let (name, kind) = (args.name.to_string(), value_name(&args.kind));
    let sentence = match outcome.as_str() {
        "exists" => format!("the principal {name} is there already"),
        _ => format!("registered the principal {name}, a {kind}"),
    };
    let json = json!({ "outcome": outcome, "name": name, "kind": kind });
    out.told(home, &json, sentence)?;
    Ok(Done::Well)
}

pub(super) async fn revoke(
    home: &Home,
    args: &PrincipalArg,
    out: &mut Out,
) -> anyhow::Result<Done> {
    let admin = Admin::read(home.admin_token_file())?;
    let name = args.name.to_string();
    let request = admin.request(RevokePrincipalRequest { name });
    let revoked = client(home).await?.revoke_principal(request).await;
    let outcome = revoked.map_err(refused("broker"))?.into_inner().outcome;
    let name = args.name.to_string();
    let sentence = format!("the principal {name} is revoked: what runs in its name fails");
    out.told(home, &json!({ "outcome": outcome, "name": name }), sentence)?;
    Ok(Done::Well)
}

pub(super) async fn purge(home: &Home, args: &PrincipalArg, out: &mut Out) -> anyhow::Result<Done> {
    let admin = Admin::read(home.admin_token_file())?;
    let name = args.name.to_string();
    let request = admin.request(PurgePrincipalRequest { name });
    let purged = client(home).await?.purge_principal(request).await;
    let purged = purged.map_err(refused("broker"))?.into_inner();
    let name = args.name.to_string();
    if home.json() {
        let stripped = &purged.stripped;
        out.json(&json!({ "outcome": purged.outcome, "name": name, "stripped": stripped }))?;
        return Ok(Done::Well);
    }
    out.line(format_args!("the principal {name} is forgotten"));
    for secret in &purged.stripped {
        out.line(format_args!("  took back its grant of {secret}"));
    }
    Ok(Done::Well)
}

pub(super) async fn roll(home: &Home, args: &PrincipalArg, out: &mut Out) -> anyhow::Result<Done> {
    let admin = Admin::read(home.admin_token_file())?;
    let name = args.name.to_string();
    let request = admin.request(RollPrincipalRequest { name });
    let rolled = client(home).await?.roll_principal(request).await;
    let rolled = rolled.map_err(refused("broker"))?.into_inner();
    if home.json() {
        out.json(&json!({
            "name": rolled.name, "rolled": rolled.rolled, "skipped": rolled.skipped,
        }))?;
        return Ok(Done::Well);
    }
    for secret in &rolled.rolled {
        out.line(format_args!("rolled {secret}"));
    }
    for secret in &rolled.skipped {
        out.line(format_args!(
            "skipped {secret}: its values are yours to make, with `bailey vault roll {secret}`"
        ));
    }
    if rolled.rolled.is_empty() && rolled.skipped.is_empty() {
        out.line(format_args!("{} may have no secret", rolled.name));
    }
    Ok(Done::Well)
}
