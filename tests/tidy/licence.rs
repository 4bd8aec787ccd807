//! Licences of everything that is built here, from the SPDX expression that each package declares.
//!
//! `deny.toml` says the same to cargo-deny, which has to be installed; this needs nothing.

use serde_json::Value;

/// All permissive, none asks for more than its notice. Keep equal to `deny.toml` (a test compares them).
pub const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

pub fn not_allowed(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let complaint = |package: &Value| {
        let name =
            format!("{} {}", package["name"].as_str().unwrap_or("?"), package["version"].as_str().unwrap_or("?"));
        match package["license"].as_str() {
            None => Some(format!("{name}: declares no licence expression")),
            Some(expression) => match permits(expression) {
                Some(true) => None,
                Some(false) => Some(format!("{name}: {expression}")),
                None => Some(format!("{name}: not an SPDX expression: {expression}")),
            },
        }
    };
    packages.iter().filter_map(complaint).collect()
}

/// Whether the list satisfies the expression; None when it cannot be read.
fn permits(expression: &str) -> Option<bool> {
    // Cargo's old way of writing OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let value = any_of(&mut rest)?;
    rest.is_empty().then_some(value)
}

fn any_of(words: &mut &[&str]) -> Option<bool> {
    let mut value = all_of(words)?;
    while take(words, "OR") {
        value |= all_of(words)?;
    }
    Some(value)
}

fn all_of(words: &mut &[&str]) -> Option<bool> {
    let mut value = one(words)?;
    while take(words, "AND") {
        value &= one(words)?;
    }
    Some(value)
}

fn one(words: &mut &[&str]) -> Option<bool> {
    if take(words, "(") {
        let value = any_of(words)?;
        return take(words, ")").then_some(value);
    }
    let name = next(words)?;
    if matches!(name, "OR" | "AND" | "WITH" | ")") {
        return None;
    }
    if take(words, "WITH") {
        // An exception only adds permissions, so the licence alone is enough too.
        let full = format!("{name} WITH {}", next(words)?);
        return Some(ALLOWED.contains(&full.as_str()) || ALLOWED.contains(&name));
    }
    Some(ALLOWED.contains(&name))
}

fn next<'a>(words: &mut &[&'a str]) -> Option<&'a str> {
    let (first, rest) = words.split_first()?;
    *words = rest;
    Some(first)
}

fn take(words: &mut &[&str], word: &str) -> bool {
    let here = words.first() == Some(&word);
    if here {
        *words = &words[1..];
    }
    here
}

mod bites {
    use super::*;
    use serde_json::json;

    #[test]
    fn expressions() {
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "(MIT OR GPL-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert_eq!(permits(good), Some(true), "{good}");
        }
        for bad in [
            "GPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "(MIT OR ISC) AND AGPL-3.0",
            "GPL-2.0 WITH Classpath-exception-2.0",
            "mit",
        ] {
            assert_eq!(permits(bad), Some(false), "{bad}");
        }
        for unreadable in ["", "MIT OR", "(MIT", "MIT Apache-2.0", "AND MIT"] {
            assert_eq!(permits(unreadable), None, "{unreadable}");
        }
    }

    #[test]
    fn packages() {
        let package = |name: &str, licence: Value| json!({ "name": name, "version": "1.0.0", "license": licence });
        let metadata = json!({ "packages": [package("a", json!("MIT")), package("b", json!("GPL-3.0-only")), package("c", Value::Null)] });
        assert_eq!(not_allowed(&metadata), ["b 1.0.0: GPL-3.0-only", "c 1.0.0: declares no licence expression"]);
    }

    /// Two places say which licences are allowed; they may not drift apart.
    #[test]
    fn deny_toml_has_the_same_list() {
        let deny = super::super::tree::read("deny.toml").text;
        let list = deny
            .split_once("allow = [")
            .and_then(|(_, rest)| rest.split_once(']'))
            .expect("deny.toml has an allow list")
            .0;
        let names: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
        assert_eq!(names, ALLOWED, "make deny.toml and tests/tidy/licence.rs say the same");
    }
}
