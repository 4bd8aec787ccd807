//! Rust source with comments and the insides of literals blanked out, so that rules look at code only.

/// The same text, line for line and column for column (in characters), with everything that is not code replaced by spaces.
/// The quotes of literals stay.
pub fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out: Vec<char> = chars.iter().map(|&c| if c == '\n' { '\n' } else { ' ' }).collect();
    let mut at = 0;
    while at < chars.len() {
        let end = skip(&chars, at);
        if end == at {
            out[at] = chars[at];
            at += 1;
        } else {
            if !matches!(chars[at], '/') {
                out[at] = chars[at];
                out[end - 1] = chars[end - 1];
            }
            at = end;
        }
    }
    out.into_iter().collect()
}

/// Where the comment or literal that starts here ends; `at` itself when none starts here.
fn skip(chars: &[char], at: usize) -> usize {
    let get = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let in_word = at > 0 && is_word(get(at - 1));
    match get(at) {
        '/' if get(at + 1) == '/' => line_end(chars, at),
        '/' if get(at + 1) == '*' => block_end(chars, at),
        '"' => string_end(chars, at + 1),
        'b' | 'c' if !in_word && get(at + 1) == '"' => string_end(chars, at + 2),
        'b' if !in_word && get(at + 1) == '\'' => char_end(chars, at + 1).unwrap_or(at),
        'r' if !in_word => raw_end(chars, at + 1).unwrap_or(at),
        'b' | 'c' if !in_word && get(at + 1) == 'r' => raw_end(chars, at + 2).unwrap_or(at),
        '\'' => char_end(chars, at).unwrap_or(at),
        _ => at,
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn line_end(chars: &[char], at: usize) -> usize {
    chars[at..].iter().position(|&c| c == '\n').map_or(chars.len(), |n| at + n)
}

/// Block comments nest.
fn block_end(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// `at` is behind the `r`. None when this is a word, or a raw identifier.
fn raw_end(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at..].iter().take_while(|&&c| c == '#').count();
    if chars.get(at + hashes) != Some(&'"') {
        return None;
    }
    let mut end = at + hashes + 1;
    while end < chars.len() {
        if chars[end] == '"' && chars[end + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes {
            return Some(end + 1 + hashes);
        }
        end += 1;
    }
    Some(chars.len())
}

/// None for a lifetime.
fn char_end(chars: &[char], at: usize) -> Option<usize> {
    if chars.get(at + 1) == Some(&'\\') {
        // Behind the escaped character, which may itself be a quote; \u{..} and \x.. run up to the next quote.
        return chars[at + 3..].iter().position(|&c| c == '\'').map(|n| at + 3 + n + 1);
    }
    (chars.get(at + 2) == Some(&'\'')).then_some(at + 3)
}

mod bites {
    use super::code_of;

    /// The needle is code in the first, and not in the others.
    #[test]
    fn code_is_told_from_what_only_looks_like_it() {
        assert!(code_of("fn f() { NEEDLE }").contains("NEEDLE"));
        for text in [
            "// NEEDLE",
            "/// NEEDLE",
            "/* a /* b */ NEEDLE */",
            "let s = \"NEEDLE\";",
            "let s = \"\\\"NEEDLE\";",
            "let s = r#\"a\" NEEDLE\"#;",
            "let s = br\"NEEDLE\";",
            "let s = b\"NEEDLE\";",
        ] {
            assert!(!code_of(text).contains("NEEDLE"), "{text}");
        }
    }

    #[test]
    fn code_behind_a_literal_is_still_code() {
        for text in [
            "let s = \"//\"; NEEDLE",
            "let c = '\"'; NEEDLE; let d = '\"';",
            "let c = '\\''; NEEDLE",
            "let c = '\\u{1F600}'; NEEDLE",
            "let c = b'\"'; NEEDLE",
            "fn f<'a>(x: &'a str) { NEEDLE }",
            "let r#type = 1; NEEDLE",
            "let s = r\"\\\"; NEEDLE",
            "let bar = number\n/* x */ NEEDLE",
        ] {
            assert!(code_of(text).contains("NEEDLE"), "{text}");
        }
    }

    #[test]
    fn lines_and_columns_stay() {
        let text = "a /* x\ny */ b // c\n\"d\ne\" f";
        let code = code_of(text);
        assert_eq!(code.lines().count(), text.lines().count());
        assert_eq!(code.find('b'), text.find('b'));
        assert_eq!(code.lines().nth(3).and_then(|l| l.find('f')), Some(3));
    }
}
