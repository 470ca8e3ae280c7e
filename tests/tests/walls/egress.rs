//! The way out: what a plugin can reach that was granted something, and what not.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use stack_tests::suite::Test;
use stack_tests::{Stack, fixture};

use crate::control::{CELL, Control, in_cell, in_cell_of};
use crate::outside::Outside;

pub const TESTS: &[(&str, Test)] = &[
    (
        "real_clients_get_out_to_what_is_granted",
        real_clients_get_out_to_what_is_granted,
    ),
    (
        "ssh_runs_a_command_on_a_granted_host",
        ssh_runs_a_command_on_a_granted_host,
    ),
    (
        "what_is_not_granted_is_refused",
        what_is_not_granted_is_refused,
    ),
    (
        "a_program_that_knows_no_proxy_has_no_route",
        a_program_that_knows_no_proxy_has_no_route,
    ),
];

/// Addresses that no plugin may reach unless they are written down; the last one is.
const ADDRESSES: [&str; 5] = [
    "169.254.169.254",
    "100.100.100.100",
    "10.98.76.54",
    "192.168.99.99",
    "203.0.113.9",
];

fn real_clients_get_out_to_what_is_granted(stack: &Stack) -> anyhow::Result<()> {
    let outside = Outside::start(stack)?;
    outside.stand_for(&["203.0.113.9"])?;
    let payload = json!({"host": "granted.test", "ca": outside.ca()?, "tools": true});
    let found = in_cell_of(stack, "walls_out", "clients", &payload)?;
    for client in ["urllib", "urllib_tls", "curl", "curl_socks"] {
        ensure!(found[client] == "outside", "{client}: {found}");
    }
    ensure!(
        found["cloned"] == true && found["git"] == "",
        "git: {found}"
    );
    // With the same programs, who is granted nothing gets nothing.
    let found = in_cell(
        stack,
        "clients",
        &json!({"host": "granted.test", "ca": outside.ca()?}),
    )?;
    ensure!(
        found["urllib"]
            .as_str()
            .is_some_and(|text| text.starts_with("failed"))
            && found["urllib_tls"]
                .as_str()
                .is_some_and(|text| text.starts_with("failed")),
        "without egress: {found}"
    );
    Ok(())
}

fn ssh_runs_a_command_on_a_granted_host(stack: &Stack) -> anyhow::Result<()> {
    // Given a server that knows one key, which is a secret of the plugin, the server's own key in the request, and the helper that
    // docs/how-to/egress.md tells to use,
    let outside = Outside::start(stack)?;
    outside.stand_for(&["203.0.113.9"])?;
    fixture::seal_secret(stack, "walls_key", &outside.key()?, "walls_out")?;
    let known = outside.known_hosts()?;
    let connect = bailey_test::documented_connect();
    let ssh = |key: &str, host: &str| {
        let payload = json!({"host": host, "key": key, "known_hosts": known, "connect": connect});
        in_cell_of(stack, "walls_out", "ssh", &payload)
    };
    // when it runs a command there, then the command ran, as the server's user;
    let ran = ssh("walls_key", "granted.test")?;
    ensure!(
        ran == json!({"code": 0, "said": "walls on outside"}),
        "{ran}"
    );
    // without the key it does not, and where nothing is granted no server is spoken to.
    let keyless = ssh("", "granted.test")?;
    ensure!(
        keyless["code"] == 255
            && keyless["said"]
                .as_str()
                .is_some_and(|said| said.contains("Permission denied (publickey)")),
        "without its key: {keyless}"
    );
    let elsewhere = ssh("walls_key", "hidden.test")?;
    ensure!(
        elsewhere["code"] == 255
            && elsewhere["said"]
                .as_str()
                .is_some_and(|said| said.contains(" 403 ")),
        "where nothing is granted: {elsewhere}"
    );
    Ok(())
}

fn all(found: &Value, targets: &[String], answer: &str) -> bool {
    targets.iter().all(|target| found[target] == answer)
}

fn what_is_not_granted_is_refused(stack: &Stack) -> anyhow::Result<()> {
    let outside = Outside::start(stack)?;
    outside.stand_for(&ADDRESSES)?;
    let at = |host: &&str| format!("{host}:80");
    let addresses: Vec<String> = ADDRESSES.iter().map(at).collect();
    let (granted, forbidden) = addresses.split_last().context("no addresses")?;
    // Given that all of it can be reached from where egress-proxy is,
    let proxy = format!("container:{}", stack.service("egress-proxy")?);
    let beside = Control {
        network: &proxy,
        ..CELL
    };
    let names = [
        "hidden.test:80".to_owned(),
        "near.test:80".to_owned(),
        "below.granted.example:80".to_owned(),
    ];
    let targets = [&addresses[..], &names].concat();
    let reached = beside.observes(
        stack,
        "connect",
        &json!({"anywhere": true, "targets": targets}),
    )?;
    ensure!(
        all(&reached, &targets, "connected"),
        "the control: {reached}"
    );
    // when a plugin asks for it, then only what was written down is had: not another port, a name that leads home, a service of the stack,
    let more = [
        "granted.test:81",
        "localhost:80",
        "127.0.0.1:80",
        "broker:7000",
        "engine:7000",
        "0xa9fea9fe:80",
    ];
    let more: Vec<String> = more.iter().map(|&target| target.to_owned()).collect();
    let refused = [forbidden, &names, &more].concat();
    let had = [granted.clone(), "granted.test:80".to_owned()];
    let payload = json!({"targets": ([&refused[..], &had].concat())});
    let found = in_cell_of(stack, "walls_out", "ask", &payload)?;
    let answers: Vec<_> = refused
        .iter()
        .filter(|target| found[*target] == "200" || found[*target].is_null())
        .collect();
    ensure!(answers.is_empty(), "{answers:?}: {found}");
    ensure!(all(&found, forbidden, "403"), "{found}");
    ensure!(
        found[granted] == "200" && found["granted.test:80"] == "200",
        "the control: {found}"
    );
    // and another plugin has its own hosts only.
    let payload = json!({"targets": ["hidden.test:80", "granted.test:80"]});
    let found = in_cell_of(stack, "walls_out_sibling", "ask", &payload)?;
    ensure!(
        found == json!({"hidden.test:80": "200", "granted.test:80": "403"}),
        "the sibling: {found}"
    );
    Ok(())
}

fn a_program_that_knows_no_proxy_has_no_route(stack: &Stack) -> anyhow::Result<()> {
    let outside = Outside::start(stack)?;
    let address = format!("{}:80", outside.address()?);
    let payload = json!({"targets": ["granted.test:80", address, "203.0.113.9:80"]});
    let found = in_cell_of(stack, "walls_out", "direct", &payload)?;
    ensure!(
        found["granted.test:80"] == "no such name"
            && found[&address] == "ENETUNREACH"
            && found["203.0.113.9:80"] == "ENETUNREACH"
            && found["interfaces"] == json!(["lo"]),
        "in a cell: {found}"
    );
    let network = format!("{}_outside", stack.project());
    let control = Control {
        network: &network,
        ..CELL
    };
    let payload = json!({"targets": ["granted.test:80", address]});
    let found = control.observes(stack, "direct", &payload)?;
    ensure!(
        found["granted.test:80"] == "connected" && found[&address] == "connected",
        "the control: {found}"
    );
    Ok(())
}
