//! A node of a TensorFlow graph and its attributes, with the defaults that exporters may strip.

use super::tensor_proto;
use crate::{
    proto::tensorflow::{
        AttrValue, DataType, NameAttrList, NodeDef, TensorProto, TensorShapeProto,
        attr_value::{ListValue, Value},
    },
    tensor::DType,
};

/// A default in [`DEFAULTS`].
enum Default {
    Int(i64),
    Float(f32),
    Flag(bool),
    Text(&'static str),
    Type(DataType),
    Ints(&'static [i64]),
}

/// Attribute defaults of TensorFlow's operator definitions that are neither zero, false nor empty:
/// exports with `strip_default_attrs` leave them out. The operator `*` stands for all others.
const DEFAULTS: &[(&str, &str, Default)] = &[
    ("ArgMax", "output_type", Default::Type(DataType::DtInt64)),
    ("ArgMin", "output_type", Default::Type(DataType::DtInt64)),
    ("AsString", "precision", Default::Int(-1)),
    ("AsString", "width", Default::Int(-1)),
    ("CTCGreedyDecoder", "blank_index", Default::Int(-1)),
    ("Conv3D", "data_format", Default::Text("NDHWC")),
    ("ApproximateEqual", "tolerance", Default::Float(1e-5)),
    ("Conv3DBackpropInputV2", "data_format", Default::Text("NDHWC")),
    ("CropAndResize", "method", Default::Text("bilinear")),
    ("CombinedNonMaxSuppression", "clip_boxes", Default::Flag(true)),
    ("DecodeWav", "desired_channels", Default::Int(-1)),
    ("DecodeWav", "desired_samples", Default::Int(-1)),
    ("FakeQuantWithMinMaxArgs", "min", Default::Float(-6.0)),
    ("FakeQuantWithMinMaxArgs", "max", Default::Float(6.0)),
    ("Mfcc", "upper_frequency_limit", Default::Float(4000.0)),
    ("Mfcc", "lower_frequency_limit", Default::Float(20.0)),
    ("Mfcc", "filterbank_channel_count", Default::Int(40)),
    ("Mfcc", "dct_coefficient_count", Default::Int(13)),
    ("DecodeImage", "expand_animations", Default::Flag(true)),
    ("DecodeJpeg", "ratio", Default::Int(1)),
    ("DecodeRaw", "little_endian", Default::Flag(true)),
    ("Equal", "incompatible_shape_error", Default::Flag(true)),
    ("FusedBatchNorm", "is_training", Default::Flag(true)),
    ("FusedBatchNormV2", "is_training", Default::Flag(true)),
    ("FusedBatchNormV3", "is_training", Default::Flag(true)),
    ("InitializeTableFromTextFile", "delimiter", Default::Text("\t")),
    ("InitializeTableFromTextFile", "vocab_size", Default::Int(-1)),
    ("InitializeTableFromTextFileV2", "delimiter", Default::Text("\t")),
    ("InitializeTableFromTextFileV2", "vocab_size", Default::Int(-1)),
    ("InvertPermutation", "T", Default::Type(DataType::DtInt32)),
    ("LRN", "beta", Default::Float(0.5)),
    ("LRN", "depth_radius", Default::Int(5)),
    ("LeakyRelu", "alpha", Default::Float(0.2)),
    ("MaxPool3D", "data_format", Default::Text("NDHWC")),
    ("AvgPool3D", "data_format", Default::Text("NDHWC")),
    ("NotEqual", "incompatible_shape_error", Default::Flag(true)),
    ("OneHot", "axis", Default::Int(-1)),
    ("RegexReplace", "replace_global", Default::Flag(true)),
    ("StaticRegexReplace", "replace_global", Default::Flag(true)),
    ("StringLength", "unit", Default::Text("BYTE")),
    ("StringSplit", "skip_empty", Default::Flag(true)),
    ("StringSplitV2", "maxsplit", Default::Int(-1)),
    ("Substr", "unit", Default::Text("BYTE")),
    ("TensorListStack", "num_elements", Default::Int(-1)),
    ("UnicodeDecode", "errors", Default::Text("replace")),
    ("UnicodeDecode", "replacement_char", Default::Int(65533)),
    ("*", "num_bits", Default::Int(8)),
    ("*", "alpha", Default::Float(1.0)),
    ("*", "bias", Default::Float(1.0)),
    ("*", "data_format", Default::Text("NHWC")),
    ("*", "dilations", Default::Ints(&[1, 1, 1, 1])),
    ("*", "epsilon", Default::Float(1e-4)),
    ("*", "sorted", Default::Flag(true)),
    ("*", "T", Default::Type(DataType::DtFloat)),
    ("*", "dtype", Default::Type(DataType::DtUint8)),
    ("*", "Idx", Default::Type(DataType::DtInt32)),
    ("*", "index_type", Default::Type(DataType::DtInt32)),
    ("*", "out_idx", Default::Type(DataType::DtInt32)),
    ("*", "out_type", Default::Type(DataType::DtInt32)),
    ("StringToNumber", "out_type", Default::Type(DataType::DtFloat)),
];

/// The outputs of operators that have several, by argument: in function bodies a tensor is named by
/// argument and position within it. `*` follows a list, whose length the named attribute tells.
const OUTPUTS: &[(&str, &[(&str, Length)])] = &[
    (
        "CTCGreedyDecoder",
        &[one("decoded_indices"), one("decoded_values"), one("decoded_shape"), one("log_probability")],
    ),
    (
        "CombinedNonMaxSuppression",
        &[one("nmsed_boxes"), one("nmsed_scores"), one("nmsed_classes"), one("valid_detections")],
    ),
    ("DecodeWav", &[one("audio"), one("sample_rate")]),
    ("FusedBatchNorm", &[one("y"), one("batch_mean"), one("batch_variance")]),
    ("FusedBatchNormV2", &[one("y"), one("batch_mean"), one("batch_variance")]),
    ("FusedBatchNormV3", &[one("y"), one("batch_mean"), one("batch_variance")]),
    ("LookupTableExport", &[one("keys"), one("values")]),
    ("LookupTableExportV2", &[one("keys"), one("values")]),
    ("MaxPoolWithArgmax", &[one("output"), one("argmax")]),
    ("Merge", &[one("output"), one("value_index")]),
    ("NonMaxSuppressionV4", &[one("selected_indices"), one("valid_outputs")]),
    ("NonMaxSuppressionV5", &[one("selected_indices"), one("selected_scores"), one("valid_outputs")]),
    (
        "ParseExample",
        &[
            ("sparse_indices", Length::Number("Nsparse")),
            ("sparse_values", Length::Types("sparse_types")),
            ("sparse_shapes", Length::Number("Nsparse")),
            ("dense_values", Length::Types("Tdense")),
        ],
    ),
    (
        "ParseExampleV2",
        &[
            ("sparse_indices", Length::Number("num_sparse")),
            ("sparse_values", Length::Types("sparse_types")),
            ("sparse_shapes", Length::Number("num_sparse")),
            ("dense_values", Length::Types("Tdense")),
            ("ragged_values", Length::Types("ragged_value_types")),
            ("ragged_row_splits", Length::Types("ragged_split_types")),
        ],
    ),
    (
        "ParseSingleExample",
        &[
            ("sparse_indices", Length::Number("num_sparse")),
            ("sparse_values", Length::Types("sparse_types")),
            ("sparse_shapes", Length::Number("num_sparse")),
            ("dense_values", Length::Types("Tdense")),
        ],
    ),
    ("RaggedRange", &[one("rt_nested_splits"), one("rt_dense_values")]),
    (
        "RaggedGather",
        &[("output_nested_splits", Length::Number("OUTPUT_RAGGED_RANK")), one("output_dense_values")],
    ),
    (
        "SparseFillEmptyRows",
        &[one("output_indices"), one("output_values"), one("empty_row_indicator"), one("reverse_index_map")],
    ),
    ("SparseReshape", &[one("output_indices"), one("output_shape")]),
    ("StringNGrams", &[one("ngrams"), one("ngrams_splits")]),
    ("StringSplit", &[one("indices"), one("values"), one("shape")]),
    ("StringSplitV2", &[one("indices"), one("values"), one("shape")]),
    ("Switch", &[one("output_false"), one("output_true")]),
    ("TensorListPopBack", &[one("output_handle"), one("tensor")]),
    ("TensorArrayV3", &[one("handle"), one("flow")]),
    ("TensorListConcatV2", &[one("tensor"), one("lengths")]),
    ("TopK", &[one("values"), one("indices")]),
    ("TopKV2", &[one("values"), one("indices")]),
    ("UnicodeDecode", &[one("row_splits"), one("char_values")]),
    ("UnicodeDecodeWithOffsets", &[one("row_splits"), one("char_values"), one("char_to_byte_starts")]),
    ("Unique", &[one("y"), one("idx")]),
    ("UniqueV2", &[one("y"), one("idx")]),
    ("UniqueWithCounts", &[one("y"), one("idx"), one("count")]),
];

/// Number of tensors of an output argument.
#[derive(Clone, Copy)]
enum Length {
    One,
    Number(&'static str),
    Types(&'static str),
}

const fn one(name: &'static str) -> (&'static str, Length) {
    (name, Length::One)
}

/// The position among all outputs of `index` of the output argument `argument`.
pub(super) fn output_position(def: &NodeDef, argument: &str, index: usize) -> Option<usize> {
    let Some((_, arguments)) = OUTPUTS.iter().find(|(op, _)| *op == def.op) else {
        return Some(index);
    };
    let attributes = Attributes(def);
    let mut before = 0usize;
    for (name, length) in *arguments {
        let length = match length {
            Length::One => 1,
            Length::Number(attribute) => usize::try_from(attributes.int(attribute)).ok()?,
            Length::Types(attribute) => attributes.list(attribute).map_or(0, |list| list.r#type.len()),
        };
        if *name == argument {
            return (index < length).then_some(before.checked_add(index)?);
        }
        before = before.checked_add(length)?;
    }
    None
}

/// The attributes of a node.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a>(pub(super) &'a NodeDef);

impl<'a> Attributes<'a> {
    fn value(&self, name: &str) -> Option<&'a Value> {
        self.0.attr.get(name).and_then(|AttrValue { value }| value.as_ref())
    }

    fn default(&self, name: &str) -> Option<&'static Default> {
        let of = |op: &str| DEFAULTS.iter().find(|(of, attribute, _)| *of == op && *attribute == name);
        of(&self.0.op).or_else(|| of("*")).map(|(_, _, default)| default)
    }

    /// An integer; 0 where neither the node nor its operator's definition has it.
    pub(super) fn int(&self, name: &str) -> i64 {
        match (self.value(name), self.default(name)) {
            (Some(Value::I(value)), _) => *value,
            (None, Some(Default::Int(value))) => *value,
            _ => 0,
        }
    }

    /// A number; 0 where there is none.
    pub(super) fn float(&self, name: &str) -> f32 {
        match (self.value(name), self.default(name)) {
            (Some(Value::F(value)), _) => *value,
            (None, Some(Default::Float(value))) => *value,
            _ => 0.0,
        }
    }

    /// A flag; false where there is none.
    pub(super) fn flag(&self, name: &str) -> bool {
        match (self.value(name), self.default(name)) {
            (Some(Value::B(value)), _) => *value,
            (None, Some(Default::Flag(value))) => *value,
            _ => false,
        }
    }

    /// A string; empty where there is none.
    pub(super) fn text(&self, name: &str) -> &'a str {
        match (self.value(name), self.default(name)) {
            (Some(Value::S(value)), _) => std::str::from_utf8(value).unwrap_or_default(),
            (None, Some(Default::Text(value))) => value,
            _ => "",
        }
    }

    /// TensorFlow's number of an element type; 0 where there is none.
    pub(super) fn type_tag(&self, name: &str) -> i32 {
        match (self.value(name), self.default(name)) {
            (Some(Value::Type(tag)), _) => *tag,
            (None, Some(Default::Type(tag))) => i32::from(*tag),
            _ => 0,
        }
    }

    /// An element type; `None` for one that kinglet has not.
    pub(super) fn dtype(&self, name: &str) -> Option<DType> {
        tensor_proto::dtype_of(self.type_tag(name))
    }

    /// A list.
    pub(super) fn list(&self, name: &str) -> Option<&'a ListValue> {
        match self.value(name) {
            Some(Value::List(list)) => Some(list),
            _ => None,
        }
    }

    /// A list of integers; empty where there is none.
    pub(super) fn ints(&self, name: &str) -> &'a [i64] {
        match (self.value(name), self.default(name)) {
            (Some(Value::List(list)), _) => &list.i,
            (None, Some(Default::Ints(values))) => values,
            _ => &[],
        }
    }

