//! `bailey pki`: what is shown and asked of a broker, and a new root on files alone. What a rotation does is the broker's own test.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bailey_proto::management::v1::pki_service_server::{PkiService, PkiServiceServer};
use bailey_proto::management::v1::{
    Intermediate, PkiStatusRequest, PkiStatusResponse, RootCertificate, RotateIntermediateRequest,
    RotateIntermediateResponse, ServiceCertificate,
};
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use crate::{Ran, bailey, text};

const DAY_MS: i64 = 86_400_000;

/// Answers with what it was given, and counts rotations with the right token.
struct Broker {
    status: PkiStatusResponse,
    rotations: Arc<Mutex<u32>>,
}

#[tonic::async_trait]
impl PkiService for Broker {
    async fn pki_status(
        &self,
        request: Request<PkiStatusRequest>,
    ) -> Result<Response<PkiStatusResponse>, Status> {
        assert!(request.metadata().get("authorization").is_none());
        Ok(Response::new(self.status.clone()))
    }

    async fn rotate_intermediate(
        &self,
        request: Request<RotateIntermediateRequest>,
    ) -> Result<Response<RotateIntermediateResponse>, Status> {
        let token = request.metadata().get("authorization");
        if token.is_none_or(|token| token != "Bearer admin") {
            return Err(Status::unauthenticated(
                "this needs the vault's admin token",
            ));
        }
        *self.rotations.lock().unwrap() += 1;
        Ok(Response::new(RotateIntermediateResponse {
            serial: "bb".repeat(20),
            replaced: "aa".repeat(20),
            last_certificate_ms: DAY_MS,
        }))
    }
}

fn told() -> PkiStatusResponse {
    let intermediate = |digits: &str, retired_at_ms, last_certificate_ms| Intermediate {
        serial: digits.repeat(20),
        not_before_ms: 0,
        not_after_ms: 3650 * DAY_MS,
        retired_at_ms,
        last_certificate_ms,
    };
    let service = |name: &str, digits: &str, current| ServiceCertificate {
        service: name.into(),
        serial: "cc".repeat(16),
        intermediate: digits.repeat(20),
        issued_at_ms: DAY_MS,
        not_after_ms: 2 * DAY_MS,
        current,
    };
    PkiStatusResponse {
        root: Some(RootCertificate {
            sha256: "ee".repeat(32),
            not_before_ms: 0,
            not_after_ms: 7300 * DAY_MS,
        }),
        intermediates: vec![
            intermediate("bb", 0, 0),
            intermediate("aa", DAY_MS, 2 * DAY_MS),
        ],
        services: vec![
            service("engine", "bb", true),
            service("policy", "aa", false),
            ServiceCertificate {
                service: "runner".into(),
                ..ServiceCertificate::default()
            },
        ],
        warnings: vec!["policy has not renewed its certificate since the rotation".into()],
    }
}

struct Stand {
    dir: tempfile::TempDir,
    rotations: Arc<Mutex<u32>>,
    _tasks: JoinSet<()>,
}

impl Stand {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("manage/broker");
        fs::create_dir_all(&socket).unwrap();
        let socket = UnixListener::bind(socket.join("manage.sock")).unwrap();
        let rotations = Arc::<Mutex<u32>>::default();
        let broker = Broker {
            status: told(),
            rotations: Arc::clone(&rotations),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            tonic::transport::Server::builder()
                .add_service(PkiServiceServer::new(broker))
                .serve_with_incoming(UnixListenerStream::new(socket))
                .await
                .unwrap();
        });
        Self {
            dir,
            rotations,
            _tasks: tasks,
        }
    }

    async fn bailey(&self, token: &str, args: &[&str]) -> Ran {
        let (manage, admin) = (
            self.dir.path().join("manage"),
            self.dir.path().join("admin"),
        );
        fs::write(&admin, token).unwrap();
        let places = [
            "--manage-dir",
            text(&manage),
            "--admin-token-file",
            text(&admin),
        ];
        bailey(places.iter().chain(args)).await
    }
}

#[tokio::test]
async fn status_shows_who_has_a_certificate_of_which_intermediate() {
    let stand = Stand::start();
    let shown = stand
        .bailey("", &["pki", "status"])
        .await
        .expect(0)
        .says(&format!("SHA-256 {}", "ee".repeat(32)))
        .says("valid from 1970-01-01 to 1989-12-27")
        .says("retired 1970-01-02T00:00Z, its last certificate ends 1970-01-03T00:00Z")
        .says("warning: policy has not renewed")
        .stdout;
    let line = |name: &str| {
        let found = shown.lines().find(|line| line.starts_with(name));
        found.unwrap_or_else(|| panic!("{name} is not in:\n{shown}"))
    };
    let of = |digits: &str| digits.repeat(8);
    assert!(line("engine").contains(&of("bb")), "{shown}");
    assert!(line("policy").contains(&of("aa")), "{shown}");
    assert!(line("runner").contains("not heard of"), "{shown}");
    assert!(line(&of("bb")).ends_with("in use"), "{shown}");
}

