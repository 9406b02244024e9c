"""The GPT of chapter 4 in PyTorch's words; the programs next to this file use it."""

import torch
import torch.nn as nn


class Attention(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        size = cfg["emb_dim"]
        self.n_heads = cfg["n_heads"]
        self.W_query = nn.Linear(size, size, bias=cfg["qkv_bias"])
        self.W_key = nn.Linear(size, size, bias=cfg["qkv_bias"])
        self.W_value = nn.Linear(size, size, bias=cfg["qkv_bias"])
        self.out_proj = nn.Linear(size, size)
        self.dropout = nn.Dropout(cfg["drop_rate"])
        n = cfg["context_length"]
        self.register_buffer("mask", torch.triu(torch.ones(n, n), diagonal=1))

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (
            layer(x).view(b, t, self.n_heads, c // self.n_heads).transpose(1, 2)
            for layer in (self.W_query, self.W_key, self.W_value)
        )
        scores = q @ k.transpose(2, 3)
        scores.masked_fill_(self.mask.bool()[:t, :t], -torch.inf)
        weights = self.dropout(torch.softmax(scores / k.shape[-1] ** 0.5, dim=-1))
        return self.out_proj((weights @ v).transpose(1, 2).contiguous().view(b, t, c))


class LayerNorm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.eps = 1e-5
        self.scale = nn.Parameter(torch.ones(size))
        self.shift = nn.Parameter(torch.zeros(size))

    def forward(self, x):
        mean = x.mean(dim=-1, keepdim=True)
        var = x.var(dim=-1, keepdim=True, unbiased=False)
        return self.scale * ((x - mean) / torch.sqrt(var + self.eps)) + self.shift


class GELU(nn.Module):
    def forward(self, x):
        return 0.5 * x * (1 + torch.tanh(torch.sqrt(torch.tensor(2.0 / torch.pi)) * (x + 0.044715 * torch.pow(x, 3))))


class Block(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        size = cfg["emb_dim"]
        self.att = Attention(cfg)
        self.ff = nn.Sequential(nn.Linear(size, 4 * size), GELU(), nn.Linear(4 * size, size))
        self.norm1, self.norm2 = LayerNorm(size), LayerNorm(size)
        self.drop_shortcut = nn.Dropout(cfg["drop_rate"])

    def forward(self, x):
        x = x + self.drop_shortcut(self.att(self.norm1(x)))
        return x + self.drop_shortcut(self.ff(self.norm2(x)))


class GPT(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.tok_emb = nn.Embedding(cfg["vocab_size"], cfg["emb_dim"])
        self.pos_emb = nn.Embedding(cfg["context_length"], cfg["emb_dim"])
        self.drop_emb = nn.Dropout(cfg["drop_rate"])
        self.trf_blocks = nn.Sequential(*[Block(cfg) for _ in range(cfg["n_layers"])])
        self.final_norm = LayerNorm(cfg["emb_dim"])
        self.out_head = nn.Linear(cfg["emb_dim"], cfg["vocab_size"], bias=False)

    def forward(self, idx):
        _, length = idx.shape
        x = self.tok_emb(idx) + self.pos_emb(torch.arange(length, device=idx.device))
        return self.out_head(self.final_norm(self.trf_blocks(self.drop_emb(x))))


def config(**changes):
    cfg = {
        "vocab_size": 61,
        "context_length": 16,
        "emb_dim": 24,
        "n_heads": 3,
        "n_layers": 2,
        "drop_rate": 0.1,
        "qkv_bias": False,
    }
    return cfg | changes


def generate_simple(model, idx, new_tokens, context_size):
    for _ in range(new_tokens):
        with torch.no_grad():
            logits = model(idx[:, -context_size:])
        probas = torch.softmax(logits[:, -1, :], dim=-1)
        idx = torch.cat((idx, torch.argmax(probas, dim=-1, keepdim=True)), dim=1)
    return idx
