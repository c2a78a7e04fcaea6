//! Collections that come, change and go while money moves, and a diary of them: what must be there at any cluster time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bson::{Timestamp, doc};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use super::money::Business;
use super::restored::Restored;
use super::truth::Routing;
use crate::sharded::{Router, Shared};

/// Databases; the primary shard of the n-th is `sh{n}`.
const DBS: usize = 2;
/// As many collections are there at the most.
const SHAPES_MAX: usize = 6;

/// A collection as it must be.
#[derive(Clone, Debug, Default, PartialEq)]
struct Shape {
    sharded: bool,
    ids: BTreeSet<i64>,
    indexes: BTreeSet<String>,
    validated: bool,
}

/// All of them, after a change.
#[derive(Clone, Debug, Default)]
struct Shapes {
    known: BTreeMap<String, Shape>,
    /// Names that a change failed on: nobody knows what there is of them, now and later.
    doubtful: BTreeSet<String>,
}

#[derive(Debug)]
struct Page {
    /// The names that the change to this page concerned.
    touched: Vec<String>,
    /// When the change was over.
    over: Timestamp,
    after: Shapes,
}

/// What changed when.
#[derive(Debug, Default)]
pub struct Diary {
    pages: Vec<Page>,
    number: usize,
}

impl Diary {
    /// How many changes there were.
    pub fn changes(&self) -> usize {
        self.pages.len()
    }

    /// Creates, fills, changes, renames and drops collections.
    pub async fn write(&mut self, business: &Business, cluster: &Shared, seed: u64) -> Result<()> {
        let mut router = cluster.router().await?;
        let mut random = StdRng::seed_from_u64(seed);
        for db in 0..DBS {
            router
                .create_database(&format!("shape{db}"), &format!("sh{db}"))
                .await?;
        }
        while business.is_open() {
            let mut shapes = self.pages.last().map(|page| page.after.clone()).unwrap_or_default();
            let change = self.draw(&shapes, &mut random);
            let touched = change.names();
            if change.carry_out(&mut router).await.is_ok() {
                change.note(&mut shapes.known);
            } else {
                for name in &touched {
                    shapes.known.remove(name);
                    shapes.doubtful.insert(name.clone());
                }
                if !router.answers().await {
                    router = cluster.router().await?;
                }
            }
            let over = loop {
                match router.level().await {
                    Ok(over) => break over,
                    Err(_) => router = cluster.router().await?,
                }
            };
            self.pages.push(Page {
                touched,
                over,
                after: shapes,
            });
            sleep(Duration::from_millis(random.gen_range(50..800))).await;
        }
        Ok(())
    }

    fn draw(&mut self, shapes: &Shapes, random: &mut StdRng) -> Change {
        self.number += 1;
        let number = self.number;
        let names: Vec<&String> = shapes.known.keys().collect();
        if names.is_empty() || (names.len() < SHAPES_MAX && random.gen_range(0..3) == 0) {
            let ns = format!("shape{}.c{number}", random.gen_range(0..DBS));
            let sharded = random.gen_bool(0.5);
            return Change::Create { ns, sharded };
        }
        let ns = names[random.gen_range(0..names.len())].clone();
        let shape = &shapes.known[&ns];
        let sharded = shape.sharded;
        match random.gen_range(0..8) {
            0..3 => Change::Insert {
                ns,
                id: random.gen_range(-50..50) * 1000 + number as i64,
            },
            3 => Change::Index { ns, sharded },
            4 => Change::Require { ns },
            5 => Change::Drop { ns },
            _ => {
                let db = ns.split('.').next().unwrap_or_default();
                let to = format!("{db}.r{number}");
                Change::Rename { ns, to }
            }
        }
    }

