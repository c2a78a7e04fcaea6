//! Reading what rests, whole: packs in the order of their names, the oplog from end to end.

use std::collections::BTreeSet;
use std::time::Duration;

use headwater_cluster::integrity::{CheckKind, DamageKind};
use headwater_cluster::keeping;
use headwater_cluster::shares::{self, Share};
use headwater_model::Incarnation;
use headwater_store::objects::StoreError;
use headwater_store::oplog_store::Walked;
use tokio::time::Instant;

use super::damage::Finding;
use super::run::Run;
use crate::worker::Fault;

impl Run {
    /// Reads packs: all of them, or the share whose turn it is.
    pub async fn packs(&mut self) -> Result<(), Fault> {
        let is_share = self.kind == CheckKind::Share;
        let store = self.set.repository.blocks().clone();
        let listed = store.packs().await?;
        let all: u64 = listed.iter().map(|pack| pack.size).sum();
        let mut budget = u64::MAX;
        if is_share {
            let state = self.state()?;
            let known = state.integrity_of(&self.set.id).and_then(|known| known.pass.clone());
            let now_ms = self.set.ground.host.clock.now_ms();
            budget = match shares::due(known.as_ref(), all, self.set.ground.tuning.rhythm, now_ms) {
                Share::Read { bytes } => bytes,
                Share::Begin | Share::Wait { .. } | Share::Off => 0,
            };
            self.cursor.packs_after = known.as_ref().map_or_else(String::new, |pass| pass.after.clone());
            self.pass = known;
        }
        let left = listed.into_iter().filter(|pack| pack.key > self.cursor.packs_after);
        let left: Vec<_> = left.collect();
        let expected: u64 = left.iter().map(|pack| pack.size).sum::<u64>().min(budget);
        if !self.cursor.packs_done {
            self.standing.counts.objects_total = self.standing.counts.objects + left.len() as u64;
            self.standing.counts.bytes_total = self.standing.counts.bytes + expected;
        }
        let (began, mut read) = (Instant::now(), 0_u64);
        let mut whole = true;
        for pack in left {
            if read >= budget {
                whole = false;
                break;
            }
            self.pack(&pack.key).await?;
            read += pack.size;
            self.cursor.packs_after = pack.key.clone();
            if let Some(pass) = &mut self.pass {
                pass.after = pack.key;
                pass.bytes += pack.size;
            }
            self.tell().await?;
            if is_share {
                self.keep_to_rate(began, read).await;
            }
        }
        if let Some(pass) = &mut self.pass {
            pass.whole |= whole;
        }
        self.cursor.packs_done = true;
        Ok(())
    }

    /// What is read by itself leaves room for the daily work.
    async fn keep_to_rate(&self, began: Instant, read: u64) {
        let rate = self.set.ground.tuning.check_bytes_per_second.max(1);
        let due = Duration::from_secs_f64(read as f64 / rate as f64);
        tokio::time::sleep_until(began + due).await;
    }

    async fn pack(&mut self, key: &str) -> Result<(), Fault> {
        let store = self.set.repository.blocks().clone();
        let Some(verdict) = store.verify_pack(key).await? else {
            // Groomed away meanwhile; whether anything needs it is what the images say.
            return Ok(());
        };
        self.standing.counts.objects += 1;
        self.standing.counts.bytes += verdict.bytes;
        if verdict.is_sound() {
            return self.sound(key).await;
        }
        let wanted = store.blocks_in(key);
        if wanted.is_empty() && self.cursor.found.contains(key) {
            // Its index could not be read: what is lost with it, and for whom, the images have told.
            return Ok(());
        }
        let finding = match verdict.fault {
            Some(detail) => Finding {
                kind: DamageKind::PackIndex,
                lost: wanted,
                ..Finding::blocks(key, &detail)
            },
            None => {
                let lost: BTreeSet<_> = verdict.bad.iter().filter(|id| wanted.contains(id)).copied().collect();
                let first = verdict.bad.first().map_or_else(String::new, ToString::to_string);
                let detail = format!(
                    "{} of its blocks do not match their ids, block {first} first",
                    verdict.bad.len()
                );
                Finding {
                    lost,
                    ..Finding::blocks(key, &detail)
                }
            }
        };
        self.find(finding).await
    }

