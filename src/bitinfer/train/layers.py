"""Binary layers in PyTorch, in four modes, and what stands between them.

    mode            weights             input       source
    xnor            alpha sign(w)       sign(x)     XNOR-Net, section 3.2 (arXiv 1603.05279)
    bwn             alpha sign(w)       x           Binary-Weight-Networks, section 3.1 there
    binaryconnect   sign(w)             x           BinaryConnect (arXiv 1511.00363)
    bnn             sign(w)             sign(x)     BinaryNet (arXiv 1602.02830)

In xnor and bwn real weights are centred over the input channels, as in XNOR-Net-PyTorch.  With
beta, xnor multiplies with the map K of XNOR-Net's equation 11.  Stochastic binaryconnect takes +1
with the probability clip((w + 1) / 2, 0, 1) while training, and signs in evaluation.

Where both operands are signs they are summed before a scale is applied: an exact integer in float32
(below 2**24), and an exported network counts the very same integer, unless a weight is so close
to the mean of its tap that float32 and float64 round it to different sides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from bitinfer.train import xnor
from bitinfer.train.signs import polynomial_sign, sign

Mode = Literal["xnor", "bwn", "binaryconnect", "bnn"]
Signs = Callable[[Tensor], Tensor]


class _Binary(nn.Module):
    """What both layers share; ``weight`` is (out, in, ...)."""

    weight: Tensor
    mode: Mode

    def _configure(
        self, mode: Mode, *, stochastic: bool, sign: Signs, gradient: xnor.AlphaGradient
    ) -> None:
        if stochastic and mode != "binaryconnect":
            raise ValueError(f"stochastic weights are binaryconnect's, not those of {mode}")
        self.mode, self.stochastic, self.sign, self.gradient = mode, stochastic, sign, gradient

    def binary_weight(self) -> xnor.BinaryWeight:
        """Return signs (out, in, ...) and alpha (out,), which is 1 where the mode has none."""
        if self.mode in ("xnor", "bwn"):
            return xnor.binarise(self.weight, gradient=self.gradient)
        signs = _draw(self.weight) if self.stochastic and self.training else sign(self.weight)
        return xnor.BinaryWeight(signs, self.weight.new_ones(len(self.weight)))

    def binary_input(self, x: Tensor) -> Tensor:
        """Return the signs of x, or x itself where the mode has float activations."""
        return self.sign(x) if self.mode in ("xnor", "bnn") else x

    @torch.no_grad()
    def constrain(self) -> None:
        """Bring the real weights back into [-1, 1], centred where the mode centres.

        Done after each optimiser step: a weight beyond gets no gradient and would stay there.
        """
        centred = self.mode in ("xnor", "bwn")
        self.weight.copy_(
            xnor.centre_and_clamp(self.weight) if centred else self.weight.clamp(-1, 1)
        )


class BinaryConv2d(_Binary, nn.Conv2d):
    """Convolution of x (n, in, h, w) in one of the four modes; borders contribute 0.

    Takes what nn.Conv2d takes, and ``sign``, the sign of activations with its gradient.  With
    ``bfloat16`` products are summed in float32 and rounded to 8 bits while training, in which signs
    are exact and sums beyond 256 are off by up to 0.4 %; in evaluation nothing is rounded.
    """

    def __init__(
        self,
        *arguments: Any,
        mode: Mode = "xnor",
        beta: bool = False,
        stochastic: bool = False,
        sign: Signs = sign,
        gradient: xnor.AlphaGradient = "full",
        bfloat16: bool = False,
        **options: Any,
    ) -> None:
        nn.Conv2d.__init__(self, *arguments, **options)
        self._configure(mode, stochastic=stochastic, sign=sign, gradient=gradient)
        if beta and mode != "xnor":
            raise ValueError(f"the beta map is xnor's, not that of {mode}")
        self.beta = beta
        self.bfloat16 = bfloat16

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, D102 - as in the class above
        signs, alpha = self.binary_weight()
        x = self.binary_input(input)
        if self.bfloat16 and self.training:
            x, signs = x.bfloat16(), signs.bfloat16()
        y = functional.conv2d(
            x, signs, None, self.stride, self.padding, self.dilation, self.groups
        ).to(input.dtype)
        if self.beta:
            y = y * self._beta_map(input)
        y = y * alpha[:, None, None]
        return y if self.bias is None else y + self.bias[:, None, None]

    def _beta_map(self, x: Tensor) -> Tensor:
        """Mean of abs(x) over channels and window, (n, 1, h, w), or one per group."""
        n, channels, height, width = x.shape
        mean = x.abs().reshape(n, self.groups, channels // self.groups, height, width).mean(dim=2)
        window = x.new_full((1, 1, *self.kernel_size), 1 / self.weight[0, 0].numel())
        windows = window.expand(self.groups, -1, -1, -1)
        k = functional.conv2d(
            mean, windows, None, self.stride, self.padding, self.dilation, self.groups
        )
        return k.repeat_interleave(self.out_channels // self.groups, dim=1)


class BinaryLinear(_Binary, nn.Linear):
    """Dense layer of x (n, in) in one of the four modes; takes what nn.Linear takes."""

    def __init__(
        self,
        *arguments: Any,
        mode: Mode = "xnor",
        stochastic: bool = False,
        sign: Signs = sign,
        gradient: xnor.AlphaGradient = "full",
        **options: Any,
    ) -> None:
        nn.Linear.__init__(self, *arguments, **options)
        self._configure(mode, stochastic=stochastic, sign=sign, gradient=gradient)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, D102 - as in the class above
        signs, alpha = self.binary_weight()
        y = functional.linear(self.binary_input(input), signs) * alpha
        return y if self.bias is None else y + self.bias


class RSign(nn.Module):
    """Sign of x plus a learned shift per channel; x (n, C, H, W).

    Source: Liu et al. 2020, "ReActNet" (arXiv 2003.03488): the shift is the negative
            threshold. The gradient is that of Bi-Real-Net's polynomial.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - described by the class
        return polynomial_sign(x + self.shift[:, None, None])


