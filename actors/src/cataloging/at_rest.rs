//! The catalog as it rests: what it says of encrypted deployments is sealed by their data keys.
//!
//! ```text
//! catalog := the fields of `Catalog`, "sealed": {deployment: {"key": the wrapped data key, "pieces": base64}}
//! pieces  := the deployment's pieces in JSON, sealed as an object of the name `catalog/<deployment>`
//! ```
//! A part that did not change is not sealed anew, so that the same knowledge is the same bytes as long as one node leads.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use headwater_cluster::catalog::{Catalog, Piece};
use headwater_host::Entropy;
use headwater_model::{DeploymentName, WrappedKey};
use headwater_store::objects::StoreError;
use headwater_store::sealed::{DataKey, format};
use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AtRest {
    /// What everyone may read.
    #[serde(flatten)]
    pub plain: Catalog,
    /// What only those may read who have a master key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sealed: BTreeMap<DeploymentName, Part>,
}

/// What is said of one encrypted deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What it is sealed with.
    pub key: WrappedKey,
    pieces: String,
}

fn name_of(deployment: &DeploymentName) -> String {
    format!("catalog/{deployment}")
}

impl Part {
    /// Seals pieces.
    pub fn seal(
        deployment: &DeploymentName,
        wrapped: &WrappedKey,
        key: &DataKey,
        entropy: &dyn Entropy,
        pieces: &[Piece],
    ) -> Result<Part, StoreError> {
        let name = name_of(deployment);
        let refused = |detail: String| StoreError::refused(&name, detail);
        let plain = serde_json::to_vec(pieces).map_err(|e| refused(e.to_string()))?;
        let mut salt = [0; format::SALT];
        entropy.fill(&mut salt);
        let sealed = format::seal(key, &name, &salt, &plain).map_err(|e| refused(e.to_string()))?;
        Ok(Part {
            key: wrapped.clone(),
            pieces: STANDARD.encode(&sealed),
        })
    }

    /// The pieces; in words why not.
    pub fn open(&self, deployment: &DeploymentName, key: &DataKey) -> Result<Vec<Piece>, String> {
        let sealed = STANDARD.decode(&self.pieces).map_err(|e| e.to_string())?;
        let plain = format::open(key, &name_of(deployment), &sealed).map_err(|e| e.to_string())?;
        serde_json::from_slice(&plain).map_err(|e| e.to_string())
    }
}

/// What a catalog says, parted: of all that is not encrypted, and of each encrypted deployment with its key.
pub fn parted(catalog: &Catalog) -> (Catalog, BTreeMap<DeploymentName, (WrappedKey, Vec<Piece>)>) {
    let key_of = |piece: &Piece| match piece {
        Piece::Deployment { name, deployment } => Some((name.clone(), (deployment.key.clone()?, Vec::new()))),
        _ => None,
    };
    let mut encrypted: BTreeMap<_, (WrappedKey, Vec<Piece>)> = catalog.pieces.iter().filter_map(key_of).collect();
    let mut plain = Catalog {
        pieces: Vec::new(),
        ..catalog.clone()
    };
    for piece in &catalog.pieces {
        match of(piece).and_then(|name| encrypted.get_mut(name)) {
            Some((_, own)) => own.push(piece.clone()),
            None => plain.pieces.push(piece.clone()),
        }
    }
    (plain, encrypted)
}

/// Which deployment a piece speaks of.
fn of(piece: &Piece) -> Option<&DeploymentName> {
    match piece {
        Piece::Begin { .. } | Piece::End => None,
        Piece::Deployment { name, .. } => Some(name),
        Piece::ReplicaSet { set, .. }
        | Piece::Snapshot { set, .. }
        | Piece::Retired { set, .. }
        | Piece::OplogFloor { set, .. }
        | Piece::Condemned { set, .. }
        | Piece::Damage { set, .. } => Some(set.deployment()),
    }
}

#[cfg(test)]
mod tests {
    use headwater_cluster::catalog::unknown_deployment;
    use headwater_host::real::OsEntropy;
    use headwater_model::{Incarnation, MasterKeyId};

    use super::*;

    fn named(name: &str) -> DeploymentName {
        DeploymentName::new(name).unwrap()
    }

    fn wrapped(key: &DataKey) -> WrappedKey {
        WrappedKey {
            revision: 1,
            key: key.id(),
            master: MasterKeyId::new("first").unwrap(),
            sealed: "00".to_owned(),
        }
    }

    /// What is known of a deployment and of a replica set of it.
    fn pieces(name: &str, key: Option<&DataKey>) -> [Piece; 2] {
        let mut deployment = unknown_deployment(0).unwrap();
        deployment.key = key.map(wrapped);
        let set = format!("{name}/rs0").parse().unwrap();
        let name = named(name);
        let incarnation = Incarnation(1);
        [
            Piece::Deployment { name, deployment },
            Piece::Retired { set, incarnation },
        ]
    }

    #[test]
    fn what_belongs_to_an_encrypted_deployment_is_sealed_for_it_and_nothing_else_is() {
        let key = DataKey::random(&OsEntropy);
        let (open, hidden) = (pieces("open", None), pieces("hidden", Some(&key)));
        let catalog = Catalog {
            pieces: [open.clone(), hidden.clone()].concat(),
            ..Catalog::default()
        };
        let (plain, encrypted) = parted(&catalog);
        assert_eq!(plain.pieces, open);
        let (wrapped, own) = &encrypted[&named("hidden")];
        assert_eq!((encrypted.len(), own.as_slice()), (1, hidden.as_slice()));
        let part = Part::seal(&named("hidden"), wrapped, &key, &OsEntropy, own).unwrap();
        assert_eq!(part.open(&named("hidden"), &key).unwrap(), hidden);
        assert!(part.open(&named("other"), &key).is_err(), "swapped");
        assert!(
            part.open(&named("hidden"), &DataKey::random(&OsEntropy)).is_err(),
            "another key"
        );
        let mut cut = part.clone();
        cut.pieces.truncate(part.pieces.len() - 8);
        assert!(cut.open(&named("hidden"), &key).is_err(), "cut");
        let sealed = BTreeMap::from([(named("hidden"), part)]);
        let at_rest = AtRest { plain, sealed };
        let json = serde_json::to_string(&at_rest).unwrap();
        assert_eq!(serde_json::from_str::<AtRest>(&json).unwrap(), at_rest);
    }

    #[test]
    fn a_catalog_of_which_nothing_is_encrypted_is_as_it_always_was() {
        let catalog = Catalog {
            pieces: pieces("open", None).to_vec(),
            ..Catalog::default()
        };
        let (plain, encrypted) = parted(&catalog);
        assert!(encrypted.is_empty());
        let at_rest = AtRest {
            plain,
            sealed: BTreeMap::new(),
        };
        assert_eq!(
            serde_json::to_value(&at_rest).unwrap(),
            serde_json::to_value(&catalog).unwrap()
        );
    }
}
