//! The command line. Socket-proxy derives it: `pause` or `egress`, and nothing else; the flags are for tests.

use std::net::SocketAddr;
use std::path::PathBuf;

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Keep the namespace.
    Pause,
    /// Keep it, and be the way out of it.
    Egress(Options),
}

/// Where everything is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// HTTP proxy. With port 0 the address that was given is written to standard error.
    pub(crate) http: SocketAddr,
    /// SOCKS5.
    pub(crate) socks: SocketAddr,
    /// egress-proxy.
    pub(crate) socket: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            http: SocketAddr::from(([127, 0, 0, 1], 3128)),
            socks: SocketAddr::from(([127, 0, 0, 1], 1080)),
            socket: bailey_lease::SOCKET.into(),
        }
    }
}

impl Command {
    /// Reads the command line, without the program's name.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let verb = arguments.next();
        let mut options = Options::default();
        match verb.as_deref() {
            Some("pause") => match arguments.next() {
                None => Ok(Self::Pause),
                Some(more) => Err(format!("pause takes no {more:?}")),
            },
            Some("egress") => {
                while let Some(flag) = arguments.next() {
                    let value = arguments.next();
                    let value = value.ok_or_else(|| format!("{flag} needs a value"))?;
                    options.set(&flag, &value)?;
                }
                Ok(Self::Egress(options))
            }
            Some(_) | None => Err("it must be `holder pause` or `holder egress`".into()),
        }
    }
}

impl Options {
    fn set(&mut self, flag: &str, value: &str) -> Result<(), String> {
        let address = || {
            value
                .parse()
                .map_err(|_| format!("{flag}: {value:?} is no address"))
        };
        match flag {
            "--http" => self.http = address()?,
            "--socks" => self.socks = address()?,
            "--socket" => self.socket = value.into(),
            _ => return Err(format!("{flag} is not known")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        Command::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_two_commands_of_a_container_need_no_flags() {
        assert_eq!(parse("pause"), Ok(Command::Pause));
        let Ok(Command::Egress(options)) = parse("egress") else {
            panic!("it is refused")
        };
        assert_eq!(options.http.to_string(), "127.0.0.1:3128");
        assert_eq!(options.socks.to_string(), "127.0.0.1:1080");
        assert_eq!(
            options.socket,
            std::path::Path::new("/run/bailey/egress/egress.sock")
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for line in [
            "",
            "serve",
            "pause now",
            "egress --http",
            "egress --http x",
            "egress --all 1",
        ] {
            assert!(parse(line).is_err(), "{line:?}");
        }
        assert!(parse("egress --socket /x --http 127.0.0.1:0").is_ok());
    }
}
