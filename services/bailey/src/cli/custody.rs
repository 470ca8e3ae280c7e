//! Verbs about who can open the vault.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum CustodyVerb {
    /// Have the broker look at the age key now, after it was put right
    Unseal,
    /// Say who can open the vault besides the stack's own age key
    Recipients {
        #[command(subcommand)]
        verb: RecipientsVerb,
    },
    /// Print a new age key, for paper or another machine; the stack keeps nothing of it
    #[command(
        after_help = "Example:\n  bailey vault keygen                              print it twice, lock it away\n  bailey vault recipients add age1… --note safe    its public half"
    )]
    Keygen,
    /// Replace the stack's age key, while the broker is stopped
    ///
    /// What the stack uses is sealed to the new key; the old one is destroyed. Copies made before stay open to it, those of `root-ca.key.age`
    /// too. Interrupted, it is finished by running it again.
    #[command(
        after_help = "Example:\n  docker compose stop broker && bailey vault rotate-key && docker compose start broker"
    )]
    RotateKey,
    /// Make another admin token, while the broker is stopped; whoever has the age key can
    #[command(
        after_help = "Example:\n  docker compose stop broker && bailey vault rotate-admin-token && docker compose start broker"
    )]
    RotateAdminToken,
    /// Write the whole vault into a file, encrypted to the given keys and to nobody else
    #[command(after_help = "Example:\n  bailey vault export --to age1… --out vault-copy.age")]
    Export(ExportArgs),
    /// Make a copy of a vault this stack's vault, while the broker is stopped
    ///
    /// The copy is an export, or a `vault.age` from a backup. What was revoked since it was made is good again: each of these is named, with
    /// what is lost, and nothing is done before you agree.
    #[command(
        after_help = "Examples:\n  bailey vault restore vault-copy.age --identity -            asks for the paper key\n  bailey vault restore vault.age --replace                    with the stack's own key, over the vault that is there"
    )]
    Restore(RestoreArgs),
    /// Take over a vault that the broker does not believe, while it is stopped: one of an earlier version of this software, or an earlier one of this stack
    ///
    /// What is in it is named, and nothing is done before you agree. In an earlier vault, what was revoked since is good again.
    Adopt(AdoptArgs),
}

impl CustodyVerb {
    /// Whether it is done without the management socket: with the broker stopped, or without any stack.
    pub(crate) fn is_offline(&self) -> bool {
        match self {
            Self::Unseal | Self::Recipients { .. } | Self::Export(_) => false,
            Self::Keygen
            | Self::RotateKey
            | Self::RotateAdminToken
            | Self::Restore(_)
            | Self::Adopt(_) => true,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum RecipientsVerb {
    /// List them
    List,
    /// Encrypt the vault to one more key, from now on
    Add(AddArgs),
    /// Encrypt it to one fewer; copies made before stay open to that key
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The public half of an age key
    #[arg(value_name = "age1…")]
    pub(crate) recipient: String,
    /// Where the private half is, for people
    #[arg(long, default_value = "")]
    pub(crate) note: String,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The public half of an age key
    #[arg(value_name = "age1…")]
    pub(crate) recipient: String,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The public half of an age key that can open it; may be given several times
    #[arg(long = "to", value_name = "age1…", required = true)]
    pub(crate) to: Vec<String>,
    /// The file; it must not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The copy
    pub(crate) copy: PathBuf,
    /// File with the age key that opens it, `-` to be asked for it; default: the stack's own key
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// Over the vault that is there
    #[arg(long)]
    pub(crate) replace: bool,
    /// Do it without being asked
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    /// Do it without being asked
    #[arg(long)]
    pub(crate) yes: bool,
    /// Only if the vault is the file with this hash, which was shown before
    #[arg(long, value_name = "SHA256", requires = "yes")]
    pub(crate) expect: Option<String>,
}
