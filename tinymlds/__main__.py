"""`python -m tinymlds` is `tinymlds`."""

from tinymlds.cli import main

if __name__ == "__main__":
    main()
