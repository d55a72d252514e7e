"""The pieces of code that the card shows; a test runs them."""

SAFETENSORS = """\
import json
import numpy as np
from safetensors.numpy import load_file

rows = [json.loads(line) for line in open("splits/by_index/train.jsonl")]
row = rows[0]                                                        # the label is row["task"]
folder = row["dataset"] + "/full/"
tensors = load_file(folder + row["shard"])                           # of up to 1,000 networks
state = {{name: tensor[row["row"]] for name, tensor in tensors.items()}}   # PyTorch's names and shapes
order = [name for name, _ in json.load(open(folder + "dataset.json"))["tensors"]]
vector = np.concatenate([state[name].ravel() for name in order])     # float32 [{parameters}]"""

TINYMLDS = """\
import tinymlds

dataset = tinymlds.open(".", "{dataset}")   # the path of the package{subset}
W = dataset.weights("{task}", split="train")   # float32 [n, {parameters}], complete networks
rows = dataset.rows("{task}", split="train")   # rows that go with them
network = dataset["{task}", 0]
network.state_dict()   # PyTorch's names
y = network.forward([[[0.0] * {inputs}]])   # [B, T, {inputs}] -> [B, T, {outputs}]"""

TORCH = """\
import tinymlds
import torch

dataset = tinymlds.open(".", "{dataset}")
train = tinymlds.torch.WeightDataset(dataset, split="train")
model = torch.nn.Sequential(
    torch.nn.Linear({parameters}, 128), torch.nn.ReLU(), torch.nn.Linear(128, len(train.classes))
)
optimizer = torch.optim.Adam(model.parameters())
for epoch in range(5):
    for weights, task in torch.utils.data.DataLoader(train, batch_size=32, shuffle=True):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(weights), task).backward()
        optimizer.step()"""

DATASETS = """\
from datasets import load_dataset

rows = load_dataset(".", name="by_index")   # the path of the package, or its name on the Hub
rows["train"][0]["task"]"""
