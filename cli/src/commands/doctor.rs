//! `skerry doctor`: what is wrong with this installation, and what to do about it.

use super::keys;
use crate::output;
use crate::settings::Settings;
use serde_json::json;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  skerry doctor --json")]
pub struct Args {
    #[arg(long)]
    json: bool,
}

struct Finding {
    what: &'static str,
    /// What is wrong and the remedy, where something is.
    wrong: Option<String>,
    found: String,
}

pub fn run(args: &Args, settings: &Settings) -> anyhow::Result<ExitCode> {
    let findings = [
        state(settings)?,
        free_port(settings)?,
        free_quic(settings)?,
        key_files(settings),
        worker(),
    ];
    let bad = findings.iter().any(|finding| finding.wrong.is_some());
    if args.json {
        let all: Vec<_> = findings
            .iter()
            .map(|f| json!({"what": f.what, "ok": f.wrong.is_none(), "found": f.found, "wrong": f.wrong}))
            .collect();
        println!("{}", serde_json::to_string(&all)?);
    } else {
        let rows = findings.iter().map(|finding| {
            let verdict = finding.wrong.clone().unwrap_or_else(|| "ok".to_owned());
            vec![finding.what.to_owned(), finding.found.clone(), verdict]
        });
        output::table(&["what", "found", "verdict"], rows);
    }
    Ok(if bad {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}

fn state(settings: &Settings) -> anyhow::Result<Finding> {
    let state = settings.text("node.state", None)?;
    let path = Path::new(&state);
    let (found, wrong) = if path.exists() {
        let probe = tempfile::Builder::new().prefix(".doctor").tempfile_in(path);
        let wrong = probe
            .err()
            .map(|error| format!("{state} cannot be written: {error}"));
        ("present", wrong)
    } else {
        ("absent: the first start makes it", None)
    };
    Ok(Finding {
        what: "state folder",
        found: format!("{state}, {found}"),
        wrong,
    })
}

fn free_port(settings: &Settings) -> anyhow::Result<Finding> {
    let bind = settings.text("pop.bind", None)?;
    let port: u16 = settings.parsed("pop.port", None)?;
    let wrong = TcpListener::bind((bind.as_str(), port)).err();
    let wrong = wrong.map(|error| {
        format!("{error}: another process has it; choose another with --port or SKERRY_PORT")
    });
    Ok(Finding {
        what: "edge port",
        found: format!("{bind}:{port}"),
        wrong,
    })
}

fn free_quic(settings: &Settings) -> anyhow::Result<Finding> {
    let listen = settings.text("origin.listen", None)?;
    let wrong = UdpSocket::bind(&listen).err();
    let wrong = wrong
        .map(|error| format!("{error}: choose another address with --listen or SKERRY_LISTEN"));
    Ok(Finding {
        what: "QUIC port (UDP)",
        found: listen,
        wrong,
    })
}

fn key_files(settings: &Settings) -> Finding {
    let what = "keys";
    let Some(dir) = settings.maybe("node.keys", None) else {
        return Finding {
            what,
            found: "none set: `up` makes its own".to_owned(),
            wrong: None,
        };
    };
    let mut wrong = Vec::new();
    for file in keys::FILES {
        match std::fs::metadata(Path::new(&dir).join(file)) {
            Err(error) => wrong.push(format!("{file}: {error}")),
            Ok(meta) if meta.permissions().mode() & 0o077 != 0 => {
                wrong.push(format!("{file} can be read by others: chmod 600"));
            }
            Ok(_) => {}
        }
    }
    let wrong = (!wrong.is_empty()).then(|| wrong.join("; "));
    Finding {
        what,
        found: dir,
        wrong,
    }
}

fn worker() -> Finding {
    let wrong = !skerry_edge_pop::has_worker();
    let remedy = "this binary has no worker inside: build it with `cargo xtask build`";
    Finding {
        what: "worker",
        found: if wrong { "absent" } else { "embedded" }.to_owned(),
        wrong: wrong.then(|| remedy.to_owned()),
    }
}
