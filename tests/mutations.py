"""Wrong files made of good ones, for the scripts that attack readers."""

from __future__ import annotations

import io
import json
import random
import zipfile
from typing import Any


class Mutations:
    """Changes bytes, members of archives, numbers and words of JSON; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def changed(self, data: bytes) -> bytes:
        """Set, insert, delete or repeat a few bytes, or cut the rest off."""
        mutant = bytearray(data)
        for _ in range(self.rng.randint(1, 4)):
            at = self.rng.randrange(len(mutant) + 1)
            match self.rng.randrange(8):
                case 0:
                    mutant[at : at + 1] = bytes([self.rng.randrange(256)])
                case 1:
                    mutant[at : at + 4] = self.rng.choice([b"\xff", b"\0", b"\x7f"]) * 4
                case 2:
                    del mutant[at : at + self.rng.randint(1, 9)]
                case 3:
                    other = self.rng.randrange(len(mutant) + 1)
                    mutant[at:at] = mutant[other : other + self.rng.randint(1, 40)]
                case 4 if self.rng.randrange(4) == 0:
                    del mutant[at:]
                case 5:
                    mutant[at : at + 8] = self.rng.randrange(1 << 64).to_bytes(8, "little")
                case _:
                    place = min(at, len(mutant) - 1)
                    if place >= 0:
                        mutant[place] ^= 1 << self.rng.randrange(8)
        return bytes(mutant)

    def text(self, document: bytes) -> bytes:
        """Change JSON by its values, and anything else by its bytes."""
        if document.lstrip().startswith(b"{") and self.rng.randrange(4):
            return json.dumps(self.value(json.loads(document))).encode()
        return self.changed(document)

    def value(self, root: Any) -> Any:
        """Change some values somewhere in a document."""
        for _ in range(self.rng.randint(1, 3)):
            node, parent, key = root, None, None
            while isinstance(node, dict | list) and node and self.rng.randrange(8):
                parent = node
                key = self.rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
                node = node[key]
            if parent is None:
                continue
            match self.rng.randrange(4):
                case 0 if isinstance(parent, dict):
                    del parent[key]
                case 1 if isinstance(parent, list):
                    parent.append(node)
                case _:
                    odd = [None, True, 0, -1, 1 << 31, 1 << 64, 0.5, 1e308, "", "x", "(1, 1)"]
                    parent[key] = self.rng.choice([*odd, [], {}, [[]], "ste_sign", "same"])
        return root

    def rezipped(self, data: bytes) -> bytes:
        """Change the members of an archive, or their names, and pack them again."""
        file = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(file, "w") as target:
            names = source.namelist()
            which = self.rng.choice(names)
            for name in names:
                content = source.read(name)
                if name == which:
                    content = (self.text if name.endswith(".json") else self.changed)(content)
                    if self.rng.randrange(20) == 0:
                        continue
                target.writestr(zipfile.ZipInfo(name), content)
        return file.getvalue()
