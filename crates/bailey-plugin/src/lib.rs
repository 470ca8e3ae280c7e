#![doc = include_str!("../README.md")]

pub mod catalogue;
mod container;
pub mod discovery;
mod limits;
pub mod manifest;
pub mod protocol;
pub mod tree;

pub use catalogue::Catalogue;
pub use container::{Container, ContainerYaml, StateKind};
pub use limits::Limits;
pub use manifest::Manifest;
