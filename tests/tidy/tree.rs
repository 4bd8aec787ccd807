//! What the rules read: the files of the tree, and what cargo says about them.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A text file and its path relative to the root, with `/`.
#[derive(Clone, Debug)]
pub struct File {
    pub path: String,
    pub text: String,
}

impl File {
    pub fn is_shell_script(&self) -> bool {
        let first = self.text.lines().next().unwrap_or_default();
        first.starts_with("#!") && first.ends_with("sh") || self.path.ends_with(".sh")
    }
}

pub fn root() -> PathBuf {
    wukong_tests::workspace_root()
}

/// Every file that git tracks or would track, as far as it is text.
pub fn text_files() -> &'static [File] {
    static FILES: OnceLock<Vec<File>> = OnceLock::new();
    FILES.get_or_init(|| {
        let files: Vec<File> = listed().iter().filter_map(|path| try_read(path)).collect();
        assert!(files.iter().any(|f| f.path == "Cargo.toml"), "the list of files is wrong: Cargo.toml is not in it");
        files
    })
}

/// The Rust files below a folder ("" for all).
pub fn rust_files(below: &str) -> Vec<File> {
    text_files().iter().filter(|f| f.path.starts_with(below) && f.path.ends_with(".rs")).cloned().collect()
}

pub fn read(path: &str) -> File {
    try_read(path).unwrap_or_else(|| panic!("{path} cannot be read as text"))
}

fn try_read(path: &str) -> Option<File> {
    let text = fs::read_to_string(root().join(path)).ok()?;
    Some(File { path: path.to_owned(), text })
}

/// Asks git; in a tree without git (an unpacked archive) walks it.
fn listed() -> Vec<String> {
    let git = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    if let Ok(out) = git
        && out.status.success()
        && !out.stdout.is_empty()
    {
        return String::from_utf8_lossy(&out.stdout).split('\0').filter(|p| !p.is_empty()).map(str::to_owned).collect();
    }
    let mut found = Vec::new();
    walk(&root(), "", &mut found);
    found
}

fn walk(root: &Path, below: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(below)).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let skipped = matches!(name.as_str(), ".git" | "target" | "node_modules");
        if kind.is_dir() && !skipped {
            walk(root, &path, found);
        } else if kind.is_file() {
            found.push(path);
        }
    }
}

/// One line for each script that `bash -n` refuses.
pub fn unparsable_scripts(paths: &[String]) -> Vec<String> {
    let parse = |path: &String| {
        let out = Command::new("bash").arg("-n").arg(root().join(path)).output().expect("bash runs");
        (!out.status.success()).then(|| format!("{path}: {}", String::from_utf8_lossy(&out.stderr).trim()))
    };
    paths.iter().filter_map(parse).collect()
}

/// `cargo metadata` of the workspace, for this platform only (cargo has not downloaded what other platforms need).
pub fn metadata() -> &'static Value {
    static METADATA: OnceLock<Value> = OnceLock::new();
    METADATA.get_or_init(|| {
        let host = host();
        let args = ["metadata", "--format-version", "1", "--filter-platform", host.as_str()];
        cargo(&[&args[..], &["--offline"]].concat())
            .or_else(|_| cargo(&args))
            .unwrap_or_else(|error| panic!("cargo metadata failed; `cargo fetch` downloads what it needs:\n{error}"))
    })
}

/// The manifests that are workspaces of their own, as far as they exist. Their direct dependencies are known without resolving.
pub fn outside_manifests() -> Vec<Value> {
    ["core/gate/Cargo.toml", "fuzz/Cargo.toml"]
        .into_iter()
        .filter(|path| root().join(path).exists())
        .map(|path| {
            cargo(&["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path", path])
                .unwrap_or_else(|error| panic!("cargo cannot read {path}:\n{error}"))
        })
        .collect()
}

fn cargo(args: &[&str]) -> Result<Value, String> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = Command::new(program).args(args).current_dir(root()).output().map_err(|e| e.to_string())?;
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    serde_json::from_slice(&out.stdout).map_err(|e| e.to_string())
}

fn host() -> String {
    let program = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let out = Command::new(program).arg("-vV").current_dir(root()).output().expect("rustc runs");
    let text = String::from_utf8_lossy(&out.stdout);
    text.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc -vV names its host").to_owned()
}
