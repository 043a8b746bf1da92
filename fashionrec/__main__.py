"""``python -m fashionrec`` and the console script."""

from __future__ import annotations

import sys


def main() -> None:
    from fashionrec.cli.main import make_app

    make_app(sys.argv[1] if len(sys.argv) > 1 else None)()


if __name__ == "__main__":
    main()
