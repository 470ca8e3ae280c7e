//! `bailey upstream list` and `check`.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::Api;
use crate::cli::UpstreamArgs;
use crate::home::Home;
use crate::output::{Done, Out, plain};

/// How long the stack waits for an upstream that is checked.
const CHECK_TIME: Duration = Duration::from_secs(30);

#[derive(Deserialize, Serialize)]
struct Listed {
    upstreams: Vec<Upstream>,
}

#[derive(Deserialize, Serialize)]
struct Upstream {
    name: String,
    url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    header: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    own_ca: bool,
    clients: Vec<String>,
    timeout_ms: u64,
    max_concurrent: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    check: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Checked {
    upstream: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    duration_ms: u64,
    key_sent: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    received_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

pub(super) async fn list(home: &Home, out: &mut Out) -> anyhow::Result<Done> {
    let listed: Listed = Api::with_token(home)?.get("/upstreams").await?;
    if home.json() {
        out.json(&listed)?;
        return Ok(Done::Well);
    }
    if listed.upstreams.is_empty() {
        out.line("No upstream is locked: docs/how-to/upstreams.md tells how to add one.");
        return Ok(Done::Well);
    }
    let rows = listed.upstreams.iter().map(|upstream| {
        let key = upstream.secret.as_deref().unwrap_or("none");
        let address = upstream.address.as_deref().unwrap_or_default();
        [
            upstream.name.clone(),
            plain(&upstream.url),
            plain(key),
            upstream.clients.join(" "),
            plain(address),
        ]
    });
    let rows: Vec<_> = rows.collect();
    out.table(["UPSTREAM", "URL", "KEY", "FOR", "AT"], &rows);
    Ok(Done::Well)
}

pub(super) async fn check(home: &Home, args: &UpstreamArgs, out: &mut Out) -> anyhow::Result<Done> {
    let path = format!("/upstream/{}/check", args.name);
    let answer = Api::with_token(home)?
        .post(&path, Vec::new(), CHECK_TIME)
        .await?;
    let checked: Checked = answer.json()?;
    if home.json() {
        out.json(&checked)?;
    } else {
        checked.describe(out);
    }
    Ok(if checked.is_well() {
        Done::Well
    } else {
        Done::Badly
    })
}

impl Checked {
    fn is_well(&self) -> bool {
        self.failure.is_none() && self.status.is_some_and(|status| status < 400)
    }

    fn describe(&self, out: &mut Out) {
        let (name, after) = (plain(&self.upstream), self.duration_ms);
        let Some(status) = self.status else {
            let why = self.failure.as_deref().unwrap_or("nothing came");
            out.line(format_args!("{name} does not answer: {}", plain(why)));
            return;
        };
        let secret = self.secret.as_deref().filter(|_| self.key_sent).map(plain);
        let mut line = format!("{name} answers: HTTP {status} after {after} ms");
        // Writing to a string cannot fail.
        let _ = match &secret {
            Some(secret) => write!(line, ", with the key {secret}"),
            None => write!(line, ", without a key"),
        };
        out.line(line);
        if let Some(why) = &self.failure {
            out.line(format_args!("  ! the answer broke off: {}", plain(why)));
        }
        match (status, secret) {
            (401 | 403, Some(secret)) => out.line(format_args!(
                "  ! it refuses the key: `bailey vault roll {secret}` replaces it"
            )),
            (401 | 403, None) => out.line(
                "  ! it wants a key: `secret_ref` of the upstream names the secret that is sent",
            ),
            (404, _) => out.line(
                "  ! it has nothing there: `url` and `check` of the upstream say what is asked for",
            ),
            (_, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(checked: &serde_json::Value) -> (String, bool) {
        let checked: Checked = serde_json::from_value(checked.clone()).unwrap();
        let mut out = Out::default();
        checked.describe(&mut out);
        (out.text().to_owned(), checked.is_well())
    }

    #[test]
    fn an_answer_is_one_line_and_a_refused_key_says_what_to_do() {
        let mut checked = serde_json::json!({
            "upstream": "model", "status": 200, "duration_ms": 214, "key_sent": true, "secret": "model-key", "received_bytes": 9,
        });
        let line = "model answers: HTTP 200 after 214 ms, with the key model-key\n";
        assert_eq!(described(&checked), (line.to_owned(), true));
        checked["status"] = 307.into();
        assert!(described(&checked).1);
        checked["status"] = 401.into();
        let (text, well) = described(&checked);
        assert!(text.contains("`bailey vault roll model-key`"), "{text}");
        assert!(!well);
        checked["key_sent"] = false.into();
        let (text, _) = described(&checked);
        assert!(text.contains("without a key\n"), "{text}");
        assert!(text.contains("`secret_ref`"), "{text}");
        checked["status"] = 500.into();
        assert!(!described(&checked).1);
    }

    #[test]
    fn an_answer_that_did_not_come_or_broke_off_is_no_success() {
        let mut checked = serde_json::json!({
            "upstream": "model", "duration_ms": 3, "key_sent": false, "received_bytes": 0, "failure": "no \u{1b}[31maddress",
        });
        let text = "model does not answer: no \u{fffd}[31maddress\n";
        assert_eq!(described(&checked), (text.to_owned(), false));
        checked["status"] = 200.into();
        let (text, well) = described(&checked);
        assert!(text.contains("the answer broke off"), "{text}");
        assert!(!well);
    }
}
