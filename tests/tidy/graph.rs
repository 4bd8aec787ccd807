//! Rules on the dependency graph, as `cargo metadata` tells it.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Who of ours may know whom of ours, in any kind of dependency.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("wukong-proto", &[]),
    ("wukong-core", &["wukong-proto"]),
    ("wukong-runtime", &["wukong-proto", "wukong-core"]),
    ("wukong-sim", &["wukong-proto", "wukong-core"]),
    // The simulator's oracles judge real processes too (tier C).
    ("wukong-tests", &["wukong-proto", "wukong-core", "wukong-runtime", "wukong-sim"]),
    ("wukong-benches", &["wukong-proto", "wukong-core", "wukong-runtime"]),
    ("wukong-fuzz", &["wukong-proto", "wukong-core"]),
    ("wukong-gate", &["wukong-proto", "wukong-core"]),
];

/// Known only when built for the madsim executor.
const UNDER_MADSIM: &[(&str, &str)] = &[("wukong-sim", "wukong-runtime")];

/// Everything that core and proto may depend on directly, apart from tests. All without default features.
const LISTS: &[(&str, &[&str])] = &[
    ("wukong-proto", &["bytes", "serde_json", "prost"]),
    (
        "wukong-core",
        &[
            "wukong-proto",
            "bytes",
            "hashbrown",
            "slab",
            "smallvec",
            "foldhash",
            "prost",
            "aes",
            "cbc",
            "md-5",
            "x25519-dalek",
            "base64",
            "crc32fast",
            "rand_chacha",
        ],
    ),
];

pub const NOT_IN_SIM: &[&str] = &["rocksdb", "librocksdb-sys", "tokio", "madsim-tokio", "madsim"];

/// Crates that are not to enter by any way.
const BANNED: &[(&str, &str)] = &[
    ("openssl-sys", "a C library that every user would have to install"),
    ("native-tls", "brings in openssl"),
    ("async-std", "a second executor"),
];

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn packages(metadata: &Value) -> &[Value] {
    list(metadata, "packages")
}

/// Packages of ours: those that come from a path.
fn ours(metadata: &Value) -> impl Iterator<Item = &Value> {
    packages(metadata).iter().filter(|p| p["source"].is_null())
}

/// Where a manifest is, relative to the workspace, for messages.
fn manifest<'a>(metadata: &'a Value, package: &'a Value) -> &'a str {
    let path = text(package, "manifest_path");
    path.strip_prefix(text(metadata, "workspace_root")).map_or(path, |p| p.trim_start_matches('/'))
}

pub fn wrong_way(metadata: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for package in ours(metadata) {
        let name = text(package, "name");
        let Some((_, allowed)) = MAY_KNOW.iter().find(|(n, _)| *n == name) else {
            found.push(format!(
                "{}: {name} is a crate without a place in the order; give it one in tests/tidy/graph.rs",
                manifest(metadata, package)
            ));
            continue;
        };
        for dependency in list(package, "dependencies").iter().filter(|d| d["path"].is_string()) {
            let other = text(dependency, "name");
            let madsim_only = text(dependency, "target").contains("madsim") && UNDER_MADSIM.contains(&(name, other));
            if !allowed.contains(&other) && !madsim_only {
                found.push(format!("{}: {name} -> {other}", manifest(metadata, package)));
            }
        }
    }
    found
}

pub fn beyond_the_list(metadata: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (name, allowed) in LISTS {
        let Some(package) = ours(metadata).find(|p| text(p, "name") == *name) else {
            found.push(format!("{name}: no such crate in the workspace"));
            continue;
        };
        let file = manifest(metadata, package);
        for dependency in list(package, "dependencies").iter().filter(|d| text(d, "kind") != "dev") {
            let other = text(dependency, "name");
            if !allowed.contains(&other) {
                found.push(format!("{file}: {name} -> {other}: not on the list"));
            } else if dependency["uses_default_features"] == Value::Bool(true) && !dependency["path"].is_string() {
                found.push(format!("{file}: {name} -> {other}: default features are on"));
            }
        }
    }
    found
}

