//! What the end-to-end tests share: where the tree is, which binary they drive, and how ([`support`]).

#[cfg(feature = "server")]
pub mod support;

use std::path::{Path, PathBuf};

/// The root of the source tree.
#[must_use]
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_path_buf()
}

/// The release build of the server. `make test` builds it and names it in `WUKONGIM_BIN`.
///
/// # Panics
/// When there is none: these tests are about the real binary, so there is nothing to fall back on.
#[must_use]
pub fn server_binary() -> PathBuf {
    let path = std::env::var_os("WUKONGIM_BIN").map(PathBuf::from).unwrap_or_else(|| {
        // We run from <target>/<profile>/deps/<test>.
        let own = std::env::current_exe().expect("a test knows where it lies");
        own.ancestors().nth(3).expect("below the target folder").join("release").join("wukongim")
    });
    assert!(
        path.is_file(),
        "no server at {}: run `make test`, or build it with `cargo build --release -p wukong-runtime` and set WUKONGIM_BIN",
        path.display()
    );
    path
}
