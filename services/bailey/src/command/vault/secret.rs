//! `bailey vault set|roll|revoke`.

use std::io::{IsTerminal as _, Read as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bailey_proto::management::v1::{
    Recipe, RevokeSecretRequest, RollSecretRequest, SetSecretRequest, SetSecretResponse,
};
use bailey_types::SecretName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;
use zeroize::Zeroizing;

use super::{client, listed_to, value_name};
use crate::Misconfigured;
use crate::cli::vault::{Alphabet, SecretArg, SetArgs};
use crate::home::Home;
use crate::manage::{Admin, refused};
use crate::output::{Done, Out, count};

/// How long a value may keep its reader waiting that is not wanted: a pipe that nobody writes to has no end.
const GIVEN_WITHIN: Duration = Duration::from_secs(2);

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
        existing: args.keep_value,
    };
    let answer = client.set_secret(admin.request(request)).await;
    let SetSecretResponse {
        outcome,
        registered,
    } = answer.map_err(refused("broker"))?.into_inner();
    let name = args.name.to_string();
    let mut sentences: Vec<_> = registered
        .iter()
        .map(|it| format!("registered the principal {}, a {}", it.name, it.kind))
        .collect();
    let registered: Vec<_> = registered.iter().map(|it| &it.name).collect();
    sentences.push(match outcome.as_str() {
        "changed" => format!("changed what is known of the secret {name}; its value is as it was"),
        _ => format!("keeps the secret {name}"),
    });
    let json = json!({ "outcome": outcome, "name": name, "registered": registered });
    out.told(home, &json, sentences.join("\n"))?;
    Ok(Done::Well)
}

/// What was said of how values are made; of the rest the broker goes on as it did.
fn recipe(length: Option<u32>, alphabet: Option<Alphabet>) -> Option<Recipe> {
    if length.is_none() && alphabet.is_none() {
        return None;
    }
    Some(Recipe {
        length: length.unwrap_or_default(),
        alphabet: alphabet.map(|it| value_name(&it)).unwrap_or_default(),
    })
}

pub(super) async fn roll(home: &Home, args: &SecretArg, out: &mut Out) -> anyhow::Result<Done> {
    let admin = Admin::read(home.admin_token_file())?;
    let mut client = client(home).await?;
    let secrets = listed_to(&admin, &mut client).await?.secrets;
    let known = secrets
        .iter()
        .find(|secret| secret.name == args.name.as_str());
    let known = known.filter(|secret| secret.status == "active");
    // Nobody is asked for a value that is not needed, or would be refused.
    let value = match known.map(|secret| secret.pattern.as_str()) {
        Some("manual") => value(&args.name)?,
        Some(_) => {
            none_given(&args.name)?;
            Zeroizing::default()
        }
        None => Zeroizing::default(),
    };
    let request = RollSecretRequest {
        name: args.name.to_string(),
        value: value.as_bytes().to_vec().into(),
    };
    let rolled = client.roll_secret(admin.request(request)).await;
    let rolled = rolled.map_err(refused("broker"))?.into_inner();
    let (name, times) = (args.name.to_string(), rolled.roll_count);
    let so_far = count(times, "time");
    // Whoever gave a value too late to be refused must not take it for the secret's.
    let (made_by, told) = if value.is_empty() {
        (
            "broker",
            format!("the broker made a new value of the secret {name}"),
        )
    } else {
        ("operator", format!("the secret {name} has the new value"))
    };
    let sentence = format!("{told} (rolled {so_far} so far)");
    let json = json!({
        "outcome": rolled.outcome, "name": name, "made_by": made_by, "roll_count": times,
    });
    out.told(home, &json, sentence)?;
    Ok(Done::Well)
}

pub(super) async fn revoke(home: &Home, args: &SecretArg, out: &mut Out) -> anyhow::Result<Done> {
    let admin = Admin::read(home.admin_token_file())?;
    let name = args.name.to_string();
    let request = admin.request(RevokeSecretRequest { name });
    let revoked = client(home).await?.revoke_secret(request).await;
    let outcome = revoked.map_err(refused("broker"))?.into_inner().outcome;
    let name = args.name.to_string();
    let sentence = format!("the secret {name} is revoked: its value is forgotten");
    out.told(home, &json!({ "outcome": outcome, "name": name }), sentence)?;
    Ok(Done::Well)
}

/// Refuses a value that the broker would not take: whoever gives one must not believe that it is the secret's now.
fn none_given(name: &SecretName) -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Ok(());
    }
    let end = Instant::now() + GIVEN_WITHIN;
    let mut start = Vec::new();
    // More than one line's end is a value, as it would be of another secret.
    while start.len() <= 2 {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).context("waiting for standard input")?;
        let mut looked_at = [PollFd::new(&stdin, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| poll(&mut looked_at, Some(&left)));
        if ready.context("waiting for standard input")? == 0 {
            break; // Open and silent, as cron and ssh leave it.
        }
        let mut byte = [0];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&stdin, &mut byte));
        if read.context("reading standard input")? == 0 {
            break;
        }
        start.extend(byte);
    }
    if matches!(start.as_slice(), b"" | b"\n" | b"\r\n") {
        return Ok(());
    }
    Err(Misconfigured(format!(
        "the broker makes the values of {name}, and the one that was given is not used; nothing was changed. `bailey vault roll {name} </dev/null` makes a new one; to give your own from now on: `bailey vault set {name} --keep-value --manual`, then the same again"
    ))
    .into())
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
