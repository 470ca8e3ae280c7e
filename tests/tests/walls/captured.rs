//! Each service in the hands of somebody else: with its identity, what can be had is what the caller table gives it, and no statement of
//! the captor's own counts. The secrets of broker and init are the roots themselves; there is nothing to show of those.

use anyhow::{Context as _, ensure};
use bailey_mesh::callers;
use bailey_types::Service;
use serde_json::{Value, json};
use stack_tests::Stack;
use stack_tests::suite::Test;

use crate::MODEL_KEY;
use crate::captor::CONTROL;

const DECIDE: &str = "/bailey.policy.v1.DecisionService/Decide";
const TICKET: &str = "/bailey.broker.v1.TicketService/MakeTicket";
const SIGN: &str = "/bailey.broker.v1.OperationService/SignHmac";
const VERIFY: &str = "/bailey.broker.v1.OperationService/VerifyHmac";
const RELEASE: &str = "/bailey.broker.v1.UpstreamKeyService/ReleaseKey";
const EXCHANGE: &str = "/bailey.egress.v1.UpstreamService/Exchange";

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

/// Everything that the table does not give is refused; what it gives to everybody is not. The answers are those to the rest.
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
    Ok(answers)
}

/// None of these may be called.
fn are_refused(answers: &Value, methods: &[&str]) -> anyhow::Result<()> {
    for method in methods {
        let answer = &answers[*method];
        ensure!(answer == "PermissionDenied", "{method}: {answer}");
    }
    Ok(())
}

fn gateway(stack: &Stack) -> anyhow::Result<()> {
    let answers = has_its_methods_only(stack, Service::Gateway)?;
    let forged = &answers["forged"];
    ensure!(*forged == json!({"job": "PermissionDenied"}), "{forged}");
    // It has what comes in checked, and has nothing signed, no key, and no way out.
    let permitted = &answers["permitted"];
    let expected = json!({"verified": [true, false]});
    ensure!(*permitted == expected, "{permitted}");
    are_refused(&answers, &[SIGN, RELEASE, EXCHANGE])
}

fn engine(stack: &Stack) -> anyhow::Result<()> {
    let answers = has_its_methods_only(stack, Service::Engine)?;
    let forged = &answers["forged"];
    let expected = json!({"decision": "origin_invalid", "ticket": "bad_decision"});
    ensure!(*forged == expected, "{forged}");
    // It uses upstreams, and never has a key.
    are_refused(&answers, &[SIGN, VERIFY, RELEASE])
}

fn policy(stack: &Stack) -> anyhow::Result<()> {
    has_its_methods_only(stack, Service::Policy).map(drop)
}

fn runner(stack: &Stack) -> anyhow::Result<()> {
    let answers = has_its_methods_only(stack, Service::Runner)?;
    // It cannot even ask for what it is to launch.
    are_refused(&answers, &[DECIDE, TICKET])
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
    let forged = &has_its_methods_only(stack, Service::Scheduler)?["forged"];
    ensure!(*forged == json!({"job": "PermissionDenied"}), "{forged}");
    Ok(())
}

fn audit(stack: &Stack) -> anyhow::Result<()> {
    has_its_methods_only(stack, Service::Audit).map(drop)
}

fn worker(stack: &Stack) -> anyhow::Result<()> {
    let answers = has_its_methods_only(stack, Service::Worker)?;
    // It has what goes out signed.
    let permitted = &answers["permitted"];
    ensure!(*permitted == json!({"signed": true}), "{permitted}");
    are_refused(&answers, &[VERIFY, RELEASE])
}

fn socket_proxy(stack: &Stack) -> anyhow::Result<()> {
    has_its_methods_only(stack, Service::SocketProxy).map(drop)
}

fn egress_proxy(stack: &Stack) -> anyhow::Result<()> {
    let answers = has_its_methods_only(stack, Service::EgressProxy)?;
    // It gets the keys of upstreams, each for the clients that are locked, and no other secret.
    let permitted = &answers["permitted"];
    let expected = json!({
        "walls_model for engine": MODEL_KEY,
        "walls_model for worker": "NotFound",
        "nobody for engine": "NotFound",
    });
    ensure!(*permitted == expected, "{permitted}");
    are_refused(&answers, &[SIGN, VERIFY, EXCHANGE])
}
