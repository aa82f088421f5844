"""Architectures and layers of Keras 3, exported with `model.export`."""
import numpy as np
import tensorflow as tf
import keras
from keras import layers as L, ops as K

from record import RANDOM, floats, integers, strings

A = keras.applications


def image(size):
    return floats(1, size, size, 3, high=255)


def application(make, size, **options):
    return lambda: (make(weights=None, input_shape=(size, size, 3), classes=10, **options), image(size))


def stack(shape, *layers, dtype="float32", x=None):
    def model():
        return keras.Sequential([keras.Input(shape, dtype=dtype), *[layer() for layer in layers]]), x()

    return model


def functional(build):
    return build


def transformer():
    x = keras.Input((10,), dtype="int32")
    e = L.Embedding(50, 16)(x) + L.Embedding(10, 16)(tf.range(10))
    a = L.MultiHeadAttention(2, 8)(e, e)
    h = L.LayerNormalization()(a + e)
    f = L.Dense(16)(L.Dense(32, activation="gelu")(h))
    y = L.Dense(2)(L.GlobalAveragePooling1D()(L.LayerNormalization()(f + h)))
    return keras.Model(x, y), integers(0, 50, 2, 10)


def decoder():
    x = keras.Input((8,), dtype="int32")
    h = L.Embedding(40, 16, mask_zero=True)(x)
    h = L.LayerNormalization(rms_scaling=False)(h + L.MultiHeadAttention(4, 4, dropout=0.1)(h, h, use_causal_mask=True))
    h = h + L.GroupQueryAttention(8, 4, 2)(h, h)
    return keras.Model(x, L.Dense(40, activation="softmax")(h)), integers(1, 40, 2, 8)


def vision_transformer():
    x = keras.Input((32, 32, 3))
    h = L.Conv2D(16, 8, strides=8)(L.Rescaling(1 / 255)(x))
    h = L.Reshape((16, 16))(h)
    for _ in range(2):
        n = L.LayerNormalization(epsilon=1e-6)(h)
        h = h + L.MultiHeadAttention(4, 4)(n, n)
        h = h + L.Dense(16)(L.Dense(32, activation="gelu")(L.LayerNormalization(epsilon=1e-6)(h)))
    return keras.Model(x, L.Dense(5)(h[:, 0])), image(32)


def mlp_mixer():
    x = keras.Input((16, 8))
    h = L.Permute((2, 1))(L.Dense(16, activation="gelu")(L.Permute((2, 1))(L.LayerNormalization()(x))))
    return keras.Model(x, L.Dense(3)(L.GlobalAveragePooling1D()(L.Dense(8, activation="gelu")(x + h)))), floats(2, 16, 8)


def unet():
    x = keras.Input((32, 32, 3))
    a = L.Conv2D(8, 3, padding="same", activation="relu")(x)
    b = L.Conv2D(16, 3, padding="same", activation="relu")(L.MaxPooling2D()(a))
    c = L.Conv2D(24, 3, padding="same", activation="relu")(L.MaxPooling2D()(b))
    u = L.Concatenate()([L.Conv2DTranspose(16, 2, strides=2, padding="same")(c), b])
    v = L.Concatenate()([L.Conv2DTranspose(8, 3, strides=2, padding="same")(L.BatchNormalization()(u)), a])
    return keras.Model(x, L.Conv2D(2, 1, activation="sigmoid")(v)), floats(1, 32, 32, 3)


def deeplab():
    x = keras.Input((33, 33, 3))
    h = L.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    parts = [L.SeparableConv2D(6, 3, padding="same")(h), L.Conv2D(6, 3, dilation_rate=3, padding="same")(h),
             L.DepthwiseConv2D(3, dilation_rate=2, padding="same")(h)]
    pooled = L.UpSampling2D(17, interpolation="bilinear")(L.Conv2D(6, 1)(L.GlobalAveragePooling2D(keepdims=True)(h)))
    y = L.Conv2D(3, 1)(L.Concatenate()([*parts, pooled]))
    return keras.Model(x, K.argmax(L.Resizing(33, 33)(y), axis=-1)), floats(1, 33, 33, 3)


