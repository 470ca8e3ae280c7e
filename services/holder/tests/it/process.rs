//! The process: how it starts, and how it ends.

use std::process::Stdio;

use bailey_types::Service;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use crate::way_out::{Holder, output};
use crate::world::World;

fn terminate(child: &Child) {
    let id = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(id).unwrap(), Signal::TERM).unwrap();
}

/// Whether SIGTERM has a handler.
fn handles_sigterm(child: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id().unwrap())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
    caught & (1 << 14) != 0
}

#[tokio::test]
async fn a_pause_ends_at_once_when_it_is_told_to() {
    let mut pause = Command::new(env!("CARGO_BIN_EXE_holder"))
        .arg("pause")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // As PID 1 of a container it has no default action: the handler is what counts.
    while !handles_sigterm(&pause) {
        tokio::task::yield_now().await;
    }
    assert!(pause.try_wait().unwrap().is_none());
    terminate(&pause);
    assert_eq!(pause.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_way_out_ends_at_once_before_and_after_its_decision() {
    let world = World::start(&["api.example.com:8080"]).await;
    let mut waiting = Holder::start(&world.socket()).await;
    // To wait for a child would close its standard input, which ends it too.
    let _stdin = waiting.child.stdin.take();
    terminate(&waiting.child);
    assert_eq!(waiting.child.wait().await.unwrap().code(), Some(0));
    let mut leased = Holder::leased(&world).await;
    terminate(&leased.child);
    assert_eq!(leased.child.wait().await.unwrap().code(), Some(0));
    world.stop().await;
}

#[tokio::test]
async fn without_a_whole_line_it_ends_with_a_failure() {
    let world = World::start(&["api.example.com:8080"]).await;
    let long = vec![b'x'; 200 << 10];
    for said in [&b""[..], b"{\"payload\":", &long] {
        let mut holder = Holder::start(&world.socket()).await;
        let mut stdin = holder.child.stdin.take().unwrap();
        // It hangs up on what is too long.
        drop(stdin.write_all(said).await);
        drop(stdin);
        assert_eq!(holder.child.wait().await.unwrap().code(), Some(1));
    }
    world.stop().await;
}

#[tokio::test]
async fn a_wrong_command_line_is_a_wrong_configuration() {
    for arguments in [&["serve"][..], &[], &["egress", "--all"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holder"));
        command.args(arguments);
        let status = command.status().await.unwrap();
        assert_eq!(status.code(), Some(78), "{arguments:?}");
    }
}

#[tokio::test]
async fn clients_are_told_that_there_is_no_lease_and_why() {
    let world = World::start(&["api.example.com:8080"]).await;
    let mut holder = Holder::start(&world.socket()).await;
    holder
        .tell(&world.signed(&world.decision(), Service::Broker))
        .await;
    let why = holder.stderr.next_line().await.unwrap().unwrap();
    assert!(why.contains("no lease"), "{why}");
    let Some(mut curl) = holder.client("curl") else {
        return;
    };
    curl.args(["-sS", "http://api.example.com:8080/"]);
    let (_, said, _) = output(curl).await;
    assert!(
        said.contains("bailey: the signature of the decision"),
        "{said}"
    );
    world.stop().await;
}

#[tokio::test]
async fn when_egress_proxy_goes_the_way_is_closed_and_the_namespace_stays() {
    let world = World::start(&["api.example.com:8080"]).await;
    let mut holder = Holder::leased(&world).await;
    if let Some(mut curl) = holder.client("curl") {
        curl.args(["-sS", "http://other.example.com:8080/"]);
        let (_, said, _) = output(curl).await;
        assert!(said.contains("is not granted"), "{said}");
    }
    world.stop().await;
    let over = holder.stderr.next_line().await.unwrap().unwrap();
    assert_eq!(over, "holder: the lease is over");
    if let Some(mut curl) = holder.client("curl") {
        curl.args(["-sS", "http://api.example.com:8080/"]);
        let (_, said, _) = output(curl).await;
        assert!(said.contains("lease of this call is over"), "{said}");
    }
    assert!(holder.child.try_wait().unwrap().is_none());
}
