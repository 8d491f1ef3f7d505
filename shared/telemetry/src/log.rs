//! The log: to stderr, so that stdout stays the program's own.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    /// One object a line, fields flat.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = LogError;
    fn from_str(text: &str) -> Result<Self, LogError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LogError::Format(text.to_owned())),
        }
    }
}

/// Why the log did not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("a log format is text or json, not {0:?}")]
    Format(String),
    #[error("{0:?} is no log filter: {1}")]
    Filter(String, String),
    #[error("the log was started before")]
    Twice,
}

impl LogError {
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Format(_) => "log_format",
            Self::Filter(..) => "log_filter",
            Self::Twice => "log_twice",
        }
    }
}

/// Starts the log of this process. `filter` is a level, or directives such as
/// `info,skerry_edge_pop=debug`.
pub fn init_log(format: LogFormat, filter: &str) -> Result<(), LogError> {
    let directives = EnvFilter::try_new(filter)
        .map_err(|error| LogError::Filter(filter.to_owned(), error.to_string()))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(directives)
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    started.map_err(|_| LogError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_filters_and_starting_once() {
        assert_eq!("json".parse::<LogFormat>().unwrap(), LogFormat::Json);
        assert_eq!("xml".parse::<LogFormat>().unwrap_err().code(), "log_format");
        assert_eq!(
            init_log(LogFormat::Text, "a=b=c").unwrap_err().code(),
            "log_filter"
        );
        init_log(LogFormat::Json, "warn,skerry=debug").unwrap();
        assert_eq!(
            init_log(LogFormat::Text, "warn").unwrap_err().code(),
            "log_twice"
        );
        tracing::debug!("below the filter");
    }
}