    /// A shape.
    pub(super) fn shape(&self, name: &str) -> Option<&'a TensorShapeProto> {
        match self.value(name) {
            Some(Value::Shape(shape)) => Some(shape),
            _ => None,
        }
    }

    /// A constant.
    pub(super) fn tensor(&self, name: &str) -> Option<&'a TensorProto> {
        match self.value(name) {
            Some(Value::Tensor(tensor)) => Some(tensor),
            _ => None,
        }
    }

    /// The name of a function.
    pub(super) fn function(&self, name: &str) -> Option<&'a str> {
        match self.value(name) {
            Some(Value::Func(NameAttrList { name, .. })) => Some(name),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(op: &str) -> NodeDef {
        NodeDef { op: op.to_owned(), ..NodeDef::default() }
    }

    #[test]
    fn stripped_attributes_have_their_operators_defaults() {
        let norm = node("FusedBatchNormV3");
        assert!(Attributes(&norm).flag("is_training"));
        assert_eq!(Attributes(&norm).float("epsilon"), 1e-4);
        let conv = node("Conv2D");
        assert_eq!(Attributes(&conv).text("data_format"), "NHWC");
        assert_eq!(Attributes(&conv).ints("dilations"), [1, 1, 1, 1]);
        assert!(!Attributes(&node("MatMul")).flag("transpose_a"));
        assert_eq!(Attributes(&node("MaxPool")).dtype("T"), Some(DType::F32));
        assert_eq!(Attributes(&node("OneHot")).int("axis"), -1);
        assert_eq!(Attributes(&node("Pack")).int("axis"), 0);
        let mut set = node("OneHot");
        set.attr.insert("axis".to_owned(), AttrValue { value: Some(Value::I(2)) });
        assert_eq!(Attributes(&set).int("axis"), 2);
    }

    #[test]
    fn outputs_in_functions_are_counted_over_all_arguments() {
        assert_eq!(output_position(&node("TopKV2"), "indices", 0), Some(1));
        assert_eq!(output_position(&node("TopKV2"), "indices", 1), None);
        assert_eq!(output_position(&node("TopKV2"), "nonsense", 0), None);
        assert_eq!(output_position(&node("Split"), "output", 3), Some(3));
        let mut parse = node("ParseExampleV2");
        parse.attr.insert("num_sparse".to_owned(), AttrValue { value: Some(Value::I(2)) });
        let list = ListValue { r#type: vec![1, 1], ..ListValue::default() };
        parse.attr.insert("sparse_types".to_owned(), AttrValue { value: Some(Value::List(list.clone())) });
        parse.attr.insert("Tdense".to_owned(), AttrValue { value: Some(Value::List(list)) });
        assert_eq!(output_position(&parse, "dense_values", 1), Some(7));
        assert_eq!(output_position(&parse, "sparse_shapes", 1), Some(5));
    }
}
