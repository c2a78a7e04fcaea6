//! Naming every block that an image refers to, without reading a leaf of its data.

use std::sync::Arc;

use headwater_model::BlockId;
use headwater_store::blocks::Blocks;
use headwater_store::objects::StoreError;

use crate::catalog;
use crate::error::HeadError;
use crate::image::Image;
use crate::tree::{Node, Root};

/// Who keeps account of blocks that are referred to.
pub trait Marks: Send {
    /// A block with nothing below it.
    fn leaf(&mut self, id: BlockId) -> Result<(), StoreError>;
    /// A block with others below it; whether they are to be visited too. `false` when that was done already.
    fn node(&mut self, id: BlockId) -> Result<bool, StoreError>;
}

/// Visits all blocks of the image. Subtrees that [`Marks::node`] knows are not entered, so that the second of two images
/// costs what differs.
pub async fn visit(blocks: &Arc<dyn Blocks>, image: &Image, marks: &mut dyn Marks) -> Result<(), HeadError> {
    for root in [&image.catalog, &image.open_transactions].into_iter().flatten() {
        visit_tree(blocks, root, marks).await?;
    }
    for definition in catalog::read(blocks, image.catalog.as_ref()).await? {
        for layer in &definition.layers {
            visit_tree(blocks, &layer.root, marks).await?;
        }
    }
    Ok(())
}

async fn visit_tree(blocks: &Arc<dyn Blocks>, root: &Root, marks: &mut dyn Marks) -> Result<(), HeadError> {
    let mut left = vec![(root.level, root.id)];
    while let Some((level, id)) = left.pop() {
        if level == 0 {
            marks.leaf(id)?;
        } else if marks.node(id)? {
            let node = Node::decode(blocks.get(id).await?, level).map_err(|fault| HeadError::Node { id, fault })?;
            if let Node::Interior(node) = node {
                left.extend(node.children.into_iter().map(|child| (level - 1, child.id)));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bson::doc;
    use headwater_model::Incarnation;
    use headwater_protocol::agent::CollectionMeta;
    use headwater_store::memory_blocks::MemoryBlocks;

    use super::*;
    use crate::build::{Builder, SlicePayload, SliceSource};
    use crate::head::{Begin, Head};
    use crate::test_support::{at, block_on, raw, uuid};

    #[derive(Default)]
    struct Seen {
        all: BTreeSet<BlockId>,
        entered: u32,
    }

    impl Marks for Seen {
        fn leaf(&mut self, id: BlockId) -> Result<(), StoreError> {
            self.all.insert(id);
            Ok(())
        }

        fn node(&mut self, id: BlockId) -> Result<bool, StoreError> {
            let fresh = self.all.insert(id);
            self.entered += u32::from(fresh);
            Ok(fresh)
        }
    }

    struct One(Option<SlicePayload>);

    #[async_trait::async_trait]
    impl SliceSource for One {
        async fn next(&mut self) -> Result<Option<SlicePayload>, StoreError> {
            Ok(self.0.take())
        }
    }

    #[test]
    fn what_is_visited_is_all_that_a_head_needs_and_a_second_time_nothing_is_entered() {
        block_on(async {
            let memory = Arc::new(MemoryBlocks::new());
            let blocks: Arc<dyn Blocks> = memory.clone();
            let meta = CollectionMeta {
                db: "shop".into(),
                name: "orders".into(),
                uuid: uuid(7),
                options: bson::RawDocumentBuf::new(),
                indexes: Vec::new(),
            };
            let payload: Vec<u8> = (0..30_000)
                .flat_map(|n| raw(&doc! { "_id": n, "text": "x".repeat(200) }).to_vec())
                .collect();
            let mut slices = One(Some(SlicePayload {
                number: 0,
                payload: payload.into(),
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
            let (image, _) = job.run(blocks.clone()).await.unwrap();

            let mut seen = Seen::default();
            visit(&blocks, &image, &mut seen).await.unwrap();
            assert!(seen.entered > 0);
            // A store with nothing but those blocks gives the same head.
            let only = Arc::new(MemoryBlocks::new());
            for id in &seen.all {
                only.put(memory.get(*id).await.unwrap()).await.unwrap();
            }
            let copy = Head::open(only.clone(), image.clone()).await.unwrap();
            assert_eq!(copy.digest(uuid(7)).await.unwrap(), head.digest(uuid(7)).await.unwrap());
            assert!(only.len() + 1 >= memory.len(), "nothing but one run was written");

            let entered = seen.entered;
            visit(&blocks, &image, &mut seen).await.unwrap();
            assert_eq!(seen.entered, entered);
        });
    }
}
