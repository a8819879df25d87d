"""Updates of all parameters at once: torch's fused Adam where the updater is exactly that, else its own rule.

torch's kernel takes lr, eps and the number of the step, and corrects the averages itself. Here the corrections are
given, as a = lr / (1 - b1^t) and r = 1 / sqrt(1 - b2^t):

    a m / (sqrt(v) r + eps) = (a / r) m / (sqrt(v) + eps / r),

which is a step without corrections, at a number so large that b^t is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from unitrain.backends.rule import Updater
from unitrain.backends.torch.namespace import NAMESPACE
from unitrain.backends.torch.transfer import Tensors
from unitrain.spec.optimizers import Adam

UNCORRECTED = 1e30
"""Number of a step at which b^t is 0 for every b below 1."""


class Updates:
    """Changes parameters and slots in place.

    Parameters
    ----------
    updater
        The rule.
    parameters, slots
        Tensors by name, which stay the same objects: ``slots[slot][parameter]``.
    """

    def __init__(self, updater: Updater, parameters: Tensors, slots: Mapping[str, Tensors]) -> None:
        self.updater, self.parameters, self.slots = updater, parameters, slots
        self.names = list(parameters)
        self._tensors = list(parameters.values())
        self._strides = [parameter.stride() for parameter in self._tensors]
        self._slots = {slot: [tensors[name] for name in parameters] for slot, tensors in slots.items()}
        self.decayed = [updater.fusible and bool(updater.decays.get(name)) for name in self.names]
        first = next(iter(parameters.values()), None)
        self.fused = (
            updater.fusible
            and isinstance(updater.spec, Adam)
            and first is not None
            and first.device.type in ("cpu", "cuda")
            and hasattr(torch, "_fused_adam_")
        )
        self._one = torch.ones_like(first.detach().reshape(-1)[0]) if first is not None else torch.ones(())
        self._steps = [torch.tensor(UNCORRECTED, device=self._one.device)] * len(parameters)
        self._skipped = torch.zeros((), device=self._one.device)
        self._scalars: npt.NDArray[np.float64] | torch.Tensor = np.empty((0, 0))

    def begin(self, coefficients: npt.NDArray[np.float64]) -> None:
        """Take the scalars of a block's steps, `contract.Plan.coefficients`.

        torch's kernel has numbers of the host; for the updater's own rule they go to the device once a block.
        """
        self._scalars = coefficients
        if not self.fused:
            self._scalars = torch.tensor(coefficients, dtype=self._one.dtype, device=self._one.device)

    def apply(self, gradients: Sequence[torch.Tensor], step: int, keep: torch.Tensor | None) -> None:
        """Take one update, where nothing is recorded for differentiation.

        Parameters
        ----------
        gradients
            In the order of the parameters; they stay as they are.
        step
            Number of the step in its block.
        keep
            A flag on the device: where it is down nothing changes. None for yes.
        """
        scalars = self._scalars[step]
        if isinstance(scalars, torch.Tensor):
            self._rule(gradients, scalars.unbind(), keep)
        else:
            decay, rate, root = scalars.tolist()
            self._adam(gradients, decay, rate / root, self._steps, self._epsilon / root, keep)

    def rows(self, coefficients: npt.NDArray[np.float64]) -> torch.Tensor:
        """Return what `apply_row` takes of a block's steps, on the device: ``[steps, scalars]``.

        torch's kernel cannot be given another eps in each step where the steps are recorded. So it corrects the
        averages itself: lr and the number n of a step are such that it comes to the corrections that are wanted,

            1 - b2^n = 1 / r^2,   lr = a (1 - b1^n).
        """
        if not self._fused_rows:
            return torch.tensor(coefficients, dtype=self._one.dtype, device=self._one.device)
        spec = self.updater.spec
        assert isinstance(spec, Adam)
        decay, rate, root = coefficients.T
        with np.errstate(divide="ignore", invalid="ignore"):
            number = np.log1p(-(root**-2.0)) / np.log(spec.beta2)
        # What is left of the correction may be too small for root.
        number = np.where(np.isfinite(number) & (number > 0), number, UNCORRECTED).astype(np.float32)
        lr = rate * (1.0 - spec.beta1 ** number.astype(np.float64))
        return torch.tensor(np.stack([decay, lr, number], axis=1), dtype=torch.float32, device=self._one.device)

    def apply_row(self, gradients: Sequence[torch.Tensor], row: torch.Tensor, keep: torch.Tensor | None) -> None:
        """Take one update as `apply`, with scalars that only the device knows: a row of `rows`."""
        scalars = row.unbind()
        if not self._fused_rows:
            self._rule(gradients, scalars, keep)
            return
        decay, lr, number = scalars
        self._adam(gradients, decay, lr, [number] * len(self._tensors), self._epsilon, keep)

    @property
    def _epsilon(self) -> float:
        assert isinstance(self.updater.spec, Adam)
        return self.updater.spec.epsilon

    @property
    def _fused_rows(self) -> bool:
        """torch's kernel reads numbers of the device in float32: too few digits for weights of float64."""
        return self.fused and self._one.dtype == torch.float32

    def _rule(
        self, gradients: Sequence[torch.Tensor], scalars: Sequence[torch.Tensor], keep: torch.Tensor | None
    ) -> None:
        named = dict(zip(self.names, gradients, strict=True))
        parameters, slots = self.updater.update(NAMESPACE, self.parameters, named, self.slots, scalars)
        for old, new in ((self.parameters, parameters), *((self.slots[slot], slots[slot]) for slot in self.slots)):
            for name, value in new.items():
                old[name].copy_(value if keep is None else torch.where(keep, value, old[name]))

    def _adam(
        self,
        gradients: Sequence[torch.Tensor],
        decay: float | torch.Tensor,
        lr: float | torch.Tensor,
        steps: list[torch.Tensor],
        epsilon: float,
        keep: torch.Tensor | None,
    ) -> None:
        spec = self.updater.spec
        assert isinstance(spec, Adam)
        parameters = self._tensors
        # Nothing is done to the gradients in place: autograd may give one tensor for two parameters.
        found: tuple[torch.Tensor, ...] = tuple(gradients)
        if spec.l2:
            penalties = torch._foreach_mul(parameters, [2.0 * spec.l2 * decayed for decayed in self.decayed])
            found = torch._foreach_add(found, penalties)
        if spec.clip_value is not None:
            found = torch._foreach_clamp_max(torch._foreach_clamp_min(found, -spec.clip_value), spec.clip_value)
        if spec.clip_norm is not None:
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(found)))
            found = torch._foreach_mul(found, torch.clamp_max(spec.clip_norm / (norm + 1e-6), 1.0))
        if spec.weight_decay and any(self.decayed):
            left = (1.0 - decay) * self._one
            left = left if keep is None else torch.where(keep, left, self._one)
            torch._foreach_mul_([p for p, decayed in zip(parameters, self.decayed, strict=True) if decayed], left)
        # The kernel reads memory as it lies, and convolutions give gradients in other orders.
        aligned = [
            gradient if gradient.stride() == stride else torch.empty_like(parameter).copy_(gradient)
            for gradient, stride, parameter in zip(found, self._strides, parameters, strict=True)
        ]
        torch._fused_adam_(
            parameters,
            aligned,
            self._slots["mean"],
            self._slots["variance"],
            [],
            steps,
            lr=lr,
            beta1=spec.beta1,
            beta2=spec.beta2,
            weight_decay=0.0,
            eps=epsilon,
            amsgrad=False,
            maximize=False,
            found_inf=None if keep is None else torch.logical_not(keep, out=self._skipped),
        )
        if spec.ema is not None:
            share = (1.0 - spec.ema) * self._one if keep is None else (1.0 - spec.ema) * keep.to(self._one.dtype)
            averages = self._slots["ema"]
            torch._foreach_add_(averages, torch._foreach_mul(torch._foreach_sub(parameters, averages), share))
