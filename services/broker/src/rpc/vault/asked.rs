//! From what was sent to what the document understands.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use bailey_proto::management::v1 as wire;
use bailey_types::{PrincipalName, SecretName, Timestamp};
use zeroize::Zeroizing;

use crate::vault::{
    Alphabet, Document, Imported, Pattern, PrincipalKind, RecipeChange, Refused, SetSecret,
    Skipped, Value,
};
use crate::view::View;

/// What cannot be done whatever the vault holds.
#[derive(Debug)]
pub(super) enum Bad {
    /// Against the rules.
    Refused(Refused),
    /// Nothing that the rules know.
    Malformed(String),
}

impl From<Refused> for Bad {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// A name, or a part of a request that is written like one.
pub(super) fn parsed<T: FromStr<Err: std::error::Error>>(text: &str) -> Result<T, Bad> {
    text.parse()
        .map_err(|e: T::Err| Bad::Malformed(e.to_string()))
}

/// A secret, or a change of one.
pub(super) fn set_secret(request: wire::SetSecretRequest) -> Result<SetSecret, Bad> {
    let wire::SetSecretRequest {
        name,
        value: sent,
        grant_to,
        replace_grants,
        description,
        pattern,
        recipe,
        existing: _,
    } = request;
    let grants = principals(&grant_to)?;
    let pattern = match pattern.as_str() {
        "" => None,
        pattern => Some(pattern.parse::<Pattern>()?),
    };
    Ok(SetSecret {
        name: parsed(&name)?,
        value: value(&sent)?,
        grants: (replace_grants || !grants.is_empty()).then_some(grants),
        pattern,
        recipe: recipe.map(|recipe| self::recipe(&recipe)).transpose()?,
        description,
    })
}

/// A value; `None` if it is empty, which no value is.
pub(super) fn value(sent: &[u8]) -> Result<Option<Value>, Bad> {
    match sent {
        [] => Ok(None),
        bytes if bytes.len() > Value::LIMIT_BYTES => Err(Refused::ValueTooLarge.into()),
        bytes => {
            let text = std::str::from_utf8(bytes).map_err(|_| Refused::ValueNotText)?;
            Ok(Some(Value::from(Zeroizing::new(text.to_owned()))))
        }
    }
}

/// What is left out of a recipe stays as it is.
fn recipe(sent: &wire::Recipe) -> Result<RecipeChange, Bad> {
    let alphabet = match sent.alphabet.as_str() {
        "" => None,
        alphabet => Some(alphabet.parse::<Alphabet>()?),
    };
    let length = (sent.length != 0).then_some(sent.length);
    Ok(RecipeChange::new(length, alphabet)?)
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
    /// To whom each imported secret is granted.
    pub(super) granted: BTreeMap<SecretName, BTreeSet<PrincipalName>>,
    missing: Vec<String>,
}

/// An import.
pub(super) fn import(request: wire::ImportSecretsRequest) -> Result<Import, Bad> {
    if request.secrets.len() > Document::ENTRY_LIMIT {
        let limit = Document::ENTRY_LIMIT;
        return Err(Bad::Malformed(format!(
            "at most {limit} secrets are imported at once"
        )));
    }
    let mut principals = BTreeMap::new();
    for principal in &request.principals {
        let kind = principal.kind.parse::<PrincipalKind>()?;
        principals.insert(parsed(&principal.name)?, kind);
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
    let secrets: Result<Vec<_>, Bad> = request.secrets.into_iter().map(one).collect();
    Ok(Import {
        secrets: secrets?,
        principals,
        apply: request.apply,
    })
}

impl Import {
    /// Does it to `document`, and says what the lock asks for and would not get then. One that names somebody who cannot be a principal here does
    /// nothing, and says who and why, of each; a preview says so with the rest.
    pub(super) fn run(
        self,
        document: &mut Document,
        view: Option<&View>,
        now: Timestamp,
    ) -> Result<Outcome, Refused> {
        let (mut registered, mut wrong) = (Vec::new(), Vec::new());
        for (name, kind) in self.principals {
            match document.register(name.clone(), kind) {
                Ok(true) => registered.push(name),
                Ok(false) => {}
                Err(why) => wrong.push(why.to_string()),
            }
        }
        let known = view.map(View::principals).unwrap_or_default();
        let (secrets, admitted) = document.import(self.secrets, &known, now);
        registered.extend(admitted);
        wrong.extend(secrets.iter().filter_map(|it| match &it.skipped {
            Some(Skipped::Principal(why)) => Some(format!("{}: {why}", it.name)),
            Some(Skipped::Itself(_)) | None => None,
        }));
        let mut missing = view.map_or_else(Vec::new, |view| view.missing(document));
        if !wrong.is_empty() {
            let refused = Refused::NotAdmitted(wrong);
            if self.apply {
                return Err(refused);
            }
            missing.insert(0, format!("as it is, {refused}"));
        }
        let imported = secrets.iter().filter(|it| it.skipped.is_none());
        let granted = imported.filter_map(|it| {
            let secret = document.secrets.get(&it.name)?;
            Some((it.name.clone(), secret.authorized_principals.clone()))
        });
        Ok(Outcome {
            granted: granted.collect(),
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

fn principals(names: &[String]) -> Result<BTreeSet<PrincipalName>, Bad> {
    names.iter().map(|name| parsed(name)).collect()
}
