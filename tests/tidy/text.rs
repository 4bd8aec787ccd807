//! Rules on the text of files.

use super::source::code_of;
use super::tree::File;
use std::fmt;
use std::path::Path;

/// Listed.
pub const LONG: usize = 800;
/// Refused.
pub const TOO_LONG: usize = 1_000;

#[derive(Debug)]
pub struct Finding {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// Files with more lines than that, longest first.
pub fn longer_than(files: &[File], limit: usize) -> Vec<(String, usize)> {
    let mut long: Vec<(String, usize)> =
        files.iter().map(|f| (f.path.clone(), f.text.lines().count())).filter(|(_, lines)| *lines > limit).collect();
    long.sort_by_key(|(_, lines)| std::cmp::Reverse(*lines));
    long
}

pub fn unfinished(file: &File) -> Vec<Finding> {
    in_code(file, |line| {
        let spaceless: String = line.chars().filter(|c| !c.is_whitespace()).collect();
        ["todo!(", "unimplemented!(", "#[ignore"].into_iter().find(|mark| spaceless.contains(mark)).map(str::to_owned)
    })
}

/// Names of hash map types. The one file that defines the core's maps is exempt.
pub fn foreign_maps(file: &File) -> Vec<Finding> {
    if file.path == "core/src/map.rs" {
        return Vec::new();
    }
    in_code(file, |line| ["HashMap", "HashSet"].into_iter().find(|name| has_word(line, name)).map(str::to_owned))
}

/// std, or a clock under any name. `extern crate std` is for tests only.
pub fn impure(file: &File) -> Vec<Finding> {
    let mut before = String::new();
    in_code(file, move |line| {
        let for_tests = line.contains("cfg(test)") || before.contains("cfg(test)");
        if !line.trim().is_empty() {
            before = line.to_owned();
        }
        ["std::", "Instant::now", "SystemTime"]
            .into_iter()
            .find(|name| has_word(line, name))
            .or_else(|| {
                (line.contains("extern crate std") && !for_tests).then_some("extern crate std outside cfg(test)")
            })
            .map(str::to_owned)
    })
}

pub fn lacks_forbid_unsafe(file: &File) -> Option<Finding> {
    let code: String = code_of(&file.text).chars().filter(|c| !c.is_whitespace()).collect();
    (!code.contains("#![forbid(unsafe_code)]")).then(|| Finding {
        file: file.path.clone(),
        line: 1,
        what: "no #![forbid(unsafe_code)]".to_owned(),
    })
}

/// What no file may contain. Written in pieces, because this file is checked too.
pub fn machine_patterns(root: &Path) -> Vec<String> {
    let mut patterns: Vec<String> = ["root", "home", "work", "Users"]
        .into_iter()
        .map(|folder| format!("/{folder}/"))
        .chain(registry_hosts())
        .collect();
    let own = [Some(root.to_path_buf()), std::env::var_os("HOME").map(Into::into)];
    patterns.extend(own.into_iter().flatten().map(|p| format!("{}/", p.display())).filter(|p| p.len() > 3));
    patterns
}

fn registry_hosts() -> impl Iterator<Item = String> {
    [
        ("crates", "io"),
        ("registry.npmjs", "org"),
        ("pypi", "org"),
        ("files.pythonhosted", "org"),
        ("proxy.golang", "org"),
        ("repo1.maven", "org"),
        ("repo.maven.apache", "org"),
        ("deb.debian", "org"),
    ]
    .into_iter()
    .map(|(host, top)| format!("{host}.{top}"))
}

pub fn machine_names(file: &File, patterns: &[String]) -> Vec<Finding> {
    let hit = |line: &str| {
        // Cargo writes its registry's name into the lock file; that cannot be turned off.
        if file.path.ends_with("Cargo.lock") && line.starts_with("source = \"registry+") {
            return None;
        }
        patterns.iter().find(|p| begins_somewhere(line, p)).cloned()
    };
    in_text(&file.path, &file.text, hit)
}

/// A folder is only meant where the path starts with it, not as a part of a longer path or of an address.
fn begins_somewhere(line: &str, pattern: &str) -> bool {
    let continues = |c: char| c.is_alphanumeric() || "_.~-/}*)>]".contains(c);
    line.match_indices(pattern).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let alone = !pattern.starts_with('/') || !before.is_some_and(continues);
        // `file:` and `//` before a path do not make it another one.
        alone || line[..at].ends_with("file://")
    })
}

