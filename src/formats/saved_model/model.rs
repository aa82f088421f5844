//! What the signatures of one model share: its checkpoint, variables, tables and assets.

use super::bundle::Bundle;
use crate::{
    formats::FormatError,
    ops::state::States,
    proto::tensorflow::TrackableObjectGraph,
    tensor::{Bytes, DType, Shape, Tensor},
};
use prost::Message;
use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

/// Key of the checkpoint's object graph.
const OBJECT_GRAPH: &str = "_CHECKPOINTABLE_OBJECT_GRAPH";

/// Shared by all signatures while they are imported.
pub(super) struct Model {
    directory: PathBuf,
    bundle: Option<Bundle>,
    assets: HashMap<String, PathBuf>,
    /// Variables, in the order in which they are met.
    pub(super) variables: Vec<Variable>,
    numbers: HashMap<String, usize>,
    cells: usize,
    /// The cells as of the latest round of imports.
    pub(super) states: Arc<States>,
    /// Lookup tables, in the order in which they are met.
    pub(super) tables: Vec<Table>,
    table_numbers: HashMap<String, usize>,
    /// Checkpoint keys by the names that variables had when they were saved.
    saved_names: Option<HashMap<String, Vec<String>>>,
}

/// A lookup table; empty until it is filled.
pub(super) struct Table {
    pub(super) keys: Tensor,
    pub(super) values: Tensor,
}

/// A variable.
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) dtype: Option<DType>,
    pub(super) shape: Option<Shape>,
    /// From the checkpoint or an initialiser.
    pub(super) value: Option<Tensor>,
    /// Its number among those that a signature assigns.
    pub(super) cell: Option<usize>,
}

impl Model {
    pub(super) fn new(directory: &Path) -> Result<Self, FormatError> {
        let prefix = directory.join("variables").join("variables");
        let index = prefix.with_extension("index");
        let bundle = if index.exists() { Some(Bundle::open(&prefix)?) } else { None };
        Ok(Self {
            directory: directory.to_owned(),
            bundle,
            assets: HashMap::new(),
            variables: Vec::new(),
            numbers: HashMap::new(),
            cells: 0,
            states: Arc::default(),
            tables: Vec::new(),
            table_numbers: HashMap::new(),
            saved_names: None,
        })
    }

    /// Declares the file that the constant `tensor` (as in `Const:0`) names.
    pub(super) fn add_asset(&mut self, tensor: &str, filename: &str) -> Result<(), FormatError> {
        let inside = Path::new(filename).components().all(|part| matches!(part, Component::Normal(_)));
        if !inside || filename.is_empty() {
            let reason = format!("the asset \"{filename}\" is not a file below assets/");
            return Err(FormatError::invalid(self.directory.join("saved_model.pb"), reason));
        }
        let node = tensor.split(':').next().unwrap_or(tensor).to_owned();
        self.assets.insert(node, self.directory.join("assets").join(filename));
        Ok(())
    }

    /// The path that a constant node of the main graph stands for, as a tensor.
    pub(super) fn asset(&self, node: &str) -> Option<Tensor> {
        let path = self.assets.get(node)?;
        let bytes = Bytes::copy_from_slice(path.as_os_str().as_encoded_bytes());
        Tensor::from_strings(Shape::scalar(), vec![bytes]).ok()
    }

    /// A tensor of the checkpoint.
    pub(super) fn restore(&self, name: &str, slice: &str) -> Result<Tensor, FormatError> {
        match &self.bundle {
            Some(bundle) => bundle.tensor(name, slice),
            None => Err(FormatError::invalid(
                self.directory.join("variables").join("variables.index"),
                format!("the file is missing, but the graph restores \"{name}\" from it"),
            )),
        }
    }

    /// The asset at a path, if it is one.
    pub(super) fn read_asset(&self, path: &[u8]) -> Result<Vec<u8>, FormatError> {
        let asset = self.assets.values().find(|asset| asset.as_os_str().as_encoded_bytes() == path);
        let asset = asset.ok_or_else(|| {
            let path = String::from_utf8_lossy(path).into_owned();
            FormatError::invalid(self.directory.join("saved_model.pb"), format!("\"{path}\" is not an asset"))
        })?;
        std::fs::read(asset).map_err(|error| FormatError::io(asset, &error))
    }

