"""The colours of what workers do, in all pictures.

They are of the palette of Okabe and Ito (2008), which colour-blind people can tell apart.
"""

from __future__ import annotations

__all__ = ["COLOURS"]

COLOURS = {
    "first": "#E69F00",
    "start": "#999999",
    "import": "#CC79A7",
    "work": "#0072B2",
    "caller": "#56B4E9",
}
