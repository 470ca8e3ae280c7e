//! Verbs about secrets, principals and API tokens.

use std::path::PathBuf;

use bailey_types::{PrincipalName, SecretName, TokenName};
use clap::{Args, Subcommand, ValueEnum};

use crate::cli::custody::CustodyVerb;

#[derive(Debug, Subcommand)]
pub(crate) enum VaultVerb {
    /// Make the vault, once; the admin token goes into --admin-token-file
    Init,
    /// Keep a secret, and say who gets it. The value comes by standard input or a prompt
    ///
    /// Of a secret that is there, `set` changes who may have it and what is known of it, never its value: that is what `roll` is for.
    #[command(
        after_help = "Examples:\n  bailey vault set api_key --grant fetch < key.txt\n  bailey vault set session_key --generate --length 48 --grant fetch\n  bailey vault set api_key --keep-value --grant fetch --grant echo      from now on these two\n  bailey vault set api_key --keep-value --no-grants                     nobody any more"
    )]
    Set(SetArgs),
    /// Give a secret a new value: by standard input or a prompt, or made by the broker if it makes them
    ///
    /// Of a secret whose values the broker makes, a value that is given is refused. What comes by standard input within 2 s counts as given;
    /// nothing does at a terminal, nor what is empty.
    #[command(
        after_help = "Examples:\n  bailey vault roll api_key < new-key.txt\n  bailey vault roll session_key"
    )]
    Roll(SecretArg),
    /// Revoke a secret for ever: its value is forgotten, its name is not used again
    Revoke(SecretArg),
    /// List secrets, principals and tokens; never a value
    List,
    /// Show everything that is known of one secret but its value
    Describe(SecretArg),
    /// Show who may have what: principals with their secrets, secrets with their principals
    Grants,
    /// Make a principal: somebody that secrets are granted to
    RegisterPrincipal(RegisterArgs),
    /// From now on the principal gets nothing, and what runs in its name fails
    RevokePrincipal(PrincipalArg),
    /// Forget a principal and take back every grant to it; its name can be registered again
    PurgePrincipal(PrincipalArg),
    /// New values for every secret of a principal that the broker makes values for; the others are named
    RollPrincipal(PrincipalArg),
    /// Take over secrets from a file: first without --apply, which changes nothing and says what would be
    ///
    /// Knows dotenv files, YAML files of names and values, Ductile's tokens.yaml and vault, and any of them encrypted with age.
    #[command(
        after_help = "Examples:\n  bailey vault import .env --grant fetch\n  bailey vault import tokens.yaml --apply\n  bailey vault import vault.age --identity age.key --apply\n  age -d -i key secrets.yaml.age | bailey vault import - --apply"
    )]
    Import(ImportArgs),
    /// Show from the audit log what was done with secrets, principals, tokens and tickets, and what was denied
    ///
    /// The log is verified first. Tickets that delivered nothing are left out.
    Audit(AuditArgs),
    /// Show whether the vault is open
    #[command(
        after_help = "Exit code: 0 if it is open, 2 if it is sealed or there is none, 1 if that cannot be said, as while the broker is stopped."
    )]
    Status,
    #[command(flatten)]
    Custody(CustodyVerb),
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct SetArgs {
    /// The secret
    pub(crate) name: SecretName,
    /// Who may have it, and nobody else: a plugin or its `vault_principal`, that of an upstream, or who was registered
    #[arg(long = "grant", value_name = "PRINCIPAL")]
    pub(crate) grants: Vec<PrincipalName>,
    /// Nobody may have it
    #[arg(long, conflicts_with = "grants")]
    pub(crate) no_grants: bool,
    /// Of a secret that is there: keep its value
    #[arg(long)]
    pub(crate) keep_value: bool,
    /// The broker makes its values: at once for a new secret, with the next roll for one that is there
    #[arg(long)]
    pub(crate) generate: bool,
    /// With --generate: how many characters, 8 to 1024; default: as it is, or 32
    #[arg(long, requires = "generate", value_name = "N", value_parser = clap::value_parser!(u32).range(8..=1024))]
    pub(crate) length: Option<u32>,
    /// With --generate: of what; default: as it is, or alphanumeric
    #[arg(long, requires = "generate", value_enum)]
    pub(crate) alphabet: Option<Alphabet>,
    /// The operator makes its values, as is the case for every secret that was set without --generate
    #[arg(long, conflicts_with = "generate")]
    pub(crate) manual: bool,
    /// For people
    #[arg(long, default_value = "")]
    pub(crate) description: String,
}

/// What a made value consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Alphabet {
    /// Letters and digits
    Alphanumeric,
    /// Lower-case hexadecimal digits
    Hex,
    /// Decimal digits
    Digits,
    /// Letters, digits, - and _
    Base64url,
    /// Letters, digits and harmless punctuation
    Symbols,
}

#[derive(Debug, Args)]
pub(crate) struct SecretArg {
    /// The secret
    pub(crate) name: SecretName,
}

#[derive(Debug, Args)]
pub(crate) struct PrincipalArg {
    /// The principal
    pub(crate) name: PrincipalName,
}

#[derive(Debug, Args)]
pub(crate) struct RegisterArgs {
    /// The principal: the name of a plugin, or its `vault_principal`
    pub(crate) name: PrincipalName,
    /// What it is
    #[arg(long, value_enum, default_value_t = PrincipalKind::Plugin)]
    pub(crate) kind: PrincipalKind,
}

/// What a principal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrincipalKind {
    /// A plugin: gets its secrets with each request
    Plugin,
    /// Something outside of the stack
    Consumer,
    /// The stack itself
    Gateway,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The file; `-` or nothing: standard input
    pub(crate) file: Option<PathBuf>,
    /// File with the age key that opens the file, if it is encrypted
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// What the file is; default: what it looks like
    #[arg(long, value_enum, default_value_t = Format::Auto)]
    pub(crate) format: Format,
    /// Who may have what is imported, beside whom the file names; registered if the lock names them
    #[arg(long = "grant", value_name = "PRINCIPAL")]
    pub(crate) grants: Vec<PrincipalName>,
    /// Do it
    #[arg(long)]
    pub(crate) apply: bool,
}

/// What a file to import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// What it looks like
    Auto,
    /// NAME=value lines
    Dotenv,
    /// YAML: names and values, Ductile's tokens.yaml, or Ductile's vault
    Yaml,
}

#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// A copy of the log; default: the stack's own
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The public keys; default: config/trust.json
    #[arg(long, value_name = "FILE")]
    pub(crate) trust: Option<PathBuf>,
    /// At most this many, the newest
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Make an API token; it is shown once
    #[command(
        after_help = "Example:\n  bailey token create --name phone --scope events:rw --scope jobs:ro --out phone.token"
    )]
    Create(TokenArgs),
    /// List API tokens with their scopes; the tokens themselves nobody can show
    List,
    /// Revoke an API token: the next request with it is refused
    Revoke(TokenArg),
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// Its name
    #[arg(long)]
    pub(crate) name: TokenName,
    /// What it may do, e.g. plugin:rw, plugin:ro, jobs:ro, events:rw, system:ro, or * for everything
    #[arg(long = "scope", required = true, value_name = "SCOPE")]
    pub(crate) scopes: Vec<String>,
    /// File to write it to, readable by its owner only; `-` prints it, as without this flag
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct TokenArg {
    /// The token's name
    pub(crate) name: TokenName,
}