/// Each way from a crate to one of the names, through what is linked into it (no build scripts, no tests, not under cfg(madsim)).
pub fn reaches(metadata: &Value, from: &str, names: &[&str]) -> Vec<String> {
    let name_of: BTreeMap<&str, &str> = packages(metadata).iter().map(|p| (text(p, "id"), text(p, "name"))).collect();
    let edges: BTreeMap<&str, Vec<&str>> =
        list(&metadata["resolve"], "nodes").iter().map(|node| (text(node, "id"), linked(node))).collect();
    let Some((start, _)) = name_of.iter().find(|(_, name)| **name == from) else {
        return vec![format!("{from}: no such crate in the workspace")];
    };
    let mut found = Vec::new();
    let mut seen = BTreeSet::from([*start]);
    let mut open = vec![vec![*start]];
    while let Some(way) = open.pop() {
        for next in way.last().and_then(|id| edges.get(id)).into_iter().flatten() {
            if !seen.insert(next) {
                continue;
            }
            let way: Vec<&str> = way.iter().copied().chain([*next]).collect();
            if name_of.get(next).is_some_and(|name| names.contains(name)) {
                let shown: Vec<&str> = way.iter().map(|id| name_of[id]).collect();
                found.push(format!("sim/Cargo.toml: {}", shown.join(" -> ")));
            }
            open.push(way);
        }
    }
    found
}

fn linked(node: &Value) -> Vec<&str> {
    let normal = |kind: &Value| kind["kind"].is_null() && !text(kind, "target").contains("madsim");
    list(node, "deps").iter().filter(|d| list(d, "dep_kinds").iter().any(normal)).map(|d| text(d, "pkg")).collect()
}

/// Packages that come from git or from another registry, and banned ones.
pub fn strangers(metadata: &Value) -> Vec<String> {
    let public = format!("registry+https://github.com/rust-lang/crates.{}-index", "io");
    let mut found = Vec::new();
    for package in packages(metadata) {
        let (name, version) = (text(package, "name"), text(package, "version"));
        if let Some(source) = package["source"].as_str()
            && source != public
        {
            found.push(format!("Cargo.lock: {name} {version} comes from {source}"));
        }
        if let Some((_, why)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            found.push(format!("Cargo.lock: {name} {version} is banned: {why}"));
        }
    }
    found
}

/// The files where the libraries and programs of these packages begin, relative to the workspace.
pub fn crate_roots(metadata: &Value, names: &[&str]) -> Vec<String> {
    let root = format!("{}/", text(metadata, "workspace_root"));
    let linked = |target: &&Value| list(target, "kind").iter().any(|k| k == "lib" || k == "bin");
    ours(metadata)
        .filter(|p| names.contains(&text(p, "name")))
        .flat_map(|p| list(p, "targets").iter().filter(linked))
        .map(|target| text(target, "src_path").trim_start_matches(&root).to_owned())
        .collect()
}

mod bites {
    use super::*;
    use serde_json::json;

    /// A workspace of path packages, each with its dependencies: (name, kind, path?, target, default features).
    fn workspace(packages: &[(&str, Value)]) -> Value {
        let packages: Vec<Value> = packages
            .iter()
            .map(|(name, dependencies)| {
                json!({ "id": name, "name": name, "source": null, "manifest_path": format!("/w/{name}/Cargo.toml"), "dependencies": dependencies })
            })
            .collect();
        json!({ "workspace_root": "/w", "packages": packages })
    }

    fn of_ours(name: &str) -> Value {
        json!({ "name": name, "path": "/w/x", "kind": null, "target": null, "uses_default_features": true })
    }

    #[test]
    fn a_dependency_against_the_stream() {
        let good = workspace(&[("wukong-core", json!([of_ours("wukong-proto")])), ("wukong-proto", json!([]))]);
        assert!(wrong_way(&good).is_empty());
        let bad = workspace(&[("wukong-proto", json!([of_ours("wukong-core")])), ("wukong-odd", json!([]))]);
        assert_eq!(wrong_way(&bad).len(), 2);
        let mut dev = of_ours("wukong-runtime");
        dev["kind"] = json!("dev");
        assert_eq!(
            wrong_way(&workspace(&[("wukong-core", json!([dev]))])),
            ["wukong-core/Cargo.toml: wukong-core -> wukong-runtime"]
        );
    }

