"""``bitinfer convert``: makes a model file from a checkpoint of another framework."""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitinfer.cli._common import (
    add_ground,
    add_quiet,
    file_sha256,
    positive,
)
from bitinfer.cli._integer_ends import add_integer_ends, with_integer_ends
from bitinfer.cli._terminal import busy, note, printable, table
from bitinfer.cli.inspect import preprocessing

if TYPE_CHECKING:
    from bitinfer.importers.options import Options
    from bitinfer.importers.outcome import Conversion
    from bitinfer.model import Model

ARCHITECTURES = (
    "xnor-lenet5",
    "xnor-nin",
    "xnor-alexnet",
    "bitres8",
    "bitres11",
    "bitres20",
    "bnn-vgg-small",
)
"""Those of the zoo that state dicts can be read for; here by name, to import nothing."""


_OF_MODEL_FILES = frozenset(
    ("source", "output", "integer_ends", "pictures", "limit", "quiet", "traceback", "run")
)
"""What may be said of a model file; all else describes another framework's."""


def add_parser(subparsers: Any) -> None:
    """Register the command and its arguments."""
    parser = subparsers.add_parser(
        "convert",
        help="make a model file from another framework's file",
        description="Make a model file from a file of another framework. What it is is found from "
        "its content: ONNX and QONNX, Keras and Larq, Larq Compute Engine (.tflite), darknet, "
        "MXNet and BMXNet, BNN-PYNQ, and state dicts of known networks (.pth, .safetensors). "
        "Nothing in the file is executed. Labels and preprocessing become part of the model; "
        "architectures of checkpoints have their own, which the options replace. A model file is "
        "taken too, to give it --integer-ends.",
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="file to convert")
    parser.add_argument(
        "--arch",
        choices=ARCHITECTURES,
        help="the network that the weights belong to, where their names do not tell",
    )
    add_source_options(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="model file to write"
    )
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="names of the classes, one per line"
    )
    parser.add_argument(
        "--mean",
        type=_numbers,
        metavar="A[,B,C]",
        help="x = (pixel * scale - mean) / std, per channel or one for all",
    )
    parser.add_argument("--std", type=_divisors, metavar="A[,B,C]", help="see --mean")
    parser.add_argument("--scale", type=_number, metavar="X", help="see --mean (default: 1/255)")
    parser.add_argument(
        "--mean-image",
        type=Path,
        metavar="FILE",
        help="instead of --mean, a mean of each pixel, 0 to 255, in the order of the colours: .npy "
        "or Caffe's .binaryproto; x = (pixel - image) * scale / std",
    )
    parser.add_argument(
        "--color",
        choices=("rgb", "bgr", "grey"),
        help="colours that the network takes, in this order (Caffe and OpenCV: bgr)",
    )
    parser.add_argument(
        "--resize", type=_size, metavar="N|HxW", help="size of the picture, or of its shorter side"
    )
    parser.add_argument("--crop", type=_pair, metavar="HxW", help="centre that the network sees")
    parser.add_argument(
        "--interpolation",
        choices=("nearest", "box", "bilinear", "bicubic", "lanczos"),
        help="how pictures are resized, as Pillow names it",
    )
    add_ground(parser)
    add_integer_ends(parser)
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="use only the first N of --pictures"
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="write nothing if a layer stays float although its input or its weights are binary",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare with the source on random inputs, as 'bitinfer verify' does, and write "
        "nothing if they differ",
    )
    add_quiet(parser)
    parser.set_defaults(run=run)


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Add what a file of another framework may need besides itself."""
    parser.add_argument(
        "--network",
        type=Path,
        metavar="FILE",
        help="what describes the network, where SOURCE holds its weights alone: Keras's JSON, "
        "darknet's .cfg, MXNet's symbol.json",
    )
    parser.add_argument(
        "--input-shape",
        type=_shape,
        metavar="HxWxC|C",
        help="size of the input, where the files do not say it: MXNet's",
    )
    parser.add_argument(
        "--bit-path",
        action="store_true",
        help="read binary layers as darknet's path of bits computes them, which pads with -1 "
        "where its float path pads with 0",
    )
    parser.add_argument(
        "--weights",
        metavar="NAME",
        help="which set of weights is meant, where SOURCE holds several, such as an averaged one",
    )
    parser.add_argument(
        "--swap-hw",
        action="store_true",
        help="exchange height and width, for a network trained on transposed pictures",
    )


def source_options(args: argparse.Namespace) -> Options:
    """Return what :func:`add_source_options` has read."""
    from bitinfer.importers.options import Options, read_network

    return Options(
        network=None if args.network is None else read_network(args.network),
        input_shape=args.input_shape,
        bit_path=args.bit_path,
        weights=args.weights,
        swap_hw=args.swap_hw,
    )


def run(args: argparse.Namespace) -> int:
    """Convert, and say on stderr what became of every layer; returns the exit code."""
    from bitinfer import files, labels, modelfile
    from bitinfer.errors import ShapeError, UsageError
    from bitinfer.importers.convert import convert

    if args.pictures is not None and args.integer_ends is None:
        raise UsageError("--pictures wants --integer-ends, whose effect it shows")
    if args.limit is not None and args.pictures is None:
        raise UsageError("--limit wants --pictures, of which it takes the first")
    if args.mean is not None and args.mean_image is not None:
        raise UsageError("--mean and --mean-image do not go together")
    inputs = (args.source, args.labels, args.mean_image, args.pictures, args.network)
    files.check_outputs({"--output": args.output}, inputs)
    if args.integer_ends is not None and _is_model_file(args.source):
        return _change_ends(args)
    named = None if args.labels is None else labels.read(args.labels)
    if named is not None and named.remark and not args.quiet:
        note(named.remark)
    options = dataclasses.replace(
        source_options(args),
        swap_hw=args.swap_hw,
        weights=args.weights,
        labels=None if named is None else named.names,
        labels_from="labels" if named is None else named.path,
        mean=args.mean,
        std=args.std,
        scale=args.scale,
        resize=args.resize,
        crop=args.crop,
        color=args.color,
        interpolation=args.interpolation,
        ground=args.ground,
        invert=args.invert,
    )
    try:
        with busy(f"converting {args.source}", quiet=args.quiet):
            model, became = convert(args.source, args.arch, options)
        if args.mean_image is not None:
            model = _with_mean_image(model, args.mean_image)
        if args.strict:
            _refuse_half_binary(became)
        remarks: list[str] = []
        failed = 0
        if args.verify:
            remarks += _verified(model, args, options)
        if args.integer_ends is not None:
            model, said, failed = with_integer_ends(model, args)
            remarks += said
        modelfile.save(model, args.output)
    except ShapeError as error:  # what the file holds would be a CheckpointError
        raise UsageError(f"the options do not fit the network: {error}") from error
    if not args.quiet:
        for line in [*_describe(became), *remarks]:
            print(printable(line), file=sys.stderr)
        print(f"pictures: {preprocessing(model.preprocessing)}", file=sys.stderr)
        written = args.output.stat().st_size
        note(
            f"wrote {args.output}: {written:,} bytes, "
            f"{became.float_bytes / written:.1f} times smaller than float32 "
            f"({became.float_bytes:,} bytes), sha256 {file_sha256(args.output)}"
        )
    return 5 if failed else 0


def _is_model_file(path: Path) -> bool:
    from bitinfer.importers.detect import is_model_file

    try:
        with path.open("rb") as file:
            return is_model_file(file.read(64))
    except OSError:
        return False  # what reads it next says what is wrong with it


def _change_ends(args: argparse.Namespace) -> int:
    """Give a model file integer ends; returns the exit code."""
    from bitinfer import modelfile
    from bitinfer.errors import UsageError

    given = [
        option
        for option, value in vars(args).items()
        if option not in _OF_MODEL_FILES and value is not None and value is not False
    ]
    if given:
        option = given[0].replace("_", "-")
        raise UsageError(
            f"{args.source} is a model file, of which only the ends can be changed: leave out "
            f"--{option}"
        )
    model, said, failed = with_integer_ends(modelfile.load(args.source), args)
    modelfile.save(model, args.output)
    if not args.quiet:
        for line in said:
            print(printable(line), file=sys.stderr)
        written = args.output.stat().st_size
        note(f"wrote {args.output}: {written:,} bytes, sha256 {file_sha256(args.output)}")
    return 5 if failed else 0


def _refuse_half_binary(became: Conversion) -> None:
    """Raise ConversionError if a layer stays float that is binary on one side."""
    from bitinfer.errors import ConversionError

    found = [layer for layer in became.layers if layer.half_binary]
    if found:
        more = f", and {len(found) - 1} more layers" if len(found) > 1 else ""
        raise ConversionError(
            f"--strict: {printable(found[0].name)} stays float: {found[0].reason}{more}; "
            "without --strict the report says of each what would make it binary"
        )


def _verified(model: Model, args: argparse.Namespace, options: Options) -> list[str]:
    """Return the comparison in words, or raise ConversionError if model and source differ."""
    from bitinfer.cli._common import main_output
    from bitinfer.errors import ConversionError
    from bitinfer.importers.convert import read_network
    from bitinfer.session import Session
    from bitinfer.verify import random_inputs, verify
    from bitinfer.verify.page import lines
    from bitinfer.verify.runtime import by_framework

    path, x = args.source, random_inputs(model, 8)
    source = read_network(path, options)
    result = verify(model, source, x)
    session = Session(model)
    own = main_output(session, session.run(x))
    runtime = by_framework(path, source, x, own, network=args.network)
    found = lines(result, "the model", path.name, runtime)
    if not result.is_equal:
        raise ConversionError(f"--verify: {'; '.join(line.strip() for line in found)}")
    return found


def _with_mean_image(model: Model, path: Path) -> Model:
    """Return the model with the mean image at ``path`` as one of its tensors."""
    import msgspec

    from bitinfer.errors import UsageError
    from bitinfer.vision import read_mean_image

    p = model.preprocessing
    if p is None:
        raise UsageError(
            f"--mean-image {path}: nothing says how pictures become this network's input; "
            "add --std, --scale or --resize"
        )
    image = read_mean_image(path, p, model.graph.input.shape)
    name = "mean_image"
    while name in model.tensors:
        name += "_"
    p = msgspec.structs.replace(p, mean=(0.0,) * len(p.mean), mean_image=name)
    return dataclasses.replace(model, preprocessing=p, tensors={**model.tensors, name: image})


def _describe(report: Conversion) -> list[str]:
    """Lay out what became of every layer, each with its findings below it."""
    rows = [("layer", "operation", "shape", "parameters", "became", "why")]
    for layer in report.layers:
        shape = "x".join(map(str, layer.shape))
        count = f"{layer.parameters:,}"
        rows.append((layer.name, layer.operation, shape, count, layer.became, layer.reason))
    head, *lines = table(rows, right=frozenset({3}))
    result = [f"{report.source}: {report.format}", head]
    for layer, line in zip(report.layers, lines, strict=True):
        result.append(line)
        result += [f"  note: {finding}" for finding in layer.findings]
        if layer.mend:
            result.append(f"  to make it binary: {layer.mend}")
    result += [f"note: {finding}" for finding in report.findings]
    weights = report.binary_weights
    result.append(
        f"{report.parameters:,} parameters, {weights:,} of them bits "
        f"({100 * weights / max(report.parameters, 1):.1f} %)"
    )
    return result


def _number(text: str) -> float:
    numerator, slash, denominator = text.partition("/")
    try:
        value = float(numerator) / (float(denominator) if slash else 1)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(
            f"'{printable(text)}' is not a finite number, such as 0.5 or 1/255"
        )
    return value


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(_number(part) for part in text.split(","))


def _divisors(text: str) -> tuple[float, ...]:
    values = _numbers(text)
    if 0 in values:
        raise argparse.ArgumentTypeError(f"'{printable(text)}' holds 0, which is divided by")
    return values


def _size(text: str) -> tuple[int, int] | int:
    if re.fullmatch(r"\d{1,9}", text, re.ASCII):
        return positive(text)
    return _pair(text)


def _shape(text: str) -> tuple[int, ...]:
    parts = text.split("x")
    if len(parts) not in (1, 3):
        raise argparse.ArgumentTypeError(f"'{printable(text)}' is not HEIGHTxWIDTHxCHANNELS, or C")
    return tuple(positive(part) for part in parts)


def _pair(text: str) -> tuple[int, int]:
    # Also as others write it: 256X256, 256,256, and with the sign of multiplication.
    match = re.fullmatch(r"\s*(\d{1,9})\s*[xX,\u00d7]\s*(\d{1,9})\s*", text, re.ASCII)
    height, width = (int(match[1]), int(match[2])) if match else (0, 0)
    if not height or not width:
        raise argparse.ArgumentTypeError(
            f"'{printable(text)}' is no size; wanted HEIGHTxWIDTH, such as 224x224"
        )
    return height, width
