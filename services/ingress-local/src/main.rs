//! ingress-local

fn main() {}
