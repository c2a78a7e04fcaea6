//! The bed itself: its oracle and its comparer agree with a live server, and see what differs.

use anyhow::Result;
use bson::{Document, doc};
use headwater_tests::{Bed, ReplicaSetSpec, Scope, Workload, WorkloadSpec, contents, replay, versions};

#[tokio::test(flavor = "multi_thread")]
async fn replaying_to_the_end_gives_what_the_live_server_holds() -> Result<()> {
    for version in versions() {
        let bed = Bed::new().await?;
        let source = bed.replica_set(ReplicaSetSpec::single(&version)).await?;
        let workload = Workload::start(&source, WorkloadSpec::seeded(7)).await?;
        workload.reach(4000).await?;
        let report = workload.stop().await?;
        let end = source.mark("end").await?;
        let live = contents::read(source.client(), Scope::Everything).await?;
        let model = replay::to(&bed, &source, end).await?;
        let replayed = contents::read(model.client(), Scope::Everything).await?;
        eprintln!(
            "{version}: {report:#?} {} collections, {} documents",
            live.collections.len(),
            live.documents()
        );
        live.require_equal(&replayed)?;
        assert!(live.documents() > 500, "the workload left too little to compare");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn replaying_to_the_middle_stops_exactly_there() -> Result<()> {
    let bed = Bed::new().await?;
    let source = bed.replica_set(ReplicaSetSpec::single("6.0.5")).await?;
    let numbers = source.client().database("shop").collection::<Document>("numbers");
    numbers.insert_one(doc! { "_id": 1 }).await?;
    let middle = source.newest().await?;
    numbers.insert_one(doc! { "_id": 2 }).await?;
    let end = source.newest().await?;
    for (at, wanted) in [(middle, 1), (end, 2)] {
        let model = replay::to(&bed, &source, at).await?;
        let found = contents::read(model.client(), Scope::Users).await?;
        assert_eq!(found.documents(), wanted);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_changed_behind_the_back_is_found() -> Result<()> {
    let bed = Bed::new().await?;
    let source = bed
        .replica_set(ReplicaSetSpec::single("6.0.5").not_replayable())
        .await?;
    let numbers = source.client().database("shop").collection::<Document>("numbers");
    numbers
        .insert_many((0..10).map(|number| doc! { "_id": number, "n": 1 }))
        .await?;
    let before = contents::read(source.client(), Scope::Users).await?;
    let hashes = contents::hashes(source.client(), Scope::Users).await?;
    numbers
        .update_one(doc! { "_id": 4 }, doc! { "$set": { "n": 1_i64 } })
        .await?;
    let after = contents::read(source.client(), Scope::Users).await?;
    assert_eq!(before.differences(&after).len(), 1);
    assert_ne!(hashes, contents::hashes(source.client(), Scope::Users).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_of_three_survives_the_loss_of_its_primary() -> Result<()> {
    let bed = Bed::new().await?;
    let mut source = bed.replica_set(ReplicaSetSpec::three("6.0.5").not_replayable()).await?;
    let first = source.primary().await?;
    assert_ne!(source.step_down().await?, first);
    let second = source.primary().await?;
    source.member_mut(second).kill()?;
    let third = source.primary().await?;
    assert_ne!(third, second);
    source.member_mut(second).start_again().await?;
    source.mark("still there").await?;
    Ok(())
}
