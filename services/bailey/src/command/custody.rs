//! `bailey vault unseal|recipients|keygen|rotate-key|rotate-admin-token|export|restore|adopt`.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, ensure};
use bailey_proto::management::v1::custody_service_client::CustodyServiceClient;
use bailey_proto::management::v1::{
    AddRecipientRequest, ExportRequest, ListRecipientsRequest, RemoveRecipientRequest,
    UnsealRequest,
};
use bailey_trust::SealingKey;
use serde_json::json;
use tonic::transport::Channel;
use zeroize::Zeroizing;

use crate::Misconfigured;
use crate::cli::custody::{
    AddArgs, AdoptArgs, CustodyVerb, ExportArgs, RecipientsVerb, RemoveArgs, RestoreArgs,
};
use crate::forward;
use crate::home::Home;
use crate::manage::{self, Admin, refused};
use crate::output::{Done, Out, day, plain, time};

/// Largest encrypted vault; the broker's limit too.
const MAX_VAULT_BYTES: usize = 32 << 20;

pub(super) async fn run(home: &Home, verb: CustodyVerb, out: &mut Out) -> anyhow::Result<Done> {
    match verb {
        CustodyVerb::Unseal => unseal(home, out).await,
        CustodyVerb::Recipients { verb } => match verb {
            RecipientsVerb::List => list(home, out).await,
            RecipientsVerb::Add(args) => add(home, args, out).await,
            RecipientsVerb::Remove(args) => remove(home, args, out).await,
        },
        CustodyVerb::Keygen => {
            out.line(SealingKey::generate().to_file_text().trim_end());
            Ok(Done::Well)
        }
        CustodyVerb::RotateKey => offline(home, &["rotate-key"], &[]),
        CustodyVerb::RotateAdminToken => offline(home, &["rotate-admin-token"], &[]),
        CustodyVerb::Export(args) => export(home, args).await,
        CustodyVerb::Restore(args) => restore(home, &args, out),
        CustodyVerb::Adopt(args) => adopt(home, &args, out),
    }
}

async fn client(home: &Home) -> anyhow::Result<CustodyServiceClient<Channel>> {
    let client = CustodyServiceClient::new(manage::connect(home, "broker").await?);
    Ok(client.max_decoding_message_size(MAX_VAULT_BYTES + (1 << 20)))
}

async fn unseal(home: &Home, out: &mut Out) -> anyhow::Result<Done> {
    let answer = client(home).await?.unseal(UnsealRequest {}).await;
    let answer = answer.map_err(refused("broker"))?.into_inner();
    if home.json() {
        out.json(&json!({ "state": answer.state, "detail": answer.detail }))?;
    } else {
        match answer.state.as_str() {
            "open" if !answer.detail.is_empty() => out.line(format_args!(
                "the vault is open; nothing is given from it yet: {}",
                plain(&answer.detail)
            )),
            "open" => out.line("the vault is open"),
            "no_vault" if answer.detail.is_empty() => {
                out.line("nothing is sealed: there is no vault yet");
            }
            "no_vault" => out.line(plain(&answer.detail)),
            other => out.line(format_args!("{other}: {}", plain(&answer.detail))),
        }
    }
    // A vault that is gone is as closed as one that stays sealed; one that was never made is not missing.
    let closed = match answer.state.as_str() {
        "no_vault" => !answer.detail.is_empty(),
        state => state != "open",
    };
    Ok(if closed { Done::Badly } else { Done::Well })
}

