//! broker

fn main() {}
