//! The attributes of a node. In the body of a function an attribute may stand for one of the call.

use crate::proto::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto};
use std::collections::HashMap;

/// Attributes by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes<'a>(HashMap<&'a str, &'a AttributeProto>);

impl<'a> Attributes<'a> {
    /// Those of a node; references are resolved in `outer`, the attributes of the call.
    pub(super) fn of(node: &'a NodeProto, outer: &Attributes<'a>) -> Self {
        let resolve = |attribute: &'a AttributeProto| {
            let name = attribute.name.as_str();
            match attribute.ref_attr_name.as_str() {
                "" => Some((name, attribute)),
                reference => outer.0.get(reference).map(|found| (name, *found)),
            }
        };
        Self(node.attribute.iter().filter_map(resolve).collect())
    }

    /// These, where the call gives none.
    pub(super) fn with_defaults(mut self, defaults: &'a [AttributeProto]) -> Self {
        for attribute in defaults {
            self.0.entry(&attribute.name).or_insert(attribute);
        }
        self
    }

    /// The attribute itself.
    pub(super) fn get(&self, name: &str) -> Option<&'a AttributeProto> {
        self.0.get(name).copied()
    }

    /// True when the node has it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// An integer.
    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.get(name).map_or(default, |attribute| attribute.i)
    }

    /// A number.
    pub(super) fn float(&self, name: &str, default: f32) -> f32 {
        self.get(name).map_or(default, |attribute| attribute.f)
    }

    /// An integer that is not 0.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.int(name, 0) != 0
    }

    /// A string.
    pub(super) fn text(&self, name: &str, default: &'a str) -> &'a str {
        self.get(name).map_or(default, |attribute| std::str::from_utf8(&attribute.s).unwrap_or_default())
    }

    /// A list of integers; `None` where the node has none.
    pub(super) fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.get(name).map(|attribute| attribute.ints.as_slice())
    }

    /// A list of numbers; empty where the node has none.
    pub(super) fn floats(&self, name: &str) -> &'a [f32] {
        self.get(name).map(|attribute| attribute.floats.as_slice()).unwrap_or_default()
    }

    /// A list of strings; empty where the node has none.
    pub(super) fn texts(&self, name: &str) -> Vec<&'a str> {
        let strings = self.get(name).map(|attribute| attribute.strings.as_slice()).unwrap_or_default();
        strings.iter().map(|text| std::str::from_utf8(text).unwrap_or_default()).collect()
    }

    /// A tensor.
    pub(super) fn tensor(&self, name: &str) -> Option<&'a TensorProto> {
        self.get(name)?.t.as_ref()
    }

    /// A graph.
    pub(super) fn graph(&self, name: &str) -> Option<&'a GraphProto> {
        self.get(name)?.g.as_ref()
    }
}