async fn list(home: &Home, out: &mut Out) -> anyhow::Result<Done> {
    let admin = Admin::read(home.admin_token_file())?;
    let mut client = client(home).await?;
    let listed = client
        .list_recipients(admin.request(ListRecipientsRequest {}))
        .await
        .map_err(refused("broker"))?
        .into_inner();
    if home.json() {
        let others = listed.others.iter().map(|it| {
            json!({ "recipient": it.recipient, "note": it.note, "added_at": time(it.added_at_ms) })
        });
        let others = others.collect::<Vec<_>>();
        out.json(&json!({ "own": listed.own, "others": others }))?;
        return Ok(Done::Well);
    }
    let own = [listed.own, String::new(), "the stack's own key".to_owned()];
    let others = listed
        .others
        .iter()
        .map(|it| [it.recipient.clone(), day(it.added_at_ms), plain(&it.note)]);
    let rows: Vec<_> = std::iter::once(own).chain(others).collect();
    out.table(["RECIPIENT", "ADDED", ""], &rows);
    Ok(Done::Well)
}

async fn add(home: &Home, args: AddArgs, out: &mut Out) -> anyhow::Result<Done> {
    let admin = Admin::read(home.admin_token_file())?;
    let AddArgs { recipient, note } = args;
    let shown = recipient.clone();
    let request = admin.request(AddRecipientRequest { recipient, note });
    let answer = client(home).await?.add_recipient(request).await;
    let outcome = answer.map_err(refused("broker"))?.into_inner().outcome;
    let sentence = match outcome.as_str() {
        "added" => format!("the vault is encrypted to {shown} too"),
        _ => format!("{shown} was a recipient already"),
    };
    let json = json!({ "outcome": outcome, "recipient": shown });
    out.told(home, &json, sentence)?;
    Ok(Done::Well)
}

async fn remove(home: &Home, args: RemoveArgs, out: &mut Out) -> anyhow::Result<Done> {
    let admin = Admin::read(home.admin_token_file())?;
    let recipient = args.recipient;
    let shown = recipient.clone();
    let request = admin.request(RemoveRecipientRequest { recipient });
    let answer = client(home).await?.remove_recipient(request).await;
    answer.map_err(refused("broker"))?;
    let sentence =
        format!("the vault is not encrypted to {shown} any more; copies made before still are");
    let json = json!({ "outcome": "removed", "recipient": shown });
    out.told(home, &json, sentence)?;
    Ok(Done::Well)
}

/// Prints the file: on the host, `--out` takes it.
async fn export(home: &Home, args: ExportArgs) -> anyhow::Result<Done> {
    let mut stdout = std::io::stdout();
    ensure!(
        !stdout.is_terminal(),
        Misconfigured("an export is a binary file: say where with --out".to_owned())
    );
    let admin = Admin::read(home.admin_token_file())?;
    let recipients = args.to;
    let request = admin.request(ExportRequest { recipients });
    let answer = client(home).await?.export(request).await;
    let vault = answer.map_err(refused("broker"))?.into_inner().vault;
    let written = stdout.write_all(&vault).and_then(|()| stdout.flush());
    written.context("writing the export")?;
    Ok(Done::Well)
}

fn restore(home: &Home, args: &RestoreArgs, out: &mut Out) -> anyhow::Result<Done> {
    on_the_host(home)?;
    let copy = read_copy(&args.copy)?;
    let key = args.identity.as_deref().map(identity).transpose()?;
    let text = key.as_ref().map(SealingKey::to_file_text);
    let line = text.as_ref().and_then(|text| text.lines().last());
    let line = line.unwrap_or_default();
    let mut input = Zeroizing::new(Vec::with_capacity(line.len() + 1 + copy.len()));
    input.extend_from_slice(line.as_bytes());
    input.push(b'\n');
    input.extend_from_slice(&copy);
    let verb = if args.replace {
        &["restore", "--replace"][..]
    } else {
        &["restore"]
    };
    agreed(home, verb, &input, args.yes, out)
}

