//! `bailey pki`.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bailey_proto::management::v1::pki_service_client::PkiServiceClient;
use bailey_proto::management::v1::{
    Intermediate, PkiStatusRequest, PkiStatusResponse, RotateIntermediateRequest,
    ServiceCertificate,
};
use bailey_types::{Clock, Timestamp};
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::Misconfigured;
use crate::cli::pki::{NewRootArgs, PkiVerb};
use crate::home::Home;
use crate::manage::{self, Admin, refused};
use crate::output::{Done, Out, day, plain};

pub(super) async fn run(home: &Home, verb: &PkiVerb, out: &mut Out) -> anyhow::Result<Done> {
    match verb {
        PkiVerb::Status => status(home, out).await,
        PkiVerb::Rotate => rotate(home, out).await,
        PkiVerb::NewRoot(args) => new_root(home, args, out),
    }
}

async fn client(home: &Home) -> anyhow::Result<PkiServiceClient<Channel>> {
    Ok(PkiServiceClient::new(
        manage::connect(home, "broker").await?,
    ))
}

async fn status(home: &Home, out: &mut Out) -> anyhow::Result<Done> {
    let status = client(home)
        .await?
        .pki_status(PkiStatusRequest {})
        .await
        .map_err(refused("broker"))?
        .into_inner();
    if home.json() {
        out.json(&as_json(&status))?;
        return Ok(Done::Well);
    }
    if let Some(root) = &status.root {
        out.line(format_args!("root CA, SHA-256 {}", plain(&root.sha256)));
        let (since, until) = (day(root.not_before_ms), day(root.not_after_ms));
        out.line(format_args!("valid from {since} to {until}"));
        out.line("");
        let intermediates: Vec<_> = status.intermediates.iter().map(intermediate).collect();
        out.table(["INTERMEDIATE", "SINCE", "UNTIL", ""], &intermediates);
        out.line("");
        let services: Vec<_> = status.services.iter().map(service).collect();
        out.table(
            ["SERVICE", "CERTIFICATE", "INTERMEDIATE", "ISSUED", "UNTIL"],
            &services,
        );
    }
    if !status.warnings.is_empty() {
        out.line("");
    }
    for warning in &status.warnings {
        out.line(format_args!("warning: {}", plain(warning)));
    }
    Ok(Done::Well)
}

fn intermediate(of: &Intermediate) -> [String; 4] {
    let state = if of.retired_at_ms == 0 {
        "in use".to_owned()
    } else {
        let (at, last) = (minute(of.retired_at_ms), minute(of.last_certificate_ms));
        format!("retired {at}, its last certificate ends {last}")
    };
    let (since, until) = (day(of.not_before_ms), day(of.not_after_ms));
    [short(&of.serial), since, until, state]
}

fn service(of: &ServiceCertificate) -> [String; 5] {
    if of.serial.is_empty() {
        let unheard = "not heard of since the broker started".to_owned();
        return [
            plain(&of.service),
            unheard,
            String::new(),
            String::new(),
            String::new(),
        ];
    }
    let from = if of.intermediate.is_empty() {
        "unknown".to_owned()
    } else {
        short(&of.intermediate)
    };
    let (issued, until) = (minute(of.issued_at_ms), minute(of.not_after_ms));
    [plain(&of.service), short(&of.serial), from, issued, until]
}

/// Enough of a serial to tell two apart; `--json` has all of it.
fn short(serial: &str) -> String {
    plain(serial).chars().take(16).collect()
}

fn minute(ms: i64) -> String {
    Timestamp(ms).to_utc().format("%Y-%m-%dT%H:%MZ").to_string()
}

fn as_json(status: &PkiStatusResponse) -> Value {
    let time = |ms: i64| (ms != 0).then(|| Timestamp(ms).to_rfc3339());
    let root = status.root.as_ref().map(|root| {
        json!({ "sha256": root.sha256, "not_before": time(root.not_before_ms), "not_after": time(root.not_after_ms) })
    });
    let intermediates = status.intermediates.iter().map(|of| {
        json!({
            "serial": of.serial, "not_before": time(of.not_before_ms), "not_after": time(of.not_after_ms),
            "in_use": of.retired_at_ms == 0, "retired_at": time(of.retired_at_ms), "last_certificate_ends": time(of.last_certificate_ms),
        })
    });
    let services = status.services.iter().map(|of| {
        let heard = !of.serial.is_empty();
        let intermediate = (!of.intermediate.is_empty()).then_some(&of.intermediate);
        json!({
            "service": of.service, "serial": heard.then_some(&of.serial), "intermediate": intermediate,
            "issued_at": time(of.issued_at_ms), "not_after": time(of.not_after_ms), "current": of.current,
        })
    });
    json!({
        "root": root, "intermediates": intermediates.collect::<Vec<_>>(), "services": services.collect::<Vec<_>>(),
        "warnings": status.warnings,
    })
}

async fn rotate(home: &Home, out: &mut Out) -> anyhow::Result<Done> {
    let admin = Admin::read(home.admin_token_file())?;
    let rotated = client(home)
        .await?
        .rotate_intermediate(admin.request(RotateIntermediateRequest {}))
        .await
        .map_err(refused("broker"))?
        .into_inner();
    if home.json() {
        out.json(&json!({
            "serial": rotated.serial, "replaced": rotated.replaced,
            "last_certificate_ends": Timestamp(rotated.last_certificate_ms).to_rfc3339(),
        }))?;
        return Ok(Done::Well);
    }
    out.line(format_args!(
        "issuing from the intermediate {} now, instead of {}",
        short(&rotated.serial),
        short(&rotated.replaced)
    ));
    out.line("every service renews its certificate within a minute: bailey pki status");
    Ok(Done::Well)
}

fn new_root(home: &Home, args: &NewRootArgs, out: &mut Out) -> anyhow::Result<Done> {
    let config = home.config_dir();
    let secrets = args
        .secrets_dir
        .clone()
        .unwrap_or_else(|| home.secrets_dir());
    // Held until the files are in their places: no broker starts with half of them.
    let _stopped = stopped(&args.vault_dir)?;
    let kept = bailey_roots::make_new_root(&config, &secrets, Clock::system().now())
        .context("making a new root")?;
    if super::init::is_root()? {
        bailey_roots::own(&config, &secrets).context("giving each secret to its reader")?;
    }
    out.line("made a new root CA and an intermediate; all other keys, the vault and the data are as they were");
    for path in kept {
        let shown = on_the_host(&path, &config, &secrets);
        out.line(format_args!("kept the old {}", shown.display()));
    }
    out.line("start the stack (make up), then have browsers and clients trust the new config/ca.pem instead of the old one");
    Ok(Done::Well)
}

/// A path in the container as it is called in the stack's folder.
fn on_the_host(path: &Path, config: &Path, secrets: &Path) -> PathBuf {
    let below = |dir: &Path, name: &str| Some(Path::new(name).join(path.strip_prefix(dir).ok()?));
    below(secrets, "secrets")
        .or_else(|| below(config, "config"))
        .unwrap_or_else(|| path.to_owned())
}

/// Takes the broker's folder, which a broker that runs has locked.
fn stopped(path: &Path) -> anyhow::Result<Option<File>> {
    let lock = match File::open(path) {
        Ok(lock) => lock,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("opening {}", path.display())),
    };
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Err(Misconfigured(
            "the stack is running: stop it first (make down); services that know the old root would refuse the new one"
                .to_owned(),
        )
        .into()),
        Err(TryLockError::Error(e)) => {
            Err(e).with_context(|| format!("locking {}", path.display()))
        }
    }
}
