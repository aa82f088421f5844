//! The steps of loading: meta graph, checkpoint, initialisers, signatures.

use super::{
    functions::Library,
    import::{Import, Value},
    model::{Model, Table},
    tensor_proto::{self, dtype_of, partial_shape},
};
use crate::{
    formats::{FormatError, LoadOptions, LoadedModel, LoadedSignature, MissingOperators, TensorInfo},
    graph::{Backend, Builder, Cpu, RunOptions, ValueId, passes},
    kernels::{self, Threads},
    maps::Ordered,
    ops::state::States,
    proto::tensorflow::{
        AssetFileDef, MetaGraphDef, SavedModel, SignatureDef, TensorInfo as TensorInfoProto, collection_def,
        tensor_info::Encoding,
    },
    tensor::{Buffer, Bytes, Shape, Tensor},
};
use prost::Message;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

/// Signatures of this prefix are TensorFlow's own; they are not callable.
const INTERNAL: &str = "__saved_model_";
const INIT_SIGNATURE: &str = "__saved_model_init_op";
const ASSETS: &str = "saved_model_assets";

/// Loads the SavedModel whose `saved_model.pb` stands in `directory`.
pub(in crate::formats) fn load(directory: &Path, options: &LoadOptions) -> Result<LoadedModel, FormatError> {
    let path = directory.join("saved_model.pb");
    let file = Buffer::map_file(&path).map_err(|error| FormatError::io(&path, &error))?;
    // Constants stay slices of the mapping.
    let model = SavedModel::decode(Bytes::from_owner(Mapped(file)))
        .map_err(|error| FormatError::invalid(&path, format!("not a SavedModel: {error}")))?;
    let meta = select(&path, &model, options)?;
    let empty = Default::default();
    let library = Library::new(meta.graph_def.as_ref().unwrap_or(&empty))?;
    let mut model = Model::new(directory)?;
    for asset in &assets(meta) {
        if let Some(tensor) = asset.tensor_info.as_ref().and_then(tensor_name) {
            model.add_asset(tensor, &asset.filename)?;
        }
    }
    let mut missing = MissingOperators::default();
    restore(directory, meta, &library, &mut model, &mut missing)?;
    initialise(meta, &library, &mut model, &mut missing)?;
    let signatures = signatures(meta, &library, &mut model, &mut missing)?;
    missing.into_result()?;
    Ok(LoadedModel {
        platform: "tensorflow",
        weight_bytes: weight_bytes(&signatures, &model),
        signatures,
        definitions: meta.signature_def.clone(),
    })
}

/// The meta graph's assets: a field, or in exports of TensorFlow 1 a collection of packed messages.
fn assets(meta: &MetaGraphDef) -> Vec<AssetFileDef> {
    if !meta.asset_file_def.is_empty() {
        return meta.asset_file_def.clone();
    }
    match meta.collection_def.get(ASSETS).and_then(|collection| collection.kind.as_ref()) {
        Some(collection_def::Kind::AnyList(list)) => {
            list.value.iter().filter_map(|any| AssetFileDef::decode(&any.value[..]).ok()).collect()
        }
        _ => Vec::new(),
    }
}

struct Mapped(Buffer);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The meta graph with exactly the wanted tags.
fn select<'a>(
    path: &Path,
    model: &'a SavedModel,
    options: &LoadOptions,
) -> Result<&'a MetaGraphDef, FormatError> {
    if model.saved_model_schema_version > 1 {
        let version = model.saved_model_schema_version;
        return Err(FormatError::unsupported(
            path,
            format!("SavedModel schema version {version}, expected 1"),
        ));
    }
    let tags = |meta: &'a MetaGraphDef| -> BTreeSet<&'a str> {
        meta.meta_info_def.iter().flat_map(|info| &info.tags).map(String::as_str).collect()
    };
    let wanted = options.tags.iter().map(String::as_str).into_set();
    let show =
        |tags: &BTreeSet<&str>| format!("{{ {} }}", tags.iter().copied().collect::<Vec<_>>().join(", "));
    model.meta_graphs.iter().find(|meta| tags(meta) == wanted).ok_or_else(|| {
        let there: Vec<String> = model.meta_graphs.iter().map(|meta| show(&tags(meta))).collect();
        FormatError::invalid(
            path,
            format!(
                "Could not find meta graph def matching supplied tags: {}; the file has {}",
                show(&wanted),
                if there.is_empty() { "none".to_owned() } else { there.join(", ") }
            ),
        )
    })
}

