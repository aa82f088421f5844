"""The client of the SSD detector tutorial for TensorFlow Serving: a photo in, boxes and a picture out.

    python tests/clients/ssd_detector.py HOST:PORT MODEL PHOTO PICTURE

Everything is as the tutorial has it: an insecure channel without options, a call without a deadline,
one image without a batch, twelve outputs, and the rest in NumPy.
"""

import sys

import grpc
import numpy as np
from PIL import Image, ImageDraw
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

SIZE = 300
MEANS = np.array([123.0, 117.0, 104.0], np.float32)
FEATURES = [38, 19, 10, 5, 3, 1]
SIZES = [(21, 45), (45, 99), (99, 153), (153, 207), (207, 261), (261, 315)]
RATIOS = [[2, 0.5], [2, 0.5, 3, 1 / 3], [2, 0.5, 3, 1 / 3], [2, 0.5, 3, 1 / 3], [2, 0.5], [2, 0.5]]
STEPS = [8, 16, 32, 64, 100, 300]


def preprocess(photo):
    """300 x 300 without regard to the proportions, less the means of the training set."""
    resized = photo.convert("RGB").resize((SIZE, SIZE), Image.BILINEAR)
    return np.asarray(resized, np.float32) - MEANS


def request_for(image, model, signature="detected_model"):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_content=image.tobytes())
    for size in image.shape:
        tensor.tensor_shape.dim.add(size=size)
    request.inputs["images"].CopyFrom(tensor)
    return request


def to_array(tensor):
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    values = np.frombuffer(tensor.tensor_content, np.float32) if tensor.tensor_content else np.array(tensor.float_val, np.float32)
    return values.reshape(shape)


def detect(stub, image, model):
    """Class probabilities and locations of the six layers."""
    result = stub.Predict(request_for(image, model))
    names = [f"{kind}{layer}" for kind in ("predict", "local") for layer in range(6)]
    arrays = [to_array(result.outputs[name]) for name in names]
    return arrays[:6], arrays[6:]


def anchors(layer):
    """Centres [n, n] and sizes [k] of the default boxes of a layer, in parts of the image."""
    positions = (np.arange(FEATURES[layer]) + 0.5) * STEPS[layer] / SIZE
    y, x = np.meshgrid(positions, positions, indexing="ij")
    small, large = SIZES[layer]
    shapes = [(small, small), (np.sqrt(small * large),) * 2]
    shapes += [(small / np.sqrt(ratio), small * np.sqrt(ratio)) for ratio in RATIOS[layer]]
    height, width = np.array(shapes, np.float32).T / SIZE
    return y[..., None], x[..., None], height, width


def decode(local, layer):
    """[1, n, n, k, 4] to corners: top, left, bottom, right."""
    y, x, height, width = anchors(layer)
    cx, cy = local[..., 0] * width * 0.1 + x, local[..., 1] * height * 0.1 + y
    w, h = width * np.exp(local[..., 2] * 0.2), height * np.exp(local[..., 3] * 0.2)
    return np.stack([cy - h / 2, cx - w / 2, cy + h / 2, cx + w / 2], -1).reshape(-1, 4)


def overlap(box, boxes):
    edges = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    inner = np.prod(np.maximum(edges, 0), -1)
    area = lambda corners: np.prod(corners[..., 2:] - corners[..., :2], -1)
    return inner / np.maximum(area(box) + area(boxes) - inner, 1e-9)


def select(predictions, locations, threshold=0.5, most=400, limit=0.45):
    """Classes, scores and boxes: above the threshold, the best 400, without those that overlap."""
    scores = np.concatenate([layer.reshape(-1, layer.shape[-1])[:, 1:] for layer in predictions])
    boxes = np.concatenate([decode(local, layer) for layer, local in enumerate(locations)])
    rows, classes = np.nonzero(scores > threshold)
    order = np.argsort(-scores[rows, classes], kind="stable")[:most]
    rows, classes = rows[order], classes[order]
    kept = []
    for at in range(len(rows)):
        same = [other for other in kept if classes[other] == classes[at]]
        if not same or np.all(overlap(boxes[rows[at]], boxes[rows[same]]) < limit):
            kept.append(at)
    return classes[kept] + 1, scores[rows[kept], classes[kept]], np.clip(boxes[rows[kept]], 0, 1)


def draw(photo, classes, scores, boxes):
    picture = photo.convert("RGB")
    pen = ImageDraw.Draw(picture)
    for label, score, (top, left, bottom, right) in zip(classes, scores, boxes):
        corners = [left * picture.width, top * picture.height, right * picture.width, bottom * picture.height]
        pen.rectangle(corners, outline=(255, 64, 0), width=3)
        pen.text((corners[0] + 4, corners[1] + 4), f"{label}: {score:.2f}", fill=(255, 64, 0))
    return picture


def main(address, model, photo, picture, threshold=0.5):
    channel = grpc.insecure_channel(address)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    photo = Image.open(photo)
    classes, scores, boxes = select(*detect(stub, preprocess(photo), model), threshold=threshold)
    draw(photo, classes, scores, boxes).save(picture)
    channel.close()
    return classes, scores, boxes


if __name__ == "__main__":
    for found in zip(*main(*sys.argv[1:5])):
        print(*found)
