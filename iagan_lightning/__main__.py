"""``python -m iagan_lightning`` is the command ``iagan``."""

import sys

from iagan_lightning.cli import main

sys.exit(main())
