//! A loaded model of any format becomes a folder of this one.

use super::{
    MODEL_FILE, WEIGHTS_FILE, constant,
    document::{
        ConstantDocument, Document, FORMAT, InputDocument, NodeDocument, OutputDocument, SignatureDocument,
        Unique,
    },
    layout::OneLinePerNode,
    operator::{self, Problem},
    weights,
};
use crate::{
    formats::{FormatError, LoadedModel, LoadedSignature},
    graph::{Graph, Node, ValueId},
    tensor::{DType, Shape, Tensor, TensorError},
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::Path,
};

/// Constants of at most so many elements stand in the text.
const INLINE_ELEMENTS: usize = 16;

/// Writes `model.json` and `model.safetensors` into `folder`, which is made if need be. What it
/// replaces stays intact for those who have it mapped.
pub fn save(model: &LoadedModel, folder: &Path) -> Result<(), FormatError> {
    let invalid = |reason: String| FormatError::invalid(folder, reason);
    let mut tensors = Tensors::new(model);
    let mut signatures = BTreeMap::new();
    for (name, signature) in &model.signatures {
        tensors.add_constants(&signature.graph).map_err(|error| invalid(error.to_string()))?;
        let variables = signature.graph.variables();
        tensors.add_variables(&variables).map_err(|error| invalid(error.to_string()))?;
        signatures.insert(name.clone(), signature);
    }
    let signatures = signatures
        .into_iter()
        .map(|(name, signature)| match write_signature(signature, &tensors) {
            Ok(document) => Ok((name, document)),
            Err(reason) => Err(invalid(format!("signature {name}: {reason}"))),
        })
        .collect::<Result<_, _>>()?;
    let document = Document {
        format: FORMAT.into(),
        variables: tensors.variables,
        constants: Unique(tensors.inline),
        signatures: Unique(signatures),
    };
    let io = |error: std::io::Error| FormatError::io(folder, &error);
    fs::create_dir_all(folder).map_err(io)?;
    let temporary = folder.join(format!(".{WEIGHTS_FILE}.new"));
    weights::write(&tensors.stored, &temporary).map_err(io)?;
    fs::rename(&temporary, folder.join(WEIGHTS_FILE)).map_err(io)?;
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, OneLinePerNode::default());
    document.serialize(&mut serializer).map_err(|error| invalid(error.to_string()))?;
    text.push(b'\n');
    let temporary = folder.join(format!(".{MODEL_FILE}.new"));
    fs::write(&temporary, text).map_err(io)?;
    fs::rename(&temporary, folder.join(MODEL_FILE)).map_err(io)
}

/// Which memory a constant is, to write what several graphs share once.
type Identity = (usize, DType, Shape);

fn identity(tensor: &Tensor) -> Identity {
    let address = match tensor.as_strings() {
        Ok(strings) => strings.as_ptr().addr(),
        Err(_) => tensor.as_bytes().as_ptr().addr(),
    };
    (address, tensor.dtype(), tensor.shape().clone())
}

/// The constants of all signatures by name.
struct Tensors {
    names: HashMap<Identity, String>,
    taken: BTreeSet<String>,
    inline: BTreeMap<String, ConstantDocument>,
    stored: BTreeMap<String, Tensor>,
    variables: Vec<String>,
}

impl Tensors {
    fn new(model: &LoadedModel) -> Self {
        let aliases = |signature: &LoadedSignature| {
            let infos = signature.inputs.iter().chain(&signature.outputs);
            infos.map(|info| info.name.clone()).collect::<Vec<_>>()
        };
        Self {
            names: HashMap::new(),
            taken: model.signatures.values().flat_map(aliases).collect(),
            inline: BTreeMap::new(),
            stored: BTreeMap::new(),
            variables: Vec::new(),
        }
    }

    fn add_constants(&mut self, graph: &Graph) -> Result<(), TensorError> {
        for node in graph.nodes() {
            for (position, input) in node.inputs.iter().enumerate() {
                if let Some(tensor) = graph.constants().get(input) {
                    self.add(tensor, &format!("{}/{position}", base_name(node)))?;
                }
            }
        }
        let outputs =
            graph.outputs().iter().filter_map(|(name, value)| Some((name, graph.constants().get(value)?)));
        outputs.into_iter().try_for_each(|(name, tensor)| self.add(tensor, name).map(drop))
    }

    /// All signatures share one set of variables.
    fn add_variables(&mut self, values: &[Tensor]) -> Result<(), TensorError> {
        for (number, value) in values.iter().enumerate().skip(self.variables.len()) {
            let name = self.add(value, &format!("variable/{number}"))?;
            self.variables.push(name);
        }
        Ok(())
    }

