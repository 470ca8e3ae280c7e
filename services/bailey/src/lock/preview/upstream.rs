//! What a lock would change of upstreams: where a key goes is the owner's to see before it goes there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bailey_config::upstream::{Authorities, Key};
use bailey_config::{Config, Upstream};
use bailey_types::{Sha256, UpstreamName};
use bailey_yaml::Span;
use serde::Serialize;

use super::{Change, or_none};
use crate::output::count;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct UpstreamChange {
    pub(super) change: Change,
    /// What it is, or what is different of it, one line each.
    pub(super) details: Vec<String>,
}

/// The upstreams that differ. A configuration that cannot be read has none.
pub(super) fn changes(
    before: Option<&Config>,
    after: Option<&Config>,
) -> BTreeMap<UpstreamName, UpstreamChange> {
    let names = before.into_iter().chain(after);
    let names: BTreeSet<_> = names.flat_map(|config| config.upstreams.keys()).collect();
    let of = |config: Option<&Config>, name: &UpstreamName| {
        config
            .and_then(|config| config.upstreams.get(name))
            .map(facts)
    };
    let changed = names.into_iter().filter_map(|name| {
        let (old, new) = (of(before, name), of(after, name));
        let change = Change::of(old.as_ref(), new.as_ref())?;
        let details = details(old, new);
        Some((name.clone(), UpstreamChange { change, details }))
    });
    changed.collect()
}

