//! What can go wrong with real processes, one thing at a time.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use headwater_tests::{Trio, Way};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::sleep;

/// One thing that goes wrong for a while. Daemons and agents by their places.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    DaemonKilled(usize),
    DaemonFrozen(usize),
    /// The second after so long, while the first is still gone.
    TwoKilled(usize, usize, Duration),
    AgentKilled(usize),
    AgentFrozen(usize),
    /// Neither hears nor is heard by other daemons.
    CutOff(usize),
    /// Others cannot call it; it can call them.
    Deaf(usize),
    /// It cannot call others; they can call it.
    Mute(usize),
    /// What it asks is done, but it never hears so.
    Unanswered(usize),
    /// These two do not reach each other; the third reaches both.
    Parted(usize, usize),
}

impl Fault {
    /// One that hits the owner and the leader more often than others.
    pub async fn draw(trio: &Trio, random: &mut StdRng) -> Fault {
        let daemon = match random.gen_range(0..4) {
            0 => trio.owner().await.unwrap_or(0),
            1 => trio.leader().await.unwrap_or(1),
            _ => random.gen_range(0..trio.daemons()),
        };
        let next = (daemon + random.gen_range(1..trio.daemons())) % trio.daemons();
        let agent = random.gen_range(0..trio.agents());
        match random.gen_range(0..16) {
            0..4 => Fault::DaemonKilled(daemon),
            4..6 => Fault::DaemonFrozen(daemon),
            6 => Fault::TwoKilled(daemon, next, Duration::from_millis(random.gen_range(100..1500))),
            7..9 => Fault::AgentKilled(agent),
            9 => Fault::AgentFrozen(agent),
            10 | 11 => Fault::CutOff(daemon),
            12 => Fault::Deaf(daemon),
            13 => Fault::Mute(daemon),
            14 => Fault::Unanswered(daemon),
            _ => Fault::Parted(daemon, next),
        }
    }

    /// Lets it begin.
    pub async fn begin(self, trio: &mut Trio) -> Result<()> {
        match self {
            Fault::DaemonKilled(daemon) => trio.daemon(daemon)?.kill(),
            Fault::DaemonFrozen(daemon) => trio.daemon(daemon)?.freeze(),
            Fault::TwoKilled(daemon, second, between) => {
                trio.daemon(daemon)?.kill()?;
                sleep(between).await;
                trio.daemon(second)?.kill()
            }
            Fault::AgentKilled(agent) => trio.agent(agent)?.kill(),
            Fault::AgentFrozen(agent) => trio.agent(agent)?.freeze(),
            Fault::CutOff(daemon) => {
                for other in others(trio, daemon) {
                    trio.shut(daemon, other, Way::Questions).await?;
                    trio.shut(other, daemon, Way::Questions).await?;
                    trio.shut(daemon, other, Way::Answers).await?;
                    trio.shut(other, daemon, Way::Answers).await?;
                }
                trio.ask_all_but(Some(daemon));
                Ok(())
            }
            Fault::Deaf(daemon) => {
                for other in others(trio, daemon) {
                    trio.shut(other, daemon, Way::Questions).await?;
                }
                trio.ask_all_but(Some(daemon));
                Ok(())
            }
            Fault::Mute(daemon) => {
                for other in others(trio, daemon) {
                    trio.shut(daemon, other, Way::Questions).await?;
                }
                trio.ask_all_but(Some(daemon));
                Ok(())
            }
            Fault::Unanswered(daemon) => {
                for other in others(trio, daemon) {
                    trio.shut(daemon, other, Way::Answers).await?;
                }
                Ok(())
            }
            Fault::Parted(one, other) => {
                for way in [Way::Questions, Way::Answers] {
                    trio.shut(one, other, way).await?;
                    trio.shut(other, one, way).await?;
                }
                Ok(())
            }
        }
    }

    /// Ends it.
    pub async fn end(self, trio: &mut Trio) -> Result<()> {
        match self {
            Fault::DaemonKilled(daemon) => trio.start_daemon(daemon).await,
            Fault::DaemonFrozen(daemon) => trio.daemon(daemon)?.resume(),
            Fault::TwoKilled(daemon, second, _) => {
                trio.start_daemon(second).await?;
                trio.start_daemon(daemon).await
            }
            Fault::AgentKilled(agent) => trio.start_agent(agent),
            Fault::AgentFrozen(agent) => trio.agent(agent)?.resume(),
            _ => {
                trio.heal();
                Ok(())
            }
        }
    }

    /// What it is counted as.
    pub fn kind(self) -> &'static str {
        match self {
            Fault::DaemonKilled(_) => "daemon killed",
            Fault::DaemonFrozen(_) => "daemon frozen",
            Fault::TwoKilled(..) => "two daemons killed",
            Fault::AgentKilled(_) => "agent killed",
            Fault::AgentFrozen(_) => "agent frozen",
            Fault::CutOff(_) => "daemon cut off",
            Fault::Deaf(_) => "daemon deaf",
            Fault::Mute(_) => "daemon mute",
            Fault::Unanswered(_) => "daemon unanswered",
            Fault::Parted(..) => "two daemons parted",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::TwoKilled(one, other, between) => write!(f, "{}: {one}, {other} after {between:?}", self.kind()),
            Fault::Parted(one, other) => write!(f, "{}: {one} and {other}", self.kind()),
            Fault::DaemonKilled(at)
            | Fault::DaemonFrozen(at)
            | Fault::AgentKilled(at)
            | Fault::AgentFrozen(at)
            | Fault::CutOff(at)
            | Fault::Deaf(at)
            | Fault::Mute(at)
            | Fault::Unanswered(at) => write!(f, "{}: {at}", self.kind()),
        }
    }
}

fn others(trio: &Trio, daemon: usize) -> impl Iterator<Item = usize> + use<> {
    (0..trio.daemons()).filter(move |other| *other != daemon)
}
