//! Graph to graph: each pass is a small function that keeps the meaning of the outputs.

mod clean;

pub use clean::clean;

use super::Graph;

/// What every importer's graph goes through before it is compiled.
pub fn simplify(graph: Graph) -> Graph {
    clean(graph)
}
