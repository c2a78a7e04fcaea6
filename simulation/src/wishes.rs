//! Users: what they ask, and what they make of the answers. An answer that does not come means nothing.

use std::time::Duration;

use bytes::Bytes;
use headwater_model::Ts;
use headwater_protocol::admin::{AddDeployment, At, SnapshotView, Status, Timeline};
use headwater_protocol::keeping::{GroomRequest, ScheduleChange, SnapshotChange};
use rand::Rng;
use rand::rngs::StdRng;
use serde::de::DeserializeOwned;

use crate::daemon;
use crate::mongo::set;
use crate::network::Request;
use crate::oracle::restored;
use crate::oracle::window::Unkept;
use crate::trace;
use crate::user::Wish;
use crate::world::{SOURCE_URI, World, deployment};

/// How long users wait.
const PATIENCE: Duration = Duration::from_secs(40);

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
            uri: SOURCE_URI.to_owned(),
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
    ask_for(world, at, Wish::Timeline(deployment()?)).await
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
            let Some(wanted) = choose(world, &timeline, rng) else {
                return;
            };
            restore(world, at, wanted, false).await;
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
        ask(world, at, Wish::Active(name.clone(), false)).await;
        tokio::time::sleep(Duration::from_millis(rng.gen_range(100..10_000))).await;
        // Until it is known to be done: a deployment that is left stopped never converges.
        while !matches!(ask(world, at, Wish::Active(name.clone(), true)).await, Some((200, _))) {
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
    }
}

/// An instant that is offered: an end of a range, a snapshot, or an entry in between.
pub fn choose(world: &World, timeline: &Timeline, rng: &mut StdRng) -> Option<At> {
    let complete: Vec<_> = timeline.snapshots.iter().filter(|snapshot| snapshot.complete).collect();
    if !complete.is_empty() && rng.gen_bool(0.3) {
        return Some(At::Snapshot(complete[rng.gen_range(0..complete.len())].id.clone()));
    }
    if timeline.ranges.is_empty() {
        return None;
    }
    let range = timeline.ranges[rng.gen_range(0..timeline.ranges.len())].range;
    let source = set::lock(world.parts.oracle.source());
    let (from, to) = (
        source.history.count_at(range.from.into()),
        source.history.count_at(range.to.into()),
    );
    let count = match rng.gen_range(0..6) {
        0 => from,
        1 => to,
        _ => rng.gen_range(from..=to.max(from)),
    };
    Some(At::Position(source.history.position(count).ts.into()))
}

/// Restores an instant and holds it against the source. `must` be granted: it was offered and nothing fails any more.
/// Whether it was.
pub async fn restore(world: &World, at: usize, wanted: At, must: bool) -> bool {
    let Some(name) = deployment() else { return false };
    let instant = match &wanted {
        At::Position(position) => Some(Ts::from(*position)),
        At::Snapshot(id) => {
            let timeline = timeline(world, at).await;
            let found = timeline.and_then(|t| t.snapshots.into_iter().find(|s| s.id == *id));
            found.and_then(|snapshot| snapshot.at).map(Ts::from)
        }
        _ => None,
    };
    let (Some(instant), Some((status, body))) = (instant, ask(world, at, Wish::Restore(name, wanted.clone())).await)
    else {
        return false;
    };
    if status == 200 {
        let oracle = &world.parts.oracle;
        match restored::check(&body, instant, oracle.source()) {
            Ok(documents) => {
                trace::mark("restore checked");
                trace::line(&format!("restored {instant}: {documents} documents, as they were"));
            }
            Err(differs) => oracle.report(differs),
        }
        return true;
    }
    let words = String::from_utf8_lossy(&body).into_owned();
    trace::line(&format!("a restore of {instant} was refused: {status} {words}"));
    if must {
        world.parts.oracle.report(Unkept::Refused {
            at: wanted,
            status,
            words,
        });
    }
    false
}
