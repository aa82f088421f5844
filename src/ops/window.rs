//! Windows that slide over the spatial dimensions of `[batch, spatial.., channels]`: convolution
//! and pooling share this arithmetic.

use super::OpError;
use serde::{Deserialize, Serialize};

/// How the border is treated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Padding {
    /// Only whole windows.
    Valid,
    /// As many windows as strides fit; an odd element of padding goes after the end.
    SameUpper,
    /// The same; an odd element goes before the start.
    SameLower,
    /// Elements before and after, per spatial dimension.
    Explicit(Vec<(usize, usize)>),
}

/// One spatial dimension of a window operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Input size.
    pub input: usize,
    /// Output size.
    pub output: usize,
    /// Window size.
    pub window: usize,
    /// Distance of windows.
    pub stride: usize,
    /// Distance of the window's elements.
    pub dilation: usize,
    /// Padding before the start.
    pub before: usize,
    /// Padding after the end (less than needed where `ceil` lets the last window reach beyond it).
    pub after: usize,
}

impl Padding {
    /// The spatial dimensions for these sizes. `ceil` rounds a partial last window up (ONNX pooling).
    pub fn axes(
        &self,
        inputs: &[usize],
        windows: &[usize],
        strides: &[usize],
        dilations: &[usize],
        ceil: bool,
    ) -> Result<Vec<Axis>, OpError> {
        let rank = inputs.len();
        let fits = |len: usize| len == 0 || len == rank;
        let explicit = match self {
            Padding::Explicit(pads) => pads.len(),
            _ => 0,
        };
        if windows.len() != rank || !fits(strides.len()) || !fits(dilations.len()) || !fits(explicit) {
            return Err(OpError::invalid(format!(
                "a window of {} dimensions over an input of {rank} spatial dimensions",
                windows.len()
            )));
        }
        (0..rank)
            .map(|axis| {
                let stride = strides.get(axis).copied().unwrap_or(1);
                let dilation = dilations.get(axis).copied().unwrap_or(1);
                self.axis(axis, inputs[axis], windows[axis], stride, dilation, ceil)
            })
            .collect()
    }

    fn axis(
        &self,
        position: usize,
        input: usize,
        window: usize,
        stride: usize,
        dilation: usize,
        ceil: bool,
    ) -> Result<Axis, OpError> {
        let too_large = || OpError::invalid("the window's sizes exceed the address space");
        if window == 0 || stride == 0 || dilation == 0 {
            return Err(OpError::invalid("window, stride and dilation must be at least 1"));
        }
        let reach =
            (window - 1).checked_mul(dilation).and_then(|span| span.checked_add(1)).ok_or_else(too_large)?;
        let same = |upper: bool| -> Option<(usize, usize, usize)> {
            let output = input.div_ceil(stride);
            let needed = output.saturating_sub(1).checked_mul(stride)?.checked_add(reach)?;
            let total = needed.saturating_sub(input);
            let less = total / 2;
            Some(if upper { (output, less, total - less) } else { (output, total - less, less) })
        };
        let (output, before, after) = match self {
            Padding::SameUpper => same(true).ok_or_else(too_large)?,
            Padding::SameLower => same(false).ok_or_else(too_large)?,
            Padding::Valid | Padding::Explicit(_) => {
                let (before, after) = match self {
                    Padding::Explicit(pads) => pads.get(position).copied().unwrap_or((0, 0)),
                    _ => (0, 0),
                };
                let padded =
                    input.checked_add(before).and_then(|sum| sum.checked_add(after)).ok_or_else(too_large)?;
                if padded < reach {
                    return Err(OpError::invalid(format!(
                        "a window of {reach} does not fit into a dimension of {padded} (padding included)"
                    )));
                }
                let room = padded - reach;
                let mut output = room / stride + 1;
                // A window that begins in the padding after the end does not count.
                if ceil && !room.is_multiple_of(stride) && output * stride < input + before {
                    output += 1;
                }
                (output, before, after)
            }
        };
        Ok(Axis { input, output, window, stride, dilation, before, after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(
        padding: Padding,
        input: usize,
        window: usize,
        stride: usize,
        ceil: bool,
    ) -> (usize, usize, usize) {
        let axis = padding.axes(&[input], &[window], &[stride], &[], ceil).unwrap()[0];
        (axis.output, axis.before, axis.after)
    }

    /// Values worked out by hand from the definitions in TensorFlow's and ONNX's documentation.
    #[test]
    fn output_sizes() {
        assert_eq!(one(Padding::Valid, 13, 6, 5, false), (2, 0, 0));
        assert_eq!(one(Padding::SameUpper, 13, 6, 5, false), (3, 1, 2));
        assert_eq!(one(Padding::SameLower, 13, 6, 5, false), (3, 2, 1));
        assert_eq!(one(Padding::SameUpper, 224, 3, 2, false), (112, 0, 1));
        assert_eq!(one(Padding::Explicit(vec![(1, 1)]), 7, 3, 2, false), (4, 1, 1));
        assert_eq!(one(Padding::Explicit(vec![(0, 0)]), 6, 3, 2, false), (2, 0, 0));
        assert_eq!(one(Padding::Explicit(vec![(0, 0)]), 6, 3, 2, true), (3, 0, 0));
        assert_eq!(one(Padding::Explicit(vec![(1, 1)]), 2, 1, 3, true), (2, 1, 1));
    }

    #[test]
    fn impossible_windows_are_errors() {
        let axes = |padding: Padding, window, stride| padding.axes(&[4], &[window], &[stride], &[], false);
        assert!(axes(Padding::Valid, 5, 1).is_err());
        assert!(axes(Padding::Valid, 0, 1).is_err());
        assert!(axes(Padding::Valid, 2, 0).is_err());
        assert!(axes(Padding::Explicit(vec![(usize::MAX, 1)]), 2, 1).is_err());
        assert!(Padding::Valid.axes(&[4, 4], &[2], &[], &[], false).is_err());
        assert!(Padding::SameUpper.axes(&[4], &[usize::MAX], &[1], &[3], false).is_err());
    }
}
