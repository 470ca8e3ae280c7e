//! How much a plugin keeps, as the exit codes of a probe that measures it: nothing else ever comes out of one, so nothing that a plugin
//! writes can speak to whoever reads it.

use bailey_trust::StateLimit;

use crate::Pace;

/// The verb, after `probe`, of a look at a state.
pub const VERB: &str = "state";

/// Folders within folders at most. No program has a use for more, and each costs the one that counts an open file.
pub const MAX_DEPTH: usize = 128;

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Usage {
    /// No more than there may be.
    Within(Percent),
    /// More bytes than there may be.
    Bytes(Excess),
    /// More files than there may be.
    Files,
    /// A folder cannot be looked into, so nobody knows what is in it.
    Unreadable,
    /// Folders lie deeper than [`MAX_DEPTH`].
    Deep,
    /// Counting takes longer than there is time for.
    Slow,
    /// The disk is nearly full, and much of it went while this was watched, to files that have no name any more or to others that use the disk.
    Disk,
}

/// How much of what there may be, in even percent, rounded up: of bytes or of files, whichever is nearer to its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u8);

impl Percent {
    /// `used` of `limit`; at most 100.
    pub fn of(used: u64, limit: u64) -> Self {
        let limit = u128::from(limit.max(1));
        let halves = (u128::from(used) * 50).div_ceil(limit).min(50);
        Self(u8::try_from(halves).unwrap_or(50) * 2)
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// By how much a limit is exceeded, coarser the more it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Excess(u8);

impl Excess {
    /// Steps of one tenth come first, then doublings.
    const TENTHS: u8 = 40;
    const LAST: u8 = 62;

    /// `used` where there may be `limit`.
    pub fn of(used: u64, limit: u64) -> Self {
        let is_more = |step: &u8| Self(*step).least_bytes(limit) <= used;
        Self((0..=Self::LAST).rev().find(is_more).unwrap_or(0))
    }

    /// What there is at least.
    pub fn least_bytes(self, limit: u64) -> u64 {
        let tenths = match self.0.checked_sub(Self::TENTHS) {
            None | Some(0) => u128::from(10 + self.0),
            Some(doublings) => u128::from(10 + Self::TENTHS) << doublings,
        };
        let bytes = u128::from(limit) * tenths / 10;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// Exit codes. Those above 124 and below 193 are the engine's own failures and signals.
const WITHIN: u8 = 40;
const FILES: u8 = 100;
const UNREADABLE: u8 = 101;
const DEEP: u8 = 102;
const SLOW: u8 = 103;
const DISK: u8 = 104;
const BYTES: u8 = 193;

impl Usage {
    /// The probe's exit code. It is never 0: that is how a program ends that was not asked.
    pub const fn code(self) -> u8 {
        match self {
            Self::Within(percent) => WITHIN + percent.0 / 2,
            Self::Bytes(excess) => BYTES + excess.0,
            Self::Files => FILES,
            Self::Unreadable => UNREADABLE,
            Self::Deep => DEEP,
            Self::Slow => SLOW,
            Self::Disk => DISK,
        }
    }

    /// What an exit code says; `None` for codes that no such probe ends with.
    pub fn from_code(code: i64) -> Option<Self> {
        match u8::try_from(code).ok()? {
            code @ WITHIN..=90 => Some(Self::Within(Percent((code - WITHIN) * 2))),
            FILES => Some(Self::Files),
            UNREADABLE => Some(Self::Unreadable),
            DEEP => Some(Self::Deep),
            SLOW => Some(Self::Slow),
            DISK => Some(Self::Disk),
            code @ BYTES..=u8::MAX => Some(Self::Bytes(Excess(code - BYTES))),
            0..WITHIN | 91..FILES | 105..BYTES => None,
        }
    }
}

/// What a probe is told after `probe`.
pub fn arguments(limit: StateLimit, pace: Pace) -> Vec<String> {
    let StateLimit { total_bytes, files } = limit;
    let told = [
        VERB.to_owned(),
        total_bytes.to_string(),
        files.to_string(),
        pace.as_str().to_owned(),
    ];
    told.into()
}

/// Reads what follows the verb.
pub fn read_arguments(arguments: &[&str]) -> Option<(StateLimit, Pace)> {
    let [total_bytes, files, pace] = arguments else {
        return None;
    };
    let limit = StateLimit {
        total_bytes: total_bytes.parse().ok()?,
        files: files.parse().ok()?,
    };
    Some((limit, pace.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn every_finding_has_one_code_and_back() {
        let mut seen = std::collections::HashSet::new();
        let found = [
            Usage::Files,
            Usage::Unreadable,
            Usage::Deep,
            Usage::Slow,
            Usage::Disk,
        ];
        let within = (0..=50).map(|half| Usage::Within(Percent(half * 2)));
        let bytes = (0..=Excess::LAST).map(|step| Usage::Bytes(Excess(step)));
        for usage in found.into_iter().chain(within).chain(bytes) {
            let code = usage.code();
            assert!(seen.insert(code), "{code} twice");
            assert_eq!(Usage::from_code(code.into()), Some(usage));
        }
        // Success, findings of other probes, the engine's failures, signals.
        for other in [
            -1, 0, 1, 20, 39, 91, 99, 105, 125, 126, 127, 137, 143, 192, 256,
        ] {
            assert_eq!(Usage::from_code(other), None, "{other}");
        }
    }

    #[test]
    fn what_there_is_is_told_roughly_and_never_as_too_much() {
        assert_eq!(Percent::of(0, GIB).get(), 0);
        assert_eq!(Percent::of(1, GIB).get(), 2);
        assert_eq!(Percent::of(GIB / 2, GIB).get(), 50);
        assert_eq!(Percent::of(GIB, GIB).get(), 100);
        assert_eq!(Percent::of(u64::MAX, 1).get(), 100);
        let least = |used| Excess::of(used, GIB).least_bytes(GIB);
        assert_eq!(least(GIB + 1), GIB);
        assert_eq!(least(GIB * 13 / 10), GIB * 13 / 10);
        assert_eq!(least(GIB * 13 / 10 - 1), GIB * 12 / 10);
        assert_eq!(least(GIB * 5), GIB * 5);
        assert_eq!(least(GIB * 19), GIB * 10);
        assert!(least(u64::MAX) >= GIB << 20);
    }

    #[test]
    fn arguments_are_read_back() {
        let limit = StateLimit {
            total_bytes: 5,
            files: 7,
        };
        for pace in [Pace::Once, Pace::Watching] {
            let told = arguments(limit, pace);
            let told: Vec<&str> = told.iter().map(String::as_str).collect();
            assert_eq!(told[0], VERB);
            assert_eq!(read_arguments(&told[1..]), Some((limit, pace)));
        }
        for bad in [
            &["5", "7"][..],
            &["5", "7", "ever"],
            &["x", "7", "once"],
            &[],
        ] {
            assert_eq!(read_arguments(bad), None, "{bad:?}");
        }
    }
}
