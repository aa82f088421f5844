"""Models of Keras 2 (the package `tf_keras`), saved with `tf.saved_model.save` as they were before Keras 3."""
import numpy as np
import tensorflow as tf
import tf_keras as keras

from record import RANDOM, floats, integers, strings

L = keras.layers


def sequential(shape, *layers, dtype=None):
    return lambda: keras.Sequential([keras.Input(shape, dtype=dtype), *[layer() for layer in layers]])


def text():
    layer = L.TextVectorization(max_tokens=12, output_sequence_length=5)
    layer.adapt(["the cat sat", "a dog sat on the mat"])
    x = keras.Input((1,), dtype="string")
    return keras.Model(x, L.Dense(2)(L.LSTM(4)(L.Embedding(12, 4)(layer(x)))))


def features():
    number, word = keras.Input((1,), name="number"), keras.Input((1,), dtype="string", name="word")
    y = [L.Normalization(mean=2.0, variance=3.0)(number), L.Discretization([0.0, 2.0])(number),
         L.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")(word), L.Hashing(5)(word)]
    y = [tf.cast(part, tf.float32) for part in y]
    return keras.Model([number, word], L.Concatenate()(y))


def save(build, x):
    def write(folder):
        model = build()
        for weight in model.weights:
            if "moving" in getattr(weight, "name", ""):
                weight.assign(RANDOM.uniform(0.5, 2, weight.shape))
        model.save(f"{folder}/1", save_format="tf")
        given = x()
        if not isinstance(given, dict):
            signature = tf.saved_model.load(f"{folder}/1").signatures["serving_default"]
            given = {next(iter(signature.structured_input_signature[1])): given}
        return [("serving_default", given)]

    return write


MODELS = {
    "keras2_dense": save(sequential((6,), lambda: L.Dense(8, "relu"), lambda: L.Dense(3, "softmax")), lambda: floats(2, 6)),
    "keras2_cnn": save(sequential((16, 16, 3), lambda: L.Conv2D(8, 3, padding="same"), L.BatchNormalization, L.ReLU, lambda: L.SeparableConv2D(6, 3),
                                  L.MaxPooling2D, lambda: L.Dropout(0.5), lambda: L.Conv2DTranspose(4, 3, strides=2),
                                  L.GlobalAveragePooling2D, lambda: L.Dense(4)), lambda: floats(2, 16, 16, 3)),
    "keras2_lstm": save(sequential((9, 5), lambda: L.Bidirectional(L.LSTM(6, return_sequences=True)), lambda: L.GRU(4), lambda: L.Dense(2)), lambda: floats(2, 9, 5)),
    "keras2_attention": save(lambda: (lambda x: keras.Model(x, L.LayerNormalization()(x + L.MultiHeadAttention(2, 4)(x, x))))(keras.Input((5, 8))), lambda: floats(2, 5, 8)),
    "keras2_text": save(text, lambda: strings("the cat sat", "dog").reshape(2, 1)),
    "keras2_features": save(features, lambda: {"number": floats(3, 1, high=4), "word": strings("a", "z", "b").reshape(3, 1)}),
    "keras2_mobilenet": save(lambda: keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3), alpha=0.35, classes=5), lambda: floats(1, 64, 64, 3)),
    "keras2_resnet50": save(lambda: keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=5), lambda: floats(1, 64, 64, 3, high=255)),
    "keras2_efficientnet": save(lambda: keras.applications.EfficientNetB0(weights=None, input_shape=(64, 64, 3), classes=5), lambda: floats(1, 64, 64, 3, high=255)),
}
