//! The process of a holder.

use std::process::ExitCode;

fn main() -> ExitCode {
    holder::main(std::env::args().skip(1))
}
