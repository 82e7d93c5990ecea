"""Door for a checkout: ``python cli.py TASK ...`` is the command ``iagan TASK ...``."""

import sys

from iagan_lightning.cli import main

if __name__ == "__main__":
    sys.exit(main())
