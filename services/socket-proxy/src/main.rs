//! socket-proxy

fn main() {}