/// Runs the saver's restore operation: assignments of what the checkpoint holds.
fn restore(
    directory: &Path,
    meta: &MetaGraphDef,
    library: &Library<'_>,
    model: &mut Model,
    missing: &mut MissingOperators,
) -> Result<(), FormatError> {
    let Some(saver) = meta.saver_def.as_ref().filter(|saver| !saver.restore_op_name.is_empty()) else {
        return Ok(());
    };
    let mut import = Import::new(library, model, missing);
    import.loading = true;
    if !saver.filename_tensor_name.is_empty() {
        let prefix = directory.join("variables").join("variables");
        let prefix = Bytes::copy_from_slice(prefix.as_os_str().as_encoded_bytes());
        if let Ok(prefix) = Tensor::from_strings(Shape::scalar(), vec![prefix]) {
            let prefix = Value::Tensor(import.b.constant(prefix));
            import.feed(&saver.filename_tensor_name, prefix)?;
        }
    }
    import.run(&saver.restore_op_name)?;
    finish_loading(import)
}

/// Runs the model's initialiser: the `__saved_model_init_op` signature, else the main operation,
/// else the legacy one.
fn initialise(
    meta: &MetaGraphDef,
    library: &Library<'_>,
    model: &mut Model,
    missing: &mut MissingOperators,
) -> Result<(), FormatError> {
    let signature = meta.signature_def.get(INIT_SIGNATURE);
    let name = signature.and_then(|signature| signature.outputs.values().next()).and_then(tensor_name);
    let collection = |name: &str| match meta.collection_def.get(name)?.kind.as_ref()? {
        collection_def::Kind::NodeList(list) => list.value.first().map(String::as_str),
        _ => None,
    };
    let name = name.or_else(|| collection("saved_model_main_op")).or_else(|| collection("legacy_init_op"));
    let Some(name) = name else { return Ok(()) };
    let mut import = Import::new(library, model, missing);
    import.loading = true;
    import.run(name)?;
    finish_loading(import)
}

/// Takes over what was assigned and filled; what is not a constant yet is computed now.
fn finish_loading(mut import: Import<'_, '_>) -> Result<(), FormatError> {
    let assigned = std::mem::take(&mut import.assigned);
    let filled = std::mem::take(&mut import.filled);
    let wanted: Vec<ValueId> = assigned
        .values()
        .copied()
        .chain(filled.iter().flat_map(|&(_, keys, values)| [keys, values]))
        .collect();
    let builder = std::mem::take(&mut import.b);
    let model = import.model;
    let tensors = compute(builder, &wanted)?;
    let (values, tables) = tensors.split_at(assigned.len());
    for (&variable, value) in assigned.keys().zip(values) {
        model.variables[variable].value = Some(value.clone());
    }
    for (&(table, _, _), pair) in filled.iter().zip(tables.chunks_exact(2)) {
        let [keys, values] = pair else { continue };
        model.tables[table] = Table { keys: keys.clone(), values: values.clone() };
    }
    Ok(())
}

/// Values of a graph without inputs.
fn compute(builder: Builder, wanted: &[ValueId]) -> Result<Vec<Tensor>, FormatError> {
    let constants: Option<Vec<Tensor>> =
        wanted.iter().map(|&value| builder.constant_value(value).cloned()).collect();
    if let Some(constants) = constants {
        return Ok(constants);
    }
    let outputs = wanted.iter().map(|&value| (String::new(), value)).collect();
    let graph = passes::simplify(builder.finish(outputs));
    let program = Cpu::new(kernels::best(), Threads::single()).compile(Arc::new(graph))?;
    let mut tensors = Vec::new();
    program.run(&[], &mut tensors, &RunOptions::default())?;
    Ok(tensors)
}

/// Imports every callable signature. When one turns out to assign a variable that others have
/// taken for a constant, all are imported again.
fn signatures(
    meta: &MetaGraphDef,
    library: &Library<'_>,
    model: &mut Model,
    missing: &mut MissingOperators,
) -> Result<BTreeMap<String, LoadedSignature>, FormatError> {
    loop {
        let states_before = model.state_count();
        model.states = Arc::new(States::new(model.initial_states()));
        let mut missing_now = MissingOperators::default();
        let mut imported = Vec::new();
        for (name, definition) in &meta.signature_def {
            if name.starts_with(INTERNAL) {
                continue;
            }
            imported.push((name, definition, signature(definition, library, model, &mut missing_now)?));
        }
        if model.state_count() > states_before {
            continue;
        }
        for found in missing_now.0 {
            (0..found.count).for_each(|_| missing.add(&found.op, &found.first));
        }
        let states = model.states.clone();
        let finish = |(name, definition, signature): (&String, &SignatureDef, Imported)| {
            let Imported { inputs, outputs, defaults, mut builder, values } = signature;
            builder.set_states(states.clone());
            let graph = Arc::new(passes::simplify(builder.finish(values)));
            let definition = definition.clone();
            (name.clone(), LoadedSignature { definition, inputs, outputs, defaults, graph })
        };
        return Ok(imported.into_iter().map(finish).into_map());
    }
}