    /// What was restored is what must be there at a cluster time. What a change was on the way to is passed over.
    pub fn holds(&self, at: Timestamp, routing: &Routing, restored: &Restored) -> Result<usize> {
        let done = self.pages.iter().rposition(|page| page.over <= at);
        let before = done.map(|page| self.pages[page].after.clone()).unwrap_or_default();
        let next = done.map_or(0, |page| page + 1);
        let mut under_way = before.doubtful;
        under_way.extend(self.pages.get(next).into_iter().flat_map(|page| page.touched.clone()));
        let is_certain = |ns: &str| !under_way.contains(ns);
        let mut certain = 0;
        for (ns, wanted) in before.known.iter().filter(|(ns, _)| is_certain(ns)) {
            let found = found(ns, wanted.sharded, routing, restored)
                .with_context(|| format!("{ns} at {at:?}, after {next} changes"))?;
            ensure!(found == *wanted, "{ns} at {at:?} is {found:?}, wanted {wanted:?}");
            certain += 1;
        }
        for (shard, ns) in restored.names().filter(|(_, ns)| ns.starts_with("shape")) {
            let known = before.known.contains_key(ns) || !is_certain(ns);
            ensure!(known, "{ns} is on {shard} at {at:?}, and must not be");
        }
        Ok(certain)
    }
}

/// A collection as the shards have it together.
fn found(ns: &str, sharded: bool, routing: &Routing, restored: &Restored) -> Result<Shape> {
    let mut shape = Shape {
        sharded: routing.is_sharded(ns),
        ..Shape::default()
    };
    let primary = format!(
        "sh{}",
        ns.trim_start_matches("shape").split('.').next().unwrap_or_default()
    );
    for (shard, _) in restored.names().filter(|(_, name)| *name == ns) {
        let collection = restored.collection(shard, ns)?;
        let counts = |k: i64| match sharded {
            true => routing.owns(ns, shard, k),
            false => shard == primary,
        };
        let mut holds_some = false;
        for document in &collection.documents {
            let id = document.get_i64("_id")?;
            if counts(id) {
                ensure!(shape.ids.insert(id), "document {id} is there twice");
                holds_some = true;
            }
        }
        if holds_some || shard == primary {
            let own = collection
                .indexes
                .iter()
                .filter(|name| name.starts_with("by_"))
                .cloned();
            shape.indexes.extend(own);
            shape.validated |= collection.validated;
        }
    }
    Ok(shape)
}

/// One change.
#[derive(Debug)]
enum Change {
    Create { ns: String, sharded: bool },
    Insert { ns: String, id: i64 },
    Index { ns: String, sharded: bool },
    Require { ns: String },
    Rename { ns: String, to: String },
    Drop { ns: String },
}

impl Change {
    fn names(&self) -> Vec<String> {
        match self {
            Change::Rename { ns, to } => vec![ns.clone(), to.clone()],
            Change::Create { ns, .. }
            | Change::Insert { ns, .. }
            | Change::Index { ns, .. }
            | Change::Require { ns }
            | Change::Drop { ns } => vec![ns.clone()],
        }
    }

    async fn carry_out(&self, router: &mut Router) -> Result<()> {
        match self {
            Change::Create { ns, sharded: false } => router.create(ns).await,
            Change::Create { ns, sharded: true } => {
                router.shard_collection(ns, "k").await?;
                router.split(ns, 0).await?;
                let other = if router.owner(ns, 0).await? == "sh0" {
                    "sh1"
                } else {
                    "sh0"
                };
                router.move_chunk(ns, 0, other).await
            }
            Change::Insert { ns, id } => router.insert(ns, *id, doc! { "_id": id, "k": id }).await,
            Change::Index { ns, sharded } => router.create_index(ns, *sharded, "by_when").await,
            Change::Require { ns } => router.require_field(ns, "k").await,
            Change::Rename { ns, to } => router.rename(ns, to).await,
            Change::Drop { ns } => router.drop_collection(ns).await,
        }
    }

    fn note(&self, known: &mut BTreeMap<String, Shape>) {
        match self {
            Change::Create { ns, sharded } => {
                let shape = Shape {
                    sharded: *sharded,
                    ..Shape::default()
                };
                known.insert(ns.clone(), shape);
            }
            Change::Rename { ns, to } => {
                if let Some(shape) = known.remove(ns) {
                    known.insert(to.clone(), shape);
                }
            }
            Change::Drop { ns } => _ = known.remove(ns),
            Change::Insert { ns, id } => _ = known.get_mut(ns).map(|shape| shape.ids.insert(*id)),
            Change::Index { ns, .. } => {
                _ = known
                    .get_mut(ns)
                    .map(|shape| shape.indexes.insert("by_when".to_owned()))
            }
            Change::Require { ns } => _ = known.get_mut(ns).map(|shape| shape.validated = true),
        }
    }
}
