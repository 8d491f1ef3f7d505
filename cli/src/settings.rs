//! Settings: flags over `SKERRY_*` over `skerry.toml` over defaults, and where each one came from.
//!
//! Invariant: every setting is in [`TABLE`]; a name that is not is refused, with the nearest one.

use anyhow::Context;
use skerry_origin_gateway::EventRule;
use skerry_types::{Surface, Taste};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One setting: its name in `skerry.toml` (`section.key`), its variable, its default.
pub struct Setting {
    pub name: &'static str,
    pub env: &'static str,
    pub default: &'static str,
    pub help: &'static str,
}

macro_rules! settings {
    ($($name:literal $env:literal = $default:literal: $help:literal,)+) => {
        /// All settings. An empty default means that there is none.
        pub const TABLE: &[Setting] =
            &[$(Setting { name: $name, env: $env, default: $default, help: $help },)+];
    };
}
settings! {
    "node.data" "SKERRY_DATA" = "": "folder of items and events to import",
    "node.state" "SKERRY_STATE" = ".skerry": "folder that everything durable lies in",
    "node.keys" "SKERRY_KEYS" = "": "folder made by `skerry keys new`",
    "node.region" "SKERRY_REGION" = "local": "name of the region",
    "node.log" "SKERRY_LOG" = "warn": "log level or filter",
    "node.log_format" "SKERRY_LOG_FORMAT" = "text": "text or json",
    "pop.bind" "SKERRY_BIND" = "127.0.0.1": "address that a PoP listens on",
    "pop.port" "SKERRY_PORT" = "8080": "port that a PoP listens on",
    "pop.name" "SKERRY_POP_NAME" = "pop1": "name of the PoP",
    "pop.origin" "SKERRY_ORIGIN" = "": "address of the origin's QUIC listener",
    "pop.worker" "SKERRY_WORKER" = "": "worker component that a PoP runs; without it the one inside the binary",
    "origin.listen" "SKERRY_LISTEN" = "127.0.0.1:7443": "address of the origin's QUIC listener (UDP)",
    "origin.admin" "SKERRY_ADMIN" = "127.0.0.1:8081": "address of the origin's HTTP admin API",
    "origin.seed" "SKERRY_SEED" = "7": "seed of everything that training draws",
    "origin.pool_items" "SKERRY_POOL_ITEMS" = "10000": "items that PoPs can rank without the origin",
    "origin.popular_ms" "SKERRY_POPULAR_MS" = "30000": "popular lists are sent at most this often for what events change",
    "origin.explore" "SKERRY_EXPLORE" = "true": "whether some slots are drawn by the bandit",
    "origin.vectors" "SKERRY_VECTORS" = "": "shard nodes that keep users' vectors, HOST:PORT with commas between; without it they are kept in the origin's state",
    "vector.dir" "SKERRY_VECTOR_DIR" = ".skerry/vector": "folder of a shard node",
    "vector.listen" "SKERRY_VECTOR_LISTEN" = "127.0.0.1:7700": "address of a shard node (gRPC)",
    "vector.admin" "SKERRY_VECTOR_ADMIN" = "127.0.0.1:0": "address of a shard node's health, readiness and metrics (HTTP)",
    "vector.advertise" "SKERRY_VECTOR_ADVERTISE" = "": "where others reach a shard node; without it the address that it listens on",
    "vector.node" "SKERRY_VECTOR_NODE" = "node1": "name of a shard node",
    "vector.etcd" "SKERRY_VECTOR_ETCD" = "": "endpoints of etcd; without it a shard node is on its own",
    "vector.etcd_ca" "SKERRY_VECTOR_ETCD_CA" = "": "certificate that etcd's own is signed by; with it etcd is spoken to by TLS",
    "vector.etcd_cert" "SKERRY_VECTOR_ETCD_CERT" = "": "certificate of a shard node, where etcd wants one",
    "vector.etcd_key" "SKERRY_VECTOR_ETCD_KEY" = "": "key of that certificate",
    "vector.etcd_user" "SKERRY_VECTOR_ETCD_USER" = "": "user of etcd; the password is the variable SKERRY_ETCD_PASSWORD",
    "vector.collection" "SKERRY_VECTOR_COLLECTION" = "users": "name of the collection of shard nodes that belong together",
    "vector.dim" "SKERRY_VECTOR_DIM" = "64": "components of each vector",
    "vector.metric" "SKERRY_VECTOR_METRIC" = "cosine": "cosine, dot or l2",
    "vector.stored" "SKERRY_VECTOR_STORED" = "f32": "how vectors lie on disk: f32 or f16",
    "vector.fields" "SKERRY_VECTOR_FIELDS" = "model": "fields that filters may name",
    "vector.shards" "SKERRY_VECTOR_SHARDS" = "1": "shards of the first table",
    "vector.nodes" "SKERRY_VECTOR_NODES" = "": "nodes of the first table; without it the node itself",
    "vector.codes" "SKERRY_VECTOR_CODES" = "bytes": "how vectors are coded in memory: bytes, or bits (a third of the memory, more reads)",
    "vector.build_threads" "SKERRY_VECTOR_BUILD_THREADS" = "1": "threads of a seal or a compaction, 1 to 64",
    "vector.cpu_percent" "SKERRY_VECTOR_CPU_PERCENT" = "50": "share of their time that the threads of compaction may take, 1 to 100",
    "vector.lease_ms" "SKERRY_VECTOR_LEASE_MS" = "3000": "how long a leader leads without an answer of coordination",
    "limits.fresh_active_ms" "SKERRY_FRESH_ACTIVE_MS" = "300000": "freshness of a cached answer for a user who acted lately",
    "limits.fresh_idle_ms" "SKERRY_FRESH_IDLE_MS" = "900000": "freshness of a cached answer for others",
    "limits.asks_max" "SKERRY_ASKS_MAX" = "512": "questions in flight at an origin; beyond it they are refused at once",
    "limits.connections_max" "SKERRY_CONNECTIONS_MAX" = "1024": "PoPs connected to an origin",
    "limits.admin_connections_max" "SKERRY_ADMIN_CONNECTIONS_MAX" = "256": "connections of an origin's admin API",
    "limits.body_ms" "SKERRY_BODY_MS" = "10000": "a body of the admin API must arrive within this",
    "limits.push_ms" "SKERRY_PUSH_MS" = "60000": "a PoP must take a push within this",
    "limits.drain_ms" "SKERRY_DRAIN_MS" = "10000": "a drain of an origin takes at most this",
    "limits.cache_bytes" "SKERRY_CACHE_BYTES" = "67108864": "bound of a PoP's response cache",
    "client.edge" "SKERRY_EDGE" = "": "where `get` asks; without it what STATE/endpoints.json says, else http://127.0.0.1:8080",
    "client.admin_url" "SKERRY_ADMIN_URL" = "": "where `import` and `explain` ask; without it what STATE/endpoints.json says, else http://127.0.0.1:8081",
    "client.vector" "SKERRY_VECTOR" = "127.0.0.1:7700": "shard node that `shard` asks",
    "client.key" "SKERRY_KEY" = "": "API key that `get`, `import` and `explain` send",
}

