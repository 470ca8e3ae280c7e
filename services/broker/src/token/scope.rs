//! What a token may do (reference: ductile 6.1).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Not a scope.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a scope; there are: {known}", known = Scope::known())]
pub struct BadScope(String);

macro_rules! scopes {
    ($($variant:ident = $name:literal $([$($covers:ident),*])?;)*) => {
        /// A scope of an API token.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Scope {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl Scope {
            /// Every scope.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As it is written.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The scopes that it holds beside itself, directly.
            const fn covers(self) -> &'static [Self] {
                match self {
                    $(Self::$variant => &[$($(Self::$covers,)*)?],)*
                }
            }
        }
    };
}

scopes! {
    PluginRw = "plugin:rw" [PluginRo, PluginCatalogRo, PluginInvokeRo];
    PluginRo = "plugin:ro" [PluginCatalogRo];
    PluginCatalogRo = "plugin:catalog:ro";
    PluginInvokeRo = "plugin:invoke:ro";
    JobsRw = "jobs:rw" [JobsRo];
    JobsRo = "jobs:ro" [JobsStatusRo, JobsResultRo, JobsLogsRo, JobsTreeRo];
    JobsStatusRo = "jobs:status:ro";
    JobsResultRo = "jobs:result:ro";
    JobsLogsRo = "jobs:logs:ro";
    JobsTreeRo = "jobs:tree:ro";
    EventsRw = "events:rw" [EventsRo];
    EventsRo = "events:ro" [EventsMetaRo, EventsPayloadRo];
    EventsMetaRo = "events:meta:ro";
    EventsPayloadRo = "events:payload:ro";
    SystemRw = "system:rw" [SystemRo];
    SystemRo = "system:ro";
    Everything = "*" [PluginRw, JobsRw, EventsRw, SystemRw];
}

impl Scope {
    /// `granted` with everything that it covers.
    pub fn expand(granted: &BTreeSet<Self>) -> BTreeSet<Self> {
        let mut expanded = BTreeSet::new();
        let mut open: Vec<Self> = granted.iter().copied().collect();
        while let Some(scope) = open.pop() {
            if expanded.insert(scope) {
                open.extend(scope.covers());
            }
        }
        expanded
    }

    fn known() -> String {
        Self::ALL
            .iter()
            .map(|scope| scope.name())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

impl FromStr for Scope {
    type Err = BadScope;

    fn from_str(text: &str) -> Result<Self, BadScope> {
        let found = Self::ALL.iter().copied().find(|scope| scope.name() == text);
        found.ok_or_else(|| BadScope(text.chars().take(80).collect()))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(granted: &str) -> Vec<&'static str> {
        let granted = granted
            .split(' ')
            .map(|scope| scope.parse().unwrap())
            .collect();
        let mut names: Vec<_> = Scope::expand(&granted)
            .into_iter()
            .map(Scope::name)
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn scopes_cover_what_the_reference_says() {
        let plugin = [
            "plugin:catalog:ro",
            "plugin:invoke:ro",
            "plugin:ro",
            "plugin:rw",
        ];
        assert_eq!(expanded("plugin:rw"), plugin);
        assert_eq!(expanded("plugin:ro"), ["plugin:catalog:ro", "plugin:ro"]);
        assert_eq!(expanded("plugin:invoke:ro"), ["plugin:invoke:ro"]);
        let jobs = [
            "jobs:logs:ro",
            "jobs:result:ro",
            "jobs:ro",
            "jobs:rw",
            "jobs:status:ro",
            "jobs:tree:ro",
        ];
        assert_eq!(expanded("jobs:rw"), jobs);
        let events = [
            "events:meta:ro",
            "events:payload:ro",
            "events:ro",
            "events:rw",
        ];
        assert_eq!(expanded("events:rw"), events);
        assert_eq!(expanded("*").len(), Scope::ALL.len());
    }

    #[test]
    fn reading_never_covers_writing() {
        for scope in Scope::ALL
            .iter()
            .filter(|scope| scope.name().ends_with(":ro"))
        {
            let covered = Scope::expand(&BTreeSet::from([*scope]));
            assert!(
                covered.iter().all(|scope| scope.name().ends_with(":ro")),
                "{scope}"
            );
        }
    }

    #[test]
    fn only_the_full_scope_covers_another_area() {
        for scope in Scope::ALL
            .iter()
            .filter(|scope| **scope != Scope::Everything)
        {
            let area = scope.name().split(':').next().unwrap();
            let covered = Scope::expand(&BTreeSet::from([*scope]));
            assert!(
                covered.iter().all(|scope| scope.name().starts_with(area)),
                "{scope}"
            );
        }
    }

    #[test]
    fn an_unknown_scope_is_refused_with_the_list() {
        let error = "plugin:write".parse::<Scope>().unwrap_err().to_string();
        assert!(error.contains("plugin:rw"), "{error}");
    }
}
