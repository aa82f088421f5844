//! `model.json` and the tensors of `model.safetensors` become graphs.

use super::{
    bodies::Bodies,
    constant,
    document::{
        ConstantDocument, Document, FORMAT, GraphDocument, NodeDocument, PanelsDocument, SignatureDocument,
        Unique,
    },
    operator::{self, Problem},
    panels,
};
use crate::{
    formats::{
        FormatError, LoadedModel, LoadedSignature, MissingOperators, TensorInfo, definition::definition,
    },
    graph::{Builder, Graph, ValueId, passes},
    ops::{Op, state::States},
    proto::tensorflow::SignatureDef,
    tensor::Tensor,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

/// The model that `document` describes; `file` is its place in errors.
pub(super) fn model(
    file: &Path,
    document: &Document,
    tensors: BTreeMap<String, Tensor>,
) -> Result<LoadedModel, FormatError> {
    let invalid = |reason: String| FormatError::invalid(file, reason);
    if document.format != FORMAT {
        return Err(invalid(format!(
            "the format is \"{}\", but this version of kinglet reads \"{FORMAT}\"",
            document.format
        )));
    }
    missing_operators(document).into_result()?;
    let tensors = with_panels(tensors, &document.panels).map_err(invalid)?;
    let tensors = with_constants(tensors, &document.constants).map_err(invalid)?;
    let variables = variables(document, &tensors).map_err(invalid)?;
    let mut model = Model { tensors: &tensors, variables: &variables, used: BTreeSet::new() };
    let mut bodies = Bodies::new(&document.graphs);
    let mut signatures = BTreeMap::new();
    let mut definitions = BTreeMap::new();
    for (name, signature) in &document.signatures.0 {
        let in_place = |problem: String| invalid(format!("signatures.{name}.{problem}"));
        if !signature.callable {
            definitions.insert(name.clone(), shown_only(signature).map_err(in_place)?);
            continue;
        }
        let mut importer = Importer::new(&mut model, &mut bodies);
        let loaded = importer.signature(signature).map_err(in_place)?;
        definitions.insert(name.clone(), loaded.definition.clone());
        signatures.insert(name.clone(), loaded);
    }
    bodies.rest(&mut model).map_err(invalid)?;
    if signatures.is_empty() {
        return Err(invalid("\"signatures\" has none that can be called".into()));
    }
    let used = model.used;
    let weight_bytes = used.iter().chain(&document.variables).filter_map(|name| tensors.get(name));
    Ok(LoadedModel {
        platform: "kinglet",
        definitions,
        weight_bytes: weight_bytes.map(Tensor::memory).sum(),
        signatures,
    })
}

/// Every operator name that means nothing here, with its place.
fn missing_operators(document: &Document) -> MissingOperators {
    let signatures = document.signatures.0.iter();
    let signatures = signatures.map(|(name, signature)| (format!("signatures.{name}"), &signature.nodes));
    let graphs = document.graphs.0.iter().map(|(name, graph)| (format!("graphs.{name}"), &graph.nodes));
    let mut missing = MissingOperators::default();
    for (place, nodes) in signatures.chain(graphs) {
        for (position, node) in nodes.iter().enumerate() {
            if !operator::is_known(&node.op) {
                missing.add(&node.op, &format!("{place}.nodes[{position}]"));
            }
        }
    }
    missing
}

/// The definition of a signature that nobody can call.
fn shown_only(document: &SignatureDocument) -> Result<SignatureDef, String> {
    if !document.nodes.is_empty() {
        return Err("nodes: a signature that is not callable has none".into());
    }
    let info = |name: &String, tensor: &Option<String>, dtype, shape: &Option<_>| TensorInfo {
        name: name.clone(),
        tensor: tensor.clone().unwrap_or_else(|| format!("{name}:0")),
        dtype,
        shape: shape.clone(),
    };
    let inputs = document.inputs.0.iter();
    let inputs: Vec<_> =
        inputs.map(|(name, input)| info(name, &input.tensor, input.dtype, &input.shape)).collect();
    let outputs = document.outputs.0.iter();
    let outputs: Vec<_> =
        outputs.map(|(name, output)| info(name, &output.tensor, output.dtype, &output.shape)).collect();
    Ok(definition(&document.method, &inputs, &outputs))
}

/// The tensors in their own order, of which some are stored as panels.
fn with_panels(
    mut tensors: BTreeMap<String, Tensor>,
    panels: &Unique<PanelsDocument>,
) -> Result<BTreeMap<String, Tensor>, String> {
    for (name, document) in &panels.0 {
        let stored = tensors
            .get_mut(name)
            .ok_or_else(|| format!("panels.{name}: the weights file has no such tensor"))?;
        *stored = panels::read(document, stored).map_err(|problem| format!("panels.{name}: {problem}"))?;
    }
    Ok(tensors)
}

fn with_constants(
    mut tensors: BTreeMap<String, Tensor>,
    constants: &Unique<ConstantDocument>,
) -> Result<BTreeMap<String, Tensor>, String> {
    for (name, document) in &constants.0 {
        let tensor = constant::read(document).map_err(|problem| format!("constants.{name}: {problem}"))?;
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(format!("constants.{name}: the weights file has a tensor of that name too"));
        }
    }
    Ok(tensors)
}

