"""`python -m tinymlds.cli` is `tinymlds`."""

from tinymlds.cli import main

if __name__ == "__main__":
    main()
