//! The audit service.

use std::process::ExitCode;

use bailey_types::Service;

fn main() -> ExitCode {
    bailey_service::main(Service::Audit, audit::run)
}
