"""Records what TensorFlow answers for the published guesslang model.

    guesslang.py MODEL_FOLDER > tests/fixtures/guesslang.json

MODEL_FOLDER is guesslang/data/model of the package guesslang 2.2.1 (`pip download --no-deps`). Its classify signatures
take strings as they are, so what TensorFlow Serving feeds them are serialized Examples; `predict` takes the texts.
"""

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

# The first is the sample of the package's own page; the others are ours.
SAMPLES = [
    """
      % Quick sort

      -module (recursion).
      -export ([qsort/1]).

      qsort([]) -> [];
      qsort([Pivot|T]) ->
             qsort([X || X <- T, X < Pivot])
             ++ [Pivot] ++
             qsort([X || X <- T, X >= Pivot]).
      """,
    "fn main() {\n    let total: u32 = (1..=10).filter(|n| n % 2 == 0).sum();\n    println!(\"{total}\");\n}\n",
    "#include <stdio.h>\n\nint main(void)\n{\n\tprintf(\"%d\\n\", 6 * 7);\n\treturn 0;\n}\n",
    "import sys\n\nfor line in sys.stdin:\n    words = line.split()\n    print(len(words), words[:1])\n",
    "SELECT name, COUNT(*) AS n FROM birds WHERE size < 3 GROUP BY name ORDER BY n DESC;\n",
    "#!/bin/sh\nset -eu\nfor f in *.txt; do\n    [ -s \"$f\" ] && wc -l \"$f\"\ndone\n",
    "<!DOCTYPE html>\n<html><head><title>x</title></head>\n<body><p class=\"a\">caf\u00e9</p></body></html>\n",
    "package main\n\nimport \"fmt\"\n\nfunc main() {\n\tfmt.Println(\"kinglet\")\n}\n",
    "{\"name\": \"kinglet\", \"size\": [1, 2, 3], \"tiny\": true}\n",
    "x",
]


def example(text):
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))
    return tf.train.Example(features=tf.train.Features(feature={"content": feature})).SerializeToString()


def main():
    model = tf.saved_model.load(sys.argv[1])
    classify = model.signatures["serving_default"](inputs=tf.constant([example(text) for text in SAMPLES]))
    predict = model.signatures["predict"](content=tf.constant(SAMPLES))
    short = lambda rows: [[float(f"{value:.7g}") for value in row] for row in rows.numpy()]  # noqa: E731
    print(
        json.dumps(
            {
                "samples": SAMPLES,
                "classes": [name.decode() for name in classify["classes"].numpy()[0]],
                "classify_scores": short(classify["scores"]),
                "predict_classes": [row[0].decode() for row in predict["classes"].numpy()],
                "predict_probabilities": short(predict["probabilities"]),
            }
        )
    )


if __name__ == "__main__":
    main()
