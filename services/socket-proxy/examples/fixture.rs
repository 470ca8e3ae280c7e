//! What the tests run in cells: a plugin that does as its request says, and tells what it sees.

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, socket};
use serde_json::{Value, json};

/// Where the holder listens.
const HOLDER: &str = "127.0.0.1:3128";

fn main() -> ExitCode {
    let ran = match std::env::args().nth(1).as_deref() {
        Some("child") => return ExitCode::SUCCESS,
        Some("pause") => hang(),
        Some("egress") => hold(),
        Some("early") => early(),
        Some("complain") => {
            eprintln!("this interpreter is old");
            run()
        }
        _ => run(),
    };
    match ran {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let request: Value = serde_json::from_str(&text)?;
    let mut out = std::io::stdout().lock();
    match request.get("command").and_then(Value::as_str) {
        Some("echo") => out.write_all(text.as_bytes())?,
        Some("tell") => tell(&request)?,
        Some("walls") => writeln!(out, "{}", walls())?,
        Some("flood") => {
            for _ in 0..13 {
                out.write_all(&vec![b'x'; 1 << 20])?;
            }
        }
        Some("hang") => return hang(),
        Some("write") => std::fs::write(text_of(&request, "path"), text_of(&request, "text"))?,
        Some("fill") => fill(&request)?,
        // A folder that nobody looks into, not even this.
        Some("close") => {
            let path = text_of(&request, "path");
            std::fs::create_dir(path)?;
            std::fs::set_permissions(path, Permissions::from_mode(0o000))?;
        }
        Some("read") => out.write_all(&std::fs::read(text_of(&request, "path"))?)?,
        Some("dial") => {
            let mut said = String::new();
            TcpStream::connect(HOLDER)?.read_to_string(&mut said)?;
            out.write_all(said.as_bytes())?;
        }
        _ => return Ok(ExitCode::from(7)),
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn text_of<'a>(request: &'a Value, name: &str) -> &'a str {
    request
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Writes files of 1 MiB to a folder until somebody ends it, or there are as many as it should write.
fn fill(request: &Value) -> std::io::Result<()> {
    let path = Path::new(text_of(request, "path"));
    let files = request.get("files").and_then(Value::as_u64);
    for number in 0..files.unwrap_or(u64::MAX) {
        std::fs::write(path.join(number.to_string()), vec![b'x'; 1 << 20])?;
        if files.is_none() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

fn hang() -> Result<ExitCode, Box<dyn std::error::Error>> {
    loop {
        std::thread::park();
    }
}

/// A plugin that answers before it was asked.
fn early() -> Result<ExitCode, Box<dyn std::error::Error>> {
    println!("{{\"status\":\"ok\"}}");
    hang()
}

/// A holder as far as these tests need one: it tells its lease to whoever asks in its namespace.
fn hold() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let listener = TcpListener::bind(HOLDER)?;
    println!("ready");
    let mut lease = String::new();
    std::io::stdin().read_to_string(&mut lease)?;
    loop {
        listener.accept()?.0.write_all(lease.as_bytes())?;
    }
}

/// Writes the secret in two pieces, so that they arrive as two frames, and its first half alone on the other stream.
fn tell(request: &Value) -> std::io::Result<()> {
    let secret = request
        .pointer("/secrets/token")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let (first, second) = secret.split_at(secret.len() / 2);
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    write!(out, "it is {first}")?;
    out.flush()?;
    write!(err, "half: {first}")?;
    err.flush()?;
    writeln!(out, "{second}.")?;
    out.flush()
}

fn walls() -> Value {
    let mut env: Vec<String> = std::env::vars()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    env.sort();
    json!({
        "uid": rustix::process::getuid().as_raw(),
        "cwd": std::env::current_dir().unwrap_or_default(),
        "env": env,
        "root_is_writable": std::fs::write("/plugin/x", "").is_ok(),
        "home_is_writable": std::fs::write("x", "").is_ok(),
        "tmp_is_writable": std::fs::write("/tmp/x", "").is_ok(),
        "tmp_is_executable": runs_from(Path::new("/tmp/copy")),
        "home_is_executable": runs_from(Path::new("copy")),
        "children_run": Command::new("/proc/self/exe").arg("child").status().is_ok_and(|s| s.success()),
        "threads_run": std::thread::spawn(|| ()).join().is_ok(),
        "vsock": opens(40),
        "bluetooth": opens(31),
        "inet": opens(2),
        "unix": opens(1),
        "interfaces": std::fs::read_to_string("/proc/net/route").unwrap_or_default().lines().count(),
        "processes": std::fs::read_dir("/proc").map_or(0, |dir| {
            dir.flatten().filter(|e| e.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit())).count()
        }),
    })
}

fn opens(family: u16) -> bool {
    socket(AddressFamily::from_raw(family), SocketType::STREAM, None).is_ok()
}

fn runs_from(path: &Path) -> bool {
    let copied = std::fs::copy("/proc/self/exe", path).is_ok();
    copied && Command::new(path).arg("child").status().is_ok()
}
