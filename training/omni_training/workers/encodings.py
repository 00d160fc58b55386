"""Shares a frame's image encoding between the rollouts of a group.

The eight rollouts of a prompt ask the tracker about one clip; encoding its frames is most of a propagation's
cost. The paper puts all boxes of a group into one session for that reason; here the encodings are kept, so
the rollouts stay independent of each other.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray
from omni_sdk.dus.sam2.graphs import Features, Sam2Graphs


class CachedGraphs(Sam2Graphs):
    """`Sam2Graphs` that encode an image once, as long as the encodings fit."""

    def __init__(self, graphs: Sam2Graphs, max_bytes: int = 1 << 30) -> None:
        """Wrap graphs.

        Args:
            graphs: the model.
            max_bytes: of encodings held; the least recently used ones go.
        """
        self.__dict__.update(graphs.__dict__)  # the same engines and settings; nothing is copied
        self._graphs = graphs
        self._max_bytes = max_bytes
        self._held: OrderedDict[bytes, Features] = OrderedDict()
        self._bytes = 0
        self.hits = 0
        self.misses = 0

    def encode(self, image: NDArray[np.uint8]) -> Features:
        """Return the features of an (S, S, 3) uint8 image, computed or kept."""
        key = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
        features = self._held.get(key)
        if features is not None:
            self.hits += 1
            self._held.move_to_end(key)
            return features
        self.misses += 1
        features = self._graphs.encode(image)
        self._held[key] = features
        self._bytes += _size(features)
        while self._bytes > self._max_bytes and len(self._held) > 1:
            _, old = self._held.popitem(last=False)
            self._bytes -= _size(old)
        return features


def _size(features: Features) -> int:
    return features.feat_s0.nbytes + features.feat_s1.nbytes + features.pix_feat.nbytes
