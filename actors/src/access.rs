//! Who calls: keys are checked, made and revoked.

use std::collections::BTreeSet;

use headwater_cluster::{Command, Key};
use headwater_model::{DeploymentName, KeyName, KeyRole};
use headwater_protocol::access::{CreateKey, CreatedKey, KeyView, key_id, key_text};
use headwater_protocol::agent::{Refusal, RefusalKind};

use crate::backup::{Backup, not_found};
use crate::commands::submit;
use crate::times::rfc3339;

/// Whoever sent a key that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// What the key is called.
    pub name: KeyName,
    /// What may be seen of it.
    pub id: String,
    /// What its bearer is.
    pub role: KeyRole,
    /// The deployments it is for; empty for all.
    pub scope: BTreeSet<DeploymentName>,
}

impl Bearer {
    /// Whether the key is for this deployment.
    pub fn covers(&self, deployment: &DeploymentName) -> bool {
        self.scope.is_empty() || self.scope.contains(deployment)
    }

    /// Whether the key is for what is called so: `DEPLOYMENT`, `DEPLOYMENT/SET`, or either before a colon and words. What is
    /// of no deployment is only for those who may see all.
    pub fn covers_subject(&self, subject: &str) -> bool {
        let deployment = subject.split([':', '/']).next().unwrap_or_default();
        self.scope.is_empty() || DeploymentName::new(deployment).is_ok_and(|name| self.scope.contains(&name))
    }
}

impl Backup {
    /// Whose key this is; `None` for an unknown one.
    pub fn bearer(&self, key: &str) -> Option<Bearer> {
        let state = self.node.ground.control.state();
        let id = key_id(key)?;
        let known = state.keys.get(id)?;
        // Two hashes of BLAKE3 are compared in constant time.
        let fits = blake3::Hash::from_hex(&known.hash).is_ok_and(|hash| hash == blake3::hash(key.as_bytes()));
        fits.then(|| Bearer {
            name: known.name.clone(),
            id: id.to_owned(),
            role: known.role,
            scope: known.scope.clone(),
        })
    }

    /// Lets a key in that lies in a file of this node, for all deployments. Again is no change; a key of that name whose file
    /// was replaced is shut out.
    pub async fn admit(&self, key: &str, role: KeyRole, name: &str) -> Result<(), Refusal> {
        let name = KeyName::new(name).map_err(|e| Refusal::new(RefusalKind::Internal, e.to_string()))?;
        if self.bearer(key).is_some_and(|bearer| bearer.role == role) {
            return Ok(());
        }
        let id = key_id(key).ok_or_else(|| Refusal::new(RefusalKind::Invalid, "a key has the form hw_ID_SECRET"))?;
        let control = &self.node.ground.control;
        if let Some(former) = self.id_of(&name).filter(|former| former != id) {
            submit(control, Command::RemoveKey { id: former }).await?;
        }
        let key = Key {
            name,
            role,
            scope: BTreeSet::new(),
            hash: hash(key),
            created_ms: self.now_ms(),
        };
        let id = id.to_owned();
        submit(control, Command::AddKey { id, key }).await.map(drop)
    }

    /// Makes a key. It is seen in this answer and never again.
    pub async fn create_key(&self, request: CreateKey) -> Result<CreatedKey, Refusal> {
        check(&request)?;
        let (mut id, mut secret) = ([0; 4], [0; 32]);
        let entropy = &self.node.ground.host.entropy;
        entropy.fill(&mut id);
        entropy.fill(&mut secret);
        let text = key_text(id, secret);
        let id = key_id(&text).unwrap_or_default().to_owned();
        let key = Key {
            name: request.name,
            role: request.role,
            scope: request.deployments.into_iter().collect(),
            hash: hash(&text),
            created_ms: self.now_ms(),
        };
        let view = view(&id, &key);
        submit(&self.node.ground.control, Command::AddKey { id, key }).await?;
        Ok(CreatedKey { key: text, view })
    }

    /// All keys, by their names.
    pub fn keys(&self) -> Vec<KeyView> {
        let state = self.node.ground.control.state();
        let mut views: Vec<_> = state.keys.iter().map(|(id, key)| view(id, key)).collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    /// Shuts a key out at once.
    pub async fn revoke_key(&self, name: &KeyName) -> Result<(), Refusal> {
        let id = self.id_of(name).ok_or_else(|| not_found("key", name))?;
        submit(&self.node.ground.control, Command::RemoveKey { id })
            .await
            .map(drop)
    }

    fn id_of(&self, name: &KeyName) -> Option<String> {
        let state = self.node.ground.control.state();
        let found = state.keys.iter().find(|(_, key)| key.name == *name);
        found.map(|(id, _)| id.clone())
    }
}

/// An agent's key that is for everything would be worth as much as all passwords together; and who may make keys for other
/// deployments is not kept to one.
fn check(request: &CreateKey) -> Result<(), Refusal> {
    let message = match (request.role, request.deployments.is_empty()) {
        (KeyRole::Agent, true) => "an agent's key names the deployments that it may ship",
        (KeyRole::Admin, false) => "an administrator's key is for all deployments",
        _ => return Ok(()),
    };
    Err(Refusal::new(RefusalKind::Invalid, message))
}

fn hash(key: &str) -> String {
    blake3::hash(key.as_bytes()).to_hex().to_string()
}

fn view(id: &str, key: &Key) -> KeyView {
    KeyView {
        name: key.name.clone(),
        id: id.to_owned(),
        role: key.role,
        deployments: key.scope.iter().cloned().collect(),
        created: rfc3339(key.created_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_covers_what_lies_in_its_scope_and_nothing_that_is_of_none() {
        let bearer = |scope: &[&str]| Bearer {
            name: "n".parse().unwrap(),
            id: "ab".to_owned(),
            role: KeyRole::Viewer,
            scope: scope.iter().map(|name| name.parse().unwrap()).collect(),
        };
        for subject in ["shop", "shop/rs0", "shop: words", "shop/rs0: words"] {
            assert!(bearer(&["shop"]).covers_subject(subject) && bearer(&[]).covers_subject(subject));
            assert!(!bearer(&["blog"]).covers_subject(subject), "{subject}");
        }
        for subject in ["", "node 2 at shop:1 does not answer", "1", "shopping"] {
            assert!(!bearer(&["shop"]).covers_subject(subject), "{subject}");
        }
    }

    #[test]
    fn agents_are_kept_to_deployments_and_administrators_are_not() {
        let request = |role, deployments: &[&str]| CreateKey {
            name: "n".parse().unwrap(),
            role,
            deployments: deployments.iter().map(|name| name.parse().unwrap()).collect(),
        };
        for role in KeyRole::ALL {
            assert_eq!(check(&request(role, &[])).is_ok(), role != KeyRole::Agent, "{role}");
            assert_eq!(
                check(&request(role, &["shop"])).is_ok(),
                role != KeyRole::Admin,
                "{role}"
            );
        }
    }
}
