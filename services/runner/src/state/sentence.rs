//! What a measure means, for people.

use bailey_cell::usage::{MAX_DEPTH, Usage};
use bailey_trust::StateLimit;
use bailey_types::PluginName;

/// Why no cell of the plugin may run; `None` where it may.
pub(super) fn of(plugin: &PluginName, limit: StateLimit, usage: Usage) -> Option<String> {
    let allowed = size(limit.total_bytes);
    let what = match usage {
        Usage::Within(_) => return None,
        Usage::Disk => {
            return Some(format!(
                "the disk with the state of {plugin} is nearly full, and much of it went while {plugin} ran, to no file that can be seen: its cells were ended"
            ));
        }
        Usage::Bytes(excess) => {
            let least = size(excess.least_bytes(limit.total_bytes));
            format!("state of {plugin} holds {least} or more; its limit is {allowed}")
        }
        Usage::Files => format!(
            "state of {plugin} holds more files, folders and links than its limit, {}",
            limit.files
        ),
        Usage::Unreadable => format!(
            "state of {plugin} cannot be measured, which counts as too much: it has a folder that {plugin} itself cannot open"
        ),
        Usage::Deep => format!(
            "state of {plugin} cannot be measured, which counts as too much: its folders lie more than {MAX_DEPTH} deep"
        ),
        Usage::Slow => format!(
            "state of {plugin} cannot be measured, which counts as too much: the disk takes too long to count its files"
        ),
    };
    Some(format!(
        "{what}: {plugin} does not run until `container.state_limit` allows it and is locked, or its state is left behind with `bailey plugin lock {plugin} --reset-state {plugin}`"
    ))
}

/// As people write it: `1 GiB`, `1.2 GiB`.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    let unit = UNITS.iter().find(|(_, unit)| bytes >= *unit);
    let Some((name, unit)) = unit else {
        return format!("{bytes} bytes");
    };
    let tenths = (u128::from(bytes) * 10 + u128::from(*unit) / 2) / u128::from(*unit);
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole} {name}"),
        (whole, tenth) => format!("{whole}.{tenth} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use bailey_cell::usage::{Excess, Percent};

    use super::*;

    #[test]
    fn sizes_are_as_people_write_them() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1 << 10, "1 KiB"),
            (1 << 30, "1 GiB"),
            ((1 << 30) * 12 / 10 + 1, "1.2 GiB"),
            (5 << 40, "5 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn what_is_too_much_is_said_with_what_to_do() {
        let (plugin, limit) = ("notes".parse().unwrap(), StateLimit::default());
        let said = |usage| of(&plugin, limit, usage);
        assert_eq!(said(Usage::Within(Percent::of(1, 1))), None);
        let bytes = Usage::Bytes(Excess::of(limit.total_bytes * 13 / 10, limit.total_bytes));
        let bytes = said(bytes).unwrap();
        assert!(
            bytes.starts_with("state of notes holds 1.3 GiB or more; its limit is 1 GiB: "),
            "{bytes}"
        );
        for usage in [Usage::Files, Usage::Unreadable, Usage::Deep, Usage::Slow] {
            let said = said(usage).unwrap();
            assert!(
                said.contains("bailey plugin lock notes --reset-state notes"),
                "{said}"
            );
        }
    }
}
