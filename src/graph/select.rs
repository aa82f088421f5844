//! Which backend runs graphs, by the names that the command line has for it.

use super::Backend;
use crate::kernels::Threads;

/// `--backend` and `--device`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// `kernels` or `candle`.
    pub backend: String,
    /// `cpu`, `auto`, `cuda` or `cuda:N`. All but `cpu` need candle.
    pub device: String,
}

impl Default for Selection {
    fn default() -> Self {
        Self { backend: KERNELS.into(), device: "cpu".into() }
    }
}

/// The hand-written kernels.
const KERNELS: &str = "kernels";

impl Selection {
    /// True when batches should be made to suit a device: large ones, one at a time.
    pub fn is_device(&self) -> bool {
        self.device.starts_with("cuda")
    }

    /// Opens the backend; `None` stands for the kernels, which need no opening.
    ///
    /// # Errors
    /// One line that says what is not to be had.
    pub fn open(&self, threads: Threads) -> Result<Option<Box<dyn Backend>>, String> {
        match (self.backend.as_str(), self.device.as_str()) {
            (KERNELS, "cpu") => Ok(None),
            // The best of what there is: the kernels, unless this binary can use a device.
            (KERNELS, "auto") if !cfg!(feature = "cuda") => Ok(None),
            (KERNELS | "candle", device) => candle(device, threads).map(Some),
            (other, _) => Err(format!("\"{other}\" is no backend; say kernels or candle")),
        }
    }
}

#[cfg(feature = "candle")]
fn candle(device: &str, threads: Threads) -> Result<Box<dyn Backend>, String> {
    let candle = super::candle::Candle::new(device.parse()?, threads)?;
    log::info!("candle computes on {}", candle.device());
    Ok(Box::new(candle))
}

#[cfg(not(feature = "candle"))]
fn candle(device: &str, _: Threads) -> Result<Box<dyn Backend>, String> {
    Err(match device {
        "cpu" => {
            "this binary was built without the candle backend (cargo build --features candle)".to_owned()
        }
        other => format!(
            "there is no device {other}: this binary was built without CUDA; docs/GPU.md says how to build the one with it"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(backend: &str, device: &str) -> Result<&'static str, String> {
        let selection = Selection { backend: backend.into(), device: device.into() };
        selection.open(Threads::single()).map(|backend| backend.map_or("kernels", |backend| backend.name()))
    }

    #[test]
    fn names_select() {
        assert_eq!(open("kernels", "cpu"), Ok("kernels"));
        assert_eq!(open("tpu", "cpu"), Err("\"tpu\" is no backend; say kernels or candle".into()));
        if !cfg!(feature = "cuda") {
            assert_eq!(open("kernels", "auto"), Ok("kernels"));
            let error = open("kernels", "cuda:0").unwrap_err();
            assert!(error.contains("built without CUDA"), "{error}");
        }
        match open("candle", "cpu") {
            Ok(name) => assert!(cfg!(feature = "candle") && name == "candle"),
            Err(error) => assert!(!cfg!(feature = "candle") && error.contains("without the candle backend")),
        }
    }
}
