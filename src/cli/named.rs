//! A deployment, or one replica set of it, as users name it.

use std::str::FromStr;

use headwater_model::DeploymentName;
use headwater_protocol::admin::DeploymentView;

use crate::client::Client;
use crate::failure::Outcome;

/// `NAME` or `NAME/MEMBER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The deployment.
    pub deployment: DeploymentName,
    /// One replica set of it.
    pub member: Option<String>,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (deployment, member) = match text.split_once('/') {
            Some((deployment, member)) => (deployment, Some(member.to_owned())),
            None => (text, None),
        };
        let deployment = DeploymentName::new(deployment).map_err(|e| e.to_string())?;
        if member.as_deref() == Some("") {
            return Err("the replica set is missing after the slash".to_owned());
        }
        Ok(Named { deployment, member })
    }
}

impl Named {
    /// The replica sets that are meant: the one that is named, or all of a sharded cluster. `None` for the only one.
    pub async fn members(&self, client: &Client) -> Outcome<Vec<Option<String>>> {
        if self.member.is_some() {
            return Ok(vec![self.member.clone()]);
        }
        let view: DeploymentView = client.get(&format!("/api/v1/deployments/{}", self.deployment)).await?;
        Ok(match view.replica_sets.len() {
            0 | 1 => vec![None],
            _ => view
                .replica_sets
                .iter()
                .map(|set| Some(set.name.set().to_owned()))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_or_one_member_of_it_is_named() {
        assert_eq!("shop".parse::<Named>().unwrap().member, None);
        assert_eq!("shop/sh1".parse::<Named>().unwrap().member.as_deref(), Some("sh1"));
        for wrong in ["", "/rs1", "shop/", "a b"] {
            assert!(wrong.parse::<Named>().is_err(), "{wrong:?}");
        }
    }
}
