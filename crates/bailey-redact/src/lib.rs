#![doc = include_str!("../README.md")]

mod spelling;
mod table;
#[cfg(test)]
mod tests;
mod unit;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bailey_types::SecretName;
use zeroize::Zeroizing;

use spelling::{KEY_BYTES, Spelling, Step, Trail};
use table::{Begun, Table};
use unit::Mode;

/// Shorter secrets are left alone: a value like `1` or `yes` would tear up every output, and hides nothing.
pub const MIN_SECRET_BYTES: usize = 6;

/// How far apart escapes are where there are many.
const NEAR_BYTES: usize = 16;

/// What to look for: every secret in every spelling that is known. Cloning shares it.
#[derive(Clone, Default)]
pub struct Patterns(Option<Arc<Sought>>);

/// Invariant: there is at least one secret.
struct Sought {
    /// Each once, in the order in which they were given.
    names: Vec<SecretName>,
    secrets: Vec<Secret>,
    /// Which secret, and how.
    spellings: Vec<(usize, Spelling)>,
    /// The ways to read that the spellings need, each once.
    modes: Vec<Mode>,
    /// What the spellings begin with, by their places.
    table: Table,
}

struct Secret {
    /// Its name's place.
    name: usize,
    value: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.as_ref().map_or(0, |sought| sought.names.len());
        write!(f, "Patterns({count})")
    }
}

impl Patterns {
    /// Patterns for these secrets, given as name and value. A name may have several values, such as one in two spellings that are not known
    /// here: they are counted together.
    pub fn new<'a>(secrets: impl IntoIterator<Item = (&'a SecretName, &'a str)>) -> Self {
        let mut names: Vec<SecretName> = Vec::new();
        let mut known: Vec<Secret> = Vec::new();
        for (name, value) in secrets {
            let Some(value) = essence(value).map(str::as_bytes) else {
                continue;
            };
            if known.iter().all(|secret| *secret.value != value) {
                let place = names.iter().position(|known| known == name);
                let place = place.unwrap_or_else(|| {
                    names.push(name.clone());
                    names.len() - 1
                });
                known.push(Secret {
                    name: place,
                    value: Zeroizing::new(value.to_vec()),
                });
            }
        }
        Self((!known.is_empty()).then(|| Arc::new(Sought::new(names, known))))
    }

    /// Takes them out of something that is there as a whole.
    pub fn scrub(&self, text: &[u8]) -> (Vec<u8>, Vec<Found>) {
        let mut scrubber = Scrubber::new(self.clone());
        let mut clean = scrubber.push(text);
        clean.extend(scrubber.finish());
        (clean, scrubber.news())
    }
}

/// A secret that came, in any spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub secret: SecretName,
    /// How often it was replaced in the stream so far.
    pub count: u64,
}

/// What of a value is looked for. `None`: too little.
fn essence(value: &str) -> Option<&str> {
    // A secret from a file ends in a line break, which whoever uses it takes off.
    let bare = value.trim();
    // What may end an answer must not be held back because a secret might begin with it.
    let inner =
        bare.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '}' | ']' | '"'));
    // Of base64 the padding is often left out, and tells nothing.
    let digits = inner.trim_end_matches('=');
    let is_base64 = inner.len() - digits.len() <= 2 && spelling::is_base64(digits.as_bytes());
    [if is_base64 { digits } else { inner }, inner, bare]
        .into_iter()
        .find(|text| text.len() >= MIN_SECRET_BYTES)
}

impl Sought {
    fn new(names: Vec<SecretName>, secrets: Vec<Secret>) -> Self {
        let (mut spellings, mut modes) = (Vec::new(), Vec::new());
        let mut table = Table::new();
        for (place, secret) in secrets.iter().enumerate() {
            for spelling in Spelling::of(&secret.value) {
                let whose = u32::try_from(spellings.len()).unwrap_or(u32::MAX);
                spelling.keys(&secret.value, &mut |key| table.add(key, whose));
                spellings.push((place, spelling));
                if !modes.contains(&spelling.mode()) {
                    modes.push(spelling.mode());
                }
            }
        }
        Self {
            names,
            secrets,
            spellings,
            modes,
            table,
        }
    }

