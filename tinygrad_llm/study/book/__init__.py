"""The book's numbers, fact by fact: Raschka 2024, "Build a Large Language Model (From Scratch)".

Each module holds the facts of one chapter: what the book prints, and a few lines of this package that compute it.
`tinygrad-llm book ch03` shows them side by side. `Generator(123)` draws what `torch.manual_seed(123)` draws, so the
digits agree to the last one printed.

    from tinygrad_llm.study.book import FACTS, check
    check(FACTS["ch03-12"]).status        # "pass"

The book's names, ours, and what differs:

    SimpleTokenizerV1, V2        tokenizer.SimpleTokenizerV1, V2     train() collects the vocabulary
    tiktoken.get_encoding        Tokenizer.gpt2()
    GPTDatasetV1                 datasets.SlidingWindows             takes ids, not a text
    create_dataloader_v1         datasets.DataLoader                 takes rng; no shuffling unless asked for
    SelfAttention_v2             nn.attention_steps.SelfAttention    takes rng
    CausalAttention              nn.attention_steps.CausalAttention  takes rng
    MultiHeadAttentionWrapper    nn.attention_steps.MultiHeadWrapper takes rng
    MultiHeadAttention           nn.MultiHeadAttention               Q, K, V in one layer; d_in = d_out = n_embd
    LayerNorm, GELU              nn.LayerNorm, nn.GELU
    FeedForward                  models.gpt.MLP                      has its dropout inside
    TransformerBlock             models.gpt.Block
    GPT_CONFIG_124M              ch04.book_config()                  GPTConfig(): tied head, QKV bias, no dropout
    GPTModel                     GPT                                 first weights N(0, 0.02²); None: PyTorch's
    generate_text_simple         GPT.generate(temperature=0)         keeps keys and values in a cache
    generate                     GPT.generate                        temperature 1, no top_k
    text_to_token_ids, …         Tokenizer.encode, decode
    calc_loss_batch              GPT.loss(ids, targets)
    calc_loss_loader             material.mean_loss
    train_model_simple           material.train                      training.train: clips, decays matrices alone
    load_weights_into_gpt        GPT.from_pretrained
    custom_collate_fn            finetuning.assistant.collate
    format_input                 finetuning.assistant.prompt_of      adds the heading of the answer
    replace_linear_with_lora     nn.lora.add_lora                    A is drawn once for Q, K and V together
    compute_dpo_loss             functional.dpo_loss
"""

from tinygrad_llm.study.book import appendix_a, appendix_d, appendix_e, ch02, ch03, ch04, ch05, ch06, ch07, dpo
from tinygrad_llm.study.book.ledger import FACTS, Fact, Result, check, compare

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

__all__ = ["CHAPTERS", "FACTS", "Fact", "Result", "check", "compare"]
