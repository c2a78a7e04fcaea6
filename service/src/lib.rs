//! The Backup HTTP Service: ingest, admin API, metrics.
