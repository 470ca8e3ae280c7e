//! The end of the volume, which is kept for allows, so that whoever can cause refusals cannot stop the work; and for what takes something away
//! from somebody, so that he cannot keep that from being told.

use std::path::{Path, PathBuf};

use bailey_types::Service;

/// A tenth of the volume is kept, but not more than this: without a volume of its own the log is on the host's disk, and a tenth of that
/// is more than allows ever fill.
const MOST_KEPT_BYTES: u64 = 1 << 30;

/// The room on a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) free_bytes: u64,
    pub(crate) all_bytes: u64,
}

impl Room {
    /// Whether only what [`may_use_reserve`] is recorded.
    pub(crate) fn is_reserved(self) -> bool {
        self.free_bytes < (self.all_bytes / 10).min(MOST_KEPT_BYTES)
    }
}

/// Whether an entry may use the reserve.
pub(crate) fn may_use_reserve(caller: Service, kind: &str) -> bool {
    let chosen = KINDS.iter().find(|it| it.0 == caller && it.1 == kind);
    chosen.is_some_and(|it| it.2 == Use::Reserve)
}

/// What an entry may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// All of the volume. An allow is two records: the decision, and the ticket that the broker makes for it. What the broker did before the log had
    /// it (what only takes away, and what the operator does at its keys) is done already; each needs the admin token or the host. What was taken away
    /// would be good again in an earlier vault that is put back: that such a change is durable is recorded, too, in the same call. That somebody did put
    /// another file there is told by itself, once for each: an attacker who fills the log must not keep that from being told.
    Reserve,
    /// All but the reserve: what gives something, which is then not given; what somebody can cause as often as he likes; and what is
    /// said of a deed that is on record. It waits at its sender.
    Rest,
}

/// What policy and broker record, and the alarms of the two that touch secrets besides. Invariant: every kind of the broker is here; a kind that is
/// not waits like the rest.
const KINDS: [(Service, &str, Use); 44] = [
    (Service::Policy, "decision.allowed", Use::Reserve),
    (Service::Broker, "ticket.made", Use::Reserve),
    (Service::Broker, "secret.narrowed", Use::Reserve),
    (Service::Broker, "secret.revoked", Use::Reserve),
    (Service::Broker, "principal.revoked", Use::Reserve),
    (Service::Broker, "principal.purged", Use::Reserve),
    (Service::Broker, "token.revoked", Use::Reserve),
    (Service::Broker, "vault.recipient_removed", Use::Reserve),
    (Service::Broker, "vault.made", Use::Reserve),
    (Service::Broker, "vault.unsealed", Use::Reserve),
    (Service::Broker, "vault.key_rotated", Use::Reserve),
    (Service::Broker, "vault.admin_token_rotated", Use::Reserve),
    (Service::Broker, "vault.restored", Use::Reserve),
    (Service::Broker, "vault.adopted", Use::Reserve),
    (Service::Broker, "vault.kept", Use::Reserve),
    (Service::Broker, "vault.changed_outside", Use::Reserve),
    (Service::Broker, "vault.earlier_refused", Use::Reserve),
    (Service::Broker, "certificate.renewed", Use::Rest),
    (Service::Broker, "enrol.granted", Use::Rest),
    (Service::Broker, "enrol.refused", Use::Rest),
    (Service::Broker, "hmac.refused", Use::Rest),
    (Service::Broker, "hmac.signed", Use::Rest),
    (Service::Broker, "lock.refused", Use::Rest),
    (Service::Broker, "lock.signed", Use::Rest),
    (Service::Broker, "manage.refused", Use::Rest),
    (Service::Broker, "pki.maybe_rotated", Use::Rest),
    (Service::Broker, "pki.not_rotated", Use::Rest),
    (Service::Broker, "pki.rotated", Use::Rest),
    (Service::Broker, "principal.registered", Use::Rest),
    (Service::Broker, "principal.rolled", Use::Rest),
    (Service::Broker, "secret.rolled", Use::Rest),
    (Service::Broker, "secret.set", Use::Rest),
    (Service::Broker, "ticket.refused", Use::Rest),
    (Service::Broker, "token.created", Use::Rest),
    (Service::Broker, "token.refused", Use::Rest),
    (Service::Broker, "upstream.key_refused", Use::Rest),
    (Service::Broker, "upstream.key_released", Use::Rest),
    // A plugin or an upstream can send back what it was given with each call, and so would use up what is kept for the calls of all others.
    (Service::SocketProxy, "secret.returned", Use::Rest),
    (Service::EgressProxy, "upstream.key_returned", Use::Rest),
    (Service::Broker, "vault.exported", Use::Rest),
    (Service::Broker, "vault.maybe_changed", Use::Rest),
    (Service::Broker, "vault.not_changed", Use::Rest),
    (Service::Broker, "vault.recipient_added", Use::Rest),
    (Service::Broker, "vault.refused", Use::Rest),
];

