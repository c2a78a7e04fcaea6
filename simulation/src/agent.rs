//! An agent: the production one, in a simulated process.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use headwater_agent::orders::Reach;
use headwater_agent::{AgentSettings, run_with};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;

use crate::daemon;
use crate::door::{AGENT_KEY, AgentDoor};
use crate::mongo::Sources;
use crate::network::Peer;
use crate::process::Process;
use crate::time::Clock;
use crate::trace;
use crate::world::Parts;

/// The names agents have on the network.
pub const NAMES: [Peer; 3] = ["a1", "a2", "a3"];

/// A machine that an agent runs on.
pub struct AgentMachine {
    /// Counted from 0.
    pub at: usize,
    /// Its clock.
    pub clock: Clock,
    /// How often it was started.
    pub boots: u64,
    /// The process that runs.
    pub process: Option<Process>,
    /// How long it waits for an answer.
    pub patience: Duration,
}

impl AgentMachine {
    /// Starts the agent.
    pub fn boot(&mut self, parts: &Parts) {
        self.boots += 1;
        let name = NAMES[self.at];
        let seed = parts.seed_of(name, self.boots);
        let parts = parts.clone();
        let patience = self.patience;
        let daemons: Vec<Peer> = daemon::NAMES[..parts.draw.daemons].to_vec();
        let (clock, schedule) = (self.clock.clone(), parts.draw.schedule);
        self.process = Some(Process::start(
            name,
            seed,
            clock,
            schedule,
            move |host, life| async move {
                let urls = daemons.iter().map(|daemon| format!("http://{daemon}")).collect();
                let mut settings = AgentSettings::new(urls, AGENT_KEY, name);
                settings.request_timeout = patience;
                if let Some((slice_bytes, split_over_bytes)) = parts.draw.slices {
                    (settings.slice_bytes, settings.split_over_bytes) = (slice_bytes, split_over_bytes);
                }
                settings.source_timeout = Duration::from_secs(20);
                let reach = Reach {
                    service: Arc::new(AgentDoor {
                        from: name,
                        socket: parts.network.socket(),
                        daemons,
                        patience: settings.request_timeout,
                        life: life.clone(),
                    }),
                    source: Arc::new(Sources {
                        sets: parts.oracle.sets().to_vec(),
                        life,
                        rng: Mutex::new(StdRng::seed_from_u64(seed)),
                    }),
                };
                let (_stay, stop) = watch::channel(false);
                // An agent whose key is not known yet ends; a service manager starts it again.
                while let Err(error) = run_with(host.clone(), settings.clone(), reach.clone(), stop.clone()).await {
                    trace::line(&format!("the agent ended: {error}"));
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
        ));
    }

    /// Ends the agent as kill -9 does.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }
}
