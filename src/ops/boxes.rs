//! Selection of detection boxes: non-maximum suppression, and soft suppression with a Gaussian.
//!
//! Both operators run one loop: the box with the best score is taken unless one taken before
//! overlaps it; a soft run lowers its score instead and lets it try again.

use super::{Fact, Inferred, Lower, OpError, Operator, Step, expect_inputs};
use crate::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};
use std::{cmp::Ordering, collections::BinaryHeap};

/// ONNX `NonMaxSuppression`: boxes `[batch, n, 4]`, scores `[batch, classes, n]` (both `float`), and
/// optionally the most boxes per class (default 0), the overlap allowed (0) and the least score
/// (none). Result: triples of batch, class and box, `int64` `[found, 3]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NonMaxSuppression {
    /// Boxes are centre x, centre y, width and height; else two opposite corners y, x, y, x.
    pub center: bool,
}

impl Operator for NonMaxSuppression {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=5)?;
        let fits = match (inputs[0].dims(), inputs[1].dims()) {
            ([batch, boxes, 4], [scored, _, scores]) => batch == scored && boxes == scores,
            _ => false,
        };
        if !fits || inputs[..2].iter().any(|fact| fact.dtype != DType::F32) {
            return Err(misfit(inputs));
        }
        Ok(Inferred::AtRun)
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        let center = self.center;
        Ok(Step::tensors(move |inputs, _| {
            let [boxes, scores, options @ ..] = inputs else { return Err(OpError::Memory("boxes")) };
            let (&[_, count, _], &[_, classes, _]) = (&boxes.shape()[..], &scores.shape()[..]) else {
                return Err(OpError::Memory("boxes"));
            };
            let most = options.first().map_or(Ok(0), integer)?;
            let search = Search {
                most: usize::try_from(most).unwrap_or(0),
                overlap: options.get(1).map_or(Ok(0.0), float)?,
                least: options.get(2).map_or(Ok(f32::NEG_INFINITY), float)?,
                sigma: 0.0,
            };
            let mut found: Vec<i64> = Vec::new();
            if count > 0 {
                let all_boxes = boxes.as_slice::<f32>()?.chunks_exact(count * 4);
                let all_scores = scores.as_slice::<f32>()?.chunks_exact((count * classes).max(1));
                for (batch, (boxes, scores)) in all_boxes.zip(all_scores).enumerate() {
                    let corners = corners(boxes, center);
                    for (class, scores) in scores.chunks_exact(count).enumerate() {
                        let selected = search.run(&corners, scores);
                        found.extend(
                            selected
                                .into_iter()
                                .flat_map(|(index, _)| [batch as i64, class as i64, index as i64]),
                        );
                    }
                }
            }
            Ok(vec![Tensor::from_slice([found.len() / 3, 3], &found)?])
        }))
    }
}

/// TensorFlow `NonMaxSuppressionV3` to `V5`: boxes `[n, 4]` of opposite corners and scores `[n]`
/// (both `float`), the most boxes, the overlap allowed, the least score, and optionally the sigma of
/// soft suppression. Outputs: positions (`int32`), scores after suppression, and how many are valid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelectBoxes {
    /// Positions and scores are filled up with zeros to the most boxes.
    pub pad: bool,
}

impl Operator for SelectBoxes {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 5..=6)?;
        let fits = match (inputs[0].dims(), inputs[1].dims()) {
            ([boxes, 4], [scores]) => boxes == scores,
            _ => false,
        };
        if !fits || inputs[..2].iter().any(|fact| fact.dtype != DType::F32) {
            return Err(misfit(inputs));
        }
        Ok(Inferred::AtRun)
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        let pad = self.pad;
        Ok(Step::tensors(move |inputs, _| {
            let [boxes, scores, most, overlap, least, sigma @ ..] = inputs else {
                return Err(OpError::Memory("boxes"));
            };
            let most = integer(most)?;
            let search = Search {
                most: usize::try_from(most).map_err(|_| {
                    OpError::invalid(format!("max_output_size must be non-negative, got {most}"))
                })?,
                overlap: float(overlap)?,
                least: float(least)?,
                sigma: sigma.first().map_or(Ok(0.0), float)?,
            };
            if !(0.0..=1.0).contains(&search.overlap) || search.sigma < 0.0 {
                return Err(OpError::invalid("iou_threshold must be in [0, 1] and soft_nms_sigma >= 0"));
            }
            let selected = search.run(&corners(boxes.as_slice()?, false), scores.as_slice()?);
            let mut positions: Vec<i32> = selected.iter().map(|&(index, _)| index as i32).collect();
            let mut scores: Vec<f32> = selected.iter().map(|&(_, score)| score).collect();
            if pad {
                let bytes = search.most.saturating_mul(4);
                let room = search.most - positions.len();
                let reserved =
                    positions.try_reserve_exact(room).and_then(|()| scores.try_reserve_exact(room));
                reserved.map_err(|_| crate::tensor::TensorError::OutOfMemory { bytes })?;
                positions.resize(search.most, 0);
                scores.resize(search.most, 0.0);
            }
            Ok(vec![
                Tensor::from_slice([positions.len()], &positions)?,
                Tensor::from_slice([scores.len()], &scores)?,
                Tensor::scalar(selected.len() as i32),
            ])
        }))
    }
}