/// The word, not as a part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c == '_' || c.is_alphanumeric();
    line.match_indices(word).any(|(at, _)| {
        let behind = line[at + word.len()..].chars().next();
        !line[..at].chars().next_back().is_some_and(part) && (word.ends_with("::") || !behind.is_some_and(part))
    })
}

fn in_code(file: &File, hit: impl FnMut(&str) -> Option<String>) -> Vec<Finding> {
    in_text(&file.path, &code_of(&file.text), hit)
}

fn in_text(path: &str, text: &str, mut hit: impl FnMut(&str) -> Option<String>) -> Vec<Finding> {
    let found = |(n, line)| hit(line).map(|what| Finding { file: path.to_owned(), line: n + 1, what });
    text.lines().enumerate().filter_map(found).collect()
}

mod bites {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().map(|f| f.line).collect()
    }

    #[test]
    fn length() {
        let files = [file("short.rs", "x\n"), file("a.rs", &"x\n".repeat(801)), file("b.rs", &"x\n".repeat(1_001))];
        assert_eq!(longer_than(&files, LONG), [("b.rs".to_owned(), 1_001), ("a.rs".to_owned(), 801)]);
        assert_eq!(longer_than(&files, TOO_LONG).len(), 1);
    }

    #[test]
    fn open_ends() {
        let bad = "fn a() {\n    todo!()\n}\nfn b() { unimplemented! (\"later\") }\n#[ ignore = \"slow\" ]\nfn c() {}\n#[ignore]";
        assert_eq!(lines(&unfinished(&file("x.rs", bad))), [2, 4, 5, 7]);
        assert!(unfinished(&file("x.rs", "// todo!() was here\nlet s = \"#[ignore]\"; ignored();")).is_empty());
    }

    #[test]
    fn maps() {
        let bad = "use hashbrown::HashMap;\ntype T = hashbrown::hash_set::HashSet<u8>;\nfn f(m: std::collections::HashMap<u8, u8>) {}";
        assert_eq!(lines(&foreign_maps(&file("core/src/x.rs", bad))), [1, 2, 3]);
        assert!(foreign_maps(&file("core/src/map.rs", bad)).is_empty());
        assert!(foreign_maps(&file("core/src/x.rs", "// a HashMap<\nuse crate::Map; struct HashMapLike;")).is_empty());
    }

    #[test]
    fn purity() {
        let bad = "use std::fmt;\nlet t = Instant::now();\nlet s: SystemTime;\nfn f() -> ::std::string::String {}\nextern crate std;";
        assert_eq!(lines(&impure(&file("core/src/x.rs", bad))), [1, 2, 3, 4, 5]);
        let good = "use core::fmt;\nlet t = now.Instant;\nmy_std::f();\n//! std::fmt\n#[cfg(test)]\nextern crate std;";
        assert!(impure(&file("core/src/x.rs", good)).is_empty());
    }

    #[test]
    fn unsafe_code() {
        assert!(lacks_forbid_unsafe(&file("lib.rs", "#![no_std]\n#![deny(unsafe_code)]")).is_some());
        assert!(lacks_forbid_unsafe(&file("lib.rs", "// #![forbid(unsafe_code)]")).is_some());
        assert!(lacks_forbid_unsafe(&file("lib.rs", "//! Doc.\n#![forbid(unsafe_code)]")).is_none());
    }

    #[test]
    fn machines() {
        let patterns = machine_patterns(Path::new("/srv/checkout"));
        let place = |folder: &str| format!("/{folder}/me/tree");
        let bad = [
            place("home"),
            format!("let p = \"{}\";", place("work")),
            format!("cd {} && make", place("root")),
            format!("file://{}", place("Users")),
            "/srv/checkout/core".to_owned(),
            format!("\"resolved\": \"https://registry.npmjs.{}/x.tgz\"", "org"),
            format!("source = \"registry+https://github.com/rust-lang/crates.{}-index\"", "io"),
        ]
        .join("\n");
        assert_eq!(lines(&machine_names(&file("docs/x.md", &bad), &patterns)), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(lines(&machine_names(&file("fuzz/Cargo.lock", &bad), &patterns)), [1, 2, 3, 4, 5, 6]);
        let good = format!(
            "$HOME/.cache\n~/x\n$DIR{}\nexample.com{}\n#!/usr/bin/env bash\nnet{}",
            place("home"),
            place("work"),
            place("work")
        );
        assert!(machine_names(&file("docs/x.md", &good), &patterns).is_empty());
    }
}
