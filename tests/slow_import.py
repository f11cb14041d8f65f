"""A user's module that takes long to import, like many large libraries."""

import time

IMPORT_SECONDS = 0.3
time.sleep(IMPORT_SECONDS)


def double(x):
    return 2 * x
