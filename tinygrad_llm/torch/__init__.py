"""PyTorch's words on this package's engine, as far as the book and its notebooks use them.

    import tinygrad_llm.torch as torch

    torch.manual_seed(123)
    layer = torch.nn.Linear(3, 2)
    print(layer(torch.rand(4, 3)))

prints what PyTorch prints on a CPU, digit by digit. `python -m tinygrad_llm.torch FILE.py` (or FILE.ipynb) runs a file
whose `import torch` means this package. The classes are thin: `x.ours` is the `tinygrad_llm.Tensor` that does the work.

Some things differ. Tensors are on the CPU. A recorded change in place, such as `masked_fill_`, does not reach other
views of the same memory. `torch.save` writes safetensors, and `torch.load` refuses pickles. The last digit that is
printed may be another one, since libraries add and round in another order; of equal elements, `topk` and `sort` take
the first. What is missing raises an error that names the nearest thing.

The names that the book uses; after "not:" those that are missing here:

    torch: Tensor abs all allclose any arange argmax argmin argsort as_tensor backends bincount bool bmm cat chunk
        clamp concat cos cuda cumsum device dot dtype einsum empty empty_like equal exp eye flatten float float16
        float32 float64 from_numpy full full_like gather Generator inf inference_mode initial_seed int int32 int64
        is_tensor isfinite isinf isnan linspace load log log_softmax long manual_seed masked_fill matmul max maximum
        mean min mps multinomial nan nn no_grad nonzero norm normal numel ones ones_like optim outer permute pow rand
        rand_like randint randn randn_like randperm repeat_interleave reshape round rsqrt save seed set_grad_enabled
        set_printoptions sigmoid sin Size softmax sort split sqrt squeeze stack std sum tanh tensor topk transpose
        tril triu uint8 unique unsqueeze utils var where xpu zeros zeros_like __version__
        not: bfloat16 compile distributed float8_e4m3fn multiprocessing polar profiler
    torch.Tensor: T abs all any argmax backward bool chunk clone contiguous copy_ cpu cuda data detach device dim
        dtype expand fill_ flatten float gather grad grad_fn half is_contiguous is_leaf item long masked_fill
        masked_fill_ max mean min mT multinomial ndim nelement norm numel numpy permute pow repeat repeat_interleave
        register_hook requires_grad requires_grad_ reshape shape size softmax split sqrt squeeze std stride sum t to
        tolist topk transpose tril triu type unsqueeze var view zero_
        not: bfloat16
    torch.nn: BCELoss CrossEntropyLoss Dropout Embedding Flatten GELU Identity LayerNorm Linear Module ModuleDict
        ModuleList MSELoss MultiheadAttention Parameter ParameterList ReLU RMSNorm Sequential Sigmoid SiLU Softmax
        Tanh functional init utils
        not: Conv1d Transformer attention parallel
    torch.nn.Module: add_module apply buffers children eval forward load_state_dict modules named_buffers
        named_children named_modules named_parameters parameters register_buffer register_forward_hook
        register_parameter requires_grad_ state_dict to train training zero_grad
    torch.nn.functional: binary_cross_entropy binary_cross_entropy_with_logits cross_entropy dropout embedding gelu
        layer_norm linear log_softmax logsigmoid mse_loss nll_loss one_hot pad relu rms_norm
        scaled_dot_product_attention sigmoid silu softmax softplus tanh
    torch.nn.init: kaiming_normal_ kaiming_uniform_ normal_ ones_ uniform_ xavier_normal_ xavier_uniform_ zeros_
    torch.nn.utils: clip_grad_norm_ clip_grad_value_
    torch.optim: Adam AdamW Optimizer SGD lr_scheduler
        not: RMSprop
    torch.utils.data: BatchSampler ConcatDataset DataLoader Dataset IterableDataset RandomSampler SequentialSampler
        Subset TensorDataset WeightedRandomSampler default_collate random_split
        not: distributed
    torch.autograd: backward detect_anomaly enable_grad grad no_grad set_grad_enabled
        not: Function functional
    torch.cuda: device_count empty_cache is_available manual_seed synchronize
        not: get_device_capability max_memory_allocated memory_allocated reset_peak_memory_stats
    torch.backends: cudnn mps
    tiktoken: Encoding encoding_for_model get_encoding
"""

import math as _math

