//! From texts to one checked configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use bailey_types::{PipelineName, PluginName, UpstreamName};
use bailey_yaml::{At, Place};

use crate::error::{Error, Errors, Report};
use crate::files::ROOT;
use crate::plugin::{Known, PluginConfig};
use crate::upstream::{self, Upstream};
use crate::{Config, account, pipeline, plugin, raw, service, unsupported};

pub(crate) fn parse_file(name: &str, text: &str) -> Result<raw::File, Error> {
    // A file of comments only is an empty mapping.
    let parsed = bailey_yaml::parse::<Option<raw::File>>(text);
    parsed.map(Option::unwrap_or_default).map_err(|e| {
        let advice = e.unknown_key.as_ref().and_then(unsupported::advice);
        let message = advice.map_or(e.message, str::to_owned);
        Error {
            file: name.to_owned(),
            place: Some(e.place),
            message,
        }
    })
}

/// Why a file cannot be included by this name, if it cannot.
pub(crate) fn include_problem(name: &str) -> Option<&'static str> {
    let plain = Path::new(name)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !plain || name.ends_with('/') || name.contains("//") || name.contains('\0') {
        return Some("include names files below config/, without '.' and '..'");
    }
    let yaml = Path::new(name)
        .extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml");
    (!yaml)
        .then_some("include names files that end in .yaml or .yml; folders are not supported yet")
}

pub(crate) fn assemble(texts: &BTreeMap<String, String>) -> Result<Config, Errors> {
    let mut errors = Vec::new();
    let files = in_order(texts, &mut errors);
    if !errors.is_empty() {
        // What a broken file would have defined is missing: every further error could be a consequence.
        return Err(Errors(errors));
    }
    let config = Assembly::default().add_all(files, &mut errors);
    errors.sort();
    if errors.is_empty() {
        Ok(config)
    } else {
        Err(Errors(errors))
    }
}

