//! The first copy on its way into a head: runs are built from the slices that have arrived while others still arrive.
//!
//! Nothing here is durable. After a crash the same slices give the same runs, whose blocks the store has already.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::AbortHandle;
use futures::stream::{FuturesUnordered, StreamExt};
use headwater_head::{Begin, Builder, Built, Head, HeadError, SlicePayload, SliceSource, SortedRun};
use headwater_host::{Host, Task, TaskEnded};
use headwater_model::{CollectionUuid, limits};
use headwater_protocol::agent::{CollectionMeta, SyncBeginHeader};
use headwater_store::objects::StoreError;
use headwater_store::sync_store::{Arrived, SliceRef, SyncStore};

use crate::set::Set;
use crate::work::head_store::{blocks, fault};
use crate::worker::Fault;

/// Consecutive slices of one part that become one run; ordered as the runs of a collection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    collection: CollectionUuid,
    part: u32,
    from: u32,
    to: u32,
}

/// How many slices of each part are in groups already.
type Grouped = BTreeMap<(CollectionUuid, u32), u32>;

/// The groups that can be formed of what has arrived: full ones, and the rest of parts that are done. With `ended` all
/// parts are done, even those whose collection was dropped in the middle.
fn groups(arrived: &[Arrived], grouped: &mut Grouped, ended: bool) -> Vec<Group> {
    let mut groups = Vec::new();
    for part in arrived {
        let next = grouped.entry((part.collection, part.part)).or_default();
        while *next < part.slices {
            let to = (*next + limits::BUILD_RUN_SLICES).min(part.slices);
            if to - *next < limits::BUILD_RUN_SLICES && !part.done && !ended {
                break;
            }
            groups.push(Group {
                collection: part.collection,
                part: part.part,
                from: *next,
                to,
            });
            *next = to;
        }
    }
    groups
}

type Running<T> = FuturesUnordered<Task<Result<T, HeadError>>>;

/// See the module.
pub struct FirstCopy {
    host: Host,
    builder: Builder,
    sync: Arc<SyncStore>,
    begin: SyncBeginHeader,
    metas: BTreeMap<CollectionUuid, Arc<CollectionMeta>>,
    grouped: Grouped,
    waiting: std::collections::VecDeque<Group>,
    building: Running<(Group, SortedRun)>,
    runs: BTreeMap<Group, SortedRun>,
    aborts: Vec<AbortHandle>,
}

impl FirstCopy {
    /// `None` before the agent has begun the sync, and after its slices were removed.
    pub async fn open(set: &Set, sync: &Arc<SyncStore>) -> Result<Option<FirstCopy>, Fault> {
        let Some((begin, metas)) = sync.begun().await? else {
            return Ok(None);
        };
        Ok(Some(FirstCopy {
            host: set.ground.host.clone(),
            builder: Builder::new(blocks(set)),
            sync: sync.clone(),
            begin,
            metas: metas.into_iter().map(|meta| (meta.uuid, Arc::new(meta))).collect(),
            grouped: Grouped::new(),
            waiting: std::collections::VecDeque::new(),
            building: FuturesUnordered::new(),
            runs: BTreeMap::new(),
            aborts: Vec::new(),
        }))
    }

    /// Starts what can be built and takes what was built. Waits only while as much is being built as may be.
    pub async fn tend(&mut self, ended: bool) -> Result<(), Fault> {
        self.waiting
            .extend(groups(&self.sync.arrived(), &mut self.grouped, ended));
        while let Some(Some(run)) = self.building.next().now_or_never() {
            self.keep(run)?;
        }
        while let Some(group) = self.waiting.pop_front() {
            if self.building.len() >= limits::BUILD_RUNS_AT_ONCE
                && let Some(run) = self.building.next().await
            {
                self.keep(run)?;
            }
            self.start(group);
        }
        Ok(())
    }

    fn start(&mut self, group: Group) {
        // Slices of a collection that the begin does not name can only be of one that is not to be copied.
        let Some(meta) = self.metas.get(&group.collection).cloned() else {
            return;
        };
        let (builder, mut slices) = (self.builder.clone(), Slices::of(group, &self.sync));
        let run = async move { Ok((group, builder.run(&meta, &mut slices).await?)) };
        let task = self.host.spawn(run);
        self.aborts.push(task.abort_handle());
        self.building.push(task);
    }

