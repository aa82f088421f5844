"""`tf.Module`s: control flow of functions, lists, tables, examples, images in the graph, state."""
import os

import numpy as np
import tensorflow as tf

from record import floats, integers, strings

SPEC = tf.TensorSpec


def module(specs, function, x, build=None):
    """A module with one signature; `build` makes what the function uses and becomes its first argument."""

    def write(folder):
        holder = tf.Module()
        if build:
            holder.made = build(folder)
        body = (lambda *given: function(holder.made, *given)) if build else function
        holder.call = tf.function(body, input_signature=specs)
        tf.saved_model.save(holder, f"{folder}/1", signatures={"serving_default": named(holder.call, len(specs))})
        return [("serving_default", {f"x{index}": value for index, value in enumerate(x())})]

    return write


def named(function, count):
    """The concrete function with inputs x0, x1, .. and outputs y0, y1, .."""
    specs = function.input_signature
    names = [SPEC(spec.shape, spec.dtype, f"x{index}") for index, spec in enumerate(specs)]

    def outputs(*given):
        made = function(*given)
        made = made if isinstance(made, (list, tuple)) else [made]
        return {f"y{index}": value for index, value in enumerate(made)}

    return tf.function(outputs, input_signature=names).get_concrete_function()


def collatz(n):
    steps = tf.constant(0)
    while n > 1:
        n = tf.where(n % 2 == 0, n // 2, 3 * n + 1)
        steps += 1
    return steps


def branches(x, flag):
    if flag:
        y = tf.nn.relu(x)
    elif tf.reduce_sum(x) > 0.0:
        y = x * 2.0
    else:
        y = tf.zeros_like(x)
    return y, tf.cond(flag, lambda: tf.shape(x)[0], lambda: tf.constant(-1))


def nested_loops(x):
    total = tf.constant(0.0)
    for row in tf.range(tf.shape(x)[0]):
        for column in tf.range(tf.shape(x)[1]):
            if x[row, column] > 0.5:
                total += x[row, column]
    return total


def lists(x):
    array = tf.TensorArray(tf.float32, size=0, dynamic_size=True)
    for index in tf.range(tf.shape(x)[0]):
        array = array.write(index, x[index] * tf.cast(index, tf.float32))
    scanned = tf.scan(lambda sum_, element: sum_ + element, x)
    return array.stack(), scanned, tf.map_fn(lambda row: tf.reduce_max(row), x), tf.foldl(lambda a, b: a * b, x)


def word_model(made, text):
    table, embedding = made
    words = tf.strings.split(tf.strings.lower(text))
    ids = tf.ragged.map_flat_values(table.lookup, words)
    dense = ids.to_tensor(default_value=0, shape=[None, 5])
    return dense, tf.reduce_mean(tf.gather(embedding, dense), axis=1)


def word_tables(folder):
    os.makedirs(f"{folder}/source", exist_ok=True)
    path = f"{folder}/source/words.txt"
    with open(path, "w") as file:
        file.write("".join(f"{word}\n" for word in ("the", "cat", "sat", "mat")))
    initializer = tf.lookup.TextFileInitializer(path, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE,
                                                tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER)
    return [tf.lookup.StaticVocabularyTable(initializer, 3), tf.Variable(floats(8, 4))]


def labels(_):
    keys = tf.constant([0, 1, 2], tf.int64)
    return [tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, tf.constant(["cat", "dog", "bird"])), "?")]


def classify(made, x):
    scores, positions = tf.math.top_k(tf.nn.softmax(x), 2)
    return made[0].lookup(tf.cast(positions, tf.int64)), scores


def text_functions(text):
    cleaned = tf.strings.regex_replace(tf.strings.strip(text), r"\s+", " ")
    return (tf.strings.length(cleaned, "UTF8_CHAR"), tf.strings.substr(cleaned, 0, 3), tf.strings.join([cleaned, "!"]),
            tf.strings.to_hash_bucket_fast(cleaned, 1000), tf.strings.regex_full_match(cleaned, "[a-z ]+"))


def parse(serialized):
    features = tf.io.parse_example(serialized, {
        "age": tf.io.FixedLenFeature([], tf.float32, 30.0), "name": tf.io.FixedLenFeature([], tf.string),
        "tags": tf.io.VarLenFeature(tf.int64), "vector": tf.io.FixedLenFeature([2], tf.float32, [0.0, 1.0]),
        "words": tf.io.RaggedFeature(tf.string)})
    tags = features["tags"]
    return (features["age"] * 2.0, features["name"], tf.sparse.to_dense(tags, -1), features["vector"],
            features["words"].to_tensor(""))


def examples():
    def feature(value):
        if isinstance(value[0], bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=value))
        if isinstance(value[0], int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=value))
        return tf.train.Feature(float_list=tf.train.FloatList(value=value))

    rows = [{"age": [20.5], "name": [b"ann"], "tags": [1, 2], "words": [b"a", b"b"]},
            {"name": [b"bob"], "tags": [7], "vector": [3.0, 4.5]}]
    return [np.array([tf.train.Example(features=tf.train.Features(
        feature={key: feature(value) for key, value in row.items()})).SerializeToString() for row in rows])]


def decode(made, files):
    def one(file):
        image = tf.io.decode_image(file, channels=3, expand_animations=False)
        return tf.image.resize(tf.cast(image, tf.float32), [8, 8]) / 255.0

    images = tf.map_fn(one, files, fn_output_signature=SPEC([8, 8, 3], tf.float32))
    return tf.nn.conv2d(images, made[0], 2, "SAME")


def pictures():
    """PNG, since decoders of JPEG differ by a step."""
    return [np.array([tf.io.encode_png(integers(0, 256, 12, 9, 3, dtype=np.uint8)).numpy(),
                      tf.io.encode_png(integers(0, 256, 5, 7, 1, dtype=np.uint8)).numpy()])]


