"""Writes networks of keras.applications as SavedModels and as .tflite files, for compare.py beside LiteRT.

    python keras_models.py OUT [NAME ..]      (MobileNetV2, EfficientNetB0 and ResNet50 unless named)

OUT/NAME is a SavedModel, OUT/NAME.tflite the same network from TensorFlow's own converter, OUT/NAME.npz one random
image with the outputs that TensorFlow computes. Weights are random, from a fixed seed: speed does not depend on
them. Needs the package tensorflow.
"""

import argparse
import pathlib

import keras
import numpy
import tensorflow


# Not every network has all of them.
STATISTICS = {"gamma": (0.8, 1.2), "beta": (-0.2, 0.2), "moving_mean": (-0.1, 0.1), "moving_variance": (0.8, 1.2)}


def write(name, out):
    keras.utils.set_random_seed(7)
    model = getattr(keras.applications, name)(weights=None, classes=1000)
    # Statistics of a trained network are not those of a fresh one: zeros and ones would be folded into nothing.
    random = numpy.random.default_rng(7)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for weight in layer.weights:
                weight.assign(random.uniform(*STATISTICS[weight.name], weight.shape))
    shape = (1, *(size or 224 for size in model.input_shape[1:]))
    folder = out / name.lower()
    signature = [keras.InputSpec(shape=shape, dtype="float32", name="image")]
    model.export(str(folder), format="tf_saved_model", input_signature=signature, verbose=False)
    loaded = tensorflow.saved_model.load(str(folder)).signatures["serving_default"]
    (input_name,) = loaded.structured_input_signature[1]
    image = random.standard_normal(shape).astype("f4")
    outputs = loaded(**{input_name: tensorflow.constant(image)})
    arrays = {f"out/{key}": value.numpy() for key, value in outputs.items()}
    numpy.savez(out / f"{name.lower()}.npz", **{f"in/{input_name}": image}, **arrays)
    converter = tensorflow.lite.TFLiteConverter.from_saved_model(str(folder))
    (out / f"{name.lower()}.tflite").write_bytes(converter.convert())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("names", nargs="*", default=["MobileNetV2", "EfficientNetB0", "ResNet50"])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        write(name, options.out)


if __name__ == "__main__":
    main()
