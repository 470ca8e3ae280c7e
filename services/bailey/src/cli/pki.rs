//! `bailey pki`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum PkiVerb {
    /// Show root, intermediates and the certificate of each service; warns of what ends soon
    Status,
    /// Make a new intermediate under the same root; every service renews within a minute, no call fails
    Rotate,
    /// Make a new root, with the stack stopped; keys, vault and data stay
    #[command(
        after_help = "Example:\n  make down && bailey pki new-root && make up\n\nThe old files are kept beside the new ones. Clients must be told to trust the new config/ca.pem."
    )]
    NewRoot(NewRootArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NewRootArgs {
    /// Inside of the container `init`: folder of the broker's data; while a broker uses it, nothing is changed
    #[arg(long, default_value = "/broker", hide = true, value_name = "DIR")]
    pub(crate) vault_dir: PathBuf,
    /// Inside of the container `init`: folder of the secrets
    #[arg(long, hide = true, value_name = "DIR")]
    pub(crate) secrets_dir: Option<PathBuf>,
}
