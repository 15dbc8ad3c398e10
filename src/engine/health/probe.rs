//! The probe: the one request that finds out whether somebody who is left alone is back.
//!
//! Owns the right to send it, as long as the request takes: it is renewed while it goes on, and given back when it is
//! dropped. Refuses to say when a probe is due: that is `route::health`'s.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{task::JoinHandle, time::sleep};

use super::{Good, Health, Sent};
use crate::{
    engine::Engine,
    model::target::Target,
    routing::health::{LONGEST_PROBE, Places, Standing},
};

/// The right to find out whether somebody is back; given back when dropped without a verdict.
pub(in crate::engine) struct Probe {
    engine: Arc<Engine>,
    target: Arc<Target>,
    owner: u64,
    /// Says that it goes on, as long as it does.
    renewing: JoinHandle<()>,
}

impl Probe {
    fn new(engine: &Arc<Engine>, target: &Arc<Target>, owner: u64, lease: Duration) -> Self {
        let lease = lease.min(LONGEST_PROBE);
        let renewing = tokio::spawn(renew(Arc::downgrade(engine), Arc::clone(target), owner, lease));
        Self { engine: Arc::clone(engine), target: Arc::clone(target), owner, renewing }
    }

    pub(in crate::engine) fn owner(&self) -> u64 {
        self.owner
    }
}

async fn renew(engine: Weak<Engine>, target: Arc<Target>, owner: u64, lease: Duration) {
    loop {
        sleep(lease / 2).await;
        let Some(engine) = engine.upgrade() else { return };
        if !engine.health.look(|snapshot| snapshot.is_held(&target, owner)) {
            return;
        }
        let now = engine.health.now();
        engine.health.change(&engine.keys, |snapshot| snapshot.renew(&target, now, (owner, lease)));
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.renewing.abort();
        let sent = Sent { target: Arc::clone(&self.target), key: None, at: Timestamp::MIN, probe: Some(self.owner) };
        let engine = Arc::clone(&self.engine);
        engine.health.learn(sent, &engine.keys, Good::GaveBack);
    }
}

impl Health {
    /// Takes the probe of a candidate: the right to, if nobody else has it; `Ok(None)`: everybody may ask it.
    pub(in crate::engine) fn probe(
        engine: &Arc<Engine>,
        target: &Arc<Target>,
        places: &Places,
        lease: Duration,
        early: bool,
    ) -> Result<Option<Probe>, ()> {
        let health = &engine.health;
        let (now, owner) = (health.now(), fastrand::u64(1..));
        let (free, taken) = health.change(&engine.keys, |snapshot| {
            let free = snapshot.standing(places, now) == Standing::Free;
            (free, free || snapshot.probe(places, now, (owner, lease), early))
        });
        if taken { Ok((!free).then(|| Probe::new(engine, target, owner, lease))) } else { Err(()) }
    }
}
