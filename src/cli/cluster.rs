//! `headwater cluster`: the daemons that keep the backups together.

use clap::Subcommand;
use headwater_protocol::admin::{ClusterView, NodeView};

use crate::cli::recover::Recover;
use crate::client::Client;
use crate::failure::Outcome;
use crate::output::{Format, table};

/// See and change the cluster of daemons.
#[derive(Debug, Subcommand)]
#[command(before_help = "Examples:
  headwater cluster status
  headwater cluster drain 2       before node 2 is taken down for long
  headwater cluster add 2         it takes part again
  headwater cluster remove 2      it never comes back under that number
  headwater cluster recover --store URI --dir DIR --dry-run\n")]
pub enum Cluster {
    /// Show the nodes: who leads, who answers, who owns what
    Status,
    /// Let a drained node take part again; without a number, tell how a new node joins
    Add {
        /// Its number
        node: Option<u64>,
    },
    /// Let everything a node owns go to others, and nothing come to it
    Drain {
        /// Its number
        node: u64,
    },
    /// Take a node out of the cluster for ever
    Remove {
        /// Its number
        node: u64,
    },
    /// Begin a new cluster with what a store says, after every daemon was lost
    Recover(Recover),
}

impl Cluster {
    /// Carries it out.
    pub async fn run(self, client: &Client, format: Format) -> Outcome {
        let view: ClusterView = match &self {
            Cluster::Status | Cluster::Add { node: None } => client.get("/api/v1/cluster").await?,
            Cluster::Add { node: Some(node) } => client.order(&format!("/api/v1/cluster/nodes/{node}/add")).await?,
            Cluster::Drain { node } => client.order(&format!("/api/v1/cluster/nodes/{node}/drain")).await?,
            Cluster::Remove { node } => client.remove(&format!("/api/v1/cluster/nodes/{node}")).await?,
            // It needs no service, and is carried out before one is looked for.
            Cluster::Recover(_) => return Ok(()),
        };
        match self {
            Cluster::Add { node: None } => format.print(&view, how_to_join),
            _ => format.print(&view, text),
        }
    }
}

fn text(view: &ClusterView) -> String {
    let rows = view.nodes.iter().map(row).collect();
    let header = ["node", "address", "state", "vote", "owns"];
    let mut out = table(&header, rows, "This daemon has not begun its cluster yet.");
    let lost = view.nodes.iter().filter(|node| node.voter && !node.answers).count();
    let voters = view.nodes.iter().filter(|node| node.voter).count();
    if view.leader.is_none() {
        out.push_str("\nNobody leads: nothing can be changed until most of the nodes run and reach one another.");
    } else if lost > 0 {
        let bearable = voters.saturating_sub(1) / 2;
        out.push_str(&format!(
            "\n{lost} of {voters} voting nodes are lost; the cluster bears {bearable}."
        ));
    }
    out
}

fn row(node: &NodeView) -> Vec<String> {
    let owns: Vec<String> = node.replica_sets.iter().map(ToString::to_string).collect();
    let vote = match (node.leader, node.voter) {
        (true, _) => "leads",
        (false, true) => "votes",
        (false, false) => "learns",
    };
    vec![
        node.id.to_string(),
        node.address.clone(),
        state(node),
        vote.to_owned(),
        if owns.is_empty() {
            "-".to_owned()
        } else {
            owns.join(", ")
        },
    ]
}

fn state(node: &NodeView) -> String {
    match node {
        NodeView { answers: false, .. } => format!("silent for {} s", node.silent_ms / 1000),
        NodeView { leaving: true, .. } => "leaving".to_owned(),
        NodeView { draining: true, .. } => "drained".to_owned(),
        _ => "well".to_owned(),
    }
}

fn how_to_join(view: &ClusterView) -> String {
    let addresses: Vec<&str> = view.nodes.iter().map(|node| node.address.as_str()).collect();
    format!(
        "On the new machine, with the same store, and cluster.key copied from the folder of any node:\n  \
         headwater daemon --dir DIR --join {} --listen ADDR --store URI --cluster-key cluster.key",
        addresses.join(",")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64) -> NodeView {
        NodeView {
            id,
            address: format!("backup{id}:7480"),
            answers: true,
            silent_ms: 0,
            voter: true,
            leader: id == 1,
            draining: false,
            leaving: false,
            replica_sets: Vec::new(),
        }
    }

    fn view() -> ClusterView {
        ClusterView {
            cluster: "c".to_owned(),
            node: 1,
            leader: Some(1),
            nodes: vec![node(1), node(2), node(3)],
        }
    }

    #[test]
    fn a_lost_node_and_a_lost_leader_are_told() {
        assert!(!text(&view()).contains("lost"));
        let mut lost = view();
        lost.nodes[2].answers = false;
        lost.nodes[2].silent_ms = 12_000;
        let shown = text(&lost);
        assert!(shown.contains("silent for 12 s"), "{shown}");
        assert!(
            shown.contains("1 of 3 voting nodes are lost; the cluster bears 1."),
            "{shown}"
        );
        lost.leader = None;
        assert!(text(&lost).contains("Nobody leads"));
    }

    #[test]
    fn how_to_join_names_every_node() {
        assert!(how_to_join(&view()).contains("--join backup1:7480,backup2:7480,backup3:7480 "));
    }
}
