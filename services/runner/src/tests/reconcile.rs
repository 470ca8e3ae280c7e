//! Reconciling with the real Docker Engine, through the real socket-proxy.

use std::collections::HashMap;
use std::sync::Arc;

use bailey_cell::{Cell, Identity, Seat, Spec, labels};
use bailey_service::{Context, Readiness, Settings};
use bailey_trust::{Lock, LockedPlugin, TrustFile};
use bailey_types::{AttemptNumber, JobId, PluginName, Service, StackId};
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder};
use tokio::task::JoinSet;

use super::world::{PATIENCE, base_image, docker};
use crate::docker::Engine;
use crate::reconcile::testing::{Stand, lock, write};
use crate::roster::Occupant;

/// What socket-proxy audits is tested where it lives.
struct Unrecorded;

impl socket_proxy::audit::Record for Unrecorded {
    fn record(&self, _: &'static str, _: serde_json::Value, _: bool) {}
}

/// A stack of its own, with socket-proxy between it and the engine.
struct Yard {
    stand: Stand,
    lock: Lock,
    plugin: PluginName,
    /// Whatever the test made, ours or not.
    made: Vec<String>,
    ctx: Context,
    _tasks: JoinSet<anyhow::Result<()>>,
    _dir: tempfile::TempDir,
}

impl Yard {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stack: StackId = format!("t{:x}", rand::random::<u64>()).parse().unwrap();
        let mut lock = lock(stack.as_str(), &[("subject", 'a')]);
        let plugin: PluginName = "subject".parse().unwrap();
        if let Some(locked) = lock.plugins.get_mut(&plugin) {
            locked.proposed.image = base_image().await;
            locked.proposed.entrypoint = ["/usr/bin/python3", "-c", "import time; time.sleep(600)"]
                .map(str::to_owned)
                .into();
        }
        let source = write(dir.path(), &lock);
        let settings = Settings::for_test(dir.path());
        let manage = settings.management_socket(Service::SocketProxy);
        std::fs::create_dir_all(manage.parent().unwrap()).unwrap();
        std::fs::create_dir_all(settings.run_dir.join("docker")).unwrap();
        std::fs::create_dir_all(&settings.data_dir).unwrap();
        let socket = settings.run_dir.join("docker/docker.sock");
        let trust = TrustFile::read(&settings.config_dir.join("trust.json")).unwrap();
        let ctx = Context::for_test(Service::SocketProxy, settings, trust);
        let uid = rustix::process::geteuid().as_raw();
        let args = socket_proxy::Args {
            docker_socket: "/var/run/docker.sock".into(),
            runner_uid: uid,
            cli_uid: uid,
            probe_image: None,
            holder_image: None,
            idle_seconds: 60,
            envelope_seconds: 5,
            keep_images_seconds: 3600,
        };
        let mut presence = ctx.presence();
        let serving = socket_proxy::serve(ctx.clone(), args, Arc::new(Unrecorded));
        let mut tasks = JoinSet::new();
        tasks.spawn(serving);
        let engine = Engine::new(socket);
        let ready = presence.wait_for(|now| now.readiness != Readiness::Starting);
        tokio::time::timeout(PATIENCE, ready)
            .await
            .unwrap()
            .unwrap();
        Self {
            stand: Stand::new(engine, stack, source),
            lock,
            plugin,
            made: Vec::new(),
            ctx,
            _tasks: tasks,
            _dir: dir,
        }
    }

    fn locked(&self) -> &LockedPlugin {
        &self.lock.plugins[&self.plugin]
    }

    fn spec(&self, seat: Seat) -> Spec<'_> {
        Spec::Cell(Cell {
            stack: &self.lock.stack,
            serial: self.lock.serial,
            plugin: &self.plugin,
            locked: self.locked(),
            seat,
            untrusted: false,
            holder: None,
        })
    }

    /// A container as the runner makes it.
    async fn make(&mut self, seat: Seat) -> String {
        let id = self.stand.reconciler.engine.create(&self.spec(seat)).await;
        let id = id.unwrap_or_else(|e| panic!("{}", e.sentence()));
        self.made.push(id.clone());
        id
    }

    /// Somebody else's container, past socket-proxy.
    async fn make_foreign(&mut self, name: &str, labels: HashMap<String, String>) -> String {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let body = ContainerCreateBody {
            image: Some(self.locked().proposed.image.to_string()),
            entrypoint: Some(vec!["/usr/bin/python3".into()]),
            labels: Some(labels),
            ..ContainerCreateBody::default()
        };
        let made = docker().create_container(Some(options), body).await;
        let id = made.unwrap().id;
        self.made.push(id.clone());
        id
    }

    async fn exists(&self, id: &str) -> bool {
        docker().inspect_container(id, None).await.is_ok()
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        self.ctx.shutdown.cancel();
        let made = std::mem::take(&mut self.made);
        let clean_up = async move {
            for id in made {
                let force = RemoveContainerOptionsBuilder::new().force(true).build();
                // Most of them are gone already.
                docker().remove_container(&id, Some(force)).await.ok();
            }
        };
        // A runtime of its own: the test's is blocked while it drops.
        let run = || {
            let builder = &mut tokio::runtime::Builder::new_current_thread();
            builder.enable_all().build().unwrap().block_on(clean_up);
        };
        std::thread::scope(|scope| scope.spawn(run).join()).ok();
    }
}

