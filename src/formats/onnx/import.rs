//! From a graph's nodes, in their order, to operators of the graph being built.
//!
//! Names live in scopes. The body of a branch or a loop sees the names around it: what it uses of
//! them becomes a constant or an input of the body. The body of a function sees its arguments only;
//! it is inlined.

use super::{
    attributes::Attributes,
    facts::Facts,
    node::{Node, Stop, Value},
    ops::{self, Outputs},
    tensor::{self, Declared, ExternalFiles},
};
use crate::{
    formats::{FormatError, MissingOperators},
    graph::{Builder, ValueId},
    proto::onnx::{FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto},
    tensor::{DType, Tensor},
};
use std::collections::HashMap;

/// Nodes imported for one model.
const MAX_NODES: usize = 2_000_000;
/// Bodies and function calls within each other.
const MAX_DEPTH: usize = 32;
/// Bytes of a node's name in errors.
const MAX_NAME: usize = 300;

/// Versions of operator sets by domain.
type Opsets<'a> = HashMap<&'a str, i64>;

/// Names that a graph or a function's body may use.
struct Scope<'a> {
    names: HashMap<&'a str, Value>,
    /// Declared types and shapes.
    declared: HashMap<&'a str, Declared>,
    /// Graphs around the one that the names belong to.
    level: usize,
    /// Names around it are not seen.
    closed: bool,
    opsets: Opsets<'a>,
    attributes: Attributes<'a>,
}

/// A graph whose import waits for that of a body in it.
#[derive(Default)]
struct Outer {
    b: Builder,
    facts: Facts,
    captures: Captures,
}

/// What a body uses of the graph around it.
#[derive(Default)]
struct Captures {
    inner: HashMap<ValueId, ValueId>,
    /// Values of the graph around it that are inputs of the body, in their order.
    inputs: Vec<ValueId>,
}

/// A body that was imported.
pub(super) struct ImportedBody {
    /// Its inputs come first, then one for each of `captured`.
    pub(super) builder: Builder,
    /// Values of the graph around it.
    pub(super) captured: Vec<ValueId>,
    pub(super) results: Vec<Value>,
    /// Types and shapes of the results.
    pub(super) declared: Vec<Declared>,
}

/// The import of one model.
pub(super) struct Import<'a> {
    /// The graph being built.
    pub(super) b: Builder,
    /// Unknown operators met.
    pub(super) missing: MissingOperators,
    files: &'a ExternalFiles,
    functions: HashMap<(&'a str, &'a str), &'a FunctionProto>,
    facts: Facts,
    captures: Captures,
    outer: Vec<Outer>,
    scopes: Vec<Scope<'a>>,
    imported: usize,
}

impl<'a> Import<'a> {
    /// An import into an empty graph, with the main graph's initialisers and declarations.
    pub(super) fn new(
        model: &'a ModelProto,
        graph: &'a GraphProto,
        files: &'a ExternalFiles,
    ) -> Result<Self, FormatError> {
        let functions =
            model.functions.iter().map(|function| ((domain(&function.domain), &*function.name), function));
        let mut import = Self {
            b: Builder::new(),
            missing: MissingOperators::default(),
            files,
            functions: functions.collect(),
            facts: Facts::default(),
            captures: Captures::default(),
            outer: Vec::new(),
            scopes: Vec::new(),
            imported: 0,
        };
        import.open(graph, opsets(&model.opset_import))?;
        Ok(import)
    }

    /// Opens a scope for a graph: its initialisers are there.
    fn open(&mut self, graph: &'a GraphProto, opsets: Opsets<'a>) -> Result<(), FormatError> {
        let infos = graph.value_info.iter().chain(&graph.output);
        let attributes = self.scopes.last().map(|scope| scope.attributes.clone()).unwrap_or_default();
        let mut scope = Scope {
            names: HashMap::new(),
            declared: infos.map(|info| (info.name.as_str(), tensor::declared(info).open())).collect(),
            level: self.outer.len(),
            closed: false,
            opsets,
            attributes,
        };
        for message in &graph.initializer {
            let tensor = tensor::decode(message, self.files)
                .map_err(|reason| FormatError::node(&message.name, format!("initialiser: {reason}")))?;
            scope.names.insert(&message.name, Value::Tensor(self.b.constant(tensor)));
        }
        for message in &graph.sparse_initializer {
            let name = message.values.as_ref().map(|values| values.name.as_str()).unwrap_or_default();
            let tensor = tensor::decode_sparse(message, self.files)
                .map_err(|reason| FormatError::node(name, format!("sparse initialiser: {reason}")))?;
            scope.names.insert(name, Value::Tensor(self.b.constant(tensor)));
        }
        self.scopes.push(scope);
        Ok(())
    }

