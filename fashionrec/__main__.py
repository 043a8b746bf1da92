"""``python -m fashionrec`` and the console script."""

from __future__ import annotations


def main() -> None:
    from fashionrec.cli.main import app

    app()


if __name__ == "__main__":
    main()
