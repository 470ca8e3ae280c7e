//! Each service in the hands of somebody else: with its identity, what can be had is what the caller table gives it, and no statement of
//! the captor's own counts. The secrets of broker and init are the roots themselves; there is nothing to show of those.

use anyhow::{Context as _, ensure};
use bailey_mesh::callers;
use bailey_types::Service;
use serde_json::{Value, json};
use stack_tests::Stack;
use stack_tests::suite::Test;

use crate::captor::CONTROL;

pub const TESTS: &[(&str, Test)] = &[
    ("a_captor_of_the_gateway_has_its_methods_only", gateway),
    ("a_captor_of_the_engine_has_its_methods_only", engine),
    ("a_captor_of_the_policy_has_its_methods_only", policy),
    ("a_captor_of_the_runner_has_its_methods_only", runner),
    (
        "a_captor_of_the_runner_has_pools_that_are_locked_only",
        a_captor_of_the_runner_has_pools_that_are_locked_only,
    ),
    ("a_captor_of_the_scheduler_has_its_methods_only", scheduler),
    ("a_captor_of_the_audit_has_its_methods_only", audit),
    ("a_captor_of_the_worker_has_its_methods_only", worker),
    (
        "a_captor_of_the_socket_proxy_has_its_methods_only",
        socket_proxy,
    ),
    (
        "a_captor_of_the_egress_proxy_has_its_methods_only",
        egress_proxy,
    ),
];

/// What the captor of the runner was answered who wants cells of these plugins started ahead.
pub fn pools(stack: &Stack, plugins: &[&str]) -> anyhow::Result<Value> {
    answers(stack, Service::Runner, plugins)
}

/// What the captor of `service` was answered.
fn answers(stack: &Stack, service: Service, pooled: &[&str]) -> anyhow::Result<Value> {
    let network = format!("{}_mesh", stack.project());
    let container = stack.inspect(&stack.service(service.name())?)?;
    let user = container["Config"]["User"].as_str().context("no user")?;
    let program = format!("{}:/captor:ro", std::env::current_exe()?.display());
    let config = format!("{}:/config:ro", stack.home.join("config").display());
    let name = format!("enroll-{service}");
    let secret = stack.home.join("secrets").join(&name);
    let secret = format!("{}:/run/secrets/{name}:ro", secret.display());
    let mut args = vec!["run", "--rm", "--pull", "never", "--network", &network];
    args.extend(["--user", user, "--cap-drop", "ALL", "--read-only"]);
    args.extend([
        "--volume", &program, "--volume", &config, "--volume", &secret,
    ]);
    args.extend(["--entrypoint", "/captor", "bailey/base-none:current"]);
    args.extend(["captor", service.name()]);
    args.extend(pooled);
    let shown = stack.docker(&args)?;
    serde_json::from_str(shown.trim()).with_context(|| format!("no JSON: {shown}"))
}

/// Everything that the table does not give is refused; what it gives to everybody is not.
fn has_its_methods_only(stack: &Stack, service: Service) -> anyhow::Result<Value> {
    let answers = answers(stack, service, &[])?;
    let mut wrong = Vec::new();
    let mut refused = 0;
    for (path, callers) in callers::TABLE {
        if callers.admit(Some(service)) {
            continue;
        }
        refused += 1;
        if answers[*path] != "PermissionDenied" {
            wrong.push(format!("{path}: {}", answers[*path]));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(refused > 5, "only {refused} methods are refused");
    ensure!(
        answers[CONTROL] == "Ok",
        "the control: {}",
        answers[CONTROL]
    );
    Ok(answers["forged"].clone())
}

fn gateway(stack: &Stack) -> anyhow::Result<()> {
    let forged = has_its_methods_only(stack, Service::Gateway)?;
    ensure!(forged == json!({"job": "PermissionDenied"}), "{forged}");
    Ok(())
}

fn engine(stack: &Stack) -> anyhow::Result<()> {
    let forged = has_its_methods_only(stack, Service::Engine)?;
    ensure!(forged == json!({"decision": "origin_invalid"}), "{forged}");
    Ok(())
}

fn policy(stack: &Stack) -> anyhow::Result<()> {
    has_its_methods_only(stack, Service::Policy).map(drop)
}

fn runner(stack: &Stack) -> anyhow::Result<()> {
    let forged = has_its_methods_only(stack, Service::Runner)?;
    ensure!(forged == json!({"ticket": "PermissionDenied"}), "{forged}");
    Ok(())
}

fn a_captor_of_the_runner_has_pools_that_are_locked_only(stack: &Stack) -> anyhow::Result<()> {
    let plugins = [
        "walls",
        "walls_data",
        "walls_home",
        "walls_out",
        "walls_operator",
        "nobody",
        "walls_warm",
    ];
    let answers = pools(stack, &plugins)?;
    // No cell where none is locked, none that could do anything before it is asked, none of a stranger; as many as are locked of the last.
    ensure!(
        answers
            == json!({
                "walls": "not_pooled",
                "walls_data": "not_pooled",
                "walls_home": "not_pooled",
                "walls_out": "not_pooled",
                "walls_operator": "not_pooled",
                "nobody": "plugin_not_locked",
                "walls_warm": 1,
            }),
        "{answers}"
    );
    Ok(())
}

fn scheduler(stack: &Stack) -> anyhow::Result<()> {
    let forged = has_its_methods_only(stack, Service::Scheduler)?;
    ensure!(forged == json!({"job": "PermissionDenied"}), "{forged}");
    Ok(())
}

fn audit(stack: &Stack) -> anyhow::Result<()> {
    has_its_methods_only(stack, Service::Audit).map(drop)
}

fn worker(stack: &Stack) -> anyhow::Result<()> {
    has_its_methods_only(stack, Service::Worker).map(drop)
}

fn socket_proxy(stack: &Stack) -> anyhow::Result<()> {
    has_its_methods_only(stack, Service::SocketProxy).map(drop)
}

fn egress_proxy(stack: &Stack) -> anyhow::Result<()> {
    has_its_methods_only(stack, Service::EgressProxy).map(drop)
}
