//! Graph to graph: each pass is a small file that keeps the meaning of the outputs.
//!
//! Importers [`simplify`] what they made. A backend that runs on kernels goes through `optimize` when it compiles:
//! constants are folded, transposes are moved until they meet and vanish, patterns become the operators that they
//! spell out, and what follows a product or a convolution is computed where it is stored.

mod activations;
mod affine;
mod attention;
mod clean;
mod common;
mod edit;
mod epilogue;
mod fold;
mod groups;
mod inverted_residual;
mod layer_norm;
mod layout;
mod merged;
mod narrow;
mod pad;
mod parts;
mod quantized;
mod scale_shift;
mod shapes;
mod softmax;
mod squeeze_excite;
mod widen;

pub use clean::clean;
pub use narrow::{Narrow, narrow_weights};

use super::{Graph, evaluate::Machine};

/// What every importer's graph goes through: the same operators, without those that do nothing.
pub fn simplify(graph: Graph) -> Graph {
    clean(graph)
}

/// What a graph goes through for a backend that has no kernels of this crate.
#[cfg(feature = "candle")]
pub(super) fn fold_and_clean(graph: Graph, machine: &Machine<'_>) -> Graph {
    clean(fold::fold_constants(clean(graph), machine))
}

/// What a graph goes through before it is planned for kernels.
pub(super) fn optimize(graph: Graph, machine: &Machine<'_>) -> Graph {
    let graph = clean(common::share_common(fold::fold_constants(clean(graph), machine)));
    let coded = quantized::is_quantized(&graph);
    let graph = clean(layer_norm::find_layer_norms(activations::find_activations(graph), machine));
    let graph = merged::take_apart_merged(groups::state_groups(graph, machine), machine);
    let graph = clean(parts::fold_channels(graph, machine));
    let mut graph = clean(layout::sink_transposes(graph, machine));
    if coded {
        graph = quantized::find_quantized(graph, machine);
        graph = clean(fold::fold_all_constants(graph, machine));
    }
    let graph = clean(parts::join_parts(graph, machine));
    let graph = clean(softmax::find_softmax(graph, machine));
    let graph = clean(attention::find_attention(graph, machine));
    let graph = pad::fuse_pads(affine::fuse_affine(graph, machine));
    let graph = clean(epilogue::fuse_epilogues(graph, machine));
    let graph = clean(scale_shift::join_scale_shift(graph, machine));
    let graph = clean(squeeze_excite::fuse_squeeze_excite(graph, machine));
    clean(inverted_residual::join_inverted_residuals(graph, machine))
}
