//! The gateway's binary.

use std::process::ExitCode;

use bailey_types::Service;

fn main() -> ExitCode {
    bailey_service::main_with(Service::Gateway, gateway::run)
}