fn variables(document: &Document, tensors: &BTreeMap<String, Tensor>) -> Result<Arc<States>, String> {
    let initial = |name: &String| {
        tensors.get(name).cloned().ok_or_else(|| format!("variables: there is no tensor \"{name}\""))
    };
    Ok(Arc::new(States::new(document.variables.iter().map(initial).collect::<Result<_, _>>()?)))
}

/// What all graphs of a file share.
pub(super) struct Model<'a> {
    tensors: &'a BTreeMap<String, Tensor>,
    variables: &'a Arc<States>,
    /// Names of the constants that a graph reads.
    used: BTreeSet<String>,
}

/// Builds one graph: of a signature, or of a body.
pub(super) struct Importer<'a, 'm> {
    model: &'m mut Model<'a>,
    bodies: &'m mut Bodies<'a>,
    values: BTreeMap<&'a str, ValueId>,
    builder: Builder,
}

impl<'a, 'm> Importer<'a, 'm> {
    pub(super) fn new(model: &'m mut Model<'a>, bodies: &'m mut Bodies<'a>) -> Self {
        Self { model, bodies, values: BTreeMap::new(), builder: Builder::new() }
    }

    fn signature(&mut self, document: &'a SignatureDocument) -> Result<LoadedSignature, String> {
        let (inputs, defaults) = self.inputs(document)?;
        self.nodes(&document.nodes)?;
        let (outputs, results) = self.outputs(document)?;
        Ok(LoadedSignature {
            definition: definition(&document.method, &inputs, &outputs),
            inputs,
            outputs,
            defaults,
            graph: Arc::new(self.finish(results)),
        })
    }