    fn add(&mut self, tensor: &Tensor, wanted: &str) -> Result<String, TensorError> {
        let identity = identity(tensor);
        if let Some(name) = self.names.get(&identity) {
            return Ok(name.clone());
        }
        let name = unique(&mut self.taken, wanted);
        let storable = weights::can_hold(tensor.dtype());
        let text = match tensor.len() <= INLINE_ELEMENTS || !storable {
            true => constant::write(tensor)?,
            false => None,
        };
        match text {
            Some(text) => {
                self.inline.insert(name.clone(), text);
            }
            None if storable => {
                self.stored.insert(name.clone(), tensor.clone());
            }
            None => return Err(TensorError::WrongDType { expected: DType::F32, found: tensor.dtype() }),
        }
        self.names.insert(identity, name.clone());
        Ok(name)
    }
}

fn base_name(node: &Node) -> &str {
    if node.name.is_empty() { node.op.name() } else { &node.name }
}

/// `wanted`, or that with the first number that makes it new.
fn unique(taken: &mut BTreeSet<String>, wanted: &str) -> String {
    let numbered = (1..).map(|number| format!("{wanted}:{number}"));
    let mut candidates = std::iter::once(wanted.to_owned()).chain(numbered);
    loop {
        if let Some(name) = candidates.next()
            && taken.insert(name.clone())
        {
            return name;
        }
    }
}

fn write_signature(signature: &LoadedSignature, tensors: &Tensors) -> Result<SignatureDocument, String> {
    let graph = &signature.graph;
    let names = value_names(graph, tensors)?;
    let name = |value: &ValueId| names.get(value).cloned().ok_or("a value has no source".to_owned());
    let mut inputs = BTreeMap::new();
    for (info, input) in signature.inputs.iter().zip(graph.inputs()) {
        let default = match signature.defaults.get(&info.name) {
            None => None,
            Some(tensor) => constant::write(tensor).map_err(|error| error.to_string())?,
        };
        let document = InputDocument {
            dtype: input.dtype,
            declared_dtype: info.dtype.filter(|&dtype| dtype != input.dtype),
            shape: info.shape.clone(),
            tensor: Some(info.tensor.clone()).filter(|tensor| *tensor != format!("{}:0", info.name)),
            default,
        };
        inputs.insert(info.name.clone(), document);
    }
    let mut outputs = BTreeMap::new();
    for (info, (_, value)) in signature.outputs.iter().zip(graph.outputs()) {
        let source = name(value)?;
        let document = OutputDocument {
            dtype: info.dtype,
            shape: info.shape.clone(),
            tensor: Some(info.tensor.clone()).filter(|tensor| *tensor != format!("{source}:0")),
            value: Some(source).filter(|source| *source != info.name),
        };
        outputs.insert(info.name.clone(), document);
    }
    let mut nodes = Vec::with_capacity(graph.nodes().len());
    for node in graph.nodes() {
        let (op, attributes) = operator::write(&node.op).map_err(|problem| match problem {
            Problem::Unknown => format!("{} cannot be written", node.op.name()),
            Problem::Attributes(reason) => format!("{} cannot be written: {reason}", node.op.name()),
        })?;
        let outputs = node.outputs.iter().map(name).collect::<Result<Vec<_>, _>>()?;
        nodes.push(NodeDocument {
            op,
            name: Some(node.name.clone()).filter(|name| !name.is_empty() && Some(name) != outputs.first()),
            inputs: node.inputs.iter().map(name).collect::<Result<_, _>>()?,
            outputs,
            attributes,
        });
    }
    Ok(SignatureDocument {
        method: signature.definition.method_name.clone(),
        inputs: Unique(inputs),
        outputs: Unique(outputs),
        nodes,
    })
}

/// Names for the values of one graph: aliases where there are, else the nodes' names.
fn value_names(graph: &Graph, tensors: &Tensors) -> Result<BTreeMap<ValueId, String>, String> {
    let mut taken = tensors.taken.clone();
    let mut names: BTreeMap<ValueId, String> = BTreeMap::new();
    for (value, tensor) in graph.constants() {
        // Constants that nothing reads have no name.
        if let Some(name) = tensors.names.get(&identity(tensor)) {
            names.insert(*value, name.clone());
        }
    }
    let aliases: BTreeSet<&str> = graph.inputs().iter().map(|input| input.name.as_str()).collect();
    for input in graph.inputs() {
        names.insert(input.value, input.name.clone());
    }
    for (name, value) in graph.outputs() {
        if !aliases.contains(name.as_str()) {
            names.entry(*value).or_insert_with(|| name.clone());
        }
    }
    for node in graph.nodes() {
        for output in &node.outputs {
            names.entry(*output).or_insert_with(|| unique(&mut taken, base_name(node)));
        }
    }
    Ok(names)
}
