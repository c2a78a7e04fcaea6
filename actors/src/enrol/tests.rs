//! Which stores a node that begins a cluster claims, and when it refuses an empty one.

use headwater_host::memory::{MemoryDisk, MemoryNetwork};
use headwater_store::backend::memory::{Fault, MemoryObjects, Method};

use super::*;

/// A process of the founder on this disk, with a store for everything else and one for oplog slices; `whole`: it comes
/// as far as a process does that is not killed on its way.
async fn start(
    disk: &MemoryDisk,
    objects: &MemoryObjects,
    oplog: &MemoryObjects,
    whole: bool,
) -> Result<Identity, EnrolError> {
    let host = Host::real().unwrap();
    let kv: Arc<dyn Kv> = Arc::new(disk.open());
    let wish = Wish {
        address: "h:1".to_owned(),
        ask: Vec::new(),
    };
    let transport = MemoryNetwork::new().transport(1);
    let enrolled = enrol(&host, &kv, objects, &wish, &transport, &Addresses::default()).await;
    let ended = match enrolled {
        Ok(Enrolled { identity, .. }) if whole => {
            let apart: Arc<dyn Objects> = Arc::new(oplog.clone());
            let claimed = claim_apart(&kv, objects, [&apart], &identity).await;
            claimed.map(|()| identity)
        }
        enrolled => enrolled.map(|enrolled| enrolled.identity),
    };
    disk.crash(0);
    ended
}

fn is_refused_as_gone(ended: Result<Identity, EnrolError>) {
    let error = ended.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("not mounted"), "{error}");
}

#[tokio::test]
async fn a_founder_claims_its_stores_and_finds_them_claimed_at_every_later_start() {
    let (disk, objects, oplog) = (MemoryDisk::new(), MemoryObjects::new(), MemoryObjects::new());
    let first = start(&disk, &objects, &oplog, true).await.unwrap();
    for store in [&objects, &oplog] {
        let owner = claim::claimed_by(store).await.unwrap();
        assert_eq!(owner, Some(first.cluster.clone()));
    }
    assert_eq!(start(&disk, &objects, &oplog, true).await.unwrap(), first);
}

#[tokio::test]
async fn a_founder_does_not_begin_in_an_empty_place_once_it_had_a_store() {
    let (disk, objects, oplog) = (MemoryDisk::new(), MemoryObjects::new(), MemoryObjects::new());
    let first = start(&disk, &objects, &oplog, true).await.unwrap();
    let empty = MemoryObjects::new();
    is_refused_as_gone(start(&disk, &empty, &oplog, true).await);
    is_refused_as_gone(start(&disk, &objects, &empty, true).await);
    assert!(empty.contents().is_empty(), "nothing is claimed there");
    assert_eq!(
        start(&disk, &objects, &oplog, true).await.unwrap(),
        first,
        "mounted again"
    );
}

#[tokio::test]
async fn a_founder_that_ended_between_its_first_claims_goes_on_with_them() {
    let (disk, objects, oplog) = (MemoryDisk::new(), MemoryObjects::new(), MemoryObjects::new());
    objects.set_hook(|call| match call.method {
        Method::PutNew => Fault::Before(StoreError::unavailable("cluster", "lost")),
        _ => Fault::Pass,
    });
    assert!(
        start(&disk, &objects, &oplog, true).await.is_err(),
        "before the first claim"
    );
    objects.clear_hook();
    let first = start(&disk, &objects, &oplog, false).await.unwrap();
    assert!(oplog.contents().is_empty(), "before the second claim");
    assert_eq!(start(&disk, &objects, &oplog, true).await.unwrap(), first);
    assert_eq!(claim::claimed_by(&oplog).await.unwrap(), Some(first.cluster));
}

/// Found by the simulation (seed 23303): the founder began in a store that it had not claimed, and no other node ever could.
#[tokio::test(start_paused = true)]
async fn a_founder_that_has_not_claimed_its_store_waits_until_it_answers() {
    let (disk, objects, oplog) = (MemoryDisk::new(), MemoryObjects::new(), MemoryObjects::new());
    objects.set_hook(|call| match call.method {
        Method::PutNew => Fault::Before(StoreError::unavailable("cluster", "lost")),
        _ => Fault::Pass,
    });
    assert!(start(&disk, &objects, &oplog, true).await.is_err());
    let mut asked = 0;
    objects.set_hook(move |_| {
        asked += 1;
        match asked {
            1..5 => Fault::Before(StoreError::unavailable("cluster", "away")),
            _ => Fault::Pass,
        }
    });
    let first = start(&disk, &objects, &oplog, true).await.unwrap();
    assert_eq!(claim::claimed_by(&objects).await.unwrap(), Some(first.cluster));
}

#[tokio::test]
async fn a_founder_whose_store_was_claimed_goes_on_voting_while_it_does_not_answer() {
    let (disk, objects, oplog) = (MemoryDisk::new(), MemoryObjects::new(), MemoryObjects::new());
    let first = start(&disk, &objects, &oplog, true).await.unwrap();
    objects.set_hook(|_| Fault::Before(StoreError::unavailable("cluster", "away")));
    assert_eq!(start(&disk, &objects, &oplog, true).await.unwrap(), first);
}

#[tokio::test]
async fn a_store_to_which_everything_was_moved_is_taken_as_it_was_claimed_there() {
    let (disk, objects, oplog) = (MemoryDisk::new(), MemoryObjects::new(), MemoryObjects::new());
    let first = start(&disk, &objects, &oplog, true).await.unwrap();
    let (new, moved) = (MemoryObjects::new(), claim::moved_to(&first.cluster, "file:/new"));
    claim::take_over(&objects, &moved).await.unwrap();
    claim::take_over(&new, &first.cluster).await.unwrap();
    assert_eq!(start(&disk, &new, &oplog, true).await.unwrap(), first);
    let old = start(&disk, &objects, &oplog, true).await.unwrap_err().to_string();
    assert!(old.contains("not in use"), "{old}");
}
