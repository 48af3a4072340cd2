"""Small caches of random features, and what a folder holds."""

import numpy as np
import torch

from imagebind_llm.cache.build import BuildConfig, build
from imagebind_llm.cache.indexing import IndexConfig

WIDTH = 16


def random_features(count, width=WIDTH, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def stored(features):
    """What a cache keeps of features."""
    return torch.nn.functional.normalize(features, dim=-1).half().float()


def make_cache(folder, features, **index):
    """A cache of features, through a file."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "features.npy", features.numpy())
    cache = folder / "cache"
    build(BuildConfig(cache=str(cache), source=str(folder / "features.npy"), index=IndexConfig(**index)))
    return cache


def contents(folder, below="*"):
    """Name -> bytes of all files but locks and notes of progress."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob(below))
        if path.is_file() and "lock" not in path.name
    }
