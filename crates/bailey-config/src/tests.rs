//! What the operator sees: for each mistake, the line and the reason.

use std::time::Duration;

use super::*;

fn files(texts: &[(&str, &str)]) -> BTreeMap<String, String> {
    texts
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect()
}

const BASE: &str = "accounts: {default: {}}\n";

fn one(text: &str) -> Result<Config, Errors> {
    parse(&files(&[(ROOT, &format!("{BASE}{text}"))]))
}

fn complaint(text: &str) -> String {
    one(text).unwrap_err().to_string()
}

#[test]
fn the_starter_configuration_is_valid() {
    let config = parse(&files(starter::FILES)).unwrap();
    let names: Vec<_> = config
        .enabled_plugins()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        names,
        ["echo", "fetch", "folder_watch", "greet", "sys_exec"]
    );
    let demo = &config.pipelines[0];
    let first = demo.entry().unwrap();
    assert_eq!(
        (
            first.uses.as_str(),
            demo.next(&first.id).unwrap().uses.as_str()
        ),
        ("greet", "echo")
    );
    assert_eq!(demo.next(&demo.steps[1].id), None);
    assert_eq!(
        config.accounts[&"untrusted".parse().unwrap()].millicpus,
        Some(250)
    );
}

#[test]
fn everything_in_the_starters_comments_is_valid_too() {
    // A commented key must not rot: uncommented, the files still parse.
    let uncommented = starter::FILES.iter().map(|(name, text)| {
        let keys = text.lines().map(|line| {
            let rest = line.trim_start().strip_prefix("# ").unwrap_or("");
            let indent = line.len() - line.trim_start().len();
            let key = rest.trim_start().trim_start_matches("- ").split_once(':');
            let is_key = key.is_some_and(|(key, after)| {
                !key.is_empty()
                    && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
                    && (after.is_empty() || after.starts_with(' '))
            });
            if is_key && !rest.starts_with("compose") {
                format!("{}{rest}", " ".repeat(indent))
            } else {
                line.to_owned()
            }
        });
        ((*name).to_owned(), keys.collect::<Vec<_>>().join("\n"))
    });
    let config = parse(&uncommented.collect())
        .map_err(|e| e.to_string())
        .unwrap();
    assert!(config.plugins.contains_key(&"disk_usage".parse().unwrap()));
    assert_eq!(config.plugins[&"greet".parse().unwrap()].schedules.len(), 1);
    assert_eq!(config.service, ServiceConfig::default());
    assert_eq!(config.api, Api::default());
    let operator = &config.accounts[&"operator".parse().unwrap()];
    assert_eq!(operator.host_paths().count(), 3);
    let fetch = &config.plugins[&"fetch".parse().unwrap()];
    assert_eq!(fetch.container.egress.as_ref().unwrap().len(), 3);
    assert_eq!(
        (fetch.circuit_breaker, fetch.container.pids),
        (CircuitBreaker::default(), Some(64))
    );
}

#[test]
fn defaults_are_those_of_the_reference() {
    let config = one("plugins: {a: }").unwrap();
    let plugin = &config.plugins[&"a".parse().unwrap()];
    assert_eq!(
        plugin.retry,
        Retry {
            max_attempts: 4,
            backoff_base: Duration::from_secs(30)
        }
    );
    assert_eq!(
        (
            plugin.circuit_breaker.threshold,
            plugin.circuit_breaker.reset_after.as_secs()
        ),
        (3, 1800)
    );
    let seconds = |command: &str| plugin.timeouts.of(&command.parse().unwrap()).as_secs();
    assert_eq!(
        ["poll", "handle", "health", "init", "other"].map(seconds),
        [60, 120, 10, 30, 60]
    );
    assert_eq!(
        (plugin.run_as.as_str(), plugin.vault_principal.as_str()),
        ("default", "a")
    );
    assert_eq!(
        config.service.job_log_retention,
        Duration::from_hours(30 * 24)
    );
    assert_eq!(config.api.max_sync_timeout, Duration::from_mins(5));
}

