//! A mapping whose names keep their places.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, MapAccess, Visitor};

use crate::At;

/// A mapping in the order of the file; the parser has refused names that appear twice.
#[derive(Clone, Debug)]
pub struct Entries<K, V>(pub Vec<(At<K>, V)>);

impl<K, V> Default for Entries<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for Entries<K, V> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor(PhantomData))
    }
}

struct EntriesVisitor<K, V>(PhantomData<(K, V)>);

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for EntriesVisitor<K, V> {
    type Value = Entries<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping of names")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        // `accounts:` with every entry commented out.
        Ok(Entries(Vec::new()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry::<At<K>, V>()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}
