"""A tiny BERT with random weights, its tokenizer and what Hugging Face's own libraries answer.

    pip install tokenizers transformers torch safetensors
    python tests/exports/hugging_face.py tests/fixtures/hugging_face

writes `bert/` (a folder as `save_pretrained` writes it, with the files of sentence-transformers) and
`expected.json`: ids of a few hundred texts by `tokenizers`, states and sentence vectors by `transformers`.
"""

import json
import random
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertModel

LENGTH = 48
SENTENCES = [
    "hello world",
    "The quick brown fox jumps over the lazy dog.",
    "Don't stop! It's 10:30 (or 22:30) & costs $5.99...",
    "unaffable, untouchable, unbelievably uncharacteristic",
    "C'est déjà l'été: où êtes-vous, Zoë Ångström?",
    "Größe, Übermut, Straße, naïve façade, Łódź, İstanbul ılık",
    "Ελληνικά ΟΔΟΣ κείμενο",
    "Русский текст, ёлка и йод",
    "你好，世界。这是一个测试",
    "日本語のテキスト、カタカナ。漢字かな交じり文",
    "한국어 문장입니다",
    "मानक हिन्दी",
    "שלום עולם",
    "مرحبا بالعالم",
    "สวัสดีชาวโลก",
    "emoji 😀👍🏽 family 👨‍👩‍👧‍👦 flag 🇩🇪",
    "tabs\tand\nnew\r\nlines\u2028and\u00a0blanks\u3000here",
    "control \x00\x01\x07\x1b characters\x7f\x85 and \u200b\u200d\u202e\ufeff marks",
    "undecodable \ufffd here",
    "private \ue000 use, unassigned \u0378",
    "[CLS] in a text [SEP], [MASK]ed and [UNK]nown [PAD]",
    "[cls] [Sep] [ MASK ]",
    "a##b ##ing #hash",
    "\u0041\u030a \u00c5 \u212b \ufb01 \u1e9b\u0323",
    "x" * 99,
    "x" * 100,
    "x" * 101,
    "é" * 100 + " " + "é" * 101,
    "word " * 100,
    "long-" * 80,
    "中" * 90,
    "",
    " ",
    "\u0301",
    "。",
    "𠀀𪚥𫝀𫠠𫠝 extension ideographs 豈更",
    "¿Qué? ¡Sí! «guillemets» „quotes“ – — … ‰ € £ ¥ ° ± × ÷",
    "^caret `tick ~tilde |bar =eq <lt >gt $dollar +plus",
]
# Blocks that are not older than the tables of `tokenizers`, which end at Unicode 8.
RANGES = [(0x20, 0x7F), (0xA0, 0x250), (0x250, 0x400), (0x400, 0x530), (0x590, 0x700), (0x900, 0x9E0), (0x1E00, 0x2000),
          (0x2000, 0x2070), (0x20A0, 0x20C0), (0x2190, 0x2200), (0x3000, 0x3100), (0x4E00, 0x4F00), (0xAC00, 0xAD00),
          (0xFF00, 0xFFF0), (0x1F300, 0x1F650), (0x0, 0x20), (0x300, 0x370)]


def texts():
    """The sentences, then mixtures of everything, the same at every run."""
    chance = random.Random(8)
    words = " ".join(SENTENCES[:24]).split()
    made = list(SENTENCES)
    for _ in range(300):
        parts = []
        for _ in range(chance.randrange(1, 24)):
            kind = chance.random()
            if kind < 0.4:
                parts.append(chance.choice(words))
            elif kind < 0.5:
                parts.append(chance.choice(words).upper())
            else:
                low, high = chance.choice(RANGES)
                parts.append("".join(chr(chance.randrange(low, high)) for _ in range(chance.randrange(1, 6))))
            if chance.random() < 0.6:
                parts.append(" ")
        made.append("".join(parts))
    return made


def main(folder):
    torch.manual_seed(8)
    model_folder = folder / "bert"
    (model_folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    samples = texts()
    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(samples[:120], vocab_size=1200, min_frequency=1, limit_alphabet=500, show_progress=False)
    vocabulary = trained.get_vocab()
    uncased = BertWordPieceTokenizer(vocab=vocabulary, lowercase=True)
    uncased.enable_truncation(LENGTH)
    uncased.save(str(model_folder / "tokenizer.json"), pretty=False)
    pieces = sorted(vocabulary, key=vocabulary.get)
    (model_folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8", newline="")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": LENGTH}
    (model_folder / "tokenizer_config.json").write_text(json.dumps(settings))
    cased = BertWordPieceTokenizer(vocab=vocabulary, lowercase=False)
    cased.enable_truncation(LENGTH)

    config = BertConfig(vocab_size=len(pieces), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=24, max_position_embeddings=LENGTH, type_vocab_size=2)
    model = BertModel(config).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(torch.randn_like(tensor) * 0.3 + (0.5 if tensor.dim() == 1 else 0.0))
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if "position_ids" not in name}
    save_file(tensors, model_folder / "model.safetensors")
    (model_folder / "config.json").write_text(json.dumps({"model_type": "bert", **{
        key: getattr(config, key) for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
                                              "intermediate_size", "max_position_embeddings", "type_vocab_size",
                                              "layer_norm_eps", "hidden_act")}}))
    (model_folder / "1_Pooling" / "config.json").write_text(json.dumps(
        {"word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}))

    def sentence(ids):
        ids = torch.tensor([ids])
        with torch.no_grad():
            states = model(input_ids=ids).last_hidden_state
        return torch.nn.functional.normalize(states.mean(1), dim=1)[0].tolist()

    inputs = {"input_ids": [[2, 7, 30, 9, 3], [2, 11, 3, 0, 0]], "attention_mask": [[1] * 5, [1, 1, 1, 0, 0]],
              "token_type_ids": [[0, 0, 1, 1, 1], [0] * 5]}
    with torch.no_grad():
        answer = model(**{key: torch.tensor(value) for key, value in inputs.items()})
    ids = [uncased.encode(text).ids for text in samples]
    expected = {
        "texts": samples,
        "ids": ids,
        "cased_ids": [cased.encode(text).ids for text in samples],
        "sentences": [sentence(row) for row in ids[:40]],
        "inputs": inputs,
        "last_hidden_state": answer.last_hidden_state.flatten().tolist(),
        "pooler_output": answer.pooler_output.flatten().tolist(),
    }
    (folder / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