type Facts = [(&'static str, String); 10];

fn details(before: Option<Facts>, after: Option<Facts>) -> Vec<String> {
    match (before, after) {
        (_, None) => Vec::new(),
        (None, Some(new)) => new
            .map(|(name, value)| format!("{name} {value}"))
            .into_iter()
            .collect(),
        (Some(old), Some(new)) => {
            let pairs = old.into_iter().zip(new);
            let different = pairs.filter(|(old, new)| old != new);
            different
                .map(|((name, old), (_, new))| format!("{name} {old} -> {new}"))
                .collect()
        }
    }
}

/// Everything of an upstream, in the order in which it is shown.
fn facts(upstream: &Upstream) -> Facts {
    // A new field must be shown, or be what the others say.
    let Upstream {
        url,
        key,
        headers,
        address,
        // From URL and address.
        reach: _,
        ca,
        clients,
        timeout,
        max_concurrent,
        rate,
        check,
    } = upstream;
    // Fixed headers are no secrets: the configuration says so. Escaped, so that no two of them look alike.
    let headers = headers.iter().map(|(name, value)| {
        let value = value.as_bytes().escape_ascii();
        format!("{name}: \"{value}\"")
    });
    let clients = clients.iter().map(|client| client.service().to_string());
    let check = match check.as_str() {
        "" => "the URL itself".to_owned(),
        path => path.to_owned(),
    };
    [
        ("url", url.to_string()),
        ("key", carried(key.as_ref())),
        ("address", connected_to(*address)),
        ("vouched for by", authorities(ca.as_ref())),
        ("headers", or_none(&headers.collect::<Vec<_>>())),
        ("for", clients.collect::<Vec<_>>().join(" ")),
        ("rate", rate.to_string()),
        ("at once", max_concurrent.to_string()),
        ("timeout", Span(*timeout).to_string()),
        ("check", check),
    ]
}

fn carried(key: Option<&Key>) -> String {
    let Some(Key {
        secret,
        principal,
        header,
        scheme,
    }) = key
    else {
        return "none".to_owned();
    };
    let scheme = scheme.as_ref().map(|scheme| format!("{scheme} "));
    let scheme = scheme.unwrap_or_default();
    format!("{secret} for {principal}, as {header}: {scheme}…")
}

fn connected_to(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "as the name says".to_owned(), |it| it.to_string())
}

fn authorities(ca: Option<&Authorities>) -> String {
    let Some(ca) = ca else {
        return "the roots of the web".to_owned();
    };
    let certificates = ca.certificates();
    // Enough to tell that others stand there.
    let all: Vec<u8> = certificates
        .iter()
        .flat_map(|one| one.as_ref().iter().copied())
        .collect();
    let all = Sha256::of(&all).to_string();
    format!(
        "{} of its own ({})",
        count(certificates.len(), "certificate"),
        all.get(..16).unwrap_or(&all)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPSTREAM: &str =
        "upstreams:\n  model:\n    url: https://api.example.com/v1\n    secret_ref: model-key\n";

    fn config(upstreams: &str) -> Config {
        let text = format!("accounts: {{default: {{}}}}\n{upstreams}");
        bailey_config::parse(&BTreeMap::from([("config.yaml".to_owned(), text)])).unwrap()
    }

    fn shown(before: &str, after: &str) -> Vec<String> {
        let changes = changes(Some(&config(before)), Some(&config(after)));
        let changes = changes.into_values();
        changes
            .flat_map(|it| std::iter::once(it.change.mark().to_string()).chain(it.details))
            .collect()
    }

    #[test]
    fn a_new_upstream_is_shown_with_everything_and_a_removed_one_by_name() {
        let all = [
            "+",
            "url https://api.example.com/v1",
            "key model-key for model, as authorization: Bearer …",
            "address as the name says",
            "vouched for by the roots of the web",
            "headers none",
            "for engine worker",
            "rate 60/min",
            "at once 8",
            "timeout 2m",
            "check the URL itself",
        ];
        assert_eq!(shown("", UPSTREAM), all);
        assert_eq!(shown(UPSTREAM, ""), ["-"]);
        assert_eq!(shown(UPSTREAM, UPSTREAM), Vec::<String>::new());
    }

    #[test]
    fn whatever_changes_of_an_upstream_is_shown_with_what_it_was() {
        let with = |line: &str| format!("{UPSTREAM}    {line}\n");
        let cases = [
            (
                "header: x-api-key",
                "key model-key for model, as authorization: Bearer … -> model-key for model, as x-api-key: …",
            ),
            (
                "vault_principal: other",
                "key model-key for model, as authorization: Bearer … -> model-key for other, as authorization: Bearer …",
            ),
            ("address: 10.0.0.7", "address as the name says -> 10.0.0.7"),
            (
                "scheme: Token",
                "key model-key for model, as authorization: Bearer … -> model-key for model, as authorization: Token …",
            ),
            ("headers: {x-team: a}", "headers none -> x-team: \"a\""),
            ("clients: [worker]", "for engine worker -> worker"),
            ("rate: 5/min", "rate 60/min -> 5/min"),
            ("max_concurrent: 1", "at once 8 -> 1"),
            ("timeout: 30s", "timeout 2m -> 30s"),
            ("check: /models", "check the URL itself -> /models"),
        ];
        for (line, expected) in cases {
            assert_eq!(shown(UPSTREAM, &with(line)), ["~", expected], "{line}");
        }
        let elsewhere = UPSTREAM.replace("api.example.com", "evil.example.com");
        let moved = "url https://api.example.com/v1 -> https://evil.example.com/v1";
        assert_eq!(shown(UPSTREAM, &elsewhere), ["~", moved]);
        let other_key = UPSTREAM.replace("model-key", "bank-key");
        let moved = "key model-key for model, as authorization: Bearer … -> bank-key for model, as authorization: Bearer …";
        assert_eq!(shown(UPSTREAM, &other_key), ["~", moved]);
    }

    #[test]
    fn no_two_fixed_headers_look_alike() {
        let with = |headers: &str| format!("{UPSTREAM}    headers: {{{headers}}}\n");
        let one = with(r#"x-a: "1 x-b: 2""#);
        let two = with("x-a: '1', x-b: '2'");
        assert_eq!(
            shown(&one, &two),
            ["~", r#"headers x-a: "1 x-b: 2" -> x-a: "1" x-b: "2""#]
        );
        let quoted = with(r#"x-a: '1" x-b: "2'"#);
        assert_eq!(
            shown(&quoted, &two),
            ["~", r#"headers x-a: "1\" x-b: \"2" -> x-a: "1" x-b: "2""#]
        );
    }

    #[test]
    fn another_authority_is_shown_though_there_are_as_many() {
        let with = || {
            let made = rcgen::generate_simple_self_signed(["bell.example".to_owned()]).unwrap();
            let pem = made.cert.pem().replace('\n', "\n      ");
            let hash = Sha256::of(made.cert.der()).to_string();
            let hash = hash.get(..16).unwrap().to_owned();
            (format!("{UPSTREAM}    ca: |\n      {pem}\n"), hash)
        };
        let ((one, first), (other, second)) = (with(), with());
        let own = |hash: &str| format!("1 certificate of its own ({hash})");
        assert_eq!(
            shown(UPSTREAM, &one),
            [
                "~".to_owned(),
                format!("vouched for by the roots of the web -> {}", own(&first))
            ]
        );
        assert_eq!(
            shown(&one, &other),
            [
                "~".to_owned(),
                format!("vouched for by {} -> {}", own(&first), own(&second))
            ]
        );
    }
}
