//! Compares with a reader that follows every spelling from every place, which is plain to see and slow.

use super::*;

/// What a text is made of.
enum Part {
    Byte(u8),
    /// Any of these, by their names' places: they end where the longest does.
    Secret(BTreeSet<usize>),
}

fn naive(sought: &Sought, text: &[u8]) -> Vec<Part> {
    let (mut parts, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let (mut names, mut end) = (BTreeSet::new(), at);
        for (place, spelling) in &sought.spellings {
            let secret = &sought.secrets[*place];
            let mut trail = Trail::new(at);
            let step = spelling.follow(&secret.value, &mut trail, text);
            if step == Step::Whole || spelling.is_enough(&trail) {
                if end < trail.at {
                    names.clear();
                    end = trail.at;
                }
                if end == trail.at {
                    names.insert(secret.name);
                }
            }
        }
        if names.is_empty() {
            parts.push(Part::Byte(text[at]));
            at += 1;
        } else {
            parts.push(Part::Secret(names));
            at = end;
        }
    }
    parts
}

/// How often each secret is named in `clean`; `None` where that is nothing that may be left of the parts.
fn counted(sought: &Sought, parts: &[Part], mut clean: &[u8]) -> Option<BTreeMap<usize, u64>> {
    let mut counts = BTreeMap::new();
    for part in parts {
        clean = match part {
            Part::Byte(byte) => clean.strip_prefix(&[*byte])?,
            Part::Secret(names) => {
                let (name, rest) = names.iter().find_map(|name| {
                    let mark = format!("[secret:{}]", sought.names[*name]);
                    Some((*name, clean.strip_prefix(mark.as_bytes())?))
                })?;
                *counts.entry(name).or_default() += 1;
                rest
            }
        };
    }
    clean.is_empty().then_some(counts)
}

fn compare(values: &[String], text: &[u8], cuts: &[Index]) -> Result<(), TestCaseError> {
    let names = ["a", "b", "c", "d"].into_iter();
    let secrets: Vec<_> = names.zip(values.iter().map(String::as_str)).collect();
    let Some(sought) = scrubber(&secrets).sought else {
        return Ok(());
    };
    let parts = naive(&sought, text);
    for pieces in [vec![text], cut(text, cuts), text.chunks(1).collect()] {
        let mut scrubber = scrubber(&secrets);
        let mut clean: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| scrubber.push(piece))
            .collect();
        clean.extend(scrubber.finish());
        prop_assert_eq!(
            counted(&sought, &parts, &clean),
            Some(scrubber.counts),
            "{:?} in {:?}, {} pieces: {:?}",
            values,
            String::from_utf8_lossy(text),
            pieces.len(),
            String::from_utf8_lossy(&clean)
        );
    }
    Ok(())
}

/// A piece of text: which value, from where to where, and how it is spelled.
type Piece = (Index, [Index; 2], Way, Vec<u8>);

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let choices = prop::collection::vec(any::<u8>(), 1..6);
    let piece = (any::<Index>(), any::<[Index; 2]>(), any::<Way>(), choices);
    prop::collection::vec(piece, 1..8)
}

/// Parts of the values as programs spell them, one after another.
fn assembled(values: &[String], pieces: &[Piece]) -> String {
    let mut text = String::new();
    for (which, ends, way, choices) in pieces {
        let value: &String = which.get(values);
        let (_, spelled, behind) = way.spell(value, choices);
        let spelled: Vec<char> = spelled.chars().collect();
        let mut ends = ends.map(|end| end.index(spelled.len() + 1));
        ends.sort_unstable();
        // Most are whole, or are at one end.
        match choices.len() {
            1 => ends[0] = 0,
            2 => ends[1] = spelled.len(),
            3 | 4 => ends = [0, spelled.len()],
            _ => {}
        }
        text.extend(&spelled[ends[0]..ends[1]]);
        text.push_str(&behind);
    }
    text
}

proptest! {
    #[test]
    fn few_letters_are_scrubbed_as_a_naive_reader_would(
        values in prop::collection::vec("[ab]{6,9}|(ab){3,6}|a{6,12}b?|[a+ ]{6,8}|[-+/_a]{6,8}|[u0061]{6,8}|[\\\\%&]{6,8}", 1..5),
        text in "([ab]|[a+ ]|[-+/_]|[\\\\%&]|61|62|2b|%61|%25|%20|\\\\u0061|\\\\u006|&#97;|YWFh|YWJh|FiY|hYm|\n|: ){0,60}",
        cuts in prop::collection::vec(any::<Index>(), 0..6),
    ) {
        compare(&values, text.as_bytes(), &cuts)?;
    }

    #[test]
    fn parts_of_values_are_scrubbed_as_a_naive_reader_would(
        values in prop::collection::vec("[ab]{6,9}|a{6,12}b?|[ab\\\\%&+ /-]{6,12}|ab[ab\\\\%&]{4,6}|[ab]{3}[a-c+/_-]{3,6}|(a|\u{e9}){6,8}", 1..5),
        pieces in pieces(),
        cuts in prop::collection::vec(any::<Index>(), 0..6),
    ) {
        compare(&values, assembled(&values, &pieces).as_bytes(), &cuts)?;
    }

    #[test]
    fn long_values_are_scrubbed_as_a_naive_reader_would(
        values in prop::collection::vec((250_usize..262, "[ab]{1,2}", "[abc]?"), 1..4),
        parts in prop::collection::vec((1_usize..300, "[ab]{1,2}", "[abc]?", 0..4), 1..4),
        cuts in prop::collection::vec(any::<Index>(), 0..3),
    ) {
        let long = |length: usize, unit: &str, end: &str| unit.repeat(length / unit.len()) + end;
        let values: Vec<String> = values.iter().map(|(length, unit, end)| long(*length, unit, end)).collect();
        let spelled = parts.iter().map(|(length, unit, end, code)| {
            let text = long(*length, unit, end);
            match code {
                0 => hex::encode(text),
                1 => STANDARD.encode(text),
                2 => escaped(&text, &[0, 3]),
                _ => text,
            }
        });
        compare(&values, spelled.collect::<String>().as_bytes(), &cuts)?;
    }
}
