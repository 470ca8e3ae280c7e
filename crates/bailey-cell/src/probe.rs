//! What a probe can find, as exit codes: the only thing that ever comes out of it.

macro_rules! findings {
    ($($(#[$meta:meta])* $variant:ident = $code:literal, $sentence:literal;)*) => {
        /// A wall that the engine was asked for and that does not stand.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Finding {
            $($(#[$meta])* $variant,)*
        }

        impl Finding {
            /// Every finding.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The probe's exit code.
            pub const fn code(self) -> u8 {
                match self {
                    $(Self::$variant => $code,)*
                }
            }

            /// One sentence for the operator.
            pub const fn sentence(self) -> &'static str {
                match self {
                    $(Self::$variant => $sentence,)*
                }
            }
        }
    };
}

findings! {
    /// `/proc/self` could not be read.
    Blind = 20, "the probe could not look at itself: /proc is not as it should be";
    /// Seccomp mode is not "filter".
    NoSeccomp = 21, "the engine does not enforce seccomp profiles";
    /// A profile is active, but not ours.
    WrongSeccomp = 22, "the engine enforces another seccomp profile than the one that was sent";
    /// `NoNewPrivs` is not 1.
    NewPrivileges = 23, "the engine does not honour no-new-privileges";
    /// A capability is left.
    Capabilities = 24, "the engine leaves capabilities to a container that drops all";
    /// It runs as somebody else.
    WrongUser = 25, "the engine runs containers as another user than it is told";
    /// The root file system can be written to.
    WritableRoot = 26, "the engine does not make the root file system read-only";
    /// The memory limit does not hold.
    NoMemoryLimit = 27, "the engine does not limit memory (cgroup)";
    /// The limit of processes does not hold.
    NoPidsLimit = 28, "the engine does not limit processes (cgroup)";
    /// A core file could be written.
    CoreFiles = 29, "the engine does not set resource limits (core)";
    /// There is a network interface beside loopback.
    Network = 30, "a container with network none has a network interface beside loopback";
}

impl Finding {
    /// The finding of an exit code; `None` for 0 and for codes that no probe ends with.
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|finding| i64::from(finding.code()) == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_has_a_code_of_its_own() {
        for finding in Finding::ALL {
            assert_eq!(
                Finding::from_code(i64::from(finding.code())),
                Some(*finding)
            );
        }
        assert_eq!(Finding::from_code(0), None);
        assert_eq!(Finding::from_code(137), None);
    }
}
