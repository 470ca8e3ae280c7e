//! What the lock grants, by the uid of the holder that asks.

use std::collections::BTreeMap;

use bailey_plugin::egress::{Entry, Host, Reach};
use bailey_trust::{EgressLimits, Lock};
use bailey_types::PluginName;

/// Every plugin of a lock by the uid of its holders. Uids are given once, so each is of one plugin.
pub(crate) struct Grants {
    by_uid: BTreeMap<u32, Grant>,
}

/// What one plugin may reach.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) plugin: PluginName,
    pub(crate) entries: Vec<Entry>,
    pub(crate) limits: EgressLimits,
}

impl Grants {
    /// Reads a lock, whose signature has been checked.
    pub(crate) fn of(lock: &Lock) -> Result<Self, String> {
        let mut by_uid = BTreeMap::new();
        for (plugin, locked) in &lock.plugins {
            let entries = locked.proposed.egress.iter().map(|text| text.parse());
            let entries = entries.collect::<Result<Vec<Entry>, _>>();
            let grant = Grant {
                plugin: plugin.clone(),
                entries: entries.map_err(|e| format!("egress of {plugin}: {e}"))?,
                limits: locked.proposed.walls.egress_limits,
            };
            if let Some(other) = by_uid.insert(locked.holder_uid, grant) {
                let (uid, other) = (locked.holder_uid, other.plugin);
                return Err(format!(
                    "holders of {plugin} and {other} have one uid, {uid}"
                ));
            }
        }
        Ok(Self { by_uid })
    }

    /// What the plugin may reach whose holders have `uid`.
    pub(crate) fn of_uid(&self, uid: u32) -> Option<&Grant> {
        self.by_uid.get(&uid)
    }
}

impl Grant {
    /// How `host` at `port` may be reached, by the most exact of the entries that both the lock and the decision hold.
    pub(crate) fn reach(&self, decided: &[Entry], host: &Host, port: u16) -> Option<Reach> {
        let both = self.entries.iter().filter(|entry| decided.contains(entry));
        both.filter_map(|entry| entry.reach(host, port))
            .min_by_key(|reach| match reach {
                Reach::At(_) => 0,
                Reach::LocalName => 1,
                Reach::PublicName => 2,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(texts: &[&str]) -> Vec<Entry> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_most_exact_of_what_lock_and_decision_share_counts() {
        let locked = [
            "*.example.com:443",
            "nas.example.com:443@10.0.0.5",
            "new.example.org:443",
        ];
        let grant = Grant {
            plugin: "fetch".parse().unwrap(),
            entries: entries(&locked),
            limits: EgressLimits::default(),
        };
        let decided = entries(&[
            "*.example.com:443",
            "nas.example.com:443@10.0.0.5",
            "old.example.org:443",
        ]);
        let reach = |name: &str| grant.reach(&decided, &Host::parse(name).unwrap(), 443);
        let five = "10.0.0.5".parse().unwrap();
        assert_eq!(reach("nas.example.com"), Some(Reach::At(five)));
        assert_eq!(reach("a.example.com"), Some(Reach::PublicName));
        // Only in the lock, and only in the decision.
        assert_eq!(reach("new.example.org"), None);
        assert_eq!(reach("old.example.org"), None);
    }
}
