//! Durations, sizes and shares of processors as people write them.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not the wanted quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}: {rule}")]
pub struct BadQuantity {
    what: &'static str,
    text: String,
    rule: &'static str,
}

impl BadQuantity {
    fn new(what: &'static str, text: &str, rule: &'static str) -> Self {
        Self {
            what,
            text: text.chars().take(80).collect(),
            rule,
        }
    }
}

/// A span of time: a Go duration (`1h30m`, `250ms`, `1.5s`), or `Nd`, `Nw`; `0` alone needs no unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

const SPAN_RULE: &str = "write it like 250ms, 30s, 1h30m, 7d or 2w";

impl FromStr for Span {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let bad = || BadQuantity::new("duration", text, SPAN_RULE);
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let (mut rest, mut total) = (text, Duration::ZERO);
        while !rest.is_empty() {
            let (number, after) = split_number(rest).ok_or_else(bad)?;
            let unit_len = after
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(after.len());
            let (unit, next) = after.split_at(unit_len);
            let nanos = decimal(number, unit_nanos(unit).ok_or_else(bad)?).ok_or_else(bad)?;
            let part = Duration::from_nanos(u64::try_from(nanos).map_err(|_| bad())?);
            total = total.checked_add(part).ok_or_else(bad)?;
            rest = next;
        }
        if text.is_empty() {
            Err(bad())
        } else {
            Ok(Self(total))
        }
    }
}

impl fmt::Display for Span {
    /// The shortest text of whole units that reads back as the same span.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0s");
        }
        for unit in ["d", "h", "m", "s", "ms", "us", "ns"] {
            let nanos = unit_nanos(unit).unwrap_or(1);
            if rest >= nanos {
                write!(f, "{}{unit}", rest / nanos)?;
                rest %= nanos;
            }
        }
        Ok(())
    }
}

fn unit_nanos(unit: &str) -> Option<u128> {
    const SECOND: u128 = 1_000_000_000;
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3600 * SECOND,
        "d" => 86_400 * SECOND,
        "w" => 7 * 86_400 * SECOND,
        _ => return None,
    })
}

/// A size in bytes: a number alone, or with `kB MB GB` (powers of 1000) or `KiB MiB GiB` (powers of 1024); `B` may follow a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const SIZE_RULE: &str = "write it in bytes or like 64MiB, 1MB, 512KiB";

impl FromStr for Size {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let bad = || BadQuantity::new("size", text, SIZE_RULE);
        let (number, unit) = split_number(text).ok_or_else(bad)?;
        let unit: u128 = match unit.trim_start() {
            "" | "B" => 1,
            "kB" | "KB" => 1000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(bad()),
        };
        let bytes = decimal(number, unit).ok_or_else(bad)?;
        Ok(Self(u64::try_from(bytes).map_err(|_| bad())?))
    }
}

/// Processor time in thousandths of a core, written as a number of cores: `2`, `0.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpus(pub u32);

const CPUS_RULE: &str = "write it in cores, like 2 or 0.5; at most three decimals";

impl FromStr for Cpus {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let bad = || BadQuantity::new("number of cores", text, CPUS_RULE);
        let (number, "") = split_number(text).ok_or_else(bad)? else {
            return Err(bad());
        };
        let milli = decimal(number, 1000).ok_or_else(bad)?;
        Ok(Self(u32::try_from(milli).map_err(|_| bad())?))
    }
}

/// How often something may be done: so many times in a second, a minute or an hour, as `60/min`. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: NonZeroU32,
    per: Per,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Per {
    Second,
    Minute,
    Hour,
}

const RATE_RULE: &str = "write it like 60/min, 2/s or 100/h";

impl Rate {
    /// `count` times a minute, at least once.
    pub const fn per_minute(count: u32) -> Self {
        let count = match NonZeroU32::new(count) {
            Some(count) => count,
            None => NonZeroU32::MIN,
        };
        Self {
            count,
            per: Per::Minute,
        }
    }

    /// How many times at once.
    pub const fn count(self) -> NonZeroU32 {
        self.count
    }

    /// How long each of them takes to come back.
    pub fn each(self) -> Duration {
        let per = match self.per {
            Per::Second => Duration::from_secs(1),
            Per::Minute => Duration::from_mins(1),
            Per::Hour => Duration::from_hours(1),
        };
        per / self.count.get()
    }
}

