//! The balancer of a sharded cluster, looked at, stopped and put back at its config servers: no mongos is needed.
//!
//! With the commands that a mongos sends them where the login may use those (`clusterManager`); else by `config.settings`, which
//! role `backup` may write and the balancer reads before every round.

use std::time::Duration;

use bson::{Bson, Document, doc};
use headwater_protocol::agent::{BalancerOrder, BalancerOutcome, BalancerWish, BalancerWord};

use crate::source::{Node, Source, SourceError};

/// An order that is older is not carried out: this process stood still, another may have put the balancer back meanwhile,
/// and nobody would know that it has to be done again.
pub const ORDER_HOLDS: Duration = Duration::from_secs(10);
/// How long the end of the balancer's round is waited for.
const ROUND_ENDS_WITHIN_MS: i32 = 20_000;

/// The modes of `config.settings` that need a name here.
const OFF: &str = "off";
const FULL: &str = "full";

/// Carries an order out. `None`: the config servers cannot be asked now, and are asked again.
pub async fn carry_out(source: &Source, order: &BalancerOrder) -> Option<BalancerWord> {
    let outcome = match source.primary().await {
        Ok((primary, _)) => tried(&primary, &order.wish).await,
        Err(error) => Err(error),
    };
    let outcome = match (outcome, &order.wish) {
        (Ok(outcome), _) => outcome,
        (Err(error), BalancerWish::Look | BalancerWish::Stop) if is_final(&error) => BalancerOutcome::Failed {
            why: format!("{error}; the login needs the role clusterManager, or backup, on the config servers"),
        },
        (Err(error), wish) => {
            tracing::warn!(?wish, %error, "the balancer does not follow; it is tried again");
            return None;
        }
    };
    tracing::info!(wish = ?order.wish, ?outcome, "the balancer");
    Some(BalancerWord {
        step: order.step,
        outcome,
    })
}

fn is_final(error: &SourceError) -> bool {
    error.is_unauthorized() || error.is_time_limit()
}

async fn tried(primary: &Node, wish: &BalancerWish) -> Result<BalancerOutcome, SourceError> {
    match wish {
        BalancerWish::Look => {
            let find = doc! {
                "find": "settings", "filter": { "_id": "balancer" }, "limit": 1, "singleBatch": true,
                "readConcern": { "level": "majority" },
            };
            let reply = primary.command("config", find).await?;
            let cursor = reply.get_document("cursor");
            let batch = cursor.and_then(|cursor| cursor.get_array("firstBatch"));
            let rows = batch.map_err(SourceError::answer)?;
            let mode = mode_of(rows.first().and_then(Bson::as_document));
            Ok(BalancerOutcome::Found { mode })
        }
        BalancerWish::Stop => {
            let stop = doc! { "_configsvrBalancerStop": 1, "maxTimeMS": ROUND_ENDS_WITHIN_MS };
            by_command_or_settings(primary, Some(stop), OFF).await?;
            Ok(BalancerOutcome::Stopped)
        }
        BalancerWish::PutBack { mode } => {
            let start = (mode == FULL).then(|| doc! { "_configsvrBalancerStart": 1 });
            by_command_or_settings(primary, start, mode).await?;
            Ok(BalancerOutcome::PutBack)
        }
    }
}

/// Sets the mode by a command; where that is not allowed, or there is none for this mode, by the document that it writes.
async fn by_command_or_settings(primary: &Node, command: Option<Document>, mode: &str) -> Result<(), SourceError> {
    if let Some(command) = command {
        match primary.command("admin", command).await {
            Err(error) if error.is_unauthorized() => {}
            answered => return answered.map(drop),
        }
    }
    let set = doc! { "$set": { "mode": mode, "stopped": mode == OFF } };
    let update = doc! {
        "update": "settings", "updates": [{ "q": { "_id": "balancer" }, "u": set, "upsert": true }],
        "writeConcern": { "w": "majority" },
    };
    primary.command("config", update).await.map(drop)
}

/// The mode by the document of `config.settings`; without one the balancer works.
fn mode_of(settings: Option<&Document>) -> String {
    let Some(settings) = settings else {
        return FULL.to_owned();
    };
    if settings.get_bool("stopped").unwrap_or(false) {
        return OFF.to_owned();
    }
    settings.get_str("mode").unwrap_or(FULL).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_what_settings_say_and_full_without() {
        for (settings, want) in [
            (None, "full"),
            (Some(doc! { "_id": "balancer" }), "full"),
            (Some(doc! { "_id": "balancer", "stopped": true }), "off"),
            (Some(doc! { "_id": "balancer", "mode": "off", "stopped": true }), "off"),
            (Some(doc! { "_id": "balancer", "mode": "off" }), "off"),
            (
                Some(doc! { "_id": "balancer", "mode": "full", "stopped": false }),
                "full",
            ),
            (
                Some(doc! { "_id": "balancer", "mode": "autoSplitOnly", "stopped": false }),
                "autoSplitOnly",
            ),
        ] {
            assert_eq!(mode_of(settings.as_ref()), want, "{settings:?}");
        }
    }
}
