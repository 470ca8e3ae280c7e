//! Which calls there are. Everything that is not exactly one of them is refused.

use bailey_service::Context;
use http::header::{EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{Method, Uri, Version};

use crate::registry::ContainerId;

/// The name under which the runner asks for the image of probes.
pub const PROBE_IMAGE: &str = "bailey-probe";

/// The name under which the runner asks for the image of holders.
pub const HOLDER_IMAGE: &str = "bailey-holder";

/// Longest path with query.
const MAX_TARGET_BYTES: usize = 512;

/// What the runner may send to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

impl Signal {
    /// As the engine takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Kill => "SIGKILL",
        }
    }
}

/// A call of the runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Whether the engine answers.
    Ping,
    /// Which image probes have.
    ProbeImage,
    /// Which image holders have.
    HolderImage,
    /// What happens to ours, as it happens.
    Events,
    /// Make a container under this name.
    Create(String),
    /// Ours, all of them.
    List,
    /// Start it.
    Start(ContainerId),
    /// Attach to it.
    Attach(ContainerId),
    /// Wait until it does not run.
    Wait(ContainerId),
    /// Send it a signal.
    Kill(ContainerId, Signal),
    /// Remove it, running or not, with its anonymous volumes.
    Remove(ContainerId),
    /// Its state.
    Inspect(ContainerId),
}

/// What a call does to the containers of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// None that the books must have.
    None,
    /// One more.
    Create,
    /// Another one runs, or one is gone.
    Change,
}

impl Call {
    /// See [`Effect`].
    pub const fn effect(&self) -> Effect {
        match self {
            Self::Create(_) => Effect::Create,
            Self::Start(_) | Self::Remove(_) => Effect::Change,
            Self::Ping
            | Self::ProbeImage
            | Self::HolderImage
            | Self::List
            | Self::Events
            | Self::Kill(..)
            | Self::Wait(_)
            | Self::Inspect(_)
            | Self::Attach(_) => Effect::None,
        }
    }
}

/// Reads the head of a request. The error is a sentence for the answer and the audit log.
pub fn parse(head: &Parts) -> Result<Call, String> {
    check_surface(head)?;
    let query = Query::parse(head.uri.query())?;
    let segments: Vec<&str> = head.uri.path().split('/').skip(1).collect();
    let method = &head.method;
    let call = match (method, segments.as_slice()) {
        (&(Method::GET | Method::HEAD), ["_ping"]) => query.none().map(|()| Call::Ping),
        (&Method::GET, ["images", PROBE_IMAGE, "json"]) => query.none().map(|()| Call::ProbeImage),
        (&Method::GET, ["images", HOLDER_IMAGE, "json"]) => {
            query.none().map(|()| Call::HolderImage)
        }
        (&Method::GET, ["events"]) => query.none().map(|()| Call::Events),
        (&Method::POST, ["containers", "create"]) => create(&query),
        (&Method::GET, ["containers", "json"]) => query
            .only(&[("all", YES), ("size", NO)], &["all"])
            .map(|()| Call::List),
        (_, ["containers", id, verb]) => container(method, container_id(id)?, verb, &query),
        (&Method::DELETE, ["containers", id]) => {
            let id = container_id(id)?;
            let known = [("force", YES), ("v", YES), ("link", NO)];
            query
                .only(&known, &["force", "v"])
                .map(|()| Call::Remove(id))
        }
        _ => Err(format!(
            "{method} {} is not among the calls of this proxy",
            head.uri.path()
        )),
    };
    let upgrades = head.headers.contains_key(UPGRADE);
    match (&call, upgrades) {
        (Ok(Call::Attach(_)), true) | (Err(_), _) => call,
        (Ok(Call::Attach(_)), false) => Err("an attach needs `Upgrade: tcp`".into()),
        (Ok(_), true) => Err("only an attach may upgrade its connection".into()),
        (Ok(_), false) => call,
    }
}

const YES: &[&str] = &["1", "true"];
const NO: &[&str] = &["0", "false"];

