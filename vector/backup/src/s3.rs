//! Stores that speak S3. Endpoint, region and credentials come from the variables `AWS_*`.

use crate::error::Error;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use url::{Host, Url};

/// A request is tried again so often, and for so long.
const RETRIES_MAX: usize = 6;
const RETRY_MS_MAX: u64 = 30_000;

pub fn open(url: &Url) -> Result<Arc<dyn ObjectStore>, Error> {
    open_with(url, AmazonS3Builder::from_env())
}

fn open_with(url: &Url, builder: AmazonS3Builder) -> Result<Arc<dyn ObjectStore>, Error> {
    let refuse = |reason: String| Error::Url {
        url: url.to_string(),
        reason,
    };
    let bucket = url.host_str().unwrap_or_default();
    if bucket.is_empty() {
        return Err(refuse("it names no bucket: s3://bucket/prefix".to_owned()));
    }
    // Fails where the process has one already, which is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retry = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: RETRIES_MAX,
        retry_timeout: Duration::from_millis(RETRY_MS_MAX),
    };
    let mut builder = builder.with_bucket_name(bucket).with_retry(retry);
    let value = |key| builder.get_config_value(&key);
    let endpoint = value(AmazonS3ConfigKey::S3Endpoint).or(value(AmazonS3ConfigKey::Endpoint));
    if let Some(endpoint) = endpoint.filter(|text| text.starts_with("http://"))
        && !is_allowed(&builder)
    {
        if !is_here(&endpoint) {
            let what = "is reached without TLS: use https, or set AWS_ALLOW_HTTP=true";
            return Err(refuse(format!("the endpoint {endpoint} {what}")));
        }
        builder = builder.with_allow_http(true);
    }
    let store = builder.build().map_err(|error| refuse(error.to_string()))?;
    let prefix = Path::from_url_path(url.path()).map_err(|error| refuse(error.to_string()))?;
    Ok(Arc::new(PrefixStore::new(store, prefix)))
}

fn is_allowed(builder: &AmazonS3Builder) -> bool {
    let key = AmazonS3ConfigKey::Client(object_store::ClientConfigKey::AllowHttp);
    let value = builder.get_config_value(&key);
    value.is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
}

/// Whether an endpoint is on this machine.
fn is_here(endpoint: &str) -> bool {
    let Ok(url) = Url::parse(endpoint) else {
        return false;
    };
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::from(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::from(ip).is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_this_machine_unless_it_is_allowed() {
        let open = |endpoint: &str, allowed: Option<bool>, url: &str| {
            let mut builder = AmazonS3Builder::new()
                .with_endpoint(endpoint)
                .with_region("us-east-1")
                .with_access_key_id("a")
                .with_secret_access_key("b");
            if let Some(allowed) = allowed {
                builder = builder.with_allow_http(allowed);
            }
            let opened = open_with(&Url::parse(url).unwrap(), builder);
            opened.map(drop).map_err(|error| error.code())
        };
        let url = "s3://bucket/a/b";
        for (endpoint, allowed, want) in [
            ("https://s3.example.com", None, Ok(())),
            ("http://127.0.0.1:9", None, Ok(())),
            ("http://[::1]:9", None, Ok(())),
            ("http://localhost:9", None, Ok(())),
            ("http://s3.example.com", Some(true), Ok(())),
            ("http://s3.example.com", None, Err("backup_url")),
            ("http://s3.example.com", Some(false), Err("backup_url")),
            ("http://127.0.0.1.example.com", None, Err("backup_url")),
        ] {
            assert_eq!(open(endpoint, allowed, url), want, "{endpoint} {allowed:?}");
        }
        assert_eq!(
            open("https://s3.example.com", None, "s3:///a"),
            Err("backup_url")
        );
    }
}
