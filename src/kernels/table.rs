//! The table of kernels: one function pointer per kernel and instruction set, chosen once per process.
//!
//! Adding a kernel is one field and one line in `tier!`; adding an instruction set is one file under `isa` and one
//! `tier!`. The functions in the table are unsafe and unchecked; the methods of [`Kernels`] in the modules of
//! the kernels check lengths and are the way in.

use super::isa::{self, Isa};
use super::*;
use std::sync::OnceLock;

/// The kernels for one instruction set. Safe to use wherever a reference can be had: [`available`] lists only
/// what this CPU can run.
pub struct Kernels {
    /// `portable`, `avx2`, `avx2vnni`, `avx512`, `avx512vnni`, `neon`, `neondot` or `neoni8mm`: the word for the environment
    /// variable `KINGLET_ISA`.
    pub name: &'static str,
    /// What products are computed in.
    pub products: Products,
    /// f32 lanes of a vector.
    pub lanes: usize,
    /// Rows of the matrix product's register tile, by the vectors in a row less one.
    pub tile_rows: [usize; 4],
    /// Vectors in a row of that tile; a panel of packed weights is this many vectors wide.
    pub tile_vectors: usize,
    /// Rows of weights of one panel that the matrix product works through before it turns to the next panel.
    pub depth_block: usize,
    pub(super) tile: unsafe fn(&product::Tile, usize, usize),
    pub(super) narrow: unsafe fn(&narrow::Tiles),
    pub(super) depthwise: unsafe fn(&depthwise::Line<'_, depthwise::Floats>),
    pub(super) grouped: unsafe fn(&grouped::Line<'_>),
    /// By the size of tile, as the next two.
    pub(super) winograd_inputs: [unsafe fn(&winograd::Inputs); 2],
    pub(super) winograd_weights: [unsafe fn(&winograd::Weights); 2],
    pub(super) winograd_outputs: [unsafe fn(&winograd::Outputs); 2],
    pub(super) binary: unsafe fn(binary::Binary, *const f32, usize, *const f32, usize, *mut f32, usize),
    pub(super) fold_row: unsafe fn(reduce::Fold, *const f32, usize) -> f32,
    pub(super) fold_columns: unsafe fn(reduce::Fold, *const f32, usize, usize, *mut f32, usize),
    pub(super) softmax_row: unsafe fn(*const f32, *mut f32, usize, bool),
    pub(super) softmax_columns: unsafe fn(*const f32, *mut f32, usize, usize, usize, bool),
    pub(super) norm_rows: unsafe fn(&norm::Rows),
    pub(super) scale_shift: unsafe fn(&norm::Scaled),
    pub(super) moments: unsafe fn(&instance_norm::Moments),
    pub(super) pool_window: unsafe fn(pool::Pool, &pool::Window),
    /// What `tile_i8` wants.
    pub(super) order_i8: tile_i8::Order,
    pub(super) tile_i8: unsafe fn(&tile_i8::TileI8, usize, usize),
    pub(super) depthwise_i8: unsafe fn(&depthwise_i8::LineI8<'_>),
    pub(super) quantise: unsafe fn(quantise::Scale, *const f32, *mut u8, usize),
    pub(super) dequantise: unsafe fn(quantise::Scale, *const u8, *mut f32, usize),
    pub(super) add_bytes: unsafe fn(&quantise::ByteSum, *const u8, *const u8, *mut u8, usize),
    pub(super) recurrent: unsafe fn(&recurrent::Step),
    pub(super) attention_weights: unsafe fn(&attention::Weights) -> (f32, f32),
    pub(super) turn: unsafe fn(*const f32, usize, usize, usize, *mut f32, usize),
    pub(super) peak: unsafe fn(usize) -> f32,
    pub(super) unary: unsafe fn(map::Unary, *const f32, *mut f32, usize),
}

/// What matrix products with known weights are computed in; sums are f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// Every bit of both factors.
    #[default]
    F32,
    /// Both factors rounded to brain floats.
    Bf16,
}

impl Kernels {
    /// Rows of the widest register tile.
    pub(super) fn widest_tile_rows(&self) -> usize {
        self.tile_rows[self.tile_vectors - 1]
    }
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernels({})", self.name)
    }
}

/// A function with the instruction set's features on, into which the generic kernel is inlined.
macro_rules! shim {
    ($isa:ty, [$($feature:literal)?], $kernel:path, ($($arg:ident: $type:ty),*) $(-> $out:ty)?) => {{
        $(#[target_feature(enable = $feature)])?
        unsafe fn shim($($arg: $type),*) $(-> $out)? {
            // SAFETY: the table is handed out only where the features were detected, and the caller keeps the
            // kernel's own contract.
            unsafe { $kernel(<$isa>::assume(), $($arg),*) }
        }
        shim
    }};
}

/// The table of one instruction set.
macro_rules! tier {
    ($name:literal, $isa:ty, $features:tt, depth_block: $depth_block:literal) => {
        Kernels {
            name: $name,
            products: Products::F32,
            lanes: <$isa>::LANES,
            tile_rows: <$isa>::TILE_ROWS,
            tile_vectors: <$isa>::TILE_VECTORS,
            depth_block: $depth_block,
            tile: shim!($isa, $features, product::tile, (work: &product::Tile, rows: usize, vectors: usize)),
            narrow: shim!($isa, $features, narrow::narrow, (work: &narrow::Tiles)),
            depthwise: shim!($isa, $features, depthwise::depthwise, (line: &depthwise::Line<'_, depthwise::Floats>)),
            grouped: shim!($isa, $features, grouped::grouped, (line: &grouped::Line<'_>)),
            winograd_inputs: [
                shim!($isa, $features, winograd::inputs::<_, winograd::Two>, (work: &winograd::Inputs)),
                shim!($isa, $features, winograd::inputs::<_, winograd::Four>, (work: &winograd::Inputs)),
            ],
            winograd_weights: [
                shim!($isa, $features, winograd::weights::<_, winograd::Two>, (work: &winograd::Weights)),
                shim!($isa, $features, winograd::weights::<_, winograd::Four>, (work: &winograd::Weights)),
            ],
            winograd_outputs: [
                shim!($isa, $features, winograd::outputs::<_, winograd::Two>, (work: &winograd::Outputs)),
                shim!($isa, $features, winograd::outputs::<_, winograd::Four>, (work: &winograd::Outputs)),
            ],
            binary: shim!($isa, $features, binary::binary, (op: binary::Binary, a: *const f32, a_step: usize, b: *const f32, b_step: usize, out: *mut f32, length: usize)),
            fold_row: shim!($isa, $features, reduce::fold_row, (fold: reduce::Fold, x: *const f32, length: usize) -> f32),
            fold_columns: shim!($isa, $features, reduce::fold_columns, (fold: reduce::Fold, x: *const f32, rows: usize, stride: usize, out: *mut f32, columns: usize)),
            softmax_row: shim!($isa, $features, softmax::softmax_row, (x: *const f32, out: *mut f32, length: usize, log: bool)),
            softmax_columns: shim!($isa, $features, softmax::softmax_columns, (x: *const f32, out: *mut f32, rows: usize, stride: usize, count: usize, log: bool)),
            norm_rows: shim!($isa, $features, norm::norm_rows, (work: &norm::Rows)),
            scale_shift: shim!($isa, $features, norm::scale_shift, (work: &norm::Scaled)),
            moments: shim!($isa, $features, instance_norm::moments, (work: &instance_norm::Moments)),
            pool_window: shim!($isa, $features, pool::pool_window, (op: pool::Pool, window: &pool::Window)),
            order_i8: tile_i8::Order::of::<$isa, isa::Direct<false>>(),
            tile_i8: shim!($isa, $features, tile_i8::tile_i8::<_, isa::Direct<false>>, (work: &tile_i8::TileI8, rows: usize, vectors: usize)),
            depthwise_i8: shim!($isa, $features, depthwise_i8::depthwise_i8::<_, false>, (line: &depthwise_i8::LineI8<'_>)),
            quantise: shim!($isa, $features, quantise::quantise, (scale: quantise::Scale, x: *const f32, out: *mut u8, length: usize)),
            dequantise: shim!($isa, $features, quantise::dequantise, (scale: quantise::Scale, x: *const u8, out: *mut f32, length: usize)),
            add_bytes: shim!($isa, $features, quantise::add_bytes, (sum: &quantise::ByteSum, a: *const u8, b: *const u8, out: *mut u8, length: usize)),
            recurrent: shim!($isa, $features, recurrent::step, (work: &recurrent::Step)),
            attention_weights: shim!($isa, $features, attention::attention_weights, (work: &attention::Weights) -> (f32, f32)),
            turn: shim!($isa, $features, transpose::turn, (x: *const f32, stride: usize, rows: usize, columns: usize, out: *mut f32, out_stride: usize)),
            peak: shim!($isa, $features, peak::peak, (rounds: usize) -> f32),
            unary: shim!($isa, $features, map::unary, (op: map::Unary, x: *const f32, out: *mut f32, length: usize)),
        }
    };
}

static PORTABLE: Kernels = tier!("portable", isa::portable::Portable, [], depth_block: 256);
#[cfg(target_arch = "x86_64")]
const AVX2_TIER: Kernels = tier!("avx2", isa::avx2::Avx2, ["avx2,fma"], depth_block: 256);
#[cfg(target_arch = "x86_64")]
const AVX512_TIER: Kernels =
    tier!("avx512", isa::avx512::Avx512, ["avx512f,avx512bw,avx512vl,avx512dq,avx2,fma"], depth_block: 640);
#[cfg(target_arch = "x86_64")]
static AVX2: Kernels = AVX2_TIER;
#[cfg(target_arch = "x86_64")]
static AVX512: Kernels = AVX512_TIER;
/// The same with the instruction for products of bytes, which younger CPUs have.
#[cfg(target_arch = "x86_64")]
static AVX2_VNNI: Kernels = Kernels {
    name: "avx2vnni",
    tile_i8: shim!(isa::avx2::Avx2, ["avx2,fma,avxvnni"], tile_i8::tile_i8::<_, isa::Direct<true>>, (work: &tile_i8::TileI8, rows: usize, vectors: usize)),
    depthwise_i8: shim!(isa::avx2::Avx2, ["avx2,fma,avxvnni"], depthwise_i8::depthwise_i8::<_, true>, (line: &depthwise_i8::LineI8<'_>)),
    ..AVX2_TIER
};
#[cfg(target_arch = "x86_64")]
static AVX512_VNNI: Kernels = Kernels {
    name: "avx512vnni",
    tile_i8: shim!(isa::avx512::Avx512, ["avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma"], tile_i8::tile_i8::<_, isa::Direct<true>>, (work: &tile_i8::TileI8, rows: usize, vectors: usize)),
    depthwise_i8: shim!(isa::avx512::Avx512, ["avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma"], depthwise_i8::depthwise_i8::<_, true>, (line: &depthwise_i8::LineI8<'_>)),
    ..AVX512_TIER
};
/// Its own products of bytes take the place of [`isa::Direct`].
#[cfg(target_arch = "aarch64")]
const NEON_TIER: Kernels = tier!("neon", isa::neon::Neon, ["neon"], depth_block: 256);
#[cfg(target_arch = "aarch64")]
static NEON: Kernels = Kernels {
    order_i8: tile_i8::Order::of::<isa::neon::Neon, isa::neon_bytes::Widening>(),
    tile_i8: shim!(isa::neon::Neon, ["neon"], tile_i8::tile_i8::<_, isa::neon_bytes::Widening>, (work: &tile_i8::TileI8, rows: usize, vectors: usize)),
    ..NEON_TIER
};
#[cfg(target_arch = "aarch64")]
static NEON_DOT: Kernels = Kernels {
    name: "neondot",
    order_i8: tile_i8::Order::of::<isa::neon::Neon, isa::neon_bytes::DotProduct>(),
    tile_i8: shim!(isa::neon::Neon, ["neon,dotprod"], tile_i8::tile_i8::<_, isa::neon_bytes::DotProduct>, (work: &tile_i8::TileI8, rows: usize, vectors: usize)),
    ..NEON_TIER
};
#[cfg(target_arch = "aarch64")]
static NEON_I8MM: Kernels = Kernels {
    name: "neoni8mm",
    order_i8: isa::neon_bytes::MATRIX_ORDER,
    tile_i8: shim!(isa::neon::Neon, ["neon,i8mm"], isa::neon_bytes::tile_i8_matrix, (work: &tile_i8::TileI8, rows: usize, vectors: usize)),
    ..NEON_TIER
};

/// The tables that this CPU can run, best first. The last one is always `portable`.
pub fn available() -> &'static [&'static Kernels] {
    static AVAILABLE: OnceLock<Vec<&'static Kernels>> = OnceLock::new();
    AVAILABLE.get_or_init(|| {
        let mut tables = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
            {
                if is_x86_feature_detected!("avx512vnni") {
                    tables.push(&AVX512_VNNI);
                }
                tables.push(&AVX512);
            }
            if avx2 {
                if is_x86_feature_detected!("avxvnni") {
                    tables.push(&AVX2_VNNI);
                }
                tables.push(&AVX2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            if std::arch::is_aarch64_feature_detected!("i8mm") {
                tables.push(&NEON_I8MM);
            }
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                tables.push(&NEON_DOT);
            }
            tables.push(&NEON);
        }
        tables.push(&PORTABLE);
        tables
    })
}

/// The table to use: the one that `KINGLET_ISA` names, else the best. A name that this CPU has not is
/// reported in the log and ignored.
pub fn best() -> &'static Kernels {
    static BEST: OnceLock<&'static Kernels> = OnceLock::new();
    BEST.get_or_init(|| choose(std::env::var("KINGLET_ISA").ok().as_deref()))
}

/// As [`best`], with products in brain floats.
pub fn in_brain_floats() -> &'static Kernels {
    static TABLE: OnceLock<Kernels> = OnceLock::new();
    TABLE.get_or_init(|| Kernels { products: Products::Bf16, ..*best() })
}

fn choose(wanted: Option<&str>) -> &'static Kernels {
    let Some(wanted) = wanted.filter(|name| !name.is_empty()) else { return first() };
    available().iter().find(|kernels| kernels.name == wanted).copied().unwrap_or_else(|| {
        let names: Vec<_> = available().iter().map(|kernels| kernels.name).collect();
        log::warn!(
            "KINGLET_ISA={wanted} is not available here, {} is used; available: {}",
            first().name,
            names.join(", ")
        );
        first()
    })
}

fn first() -> &'static Kernels {
    available().first().copied().unwrap_or(&PORTABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portable_is_always_there_and_names_are_found() {
        assert_eq!(available().last().unwrap().name, "portable");
        assert_eq!(choose(Some("portable")).name, "portable");
        assert_eq!(choose(Some("no such thing")).name, available()[0].name);
        assert_eq!(choose(Some("")).name, available()[0].name);
        assert_eq!(choose(None).name, available()[0].name);
    }
}
