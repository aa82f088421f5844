//! docs/OPERATORS.md lists what the importers' tables have.

use std::{env, fs, path::Path};

#[test]
fn the_list_of_operators_is_current() {
    let mut text = String::from(
        "# Operators\n\nGenerated from the importers' tables by `KINGLET_UPDATE=1 cargo test --test operators`; \
         a model with any other\noperator fails to load with the list of all that are missing.\n\n\
         ## SavedModel\n\n",
    );
    for name in kinglet::formats::saved_model::operator_names() {
        text.push_str(&format!("- `{name}`\n"));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATORS.md");
    if env::var_os("KINGLET_UPDATE").is_some() {
        fs::write(&path, &text).expect("docs/ can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "docs/OPERATORS.md is not current; run KINGLET_UPDATE=1 cargo test --test operators"
    );
}
