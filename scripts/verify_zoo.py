"""Runs ``unitrain verify`` on models of ``models/`` with the arguments of ``scripts/zoo.yaml``, one process each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Verify the models that are named, or all; exit code 1 if one fails."""
    sizes = yaml.safe_load((ROOT / "scripts/zoo.yaml").read_text(encoding="utf-8"))
    models = {name: arguments for part in sizes.values() for name, arguments in part.items()}
    chosen = sys.argv[1:] or list(models)
    unknown = [name for name in chosen if name not in models]
    if unknown:
        sys.exit(f"no such model: {', '.join(unknown)}; there are {', '.join(models)}")
    failed = []
    for name in chosen:
        options = [word for argument, value in models[name].items() for word in ("--set", f"{argument}={value}")]
        command = ["unitrain", "verify", f"models/{name}.yaml", "--level", "forward,backward,step", *options]
        print(" ".join(command), flush=True)
        script = "import sys; from unitrain.cli.main import main; sys.exit(main())"
        done = subprocess.run([sys.executable, "-c", script, *command[1:], "--quiet"], cwd=ROOT)
        failed += [name] if done.returncode else []
    print(f"{len(chosen) - len(failed)} of {len(chosen)} pass" + (f"; failed: {', '.join(failed)}" if failed else ""))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
