//! The stack's description: as hard as hardening.json says, and with no way in but the two that are meant.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use bailey_types::Service;
use serde_json::Value;
use stack_tests::checkout;
use stack_tests::hardening::{self, Golden, Names, OWN_FIELDS};

const PROFILES: [&str; 2] = ["local", "tailnet"];
const ONE_SHOTS: [&str; 3] = ["init", "cli", "custody"];

fn all_profiles() -> Vec<&'static str> {
    [PROFILES.as_slice(), &ONE_SHOTS].concat()
}

fn names() -> Names {
    Names {
        home: "/srv/bailey".into(),
        project: "bailey-static".into(),
        port: 18_080,
        docker_gid: 4711,
    }
}

/// What Compose makes of compose.yaml. It needs no engine, and nothing of the machine's environment reaches it.
fn render(profiles: &[&str]) -> Value {
    let names = names();
    let mut command = Command::new("docker");
    command.args([
        "compose",
        "--env-file",
        "/dev/null",
        "--file",
        "compose.yaml",
    ]);
    for profile in profiles {
        command.args(["--profile", profile]);
    }
    command
        .args(["config", "--format", "json"])
        .current_dir(checkout())
        .stdin(Stdio::null());
    command
        .env("BAILEY_HOME", &names.home)
        .env("BAILEY_STACK", "static")
        .env("BAILEY_OWNER", "1000:1000");
    command
        .env("BAILEY_PORT", names.port.to_string())
        .env("DOCKER_GID", names.docker_gid.to_string());
    for inherited in [
        "BAILEY_TAG",
        "DOCKER_SOCKET",
        "COMPOSE_PROFILES",
        "COMPOSE_PROJECT_NAME",
        "COMPOSE_FILE",
    ] {
        command.env_remove(inherited);
    }
    let output = command.output().expect("docker compose is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn services(profiles: &[&str]) -> BTreeMap<String, Value> {
    let rendered = render(profiles);
    rendered["services"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, service)| (name.clone(), service.clone()))
        .collect()
}

