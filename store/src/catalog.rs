//! The catalog at rest: what a cluster knows about what it keeps here, so that the store alone suffices.
//!
//! Objects `catalog/<recoveries>-<index>`, eight and sixteen hexadecimal digits: how often this store was recovered, and up to
//! which entry of the cluster's log at least the catalog says everything. A name is written once, so that names sort as
//! knowledge grows, a former leader never overwrites what its successor wrote, and a cluster that was recovered elsewhere never
//! comes before its successor. Each is a note of kind `catalog`, `{"version":1,"catalog":…}`; the last [`KEPT`] stay.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::note;
use crate::objects::{Objects, Put, StoreError};

/// Where catalogs are.
pub const FOLDER: &str = "catalog/";
/// How many stay.
pub const KEPT: usize = 8;
const KIND: &str = "catalog";
const VERSION: u32 = 1;

/// Which catalog; a later one knows more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CatalogName {
    /// How often the store had been recovered.
    pub recoveries: u64,
    /// Everything up to this entry of the cluster's log is in it.
    pub index: u64,
}

#[derive(Serialize)]
struct Written<'a, T> {
    version: u32,
    catalog: &'a T,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Deserialize)]
struct Read<T> {
    catalog: T,
}

impl CatalogName {
    /// Its key.
    pub fn key(self) -> String {
        format!("{FOLDER}{:08x}-{:016x}", self.recoveries, self.index)
    }

    fn parse(key: &str) -> Option<CatalogName> {
        let (recoveries, index) = key.strip_prefix(FOLDER)?.split_once('-')?;
        let name = CatalogName {
            recoveries: u64::from_str_radix(recoveries, 16).ok()?,
            index: u64::from_str_radix(index, 16).ok()?,
        };
        (name.key() == key).then_some(name)
    }
}

/// All catalogs, the newest first.
pub async fn list(objects: &dyn Objects) -> Result<Vec<CatalogName>, StoreError> {
    let listed = objects.list(FOLDER).await?;
    let mut names: Vec<_> = listed
        .iter()
        .filter_map(|object| CatalogName::parse(&object.key))
        .collect();
    names.sort_by(|a, b| b.cmp(a));
    Ok(names)
}

/// Reads one. [`StoreError::Damaged`] when it is not what was written, [`StoreError::Refused`] when a newer program wrote it.
pub async fn read<T: DeserializeOwned>(objects: &dyn Objects, name: CatalogName) -> Result<T, StoreError> {
    open(&name.key(), &objects.get(&name.key()).await?)
}

fn open<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, StoreError> {
    let Version { version } = note::open(KIND, key, bytes)?;
    if version != VERSION {
        let detail = format!("the catalog is of version {version}, which this program does not know: use a newer one");
        return Err(StoreError::refused(key, detail));
    }
    Ok(note::open::<Read<T>>(KIND, key, bytes)?.catalog)
}

fn seal<T: Serialize>(catalog: &T) -> Result<Bytes, StoreError> {
    note::seal(
        KIND,
        &Written {
            version: VERSION,
            catalog,
        },
    )
}

/// Writes one, unless one of that name is there, and then removes what lies far behind.
pub async fn write<T: Serialize>(objects: &dyn Objects, name: CatalogName, catalog: &T) -> Result<Put, StoreError> {
    let put = objects.put_new(&name.key(), seal(catalog)?).await?;
    for old in list(objects).await?.into_iter().skip(KEPT) {
        objects.delete(&old.key()).await?;
    }
    Ok(put)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::memory::MemoryObjects;

    fn name(recoveries: u64, index: u64) -> CatalogName {
        CatalogName { recoveries, index }
    }

    #[tokio::test]
    async fn a_later_recovery_comes_before_any_index_and_a_name_is_written_once() {
        let objects = MemoryObjects::default();
        for (recoveries, index) in [(0, 9), (1, 2), (0, 10), (0, u64::MAX)] {
            let put = write(&objects, name(recoveries, index), &index).await.unwrap();
            assert_eq!(put, Put::Created);
        }
        assert_eq!(write(&objects, name(0, 9), &7).await.unwrap(), Put::Exists);
        let names = list(&objects).await.unwrap();
        assert_eq!(names, [name(1, 2), name(0, u64::MAX), name(0, 10), name(0, 9)]);
        assert_eq!(read::<u64>(&objects, name(0, 9)).await.unwrap(), 9);
    }

    #[tokio::test]
    async fn only_the_last_ones_stay_and_strangers_are_left_alone() {
        let objects = MemoryObjects::default();
        objects.put_new("catalog/notes.txt", Bytes::new()).await.unwrap();
        for index in 0..20 {
            write(&objects, name(0, index), &index).await.unwrap();
        }
        let names = list(&objects).await.unwrap();
        assert_eq!(names.len(), KEPT);
        assert_eq!((names[0].index, names[KEPT - 1].index), (19, 12));
        assert!(objects.get("catalog/notes.txt").await.is_ok());
    }

    #[test]
    fn a_catalog_of_another_version_is_refused_and_a_damaged_one_is_damaged() {
        let bytes = seal(&[1, 2]).unwrap();
        assert!(
            std::str::from_utf8(&bytes)
                .unwrap()
                .ends_with("\n{\"version\":1,\"catalog\":[1,2]}\n")
        );
        assert_eq!(open::<Vec<u8>>("k", &bytes).unwrap(), [1, 2]);
        let newer = note::seal(KIND, &serde_json::json!({ "version": 2 })).unwrap();
        assert!(matches!(open::<Vec<u8>>("k", &newer), Err(StoreError::Refused { .. })));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open::<Vec<u8>>("k", &damaged).is_err(), "bit {bit}");
        }
    }
}
