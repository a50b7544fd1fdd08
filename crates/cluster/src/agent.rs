//! All slots of a worker, and their end.

use std::sync::Arc;

use store::Store;
use tokio::sync::watch;
use tokio::task::JoinSet;
use upstream::{Upstream, UpstreamError};
use worker::Worker;

use crate::bots::Bots;
use crate::buildbarn::Buildbarn;
use crate::config::{Config, SchedulerProtocol};
use crate::counters::Counters;
use crate::protocol::Protocol;
use crate::run::Runner;
use crate::slot::Slot;

/// A worker that takes actions from a scheduler. Dropping it ends all slots at once.
pub struct Agent {
    slots: JoinSet<()>,
    draining: watch::Sender<bool>,
}

impl Agent {
    /// Starts the slots. To be called inside of a runtime.
    ///
    /// # Errors
    /// When the files of TLS can't be used.
    pub fn start(
        config: Config,
        store: Arc<Store>,
        worker: Worker,
        storage: Arc<Upstream>,
        counters: Arc<Counters>,
    ) -> Result<Self, UpstreamError> {
        let channel = upstream::connect(&config.scheduler, &config.security, config.timeout)?;
        let (draining, is_draining) = watch::channel(false);
        let runner = Arc::new(Runner { config, store, worker, storage, counters });
        let config = &runner.config;
        let slots = match config.protocol {
            SchedulerProtocol::Buildbarn => Self::slots(&runner, &is_draining, |slot| {
                Buildbarn::new(channel.clone(), config, slot)
            }),
            SchedulerProtocol::Bots => {
                Self::slots(&runner, &is_draining, |slot| Bots::new(channel.clone(), config, slot))
            }
        };
        Ok(Self { slots, draining })
    }

    fn slots<P: Protocol + 'static>(
        runner: &Arc<Runner>,
        draining: &watch::Receiver<bool>,
        protocol: impl Fn(usize) -> P,
    ) -> JoinSet<()> {
        let mut slots = JoinSet::new();
        for number in 0..runner.config.slots.get() {
            let slot = Slot::new(number, Arc::clone(runner), protocol(number), draining.clone());
            slots.spawn(slot.serve());
        }
        slots
    }

    /// Takes no other action from now on.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Waits until all slots have ended, which they do once the worker drains.
    pub async fn ended(&mut self) {
        while let Some(ended) = self.slots.join_next().await {
            if ended.is_err() {
                tracing::error!("a slot of the cluster's worker ended by a panic");
            }
        }
    }
}
