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
    use crate::support::{free_port, spawn};
    use skerry_vector_shard::coordination::etcd::Etcd;
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
            let child = spawn(dir.path(), client, peer);
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
}
