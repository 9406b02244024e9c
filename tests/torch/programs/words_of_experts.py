import torch
import torch.nn as nn

torch.manual_seed(123)


class GQA(nn.Module):
    def __init__(self, d, h, kv):
        super().__init__()
        self.h, self.kv, self.hd = h, kv, d // h
        self.q = nn.Linear(d, d, bias=False)
        self.k = nn.Linear(d, kv * self.hd, bias=False)
        self.v = nn.Linear(d, kv * self.hd, bias=False)
        self.o = nn.Linear(d, d, bias=False)

    def forward(self, x):
        b, t, _ = x.shape
        q = self.q(x).view(b, t, self.h, self.hd).transpose(1, 2)
        k = self.k(x).view(b, t, self.kv, self.hd).transpose(1, 2)
        v = self.v(x).view(b, t, self.kv, self.hd).transpose(1, 2)
        k = k.repeat_interleave(self.h // self.kv, dim=1)
        v = v.repeat_interleave(self.h // self.kv, dim=1)
        m = torch.triu(torch.ones(t, t, dtype=torch.bool), diagonal=1)
        s = (q @ k.transpose(-2, -1)).masked_fill(m, -torch.inf) / self.hd**0.5
        return self.o((torch.softmax(s, -1) @ v).transpose(1, 2).reshape(b, t, -1))


x = torch.randn(2, 4, 8)
g = GQA(8, 4, 2)
print(g(x))
g(x).mean().backward()
print(g.k.weight.grad)


class MoE(nn.Module):
    def __init__(self, d, n, k):
        super().__init__()
        self.gate = nn.Linear(d, n, bias=False)
        self.ex = nn.ModuleList([nn.Linear(d, d) for _ in range(n)])
        self.k = k

    def forward(self, x):
        b, t, d = x.shape
        s, i = torch.topk(self.gate(x), self.k, dim=-1)
        p = torch.softmax(s, dim=-1)
        f = x.reshape(b * t, -1)
        out = torch.zeros(b * t, d, device=x.device, dtype=x.dtype)
        i, p = i.reshape(-1, self.k), p.reshape(-1, self.k)
        for e in torch.unique(i):
            e = int(e.item())
            mask = i == e
            tok = mask.any(dim=-1)
            sel = tok.nonzero(as_tuple=False).squeeze(-1)
            if sel.numel() == 0:
                continue
            o = self.ex[e](f.index_select(0, sel))
            sl = mask[sel].int().argmax(dim=-1, keepdim=True)
            pr = torch.gather(p.index_select(0, sel), dim=-1, index=sl).squeeze(-1)
            out.index_add_(0, sel, o * pr.unsqueeze(-1))
        return out.reshape(b, t, d)


m = MoE(8, 4, 2)
y = m(x)
print(y)
y.sum().backward()
print(m.gate.weight.grad, [e.weight.grad is not None for e in m.ex])
