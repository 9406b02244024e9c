"""tinygrad_llm: a large language model built from scratch, in NumPy.

    from tinygrad_llm import GPT, Generator, GPTConfig, Tokenizer, optim

    tokenizer = Tokenizer.gpt2()
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=16), rng=Generator(123))
    ids = tokenizer.encode("Every effort moves you one step closer")
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(3):
        optimizer.zero_grad()
        loss = model.loss([ids[:-1]], [ids[1:]])
        loss.backward()
        optimizer.step()
    print(tokenizer.decode(model.generate(ids[:4], max_new_tokens=5, temperature=0)))

`Generator(123)` draws the numbers that PyTorch draws on the CPU after `torch.manual_seed(123)`, so an example in
PyTorch can be followed number by number. `GPT.from_pretrained` reads models of OpenAI, Hugging Face and this package.

Environment variables:

    TINYGRAD_LLM_CACHE        the folder for downloads, in which names such as `gpt2` are looked up
    TINYGRAD_LLM_OPENAI_URL   a mirror of OpenAI's releases
    HF_ENDPOINT               a mirror of Hugging Face's model hub
    TINYGRAD_LLM_TUNING       0 leaves BLAS and the memory allocator as they are (see `runtime`)

Optional packages: `pip install 'tinygrad_llm[app]'` adds progress bars (tqdm), pictures (matplotlib) and threadpoolctl,
which knows BLAS libraries other than OpenBLAS. `tinygrad_llm[mpi]` adds training by several processes. README shows the
order in which to read the package.
"""

from tinygrad_llm import runtime  # first, because it chooses BLAS kernels, which must precede NumPy

runtime.prepare()

from tinygrad_llm import functional, nn, optim  # noqa: E402
from tinygrad_llm.autograd import AnomalyError, Tensor, detect_anomaly, grad, no_grad  # noqa: E402
from tinygrad_llm.models import GPT, GPTConfig  # noqa: E402
from tinygrad_llm.random import Generator  # noqa: E402
from tinygrad_llm.tokenizer import Tokenizer  # noqa: E402

__version__ = "0.1.0"

__all__ = [
    "GPT", "AnomalyError", "GPTConfig", "Generator", "Tensor", "Tokenizer", "detect_anomaly", "functional",
    "grad", "nn", "no_grad", "optim",
]  # fmt: skip