impl FromStr for Rate {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let bad = || BadQuantity::new("rate", text, RATE_RULE);
        let (count, per) = text.split_once('/').ok_or_else(bad)?;
        let per = match per {
            "s" => Per::Second,
            "min" => Per::Minute,
            "h" => Per::Hour,
            _ => return Err(bad()),
        };
        let digits = count.bytes().all(|b| b.is_ascii_digit());
        let count = count.parse().ok().filter(|_| digits);
        let count = count.ok_or_else(bad)?;
        Ok(Self { count, per })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = match self.per {
            Per::Second => "s",
            Per::Minute => "min",
            Per::Hour => "h",
        };
        write!(f, "{}/{per}", self.count)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The digits (with at most one point) at the start, and what follows; `None` if there are none.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let len = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    (len > 0).then(|| text.split_at(len))
}

/// `number` × `unit`; `None` if it is no decimal number, too large, or not a whole number of the base unit.
fn decimal(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty()
        || fraction.contains('.')
        || fraction.len() > 12
        || whole.len() > 19
    {
        return None;
    }
    let digits = |text: &str| {
        if text.is_empty() {
            Some(0)
        } else {
            text.parse::<u128>().ok()
        }
    };
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = digits(fraction)?.checked_mul(unit)?;
    let whole = digits(whole)?.checked_mul(unit)?;
    (part % scale == 0).then(|| whole + part / scale)
}

macro_rules! from_yaml {
    ($type:ident) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer
                    .deserialize_any(Scalar)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }
    };
}

from_yaml!(Span);
from_yaml!(Size);
from_yaml!(Cpus);
from_yaml!(Rate);

/// A scalar as text: `4096`, `0.5` and `"64MiB"` alike.
struct Scalar;

impl Visitor<'_> for Scalar {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a quantity such as 30s or 64MiB")
    }

    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_u64<E>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_i64<E>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_f64<E>(self, number: f64) -> Result<String, E> {
        Ok(number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_go_durations_with_days_and_weeks() {
        let millis = |text: &str| text.parse::<Span>().unwrap().0.as_millis();
        assert_eq!(millis("250ms"), 250);
        assert_eq!(millis("1.5s"), 1500);
        assert_eq!(millis("1h30m"), 5_400_000);
        assert_eq!(millis("30d"), 30 * 86_400_000);
        assert_eq!(millis("0.5w"), 302_400_000);
        assert_eq!(millis("0"), 0);
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "1x",
            "1 s",
            "1s ",
            "1..5s",
            ".s",
            "99999999999999999999w",
            "1e3s",
        ] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_are_so_often_in_a_second_a_minute_or_an_hour() {
        for (text, count, each_ms) in [("60/min", 60, 1000), ("2/s", 2, 500), ("1/h", 1, 3_600_000)]
        {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.count().get(), count, "{text}");
            assert_eq!(rate.each().as_millis(), each_ms, "{text}");
            assert_eq!(rate.to_string(), text);
        }
        for bad in [
            "",
            "60",
            "/min",
            "0/min",
            "-1/s",
            "+1/s",
            "1.5/s",
            "60 /min",
            "60/m",
            "60/d",
            "60/min ",
            "5000000000/s",
        ] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_know_both_families_of_units() {
        let bytes = |text: &str| text.parse::<Size>().unwrap().0;
        assert_eq!(bytes("1MB"), 1_000_000);
        assert_eq!(bytes("64MiB"), 64 << 20);
        assert_eq!(bytes("1.5KiB"), 1536);
        assert_eq!(bytes("10"), 10);
        for bad in ["", "MB", "1mb", "1M", "-1", "0.3B", "99999999999GiB"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn cores_have_three_decimals() {
        assert_eq!("0.25".parse::<Cpus>().unwrap().0, 250);
        assert_eq!("2".parse::<Cpus>().unwrap().0, 2000);
        assert!("0.0001".parse::<Cpus>().is_err());
        assert!("2cores".parse::<Cpus>().is_err());
    }

    proptest! {
        #[test]
        fn a_printed_span_reads_back(nanos in 0..=u64::MAX) {
            let span = Span(Duration::from_nanos(nanos));
            prop_assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,30}") {
            let _ = (text.parse::<Span>(), text.parse::<Size>(), text.parse::<Cpus>());
        }
    }
}
