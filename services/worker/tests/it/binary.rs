//! What every service's binary does, shown with this one: health, signals, exit codes.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bailey_test::TestStack;
use rustix::process::{Pid, Signal, kill_process};

type Spoil = fn(&TestStack);

struct Worker {
    child: Child,
    health: String,
}

/// A stack whose configuration can be read. Some runtime must be there for its ports.
fn stack() -> TestStack {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let stack = runtime.block_on(async { TestStack::new() });
    stack.write_config("config.yaml", "accounts: {default: {}}\n");
    stack
}

fn command(stack: &TestStack, health: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    let flag = |name: &str, path: &std::path::Path| format!("--{name}={}", path.display());
    command
        .arg(flag("config-dir", &stack.config_dir()))
        .arg(flag("secrets-dir", &stack.secrets_dir()))
        .arg(format!("--enrol={}", stack.enrolment_address()))
        .arg(format!("--health-listen={health}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

impl Worker {
    /// Started, and past its first log line; there is no broker, so it waits for a certificate.
    fn start(stack: &TestStack) -> Self {
        let health = free_port();
        let mut child = command(stack, &health).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.contains("\"service.name\":\"worker\""), "{line}");
        Self { child, health }
    }

    fn stop(mut self, signal: Signal) -> (ExitStatus, Duration) {
        let started = Instant::now();
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
        (self.child.wait().unwrap(), started.elapsed())
    }
}

#[test]
fn sigterm_ends_it_with_success_even_before_it_has_a_certificate() {
    let stack = stack();
    for signal in [Signal::TERM, Signal::INT] {
        let (status, took) = Worker::start(&stack).stop(signal);
        assert!(status.success(), "{status}");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}

#[test]
fn the_health_verb_tells_whether_it_lives() {
    let stack = stack();
    let worker = Worker::start(&stack);
    let healthy = command(&stack, &worker.health)
        .arg("healthcheck")
        .status()
        .unwrap();
    assert!(healthy.success());
    let health = worker.health.clone();
    worker.stop(Signal::KILL);
    let dead = command(&stack, &health)
        .arg("healthcheck")
        .status()
        .unwrap();
    assert_eq!(dead.code(), Some(1));
}

#[test]
fn what_the_operator_must_correct_is_exit_code_78_and_one_sentence() {
    let secret = "enroll-worker";
    let cases: [(Spoil, &str); 6] = [
        (
            |stack| chmod(stack, "secrets/enroll-worker", 0o444),
            "enroll-worker has mode 0444",
        ),
        (
            |stack| chmod(stack, "config/config.yaml", 0o666),
            "everybody could change it",
        ),
        (
            |stack| fs::remove_file(stack.config_dir().join("trust.json")).unwrap(),
            "`bailey init` makes it",
        ),
        (
            |stack| rewrite(stack, "config/trust.json", "{}"),
            "trust.json",
        ),
        (
            |stack| stack.write_config("config.yaml", "acounts: {}\n"),
            "config.yaml:1:1",
        ),
        (
            |stack| rewrite(stack, "secrets/enroll-worker", "x"),
            "32 base64-encoded bytes",
        ),
    ];
    for (spoil, sentence) in cases {
        let stack = stack();
        assert!(stack.secrets_dir().join(secret).exists());
        spoil(&stack);
        let mut child = command(&stack, "127.0.0.1:0").spawn().unwrap();
        let mut log = String::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(78), "{log}");
        assert!(
            log.lines().last().unwrap().contains(sentence),
            "{sentence}: {log}"
        );
    }
}

#[test]
fn a_wrong_flag_is_exit_code_78_and_version_is_not() {
    let worker = || Command::new(env!("CARGO_BIN_EXE_worker"));
    assert_eq!(
        worker()
            .arg("--peer=nobody")
            .output()
            .unwrap()
            .status
            .code(),
        Some(78)
    );
    assert!(worker().arg("--version").output().unwrap().status.success());
}

fn chmod(stack: &TestStack, path: &str, mode: u32) {
    fs::set_permissions(stack.dir().join(path), Permissions::from_mode(mode)).unwrap();
}

fn rewrite(stack: &TestStack, path: &str, text: &str) {
    let path = stack.dir().join(path);
    fs::remove_file(&path).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o400)).unwrap();
}
