//! A loaded model of any format becomes a folder of this one.

use super::{
    MODEL_FILE, WEIGHTS_FILE, constant,
    document::{
        ConstantDocument, Document, FORMAT, GraphDocument, GraphInputDocument, InputDocument, NodeDocument,
        OutputDocument, PanelsDocument, SignatureDocument, Unique,
    },
    layout,
    operator::{self, Problem},
    panels::Uses,
    weights,
};
use crate::{
    formats::{
        FormatError, LoadedModel, LoadedSignature, TensorInfo, definition::tensor_info, identity::Identity,
    },
    graph::{Graph, Node, ValueId},
    kernels::PanelWidth,
    maps::Ordered,
    ops::control::Body,
    proto::tensorflow::{self as proto, SignatureDef},
    tensor::{DType, Tensor},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::Path,
    sync::Arc,
};

/// Constants of at most so many elements stand in the text.
const INLINE_ELEMENTS: usize = 16;

/// Writes `model.json` and `model.safetensors` into `folder`, which is made if need be. What it
/// replaces stays intact for those who have it mapped. Weights of products are written as panels of the shape `width`, if
/// one is given.
///
/// # Errors
/// [`FormatError::Invalid`] names what has no form in these files; [`FormatError::Io`] where they cannot be
/// written.
pub fn save(model: &LoadedModel, folder: &Path, width: Option<PanelWidth>) -> Result<(), FormatError> {
    let invalid = |reason: String| FormatError::invalid(folder, reason);
    let mut writer = Writer::new(model);
    for (name, signature) in &model.signatures {
        let in_place = |reason: String| invalid(format!("signature {name}: {reason}"));
        writer.add_constants(&signature.graph).map_err(in_place)?;
        writer.add_variables(&signature.graph.variables()).map_err(in_place)?;
    }
    let mut signatures = BTreeMap::new();
    for (name, signature) in &model.signatures {
        let document = writer.signature(signature);
        signatures
            .insert(name.clone(), document.map_err(|reason| invalid(format!("signature {name}: {reason}")))?);
    }
    for (name, definition) in &model.definitions {
        signatures.entry(name.clone()).or_insert_with(|| shown_only(definition));
    }
    let panels = match width {
        Some(width) => writer.lay_in_panels(model, width).map_err(invalid)?,
        None => BTreeMap::new(),
    };
    let document = Document {
        format: FORMAT.into(),
        variables: writer.variables,
        constants: Unique(writer.inline),
        panels: Unique(panels),
        graphs: Unique(writer.graphs),
        signatures: Unique(signatures),
    };
    let text = layout::text(&document).map_err(|error| invalid(error.to_string()))?;
    let io = |error: std::io::Error| FormatError::io(folder, &error);
    fs::create_dir_all(folder).map_err(io)?;
    let temporary = folder.join(format!(".{WEIGHTS_FILE}.new"));
    weights::write(&writer.stored, Some(&text), &temporary).map_err(io)?;
    fs::rename(&temporary, folder.join(WEIGHTS_FILE)).map_err(io)?;
    let temporary = folder.join(format!(".{MODEL_FILE}.new"));
    fs::write(&temporary, text).map_err(io)?;
    fs::rename(&temporary, folder.join(MODEL_FILE)).map_err(io)
}

/// A signature that nobody can call.
fn shown_only(definition: &SignatureDef) -> SignatureDocument {
    let infos = |infos: &BTreeMap<String, proto::TensorInfo>| -> Vec<TensorInfo> {
        infos.iter().map(|(name, info)| tensor_info(name, info)).collect()
    };
    let own_name =
        |info: &TensorInfo| Some(info.tensor.clone()).filter(|tensor| *tensor != format!("{}:0", info.name));
    let input = |info: TensorInfo| {
        let tensor = own_name(&info);
        let document = InputDocument {
            dtype: info.dtype,
            declared_dtype: None,
            shape: info.shape,
            tensor,
            default: None,
        };
        (info.name, document)
    };
    let output = |info: TensorInfo| {
        let tensor = own_name(&info);
        (info.name, OutputDocument { dtype: info.dtype, shape: info.shape, tensor, value: None })
    };
    SignatureDocument {
        method: definition.method_name.clone(),
        callable: false,
        inputs: Unique(infos(&definition.inputs).into_iter().map(input).into_map()),
        outputs: Unique(infos(&definition.outputs).into_iter().map(output).into_map()),
        nodes: Vec::new(),
    }
}

/// What the files will hold, as far as it is known.
struct Writer {
    /// Constants of all signatures by where they are, and by what they are.
    names: HashMap<Identity, String>,
    contents: HashMap<(DType, Vec<usize>, u32), Vec<String>>,
    taken: BTreeSet<String>,
    inline: BTreeMap<String, ConstantDocument>,
    stored: BTreeMap<String, Tensor>,
    variables: Vec<String>,
    /// Names of bodies by where they are.
    bodies: HashMap<usize, String>,
    graphs: BTreeMap<String, GraphDocument>,
}