struct Imported {
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    defaults: BTreeMap<String, Tensor>,
    builder: Builder,
    values: Vec<(String, ValueId)>,
}

fn signature(
    definition: &SignatureDef,
    library: &Library<'_>,
    model: &mut Model,
    missing: &mut MissingOperators,
) -> Result<Imported, FormatError> {
    let mut import = Import::new(library, model, missing);
    let mut inputs = Vec::new();
    for (alias, info) in &definition.inputs {
        let tensor = named(alias, info)?;
        let node = import.main_node(tensor)?;
        // What the graph takes counts, not what the signature claims.
        let taken = match node.op.as_str() {
            "Placeholder" | "PlaceholderV2" | "PlaceholderWithDefault" => {
                node.attr.get("dtype").and_then(|attribute| match attribute.value {
                    Some(crate::proto::tensorflow::attr_value::Value::Type(tag)) => dtype_of(tag),
                    _ => None,
                })
            }
            _ => None,
        };
        let described = describe(alias, tensor, info);
        let dtype = taken.or(described.dtype).ok_or_else(|| {
            FormatError::node(
                tensor,
                format!("element type {} of input {alias} is not supported", info.dtype),
            )
        })?;
        let value = import.b.input(alias, dtype, described.shape.clone());
        import.feed(tensor, Value::Tensor(value))?;
        inputs.push(described);
    }
    let mut outputs = Vec::new();
    let mut values = Vec::new();
    for (alias, info) in &definition.outputs {
        let tensor = named(alias, info)?;
        let value = match import.fetch(tensor)? {
            Value::Tensor(value) | Value::Assigned { value, .. } => Some(value),
            Value::Variable(variable) => Some(import.read(variable).map_err(|stop| stop.at(tensor))?),
            Value::Missing if !import.missing.0.is_empty() => None,
            Value::Missing => return Err(FormatError::node(tensor, "the node has no such output")),
            Value::Table(_) | Value::Array => {
                return Err(FormatError::node(tensor, "a handle cannot be an output"));
            }
        };
        outputs.push(describe(alias, tensor, info));
        values.extend(value.map(|value| (alias.clone(), value)));
    }
    let mut defaults = BTreeMap::new();
    for (alias, message) in &definition.defaults {
        let tensor = tensor_proto::decode(message)
            .map_err(|error| FormatError::node(alias, format!("default of input {alias}: {error}")))?;
        defaults.insert(alias.clone(), tensor);
    }
    Ok(Imported { inputs, outputs, defaults, builder: std::mem::take(&mut import.b), values })
}

fn describe(alias: &str, tensor: &str, info: &TensorInfoProto) -> TensorInfo {
    TensorInfo {
        name: alias.to_owned(),
        tensor: tensor.to_owned(),
        dtype: dtype_of(info.dtype),
        shape: info.tensor_shape.as_ref().and_then(partial_shape),
    }
}

fn tensor_name(info: &TensorInfoProto) -> Option<&str> {
    match info.encoding.as_ref()? {
        Encoding::Name(name) if !name.is_empty() => Some(name),
        _ => None,
    }
}

fn named<'a>(alias: &str, info: &'a TensorInfoProto) -> Result<&'a str, FormatError> {
    let reason = "the signature gives it no single tensor; sparse and composite tensors are not supported";
    tensor_name(info).ok_or_else(|| FormatError::node(alias, reason))
}

/// Bytes of constants and variables, each memory counted once.
fn weight_bytes(signatures: &BTreeMap<String, LoadedSignature>, model: &Model) -> usize {
    let states = model.initial_states();
    let constants = signatures.values().flat_map(|signature| signature.graph.constants().values());
    let mut seen = BTreeSet::new();
    constants
        .chain(&states)
        .filter(|tensor| match tensor.buffer() {
            Some(buffer) => seen.insert((buffer.address(), buffer.len())),
            None => true,
        })
        .map(Tensor::memory)
        .sum()
}
