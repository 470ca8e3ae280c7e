//! The containers that this proxy made: nothing else exists for the runner.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bailey_cell::{Identity, Kind, label, name_prefix};
use bailey_types::{ImageId, StackId};
use serde::{Deserialize, Serialize};

/// More containers than any machine runs; a runner that asks for more is broken.
const MAX_CONTAINERS: usize = 4096;

/// A container's full id, 64 lower-case hexadecimal digits. A name or a shortened id is never one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(Box<str>);

impl ContainerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 64 && text.bytes().all(hex) {
            Ok(Self(text.into()))
        } else {
            Err(())
        }
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContainerId({self})")
    }
}

/// What is known of one container.
#[derive(Clone, Debug)]
pub struct Record {
    /// Who it is.
    pub identity: Identity,
    /// The image it was made from.
    pub image: ImageId,
    /// Whether it can still be attached to. Invariant: never becomes true again.
    attachable: bool,
}

/// Why a container cannot be attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// Not ours, or gone.
    #[error("this proxy made no such container")]
    Unknown,
    /// The one attach was used, or belonged to an earlier life of this proxy.
    #[error("the container was attached to before; every container is fed once")]
    Again,
    /// A probe has no streams.
    #[error("only cells are attached to")]
    NoCell,
}

/// All of them. Cheap to look into; nothing waits while it is locked.
#[derive(Default)]
pub struct Registry(Mutex<BTreeMap<ContainerId, Record>>);

/// One entry of the engine's list, and all of it that the runner sees.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Listed {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(rename = "ImageID")]
    image_id: String,
    #[serde(default)]
    labels: HashMap<String, String>,
    #[serde(default)]
    state: String,
    #[serde(default)]
    created: i64,
}

impl Listed {
    /// Its id.
    pub fn id(&self) -> Option<ContainerId> {
        self.id.parse().ok()
    }
}

impl Registry {
    fn records(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Record>> {
        // Every change is one insertion or removal: a panic cannot leave it half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room for one more.
    pub fn has_room(&self) -> bool {
        self.records().len() < MAX_CONTAINERS
    }

    /// A container was made.
    pub fn made(&self, id: ContainerId, identity: Identity, image: ImageId) {
        let attachable = identity.kind() == Kind::Cell;
        self.records().insert(
            id,
            Record {
                identity,
                image,
                attachable,
            },
        );
    }

    /// Takes over what an earlier life of this proxy made, as the engine lists it. None of it can be attached to again.
    pub fn adopt(&self, stack: &StackId, listed: &[Listed]) -> usize {
        let ours: Vec<_> = listed
            .iter()
            .filter_map(|entry| ours(stack, entry))
            .collect();
        let (count, mut records) = (ours.len(), self.records());
        for (id, record) in ours {
            records.entry(id).or_insert(record);
        }
        count
    }

    /// What is known of the container.
    pub fn look_up(&self, id: &ContainerId) -> Option<Record> {
        self.records().get(id).cloned()
    }

    /// Uses up the container's one attach.
    pub fn begin_attach(&self, id: &ContainerId) -> Result<Record, AttachError> {
        let mut records = self.records();
        let record = records.get_mut(id).ok_or(AttachError::Unknown)?;
        match record.identity.kind() {
            Kind::Cell => {}
            Kind::Probe => return Err(AttachError::NoCell),
        }
        if !std::mem::replace(&mut record.attachable, false) {
            return Err(AttachError::Again);
        }
        Ok(record.clone())
    }

    /// The container is gone.
    pub fn forget(&self, id: &ContainerId) {
        self.records().remove(id);
    }
}

/// Ours is what has the stack's labels *and* the name that belongs to them.
fn ours(stack: &StackId, entry: &Listed) -> Option<(ContainerId, Record)> {
    let id = entry.id()?;
    let image = entry.image_id.parse().ok()?;
    let identity = Identity::from_labels(stack, &entry.labels).ok()?;
    let prefix = format!("/{}", name_prefix(stack, identity.kind()));
    let job = entry.labels.get(label::JOB)?;
    let named = |name: &String| {
        name.strip_prefix(&prefix)
            .is_some_and(|rest| rest.starts_with(job))
    };
    entry.names.iter().any(named).then_some((
        id,
        Record {
            identity,
            image,
            attachable: false,
        },
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id(digit: char) -> ContainerId {
        digit.to_string().repeat(64).parse().unwrap()
    }

    fn cell() -> Identity {
        let labels = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let labels = [
            ("bailey.stack", "home"),
            ("bailey.kind", "cell"),
            ("bailey.plugin", "greet"),
            ("bailey.job", "0192a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"),
            ("bailey.attempt", "1"),
            ("bailey.lock", "1"),
        ]
        .map(labels);
        Identity::from_labels(&"home".parse().unwrap(), &labels.into()).unwrap()
    }

    fn image() -> ImageId {
        format!("sha256:{}", "a".repeat(64)).parse().unwrap()
    }

    #[test]
    fn only_a_full_id_is_an_id() {
        assert!("a".repeat(64).parse::<ContainerId>().is_ok());
        for text in [
            "a".repeat(12),
            "A".repeat(64),
            "g".repeat(64),
            "bailey-home-cell-1".into(),
        ] {
            assert!(text.parse::<ContainerId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_cell_is_attached_to_once() {
        let registry = Registry::default();
        registry.made(id('a'), cell(), image());
        assert!(registry.begin_attach(&id('a')).is_ok());
        assert_eq!(
            registry.begin_attach(&id('a')).unwrap_err(),
            AttachError::Again
        );
        assert_eq!(
            registry.begin_attach(&id('b')).unwrap_err(),
            AttachError::Unknown
        );
    }

    #[test]
    fn what_is_adopted_is_ours_and_cannot_be_attached_to() {
        let labels = json!({
            "bailey.stack": "home", "bailey.kind": "cell", "bailey.plugin": "greet",
            "bailey.job": "0192a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", "bailey.attempt": "1", "bailey.lock": "1",
        });
        let entry = |digit: char, name: &str, labels: &serde_json::Value| json!({ "Id": digit.to_string().repeat(64), "Names": [name], "ImageID": image().to_string(), "Labels": labels });
        let name = "/bailey-home-cell-0192a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b-1";
        let mut other_stack = labels.clone();
        other_stack["bailey.stack"] = "away".into();
        let listed = json!([
            entry('a', name, &labels),
            entry('b', "/somebody-else", &labels),
            entry('c', name, &other_stack),
            entry('d', name, &json!({})),
        ]);
        let listed: Vec<Listed> = serde_json::from_value(listed).unwrap();
        let registry = Registry::default();
        assert_eq!(registry.adopt(&"home".parse().unwrap(), &listed), 1);
        assert!(registry.look_up(&id('a')).is_some());
        assert_eq!(
            registry.begin_attach(&id('a')).unwrap_err(),
            AttachError::Again
        );
    }
}
