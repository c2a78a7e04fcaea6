//! The agent's side of a replica set: what arrives is checked, made durable, and only then acknowledged.

use bytes::Bytes;
use headwater_cluster::Command;
use headwater_cluster::{ReplicaSet, State};
use headwater_model::{Incarnation, Optime, Phase};
use headwater_protocol::agent::{
    Accepted, OpenReply, OpenRequest, OplogAck, PollReply, PollRequest, Refusal, RefusalKind, StreamFault,
    SyncBeginHeader, SyncBegun, SyncEnd, SyncOrder,
};
use headwater_protocol::frame::{Frame, FrameKind};
use headwater_protocol::slices::{DocumentsHeader, SyncSliceHeader, documents};

use crate::board::{AgentWord, Fetched};
use crate::commands::submit;
use crate::set::{Set, Stores};
use crate::trouble::{append_refusal, refusal, slice_refusal};

impl Set {
    /// Answers `open`: what to send from where.
    pub async fn open_stream(&self, request: OpenRequest) -> Result<OpenReply, Refusal> {
        let (state, record) = self.record()?;
        if let Some(lease) = self.other_agent(&state, &request.agent) {
            let message = format!(
                "agent {lease} streams {}; this one waits in reserve",
                self.id.deployment()
            );
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        self.board.opened(request.shard);
        let stores = self.stores(record.incarnation).await.map_err(refusal)?;
        let begun = stores.sync.begun().await.map_err(refusal)?;
        if record.phase == Phase::Starting && begun.is_some() {
            // Whoever took the beginning in ended before that was known: nobody would send it again.
            self.advance(&record, Phase::Transferring).await?;
        }
        let sync = match (record.phase, begun) {
            (Phase::Starting | Phase::Transferring, Some((_, metas))) => Some(SyncOrder {
                begun: Some(SyncBegun {
                    collections: metas.iter().map(|m| m.uuid).collect(),
                    parts: stores.sync.progress().await.map_err(refusal)?,
                    ended: stores.sync.ended().await.map_err(refusal)?.is_some(),
                }),
            }),
            (Phase::Starting | Phase::Transferring, None) => Some(SyncOrder { begun: None }),
            _ => None,
        };
        // An oplog may have been begun by an agent that died before its sync was: that one begins again elsewhere.
        let begun = sync.as_ref().is_none_or(|order| order.begun.is_some());
        let tail = if begun {
            stores.oplog.tip().await.map_err(refusal)?
        } else {
            None
        };
        Ok(OpenReply {
            incarnation: record.incarnation,
            sync,
            tail,
        })
    }

    /// Takes `sync/begin`.
    pub async fn sync_begin(&self, bytes: Bytes) -> Result<Accepted, Refusal> {
        let frame = self.opened(FrameKind::SyncBegin, bytes).await?;
        let header: SyncBeginHeader = frame.header().map_err(invalid)?;
        let (record, stores) = self.current(header.incarnation).await?;
        self.same_set(&header.replica_set)?;
        if !matches!(record.phase, Phase::Starting | Phase::Transferring) {
            return Err(Refusal::new(
                RefusalKind::Conflict,
                "this sync is past its transfer: open the stream again",
            ));
        }
        if let Err(error) = stores.oplog.begin(header.tail_after).await {
            if stores.oplog.origin().is_none_or(|origin| origin == header.tail_after) {
                return Err(refusal(error));
            }
            // It was begun elsewhere: by an agent that died before its sync was begun, or by another agent just now. The
            // first leaves an oplog that nobody can ever use, so that only another history helps.
            if stores.sync.begun().await.map_err(refusal)?.is_none() {
                self.start_incarnation(record.incarnation).await?;
            }
            let message = format!("the first copy was begun elsewhere: open the stream again ({error})");
            return Err(Refusal::new(RefusalKind::Stale, message));
        }
        stores.sync.begin(frame).await.map_err(slice_refusal)?;
        self.advance(&record, Phase::Transferring).await?;
        Ok(Accepted {})
    }

    /// Takes a sync slice.
    pub async fn sync_slice(&self, bytes: Bytes) -> Result<Accepted, Refusal> {
        let frame = self.opened(FrameKind::SyncSlice, bytes).await?;
        let header: SyncSliceHeader = frame.header().map_err(invalid)?;
        self.same_set(&header.replica_set)?;
        let (record, stores) = self.current(header.incarnation).await?;
        if record.phase != Phase::Transferring {
            return Err(Refusal::new(
                RefusalKind::Conflict,
                "no sync slices are wanted now: open the stream again",
            ));
        }
        stores.sync.put(frame).await.map_err(slice_refusal)?;
        self.head_waker.wake();
        Ok(Accepted {})
    }

    /// Takes the end of the scan: from here on the Sync child works.
    pub async fn sync_end(&self, end: SyncEnd) -> Result<Accepted, Refusal> {
        let (record, stores) = self.current(end.incarnation).await?;
        if record.phase > Phase::Transferring {
            return Ok(Accepted {});
        }
        let stop = stores.sync.end(end).await.map_err(slice_refusal)?.stop;
        self.transferred(&record, stop).await?;
        self.head_waker.wake();
        Ok(Accepted {})
    }

    /// The end of the scan is durable.
    pub async fn transferred(&self, record: &ReplicaSet, stop: Optime) -> Result<(), Refusal> {
        let command = Command::SetSyncStop {
            set: self.id.clone(),
            incarnation: record.incarnation,
            stop,
        };
        submit(&self.ground.control, command).await?;
        self.advance(record, Phase::Building).await
    }

    /// Takes an oplog slice.
    pub async fn oplog_slice(&self, bytes: Bytes) -> Result<OplogAck, Refusal> {
        let frame = self.opened(FrameKind::OplogSlice, bytes).await?;
        let header: headwater_protocol::slices::OplogSliceHeader = frame.header().map_err(invalid)?;
        self.same_set(&header.replica_set)?;
        let (_, stores) = self.current(header.incarnation).await?;
        tracing::debug!(set = %self.id, last = %header.last.ts, "oplog slice arrived");
        let tip = stores.oplog.append(frame).await.map_err(append_refusal)?;
        tracing::debug!(set = %self.id, last = %header.last.ts, "oplog slice stored");
        self.head_waker.wake();
        Ok(OplogAck {
            tip: tip.after,
            tip_slice: tip.previous_slice,
        })
    }

    /// Takes fetched documents.
    pub async fn documents(&self, bytes: Bytes) -> Result<Accepted, Refusal> {
        let frame = self.opened(FrameKind::Documents, bytes).await?;
        let header: DocumentsHeader = frame.header().map_err(invalid)?;
        self.same_set(&header.replica_set)?;
        self.current(header.incarnation).await?;
        let payload = frame.payload().map_err(invalid)?;
        let found = documents(&payload)
            .map(|d| d.map(|d| payload.slice_ref(d)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(invalid)?;
        let fetched = Fetched {
            collection: header.collection,
            documents: found,
            observed: header.observed,
        };
        let taken = self.board.answer(header.request, fetched, header.more);
        self.head_waker.wake();
        if !taken {
            let message = "the head still takes in the documents fetched before: send these again in a moment";
            return Err(Refusal::new(RefusalKind::Unavailable, message));
        }
        Ok(Accepted {})
    }

    /// Takes a report, gives orders.
    pub async fn poll(&self, request: PollRequest) -> Result<PollReply, Refusal> {
        let (state, record) = self.record()?;
        let active = state.deployments.get(self.id.deployment()).is_some_and(|d| d.active);
        let overtaken = self.other_agent(&state, &request.agent).is_some();
        // What an agent lost that slept while another streamed is not what the backup lost.
        if let Some(StreamFault::HistoryLost { detail }) = &request.fault
            && request.incarnation == record.incarnation
            && !overtaken
        {
            tracing::warn!(set = %self.id, %detail, "the source's history no longer joins ours: a new incarnation begins");
            self.start_incarnation(record.incarnation).await?;
        }
        let reopen = overtaken || !active || request.incarnation != self.record()?.1.incarnation;
        if overtaken {
            return Ok(PollReply {
                reopen,
                ..PollReply::default()
            });
        }
        self.board.heard(AgentWord {
            agent: request.agent,
            heard_ms: self.ground.host.clock.now_ms(),
            source_last: request.source_last,
            scan: request.scan,
            fault: request.fault,
            shard: self.board.word().shard,
        });
        if reopen {
            return Ok(PollReply {
                reopen,
                ..PollReply::default()
            });
        }
        if let Some(noted) = request.noted {
            self.noted(noted).await?;
        }
        if let Some(word) = request.balancer {
            self.note_balancer(word).await?;
        }
        Ok(PollReply {
            reopen,
            fetch: self.board.open_requests(),
            balancer: self.balancer_order()?,
            note: self.wanted_note().await?,
        })
    }

    /// The agent that has the lease, if it is another.
    fn other_agent(&self, state: &State, agent: &str) -> Option<String> {
        let lease = state.leases.get(self.id.deployment())?;
        (lease.agent != agent).then(|| lease.agent.clone())
    }

    /// Begins a new history; the snapshots of the old one stay.
    pub async fn start_incarnation(&self, expected: Incarnation) -> Result<(), Refusal> {
        let command = Command::StartIncarnation {
            set: self.id.clone(),
            expected,
        };
        submit(&self.ground.control, command).await.map(|_| ())
    }

    async fn advance(&self, record: &ReplicaSet, phase: Phase) -> Result<(), Refusal> {
        let command = Command::SetPhase {
            set: self.id.clone(),
            incarnation: record.incarnation,
            epoch: record.epoch,
            phase,
        };
        submit(&self.ground.control, command).await?;
        tracing::info!(set = %self.id, "first copy: {}", phase.text());
        Ok(())
    }

    fn same_set(&self, named: &headwater_model::ReplicaSetId) -> Result<(), Refusal> {
        if *named == self.id {
            return Ok(());
        }
        let message = format!("the frame is for {named}, not for {}", self.id);
        Err(Refusal::new(RefusalKind::Invalid, message))
    }

    /// The record and the stores, provided the caller works in the current history.
    async fn current(&self, incarnation: Incarnation) -> Result<(ReplicaSet, Stores), Refusal> {
        let (state, record) = self.record()?;
        if !state.deployments.get(self.id.deployment()).is_some_and(|d| d.active) {
            return Err(Refusal::new(RefusalKind::Stale, "this deployment is stopped"));
        }
        if record.incarnation != incarnation {
            let message = format!(
                "incarnation {incarnation} is over, {} is current: open again",
                record.incarnation
            );
            return Err(Refusal::new(RefusalKind::Stale, message));
        }
        let stores = self.stores(incarnation).await.map_err(refusal)?;
        Ok((record, stores))
    }

    /// Opens a frame and walks every document in it, off the async threads: hostile bytes end here.
    async fn opened(&self, kind: FrameKind, bytes: Bytes) -> Result<Frame, Refusal> {
        let walked = move || {
            let frame = Frame::open(kind, bytes).map_err(invalid)?;
            let payload = frame.payload().map_err(invalid)?;
            for document in documents(&payload) {
                let document = document.map_err(invalid)?;
                headwater_oplog::validate::document(document).map_err(invalid)?;
            }
            Ok(frame)
        };
        self.ground.host.blocking(walked).await
    }

    /// The optime from which a stalled or new head must go on, for status.
    pub async fn tip(&self, incarnation: Incarnation) -> Result<Option<Optime>, Refusal> {
        let stores = self.stores(incarnation).await.map_err(refusal)?;
        Ok(stores.oplog.tip().await.map_err(refusal)?.map(|tip| tip.after))
    }
}

fn invalid(e: impl std::fmt::Display) -> Refusal {
    Refusal::new(RefusalKind::Invalid, e.to_string())
}

#[cfg(test)]
mod tests;