class RPReLU(nn.Module):
    """``prelu(x + shift_in) + shift_out``, all three learned per channel; x (n, C, H, W).

    Source: Liu et al. 2020, "ReActNet" (arXiv 2003.03488).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift_in = nn.Parameter(torch.zeros(channels))
        self.slope = nn.Parameter(torch.full((channels,), 0.25))
        self.shift_out = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - described by the class
        x = x + self.shift_in[:, None, None]
        x = torch.where(x < 0, x * self.slope[:, None, None], x)
        return x + self.shift_out[:, None, None]


class XnorBlock(nn.Module):
    """BatchNorm, sign, dropout, binary convolution, ReLU, in XNOR-Net's order (section 3.2).

    Behind it a maximum may be taken: over sums, not over signs, most of which would be +1.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int,
        *,
        epsilon: float,
        padding: int = 0,
        dropout: float = 0.0,
        bfloat16: bool = False,
    ) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(cin, eps=epsilon)
        self.dropout = dropout
        self.conv = BinaryConv2d(
            cin, cout, kernel, padding=padding, sign=self._sign, bfloat16=bfloat16
        )

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - described by the class
        return functional.relu(self.conv(self.bn(x)))

    def _sign(self, x: Tensor) -> Tensor:
        return functional.dropout(sign(x), self.dropout, self.training) if self.dropout else sign(x)


def is_binary(module: nn.Module) -> TypeGuard[_Binary]:
    """Tell whether a layer has binary weights."""
    return isinstance(module, _Binary)


def constrain(network: nn.Module) -> None:
    """Bring the real weights of every binary layer back to where they may be, in place."""
    for module in network.modules():
        if is_binary(module):
            module.constrain()


def _draw(weight: Tensor) -> Tensor:
    """Return +1 with the probability clip((w + 1) / 2, 0, 1), else -1, straight through.

    Source: BinaryConnect, equations 2 and 3.
    """
    probability = ((weight.detach() + 1) / 2).clamp(0, 1)
    drawn = 2 * torch.bernoulli(probability) - 1
    clipped = weight.clamp(-1, 1)
    # The value is drawn, exactly: what is added is 0; the gradient is that of the clipped weight.
    return drawn + (clipped - clipped.detach())
