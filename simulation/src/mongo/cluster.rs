//! A sharded cluster: config servers, shards, and a bank whose money is the same sum at every cluster time.
//!
//! The cluster is one program that plays every router, coordinator and balancer. It learns of nothing that no majority has
//! before it acts on it, and carries cluster times where real ones do, so that what causes another thing comes before it.
//! Transfers are in [`super::transfer`], migrations in [`super::migration`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document, doc, oid::ObjectId};
use headwater_model::{CollectionUuid, Ts};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::history::binary;
use super::migration::{Deletion, Migration};
use super::operations::{Place, write};
use super::set::{Mongo, MongoDraw, Role, Shared, lock};
use super::transfer::Transfer;

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct ClusterDraw {
    /// Members of the config servers, then of each shard.
    pub members: Vec<usize>,
    /// Seconds that the clocks of each are ahead.
    pub skew_s: Vec<u32>,
    /// Accounts of the bank.
    pub accounts: i64,
    /// Accounts of a chunk.
    pub chunk: i64,
    /// Transfers in ten seconds.
    pub transfers: u32,
    /// The longest that a message to one participant of a transaction usually takes, in milliseconds.
    pub lag_ms: u64,
    /// Of a hundred transactions, so many are aborted.
    pub aborts: u32,
    /// The mean number of seconds between migrations.
    pub migrate_s: Option<u32>,
    /// The mean number of milliseconds after which members that have nothing to do with one another tell the time.
    pub gossip_ms: u32,
}

/// What an account holds at the beginning.
pub const DEPOSIT: i64 = 100;
/// How often a cluster does something.
pub const TICK: Duration = Duration::from_millis(20);

impl ClusterDraw {
    /// Of four seeds one has a cluster. Drawn from a stream of its own, so that the other seeds stay what they are.
    pub fn of(seed: u64) -> Option<ClusterDraw> {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x7368_6172_6465_22f4);
        let rng = &mut rng;
        if rng.gen_range(0..4) > 0 {
            return None;
        }
        let shards = rng.gen_range(2..=3);
        Some(ClusterDraw {
            members: (0..=shards).map(|_| [1, 1, 3][rng.gen_range(0..3)]).collect(),
            skew_s: (0..=shards).map(|_| [0, 0, 1, 3][rng.gen_range(0..4)]).collect(),
            accounts: rng.gen_range(6..40),
            chunk: rng.gen_range(1..8),
            transfers: rng.gen_range(2..60),
            lag_ms: [30, 300, 2000][rng.gen_range(0..3)],
            aborts: [0, 10, 30][rng.gen_range(0..3)],
            migrate_s: [None, Some(3), Some(12)][rng.gen_range(0..3)],
            gossip_ms: [100, 2000, 20_000][rng.gen_range(0..3)],
        })
    }

    /// All the money there is.
    pub fn sum(&self) -> i64 {
        self.accounts * DEPOSIT
    }

    fn chunks(&self) -> i64 {
        (self.accounts + self.chunk - 1) / self.chunk
    }
}

/// A sharded cluster.
pub struct Cluster {
    /// What it was drawn to be.
    pub draw: ClusterDraw,
    /// The config servers.
    pub config: Shared,
    /// The shards.
    pub shards: Vec<Shared>,
    /// The accounts, under the same identity on every shard.
    pub bank: Place,
    /// `config.chunks`.
    pub routing: Place,
    settings: Place,
    /// `config.transaction_coordinators` of each shard.
    pub coordinators: Vec<Place>,
    /// Which shard owns each chunk.
    pub owners: Vec<usize>,
    pub(super) transfers: Vec<Transfer>,
    pub(super) migration: Option<Migration>,
    pub(super) deletions: Vec<Deletion>,
    pub(super) rng: StdRng,
}

