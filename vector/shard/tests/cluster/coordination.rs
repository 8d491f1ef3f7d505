//! What every adapter of the port must do.

use crate::harness::{node, until};
use skerry_vector_shard::coordination::Fence;
use skerry_vector_shard::coordination::embedded::Embedded;
use skerry_vector_shard::{Coordination, CoordinationError, Directory, Draft, ShardId};
use std::sync::Arc;

const TTL_MS: u64 = 1_000;

async fn contract(coordination: Arc<dyn Coordination>) {
    let (zero, a, b) = (ShardId(0), node("a"), node("b"));
    let c = coordination.as_ref();
    assert!(matches!(c.table().await, Err(CoordinationError::NoTable)));
    assert!(c.watch().borrow().is_none());

    // The first table is made once; its epoch is the store's.
    let first = || Draft::first(&[vec![a.clone(), b.clone()]]).unwrap();
    let table = c.compare_and_swap(first(), Vec::new()).await.unwrap();
    assert!(matches!(
        c.compare_and_swap(first(), Vec::new()).await,
        Err(CoordinationError::Conflict { current, .. }) if current == table.epoch()
    ));
    assert_eq!(c.table().await.unwrap(), table);
    until("the table is seen", async || c.watch().borrow().is_some()).await;

    // One leader at a time, each with a greater token than the one before.
    let lease = c.lead(zero, a.clone(), TTL_MS).await.unwrap();
    assert!(matches!(
        c.lead(zero, b.clone(), TTL_MS).await,
        Err(CoordinationError::Taken(_))
    ));
    until("the leader is seen", async || {
        let view = c.watch().borrow().clone().unwrap();
        view.leader(zero)
            .is_some_and(|leader| leader.node == a && leader.token == lease.token)
    })
    .await;

    // The in-sync set is its leader's.
    assert_eq!(c.in_sync(zero).await.unwrap(), None);
    c.set_in_sync(lease.fence(), vec![a.clone(), b.clone()])
        .await
        .unwrap();
    let set = c.in_sync(zero).await.unwrap().unwrap();
    assert_eq!(
        (set.token, set.members),
        (lease.token, vec![a.clone(), b.clone()])
    );

    // A table is replaced by who knows it, while the named leader leads.
    let draft = table.split(zero, &[]).unwrap();
    let wrong = Fence {
        shard: zero,
        token: lease.token + 1,
    };
    let refused = c.compare_and_swap(draft.clone(), vec![wrong]).await;
    assert!(matches!(refused, Err(CoordinationError::Conflict { .. })));
    let second = c
        .compare_and_swap(draft.clone(), vec![lease.fence()])
        .await
        .unwrap();
    assert!(second.epoch() > table.epoch());
    assert_eq!(second.migration().unwrap().id, second.epoch());
    let late = c.compare_and_swap(draft, vec![lease.fence()]).await;
    assert!(
        matches!(late, Err(CoordinationError::Conflict { .. })),
        "an old table is not replaced"
    );

    // Whoever lets go leads no more, and its token opens nothing.
    let old = lease.fence();
    drop(lease);
    until("the lead is free", async || {
        c.watch().borrow().clone().unwrap().leader(zero).is_none()
    })
    .await;
    let next = c.lead(zero, b.clone(), TTL_MS).await.unwrap();
    assert!(next.token > old.token);
    let stale = c.set_in_sync(old, vec![a.clone()]).await;
    assert!(matches!(stale, Err(CoordinationError::Lost(_))));
    let third = second.abort(second.epoch()).unwrap();
    assert!(c.compare_and_swap(third.clone(), vec![old]).await.is_err());
    c.compare_and_swap(third, vec![next.fence()]).await.unwrap();

    // Addresses come and go with who registered them.
    let registered = c
        .register(a.clone(), "127.0.0.1:7".to_owned(), TTL_MS)
        .await
        .unwrap();
    until("the address is seen", async || {
        c.watch().borrow().clone().unwrap().addr(&a) == Some("127.0.0.1:7")
    })
    .await;
    drop(registered);
    until("the address is gone", async || {
        c.watch().borrow().clone().unwrap().addr(&a).is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_one_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    contract(Arc::new(Embedded::open(dir.path()).unwrap())).await;
    // What must outlive the process does.
    let again = Embedded::open(dir.path()).unwrap();
    let table = again.table().await.unwrap();
    assert_eq!(table.shards().len(), 1);
    let set = again.in_sync(ShardId(0)).await.unwrap().unwrap();
    let lease = again.lead(ShardId(0), node("a"), TTL_MS).await.unwrap();
    assert!(lease.token > set.token, "tokens rise over restarts");
    std::fs::write(dir.path().join("COORDINATION"), b"damaged").unwrap();
    let error = Embedded::open(dir.path()).err().unwrap();
    assert_eq!(error.code(), "coordination_corrupt");
}

#[cfg(feature = "etcd")]
mod etcd {
    use super::*;
    use crate::support::{free_port, spawn, spawn_with};
    use etcd_client::{
        Certificate, Client, ConnectOptions, Identity, Permission, PermissionType, TlsOptions,
    };
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
    use skerry_vector_shard::coordination::etcd::{Access, Etcd};
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command};

    struct Server {
        child: Child,
        dir: tempfile::TempDir,
        client: u16,
        peer: u16,
    }

    impl Server {
        /// None where etcd is not installed; in CI it must be.
        fn start() -> Option<Self> {
            Self::start_with("http", &[])
        }

        fn start_with(scheme: &str, more: &[&str]) -> Option<Self> {
            if Command::new("etcd").arg("--version").output().is_err() {
                assert!(
                    std::env::var("CI").is_err(),
                    "etcd is not installed: apt-get install etcd-server"
                );
                println!("skipped: etcd is not installed (apt-get install etcd-server)");
                return None;
            }
            let dir = tempfile::tempdir().unwrap();
            let (client, peer) = (free_port(), free_port());
            let child = spawn_with(dir.path(), client, peer, scheme, more);
            Some(Self {
                child,
                dir,
                client,
                peer,
            })
        }

        async fn connect(&self) -> Etcd {
            let endpoints = [format!("127.0.0.1:{}", self.client)];
            let etcd = Etcd::connect(&endpoints, "/test").await.unwrap();
            until("etcd answers", async || {
                !matches!(etcd.table().await, Err(CoordinationError::Unavailable(_)))
            })
            .await;
            etcd
        }

        fn kill(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn etcd_keeps_the_contract() {
        let Some(server) = Server::start() else {
            return;
        };
        contract(Arc::new(server.connect().await)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lease_runs_out_without_etcd_and_lasts_through_a_restart() {
        let Some(mut server) = Server::start() else {
            return;
        };
        let etcd = server.connect().await;
        let draft = Draft::first(&[vec![node("a")]]).unwrap();
        etcd.compare_and_swap(draft, Vec::new()).await.unwrap();
        until("the table is seen", async || {
            etcd.watch().borrow().is_some()
        })
        .await;
        let lease = etcd.lead(ShardId(0), node("a"), 2_000).await.unwrap();
        assert!(holds(&lease));
        server.kill();
        until("it no longer counts", async || !holds(&lease)).await;
        assert!(!lease.is_lost(), "nobody else can have it either");
        assert!(etcd.watch().borrow().is_some(), "the last view stays");
        assert!(matches!(
            etcd.table().await,
            Err(CoordinationError::Unavailable(_))
        ));
        server.child = spawn(server.dir.path(), server.client, server.peer);
        until("it is held again, or gone for good", async || {
            holds(&lease) || lease.is_lost()
        })
        .await;
        let leads = etcd.lead(ShardId(0), node("b"), 2_000).await;
        assert_eq!(leads.is_ok(), lease.is_lost(), "never two");
    }

    fn holds(lease: &skerry_vector_shard::coordination::Lease) -> bool {
        lease.holds(skerry_vector_shard::coordination::now())
    }

    /// Certificates of one authority in a folder: `NAME.pem` and `NAME.key`.
    struct Keys {
        dir: tempfile::TempDir,
    }

    impl Keys {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let keys = Self { dir };
            for authority in ["ca", "other"] {
                let mut params = CertificateParams::default();
                params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
                let key = KeyPair::generate().unwrap();
                let ca = CertifiedIssuer::self_signed(params, key).unwrap();
                std::fs::write(keys.path(&format!("{authority}.pem")), ca.pem()).unwrap();
                for name in ["server", "client"] {
                    let mut params = CertificateParams::default();
                    let local = SanType::IpAddress([127, 0, 0, 1].into());
                    params.subject_alt_names = vec![local];
                    let key = KeyPair::generate().unwrap();
                    let signed = params.signed_by(&key, &ca).unwrap();
                    let name = format!("{authority}-{name}");
                    std::fs::write(keys.path(&format!("{name}.pem")), signed.pem()).unwrap();
                    std::fs::write(keys.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
                }
            }
            keys
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn text(&self, name: &str) -> String {
            self.path(name).to_string_lossy().into_owned()
        }

        fn access(&self, ca: &str, client: Option<&str>) -> Access {
            Access {
                ca: Some(self.path(ca)),
                cert: client.map(|name| self.path(&format!("{name}.pem"))),
                key: client.map(|name| self.path(&format!("{name}.key"))),
                ..Access::default()
            }
        }
    }

    fn read(path: &Path) -> Vec<u8> {
        std::fs::read(path).unwrap()
    }

    /// Whether etcd answers within what a call may take.
    async fn answers(endpoints: &[String], access: &Access) -> Result<(), CoordinationError> {
        let etcd = Etcd::connect_with(endpoints, "/test", access).await?;
        match etcd.table().await {
            Ok(_) | Err(CoordinationError::NoTable) => Ok(()),
            Err(error) => Err(error),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn etcd_by_tls_and_as_a_user_keeps_the_contract() {
        let keys = Keys::new();
        let (cert, key, ca) = (
            keys.text("ca-server.pem"),
            keys.text("ca-server.key"),
            keys.text("ca.pem"),
        );
        let options = [
            "--cert-file",
            &cert,
            "--key-file",
            &key,
            "--trusted-ca-file",
            &ca,
            "--client-cert-auth",
            // Tokens that are not used for a second are gone.
            "--auth-token-ttl",
            "1",
        ];
        let Some(mut server) = Server::start_with("https", &options) else {
            return;
        };
        let endpoints = [format!("127.0.0.1:{}", server.client)];
        let ours = keys.access("ca.pem", Some("ca-client"));
        until("etcd answers", async || {
            answers(&endpoints, &ours).await.is_ok()
        })
        .await;
        let url = [format!("https://127.0.0.1:{}", server.client)];
        answers(&url, &ours).await.unwrap();

        // Without a certificate, with another authority's, to a server of another authority, or in the
        // open: there is no connection.
        let strangers = [
            keys.access("ca.pem", None),
            keys.access("ca.pem", Some("other-client")),
            keys.access("other.pem", Some("ca-client")),
            Access::default(),
        ];
        for access in strangers {
            let error = answers(&endpoints, &access).await.unwrap_err();
            assert_eq!(
                error.code(),
                "coordination_unavailable",
                "{access:?}: {error}"
            );
        }

        // Users of etcd: one that may do all, one that may change our keys, one that may do nothing.
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(read(&keys.path("ca.pem"))))
            .identity(Identity::from_pem(
                read(&keys.path("ca-client.pem")),
                read(&keys.path("ca-client.key")),
            ));
        let root = ConnectOptions::new().with_tls(tls);
        let mut root = Client::connect(&endpoints, Some(root)).await.unwrap();
        for (user, role) in [
            ("root", "root"),
            ("skerry", "shards"),
            ("nobody", "nothing"),
        ] {
            root.user_add(user, "secret", None).await.unwrap();
            root.role_add(role).await.unwrap();
            root.user_grant_role(user, role).await.unwrap();
        }
        let ours_alone = Permission::new(PermissionType::Readwrite, "/test/").with_prefix();
        root.role_grant_permission("shards", ours_alone)
            .await
            .unwrap();
        root.auth_enable().await.unwrap();
        let user = |user: &str, password: &str| Access {
            user: Some(user.to_owned()),
            password: Some(password.to_owned()),
            ..ours.clone()
        };
        for (access, want) in [
            // By the name in its certificate, which is no user.
            (ours.clone(), "permission denied"),
            (user("skerry", "wrong"), "authentication failed"),
            (user("stranger", "secret"), "authentication failed"),
            (user("nobody", "secret"), "permission denied"),
        ] {
            let error = answers(&endpoints, &access).await.unwrap_err();
            assert_eq!(error.code(), "coordination_denied");
            assert!(error.to_string().contains(want), "{error}");
        }
        let skerry = user("skerry", "secret");
        let etcd = Etcd::connect_with(&endpoints, "/test", &skerry)
            .await
            .unwrap();
        contract(Arc::new(etcd)).await;

        // A token that has run out is renewed; the first call with the old one does not fail.
        let etcd = Etcd::connect_with(&endpoints, "/test", &skerry)
            .await
            .unwrap();
        etcd.table().await.unwrap();
        for _ in 0..2 {
            tokio::time::sleep(std::time::Duration::from_secs(4)).await;
            etcd.table().await.unwrap();
        }

        // Tokens end with the server that gave them; a node that starts before etcd logs in later.
        server.kill();
        let early = Etcd::connect_with(&endpoints, "/test", &skerry)
            .await
            .unwrap();
        server.child = spawn_with(
            server.dir.path(),
            server.client,
            server.peer,
            "https",
            &options,
        );
        for etcd in [etcd, early] {
            until("it goes on", async || etcd.table().await.is_ok()).await;
            until("it is followed", async || etcd.watch().borrow().is_some()).await;
            let table = etcd.table().await.unwrap();
            let draft = table.split(ShardId(0), &[]).unwrap();
            let split = etcd.compare_and_swap(draft, Vec::new()).await.unwrap();
            until("a change is seen", async || {
                etcd.watch().borrow().as_ref().unwrap().table.epoch() == split.epoch()
            })
            .await;
            let draft = split.abort(split.epoch()).unwrap();
            etcd.compare_and_swap(draft, Vec::new()).await.unwrap();
        }
    }
}
