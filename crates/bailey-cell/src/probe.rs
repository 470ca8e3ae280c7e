//! What a probe can find, as exit codes: the only thing that ever comes out of it.

use bailey_trust::HostPath;

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

/// Exit codes of a probe of host paths begin here: one for each path that is another than the locked one.
const FIRST_PATH_CODE: u8 = 40;
/// More paths than this share the last code: those above it mean a signal or the engine's own failures.
const PATH_CODES: u8 = 80;

/// What a probe of host paths is told after its verb: for each path the device and inode that it must have.
pub fn path_arguments(paths: &[HostPath]) -> Vec<String> {
    let told = |path: &HostPath| {
        let (device, inode) = (path.device, path.inode);
        format!("{device}:{inode}:{}", path.path.display())
    };
    std::iter::once(PATHS_VERB.to_owned())
        .chain(paths.iter().map(told))
        .collect()
}

/// Reads one argument back: device, inode, path.
pub fn path_argument(text: &str) -> Option<(u64, u64, &str)> {
    let (device, rest) = text.split_once(':')?;
    let (inode, path) = rest.split_once(':')?;
    Some((device.parse().ok()?, inode.parse().ok()?, path))
}

/// The verb, after `probe`, of a look at host paths.
pub const PATHS_VERB: &str = "paths";

/// The exit code for the path at `index` of the lock's list, which is another than the locked one.
pub fn path_code(index: usize) -> u8 {
    let last = PATH_CODES - 1;
    FIRST_PATH_CODE + u8::try_from(index).map_or(last, |index| index.min(last))
}

/// Which of the paths an exit code is about; `None` for 0 and for codes that no path has.
pub fn path_of_code(code: i64) -> Option<usize> {
    let index = code.checked_sub(FIRST_PATH_CODE.into())?;
    let index = u8::try_from(index).ok()?;
    (index < PATH_CODES).then_some(index.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_survives_its_argument_and_its_code() {
        let path = HostPath {
            path: "/srv/a:b c".into(),
            device: 64_513,
            inode: u64::MAX,
            writable: true,
        };
        let arguments = path_arguments(&[path]);
        assert_eq!(
            arguments,
            ["paths", "64513:18446744073709551615:/srv/a:b c"]
        );
        let read = path_argument(&arguments[1]);
        assert_eq!(read, Some((64_513, u64::MAX, "/srv/a:b c")));
        assert_eq!(path_argument("1:/srv"), None);

        for index in [0, 1, 79] {
            assert_eq!(path_of_code(path_code(index).into()), Some(index));
        }
        assert_eq!(path_of_code(path_code(5000).into()), Some(79));
        for other in [0, 20, 39, 120, 137] {
            assert_eq!(path_of_code(other), None);
        }
    }

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
