import copy
from collections import OrderedDict

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(3, 4)
        self.drop = nn.Dropout(p=0.25)
        self.fc2 = nn.Linear(4, 2, bias=False)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("steps", torch.zeros(1))
        self.register_parameter("opt", None)

    def forward(self, x):
        self.steps += 1
        return self.fc2(self.drop(torch.relu(self.fc1(x)))) * self.scale

    def extra_repr(self):
        return "hello=1"


torch.manual_seed(3)
n = Net()
print(n)
print(n.state_dict())
print(n.fc1.in_features, n.fc1.out_features, n.fc2.bias)
print(
    [k for k, _ in n.named_parameters()],
    [k for k, _ in n.named_buffers()],
    [k for k, _ in n.named_children()],
    [k for k, _ in n.named_modules()],
)
x = torch.ones(2, 3)
print(n(x), n.steps)


def init(m):
    if isinstance(m, nn.Linear):
        nn.init.xavier_uniform_(m.weight)
        if m.bias is not None:
            nn.init.zeros_(m.bias)


n.apply(init)
print(n.fc1.weight, n.fc1.bias)
nn.init.normal_(n.fc2.weight, mean=0.0, std=0.02)
print(n.fc2.weight)
nn.init.ones_(n.fc1.bias)
nn.init.constant_(n.fc1.bias, 0.5)
nn.init.uniform_(n.fc1.weight, -0.1, 0.1)
nn.init.kaiming_normal_(n.fc1.weight)
nn.init.xavier_normal_(n.fc1.weight)
print(n.fc1.weight, n.fc1.bias)
h = n.fc1.register_forward_hook(lambda m, i, o: print("hook", m, i[0].shape, o.shape))
n(x)
h.remove()
n(x)
n.train()
print(n.training)
n.eval()
print(n.drop.training)
print(
    n.get_parameter("fc1.weight").shape,
    n.get_submodule("fc2"),
    hasattr(n, "fc1"),
    n.double().fc1.weight.dtype,
    n.float().fc1.weight.dtype,
)
md = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.ReLU()})
print(md, list(md.keys()), md["a"])
ml = nn.ModuleList([nn.Linear(1, 2)])
ml.append(nn.Linear(2, 3))
ml.extend([nn.ReLU()])
print(ml, len(ml), ml[-1])
sq = nn.Sequential()
sq.add_module("one", nn.Linear(1, 1))
sq.add_module("two", nn.Tanh())
print(sq, sq.one)

sq = nn.Sequential(OrderedDict([("l", nn.Linear(2, 2)), ("r", nn.ReLU())]))
print(sq, sq[0], len(sq), sq[:1], list(sq.state_dict()))
n.zero_grad()
print(n.fc1.weight.grad)
try:
    n.load_state_dict({"fc1.weight": torch.zeros(4, 3)})
except RuntimeError as e:
    print(e)
print(n.load_state_dict({"fc1.weight": torch.zeros(4, 3)}, strict=False))

m2 = copy.deepcopy(n)
m2.scale.data.fill_(5.0)
print(n.scale, m2.scale)
pl = nn.ParameterList([nn.Parameter(torch.ones(2))])
print(pl, nn.Flatten(), nn.Softmax(dim=-1), nn.Dropout(0.1), nn.Embedding(5, 3, padding_idx=0))