fn misfit(inputs: &[Fact]) -> OpError {
    let shown: Vec<String> = inputs.iter().map(|fact| format!("{} {}", fact.dtype, fact.shape)).collect();
    OpError::invalid(format!("boxes and scores do not fit together: {}", shown.join(", ")))
}

fn integer(tensor: &Tensor) -> Result<i64, OpError> {
    tensor
        .to_i64_vec()?
        .first()
        .copied()
        .ok_or_else(|| OpError::invalid("an option of the selection is empty"))
}

fn float(tensor: &Tensor) -> Result<f32, OpError> {
    let value = tensor.as_slice::<f32>()?.first().copied();
    value.ok_or_else(|| OpError::invalid("an option of the selection is empty"))
}

/// A box: least and greatest coordinate along two axes.
#[derive(Clone, Copy, Debug)]
struct Corners([f32; 4]);

fn corners(boxes: &[f32], center: bool) -> Vec<Corners> {
    let of = |given: &[f32; 4]| {
        let &[a, b, c, d] = given;
        let [a, b, c, d] =
            if center { [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0] } else { [a, b, c, d] };
        Corners([a.min(c), b.min(d), a.max(c), b.max(d)])
    };
    boxes.as_chunks::<4>().0.iter().map(of).collect()
}

/// Intersection over union; 0 where a box has no area.
fn overlap(Corners(a): Corners, Corners(b): Corners) -> f32 {
    let area = |[top, left, bottom, right]: [f32; 4]| (bottom - top) * (right - left);
    let (area_a, area_b) = (area(a), area(b));
    if area_a <= 0.0 || area_b <= 0.0 {
        return 0.0;
    }
    let height = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let width = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let intersection = height * width;
    intersection / (area_a + area_b - intersection)
}

/// The boxes taken of `[n, 4]` opposite corners by their scores, with the scores, best first.
pub(crate) fn select(
    boxes: &[f32],
    scores: &[f32],
    most: usize,
    overlap: f32,
    least: f32,
) -> Vec<(usize, f32)> {
    Search { most, overlap, least, sigma: 0.0 }.run(&corners(boxes, false), scores)
}

struct Search {
    most: usize,
    overlap: f32,
    least: f32,
    sigma: f32,
}

/// A box that waits, with the number of taken boxes that its score already accounts for.
struct Candidate {
    score: f32,
    index: usize,
    considered: usize,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.index.cmp(&self.index))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

impl Search {
    /// The boxes taken, with their scores, best first.
    fn run(&self, boxes: &[Corners], scores: &[f32]) -> Vec<(usize, f32)> {
        let candidates = scores.iter().enumerate().filter(|&(_, &score)| score > self.least);
        let candidates = candidates.map(|(index, &score)| Candidate { score, index, considered: 0 });
        let mut waiting: BinaryHeap<Candidate> = candidates.collect();
        let mut taken: Vec<(usize, f32)> = Vec::new();
        while taken.len() < self.most
            && let Some(mut candidate) = waiting.pop()
        {
            let before = candidate.score;
            if !self.survives(&mut candidate, boxes, &taken) {
                continue;
            }
            candidate.considered = taken.len();
            if candidate.score == before {
                taken.push((candidate.index, candidate.score));
            } else if candidate.score > self.least {
                waiting.push(candidate);
            }
        }
        taken
    }