    /// Begins every spelling that may begin at `at`. `Err`: only more of the text can tell.
    fn begin(&self, text: &[u8], at: usize, trails: &mut Trails) -> Result<(), Short> {
        let mut is_short = false;
        for mode in &self.modes {
            match self.key(*mode, text.get(at..).unwrap_or_default()) {
                Key::Other => {}
                Key::Short => is_short = true,
                Key::Found(key) => {
                    for whose in self.table.find(key) {
                        if trails.iter().all(|(known, _)| *known != whose) {
                            trails.push((whose, Trail::new(at)));
                        }
                    }
                }
            }
        }
        if is_short { Err(Short) } else { Ok(()) }
    }

    /// The next place, from `at` on, where something may begin; else the end of the text. `escape` is kept for the next call: where the
    /// next escape is, if that is not passed.
    fn seek(&self, text: &[u8], mut at: usize, escape: &mut Option<usize>) -> usize {
        loop {
            let next = escape
                .filter(|next| *next >= at)
                .unwrap_or_else(|| at + plain(text.get(at..).unwrap_or_default()));
            *escape = Some(next);
            // What has no escapes is read as it is.
            if let Some(place) = self.table.seek(text.get(at..next).unwrap_or_default()) {
                return at + place;
            }
            // What begins before an escape may go on in it, or behind the end.
            for place in at.max((next + 1).saturating_sub(KEY_BYTES))..=next {
                if place == text.len() || self.may_begin(text.get(place..).unwrap_or_default()) {
                    return place;
                }
            }
            at = next + 1;
        }
    }

    /// Whether something may begin where `text` does.
    fn may_begin(&self, text: &[u8]) -> bool {
        let may = |mode: &Mode| !matches!(self.key(*mode, text), Key::Other);
        self.modes.iter().any(may)
    }

    fn spelling(&self, whose: u32) -> Option<(usize, Spelling, &[u8])> {
        let (place, spelling) = *self.spellings.get(usize::try_from(whose).ok()?)?;
        Some((place, spelling, &self.secrets.get(place)?.value))
    }

    fn key(&self, mode: Mode, text: &[u8]) -> Key {
        let (mut begun, mut rest) = (Begun::default(), text);
        loop {
            let Some(unit) = unit::read(mode, rest) else {
                return Key::Short;
            };
            match unit.only() {
                Some(byte) => begun.push(byte),
                None => unit.bytes().iter().for_each(|byte| begun.push(*byte)),
            }
            if !self.table.begins(begun) {
                return Key::Other;
            }
            if let Some(key) = begun.key() {
                return Key::Found(key);
            }
            rest = rest.get(unit.used()..).unwrap_or_default();
        }
    }
}

/// How far `text` has no escapes.
fn plain(text: &[u8]) -> usize {
    let is_escape = |byte: &u8| unit::opens(*byte);
    // Where there is one escape there are often more, and a search takes longer to begin than they are apart.
    let (near, far) = text.split_at_checked(NEAR_BYTES).unwrap_or((text, &[]));
    let found = near.iter().position(is_escape);
    found.unwrap_or_else(|| {
        let found = memchr::memchr3(b'\\', b'%', b'&', far);
        found.map_or(text.len(), |place| NEAR_BYTES + place)
    })
}

/// Adds to what is held. What it outgrows is wiped, which a vector that grows by itself would not be.
fn hold(held: &mut Zeroizing<Vec<u8>>, bytes: &[u8]) {
    let needed = held.len() + bytes.len();
    if needed > held.capacity() {
        let room = needed.max(2 * held.capacity());
        let mut larger = Zeroizing::new(Vec::with_capacity(room));
        larger.extend_from_slice(held);
        *held = larger;
    }
    held.extend_from_slice(bytes);
}

/// What the text begins with, read in one way.
enum Key {
    Found([u8; KEY_BYTES]),
    /// Nothing that is looked for.
    Other,
    /// It may be the beginning of what is looked for.
    Short,
}

/// The text ends too early to tell.
struct Short;

/// Spellings that are followed, by their places.
type Trails = Vec<(u32, Trail)>;

