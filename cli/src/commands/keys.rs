//! `skerry keys new DIR`: a certificate authority, one certificate for an origin, one for a PoP and one
//! for shard nodes, and API keys.
//!
//! Invariants: nothing existing is ever overwritten; every file is readable by its owner only.

use anyhow::{Context, bail};
use clap::Subcommand;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use ring::rand::{SecureRandom, SystemRandom};
use skerry_vector_shard::tls;
use skerry_wire::frame::SERVER_NAME;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Years that a certificate is good for.
const VALID_YEARS: i16 = 10;
/// Random bytes in an API key.
const API_KEY_BYTES: usize = 32;

/// Every file that `keys new` writes.
pub const FILES: [&str; 11] = [
    "ca.crt",
    "ca.key",
    "origin.crt",
    "origin.key",
    "pop.crt",
    "pop.key",
    "vector.crt",
    "vector.key",
    "api-public.key",
    "api-secret.key",
    "api-pop.key",
];

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  skerry keys new keys/")]
pub struct Args {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Write new keys into a folder that holds none.
    New {
        dir: std::path::PathBuf,
        /// Region named in the certificates.
        #[arg(long, default_value = "local")]
        region: String,
        /// Name of the origin in its certificate.
        #[arg(long, default_value = "origin1")]
        origin: String,
        /// Name of the PoP in its certificate.
        #[arg(long, default_value = "pop1")]
        pop: String,
    },
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let KeysCommand::New {
        dir,
        region,
        origin,
        pop,
    } = &args.command;
    create(
        dir,
        &Names {
            region,
            origin,
            pop,
        },
    )?;
    eprintln!("wrote {} files into {}", FILES.len(), dir.display());
    Ok(())
}

/// What the certificates say about their holders.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    pub region: &'a str,
    pub origin: &'a str,
    pub pop: &'a str,
}

impl Default for Names<'_> {
    fn default() -> Self {
        Self {
            region: "local",
            origin: "origin1",
            pop: "pop1",
        }
    }
}

/// Writes all [`FILES`] into `dir`, which is made where it is missing; refuses a folder that has
/// any of them.
pub fn create(dir: &Path, names: &Names<'_>) -> anyhow::Result<()> {
    for name in [names.region, names.origin, names.pop] {
        let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(ok) {
            bail!(
                "{name:?} cannot be a name in a certificate: 1 to 64 characters of a-z, 0-9 and '-'"
            );
        }
    }
    std::fs::create_dir_all(dir)
        .with_context(|| format!("cannot make the folder {}", dir.display()))?;
    if let Some(found) = FILES.iter().find(|file| dir.join(file).exists()) {
        bail!(
            "{} already exists: choose another folder, or remove the old keys first",
            dir.join(found).display()
        );
    }
    let ca = authority(names.region)?;
    let origin_uri = format!("skerry://{}/origin/{}", names.region, names.origin);
    let pop_uri = format!("skerry://{}/pop/{}", names.region, names.pop);
    let vector_uri = format!("skerry://{}/vector/{}", names.region, names.region);
    let (server, client) = (
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    );
    let only_server = vec![server.clone()];
    let (origin_crt, origin_key) = leaf(
        &ca,
        names.origin,
        &origin_uri,
        Some(SERVER_NAME),
        only_server,
    )?;
    let (pop_crt, pop_key) = leaf(&ca, names.pop, &pop_uri, None, vec![client.clone()])?;
    // Nodes follow each other: each is server and client.
    let both = vec![server, client];
    let (vector_crt, vector_key) = leaf(&ca, "vector", &vector_uri, Some(tls::SERVER_NAME), both)?;
    let contents = [
        ca.pem(),
        ca.key().serialize_pem(),
        origin_crt,
        origin_key,
        pop_crt,
        pop_key,
        vector_crt,
        vector_key,
        api_key("public")?,
        api_key("secret")?,
        api_key("pop")?,
    ];
    for (file, content) in FILES.iter().zip(&contents) {
        write_new(&dir.join(file), content)?;
    }
    Ok(())
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let today = jiff::Zoned::now().date();
    // A day of grace for machines whose clocks disagree; the 28th exists in every month.
    let yesterday = today.yesterday().unwrap_or(today);
    let date = |date: jiff::civil::Date, years: i16| {
        let day = if years == 0 {
            date.day()
        } else {
            date.day().min(28)
        };
        rcgen::date_time_ymd(
            i32::from(date.year() + years),
            date.month().unsigned_abs(),
            day.unsigned_abs(),
        )
    };
    params.not_before = date(yesterday, 0);
    params.not_after = date(today, VALID_YEARS);
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

fn authority(region: &str) -> anyhow::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = params(&format!("skerry {region} authority"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

fn leaf(
    ca: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    uri: &str,
    dns: Option<&str>,
    uses: Vec<ExtendedKeyUsagePurpose>,
) -> anyhow::Result<(String, String)> {
    let mut params = params(name);
    params.subject_alt_names.push(SanType::URI(uri.try_into()?));
    if let Some(dns) = dns {
        params
            .subject_alt_names
            .push(SanType::DnsName(dns.try_into()?));
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = uses;
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, ca)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn api_key(kind: &str) -> anyhow::Result<String> {
    let mut bytes = [0u8; API_KEY_BYTES];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        bail!("the system gave no random bytes");
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sk_{kind}_{hex}\n"))
}

fn write_new(path: &Path, content: &str) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", path.display());
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(context)?;
    file.write_all(content.as_bytes()).with_context(context)?;
    file.sync_all().with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_private_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), &Names::default()).unwrap();
        for file in FILES {
            let mode = std::fs::metadata(dir.path().join(file))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        let before = std::fs::read(dir.path().join("ca.key")).unwrap();
        let error = create(dir.path(), &Names::default()).unwrap_err();
        assert!(error.to_string().contains("already exists"), "{error}");
        assert_eq!(std::fs::read(dir.path().join("ca.key")).unwrap(), before);
        let key = std::fs::read_to_string(dir.path().join("api-secret.key")).unwrap();
        assert_eq!(key.lines().count(), 1);
        assert!(
            key.starts_with("sk_secret_") && key.trim().len() == 10 + 64,
            "{key}"
        );
    }

    #[test]
    fn any_one_of_the_files_is_enough_to_refuse() {
        for file in FILES {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(file), "mine").unwrap();
            assert!(create(dir.path(), &Names::default()).is_err(), "{file}");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "{file}");
        }
    }

    #[test]
    fn names_that_would_break_the_identity_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["", "A", "a/b", "a b", "ü"] {
            let names = Names {
                region: name,
                ..Names::default()
            };
            assert!(
                create(&dir.path().join("keys"), &names).is_err(),
                "{name:?}"
            );
        }
    }
}
