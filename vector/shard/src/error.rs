//! What can go wrong between a caller and a shard, with a stable code, and how it crosses the wire.

use crate::coordination::CoordinationError;
use crate::store::StoreError;
use crate::table::{NodeId, ShardId, TableError};
use prost::Message;
use skerry_vector_index::IndexError;
use skerry_wire::grpc::Refusal;
use std::path::{Path, PathBuf};
use tonic::{Code, Status};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Invalid(#[from] IndexError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("the request is malformed: {0}")]
    Request(String),
    #[error("the table here has epoch {epoch}, and slots have changed hands")]
    Epoch { epoch: u64 },
    #[error("shard {0} is not held here")]
    NotHere(ShardId),
    #[error("shard {0} is being opened or brought here")]
    Starting(ShardId),
    #[error("shard {0} is led by another node, or by none")]
    NotLeader(ShardId),
    #[error("a record's slot is not one of shard {0}")]
    NotOwned(ShardId),
    #[error("the lease of shard {0} has ended: without coordination nothing is written")]
    LeaseLost(ShardId),
    #[error("shard {0} has no in-sync replica: a write must be on two nodes")]
    NoInSync(ShardId),
    #[error("{reason}: the write of shard {shard} is in the leader's log, and may or may not last")]
    Unconfirmed {
        shard: ShardId,
        reason: &'static str,
    },
    #[error("this replica of shard {shard} is at {seq}, the request needs {wanted}")]
    Behind {
        shard: ShardId,
        seq: u64,
        wanted: u64,
    },
    #[error("token {got} is older than {known}: another leader has taken over")]
    Fenced { got: u64, known: u64 },
    #[error(
        "the log of shard {0} does not reach back, or has gone another way: a snapshot is needed"
    )]
    LogGone(ShardId),
    #[error("too many {0} at once")]
    Overloaded(&'static str),
    #[error("node {0} is not there: start it before it gets a replica")]
    NoNode(NodeId),
    #[error("the deadline has passed")]
    Deadline,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
    #[error(transparent)]
    Backup(#[from] skerry_vector_backup::Error),
    #[error("a restore into {} has not come to its end", dir.display())]
    Restoring { dir: PathBuf },
    #[error("a peer answered wrongly: {0}")]
    Peer(String),
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} is damaged: {reason}", path.display())]
    Corrupt { path: PathBuf, reason: String },
    #[error("cannot listen on {addr}: {reason}")]
    Listen { addr: String, reason: String },
    #[error("a worker thread ended: {0}")]
    Worker(String),
    /// What another node said.
    #[error("{message}")]
    Refused {
        code: String,
        epoch: u64,
        /// Nothing was done.
        safe: bool,
        /// The caller asked for what no shard does.
        callers: bool,
        message: String,
    },
    #[error("the node does not answer: {0}")]
    Unreachable(String),
    /// No connection was made: nothing can have arrived.
    #[error("no connection: {0}")]
    Absent(String),
}

/// Every code of this crate; its page is `docs/errors/CODE.md`.
pub const CODES: &[&str] = &[
    "coordination_access",
    "coordination_corrupt",
    "coordination_denied",
    "coordination_unavailable",
    "shard_absent",
    "shard_behind",
    "shard_conflict",
    "shard_corrupt",
    "shard_deadline",
    "shard_epoch",
    "shard_fenced",
    "shard_io",
    "shard_lease_lost",
    "shard_lease_taken",
    "shard_listen",
    "shard_log_gap",
    "shard_log_gone",
    "shard_migration_busy",
    "shard_migration_unknown",
    "shard_no_in_sync_replica",
    "shard_no_table",
    "shard_node",
    "shard_node_absent",
    "shard_not_here",
    "shard_not_leader",
    "shard_overloaded",
    "shard_peer",
    "shard_replicas",
    "shard_replicas_busy",
    "shard_replicas_unknown",
    "shard_request",
    "shard_restoring",
    "shard_slot_not_owned",
    "shard_slots",
    "shard_starting",
    "shard_table",
    "shard_unknown",
    "shard_unreachable",
    "shard_worker",
    "shard_write_unconfirmed",
];

