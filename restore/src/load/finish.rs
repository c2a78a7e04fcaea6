//! After the documents: indexes, views, expiry, settings, users; and the last look.

use bson::{Bson, doc};

use super::batch;
use super::create::Making;
use super::documents::{duplicates, first_write_error};
use super::target::{code, error_code, majority};
use super::{Load, LoadFault, Stage};
use crate::dump::is_given;
use crate::naming::{Item, Kind};
use crate::source::SourceFault;

impl Load<'_> {
    /// Builds all indexes of a collection in one pass over it.
    pub(super) async fn indexes(&self, item: &Item, making: &Making, in_a_set: bool) -> Result<(), LoadFault> {
        if making.indexes.is_empty() || matches!(self.ledger.stage(&item.to), Some(Stage::Done { .. })) {
            return Ok(());
        }
        let specs: Vec<_> = making.indexes.iter().cloned().map(Bson::Document).collect();
        let mut command = doc! { "createIndexes": &item.to.coll, "indexes": specs, "writeConcern": majority() };
        if in_a_set {
            // By itself it waits for every member with a vote and data, and one that is down never answers.
            command.insert("commitQuorum", "majority");
        }
        match self.target.try_run(&item.to.db, &command).await {
            Ok(_) => return Ok(()),
            Err(e) if error_code(&e) == Some(code::COLLATION_VERSION) => {}
            Err(e) if error_code(&e) == Some(code::INDEX_OPTION) => {
                self.ledger.note(format!(
                    "indexes of {} lose options the target does not know: {e}",
                    item.to
                ));
                command.insert("ignoreUnknownIndexOptions", true);
            }
            Err(e) => return Err(self.target.fault(&format!("createIndexes of {}", item.to), &e)),
        }
        self.run_whatever_the_collation(&item.to, &command, "createIndexes")
            .await
            .map(drop)
    }

    /// Makes the views. What they read need not be there.
    pub(super) async fn views(&self) -> Result<(), LoadFault> {
        for (item, making) in self.items.iter().filter(|(item, _)| matches!(item.kind, Kind::View(_))) {
            if self.ledger.stage(&item.to) == Some(Stage::Claimed) {
                self.begin_view(item, making).await?;
                self.ledger
                    .advance(&item.to, Stage::Done { documents: 0, bytes: 0 })
                    .await?;
            }
        }
        Ok(())
    }

    /// Lets the server expire documents from now on.
    pub(super) async fn expiry(&self) -> Result<(), LoadFault> {
        for (item, making) in &self.items {
            if let Some(command) = &making.expire {
                let mut command = command.clone();
                command.insert("writeConcern", majority());
                self.target.run(&item.to.db, &command).await?;
            }
        }
        Ok(())
    }

    /// Settings replace those of the same name. Users and roles that the target has already stay as they are: a restore
    /// must not take the password of who runs it.
    pub(super) async fn accounts(&self, notes: &mut Vec<String>) -> Result<(), LoadFault> {
        for (item, _) in &self.items {
            let Some(uuid) = item.uuid() else { continue };
            if !matches!(item.kind, Kind::Settings | Kind::Users | Kind::Roles | Kind::AuthSchema) {
                continue;
            }
            let mut rows = self.source.rows(uuid, None).await?;
            let (mut documents, mut bytes, mut kept) = (0, 0, 0);
            loop {
                let batch = rows.next_batch().await?;
                if batch.is_empty() {
                    break;
                }
                for row in batch.iter().filter(|row| is_given(item, &row.doc)) {
                    kept += self.merge(item, &row.doc).await?;
                    documents += 1;
                    bytes += row.doc.len() as u64;
                }
            }
            if kept > 0 && item.kind != Kind::AuthSchema {
                notes.push(format!(
                    "{kept} documents of {} were at the target already and stay as they are",
                    item.to
                ));
            }
            self.ledger.advance(&item.to, Stage::Done { documents, bytes }).await?;
        }
        Ok(())
    }

    /// Gives one document; 1 if the target keeps its own.
    async fn merge(&self, item: &Item, document: &bytes::Bytes) -> Result<u64, LoadFault> {
        let to = &item.to;
        let unusable = |e: bson::error::Error| SourceFault::Document {
            namespace: to.clone(),
            detail: e.to_string(),
        };
        let command = match item.kind {
            Kind::Settings => batch::replace(&to.coll, document, true).map_err(unusable)?,
            _ => Some(batch::insert(&to.coll, std::slice::from_ref(document)).map_err(unusable)?),
        };
        let Some(command) = command else { return Ok(0) };
        let sent = self.target.run_raw(&to.db, &command).await;
        let (reply, _) = sent.map_err(|e| self.target.fault(&format!("documents of {to}"), &e))?;
        let refused = |detail| LoadFault::Refused {
            what: format!("documents of {to}"),
            detail,
        };
        match item.kind {
            Kind::Settings => first_write_error(&reply).map_or(Ok(0), |e| Err(refused(e))),
            _ => duplicates(&reply, true).map_err(refused),
        }
    }

    /// Looks whether every index is there by name. Documents were counted before anything could expire.
    pub(super) async fn verify(&self, item: &Item, making: &Making) -> Result<(), LoadFault> {
        if making.indexes.is_empty() {
            return Ok(());
        }
        let to = item.to_data();
        let there = self.target.index_names(&to.db, &to.coll).await?;
        let names = making.indexes.iter().filter_map(|i| i.get_str("name").ok());
        let missing: Vec<_> = names.filter(|name| !there.contains(*name)).collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(LoadFault::Indexes {
                to: item.to.clone(),
                missing: missing.join(", "),
            })
        }
    }
}
