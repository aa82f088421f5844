//! Hugging Face folders of the BERT family, as `save_pretrained` and sentence-transformers write them.
//!
//! `config.json` and `model.safetensors` make the signature `serving_default` (token ids to hidden states and one
//! vector per sentence); with `tokenizer.json` or `vocab.txt` there is `embed`, too, which takes texts. docs/FORMAT.md
//! says what is read of which file.

mod bert;
mod config;
mod pooling;
mod tokenizer;
mod weights;

use super::{FormatError, LoadedModel, LoadedSignature, TensorInfo, definition::definition};
use crate::{
    graph::{Builder, Graph, ValueId, passes},
    tensor::{DType, Tensor},
};
use config::{Config, Json};
use pooling::Pooling;
use std::{collections::BTreeMap, path::Path, sync::Arc};
use tokenizer::Tokenizer;
use weights::Weights;

/// What kind of model and how large.
const CONFIG_FILE: &str = "config.json";
/// Its tensors.
const WEIGHTS_FILE: &str = "model.safetensors";
/// The signature from token ids.
const TOKENS: &str = "serving_default";
/// The signature from texts.
const EMBED: &str = "embed";
/// The vector of a sentence, in both signatures.
const SENTENCE: &str = "sentence_embedding";

/// True for a folder of this format.
pub(super) fn is_model(folder: &Path) -> bool {
    [CONFIG_FILE, WEIGHTS_FILE].iter().all(|file| folder.join(file).is_file())
}

/// Reads a folder.
pub(super) fn load(folder: &Path) -> Result<LoadedModel, FormatError> {
    let config = Config::read(&Json::read(&folder.join(CONFIG_FILE))?)?;
    let weights = Weights::read(&folder.join(WEIGHTS_FILE))?;
    let model = bert::Bert::new(&config, &weights)?;
    let pooling = Pooling::read(folder)?;
    let mut signatures = BTreeMap::from([(TOKENS.to_owned(), from_tokens(&model, pooling))]);
    if let Some(tokenizer) = Tokenizer::read(folder, &config)? {
        signatures.insert(EMBED.to_owned(), from_texts(&model, pooling, &tokenizer));
    }
    let definitions = signatures.iter().map(|(name, loaded)| (name.clone(), loaded.definition.clone()));
    Ok(LoadedModel {
        platform: "huggingface",
        definitions: definitions.collect(),
        signatures,
        weight_bytes: model.weight_bytes(),
    })
}

/// Ids, mask and types, `I64` `[batch, tokens]`.
fn from_tokens(model: &bert::Bert, pooling: Pooling) -> LoadedSignature {
    let mut b = Builder::new();
    let shape = || Some(vec![None, None]);
    let names = ["attention_mask", "input_ids", "token_type_ids"];
    let [mask, ids, types] = names.map(|name| b.input(name, DType::I64, shape()));
    let inputs = names.map(|name| info(name, DType::I64, shape())).to_vec();
    let hidden = model.encode(&mut b, ids, mask, types);
    let width = Some(model.hidden());
    let mut outputs = vec![(info("last_hidden_state", DType::F32, Some(vec![None, None, width])), hidden)];
    if let Some(pooled) = model.pool(&mut b, hidden) {
        outputs.push((info("pooler_output", DType::F32, Some(vec![None, width])), pooled));
    }
    let sentence = pooling.sentence(&mut b, hidden, mask);
    outputs.push((info(SENTENCE, DType::F32, Some(vec![None, width])), sentence));
    signature(b, inputs, outputs)
}

/// Texts, `String` `[batch]`.
fn from_texts(model: &bert::Bert, pooling: Pooling, tokenizer: &Tokenizer) -> LoadedSignature {
    let mut b = Builder::new();
    let text = b.input("text", DType::String, Some(vec![None]));
    let [ids, mask, types] = tokenizer.tokenize(&mut b, text);
    let hidden = model.encode(&mut b, ids, mask, types);
    let sentence = pooling.sentence(&mut b, hidden, mask);
    let output = info(SENTENCE, DType::F32, Some(vec![None, Some(model.hidden())]));
    signature(b, vec![info("text", DType::String, Some(vec![None]))], vec![(output, sentence)])
}

fn signature(b: Builder, inputs: Vec<TensorInfo>, outputs: Vec<(TensorInfo, ValueId)>) -> LoadedSignature {
    let (outputs, values): (Vec<TensorInfo>, Vec<(String, ValueId)>) =
        outputs.into_iter().map(|(info, value)| (info.clone(), (info.name, value))).unzip();
    let graph: Graph = passes::simplify(b.finish(values));
    LoadedSignature {
        definition: definition("tensorflow/serving/predict", &inputs, &outputs),
        inputs,
        outputs,
        defaults: BTreeMap::<String, Tensor>::new(),
        graph: Arc::new(graph),
    }
}

fn info(name: &str, dtype: DType, shape: Option<Vec<Option<usize>>>) -> TensorInfo {
    TensorInfo { name: name.to_owned(), tensor: format!("{name}:0"), dtype: Some(dtype), shape }
}
