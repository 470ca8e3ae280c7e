//! Our seccomp profile, in the form that Docker's `--security-opt seccomp=` takes: deny by default, x86-64 only.
//!
//! The engine's default profile lets AF_VSOCK through, which reaches the hypervisor past every network namespace, and ptrace, io_uring and keyrings on some
//! versions. This one starts from nothing and adds what Python, shells, git, curl and static binaries call. The names are grouped by what they
//! are for; what is deliberately absent is listed in [`NEVER`], and a test keeps it absent.

use std::sync::OnceLock;

use serde_json::{Value, json};

/// Files and directories.
const FILES: &[&str] = &[
    "access",
    "chdir",
    "chmod",
    "chown",
    "close",
    "close_range",
    "copy_file_range",
    "creat",
    "dup",
    "dup2",
    "dup3",
    "faccessat",
    "faccessat2",
    "fadvise64",
    "fallocate",
    "fchdir",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "fchown",
    "fchownat",
    "fcntl",
    "fdatasync",
    "fgetxattr",
    "flistxattr",
    "flock",
    "fremovexattr",
    "fsetxattr",
    "fstat",
    "fstatfs",
    "fsync",
    "ftruncate",
    "futimesat",
    "getcwd",
    "getdents",
    "getdents64",
    "getxattr",
    "inotify_add_watch",
    "inotify_init",
    "inotify_init1",
    "inotify_rm_watch",
    "ioctl",
    "lchown",
    "lgetxattr",
    "link",
    "linkat",
    "listxattr",
    "llistxattr",
    "lremovexattr",
    "lseek",
    "lsetxattr",
    "lstat",
    "mkdir",
    "mkdirat",
    "newfstatat",
    "open",
    "openat",
    "openat2",
    "pipe",
    "pipe2",
    "pread64",
    "preadv",
    "preadv2",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "read",
    "readahead",
    "readlink",
    "readlinkat",
    "readv",
    "removexattr",
    "rename",
    "renameat",
    "renameat2",
    "rmdir",
    "sendfile",
    "setxattr",
    "splice",
    "stat",
    "statfs",
    "statx",
    "symlink",
    "symlinkat",
    "sync_file_range",
    "syncfs",
    "tee",
    "truncate",
    "umask",
    "unlink",
    "unlinkat",
    "utime",
    "utimensat",
    "utimes",
    "write",
    "writev",
];

/// Memory of the process itself.
const MEMORY: &[&str] = &[
    "brk",
    "madvise",
    "membarrier",
    "mincore",
    "mlock",
    "mlock2",
    "mmap",
    "mprotect",
    "mremap",
    "mseal",
    "msync",
    "munlock",
    "munmap",
];

/// Processes, threads and who they are. `clone` is separate: its flags are checked.
const PROCESSES: &[&str] = &[
    "arch_prctl",
    "capget",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "fork",
    "futex",
    "futex_waitv",
    "get_robust_list",
    "getcpu",
    "getegid",
    "geteuid",
    "getgid",
    "getgroups",
    "getpgid",
    "getpgrp",
    "getpid",
    "getppid",
    "getpriority",
    "getresgid",
    "getresuid",
    "getrlimit",
    "getrusage",
    "getsid",
    "gettid",
    "getuid",
    "kill",
    "pidfd_open",
    "pidfd_send_signal",
    "prctl",
    "prlimit64",
    "rseq",
    "sched_get_priority_max",
    "sched_get_priority_min",
    "sched_getaffinity",
    "sched_getparam",
    "sched_getscheduler",
    "sched_setaffinity",
    "sched_yield",
    "set_robust_list",
    "set_tid_address",
    "setfsgid",
    "setfsuid",
    "setgid",
    "setgroups",
    "setpgid",
    "setpriority",
    "setregid",
    "setresgid",
    "setresuid",
    "setreuid",
    "setrlimit",
    "setsid",
    "setuid",
    "tgkill",
    "times",
    "tkill",
    "vfork",
    "wait4",
    "waitid",
];

/// Signals, time and waiting.
const WAITING: &[&str] = &[
    "alarm",
    "clock_getres",
    "clock_gettime",
    "clock_nanosleep",
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "eventfd",
    "eventfd2",
    "getitimer",
    "gettimeofday",
    "nanosleep",
    "pause",
    "poll",
    "ppoll",
    "pselect6",
    "restart_syscall",
    "rt_sigaction",
    "rt_sigpending",
    "rt_sigprocmask",
    "rt_sigqueueinfo",
    "rt_sigreturn",
    "rt_sigsuspend",
    "rt_sigtimedwait",
    "rt_tgsigqueueinfo",
    "select",
    "setitimer",
    "sigaltstack",
    "signalfd",
    "signalfd4",
    "time",
    "timer_create",
    "timer_delete",
    "timer_getoverrun",
    "timer_gettime",
    "timer_settime",
    "timerfd_create",
    "timerfd_gettime",
    "timerfd_settime",
];

/// Sockets that exist already. `socket` and `socketpair` are separate: their families are checked.
const SOCKETS: &[&str] = &[
    "accept",
    "accept4",
    "bind",
    "connect",
    "getpeername",
    "getsockname",
    "getsockopt",
    "listen",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
];

/// The rest: harmless questions, and walls that a program builds around itself.
const OTHER: &[&str] = &[
    "getrandom",
    "landlock_add_rule",
    "landlock_create_ruleset",
    "landlock_restrict_self",
    "seccomp",
    "sysinfo",
    "uname",
];

