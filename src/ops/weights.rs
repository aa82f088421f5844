//! Constant factors of products and convolutions: how they lie in memory or in a file, and how kernels get them packed.

use super::{Lower, Op, OpError, conv::Conv};
use crate::{
    kernels::{BLayout, Conv2d, Filter, FilterOrder, Kernels, PackedB, PackedConv, PanelWidth, StoredFilter},
    tensor::{Buffer, Tensor, computed::Panels},
};

/// The weights `[spatial.., depth, out]` of a convolution for these kernels: panels of a model's file where they fit.
pub(super) fn packed_conv(
    cx: &Lower<'_>,
    conv: &Conv2d,
    weights: &Tensor,
    bias: Option<&[f32]>,
) -> Result<PackedConv, OpError> {
    if let Some(panels) = panels(weights)
        && let Some(packed) = used(panels, PackedConv::of_panels(cx.kernels, conv, panels, bias)?)
    {
        return Ok(packed);
    }
    Ok(PackedConv::pack_stored(cx.kernels, conv, stored_filter(weights), bias, cx.threads)?)
}

/// The same for the second matrix of a product, `[k, n]`.
pub(super) fn packed_matrix(
    cx: &Lower<'_>,
    [k, n]: [usize; 2],
    weights: &Tensor,
    layout: BLayout,
    bias: Option<&[f32]>,
) -> Result<PackedB, OpError> {
    let transposed = layout == BLayout::RowMajorNxK;
    if let Some(panels) = panels(weights)
        && (panels.k, panels.n, panels.transposed) == (k, n, transposed)
        && let Some(packed) = used(panels, PackedB::of_panels(cx.kernels, panels, bias)?)
    {
        return Ok(packed);
    }
    let (b, layout) = stored_matrix(weights, layout);
    Ok(PackedB::pack_stored(cx.kernels, k, n, b, layout, bias, cx.threads)?)
}

/// The panels that weights are stored in, if nothing was computed of them.
pub(super) fn panels(weights: &Tensor) -> Option<&Panels> {
    weights.buffer().and_then(Buffer::as_panels)
}

/// Panels that will be read where they are mapped.
fn used<T>(panels: &Panels, packed: Option<T>) -> Option<T> {
    if packed.is_some() {
        panels.stored.prefetch();
    }
    packed
}

/// A filter `[spatial.., depth, out]` as it is stored: nothing is copied to put its axes in order.
pub(super) fn stored_filter(weights: &Tensor) -> Filter<'_> {
    let rank = weights.shape().len();
    match weights.stored_order() {
        Some((bytes, axes)) if axes.iter().copied().eq((2..rank).chain([1, 0])) => {
            Filter { bytes, order: FilterOrder::OutFirst }
        }
        _ => Filter { bytes: weights.stored_bytes(), order: FilterOrder::TapsFirst },
    }
}

/// The same, panels included.
pub(super) fn any_filter(weights: &Tensor) -> StoredFilter<'_> {
    match panels(weights) {
        Some(panels) => StoredFilter::Panels(panels),
        None => StoredFilter::Plain(stored_filter(weights)),
    }
}

/// A matrix of weights as it is stored, and how it lies there: one that was transposed is read as it was.
fn stored_matrix(b: &Tensor, layout: BLayout) -> (&[u8], BLayout) {
    match (b.stored_order(), layout) {
        (Some((bytes, [1, 0])), BLayout::RowMajorKxN) => (bytes, BLayout::RowMajorNxK),
        (Some((bytes, [1, 0])), BLayout::RowMajorNxK) => (bytes, BLayout::RowMajorKxN),
        _ => (b.stored_bytes(), layout),
    }
}

/// The inputs of an operator that are the second matrix of a product where they are constants, and how they lie: filters have a
/// row for every tap and channel.
pub fn product_weights(op: &Op) -> Vec<(usize, BLayout)> {
    let dense = |conv: &Conv, input: usize| (conv.groups == 1).then_some((input, BLayout::RowMajorKxN));
    match op {
        Op::Conv(conv) => dense(conv, 1).into_iter().collect(),
        Op::GatedConv(gated) => dense(&gated.conv, 2).into_iter().collect(),
        Op::InvertedResidual(block) => {
            let inputs = block.convolutions().zip((1..).step_by(2));
            inputs.filter_map(|(conv, input)| dense(conv, input)).collect()
        }
        Op::MatMul(product) if product.transpose_b => vec![(1, BLayout::RowMajorNxK)],
        Op::MatMul(_) => vec![(1, BLayout::RowMajorKxN)],
        _ => Vec::new(),
    }
}

/// The bytes that a constant takes as panels which the kernels read where they are stored.
pub(crate) fn used_in_place(kernels: &Kernels, constant: &Tensor) -> Option<usize> {
    let panels = panels(constant)?;
    (PanelWidth::of_stored(panels) == PanelWidth::of(kernels)).then(|| panels.stored.len())
}
