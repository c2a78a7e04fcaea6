//! The living copy of a replica set: tree, layer, memtable, catalog, image, fold, build.
//!
//! * [`tree`]: sorted records as a tree of content-addressed blocks; [`merge`]: several of them as one.
//! * [`memtable`]: changes in memory; [`collection`]: a collection with its stack of layers and tables.
//! * [`head`]: the head: entries applied, jobs given out and taken back.
//! * [`spill`], [`fold`], [`image`]: the jobs; [`build`]: the first copy.
//! * Reading is in [`scan`]; proving what is at rest in `audit`.

mod audit;
pub mod build;
mod catalog;
pub mod census;
pub mod collection;
pub mod error;
pub mod fold;
pub mod head;
mod identity;
pub mod image;
pub mod inspect;
pub mod memtable;
pub mod merge;
mod pace;
pub mod scan;
mod sort_key;
pub mod spill;
mod stack;
pub mod tree;

pub use audit::Audited;
pub use build::{Builder, Built, SlicePayload, SliceSource, SortedRun};
pub use collection::Collection;
pub use error::{HeadError, HeadFault};
pub use fold::{FoldDone, FoldJob, Missing};
pub use head::{Begin, Head};
pub use image::{Image, ImageJob, Totals};
pub use scan::{Digest, Scan, Scanned};
pub use spill::{SpillDone, SpillJob};

#[cfg(test)]
mod test_support;
