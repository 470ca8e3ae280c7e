//! Each kind of body in full.

use bailey_types::{ImageId, Sha256};
use serde_json::{Value, json};

use super::*;

/// A change of any field shows up in review. To accept one: `UPDATE_GOLDEN=1 cargo test -p bailey-cell`.
#[test]
fn every_kind_is_as_in_its_golden_file() {
    let state = |state| {
        Asked::change(|asked| {
            asked.locked.proposed.state = state;
            asked.locked.proposed.base = Some(ImageId(Sha256([9; 32])));
        })
    };
    let mode = |mode| Asked::change(|asked| asked.locked.proposed.walls.mode = mode);
    let held = Asked::change(|asked| asked.holder = Some("ab".repeat(32)));
    let pooled = Asked::change(|asked| asked.seat = Seat::Pool { id: job() });
    let strong = Asked::change(|asked| {
        asked.locked.proposed.walls.runtime = Some("runsc".into());
    });
    for (name, body) in [
        ("cell", with_cell(value)),
        ("cell-state-data", state(StateKind::Data).cell(value)),
        ("cell-state-home", state(StateKind::Home).cell(value)),
        ("cell-credentialed", Asked::credentialed().cell(value)),
        ("cell-unconfined", mode(Mode::Unconfined).cell(value)),
        ("cell-untrusted", Asked::downgraded().cell(value)),
        ("cell-pooled", pooled.cell(value)),
        ("cell-held", held.cell(value)),
        ("cell-egress", Asked::with_egress().cell(value)),
        ("cell-runtime", strong.cell(value)),
        ("holder-pause", Asked::default().holder(value)),
        ("holder-egress", Asked::with_egress().holder(value)),
        ("probe", with_probe(value)),
        ("probe-paths", Asked::credentialed().probe(value)),
        ("probe-state", Asked::default().measure(Pace::Once, value)),
        (
            "probe-state-watching",
            Asked::default().measure(Pace::Watching, value),
        ),
    ] {
        golden(name, body);
    }
}

fn golden(name: &str, mut body: Value) {
    if let Some(option) = body.pointer_mut("/HostConfig/SecurityOpt/1") {
        let inline = option.as_str().unwrap().strip_prefix("seccomp=").unwrap();
        assert_eq!(inline, seccomp::profile_json());
        // Readable in one file instead of one escaped line in each.
        *option = if name == "cell" {
            json!({ "seccomp": serde_json::from_str::<Value>(inline).unwrap() })
        } else {
            json!("seccomp=<as in cell.json>")
        };
    }
    let found = serde_json::to_string_pretty(&body).unwrap() + "\n";
    let path = format!("{}/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert!(
        golden == found,
        "the body differs from golden/{name}.json:\n{found}"
    );
}
