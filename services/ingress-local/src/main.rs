//! The loopback way in, in one process.

use std::process::ExitCode;

fn main() -> ExitCode {
    bailey_service::main_bare("ingress-local", ingress_local::run)
}
