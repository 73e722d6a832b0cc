"""PyTorch's float convolution, in eager mode."""

from __future__ import annotations

from typing import Any

from rig.engines import FLOAT_TOLERANCE, Engine, fastest, need
from rig.layers import Problem


def build(name: str, problem: Problem) -> Engine:
    """Return the faster of the two memory layouts."""
    torch: Any = need("torch", "torch")
    torch.set_num_threads(1)
    if problem.layer.is_dense:
        return fastest({"linear": lambda: _linear(torch, problem)})
    formats = {"nchw": torch.contiguous_format, "channels-last": torch.channels_last}
    return fastest(
        {form: lambda kind=kind: _conv(torch, problem, kind) for form, kind in formats.items()}
    )


def _conv(torch: Any, problem: Problem, memory_format: Any) -> Engine:
    layer = problem.layer
    x, weight = (
        torch.from_numpy(array).contiguous(memory_format=memory_format)
        for array in (problem.nchw(), problem.oihw())
    )
    bias = torch.from_numpy(problem.bias)

    def compute() -> Any:
        return torch.nn.functional.conv2d(x, weight, bias, layer.stride, layer.pad)

    return _engine(torch, problem, compute, lambda y: y[0].permute(1, 2, 0).numpy())


def _linear(torch: Any, problem: Problem) -> Engine:
    x = torch.from_numpy(problem.x.reshape(1, -1))
    weight = torch.from_numpy(problem.weight.reshape(problem.layer.outputs, -1))
    bias = torch.from_numpy(problem.bias)

    def compute() -> Any:
        return torch.nn.functional.linear(x, weight, bias)

    return _engine(torch, problem, compute, lambda y: y.numpy()[None])


def _engine(torch: Any, problem: Problem, compute: Any, as_array: Any) -> Engine:
    results: list[Any] = [None]

    def run() -> None:
        with torch.inference_mode():
            results[0] = compute()

    return Engine(
        run=run,
        output=lambda: as_array(results[0]),
        expected=problem.expected_float,
        tolerance=FLOAT_TOLERANCE,
        details={"version": f"torch {torch.__version__}"},
    )
