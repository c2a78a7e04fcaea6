//! `cargo xtask verify`: everything that must hold before a change is shown to others.

use anyhow::Result;

use crate::chores::{cargo, has};

/// Formatting, lints, house rules, tests, documentation, licences and advisories; the quick ones first.
pub fn run() -> Result<()> {
    cargo(&["fmt", "--all", "--check"]).run()?;
    cargo(&["test", "--package", "headwater-tests", "--test", "tidy"]).run()?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]).run()?;
    cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"])
        // The variable replaces what `.cargo/config.toml` says. Links to private items work where those are documented too.
        .with(
            "RUSTDOCFLAGS",
            "--cfg tokio_unstable --deny warnings --allow rustdoc::private_intra_doc_links",
        )
        .run()?;
    crate::test::run(false)?;
    if has("deny") {
        cargo(&["deny", "check"]).run()
    } else {
        eprintln!("skipped: `cargo deny check`, since cargo-deny is not installed");
        Ok(())
    }
}
