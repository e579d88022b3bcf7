"""`python -m autom8_lab` is `autom8-lab`."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main(prog_name="autom8-lab")
