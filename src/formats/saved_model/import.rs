//! From fetched tensors back to fed ones: nodes become operators of the graph being built.
//!
//! The walk is depth-first with its own stack, so no file decides how deep Rust recurses. Calls of
//! functions are transparent: a tensor that a call makes is resolved to the node in the body that
//! makes it, an argument to what the caller passes, so only what is needed of a body is imported.
//! Nodes reached through control edges only are imported when they have an effect.

use super::{
    functions::{Body, Library, MAIN, Reference},
    model::Model,
    node::Attributes,
    ops,
};
use crate::{
    formats::{FormatError, MissingOperators},
    graph::{Builder, ValueId},
    ops::state::ReadState,
    proto::tensorflow::NodeDef,
    tensor::{DType, Tensor},
};
use std::collections::{BTreeMap, HashMap};

pub(super) use crate::formats::stop::Stop;

/// Nodes imported for one signature.
const MAX_NODES: usize = 2_000_000;
/// Function calls inlined for one signature.
const MAX_SCOPES: usize = 100_000;
/// Calls within calls.
const MAX_DEPTH: usize = 64;
/// Steps from a name to the node that makes it, through arguments and results.
const MAX_HOPS: usize = 10_000;
/// Bytes of a node's path in errors; the end counts.
const MAX_PATH: usize = 300;

/// What a tensor of the source graph is here.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A value of the graph being built.
    Tensor(ValueId),
    /// A variable: a resource handle or a reference.
    Variable(usize),
    /// A variable just after an assignment, and its new value.
    Assigned { variable: usize, value: ValueId },
    /// A lookup table.
    Table(usize),
    /// The handle of a list of TensorFlow 1, whose contents its flow carries.
    Array,
    /// Made by an operator that is not known, or from one.
    Missing,
}

/// A node about to be imported.
pub(super) struct Node<'n> {
    pub(super) def: &'n NodeDef,
    pub(super) attributes: Attributes<'n>,
    /// Name with the calls that lead to it.
    pub(super) path: String,
    pub(super) place: Place,
    /// Empty where the row asks for its inputs itself.
    pub(super) inputs: Vec<Value>,
}

/// A node in one of the inlined bodies: the number of the inlining, and the node's in the body.
pub(super) type Place = (usize, usize);

/// One inlining of a body.
struct Scope {
    body: usize,
    arguments: Arguments,
    depth: usize,
    /// What must run before the body has been put in front of it.
    opened: bool,
}

enum Arguments {
    /// The inputs of a call, whose place it is.
    Call(Place),
    /// Values that are there already.
    Values(Vec<Value>),
}

enum Resolved {
    Output(Place, usize),
    Value(Value),
}

#[derive(Clone, Copy, Default)]
struct Visit {
    active: bool,
    done: bool,
    effects: bool,
}

enum Work {
    /// The node's outputs are wanted.
    Value(Place),
    /// Only what the node and those before it change is wanted.
    Effect(Place),
    /// All inputs are there.
    Finish(Place),
}

/// The import of one signature, or of what runs once at load.
pub(super) struct Import<'a, 'm> {
    library: &'a Library<'a>,
    /// What all signatures share.
    pub(super) model: &'m mut Model,
    /// Unknown operators met.
    pub(super) missing: &'m mut MissingOperators,
    /// The graph being built.
    pub(super) b: Builder,
    /// True for what runs once at load: assignments set initial values.
    pub(super) loading: bool,
    /// Assigned while loading: the variables' values.
    pub(super) assigned: BTreeMap<usize, ValueId>,
    /// Filled while loading: table, keys, values.
    pub(super) filled: Vec<(usize, ValueId, ValueId)>,
    scopes: Vec<Scope>,
    calls: HashMap<Place, usize>,
    visits: HashMap<Place, Visit>,
    outputs: HashMap<Place, Vec<Value>>,
    /// Values that stand for an output of a node in an inlined body.
    feeds: HashMap<(usize, usize, usize), Value>,
    /// Loops of TensorFlow 1 by their condition: the loop variables' last values.
    pub(super) frames: HashMap<Place, Vec<Value>>,
    read: HashMap<usize, ValueId>,
    /// Element types of lists of tensors: what passes them on calls them variants or floats.
    pub(super) lists: HashMap<ValueId, DType>,
    imported: usize,
    nesting: usize,
}

