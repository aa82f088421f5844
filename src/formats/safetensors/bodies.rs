//! Bodies of branches and loops: each graph of a file is built once, when the first node that runs it is read.

use super::{
    document::{GraphDocument, Unique},
    import::{Importer, Model},
};
use crate::ops::control::Body;
use std::collections::BTreeMap;

/// Bodies within bodies. Real models have two or three.
const MAX_DEPTH: usize = 32;

/// The graphs of a file.
pub(super) struct Bodies<'a> {
    documents: &'a BTreeMap<String, GraphDocument>,
    built: BTreeMap<&'a str, Body>,
    /// Those that are being built, outermost first.
    open: Vec<&'a str>,
}

impl<'a> Bodies<'a> {
    pub(super) fn new(documents: &'a Unique<GraphDocument>) -> Self {
        Self { documents: &documents.0, built: BTreeMap::new(), open: Vec::new() }
    }

    /// The body called `name`.
    pub(super) fn get(&mut self, name: &str, model: &mut Model<'a>) -> Result<Body, String> {
        let Some((name, document)) = self.documents.get_key_value(name) else {
            return Err(format!("\"graphs\" has no \"{name}\""));
        };
        if let Some(body) = self.built.get(name.as_str()) {
            return Ok(body.clone());
        }
        if self.open.contains(&name.as_str()) {
            return Err(format!("graph \"{name}\" contains itself"));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(format!("graphs stand more than {MAX_DEPTH} deep in one another"));
        }
        self.open.push(name);
        let graph = Importer::new(model, self).body(document);
        self.open.pop();
        let body = graph.map_err(|problem| format!("graphs.{name}.{problem}"))?.into_body();
        self.built.insert(name, body.clone());
        Ok(body)
    }

    /// Builds those that no node runs, so that a mistake in one is found.
    pub(super) fn rest(&mut self, model: &mut Model<'a>) -> Result<(), String> {
        self.documents.keys().try_for_each(|name| self.get(name, model).map(drop))
    }
}
