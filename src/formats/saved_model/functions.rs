//! The bodies of a meta graph, the main graph and its functions, and what their tensor names mean.

use super::node::output_position;
use crate::{
    formats::FormatError,
    proto::tensorflow::{FunctionDef, GraphDef, NodeDef},
};
use std::collections::{BTreeMap, HashMap};

/// Number of the main graph's body; functions follow.
pub(super) const MAIN: usize = 0;

/// All bodies.
pub(super) struct Library<'a> {
    bodies: Vec<Body<'a>>,
    functions: HashMap<&'a str, usize>,
}

/// The main graph or a function.
pub(super) struct Body<'a> {
    /// The function's name; empty for the main graph.
    pub(super) name: &'a str,
    pub(super) nodes: &'a [NodeDef],
    by_name: HashMap<&'a str, usize>,
    /// Arguments by name, in order.
    arguments: HashMap<&'a str, usize>,
    /// What is returned, in order of the outputs; `None` for an output that the file does not define.
    pub(super) results: Vec<Option<&'a str>>,
    /// Output arguments' names, in order.
    result_names: Vec<&'a str>,
    /// Nodes that a call runs for their effect.
    pub(super) effects: Vec<&'a str>,
}

/// What a name in an input list means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reference<'a> {
    /// A tensor: the node's position, the output argument (`None` outside of functions) and its index.
    Node { node: usize, argument: Option<&'a str>, index: usize },
    /// The function's argument.
    Argument(usize),
    /// Only order: the node is to run before.
    Control(usize),
    /// No such name.
    Unknown,
}

impl<'a> Library<'a> {
    /// Indexes a graph. Names that occur twice are errors.
    pub(super) fn new(graph: &'a GraphDef) -> Result<Self, FormatError> {
        let mut bodies = vec![Body::new("", &graph.node)?];
        let mut functions = HashMap::new();
        for function in graph.library.iter().flat_map(|library| &library.function) {
            let body = Body::function(function)?;
            if functions.insert(body.name, bodies.len()).is_some() {
                return Err(FormatError::node(body.name, "the function is defined twice"));
            }
            bodies.push(body);
        }
        Ok(Self { bodies, functions })
    }

    /// A body by its number.
    pub(super) fn body(&self, body: usize) -> &Body<'a> {
        &self.bodies[body]
    }

    /// The number of a function's body.
    pub(super) fn function(&self, name: &str) -> Option<usize> {
        self.functions.get(name).copied()
    }
}

impl<'a> Body<'a> {
    fn new(name: &'a str, nodes: &'a [NodeDef]) -> Result<Self, FormatError> {
        let mut by_name = HashMap::with_capacity(nodes.len());
        for (position, node) in nodes.iter().enumerate() {
            if by_name.insert(node.name.as_str(), position).is_some() {
                return Err(FormatError::node(&node.name, "two nodes have this name"));
            }
        }
        Ok(Self {
            name,
            nodes,
            by_name,
            arguments: HashMap::new(),
            results: Vec::new(),
            result_names: Vec::new(),
            effects: Vec::new(),
        })
    }

    fn function(def: &'a FunctionDef) -> Result<Self, FormatError> {
        let signature = def.signature.as_ref();
        let signature = signature.ok_or_else(|| FormatError::node("", "a function has no signature"))?;
        let mut body = Self::new(&signature.name, &def.node_def)?;
        for (position, argument) in signature.input_arg.iter().enumerate() {
            if !argument.number_attr.is_empty() || !argument.type_list_attr.is_empty() {
                return Err(FormatError::node(&signature.name, "arguments that are lists are not supported"));
            }
            body.arguments.insert(&argument.name, position);
        }
        let returned = |map: &'a BTreeMap<String, String>, name: &str| map.get(name).map(String::as_str);
        for output in &signature.output_arg {
            body.results.push(returned(&def.ret, &output.name));
            body.result_names.push(&output.name);
        }
        let control = signature.control_output.iter();
        body.effects = control.filter_map(|name| returned(&def.control_ret, name)).collect();
        Ok(body)
    }