    /// True when a name is an initialiser of the innermost graph.
    pub(super) fn is_initialised(&self, name: &str) -> bool {
        self.scopes.last().is_some_and(|scope| scope.names.contains_key(name))
    }

    /// Declares an input of the graph being built.
    pub(super) fn input(&mut self, name: &'a str, alias: &str, dtype: DType, declared: &Declared) -> ValueId {
        let value = self.b.input(alias, dtype, declared.dims.clone());
        self.facts.declare(&self.b, value, &Declared { dtype: Some(dtype), ..declared.clone() });
        self.bind(name, Value::Tensor(value));
        value
    }

    fn bind(&mut self, name: &'a str, value: Value) {
        if let Some(scope) = self.scopes.last_mut()
            && !name.is_empty()
        {
            scope.names.insert(name, value);
        }
    }

    /// The value of a name, taken into the graph being built when it belongs to one around it.
    pub(super) fn resolve(&mut self, name: &str) -> Option<Value> {
        if name.is_empty() {
            return Some(Value::Absent);
        }
        for scope in self.scopes.iter().rev() {
            if let Some(value) = scope.names.get(name) {
                let (value, level) = (value.clone(), scope.level);
                return Some(match value {
                    Value::Tensor(value) => Value::Tensor(self.carry(value, level)),
                    Value::Sequence(values) => {
                        Value::Sequence(values.into_iter().map(|value| self.carry(value, level)).collect())
                    }
                    other => other,
                });
            }
            if scope.closed {
                return None;
            }
        }
        None
    }

    /// A value of the graph at `level` as one of the graph being built.
    fn carry(&mut self, mut value: ValueId, level: usize) -> ValueId {
        for inner in level + 1..=self.outer.len() {
            let around = &mut self.outer[inner - 1];
            let declared = Declared {
                dtype: around.facts.dtype(&around.b, value),
                dims: around.facts.dims(&around.b, value),
                nested: false,
            };
            let constant = around.b.constant_value(value).cloned();
            let (b, facts, captures) = match self.outer.get_mut(inner) {
                Some(outer) => (&mut outer.b, &mut outer.facts, &mut outer.captures),
                None => (&mut self.b, &mut self.facts, &mut self.captures),
            };
            value = *captures.inner.entry(value).or_insert_with(|| match constant {
                Some(tensor) => b.constant(tensor),
                None => {
                    captures.inputs.push(value);
                    let made = b.input("", declared.dtype.unwrap_or(DType::F32), declared.dims.clone());
                    facts.declare(b, made, &declared);
                    made
                }
            });
        }
        value
    }

    /// The element type of a value, where it is known.
    pub(super) fn dtype(&mut self, value: ValueId) -> Option<DType> {
        self.facts.dtype(&self.b, value)
    }

    /// The dimensions of a value, where they are known.
    pub(super) fn dims(&mut self, value: ValueId) -> Option<Vec<Option<usize>>> {
        self.facts.dims(&self.b, value)
    }

    /// True when the dimension at `axis` of a value is what `sizes` has at `position`.
    pub(super) fn is_size_of(
        &mut self,
        sizes: ValueId,
        position: usize,
        value: ValueId,
        axis: usize,
    ) -> bool {
        self.facts.is_size_of(&self.b, sizes, position, value, axis)
    }

    /// The rank of a value, which is needed to import what uses it.
    pub(super) fn rank(&mut self, value: ValueId) -> Result<usize, Stop> {
        let dims = self.dims(value);
        dims.map(|dims| dims.len()).ok_or_else(|| {
            "the rank of an input cannot be told; run ONNX shape inference on the model".into()
        })
    }

    /// Declares what is known of a value from elsewhere.
    pub(super) fn declare(&mut self, value: ValueId, declared: &Declared) {
        self.facts.declare(&self.b, value, declared);
    }

    /// A tensor of the file.
    pub(super) fn decode(&self, message: &'a crate::proto::onnx::TensorProto) -> Result<Tensor, Stop> {
        tensor::decode(message, self.files).map_err(Stop::Reason)
    }

