"""Launcher for a checkout: `python cli.py ...` is `tinymlds ...`."""

from tinymlds.cli import main

if __name__ == "__main__":
    main()
