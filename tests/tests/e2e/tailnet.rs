//! The way in through the sidecar. Its image is not here, so a stand-in plays its part: it applies the header rules of `tailscale serve`
//! (tailscale's `addTailscaleIdentityHeaders`) and forwards to where the real serve.json points, from the network that the sidecar is on.

use anyhow::{Context as _, ensure};
use serde_json::Value;
use stack_tests::suite::Test;
use stack_tests::{Stack, checkout};

pub const TESTS: &[(&str, Test)] = &[
    (
        "the_sidecars_way_in_serves_tailnet_users_only",
        the_sidecars_way_in_serves_tailnet_users_only,
    ),
    (
        "nothing_on_the_mesh_reaches_the_gateways_http_ports",
        nothing_on_the_mesh_reaches_the_gateways_http_ports,
    ),
];

/// Arguments: the backend of serve.json, an API token. Prints one status per case.
const STAND_IN: &str = r#"
import http.client, json, sys
backend, token = sys.argv[1], sys.argv[2]
OWN = ("tailscale-user-login", "tailscale-user-name", "tailscale-user-profile-pic", "tailscale-funnel-request",
       "tailscale-headers-info", "tailscale-app-capabilities")

def serve(client_headers, node, path="/plugins"):
    # What a client sends under the sidecar's own names is deleted first; so are its X-Forwarded-*.
    headers = {n: v for n, v in client_headers.items() if n.lower() not in OWN and not n.lower().startswith("x-forwarded-")}
    if node == "funnel":
        headers["Tailscale-Funnel-Request"] = "?1"
    elif node == "user":
        headers.update({"Tailscale-User-Login": "alice@example.com", "Tailscale-User-Name": "Alice",
                        "Tailscale-Headers-Info": "https://tailscale.com/s/serve-headers"})
    headers.update({"X-Forwarded-For": "100.64.0.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "bailey.example.ts.net",
                    "Host": "bailey.example.ts.net"})
    host, port = backend.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.request("GET", path, headers=headers)
    return connection.getresponse().status

bearer = {"Authorization": "Bearer " + token}
print(json.dumps({
    "user_with_token": serve(bearer, "user"),
    "user_without_token": serve({}, "user"),
    "tagged_node": serve(bearer, "tagged"),
    "tagged_node_that_forges": serve({**bearer, "Tailscale-User-Login": "alice@example.com"}, "tagged"),
    "funnel": serve(bearer, "funnel"),
    "page": serve({"Accept": "text/html"}, "user", "/"),
}))
"#;

fn the_sidecars_way_in_serves_tailnet_users_only(stack: &Stack) -> anyhow::Result<()> {
    // Given the backend that the shipped serve.json names
    let serve: Value = serde_json::from_str(&std::fs::read_to_string(
        checkout().join("tailscale/serve.json"),
    )?)?;
    let backend = serve["Web"]["${TS_CERT_DOMAIN}:443"]["Handlers"]["/"]["Proxy"]
        .as_str()
        .context("no proxy in serve.json")?;
    let backend = backend
        .strip_prefix("http://")
        .context("the backend is not http")?;
    let token = std::fs::read_to_string(stack.home.join("secrets/api.token"))?;
    // when requests come through a stand-in on the sidecar's network
    let network = format!("{}_ingress", stack.project());
    let shown = stack.docker(&[
        "run",
        "--rm",
        "--pull",
        "never",
        "--network",
        &network,
        "--user",
        "10011:10011",
        "--entrypoint",
        "/usr/bin/python3",
        "bailey/base-python:current",
        "-c",
        STAND_IN,
        backend,
        token.trim(),
    ])?;
    // then only devices of a tailnet user are served, and they need a token too.
    let statuses: Value = serde_json::from_str(shown.trim())?;
    for (case, status) in [
        ("user_with_token", 200),
        ("user_without_token", 401),
        ("tagged_node", 403),
        ("tagged_node_that_forges", 403),
        ("funnel", 403),
        ("page", 200),
    ] {
        ensure!(
            statuses[case] == status,
            "{case} was answered {}, not {status}",
            statuses[case]
        );
    }
    Ok(())
}

fn nothing_on_the_mesh_reaches_the_gateways_http_ports(stack: &Stack) -> anyhow::Result<()> {
    let script = r#"
import socket
for host, port in (("gateway", 8080), ("gateway", 8443), ("engine", 7000)):
    try:
        socket.create_connection((host, port), timeout=5).close()
        print(host, port, "open")
    except OSError as error:
        print(host, port, "closed", error)
"#;
    let network = format!("{}_mesh", stack.project());
    let shown = stack.docker(&[
        "run",
        "--rm",
        "--pull",
        "never",
        "--network",
        &network,
        "--user",
        "10011:10011",
        "--entrypoint",
        "/usr/bin/python3",
        "bailey/base-python:current",
        "-c",
        script,
    ])?;
    ensure!(
        shown.contains("gateway 8080 closed") && shown.contains("gateway 8443 closed"),
        "{shown}"
    );
    // The control: a port that is open on the mesh.
    ensure!(shown.contains("engine 7000 open"), "{shown}");
    Ok(())
}
