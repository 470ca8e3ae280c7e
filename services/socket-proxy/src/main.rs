//! The binary: the service, or, inside a probe, the look at its walls.

use std::alloc::System;
use std::process::ExitCode;

use bailey_cell::probe::PATHS_VERB;
use bailey_cell::usage;
use bailey_types::Service;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use zeroizing_alloc::ZeroAlloc;

/// Requests with their secrets pass through here: whatever is freed is wiped.
#[global_allocator]
static WIPING: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    // A verb of its own: a probe has no configuration, no secrets and no log.
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["probe"] => return socket_proxy::probe::run(),
        ["probe", PATHS_VERB, paths @ ..] => return socket_proxy::probe::run_paths(paths),
        ["probe", usage::VERB, told @ ..] => return socket_proxy::measure::run(told),
        _ => {}
    }
    // No core dump and no debugger of the same uid sees what a ticket seals.
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        eprintln!("socket-proxy: forbidding core dumps: {error}");
        return ExitCode::FAILURE;
    }
    bailey_service::main_with(Service::SocketProxy, socket_proxy::run)
}
