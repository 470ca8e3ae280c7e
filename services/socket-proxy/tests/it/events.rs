//! What the runner hears of its containers as it happens.

use bollard::query_parameters::EventsOptions;
use futures::StreamExt as _;
use http::Method;
use serde_json::{Value, json};

use crate::stand::{Stand, engine};

#[tokio::test]
async fn the_life_of_a_cell_is_heard_and_nobody_elses() {
    let stand = Stand::start().await;
    let mut cell = stand.cell().await;
    let mut events = stand.docker.events(None::<EventsOptions>);
    // The subscription is there when the engine has answered it, which only an event shows: so the stream is read from here on.
    let mut heard = Vec::new();
    let life = async {
        // Given a container of somebody else with the stack's label, which lives and ends meanwhile
        let base = format!("bd-test:{}-base", stand.id);
        let body = json!({ "Image": base, "Entrypoint": ["/nothing"], "Labels": { "bailey.stack": stand.id } });
        let path = format!("/containers/create?name=bd-{}-bystander", stand.id);
        let made: Value = engine()
            .json(Method::POST, &path, Some(body.to_string().into()))
            .await
            .unwrap();
        let path = format!("/containers/{}?force=1", made["Id"].as_str().unwrap());
        engine().call(Method::DELETE, &path, None).await.unwrap();

        let envelope = stand.envelope(&stand.launch(&cell, r#"{"command":"none"}"#));
        cell.run(&envelope).await;
        assert_eq!(stand.exit_code(&cell.id).await, 7);
        stand.remove(&cell.id).await.unwrap();
        cell.id.clone()
    };
    let listen = async {
        while let Some(event) = events.next().await {
            let event = event.unwrap();
            let destroyed = event.action.as_deref() == Some("destroy");
            heard.push(event);
            if destroyed {
                return;
            }
        }
    };
    let ((), id) = tokio::join!(listen, life);

    let actions: Vec<_> = heard.iter().filter_map(|e| e.action.as_deref()).collect();
    assert_eq!(actions, ["start", "die", "destroy"]);
    for event in &heard {
        let actor = event.actor.as_ref().unwrap();
        assert_eq!(actor.id.as_ref(), Some(&id));
        let attributes = actor.attributes.as_ref().unwrap();
        let exit_code = attributes.get("exitCode").map(String::as_str);
        let died = event.action.as_deref() == Some("die");
        assert_eq!(exit_code, died.then_some("7"));
        assert_eq!(attributes.len(), usize::from(died));
    }
}