    /// Weighs a candidate's score by the boxes taken since it was last considered; the latest first,
    /// as it is the most likely to suppress it.
    fn survives(&self, candidate: &mut Candidate, boxes: &[Corners], taken: &[(usize, f32)]) -> bool {
        for &(other, _) in taken[candidate.considered..].iter().rev() {
            let overlap = overlap(boxes[candidate.index], boxes[other]);
            if self.sigma == 0.0 {
                if overlap > self.overlap {
                    return false;
                }
                continue;
            }
            let weight = (-0.5 / self.sigma * overlap * overlap).exp();
            candidate.score *= if overlap <= self.overlap { weight } else { 0.0 };
            if candidate.score <= self.least {
                return true;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::{run_op, run_op_outputs};

    /// The six boxes of TensorFlow's and ONNX's tests: two clusters and one box far away.
    const BOXES: [f32; 24] = [
        0.0, 0.0, 1.0, 1.0, 0.0, 0.1, 1.0, 1.1, 0.0, -0.1, 1.0, 0.9, 0.0, 10.0, 1.0, 11.0, 0.0, 10.1, 1.0,
        11.1, 0.0, 100.0, 1.0, 101.0,
    ];
    const SCORES: [f32; 6] = [0.9, 0.75, 0.6, 0.95, 0.5, 0.3];

    fn onnx(boxes: &[f32], center: bool, most: i64, least: f32) -> Vec<i64> {
        let inputs = [
            Tensor::from_slice([1, 6, 4], boxes).unwrap(),
            Tensor::from_slice([1, 1, 6], &SCORES).unwrap(),
            Tensor::from_slice([1], &[most]).unwrap(),
            Tensor::from_slice([1], &[0.5f32]).unwrap(),
            Tensor::from_slice([1], &[least]).unwrap(),
        ];
        run_op(NonMaxSuppression { center }, &inputs).unwrap()[0].as_slice::<i64>().unwrap().to_vec()
    }

    #[test]
    fn onnx_examples() {
        assert_eq!(onnx(&BOXES, false, 3, 0.0), [0, 0, 3, 0, 0, 0, 0, 0, 5]);
        assert_eq!(onnx(&BOXES, false, 2, 0.0), [0, 0, 3, 0, 0, 0]);
        assert_eq!(onnx(&BOXES, false, 3, 0.4), [0, 0, 3, 0, 0, 0]);
        assert_eq!(onnx(&BOXES, false, -1, 0.0), [0i64; 0]);
        let flipped: Vec<f32> = BOXES.chunks(4).flat_map(|b| [b[2], b[3], b[0], b[1]]).collect();
        assert_eq!(onnx(&flipped, false, 3, 0.0), [0, 0, 3, 0, 0, 0, 0, 0, 5]);
        let centres: Vec<f32> = BOXES.chunks(4).flat_map(|b| [b[1] + 0.5, 0.5, 1.0, 1.0]).collect();
        assert_eq!(onnx(&centres, true, 3, 0.0), [0, 0, 3, 0, 0, 0, 0, 0, 5]);
    }

    fn tensorflow(pad: bool, most: i32, overlap: f32, least: f32, sigma: f32) -> (Vec<i32>, Vec<f32>, i32) {
        let inputs = [
            Tensor::from_slice([6, 4], &BOXES).unwrap(),
            Tensor::from_slice([6], &SCORES).unwrap(),
            Tensor::scalar(most),
            Tensor::scalar(overlap),
            Tensor::scalar(least),
            Tensor::scalar(sigma),
        ];
        let y = run_op_outputs(SelectBoxes { pad }, &inputs, 3).unwrap();
        let (positions, scores) = (y[0].as_slice().unwrap().to_vec(), y[1].as_slice().unwrap().to_vec());
        (positions, scores, y[2].as_slice::<i32>().unwrap()[0])
    }

    #[test]
    fn tensorflow_examples() {
        assert_eq!(tensorflow(false, 3, 0.5, 0.0, 0.0), (vec![3, 0, 5], vec![0.95, 0.9, 0.3], 3));
        let (positions, _, valid) = tensorflow(true, 5, 0.5, 0.0, 0.0);
        assert_eq!((positions, valid), (vec![3, 0, 5, 0, 0], 3));
        // TestSelectFromThreeClustersWithSoftNMS of TensorFlow.
        let (positions, scores, valid) = tensorflow(false, 6, 1.0, 0.0, 0.5);
        assert_eq!((positions, valid), (vec![3, 0, 1, 5, 4, 2], 6));
        let expected = [0.95, 0.9, 0.384, 0.3, 0.256, 0.197];
        assert!(scores.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-3), "{scores:?}");
    }
}
