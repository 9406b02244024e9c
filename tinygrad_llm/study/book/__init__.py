"""The book's numbers, fact by fact: Raschka 2024, "Build a Large Language Model (From Scratch)".

Each module holds the facts of one chapter: what the book prints, and a few lines of this package that compute it.
`tinygrad-llm book ch03` shows them side by side. `Generator(123)` draws what `torch.manual_seed(123)` draws, so the
digits agree to the last one printed.

    from tinygrad_llm.study.book import FACTS, check
    check(FACTS["ch03-12"]).status        # "pass"

The lessons in `scripts/book` go through the chapters. `NAMES` has the book's names beside ours.
"""

from tinygrad_llm.study.book import appendix_a, appendix_d, appendix_e, ch02, ch03, ch04, ch05, ch06, ch07, dpo
from tinygrad_llm.study.book.ledger import FACTS, Fact, Result, check, compare

# The book's name, ours inside `tinygrad_llm`, and what differs. `tinygrad-llm book --names` prints them.
NAMES = [
    ("SimpleTokenizerV1", "tokenizer.SimpleTokenizerV1", "train(text) collects the vocabulary"),
    ("SimpleTokenizerV2", "tokenizer.SimpleTokenizerV2", "train(text) collects the vocabulary"),
    ("tiktoken.get_encoding", "Tokenizer.gpt2", ""),
    ("text_to_token_ids", "Tokenizer.encode", "gives a list, without a batch"),
    ("token_ids_to_text", "Tokenizer.decode", ""),
    ("GPTDatasetV1", "datasets.SlidingWindows", "takes ids, not a text"),
    ("create_dataloader_v1", "datasets.DataLoader", "takes rng; shuffles and drops nothing unless asked to"),
    ("SelfAttention_v2", "nn.attention_steps.SelfAttention", "takes rng"),
    ("CausalAttention", "nn.attention_steps.CausalAttention", "takes rng"),
    ("MultiHeadAttentionWrapper", "nn.attention_steps.MultiHeadWrapper", "takes rng"),
    ("MultiHeadAttention", "nn.MultiHeadAttention", "n_embd is d_out; d_in=None: the same; one layer for Q, K and V"),
    ("LayerNorm", "nn.LayerNorm", ""),
    ("GELU", "nn.GELU", ""),
    ("FeedForward", "models.gpt.MLP", "has its dropout inside"),
    ("TransformerBlock", "models.gpt.Block", ""),
    ("GPT_CONFIG_124M", "study.book.ch04.book_config", "GPTConfig() is GPT-2: tied head, QKV bias, no dropout"),
    ("GPTModel", "GPT", "first weights N(0, 0.02²); initializer_range=None: PyTorch's"),
    ("generate_text_simple", "GPT.generate", "temperature=0; keeps keys and values in a cache"),
    ("generate", "GPT.generate", "temperature 1 and no top_k unless given; rng=None: seed 0"),
    ("calc_loss_batch", "GPT.loss", "of ids and targets; never makes all logits"),
    ("calc_loss_loader", "study.book.material.mean_loss", ""),
    ("evaluate_model", "study.book.material.mean_loss", "of each loader"),
    ("train_model_simple", "study.book.material.train", "training.train clips gradients, and decays matrices alone"),
    ("load_weights_into_gpt", "GPT.from_pretrained", ""),
    ("SpamDataset", "study.book.ch06.Texts", "models.GPTClassifier reads the last token, not padding"),
    ("calc_accuracy_loader", "study.book.ch06.accuracy", "in percent"),
    ("classify_review", "finetuning.classifier.classify", "gives probabilities"),
    ("format_input", "finetuning.assistant.prompt_of", "adds the heading of the answer"),
    ("custom_collate_fn", "finetuning.assistant.collate", ""),
    ("LoRALayer", "nn.lora.LoRALinear", "A starts within 1/√in, the book's within 1/√rank"),
    ("replace_linear_with_lora", "nn.lora.add_lora", "study.book.appendix_e has the book's first weights"),
    ("compute_dpo_loss", "functional.dpo_loss", ""),
]

CHAPTERS = {
    "ch02": ch02,
    "ch03": ch03,
    "ch04": ch04,
    "ch05": ch05,
    "ch06": ch06,
    "ch07": ch07,
    "apA": appendix_a,
    "apD": appendix_d,
    "apE": appendix_e,
    "dpo": dpo,
}

__all__ = ["CHAPTERS", "FACTS", "NAMES", "Fact", "Result", "check", "compare"]
