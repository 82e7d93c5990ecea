"""``python -m iagan_lightning`` is the command ``iagan``."""

import os
import sys

if sys.path and os.path.realpath(sys.path[0] or ".") == os.path.realpath("."):
    # python -m puts the working folder first, where a file such as random.py would stand in for Python's module.
    sys.path.append(sys.path.pop(0))

from iagan_lightning.cli import main

sys.exit(main())
