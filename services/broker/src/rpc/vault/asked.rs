//! From what was sent to what the document understands.

use std::collections::{BTreeMap, BTreeSet};

use bailey_error::status;
use bailey_proto::management::v1 as wire;
use bailey_types::{PrincipalName, Timestamp};
use tonic::Status;
use zeroize::Zeroizing;

use crate::ticket::{self, Deliveries};
use crate::vault::{Document, Imported, Pattern, PrincipalKind, Recipe, Refused, SetSecret, Value};

/// A secret, or a change of one.
pub(super) fn set_secret(request: wire::SetSecretRequest) -> Result<SetSecret, Status> {
    let wire::SetSecretRequest {
        name,
        value: sent,
        grant_to,
        replace_grants,
        description,
        pattern,
        recipe,
    } = request;
    let grants = principals(&grant_to)?;
    let pattern = match pattern.as_str() {
        "" => None,
        pattern => Some(pattern.parse::<Pattern>().map_err(refused)?),
    };
    Ok(SetSecret {
        name: name.parse().map_err(invalid)?,
        value: value(&sent)?,
        grants: (replace_grants || !grants.is_empty()).then_some(grants),
        pattern,
        recipe: recipe.map(|recipe| self::recipe(&recipe)).transpose()?,
        description,
    })
}

/// A value; `None` if it is empty, which no value is.
pub(super) fn value(sent: &[u8]) -> Result<Option<Value>, Status> {
    match sent {
        [] => Ok(None),
        bytes if bytes.len() > Value::LIMIT_BYTES => Err(refused(Refused::ValueTooLarge)),
        bytes => {
            let text = std::str::from_utf8(bytes).map_err(|_| refused(Refused::ValueNotText))?;
            Ok(Some(Value::from(Zeroizing::new(text.to_owned()))))
        }
    }
}

fn recipe(sent: &wire::Recipe) -> Result<Recipe, Status> {
    let alphabet = sent.alphabet.parse().map_err(refused)?;
    Recipe::new(sent.length, alphabet).map_err(refused)
}

/// What is to be imported.
pub(super) struct Import {
    secrets: Vec<SetSecret>,
    principals: BTreeMap<PrincipalName, PrincipalKind>,
    /// Whether it is to be done, and not only tried.
    pub(super) apply: bool,
}

/// What an import did, or would do.
pub(super) struct Outcome {
    pub(super) secrets: Vec<Imported>,
    pub(super) registered: Vec<PrincipalName>,
    missing: Vec<String>,
}

/// An import.
pub(super) fn import(request: wire::ImportSecretsRequest) -> Result<Import, Status> {
    if request.secrets.len() > Document::ENTRY_LIMIT {
        let limit = Document::ENTRY_LIMIT;
        return Err(Status::invalid_argument(format!(
            "at most {limit} secrets are imported at once"
        )));
    }
    let mut principals = BTreeMap::new();
    for principal in &request.principals {
        let kind = principal.kind.parse::<PrincipalKind>().map_err(refused)?;
        principals.insert(principal.name.parse().map_err(invalid)?, kind);
    }
    let one = |sent: wire::ImportedSecret| {
        set_secret(wire::SetSecretRequest {
            name: sent.name,
            value: sent.value,
            grant_to: sent.grant_to,
            description: sent.description,
            ..wire::SetSecretRequest::default()
        })
    };
    let secrets: Result<Vec<_>, Status> = request.secrets.into_iter().map(one).collect();
    Ok(Import {
        secrets: secrets?,
        principals,
        apply: request.apply,
    })
}

impl Import {
    /// Does it to `document`, and says what the locked plugins lack then.
    pub(super) fn run(
        self,
        document: &mut Document,
        deliveries: Option<&Deliveries>,
        now: Timestamp,
    ) -> Result<Outcome, Refused> {
        let mut registered = Vec::new();
        for (name, kind) in self.principals {
            if document.register(name.clone(), kind)? {
                registered.push(name);
            }
        }
        let secrets = document.import(self.secrets, now);
        let missing = deliveries.map_or_else(Vec::new, |all| ticket::missing(document, all));
        Ok(Outcome {
            secrets,
            registered,
            missing,
        })
    }
}

impl From<Outcome> for wire::ImportSecretsResponse {
    fn from(outcome: Outcome) -> Self {
        let secrets = outcome.secrets.into_iter().map(|imported| {
            let skipped = imported.skipped.map(|refused| refused.to_string());
            wire::ImportOutcome {
                name: imported.name.to_string(),
                skipped: skipped.unwrap_or_default(),
            }
        });
        Self {
            secrets: secrets.collect(),
            registered: outcome.registered.iter().map(ToString::to_string).collect(),
            missing: outcome.missing,
        }
    }
}

fn principals(names: &[String]) -> Result<BTreeSet<PrincipalName>, Status> {
    let names: Result<_, _> = names.iter().map(|name| name.parse()).collect();
    names.map_err(invalid)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn refused(refused: Refused) -> Status {
    status(&refused)
}

pub(super) fn invalid(error: impl std::error::Error) -> Status {
    Status::invalid_argument(error.to_string())
}
