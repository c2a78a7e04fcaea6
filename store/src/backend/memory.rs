//! Objects in memory, for tests and the simulation: deterministic, with faults on demand.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::objects::{ObjectMeta, Objects, Put, StoreError, check_key, check_prefix};

/// The methods of [`Objects`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// [`Objects::put_new`]
    PutNew,
    /// [`Objects::put`]
    Put,
    /// [`Objects::get`]
    Get,
    /// [`Objects::get_range`]
    GetRange,
    /// [`Objects::list`]
    List,
    /// [`Objects::delete`]
    Delete,
}

/// One call, as a fault hook sees it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Counts the calls of this store from 0.
    pub number: u64,
    /// Which method.
    pub method: Method,
    /// The key or prefix.
    pub key: &'a str,
}

/// What a hook decides for a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Goes through.
    Pass,
    /// Fails without effect.
    Before(StoreError),
    /// Has its effect and fails nevertheless.
    After(StoreError),
}

type Hook = Box<dyn FnMut(Call<'_>) -> Fault + Send>;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    calls: u64,
    hook: Option<Hook>,
}

/// A store in memory. Clones share their objects: "reopening" is cloning.
#[derive(Clone, Default)]
pub struct MemoryObjects {
    state: Arc<Mutex<State>>,
}

impl MemoryObjects {
    /// An empty store.
    pub fn new() -> Self {
        MemoryObjects::default()
    }

    /// Asks `hook` about every call from now on.
    pub fn set_hook(&self, hook: impl FnMut(Call<'_>) -> Fault + Send + 'static) {
        self.lock().hook = Some(Box::new(hook));
    }

    /// Lets every call through again.
    pub fn clear_hook(&self) {
        self.lock().hook = None;
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// A copy of everything stored: what would be left if the process ended now.
    pub fn contents(&self) -> BTreeMap<String, Bytes> {
        self.lock().objects.clone()
    }

    /// A store of its own that holds `contents`.
    pub fn holding(contents: BTreeMap<String, Bytes>) -> Self {
        let store = MemoryObjects::new();
        store.lock().objects = contents;
        store
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call<T>(
        &self,
        method: Method,
        key: &str,
        effect: impl FnOnce(&mut BTreeMap<String, Bytes>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.lock();
        let number = state.calls;
        state.calls += 1;
        let fault = state
            .hook
            .as_mut()
            .map_or(Fault::Pass, |hook| hook(Call { number, method, key }));
        match fault {
            Fault::Pass => effect(&mut state.objects),
            Fault::Before(error) => Err(error),
            Fault::After(error) => effect(&mut state.objects).and(Err(error)),
        }
    }
}

fn found<'a>(objects: &'a BTreeMap<String, Bytes>, key: &str) -> Result<&'a Bytes, StoreError> {
    objects.get(key).ok_or_else(|| StoreError::NotFound(key.to_owned()))
}

#[async_trait]
impl Objects for MemoryObjects {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        check_key(key)?;
        self.call(Method::PutNew, key, |objects| {
            if objects.contains_key(key) {
                return Ok(Put::Exists);
            }
            objects.insert(key.to_owned(), bytes);
            Ok(Put::Created)
        })
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        check_key(key)?;
        self.call(Method::Put, key, |objects| {
            objects.insert(key.to_owned(), bytes);
            Ok(())
        })
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        check_key(key)?;
        self.call(Method::Get, key, |objects| found(objects, key).cloned())
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        check_key(key)?;
        self.call(Method::GetRange, key, |objects| {
            let whole = found(objects, key)?;
            if range.start > range.end || range.end > whole.len() as u64 {
                return Err(StoreError::damaged(
                    key,
                    format!("{range:?} is outside of its {} bytes", whole.len()),
                ));
            }
            Ok(whole.slice(range.start as usize..range.end as usize))
        })
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        check_prefix(prefix)?;
        self.call(Method::List, prefix, |objects| {
            let from = objects
                .range(prefix.to_owned()..)
                .take_while(|(key, _)| key.starts_with(prefix));
            Ok(from
                .map(|(key, bytes)| ObjectMeta {
                    key: key.clone(),
                    size: bytes.len() as u64,
                })
                .collect())
        })
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        check_key(key)?;
        self.call(Method::Delete, key, |objects| {
            objects.remove(key);
            Ok(())
        })
    }
}