def centre_detector():
    """Detection whose postprocessing is TopK and gathers, as in CenterNet."""
    x = keras.Input((64, 64, 3))
    h = L.Conv2D(8, 3, strides=4, padding="same", activation="relu")(x)
    heat = L.Conv2D(3, 1, activation="sigmoid")(h)
    size = L.Conv2D(2, 1)(h)
    heat = K.where(K.equal(L.MaxPooling2D(3, strides=1, padding="same")(heat), heat), heat, 0.0)
    scores, positions = K.top_k(K.reshape(heat, (-1, 16 * 16 * 3)), 10)
    cells = positions // 3
    sizes = K.take_along_axis(K.reshape(size, (-1, 256, 2)), K.expand_dims(cells, -1), axis=1)
    rows, columns = K.cast(cells // 16, "float32"), K.cast(cells % 16, "float32")
    boxes = K.stack([rows - sizes[..., 0] / 2, columns - sizes[..., 1] / 2], -1)
    return keras.Model(x, {"scores": scores, "classes": positions % 3, "boxes": boxes}), floats(1, 64, 64, 3)


def squeeze_excite():
    x = keras.Input((16, 16, 4))
    h = L.Conv2D(8, 3, padding="same", activation="swish")(x)
    s = L.Dense(8, activation="hard_sigmoid")(L.Dense(2, activation="relu")(L.GlobalAveragePooling2D()(h)))
    return keras.Model(x, L.Multiply()([h, L.Reshape((1, 1, 8))(s)])), floats(2, 16, 16, 4)


def variational_autoencoder():
    x = keras.Input((28, 28, 1))
    h = L.Flatten()(L.Conv2D(4, 3, strides=2, padding="same", activation="relu")(x))
    z = L.Dense(2)(h)
    d = L.Reshape((7, 7, 4))(L.Dense(7 * 7 * 4, activation="relu")(z))
    y = L.Conv2DTranspose(1, 3, strides=4, padding="same", activation="sigmoid")(d)
    return keras.Model(x, [z, y]), floats(2, 28, 28, 1)


def siamese():
    a, b = keras.Input((12,), name="left"), keras.Input((12,), name="right")
    net = keras.Sequential([L.Dense(8, activation="relu"), L.Dense(4)])
    d = L.Dot(1, normalize=True)([net(a), net(b)])
    return keras.Model([a, b], d), {"left": floats(3, 12), "right": floats(3, 12)}


def wide_and_deep():
    number, word = keras.Input((1,), name="number"), keras.Input((1,), dtype="string", name="word")
    n = L.Normalization(mean=[3.0], variance=[2.0])(number)
    b = L.Discretization([0.0, 1.0, 4.0], output_mode="one_hot")(number)
    lookup = L.StringLookup(vocabulary=["red", "green", "blue"], output_mode="one_hot")(word)
    hashed = L.Hashing(7, output_mode="one_hot")(word)
    y = L.Dense(1, activation="sigmoid")(L.Concatenate()([n, b, lookup, hashed]))
    x = {"number": floats(4, 1, high=5), "word": strings("red", "green", "violet", "").reshape(4, 1)}
    return keras.Model([number, word], y), x


def attention():
    x = keras.Input((6, 8))
    return keras.Model(x, [L.Attention(use_scale=True)([x, x, x]), L.AdditiveAttention()([x, x])]), floats(2, 6, 8)


def merge():
    x = keras.Input((6,))
    a, b = L.Dense(4)(x), L.Dense(4)(x)
    layers = [L.Add(), L.Multiply(), L.Maximum(), L.Minimum(), L.Subtract(), L.Average(), L.Dot(1)]
    y = L.Concatenate()([*[layer([a, b]) for layer in layers], L.UnitNormalization()(a)])
    return keras.Model(x, L.Permute((2, 1))(L.RepeatVector(3)(y))), floats(2, 6)


def masked_lstm():
    x = keras.Input((9,), dtype="int32")
    h = L.Embedding(20, 6, mask_zero=True)(x)
    y = L.Bidirectional(L.LSTM(5, return_sequences=True))(h)
    ids = integers(1, 20, 3, 9)
    ids[0, 5:] = 0
    ids[1, 2:] = 0
    return keras.Model(x, [L.LSTM(4)(h), L.GRU(4, reset_after=False)(y)]), ids


def recurrent_states():
    x = keras.Input((7, 3))
    y, h, c = L.LSTM(4, return_sequences=True, return_state=True)(x)
    g, s = L.GRU(4, return_sequences=True, return_state=True, go_backwards=True)(y, initial_state=h)
    r = L.RNN([L.LSTMCell(3), L.GRUCell(2), L.SimpleRNNCell(2)])(g)
    return keras.Model(x, [y, h, c, g, s, r]), floats(2, 7, 3)


def sequence_to_sequence():
    encoder, target = keras.Input((6, 4), name="source"), keras.Input((5, 3), name="target")
    _, h, c = L.LSTM(8, return_state=True)(encoder)
    y = L.LSTM(8, return_sequences=True)(target, initial_state=[h, c])
    return keras.Model([encoder, target], L.TimeDistributed(L.Dense(3, activation="softmax"))(y)), {
        "source": floats(2, 6, 4), "target": floats(2, 5, 3)}


def text_vectorization():
    layer = L.TextVectorization(max_tokens=20, output_mode="int", output_sequence_length=6)
    layer.adapt(["the cat sat on the mat", "a dog sat", "the dog, the cat!"])
    x = keras.Input((1,), dtype="string")
    y = L.GlobalAveragePooling1D()(L.Embedding(20, 4)(layer(x)))
    return keras.Model(x, y), strings("The cat, the BIRD!", "", "dog dog dog dog dog dog dog dog").reshape(3, 1)


def text_tf_idf():
    texts = ["the cat sat on the mat", "a dog sat", "the dog, the cat!"]
    x = keras.Input((1,), dtype="string")
    outputs = []
    for mode, ngrams in (("multi_hot", None), ("count", 2), ("tf_idf", None)):
        layer = L.TextVectorization(max_tokens=15, output_mode=mode, ngrams=ngrams)
        layer.adapt(texts)
        outputs.append(layer(x))
    return keras.Model(x, outputs), strings("the cat the dog", "a mat sat").reshape(2, 1)


def lookups():
    word, number = keras.Input((3,), dtype="string", name="word"), keras.Input((3,), dtype="int64", name="number")
    words = ["a", "b", "c"]
    y = {
        "index": L.StringLookup(vocabulary=words)(word),
        "several": L.StringLookup(vocabulary=words, num_oov_indices=3)(word),
        "masked": L.StringLookup(vocabulary=words, mask_token="")(word),
        "hot": L.StringLookup(vocabulary=words, output_mode="multi_hot")(word),
        "count": L.StringLookup(vocabulary=words, output_mode="count")(word),
        "number": L.IntegerLookup(vocabulary=[10, 20, 30])(number),
        "number_hot": L.IntegerLookup(vocabulary=[10, 20, 30], output_mode="multi_hot")(number),
    }
    x = {"word": strings("a", "c", "z", "b", "", "a").reshape(2, 3), "number": np.array([[10, 30, 5], [20, 20, 10]])}
    return keras.Model([word, number], y), x


def inverse_lookup():
    x = keras.Input((3,), dtype="int64")
    return keras.Model(x, L.StringLookup(vocabulary=["a", "b", "c"], invert=True)(x)), np.array([[1, 2, 0], [3, 1, 9]])


def categories():
    x, y = keras.Input((3,), dtype="int32", name="x"), keras.Input((3,), name="y")
    outputs = {
        "one_hot": L.CategoryEncoding(5, output_mode="one_hot")(x[:, :1]),
        "multi_hot": L.CategoryEncoding(5, output_mode="multi_hot")(x),
        "count": L.CategoryEncoding(5, output_mode="count")(x),
        "bucket": L.Discretization([-1.0, 0.0, 0.5])(y),
        "hashed": L.Hashing(11)(x),
        "salted": L.Hashing(11, salt=[3, 5])(K.cast(x, "int64")),
        "normal": L.Normalization(mean=[0.0, 1.0, 2.0], variance=[1.0, 2.0, 0.5])(y),
    }
    return keras.Model([x, y], outputs), {"x": integers(0, 5, 2, 3), "y": floats(2, 3, low=-2, high=2)}


def crossing():
    a, b = keras.Input((1,), dtype="string", name="a"), keras.Input((1,), dtype="int64", name="b")
    y = L.HashedCrossing(9)([a, b])
    return keras.Model([a, b], y), {"a": strings("x", "y", "z").reshape(3, 1), "b": np.array([[1], [2], [3]])}


def three_outputs_of_matrices():
    x = keras.Input((4, 4))
    return keras.Model(x, [
        K.einsum("bij,bjk->bik", x, x), K.matmul(x, K.transpose(x, (0, 2, 1))), K.cumsum(x, axis=1), K.tril(x),
        K.sort(x, axis=-1), K.argsort(x, axis=-1), K.flip(x, axis=1), K.roll(x, 1, axis=2), K.logsumexp(x, axis=-1),
        K.norm(x, axis=-1), K.diagonal(x, axis1=1, axis2=2), K.var(x, axis=1), K.clip(x, 0.2, 0.7),
        K.take(x, np.array([2, 0]), axis=1), K.one_hot(K.argmax(x, axis=-1), 4),
    ]), floats(2, 4, 4)


APPLICATIONS = {
    "mobilenet": application(A.MobileNet, 64, alpha=0.25),
    "mobilenet_v2": application(A.MobileNetV2, 64, alpha=0.35),
    "mobilenet_v3_small": application(A.MobileNetV3Small, 64, minimalistic=False),
    "mobilenet_v3_small_minimal": application(A.MobileNetV3Small, 64, minimalistic=True),
    "mobilenet_v3_large": application(A.MobileNetV3Large, 64, alpha=0.75),
    "resnet50": application(A.ResNet50, 64),
    "resnet50_v2": application(A.ResNet50V2, 64),
    "efficientnet_b0": application(A.EfficientNetB0, 64),
    "efficientnet_v2_b0": application(A.EfficientNetV2B0, 64),
    "densenet121": application(A.DenseNet121, 64),
    "inception_v3": application(A.InceptionV3, 96),
    "inception_resnet_v2": application(A.InceptionResNetV2, 96),
    "xception": application(A.Xception, 96),
    "nasnet_mobile": application(A.NASNetMobile, 64),
    "convnext_tiny": application(A.ConvNeXtTiny, 64),
    "vgg16_small": lambda: (A.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3)), image(32)),
    "person_detection": lambda: (A.MobileNet(weights=None, input_shape=(96, 96, 1), alpha=0.25, classes=2),
                                 floats(1, 96, 96, 1)),
    "unet": unet,
    "deeplab": deeplab,
    "centre_detector": centre_detector,
    "squeeze_excite": squeeze_excite,
    "variational_autoencoder": variational_autoencoder,
    "siamese": siamese,
    "wide_and_deep": wide_and_deep,
    "transformer": transformer,
    "decoder": decoder,
    "vision_transformer": vision_transformer,
    "mlp_mixer": mlp_mixer,
    "sequence_to_sequence": sequence_to_sequence,
}
LAYERS = {
    "lstm": stack((12, 5), lambda: L.LSTM(8, return_sequences=True), lambda: L.LSTM(6), lambda: L.Dense(3),
                  x=lambda: floats(2, 12, 5)),
    "gru": stack((12, 5), lambda: L.GRU(8), lambda: L.Dense(3), x=lambda: floats(2, 12, 5)),
    "bidirectional": stack((12, 5), lambda: L.Bidirectional(L.LSTM(8)), lambda: L.Dense(3), x=lambda: floats(2, 12, 5)),
    "simple_rnn": stack((12, 5), lambda: L.SimpleRNN(8), x=lambda: floats(2, 12, 5)),
    "rolled_lstm": stack((12, 5), lambda: L.LSTM(4, unroll=True), x=lambda: floats(2, 12, 5)),
    "conv_lstm": stack((4, 8, 8, 2), lambda: L.ConvLSTM2D(3, 3, padding="same"), x=lambda: floats(1, 4, 8, 8, 2)),
    "conv_lstm1d": stack((4, 8, 2), lambda: L.ConvLSTM1D(3, 3, return_sequences=True), x=lambda: floats(1, 4, 8, 2)),
    "masked_lstm": masked_lstm,
    "recurrent_states": recurrent_states,
    "stacked_gru": stack((None, 5), lambda: L.GRU(4, return_sequences=True), lambda: L.Bidirectional(L.GRU(3)),
                         x=lambda: floats(2, 9, 5)),
    "embedding": stack((7,), lambda: L.Embedding(20, 4), lambda: L.GlobalAveragePooling1D(), lambda: L.Dense(2),
                       dtype="int32", x=lambda: integers(0, 20, 3, 7)),
    "conv1d": stack((30, 4), lambda: L.Conv1D(8, 3, padding="causal", dilation_rate=2), lambda: L.MaxPooling1D(2),
                    lambda: L.LayerNormalization(), lambda: L.SeparableConv1D(4, 3, strides=2), lambda: L.Flatten(),
                    lambda: L.Dense(2), x=lambda: floats(2, 30, 4)),
    "conv1d_transpose": stack((10, 4), lambda: L.Conv1DTranspose(3, 4, strides=2, padding="same"),
                              lambda: L.UpSampling1D(2), lambda: L.ZeroPadding1D(2), lambda: L.Cropping1D(1),
                              lambda: L.AveragePooling1D(3), lambda: L.DepthwiseConv1D(3, depth_multiplier=2),
                              x=lambda: floats(2, 10, 4)),
    "conv_transpose": stack((8, 8, 3), lambda: L.Conv2DTranspose(4, 3, strides=2, padding="same"),
                            lambda: L.Conv2DTranspose(2, 4, strides=3), lambda: L.UpSampling2D(2),
                            lambda: L.UpSampling2D(2, interpolation="bilinear"), lambda: L.Conv2D(2, 1),
                            x=lambda: floats(1, 8, 8, 3)),
    "conv_transpose_dilated": stack((6, 6, 2), lambda: L.Conv2DTranspose(3, 3, dilation_rate=2, padding="same"),
                                    x=lambda: floats(2, 6, 6, 2)),
    "conv3d": stack((6, 8, 8, 2), lambda: L.Conv3D(3, 3), lambda: L.MaxPooling3D(2), lambda: L.Flatten(),
                    lambda: L.Dense(2), x=lambda: floats(1, 6, 8, 8, 2)),
    "conv3d_more": stack((5, 7, 6, 2), lambda: L.Conv3D(4, (3, 2, 1), strides=(1, 2, 1), padding="same"),
                         lambda: L.AveragePooling3D(2, padding="same"), lambda: L.BatchNormalization(),
                         lambda: L.Conv3D(4, 2, dilation_rate=2, padding="same"), lambda: L.UpSampling3D(2),
                         lambda: L.Conv3DTranspose(2, 3, strides=2), lambda: L.ZeroPadding3D(1), lambda: L.Cropping3D(1),
                         lambda: L.GlobalMaxPooling3D(), x=lambda: floats(1, 5, 7, 6, 2)),
    "groups": stack((8, 8, 4), lambda: L.Conv2D(8, 3, groups=2), lambda: L.GroupNormalization(2),
                    lambda: L.SeparableConv2D(6, 3), lambda: L.Conv2D(4, 3, dilation_rate=2, padding="same"),
                    lambda: L.PReLU(), lambda: L.ELU(), lambda: L.LeakyReLU(), x=lambda: floats(2, 8, 8, 4)),
    "normalizations": stack((6, 6, 4), lambda: L.BatchNormalization(), lambda: L.LayerNormalization(axis=[1, 2, 3]),
                            lambda: L.GroupNormalization(-1), lambda: L.RMSNormalization(),
                            lambda: L.UnitNormalization(axis=-1), lambda: L.SpectralNormalization(L.Conv2D(3, 2)),
                            x=lambda: floats(2, 6, 6, 4)),
    "preprocess": stack((20, 24, 3), lambda: L.Resizing(16, 16), lambda: L.Rescaling(1 / 127.5, offset=-1),
                        lambda: L.CenterCrop(8, 8), lambda: L.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0]),
                        lambda: L.ZeroPadding2D(1), lambda: L.Cropping2D(1), x=lambda: floats(2, 20, 24, 3, high=255)),
    "resizing": stack((None, None, 3), lambda: L.Resizing(9, 17, crop_to_aspect_ratio=True),
                      lambda: L.Resizing(20, 15, interpolation="nearest"), lambda: L.Resizing(12, 16, interpolation="bicubic"),
                      lambda: L.Resizing(14, 14, pad_to_aspect_ratio=True), x=lambda: floats(1, 21, 30, 3, high=255)),
    "activations": stack((9,), *[lambda a=a: L.Dense(9, activation=a) for a in (
        "gelu", "silu", "softplus", "softsign", "hard_sigmoid", "hard_silu", "mish", "selu", "exponential", "tanh", "sigmoid",
        "log_softmax", "softmax", "relu6", "elu", "leaky_relu", "celu", "hard_tanh", "soft_shrink", "sparsemax",
        "squareplus", "tanh_shrink", "log_sigmoid", "hard_shrink")], x=lambda: floats(3, 9)),
    "pools": stack((9, 9, 3), lambda: L.AveragePooling2D(3, strides=2, padding="same"),
                   lambda: L.MaxPooling2D(2, padding="same"), lambda: L.GlobalMaxPooling2D(), x=lambda: floats(2, 9, 9, 3)),
    "channels_first_free": stack((9, 9, 3), lambda: L.Permute((3, 1, 2)), lambda: L.Softmax(axis=1), lambda: L.Flatten(),
                                 x=lambda: floats(2, 9, 9, 3)),
    "time_distributed": stack((4, 12, 12, 3), lambda: L.TimeDistributed(L.Conv2D(4, 3)),
                              lambda: L.TimeDistributed(L.GlobalAveragePooling2D()), lambda: L.GRU(3),
                              x=lambda: floats(1, 4, 12, 12, 3)),
    "spectrogram": stack((1024,), lambda: L.MelSpectrogram(fft_length=256, num_mel_bins=16, sampling_rate=8000),
                         x=lambda: floats(1, 1024, low=-1)),
    "half_precision": stack((16, 16, 3), lambda: L.Conv2D(4, 3, dtype="mixed_float16"),
                            lambda: L.BatchNormalization(dtype="mixed_float16"), lambda: L.ReLU(dtype="float16"),
                            lambda: L.GlobalAveragePooling2D(dtype="float16"), lambda: L.Dense(3, dtype="float32"),
                            x=lambda: floats(1, 16, 16, 3)),
    "brain_half": stack((8,), lambda: L.Dense(8, activation="relu", dtype="bfloat16"), lambda: L.Dense(3, dtype="float32"),
                        x=lambda: floats(2, 8)),
    "attention": attention,
    "merge": merge,
    "text_vectorization": text_vectorization,
    "text_tf_idf": text_tf_idf,
    "lookups": lookups,
    "inverse_lookup": inverse_lookup,
    "categories": categories,
    "crossing": crossing,
    "matrices": three_outputs_of_matrices,
}


def export(build):
    def write(folder):
        model, x = build()
        for weight in model.weights:
            # Moving statistics other than 0 and 1, so that they count.
            if "moving_variance" in weight.path:
                weight.assign(RANDOM.uniform(0.5, 2, weight.shape))
            elif any(part in weight.path for part in ("moving_mean", "beta", "bias")):
                weight.assign(RANDOM.normal(0, 0.1, weight.shape))
        model.export(f"{folder}/1", verbose=False)
        if not isinstance(x, dict):
            loaded = tf.saved_model.load(f"{folder}/1").signatures["serving_default"]
            x = {next(iter(loaded.structured_input_signature[1])): x}
        return [("serving_default", x)]

    return write


# The quick ones first.
MODELS = {name: export(build) for name, build in {**LAYERS, **dict(reversed(APPLICATIONS.items()))}.items()}
