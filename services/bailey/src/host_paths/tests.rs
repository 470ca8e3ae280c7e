use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use bailey_config::Ids;

use super::*;

/// A folder with places to give away, and a stack that has a folder of its own in it.
struct Bench {
    dir: tempfile::TempDir,
    accounts: Vec<(&'static str, Account)>,
}

const IDS: Ids = Ids {
    uid: 1000,
    gid: 1001,
};

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["notes", "inbox", "stack/config"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        Self {
            dir,
            accounts: Vec::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn host(&self) -> Host {
        let own = vec![(self.path("stack"), "this stack's".to_owned())];
        Host::new(own, Some((4242, 998)))
    }

    /// An account with these host paths; `+` in front makes one writable.
    fn with(mut self, name: &'static str, paths: &[&str]) -> Self {
        let mounts = paths.iter().map(|path| Mount {
            path: self.path(path.trim_start_matches('+')),
            writable: path.starts_with('+'),
        });
        let account = Account {
            ids: Some(IDS),
            mounts: mounts.collect(),
            ..Account::default()
        };
        self.accounts.push((name, account));
        self
    }

    fn config(&self) -> Config {
        let text = "accounts: {default: {}}".to_owned();
        let files = BTreeMap::from([("config.yaml".to_owned(), text)]);
        let mut config = bailey_config::parse(&files).unwrap();
        for (name, account) in &self.accounts {
            config
                .accounts
                .insert(name.parse().unwrap(), account.clone());
        }
        config
    }

    fn resolve(&self) -> Result<Resolved, Vec<String>> {
        resolve(&self.config(), &self.host()).map(|(resolved, _)| resolved)
    }

    #[track_caller]
    fn refuses(&self, reason: &str) {
        let problems = self.resolve().unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(reason), "{reason}: {problems:?}");
    }
}

#[test]
fn a_folder_and_a_file_are_found_with_device_and_inode() {
    let bench = Bench::new().with("ops", &["notes", "+inbox", "file"]);
    fs::write(bench.path("file"), "x").unwrap();
    let resolved = bench.resolve().unwrap();
    let metadata = fs::metadata(bench.path("inbox")).unwrap();
    let expected = Found {
        device: metadata.dev(),
        inode: metadata.ino(),
    };
    assert_eq!(resolved.of(&bench.path("inbox")), Some(expected));
    assert!(resolved.of(&bench.path("file")).is_some());
    assert_eq!(resolved.of(&bench.path("stack")), None);
    let text = serde_json::to_string(&resolved).unwrap();
    assert_eq!(text.parse(), Ok(resolved));
}

#[test]
fn a_link_is_refused_wherever_it_stands() {
    let bench = Bench::new().with("ops", &["notes/here/x"]);
    fs::create_dir_all(bench.path("inbox/x")).unwrap();
    symlink(bench.path("inbox"), bench.path("notes/here")).unwrap();
    bench.refuses("notes/here is a symbolic link");
    fs::remove_file(bench.path("notes/here")).unwrap();
    fs::create_dir(bench.path("notes/here")).unwrap();
    symlink(bench.path("inbox"), bench.path("notes/here/x")).unwrap();
    bench.refuses("notes/here/x is a symbolic link");
    fs::remove_file(bench.path("notes/here/x")).unwrap();
    fs::create_dir(bench.path("notes/here/x")).unwrap();
    assert!(bench.resolve().is_ok());
}

#[test]
fn a_socket_is_refused_itself_and_in_a_folder() {
    let bench = Bench::new().with("ops", &["notes/agent"]);
    let socket = UnixListener::bind(bench.path("notes/agent")).unwrap();
    bench.refuses("is a socket");
    let folder = Bench {
        accounts: Vec::new(),
        ..bench
    }
    .with("ops", &["notes"]);
    folder.refuses("holds the socket");
    drop(socket);
    fs::remove_file(folder.path("notes/agent")).unwrap();
    assert!(folder.resolve().is_ok());
}

#[test]
fn what_is_not_there_is_refused() {
    Bench::new()
        .with("ops", &["absent"])
        .refuses("No such file");
}

#[test]
fn the_stacks_own_folders_are_refused_from_both_sides() {
    Bench::new()
        .with("ops", &["stack"])
        .refuses("which is this stack's");
    Bench::new()
        .with("ops", &["stack/config"])
        .refuses("which is this stack's");
    let around = Bench::new().with("ops", &["stack/.."]);
    let account = Account {
        mounts: vec![Mount {
            path: around.dir.path().to_owned(),
            writable: false,
        }],
        ..around.accounts[0].1.clone()
    };
    Bench {
        accounts: vec![("ops", account)],
        ..around
    }
    .refuses("which is this stack's");
    assert!(Bench::new().with("ops", &["notes"]).resolve().is_ok());
}

#[test]
fn what_is_the_kernels_or_the_engines_is_refused() {
    let host = Host::new(Vec::new(), None);
    for path in [
        "/proc/1",
        "/sys",
        "/dev/sda",
        "/run/docker.sock",
        "/var/run",
        "/var/lib",
        "/var/lib/docker/volumes",
        "/",
    ] {
        assert!(host.check(Path::new(path), &[]).is_err(), "{path}");
    }
    for path in ["/srv/notes", "/var/lib/dockerx", "/home/me", "/runner"] {
        assert_eq!(host.check(Path::new(path), &[]), Ok(()), "{path}");
    }
}

#[test]
fn a_second_name_of_what_an_account_may_write_is_refused() {
    let linked = Bench::new().with("a", &["+one"]).with("b", &["two"]);
    fs::write(linked.path("one"), "x").unwrap();
    fs::hard_link(linked.path("one"), linked.path("two")).unwrap();
    linked.refuses("the same place");
    fs::remove_file(linked.path("two")).unwrap();
    fs::write(linked.path("two"), "x").unwrap();
    assert!(linked.resolve().is_ok());
    let read_only = Bench::new().with("a", &["one"]).with("b", &["two"]);
    fs::write(read_only.path("one"), "x").unwrap();
    fs::hard_link(read_only.path("one"), read_only.path("two")).unwrap();
    assert!(read_only.resolve().is_ok());
}

#[test]
fn a_second_name_of_what_is_never_given_away_is_refused() {
    // As a bind mount shows it: another name, the same device and inode.
    let bench = Bench::new().with("ops", &["notes"]);
    let stack = Found::of(&fs::metadata(bench.path("stack")).unwrap());
    let inbox = Found::of(&fs::metadata(bench.path("inbox")).unwrap());
    let check = |found| bench.host().check(Path::new("/srv/elsewhere/x"), &[found]);
    assert!(check(stack).is_err());
    assert_eq!(check(inbox), Ok(()));
}

#[test]
fn a_second_name_of_a_folder_around_what_is_never_given_away_is_refused() {
    let bench = Bench::new();
    let found = |path: &Path| Found::of(&fs::metadata(path).unwrap());
    let own = vec![(bench.path("stack/config"), "this stack's".to_owned())];
    let host = Host::new(own, None);
    // A bind mount of the folder, or the file system of the host mounted a second time.
    for folder in [bench.path("stack"), bench.dir.path().to_owned(), "/".into()] {
        let said = host.check(Path::new("/srv/elsewhere"), &[found(&folder)]);
        assert!(said.is_err(), "{}", folder.display());
    }
    // Beside it, and in what also holds the stack, as everything does.
    let ancestry = [found(&bench.path("notes")), found(bench.dir.path())];
    assert_eq!(host.check(&bench.path("notes"), &ancestry), Ok(()));
}

#[test]
fn what_a_place_of_the_stack_links_to_is_refused() {
    let bench = Bench::new().with("ops", &["notes"]);
    fs::remove_dir(bench.path("stack/config")).unwrap();
    let own = vec![(bench.path("stack/config"), "this stack's".to_owned())];
    let check = |path| resolve(&bench.config(), &Host::new(path, None));
    // Also where the link leads to what does not exist yet.
    symlink(bench.path("notes"), bench.path("stack/link")).unwrap();
    let absent = vec![(bench.path("stack/link/absent"), "this stack's".to_owned())];
    assert!(check(absent).is_err());
    symlink(bench.path("inbox"), bench.path("stack/config")).unwrap();
    assert!(check(own.clone()).is_ok());
    fs::remove_file(bench.path("stack/config")).unwrap();
    symlink(bench.path("notes"), bench.path("stack/config")).unwrap();
    assert!(check(own).is_err());
}

#[test]
fn the_roots_of_the_plugins_and_the_checkout_of_this_program_are_the_stacks() {
    let bench = Bench::new();
    let home = home(&bench.path("stack"));
    for folder in [
        "stack/secrets",
        "roots/mine",
        "plugins",
        "checkout/build/bin",
    ] {
        fs::create_dir_all(bench.path(folder)).unwrap();
    }
    for file in ["stack/compose.yaml", "checkout/compose.yaml"] {
        fs::write(bench.path(file), "").unwrap();
    }
    let exe = bench.path("checkout/build/bin/bailey");
    let check = |name: &str| {
        let own = host::stack(&home, &exe).unwrap().into_iter();
        let own = own.map(|path| (path, "this stack's".to_owned()));
        look(
            &bench.path(name),
            &Host::new(own.collect(), None),
            &mut Vec::new(),
        )
        .map(|_| ())
    };
    for name in ["roots", "roots/mine", "plugins"] {
        assert_eq!(check(name), Ok(()), "nothing links to {name} yet");
    }
    symlink(bench.path("roots"), bench.path("stack/plugin-roots")).unwrap();
    symlink(bench.path("plugins"), bench.path("roots/first-party")).unwrap();
    for name in [
        "roots",
        "roots/mine",
        "plugins",
        "checkout",
        "checkout/build",
    ] {
        let said = check(name).unwrap_err();
        assert!(said.contains("which is this stack's"), "{said}");
    }
    assert_eq!(check("notes"), Ok(()));
}

fn home(dir: &Path) -> Home {
    Home::new(crate::cli::Places {
        home: dir.to_owned(),
        json: false,
        url: None,
        token_file: None,
        ca: None,
        config_dir: None,
        compose: None,
        admin_token_file: "absent".into(),
        manage_dir: "absent".into(),
    })
}

#[test]
fn home_is_a_folder_of_the_accounts_own_uid() {
    let mut bench = Bench::new().with("ops", &[]);
    let uid = fs::metadata(bench.path("notes")).unwrap().uid();
    bench.accounts[0].1.home = Some(bench.path("notes"));
    let own = |uid| Some(Ids { uid, gid: 1001 });
    bench.accounts[0].1.ids = own(uid + 1);
    bench.refuses("belongs to uid");
    bench.accounts[0].1.ids = own(uid);
    assert!(bench.resolve().is_ok());
    fs::write(bench.path("file"), "x").unwrap();
    bench.accounts[0].1.home = Some(bench.path("file"));
    bench.refuses("is not a folder");
}

#[test]
fn nobody_has_the_identity_of_the_engines_socket() {
    let mut bench = Bench::new().with("ops", &["notes"]);
    bench.accounts[0].1.ids = Some(Ids {
        uid: 1000,
        gid: 998,
    });
    bench.refuses("gid 998 is that of the Docker socket");
    bench.accounts[0].1.ids = Some(Ids {
        uid: 4242,
        gid: 1001,
    });
    bench.refuses("uid 4242 is that of the Docker socket");
    bench.accounts[0].1.ids = Some(IDS);
    assert!(bench.resolve().is_ok());
}

#[test]
fn everything_wrong_is_said_at_once() {
    let bench = Bench::new()
        .with("a", &["absent", "stack"])
        .with("b", &["gone"]);
    assert_eq!(bench.resolve().unwrap_err().len(), 3);
}
