//! The crate's own source text, for tests about its structure.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One file under `src/`.
pub(crate) struct SourceFile {
    /// Path below `src/`, as in `ops/unary.rs`.
    pub(crate) path: String,
    /// The file as it is.
    pub(crate) text: String,
    /// The same lines with comments, literals and test modules blanked out.
    pub(crate) code: String,
}

impl SourceFile {
    /// The module path, as in `["ops", "unary"]`; empty for the crate root.
    pub(crate) fn module(&self) -> Vec<&str> {
        let path = self.path.trim_end_matches(".rs");
        let path = path.strip_suffix("/mod").unwrap_or(path);
        if path == "lib" { Vec::new() } else { path.split('/').collect() }
    }

    /// 1-based number of the line that holds byte `offset` of `code`.
    #[allow(dead_code, reason = "each test binary uses a part of this module")]
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.code[..offset].matches('\n').count() + 1
    }
}

/// Every file under `src/` that is not test code only.
pub(crate) fn sources() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let below = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let code = blank_tests(blank_comments_and_literals(&text));
        SourceFile { path: below, text, code }
    };
    let files: Vec<SourceFile> = paths.iter().map(read).collect();
    let test_only = test_only_modules(&files);
    assert!(files.len() > 10, "src/ was not found");
    files.into_iter().filter(|file| !test_only.contains(&file.module().join("::"))).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// Modules declared as `#[cfg(test)] mod name;`.
fn test_only_modules(files: &[SourceFile]) -> Vec<String> {
    let mut names = Vec::new();
    for file in files {
        for (position, attribute) in file.text.match_indices("#[cfg(test)]") {
            let declaration =
                file.text[position + attribute.len()..].lines().find(|line| !line.trim().is_empty());
            let Some(declaration) = declaration.and_then(|line| line.trim().strip_suffix(';')) else {
                continue;
            };
            if let Some((_, name)) = declaration.rsplit_once("mod ") {
                let mut module = file.module();
                module.push(name);
                names.push(module.join("::"));
            }
        }
    }
    names
}

/// Replaces comments and the contents of string and character literals by blanks; newlines stay.
pub(crate) fn blank_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + token_length(&text[at..], at > 0 && is_word(bytes[at - 1]));
        let blank = bytes[at..].starts_with(b"//")
            || bytes[at..].starts_with(b"/*")
            || (end > at + 1 && matches!(bytes[end - 1], b'"' | b'\'' | b'#') && opens_literal(&text[at..]));
        if blank {
            out[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        }
        at = end;
    }
    String::from_utf8(out).unwrap()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn opens_literal(rest: &str) -> bool {
    let rest = rest.trim_start_matches(['b', 'c']);
    rest.starts_with(['"', '\'']) || rest.strip_prefix('r').is_some_and(|rest| rest.starts_with(['"', '#']))
}

/// Length of the comment or literal at the start of `rest`, or of one character.
fn token_length(rest: &str, within_word: bool) -> usize {
    let one = rest.chars().next().map_or(1, char::len_utf8);
    let until =
        |from: usize, end: &str| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return until(2, "*/");
    }
    if within_word || !opens_literal(rest) {
        return one;
    }
    let prefix = rest.len() - rest.trim_start_matches(['b', 'c']).len();
    let body = &rest[prefix..];
    if let Some(raw) = body.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        // `r#name` is an identifier.
        if !raw[hashes..].starts_with('"') {
            return one;
        }
        return until(prefix + 2 + hashes, &format!("\"{}", "#".repeat(hashes)));
    }
    if body.starts_with('\'') {
        return prefix + character_length(body);
    }
    let mut escaped = false;
    for (at, c) in body.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return prefix + at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Length of a character literal, 1 for the quote of a lifetime.
fn character_length(body: &str) -> usize {
    let mut chars = body.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((after, _))) => {
            let end = after + body[after..].chars().next().map_or(1, char::len_utf8);
            body[end..].find('\'').map_or(1, |at| end + at + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// Blanks the items under `#[cfg(test)]`.
fn blank_tests(mut code: String) -> String {
    while let Some(start) = code.find("#[cfg(test)]") {
        let body = code[start..].find(['{', ';']).map_or(code.len(), |at| start + at);
        let end = if code[body..].starts_with('{') { matching_brace(&code, body) } else { body + 1 };
        let blank: String = code[start..end.min(code.len())].chars().filter(|&c| c == '\n').collect();
        // Line numbers after the item must stay; columns and offsets need not.
        code.replace_range(start..end.min(code.len()), &blank);
    }
    code
}

fn matching_brace(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (at, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return open + at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}