/// The files, parsed, each before those that it includes.
fn in_order<'a>(
    texts: &'a BTreeMap<String, String>,
    errors: &mut Vec<Error>,
) -> Vec<(&'a str, raw::File)> {
    let whole = |file: &str, message: &str| Error {
        file: file.to_owned(),
        place: None,
        message: message.to_owned(),
    };
    let Some((root, _)) = texts.get_key_value(ROOT) else {
        errors.push(whole(ROOT, "is missing"));
        return Vec::new();
    };
    let (mut files, mut wanted, mut seen) =
        (Vec::new(), vec![root.as_str()], BTreeSet::from([ROOT]));
    while let Some(name) = wanted.pop() {
        let Some(text) = texts.get(name) else {
            continue;
        };
        let mut file = match parse_file(name, text) {
            Ok(file) => file,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let mut next = Vec::new();
        let mut report = Report { file: name, errors };
        for include in std::mem::take(&mut file.include) {
            match (
                include_problem(&include.value),
                texts.get_key_value(&include.value),
            ) {
                (Some(problem), _) => report.push(include.place, problem),
                (None, None) => {
                    report.push(include.place, format!("{} does not exist", include.value));
                }
                (None, Some((name, _))) if seen.insert(name) => next.push(name.as_str()),
                (None, Some(_)) => report.push(
                    include.place,
                    format!("{} is included twice", include.value),
                ),
            }
        }
        wanted.extend(next.into_iter().rev());
        files.push((name, file));
    }
    if errors.is_empty()
        && let Some(extra) = texts.keys().find(|name| !seen.contains(name.as_str()))
    {
        errors.push(whole(extra, "is not included by any file"));
    }
    files
}

#[derive(Default)]
struct Assembly<'a> {
    service: Option<(&'a str, At<raw::Service>)>,
    api: Option<(&'a str, At<raw::Api>)>,
    accounts: Vec<(&'a str, At<bailey_types::AccountName>, raw::Account)>,
    plugins: Vec<(&'a str, At<PluginName>, raw::Plugin)>,
    pipelines: Vec<(&'a str, raw::Pipeline)>,
    upstreams: Vec<(&'a str, At<UpstreamName>, raw::Upstream)>,
    plugin_roots: Vec<(&'a str, At<PathBuf>)>,
}

impl<'a> Assembly<'a> {
    fn add_all(mut self, files: Vec<(&'a str, raw::File)>, errors: &mut Vec<Error>) -> Config {
        for (file, raw) in files {
            let mut report = Report { file, errors };
            only_one(&mut self.service, file, raw.service, "service", &mut report);
            only_one(&mut self.api, file, raw.api, "api", &mut report);
            self.accounts.extend(
                raw.accounts
                    .0
                    .into_iter()
                    .map(|(name, account)| (file, name, account)),
            );
            self.plugins.extend(
                raw.plugins
                    .0
                    .into_iter()
                    .map(|(name, plugin)| (file, name, plugin.unwrap_or_default())),
            );
            self.pipelines
                .extend(raw.pipelines.into_iter().map(|pipeline| (file, pipeline)));
            self.upstreams.extend(
                raw.upstreams
                    .0
                    .into_iter()
                    .map(|(name, upstream)| (file, name, upstream)),
            );
            self.plugin_roots
                .extend(raw.plugin_roots.into_iter().map(|root| (file, root)));
        }
        self.check(errors)
    }

    fn check(self, errors: &mut Vec<Error>) -> Config {
        let (file, raw) = self.service.map_or_else(
            || (ROOT, raw::Service::default()),
            |(file, at)| (file, at.value),
        );
        let service = service::service(raw, &mut Report { file, errors });
        let (file, raw) = self.api.map_or_else(
            || (ROOT, raw::Api::default()),
            |(file, at)| (file, at.value),
        );
        let api = service::api(raw, &mut Report { file, errors });
        let (mut accounts, mut written) = (BTreeMap::new(), Vec::new());
        for (file, name, raw) in self.accounts {
            let mut report = Report { file, errors };
            written.extend(account::written(file, &name.value, &raw));
            let account = account::account(&name, raw, &mut report);
            insert(&mut accounts, name, account, "account", &mut report);
        }
        account::check_conflicts(&written, errors);
        let known = Known {
            accounts: &accounts,
            max_workers: service.max_workers,
            unconfined: service.unconfined,
        };
        let plugins = plugins(self.plugins, &known, errors);
        let pipelines = pipelines(self.pipelines, &plugins, errors);
        let upstreams = upstreams(self.upstreams, errors);
        let plugin_roots = plugin_roots(self.plugin_roots, errors);
        Config {
            service,
            accounts,
            plugin_roots,
            plugins,
            pipelines,
            upstreams,
            api,
        }
    }
}

fn only_one<'a, T>(
    kept: &mut Option<(&'a str, At<T>)>,
    file: &'a str,
    given: Option<At<T>>,
    what: &str,
    report: &mut Report<'_>,
) {
    match (given, &kept) {
        (Some(given), Some((other, _))) => {
            report.push(given.place, format!("{what} already stands in {other}"));
        }
        (Some(given), None) => *kept = Some((file, given)),
        (None, _) => {}
    }
}

fn insert<K: Ord + std::fmt::Display, V>(
    map: &mut BTreeMap<K, V>,
    name: At<K>,
    value: V,
    what: &str,
    report: &mut Report<'_>,
) {
    if map.contains_key(&name.value) {
        report.push(
            name.place,
            format!("the {what} {} is defined twice", name.value),
        );
        return;
    }
    map.insert(name.value, value);
}

fn plugins(
    raw: Vec<(&str, At<PluginName>, raw::Plugin)>,
    known: &Known<'_>,
    errors: &mut Vec<Error>,
) -> BTreeMap<PluginName, PluginConfig> {
    let mut plugins: BTreeMap<PluginName, PluginConfig> = BTreeMap::new();
    let mut aliases: Vec<(&str, Place, PluginName, PluginName)> = Vec::new();
    for (file, name, raw) in raw {
        let mut report = Report { file, errors };
        if let Some(uses) = &raw.uses {
            aliases.push((file, uses.place, name.value.clone(), uses.value.clone()));
        }
        if let Some(plugin) = plugin::plugin(&name, raw, known, &mut report) {
            insert(&mut plugins, name, plugin, "plugin", &mut report);
        }
    }
    for (file, place, name, uses) in aliases {
        let mut report = Report { file, errors };
        if name == uses {
            report.push(place, format!("{name} uses itself"));
        } else if plugins.get(&uses).is_some_and(|base| base.uses.is_some()) {
            report.push(
                place,
                format!("{name} uses {uses}, which is an alias itself"),
            );
        }
    }
    plugins
}

fn pipelines(
    raw: Vec<(&str, raw::Pipeline)>,
    plugins: &BTreeMap<PluginName, PluginConfig>,
    errors: &mut Vec<Error>,
) -> Vec<pipeline::Pipeline> {
    let mut names: BTreeSet<PipelineName> = BTreeSet::new();
    let mut pipelines = Vec::new();
    for (file, raw) in raw {
        let mut report = Report { file, errors };
        if !names.insert(raw.name.value.clone()) {
            report.push(
                raw.name.place,
                format!("the pipeline {} is defined twice", raw.name.value),
            );
        }
        pipelines.extend(pipeline::pipeline(raw, plugins, &mut report));
    }
    pipelines
}

fn upstreams(
    raw: Vec<(&str, At<UpstreamName>, raw::Upstream)>,
    errors: &mut Vec<Error>,
) -> BTreeMap<UpstreamName, Upstream> {
    let places: Vec<_> = raw
        .iter()
        .map(|(file, name, _)| (*file, name.place))
        .collect();
    upstream::check_count(&places, errors);
    let mut upstreams = BTreeMap::new();
    for (file, name, raw) in raw {
        let mut report = Report { file, errors };
        if let Some(upstream) = upstream::upstream(&name, raw, &mut report) {
            insert(&mut upstreams, name, upstream, "upstream", &mut report);
        }
    }
    upstreams
}

fn plugin_roots(raw: Vec<(&str, At<PathBuf>)>, errors: &mut Vec<Error>) -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = Vec::new();
    for (file, root) in raw {
        let mut report = Report { file, errors };
        let plain = root
            .value
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::RootDir));
        if !root.value.is_absolute() || !plain {
            report.push(
                root.place,
                "a plugin root must be an absolute path without '..'",
            );
        } else if roots.contains(&root.value) {
            report.push(
                root.place,
                format!("the plugin root {} is listed twice", root.value.display()),
            );
        }
        roots.push(root.value);
    }
    roots
}
