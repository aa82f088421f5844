"""Writes a SavedModel next to what TensorFlow computes with it: `<name>/1` and `<name>/golden.npz`.

The recording holds `<number>.<signature>/in/<alias>` and `<number>.<signature>/out/<alias>`, in the
order of the calls.
"""
import gzip
import io
import os
import pathlib
import shutil
import traceback

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import tensorflow as tf

RANDOM = np.random.default_rng(0)


def floats(*shape, low=0.0, high=1.0):
    return RANDOM.uniform(low, high, shape).astype(np.float32)


def integers(low, high, *shape, dtype=np.int32):
    return RANDOM.integers(low, high, shape).astype(dtype)


def strings(*values):
    return np.array([value if isinstance(value, bytes) else value.encode() for value in values])


def plain(value):
    """An array that NumPy's format can hold; strings as fixed-width bytes."""
    array = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    return np.asarray(array.tolist(), dtype="S").reshape(array.shape) if array.dtype == object else array


def record(folder, calls):
    """`calls`: (signature, inputs by alias) in the order in which they are made."""
    loaded = tf.saved_model.load(f"{folder}/1")
    arrays = {}
    for number, (signature, inputs) in enumerate(calls):
        case = f"{number:03}.{signature}"
        outputs = loaded.signatures[signature](**{alias: tf.constant(x) for alias, x in inputs.items()})
        arrays.update({f"{case}/in/{alias}": plain(x) for alias, x in inputs.items()})
        arrays.update({f"{case}/out/{alias}": plain(y) for alias, y in outputs.items()})
    np.savez_compressed(f"{folder}/golden.npz", **arrays)


def make(out, only, models):
    """`models`: name -> function of the folder that writes `folder/1` and returns the calls."""
    failed = []
    for name, write in models.items():
        folder = f"{out}/{name}"
        if (only and name not in only) or os.path.exists(f"{folder}/golden.npz"):
            continue
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        try:
            record(folder, write(folder))
            print("made", name, flush=True)
        except Exception as error:
            failed.append(name)
            print("FAILED", name, type(error).__name__, str(error)[:300], flush=True)
            if only:
                traceback.print_exc()
        tf.keras.backend.clear_session()
    return failed


def pack(folder, fixture):
    """The model and its recording as a fixture, every file compressed."""
    shutil.rmtree(fixture, ignore_errors=True)
    arrays = np.load(f"{folder}/golden.npz")
    stored = io.BytesIO()
    np.savez(stored, **arrays)
    os.makedirs(fixture)
    with open(f"{fixture}/golden.npz.gz", "wb") as file:
        file.write(gzip.compress(stored.getvalue(), 9, mtime=0))
    for path in sorted(pathlib.Path(folder, "1").rglob("*")):
        if path.is_file() and path.name != "fingerprint.pb":
            target = pathlib.Path(fixture, path.relative_to(folder))
            target.parent.mkdir(parents=True, exist_ok=True)
            pathlib.Path(f"{target}.gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