/// One stream being scrubbed.
pub struct Scrubber {
    sought: Option<Arc<Sought>>,
    /// The end of what came, where it may be the beginning of a secret. Invariant: no longer than the longest spelling.
    held: Zeroizing<Vec<u8>>,
    /// What may begin where `held` begins, as far as it was followed: each byte is looked at once, however small the reads are.
    trails: Trails,
    /// The longest secret that begins there, and where it ends.
    longest: Option<(usize, usize)>,
    /// How often each secret was found, by its name's place.
    counts: BTreeMap<usize, u64>,
    /// Those of them that were found since somebody was told.
    news: BTreeSet<usize>,
}

impl Scrubber {
    /// A scrubber at the beginning of its stream.
    pub fn new(patterns: Patterns) -> Self {
        Self {
            sought: patterns.0,
            held: Zeroizing::default(),
            trails: Vec::new(),
            longest: None,
            counts: BTreeMap::new(),
            news: BTreeSet::new(),
        }
    }

    /// Takes the next bytes; answers what is certain to hold no secret.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.scrub(bytes, false)
    }

    /// The end of the stream: what was held back.
    pub fn finish(&mut self) -> Vec<u8> {
        self.scrub(&[], true)
    }

    /// What was found since this was last asked, in the order of the secrets, each with its count from the beginning of the stream.
    pub fn news(&mut self) -> Vec<Found> {
        let news = std::mem::take(&mut self.news).into_iter();
        news.filter_map(|place| {
            Some(Found {
                secret: self.sought.as_ref()?.names.get(place)?.clone(),
                count: self.counts.get(&place).copied()?,
            })
        })
        .collect()
    }

    fn scrub(&mut self, bytes: &[u8], last: bool) -> Vec<u8> {
        let Some(sought) = self.sought.clone() else {
            return bytes.to_vec();
        };
        let mut held = std::mem::take(&mut self.held);
        let mut clean = Vec::with_capacity(bytes.len());
        if held.is_empty() {
            let from = self.walk(&sought, bytes, last, &mut clean);
            hold(&mut held, bytes.get(from..).unwrap_or_default());
        } else {
            hold(&mut held, bytes);
            let from = self.walk(&sought, &held, last, &mut clean);
            held.drain(..from);
        }
        self.held = held;
        clean
    }

    /// Goes through `text` as far as it can; adds what is clean, and answers from where on the text is to be held.
    fn walk(&mut self, sought: &Sought, text: &[u8], last: bool, clean: &mut Vec<u8>) -> usize {
        let (mut at, mut escape) = (0, None);
        loop {
            if self.trails.is_empty() && self.longest.is_none() {
                let next = sought.seek(text, at, &mut escape);
                clean.extend_from_slice(text.get(at..next).unwrap_or_default());
                at = next;
                if at == text.len() {
                    break;
                }
                let begun = sought.begin(text, at, &mut self.trails);
                if begun.is_err() && !last {
                    self.trails.clear();
                    break;
                }
            }
            self.follow(sought, text, last);
            if !self.trails.is_empty() {
                break;
            }
            if let Some((place, end)) = self.longest.take() {
                let owner = sought.secrets.get(place).map(|secret| secret.name);
                if let Some((owner, name)) = owner.and_then(|it| Some((it, sought.names.get(it)?)))
                {
                    clean.extend_from_slice(format!("[secret:{name}]").as_bytes());
                    *self.counts.entry(owner).or_default() += 1;
                    self.news.insert(owner);
                }
                at = end;
            } else {
                clean.extend(text.get(at));
                at += 1;
            }
        }
        // What is followed is held, and will be the beginning of the next text.
        for (_, trail) in &mut self.trails {
            trail.at -= at;
        }
        self.longest = self.longest.map(|(place, end)| (place, end - at));
        at
    }

    /// Follows what has begun to where it ends, or the text does.
    fn follow(&mut self, sought: &Sought, text: &[u8], last: bool) {
        let longest = &mut self.longest;
        self.trails.retain_mut(|(whose, trail)| {
            let Some((place, spelling, value)) = sought.spelling(*whose) else {
                return false;
            };
            let step = spelling.follow(value, trail, text);
            let is_open = step == Step::Open && !last;
            let counts = step == Step::Whole || !is_open && spelling.is_enough(trail);
            if counts && longest.is_none_or(|(_, end)| end < trail.at) {
                *longest = Some((place, trail.at));
            }
            is_open
        });
    }
}
