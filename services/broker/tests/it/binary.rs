//! The binary as compose starts it.

use std::process::{ExitStatus, Stdio};

use bailey_test::TestStack;
use bailey_types::Service;
use rustix::process::{Pid, Signal, getuid, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::harness::CONFIG;

pub fn spawn(stack: &TestStack) -> Child {
    let ctx = stack.context(Service::Broker);
    let socket = ctx.settings.management_socket(Service::Broker);
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    Command::new(env!("CARGO_BIN_EXE_broker"))
        .args(["--config-dir".as_ref(), stack.config_dir().as_os_str()])
        .args(["--secrets-dir".as_ref(), stack.secrets_dir().as_os_str()])
        .args(["--data-dir".as_ref(), ctx.settings.data_dir.as_os_str()])
        .args(["--run-dir".as_ref(), ctx.settings.run_dir.as_os_str()])
        .args([
            "--peer",
            &format!("audit={}", ctx.settings.peer(Service::Audit)),
        ])
        .args(["--listen", &ctx.settings.listen.to_string()])
        .args(["--enrol-listen", &stack.enrolment_address().to_string()])
        .args(["--health-listen", "127.0.0.1:0"])
        .args(["--manage-uid", &getuid().as_raw().to_string()])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Reads the log until a line holds `wanted`, or to its end; answers all that was read.
pub async fn read_until(child: &mut Child, wanted: &str) -> String {
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let mut read = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        read.push_str(&line);
        if line.contains(wanted) {
            break;
        }
    }
    assert!(read.contains(wanted), "{wanted:?} is not in {read}");
    read
}

async fn terminated(mut child: Child) -> ExitStatus {
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    child.wait().await.unwrap()
}

#[tokio::test]
async fn it_runs_until_sigterm_and_exits_with_0() {
    let stack = TestStack::new();
    stack.write_config("config.yaml", CONFIG);
    let mut child = spawn(&stack);
    read_until(&mut child, "nothing is locked yet").await;
    assert!(terminated(child).await.success());
}

#[tokio::test]
async fn it_stops_while_it_is_sealed_too() {
    let stack = TestStack::new();
    stack.write_config("config.yaml", CONFIG);
    std::fs::remove_file(stack.secrets_dir().join("age.key")).unwrap();
    let mut child = spawn(&stack);
    read_until(&mut child, "sealed, no certificates are issued").await;
    assert!(terminated(child).await.success());
}

#[tokio::test]
async fn a_wrong_configuration_is_told_with_its_place_and_exit_code_78() {
    let stack = TestStack::new();
    stack.write_config("config.yaml", "accounts:\n  default: {}\nsurprise: 1\n");
    let mut child = spawn(&stack);
    let read = read_until(&mut child, "config.yaml:3:1").await;
    assert!(read.contains("surprise"), "{read}");
    assert_eq!(child.wait().await.unwrap().code(), Some(78));
}
