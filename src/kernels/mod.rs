//! Loops over slices: the arithmetic of a network, by hand, for every instruction set.
//!
//! Knows no tensor and no graph: kernels take slices and small descriptor structs, check that they fit and
//! then run. [`Kernels`] is the way in; [`best`] picks it once per process. This floor is one of the two places
//! with `unsafe` code; all of it stands behind checked methods.

#![allow(
    clippy::needless_range_loop,
    reason = "register tiles are indexed by row and vector, as they are thought of"
)]

mod aligned;
mod attention;
mod axis;
mod binary;
mod broadcast;
mod conv;
mod conv_i8;
mod conv_transpose;
mod depthwise;
mod depthwise_i8;
mod element;
mod error;
mod filter;
mod gated_conv;
mod gemm;
mod gemm_bf16;
mod grouped;
mod instance_norm;
mod inverted_residual;
mod isa;
mod json_float;
mod map;
mod math;
mod narrow;
mod norm;
mod pack;
mod pack_i8;
mod panels;
mod peak;
mod pool;
mod product;
mod quantise;
mod recurrent;
mod reduce;
mod softmax;
mod table;
#[cfg(test)]
mod testing;
mod threads;
mod tile_i8;
mod transpose;
mod winograd;

pub use attention::{Attention, HeadStrides};
pub use axis::{ArgReduce, Axis, Cumulative, arg_reduce, cumulative};
pub use binary::{Binary, Compare, Logical};
pub use broadcast::{Broadcast, BroadcastPlan, SelectPlan};
pub use conv::{Conv2d, ConvPlan, PackedConv};
pub use conv_i8::{ConvPlanI8, OutI8, PackedConvI8, Quantisation};
pub use conv_transpose::{ConvTranspose2d, ConvTransposePlan, PackedConvTranspose};
pub use element::{Number, Truth};
pub use error::KernelError;
pub use filter::{Filter, FilterOrder, StoredFilter};
pub use gated_conv::GatedConvPlan;
pub use gemm_bf16::PackedBf16;
pub use instance_norm::InstanceNormPlan;
pub use inverted_residual::{InvertedResidualPlan, Stage};
pub use map::{Activation, Unary, unary_f64};
pub use norm::{Channels, RowNorm, repeats};
pub use pack::{BLayout, PackedB, PackedView, PanelWidth, pack_into, packed_len};
pub use panels::{PANEL_WIDTHS, out_of_panels};
pub use pool::{Pool, Pool2d};
pub use product::Epilogue;
pub use quantise::{ByteSum, Scale};
pub use recurrent::{PackedGates, PanelOrder};
pub use reduce::{Reduce, ReducePlan};
pub use table::{Kernels, Products, available, best, in_brain_floats};
pub use threads::{Running, Threads};
pub use transpose::{TransposePlan, transpose, transpose_bytes};
pub use winograd::{PackedWinograd, WinogradPlan, WinogradTile};