    /// Follows the oplog of every history; with `read`, every byte of it.
    pub async fn oplog(&mut self, read: bool) -> Result<(), Fault> {
        let (state, record) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
        let kept = |incarnation: &Incarnation| !keeping::is_given_up(&state, &self.set.id, *incarnation);
        let histories: Vec<_> = (1..=record.incarnation.0).map(Incarnation).filter(kept).collect();
        for incarnation in histories {
            let store = match self.set.stores(incarnation).await {
                Ok(stores) => stores.oplog,
                Err(StoreError::Damaged { key, detail }) => {
                    self.broken(incarnation, key, detail, None).await?;
                    continue;
                }
                Err(other) => return Err(other.into()),
            };
            if store.range().is_none() {
                continue;
            }
            match store.check_structure().await {
                Ok((objects, faults)) => {
                    self.standing.counts.objects_total += objects;
                    for fault in faults {
                        self.walked(incarnation, fault).await?;
                    }
                }
                // The walk tells which slice it is, if it is one.
                Err(StoreError::Damaged { key, detail }) if !read || key.contains("/manifest/") => {
                    self.broken(incarnation, key, detail, None).await?;
                }
                Err(StoreError::Damaged { .. }) => {}
                Err(other) => return Err(other.into()),
            }
            if read {
                self.walk(incarnation, &store).await?;
            }
        }
        Ok(())
    }

    async fn walk(
        &mut self,
        incarnation: Incarnation,
        store: &std::sync::Arc<headwater_store::oplog_store::OplogStore>,
    ) -> Result<(), Fault> {
        let of_pass = self.pass.as_ref().and_then(|pass| pass.oplog);
        let of_pass = of_pass.filter(|(of, _)| *of == incarnation).map(|(_, at)| at);
        let from = self.cursor.oplog.get(&incarnation.0).copied().or(of_pass);
        if self
            .pass
            .as_ref()
            .is_some_and(|pass| pass.oplog.is_some_and(|(of, _)| of > incarnation))
        {
            // An ended history was read when it was the present one.
            return Ok(());
        }
        let mut walk = store.walk(from)?;
        let (began, mut bytes) = (Instant::now(), 0);
        while let Some(walked) = walk.next().await? {
            if let Walked::Sound { bytes: slice, .. } = &walked {
                bytes += slice;
            }
            self.walked(incarnation, walked).await?;
            self.cursor.oplog.insert(incarnation.0, walk.position());
            if let Some(pass) = &mut self.pass {
                pass.oplog = Some((incarnation, walk.position()));
                self.keep_to_rate(began, bytes).await;
            }
            self.tell().await?;
        }
        Ok(())
    }

    async fn walked(&mut self, incarnation: Incarnation, walked: Walked) -> Result<(), Fault> {
        match walked {
            Walked::Sound {
                key, entries, bytes, ..
            } => {
                let counts = &mut self.standing.counts;
                counts.entries += entries;
                counts.bytes += bytes;
                counts.bytes_total = counts.bytes_total.max(counts.bytes);
                counts.objects = (counts.objects + 1).min(counts.objects_total.max(counts.objects + 1));
                counts.objects_total = counts.objects_total.max(counts.objects);
                self.sound(&key).await
            }
            Walked::Broken {
                key,
                after,
                until,
                detail,
            } => self.broken(incarnation, key, detail, Some((after, until))).await,
        }
    }

    async fn broken(
        &mut self,
        incarnation: Incarnation,
        object: String,
        detail: String,
        range: Option<(headwater_model::Optime, headwater_model::Optime)>,
    ) -> Result<(), Fault> {
        self.find(Finding {
            object,
            kind: DamageKind::Oplog,
            detail,
            lost: BTreeSet::new(),
            oplog: range.map(|(after, until)| (incarnation, after, until)),
            needed: None,
            is_needless: false,
        })
        .await
    }
}