    fn keep(&mut self, run: Result<Result<(Group, SortedRun), HeadError>, TaskEnded>) -> Result<(), Fault> {
        let (group, run) = ended_well(run)?;
        self.runs.insert(group, run);
        Ok(())
    }

    /// Every slice is there: ends the runs, merges those of each collection, and gives the head at the begin of the scan.
    pub async fn finish(&mut self, set: &Set) -> Result<Head, Fault> {
        self.tend(true).await?;
        while let Some(run) = self.building.next().await {
            self.keep(run)?;
        }
        let begin_at = Begin {
            tail_after: self.begin.tail_after,
            begin_applying: self.begin.begin_applying,
        };
        let mut head = Head::new(blocks(set), &self.begin.server_version, begin_at).map_err(fault)?;
        let mut runs: BTreeMap<CollectionUuid, Vec<SortedRun>> = BTreeMap::new();
        for (group, run) in std::mem::take(&mut self.runs) {
            runs.entry(group.collection).or_default().push(run);
        }
        let mut merging: Running<(Arc<CollectionMeta>, Built)> = FuturesUnordered::new();
        for meta in self.metas.values() {
            let (meta, builder) = (meta.clone(), self.builder.clone());
            let runs = runs.remove(&meta.uuid).unwrap_or_default();
            if merging.len() >= limits::BUILD_RUNS_AT_ONCE
                && let Some(built) = merging.next().await
            {
                let (meta, built) = ended_well(built)?;
                head.add_collection(&meta, built);
            }
            let merge = self.host.spawn(async move { Ok((meta, builder.merge(runs).await?)) });
            self.aborts.push(merge.abort_handle());
            merging.push(merge);
        }
        while let Some(built) = merging.next().await {
            let (meta, built) = ended_well(built)?;
            head.add_collection(&meta, built);
        }
        Ok(head)
    }
}

impl Drop for FirstCopy {
    fn drop(&mut self) {
        self.aborts.iter().for_each(AbortHandle::abort);
    }
}

fn ended_well<T>(result: Result<Result<T, HeadError>, TaskEnded>) -> Result<T, Fault> {
    result.map_err(|e| Fault::Retry(e.to_string()))?.map_err(fault)
}

/// The slices of one group, read as the builder asks for them.
struct Slices {
    store: Arc<SyncStore>,
    group: Group,
    next: u32,
}

impl Slices {
    fn of(group: Group, store: &Arc<SyncStore>) -> Slices {
        Slices {
            store: store.clone(),
            group,
            next: group.from,
        }
    }
}

#[async_trait::async_trait]
impl SliceSource for Slices {
    async fn next(&mut self) -> Result<Option<SlicePayload>, StoreError> {
        if self.next == self.group.to {
            return Ok(None);
        }
        let slice = SliceRef {
            collection: self.group.collection,
            part: self.group.part,
            number: self.next,
        };
        self.next += 1;
        Ok(Some(SlicePayload {
            number: slice.number,
            payload: self.store.read(&slice).await?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(part: u32, slices: u32, done: bool) -> Arrived {
        Arrived {
            collection: CollectionUuid([7; 16]),
            part,
            slices,
            done,
        }
    }

    fn spans(groups: &[Group]) -> Vec<(u32, u32, u32)> {
        groups.iter().map(|g| (g.part, g.from, g.to)).collect()
    }

    #[test]
    fn groups_close_when_full_or_when_their_part_is_done() {
        const FULL: u32 = limits::BUILD_RUN_SLICES;
        let mut grouped = Grouped::new();
        assert_eq!(spans(&groups(&[arrived(0, FULL - 1, false)], &mut grouped, false)), []);
        let more = [arrived(0, 2 * FULL + 1, false), arrived(1, 1, true)];
        assert_eq!(
            spans(&groups(&more, &mut grouped, false)),
            [(0, 0, FULL), (0, FULL, 2 * FULL), (1, 0, 1)]
        );
        assert_eq!(
            spans(&groups(&more, &mut grouped, false)),
            [],
            "nothing is grouped twice"
        );
        assert_eq!(spans(&groups(&more, &mut grouped, true)), [(0, 2 * FULL, 2 * FULL + 1)]);
    }
}