/// Shows the vault, and takes over the very file that was shown: while somebody reads, another could be put in its place.
fn adopt(home: &Home, args: &AdoptArgs, out: &mut Out) -> anyhow::Result<Done> {
    if args.yes {
        let expected = args.expect.iter().flat_map(|it| ["--expect", it.as_str()]);
        let verb: Vec<_> = ["adopt", "--yes"].into_iter().chain(expected).collect();
        return offline(home, &verb, &[]);
    }
    on_the_host(home)?;
    let (done, said) = forward::heard_from_custody(home, &["adopt"], &[])?;
    out.line(said.trim_end());
    let shown = said.lines().find_map(|line| line.strip_prefix("sha256 "));
    let Some(shown) = shown.filter(|_| done == Done::Well) else {
        // There is nothing to take over, or it says why it is not.
        return Ok(done);
    };
    ensure!(
        std::io::stdin().is_terminal(),
        Misconfigured(format!(
            "nothing was changed: the same with --yes --expect {shown} does it"
        ))
    );
    if !asked("Do it? [y/N] ")? {
        eprintln!("nothing was changed");
        return Ok(Done::Badly);
    }
    offline(home, &["adopt", "--yes", "--expect", shown], &[])
}

/// Does what brings something back to life: first it is said what, and then it is asked for.
fn agreed(
    home: &Home,
    verb: &[&str],
    input: &[u8],
    yes: bool,
    out: &mut Out,
) -> anyhow::Result<Done> {
    let verb_with_yes = [verb, &["--yes"]].concat();
    if yes {
        return offline(home, &verb_with_yes, input);
    }
    let (said, shown) = forward::heard_from_custody(home, verb, input)?;
    if said != Done::Well {
        // It has said why itself.
        return Ok(said);
    }
    out.line(shown.trim_end());
    ensure!(
        std::io::stdin().is_terminal(),
        Misconfigured("nothing was changed: the same with --yes does it".to_owned())
    );
    if !asked("Do it? [y/N] ")? {
        eprintln!("nothing was changed");
        return Ok(Done::Badly);
    }
    let (done, said) = forward::heard_from_custody(home, &verb_with_yes, input)?;
    if done == Done::Well {
        // It says the same once more, and then what it did; what is not the same any more is shown.
        out.line(said.strip_prefix(&shown).unwrap_or(&said).trim_end());
    }
    Ok(done)
}

fn asked(question: &str) -> anyhow::Result<bool> {
    eprint!("{question}");
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("reading the answer")?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}

fn read_copy(path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let file = std::fs::File::open(path);
    let file = file.map_err(|e| Misconfigured(format!("{shown} cannot be opened: {e}")))?;
    let mut copy = Vec::new();
    file.take(MAX_VAULT_BYTES as u64 + 1)
        .read_to_end(&mut copy)
        .with_context(|| format!("reading {shown}"))?;
    ensure!(
        copy.len() <= MAX_VAULT_BYTES,
        Misconfigured(format!("{shown} is larger than a vault can be"))
    );
    Ok(copy)
}

/// From a file, or from whoever has the paper in hand.
fn identity(path: &Path) -> anyhow::Result<SealingKey> {
    let key = if path == Path::new("-") {
        // Where `rpassword` asks, whatever standard input is.
        std::fs::File::open("/dev/tty").map_err(|e| {
            Misconfigured(format!(
                "the key is asked for at a terminal, and there is none ({e}): name the file that holds it with --identity FILE"
            ))
        })?;
        let typed = rpassword::prompt_password("Age key that opens the copy (not shown): ");
        let typed = Zeroizing::new(typed.context("reading the key")?);
        SealingKey::parse(&typed, "what was typed")
    } else {
        SealingKey::read(path)
    };
    Ok(key.map_err(|e| Misconfigured(e.to_string()))?)
}

fn offline(home: &Home, args: &[&str], input: &[u8]) -> anyhow::Result<Done> {
    on_the_host(home)?;
    forward::to_custody(home, args, input)
}

fn on_the_host(home: &Home) -> anyhow::Result<()> {
    ensure!(
        !home.is_inside(),
        Misconfigured("this is done on the host, with the broker stopped".to_owned())
    );
    Ok(())
}
