//! Restores that are streamed to who asked for them.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use headwater_cluster::command::RestoreProgress;
use headwater_cluster::{Command, Restore, RestoreState as State};
use headwater_protocol::admin::Destination;
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_restore::naming::Selection;
use tokio::time::Instant;

use super::kept;
use super::open::{chosen, selection, source_of};
use super::plan::plan_kept_at;
use crate::archive::{ArchiveStream, ArchiveWriter, NobodyReads, pipe};
use crate::commands::submit;
use crate::set::Set;

/// Pieces of an archive on their way to a reader.
const ARCHIVE_CHUNKS: usize = 4;
/// Between two tellings of how far a reader is.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// How long the end is told again while there is no quorum: the reader waits a minute for it.
const TELL_END_FOR: Duration = Duration::from_secs(50);
const TELL_AGAIN: Duration = Duration::from_secs(1);

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
        let (state, step, error) = match outcome {
            Ok(()) => (State::Finished, "finished", None),
            Err(refused) => (State::Failed, "documents", Some(refused.message)),
        };
        let told = tell_end(&set, id, |progress| {
            (progress.state, progress.step, progress.error) = (state, step.to_owned(), error.clone());
        });
        if let Err(refused) = told.await {
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
    let (mut read, mut told) = (0, Instant::now());
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| Refusal::new(RefusalKind::Internal, e.to_string()))?;
        read += chunk.len() as u64;
        out.write(chunk).await.map_err(nobody_reads)?;
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            // A courtesy; the next one tells the same and more.
            _ = tell(set, id, |progress| progress.done_bytes = read).await;
        }
    }
    Ok(())
}

fn nobody_reads(_: NobodyReads) -> Refusal {
    Refusal::new(RefusalKind::Conflict, "the reader went away before the end")
}

async fn tell_end(set: &Set, id: u64, end: impl Fn(&mut RestoreProgress)) -> Result<(), Refusal> {
    let since = Instant::now();
    loop {
        match tell(set, id, &end).await {
            Err(refused) if refused.kind != RefusalKind::NotFound && since.elapsed() < TELL_END_FOR => {}
            told => return told,
        }
        tokio::time::sleep(TELL_AGAIN).await;
    }
}

async fn tell(set: &Set, id: u64, change: impl Fn(&mut RestoreProgress)) -> Result<(), Refusal> {
    // Whoever owns the set now: it may have gone to another node since the archive was begun.
    let control = set.ground.control.state();
    let Some(record) = control.replica_sets.get(&set.id) else {
        return Ok(());
    };
    let Some(restore) = control.restores.get(&id).filter(|r| r.state == State::Running) else {
        return Ok(());
    };
    let mut progress = restore.progress();
    change(&mut progress);
    let command = Command::UpdateRestore {
        id,
        epoch: record.epoch,
        progress,
    };
    submit(&set.ground.control, command).await.map(drop)
}
