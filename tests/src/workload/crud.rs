//! Inserts, updates of every kind, replacements, deletes, upserts, user `applyOps`.

use anyhow::Result;
use bson::{Bson, Document, RawDocumentBuf, doc};
use mongodb::Client;
use mongodb::options::UpdateModifications;
use rand::Rng;
use rand::rngs::StdRng;

use super::ddl::create_clustered;
use super::documents::{
    CAPPED, CLUSTERED, COLLECTIONS, DATABASES, body, document, id, modifiers, odd_document, pipeline,
};
use super::series::create_series;
use super::{ServerVersion, Writer};

/// Gives every ordinary collection some documents.
pub async fn fill(client: &Client, rng: &mut StdRng) -> Result<()> {
    for database in DATABASES {
        let capped = doc! { "create": CAPPED[0], "capped": true, "size": 8192 };
        for create in [capped, create_clustered(), create_series()] {
            // Refused by versions that know no such thing, and where an earlier workload made it.
            let _ = client.database(database).run_command(create).await;
        }
        for collection in COLLECTIONS {
            let documents = (0..40).map(|number| {
                let mut document = doc! { "_id": number };
                document.extend(body(rng));
                document
            });
            let collection = client.database(database).collection::<Document>(collection);
            // What an earlier workload left is as good.
            let _ = collection.insert_many(documents).ordered(false).await;
        }
    }
    Ok(())
}

impl Writer {
    pub(super) async fn crud(&mut self) -> (&'static str, Result<()>) {
        match self.rng.gen_range(0..100) {
            0..22 => ("insert", self.insert().await),
            22..24 => ("insert odd", self.insert_odd().await),
            24..32 if self.is_first => ("insert capped", self.insert_capped().await),
            32..35 => ("clustered", self.clustered().await),
            35..56 => ("update", self.update(false).await),
            56..62 => ("upsert", self.update(true).await),
            62..67 => ("update pipeline", self.update_by_pipeline().await),
            67..71 => ("update many", self.update_many().await),
            71..79 => ("replace", self.replace().await),
            79..82 => ("find and modify", self.find_and_modify().await),
            82..94 => ("delete", self.delete().await),
            94..96 => ("delete many", self.delete_many().await),
            96..98 => ("apply ops", self.apply_ops().await),
            _ => ("bulk", self.bulk().await),
        }
    }

    fn collection(&mut self) -> mongodb::Collection<Document> {
        let name = self.collection_name();
        self.database().collection(name)
    }

    async fn insert(&mut self) -> Result<()> {
        let documents: Vec<_> = (0..self.rng.gen_range(1..4)).map(|_| document(&mut self.rng)).collect();
        self.collection().insert_many(documents).ordered(false).await?;
        Ok(())
    }

    async fn insert_odd(&mut self) -> Result<()> {
        let document = odd_document(&mut self.rng, self.server >= ServerVersion(5, 0));
        self.collection()
            .clone_with_type::<RawDocumentBuf>()
            .insert_one(document)
            .await?;
        Ok(())
    }

    async fn insert_capped(&mut self) -> Result<()> {
        let name = CAPPED[self.rng.gen_range(0..CAPPED.len())];
        // Keys that never come twice: on 4.4 a refused insert trims a full capped collection and logs nothing.
        let document = doc! { "_id": self.rng.r#gen::<i64>(), "n": self.rng.gen_range(0..9) };
        self.database()
            .collection::<Document>(name)
            .insert_one(document)
            .await?;
        Ok(())
    }

    async fn clustered(&mut self) -> Result<()> {
        let collection = self.database().collection::<Document>(CLUSTERED);
        let document = document(&mut self.rng);
        let filter = doc! { "_id": document.get("_id") };
        match self.rng.gen_range(0..3) {
            0 => {
                collection.insert_one(document).await?;
            }
            1 => {
                collection.update_one(filter, modifiers(&mut self.rng)).await?;
            }
            _ => {
                collection.delete_one(filter).await?;
            }
        }
        Ok(())
    }

    async fn update(&mut self, upsert: bool) -> Result<()> {
        let filter = doc! { "_id": id(&mut self.rng) };
        let update = modifiers(&mut self.rng);
        self.collection().update_one(filter, update).upsert(upsert).await?;
        Ok(())
    }

    async fn update_by_pipeline(&mut self) -> Result<()> {
        let filter = doc! { "_id": id(&mut self.rng) };
        let update = UpdateModifications::Pipeline(pipeline(&mut self.rng));
        self.collection().update_one(filter, update).await?;
        Ok(())
    }

    async fn update_many(&mut self) -> Result<()> {
        let filter = doc! { "a": self.rng.gen_range(0..9) };
        let update = if self.chance(0.5) {
            doc! { "$set": { "many": self.rng.gen_range(0..9) } }
        } else {
            doc! { "$inc": { "count": 1 } }
        };
        self.collection().update_many(filter, update).await?;
        Ok(())
    }

    async fn replace(&mut self) -> Result<()> {
        let mut document = document(&mut self.rng);
        let key = document.get("_id").cloned().unwrap_or(Bson::Null);
        if self.chance(0.5) {
            document.remove("_id");
        } else if let Bson::Int32(number) = key {
            // The same key in another type: its bytes change.
            document.insert("_id", f64::from(number));
        }
        let upsert = self.chance(0.3);
        self.collection()
            .replace_one(doc! { "_id": key }, document)
            .upsert(upsert)
            .await?;
        Ok(())
    }

    async fn find_and_modify(&mut self) -> Result<()> {
        let filter = doc! { "_id": id(&mut self.rng) };
        if self.chance(0.3) {
            self.collection().find_one_and_delete(filter).await?;
        } else {
            let update = modifiers(&mut self.rng);
            self.collection()
                .find_one_and_update(filter, update)
                .upsert(true)
                .await?;
        }
        Ok(())
    }

    async fn delete(&mut self) -> Result<()> {
        let filter = doc! { "_id": id(&mut self.rng) };
        self.collection().delete_one(filter).await?;
        Ok(())
    }

    async fn delete_many(&mut self) -> Result<()> {
        let filter = doc! { "a": self.rng.gen_range(0..9), "count": { "$mod": [3, 0] } };
        self.collection().delete_many(filter).await?;
        Ok(())
    }

    /// Operations as a user may put them into the oplog.
    async fn apply_ops(&mut self) -> Result<()> {
        let namespace = format!("{}.{}", self.database().name(), self.collection_name());
        let operations = vec![
            doc! { "op": "i", "ns": &namespace, "o": { "_id": self.rng.gen_range(2000..2020), "by": "applyOps" } },
            doc! { "op": "u", "ns": &namespace, "o2": { "_id": self.rng.gen_range(0..60) },
            "o": { "$set": { "by": "applyOps", "o.p": self.rng.gen_range(0..9) } } },
            doc! { "op": "d", "ns": &namespace, "o": { "_id": self.rng.gen_range(2000..2020) } },
        ];
        self.client
            .database("admin")
            .run_command(doc! { "applyOps": operations })
            .await?;
        Ok(())
    }

    /// One command with many documents, as loaders send them.
    async fn bulk(&mut self) -> Result<()> {
        let start = self.rng.gen_range(10_000..1_000_000_i64) * 100;
        let documents: Vec<_> = (0..self.rng.gen_range(10..60_i64))
            .map(|number| {
                let mut document = doc! { "_id": start + number };
                document.extend(body(&mut self.rng));
                document
            })
            .collect();
        self.collection().insert_many(documents).await?;
        Ok(())
    }
}
