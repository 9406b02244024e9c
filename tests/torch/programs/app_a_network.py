"""Appendix A: a network of three layers, its training with SGD, its accuracy, and its file."""

import os
import tempfile

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset


class Network(torch.nn.Module):
    def __init__(self, num_inputs, num_outputs):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(num_inputs, 30),
            torch.nn.ReLU(),
            torch.nn.Linear(30, 20),
            torch.nn.ReLU(),
            torch.nn.Linear(20, num_outputs),
        )

    def forward(self, x):
        return self.layers(x)


torch.manual_seed(123)
model = Network(50, 3)
print(model)
print("Total number of trainable model parameters:", sum(p.numel() for p in model.parameters() if p.requires_grad))
print(model.layers[0].weight)
print(model.layers[0].weight.shape, model.layers[0].bias.shape)
torch.manual_seed(123)
x = torch.rand((1, 50))
print(model(x))
with torch.no_grad():
    print(model(x), torch.softmax(model(x), dim=1))

x_train = torch.tensor([[-1.2, 3.1], [-0.9, 2.9], [-0.5, 2.6], [2.3, -1.1], [2.7, -1.5]])
y_train = torch.tensor([0, 0, 0, 1, 1])


class Toy(Dataset):
    def __init__(self, x, y):
        self.features, self.labels = x, y

    def __getitem__(self, index):
        return self.features[index], self.labels[index]

    def __len__(self):
        return self.labels.shape[0]


torch.manual_seed(123)
loader = DataLoader(dataset=Toy(x_train, y_train), batch_size=2, shuffle=True, num_workers=0)
for i, (x, y) in enumerate(loader):
    print(f"Batch {i + 1}:", x, y)
loader = DataLoader(Toy(x_train, y_train), batch_size=2, shuffle=True, num_workers=0, drop_last=True)
torch.manual_seed(123)
model = Network(num_inputs=2, num_outputs=2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
for epoch in range(3):
    model.train()
    for i, (features, labels) in enumerate(loader):
        loss = F.cross_entropy(model(features), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"Epoch: {epoch + 1:03d}/003 | Batch {i:03d}/{len(loader):03d} | Loss: {loss:.4f}")
model.eval()
with torch.no_grad():
    outputs = model(x_train)
print(outputs)
torch.set_printoptions(sci_mode=False)
print(torch.softmax(outputs, dim=1))
predictions = torch.argmax(outputs, dim=1)
print(predictions, predictions == y_train, torch.sum(predictions == y_train))
with tempfile.TemporaryDirectory() as folder:
    torch.save(model.state_dict(), os.path.join(folder, "model.pth"))
    model = Network(2, 2)
    print(model.load_state_dict(torch.load(os.path.join(folder, "model.pth"), weights_only=True)))
print(model(x_train))
print(optimizer)
