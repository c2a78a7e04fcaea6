//! The oracle: what a replica set held at an earlier instant, found out by MongoDB itself.
//!
//! The set was copied when it was new ([`crate::ReplicaSetSpec::replayable`]). To go to an instant, the entries of the
//! source's oplog up to it are put into the oplog of another copy, which is told that it crashed before it had applied
//! them; mongod's own recovery does the rest, transactions, DDL and all. No line of Headwater takes part. The copy
//! belongs to a set whose other member does not exist: it stays a secondary, so nothing is written to it afterwards
//! and what was undecided at that instant stays so.

use anyhow::{Context, Result, ensure};
use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt;
use headwater_model::Ts;
use mongodb::{Client, Collection};

use crate::bed::Bed;
use crate::mongod::Mongod;
use crate::replica_set::{ReplicaSet, Role, copy_data, wait_for_role};

/// How many bytes of oplog go over in one insert.
const BATCH_BYTES: usize = 8 << 20;
/// How many entries go over in one insert.
const BATCH_ENTRIES: usize = 5000;

/// Starts a server that holds what `source` held right after the entry at `at` (or the last one before it). Read it
/// through [`Mongod::client`]; stop or drop it when done.
pub async fn to(bed: &Bed, source: &ReplicaSet, at: Ts) -> Result<Mongod> {
    let baseline = source.baseline().context("this set was started without `replayable`")?;
    let folder = bed.new_folder("replay")?;
    copy_data(baseline, &folder.join("data"))?;
    let mut spec = source.spec().mongod.clone().parameter("ttlMonitorEnabled", false);
    spec.replica_set = None;
    // With test commands, recovery dies at the first operation without effect; but a user's `applyOps` is logged with
    // deletes that found nothing.
    spec.parameters.retain(|(name, _)| name != "enableTestCommands");
    let mut model = Mongod::start(spec, folder).await?;
    let begin = copy_entries(source, model.client(), at).await?;
    pretend_to_have_crashed(&model, &begin).await?;
    model.stop().await?;
    model.spec_mut().replica_set = Some(source.name().to_owned());
    model.start_again().await?;
    wait_for_role(&model, Role::Secondary).await?;
    Ok(model)
}

/// Copies the source's entries after the model's newest one and up to `at`; answers the optime they begin after.
async fn copy_entries(source: &ReplicaSet, model: &Client, at: Ts) -> Result<Document> {
    let newest = oplog::<Document>(model)
        .find_one(doc! {})
        .sort(doc! { "$natural": -1 })
        .await?;
    let newest = newest.context("the copy of the new set has no oplog")?;
    let begin = newest.get_timestamp("ts")?;
    let from = oplog::<RawDocumentBuf>(source.client());
    let known = from.count_documents(doc! { "ts": begin }).await?;
    ensure!(
        known == 1,
        "the source's oplog no longer reaches back to its beginning: start it with a larger one"
    );
    let to = oplog::<RawDocumentBuf>(model);
    let wanted = doc! { "ts": { "$gt": begin, "$lte": bson::Timestamp::from(at) } };
    let mut entries = from.find(wanted).sort(doc! { "$natural": 1 }).await?;
    let mut batch: Vec<RawDocumentBuf> = Vec::new();
    let mut bytes = 0;
    while let Some(entry) = entries.try_next().await? {
        if bytes + entry.as_bytes().len() > BATCH_BYTES || batch.len() == BATCH_ENTRIES {
            to.insert_many(&batch).await?;
            batch.clear();
            bytes = 0;
        }
        bytes += entry.as_bytes().len();
        batch.push(entry);
    }
    if !batch.is_empty() {
        to.insert_many(&batch).await?;
    }
    Ok(doc! { "ts": begin, "t": newest.get_i64("t")? })
}

async fn pretend_to_have_crashed(model: &Mongod, applied: &Document) -> Result<()> {
    let local = model.client().database("local");
    let progress = local.collection::<Document>("replset.minvalid");
    progress
        .update_one(doc! {}, doc! { "$set": { "begin": applied } })
        .upsert(true)
        .await?;
    let configs = local.collection::<Document>("system.replset");
    let mut config = configs
        .find_one(doc! {})
        .await?
        .context("the copy of the new set has no configuration")?;
    let members = config.get_array_mut("members")?;
    let Some(Bson::Document(only)) = members.first_mut() else {
        anyhow::bail!("a configuration without members")
    };
    only.insert("host", model.address());
    only.insert("priority", 0);
    // Port 1 of the loopback interface: nobody listens there.
    members.push(doc! { "_id": 1, "host": "127.0.0.1:1" }.into());
    let id = config.get("_id").cloned();
    configs.replace_one(doc! { "_id": id }, config).await?;
    Ok(())
}

fn oplog<T: Send + Sync>(client: &Client) -> Collection<T> {
    client.database("local").collection("oplog.rs")
}
