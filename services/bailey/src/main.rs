//! bailey

fn main() {}
