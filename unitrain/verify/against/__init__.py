"""A user's own model, in torch, Keras or ONNX, held to a spec."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from unitrain.backends.contract import Arrays
from unitrain.verify.against.loading import load_foreign, source_file
from unitrain.verify.against.session import LAYOUTS, Against, LayoutName, verify_against
from unitrain.verify.against.weight_map import read_map
from unitrain.verify.findings import Report
from unitrain.verify.subject import Subject

__all__ = ["LAYOUTS", "Against", "LayoutName", "against_report", "against_reports", "load_foreign", "verify_against"]


def against_report(
    subject: Subject,
    text: str,
    weights_map: Path | None = None,
    *,
    write_map: Path | None = None,
    layout: LayoutName = "auto",
    expected_weights: Arrays | None = None,
    tell: Callable[[str], None] = lambda message: None,
) -> Report:
    """Load what ``--against`` names, and hold it to a spec.

    Parameters
    ----------
    subject
        The spec with its data.
    text
        ``path.py:make_model`` or ``model.onnx``.
    weights_map
        A YAML file: canonical name to the user's name.
    write_map, layout, expected_weights, tell
        As of `verify_against`.

    Raises
    ------
    InputError
        The model or the map cannot be read, they do not fit the spec, or the model does not run.
    """
    texts = [text]
    (report,) = against_reports(
        subject, texts, weights_map, write_map=write_map, layout=layout, expected_weights=expected_weights, tell=tell
    )
    return report


def against_reports(
    subject: Subject,
    texts: Sequence[str],
    weights_map: Path | None = None,
    *,
    write_map: Path | None = None,
    layout: LayoutName = "auto",
    expected_weights: Arrays | None = None,
    tell: Callable[[str], None] = lambda message: None,
) -> Iterator[Report]:
    """Hold several models to one spec: an original and its ports, whose weights are to be the original's.

    Arguments and errors as of `against_report`; the map is that of the first model. The weights of the first, or
    ``expected_weights``, are what the others' are compared with.
    """
    document = None if weights_map is None else read_map(weights_map)
    for number, text in enumerate(texts):
        tell(f"loading {text}")
        done = verify_against(
            subject,
            load_foreign(text),
            weight_map=None if number else document,
            write_map=None if number else write_map,
            layout=layout,
            expected_weights=expected_weights,
            source=source_file(text),
            tell=tell,
        )
        if expected_weights is None:
            expected_weights = done.weights
        yield done.report
