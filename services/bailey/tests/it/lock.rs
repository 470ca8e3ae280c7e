//! `plugin lock` and `config lock` over real sockets. The signing is real; in the places of broker and socket-proxy stand small servers that
//! keep to the contract, because those services need a vault and a Docker engine (the stack's own tests have both).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bailey_proto::management::v1::lock_service_server::{LockService, LockServiceServer};
use bailey_proto::management::v1::seal_request::Message;
use bailey_proto::management::v1::seal_service_server::{SealService, SealServiceServer};
use bailey_proto::management::v1::{
    InspectImageRequest, InspectImageResponse, ProposeRequest, ProposeResponse, SealHeader,
    SealRequest, SealResponse, SignRequest, SignResponse,
};
use bailey_test::TestStack;
use bailey_trust::{Lock, LockProposal, LockSource, LockedPlugin, SigningKey};
use bailey_types::{Blake3, ImageId, Serial, Service, Sha256, StackId, Timestamp};
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{Ran, bailey, text};

const CONFIG: &str = "accounts: {default: {}}\nplugin_roots: [ROOT]\nplugins:\n  greet: {}\n  other: {uses: greet}\n";
const MANIFEST: &str = "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: greet\nversion: 1.0.0\nprotocol: 2\nentrypoint: run.py\ncommands: [{name: poll, type: read}]\n";

struct Notary {
    key: SigningKey,
    stack: StackId,
    serial: Mutex<u64>,
    pending: Mutex<BTreeMap<String, Lock>>,
}

#[tonic::async_trait]
impl LockService for Notary {
    async fn propose(
        &self,
        request: Request<ProposeRequest>,
    ) -> Result<Response<ProposeResponse>, Status> {
        assert_eq!(
            request.metadata().get("authorization").unwrap(),
            "Bearer admin"
        );
        let proposal: LockProposal =
            serde_json::from_slice(&request.into_inner().proposal).unwrap();
        let serial = Serial(*self.serial.lock().unwrap() + 1);
        let locked = |proposed| LockedPlugin {
            proposed,
            tree_mac: Blake3([0; 32]),
            uid: 20_000,
            holder_uid: 20_001,
        };
        let plugins = proposal
            .plugins
            .into_iter()
            .map(|(name, proposed)| (name, locked(proposed)))
            .collect();
        let config_files = proposal.config_files;
        let lock = Lock {
            version: 1,
            stack: self.stack.clone(),
            serial,
            signed_at: Timestamp(1),
            config_files,
            plugins,
            next_uid: 20_002,
        };
        let code = format!("CODE{serial}");
        let text = serde_json::to_vec(&lock).unwrap();
        self.pending.lock().unwrap().insert(code.clone(), lock);
        Ok(Response::new(ProposeResponse {
            code,
            lock: text.into(),
        }))
    }

    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let lock = self
            .pending
            .lock()
            .unwrap()
            .remove(&request.into_inner().code);
        let lock = lock.ok_or_else(|| Status::failed_precondition("no proposal has this code"))?;
        *self.serial.lock().unwrap() = lock.serial.0;
        Ok(Response::new(SignResponse {
            lock: Some(bailey_trust::sign(&lock, &self.key).unwrap()),
        }))
    }
}

type Seals = Arc<Mutex<Vec<(SealHeader, Vec<u8>)>>>;

struct Sealing(Seals);

#[tonic::async_trait]
impl SealService for Sealing {
    async fn seal(
        &self,
        request: Request<Streaming<SealRequest>>,
    ) -> Result<Response<SealResponse>, Status> {
        let mut stream = request.into_inner();
        let Some(Message::Header(header)) = stream.message().await?.unwrap().message else {
            panic!("no header")
        };
        let mut tar = Vec::new();
        while let Some(SealRequest {
            message: Some(Message::Chunk(chunk)),
        }) = stream.message().await?
        {
            tar.extend_from_slice(&chunk);
        }
        let tar_sha256 = Sha256::of(&tar);
        self.0.lock().unwrap().push((header, tar));
        Ok(Response::new(SealResponse {
            image_id: ImageId(tar_sha256).to_string(),
            tar_sha256: tar_sha256.0.to_vec().into(),
        }))
    }

    async fn inspect_image(
        &self,
        request: Request<InspectImageRequest>,
    ) -> Result<Response<InspectImageResponse>, Status> {
        let image = request.into_inner().image;
        let base = ImageId(Sha256::of(b"base")).to_string();
        let image_id = match image.as_str() {
            "bailey/base-python:current" => base,
            id if id.starts_with("sha256:") => id.to_owned(),
            _ => return Err(Status::not_found("no such image")),
        };
        Ok(Response::new(InspectImageResponse { image_id }))
    }
}

