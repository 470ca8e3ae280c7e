//! As much of Tailscale's policy language as our policy uses; anything else in the file is an error.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

/// The policy file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Policy {
    groups: BTreeMap<String, Vec<String>>,
    tag_owners: BTreeMap<String, Vec<String>>,
    /// All of them add up; none takes away.
    pub grants: Vec<Grant>,
    /// What Tailscale checks when it is saved.
    pub tests: Vec<Test>,
}

/// One rule.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    src: Vec<String>,
    /// Destinations, without ports.
    pub dst: Vec<String>,
    /// `*`, `443`, `tcp:443`, `tcp:80-90`.
    pub ip: Vec<String>,
}

/// One test.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    src: String,
    /// `destination:port` that must be reachable.
    #[serde(default)]
    pub accept: Vec<String>,
    /// `destination:port` that must not.
    #[serde(default)]
    pub deny: Vec<String>,
}

impl Policy {
    /// Reads a HuJSON file.
    pub fn read(path: &Path) -> Self {
        let policy: Self =
            serde_json::from_str(&json(&std::fs::read_to_string(path).unwrap())).unwrap();
        let tags = policy
            .grants
            .iter()
            .flat_map(|grant| &grant.dst)
            .filter(|name| name.starts_with("tag:"));
        for tag in tags {
            assert!(policy.tag_owners.contains_key(tag), "nobody owns {tag}");
        }
        policy
    }

    /// Whether TCP from `source` to `port` of `destination` is let through.
    pub fn allows(&self, source: &str, destination: &str, port: u16) -> bool {
        self.grants.iter().any(|grant| {
            grant.src.iter().any(|name| self.covers(name, source))
                && grant.dst.iter().any(|name| self.covers(name, destination))
                && grant.ip.iter().any(|range| covers_port(range, port))
        })
    }

    /// Every test that does not come out as it says.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for test in &self.tests {
            let wanted = test
                .accept
                .iter()
                .map(|to| (to, true))
                .chain(test.deny.iter().map(|to| (to, false)));
            for (to, wanted) in wanted {
                let (destination, port) = to.rsplit_once(':').unwrap();
                if self.allows(&test.src, destination, port.parse().unwrap()) != wanted {
                    let (must, does) = if wanted {
                        ("must", "does not")
                    } else {
                        ("must not", "does")
                    };
                    failures.push(format!("{} {must} reach {to} and {does}", test.src));
                }
            }
        }
        failures
    }

    fn covers(&self, name: &str, who: &str) -> bool {
        if name.starts_with("group:") {
            return self.groups[name].iter().any(|member| member == who);
        }
        assert!(!name.starts_with("autogroup:"), "{name} is not known here");
        name == "*" || name == who
    }
}

fn covers_port(range: &str, port: u16) -> bool {
    if range == "*" {
        return true;
    }
    let ports = match range.split_once(':') {
        Some(("tcp", ports)) => ports,
        Some(_) => return false,
        None => range,
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    ports == "*" || (first.parse().unwrap()..=last.parse::<u16>().unwrap()).contains(&port)
}

/// HuJSON is JSON with comments and commas after the last element.
fn json(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    let (mut in_string, mut comma) = (false, false);
    while let Some(char) = chars.next() {
        if in_string {
            out.push(char);
            match char {
                '\\' => out.extend(chars.next()),
                '"' => in_string = false,
                _ => {}
            }
            continue;
        }
        if char == '/' && chars.peek() == Some(&'/') {
            chars.by_ref().take_while(|c| *c != '\n').for_each(drop);
            continue;
        }
        if char.is_whitespace() {
            out.push(char);
            continue;
        }
        // A comma counts only once it is known that something follows.
        if comma && char != '}' && char != ']' {
            out.push(',');
        }
        comma = char == ',';
        in_string = char == '"';
        if !comma {
            out.push(char);
        }
    }
    out
}
