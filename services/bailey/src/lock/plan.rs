//! What is proposed: for each enabled plugin what it is, and what the configuration makes of it.

use std::collections::BTreeMap;

use anyhow::Context as _;
use bailey_config::{Config, PluginConfig};
use bailey_plugin::discovery::{self, Discovery, Found};
use bailey_plugin::tree::Tree;
use bailey_plugin::{Limits, Manifest};
use bailey_trust::{Lock, LockProposal, MAX_SERVICES, ProposedPlugin};
use bailey_types::PluginName;

use super::derived::{Derived, Sources, Terms};
use super::seal::{Sealed, Sealer, Wanted};
use crate::Misconfigured;
use crate::readable;

/// Everything: the configuration of `files`, every enabled plugin from its folder.
pub(super) async fn all(
    files: BTreeMap<String, String>,
    present: Option<&Lock>,
    terms: &Terms,
    sealer: &mut Sealer,
) -> anyhow::Result<LockProposal> {
    let config = bailey_config::parse(&files)?;
    let discovery = discover(&config)?;
    let (mut chosen, mut problems) = (Vec::new(), Vec::new());
    for (name, plugin) in config.enabled_plugins() {
        let Some(found) = find(&discovery, name, plugin) else {
            problems.push(not_found(&config, name, plugin, &discovery));
            continue;
        };
        let sources = Sources {
            config: &config,
            name,
            plugin,
            manifest: &found.manifest,
            terms,
        };
        let derived = check(sources, &mut problems);
        chosen.push((sources, found, derived));
    }
    problems.extend(unknown_resets(terms, &config));
    let services = chosen
        .iter()
        .filter(|(_, _, derived)| derived.walls.service.is_some());
    problems.extend(too_many_services(services.count()));
    fail_with(&problems)?;
    let mut plugins = BTreeMap::new();
    for (sources, found, derived) in chosen {
        let name = sources.name;
        let proposed = propose((sources, derived), found, present, &plugins, sealer).await;
        plugins.insert(
            name.clone(),
            proposed.with_context(|| format!("sealing {name}"))?,
        );
    }
    Ok(LockProposal {
        config_files: files,
        plugins,
    })
}

/// One plugin from its folder; everything else as it is locked.
pub(super) async fn one(
    name: &PluginName,
    present: &Lock,
    terms: &Terms,
    sealer: &mut Sealer,
) -> anyhow::Result<LockProposal> {
    let config =
        bailey_config::parse(&present.config_files).context("reading the locked configuration")?;
    let plugin = config.enabled_plugin(name).ok_or_else(|| {
        Misconfigured(format!("{name} is not enabled in the locked configuration; `bailey plugin lock --all` locks configuration and plugins"))
    })?;
    let discovery = discover(&config)?;
    let found = find(&discovery, name, plugin)
        .ok_or_else(|| Misconfigured(not_found(&config, name, plugin, &discovery)))?;
    let sources = Sources {
        config: &config,
        name,
        plugin,
        manifest: &found.manifest,
        terms,
    };
    let mut problems = Vec::new();
    let derived = check(sources, &mut problems);
    for other in terms.reset_state.iter().filter(|other| *other != name) {
        problems.push(format!("--reset-state {other}: only {name} is locked here"));
    }
    fail_with(&problems)?;
    let mut plugins: BTreeMap<_, _> = present
        .plugins
        .iter()
        .map(|(name, locked)| (name.clone(), locked.proposed.clone()))
        .collect();
    let done = BTreeMap::new();
    let proposed = propose((sources, derived), found, Some(present), &done, sealer).await;
    plugins.insert(
        name.clone(),
        proposed.with_context(|| format!("sealing {name}"))?,
    );
    Ok(LockProposal {
        config_files: present.config_files.clone(),
        plugins,
    })
}

