//! `bailey vault import`: read and opened where the file is, judged and done by the broker.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use anyhow::{Context as _, ensure};
use bailey_proto::management::v1::{
    ImportSecretsRequest, ImportSecretsResponse, ImportedPrincipal, ImportedSecret, PrincipalEntry,
};
use bailey_trust::SealingKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use zeroize::Zeroizing;

use super::file::{self, Found};
use super::{client, is_active, listed_to, value_name};
use crate::cli::vault::ImportArgs;
use crate::home::Home;
use crate::manage::{Admin, refused};
use crate::output::{Done, Out, plain};
use crate::{Misconfigured, forward};

/// Largest file; the broker's limit for an import is larger.
const MAX_FILE_BYTES: usize = 1 << 20;
const AGE: &[u8] = b"age-encryption.org/v1\n";
const ARMOR: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
const ARMOR_END: &str = "-----END AGE ENCRYPTED FILE-----";

pub(super) async fn run(home: &Home, args: &ImportArgs, out: &mut Out) -> anyhow::Result<Done> {
    let bytes = read(args.file.as_deref())?;
    let plain = opened(bytes, args.identity.as_deref())?;
    if !home.is_inside() {
        return forward::with_input(home, "cli", inner(home, args), &plain);
    }
    let text = std::str::from_utf8(&plain)
        .map_err(|_| Misconfigured("the file is not UTF-8 text".to_owned()))?;
    let mut found = file::read(text, args.format).map_err(Misconfigured)?;
    let admin = Admin::read(home.admin_token_file())?;
    let mut client = client(home).await?;
    let known = listed_to(&admin, &mut client).await?.principals;
    let asked = admin.request(request(&mut found, args, &known));
    let answer = client.import_secrets(asked).await;
    let answer = answer.map_err(refused("broker"))?.into_inner();
    report(home, &found, &answer, args.apply, out)?;
    Ok(Done::Well)
}

/// The same for the container, which gets the file opened over standard input.
fn inner(home: &Home, args: &ImportArgs) -> Vec<OsString> {
    let mut inner: Vec<OsString> = ["vault", "import", "-"].map(OsString::from).into();
    inner.extend(["--format".into(), value_name(&args.format).into()]);
    for grant in &args.grants {
        inner.extend(["--grant".into(), grant.as_str().into()]);
    }
    if args.apply {
        inner.push("--apply".into());
    }
    if home.json() {
        inner.push("--json".into());
    }
    inner
}

fn read(path: Option<&Path>) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES + 1));
    let limit = MAX_FILE_BYTES as u64 + 1;
    if let Some(path) = path.filter(|path| *path != Path::new("-")) {
        let shown = path.display();
        let file = std::fs::File::open(path);
        let file = file.map_err(|e| Misconfigured(format!("{shown} cannot be opened: {e}")))?;
        let read = file.take(limit).read_to_end(&mut bytes);
        read.with_context(|| format!("reading {shown}"))?;
    } else {
        ensure!(
            !std::io::stdin().is_terminal(),
            Misconfigured("say which file, or pipe it in".to_owned())
        );
        let read = std::io::stdin().take(limit).read_to_end(&mut bytes);
        read.context("reading standard input")?;
    }
    ensure!(
        bytes.len() <= MAX_FILE_BYTES,
        Misconfigured(format!(
            "a file to import has at most {MAX_FILE_BYTES} bytes"
        ))
    );
    Ok(bytes)
}

/// The file in the clear.
fn opened(
    bytes: Zeroizing<Vec<u8>>,
    identity: Option<&Path>,
) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let sealed = if bytes.starts_with(AGE) {
        bytes
    } else if let Some(sealed) = dearmored(&bytes)? {
        Zeroizing::new(sealed)
    } else {
        return Ok(bytes);
    };
    let identity = identity.ok_or_else(|| {
        Misconfigured(
            "the file is encrypted with age: --identity names the file with its key".to_owned(),
        )
    })?;
    let misconfigured = |e: bailey_trust::SealError| Misconfigured(e.to_string());
    let key = SealingKey::read(identity).map_err(misconfigured)?;
    Ok(key.open(&sealed, MAX_FILE_BYTES).map_err(misconfigured)?)
}

/// What is within age's armor; `None` if there is none.
fn dearmored(bytes: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    let text = std::str::from_utf8(bytes).unwrap_or_default().trim();
    let Some(body) = text.strip_prefix(ARMOR) else {
        return Ok(None);
    };
    let body = body.strip_suffix(ARMOR_END);
    let broken = || Misconfigured("the armor of the age file is broken".to_owned());
    let body: String = body.ok_or_else(broken)?.split_ascii_whitespace().collect();
    Ok(Some(STANDARD.decode(body).map_err(|_| broken())?))
}

/// What is asked of the broker. What the vault has otherwise than the file says stays as the vault has it, and is among what was left out.
fn request(found: &mut Found, args: &ImportArgs, known: &[PrincipalEntry]) -> ImportSecretsRequest {
    let mut principals = Vec::new();
    // Of a principal that is only granted to, the broker knows from the lock what it is, or refuses it.
    let given = args.grants.iter().map(|name| (name, None));
    let named = found.principals.iter();
    let named = named.map(|(name, kind)| (name, Some(kind.as_str())));
    for (name, kind) in named.chain(given) {
        match known.iter().find(|known| known.name == name.as_str()) {
            None => principals.extend(kind.map(|kind| ImportedPrincipal {
                name: name.to_string(),
                kind: kind.to_owned(),
            })),
            Some(same) if is_active(known, name) && kind.is_none_or(|kind| kind == same.kind) => {}
            Some(other) => {
                let why = format!("the principal is here a {} ({})", other.kind, other.status);
                found.left_out.push((name.to_string(), why));
            }
        }
    }
    let secrets = found.secrets.iter().map(|secret| {
        let grants = secret.grants.iter().chain(&args.grants);
        ImportedSecret {
            name: secret.name.to_string(),
            value: secret.value.as_bytes().to_vec().into(),
            grant_to: grants.map(ToString::to_string).collect(),
            description: secret.description.clone(),
        }
    });
    ImportSecretsRequest {
        secrets: secrets.collect(),
        principals,
        apply: args.apply,
    }
}

