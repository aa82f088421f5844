"""One signature per operator and case, in graphs without functions: `(operator, attributes, inputs)`.

All cases stand in one SavedModel, a fixture of the repository; `--split` writes one each.
"""
import zlib

import numpy as np
import tensorflow as tf

import record as r
from record import floats, integers, strings

R = tf.raw_ops


def png(height, width, channels):
    return np.array([tf.io.encode_png(integers(0, 256, height, width, channels, dtype=np.uint8)).numpy()])[0]


def bmp():
    """A 3 x 2 picture of 24 bits, rows from the bottom and padded to four bytes."""
    rows = b"".join(bytes(range(9 * y, 9 * y + 9)) + b"\0\0\0" for y in range(2))
    header = (54 + len(rows)).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
    header += (3).to_bytes(4, "little") + (2).to_bytes(4, "little") + b"\1\0\x18\0" + bytes(4) + len(rows).to_bytes(4, "little")
    return b"BM" + header + bytes(16) + rows[:-1] + b"\1"


CASES = {}


def case(name, operator, constants=None, **arguments):
    """Arrays among the arguments are inputs of the signature, `constants` are built in, the rest are attributes."""
    assert name not in CASES, name
    CASES[name] = (operator, constants or {}, arguments)


# Functions of one argument.
for operator in ("Abs", "Neg", "Exp", "Expm1", "Square", "Sign", "Floor", "Ceil", "Round", "Rint", "Sigmoid", "Tanh", "Erf", "Erfc",
                 "Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh", "Asinh", "IsNan", "IsInf", "IsFinite"):
    case(operator, getattr(R, operator), x=np.array([-2.5, -1.0, -0.5, 0.0, 0.5, 1.5, 3.0, 0.7], np.float32))
for operator in ("Log", "Log1p", "Sqrt", "Rsqrt", "Reciprocal", "Inv", "Lgamma", "Digamma"):
    case(operator, getattr(R, operator), x=floats(8, low=0.1, high=4))
for operator in ("Asin", "Acos", "Atanh", "Erfinv", "Ndtri"):
    case(operator, getattr(R, operator), x=floats(8, low=0.1, high=0.9))
case("Acosh", R.Acosh, x=floats(8, low=1.1, high=4))
for operator in ("Relu", "Relu6", "Elu", "Selu", "Softplus", "Softsign", "LeakyRelu"):
    case(operator, getattr(R, operator), features=floats(2, 9, low=-8, high=8))
case("AbsInt", R.Abs, x=integers(-9, 9, 7))
case("NegInt64", R.Neg, x=integers(-9, 9, 7, dtype=np.int64))
case("SquareInt", R.Square, x=integers(-9, 9, 7))
case("SignInt", R.Sign, x=integers(-2, 3, 7))
case("ReluInt", R.Relu, features=integers(-9, 9, 7))
case("Invert", R.Invert, x=integers(-9, 9, 7))
case("SqrtDouble", R.Sqrt, x=floats(5).astype(np.float64))
case("ExpHalf", R.Exp, x=floats(5).astype(np.float16))
case("LogicalNot", R.LogicalNot, x=np.array([True, False]))

# Functions of two arguments.
for operator in ("Add", "AddV2", "Sub", "Mul", "Div", "RealDiv", "FloorDiv", "FloorMod", "Maximum", "Minimum", "SquaredDifference",
                 "Atan2", "DivNoNan", "MulNoNan", "Xdivy", "Xlogy", "Xlog1py", "Pow", "TruncateMod", "Mod", "TruncateDiv"):
    if operator in ("TruncateDiv",):
        case(operator, getattr(R, operator), x=integers(-9, 9, 6), y=np.array([3, -2, 4, 5, -3, 1], np.int32))
        continue
    case(operator, getattr(R, operator), x=floats(3, 4, low=0.2, high=4), y=floats(4, low=0.3, high=2))
for operator in ("Add", "Sub", "Mul", "FloorDiv", "FloorMod", "TruncateMod", "Maximum", "Minimum", "SquaredDifference", "TruncateDiv"):
    if f"{operator}Int" not in CASES:
        case(f"{operator}Int", getattr(R, operator), x=integers(-9, 9, 2, 3), y=np.array([3, -2, 4], np.int32))
for operator in ("BitwiseAnd", "BitwiseOr", "BitwiseXor", "LeftShift", "RightShift"):
    case(operator, getattr(R, operator), x=integers(0, 100, 5), y=integers(0, 5, 5))
for operator in ("Equal", "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual"):
    case(operator, getattr(R, operator), x=integers(0, 3, 3, 4), y=integers(0, 3, 4))
case("EqualString", R.Equal, x=strings("a", "b", "c"), y=strings("a", "c", "c"))
case("LessDouble", R.Less, x=floats(4).astype(np.float64), y=floats(4).astype(np.float64))
case("ApproximateEqual", R.ApproximateEqual, x=np.array([1.0, 2.0], np.float32), y=np.array([1.000001, 2.1], np.float32))
case("LogicalAnd", R.LogicalAnd, x=np.array([True, False]), y=np.array([True, True]))
case("LogicalOr", R.LogicalOr, x=np.array([True, False]), y=np.array([False, False]))
case("PowInt", R.Pow, x=integers(-3, 4, 5), y=integers(0, 4, 5))
case("Select", R.Select, condition=np.array([True, False]), x=floats(2, 3), y=floats(2, 3))
case("SelectScalar", R.Select, condition=np.array(True), x=floats(2, 3), y=floats(2, 3))
case("SelectV2", R.SelectV2, condition=np.array([[True], [False]]), t=floats(2, 3), e=floats(3))
case("AddN", R.AddN, inputs=[floats(2, 3), floats(2, 3), floats(2, 3)])
case("AccumulateNV2", R.AccumulateNV2, inputs=[floats(2), floats(2)], shape=(2,))
case("ClipByValue", R.ClipByValue, t=floats(6), clip_value_min=np.float32(0.3), clip_value_max=np.float32(0.6))
case("BiasAdd", R.BiasAdd, value=floats(2, 3, 3, 4), bias=floats(4))
case("BiasAddFirst", R.BiasAdd, value=floats(2, 4, 3, 3), bias=floats(4), data_format="NCHW")
case("BiasAddV1", R.BiasAddV1, value=floats(2, 4), bias=floats(4))
case("CastToInt", R.Cast, x=floats(5, low=-9, high=9), DstT=tf.int32)
case("CastToBool", R.Cast, x=integers(0, 2, 5), DstT=tf.bool)
case("CastToHalf", R.Cast, x=floats(5), DstT=tf.float16)
case("CastFromBool", R.Cast, x=np.array([True, False]), DstT=tf.float32)
case("Bitcast", R.Bitcast, input=floats(3), type=tf.int32)
case("BitcastBytes", R.Bitcast, input=floats(3), type=tf.uint8)
case("Betainc", R.Betainc, a=floats(3, low=1, high=2), b=floats(3, low=1, high=2), x=floats(3))

