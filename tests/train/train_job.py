"""The command line of qfx as a program, for torchrun."""

from qfx.cli import main

if __name__ == "__main__":
    main()