    /// The number of the table of that name.
    pub(super) fn table(&mut self, name: &str, keys: DType, values: DType) -> usize {
        if let Some(&number) = self.table_numbers.get(name) {
            return number;
        }
        self.tables.push(Table { keys: Tensor::empty(keys), values: Tensor::empty(values) });
        self.table_numbers.insert(name.to_owned(), self.tables.len() - 1);
        self.tables.len() - 1
    }

    /// The value of a variable. Where the graph restores none, what the checkpoint has under the
    /// variable's name when it was saved: some exports restore copies that nothing reads.
    pub(super) fn variable_value(&mut self, variable: usize) -> Result<Option<Tensor>, FormatError> {
        if let Some(value) = &self.variables[variable].value {
            return Ok(Some(value.clone()));
        }
        let Some(bundle) = &self.bundle else { return Ok(None) };
        if self.saved_names.is_none() {
            self.saved_names = Some(saved_names(bundle)?);
        }
        let Variable { name, dtype, shape, .. } = &self.variables[variable];
        let keys = self.saved_names.as_ref().and_then(|names| names.get(name));
        for key in keys.into_iter().flatten() {
            let value = bundle.tensor(key, "")?;
            if dtype.is_none_or(|dtype| dtype == value.dtype())
                && shape.as_ref().is_none_or(|shape| shape == value.shape())
            {
                self.variables[variable].value = Some(value.clone());
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// The number of the variable of that name.
    pub(super) fn variable(&mut self, name: &str, dtype: Option<DType>, shape: Option<Shape>) -> usize {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        self.variables.push(Variable { name: name.to_owned(), dtype, shape, value: None, cell: None });
        self.numbers.insert(name.to_owned(), self.variables.len() - 1);
        self.variables.len() - 1
    }

    /// Makes a variable one that runs may change. One without a value starts as zeros when its
    /// shape is known, for a signature may assign it before any reads it.
    pub(super) fn make_state(&mut self, variable: usize) -> usize {
        // What cannot be read is as good as absent here: the assignment counts.
        let _ = self.variable_value(variable);
        let state = &mut self.variables[variable];
        if state.value.is_none()
            && let (Some(dtype), Some(shape)) = (state.dtype, &state.shape)
        {
            state.value = Tensor::zeros(dtype, shape.clone()).ok();
        }
        *state.cell.get_or_insert_with(|| {
            self.cells += 1;
            self.cells - 1
        })
    }

    /// True when runs may change a variable.
    pub(super) fn has_state(&self) -> bool {
        self.cells > 0
    }

    /// Number of variables that runs may change.
    pub(super) fn state_count(&self) -> usize {
        self.cells
    }

    /// Initial values of the variables that runs may change, by cell.
    pub(super) fn initial_states(&self) -> Vec<Tensor> {
        let mut cells = vec![Tensor::empty(DType::F32); self.cells];
        for variable in &self.variables {
            if let (Some(cell), Some(value)) = (variable.cell, &variable.value) {
                cells[cell] = value.clone();
            }
        }
        cells
    }
}

/// The object graph of a checkpoint, read for its `full_name`s (trackable_object_graph.proto).
fn saved_names(bundle: &Bundle) -> Result<HashMap<String, Vec<String>>, FormatError> {
    let mut names: HashMap<String, Vec<String>> = HashMap::new();
    if !bundle.names().any(|name| name == OBJECT_GRAPH) {
        return Ok(names);
    }
    let graph = bundle.tensor(OBJECT_GRAPH, "")?;
    let graph = graph.as_strings().ok().and_then(|strings| strings.first()).cloned().unwrap_or_default();
    // A graph that cannot be read names nothing.
    for node in TrackableObjectGraph::decode(graph).unwrap_or_default().nodes {
        for attribute in node.attributes {
            names.entry(attribute.full_name).or_default().push(attribute.checkpoint_key);
        }
    }
    Ok(names)
}
