//! What somebody does who has taken a service over: with its enrolment secret, on the mesh, in a container with nothing else. This same
//! program runs there, and prints what each peer answered.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use bailey_mesh::callers::{self, Callers};
use bailey_mesh::{Mesh, MeshChannel};
use bailey_proto::broker::v1::operation_service_client::OperationServiceClient;
use bailey_proto::broker::v1::ticket_service_client::TicketServiceClient;
use bailey_proto::broker::v1::upstream_key_service_client::UpstreamKeyServiceClient;
use bailey_proto::broker::v1::{
    MakeTicketRequest, ReleaseKeyRequest, SignHmacRequest, VerifyHmacRequest,
};
use bailey_proto::engine::v1::SubmitJobRequest;
use bailey_proto::engine::v1::intake_service_client::IntakeServiceClient;
use bailey_proto::policy::v1::decide_response::Outcome;
use bailey_proto::policy::v1::decision_service_client::DecisionServiceClient;
use bailey_proto::policy::v1::pool_service_client::PoolServiceClient;
use bailey_proto::policy::v1::{
    Allowed, DecideRequest, Denied, GrantPoolRequest, decide_request::AskedBy, grant_pool_response,
};
use bailey_proto::trust::v1::Signed;
use bailey_service::{Context, Settings};
use bailey_trust::{Asked, Origin, PoolGrant, SigningKey, TrustFile, VerifyingKey};
use bailey_types::{Clock, JobId, OriginId, Serial, Service, Sha256};
use serde_json::{Map, Value, json};
use tonic::{Code, Request, Status};

/// What may be called with everybody's identity, and changes nothing.
pub const CONTROL: &str = "/bailey.audit.v1.AuditService/Checkpoint";

/// RFC 4231, test case 2: key, message and code.
pub const HMAC_KEY: &str = "Jefe";
const MESSAGE: &str = "what do ya want for nothing?";
const CODE: [u8; 32] = [
    0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04, 0x24, 0x26, 0x08, 0x95, 0x75, 0xc7,
    0x5a, 0x00, 0x3f, 0x08, 0x9d, 0x27, 0x39, 0x83, 0x9d, 0xec, 0x58, 0xb9, 0x64, 0xec, 0x38, 0x43,
];

/// The service, where this program was started as its captor, and the plugins whose cells it is to have started ahead.
pub fn asked_for() -> Option<(String, Vec<String>)> {
    let mut arguments = std::env::args().skip(1);
    let service = (arguments.next()? == "captor").then(|| arguments.next())??;
    Some((service, arguments.collect()))
}

