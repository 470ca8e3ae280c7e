//! Takes delivered secrets out of a stream of bytes, wherever the reads happen to cut it.
//!
//! A value has more spellings than can be listed (each character of it may be escaped or not), so none is: at every place where one may
//! begin, which a table tells by three bytes, all of them are followed through the text at once. That needs no copies of the values.

mod spelling;
mod table;
#[cfg(test)]
mod tests;
mod unit;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bailey_types::SecretName;
use zeroize::Zeroizing;

use spelling::{KEY_BYTES, Spelling, Step, Trail};
use table::Table;
use unit::Mode;

/// Shorter secrets are left alone: a value like `1` or `yes` would tear up every output, and hides nothing.
pub const MIN_SECRET_BYTES: usize = 6;

/// What to look for: every delivered secret in every spelling that is known.
#[derive(Clone, Default)]
pub struct Patterns(Option<Arc<Sought>>);

/// Invariant: there is at least one secret.
struct Sought {
    secrets: Vec<Secret>,
    /// Which secret, and how.
    spellings: Vec<(usize, Spelling)>,
    /// The ways to read that the spellings need, each once.
    modes: Vec<Mode>,
    /// What the spellings begin with, by their places.
    table: Table,
}

struct Secret {
    name: SecretName,
    value: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.as_ref().map_or(0, |sought| sought.secrets.len());
        write!(f, "Patterns({count})")
    }
}

impl Patterns {
    /// Patterns for these secrets, given as name and value.
    pub fn new<'a>(secrets: impl IntoIterator<Item = (&'a SecretName, &'a str)>) -> Self {
        let mut known: Vec<Secret> = Vec::new();
        for (name, value) in secrets {
            let Some(value) = essence(value).map(str::as_bytes) else {
                continue;
            };
            if known.iter().all(|secret| *secret.value != value) {
                known.push(Secret {
                    name: name.clone(),
                    value: Zeroizing::new(value.to_vec()),
                });
            }
        }
        Self((!known.is_empty()).then(|| Arc::new(Sought::new(known))))
    }
}

/// What of a value is looked for. `None`: too little.
fn essence(value: &str) -> Option<&str> {
    // A secret from a file ends in a line break, which whoever uses it takes off.
    let bare = value.trim();
    // What may end an answer must not be held back because a secret might begin with it.
    let inner =
        bare.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '}' | ']' | '"'));
    [inner, bare]
        .into_iter()
        .find(|text| text.len() >= MIN_SECRET_BYTES)
}

impl Sought {
    fn new(secrets: Vec<Secret>) -> Self {
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

    /// The next place, from `at` on, where something may begin; else the end of the text. `escape` is kept for the next call: it is
    /// where the next escape was seen, if that is not passed.
    fn seek(&self, text: &[u8], mut at: usize, escape: &mut Option<usize>) -> usize {
        loop {
            let next = escape.filter(|next| *next >= at).unwrap_or_else(|| {
                let rest = text.get(at..).unwrap_or_default();
                memchr::memchr2(b'\\', b'%', rest).map_or(text.len(), |place| at + place)
            });
            *escape = Some(next);
            // What has no escapes is read as it is.
            let plain = text.get(at..next).unwrap_or_default();
            if let Some(place) = self.table.seek(plain) {
                return at + place;
            }
            at = next;
            if at == text.len() || self.may_begin(text.get(at..).unwrap_or_default()) {
                return at;
            }
            at += 1;
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
        let (mut key, mut count, mut used) = ([0; KEY_BYTES], 0, 0);
        while count < KEY_BYTES {
            let Some(unit) = unit::read(mode, text.get(used..).unwrap_or_default()) else {
                return Key::Short;
            };
            for (place, byte) in key.iter_mut().skip(count).zip(unit.bytes()) {
                *place = *byte;
            }
            count = KEY_BYTES.min(count + unit.bytes().len());
            used += unit.used;
            if !self.table.begins(key.get(..count).unwrap_or_default()) {
                return Key::Other;
            }
        }
        Key::Found(key)
    }
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
    /// The secrets that were found, by their places.
    found: BTreeSet<usize>,
    /// Those of them that nobody was told of yet.
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
            found: BTreeSet::new(),
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

    /// What was found for the first time since this was last asked, in the order of the secrets.
    pub fn news(&mut self) -> Vec<SecretName> {
        let secret = |place| self.sought.as_ref()?.secrets.get(place);
        let news = std::mem::take(&mut self.news).into_iter();
        news.filter_map(|place| Some(secret(place)?.name.clone()))
            .collect()
    }

    fn scrub(&mut self, bytes: &[u8], last: bool) -> Vec<u8> {
        let Some(sought) = self.sought.clone() else {
            return bytes.to_vec();
        };
        let mut held = std::mem::take(&mut self.held);
        if held.is_empty() {
            let (clean, from) = self.walk(&sought, bytes, last);
            held.extend_from_slice(bytes.get(from..).unwrap_or_default());
            self.held = held;
            return clean;
        }
        held.extend_from_slice(bytes);
        let (clean, from) = self.walk(&sought, &held, last);
        held.drain(..from);
        self.held = held;
        clean
    }

    /// Goes through `text` as far as it can; answers what is clean, and from where on the text is to be held.
    fn walk(&mut self, sought: &Sought, text: &[u8], last: bool) -> (Vec<u8>, usize) {
        let mut clean = Vec::with_capacity(text.len());
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
                if let Some(secret) = sought.secrets.get(place) {
                    clean.extend_from_slice(format!("[secret:{}]", secret.name).as_bytes());
                }
                if self.found.insert(place) {
                    self.news.insert(place);
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
        (clean, at)
    }

    /// Follows what has begun to where it ends, or the text does.
    fn follow(&mut self, sought: &Sought, text: &[u8], last: bool) {
        let longest = &mut self.longest;
        self.trails.retain_mut(|(whose, trail)| {
            let Some((place, spelling, value)) = sought.spelling(*whose) else {
                return false;
            };
            match spelling.follow(value, trail, text) {
                Step::Whole => {
                    if longest.is_none_or(|(_, end)| end < trail.at) {
                        *longest = Some((place, trail.at));
                    }
                    false
                }
                Step::Other => false,
                Step::Open => !last,
            }
        });
    }
}
