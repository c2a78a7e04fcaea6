//! Scans that are interrupted while they read: what is stored says where they go on, and what became of the collection
//! meanwhile does not matter.

use std::cell::Cell;

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt;
use headwater_host::Host;
use headwater_model::CollectionUuid;
use mongodb::{Client, Collection};

use crate::agent::{Agent, protect};
use crate::check;
use crate::mongod::{ReplicaSet, until};
use crate::receiver::{Arrived, Receiver};

/// More than what is under way between a cursor and the service, so that the cursor is open while slices wait.
const DOCUMENTS: i32 = 3000;
const BYTES: usize = 32 << 10;
/// As many as a batch of a cursor takes, and one.
const BATCH: usize = (16 << 20) / BYTES + 1;

struct Scene {
    host: Host,
    set: ReplicaSet,
    client: Client,
    receiver: Receiver,
    uuid: CollectionUuid,
}

impl Scene {
    /// A source with a large collection that was created with `options`, and a service that lets so many slices of each part
    /// in. Waits until they are stored and the agent waits with more.
    async fn held(options: Document, slices: u32) -> (Scene, Agent) {
        let host = Host::real().unwrap();
        let set = ReplicaSet::start(1, &[]).await;
        let client = set.client().await;
        let db = client.database("shop");
        let mut create = doc! { "create": "large" };
        create.extend(options);
        db.run_command(create).await.unwrap();
        insert(&db.collection("large"), 0..DOCUMENTS).await;
        db.collection::<Document>("small")
            .insert_one(doc! { "_id": 1 })
            .await
            .unwrap();
        let receiver = Receiver::start(&host).await;
        receiver.kept().slices_at_most = Some(slices);
        protect(&receiver, &set.uri());
        let agent = Agent::start(&host, &receiver);
        let uuid = until_begun(&receiver).await;
        until("the service has what it takes and refuses more", || async {
            let kept = receiver.kept();
            let stored = kept.parts.get(&(uuid, 0)).map_or(0, |part| part.checksums.len());
            stored == slices as usize && kept.slices_refused > 0
        })
        .await;
        let scene = Scene {
            host,
            set,
            client,
            receiver,
            uuid,
        };
        (scene, agent)
    }

    fn collection(&self) -> Collection<Document> {
        self.client.database("shop").collection("large")
    }

    async fn admin(&self, command: Document) {
        self.client.database("admin").run_command(command).await.unwrap();
    }

    /// The cursor that reads the collection and is idle just now; waits for it.
    async fn idle_cursor(&self) -> i64 {
        let found = Cell::new(None);
        until("the scan's cursor is idle", || async {
            let pipeline = [
                doc! { "$currentOp": { "allUsers": true, "idleCursors": true } },
                doc! { "$match": { "type": "idleCursor", "ns": "shop.large" } },
            ];
            let listed = self.client.database("admin").aggregate(pipeline).await.unwrap();
            let cursors: Vec<Document> = listed.try_collect().await.unwrap();
            let id = cursors
                .first()
                .and_then(|item| item.get_document("cursor").ok()?.get_i64("cursorId").ok());
            found.set(id);
            id.is_some()
        })
        .await;
        found.get().unwrap()
    }

    /// How many documents of the collection have arrived, over all parts; documents that came twice count twice.
    fn arrived(&self) -> usize {
        self.parts(|part| part.documents.len()).into_iter().sum()
    }

    fn parts<T>(&self, what: impl Fn(&Arrived) -> T) -> Vec<T> {
        let kept = self.receiver.kept();
        let own = kept.parts.iter().filter(|((uuid, _), _)| *uuid == self.uuid);
        own.map(|(_, part)| what(part)).collect()
    }

    fn was_dropped(&self) -> bool {
        let kept = self.receiver.kept();
        kept.ended.as_ref().unwrap().dropped.contains(&self.uuid)
    }

    fn let_in(&self) {
        self.receiver.kept().slices_at_most = None;
    }

    /// Lets everything in and requires that nothing is missing at the end.
    async fn complete(&self) {
        self.let_in();
        check::caught_up(&self.receiver, &self.client).await;
        check::the_chain_is_the_oplog(&self.receiver, &self.client).await;
        check::every_document_is_there(&self.receiver, &self.client).await;
    }
}

async fn insert(collection: &Collection<Document>, ids: std::ops::Range<i32>) {
    let ids: Vec<i32> = ids.collect();
    for ids in ids.chunks(200) {
        let documents = ids.iter().map(|id| doc! { "_id": id, "text": "y".repeat(BYTES) });
        collection.insert_many(documents).await.unwrap();
    }
}

