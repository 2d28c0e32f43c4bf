"""The program: signals are obeyed before anything that takes time is imported."""

import gc

from icl_circuits.stopping import obey_signals


def main() -> None:
    """The console script."""
    obey_signals()
    from icl_circuits.cli import main as run

    try:
        run()
    finally:
        gc.freeze()  # else Python looks through all of torch for garbage before it ends, for three seconds


if __name__ == "__main__":
    main()