impl<'a, 'm> Import<'a, 'm> {
    pub(super) fn new(
        library: &'a Library<'a>,
        model: &'m mut Model,
        missing: &'m mut MissingOperators,
    ) -> Self {
        let main = Scope { body: MAIN, arguments: Arguments::Values(Vec::new()), depth: 0, opened: true };
        Self {
            library,
            model,
            missing,
            b: Builder::new(),
            loading: false,
            assigned: BTreeMap::new(),
            filled: Vec::new(),
            scopes: vec![main],
            calls: HashMap::new(),
            visits: HashMap::new(),
            outputs: HashMap::new(),
            feeds: HashMap::new(),
            frames: HashMap::new(),
            read: HashMap::new(),
            lists: HashMap::new(),
            imported: 0,
            nesting: 0,
        }
    }

    /// Makes a tensor of the main graph, as in `x:0`, an input.
    pub(super) fn feed(&mut self, tensor: &'a str, value: Value) -> Result<(), FormatError> {
        let (node, output) = self.main_tensor(tensor)?;
        self.feeds.insert((0, node, output), value);
        Ok(())
    }

    /// The node that makes a tensor of the main graph.
    pub(super) fn main_node(&self, tensor: &'a str) -> Result<&'a NodeDef, FormatError> {
        let (node, _) = self.main_tensor(tensor)?;
        Ok(&self.library.body(MAIN).nodes[node])
    }

    fn main_tensor(&self, tensor: &'a str) -> Result<(usize, usize), FormatError> {
        match self.library.body(MAIN).reference(tensor) {
            Reference::Node { node, argument: None, index } => Ok((node, index)),
            _ => Err(FormatError::node(
                tensor,
                "a signature names this tensor, but the graph has no such node",
            )),
        }
    }

    /// Imports a tensor of the main graph.
    pub(super) fn fetch(&mut self, tensor: &'a str) -> Result<Value, FormatError> {
        let mut work = Vec::new();
        let resolved = self.resolve(0, tensor, &mut work)?;
        if let Resolved::Output(place, _) = &resolved {
            work.insert(0, Work::Value(*place));
        }
        self.walk(work)?;
        Ok(self.value(resolved))
    }

    /// Imports a node of the main graph for its effects; a name that is no node is an error.
    pub(super) fn run(&mut self, node: &'a str) -> Result<(), FormatError> {
        let (node, _) = self.main_tensor(node)?;
        self.walk(vec![Work::Effect((0, node))])
    }

    /// Imports a function of its own, with these arguments, into the graph being built; gives its
    /// results.
    pub(super) fn inline(
        &mut self,
        function: &str,
        arguments: Vec<Value>,
    ) -> Result<Vec<Value>, FormatError> {
        let unknown = || FormatError::node(function, "the graph calls this function, but does not define it");
        let body = self.library.function(function).ok_or_else(unknown)?;
        if self.nesting >= MAX_DEPTH {
            return Err(FormatError::node(function, "functions are nested too deeply"));
        }
        self.nesting += 1;
        let results = self.inline_body(function, body, arguments);
        self.nesting -= 1;
        results
    }

    fn inline_body(
        &mut self,
        function: &str,
        body: usize,
        arguments: Vec<Value>,
    ) -> Result<Vec<Value>, FormatError> {
        let scope =
            self.add_scope(Scope { body, arguments: Arguments::Values(arguments), depth: 0, opened: true })?;
        let body = self.library.body(body);
        let mut work = Vec::new();
        let mut results = Vec::new();
        self.push_effects(scope, &mut work)?;
        for result in &body.results {
            let name =
                result.ok_or_else(|| FormatError::node(function, "a result of the function is missing"))?;
            let resolved = self.resolve(scope, name, &mut work)?;
            if let Resolved::Output(place, _) = &resolved {
                work.insert(0, Work::Value(*place));
            }
            results.push(resolved);
        }
        self.walk(work)?;
        Ok(results.into_iter().map(|resolved| self.value(resolved)).collect())
    }

    /// Builds a graph of its own while `build` runs; values of the outer graph are unknown in it.
    pub(super) fn within<T>(&mut self, build: impl FnOnce(&mut Self) -> T) -> (T, Builder) {
        let outer = std::mem::take(&mut self.b);
        let read = std::mem::take(&mut self.read);
        let lists = std::mem::take(&mut self.lists);
        self.b.set_states(self.model.states.clone());
        self.b.set_scope(outer.scope());
        let result = build(self);
        (self.read, self.lists) = (read, lists);
        (result, std::mem::replace(&mut self.b, outer))
    }

    /// The body that an inlining is of.
    pub(super) fn body(&self, scope: usize) -> &'a Body<'a> {
        self.library.body(self.scopes[scope].body)
    }

    /// Imports a data input of a node.
    pub(super) fn fetch_input(&mut self, (scope, node): Place, input: usize) -> Result<Value, FormatError> {
        let def = self.def((scope, node));
        let name = data_input(def, input);
        let name = name.ok_or_else(|| FormatError::node(&def.name, format!("input {input} is missing")))?;
        if self.nesting >= MAX_DEPTH {
            return Err(FormatError::node(&def.name, "branches and loops are nested too deeply"));
        }
        let mut work = Vec::new();
        let resolved = self.resolve(scope, name, &mut work)?;
        if let Resolved::Output(place, _) = &resolved {
            work.insert(0, Work::Value(*place));
        }
        self.nesting += 1;
        let walked = self.walk(work);
        self.nesting -= 1;
        walked?;
        Ok(self.value(resolved))
    }

    /// Imports anew what `build` asks for, with these values in the place of outputs.
    pub(super) fn isolated<T>(
        &mut self,
        feeds: Vec<((usize, usize, usize), Value)>,
        build: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let outputs = std::mem::take(&mut self.outputs);
        let visits = std::mem::take(&mut self.visits);
        let frames = std::mem::take(&mut self.frames);
        let before = self.feeds.clone();
        self.feeds.extend(feeds);
        let result = build(self);
        self.feeds = before;
        (self.outputs, self.visits, self.frames) = (outputs, visits, frames);
        result
    }

    /// Imports a graph's nodes: the work last in the list comes first.
    fn walk(&mut self, mut stack: Vec<Work>) -> Result<(), FormatError> {
        while let Some(work) = stack.pop() {
            match work {
                Work::Value(place) if self.is_call(place) => stack.push(Work::Effect(place)),
                Work::Value(place) => {
                    let visit = self.visits.entry(place).or_default();
                    if visit.done {
                        continue;
                    }
                    if visit.active {
                        return Err(FormatError::node(self.path(place), "the graph has a cycle here"));
                    }
                    visit.active = true;
                    self.imported += 1;
                    if self.imported > MAX_NODES {
                        return Err(FormatError::node(
                            self.path(place),
                            format!("more than {MAX_NODES} nodes"),
                        ));
                    }
                    stack.push(Work::Finish(place));
                    if !ops::is_lazy(&self.def(place).op) {
                        self.push_inputs(place, Work::Value, &mut stack)?;
                    }
                }
                Work::Effect(place) => {
                    let visit = self.visits.entry(place).or_default();
                    if std::mem::replace(&mut visit.effects, true) {
                        continue;
                    }
                    let def = self.def(place);
                    if self.is_call(place) {
                        let scope = self.enter(place, &mut stack)?;
                        self.push_inputs(place, Work::Effect, &mut stack)?;
                        debug_assert!(scope > 0);
                    } else if ops::has_effect(&def.op, self.model.has_state()) {
                        stack.push(Work::Value(place));
                    } else {
                        self.push_inputs(place, Work::Effect, &mut stack)?;
                    }
                }
                Work::Finish(place) => {
                    let outputs = self.import(place)?;
                    self.outputs.insert(place, outputs);
                    self.visits.insert(place, Visit { active: false, done: true, effects: true });
                }
            }
        }
        Ok(())
    }

    /// Pushes what must be imported before a node; control edges come first.
    fn push_inputs(
        &mut self,
        place: Place,
        data: fn(Place) -> Work,
        stack: &mut Vec<Work>,
    ) -> Result<(), FormatError> {
        let (scope, node) = place;
        let body = self.library.body(self.scopes[scope].body);
        let def = &body.nodes[node];
        let mut controls = Vec::new();
        let wants_data = !ops::is_ignored(&def.op);
        for input in &def.input {
            match body.reference(input) {
                Reference::Control(node) => controls.push(Work::Effect((scope, node))),
                _ if !wants_data => {}
                _ => {
                    let mut effects = Vec::new();
                    if let Resolved::Output(from, _) = self.resolve(scope, input, &mut effects)? {
                        stack.push(data(from));
                    }
                    stack.append(&mut effects);
                }
            }
        }
        stack.append(&mut controls);
        self.open(scope, stack)
    }

    /// Puts what must run before a call in front of its body, once.
    fn open(&mut self, mut scope: usize, stack: &mut Vec<Work>) -> Result<(), FormatError> {
        while !std::mem::replace(&mut self.scopes[scope].opened, true) {
            let Arguments::Call((caller, node)) = self.scopes[scope].arguments else { break };
            let body = self.library.body(self.scopes[caller].body);
            for input in &body.nodes[node].input {
                if let Reference::Control(before) = body.reference(input) {
                    stack.push(Work::Effect((caller, before)));
                }
            }
            scope = caller;
        }
        Ok(())
    }

    /// The node that makes what a name means in a scope, through calls and arguments.
    fn resolve(
        &mut self,
        scope: usize,
        name: &'a str,
        effects: &mut Vec<Work>,
    ) -> Result<Resolved, FormatError> {
        let (mut scope, mut name) = (scope, name);
        for _ in 0..MAX_HOPS {
            let library = self.library;
            let body = library.body(self.scopes[scope].body);
            let undefined = || {
                FormatError::node(
                    name,
                    format!("an input names this tensor, but {} has no such node", place_name(body.name)),
                )
            };
            match body.reference(name) {
                Reference::Argument(argument) => match &self.scopes[scope].arguments {
                    Arguments::Values(values) => {
                        return values.get(argument).cloned().map(Resolved::Value).ok_or_else(undefined);
                    }
                    Arguments::Call((caller, node)) => {
                        let calling = library.body(self.scopes[*caller].body);
                        name = data_input(&calling.nodes[*node], argument).ok_or_else(undefined)?;
                        scope = *caller;
                    }
                },
                Reference::Node { node, argument, index } => {
                    let output = body.output(library, node, argument, index).ok_or_else(undefined)?;
                    if let Some(value) = self.feeds.get(&(scope, node, output)) {
                        return Ok(Resolved::Value(value.clone()));
                    }
                    if !self.is_call((scope, node)) {
                        return Ok(Resolved::Output((scope, node), output));
                    }
                    scope = self.enter((scope, node), effects)?;
                    let callee = library.body(self.scopes[scope].body);
                    name = callee.results.get(output).copied().flatten().ok_or_else(undefined)?;
                }
                Reference::Control(_) | Reference::Unknown => return Err(undefined()),
            }
        }
        Err(FormatError::node(name, "calls pass this tensor around in a circle"))
    }

    /// The function that a node calls.
    fn callee(&self, place: Place) -> Option<usize> {
        let def = self.def(place);
        match def.op.as_str() {
            "PartitionedCall" | "StatefulPartitionedCall" => {
                self.library.function(Attributes(def).function("f")?)
            }
            op => self.library.function(op),
        }
    }

    fn is_call(&self, place: Place) -> bool {
        let op = &self.def(place).op;
        matches!(op.as_str(), "PartitionedCall" | "StatefulPartitionedCall")
            || self.library.function(op).is_some()
    }

    /// The inlined body of a call; what it runs for effect is pushed when it is entered first.
    fn enter(&mut self, call: Place, effects: &mut Vec<Work>) -> Result<usize, FormatError> {
        if let Some(&scope) = self.calls.get(&call) {
            return Ok(scope);
        }
        let undefined = || FormatError::node(self.path(call), "the called function is not defined");
        let body = self.callee(call).ok_or_else(undefined)?;
        let depth = self.scopes[call.0].depth + 1;
        let recursive =
            || FormatError::node(self.path(call), "the function calls itself, or calls nest too deeply");
        if depth > MAX_DEPTH || self.called_from(call.0).any(|scope| scope.body == body) {
            return Err(recursive());
        }
        let scope = self.add_scope(Scope { body, arguments: Arguments::Call(call), depth, opened: false })?;
        self.calls.insert(call, scope);
        self.push_effects(scope, effects)?;
        Ok(scope)
    }

    /// A scope and those it is called from.
    fn called_from(&self, scope: usize) -> impl Iterator<Item = &Scope> {
        std::iter::successors(Some(&self.scopes[scope]), |scope| match scope.arguments {
            Arguments::Call((caller, _)) => Some(&self.scopes[caller]),
            Arguments::Values(_) => None,
        })
    }

    fn add_scope(&mut self, scope: Scope) -> Result<usize, FormatError> {
        if self.scopes.len() >= MAX_SCOPES {
            let name = self.library.body(scope.body).name;
            return Err(FormatError::node(name, format!("more than {MAX_SCOPES} function calls")));
        }
        self.scopes.push(scope);
        Ok(self.scopes.len() - 1)
    }

    fn push_effects(&mut self, scope: usize, effects: &mut Vec<Work>) -> Result<(), FormatError> {
        let body = self.library.body(self.scopes[scope].body);
        for name in body.effects.iter().rev() {
            let node = body.node(name);
            let node = node.ok_or_else(|| FormatError::node(*name, "a control output names no node"))?;
            effects.push(Work::Effect((scope, node)));
        }
        Ok(())
    }

    fn import(&mut self, place: Place) -> Result<Vec<Value>, FormatError> {
        let (scope, node) = place;
        let body = self.library.body(self.scopes[scope].body);
        let def = &body.nodes[node];
        let path = self.path(place);
        check_device(def)?;
        let mut inputs = Vec::new();
        if !ops::is_ignored(&def.op) && !ops::is_lazy(&def.op) {
            let mut entered = Vec::new();
            for input in data_inputs(def) {
                let resolved = self.resolve(scope, input, &mut entered)?;
                inputs.push(self.value(resolved));
            }
        }
        let Some(row) = ops::row(&def.op) else {
            self.missing.add(&def.op, &path);
            return Ok(Vec::new());
        };
        if def.name.len() <= MAX_PATH {
            self.b.set_scope(path.as_str());
        }
        let asset = body.name.is_empty().then(|| self.model.asset(&def.name)).flatten();
        if let Some(asset) = asset {
            return Ok(vec![Value::Tensor(self.b.constant(asset))]);
        }
        let node = Node { def, attributes: Attributes(def), path, place, inputs };
        match row(self, &node) {
            Ok(outputs) => Ok(outputs),
            Err(Stop::Missing) => Ok(Vec::new()),
            Err(Stop::Reason(reason)) => Err(FormatError::node(node.path, format!("{}: {reason}", def.op))),
            Err(Stop::Error(error)) => Err(error),
        }
    }

    fn value(&self, resolved: Resolved) -> Value {
        match resolved {
            Resolved::Value(value) => value,
            Resolved::Output(place, output) => self
                .outputs
                .get(&place)
                .and_then(|outputs| outputs.get(output))
                .cloned()
                .unwrap_or(Value::Missing),
        }
    }

    fn def(&self, (scope, node): Place) -> &'a NodeDef {
        &self.library.body(self.scopes[scope].body).nodes[node]
    }

