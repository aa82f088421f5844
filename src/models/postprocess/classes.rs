//! Classification: the best labels with their scores.

use super::{Labels, output, sigmoid};
use crate::models::{Error, Response};

/// What turns a model's last values into probabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// They are.
    #[default]
    None,
    /// The classes exclude each other.
    Softmax,
    /// They do not.
    Sigmoid,
}

/// How scores become labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Classification {
    /// The output with the scores, `[batch, classes]`; `None` is the only one of floats.
    pub tensor: Option<String>,
    /// Names of the classes.
    pub labels: Labels,
    /// How many are answered.
    pub top: usize,
    /// What is done to the scores first.
    pub activation: Activation,
}

impl Default for Classification {
    fn default() -> Self {
        Self { tensor: None, labels: Labels::default(), top: 5, activation: Activation::None }
    }
}

impl Classification {
    /// The best labels of each of `images`, best first.
    ///
    /// # Errors
    /// The outputs are not what was declared.
    pub fn apply(&self, response: &Response, images: usize) -> Result<Vec<Vec<(String, f32)>>, Error> {
        let (shape, mut scores) = output(response, self.tensor.as_deref())?;
        let count = scores.len() / images.max(1);
        if count == 0 || scores.len() != count * images {
            return Err(Error::failed_precondition(format!(
                "an output of shape {shape:?} holds no scores for {images} images"
            )));
        }
        Ok(scores.chunks_exact_mut(count).map(|scores| self.best(scores)).collect())
    }

    fn best(&self, scores: &mut [f32]) -> Vec<(String, f32)> {
        match self.activation {
            Activation::None => {}
            Activation::Sigmoid => scores.iter_mut().for_each(|score| *score = sigmoid(*score)),
            Activation::Softmax => {
                let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                scores.iter_mut().for_each(|score| *score = (*score - largest).exp());
                let sum: f32 = scores.iter().sum();
                scores.iter_mut().for_each(|score| *score /= sum);
            }
        }
        let mut order: Vec<usize> = (0..scores.len()).collect();
        // The lower class first where scores are equal.
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        order
            .iter()
            .take(self.top.max(1))
            .map(|&class| (self.labels.name(class, scores.len()), scores[class]))
            .collect()
    }
}