# Products and convolutions.
case("MatMul", R.MatMul, a=floats(3, 4), b=floats(4, 5))
case("MatMulTransposed", R.MatMul, a=floats(4, 3), b=floats(5, 4), transpose_a=True, transpose_b=True)
case("MatMulDouble", R.MatMul, a=floats(3, 4).astype(np.float64), b=floats(4, 2).astype(np.float64))
case("MatMulInt", R.MatMul, a=integers(-5, 5, 3, 4), b=integers(-5, 5, 4, 2))
case("MatMulHalf", R.MatMul, a=floats(3, 4).astype(np.float16), b=floats(4, 2).astype(np.float16))
case("BatchMatMul", R.BatchMatMul, x=floats(2, 3, 4), y=floats(2, 4, 5))
case("BatchMatMulV2", R.BatchMatMulV2, x=floats(2, 1, 3, 4), y=floats(3, 5, 4), adj_y=True)
case("BatchMatMulV3", R.BatchMatMulV3, x=floats(2, 4, 3), y=floats(4, 5), Tout=tf.float32, adj_x=True)
for name, equation, shapes in (
    ("Transpose", "ij->ji", [(2, 3)]), ("Sum", "ij->i", [(2, 3)]), ("Trace", "ii->", [(3, 3)]), ("Diagonal", "bii->bi", [(2, 3, 3)]),
    ("Product", "ij,jk->ik", [(2, 3), (3, 4)]), ("Outer", "i,j->ij", [(2,), (3,)]), ("Heads", "bnqd,bnkd->bnqk", [(2, 2, 3, 4), (2, 2, 5, 4)]),
    ("Dense", "abc,cde->abde", [(2, 3, 4), (4, 2, 5)]), ("Back", "abcd,cde->abe", [(2, 3, 2, 4), (2, 4, 5)]),
    ("Ellipsis", "...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)]), ("EllipsisBroadcast", "...ij,jk->...ik", [(2, 2, 3, 4), (4, 5)]),
    ("Elementwise", "ij,ij->ij", [(2, 3), (2, 3)]), ("Scalar", "i,i->", [(4,), (4,)]), ("Query", "aecd,abcd->acbe", [(2, 3, 2, 4), (2, 5, 2, 4)]),
):
    case(f"Einsum{name}", R.Einsum, inputs=[floats(*shape) for shape in shapes], equation=equation)
for name, filters, options in (
    ("Valid", (3, 3, 4, 5), dict(padding="VALID")), ("Same", (3, 3, 4, 5), dict(padding="SAME")), ("Even", (2, 4, 4, 3), dict(padding="SAME")),
    ("Strided", (3, 3, 4, 5), dict(padding="SAME", strides=[1, 2, 2, 1])), ("Uneven", (3, 2, 4, 5), dict(padding="VALID", strides=[1, 2, 1, 1])),
    ("Dilated", (3, 3, 4, 2), dict(padding="SAME", dilations=[1, 2, 2, 1])),
    ("Explicit", (3, 3, 4, 2), dict(padding="EXPLICIT", explicit_paddings=[0, 0, 1, 2, 3, 0, 0, 0])),
    ("Grouped", (3, 3, 2, 6), dict(padding="SAME")), ("Pointwise", (1, 1, 4, 6), dict(padding="SAME")),
    ("Large", (9, 9, 4, 2), dict(padding="SAME")), ("StridedSame1", (1, 1, 4, 2), dict(padding="SAME", strides=[1, 2, 2, 1])),
):
    options = {"strides": [1, 1, 1, 1], **options}
    case(f"Conv2D{name}", R.Conv2D, {"filter": floats(*filters)}, input=floats(2, 7, 8, 4), **options)
case("Conv2DDynamicFilter", R.Conv2D, input=floats(1, 6, 6, 2), filter=floats(3, 3, 2, 3), strides=[1, 1, 1, 1], padding="SAME")
case("Conv2DHalf", R.Conv2D, {"filter": floats(3, 3, 2, 3).astype(np.float16)}, input=floats(1, 6, 6, 2).astype(np.float16),
     strides=[1, 1, 1, 1], padding="SAME")
case("Conv2DDouble", R.Conv2D, {"filter": floats(3, 3, 2, 3).astype(np.float64)}, input=floats(1, 6, 6, 2).astype(np.float64),
     strides=[1, 1, 1, 1], padding="SAME")
for name, filters, options in (
    ("Valid", (3, 3, 4, 1), dict(padding="VALID")), ("Multiplier", (3, 3, 4, 2), dict(padding="SAME")),
    ("Strided", (3, 3, 4, 1), dict(padding="SAME", strides=[1, 2, 2, 1])), ("Dilated", (3, 3, 4, 1), dict(padding="SAME", dilations=[1, 2, 2, 1])),
    ("Explicit", (3, 3, 4, 1), dict(padding="EXPLICIT", explicit_paddings=[0, 0, 1, 1, 0, 2, 0, 0])),
):
    options = {"strides": [1, 1, 1, 1], **options}
    case(f"DepthwiseConv2d{name}", R.DepthwiseConv2dNative, {"filter": floats(*filters)}, input=floats(2, 7, 8, 4), **options)
case("DepthwiseConv2dDynamicFilter", R.DepthwiseConv2dNative, input=floats(1, 6, 6, 2), filter=floats(3, 3, 2, 2), strides=[1, 1, 1, 1], padding="SAME")
for name, size, padding, stride in (("Valid", [2, 9, 9, 3], "VALID", 2), ("Same", [2, 8, 7, 3], "SAME", 2), ("Same3", [2, 10, 12, 3], "SAME", 3), ("One", [2, 6, 6, 3], "VALID", 1)):
    height = {"VALID": lambda n: (n - 3) // stride + 1, "SAME": lambda n: -(-n // stride)}[padding]
    case(f"Conv2DBackpropInput{name}", R.Conv2DBackpropInput, {"input_sizes": np.array(size, np.int32), "filter": floats(3, 3, 3, 4)},
         out_backprop=floats(2, height(size[1]), height(size[2]), 4), strides=[1, stride, stride, 1], padding=padding)
case("Conv2DBackpropInputExplicit", R.Conv2DBackpropInput, {"input_sizes": np.array([1, 8, 8, 3], np.int32), "filter": floats(3, 3, 3, 4)},
     out_backprop=floats(1, 4, 4, 4), strides=[1, 2, 2, 1], padding="EXPLICIT", explicit_paddings=[0, 0, 1, 0, 0, 1, 0, 0])
case("DepthwiseConv2dNativeBackpropInput", R.DepthwiseConv2dNativeBackpropInput,
     {"input_sizes": np.array([1, 8, 8, 4], np.int32), "filter": floats(3, 3, 4, 2)}, out_backprop=floats(1, 4, 4, 8), strides=[1, 2, 2, 1], padding="SAME")
for name, options in (("Valid", dict(padding="VALID", strides=[1] * 5)), ("Same", dict(padding="SAME", strides=[1, 1, 2, 2, 1]))):
    case(f"Conv3D{name}", R.Conv3D, {"filter": floats(2, 3, 3, 2, 3)}, input=floats(2, 4, 6, 5, 2), **options)
case("Conv3DBackpropInputV2", R.Conv3DBackpropInputV2, {"input_sizes": np.array([1, 5, 6, 7, 2], np.int32), "filter": floats(3, 2, 3, 2, 4)},
     out_backprop=floats(1, 3, 3, 4, 4), strides=[1, 2, 2, 2, 1], padding="SAME")
for version in ("", "V2", "V3"):
    case(f"FusedBatchNorm{version}", getattr(R, f"FusedBatchNorm{version}"), {"scale": floats(3), "offset": floats(3), "mean": floats(3), "variance": floats(3, low=0.5)},
         x=floats(2, 4, 4, 3), is_training=False, epsilon=1e-3)
case("FusedBatchNormTraining", R.FusedBatchNormV3, {"scale": floats(3), "offset": floats(3), "mean": np.zeros(0, np.float32), "variance": np.zeros(0, np.float32)},
     x=floats(2, 4, 4, 3), is_training=True, epsilon=1e-3)
for kind in ("MaxPool", "AvgPool"):
    value = "input" if kind == "MaxPool" else "value"
    for padding in ("VALID", "SAME"):
        case(f"{kind}{padding.title()}", getattr(R, kind), ksize=[1, 3, 2, 1], strides=[1, 2, 1, 1], padding=padding, **{value: floats(2, 7, 6, 3, low=-1)})
        case(f"{kind}3D{padding.title()}", getattr(R, f"{kind}3D"), ksize=[1, 2, 3, 2, 1], strides=[1, 2, 2, 1, 1], padding=padding, input=floats(2, 5, 7, 6, 3, low=-1))
case("MaxPoolExplicit", R.MaxPool, input=floats(1, 6, 6, 2, low=-1), ksize=[1, 3, 3, 1], strides=[1, 2, 2, 1], padding="EXPLICIT", explicit_paddings=[0, 0, 1, 0, 1, 1, 0, 0])
case("MaxPoolV2", R.MaxPoolV2, {"ksize": np.array([1, 2, 2, 1], np.int32), "strides": np.array([1, 2, 2, 1], np.int32)}, input=floats(1, 5, 5, 2), padding="SAME")
case("MaxPoolDepth", R.MaxPool, input=floats(1, 3, 3, 6), ksize=[1, 1, 1, 2], strides=[1, 1, 1, 2], padding="VALID")
case("MaxPoolWithArgmax", R.MaxPoolWithArgmax, input=floats(2, 6, 6, 2), ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="SAME")
case("Dilation2D", R.Dilation2D, {"filter": floats(3, 3, 2)}, input=floats(1, 6, 6, 2), strides=[1, 1, 1, 1], rates=[1, 1, 1, 1], padding="SAME")
case("LRN", R.LRN, input=floats(1, 3, 3, 8), depth_radius=2, bias=1.0, alpha=0.5, beta=0.75)
case("L2Loss", R.L2Loss, t=floats(5))
case("Softmax", R.Softmax, logits=floats(2, 3, 4))
case("LogSoftmax", R.LogSoftmax, logits=floats(2, 4))
case("SoftmaxHalf", R.Softmax, logits=floats(2, 4).astype(np.float16))

# Reductions.
for operator in ("Sum", "Mean", "Max", "Min", "Prod", "EuclideanNorm"):
    case(operator, getattr(R, operator), {"axis": np.array([0, -1], np.int32)}, input=floats(2, 3, 4))
    case(f"{operator}Kept", getattr(R, operator), {"axis": np.array([1], np.int32)}, input=floats(2, 3, 4), keep_dims=True)
for operator in ("Sum", "Mean", "Max", "Min", "Prod"):
    case(f"{operator}Int", getattr(R, operator), {"axis": np.array(0, np.int32)}, input=integers(-5, 5, 3, 4))
for operator in ("All", "Any"):
    case(operator, getattr(R, operator), {"axis": np.array([1], np.int32)}, input=np.array([[True, False], [True, True]]))
case("SumNothing", R.Sum, {"axis": np.array([], np.int32)}, input=floats(2, 3))
case("SumComputedAxis", R.Sum, input=floats(2, 3), axis=np.array([1], np.int32))
for operator in ("ArgMax", "ArgMin"):
    case(operator, getattr(R, operator), {"dimension": np.array(1, np.int32)}, input=floats(2, 5))
    case(f"{operator}Int", getattr(R, operator), {"dimension": np.array(-1, np.int32)}, input=integers(0, 3, 2, 5), output_type=tf.int32)
for exclusive in (False, True):
    for reverse in (False, True):
        case(f"Cumsum{'Exclusive' * exclusive}{'Reverse' * reverse}", R.Cumsum, {"axis": np.array(1, np.int32)}, x=floats(2, 5), exclusive=exclusive, reverse=reverse)
case("CumsumInt", R.Cumsum, {"axis": np.array(0, np.int32)}, x=integers(0, 9, 5))
case("Cumprod", R.Cumprod, {"axis": np.array(-1, np.int32)}, x=floats(2, 5), exclusive=True)
case("CumulativeLogsumexp", R.CumulativeLogsumexp, {"axis": np.array(0, np.int32)}, x=floats(5))
case("SegmentSum", R.SegmentSum, data=floats(5, 2), segment_ids=np.array([0, 0, 1, 3, 3], np.int32))
case("SegmentMean", R.SegmentMean, data=floats(5, 2), segment_ids=np.array([0, 0, 1, 2, 2], np.int32))
case("SegmentMax", R.SegmentMax, data=floats(5, 2), segment_ids=np.array([0, 0, 1, 2, 2], np.int32))
case("UnsortedSegmentSum", R.UnsortedSegmentSum, {"num_segments": np.array(4, np.int32)}, data=floats(5, 2), segment_ids=np.array([2, 0, -1, 3, 2], np.int32))
case("UnsortedSegmentMax", R.UnsortedSegmentMax, {"num_segments": np.array(3, np.int32)}, data=integers(0, 9, 5), segment_ids=np.array([2, 0, 1, 0, 2], np.int32))
case("UnsortedSegmentProd", R.UnsortedSegmentProd, {"num_segments": np.array(3, np.int32)}, data=floats(4), segment_ids=np.array([2, 0, 0, 2], np.int32))
case("SparseSegmentSum", R.SparseSegmentSum, data=floats(5, 2), indices=np.array([0, 2, 4], np.int32), segment_ids=np.array([0, 0, 1], np.int32))
case("SparseSegmentMean", R.SparseSegmentMean, data=floats(5, 2), indices=np.array([0, 2, 4], np.int32), segment_ids=np.array([0, 0, 1], np.int32))
case("SparseSegmentSqrtN", R.SparseSegmentSqrtN, data=floats(5, 2), indices=np.array([0, 2, 4], np.int32), segment_ids=np.array([0, 0, 1], np.int32))
case("Bincount", R.Bincount, {"size": np.array(6, np.int32), "weights": np.zeros(0, np.float32)}, arr=integers(0, 8, 10))
case("DenseBincount", R.DenseBincount, {"size": np.array(6, np.int32), "weights": np.zeros(0, np.float32)}, input=integers(0, 6, 2, 5))
case("DenseBincountBinary", R.DenseBincount, {"size": np.array(6, np.int32), "weights": np.zeros(0, np.float32)}, input=integers(0, 6, 2, 5), binary_output=True)
case("DenseBincountWeights", R.DenseBincount, {"size": np.array(6, np.int32)}, input=integers(0, 6, 5), weights=floats(5))

# Shapes.
case("Shape", R.Shape, input=floats(2, 3))
case("ShapeLong", R.Shape, input=floats(2, 3), out_type=tf.int64)
case("ShapeN", R.ShapeN, input=[floats(2, 3), floats(1)])
case("Rank", R.Rank, input=floats(2, 3))
case("Size", R.Size, input=floats(2, 3), out_type=tf.int64)
case("Reshape", R.Reshape, {"shape": np.array([3, -1], np.int32)}, tensor=floats(2, 3, 2))
case("ReshapeComputed", R.Reshape, tensor=floats(2, 3), shape=np.array([6, 1], np.int32))
case("Squeeze", R.Squeeze, input=floats(1, 3, 1), axis=[-1])
case("SqueezeAll", R.Squeeze, input=floats(1, 3, 1))
case("ExpandDims", R.ExpandDims, {"axis": np.array(-1, np.int32)}, input=floats(2, 3))
case("ExpandDimsComputed", R.ExpandDims, input=floats(2, 3), axis=np.array(1, np.int32))
case("ZerosLike", R.ZerosLike, x=integers(0, 9, 2, 2))
case("OnesLike", R.OnesLike, x=floats(2, 2))
case("Fill", R.Fill, {"value": np.float32(2.5)}, dims=np.array([2, 3], np.int32))
case("BroadcastTo", R.BroadcastTo, {"shape": np.array([2, 3], np.int32)}, input=floats(3))
case("BroadcastArgs", R.BroadcastArgs, s0=np.array([2, 1], np.int32), s1=np.array([1, 3], np.int32))
case("BroadcastGradientArgs", R.BroadcastGradientArgs, s0=np.array([2, 1], np.int32), s1=np.array([1, 3], np.int32))
case("EnsureShape", R.EnsureShape, input=floats(2, 3), shape=(None, 3))
case("Identity", R.Identity, input=strings("a", "bc"))
case("IdentityN", R.IdentityN, input=[floats(2), integers(0, 3, 2)])
case("StopGradient", R.StopGradient, input=floats(2))
case("CheckNumerics", R.CheckNumerics, tensor=floats(2), message="not finite")

# Moving elements.
case("Transpose", R.Transpose, {"perm": np.array([2, 0, 1], np.int32)}, x=floats(2, 3, 4))
case("TransposeComputed", R.Transpose, x=floats(2, 3), perm=np.array([1, 0], np.int32))
case("TransposeString", R.Transpose, {"perm": np.array([1, 0], np.int32)}, x=strings("a", "b", "c", "d").reshape(2, 2))
case("InvertPermutation", R.InvertPermutation, x=np.array([2, 0, 1], np.int32))
case("ReverseV2", R.ReverseV2, {"axis": np.array([-1, 0], np.int32)}, tensor=floats(2, 3))
case("ReverseSequence", R.ReverseSequence, input=floats(3, 4, 2), seq_lengths=np.array([1, 4, 2], np.int32), seq_dim=1)
case("Roll", R.Roll, {"shift": np.array([1, -2], np.int32), "axis": np.array([0, 1], np.int32)}, input=floats(3, 4))
case("DepthToSpace", R.DepthToSpace, input=floats(1, 2, 2, 8), block_size=2)
case("SpaceToDepth", R.SpaceToDepth, input=floats(1, 4, 4, 2), block_size=2)
case("SpaceToBatchND", R.SpaceToBatchND, {"block_shape": np.array([2, 2], np.int32), "paddings": np.array([[1, 0], [0, 1]], np.int32)}, input=floats(1, 3, 3, 2))
case("BatchToSpaceND", R.BatchToSpaceND, {"block_shape": np.array([2, 2], np.int32), "crops": np.array([[1, 0], [0, 1]], np.int32)}, input=floats(4, 2, 2, 2))
case("SpaceToBatch", R.SpaceToBatch, {"paddings": np.array([[0, 0], [0, 0]], np.int32)}, input=floats(1, 4, 4, 1), block_size=2)
case("BatchToSpace", R.BatchToSpace, {"crops": np.array([[0, 0], [0, 0]], np.int32)}, input=floats(4, 2, 2, 1), block_size=2)
case("Pack", R.Pack, values=[floats(2, 3), floats(2, 3)], axis=1)
case("Unpack", R.Unpack, value=floats(2, 3), num=3, axis=-1)
case("ConcatV2", R.ConcatV2, {"axis": np.array(-1, np.int32)}, values=[floats(2, 3), floats(2, 1)])
case("Concat", R.Concat, {"concat_dim": np.array(0, np.int32)}, values=[floats(2, 3), floats(1, 3)])
case("ConcatOffset", R.ConcatOffset, {"concat_dim": np.array(1, np.int32)}, shape=[np.array([2, 3], np.int32), np.array([2, 1], np.int32)])
case("Split", R.Split, {"axis": np.array(1, np.int32)}, value=floats(2, 6), num_split=3)
case("SplitV", R.SplitV, {"size_splits": np.array([2, -1], np.int32), "axis": np.array(1, np.int32)}, value=floats(2, 6), num_split=2)
case("Slice", R.Slice, {"begin": np.array([0, 1], np.int32), "size": np.array([-1, 2], np.int32)}, input=floats(2, 4))
for name, begin, end, strides, masks in (
    ("Plain", [0, 1, 1], [2, 3, 4], [1, 1, 2], {}), ("Masks", [9, 1, 9], [9, 9, 2], [1, 1, 1], dict(begin_mask=5, end_mask=3)),
    ("Backwards", [0, -1, 0], [0, 0, 0], [1, -1, -2], dict(begin_mask=5, end_mask=7)), ("Shrink", [1, -1, 0], [2, 0, 2], [1, 1, 1], dict(shrink_axis_mask=3)),
    ("NewAxis", [0, 0, 1], [0, 0, 2], [1, 1, 1], dict(new_axis_mask=2, begin_mask=1, end_mask=1)),
    ("Ellipsis", [0, 1], [0, 3], [1, 1], dict(ellipsis_mask=1)), ("EllipsisNew", [0, 0, 1], [0, 0, 2], [1, 1, 1], dict(ellipsis_mask=1, new_axis_mask=2, shrink_axis_mask=4)),
    ("Short", [1], [2], [1], {}), ("Negative", [-2, -3], [-1, 9], [1, 1], {}), ("Beyond", [-9, 1], [99, -1], [1, 2], {}),
):
    case(f"StridedSlice{name}", R.StridedSlice, {"begin": np.array(begin, np.int32), "end": np.array(end, np.int32), "strides": np.array(strides, np.int32)}, input=floats(2, 3, 4), **masks)
case("TensorStridedSliceUpdate", R.TensorStridedSliceUpdate, {"begin": np.array([0, 1], np.int32), "end": np.array([2, 3], np.int32), "strides": np.array([1, 1], np.int32)}, input=floats(2, 4), value=floats(2, 2))
case("Tile", R.Tile, {"multiples": np.array([2, 1, 3], np.int32)}, input=floats(1, 2, 2))
case("Pad", R.Pad, {"paddings": np.array([[1, 0], [2, 1]], np.int32)}, input=floats(2, 3))
case("PadV2", R.PadV2, {"paddings": np.array([[1, 0], [2, 1]], np.int32)}, input=floats(2, 3), constant_values=np.float32(7))
case("MirrorPadReflect", R.MirrorPad, {"paddings": np.array([[1, 0], [2, 1]], np.int32)}, input=floats(2, 3), mode="REFLECT")
case("MirrorPadSymmetric", R.MirrorPad, {"paddings": np.array([[1, 0], [2, 1]], np.int32)}, input=floats(2, 3), mode="SYMMETRIC")
case("Gather", R.Gather, params=floats(5, 2), indices=integers(0, 5, 3))
case("GatherV2", R.GatherV2, {"axis": np.array(1, np.int32)}, params=floats(2, 5, 3), indices=integers(0, 5, 2, 2))
case("GatherV2Batch", R.GatherV2, {"axis": np.array(1, np.int32)}, params=floats(2, 5, 3), indices=integers(0, 5, 2, 2), batch_dims=1)
case("GatherV2Negative", R.GatherV2, {"axis": np.array(-1, np.int32)}, params=floats(2, 5), indices=np.array(3, np.int32))
case("GatherString", R.GatherV2, {"params": strings("cat", "dog", "bird"), "axis": np.array(0, np.int32)}, indices=integers(0, 3, 4))
case("GatherNd", R.GatherNd, params=floats(3, 4, 2), indices=np.array([[0, 1], [2, 3]], np.int32))
case("OneHot", R.OneHot, {"depth": np.array(4, np.int32), "on_value": np.float32(2), "off_value": np.float32(-1)}, indices=np.array([0, 3, -1, 7], np.int32))
case("OneHotAxis", R.OneHot, {"depth": np.array(3, np.int32), "on_value": np.array(1, np.int32), "off_value": np.array(0, np.int32)}, indices=integers(0, 3, 2, 2), axis=0)
case("ScatterNd", R.ScatterNd, {"shape": np.array([5, 2], np.int32)}, indices=np.array([[1], [3], [1]], np.int32), updates=floats(3, 2))
for operator in ("Update", "Add", "Sub", "Min", "Max"):
    case(f"TensorScatter{operator}", getattr(R, f"TensorScatter{operator}"), tensor=floats(5, 2), indices=np.array([[1], [3]], np.int32), updates=floats(2, 2))
case("TopKV2", R.TopKV2, {"k": np.array(3, np.int32)}, input=integers(0, 4, 2, 6))
case("InTopKV2", R.InTopKV2, {"k": np.array(2, np.int32)}, predictions=floats(3, 5), targets=integers(0, 5, 3))
case("NthElement", R.NthElement, {"n": np.array(1, np.int32)}, input=floats(2, 5))
case("Unique", R.Unique, x=np.array([3, 1, 3, 2, 1], np.int32))
case("UniqueString", R.Unique, x=strings("b", "a", "b"))
case("UniqueV2", R.UniqueV2, {"axis": np.array([0], np.int32)}, x=np.array([3, 1, 3, 2, 1], np.int64))
case("UniqueWithCounts", R.UniqueWithCounts, x=np.array([3, 1, 3, 2, 1], np.int32))
case("ListDiff", R.ListDiff, x=np.array([1, 2, 3, 4], np.int32), y=np.array([2, 4], np.int32))
case("Range", R.Range, {"delta": np.array(2, np.int32), "start": np.array(1, np.int32)}, limit=np.array(9, np.int32))
case("RangeFloat", R.Range, {"delta": np.float32(-0.5), "start": np.float32(1)}, limit=np.float32(-1))
case("LinSpace", R.LinSpace, {"num": np.array(5, np.int32)}, start=np.float32(0), stop=np.float32(1))
case("Where", R.Where, condition=np.array([[True, False], [True, True]]))
case("WhereNumber", R.Where, condition=np.array([0.0, 2.0, -1.0], np.float32))
case("MatrixBandPart", R.MatrixBandPart, {"num_lower": np.array(1, np.int64), "num_upper": np.array(0, np.int64)}, input=floats(2, 3, 3))
case("MatrixDiag", R.MatrixDiag, diagonal=floats(2, 3))
case("MatrixDiagPart", R.MatrixDiagPart, input=floats(2, 3, 3))
case("MatrixSetDiag", R.MatrixSetDiag, input=floats(2, 3, 3), diagonal=floats(2, 3))
case("MatrixDiagV3", R.MatrixDiagV3, {"k": np.array(1, np.int32), "num_rows": np.array(-1, np.int32), "num_cols": np.array(-1, np.int32), "padding_value": np.float32(0)}, diagonal=floats(2, 3))
case("MatrixDiagPartV3", R.MatrixDiagPartV3, {"k": np.array(0, np.int32), "padding_value": np.float32(0)}, input=floats(2, 3, 4))
case("MatrixSetDiagV3", R.MatrixSetDiagV3, {"k": np.array(0, np.int32)}, input=floats(2, 3, 3), diagonal=floats(2, 3))
case("Diag", R.Diag, diagonal=floats(3))
case("DiagPart", R.DiagPart, input=floats(3, 3))
case("SparseToDense", R.SparseToDense, {"output_shape": np.array([3, 4], np.int64), "default_value": np.float32(-1)},
     sparse_indices=np.array([[0, 1], [2, 3]], np.int64), sparse_values=floats(2))
case("SparseToDenseVector", R.SparseToDense, {"output_shape": np.array([5], np.int64), "default_value": np.array(0, np.int64)},
     sparse_indices=np.array([1, 3], np.int64), sparse_values=np.array([7, 8], np.int64))
case("SparseReshape", R.SparseReshape, {"new_shape": np.array([6, -1], np.int64)}, input_indices=np.array([[0, 1], [2, 3]], np.int64), input_shape=np.array([3, 4], np.int64))
case("SparseFillEmptyRows", R.SparseFillEmptyRows, indices=np.array([[0, 1], [2, 0]], np.int64), values=floats(2), dense_shape=np.array([4, 2], np.int64), default_value=np.float32(9))
case("SparseTensorDenseMatMul", R.SparseTensorDenseMatMul, a_indices=np.array([[0, 1], [2, 0]], np.int64), a_values=floats(2), a_shape=np.array([3, 2], np.int64), b=floats(2, 4))
case("DynamicPartition", R.DynamicPartition, data=floats(5, 2), partitions=np.array([1, 0, 1, 2, 0], np.int32), num_partitions=3)
case("DynamicStitch", R.DynamicStitch, indices=[np.array([0, 3], np.int32), np.array([[1], [2]], np.int32)], data=[floats(2, 2), floats(2, 1, 2)])
case("ParallelDynamicStitch", R.ParallelDynamicStitch, indices=[np.array([0, 2], np.int32), np.array([1], np.int32)], data=[floats(2), floats(1)])
case("Bucketize", R.Bucketize, input=floats(6, low=-2, high=2), boundaries=[-1.0, 0.0, 0.5])
case("SearchSortedLower", R.LowerBound, sorted_inputs=np.array([[1, 3, 5]], np.int32), values=np.array([[0, 3, 9]], np.int32))
case("SearchSortedUpper", R.UpperBound, sorted_inputs=np.array([[1.0, 3.0, 5.0]], np.float32), values=np.array([[0.0, 3.0, 9.0]], np.float32))
case("Cross", R.Cross, a=floats(2, 3), b=floats(2, 3))
case("ExtractImagePatches", R.ExtractImagePatches, images=floats(1, 5, 5, 2), ksizes=[1, 2, 2, 1], strides=[1, 2, 2, 1], rates=[1, 1, 1, 1], padding="SAME")
case("QuantizeAndDequantizeV3", R.FakeQuantWithMinMaxArgs, inputs=floats(6, low=-2, high=8), min=-1.0, max=6.0)
case("FakeQuantWithMinMaxVars", R.FakeQuantWithMinMaxVars, {"min": np.float32(-1), "max": np.float32(6)}, inputs=floats(6, low=-2, high=8))
case("FakeQuantWithMinMaxVarsPerChannel", R.FakeQuantWithMinMaxVarsPerChannel, {"min": np.array([-1, 0], np.float32), "max": np.array([1, 6], np.float32)}, inputs=floats(3, 2, low=-2, high=8))
case("MatrixInverse", R.MatrixInverse, input=floats(2, 3, 3) + 3 * np.eye(3, dtype=np.float32))
case("Cholesky", R.Cholesky, input=np.array([[4, 1], [1, 3]], np.float32))

# Signals.
case("Real", R.Real, input=(floats(4) + 1j * floats(4)).astype(np.complex64))
case("Imag", R.Imag, input=(floats(4) + 1j * floats(4)).astype(np.complex64))
case("ComplexAbs", R.ComplexAbs, x=(floats(4) + 1j * floats(4)).astype(np.complex64))
case("Complex", R.Complex, real=floats(4), imag=floats(4))
case("Spectrum", lambda input: R.ComplexAbs(x=R.RFFT(input=input, fft_length=np.array([16], np.int32))), input=floats(2, 16))
case("SpectrumOdd", lambda input: R.ComplexAbs(x=R.RFFT(input=input, fft_length=np.array([12], np.int32))), input=floats(2, 12))
case("InverseSpectrum", lambda input: R.IRFFT(input=R.RFFT(input=input, fft_length=np.array([16], np.int32)), fft_length=np.array([16], np.int32)), input=floats(2, 16))
case("AudioSpectrogram", R.AudioSpectrogram, input=floats(400, 1, low=-1), window_size=64, stride=32, magnitude_squared=True)
case("Mfcc", R.Mfcc, {"sample_rate": np.array(8000, np.int32)}, spectrogram=floats(1, 6, 129), dct_coefficient_count=10)

# Images and boxes.
for operator in ("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea"):
    for convention in ({}, {"align_corners": True}, {"half_pixel_centers": True}):
        if operator == "ResizeArea" and "half_pixel_centers" in convention:
            continue
        for name, size in (("Up", [9, 11]), ("Down", [3, 4])):
            kind = "".join(word.title() for key in convention for word in key.split("_"))
            case(f"{operator}{kind}{name}", getattr(R, operator), {"size": np.array(size, np.int32)}, images=floats(1, 5, 7, 2), **convention)
case("ResizeBilinearBytes", R.ResizeBilinear, {"size": np.array([6, 6], np.int32)}, images=integers(0, 256, 1, 4, 4, 3, dtype=np.uint8))
case("CropAndResize", R.CropAndResize, {"crop_size": np.array([3, 4], np.int32)}, image=floats(2, 6, 8, 2), boxes=np.array([[0, 0, 1, 1], [0.1, 0.3, 0.7, 0.9], [-0.2, 0.5, 0.6, 1.3]], np.float32), box_ind=np.array([0, 1, 1], np.int32))
case("CropAndResizeNearest", R.CropAndResize, {"crop_size": np.array([3, 3], np.int32)}, image=floats(1, 6, 8, 2), boxes=np.array([[0.1, 0.3, 0.7, 0.9]], np.float32), box_ind=np.array([0], np.int32), method="nearest")
case("DecodePng", R.DecodePng, contents=png(4, 5, 3))
case("DecodePngGray", R.DecodePng, contents=png(4, 5, 3), channels=1)
case("DecodePngSixteen", R.DecodePng, contents=png(4, 5, 1), dtype=tf.uint16)
case("DecodeImage", R.DecodeImage, contents=png(4, 5, 4), channels=3, expand_animations=False)
case("DecodeBmp", R.DecodeBmp, contents=np.array(bmp()))
case("AdjustContrastv2", R.AdjustContrastv2, images=floats(1, 4, 4, 3), contrast_factor=np.float32(1.5))
case("AdjustSaturation", R.AdjustSaturation, images=floats(1, 4, 4, 3), scale=np.float32(0.5))
case("AdjustHue", R.AdjustHue, images=floats(1, 4, 4, 3), delta=np.float32(0.1))
case("RGBToHSV", R.RGBToHSV, images=floats(4, 3))
case("HSVToRGB", R.HSVToRGB, images=floats(4, 3))
BOXES = np.array([[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, -0.1, 1, 0.9], [0, 10, 1, 11], [0, 10.1, 1, 11.1], [0, 100, 1, 101]], np.float32)
SCORES = np.array([0.9, 0.75, 0.6, 0.95, 0.5, 0.3], np.float32)
NUMBERS = {"max_output_size": np.array(4, np.int32), "iou_threshold": np.float32(0.5), "score_threshold": np.float32(0.4)}
case("NonMaxSuppression", R.NonMaxSuppression, {"max_output_size": np.array(3, np.int32)}, boxes=BOXES, scores=SCORES)
case("NonMaxSuppressionV2", R.NonMaxSuppressionV2, {key: NUMBERS[key] for key in ("max_output_size", "iou_threshold")}, boxes=BOXES, scores=SCORES)
case("NonMaxSuppressionV3", R.NonMaxSuppressionV3, NUMBERS, boxes=BOXES, scores=SCORES)
case("NonMaxSuppressionV4", R.NonMaxSuppressionV4, NUMBERS, boxes=BOXES, scores=SCORES, pad_to_max_output_size=True)
case("NonMaxSuppressionV5", R.NonMaxSuppressionV5, {**NUMBERS, "soft_nms_sigma": np.float32(0.5)}, boxes=BOXES, scores=SCORES)
for name, per_class, pad in (("", False, False), ("PerClass", True, False), ("Padded", True, True)):
    case(f"CombinedNonMaxSuppression{name}", R.CombinedNonMaxSuppression,
         {"max_output_size_per_class": np.array(3, np.int32), "max_total_size": np.array(8, np.int32), "iou_threshold": np.float32(0.5), "score_threshold": np.float32(0.2)},
         boxes=floats(2, 10, 3 if per_class else 1, 4), scores=floats(2, 10, 3), pad_per_class=pad, clip_boxes=True)

# Strings.
WORDS = strings(" Hello World", "Grüße 42", "x", "a,b,,c ")
case("StringLower", R.StringLower, input=WORDS)
case("StringLowerUnicode", R.StringLower, input=WORDS, encoding="utf-8")
case("StringUpper", R.StringUpper, input=WORDS)
case("StringStrip", R.StringStrip, input=WORDS)
case("StringLength", R.StringLength, input=WORDS)
case("StringLengthCharacters", R.StringLength, input=WORDS, unit="UTF8_CHAR")
case("StringToNumber", R.StringToNumber, string_tensor=strings("1.5", "-2", "3e2"))
case("StringToNumberLong", R.StringToNumber, string_tensor=strings("15", "-2"), out_type=tf.int64)
case("StringToHashBucketFast", R.StringToHashBucketFast, input=WORDS, num_buckets=100)
case("StringToHashBucket", R.StringToHashBucket, string_tensor=WORDS, num_buckets=100)
case("StringToHashBucketStrong", R.StringToHashBucketStrong, input=WORDS, num_buckets=100, key=[3, 5])
case("RegexReplace", R.StaticRegexReplace, input=WORDS, pattern="[aeiou]", rewrite="<\\0>")
case("RegexReplaceInput", R.RegexReplace, {"pattern": np.array(b"l+"), "rewrite": np.array(b"L")}, input=WORDS, replace_global=False)
case("RegexFullMatch", R.StaticRegexFullMatch, input=WORDS, pattern="[a-z ,]+")
case("EncodeBase64", R.EncodeBase64, input=WORDS, pad=True)
case("DecodeBase64", R.DecodeBase64, input=strings("SGVsbG8", "eA"))
case("AsStringFloat", R.AsString, input=np.array([1.5, -2.25, 1e10, 0.1], np.float32))
case("AsStringPrecision", R.AsString, input=np.array([1.5, -2.25, 0.1], np.float32), precision=3)
case("AsStringInt", R.AsString, input=integers(-99, 99, 4), width=5, fill="0")
case("AsStringBool", R.AsString, input=np.array([True, False]))
case("AsStringString", R.AsString, input=strings("a", "b"))
case("StringJoin", R.StringJoin, inputs=[strings("a", "b"), strings("c", "d")], separator="-")
case("ReduceJoin", R.ReduceJoin, {"reduction_indices": np.array([1], np.int32)}, inputs=strings("a", "b", "c", "d").reshape(2, 2), separator="+")
case("StringSplitV2", R.StringSplitV2, {"sep": np.array(b",")}, input=WORDS)
case("StringSplitV2Space", R.StringSplitV2, {"sep": np.array(b"")}, input=WORDS)
case("StringSplit", R.StringSplit, {"delimiter": np.array(b", ")}, input=WORDS)
case("Substr", R.Substr, {"pos": np.array(-2, np.int32), "len": np.array(2, np.int32)}, input=strings("hello", "abc"))
case("SubstrMany", R.Substr, input=strings("hello", "abc"), pos=np.array([1, 0], np.int32), len=np.array([2, 2], np.int32))
case("UnicodeDecode", R.UnicodeDecode, input=WORDS, input_encoding="UTF-8")
case("UnicodeScript", R.UnicodeScript, input=np.array([65, 0x4E2D, 0x3B1], np.int32))
case("UnsortedSegmentJoin", R.UnsortedSegmentJoin, {"num_segments": np.array(2, np.int32)}, inputs=strings("a", "b", "c"), segment_ids=np.array([1, 0, 1], np.int32), separator=":")
case("StringNGrams", R.StringNGrams, {"data_splits": np.array([0, 3, 5], np.int64)}, data=strings("a", "b", "c", "d", "e"), separator=" ", ngram_widths=[2, 1], left_pad="<", right_pad=">", pad_width=1, preserve_short_sequences=False)
case("DecodeRaw", R.DecodeRaw, bytes=np.array([b"\x01\x02\x03\x04", b"\x05\x06\x07\x08"]), out_type=tf.int16)
case("DecodeCompressed", R.DecodeCompressed, bytes=np.array([zlib.compress(b"hello world" * 3)]), compression_type="ZLIB")
case("DecodeCSV", R.DecodeCSV, {"record_defaults": [np.array([0.0], np.float32), np.array([7], np.int32), np.array([b"none"])]}, records=strings("1.5,2,a", "2.5,,b"))
case("DecodeWav", R.DecodeWav, contents=np.array(tf.audio.encode_wav(floats(20, 1, low=-1), 8000).numpy()))
case("RaggedRange", R.RaggedRange, {"starts": np.array([0, 5], np.int32), "deltas": np.array([1, 2], np.int32)}, limits=np.array([3, 9], np.int32))
case("RaggedTensorToTensor", R.RaggedTensorToTensor, {"shape": np.array([-1, 4], np.int64), "default_value": np.float32(-1)}, values=floats(5), row_partition_tensors=[np.array([0, 2, 2, 5], np.int64)], row_partition_types=["ROW_SPLITS"])
case("CTCGreedyDecoder", R.CTCGreedyDecoder, inputs=floats(6, 2, 4), sequence_length=np.array([6, 4], np.int32), merge_repeated=True)


def write(folder, names):
    """One graph of TensorFlow 1 with a signature per case."""
    graph = tf.Graph()
    signatures, calls = {}, []
    with graph.as_default():
        for name in names:
            operator, constants, arguments = CASES[name]
            inputs, feeds = {}, {}

            def place(alias, x):
                inputs[alias] = tf.compat.v1.placeholder(tf.as_dtype(np.asarray(x).dtype if np.asarray(x).dtype.kind != "S" else tf.string), [None] * np.ndim(x))
                feeds[alias] = x
                return inputs[alias]

            given = {}
            for key, x in arguments.items():
                if isinstance(x, (np.ndarray, np.generic, bytes)):
                    given[key] = place(key, x)
                elif isinstance(x, list) and x and isinstance(x[0], np.ndarray):
                    given[key] = [place(f"{key}_{position}", part) for position, part in enumerate(x)]
                else:
                    given[key] = x
            with tf.name_scope(name):
                result = operator(**{key: [tf.constant(part) for part in x] if isinstance(x, list) else tf.constant(x) for key, x in constants.items()}, **given)
            outputs = {}
            flat = result if isinstance(result, (list, tuple)) else [result]
            for position, output in enumerate(x for part in flat for x in (part if isinstance(part, (list, tuple)) else [part])):
                if output.dtype in (tf.complex64, tf.bfloat16):
                    output = tf.stack([tf.math.real(output), tf.math.imag(output)]) if output.dtype == tf.complex64 else tf.cast(output, tf.float32)
                outputs[f"y{position}"] = output
            if name.startswith("FusedBatchNorm"):
                outputs = {"y0": outputs["y0"]}
            info = tf.compat.v1.saved_model.build_tensor_info
            signatures[name] = tf.compat.v1.saved_model.build_signature_def({a: info(x) for a, x in inputs.items()}, {a: info(x) for a, x in outputs.items()}, "tensorflow/serving/predict")
            calls.append((name, feeds))
    builder = tf.compat.v1.saved_model.Builder(f"{folder}/1")
    with tf.compat.v1.Session(graph=graph) as session:
        builder.add_meta_graph_and_variables(session, ["serve"], signatures, strip_default_attrs=True)
    builder.save()
    return calls


# Not supported, or not exactly: left out of the fixture, which has one graph for all.
WITHOUT = set("""
    AdjustHue AdjustSaturation Betainc BroadcastGradientArgs CTCGreedyDecoder Cholesky ConcatOffset Cross CumulativeLogsumexp
    DecodeCSV DecodeCompressed DecodePngGray Digamma Dilation2D Erfinv ExpandDimsComputed HSVToRGB InTopKV2 Lgamma ListDiff
    MatrixDiagV3 MatrixInverse MatrixSetDiag MatrixSetDiagV3 MaxPoolDepth MaxPoolWithArgmax Ndtri NthElement RGBToHSV
    RaggedRange SparseTensorDenseMatMul StringToHashBucket SumComputedAxis TensorStridedSliceUpdate TransposeComputed
    UnicodeDecode UnicodeScript UnsortedSegmentJoin
""".split())
MODELS = {"operators": lambda folder: write(folder, [name for name in CASES if name not in WITHOUT])}
SPLIT = {f"op_{name}": lambda folder, name=name: write(folder, [name]) for name in CASES}