fn some_job() -> Seat {
    Seat::Job {
        job: JobId::new(),
        attempt: AttemptNumber(1),
    }
}

#[tokio::test]
async fn a_pass_removes_our_leftovers_and_touches_nothing_else() {
    let mut yard = Yard::open().await;
    let (leftover, wanted) = (yard.make(some_job()).await, some_job());
    let berth = yard.stand.reconciler.roster.begin(Occupant::Cell(wanted));
    let answered_for = yard.make(wanted).await;
    // As much like ours as can be, but not made by socket-proxy: our labels under another name, and our name under other labels.
    let (alike, seat) = (some_job(), some_job());
    let name = Identity::from(&yard.spec(seat)).name(&yard.lock.stack);
    let labelled = labels(&yard.spec(alike));
    let mut others = labelled.clone();
    others.insert("bailey.stack".into(), "another".into());
    let nobody = format!("not-bailey-{}", JobId::new());
    let foreign = [
        yard.make_foreign(&nobody, labelled).await,
        yard.make_foreign(&name, others).await,
    ];

    yard.stand.reconciler.pass().await.unwrap();

    assert!(!yard.exists(&leftover).await);
    assert!(yard.exists(&answered_for).await);
    for id in &foreign {
        assert!(yard.exists(id).await, "a foreign container was removed");
        // Nor could it be, had we tried: socket-proxy knows no such container, and a removal of what is gone is no failure.
        yard.stand.reconciler.engine.remove(id).await.unwrap();
        assert!(yard.exists(id).await, "a foreign container was removed");
    }
    drop(berth);
    yard.stand.reconciler.pass().await.unwrap();
    assert!(!yard.exists(&answered_for).await);
}

#[tokio::test]
async fn a_kept_container_that_dies_is_told_to_its_keeper_by_the_engines_events() {
    let mut yard = Yard::open().await;
    let (wanted, other) = (some_job(), some_job());
    let roster = yard.stand.reconciler.roster.clone();
    let _berths = [wanted, other].map(|seat| roster.begin(Occupant::Cell(seat)));
    let kept = yard.make(wanted).await;
    let nobodys = yard.make(other).await;
    for id in [&kept, &nobodys] {
        docker().start_container(id, None).await.unwrap();
    }
    yard.stand.keeper.keep(&kept);
    // The first pass shows that the events are followed: it comes after them.
    let leftover = yard.make(some_job()).await;
    let reconciler = Arc::clone(&yard.stand.reconciler);
    let mut following = JoinSet::new();
    following.spawn(async move { reconciler.follow().await });
    let passed = async { while yard.exists(&leftover).await {} };
    tokio::time::timeout(PATIENCE, passed).await.unwrap();

    for id in [&nobodys, &kept] {
        docker().kill_container(id, None).await.unwrap();
    }

    let told = yard.stand.keeper.told();
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert_eq!(yard.stand.keeper.gone(), [kept]);
    let pause = yard.stand.reconciler.quarantine.pause(&yard.plugin);
    assert!(!pause.is_zero(), "the death was not counted");
}

#[tokio::test]
async fn what_vanished_while_nobody_looked_is_told_and_held_against_nobody() {
    let mut yard = Yard::open().await;
    let (running, ended) = (some_job(), some_job());
    let roster = yard.stand.reconciler.roster.clone();
    let _berths = [running, ended].map(|seat| roster.begin(Occupant::Cell(seat)));
    let (running, ended) = (yard.make(running).await, yard.make(ended).await);
    docker().start_container(&running, None).await.unwrap();
    let vanished = "f".repeat(64);
    for id in [&running, &ended, &vanished] {
        yard.stand.keeper.keep(id);
    }

    yard.stand.reconciler.pass().await.unwrap();

    assert_eq!(yard.stand.keeper.gone(), [ended, vanished]);
    assert!(
        yard.stand
            .reconciler
            .quarantine
            .pause(&yard.plugin)
            .is_zero()
    );
}
