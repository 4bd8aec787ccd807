//! What the end-to-end tests share: where the tree is, and which binary they drive.

use std::path::{Path, PathBuf};

/// The root of the source tree.
///
/// # Panics
/// When this binary was built from another clone. Cargo does not notice when two clones share a target folder; every test
/// would then judge the wrong code.
#[must_use]
pub fn workspace_root() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    if let Some(run) = std::env::var_os("CARGO_MANIFEST_DIR") {
        assert_eq!(
            built,
            Path::new(&run),
            "built from another clone (left) than it is run in (right): give each clone its own CARGO_TARGET_DIR"
        );
    }
    built
        .parent()
        .expect("tests/ lies in the root")
        .to_path_buf()
}

/// The release build of the server. `make test` builds it and names it in `WUKONGIM_BIN`.
///
/// # Panics
/// When there is none: these tests are about the real binary, so there is nothing to fall back on.
#[must_use]
pub fn server_binary() -> PathBuf {
    let path = std::env::var_os("WUKONGIM_BIN")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            // We run from <target>/<profile>/deps/<test>.
            let own = std::env::current_exe().expect("a test knows where it lies");
            own.ancestors()
                .nth(3)
                .expect("below the target folder")
                .join("release")
                .join("wukongim")
        });
    assert!(
        path.is_file(),
        "no server at {}: run `make test`, or build it with `cargo build --release -p wukong-runtime` and set WUKONGIM_BIN",
        path.display()
    );
    path
}
