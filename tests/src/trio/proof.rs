//! What a cluster must show in the end.

use anyhow::{Context, Result};
use headwater_model::Ts;
use rand::rngs::StdRng;
use serde_json::Value;

use super::Trio;
use crate::{Bed, ReplicaSet, proof};

impl Trio {
    /// Waits for a first restorable point.
    pub async fn until_complete(&self) -> Result<()> {
        self.until("a first restorable point", &["status"], |status| {
            let set = proof::set_of(status)?;
            (set.get("phase")?.as_str()? == "complete" && !set.get("restorable")?.is_null()).then_some(())
        })
        .await
    }

    /// Waits until the head has everything up to `ts`, on whichever node it is.
    pub async fn until_applied(&self, ts: Ts) -> Result<()> {
        let applied = |status: &Value| {
            let at = proof::position(proof::set_of(status)?.get("applied")?)?;
            (at >= (u64::from(ts.seconds()), u64::from(ts.ordinal()))).then_some(())
        };
        self.until("a head that has caught up", &["status"], applied).await
    }

    /// Takes a snapshot, asking again for as long as it is refused, and waits until it is complete.
    pub async fn until_snapshot_taken(&self) -> Result<()> {
        let id = self
            .until(
                "a snapshot to be asked for",
                &["snapshot", "take", "default"],
                |taken| Some(taken.get("id")?.as_str()?.to_owned()),
            )
            .await?;
        let complete = |shown: &Value| (shown.get("complete")? == true).then_some(());
        self.until(
            "a snapshot to be complete",
            &["snapshot", "show", "default", &id],
            complete,
        )
        .await
    }

    /// What is restored at the end of everything equals the source.
    pub async fn comes_back(&self, bed: &Bed, source: &ReplicaSet) -> Result<()> {
        let end = source.mark("end").await?;
        self.until_applied(end).await?;
        let target = proof::restored(bed, self.commands(), source.version(), &end.to_string()).await;
        let target = target.with_context(|| self.logs())?;
        proof::compare(source.client(), target.client(), "the end").await
    }

    /// What is restored at so many random entries equals a model replayed from the source's oplog by a server.
    pub async fn instants_come_back(
        &self,
        bed: &Bed,
        source: &ReplicaSet,
        random: &mut StdRng,
        count: usize,
    ) -> Result<()> {
        let instants = proof::instants(self.commands(), source, random, count, 50).await?;
        proof::all_come_back(bed, self.commands(), source, &instants).await
    }
}
