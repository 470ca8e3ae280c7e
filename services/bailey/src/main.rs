//! The operator's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    bailey::main(std::env::args_os())
}
