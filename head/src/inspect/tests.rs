use bson::doc;
use headwater_model::Incarnation;
use headwater_protocol::agent::CollectionMeta;
use headwater_store::memory_blocks::MemoryBlocks;

use super::*;
use crate::build::{Builder, SlicePayload, SliceSource};
use crate::head::{Begin, Head};
use crate::test_support::{at, block_on, raw, uuid};

struct One(Option<SlicePayload>);

#[async_trait::async_trait]
impl SliceSource for One {
    async fn next(&mut self) -> Result<Option<SlicePayload>, StoreError> {
        Ok(self.0.take())
    }
}

async fn image(memory: &Arc<MemoryBlocks>, from: i32) -> Image {
    let blocks: Arc<dyn Blocks> = memory.clone();
    let meta = CollectionMeta {
        db: "shop".into(),
        name: "orders".into(),
        uuid: uuid(7),
        options: bson::RawDocumentBuf::new(),
        indexes: Vec::new(),
    };
    let documents = (from..30_000).flat_map(|n| raw(&doc! { "_id": n, "text": "x".repeat(200) }).to_vec());
    let mut slices = One(Some(SlicePayload {
        number: 0,
        payload: documents.collect::<Vec<u8>>().into(),
    }));
    let builder = Builder::new(blocks.clone());
    let run = builder.run(&meta, &mut slices).await.unwrap();
    let built = builder.merge(vec![run]).await.unwrap();
    let begin = Begin {
        tail_after: at(1),
        begin_applying: at(1),
    };
    let mut head = Head::new(blocks.clone(), "6.0.5", begin).unwrap();
    head.add_collection(&meta, built);
    let job = head.begin_image(&"shop/rs0".parse().unwrap(), Incarnation(1)).unwrap();
    job.run(blocks).await.unwrap().0
}

/// Every block below a root.
async fn below(blocks: &Arc<dyn Blocks>, root: &Root) -> Vec<(u8, BlockId)> {
    let mut all = Vec::new();
    let mut left = vec![(root.level, root.id)];
    while let Some((level, id)) = left.pop() {
        all.push((level, id));
        if level > 0
            && let Node::Interior(node) = Node::decode(blocks.get(id).await.unwrap(), level).unwrap()
        {
            left.extend(node.children.into_iter().map(|child| (level - 1, child.id)));
        }
    }
    all
}

#[test]
fn a_whole_image_has_no_faults_and_the_next_costs_what_differs() {
    block_on(async {
        let memory = Arc::new(MemoryBlocks::new());
        let blocks: Arc<dyn Blocks> = memory.clone();
        let (one, two) = (image(&memory, 0).await, image(&memory, 10).await);
        let mut inspection = Inspection::default();
        inspection.image(&blocks, &one).await.unwrap();
        let (nodes, leaves) = (inspection.nodes, inspection.leaves);
        assert!(leaves > 60 && nodes > 0);
        inspection.image(&blocks, &one).await.unwrap();
        // The catalog is one leaf.
        assert_eq!((inspection.nodes, inspection.leaves), (nodes, leaves + 1));
        inspection.image(&blocks, &two).await.unwrap();
        assert_eq!(inspection.faults, []);
    });
}

#[test]
fn any_block_that_is_lost_is_found_and_charged_to_the_images_that_need_it() {
    block_on(async {
        let memory = Arc::new(MemoryBlocks::new());
        let blocks: Arc<dyn Blocks> = memory.clone();
        let (one, two) = (image(&memory, 0).await, image(&memory, 29_000).await);
        let definitions = catalog::read(&blocks, one.catalog.as_ref()).await.unwrap();
        let mut all = below(&blocks, &definitions[0].layers[0].root).await;
        all.extend(below(&blocks, one.catalog.as_ref().unwrap()).await);
        for (level, id) in all {
            let raw = memory.get(id).await.unwrap();
            memory.lose(id);
            let mut inspection = Inspection::default();
            inspection.image(&blocks, &one).await.unwrap();
            let found: Vec<_> = inspection.faults.iter().map(|fault| fault.id).collect();
            assert_eq!(found, [id], "level {level}");
            let lost = BTreeSet::from([id]);
            assert!(needs(&blocks, &one, &lost).await.unwrap());
            let mut other = Inspection::default();
            other.image(&blocks, &two).await.unwrap();
            assert_eq!(needs(&blocks, &two, &lost).await.unwrap(), !other.faults.is_empty());
            memory.put(raw).await.unwrap();
        }
    });
}

#[test]
fn numbers_that_do_not_agree_are_found() {
    block_on(async {
        let memory = Arc::new(MemoryBlocks::new());
        let blocks: Arc<dyn Blocks> = memory.clone();
        let mut image = image(&memory, 0).await;
        image.totals.documents += 1;
        let mut inspection = Inspection::default();
        inspection.image(&blocks, &image).await.unwrap();
        assert_eq!(inspection.faults.len(), 1);
    });
}
