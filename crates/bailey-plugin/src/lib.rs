#![doc = include_str!("../README.md")]

pub mod catalogue;
mod container;
pub mod discovery;
pub mod egress;
mod limits;
pub mod manifest;
pub mod protocol;
pub mod rating;
pub mod tree;

pub use catalogue::Catalogue;
pub use container::{
    Container, ContainerYaml, EgressBounds, RunMode, StateBounds, StateKind, is_runtime,
};
pub use limits::Limits;
pub use manifest::Manifest;
