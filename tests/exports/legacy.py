"""Graphs of TensorFlow 1: variables by reference, branches and loops without functions, partitions, shards."""
import numpy as np
import tensorflow as tf

from record import floats, integers, strings

V = tf.compat.v1
# Encoded before any graph is built.
PICTURES = np.array([tf.io.encode_png(integers(0, 256, rows, 9, 3, dtype=np.uint8)).numpy() for rows in (7, 8)])


def graph(build, saver=None):
    """`build` makes the graph and gives inputs, outputs, and values for the inputs."""

    def write(folder):
        V.disable_control_flow_v2()
        V.disable_resource_variables()
        with tf.Graph().as_default(), V.Session() as session:
            V.set_random_seed(1)
            inputs, outputs, values = build(folder)
            session.run([V.global_variables_initializer(), V.tables_initializer()])
            info = V.saved_model.build_tensor_info
            signature = V.saved_model.build_signature_def({a: info(x) for a, x in inputs.items()}, {a: info(x) for a, x in outputs.items()},
                                                          "tensorflow/serving/predict")
            builder = V.saved_model.Builder(f"{folder}/1")
            made = saver() if saver else None
            builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature}, saver=made,
                                                 main_op=V.tables_initializer(), strip_default_attrs=True,
                                                 assets_collection=V.get_collection(V.GraphKeys.ASSET_FILEPATHS))
            builder.save()
        V.enable_control_flow_v2()
        V.enable_resource_variables()
        return [("serving_default", values)]

    return write


def dense(x, columns, name):
    w = V.get_variable(f"{name}_w", [x.shape[-1], columns], initializer=V.random_normal_initializer(stddev=0.3))
    return tf.matmul(x, w) + V.get_variable(f"{name}_b", [columns], initializer=V.random_normal_initializer())


def dropout_phase(_):
    x = V.placeholder(tf.float32, [None, 6])
    training = V.placeholder_with_default(False, [])
    h = tf.nn.relu(dense(x, 8, "a"))
    h = tf.cond(training, lambda: V.nn.dropout(h, rate=0.5), lambda: h)
    return {"x": x}, {"y": dense(h, 3, "b")}, {"x": floats(2, 6)}


def branch(_):
    x, big = V.placeholder(tf.float32, [None]), V.placeholder(tf.bool, [])
    inner = lambda: tf.cond(tf.reduce_sum(x) > 1.0, lambda: x * 3.0, lambda: x - 1.0)
    y = tf.cond(big, inner, lambda: tf.concat([x, x], 0))
    return {"x": x, "big": big}, {"y": y}, {"x": floats(3), "big": np.array(True)}


def loop(_):
    x, n = V.placeholder(tf.float32, [2, 2]), V.placeholder(tf.int32, [])
    w = V.get_variable("w", [2, 2], initializer=V.random_normal_initializer(stddev=0.5))
    _, y = tf.while_loop(lambda i, _: i < n, lambda i, h: (i + 1, tf.tanh(tf.matmul(h, w) + x)), [tf.constant(0), x])
    return {"x": x, "n": n}, {"y": y}, {"x": floats(2, 2), "n": np.array(4, np.int32)}


def loop_in_loop(_):
    n = V.placeholder(tf.int32, [])
    def outer(i, total):
        _, inner = tf.while_loop(lambda j, _: j < i, lambda j, s: (j + 1, s + j * i), [tf.constant(0), tf.constant(0)])
        return i + 1, total + tf.cond(inner > 5, lambda: inner, lambda: -inner)
    _, y = tf.while_loop(lambda i, _: i < n, outer, [tf.constant(0), tf.constant(0)])
    return {"n": n}, {"y": y}, {"n": np.array(5, np.int32)}


def dynamic_rnn(_):
    """What `tf.nn.dynamic_rnn` builds: a loop over arrays that are unstacked before and stacked after."""
    x = V.placeholder(tf.float32, [None, None, 3])
    w = V.get_variable("w", [7, 16], initializer=V.random_normal_initializer(stddev=0.4))
    steps, batch = tf.shape(x)[1], tf.shape(x)[0]
    inputs = tf.TensorArray(tf.float32, steps).unstack(tf.transpose(x, [1, 0, 2]))
    outputs = tf.TensorArray(tf.float32, steps)

    def step(t, h, c, outputs):
        i, j, f, o = tf.split(tf.matmul(tf.concat([inputs.read(t), h], 1), w), 4, 1)
        c = c * tf.sigmoid(f + 1.0) + tf.sigmoid(i) * tf.tanh(j)
        h = tf.tanh(c) * tf.sigmoid(o)
        return t + 1, h, c, outputs.write(t, h)

    zero = tf.zeros([batch, 4])
    _, h, _, outputs = tf.while_loop(lambda t, *_: t < steps, step, [tf.constant(0), zero, zero, outputs])
    return {"x": x}, {"y": tf.transpose(outputs.stack(), [1, 0, 2]), "state": h}, {"x": floats(2, 5, 3)}