from tinygrad_llm.torch import autograd, backends, cuda, linalg, nn, optim, random, testing, utils
from tinygrad_llm.torch.autograd import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from tinygrad_llm.torch.dtypes import (
    Size,
    complex64,
    complex128,
    device,
    dtype,
    finfo,
    float16,
    float32,
    float64,
    iinfo,
    int8,
    int16,
    int32,
    int64,
    uint8,
)
from tinygrad_llm.torch.dtypes import bool_ as bool
from tinygrad_llm.torch.dtypes import float16 as half
from tinygrad_llm.torch.dtypes import float32 as float
from tinygrad_llm.torch.dtypes import float64 as double
from tinygrad_llm.torch.dtypes import int16 as short
from tinygrad_llm.torch.dtypes import int32 as int
from tinygrad_llm.torch.dtypes import int64 as long
from tinygrad_llm.torch.functions import METHODS as _METHODS
from tinygrad_llm.torch.functions import (
    BoolTensor,
    FloatTensor,
    IntTensor,
    LongTensor,
    arange,
    as_tensor,
    asarray,
    autocast,
    bernoulli,
    cat,
    concat,
    concatenate,
    einsum,
    empty,
    empty_like,
    eye,
    from_numpy,
    full,
    full_like,
    get_default_dtype,
    get_num_threads,
    get_rng_state,
    hstack,
    initial_seed,
    is_floating_point,
    is_tensor,
    linspace,
    logspace,
    manual_seed,
    matmul,
    meshgrid,
    normal,
    numel,
    ones,
    ones_like,
    outer,
    promote_types,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
    result_type,
    scalar_tensor,
    seed,
    set_float32_matmul_precision,
    set_num_threads,
    set_rng_state,
    stack,
    tensor,
    tensordot,
    tril_indices,
    triu_indices,
    use_deterministic_algorithms,
    vstack,
    where,
    zeros,
    zeros_like,
)
from tinygrad_llm.torch.generator import Generator, default_generator
from tinygrad_llm.torch.missing import lookup as _lookup
from tinygrad_llm.torch.nn.functional import cosine_similarity, dropout, embedding, layer_norm, rms_norm
from tinygrad_llm.torch.printing import set_printoptions
from tinygrad_llm.torch.serialization import load, save
from tinygrad_llm.torch.tensor import Tensor

mps = xpu = cuda
inf, nan, pi, e = _math.inf, _math.nan, _math.pi, _math.e
__version__ = "2.13.0+tinygrad.llm"  # the PyTorch whose words and numbers these are

__all__ = [
    "BoolTensor", "FloatTensor", "Generator", "IntTensor", "LongTensor", "Size", "Tensor", "arange",
    "as_tensor", "asarray", "autocast", "autograd", "backends", "bernoulli", "bool", "cat", "complex64",
    "complex128", "concat", "concatenate", "cosine_similarity", "cuda", "default_generator", "device", "double",
    "dropout", "dtype", "e", "einsum", "embedding", "empty", "empty_like", "enable_grad", "eye", "finfo",
    "float", "float16", "float32", "float64", "from_numpy", "full", "full_like", "get_default_dtype",
    "get_num_threads", "get_rng_state", "half", "hstack", "iinfo", "inf", "inference_mode", "initial_seed",
    "int", "int8", "int16", "int32", "int64", "is_floating_point", "is_grad_enabled", "is_tensor", "layer_norm",
    "linalg", "linspace", "load", "logspace", "long", "manual_seed", "matmul", "meshgrid", "mps", "nan", "nn",
    "no_grad", "normal", "numel", "ones", "ones_like", "optim", "outer", "pi", "promote_types", "rand",
    "rand_like", "randint", "randint_like", "randn", "randn_like", "random", "randperm", "result_type",
    "rms_norm", "save", "scalar_tensor", "seed", "set_float32_matmul_precision", "set_grad_enabled",
    "set_num_threads", "set_printoptions", "set_rng_state", "short", "stack", "tensor", "tensordot", "testing",
    "tril_indices", "triu_indices", "uint8", "use_deterministic_algorithms", "utils", "vstack", "where", "xpu",
    "zeros", "zeros_like",
]  # fmt: skip
__all__ += sorted(_METHODS)
globals().update(_METHODS)
__getattr__ = _lookup("torch", lambda: __all__)
