use super::*;

fn job() -> JobId {
    "0192f0c1-0000-7000-8000-000000000001".parse().unwrap()
}

fn read<'a>(text: &'a str, command: &str) -> Result<Members<'a>, Denial> {
    Members::read(text.as_bytes(), job(), &command.parse().unwrap())
}

fn request(command: &str, rest: &str) -> String {
    format!(
        "{{\"protocol\":2,\"job_id\":\"{}\",\"command\":\"{command}\"{rest}}}",
        job()
    )
}

fn check(command: &str, rest: &str, wanted: &str) -> Result<(), Reason> {
    let text = request(command, rest);
    let members = read(&text, command).map_err(|denial| denial.reason)?;
    let checked = members.check_payload(Sha256::of(wanted.as_bytes()), &command.parse().unwrap());
    checked.map_err(|denial| denial.reason)
}

#[test]
fn a_commands_payload_is_compared_byte_for_byte() {
    let rest = r#","payload":{"a": 1}"#;
    assert_eq!(check("poll", rest, r#"{"a": 1}"#), Ok(()));
    assert_eq!(
        check("poll", rest, r#"{"a":1}"#),
        Err(Reason::PayloadDiffers)
    );
    assert_eq!(check("poll", "", "{}"), Ok(()));
    assert_eq!(check("poll", "", r#"{"a":1}"#), Err(Reason::PayloadDiffers));
}

#[test]
fn an_events_payload_may_gain_members_of_the_context_and_nothing_else() {
    let event = |payload: &str, merged: &str, context: &str, kind: &str| {
        let rest = format!(
            r#","context":{context},"payload":{{"type":"door.opened","payload":{payload}}},"event":{{"type":"{kind}","payload":{merged}}}"#
        );
        check("handle", &rest, r#"{"who":"me"}"#)
    };
    let asked = r#"{"who":"me"}"#;
    assert_eq!(event(asked, asked, "{}", "door.opened"), Ok(()));
    assert_eq!(
        event(asked, r#"{"n":1,"who":"me"}"#, r#"{"n":1}"#, "door.opened"),
        Ok(())
    );
    for wrong in [
        event(asked, asked, "{}", "door.closed"),
        event(asked, r#"{"who":"you"}"#, r#"{"who":"you"}"#, "door.opened"),
        event(asked, r#"{"n":1,"who":"me"}"#, r#"{"n":2}"#, "door.opened"),
        event(asked, "{}", "{}", "door.opened"),
        event(r#"{"who":"you"}"#, r#"{"who":"you"}"#, "{}", "door.opened"),
        check("handle", r#","payload":{"type":"door.opened"}"#, asked),
    ] {
        assert_eq!(wrong, Err(Reason::PayloadDiffers));
    }
}

#[test]
fn a_request_that_does_not_fit_is_bad() {
    for text in [
        request("poll", r#","payload":{},"payload":{"a":1}"#),
        request("poll", r#","config":{}"#),
        request("poll", r#","secrets":{}"#),
        request("poll", r#","unheard_of":{}"#),
        request("handle", ""),
        request("poll", "").replace("\"protocol\":2", "\"protocol\":3"),
        request("poll", "").replace("0001\"", "0002\""),
        "[]".into(),
        String::new(),
    ] {
        assert_eq!(
            read(&text, "poll").unwrap_err().reason,
            Reason::BadRequest,
            "{text}"
        );
    }
}
