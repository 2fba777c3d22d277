#!/usr/bin/env python3
"""Makes media/noise.bin: 1,500,000 bytes that no compression shortens and everybody can make again.

Block i is SHA-256("minicache" and i as eight bytes, least significant first).

    python3 made/noise.py > media/noise.bin
"""

import hashlib
import sys

LENGTH = 1_500_000

blocks = (hashlib.sha256(b"minicache" + i.to_bytes(8, "little")).digest() for i in range(-(-LENGTH // 32)))
sys.stdout.buffer.write(b"".join(blocks)[:LENGTH])
