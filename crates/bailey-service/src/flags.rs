//! The flags that all services have. Everything else is in the configuration files.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bailey_types::Service;
use clap::{Args, FromArgMatches as _, Parser, ValueEnum};

/// For services without flags of their own.
#[derive(Args, Clone, Copy, Debug)]
pub struct NoArgs {}

#[derive(Parser)]
#[command(version)]
pub(crate) struct Cli<A: Args> {
    /// What to do
    #[arg(value_enum, default_value = "serve")]
    pub(crate) verb: Verb,
    #[command(flatten)]
    pub(crate) flags: Flags,
    #[command(flatten)]
    pub(crate) extra: A,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Verb {
    /// Run until SIGTERM
    Serve,
    /// Ask the running service how it is: exit code 0 or 1
    Healthcheck,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// Configuration files, trust.json and the lock
    #[arg(long, default_value = "/config")]
    config_dir: PathBuf,
    /// One file per secret
    #[arg(long, default_value = "/run/secrets")]
    secrets_dir: PathBuf,
    /// What must outlive the container
    #[arg(long, default_value = "/data")]
    data_dir: PathBuf,
    /// Unix sockets shared with neighbours
    #[arg(long, default_value = "/run/bailey")]
    run_dir: PathBuf,
    /// Where this service serves the mesh
    #[arg(long, default_value = "0.0.0.0:7000")]
    listen: SocketAddr,
    /// Where this service answers its own health check
    #[arg(long, default_value = "127.0.0.1:9000")]
    pub(crate) health_listen: SocketAddr,
    /// Where a peer is, instead of <service>:7000 (repeatable)
    #[arg(long, value_name = "SERVICE=HOST:PORT", value_parser = peer)]
    peer: Vec<(Service, String)>,
    /// Where certificates are asked for
    #[arg(long, default_value = "broker:7001", value_name = "HOST:PORT")]
    enrol: String,
    /// Which log lines are written (tracing-subscriber's EnvFilter)
    #[arg(long, default_value = "info")]
    pub(crate) log: String,
}

/// Where a service finds its files and its neighbours.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `config.yaml`, `trust.json`, `bailey.lock`, `ca.pem`; read-only.
    pub config_dir: PathBuf,
    /// One file per secret; read-only.
    pub secrets_dir: PathBuf,
    /// The service's own volume.
    pub data_dir: PathBuf,
    /// Unix sockets: `manage/<service>/manage.sock`, `docker/docker.sock`.
    pub run_dir: PathBuf,
    /// Where the service serves the mesh.
    pub listen: SocketAddr,
    /// Where it answers its own health check.
    pub health_listen: SocketAddr,
    /// `host:port` of every peer.
    pub peers: BTreeMap<Service, String>,
    /// `host:port` of the broker's enrolment listener.
    pub enrol: String,
}

impl Settings {
    /// Settings of a test: `config`, `secrets`, `data` and `run` below `dir`, free ports on loopback.
    pub fn for_test(dir: &Path) -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            config_dir: dir.join("config"),
            secrets_dir: dir.join("secrets"),
            data_dir: dir.join("data"),
            run_dir: dir.join("run"),
            listen: any_port,
            health_listen: any_port,
            peers: BTreeMap::new(),
            enrol: any_port.to_string(),
        }
    }

    /// `host:port` of `service`.
    pub fn peer(&self, service: Service) -> String {
        self.peers
            .get(&service)
            .cloned()
            .unwrap_or_else(|| format!("{service}:7000"))
    }

    /// The file of the secret `name`.
    pub fn secret_path(&self, name: &str) -> PathBuf {
        self.secrets_dir.join(name)
    }

    /// The Unix socket on which the CLI manages `service`.
    pub fn management_socket(&self, service: Service) -> PathBuf {
        self.run_dir
            .join("manage")
            .join(service.name())
            .join("manage.sock")
    }
}

impl Flags {
    pub(crate) fn settings(&self) -> Settings {
        let default = Service::ALL
            .iter()
            .map(|service| (*service, format!("{service}:7000")));
        Settings {
            config_dir: self.config_dir.clone(),
            secrets_dir: self.secrets_dir.clone(),
            data_dir: self.data_dir.clone(),
            run_dir: self.run_dir.clone(),
            listen: self.listen,
            health_listen: self.health_listen,
            peers: default.chain(self.peer.iter().cloned()).collect(),
            enrol: self.enrol.clone(),
        }
    }
}

impl<A: Args> Cli<A> {
    /// Reads the command line; `--help`, `--version` and mistakes answer the exit code.
    pub(crate) fn read(name: &'static str) -> Result<Self, ExitCode> {
        let command = <Self as clap::CommandFactory>::command().name(name);
        let parsed = command
            .try_get_matches()
            .and_then(|matches| Self::from_arg_matches(&matches));
        parsed.map_err(|error| {
            let printed = error.print();
            // A wrong flag is a wrong configuration, whose exit code is 78 and not clap's 2.
            if printed.is_ok() && !error.use_stderr() {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(78)
            }
        })
    }
}

fn peer(text: &str) -> Result<(Service, String), String> {
    let (service, address) = text
        .split_once('=')
        .ok_or("it must be <service>=<host:port>")?;
    let port = address
        .rsplit_once(':')
        .and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>()));
    match port {
        Some(Ok(_)) => Ok((
            service
                .parse()
                .map_err(|e: bailey_types::BadService| e.to_string())?,
            address.to_owned(),
        )),
        Some(Err(_)) | None => Err(format!("{address:?} is not <host:port>")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Cli<NoArgs>, clap::Error> {
        Cli::try_parse_from([&["x"], args].concat())
    }

    #[test]
    fn without_flags_the_paths_are_those_of_the_container() {
        let cli = parse(&[]).unwrap();
        let settings = cli.flags.settings();
        assert!(cli.verb == Verb::Serve);
        assert_eq!(settings.config_dir, Path::new("/config"));
        assert_eq!(settings.peer(Service::SocketProxy), "socket-proxy:7000");
        let socket = "/run/bailey/manage/broker/manage.sock";
        assert_eq!(
            settings.management_socket(Service::Broker),
            Path::new(socket)
        );
    }

    #[test]
    fn a_peer_can_be_elsewhere_but_must_be_one_of_ours() {
        let settings = parse(&["--peer", "engine=127.0.0.1:4"])
            .unwrap()
            .flags
            .settings();
        assert_eq!(settings.peer(Service::Engine), "127.0.0.1:4");
        assert_eq!(settings.peer(Service::Audit), "audit:7000");
        for wrong in [
            "engine",
            "engine=",
            "engine=:1",
            "engine=host",
            "engine=host:99999",
            "intruder=host:1",
        ] {
            assert!(parse(&["--peer", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_verb_may_stand_before_or_after_the_flags() {
        assert!(parse(&["healthcheck", "--log", "debug"]).unwrap().verb == Verb::Healthcheck);
        assert!(parse(&["--log", "debug", "healthcheck"]).unwrap().verb == Verb::Healthcheck);
        assert!(parse(&["run"]).is_err());
    }
}
