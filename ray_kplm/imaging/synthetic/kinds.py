"""The kinds of synthetic categories, by name: `kplm synth --kind profile`.

The command line imports this module, so it imports no renderer; `category` has the renderers.
"""

from __future__ import annotations

KINDS: dict[str, str] = {
    "creature": "the head of a horned creature seen from the front, in front of clutter: 14 landmarks, 5 left/right pairs",
    "profile": "a four-legged animal seen from the side, half of them facing left: 18 landmarks, no left/right pairs",
}
"""Name of each kind -> what its images show."""

DEFAULT = "creature"