    #[test]
    fn the_simulator_sees_the_runtime_under_madsim_only() {
        let mut dependency = of_ours("wukong-runtime");
        assert_eq!(wrong_way(&workspace(&[("wukong-sim", json!([dependency]))])).len(), 1);
        dependency["target"] = json!("cfg(madsim)");
        assert!(wrong_way(&workspace(&[("wukong-sim", json!([dependency]))])).is_empty());
        assert_eq!(wrong_way(&workspace(&[("wukong-core", json!([dependency]))])).len(), 1);
    }

    #[test]
    fn a_dependency_beyond_the_list() {
        let dependency = |name: &str, kind: Value, default: bool| json!({ "name": name, "kind": kind, "uses_default_features": default });
        let core = json!([
            of_ours("wukong-proto"),
            dependency("bytes", Value::Null, false),
            dependency("slab", Value::Null, true),
            dependency("tokio", Value::Null, false),
            dependency("cc", json!("build"), false),
            dependency("proptest", json!("dev"), true),
        ]);
        let found = beyond_the_list(&workspace(&[("wukong-proto", json!([])), ("wukong-core", core)]));
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("slab: default features"), "{found:?}");
        assert!(found[1].contains("tokio: not on the list") && found[2].contains("cc: not on the list"), "{found:?}");
    }

    #[test]
    fn a_database_in_the_simulator() {
        let package = |id: &str| json!({ "id": id, "name": id, "source": "registry" });
        let node = |id: &str, to: &str, kind: Value, target: Value| json!({ "id": id, "deps": [{ "pkg": to, "dep_kinds": [{ "kind": kind, "target": target }] }] });
        let graph = |kind: Value, target: Value| {
            json!({
                "packages": [package("wukong-sim"), package("a"), package("rocksdb")],
                "resolve": { "nodes": [node("wukong-sim", "a", Value::Null, Value::Null), node("a", "rocksdb", kind, target)] }
            })
        };
        assert_eq!(
            reaches(&graph(Value::Null, Value::Null), "wukong-sim", NOT_IN_SIM),
            ["sim/Cargo.toml: wukong-sim -> a -> rocksdb"]
        );
        assert!(reaches(&graph(json!("dev"), Value::Null), "wukong-sim", NOT_IN_SIM).is_empty());
        assert!(reaches(&graph(json!("build"), Value::Null), "wukong-sim", NOT_IN_SIM).is_empty());
        assert!(reaches(&graph(Value::Null, json!("cfg(madsim)")), "wukong-sim", NOT_IN_SIM).is_empty());
        assert_eq!(reaches(&graph(Value::Null, Value::Null), "wukong-gone", NOT_IN_SIM).len(), 1);
    }

    #[test]
    fn a_stranger() {
        let package = |name: &str, source: Value| json!({ "name": name, "version": "1.0.0", "source": source });
        let public = format!("registry+https://github.com/rust-lang/crates.{}-index", "io");
        let metadata = json!({ "packages": [
            package("bytes", json!(public)),
            package("wukong-core", Value::Null),
            package("fork", json!("git+https://example.com/fork")),
            package("openssl-sys", json!(public)),
        ]});
        assert_eq!(strangers(&metadata).len(), 2);
    }

    #[test]
    fn programs_are_crate_roots_too() {
        let metadata = json!({ "workspace_root": "/w", "packages": [{ "name": "wukong-sim", "source": null, "targets": [
            { "kind": ["lib"], "src_path": "/w/sim/src/lib.rs" },
            { "kind": ["bin"], "src_path": "/w/sim/src/main.rs" },
            { "kind": ["test"], "src_path": "/w/sim/tests/t.rs" },
        ]}]});
        assert_eq!(crate_roots(&metadata, &["wukong-sim"]), ["sim/src/lib.rs", "sim/src/main.rs"]);
    }
}
