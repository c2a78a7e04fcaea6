//! Raw settings file to validated Settings.