    /// The node's name behind those of the calls that lead to it.
    fn path(&self, place: Place) -> String {
        let mut names = vec![self.def(place).name.as_str()];
        let mut scope = place.0;
        while let Arguments::Call(call) = self.scopes[scope].arguments {
            names.push(&self.def(call).name);
            scope = call.0;
        }
        names.reverse();
        let path = names.join("/");
        match path.len().checked_sub(MAX_PATH) {
            Some(cut) => path.chars().skip(cut).collect(),
            None => path,
        }
    }

    /// A variable's value now.
    pub(super) fn read(&mut self, variable: usize) -> Result<ValueId, Stop> {
        if let Some(value) = self.assigned.get(&variable) {
            return Ok(*value);
        }
        let state = &self.model.variables[variable];
        if let Some(cell) = state.cell
            && !self.loading
        {
            let (dtype, shape) = match &state.value {
                Some(value) => (value.dtype(), value.shape().clone()),
                None => {
                    return Err(format!("variable \"{}\" has no value in the checkpoint", state.name).into());
                }
            };
            return Ok(self.b.push(ReadState { cell, dtype, shape }, &[]));
        }
        if let Some(value) = self.read.get(&variable) {
            return Ok(*value);
        }
        let Some(value) = self.model.variable_value(variable)? else {
            let name = &self.model.variables[variable].name;
            return Err(format!("variable \"{name}\" has no value in the checkpoint").into());
        };
        let value = self.b.constant(value);
        self.read.insert(variable, value);
        Ok(value)
    }
}

