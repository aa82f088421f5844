//! The fence around `unsafe`: only tensor memory and the kernels, every use with its reason.

mod source;

use source::{SourceFile, sources};

fn inside_the_fence(file: &SourceFile) -> bool {
    file.path == "tensor/buffer.rs" || file.path.starts_with("kernels/")
}

/// Lines on which the keyword stands, with the text after it.
fn uses(file: &SourceFile) -> Vec<(usize, &str)> {
    let word = |c: char| c == '_' || c.is_alphanumeric();
    let starts = file.code.match_indices("unsafe").filter(|&(at, keyword)| {
        !file.code[..at].ends_with(word) && !file.code[at + keyword.len()..].starts_with(word)
    });
    starts.map(|(at, keyword)| (file.line(at), file.code[at + keyword.len()..].trim_start())).collect()
}

#[test]
fn unsafe_stays_inside_the_fence() {
    let outside: Vec<String> = sources()
        .iter()
        .filter(|file| !inside_the_fence(file))
        .flat_map(|file| uses(file).into_iter().map(|(line, _)| format!("src/{}:{line}", file.path)))
        .collect();
    assert!(outside.is_empty(), "unsafe outside tensor/buffer.rs and kernels/:\n{}", outside.join("\n"));
}

/// `#![forbid(unsafe_code)]` covers the modules below the one it stands in.
#[test]
fn everything_else_forbids_unsafe_code() {
    let files = sources();
    let forbids: Vec<String> = files
        .iter()
        .filter(|file| file.code.contains("#![forbid(unsafe_code)]"))
        .map(|file| file.module().join("::"))
        .collect();
    let covered = |file: &SourceFile| {
        let module = file.module();
        (1..=module.len()).any(|depth| forbids.contains(&module[..depth].join("::")))
    };
    // A parent of `buffer` and the crate root cannot forbid what they contain.
    let parents = ["lib.rs", "tensor/mod.rs"];
    let bare: Vec<&str> = files
        .iter()
        .filter(|file| !inside_the_fence(file) && !parents.contains(&file.path.as_str()) && !covered(file))
        .map(|file| file.path.as_str())
        .collect();
    assert!(bare.is_empty(), "no #![forbid(unsafe_code)] over: {bare:?}");
}

#[test]
fn every_unsafe_block_says_why() {
    let mut silent = Vec::new();
    for file in sources().iter().filter(|file| inside_the_fence(file)) {
        let lines: Vec<&str> = file.text.lines().collect();
        for (line, after) in uses(file) {
            if !(after.starts_with('{') || after.starts_with("impl")) {
                continue;
            }
            // The statement that holds the block may begin a few lines above it.
            let near = &lines[line.saturating_sub(12)..line];
            if !near.iter().any(|line| line.contains("SAFETY:") || line.contains("# Safety")) {
                silent.push(format!("src/{}:{line}", file.path));
            }
        }
    }
    assert!(silent.is_empty(), "unsafe without a SAFETY comment:\n{}", silent.join("\n"));
}