def map_images(_):
    files = V.placeholder(tf.string, [None])
    def one(file):
        image = tf.image.convert_image_dtype(tf.image.decode_png(file, channels=3), tf.float32)
        return tf.squeeze(V.image.resize_bilinear(tf.expand_dims(image, 0), [6, 6]), 0)
    images = V.map_fn(one, files, dtype=tf.float32)
    images.set_shape([None, 6, 6, 3])
    w = V.get_variable("w", [3, 3, 3, 4], initializer=V.random_normal_initializer())
    return {"bytes": files}, {"y": tf.nn.conv2d(images, w, 1, "SAME")}, {"bytes": PICTURES}


def batch_norm(_):
    x = V.placeholder(tf.float32, [None, 6, 6, 3])
    h = tf.nn.conv2d(x, V.get_variable("w", [3, 3, 3, 4], initializer=V.random_normal_initializer()), 1, "SAME")
    scale, offset = (V.get_variable(name, [4], initializer=V.random_normal_initializer()) for name in ("gamma", "beta"))
    mean, variance = V.get_variable("mean", [4], initializer=V.random_normal_initializer()), V.get_variable("variance", [4], initializer=V.ones_initializer())
    y, _, _ = V.nn.fused_batch_norm(h, scale, offset, mean, variance, is_training=False)
    return {"x": x}, {"y": tf.nn.avg_pool2d(tf.nn.relu6(y), 2, 2, "VALID")}, {"x": floats(2, 6, 6, 3)}


def partitioned(_):
    x, ids = V.placeholder(tf.float32, [None, 4]), V.placeholder(tf.int64, [None])
    with V.variable_scope("parts", partitioner=V.fixed_size_partitioner(3)):
        w = V.get_variable("w", [4, 5], initializer=V.random_normal_initializer())
        table = V.get_variable("table", [10, 5], initializer=V.random_normal_initializer())
    y = tf.matmul(x, tf.convert_to_tensor(w)) + V.nn.embedding_lookup(table, ids, partition_strategy="div")
    return {"x": x, "ids": ids}, {"y": y}, {"x": floats(3, 4), "ids": np.array([0, 4, 9])}


def wide_columns(_):
    """The sparse columns of an estimator."""
    words = V.placeholder(tf.string, [None, None])
    ids = tf.where(tf.not_equal(words, ""))
    hashed = V.string_to_hash_bucket_fast(tf.gather_nd(words, ids), 20)
    sparse = tf.SparseTensor(ids, hashed, tf.shape(words, out_type=tf.int64))
    weights = V.get_variable("weights", [20, 3], initializer=V.random_normal_initializer())
    y = V.nn.safe_embedding_lookup_sparse([weights], sparse, combiner="mean")
    return {"words": words}, {"y": y}, {"words": strings("a", "b", "", "", "c", "c", "", "", "").reshape(3, 3)}


def vocabulary(folder):
    path = f"{folder}/vocabulary.txt"
    with open(path, "w") as file:
        file.write("red\t3\ngreen\t5\nblue\t7\n")
    table = V.lookup.StaticHashTable(V.lookup.TextFileInitializer(path, tf.string, 0, tf.int64, 1), -1)
    words = V.placeholder(tf.string, [None])
    return {"words": words}, {"numbers": table.lookup(words)}, {"words": strings("blue", "pink", "red")}


MODELS = {
    "v1_dropout_phase": graph(dropout_phase),
    "v1_branch": graph(branch),
    "v1_loop": graph(loop),
    "v1_loop_in_loop": graph(loop_in_loop),
    "v1_dynamic_rnn": graph(dynamic_rnn),
    "v1_map_images": graph(map_images),
    "v1_batch_norm": graph(batch_norm),
    "v1_partitioned": graph(partitioned),
    "v1_sharded": graph(partitioned, lambda: V.train.Saver(sharded=True)),
    "v1_wide_columns": graph(wide_columns),
    "v1_vocabulary": graph(vocabulary),
}