#[tokio::test]
async fn status_as_json_has_every_digit_and_null_where_nothing_is_known() {
    let stand = Stand::start();
    let shown = stand
        .bailey("", &["pki", "status", "--json"])
        .await
        .expect(0)
        .stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["intermediates"][0]["serial"], "bb".repeat(20));
    assert_eq!(shown["intermediates"][0]["in_use"], true);
    assert_eq!(
        shown["intermediates"][0]["retired_at"],
        serde_json::Value::Null
    );
    assert_eq!(shown["services"][1]["current"], false);
    assert_eq!(shown["services"][2]["serial"], serde_json::Value::Null);
    assert_eq!(shown["warnings"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn rotate_brings_the_admin_token() {
    let stand = Stand::start();
    stand
        .bailey("wrong", &["pki", "rotate"])
        .await
        .expect(1)
        .complains("admin token");
    assert_eq!(*stand.rotations.lock().unwrap(), 0);
    stand
        .bailey("admin\n", &["pki", "rotate"])
        .await
        .expect(0)
        .says(&"bb".repeat(8));
    assert_eq!(*stand.rotations.lock().unwrap(), 1);
}

struct Files {
    home: tempfile::TempDir,
}

impl Files {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        bailey(["--home", text(home.path()), "init"])
            .await
            .expect(0);
        // The folder of the management sockets is what makes it "inside".
        fs::create_dir(home.path().join("manage")).unwrap();
        Self { home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn all(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let dirs = [self.path("config"), self.path("secrets")];
        let entries = dirs.iter().flat_map(|dir| fs::read_dir(dir).unwrap());
        let files = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file());
        files
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect()
    }

    async fn new_root(&self) -> Ran {
        let (config, secrets, manage) = (
            self.path("config"),
            self.path("secrets"),
            self.path("manage"),
        );
        bailey([
            "--config-dir",
            text(&config),
            "--manage-dir",
            text(&manage),
            "pki",
            "new-root",
            "--secrets-dir",
            text(&secrets),
            "--vault-dir",
            text(self.home.path()),
        ])
        .await
    }
}

#[tokio::test]
async fn a_new_root_is_made_only_while_no_broker_runs() {
    let files = Files::new().await;
    let before = files.all();
    let lock = File::open(files.path("")).unwrap();
    lock.try_lock().unwrap();
    files
        .new_root()
        .await
        .expect(78)
        .complains("the stack is running: stop it first");
    assert_eq!(files.all(), before);
    drop(lock);

    files
        .new_root()
        .await
        .expect(0)
        .says("made a new root CA")
        .says("kept the old config/trust.json.old-")
        .says("kept the old secrets/");
    let after = files.all();
    let changed = |name: &str| before[&files.path(name)] != after[&files.path(name)];
    for name in [
        "config/ca.pem",
        "config/trust.json",
        "secrets/intermediate.pem",
    ] {
        assert!(changed(name), "{name}");
    }
    for name in [
        "secrets/age.key",
        "secrets/signing-broker",
        "secrets/enroll-engine",
    ] {
        assert!(!changed(name), "{name}");
    }
    assert_eq!(after.len(), before.len() + 5);
}

#[tokio::test]
async fn init_finishes_a_new_root_that_was_interrupted() {
    let files = Files::new().await;
    files.new_root().await.expect(0);
    let after = files.all();
    let stamp = kept_stamp(&files.path("config"));
    // As it is when the machine stops before `trust.json` was replaced.
    let trust = files.path("config/trust.json");
    fs::rename(&trust, files.path("config/trust.json.new-root")).unwrap();
    fs::rename(
        files.path(&format!("config/trust.json.old-{stamp}")),
        &trust,
    )
    .unwrap();
    fs::write(files.path("secrets/.new-root-complete"), &stamp).unwrap();
    bailey(["--home", text(files.home.path()), "init"])
        .await
        .expect(0)
        .says("a new root CA that was begun is in place now");
    assert_eq!(files.all(), after);
}

fn kept_stamp(config: &Path) -> String {
    let names = fs::read_dir(config)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut stamps = names.filter_map(|name| {
        let name = name.into_string().unwrap();
        name.strip_prefix("trust.json.old-").map(str::to_owned)
    });
    stamps.next().unwrap()
}
