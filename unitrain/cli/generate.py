"""`unitrain generate`: let a language model go on with a text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def generate(
    run: Annotated[Path, typer.Argument(help="The run folder of a language model.")],
    prompt: Annotated[str, typer.Option(help="The text to go on with; - reads it from standard input.")],
    tokens: Annotated[int, typer.Option(min=1, help="How many tokens to add.")] = 200,
    temperature: Annotated[
        float, typer.Option(help="Above 1 is bolder, below 1 safer; 0 always takes the likeliest token.")
    ] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Draw from so many of the likeliest tokens only.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the likeliest tokens only, whose probabilities make this much.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Keys the draws: the same seed gives the same text.")] = 0,
    samples: Annotated[int, typer.Option(min=1, help="How many texts to write.")] = 1,
    stop: Annotated[str | None, typer.Option(help="End a text in front of this one.")] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Compute all positions anew for each token: slower, for comparison.")
    ] = False,
    backend: Annotated[
        str | None, typer.Option(help="numpy, keras, torch or onnx; by default the one it was trained on.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps or auto.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each text.")] = False,
) -> None:
    """Go on with a text, token by token, as a language model was trained to.

    Examples:

      unitrain generate runs/austen-gpt --prompt "It is a truth" --tokens 300 --temperature 0.8

      unitrain generate runs/austen-gpt --prompt "Emma" --top-k 20 --samples 3 --seed 1 --backend numpy
    """
    import json
    import sys

    from unitrain.train.generation import Sampling
    from unitrain.train.writer import Writer

    sampling = Sampling(temperature, top_k, top_p, seed)
    writer = Writer.open(run, backend=backend, device=device, whole=whole)
    given = sys.stdin.read() if prompt == "-" else prompt
    for note in writer.notes(given):
        typer.echo(note, err=True)
    if not as_json and samples == 1:
        sys.stdout.write(given)
        for piece in writer.stream(given, tokens, sampling, stop):
            sys.stdout.write(piece)
            sys.stdout.flush()
        typer.echo()
        return
    for number, (text, drawn) in enumerate(writer.write(given, tokens, sampling, samples, stop)):
        if as_json:
            typer.echo(json.dumps({"sample": number, "prompt": given, "text": text, "tokens": drawn}))
        else:
            typer.echo(f"--- {number + 1} of {samples}\n{given}{text}")