/// The configuration of `files`; the plugins as they were sealed.
pub(super) fn config_only(
    files: BTreeMap<String, String>,
    present: &Lock,
    terms: &Terms,
) -> anyhow::Result<LockProposal> {
    let config = bailey_config::parse(&files)?;
    let (mut plugins, mut problems) = (BTreeMap::new(), Vec::new());
    for (name, plugin) in config.enabled_plugins() {
        let wanted = plugin.uses.as_ref().unwrap_or(name);
        let same = |locked: &&ProposedPlugin| locked.manifest.name == *wanted;
        // Its own seal, or for a new alias that of any plugin with the same files.
        let own = present
            .plugins
            .get(name)
            .map(|locked| &locked.proposed)
            .filter(same);
        let sealed = own.or_else(|| {
            present
                .plugins
                .values()
                .map(|locked| &locked.proposed)
                .find(same)
        });
        let Some(sealed) = sealed else {
            problems.push(format!(
                "{name} was never sealed; run `bailey plugin lock --all`"
            ));
            continue;
        };
        let sources = Sources {
            config: &config,
            name,
            plugin,
            manifest: &sealed.manifest,
            terms,
        };
        let derived = check(sources, &mut problems);
        if derived.entrypoint != sealed.entrypoint
            || image_of(plugin) != image_of_locked(present, name)
        {
            problems.push(format!("{name} has another image or entrypoint, so it must be sealed again; run `bailey plugin lock --all`"));
        }
        plugins.insert(name.clone(), derived.apply(sealed.clone(), plugin));
    }
    fail_with(&problems)?;
    Ok(LockProposal {
        config_files: files,
        plugins,
    })
}

fn image_of(plugin: &PluginConfig) -> Option<String> {
    plugin.container.image.clone()
}

fn image_of_locked(present: &Lock, name: &PluginName) -> Option<String> {
    let config = bailey_config::parse(&present.config_files).ok()?;
    config.plugins.get(name).and_then(image_of)
}

fn discover(config: &Config) -> anyhow::Result<Discovery> {
    if config.plugin_roots.is_empty() {
        return Err(
            Misconfigured("plugin_roots is empty: no plugin can be found".to_owned()).into(),
        );
    }
    let discovery = discovery::discover(&config.plugin_roots)
        .map_err(|e| Misconfigured(format!("{:#}", anyhow::Error::from(e))))?;
    for warning in &discovery.warnings {
        eprintln!("! {}", crate::output::plain(warning));
    }
    Ok(discovery)
}

fn find<'a>(
    discovery: &'a Discovery,
    name: &PluginName,
    plugin: &PluginConfig,
) -> Option<&'a Found> {
    discovery.plugins.get(plugin.uses.as_ref().unwrap_or(name))
}

fn not_found(
    config: &Config,
    name: &PluginName,
    plugin: &PluginConfig,
    discovery: &Discovery,
) -> String {
    let roots: Vec<_> = config
        .plugin_roots
        .iter()
        .map(|root| root.display().to_string())
        .collect();
    let wanted = plugin.uses.as_ref().unwrap_or(name);
    let closed = discovery.unreadable.iter();
    let closed: Vec<_> = closed.map(|dir| readable::opened(dir)).collect();
    let closed = if closed.is_empty() {
        String::new()
    } else {
        format!(
            "; what only its owner can read may be it: {}",
            closed.join(", ")
        )
    };
    format!(
        "{name} is enabled, but no folder below {} holds a plugin {wanted}{closed}",
        roots.join(", ")
    )
}

/// Each holds a cell for good, so there is an end to them.
fn too_many_services(services: usize) -> Option<String> {
    (services > MAX_SERVICES)
        .then(|| format!("{services} plugins have `mode: service`; at most {MAX_SERVICES} may"))
}

fn unknown_resets(terms: &Terms, config: &Config) -> Vec<String> {
    let names = terms.reset_state.iter();
    names
        .filter(|name| config.enabled_plugin(name).is_none())
        .map(|name| format!("--reset-state {name}: no such plugin is enabled"))
        .collect()
}

/// What the configuration makes of a plugin. Beside it: what it asks that the manifest does not have, and what else stands against locking.
fn check(sources: Sources<'_>, problems: &mut Vec<String>) -> Derived {
    let Sources {
        config,
        name,
        plugin,
        manifest,
        ..
    } = sources;
    let (derived, found) = Derived::of(sources);
    problems.extend(found);
    for key in manifest
        .config_keys
        .required
        .iter()
        .filter(|key| !plugin.config.contains_key(key.as_str()))
    {
        problems.push(format!(
            "{name} needs the key {key} under plugins.{name}.config"
        ));
    }
    for schedule in plugin
        .schedules
        .iter()
        .filter(|schedule| manifest.command(&schedule.command).is_none())
    {
        problems.push(format!(
            "the schedule {} of {name} calls {}, which is not a command of it",
            schedule.id, schedule.command
        ));
    }
    let handles = manifest
        .commands
        .iter()
        .any(|command| command.name.as_str() == "handle");
    for pipeline in &config.pipelines {
        if !handles && pipeline.steps.iter().any(|step| step.uses == *name) {
            problems.push(format!(
                "the pipeline {} uses {name}, which has no command handle",
                pipeline.name
            ));
        }
    }
    derived
}

