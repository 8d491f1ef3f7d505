//! What an origin is started with.

use crate::Error;
use crate::imports;
use crate::kinds::{EventRule, KINDS_MAX};
use skerry_origin_training::TrainOptions;
use skerry_types::{Event, Item, Surface};
use skerry_wire::value::ApiKey;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Popular lists follow events after this long, by default, in milliseconds.
pub const POPULAR_MS_DEFAULT: u64 = 30_000;

const POPULAR_MS_MIN: u64 = 10;

/// What a long step is doing.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Rows read so far.
    Import { rows: u64 },
    /// A stage of training and how much of it is done, 0 to 1.
    Train { stage: &'static str, share: f32 },
    /// A line for people.
    Note(String),
}

/// Told of long work; called from many threads.
pub type Progress = Arc<dyn Fn(Step) + Send + Sync>;

/// Data to start with.
#[derive(Clone)]
pub enum Data {
    /// A folder or file: MovieLens, JSON lines, CSV.
    Path(PathBuf),
    /// Made in memory. `digest` names the content: the same digest is not imported twice.
    Made {
        digest: [u8; 32],
        items: Vec<Item>,
        events: Vec<Event>,
    },
}

impl Data {
    pub(crate) fn digest(&self) -> Result<[u8; 32], Error> {
        match self {
            Self::Path(path) => imports::digest(path),
            Self::Made { digest, .. } => Ok(*digest),
        }
    }
}

/// Bounds of the listeners, units last.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Questions in flight, over all PoPs; beyond it they are refused at once.
    pub asks_max: usize,
    /// Of PoPs: one each, and one for each of their serving threads.
    pub connections_max: usize,
    /// Streams open at once on one connection.
    pub streams_max: u32,
    pub stream_window_bytes: u32,
    pub connection_window_bytes: u32,
    /// A frame that has begun must end within this.
    pub frame_ms: u64,
    /// A connection without a packet for this long is gone.
    pub idle_ms: u32,
    /// One push must be taken within this.
    pub push_ms: u64,
    /// A drain takes at most this long.
    pub drain_ms: u64,
    /// Last acknowledgements travel for this long.
    pub linger_ms: u64,
    /// A body of the admin API must arrive within this.
    pub body_ms: u64,
    /// Connections of the admin API.
    pub admin_connections_max: usize,
}

impl Limits {
    /// Refuses bounds with which nothing works.
    fn check(&self) -> Result<(), Error> {
        let bounds: [(&str, u64, u64); 10] = [
            ("asks_max", self.asks_max as u64, 1),
            ("connections_max", self.connections_max as u64, 1),
            ("streams_max", u64::from(self.streams_max), 1),
            // A frame of the greatest size fits.
            (
                "stream_window_bytes",
                u64::from(self.stream_window_bytes),
                1 << 20,
            ),
            (
                "connection_window_bytes",
                u64::from(self.connection_window_bytes),
                1 << 20,
            ),
            ("frame_ms", self.frame_ms, 1),
            ("idle_ms", u64::from(self.idle_ms), 100),
            ("push_ms", self.push_ms, 1),
            ("body_ms", self.body_ms, 1),
            (
                "admin_connections_max",
                self.admin_connections_max as u64,
                1,
            ),
        ];
        match bounds.iter().find(|(_, value, least)| value < least) {
            Some((name, value, least)) => Err(Error::Setting {
                name: format!("limits.{name}"),
                reason: format!("{value} is too little: {least} at least"),
            }),
            None => Ok(()),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            asks_max: 512,
            connections_max: 4_096,
            streams_max: 1_024,
            stream_window_bytes: (1 << 20) + (64 << 10),
            connection_window_bytes: 16 << 20,
            frame_ms: skerry_wire::frame::FRAME_MS_MAX,
            idle_ms: 4_000,
            push_ms: 60_000,
            drain_ms: 10_000,
            linger_ms: 200,
            body_ms: 10_000,
            admin_connections_max: 256,
        }
    }
}

/// Where the vectors of users lie.
#[derive(Clone, Default)]
pub enum VectorsAt {
    /// In a shard of this process, in its state folder.
    #[default]
    Here,
    /// In a cluster of `skerry vector` nodes, of which these (`host:port`) are some.
    Nodes {
        nodes: Vec<String>,
        tls: Option<skerry_vector_shard::ClientTlsConfig>,
    },
}

