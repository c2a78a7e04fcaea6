//! Restores that are streamed to who asked for them.

use std::sync::Arc;

use futures::StreamExt;
use headwater_cluster::{Command, Restore, RestoreState as State};
use headwater_protocol::admin::Destination;
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_restore::naming::Selection;

use super::kept;
use super::open::{chosen, selection, source_of};
use super::plan::plan_kept_at;
use crate::archive::{ArchiveStream, ArchiveWriter, NobodyReads, pipe};
use crate::commands::submit;
use crate::set::Set;

/// Pieces of an archive on their way to a reader.
const ARCHIVE_CHUNKS: usize = 4;

/// Streams the archive of a restore. The stream is cut with a refusal if it cannot be completed.
pub async fn archive(set: &Arc<Set>, id: u64, restore: &Restore) -> Result<ArchiveStream, Refusal> {
    let kept = kept(id, restore)?;
    if kept.request.to != Destination::Archive {
        return Err(Refusal::new(
            RefusalKind::Conflict,
            format!("restore {id} goes to a server, not to an archive"),
        ));
    }
    let selection = selection(&kept.request)?;
    if !kept.whole {
        // What cannot be restored is told before the stream begins.
        plan_kept_at(set, &kept.request.at, restore).await?;
    }
    let (writer, stream) = pipe(ARCHIVE_CHUNKS);
    let (set, restore) = (set.clone(), restore.clone());
    set.ground.host.clone().spawn(async move {
        let outcome = match write_archive(&set, id, &restore, &selection, &writer).await {
            Ok(()) => writer.finish().await.map_err(nobody_reads),
            Err(refused) => {
                writer.fail(refused.clone()).await;
                Err(refused)
            }
        };
        let ended = match outcome {
            Ok(()) => progress(&set, id, State::Finished, "finished", None).await,
            Err(refused) => progress(&set, id, State::Failed, "documents", Some(refused.message)).await,
        };
        if let Err(refused) = ended {
            tracing::warn!(restore = id, error = %refused.message, "the end of an archive could not be noted");
        }
        crate::set::remove_scratch(&set.ground, id).await;
    });
    Ok(stream)
}

async fn write_archive(
    set: &Set,
    id: u64,
    restore: &Restore,
    selection: &Selection,
    out: &ArchiveWriter,
) -> Result<(), Refusal> {
    let (source, version) = source_of(set, id, restore).await?;
    let chosen = chosen(&*source, selection).await?;
    let mut chunks = std::pin::pin!(headwater_restore::dump::archive(source, chosen, &version));
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| Refusal::new(RefusalKind::Internal, e.to_string()))?;
        out.write(chunk).await.map_err(nobody_reads)?;
    }
    Ok(())
}

fn nobody_reads(_: NobodyReads) -> Refusal {
    Refusal::new(RefusalKind::Conflict, "the reader went away before the end")
}

async fn progress(set: &Set, id: u64, state: State, step: &str, error: Option<String>) -> Result<(), Refusal> {
    let (control, record) = set.record()?;
    let Some(restore) = control.restores.get(&id) else {
        return Ok(());
    };
    let progress = headwater_cluster::command::RestoreProgress {
        state,
        step: step.to_owned(),
        error,
        ..restore.progress()
    };
    let command = Command::UpdateRestore {
        id,
        epoch: record.epoch,
        progress,
    };
    submit(&set.ground.control, command).await.map(|_| ())
}
