//! Where the members of a cluster are reached, for whoever calls them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::control::Control;

/// Addresses by number. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Addresses(Arc<Mutex<BTreeMap<u64, String>>>);

impl Addresses {
    /// Where a member is reached.
    pub fn of(&self, member: u64) -> Option<String> {
        self.lock().get(&member).cloned()
    }

    /// Makes addresses known; what was known of others stays.
    pub fn know(&self, addresses: impl IntoIterator<Item = (u64, String)>) {
        self.lock().extend(addresses);
    }

    /// Keeps the addresses as the control state says; before it says anything, those that were told at the join. The address
    /// of a node that was taken out stays until another node has it. Ends with the control.
    pub async fn follow(self, control: Control) {
        let mut changes = control.watch();
        loop {
            let state = changes.borrow_and_update().clone();
            let nodes = state.nodes.iter().map(|(id, node)| (id.0, node.address.clone()));
            let nodes: BTreeMap<u64, String> = nodes.filter(|(_, address)| !address.is_empty()).collect();
            match nodes.is_empty() {
                true => self.know(control.members().into_iter().map(|(id, address)| (id.0, address))),
                false => {
                    let mut known = self.lock();
                    known.retain(|_, address| nodes.values().all(|present| present != address));
                    known.extend(nodes);
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