impl Node<'_> {
    /// The value of input `index`.
    pub(super) fn value(&self, index: usize) -> Result<&Value, Stop> {
        match self.inputs.get(index) {
            Some(Value::Missing) => Err(Stop::Missing),
            Some(value) => Ok(value),
            None => Err(format!("input {index} is missing").into()),
        }
    }

    /// Input `index` as a tensor; variables are read.
    pub(super) fn tensor(&self, import: &mut Import<'_, '_>, index: usize) -> Result<ValueId, Stop> {
        match *self.value(index)? {
            Value::Tensor(value) | Value::Assigned { value, .. } => Ok(value),
            Value::Variable(variable) => import.read(variable),
            Value::Table(_) | Value::Array => {
                Err(format!("input {index} is a handle, expected a tensor").into())
            }
            Value::Missing => Err(Stop::Missing),
        }
    }

    /// All inputs from `first` on as tensors.
    pub(super) fn tensors(&self, import: &mut Import<'_, '_>, first: usize) -> Result<Vec<ValueId>, Stop> {
        (first..self.inputs.len()).map(|index| self.tensor(import, index)).collect()
    }

    /// Input `index`, which must be a variable.
    pub(super) fn variable(&self, index: usize) -> Result<usize, Stop> {
        match *self.value(index)? {
            Value::Variable(variable) | Value::Assigned { variable, .. } => Ok(variable),
            _ => Err(format!("input {index} is no variable").into()),
        }
    }

    /// Input `index`, which must be a table.
    pub(super) fn table(&self, index: usize) -> Result<usize, Stop> {
        match *self.value(index)? {
            Value::Table(table) => Ok(table),
            _ => Err(format!("input {index} is no table").into()),
        }
    }

    /// Input `index`, which must be known while loading.
    pub(super) fn constant(&self, import: &mut Import<'_, '_>, index: usize) -> Result<Tensor, Stop> {
        let value = self.tensor(import, index)?;
        let known = import.b.known_value(value);
        known.ok_or_else(|| format!("input {index} depends on the request, which is not supported").into())
    }

    /// Input `index` as strings known while loading.
    pub(super) fn strings(&self, import: &mut Import<'_, '_>, index: usize) -> Result<Vec<String>, Stop> {
        let tensor = self.constant(import, index)?;
        let strings = tensor.as_strings().map_err(|error| error.to_string())?;
        Ok(strings.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect())
    }

    /// Input `index` as one string known while loading.
    pub(super) fn string(&self, import: &mut Import<'_, '_>, index: usize) -> Result<String, Stop> {
        let strings = self.strings(import, index)?;
        strings.into_iter().next().ok_or_else(|| format!("input {index} has no string").into())
    }

    /// Input `index` as integers known while loading.
    pub(super) fn integers(&self, import: &mut Import<'_, '_>, index: usize) -> Result<Vec<i64>, Stop> {
        self.constant(import, index)?.to_i64_vec().map_err(|error| error.to_string().into())
    }

    /// Input `index` as one integer known while loading.
    pub(super) fn integer(&self, import: &mut Import<'_, '_>, index: usize) -> Result<i64, Stop> {
        match self.integers(import, index)?.as_slice() {
            [value] => Ok(*value),
            _ => Err(format!("input {index} is not one integer").into()),
        }
    }

    /// An attribute that is an element type.
    pub(super) fn dtype(&self, attribute: &str) -> Result<DType, Stop> {
        let tag = self.attributes.type_tag(attribute);
        self.attributes
            .dtype(attribute)
            .ok_or_else(|| format!("element type {tag} of attribute {attribute} is not supported").into())
    }
}

/// Explicit placement on a device that is not there is an error in TensorFlow too.
fn check_device(def: &NodeDef) -> Result<(), FormatError> {
    let device = def.device.to_ascii_uppercase();
    let elsewhere = ["GPU", "TPU", "XLA"].iter().find(|kind| device.contains(*kind));
    match elsewhere {
        None => Ok(()),
        Some(kind) => Err(FormatError::node(
            &def.name,
            format!(
                "Cannot assign a device for operation {}: the model asks for \"{}\", but there is no {kind}; \
                 export it without explicit devices",
                def.name, def.device
            ),
        )),
    }
}

fn place_name(function: &str) -> String {
    if function.is_empty() { "the graph".to_owned() } else { format!("function {function}") }
}

/// The inputs that are tensors.
pub(super) fn data_inputs(node: &NodeDef) -> impl Iterator<Item = &str> {
    node.input.iter().map(String::as_str).filter(|input| !input.starts_with('^'))
}

/// One of them. Control inputs come behind those (node_def.proto).
pub(super) fn data_input(node: &NodeDef, index: usize) -> Option<&str> {
    node.input.get(index).map(String::as_str).filter(|input| !input.starts_with('^'))
}
