"""The dataset that most tests of the report look at, and what is on a page."""

import base64
import json
import re

import numpy as np
from forging import TINY

import tinymlds


def train_five(folder):
    """Five machines, three networks each, all complete, with checkpoints."""
    tinymlds.train(dataset="ds1", count=3, out=folder, workers=1, checkpoints=(0, 1), **(TINY | {"threshold": 10.0}))
    return folder


def page_data(path):
    """The page as text, and the JSON in it."""
    text = path.read_text("utf-8")
    return text, json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def array(spec):
    """A typed array of Plotly's as floats."""
    values = np.frombuffer(base64.b64decode(spec["bdata"]), spec["dtype"])
    return values.reshape([int(size) for size in spec["shape"].split(",")]) if "shape" in spec else values
