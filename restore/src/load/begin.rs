//! Makes collections and views, empty. Between the claim of a name and its turn somebody else may take it: nothing is
//! thrown away but what users wish dropped, and what an earlier try of this load made.
//!
//! All collections are made, and the cursor with their UUIDs is kept, before the first document is written. So after an
//! interruption a collection is ours if it bears the UUID of the cursor, or if it is only claimed there and holds nothing.

use bson::{Document, doc};
use headwater_model::Namespace;

use super::create::{self, Making, without_collation_version};
use super::target::{There, code, error_code, majority};
use super::{Load, LoadFault, Stage};
use crate::naming::{Item, Kind};

/// How many creates of an earlier try may land late.
const LATE_CREATES: u32 = 3;

impl Load<'_> {
    /// Makes an item's collection, unless an earlier try did.
    pub(super) async fn begin(&self, item: &Item, making: &Making) -> Result<(), LoadFault> {
        let Some(data) = &item.data else { return Ok(()) };
        match self.ledger.stage(&item.to) {
            Some(Stage::Done { .. }) => return Ok(()),
            Some(Stage::Counted { uuid, .. }) => return self.is_still_there(item, uuid).await,
            // A capped collection cannot go on in its middle without risk to its order; it is small by nature.
            Some(Stage::Documents { uuid, .. }) if !data.is_capped() => return self.is_still_there(item, uuid).await,
            _ => {}
        }
        let mut late = if self.resumed { LATE_CREATES } else { 0 };
        loop {
            self.make_room(item).await?;
            match self.create_as(item, making).await {
                // An earlier try that was killed may have left a command on its way.
                Err(LoadFault::Taken { .. }) if late > 0 => late -= 1,
                created => break created?,
            }
        }
        let stage = Stage::Documents {
            after: None,
            documents: 0,
            bytes: 0,
            uuid: self.made(&item.to_data()).await?,
        };
        self.ledger.advance(&item.to, stage).await
    }

    /// Whoever goes on writes into what the load made, and into nothing that took its name since.
    async fn is_still_there(&self, item: &Item, made: Option<String>) -> Result<(), LoadFault> {
        let name = item.to_data();
        let there = self.target.there(&name.db, &[&name.coll]).await?;
        // Without a UUID it was kept by a version that did not note it, or is on a server that tells none.
        if made.is_none() || there.iter().any(|there| there.uuid == made) {
            return Ok(());
        }
        Err(taken(&name))
    }

    /// Makes a view.
    pub(super) async fn begin_view(&self, item: &Item, making: &Making) -> Result<(), LoadFault> {
        self.make_room(item).await?;
        self.create(&item.to, making).await
    }

    /// The UUID of a collection that was made just now. Servers let a `create` pass if there is a collection with the
    /// same options: one with documents is not what we made.
    async fn made(&self, name: &Namespace) -> Result<Option<String>, LoadFault> {
        let there = self.target.there(&name.db, &[&name.coll]).await?;
        if self.target.is_empty(name).await? {
            Ok(there.into_iter().find_map(|there| there.uuid))
        } else {
            Err(taken(name))
        }
    }

    /// Throws away what bears an item's name if that is allowed. A name that is taken for the first time is left to
    /// `create`, which refuses; but one that takes a UUID would push the other collection aside.
    async fn make_room(&self, item: &Item) -> Result<(), LoadFault> {
        let (name, data) = (&item.to, &item.to_data());
        if self.settings.drop {
            // A process that stood still may wake when another has gone on and finished: it learns so before it drops.
            self.ledger.keep_recent().await?;
            self.drop(name).await?;
            return if data == name { Ok(()) } else { self.drop(data).await };
        }
        if !self.resumed && !self.settings.keep_uuids {
            return Ok(());
        }
        let there = self.target.there(&name.db, &[&name.coll, &data.coll]).await?;
        for there in &there {
            if !self.is_ours(item, there).await? {
                return Err(taken(&Namespace::new(&name.db, &there.name)));
            }
        }
        for there in there {
            self.drop(&Namespace::new(&name.db, there.name)).await?;
        }
        Ok(())
    }

    /// Whether an earlier try made it. In doubt, what holds anything was not.
    async fn is_ours(&self, item: &Item, there: &There) -> Result<bool, LoadFault> {
        if !self.resumed {
            return Ok(false);
        }
        let data = item.to_data();
        let seen = there.options.as_ref();
        match (&item.kind, there.kind.as_str()) {
            (Kind::View(view), "view") => {
                let same = |options: &Document| {
                    options.get_str("viewOn").is_ok_and(|on| on == view.view_on)
                        && options.get_array("pipeline").is_ok_and(|p| *p == view.pipeline)
                };
                Ok(seen.is_some_and(same))
            }
            // Its buckets decide, which are there too.
            (Kind::TimeSeries, "timeseries") => Ok(true),
            (Kind::Collection | Kind::TimeSeries, "collection") if there.name == data.coll => {
                match self.ledger.stage(&item.to) {
                    // Kept by a version that did not note it.
                    Some(Stage::Documents { uuid: None, .. }) => Ok(true),
                    Some(Stage::Documents { uuid, .. }) if there.uuid == uuid => Ok(true),
                    // Made anew, and interrupted before that was kept: no document was written yet.
                    _ => self.target.is_empty(&data).await,
                }
            }
            _ => Ok(false),
        }
    }

    async fn drop(&self, name: &Namespace) -> Result<(), LoadFault> {
        let command = doc! { "drop": &name.coll, "writeConcern": majority() };
        match self.target.try_run(&name.db, &command).await {
            Err(e) if error_code(&e) != Some(code::NAMESPACE_NOT_FOUND) => {
                Err(self.target.fault(&format!("drop of {name}"), &e))
            }
            _ => Ok(()),
        }
    }

    /// Creates a collection, under the UUID it had where that is asked for.
    async fn create_as(&self, item: &Item, making: &Making) -> Result<(), LoadFault> {
        let with_uuid = create::with_uuid(item, making).filter(|_| self.settings.keep_uuids);
        if let Some(mut command) = with_uuid {
            command.insert("writeConcern", majority());
            self.run_whatever_the_collation(&item.to_data(), &command, "create")
                .await?;
            if item.kind != Kind::TimeSeries {
                return Ok(());
            }
        }
        self.create(&item.to, making).await
    }

    async fn create(&self, name: &Namespace, making: &Making) -> Result<(), LoadFault> {
        let Some(create) = &making.create else { return Ok(()) };
        let mut command = create.clone();
        command.insert("writeConcern", majority());
        self.run_whatever_the_collation(name, &command, "create")
            .await
            .map(drop)
    }

    /// Runs a command with collations; where the target knows only other versions of them, without their versions.
    pub(super) async fn run_whatever_the_collation(
        &self,
        name: &Namespace,
        command: &Document,
        what: &str,
    ) -> Result<Document, LoadFault> {
        let fault = |e: &mongodb::error::Error| self.target.fault(&format!("{what} of {name}"), e);
        match (
            self.target.try_run(&name.db, command).await,
            without_collation_version(command),
        ) {
            (Err(e), Some(command)) if error_code(&e) == Some(code::COLLATION_VERSION) => {
                self.ledger
                    .note(format!("{name} gets the target's version of its collation: {e}"));
                self.target.try_run(&name.db, &command).await.map_err(|e| fault(&e))
            }
            (result, _) => result.map_err(|e| fault(&e)),
        }
    }
}

fn taken(name: &Namespace) -> LoadFault {
    LoadFault::Taken {
        what: format!("create of {name}"),
    }
}