def detect(boxes, scores):
    selected = tf.image.non_max_suppression(boxes, scores, 4, 0.5, 0.1)
    combined = tf.image.combined_non_max_suppression(boxes[tf.newaxis, :, tf.newaxis], scores[tf.newaxis, :, tf.newaxis], 3, 5)
    order = tf.argsort(scores, direction="DESCENDING")
    return tf.gather(boxes, selected), combined.nmsed_boxes, combined.valid_detections, tf.gather(boxes, order)


def boxes():
    corner = floats(12, 2, high=0.5)
    return [np.concatenate([corner, corner + floats(12, 2, low=0.1, high=0.5)], 1), floats(12)]


def stateful(folder):
    class Counter(tf.Module):
        def __init__(self):
            self.count = tf.Variable(0, name="count")
            self.window = tf.Variable(tf.zeros([1, 6, 3]), name="window")
            self.label = tf.Variable("start", name="label")
            self.filter = tf.constant(floats(3, 3, 2))

        @tf.function(input_signature=[SPEC([1, 2, 3], tf.float32, "frames")])
        def stream(self, frames):
            """A streaming model: the last frames are kept from call to call."""
            self.count.assign_add(1)
            self.window.assign(tf.concat([self.window[:, 2:], frames], 1))
            return {"y": tf.nn.conv1d(self.window, self.filter, 1, "VALID"), "count": self.count.read_value()}

        @tf.function(input_signature=[SPEC([], tf.string, "text")])
        def rename(self, text):
            before = self.label.read_value()
            self.label.assign(tf.strings.join([before, text], "/"))
            return {"before": before, "after": self.label.read_value()}

        @tf.function(input_signature=[])
        def reset(self):
            self.count.assign(0)
            self.window.assign(tf.zeros_like(self.window))
            return {"count": self.count.read_value()}

    counter = Counter()
    tf.saved_model.save(counter, f"{folder}/1", signatures={
        "stream": counter.stream, "rename": counter.rename, "reset": counter.reset})
    return [("stream", {"frames": floats(1, 2, 3)}), ("stream", {"frames": floats(1, 2, 3)}),
            ("rename", {"text": np.array(b"a")}), ("rename", {"text": np.array(b"b")}), ("reset", {}),
            ("stream", {"frames": floats(1, 2, 3)})]


def narrow_variables(_):
    return [tf.Variable(tf.cast(floats(4, 3), tf.float16)), tf.Variable(tf.cast(floats(3), tf.bfloat16)),
            tf.Variable(["low", "high"]), tf.Variable(integers(0, 9, 3, dtype=np.uint8)), tf.Variable(floats(3).astype(np.float64))]


def narrow(made, x):
    half, brain, words, small, double = made
    y = tf.matmul(tf.cast(x, tf.float16), half)
    return (tf.cast(y, tf.float32) + tf.cast(brain, tf.float32), tf.gather(words, tf.cast(x[:, 0] > 0.5, tf.int32)),
            tf.cast(small, tf.int32) * 2, tf.cast(x[:, :3], tf.float64) * double)


def spectrogram(x):
    stft = tf.signal.stft(x, 64, 32, fft_length=64)
    mel = tf.matmul(tf.abs(stft), tf.signal.linear_to_mel_weight_matrix(10, 33, 8000, 20.0, 4000.0))
    return tf.signal.mfccs_from_log_mel_spectrograms(tf.math.log(mel + 1e-3))[..., :6], tf.abs(stft) ** 2


def images_over_time(x):
    return (tf.image.adjust_contrast(x, 1.5), tf.image.central_crop(x, 0.5), tf.image.resize_with_pad(x, 9, 9),
            tf.image.per_image_standardization(x), tf.image.extract_patches(x, [1, 2, 2, 1], [1, 2, 2, 1], [1, 1, 1, 1], "VALID"),
            tf.image.flip_left_right(x), tf.nn.space_to_depth(x, 2), tf.image.rgb_to_grayscale(x))


MODELS = {
    "while_loop": module([SPEC([], tf.int32)], collatz, lambda: [np.array(27, np.int32)]),
    "branches": module([SPEC([None], tf.float32), SPEC([], tf.bool)], branches, lambda: [floats(3, low=-1), np.array(False)]),
    "nested_loops": module([SPEC([None, None], tf.float32)], nested_loops, lambda: [floats(3, 4)]),
    "lists": module([SPEC([None, 2], tf.float32)], lists, lambda: [floats(4, 2)]),
    "word_model": module([SPEC([None], tf.string)], word_model, lambda: [strings("The cat sat", "on", "a MAT a b c d e")], word_tables),
    "labels": module([SPEC([None, 3], tf.float32)], classify, lambda: [floats(2, 3)], labels),
    "text_functions": module([SPEC([None], tf.string)], text_functions, lambda: [strings("  hello   world ", "Grüße", "x")]),
    "parse_example": module([SPEC([None], tf.string)], parse, examples),
    "image_bytes": module([SPEC([None], tf.string)], decode, pictures, lambda _: [tf.Variable(floats(3, 3, 3, 2))]),
    "detection": module([SPEC([None, 4], tf.float32), SPEC([None], tf.float32)], detect, boxes),
    "narrow_variables": module([SPEC([None, 4], tf.float32)], narrow, lambda: [floats(2, 4)], narrow_variables),
    "speech_features": module([SPEC([None, 256], tf.float32)], spectrogram, lambda: [floats(1, 256, low=-1)]),
    "image_functions": module([SPEC([1, 8, 6, 3], tf.float32)], images_over_time, lambda: [floats(1, 8, 6, 3)]),
    "streaming_state": stateful,
}
