"""The entry of the command line, which needs nothing but the standard library until it knows that the rest is there."""

from __future__ import annotations

import sys

from qfx import doctor


def main() -> None:
    """Run the command line; `qfx doctor` runs also where the packages that the other commands import are missing."""
    if sys.argv[1:] in (["doctor"], ["doctor", "--json"]):
        sys.exit(doctor.run(as_json="--json" in sys.argv))
    try:
        from qfx import cli
    except ImportError as error:
        sys.exit(
            f"error: qfx must be able to import {error.name or 'its packages'}, but: {error}; "
            "`qfx doctor` says what to install"
        )
    cli.main()


if __name__ == "__main__":
    main()
