//! engine

fn main() {}
