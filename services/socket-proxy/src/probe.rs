//! The walls as they look from inside: the verb `probe`, run in a container that is made like a cell.

use std::os::unix::fs::MetadataExt as _;
use std::process::ExitCode;

use bailey_cell::probe::{Finding, path_argument, path_code};
use bailey_cell::{PROBE_MEMORY_BYTES, PROBE_PIDS, PROBE_UID};
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::{Resource, getrlimit, getuid};

/// AF_VSOCK (vsock(7)): reaches the hypervisor past every network namespace, and the engine's default profile lets it through.
const AF_VSOCK: u16 = 40;

/// Looks; the exit code is the first finding, or 0.
pub fn run() -> ExitCode {
    match look() {
        Ok(()) => ExitCode::SUCCESS,
        Err(finding) => ExitCode::from(finding.code()),
    }
}

/// Compares host paths with the lock; the exit code is that of the first path that is another, or 0.
pub fn run_paths(arguments: &[&str]) -> ExitCode {
    match look_at(arguments) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(index)) => ExitCode::from(path_code(index)),
        Err(finding) => ExitCode::from(finding.code()),
    }
}

/// Which of the paths is not the very file or folder that was locked. Each is mounted at its own place here.
fn look_at(arguments: &[&str]) -> Result<Option<usize>, Finding> {
    for (index, argument) in arguments.iter().enumerate() {
        let (device, inode, path) = path_argument(argument).ok_or(Finding::Blind)?;
        let same = std::fs::symlink_metadata(path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (device, inode));
        if !same {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

fn look() -> Result<(), Finding> {
    let read = |path: &str| std::fs::read_to_string(path).map_err(|_| Finding::Blind);
    check_status(&read("/proc/self/status")?)?;
    require(getuid().as_raw() == PROBE_UID, Finding::WrongUser)?;
    require(
        is_read_only(&read("/proc/self/mountinfo")?),
        Finding::WritableRoot,
    )?;
    let core = getrlimit(Resource::Core);
    require(
        core.current == Some(0) && core.maximum == Some(0),
        Finding::CoreFiles,
    )?;
    let memory = read_either(
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    );
    require(
        is_number(memory, PROBE_MEMORY_BYTES),
        Finding::NoMemoryLimit,
    )?;
    let pids = read_either("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max");
    require(is_number(pids, PROBE_PIDS.into()), Finding::NoPidsLimit)?;
    require(is_alone(&read("/proc/net/route")?), Finding::Network)?;
    let vsock = socket(AddressFamily::from_raw(AF_VSOCK), SocketType::STREAM, None);
    require(
        vsock.is_err_and(|e| e == rustix::io::Errno::PERM),
        Finding::WrongSeccomp,
    )
}

fn require(holds: bool, finding: Finding) -> Result<(), Finding> {
    if holds { Ok(()) } else { Err(finding) }
}

fn check_status(status: &str) -> Result<(), Finding> {
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).ok_or(Finding::Blind)
    };
    require(field("Seccomp")? == "2", Finding::NoSeccomp)?;
    require(field("NoNewPrivs")? == "1", Finding::NewPrivileges)?;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        require(
            field(set)?.bytes().all(|b| b == b'0'),
            Finding::Capabilities,
        )?;
    }
    Ok(())
}

/// Whether the mount on `/` is read-only (proc_pid_mountinfo(5): the fifth field is where, the sixth how).
fn is_read_only(mounts: &str) -> bool {
    let mut roots = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(4);
        (fields.next()? == "/").then(|| fields.next().unwrap_or_default())
    });
    roots
        .next_back()
        .is_some_and(|options| options.split(',').any(|option| option == "ro"))
}

/// Whether the routing table is empty but for its headline. Interfaces say less: some kernels put idle tunnels into every namespace.
fn is_alone(routes: &str) -> bool {
    routes.lines().skip(1).all(|line| line.trim().is_empty())
}

fn read_either(unified: &str, legacy: &str) -> Option<String> {
    std::fs::read_to_string(unified)
        .or_else(|_| std::fs::read_to_string(legacy))
        .ok()
}

fn is_number(text: Option<String>, expected: u64) -> bool {
    text.is_some_and(|text| text.trim().parse() == Ok(expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tx\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
        CapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";

    #[test]
    fn each_missing_wall_is_a_finding() {
        assert_eq!(check_status(STATUS), Ok(()));
        for (wall, hole, finding) in [
            ("Seccomp:\t2", "Seccomp:\t0", Finding::NoSeccomp),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0", Finding::NewPrivileges),
            (
                "CapBnd:\t0000000000000000",
                "CapBnd:\t00000000a80425fb",
                Finding::Capabilities,
            ),
            ("CapAmb:", "Other:", Finding::Blind),
        ] {
            assert_eq!(check_status(&STATUS.replace(wall, hole)), Err(finding));
        }
    }

    #[test]
    fn a_path_that_was_exchanged_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let locked = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, name).unwrap();
            let found = std::fs::metadata(&path).unwrap();
            format!("{}:{}:{}", found.dev(), found.ino(), path.display())
        };
        let (first, second) = (locked("first"), locked("second"));
        let look = || look_at(&[&first, &second]);
        assert_eq!(look(), Ok(None));

        // A link to the locked file is not the locked file.
        let second = dir.path().join("second");
        std::fs::rename(&second, dir.path().join("moved")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("moved"), &second).unwrap();
        assert_eq!(look(), Ok(Some(1)));
        std::fs::remove_file(dir.path().join("first")).unwrap();
        assert_eq!(look(), Ok(Some(0)));
        assert_eq!(look_at(&["rubbish"]), Err(Finding::Blind));
    }

    #[test]
    fn the_last_mount_on_the_root_counts() {
        let read_only = "1 2 0:5 / / ro,relatime - overlay overlay rw";
        let writable = "1 2 0:5 / / rw,relatime - overlay overlay rw";
        assert!(is_read_only(read_only) && !is_read_only(writable) && !is_read_only(""));
        assert!(!is_read_only(&format!("{read_only}\n{writable}")));
        assert!(!is_read_only("1 2 0:5 / /sys ro - sysfs sysfs ro"));
    }

    #[test]
    fn any_route_is_a_way_out() {
        let header = "Iface\tDestination\tGateway\n";
        assert!(is_alone(header) && is_alone(""));
        assert!(!is_alone(&format!("{header}eth0\t00000000\t010011AC\n")));
    }
}
