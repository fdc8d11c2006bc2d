"""YAML that a person edits, as nodes that know their lines, so that an error can name the line, the key and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TypeGuard

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from ray_kplm.errors import ConfigError

LARGEST_BYTES = 2**20
"""Of a file; larger ones are none that a person edits."""
_NULL = "tag:yaml.org,2002:null"


class YamlFile:
    """A YAML file.

    Attributes:
        name: For errors.
        root: Its top node.
    """

    def __init__(self, content: bytes, name: str, *, if_empty: str) -> None:
        """Parse a file.

        Args:
            content: Of the file.
            name: Of the file, for errors.
            if_empty: The way out if nothing is in it.

        Raises:
            ConfigError: It is no YAML, or empty.
        """
        self.name = name
        if len(content) > LARGEST_BYTES:
            raise ConfigError(
                f"{name}: has {len(content):,} bytes, and at most {LARGEST_BYTES:,} are read; is it the file?"
            )
        try:
            root = yaml.compose(content.decode("utf-8-sig"), yaml.SafeLoader)
        except UnicodeDecodeError:
            raise ConfigError(f"{name}: is not text in UTF-8; save it so") from None
        except (yaml.YAMLError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            line = f", line {mark.line + 1}" if mark else ""
            problem = getattr(error, "problem", None) or " ".join(str(error).split())[:200]
            raise ConfigError(
                f"{name}{line}: is not readable as YAML ({problem}); text with ': ' or ' #' in it needs quotes"
            ) from None
        if root is None:
            raise ConfigError(f"{name}: is empty; {if_empty}")
        self.root: Node = root

    def error(self, node: Node, key: str, what: str) -> ConfigError:
        """Return the error about a node."""
        return ConfigError(f"{self.name}, line {line_of(node)}: {key}: {what}")

    def mapping(self, node: Node, key: str, known: Sequence[str]) -> dict[str, Node]:
        """Return the values of a mapping. Raises ConfigError if it is none, or has an unknown key or one twice."""
        if not isinstance(node, MappingNode):
            raise self.error(
                node, key, f"{shown(node)} is no mapping; it has the keys {', '.join(known)}, as in name: x"
            )
        found: dict[str, Node] = {}
        for name, value in node.value:
            text = name.value if isinstance(name, ScalarNode) else shown(name)
            if text not in known:
                raise self.error(name, text, f"unknown key; {suggestion(text, known, 'known keys:')}")
            if text in found:
                raise self.error(name, text, f"stands in line {line_of(found[text])} already; keep one")
            found[text] = value
        return found

    def list_of(self, node: Node, key: str) -> list[Node]:
        """Return the nodes of a list; none of a key without a value. Raises ConfigError if it is another thing."""
        if is_null(node):
            return []
        if not isinstance(node, SequenceNode):
            raise self.error(node, key, f"{shown(node)} is no list; write [...], or lines that begin with '- '")
        return list(node.value)


def line_of(node: Node) -> int:
    """Return the number of the line in which a node begins, from 1."""
    return int(node.start_mark.line) + 1


def is_null(node: Node) -> bool:
    """Return whether a node is `null`, or nothing."""
    return isinstance(node, ScalarNode) and node.tag == _NULL


def is_number(node: Node) -> TypeGuard[ScalarNode]:
    """Return whether a node is a whole number from 0 on, in digits."""
    return isinstance(node, ScalarNode) and node.value.isascii() and node.value.isdecimal()


def shown(node: Node) -> str:
    """Return what a node is, for an error."""
    if isinstance(node, ScalarNode):
        return repr(node.value[:40])
    return "a list" if isinstance(node, SequenceNode) else "a mapping"


def suggestion(word: str, known: Sequence[str], otherwise: str) -> str:
    """Return a question for the most similar of the known words, or all of them."""
    similar = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {similar[0]}?" if similar else f"{otherwise} {', '.join(known)}"
