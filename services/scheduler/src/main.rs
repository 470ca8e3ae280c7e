//! scheduler

fn main() {}
