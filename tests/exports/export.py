"""Exports models with TensorFlow, each with recorded inputs and outputs.

    pip install tensorflow-cpu tf_keras
    python tests/exports/export.py FOLDER [name ...] [--source=keras_models] [--split]
    KINGLET_EXPORTS=FOLDER cargo test --test saved_models exported -- --nocapture

Without names all are made; those that are there already stay. `--split` writes one SavedModel per
operator, which tells which of them fail. `--fixtures` makes the small ones and packs them into
tests/fixtures/saved_models, for tests where no TensorFlow is.
"""
import importlib
import pathlib
import sys

import record

FIXTURES = ("operators", "while_loop", "branches", "lists", "word_model", "parse_example", "streaming_state",
            "narrow_variables", "image_bytes", "detection", "v1_dropout_phase", "v1_branch", "v1_loop_in_loop",
            "v1_dynamic_rnn", "v1_map_images", "v1_wide_columns", "v1_sharded", "v1_vocabulary", "keras2_text")
SOURCES = ("keras_models", "modules", "legacy", "keras2_models", "operators")

if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    out, only = words[0], set(words[1:])
    fixtures = "--fixtures" in sys.argv
    only |= set(FIXTURES) if fixtures else set()
    failed = []
    chosen = [word.split("=")[1] for word in sys.argv if word.startswith("--source=")]
    for source in chosen or SOURCES:
        try:
            module = importlib.import_module(source)
        except ImportError as error:
            print("SKIPPED", source, error)
            continue
        models = {**module.MODELS, **(getattr(module, "SPLIT", {}) if "--split" in sys.argv else {})}
        failed += record.make(out, only, models)
    for name in FIXTURES if fixtures else ():
        record.pack(f"{out}/{name}", pathlib.Path(__file__).parents[1] / "fixtures" / "saved_models" / name)
    if failed:
        sys.exit(f"could not be made: {failed}")
