//! Where the checkout is, and the pipeline's program.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The checkout: upwards from here, or where this program was built.
pub fn find_repository() -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir().unwrap_or_default();
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = here.ancestors().chain(built.ancestors()).find(|path| path.join("deploy/local/stack").is_file());
    found.map(Path::to_owned).context(
        "deploy/local/stack is not found: run this within the checkout, or name a cluster with --config kappa.toml",
    )
}

/// The pipeline's program: beside this one, or in the checkout.
pub fn find_kappa() -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("kappa")));
    let built = find_repository().ok().map(|repository| repository.join("target/release/kappa"));
    let found = beside.into_iter().chain(built).find(|path| path.is_file());
    found.context("target/release/kappa is not there: build it with `cargo build --release --bin kappa`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_is_found() {
        assert!(find_repository().unwrap().join("schemas/sensor-reading.avsc").is_file());
    }
}
