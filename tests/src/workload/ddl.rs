//! Everything that changes the catalog.

use anyhow::Result;
use bson::{Document, doc};
use mongodb::Database;
use rand::Rng;

use super::documents::{CAPPED, CLUSTERED};
use super::{ServerVersion, Writer};

/// Makes the clustered collection.
pub fn create_clustered() -> Document {
    doc! { "create": CLUSTERED, "clusteredIndex": { "key": { "_id": 1 }, "unique": true, "name": "by key" } }
}

impl Writer {
    pub(super) async fn ddl(&mut self) -> (&'static str, Result<()>) {
        let database = self.database();
        let from = self.collection_name();
        let to = self.collection_name();
        let (kind, command) = match self.rng.gen_range(0..100) {
            0..8 => ("drop", doc! { "drop": from }),
            8..18 => return ("rename", self.rename(&database, from, to).await),
            18..22 => ("create capped", self.create_capped()),
            22..28 => {
                let create = self.create_capped();
                let name = create.get_str("create").unwrap_or_default().to_owned();
                return ("create capped", self.anew(&database, &name, create).await);
            }
            28..33 => {
                let create = self.create(from);
                return ("create", self.anew(&database, from, create).await);
            }
            33..36 if self.server >= ServerVersion(6, 0) => {
                return (
                    "create clustered",
                    self.anew(&database, CLUSTERED, create_clustered()).await,
                );
            }
            36..42 => (
                "$out",
                doc! { "aggregate": from, "pipeline": [{ "$match": {} }, { "$out": to }], "cursor": {} },
            ),
            42..48 => (
                "$merge",
                doc! { "aggregate": from, "pipeline": [{ "$merge": to }], "cursor": {} },
            ),
            48..66 => ("create index", self.create_index(from)),
            66..73 => ("drop index", doc! { "dropIndexes": from, "index": self.index_name() }),
            73..82 => ("collMod", self.coll_mod(from)),
            82..85 => (
                "convert to capped",
                doc! { "convertToCapped": CAPPED[2], "size": 16_384 },
            ),
            85..93 => ("view", self.view(from)),
            93..96 => (
                "drop capped",
                doc! { "drop": CAPPED[self.rng.gen_range(0..CAPPED.len())] },
            ),
            96..98 => ("drop database", doc! { "dropDatabase": 1 }),
            _ => ("create many indexes", self.create_many_indexes(from)),
        };
        (kind, database.run_command(command).await.map(drop).map_err(Into::into))
    }

    async fn rename(&mut self, database: &Database, from: &str, to: &str) -> Result<()> {
        let target = if self.chance(0.3) {
            self.database()
        } else {
            database.clone()
        };
        let command = doc! {
            "renameCollection": format!("{}.{from}", database.name()),
            "to": format!("{}.{to}", target.name()),
            "dropTarget": self.chance(0.7),
        };
        self.client.database("admin").run_command(command).await?;
        Ok(())
    }

    fn create_capped(&mut self) -> Document {
        let name = CAPPED[self.rng.gen_range(0..2)];
        let mut command = doc! { "create": name, "capped": true, "size": 8192 };
        if name == "ring.small" {
            command.insert("max", self.rng.gen_range(3..30));
        }
        command
    }

    /// Drops what is there, then makes it: implicit creation rarely leaves a name free.
    async fn anew(&mut self, database: &Database, name: &str, create: Document) -> Result<()> {
        database.collection::<Document>(name).drop().await?;
        database.run_command(create).await?;
        Ok(())
    }

    fn create(&mut self, name: &str) -> Document {
        let mut command = doc! { "create": name };
        match self.rng.gen_range(0..4) {
            0 => command.insert("collation", doc! { "locale": "en", "strength": 2 }),
            1 => command.insert("validator", doc! { "never": { "$exists": false } }),
            2 => command.insert(
                "storageEngine",
                doc! { "wiredTiger": { "configString": "block_compressor=none" } },
            ),
            _ => None,
        };
        command
    }

    fn index_name(&mut self) -> String {
        if self.chance(0.1) {
            "*".to_owned()
        } else {
            format!("index {}", self.rng.gen_range(0..5))
        }
    }

    fn index(&mut self) -> Document {
        let mut index = doc! { "name": format!("index {}", self.rng.gen_range(0..5)) };
        index.extend(match self.rng.gen_range(0..7) {
            0 => doc! { "key": { "a": 1, "o.p": -1 } },
            1 => doc! { "key": { "count": 1 }, "sparse": true },
            2 => doc! { "key": { "a": 1 }, "partialFilterExpression": { "a": { "$gt": 3 } } },
            3 => doc! { "key": { "s": "hashed" } },
            4 => doc! { "key": { "$**": 1 } },
            5 => doc! { "key": { "s": 1 }, "collation": { "locale": "de", "strength": 1 } },
            // Far in the future: nothing expires while a test runs.
            _ => doc! { "key": { "when": 1 }, "expireAfterSeconds": 1_000_000_000 },
        });
        index
    }

    fn create_index(&mut self, collection: &str) -> Document {
        doc! { "createIndexes": collection, "indexes": [self.index()] }
    }

    fn create_many_indexes(&mut self, collection: &str) -> Document {
        let indexes = [
            doc! { "key": { "a": 1 }, "name": "first" },
            doc! { "key": { "a": 1, "s": 1 }, "name": "second" },
        ];
        let unique = doc! { "key": { "a": 1, "unique": 1 }, "name": "unique", "unique": true };
        let mut indexes = indexes.to_vec();
        if self.chance(0.5) {
            // Often aborted by duplicates.
            indexes.push(unique);
        }
        doc! { "createIndexes": collection, "indexes": indexes }
    }

    fn coll_mod(&mut self, collection: &str) -> Document {
        let mut command = doc! { "collMod": collection };
        match self.rng.gen_range(0..5) {
            0 => command.insert("validator", doc! { "never": { "$exists": false } }),
            1 => command.insert("validator", doc! {}),
            2 => command.insert("validationLevel", "moderate"),
            3 => command.insert("index", doc! { "name": self.index_name(), "hidden": self.chance(0.5) }),
            _ => command.insert(
                "index",
                doc! { "name": self.index_name(), "expireAfterSeconds": 1_000_000_001 },
            ),
        };
        command
    }

    fn view(&mut self, on: &str) -> Document {
        let name = format!("view {}", self.rng.gen_range(0..3));
        match self.rng.gen_range(0..3) {
            0 => doc! { "create": name, "viewOn": on, "pipeline": [{ "$match": { "a": { "$gt": 1 } } }] },
            1 => doc! { "collMod": name, "viewOn": on, "pipeline": [{ "$project": { "o": 0 } }] },
            _ => doc! { "drop": name },
        }
    }
}
