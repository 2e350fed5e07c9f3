"""Entry of the command line: ``splitleak``."""

from splitleak.experiments.cli.app import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
