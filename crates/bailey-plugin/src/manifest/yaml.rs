//! The shape of the file, and the checks of its loader.

use std::collections::BTreeSet;

use bailey_types::{CommandName, EventType, PluginName};
use bailey_yaml::{At, Place};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Access, Command, ConfigKeys, Error, FactOutput, Manifest};
use crate::{Container, ContainerYaml};

/// Unlike the operator's files, a manifest may hold keys that are not known here: published plugins have them. [`unknown_keys`] tells them.
#[derive(Deserialize)]
struct File {
    manifest_spec: At<String>,
    manifest_version: At<u32>,
    name: PluginName,
    #[serde(default)]
    version: String,
    protocol: At<u32>,
    entrypoint: At<String>,
    #[serde(default)]
    description: String,
    #[serde(default = "yes")]
    concurrency_safe: bool,
    commands: At<Vec<At<CommandYaml>>>,
    #[serde(default)]
    fact_outputs: Vec<At<FactYaml>>,
    #[serde(default)]
    config_keys: Option<KeysYaml>,
    #[serde(default)]
    stopwatch: Option<At<Stopwatch>>,
    #[serde(default)]
    container: Option<At<ContainerYaml>>,
}

const FILE_KEYS: &[&str] = &[
    "manifest_spec",
    "manifest_version",
    "name",
    "version",
    "protocol",
    "entrypoint",
    "description",
    "concurrency_safe",
    "commands",
    "fact_outputs",
    "config_keys",
    "stopwatch",
    "container",
];

#[derive(Deserialize)]
struct CommandYaml {
    name: At<CommandName>,
    #[serde(rename = "type")]
    access: Access,
    #[serde(default)]
    description: String,
    #[serde(default)]
    idempotent: bool,
    #[serde(default)]
    retry_safe: bool,
    #[serde(default)]
    input_schema: Option<At<Value>>,
    #[serde(default)]
    output_schema: Option<At<Value>>,
    #[serde(default)]
    values: Option<Values>,
}

const COMMAND_KEYS: &[&str] = &[
    "name",
    "type",
    "description",
    "idempotent",
    "retry_safe",
    "input_schema",
    "output_schema",
    "values",
];

#[derive(Deserialize)]
struct Values {
    #[serde(default)]
    consume: Vec<At<String>>,
    #[serde(default)]
    emit: Vec<Emit>,
}

#[derive(Deserialize)]
struct Emit {
    #[serde(default)]
    values: Vec<At<String>>,
}

#[derive(Deserialize)]
struct FactYaml {
    when: When,
    #[serde(default)]
    from: Option<At<String>>,
    fact_type: EventType,
    #[serde(default)]
    compatibility_view: Option<At<String>>,
}

#[derive(Deserialize)]
struct When {
    command: At<CommandName>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KeysYaml {
    required: Vec<String>,
    optional: Vec<String>,
}

#[derive(Deserialize)]
struct Stopwatch {
    max_subs: Option<u32>,
}

fn yes() -> bool {
    true
}

pub(super) fn parse(text: &str) -> Result<Manifest, Error> {
    let file: File = bailey_yaml::parse(text)?;
    literal(
        &file.manifest_spec,
        &"ductile.plugin".to_owned(),
        "manifest_spec",
    )?;
    literal(&file.manifest_version, &1, "manifest_version")?;
    literal(&file.protocol, &2, "protocol")?;
    if let Some(problem) = entrypoint_problem(&file.entrypoint.value) {
        return Err(at(file.entrypoint.place, format!("entrypoint {problem}")));
    }
    if let Some(stopwatch) = &file.stopwatch
        && stopwatch
            .value
            .max_subs
            .is_some_and(|max| !(1..=256).contains(&max))
    {
        return Err(at(
            stopwatch.place,
            "stopwatch.max_subs must be 1 to 256".into(),
        ));
    }
    let commands = commands(file.commands)?;
    let fact_outputs = file
        .fact_outputs
        .into_iter()
        .map(|fact| fact_output(fact, &commands))
        .collect::<Result<_, _>>()?;
    let keys = file.config_keys.unwrap_or_default();
    Ok(Manifest {
        name: file.name,
        version: file.version,
        description: file.description,
        entrypoint: file.entrypoint.value,
        concurrency_safe: file.concurrency_safe,
        commands,
        fact_outputs,
        config_keys: ConfigKeys {
            required: keys.required,
            optional: keys.optional,
        },
        container: container(file.container)?,
    })
}

/// Keys of the manifest and of its commands that mean nothing here, as paths. A text that is no manifest has none.
pub(super) fn unknown_keys(text: &str) -> Vec<String> {
    let Ok(file) = bailey_yaml::parse::<Map<String, Value>>(text) else {
        return Vec::new();
    };
    let mut unknown: Vec<String> = file
        .keys()
        .filter(|key| !FILE_KEYS.contains(&key.as_str()))
        .cloned()
        .collect();
    let commands = file
        .get("commands")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object);
    for command in commands {
        let name = command.get("name").and_then(Value::as_str).unwrap_or("?");
        let keys = command
            .keys()
            .filter(|key| !COMMAND_KEYS.contains(&key.as_str()));
        unknown.extend(keys.map(|key| format!("commands.{name}.{key}")));
    }
    unknown
}

