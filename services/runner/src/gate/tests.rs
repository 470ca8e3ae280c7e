use super::*;

const NONE: &str = "service: {}\n";
const CONFINED: &str = "accounts:\n  default: {}\n  untrusted: {}\n";
const HYBRID: &str =
    "accounts:\n  default: {}\n  media: {uid: 1001, gid: 1001}\n  ops: {uid: 1000, gid: 1000}\n";

fn config(text: &str) -> Config {
    let files = [(bailey_config::ROOT.to_owned(), text.to_owned())];
    bailey_config::parse(&files.into()).unwrap()
}

fn outcome(text: &str, walls: &Walls) -> String {
    posture(&config(text), Some(walls)).to_string()
}

fn fallen() -> Walls {
    Walls::Missing("the engine does not enforce seccomp profiles".into())
}

#[test]
fn walls_and_accounts_together_confine_and_one_alone_or_neither_refuses() {
    let no_seccomp = "the engine does not enforce seccomp profiles";
    for (text, walls, expected) in [
        (CONFINED, Walls::Stand, "confined".to_owned()),
        (CONFINED, fallen(), format!("refused: {no_seccomp}")),
        (
            NONE,
            Walls::Stand,
            "refused: no accounts are configured".to_owned(),
        ),
        (
            NONE,
            fallen(),
            format!("refused: no accounts are configured, and {no_seccomp}"),
        ),
    ] {
        assert_eq!(outcome(text, &walls), expected);
    }
}

#[test]
fn credentialed_accounts_make_it_hybrid_and_are_named() {
    assert_eq!(
        outcome(HYBRID, &Walls::Stand),
        "hybrid (credentialed: media, ops)"
    );
    // They are no way around the walls.
    assert!(outcome(HYBRID, &fallen()).starts_with("refused"));
}

#[test]
fn unconfined_overrides_everything_and_says_so() {
    for text in [NONE, CONFINED, HYBRID] {
        let text = format!("{}service: {{unconfined: true}}\n", text.replace(NONE, ""));
        for walls in [Walls::Stand, fallen()] {
            assert_eq!(outcome(&text, &walls), "unconfined", "{text}");
        }
        assert_eq!(posture(&config(&text), None), Posture::Unconfined);
    }
}

#[test]
fn nothing_runs_before_the_walls_were_looked_at() {
    for text in [NONE, CONFINED, HYBRID] {
        let unknown = posture(&config(text), None);
        assert_eq!(unknown, Posture::Unknown);
        assert_eq!(unknown.to_string(), "");
        assert!(unknown.refusal().is_some());
    }
}

#[test]
fn only_what_is_refused_or_unknown_keeps_plugins_from_running() {
    let ops = "ops".parse().unwrap();
    for posture in [
        Posture::Confined,
        Posture::Hybrid(vec![ops]),
        Posture::Unconfined,
    ] {
        assert_eq!(posture.refusal(), None, "{posture}");
    }
    let refused = Posture::Refused("no seccomp".into());
    assert_eq!(refused.refusal().as_deref(), Some("refused: no seccomp"));
}
