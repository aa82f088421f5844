//! Weights in the order that matrix products read them: nothing is packed at load, and all processes share the pages of the file.
//!
//! `"panels"` of `model.json` says of a tensor of the weights file that it is such a matrix, and which tensor that is in its own
//! order. A CPU whose products read other panels puts the elements in that order again, and packs them.

use super::document::PanelsDocument;
use crate::{
    graph::{Graph, ValueId},
    kernels::{BLayout, PanelWidth, out_of_panels},
    ops::product_weights,
    tensor::{Buffer, DType, Shape, Tensor, computed::Panels},
};
use std::collections::BTreeMap;

/// Smaller tensors are packed in less time than it takes to look after them.
const LEAST_ELEMENTS: usize = 4 << 10;

/// Panels may be so many times as large as what is in them: a matrix of one column is not worth sixteen.
const MOST_PADDING: usize = 2;

/// What a tensor is used as, over all graphs of a model.
#[derive(Clone, Copy, PartialEq)]
enum Use {
    Product(BLayout),
    Other,
}

/// What the tensors of a model are used as, by name.
#[derive(Default)]
pub(super) struct Uses(BTreeMap<String, Use>);

impl Uses {
    /// Adds those of a graph, without the bodies in it; `name` is that of a constant.
    pub(super) fn add(&mut self, graph: &Graph, name: impl Fn(ValueId) -> Option<String>) {
        for node in graph.nodes() {
            let products = product_weights(&node.op);
            for (position, input) in node.inputs.iter().enumerate() {
                let product = products.iter().find(|(index, _)| *index == position);
                if let Some(name) = name(*input) {
                    self.add_use(name, product.map_or(Use::Other, |&(_, layout)| Use::Product(layout)));
                }
            }
        }
        for name in graph.outputs().iter().filter_map(|&(_, value)| name(value)) {
            self.add_use(name, Use::Other);
        }
    }

    /// Adds one that stays as it is.
    pub(super) fn add_other(&mut self, name: String) {
        self.add_use(name, Use::Other);
    }

    fn add_use(&mut self, name: String, new: Use) {
        let known = self.0.entry(name).or_insert(new);
        if *known != new {
            *known = Use::Other;
        }
    }

    /// The tensor as panels, where products are all that it is used in.
    pub(super) fn panels(
        &self,
        name: &str,
        tensor: &Tensor,
        width: PanelWidth,
    ) -> Option<(Tensor, PanelsDocument)> {
        let Some(Use::Product(layout)) = self.0.get(name) else { return None };
        let transposed = *layout == BLayout::RowMajorNxK;
        if tensor.dtype() != DType::F32 || tensor.len() < LEAST_ELEMENTS {
            return None;
        }
        let [k, n] = matrix(tensor.shape(), transposed)?;
        let floats = width.floats(k, n).filter(|floats| floats.div_ceil(MOST_PADDING) <= tensor.len())?;
        let panels = width.panels_of(k, n, tensor.as_slice().ok()?, transposed)?;
        let document = PanelsDocument {
            shape: tensor.shape().to_vec(),
            lanes: width.lanes,
            vectors: width.vectors,
            transposed,
        };
        Some((Tensor::from_buffer(DType::F32, [floats], panels).ok()?, document))
    }
}

/// Rows and columns: the last dimension has the columns, of a transposed matrix the first of two.
fn matrix(shape: &[usize], transposed: bool) -> Option<[usize; 2]> {
    match *shape {
        [n, k] if transposed => Some([k, n]),
        [ref outer @ .., n] if !transposed && (1..=3).contains(&outer.len()) => {
            Some([outer.iter().try_fold(1usize, |k, &dim| k.checked_mul(dim))?, n])
        }
        _ => None,
    }
}