/// The volume that the log is on.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    dir: PathBuf,
    #[cfg(test)]
    fixed: Option<Room>,
    /// Held by a test for as long as the disk is to hang.
    #[cfg(test)]
    pub(crate) hangs: std::sync::Arc<std::sync::Mutex<()>>,
}

impl Volume {
    pub(crate) fn of(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            #[cfg(test)]
            fixed: None,
            #[cfg(test)]
            hangs: std::sync::Arc::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn fixed(room: Room) -> Self {
        Self {
            dir: PathBuf::new(),
            fixed: Some(room),
            hangs: std::sync::Arc::default(),
        }
    }

    /// The room now.
    pub(crate) fn room(&self) -> std::io::Result<Room> {
        #[cfg(test)]
        if let Some(room) = self.fixed {
            drop(self.hangs.lock());
            return Ok(room);
        }
        let stat = rustix::fs::statvfs(&self.dir)?;
        Ok(Room {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            all_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn below_a_tenth_only_allows_pass() {
        assert!(
            !Room {
                free_bytes: 10,
                all_bytes: 100
            }
            .is_reserved()
        );
        assert!(
            Room {
                free_bytes: 9,
                all_bytes: 100
            }
            .is_reserved()
        );
        // Of a large disk no tenth is kept.
        let large = |free_bytes| Room {
            free_bytes,
            all_bytes: 4 << 40,
        };
        assert!(!large(1 << 30).is_reserved());
        assert!(large((1 << 30) - 1).is_reserved());
        assert!(may_use_reserve(Service::Policy, "decision.allowed"));
        assert!(may_use_reserve(Service::Broker, "ticket.made"));
        assert!(!may_use_reserve(Service::Policy, "decision.denied"));
        assert!(
            !may_use_reserve(Service::Engine, "decision.allowed"),
            "only policy allows"
        );
        // What takes away, and not what gives.
        assert!(may_use_reserve(Service::Broker, "token.revoked"));
        assert!(may_use_reserve(Service::Broker, "vault.recipient_removed"));
        assert!(may_use_reserve(Service::Broker, "vault.restored"));
        assert!(may_use_reserve(Service::Broker, "vault.kept"));
        assert!(may_use_reserve(Service::Broker, "vault.changed_outside"));
        assert!(may_use_reserve(Service::Broker, "vault.earlier_refused"));
        assert!(!may_use_reserve(Service::Broker, "vault.refused"));
        assert!(!may_use_reserve(Service::Broker, "token.created"));
        assert!(!may_use_reserve(Service::Broker, "secret.set"));
        assert!(
            !may_use_reserve(Service::Engine, "token.revoked"),
            "only the broker revokes"
        );
    }

    #[test]
    fn the_room_of_a_real_folder_is_known() {
        let room = Volume::of(&std::env::temp_dir()).room().unwrap();
        assert!(room.all_bytes > 0 && room.free_bytes <= room.all_bytes);
    }

    /// Found where the broker says them: in texts that are a noun, a dot and a verb.
    #[test]
    fn every_kind_of_the_broker_was_chosen_for() {
        let chosen: BTreeSet<_> = KINDS
            .iter()
            .filter(|it| it.0 == Service::Broker)
            .map(|it| it.1.to_owned())
            .collect();
        let mut said = BTreeSet::new();
        said_in(&PathBuf::from("../broker/src"), &mut said);
        let unchosen: Vec<_> = said.difference(&chosen).collect();
        assert!(
            unchosen.is_empty(),
            "may these use the reserve? {unchosen:?}"
        );
        let gone: Vec<_> = chosen.difference(&said).collect();
        assert!(gone.is_empty(), "nobody says {gone:?} any more");
    }

    fn said_in(path: &Path, said: &mut BTreeSet<String>) {
        if path.is_dir() {
            for entry in std::fs::read_dir(path).unwrap() {
                said_in(&entry.unwrap().path(), said);
            }
            return;
        }
        let text = std::fs::read_to_string(path).unwrap();
        let is_word = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        for text in text.split('"') {
            if let Some((noun, verb)) = text.split_once('.')
                && !noun.is_empty()
                && !FILES.contains(&verb)
                && is_word(noun)
                && is_word(verb)
            {
                said.insert(text.to_owned());
            }
        }
    }

    /// What ends the name of a file.
    const FILES: [&str; 8] = ["", "age", "json", "key", "md", "pem", "py", "yaml"];
}
