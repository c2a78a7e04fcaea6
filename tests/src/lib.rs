//! The bed for end-to-end tests.
