//! Segments, bins, sparse and ragged tensors.

use super::{Outputs, apply, one};
use crate::{
    formats::saved_model::import::{Import, Node, Stop, Value},
    graph::ValueId,
    ops::{
        cast::Cast,
        gather::Gather,
        generate::BroadcastShapes,
        join::{BroadcastTo, Concat},
        scatter::{Reduction, ScatterNd},
        segment::{Bincount, SearchSorted, Segment, SegmentKind},
        shape::{Reshape, ShapeOf},
        sparse::{FillEmptyRows, Ngrams, Partition, RaggedToDense, ReshapeIndices, RowPartition, Stitch},
    },
    tensor::{DType, Tensor},
};

fn many(
    i: &mut Import<'_, '_>,
    op: impl Into<crate::ops::Op>,
    inputs: &[ValueId],
    outputs: usize,
) -> Outputs {
    Ok(i.b.push_many(op, inputs, outputs).into_iter().map(Value::Tensor).collect())
}

/// Strings in an n-gram.
const MAX_NGRAM: i64 = 1 << 10;

/// Numbers that ascend give their own count; a segment between two of them is 0.
pub(super) fn segment(i: &mut Import<'_, '_>, n: &Node<'_>, kind: SegmentKind) -> Outputs {
    apply(i, n, Segment { kind, empty_is_zero: true }, 2)
}

pub(super) fn unsorted_segment(i: &mut Import<'_, '_>, n: &Node<'_>, kind: SegmentKind) -> Outputs {
    apply(i, n, Segment { kind, empty_is_zero: false }, 3)
}

/// Rows picked by indices, then reduced.
pub(super) fn sparse_segment(i: &mut Import<'_, '_>, n: &Node<'_>, kind: SegmentKind) -> Outputs {
    let [data, indices, numbers] = [n.tensor(i, 0)?, n.tensor(i, 1)?, n.tensor(i, 2)?];
    let rows = i.b.push(Gather { axis: 0, batch_dims: 0, negative: false }, &[data, indices]);
    let mut inputs = vec![rows, numbers];
    if n.inputs.len() > 3 {
        inputs.push(n.tensor(i, 3)?);
    }
    one(i.b.push(Segment { kind, empty_is_zero: true }, &inputs))
}

/// Inputs: numbers, size, weights.
pub(super) fn bincount(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    apply(i, n, Bincount { binary: n.attributes.flag("binary_output") }, 3)
}

/// Inputs: splits, values, size, weights.
pub(super) fn ragged_bincount(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let [splits, values] = [n.tensor(i, 0)?, n.tensor(i, 1)?];
    let [size, weights] = [n.tensor(i, 2)?, n.tensor(i, 3)?];
    let op = Bincount { binary: n.attributes.flag("binary_output") };
    one(i.b.push(op, &[values, size, weights, splits]))
}

/// Boundaries are an attribute; a number goes behind those that it reaches.
pub(super) fn bucketize(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let boundaries = n.attributes.list("boundaries").map(|list| list.f.clone()).unwrap_or_default();
    let boundaries =
        Tensor::from_slice([boundaries.len()], &boundaries).map_err(|error| error.to_string())?;
    let boundaries = i.b.constant(boundaries);
    let mut x = n.tensor(i, 0)?;
    if n.attributes.dtype("T") != Some(DType::F32) {
        x = i.b.push(Cast { to: DType::F32 }, &[x]);
    }
    one(i.b.push(SearchSorted { right: true, indices: DType::I32 }, &[boundaries, x]))
}

pub(super) fn search(i: &mut Import<'_, '_>, n: &Node<'_>, right: bool) -> Outputs {
    apply(i, n, SearchSorted { right, indices: n.dtype("out_type")? }, 2)
}

/// Values set at indices, a default elsewhere. Indices are a matrix, or a vector for a vector.
pub(super) fn to_dense(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let [indices, shape] = [n.tensor(i, 0)?, n.tensor(i, 1)?];
    let [values, default] = [n.tensor(i, 2)?, n.tensor(i, 3)?];
    let blank = i.b.push(BroadcastTo { bidirectional: false }, &[default, shape]);
    // [-1, rank], whatever form the indices have.
    let rank = i.b.push(ShapeOf { dtype: DType::I64 }, &[shape]);
    let open = i.b.integers(&[-1]);
    let matrix = i.b.push(Concat { axis: 0 }, &[open, rank]);
    let indices = i.b.push(Reshape { zero_copies: false }, &[indices, matrix]);
    // One value for all indices.
    let rows = i.b.push(ShapeOf { dtype: DType::I64 }, &[indices]);
    let (start, length) = (i.b.integers(&[0]), i.b.integers(&[1]));
    let rows = i.b.push(crate::ops::slice::SliceSize, &[rows, start, length]);
    let values = i.b.push(BroadcastTo { bidirectional: false }, &[values, rows]);
    one(i.b.push(ScatterNd { reduction: Reduction::Set, negative: false }, &[blank, indices, values]))
}

pub(super) fn fill_empty_rows(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let inputs = n.tensors(i, 0)?;
    many(i, FillEmptyRows, &inputs, 4)
}

pub(super) fn reshape(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let inputs = n.tensors(i, 0)?;
    many(i, ReshapeIndices, &inputs, 2)
}

pub(super) fn ragged_to_dense(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let kinds = n.attributes.list("row_partition_types").map(|list| list.s.as_slice()).unwrap_or_default();
    let kind = |name: &[u8]| match name {
        b"ROW_SPLITS" => Ok(RowPartition::Splits),
        b"VALUE_ROWIDS" => Ok(RowPartition::RowIds),
        b"FIRST_DIM_SIZE" => Ok(RowPartition::Size),
        other => Err(Stop::from(format!("unknown row partition \"{}\"", String::from_utf8_lossy(other)))),
    };
    let partitions = kinds.iter().map(|name| kind(name)).collect::<Result<_, _>>()?;
    apply(i, n, RaggedToDense { partitions }, n.inputs.len())
}

pub(super) fn ngrams(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let text = |name: &str| n.attributes.text(name).to_owned();
    let width =
        |&width: &i64| usize::try_from(width).map_err(|_| Stop::from("an n-gram's width is negative"));
    let op = Ngrams {
        separator: text("separator"),
        widths: n.attributes.ints("ngram_widths").iter().map(width).collect::<Result<_, _>>()?,
        pads: (text("left_pad"), text("right_pad")),
        pad_width: n.attributes.int("pad_width").min(MAX_NGRAM),
        preserve_short: n.attributes.flag("preserve_short_sequences"),
    };
    let inputs = n.tensors(i, 0)?;
    many(i, op, &inputs, 2)
}

pub(super) fn partition(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let parts = usize::try_from(n.attributes.int("num_partitions"))
        .ok()
        .filter(|parts| (1..=1 << 16).contains(parts));
    let parts = parts.ok_or("num_partitions is out of range")?;
    let inputs = n.tensors(i, 0)?;
    many(i, Partition { parts }, &inputs, parts)
}

pub(super) fn stitch(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    apply(i, n, Stitch, n.inputs.len())
}

pub(super) fn broadcast_shapes(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    apply(i, n, BroadcastShapes, 2)
}