/// The parity report: what was taken over, what was not and why, and what is missing even so.
fn report(
    home: &Home,
    found: &Found,
    answer: &ImportSecretsResponse,
    applied: bool,
    out: &mut Out,
) -> anyhow::Result<()> {
    let mut rows: Vec<[String; 4]> = Vec::new();
    for (secret, outcome) in found.secrets.iter().zip(&answer.secrets) {
        let (what, why) = if outcome.skipped.is_empty() {
            ("imported", secret.notes.as_str())
        } else {
            ("skipped", outcome.skipped.as_str())
        };
        let from = plain(&secret.from);
        rows.push([from, outcome.name.clone(), what.to_owned(), plain(why)]);
    }
    for (from, why) in &found.left_out {
        let from = plain(from);
        rows.push([from, String::new(), "skipped".to_owned(), why.clone()]);
    }
    if home.json() {
        let secrets = rows.iter().map(|[from, name, outcome, detail]| {
            json!({ "from": from, "name": name, "outcome": outcome, "detail": detail })
        });
        let secrets = secrets.collect::<Vec<_>>();
        return out.json(&json!({
            "applied": applied,
            "secrets": secrets,
            "registered": answer.registered,
            "missing": answer.missing,
        }));
    }
    out.table(["IN THE FILE", "SECRET", "OUTCOME", ""], &rows);
    for name in &answer.registered {
        out.line(format_args!("registered the principal {name}"));
    }
    for missing in &answer.missing {
        out.line(format_args!("! {}", plain(missing)));
    }
    if answer.missing.is_empty() {
        out.line("the locked plugins miss nothing");
    }
    if !applied {
        out.line("nothing was changed: the same with --apply does it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::cli::vault::Format;

    fn opened_with(bytes: &[u8], identity: Option<&Path>) -> anyhow::Result<Vec<u8>> {
        opened(Zeroizing::new(bytes.to_vec()), identity).map(|plain| plain.to_vec())
    }

    fn known(name: &str, kind: &str, status: &str) -> PrincipalEntry {
        PrincipalEntry {
            name: name.to_owned(),
            kind: kind.to_owned(),
            status: status.to_owned(),
        }
    }

    #[test]
    fn only_principals_that_the_vault_lacks_are_registered_and_those_that_differ_are_told() {
        let text = "secrets:\n  api: {value: abc, grants: [fetch]}\nprincipals:\n  fetch: {kind: plugin}\n  shop: {kind: consumer}\n  post: {kind: consumer}\n  old: {kind: plugin}\n";
        let mut found = file::read(text, Format::Auto).unwrap();
        let args = ImportArgs {
            file: None,
            identity: None,
            format: Format::Auto,
            grants: ["core", "post", "new"]
                .map(|name| name.parse().unwrap())
                .into(),
            apply: false,
        };
        let vault = [
            known("core", "gateway", "active"),
            known("post", "consumer", "active"),
            known("shop", "plugin", "active"),
            known("old", "plugin", "revoked"),
        ];
        let asked = request(&mut found, &args, &vault);
        let registered = asked.principals.iter();
        let registered: Vec<_> = registered
            .map(|p| (p.name.as_str(), p.kind.as_str()))
            .collect();
        assert_eq!(registered, [("fetch", "plugin")]);
        let mut granted = asked.secrets[0].grant_to.clone();
        granted.sort();
        assert_eq!(granted, ["core", "fetch", "new", "post"]);
        let left_out = [
            ("old", "the principal is here a plugin (revoked)"),
            ("shop", "the principal is here a plugin (active)"),
        ];
        let mut told = found.left_out.clone();
        told.sort();
        assert_eq!(
            told,
            left_out.map(|(name, why)| (name.to_owned(), why.to_owned()))
        );
    }

    #[test]
    fn an_age_file_is_opened_armored_or_not_and_with_its_own_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let (key, path) = (SealingKey::generate(), dir.path().join("age.key"));
        std::fs::write(&path, key.to_file_text().as_bytes()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let sealed = key.recipient().seal(b"A=1").unwrap();
        let armored = format!("{ARMOR}\n{}\n{ARMOR_END}\n", STANDARD.encode(&sealed));
        for bytes in [&sealed[..], armored.as_bytes()] {
            assert_eq!(opened_with(bytes, Some(&path)).unwrap(), b"A=1");
            assert!(
                opened_with(bytes, None)
                    .unwrap_err()
                    .to_string()
                    .contains("--identity")
            );
            let other = SealingKey::generate().recipient().seal(b"A=1").unwrap();
            assert!(opened_with(&other, Some(&path)).is_err());
        }
        assert_eq!(opened_with(b"A=1", None).unwrap(), b"A=1");
        assert!(opened_with(format!("{ARMOR}\nxx").as_bytes(), Some(&path)).is_err());
    }
}