impl Cluster {
    /// A cluster that was just made, in which every account has its deposit. `of` is what every replica set is like.
    pub fn new(mut seed: impl FnMut(&str) -> u64, draw: &ClusterDraw, of: &MongoDraw) -> Cluster {
        let mut set = |at: usize, name: &str, role| {
            let draw = MongoDraw {
                members: draw.members[at],
                skew_s: draw.skew_s[at],
                ..of.clone()
            };
            Mongo::new(seed(&format!("mongo {name}")), name, role, draw)
        };
        let mut config = set(0, "cfg", Role::ConfigServers);
        let shards = 1..draw.members.len();
        let mut shards: Vec<Mongo> = shards
            .map(|at| set(at, &format!("sh{}", at - 1), Role::Shard))
            .collect();
        let mut rng = StdRng::seed_from_u64(seed("cluster"));
        let owners: Vec<usize> = (0..draw.chunks()).map(|_| rng.gen_range(0..shards.len())).collect();
        let uuid = CollectionUuid(rng.r#gen());
        let (routing, settings) = found(&mut config, &shards, &mut rng);
        for (chunk, owner) in owners.iter().enumerate() {
            let document = row(draw, uuid, chunk, &shards[*owner].name);
            let inserted = routing.insert(&mut config, document);
            write(&mut config, inserted);
        }
        let mut coordinators = Vec::new();
        for (at, shard) in shards.iter_mut().enumerate() {
            let own = shard.new_uuid();
            coordinators.push(Place::create(
                shard,
                "config",
                "transaction_coordinators",
                own,
                &["_id"],
            ));
            let bank = Place::create(shard, "bank", "accounts", uuid, &["k", "_id"]);
            for account in (0..draw.accounts).filter(|account| owners[(account / draw.chunk) as usize] == at) {
                let inserted = bank.insert(shard, doc! { "_id": account, "k": account, "balance": DEPOSIT });
                write(shard, inserted);
            }
        }
        let share = |mongo| Arc::new(std::sync::Mutex::new(mongo));
        Cluster {
            draw: draw.clone(),
            bank: Place {
                ns: "bank.accounts".to_owned(),
                uuid,
                key: &["k", "_id"],
            },
            config: share(config),
            shards: shards.into_iter().map(share).collect(),
            routing,
            settings,
            coordinators,
            owners,
            transfers: Vec::new(),
            migration: None,
            deletions: Vec::new(),
            rng,
        }
    }

    /// All replica sets, the config servers first.
    pub fn sets(&self) -> Vec<Shared> {
        std::iter::once(&self.config).chain(&self.shards).cloned().collect()
    }

    /// A moment passes. New things begin while `goes_on`; what has begun goes to its end.
    pub fn tick(&mut self, goes_on: bool) {
        self.gossip();
        if goes_on {
            if self.rng.gen_ratio(self.draw.transfers, 500) {
                self.begin_transfer();
            }
            if let Some(every) = self.draw.migrate_s
                && self.migration.is_none()
                && self.rng.gen_ratio(1, every * 50)
            {
                self.begin_migration();
            }
            if self.rng.gen_ratio(1, 1000) {
                self.change_settings();
            }
        }
        self.carry_transfers();
        self.carry_migration();
        self.carry_deletions();
    }

    /// Whether nothing is on its way.
    pub fn is_at_rest(&self) -> bool {
        self.transfers.is_empty() && self.migration.is_none() && self.deletions.is_empty()
    }

    /// Two replica sets tell each other the time.
    fn gossip(&mut self) {
        if !self.rng.gen_ratio(20, self.draw.gossip_ms) {
            return;
        }
        let sets = self.sets();
        let one = self.rng.gen_range(0..sets.len());
        let other = self.rng.gen_range(0..sets.len());
        tell(&sets[one], &sets[other]);
        tell(&sets[other], &sets[one]);
    }

    fn change_settings(&mut self) {
        let mut config = lock(&self.config);
        let Some((record, document)) = self.settings.find(&config, &Bson::String("balancer".to_owned())) else {
            return;
        };
        if config.is_writable() {
            let changed = self.settings.set(record, document, "n", Bson::Int32(self.rng.r#gen()));
            write(&mut config, changed);
        }
    }

    /// The chunk of an account.
    pub fn chunk_of(&self, account: i64) -> usize {
        (account / self.draw.chunk) as usize
    }

    /// The accounts of a chunk.
    pub fn accounts_of(&self, chunk: usize) -> impl Iterator<Item = i64> + use<> {
        let from = chunk as i64 * self.draw.chunk;
        from..(from + self.draw.chunk).min(self.draw.accounts)
    }

    /// Accounts that a transaction works on.
    pub(super) fn busy(&self) -> BTreeSet<i64> {
        let all = self.transfers.iter().flat_map(Transfer::accounts);
        all.collect()
    }

    /// The row of a chunk that belongs to a shard.
    pub(super) fn row(&self, chunk: usize, shard: &str) -> Document {
        row(&self.draw, self.bank.uuid, chunk, shard)
    }
}

/// Tells the time of one to the other.
pub fn tell(from: &Shared, to: &Shared) -> Ts {
    let time = lock(from).now();
    lock(to).learn(time);
    time
}

/// What makes config servers those of a cluster.
fn found(config: &mut Mongo, shards: &[Mongo], rng: &mut StdRng) -> (Place, Place) {
    let place = |config: &mut Mongo, name: &str| {
        let uuid = config.new_uuid();
        Place::create(config, "config", name, uuid, &["_id"])
    };
    let version = place(config, "version");
    let row = doc! { "_id": 1, "currentVersion": 6, "clusterId": ObjectId::from_bytes(rng.r#gen()) };
    let inserted = version.insert(config, row);
    write(config, inserted);
    let known = place(config, "shards");
    for shard in shards {
        let hosts: Vec<&str> = shard.members.iter().map(|member| member.address.as_str()).collect();
        let row = doc! { "_id": &shard.name, "host": format!("{}/{}", shard.name, hosts.join(",")), "state": 1 };
        let inserted = known.insert(config, row);
        write(config, inserted);
    }
    let settings = place(config, "settings");
    let inserted = settings.insert(config, doc! { "_id": "balancer", "mode": "full", "n": 0 });
    write(config, inserted);
    (place(config, "chunks"), settings)
}

fn row(draw: &ClusterDraw, uuid: CollectionUuid, chunk: usize, shard: &str) -> Document {
    let (from, to) = (chunk as i64 * draw.chunk, (chunk as i64 + 1) * draw.chunk);
    let min = if chunk == 0 { Bson::MinKey } else { Bson::Int64(from) };
    let max = if to >= draw.accounts {
        Bson::MaxKey
    } else {
        Bson::Int64(to)
    };
    doc! { "_id": chunk as i64, "uuid": binary(uuid), "min": { "k": min }, "max": { "k": max }, "shard": shard }
}
