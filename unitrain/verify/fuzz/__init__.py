"""Random models, verified at all levels; what fails is shrunk to the smallest model that still does."""

from __future__ import annotations
