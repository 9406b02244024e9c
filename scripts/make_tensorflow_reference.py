"""Write tests/formats/tensorflow_bundle.*: a checkpoint by TensorFlow itself, for our reader to be tested on.

It needs TensorFlow (`python -m pip install tensorflow-cpu`) and nothing of this package. The names and shapes are
those of OpenAI's GPT-2, of two layers and four channels. In the order of their names, the arrays count on: the first
number of each is one above the last of the one before, beginning with 0, all divided by 8. Before them
comes `global_step`, 1234.

    python scripts/make_tensorflow_reference.py              write the files
    python scripts/make_tensorflow_reference.py PREFIX       let TensorFlow read a checkpoint and print what is in it
"""

import argparse
import sys
from pathlib import Path

try:
    import tensorflow as tf
except ModuleNotFoundError as error:
    print(f"{Path(__file__).name}: {error}: run `python -m pip install tensorflow-cpu`, then again", file=sys.stderr)
    sys.exit(2)

SHIPPED = Path(__file__).resolve().parents[1] / "tests" / "formats" / "tensorflow_bundle"
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
    tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors)


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
        print(f"{SHIPPED}.index and its data, by TensorFlow {tf.__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
