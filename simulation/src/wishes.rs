//! Users: what they ask, and what they make of the answers. An answer that does not come means nothing.

use std::time::Duration;

use bytes::Bytes;
use headwater_model::{ReplicaSetId, Ts};
use headwater_protocol::admin::{AddDeployment, At, SnapshotView, Status, Timeline, TimelineRange};
use headwater_protocol::keeping::{GroomRequest, ScheduleChange, SnapshotChange};
use rand::Rng;
use rand::rngs::StdRng;
use serde::de::DeserializeOwned;

use crate::mongo::{Shared, set};
use crate::network::Request;
use crate::oracle::restored::{self, Instant, Restored};
use crate::oracle::window::Unkept;
use crate::oracle::{Violation, cut};
use crate::user::Wish;
use crate::world::{World, deployment};
use crate::{cuts, daemon, trace};

/// How long users wait.
const PATIENCE: Duration = Duration::from_secs(40);

/// How often users ask again for what is not to be had just now.
const PATIENT_TURNS: u32 = 5;

/// Asks daemon `at`; `None` without an answer.
pub async fn ask(world: &World, at: usize, wish: Wish) -> Option<(u16, Bytes)> {
    let socket = world.parts.network.socket();
    let asked = socket.ask("user", daemon::NAMES[at], Request::User(wish));
    tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()
}

/// The same, and reads the answer; `None` for a refusal.
pub async fn ask_for<T: DeserializeOwned>(world: &World, at: usize, wish: Wish) -> Option<T> {
    let (status, body) = ask(world, at, wish).await?;
    if status != 200 {
        return None;
    }
    serde_json::from_slice(&body).ok()
}

