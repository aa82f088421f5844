//! How a version on disk becomes a servable. The formats provide it; tests provide fakes.

use super::{Error, Servable};
use std::path::Path;

/// Loads models.
pub trait Loader: Send + Sync {
    /// Loads one version, warmed up and ready to answer.
    fn load(&self, name: &str, version: i64, path: &Path) -> Result<Servable, Error>;

    /// Whether a folder without version folders is a model itself.
    fn recognises(&self, path: &Path) -> bool {
        const MODEL_FILES: [&str; 5] =
            ["saved_model.pb", "saved_model.pbtxt", "model.onnx", "model.safetensors", "model.json"];
        MODEL_FILES.iter().any(|file| path.join(file).is_file())
    }
}
