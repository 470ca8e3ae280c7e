//! egress-proxy

fn main() {}