/// Tries everything that the service may not do, and prints the answers as JSON.
pub fn main(service: &str, pooled: &[String]) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let answers = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(try_everything(service, pooled)));
    match answers {
        Ok(answers) => {
            println!("{answers}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The service of that name.
pub fn named(name: &str) -> anyhow::Result<Service> {
    let found = Service::ALL.iter().find(|service| service.name() == name);
    found.copied().with_context(|| format!("no service {name}"))
}

/// Who serves the method at `path`, which is `/bailey.<service>.v1.<…>/<Method>`.
fn server(path: &str) -> anyhow::Result<Service> {
    match path.split('.').nth(1).context("no package")? {
        // A package has no hyphen.
        "egress" => Ok(Service::EgressProxy),
        name => named(name),
    }
}

async fn try_everything(service: &str, pooled: &[String]) -> anyhow::Result<Value> {
    let service = named(service)?;
    let settings = Settings {
        config_dir: "/config".into(),
        secrets_dir: "/run/secrets".into(),
        enrol: "broker:7001".to_owned(),
        ..Settings::for_test(Path::new("/"))
    };
    let trust = TrustFile::read(Path::new("/config/trust.json"))?;
    let policy = trust.signing.policy;
    let ctx = Context::for_test(service, settings, trust);
    let mesh = Mesh::join(&ctx).await?;
    let mut answers = Map::new();
    for plugin in pooled {
        let granted = grant(&mesh, &policy, plugin).await?;
        answers.insert(plugin.clone(), granted);
    }
    if !pooled.is_empty() {
        return Ok(Value::Object(answers));
    }
    for (path, callers) in callers::TABLE {
        let mine = matches!(callers, Callers::Only(services) if services.contains(&service));
        if !mine || *path == CONTROL {
            let answer = asked(mesh.channel(server(path)?), path).await;
            answers.insert((*path).to_owned(), json!(answer?));
        }
    }
    answers.insert("forged".to_owned(), json!(forged(service, &mesh).await?));
    answers.insert(
        "permitted".to_owned(),
        permitted(service, &ctx, &mesh).await?,
    );
    Ok(Value::Object(answers))
}

/// How many cells of a plugin policy lets somebody start ahead; why none, where it does not.
async fn grant(mesh: &Mesh, policy: &VerifyingKey, plugin: &str) -> anyhow::Result<Value> {
    let mut client = PoolServiceClient::new(mesh.channel(Service::Policy));
    let request = GrantPoolRequest {
        plugin: plugin.to_owned(),
    };
    let answer = client.grant_pool(request).await?.into_inner().outcome;
    Ok(match answer.context("no outcome")? {
        grant_pool_response::Outcome::Grant(signed) => {
            let grant = bailey_trust::verify::<PoolGrant>(&signed, policy)?.statement;
            anyhow::ensure!(
                grant.plugin.as_str() == plugin,
                "it is for {}",
                grant.plugin
            );
            json!(grant.cells)
        }
        grant_pool_response::Outcome::Denied(Denied { reason, .. }) => json!(reason),
    })
}

/// What `channel` answers to an empty request for `path`: a code, and who said it where the method itself refuses.
async fn asked(channel: MeshChannel, path: &str) -> anyhow::Result<String> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await?;
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let answer = client.unary(Request::new(()), path.parse()?, codec).await;
    let Err(status): Result<_, Status> = answer else {
        return Ok(format!("{:?}", Code::Ok));
    };
    let code = status.code();
    // The door's words. A method that refuses an empty request says something else, with the same code.
    let by_method = code == Code::PermissionDenied && !status.message().contains("may not call");
    let by = if by_method { " by the method" } else { "" };
    Ok(format!("{code:?}{by}"))
}

/// What the service may have done with secrets of others: the control of what is refused.
async fn permitted(service: Service, ctx: &Context, mesh: &Mesh) -> anyhow::Result<Value> {
    let channel = mesh.channel(Service::Broker);
    match service {
        Service::Gateway => {
            let mut verified = Vec::new();
            for message in [MESSAGE, "another"] {
                let request = VerifyHmacRequest {
                    secret: "walls_hmac".to_owned(),
                    principal: "walls_shop".to_owned(),
                    message: message.to_owned().into(),
                    code: CODE.to_vec().into(),
                };
                let mut client = OperationServiceClient::new(channel.clone());
                let answer = client.verify_hmac(request).await?;
                verified.push(answer.into_inner().valid);
            }
            Ok(json!({ "verified": verified }))
        }
        Service::Worker => {
            let request = SignHmacRequest {
                secret: "walls_hmac".to_owned(),
                principal: "walls_shop".to_owned(),
                message: MESSAGE.to_owned().into(),
            };
            let answer = OperationServiceClient::new(channel)
                .sign_hmac(request)
                .await?;
            Ok(json!({ "signed": answer.into_inner().code == CODE[..] }))
        }
        Service::EgressProxy => {
            let mut answers = Map::new();
            let lock = ctx.lock(Serial(0), |_| Ok(())).current()?;
            for (upstream, client) in [
                ("walls_model", "engine"),
                ("walls_model", "worker"),
                ("nobody", "engine"),
            ] {
                let request = ReleaseKeyRequest {
                    upstream: upstream.to_owned(),
                    client: client.to_owned(),
                    lock_serial: lock.lock.serial.0,
                };
                let answer = UpstreamKeyServiceClient::new(channel.clone())
                    .release_key(request)
                    .await
                    .map(|answer| answer.into_inner().value);
                let told = match answer {
                    Ok(value) => String::from_utf8_lossy(&value).into_owned(),
                    Err(status) => format!("{:?}", status.code()),
                };
                answers.insert(format!("{upstream} for {client}"), json!(told));
            }
            Ok(Value::Object(answers))
        }
        Service::Engine
        | Service::Policy
        | Service::Runner
        | Service::Broker
        | Service::Scheduler
        | Service::Audit
        | Service::SocketProxy => Ok(Value::Null),
    }
}

/// Statements by a key of the captor's own, put to those who ask for statements.
async fn forged(service: Service, mesh: &Mesh) -> anyhow::Result<BTreeMap<&'static str, String>> {
    let mut answers = BTreeMap::new();
    let payload = b"{}";
    let origin = Origin {
        id: OriginId::new(),
        principal: "token:operator".to_owned(),
        asked: Asked::Call {
            plugin: "walls".parse()?,
            command: "version".parse()?,
            payload_sha256: Sha256::of(payload),
        },
        scopes: vec!["plugin:rw".to_owned()],
        issued_at: Clock::system().now(),
    };
    let signed = bailey_trust::sign(&origin, &SigningKey::generate())?;
    let forged = Signed {
        payload: signed.payload,
        signature: signed.signature,
    };
    match service {
        Service::Engine => {
            let job = JobId::new();
            let text = json!({"protocol": 2, "job_id": job, "command": "version", "payload": {}});
            let request = DecideRequest {
                job_id: job.to_string(),
                attempt: 1,
                plugin: "walls".to_owned(),
                command: "version".to_owned(),
                request: text.to_string().into(),
                asked_by: Some(AskedBy::Origin(forged.clone())),
                pipeline_step: None,
            };
            let answer = DecisionServiceClient::new(mesh.channel(Service::Policy))
                .decide(request)
                .await;
            answers.insert("decision", decided(answer.map(|a| a.into_inner().outcome)));
            let request = MakeTicketRequest {
                decision: Some(forged),
                request: payload.to_vec().into(),
            };
            let answer = TicketServiceClient::new(mesh.channel(Service::Broker))
                .make_ticket(request)
                .await;
            let refused = answer.err().map(|status| status.message().to_owned());
            let reason = refused.as_deref().and_then(|said| said.split(':').next());
            answers.insert("ticket", reason.unwrap_or("made").to_owned());
        }
        Service::Gateway | Service::Scheduler => {
            let request = SubmitJobRequest {
                origin: Some(forged),
                plugin: "walls".to_owned(),
                command: "version".to_owned(),
                payload: payload.to_vec().into(),
                ..SubmitJobRequest::default()
            };
            let answer = IntakeServiceClient::new(mesh.channel(Service::Engine))
                .submit_job(request)
                .await;
            answers.insert("job", told(answer.map(drop)));
        }
        Service::Policy
        | Service::Runner
        | Service::Broker
        | Service::Audit
        | Service::Worker
        | Service::SocketProxy
        | Service::EgressProxy => {}
    }
    Ok(answers)
}

fn decided(outcome: Result<Option<Outcome>, Status>) -> String {
    match outcome {
        Ok(Some(Outcome::Allowed(Allowed { .. }))) => "allowed".to_owned(),
        Ok(Some(Outcome::Denied(Denied { reason, .. }))) => reason,
        Ok(None) => "nothing".to_owned(),
        Err(status) => format!("{:?}", status.code()),
    }
}

fn told(answer: Result<(), Status>) -> String {
    answer.map_or_else(
        |status| format!("{:?}", status.code()),
        |()| "done".to_owned(),
    )
}