    /// A sparse tensor of the file.
    pub(super) fn decode_sparse(
        &self,
        message: &'a crate::proto::onnx::SparseTensorProto,
    ) -> Result<Tensor, Stop> {
        tensor::decode_sparse(message, self.files).map_err(Stop::Reason)
    }

    /// The tensor of a value that depends on constants and fixed sizes only.
    pub(super) fn known_value(&mut self, value: ValueId) -> Option<Tensor> {
        self.b.known_value(value).or_else(|| self.facts.value(&self.b, value))
    }

    /// The value as a constant, where it depends on constants only.
    pub(super) fn folded(&mut self, value: ValueId) -> ValueId {
        match self.b.known_value(value) {
            Some(tensor) if self.b.constant_value(value).is_none() => self.b.constant(tensor),
            _ => value,
        }
    }

    /// Imports nodes into the graph being built.
    pub(super) fn nodes(&mut self, nodes: &'a [NodeProto]) -> Result<(), FormatError> {
        nodes.iter().try_for_each(|node| self.node(node))
    }

    fn node(&mut self, proto: &'a NodeProto) -> Result<(), FormatError> {
        let name = display_name(proto);
        self.imported += 1;
        if self.imported > MAX_NODES {
            return Err(FormatError::node(name, format!("more than {MAX_NODES} nodes")));
        }
        let mut inputs = Vec::with_capacity(proto.input.len());
        for input in &proto.input {
            inputs.push(self.resolve(input).ok_or_else(|| {
                let input = shortened(input);
                FormatError::node(&name, format!("input \"{input}\" is not made by any node before this one"))
            })?);
        }
        let Some(scope) = self.scopes.last() else { return Ok(()) };
        let node = Node {
            proto,
            attributes: Attributes::of(proto, &scope.attributes),
            inputs,
            opset: scope.opsets.get(domain(&proto.domain)).copied().unwrap_or(ops::NEWEST),
        };
        self.b.set_scope(name.as_str());
        let function = self.functions.get(&(domain(&proto.domain), proto.op_type.as_str())).copied();
        let outputs = match (function, ops::row(domain(&proto.domain), &proto.op_type)) {
            (Some(function), _) => self.call(function, &node),
            (None, Some(row)) => row(self, &node),
            (None, None) => {
                let prefix = domain(&proto.domain);
                let dot = if prefix.is_empty() { "" } else { "." };
                self.missing.add(&format!("{prefix}{dot}{}", proto.op_type), &name);
                Err(Stop::Missing)
            }
        };
        let outputs = match outputs {
            Ok(outputs) => outputs,
            Err(Stop::Missing) => vec![Value::Missing; proto.output.len()],
            Err(Stop::Reason(reason)) => {
                return Err(FormatError::node(name, format!("{}: {reason}", shortened(&proto.op_type))));
            }
            Err(Stop::Error(error)) => return Err(error),
        };
        let made = outputs.len();
        let mut outputs = outputs.into_iter();
        for output in proto.output.iter() {
            match outputs.next() {
                Some(value) => {
                    if let Value::Tensor(value) = value
                        && let Some(declared) =
                            self.scopes.last().and_then(|scope| scope.declared.get(output.as_str()))
                    {
                        self.facts.declare(&self.b, value, declared);
                    }
                    self.bind(output, value);
                }
                None if output.is_empty() => {}
                None => {
                    let reason = format!(
                        "{} has {made} outputs here, but \"{}\" is used",
                        proto.op_type,
                        shortened(output)
                    );
                    return Err(FormatError::node(name, reason));
                }
            }
        }
        Ok(())
    }

    /// Imports the body of a function in place of a call.
    fn call(&mut self, function: &'a FunctionProto, node: &Node<'a>) -> Outputs {
        if self.scopes.len() >= MAX_DEPTH {
            return Err("functions call each other too deeply".into());
        }
        let mut opsets = opsets(&function.opset_import);
        if opsets.is_empty()
            && let Some(scope) = self.scopes.last()
        {
            opsets = scope.opsets.clone();
        }
        let arguments = node.inputs.iter().cloned().chain(std::iter::repeat(Value::Absent));
        self.scopes.push(Scope {
            names: function.input.iter().map(String::as_str).zip(arguments).collect(),
            declared: HashMap::new(),
            level: self.outer.len(),
            closed: true,
            opsets,
            attributes: node.attributes.clone().with_defaults(&function.attribute_proto),
        });
        let imported = self.nodes(&function.node);
        let results = self.results(function.output.iter().map(String::as_str));
        self.scopes.pop();
        imported?;
        results
    }

