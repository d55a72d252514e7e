"""The pieces of code that the card shows; a test runs them as they are."""

SAFETENSORS = """\
import json
import numpy as np
from safetensors.numpy import load_file

rows = [json.loads(line) for line in open("{rows}")]
row = rows[0]                                                        # the label is row["task"]
folder = row["dataset"] + "/full/"
tensors = load_file(folder + row["shard"])                           # of up to 1,000 networks
state = {{name: tensor[row["row"]] for name, tensor in tensors.items()}}   # PyTorch's names and shapes
order = [name for name, _ in json.load(open(folder + "dataset.json"))["tensors"]]
vector = np.concatenate([state[name].ravel() for name in order])     # float32 [{parameters}]"""

NETWORK = """\
import json
import torch
from safetensors.torch import load_file
from torch import nn

torch.manual_seed(0)
row = json.loads(open("{rows}").readline())
folder = row["dataset"] + "/full/"
{build}
network.load_state_dict({{name: t[row["row"]] for name, t in load_file(folder + row["shard"]).items()}})

data = load_file(folder + "data/" + row["task"] + ".safetensors")
inputs, next_state, output = (data["table." + name].long() for name in ("inputs", "next_state", "output"))
symbols, state, right = torch.randint(len(inputs), (256, {steps})), torch.zeros(256).long(), []
for symbol in symbols.T:   # the output of a step follows its symbol
    right.append(output[state, symbol])
    state = next_state[state, symbol]
bits = lambda words, lines: words[..., None] >> torch.arange(lines) & 1   # bit i is line i
x = bits(inputs[symbols], {inputs}).float()
{apply}
agree = ((y > 0.5) == bits(torch.stack(right, 1), {outputs})).all(2).float().mean()
assert agree > 0.98"""

TINYMLDS = """\
import tinymlds

dataset = tinymlds.open(".", "{dataset}")   # the path of the package{subset}
W = dataset.weights("{task}", split="train")   # float32 [n, {parameters}], complete networks
rows = dataset.rows("{task}", split="train")   # rows that go with them
network = dataset["{task}", 0]
network.state_dict()   # PyTorch's names; tinymlds.torch.module(network) is a torch.nn.Module
y = network.forward([[[0.0] * {inputs}]])   # [B, T, {inputs}] -> [B, T, {outputs}]"""

TORCH = """\
import tinymlds
import torch

torch.manual_seed(0)
dataset = tinymlds.open(".", "{dataset}")
train, test = (tinymlds.torch.WeightDataset(dataset, split) for split in ("train", "test"))
model = torch.nn.Sequential(
    torch.nn.Linear({parameters}, 128), torch.nn.ReLU(), torch.nn.Linear(128, len(train.classes))
)
optimizer = torch.optim.Adam(model.parameters())
for epoch in range(5):
    for weights, task in torch.utils.data.DataLoader(train, batch_size=32, shuffle=True):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(weights), task).backward()
        optimizer.step()
right = model(test.weights).argmax(1) == test.labels
print(f"test accuracy {{right.float().mean():.2f}}, by chance {{1 / len(train.classes):.2f}}")"""

DATASETS = """\
import os
from datasets import load_dataset

rows = load_dataset(os.path.abspath("."), name="{scheme}")   # or the package's name on the Hub
rows["{side}"][0]["task"]"""
