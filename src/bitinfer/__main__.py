"""``python -m bitinfer``: the command line."""

from __future__ import annotations

import sys

from bitinfer.cli import main

if __name__ == "__main__":
    sys.exit(main())