    /// The values of these names.
    fn results(&mut self, names: impl Iterator<Item = &'a str>) -> Outputs {
        let value = |name: &'a str| {
            self.resolve(name)
                .ok_or_else(|| Stop::Reason(format!("result \"{}\" is not made", shortened(name))))
        };
        names.map(value).collect()
    }

    /// Imports a graph without inputs, a branch that is always taken, into the graph being built.
    pub(super) fn inline(&mut self, graph: &'a GraphProto) -> Outputs {
        self.check_depth()?;
        let opsets = self.scopes.last().map(|scope| scope.opsets.clone()).unwrap_or_default();
        self.open(graph, opsets)?;
        let imported = self.nodes(&graph.node);
        let results = self.results(graph.output.iter().map(|info| info.name.as_str()));
        self.scopes.pop();
        imported?;
        results
    }

    /// Imports a graph as one of its own, with these types of inputs.
    pub(super) fn body(&mut self, graph: &'a GraphProto, inputs: &[Declared]) -> Result<ImportedBody, Stop> {
        self.check_depth()?;
        let opsets = self.scopes.last().map(|scope| scope.opsets.clone()).unwrap_or_default();
        let mut b = Builder::new();
        b.set_scope(self.b.scope());
        self.outer.push(Outer {
            b: std::mem::replace(&mut self.b, b),
            facts: std::mem::take(&mut self.facts),
            captures: std::mem::take(&mut self.captures),
        });
        let result = self.body_here(graph, opsets, inputs);
        let outer = self.outer.pop().unwrap_or_default();
        let builder = std::mem::replace(&mut self.b, outer.b);
        self.facts = outer.facts;
        let captured = std::mem::replace(&mut self.captures, outer.captures).inputs;
        let (results, declared) = result?;
        Ok(ImportedBody { builder, captured, results, declared })
    }

    fn body_here(
        &mut self,
        graph: &'a GraphProto,
        opsets: Opsets<'a>,
        inputs: &[Declared],
    ) -> Result<(Vec<Value>, Vec<Declared>), Stop> {
        let names: Vec<&'a str> = graph.input.iter().map(|info| info.name.as_str()).collect();
        if names.len() != inputs.len() {
            return Err(format!("the body has {} inputs, expected {}", names.len(), inputs.len()).into());
        }
        // Inputs are declared first, so that they come before what is captured.
        let values: Vec<ValueId> = graph
            .input
            .iter()
            .zip(inputs)
            .map(|(info, given)| {
                let declared = tensor::declared(info);
                let dtype = given.dtype.or(declared.dtype).unwrap_or(DType::F32);
                // What a file claims of values in between is good for the rank only.
                let dims = given.dims.clone().or(declared.open().dims);
                let value = self.b.input(info.name.as_str(), dtype, dims.clone());
                self.facts.declare(&self.b, value, &Declared { dtype: Some(dtype), dims, nested: false });
                value
            })
            .collect();
        self.open(graph, opsets)?;
        for (name, value) in names.into_iter().zip(values) {
            self.bind(name, Value::Tensor(value));
        }
        let imported = self.nodes(&graph.node);
        let results = self.results(graph.output.iter().map(|info| info.name.as_str()));
        self.scopes.pop();
        imported?;
        let results = results?;
        let declared = results
            .iter()
            .map(|result| match result {
                Value::Tensor(value) => {
                    Declared { dtype: self.dtype(*value), dims: self.dims(*value), nested: false }
                }
                _ => Declared::default(),
            })
            .collect();
        Ok((results, declared))
    }

    fn check_depth(&self) -> Result<(), Stop> {
        if self.scopes.len() >= MAX_DEPTH {
            return Err("bodies are nested too deeply".into());
        }
        Ok(())
    }
}

/// The standard domain has two names.
fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

fn opsets(imports: &[OperatorSetIdProto]) -> Opsets<'_> {
    imports.iter().map(|import| (domain(&import.domain), import.version)).collect()
}

/// A node's name, or that of what it makes.
fn display_name(node: &NodeProto) -> String {
    let name =
        if node.name.is_empty() { node.output.first().map_or("", |output| output) } else { &node.name };
    shortened(name).to_owned()
}

fn shortened(name: &str) -> &str {
    match name.char_indices().nth(MAX_NAME) {
        Some((end, _)) => &name[..end],
        None => name,
    }
}