struct Bench {
    stack: TestStack,
    root: PathBuf,
    seals: Seals,
    _tasks: JoinSet<()>,
}

impl Bench {
    fn start() -> Self {
        let stack = TestStack::new();
        let seals = Seals::default();
        let root = stack.dir().join("plugins");
        let notary = Notary {
            key: stack.signing_key(Service::Broker),
            stack: stack.trust().stack.clone(),
            serial: Mutex::default(),
            pending: Mutex::default(),
        };
        let mut tasks = JoinSet::new();
        let socket = |service: &str| {
            let dir = stack.dir().join("manage").join(service);
            fs::create_dir_all(&dir).unwrap();
            UnixListenerStream::new(UnixListener::bind(dir.join("manage.sock")).unwrap())
        };
        let (broker, proxy, sealing) = (
            socket("broker"),
            socket("socket-proxy"),
            Sealing(Arc::clone(&seals)),
        );
        tasks.spawn(async move {
            tonic::transport::Server::builder()
                .add_service(LockServiceServer::new(notary))
                .serve_with_incoming(broker)
                .await
                .unwrap();
        });
        tasks.spawn(async move {
            tonic::transport::Server::builder()
                .add_service(SealServiceServer::new(sealing))
                .serve_with_incoming(proxy)
                .await
                .unwrap();
        });
        fs::write(stack.dir().join("admin.token"), "admin\n").unwrap();
        let bench = Self {
            stack,
            root,
            seals,
            _tasks: tasks,
        };
        bench.configure(CONFIG);
        bench.put("greet/manifest.yaml", MANIFEST, 0o644);
        bench.put("greet/run.py", "#!/usr/bin/env python3\n", 0o755);
        bench
    }

    fn configure(&self, config: &str) {
        fs::write(
            self.stack.config_dir().join("config.yaml"),
            config.replace("ROOT", text(&self.root)),
        )
        .unwrap();
    }