    /// The graph of a body.
    pub(super) fn body(&mut self, document: &'a GraphDocument) -> Result<Graph, String> {
        for input in &document.inputs {
            let value = self.builder.input(&input.name, input.dtype, input.shape.clone());
            self.name(&input.name, value).map_err(|problem| format!("inputs: {problem}"))?;
        }
        self.nodes(&document.nodes)?;
        let output = |name: &'a String| {
            let value = self.value(name);
            let value =
                value.ok_or_else(|| format!("outputs: no input, node or tensor is called \"{name}\""))?;
            Ok((String::new(), value))
        };
        let results = document.outputs.iter().map(output).collect::<Result<_, String>>()?;
        Ok(self.finish(results))
    }

    fn nodes(&mut self, nodes: &'a [NodeDocument]) -> Result<(), String> {
        nodes.iter().enumerate().try_for_each(|(position, node)| {
            self.node(nodes, position, node)
                .map_err(|problem| format!("nodes[{position}] ({}): {problem}", node.op))
        })
    }

    fn inputs(
        &mut self,
        document: &'a SignatureDocument,
    ) -> Result<(Vec<TensorInfo>, BTreeMap<String, Tensor>), String> {
        let mut infos = Vec::with_capacity(document.inputs.0.len());
        let mut defaults = BTreeMap::new();
        for (name, input) in &document.inputs.0 {
            let dtype = input.dtype.ok_or_else(|| format!("inputs.{name}: dtype is missing"))?;
            let value = self.builder.input(name, dtype, input.shape.clone());
            self.name(name, value).map_err(|problem| format!("inputs.{name}: {problem}"))?;
            if let Some(default) = &input.default {
                let tensor = constant::read(default)
                    .ok()
                    .filter(|tensor| tensor.dtype() == dtype)
                    .ok_or_else(|| format!("inputs.{name}: the default is no {dtype}"))?;
                defaults.insert(name.clone(), tensor);
            }
            infos.push(TensorInfo {
                name: name.clone(),
                tensor: input.tensor.clone().unwrap_or_else(|| format!("{name}:0")),
                dtype: Some(input.declared_dtype.unwrap_or(dtype)),
                shape: input.shape.clone(),
            });
        }
        Ok((infos, defaults))
    }

    fn node(
        &mut self,
        nodes: &[NodeDocument],
        position: usize,
        node: &'a NodeDocument,
    ) -> Result<(), String> {
        let mut op = operator::read(&node.op, &node.attributes).map_err(|problem| match problem {
            Problem::Unknown => "there is no such operator".into(),
            Problem::Attributes(text) => text,
        })?;
        self.check_variable(&op)?;
        for body in op.bodies_mut() {
            let name = body.name().unwrap_or_default().to_owned();
            *body = self.bodies.get(&name, self.model)?;
        }
        if node.outputs.is_empty() {
            return Err("it has no outputs".into());
        }
        let inputs = node
            .inputs
            .iter()
            .map(|name| self.value(name).ok_or_else(|| unknown_value(nodes, position, name)))
            .collect::<Result<Vec<_>, _>>()?;
        self.builder.set_scope(node.name.as_ref().unwrap_or(&node.outputs[0]));
        let outputs = self.builder.push_many(op, &inputs, node.outputs.len());
        node.outputs.iter().zip(outputs).try_for_each(|(name, value)| self.name(name, value))
    }

    fn check_variable(&self, op: &Op) -> Result<(), String> {
        let cell = match op {
            Op::ReadState(read) => read.cell,
            Op::AssignState(assign) => assign.cell,
            _ => return Ok(()),
        };
        match self.model.variables.len() {
            variables if cell < variables => Ok(()),
            variables => Err(format!("there is no variable {cell}; \"variables\" lists {variables}")),
        }
    }

    fn outputs(
        &mut self,
        document: &'a SignatureDocument,
    ) -> Result<(Vec<TensorInfo>, Vec<(String, ValueId)>), String> {
        let mut infos = Vec::with_capacity(document.outputs.0.len());
        let mut results = Vec::with_capacity(document.outputs.0.len());
        for (name, output) in &document.outputs.0 {
            let source = output.value.as_ref().unwrap_or(name);
            let value = self
                .value(source)
                .ok_or_else(|| format!("outputs.{name}: no input, node or tensor is called \"{source}\""))?;
            results.push((name.clone(), value));
            infos.push(TensorInfo {
                name: name.clone(),
                tensor: output.tensor.clone().unwrap_or_else(|| format!("{source}:0")),
                dtype: output.dtype,
                shape: output.shape.clone(),
            });
        }
        if results.is_empty() {
            return Err("outputs: there are none".into());
        }
        Ok((infos, results))
    }

    fn finish(&mut self, results: Vec<(String, ValueId)>) -> Graph {
        let mut builder = std::mem::take(&mut self.builder);
        builder.set_states(self.model.variables.clone());
        passes::simplify(builder.finish(results))
    }

    /// Gives a value its name.
    fn name(&mut self, name: &'a str, value: ValueId) -> Result<(), String> {
        if self.model.tensors.contains_key(name) {
            return Err(format!(
                "\"{name}\" is already the name of a constant or of a tensor of the weights"
            ));
        }
        match self.values.insert(name, value) {
            None => Ok(()),
            Some(_) => Err(format!("\"{name}\" is already the name of another value of the graph")),
        }
    }

    /// The value of that name so far; constants enter the graph where they are first read.
    fn value(&mut self, name: &'a str) -> Option<ValueId> {
        if let Some(&value) = self.values.get(name) {
            return Some(value);
        }
        let value = self.builder.constant(self.model.tensors.get(name)?.clone());
        self.values.insert(name, value);
        self.model.used.insert(name.to_owned());
        Some(value)
    }
}

/// Why a node cannot read `name`: it comes later, itself included, or never.
fn unknown_value(nodes: &[NodeDocument], position: usize, name: &str) -> String {
    let makes = |node: &NodeDocument| node.outputs.iter().any(|output| output == name);
    match nodes.iter().skip(position).position(makes) {
        Some(0) => format!("it reads its own output \"{name}\""),
        Some(later) => format!(
            "it reads \"{name}\", which only nodes[{}] computes; nodes stand in the order in which they run",
            position + later
        ),
        None => format!("it reads \"{name}\", but no input, earlier node, constant or weight has that name"),
    }
}
