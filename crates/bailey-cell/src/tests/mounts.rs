//! What of the host and of itself a cell sees.

use bailey_trust::{Mode, StateKind};
use bailey_types::{ImageId, Sha256};
use serde_json::{Value, json};

use super::{Asked, value};

#[test]
fn each_state_has_its_place_and_its_generation() {
    let mut asked = Asked::default();
    asked.locked.state_generation = 3;
    for (state, target, homes) in [
        (StateKind::Data, "/state", 2),
        (StateKind::Home, "/home/plugin", 1),
    ] {
        asked.locked.proposed.state = state;
        asked.locked.proposed.base = None;
        let copies =
            |body: &Value| body["HostConfig"]["Mounts"][0]["VolumeOptions"]["NoCopy"] == false;
        assert!(!copies(&asked.cell(value)), "of an image by reference");
        asked.locked.proposed.base = Some(ImageId(Sha256([9; 32])));
        let body = asked.cell(value);
        assert!(copies(&body));
        let mount = &body["HostConfig"]["Mounts"][0];
        assert_eq!(mount["Source"], "bailey-home.state.greet.3");
        assert_eq!(mount["Target"], target);
        assert_eq!(
            body["HostConfig"]["Tmpfs"].as_object().unwrap().len(),
            homes
        );
    }
}

#[test]
fn host_paths_are_for_credentialed_accounts_alone() {
    let mut asked = Asked::credentialed();
    asked.locked.proposed.walls.mode = Mode::Confined;
    assert_eq!(asked.cell(value)["HostConfig"]["Mounts"], json!([]));
    // A probe writes nowhere, and compares what is locked.
    let probe = Asked::credentialed().probe(value);
    let mounts = probe["HostConfig"]["Mounts"].as_array().unwrap().clone();
    assert!(mounts.len() == 2 && mounts.iter().all(|m| m["ReadOnly"] == true));
    assert_eq!(
        probe["Entrypoint"],
        json!([
            "/socket-proxy",
            "probe",
            "paths",
            "64513:42:/home/op/notes",
            "64513:42:/srv/photos"
        ])
    );
}
