//! The lease of one call: of no use to anybody else, also where its token is known, and a record of each connection under it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use stack_tests::Stack;
use stack_tests::fixture::{locked, observed};
use stack_tests::suite::Test;

use crate::control::{Running, in_cell_of};
use crate::outside::{COUNTED, Outside};

pub const TESTS: &[(&str, Test)] = &[
    (
        "what_was_never_a_lease_is_of_no_use",
        what_was_never_a_lease_is_of_no_use,
    ),
    (
        "the_stolen_lease_of_another_is_of_no_use",
        the_stolen_lease_of_another_is_of_no_use,
    ),
    (
        "each_connection_is_on_record_with_its_bytes",
        each_connection_is_on_record_with_its_bytes,
    ),
];

/// Somebody who has the socket of egress-proxy, and a decision that is not his: what he is answered, as `refused` and why.
const FORGER: &str = r#"
import json, os, socket, sys
line = sys.argv[1].encode()
def ask(hello):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.settimeout(10)
        stream.connect("/run/bailey/egress/egress.sock")
        stream.sendall(hello)
        try:
            answer = stream.recv(300)
        except OSError as error:
            return type(error).__name__
        return "granted" if answer[:1] == b"\0" else "refused"
host = b"granted.test"
print(json.dumps({
    "lease": ask(b"L" + len(line).to_bytes(4, "big") + line),
    "connection": ask(b"C" + os.urandom(32) + (80).to_bytes(2, "big") + bytes([len(host)]) + host),
}))
"#;

/// Reads the memory of a holder: it keeps its token beside the path of egress-proxy's socket. Whatever looks random around a pointer to that
/// path may be it.
const READER: &str = r#"
import json, os
def comm(pid):
    with open(f"/proc/{pid}/comm") as file:
        return file.read().strip()
def memory(pid):
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        for line in maps:
            span, permissions = line.split()[:2]
            if permissions.startswith("rw"):
                first, last = (int(edge, 16) for edge in span.split("-"))
                file.seek(first)
                yield first, file.read(last - first)
def places(needle, regions):
    for first, data in regions:
        at = data.find(needle)
        while at >= 0:
            yield first + at, data[max(0, at - 96):at + 128]
            at = data.find(needle, at + 1)
holder = next(pid for pid in os.listdir("/proc") if pid.isdigit() and comm(pid) == "holder")
regions = list(memory(holder))
found = set()
for path, _ in places(b"/run/bailey/egress/egress.sock", regions):
    for _, around in places(path.to_bytes(8, "little"), regions):
        found.update(around[at:at + 32] for at in range(len(around) - 31))
print(json.dumps(sorted(token.hex() for token in found if len(set(token)) > 20)))
"#;

/// Shows each token to egress-proxy, and counts where it is let through; what else it is told, it tells.
const THIEF: &str = r#"
import json, socket, sys
host, opened, told = b"granted.test", 0, set()
for token in json.loads(sys.argv[1]):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.settimeout(10)
        stream.connect("/run/bailey/egress/egress.sock")
        stream.sendall(b"C" + bytes.fromhex(token) + (80).to_bytes(2, "big") + bytes([len(host)]) + host)
        answer = stream.recv(300)
        if answer[:1] == b"\0":
            opened += 1
        else:
            told.add(answer[2:].decode())
print(json.dumps({"opened": opened, "told": sorted(told)}))
"#;

/// A program of Python in a container of its own, with more options of `docker run`.
fn python(stack: &Stack, more: &[&str], program: &str, argument: &str) -> anyhow::Result<Value> {
    let mut args = vec!["run", "--rm", "--pull", "never", "--network", "none"];
    args.extend(more);
    args.extend(["--entrypoint", "/usr/bin/python3"]);
    args.extend(["bailey/base-python:current", "-c", program, argument]);
    let shown = stack.docker(&args)?;
    serde_json::from_str(shown.trim()).with_context(|| format!("no JSON: {shown}"))
}

/// The same with the socket of egress-proxy, as a user of that number.
fn at_the_door(stack: &Stack, uid: u32, program: &str, argument: &str) -> anyhow::Result<Value> {
    let volume = format!("{}_egress:/run/bailey/egress:ro", stack.project());
    let user = format!("{uid}:{uid}");
    let more = ["--user", &user, "--volume", &volume];
    python(stack, &more, program, argument)
}

fn what_was_never_a_lease_is_of_no_use(stack: &Stack) -> anyhow::Result<()> {
    // A statement of the thief's own, and a token that was guessed: with the identity of the runner, of a cell, and of a holder.
    let forged = json!({"payload": "e30=", "signature": "AA=="}).to_string() + "\n";
    for uid in [10_004, 20_000, uids(stack, "walls_out")?.holder] {
        let answers = at_the_door(stack, uid, FORGER, &forged)?;
        let refused = |name: &str| {
            answers[name]
                .as_str()
                .is_some_and(|answer| !answer.is_empty() && answer != "granted")
        };
        ensure!(
            refused("lease") && refused("connection"),
            "{uid}: {answers}"
        );
    }
    Ok(())
}

/// Uids of a plugin.
struct Uids {
    cell: u32,
    holder: u32,
}

