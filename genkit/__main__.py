"""python -m genkit: prepares the process, then hands over to the command line.

OMP_WAIT_POLICY is read once, when torch loads OpenMP. With the default (active) policy, threads
that wait burn the processor: two threads with a busy neighbour were measured 2-7x slower than one.
"""

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Entry of `python -m genkit` and of the `genkit` script."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from genkit.cli import main as run  # after the line above, because it may import torch

    sys.exit(run())


if __name__ == "__main__":
    main()
