"""Generation: ids → more ids, and the text that they spell.

loop.py       the loop: `stream` yields new ids one by one, `generate` returns them all
sampling.py   how the next id is chosen from the model's logits: temperature, top-k, top-p
cache.py      the key/value cache, which makes a new token cost one position
text.py       ids that become text while they are generated
"""

from tinygrad_llm.generation.cache import KVCache
from tinygrad_llm.generation.loop import LanguageModel, Prompt, generate, stream, window_start
from tinygrad_llm.generation.sampling import Sampling, next_token_probs
from tinygrad_llm.generation.text import Written, crop, start_ids, words_cropped, write, write_all

__all__ = [
    "KVCache", "LanguageModel", "Prompt", "Sampling", "Written", "crop", "generate", "next_token_probs",
    "start_ids", "stream", "window_start", "words_cropped", "write", "write_all",
]  # fmt: skip
