//! The broker's binary.

use std::process::ExitCode;

use bailey_types::Service;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

fn main() -> ExitCode {
    // No core dump and no debugger of the same uid sees the vault.
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        eprintln!("broker: forbidding core dumps: {error}");
        return ExitCode::FAILURE;
    }
    bailey_service::main_with(Service::Broker, broker::run)
}
