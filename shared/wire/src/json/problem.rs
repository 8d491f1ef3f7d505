//! Errors as RFC 9457 `application/problem+json`.

use super::write::{write_integer, write_string};
use super::{BODY_BYTES_MAX, ERRORS_MAX, codes};
use skerry_types::Uid;

pub const CONTENT_TYPE_JSON: &str = "application/json";
pub const CONTENT_TYPE_PROBLEM: &str = "application/problem+json";
/// `type` is this and the code: the error's page (`docs/errors/CODE.md` in the repository).
pub const TYPE_BASE: &str = "https://skerry.dev/errors/";

/// A mistake in one place of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// A JSON pointer (RFC 6901) into the body; `?name` for a query parameter, `{name}` for a part
    /// of the path.
    pub pointer: String,
    pub code: &'static str,
    pub detail: String,
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub status: u16,
    pub code: &'static str,
    pub title: &'static str,
    pub detail: String,
    /// At most [`ERRORS_MAX`].
    pub errors: Vec<FieldError>,
    /// For the `Retry-After` header, in seconds.
    pub retry_after_s: Option<u32>,
    /// For the `Allow` header of a 405.
    pub allow: Option<&'static str>,
}

impl Problem {
    #[must_use]
    pub fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        let title = codes::title(code);
        Self {
            status,
            code,
            title,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after_s: None,
            allow: None,
        }
    }

    /// 400 for the request as a whole.
    #[must_use]
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(400, code, detail)
    }

    /// 400 with the places that are wrong; only the first [`ERRORS_MAX`] are kept.
    #[must_use]
    pub fn invalid(mut errors: Vec<FieldError>) -> Self {
        errors.truncate(ERRORS_MAX);
        let detail = match errors.as_slice() {
            [] => String::new(),
            [one] => one.detail.clone(),
            [first, rest @ ..] => format!("{}; and {} more, see errors", first.detail, rest.len()),
        };
        Self {
            errors,
            ..Self::bad_request(codes::INVALID_REQUEST, detail)
        }
    }

    #[must_use]
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(401, codes::UNAUTHORIZED, detail)
    }

    #[must_use]
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(403, codes::FORBIDDEN, detail)
    }

    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(404, codes::NOT_FOUND, detail)
    }

    #[must_use]
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let detail = format!("allowed here: {allow}");
        Self {
            allow: Some(allow),
            ..Self::new(405, codes::METHOD_NOT_ALLOWED, detail)
        }
    }

    #[must_use]
    pub fn too_large(bytes: usize) -> Self {
        let detail = format!("the body has {bytes} bytes, at most {BODY_BYTES_MAX} are read");
        Self::new(413, codes::BODY_TOO_LARGE, detail)
    }

    #[must_use]
    pub fn unavailable(code: &'static str, detail: impl Into<String>, retry_after_s: u32) -> Self {
        Self {
            retry_after_s: Some(retry_after_s),
            ..Self::new(503, code, detail)
        }
    }

    /// The body.
    #[must_use]
    pub fn render(&self, request_id: Uid) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.detail.len() + 128 * self.errors.len());
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(TYPE_BASE.as_bytes());
        out.extend_from_slice(self.code.as_bytes());
        out.extend_from_slice(b"\",\"title\":");
        write_string(&mut out, self.title);
        out.extend_from_slice(b",\"status\":");
        write_integer(&mut out, u64::from(self.status));
        out.extend_from_slice(b",\"detail\":");
        write_string(&mut out, &self.detail);
        out.extend_from_slice(b",\"code\":");
        write_string(&mut out, self.code);
        out.extend_from_slice(b",\"request_id\":\"");
        out.extend_from_slice(&request_id.text());
        out.push(b'"');
        if !self.errors.is_empty() {
            out.extend_from_slice(b",\"errors\":[");
            for (at, error) in self.errors.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(b"{\"pointer\":");
                write_string(&mut out, &error.pointer);
                out.extend_from_slice(b",\"code\":");
                write_string(&mut out, error.code);
                out.extend_from_slice(b",\"detail\":");
                write_string(&mut out, &error.detail);
                out.push(b'}');
            }
            out.push(b']');
        }
        out.push(b'}');
        out
    }
}
