use serde_json::json;

use super::*;

const HEAD: &str = "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: sample\nprotocol: 2\nentrypoint: run.py\n";

/// The example of the reference, section 1.8.
const REFERENCE: &str = r"
manifest_spec: ductile.plugin
manifest_version: 1
name: my_plugin
version: 0.1.0
protocol: 2
entrypoint: run.py
description: text
concurrency_safe: false
commands:
  - name: poll
    type: read
    description: text
    idempotent: true
    retry_safe: true
    input_schema: {url: string}
    output_schema: {}
    values:
      consume: [payload.url, payload.*]
      emit:
        - event: <configured event_type>
          values: [payload.x]
fact_outputs:
  - when: {command: poll}
    from: state_updates
    fact_type: my_plugin.snapshot
    compatibility_view: mirror_object
config_keys: {required: [a], optional: []}
stopwatch: {max_subs: 64}
";

#[test]
fn the_reference_example_is_read() {
    let manifest = Manifest::parse(REFERENCE).unwrap();
    assert_eq!(
        (
            manifest.name.as_str(),
            manifest.version.as_str(),
            manifest.concurrency_safe
        ),
        ("my_plugin", "0.1.0", false)
    );
    let poll = manifest.command(&"poll".parse().unwrap()).unwrap();
    assert_eq!(
        (poll.access, poll.idempotent, poll.retry_safe),
        (Access::Read, true, true)
    );
    let expanded = json!({"type": "object", "properties": {"url": {"type": "string"}}});
    assert_eq!(
        (poll.input_schema.clone(), poll.output_schema.clone()),
        (Some(expanded), None)
    );
    assert_eq!(
        manifest.fact_outputs[0].fact_type.as_str(),
        "my_plugin.snapshot"
    );
    assert_eq!(manifest.config_keys.required, ["a"]);
    assert_eq!(unknown_keys(REFERENCE), Vec::<String>::new());
}

#[test]
fn optional_keys_have_their_defaults() {
    let manifest =
        Manifest::parse(&format!("{HEAD}commands: [{{name: poll, type: write}}]")).unwrap();
    assert!(manifest.concurrency_safe && manifest.fact_outputs.is_empty());
    assert_eq!(manifest.container, Container::default());
    assert_eq!(manifest.commands[0].input_schema, None);
}

#[test]
fn unknown_keys_are_tolerated_and_told() {
    let text = format!("{HEAD}author: me\ncommands: [{{name: poll, type: read, tags: [x]}}]");
    assert!(Manifest::parse(&text).is_ok());
    assert_eq!(unknown_keys(&text), ["author", "commands.poll.tags"]);
}

#[test]
fn a_json_schema_is_kept_and_a_compact_one_expanded() {
    let schema = |text: &str| {
        let manifest = format!("{HEAD}commands: [{{name: a, type: read, input_schema: {text}}}]");
        Manifest::parse(&manifest).map(|manifest| manifest.commands[0].input_schema.clone())
    };
    let full = "{type: object, required: [url], properties: {url: {type: string, maxLength: 10}}}";
    assert_eq!(
        schema(full).unwrap().unwrap()["properties"]["url"]["maxLength"],
        10
    );
    assert_eq!(
        schema("{type: object}").unwrap().unwrap(),
        json!({"type": "object"})
    );
    let named = schema("{type: string, n: int}").unwrap().unwrap();
    assert_eq!(
        named["properties"],
        json!({"type": {"type": "string"}, "n": {"type": "integer"}})
    );
    assert!(
        schema("{url: text}")
            .unwrap_err()
            .to_string()
            .contains("the type of url")
    );
    assert!(schema("[url]").is_err());
}

#[test]
fn what_the_loader_refuses_has_its_place() {
    let commands = "commands: [{name: poll, type: read}]";
    let mut wrong = Vec::new();
    for (text, place, reason) in [
        (
            HEAD.replace("ductile.plugin", "other") + commands,
            "1:16",
            "manifest_spec",
        ),
        (
            HEAD.replace("manifest_version: 1", "manifest_version: 2") + commands,
            "2:19",
            "manifest_version",
        ),
        (
            HEAD.replace("protocol: 2", "protocol: 1") + commands,
            "4:11",
            "protocol",
        ),
        (
            HEAD.replace("run.py", "../run.py") + commands,
            "5:13",
            "without '..'",
        ),
        (
            HEAD.replace("run.py", "/bin/sh") + commands,
            "5:13",
            "inside",
        ),
        (
            HEAD.replace("name: sample", "name: 'a b'") + commands,
            "3:7",
            "plugin name",
        ),
        (HEAD.to_owned(), "5:1", "commands"),
        (format!("{HEAD}commands: []"), "6:11", "1 to 256"),
        (
            format!("{HEAD}commands: {{poll: {{type: read}}}}"),
            "6:11",
            "",
        ),
        (format!("{HEAD}commands: [{{name: poll}}]"), "6:13", "type"),
        (
            format!("{HEAD}commands: [{{name: poll, type: rw}}]"),
            "6:31",
            "read",
        ),
        (
            format!("{HEAD}commands: [{{name: 9x, type: read}}]"),
            "6:19",
            "command name",
        ),
        (
            format!("{HEAD}commands: [{{name: a, type: read}}, {{name: a, type: read}}]"),
            "6:42",
            "twice",
        ),
        (
            format!("{HEAD}commands: [{{name: a, type: read, values: {{consume: [x.y]}}}}]"),
            "6:53",
            "payload",
        ),
        (
            format!("{HEAD}{commands}\nstopwatch: {{max_subs: 257}}"),
            "7:12",
            "1 to 256",
        ),
        (
            format!("{HEAD}{commands}\nfact_outputs: [{{when: {{command: x}}, fact_type: a.b}}]"),
            "7:33",
            "not a command",
        ),
        (
            format!("{HEAD}{commands}\ncontainer: {{memory: 1KiB}}"),
            "7:12",
            "memory",
        ),
        (
            format!("{HEAD}{commands}\ncontainer: {{mem: 1MiB}}"),
            "7:13",
            "unknown key",
        ),
    ] {
        let said = Manifest::parse(&text).unwrap_err().to_string();
        if !(said.starts_with(&format!("{place}: ")) && said.contains(reason)) {
            wrong.push(format!("{text}\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
