//! Exports are read by the genuine mongorestore, which is run where it was installed (`cargo xtask test --matrix`).

use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use bson::{Document, doc};
use headwater_tests::proof::{compare, until_complete, until_stored};
use headwater_tests::{Bed, Headwater, ReplicaSetSpec, Workload, WorkloadSpec, ballast};
use xtask::tools::{self, MongoRestore};

const VERSION: &str = "6.0.5";

/// As wine names a path of ours.
fn seen_by_wine(path: &Path) -> String {
    format!("Z:{}", path.display())
}

async fn mongorestore(tool: &MongoRestore, uri: &str, from: &[String]) -> Result<Output> {
    let mut command = tool.command();
    // Nothing but ASCII reaches a program under wine with the C locale.
    command.arg(format!("--uri={uri}")).args(from).env("LANG", "C.UTF-8");
    Ok(tokio::process::Command::from(command)
        .kill_on_drop(true)
        .output()
        .await?)
}

async fn exported(headwater: &Headwater, at: &str, to: [&str; 2], more: &[&str]) -> Result<()> {
    let arguments = ["restore", "default", "--at", at]
        .into_iter()
        .chain(to)
        .chain(more.iter().copied());
    let ended = headwater.run(arguments).await?;
    ensure!(ended.code == 0, "{}", ended.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_genuine_mongorestore_reads_archive_and_directory() -> Result<()> {
    let Some(tool) = tools::installed()? else {
        eprintln!("NOT RUN: the genuine mongorestore is not installed; `cargo xtask test --matrix` does that");
        return Ok(());
    };
    let bed = Bed::new().await?;
    let source = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
        .await?;
    ballast::fill(source.client(), 400, 10_000).await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(23).without_ddl()).await?;
    workload.reach(800).await?;
    workload.stop().await?;
    for database in source.client().list_database_names().await? {
        if matches!(database.as_str(), "admin" | "config" | "local") {
            continue;
        }
        // This version of the tool does not know clustered and time-series collections.
        let database = source.client().database(&database);
        for specification in database.list_collection_names().await? {
            let listed = doc! { "listCollections": 1, "filter": { "name": &specification } };
            let listed = database.run_command(listed).await?;
            let entry = listed
                .get_document("cursor")?
                .get_array("firstBatch")?
                .first()
                .and_then(bson::Bson::as_document);
            let options = entry.and_then(|entry| entry.get_document("options").ok());
            if options.is_some_and(|o| o.contains_key("clusteredIndex") || o.contains_key("timeseries")) {
                database.collection::<Document>(&specification).drop().await?;
            }
        }
    }
    let mut headwater = bed.headwater()?;
    headwater.start_quickstart(&source.uri(), "default").await?;
    until_complete(&headwater).await?;
    let end = source.mark("end").await?;
    until_stored(&headwater, end).await?;
    let folder = bed.new_folder("exports")?;
    let (archive, directory) = (folder.join("all.archive"), folder.join("dump"));
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is no text");
    exported(&headwater, &end.to_string(), ["--to-archive", &text(&archive)?], &[]).await?;
    exported(&headwater, &end.to_string(), ["--to-dir", &text(&directory)?], &[]).await?;
    for (what, from) in [
        ("archive", format!("--archive={}", seen_by_wine(&archive))),
        ("directory", format!("--dir={}", seen_by_wine(&directory))),
    ] {
        let target = bed
            .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
            .await?;
        let output = mongorestore(&tool, &target.uri(), &[from]).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{what}: {said}");
        ensure!(said.contains("0 document(s) failed to restore"), "{what}: {said}");
        compare(source.client(), target.client(), &format!("mongorestore of the {what}")).await?;
    }
    Ok(())
}
