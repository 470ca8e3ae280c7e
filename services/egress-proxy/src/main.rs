//! The one way out, in one process.

use std::process::ExitCode;

use bailey_types::Service;

fn main() -> ExitCode {
    bailey_service::main_with(Service::EgressProxy, egress_proxy::run)
}