    fn put(&self, name: &str, contents: &str, mode: u32) {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    async fn bailey(&self, args: &[&str]) -> Ran {
        let (config, manage, admin) = (
            self.stack.config_dir(),
            self.stack.dir().join("manage"),
            self.stack.dir().join("admin.token"),
        );
        let places = [
            "--config-dir",
            text(&config),
            "--manage-dir",
            text(&manage),
            "--admin-token-file",
            text(&admin),
        ];
        bailey(places.iter().chain(args)).await
    }

    fn lock(&self) -> Lock {
        let trust = self.stack.trust();
        let path = self.stack.config_dir().join("bailey.lock");
        let source = LockSource::new(
            &path,
            trust.signing.broker,
            trust.stack.clone(),
            Serial(0),
            |_| Ok(()),
        );
        source.current().unwrap().lock.clone()
    }

    fn sealed(&self) -> usize {
        self.seals.lock().unwrap().len()
    }
}

#[tokio::test]
async fn a_preview_changes_nothing_and_its_code_commits_exactly_it() {
    let bench = Bench::start();
    bench
        .bailey(&["plugin", "lock", "--all"])
        .await
        .expect(0)
        .says("+ plugin greet")
        .says("bailey plugin lock --all CODE1");
    assert!(!bench.stack.config_dir().join("bailey.lock").exists());
    // What is changed after the preview is not what was approved.
    bench.put("greet/run.py", "#!/usr/bin/env python3\nprint()\n", 0o755);
    bench
        .bailey(&["plugin", "lock", "--all", "CODE1"])
        .await
        .expect(0)
        .says("Locked: serial 1, 2 plugins.");
    let lock = bench.lock();
    let (header, tar) = bench.seals.lock().unwrap()[0].clone();
    let greet = &lock.plugins[&"greet".parse().unwrap()].proposed;
    assert_eq!(
        (greet.tar_sha256, greet.image),
        (Sha256::of(&tar), ImageId(Sha256::of(&tar)))
    );
    assert_eq!(
        (header.entrypoint, header.base_image),
        (
            vec!["/plugin/run.py".to_owned()],
            greet.base.unwrap().to_string()
        )
    );
    bench
        .bailey(&["plugin", "lock", "--all", "CODE1"])
        .await
        .expect(1)
        .complains("no proposal has this code");
}

#[tokio::test]
async fn what_is_sealed_stays_sealed_and_an_alias_shares_the_seal() {
    let bench = Bench::start();
    bench
        .bailey(&["plugin", "lock", "--all", "--yes"])
        .await
        .expect(0)
        .says("serial 1");
    let lock = bench.lock();
    let image = |name: &str| lock.plugins[&name.parse().unwrap()].proposed.image;
    assert_eq!((bench.sealed(), image("greet")), (1, image("other")));
    bench
        .bailey(&["plugin", "lock", "--all", "--yes"])
        .await
        .expect(0)
        .says("Nothing is different from the lock: 2 plugins.");
    assert_eq!((bench.sealed(), bench.lock().serial), (1, Serial(1)));
}

#[tokio::test]
async fn one_plugin_is_locked_without_the_others_and_without_the_configuration() {
    let bench = Bench::start();
    bench
        .bailey(&["plugin", "lock", "greet"])
        .await
        .expect(78)
        .complains("nothing is locked yet");
    bench
        .bailey(&["plugin", "lock", "--all", "--yes"])
        .await
        .expect(0);
    bench.put("greet/lib.py", "x", 0o644);
    bench.configure(&CONFIG.replace("greet: {}", "greet: {run_as: default}"));
    let ran = bench
        .bailey(&["plugin", "lock", "greet", "--yes"])
        .await
        .expect(0);
    ran.says("~ plugin greet\n    + lib.py\n")
        .says("= 1 plugins as they are");
    assert!(!bench.lock().config_files["config.yaml"].contains("run_as"));
    bench
        .bailey(&["plugin", "lock", "nothing"])
        .await
        .expect(78)
        .complains("not enabled in the locked configuration");
}

#[tokio::test]
async fn the_configuration_is_locked_without_the_plugins() {
    let bench = Bench::start();
    bench
        .bailey(&["plugin", "lock", "--all", "--yes"])
        .await
        .expect(0);
    bench.put("greet/lib.py", "x", 0o644);
    bench.configure(&CONFIG.replace("greet: {}", "greet: {container: {pids: 7}}"));
    let ran = bench.bailey(&["config", "lock", "--json"]).await.expect(0);
    let preview: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (
            &preview["config_files"]["config.yaml"],
            &preview["plugins"]["greet"]["files"]
        ),
        (&"changed".into(), &serde_json::json!({}))
    );
    bench
        .bailey(&["config", "lock", preview["code"].as_str().unwrap()])
        .await
        .expect(0);
    let lock = bench.lock();
    let greet = &lock.plugins[&"greet".parse().unwrap()].proposed;
    assert_eq!(
        (greet.limits.pids, greet.files.len(), bench.sealed()),
        (7, 2, 1)
    );
    bench.configure(&format!("{CONFIG}  fresh: {{}}\n"));
    bench
        .bailey(&["config", "lock"])
        .await
        .expect(78)
        .complains("fresh was never sealed");
}

#[tokio::test]
async fn what_cannot_be_sealed_is_said_before_anything_is() {
    let bench = Bench::start();
    bench.configure(&format!("{CONFIG}  absent: {{}}\n  greet2: {{uses: greet, schedules: [{{every: 1h, command: sync}}]}}\n"));
    let ran = bench.bailey(&["plugin", "lock", "--all"]).await.expect(78);
    ran.complains("absent is enabled, but no folder")
        .complains("calls sync, which is not a command");
    bench.configure(CONFIG);
    bench.put("greet/run.py", "#!/usr/bin/env node\n", 0o755);
    bench
        .bailey(&["plugin", "lock", "--all"])
        .await
        .expect(78)
        .complains("does not tell what runs it");
    bench.put("greet/run.py", "#!/bin/sh\n", 0o755);
    bench
        .bailey(&["plugin", "lock", "--all"])
        .await
        .expect(78)
        .complains("bailey/base-tools:current does not exist");
    bench.put("greet/run.py", "#!/usr/bin/env python3\n", 0o644);
    bench
        .bailey(&["plugin", "lock", "--all"])
        .await
        .expect(1)
        .complains("chmod +x");
    assert_eq!(bench.sealed(), 0);
}

#[tokio::test]
async fn a_lock_that_somebody_edited_is_not_built_upon() {
    let bench = Bench::start();
    bench
        .bailey(&["plugin", "lock", "--all", "--yes"])
        .await
        .expect(0);
    let path = bench.stack.config_dir().join("bailey.lock");
    let edited = fs::read_to_string(&path)
        .unwrap()
        .replace("\"payload\": \"e", "\"payload\": \"f");
    fs::write(&path, edited).unwrap();
    bench
        .bailey(&["plugin", "lock", "--all", "--yes"])
        .await
        .expect(0)
        .says("+ plugin greet")
        .complains("is refused");
    assert_eq!(bench.lock().serial, Serial(2));
}