fn uids(stack: &Stack, plugin: &str) -> anyhow::Result<Uids> {
    let locked = locked(stack, plugin)?;
    let uid = |name: &str| {
        let uid = locked[name].as_u64();
        let uid = uid.with_context(|| format!("{plugin} has no {name}"))?;
        anyhow::Ok(u32::try_from(uid)?)
    };
    Ok(Uids {
        cell: uid("uid")?,
        holder: uid("holder_uid")?,
    })
}

fn the_stolen_lease_of_another_is_of_no_use(stack: &Stack) -> anyhow::Result<()> {
    // Given a call that is under way with its lease, whose token somebody has read out of its holder's memory: it is the token, for shown by
    // that holder's user it opens a connection.
    let outside = Outside::start(stack)?;
    outside.stand_for(&["203.0.113.9"])?;
    let payload = json!({"gate": "granted.test:7071", "then": "granted.test:80"});
    let holding = Running::start(stack, "walls_out", "hold", &payload)?;
    let (own, other) = (uids(stack, "walls_out")?, uids(stack, "walls_out_sibling")?);
    let stolen = stack.until(Duration::from_secs(30), "the use of a lease", || {
        let Some(holder) = holder(stack, "walls_out")? else {
            return Ok(None);
        };
        let tokens = tokens(stack, &holder)?;
        let control = at_the_door(stack, own.holder, THIEF, &tokens)?;
        Ok((control["opened"] == 1).then_some(tokens))
    })?;
    // When it is shown by the holder of another plugin, by cells, and by the runner, then nobody has heard of it.
    for uid in [other.holder, other.cell, own.cell, 10_004] {
        let answer = at_the_door(stack, uid, THIEF, &stolen)?;
        ensure!(
            answer["opened"] == 0 && told(&answer, "lease"),
            "as {uid}: {answer}"
        );
    }
    // The call that it belongs to has lost nothing,
    outside.open()?;
    let held = observed(&holding.end(stack)?)?;
    ensure!(
        held == json!({"first": "go", "second": "outside"}),
        "{held}"
    );
    // and after its end the token opens nothing for anybody.
    stack.wait_no_cells("walls_out")?;
    stack.until(Duration::from_secs(20), "the end of the lease", || {
        let answer = at_the_door(stack, own.holder, THIEF, &stolen)?;
        Ok((answer["opened"] == 0).then_some(()))
    })
}

/// Whether everything that was told has this word, and something was.
fn told(answer: &Value, word: &str) -> bool {
    let told = answer["told"].as_array();
    told.is_some_and(|told| {
        let has = |text: &Value| text.as_str().is_some_and(|text| text.contains(word));
        !told.is_empty() && told.iter().all(has)
    })
}

/// The holder of a plugin's running cell.
fn holder(stack: &Stack, plugin: &str) -> anyhow::Result<Option<String>> {
    let Some(cell) = stack.cells(plugin)?.pop() else {
        return Ok(None);
    };
    let network = stack.inspect(&cell)?["HostConfig"]["NetworkMode"].clone();
    let holder = network.as_str().context("no network mode")?;
    Ok(holder.strip_prefix("container:").map(str::to_owned))
}

/// What may be tokens in the memory of a holder, as JSON.
fn tokens(stack: &Stack, holder: &str) -> anyhow::Result<String> {
    let namespace = format!("container:{holder}");
    let mut more = vec!["--user", "0:0", "--pid", &namespace];
    more.extend(["--cap-add", "SYS_PTRACE"]);
    more.extend(["--security-opt", "seccomp=unconfined"]);
    more.extend(["--security-opt", "apparmor=unconfined"]);
    Ok(python(stack, &more, READER, "")?.to_string())
}

fn each_connection_is_on_record_with_its_bytes(stack: &Stack) -> anyhow::Result<()> {
    const SAID: u64 = 123_457;
    let outside = Outside::start(stack)?;
    outside.stand_for(&["203.0.113.9"])?;
    // Given a call that says so many bytes and hears so many, when it is over,
    let payload = json!({"target": "granted.test:7070", "bytes": SAID});
    let found = in_cell_of(stack, "walls_out", "transfer", &payload)?;
    ensure!(found == json!({"heard": COUNTED}), "{found}");
    // then these are the numbers on record.
    let record = stack.until(Duration::from_secs(20), "the record", || {
        let all = stack.audited()?;
        Ok(entries(&all, "egress.closed").find(|entry| entry["port"] == 7070))
    })?;
    ensure!(
        record["sent_bytes"] == SAID
            && record["received_bytes"] == COUNTED
            && record["plugin"] == "walls_out"
            && record["host"] == "granted.test"
            && record["address"] == "203.0.113.9"
            && record["cut"].is_null(),
        "{record}"
    );
    Ok(())
}

/// Fields of the entries of one kind in the log's files.
fn entries<'a>(log: &'a str, kind: &'a str) -> impl Iterator<Item = Value> + 'a {
    log.match_indices('{').filter_map(move |(at, _)| {
        let rest = log.get(at..)?;
        let mut read = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let entry = read.next()?.ok()?;
        (entry["kind"] == kind).then(|| entry["fields"].clone())
    })
}
