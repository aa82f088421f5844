//! `config.json`: the kind of model and its sizes. Sizes are only believed where the weights agree.

use crate::{formats::FormatError, kernels::Unary};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A file of JSON and its place, for errors.
pub(super) struct Json {
    pub(super) file: PathBuf,
    pub(super) value: Value,
}

impl Json {
    pub(super) fn read(file: &Path) -> Result<Self, FormatError> {
        let text = std::fs::read(file).map_err(|error| FormatError::io(file, &error))?;
        let value = serde_json::from_slice(&text)
            .map_err(|error| FormatError::invalid(file, format!("no valid JSON: {error}")))?;
        Ok(Self { file: file.to_owned(), value })
    }

    /// The same for a file that may be absent.
    pub(super) fn read_if_there(file: &Path) -> Result<Option<Self>, FormatError> {
        if file.is_file() { Self::read(file).map(Some) } else { Ok(None) }
    }

    pub(super) fn invalid(&self, reason: impl Into<String>) -> FormatError {
        FormatError::invalid(&self.file, reason)
    }

    pub(super) fn unsupported(&self, reason: impl Into<String>) -> FormatError {
        FormatError::unsupported(&self.file, reason)
    }

    /// A size, at least 1.
    pub(super) fn size(&self, key: &str) -> Result<usize, FormatError> {
        let size = self.value[key].as_u64().and_then(|size| usize::try_from(size).ok());
        size.filter(|&size| size > 0).ok_or_else(|| {
            self.invalid(format!("\"{key}\" must be a positive integer, but it is {}", self.value[key]))
        })
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.value[key].as_bool()
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.value[key].as_str()
    }
}

/// What is needed of a BERT's configuration.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) intermediate: usize,
    pub(super) vocabulary: usize,
    pub(super) positions: usize,
    pub(super) types: usize,
    pub(super) epsilon: f32,
    pub(super) activation: Unary,
}

impl Config {
    pub(super) fn read(json: &Json) -> Result<Self, FormatError> {
        match json.text("model_type") {
            Some("bert") => {}
            other => {
                return Err(json.unsupported(format!(
                    "the model_type is {}; of Hugging Face folders, those of type \"bert\" are supported (MiniLM, \
                     BGE, GTE and E5 models among them). Export others to ONNX",
                    other.map_or("missing".to_owned(), |name| format!("\"{name}\""))
                )));
            }
        }
        if let Some(kind) = json.text("position_embedding_type").filter(|&kind| kind != "absolute") {
            return Err(json.unsupported(format!("position_embedding_type \"{kind}\" is not supported")));
        }
        if json.flag("is_decoder") == Some(true) {
            return Err(json.unsupported("decoders are not supported"));
        }
        let config = Self {
            hidden: json.size("hidden_size")?,
            layers: json.size("num_hidden_layers")?,
            heads: json.size("num_attention_heads")?,
            intermediate: json.size("intermediate_size")?,
            vocabulary: json.size("vocab_size")?,
            positions: json.size("max_position_embeddings")?,
            types: json.size("type_vocab_size")?,
            epsilon: json.value["layer_norm_eps"].as_f64().unwrap_or(1e-12) as f32,
            activation: activation(json)?,
        };
        if !config.hidden.is_multiple_of(config.heads) {
            return Err(json.invalid(format!(
                "a hidden_size of {} cannot be divided among {} attention heads",
                config.hidden, config.heads
            )));
        }
        Ok(config)
    }
}

fn activation(json: &Json) -> Result<Unary, FormatError> {
    Ok(match json.text("hidden_act").unwrap_or("gelu") {
        "gelu" | "gelu_python" => Unary::Gelu,
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Unary::GeluTanh,
        "relu" => Unary::Relu,
        "silu" | "swish" => Unary::Silu,
        "tanh" => Unary::Tanh,
        other => return Err(json.unsupported(format!("hidden_act \"{other}\" is not supported"))),
    })
}
