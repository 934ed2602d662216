"""Momentum orthogonalised by Newton-Schulz iteration: the optimiser for the matrices inside the layers.

Makes all directions of an update equally long, so that rare ones, such as copying a name, are learnt sooner.
Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
"""

from __future__ import annotations

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalise(updates: torch.Tensor) -> torch.Tensor:
    """Nearly orthogonal matrices with the row and column spaces of ``updates[n, rows, columns]``, rows <= columns."""
    a, b, c = COEFFICIENTS
    x = updates / (updates.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


class Muon:
    """Steps a list of matrices; matrices of one shape are orthogonalised together.

    Parameters
    ----------
    matrices
        Parameters of two dimensions.
    momentum
        Share of the last update that is kept, Nesterov style.
    decay
        Weight decay, times the rate.
    """

    def __init__(self, matrices: list[torch.nn.Parameter], *, momentum: float = 0.95, decay: float = 0.05) -> None:
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"momentum must be from 0 to below 1, not {momentum!r}")
        self._momentum, self._decay = momentum, decay
        self._groups: dict[tuple[int, int], list[torch.nn.Parameter]] = {}
        for matrix in matrices:
            rows, columns = matrix.shape
            self._groups.setdefault((min(rows, columns), max(rows, columns)), []).append(matrix)
        self._buffers = {shape: torch.zeros(len(group), *shape) for shape, group in self._groups.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update with learning rate ``rate``."""
        for shape, group in self._groups.items():
            gradients = torch.stack([_flat(_gradient(matrix)) for matrix in group])
            buffer = self._buffers[shape]
            buffer.lerp_(gradients, 1 - self._momentum)
            updates = orthogonalise(gradients.lerp(buffer, self._momentum))
            for matrix, update in zip(group, updates, strict=True):
                rows, columns = matrix.shape
                turned = update if rows <= columns else update.T
                matrix.mul_(1 - rate * self._decay)
                matrix.add_(turned, alpha=-rate * max(1.0, rows / columns) ** 0.5)


def _flat(gradient: torch.Tensor) -> torch.Tensor:
    return gradient if gradient.shape[0] <= gradient.shape[1] else gradient.T


def _gradient(matrix: torch.nn.Parameter) -> torch.Tensor:
    if matrix.grad is None:
        raise RuntimeError("A matrix has no gradient; run backward first")
    return matrix.grad
