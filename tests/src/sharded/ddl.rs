//! Changes of collections, sharded and not, as a mongos has them made: by the primary shard of their database, or by every
//! shard that holds a chunk.

use anyhow::Result;
use bson::{Document, doc};

use super::router::{Router, majority, split};

impl Router {
    /// A command for the primary shard of a database, which is told the version of the database.
    async fn on_primary(&mut self, db: &str, mut command: Document) -> Result<()> {
        let database = self.database(db).await?;
        command.insert("databaseVersion", database.get_document("version")?.clone());
        command.insert("writeConcern", majority());
        let primary = database.get_str("primary")?.to_owned();
        self.on(&primary, db, command).await.map(drop)
    }

    /// Creates a collection that is not sharded.
    pub async fn create(&mut self, ns: &str) -> Result<()> {
        let (db, collection) = split(ns)?;
        self.on_primary(db, doc! { "create": collection }).await
    }

    /// Drops a collection.
    pub async fn drop_collection(&mut self, ns: &str) -> Result<()> {
        let (db, collection) = split(ns)?;
        self.on_primary(db, doc! { "_shardsvrDropCollection": collection })
            .await?;
        self.look_again(ns).await;
        Ok(())
    }

    /// Renames a collection within its database.
    pub async fn rename(&mut self, ns: &str, to: &str) -> Result<()> {
        let (db, collection) = split(ns)?;
        let command = doc! { "_shardsvrRenameCollection": collection, "to": to };
        self.on_primary(db, command).await?;
        self.look_again(ns).await;
        self.look_again(to).await;
        Ok(())
    }

    /// Requires a field of every document from now on.
    pub async fn require_field(&mut self, ns: &str, field: &str) -> Result<()> {
        let (db, collection) = split(ns)?;
        let validator = doc! { field: { "$exists": true } };
        self.on_primary(db, doc! { "_shardsvrCollMod": collection, "validator": validator })
            .await
    }

    /// Creates an index wherever the collection is.
    pub async fn create_index(&mut self, ns: &str, sharded: bool, field: &str) -> Result<()> {
        let index = doc! { "key": { field: 1 }, "name": field };
        let command = doc! { "createIndexes": split(ns)?.1, "indexes": [index], "writeConcern": majority() };
        if !sharded {
            return self.versioned(ns, 0, &command).await.map(drop);
        }
        for shard in self.owners(ns).await? {
            self.on_shard(ns, &shard, &command).await?;
        }
        Ok(())
    }

    /// Distributes a sharded collection by another field, which holds integers.
    pub async fn reshard(&mut self, ns: &str, field: &str) -> Result<()> {
        let database = self.database(split(ns)?.0).await?;
        let command = doc! {
            "_shardsvrReshardCollection": ns, "key": { field: 1 }, "numInitialChunks": 2,
            "databaseVersion": database.get_document("version")?.clone(), "writeConcern": majority(),
        };
        let primary = database.get_str("primary")?.to_owned();
        self.on(&primary, "admin", command).await?;
        self.look_again(ns).await;
        Ok(())
    }

    /// Redistributions that go on.
    pub async fn reshardings(&mut self) -> Result<Vec<Document>> {
        self.config("reshardingOperations", doc! {}).await
    }
}
