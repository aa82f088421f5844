//! From a file to a loaded model.

use super::{
    import::Import,
    node::Value,
    ops,
    tensor::{self, Declared, ExternalFiles},
};
use crate::{
    formats::{
        FormatError, LoadedModel, LoadedSignature, TensorInfo, definition::definition, identity::Identity,
    },
    graph::passes,
    proto::onnx::{GraphProto, ModelProto, ValueInfoProto},
    tensor::{Buffer, Bytes, DType},
};
use prost::Message;
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

/// The only signature of an ONNX model.
const SIGNATURE: &str = "serving_default";
/// The oldest operator set whose meaning is known here.
const OLDEST_OPSET: i64 = 1;

/// Loads an ONNX file.
pub(in crate::formats) fn load(path: &Path) -> Result<LoadedModel, FormatError> {
    let file = Buffer::map_file(path).map_err(|error| FormatError::io(path, &error))?;
    // Weights stay slices of the mapping.
    let model = ModelProto::decode(Bytes::from_owner(Mapped(file.clone())))
        .map_err(|error| FormatError::invalid(path, format!("not an ONNX model: {error}")))?;
    let Some(graph) = &model.graph else {
        return Err(FormatError::invalid(path, "the ONNX model has no graph"));
    };
    check_version(path, &model)?;
    let files = ExternalFiles::new(path.parent().unwrap_or(Path::new(".")), file);
    let mut import = Import::new(&model, graph, &files)?;
    let inputs = inputs(graph, &mut import)?;
    import.nodes(&graph.node)?;
    std::mem::take(&mut import.missing).into_result()?;
    let (outputs, values) = outputs(graph, &mut import)?;
    let graph = Arc::new(passes::simplify(import.b.finish(values)));
    let distinct: HashMap<Identity, usize> =
        graph.constants().values().map(|tensor| (Identity::of(tensor), tensor.memory())).collect();
    let definition = definition("tensorflow/serving/predict", &inputs, &outputs);
    let signature =
        LoadedSignature { definition: definition.clone(), inputs, outputs, defaults: BTreeMap::new(), graph };
    Ok(LoadedModel {
        platform: "onnx",
        signatures: BTreeMap::from([(SIGNATURE.to_owned(), signature)]),
        definitions: BTreeMap::from([(SIGNATURE.to_owned(), definition)]),
        weight_bytes: distinct.values().sum(),
    })
}

struct Mapped(Buffer);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn check_version(path: &Path, model: &ModelProto) -> Result<(), FormatError> {
    let standard = model.opset_import.iter().find(|import| matches!(import.domain.as_str(), "" | "ai.onnx"));
    match standard.map(|import| import.version) {
        Some(version) if !(OLDEST_OPSET..=ops::NEWEST).contains(&version) => Err(FormatError::unsupported(
            path,
            format!("operator set {version}, expected {OLDEST_OPSET} to {}", ops::NEWEST),
        )),
        _ => Ok(()),
    }
}

/// Declares the inputs in alphabetical order. Names that are initialised too are weights.
fn inputs<'a>(graph: &'a GraphProto, import: &mut Import<'a>) -> Result<Vec<TensorInfo>, FormatError> {
    let mut open: Vec<&ValueInfoProto> =
        graph.input.iter().filter(|info| !import.is_initialised(&info.name)).collect();
    open.sort_by(|a, b| a.name.cmp(&b.name));
    open.dedup_by(|a, b| a.name == b.name);
    let mut infos = Vec::with_capacity(open.len());
    for info in open {
        let declared = tensor::declared(info);
        let dtype = declared.dtype.filter(|_| !declared.nested).ok_or_else(|| {
            FormatError::node(&info.name, "this input is no tensor of a type that is supported")
        })?;
        import.input(&info.name, &info.name, dtype, &declared);
        infos.push(describe(&info.name, Some(dtype), declared.dims));
    }
    Ok(infos)
}

type Outputs = (Vec<TensorInfo>, Vec<(String, crate::graph::ValueId)>);

/// The outputs in alphabetical order.
fn outputs<'a>(graph: &'a GraphProto, import: &mut Import<'a>) -> Result<Outputs, FormatError> {
    let mut sorted: Vec<&ValueInfoProto> = graph.output.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    sorted.dedup_by(|a, b| a.name == b.name);
    let (mut infos, mut values) = (Vec::new(), Vec::new());
    for info in sorted {
        let value = match import.resolve(&info.name) {
            Some(Value::Tensor(value)) => value,
            Some(_) => return Err(FormatError::node(&info.name, "this output is no tensor")),
            None => return Err(FormatError::node(&info.name, "this output is not made by any node")),
        };
        let Declared { dtype, dims, .. } = tensor::declared(info);
        let dtype = import.dtype(value).or(dtype);
        let dims = dims.or_else(|| import.dims(value));
        infos.push(describe(&info.name, dtype, dims));
        values.push((info.name.clone(), value));
    }
    Ok((infos, values))
}

fn describe(name: &str, dtype: Option<DType>, shape: Option<Vec<Option<usize>>>) -> TensorInfo {
    TensorInfo { name: name.to_owned(), tensor: format!("{name}:0"), dtype, shape }
}