/// The large collection's identity, once the first copy was begun.
async fn until_begun(receiver: &Receiver) -> CollectionUuid {
    until("the first copy is begun", || async { receiver.kept().begun.is_some() }).await;
    let kept = receiver.kept();
    let metas = &kept.begun.as_ref().unwrap().1;
    metas.iter().find(|meta| meta.name == "large").unwrap().uuid
}

/// A collection that may not be split, and is read in natural order.
fn in_one_part() -> Document {
    doc! { "collation": { "locale": "en", "strength": 2 } }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_scan_goes_on_where_the_last_stored_slices_say() {
    // In natural order a place can be named after a whole batch only; in a range at every document, which is read again.
    for (options, slices, parts, most_twice) in [(in_one_part(), 3, 1, BATCH), (doc! {}, 1, 4, 4)] {
        let (scene, agent) = Scene::held(options, slices).await;
        agent.kill();
        let before = scene.arrived();
        let agent = Agent::start(&scene.host, &scene.receiver);
        scene.complete().await;
        assert_eq!(scene.parts(|part| part.done), vec![true; parts]);
        let twice = scene.arrived() - DOCUMENTS as usize;
        assert!(
            twice <= most_twice && twice < before,
            "{twice} of {before} documents came again"
        );
        assert!(!scene.was_dropped());
        agent.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_whose_stored_place_is_gone_starts_over() {
    let (scene, agent) = Scene::held(in_one_part(), 3).await;
    agent.kill();
    let place = scene
        .parts(|part| part.resume.get_str("token").unwrap().to_owned())
        .remove(0);
    let bytes = (0..place.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&place[at..at + 2], 16).unwrap());
    let token = RawDocumentBuf::from_bytes(bytes.collect()).unwrap();
    let record = token.get_i64("$recordId").unwrap();
    let all = scene.collection();
    let found = all.find(doc! {}).projection(doc! { "_id": 1 }).show_record_id(true);
    let rows: Vec<Document> = found.await.unwrap().try_collect().await.unwrap();
    let row = rows
        .iter()
        .find(|row| row.get("$recordId") == Some(&Bson::Int64(record)))
        .unwrap();
    all.delete_one(doc! { "_id": row.get_i32("_id").unwrap() })
        .await
        .unwrap();
    let agent = Agent::start(&scene.host, &scene.receiver);
    scene.complete().await;
    assert_eq!(scene.parts(|part| part.done), [true]);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capped_collection_that_rolled_over_its_stored_place_starts_over() {
    let size = (DOCUMENTS as usize * (BYTES + 200)) as i64;
    let (scene, agent) = Scene::held(doc! { "capped": true, "size": size }, 3).await;
    agent.kill();
    insert(&scene.collection(), DOCUMENTS..2 * DOCUMENTS).await;
    let agent = Agent::start(&scene.host, &scene.receiver);
    scene.complete().await;
    assert_eq!(scene.parts(|part| part.done), [true]);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_renamed_under_the_cursor_is_read_to_its_end() {
    let (scene, agent) = Scene::held(in_one_part(), 1).await;
    scene.idle_cursor().await;
    scene
        .admin(doc! { "renameCollection": "shop.large", "to": "shop.larger" })
        .await;
    scene.complete().await;
    assert_eq!(scene.parts(|part| part.done), [true]);
    assert_eq!(scene.arrived(), DOCUMENTS as usize);
    assert!(!scene.was_dropped());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_dropped_under_the_cursor_is_told_as_dropped() {
    let (scene, agent) = Scene::held(in_one_part(), 1).await;
    scene.idle_cursor().await;
    scene.collection().drop().await.unwrap();
    // Another one by its name is another one.
    insert(&scene.collection(), 0..10).await;
    scene.complete().await;
    assert_eq!(scene.parts(|part| part.done), [false]);
    assert!(scene.was_dropped());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_dropped_while_no_agent_runs_is_told_as_dropped() {
    let (scene, agent) = Scene::held(in_one_part(), 1).await;
    agent.kill();
    scene.collection().drop().await.unwrap();
    let agent = Agent::start(&scene.host, &scene.receiver);
    scene.complete().await;
    assert!(scene.was_dropped());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_killed_or_lost_in_a_crash_is_opened_again_where_it_was() {
    let (mut scene, agent) = Scene::held(in_one_part(), 1).await;
    let cursor = scene.idle_cursor().await;
    let kill = doc! { "killCursors": "large", "cursors": [cursor] };
    scene.client.database("shop").run_command(kill).await.unwrap();
    scene.receiver.kept().slices_at_most = Some(7);
    until("the scan goes on", || async {
        scene.parts(|part| part.checksums.len()) == [7]
    })
    .await;
    scene.set.members[0].crash().await;
    scene.complete().await;
    assert_eq!(scene.parts(|part| part.done), [true]);
    assert!(!scene.was_dropped());
    agent.stop().await;
}
