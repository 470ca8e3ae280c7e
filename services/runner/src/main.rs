//! See the library.

use std::process::ExitCode;

use bailey_service::main_with;
use bailey_types::Service;

fn main() -> ExitCode {
    main_with::<runner::Args, _, _>(Service::Runner, runner::run)
}
