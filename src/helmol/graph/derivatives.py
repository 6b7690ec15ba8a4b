"""Frames that can be differentiated with respect to the direction, everywhere and twice.

The gauge γ = 0 of :mod:`helmol.graph.frames` winds around the z axis, so its own derivative has a pole
there. What the network computes from a frame W does not depend on the gauge, so any change of W that
carries the axis along gives the same derivative; the smallest one is the rotation by ``ω = r̂ × dr̂``:

    dW_l = (Σ_a ω_a L_a) W_l,   dE = τ · ω,   τ_a = Σ_l ⟨∂E/∂W_l, L_a W_l⟩,   ∂E/∂r̂ = τ × r̂.

``L_a`` are the constant generators of rotations about x, y and z. The formula is itself made of W and
r̂, and τ × r̂ does not depend on the gauge either, so the same rule gives second derivatives.
It is right for gauge-invariant results only: matrix blocks in their edge frames are not.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from helmol.arrays import Float, Float64
from helmol.basis import wigner_d


class TurningFrames(torch.autograd.Function):
    """Attach the derivative above to frames that were computed without one."""

    @staticmethod
    def forward(ctx: Any, unit: Tensor, *frames: Tensor) -> tuple[Tensor, ...]:
        """Return the frames ``W_l [P, 2l+1, 2l+1]`` of unit vectors ``[P, 3]``."""
        copies = tuple(frame.clone() for frame in frames)
        ctx.save_for_backward(unit, *copies)
        return copies

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return ``τ × r̂``; made of differentiable operations on the saved outputs."""
        unit, *frames = ctx.saved_tensors
        torque = torch.zeros_like(unit)
        for l, (gradient, frame) in enumerate(zip(gradients, frames, strict=True)):
            if l > 0:
                outer = (gradient @ frame.mT).flatten(1)
                torque = torque + outer @ generators(l).to(unit).flatten(1).T
        return torch.linalg.cross(torque, unit), *[None] * len(frames)


def turning_frames(
    unit: Float[Tensor, "P 3"], frames: tuple[Float[Tensor, "P _ _"], ...]
) -> tuple[Float[Tensor, "P _ _"], ...]:
    """Return ``frames``, differentiable with respect to ``unit``; see the module's text.

    Args:
        unit: unit vectors, ``[P, 3]``.
        frames: :func:`helmol.graph.frames.frames_of_directions` of their values.
    """
    turned: tuple[Tensor, ...] = TurningFrames.apply(unit, *frames)
    return turned


@cache
def generators(l: int) -> Float64[Tensor, "3 m m"]:
    """Return ``L_a = dD_l(rotation by ω about a)/dω`` at ω = 0 for a = x, y, z: ``[3, 2l+1, 2l+1]``, float64.

    The elements of D are trigonometric polynomials of degree l in ω, so 2l+1 samples give the derivative
    exactly: ``D'(0) = (2/N) Σ_n D(ω_n) Σ_k k sin kω_n``.
    """
    n = 2 * l + 1
    angles = 2 * np.pi * np.arange(n) / n
    k = np.arange(1, l + 1)
    weights = 2 / n * (k * np.sin(np.outer(angles, k))).sum(axis=1)
    result = np.zeros((3, n, n))
    for axis in range(3):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        for angle, weight in zip(angles, weights, strict=True):
            rotation = np.eye(3)
            rotation[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
            result[axis] += weight * wigner_d(l, rotation)
    return torch.from_numpy(0.5 * (result - result.transpose(0, 2, 1)))
