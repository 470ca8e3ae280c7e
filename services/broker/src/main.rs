//! The broker's binary: the service, or, in the container `custody`, what is done while it does not run.

use std::process::ExitCode;

use bailey_types::Service;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

fn main() -> ExitCode {
    // No core dump and no debugger of the same uid sees the vault.
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        eprintln!("broker: forbidding core dumps: {error}");
        return ExitCode::FAILURE;
    }
    let mut args = std::env::args_os().skip(1);
    // A verb of its own: what is done while the broker does not run.
    if args.next().is_some_and(|verb| verb == "custody") {
        return broker::custody::main(args);
    }
    bailey_service::main_with(Service::Broker, broker::run)
}
