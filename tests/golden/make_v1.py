"""Makes the model files of format version 1 that every later bitinfer must still read.

    python tests/golden/make_v1.py          writes v1/*.bin and v1/*.npz beside this file

The networks below are part of those files: change none of them, add others.  An .npz holds two
samples and what the oracle makes of them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from bitinfer import modelfile
from bitinfer.bits import pack
from bitinfer.graph import GraphBuilder
from bitinfer.model import Model, Preprocessing, Provenance
from graph_examples import Numbers
from harness import right_values

HERE = Path(__file__).parent / "v1"

Tensors = dict[str, NDArray[Any]]


def picture_network() -> Model:
    """Every node of version 1, on pictures; labels, preprocessing and provenance."""
    r = Numbers(11)
    b = GraphBuilder("picture network ±1", (11, 10, 3), input_name="picture")
    x = b.conv2d(b.input, r(16, 3, 2, 3), r(16), stride=(1, 2), padding=(1, 0, 2, 1), name="first")
    x = b.batch_norm(x, r(16), r(16) ** 2 + 0.25, r(16), r(16), epsilon=1e-4)
    x = b.max_pool2d(x, 3, (2, 1), padding=(1, 1, 0, 1))
    k = b.beta_map(x, kernel=3, padding=1)
    x = b.bconv2d(b.sign(x), r(70, 3, 3, 16), alpha=r(70), bias=r(70), beta=k, padding=1)
    x = b.batch_norm(x, r(70), r(70) ** 2 + 0.25)
    s = b.max_pool2d(b.sign(x), 2, padding=(0, 1, 1, 0))
    x = b.bconv2d(s, r(12, 2, 2, 35), stride=2, padding=1, groups=2, pad_value=1, alpha=r(12))
    x = b.avg_pool2d(x, (2, 1), 1, padding=(1, 0, 0, 0), count_include_pad=False)
    k = b.beta_map(x, kernel=(1, 2), dilation=(1, 2), padding=(0, 0, 1, 1), groups=3)
    x = b.bconv2d(
        b.sign(x),
        r(6, 1, 2, 4),
        beta=k,
        dilation=(1, 2),
        padding=(0, 0, 1, 1),
        groups=3,
        pad_value=-1,
        bias=r(6),
    )
    x = b.avg_pool2d(x, 2, 1, padding=(1, 0, 0, 1))
    s = b.flatten(b.sign(x), "channels_first")
    y = b.flatten(b.relu(x), "channels_last")
    length = x_length(b, y)
    z = b.bdense(s, r(65, length), alpha=r(65), bias=r(65))
    z = b.dense(z, r(5, 65) / 16, r(5))
    y = b.dense(y, r(5, length), name="second output")
    labels = ("cat", "dog", "Übermut", "日本語", 'quote " and \\ and \n')
    return Model(
        *b.build(b.softmax(z), y),
        labels=labels,
        preprocessing=Preprocessing(
            color="rgb",
            mean=(0.5, 0.25, 0.125),
            std=(0.25, 0.5, 1.0),
            scale=1 / 255,
            resize=16,
            crop=(11, 10),
            interpolation="bicubic",
        ),
        provenance=Provenance(
            importer="tests/golden/make_v1.py",
            source="nothing",
            source_sha256="0" * 64,
            versions={"bitinfer": "0.1.0", "another": "1"},
            notes=("made of pseudo-random numbers",),
        ),
    )


def vector_network() -> Model:
    """A network of vectors, without labels and the rest."""
    r = Numbers(12)
    b = GraphBuilder("vector network", (100,))
    x = b.bdense(b.sign(b.input), r(66, 100), beta=b.beta_map(b.input), alpha=r(66))
    x = b.bdense(b.sign(b.dense(x, r(33, 66), r(33))), r(3, 33), bias=r(3))
    return Model(*b.build(x))


def residual_network() -> Model:
    """The nodes of residual, gated and shuffled networks, and weights of every type."""
    r = Numbers(13)
    b = GraphBuilder("residual network", (8, 7, 6))
    x = b.conv2d(b.quantize(b.input, 1 / 32), integers(r, 12, 3, 3, 3), groups=2, alpha=r(12) / 64)
    x = b.rprelu(x, r(12), r(12), r(12))
    y = b.conv2d(b.input, pack(r(12, 3, 3, 6)), r(12), name="signs as weights")
    y = b.clip(b.add(x, b.prelu(y, r(12))), -3.5, 2.25)
    gate = b.sigmoid(b.dense(b.global_pool2d(y), integers(r, 12, 12), r(12), alpha=r(12) / 64))
    z = b.concat(b.multiply(y, gate), y, b.add(x, b.global_pool2d(x, "max")))
    z = b.shuffle_channels(b.slice_channels(z, 0, 32), 4)
    s = b.pad2d(b.sign(b.pad2d(z, (0, 1, 2, 0), 0.75), threshold=r(32)), (1, 0, 1, 1), -1)
    s = b.max_pool2d(s, 2, 1, name="pool")
    x = b.bconv2d(s, r(10, 2, 3, 32), alpha=r(10) / 16, stride=2)
    x = b.dense(b.flatten(b.reshape(x, (2, 5, 9)), "channels_first"), r(4, 90) / 16)
    graph, tensors = b.build(b.softmax(x), z)
    nodes = [
        replace(node, minimum="pool.minimum") if node.name == "pool" else node
        for node in graph.nodes
    ]
    flags = (r(32) > 0).astype(np.uint8)
    return Model(replace(graph, nodes=tuple(nodes)), {**tensors, "pool.minimum": flags})


def integer_network() -> Model:
    """A network of pixels as they are."""
    r = Numbers(14)
    b = GraphBuilder("integer network", (7, 8, 3), input_kind="uint8")
    wide = (r(5, 3, 3, 3) * 999).astype(np.int16)
    x = b.conv2d(
        b.input, wide, r(5), alpha=r(5) / 1024, offset=[127.5, 3.25, 0], padding=1, name="first"
    )
    s = b.sign(b.input, threshold=[127.5, 64, 200], name="pixels to signs")
    y = b.bconv2d(s, r(5, 3, 3, 3), padding=1, pad_value=1)
    y = b.add(y, b.conv2d(b.input, pack(r(5, 1, 1, 3)), alpha=r(5) / 256))
    graph, tensors = b.build(b.global_pool2d(b.add(x, y)), y)
    nodes = [
        replace(node, flip="flip") if node.name == "pixels to signs" else node
        for node in graph.nodes
    ]
    flip = np.array([0, 1, 1], np.uint8)
    return Model(replace(graph, nodes=tuple(nodes)), {**tensors, "flip": flip})


def integers(r: Numbers, *shape: int) -> NDArray[Any]:
    """Return int8 from -128 to 127."""
    return (r(*shape) * 64).astype(np.int8)


def x_length(b: GraphBuilder, name: str) -> int:
    """Return the length of a vector."""
    return Model(*b.build(name)).checked.values[name].shape[0]


MODELS = {
    "picture-network": picture_network,
    "vector-network": vector_network,
    "residual-network": residual_network,
    "integer-network": integer_network,
}


def main() -> None:
    """Write all files."""
    HERE.mkdir(exist_ok=True)
    for number, (name, make) in enumerate(MODELS.items()):
        model = make()
        (HERE / f"{name}.bin").write_bytes(modelfile.to_bytes(model))
        x = Numbers(100 + number)(2, *model.graph.input.shape).astype(np.float32)
        if model.graph.input.kind == "uint8":
            x = (x * 64 + 128).astype(np.uint8)
        samples = [right_values(model.graph, model.tensors, sample) for sample in x]
        outputs = {
            output: np.stack([values[output] for values, _ in samples])
            for output in model.graph.outputs
        }
        np.savez_compressed(HERE / f"{name}.npz", x=x, **outputs)
        print(name, "smallest magnitude before a sign:", min(smallest for _, smallest in samples))


if __name__ == "__main__":
    main()