fn at(place: Place, message: String) -> Error {
    Error(bailey_yaml::Error {
        place,
        unknown_key: None,
        message,
    })
}

fn literal<T: PartialEq + std::fmt::Debug>(
    given: &At<T>,
    wanted: &T,
    key: &str,
) -> Result<(), Error> {
    if given.value == *wanted {
        return Ok(());
    }
    Err(at(
        given.place,
        format!("{key} is {:?}; it must be {wanted:?}", given.value),
    ))
}

/// Why this cannot be the path of an entrypoint, if it cannot.
fn entrypoint_problem(path: &str) -> Option<&'static str> {
    let path = path.strip_prefix("./").unwrap_or(path);
    if path.is_empty() || path.len() > 240 || path.bytes().any(|b| b < b' ') {
        return Some("must be the path of a file");
    }
    path.split('/')
        .any(|part| matches!(part, "" | "." | ".."))
        .then_some("must be a path inside of the plugin's folder, without '..'")
}

fn commands(raw: At<Vec<At<CommandYaml>>>) -> Result<Vec<Command>, Error> {
    if raw.value.is_empty() || raw.value.len() > 256 {
        return Err(at(raw.place, "a plugin needs 1 to 256 commands".into()));
    }
    let mut names = BTreeSet::new();
    raw.value
        .into_iter()
        .map(|entry| {
            let CommandYaml {
                name,
                access,
                description,
                idempotent,
                retry_safe,
                input_schema,
                output_schema,
                values,
            } = entry.value;
            if !names.insert(name.value.clone()) {
                return Err(at(
                    name.place,
                    format!("the command {} is declared twice", name.value),
                ));
            }
            let Values { consume, emit } = values.unwrap_or(Values {
                consume: Vec::new(),
                emit: Vec::new(),
            });
            for path in consume
                .iter()
                .chain(emit.iter().flat_map(|emit| &emit.values))
            {
                if !is_value_path(&path.value) {
                    return Err(at(
                        path.place,
                        format!("{:?} is not payload.<name> or payload.*", path.value),
                    ));
                }
            }
            let (input_schema, output_schema) = (schema(input_schema)?, schema(output_schema)?);
            Ok(Command {
                name: name.value,
                access,
                description,
                idempotent,
                retry_safe,
                input_schema,
                output_schema,
            })
        })
        .collect()
}

fn is_value_path(path: &str) -> bool {
    let segment = |s: &str| {
        !s.is_empty()
            && s.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    path.strip_prefix("payload.")
        .is_some_and(|rest| rest == "*" || rest.split('.').all(segment))
}

/// A JSON Schema, given as one or as a compact map of names to types; `{}` says nothing.
fn schema(raw: Option<At<Value>>) -> Result<Option<Value>, Error> {
    let Some(raw) = raw else { return Ok(None) };
    let object = match raw.value {
        Value::Object(object) => object,
        Value::Null => return Ok(None),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err(at(
                raw.place,
                "a schema is a mapping: a JSON Schema, or names with their types".into(),
            ));
        }
    };
    if object.is_empty() {
        return Ok(None);
    }
    let is_schema = object.keys().any(|key| key.starts_with('$'))
        || object.values().any(|value| !value.is_string());
    // `{type: object}` is a schema; `{type: string, url: string}` names a parameter that is called type.
    if is_schema || object.get("type").is_some_and(|value| value == "object") {
        return Ok(Some(Value::Object(object)));
    }
    let mut properties = Map::new();
    for (name, value) in object {
        let kind = value.as_str().and_then(json_type).ok_or_else(|| {
            at(raw.place, format!("the type of {name} is {value}; known are string, number, integer, boolean, object, array"))
        })?;
        properties.insert(name, kind);
    }
    Ok(Some(json!({"type": "object", "properties": properties})))
}

fn json_type(name: &str) -> Option<Value> {
    Some(match name {
        "string" | "str" => json!({"type": "string"}),
        "number" | "float" => json!({"type": "number"}),
        "integer" | "int" => json!({"type": "integer"}),
        "boolean" | "bool" => json!({"type": "boolean"}),
        "object" | "map" => json!({"type": "object"}),
        "array" | "list" => json!({"type": "array"}),
        "any" => json!({}),
        _ => return None,
    })
}

fn fact_output(raw: At<FactYaml>, commands: &[Command]) -> Result<FactOutput, Error> {
    let FactYaml {
        when,
        from,
        fact_type,
        compatibility_view,
    } = raw.value;
    if !commands
        .iter()
        .any(|command| command.name == when.command.value)
    {
        return Err(at(
            when.command.place,
            format!("{} is not a command of this plugin", when.command.value),
        ));
    }
    if let Some(from) = from {
        literal(&from, &"state_updates".to_owned(), "from")?;
    }
    if let Some(view) = compatibility_view {
        literal(&view, &"mirror_object".to_owned(), "compatibility_view")?;
    }
    Ok(FactOutput {
        command: when.command.value,
        fact_type,
    })
}

fn container(raw: Option<At<ContainerYaml>>) -> Result<Container, Error> {
    let Some(raw) = raw else {
        return Ok(Container::default());
    };
    raw.value
        .check()
        .map_err(|problems| at(raw.place, format!("container: {}", problems.join("; "))))
}
