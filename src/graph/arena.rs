//! Where intermediate values stand: lifetimes to offsets.

use crate::tensor::buffer::ALIGNMENT;

/// A span of memory that is needed from one step to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetime {
    pub(super) bytes: usize,
    pub(super) first: usize,
    pub(super) last: usize,
}

/// Offsets such that spans that are alive together do not overlap, and the length of the arena.
///
/// Greedy by size: the largest span first, each at the lowest offset where it fits. On networks
/// this is within a few percent of the lower bound, and the order does not depend on the input.
pub(super) fn place(spans: &[Lifetime]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..spans.len()).collect();
    order.sort_by_key(|&index| (std::cmp::Reverse(spans[index].bytes), spans[index].first));
    let mut offsets = vec![0; spans.len()];
    // Placed spans, by offset.
    let mut placed: Vec<usize> = Vec::with_capacity(spans.len());
    let mut end_of_arena = 0;
    for index in order {
        let span = spans[index];
        let bytes = span.bytes.next_multiple_of(ALIGNMENT);
        if bytes == 0 {
            continue;
        }
        let mut offset = 0;
        for &other in &placed {
            let neighbour = spans[other];
            if neighbour.last < span.first || span.last < neighbour.first {
                continue;
            }
            if offsets[other] >= offset + bytes {
                break;
            }
            offset = offset.max(offsets[other] + neighbour.bytes.next_multiple_of(ALIGNMENT));
        }
        offsets[index] = offset;
        end_of_arena = end_of_arena.max(offset + bytes);
        let position = placed.partition_point(|&other| offsets[other] <= offset);
        placed.insert(position, index);
    }
    (offsets, end_of_arena)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn memory_is_shared_by_values_that_never_meet() {
        let span = |bytes, first, last| Lifetime { bytes, first, last };
        let (offsets, len) = place(&[span(64, 0, 1), span(64, 1, 2), span(64, 2, 3)]);
        assert_eq!(len, 128);
        assert_eq!(offsets[0], offsets[2]);
        assert_eq!(place(&[]).1, 0);
    }

    proptest! {
        #[test]
        fn living_spans_never_overlap(
            raw in prop::collection::vec((0usize..5000, 0usize..40, 0usize..10), 0..60)
        ) {
            let spans: Vec<Lifetime> = raw
                .iter()
                .map(|&(bytes, first, len)| Lifetime { bytes, first, last: first + len })
                .collect();
            let (offsets, len) = place(&spans);
            for (i, a) in spans.iter().enumerate() {
                prop_assert!(offsets[i] % ALIGNMENT == 0 && offsets[i] + a.bytes <= len.max(a.bytes));
                for (j, b) in spans.iter().enumerate().skip(i + 1) {
                    let together = a.first <= b.last && b.first <= a.last && a.bytes > 0 && b.bytes > 0;
                    let apart =
                        offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                    prop_assert!(!together || apart, "{i} and {j}");
                }
            }
        }
    }
}