/// Protects the source, for as long as it takes.
pub async fn protect(world: &World) {
    let Some(name) = deployment() else { return };
    for at in (0..world.daemons.len()).cycle() {
        let request = AddDeployment {
            name: name.clone(),
            uri: world.parts.source_uri().to_owned(),
            snapshot_interval_seconds: Some(world.parts.draw.snapshot_interval_s),
            encrypt: None,
            stop_balancer: false,
        };
        match ask(world, at, Wish::Add(request)).await {
            // Refused as known: it was carried out before, and only the answer was lost.
            Some((200 | 409, _)) => break,
            _ => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
    if let Some(window) = world.parts.draw.short_window {
        trace::mark("user: short retention");
        schedule(world, 0, window).await;
    }
    world.is_protected.set(true);
}

/// Starts the deployment, for a user who finds it stopped although it was started again.
pub async fn start_again(world: &World) {
    if let Some(name) = deployment() {
        ask(world, 0, Wish::Active(name, true)).await;
    }
}

/// Lets every snapshot stay for so many days, and the oplog for so many hours; for as long as it takes.
pub async fn schedule(world: &World, days: u32, hours: u32) {
    let Some(name) = deployment() else { return };
    for at in (0..world.daemons.len()).cycle() {
        let change = ScheduleChange {
            snapshot_retention_days: Some(days),
            daily_snapshot_retention_days: Some(days),
            weekly_snapshot_retention_weeks: Some(days),
            monthly_snapshot_retention_months: Some(days),
            point_in_time_window_hours: Some(hours),
            ..ScheduleChange::default()
        };
        match ask(world, at, Wish::Schedule(name.clone(), change)).await {
            Some((200, _)) => return,
            _ => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}

/// The status as a daemon tells it.
pub async fn status(world: &World, at: usize) -> Option<Status> {
    ask_for(world, at, Wish::Status).await
}

/// What can be restored.
pub async fn timeline(world: &World, at: usize) -> Option<Timeline> {
    let timeline = ask_for(world, at, Wish::Timeline(deployment()?)).await?;
    world.parts.oracle.offered(&timeline);
    Some(timeline)
}

/// Takes a snapshot.
pub async fn snapshot(world: &World, at: usize) -> Option<SnapshotView> {
    trace::mark("user: snapshot asked for");
    ask_for(world, at, Wish::Snapshot(deployment()?)).await
}

/// One of the things users do all the time.
pub async fn some(world: &World, rng: &mut StdRng) {
    let at = rng.gen_range(0..world.daemons.len());
    match rng.gen_range(0..7) {
        0 => {
            snapshot(world, at).await;
        }
        1 => delete(world, at, rng).await,
        2 => keep(world, at, rng).await,
        3 => {
            trace::mark("user: groom");
            let Some(name) = deployment() else { return };
            let dry_run = rng.gen_bool(0.2);
            ask(world, at, Wish::Groom(name, GroomRequest { dry_run })).await;
        }
        _ => {
            let Some(timeline) = timeline(world, at).await else {
                return;
            };
            if world.cluster.is_some() && rng.gen_bool(0.5) {
                cuts::some(world, at, &timeline, rng, false).await;
                return;
            }
            let Some((set, wanted)) = choose(world, &timeline, rng) else {
                return;
            };
            restore(world, at, &set, wanted, false).await;
        }
    }
}

async fn delete(world: &World, at: usize, rng: &mut StdRng) {
    let (Some(timeline), Some(name)) = (timeline(world, at).await, deployment()) else {
        return;
    };
    let complete: Vec<_> = timeline.snapshots.iter().filter(|snapshot| snapshot.complete).collect();
    // The only one is kept, so that there is always something to restore.
    if complete.len() > 1 {
        let id = complete[rng.gen_range(0..complete.len())].id.clone();
        trace::mark("user: snapshot deleted");
        world.parts.oracle.may_vanish(&id);
        ask(world, at, Wish::DeleteSnapshot(name, id)).await;
    }
}

async fn keep(world: &World, at: usize, rng: &mut StdRng) {
    let (Some(timeline), Some(name)) = (timeline(world, at).await, deployment()) else {
        return;
    };
    if timeline.snapshots.is_empty() {
        return;
    }
    trace::mark("user: snapshot kept or released");
    let id = timeline.snapshots[rng.gen_range(0..timeline.snapshots.len())]
        .id
        .clone();
    let change = SnapshotChange {
        keep: Some(rng.gen_bool(0.5)),
        expires_ms: None,
    };
    ask(world, at, Wish::ChangeSnapshot(name, id, change)).await;
}

/// Things users seldom do: a new first copy; a stop and a restart.
pub async fn upset(world: &World, rng: &mut StdRng) {
    let Some(name) = deployment() else { return };
    let at = rng.gen_range(0..world.daemons.len());
    if rng.gen_bool(0.5) {
        trace::mark("user: resync");
        ask(world, at, Wish::Resync(name)).await;
    } else {
        trace::mark("user: stop and restart");
        world.was_stopped.set(true);
        ask(world, at, Wish::Active(name.clone(), false)).await;
        tokio::time::sleep(Duration::from_millis(rng.gen_range(100..10_000))).await;
        // Until it is known to be done: a deployment that is left stopped never converges.
        while !matches!(ask(world, at, Wish::Active(name.clone(), true)).await, Some((200, _))) {
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
    }
}

/// An instant of a replica set that is offered: an end of a range, a snapshot, or an entry in between.
pub fn choose(world: &World, timeline: &Timeline, rng: &mut StdRng) -> Option<(ReplicaSetId, At)> {
    let complete: Vec<_> = timeline.snapshots.iter().filter(|snapshot| snapshot.complete).collect();
    if !complete.is_empty() && rng.gen_bool(0.3) {
        let chosen = complete[rng.gen_range(0..complete.len())];
        return Some((chosen.replica_set.clone(), At::Snapshot(chosen.id.clone())));
    }
    if timeline.ranges.is_empty() {
        return None;
    }
    let TimelineRange { replica_set, range, .. } = &timeline.ranges[rng.gen_range(0..timeline.ranges.len())];
    let sets = world.parts.sets();
    let (_, source) = sets.iter().find(|(id, _)| id == replica_set)?;
    let source = set::lock(source);
    let (from, to) = (
        source.history.count_at(range.from.into()),
        source.history.count_at(range.to.into()),
    );
    let count = match rng.gen_range(0..6) {
        0 => from,
        1 => to,
        _ => rng.gen_range(from..=to.max(from)),
    };
    // What is offered may begin after an entry.
    let time = source.history.position(count).ts.max(range.from.into());
    Some((replica_set.clone(), At::Position(time.into())))
}

/// What an instant of a replica set is; `None` when it is offered no more.
pub async fn instant(world: &World, at: usize, wanted: &At) -> Option<Instant> {
    let is_cluster = world.cluster.is_some();
    match wanted {
        At::Position(position) if is_cluster => Some(Instant::Cluster(Ts::from(*position))),
        At::Position(position) => Some(Instant::Entry(Ts::from(*position))),
        At::Snapshot(id) => {
            let timeline = timeline(world, at).await?;
            let found = timeline.snapshots.into_iter().find(|s| s.id == *id)?;
            let time = Ts::from(found.at?);
            Some(match is_cluster {
                false => Instant::Entry(time),
                true if found.members.is_empty() => Instant::Member(time),
                true => Instant::Cluster(time),
            })
        }
        _ => None,
    }
}

/// Restores an instant of a replica set and holds it against the source. `must` be granted: it was offered and nothing fails
/// any more. Gives what was restored.
pub async fn restore(
    world: &World,
    at: usize,
    set: &ReplicaSetId,
    wanted: At,
    must: bool,
) -> Option<(Instant, Restored)> {
    let instant = instant(world, at, &wanted).await?;
    let may_be_undecided = world.rotten.get() || world.parts.oracle.was_copied_anew(set);
    let wish = Wish::Restore(deployment()?, world.parts.named(set), wanted);
    let archive = granted(world, at, wish, instant.ts(), (must, may_be_undecided)).await?;
    let (_, source) = world.parts.sets().into_iter().find(|(id, _)| id == set)?;
    match judge(&archive, instant, &source) {
        Ok(restored) => {
            trace::mark("restore checked");
            let documents = restored.documents();
            trace::line(&format!(
                "restored {}: {documents} documents, as they were",
                instant.ts()
            ));
            Some((instant, restored))
        }
        Err(violation) => {
            world.parts.oracle.report(violation);
            None
        }
    }
}

/// Asks for a restore; gives the archive. `must` it be granted, and may it be refused because a transaction is undecided?
pub async fn granted(
    world: &World,
    at: usize,
    wish: Wish,
    instant: Ts,
    (must, may_be_undecided): (bool, bool),
) -> Option<Bytes> {
    let mut answer = ask(world, at, wish.clone()).await?;
    // A replica set that is handed from one node to another: users ask again.
    for _ in 0..PATIENT_TURNS {
        if !must || answer.0 != 503 {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        answer = ask(world, at, wish.clone()).await?;
    }
    let (status, body) = answer;
    if status == 200 {
        return Some(body);
    }
    let words = String::from_utf8_lossy(&body).into_owned();
    trace::line(&format!("a restore of {instant} was refused: {status} {words}"));
    let is_undecided = words.contains("not decided");
    if is_undecided {
        trace::mark("restore: refused, a transaction is undecided");
    }
    // Where the oplog is damaged, or a history ended, the entry may be lost that decides.
    if must && !(is_undecided && may_be_undecided) && is_offered_still(world, at, &wish).await {
        let wish = format!("{wish:?}");
        world.parts.oracle.report(Unkept::Refused { wish, status, words });
    }
    None
}

/// A snapshot may expire between the look and the wish.
async fn is_offered_still(world: &World, at: usize, wish: &Wish) -> bool {
    match wish {
        Wish::Restore(_, _, wanted @ At::Snapshot(_)) => instant(world, at, wanted).await.is_some(),
        _ => true,
    }
}

/// Holds what was restored of one replica set against the source.
fn judge(archive: &Bytes, instant: Instant, source: &Shared) -> Result<Restored, Violation> {
    Ok(match instant {
        Instant::Entry(_) => restored::check(archive, instant, source)?,
        Instant::Cluster(at) => {
            cut::decided(&set::lock(source), at)?;
            restored::check(archive, instant, source)?
        }
        Instant::Member(at) => restored::check(archive, Instant::Cluster(at), source)
            .or_else(|_| restored::check(archive, Instant::Entry(at), source))?,
    })
}
