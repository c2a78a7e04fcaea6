//! The head against a model that applies everything at once to plain maps.

mod model;
mod scenarios;
