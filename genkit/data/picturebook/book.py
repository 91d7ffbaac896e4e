"""Many pictures, or what a model makes of them, as one array that is kept on disk.

A training run looks at the same scenes again and again, and a rendering takes a few milliseconds.
`pictures(seeds, size)` renders them in processes, writes one uint8 array "N H W 3" and maps it
into memory; the next call finds it; other views, outlines and the semantic map, likewise.
`cached` does the same with any rows. The cache is no part of any result: delete it at will.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from .scene import VERSION, Scene

__all__ = ["cached", "pictures", "rendered"]


def cached(
    name: str, shape: tuple[int, ...], dtype: type, rows: Callable[[], Iterator[np.ndarray]]
) -> np.ndarray:
    """The array of this name as a read-only memory map; `rows()` makes what is not there yet.

    Args:
        name: Must say everything that the values depend on.
        shape: Of the whole array; `rows` gives shape[0] rows in order.
        dtype: Of the numbers.
        rows: Makes the rows, one after the other.

    Raises:
        OSError: If the cache cannot be written; GENKIT_CACHE names its folder (runs/cache).
    """
    path = Path(os.environ.get("GENKIT_CACHE", "runs/cache")) / f"{name}.npy"
    if not path.exists():
        # One name a process: two runs that start together must not write into one file.
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            array = np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=shape)
            for i, row in zip(range(shape[0]), rows(), strict=True):
                array[i] = row
            array.flush()
            part.replace(path)
        except OSError as error:
            raise OSError(
                f"The cache {path} cannot be written ({error.strerror or error}): name another "
                "folder in the environment variable GENKIT_CACHE."
            ) from error
        finally:
            with suppress(OSError):
                part.unlink()
    return np.load(path, mmap_mode="r")


View = Callable[[Scene, int], Image.Image]
"""One of the ways to look at a scene: `Scene.render`, `.outline`, `.semantic_map` …"""


def pictures(
    seeds: range, size: int, held_out: bool = False, view: View = Scene.render
) -> np.ndarray:
    """Pictures of the scenes of these seeds, uint8, as a read-only memory map.

    "N H W 3", or "N H W" where the view has no colours.

    Args:
        seeds: The seeds, for example `SPLITS["train"][:60_000]`.
        size: Side of the pictures in pixels.
        held_out: Draw the scenes with pairs of `HELD_OUT` (see `Scene.random`).
        view: What is seen of the scenes.

    Raises:
        OSError: If the cache cannot be written.
    """
    name = f"book-v{VERSION}-{size}-{seeds.start}-{seeds.stop}-{seeds.step}"
    name += "" if view is Scene.render else f"-{view.__name__}"
    name += "-held-out" if held_out else ""
    shape = (len(seeds), size, size, 3)[: 4 if view is Scene.render else 3]
    return cached(name, shape, np.uint8, lambda: rendered(seeds, size, held_out, view))


def rendered(
    seeds: range, size: int, held_out: bool = False, view: View = Scene.render
) -> Iterator[np.ndarray]:
    """The same pictures one by one, drawn now in as many processes as there are cores."""
    jobs = ((seed, size, held_out, view) for seed in seeds)
    # Spawned, not forked: a forked child would inherit the locks of torch's threads.
    with multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        yield from pool.imap(_render, jobs, chunksize=64)


def _render(job: tuple[int, int, bool, View]) -> np.ndarray:
    seed, size, held_out, view = job
    return np.asarray(view(Scene.random(seed, held_out), size))
