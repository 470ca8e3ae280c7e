//! audit

fn main() {}
