"""From a `DataSpec` to arrays: sources, splits, preprocessing, augmentation."""

from __future__ import annotations