#[test]
fn a_shape_error_has_its_line_and_column() {
    for (text, place, reason) in [
        ("plugin: {}", "2:1", "unknown key \"plugin\""),
        (
            "plugins:\n  a:\n    enabld: true",
            "4:5",
            "unknown key \"enabld\"",
        ),
        ("plugins:\n  a: {enabled: yes}", "3:16", "true or false"),
        ("plugins:\n  a: {}\n  a: {}", "4:3", "twice"),
        ("plugins:\n  'a b': {}", "3:3", "plugin name"),
        ("service:\n  dedupe_ttl: 1 day", "3:15", "duration"),
        ("accounts: {}", "2:1", "twice"),
        (
            "pipelines:\n  - name: p\n    on: a..b\n    steps: []",
            "4:9",
            "event type",
        ),
        ("plugins: [a]", "2:10", ""),
        ("plugins:\n  a: &x {}\n  b:\n    <<: *x", "5:5", "merge"),
        ("plugins: }", "2:10", ""),
    ] {
        let said = complaint(text);
        assert!(
            said.starts_with(&format!("config.yaml:{place}: ")),
            "{text}: {said}"
        );
        assert!(
            said.contains(reason) && said.lines().count() == 1,
            "{text}: {said}"
        );
    }
}

#[test]
fn what_ductile_has_and_bailey_has_not_is_said_by_name() {
    for (text, place, what) in [
        ("webhooks: {}", "2:1", "webhooks"),
        ("service: {tick_interval: 60s}", "2:11", "tick_interval"),
        ("plugins: {a: {schedule: {}}}", "2:15", "schedules"),
        (
            "plugins:\n  a:\n    schedules:\n      - at: 2026-01-01T00:00:00Z",
            "5:9",
            "at",
        ),
        (
            "pipelines:\n  - name: p\n    on-hook: job.failed\n    steps: []",
            "4:5",
            "on-hook",
        ),
        (
            "pipelines:\n  - name: p\n    on: x\n    steps:\n      - split: []",
            "6:9",
            "split",
        ),
        ("plugins: {a: {container: {mounts: []}}}", "2:27", "mounts"),
        (
            "plugins: {a: {config: {key: \"${API_KEY}\"}}}",
            "2:23",
            "${API_KEY}",
        ),
    ] {
        let said = complaint(text);
        assert!(
            said.starts_with(&format!("config.yaml:{place}: ")),
            "{text}: {said}"
        );
        assert!(
            said.contains("not supported") && said.contains(what),
            "{text}: {said}"
        );
    }
}

#[test]
fn cross_field_errors_come_all_at_once_and_in_order() {
    let said = complaint(
        "service: {dedupe_ttl: 2d, job_queue_retention: 1d}
plugins:
  a: {run_as: nobody}
  b: {enabled: false, parallelism: 99}
  c: {uses: c}
pipelines:
  - {name: p, on: x, steps: [{uses: a}, {id: s, uses: b}, {id: s, uses: zzz}]}
  - {name: p, on: x, steps: []}
",
    );
    let places: Vec<_> = said
        .lines()
        .map(|line| line.split(':').nth(1).unwrap())
        .collect();
    assert_eq!(
        places,
        ["2", "4", "5", "6", "8", "8", "8", "9", "9"],
        "{said}"
    );
    for reason in [
        "job_queue_retention",
        "nobody",
        "parallelism is 99; it must be 1 to 4",
        "uses itself",
        "not enabled",
        "used twice",
        "zzz",
        "defined twice",
        "1 to 256 steps",
    ] {
        assert!(said.contains(reason), "{reason}: {said}");
    }
}

#[test]
fn steps_without_an_id_are_numbered() {
    let config = one("plugins: {a: {}}\npipelines: [{name: p, on: x, steps: [{uses: a}, {id: two, uses: a}, {uses: a}]}]").unwrap();
    let ids: Vec<_> = config.pipelines[0]
        .steps
        .iter()
        .map(|step| step.id.as_str())
        .collect();
    assert_eq!(ids, ["step_1", "two", "step_3"]);
    assert_eq!(config.pipelines[0].max_depth, Some(3));
}

