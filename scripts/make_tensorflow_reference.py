"""Write checkpoints with TensorFlow itself, for the tests of our reader.

It needs TensorFlow (`python -m pip install tensorflow-cpu`) and nothing of this package.

tests/formats/tensorflow_bundle.* has the names of OpenAI's GPT-2, and the shapes of two layers and four channels. In
the order of the names, the arrays contain 0, 1, 2, …, each number divided by 8. The first entry is `global_step`, 1234.

tests/weights/gpt2_tiny/openai/ has the model of gpt2_tiny/saved (from make_transformers_reference.py) in the form of
OpenAI's release. gpt2_tiny/npz/ has the same arrays, written by `numpy.savez`.

    python scripts/make_tensorflow_reference.py              write all of them
    python scripts/make_tensorflow_reference.py PREFIX       read a checkpoint with TensorFlow, and print its contents
"""

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np

try:
    import tensorflow as tf
except ModuleNotFoundError as error:
    print(f"{Path(__file__).name}: {error}: run `python -m pip install tensorflow-cpu`, then again", file=sys.stderr)
    sys.exit(2)

TESTS = Path(__file__).resolve().parents[1] / "tests"
SHIPPED = TESTS / "formats" / "tensorflow_bundle"
TINY = TESTS / "weights" / "gpt2_tiny"
VOCABULARY, BLOCK, LAYERS, CHANNELS = 11, 6, 2, 4

SHAPES = {"model/wte": [VOCABULARY, CHANNELS], "model/wpe": [BLOCK, CHANNELS]}
for layer in range(LAYERS):
    for name, outputs in {"attn/c_attn": 3, "attn/c_proj": 1, "mlp/c_fc": 4}.items():
        SHAPES[f"model/h{layer}/{name}/w"] = [1, CHANNELS, outputs * CHANNELS]
        SHAPES[f"model/h{layer}/{name}/b"] = [outputs * CHANNELS]
    SHAPES[f"model/h{layer}/mlp/c_proj/w"] = [1, 4 * CHANNELS, CHANNELS]
    SHAPES[f"model/h{layer}/mlp/c_proj/b"] = [CHANNELS]
    for name in ("ln_1", "ln_2"):
        SHAPES |= {f"model/h{layer}/{name}/g": [CHANNELS], f"model/h{layer}/{name}/b": [CHANNELS]}
SHAPES |= {"model/ln_f/g": [CHANNELS], "model/ln_f/b": [CHANNELS]}


def write(prefix: Path) -> None:
    names, tensors, start = ["global_step"], [tf.constant(1234, tf.int64)], 0
    for name, shape in sorted(SHAPES.items()):
        count = tf.reduce_prod(shape)
        names.append(name)
        tensors.append(tf.reshape(tf.range(start, start + count, dtype=tf.float32) / 8, shape))
        start += int(count)
    save(prefix, dict(zip(names, tensors, strict=True)))


def save(prefix: Path, tensors: dict[str, tf.Tensor]) -> None:
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )


def tiny_gpt2() -> dict[str, np.ndarray]:
    """Hugging Face's arrays under OpenAI's names. The file is parsed here, so no mistake of our reader is shared."""
    data = (TINY / "saved" / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    found = {}
    for key, entry in json.loads(data[8:start]).items():
        if key == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        array = np.frombuffer(data[start + begin : start + end], "<f4").reshape(entry["shape"])
        name = re.sub(r"^h/(\d+)", r"h\1", key.removeprefix("transformer.").replace(".", "/"))
        name = re.sub(r"^(wte|wpe)/weight$", r"\1", name)
        if name.endswith("weight") and array.ndim == 2:
            name, array = name.replace("weight", "w"), array[None]  # a convolution of width 1
        found["model/" + name.replace("weight", "g").replace("bias", "b")] = array
    return dict(sorted(found.items()))


def write_tiny() -> None:
    arrays = tiny_gpt2()
    sizes = {"n_vocab": 19, "n_ctx": 12, "n_embd": 8, "n_head": 2, "n_layer": 2}
    for folder in (TINY / "openai", TINY / "npz"):
        folder.mkdir(exist_ok=True)
        (folder / "hparams.json").write_text(json.dumps(sizes) + "\n")
    save(TINY / "openai" / "model.ckpt", {name: tf.constant(array) for name, array in arrays.items()})
    (TINY / "openai" / "checkpoint").write_text(
        'model_checkpoint_path: "model.ckpt"\nall_model_checkpoint_paths: "model.ckpt"\n'
    )
    np.savez(TINY / "npz" / "weights.npz", **arrays)


def read(prefix: str) -> None:
    reader = tf.train.load_checkpoint(prefix)
    for name, shape in sorted(reader.get_variable_to_shape_map().items()):
        tensor = reader.get_tensor(name)
        print(name, tensor.dtype, shape, tensor.reshape(-1)[:3] if shape else tensor)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefix", nargs="?", help="a checkpoint to read, without .index")
    arguments = parser.parse_args()
    if arguments.prefix:
        read(arguments.prefix)
    else:
        write(SHIPPED)
        write_tiny()
        print(f"{SHIPPED}.index and its data, {TINY}/openai and npz, by TensorFlow {tf.__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