fn container(method: &Method, id: ContainerId, verb: &str, query: &Query) -> Result<Call, String> {
    match (method, verb) {
        (&Method::POST, "start") => query.none().map(|()| Call::Start(id)),
        (&Method::POST, "attach") => {
            let streams = ["stream", "stdin", "stdout", "stderr"];
            let known = [streams.map(|name| (name, YES)).as_slice(), &[("logs", NO)]].concat();
            query.only(&known, &streams).map(|()| Call::Attach(id))
        }
        (&Method::POST, "wait") => query
            .only(&[("condition", &["not-running"])], &[])
            .map(|()| Call::Wait(id)),
        (&Method::POST, "kill") => {
            query.only(&[("signal", &["SIGTERM", "SIGKILL"])], &["signal"])?;
            let terminate = query.value("signal") == Some("SIGTERM");
            Ok(Call::Kill(
                id,
                if terminate {
                    Signal::Terminate
                } else {
                    Signal::Kill
                },
            ))
        }
        (&Method::GET, "json") => query.only(&[("size", NO)], &[]).map(|()| Call::Inspect(id)),
        _ => Err(format!(
            "{method} /containers/<id>/{verb} is not among the calls of this proxy"
        )),
    }
}

fn create(query: &Query) -> Result<Call, String> {
    query.check(|name, value| match name {
        "name" => value.starts_with("bailey-"),
        "platform" => value.is_empty(),
        _ => false,
    })?;
    let name = query
        .value("name")
        .ok_or("the query parameter name is missing")?;
    Ok(Call::Create(name.to_owned()))
}

fn container_id(text: &str) -> Result<ContainerId, String> {
    text.parse()
        .map_err(|()| "containers are named by their full id only".to_owned())
}

/// What parsers disagree about is not in any request of ours (RFC 9112 section 11).
fn check_surface(head: &Parts) -> Result<(), String> {
    let target = head
        .uri
        .path_and_query()
        .map_or("", http::uri::PathAndQuery::as_str);
    let wrong = if head.version != Version::HTTP_11 {
        "only HTTP/1.1 is spoken here"
    } else if !is_origin_form(&head.uri) {
        "the request target must be a path"
    } else if target.len() > MAX_TARGET_BYTES {
        "the request target is too long"
    } else if target.contains('%') || !target.is_ascii() {
        "the request target must not be encoded"
    } else if target.contains("//") || target.contains("/.") {
        "the path must not have empty or dotted segments"
    } else if head.headers.contains_key(TRANSFER_ENCODING) {
        "bodies need a Content-Length"
    } else if head.headers.contains_key(EXPECT) {
        "expectations are not met here"
    } else {
        return Ok(());
    };
    Err(wrong.to_owned())
}

fn is_origin_form(uri: &Uri) -> bool {
    uri.scheme().is_none() && uri.authority().is_none() && uri.path().starts_with('/')
}

/// Query parameters; each at most once.
struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    fn parse(text: Option<&'a str>) -> Result<Self, String> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for pair in text
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(format!("the query parameter {name} appears twice"));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.0
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value)
    }

    fn check(&self, allowed: impl Fn(&str, &str) -> bool) -> Result<(), String> {
        let wrong = self.0.iter().find(|(name, value)| !allowed(name, value));
        wrong.map_or(Ok(()), |(name, value)| {
            Err(format!(
                "the query parameter {name}={value} is not allowed here"
            ))
        })
    }

    /// Only these parameters with these values; `needed` must be there.
    fn only(&self, known: &[(&str, &[&str])], needed: &[&str]) -> Result<(), String> {
        self.check(|name, value| {
            known
                .iter()
                .any(|(known, values)| *known == name && values.contains(&value))
        })?;
        let missing = needed.iter().find(|name| self.value(name).is_none());
        missing.map_or(Ok(()), |name| {
            Err(format!("the query parameter {name} is missing"))
        })
    }

    fn none(&self) -> Result<(), String> {
        self.only(&[], &[])
    }
}

