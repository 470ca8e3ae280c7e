//! `bailey audit verify`.

use std::path::PathBuf;

use bailey_audit_log::verify_dir;
use bailey_trust::TrustFile;
use bailey_types::Clock;
use serde_json::json;

use crate::cli::VerifyArgs;
use crate::home::Home;
use crate::output::{Done, Out, count};

pub(super) fn verify(home: &Home, args: &VerifyArgs, out: &mut Out) -> anyhow::Result<Done> {
    let dir = args
        .dir
        .clone()
        .unwrap_or_else(|| PathBuf::from("/audit/log"));
    let trust = TrustFile::read(&args.trust.clone().unwrap_or_else(|| home.trust_file()))?;
    let report = verify_dir(&dir, &trust, Clock::system().now(), args.max_age.0)?;
    let root = report.checkpoint.root.to_string();
    if home.json() {
        let cosigned = report
            .cosigned
            .iter()
            .map(|by| json!({ "service": by.service, "size": by.size, "at": by.at.to_rfc3339() }));
        out.json(&json!({
            "ok": true,
            "size": report.checkpoint.size,
            "root": root,
            "from": report.from_until.map(|(from, _)| from.to_rfc3339()),
            "until": report.from_until.map(|(_, until)| until.to_rfc3339()),
            "cosigned": cosigned.collect::<Vec<_>>(),
        }))?;
        return Ok(Done::Well);
    }
    out.line(format_args!("entries     {}", report.checkpoint.size));
    out.line(format_args!("root        {root}"));
    if let Some((from, until)) = report.from_until {
        out.line(format_args!("from        {from}\nuntil       {until}"));
    }
    for by in &report.cosigned {
        out.line(format_args!(
            "co-signed   by {}, {}, {}",
            by.service,
            count(by.size, "entry"),
            by.at
        ));
    }
    out.line("result      every entry, hash and signature is as it must be");
    Ok(Done::Well)
}
