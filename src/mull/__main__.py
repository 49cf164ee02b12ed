"""`python -m mull` is the command `mull`."""

from mull.cli.main import main

if __name__ == "__main__":  # a child process that imports its parent's main module runs nothing
    main()