/// Settings of an origin.
#[derive(Clone)]
pub struct Options {
    pub state: PathBuf,
    /// QUIC (UDP) for PoPs.
    pub listen: SocketAddr,
    /// HTTP for operators.
    pub admin: SocketAddr,
    /// Folder with `ca.crt`, `origin.crt`, `origin.key`.
    pub keys: PathBuf,
    /// Keys that may ask and administrate; empty: none is needed on loopback, and nothing else is
    /// bound ([`crate::api_keys`] reads a folder).
    pub api_keys: Vec<ApiKey>,
    pub data: Option<Data>,
    pub region: Arc<str>,
    pub surfaces: Vec<Surface>,
    pub public_names_users: Option<bool>,
    /// Freshness of a PoP's responses, milliseconds.
    pub fresh_active_ms: u32,
    pub fresh_idle_ms: u32,
    /// Popular lists are sent to PoPs at most this often for what events change in them,
    /// milliseconds.
    pub popular_ms: u64,
    /// Meaning of types of events, by name: see [`EventRule::check`].
    pub events: BTreeMap<Box<str>, EventRule>,
    /// Items of the pool that PoPs rank from without the origin.
    pub pool_items: usize,
    /// Off: no exploration at all (offline evaluation).
    pub explore: bool,
    pub train: TrainOptions,
    pub vectors: VectorsAt,
    /// Sets damaged state aside instead of refusing to start.
    pub repair: bool,
    pub limits: Limits,
    pub progress: Progress,
}

impl Options {
    /// Refuses what cannot be meant, by name.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.limits.check()?;
        let refuse = |name: String, reason: String| Err(Error::Setting { name, reason });
        if self.popular_ms < POPULAR_MS_MIN {
            return refuse(
                "origin.popular_ms".to_owned(),
                format!("{POPULAR_MS_MIN} at least"),
            );
        }
        if self.events.len() > KINDS_MAX {
            return refuse("events".to_owned(), format!("{KINDS_MAX} types at most"));
        }
        for (name, rule) in &self.events {
            if let Err(reason) = rule.check(name) {
                return refuse(format!("events.{name}"), reason);
            }
        }
        Ok(())
    }

    /// Defaults for one machine: loopback, ports chosen by the system.
    #[must_use]
    pub fn new(state: impl Into<PathBuf>, keys: impl Into<PathBuf>) -> Self {
        Self {
            state: state.into(),
            keys: keys.into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            api_keys: Vec::new(),
            data: None,
            region: Arc::from("local"),
            surfaces: Vec::new(),
            public_names_users: None,
            fresh_active_ms: 5 * 60 * 1000,
            fresh_idle_ms: 15 * 60 * 1000,
            popular_ms: POPULAR_MS_DEFAULT,
            events: BTreeMap::new(),
            pool_items: 10_000,
            explore: true,
            train: TrainOptions::default(),
            vectors: VectorsAt::Here,
            repair: false,
            limits: Limits::default(),
            progress: Arc::new(|_| {}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_types::Taste;

    /// The setting that is refused, and how it came about.
    type Case<'a> = (&'a str, &'a dyn Fn(&mut Options));

    #[test]
    fn settings_that_cannot_be_meant_are_refused_by_name() {
        let custom = |taste, weight| EventRule { taste, weight };
        let cases: [Case<'_>; 8] = [
            ("", &|_| {}),
            ("", &|options| {
                options.events =
                    BTreeMap::from([("finished".into(), custom(Some(Taste::Positive), 2.0))]);
            }),
            ("limits.asks_max", &|options| options.limits.asks_max = 0),
            ("limits.stream_window_bytes", &|options| {
                options.limits.stream_window_bytes = 1_000;
            }),
            ("limits.body_ms", &|options| options.limits.body_ms = 0),
            ("origin.popular_ms", &|options| options.popular_ms = 0),
            ("events.like", &|options| {
                options.events =
                    BTreeMap::from([("like".into(), custom(Some(Taste::Negative), 1.0))]);
            }),
            ("events", &|options| {
                options.events = (0..=KINDS_MAX)
                    .map(|n| (format!("k{n}").into(), EventRule::default()))
                    .collect();
            }),
        ];
        for (want, change) in cases {
            let mut options = Options::new("state", "keys");
            change(&mut options);
            match options.check() {
                Ok(()) => assert_eq!(want, ""),
                Err(Error::Setting { name, .. }) => assert_eq!(name, want),
                Err(other) => panic!("{want}: {other}"),
            }
        }
    }
}
