//! What a cell gets and gives when everything is right.

use bailey_cell::launch::{Control, OutputStream, Returned};
use bailey_cell::{Look, Probe, Spec, create_body, name};
use bailey_types::{ImageId, JobId};
use bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
    StartContainerOptions,
};
use http::Method;
use serde_json::Value;

use crate::stand::{Stand, args, engine};

#[tokio::test]
async fn a_cell_gets_exactly_its_request_and_its_answer_comes_back() {
    let stand = Stand::start().await;
    let mut cell = stand.cell().await;
    let request = r#"{"protocol":2,"command":"echo","payload":{"greeting":"hello"}}"#;

    let output = cell
        .run(&stand.envelope(&stand.launch(&cell, request)))
        .await;

    assert_eq!(output.control, Some(Control::Launched(true)));
    assert_eq!(
        String::from_utf8(output.out).unwrap(),
        format!("{request}\n")
    );
    assert_eq!(output.err, b"");
    assert_eq!(output.returned, []);
    assert!(stand.recorded.last("secret.returned").is_none());
    assert_eq!(stand.exit_code(&cell.id).await, 0);
    let fed = stand.recorded.last("launch.fed").unwrap();
    assert_eq!(fed["container"], cell.id);
    stand.remove(&cell.id).await.unwrap();
    assert!(
        stand
            .docker
            .inspect_container(&cell.id, None::<InspectContainerOptions>)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn delivered_secrets_do_not_come_back() {
    let stand = Stand::start().await;
    let mut cell = stand.cell().await;
    let request = r#"{"secrets":{"token":"hunter2-\"quoted\""},"command":"echo"}"#;
    let output = cell
        .run(&stand.envelope(&stand.launch(&cell, request)))
        .await;
    let out = String::from_utf8(output.out).unwrap();
    assert_eq!(
        out,
        "{\"secrets\":{\"token\":\"[secret:token]\"},\"command\":\"echo\"}\n"
    );
    // And the owner hears of it.
    let returned = Returned {
        secret: "token".parse().unwrap(),
        stream: OutputStream::Stdout,
        count: 1,
    };
    assert_eq!(output.returned, [returned]);
    let told = stand.recorded.last("secret.returned").unwrap();
    assert_eq!(
        (&told["secret"], &told["stream"], &told["container"]),
        (&"token".into(), &"stdout".into(), &cell.id.as_str().into())
    );
    assert_eq!(told["count"], 1);
    assert!(!told.to_string().contains("hunter2"), "{told}");

    let mut cell = stand.cell().await;
    let request = r#"{"secrets":{"token":"correct horse battery"},"command":"tell"}"#;
    let output = cell
        .run(&stand.envelope(&stand.launch(&cell, request)))
        .await;
    assert_eq!(
        String::from_utf8(output.out).unwrap(),
        "it is [secret:token].\n"
    );
    assert_eq!(String::from_utf8(output.err).unwrap(), "half: correct ho");
}

#[tokio::test]
async fn the_walls_of_a_cell_stand() {
    let stand = Stand::start().await;
    let mut cell = stand.cell().await;
    let output = cell
        .run(&stand.envelope(&stand.launch(&cell, r#"{"command":"walls"}"#)))
        .await;
    let seen: Value = serde_json::from_slice(&output.out)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.err)));

    assert_eq!(
        (&seen["uid"], &seen["cwd"]),
        (&20_000.into(), &"/home/plugin".into())
    );
    for open in [
        "home_is_writable",
        "tmp_is_writable",
        "children_run",
        "threads_run",
        "inet",
        "unix",
    ] {
        assert_eq!(seen[open], true, "{open}: {seen}");
    }
    for shut in [
        "root_is_writable",
        "tmp_is_executable",
        "home_is_executable",
        "vsock",
        "bluetooth",
    ] {
        assert_eq!(seen[shut], false, "{shut}: {seen}");
    }
    // The headline of the routing table, and no route.
    assert_eq!(seen["interfaces"], 1);
    // The engine's init and the plugin.
    assert_eq!(seen["processes"], 2);
    let env = seen["env"].as_array().unwrap();
    assert!(
        env.iter()
            .all(|v| !v.as_str().unwrap().starts_with("BAILEY")),
        "{env:?}"
    );
}

#[tokio::test]
async fn a_flood_comes_through_whole() {
    let stand = Stand::start().await;
    let mut cell = stand.cell().await;
    let request = r#"{"secrets":{"token":"xxxxxxxxxxxxxxxxy"},"command":"flood"}"#;
    let output = cell
        .run(&stand.envelope(&stand.launch(&cell, request)))
        .await;
    assert_eq!(output.out.len(), 13 << 20);
}

#[tokio::test]
async fn a_hanging_cell_obeys_a_signal_and_is_removed() {
    let stand = Stand::start().await;
    let mut cell = stand.cell().await;
    cell.send(&stand.envelope(&stand.launch(&cell, r#"{"command":"hang"}"#)))
        .await;
    assert_eq!(cell.control().await, Control::Launched(true));
    stand.start_container(&cell.id).await.unwrap();
    let inspected = stand
        .docker
        .inspect_container(&cell.id, None::<InspectContainerOptions>)
        .await
        .unwrap();
    assert_eq!(inspected.state.unwrap().running, Some(true));
    assert!(inspected.host_config.is_none() && inspected.config.is_none());

    let options = KillContainerOptionsBuilder::new().signal("SIGTERM").build();
    stand
        .docker
        .kill_container(&cell.id, Some(options))
        .await
        .unwrap();

    assert_eq!(stand.exit_code(&cell.id).await, 143);
    stand.remove(&cell.id).await.unwrap();
}

#[tokio::test]
async fn after_a_restart_old_cells_can_be_removed_but_not_attached_to() {
    let mut stand = Stand::start().await;
    let job = JobId::new();
    let (name, body) = stand.derived(job);
    let id = stand.create(&name, body).await.unwrap();

    stand.restart().await;

    let options = ListContainersOptionsBuilder::new().all(true).build();
    let listed = stand.docker.list_containers(Some(options)).await.unwrap();
    assert_eq!(
        listed
            .iter()
            .filter_map(|c| c.id.clone())
            .collect::<Vec<_>>(),
        std::slice::from_ref(&id)
    );
    assert_eq!(
        listed[0].labels.as_ref().unwrap()["bailey.job"],
        job.to_string()
    );
    let error = stand.attach(&id).await.err().unwrap().to_string();
    assert!(
        error.contains("403") || error.contains("attached"),
        "{error}"
    );
    stand.remove(&id).await.unwrap();
}

#[tokio::test]
async fn a_cell_that_was_made_while_the_runner_left_is_found_in_the_list() {
    // Given a cell that the engine has and the proxy has no record of
    let stand = Stand::start().await;
    let (name, body) = stand.derived(JobId::new());
    let body = serde_json::to_vec(&body).unwrap();
    let path = format!("/containers/create?name={name}");
    let made: Value = engine()
        .json(Method::POST, &path, Some(body))
        .await
        .unwrap();
    let id = made["Id"].as_str().unwrap();

    // When the runner lists what is left of an earlier life
    let options = ListContainersOptionsBuilder::new().all(true).build();
    let listed = stand.docker.list_containers(Some(options)).await.unwrap();

    // Then it can be removed, and nothing else
    assert_eq!(listed.len(), 1);
    assert!(stand.attach(id).await.is_err());
    stand.remove(id).await.unwrap();
}

#[tokio::test]
async fn a_probe_finds_every_wall_standing() {
    let stand = Stand::bare(args()).await;
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_socket-proxy"));
    let reference = stand
        .import_base("probe", &[("socket-proxy", binary)])
        .await;
    let image = socket_proxy::seal::inspect(&crate::stand::engine(), &reference)
        .await
        .unwrap();
    let stand = restarted_with_probe(stand, image).await;

    let asked = stand.docker.inspect_image("bailey-probe").await.unwrap();
    assert_eq!(asked.id, Some(image.to_string()));
    let spec = Spec::Probe(Probe {
        stack: &stand.id,
        image: &image,
        job: JobId::new(),
        look: Look::Walls,
    });
    let id = stand
        .create(&name(&spec), create_body(&spec))
        .await
        .unwrap();
    assert!(stand.attach(&id).await.is_err(), "a probe has no streams");
    stand
        .docker
        .start_container(&id, None::<StartContainerOptions>)
        .await
        .unwrap();

    let code = stand.exit_code(&id).await;

    assert_eq!(
        code,
        0,
        "{:?}",
        bailey_cell::probe::Finding::from_code(code)
    );
    stand.remove(&id).await.unwrap();
}

async fn restarted_with_probe(mut stand: Stand, image: ImageId) -> Stand {
    stand
        .restart_with(socket_proxy::Args {
            probe_image: Some(image),
            ..args()
        })
        .await;
    stand
}