/// What must never be allowed, whatever the list grows to: other processes, other namespaces, the kernel itself, and ways around the walls.
pub const NEVER: &[&str] = &[
    "acct",
    "add_key",
    "adjtimex",
    "bpf",
    "capset",
    "chroot",
    "clock_adjtime",
    "clock_settime",
    "clone3",
    "delete_module",
    "fanotify_init",
    "fanotify_mark",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_mempolicy",
    "init_module",
    "io_cancel",
    "io_destroy",
    "io_getevents",
    "io_pgetevents",
    "io_setup",
    "io_submit",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "ioprio_set",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mbind",
    "memfd_create",
    "memfd_secret",
    "migrate_pages",
    "modify_ldt",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "name_to_handle_at",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pidfd_getfd",
    "pivot_root",
    "process_madvise",
    "process_mrelease",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "remap_file_pages",
    "request_key",
    "set_mempolicy",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "swapoff",
    "swapon",
    "sysfs",
    "syslog",
    "umount2",
    "unshare",
    "uselib",
    "userfaultfd",
    "ustat",
    "vhangup",
    "vmsplice",
];

const AF_UNIX: u64 = 1;
const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;
const AF_NETLINK: u64 = 16;
const NETLINK_ROUTE: u64 = 0;
/// Stream and datagram: any other type would have the kernel load SCTP or DCCP.
const SOCK_TYPES: &[u64] = &[1, 2];
/// Not SOCK_CLOEXEC, not SOCK_NONBLOCK.
const SOCK_TYPE_MASK: u64 = 0xf;
/// Unspecified, TCP, UDP.
const PROTOCOLS: &[u64] = &[0, 6, 17];
/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (clone(2)).
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
const S_IFMT: u64 = 0o170_000;
const S_IFIFO: u64 = 0o010_000;
/// What personality(2) takes to answer without changing anything.
const PERSONALITY_QUERY: u64 = 0xffff_ffff;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The profile as JSON text: always the same bytes.
pub fn profile_json() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| profile().to_string())
}

/// The profile.
pub fn profile() -> Value {
    let mut rules = vec![allow(&plain(), &[])];
    rules.push(allow(&["clone"], &[masked(0, CLONE_NAMESPACES, 0)]));
    // libc falls back to clone, whose flags a filter can read; clone3 passes them in memory.
    rules.push(
        json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS, "args": [] }),
    );
    rules.push(allow(&["mknod"], &[masked(1, S_IFMT, S_IFIFO)]));
    rules.push(allow(&["mknodat"], &[masked(2, S_IFMT, S_IFIFO)]));
    rules.push(allow(&["personality"], &[equal(0, 0)]));
    rules.push(allow(&["personality"], &[equal(0, PERSONALITY_QUERY)]));
    rules.push(allow(&["socket", "socketpair"], &[equal(0, AF_UNIX)]));
    rules.push(allow(
        &["socket"],
        &[equal(0, AF_NETLINK), equal(2, NETLINK_ROUTE)],
    ));
    for family in [AF_INET, AF_INET6] {
        for socket_type in SOCK_TYPES {
            for protocol in PROTOCOLS {
                let of_type = masked(1, SOCK_TYPE_MASK, *socket_type);
                rules.push(allow(
                    &["socket"],
                    &[equal(0, family), of_type, equal(2, *protocol)],
                ));
            }
        }
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        // Without x86 and x32: their system calls have other numbers and would need rules of their own.
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": rules,
    })
}

fn plain() -> Vec<&'static str> {
    [FILES, MEMORY, PROCESSES, WAITING, SOCKETS, OTHER].concat()
}

fn allow(names: &[&str], args: &[Value]) -> Value {
    json!({ "names": names, "action": "SCMP_ACT_ALLOW", "args": args })
}

fn equal(index: u32, value: u64) -> Value {
    json!({ "index": index, "value": value, "valueTwo": 0, "op": "SCMP_CMP_EQ" })
}

/// The argument's bits under `mask` are `value`.
fn masked(index: u32, mask: u64, value: u64) -> Value {
    json!({ "index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ" })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn allowed() -> BTreeSet<String> {
        let profile = profile();
        let rules = profile["syscalls"].as_array().unwrap();
        let allowing = rules
            .iter()
            .filter(|rule| rule["action"] == "SCMP_ACT_ALLOW");
        let names = allowing.flat_map(|rule| rule["names"].as_array().unwrap());
        names
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn what_must_never_be_allowed_is_not() {
        let allowed = allowed();
        let found: Vec<_> = NEVER
            .iter()
            .filter(|name| allowed.contains(**name))
            .collect();
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn what_is_not_allowed_is_denied() {
        let profile = profile();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        assert_eq!(profile["architectures"], json!(["SCMP_ARCH_X86_64"]));
    }

    #[test]
    fn calls_whose_arguments_matter_are_never_allowed_without_them() {
        let profile = profile();
        for rule in profile["syscalls"].as_array().unwrap() {
            let free = rule["args"].as_array().unwrap().is_empty();
            for name in rule["names"].as_array().unwrap() {
                let checked = [
                    "clone",
                    "mknod",
                    "mknodat",
                    "personality",
                    "socket",
                    "socketpair",
                ];
                let name = name.as_str().unwrap();
                assert!(
                    !(free && checked.contains(&name)),
                    "{name} is allowed with any argument"
                );
            }
        }
    }

    #[test]
    fn no_name_is_listed_twice() {
        let names = plain();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }
}