fn fail_with(problems: &[String]) -> anyhow::Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    // Several plugins of one account have the same trouble with it.
    let mut lines: Vec<&str> = Vec::new();
    for problem in problems {
        if !lines.contains(&problem.as_str()) {
            lines.push(problem);
        }
    }
    Err(Misconfigured(lines.join("\n")).into())
}

async fn propose(
    (sources, derived): (Sources<'_>, Derived),
    found: &Found,
    present: Option<&Lock>,
    done: &BTreeMap<PluginName, ProposedPlugin>,
    sealer: &mut Sealer,
) -> anyhow::Result<ProposedPlugin> {
    let (name, plugin) = (sources.name, sources.plugin);
    let tree = readable::tree(&found.dir)?;
    tree.check_entrypoint(&found.manifest)?;
    let reference = base_reference(plugin, &found.manifest, &tree)?;
    let base = sealer.image(&reference).await?.ok_or_else(|| {
        Misconfigured(format!("the base image {reference} does not exist; `make up` makes ours, others must be loaded into the engine"))
    })?;
    let same = |sealed: &&ProposedPlugin| {
        sealed.tree_blake3 == tree.blake3
            && sealed.base == Some(base)
            && sealed.entrypoint == derived.entrypoint
            && sealed.manifest == found.manifest
    };
    // What is sealed already stays sealed: a new image would have another id, and the preview a difference that is none.
    let before = present
        .and_then(|lock| lock.plugins.get(name))
        .map(|locked| &locked.proposed);
    let alike = done.values().chain(before).find(same).map(|sealed| Sealed {
        image: sealed.image,
        tar_sha256: sealed.tar_sha256,
    });
    let image = match alike {
        Some(Sealed { image, .. }) => sealer.image(&image.to_string()).await?,
        None => None,
    };
    let result = if let (Some(kept), Some(_)) = (alike, image) {
        kept
    } else {
        eprintln!("sealing {name}");
        let wanted = Wanted {
            plugin: &found.manifest.name,
            base,
            entrypoint: &derived.entrypoint,
            tree: &tree,
        };
        sealer.seal(&wanted).await?
    };
    let proposed = ProposedPlugin {
        manifest: found.manifest.clone(),
        manifest_blake3: found.manifest_blake3,
        tree_blake3: tree.blake3,
        files: tree
            .files
            .iter()
            .map(|(path, file)| (path.clone(), file.blake3))
            .collect(),
        base: Some(base),
        tar_sha256: result.tar_sha256,
        image: result.image,
        entrypoint: Vec::new(),
        source: found.dir.display().to_string(),
        account: plugin.run_as.clone(),
        limits: Limits::default(),
        state: bailey_plugin::StateKind::None,
        egress: Vec::new(),
        host_paths: Vec::new(),
        walls: bailey_trust::Walls::default(),
        reset_state: false,
    };
    Ok(derived.apply(proposed, plugin))
}

/// The base image: as the configuration says, or the manifest, or as the entrypoint suggests.
fn base_reference(
    plugin: &PluginConfig,
    manifest: &Manifest,
    tree: &Tree,
) -> anyhow::Result<String> {
    let named = plugin
        .container
        .image
        .clone()
        .or_else(|| manifest.container.image.clone());
    let name = match named {
        Some(name) => name,
        None => tree.suggested_image(manifest)?.map(str::to_owned).ok_or_else(|| {
            let entrypoint = &manifest.entrypoint;
            Misconfigured(format!("{entrypoint} does not tell what runs it; write `container: {{image: none}}` (python, tools) into the manifest or the configuration"))
        })?,
    };
    Ok(match name.as_str() {
        "none" | "python" | "tools" => format!("bailey/base-{name}:current"),
        _ => name,
    })
}

#[cfg(test)]
mod tests;
