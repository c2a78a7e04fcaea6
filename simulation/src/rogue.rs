//! The part of the museum that acts by itself: a groom that removes what is needed, bits that rot.

use std::rc::Rc;
use std::time::Duration;

use headwater_store::objects::Objects;

use crate::planted::{self, Bug};
use crate::trace;
use crate::world::World;

/// Lets a planted bug of this kind begin.
pub fn unleash(world: &Rc<World>) {
    let rogues = [
        Bug::GroomDeletesPack,
        Bug::GroomDeletesImage,
        Bug::TrimTakesNeeded,
        Bug::OplogRots,
    ];
    let Some(bug) = rogues.into_iter().find(|bug| planted::is(*bug)) else {
        return;
    };
    let world = world.clone();
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(15)).await;
            strike(&world, bug).await;
        }
    });
}

async fn strike(world: &World, bug: Bug) {
    let objects = world.parts.oracle.store().bare();
    let keys: Vec<String> = objects.contents().into_keys().collect();
    let pick = |wanted: &dyn Fn(&str) -> bool| keys.iter().rfind(|key| wanted(key)).cloned();
    let key = match bug {
        Bug::GroomDeletesPack => pick(&|key| key.ends_with(".pack")),
        Bug::GroomDeletesImage => pick(&|key| key.contains("/images/")),
        _ => pick(&|key| key.contains("/oplog/") && !key.contains("/manifest/")),
    };
    let Some(key) = key else { return };
    trace::line(&format!("planted: {bug:?} strikes {key}"));
    let done = match bug {
        Bug::OplogRots => match objects.get(&key).await {
            Ok(bytes) => {
                let mut rotten = bytes.to_vec();
                let middle = rotten.len() / 2;
                rotten[middle] ^= 0x10;
                objects.put(&key, rotten.into()).await
            }
            Err(error) => Err(error),
        },
        _ => objects.delete(&key).await,
    };
    if let Err(error) = done {
        trace::line(&format!("planted: {error}"));
    }
}
