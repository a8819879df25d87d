"""The model object of this backend: a graph with its weights, to be called, read and differentiated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Arrays, Precision, Settings
from unitrain.backends.numpy.execution import Mode, Pass, backward, forward, zeros_where_missing
from unitrain.backends.numpy.registry import Array
from unitrain.backends.precision import check_precision
from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError, unknown_name
from unitrain.spec.layers.base import show_shape
from unitrain.spec.model import InputSpec
from unitrain.weights.initialize import check_weights

PRECISIONS: tuple[Precision, ...] = ("float32", "float64")


class NumpyModel:
    """A graph and its weights in NumPy.

    Parameters
    ----------
    graph
        The resolved model.
    weights
        All parameters, canonical names and layouts; copied in the working precision.
    settings
        Precision, and the seed of the dropout masks.

    Attributes
    ----------
    weights
        The parameters by canonical name, such as ``model.weights["conv1.kernel"]``.

    Examples
    --------
    >>> outputs = model(images)  # doctest: +SKIP
    >>> outputs = model.forward({"image": images}, training=True)  # doctest: +SKIP
    >>> inputs, parameters = model.backward({"logits": gradient})  # doctest: +SKIP
    """

    def __init__(self, graph: Graph, weights: Arrays, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        self.graph = graph
        check_precision("numpy", PRECISIONS, settings.precision)
        self.dtype = np.dtype(settings.precision)
        self.seed = settings.seed
        self.weights: dict[str, Array] = {}
        self.load_weights(weights)
        self._pass: Pass | None = None

    def load_weights(self, weights: Arrays) -> None:
        """Copy all parameters in. Raises `InputError` when names or shapes differ from the graph's."""
        problems = check_weights(self.graph, weights)
        if problems:
            raise InputError(f"the weights do not fit the model '{self.graph.name}': {'; '.join(problems[:5])}")
        # In C order, whatever was given: BLAS rounds otherwise where a kernel lies the other way round in memory.
        self.weights = {name: np.array(weights[name], self.dtype, order="C") for name in self.graph.parameters}

    def __call__(self, inputs: Arrays | npt.ArrayLike) -> dict[str, Array]:
        """Run inference: outputs by name. A model with one input takes its array as it is."""
        return self.run(inputs, Mode()).outputs()

    def forward(self, inputs: Arrays | npt.ArrayLike, training: bool = False, step: int = 0) -> dict[str, Array]:
        """Compute the outputs, and remember what `backward` needs.

        With ``training`` dropout drops, by the mask of ``step``, and batch norm uses the batch's statistics;
        the running ones stay as they are.
        """
        self._pass = self.run(inputs, Mode(training, self.seed, step), differentiate=True, input_gradients=True)
        return self._pass.outputs()

    def backward(self, output_gradients: Arrays) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the gradients by float inputs and by trainable parameters, for the last `forward`."""
        if self._pass is None:
            raise ValueError("call forward first; each forward serves one backward")
        done, self._pass = self._pass, None
        gradients = {}
        for output, gradient in output_gradients.items():
            if output not in self.graph.outputs:
                raise unknown_name("output", output, self.graph.outputs)
            gradients[output] = np.asarray(gradient, dtype=self.dtype)
        inputs, parameters = backward(done, gradients)
        floats = [name for name, given in self.graph.inputs.items() if given.dtype == "float"]
        return (
            zeros_where_missing(inputs, done.inputs, floats),
            zeros_where_missing(parameters, self.weights, self.graph.trainable),
        )

    def run(self, inputs: Arrays | npt.ArrayLike, mode: Mode, **options: bool) -> Pass:
        """Check the inputs and run `execution.forward` on them."""
        given = inputs if isinstance(inputs, Mapping) else {next(iter(self.graph.inputs)): np.asarray(inputs)}
        return forward(self.graph, self.weights, self.prepare(given), mode, **options)

    def prepare(self, inputs: Arrays) -> dict[str, Array]:
        """Check names, kinds and shapes, and bring the inputs into the working precision.

        Raises
        ------
        InputError
            An input is unknown or missing, has another shape, or holds fractions where integers belong.
        """
        for name in inputs:
            if name not in self.graph.inputs:
                raise unknown_name("input", name, self.graph.inputs)
        prepared = {}
        for name, given in self.graph.inputs.items():
            if name not in inputs:
                raise InputError(f"the input '{name}' is missing", allowed=", ".join(self.graph.inputs))
            prepared[name] = self._prepare(name, given, np.asarray(inputs[name]))
        if len({len(array) for array in prepared.values()}) > 1:
            sizes = ", ".join(f"{name} {len(array)}" for name, array in prepared.items())
            raise InputError("the inputs hold different numbers of samples", found=sizes)
        return prepared

    def _prepare(self, name: str, given: InputSpec, array: npt.NDArray[Any]) -> Array:
        if array.ndim == 0 or array.shape[1:] != given.shape:
            raise InputError(
                f"the input '{name}' has the wrong shape",
                found=str(list(array.shape)),
                allowed=show_shape(given.shape),
            )
        if given.dtype == "float":
            return array.astype(self.dtype, copy=False)
        if array.dtype.kind not in "iub":
            raise InputError(f"the input '{name}' must hold integers", found=str(array.dtype))
        return array.astype(np.int32, copy=False)
