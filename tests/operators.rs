//! docs/OPERATORS.md lists what the importers' tables have.

use std::{env, fs, path::Path};

/// Operators of TensorFlow that graphs for inference are known to use, but for those that only
/// train, save, or feed a pipeline. Those that no table has are listed as not supported.
const KNOWN: &str = "AdjustHue AdjustSaturation BatchMatMulV3 BatchToSpace Betainc Case Cholesky ComplexAbs ConcatOffset \
    CTCGreedyDecoder CTCBeamSearchDecoder CumulativeLogsumexp DecodeCSV DecodeCompressed DecodeGif DecodePaddedRaw \
    Dequantize Diag DiagPart Digamma Dilation2D Erfinv FFT FFT2D Fingerprint FractionalAvgPool HSVToRGB IFFT \
    IRFFT Igamma ImageProjectiveTransformV3 InTopKV2 Lgamma ListDiff LookupTableInsertV2 MatrixDeterminant \
    MatrixInverse MatrixSetDiag MatrixSetDiagV3 MatrixSolve MaxPoolWithArgmax Ndtri NextAfter NthElement \
    Multinomial QuantizeV2 QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 QuantizedConv2D QuantizedMatMul Qr \
    RFFT2D RGBToHSV RaggedGather RaggedRange RaggedTensorFromVariant RaggedTensorToVariant RandomUniformInt \
    ResourceScatterAdd ResourceScatterUpdate ScatterUpdate SelfAdjointEigV2 SpaceToBatch SparseConcat SparseCross \
    SparseReorder SparseSlice SparseSoftmax SparseTensorDenseMatMul StatelessMultinomial StatelessRandomUniformV2 \
    StringFormat StringToHashBucket Svd TensorListResize TensorListSplit TensorStridedSliceUpdate UnicodeDecode \
    UnicodeDecodeWithOffsets UnicodeEncode UnicodeScript UnicodeTranscode UnsortedSegmentJoin XlaCallModule";

/// From here on the document is written by tests/onnx_nodes.rs and by hand.
const NODE_TESTS: &str = "## ONNX node tests\n";

#[test]
fn the_list_of_operators_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATORS.md");
    let found = fs::read_to_string(&path).unwrap_or_default();
    let mut text = String::from(
        "# Operators\n\nGenerated from the importers' tables by `KINGLET_UPDATE=1 cargo test --test operators`; \
         a model with any other\noperator fails to load with the list of all that are missing.\n\n\
         ## SavedModel\n\n",
    );
    for name in kinglet::formats::saved_model::operator_names() {
        text.push_str(&format!("- `{name}`\n"));
    }
    text.push_str("\n### Not supported\n\nKnown in graphs for inference (tests/operators.rs):\n\n");
    let supported = kinglet::formats::saved_model::operator_names();
    for name in KNOWN.split_whitespace().filter(|name| !supported.contains(name)) {
        text.push_str(&format!("- `{name}`\n"));
    }
    text.push_str("\n## ONNX\n\nOperators of other domains have the domain in front.\n\n");
    for name in kinglet::formats::onnx::operator_names() {
        text.push_str(&format!("- `{name}`\n"));
    }
    text.push('\n');
    text.push_str(found.find(NODE_TESTS).map_or(NODE_TESTS, |start| &found[start..]));
    if env::var_os("KINGLET_UPDATE").is_some() {
        fs::write(&path, &text).expect("docs/ can be written");
    }
    assert!(
        found == text || env::var_os("KINGLET_UPDATE").is_some(),
        "docs/OPERATORS.md is not current; run KINGLET_UPDATE=1 cargo test --test operators"
    );
}
