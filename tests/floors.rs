//! The floors of docs/ARCHITECTURE.md: a file may use only what stands on a floor below its own.

mod source;

use source::{SourceFile, sources};

/// From the ground up; modules on one floor do not know each other.
const FLOORS: &[&[&str]] = &[
    &["tensor", "proto", "wire", "maps"],
    &["kernels"],
    &["ops"],
    &["graph"],
    &["formats"],
    &["models"],
    &["api", "cli"],
    &["server"],
    &["main"],
];

/// The wire knows no model and no model knows the wire: they meet here.
const MAY_USE_WIRE: &[&str] = &["wire", "api", "server", "main"];

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

#[test]
fn imports_point_downwards() {
    let mut violations = Vec::new();
    for file in sources() {
        let Some(own) = file.module().first().map(|module| (*module).to_owned()) else { continue };
        let Some(own_floor) = floor(&own) else {
            violations.push(format!("src/{}: module `{own}` stands on no floor", file.path));
            continue;
        };
        for (line, used) in used_modules(&file) {
            let Some(used_floor) = floor(&used).filter(|_| used != own) else { continue };
            let wire = used == "wire" && !MAY_USE_WIRE.contains(&own.as_str());
            if used_floor >= own_floor || wire {
                violations.push(format!("src/{}:{line}: `{own}` uses `{used}`", file.path));
            }
        }
    }
    assert!(violations.is_empty(), "imports that do not point downwards:\n{}", violations.join("\n"));
}

/// Top-level modules named by `crate::` paths, or by `super::` paths that reach the crate root.
fn used_modules(file: &SourceFile) -> Vec<(usize, String)> {
    let to_root = "super::".repeat(file.module().len());
    let mut used = Vec::new();
    for prefix in ["crate::", "kinglet::", to_root.as_str()] {
        for (at, _) in file.code.match_indices(prefix).filter(|_| !prefix.is_empty()) {
            let before = file.code[..at].chars().next_back();
            let continues = before.is_some_and(|c| c == '_' || c.is_alphanumeric());
            if continues || (prefix.starts_with("super") && file.code[..at].ends_with("super::")) {
                continue;
            }
            let start = at + prefix.len();
            for (offset, name) in first_segments(&file.code[start..]) {
                used.push((file.line(start + offset), name));
            }
        }
    }
    used
}

/// The first segment of a path, or of each path in a group.
fn first_segments(rest: &str) -> Vec<(usize, String)> {
    let word =
        |text: &str| -> String { text.chars().take_while(|&c| c == '_' || c.is_alphanumeric()).collect() };
    if !rest.starts_with('{') {
        return vec![(0, word(rest))];
    }
    let mut segments = Vec::new();
    let (mut depth, mut expect) = (0, false);
    for (at, c) in rest.char_indices() {
        match c {
            '{' => {
                depth += 1;
                expect = depth == 1;
            }
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' => expect = depth == 1,
            c if expect && !c.is_whitespace() => {
                segments.push((at, word(&rest[at..])));
                expect = false;
            }
            _ => {}
        }
    }
    segments
}

#[test]
fn the_reader_finds_every_kind_of_path() {
    let text = r#"
use crate::tensor::Tensor;
use crate::{graph::{Graph, Node}, ops};
// use crate::server;
const TEXT: &str = "crate::cli";
fn f<'a>(x: &'a crate::kernels::Kernels) -> super::super::wire::Headers {}
use super::sibling;
"#;
    let code = source::blank_comments_and_literals(text);
    let file = SourceFile { path: "ops/unary.rs".into(), text: text.into(), code };
    let found = used_modules(&file);
    let expected = [(2, "tensor"), (3, "graph"), (3, "ops"), (6, "kernels"), (6, "wire")];
    assert_eq!(found, expected.map(|(line, name)| (line, name.to_owned())));
}