/// Names of the services on a network.
fn on_network(services: &BTreeMap<String, Value>, network: &str) -> BTreeSet<String> {
    let on = services
        .iter()
        .filter(|(_, service)| service["networks"].get(network).is_some());
    on.map(|(name, _)| name.clone()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn every_service_is_as_hard_as_the_golden_file_says() {
    let golden = Golden::read().unwrap();
    let rendered = render(&all_profiles());
    let services = rendered["services"].as_object().unwrap();
    let mut wrong = Vec::new();
    for (name, service) in services {
        let found = hardening::of_compose(service, &rendered["secrets"]).unwrap();
        let expected = golden.expected(name, &names()).unwrap();
        wrong.extend(
            hardening::differences(&expected, &found)
                .iter()
                .map(|line| format!("{name}: {line}")),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let described: BTreeSet<_> = golden.containers.keys().collect();
    assert_eq!(
        described,
        services.keys().collect(),
        "hardening.json and the compose files name different containers"
    );
}

#[test]
fn every_exception_is_used_and_has_a_reason() {
    let golden = Golden::read().unwrap();
    for exception in &golden.exceptions {
        let usual = golden.every_container.get(&exception.field);
        assert_ne!(usual, Some(&exception.value), "{exception:?} is none");
        assert!(
            golden.containers.contains_key(&exception.container) && !exception.reason.is_empty(),
            "{exception:?}"
        );
    }
    for (name, own) in &golden.containers {
        let hidden: Vec<_> = own
            .keys()
            .filter(|field| !OWN_FIELDS.contains(&field.as_str()))
            .collect();
        assert!(
            hidden.is_empty(),
            "{name}: {hidden:?} must be among the exceptions, with a reason"
        );
    }
    for (field, value) in &golden.cell {
        let differs = golden
            .every_container
            .get(field)
            .is_some_and(|usual| usual != value);
        assert_eq!(
            differs,
            golden.cell_differs_because.contains_key(field),
            "cell: {field}"
        );
    }
}

#[test]
fn whatever_the_runner_makes_is_as_hard_as_the_golden_file_says() {
    let golden = Golden::read().unwrap();
    let (mut wrong, mut bodies) = (Vec::new(), BTreeSet::new());
    for entry in std::fs::read_dir(checkout().join("crates/bailey-cell/golden")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut expected = golden.cell.clone();
        for exception in golden.derived.iter().filter(|e| e.container == name) {
            let usual = expected.insert(exception.field.clone(), exception.value.clone());
            assert_ne!(
                usual.as_ref(),
                Some(&exception.value),
                "{exception:?} is none"
            );
        }
        let found = hardening::of_create_body(&path, &names()).unwrap();
        let differences = hardening::differences(&expected, &found);
        wrong.extend(differences.iter().map(|line| format!("{name}: {line}")));
        bodies.insert(name);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for exception in &golden.derived {
        assert!(
            bodies.contains(&exception.container) && !exception.reason.is_empty(),
            "{exception:?}"
        );
    }
    assert!(bodies.len() > 10, "only {bodies:?}");
}

#[test]
fn one_port_is_published_on_loopback_and_only_without_a_tailnet() {
    for (profile, expected) in [("local", Some("ingress-local")), ("tailnet", None)] {
        let services = services(&[&[profile], ONE_SHOTS.as_slice()].concat());
        let publishing: Vec<_> = services
            .iter()
            .filter(|(_, s)| s["ports"].as_array().is_some_and(|p| !p.is_empty()))
            .collect();
        assert_eq!(
            publishing.iter().map(|(name, _)| name.as_str()).next(),
            expected,
            "{profile}"
        );
        for (_, service) in publishing {
            let ports = service["ports"].as_array().unwrap();
            assert_eq!(
                (ports.len(), ports[0]["host_ip"].as_str()),
                (1, Some("127.0.0.1"))
            );
        }
        // `network_mode: host` would publish everything, `service:` would lend a port to somebody else.
        let modes: BTreeSet<_> = services
            .values()
            .filter_map(|s| s["network_mode"].as_str())
            .collect();
        assert!(modes.iter().all(|mode| *mode == "none"), "{modes:?}");
    }
}

#[test]
fn each_network_has_exactly_its_members() {
    let core: Vec<&str> = Service::ALL.iter().map(|service| service.name()).collect();
    for profile in PROFILES {
        let services = services(&[&[profile], ONE_SHOTS.as_slice()].concat());
        let local = profile == "local";
        assert_eq!(on_network(&services, "mesh"), set(&core));
        let ingress = if local {
            set(&["gateway"])
        } else {
            set(&["gateway", "tailscale"])
        };
        assert_eq!(on_network(&services, "ingress"), ingress);
        let loopback = if local {
            set(&["gateway", "ingress-local"])
        } else {
            set(&["gateway"])
        };
        assert_eq!(on_network(&services, "ingress-local"), loopback);
        let outside = if local {
            set(&["egress-proxy"])
        } else {
            set(&["egress-proxy", "tailscale"])
        };
        assert_eq!(on_network(&services, "outside"), outside);
        let published = if local {
            set(&["ingress-local"])
        } else {
            set(&[])
        };
        assert_eq!(on_network(&services, "local"), published);
        assert_eq!(
            on_network(&services, "default"),
            set(&[]),
            "who names no network gets a way out"
        );
    }
}

#[test]
fn a_local_name_of_a_plugin_never_gets_a_search_domain() {
    let services = services(&["local"]);
    assert_eq!(
        services["egress-proxy"]["dns_search"],
        serde_json::json!(["."])
    );
}

#[test]
fn only_two_networks_leave_the_host_and_one_of_them_without_an_answer() {
    let rendered = render(&PROFILES);
    let networks = rendered["networks"].as_object().unwrap();
    let open: BTreeSet<_> = networks
        .iter()
        .filter(|(_, n)| n["internal"] != true)
        .map(|(name, _)| name.clone())
        .collect();
    assert_eq!(open, set(&["local", "outside"]));
    assert_eq!(
        networks["local"]["driver_opts"]["com.docker.network.bridge.enable_ip_masquerade"],
        "false"
    );
    assert!(
        networks.values().all(|n| n["external"] != true),
        "a network of somebody else"
    );
}

#[test]
fn the_docker_socket_and_each_secret_have_one_holder() {
    let rendered = render(&all_profiles());
    let mut holders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, service) in rendered["services"].as_object().unwrap() {
        for secret in service["secrets"].as_array().into_iter().flatten() {
            holders
                .entry(secret["source"].as_str().unwrap().into())
                .or_default()
                .insert(name.clone());
        }
        for mount in service["volumes"].as_array().into_iter().flatten() {
            if mount["source"].as_str().unwrap().ends_with("docker.sock") {
                holders
                    .entry("docker.sock".into())
                    .or_default()
                    .insert(name.clone());
            }
        }
    }
    assert_eq!(holders["docker.sock"], set(&["socket-proxy"]));
    assert_eq!(holders["age.key"], set(&["broker"]));
    for service in Service::ALL {
        assert_eq!(
            holders[&format!("enroll-{service}")],
            set(&[service.name()])
        );
    }
    let shared: Vec<_> = holders.iter().filter(|(_, who)| who.len() != 1).collect();
    assert!(shared.is_empty(), "{shared:?}");
}

#[test]
fn nothing_secret_is_in_an_environment_a_command_or_a_label() {
    for (name, service) in services(&all_profiles()) {
        let environment = service["environment"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        for (variable, value) in environment {
            let value = value.as_str().unwrap_or_default().to_owned();
            let key = variable.contains("KEY")
                || variable.contains("TOKEN")
                || variable.contains("SECRET");
            assert!(
                !key || value.starts_with("file:/run/secrets/"),
                "{name}: {variable} is no file"
            );
        }
        assert!(
            service["labels"]
                .as_object()
                .is_none_or(serde_json::Map::is_empty),
            "{name} has labels"
        );
        let image = service["image"].as_str().unwrap();
        let ours = image.starts_with("bailey/");
        assert_eq!(
            service["pull_policy"],
            if ours { "never" } else { "missing" },
            "{name}"
        );
        assert_eq!(ours, name != "tailscale", "{name} runs {image}");
    }
}

/// `bailey token create`, `vault init` and `vault keygen` print what opens the stack: the engine must not keep it.
#[test]
fn what_prints_secrets_has_no_log() {
    for (name, service) in services(&all_profiles()) {
        let prints = matches!(name.as_str(), "cli" | "custody");
        let expected = if prints { "none" } else { "json-file" };
        assert_eq!(service["logging"]["driver"], expected, "{name}");
    }
}

#[test]
fn every_uid_is_that_of_its_service() {
    let services = services(&PROFILES);
    for service in Service::ALL {
        assert_eq!(
            services[service.name()]["user"],
            format!("{0}:{0}", service.uid()),
            "{service}"
        );
    }
}
