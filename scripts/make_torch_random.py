"""Write tests/torch_random.npz: what PyTorch draws on a CPU, for our `Generator` to be compared with.

It needs PyTorch (`python -m pip install torch`) and nothing of this package, so that the two share no mistake. Running
it twice gives the same file, byte for byte, on one machine with one PyTorch. An x86 processor is needed: on others, the
last bit of PyTorch's float32 normals depends on the system's logarithm and cosine.

In the file:

    made_by           this script, and the version of PyTorch
    SEED/DRAW         what one stream of this seed gives in turn for each of SIZES, one after the other
    SEED/DRAW/large   every 65,537th of the LARGE numbers that it gives next
    SEED/DRAW/sha256  the digest of all LARGE of them, in the machine's (little-endian) bytes
    SEED/workers      the first number that each of two workers of a DataLoader draws
    SEED/loader       the numbers of 9 examples in two shuffled passes by twos, and the number drawn after them
    SEED/model        the first weights of a small GPT in PyTorch's layers, in the order in which the book makes them
    SEED/model/biased the same with biases for queries, keys and values
    gpt2/sha256       the digest of the book's GPT of 163 million parameters, seed 123 (with --all; kept otherwise)
"""

import argparse
import hashlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

try:
    import torch
    from torch import Tensor, nn
    from torch.utils.data import DataLoader, Dataset
except ModuleNotFoundError as error:
    print(f"{Path(__file__).name}: {error}: run `python -m pip install torch`, then this again", file=sys.stderr)
    sys.exit(2)

SHIPPED = Path(__file__).resolve().parents[1] / "tests" / "torch_random.npz"
SEEDS = [0, 123, 137, 2**31, 2**32 + 5, -1]
SIZES = [0, 1, 15, 16, 17, 31, 33, 1, 2]
LARGE = 2**20
f32, f64 = torch.float32, torch.float64
DRAWS: dict[str, Callable[[int], Tensor]] = {
    "rand": lambda n: torch.rand(n),
    "rand float64": lambda n: torch.rand(n, dtype=f64),
    "uniform": lambda n: torch.empty(n).uniform_(-0.3, 0.7),
    "uniform float64": lambda n: torch.empty(n, dtype=f64).uniform_(-0.3, 0.7),
    "randn": lambda n: torch.randn(n),
    "randn float64": lambda n: torch.randn(n, dtype=f64),
    "normal": lambda n: torch.empty(n).normal_(0.3, 0.02),
    "normal float64": lambda n: torch.empty(n, dtype=f64).normal_(0.3, 0.02),
    "exponential": lambda n: torch.empty(n).exponential_(),
    "exponential float64": lambda n: torch.empty(n, dtype=f64).exponential_(),
    "keep 0.1": lambda n: nn.functional.dropout(torch.ones(n), 0.1) > 0,
    "keep 0.5": lambda n: nn.functional.dropout(torch.ones(n), 0.5) > 0,
    "randint": lambda n: torch.randint(-7, 50250, (n,)),
    "randint wide": lambda n: torch.randint(-(2**40), 2**62, (n,)),
    "randperm": lambda n: torch.randperm(n),
    "multinomial": lambda n: torch.multinomial(torch.arange(1.0, n + 2), min(n + 1, 5)),
    "multinomial replaced": lambda n: torch.multinomial(torch.arange(1.0, 8.0, dtype=f64), n + 1, replacement=True),
}


class Numbers(Dataset):
    """Nine examples; with `drawn`, a random number each."""

    def __init__(self, drawn: bool) -> None:
        self.drawn = drawn

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> float:
        return torch.rand(()).item() if self.drawn else index


def layers(vocabulary: int, context: int, channels: int, blocks: int, bias: bool) -> list[Tensor]:
    """The parameters of a GPT, in the order in which the book makes its layers."""
    made: list[nn.Module] = [nn.Embedding(vocabulary, channels), nn.Embedding(context, channels)]
    for _ in range(blocks):
        made += [nn.Linear(channels, channels, bias=bias) for _ in ("query", "key", "value")]
        made += [nn.Linear(channels, channels), nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)]
    made.append(nn.Linear(channels, vocabulary, bias=False))
    return [p.detach() for layer in made for p in layer.parameters()]


def digest(arrays: list[np.ndarray]) -> np.ndarray:
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).data)
    return np.frombuffer(total.digest(), np.uint8)


def draws(seed: int) -> Iterator[tuple[str, np.ndarray]]:
    for name, draw in DRAWS.items():
        torch.manual_seed(seed)
        yield f"{seed}/{name}", np.concatenate([draw(n).numpy() for n in SIZES])
        large = draw(LARGE).numpy()
        yield f"{seed}/{name}/large", large[::65537].copy()
        yield f"{seed}/{name}/sha256", digest([large])
    torch.manual_seed(seed)
    loader = DataLoader(Numbers(drawn=True), batch_size=1, num_workers=2)
    yield f"{seed}/workers", np.array([x.item() for x, _ in zip(loader, range(2), strict=False)], np.float32)
    torch.manual_seed(seed)
    loader = DataLoader(Numbers(drawn=False), batch_size=2, shuffle=True)
    order = [i for _ in range(2) for batch in loader for i in batch.tolist()]
    yield f"{seed}/loader", np.array([*order, torch.rand(()).item()], np.float64)
    for name, bias in (("model", False), ("model/biased", True)):
        torch.manual_seed(seed)
        yield f"{seed}/{name}", np.concatenate([p.numpy().reshape(-1) for p in layers(5, 3, 4, 1, bias)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=SHIPPED, help="file to write")
    parser.add_argument("--all", action="store_true", help="also build the book's GPT, which takes 1 GB and 10 seconds")
    args = parser.parse_args()
    torch.set_num_threads(1)
    arrays = {"made_by": np.array(f"scripts/{Path(__file__).name}, PyTorch {torch.__version__}")}
    for seed in SEEDS:
        arrays |= dict(draws(seed))
    if args.all:
        torch.manual_seed(123)
        arrays["gpt2/sha256"] = digest([p.numpy() for p in layers(50257, 1024, 768, 12, bias=False)])
    elif SHIPPED.is_file():
        with np.load(SHIPPED, allow_pickle=False) as file:
            arrays["gpt2/sha256"] = file["gpt2/sha256"]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    args.out.write_bytes(buffer.getvalue())
    print(f"{args.out}: {len(arrays)} arrays, {len(buffer.getvalue())} bytes")


if __name__ == "__main__":
    main()
