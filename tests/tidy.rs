//! The rules of the tree. Each is one test here, one checking function beside it, and one test that the function bites.
//!
//! They read source text and `cargo metadata`; nothing is compiled or run. `make tidy` runs them alone.

#[path = "tidy/graph.rs"]
mod graph;
#[path = "tidy/licence.rs"]
mod licence;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/text.rs"]
mod text;
#[path = "tidy/tree.rs"]
mod tree;

use std::fmt::Display;

/// Fails with one line per finding and what to do about them.
fn assert_clean<F: Display>(rule: &str, remedy: &str, findings: &[F]) {
    let list: String = findings.iter().map(|f| format!("  {f}\n")).collect();
    assert!(findings.is_empty(), "\n{rule}\n{list}Remedy: {remedy}\n");
}

#[test]
fn files_stay_short() {
    let files = tree::rust_files("");
    for (path, lines) in text::longer_than(&files, text::LONG) {
        println!("long: {path}: {lines} lines");
    }
    let too_long: Vec<String> = text::longer_than(&files, text::TOO_LONG)
        .into_iter()
        .map(|(path, lines)| format!("{path}:{lines}: the last line"))
        .collect();
    assert_clean(
        "A source file is longer than 1,000 lines.",
        "split it where one sentence no longer says what the file is for; near 400 lines is the aim.",
        &too_long,
    );
}

#[test]
fn nothing_is_left_open() {
    assert_clean(
        "Unfinished code or a test that never runs.",
        "finish it, or take it out and write the gap down in docs/roadmap.md; a test that cannot pass is not committed.",
        &tree::rust_files("").iter().flat_map(text::unfinished).collect::<Vec<_>>(),
    );
}

#[test]
fn no_machine_is_named() {
    let patterns = text::machine_patterns(&tree::root());
    assert_clean(
        "A file names a folder of one machine or the host of a package registry.",
        "use a path relative to the tree, $HOME or a variable; name a package, not the host it comes from \
         (npm: `npm install --omit-lockfile-registry-resolved`).",
        &tree::text_files().iter().flat_map(|f| text::machine_names(f, &patterns)).collect::<Vec<_>>(),
    );
}

#[test]
fn pure_crates_forbid_unsafe() {
    let roots = graph::crate_roots(tree::metadata(), &["wukong-core", "wukong-proto", "wukong-sim"]);
    assert!(roots.len() >= 3, "core, proto and sim have a crate root each; found {roots:?}");
    assert_clean(
        "A crate root lacks #![forbid(unsafe_code)].",
        "put the attribute at the top of that file; core, proto and sim need no unsafe code.",
        &roots.iter().filter_map(|path| text::lacks_forbid_unsafe(&tree::read(path))).collect::<Vec<_>>(),
    );
}

#[test]
fn core_has_no_map_but_its_own() {
    assert_clean(
        "Core names a hash map type outside the file that defines its maps.",
        "use crate::map::{Map, Set} (seeded, for lookup) or BTreeMap (ordered, for iteration).",
        &tree::rust_files("core/src/").iter().flat_map(text::foreign_maps).collect::<Vec<_>>(),
    );
}

#[test]
fn core_knows_no_std_and_no_clock() {
    assert_clean(
        "Core reaches for std or a clock.",
        "use core:: or alloc::; time, entropy and IO are inputs of the shard (crate::time, crate::rng).",
        &tree::rust_files("core/src/").iter().flat_map(text::impure).collect::<Vec<_>>(),
    );
}

#[test]
fn shell_scripts_parse() {
    let scripts: Vec<String> =
        tree::text_files().iter().filter(|f| f.is_shell_script()).map(|f| f.path.clone()).collect();
    assert!(!scripts.is_empty(), "scripts/*.sh and .ci/run exist, so the search is wrong");
    assert_clean("A shell script does not parse.", "`bash -n FILE` shows where.", &tree::unparsable_scripts(&scripts));
}

#[test]
fn dependencies_run_one_way() {
    assert_clean(
        "A crate of ours depends on one that it must not know.",
        "proto <- core <- runtime <- {tests, benches}; sim -> core, and -> runtime only under cfg(madsim); fuzz -> core, proto. \
         Move the code to the crate where both can reach it.",
        &graph::wrong_way(tree::metadata())
            .into_iter()
            .chain(tree::outside_manifests().iter().flat_map(graph::wrong_way))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn core_and_proto_depend_on_the_list_only() {
    assert_clean(
        "A direct dependency of core or proto is not on the list, or has its default features on.",
        "do without it. If it must be: it needs no_std and default-features = false, a line in tests/tidy/graph.rs and a reason in the commit.",
        &graph::beyond_the_list(tree::metadata()),
    );
}

#[test]
fn the_simulator_holds_no_database_and_no_executor() {
    assert_clean(
        "rocksdb or tokio is in the simulator's dependency graph.",
        "the simulator drives the pure core; what needs them belongs to runtime, or under cfg(madsim) as tier B.",
        &graph::reaches(tree::metadata(), "wukong-sim", graph::NOT_IN_SIM),
    );
}

#[test]
fn third_party_licences_are_on_the_list() {
    assert_clean(
        "A dependency's licence is not one we have agreed to.",
        "choose another crate, or add the licence to tests/tidy/licence.rs and deny.toml after reading it.",
        &licence::not_allowed(tree::metadata()),
    );
}

#[test]
fn third_party_crates_come_from_the_registry() {
    assert_clean(
        "A dependency comes from somewhere else than the package registry, or is banned.",
        "use a published version; what is banned and why stands in tests/tidy/graph.rs and deny.toml.",
        &graph::strangers(tree::metadata()),
    );
}
