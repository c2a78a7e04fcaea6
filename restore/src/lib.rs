//! Plans and executes restores and exports.
