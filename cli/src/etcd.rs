//! What commands take for speaking to etcd, and the coordination that follows from it.

use crate::settings::{Settings, usage};
use skerry_vector_shard::Coordination;
use skerry_vector_shard::coordination::embedded::Embedded;
use std::path::Path;
use std::sync::Arc;

/// The password is no option: options show in lists of processes.
const PASSWORD: &str = "SKERRY_ETCD_PASSWORD";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Endpoints of etcd, with commas between; without it this node is on its own.
    #[arg(long, value_name = "HOST:PORT,...")]
    etcd: Option<String>,
    /// Certificate that etcd's own is signed by: etcd is then spoken to by TLS.
    #[arg(long, value_name = "FILE")]
    etcd_ca: Option<String>,
    /// Certificate of this node, where etcd wants one.
    #[arg(long, value_name = "FILE")]
    etcd_cert: Option<String>,
    /// Key of that certificate.
    #[arg(long, value_name = "FILE")]
    etcd_key: Option<String>,
    /// User of etcd; the password is the variable SKERRY_ETCD_PASSWORD.
    #[arg(long, value_name = "NAME")]
    etcd_user: Option<String>,
}

/// All of it, resolved.
pub struct Etcd {
    #[cfg(feature = "etcd")]
    endpoints: Vec<String>,
    #[cfg(feature = "etcd")]
    access: skerry_vector_shard::coordination::etcd::Access,
}

impl Etcd {
    pub fn resolve(args: Args, settings: &Settings) -> anyhow::Result<Self> {
        let endpoints = super::commands::vector::list(settings.maybe("vector.etcd", args.etcd));
        let given = [
            ("vector.etcd_ca", args.etcd_ca),
            ("vector.etcd_cert", args.etcd_cert),
            ("vector.etcd_key", args.etcd_key),
            ("vector.etcd_user", args.etcd_user),
        ];
        let [ca, cert, key, user] = given.map(|(name, flag)| (name, settings.maybe(name, flag)));
        let set = [&ca, &cert, &key, &user];
        if endpoints.is_empty()
            && let Some((name, _)) = set.into_iter().find(|(_, value)| value.is_some())
        {
            return Err(usage(format!("{name} is set, and vector.etcd is not")));
        }
        let password = std::env::var(PASSWORD).ok();
        if user.1.is_some() && password.is_none() {
            return Err(usage(format!(
                "{} is set: its password goes into the variable {PASSWORD}",
                user.0
            )));
        }
        #[cfg(feature = "etcd")]
        {
            Ok(Self {
                endpoints,
                access: skerry_vector_shard::coordination::etcd::Access {
                    ca: ca.1.map(Into::into),
                    cert: cert.1.map(Into::into),
                    key: key.1.map(Into::into),
                    user: user.1,
                    password,
                },
            })
        }
        #[cfg(not(feature = "etcd"))]
        {
            if !endpoints.is_empty() {
                return Err(usage(
                    "this binary is built without etcd: build it with `--features etcd` (needs protoc)",
                ));
            }
            Ok(Self {})
        }
    }

    /// By etcd under a prefix; without etcd, that of this process alone, kept in a folder.
    pub async fn coordination(
        &self,
        dir: &Path,
        prefix: &str,
    ) -> anyhow::Result<Arc<dyn Coordination>> {
        #[cfg(feature = "etcd")]
        if !self.endpoints.is_empty() {
            use skerry_vector_shard::CoordinationError;
            use skerry_vector_shard::coordination::etcd::Etcd;
            let connected = Etcd::connect_with(&self.endpoints, prefix, &self.access).await;
            return match connected {
                Ok(etcd) => Ok(Arc::new(etcd)),
                Err(error @ CoordinationError::Access(_)) => Err(usage(error.to_string())),
                Err(error) => Err(error.into()),
            };
        }
        tracing::debug!(prefix, "this node is on its own");
        Ok(Arc::new(Embedded::open(dir)?))
    }
}