impl Writer {
    fn new(model: &LoadedModel) -> Self {
        let aliases = |signature: &LoadedSignature| {
            let infos = signature.inputs.iter().chain(&signature.outputs);
            infos.map(|info| info.name.clone()).collect::<Vec<_>>()
        };
        Self {
            names: HashMap::new(),
            contents: HashMap::new(),
            taken: model.signatures.values().flat_map(aliases).into_set(),
            inline: BTreeMap::new(),
            stored: BTreeMap::new(),
            variables: Vec::new(),
            bodies: HashMap::new(),
            graphs: BTreeMap::new(),
        }
    }

    /// The constants of a graph and of the bodies in it.
    fn add_constants(&mut self, graph: &Graph) -> Result<(), String> {
        for node in graph.nodes() {
            for (position, input) in node.inputs.iter().enumerate() {
                if let Some(tensor) = graph.constants().get(input) {
                    self.add(tensor, &format!("{}/{position}", base_name(node)))?;
                }
            }
            for body in node.op.bodies() {
                self.add_constants(body_graph(body)?)?;
            }
        }
        let outputs =
            graph.outputs().iter().filter_map(|(name, value)| Some((name, graph.constants().get(value)?)));
        for (name, tensor) in outputs {
            self.add(tensor, if name.is_empty() { "constant" } else { name })?;
        }
        Ok(())
    }

    /// All signatures share one set of variables.
    fn add_variables(&mut self, values: &[Tensor]) -> Result<(), String> {
        for (number, value) in values.iter().enumerate().skip(self.variables.len()) {
            let name = self.add(value, &format!("variable/{number}"))?;
            self.variables.push(name);
        }
        Ok(())
    }

    fn add(&mut self, tensor: &Tensor, wanted: &str) -> Result<String, String> {
        let identity = Identity::of(tensor);
        if let Some(name) = self.names.get(&identity) {
            return Ok(name.clone());
        }
        let storable = weights::can_hold(tensor.dtype());
        let mut content = None;
        if storable {
            let key = (tensor.dtype(), tensor.shape().to_vec(), crc32c::crc32c(tensor.as_bytes()));
            let same = self.contents.get(&key).into_iter().flatten();
            let mut same = same.filter(|name| {
                self.stored.get(*name).is_some_and(|stored| stored.as_bytes() == tensor.as_bytes())
            });
            if let Some(name) = same.next().cloned() {
                self.names.insert(identity, name.clone());
                return Ok(name);
            }
            content = Some(key);
        }
        let name = unique(&mut self.taken, wanted);
        let text = match tensor.len() <= INLINE_ELEMENTS || !storable {
            true => constant::write(tensor).map_err(|error| error.to_string())?,
            false => None,
        };
        match text {
            Some(text) => {
                self.inline.insert(name.clone(), text);
            }
            None if storable => {
                self.stored.insert(name.clone(), tensor.clone());
                if let Some(content) = content {
                    self.contents.entry(content).or_default().push(name.clone());
                }
            }
            None => return Err(format!("a constant of {} cannot be written ({wanted})", tensor.dtype())),
        }
        self.names.insert(identity, name.clone());
        Ok(name)
    }

    fn signature(&mut self, signature: &LoadedSignature) -> Result<SignatureDocument, String> {
        let graph = &signature.graph;
        let aliases = graph.inputs().iter().map(|input| input.name.as_str()).into_set();
        let mut names = self.constant_names(graph);
        for input in graph.inputs() {
            names.insert(input.value, input.name.clone());
        }
        for (name, value) in graph.outputs() {
            if !aliases.contains(name.as_str()) {
                names.entry(*value).or_insert_with(|| name.clone());
            }
        }
        let mut taken = self.taken.clone();
        name_results(graph, &mut names, &mut taken);
        let mut inputs = BTreeMap::new();
        for (info, input) in signature.inputs.iter().zip(graph.inputs()) {
            let default = match signature.defaults.get(&info.name) {
                None => None,
                Some(tensor) => constant::write(tensor).map_err(|error| error.to_string())?,
            };
            let document = InputDocument {
                dtype: Some(input.dtype),
                declared_dtype: info.dtype.filter(|&dtype| dtype != input.dtype),
                shape: info.shape.clone(),
                tensor: Some(info.tensor.clone()).filter(|tensor| *tensor != format!("{}:0", info.name)),
                default,
            };
            inputs.insert(info.name.clone(), document);
        }
        let mut outputs = BTreeMap::new();
        for (info, (_, value)) in signature.outputs.iter().zip(graph.outputs()) {
            let source = name_of(&names, *value)?;
            let document = OutputDocument {
                dtype: info.dtype,
                shape: info.shape.clone(),
                tensor: Some(info.tensor.clone()).filter(|tensor| *tensor != format!("{source}:0")),
                value: Some(source).filter(|source| *source != info.name),
            };
            outputs.insert(info.name.clone(), document);
        }
        Ok(SignatureDocument {
            method: signature.definition.method_name.clone(),
            callable: true,
            inputs: Unique(inputs),
            outputs: Unique(outputs),
            nodes: self.nodes(graph, &names)?,
        })
    }

