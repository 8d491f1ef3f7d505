//! Who asks: keys by their digests, one tenant a key, and what each class may do.

use crate::ports::Request;
use sha2::{Digest, Sha256};
use skerry_types::TenantId;
use skerry_wire::json::Problem;
use skerry_wire::value::{ConfigBlob, KeyClass};
use subtle::ConstantTimeEq;

/// A caller who was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub tenant: TenantId,
    /// Whether the caller may name users, in questions and in events.
    pub names_users: bool,
}

/// Finds out who asks. On a loopback listener a key is optional, a wrong one is refused all the same.
pub fn admit(config: Option<&ConfigBlob>, request: &Request) -> Result<Caller, Problem> {
    let Some(key) = presented(request)? else {
        if request.loopback {
            return Ok(Caller {
                tenant: TenantId::default(),
                names_users: true,
            });
        }
        return Err(Problem::unauthorized(
            "this endpoint needs a key: X-API-Key or Authorization: Bearer",
        ));
    };
    let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
    let keys = config.map_or(&[][..], |config| &config.keys);
    // Every key is compared, so that time says nothing about which one came close.
    let mut found = None;
    for key in keys {
        if bool::from(key.sha256.ct_eq(&digest)) {
            found = Some(key);
        }
    }
    let key = found.ok_or_else(|| Problem::unauthorized("this key is not known here"))?;
    let public_names = config
        .and_then(|config| config.public_names_users)
        .unwrap_or(request.loopback);
    Ok(Caller {
        tenant: key.tenant.clone(),
        names_users: match key.class {
            KeyClass::Secret | KeyClass::Pop => true,
            KeyClass::Public => public_names,
        },
    })
}

impl Caller {
    /// Refuses a named user where the key may not name one.
    pub fn may_name(&self, user: Option<&skerry_types::UserId>) -> Result<(), Problem> {
        match user {
            Some(_) if !self.names_users => Err(Problem::forbidden(
                "a public key may not name users here: send a session, or use a secret key from your server",
            )),
            _ => Ok(()),
        }
    }
}

fn presented(request: &Request) -> Result<Option<&str>, Problem> {
    if let Some(key) = request.header("x-api-key") {
        return Ok(Some(key.trim()));
    }
    match request.header("authorization") {
        None => Ok(None),
        Some(value) => match value.split_once(' ') {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(key.trim())),
            _ => Err(Problem::unauthorized("Authorization must be: Bearer KEY")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::{config_with_keys, request};

    #[test]
    fn keys_by_class_and_listener() {
        // (key, loopback, switch) -> Ok(may name users) or the status
        let cases = [
            ("no key on loopback", None, true, None, Ok(true)),
            ("no key elsewhere", None, false, None, Err(401)),
            (
                "a wrong key on loopback",
                Some("nope"),
                true,
                None,
                Err(401),
            ),
            ("secret", Some("secret"), false, None, Ok(true)),
            ("pop", Some("pop"), false, None, Ok(true)),
            ("public elsewhere", Some("public"), false, None, Ok(false)),
            ("public on loopback", Some("public"), true, None, Ok(true)),
            (
                "public, switched on",
                Some("public"),
                false,
                Some(true),
                Ok(true),
            ),
            (
                "public, switched off",
                Some("public"),
                true,
                Some(false),
                Ok(false),
            ),
        ];
        for (name, key, loopback, switch, want) in cases {
            let config = ConfigBlob {
                public_names_users: switch,
                ..config_with_keys()
            };
            for header in ["x-api-key", "authorization"] {
                let mut request = request("GET", "/v1/popular", "");
                request.loopback = loopback;
                if let Some(key) = key {
                    let value = if header == "authorization" {
                        format!("Bearer {key}")
                    } else {
                        key.to_owned()
                    };
                    request.headers.push((header.to_owned(), value));
                }
                let got = admit(Some(&config), &request)
                    .map(|caller| caller.names_users)
                    .map_err(|p| p.status);
                assert_eq!(got, want, "{name} by {header}");
            }
        }
    }
}