#[test]
fn schedules_are_checked() {
    let schedule = |entry: &str| one(&format!("plugins: {{a: {{schedules: [{entry}]}}}}"));
    let ok = schedule("{every: 1.5s}, {id: b, cron: '0 7 * * 1-5', timezone: Australia/Sydney, command: sync, payload: {n: 1}}").unwrap();
    let schedules = &ok.plugins[&"a".parse().unwrap()].schedules;
    assert_eq!(schedules[0].when, When::Every(Duration::from_millis(1500)));
    assert_eq!(
        (schedules[0].id.as_str(), schedules[0].command.as_str()),
        ("default", "poll")
    );
    let sydney = When::Cron {
        expression: "0 7 * * 1-5".into(),
        timezone: chrono_tz::Australia::Sydney,
    };
    assert_eq!(schedules[1].when, sydney);
    for (bad, reason) in [
        ("{}", "exactly one of every and cron"),
        ("{every: 5m, cron: '* * * * *'}", "exactly one"),
        ("{every: 5m}, {every: 1h}", "used twice"),
        ("{every: 1ms}", "100ms"),
        ("{every: 5m, command: handle}", "cannot be scheduled"),
        ("{cron: '* * * * * *'}", "five fields"),
        ("{cron: '61 * * * *'}", "five fields"),
        ("{cron: '0 0 * * *', timezone: Mars/Olympus}", "IANA"),
        ("{every: 5m, timezone: UTC}", "belongs to cron"),
        ("{cron: '0 0 * * *', catch_up: run_all}", "belongs to every"),
        ("{every: 5m, payload: {n: 9007199254740993}}", "beyond"),
    ] {
        let said = schedule(bad).unwrap_err().to_string();
        assert!(said.contains(reason), "{bad}: {said}");
    }
}

#[test]
fn included_files_are_merged_and_names_stay_unique() {
    let root = "include: [a.yaml, sub/b.yml]\naccounts: {default: {}}\nplugin_roots: [/one]\n";
    let ok = files(&[
        (ROOT, root),
        ("a.yaml", "plugins: {a: {}}\nplugin_roots: [/two]"),
        ("sub/b.yml", "# nothing yet\n"),
    ]);
    assert_eq!(
        parse(&ok).unwrap().plugin_roots,
        [PathBuf::from("/one"), PathBuf::from("/two")]
    );
    let twice = files(&[
        (ROOT, root),
        ("a.yaml", "plugins: {a: {}}"),
        ("sub/b.yml", "\nplugins:\n  a: {}\naccounts: {default: {}}"),
    ]);
    let said = parse(&twice).unwrap_err().to_string();
    assert!(
        said.contains("sub/b.yml:3:3: the plugin a is defined twice"),
        "{said}"
    );
    assert!(
        said.contains("sub/b.yml:4:12: the account default is defined twice"),
        "{said}"
    );
}

#[test]
fn includes_stay_below_the_configuration_and_form_no_cycle() {
    for (include, reason) in [
        ("../x.yaml", "'..'"),
        ("/etc/x.yaml", "below config/"),
        ("./x.yaml", "'.'"),
        ("a//b.yaml", "below"),
        ("plugins.d", "end in .yaml"),
        ("missing.yaml", "does not exist"),
        ("config.yaml", "included twice"),
    ] {
        let said = complaint(&format!("include: ['{include}']"));
        assert!(
            said.starts_with("config.yaml:2:11: ") && said.contains(reason),
            "{include}: {said}"
        );
    }
    let cycle = files(&[
        (ROOT, "include: [a.yaml]"),
        ("a.yaml", "include: [config.yaml]"),
    ]);
    assert!(
        parse(&cycle)
            .unwrap_err()
            .to_string()
            .starts_with("a.yaml:1:11: config.yaml is included twice")
    );
    let extra = files(&[(ROOT, BASE), ("x.yaml", "")]);
    assert_eq!(
        parse(&extra).unwrap_err().to_string(),
        "x.yaml: is not included by any file"
    );
}

