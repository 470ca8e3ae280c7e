//! The same cell, driven by hand: what the engine itself takes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bailey_cell::{Cell, Seat, Spec, create_body};
use bailey_trust::{LockSource, TrustFile};
use bailey_types::{AttemptNumber, JobId, PluginName, Serial};
use bollard::Docker;
use bollard::container::AttachContainerResults;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters as query;
use futures::StreamExt as _;
use stack_tests::Stack;
use tokio::io::AsyncWriteExt as _;

/// What the engine of the stack would send, without what it adds.
const REQUEST: &[u8] =
    br#"{"protocol":2,"job_id":"0","command":"health","config":{},"state":{},"context":{}}
"#;

/// Cells of one plugin, without the stack.
pub struct Raw {
    runtime: tokio::runtime::Runtime,
    docker: Docker,
    body: ContainerCreateBody,
    image: String,
    holder_image: String,
}

impl Raw {
    /// The very body that socket-proxy sends, but without labels: the reconciler of a stack must not take it for its own.
    pub fn new(stack: &Stack, plugin: &str) -> anyhow::Result<Self> {
        let trust = TrustFile::read(&stack.home.join("config/trust.json"))?;
        let path = stack.home.join("config/bailey.lock");
        let key = trust.signing.broker;
        let source = LockSource::new(&path, key, trust.stack.clone(), Serial(0), |_| Ok(()));
        let loaded = source.current()?;
        let name: PluginName = plugin.parse()?;
        let locked = loaded.lock.plugins.get(&name);
        let locked = locked.context("the plugin is not locked")?;
        let spec = Spec::Cell(Cell {
            stack: &trust.stack,
            serial: loaded.lock.serial,
            plugin: &name,
            locked,
            seat: Seat::Job {
                job: JobId::new(),
                attempt: AttemptNumber(1),
            },
            untrusted: false,
            holder: None,
        });
        let body = ContainerCreateBody {
            labels: Some(HashMap::new()),
            ..create_body(&spec)
        };
        // Whatever tag the stack runs with.
        let proxy = stack.inspect(&stack.service("socket-proxy")?)?;
        let own = proxy["Config"]["Image"].as_str().context("no image")?;
        Ok(Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
            docker: Docker::connect_with_socket_defaults()?,
            image: locked.proposed.image.to_string(),
            holder_image: own.replace("socket-proxy", "holder"),
            body,
        })
    }

    /// One call from nothing to nothing, in the network namespace of a holder if there is one.
    pub fn cycle(&self, holder: Option<&str>) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            let (id, attached) = self.started(holder).await?;
            let (answer, _) = self.ask(attached).await?;
            self.removed(&id).await?;
            check(&answer)
        })
    }

    /// How long a container that is started and attached takes to answer. Its making and its end are not counted.
    pub fn bare(&self) -> anyhow::Result<Duration> {
        self.runtime.block_on(async {
            let (id, attached) = self.started(None).await?;
            tokio::time::sleep(super::SETTLED).await;
            let (answer, took) = self.ask(attached).await?;
            self.removed(&id).await?;
            check(&answer)?;
            Ok(took)
        })
    }

    /// The same image through Docker's own command, with its defaults.
    pub fn docker_run(&self) -> anyhow::Result<()> {
        use std::io::Write as _;
        let mut child = std::process::Command::new("docker")
            .args([
                "run",
                "--rm",
                "--interactive",
                "--network",
                "none",
                &self.image,
            ])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        child.stdin.take().context("no stdin")?.write_all(REQUEST)?;
        let output = child.wait_with_output()?;
        check(&output.stdout)
    }

    /// A started container that keeps a network namespace.
    pub fn holder(&self) -> anyhow::Result<String> {
        let host = bollard::models::HostConfig {
            network_mode: Some("none".into()),
            ..Default::default()
        };
        let body = ContainerCreateBody {
            image: Some(self.holder_image.clone()),
            entrypoint: Some(vec!["/holder".into(), "pause".into()]),
            host_config: Some(host),
            ..Default::default()
        };
        self.runtime.block_on(async {
            let id = self.docker.create_container(None, body).await?.id;
            self.docker.start_container(&id, None).await?;
            Ok(id)
        })
    }

    /// Removes a container.
    pub fn remove(&self, id: &str) -> anyhow::Result<()> {
        self.runtime.block_on(self.removed(id))
    }

    async fn started(
        &self,
        holder: Option<&str>,
    ) -> anyhow::Result<(String, AttachContainerResults)> {
        let mut body = self.body.clone();
        if let (Some(holder), Some(host)) = (holder, &mut body.host_config) {
            host.network_mode = Some(format!("container:{holder}"));
            // A name of its own and another's namespace do not go together.
            (body.hostname, body.domainname) = (None, None);
        }
        let id = self.docker.create_container(None, body).await?.id;
        let options = query::AttachContainerOptionsBuilder::new()
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .stream(true)
            .build();
        let attached = self.docker.attach_container(&id, Some(options)).await?;
        self.docker.start_container(&id, None).await?;
        Ok((id, attached))
    }

    /// Writes the request and reads until the answer is whole; answers how long that took.
    async fn ask(
        &self,
        mut attached: AttachContainerResults,
    ) -> anyhow::Result<(Vec<u8>, Duration)> {
        let begun = Instant::now();
        attached.input.write_all(REQUEST).await?;
        attached.input.shutdown().await?;
        let mut answer = Vec::new();
        while let Some(frame) = attached.output.next().await {
            answer.extend_from_slice(&frame?.into_bytes());
            if serde_json::from_slice::<serde_json::Value>(&answer).is_ok() {
                break;
            }
        }
        Ok((answer, begun.elapsed()))
    }

    async fn removed(&self, id: &str) -> anyhow::Result<()> {
        let options = query::RemoveContainerOptionsBuilder::new()
            .force(true)
            .build();
        Ok(self.docker.remove_container(id, Some(options)).await?)
    }
}

fn check(answer: &[u8]) -> anyhow::Result<()> {
    let text = String::from_utf8_lossy(answer);
    ensure!(text.contains("\"ok\""), "the raw cell answered {text:?}");
    Ok(())
}