/// What this proxy calls itself in answers.
pub fn server_name() -> String {
    format!("bailey-socket-proxy/{}", Context::VERSION)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn read(method: &str, target: &str) -> Result<Call, String> {
        let mut request = Request::builder().method(method).uri(target);
        if target.contains("/attach") {
            request = request.header("upgrade", "tcp");
        }
        parse(&request.body(()).unwrap().into_parts().0)
    }

    fn id() -> String {
        "ab".repeat(32)
    }

    #[test]
    fn the_calls_of_bollard_are_understood() {
        let id = id();
        let known: ContainerId = id.parse().unwrap();
        for (method, target, call) in [
            ("GET", "/_ping".to_owned(), Call::Ping),
            ("GET", "/images/bailey-probe/json".into(), Call::ProbeImage),
            (
                "GET",
                "/images/bailey-holder/json".into(),
                Call::HolderImage,
            ),
            ("GET", "/events".into(), Call::Events),
            (
                "POST",
                "/containers/create?name=bailey-x&platform=".into(),
                Call::Create("bailey-x".into()),
            ),
            (
                "GET",
                "/containers/json?all=true&size=false".into(),
                Call::List,
            ),
            (
                "POST",
                format!("/containers/{id}/start"),
                Call::Start(known.clone()),
            ),
            (
                "POST",
                format!(
                    "/containers/{id}/attach?logs=false&stream=true&stdin=true&stdout=true&stderr=true"
                ),
                Call::Attach(known.clone()),
            ),
            (
                "POST",
                format!("/containers/{id}/wait?condition=not-running"),
                Call::Wait(known.clone()),
            ),
            (
                "POST",
                format!("/containers/{id}/kill?signal=SIGTERM"),
                Call::Kill(known.clone(), Signal::Terminate),
            ),
            (
                "DELETE",
                format!("/containers/{id}?v=true&force=true&link=false"),
                Call::Remove(known.clone()),
            ),
            (
                "GET",
                format!("/containers/{id}/json?size=false"),
                Call::Inspect(known),
            ),
        ] {
            assert_eq!(read(method, &target), Ok(call), "{method} {target}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let id = id();
        for (method, target) in [
            ("POST", format!("/containers/{id}/exec")),
            ("GET", format!("/containers/{id}/logs?stdout=1")),
            ("GET", format!("/containers/{id}/archive?path=/")),
            ("PUT", format!("/containers/{id}/archive?path=/")),
            ("POST", format!("/containers/{id}/rename?name=x")),
            ("POST", format!("/containers/{id}/update")),
            ("POST", format!("/commit?container={id}")),
            ("GET", "/version".into()),
            ("GET", "/info".into()),
            ("GET", "/v1.41/_ping".into()),
            ("POST", "/v1.41/containers/create?name=bailey-x".into()),
            ("GET", "/containers/json".into()),
            ("GET", "/containers/json?all=1&filters=x".into()),
            ("GET", "/images/json".into()),
            ("GET", "/events?since=0".into()),
            ("GET", "/events?filters={}".into()),
            ("POST", "/events".into()),
            ("POST", "/containers/create".into()),
            (
                "POST",
                "/containers/create?name=bailey-x&name=bailey-y".into(),
            ),
            (
                "POST",
                "/containers/create?name=bailey-x&platform=arm".into(),
            ),
            ("POST", "/containers/create?Name=bailey-x".into()),
            ("POST", format!("/containers/{}/start", &id[..12])),
            ("POST", "/containers/bailey-home-cell-1/start".into()),
            ("POST", format!("/containers/{id}/start?detachKeys=x")),
            ("POST", format!("/containers/{id}/kill")),
            ("POST", format!("/containers/{id}/kill?signal=SIGSTOP")),
            (
                "POST",
                format!("/containers/{id}/attach?stream=1&stdin=1&stdout=1"),
            ),
            (
                "POST",
                format!("/containers/{id}/attach?stream=1&stdin=1&stdout=1&stderr=1&logs=1"),
            ),
            ("DELETE", format!("/containers/{id}?v=1")),
            ("DELETE", format!("/containers/{id}?v=1&force=1&link=1")),
            ("GET", format!("/containers/{id}/start")),
            ("POST", format!("/containers//{id}/start")),
            ("POST", format!("//containers/{id}/start")),
            ("POST", format!("/containers/{id}/start/")),
            ("POST", format!("/containers/%2e%2e/{id}/start")),
            ("POST", format!("/containers/./{id}/start")),
            ("GET", "/%5fping".into()),
            ("GET", "http://docker/_ping".into()),
            ("HEAD", "/containers/json?all=1".into()),
        ] {
            assert!(read(method, &target).is_err(), "{method} {target}");
        }
    }

    #[test]
    fn what_parsers_read_differently_is_refused() {
        let read =
            |request: http::request::Builder| parse(&request.body(()).unwrap().into_parts().0);
        let ping = || Request::builder().uri("/_ping");
        assert!(read(ping()).is_ok());
        assert!(read(ping().version(Version::HTTP_10)).is_err());
        assert!(read(ping().header("transfer-encoding", "chunked")).is_err());
        assert!(read(ping().header("expect", "100-continue")).is_err());
        assert!(read(ping().header("upgrade", "h2c")).is_err());
        let target = format!(
            "/containers/{}/attach?stream=1&stdin=1&stdout=1&stderr=1",
            id()
        );
        assert!(read(Request::builder().method("POST").uri(target)).is_err());
    }
}
