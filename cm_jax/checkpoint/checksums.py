"""Checksums of arrays, by which a tree that is read can be told from the tree that was saved.

A checksum is XXH3 of 64 bits (https://xxhash.com) of the bytes of one part of an array. The parts are
the shards of the array, so that each process sums its own and nothing is gathered. A part is named by
its dtype and its place in the array, as in 'float32[0:3,64:128]', and not by devices: it can be checked
on any other devices, or on none. Other bits are noticed, and so is another dtype, shape or name.

They guard against accidents, such as a disk that loses bits, and not against an attacker.
"""

import functools
import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import xxhash
from jax.experimental import multihost_utils

from cm_jax.sharding import to_host

Bounds = tuple[tuple[int, int], ...]  # the place of a part: (start, stop) along each dimension
Sums = dict[str, str]  # the parts of one array, each with its checksum in 16 hexadecimal digits

THREADS = min(8, os.cpu_count() or 1)  # more do not read memory faster


def of_tree(tree: Any) -> dict[str, Sums]:
    """Returns the checksums of a tree of arrays, by their paths in it, as 'params/conv/kernel'.

    Arrays on devices are copied to the host, where saving them finds the copy again. Processes that
    share arrays must all call this; each sums its own parts, and gets the checksums of all of them.
    """
    rows: list[tuple[str, str]] = []

    def parts() -> Iterator[Any]:
        for path, array in leaves(tree):
            for name, part in _parts(array).items():
                rows.append((path, name))
                yield part

    sums = np.array(_checksums(parts(), keep=True), np.uint64)
    if jax.process_count() > 1:  # JAX has no numbers of 64 bits by default: each goes as two of 32
        halves = multihost_utils.process_allgather(sums.view(np.uint32))
        sums = np.bitwise_or.reduce(halves, axis=0).view(np.uint64)
    found: dict[str, Sums] = {}
    for (path, name), value in zip(rows, sums.tolist(), strict=True):
        found.setdefault(path, {})[name] = f'{value:016x}'
    return found


def differing(tree: Any, saved: Mapping[str, Sums]) -> list[str]:
    """Returns the paths at which a tree is not the one with the checksums `saved`, sorted.

    A path that only one of them has counts too. Arrays on devices are copied to the host, a few at a
    time. Processes that share arrays must all call this; each answers for the parts that it has.
    """
    arrays = dict(leaves(tree))
    rows: list[tuple[str, str]] = []
    split_otherwise: list[str] = []

    def parts() -> Iterator[Any]:
        for path in sorted(arrays.keys() & saved.keys()):
            own = _parts(arrays[path], replicas=True)
            if own.keys() != saved[path].keys():
                split_otherwise.append(path)
                continue
            for name, part in own.items():
                if part is not None:
                    rows.append((path, saved[path][name]))
                    yield part

    sums = _checksums(parts())
    wrong = {path for (path, then), now in zip(rows, sums, strict=True) if int(then, 16) != now}
    wrong |= {path for path in split_otherwise if not _is_same(arrays[path], saved[path])}
    return sorted(wrong | (arrays.keys() ^ saved.keys()))


def leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yields (path, array) of the leaves of a tree; keys of random numbers as the numbers in them."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        yield jax.tree_util.keystr(path, simple=True, separator='/'), leaf


def _parts(array: Any, replicas: bool = False) -> dict[str, Any]:
    """Returns the parts of an array by their names, None for those that other processes sum.

    No part is summed by two processes; with `replicas`, each sums all that it has.
    """
    if not isinstance(array, jax.Array) or array.is_fully_replicated:
        name = _whole(array.dtype, array.shape)
        if not replicas and jax.process_index() > 0:
            return {name: None}
        return {name: array.addressable_shards[0].data if isinstance(array, jax.Array) else array}

    def name_of(index: tuple[slice, ...]) -> str:
        ends = (part.indices(size) for part, size in zip(index, array.shape, strict=True))
        return _name(array.dtype, tuple((start, stop) for start, stop, _ in ends))

    everywhere = array.sharding.devices_indices_map(array.shape).values()
    parts: dict[str, Any] = dict.fromkeys(map(name_of, everywhere))
    for shard in array.addressable_shards:
        if replicas or shard.replica_id == 0:
            parts[name_of(shard.index)] = shard.data
    return parts


@functools.lru_cache(maxsize=4096)
def _whole(dtype: np.dtype, shape: tuple[int, ...]) -> str:
    """Returns the name of the part that is a whole array."""
    return _name(dtype, tuple((0, size) for size in shape))


def _name(dtype: np.dtype, bounds: Bounds) -> str:
    """Returns the name of a part of an array."""
    return f'{dtype}[{",".join(f"{start}:{stop}" for start, stop in bounds)}]'


def _bounds(name: str) -> Bounds:
    """Returns the place that the name of a part says."""
    pairs = name.partition('[')[2].removesuffix(']').split(',')
    ends = (pair.split(':') for pair in pairs if pair)
    return tuple((int(start), int(stop)) for start, stop in ends)


def _is_same(array: Any, saved: Sums) -> bool:
    """Returns whether an array is the one that was saved in other parts than it is in now."""
    places = {name: _bounds(name) for name in saved}
    for name, place in places.items():
        fits = len(place) == array.ndim and name == _name(array.dtype, place)
        if not fits or any(stop > size for (_, stop), size in zip(place, array.shape)):
            return False
    if array.size != sum(math.prod(stop - start for start, stop in p) for p in places.values()):
        return False
    whole = to_host(array) if isinstance(array, jax.Array) else array
    parts = (whole[tuple(slice(*ends) for ends in place)] for place in places.values())
    return _checksums(parts) == [int(value, 16) for value in saved.values()]


def _checksums(arrays: Iterable[Any], keep: bool = False) -> list[int]:
    """Returns the checksums of the bytes of arrays in C order; 0 for None.

    A jax.Array keeps the copy on the host that numpy reads of it. Without `keep` another jax.Array of
    the same memory is read, and is dropped with its copy.
    """
    is_copied, ended = jax.default_backend() != 'cpu', object()
    sums: list[int] = []
    left, taking = iter(arrays), threading.Lock()

    def view(array: Any) -> memoryview:
        if is_copied and not keep and isinstance(array, jax.Array):
            array = jax.make_array_from_single_device_arrays(array.shape, array.sharding, [array])
        return np.ascontiguousarray(array).view(np.uint8).data

    def work(_: int) -> None:
        while True:
            with taking:
                array, i = next(left, ended), len(sums)
                if array is ended:
                    return
                sums.append(0)
            if array is not None:
                sums[i] = xxhash.xxh3_64_intdigest(view(array))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))  # raises what one of them has raised
    return sums
