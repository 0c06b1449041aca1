"""BLAKE3 from its paper, all chunks of a message at once: what tells whether a node's hashes are right."""

import numpy as np

IV = np.array(
    [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19], np.uint32
)
PERMUTED = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
MIXED = [
    (0, 4, 8, 12),
    (1, 5, 9, 13),
    (2, 6, 10, 14),
    (3, 7, 11, 15),
    (0, 5, 10, 15),
    (1, 6, 11, 12),
    (2, 7, 8, 13),
    (3, 4, 9, 14),
]
START, END, PARENT, ROOT = 1, 2, 4, 8


def turned(words, bits):
    return (words >> np.uint32(bits)) | (words << np.uint32(32 - bits))


def compressed(values, block, counter, length, flags):
    """New chaining values, of many blocks at once: words first, then which block."""
    v = np.empty((16, block.shape[1]), np.uint32)
    v[:8], v[8:12], v[12], v[13], v[14], v[15] = values, IV[:4, None], counter, 0, length, flags
    for _ in range(7):
        for place, (a, b, c, d) in enumerate(MIXED):
            for word, first, second in ((2 * place, 16, 12), (2 * place + 1, 8, 7)):
                v[a] += v[b] + block[word]
                v[d] = turned(v[d] ^ v[a], first)
                v[c] += v[d]
                v[b] = turned(v[b] ^ v[c], second)
        block = block[PERMUTED]
    return v[:8] ^ v[8:]


def leaves(data, first, root):
    """The chaining values of chunks that are all as long: whole ones, or one that is not."""
    length = len(data) if len(data) < 1024 else 1024
    count, blocks = max(len(data) // 1024, 1), max(-(-length // 64), 1)
    words = np.frombuffer(data.ljust(count * blocks * 64, b"\0"), "<u4").reshape(count, blocks, 16)
    values = np.repeat(IV[:, None], count, axis=1)
    for at in range(blocks):
        flags = (START if at == 0 else 0) | (END | root if at == blocks - 1 else 0)
        used = min(64, length - 64 * at)
        values = compressed(
            values, words[:, at].T.copy(), np.arange(first, first + count, dtype=np.uint32), used, flags
        )
    return values


def digest(data):
    """The 32 bytes of a hash."""
    whole = len(data) // 1024 * 1024
    alone = ROOT if len(data) <= 1024 else 0
    parts = [leaves(data[:whole], 0, alone)] if whole else []
    if whole < len(data) or not data:
        parts.append(leaves(data[whole:], whole // 1024, alone))
    level = np.concatenate(parts, axis=1)
    while level.shape[1] > 1:
        pairs = level.shape[1] // 2
        blocks = np.concatenate([level[:, 0 : 2 * pairs : 2], level[:, 1 : 2 * pairs : 2]])
        flags = PARENT | (ROOT if level.shape[1] == 2 else 0)
        level = np.concatenate([compressed(IV[:, None], blocks, 0, 64, flags), level[:, 2 * pairs :]], axis=1)
    return level[:, 0].astype("<u4").tobytes()