#[test]
fn reading_a_directory_follows_includes_and_refuses_links() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in starter::FILES {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    std::fs::write(dir.path().join("unrelated.yaml"), "nonsense: [").unwrap();
    let read = read_dir(dir.path()).unwrap();
    assert_eq!(read.texts, files(starter::FILES));
    std::fs::remove_file(dir.path().join("plugins.yaml")).unwrap();
    assert!(
        read_dir(dir.path())
            .unwrap_err()
            .to_string()
            .starts_with("plugins.yaml: cannot be read")
    );
    std::os::unix::fs::symlink("/etc/hostname", dir.path().join("plugins.yaml")).unwrap();
    assert_eq!(
        read_dir(dir.path()).unwrap_err().to_string(),
        "plugins.yaml: is not a regular file"
    );
}

#[test]
fn the_container_block_and_limits_are_checked() {
    let config = one("plugins: {a: {container: {memory: 128MiB, cpus: 0.5, egress: [example.com]}, timeouts: {poll: 5s}}}").unwrap();
    let container = &config.plugins[&"a".parse().unwrap()].container;
    assert_eq!(
        (container.memory_bytes, container.millicpus),
        (Some(128 << 20), Some(500))
    );
    assert!(
        complaint("plugins:\n  a:\n    container: {memory: 1}")
            .contains("container: memory must be")
    );
    assert!(complaint("plugin_roots: [plugins]").contains("absolute"));
    assert!(complaint("api: {max_body_size: 1GiB}").contains("1KiB to 64MiB"));
    assert!(complaint("plugins: {a: {timeouts: {poll: 0}}}").contains("timeout of poll"));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_parsing_panic(text in "\\PC{0,60}") {
        let _ = one(&text);
    }
}

#[test]
fn a_schedule_cannot_cancel_yet_and_says_so() {
    let text = "plugins: {a: {schedules: [{every: 5m, if_running: cancel}]}}";
    assert!(complaint(text).contains("not supported yet: if_running: cancel"));
    assert!(one(&text.replace("cancel", "queue")).is_ok());
}

#[test]
fn a_reference_to_a_secret_is_checked_where_it_stands() {
    let config = one(
        "plugins:\n  a: {config: {token: {secret_ref: api-key}, list: [{secret_ref: other}]}}\n",
    )
    .unwrap();
    let refs = config.plugins[&"a".parse().unwrap()].secret_refs();
    let refs: Vec<_> = refs.iter().map(ToString::to_string).collect();
    assert_eq!(refs, ["api-key", "other"]);
    let said = complaint("plugins:\n  a:\n    config: {token: {secret_ref: x, more: 1}}\n");
    assert!(
        said.contains("config.yaml:4:13: config: secret_ref stands alone"),
        "{said}"
    );
}

/// The YAML blocks of a document.
fn blocks(document: &str) -> Vec<&str> {
    let parts = document.split("```yaml\n").skip(1);
    parts
        .map(|part| part.split("```").next().unwrap())
        .collect()
}

/// What the how-to says that the command prints.
fn promised(document: &str) -> Vec<&str> {
    let lines = document.lines().filter_map(|line| line.strip_prefix("! "));
    lines.collect()
}

#[test]
fn the_postures_of_the_how_tos_are_valid_and_say_what_they_promise() {
    let starter = files(starter::FILES);
    let with = |name: &str, text: String| {
        let mut files = starter.clone();
        files.insert(name.to_owned(), text);
        files
    };
    for document in [
        include_str!("../../../docs/how-to/confined.md"),
        include_str!("../../../docs/how-to/unconfined.md"),
    ] {
        let config = parse(&with(ROOT, blocks(document)[0].to_owned())).unwrap();
        assert_eq!(warnings(&config), promised(document));
    }
    let hybrid = include_str!("../../../docs/how-to/hybrid.md");
    let blocks = blocks(hybrid);
    let root = starter[ROOT].replace("accounts:\n", &format!("accounts:\n{}", blocks[0]));
    let mut both = with(ROOT, root);
    let plugins = format!("plugins:\n  echo: {{}}\n  greet: {{}}\n{}", blocks[1]);
    both.insert("plugins.yaml".to_owned(), plugins);
    assert_eq!(warnings(&parse(&both).unwrap()), promised(hybrid));
}
