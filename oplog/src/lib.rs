//! The meaning of change, pure: entries, diffs, transactions, DDL, document keys, the record algebra.
