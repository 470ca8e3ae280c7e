//! policy

fn main() {}
