//! How etcd is spoken to: in the open, by TLS, with a certificate of our own, as a user.
//!
//! Invariant: what is wrong with files and options is found before anything connects; a password is
//! neither shown nor logged.

use super::CoordinationError;
use etcd_client::{Certificate, Client, Identity, TlsOptions};
use std::fmt;
use std::path::{Path, PathBuf};
use x509_parser::pem::Pem;

/// What an operator gives. All of it may be absent.
#[derive(Clone, Default)]
pub struct Access {
    /// Certificates of whom etcd's own is signed by: with them it is spoken to by TLS.
    pub ca: Option<PathBuf>,
    /// A certificate and its key, where etcd wants one.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub user: Option<String>,
    pub password: Option<String>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ca,
            cert,
            key,
            user,
            password,
        } = self;
        f.debug_struct("Access")
            .field("ca", ca)
            .field("cert", cert)
            .field("key", key)
            .field("user", user)
            .field("password", &password.as_ref().map(|_| "..."))
            .finish()
    }
}

fn wrong(what: impl Into<String>) -> CoordinationError {
    CoordinationError::Access(what.into())
}

/// A file with at least one block of PEM that is labelled so.
fn pem(path: &Path, label: &str) -> Result<Vec<u8>, CoordinationError> {
    let bytes =
        std::fs::read(path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
    let blocks: Result<Vec<Pem>, _> = Pem::iter_from_buffer(&bytes).collect();
    let blocks = blocks.map_err(|error| wrong(format!("{}: {error}", path.display())))?;
    if blocks.iter().any(|block| block.label.ends_with(label)) {
        Ok(bytes)
    } else {
        let what = label.to_lowercase();
        Err(wrong(format!("{}: no {what} in it", path.display())))
    }
}

impl Access {
    pub(super) fn tls(&self) -> Result<Option<TlsOptions>, CoordinationError> {
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some(Identity::from_pem(
                pem(cert, "CERTIFICATE")?,
                pem(key, "PRIVATE KEY")?,
            )),
            (None, None) => None,
            _ => return Err(wrong("a certificate for etcd and its key come together")),
        };
        let Some(ca) = &self.ca else {
            return match identity {
                Some(_) => Err(wrong(
                    "a certificate for etcd needs the certificate that etcd's own is signed by",
                )),
                None => Ok(None),
            };
        };
        let ca = Certificate::from_pem(pem(ca, "CERTIFICATE")?);
        let tls = TlsOptions::new().ca_certificate(ca);
        Ok(Some(match identity {
            Some(identity) => tls.identity(identity),
            None => tls,
        }))
    }

    pub(super) fn login(&self) -> Result<Option<(String, String)>, CoordinationError> {
        match (&self.user, &self.password) {
            (Some(user), Some(password)) => Ok(Some((user.clone(), password.clone()))),
            (Some(user), None) => Err(wrong(format!("the password of {user:?} is missing"))),
            (None, _) => Ok(None),
        }
    }
}

/// Logs in. Where etcd does not answer now, goes on trying without being waited for; where it says no,
/// that is the error.
pub(super) async fn log_in(
    client: &Client,
    login: (String, String),
) -> Result<(), CoordinationError> {
    let mut client = client.clone();
    match once(&mut client, &login).await {
        Err(CoordinationError::Unavailable(_)) => {
            // The other handles of this client see the token; it is renewed as it runs out.
            tokio::spawn(async move {
                while let Err(error) = once(&mut client, &login).await {
                    tracing::warn!(code = error.code(), %error, "not logged in to etcd yet");
                    crate::clock::sleep_ms(super::LOGIN_MS).await;
                }
            });
            Ok(())
        }
        done => done,
    }
}

async fn once(client: &mut Client, login: &(String, String)) -> Result<(), CoordinationError> {
    super::call(client.update_user(Some(login.clone()))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_before_anything_connects() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let cert = file("cert.pem", &signed.cert.pem());
        let key = file("key.pem", &signed.signing_key.serialize_pem());
        let access = |ca: &Option<PathBuf>, cert: &Option<PathBuf>, key: &Option<PathBuf>| Access {
            ca: ca.clone(),
            cert: cert.clone(),
            key: key.clone(),
            ..Access::default()
        };
        assert!(access(&cert, &cert, &key).tls().unwrap().is_some());
        assert!(access(&cert, &None, &None).tls().unwrap().is_some());
        assert!(Access::default().tls().unwrap().is_none());
        let none = Some(dir.path().join("none.pem"));
        let cases = [
            (access(&cert, &cert, &None), "come together"),
            (access(&cert, &None, &key), "come together"),
            (access(&None, &cert, &key), "signed by"),
            (access(&none, &None, &None), "none.pem"),
            (access(&key, &None, &None), "key.pem: no certificate"),
            (access(&cert, &cert, &cert), "cert.pem: no private key"),
            (
                access(&file("text", "no certificate"), &None, &None),
                "text",
            ),
        ];
        for (access, want) in cases {
            let error = access.tls().err().unwrap();
            assert_eq!(error.code(), "coordination_access");
            assert!(error.to_string().contains(want), "{error}");
        }
        let user = |password: Option<&str>| Access {
            user: Some("skerry".to_owned()),
            password: password.map(str::to_owned),
            ..Access::default()
        };
        assert!(user(Some("x")).login().unwrap().is_some());
        let error = user(None).login().unwrap_err().to_string();
        assert!(error.contains("password"), "{error}");
        assert!(!format!("{:?}", user(Some("secret"))).contains("secret"));
    }
}
