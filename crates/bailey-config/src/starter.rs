//! The configuration that `bailey init` writes where there is none.

/// The files by their path relative to `config/`.
pub const FILES: &[(&str, &str)] = &[
    ("config.yaml", include_str!("../starter/config.yaml")),
    ("plugins.yaml", include_str!("../starter/plugins.yaml")),
    ("pipelines.yaml", include_str!("../starter/pipelines.yaml")),
];
