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
from collections.abc import Iterator, Mapping, Sequence
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
    parts = {path: _parts(array) for path, array in leaves(tree)}
    rows = [(path, name, part) for path in parts for name, part in parts[path].items()]
    if jax.default_backend() != 'cpu':
        for *_, part in rows:
            if isinstance(part, jax.Array):
                part.copy_to_host_async()
    sums = np.array(_checksums([part for *_, part in rows], keep=True), np.uint64)
    if jax.process_count() > 1:  # JAX has no numbers of 64 bits by default: each goes as two of 32
        halves = multihost_utils.process_allgather(sums.view(np.uint32))
        sums = np.bitwise_or.reduce(halves, axis=0).view(np.uint64)
    found: dict[str, Sums] = {path: {} for path in parts}
    for (path, name, _), value in zip(rows, sums.tolist(), strict=True):
        found[path][name] = f'{value:016x}'
    return found


def differing(tree: Any, saved: Mapping[str, Sums]) -> list[str]:
    """Returns the paths at which a tree is not the one with the checksums `saved`, sorted.

    A path that only one of them has counts too. Arrays on devices are copied to the host, a few at a
    time. Processes that share arrays must all call this; each answers for the parts that it has.
    """
    arrays, rows = dict(leaves(tree)), []
    wrong = arrays.keys() ^ saved.keys()
    for path in sorted(arrays.keys() & saved.keys()):
        parts = _parts(arrays[path], replicas=True)
        if parts.keys() == saved[path].keys():
            rows += [(path, name, part) for name, part in parts.items() if part is not None]
        elif not _is_same(arrays[path], saved[path]):
            wrong.add(path)
    sums = _checksums([part for *_, part in rows])
    for (path, name, _), value in zip(rows, sums, strict=True):
        if value != int(saved[path][name], 16):
            wrong.add(path)
    return sorted(wrong)


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
        return {name: array.addressable_data(0) if isinstance(array, jax.Array) else array}

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
    parts = [whole[tuple(slice(*ends) for ends in place)] for place in places.values()]
    return _checksums(parts) == [int(value, 16) for value in saved.values()]


def _checksums(arrays: Sequence[Any], keep: bool = False) -> list[int]:
    """Returns the checksums of the bytes of arrays in C order; 0 for None.

    A jax.Array keeps the copy on the host that numpy reads of it. Without `keep` another jax.Array of
    the same memory is read, and is dropped with its copy.
    """
    is_copied = jax.default_backend() != 'cpu'

    def view(array: Any) -> memoryview:
        if is_copied and not keep and isinstance(array, jax.Array):
            array = jax.make_array_from_single_device_arrays(array.shape, array.sharding, [array])
        return np.ascontiguousarray(array).view(np.uint8).data

    own = [i for i, array in enumerate(arrays) if array is not None]
    own.sort(key=lambda i: arrays[i].size)  # so that the threads have as much to do
    # A thread copies an array when it comes to it, so that few copies are there at a time.
    views = {} if is_copied else {i: view(arrays[i]) for i in own}

    def checksums(share: Sequence[int]) -> list[int]:
        return [xxhash.xxh3_64_intdigest(views.get(i) or view(arrays[i])) for i in share]

    found = [0] * len(arrays)
    shares = [own[first::THREADS] for first in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        for share, sums in zip(shares, pool.map(checksums, shares), strict=True):
            for i, value in zip(share, sums, strict=True):
                found[i] = value
    return found
