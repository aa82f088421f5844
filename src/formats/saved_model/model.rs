//! What the signatures of one model share: its checkpoint, variables, tables and assets.

use super::bundle::Bundle;
use crate::{
    formats::FormatError,
    tensor::{Bytes, DType, Shape, Tensor},
};
use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
};

/// Shared by all signatures while they are imported.
pub(super) struct Model {
    directory: PathBuf,
    bundle: Option<Bundle>,
    assets: HashMap<String, PathBuf>,
    /// Variables, in the order in which they are met.
    pub(super) variables: Vec<Variable>,
    numbers: HashMap<String, usize>,
    cells: usize,
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
    pub(super) fn states(&self) -> Vec<Tensor> {
        let mut cells = vec![Tensor::empty(DType::F32); self.cells];
        for variable in &self.variables {
            if let (Some(cell), Some(value)) = (variable.cell, &variable.value) {
                cells[cell] = value.clone();
            }
        }
        cells
    }
}
