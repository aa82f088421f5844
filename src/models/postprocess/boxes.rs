//! Detection: candidates from a head, one of several that overlap, and places in the picture's own pixels.

use super::{Head, Labels, heads::Candidate};
use crate::models::{Error, Response, image::Placement};

/// Candidates that compete; more than the best so many are not looked at.
const MAX_CANDIDATES: usize = 3000;

/// Which of the candidates are answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nms {
    /// The least score.
    pub score_threshold: f32,
    /// Boxes of one class that overlap more (intersection over union) are one.
    pub iou_threshold: f32,
    /// The most that are answered.
    pub most: usize,
}

impl Default for Nms {
    fn default() -> Self {
        Self { score_threshold: 0.3, iou_threshold: 0.45, most: 100 }
    }
}

/// How outputs become things with boxes.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// What the outputs are.
    pub head: Head,
    /// Names of the classes.
    pub labels: Labels,
    /// Which are answered.
    pub nms: Nms,
}

/// A thing in a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its class.
    pub label: String,
    /// `[y_min, x_min, y_max, x_max]` in pixels of the picture.
    pub place: [f32; 4],
    /// How sure the model is.
    pub score: f32,
}

impl Detection {
    /// The things in one picture, the surest first.
    ///
    /// # Errors
    /// The outputs are not what was declared.
    pub fn apply(&self, response: &Response, placement: &Placement) -> Result<Vec<Found>, Error> {
        let least = self.nms.score_threshold;
        let (mut candidates, classes) = self.head.candidates(response, least, &self.labels)?;
        candidates.retain(|candidate| {
            candidate.score >= least && candidate.place.iter().all(|edge| edge.is_finite())
        });
        candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
        candidates.truncate(MAX_CANDIDATES);
        let kept = suppress(candidates, &self.nms);
        let (height, width) = (placement.input_height as f32, placement.input_width as f32);
        let found = |candidate: &Candidate| {
            let [top, left, bottom, right] = candidate.place;
            let (y0, x0) = placement.to_picture(top * height, left * width);
            let (y1, x1) = placement.to_picture(bottom * height, right * width);
            Found {
                label: self.labels.name(candidate.class, classes),
                place: [y0, x0, y1, x1],
                score: candidate.score,
            }
        };
        Ok(kept.iter().map(found).collect())
    }
}

/// Of boxes of one class that overlap, the best; `candidates` are sorted.
pub(super) fn suppress(candidates: Vec<Candidate>, nms: &Nms) -> Vec<Candidate> {
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if kept.len() == nms.most {
            break;
        }
        let rival = |best: &&Candidate| {
            best.class == candidate.class && overlap(&best.place, &candidate.place) > nms.iou_threshold
        };
        if kept.iter().find(rival).is_none() {
            kept.push(candidate);
        }
    }
    kept
}

/// Intersection over union.
pub(super) fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let area = |place: &[f32; 4]| (place[2] - place[0]).max(0.0) * (place[3] - place[1]).max(0.0);
    let common = area(&[a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let all = area(a) + area(b) - common;
    if all > 0.0 { common / all } else { 0.0 }
}