    /// Replaces the weights of products by their panels.
    fn lay_in_panels(
        &mut self,
        model: &LoadedModel,
        width: PanelWidth,
    ) -> Result<BTreeMap<String, PanelsDocument>, String> {
        let mut uses = Uses::default();
        let mut graphs: Vec<&Arc<Graph>> =
            model.signatures.values().map(|signature| &signature.graph).collect();
        while let Some(graph) = graphs.pop() {
            uses.add(graph, |value| self.names.get(&Identity::of(graph.constants().get(&value)?)).cloned());
            for body in graph.nodes().iter().flat_map(|node| node.op.bodies()) {
                graphs.push(body_graph(body)?);
            }
        }
        self.variables.iter().for_each(|name| uses.add_other(name.clone()));
        let mut documents = BTreeMap::new();
        for (name, tensor) in &mut self.stored {
            if let Some((panels, document)) = uses.panels(name, tensor, width) {
                *tensor = panels;
                documents.insert(name.clone(), document);
            }
        }
        Ok(documents)
    }

    /// The name of a body, which is written if it is a new one.
    fn body(&mut self, body: &Body, wanted: &str) -> Result<String, String> {
        let graph = body_graph(body)?;
        let place = std::ptr::from_ref::<Graph>(graph).addr();
        if let Some(name) = self.bodies.get(&place) {
            return Ok(name.clone());
        }
        let mut numbered = (1..).map(|number| format!("{wanted}:{number}"));
        let mut name = wanted.to_owned();
        while let (true, Some(next)) = (self.graphs.contains_key(&name), numbered.next()) {
            name = next;
        }
        let empty = GraphDocument { inputs: Vec::new(), outputs: Vec::new(), nodes: Vec::new() };
        self.graphs.insert(name.clone(), empty);
        let mut names = self.constant_names(graph);
        let mut taken = self.taken.clone();
        let mut inputs = Vec::with_capacity(graph.inputs().len());
        for input in graph.inputs() {
            let wanted = if input.name.is_empty() { "x" } else { &input.name };
            let name = unique(&mut taken, wanted);
            names.insert(input.value, name.clone());
            inputs.push(GraphInputDocument { name, dtype: input.dtype, shape: input.shape.clone() });
        }
        name_results(graph, &mut names, &mut taken);
        let outputs = graph.outputs().iter().map(|(_, value)| name_of(&names, *value));
        let outputs = outputs.collect::<Result<_, _>>()?;
        let document = GraphDocument { inputs, outputs, nodes: self.nodes(graph, &names)? };
        self.graphs.insert(name.clone(), document);
        self.bodies.insert(place, name.clone());
        Ok(name)
    }

    fn nodes(
        &mut self,
        graph: &Graph,
        names: &BTreeMap<ValueId, String>,
    ) -> Result<Vec<NodeDocument>, String> {
        let mut nodes = Vec::with_capacity(graph.nodes().len());
        for node in graph.nodes() {
            let mut op = node.op.clone();
            for body in op.bodies_mut() {
                *body = Body::named(self.body(body, base_name(node))?);
            }
            let (op, attributes) = operator::write(&op).map_err(|problem| match problem {
                Problem::Unknown => format!("{} cannot be written", node.op.name()),
                Problem::Attributes(reason) => format!("{} cannot be written: {reason}", node.op.name()),
            })?;
            let outputs =
                node.outputs.iter().map(|value| name_of(names, *value)).collect::<Result<Vec<_>, _>>()?;
            nodes.push(NodeDocument {
                op,
                name: Some(node.name.clone())
                    .filter(|name| !name.is_empty() && Some(name) != outputs.first()),
                inputs: node.inputs.iter().map(|value| name_of(names, *value)).collect::<Result<_, _>>()?,
                outputs,
                attributes,
            });
        }
        Ok(nodes)
    }

    /// Names of the graph's constants; those that nothing reads have none.
    fn constant_names(&self, graph: &Graph) -> BTreeMap<ValueId, String> {
        let constants = graph.constants().iter();
        constants
            .filter_map(|(value, tensor)| Some((*value, self.names.get(&Identity::of(tensor))?.clone())))
            .into_map()
    }
}

fn body_graph(body: &Body) -> Result<&Arc<Graph>, String> {
    Graph::of_body(body).ok_or_else(|| "the body of a branch or a loop is missing".to_owned())
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

/// Names after the nodes, for the values that have none.
fn name_results(graph: &Graph, names: &mut BTreeMap<ValueId, String>, taken: &mut BTreeSet<String>) {
    for node in graph.nodes() {
        for output in &node.outputs {
            names.entry(*output).or_insert_with(|| unique(taken, base_name(node)));
        }
    }
}

fn name_of(names: &BTreeMap<ValueId, String>, value: ValueId) -> Result<String, String> {
    names.get(&value).cloned().ok_or_else(|| "a value has no source".to_owned())
}
