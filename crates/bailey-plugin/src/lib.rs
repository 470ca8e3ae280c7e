#![doc = include_str!("../README.md")]

mod limits;
pub mod manifest;

pub use limits::Limits;
pub use manifest::Manifest;