    /// The position of a node.
    pub(super) fn node(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The position of a result by its name.
    pub(super) fn result(&self, name: &str) -> Option<usize> {
        self.result_names.iter().position(|result| *result == name)
    }

    /// What an entry of an input list, a `ret` map or a fetch means: `^node`, `node`, `node:1` in
    /// the main graph; `argument`, `node:output:1` in functions.
    pub(super) fn reference(&self, name: &'a str) -> Reference<'a> {
        if let Some(node) = name.strip_prefix('^') {
            return self.node(node).map_or(Reference::Unknown, Reference::Control);
        }
        let mut parts = name.split(':');
        let (first, second, third) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        if let Some(&argument) = self.arguments.get(first) {
            return Reference::Argument(argument);
        }
        let Some(node) = self.node(first) else { return Reference::Unknown };
        let (argument, index) = match (second, third) {
            (None, _) => (None, Some(0)),
            (Some(index), None) => match index.parse() {
                Ok(index) => (None, Some(index)),
                Err(_) => (Some(index), Some(0)),
            },
            (Some(argument), Some(index)) => (Some(argument), index.parse().ok()),
        };
        index.map_or(Reference::Unknown, |index| Reference::Node { node, argument, index })
    }

    /// The position among a node's outputs of what a [`Reference::Node`] names.
    pub(super) fn output(
        &self,
        library: &Library<'a>,
        node: usize,
        argument: Option<&str>,
        index: usize,
    ) -> Option<usize> {
        let def = self.nodes.get(node)?;
        match argument {
            None => Some(index),
            // A call that names the function as its operator has that function's output names.
            Some(argument) => match library.function(&def.op) {
                Some(body) => library.body(body).result(argument),
                None => output_position(def, argument, index),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::tensorflow::{FunctionDefLibrary, OpDef, op_def::ArgDef};

    fn node(name: &str, op: &str) -> NodeDef {
        NodeDef { name: name.to_owned(), op: op.to_owned(), ..NodeDef::default() }
    }

    #[test]
    fn names_mean_nodes_outputs_and_arguments() {
        let argument = |name: &str| ArgDef { name: name.to_owned(), ..ArgDef::default() };
        let function = FunctionDef {
            signature: Some(OpDef {
                name: "f".to_owned(),
                input_arg: vec![argument("x"), argument("y")],
                output_arg: vec![argument("z")],
                ..OpDef::default()
            }),
            node_def: vec![node("top", "TopKV2")],
            ret: [("z".to_owned(), "top:indices:0".to_owned())].into(),
            ..FunctionDef::default()
        };
        let library = Some(FunctionDefLibrary { function: vec![function] });
        let graph = GraphDef { node: vec![node("a", "Const")], library, ..GraphDef::default() };
        let library = Library::new(&graph).unwrap();
        let main = library.body(MAIN);
        assert_eq!(main.reference("a:2"), Reference::Node { node: 0, argument: None, index: 2 });
        assert_eq!(main.reference("^a"), Reference::Control(0));
        assert_eq!(main.reference("b"), Reference::Unknown);
        assert_eq!(
            main.reference("a:99999999999999999999999:0"),
            Reference::Node { node: 0, argument: Some("99999999999999999999999"), index: 0 }
        );
        let body = library.body(library.function("f").unwrap());
        assert_eq!(body.reference("y"), Reference::Argument(1));
        assert_eq!(body.results, [Some("top:indices:0")]);
        assert_eq!(body.output(&library, 0, Some("indices"), 0), Some(1));
    }

    #[test]
    fn double_names_are_refused() {
        let graph = GraphDef { node: vec![node("a", "Const"), node("a", "Const")], ..GraphDef::default() };
        assert!(Library::new(&graph).is_err());
    }
}
