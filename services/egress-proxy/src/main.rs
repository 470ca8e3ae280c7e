//! The one way out, in one process.

use std::alloc::System;
use std::process::ExitCode;

use bailey_types::Service;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use zeroizing_alloc::ZeroAlloc;

/// Keys of upstreams pass through here: whatever is freed is wiped.
#[global_allocator]
static WIPING: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    // No core dump and no debugger of the same uid sees a key.
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        eprintln!("egress-proxy: forbidding core dumps: {error}");
        return ExitCode::FAILURE;
    }
    bailey_service::main(Service::EgressProxy, egress_proxy::run)
}
