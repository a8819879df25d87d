"""One declarative model, trained the same on NumPy, Keras (TensorFlow) and torch.nn.

``unitrain.build`` makes a framework's own model from a specification, ``unitrain.fit`` trains a recipe. They are
imported when first used, so that ``import unitrain`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unitrain.api import build, fit, load_model, load_recipe, resolve, resume

__version__ = "0.1.0"

__all__ = ["__version__", "build", "fit", "load_model", "load_recipe", "resolve", "resume"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from unitrain import api

        return getattr(api, name)
    raise AttributeError(f"module 'unitrain' has no attribute '{name}'")
