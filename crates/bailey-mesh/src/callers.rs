//! Who may call which method of the mesh. The one table; what is not in it cannot be called.

use bailey_types::Service::{
    self, Audit, Broker, EgressProxy, Engine, Gateway, Policy, Runner, Scheduler, SocketProxy,
    Worker,
};

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// These services, by their certificate.
    Only(&'static [Service]),
    /// Whoever reaches the enrolment listener; nobody on the mesh.
    Enrolling,
}

impl Callers {
    /// Whether `caller` (nobody on the enrolment listener) is among them.
    pub fn admit(self, caller: Option<Service>) -> bool {
        match (self, caller) {
            (Self::Only(services), Some(caller)) => services.contains(&caller),
            (Self::Enrolling, None) => true,
            (Self::Only(_), None) | (Self::Enrolling, Some(_)) => false,
        }
    }
}

const EVERYBODY: Callers = Callers::Only(&[
    Gateway,
    Engine,
    Policy,
    Runner,
    Broker,
    Scheduler,
    Audit,
    Worker,
    SocketProxy,
    EgressProxy,
]);
const NOBODY: Callers = Callers::Only(&[]);
const GATEWAY: Callers = Callers::Only(&[Gateway]);
const RUNNER: Callers = Callers::Only(&[Runner]);

/// Path of the method, and who may call it.
pub const TABLE: &[(&str, Callers)] = &[
    ("/bailey.audit.v1.AuditService/Append", EVERYBODY),
    ("/bailey.audit.v1.AuditService/Checkpoint", EVERYBODY),
    (
        "/bailey.audit.v1.AuditService/Cosign",
        Callers::Only(&[Policy, Broker]),
    ),
    // The operator reads the files offline; no service needs what others did.
    ("/bailey.audit.v1.AuditService/Entries", NOBODY),
    // Its own entries and no others': by them it knows an earlier vault that somebody put back.
    (
        "/bailey.audit.v1.AuditService/Latest",
        Callers::Only(&[Broker]),
    ),
    ("/bailey.broker.v1.CertificateService/Renew", EVERYBODY),
    (
        "/bailey.broker.v1.EnrolmentService/Enrol",
        Callers::Enrolling,
    ),
    (
        "/bailey.broker.v1.EpochService/Epoch",
        Callers::Only(&[Policy]),
    ),
    // For what the worker delivers to consumers, and nobody else: whoever signs can claim to be the stack.
    (
        "/bailey.broker.v1.OperationService/SignHmac",
        Callers::Only(&[Worker]),
    ),
    ("/bailey.broker.v1.OperationService/VerifyHmac", GATEWAY),
    ("/bailey.broker.v1.PresenceService/Beat", EVERYBODY),
    ("/bailey.broker.v1.PresenceService/Roll", GATEWAY),
    (
        "/bailey.broker.v1.TicketService/MakeTicket",
        Callers::Only(&[Engine]),
    ),
    ("/bailey.broker.v1.TokenService/VerifyToken", GATEWAY),
    // The one method that answers a secret's value: for what goes out, and nobody else.
    (
        "/bailey.broker.v1.UpstreamKeyService/ReleaseKey",
        Callers::Only(&[EgressProxy]),
    ),
    (
        "/bailey.egress.v1.UpstreamService/Exchange",
        Callers::Only(&[Engine, Worker]),
    ),
    ("/bailey.engine.v1.IntakeService/EmitEvent", GATEWAY),
    (
        "/bailey.engine.v1.IntakeService/SubmitJob",
        Callers::Only(&[Gateway, Scheduler]),
    ),
    ("/bailey.engine.v1.LeaseService/Amend", RUNNER),
    ("/bailey.engine.v1.LeaseService/Lease", RUNNER),
    ("/bailey.engine.v1.LeaseService/Report", RUNNER),
    ("/bailey.engine.v1.LeaseService/TakeLine", RUNNER),
    ("/bailey.engine.v1.PluginService/ClearPlugin", GATEWAY),
    ("/bailey.engine.v1.PluginService/RestartPlugin", GATEWAY),
    ("/bailey.engine.v1.QueryService/Catalogue", GATEWAY),
    ("/bailey.engine.v1.QueryService/ListJobs", GATEWAY),
    ("/bailey.engine.v1.QueryService/ReadJob", GATEWAY),
    ("/bailey.engine.v1.QueryService/ReadTree", GATEWAY),
    ("/bailey.engine.v1.QueryService/Status", GATEWAY),
    ("/bailey.engine.v1.QueryService/Subscribe", GATEWAY),
    ("/bailey.engine.v1.QueryService/WaitForJob", GATEWAY),
    (
        "/bailey.engine.v1.RetentionService/Prune",
        Callers::Only(&[Worker]),
    ),
    (
        "/bailey.engine.v1.ScheduleService/OutstandingJobs",
        Callers::Only(&[Scheduler]),
    ),
    ("/bailey.engine.v1.UpstreamService/CheckUpstream", GATEWAY),
    ("/bailey.engine.v1.UpstreamService/ListUpstreams", GATEWAY),
    (
        "/bailey.policy.v1.DecisionService/Decide",
        Callers::Only(&[Engine]),
    ),
    ("/bailey.policy.v1.PoolService/GrantPool", RUNNER),
];

/// Who may call the method at `path`; nobody where there is no such method.
pub fn of(path: &str) -> Callers {
    TABLE
        .iter()
        .find(|(method, _)| *method == path)
        .map_or(NOBODY, |(_, callers)| *callers)
}
