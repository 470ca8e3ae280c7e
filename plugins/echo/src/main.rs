//! echo

fn main() {}