/// Variables of ours that are no settings.
const OTHER_ENV: [&str; 6] = [
    "SKERRY_ETCD_PASSWORD",
    "SKERRY_CACHE",
    "SKERRY_TEST",
    "SKERRY_TEST_CLOCK",
    "SKERRY_BIN",
    "SKERRY_DATA_DIR",
];
/// Longest `skerry.toml`, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Something that the user wrote is wrong: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

pub fn usage(message: impl Into<String>) -> anyhow::Error {
    UsageError(message.into()).into()
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Env(&'static str),
    File(PathBuf),
    Default,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Env(name) => write!(f, "variable {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// All settings below the flags, resolved.
#[derive(Debug)]
pub struct Settings {
    /// Names of `[surfaces.NAME]`.
    pub surfaces: Vec<Surface>,
    /// `[events.TYPE]`
    pub events: BTreeMap<Box<str>, EventRule>,
    values: BTreeMap<&'static str, (String, Source)>,
    /// The file that was read, where there is one.
    file: PathBuf,
}

impl Settings {
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> anyhow::Result<Self> {
        let env: BTreeMap<String, String> = env
            .filter(|(name, _)| name.starts_with("SKERRY_"))
            .collect();
        for name in env.keys() {
            if !OTHER_ENV.contains(&name.as_str())
                && !TABLE.iter().any(|setting| setting.env == name)
            {
                let near = nearest(name, TABLE.iter().map(|setting| setting.env));
                eprintln!(
                    "warning: the variable {name} is unknown and ignored; the nearest one is {near}"
                );
            }
        }
        let (path, required) = match file {
            Some(path) => (path.to_path_buf(), true),
            None => (PathBuf::from("skerry.toml"), false),
        };
        let from_file = match read(&path) {
            Ok(text) => parse(&text).with_context(|| format!("in {}", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {
                File::default()
            }
            Err(error) => return Err(usage(format!("cannot read {}: {error}", path.display()))),
        };
        let values = TABLE.iter().map(|setting| {
            let found = match (env.get(setting.env), from_file.values.get(setting.name)) {
                (Some(value), _) => (value.clone(), Source::Env(setting.env)),
                (None, Some(value)) => (value.clone(), Source::File(path.clone())),
                (None, None) => (setting.default.to_owned(), Source::Default),
            };
            (setting.name, found)
        });
        Ok(Self {
            values: values.collect(),
            surfaces: from_file.surfaces,
            events: from_file.events,
            file: path,
        })
    }

    /// Every setting with its value and source, by name; then the sections of surfaces and events, which
    /// only a file has.
    pub fn all(&self) -> impl Iterator<Item = (String, String, Source)> {
        let values = self.values.iter();
        let values = values
            .map(|(name, (value, source))| ((*name).to_owned(), value.clone(), source.clone()));
        let surfaces = self.surfaces.iter();
        let surfaces = surfaces.map(|surface| (format!("surfaces.{surface}"), String::new()));
        let events = self.events.iter().flat_map(|(name, rule)| {
            let taste = rule.taste.map(|taste| {
                let at = TASTES.iter().find(|(_, known)| *known == taste);
                let text = at.map_or("", |(text, _)| text);
                (format!("events.{name}.taste"), text.to_owned())
            });
            let weight = (format!("events.{name}.weight"), rule.weight.to_string());
            taste.into_iter().chain([weight])
        });
        let sections = surfaces.chain(events);
        values.chain(sections.map(|(name, value)| (name, value, Source::File(self.file.clone()))))
    }

    /// The value of a setting, or the flag's where it was given; an error where there is neither.
    pub fn text(&self, name: &str, flag: Option<String>) -> anyhow::Result<String> {
        self.maybe(name, flag).ok_or_else(|| {
            let env = TABLE
                .iter()
                .find(|setting| setting.name == name)
                .map_or("", |setting| setting.env);
            usage(format!(
                "{name} is not set: give the flag, the variable {env}, or {name} in skerry.toml"
            ))
        })
    }

    pub fn maybe(&self, name: &str, flag: Option<String>) -> Option<String> {
        let set = flag.or_else(|| self.values.get(name).map(|(value, _)| value.clone()));
        set.filter(|value| !value.is_empty())
    }

    /// Where a running system listens: as set, else as `STATE/endpoints.json` says, else where it
    /// listens by default. Without a slash at its end.
    pub fn endpoint(&self, name: &str, flag: Option<String>) -> anyhow::Result<String> {
        let (key, otherwise) = match name {
            "client.edge" => ("edge", "http://127.0.0.1:8080"),
            _ => ("admin", "http://127.0.0.1:8081"),
        };
        let told = || {
            let path = Path::new(&self.text("node.state", None).ok()?).join("endpoints.json");
            let endpoints: serde_json::Value = serde_json::from_str(&read(&path).ok()?).ok()?;
            Some(endpoints.get(key)?.as_str()?.to_owned())
        };
        let url = self
            .maybe(name, flag)
            .or_else(told)
            .unwrap_or_else(|| otherwise.to_owned());
        Ok(url.trim_end_matches('/').to_owned())
    }

    /// A setting, parsed; the error says where the value came from.
    pub fn parsed<T: std::str::FromStr>(&self, name: &str, flag: Option<T>) -> anyhow::Result<T>
    where
        T::Err: std::fmt::Display,
    {
        if let Some(value) = flag {
            return Ok(value);
        }
        let text = self.text(name, None)?;
        text.parse().map_err(|error| {
            let source = self
                .values
                .get(name)
                .map_or_else(String::new, |(_, source)| source.to_string());
            usage(format!("{name} = {text:?} ({source}): {error}"))
        })
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(std::io::Error::other("larger than 1 MiB"));
    }
    std::fs::read_to_string(path)
}

/// What a file says.
#[derive(Default)]
struct File {
    values: BTreeMap<String, String>,
    surfaces: Vec<Surface>,
    events: BTreeMap<Box<str>, EventRule>,
}

fn parse(text: &str) -> anyhow::Result<File> {
    let table: toml::Table = text.parse().map_err(|error| usage(format!("{error}")))?;
    let mut file = File::default();
    for (section, values) in table {
        let toml::Value::Table(values) = values else {
            return Err(usage(format!(
                "`{section}` stands outside a section such as [node]"
            )));
        };
        for (key, value) in values {
            let name = format!("{section}.{key}");
            if section == "surfaces" {
                file.surfaces.push(surface(&key, &value)?);
                continue;
            }
            if section == "events" {
                let rule = event(&value).and_then(|rule| rule.check(&key));
                let rule = rule.map_err(|error| usage(format!("[events.{key}]: {error}")))?;
                file.events.insert(key.into(), rule);
                continue;
            }
            if !TABLE.iter().any(|setting| setting.name == name) {
                let near = nearest(&name, TABLE.iter().map(|setting| setting.name));
                return Err(usage(format!(
                    "`{name}` is unknown; the nearest setting is `{near}`"
                )));
            }
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(flag) => flag.to_string(),
                other => return Err(usage(format!("`{name}` cannot be {}", other.type_str()))),
            };
            file.values.insert(name, text);
        }
    }
    Ok(file)
}

/// `[surfaces.NAME]`: a surface that has a metric class of its own. It has no settings yet.
fn surface(name: &str, value: &toml::Value) -> anyhow::Result<Surface> {
    match value.as_table() {
        Some(table) if table.is_empty() => {
            Surface::new(name).map_err(|error| usage(format!("[surfaces.{name}]: {error}")))
        }
        Some(_) => Err(usage(format!("[surfaces.{name}] takes no settings"))),
        None => Err(usage(format!("write [surfaces.{name}]"))),
    }
}

const TASTES: [(&str, Taste); 3] = [
    ("positive", Taste::Positive),
    ("negative", Taste::Negative),
    ("neutral", Taste::Neutral),
];

/// `[events.TYPE]`: what events of a type say.
fn event(value: &toml::Value) -> Result<EventRule, String> {
    let table = value.as_table().ok_or("it is a section of its own")?;
    let mut rule = EventRule::default();
    for (key, value) in table {
        match (key.as_str(), value) {
            ("taste", toml::Value::String(taste)) => {
                let known = TASTES.iter().find(|(text, _)| text == taste);
                let (_, taste) = known.ok_or("taste is positive, negative or neutral")?;
                rule.taste = Some(*taste);
            }
            ("weight", toml::Value::Integer(weight)) => rule.weight = *weight as f32,
            ("weight", toml::Value::Float(weight)) => rule.weight = *weight as f32,
            ("taste" | "weight", other) => {
                return Err(format!("{key} cannot be {}", other.type_str()));
            }
            _ => return Err(format!("`{key}` is unknown; it takes taste and weight")),
        }
    }
    Ok(rule)
}

fn nearest(name: &str, all: impl Iterator<Item = &'static str>) -> &'static str {
    all.min_by_key(|known| distance(name, known))
        .unwrap_or_default()
}

/// Levenshtein distance, by bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let swap = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = swap.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, env: &[(&str, &str)]) -> anyhow::Result<Settings> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("skerry.toml");
        std::fs::write(&path, file).unwrap();
        Settings::load(
            Some(&path),
            env.iter()
                .map(|(name, value)| ((*name).into(), (*value).into())),
        )
    }

    #[test]
    fn flags_over_variables_over_file_over_defaults() {
        let file = "[pop]\nport = 1\nname = \"a\"\n[surfaces.player-end]\n";
        let settings = load(file, &[("SKERRY_PORT", "2")]).unwrap();
        assert_eq!(settings.surfaces, [Surface::new("player-end").unwrap()]);
        assert_eq!(settings.parsed("pop.port", Some(3u16)).unwrap(), 3);
        assert_eq!(settings.parsed::<u16>("pop.port", None).unwrap(), 2);
        assert_eq!(settings.text("pop.name", None).unwrap(), "a");
        assert_eq!(settings.text("node.region", None).unwrap(), "local");
        let port = settings.all().find(|(name, ..)| name == "pop.port");
        assert_eq!(port.unwrap().2, Source::Env("SKERRY_PORT"));
    }

    #[test]
    fn types_of_events_have_sections() {
        let file =
            "[events.finished]\ntaste = \"positive\"\nweight = 2.5\n[events.like]\nweight = 3\n";
        let settings = load(file, &[]).unwrap();
        let found: Vec<_> = settings
            .events
            .iter()
            .map(|(name, rule)| (&**name, rule.taste, rule.weight))
            .collect();
        let want = [
            ("finished", Some(Taste::Positive), 2.5),
            ("like", None, 3.0),
        ];
        assert_eq!(found, want);
        let shown = settings
            .all()
            .filter(|(name, ..)| name.starts_with("events."));
        let shown: Vec<_> = shown
            .map(|(name, value, _)| format!("{name}={value}"))
            .collect();
        let want = [
            "events.finished.taste=positive",
            "events.finished.weight=2.5",
            "events.like.weight=3",
        ];
        assert_eq!(shown, want);
    }

    #[test]
    fn what_is_wrong_is_named_with_a_remedy() {
        let cases = [
            ("[surfaces.Home]\n", "a-z"),
            ("[surfaces.home]\nn = 1\n", "no settings"),
            ("[pop]\nprot = 1\n", "pop.port"),
            (
                "[events.finished]\ntaste = \"good\"\n",
                "positive, negative",
            ),
            ("[events.finished]\nweight = \"2\"\n", "cannot be string"),
            ("[events.finished]\nwieght = 2\n", "taste and weight"),
            ("[events.Finished]\nweight = 2\n", "a-z"),
            ("[events.finished]\nweight = 101\n", "0 to 100"),
            ("[events.like]\ntaste = \"neutral\"\n", "built in"),
            ("port = 1\n", "outside a section"),
            ("[pop]\nport = [1]\n", "cannot be array"),
            ("[pop\n", "skerry.toml"),
        ];
        for (file, want) in cases {
            let error = format!("{:#}", load(file, &[]).unwrap_err());
            assert!(error.contains(want), "{file:?}: {error}");
        }
        let settings = load("", &[("SKERRY_PORT", "many")]).unwrap();
        let error = settings
            .parsed::<u16>("pop.port", None)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("SKERRY_PORT") && error.contains("many"),
            "{error}"
        );
        let error = settings.text("node.keys", None).unwrap_err();
        assert!(
            error.is::<UsageError>() && error.to_string().contains("SKERRY_KEYS"),
            "{error}"
        );
    }
}