impl Error {
    /// The stable code that logs and refusals carry.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Invalid(error) => error.code(),
            Self::Table(error) => error.code(),
            Self::Request(_) => "shard_request",
            Self::Epoch { .. } => "shard_epoch",
            Self::NotHere(_) => "shard_not_here",
            Self::Starting(_) => "shard_starting",
            Self::NotLeader(_) => "shard_not_leader",
            Self::NotOwned(_) => "shard_slot_not_owned",
            Self::LeaseLost(_) => "shard_lease_lost",
            Self::NoInSync(_) => "shard_no_in_sync_replica",
            Self::Unconfirmed { .. } => "shard_write_unconfirmed",
            Self::Behind { .. } => "shard_behind",
            Self::Fenced { .. } => "shard_fenced",
            Self::LogGone(_) => "shard_log_gone",
            Self::Overloaded(_) => "shard_overloaded",
            Self::NoNode(_) => "shard_node_absent",
            Self::Deadline => "shard_deadline",
            Self::Store(error) => error.code(),
            Self::Coordination(error) => error.code(),
            Self::Backup(error) => error.code(),
            Self::Restoring { .. } => "shard_restoring",
            Self::Peer(_) => "shard_peer",
            Self::Io { .. } => "shard_io",
            Self::Corrupt { .. } => "shard_corrupt",
            Self::Listen { .. } => "shard_listen",
            Self::Worker(_) => "shard_worker",
            Self::Refused { code, .. } => code,
            Self::Unreachable(_) => "shard_unreachable",
            Self::Absent(_) => "shard_absent",
        }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }

    /// Whether surely nothing was done, so that a write may be sent again.
    #[must_use]
    pub const fn is_safe(&self) -> bool {
        match self {
            Self::Refused { safe, .. } => *safe,
            Self::Epoch { .. }
            | Self::NotHere(_)
            | Self::Starting(_)
            | Self::NotLeader(_)
            | Self::NotOwned(_)
            | Self::LeaseLost(_)
            | Self::NoInSync(_)
            | Self::Overloaded(_)
            | Self::NoNode(_)
            | Self::Absent(_)
            | Self::Store(StoreError::Full)
            | Self::Behind { .. } => true,
            _ => false,
        }
    }

    /// Whether the caller asked for something that no shard does: to ask again, or elsewhere, is in
    /// vain.
    #[must_use]
    pub const fn is_callers(&self) -> bool {
        match self {
            Self::Invalid(_) | Self::Request(_) | Self::Table(_) => true,
            Self::Store(StoreError::Invalid(_) | StoreError::Refused { .. }) => true,
            Self::Refused { callers, .. } => *callers,
            Self::Backup(error) => error.is_callers(),
            _ => false,
        }
    }

    const fn grpc_code(&self) -> Code {
        match self {
            Self::Invalid(_) | Self::Request(_) => Code::InvalidArgument,
            Self::Store(StoreError::Invalid(_) | StoreError::Refused { .. }) => {
                Code::InvalidArgument
            }
            Self::Backup(error) if error.is_callers() => Code::InvalidArgument,
            Self::Backup(_) => Code::Internal,
            Self::Store(StoreError::Full) => Code::ResourceExhausted,
            Self::Overloaded(_) => Code::ResourceExhausted,
            Self::Deadline => Code::DeadlineExceeded,
            Self::NotHere(_) => Code::NotFound,
            Self::Table(_)
            | Self::NoNode(_)
            | Self::Epoch { .. }
            | Self::NotLeader(_)
            | Self::NotOwned(_)
            | Self::Fenced { .. }
            | Self::LogGone(_) => Code::FailedPrecondition,
            Self::Unconfirmed { .. } => Code::Unknown,
            Self::Store(_) | Self::Io { .. } | Self::Corrupt { .. } | Self::Worker(_) => {
                Code::Internal
            }
            _ => Code::Unavailable,
        }
    }

    /// As a status, with the epoch that this node knows.
    pub(crate) fn status(&self, epoch: u64) -> Status {
        let refusal = Refusal {
            code: self.code().to_owned(),
            epoch,
            safe: self.is_safe(),
        };
        let details = refusal.encode_to_vec();
        Status::with_details(self.grpc_code(), self.to_string(), details.into())
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        match Refusal::decode(status.details()) {
            Ok(refusal) if !refusal.code.is_empty() => Self::Refused {
                code: refusal.code,
                epoch: refusal.epoch,
                safe: refusal.safe,
                callers: status.code() == Code::InvalidArgument,
                message,
            },
            // tonic's own: too large, no connection, cancelled at the deadline.
            _ => match status.code() {
                Code::DeadlineExceeded | Code::Cancelled => Self::Deadline,
                Code::OutOfRange | Code::InvalidArgument => Self::Request(message),
                _ if never_connected(&status) => Self::Absent(message),
                _ => Self::Unreachable(message),
            },
        }
    }
}

/// Whether a status of tonic's own tells of a connection that was not made.
fn never_connected(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_and_a_place_in_the_list() {
        for code in CODES {
            let path = format!("../../docs/errors/{code}.md");
            let page = std::fs::read_to_string(&path).expect(&path);
            assert!(
                page.starts_with(&format!("# {code}\n")) && page.len() > 80,
                "{path}"
            );
        }
        let source = [
            include_str!("error.rs"),
            include_str!("table.rs"),
            include_str!("store.rs"),
            include_str!("coordination.rs"),
        ];
        let texts = source
            .iter()
            .flat_map(|text| text.split('"').skip(1).step_by(2));
        let ours = |text: &&str| {
            let begins = text.starts_with("shard_") || text.starts_with("coordination_");
            begins
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        for code in texts.filter(ours) {
            assert!(CODES.contains(&code), "{code} is not in the list");
        }
    }

    #[test]
    fn an_error_crosses_the_wire_with_what_a_caller_needs() {
        let shard = ShardId(3);
        let cases = [
            (Error::NotLeader(shard), "shard_not_leader", true, false),
            (Error::Epoch { epoch: 9 }, "shard_epoch", true, false),
            (
                Error::Unconfirmed {
                    shard,
                    reason: "late",
                },
                "shard_write_unconfirmed",
                false,
                false,
            ),
            (Error::Request("x".into()), "shard_request", false, true),
            (
                Error::Invalid(IndexError::QueryZeroNorm),
                "vector_query_zero_norm",
                false,
                true,
            ),
            (Error::Store(StoreError::Full), "vector_full", true, false),
            (
                Error::Store(StoreError::Failed {
                    code: "vector_io",
                    reason: "disk".into(),
                }),
                "vector_io",
                false,
                false,
            ),
        ];
        for (error, code, safe, callers) in cases {
            let there = Error::from(error.status(9));
            assert_eq!(
                (there.code(), there.is_safe(), there.is_callers()),
                (code, safe, callers)
            );
            assert_eq!(
                (error.code(), error.is_safe(), error.is_callers()),
                (code, safe, callers)
            );
            assert!(matches!(there, Error::Refused { epoch: 9, .. }));
        }
        let own = Error::from(Status::unavailable("reset"));
        assert_eq!((own.code(), own.is_safe()), ("shard_unreachable", false));
    }
}
