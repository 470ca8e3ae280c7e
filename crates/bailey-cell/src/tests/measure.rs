//! The probe that measures a state.

use serde_json::json;

use super::*;

#[test]
fn labels_of_a_measure_say_whose_state_and_how_long() {
    let stack = "home".parse().unwrap();
    let labels = Asked::default().measure(Pace::Watching, labels);
    assert_eq!(labels["bailey.state"], "watching");
    for name in ["bailey.plugin", "bailey.lock"] {
        let mut less = labels.clone();
        less.remove(name);
        assert!(Identity::from_labels(&stack, &less).is_err(), "{name}");
    }
    let mut other = labels;
    other.insert("bailey.state".into(), "for ever".into());
    assert!(Identity::from_labels(&stack, &other).is_err());
}

#[test]
fn a_measure_sees_the_state_as_the_plugin_and_changes_nothing() {
    let mut asked = Asked::default();
    asked.locked.proposed.state = StateKind::Home;
    asked.locked.state_generation = 3;
    asked.locked.proposed.walls.state_limit.files = 9;
    let body = asked.measure(Pace::Once, value);
    let mounts = &body["HostConfig"]["Mounts"];
    assert_eq!(mounts.as_array().unwrap().len(), 1);
    assert_eq!(mounts[0]["Source"], "bailey-home.state.greet.3");
    assert_eq!(mounts[0]["Target"], "/state");
    assert_eq!(mounts[0]["ReadOnly"], true);
    assert_eq!(mounts[0]["VolumeOptions"]["NoCopy"], true);
    assert_eq!(body["User"], "20000:20000");
    assert_eq!(
        body["Entrypoint"],
        json!(["/socket-proxy", "probe", "state", "1073741824", "9", "once"])
    );
    for (pointer, expected) in walls() {
        assert_eq!(body.pointer(pointer), Some(&expected), "{pointer}");
    }
    for key in ["OpenStdin", "AttachStdin", "AttachStdout", "AttachStderr"] {
        assert_eq!(body[key], false, "{key}");
    }
    let mut credentialed = Asked::credentialed();
    credentialed.locked.proposed.state = StateKind::Data;
    let body = credentialed.measure(Pace::Watching, value);
    assert_eq!(body["User"], "1000:100");
    assert_eq!(body["HostConfig"]["Mounts"].as_array().unwrap().len(), 1);
}

#[test]
fn one_file_is_never_larger_than_the_whole_state() {
    let largest = |asked: &Asked| {
        let body = asked.cell(value);
        let of = |name: &str| {
            let limits = body["HostConfig"]["Ulimits"].as_array().unwrap().clone();
            limits.into_iter().find(|limit| limit["Name"] == name)
        };
        of("fsize").unwrap()["Hard"].as_u64().unwrap()
    };
    let mut asked = Asked::default();
    let tmp = asked.locked.proposed.limits.tmp_bytes;
    assert_eq!(largest(&asked), tmp);
    asked.locked.proposed.state = StateKind::Data;
    assert_eq!(largest(&asked), 1 << 30);
    asked.locked.proposed.walls.state_limit.total_bytes = 3 << 30;
    assert_eq!(largest(&asked), 3 << 30);
    asked.locked.proposed.walls.state_limit.total_bytes = 1;
    assert_eq!(largest(&asked), tmp);
    asked.untrusted = true;
    assert_eq!(largest(&asked), tmp);
}