/// The tensor that a file has as panels, or what is wrong with them.
pub(super) fn read(document: &PanelsDocument, stored: &Tensor) -> Result<Tensor, String> {
    let PanelsDocument { lanes, vectors, transposed, .. } = *document;
    let shape = Shape::from(document.shape.clone());
    let width = PanelWidth { lanes, vectors };
    if !width.is_possible() {
        return Err(format!("no kernel reads panels of {vectors} vectors of {lanes} floats"));
    }
    let [k, n] = matrix(&shape, transposed).ok_or_else(|| {
        let dims = if transposed { "2" } else { "2 to 4" };
        format!("panels hold a tensor of {dims} dimensions, but the shape is {shape}")
    })?;
    let expected = width.floats(k, n).ok_or_else(|| format!("shape {shape} is larger than memory"))?;
    if stored.dtype() != DType::F32 || *stored.shape() != Shape::from([expected]) {
        return Err(format!(
            "{vectors} vectors of {lanes} floats for shape {shape} are a tensor of {} {:?}, but it is {} {:?}",
            DType::F32,
            [expected],
            stored.dtype(),
            stored.shape()
        ));
    }
    let stored = stored.buffer().cloned().unwrap_or_else(|| Buffer::from_static(&[]));
    let panels = Panels { stored, k, n, lanes, vectors, transposed };
    let buffer = Buffer::panelled(panels, out_of_panels)
        .ok_or_else(|| format!("shape {shape} is larger than memory"))?;
    Tensor::from_buffer(DType::F32, shape, buffer).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(shape: &[usize], lanes: usize, vectors: usize, transposed: bool) -> PanelsDocument {
        PanelsDocument { shape: shape.to_vec(), lanes, vectors, transposed }
    }

    /// Two rows of five columns, two at a time: by hand.
    #[test]
    fn panels_are_read_in_their_own_order() {
        let stored = [1.0f32, 2.0, 6.0, 7.0, 3.0, 4.0, 8.0, 9.0, 5.0, 0.0, 10.0, 0.0];
        let stored = Tensor::from_slice([12], &stored).unwrap();
        let plain =
            Tensor::from_slice([2, 5], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]).unwrap();
        assert_eq!(read(&document(&[2, 5], 2, 1, false), &stored).unwrap(), plain);
        let turned =
            Tensor::from_slice([5, 2], &[1.0f32, 6.0, 2.0, 7.0, 3.0, 8.0, 4.0, 9.0, 5.0, 10.0]).unwrap();
        assert_eq!(read(&document(&[5, 2], 2, 1, true), &stored).unwrap(), turned);
        let filter = read(&document(&[1, 1, 2, 5], 2, 1, false), &stored).unwrap();
        assert_eq!(filter, plain.reshaped([1, 1, 2, 5]).unwrap());
    }

    #[test]
    fn panels_that_lie_are_refused() {
        let stored = Tensor::from_slice([12], &[0.0f32; 12]).unwrap();
        for (shape, lanes, vectors, transposed, problem) in [
            (&[2, 5][..], 4, 1, false, "are a tensor of float [16], but it is float [12]"),
            (&[5, 2], 2, 1, false, "but it is float [12]"),
            (&[2, 5], 0, 1, false, "no kernel reads panels"),
            (&[2, 5], 2, 0, false, "no kernel reads panels"),
            (&[2, 5], 1 << 20, 1, false, "no kernel reads panels"),
            (&[10], 2, 1, false, "2 to 4 dimensions"),
            (&[1, 2, 5], 2, 1, true, "2 dimensions"),
            (&[usize::MAX, 5], 2, 1, false, "larger than memory"),
            (&[usize::MAX / 2, 3, 5], 2, 1, false, "dimensions"),
        ] {
            let error = read(&document(shape, lanes, vectors, transposed), &stored).unwrap_err();
            assert!(error.contains(problem), "{shape:?}: {error}");
        }
        let bytes = Tensor::from_slice([12], &[0u8; 12]).unwrap();
        assert!(read(&document(&[2, 5], 2, 1, false), &bytes).unwrap_err().contains("uint8 [12]"));
    }

    #[test]
    fn only_what_products_alone_read_becomes_panels() {
        let width = PanelWidth { lanes: 4, vectors: 2 };
        let tensor = Tensor::from_slice([64, 80], &[1.0f32; 64 * 80]).unwrap();
        let mut uses = Uses::default();
        for name in ["both", "product", "turned"] {
            let layout = if name == "turned" { BLayout::RowMajorNxK } else { BLayout::RowMajorKxN };
            uses.add_use(name.into(), Use::Product(layout));
            uses.add_use(name.into(), Use::Product(layout));
        }
        uses.add_other("both".into());
        uses.add_use("both".into(), Use::Product(BLayout::RowMajorKxN));
        let kept = |name: &str| uses.panels(name, &tensor, width).map(|(_, document)| document.transposed);
        assert_eq!([kept("product"), kept("turned")], [Some(false), Some(true)]);
        assert_eq!([kept("both"), kept("unknown")], [None, None]);
        let small = Tensor::from_slice([2, 2], &[1.0f32; 4]).unwrap();
        let narrow = Tensor::from_slice([5120, 1], &[1.0f32; 5120]).unwrap();
        assert!([small, narrow].iter().all(|tensor| uses.panels("product", tensor, width).is_none()));
    }
}
