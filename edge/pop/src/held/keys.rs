//! API keys of this PoP's own key folder, and what else a PoP adds to the configuration that the
//! origin pushes.

use super::{Snapshot, plain_config};
use crate::error::Error;
use sha2::{Digest, Sha256};
use skerry_types::TenantId;
use skerry_wire::encode;
use skerry_wire::value::{ApiKey, ConfigBlob, KeyClass};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// Shortest key that is taken, in bytes.
const KEY_BYTES_MIN: usize = 16;
const FILES: [(&str, KeyClass); 3] = [
    ("api-public.key", KeyClass::Public),
    ("api-secret.key", KeyClass::Secret),
    ("api-pop.key", KeyClass::Pop),
];

/// What this PoP adds to every configuration.
#[derive(Debug, Clone)]
pub struct LocalKeys {
    pub pop: Arc<str>,
    pub region: Arc<str>,
    pub keys: Vec<ApiKey>,
    /// Seals `next` tokens until the origin has pushed the deployment's own key.
    pub sealing_key: [u8; 32],
}

impl LocalKeys {
    pub(super) fn default_config(&self) -> ConfigBlob {
        plain_config(self.sealing_key)
    }

    /// Puts a configuration into the snapshot, with this PoP's names and keys in it.
    pub(super) fn install(&self, snapshot: &mut Snapshot, epoch: u64, mut config: ConfigBlob) {
        config.pop = self.pop.clone();
        config.region = self.region.clone();
        for key in &self.keys {
            if !config.keys.iter().any(|known| known.sha256 == key.sha256) {
                config.keys.push(key.clone());
            }
        }
        if let Ok(bytes) = encode(&config) {
            snapshot.config = bytes.into();
            snapshot.config_epoch = epoch;
            snapshot.keys = config.keys.into();
        }
    }
}

/// The digests of the folder's API keys; a folder without any gives none.
pub fn read_api_keys(dir: &Path) -> Result<Vec<ApiKey>, Error> {
    let mut keys = Vec::new();
    for (name, class) in FILES {
        let path = dir.join(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(Error::Keys {
                    path,
                    detail: error.to_string(),
                });
            }
        };
        let key = text.trim();
        if key.len() < KEY_BYTES_MIN || key.contains(char::is_whitespace) {
            return Err(Error::Keys {
                path,
                detail: format!("one line of at least {KEY_BYTES_MIN} characters"),
            });
        }
        keys.push(ApiKey {
            sha256: Sha256::digest(key.as_bytes()).into(),
            class,
            tenant: TenantId::default(),
        });
    }
    Ok(keys)
}
