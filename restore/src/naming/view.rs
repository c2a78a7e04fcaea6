//! Renaming within a view: what it reads directly, and what its pipeline joins.

use bson::{Bson, Document};
use headwater_model::Namespace;

use super::{NamingFault, Selection};
use crate::source::ViewAtT;

/// The view as it must be defined under its new name `to`.
pub(super) fn renamed(view: &ViewAtT, to: &Namespace, selection: &Selection) -> Result<ViewAtT, NamingFault> {
    let names = Names { view, to, selection };
    let mut pipeline = view.pipeline.clone();
    names.in_stages(&mut pipeline)?;
    Ok(ViewAtT {
        namespace: to.clone(),
        view_on: names.new_name(&view.view_on)?,
        pipeline,
        collation: view.collation.clone(),
    })
}

struct Names<'a> {
    view: &'a ViewAtT,
    to: &'a Namespace,
    selection: &'a Selection,
}

impl Names<'_> {
    fn new_name(&self, collection: &str) -> Result<String, NamingFault> {
        let reads = Namespace::new(&self.view.namespace.db, collection);
        let renamed = self.selection.renamed(&reads)?;
        if renamed.db == self.to.db {
            Ok(renamed.coll)
        } else {
            Err(NamingFault::ViewTorn {
                view: self.view.namespace.clone(),
                reads,
                db: renamed.db,
            })
        }
    }

    fn in_text(&self, value: &mut Bson) -> Result<(), NamingFault> {
        if let Bson::String(name) = value {
            *name = self.new_name(name)?;
        }
        Ok(())
    }

    fn in_stages(&self, stages: &mut [Bson]) -> Result<(), NamingFault> {
        for stage in stages {
            let Bson::Document(stage) = stage else { continue };
            for (operator, body) in stage.iter_mut() {
                match (operator.as_str(), body) {
                    ("$lookup" | "$graphLookup", Bson::Document(body)) => self.in_join(body, "from")?,
                    ("$unionWith", Bson::Document(body)) => self.in_join(body, "coll")?,
                    ("$unionWith", body @ Bson::String(_)) => self.in_text(body)?,
                    ("$facet", Bson::Document(facets)) => {
                        for (_, stages) in facets.iter_mut() {
                            if let Bson::Array(stages) = stages {
                                self.in_stages(stages)?;
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn in_join(&self, body: &mut Document, name: &str) -> Result<(), NamingFault> {
        if let Some(value) = body.get_mut(name) {
            self.in_text(value)?;
        }
        match body.get_mut("pipeline") {
            Some(Bson::Array(stages)) => self.in_stages(stages),
            _ => Ok(()),
        }
    }
}
