//! What others may do with a running origin.

use crate::hub::{Hub, Life, News};
use crate::jobs::{Job, Jobs};
use crate::service::About;
use crate::{Error, publish, train};
use skerry_types::{Millis, Uid, UserId};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    hub: Arc<Hub>,
    jobs: Arc<Jobs>,
    training: Arc<Semaphore>,
    quic: SocketAddr,
    admin: SocketAddr,
}

/// What an erasure removed. Other copies expire: nothing of the user is given out from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub id: Uid,
    pub user: UserId,
    pub erased_ms: Millis,
    pub events: usize,
    pub attributes: bool,
    /// PoPs that were told at once; the others are told before anything else when they connect.
    pub pops: Vec<Arc<str>>,
}

impl Handle {
    pub(crate) fn new(
        hub: &Arc<Hub>,
        jobs: &Arc<Jobs>,
        quic: SocketAddr,
        admin: SocketAddr,
    ) -> Self {
        let training = Arc::new(Semaphore::new(1));
        Self {
            hub: Arc::clone(hub),
            jobs: Arc::clone(jobs),
            training,
            quic,
            admin,
        }
    }

    #[must_use]
    pub fn quic_addr(&self) -> SocketAddr {
        self.quic
    }

    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// What is missing before the origin is ready; empty when it is.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.hub.missing()
    }

    /// Waits until start, import and training are over; says why where they failed.
    pub async fn started(&self) -> Result<(), Error> {
        let mut life = self.hub.life.subscribe();
        let ended = life
            .wait_for(|life| *life != Life::Starting)
            .await
            .map_err(|_| Error::Stopped)?;
        match &*ended {
            Life::Failed(reason) => Err(Error::Store(reason.clone())),
            Life::Starting | Life::Running => Ok(()),
        }
    }

    /// The model in service.
    #[must_use]
    pub fn model(&self) -> Option<About> {
        self.hub
            .service
            .load()
            .as_ref()
            .map(|service| service.about.clone())
    }

    /// Trains on all that is stored and puts the model into service, here and at the PoPs.
    pub async fn train(&self) -> Result<About, Error> {
        if *self.hub.life.borrow() == Life::Starting {
            return Err(Error::Training);
        }
        let permit = Arc::clone(&self.training)
            .try_acquire_owned()
            .map_err(|_| Error::Training)?;
        let hub = Arc::clone(&self.hub);
        let trained = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let service = train::run(&hub, &hub.options.progress)?;
            publish::all(&hub)?;
            Ok(service.about.clone())
        });
        trained
            .await
            .map_err(|error| Error::Train(error.to_string()))?
    }

    /// Starts an import; `None` where too many are running.
    #[must_use]
    pub fn import(&self, path: PathBuf) -> Option<Uid> {
        let id = self.jobs.add(&self.hub, path)?;
        let (hub, jobs) = (Arc::clone(&self.hub), Arc::clone(&self.jobs));
        tokio::task::spawn_blocking(move || jobs.run(&hub, id));
        Some(id)
    }

    #[must_use]
    pub fn job(&self, id: Uid) -> Option<Job> {
        self.jobs.get(id)
    }

    /// Events that have arrived.
    pub fn events(&self) -> Result<u64, Error> {
        Ok(self.hub.log.reader().count(&self.hub.tenant)?)
    }

    /// Erases a user everywhere. Blocking.
    pub fn erase(&self, user: &UserId) -> Result<Receipt, Error> {
        let hub = &self.hub;
        let now = hub.now();
        let subject = format!("u:{user}");
        let erased = hub.log.erase(&hub.tenant, &subject, now)?.erased;
        hub.features.erase(&hub.tenant, &subject)?;
        hub.similar.erase(&hub.tenant, user)?;
        let attributes = hub.users.erase(&hub.tenant, user)?;
        hub.pops.erase(user)?;
        // Nobody listens where no PoP is connected.
        let _ = hub.news.send(News::Erased(Arc::new(vec![user.clone()])));
        hub.invalidate(vec![format!("user:{subject}").into()])?;
        let mut pops: Vec<Arc<str>> = hub.connected.lock().values().cloned().collect();
        pops.sort();
        pops.dedup();
        Ok(Receipt {
            id: hub.fresh_id(),
            user: user.clone(),
            erased_ms: now,
            events: erased,
            attributes,
            pops,
        })
    }
}
