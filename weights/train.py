#!/usr/bin/env python3
"""Makes the models of this folder: pip install numpy scikit-learn; python weights/train.py

Seeded, so a run gives the same files with the same library versions. What it measures is in
MANIFEST.md. expected.json holds inputs with the answers that NumPy gives, for the tests.
"""

import json
import warnings
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

HERE = Path(__file__).resolve().parent
SEED = 7


def main():
    # A fixed number of passes is meant, converged or not.
    warnings.simplefilter("ignore", ConvergenceWarning)
    expected = {"half_plus_three": half_plus_three(), "iris": iris(), "digits": digits()}
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def half_plus_three():
    """y = x / 2 + 3, with the signatures of TensorFlow Serving's test model of that name."""
    affine = [
        {"op": "Mul", "inputs": ["x", "a"], "outputs": ["scaled"]},
        {"op": "Add", "inputs": ["scaled", "b"], "outputs": ["y"]},
    ]
    feature = {"key": "x", "dtype": "float", "shape": [1]}
    parse = {"op": "ParseExample", "inputs": ["examples", "names", "zero"], "outputs": ["x"]}
    parse |= {"sparse": [], "dense": [feature], "ragged": []}
    document = {
        "format": "kinglet/1",
        "constants": {
            "a": {"dtype": "float", "data": 0.5},
            "b": {"dtype": "float", "data": 3},
            "zero": {"dtype": "float", "data": [0]},
            "names": {"dtype": "string", "data": []},
        },
        "signatures": {
            "serving_default": {
                "inputs": {"x": {"dtype": "float"}},
                "outputs": {"y": {"dtype": "float"}},
                "nodes": affine,
            },
            "tensorflow/serving/regress": {
                "method": "tensorflow/serving/regress",
                "inputs": {"inputs": {"dtype": "string", "shape": [None], "tensor": "tf_example:0"}},
                "outputs": {"outputs": {"dtype": "float", "shape": [None, 1], "value": "y"}},
                "nodes": [parse | {"inputs": ["inputs", "names", "zero"]}, *affine],
            },
        },
    }
    write("half_plus_three", 123, document, {})
    return [{"inputs": {"x": [1.0, 2.0, 5.0]}, "outputs": {"y": [3.5, 4.0, 5.5]}}]


def iris():
    """Four measurements of a flower in centimetres, one scalar input each, to its species."""
    data = load_iris()
    split = train_test_split(data.data, data.target, test_size=0.3, random_state=SEED, stratify=data.target)
    train_x, test_x, train_y, test_y = split
    mean, deviation = train_x.mean(axis=0), train_x.std(axis=0)
    network = MLPClassifier((8,), alpha=0.1, solver="lbfgs", max_iter=2000, random_state=SEED)
    network.fit((train_x - mean) / deviation, train_y)
    layers = dense_layers(network)
    # The first layer takes centimetres: (x - mean) / deviation is part of its weights.
    kernel, bias = layers[0]
    layers[0] = (kernel / deviation[:, None], bias - (mean / deviation) @ kernel)

    names = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    columns = [{"op": "ExpandDims", "axes": [-1], "inputs": [n], "outputs": [n + "/column"]} for n in names]
    joined = {"op": "Concat", "axis": -1, "inputs": [n + "/column" for n in names], "outputs": ["flower"]}
    nodes, weights = dense_nodes("flower", layers)
    label = {"op": "Gather", "axis": 0, "inputs": ["species", "class"], "outputs": ["label"]}
    species = [str(name) for name in data.target_names]
    document = {
        "format": "kinglet/1",
        "constants": {"species": {"dtype": "string", "data": species}},
        "signatures": {
            "serving_default": {
                "inputs": {name: {"dtype": "float", "shape": [None]} for name in names},
                "outputs": {
                    "label": {"dtype": "string", "shape": [None]},
                    "probabilities": {"dtype": "float", "shape": [None, 3]},
                },
                "nodes": [*columns, joined, *nodes, label],
            }
        },
    }
    write("iris", 1, document, weights)
    probabilities = forward(layers, test_x)
    report("iris", probabilities, test_y)
    rows = test_x[:6].astype(np.float32)
    answer = forward(layers, rows)
    return [
        {
            "inputs": {name: rows[:, column].tolist() for column, name in enumerate(names)},
            "outputs": {
                "label": [species[index] for index in answer.argmax(axis=1)],
                "probabilities": answer.tolist(),
            },
        }
    ]


