"""``python -m amorsize`` is ``amorsize``."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
