"""Entry of the command line: ``splitleak``."""

import os

__all__ = ["main"]


def main() -> None:
    """See ``cli.app.main``; figures are drawn into files, whatever backend a notebook's shell names."""
    os.environ["MPLBACKEND"] = "agg"
    from splitleak.experiments.cli.app import main as run  # imports matplotlib, which would refuse a missing backend

    run()


if __name__ == "__main__":
    main()