def digits():
    """A grey image of 8 x 8 pixels, 0 (paper) to 16 (ink), to the digit on it."""
    data = load_digits()
    split = train_test_split(data.images, data.target, test_size=0.3, random_state=SEED, stratify=data.target)
    train_x, test_x, train_y, test_y = split
    shifts = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]
    moved = np.concatenate([shifted(train_x, *shift) for shift in shifts])
    network = MLPClassifier((128, 64), alpha=0.05, max_iter=80, n_iter_no_change=80, random_state=SEED)
    network.fit(moved.reshape(-1, 64) / 16, np.tile(train_y, len(shifts)))
    layers = dense_layers(network)
    kernel, bias = layers[0]
    layers[0] = (kernel / 16, bias)

    flat = {"op": "Reshape", "inputs": ["image", "flat"], "outputs": ["pixels"]}
    nodes, weights = dense_nodes("pixels", layers)
    document = {
        "format": "kinglet/1",
        "constants": {"flat": {"dtype": "int64", "data": [-1, 64]}},
        "signatures": {
            "serving_default": {
                "inputs": {"image": {"dtype": "float", "shape": [None, 8, 8]}},
                "outputs": {
                    "label": {"dtype": "int64", "shape": [None], "value": "class"},
                    "probabilities": {"dtype": "float", "shape": [None, 10]},
                },
                "nodes": [flat, *nodes],
            }
        },
    }
    write("digits", 1, document, weights)
    report("digits", forward(layers, test_x.reshape(-1, 64)), test_y)
    rows = test_x[:20].astype(np.float32)
    answer = forward(layers, rows.reshape(-1, 64))
    return [
        {
            "inputs": {"image": rows.tolist()},
            "outputs": {"label": answer.argmax(axis=1).tolist(), "probabilities": answer.tolist()},
        }
    ]


def shifted(images, down, right):
    """The images moved by whole pixels, paper where nothing was."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    return padded[:, 1 - down : 9 - down, 1 - right : 9 - right]


def dense_layers(network):
    return list(zip(network.coefs_, network.intercepts_))


def dense_nodes(x, layers):
    """Nodes of a perceptron whose outputs are `class` and `probabilities`, and its weights."""
    nodes, weights = [], {}
    for number, (kernel, bias) in enumerate(layers):
        last = number == len(layers) - 1
        name, y = f"dense_{number}", "logits" if last else f"hidden_{number}"
        weights[f"{name}/kernel"], weights[f"{name}/bias"] = kernel, bias
        node = {"op": "MatMul", "inputs": [x, f"{name}/kernel", f"{name}/bias"], "outputs": [y], "bias": True}
        nodes.append(node if last else node | {"activation": "Relu"})
        x = y
    nodes.append({"op": "Softmax", "inputs": ["logits"], "outputs": ["probabilities"]})
    nodes.append({"op": "ArgReduce", "axis": -1, "greatest": True, "inputs": ["logits"], "outputs": ["class"]})
    return nodes, weights


def forward(layers, x):
    """Probabilities by the weights as they are stored, in double precision."""
    x = np.asarray(x, dtype=np.float64)
    for number, (kernel, bias) in enumerate(layers):
        x = x @ kernel.astype(np.float32).astype(np.float64) + bias.astype(np.float32)
        if number < len(layers) - 1:
            x = np.maximum(x, 0)
    x = np.exp(x - x.max(axis=1, keepdims=True))
    return x / x.sum(axis=1, keepdims=True)


def report(name, probabilities, truth):
    right = int((probabilities.argmax(axis=1) == truth).sum())
    print(f"{name}: {right} of {len(truth)} held-out samples right, {right / len(truth):.4f}")


def write(name, version, document, weights):
    folder = HERE / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(spread(document, 0) + "\n")
    header, data = {}, b""
    for tensor, values in weights.items():
        values = np.ascontiguousarray(values, dtype="<f4")
        end = len(data) + values.nbytes
        header[tensor] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [len(data), end]}
        data += values.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path = folder / "model.safetensors"
    if weights:
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def spread(value, depth):
    """JSON with one line per node, input, output and constant."""
    if not isinstance(value, (dict, list)) or not value or depth == 4 or is_constant(value):
        return json.dumps(value)
    indent = "\n" + "  " * (depth + 1)
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {spread(item, depth + 1)}" for key, item in value.items()]
    else:
        items = [spread(item, depth + 1) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + indent + ("," + indent).join(items) + "\n" + "  " * depth + closing


def is_constant(value):
    return isinstance(value, dict) and "data" in value


if __name__ == "__main__":
    main()
