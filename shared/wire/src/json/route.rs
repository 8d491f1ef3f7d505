//! Which endpoint a request is for.

use super::Problem;

/// The edge's endpoints, and what is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteMatch<'a> {
    Recommend,
    /// The user's id as it stands in the path, percent-encoded.
    RecommendGet {
        user: &'a str,
    },
    Similar,
    Rank,
    Events,
    Popular,
    Healthz,
    Readyz,
    Metrics,
    NotFound,
    /// The path exists, for these methods.
    WrongMethod {
        allow: &'static str,
    },
}

impl RouteMatch<'_> {
    /// Whether the endpoint never needs a key.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Healthz | Self::Readyz | Self::Metrics)
    }

    /// The problem of a request that matches nothing.
    #[must_use]
    pub fn problem(self, path: &str) -> Option<Problem> {
        match self {
            Self::NotFound => {
                let shown: String = path.chars().take(80).filter(|c| !c.is_control()).collect();
                Some(Problem::not_found(format!("no endpoint at {shown}")))
            }
            Self::WrongMethod { allow } => Some(Problem::method_not_allowed(allow)),
            _ => None,
        }
    }
}

/// Path and query of a request target; the query is empty where there is none.
#[must_use]
pub fn split_target(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

/// Finds the endpoint. `method` in upper case; HEAD is taken where GET is.
#[must_use]
pub fn match_route<'a>(method: &str, path: &'a str) -> RouteMatch<'a> {
    const READ: &str = "GET, HEAD";
    let (found, allow) = match path {
        "/v1/recommend" => (RouteMatch::Recommend, "POST"),
        "/v1/similar" => (RouteMatch::Similar, "POST"),
        "/v1/rank" => (RouteMatch::Rank, "POST"),
        "/v1/events" => (RouteMatch::Events, "POST"),
        "/v1/popular" => (RouteMatch::Popular, READ),
        "/healthz" => (RouteMatch::Healthz, READ),
        "/readyz" => (RouteMatch::Readyz, READ),
        "/metrics" => (RouteMatch::Metrics, READ),
        _ => match path.strip_prefix("/v1/recommend/") {
            Some(user) if !user.contains('/') => (RouteMatch::RecommendGet { user }, READ),
            _ => return RouteMatch::NotFound,
        },
    };
    let allowed = if allow == READ {
        matches!(method, "GET" | "HEAD")
    } else {
        method == allow
    };
    if allowed {
        found
    } else {
        RouteMatch::WrongMethod { allow }
    }
}
