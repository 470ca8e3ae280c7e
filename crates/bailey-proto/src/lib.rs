#![doc = include_str!("../README.md")]

/// The serialised `FileDescriptorSet` of all definitions: what the caller-table test walks.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/descriptors.bin");

macro_rules! packages {
    ($($name:ident)*) => {
        $(
            #[doc = concat!("`bailey.", stringify!($name), "`")]
            pub mod $name {
                #[doc = concat!("`bailey.", stringify!($name), ".v1`")]
                #[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
                pub mod v1 {
                    include!(concat!("gen/bailey.", stringify!($name), ".v1.rs"));
                }
            }
        )*
    };
}

packages!(audit broker egress engine management policy trust);
